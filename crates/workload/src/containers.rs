//! The table of container instances.

use plimsoll_model::{Container, Instance};

/// Bounds of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainersConfig {
    /// Tombstones kept.
    pub max_gone: usize,
    /// How long a tombstone is kept.
    pub keep_gone_ns: u64,
    /// Live containers kept.
    pub max_live: usize,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self { max_gone: 10_000, keep_gone_ns: 24 * 3600 * 1_000_000_000, max_live: 8192 }
    }
}

/// What changed in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerChange {
    /// A new instance, or a changed one.
    Changed(Container),
    /// A tombstone was dropped.
    Forgotten(Instance),
}

/// The table.
#[derive(Debug, Default)]
pub struct Containers {}
