//! Legal holds: records that stay readable whatever retention says.
//!
//! A hold names container instances and single records. Nothing is copied when it is laid; before
//! retention removes a payload file, the records in it that are held are copied beside it, with
//! their inclusion proofs and a checkpoint, durably. Readers find them there as if nothing had
//! been removed. A release removes the hold and the copies that no other hold needs.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decoder, Encoder};

use crate::checkpoint::Checkpoint;
use crate::disk::{self, Disk};
use crate::error::{ReadError, RetainError};
use crate::filter::Filter;
use crate::format::{FILE_HEADER_BYTES, FileHeader, HELD_MAGIC, HOLD_MAGIC, Salt};
use crate::journal::Journal;
use crate::note::Note;
use crate::pack::Packed;
use crate::reader::Reader;
use crate::record::{InstanceKey, Leaf, RetentionClass};

/// Holds that can lie at the same time.
pub const HOLDS_MAX: usize = 1000;
/// Container instances and records that one hold may name.
pub const HOLD_NAMES_MAX: usize = 100_000;
const HOLD_BYTES_MAX: usize = 8 << 20;
const HELD_BYTES_MAX: usize = 2 << 30;

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its name; letters, digits and hyphens.
    pub id: String,
    /// Records about these container instances, also future ones.
    pub containers: Vec<InstanceKey>,
    /// These records besides.
    pub leaves: Vec<Leaf>,
    /// When it was laid, wall clock, nanoseconds.
    pub wall_ns: i64,
    /// What it is about, for people.
    pub subject: String,
    /// Why, in the words of whoever laid it.
    pub reason: String,
    /// Who laid it.
    pub uid: u32,
}

impl Hold {
    fn wants(&self, leaf: u64, container: Option<InstanceKey>) -> bool {
        container.is_some_and(|key| self.containers.contains(&key))
            || self.leaves.contains(&Leaf(leaf))
    }

    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        let keys = self
            .containers
            .iter()
            .flat_map(|key| key.0)
            .collect::<Vec<u8>>();
        let written = e.map(7).and_then(|e| {
            e.u8(0)?
                .str(&self.id)?
                .u8(1)?
                .bytes(&keys)?
                .u8(2)?
                .array(self.leaves.len() as u64)?;
            for leaf in &self.leaves {
                e.u64(leaf.0)?;
            }
            e.u8(3)?
                .i64(self.wall_ns)?
                .u8(4)?
                .str(&self.subject)?
                .u8(5)?
                .str(&self.reason)?
                .u8(6)?
                .u32(self.uid)
        });
        written.map(drop).expect("writing to memory cannot fail");
        e.into_writer()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let mut hold = Self {
            id: String::new(),
            containers: Vec::new(),
            leaves: Vec::new(),
            wall_ns: 0,
            subject: String::new(),
            reason: String::new(),
            uid: 0,
        };
        for _ in 0..d.map().ok()?? {
            match d.u32().ok()? {
                0 => d.str().ok()?.clone_into(&mut hold.id),
                1 => {
                    let keys = d.bytes().ok()?.as_chunks::<16>();
                    hold.containers = keys.0.iter().copied().map(InstanceKey).collect();
                }
                2 => {
                    for _ in 0..d.array().ok()?? {
                        hold.leaves.push(Leaf(d.u64().ok()?));
                    }
                }
                3 => hold.wall_ns = d.i64().ok()?,
                4 => d.str().ok()?.clone_into(&mut hold.subject),
                5 => d.str().ok()?.clone_into(&mut hold.reason),
                6 => hold.uid = d.u32().ok()?,
                _ => d.skip().ok()?,
            }
        }
        Some(hold)
    }
}

/// Why a hold could not be laid or released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// The name is not one.
    #[error("a hold's name is made of letters, digits and hyphens, at most 64")]
    Name,
    /// It is there already.
    #[error("there is a hold {0} already")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no hold {0}")]
    Unknown(String),
    /// Too many.
    #[error("{0}")]
    TooMany(&'static str),
    /// The disk refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
}

fn dir_of(root: &Path) -> PathBuf {
    root.join("holds")
}

fn hold_path(root: &Path, id: &str) -> PathBuf {
    dir_of(root).join(format!("{id}.hold"))
}

/// Copies of one payload file's held records.
pub(crate) fn held_path(root: &Path, subtree: u64, class: RetentionClass) -> PathBuf {
    dir_of(root).join(format!("{subtree:020}.{:02}.held", class.number()))
}

fn is_name(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HoldError {
    let path = path.to_path_buf();
    move |source| HoldError::Io {
        doing,
        path,
        source,
    }
}

impl Reader {
    /// The holds in force, by name. One that is unreadable is an error: what it keeps is not
    /// known, so nothing may be removed.
    ///
    /// # Errors
    /// When a hold cannot be read.
    pub fn holds(&self) -> Result<Vec<Hold>, ReadError> {
        let (disk, paths, meta) = self.parts();
        let dir = dir_of(&paths.root);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ReadError::Io { path, source }
        };
        let items = match disk.list(&dir) {
            Err(e) if disk::is_missing(&e) => return Ok(Vec::new()),
            listed => listed.map_err(failed(&dir))?,
        };
        let mut holds = Vec::new();
        for item in items.iter().filter(|item| item.name.ends_with(".hold")) {
            let path = dir.join(&item.name);
            let bytes = disk::read_small(&**disk, &path, HOLD_BYTES_MAX)
                .map_err(failed(&path))?
                .unwrap_or_default();
            let body = body_of(&bytes, HOLD_MAGIC, |header| header.store == meta.store);
            let hold = body
                .and_then(Hold::decode)
                .ok_or_else(|| failed(&path)(io::Error::other("the hold is altered")))?;
            holds.push(hold);
        }
        holds.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(holds)
    }

    /// What holds have kept of a payload file that is gone: leaf → salt and content.
    pub(crate) fn held(
        disk: &dyn Disk,
        root: &Path,
        store: [u8; 16],
        subtree: u64,
        class: RetentionClass,
    ) -> HashMap<u64, (Salt, Vec<u8>)> {
        let records =
            read_held(disk, root, store, subtree, class).map_or(Vec::new(), |(_, records)| records);
        records
            .into_iter()
            .filter_map(|r| Some((r.leaf.0, r.payload?)))
            .collect()
    }
}

/// The checkpoint's note and the records of a file of held ones; `None`: altered or not there.
pub(crate) fn read_held(
    disk: &dyn Disk,
    root: &Path,
    store: [u8; 16],
    subtree: u64,
    class: RetentionClass,
) -> Option<(Vec<u8>, Vec<Packed>)> {
    let path = held_path(root, subtree, class);
    let len = disk.open(&path, disk::OpenMode::Read).ok()?.len().ok()?;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= HELD_BYTES_MAX)?;
    let bytes = disk::read_small(disk, &path, len).ok()??;
    let body = body_of(&bytes, HELD_MAGIC, |h| {
        h.store == store && h.first == subtree && h.class == class.number()
    })?;
    let (len, rest) = body.split_first_chunk::<4>()?;
    let (note, records) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    Some((note.to_vec(), Packed::decode_all(records)?))
}

/// What lies between header and checksum.
fn body_of(bytes: &[u8], magic: [u8; 8], ours: impl Fn(&FileHeader) -> bool) -> Option<&[u8]> {
    let header = FileHeader::decode(magic, bytes)
        .ok()
        .filter(|header| ours(header))?;
    let (all, crc) = bytes.split_last_chunk::<4>()?;
    let body = all.get(FILE_HEADER_BYTES..)?;
    let whole = header.a == body.len() as u64 && crc32c::crc32c(all) == u32::from_le_bytes(*crc);
    whole.then_some(body)
}

impl Journal {
    fn framed(&self, magic: [u8; 8], first: u64, class: u8, body: &[u8]) -> Vec<u8> {
        let mut header = self.store.meta.header(magic);
        (header.first, header.class, header.a) = (first, class, body.len() as u64);
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(body);
        let crc = crc32c::crc32c(&bytes).to_le_bytes();
        bytes.extend_from_slice(&crc);
        bytes
    }

    /// Lays a hold; durable when this returns. The caller records who did it and why.
    ///
    /// # Errors
    /// When its name is taken or none, it names too much, or the disk refuses.
    pub fn hold(&mut self, hold: &Hold) -> Result<(), HoldError> {
        let (disk, root) = (self.store.disk.clone(), self.store.paths.root.clone());
        let dir = dir_of(&root);
        if !is_name(&hold.id) {
            return Err(HoldError::Name);
        }
        if hold.containers.len() + hold.leaves.len() > HOLD_NAMES_MAX {
            return Err(HoldError::TooMany(
                "the hold names more than 100,000 containers and records",
            ));
        }
        disk.create_dir(&dir).map_err(io_error("create", &dir))?;
        disk.sync_dir(&root).map_err(io_error("sync", &root))?;
        let items = disk.list(&dir).map_err(io_error("list", &dir))?;
        if items
            .iter()
            .filter(|item| item.name.ends_with(".hold"))
            .count()
            >= HOLDS_MAX
        {
            return Err(HoldError::TooMany("1000 holds lie already"));
        }
        let path = hold_path(&root, &hold.id);
        if items.iter().any(|item| dir.join(&item.name) == path) {
            return Err(HoldError::Exists(hold.id.clone()));
        }
        let bytes = self.framed(HOLD_MAGIC, 0, 0, &hold.encode());
        disk::replace(&*disk, &path, &bytes).map_err(io_error("write", &path))
    }

    /// Ends a hold: its copies go, unless another hold needs them. The caller records it.
    ///
    /// # Errors
    /// When there is none of that name, or the disk refuses.
    pub fn release(&mut self, id: &str) -> Result<Hold, HoldError> {
        let (disk, root) = (self.store.disk.clone(), self.store.paths.root.clone());
        let unreadable = |e: ReadError| io_error("read", &dir_of(&root))(io::Error::other(e));
        let (mut gone, rest): (Vec<Hold>, Vec<Hold>) = self
            .reader()
            .holds()
            .map_err(unreadable)?
            .into_iter()
            .partition(|hold| hold.id == id);
        let hold = gone
            .pop()
            .ok_or_else(|| HoldError::Unknown(id.to_owned()))?;
        let path = hold_path(&root, id);
        disk.remove(&path).map_err(io_error("remove", &path))?;
        let dir = dir_of(&root);
        for item in disk.list(&dir).map_err(io_error("list", &dir))? {
            let Some((subtree, class)) = parse_held(&item.name) else {
                continue;
            };
            let kept = read_held(&*disk, &root, self.store.meta.store, subtree, class);
            let needed = kept.is_none_or(|(_, records)| {
                records.iter().any(|r| {
                    let container = r.header().and_then(|h| h.container);
                    rest.iter().any(|hold| hold.wants(r.leaf.0, container))
                })
            });
            if !needed {
                let path = dir.join(&item.name);
                disk.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        disk.sync_dir(&dir).map_err(io_error("sync", &dir))?;
        Ok(hold)
    }

    /// Copies what holds want of one payload file, before it goes; how many records.
    pub(crate) fn copy_held(
        &mut self,
        subtree: u64,
        class: RetentionClass,
    ) -> Result<usize, RetainError> {
        let holds = self.reader().holds()?;
        if holds.is_empty() {
            return Ok(0);
        }
        let leaves = subtree..subtree + u64::from(self.store.meta.subtree_leaves);
        let filter = Filter {
            leaves,
            classes: vec![class],
            ..Filter::default()
        };
        let mut held = Vec::new();
        for entry in self.reader().scan(filter)? {
            match entry {
                Ok(entry)
                    if holds
                        .iter()
                        .any(|h| h.wants(entry.leaf.0, entry.header.container)) =>
                {
                    held.push(entry)
                }
                Ok(_) => {}
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
                Err(_) => {} // damaged: there is nothing to copy
            }
        }
        if held.is_empty() {
            return Ok(0);
        }
        let (note, checkpoint) = self.seal_for_copy()?;
        let numbers: Vec<Leaf> = held.iter().map(|entry| entry.leaf).collect();
        let proofs = match &checkpoint {
            Some(c) => self.reader().inclusion_proofs(&numbers, c.size, &c.root)?,
            None => vec![Vec::new(); numbers.len()],
        };
        let mut body = u32::try_from(note.len())
            .unwrap_or(0)
            .to_le_bytes()
            .to_vec();
        body.extend_from_slice(&note);
        held.into_iter()
            .zip(proofs)
            .for_each(|(entry, proof)| Packed::new(entry, proof).encode(&mut body));
        let (disk, root) = (self.store.disk.clone(), self.store.paths.root.clone());
        let path = held_path(&root, subtree, class);
        let bytes = self.framed(HELD_MAGIC, subtree, class.number(), &body);
        disk::replace(&*disk, &path, &bytes).map_err(|source| RetainError::Io {
            doing: "write",
            path,
            source,
        })?;
        Ok(numbers.len())
    }

    /// A checkpoint over what is copied; none in a journal without keys.
    fn seal_for_copy(&mut self) -> Result<(Vec<u8>, Option<Checkpoint>), RetainError> {
        if !self.is_sealed() {
            return Ok((Vec::new(), None));
        }
        let sealed = self.checkpoint().map_err(RetainError::Unsealed)?;
        match self.reader().newest_checkpoint()? {
            Some((newest, note)) if newest.size == sealed.size => {
                debug_assert!(Note::parse(&note).is_ok(), "it was just read");
                Ok((note, Some(newest)))
            }
            _ => Err(RetainError::Unsealed(
                "the checkpoint just made cannot be read".to_owned(),
            )),
        }
    }
}

/// `SUBTREE.CLASS.held`
pub(crate) fn parse_held(name: &str) -> Option<(u64, RetentionClass)> {
    let (subtree, class) = name.strip_suffix(".held")?.split_once('.')?;
    Some((
        subtree.parse().ok()?,
        RetentionClass::new(class.parse().ok()?)?,
    ))
}

/// Leaves of a subtree whose content is held; for verification.
pub(crate) fn held_files(disk: &dyn Disk, root: &Path) -> BTreeSet<(u64, RetentionClass)> {
    let items = disk.list(&dir_of(root)).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| parse_held(&item.name))
        .collect()
}
