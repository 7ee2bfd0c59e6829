//! The stage "attribute": joins events, containers and lineage into observations.

use crate::api::Question;
use crate::cgroup::{CgroupIdentity, classify, is_host_unit};
use crate::containers::{Containers, ContainersConfig, Life};
use crate::facts::{Evidence, Facts, Verdict, can_be_asked, is_stand_in};
use crate::lineage::{Lineage, LineageConfig};
use crate::pod::{self, Pods};
use crate::redact::Redactor;
use crate::scan::{FoundContainer, Met, Scan, Seed};
use plimsoll_model::event::{Exec, ProcessInfo, Trust};
use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_model::{
    BootNs, ClockAnchor, Container, ContainerId, ContainerState, Event, EventKind, Gap, GapScope,
    Instance, Line, Observation, ProcessKey, Stage,
};
use std::collections::{HashMap, HashSet, VecDeque};

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
    /// A container was met late: hand this to [`crate::scan_container`], and what that shows to
    /// [`Attributor::met`].
    Met(Met),
    /// Identity can be confirmed by the runtime: hand this to [`crate::Confirmer::ask`].
    Ask(Question),
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

/// How often identity is looked for again while observations wait for it.
const RETRY_NS: u64 = 50_000_000;
/// Why a stand-in was taken.
const TOO_LATE: &str = "the runtime did not tell it in time";
/// How long a cgroup that no pattern fits may stay undecided.
const UNDECIDED_NS: u64 = 5_000_000_000;
/// How often live containers are looked for whose end may have been lost. One that is missed twice, and
/// of which nothing came meanwhile, has gone.
const LOOK_FOR_ENDS_NS: u64 = 5_000_000_000;
/// Undecided cgroups at a time; beyond, the oldest counts as no container's.
const MAX_UNDECIDED: usize = 512;

/// Programs found running are told this long after, when the execs have come that the hooks saw before
/// `/proc` was read.
const FOUND_AFTER_NS: u64 = 1_000_000_000;
/// And so many of them in one go, so that what happens now is not held up.
const FOUND_AT_ONCE: usize = 256;
/// Programs found in containers that were met late that wait for that; further ones are a gap.
const FOUND_MAX: usize = 16_384;

fn in_second(cgroup_id: u64) -> usize {
    usize::from(cgroup_id & IN_SECOND_HIERARCHY != 0)
}

/// A cgroup of which it is not known yet whether it is a container's.
#[derive(Debug)]
struct Undecided {
    path: String,
    since: BootNs,
    /// When it was read: a reader that is behind must not give up what it has hardly seen.
    taken_up: BootNs,
    next_try: BootNs,
    /// An OCI runtime made it; the first program in it settles that it is a container.
    by_runtime: bool,
    /// Nobody saw it being made.
    met: bool,
    events: VecDeque<Event>,
    /// Events that found no room: how many, the first and the last.
    passed: Option<(u64, BootNs, BootNs)>,
}

/// Joins events with containers and lineage.
#[derive(Debug)]
pub struct Attributor<E> {
    config: AttributorConfig,
    evidence: E,
    lineage: Lineage,
    containers: Containers,
    pods: Pods,
    undecided: HashMap<u64, Undecided>,
    ends: Ends,
    /// Programs found running that have not been told yet; as many as the scan looked at, or [`FOUND_MAX`].
    found: VecDeque<FoundProgram>,
    counters: Counters,
    redactor: Redactor,
}

/// A program that nobody saw starting.
#[derive(Debug)]
struct FoundProgram {
    cgroup_id: u64,
    process: ProcessInfo,
    exec: Box<Exec>,
    /// When it was found.
    at: BootNs,
}

/// The search for containers whose end was not told: where too much happened at once, the kernel's word
/// that a cgroup was removed can be lost like any other.
#[derive(Debug, Default)]
struct Ends {
    looked: BootNs,
    /// Cgroups have been found where their paths say, in this hierarchy and in the second one: only then a
    /// missing one says anything.
    found: [bool; 2],
    /// Root cgroups that were not there at the last look, and of which nothing came since.
    missed: HashSet<u64>,
}

impl<E: Evidence> Attributor<E> {
    /// An empty one; give it a [`Scan`] next.
    pub fn new(config: AttributorConfig, evidence: E) -> Self {
        Self {
            lineage: Lineage::new(config.lineage.clone()),
            containers: Containers::new(config.containers.clone()),
            pods: Pods::default(),
            undecided: HashMap::new(),
            ends: Ends::default(),
            found: VecDeque::new(),
            counters: Counters::default(),
            config,
            evidence,
            redactor: Redactor::off(),
        }
    }

    /// Masks secrets from now on, before anything is remembered or handed on.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
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
        let mut out = Vec::new();
        let mut remembered: HashMap<(ContainerId, u64), Container> = remembered
            .into_iter()
            .map(|c| ((c.id().clone(), c.cgroup_id), c))
            .collect();
        for process in scan.processes {
            self.take_up(process, now);
        }
        if scan.programs_left_out > 0 {
            let at = anchor.stamp(now);
            out.push(Out::Gap(Gap {
                stage: Stage::Table,
                scope: GapScope::Node,
                from: at,
                to: at,
                count: Some(scan.programs_left_out),
                reason: "more programs ran in containers when the agent came than are judged"
                    .to_owned(),
            }));
        }
        for found in scan.containers {
            let before = remembered.remove(&(found.identity.id.clone(), found.cgroup_id));
            self.found(found, before, anchor, now, &mut out);
        }
        // what the journal remembers and nobody runs any more went while the agent was away
        for (_, mut c) in remembered {
            c.state = ContainerState::Gone;
            c.gone = Some(anchor.stamp(now));
            // nobody has been asked by this agent
            c.awaited = false;
            self.containers.remember_gone(c.clone());
            out.push(Out::Container(c));
        }
        self.tell_pods(out)
    }

    /// Takes a process found running into the lineage, and its program among those to be told.
    fn take_up(&mut self, mut process: Seed, now: BootNs) {
        if let Some(exec) = process.program.take() {
            self.found.push_back(FoundProgram {
                cgroup_id: process.cgroup_id,
                process: info_of(&process),
                exec,
                at: now,
            });
        }
        self.redactor.arguments(&mut process.argv);
        self.lineage.seed(&process);
    }

    /// Takes over what was found running in a container that was met late.
    pub fn met(&mut self, scan: Scan, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        let mut out = Vec::new();
        let Some(found) = scan.containers.first() else {
            return out;
        };
        let instance = self.containers.instance_of(found.cgroup_id);
        let Some(instance) = instance.filter(|i| i.id == found.identity.id) else {
            return out;
        };
        if let Some(life) = self.containers.life_mut(&instance) {
            life.init = Some(found.first);
        }
        let mut left_out = scan.programs_left_out;
        for mut process in scan.processes {
            if self.found.len() >= FOUND_MAX {
                left_out += u64::from(process.program.take().is_some());
            }
            self.take_up(process, now);
        }
        if left_out > 0 || scan.truncated {
            let at = anchor.stamp(now);
            out.push(Out::Gap(Gap {
                stage: Stage::Table,
                scope: GapScope::Container(instance),
                from: at,
                to: at,
                count: (!scan.truncated).then_some(left_out),
                reason: "more ran in a container when it was met than is judged".to_owned(),
            }));
        }
        out
    }

    fn found(
        &mut self,
        found: FoundContainer,
        before: Option<Container>,
        anchor: &ClockAnchor,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        let known = |c: &Container| c.unknown_because.is_empty() && !c.role.is_empty();
        let resolved = before.as_ref().is_some_and(known);
        let whole = resolved && before.as_ref().is_some_and(|c| !c.awaited);
        let mut c = before.unwrap_or_else(|| {
            let instance = Instance {
                id: found.identity.id.clone(),
                start: found.first.start,
            };
            let mut c = blank(instance, &found.identity, found.cgroup_id, anchor, now);
            c.found_running = true;
            c
        });
        c.state = ContainerState::Running;
        let mut life = Life::new(c, found.identity, now);
        // what was known before is not asked again of a disk that may have forgotten it
        life.resolved = resolved;
        life.whole = whole;
        life.init = Some(found.first);
        self.settle(life, now, out);
    }

    /// Enters a container into the table: looks for its identity, asks for it to be watched.
    fn settle(&mut self, mut life: Life, now: BootNs, out: &mut Vec<Out>) {
        self.resolve(&mut life, now);
        life.asked = can_be_asked(life.container.runtime);
        life.note_awaited();
        let cgroup_id = life.container.cgroup_id;
        if !self.ends.found[in_second(cgroup_id)] {
            self.is_missing(&life.identity.root, cgroup_id);
        }
        let instance = life.container.instance.clone();
        out.push(Out::Container(life.container.clone()));
        out.push(Out::Watch {
            cgroup_id,
            instance,
        });
        out.push(ask_about(&life));
        for dropped in self.containers.insert(life) {
            self.lineage.container_gone(dropped.container.cgroup_id);
            out.push(Out::Unwatch {
                cgroup_id: dropped.container.cgroup_id,
            });
        }
    }

    /// Looks for a container's identity on disk. Says whether anything changed.
    fn resolve(&mut self, life: &mut Life, now: BootNs) -> bool {
        life.next_try = BootNs(now.0 + RETRY_NS);
        let changed = match self.evidence.facts(&life.identity, now) {
            Ok(facts) => {
                let mut changed = take_in(&self.redactor, &facts, &mut life.container);
                life.stand_in = facts.stand_in.clone().or(life.stand_in.take());
                if facts.is_complete() && life.settle_for_stand_in("nobody can be asked for it") {
                    life.container.unknown_because.clear();
                    changed = true;
                }
                life.resolved |= facts.is_complete();
                life.whole |= facts.whole;
                if life.resolved {
                    life.container.unknown_because.clear();
                } else if !facts.missing.is_empty() {
                    life.container.unknown_because.clone_from(&facts.missing);
                }
                changed
            }
            Err(why) => {
                if !life.resolved {
                    life.container.unknown_because = why;
                }
                false
            }
        };
        life.note_awaited() || changed
    }

    /// Attributes one event.
    pub fn attribute(&mut self, event: Event, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        let mut out = Vec::new();
        match &event.kind {
            EventKind::CgroupMkdir { id, path, .. } => {
                let (id, path) = (*id, path.to_str_lossy().into_owned());
                self.cgroup_made(id, path, event, anchor, now, &mut out);
            }
            EventKind::CgroupRmdir { id } => {
                let id = *id;
                // the last word: its first program may have come with its end
                if let Some(u) = self.undecided.get_mut(&id) {
                    u.next_try = now;
                    self.decide(id, anchor, now, &mut out);
                }
                self.cgroup_removed(id, anchor.stamp(event.boot), &mut out);
            }
            _ => self.happened(event, anchor, now, &mut out),
        }
        self.tell_pods(out)
    }

    /// What a pod's sandbox tells is told to the pod's containers: in their records on the way out,
    /// and in records of their own where the sandbox came after them.
    fn tell_pods(&mut self, mut out: Vec<Out>) -> Vec<Out> {
        let mut news = Vec::new();
        for o in &mut out {
            let Out::Container(c) = o else { continue };
            if let Some(uid) = self.pods.learn(c) {
                news.push(uid);
            }
            if self.pods.tell(c)
                && let Some(life) = self.containers.life_mut(&c.instance)
            {
                life.container.pod_facts.clone_from(&c.pod_facts);
            }
        }
        for uid in news {
            for life in self.containers.lives_mut() {
                let c = &mut life.container;
                if pod::uid(c) == Some(&uid) && self.pods.tell(c) {
                    out.push(Out::Container(c.clone()));
                }
            }
        }
        out
    }

    fn cgroup_made(
        &mut self,
        id: u64,
        path: String,
        event: Event,
        anchor: &ClockAnchor,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        match classify(&path) {
            Some(identity) if identity.root == path => {
                if self.containers.instance_of(id).is_some() {
                    // found running already: the beginning of it was still in the rings
                    return;
                }
                if self.is_second_place(id, &identity, out) {
                    return;
                }
                let instance = Instance {
                    id: identity.id.clone(),
                    start: event.boot,
                };
                let c = blank(instance, &identity, id, anchor, event.boot);
                self.settle(Life::new(c, identity, now), now, out);
            }
            Some(identity) => {
                if let Some(instance) = self.containers.live_by_id(&identity.id) {
                    self.containers.add_cgroup(id, &instance);
                    if event.cgroup_id == id {
                        // the kernel did not know yet that the cgroup above is a container's
                        out.push(Out::Watch {
                            cgroup_id: id,
                            instance,
                        });
                    }
                }
            }
            None if event.cgroup_id != id => {
                if let Some(instance) = self.containers.instance_of(event.cgroup_id) {
                    self.containers.add_cgroup(id, &instance);
                }
            }
            None if is_host_unit(&path) => out.push(Out::Unwatch { cgroup_id: id }),
            None => {
                self.make_room(out);
                let entry = Undecided {
                    path,
                    since: event.boot,
                    taken_up: now,
                    next_try: now,
                    by_runtime: is_runtime(event.process.comm.as_bytes()),
                    met: false,
                    events: VecDeque::new(),
                    passed: None,
                };
                self.undecided.insert(id, entry);
                self.decide(id, anchor, now, out);
            }
        }
    }

    /// A runtime that fills both hierarchies makes a container's cgroup twice. The one in the first
    /// hierarchy is the container's root, whichever was made first; processes come to it in the end.
    fn is_second_place(&mut self, id: u64, identity: &CgroupIdentity, out: &mut Vec<Out>) -> bool {
        let Some(instance) = self.containers.live_by_id(&identity.id) else {
            return false;
        };
        let Some(life) = self.containers.life_mut(&instance) else {
            return false;
        };
        let other_hierarchy = (id ^ life.container.cgroup_id) & IN_SECOND_HIERARCHY != 0;
        if !other_hierarchy || life.identity.root != identity.root {
            return false;
        }
        if id & IN_SECOND_HIERARCHY == 0 {
            life.container.cgroup_id = id;
            out.push(Out::Container(life.container.clone()));
            out.push(Out::Watch {
                cgroup_id: id,
                instance: instance.clone(),
            });
        }
        self.containers.add_cgroup(id, &instance);
        true
    }

    fn make_room(&mut self, out: &mut Vec<Out>) {
        if self.undecided.len() < MAX_UNDECIDED {
            return;
        }
        if let Some(oldest) = self
            .undecided
            .iter()
            .min_by_key(|(_, u)| u.since)
            .map(|(id, _)| *id)
        {
            self.not_a_container(oldest, out);
        }
    }

    fn not_a_container(&mut self, id: u64, out: &mut Vec<Out>) {
        if let Some(u) = self.undecided.remove(&id) {
            let passed = u.passed.map_or(0, |(n, ..)| n);
            self.counters.discarded_host += u.events.len() as u64 + passed;
            self.counters.pending -= u.events.len();
            out.push(Out::Unwatch { cgroup_id: id });
        }
    }

    /// Asks for evidence about an undecided cgroup; gives up after [`UNDECIDED_NS`].
    fn decide(&mut self, id: u64, anchor: &ClockAnchor, now: BootNs, out: &mut Vec<Out>) {
        let Some(u) = self.undecided.get_mut(&id) else {
            return;
        };
        if now < u.next_try {
            return;
        }
        u.next_try = BootNs(now.0 + RETRY_NS);
        match self.evidence.judge(&u.path, now) {
            Verdict::Container(identity) => self.admit(id, identity, anchor, now, out),
            Verdict::NotContainer => self.not_a_container(id, out),
            Verdict::Undecided
                if u.by_runtime
                    && u.events
                        .iter()
                        .any(|e| matches!(e.kind, EventKind::Exec(_))) =>
            {
                // its state directory may be gone already: a runtime made the cgroup, and a program runs in it
                let path = u.path.clone();
                match unnamed(&path) {
                    Some(identity) => self.admit(id, identity, anchor, now, out),
                    None => self.not_a_container(id, out),
                }
            }
            Verdict::Undecided if now.0.saturating_sub(u.taken_up.0) > UNDECIDED_NS => {
                self.not_a_container(id, out)
            }
            Verdict::Undecided => {}
        }
    }

    /// An undecided cgroup is a container's: what waited for that is attributed.
    fn admit(
        &mut self,
        id: u64,
        identity: CgroupIdentity,
        anchor: &ClockAnchor,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        let Some(u) = self.undecided.remove(&id) else {
            return;
        };
        self.counters.pending -= u.events.len();
        if !self.is_second_place(id, &identity, out) {
            let instance = Instance {
                id: identity.id.clone(),
                start: u.since,
            };
            let c = blank(instance, &identity, id, anchor, u.since);
            match u.met {
                true => self.settle_late(c, identity, now, out),
                false => self.settle(Life::new(c, identity, now), now, out),
            }
        }
        if let (Some((count, from, to)), Some(instance)) =
            (u.passed, self.containers.instance_of(id))
        {
            out.push(Out::Gap(Gap {
                stage: Stage::Table,
                scope: GapScope::Container(instance),
                from: anchor.stamp(from),
                to: anchor.stamp(to),
                count: Some(count),
                reason: "too much happened before it was known to be a container".to_owned(),
            }));
        }
        for event in u.events {
            self.happened(event, anchor, now, out);
        }
    }

    fn look_for_ends(&mut self, anchor: &ClockAnchor, now: BootNs, out: &mut Vec<Out>) {
        if now.0.saturating_sub(self.ends.looked.0) < LOOK_FOR_ENDS_NS {
            return;
        }
        self.ends.looked = now;
        let lives = self.containers.lives();
        let places: Vec<(String, u64)> = lives
            .map(|l| (l.identity.root.clone(), l.container.cgroup_id))
            .collect();
        let before = std::mem::take(&mut self.ends.missed);
        for (path, id) in places {
            if !self.is_missing(&path, id) {
                continue;
            }
            match before.contains(&id) {
                true => self.cgroup_removed(id, anchor.stamp(now), out),
                false => drop(self.ends.missed.insert(id)),
            }
        }
    }

    fn is_missing(&mut self, path: &str, id: u64) -> bool {
        let found = &mut self.ends.found[in_second(id)];
        let there = self.evidence.is_there(path, id);
        *found |= there == Some(true);
        *found && there == Some(false)
    }

    fn cgroup_removed(&mut self, id: u64, at: plimsoll_model::Stamp, out: &mut Vec<Out>) {
        if self.undecided.contains_key(&id) {
            self.not_a_container(id, out);
            return;
        }
        let Some(instance) = self.containers.remove_cgroup(id) else {
            return;
        };
        let is_root = |l: &Life| l.container.cgroup_id == id;
        if !self.containers.life(&instance).is_some_and(is_root) {
            // the kernel keeps an entry of its own for the one in the second hierarchy
            if id & IN_SECOND_HIERARCHY != 0 {
                out.push(Out::Unwatch { cgroup_id: id });
            }
            return;
        }
        self.stop_waiting(&instance, "the container went before it was told", out);
        self.release(&instance, out);
        self.lineage.container_gone(id);
        if let Some(gone) = self.containers.gone(&instance, at) {
            out.push(Out::Container(gone));
        }
        out.push(Out::Unwatch { cgroup_id: id });
    }

    /// An event of a process: remembered in the lineage, and an observation once its container is.
    fn happened(
        &mut self,
        mut event: Event,
        anchor: &ClockAnchor,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        let cgroup = event.cgroup_id;
        if !self.ends.missed.is_empty() {
            self.ends.missed.remove(&cgroup);
        }
        if !self.undecided.contains_key(&cgroup) && self.containers.instance_of(cgroup).is_none() {
            self.meet(&event, anchor, now, out);
        }
        if let Some(u) = self.undecided.get_mut(&cgroup) {
            if matches!(event.kind, EventKind::Exec(_)) {
                u.next_try = now;
            }
            if u.events.len() < self.config.max_pending_per_container
                && self.counters.pending < self.config.max_pending
            {
                u.events.push_back(event);
                self.counters.pending += 1;
            } else {
                let (n, from, to) = u.passed.unwrap_or((0, event.boot, event.boot));
                u.passed = Some((n + 1, from.min(event.boot), to.max(event.boot)));
            }
            self.decide(cgroup, anchor, now, out);
            return;
        }
        let Some(instance) = self.containers.instance_of(cgroup) else {
            self.counters.discarded_host += 1;
            return;
        };
        let redacted = self.redactor.event(&mut event);
        self.lineage.observe(&event, cgroup);
        let mut observation = self.observation(event, &instance, anchor);
        observation.redacted = redacted;
        self.hand_on(observation, instance, now, out);
    }

    /// An observation goes on at once, or waits for its container's identity.
    fn hand_on(
        &mut self,
        observation: Observation,
        instance: Instance,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        let Some(life) = self.containers.life_mut(&instance) else {
            return;
        };
        if let Some(changed) = life.note(&observation) {
            out.push(Out::Container(changed));
        }
        let full = life.pending.len() >= self.config.max_pending_per_container
            || self.counters.pending >= self.config.max_pending;
        if life.resolved || life.gave_up {
            out.push(Out::Observation(observation));
            return;
        }
        life.pending.push_back(observation);
        self.counters.pending += 1;
        if full || now.0.saturating_sub(life.since.0) > self.config.identity_wait_ns {
            life.gave_up = true;
            self.stop_waiting(&instance, TOO_LATE, out);
            self.release(&instance, out);
        } else if now >= life.next_try {
            self.try_again(&instance, now, out);
        }
    }

    /// An event of a cgroup whose creation was not seen (it was made while nobody looked).
    fn meet(&mut self, event: &Event, anchor: &ClockAnchor, now: BootNs, out: &mut Vec<Out>) {
        let Some(path) = self
            .evidence
            .cgroup_path(event.cgroup_id, event.process.key.tgid)
        else {
            return;
        };
        match classify(&path) {
            Some(identity) => {
                let instance = Instance {
                    id: identity.id.clone(),
                    start: event.process.key.start,
                };
                let c = blank(instance, &identity, event.cgroup_id, anchor, event.boot);
                self.settle_late(c, identity, now, out);
            }
            None => {
                self.make_room(out);
                let entry = Undecided {
                    path,
                    since: event.boot,
                    taken_up: now,
                    next_try: now,
                    by_runtime: false,
                    met: true,
                    events: VecDeque::new(),
                    passed: None,
                };
                self.undecided.insert(event.cgroup_id, entry);
            }
        }
    }

    /// Enters a container that nobody saw being made: what runs in it is to be looked at.
    fn settle_late(
        &mut self,
        mut c: Container,
        identity: CgroupIdentity,
        now: BootNs,
        out: &mut Vec<Out>,
    ) {
        (c.state, c.found_running) = (ContainerState::Running, true);
        let met = Met {
            instance: c.instance.clone(),
            identity: identity.clone(),
            cgroup_id: c.cgroup_id,
        };
        self.settle(Life::new(c, identity, now), now, out);
        out.push(Out::Met(met));
    }

    /// Programs that ran already when the agent came, or met their container: what `/proc` showed of each is an observation.
    fn tell_found(&mut self, anchor: &ClockAnchor, now: BootNs, out: &mut Vec<Out>) {
        for _ in 0..FOUND_AT_ONCE {
            let next = self.found.front();
            if next.is_none_or(|f| now.0 < f.at.0 + FOUND_AFTER_NS) {
                return;
            }
            let Some(found) = self.found.pop_front() else {
                return;
            };
            // where its exec came after all, that has told it
            let news = self.lineage.is_from_proc(found.process.key, found.at);
            let instance = self.containers.instance_of(found.cgroup_id);
            let (true, Some(instance)) = (news, instance) else {
                continue;
            };
            let mut event = Event {
                boot: found.at,
                cgroup_id: found.cgroup_id,
                process: found.process,
                trust: Trust::Proc,
                ..Event::new(EventKind::Exec(*found.exec))
            };
            let redacted = self.redactor.event(&mut event);
            let mut observation = self.observation(event, &instance, anchor);
            observation.redacted = redacted;
            self.hand_on(observation, instance, now, out);
        }
    }

    fn observation(&self, event: Event, instance: &Instance, anchor: &ClockAnchor) -> Observation {
        let (lineage, lineage_cut) = self.lineage.lineage_of(&event);
        Observation {
            at: anchor.stamp(event.boot),
            instance: Some(instance.clone()),
            lineage,
            lineage_cut,
            redacted: Vec::new(),
            unknown_because: String::new(),
            count: 1,
            event,
        }
    }

    fn try_again(&mut self, instance: &Instance, now: BootNs, out: &mut Vec<Out>) {
        let Some(mut life) = self.containers.take(instance) else {
            return;
        };
        if self.resolve(&mut life, now) {
            out.push(Out::Container(life.container.clone()));
        }
        let ready = life.resolved;
        self.containers.put_back(life);
        if ready {
            self.release(instance, out);
        }
    }

    /// Lets the waiting observations of a container go, in their order.
    fn release(&mut self, instance: &Instance, out: &mut Vec<Out>) {
        let Some(life) = self.containers.life_mut(instance) else {
            return;
        };
        let because = if life.resolved {
            String::new()
        } else {
            life.container.unknown_because.clone()
        };
        let waiting = std::mem::take(&mut life.pending);
        self.counters.pending -= waiting.len();
        if !life.resolved {
            self.counters.released_unknown += waiting.len() as u64;
            if let (Some(first), Some(last), false) = (waiting.front(), waiting.back(), life.told) {
                life.told = true;
                out.push(Out::Gap(Gap {
                    stage: Stage::Identity,
                    scope: GapScope::Container(instance.clone()),
                    from: first.at,
                    to: last.at,
                    count: None,
                    reason: format!("identity incomplete: {because}"),
                }));
            }
        }
        out.extend(waiting.into_iter().map(|mut o| {
            o.unknown_because.clone_from(&because);
            Out::Observation(o)
        }));
    }

    /// Takes in what a runtime's API said about an instance.
    pub fn confirmed(&mut self, instance: &Instance, facts: &Facts) -> Vec<Out> {
        let out = self.taken_in(instance, facts);
        self.tell_pods(out)
    }

    fn taken_in(&mut self, instance: &Instance, facts: &Facts) -> Vec<Out> {
        let mut out = Vec::new();
        let Some(life) = self.containers.life_mut(instance) else {
            // it lived shorter than the answer took: whoever looks back finds it all the same
            if let Some(gone) = self.containers.gone_mut(instance) {
                let awaited = std::mem::take(&mut gone.awaited);
                if take_in(&self.redactor, facts, gone) || awaited {
                    out.push(Out::Container(gone.clone()));
                }
            }
            return out;
        };
        (life.asked, life.whole) = (false, true);
        let mut changed = take_in(&self.redactor, facts, &mut life.container);
        let told = life.container.image.config_digest.as_ref();
        let told = told.is_some_and(|d| !is_stand_in(d)) && !life.container.role.is_empty();
        if told && !life.container.unknown_because.is_empty() {
            life.container.unknown_because.clear();
            changed = true;
        }
        let first = !life.resolved && told;
        life.resolved |= told;
        changed |= life.note_awaited();
        if changed || first {
            out.push(Out::Container(life.container.clone()));
        }
        if first {
            self.release(instance, &mut out);
        } else {
            let why = match facts.missing.as_str() {
                "" => "the runtime does not tell it",
                why => why,
            };
            self.stop_waiting(instance, why, &mut out);
        }
        out
    }

    /// Takes in that no runtime has told more about an instance than the disk does: observations wait
    /// for it no longer. `late`: it may tell yet.
    pub fn unanswered(&mut self, instance: &Instance, why: &str, late: bool) -> Vec<Out> {
        let mut out = Vec::new();
        if let Some(life) = self.containers.life_mut(instance) {
            life.asked &= late;
        } else if let Some(gone) = self.containers.gone_mut(instance).filter(|c| c.awaited) {
            gone.awaited = late;
            if !late {
                out.push(Out::Container(gone.clone()));
            }
        }
        self.stop_waiting(instance, why, &mut out);
        out
    }

    /// Takes the stand-in for the image's digest, where there is one, and lets go what waited for that.
    fn stop_waiting(&mut self, instance: &Instance, why: &str, out: &mut Vec<Out>) {
        let Some(life) = self.containers.life_mut(instance) else {
            return;
        };
        let settled = life.settle_for_stand_in(why);
        if life.note_awaited() || settled {
            out.push(Out::Container(life.container.clone()));
        }
        if settled {
            self.release(instance, out);
        }
    }

    /// Takes in that a container was renamed (all live instances of that id).
    pub fn renamed(&mut self, id: &ContainerId, name: &str) -> Vec<Out> {
        let Some(instance) = self.containers.live_by_id(id) else {
            return Vec::new();
        };
        let Some(life) = self.containers.life_mut(&instance) else {
            return Vec::new();
        };
        life.container.name = crate::facts::bounded(name);
        vec![Out::Container(life.container.clone())]
    }

    /// Takes in that what a runtime said of a container may be old: it is asked again.
    pub fn changed(&self, id: &ContainerId) -> Vec<Out> {
        let life = self.containers.live_by_id(id);
        let life = life.and_then(|i| self.containers.life(&i));
        life.map(ask_about).into_iter().collect()
    }

    /// Takes in that a runtime answers again that had not for some time: all of its containers are
    /// asked about.
    pub fn answers_again(&self, runtime: plimsoll_model::Runtime) -> Vec<Out> {
        let its = |l: &&Life| l.container.runtime == runtime;
        self.containers.lives().filter(its).map(ask_about).collect()
    }

    /// Lets time pass: retries identities, releases what has waited long enough, expires
    /// tombstones. Call it at least every 50 ms while [`Counters::pending`] is not 0, else every second.
    pub fn tick(&mut self, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        let mut out = Vec::new();
        self.tell_found(anchor, now, &mut out);
        let undecided: Vec<u64> = self.undecided.keys().copied().collect();
        for id in undecided {
            self.decide(id, anchor, now, &mut out);
        }
        for instance in self.containers.unresolved(now) {
            self.try_again(&instance, now, &mut out);
            let Some(life) = self.containers.life_mut(&instance) else {
                continue;
            };
            if !life.resolved && now.0.saturating_sub(life.since.0) > self.config.identity_wait_ns {
                life.gave_up = true;
                self.stop_waiting(&instance, TOO_LATE, &mut out);
                self.release(&instance, &mut out);
            }
        }
        self.look_for_ends(anchor, now, &mut out);
        self.containers.expire(now);
        self.tell_pods(out)
    }

    /// A container instance, live or tombstone.
    pub fn container(&self, instance: &Instance) -> Option<&Container> {
        self.containers.get(instance)
    }

    /// All containers known: live ones and tombstones.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.all()
    }

    /// The live container whose root cgroup this is.
    pub fn container_of_cgroup(&self, cgroup_id: u64) -> Option<&Container> {
        self.containers
            .get(&self.containers.instance_of(cgroup_id)?)
    }

    /// A process and its ancestors as they are known now; `true` when the line was cut.
    pub fn lineage(&self, key: ProcessKey) -> (Line, bool) {
        self.lineage.lineage(key, BootNs(u64::MAX))
    }

    /// How full everything is.
    pub fn counters(&self) -> Counters {
        Counters {
            processes: self.lineage.live(),
            process_tombstones: self.lineage.exited(),
            processes_dropped: self.lineage.dropped(),
            containers: self.containers.live(),
            container_tombstones: self.containers.tombstones(),
            ..self.counters.clone()
        }
    }
}

/// The question that a runtime is asked about a container.
fn ask_about(life: &Life) -> Out {
    Out::Ask(Question {
        instance: life.container.instance.clone(),
        runtime: life.container.runtime,
        cgroup_path: life.identity.root.clone(),
    })
}

/// Merges what is known into a container, with secrets masked.
fn take_in(redactor: &Redactor, facts: &Facts, container: &mut Container) -> bool {
    if container.role.is_empty() {
        container.role = facts.role();
    }
    redactor.facts(facts).merge_into(container)
}

/// Who a process found running is, as an event would tell it.
fn info_of(seed: &Seed) -> ProcessInfo {
    ProcessInfo {
        key: seed.key,
        tid: seed.key.tgid,
        ppid: seed.ppid,
        uid: seed.uid,
        gid: seed.gid,
        comm: seed.comm.clone(),
        entry: seed.entry,
    }
}

/// Names under which OCI runtimes make cgroups.
fn is_runtime(comm: &[u8]) -> bool {
    [&b"runc"[..], b"crun", b"youki"]
        .iter()
        .any(|r| comm.starts_with(r))
}

/// A container of a bare OCI runtime: the last part of the path is its id.
fn unnamed(path: &str) -> Option<CgroupIdentity> {
    let id = ContainerId::parse(path.rsplit('/').next()?).ok()?;
    Some(CgroupIdentity {
        runtime: plimsoll_model::Runtime::Oci,
        id,
        root: path.to_owned(),
        outer: None,
        pod_uid: None,
    })
}

/// A container of which only the cgroup is known.
fn blank(
    instance: Instance,
    identity: &CgroupIdentity,
    cgroup_id: u64,
    anchor: &ClockAnchor,
    at: BootNs,
) -> Container {
    Container {
        cgroup_id,
        cgroup_path: identity.root.as_str().into(),
        ..Container::new(instance, identity.runtime, anchor.stamp(at))
    }
}
