//! Q5, what the baseline expects and how far it can be trusted.

use crate::directory::Directory;
use crate::records::BaselineFacts;
use crate::say::{Sentences, count};
use crate::{About, AskError};
use plimsoll_api::describe;
use plimsoll_model::names::{Table, syscall_words};
use plimsoll_model::{Behaviour, BehaviourKind, Container, Drift, RecordId};
use std::collections::BTreeMap;

/// Expected behaviours shown as examples.
const EXAMPLES_MAX: usize = 8;

/// Q5.
pub(crate) fn expectation(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let drift = about.case.alert.as_ref().and_then(|a| a.drift());
    if let Some(drift) = drift {
        frozen(about, drift, say);
    } else if about.case.alert.is_some() {
        say.observed(
            "A rule fired, not a drift: the alert does not depend on a baseline.",
            about.case.alert.iter().flat_map(|a| a.all_evidence()),
        );
    }
    let of_image = |c: &Container| {
        about
            .baselines
            .of_image(c.image.config_digest.as_ref(), &c.role)
    };
    let facts = match drift.and_then(|d| d.baseline.as_ref()) {
        Some(baseline) => about.baselines.facts(baseline),
        None => about.container().and_then(of_image),
    };
    let Some(facts) = facts else {
        say.unknown("No content of a baseline for this image and role is at hand, so what it expects is not known.");
        return Ok(());
    };
    validity(about, &facts, say);
    coverage(&facts, say);
    expected(&facts, about.case.behaviour(), say);
    Ok(())
}

/// What was in force when the drift was judged.
fn frozen(about: &About<'_>, d: &Drift, say: &mut Sentences) {
    let evidence: Vec<&RecordId> = about
        .case
        .alert
        .iter()
        .flat_map(|a| a.all_evidence())
        .collect();
    match &d.baseline {
        Some(b) => say.observed(
            format!(
                "In force at the act: baseline {} at version {}, {}, with a coverage of {}.{} %.",
                b.id,
                b.version,
                d.baseline_state,
                d.coverage_permille / 10,
                d.coverage_permille % 10
            ),
            evidence.clone(),
        ),
        None => say.observed(
            "No baseline was in force at the act: the image had none yet.",
            evidence.clone(),
        ),
    }
    say.observed(
        format!(
            "It did not hold: {}. Why it was graded {}: {}.",
            behaviour(&d.behaviour),
            d.risk.as_str(),
            d.reason.trim_end_matches('.')
        ),
        evidence.clone(),
    );
    for near in &d.nearest {
        say.observed(
            format!(
                "The nearest that it does expect: {} ({}).",
                behaviour(&near.behaviour),
                near.difference
            ),
            evidence.clone(),
        );
    }
    if d.nearest.is_empty() && d.baseline.is_some() {
        say.observed("Nothing that it expects is near to that.", evidence);
    }
}

fn validity(about: &About<'_>, facts: &BaselineFacts, say: &mut Sentences) {
    let evidence = || {
        let known = about
            .case
            .instance
            .as_ref()
            .and_then(|i: &_| Directory::get(about.directory, i));
        facts
            .record
            .iter()
            .chain(known.into_iter().flat_map(|k| &k.evidence))
    };
    let name = format!("Baseline {} v{}", facts.baseline.id, facts.baseline.version);
    match (about.container().and_then(|c| c.image.config_digest.as_ref()), &facts.image_digest) {
        (Some(own), Some(its)) if own == its => say.observed(format!("{name} is of this very image digest ({own}) and role {}.", facts.role), evidence()),
        (Some(own), Some(its)) => say.inferred(format!("{name} is of another digest ({its}) than the container's ({own}): what it expects may be out of date."), evidence()),
        _ => say.unknown(format!("Whether {name} is of the container's image cannot be told: a digest is missing.")),
    }
    if let Some(previous) = &facts.predecessor {
        say.observed(
            format!("It started from its predecessor, baseline {previous}."),
            facts.record.iter(),
        );
    }
}

fn coverage(facts: &BaselineFacts, say: &mut Sentences) {
    let seen = format!(
        "{} over {} sampled",
        count(facts.starts, "start"),
        count(facts.samples, "time slot")
    );
    match facts.coverage {
        Some(c) => {
            let rate = facts
                .expected_new_per_day
                .map(|n| format!(", about {n:.1} new behaviours a day expected"))
                .unwrap_or_default();
            say.inferred(
                format!(
                    "It covers an estimated {:.1} % of what this workload does{rate} ({seen}).",
                    c * 100.0
                ),
                facts.record.iter(),
            );
        }
        None => say.unknown(format!(
            "How much of the workload it covers cannot be estimated yet ({seen})."
        )),
    }
    if !facts.unmet.is_empty() {
        say.observed(
            format!("It is not ready: {}.", facts.unmet.join("; ")),
            facts.record.iter(),
        );
    }
    match facts.hours_seen {
        0 => say.unknown("Which hours of the week it has seen is not known."),
        168.. => say.observed("It has seen every hour of the week.", facts.record.iter()),
        _ => say.observed(
            format!(
                "It has seen {}: what runs at other hours only, it cannot know.",
                facts.hours
            ),
            facts.record.iter(),
        ),
    }
}

fn expected(facts: &BaselineFacts, act: Option<&Behaviour>, say: &mut Sentences) {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    facts
        .known
        .iter()
        .for_each(|b| *kinds.entry(b.kind.as_str()).or_default() += 1);
    let list: Vec<String> = kinds
        .iter()
        .map(|(kind, n)| format!("{n} {kind}"))
        .collect();
    say.observed(
        format!(
            "It expects {}: {}.",
            count(facts.known.len() as u64, "behaviour"),
            if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            }
        ),
        facts.record.iter(),
    );
    let Some(act) = act else { return };
    let same: Vec<&Behaviour> = facts
        .known
        .iter()
        .filter(|b| b.program == act.program && b.kind == act.kind)
        .collect();
    let program = describe::path(&act.program);
    if same.is_empty() {
        let any = facts.known.iter().any(|b| b.program == act.program);
        let what = if any {
            format!("no {} by {program}", act.kind.as_str())
        } else {
            format!("nothing at all by {program}")
        };
        say.observed(format!("It expects {what}."), facts.record.iter());
        return;
    }
    let shown: Vec<String> = same
        .iter()
        .take(EXAMPLES_MAX)
        .map(|b| format!("{} {}", b.operation, describe::path(&b.object)))
        .collect();
    let more = if same.len() > EXAMPLES_MAX {
        format!(", and {} more", same.len() - EXAMPLES_MAX)
    } else {
        String::new()
    };
    say.observed(
        format!(
            "Of {program} it expects, as {}: {}{more}.",
            act.kind.as_str(),
            shown.join(", ")
        ),
        facts.record.iter(),
    );
}

/// A behaviour in words.
pub(crate) fn behaviour(b: &Behaviour) -> String {
    let script = if b.script.is_empty() {
        String::new()
    } else {
        format!(" ({})", describe::path(&b.script))
    };
    format!(
        "{}{script}, {} {}: {}",
        describe::path(&b.program),
        b.kind.as_str(),
        b.operation,
        object(b)
    )
}

/// The object; the calls of 32-bit programs are kept by their number.
pub(crate) fn object(b: &Behaviour) -> String {
    let number = b.object.to_string();
    let number = number.strip_prefix("32-bit ").and_then(|n| n.parse().ok());
    match number.filter(|_| b.kind == BehaviourKind::Syscall) {
        Some(nr) => syscall_words(Table::NATIVE, nr, true),
        None => describe::path(&b.object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_32_bit_program_is_named() {
        let b = Behaviour {
            kind: BehaviourKind::Syscall,
            program: "/srv/app".into(),
            script: "".into(),
            entry: plimsoll_model::Entry::Init,
            uid: 0,
            operation: "call".into(),
            object: "32-bit 11".into(),
            origin: plimsoll_model::Origin::Unknown,
        };
        assert!(
            behaviour(&b).ends_with(": execve (32-bit)"),
            "{}",
            behaviour(&b)
        );
    }
}
