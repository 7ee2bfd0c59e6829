//! Plans as they are shown and told.

use plimsoll_api as api;
use plimsoll_api::types::{Context, Decision, PlanStep, time};
use plimsoll_model::response::{Plan, Step};
use plimsoll_respond::order::{Next, Order, Progress, State};

/// What is said of every plan, and of all of them, while a person has stopped automation.
pub(super) const HALTED: &str = "all automation is stopped: plimsoll plan resume --reason …";

/// A plan with its progress; `None`: it is not made yet.
pub(super) fn plan(order: &Order, next: &Next) -> Option<api::types::Plan> {
    let plan = order.plan()?;
    let steps = plan.steps.iter().zip(order.steps());
    let waiting_for = waiting_for(plan, next);
    let state = match (order.ended(), &waiting_for) {
        (Some(_), _) if order.is_at_rest() => "ended",
        (_, Some(_)) => "waiting",
        _ => "running",
    };
    let of = |d| Decision::new(d, Context::default());
    Some(api::types::Plan {
        state: state.to_owned(),
        waiting_for,
        ended: order.ended().map(str::to_owned),
        steps: steps.map(|(s, p)| step(s, p)).collect(),
        approvals: order.voices().iter().map(of).collect(),
        waived_by: order.waived().map(str::to_owned),
        ..facts(plan)
    })
}

/// A plan that nobody has journalled.
pub(super) fn would_be(plan: &Plan) -> api::types::Plan {
    let steps = plan.steps.iter();
    api::types::Plan {
        state: "would-be".to_owned(),
        steps: steps.map(|s| step(s, &Progress::default())).collect(),
        ..facts(plan)
    }
}

fn facts(plan: &Plan) -> api::types::Plan {
    api::types::Plan {
        plan_id: plan.id.clone(),
        alert_id: plan.alert.to_string(),
        time: time(plan.at),
        container: plan.container.clone(),
        container_id: plan.instance.as_ref().map(|i| i.id.to_string()),
        policy: plan.policy.clone(),
        policy_digest: plan.policy_digest.clone(),
        dry_run: plan.dry_run,
        reasons: plan.reasons.clone(),
        blast_radius: plan.blast_radius.clone(),
        held: plan.held.clone(),
        ..api::types::Plan::default()
    }
}

fn step(step: &Step, progress: &Progress) -> PlanStep {
    let (state, outcome, sealed) = match &progress.state {
        State::Pending => ("pending", None, None),
        State::Running { .. } => ("running", None, None),
        State::Ended(e) => (e.name, Some(e.words.clone()), e.sealed.clone()),
    };
    PlanStep {
        step: step.kind.as_str().to_owned(),
        class: step.kind.class().as_str().to_owned(),
        state: state.to_owned(),
        effect: step.effect.clone(),
        outcome,
        sealed,
        attempts: progress.attempts,
        approvals_needed: step.approvals,
        undone: match &progress.undo {
            State::Pending => None,
            State::Running { .. } => Some("being taken back".to_owned()),
            State::Ended(e) => Some(format!("{}: {}", e.name, e.words)),
        },
    }
}

fn waiting_for(plan: &Plan, next: &Next) -> Option<String> {
    let name = |i: &usize| plan.steps.get(*i).map_or("", |s| s.kind.as_str());
    match next {
        Next::Approvals {
            step,
            missing,
            until,
        } => Some(format!(
            "{missing} more approval{} for {}, until {}: plimsoll plan approve {} --reason …",
            if *missing == 1 { "" } else { "s" },
            name(step),
            second(*until),
            plan.id
        )),
        Next::Waiver { step, until } => Some(format!(
            "a sealed capture or a waiver for {}, until {}: plimsoll plan approve {} --waive-capture --reason …",
            name(step),
            second(*until),
            plan.id
        )),
        Next::Halted => Some(HALTED.to_owned()),
        _ => None,
    }
}

/// A moment, to the second.
fn second(at: plimsoll_model::WallNs) -> String {
    let whole = at.rfc3339();
    whole.get(..19).map_or(whole.clone(), |s| format!("{s}Z"))
}

/// What a step's outcome said is needed to take it back.
pub(super) fn undo_notes(progress: &Progress) -> Vec<(String, String)> {
    match &progress.state {
        State::Ended(e) => e.undo.clone(),
        _ => Vec::new(),
    }
}

/// The alert's JSON with its plan beside it: what a `notify` step tells.
pub(super) fn told_plan(alert: &str, plan: &Plan) -> String {
    let mut told: serde_json::Value = serde_json::from_str(alert).unwrap_or_default();
    let shown = would_be(plan);
    if let Some(output) = told.get("output").and_then(|o| o.as_str()) {
        let step = |s: &Step| match s.approvals {
            0 => s.kind.as_str().to_owned(),
            1 => format!("{} (needs 1 approval)", s.kind.as_str()),
            n => format!("{} (needs {n} approvals)", s.kind.as_str()),
        };
        let steps: Vec<String> = plan.steps.iter().map(step).collect();
        let dry = if plan.dry_run { " (dry run)" } else { "" };
        let words = format!("plan {}{dry}: {} | {output}", plan.id, steps.join(", "));
        told["output"] = words.into();
    }
    told["plimsoll"]["plan"] = serde_json::to_value(shown).unwrap_or_default();
    api::json::line(&told)
}
