//! The preallocated segment that keeps alerts durable when the journal cannot grow.
//!
//! Its blocks are written once when it is made, so that later writes need no space.
//! Each record in it already has its final leaf index, salt and hash; when there is room
//! again the journal takes them over in order and the generation moves on, which empties
//! the segment with one small write. A page of it keeps the count of losses.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::format::{
    self, EMERGENCY_MAGIC, FILE_HEADER_BYTES, FileHeader, FrameSeed, HeaderFault, LOSS_MAGIC,
    LeafBytes, SALT_BYTES, Salt,
};
use crate::loss::Loss;
use crate::meta::Meta;
use crate::options::MAX_PAYLOAD_BYTES;
use crate::paths::Paths;
use crate::record::LEAF_BYTES;

const FRAME_MAGIC: [u8; 4] = *b"EMRF";
const LOSSES_AT: u64 = 4096;
const FRAMES_AT: u64 = 8192;
const PREFIX_BYTES: usize = 4 + 4 + 8 + 8 + LEAF_BYTES + SALT_BYTES;
const FRAME_MAX: usize = PREFIX_BYTES + MAX_PAYLOAD_BYTES + 4;
/// Smallest segment that holds anything, in bytes.
pub(crate) const EMERGENCY_BYTES_MIN: u64 = FRAMES_AT + 4096;

/// One record kept in the segment.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) index: u64,
    pub(crate) leaf: LeafBytes,
    pub(crate) salt: Salt,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Emergency {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    meta: Meta,
    /// `None` while the segment could not be made.
    file: Option<Box<dyn DiskFile>>,
    bytes: u64,
    generation: u64,
    at: u64,
    /// One past the last leaf kept here; 0 when empty.
    pub(crate) end_leaf: u64,
}

/// What the segment held when it was opened.
pub(crate) struct Found {
    pub(crate) kept: Vec<Kept>,
    pub(crate) loss: Option<Loss>,
    /// Why there is no usable segment, if there is none.
    pub(crate) unavailable: Option<io::Error>,
}

/// Why the segment could not be opened.
pub(crate) enum OpenFault {
    Header(HeaderFault),
    OtherStore,
}

impl Emergency {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        paths: &Paths,
        meta: &Meta,
        bytes: u64,
    ) -> Result<(Self, Found), OpenFault> {
        let mut segment = Self {
            disk,
            path: paths.emergency(),
            meta: meta.clone(),
            file: None,
            bytes,
            generation: 1,
            at: FRAMES_AT,
            end_leaf: 0,
        };
        let mut found = Found {
            kept: Vec::new(),
            loss: None,
            unavailable: None,
        };
        match segment.load(&mut found) {
            Ok(()) => Ok((segment, found)),
            Err(LoadFault::Open(fault)) => Err(fault),
            Err(LoadFault::Io(error)) => {
                found.unavailable = Some(error);
                Ok((segment, found))
            }
        }
    }

    fn load(&mut self, found: &mut Found) -> Result<(), LoadFault> {
        let file = match self.disk.open(&self.path, OpenMode::Write) {
            Ok(file) => file,
            Err(e) if disk::is_missing(&e) => return Ok(self.make()?),
            Err(e) => return Err(e.into()),
        };
        let read = read(file.as_ref(), &self.meta)?;
        if read.unwritten {
            return Ok(self.make()?);
        }
        self.generation = read.generation;
        self.at = read.end;
        self.end_leaf = read.kept.last().map_or(0, |kept| kept.index + 1);
        self.bytes = file.len()?.max(FRAMES_AT);
        found.loss = stored_loss(file.as_ref(), &self.meta);
        found.kept = read.kept;
        self.file = Some(file);
        if read.repair {
            self.write_header()?;
        }
        Ok(())
    }

    /// Makes the segment if there is none yet; called again when there is room.
    pub(crate) fn ensure(&mut self) {
        if self.file.is_none() {
            let made = self.make();
            drop(made);
        }
    }

    fn make(&mut self) -> io::Result<()> {
        let made = self.fill();
        if made.is_err() {
            self.file = None;
            let removed = self.disk.remove(&self.path);
            drop(removed);
        }
        made
    }

    /// Zeros are written, not only reserved: a first write to reserved blocks can need
    /// space for the file system's own records.
    fn fill(&mut self) -> io::Result<()> {
        let file = self.disk.open(&self.path, OpenMode::Create)?;
        match file.allocate(self.bytes) {
            Err(e) if e.kind() != io::ErrorKind::Unsupported => return Err(e),
            _ => {}
        }
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.bytes {
            let len = usize::try_from(self.bytes - at).map_or(zeros.len(), |n| n.min(zeros.len()));
            disk::write_all(file.as_ref(), &zeros[..len], at)?;
            at += len as u64;
        }
        self.file = Some(file);
        self.write_header()?;
        self.disk.sync_dir(self.path.parent().unwrap_or(&self.path))
    }

    fn write_header(&self) -> io::Result<()> {
        let mut header = self.meta.header(EMERGENCY_MAGIC);
        header.a = self.generation;
        let file = self.open_file()?;
        disk::write_all(file, &header.encode(), 0)?;
        file.sync_data()
    }

    fn open_file(&self) -> io::Result<&dyn DiskFile> {
        self.file
            .as_deref()
            .ok_or_else(|| io::Error::other("there is no emergency segment"))
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.at - FRAMES_AT
    }

    pub(crate) fn room_bytes(&self) -> u64 {
        if self.file.is_some() {
            self.bytes.saturating_sub(self.at)
        } else {
            0
        }
    }

    /// Where the next record would go; to come back to with [`Self::revert`].
    pub(crate) fn mark(&self) -> (u64, u64) {
        (self.at, self.end_leaf)
    }

    /// Forgets what was kept since `mark` (its sync failed).
    pub(crate) fn revert(&mut self, mark: (u64, u64)) {
        (self.at, self.end_leaf) = mark;
    }

    /// Writes one record; durable after [`Self::sync`].
    pub(crate) fn keep(
        &mut self,
        index: u64,
        leaf: &LeafBytes,
        salt: &Salt,
        payload: &[u8],
    ) -> io::Result<()> {
        let bytes = encode(
            self.meta.seed(),
            self.generation,
            index,
            leaf,
            salt,
            payload,
        );
        if bytes.len() as u64 > self.room_bytes() && self.file.is_some() {
            return Err(io::Error::other("the emergency segment is full"));
        }
        disk::write_all(self.open_file()?, &bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.end_leaf = index + 1;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.open_file()?.sync_data()
    }

    pub(crate) fn kept(&self) -> io::Result<Vec<Kept>> {
        match &self.file {
            Some(file) => Ok(read(file.as_ref(), &self.meta)
                .map_err(|_| io::Error::other("the emergency segment is unreadable"))?
                .kept),
            None => Ok(Vec::new()),
        }
    }

    /// Empties the segment: the journal has what was in it.
    pub(crate) fn empty(&mut self) -> io::Result<()> {
        self.generation += 1;
        self.write_header().inspect_err(|_| self.generation -= 1)?;
        (self.at, self.end_leaf) = (FRAMES_AT, 0);
        Ok(())
    }

    /// Keeps the count of losses over a `kill -9`; synced with the next record.
    pub(crate) fn store_loss(&self, (count, since, until): (u64, i64, i64)) {
        let mut header = self.meta.header(LOSS_MAGIC);
        header.first = count;
        header.a = u64::from_le_bytes(since.to_le_bytes());
        header.b = u64::from_le_bytes(until.to_le_bytes());
        if let Ok(file) = self.open_file() {
            let written = disk::write_all(file, &header.encode(), LOSSES_AT);
            drop(written);
        }
    }
}

enum LoadFault {
    Open(OpenFault),
    Io(io::Error),
}

impl From<io::Error> for LoadFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The live records of a segment.
pub(crate) struct Contents {
    pub(crate) kept: Vec<Kept>,
    generation: u64,
    end: u64,
    unwritten: bool,
    repair: bool,
}

/// Records in the segment at `path`, for readers; none when it is absent or unreadable.
pub(crate) fn peek(disk: &dyn Disk, paths: &Paths, meta: &Meta) -> Vec<Kept> {
    disk.open(&paths.emergency(), OpenMode::Read)
        .ok()
        .and_then(|file| read(file.as_ref(), meta).ok())
        .map_or(Vec::new(), |contents| contents.kept)
}

fn read(file: &dyn DiskFile, meta: &Meta) -> Result<Contents, LoadFault> {
    let mut raw = [0; FILE_HEADER_BYTES];
    let len = disk::read_up_to(file, &mut raw, 0)?;
    let mut contents = Contents {
        kept: Vec::new(),
        generation: 1,
        end: FRAMES_AT,
        unwritten: false,
        repair: false,
    };
    match FileHeader::decode(EMERGENCY_MAGIC, &raw[..len]) {
        Ok(header) if header.store != meta.store => {
            return Err(LoadFault::Open(OpenFault::OtherStore));
        }
        Ok(header) => contents.generation = header.a,
        Err(HeaderFault::Damaged) => {
            // The first frame names its generation; what was already taken over is
            // recognised by its leaf.
            contents.repair = true;
            contents.generation = first_generation(file)?;
        }
        Err(HeaderFault::Unwritten) => {
            contents.unwritten = true;
            return Ok(contents);
        }
        Err(fault) => return Err(LoadFault::Open(OpenFault::Header(fault))),
    }
    let seed = meta.seed();
    while let Some((kept, bytes)) = decode(file, seed, contents.generation, contents.end)? {
        contents.kept.push(kept);
        contents.end += bytes;
    }
    Ok(contents)
}

fn first_generation(file: &dyn DiskFile) -> io::Result<u64> {
    let mut prefix = [0; 16];
    disk::read_up_to(file, &mut prefix, FRAMES_AT)?;
    Ok(u64::from_le_bytes(*prefix[8..].first_chunk().unwrap_or(&[0; 8])).max(1))
}

fn stored_loss(file: &dyn DiskFile, meta: &Meta) -> Option<Loss> {
    let mut raw = [0; FILE_HEADER_BYTES];
    disk::read_up_to(file, &mut raw, LOSSES_AT).ok()?;
    let header = FileHeader::decode(LOSS_MAGIC, &raw).ok()?;
    let signed = |n: u64| i64::from_le_bytes(n.to_le_bytes());
    (header.store == meta.store && header.first > 0)
        .then(|| Loss::before_restart(header.first, signed(header.a), signed(header.b)))
}

fn encode(
    seed: FrameSeed,
    generation: u64,
    index: u64,
    leaf: &LeafBytes,
    salt: &Salt,
    payload: &[u8],
) -> Vec<u8> {
    let total = PREFIX_BYTES + payload.len() + 4;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(leaf);
    out.extend_from_slice(salt);
    out.extend_from_slice(payload);
    let crc = seed.checksum(index, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The record at `at`, or `None` where the live records end.
fn decode(
    file: &dyn DiskFile,
    seed: FrameSeed,
    generation: u64,
    at: u64,
) -> io::Result<Option<(Kept, u64)>> {
    let mut prefix = [0; PREFIX_BYTES];
    if disk::read_up_to(file, &mut prefix, at)? < PREFIX_BYTES || prefix[..4] != FRAME_MAGIC {
        return Ok(None);
    }
    let number = |from: usize| {
        prefix[from..]
            .first_chunk()
            .map_or(0, |b| u64::from_le_bytes(*b))
    };
    let total = usize::try_from(number(4) & 0xFFFF_FFFF).unwrap_or(usize::MAX);
    if number(8) != generation || !(PREFIX_BYTES + 4..=FRAME_MAX).contains(&total) {
        return Ok(None);
    }
    let mut whole = vec![0; total];
    let len = disk::read_up_to(file, &mut whole, at)?;
    let index = number(16);
    Ok(parse(seed, index, &whole[..len], total).map(|kept| (kept, total as u64)))
}

fn parse(seed: FrameSeed, index: u64, whole: &[u8], total: usize) -> Option<Kept> {
    let (body, crc) = whole.split_last_chunk::<4>()?;
    if whole.len() < total || seed.checksum(index, body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let leaf = *body[24..].first_chunk::<LEAF_BYTES>()?;
    format::header_of(&leaf)?;
    let salt = *body[24 + LEAF_BYTES..].first_chunk::<SALT_BYTES>()?;
    Some(Kept {
        index,
        leaf,
        salt,
        payload: body[PREFIX_BYTES..].to_vec(),
    })
}
