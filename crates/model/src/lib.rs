//! The vocabulary of Plimsoll.
//!
//! One word per idea, as the design gives them: an [`Event`] is what the kernel reported, an
//! [`Observation`] is an event with its workload and lineage, a [`Behaviour`] is the stable
//! identity of what was done, a [`Drift`] is an observation outside the baseline in force, an
//! [`Alert`] is our opinion, a [`Gap`] is a recorded loss.
//!
//! Promises: no I/O, no async, no clock, no JSON. Every type that is stored has a numbered CBOR
//! encoding (see [`record`]) in which unknown fields are skipped and numbers are never reused.
//!
//! Left out on purpose: how any of these are obtained, judged, kept or shown.
#![forbid(unsafe_code)]

pub mod alert;
pub mod behaviour;
mod calls;
pub mod enforcement;
pub mod event;
pub mod gap;
pub mod ids;
pub mod names;
pub mod observation;
pub mod paths;
pub mod record;
pub mod recording;
pub mod response;
pub mod ruleset;
pub mod text;
pub mod time;
pub mod workload;

pub use alert::{Alert, AlertSource, Drift, DriftClass, NearBehaviour, Priority, Risk};
pub use behaviour::{Behaviour, BehaviourId, BehaviourKind, Operation};
pub use enforcement::{EnforceClass, Enforced, EnforcementInForce, Prevention};
pub use event::{
    Actor, Entry, Event, EventKind, FileOp, Glance, Origin, ProcessInfo, Proto, SockAddr, Trust,
};
pub use gap::{Gap, GapScope, Stage};
pub use ids::{
    AlertId, BaselineId, BaselineRef, BootId, ContainerId, Digest, Instance, NodeId, ProcessKey,
    RecordId,
};
pub use observation::{Ancestor, ExecFacts, Line, Observation};
pub use record::{Record, RecordKind};
pub use recording::{Recorded, Recording, Used};
pub use response::{Plan, Step, StepClass, StepKind, StepOutcome};
pub use ruleset::{RuleEntry, RuleFile, RuleSet};
pub use text::Text;
pub use time::{BootNs, ClockAnchor, Stamp, WallNs};
pub use workload::{Container, ContainerState, ImageRef, MountPoint, PodFacts, Runtime};
