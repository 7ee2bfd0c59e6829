//! Q18: who was told, who did what in response, and whether anything was destroyed before it was
//! captured.

use crate::records::Filter;
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_model::record::Decision;
use plimsoll_model::response::{
    Delivery, DeliveryResult, Plan, PlanEnd, StepOutcome, StepPhase, StepRecord,
};
use plimsoll_model::{AlertId, Record, RecordId, RecordKind, StepClass, StepKind, WallNs};
use std::collections::{BTreeMap, BTreeSet};

/// Plans, steps and decisions kept.
const RECORDS_MAX: usize = 5_000;
/// Decisions about evidence that are told one by one.
const SHOWN: usize = 20;

/// Tries at one receiver that came to the same.
struct Told {
    count: u64,
    first: WallNs,
    /// The last answer or error.
    detail: String,
    evidence: Vec<RecordId>,
}

#[derive(Default)]
struct Found {
    plans: BTreeMap<String, (RecordId, Plan)>,
    steps: Vec<(RecordId, StepRecord)>,
    ends: Vec<(RecordId, PlanEnd)>,
    decisions: Vec<(RecordId, Decision)>,
    /// By receiver and result.
    told: BTreeMap<(String, &'static str), Told>,
    reads: BTreeMap<u32, (u64, Vec<RecordId>)>,
    custody: Vec<(RecordId, Decision)>,
    left_out: u64,
}

/// Q18.
pub(crate) fn response(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut found = Found::default();
    found.plans(about, say)?;
    let alerts = alerts(about, say)?;
    found.words(about, &alerts, say)?;
    found.say_told(&alerts, say);
    found.say_plans(say);
    found.say_custody(say);
    found.order(about, say);
    if found.left_out > 0 {
        let limit = format!(
            "{} records about the response did not fit into memory.",
            found.left_out
        );
        say.tally().limits.push(limit);
    }
    if found.plans.is_empty() && found.told.is_empty() && found.decisions.is_empty() {
        say.unknown(format!(
            "No plan, no step, no decision and no notification about it is recorded {}.",
            about.interval.text()
        ));
    }
    say.no_source(
        "what people and other tools did past Plimsoll (docker stop, kubectl delete, a rebuild)",
        "the audit log of the runtime or orchestrator",
    );
    Ok(())
}

/// The alerts that this is about: the one asked about, or all of the container.
fn alerts(about: &About<'_>, say: &mut Sentences) -> Result<BTreeSet<AlertId>, AskError> {
    if let Some(case) = &about.case.alert {
        return Ok([case.alert.id.clone()].into());
    }
    let mut ids = BTreeSet::new();
    let Some(instance) = &about.case.instance else {
        return Ok(ids);
    };
    let filter = Filter::of(&[RecordKind::Alert]).about(instance);
    about.visit(&filter, say.tally(), &mut |_, _, record| {
        if let Record::Alert(a) = record
            && a.instance.as_ref() == Some(instance)
            && ids.len() < RECORDS_MAX
        {
            ids.insert(a.id);
        }
    })?;
    Ok(ids)
}

impl Found {
    fn plans(&mut self, about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
        let kinds = [RecordKind::Plan, RecordKind::Step, RecordKind::PlanEnd];
        let mut filter = Filter::of(&kinds);
        if let Some(instance) = &about.case.instance {
            filter = filter.about(instance);
        }
        let alert = about.case.alert.as_ref().map(|c| &c.alert.id);
        about.visit(&filter, say.tally(), &mut |id, _, record| {
            if self.plans.len() + self.steps.len() >= RECORDS_MAX {
                self.left_out += 1;
                return;
            }
            match record {
                Record::Plan(p)
                    if p.instance == about.case.instance && alert.is_none_or(|a| *a == p.alert) =>
                {
                    self.plans.insert(p.id.clone(), (id, p));
                }
                // a plan stands before its steps
                Record::Step(s) if self.plans.contains_key(&s.plan) => self.steps.push((id, s)),
                Record::PlanEnd(e) if self.plans.contains_key(&e.plan) => self.ends.push((id, e)),
                _ => {}
            }
        })?;
        Ok(())
    }

    /// Decisions and deliveries, which are filed under no container.
    fn words(
        &mut self,
        about: &About<'_>,
        alerts: &BTreeSet<AlertId>,
        say: &mut Sentences,
    ) -> Result<(), AskError> {
        let names = names(about, alerts);
        let filter = Filter::of(&[RecordKind::Decision, RecordKind::Delivery])
            .between(about.interval.from, about.interval.to);
        about.visit(&filter, say.tally(), &mut |id, _, record| match record {
            Record::Delivery(d) if d.alerts.iter().any(|a| alerts.contains(a)) => self.told(id, &d),
            Record::Decision(d) if self.decisions.len() + self.custody.len() >= RECORDS_MAX => {
                self.left_out += u64::from(d.action.starts_with("plan."));
            }
            Record::Decision(d)
                if d.action.starts_with("plan.")
                    && (d.subject.is_empty() || self.plans.contains_key(&d.subject)) =>
            {
                self.decisions.push((id, d));
            }
            Record::Decision(d) if d.action.starts_with("evidence.") => {
                if !names.iter().any(|n| d.subject.contains(n.as_str())) {
                    return;
                }
                match d.action.as_str() {
                    "evidence.read" => {
                        let (n, evidence) = self.reads.entry(d.uid).or_default();
                        *n += 1;
                        if evidence.len() < EVIDENCE_MAX {
                            evidence.push(id);
                        }
                    }
                    _ => self.custody.push((id, d)),
                }
            }
            _ => {}
        })?;
        Ok(())
    }

    fn told(&mut self, id: RecordId, d: &Delivery) {
        let key = (d.receiver.clone(), d.result.as_str());
        let told = self.told.entry(key).or_insert_with(|| Told {
            count: 0,
            first: d.at.wall,
            detail: String::new(),
            evidence: Vec::new(),
        });
        told.count += 1;
        told.detail.clone_from(&d.detail);
        if told.evidence.len() < EVIDENCE_MAX {
            told.evidence.push(id);
        }
    }

    fn say_told(&self, alerts: &BTreeSet<AlertId>, say: &mut Sentences) {
        for ((receiver, result), told) in &self.told {
            let (n, at, detail) = (&told.count, &told.first, &told.detail);
            let often = if *n > 1 {
                format!(", {}", times(*n))
            } else {
                String::new()
            };
            let why = if detail.is_empty() {
                String::new()
            } else {
                format!(" ({})", detail.trim_end_matches('.'))
            };
            let text = match *result {
                r if r == DeliveryResult::Delivered.as_str() => {
                    format!("Told: {receiver}, at {}{often}.", when(*at))
                }
                r if r == DeliveryResult::Dead.as_str() => format!(
                    "Not told: {receiver} did not take the message, and nothing tries again unless somebody asks{why}, at {}.",
                    when(*at)
                ),
                r if r == DeliveryResult::Waited.as_str() => format!(
                    "No receiver had answered when acting began, 500 ms after the alert was durable, at {}.",
                    when(*at)
                ),
                _ => format!(
                    "Tried: {receiver} did not take the message at {}{often}; it was tried again{why}.",
                    when(*at)
                ),
            };
            say.observed(text, &told.evidence);
        }
        if self.told.is_empty() && !alerts.is_empty() {
            say.unknown("That anybody was told is not recorded: no receiver is configured, or the record is missing.");
        }
    }

    fn say_plans(&self, say: &mut Sentences) {
        for (id, plan) in self.plans.values() {
            say.observed(plan_words(plan), [id]);
            for (n, step) in plan.steps.iter().enumerate() {
                self.say_step(plan, n, step.kind, say);
            }
            for (id, d) in self.decisions.iter().filter(|(_, d)| d.subject == plan.id) {
                say.observed(decision_words(d), [id]);
            }
            for (id, end) in self.ends.iter().filter(|(_, e)| e.plan == plan.id) {
                say.observed(
                    format!(
                        "{} ended at {}: {}.",
                        plan.id,
                        when(end.at.wall),
                        end.why.trim_end_matches('.')
                    ),
                    [id],
                );
            }
        }
        for (id, d) in self.decisions.iter().filter(|(_, d)| d.subject.is_empty()) {
            say.observed(decision_words(d), [id]);
        }
    }

    fn say_step(&self, plan: &Plan, n: usize, kind: StepKind, say: &mut Sentences) {
        let ours: Vec<&(RecordId, StepRecord)> = self
            .steps
            .iter()
            .filter(|(_, s)| s.plan == plan.id && s.step as usize == n)
            .collect();
        let name = format!(
            "{}, step {} ({}, {})",
            plan.id,
            n + 1,
            kind.as_str(),
            kind.class().as_str()
        );
        if ours.is_empty() {
            let why = if plan.dry_run {
                "a dry run: nothing of it is done"
            } else {
                "it is not recorded as begun"
            };
            say.unknown(format!("{name}: {why}."));
            return;
        }
        for (id, s) in &ours {
            let at = when(s.at.wall);
            let attempt = if s.attempt > 1 {
                format!(", attempt {}", s.attempt)
            } else {
                String::new()
            };
            match &s.phase {
                StepPhase::Began | StepPhase::UndoBegan => {
                    let undo = matches!(s.phase, StepPhase::UndoBegan);
                    let ended = ours.iter().any(|(_, e)| {
                        let same = matches!(e.phase, StepPhase::UndoEnded(_)) == undo;
                        let end = matches!(e.phase, StepPhase::Ended(_) | StepPhase::UndoEnded(_));
                        end && same && e.attempt == s.attempt
                    });
                    if !ended {
                        let what = if undo { "undoing it began" } else { "it began" };
                        say.observed(
                            format!("{name}: {what} at {at}{attempt}, and no end is recorded."),
                            [id],
                        );
                    }
                }
                StepPhase::Ended(outcome) => {
                    let words = outcome_words(outcome);
                    say.observed(format!("{name}: {words} at {at}{attempt}."), [id]);
                }
                StepPhase::UndoEnded(outcome) => {
                    let words = outcome_words(outcome);
                    say.observed(
                        format!("{name}, taken back: {words} at {at}{attempt}."),
                        [id],
                    );
                }
            }
        }
    }

    /// Who read it, handed it over, holds it.
    fn say_custody(&self, say: &mut Sentences) {
        for (uid, (n, evidence)) in &self.reads {
            say.observed(
                format!("The evidence was read by uid {uid}, {}.", times(*n)),
                evidence,
            );
        }
        for (id, d) in self.custody.iter().take(SHOWN) {
            say.observed(decision_words(d), [id]);
        }
        if self.custody.len() > SHOWN {
            let rest = &self.custody[SHOWN..];
            say.observed(
                format!(
                    "{} about the evidence.",
                    count(rest.len() as u64, "more decision")
                ),
                rest.iter().map(|(id, _)| id),
            );
        }
    }

    /// Whether anything was destroyed before it was captured.
    fn order(&self, about: &About<'_>, say: &mut Sentences) {
        let done = |s: &&(RecordId, StepRecord)| match &s.1.phase {
            StepPhase::Ended(outcome) => outcome.is_done(),
            _ => false,
        };
        let sealed: Vec<&(RecordId, StepRecord)> = self
            .steps
            .iter()
            .filter(done)
            .filter(|(_, s)| is_sealed(&s.phase))
            .collect();
        let first_sealed = sealed.iter().map(|(_, s)| s.at.wall).min();
        for (id, s) in &sealed {
            if let StepPhase::Ended(outcome) = &s.phase {
                say.observed(
                    format!(
                        "Captured: {} at {}, by {}.",
                        outcome.words().trim_end_matches('.'),
                        when(s.at.wall),
                        s.plan
                    ),
                    [id],
                );
            }
        }
        let ends = |k: StepKind| k.class() == StepClass::Destroy || k == StepKind::KillTree;
        let destroyed: Vec<&(RecordId, StepRecord)> = self
            .steps
            .iter()
            .filter(done)
            .filter(|(_, s)| ends(s.kind))
            .collect();
        for (id, s) in &destroyed {
            let began = self.steps.iter().find(|(_, b)| {
                b.plan == s.plan && b.step == s.step && matches!(b.phase, StepPhase::Began)
            });
            let at = began.map_or(s.at.wall, |(_, b)| b.at.wall);
            match first_sealed.filter(|sealed| *sealed <= at) {
                Some(sealed) => say.observed(
                    format!(
                        "In order: {} began at {}, {} after the first capture was sealed.",
                        s.kind.as_str(),
                        when(at),
                        span((at.0 - sealed.0).unsigned_abs())
                    ),
                    [id],
                ),
                None => self.out_of_order(id, s, at, say),
            }
        }
        self.ended(about, first_sealed, destroyed.is_empty(), say);
    }

    fn out_of_order(&self, id: &RecordId, s: &StepRecord, at: WallNs, say: &mut Sentences) {
        let waived = self
            .decisions
            .iter()
            .find(|(_, d)| d.action == "plan.waive_capture" && d.subject == s.plan);
        let what = match s.kind {
            StepKind::KillTree => "the memory of what it killed is lost",
            _ => "what only the container held is lost",
        };
        match waived {
            Some((waiver, d)) => say.observed(
                format!("Destroyed before it was captured: {} began at {}, and uid {} had waived the capture; {what}.", s.kind.as_str(), when(at), d.uid),
                [id, waiver],
            ),
            None => say.observed(
                format!("Destroyed before it was captured: {} began at {} and no capture had been sealed; {what}.", s.kind.as_str(), when(at)),
                [id],
            ),
        }
    }

    /// The container's own end, which is no step of ours.
    fn ended(
        &self,
        about: &About<'_>,
        sealed: Option<WallNs>,
        by_others: bool,
        say: &mut Sentences,
    ) {
        let Some(known) = about
            .case
            .instance
            .as_ref()
            .and_then(|i| about.directory.get(i))
        else {
            return;
        };
        match (about.case.gone, sealed) {
            (Some(gone), Some(sealed)) if sealed <= gone => say.observed(
                format!("The container was gone at {}, {} after the first capture.", when(gone), span((gone.0 - sealed.0).unsigned_abs())),
                &known.evidence,
            ),
            (Some(gone), _) => {
                let whose = if by_others { ", and no step of a plan ended it" } else { "" };
                say.observed(
                    format!("Lost: the container was gone at {} without a sealed capture before{whose}. What only it held (memory, tmpfs, and its own layer once it is removed) was not kept; the records named here were.", when(gone)),
                    &known.evidence,
                );
            }
            (None, None) => say.unknown("Nothing is captured, and no end of the container is recorded: what it holds can still be captured if it runs."),
            (None, Some(_)) => {}
        }
    }
}

fn is_sealed(phase: &StepPhase) -> bool {
    matches!(
        phase,
        StepPhase::Ended(StepOutcome::Done {
            sealed: Some(_),
            ..
        })
    )
}

fn outcome_words(outcome: &StepOutcome) -> String {
    let words = outcome.words();
    format!("{}: {}", outcome.as_str(), words.trim_end_matches('.'))
}

fn plan_words(p: &Plan) -> String {
    let dry = if p.dry_run { ", as a dry run" } else { "" };
    let reasons = p.reasons.join("; ");
    let because = if reasons.is_empty() {
        String::new()
    } else {
        format!(", because {}", reasons.trim_end_matches('.'))
    };
    format!(
        "Plan {} about alert {} by policy {:?}{dry}, at {}: {}{because}.",
        p.id,
        p.alert,
        p.policy,
        when(p.at.wall),
        count(p.steps.len() as u64, "step")
    )
}

fn decision_words(d: &Decision) -> String {
    let login = match d.login_uid {
        u32::MAX => String::new(),
        login if login == d.uid => String::new(),
        login => format!(" (logged in as uid {login})"),
    };
    let why = if d.reason.is_empty() {
        "no reason given".to_owned()
    } else {
        d.reason.trim_end_matches('.').to_owned()
    };
    let subject = if d.subject.is_empty() {
        String::new()
    } else {
        format!(" of {}", describe::words(&d.subject))
    };
    format!(
        "Decision: {}{subject} at {} by uid {}{login}: {why}.",
        d.action,
        when(d.at.wall),
        d.uid
    )
}

/// Words by which custody records name the subject.
fn names(about: &About<'_>, alerts: &BTreeSet<AlertId>) -> Vec<String> {
    let mut names: Vec<String> = alerts.iter().map(|a| a.as_str().to_owned()).collect();
    if let Some(instance) = &about.case.instance {
        names.push(instance.id.short().to_owned());
    }
    // a short name is part of too many words
    let name = about.container().map(|c| c.name.clone());
    names.extend(name.filter(|n| n.len() >= 3));
    names
}
