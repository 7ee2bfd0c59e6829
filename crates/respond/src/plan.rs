//! From an alert and a policy to a plan: what would be done, why, and how far it reaches.
//!
//! A pure function of its arguments, the time included: `plan show` and the engine see the same.
//! Whether more of a container's identity may come, and what then, is told; waiting for it is the
//! engine's.

use crate::guards::{Asking, Surroundings};
use crate::policy::{Entry, Policy, Selector};
use crate::values::glob;
use plimsoll_model::response::{Plan, StepClass};
use plimsoll_model::{Alert, AlertSource, Container, ContainerState, Drift, RecordId, Stamp, Text};
use std::borrow::Cow;

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

/// What a policy says about an alert.
#[derive(Clone, Debug)]
pub struct Choice<'p> {
    /// The first entry that answers it, with the reasons why it does.
    pub entry: Option<(&'p Entry, Vec<String>)>,
    /// What it might say if more were known of the container, and why that is not known.
    pub doubt: Option<String>,
    /// That may still come to be known.
    pub awaited: bool,
}

/// What the policy says about the alert, by what is known now.
pub fn choose<'p>(policy: &'p Policy, alert: &Alert, container: Option<&Container>) -> Choice<'p> {
    let identity = Identity::of(alert, container);
    let mut before = None;
    let mut entries = policy.entries.iter();
    let entry = entries.find_map(|e| match fits(&e.select, alert, &identity) {
        Fit::Yes(why) => Some((e, why)),
        Fit::Unknown => {
            before.get_or_insert(e);
            None
        }
        Fit::No => None,
    });
    let might = before.map(|e| format!("the entry {} of the policy might answer it", e.name));
    let might = might.or_else(|| {
        let (entry, _) = entry.as_ref().filter(|(e, _)| !e.dry_run)?;
        let c = container.filter(|c| c.awaited)?;
        let interferes = entry.steps.iter().any(|s| s.kind.interferes());
        let might = interferes && policy.guards.might_hold(c);
        might.then(|| "a guard might hold it back".to_owned())
    });
    Choice {
        entry,
        awaited: might.is_some() && identity.awaited,
        doubt: might.map(|might| {
            let missing = identity.missing.unwrap_or_default();
            format!("not all is known of the container ({missing}): {might}")
        }),
    }
}

/// The plan that the policy makes of it; `None`: the policy says nothing about it.
pub fn make(policy: &Policy, knowing: Knowing<'_>) -> Option<Plan> {
    let Knowing {
        alert, container, ..
    } = knowing;
    let choice = choose(policy, alert, container);
    let (entry, mut reasons) = choice.entry?;
    reasons.extend(choice.doubt);
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

/// What is known of an alert's container, whoever tells it.
struct Identity<'a> {
    alert: &'a Alert,
    container: Option<&'a Container>,
    /// Why not all of it is known, where that is so.
    missing: Option<&'a str>,
    /// More may come.
    awaited: bool,
}

impl<'a> Identity<'a> {
    fn of(alert: &'a Alert, container: Option<&'a Container>) -> Self {
        let missing = match container {
            None => alert.instance.as_ref().map(|_| "it has not been told yet"),
            Some(c) if !c.unknown_because.is_empty() => Some(c.unknown_because.as_str()),
            Some(c) => c.awaited.then_some("its runtime has not told it yet"),
        };
        Self {
            alert,
            container,
            missing,
            awaited: container.map_or(alert.instance.is_some(), |c| c.awaited),
        }
    }

    /// What the container's record says, else what the alert was raised with.
    fn word(&self, of: impl Fn(&'a Container) -> Option<&'a str>, field: &str) -> Word<'a> {
        let told = self.container.and_then(of).filter(|w| !w.is_empty());
        let told = told.map(Cow::Borrowed).or_else(|| {
            let fields = self.alert.fields.iter();
            let (_, text) = fields.into_iter().find(|(k, _)| k == field)?;
            Some(text.to_str_lossy()).filter(|w| !w.is_empty())
        });
        let settled = told.is_some();
        Word { told, settled }
    }

    fn image(&self) -> Word<'a> {
        let mut word = self.word(|c| Some(&c.image.name), "container.image");
        // the name may be one that stands for what nobody has told
        word.settled &= self.container.is_none_or(|c| c.unknown_because.is_empty());
        word
    }
    fn service(&self) -> Word<'a> {
        self.word(|c| c.service.as_deref(), "")
    }
    fn namespace(&self) -> Word<'a> {
        self.word(|c| c.namespace.as_deref(), "k8s.ns.name")
    }
    fn label(&self, key: &str) -> Word<'a> {
        let field = format!("container.label[{key}]");
        self.word(|c| c.labels.get(key).map(String::as_str), &field)
    }
}

/// One thing that is known of a container, or is not.
struct Word<'a> {
    told: Option<Cow<'a, str>>,
    /// It stays so.
    settled: bool,
}

/// Whether a selector, or a part of it, fits; with the reasons why it does.
enum Fit<W> {
    Yes(W),
    No,
    /// That hangs on what is not known of the container.
    Unknown,
}

fn one_of(patterns: &[String], text: &str, what: &str) -> Option<String> {
    let hit = patterns.iter().any(|p| glob(p, text));
    hit.then(|| format!("{what} is {}", Text::new(text.as_bytes().to_vec())))
}

fn fits(select: &Selector, alert: &Alert, identity: &Identity<'_>) -> Fit<Vec<String>> {
    let Some(mut why) = fits_alert(select, alert) else {
        return Fit::No;
    };
    let mut parts: Vec<Fit<String>> = Vec::new();
    let mut part = |patterns: &[String], word: Word<'_>, what: &str| {
        let hit = word.told.and_then(|w| one_of(patterns, &w, what));
        parts.push(match hit {
            _ if patterns.is_empty() => return,
            Some(why) => Fit::Yes(why),
            None if identity.missing.is_some() && !word.settled => Fit::Unknown,
            None => Fit::No,
        });
    };
    part(&select.image, identity.image(), "image");
    part(&select.service, identity.service(), "service");
    part(&select.namespace, identity.namespace(), "namespace");
    for (label, pattern) in &select.labels {
        let what = format!("label {label}");
        part(std::slice::from_ref(pattern), identity.label(label), &what);
    }
    let mut unknown = false;
    for part in parts {
        match part {
            Fit::Yes(words) => why.push(words),
            Fit::No => return Fit::No,
            Fit::Unknown => unknown = true,
        }
    }
    if unknown {
        return Fit::Unknown;
    }
    if why.is_empty() {
        why.push("the policy answers every alert".to_owned());
    }
    Fit::Yes(why)
}

/// Why what the selector says of the alert itself fits, in words; `None`: it does not.
fn fits_alert(select: &Selector, alert: &Alert) -> Option<Vec<String>> {
    let mut why = Vec::new();
    let mut need = |given: bool, holds: &dyn Fn() -> Option<String>| {
        if !given {
            return Some(());
        }
        why.push(holds()?);
        Some(())
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
