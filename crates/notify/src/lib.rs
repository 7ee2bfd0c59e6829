//! The process that sends notifications.
//!
//! ```text
//! agent (root) ──socket pair──► this (unprivileged) ──HTTP, SMTP, syslog──► receivers
//! ```
//!
//! Promises: secrets of receivers live here alone and appear in no answer; one thread and one
//! message under way for each receiver; every wait has an end ([`config::Receiver::timeout_s`]);
//! what a receiver answers is read up to a bound. Left out on purpose: retries, order, grouping
//! and durability, which are the agent's.
#![forbid(unsafe_code)]

pub mod config;
mod email;
mod http;
mod serve;
mod syslog;
mod words;

pub use config::{Config, ConfigError};
pub use serve::serve;

use config::{Kind, Receiver};
use plimsoll_api::notify::{Message, TryResult};

/// What came of a try, with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What it came to.
    pub result: TryResult,
    /// The receiver's answer or the error, without secrets.
    pub detail: String,
}

impl Tried {
    fn delivered(detail: impl Into<String>) -> Self {
        Self {
            result: TryResult::Delivered,
            detail: detail.into(),
        }
    }
    fn later(detail: impl Into<String>) -> Self {
        Self {
            result: TryResult::Later {
                retry_after_ms: None,
            },
            detail: detail.into(),
        }
    }
    fn refused(detail: impl Into<String>) -> Self {
        Self {
            result: TryResult::Refused,
            detail: detail.into(),
        }
    }
}

/// Tries once.
pub fn send(receiver: &Receiver, message: &Message) -> Tried {
    let mut tried = match receiver.kind {
        Kind::Webhook => http::webhook(receiver, message),
        Kind::Slack => http::slack(receiver, message),
        Kind::Falcosidekick => http::falcosidekick(receiver, message),
        Kind::Otlp => http::otlp(receiver, message),
        Kind::Smtp => email::send(receiver, message),
        Kind::Syslog => syslog::send(receiver, message),
    };
    tried.detail = receiver.masked(&tried.detail);
    tried
}
