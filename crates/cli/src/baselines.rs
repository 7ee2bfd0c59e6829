//! Baselines as the agent keeps them in the data directory, and as JSON.

use crate::failure::Failure;
use crate::journal::{Journal, Wanted};
use plimsoll_agent::{files, view};
use plimsoll_api as api;
use plimsoll_ask::{BaselineFacts, BaselineHit, Baselines, Body};
use plimsoll_baseline::{Baseline, Key};
use plimsoll_model::{
    BaselineRef, Behaviour, BehaviourId, Digest, NodeId, Record, RecordId, RecordKind,
};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Versions looked through to find an older one.
const VERSIONS_MAX: usize = 500;

/// All baselines in force, and the journal for older versions.
pub(crate) struct Kept<'a> {
    pub(crate) all: Vec<Baseline>,
    journal: Option<&'a Journal>,
    node: NodeId,
}

impl<'a> Kept<'a> {
    /// Reads the baselines of a data directory.
    pub(crate) fn read(
        dir: &Path,
        node: &NodeId,
        journal: Option<&'a Journal>,
    ) -> Result<Self, Failure> {
        let found = match files::read_all(dir) {
            Ok(listing) => {
                listing.problems.iter().for_each(|p| {
                    crate::out::remark(&format!("note: {}", api::describe::words(p)))
                });
                listing.found
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                let what = format!("cannot read the baselines in {}", dir.display());
                return Err(Failure::Data {
                    what,
                    source: Some(Box::new(e)),
                });
            }
        };
        let mut all = Vec::new();
        for file in found {
            match Baseline::decode(&file.bytes) {
                Ok(baseline) => all.push(baseline),
                Err(e) => {
                    crate::out::remark(&format!("note: {} is left out: {e}", file.path.display()))
                }
            }
        }
        Ok(Self {
            all,
            journal,
            node: node.clone(),
        })
    }

    /// A baseline at a version: the one in force, else from the journal.
    pub(crate) fn at(
        &self,
        id: &str,
        version: Option<u64>,
    ) -> Option<(Baseline, Option<RecordId>)> {
        let current = self.all.iter().find(|b| b.id().as_str() == id);
        match (current, version) {
            (Some(b), None) => Some((b.clone(), None)),
            (Some(b), Some(v)) if b.version() == v => Some((b.clone(), None)),
            (_, Some(v)) => self.journalled(id, v),
            (None, None) => None,
        }
    }

    fn journalled(&self, id: &str, version: u64) -> Option<(Baseline, Option<RecordId>)> {
        let wanted = Wanted {
            kinds: vec![RecordKind::Baseline],
            newest_first: true,
            ..Wanted::default()
        };
        let (mut found, mut looked) = (None, 0);
        let read = self.journal?.each(&wanted, |seen| {
            looked += 1;
            if let Body::Record(Record::Baseline(bytes)) = &seen.body
                && let Ok(b) = Baseline::decode(bytes)
                && b.id().as_str() == id
                && b.version() == version
            {
                found = Some((b, Some(seen.id.clone())));
            }
            if found.is_some() || looked >= VERSIONS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        read.ok().and(found)
    }

    pub(crate) fn json(&self) -> Vec<api::Baseline> {
        self.all
            .iter()
            .map(|b| view::summary(b, &self.node))
            .collect()
    }

    pub(crate) fn detail(&self, b: &Baseline) -> api::BaselineDetail {
        view::detail(b, &self.node)
    }
}

/// The difference of two baselines as JSON.
pub(crate) fn diff(a: &Baseline, b: &Baseline) -> api::BaselineDiff {
    view::diff(a, b, &plimsoll_baseline::diff(a, b))
}

fn digest(key: &Key) -> Option<Digest> {
    Digest::parse(&key.image)
        .ok()
        .filter(|_| !key.image.starts_with("name:"))
}

impl Baselines for Kept<'_> {
    fn knowing(&self, id: &BehaviourId, behaviour: &Behaviour) -> Vec<BaselineHit> {
        self.all
            .iter()
            .filter_map(|b| hit(b, id, behaviour))
            .collect()
    }

    fn facts(&self, baseline: &BaselineRef) -> Option<BaselineFacts> {
        let id = baseline.id.as_str();
        let exact = self
            .journalled(id, baseline.version)
            .or_else(|| self.at(id, Some(baseline.version)));
        let (b, record) = exact.or_else(|| self.at(id, None))?;
        Some(facts(&b, record))
    }

    fn of_image(&self, image: Option<&Digest>, role: &str) -> Option<BaselineFacts> {
        let image = image?.as_str();
        let found = self
            .all
            .iter()
            .find(|b| b.key().image == image && b.key().role == role)?;
        let record = self
            .journalled(found.id().as_str(), found.version())
            .and_then(|(_, record)| record);
        Some(facts(found, record))
    }
}

fn hit(b: &Baseline, id: &BehaviourId, behaviour: &Behaviour) -> Option<BaselineHit> {
    let about = |quarantined, count, first, last| BaselineHit {
        baseline: b.reference(),
        image: b.image_name().to_owned(),
        role: b.key().role.clone(),
        quarantined,
        count,
        first,
        last,
    };
    if let Some(e) = b.find(behaviour).and_then(|index| b.entry(index)) {
        return Some(about(false, e.count, e.first, e.last));
    }
    let p = b
        .pending()
        .iter()
        .find(|p| p.quarantined && p.behaviour.id() == *id)?;
    Some(about(true, p.count, p.first, p.last))
}

fn facts(b: &Baseline, record: Option<RecordId>) -> BaselineFacts {
    let coverage = b.coverage();
    BaselineFacts {
        baseline: b.reference(),
        image_digest: digest(b.key()),
        image: b.image_name().to_owned(),
        role: b.key().role.clone(),
        state: b.state().as_str().to_owned(),
        coverage: (coverage.units > 0).then(|| f64::from(coverage.permille()) / 1000.0),
        samples: coverage.units,
        expected_new_per_day: (coverage.units > 0)
            .then(|| coverage.expected_new_a_day(b.config().slot_seconds))
            .filter(|n| n.is_finite()),
        starts: b.starts(),
        hours_seen: b.hours().count(),
        hours: b.hours().words(),
        unmet: b.readiness().unmet,
        known: b.expected().map(|(_, e)| e.behaviour.clone()).collect(),
        predecessor: b.lineage().map(|l| l.predecessor.clone()),
        record,
    }
}
