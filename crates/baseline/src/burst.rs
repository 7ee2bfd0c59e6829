//! Bursts: the first alert of a kind is out at once, repeats only count.
//!
//! A repeat is the same class of the same behaviour in the same instance (or the same rule) within
//! the window since the last one. Updates of the count carry the id of the first alert and
//! supersede it; they are emitted at most every `update_ns`, and when the burst ends.
//!
//! Promises: pure; bounded (a full table ends its longest quiet burst first, with its update); no
//! count is lost: every offered act is in exactly one alert or update, once the burst has ended.

use plimsoll_model::{
    Alert, AlertId, AlertSource, BehaviourId, BootNs, Drift, DriftClass, Enforced, Instance, Stamp,
};
use std::collections::{BTreeSet, HashMap};

/// Windows and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurstConfig {
    /// Quiet time that ends a burst.
    pub window_ns: u64,
    /// Least time between two updates of one burst.
    pub update_ns: u64,
    /// Longest burst: then the next act is a new alert.
    pub longest_ns: u64,
    /// Open bursts.
    pub max_open: usize,
}

impl Default for BurstConfig {
    fn default() -> Self {
        Self {
            window_ns: 60_000_000_000,
            update_ns: 5_000_000_000,
            longest_ns: 600_000_000_000,
            max_open: 4096,
        }
    }
}

/// What makes two acts the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BurstKey {
    /// A drift, and what enforcement did about it.
    Drift(Instance, DriftClass, BehaviourId, Option<Enforced>),
    /// A rule in an instance (or in none).
    Rule(Option<Instance>, String),
}

impl BurstKey {
    /// Key of a drift.
    pub fn of_drift(drift: &Drift, enforced: Option<Enforced>) -> Self {
        let id = drift.behaviour.id();
        Self::Drift(drift.instance.clone(), drift.class, id, enforced)
    }
    /// Key of a rule's match; `detail` keeps matches apart that should not aggregate.
    pub fn of_rule(instance: Option<&Instance>, rule: &str, detail: &str) -> Self {
        Self::Rule(instance.cloned(), format!("{rule}\0{detail}"))
    }
}

/// What became of an act.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // lives one at a time
pub enum Offer {
    /// First of its burst: emit it now.
    New(Alert),
    /// A repeat whose count is due: emit it, it supersedes.
    Update(Alert),
    /// A repeat: counted.
    Held,
    /// The builder gave no alert for it.
    Nothing,
}

#[derive(Clone, Debug)]
struct Open {
    alert: Alert,
    started: BootNs,
    /// Acts in the last emitted record.
    told: u64,
    told_at: BootNs,
}

/// Open bursts.
#[derive(Clone, Debug, Default)]
pub struct Burst {
    config: BurstConfig,
    open: HashMap<BurstKey, Open>,
    /// Open bursts by their last act, to end the quiet ones first.
    order: BTreeSet<(BootNs, BurstKey)>,
    /// Updates of bursts that were ended for want of room.
    evicted: Vec<Alert>,
}

impl Burst {
    /// With these bounds.
    pub fn new(config: BurstConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Open bursts.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The alerts of which an update may still come.
    pub fn open_alerts(&self) -> impl Iterator<Item = &AlertId> {
        let open = self.open.values().map(|o| &o.alert.id);
        open.chain(self.evicted.iter().map(|a| &a.id))
    }

    /// Offers `count` acts at a time; `build` makes the alert when they are the first.
    pub fn offer(
        &mut self,
        key: BurstKey,
        at: Stamp,
        count: u64,
        build: impl FnOnce() -> Option<Alert>,
    ) -> Offer {
        if self.is_over(&key, at.boot) {
            self.end(&key);
        }
        if let Some(open) = self.open.get_mut(&key) {
            let before = open.alert.last.boot;
            let offer = open.repeat(at, count, self.config.update_ns);
            let after = open.alert.last.boot;
            if before != after {
                self.order.remove(&(before, key.clone()));
                self.order.insert((after, key));
            }
            return offer;
        }
        let Some(alert) = build() else {
            return Offer::Nothing;
        };
        self.start(key, at, alert.clone());
        Offer::New(alert)
    }

    /// Offers a drift.
    pub fn offer_drift(
        &mut self,
        drift: &Drift,
        enforced: Option<Enforced>,
        build: impl FnOnce() -> Option<Alert>,
    ) -> Offer {
        let key = BurstKey::of_drift(drift, enforced);
        self.offer(key, drift.last, drift.count, build)
    }

    /// Ends the bursts that have been quiet for the window, or open too long; returns the updates
    /// that are still owed.
    pub fn expire(&mut self, now: BootNs) -> Vec<Alert> {
        let quiet_before = now.0.saturating_sub(self.config.window_ns);
        let old = |o: &Open| now.0.saturating_sub(o.started.0) >= self.config.longest_ns;
        let mut over: Vec<BurstKey> = self
            .open
            .iter()
            .filter(|(_, o)| o.alert.last.boot.0 < quiet_before || old(o))
            .map(|(k, _)| k.clone())
            .collect();
        over.sort();
        over.iter().for_each(|key| self.end(key));
        std::mem::take(&mut self.evicted)
    }

    /// Ends all of them (shutdown); returns the updates that are still owed.
    pub fn finish(&mut self) -> Vec<Alert> {
        let mut keys: Vec<BurstKey> = self.open.keys().cloned().collect();
        keys.sort();
        keys.iter().for_each(|key| self.end(key));
        std::mem::take(&mut self.evicted)
    }

    fn is_over(&self, key: &BurstKey, now: BootNs) -> bool {
        self.open.get(key).is_some_and(|o| {
            now.0.saturating_sub(o.alert.last.boot.0) > self.config.window_ns
                || now.0.saturating_sub(o.started.0) >= self.config.longest_ns
        })
    }

    fn start(&mut self, key: BurstKey, at: Stamp, alert: Alert) {
        while self.open.len() >= self.config.max_open.max(1) {
            let Some((_, quiet)) = self.order.first().cloned() else {
                break;
            };
            self.end(&quiet);
        }
        self.order.insert((alert.last.boot, key.clone()));
        let open = Open {
            told: alert.count,
            told_at: at.boot,
            started: at.boot,
            alert,
        };
        self.open.insert(key, open);
    }

    /// Ends a burst; an update that is owed goes to `evicted`.
    fn end(&mut self, key: &BurstKey) {
        let Some(open) = self.open.remove(key) else {
            return;
        };
        self.order.remove(&(open.alert.last.boot, key.clone()));
        if open.alert.count > open.told {
            self.evicted.push(open.alert);
        }
    }
}

impl Open {
    fn repeat(&mut self, at: Stamp, count: u64, update_ns: u64) -> Offer {
        self.alert.count = self.alert.count.saturating_add(count.max(1));
        if at.boot > self.alert.last.boot {
            self.alert.last = at;
        }
        if let AlertSource::Drift(drift) = &mut self.alert.source {
            drift.count = self.alert.count;
            drift.last = self.alert.last;
        }
        if at.boot.0.saturating_sub(self.told_at.0) < update_ns {
            return Offer::Held;
        }
        self.told = self.alert.count;
        self.told_at = at.boot;
        Offer::Update(self.alert.clone())
    }
}
