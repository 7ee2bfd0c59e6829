//! Old checkpoints made fewer.
//!
//! A checkpoint every few seconds is some 5 MB a day, ten a second under alerts fifty times that. A day
//! later nobody needs them all: every later one covers the same records, and the tree proves any two that
//! are left consistent. So of checkpoints older than [`KEEP_ALL_NS`] the first and last of each file stay,
//! and between them one every [`SPACE_NS`]; their files are put together until one holds [`FILE_NOTES`]
//! (a day's). That is some 50 KB and one file a day.
//!
//! What it costs: where records older than a day were changed, and their tiles too, the stretch that a
//! verification can name is ten minutes long instead of some seconds.
//!
//! Crash safety: the file that holds what stays is durable before another is removed; what a crash leaves
//! twice is found to be the same and is dropped the next time. A file with anything but whole checkpoints in
//! it is left as it is, for `verify` to name.

use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::disk::{self, Disk};
use crate::note::{self, Note};
use crate::tlog::{self, TlogPaths};

/// Younger checkpoints all stay, nanoseconds.
const KEEP_ALL_NS: i64 = 24 * 3_600_000_000_000;
/// Of older ones one stays each so often, nanoseconds.
const SPACE_NS: i64 = 600_000_000_000;
/// A file with so many notes is not added to any more.
const FILE_NOTES: usize = 144;
/// Files looked at in one go.
const FILES_MAX: usize = 256;
/// Longest note, bytes.
const NOTE_BYTES_MAX: usize = 4096;

struct Kept {
    size: u64,
    wall_ns: i64,
    bytes: Vec<u8>,
}

/// The file that is being filled.
struct Filling {
    target: PathBuf,
    held: Vec<Kept>,
    /// Other files that went into it.
    merged: Vec<PathBuf>,
    changed: bool,
}

impl Filling {
    fn at(target: &Path) -> Self {
        Self {
            target: target.to_path_buf(),
            held: Vec::new(),
            merged: Vec::new(),
            changed: false,
        }
    }

    fn take(&mut self, path: PathBuf, notes: Vec<Kept>) {
        let before = self.held.len() + notes.len();
        for note in spaced(notes).0 {
            // what a crash left twice
            if self.held.last().is_none_or(|last| note.size > last.size) {
                self.held.push(note);
            }
        }
        self.changed |= self.held.len() != before || path != self.target;
        if path != self.target {
            self.merged.push(path);
        }
    }

    fn write(self, disk: &dyn Disk) -> Result<(), String> {
        if !self.changed {
            return Ok(());
        }
        let bytes: Vec<u8> = self.held.into_iter().flat_map(|k| k.bytes).collect();
        disk::replace(disk, &self.target, &bytes).map_err(failed("write", &self.target))?;
        for path in self.merged {
            disk.remove(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let what = format!("cannot {doing} {}", path.display());
    move |e| format!("{what}: {e}")
}

/// Makes what is older than a day fewer.
///
/// # Errors
/// When the disk refuses, in words.
pub(crate) fn thin(disk: &dyn Disk, paths: &TlogPaths, now_wall_ns: i64) -> Result<(), String> {
    let mut filling: Option<Filling> = None;
    let mut full = Vec::new();
    for path in old_files(disk, paths, now_wall_ns)? {
        let Some(notes) = read(disk, &path)? else {
            full.extend(filling.take());
            continue;
        };
        let is_young = |n: &Kept| n.wall_ns > now_wall_ns - KEEP_ALL_NS;
        if notes.last().is_none_or(is_young) {
            break;
        }
        let into = filling.get_or_insert_with(|| Filling::at(&path));
        into.take(path, notes);
        if into.held.len() >= FILE_NOTES {
            full.extend(filling.take());
        }
    }
    for into in full.into_iter().chain(filling) {
        into.write(disk)?;
    }
    let dir = &paths.history;
    disk.sync_dir(dir).map_err(failed("sync", dir))
}

/// Files of the history that may hold old checkpoints, oldest first: from behind the last full one on,
/// without the newest. Of young ones only the beginning is read.
fn old_files(disk: &dyn Disk, paths: &TlogPaths, now_wall_ns: i64) -> Result<Vec<PathBuf>, String> {
    let mut foreign = Vec::new();
    let mut files = tlog::history_files(disk, paths, &mut foreign).map_err(|e| e.to_string())?;
    files.pop();
    while let Some(path) = files.last()
        && begins(disk, path).is_some_and(|at| at > now_wall_ns - KEEP_ALL_NS)
    {
        files.pop();
    }
    let mut from = files.len();
    while from > 0 && files.len() - from < FILES_MAX {
        let is_full = |n: Vec<Kept>| n.len() >= FILE_NOTES && spaced(n).1 == 0;
        if read(disk, &files[from - 1])?.is_some_and(is_full) {
            break;
        }
        from -= 1;
    }
    Ok(files.split_off(from))
}

/// When the first checkpoint of a file was made.
fn begins(disk: &dyn Disk, path: &Path) -> Option<i64> {
    let bytes = disk::read_small(disk, path, NOTE_BYTES_MAX).ok()??;
    let (notes, _) = note::split(&bytes);
    Checkpoint::parse(&Note::parse(notes.first()?).ok()?.text)?.wall_ns
}

/// The first, the last, and between them one each [`SPACE_NS`]; and how many that leaves out.
fn spaced(notes: Vec<Kept>) -> (Vec<Kept>, usize) {
    let before = notes.len();
    let mut at = None;
    let mut keep = |(i, note): &(usize, Kept)| {
        // a clock that was set back begins anew
        let is_due = |t: i64| note.wall_ns.saturating_sub(t) >= SPACE_NS || note.wall_ns < t;
        let due = at.is_none_or(is_due);
        if due {
            at = Some(note.wall_ns);
        }
        due || *i + 1 == before
    };
    let kept: Vec<Kept> = notes
        .into_iter()
        .enumerate()
        .filter(|n| keep(n))
        .map(|(_, note)| note)
        .collect();
    let left_out = before - kept.len();
    (kept, left_out)
}

/// The checkpoints in a file; `None`: something else is in it, too.
fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<Kept>>, String> {
    let bytes =
        tlog::read_whole(disk, path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let (notes, rest) = note::split(&bytes);
    let parsed = notes.into_iter().map(|bytes| {
        let checkpoint = Checkpoint::parse(&Note::parse(bytes).ok()?.text)?;
        Some(Kept {
            size: checkpoint.size,
            wall_ns: checkpoint.wall_ns?,
            bytes: bytes.to_vec(),
        })
    });
    let parsed: Option<Vec<Kept>> = parsed.collect();
    Ok(parsed.filter(|n| rest.is_empty() && !n.is_empty()))
}
