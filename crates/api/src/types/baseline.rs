//! Baselines: how far known, what is in them, how two of them differ.
//!
//! The `baseline` crate owns the object itself; the agent and the CLI convert.

use super::Behaviour;
use serde::{Deserialize, Serialize};

/// A baseline at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineRef {
    /// Which baseline.
    pub id: String,
    /// Its version, from 1.
    pub version: u64,
}

/// One baseline and how far it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// Which baseline; stable over versions.
    pub id: String,
    /// Its version; every change of content or state makes a new one.
    pub version: u64,
    /// `learning`, `ready` or `locked`.
    pub state: String,
    /// Share of the behaviour that is expected to be in it, 0 to 1 (Chao-Jost); `null`: too few
    /// samples to say.
    pub coverage: Option<f64>,
    /// The image by name, as last seen.
    pub image: String,
    /// The image's configuration digest.
    pub image_digest: Option<String>,
    /// Role within the workload.
    pub role: String,
    /// How many behaviours it holds.
    pub behaviours: u64,
    /// How many wait for a person.
    pub quarantined: u64,
    /// New behaviours expected a day at the present rate.
    pub expected_new_per_day: Option<f64>,
    /// What it lacks to become ready, in words; empty when nothing.
    pub unmet: Vec<String>,
    /// Container starts that it has seen.
    pub starts: u64,
    /// Container instances that it has seen.
    pub instances: u64,
    /// How many of the 168 hours of a week it has seen.
    pub hours_seen: u32,
    /// Those hours in words (`Mon 08-18 UTC (10 of 168 hours)`).
    pub hours: String,
    /// What else to know before relying on it.
    pub notes: Vec<String>,
    /// Sampling units (instance and time slot) behind `coverage`.
    pub samples: u64,
    /// The baseline that it started from.
    pub predecessor: Option<BaselineRef>,
    /// When learning began.
    pub first: Option<String>,
    /// When it last changed.
    pub last: Option<String>,
    /// The node that made it.
    pub node: String,
}

/// One behaviour that a baseline knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownBehaviour {
    /// What is known; its object may be a pattern.
    pub behaviour: Behaviour,
    /// How often it was seen; a lower bound where `at_least`.
    pub count: u64,
    /// `count` is a lower bound.
    pub at_least: bool,
    /// In how many sampling units it was present.
    pub units: u64,
    /// First time.
    pub first: Option<String>,
    /// Last time.
    pub last: Option<String>,
    /// For a pattern: examples that made it.
    pub examples: Vec<String>,
    /// `learned`, `approved`, `inherited` or `quarantined`.
    pub status: String,
    /// Why it is in quarantine, or who approved it.
    pub note: Option<String>,
}

/// A baseline with its content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineDetail {
    /// The baseline.
    pub baseline: Baseline,
    /// What it knows.
    pub known: Vec<KnownBehaviour>,
    /// What waits for a person.
    pub quarantine: Vec<KnownBehaviour>,
}

/// One difference between two baselines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineChange {
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// The behaviour.
    pub behaviour: Behaviour,
    /// What changed, in words.
    pub note: Option<String>,
}

/// How two baselines differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineDiff {
    /// From this one …
    pub from: BaselineRef,
    /// … to this one.
    pub to: BaselineRef,
    /// The differences.
    pub changes: Vec<BaselineChange>,
    /// How many behaviours are in both.
    pub same: u64,
}
