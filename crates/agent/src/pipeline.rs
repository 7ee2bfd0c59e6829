//! Attribute, judge, record: one thread, one event after another.
//!
//! Promises:
//! - Everything that influences a verdict (events, identities, decisions, slots) passes through
//!   here in one order, and that is the order in the journal.
//! - Alerts go out with the batch that showed them ([`BATCH`] events at most), before the ordinary
//!   records of that batch; the observation that shows them is in the same durable commit.
//! - What is not kept is forgotten by the kernel's dictionary too, so that it is emitted again.
//! - Tables are bounded: see the constants.
//!
//! Left out: reading rings, threads, sockets, the clock's steps (all in [`crate::daemon`]).

use crate::attribution::Attribute;
use crate::clock::{Anchor, Clocks};
use crate::dense::{self, Block, Blocks};
use crate::enforce::Enforcement;
use crate::enforce::desk::{Desk, Standing};
use crate::gaps::Loss;
use crate::glance::{Glances, Wanted};
use crate::kernel::{Kernel, KernelError};
use crate::ledger::{Finding, Ledger, ShownBy};
use crate::opinion::AlertIds;
use crate::output::{Outputs, Shown};
use crate::quota::{Kind, Quota};
use crate::recorder::{self, Recorder};
use crate::rules::engine::Repeats;
use crate::rules::{Engine, Fired, Loaded, Surroundings, Watched};
use crate::shelf::{Shelf, Shelved, set_of};
use plimsoll_baseline::alert::mark;
use plimsoll_baseline::{
    Burst, BurstConfig, BurstKey, Change, Key, Offer, PathPattern, ResolvedNames, State,
    behaviours, judge,
};
use plimsoll_model::record::{Decision, Presence};
use plimsoll_model::{
    Alert, AlertId, BaselineId, BaselineRef, Behaviour, BehaviourId, BootNs, Container,
    ContainerState, Drift, Event, EventKind, FileOp, Gap, GapScope, Instance, Observation, Record,
    Stage, Stamp,
};
use plimsoll_sensor::api::Watch;
use plimsoll_workload::{ApiNews, Met, Out, Question, Scan};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// A record is durable within this while the journal keeps up: three group commits.
const DURABLE_WITHIN_NS: u64 = 150_000_000;
/// Moments of reading that are remembered, one a tick.
const READS_MAX: usize = 32;

/// Events taken from the inbox at a time: bounds how long an alert waits for its neighbours.
pub const BATCH: usize = 64;
/// Counters in one instance's block; entries of a baseline beyond are not counted in the kernel.
pub const BLOCK_MAX: u32 = 4096;
/// Changed baselines written out at a time.
pub const SAVES_MAX: usize = 4;
/// Alerts of which it is known what shows them; those whose burst has ended are forgotten.
const SHOWN_BY_MAX: usize = 8192;
/// Baselines that nobody uses stay in memory this long.
const SLEEP_AFTER_NS: u64 = 600_000_000_000;

/// A container that has gone is judged this long after, for events that come late.
const LATE_NS: u64 = 2_000_000_000;

/// Asks a runtime about an instance; `false`: its queue is full.
pub type Ask = Box<dyn Fn(Question) -> bool + Send>;

/// Looks at what runs in a container that was met late; `false`: too many wait for that.
pub type Look = Box<dyn Fn(Met) -> bool + Send>;

/// What the pipeline acts on.
pub struct Parts {
    /// The stage before.
    pub attribute: Box<dyn Attribute>,
    /// The kernel's maps.
    pub kernel: Arc<dyn Kernel>,
    /// The journal.
    pub ledger: Arc<Ledger>,
    /// The baselines.
    pub shelf: Shelf,
    /// The clocks.
    pub clocks: Arc<dyn Clocks>,
    /// The anchor in force.
    pub anchor: Arc<Anchor>,
    /// Where alerts are shown.
    pub outputs: Arc<Outputs>,
    /// Who can be asked about identities.
    pub ask: Ask,
    /// Who looks at containers that were met late.
    pub look: Look,
    /// Which instance is under which root cgroup, for the reader too.
    pub roots: Arc<Roots>,
    /// Told what rules ask of processes that have just executed.
    pub glances: Arc<Glances>,
    /// Length of a slot.
    pub slot_seconds: u32,
    /// What follows an alert.
    pub recorder: recorder::Bounds,
    /// Containers held to their baseline.
    pub enforcement: Arc<Enforcement>,
}

/// Which instance is under which root cgroup. Gone ones stay for a while, so that losses counted
/// late still find their name.
#[derive(Debug, Default)]
pub struct Roots(RwLock<RootsTable>);

#[derive(Debug, Default)]
struct RootsTable {
    live: HashMap<u64, Instance>,
    gone: VecDeque<(u64, Instance)>,
}

/// Gone root cgroups that are still known.
pub const GONE_ROOTS_MAX: usize = 1024;

impl Roots {
    /// The instance under a root cgroup.
    pub fn get(&self, cgroup_id: u64) -> Option<Instance> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let gone = || table.gone.iter().rev().find(|(c, _)| *c == cgroup_id);
        table
            .live
            .get(&cgroup_id)
            .or_else(|| gone().map(|(_, i)| i))
            .cloned()
    }
    fn of(&self, instance: &Instance) -> Option<u64> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = table.live.iter().find(|(_, i)| *i == instance);
        found.map(|(c, _)| *c)
    }
    fn insert(&self, cgroup_id: u64, instance: Instance) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.live.insert(cgroup_id, instance);
    }
    /// `true`: it was the root of a live container.
    fn remove(&self, cgroup_id: u64) -> bool {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(instance) = table.live.remove(&cgroup_id) else {
            return false;
        };
        if table.gone.len() >= GONE_ROOTS_MAX {
            table.gone.pop_front();
        }
        table.gone.push_back((cgroup_id, instance));
        true
    }
}

/// One live container.
struct Live {
    container: Arc<Container>,
    baseline: Option<BaselineId>,
    cgroup_id: Option<u64>,
    block: Option<Block>,
    /// Blocks that it had before: the recorder may still have their numbers.
    past: Vec<Block>,
    /// Counters of the block when they were last read.
    counted: Vec<u64>,
    quota: Quota,
    /// It has gone; what it did before may still be on its way.
    gone: Option<BootNs>,
}

/// A behaviour that the kernel numbered by itself while it was being learned.
struct Numbered {
    container: Arc<Container>,
    index: u32,
    counted: u64,
}

/// Totals for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Observations judged.
    pub observations: u64,
    /// Drifts found.
    pub drifts: u64,
    /// Alerts raised, repeats not counted.
    pub alerts: u64,
    /// Calls to the kernel side that failed.
    pub kernel_errors: u64,
}

/// The state of the pipeline.
pub struct Pipeline {
    parts: Parts,
    live: HashMap<Instance, Live>,
    services: HashMap<String, Vec<IpAddr>>,
    services_changed: bool,
    names: ResolvedNames,
    burst: Burst,
    blocks: Blocks,
    numbered: BTreeMap<u32, Numbered>,
    ids: AlertIds,
    findings: Vec<Finding>,
    /// What shows the alerts whose bursts are open.
    shown_by: HashMap<AlertId, Arc<ShownBy>>,
    ordinary: Vec<Ordinary>,
    slot_from: BootNs,
    totals: Totals,
    problems: Vec<String>,
    rules: Engine,
    watched: Watched,
    recorder: Recorder,
    desk: Desk,
    /// Root cgroups that ended before this agent came, with the moment at which they are gone.
    ended: Vec<(BootNs, u64)>,
    /// Until when an agent watched before this one came, in this boot: it has told what ran then.
    watched_until: BootNs,
    /// How many events had been read, and when.
    reads: VecDeque<(BootNs, u64)>,
    /// Records accepted and leaves durable, at the last look; records that a commit has covered.
    durable: (u64, u64, u64),
    /// Paths whose every use is kept, known or not.
    sensitive: Vec<(PathPattern, Vec<FileOp>)>,
}

/// A record that waits for the alerts of its batch.
struct Ordinary {
    record: Record,
    at: Stamp,
    about: Option<Instance>,
    dict: Option<[u8; 48]>,
    /// For an alert that supersedes: what showed the first record of it.
    shown_by: Option<Arc<ShownBy>>,
}

impl Pipeline {
    /// Starts empty; give it a [`Scan`] next.
    pub fn new(parts: Parts) -> Self {
        let now = parts.clocks.boot();
        Self {
            ids: AlertIds::new(parts.ledger.origin()),
            recorder: Recorder::new(parts.recorder),
            desk: Desk::new(parts.enforcement.clone(), parts.kernel.clone()),
            parts,
            live: HashMap::new(),
            services: HashMap::new(),
            services_changed: false,
            names: ResolvedNames::new(),
            burst: Burst::new(BurstConfig::default()),
            blocks: Blocks::new(dense::KERNEL_NUMBERS..dense::NUMBERS),
            numbered: BTreeMap::new(),
            findings: Vec::new(),
            shown_by: HashMap::new(),
            ordinary: Vec::new(),
            slot_from: now,
            totals: Totals::default(),
            problems: Vec::new(),
            rules: Engine::default(),
            watched: Watched::default(),
            ended: Vec::new(),
            watched_until: BootNs(0),
            reads: VecDeque::new(),
            durable: (0, 0, 0),
            sensitive: plimsoll_baseline::watched_paths(),
        }
    }

    /// Takes over what was running. Containers that the journal remembers and that still run get
    /// the gap `down`, scoped to them.
    pub fn seed(&mut self, scan: Scan, remembered: Vec<Container>, down: Option<&Gap>) {
        let (anchor, now) = self.now();
        let known: Vec<Instance> = remembered.iter().map(|c| c.instance.clone()).collect();
        for out in self.parts.attribute.seed(scan, remembered, &anchor, now) {
            self.take(out);
        }
        let Some(down) = down else {
            return;
        };
        for instance in known {
            if self.live.get(&instance).is_some_and(|l| l.gone.is_none()) {
                let gap = Gap {
                    scope: GapScope::Container(instance.clone()),
                    ..down.clone()
                };
                let at = gap.to;
                self.write(Record::Gap(gap), at, Some(instance), None);
            }
        }
        self.flush();
    }

    /// Until when an agent before this one watched, in this boot of the machine.
    pub fn watched_until(&mut self, until: BootNs) {
        self.watched_until = until;
    }

    /// These root cgroups had ended before this agent came; their last acts are still to be read. What
    /// has not said so by itself by then is gone.
    pub fn gone_by(&mut self, roots: Vec<u64>, until: BootNs) {
        self.ended = roots.into_iter().map(|root| (until, root)).collect();
    }

    fn end_late(&mut self, now: BootNs) {
        let due: Vec<u64> = self
            .ended
            .extract_if(.., |(until, _)| *until < now)
            .map(|(_, root)| root)
            .collect();
        for id in due {
            let mut event = Event::new(EventKind::CgroupRmdir { id });
            (event.cgroup_id, event.boot) = (id, now);
            self.events(&mut vec![event]);
        }
    }

    /// Tells the kernel side how many of the events read so far are not durable yet, at most: those in
    /// the queue before us, those that wait for an identity, and all of the last moments. While the
    /// journal does not keep up nothing is told, so that everything since counts.
    pub fn note_in_hand(&mut self, queued: usize) {
        let (_, now) = self.now();
        let read = self.parts.kernel.events_read();
        self.reads.push_back((now, read));
        while self.reads.len() > READS_MAX {
            self.reads.pop_front();
        }
        let Some(status) = self.parts.ledger.status() else {
            return;
        };
        let at = (self.parts.ledger.accepted(), status.health.durable);
        let (accepted, durable, covered) = self.durable;
        let advanced = at.1 > durable;
        // what had been accepted a tick before a commit is in it
        let covered = if advanced { accepted } else { covered };
        self.durable = (at.0, at.1, covered);
        let keeps_up = status.queued == 0 && (advanced || at.0 == covered);
        let old = self
            .reads
            .iter()
            .rev()
            .find(|(t, _)| t.0 + DURABLE_WITHIN_NS < now.0);
        if let (true, Some((_, old))) = (keeps_up, old) {
            let waiting = queued + self.parts.attribute.counters().pending;
            let held = waiting as u64 + read.saturating_sub(*old);
            self.parts.kernel.note_in_hand(read, held);
        }
    }

    /// Takes a batch of events.
    pub fn events(&mut self, batch: &mut Vec<Event>) {
        self.events_between(batch, |_| ());
    }

    /// The same; before each event those that `made` hands over come first.
    pub fn events_between(&mut self, batch: &mut Vec<Event>, made: impl Fn(&mut Vec<Event>)) {
        let (anchor, now) = self.now();
        let mut first = Vec::new();
        for event in batch.drain(..) {
            made(&mut first);
            if !first.is_empty() {
                let (anchor, now) = self.now();
                for event in first.drain(..) {
                    self.event(event, &anchor, now);
                }
            }
            self.event(event, &anchor, now);
        }
        self.flush();
    }

    fn event(&mut self, event: Event, anchor: &plimsoll_model::ClockAnchor, now: BootNs) {
        for out in self.parts.attribute.attribute(event, anchor, now) {
            self.take(out);
        }
    }

    /// Takes what a runtime said.
    pub fn news(&mut self, news: ApiNews) {
        let outs = match news {
            ApiNews::Confirmed { instance, facts } => {
                self.parts.attribute.confirmed(&instance, &facts)
            }
            ApiNews::Renamed { id, name } => self.parts.attribute.renamed(&id, &name),
            // identity stays as disk gave it; the attributor says what is unknown and why
            ApiNews::NoAnswer {
                instance,
                why,
                late,
            } => self.parts.attribute.unanswered(&instance, &why, late),
            ApiNews::Changed { id } => self.parts.attribute.changed(&id),
            ApiNews::Connected { runtime, again, .. } if again => {
                self.parts.attribute.answers_again(runtime)
            }
            ApiNews::Connected { .. } => Vec::new(),
            ApiNews::Disconnected { socket, why, .. } => {
                self.problem(format!("runtime at {}: {why}", socket.display()));
                Vec::new()
            }
        };
        for out in outs {
            self.take(out);
        }
        self.flush();
    }

    /// Takes what was found running in a container that was met late.
    pub fn met(&mut self, scan: Scan) {
        let (anchor, now) = self.now();
        for out in self.parts.attribute.met(scan, &anchor, now) {
            self.take(out);
        }
        self.flush();
    }

    /// Lets time pass: identities that waited, bursts that ended, slots. Call it every 50 ms or so.
    pub fn tick(&mut self) {
        let (anchor, now) = self.now();
        for out in self.parts.attribute.tick(&anchor, now) {
            self.take(out);
        }
        for alert in self.burst.expire(now) {
            self.repeat(alert);
        }
        self.bury(now);
        self.end_late(now);
        for (dict, repeats) in self.watched.again() {
            // the kernel was still writing its entry; an entry that has gone is emitted anew anyway
            let _ = self.tell_repeats(&dict, repeats);
        }
        self.look_at_enforcement(now);
        let slot_ns = u64::from(self.parts.slot_seconds.max(1)) * 1_000_000_000;
        if now.0.saturating_sub(self.slot_from.0) >= slot_ns {
            self.slot(now);
        }
        if std::mem::take(&mut self.services_changed) {
            self.reload_services();
        }
        self.flush();
    }

    fn now(&self) -> (plimsoll_model::ClockAnchor, BootNs) {
        (self.parts.anchor.get(), self.parts.clocks.boot())
    }

    fn take(&mut self, out: Out) {
        match out {
            Out::Observation(observation) => self.observe(observation),
            Out::Container(container) => self.container(container),
            Out::Watch {
                cgroup_id,
                instance,
            } => {
                let live = self.live.get(&instance);
                let root = live.and_then(|l| l.cgroup_id);
                // a new root: the runtime filled the second hierarchy before the first
                let is_root = live.is_some_and(|l| l.container.cgroup_id == cgroup_id);
                self.parts.roots.insert(cgroup_id, instance.clone());
                match root {
                    // a cgroup below it that the kernel did not know to be the container's
                    Some(root) if root != cgroup_id && !is_root => {
                        let adopted = self.parts.kernel.adopt(cgroup_id, root);
                        self.tried(adopted);
                    }
                    _ => {
                        if let Some(live) = self.live.get_mut(&instance) {
                            live.cgroup_id = Some(cgroup_id);
                        }
                        self.watch(&instance, cgroup_id);
                    }
                }
            }
            Out::Unwatch { cgroup_id } => self.unwatch(cgroup_id),
            Out::Ask(question) => {
                let instance = question.instance.clone();
                if !(self.parts.ask)(question) {
                    let refused = "too many questions to runtimes were waiting";
                    for out in self.parts.attribute.unanswered(&instance, refused, false) {
                        self.take(out);
                    }
                }
            }
            Out::Met(met) => {
                let (_, now) = self.now();
                let instance = met.instance.clone();
                if !(self.parts.look)(met) {
                    self.parts.ledger.note(Loss {
                        stage: Stage::Table,
                        instance: Some(instance),
                        count: None,
                        from: now,
                        to: now,
                        reason: "too many containers were met late at once: what ran in them is not judged".into(),
                    });
                }
            }
            Out::Gap(gap) => self.parts.ledger.note(loss_of(gap)),
        }
    }

    // ---- observations ----

    fn observe(&mut self, mut observation: Observation) {
        if observation.found_since().is_some() && self.was_told(&observation) {
            return;
        }
        self.totals.observations += 1;
        self.names.note(&observation);
        let instance = observation.instance.as_ref();
        let live = instance.and_then(|i| self.live.get(i));
        let container = live.map(|l| l.container.clone());
        // first, because what rules flag is not learned
        let fired = self.judge_rules(&observation, container.as_deref());
        let live = instance.and_then(|i| self.live.get_mut(i));
        let (Some(container), Some(live)) = (container, live) else {
            self.desk.release(&mut observation);
            return self.raise(observation, None, Vec::new(), fired, &[]);
        };
        // everything is judged; what is known may be too much to keep
        let kept = quota_kind(&observation.event.kind)
            .is_none_or(|kind| live.quota.admit(kind, observation.event.boot.0));
        let all = behaviours(&observation, &container, &self.names);
        if observation.found_since().is_none() {
            self.desk.judge(&mut observation, &container, &all);
        }
        let (kernel, event) = (&self.parts.kernel, &observation.event);
        self.recorder
            .note(event, &container.instance, &all, |d| kernel.use_key(d));
        let shelved = live
            .baseline
            .as_ref()
            .and_then(|id| self.parts.shelf.get_mut(id));
        let drifts = match shelved {
            Some(shelved) => {
                let flag = self.rules.flag(&fired);
                let baseline = &mut shelved.baseline;
                let verdict = baseline.observe_flagged(&observation, &container, &all, flag);
                shelved.dirty |= !verdict.is_known();
                let dense = observation.event.dense;
                if (1..dense::KERNEL_NUMBERS).contains(&dense)
                    && let Some(&index) = verdict.known.first().or(verdict.learned.first())
                {
                    self.numbered.entry(dense).or_insert(Numbered {
                        container: container.clone(),
                        index,
                        counted: 0,
                    });
                }
                verdict.drifts
            }
            None => judge(&observation, &container, None, &all).drifts,
        };
        self.watch_repeats(&observation, &container, &fired);
        if drifts.is_empty() && fired.is_empty() && self.is_counted_repeat(&observation) {
            return;
        }
        if drifts.is_empty() && fired.is_empty() && !kept {
            return self.sampled(&observation);
        }
        self.raise(observation, Some(&container), drifts, fired, &all);
    }

    /// Whether a program found running is no news: its process ran when an agent watched, and what is
    /// strange about it waits for a person already.
    fn was_told(&self, obs: &Observation) -> bool {
        if obs.event.process.key.start >= self.watched_until {
            return false;
        }
        let live = obs.instance.as_ref().and_then(|i| self.live.get(i));
        let Some(live) = live else {
            return true;
        };
        let id = live.baseline.as_ref();
        let Some(shelved) = id.and_then(|id| self.parts.shelf.get(id)) else {
            return true;
        };
        let (container, baseline) = (&live.container, &shelved.baseline);
        let all = behaviours(obs, container, &self.names);
        let drifts = judge(obs, container, Some(baseline), &all).drifts;
        drifts.iter().all(|drift| baseline.has_told(drift))
    }

    /// The rules that fire, by the names known so far.
    fn judge_rules(&mut self, obs: &Observation, container: Option<&Container>) -> Vec<Fired> {
        let around = Surroundings {
            names: &self.names,
            node: self.parts.ledger.origin().as_str(),
        };
        self.rules.judge(obs, container, around)
    }

    /// Where a repeat might make a rule true, the kernel emits it every time.
    fn watch_repeats(&mut self, obs: &Observation, container: &Container, fired: &[Fired]) {
        let Some(dict) = obs
            .event
            .dict
            .filter(|_| !self.watched.is_fresh(&obs.event))
        else {
            return;
        };
        let around = Surroundings {
            names: &self.names,
            node: self.parts.ledger.origin().as_str(),
        };
        let repeats = match self.rules.repeats(obs, Some(container), around) {
            Repeats::Never if !fired.is_empty() => Repeats::Each,
            repeats => repeats,
        };
        if repeats == Repeats::Never {
            return;
        }
        match self.tell_repeats(&dict, repeats) {
            Ok(kept) => self.watched.note(dict, repeats, obs.event.boot, kept),
            Err(e) => self.tried(Err(e)),
        }
    }

    fn tell_repeats(&self, dict: &[u8; 48], repeats: Repeats) -> Result<bool, KernelError> {
        match repeats {
            Repeats::Never => Ok(true),
            Repeats::Each => self.parts.kernel.emit_again(dict),
            Repeats::Upward => self.parts.kernel.emit_upward(dict),
        }
    }

    /// A repeat that is here for the rules alone, and none fired: the kernel has counted it.
    fn is_counted_repeat(&self, obs: &Observation) -> bool {
        let sensitive = || match &obs.event.kind {
            EventKind::File(f) => self.sensitive.iter().any(|(p, ops)| {
                (ops.is_empty() || ops.contains(&f.op)) && p.matches(f.path.as_bytes())
            }),
            _ => false,
        };
        self.watched.repeats(&obs.event) && !sensitive()
    }

    /// The first of a burst is raised with its observation; repeats are kept and counted.
    fn raise(
        &mut self,
        observation: Observation,
        container: Option<&Arc<Container>>,
        drifts: Vec<Drift>,
        fired: Vec<Fired>,
        all: &[Behaviour],
    ) {
        if drifts.is_empty() && fired.is_empty() {
            return self.keep(observation);
        }
        self.totals.drifts += drifts.len() as u64;
        let mut finding = Finding {
            observation,
            drifts: Vec::with_capacity(drifts.len()),
            alerts: Vec::new(),
            shown_by: Arc::default(),
        };
        for drift in drifts {
            let ids = &mut self.ids;
            let observation = &finding.observation;
            let shelf = &self.parts.shelf;
            let enforced = observation.event.enforced;
            let offer = self.burst.offer_drift(&drift, enforced, || {
                crate::opinion::alert_of(ids, &drift, observation, container?, shelf)
            });
            match offer {
                Offer::New(alert) => {
                    finding.drifts.push(drift);
                    finding.alerts.push(alert);
                }
                Offer::Nothing => finding.drifts.push(drift),
                Offer::Update(alert) => self.repeat(alert),
                Offer::Held => {}
            }
        }
        for fired in fired {
            let obs = &finding.observation;
            match self.offer_rule(fired, obs, container.map(|c| &**c), all) {
                Offer::New(alert) => finding.alerts.push(alert),
                Offer::Update(alert) => self.repeat(alert),
                Offer::Held | Offer::Nothing => {}
            }
        }
        if finding.drifts.is_empty() && finding.alerts.is_empty() {
            return self.keep(finding.observation);
        }
        self.totals.alerts += finding.alerts.len() as u64;
        if let Some(instance) = finding.observation.instance.as_ref()
            && !finding.alerts.is_empty()
        {
            self.recorder.want(instance);
        }
        self.remember_what_shows(&finding);
        self.findings.push(finding);
    }

    fn remember_what_shows(&mut self, finding: &Finding) {
        if self.shown_by.len() >= SHOWN_BY_MAX {
            let open: HashSet<&AlertId> = self.burst.open_alerts().collect();
            self.shown_by.retain(|id, _| open.contains(id));
        }
        for alert in &finding.alerts {
            let shown_by = finding.shown_by.clone();
            self.shown_by.insert(alert.id.clone(), shown_by);
        }
    }

    /// Equal acts by the same rule in the same instance are one burst.
    fn offer_rule(
        &mut self,
        fired: Fired,
        obs: &Observation,
        container: Option<&Container>,
        all: &[Behaviour],
    ) -> Offer {
        let Some(loaded) = self.rules.loaded() else {
            return Offer::Nothing;
        };
        let name = &loaded.set.rule(fired.rule).name;
        let act = match all.first() {
            Some(behaviour) => behaviour.id().to_string(),
            None => format!("{} {}", fired.kind, obs.program()),
        };
        let act = match obs.event.enforced {
            None => act,
            Some(done) => format!("{act} {}", done.as_str()),
        };
        let key = BurstKey::of_rule(obs.instance.as_ref(), name, &act);
        let (ids, rules) = (&mut self.ids, &self.rules);
        let around = Surroundings {
            names: &self.names,
            node: self.parts.ledger.origin().as_str(),
        };
        self.burst.offer(key, obs.at, obs.count.max(1), || {
            let mut alert = rules.alert(fired, ids.next(obs.at), obs, container, around)?;
            mark(&mut alert, obs.event.enforced);
            Some(alert)
        })
    }

    /// Puts a set of rules in force; the journal has it before the first verdict by it.
    pub fn set_rules(&mut self, loaded: Arc<Loaded>) {
        let at = self.parts.anchor.stamp(self.parts.clocks.boot());
        let first = self.rules.loaded().is_none();
        let replaced = self.rules.loaded().map_or("", |l| l.id.as_str());
        let record = Record::RuleSet(loaded.record(at, replaced));
        // what was judged by the set before goes first
        self.flush();
        self.parts.ledger.record_urgent(&record, at, None);
        let wanted = Wanted::by(&loaded);
        let asked = self
            .parts
            .kernel
            .ask_for_environments(wanted.asks_for_environments());
        self.tried(asked);
        self.parts.glances.want(wanted);
        self.rules.replace(loaded);
        self.watched.clear();
        if first {
            return;
        }
        // other behaviours may be left to the dictionary now
        self.reload_sets(|shelved| shelved.loaded > 0);
        let bumped = self.parts.kernel.bump_generation();
        self.tried(bumped);
    }

    /// The rules in force.
    pub fn rules(&self) -> &Engine {
        &self.rules
    }

    fn keep(&mut self, observation: Observation) {
        let (at, about) = (observation.at, observation.instance.clone());
        let dict = observation.event.dict;
        self.write(Record::Observation(observation), at, about, dict);
    }

    /// A repeat whose count is due: supersedes the first record of its alert, shown by the same
    /// observation.
    fn repeat(&mut self, alert: Alert) {
        let shown_by = self.shown_by.get(&alert.id).cloned();
        self.show(&alert);
        self.ordinary.push(Ordinary {
            at: alert.last,
            about: alert.instance.clone(),
            record: Record::Alert(alert),
            dict: None,
            shown_by: Some(shown_by.unwrap_or_default()),
        });
    }

    fn show(&self, alert: &Alert) {
        let live = alert.instance.as_ref().and_then(|i| self.live.get(i));
        self.parts.outputs.show(Shown {
            alert: alert.clone(),
            container: live.map(|l| l.container.clone()),
        });
    }

    fn sampled(&mut self, observation: &Observation) {
        self.parts.ledger.note(Loss {
            stage: Stage::Sampled,
            instance: observation.instance.clone(),
            count: Some(observation.count.max(1)),
            from: observation.event.boot,
            to: observation.event.boot,
            reason: "more processes started and ended than are kept for one container".into(),
        });
        self.forget(observation.event.dict);
    }

    fn write(
        &mut self,
        record: Record,
        at: Stamp,
        about: Option<Instance>,
        dict: Option<[u8; 48]>,
    ) {
        self.ordinary.push(Ordinary {
            record,
            at,
            about,
            dict,
            shown_by: None,
        });
    }

    /// Alerts first, then everything else of the batch.
    fn flush(&mut self) {
        if !self.findings.is_empty() {
            // they are large: room for a batch, so that they are not moved as it grows
            let findings = std::mem::replace(&mut self.findings, Vec::with_capacity(BATCH));
            let (alerting, quiet): (Vec<_>, Vec<_>) =
                match findings.iter().all(|f| f.alerts.is_empty()) {
                    true => (Vec::new(), findings),
                    false => findings.into_iter().partition(|f| !f.alerts.is_empty()),
                };
            let alerts = alerting.iter().flat_map(|f| f.alerts.iter().cloned());
            let shown: Vec<Alert> = alerts.collect();
            self.hand_over(alerting, Ledger::raise);
            shown.iter().for_each(|alert| self.show(alert));
            self.hand_over(quiet, Ledger::keep);
        }
        let mut ordinary = std::mem::take(&mut self.ordinary);
        for o in ordinary.drain(..) {
            if let (Record::Alert(alert), Some(shown_by)) = (&o.record, &o.shown_by) {
                let ledger = &self.parts.ledger;
                ledger.supersede(alert.clone(), shown_by.clone());
                continue;
            }
            if !self.parts.ledger.record(&o.record, o.at, o.about.as_ref()) {
                self.forget(o.dict);
            }
        }
        // the room is used again by the next batch
        self.ordinary = ordinary;
        self.record_minutes(false);
    }

    /// What the recorder has for the alerts of this batch, and what streams have brought.
    fn record_minutes(&mut self, all: bool) {
        let now = self.parts.clocks.boot();
        let (live, shelf, anchor) = (&self.live, &self.parts.shelf, &self.parts.anchor);
        let in_block = |instance: &Instance, number: u32| {
            let live = live.get(instance)?;
            let shelved = shelf.get(live.baseline.as_ref()?)?;
            let blocks = live.block.iter().chain(live.past.iter().rev());
            let within = |b: &&Block| (b.base..b.base + b.len).contains(&number);
            let block = blocks.into_iter().find(within)?;
            let known = shelved.baseline.entry(number - block.base)?;
            Some(known.behaviour.clone())
        };
        let sources = recorder::Sources {
            kernel: &*self.parts.kernel,
            root: &|instance| live.get(instance)?.cgroup_id,
            in_block: &in_block,
            stamp: &|boot| anchor.stamp(boot),
        };
        for recording in self.recorder.due(now, all, &sources) {
            let (at, about) = (recording.to, recording.instance.clone());
            let record = Record::Recording(recording);
            self.parts.ledger.record(&record, at, Some(&about));
        }
    }

    /// Uses of containers that stream.
    pub fn streamed(&mut self, uses: Vec<plimsoll_sensor::api::Use>) {
        self.recorder.streamed(uses);
    }

    fn hand_over(&mut self, findings: Vec<Finding>, to: fn(&Ledger, Vec<Finding>) -> bool) {
        if findings.is_empty() {
            return;
        }
        let dicts: Vec<_> = findings.iter().map(|f| f.observation.event.dict).collect();
        if !to(&self.parts.ledger, findings) {
            dicts.into_iter().for_each(|dict| self.forget(dict));
        }
    }

    fn forget(&mut self, dict: Option<[u8; 48]>) {
        if let Some(dict) = dict {
            let forgotten = self.parts.kernel.forget(&dict);
            self.tried(forgotten);
        }
    }

    // ---- containers ----

    fn container(&mut self, container: Container) {
        let (anchor, now) = self.now();
        let at = anchor.stamp(now);
        let instance = container.instance.clone();
        // at once, not with the batch: a reader meets the name before what its bearer did
        let record = Record::Container(container);
        self.parts.ledger.record(&record, at, Some(&instance));
        let Record::Container(container) = record else {
            return;
        };
        if container.state == ContainerState::Gone {
            return self.gone(&instance, &container, now);
        }
        let container = Arc::new(container);
        let before = self.live.get(&instance).map(|l| l.container.clone());
        self.place(before.as_deref(), Some(&container));
        match self.live.get_mut(&instance) {
            Some(live) => live.container = container.clone(),
            None => {
                let cgroup = self.parts.roots.of(&instance);
                self.live.insert(
                    instance.clone(),
                    Live {
                        container: container.clone(),
                        baseline: None,
                        cgroup_id: cgroup,
                        block: None,
                        past: Vec::new(),
                        counted: Vec::new(),
                        quota: Quota::default(),
                        gone: None,
                    },
                );
            }
        }
        if container.state == ContainerState::Running {
            self.attach(&instance, &container, at);
            // labels may have been learned since
            self.hold(&instance);
        }
    }

    /// Gives a container the baseline of its image and role, or another one when those changed.
    fn attach(&mut self, instance: &Instance, container: &Arc<Container>, at: Stamp) {
        let Some(key) = Key::of(container) else {
            return;
        };
        let id = key.id();
        let held = self.live.get(instance).and_then(|l| l.baseline.clone());
        if held.as_ref() == Some(&id) {
            return;
        }
        if let Some(held) = held {
            self.detach(instance, &held, at.boot);
        }
        match self.parts.shelf.take(&key, container, at) {
            Err(e) => self.problem(format!("{}: {e}", container.display_name())),
            Ok((id, made)) => {
                if let Some(live) = self.live.get_mut(instance) {
                    live.baseline = Some(id.clone());
                }
                let Some(shelved) = self.parts.shelf.get_mut(&id) else {
                    return;
                };
                shelved.baseline.note_start(container, at);
                shelved.dirty = true;
                if made {
                    let record = Record::Baseline(shelved.baseline.encode());
                    self.parts.ledger.record(&record, at, None);
                }
                self.load(&id);
                if let Some(cgroup_id) = self.live.get(instance).and_then(|l| l.cgroup_id) {
                    self.watch(instance, cgroup_id);
                }
            }
        }
    }

    fn detach(&mut self, instance: &Instance, id: &BaselineId, now: BootNs) {
        if let Some(shelved) = self.parts.shelf.get_mut(id) {
            shelved.baseline.note_gone(instance);
            shelved.dirty = true;
        }
        self.parts.shelf.give_back(id, now.0);
        if let Some(live) = self.live.get_mut(instance) {
            live.baseline = None;
            live.counted.clear();
            if let Some(block) = live.block.take() {
                self.blocks.give_back(block);
            }
        }
    }

    /// Its events may still be in the other ring: it is judged for a while longer.
    fn gone(&mut self, instance: &Instance, container: &Container, now: BootNs) {
        self.place(Some(container), None);
        if let Some(live) = self.live.get_mut(instance) {
            live.gone = Some(now);
        }
    }

    fn bury(&mut self, now: BootNs) {
        let over = |l: &Live| l.gone.is_some_and(|g| now.0.saturating_sub(g.0) >= LATE_NS);
        let gone: Vec<Instance> = self
            .live
            .iter()
            .filter(|(_, l)| over(l))
            .map(|(i, _)| i.clone())
            .collect();
        if !gone.is_empty() {
            // before what its counters stand for is forgotten
            self.record_minutes(false);
            let (live, kernel) = (&self.live, &*self.parts.kernel);
            self.recorder
                .bury(&gone, kernel, |i| live.get(i)?.cgroup_id);
        }
        for instance in &gone {
            self.count_slot(instance, now);
            if let Some(id) = self.live.get(instance).and_then(|l| l.baseline.clone()) {
                self.detach(instance, &id, now);
            }
            self.names.forget(instance);
            let cgroup = self.live.get(instance).and_then(|l| l.cgroup_id);
            let released = self.desk.let_go(instance, cgroup);
            self.tried(released);
            // its cgroup is let go of by the attributor's own word
            self.live.remove(instance);
        }
        if !gone.is_empty() {
            self.numbered
                .retain(|_, n| self.live.contains_key(&n.container.instance));
        }
    }

    /// Addresses of a container, by which others know its service.
    fn place(&mut self, before: Option<&Container>, after: Option<&Container>) {
        let addresses = |c: Option<&Container>| -> Vec<IpAddr> {
            let listed = c.map(|c| c.addresses.as_slice()).unwrap_or_default();
            listed.iter().filter_map(|a| a.parse().ok()).collect()
        };
        let (old, new) = (addresses(before), addresses(after));
        let role = |c: Option<&Container>| c.map(|c| c.role.clone()).unwrap_or_default();
        if old == new && role(before) == role(after) {
            return;
        }
        for ip in old {
            self.names.remove_service(ip);
            self.services
                .values_mut()
                .for_each(|ips| ips.retain(|i| *i != ip));
        }
        if let Some(container) = after.filter(|c| !c.role.is_empty()) {
            let ips = self.services.entry(container.role.clone()).or_default();
            for ip in new {
                if self.names.set_service(ip, &container.role) {
                    ips.push(ip);
                }
            }
        }
        self.services.retain(|_, ips| !ips.is_empty());
        self.services_changed = true;
    }

    // ---- the kernel's dictionary ----

    fn watch(&mut self, instance: &Instance, cgroup_id: u64) {
        let Some(live) = self.live.get_mut(instance) else {
            let watched = self.parts.kernel.watch(&Watch {
                cgroup_id,
                set: 0,
                dense_base: 0,
                dense_len: 0,
            });
            return self.tried(watched);
        };
        let shelved = live
            .baseline
            .as_ref()
            .and_then(|id| self.parts.shelf.get_mut(id))
            .filter(|s| s.loaded > 0);
        let wanted = shelved
            .as_ref()
            .map_or(0, |s| (s.ids.len() as u32).min(BLOCK_MAX));
        if live.block.map_or(0, |b| b.len) < wanted {
            if let Some(block) = live.block.take() {
                self.blocks.give_back(block);
                live.past.truncate(3);
                live.past.push(block);
            }
            live.block = self.blocks.take(wanted);
            live.counted = match live.block {
                // counters are never reset: a block used before starts where it stands
                Some(block) => self.parts.kernel.counts(block.base, block.len),
                None => Vec::new(),
            };
        }
        let watched = self.parts.kernel.watch(&Watch {
            cgroup_id,
            set: shelved.map_or(0, |s| s.set),
            dense_base: live.block.map_or(0, |b| b.base),
            dense_len: live.block.map_or(0, |b| b.len),
        });
        self.tried(watched);
        self.hold(instance);
    }

    // ---- enforcement ----

    /// Holds a container as policy, switch and baseline say now.
    fn hold(&mut self, instance: &Instance) {
        let Some(live) = self.live.get(instance).filter(|l| l.gone.is_none()) else {
            return;
        };
        let baseline = live
            .baseline
            .as_ref()
            .and_then(|id| self.parts.shelf.get(id));
        let held = self.desk.settle(&live.container, live.cgroup_id, baseline);
        self.tried(held);
    }

    fn look_at_enforcement(&mut self, now: BootNs) {
        if self.desk.is_stale() {
            let all: Vec<Instance> = self.live.keys().cloned().collect();
            all.iter().for_each(|instance| self.hold(instance));
        }
        let due = self.desk.due(self.parts.anchor.stamp(now));
        self.prevented(due);
    }

    fn prevented(&mut self, due: Vec<plimsoll_model::Prevention>) {
        for prevention in due {
            let (at, about) = (prevention.last, prevention.instance.clone());
            self.write(Record::Prevention(prevention), at, Some(about), None);
        }
    }

    /// How each live container is held, with its name.
    pub fn standings(&self) -> Vec<(Arc<Container>, Standing)> {
        let live = self.live.iter().filter(|(_, l)| l.gone.is_none());
        let of = |(i, l): (&Instance, &Live)| {
            Some((l.container.clone(), self.desk.standing(i)?.clone()))
        };
        let mut all: Vec<_> = live.filter_map(of).collect();
        all.sort_by(|a, b| a.0.display_name().cmp(b.0.display_name()));
        all
    }

    fn unwatch(&mut self, cgroup_id: u64) {
        let done = if self.parts.roots.remove(cgroup_id) {
            self.parts.kernel.unwatch(cgroup_id)
        } else {
            self.parts.kernel.ignore(cgroup_id)
        };
        self.tried(done);
    }

    /// Brings the kernel's set of a baseline up to its present version; `true` when it changed.
    fn load(&mut self, id: &BaselineId) -> bool {
        let Some(shelved) = self.parts.shelf.get_mut(id) else {
            return false;
        };
        let version = shelved.baseline.version();
        let wanted = match shelved.baseline.state() {
            State::Learning => 0,
            State::Ready | State::Locked => version,
        };
        if shelved.loaded == wanted {
            return false;
        }
        let done = if wanted == 0 {
            shelved.ids = Vec::new();
            self.parts.kernel.drop_set(shelved.set)
        } else {
            let (mut entries, resolved) = set_of(&shelved.baseline, &self.services);
            // what might make a rule true is not left to the dictionary
            entries.retain(|known| !self.rules.could_fire(known));
            shelved.services = resolved;
            shelved.ids = ids_of(&shelved.baseline);
            self.parts.kernel.load_set(shelved.set, &entries)
        };
        if done.is_ok() {
            shelved.loaded = wanted;
        }
        self.tried(done);
        true
    }

    /// A baseline changed: its set, what the kernel remembers, and its users' counters follow.
    fn changed(&mut self, id: &BaselineId) {
        if !self.load(id) {
            return;
        }
        let users: Vec<(Instance, u64)> = self
            .live
            .iter()
            .filter(|(_, l)| l.baseline.as_ref() == Some(id))
            .filter_map(|(i, l)| Some((i.clone(), l.cgroup_id?)))
            .collect();
        for (instance, cgroup_id) in users {
            self.watch(&instance, cgroup_id);
        }
        // after the set: an entry that becomes a miss now is looked up in the new set
        let bumped = self.parts.kernel.bump_generation();
        self.tried(bumped);
    }

    /// A decision can change how containers are held, whether or not it changes the set.
    fn hold_users(&mut self, id: &BaselineId) {
        let uses = |l: &Live| l.baseline.as_ref() == Some(id);
        let users = self.live.iter().filter(|(_, l)| uses(l));
        let users: Vec<Instance> = users.map(|(i, _)| i.clone()).collect();
        users.iter().for_each(|instance| self.hold(instance));
    }

    fn reload_services(&mut self) {
        self.reload_sets(|s| s.services && s.loaded > 0);
    }

    /// Loads the sets of baselines again, with the rules and addresses of now.
    fn reload_sets(&mut self, which: impl Fn(&Shelved) -> bool) {
        let affected: Vec<BaselineId> = self
            .parts
            .shelf
            .awake_mut()
            .filter(|(_, s)| which(s))
            .map(|(id, _)| id.clone())
            .collect();
        for id in affected {
            let Some(shelved) = self.parts.shelf.get_mut(&id) else {
                continue;
            };
            let (mut entries, _) = set_of(&shelved.baseline, &self.services);
            entries.retain(|known| !self.rules.could_fire(known));
            let loaded = self.parts.kernel.load_set(shelved.set, &entries);
            self.tried(loaded);
        }
    }

    fn tried(&mut self, outcome: Result<(), KernelError>) {
        if let Err(e) = outcome {
            self.totals.kernel_errors += 1;
            self.problem(format!("kernel side: {e}"));
        }
    }

    fn problem(&mut self, what: String) {
        const MOST: usize = 16;
        if !self.problems.contains(&what) {
            self.problems.truncate(MOST - 1);
            self.problems.insert(0, what);
        }
    }

    // ---- slots ----

    fn slot(&mut self, now: BootNs) {
        let instances: Vec<Instance> = self.live.keys().cloned().collect();
        self.count_numbered(now);
        for instance in &instances {
            self.count_slot(instance, now);
        }
        self.slot_from = now;
        let at = self.parts.anchor.stamp(now);
        let ready: Vec<(BaselineId, Vec<u8>)> = self
            .parts
            .shelf
            .awake_mut()
            .filter_map(|(id, s)| {
                s.dirty |= s.users > 0;
                match s.baseline.refresh(at)? {
                    Change::Ready { .. } | Change::Decided(_) => {
                        Some((id.clone(), s.baseline.encode()))
                    }
                }
            })
            .collect();
        for (id, bytes) in ready {
            // the version is in the journal before anything is judged by it
            self.parts.ledger.record(&Record::Baseline(bytes), at, None);
            self.changed(&id);
            self.hold_users(&id);
        }
        for set in self.parts.shelf.put_to_sleep(now.0, SLEEP_AFTER_NS) {
            let dropped = self.parts.kernel.drop_set(set);
            self.tried(dropped);
            let dropped = self.desk.drop_set(set);
            self.tried(dropped);
        }
    }

    /// What an instance's block of counters has counted since it was last read.
    fn count_slot(&mut self, instance: &Instance, now: BootNs) {
        let at = self.parts.anchor.stamp(now);
        let from = self.parts.anchor.stamp(self.slot_from);
        let Some(live) = self.live.get_mut(instance) else {
            return;
        };
        let Some(shelved) = live
            .baseline
            .as_ref()
            .and_then(|id| self.parts.shelf.get_mut(id))
        else {
            return;
        };
        shelved.baseline.note_alive(&live.container, at);
        let Some(block) = live.block else {
            return;
        };
        let counts = self.parts.kernel.counts(block.base, block.len);
        let present: Vec<(u32, u64)> = counts
            .iter()
            .zip(&live.counted)
            .enumerate()
            .filter_map(|(i, (now, before))| {
                let new = now.wrapping_sub(*before);
                (new > 0).then_some((i as u32, new))
            })
            .collect();
        live.counted = counts;
        if present.is_empty() {
            return;
        }
        shelved
            .baseline
            .note_presence(&live.container, at, &present);
        let counts: Vec<(BehaviourId, u64)> = present
            .iter()
            .filter_map(|(i, n)| Some((*shelved.ids.get(*i as usize)?, *n)))
            .collect();
        let presence = Presence {
            instance: instance.clone(),
            from,
            to: at,
            counts,
        };
        self.write(Record::Presence(presence), at, Some(instance.clone()), None);
    }

    /// The same for behaviours that the kernel numbered by itself while they were learned.
    fn count_numbered(&mut self, now: BootNs) {
        let Some((&last, _)) = self.numbered.last_key_value() else {
            return;
        };
        let at = self.parts.anchor.stamp(now);
        let from = self.parts.anchor.stamp(self.slot_from);
        let counts = self.parts.kernel.counts(0, last + 1);
        let mut present: BTreeMap<Instance, Vec<(u32, u64)>> = BTreeMap::new();
        for (number, numbered) in &mut self.numbered {
            let total = counts.get(*number as usize).copied().unwrap_or(0);
            let new = total.saturating_sub(numbered.counted);
            numbered.counted = total;
            if new > 0 {
                let of_instance = present
                    .entry(numbered.container.instance.clone())
                    .or_default();
                of_instance.push((numbered.index, new));
            }
        }
        for (instance, counts) in present {
            let Some(live) = self.live.get(&instance) else {
                continue;
            };
            let Some(shelved) = live
                .baseline
                .as_ref()
                .and_then(|id| self.parts.shelf.get_mut(id))
            else {
                continue;
            };
            shelved.baseline.note_presence(&live.container, at, &counts);
            let counts = counts
                .iter()
                .filter_map(|(i, n)| Some((shelved.baseline.entry(*i)?.behaviour.id(), *n)))
                .collect();
            let presence = Presence {
                instance: instance.clone(),
                from,
                to: at,
                counts,
            };
            self.write(Record::Presence(presence), at, Some(instance), None);
        }
    }

    // ---- for the other threads ----

    /// Carries a decision about a baseline out and journals it, and the version that it made.
    pub fn decided(&mut self, id: &BaselineId, decision: Decision) -> Option<BaselineRef> {
        let at = decision.at;
        let shelved = self.parts.shelf.get_mut(id)?;
        shelved.dirty = true;
        let reference = shelved.baseline.reference();
        let bytes = shelved.baseline.encode();
        self.parts
            .ledger
            .record_urgent(&Record::Decision(decision), at, None);
        self.parts
            .ledger
            .record_urgent(&Record::Baseline(bytes), at, None);
        self.changed(id);
        self.hold_users(id);
        Some(reference)
    }

    /// The journal's queue is nearly full.
    pub fn ledger_is_busy(&self) -> bool {
        self.parts.ledger.is_busy()
    }

    /// The baselines.
    pub fn shelf(&mut self) -> &mut Shelf {
        &mut self.parts.shelf
    }

    /// Containers: live ones, and with `gone` also those remembered.
    pub fn containers(&self, gone: bool) -> Vec<Container> {
        let here = self.live.values().filter(|l| l.gone.is_none());
        let mut all: Vec<Container> = here.map(|l| (*l.container).clone()).collect();
        if gone {
            all.extend(self.parts.attribute.gone());
        }
        all.sort_by_key(|c| c.first_seen.boot);
        all
    }

    /// Totals, fill of the tables, and what is wrong.
    pub fn report(&self) -> (Totals, BTreeMap<String, u64>, Vec<String>) {
        let c = self.parts.attribute.counters();
        let (awake, asleep) = self.parts.shelf.len();
        let glances = self.parts.glances.counts();
        let fills = [
            ("processes", c.processes as u64),
            ("process_tombstones", c.process_tombstones as u64),
            ("containers", c.containers as u64),
            ("container_tombstones", c.container_tombstones as u64),
            ("identity_waiting", c.pending as u64),
            ("bursts", self.burst.len() as u64),
            ("baselines_in_memory", awake as u64),
            ("baselines_on_disk", asleep as u64),
            ("kernel_numbered", self.numbered.len() as u64),
            ("rule_matches", self.rules.matches()),
            ("rule_watched", self.watched.len() as u64),
            ("glances", glances.seen),
            ("glances_too_late", glances.gone + glances.late),
            ("glances_passed_over", glances.passed_over),
            ("recorder_names", self.recorder.named() as u64),
            ("recorder_streams", self.recorder.streams() as u64),
        ];
        let fills = fills.map(|(k, v)| (k.to_owned(), v)).into();
        let shelf = self.parts.shelf.problems().iter().cloned();
        let problems = self.problems.iter().cloned().chain(shelf).collect();
        (self.totals, fills, problems)
    }

    /// Files to write out for changed baselines.
    pub fn unsaved(&mut self, most: usize) -> Vec<(PathBuf, Vec<u8>)> {
        self.parts.shelf.unsaved(most)
    }

    /// Ends: what bursts still owe and the last counts go to the journal; returns all files that
    /// have to be written.
    pub fn finish(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        let now = self.parts.clocks.boot();
        for alert in self.burst.finish() {
            self.repeat(alert);
        }
        self.slot(now);
        let due = self.desk.finish();
        self.prevented(due);
        self.flush();
        self.record_minutes(true);
        self.unsaved(usize::MAX)
    }
}

fn ids_of(baseline: &plimsoll_baseline::Baseline) -> Vec<BehaviourId> {
    let mut ids = vec![BehaviourId([0; 16]); baseline.index_len() as usize];
    for (index, expected) in baseline.expected() {
        if let Some(id) = ids.get_mut(index as usize) {
            *id = expected.behaviour.id();
        }
    }
    ids
}

fn quota_kind(kind: &EventKind) -> Option<Kind> {
    match kind {
        EventKind::Exec(_) => Some(Kind::Exec),
        EventKind::Fork { .. } => Some(Kind::Fork),
        EventKind::Exit { .. } => Some(Kind::Exit),
        _ => None,
    }
}

fn loss_of(gap: Gap) -> Loss {
    Loss {
        stage: gap.stage,
        instance: match gap.scope {
            GapScope::Node => None,
            GapScope::Container(instance) => Some(instance),
        },
        count: gap.count,
        from: gap.from.boot,
        to: gap.to.boot,
        reason: gap.reason.into(),
    }
}
