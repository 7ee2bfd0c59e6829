//! A sparse index beside each full leaf segment: per 4,096 leaves the span of wall time,
//! and small Bloom filters of kinds and containers.
//!
//! It only lets readers skip; it is never needed, never trusted when its checksum fails,
//! and can be deleted. False positives are possible, false negatives are not.

use crate::filter::Filter;
use crate::format::{self, FILE_HEADER_BYTES, FileHeader, INDEX_MAGIC, LeafBytes};
use crate::meta::Meta;
use crate::record::{Header, InstanceKey};

pub(crate) const BLOCK_LEAVES: u64 = 4096;
const BLOOM_BYTES: usize = 256;
const BLOCK_BYTES: usize = 8 + 8 + 8 + BLOOM_BYTES;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    min_wall_ns: i64,
    max_wall_ns: i64,
    kinds: u64,
    containers: [u8; BLOOM_BYTES],
}

impl Block {
    const EMPTY: Self = Self {
        min_wall_ns: i64::MAX,
        max_wall_ns: i64::MIN,
        kinds: 0,
        containers: [0; BLOOM_BYTES],
    };

    fn add(&mut self, header: &Header) {
        self.min_wall_ns = self.min_wall_ns.min(header.wall_ns);
        self.max_wall_ns = self.max_wall_ns.max(header.wall_ns);
        self.kinds |= kind_bit(header.kind);
        if let Some(key) = header.container {
            for bit in container_bits(key) {
                self.containers[bit / 8] |= 1 << (bit % 8);
            }
        }
    }

    fn may_match(&self, filter: &Filter) -> bool {
        let time = filter
            .wall_ns
            .as_ref()
            .is_none_or(|w| self.min_wall_ns < w.end && self.max_wall_ns >= w.start);
        let kind = filter.kinds.is_empty()
            || filter
                .kinds
                .iter()
                .any(|kind| self.kinds & kind_bit(*kind) != 0);
        let holds = |key: &InstanceKey| {
            container_bits(*key)
                .iter()
                .all(|bit| self.containers[bit / 8] & (1 << (bit % 8)) != 0)
        };
        time && kind && (filter.containers.is_empty() || filter.containers.iter().any(holds))
    }
}

fn kind_bit(kind: u16) -> u64 {
    1 << ((u32::from(kind).wrapping_mul(0x9E37_79B1) >> 16) % 64)
}

/// Keys are digests, but a caller may number them: mix before use.
fn container_bits(key: InstanceKey) -> [usize; 3] {
    let crc = u64::from(crc32c::crc32c(&key.0));
    let mixed = crc.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bits = BLOOM_BYTES as u64 * 8;
    [mixed, mixed >> 16, mixed >> 32].map(|m| usize::try_from(m % bits).unwrap_or(0))
}

/// Grows with its segment.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    blocks: Vec<Block>,
    leaves: u64,
}

impl IndexBuilder {
    pub(crate) fn push(&mut self, leaf: &LeafBytes) {
        if let Some(header) = format::header_of(leaf) {
            self.block().add(&header);
        }
    }

    /// A damaged leaf keeps its place, and its block is never skipped.
    pub(crate) fn push_unknown(&mut self) {
        let block = self.block();
        block.min_wall_ns = i64::MIN;
        block.max_wall_ns = i64::MAX;
        block.kinds = u64::MAX;
        block.containers = [0xFF; BLOOM_BYTES];
    }

    fn block(&mut self) -> &mut Block {
        if self.leaves.is_multiple_of(BLOCK_LEAVES) {
            self.blocks.push(Block::EMPTY);
        }
        self.leaves += 1;
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    pub(crate) fn encode(&self, meta: &Meta, first: u64) -> Vec<u8> {
        let mut header = meta.header(INDEX_MAGIC);
        header.first = first;
        header.a = self.leaves;
        let mut out = header.encode().to_vec();
        for block in &self.blocks {
            out.extend_from_slice(&block.min_wall_ns.to_le_bytes());
            out.extend_from_slice(&block.max_wall_ns.to_le_bytes());
            out.extend_from_slice(&block.kinds.to_le_bytes());
            out.extend_from_slice(&block.containers);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Largest index file of a store with this many leaves a subtree, in bytes.
pub(crate) fn bytes_max(subtree_leaves: u32) -> usize {
    let blocks = u64::from(subtree_leaves).div_ceil(BLOCK_LEAVES);
    FILE_HEADER_BYTES + usize::try_from(blocks).unwrap_or(0) * BLOCK_BYTES + 4
}

/// A segment's index, read back.
#[derive(Debug)]
pub(crate) struct Index {
    blocks: Vec<Block>,
    leaves: u64,
}

impl Index {
    pub(crate) fn decode(meta: &Meta, first: u64, bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let header = FileHeader::decode(INDEX_MAGIC, body).ok()?;
        let ours = header.store == meta.store && header.first == first;
        if !ours || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (blocks, _) = body[FILE_HEADER_BYTES..].as_chunks::<BLOCK_BYTES>();
        let blocks = blocks.iter().filter_map(|raw| block(raw)).collect();
        Some(Self {
            blocks,
            leaves: header.a,
        })
    }

    /// Whether block `number` of the segment, `leaves` long there, can hold a match.
    pub(crate) fn may_match(&self, number: u64, filter: &Filter) -> bool {
        let block = usize::try_from(number)
            .ok()
            .and_then(|n| self.blocks.get(n));
        block.is_none_or(|block| block.may_match(filter))
    }

    /// Leaves the index speaks for.
    pub(crate) fn covers(&self, leaves: u64) -> bool {
        leaves <= self.leaves
    }
}

fn block(bytes: &[u8]) -> Option<Block> {
    Some(Block {
        min_wall_ns: i64::from_le_bytes(*bytes.first_chunk()?),
        max_wall_ns: i64::from_le_bytes(*bytes[8..].first_chunk()?),
        kinds: u64::from_le_bytes(*bytes[16..].first_chunk()?),
        containers: *bytes[24..].first_chunk()?,
    })
}
