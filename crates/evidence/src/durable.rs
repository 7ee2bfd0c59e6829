//! What a writer is told of a record.

use crate::error::AppendError;
use crate::record::Leaf;

/// Told once what became of a record. Runs on the writing thread, so it must be quick;
/// it must not panic.
pub type Ack = Box<dyn FnOnce(Result<Durable, AppendError>) + Send>;

/// Where a durable record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the journal proper.
    Journal,
    /// In the emergency segment, until there is room; the leaf index is final.
    Emergency,
}

/// Proof that a record is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Its position, final.
    pub leaf: Leaf,
    /// Boot-clock time at which the sync had returned, nanoseconds.
    pub boot_ns: u64,
    /// Wall-clock time at which the sync had returned, nanoseconds.
    pub wall_ns: i64,
    /// Where it lies.
    pub place: Place,
}
