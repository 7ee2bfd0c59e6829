//! What is done about an alert, and in which order.
//!
//! Promises: pure; no I/O, no clock (time arrives as values), no randomness of its own. The state
//! of every plan is a fold over journalled records, so a restart anywhere resumes it.
//!
//! Left out on purpose: effects (the agent performs them), sending (the `notify` crate), and any
//! look at the machine.
#![forbid(unsafe_code)]

pub mod enforcement;
pub mod guards;
pub mod order;
pub mod outbox;
pub mod persons;
pub mod plan;
pub mod policy;
pub mod values;

pub use order::{Fact, Next, Order};
pub use plimsoll_model::response::{
    Delivery, DeliveryResult, OnFailure, Plan, PlanEnd, PolicyInForce, Step, StepClass, StepKind,
    StepOutcome, StepPhase, StepRecord,
};
pub use policy::{Policy, PolicyError};
pub use values::{glob, parse_ms, parse_prefix};
