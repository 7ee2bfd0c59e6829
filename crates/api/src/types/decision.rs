//! What a person or a policy decided.

use super::{Context, time};
use plimsoll_model as model;
use serde::{Deserialize, Serialize};

/// A decision, with who made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// When.
    pub time: String,
    /// `baseline.approve`, `baseline.lock` …
    pub action: String,
    /// What it is about.
    pub subject: String,
    /// Why, in that person's words.
    pub reason: String,
    /// uid of the peer on the socket.
    pub uid: u32,
    /// Login uid; `null` when there is none.
    pub login_uid: Option<u32>,
    /// `socket`, `offline` or `policy`.
    pub method: String,
    /// The record that says so.
    pub record: Option<String>,
}

impl Decision {
    /// The JSON form of a decision.
    pub fn new(d: &model::record::Decision, context: Context<'_>) -> Self {
        Self {
            time: time(d.at),
            action: d.action.clone(),
            subject: d.subject.clone(),
            reason: d.reason.clone(),
            uid: d.uid,
            login_uid: (d.login_uid != u32::MAX).then_some(d.login_uid),
            method: d.method.clone(),
            record: context.record.map(ToString::to_string),
        }
    }
}
