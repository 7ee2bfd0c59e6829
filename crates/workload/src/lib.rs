//! Process lineage and container identity: the stage that turns an [`Event`] into an
//! [`Observation`].
//!
//! The way through this crate:
//!
//! | module | question it answers |
//! |---|---|
//! | [`cgroup`] | which hierarchy tells containers apart, and which container a path belongs to |
//! | [`disk`] | what the runtime has put on disk about it before its first instruction runs |
//! | [`api`] | what the runtime itself says (confirms, never delays) |
//! | [`lineage`] | which process is this, and who started it |
//! | [`containers`] | which instances live, and which have gone |
//! | [`scan`] | what was already running when the agent started |
//! | `root` | where the root of a container lies that is not the top of its mount namespace |
//! | [`glance`] | what a process that just executed shows in `/proc` and no hook tells |
//! | [`redact`] | which arguments are secrets, to be masked before anybody judges or stores them |
//! | [`attribute`] | joins them: [`Attributor`] |
//!
//! Promises: [`lineage`], [`containers`] and [`attribute`] read no clock and touch no file
//! themselves; time is passed in, and what has to be read is asked of an [`Evidence`]. Every table
//! and buffer is bounded, and what a bound costs is counted and reported as a gap. Text found on
//! disk, in `/proc` or in a runtime's answer is data: bounded, checked, never a path to follow.
//!
//! Left out: judging what is seen, storing anything.
//!
//! [`Event`]: plimsoll_model::Event
//! [`Observation`]: plimsoll_model::Observation
#![forbid(unsafe_code)]

pub mod api;
pub mod attribute;
pub mod cgroup;
pub mod containers;
pub mod disk;
pub mod facts;
pub mod glance;
pub mod lineage;
mod patient;
pub mod pod;
pub mod redact;
mod root;
pub mod scan;

pub use api::{ApiNews, Confirmer, ConfirmerConfig, Question};
pub use attribute::{Attributor, AttributorConfig, Counters, Out};
pub use cgroup::{CgroupIdentity, Hierarchy, Layout, Version, classify};
pub use containers::{Containers, ContainersConfig};
pub use disk::{Disk, Roots};
pub use facts::{Evidence, Facts, NoEvidence, Verdict};
pub use glance::{EnvWanted, Place};
pub use lineage::{Lineage, LineageConfig};
pub use redact::{RedactionRuleError, Redactor};
pub use root::{NestedRoot, runs_program};
pub use scan::{FoundContainer, Met, Scan, Seed, scan_container, scan_proc};
