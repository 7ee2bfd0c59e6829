//! Baselines as JSON types. Pure; the CLI uses the same when no agent runs.

use plimsoll_api as api;
use plimsoll_api::json::lossy;
use plimsoll_baseline::{Baseline, Diff, Expected, Pending, State};
use plimsoll_model::{Behaviour, NodeId};

/// One line of a baseline.
pub fn summary(baseline: &Baseline, node: &NodeId) -> api::Baseline {
    let coverage = baseline.coverage();
    let sampled = coverage.units > 0;
    let slot = baseline.config().slot_seconds;
    let learning = baseline.state() == State::Learning;
    let digest = &baseline.key().image;
    let readiness = baseline.readiness();
    api::Baseline {
        id: baseline.id().to_string(),
        version: baseline.version(),
        state: baseline.state().as_str().to_owned(),
        coverage: sampled.then(|| coverage.value()),
        image: baseline.image_name().to_owned(),
        image_digest: (!digest.starts_with("name:")).then(|| digest.clone()),
        role: baseline.key().role.clone(),
        behaviours: baseline.expected().count() as u64,
        quarantined: baseline.pending().len() as u64,
        expected_new_per_day: sampled.then(|| coverage.expected_new_a_day(slot)),
        unmet: if learning {
            readiness.unmet
        } else {
            Vec::new()
        },
        starts: baseline.starts(),
        instances: baseline.instances().1,
        hours_seen: baseline.hours().count(),
        hours: baseline.hours().words(),
        notes: readiness.notes,
        samples: coverage.units,
        predecessor: baseline.lineage().map(|l| reference(&l.predecessor)),
        first: Some(api::types::time(baseline.created())),
        last: Some(api::types::time(baseline.updated())),
        node: node.to_string(),
    }
}

/// A baseline at a version.
pub fn reference(r: &plimsoll_model::BaselineRef) -> api::types::BaselineRef {
    api::types::BaselineRef {
        id: r.id.to_string(),
        version: r.version,
    }
}

/// A baseline with its content.
pub fn detail(baseline: &Baseline, node: &NodeId) -> api::BaselineDetail {
    api::BaselineDetail {
        baseline: summary(baseline, node),
        known: baseline.expected().map(|(_, e)| known(e)).collect(),
        quarantine: baseline.pending().iter().map(pending).collect(),
    }
}

fn known(e: &Expected) -> api::types::KnownBehaviour {
    let status = match (e.approved, e.inherited) {
        (true, _) => "approved",
        (false, true) => "inherited",
        (false, false) => "learned",
    };
    api::types::KnownBehaviour {
        behaviour: (&e.behaviour).into(),
        count: e.count,
        // repeats that the kernel knew between two readings of its counters are not in it
        at_least: true,
        units: e.incidence,
        first: Some(api::types::time(e.first)),
        last: Some(api::types::time(e.last)),
        examples: e.examples.iter().map(lossy).collect(),
        status: status.to_owned(),
        note: (e.members > 1).then(|| format!("stands for {} objects", e.members)),
    }
}

fn pending(p: &Pending) -> api::types::KnownBehaviour {
    let when = if p.quarantined {
        "while learning"
    } else {
        "drift"
    };
    api::types::KnownBehaviour {
        behaviour: (&p.behaviour).into(),
        count: p.count,
        at_least: false,
        units: 0,
        first: Some(api::types::time(p.first)),
        last: Some(api::types::time(p.last)),
        examples: Vec::new(),
        status: "quarantined".to_owned(),
        note: Some(format!("{} risk, {when}: {}", p.risk.as_str(), p.reason)),
    }
}

/// How two baselines differ.
pub fn diff(from: &Baseline, to: &Baseline, diff: &Diff) -> api::BaselineDiff {
    let change = |change: &str, note: Option<&str>, list: &[Behaviour]| {
        list.iter()
            .map(|b| api::types::BaselineChange {
                change: change.to_owned(),
                behaviour: b.into(),
                note: note.map(str::to_owned),
            })
            .collect::<Vec<_>>()
    };
    let unseen = Some("inherited, not yet seen in this image");
    api::BaselineDiff {
        from: reference(&from.reference()),
        to: reference(&to.reference()),
        changes: [
            change("added", None, &diff.added),
            change("removed", None, &diff.removed),
            change("changed", unseen, &diff.unseen),
        ]
        .concat(),
        same: diff.common,
    }
}
