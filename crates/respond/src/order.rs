//! The order of things about one alert, as a state machine.
//!
//! ```text
//! alerted (durable) → delivery attempted → planned → for each step, by class:
//!     guards → approvals → begun (journalled) → acted → ended (journalled)
//! → ended; undone at any time afterwards
//! ```
//!
//! [`Order::apply`] folds what the journal holds, [`Order::next`] says what has to happen now.
//! Whoever drives it journals durably first, applies then, and acts only upon [`Next::Act`].
//!
//! Promises, checked exhaustively in `tests/model.rs` with crashes everywhere:
//! - nothing acts before the alert is durable and a delivery was attempted (or 500 ms passed);
//! - nothing is destroyed before a capture is sealed, or a named person has waived that;
//! - a step that is not idempotent is begun at most once.
//!
//! Left out: guards (they look at other containers too; see [`crate::guards`]) and the acting.

use crate::persons::distinct;
use plimsoll_model::record::Decision;
use plimsoll_model::response::{
    OnFailure, Plan, PlanEnd, Step, StepClass, StepKind, StepOutcome, StepPhase, StepRecord,
    elapsed_ms,
};
use plimsoll_model::{AlertId, WallNs};

/// A delivery counts as attempted when this much time has passed since the alert was durable.
pub const ATTEMPT_MS: u64 = 500;
/// How often an interrupted, idempotent step is begun again.
pub const ATTEMPTS_MAX: u32 = 3;
/// Actions of [`Decision`] records about plans.
pub mod decisions {
    /// A person approves a plan.
    pub const APPROVE: &str = "plan.approve";
    /// A person denies a plan.
    pub const DENY: &str = "plan.deny";
    /// A person takes a plan back.
    pub const UNDO: &str = "plan.undo";
    /// A person allows destruction without a sealed capture.
    pub const WAIVE: &str = "plan.waive_capture";
    /// A person stops all automation.
    pub const STOP: &str = "plan.stop";
    /// A person lets automation go on.
    pub const RESUME: &str = "plan.resume";
}

/// What the journal says about one alert, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // facts live one at a time
pub enum Fact {
    /// The alert is durable since then.
    Alerted(WallNs),
    /// The first try of a receiver has ended, or the time for it has passed.
    Attempted,
    /// There is a plan.
    Planned(Plan),
    /// A step begins or ends.
    Step(StepRecord),
    /// A person decided something about the plan.
    Decided(Decision),
    /// The plan has ended.
    Ended(PlanEnd),
}

/// What has to happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something new is known.
    Nothing,
    /// Nothing before that time, unless something new is known.
    Wait(WallNs),
    /// Journal that the time for a delivery has passed.
    NoteAttempt,
    /// Make the plan and journal it.
    Plan,
    /// A step waits for approvals: of so many more persons, until then.
    Approvals {
        /// Which step.
        step: usize,
        /// How many are missing.
        missing: u32,
        /// Until when they are waited for.
        until: WallNs,
    },
    /// A step that destroys waits for a sealed capture or a waiver.
    Waiver {
        /// Which step.
        step: usize,
        /// Until when one is waited for.
        until: WallNs,
    },
    /// All automation is stopped.
    Halted,
    /// Ask the guards, journal that the step begins, then act.
    Begin(usize),
    /// Look whether an interrupted step had its effect, and journal that it ended so.
    Look(usize),
    /// Journal that the step is left out, and why.
    Skip(usize, String),
    /// Journal that the step did not end in time.
    TimeOut(usize),
    /// Journal that the step is being taken back, then do it.
    BeginUndo(usize),
    /// Journal the end of the plan, and why.
    End(String),
}

/// Where one step stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Not begun.
    #[default]
    Pending,
    /// Begun; `here`: by this run of the agent, so that its end will be heard.
    Running {
        /// Since when.
        since: WallNs,
        /// By this run of the agent.
        here: bool,
    },
    /// Ended.
    Ended(StepEnd),
}

/// How a step ended; a [`StepOutcome`] reduced to what the order depends on, with its words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepEnd {
    /// It had its effect.
    pub done: bool,
    /// The bundle it sealed.
    pub sealed: Option<String>,
    /// It may have had its effect, so that undo has to be tried.
    pub may_hold: bool,
    /// It did not end in time: a later word replaces this one.
    pub timed_out: bool,
    /// Name of the outcome.
    pub name: &'static str,
    /// In words.
    pub words: String,
    /// What undo needs.
    pub undo: Vec<(String, String)>,
}

impl From<&StepOutcome> for StepEnd {
    fn from(outcome: &StepOutcome) -> Self {
        let (sealed, undo) = match outcome {
            StepOutcome::Done { sealed, undo, .. } => (sealed.clone(), undo.clone()),
            _ => (None, Vec::new()),
        };
        Self {
            done: outcome.is_done(),
            sealed,
            may_hold: matches!(
                outcome,
                StepOutcome::Done { .. } | StepOutcome::Interrupted { .. } | StepOutcome::TimedOut
            ),
            timed_out: *outcome == StepOutcome::TimedOut,
            name: outcome.as_str(),
            words: outcome.words(),
            undo,
        }
    }
}

/// A step's progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// How often it was begun.
    pub attempts: u32,
    /// Where taking it back stands.
    pub undo: State,
}

/// One alert's order. Equal facts give equal orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    alert: AlertId,
    alerted: Option<WallNs>,
    attempted: bool,
    plan: Option<Plan>,
    steps: Vec<Progress>,
    voices: Vec<Decision>,
    denied: Option<String>,
    waived: Option<String>,
    undo: Option<String>,
    ended: Option<String>,
}

impl Order {
    /// Nothing is known yet.
    pub fn new(alert: AlertId) -> Self {
        Self {
            alert,
            alerted: None,
            attempted: false,
            plan: None,
            steps: Vec::new(),
            voices: Vec::new(),
            denied: None,
            waived: None,
            undo: None,
            ended: None,
        }
    }

    /// The alert.
    pub fn alert(&self) -> &AlertId {
        &self.alert
    }
    /// The plan, once there is one.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }
    /// Progress of each step of the plan.
    pub fn steps(&self) -> &[Progress] {
        &self.steps
    }
    /// Why it has ended, once it has.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }
    /// Who waived the capture, if somebody did.
    pub fn waived(&self) -> Option<&str> {
        self.waived.as_deref()
    }
    /// Who denied it, if somebody did.
    pub fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }
    /// Who approved it, in their order.
    pub fn voices(&self) -> &[Decision] {
        &self.voices
    }
    /// A capture of this plan is sealed.
    pub fn is_sealed(&self) -> bool {
        let plan = self.plan.iter().flat_map(|p| &p.steps);
        plan.zip(&self.steps).any(|(step, progress)| {
            step.kind == StepKind::Capture
                && matches!(&progress.state, State::Ended(e) if e.sealed.is_some())
        })
    }
    /// A step of it may still hold that undo could take back.
    pub fn may_hold(&self) -> bool {
        let steps = self.plan.iter().flat_map(|p| &p.steps);
        steps.zip(&self.steps).any(|(step, p)| {
            step.kind.is_reversible()
                && matches!(&p.state, State::Ended(e) if e.may_hold)
                && !matches!(&p.undo, State::Ended(e) if e.done)
        })
    }
    /// A program that gave cause in this container is forbidden by it, and that has not been taken back.
    pub fn forbids_a_program(&self) -> bool {
        let steps = self.plan.iter().flat_map(|p| &p.steps);
        steps.zip(&self.steps).any(|(step, p)| {
            let done = matches!(&p.state, State::Ended(e) if e.done);
            step.kind == StepKind::BlockProgram && done && p.undo == State::Pending
        })
    }
    /// It has ended and nothing is being taken back.
    pub fn is_at_rest(&self) -> bool {
        self.ended.is_some() && self.undoable().is_none() && !self.is_acting()
    }
    /// An effect of this run of the agent is under way.
    pub fn is_acting(&self) -> bool {
        let acting = |s: &State| matches!(s, State::Running { here: true, .. });
        self.steps
            .iter()
            .any(|p| acting(&p.state) || acting(&p.undo))
    }

    /// Takes in what the journal holds (or has just taken durably).
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Alerted(at) => {
                self.alerted.get_or_insert(*at);
            }
            Fact::Attempted => self.attempted = true,
            Fact::Planned(plan) if self.plan.is_none() => {
                self.steps = vec![Progress::default(); plan.steps.len()];
                self.plan = Some(plan.clone());
            }
            Fact::Planned(_) => {}
            Fact::Step(record) => self.step(record),
            Fact::Decided(decision) => self.decided(decision),
            Fact::Ended(end) => {
                self.ended.get_or_insert_with(|| end.why.clone());
            }
        }
    }

    /// The agent has started anew: whatever was under way is so no more.
    pub fn restarted(&mut self) {
        for progress in &mut self.steps {
            for state in [&mut progress.state, &mut progress.undo] {
                if let State::Running { here, .. } = state {
                    *here = false;
                }
            }
        }
    }

    fn step(&mut self, record: &StepRecord) {
        let Some(progress) = self.steps.get_mut(record.step as usize) else {
            return;
        };
        let running = State::Running {
            since: record.at.wall,
            here: true,
        };
        match &record.phase {
            StepPhase::Began => {
                progress.attempts += 1;
                progress.state = running;
            }
            StepPhase::Ended(outcome) => {
                let settled = matches!(&progress.state, State::Ended(e) if !e.timed_out);
                if !settled {
                    progress.state = State::Ended(outcome.into());
                }
            }
            StepPhase::UndoBegan => progress.undo = running,
            StepPhase::UndoEnded(outcome) => progress.undo = State::Ended(outcome.into()),
        }
    }

    fn decided(&mut self, decision: &Decision) {
        let by = crate::persons::name(decision);
        match decision.action.as_str() {
            decisions::APPROVE => self.voices.push(decision.clone()),
            decisions::DENY => {
                self.denied.get_or_insert(by);
            }
            decisions::WAIVE => {
                self.waived.get_or_insert(by);
            }
            decisions::UNDO => {
                self.undo = Some(by);
                for progress in &mut self.steps {
                    // what could not be taken back is tried again
                    if matches!(&progress.undo, State::Ended(e) if !e.done) {
                        progress.undo = State::Pending;
                    }
                }
            }
            _ => {}
        }
    }

    /// What has to happen now. `halted`: all automation is stopped (taking back is not).
    pub fn next(&self, now: WallNs, halted: bool) -> Next {
        let Some(alerted) = self.alerted else {
            return Next::Nothing;
        };
        if !self.attempted {
            return match elapsed_ms(alerted, now) >= ATTEMPT_MS {
                true => Next::NoteAttempt,
                false => Next::Wait(after(alerted, ATTEMPT_MS)),
            };
        }
        let Some(plan) = &self.plan else {
            return if halted { Next::Halted } else { Next::Plan };
        };
        if let Some(next) = self.running(plan, now, halted) {
            return next;
        }
        if self.undo.is_some() {
            return self.undoing();
        }
        if self.ended.is_some() {
            return Next::Nothing;
        }
        self.onward(plan, now, halted)
    }

    fn running(&self, plan: &Plan, now: WallNs, halted: bool) -> Option<Next> {
        let running = |p: &Progress| match p.state {
            State::Running { since, here } => Some((since, here)),
            _ => None,
        };
        let mut all = self.steps.iter().enumerate();
        let (i, (since, here)) = all.find_map(|(i, p)| Some((i, running(p)?)))?;
        let step = &plan.steps[i];
        if here {
            return Some(match elapsed_ms(since, now) >= step.timeout_ms {
                true => Next::TimeOut(i),
                false => Next::Wait(after(since, step.timeout_ms)),
            });
        }
        let wanted = self.undo.is_none() && self.denied.is_none() && self.ended.is_none();
        if !step.kind.is_idempotent() || !wanted || self.steps[i].attempts >= ATTEMPTS_MAX {
            return Some(Next::Look(i));
        }
        Some(if halted { Next::Halted } else { Next::Begin(i) })
    }

    /// The last step that may hold and has not been taken back; none while nobody asked for it.
    fn undoable(&self) -> Option<usize> {
        self.undo.as_ref()?;
        let steps = &self.plan.as_ref()?.steps;
        let holds = |(step, p): (&Step, &Progress)| {
            step.kind.is_reversible()
                && matches!(&p.state, State::Ended(e) if e.may_hold)
                && !matches!(&p.undo, State::Ended(_))
        };
        let mut back = steps.iter().zip(&self.steps).enumerate().rev();
        back.find(|(_, both)| holds(*both)).map(|(i, _)| i)
    }

    fn undoing(&self) -> Next {
        match self.undoable() {
            Some(i) if matches!(self.steps[i].undo, State::Running { here: true, .. }) => {
                Next::Nothing
            }
            Some(i) => Next::BeginUndo(i),
            None if self.ended.is_some() => Next::Nothing,
            None => Next::End(format!(
                "taken back by {}",
                self.undo.as_deref().unwrap_or_default()
            )),
        }
    }

    fn onward(&self, plan: &Plan, now: WallNs, halted: bool) -> Next {
        if plan.dry_run {
            return Next::End("dry run: nothing of it was done".to_owned());
        }
        if let Some(by) = &self.denied {
            return Next::End(format!("denied by {by}"));
        }
        let steps = || plan.steps.iter().zip(&self.steps);
        let stopped = steps().find(|(step, p)| {
            step.on_failure == OnFailure::Stop && matches!(&p.state, State::Ended(e) if !e.done)
        });
        if let Some((step, p)) = stopped {
            let words = match &p.state {
                State::Ended(e) => e.words.as_str(),
                _ => "",
            };
            return Next::End(format!("{} was not done: {words}", step.kind.as_str()));
        }
        let pending = steps().position(|(_, p)| p.state == State::Pending);
        let Some(i) = pending else {
            return Next::End("every step has ended".to_owned());
        };
        if halted {
            return Next::Halted;
        }
        let step = &plan.steps[i];
        let until = after(plan.at.wall, plan.approval_ms);
        let late = elapsed_ms(plan.at.wall, now) >= plan.approval_ms;
        if step.kind.class() == StepClass::Destroy && !self.is_sealed() && self.waived.is_none() {
            let why = "no capture was sealed, and nobody waived that in time";
            return match late {
                true => Next::Skip(i, why.to_owned()),
                false => Next::Waiver { step: i, until },
            };
        }
        let missing = step.approvals.saturating_sub(self.approvals(plan, now));
        match (missing, late) {
            (0, _) => Next::Begin(i),
            (_, true) => Next::Skip(i, "not approved in time".to_owned()),
            (missing, false) => Next::Approvals {
                step: i,
                missing,
                until,
            },
        }
    }

    /// How many different persons approve at that moment.
    pub fn approvals(&self, plan: &Plan, now: WallNs) -> u32 {
        let valid = |d: &&Decision| elapsed_ms(d.at.wall, now) < plan.approval_ms;
        distinct(self.voices.iter().filter(valid))
    }
}

fn after(at: WallNs, ms: u64) -> WallNs {
    WallNs(at.0.saturating_add(i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX)))
}
