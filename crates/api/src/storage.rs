//! Where the agent puts what readers read: the few conventions that both must share.
//!
//! The journal itself knows neither containers nor kinds; these functions say how a record of the
//! model becomes an entry of the journal. Documented in `docs/formats/records.md`.

use plimsoll_model::{Instance, RecordKind};
use std::path::{Path, PathBuf};

/// The journal's directory below the data directory.
pub fn journal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// The directory of the node's secret keys, outside of what is copied as evidence; the public key
/// that leads to all of them is `root.pub` in it.
pub fn keys_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// The key under which the journal files records about a container instance: the 64-bit key of
/// the instance, big endian, then zeros.
pub fn container_key(instance: &Instance) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&instance.key().to_be_bytes());
    key
}

/// Number of the retention class of a record kind (the journal's `RetentionClass`).
pub fn retention_class(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Alert => 1,
        RecordKind::Drift | RecordKind::Prevention | RecordKind::Recording => 2,
        RecordKind::Observation | RecordKind::Presence => 3,
        RecordKind::Gap => 4,
        RecordKind::Decision
        | RecordKind::Tombstone
        | RecordKind::Plan
        | RecordKind::Step
        | RecordKind::Delivery
        | RecordKind::Policy
        | RecordKind::PlanEnd
        | RecordKind::Enforcement
        | RecordKind::Anchored => 5,
        RecordKind::EpochKey => 7,
        RecordKind::Container
        | RecordKind::Clock
        | RecordKind::Baseline
        | RecordKind::RuleSet
        | RecordKind::Lifecycle => 6,
    }
}
