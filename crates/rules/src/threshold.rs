//! Thresholds: a rule that fires only when it matched so often within a time.
//!
//! An extension of ours; stock Falco files do not need it, and stock Falco passes the key over.
//!
//! Promises: time comes from the events, so replaying them gives the same verdicts; the number of
//! counters is bounded, and what was forgotten because of the bound is counted.
//!
//! Leaves out: what identifies a container, pod or lineage. The caller hands that in as bytes.

use std::collections::{BTreeMap, VecDeque};

use std::hash::Hasher as _;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::output::show_into;
use crate::{EventView, Field, FieldArg, FieldRef, RuleId};

/// So many matches within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Threshold {
    /// How many matches.
    pub count: u32,
    /// Within how many nanoseconds.
    pub within_ns: u64,
    /// What they are counted for.
    pub per: Per,
    /// The field whose different values are counted, instead of matches.
    #[serde(serialize_with = "by_name", skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Field>,
}

impl Threshold {
    /// Different values that are counted at most: each match looks through those of its window.
    pub const DISTINCT_MAX: u32 = 1_000;

    /// What of an event counts once, as far as `distinct` names a field. An event without a value
    /// counts as one value more.
    pub fn value_of<V: EventView + ?Sized>(&self, event: &V) -> Vec<u8> {
        let mut value = Vec::new();
        if let Some(field) = self.distinct {
            let arg = FieldArg::None;
            show_into(event.field(&FieldRef { field, arg }), &mut value);
        }
        value
    }
}

fn by_name<S: serde::Serializer>(field: &Option<Field>, to: S) -> Result<S::Ok, S::Error> {
    field.map(Field::name).serialize(to)
}

/// What matches are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One count a container instance.
    Container,
    /// One count a pod.
    Pod,
    /// One count a tree of processes, from its entry point.
    Lineage,
    /// One count a process.
    Process,
    /// One count for the node.
    Node,
}

impl Per {
    pub(crate) const NAMES: &'static [&'static str] =
        &["container", "pod", "lineage", "process", "node"];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "container" => Self::Container,
            "pod" => Self::Pod,
            "lineage" => Self::Lineage,
            "process" => Self::Process,
            "node" => Self::Node,
            _ => return None,
        })
    }
}

/// What a match means under a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is the one that reaches the count: alert. The count starts again.
    Reached,
    /// It is counted: so many so far within the time.
    Below(u32),
}

/// The running counts of all thresholds.
#[derive(Debug)]
pub struct ThresholdCounts {
    counters: FxHashMap<(RuleId, Box<[u8]>), Counter>,
    /// Oldest counter first, by when it was last used.
    by_use: BTreeMap<u64, (RuleId, Box<[u8]>)>,
    uses: u64,
    max_counters: usize,
    forgotten: u64,
}

#[derive(Debug)]
struct Counter {
    /// When, and for `distinct` a digest of what.
    matches: VecDeque<(u64, u64)>,
    used: u64,
}

/// SipHash, so that a container cannot choose values that count as one.
fn digest(value: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}

impl ThresholdCounts {
    /// Counts for at most so many (rule, key) pairs at once.
    pub fn new(max_counters: usize) -> Self {
        Self {
            counters: FxHashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
            max_counters: max_counters.max(1),
            forgotten: 0,
        }
    }

    /// Counts one match of a rule at a time, for what `key` identifies. `value` is what
    /// [`Threshold::value_of`] says of the event.
    pub fn count(
        &mut self,
        rule: RuleId,
        threshold: Threshold,
        key: &[u8],
        value: &[u8],
        time_ns: u64,
    ) -> Counted {
        let id = (rule, Box::<[u8]>::from(key));
        self.uses += 1;
        let used = self.uses;
        let counter = self.counters.entry(id.clone()).or_insert_with(|| Counter {
            matches: VecDeque::new(),
            used,
        });
        self.by_use.remove(&counter.used);
        counter.used = used;
        self.by_use.insert(used, id.clone());
        let what = threshold.distinct.map_or(0, |_| digest(value));
        if threshold.distinct.is_some() {
            counter.matches.retain(|(_, other)| *other != what);
        }
        counter.matches.push_back((time_ns, what));
        let start = time_ns.saturating_sub(threshold.within_ns);
        while counter.matches.front().is_some_and(|(t, _)| *t < start) {
            counter.matches.pop_front();
        }
        let seen = counter.matches.len() as u32;
        if seen >= threshold.count {
            self.counters.remove(&id);
            self.by_use.remove(&used);
            return Counted::Reached;
        }
        self.forget_oldest();
        Counted::Below(seen)
    }

    fn forget_oldest(&mut self) {
        while self.counters.len() > self.max_counters {
            let Some((_, id)) = self.by_use.pop_first() else {
                return;
            };
            self.counters.remove(&id);
            self.forgotten += 1;
        }
    }

    /// How many counters were dropped because of the bound.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn three_in_ten_seconds() -> Threshold {
        Threshold {
            count: 3,
            within_ns: 10 * S,
            per: Per::Container,
            distinct: None,
        }
    }

    fn count(counts: &mut ThresholdCounts, key: &[u8], at: u64) -> Counted {
        counts.count(RuleId(0), three_in_ten_seconds(), key, b"", at)
    }

    #[test]
    fn the_third_within_ten_seconds_fires_and_the_count_starts_again() {
        let mut counts = ThresholdCounts::new(10);
        assert_eq!(count(&mut counts, b"a", S), Counted::Below(1));
        assert_eq!(count(&mut counts, b"a", 2 * S), Counted::Below(2));
        assert_eq!(count(&mut counts, b"b", 2 * S), Counted::Below(1));
        assert_eq!(count(&mut counts, b"a", 3 * S), Counted::Reached);
        assert_eq!(count(&mut counts, b"a", 4 * S), Counted::Below(1));
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut counts = ThresholdCounts::new(10);
        count(&mut counts, b"a", S);
        count(&mut counts, b"a", 2 * S);
        assert_eq!(count(&mut counts, b"a", 13 * S), Counted::Below(1));
    }

    #[test]
    fn different_values_are_counted_once_each_within_the_window() {
        let mut counts = ThresholdCounts::new(10);
        let t = Threshold {
            distinct: Field::from_name("fd.sport"),
            ..three_in_ten_seconds()
        };
        let mut seen = |value: &str, at| counts.count(RuleId(0), t, b"a", value.as_bytes(), at);
        assert_eq!(seen("80", S), Counted::Below(1));
        assert_eq!(seen("80", 2 * S), Counted::Below(1));
        assert_eq!(seen("81", 3 * S), Counted::Below(2));
        assert_eq!(seen("81", 4 * S), Counted::Below(2));
        // the first one is as old as its last match
        assert_eq!(seen("82", 13 * S), Counted::Below(2));
        assert_eq!(seen("83", 13 * S), Counted::Reached);
    }

    #[test]
    fn counters_are_bounded_and_the_loss_is_counted() {
        let mut counts = ThresholdCounts::new(2);
        for key in 0..5u8 {
            count(&mut counts, &[key], S);
        }
        assert_eq!(counts.counters.len(), 2);
        assert_eq!(counts.forgotten(), 3);
    }
}
