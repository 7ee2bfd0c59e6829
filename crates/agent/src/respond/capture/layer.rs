//! Files of the container: its writable layer and its file systems in memory.
//!
//! Promises: the writable layer is the one that the node knows for the container's root (by the
//! device of its overlay, in the mounts of the node or of the runtime's process; what a process in
//! the container says of its own mounts is never taken as a path of the node); file systems in
//! memory that are the node's own are left out and named. Each tree gives a list of all entries with
//! extended attributes and whiteouts, a body file for `mactime`, and the files' contents. Reading:
//! [`super::tree`]. Bounds: [`LAYER`], [`MEMORY`], [`MOUNTS_MAX`]. Format: `docs/formats/capture.md`.

use super::bundle::{Bundle, Origin};
use super::mounts::Place;
use super::patience::{Feed, Pieces};
use super::tree::{Bounds, Entry, Found, Time, walk};
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// Entries, bytes of all files and of one: the writable layer.
pub(super) const LAYER: (usize, u64, u64) = (50_000, 2 << 30, 512 << 20);
/// The same for each file system in memory.
pub(super) const MEMORY: (usize, u64, u64) = (10_000, 256 << 20, 128 << 20);
/// File systems in memory at most.
pub(super) const MOUNTS_MAX: usize = 64;
/// Of a list, this much is one artefact.
const LIST_BYTES: usize = 4 << 20;

/// A tree that is kept.
pub(super) struct Tree {
    /// Where in the bundle.
    pub(super) prefix: String,
    /// Where on the node, for people.
    pub(super) source: String,
    /// What may be used: see [`LAYER`].
    pub(super) bounds: (usize, u64, u64),
    /// The process through which it was reached.
    pub(super) process: Option<(u32, u64)>,
}

/// Keeps the writable layer, or notes why it cannot be had.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn writable(b: &mut Bundle, place: Result<Place, String>) -> io::Result<()> {
    match place {
        Err(why) => {
            b.gap(format!("writable layer: {why}"));
            Ok(())
        }
        Ok(place) => keep_place(b, place, "layer".to_owned(), LAYER),
    }
}

/// Keeps what is in the container's file systems in memory.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn in_memory(
    b: &mut Bundle,
    places: Vec<Place>,
    left_out: Vec<String>,
) -> io::Result<()> {
    for why in left_out {
        b.gap(format!("file system in memory {why}"));
    }
    for (n, place) in places.into_iter().enumerate() {
        if !b.open() {
            break;
        }
        let point = spell(place.point.as_bytes()).replace('/', "-");
        keep_place(b, place, format!("memory-files/{n}{point}"), MEMORY)?;
    }
    Ok(())
}

fn keep_place(
    b: &mut Bundle,
    place: Place,
    prefix: String,
    bounds: (usize, u64, u64),
) -> io::Result<()> {
    let tree = Tree {
        prefix,
        source: place.source,
        bounds,
        process: place.process.map(|p| (p.pid, p.start)),
    };
    keep(b, place.root, &tree)
}

/// Lists a tree and keeps its files.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn keep(b: &mut Bundle, root: OwnedFd, tree: &Tree) -> io::Result<()> {
    let (entries, bytes, file) = tree.bounds;
    let end = b.end();
    let bounds = Bounds {
        entries,
        bytes,
        file,
        end,
    };
    let mut lists = Lists::default();
    match walk(root, bounds) {
        Err(e) => b.gap(format!("{}: {e}", tree.source)),
        Ok(feed) => loop {
            match feed.next() {
                Err(e) => {
                    b.gap(format!("{}: the rest: {e}", tree.source));
                    break;
                }
                Ok(None) => break,
                Ok(Some(Found::Gap(what))) => b.gap(format!("{}: {what}", tree.source)),
                Ok(Some(Found::Entry(entry))) => {
                    lists.add(&entry);
                    if lists.list.len() >= LIST_BYTES || lists.body.len() >= LIST_BYTES {
                        lists.flush(b, tree)?;
                    }
                }
                Ok(Some(Found::Open(entry, size))) => {
                    if !b.open() {
                        break;
                    }
                    content(b, &feed, tree, &entry, size)?;
                }
                Ok(Some(Found::Data(_) | Found::Close(_))) => {}
            }
        },
    }
    lists.flush(b, tree)
}

/// Keeps the content of a file that the walk has just opened.
fn content(
    b: &mut Bundle,
    feed: &Feed<Found>,
    tree: &Tree,
    entry: &Entry,
    size: u64,
) -> io::Result<()> {
    let path = spell(entry.path.as_os_str().as_bytes());
    let origin = Origin {
        name: format!("{}/files/{path}", tree.prefix),
        source: format!("{}/{path}", tree.source),
        call: "openat2 O_PATH beneath, open, pread",
        process: tree.process,
    };
    let name = origin.name.clone();
    let (mut closed, mut wrong) = (false, None);
    // what follows the end is another entry's: nothing is taken from the walk after it
    let mut next = || match closed {
        true => Ok(None),
        false => match feed.next()? {
            Some(Found::Data(piece)) => Ok(Some(piece)),
            Some(Found::Close(w)) => {
                (closed, wrong) = (true, w);
                Ok(None)
            }
            _ => Ok(None),
        },
    };
    b.stream(origin, size, &mut Pieces::new(&mut next))?;
    // the end of the file, and what was not asked for any more
    while let Ok(Some(_)) = next() {}
    if let Some(wrong) = wrong {
        b.gap(format!("{name}: {wrong}"));
    } else if !closed {
        b.gap(format!("{name}: its end was not seen"));
    }
    Ok(())
}

/// The list for programs and the one for `mactime`, so far.
#[derive(Default)]
struct Lists {
    list: String,
    body: String,
    part: u32,
}

impl Lists {
    fn add(&mut self, entry: &Entry) {
        // writing to a string cannot fail
        let _ = writeln!(self.list, "{}", line(entry));
        let _ = writeln!(self.body, "{}", body_line(entry));
    }

    fn flush(&mut self, b: &mut Bundle, tree: &Tree) -> io::Result<()> {
        if self.list.is_empty() {
            return Ok(());
        }
        let from = |name: &str, part: u32| Origin {
            name: format!("{}/{name}-{part}", tree.prefix),
            source: tree.source.clone(),
            call: "getdents64, statx, getxattr, readlink",
            process: tree.process,
        };
        b.add(from("list.jsonl", self.part), self.list.as_bytes())?;
        b.add(from("bodyfile", self.part), self.body.as_bytes())?;
        self.part += 1;
        self.list.clear();
        self.body.clear();
        Ok(())
    }
}

/// An entry hides the one of the image: a device 0/0, or the mark of overlays of ordinary users.
fn is_whiteout(entry: &Entry) -> bool {
    let marked = |name: &[u8]| name.ends_with(b"overlay.whiteout");
    (entry.kind == FileType::CharacterDevice && entry.device == (0, 0))
        || entry.xattrs.iter().any(|(name, _)| marked(name))
}

/// A directory hides all that the image has in it.
fn is_opaque(entry: &Entry) -> bool {
    let is = |(name, value): &(Vec<u8>, Vec<u8>)| {
        name.ends_with(b"overlay.opaque") && (value == b"y" || value == b"x")
    };
    entry.xattrs.iter().any(is)
}

fn line(entry: &Entry) -> Value {
    let stamp = |t: Option<Time>| t.map(|(s, ns)| format!("{s}.{ns:09}"));
    let [accessed, modified, changed, born] = entry.times.map(stamp);
    let mut line = json!({
        "path": spell(entry.path.as_os_str().as_bytes()), "kind": kind_word(entry),
        "mode": format!("{:o}", entry.mode), "uid": entry.owner.0, "gid": entry.owner.1,
        "size": entry.size, "inode": entry.ino.0, "names": entry.ino.1,
        "accessed": accessed, "modified": modified, "changed": changed, "born": born,
    });
    if let Some(to) = &entry.link {
        line["link"] = spell(to).into();
    }
    if matches!(
        entry.kind,
        FileType::CharacterDevice | FileType::BlockDevice
    ) {
        line["device"] = format!("{}:{}", entry.device.0, entry.device.1).into();
    }
    if is_whiteout(entry) {
        line["whiteout"] = true.into();
    }
    if is_opaque(entry) {
        line["opaque"] = true.into();
    }
    if !entry.xattrs.is_empty() {
        let pairs = entry.xattrs.iter();
        let pairs = pairs.map(|(n, v)| (spell(n), Value::from(super::bundle::hex(v))));
        line["xattrs"] = Value::Object(pairs.collect());
    }
    line
}

fn kind_word(entry: &Entry) -> &'static str {
    match entry.kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
}

/// `MD5|name|inode|mode|uid|gid|size|atime|mtime|ctime|crtime`, the body file of The Sleuth Kit 3
/// and later (<https://wiki.sleuthkit.org/index.php?title=Body_file>); whiteouts are of its kind `w`.
fn body_line(entry: &Entry) -> String {
    let mut name = format!("/{}", spell(entry.path.as_os_str().as_bytes()));
    if let Some(to) = &entry.link {
        name += &format!(" -> {}", spell(to));
    }
    let kind = match entry.kind {
        _ if is_whiteout(entry) => 'w',
        FileType::RegularFile => 'r',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '-',
    };
    let [accessed, modified, changed, born] = entry.times.map(|t| t.map_or(0, |(s, _)| s));
    format!(
        "0|{name}|{}|{kind}/{kind}{}|{}|{}|{}|{accessed}|{modified}|{changed}|{born}",
        entry.ino.0,
        permissions(entry.mode),
        entry.owner.0,
        entry.owner.1,
        entry.size
    )
}

/// `rwxr-sr-t`, as `ls` writes it.
fn permissions(mode: u32) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Any bytes as a word of printable ASCII that can be turned back: `%XX` for the rest, for `%` and `|`.
pub(super) fn spell(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for b in bytes {
        match b {
            b'%' | b'|' | b'\\' => text.push_str(&format!("%{b:02X}")),
            0x20..=0x7e => text.push(char::from(*b)),
            _ => text.push_str(&format!("%{b:02X}")),
        }
    }
    text
}
