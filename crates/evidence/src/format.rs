//! The bytes of format version 1, encoded and decoded; `docs/formats/journal.md` in code.
//!
//! Pure: no files, no clocks. Integers are little-endian. Every checksum is CRC-32C and
//! of frames starts from the store's id and the leaf's index, so that a frame copied
//! from another place or another store does not pass for one of its own.

use sha2::{Digest, Sha256};

use crate::record::{Header, InstanceKey, LEAF_BYTES, Record, RetentionClass};

pub(crate) const FORMAT_VERSION: u16 = 1;
/// Also the length of a leaf frame, so that frame *i* lies at `(i + 1) * 96`.
pub(crate) const FILE_HEADER_BYTES: usize = 96;
pub(crate) const FRAME_BYTES: usize = 96;
pub(crate) const PAYLOAD_PREFIX_BYTES: usize = 32;
pub(crate) const SALT_BYTES: usize = 16;

pub(crate) const META_MAGIC: [u8; 8] = *b"PLIMJRNL";
pub(crate) const LEAF_MAGIC: [u8; 8] = *b"PLIMLEAF";
pub(crate) const PAYLOAD_MAGIC: [u8; 8] = *b"PLIMPAYL";
pub(crate) const PRUNED_MAGIC: [u8; 8] = *b"PLIMPRUN";
pub(crate) const HEAD_MAGIC: [u8; 8] = *b"PLIMHEAD";
pub(crate) const EMERGENCY_MAGIC: [u8; 8] = *b"PLIMEMRG";
pub(crate) const LOSS_MAGIC: [u8; 8] = *b"PLIMLOSS";
pub(crate) const INDEX_MAGIC: [u8; 8] = *b"PLIMINDX";
pub(crate) const HOLD_MAGIC: [u8; 8] = *b"PLIMHOLD";
pub(crate) const HELD_MAGIC: [u8; 8] = *b"PLIMHELD";
pub(crate) const KEY_MAGIC: [u8; 8] = *b"PLIMEKEY";

const FLAG_CONTAINER: u8 = 1;
const FLAG_URGENT: u8 = 2;

pub(crate) type StoreId = [u8; 16];
pub(crate) type Salt = [u8; SALT_BYTES];
pub(crate) type LeafBytes = [u8; LEAF_BYTES];

/// The 96 bytes that open every file of a store. `first`, `a` and `b` mean what the
/// magic says they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) class: u8,
    pub(crate) subtree_leaves: u32,
    pub(crate) first: u64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) store: StoreId,
    pub(crate) boot: [u8; 16],
}

/// Why 96 bytes are not the header that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Short, or with bytes of the magic still zero: never completely written.
    Unwritten,
    /// Another kind of file.
    Foreign,
    /// A format this program does not know.
    Newer(u16),
    /// Ours, but altered.
    Damaged,
}

impl FileHeader {
    pub(crate) fn new(magic: [u8; 8], store: StoreId, subtree_leaves: u32) -> Self {
        Self {
            magic,
            class: 0,
            subtree_leaves,
            first: 0,
            a: 0,
            b: 0,
            store,
            boot: [0; 16],
        }
    }

    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        out[0..8].copy_from_slice(&self.magic);
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[10] = self.class;
        out[12..16].copy_from_slice(&self.subtree_leaves.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.a.to_le_bytes());
        out[32..40].copy_from_slice(&self.b.to_le_bytes());
        out[40..56].copy_from_slice(&self.store);
        out[56..72].copy_from_slice(&self.boot);
        let crc = crc32c::crc32c(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Magic, then version, then checksum: a newer format may checksum differently.
    pub(crate) fn decode(magic: [u8; 8], bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some(raw) = bytes.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(misfit(magic, bytes));
        };
        if raw.iter().all(|b| *b == 0) {
            return Err(HeaderFault::Unwritten);
        }
        if raw[0..8] != magic {
            return Err(misfit(magic, &raw[0..8]));
        }
        let version = u16::from_le_bytes(array(&raw[8..10]));
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if crc32c::crc32c(&raw[..92]) != u32::from_le_bytes(array(&raw[92..96])) {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            magic,
            class: raw[10],
            subtree_leaves: u32::from_le_bytes(array(&raw[12..16])),
            first: u64::from_le_bytes(array(&raw[16..24])),
            a: u64::from_le_bytes(array(&raw[24..32])),
            b: u64::from_le_bytes(array(&raw[32..40])),
            store: array(&raw[40..56]),
            boot: array(&raw[56..72]),
        })
    }
}

/// A magic with only some of its bytes there is ours, torn; anything else is foreign.
fn misfit(magic: [u8; 8], found: &[u8]) -> HeaderFault {
    let torn = found
        .iter()
        .zip(magic)
        .all(|(found, ours)| *found == 0 || *found == ours);
    if torn {
        HeaderFault::Unwritten
    } else {
        HeaderFault::Foreign
    }
}

/// Fixed-size copy of a slice whose length the caller chose by constant ranges.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// The checksum every frame of this store starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameSeed(u32);

impl FrameSeed {
    pub(crate) fn of(store: &StoreId) -> Self {
        Self(crc32c::crc32c(store))
    }

    /// Checksum of `bytes` as part of leaf `leaf`.
    pub(crate) fn checksum(self, leaf: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.at(leaf), bytes)
    }

    fn at(self, leaf: u64) -> u32 {
        crc32c::crc32c_append(self.0, &leaf.to_le_bytes())
    }
}

/// Leaf bytes of a record: header, then SHA-256(salt ‖ payload).
pub(crate) fn leaf_bytes(record: &Record, urgent: bool, salt: &Salt) -> LeafBytes {
    let mut out = [0; LEAF_BYTES];
    out[0..2].copy_from_slice(&record.kind.to_le_bytes());
    out[2..4].copy_from_slice(&record.schema_version.to_le_bytes());
    out[4] = record.class.number();
    let container = if record.container.is_some() {
        FLAG_CONTAINER
    } else {
        0
    };
    out[5] = container | if urgent { FLAG_URGENT } else { 0 };
    let len = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    out[8..12].copy_from_slice(&len.to_le_bytes());
    out[16..24].copy_from_slice(&record.wall_ns.to_le_bytes());
    out[24..32].copy_from_slice(&record.boot_ns.to_le_bytes());
    if let Some(InstanceKey(key)) = record.container {
        out[32..48].copy_from_slice(&key);
    }
    out[48..80].copy_from_slice(&payload_hash(salt, &record.payload));
    out
}

pub(crate) fn payload_hash(salt: &Salt, payload: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(payload)
        .finalize()
        .into()
}

/// `None` when the class is none that can exist.
pub(crate) fn header_of(leaf: &LeafBytes) -> Option<Header> {
    let flags = leaf[5];
    Some(Header {
        kind: u16::from_le_bytes(array(&leaf[0..2])),
        schema_version: u16::from_le_bytes(array(&leaf[2..4])),
        class: RetentionClass::new(leaf[4])?,
        urgent: flags & FLAG_URGENT != 0,
        container: (flags & FLAG_CONTAINER != 0).then(|| InstanceKey(array(&leaf[32..48]))),
        wall_ns: i64::from_le_bytes(array(&leaf[16..24])),
        boot_ns: u64::from_le_bytes(array(&leaf[24..32])),
        payload_bytes: u32::from_le_bytes(array(&leaf[8..12])),
    })
}

pub(crate) fn hash_of(leaf: &LeafBytes) -> [u8; 32] {
    array(&leaf[48..80])
}

/// A leaf and where its payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) leaf: LeafBytes,
    pub(crate) payload_at: u64,
    /// How far before this leaf everything was durable when it was written.
    pub(crate) undurable: u32,
}

impl Frame {
    pub(crate) fn encode(&self, seed: FrameSeed, index: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.leaf);
        out.extend_from_slice(&self.payload_at.to_le_bytes());
        out.extend_from_slice(&self.undurable.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.at(index), &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// `None` when the bytes are not the frame of leaf `index` of this store.
    pub(crate) fn decode(seed: FrameSeed, index: u64, bytes: &[u8]) -> Option<Self> {
        let raw = bytes.first_chunk::<FRAME_BYTES>()?;
        let crc = crc32c::crc32c_append(seed.at(index), &raw[..92]);
        if crc != u32::from_le_bytes(array(&raw[92..96])) {
            return None;
        }
        let leaf: LeafBytes = array(&raw[0..LEAF_BYTES]);
        header_of(&leaf)?;
        Some(Self {
            leaf,
            payload_at: u64::from_le_bytes(array(&raw[80..88])),
            undurable: u32::from_le_bytes(array(&raw[88..92])),
        })
    }
}

/// Appends the payload frame of leaf `index`; returns its length.
pub(crate) fn encode_payload(
    seed: FrameSeed,
    index: u64,
    salt: &Salt,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let len = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let crc = payload_crc(seed, index, len, salt, payload);
    out.reserve(PAYLOAD_PREFIX_BYTES + payload.len());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(salt);
    out.extend_from_slice(payload);
    PAYLOAD_PREFIX_BYTES + payload.len()
}

/// Salt and payload of leaf `index`; `None` when the bytes are anything else.
pub(crate) fn decode_payload(seed: FrameSeed, index: u64, bytes: &[u8]) -> Option<(Salt, &[u8])> {
    let (prefix, payload) = bytes.split_first_chunk::<PAYLOAD_PREFIX_BYTES>()?;
    let len: [u8; 4] = array(&prefix[8..12]);
    let salt: Salt = array(&prefix[16..32]);
    let whole = u64::from_le_bytes(array(&prefix[0..8])) == index
        && usize::try_from(u32::from_le_bytes(len)).ok() == Some(payload.len())
        && payload_crc(seed, index, len, &salt, payload)
            == u32::from_le_bytes(array(&prefix[12..16]));
    whole.then_some((salt, payload))
}

fn payload_crc(seed: FrameSeed, index: u64, len: [u8; 4], salt: &Salt, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed.at(index), &len);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, salt), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(9, RetentionClass::ALERT, b"payload".to_vec())
            .about(InstanceKey([3; 16]))
            .at(-5, 6)
    }

    #[test]
    fn a_leaf_says_what_the_record_said() {
        let header = header_of(&leaf_bytes(&record(), true, &[1; 16])).expect("class exists");
        assert_eq!((header.kind, header.wall_ns, header.boot_ns), (9, -5, 6));
        assert_eq!(
            (header.container, header.urgent),
            (Some(InstanceKey([3; 16])), true)
        );
        assert_eq!(header.payload_bytes, 7);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_detected() {
        let seed = FrameSeed::of(&[7; 16]);
        let frame = Frame {
            leaf: leaf_bytes(&record(), false, &[1; 16]),
            payload_at: 96,
            undurable: 2,
        };
        let mut bytes = Vec::new();
        frame.encode(seed, 41, &mut bytes);
        assert_eq!(Frame::decode(seed, 41, &bytes), Some(frame));
        assert_eq!(
            Frame::decode(seed, 42, &bytes),
            None,
            "a frame elsewhere is not that frame"
        );
        assert_eq!(Frame::decode(FrameSeed::of(&[8; 16]), 41, &bytes), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(seed, 41, &bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_salt_hides_equal_payloads() {
        let (one, two) = (
            leaf_bytes(&record(), true, &[1; 16]),
            leaf_bytes(&record(), true, &[2; 16]),
        );
        assert_ne!(hash_of(&one), hash_of(&two));
    }

    #[test]
    fn a_newer_header_is_not_called_damaged() {
        let mut bytes = FileHeader::new(LEAF_MAGIC, [1; 16], 8).encode();
        bytes[8] = 2;
        assert_eq!(
            FileHeader::decode(LEAF_MAGIC, &bytes),
            Err(HeaderFault::Newer(2))
        );
        assert_eq!(
            FileHeader::decode(HEAD_MAGIC, &bytes),
            Err(HeaderFault::Foreign)
        );
        assert_eq!(
            FileHeader::decode(LEAF_MAGIC, &[0; 96]),
            Err(HeaderFault::Unwritten)
        );
        assert_eq!(
            FileHeader::decode(LEAF_MAGIC, b"PLIML"),
            Err(HeaderFault::Unwritten)
        );
        assert_eq!(
            FileHeader::decode(LEAF_MAGIC, b"hello"),
            Err(HeaderFault::Foreign)
        );
    }
}
