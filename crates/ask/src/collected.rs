//! Equal acts of one program, told once with their count; groups of acts, worst first.
//!
//! Promise: memory and sentences are bounded, and what did not fit is said.

use crate::About;
use crate::acts::{Acts, is_set_up};
use crate::completeness::Look;
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::tree::chain;
use plimsoll_api::describe::when;
use plimsoll_model::{Observation, Origin, RecordId, Stamp, Text};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Distinct acts kept apart.
pub(crate) const ACTS_MAX: usize = 20_000;
/// Distinct acts of one group that are listed one by one.
const SHOWN: usize = 15;

/// Equal acts of one program.
pub(crate) struct Act {
    pub(crate) count: u64,
    pub(crate) first: Stamp,
    pub(crate) last: Stamp,
    pub(crate) who: String,
    pub(crate) evidence: Vec<RecordId>,
}

/// Acts by group, by what was done, and by program.
pub(crate) struct Collected<G> {
    acts: HashMap<(G, String, Text), Act>,
    dropped: u64,
}

impl<G: Copy + Ord + Hash> Collected<G> {
    pub(crate) fn new() -> Self {
        Self {
            acts: HashMap::new(),
            dropped: 0,
        }
    }

    pub(crate) fn add(&mut self, group: G, what: String, id: RecordId, o: &Observation) {
        let key = (group, what, o.program());
        if self.acts.len() >= ACTS_MAX && !self.acts.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let act = self.acts.entry(key).or_insert_with(|| Act {
            count: 0,
            first: o.at,
            last: o.at,
            who: chain(&o.lineage, o.event.process.key),
            evidence: Vec::new(),
        });
        act.count += o.count.max(1);
        act.first = act.first.min(o.at);
        act.last = act.last.max(o.at);
        if act.evidence.len() < EVIDENCE_MAX {
            act.evidence.push(id);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// Whether anything was done of this group.
    pub(crate) fn has(&self, group: G) -> bool {
        self.acts.keys().any(|(g, ..)| *g == group)
    }

    /// Records of one group, the first acts first.
    pub(crate) fn evidence(&self, group: G) -> Vec<RecordId> {
        let ours = self.acts.iter().filter(|((g, ..), _)| *g == group);
        let mut acts: Vec<&Act> = ours.map(|(_, act)| act).collect();
        acts.sort_by_key(|a| (a.first.boot, a.evidence.first().map(|id| id.leaf)));
        let all = acts.iter().flat_map(|a| &a.evidence);
        all.take(EVIDENCE_MAX).cloned().collect()
    }

    /// A sentence for each: `WORDS: what, by whom at when, 3 times until …`; `more` is the command
    /// that lists what did not fit.
    pub(crate) fn say(self, words: impl Fn(G) -> &'static str, more: &str, say: &mut Sentences) {
        let mut groups: BTreeMap<G, Vec<(String, Act)>> = BTreeMap::new();
        for ((group, what, _), act) in self.acts {
            groups.entry(group).or_default().push((what, act));
        }
        for (group, mut list) in groups {
            list.sort_by(|(a_what, a), (b_what, b)| {
                (a.first.boot, a_what).cmp(&(b.first.boot, b_what))
            });
            let rest = list.split_off(list.len().min(SHOWN));
            for (what, act) in &list {
                say.observed(sentence(words(group), what, act), &act.evidence);
            }
            if !rest.is_empty() {
                let examples: Vec<&str> = rest.iter().take(3).map(|(w, _)| w.as_str()).collect();
                say.observed(
                    format!(
                        "{}: {} more, such as {}.",
                        words(group),
                        rest.len(),
                        examples.join(", ")
                    ),
                    rest.iter().flat_map(|(_, act)| &act.evidence),
                );
            }
        }
        if self.dropped > 0 {
            let text = format!("{} not listed: `{more}` has them.", count_are(self.dropped));
            say.observed(text, []);
        }
    }
}

fn count_are(n: u64) -> String {
    let verb = if n == 1 { "is" } else { "are" };
    format!("{} {verb}", count(n, "more act"))
}

fn sentence(words: &str, what: &str, act: &Act) -> String {
    let (at, last) = (when(act.first.wall), when(act.last.wall));
    let repeats = match act.count {
        0 | 1 => String::new(),
        n if last == at => format!(", {}", times(n)),
        n => format!(", {} until {last}", times(n)),
    };
    format!("{words}: {what}, by {} at {at}{repeats}.", act.who)
}

/// ` (in the container's writable layer)`; nothing where it is not known.
pub(crate) fn place(origin: Origin) -> String {
    match origin {
        Origin::Unknown => String::new(),
        known => format!(" ({})", plimsoll_api::describe::place(known)),
    }
}

/// An act that did not have its effect; a non-blocking connection begins with `EINPROGRESS`.
pub(crate) fn failed(result: i32) -> bool {
    result < 0 && result != -115
}

impl About<'_> {
    /// The same as [`About::observations`], without what the runtime did to set the container up; how
    /// much that was, of the sorts that were looked at.
    pub(crate) fn workload(
        &self,
        looked: Acts,
        say: &mut Sentences,
        each: impl FnMut(RecordId, Observation),
    ) -> Result<u64, crate::AskError> {
        self.workload_at(looked, &Look::at(self), say, each)
    }

    /// The same, with what is read in any case.
    pub(crate) fn workload_at(
        &self,
        looked: Acts,
        look: &Look<'_>,
        say: &mut Sentences,
        mut each: impl FnMut(RecordId, Observation),
    ) -> Result<u64, crate::AskError> {
        let mut set_up = 0;
        self.observations_at(looked, look, say.tally(), |id, o| match is_set_up(&o) {
            true => set_up += 1,
            false => each(id, o),
        })?;
        Ok(set_up)
    }
}
