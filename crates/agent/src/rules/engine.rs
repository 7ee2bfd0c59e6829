//! The rules in force, on the pipeline's thread: an observation in, the rules that fire out.
//!
//! Promises: a verdict is a function of the observation as stored, its container, the names that
//! were resolved before it, the set in force and the matches that thresholds have counted since it
//! came into force; time comes from the events. Threshold counters are bounded ([`COUNTERS_MAX`]).
//!
//! Left out: reading and reloading files, bursts and journalling.

use super::files::Loaded;
use super::key::{Again, Entries, RawPath, family_of, is_by_argument};
use super::kinds;
use super::view::{Surroundings, View};
use plimsoll_baseline::Flag;
use plimsoll_model::{
    Alert, AlertId, AlertSource, BootNs, Container, EventKind as Seen, Observation, Priority, Risk,
    Text,
};
use plimsoll_rules::{
    Counted, EventKind, OutputValue, Per, RuleId, Scratch, Source, ThresholdCounts, Tri,
};
use plimsoll_sensor::api::Known;
use std::sync::Arc;

/// Counters of thresholds at a time; the longest unused is forgotten first, and counted.
pub const COUNTERS_MAX: usize = 16_384;
/// Rules of this priority and more urgent ones keep what they fire on from being learned as normal.
pub const FLAGS_FROM: plimsoll_rules::Priority = plimsoll_rules::Priority::Warning;
/// Longest output and field of an alert, bytes.
const TEXT_MAX: usize = 16 << 10;

/// The rules in force.
#[derive(Debug)]
pub struct Engine {
    loaded: Option<Arc<Loaded>>,
    scratch: Scratch,
    counts: ThresholdCounts,
    /// Counters forgotten by sets that were replaced.
    forgotten: u64,
    matches: u64,
}

/// Which repeats of a behaviour a rule could fire on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// None: they are left to the dictionary.
    Never,
    /// An opened file, where the program's own path goes up (`../`).
    Upward,
    /// Any.
    Each,
}

/// A rule that fired, and the name of the event by which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The rule.
    pub rule: RuleId,
    /// What `evt.type` was.
    pub kind: EventKind,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            loaded: None,
            scratch: Scratch::default(),
            counts: ThresholdCounts::new(COUNTERS_MAX),
            forgotten: 0,
            matches: 0,
        }
    }
}

impl Engine {
    /// The set in force.
    pub fn loaded(&self) -> Option<&Arc<Loaded>> {
        self.loaded.as_ref()
    }

    /// Puts another set in force; thresholds count anew.
    pub fn replace(&mut self, loaded: Arc<Loaded>) {
        self.forgotten += self.counts.forgotten();
        self.counts = ThresholdCounts::new(COUNTERS_MAX);
        self.loaded = Some(loaded);
    }

    /// Matches so far, those below a threshold included.
    pub fn matches(&self) -> u64 {
        self.matches
    }

    /// Threshold counters that were dropped because of the bound.
    pub fn forgotten(&self) -> u64 {
        self.forgotten + self.counts.forgotten()
    }

    /// The rules that fire on an observation, in the order of the set; each once.
    pub fn judge(
        &mut self,
        obs: &Observation,
        container: Option<&Container>,
        around: Surroundings<'_>,
    ) -> Vec<Fired> {
        let Some(loaded) = &self.loaded else {
            return Vec::new();
        };
        let kinds = loaded.kinds(kinds::family(&obs.event));
        let Some((first, others)) = kinds.split_first() else {
            return Vec::new();
        };
        let view = View::new(obs, container, around, *first);
        let mut fired: Vec<Fired> = Vec::new();
        for kind in std::iter::once(first).chain(others) {
            view.set_kind(*kind);
            for rule in loaded.set.judge(Source::Syscall, &view, &mut self.scratch) {
                if fired.iter().all(|f| f.rule != *rule) {
                    fired.push(Fired {
                        rule: *rule,
                        kind: *kind,
                    });
                }
            }
        }
        if fired.is_empty() {
            return fired;
        }
        self.matches += fired.len() as u64;
        let counts = &mut self.counts;
        fired.retain(|f| {
            let Some(threshold) = loaded.set.rule(f.rule).threshold else {
                return true;
            };
            let key = counted_for(threshold.per, obs, container);
            view.set_kind(f.kind);
            let value = threshold.value_of(&view);
            let at = obs.event.boot.0;
            counts.count(f.rule, threshold, &key, &value, at) == Counted::Reached
        });
        fired.sort_by_key(|f| f.rule);
        fired
    }

    /// What of the rules that fired keeps a behaviour from being learned: the most urgent of those
    /// from [`FLAGS_FROM`] on.
    pub fn flag(&self, fired: &[Fired]) -> Option<Flag<'_>> {
        let set = &self.loaded.as_ref()?.set;
        let rules = fired.iter().map(|f| set.rule(f.rule));
        let flagging = rules.filter(|r| r.priority <= FLAGS_FROM);
        flagging.min_by_key(|r| r.priority).map(|r| Flag {
            rule: &r.name,
            risk: match r.priority {
                plimsoll_rules::Priority::Error => Risk::High,
                p if p < plimsoll_rules::Priority::Error => Risk::Critical,
                _ => Risk::Medium,
            },
        })
    }

    /// Which repeats of what was observed could make a rule true, as far as the key tells by which
    /// the kernel's dictionary knows repeats.
    pub fn repeats(
        &mut self,
        obs: &Observation,
        container: Option<&Container>,
        around: Surroundings<'_>,
    ) -> Repeats {
        let Some(loaded) = &self.loaded else {
            return Repeats::Never;
        };
        let kinds = loaded.kinds(kinds::family(&obs.event));
        let Some(first) = kinds.first() else {
            return Repeats::Never;
        };
        let view = View::new(obs, container, around, *first);
        let scratch = &mut self.scratch;
        let mut could = |raw| {
            kinds.iter().any(|kind| {
                view.set_kind(*kind);
                let again = Again { view: &view, raw };
                loaded.set.could_match(Source::Syscall, &again, scratch) != Tri::False
            })
        };
        let opened = matches!(&obs.event.kind, Seen::File(f) if !is_by_argument(f.op));
        match opened {
            false if could(RawPath::AsSeen) => Repeats::Each,
            true if could(RawPath::Straight) => Repeats::Each,
            true if could(RawPath::Unknown) => Repeats::Upward,
            _ => Repeats::Never,
        }
    }

    /// Whether what an entry of a dictionary set stands for could make a rule true: then the
    /// dictionary must not answer for it.
    pub fn could_fire(&mut self, known: &Known) -> bool {
        let Some(loaded) = &self.loaded else {
            return false;
        };
        let scratch = &mut self.scratch;
        let kinds = loaded.kinds(family_of(&known.object)).iter();
        kinds.into_iter().any(|kind| {
            let entries = Entries::new(known, *kind);
            // fast first; only what begins in some way needs the slow question
            loaded.set.could_match(Source::Syscall, &entries, scratch) != Tri::False
                && loaded.set.could_match_some(Source::Syscall, &entries) != Tri::False
        })
    }

    /// The alert of a rule that fired.
    pub fn alert(
        &self,
        fired: Fired,
        id: AlertId,
        obs: &Observation,
        container: Option<&Container>,
        around: Surroundings<'_>,
    ) -> Option<Alert> {
        let loaded = self.loaded.as_ref()?;
        let rule = loaded.set.rule(fired.rule);
        let view = View::new(obs, container, around, fired.kind);
        view.for_output();
        let rendered = loaded.set.render(fired.rule, &view);
        let mut fields: Vec<(String, Text)> = rendered
            .output_fields
            .into_iter()
            .map(|(name, value)| {
                let text = match name.as_str() {
                    // Falco's JSON has nanoseconds here
                    "evt.time" => obs.at.wall.0.to_string(),
                    _ => shown(value),
                };
                (name, bounded(text).into())
            })
            .collect();
        fields.push(("plimsoll.rule_set".to_owned(), loaded.id.as_str().into()));
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Alert {
            id,
            at: obs.at,
            rule: rule.name.clone(),
            priority: priority(rule.priority),
            output: bounded(rendered.output).into(),
            source: AlertSource::Rule(rule.name.clone()),
            instance: obs.instance.clone(),
            tags: rule.tags.iter().cloned().collect(),
            fields,
            evidence: Vec::new(),
            count: obs.count.max(1),
            last: obs.at,
            handed_boot: BootNs(0),
            prevented: false,
        })
    }
}

/// A missing value is an empty text: Falco's JSON has `null` for it.
fn shown(value: OutputValue) -> String {
    match value {
        OutputValue::Absent => String::new(),
        OutputValue::Bool(b) => b.to_string(),
        OutputValue::Int(n) => n.to_string(),
        OutputValue::UInt(n) => n.to_string(),
        OutputValue::Double(n) => n.to_string(),
        OutputValue::Text(t) => t,
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|i| text.is_char_boundary(*i));
        text.truncate(end.unwrap_or(0));
    }
    text
}

fn priority(of_rule: plimsoll_rules::Priority) -> Priority {
    use plimsoll_rules::Priority as P;
    match of_rule {
        P::Emergency => Priority::Emergency,
        P::Alert => Priority::Alert,
        P::Critical => Priority::Critical,
        P::Error => Priority::Error,
        P::Warning => Priority::Warning,
        P::Notice => Priority::Notice,
        P::Informational => Priority::Informational,
        P::Debug => Priority::Debug,
    }
}

/// What identifies whom a threshold counts for.
fn counted_for(per: Per, obs: &Observation, container: Option<&Container>) -> Vec<u8> {
    let instance = || match &obs.instance {
        Some(i) => format!("{}@{}", i.id, i.start.0),
        None => format!("cgroup {}", obs.event.cgroup_id),
    };
    let process = |key: plimsoll_model::ProcessKey| format!("{}@{}", key.tgid, key.start.0);
    let text = match per {
        Per::Node => String::new(),
        Per::Container => instance(),
        Per::Pod => match container.and_then(|c| Some((c.namespace.as_ref()?, c.pod.as_ref()?))) {
            Some((namespace, pod)) => format!("{namespace}/{pod}"),
            None => instance(),
        },
        Per::Lineage => match obs.lineage.last() {
            Some(entry) => process(entry.key),
            None => process(obs.event.process.key),
        },
        Per::Process => process(obs.event.process.key),
    };
    text.into_bytes()
}
