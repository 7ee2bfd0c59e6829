//! When a checkpoint was last taken elsewhere: how long the log has been unanchored.

use plimsoll_evidence::{Filter, Leaf, Reader};
use plimsoll_model::{Record, RecordKind, Stamp, WallNs};
use std::sync::{Mutex, PoisonError};

/// What is remembered about anchors.
#[derive(Debug)]
pub struct Anchoring {
    /// When a checkpoint was last taken elsewhere, and how much it covers.
    anchored: Mutex<Option<(WallNs, u64)>>,
    /// The first record: since then nothing has been anchored, if nothing ever was.
    begun: WallNs,
}

impl Anchoring {
    /// What the journal says.
    pub fn look_back(reader: &Reader, now: Stamp) -> Self {
        let first = reader.get(Leaf(0)).ok().flatten();
        let newest = Filter {
            kinds: vec![RecordKind::Anchored as u16],
            newest_first: true,
            ..Filter::default()
        };
        let mut found = reader.scan(newest).into_iter().flatten().flatten();
        let anchored = found.find_map(|entry| {
            match Record::decode(entry.header.kind, entry.payload.bytes()?) {
                Ok(Record::Anchored(a)) => Some((a.at.wall, a.size)),
                _ => None,
            }
        });
        Self {
            anchored: Mutex::new(anchored),
            begun: first.map_or(now.wall, |entry| WallNs(entry.header.wall_ns)),
        }
    }

    /// Since when the log has not been anchored elsewhere.
    pub fn unanchored_since(&self) -> WallNs {
        let anchored = self.anchored.lock().unwrap_or_else(PoisonError::into_inner);
        anchored.map_or(self.begun, |(at, _)| at)
    }

    /// A checkpoint that covers `size` records was taken elsewhere at `at`; an older and smaller one says
    /// nothing new.
    pub fn anchored(&self, at: WallNs, size: u64) {
        let mut anchored = self.anchored.lock().unwrap_or_else(PoisonError::into_inner);
        if anchored.is_none_or(|(_, before)| size >= before) {
            *anchored = Some((at, size));
        }
    }
}
