//! The knobs of learning, in one place, each with its reason.

use minicbor::{Decode, Encode};

/// How a baseline learns and when it counts as ready. Kept inside each baseline, because
/// `slot_seconds` is part of what its coverage means.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LearnConfig {
    /// Length of a time slot; one (instance, slot) is a sampling unit.
    #[n(0)]
    pub slot_seconds: u32,
    /// Coverage needed to be ready, thousandths.
    #[n(1)]
    pub min_coverage_permille: u32,
    /// Starts that must have been observed from their first instruction.
    #[n(2)]
    pub min_starts: u32,
    /// A unit beginning this long after the start belongs to the steady phase.
    #[n(3)]
    pub startup_seconds: u32,
    /// Steady units with activity needed.
    #[n(4)]
    pub min_steady_slots: u32,
    /// Units needed altogether.
    #[n(5)]
    pub min_units: u32,
    /// Distinct siblings before a name pattern or an address prefix is made.
    #[n(6)]
    pub min_siblings: u32,
    /// Distinct siblings before everything directly in a directory becomes one pattern.
    #[n(7)]
    pub min_directory_siblings: u32,
    /// Behaviours that one baseline may hold; beyond, it is too variable.
    #[n(8)]
    pub max_behaviours: u32,
    /// Quarantined or drifted behaviours kept for a person to decide on.
    #[n(9)]
    pub max_pending: u32,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self {
            slot_seconds: 60,
            min_coverage_permille: 980,
            min_starts: 2,
            startup_seconds: 120,
            min_steady_slots: 30,
            min_units: 60,
            min_siblings: 8,
            min_directory_siblings: 32,
            max_behaviours: 20_000,
            max_pending: 1_000,
        }
    }
}

impl LearnConfig {
    /// The same with every knob in a range in which the arithmetic holds.
    pub fn checked(mut self) -> Self {
        self.slot_seconds = self.slot_seconds.clamp(1, 86_400);
        self.min_coverage_permille = self.min_coverage_permille.min(1000);
        self.min_siblings = self.min_siblings.max(3);
        self.min_directory_siblings = self.min_directory_siblings.max(self.min_siblings);
        self.max_behaviours = self.max_behaviours.clamp(1, 1_000_000);
        self.max_pending = self.max_pending.clamp(1, 100_000);
        self
    }
}
