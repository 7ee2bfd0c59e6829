//! What retention took away: which tombstone covers a record whose content is gone.
//!
//! Promise: a record without content is never silence. The answer says how many there were, when and by
//! which rule they were deleted, and which record proves it; or that no tombstone says so.

use crate::records::{Body, Filter, Kinds, Records, RecordsError};
use plimsoll_api::storage::retention_class;
use plimsoll_model::record::Removal;
use plimsoll_model::{Record, RecordId, RecordKind, WallNs};
use std::collections::{BTreeMap, BTreeSet};

/// Records without content that are told apart; more are counted as often as they are met.
const APART_MAX: usize = 1 << 17;

/// A deletion.
pub(crate) struct Tombstone {
    pub(crate) id: RecordId,
    pub(crate) at: WallNs,
    pub(crate) removal: Removal,
}

/// All deletions that the records know, by first leaf and class.
#[derive(Default)]
pub(crate) struct Removals(BTreeMap<(u64, u8), Tombstone>);

/// Records without content that were met for one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed {
    met: BTreeSet<u64>,
    /// By the tombstone's key; `None`: no tombstone covers them.
    pub(crate) by: BTreeMap<Option<(u64, u8)>, u64>,
}

impl Removals {
    pub(crate) fn read(records: &dyn Records) -> Result<Self, RecordsError> {
        let mut all = BTreeMap::new();
        records.visit(&Filter::of(&[RecordKind::Tombstone]), &mut |seen| {
            if let Body::Record(Record::Unknown(_, payload)) = &seen.body
                && let Some(removal) = Removal::decode(payload)
            {
                let tombstone = Tombstone {
                    id: seen.id,
                    at: seen.wall,
                    removal,
                };
                let key = (tombstone.removal.first, tombstone.removal.class);
                all.insert(key, tombstone);
            }
        })?;
        Ok(Self(all))
    }

    /// The deletion under a key.
    pub(crate) fn get(&self, key: &(u64, u8)) -> Option<&Tombstone> {
        self.0.get(key)
    }

    /// The deletion of a record that was looked for among these kinds.
    fn covering(&self, leaf: u64, kinds: Kinds) -> Option<(u64, u8)> {
        let classes = classes(kinds);
        let (first, _) = *self.0.range(..=(leaf, u8::MAX)).next_back()?.0;
        let mut stretch = self.0.range((first, 0)..=(first, u8::MAX));
        let covers = |t: &Tombstone| leaf < t.removal.end && classes.contains(&t.removal.class);
        stretch.find(|(_, t)| covers(t)).map(|(key, _)| *key)
    }
}

fn classes(kinds: Kinds) -> BTreeSet<u8> {
    (1..64)
        .filter(|k| kinds.has(*k))
        .filter_map(RecordKind::from_u16)
        .map(retention_class)
        .collect()
}

impl Removed {
    /// A record without content was met.
    pub(crate) fn note(&mut self, removals: &Removals, leaf: u64, kinds: Kinds) {
        if self.met.contains(&leaf) {
            return;
        }
        if self.met.len() < APART_MAX {
            self.met.insert(leaf);
        }
        *self.by.entry(removals.covering(leaf, kinds)).or_default() += 1;
    }
}
