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
    /// In few words, beside another one of the same act.
    name: String,
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
            name: class_name(d.class).replace('_', " "),
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
            name: format!("rule {:?}", a.rule),
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
        let leaf = |id: Option<&RecordId>| id.map(|id| id.leaf);
        list.sort_by_key(|o| {
            (
                o.first.boot,
                leaf(o.evidence.first()),
                leaf(o.evidence.last()),
            )
        });
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

/// Tells the opinions that fit, those of one act together, and whether there were any.
pub(crate) fn tell<'a>(
    lead: &str,
    list: impl Iterator<Item = &'a Opinion>,
    say: &mut Sentences,
) -> bool {
    let acts = by_act(list);
    for act in acts.iter().take(SHOWN) {
        let Some((o, others)) = act.split_first() else {
            continue;
        };
        let repeats = match o.count {
            0 | 1 => String::new(),
            n => {
                let lasted = span((o.last.wall.0 - o.first.wall.0).unsigned_abs());
                format!(", {n} times in {lasted}")
            }
        };
        let mut names: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
        names.dedup();
        let also = match names.is_empty() {
            true => String::new(),
            false => format!("; also judged as {}", names.join(", ")),
        };
        let text = o.text.trim_end_matches('.');
        say.observed(
            format!("{lead}: {text}, at {}{repeats}{also}.", when(o.first.wall)),
            act.iter().flat_map(|o| &o.evidence),
        );
    }
    if let Some(rest) = acts.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        say.observed(
            format!("{lead}: {} more.", rest.len()),
            rest.iter().flatten().flat_map(|o| &o.evidence),
        );
    }
    !acts.is_empty()
}

/// Opinions of the same act side by side, in the order of the acts: a drift before the rules that
/// fired, because it says what was done.
fn by_act<'a>(list: impl Iterator<Item = &'a Opinion>) -> Vec<Vec<&'a Opinion>> {
    let mut acts: Vec<Vec<&Opinion>> = Vec::new();
    let mut place: HashMap<&RecordId, usize> = HashMap::new();
    for opinion in list {
        let act = opinion.evidence.first();
        match act.and_then(|id| place.get(id)) {
            Some(at) => acts[*at].push(opinion),
            None => {
                place.extend(act.map(|id| (id, acts.len())));
                acts.push(vec![opinion]);
            }
        }
    }
    for act in &mut acts {
        act.sort_by_key(|o| o.class.is_none());
    }
    acts
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::NodeId;

    fn opinion(class: Option<DriftClass>, name: &str, act: Option<u64>) -> Opinion {
        let origin = NodeId::parse("n").expect("a name");
        Opinion {
            first: Stamp::default(),
            last: Stamp::default(),
            count: 1,
            class,
            risk: None,
            tags: Vec::new(),
            process: None,
            text: name.into(),
            name: name.into(),
            evidence: act
                .map(|leaf| RecordId { origin, leaf })
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn what_was_thought_of_one_act_stands_together_the_drift_first() {
        let list = [
            opinion(None, "rule a", Some(7)),
            opinion(None, "rule b", Some(9)),
            opinion(Some(DriftClass::SensitiveFileRead), "drift", Some(7)),
            opinion(None, "rule c", None),
            opinion(None, "rule d", None),
        ];
        let acts = by_act(list.iter());
        let names: Vec<Vec<&str>> = acts
            .iter()
            .map(|act| act.iter().map(|o| o.name.as_str()).collect())
            .collect();
        let want: [&[&str]; 4] = [&["drift", "rule a"], &["rule b"], &["rule c"], &["rule d"]];
        assert_eq!(names, want);
    }
}
