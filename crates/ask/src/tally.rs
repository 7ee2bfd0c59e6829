//! What was read for an answer, and what of it had no content any more.

use crate::removed::Removed;

/// What was read for an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) read: u64,
    pub(crate) pruned: u64,
    /// Those by the deletion that took their content.
    pub(crate) removed: Removed,
    pub(crate) damaged: u64,
    pub(crate) uncertainty_ns: u64,
    pub(crate) limits: Vec<String>,
    /// Observations of the subject; `None`: none were asked for.
    pub(crate) observations: Option<u64>,
    /// Of observations that fitted, how many were not read, and how many were.
    pub(crate) left: Option<(u64, u64)>,
}
