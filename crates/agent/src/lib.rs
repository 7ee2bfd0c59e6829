//! The privileged daemon: wiring and effects.
//!
//! ```text
//!            rings                                                    ┌─► alerts shown (output)
//! sensor ──► reader ──► inbox ──► pipeline ──► ledger ──► journal ────┤
//!   ▲          │ full: forget, count   │  attribute → judge → record  └─► readers, evidence
//!   └──────────┴───────────────────────┘ sets, watch, forget
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the file and the command line, resolved |
//! | [`run()`] | finds the machine, loads the sensor, reads until told to stop |
//! | [`daemon`], [`shared`] | threads, start and end; what they share |
//! | `found` | what programs ran in containers when the agent came |
//! | [`inbox`] | the bounded, fair queue behind the rings |
//! | [`glance`] | what `/proc` shows of a process right after its exec, for rules that ask |
//! | [`pipeline`] | attribute, judge, record: the one order of things |
//! | [`attribution`], [`kernel`] | the seams to the stages before |
//! | [`shelf`] | baselines on disk and as the kernel's sets |
//! | [`rules`] | rules in the Falco language: loaded, reloaded, judged |
//! | [`ledger`], [`past`] | the journal as we write and as we find it |
//! | [`respond`] | what is done about alerts, in which order |
//! | [`recorder`] | the minutes before an alert, and the stream after it |
//! | [`enforce`] | containers held to their baseline, where a policy says so |
//! | [`gaps`] | losses until they are journalled |
//! | [`server`], [`answers`] | the socket, and what it says |
//! | `beside`, [`leftover`] | processes that outlive the agent |
//! | [`clock`], [`dense`], [`quota`], [`latency`], [`opinion`], [`view`], [`files`], [`machine`] | small pure or plain parts |
//!
//! Promises: every queue and table is bounded and its loss becomes a gap; alerts are handed to the
//! journal before anything else of their batch; nothing on the way of an event waits for a disk, a
//! runtime or a reader. Plain threads; no HTTP, no TLS, no query engine in this process.
//!
//! Left out: every decision about what is drift (`baseline`), who a container is (`workload`), how
//! bytes lie on disk (`evidence`) and in the kernel (`sensor`).
#![forbid(unsafe_code)]

pub mod anchoring;
pub mod answers;
pub mod attribution;
pub mod begin;
mod beside;
pub mod chores;
pub mod clock;
pub mod config;
pub mod custody;
pub mod daemon;
pub mod dense;
pub mod enforce;
pub mod files;
mod found;
pub mod gaps;
pub mod glance;
pub mod inbox;
pub mod kernel;
mod last_hour;
pub mod latency;
pub mod ledger;
pub mod leftover;
pub mod machine;
pub mod opinion;
pub mod output;
pub mod past;
pub mod pipeline;
pub mod priority;
pub mod quota;
pub mod recorder;
pub mod respond;
pub mod rules;
pub mod run;
pub mod scrub;
pub mod server;
pub mod shared;
pub mod shelf;
#[cfg(test)]
mod testing;
pub mod view;

pub use config::{Config, ConfigError, Overrides, Stdout};
pub use daemon::Agent;
pub use run::{RunError, run};
