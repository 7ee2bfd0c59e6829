//! What a record of retention says: which payloads went, under which root, why and by whom.

use minicbor::{Decoder, Encoder};

use crate::merkle::Hash;
use crate::record::RetentionClass;
use crate::retain::{Prune, PruneReason};

/// A removal, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The class.
    pub class: u8,
    /// First leaf of the subtree.
    pub first: u64,
    /// End of the subtree, exclusive.
    pub end: u64,
    /// Bytes that were removed.
    pub bytes: u64,
    /// RFC 6962 root over the subtree's leaves; `None` when a leaf was damaged.
    pub root: Option<Hash>,
    /// `age`, `size`.
    pub reason: String,
    /// Who removed it: `retention`, or a person.
    pub actor: String,
    /// The rule in force.
    pub policy: String,
}

impl Tombstone {
    /// The tombstone of `prune`.
    pub fn of(prune: &Prune, actor: &str, policy: &str) -> Self {
        let reason = match prune.reason {
            PruneReason::Age => "age",
            PruneReason::Size => "size",
        };
        Self {
            class: prune.class.number(),
            first: prune.first,
            end: prune.end,
            bytes: prune.payload_bytes,
            root: prune.root,
            reason: reason.to_owned(),
            actor: actor.to_owned(),
            policy: policy.to_owned(),
        }
    }

    /// Whether it speaks of this class of the subtree that begins at `first`.
    pub fn covers(&self, class: RetentionClass, first: u64) -> bool {
        self.class == class.number() && self.first == first
    }

    /// A CBOR map with numbered fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        let written = e
            .map(8)
            .and_then(|e| e.u8(0)?.u8(self.class))
            .and_then(|e| e.u8(1)?.u64(self.first))
            .and_then(|e| e.u8(2)?.u64(self.end))
            .and_then(|e| e.u8(3)?.u64(self.bytes))
            .and_then(|e| match &self.root {
                Some(root) => e.u8(4)?.bytes(root),
                None => e.u8(4)?.null(),
            })
            .and_then(|e| e.u8(5)?.str(&self.reason))
            .and_then(|e| e.u8(6)?.str(&self.actor))
            .and_then(|e| e.u8(7)?.str(&self.policy));
        written.expect("writing to memory cannot fail");
        e.into_writer()
    }

    /// Reads a tombstone; unknown fields are skipped.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        let mut t = Self {
            class: 0,
            first: 0,
            end: 0,
            bytes: 0,
            root: None,
            reason: String::new(),
            actor: String::new(),
            policy: String::new(),
        };
        for _ in 0..d.map().ok()?? {
            match d.u32().ok()? {
                0 => t.class = d.u8().ok()?,
                1 => t.first = d.u64().ok()?,
                2 => t.end = d.u64().ok()?,
                3 => t.bytes = d.u64().ok()?,
                4 if d.datatype().ok()? == minicbor::data::Type::Null => d.null().ok()?,
                4 => t.root = Some(d.bytes().ok()?.try_into().ok()?),
                5 => d.str().ok()?.clone_into(&mut t.reason),
                6 => d.str().ok()?.clone_into(&mut t.actor),
                7 => d.str().ok()?.clone_into(&mut t.policy),
                _ => d.skip().ok()?,
            }
        }
        Some(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_reads_as_it_was_written() {
        let t = Tombstone {
            class: 3,
            first: 8,
            end: 16,
            bytes: 99,
            root: Some([7; 32]),
            reason: "age".into(),
            actor: "retention".into(),
            policy: "30d".into(),
        };
        assert_eq!(Tombstone::decode(&t.encode()), Some(t.clone()));
        for n in 0..t.encode().len() {
            assert_eq!(Tombstone::decode(&t.encode()[..n]), None);
        }
    }
}
