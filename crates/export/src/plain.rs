//! Plain JSON: `{record, kind, time, value}`, with the value in the API's form where it has one.

use crate::{Row, kind_name};
use plimsoll_api as api;
use plimsoll_api::describe::words;
use plimsoll_model::Record;
use plimsoll_model::recording::Recorded;
use plimsoll_model::response::{Step, StepOutcome, StepPhase};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) fn value(row: &Row<'_>, node: &str) -> Option<Value> {
    let context = row.context(node);
    let value = match row.record {
        Record::Observation(o) => of(api::Event::new(o, context)),
        Record::Drift(d) => of(api::Drift::new(d, context)),
        Record::Alert(a) => of(api::Alert::new(a, context)),
        Record::Gap(g) => of(api::Gap::new(g, context)),
        Record::Container(c) => of(api::Container::new(c, node)),
        Record::Decision(d) => of(api::Decision::new(d, context)),
        Record::Lifecycle(l) => json!({
            "what": l.what, "version": l.version,
            "details": l.details.iter().map(|(k, v)| json!([k, v])).collect::<Vec<_>>(),
        }),
        Record::Clock(c) => json!({
            "boot_ns": c.boot.0, "uncertainty_ns": c.uncertainty_ns, "step_ns": c.step_ns,
        }),
        Record::Presence(p) => json!({
            "instance": p.instance.to_string(),
            "from": p.from.wall.rfc3339(), "to": p.to.wall.rfc3339(),
            "counts": p.counts.iter().map(|(b, n)| json!([b.to_string(), n])).collect::<Vec<_>>(),
        }),
        Record::Plan(p) => json!({
            "plan": p.id, "alert": p.alert.as_str(), "policy": p.policy,
            "policy_digest": p.policy_digest, "dry_run": p.dry_run, "reasons": p.reasons,
            "blast_radius": p.blast_radius, "held": p.held,
            "instance": p.instance.as_ref().map(ToString::to_string),
            "steps": p.steps.iter().map(step).collect::<Vec<_>>(),
        }),
        Record::Step(s) => {
            let (phase, outcome) = phase(&s.phase);
            json!({
                "plan": s.plan, "step": s.step, "effect": s.kind.as_str(), "attempt": s.attempt,
                "phase": phase, "outcome": outcome.map(StepOutcome::as_str),
                "words": outcome.map(|o| words(&o.words())),
            })
        }
        Record::PlanEnd(e) => json!({ "plan": e.plan, "why": e.why }),
        Record::Delivery(d) => json!({
            "receiver": d.receiver, "message": d.message, "count": d.count,
            "alerts": d.alerts.iter().map(|a| a.as_str()).collect::<Vec<_>>(),
            "attempt": d.attempt, "result": d.result.as_str(), "detail": words(&d.detail),
        }),
        Record::Policy(p) => json!({ "path": p.path, "digest": p.digest, "text": p.text }),
        Record::LakeSealed(l) => json!({
            "first": l.first, "end": l.end,
            "files": l.files.iter().map(|f| json!({
                "name": f.name, "bytes": f.bytes, "sha256": f.sha256.iter().map(|b| format!("{b:02x}")).collect::<String>(),
            })).collect::<Vec<_>>(),
        }),
        Record::Anchored(a) => json!({ "size": a.size, "target": a.target }),
        Record::Recording(r) => json!({
            "instance": r.instance.to_string(),
            "from": r.from.wall.rfc3339(), "to": r.to.wall.rfc3339(),
            "lost": r.lost, "overwritten": r.overwritten, "full": r.full,
            "behaviours": r.behaviours.iter().map(recorded).collect::<Vec<_>>(),
            "uses": r.uses.iter().map(|u| json!([u.after_ms, u.tgid, u.what, u.count])).collect::<Vec<_>>(),
        }),
        Record::Enforcement(e) => json!({
            "path": e.path, "digest": e.digest, "text": e.text, "switched_off": e.switched_off,
            "means": e.means.iter().map(|(class, by)| json!([class, by])).collect::<Vec<_>>(),
        }),
        Record::Prevention(p) => json!({
            "instance": p.instance.to_string(), "image": p.image, "role": p.role, "rule": p.rule,
            "class": p.class.as_str(), "outcome": p.enforced.as_str(),
            "behaviour": of(api::Behaviour::from(&p.behaviour)),
            "count": p.count, "at_least": p.at_least,
            "from": p.first.wall.rfc3339(), "to": p.last.wall.rfc3339(),
        }),
        // bytes of other crates: their record can be had whole in a bundle
        _ => return None,
    };
    Some(json!({
        "record": row.id.to_string(),
        "kind": kind_name(row.record),
        "time": row.wall.rfc3339(),
        "value": value,
    }))
}

fn of<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).expect("our types have string keys and finite numbers")
}

fn recorded(r: &Recorded) -> Value {
    let behaviour = r.behaviour.as_ref().map(api::Behaviour::from);
    json!({ "kind": r.kind.as_str(), "behaviour": behaviour })
}

fn step(s: &Step) -> Value {
    json!({ "effect": s.kind.as_str(), "class": s.kind.class().as_str(), "words": s.effect })
}

pub(crate) fn phase(phase: &StepPhase) -> (&'static str, Option<&StepOutcome>) {
    match phase {
        StepPhase::Began => ("began", None),
        StepPhase::Ended(outcome) => ("ended", Some(outcome)),
        StepPhase::UndoBegan => ("undo_began", None),
        StepPhase::UndoEnded(outcome) => ("undo_ended", Some(outcome)),
    }
}
