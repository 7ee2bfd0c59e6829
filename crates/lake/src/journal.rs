//! What the lake is made from: the journal, as whoever joins the crates hands it over.
//!
//! Left out on purpose: opening a journal, and coding observations as behaviours. Both belong to
//! crates that this one does not know.

use plimsoll_model::{Behaviour, Container, Observation, Record, WallNs};
use std::ops::Range;

/// Leaves of one span: a file covers one or several whole ones. Equal to the journal's subtree.
pub const SPAN_LEAVES: u64 = 65_536;
/// Leaves of the least file: what came since the last whole span lies in some of these, so that
/// little is left to be read from the journal at each statement.
pub const PIECE_LEAVES: u64 = 8192;

/// Why the journal could not be read.
pub type JournalError = Box<dyn std::error::Error + Send + Sync>;

/// What is behind a leaf.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one at a time
pub enum Body {
    /// The record.
    Record(Record),
    /// Removed by retention.
    Pruned,
    /// Damaged, lost, or not what its kind says.
    Unreadable,
}

/// One leaf.
#[derive(Debug)]
pub struct Entry {
    /// Its number.
    pub leaf: u64,
    /// When the fact happened.
    pub wall: WallNs,
    /// The record's content.
    pub body: Body,
}

/// A journal, read-only.
pub trait Journal: Send + Sync {
    /// The node it belongs to.
    fn origin(&self) -> &str;

    /// One past the last durable leaf.
    ///
    /// # Errors
    /// When it cannot be read.
    fn end(&self) -> Result<u64, JournalError>;

    /// Hands over the leaves in `leaves` in order; only those of `kinds`, unless that is empty.
    ///
    /// # Errors
    /// When the journal cannot be read, or `each` fails. A damaged leaf is an entry, no error.
    fn each(
        &self,
        leaves: Range<u64>,
        kinds: &[u16],
        each: &mut dyn FnMut(Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError>;

    /// A coder that has seen nothing yet.
    fn coder(&self) -> Box<dyn Coder>;
}

/// Codes observations as behaviours, in the order in which they were recorded.
pub trait Coder: Send {
    /// A container's identity is learned or has changed.
    fn container(&mut self, container: &Container);
    /// What it learned from observations, for one that goes on behind them.
    fn keep(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Goes on with what another one has kept.
    fn resume(&mut self, kept: &[u8]) {
        let _ = kept;
    }
    /// What an observation shows.
    fn behaviours(
        &mut self,
        observation: &Observation,
        container: Option<&Container>,
    ) -> Vec<Behaviour>;
}
