//! What the agent and the process that sends notifications say to each other: one JSON object a
//! line over a Unix socket that the agent made.
//!
//! Promises: the agent never sees a secret of a receiver, the sender never sees anything but
//! messages; lines are bounded by [`LINE_BYTES_MAX`]. Left out: routing, retries and order, which
//! are the agent's (`plimsoll_respond::outbox`); protocols of receivers (the `notify` crate).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line, bytes, both ways.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A receiver, as the sender announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Its protocol (`webhook`, `slack`, `smtp`, `syslog`, `otlp`, `falcosidekick`).
    pub kind: String,
    /// Alerts at least this severe, by Falco's name.
    pub priority: String,
    /// Single messages a minute; more are told together.
    pub per_minute: u32,
}

/// Alerts of one rule, told together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The rule; empty: several others.
    pub rule: String,
    /// The most severe priority among them, by Falco's name.
    pub priority: String,
    /// How many.
    pub count: u64,
    /// Id of the first.
    pub first: String,
    /// Id of the last.
    pub last: String,
    /// The first, whole.
    pub sample: Value,
}

/// A message to one receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Deduplication key: the same whenever it is sent again.
    pub key: String,
    /// How many alerts it stands for.
    pub count: u64,
    /// The alert, in Falco's JSON with our object, when it is one.
    pub alert: Option<Value>,
    /// What a storm consists of, when it is one.
    pub groups: Vec<Group>,
}

/// From the agent to the sender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSender {
    /// Try this once.
    Send {
        /// At this receiver.
        receiver: String,
        /// The message.
        message: Message,
    },
}

/// From the sender to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromSender {
    /// It has started, and these are its receivers.
    Hello {
        /// All of them.
        receivers: Vec<Receiver>,
    },
    /// A try has ended.
    Tried {
        /// The receiver.
        receiver: String,
        /// The message's key.
        key: String,
        /// What came of it.
        result: TryResult,
        /// The receiver's answer or the error, in words, without secrets.
        detail: String,
    },
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum TryResult {
    /// The receiver has it.
    Delivered,
    /// Not now.
    Later {
        /// The receiver asked for this much patience, milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// Never in this form.
    Refused,
}
