//! Rules in the agent: Falco's language over what the sensor observes.
//!
//! ```text
//! files ──► loaded set ──► engine: observation ──► rules that fire ──► alerts
//!   ▲            │
//! watcher        └─► journal (RuleSet), before the first verdict by it
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`files`] | rule files found, read and loaded as one set |
//! | [`watcher`] | changed files are loaded while the agent runs, all or nothing |
//! | [`engine`] | the set in force: what fires, thresholds, alerts |
//! | [`view`] | an observation, asked for Falco's fields |
//! | [`kinds`] | which `evt.type` an observation may have |
//! | [`key`] | what the kernel's dictionary may answer for |
//! | [`scenario`] | events as rules see them, in a file |
//! | [`told`] | rules as JSON types |
//! | [`watched`] | behaviours that the kernel emits every time for the rules' sake |
//! | [`capabilities`] | what this sensor does not tell rules |
//! | `args`, `net`, `process`, `workload`, `words` | parts of the view |
//!
//! Promises: a set is in force whole or not at all; a rule that this node cannot judge says why.
//! Left out: the language itself (`plimsoll_rules`) and the order of things ([`crate::pipeline`]).

mod args;
pub mod capabilities;
pub mod engine;
pub mod files;
pub mod health;
pub mod key;
pub mod kinds;
mod net;
mod process;
pub mod scenario;
pub mod told;
pub mod view;
pub mod watched;
pub mod watcher;
mod words;
mod workload;

pub use engine::{Engine, Fired};
pub use files::{Loaded, RuleSources, RuleText, RulesError};
pub use view::{Surroundings, View};
pub use watched::Watched;
