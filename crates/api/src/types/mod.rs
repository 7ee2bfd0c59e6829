//! The JSON types, one module a noun.
//!
//! Times are RFC 3339 in UTC with nanoseconds (`2026-11-21T01:02:03.000000004Z`); numbers of
//! nanoseconds end in `_ns`. A record is named `origin@leaf`.

mod alert;
mod answer;
mod baseline;
mod container;
mod decision;
mod drift;
mod enforcement;
mod event;
mod gap;
mod response;
mod rule;
mod status;

pub use alert::{Alert, PlimsollAlert, uuid_of};
pub use answer::{
    Answer, Completeness, CompletenessGap, Coverage, LostAt, Statement, StatementStatus, Unwatched,
};
pub use baseline::{
    Baseline, BaselineChange, BaselineDetail, BaselineDiff, BaselineRef, KnownBehaviour,
};
pub use container::Container;
pub use decision::Decision;
pub use drift::{Behaviour, Drift, DriftBaseline, Near, class_name};
pub use enforcement::{Enforcement, HeldContainer, Means, PreventedSum};
pub use event::{Event, Process, Subject};
pub(crate) use event::{mount_call, namespace_call};
pub use gap::Gap;
pub use response::{Outgoing, Plan, PlanStep};
pub use rule::{Rule, RuleSetInfo};
pub use status::{
    BaselineCounts, DoctorRow, DoctorState, JournalStatus, RecorderSpan, RecorderStatus, Refusal,
    SensorStatus, Status,
};

use plimsoll_model as model;

/// What a conversion needs to know beyond the record itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The container instance that the record is about, where its identity is known.
    pub container: Option<&'a model::Container>,
    /// The record itself, where it has been journalled.
    pub record: Option<&'a model::RecordId>,
}

/// A time as every type shows it.
pub fn time(stamp: model::Stamp) -> String {
    stamp.wall.rfc3339()
}
