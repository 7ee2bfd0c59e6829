//! Which records belong to an alert or a container: their own, and those that explain them.

use super::args::About;
use crate::failure::Failure;
use crate::journal::{Journal, Wanted};
use plimsoll_ask::{Body, Records as _};
use plimsoll_baseline::Baseline;
use plimsoll_evidence::Leaf;
use plimsoll_model::{
    Alert, AlertId, AlertSource, BaselineId, GapScope, Instance, Record, RecordKind, WallNs,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// From when to when, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) from: WallNs,
    pub(super) to: WallNs,
}

impl Interval {
    pub(super) fn everything() -> Self {
        Self {
            from: WallNs(i64::MIN),
            to: WallNs(i64::MAX),
        }
    }

    pub(super) fn around(from: WallNs, to: WallNs, ns: u64) -> Self {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        Self {
            from: WallNs(from.0.saturating_sub(ns)),
            to: WallNs(to.0.saturating_add(ns)),
        }
    }

    fn has(&self, at: WallNs) -> bool {
        self.from <= at && at <= self.to
    }
}

/// An alert or a container, found in the journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// In words.
    pub(super) subject: String,
    pub(super) instances: Vec<Instance>,
    pub(super) alert: Option<AlertId>,
    /// When the alert began and was last repeated.
    pub(super) when: Option<(WallNs, WallNs)>,
    /// The alert's records and those that it names.
    pub(super) leaves: BTreeSet<Leaf>,
    /// Baselines that were in force.
    baselines: BTreeSet<BaselineId>,
}

pub(super) fn about(about: &About, journal: &Journal) -> Result<Found, Failure> {
    match (&about.alert, &about.container, &about.incident) {
        (Some(id), _, _) => alert(id, journal),
        (_, Some(name), _) => {
            let instances = journal.containers()?.named(name)?;
            let subject = format!("container {name}");
            baselines_of(
                Found {
                    subject,
                    instances,
                    ..Found::default()
                },
                journal,
            )
        }
        (_, _, incident) => Err(Failure::Failed(format!(
            "no incident {:?} in the journal: incidents are not kept yet; use --alert or --container",
            incident.as_deref().unwrap_or_default()
        ))),
    }
}

fn alert(id: &AlertId, journal: &Journal) -> Result<Found, Failure> {
    let mut found = Found {
        subject: format!("alert {id}"),
        alert: Some(id.clone()),
        ..Found::default()
    };
    let wanted = Wanted {
        kinds: vec![RecordKind::Alert],
        needles: vec![id.as_str().as_bytes().to_vec()],
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| {
        if let Body::Record(Record::Alert(alert)) = &seen.body
            && alert.id == *id
        {
            found.leaves.insert(Leaf(seen.id.leaf));
            found.take(alert, journal);
        }
        ControlFlow::Continue(())
    })?;
    if found.leaves.is_empty() {
        return Err(Failure::Failed(format!(
            "no alert {id} in the journal: `plimsoll alerts` lists them"
        )));
    }
    baselines_of(found, journal)
}

impl Found {
    fn take(&mut self, alert: &Alert, journal: &Journal) {
        let (first, last) = self.when.unwrap_or((alert.at.wall, alert.at.wall));
        self.when = Some((first.min(alert.at.wall), last.max(alert.at.wall)));
        self.instances = alert.instance.iter().cloned().collect();
        let mut named: Vec<_> = alert.evidence.iter().collect();
        if let AlertSource::Drift(drift) = &alert.source {
            named.extend(&drift.observation);
            self.baselines
                .extend(drift.baseline.iter().map(|b| b.id.clone()));
        }
        let ours = named
            .into_iter()
            .filter(|id| id.origin == *journal.origin());
        self.leaves.extend(ours.map(|id| Leaf(id.leaf)));
    }
}

/// The baselines that drifts of these instances name.
fn baselines_of(mut found: Found, journal: &Journal) -> Result<Found, Failure> {
    if found.instances.is_empty() {
        return Ok(found);
    }
    let wanted = Wanted {
        kinds: vec![RecordKind::Drift],
        instances: found.instances.clone(),
        ..Wanted::default()
    };
    let mut named = BTreeSet::new();
    journal.each(&wanted, |seen| {
        if let Body::Record(Record::Drift(drift)) = seen.body {
            named.extend(drift.baseline.map(|b| b.id));
        }
        ControlFlow::Continue(())
    })?;
    found.baselines.extend(named);
    Ok(found)
}

/// The records of the instances themselves in the interval, and their identity whenever it is.
pub(super) fn own(
    journal: &Journal,
    found: &Found,
    interval: &Interval,
) -> Result<BTreeSet<Leaf>, Failure> {
    let mut leaves = found.leaves.clone();
    if found.instances.is_empty() {
        return Ok(leaves);
    }
    let wanted = Wanted {
        instances: found.instances.clone(),
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| {
        let identity = matches!(&seen.body, Body::Record(Record::Container(_)));
        if identity || interval.has(seen.wall) {
            leaves.insert(Leaf(seen.id.leaf));
        }
        ControlFlow::Continue(())
    })?;
    Ok(leaves)
}

/// What explains the records: baselines, rules and policies in force, whether an agent ran, clocks,
/// gaps of the node, decisions about them, and the keys.
pub(super) fn context(
    journal: &Journal,
    found: &Found,
    interval: &Interval,
) -> Result<BTreeSet<Leaf>, Failure> {
    let mut leaves = found.leaves.clone();
    let mut before: BTreeMap<String, Leaf> = BTreeMap::new();
    let wanted = Wanted {
        kinds: vec![
            RecordKind::Gap,
            RecordKind::Clock,
            RecordKind::Lifecycle,
            RecordKind::Decision,
            RecordKind::Baseline,
            RecordKind::RuleSet,
            RecordKind::Policy,
        ],
        ..Wanted::default()
    };
    // Without an interval one clock and one start are enough to read the times of a hold by.
    let bounded = interval.from.0 > i64::MIN;
    journal.each(&wanted, |seen| {
        let Body::Record(record) = &seen.body else {
            return ControlFlow::Continue(());
        };
        let leaf = Leaf(seen.id.leaf);
        let inside = interval.has(seen.wall);
        let (series, take) = match record {
            Record::Gap(gap) => {
                let whose = match &gap.scope {
                    GapScope::Node => bounded,
                    GapScope::Container(instance) => found.instances.contains(instance),
                };
                let touches = gap.from.wall <= interval.to && interval.from <= gap.to.wall;
                (None, whose && touches)
            }
            Record::Decision(decision) => (None, concerns(&decision.subject, found)),
            Record::Baseline(bytes) => match Baseline::decode(bytes) {
                Ok(b) if found.baselines.contains(b.id()) => {
                    (Some(format!("baseline {}", b.id())), inside)
                }
                _ => (None, false),
            },
            Record::Clock(_) => (Some("clock".to_owned()), inside && bounded),
            Record::Lifecycle(_) => (Some("lifecycle".to_owned()), inside && bounded),
            Record::RuleSet(_) => (Some("rules".to_owned()), inside),
            Record::Policy(_) => (Some("policy".to_owned()), inside),
            _ => (None, false),
        };
        if take {
            leaves.insert(leaf);
        } else if let Some(series) = series
            && (seen.wall < interval.from || !bounded)
        {
            before.insert(series, leaf);
        }
        ControlFlow::Continue(())
    })?;
    leaves.extend(before.into_values());
    Ok(leaves)
}

fn concerns(subject: &str, found: &Found) -> bool {
    let names = found.alert.iter().map(|id| id.as_str());
    let baselines = found.baselines.iter().map(BaselineId::as_str);
    let ids = found.instances.iter().map(|i| i.id.as_str());
    names
        .chain(baselines)
        .chain(ids)
        .any(|name| subject.contains(name))
}

/// A name for a hold that says what it is about.
pub(super) fn hold_name(found: &Found) -> String {
    let seconds = crate::when::now().0 / 1_000_000_000;
    let plain = found.subject.bytes().map(|b| {
        if b.is_ascii_alphanumeric() {
            char::from(b)
        } else {
            '-'
        }
    });
    let plain: String = plain.take(40).collect();
    format!("{}-{seconds}", plain.trim_matches('-'))
}
