//! The rules in force, as the journal keeps them: so that an alert's rule can be read and judged
//! again after the files have changed.

use crate::text::Text;
use crate::time::Stamp;
use minicbor::{Decode, Encode};

/// A set of rules came into force. Every verdict of a rule behind this entry, up to the next one,
/// is by these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RuleSet {
    /// When.
    #[n(0)]
    pub at: Stamp,
    /// SHA-256 over the files (names and texts, in order), in hex: the set's id.
    #[n(1)]
    pub id: String,
    /// The files, in the order in which they were loaded.
    #[n(2)]
    pub files: Vec<RuleFile>,
    /// The rules, in the order in which they were first defined.
    #[n(3)]
    pub rules: Vec<RuleEntry>,
    /// Version of the rule language's engine.
    #[n(4)]
    pub engine: String,
    /// The set that was in force before; empty at a start.
    #[n(5)]
    pub replaced: String,
    /// Only the first rule that matches an event counts.
    #[n(6)]
    #[cbor(default)]
    pub first_match_only: bool,
    /// Hooks that the kernel refused, by the sensor's names: rules that need them were off.
    #[n(7)]
    #[cbor(default)]
    pub hooks_refused: Vec<String>,
}

/// One file of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RuleFile {
    /// Its path, or `builtin:NAME`.
    #[n(0)]
    pub name: String,
    /// SHA-256 of its text, in hex.
    #[n(1)]
    pub digest: String,
    /// Length of its text in bytes.
    #[n(2)]
    pub bytes: u64,
    /// Its text; `None` where the set is too large for one record.
    #[n(3)]
    pub text: Option<Text>,
}

/// One rule of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RuleEntry {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// `active`, `partial`, `inactive` or `disabled`.
    #[n(1)]
    pub state: String,
}

impl RuleSet {
    /// How many rules are in that state.
    pub fn count(&self, state: &str) -> usize {
        self.rules.iter().filter(|r| r.state == state).count()
    }
}
