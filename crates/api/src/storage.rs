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

/// The directory of the query lake, which is made from the journal and can be made again.
pub fn lake_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("lake")
}

/// Tables of the query lake: directories of its files.
pub const LAKE_TABLES: [&str; 12] = [
    "alerts",
    "drift",
    "behaviours",
    "fingerprints",
    "processes",
    "files",
    "connections",
    "dns",
    "containers",
    "gaps",
    "actions",
    "access",
];

/// Names of the files that hold a span of leaves in the query lake, the seal first. Those of
/// tables without rows do not exist.
pub fn lake_files(first: u64, end: u64) -> impl Iterator<Item = String> {
    let span = format!("{first:020}-{end:020}");
    let seal = format!("seals/{span}.seal");
    let tables = LAKE_TABLES.iter();
    std::iter::once(seal).chain(tables.map(move |table| format!("{table}/{span}.parquet")))
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
        | RecordKind::Anchored
        | RecordKind::LakeSealed => 5,
        RecordKind::EpochKey => 7,
        RecordKind::Container
        | RecordKind::Clock
        | RecordKind::Baseline
        | RecordKind::RuleSet
        | RecordKind::Lifecycle => 6,
    }
}
