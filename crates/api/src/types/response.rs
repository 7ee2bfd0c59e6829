//! Plans, and what came of their steps.

use super::Decision;
use serde::{Deserialize, Serialize};

/// A plan with its progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Its id.
    pub plan_id: String,
    /// The alert that it answers.
    pub alert_id: String,
    /// When it was made.
    pub time: String,
    /// Name of the container; empty: unknown.
    pub container: String,
    /// Its id; `null`: unknown.
    pub container_id: Option<String>,
    /// Name of the policy's entry.
    pub policy: String,
    /// SHA-256 of the policy file in force then.
    pub policy_digest: String,
    /// Nothing of it is done.
    pub dry_run: bool,
    /// `would-be` (nobody has journalled it), `waiting`, `running`, `ended`.
    pub state: String,
    /// What it waits for, in words; `null`: nothing.
    pub waiting_for: Option<String>,
    /// Why it has ended; `null`: it has not.
    pub ended: Option<String>,
    /// Why the policy answers this alert.
    pub reasons: Vec<String>,
    /// What it reaches.
    pub blast_radius: Vec<String>,
    /// Guards that refused steps when it was made.
    pub held: Vec<String>,
    /// Its steps in their order.
    pub steps: Vec<PlanStep>,
    /// Approvals so far.
    pub approvals: Vec<Decision>,
    /// Who waived the capture; `null`: nobody.
    pub waived_by: Option<String>,
    /// Further alerts that it answers: starts of the program that it forbids, which were stopped.
    pub stopped_again: u64,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanStep {
    /// Its name in the policy language.
    pub step: String,
    /// `observe`, `preserve`, `contain` or `destroy`.
    pub class: String,
    /// `pending`, `running`, or how it ended: `done`, `failed`, `refused`, `unavailable`,
    /// `skipped`, `interrupted`, `timed-out`.
    pub state: String,
    /// What it will do and break.
    pub effect: String,
    /// What came of it; `null`: it has not ended.
    pub outcome: Option<String>,
    /// The bundle that it sealed.
    pub sealed: Option<String>,
    /// How often it was begun.
    pub attempts: u32,
    /// How many persons have to approve it.
    pub approvals_needed: u32,
    /// How taking it back stands; `null`: nobody asked for that, or it cannot be.
    pub undone: Option<String>,
}

/// A message that could not be delivered, or what still waits for a receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outgoing {
    /// The receiver.
    pub receiver: String,
    /// `waiting` or `dead`.
    pub state: String,
    /// The message's key; empty when several wait.
    pub key: String,
    /// Alerts that it stands for.
    pub count: u64,
    /// The first of them.
    pub alerts: Vec<String>,
    /// Tries so far.
    pub attempts: u32,
}
