//! Two baselines beside each other: what differs, and one made of both.
//!
//! Promises: [`merge`] is commutative in what is expected; it never makes a baseline look better
//! covered than its parts were measured; [`diff`] is ordered and complete.

use crate::baseline::{Baseline, Content, Expected, Key, Pending, State};
use plimsoll_model::{Behaviour, BehaviourKind, Stamp};
use std::collections::BTreeMap;

/// What differs between two baselines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Expected by the second only.
    pub added: Vec<Behaviour>,
    /// Expected by the first only.
    pub removed: Vec<Behaviour>,
    /// Expected by the second because it was inherited, but not yet seen in it.
    pub unseen: Vec<Behaviour>,
    /// How many both expect.
    pub common: u64,
}

impl Diff {
    /// How many were added and removed in each dimension.
    pub fn by_kind(&self) -> Vec<(BehaviourKind, u64, u64)> {
        let mut kinds: BTreeMap<BehaviourKind, (u64, u64)> = BTreeMap::new();
        for b in &self.added {
            kinds.entry(b.kind).or_default().0 += 1;
        }
        for b in &self.removed {
            kinds.entry(b.kind).or_default().1 += 1;
        }
        kinds.into_iter().map(|(k, (a, r))| (k, a, r)).collect()
    }
}

/// What changes from `a` to `b`. What a pattern of the other side covers is no difference.
pub fn diff(a: &Baseline, b: &Baseline) -> Diff {
    let only = |x: &Baseline, y: &Baseline| {
        let mut list: Vec<Behaviour> = x
            .expected()
            .filter(|(_, e)| y.find(&e.behaviour).is_none())
            .map(|(_, e)| e.behaviour.clone())
            .collect();
        list.sort();
        list
    };
    let unseen = b
        .expected()
        .filter(|(_, e)| e.inherited && e.incidence == 0);
    let mut unseen: Vec<Behaviour> = unseen.map(|(_, e)| e.behaviour.clone()).collect();
    unseen.sort();
    let removed = only(a, b);
    Diff {
        added: only(b, a),
        common: a.expected().count() as u64 - removed.len() as u64,
        removed,
        unseen,
    }
}

/// Two baselines cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They are about different images or roles.
    #[error("merge baselines: {} ({}) and {} ({}) are about different images or roles", a.image, a.role, b.image, b.role)]
    DifferentKeys {
        /// First.
        a: Box<Key>,
        /// Second.
        b: Box<Key>,
    },
    /// Together they hold too many.
    #[error("merge baselines: together they hold {found} behaviours, at most {max} are allowed")]
    TooMany {
        /// How many.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}

/// One baseline out of two of the same image and role (a profile from CI and production).
///
/// Units add up when both count slots of the same length; otherwise the smaller sample's behaviours
/// are expected, but count as not yet seen. The result is ready only when both are, and learns on
/// otherwise.
///
/// # Errors
/// When the keys differ, or the bound would be exceeded.
pub fn merge(a: &Baseline, b: &Baseline) -> Result<Baseline, MergeError> {
    let (x, y) = (&a.content, &b.content);
    if x.key != y.key {
        let keys = (Box::new(x.key.clone()), Box::new(y.key.clone()));
        return Err(MergeError::DifferentKeys {
            a: keys.0,
            b: keys.1,
        });
    }
    // the larger sample leads; ties are broken by content, so that the order of arguments is not seen
    let rank = |c: &Content| (c.units, c.config.slot_seconds, c.version, c.created.wall);
    let (lead, other) = if rank(x) >= rank(y) { (x, y) } else { (y, x) };
    let comparable = lead.config.slot_seconds == other.config.slot_seconds;
    let entries = union(lead, other, comparable);
    let max = lead.config.max_behaviours as usize;
    if entries.len() > max {
        let found = entries.len();
        return Err(MergeError::TooMany { found, max });
    }
    Ok(Baseline::from_content(join(
        lead, other, comparable, entries,
    )))
}

fn union(lead: &Content, other: &Content, comparable: bool) -> Vec<Option<Expected>> {
    let mut all: BTreeMap<Behaviour, Expected> = BTreeMap::new();
    for e in lead.entries.iter().flatten() {
        all.insert(e.behaviour.clone(), e.clone());
    }
    for e in other.entries.iter().flatten() {
        let mut e = e.clone();
        if !comparable {
            e.incidence = 0;
        }
        match all.get_mut(&e.behaviour) {
            Some(mine) => add(mine, &e),
            None => {
                all.insert(e.behaviour.clone(), e);
            }
        }
    }
    all.into_values().map(Some).collect()
}

fn add(mine: &mut Expected, e: &Expected) {
    mine.count = mine.count.saturating_add(e.count);
    mine.incidence = mine.incidence.saturating_add(e.incidence);
    mine.first = earlier(mine.first, e.first);
    mine.last = later(mine.last, e.last);
    mine.first_unit = mine.first_unit.min(e.first_unit);
    mine.inherited &= e.inherited;
    mine.approved |= e.approved;
    mine.members = mine.members.max(e.members);
    mine.examples.extend(e.examples.iter().cloned());
    mine.examples.sort();
    mine.examples.dedup();
    mine.examples.truncate(crate::baseline::MAX_EXAMPLES);
}

fn earlier(a: Stamp, b: Stamp) -> Stamp {
    if b.wall < a.wall { b } else { a }
}

fn later(a: Stamp, b: Stamp) -> Stamp {
    if b.wall > a.wall { b } else { a }
}

fn join(
    lead: &Content,
    other: &Content,
    comparable: bool,
    entries: Vec<Option<Expected>>,
) -> Content {
    let mut c = lead.clone();
    let counted = |n: u64| if comparable { n } else { 0 };
    c.version = lead.version.max(other.version) + 1;
    c.state = match (lead.state, other.state) {
        (State::Learning, _) | (_, State::Learning) => State::Learning,
        _ => State::Ready,
    };
    c.ready_since = match c.state {
        State::Learning => None,
        State::Ready | State::Locked => lead.ready_since.max_by_wall(other.ready_since),
    };
    c.pending = pending(lead, other, &entries);
    c.entries = entries;
    c.created = earlier(lead.created, other.created);
    c.updated = later(lead.updated, other.updated);
    c.units += counted(other.units);
    c.startup_units += counted(other.startup_units);
    c.steady_units += counted(other.steady_units);
    c.starts += other.starts;
    c.instances_total += other.instances_total;
    c.instances.extend(other.instances.iter().cloned());
    c.instances.sort_by(|a, b| a.instance.cmp(&b.instance));
    c.instances.dedup_by(|a, b| a.instance == b.instance);
    c.instances.truncate(crate::baseline::MAX_INSTANCES);
    c.hours.add(&other.hours);
    c.saturated += other.saturated;
    c.pending_dropped += other.pending_dropped;
    c.decisions.extend(other.decisions.iter().cloned());
    c.decisions
        .sort_by(|a, b| (a.approval.at.wall, &a.action).cmp(&(b.approval.at.wall, &b.action)));
    let spare = c
        .decisions
        .len()
        .saturating_sub(crate::baseline::MAX_APPROVALS);
    c.decisions.drain(..spare);
    c
}

trait MaxByWall {
    fn max_by_wall(self, other: Self) -> Self;
}

impl MaxByWall for Option<Stamp> {
    fn max_by_wall(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|s| s.wall)
    }
}

/// What waits on either side and is expected on none.
fn pending(lead: &Content, other: &Content, entries: &[Option<Expected>]) -> Vec<Pending> {
    let mut all: BTreeMap<Behaviour, Pending> = BTreeMap::new();
    for p in lead.pending.iter().chain(&other.pending) {
        let kept = all.entry(p.behaviour.clone()).or_insert_with(|| p.clone());
        kept.risk = kept.risk.max(p.risk);
    }
    for e in entries.iter().flatten() {
        all.remove(&e.behaviour);
    }
    let max = lead.config.max_pending as usize;
    all.into_values().take(max).collect()
}
