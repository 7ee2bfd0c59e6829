//! Drifts and alerts of the container in the interval, each once.

use crate::records::Filter;
use crate::say::Sentences;
use crate::{About, AskError};
use plimsoll_api::describe::{span, when};
use plimsoll_api::types::class_name;
use plimsoll_model::{
    Alert, AlertSource, Drift, DriftClass, ProcessKey, Record, RecordId, RecordKind, Risk, Stamp,
};
use std::collections::HashMap;

/// Opinions kept.
const OPINIONS_MAX: usize = 1000;
/// Opinions told one by one.
const SHOWN: usize = 12;

/// What was thought of an act.
pub(crate) struct Opinion {
    pub(crate) first: Stamp,
    pub(crate) last: Stamp,
    pub(crate) count: u64,
    /// `None`: a rule fired.
    pub(crate) class: Option<DriftClass>,
    pub(crate) risk: Option<Risk>,
    /// ATT&CK techniques and other tags.
    pub(crate) tags: Vec<String>,
    /// The process that acted, where the record names it.
    pub(crate) process: Option<ProcessKey>,
    pub(crate) text: String,
    pub(crate) evidence: Vec<RecordId>,
}

impl Opinion {
    fn of_drift(id: RecordId, d: &Drift) -> Self {
        Self {
            first: d.first,
            last: d.last,
            count: d.count,
            class: Some(d.class),
            risk: Some(d.risk),
            tags: d.techniques.clone(),
            process: d.lineage.first().map(|a| a.key),
            text: format!(
                "{} (risk {}): {}",
                class_name(d.class).replace('_', " "),
                d.risk.as_str(),
                crate::baseline::behaviour(&d.behaviour)
            ),
            evidence: d.observation.iter().cloned().chain([id]).collect(),
        }
    }

    fn of_rule(id: RecordId, a: &Alert) -> Self {
        Self {
            first: a.at,
            last: a.last.max(a.at),
            count: a.count,
            class: None,
            risk: None,
            tags: a.tags.clone(),
            process: None,
            text: format!("rule {:?} fired: {}", a.rule, a.output),
            evidence: a.evidence.iter().cloned().chain([id]).collect(),
        }
    }

    /// Whether it is tagged with one of these techniques, or with one below it (`T1552.001`).
    pub(crate) fn has(&self, techniques: &[&str]) -> bool {
        self.tags.iter().any(|tag| {
            techniques.iter().any(|t| {
                tag.strip_prefix(t)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        })
    }
}

impl About<'_> {
    /// Drifts and alerts of the instance that touch the interval, by their first act. An alert
    /// about a drift and the drift itself are one.
    pub(crate) fn opinions(&self, say: &mut Sentences) -> Result<Vec<Opinion>, AskError> {
        let Some(instance) = &self.case.instance else {
            return Ok(Vec::new());
        };
        let mut found: HashMap<String, Opinion> = HashMap::new();
        let filter = Filter::of(&[RecordKind::Drift, RecordKind::Alert]).about(instance);
        let interval = self.interval;
        self.visit(&filter, say.tally(), &mut |id, _, record| {
            let (key, opinion) = match record {
                Record::Drift(d) if d.instance == *instance => {
                    (d.behaviour.id().to_string(), Opinion::of_drift(id, &d))
                }
                Record::Alert(a) if a.instance.as_ref() == Some(instance) => match &a.source {
                    AlertSource::Drift(d) => {
                        (d.behaviour.id().to_string(), Opinion::of_drift(id, d))
                    }
                    AlertSource::Rule(_) => (a.id.to_string(), Opinion::of_rule(id, &a)),
                },
                _ => return,
            };
            if !interval.touches(opinion.first.wall, opinion.last.wall) {
                return;
            }
            let room = found.len() < OPINIONS_MAX;
            match found.get_mut(&key) {
                Some(known) => known.merge(opinion),
                None if room => drop(found.insert(key, opinion)),
                None => {}
            }
        })?;
        if found.len() >= OPINIONS_MAX {
            let limit = format!("Only the first {OPINIONS_MAX} drifts and alerts were looked at.");
            say.tally().limits.push(limit);
        }
        let mut list: Vec<Opinion> = found.into_values().collect();
        list.sort_by_key(|o| (o.first.boot, o.evidence.first().map(|id| id.leaf)));
        Ok(list)
    }
}

impl Opinion {
    fn merge(&mut self, other: Opinion) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.count = self.count.max(other.count);
        for id in other.evidence {
            if !self.evidence.contains(&id) && self.evidence.len() < crate::say::EVIDENCE_MAX {
                self.evidence.push(id);
            }
        }
    }
}

/// Tells the opinions that fit, and whether there were any.
pub(crate) fn tell<'a>(
    lead: &str,
    list: impl Iterator<Item = &'a Opinion>,
    say: &mut Sentences,
) -> bool {
    let list: Vec<&Opinion> = list.collect();
    for o in list.iter().take(SHOWN) {
        let repeats = match o.count {
            0 | 1 => String::new(),
            n => {
                let lasted = span((o.last.wall.0 - o.first.wall.0).unsigned_abs());
                format!(", {n} times in {lasted}")
            }
        };
        let text = o.text.trim_end_matches('.');
        say.observed(
            format!("{lead}: {text}, at {}{repeats}.", when(o.first.wall)),
            &o.evidence,
        );
    }
    if let Some(rest) = list.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        say.observed(
            format!("{lead}: {} more.", rest.len()),
            rest.iter().flat_map(|o| &o.evidence),
        );
    }
    !list.is_empty()
}
