//! The stage "attribute": joins events, containers and lineage into observations.

use crate::containers::ContainersConfig;
use crate::facts::{Evidence, Facts};
use crate::lineage::LineageConfig;
use crate::scan::Scan;
use plimsoll_model::{
    Ancestor, BootNs, ClockAnchor, Container, ContainerId, Event, Gap, Instance, Observation,
    ProcessKey,
};

/// Bounds and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributorConfig {
    /// Bounds of the process table.
    pub lineage: LineageConfig,
    /// Bounds of the container table.
    pub containers: ContainersConfig,
    /// How long an observation waits for its container's identity.
    pub identity_wait_ns: u64,
    /// Observations that wait for one container.
    pub max_pending_per_container: usize,
    /// Observations that wait, all containers together.
    pub max_pending: usize,
    /// Processes outside containers are observed too.
    pub host: bool,
}

impl Default for AttributorConfig {
    fn default() -> Self {
        Self {
            lineage: LineageConfig::default(),
            containers: ContainersConfig::default(),
            identity_wait_ns: 2_000_000_000,
            max_pending_per_container: 2048,
            max_pending: 16_384,
            host: false,
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // most are observations, and they move on at once
pub enum Out {
    /// An observation, ready to be judged. Those of one container keep their order.
    Observation(Observation),
    /// A container is new, or something about it changed. Comes before the first observation that
    /// names it. `state` tells Starting, Running and Gone.
    Container(Container),
    /// This cgroup is the root of that container: watch it (and what is below).
    Watch {
        /// Kernfs id of the root cgroup.
        cgroup_id: u64,
        /// Whose.
        instance: Instance,
    },
    /// This cgroup is no container's, or has gone: stop watching, discard what was kept for it.
    Unwatch {
        /// Kernfs id.
        cgroup_id: u64,
    },
    /// Identity can be confirmed by the runtime: hand this to [`crate::Confirmer::ask`].
    Ask {
        /// Which instance.
        instance: Instance,
        /// Whom to ask.
        runtime: plimsoll_model::Runtime,
    },
    /// Something was lost here.
    Gap(Gap),
}

/// How full the tables are and what their bounds cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Live processes in the table.
    pub processes: usize,
    /// Exited processes still known.
    pub process_tombstones: usize,
    /// Live processes dropped because the table was full.
    pub processes_dropped: u64,
    /// Live containers.
    pub containers: usize,
    /// Gone containers still known.
    pub container_tombstones: usize,
    /// Observations waiting for an identity.
    pub pending: usize,
    /// Observations released without (full) identity because time or room ran out.
    pub released_unknown: u64,
    /// Events of cgroups that turned out to be no container's.
    pub discarded_host: u64,
}

/// Joins events with containers and lineage.
#[derive(Debug)]
pub struct Attributor<E> {
    config: AttributorConfig,
    evidence: E,
}

impl<E: Evidence> Attributor<E> {
    /// An empty one; give it a [`Scan`] next.
    pub fn new(config: AttributorConfig, evidence: E) -> Self {
        Self { config, evidence }
    }

    /// Takes over what was running when the agent started. `remembered` are the containers that
    /// the journal knows from this boot and that had not gone: those that still run keep their
    /// instance, the others are gone.
    pub fn seed(
        &mut self,
        scan: Scan,
        remembered: Vec<Container>,
        anchor: &ClockAnchor,
        now: BootNs,
    ) -> Vec<Out> {
        let _ = (scan, remembered, anchor, now, &self.config, &mut self.evidence);
        Vec::new()
    }

    /// Attributes one event.
    pub fn attribute(&mut self, event: Event, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        let _ = (event, anchor, now);
        Vec::new()
    }

    /// Takes in what a runtime's API said about an instance.
    pub fn confirmed(&mut self, instance: &Instance, facts: &Facts, now: BootNs) -> Vec<Out> {
        let _ = (instance, facts, now);
        Vec::new()
    }

    /// Takes in that a container was renamed (all live instances of that id).
    pub fn renamed(&mut self, id: &ContainerId, name: &str) -> Vec<Out> {
        let _ = (id, name);
        Vec::new()
    }

    /// Lets time pass: retries identities, releases what has waited long enough, expires
    /// tombstones. Call it at least every 50 ms while [`Counters::pending`] is not 0, else every second.
    pub fn tick(&mut self, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        let _ = (anchor, now);
        Vec::new()
    }

    /// A container instance, live or tombstone.
    pub fn container(&self, instance: &Instance) -> Option<&Container> {
        let _ = instance;
        None
    }

    /// All containers known: live ones and tombstones.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        std::iter::empty()
    }

    /// The live container whose root cgroup this is.
    pub fn container_of_cgroup(&self, cgroup_id: u64) -> Option<&Container> {
        let _ = cgroup_id;
        None
    }

    /// A process and its ancestors as they are known now; `true` when the line was cut.
    pub fn lineage(&self, key: ProcessKey) -> (Vec<Ancestor>, bool) {
        let _ = key;
        (Vec::new(), false)
    }

    /// How full everything is.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
