//! Q1, which instance it was; Q4, what changed before.

use crate::acts::{Acts, is_first_of_session};
use crate::directory::{Known, same_workload};
use crate::interval::between;
use crate::records::Filter;
use crate::say::{Sentences, count, times};
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_api::types::class_name;
use plimsoll_model::{
    AlertSource, Container, ContainerState, Drift, Entry, Observation, Record, RecordId,
    RecordKind, Risk,
};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Q1.
pub(crate) fn instance(about: &About<'_>, say: &mut Sentences) {
    if let Some(case) = about.case.alert.as_ref().filter(|a| a.alert.prevented) {
        let evidence: Vec<_> = case.all_evidence().collect();
        let said = "The act was prevented: the enforcement policy in force did not let it happen.";
        say.observed(said, evidence);
    }
    let Some(instance) = &about.case.instance else {
        let evidence: Vec<_> = about
            .case
            .alert
            .iter()
            .flat_map(|a| a.all_evidence())
            .collect();
        say.inferred("The act happened in no container that could be told: its identity was not known in time.", evidence);
        say.unknown("Which instance it was is not known.");
        return;
    };
    let Some(known) = about.directory.get(instance) else {
        let evidence: Vec<_> = about
            .case
            .alert
            .iter()
            .flat_map(|a| a.all_evidence())
            .collect();
        say.observed(
            format!(
                "Container {} (started at boot time {} ns), on node {}.",
                instance.id,
                instance.start.0,
                about.node()
            ),
            evidence,
        );
        say.unknown(
            "Its name, image and workload are not known: no record of its identity is left.",
        );
        return;
    };
    let (c, evidence) = (&known.container, &known.evidence);
    let name = if c.name.is_empty() {
        "A container without a known name".to_owned()
    } else {
        c.name.clone()
    };
    say.observed(
        format!(
            "{name}: container {}, run by {} on node {}.",
            c.id(),
            c.runtime.as_str(),
            about.node()
        ),
        evidence,
    );
    image(c, evidence, say);
    workload(c, evidence, say);
    life(about, known, say);
    if !c.unknown_because.is_empty() {
        say.unknown(format!(
            "Part of its identity is not known: {}.",
            c.unknown_because
        ));
    }
    if c.privileged {
        say.observed(
            "It ran privileged: little separates it from the node.",
            evidence,
        );
    }
}

fn image(c: &Container, evidence: &[RecordId], say: &mut Sentences) {
    let image = if c.image.name.is_empty() {
        "an image without a known name"
    } else {
        &c.image.name
    };
    match (&c.image.config_digest, &c.image.manifest_digest) {
        (Some(config), Some(manifest)) => say.observed(format!("It ran {image}, image digest {config} (manifest {manifest})."), evidence),
        (Some(config), None) => say.observed(format!("It ran {image}, image digest {config}; a digest of a registry is not known (built locally, or the runtime gave none)."), evidence),
        (None, _) => {
            say.observed(format!("It was started from {image}."), evidence);
            say.unknown("Its image digest is not known, so which content the name stood for is not certain.");
        }
    }
}

fn workload(c: &Container, evidence: &[RecordId], say: &mut Sentences) {
    let mut parts = Vec::new();
    parts.extend(c.namespace.as_ref().map(|n| format!("namespace {n}")));
    parts.extend(c.pod.as_ref().map(|p| format!("pod {p}")));
    parts.extend(c.service.as_ref().map(|s| format!("service {s}")));
    match (parts.is_empty(), c.unknown_because.is_empty()) {
        (false, _) => say.observed(
            format!("It belongs to {}; role {}.", parts.join(", "), c.role),
            evidence,
        ),
        (true, true) => say.inferred(
            format!(
                "It belongs to no pod and no service: its runtime names none. Its role is {}.",
                c.role
            ),
            evidence,
        ),
        (true, false) => say.unknown("Whether it belongs to a pod or service is not known."),
    }
}

fn life(about: &About<'_>, known: &Known, say: &mut Sentences) {
    let c = &known.container;
    let start = if c.found_running {
        "It was found running at"
    } else {
        "It started at"
    };
    let begun = format!("{start} {}", when(c.first_seen.wall));
    match (c.gone, c.state) {
        (Some(gone), _) => {
            let code = c
                .exit_code
                .map_or(", its exit code was not seen".to_owned(), |code| {
                    format!(" with exit code {code}")
                });
            let lived = span((gone.wall.0 - c.first_seen.wall.0).unsigned_abs());
            say.observed(
                format!(
                    "{begun} and was gone at {}{code} (seen for {lived}).",
                    when(gone.wall)
                ),
                &known.evidence,
            );
        }
        (None, ContainerState::Gone) => say.observed(
            format!("{begun} and is gone; when it ended is not recorded."),
            &known.evidence,
        ),
        (None, _) => {
            say.observed(format!("{begun}."), &known.evidence);
            let last = about
                .records
                .span()
                .map(|s| format!(" up to the last record, at {}", when(s.last)))
                .unwrap_or_default();
            say.unknown(format!(
                "No end of it is recorded{last}: it runs, or it ended unseen since."
            ));
        }
    }
    if c.found_running {
        say.unknown("It ran before the agent took it up: when it really started was not observed.");
    }
}

/// Q4.
pub(crate) fn changes(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let before = say.len();
    if let Some(known) = about
        .case
        .instance
        .as_ref()
        .and_then(|i| about.directory.get(i))
    {
        started(about, known, say);
        deploy(about, known, say);
    }
    sessions(about, say)?;
    drifts(about, say)?;
    decisions(about, say)?;
    if say.len() == before {
        say.unknown(format!(
            "No change is recorded {}: no start, no new image, no entry into it, no new behaviour, no decision. That is not proof that there was none.",
            about.interval.text()
        ));
    }
    Ok(())
}

fn started(about: &About<'_>, known: &Known, say: &mut Sentences) {
    let c = &known.container;
    if !c.found_running && about.interval.touches(c.first_seen.wall, c.first_seen.wall) {
        let ago = about
            .case
            .first_act()
            .map(|(at, _)| {
                format!(
                    ", {} before the act",
                    span((at.0 - c.first_seen.wall.0).unsigned_abs())
                )
            })
            .unwrap_or_default();
        say.observed(
            format!(
                "Deploy: this instance started at {}{ago}.",
                when(c.first_seen.wall)
            ),
            &known.evidence,
        );
    }
}

/// What is different from the instance of the workload before this one.
fn deploy(about: &About<'_>, known: &Known, say: &mut Sentences) {
    let c = &known.container;
    let Some(previous) = about.directory.previous(c) else {
        if !c.found_running {
            say.unknown("No earlier instance of this workload is recorded, so what is new in it compared with its predecessor cannot be told.");
        }
        return;
    };
    let p = &previous.container;
    let evidence = || known.evidence.iter().chain(&previous.evidence);
    let earlier = format!(
        "the instance before it ({}, started {})",
        p.instance,
        when(p.first_seen.wall)
    );
    match (&p.image.config_digest, &c.image.config_digest) {
        (Some(old), Some(new)) if old != new => {
            say.inferred(format!("Image: changed from {} ({old}) to {} ({new}) compared with {earlier}.", p.image.name, c.image.name), evidence());
        }
        (Some(_), Some(_)) => say.inferred(format!("Image: the same digest as {earlier}."), evidence()),
        _ => say.unknown(format!("Image: whether it changed compared with {earlier} is not known, because a digest is missing.")),
    }
    let differs = [
        ("command", p.command != c.command),
        ("mounts", p.mounts != c.mounts),
        ("ports", p.ports != c.ports),
        ("privileges", p.privileged != c.privileged),
        ("labels", p.labels != c.labels),
    ];
    let changed: Vec<&str> = differs
        .iter()
        .filter(|(_, d)| *d)
        .map(|(name, _)| *name)
        .collect();
    if !changed.is_empty() {
        say.inferred(
            format!(
                "Configuration: {} differ from {earlier}.",
                changed.join(", ")
            ),
            evidence(),
        );
    }
}

/// Who entered the container from outside.
fn sessions(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    const SESSIONS_MAX: usize = 40;
    let mut entered: Vec<(RecordId, Observation)> = Vec::new();
    let mut more = 0;
    about.observations(Acts::SESSION, say.tally(), |id, o| {
        if is_first_of_session(&o) {
            if entered.len() < SESSIONS_MAX {
                entered.push((id, o))
            } else {
                more += 1
            }
        }
    })?;
    for (id, o) in &entered {
        let how = match o.lineage.first().map(|a| a.entry) {
            Some(Entry::Host) => "from the host (not by its runtime)",
            _ => "with exec",
        };
        let done = about.action(&o.event.kind);
        let entered = match o.found_since() {
            None => format!(
                "at {} somebody entered the container {how}: {done}",
                when(o.at.wall)
            ),
            Some(since) => format!(
                "before the agent came somebody had entered the container {how}: a process that started at {} {done}",
                when(since)
            ),
        };
        say.observed(format!("Entry: {entered}."), [id]);
    }
    if more > 0 {
        say.observed(
            format!(
                "Entry: {} into the container are not listed.",
                count(more, "more session")
            ),
            [],
        );
    }
    Ok(())
}

/// New behaviours of this instance in the period, other than the alert's own.
fn drifts(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    const DRIFTS_MAX: usize = 1000;
    let Some(instance) = &about.case.instance else {
        return Ok(());
    };
    let own = about.case.behaviour().map(plimsoll_model::Behaviour::id);
    let mut by_class: BTreeMap<&'static str, Vec<(RecordId, Drift)>> = BTreeMap::new();
    let kinds = [RecordKind::Drift, RecordKind::Alert];
    let filter = Filter::of(&kinds)
        .about(instance)
        .between(about.interval.from, about.interval.to);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        let drift = match record {
            Record::Drift(d) => d,
            Record::Alert(a) => match a.source {
                AlertSource::Drift(d) => d,
                AlertSource::Rule(_) => return,
            },
            _ => return,
        };
        if drift.instance != *instance || Some(drift.behaviour.id()) == own {
            return;
        }
        let list = by_class.entry(class_name(drift.class)).or_default();
        match list
            .iter()
            .position(|(_, d)| d.behaviour == drift.behaviour)
        {
            Some(same) => list[same].1.count = list[same].1.count.max(drift.count),
            None if list.len() < DRIFTS_MAX => list.push((id, drift)),
            None => {}
        }
    })?;
    let mut classes: Vec<_> = by_class.into_iter().collect();
    for (_, list) in &mut classes {
        list.sort_by_key(|(_, d)| (Reverse(d.risk), d.first.boot));
    }
    // the gravest first: a person in a hurry reads the beginning
    classes.sort_by_key(|(_, list)| list.first().map(|(_, d)| (Reverse(d.risk), d.first.boot)));
    for (class, list) in &classes {
        new_behaviour(&class.replace('_', " "), list, say);
    }
    Ok(())
}

/// Behaviours of one class, the gravest first: each in a sentence, but those of low risk in one.
fn new_behaviour(class: &str, list: &[(RecordId, Drift)], say: &mut Sentences) {
    const SHOWN: usize = 5;
    let (grave, low): (Vec<_>, Vec<_>) = list.iter().partition(|(_, d)| d.risk > Risk::Low);
    for (id, d) in grave.iter().take(SHOWN) {
        say.observed(
            format!(
                "New behaviour ({class}, risk {}): {} {} {} at {}, {}.",
                d.risk.as_str(),
                describe::path(&d.behaviour.program),
                d.behaviour.operation,
                describe::path(&d.behaviour.object),
                when(d.first.wall),
                times(d.count)
            ),
            [id],
        );
    }
    if grave.len() > SHOWN {
        say.observed(
            format!("New behaviour ({class}): {} more.", grave.len() - SHOWN),
            grave[SHOWN..].iter().map(|(id, _)| id),
        );
    }
    let (Some((_, first)), Some((_, last))) = (low.first(), low.last()) else {
        return;
    };
    let shown: Vec<String> = low
        .iter()
        .take(SHOWN)
        .map(|(_, d)| {
            format!(
                "{} {} {}",
                describe::path(&d.behaviour.program),
                d.behaviour.operation,
                describe::path(&d.behaviour.object)
            )
        })
        .collect();
    let more = match low.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!("; {n} more"),
    };
    say.observed(
        format!(
            "New behaviour ({class}, risk low) {}: {}{more}.",
            between(first.first.wall, last.first.wall),
            shown.join("; ")
        ),
        low.iter().map(|(id, _)| id),
    );
}

/// What people decided, and what changed about the agent.
fn decisions(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let baseline = about
        .case
        .alert
        .as_ref()
        .and_then(|a| a.drift())
        .and_then(|d| d.baseline.as_ref())
        .map(|b| b.id.to_string());
    const DECISIONS_MAX: usize = 50;
    let mut found = Vec::new();
    let filter = Filter::of(&[RecordKind::Decision, RecordKind::Lifecycle])
        .between(about.interval.from, about.interval.to);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        let text = match record {
            Record::Decision(d) if d.action.starts_with("baseline.") => {
                let ours = baseline.as_deref().is_none_or(|b| d.subject.contains(b));
                ours.then(|| {
                    format!(
                        "Decision: {} of {} at {} by uid {}: {}.",
                        d.action,
                        d.subject,
                        when(d.at.wall),
                        d.uid,
                        d.reason
                    )
                })
            }
            Record::Lifecycle(l) if l.what == "start" || l.what == "stop" || l.what == "config" => {
                Some(format!(
                    "Agent: {} of version {} at {}.",
                    l.what,
                    l.version,
                    when(l.at.wall)
                ))
            }
            _ => None,
        };
        if let Some(text) = text
            && found.len() < DECISIONS_MAX
        {
            found.push((id, text));
        }
    })?;
    for (id, text) in &found {
        say.observed(text.clone(), [id]);
    }
    Ok(())
}

/// Instances of the same workload as the subject.
pub(crate) fn siblings<'a>(about: &'a About<'_>) -> Vec<&'a Known> {
    let Some(own) = about.container() else {
        return Vec::new();
    };
    about
        .directory
        .latest_first()
        .into_iter()
        .filter(|k| same_workload(&k.container, own) && k.container.instance != own.instance)
        .collect()
}
