//! Response: what a policy decides to do about an alert, and what came of it.
//!
//! A [`Plan`] is a list of steps, each of one [`StepClass`]: observe < preserve < contain <
//! destroy. Everything here is journalled before it is acted upon, so that the state of every
//! plan can be folded from the journal alone. Left out: deciding (the `respond` crate) and acting
//! (the agent).

use crate::ids::{AlertId, Instance, RecordId};
use crate::time::{Stamp, WallNs};
use minicbor::{Decode, Encode};

/// How far a step reaches. Steps of a plan are taken in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StepClass {
    /// Tells somebody.
    #[n(0)]
    Observe,
    /// Keeps evidence.
    #[n(1)]
    Preserve,
    /// Limits what the container can do; can be undone, except for killed processes.
    #[n(2)]
    Contain,
    /// Ends the container, and what only it held.
    #[n(3)]
    Destroy,
}

impl StepClass {
    /// Name in policies, JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            StepClass::Observe => "observe",
            StepClass::Preserve => "preserve",
            StepClass::Contain => "contain",
            StepClass::Destroy => "destroy",
        }
    }
}

/// What a step does. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StepKind {
    /// Tells the receivers what is planned.
    #[n(0)]
    Notify,
    /// Fast sweep of `/proc`.
    #[n(1)]
    Snapshot,
    /// Full capture, sealed as a bundle.
    #[n(2)]
    Capture,
    /// Memory of the suspect processes.
    #[n(3)]
    Memory,
    /// Stops all processes of the container, for a bounded time.
    #[n(4)]
    Freeze,
    /// Lets them go on.
    #[n(5)]
    Thaw,
    /// Cuts the container's network, established connections too.
    #[n(6)]
    Isolate,
    /// Stops all processes of the container until it is undone.
    #[n(7)]
    Pause,
    /// Kills the acting process and its descendants.
    #[n(8)]
    KillTree,
    /// Forbids a program on this node.
    #[n(9)]
    BlockProgram,
    /// Forbids an address on this node.
    #[n(10)]
    BlockAddress,
    /// Stops the container.
    #[n(11)]
    Stop,
    /// Removes the container.
    #[n(12)]
    Remove,
    /// Kubernetes: a quarantine label on the pod.
    #[n(13)]
    QuarantineLabel,
    /// Kubernetes: a network policy that denies everything to one pod.
    #[n(14)]
    DenyPolicy,
    /// Kubernetes: no new pods on this node.
    #[n(15)]
    Cordon,
    /// Kubernetes and Swarm: another number of replicas.
    #[n(16)]
    Scale,
    /// Kubernetes and Swarm: fresh replicas in place of this one.
    #[n(17)]
    Rotate,
}

impl StepKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [StepKind; 18] = {
        use StepKind::*;
        [
            Notify,
            Snapshot,
            Capture,
            Memory,
            Freeze,
            Thaw,
            Isolate,
            Pause,
            KillTree,
            BlockProgram,
            BlockAddress,
            Stop,
            Remove,
            QuarantineLabel,
            DenyPolicy,
            Cordon,
            Scale,
            Rotate,
        ]
    };

    /// Name in policies, JSON and tables.
    pub fn as_str(self) -> &'static str {
        use StepKind::*;
        match self {
            Notify => "notify",
            Snapshot => "snapshot",
            Capture => "capture",
            Memory => "memory",
            Freeze => "freeze",
            Thaw => "thaw",
            Isolate => "isolate",
            Pause => "pause",
            KillTree => "kill-tree",
            BlockProgram => "block-program",
            BlockAddress => "block-address",
            Stop => "stop",
            Remove => "remove",
            QuarantineLabel => "quarantine-label",
            DenyPolicy => "deny-policy",
            Cordon => "cordon",
            Scale => "scale",
            Rotate => "rotate",
        }
    }

    /// The step of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == name)
    }

    /// How far it reaches.
    pub fn class(self) -> StepClass {
        use StepKind::*;
        match self {
            Notify => StepClass::Observe,
            Snapshot | Capture | Memory | Freeze | Thaw => StepClass::Preserve,
            Isolate | Pause | KillTree | BlockProgram | BlockAddress | QuarantineLabel
            | DenyPolicy | Cordon | Scale => StepClass::Contain,
            Stop | Remove | Rotate => StepClass::Destroy,
        }
    }

    /// Doing it twice is the same as doing it once (a second capture is a second bundle, no
    /// harm). Others are never tried again after a crash, only looked after.
    pub fn is_idempotent(self) -> bool {
        use StepKind::*;
        match self {
            Notify | Snapshot | Capture | Memory | Freeze | Thaw | Isolate | Pause
            | BlockProgram | BlockAddress | QuarantineLabel | DenyPolicy | Cordon => true,
            // pids and names are reused, and a restart policy brings a container back
            KillTree | Stop | Remove | Scale | Rotate => false,
        }
    }

    /// Whether `plan undo` can take it back.
    pub fn is_reversible(self) -> bool {
        use StepKind::*;
        match self {
            Freeze | Isolate | Pause | BlockProgram | BlockAddress | QuarantineLabel
            | DenyPolicy | Cordon => true,
            Notify | Snapshot | Capture | Memory | Thaw | KillTree | Stop | Remove | Scale
            | Rotate => false,
        }
    }

    /// Whether only an orchestrator can do it: such steps are named in policies and end as "not
    /// available here" until there is an effector for them.
    pub fn needs_orchestrator(self) -> bool {
        use StepKind::*;
        matches!(self, QuarantineLabel | DenyPolicy | Cordon | Scale | Rotate)
    }

    /// Whether the container or its node notices: what a policy for everything must not do
    /// unconfirmed.
    pub fn interferes(self) -> bool {
        self.class() >= StepClass::Contain || self == StepKind::Freeze
    }
}

/// What happens to the rest of a plan when a step did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OnFailure {
    /// The next step is taken.
    #[n(0)]
    Continue,
    /// The plan ends there.
    #[n(1)]
    Stop,
}

/// One effect that is planned.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Step {
    /// What.
    #[n(0)]
    pub kind: StepKind,
    /// How: parameters of the policy, checked when it was loaded (`budget` → `10s`).
    #[n(1)]
    pub parameters: Vec<(String, String)>,
    /// How many persons have to approve it.
    #[n(2)]
    pub approvals: u32,
    /// How long it may take, milliseconds.
    #[n(3)]
    pub timeout_ms: u64,
    /// What follows when it fails.
    #[n(4)]
    pub on_failure: OnFailure,
    /// What it will do and break, in words.
    #[n(5)]
    pub effect: String,
}

/// What a policy decides to do about an alert.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Plan {
    /// Its id: `P-` and the digits of its alert.
    #[n(0)]
    pub id: String,
    /// The alert.
    #[n(1)]
    pub alert: AlertId,
    /// The alert's record, durable before this was made.
    #[n(2)]
    pub alert_record: Option<RecordId>,
    /// When it was made.
    #[n(3)]
    pub at: Stamp,
    /// The container instance.
    #[n(4)]
    pub instance: Option<Instance>,
    /// What people call it.
    #[n(5)]
    pub container: String,
    /// Name of the policy's entry.
    #[n(6)]
    pub policy: String,
    /// SHA-256 of the policy file in force, hex.
    #[n(7)]
    pub policy_digest: String,
    /// Nothing of it is done: the policy has not been turned on.
    #[n(8)]
    pub dry_run: bool,
    /// Why this policy answers this alert, in words.
    #[n(9)]
    pub reasons: Vec<String>,
    /// What is done, in this order.
    #[n(10)]
    pub steps: Vec<Step>,
    /// What it reaches beyond the process that gave cause, in words.
    #[n(11)]
    pub blast_radius: Vec<String>,
    /// Guards that refuse steps as things are now, in words.
    #[n(12)]
    pub held: Vec<String>,
    /// Until when approvals are waited for, and for how long one holds, milliseconds.
    #[n(13)]
    pub approval_ms: u64,
    /// Approvals have to come from persons different from each other.
    #[n(14)]
    pub two_person: bool,
    /// The container's service, for guards.
    #[n(15)]
    pub service: Option<String>,
    /// The acting process, for steps about it: pid.
    #[n(16)]
    pub pid: Option<u32>,
    /// Its start, boot clock.
    #[n(17)]
    pub pid_start: Option<crate::time::BootNs>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StepOutcome {
    /// It had its effect, and that was looked at.
    #[n(0)]
    Done {
        /// What was done and how that was verified, in words.
        #[n(0)]
        effect: String,
        /// The bundle that was sealed, by its name.
        #[n(1)]
        sealed: Option<String>,
        /// What is needed to take it back.
        #[n(2)]
        undo: Vec<(String, String)>,
    },
    /// It was tried, and did not have its effect.
    #[n(1)]
    Failed {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// A guard refused it.
    #[n(2)]
    Refused {
        /// Which guard, and why.
        #[n(0)]
        why: String,
    },
    /// It cannot be done here or in this build.
    #[n(3)]
    Unavailable {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// It was left out.
    #[n(4)]
    Skipped {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// The agent ended while it ran, and it is not tried again.
    #[n(5)]
    Interrupted {
        /// Whether its effect was found afterwards (`None`: that could not be told).
        #[n(0)]
        effect_found: Option<bool>,
    },
    /// It did not end in time; it may still have its effect.
    #[n(6)]
    TimedOut,
}

impl StepOutcome {
    /// It had its effect.
    pub fn is_done(&self) -> bool {
        matches!(
            self,
            StepOutcome::Done { .. }
                | StepOutcome::Interrupted {
                    effect_found: Some(true)
                }
        )
    }
    /// Name in JSON and tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            StepOutcome::Done { .. } => "done",
            StepOutcome::Failed { .. } => "failed",
            StepOutcome::Refused { .. } => "refused",
            StepOutcome::Unavailable { .. } => "unavailable",
            StepOutcome::Skipped { .. } => "skipped",
            StepOutcome::Interrupted { .. } => "interrupted",
            StepOutcome::TimedOut => "timed-out",
        }
    }
    /// In words.
    pub fn words(&self) -> String {
        match self {
            StepOutcome::Done { effect, sealed, .. } => match sealed {
                Some(bundle) => format!("{effect} (sealed: {bundle})"),
                None => effect.clone(),
            },
            StepOutcome::Failed { why }
            | StepOutcome::Refused { why }
            | StepOutcome::Unavailable { why }
            | StepOutcome::Skipped { why } => why.clone(),
            StepOutcome::Interrupted { effect_found } => {
                let found = match effect_found {
                    Some(true) => "its effect was found afterwards",
                    Some(false) => "its effect was not found afterwards",
                    None => "whether it had its effect is not known",
                };
                format!("the agent ended while it ran; {found}; not tried again")
            }
            StepOutcome::TimedOut => "did not end in time".to_owned(),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StepPhase {
    /// It begins now: written before anything is done.
    #[n(0)]
    Began,
    /// It has ended.
    #[n(1)]
    Ended(#[n(0)] StepOutcome),
    /// It is being taken back: written before anything is done.
    #[n(2)]
    UndoBegan,
    /// It was taken back, or not.
    #[n(3)]
    UndoEnded(#[n(0)] StepOutcome),
}

/// A step of a plan begins or ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StepRecord {
    /// The plan.
    #[n(0)]
    pub plan: String,
    /// Which step, from 0.
    #[n(1)]
    pub step: u32,
    /// What it does.
    #[n(2)]
    pub kind: StepKind,
    /// Which attempt, from 1.
    #[n(3)]
    pub attempt: u32,
    /// When.
    #[n(4)]
    pub at: Stamp,
    /// Where it stands.
    #[n(5)]
    pub phase: StepPhase,
}

/// A plan has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlanEnd {
    /// The plan.
    #[n(0)]
    pub plan: String,
    /// When.
    #[n(1)]
    pub at: Stamp,
    /// Why, in words.
    #[n(2)]
    pub why: String,
}

/// What came of a try to deliver a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum DeliveryResult {
    /// The receiver has taken it.
    #[n(0)]
    Delivered,
    /// It has not; another try follows.
    #[n(1)]
    WillRetry,
    /// It has not, and no other try follows unless a person asks for it.
    #[n(2)]
    Dead,
    /// No receiver had answered 500 ms after the alert was durable.
    #[n(3)]
    Waited,
}

impl DeliveryResult {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryResult::Delivered => "delivered",
            DeliveryResult::WillRetry => "will-retry",
            DeliveryResult::Dead => "dead",
            DeliveryResult::Waited => "waited",
        }
    }
}

/// A message about alerts, tried at one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delivery {
    /// When the try ended.
    #[n(0)]
    pub at: Stamp,
    /// The receiver's name (empty with [`DeliveryResult::Waited`]).
    #[n(1)]
    pub receiver: String,
    /// The message's deduplication key.
    #[n(2)]
    pub message: String,
    /// Alerts that it tells of: the first 64.
    #[n(3)]
    pub alerts: Vec<AlertId>,
    /// How many alerts it stands for.
    #[n(4)]
    pub count: u64,
    /// Which try, from 1.
    #[n(5)]
    pub attempt: u32,
    /// What came of it.
    #[n(6)]
    pub result: DeliveryResult,
    /// The receiver's answer or the error, in words.
    #[n(7)]
    pub detail: String,
    /// Every alert below this leaf has been delivered to this receiver, or is dead there.
    #[n(8)]
    pub settled_below: u64,
}

/// A policy came into force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PolicyInForce {
    /// Since when.
    #[n(0)]
    pub at: Stamp,
    /// Where it was read.
    #[n(1)]
    pub path: String,
    /// SHA-256 of its text, hex.
    #[n(2)]
    pub digest: String,
    /// Its text (at most 256 KiB; longer policies are refused).
    #[n(3)]
    pub text: String,
}

/// Milliseconds on the wall clock from `a` to `b`; 0 when it went backwards.
pub fn elapsed_ms(a: WallNs, b: WallNs) -> u64 {
    u64::try_from(b.0.saturating_sub(a.0)).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_one_name_each_and_classes_are_ordered() {
        for kind in StepKind::ALL {
            assert_eq!(StepKind::parse(kind.as_str()), Some(kind));
        }
        assert!(StepClass::Observe < StepClass::Preserve);
        assert!(StepClass::Preserve < StepClass::Contain);
        assert!(StepClass::Contain < StepClass::Destroy);
    }

    #[test]
    fn nothing_destructive_is_repeated_or_taken_back() {
        for kind in StepKind::ALL {
            if kind.class() == StepClass::Destroy {
                assert!(!kind.is_idempotent() && !kind.is_reversible(), "{kind:?}");
            }
        }
    }
}
