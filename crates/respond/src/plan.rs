//! From an alert and a policy to a plan: what would be done, why, and how far it reaches.
//!
//! A pure function of its arguments, the time included: `plan show` and the engine see the same.

use crate::guards::{Asking, Surroundings};
use crate::policy::{Entry, Policy, Selector};
use crate::values::glob;
use plimsoll_model::response::{Plan, StepClass};
use plimsoll_model::{Alert, AlertSource, Container, ContainerState, Drift, RecordId, Stamp, Text};

/// The id of the plan about an alert: one alert, one plan.
pub fn plan_id(alert: &Alert) -> String {
    let id = alert.id.as_str();
    format!("P-{}", id.strip_prefix("A-").unwrap_or(id))
}

/// What is known when a plan is made.
#[derive(Clone, Copy, Debug)]
pub struct Knowing<'a> {
    /// The alert, durable.
    pub alert: &'a Alert,
    /// Its record.
    pub record: Option<&'a RecordId>,
    /// Its container, where that is known.
    pub container: Option<&'a Container>,
    /// The rest of the node.
    pub around: Surroundings<'a>,
    /// What steps would reach on this machine, and by which means, in words.
    pub reach: &'a [String],
    /// Now.
    pub at: Stamp,
}

/// The first entry that answers the alert, with the reasons why it does.
pub fn choose<'p>(
    policy: &'p Policy,
    alert: &Alert,
    container: Option<&Container>,
) -> Option<(&'p Entry, Vec<String>)> {
    let mut entries = policy.entries.iter();
    entries.find_map(|e| Some((e, fits(&e.select, alert, container)?)))
}

/// The plan that the policy makes of it; `None`: the policy says nothing about it.
pub fn make(policy: &Policy, knowing: Knowing<'_>) -> Option<Plan> {
    let Knowing {
        alert, container, ..
    } = knowing;
    let (entry, reasons) = choose(policy, alert, container)?;
    let id = plan_id(alert);
    let acting = drift(alert).and_then(|d| d.lineage.first());
    Some(Plan {
        alert: alert.id.clone(),
        alert_record: knowing.record.cloned(),
        at: knowing.at,
        instance: alert.instance.clone(),
        container: container.map_or(String::new(), |c| c.display_name().to_owned()),
        policy: entry.name.clone(),
        policy_digest: policy.digest.clone(),
        dry_run: entry.dry_run,
        reasons,
        steps: entry.steps.clone(),
        blast_radius: blast_radius(entry, knowing),
        held: held(policy, entry, &id, knowing),
        approval_ms: entry.approval_ms,
        two_person: entry.two_person,
        service: container.and_then(|c| c.service.clone()),
        pid: acting.map(|a| a.key.tgid),
        pid_start: acting.map(|a| a.key.start),
        id,
    })
}

fn drift(alert: &Alert) -> Option<&Drift> {
    match &alert.source {
        AlertSource::Drift(drift) => Some(drift),
        AlertSource::Rule(_) => None,
    }
}

/// Why it fits, in words; `None`: it does not.
fn fits(select: &Selector, alert: &Alert, container: Option<&Container>) -> Option<Vec<String>> {
    let mut why = Vec::new();
    let mut need = |given: bool, holds: &dyn Fn() -> Option<String>| {
        if !given {
            return Some(());
        }
        why.push(holds()?);
        Some(())
    };
    let one_of = |patterns: &[String], text: &str, what: &str| {
        let hit = patterns.iter().any(|p| glob(p, text));
        hit.then(|| format!("{what} is {}", Text::new(text.as_bytes().to_vec())))
    };
    let drift = drift(alert);
    need(!select.rule.is_empty(), &|| {
        one_of(&select.rule, &alert.rule, "rule")
    })?;
    need(select.risk.is_some(), &|| {
        let risk = drift?.risk;
        (Some(risk) >= select.risk).then(|| format!("risk is {}", risk.as_str()))
    })?;
    need(!select.technique.is_empty(), &|| {
        let mut tags = alert
            .tags
            .iter()
            .chain(drift.iter().flat_map(|d| &d.techniques));
        let tag = tags.find(|t| select.technique.contains(t))?;
        Some(format!("technique is {tag}"))
    })?;
    need(select.priority.is_some(), &|| {
        // Falco counts down: the most severe is the smallest
        (Some(alert.priority) <= select.priority)
            .then(|| format!("priority is {}", alert.priority.as_str()))
    })?;
    need(select.coverage_permille.is_some(), &|| {
        let covered = drift?.coverage_permille;
        (Some(covered) >= select.coverage_permille)
            .then(|| format!("baseline covers {}.{} %", covered / 10, covered % 10))
    })?;
    need(!select.image.is_empty(), &|| {
        one_of(&select.image, &container?.image.name, "image")
    })?;
    need(!select.service.is_empty(), &|| {
        one_of(&select.service, container?.service.as_deref()?, "service")
    })?;
    need(!select.namespace.is_empty(), &|| {
        one_of(
            &select.namespace,
            container?.namespace.as_deref()?,
            "namespace",
        )
    })?;
    for (label, pattern) in &select.labels {
        need(true, &|| {
            let value = container?.labels.get(label)?;
            glob(pattern, value).then(|| format!("label {label} is {value}"))
        })?;
    }
    if why.is_empty() {
        why.push("the policy answers every alert".to_owned());
    }
    Some(why)
}

fn blast_radius(entry: &Entry, knowing: Knowing<'_>) -> Vec<String> {
    let Some(container) = knowing.container else {
        return vec!["the container is not known: no step about it can be taken".to_owned()];
    };
    let most = entry.steps.iter().map(|s| s.kind.class()).max();
    let mut radius = vec![format!(
        "one container, {} ({}): {}",
        container.display_name(),
        container.id().short(),
        match most {
            Some(StepClass::Destroy) => "ended at the end",
            Some(StepClass::Contain) => "limited until it is undone",
            _ => "goes on running",
        }
    )];
    if let Some(service) = &container.service {
        let others =
            knowing.around.running.iter().filter(|c| {
                c.service.as_ref() == Some(service) && c.instance != container.instance
            });
        radius.push(format!(
            "{} other containers of {service} run on this node and are not touched",
            others.count()
        ));
    }
    for (port, proto) in container.ports.iter().take(16) {
        radius.push(format!("port {port}/{proto} of it is published"));
    }
    if container.state == ContainerState::Gone {
        radius.push("the container has ended already".to_owned());
    }
    radius.extend(
        entry
            .steps
            .iter()
            .filter(|s| s.kind.interferes())
            .map(|s| format!("{}: {}", s.kind.as_str(), s.effect)),
    );
    radius.extend_from_slice(knowing.reach);
    radius
}

fn held(policy: &Policy, entry: &Entry, plan: &str, knowing: Knowing<'_>) -> Vec<String> {
    let Some(container) = knowing.container else {
        return Vec::new();
    };
    let asking = Asking { plan, container };
    let refusals = entry.steps.iter().filter_map(|s| {
        let why = policy
            .guards
            .refuse(asking, s.kind, false, knowing.around, knowing.at.wall)?;
        Some(format!("{}: {why}", s.kind.as_str()))
    });
    refusals.collect()
}
