//! `plimsoll rules test` and `record`: rules on recorded events.
//!
//! Promises: lines are bounded; a line that is no event is said with its number and makes the
//! command fail. Nothing is put in force.

use super::rules_audit::Lines;
use super::select::resolve;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::{Global, Selection};
use crate::out::{Out, Style};
use crate::source::Source;
use plimsoll_agent::rules::files::Loaded;
use plimsoll_agent::rules::scenario::{Scene, read_line, record as scene_of};
use plimsoll_agent::rules::{Surroundings, View, kinds};
use plimsoll_api::describe::words;
use plimsoll_baseline::ResolvedNames;
use plimsoll_model::{Record, RecordKind};
use plimsoll_rules::{Reason, RuleId, Tri};
use serde_json::json;
use std::path::Path;

/// Rules that are explained for each event, where no rule is named.
const NEAREST: usize = 3;

pub(crate) fn test(
    loaded: &Loaded,
    scenario: &Path,
    only: Option<RuleId>,
    has_to_fire: bool,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut lines = Lines::open(scenario)?;
    let (mut events, mut fired) = (0u64, 0u64);
    while let Some((number, line)) = lines.next()? {
        let line = line.map_err(|why| Failure::Failed(format!("line {number}: {why}")))?;
        let scenes = read_line(&line, events + 1)
            .map_err(|e| Failure::Failed(format!("line {number}: {e}")))?;
        for scene in scenes {
            events += 1;
            fired += tried(loaded, &scene, number, only, out)?;
        }
    }
    if !out.json {
        out.line(&format!("{events} events, {fired} matches"))?;
    }
    Ok(match (fired > 0) == has_to_fire {
        true => Verdict::Fine,
        false => Verdict::Found,
    })
}

/// Tries the rules on one event; how many matched.
fn tried(
    loaded: &Loaded,
    scene: &Scene,
    line: u64,
    only: Option<RuleId>,
    out: &mut Out,
) -> Result<u64, Failure> {
    let mut all: Vec<(RuleId, Reason)> = Vec::new();
    for (at, rule) in loaded.set.rules().iter().enumerate() {
        let id = RuleId(at as u32);
        if rule.source != scene.source() || only.is_some_and(|o| o != id) {
            continue;
        }
        // a rule that is off is only tried when it is named
        if only.is_none() && !rule.status.is_active() {
            continue;
        }
        if let Some(reason) = best(loaded, scene, id) {
            all.push((id, reason));
        }
    }
    let matched = all.iter().filter(|(_, r)| r.outcome == Tri::True).count() as u64;
    // the ones that came nearest, where none matched
    all.sort_by_key(|(id, r)| {
        (
            std::cmp::Reverse(r.outcome),
            std::cmp::Reverse(r.held.len()),
            *id,
        )
    });
    let shown = match (only, matched) {
        (Some(_), _) => all.len(),
        (None, 0) => NEAREST,
        (None, n) => n as usize,
    };
    if !out.json {
        let what = match scene {
            Scene::Syscall(fields) => fields.kinds()[0].name().to_owned(),
            Scene::Audit(event) => words(&event.summary()),
        };
        out.line(
            &out.paint
                .apply(Style::Bold, &format!("line {line}: {what}")),
        )?;
    }
    for (id, reason) in all.iter().take(shown) {
        show(loaded, *id, reason, line, out)?;
    }
    Ok(matched)
}

/// The reason under the name of the event that comes nearest; `None`: the rule is for other events.
fn best(loaded: &Loaded, scene: &Scene, id: RuleId) -> Option<Reason> {
    match scene {
        Scene::Audit(event) => Some(loaded.set.reason(id, &**event)),
        Scene::Syscall(fields) => {
            let for_kinds = loaded.set.kinds(id);
            let reasons = fields
                .kinds()
                .iter()
                // of equals, max_by_key takes the last: the likeliest name is the first
                .rev()
                .filter(|k| for_kinds.contains(**k))
                .map(|kind| {
                    fields.set_kind(*kind);
                    loaded.set.reason(id, &**fields)
                });
            reasons.max_by_key(|r| (r.outcome, r.held.len()))
        }
    }
}

fn show(
    loaded: &Loaded,
    id: RuleId,
    reason: &Reason,
    line: u64,
    out: &mut Out,
) -> Result<(), Failure> {
    let rule = loaded.set.rule(id);
    let (word, style) = match reason.outcome {
        Tri::True => ("fires", Style::Bad),
        Tri::Unknown => ("hangs on what is not told", Style::Warn),
        Tri::False => ("quiet", Style::Dim),
    };
    if out.json {
        return out.object(&json!({
            "line": line,
            "rule": rule.name,
            "outcome": match reason.outcome {
                Tri::True => "fires",
                Tri::Unknown => "unknown",
                Tri::False => "quiet",
            },
            "held": reason.held,
            "first_false": reason.first_false,
        }));
    }
    let word = out.paint.apply(style, word);
    out.line(&format!("  {} {word}", words(&rule.name)))?;
    let said = |c: &plimsoll_rules::Condition| {
        let in_macro = c
            .in_macro
            .as_deref()
            .map_or(String::new(), |m| format!("  [{m}]"));
        let value = match c.value.is_empty() {
            true => String::new(),
            false => format!("  (is {})", c.value),
        };
        words(&format!("{}{value}{in_macro}", c.text))
    };
    for held in &reason.held {
        out.line(&format!("    true   {}", said(held)))?;
    }
    if let Some(condition) = &reason.first_false {
        let word = match condition.outcome {
            Tri::Unknown => "?",
            _ => "false",
        };
        out.line(&format!("    {word:<6} {}", said(condition)))?;
    }
    Ok(())
}

/// Observations of the journal as a scenario.
pub(crate) fn record(
    global: &Global,
    selection: &Selection,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let containers = journal.containers()?;
    let selection = Selection {
        limit: selection.limit.or(Some(0)),
        ..selection.clone()
    };
    let select = resolve(&selection, &containers, out)?;
    let node = {
        use plimsoll_ask::Records as _;
        journal.origin().to_string()
    };
    let mut names = ResolvedNames::new();
    let read = select.latest(
        &journal,
        select.wanted(&[RecordKind::Observation]),
        |_, record| match record {
            Record::Observation(o) if select.has(o.instance.as_ref()) => Some(o),
            _ => None,
        },
        |o| {
            names.note(&o);
            let family = kinds::family(&o.event);
            let Some(first) = family.first() else {
                return Ok(());
            };
            let container = o.instance.as_ref().and_then(|i| containers.get(i));
            let around = Surroundings {
                names: &names,
                node: &node,
            };
            let view = View::new(&o, container, around, *first);
            out.object(&scene_of(&view, family))
        },
    )?;
    select.afterword(&read, "event is", &journal)?;
    Ok(Verdict::Fine)
}
