//! The Falco rule language, whole and fast.
//!
//! For: loading Falco rule files as they are, saying what is wrong with them and where, judging
//! events by them, and giving the reason for every match.
//!
//! Promises: the same rules match the same events as in Falco (what differs is listed in
//! `docs/rules-differences.md`); no rule text and no event can make it slow or large without bound,
//! and none makes it panic; a verdict depends on the event and the rules only, so it replays.
//!
//! Leaves out: reading files, clocks, events' bytes and what is done about a match. The crate is
//! pure: text and events in, verdicts out.
//!
//! The way through it: [`load`] reads texts into a [`Ruleset`] or says why not in a [`LoadReport`];
//! [`Ruleset::judge`] asks an [`EventView`] for fields and gives the rules that match;
//! [`Ruleset::could_match`] does the same with values that are not known;
//! [`audit`] is a view of Kubernetes audit events;
//! [`Ruleset::reason`], [`Ruleset::render`] and [`Ruleset::explain`] say why, what and how.

#![forbid(unsafe_code)]

pub mod audit;
mod compile;
mod events;
mod explain;
mod fields;
mod graph;
mod judge;
mod kept;
mod load;
mod matcher;
mod meant;
mod output;
mod plan;
mod report;
mod syntax;
mod threshold;
mod value;
mod yaml;

pub use compile::{AppendOutput, LoadOptions, load};
pub use events::{EventKind, KindSet, MAX_KINDS};
pub use explain::{Explanation, FieldNeed, KindNeed, RuleStatus};
pub use fields::{
    ArgRule, Field, FieldArg, FieldError, FieldInfo, FieldRef, FieldType, NodeCapabilities, Shape,
};
pub use judge::{Condition, MatchMode, Reason, Scratch};
pub use kept::Kept;
pub use load::ENGINE_VERSION;
pub use matcher::glob_fits;
pub use output::{OutputValue, Rendered};
pub use report::{Code, Context, FileReport, Finding, LoadReport, Location, Position};
pub use threshold::{Counted, Per, Threshold, ThresholdCounts};
pub use value::{AsValue, EventView, Tri, Value, ValueList};

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// A rule of a [`Ruleset`], by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RuleId(pub u32);

impl RuleId {
    /// For indexing.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where events come from; a rule is for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the kernel reports.
    Syscall,
    /// What the Kubernetes API server reports.
    K8sAudit,
}

impl Source {
    /// The name in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::K8sAudit => "k8s_audit",
        }
    }

    /// The source of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "syscall" => Some(Self::Syscall),
            "k8s_audit" => Some(Self::K8sAudit),
            _ => None,
        }
    }

    pub(crate) const ALL: [Self; 2] = [Self::Syscall, Self::K8sAudit];
}

/// How urgent a rule's author finds it, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Priority {
    /// `Emergency`
    Emergency,
    /// `Alert`
    Alert,
    /// `Critical`
    Critical,
    /// `Error`
    Error,
    /// `Warning`
    Warning,
    /// `Notice`
    Notice,
    /// `Informational`
    Informational,
    /// `Debug`
    Debug,
}

impl Priority {
    const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Informational,
        Self::Debug,
    ];

    /// The name, as alerts print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "Emergency",
            Self::Alert => "Alert",
            Self::Critical => "Critical",
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Notice => "Notice",
            Self::Informational => "Informational",
            Self::Debug => "Debug",
        }
    }

    /// Reads a name in any case; `info` is short for `Informational`.
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("info") {
            return Some(Self::Informational);
        }
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// Its name, unique in the set.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// How urgent.
    pub priority: Priority,
    /// Which events it is for.
    pub source: Source,
    /// Its tags, sorted.
    pub tags: BTreeSet<String>,
    /// The condition, as written (with what was appended).
    pub condition: String,
    /// The output, as written.
    pub output: String,
    /// Whether its author wants a capture.
    pub capture: bool,
    /// For how long, in milliseconds; 0 where not said.
    pub capture_duration_ms: u32,
    /// How often it has to match, where not once is enough.
    pub threshold: Option<Threshold>,
    /// Where it was last defined.
    pub position: Position,
    /// Whether it judges events, and if not why.
    pub status: RuleStatus,
}

impl Rule {
    /// The ATT&CK techniques in its tags, e.g. `T1059` or `T1059.004`.
    pub fn techniques(&self) -> impl Iterator<Item = &str> {
        self.tags
            .iter()
            .map(String::as_str)
            .filter(|t| is_technique(t))
    }
}

fn is_technique(tag: &str) -> bool {
    let Some(number) = tag.strip_prefix(['T', 't']) else {
        return false;
    };
    let (main, sub) = number
        .split_once('.')
        .map_or((number, None), |(m, s)| (m, Some(s)));
    let digits = |t: &str, n| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    digits(main, 4) && sub.is_none_or(|s| digits(s, 3))
}

/// A rule that was read and judges nothing: its source is none of ours, or it names what is not known
/// and says `skip-if-unknown-filter`.
#[derive(Clone, Debug, Serialize)]
pub struct PassedOver {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// How urgent.
    pub priority: Priority,
    /// Which events it is for, as written.
    pub source: String,
    /// Its tags, sorted.
    pub tags: BTreeSet<String>,
    /// Where it was last defined.
    pub position: Position,
    /// e.g. `needs source okta: not received here`
    pub why: String,
}

/// Rules that were loaded and compiled; immutable, to be shared between threads.
pub struct Ruleset {
    id: u64,
    rules: Vec<Rule>,
    passed_over: Vec<PassedOver>,
    graph: graph::Graph,
    compiled: Vec<compile::CompiledRule>,
    plans: plan::Plans,
    mode: MatchMode,
    macro_names: rustc_hash::FxHashMap<graph::NodeId, String>,
    capabilities: NodeCapabilities,
}

impl fmt::Debug for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ruleset")
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl Ruleset {
    /// All rules, in the order in which they were first defined.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules that were read and judge nothing, in the order in which they were first defined.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }

    /// One rule.
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id.index()]
    }

    /// The rule of that name.
    pub fn find(&self, name: &str) -> Option<RuleId> {
        self.rules
            .iter()
            .position(|r| r.name == name)
            .map(|i| RuleId(i as u32))
    }
}
