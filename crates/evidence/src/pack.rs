//! Records that have left their store, each with the proof that it was in it: the form in which
//! bundles and holds keep them.
//!
//! Per record: leaf index (8), leaf (80), 1 when a payload follows else 0 (1), number of proof
//! hashes (1), then salt (16), length (4) and payload, then the proof's hashes. Little-endian.
//! Reading is bounded and believes nothing: [`Packed::is_proven`] says what a record is worth.

use crate::format::{self, LeafBytes, SALT_BYTES};
use crate::merkle::{self, Hash, PROOF_HASHES_MAX};
use crate::options::MAX_PAYLOAD_BYTES;
use crate::reader::{Entry, Payload};
use crate::record::{Header, LEAF_BYTES, Leaf};

/// A record with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Its position.
    pub leaf: Leaf,
    /// The leaf itself.
    pub bytes: LeafBytes,
    /// Salt and content, unless retention had removed them.
    pub payload: Option<([u8; SALT_BYTES], Vec<u8>)>,
    /// The hashes that lead from the leaf to the root.
    pub proof: Vec<Hash>,
}

impl Packed {
    pub(crate) fn new(entry: Entry, proof: Vec<Hash>) -> Self {
        let payload = match entry.payload {
            Payload::Present { bytes, salt } => Some((salt, bytes)),
            Payload::Pruned { .. } | Payload::Lost { .. } => None,
        };
        Self {
            leaf: entry.leaf,
            bytes: entry.leaf_bytes,
            payload,
            proof,
        }
    }

    /// What the leaf says; `None` when it is none.
    pub fn header(&self) -> Option<Header> {
        format::header_of(&self.bytes)
    }

    /// Whether its content is the one that the leaf names; one that was removed is no fault.
    pub fn payload_matches(&self) -> bool {
        self.payload.as_ref().is_none_or(|(salt, bytes)| {
            format::payload_hash(salt, bytes) == format::hash_of(&self.bytes)
        })
    }

    /// Whether its proof leads to this root of `size` leaves.
    pub fn is_proven(&self, size: u64, root: &Hash) -> bool {
        merkle::includes(
            &merkle::leaf_hash(&self.bytes),
            self.leaf.0,
            size,
            &self.proof,
            root,
        )
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.leaf.0.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out.push(u8::from(self.payload.is_some()));
        out.push(u8::try_from(self.proof.len()).unwrap_or(u8::MAX));
        if let Some((salt, bytes)) = &self.payload {
            out.extend_from_slice(salt);
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        self.proof
            .iter()
            .for_each(|hash| out.extend_from_slice(hash));
    }

    /// The record at the front of `bytes`, and what follows it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (leaf, bytes) = bytes.split_first_chunk::<8>()?;
        let (own, bytes) = bytes.split_first_chunk::<LEAF_BYTES>()?;
        let (&[there, hashes], mut bytes) = bytes.split_first_chunk::<2>()?;
        let payload = match there {
            0 => None,
            1 => {
                let (salt, rest) = bytes.split_first_chunk::<SALT_BYTES>()?;
                let (len, rest) = rest.split_first_chunk::<4>()?;
                let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
                let (content, rest) = rest
                    .split_at_checked(len)
                    .filter(|_| len <= MAX_PAYLOAD_BYTES)?;
                bytes = rest;
                Some((*salt, content.to_vec()))
            }
            _ => return None,
        };
        let hashes = usize::from(hashes);
        let (proof, rest) = bytes
            .split_at_checked(hashes * 32)
            .filter(|_| hashes <= PROOF_HASHES_MAX)?;
        let packed = Self {
            leaf: Leaf(u64::from_le_bytes(*leaf)),
            bytes: *own,
            payload,
            proof: proof.as_chunks::<32>().0.to_vec(),
        };
        Some((packed, rest))
    }

    /// All records in `bytes`; `None` when something in it is none.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (packed, rest) = Self::decode(bytes)?;
            all.push(packed);
            bytes = rest;
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_record_reads_as_written_and_no_truncation_reads() {
        let with = Packed {
            leaf: Leaf(7),
            bytes: [3; LEAF_BYTES],
            payload: Some(([1; 16], b"content".to_vec())),
            proof: vec![[9; 32]; 3],
        };
        let without = Packed {
            payload: None,
            ..with.clone()
        };
        let mut bytes = Vec::new();
        with.encode(&mut bytes);
        let first = bytes.len();
        without.encode(&mut bytes);
        assert_eq!(Packed::decode_all(&bytes), Some(vec![with, without]));
        for n in (1..bytes.len()).filter(|n| *n != first) {
            assert_eq!(Packed::decode_all(&bytes[..n]), None, "{n} bytes");
        }
    }
}
