//! The table of container instances: live ones, and tombstones of those that went.
//!
//! Promises: a restart is another instance; tombstones keep an identity for a stated time and
//! number; live containers are bounded too, the oldest giving way; no clock is read.

use crate::cgroup::CgroupIdentity;
use plimsoll_model::{
    BootNs, Container, ContainerId, ContainerState, EventKind, ImageRef, Instance, Observation,
    ProcessKey, Stamp,
};
use std::collections::{HashMap, VecDeque};

/// Bounds of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainersConfig {
    /// Tombstones kept.
    pub max_gone: usize,
    /// How long a tombstone is kept.
    pub keep_gone_ns: u64,
    /// Live containers kept.
    pub max_live: usize,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            max_gone: 10_000,
            keep_gone_ns: 24 * 3600 * 1_000_000_000,
            max_live: 8192,
        }
    }
}

/// One live instance.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) container: Container,
    pub(crate) identity: CgroupIdentity,
    /// When it was met.
    pub(crate) since: BootNs,
    pub(crate) next_try: BootNs,
    /// Image and role are known.
    pub(crate) resolved: bool,
    /// Its runtime has been asked, and is to answer yet.
    pub(crate) asked: bool,
    /// All that its runtime has of name, image and labels is known.
    pub(crate) whole: bool,
    /// The wait for them is over.
    pub(crate) gave_up: bool,
    /// What to key on when nobody tells the image's digest in time.
    pub(crate) stand_in: Option<ImageRef>,
    /// A gap says so already.
    pub(crate) told: bool,
    /// Its first process.
    pub(crate) init: Option<ProcessKey>,
    /// Observations that wait for identity.
    pub(crate) pending: VecDeque<Observation>,
}

impl Life {
    pub(crate) fn new(container: Container, identity: CgroupIdentity, now: BootNs) -> Self {
        Self {
            container,
            identity,
            since: now,
            next_try: now,
            resolved: false,
            asked: false,
            whole: false,
            gave_up: false,
            stand_in: None,
            told: false,
            init: None,
            pending: VecDeque::new(),
        }
    }

    /// Nobody tells the image's digest: the stand-in takes its place. Says whether there was one.
    pub(crate) fn settle_for_stand_in(&mut self, why: &str) -> bool {
        let image = &mut self.container.image;
        if self.resolved || image.config_digest.is_some() || self.container.role.is_empty() {
            return false;
        }
        let Some(stand_in) = self.stand_in.take() else {
            return false;
        };
        if image.name.is_empty() {
            image.name = stand_in.name;
        }
        image.config_digest = stand_in.config_digest;
        self.container.unknown_because = format!("the image's digest: {why}");
        self.resolved = true;
        true
    }

    /// Notes whether more of its identity may come. Says whether that has changed.
    pub(crate) fn note_awaited(&mut self) -> bool {
        let searched = !self.resolved && !self.gave_up;
        let awaited = !self.whole && (self.asked || searched);
        std::mem::replace(&mut self.container.awaited, awaited) != awaited
    }

    /// What an observation says about the container itself: it runs, or its first process ended.
    pub(crate) fn note(&mut self, o: &Observation) -> Option<Container> {
        match &o.event.kind {
            EventKind::Exec(exec)
                if exec.first || self.container.state == ContainerState::Starting =>
            {
                self.init.get_or_insert(o.event.process.key);
                self.container.state = ContainerState::Running;
                Some(self.container.clone())
            }
            EventKind::Exit { code, signal }
                if self
                    .init
                    .is_some_and(|i| i.tgid == o.event.process.key.tgid) =>
            {
                self.container.exit_code = Some(if *signal == 0 { *code } else { 128 + *signal });
                Some(self.container.clone())
            }
            _ => None,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Containers {
    config: ContainersConfig,
    live: HashMap<Instance, Life>,
    by_cgroup: HashMap<u64, Instance>,
    gone: HashMap<Instance, Container>,
    gone_order: VecDeque<(BootNs, Instance)>,
}

impl Containers {
    pub(crate) fn new(config: ContainersConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Enters an instance; returns those that had to give way.
    pub(crate) fn insert(&mut self, life: Life) -> Vec<Life> {
        let mut dropped = Vec::new();
        while self.live.len() >= self.config.max_live {
            let Some(oldest) = self
                .live
                .iter()
                .min_by_key(|(_, l)| l.since)
                .map(|(i, _)| i.clone())
            else {
                break;
            };
            self.by_cgroup.retain(|_, i| *i != oldest);
            dropped.extend(self.live.remove(&oldest));
        }
        let instance = life.container.instance.clone();
        self.by_cgroup
            .insert(life.container.cgroup_id, instance.clone());
        self.live.insert(instance, life);
        dropped
    }

    pub(crate) fn add_cgroup(&mut self, id: u64, instance: &Instance) {
        // a container may make many cgroups; the bound keeps one from filling the table
        if self.by_cgroup.len() < self.config.max_live * 8 {
            self.by_cgroup.insert(id, instance.clone());
        }
    }

    pub(crate) fn remove_cgroup(&mut self, id: u64) -> Option<Instance> {
        self.by_cgroup.remove(&id)
    }

    pub(crate) fn instance_of(&self, cgroup_id: u64) -> Option<Instance> {
        self.by_cgroup.get(&cgroup_id).cloned()
    }

    pub(crate) fn live_by_id(&self, id: &ContainerId) -> Option<Instance> {
        self.live
            .keys()
            .filter(|i| i.id == *id)
            .max_by_key(|i| i.start)
            .cloned()
    }

    pub(crate) fn life(&self, instance: &Instance) -> Option<&Life> {
        self.live.get(instance)
    }

    pub(crate) fn life_mut(&mut self, instance: &Instance) -> Option<&mut Life> {
        self.live.get_mut(instance)
    }

    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.live.values()
    }

    pub(crate) fn lives_mut(&mut self) -> impl Iterator<Item = &mut Life> {
        self.live.values_mut()
    }

    pub(crate) fn gone_mut(&mut self, instance: &Instance) -> Option<&mut Container> {
        self.gone.get_mut(instance)
    }

    pub(crate) fn take(&mut self, instance: &Instance) -> Option<Life> {
        self.live.remove(instance)
    }

    pub(crate) fn put_back(&mut self, life: Life) {
        self.live.insert(life.container.instance.clone(), life);
    }

    /// Turns a live instance into a tombstone.
    pub(crate) fn gone(&mut self, instance: &Instance, at: Stamp) -> Option<Container> {
        let life = self.live.remove(instance)?;
        self.by_cgroup.retain(|_, i| i != instance);
        let mut c = life.container;
        // what is on disk goes with it; an answer may still come
        c.awaited = life.asked && !life.whole;
        c.state = ContainerState::Gone;
        c.gone = Some(at);
        self.remember_gone(c.clone());
        Some(c)
    }

    pub(crate) fn remember_gone(&mut self, c: Container) {
        let at = c.gone.map_or(BootNs(0), |s| s.boot);
        self.gone_order.push_back((at, c.instance.clone()));
        self.gone.insert(c.instance.clone(), c);
        while self.gone.len() > self.config.max_gone {
            let Some((_, oldest)) = self.gone_order.pop_front() else {
                break;
            };
            self.gone.remove(&oldest);
        }
    }

    pub(crate) fn expire(&mut self, now: BootNs) {
        while let Some((at, instance)) = self.gone_order.front() {
            if now.0.saturating_sub(at.0) < self.config.keep_gone_ns {
                return;
            }
            self.gone.remove(instance);
            self.gone_order.pop_front();
        }
    }

    /// Instances whose identity is to be looked for again.
    pub(crate) fn unresolved(&self, now: BootNs) -> Vec<Instance> {
        let waiting = |l: &&Life| !l.resolved && !l.gave_up && now >= l.next_try;
        self.live
            .values()
            .filter(waiting)
            .map(|l| l.container.instance.clone())
            .collect()
    }

    pub(crate) fn get(&self, instance: &Instance) -> Option<&Container> {
        self.live
            .get(instance)
            .map(|l| &l.container)
            .or_else(|| self.gone.get(instance))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Container> {
        self.live
            .values()
            .map(|l| &l.container)
            .chain(self.gone.values())
    }

    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.gone.len()
    }
}
