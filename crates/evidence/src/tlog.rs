//! The signed side of a store on disk: `tlog/checkpoint` (the latest), `tlog/history` (all of
//! them), `tlog/keys` (the certificates), beside the tiles. Served as it is, the directory is what
//! tools for C2SP tlog-tiles expect.
//!
//! Reading believes nothing: what a file holds is parsed, and judged by a [`KeyChain`].

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Certificate, Checkpoint, KeyChain};
use crate::disk::{self, Disk};
use crate::error::ReadError;
use crate::note::{self, Note};
use crate::paths::TORN_MARK;

/// Longest file of notes that is read, in bytes: an epoch at ten checkpoints a second.
const NOTES_BYTES_MAX: usize = 64 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct TlogPaths {
    pub(crate) dir: PathBuf,
    pub(crate) history: PathBuf,
}

impl TlogPaths {
    pub(crate) fn new(root: &Path) -> Self {
        let dir = root.join("tlog");
        Self {
            history: dir.join("history"),
            dir,
        }
    }

    pub(crate) fn latest(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Checkpoints from this size on.
    pub(crate) fn notes(&self, size: u64) -> PathBuf {
        self.history.join(format!("{size:020}.notes"))
    }
}

/// A note in a file.
#[derive(Debug, Clone)]
pub(crate) struct FoundNote {
    pub(crate) path: PathBuf,
    /// Where in the file it begins.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What lies in the directory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) certificates: Vec<FoundNote>,
    pub(crate) latest: Option<FoundNote>,
    pub(crate) history: Vec<FoundNote>,
    /// Bytes that do not end as a note: file, place, length.
    pub(crate) torn: Vec<(PathBuf, u64, u64)>,
    /// Names that are not ours.
    pub(crate) foreign: Vec<PathBuf>,
}

/// Reads all there is.
pub(crate) fn read(disk: &dyn Disk, paths: &TlogPaths) -> Result<Found, ReadError> {
    let mut found = Found::default();
    found.latest = read_notes(disk, &paths.latest(), &mut found.torn)?.pop();
    found.certificates = read_notes(disk, &paths.keys(), &mut found.torn)?;
    for path in history_files(disk, paths, &mut found.foreign)? {
        let notes = read_notes(disk, &path, &mut found.torn)?;
        found.history.extend(notes);
    }
    Ok(found)
}

/// The latest file of the history, and the notes in it.
pub(crate) fn read_last(disk: &dyn Disk, paths: &TlogPaths) -> Result<Found, ReadError> {
    let mut found = Found::default();
    found.latest = read_notes(disk, &paths.latest(), &mut found.torn)?.pop();
    found.certificates = read_notes(disk, &paths.keys(), &mut found.torn)?;
    for path in history_files(disk, paths, &mut found.foreign)?
        .iter()
        .rev()
        .take(2)
    {
        found
            .history
            .extend(read_notes(disk, path, &mut found.torn)?);
    }
    Ok(found)
}

pub(crate) fn history_files(
    disk: &dyn Disk,
    paths: &TlogPaths,
    foreign: &mut Vec<PathBuf>,
) -> Result<Vec<PathBuf>, ReadError> {
    let items = match disk.list(&paths.history) {
        Err(e) if disk::is_missing(&e) => Vec::new(),
        listed => listed.map_err(io_error(&paths.history))?,
    };
    let mut files = Vec::new();
    for item in items {
        if item.name.contains(TORN_MARK) || item.name.ends_with(".tmp") {
            continue;
        }
        let size = item
            .name
            .strip_suffix(".notes")
            .filter(|digits| digits.len() == 20);
        match size.and_then(|digits| digits.parse().ok()) {
            Some(size) => files.push(paths.notes(size)),
            None => foreign.push(paths.history.join(item.name)),
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_path_buf();
    move |source| ReadError::Io { path, source }
}

fn read_notes(
    disk: &dyn Disk,
    path: &Path,
    torn: &mut Vec<(PathBuf, u64, u64)>,
) -> Result<Vec<FoundNote>, ReadError> {
    let bytes = read_whole(disk, path).map_err(io_error(path))?;
    let (notes, rest) = note::split(&bytes);
    let mut at = 0;
    let notes: Vec<FoundNote> = notes
        .into_iter()
        .map(|bytes| {
            let found = FoundNote {
                path: path.to_path_buf(),
                at,
                bytes: bytes.to_vec(),
            };
            at += bytes.len() as u64;
            found
        })
        .collect();
    if !rest.is_empty() {
        torn.push((path.to_path_buf(), at, rest.len() as u64));
    }
    Ok(notes)
}

pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let len = match disk.open(path, disk::OpenMode::Read) {
        Ok(file) => file.len()?,
        Err(e) if disk::is_missing(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let max = usize::try_from(len)
        .unwrap_or(usize::MAX)
        .min(NOTES_BYTES_MAX);
    Ok(disk::read_small(disk, path, max)?.unwrap_or_default())
}

/// Which certificate signed a note, found by the key ids that the note names.
pub(crate) struct Signers<'a> {
    by_id: HashMap<[u8; 4], Vec<&'a Certificate>>,
}

impl<'a> Signers<'a> {
    pub(crate) fn of(chain: &'a KeyChain) -> Self {
        let mut by_id: HashMap<_, Vec<_>> = HashMap::new();
        for certificate in &chain.certificates {
            by_id
                .entry(certificate.key.id())
                .or_default()
                .push(certificate);
        }
        Self { by_id }
    }

    pub(crate) fn signer(&self, note: &Note) -> Option<&'a Certificate> {
        let named = note
            .key_ids()
            .filter_map(|id| self.by_id.get(&id))
            .flatten();
        named
            .copied()
            .find(|certificate| note.is_signed_by(&certificate.key))
    }

    /// The checkpoint in a note that one of the keys signed, and by which.
    pub(crate) fn checkpoint(&self, bytes: &[u8]) -> Option<(Checkpoint, &'a Certificate)> {
        let note = Note::parse(bytes).ok()?;
        let by = self.signer(&note)?;
        let checkpoint = Checkpoint::parse(&note.text)?;
        (checkpoint.origin == by.key.name()).then_some((checkpoint, by))
    }
}

/// The newest checkpoint that the store's own keys signed; what recovery may rely on.
pub(crate) fn newest(found: &Found) -> Option<(Checkpoint, Vec<u8>)> {
    let certificates = found
        .certificates
        .iter()
        .filter_map(|c| Certificate::parse(&c.bytes));
    let all: Vec<Certificate> = certificates.collect();
    // A chain that had to begin anew is as good here: this asks what was promised, not by whom.
    let roots = all
        .iter()
        .filter(|c| c.is_root)
        .map(|c| c.key.clone())
        .collect::<Vec<_>>();
    let notes: Vec<&FoundNote> = found.history.iter().chain(&found.latest).collect();
    roots
        .iter()
        .flat_map(|root| {
            let chain = KeyChain::follow(all.iter().cloned(), Some(root));
            let signers = Signers::of(&chain);
            let read =
                |note: &&FoundNote| Some((signers.checkpoint(&note.bytes)?.0, note.bytes.clone()));
            notes.iter().filter_map(read).collect::<Vec<_>>()
        })
        .max_by_key(|(checkpoint, _)| checkpoint.size)
}
