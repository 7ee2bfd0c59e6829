//! What a sealed span of leaves consists of: its files, their digests, and what they cannot hold.
//!
//! A seal is written last. A span without one, or one whose files are not as it says, is made
//! again. Bytes: `docs/formats/lake.md`.

use crate::journal::PIECE_LEAVES;
#[cfg(test)]
use crate::journal::SPAN_LEAVES;
use crate::store::{Hash, sha256};
use crate::tables::{LAYOUT_VERSION, Table};
use minicbor::{Decode, Encode};
use std::ops::Range;

/// Spans that one merged file covers: first few, then many.
pub const MERGED_SPANS: [u64; 2] = [8, 64];
/// Containers that a seal names for a file; beyond, the file is taken to hold any.
pub(crate) const NAMED_MAX: usize = 4096;
const SEAL_BYTES_MAX: usize = 64 << 20;

/// One span, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Seal {
    /// [`LAYOUT_VERSION`] of whoever wrote it.
    #[n(0)]
    pub version: u32,
    /// The journal's origin.
    #[n(1)]
    pub origin: String,
    /// First leaf.
    #[n(2)]
    pub first: u64,
    /// One past the last.
    #[n(3)]
    pub end: u64,
    /// Its files; a table without rows has none.
    #[n(4)]
    pub files: Vec<SealedFile>,
    /// Leaves whose payload retention had removed when it was made.
    #[n(5)]
    pub pruned: u64,
    /// Leaves that could not be read.
    #[n(6)]
    pub unreadable: u64,
}

/// One Parquet file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealedFile {
    /// Its table's name.
    #[n(0)]
    pub table: String,
    /// Bytes.
    #[n(1)]
    pub bytes: u64,
    /// Rows.
    #[n(2)]
    pub rows: u64,
    /// SHA-256 of it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sha256: Hash,
    /// Earliest `time`, nanoseconds since 1970.
    #[n(4)]
    pub from: i64,
    /// Latest `time`.
    #[n(5)]
    pub to: i64,
    /// Every container id in it, sorted; `None`: too many to name.
    #[n(6)]
    pub containers: Option<Vec<String>>,
    /// Every container name in it, sorted; `None`: too many to name.
    #[n(7)]
    pub names: Option<Vec<String>>,
}

impl Seal {
    /// The leaves.
    pub fn leaves(&self) -> Range<u64> {
        self.first..self.end
    }

    /// Name of the seal's own file.
    pub fn name(&self) -> String {
        seal_name(&self.leaves())
    }

    /// Name of a table's file.
    pub fn file_name(&self, table: &str) -> String {
        file_name(table, &self.leaves())
    }

    /// The file of a table, if it has rows.
    pub fn file(&self, table: Table) -> Option<&SealedFile> {
        self.files.iter().find(|f| f.table == table.name())
    }

    /// SHA-256 of the seal's own file, which names the digests of all others.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.encode())
    }

    /// The bytes of the seal's own file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = minicbor::to_vec(self).expect("writing to memory cannot fail");
        let hash = sha256(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// `None`: damaged, or of another layout.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > SEAL_BYTES_MAX {
            return None;
        }
        let (cbor, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        let seal: Seal = minicbor::decode(cbor)
            .ok()
            .filter(|_| sha256(cbor) == hash)?;
        let whole =
            seal.first.is_multiple_of(PIECE_LEAVES) && seal.end.is_multiple_of(PIECE_LEAVES);
        (seal.version == LAYOUT_VERSION && whole && seal.first < seal.end).then_some(seal)
    }
}

pub(crate) fn seal_name(leaves: &Range<u64>) -> String {
    format!("seals/{:020}-{:020}.seal", leaves.start, leaves.end)
}

pub(crate) fn file_name(table: &str, leaves: &Range<u64>) -> String {
    format!("{table}/{:020}-{:020}.parquet", leaves.start, leaves.end)
}

/// What is known of containers and plans at the end of a span, for the rows behind it.
pub(crate) fn known_name(end: u64) -> String {
    format!("known/{end:020}.cbor")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal {
            version: LAYOUT_VERSION,
            origin: "node".into(),
            first: 0,
            end: SPAN_LEAVES,
            files: vec![SealedFile {
                table: "gaps".into(),
                bytes: 9,
                rows: 1,
                sha256: [7; 32],
                from: -1,
                to: 5,
                containers: None,
                names: Some(vec!["web".into()]),
            }],
            pruned: 1,
            unreadable: 0,
        }
    }

    #[test]
    fn a_seal_survives_its_encoding_and_no_flipped_bit_does() {
        let bytes = seal().encode();
        assert_eq!(Seal::decode(&bytes), Some(seal()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Seal::decode(&bad), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(Seal::decode(&bytes[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_seal_of_another_layout_is_none() {
        let other = Seal {
            version: LAYOUT_VERSION + 1,
            ..seal()
        };
        assert_eq!(Seal::decode(&other.encode()), None);
    }
}
