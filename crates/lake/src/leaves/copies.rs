//! Copies of records beside the lists: what every question reads lies all over a journal, and comes with
//! one reading from here.
//!
//! They lie in chunks, none of which holds leaves of two blocks: chunks of files that follow each other
//! are, one behind the other, those of the file that they become.

use super::{BLOCK_LEAVES, CHECK_BYTES, check, number};

/// Bytes of copies that a file holds at most; where there are more it holds none.
pub(super) const COPIES_MAX: usize = 64 << 20;
/// Length of a chunk and its check.
const CHUNK_BYTES: usize = 4 + CHECK_BYTES;
/// Leaf, time, kind, length.
const RECORD_BYTES: usize = 8 + 8 + 2 + 4;

/// A record as it was when the lists were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied<'a> {
    /// Its leaf.
    pub leaf: u64,
    /// Its time.
    pub wall: i64,
    /// Its kind.
    pub kind: u16,
    /// Its content.
    pub content: &'a [u8],
}

/// Copies in the making.
#[derive(Default)]
pub(super) struct Made {
    chunks: Vec<u8>,
    /// The last chunk, without its head.
    last: Vec<u8>,
    block: u64,
    too_many: bool,
}

impl Made {
    pub(super) fn add(&mut self, copied: &Copied<'_>) {
        let block = copied.leaf / BLOCK_LEAVES;
        if block != self.block {
            let last = std::mem::take(&mut self.last);
            put_chunk(&mut self.chunks, &last);
            self.block = block;
        }
        let bytes = self.chunks.len() + self.last.len() + RECORD_BYTES + copied.content.len();
        if self.too_many || bytes + CHUNK_BYTES > COPIES_MAX {
            self.too_many = true;
            self.chunks = Vec::new();
            self.last = Vec::new();
            return;
        }
        self.last.extend(copied.leaf.to_le_bytes());
        self.last.extend(copied.wall.to_le_bytes());
        self.last.extend(copied.kind.to_le_bytes());
        self.last.extend(number(copied.content.len()));
        self.last.extend(copied.content);
    }

    /// `None`: they are too many.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut all = self.chunks.clone();
        put_chunk(&mut all, &self.last);
        (!self.too_many).then_some(all)
    }
}

fn put_chunk(chunks: &mut Vec<u8>, chunk: &[u8]) {
    if !chunk.is_empty() {
        chunks.extend(number(chunk.len()));
        chunks.extend(check(chunk));
        chunks.extend(chunk);
    }
}

/// Those of several files that become one; `None`: some have none, or they are too many.
pub(super) fn joined(parts: &[Option<Vec<u8>>]) -> Option<Vec<u8>> {
    let all = parts.iter().map(Option::as_deref);
    let all = all.collect::<Option<Vec<&[u8]>>>()?.concat();
    (all.len() <= COPIES_MAX).then_some(all)
}

/// The copies of one file.
pub struct Copies(Vec<u8>);

impl Copies {
    /// `None`: a chunk is damaged.
    pub(super) fn checked(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, behind) = chunk(rest)?;
            let mut records = chunk;
            while !records.is_empty() {
                records = record(records)?.1;
            }
            rest = behind;
        }
        Some(Self(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Each, in the order of their leaves.
    pub fn iter(&self) -> impl Iterator<Item = Copied<'_>> {
        let (mut rest, mut records) = (&self.0[..], &[][..]);
        std::iter::from_fn(move || {
            if records.is_empty() {
                // they were checked
                records = rest.get(CHUNK_BYTES..CHUNK_BYTES + length(rest, 0)?)?;
                rest = &rest[CHUNK_BYTES + records.len()..];
            }
            let (copied, behind) = record(records)?;
            records = behind;
            Some(copied)
        })
    }
}

/// The content of the first chunk, and what is behind it.
fn chunk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let content = bytes.get(CHUNK_BYTES..)?;
    let (content, rest) = content.split_at_checked(length(bytes, 0)?)?;
    (check(content) == bytes[4..CHUNK_BYTES]).then_some((content, rest))
}

fn record(bytes: &[u8]) -> Option<(Copied<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(RECORD_BYTES)?;
    let (content, rest) = rest.split_at_checked(length(head, 18)?)?;
    let copied = Copied {
        leaf: u64::from_le_bytes(*head.first_chunk()?),
        wall: i64::from_le_bytes(*head[8..].first_chunk()?),
        kind: u16::from_le_bytes(*head[16..].first_chunk()?),
        content,
    };
    Some((copied, rest))
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}
