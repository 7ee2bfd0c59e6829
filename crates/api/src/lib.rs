//! What Plimsoll shows and is asked.
//!
//! Two things: the JSON types that every command, the console and other programs read
//! ([`types`], one module a noun; documented for users in `docs/formats/json.md`), and the small
//! audited set of requests that the running agent answers on its Unix socket ([`protocol`],
//! [`client`]).
//!
//! Promises:
//! - Field names are stable within [`API_VERSION`]: fields are added, never renamed or reused. A
//!   reader skips what it does not know; what is not known is `null`, never left out.
//! - Whatever bytes a container chose, a line made by [`json::line`] is valid UTF-8 JSON without
//!   any character that a terminal could obey or be confused by.
//! - Every line of the protocol has a stated length bound, on both sides.
//!
//! Left out on purpose: who may ask (the agent checks the peer's credentials), where the values
//! come from, and how people see them (the CLI's tables).
#![forbid(unsafe_code)]

pub mod client;
pub mod describe;
pub mod evidence;
pub mod json;
pub mod notify;
pub mod protocol;
pub mod storage;
pub mod types;

pub use client::{Client, ClientError};
pub use protocol::{Failure, FailureCode, Item, Reply, Request};
pub use types::{
    Alert, Answer, Baseline, BaselineDetail, BaselineDiff, Behaviour, Completeness, Container,
    Decision, DoctorRow, Drift, Event, Gap, Rule, RuleSetInfo, Statement, StatementStatus, Status,
};

/// Version of the JSON types and of the socket protocol.
pub const API_VERSION: u32 = 1;
