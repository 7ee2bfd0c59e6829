//! Judging: is this known, to be learned, or a step below the line?
//!
//! Promises: pure; a hash lookup for what is known; a drift is frozen with the id, version, state
//! and coverage of the baseline that was in force and with the nearest behaviours that it does
//! expect, so that it reads the same when that baseline has moved on.

use crate::baseline::{Baseline, Expected, State};
use crate::risk::{Class, Context, classify};
use plimsoll_model::{
    Behaviour, BehaviourKind, Container, Drift, DriftClass, NearBehaviour, Observation, Origin,
};

/// Expected behaviours named on a drift.
pub const MAX_NEAREST: usize = 3;

/// What an observation is, seen from a baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Numbers of the expected behaviours that cover it.
    pub known: Vec<u32>,
    /// Positions in the judged slice of ordinary new behaviour that may be learned (`judge` only).
    pub learnable: Vec<usize>,
    /// Numbers of the behaviours that were learned (`Baseline::observe` only).
    pub learned: Vec<u32>,
    /// Steps below the line; quarantined ones while learning.
    pub drifts: Vec<Drift>,
    /// New behaviours that the full baseline could not learn.
    pub saturated: u32,
    /// Behaviours kept apart because a rule flagged them, now or before (`Baseline::observe` only).
    pub flagged: u32,
}

impl Verdict {
    /// Everything was known already.
    pub fn is_known(&self) -> bool {
        let learned = self.learnable.is_empty() && self.learned.is_empty();
        learned && self.drifts.is_empty() && self.flagged == 0
    }
}

/// Judges the behaviours of an observation. No baseline is judged as an empty one that learns:
/// the first event of an image's first container can already be an attack.
pub fn judge(
    obs: &Observation,
    container: &Container,
    baseline: Option<&Baseline>,
    behaviours: &[Behaviour],
) -> Verdict {
    let mut verdict = Verdict::default();
    for (at, b) in behaviours.iter().enumerate() {
        let known = baseline.and_then(|base| base.find(b).filter(|_| !base.is_flagged(b)));
        // what is known is known, unless its arguments changed while the kernel read them
        if let (Some(i), false) = (known, obs.event.tampered) {
            verdict.known.push(i);
            continue;
        }
        let context = Context {
            container,
            baseline,
        };
        let class = classify(obs, b, &context);
        if obs.found_since().is_some() && says_nothing(&class, b, &context) {
            continue;
        }
        // an exec and its arguments are one act: what is kept apart is kept apart whole
        let held = class.quarantine || !verdict.drifts.is_empty();
        if context.learning() && !held {
            match known {
                Some(i) => verdict.known.push(i),
                None => verdict.learnable.push(at),
            }
        } else {
            // one is the rule, and they are large
            verdict.drifts.reserve_exact(1);
            verdict.drifts.push(freeze(obs, &context, b, class));
        }
    }
    verdict
}

/// Of a program that was found running nobody saw who executed it and with what: its parent is the one
/// that it has now, its arguments are what it has made of them. That a known program has another of these
/// is neither a step nor a thing to learn, nor is a file of which the layer cannot be told.
fn says_nothing(class: &Class, b: &Behaviour, context: &Context<'_>) -> bool {
    let uncertain = b.kind == BehaviourKind::Arguments
        || class.class == DriftClass::NewParentage
        || (b.origin == Origin::Unknown && context.learning());
    uncertain && !class.quarantine
}

/// The drift as it will be kept.
pub(crate) fn freeze(
    obs: &Observation,
    context: &Context<'_>,
    b: &Behaviour,
    class: Class,
) -> Drift {
    let baseline = context.baseline;
    Drift {
        behaviour: b.clone(),
        class: class.class,
        risk: class.risk,
        reason: class.reason,
        baseline: baseline.map(Baseline::reference),
        baseline_state: baseline
            .map_or(State::Learning, Baseline::state)
            .as_str()
            .to_owned(),
        coverage_permille: baseline.map_or(0, |x| x.coverage().permille()),
        nearest: baseline.map_or_else(Vec::new, |x| nearest(x, b)),
        instance: context.container.instance.clone(),
        lineage: obs.lineage.clone(),
        observation: None,
        first: obs.at,
        last: obs.at,
        count: obs.count.max(1),
        techniques: class.techniques.iter().map(|t| (*t).to_owned()).collect(),
        quarantined: context.learning(),
    }
}

/// The nearest expected behaviours, nearest first, each with what is different.
pub fn nearest(baseline: &Baseline, b: &Behaviour) -> Vec<NearBehaviour> {
    let near = baseline.index.near(b).into_iter();
    let near = near.filter_map(|i| baseline.entry(i));
    let mut ranked: Vec<(u32, &Expected)> = near.map(|e| (distance(&e.behaviour, b), e)).collect();
    let nearer = |(x, a): &(u32, &Expected), (y, b): &(u32, &Expected)| {
        x.cmp(y).then_with(|| a.behaviour.cmp(&b.behaviour))
    };
    // a flood finds many near ones, and three are wanted
    if ranked.len() > MAX_NEAREST {
        ranked.select_nth_unstable_by(MAX_NEAREST, nearer);
        ranked.truncate(MAX_NEAREST);
    }
    ranked.sort_by(nearer);
    ranked
        .into_iter()
        .map(|(_, e)| NearBehaviour {
            behaviour: e.behaviour.clone(),
            difference: difference(&e.behaviour, b),
        })
        .collect()
}

/// Smaller is nearer. Which of actor, act and object differ weighs more than how much.
fn distance(known: &Behaviour, b: &Behaviour) -> u32 {
    let mut d = 0;
    if known.object != b.object {
        d += 1000 - 10 * shared_prefix(known.object.as_bytes(), b.object.as_bytes());
    }
    d += 600 * u32::from(known.program != b.program);
    d += 400 * u32::from(known.operation != b.operation);
    d += 200 * u32::from(known.script != b.script);
    d += 100 * u32::from(known.origin != b.origin);
    d += 50 * u32::from(known.entry != b.entry);
    d + 50 * u32::from(known.uid != b.uid)
}

fn shared_prefix(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).take(60).take_while(|(x, y)| x == y).count() as u32
}

/// What is different from an expected behaviour, in words.
fn difference(known: &Behaviour, b: &Behaviour) -> String {
    let mut same = Vec::new();
    let mut other = Vec::new();
    let actor = if b.kind == BehaviourKind::Exec {
        "parent program"
    } else {
        "program"
    };
    let mut compare = |equal: bool, what: String| match equal {
        true => same.push(what),
        false => other.push(what),
    };
    compare(known.program == b.program, actor.to_owned());
    if known.script != b.script {
        compare(false, "script".to_owned());
    }
    let object = object_word(b.kind);
    if known.object == b.object {
        compare(true, object.to_owned());
    } else {
        compare(false, format!("{object} ({})", known.object));
    }
    if known.operation != b.operation {
        compare(false, format!("operation ({})", known.operation));
    }
    if known.origin != b.origin {
        compare(false, format!("storage ({})", known.origin.as_str()));
    }
    if known.uid != b.uid {
        compare(false, format!("user id ({})", known.uid));
    }
    if known.entry != b.entry {
        compare(false, format!("way in ({})", known.entry.as_str()));
    }
    match (same.is_empty(), other.is_empty()) {
        (_, true) => "the same".to_owned(),
        (true, false) => format!("other {}", other.join(", ")),
        (false, false) => format!("same {}, other {}", same.join(", "), other.join(", ")),
    }
}

fn object_word(kind: BehaviourKind) -> &'static str {
    match kind {
        BehaviourKind::Exec => "program started",
        BehaviourKind::File => "file",
        BehaviourKind::Library => "library",
        BehaviourKind::Connect | BehaviourKind::Accept | BehaviourKind::Datagram => "peer",
        BehaviourKind::Listen | BehaviourKind::Bind => "port",
        BehaviourKind::Dns => "name",
        BehaviourKind::Arguments => "arguments",
        BehaviourKind::Syscall | BehaviourKind::Rare => "call",
        BehaviourKind::Socket
        | BehaviourKind::Dup
        | BehaviourKind::Namespace
        | BehaviourKind::Mount
        | BehaviourKind::Ptrace
        | BehaviourKind::Module
        | BehaviourKind::Bpf
        | BehaviourKind::Credentials
        | BehaviourKind::Memfd
        | BehaviourKind::Cgroup
        | BehaviourKind::Signal => "object",
    }
}
