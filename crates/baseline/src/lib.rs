//! What a container image is known for, and the moment a container goes below that line.
//!
//! An [`Observation`](plimsoll_model::Observation) is coded into [`behaviours`], which a
//! [`Baseline`] knows, learns or calls drift. A baseline is keyed by image and role, says how much
//! of the workload it covers ([`Coverage`]), and becomes ready by measurement, never by a timer.
//!
//! ```text
//! observation ── behaviours() ──► Behaviour… ── Baseline::observe() ──► Verdict
//!                                                                      ├─ known   (counted)
//!                                                                      ├─ learned (while learning)
//!                                                                      └─ drifts  ── alert() ──► Alert ── Burst
//! ```
//!
//! Promises: no I/O, no clock, no randomness; time arrives in observations and arguments, so a
//! verdict replays. Every table has a stated bound, and meeting it is reported. What a risk class
//! flags is never learned silently.
//!
//! Left out on purpose: where observations come from, where baselines are kept, who may approve
//! (the agent verifies that), and rules (another crate).
#![forbid(unsafe_code)]

pub mod alert;
pub mod allowed;
pub mod attack;
pub mod baseline;
pub mod burst;
pub mod code;
pub mod compare;
pub mod config;
pub mod coverage;
pub mod export;
pub mod generalise;
pub mod judge;
pub mod known;
pub mod peers;
pub mod programs;
pub mod risk;
pub mod shape;
pub mod wire;

pub use alert::{Novelty, alert, priority};
pub use allowed::{Allowed, Entry as AllowedEntry};
pub use baseline::{
    Approval, Baseline, Change, Expected, Flag, Key, Lineage, Pending, Readiness, Select, State,
};
pub use burst::{Burst, BurstConfig, BurstKey, Offer};
pub use code::behaviours;
pub use compare::{Diff, MergeError, diff, merge};
pub use config::LearnConfig;
pub use coverage::Coverage;
pub use export::{ExportError, export, import};
pub use generalise::Template;
pub use judge::{Verdict, judge};
pub use known::{KnownEntry, KnownObject, PathReach, PeerReach, known_entries};
pub use peers::{NoNames, PeerNames, ResolvedNames};
pub use plimsoll_model::{
    names,
    paths::{self, PathPattern, watched_paths},
};
pub use risk::{Class, Context, classify};
pub use wire::{DecodeBaselineError, SCHEMA_VERSION};
