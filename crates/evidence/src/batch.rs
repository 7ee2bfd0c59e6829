//! Records accepted but not yet written: one group commit's worth.

use crate::durable::Ack;
use crate::format::{self, FrameSeed, LeafBytes, Salt};
use crate::record::RetentionClass;

const CLASSES: usize = RetentionClass::MAX as usize + 1;

/// One accepted record.
pub(crate) struct Pending {
    pub(crate) leaf: LeafBytes,
    pub(crate) class: RetentionClass,
    /// Where its payload frame begins in the class's buffer.
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// Goes to the emergency segment when the journal cannot take it.
    pub(crate) urgent: bool,
    pub(crate) ack: Option<Ack>,
}

/// Consecutive records from leaf `first` on, within one subtree.
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) entries: Vec<Pending>,
    pub(crate) payloads: [Vec<u8>; CLASSES],
    pub(crate) bytes: usize,
}

impl Batch {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            first,
            entries: Vec::new(),
            payloads: Default::default(),
            bytes: 0,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn push(
        &mut self,
        seed: FrameSeed,
        class: RetentionClass,
        leaf: LeafBytes,
        salted: (&Salt, &[u8]),
        urgent: bool,
        ack: Option<Ack>,
    ) {
        let index = self.next();
        let buffer = &mut self.payloads[class.slot()];
        let start = buffer.len();
        let len = format::encode_payload(seed, index, salted.0, salted.1, buffer);
        self.bytes += len + format::FRAME_BYTES;
        self.entries.push(Pending {
            leaf,
            class,
            start,
            len,
            urgent,
            ack,
        });
    }

    /// Salt and payload of an entry, as they lie in its payload frame.
    pub(crate) fn salted(&self, entry: &Pending) -> (Salt, &[u8]) {
        let frame = &self.payloads[entry.class.slot()][entry.start..entry.start + entry.len];
        let mut salt = [0; format::SALT_BYTES];
        salt.copy_from_slice(&frame[16..32]);
        (salt, &frame[format::PAYLOAD_PREFIX_BYTES..])
    }

    /// Empties the batch, keeping its buffers, to start again at `first`.
    pub(crate) fn restart(&mut self, first: u64) {
        self.first = first;
        self.entries.clear();
        self.payloads.iter_mut().for_each(Vec::clear);
        self.bytes = 0;
    }
}
