//! The pipeline's part of enforcement: how each container is held, what becomes of an act, and the
//! counts that a person rolls out by.
//!
//! Promises: only a locked baseline is enforced; a ready one is at most reported about; anything less
//! is said in [`Standing::why`]. A verdict uses the same [`Allowed`] that was loaded into the kernel.
//! The first act of its kind is journalled at once, repeats every [`TELL_EVERY_NS`]. Bounded by
//! [`TALLIES_MAX`].

use super::held::Terms;
use super::{Enforcement, InForce};
use crate::kernel::{Kernel, KernelError};
use crate::shelf::Shelved;
use plimsoll_baseline::{Allowed, AllowedEntry as Entry, State};
use plimsoll_model::enforcement::Prevention;
use plimsoll_model::event::Connection;
use plimsoll_model::{
    BaselineId, BaselineRef, Behaviour, BehaviourId, BehaviourKind, Container, EnforceClass,
    Enforced, EventKind, Instance, Observation, SockAddr, Stamp, Text,
};
use plimsoll_respond::enforcement::{AtExec, Mode, Rule, Undecided};
use plimsoll_sensor::api::{self as kernel, AllowedReach, Enforce};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Kinds of acts counted at a time.
pub const TALLIES_MAX: usize = 4096;
/// How often repeats are journalled.
pub const TELL_EVERY_NS: u64 = 10_000_000_000;

/// How a container is held.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The rule that has the word.
    pub rule: Rule,
    /// What is really done.
    pub mode: Mode,
    /// Why that is less than the rule asks for; empty: it is not.
    pub why: String,
    /// Ports whose peers are known by name: there only alerts are possible.
    pub open_ports: Vec<String>,
    baseline: Option<BaselineRef>,
    allowed: Option<Arc<Allowed>>,
}

impl Standing {
    /// What of the rule's classes is prevented here.
    pub fn prevents(&self, class: EnforceClass, shared: &Enforcement) -> bool {
        self.mode == Mode::Enforce && self.rule.classes.contains(&class) && shared.can(class)
    }
}

type TallyKey = (Instance, EnforceClass, Enforced, Text, BehaviourId);

#[derive(Debug)]
struct Tally {
    /// What has not been journalled yet is in its count.
    prevention: Prevention,
    told_ns: u64,
}

/// The desk.
pub struct Desk {
    shared: Arc<Enforcement>,
    kernel: Arc<dyn Kernel>,
    generation: u64,
    standing: HashMap<Instance, Standing>,
    /// What is loaded for a baseline: its version and set.
    loaded: HashMap<BaselineId, (u64, u32)>,
    made: HashMap<BaselineId, (u64, Arc<Allowed>)>,
    tallies: BTreeMap<TallyKey, Tally>,
    records: Vec<Prevention>,
}

impl Desk {
    /// Holds nobody yet.
    pub fn new(shared: Arc<Enforcement>, kernel: Arc<dyn Kernel>) -> Self {
        Self {
            shared,
            kernel,
            generation: 0,
            standing: HashMap::new(),
            loaded: HashMap::new(),
            made: HashMap::new(),
            tallies: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Enforcement> {
        &self.shared
    }

    /// Whether policy or switch have changed since this was asked last.
    pub fn is_stale(&mut self) -> bool {
        let now = self.shared.generation();
        std::mem::replace(&mut self.generation, now) != now
    }

    /// How a container is held.
    pub fn standing(&self, instance: &Instance) -> Option<&Standing> {
        self.standing.get(instance)
    }

    /// Holds a container as policy, switch and its baseline say now.
    ///
    /// # Errors
    /// When the kernel side refuses; the container is not held by it then.
    pub fn settle(
        &mut self,
        container: &Container,
        cgroup_id: Option<u64>,
        baseline: Option<&Shelved>,
    ) -> Result<(), KernelError> {
        let instance = &container.instance;
        let in_force = self.shared.in_force();
        let Some(mut standing) = self.stand(&in_force, container, baseline) else {
            return self.let_go(instance, cgroup_id);
        };
        let done = match (standing.mode, cgroup_id, baseline) {
            (Mode::Enforce, Some(cgroup), Some(shelved)) => self.hold(&standing, cgroup, shelved),
            (_, Some(cgroup), _) => self.unhold(cgroup),
            (_, None, _) => Ok(()),
        };
        if let Err(e) = &done {
            standing.mode = Mode::Alert;
            standing.why = format!("the kernel side refuses: {e}");
        }
        self.standing.insert(instance.clone(), standing);
        done
    }

    fn stand(
        &mut self,
        in_force: &InForce,
        container: &Container,
        baseline: Option<&Shelved>,
    ) -> Option<Standing> {
        let (_, rule) = in_force.policy.rule_for(container)?;
        let asked = rule.mode;
        let state = baseline.map(|s| s.baseline.state());
        let (mode, why) = match (asked, state) {
            (Mode::Observe, _) => (Mode::Observe, String::new()),
            (_, None) => (Mode::Observe, "it has no baseline".to_owned()),
            (_, Some(State::Learning)) => {
                (Mode::Observe, "its baseline is still learning".to_owned())
            }
            (Mode::Enforce, Some(State::Ready)) => {
                let why = "its baseline is ready, and only a locked one is enforced (plimsoll baseline lock)";
                (Mode::Alert, why.to_owned())
            }
            (Mode::Enforce, Some(State::Locked)) if self.shared.is_off() => {
                let why = "enforcement is switched off on this node (plimsoll enforcement on)";
                (Mode::Alert, why.to_owned())
            }
            (mode, Some(State::Ready | State::Locked)) => (mode, String::new()),
        };
        let baseline = baseline.filter(|_| mode != Mode::Observe);
        let allowed = baseline.map(|s| self.allowed(s));
        Some(Standing {
            rule: rule.clone(),
            mode,
            why,
            open_ports: allowed.as_ref().map(|a| a.open_ports()).unwrap_or_default(),
            baseline: baseline.map(|s| s.baseline.reference()),
            allowed,
        })
    }

    fn allowed(&mut self, shelved: &Shelved) -> Arc<Allowed> {
        let (id, version) = (shelved.baseline.id(), shelved.baseline.version());
        if let Some((made, allowed)) = self.made.get(id)
            && *made == version
        {
            return allowed.clone();
        }
        let allowed = Arc::new(Allowed::of(&shelved.baseline));
        self.made.insert(id.clone(), (version, allowed.clone()));
        allowed
    }

    fn hold(
        &mut self,
        standing: &Standing,
        cgroup_id: u64,
        shelved: &Shelved,
    ) -> Result<(), KernelError> {
        let id = shelved.baseline.id();
        let wanted = (shelved.baseline.version(), shelved.set);
        if let Some(allowed) = &standing.allowed
            && self.loaded.get(id) != Some(&wanted)
        {
            let entries: Vec<_> = allowed.entries().iter().map(for_kernel).collect();
            self.kernel.load_allowed(shelved.set, &entries)?;
            self.loaded.insert(id.clone(), wanted);
        }
        let rule = &standing.rule;
        let terms = Terms {
            within_ns: rule.decide_within_ms * 1_000_000,
            kill: rule.undecided == Undecided::Kill,
        };
        self.shared.set_terms(cgroup_id, Some(terms));
        let has = |class| standing.prevents(class, &self.shared);
        let how = Enforce {
            set: shelved.set,
            programs: has(EnforceClass::Program),
            scripts: has(EnforceClass::Script),
            libraries: has(EnforceClass::Library),
            peers: has(EnforceClass::Peer),
            kill: rule.at_exec == AtExec::Kill,
        };
        self.kernel.enforce(cgroup_id, Some(how))
    }

    fn unhold(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.shared.set_terms(cgroup_id, None);
        self.kernel.enforce(cgroup_id, None)
    }

    /// A container is not held any more.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub fn let_go(
        &mut self,
        instance: &Instance,
        cgroup_id: Option<u64>,
    ) -> Result<(), KernelError> {
        let was = self.standing.remove(instance);
        match (was, cgroup_id) {
            (Some(_), Some(cgroup)) => self.unhold(cgroup),
            _ => Ok(()),
        }
    }

    /// A baseline's number in the kernel is free for another one.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub fn drop_set(&mut self, set: u32) -> Result<(), KernelError> {
        let before = self.loaded.len();
        self.loaded.retain(|_, (_, s)| *s != set);
        if self.loaded.len() == before {
            return Ok(());
        }
        self.made.retain(|id, _| self.loaded.contains_key(id));
        self.kernel.load_allowed(set, &[])
    }

    // ---- acts ----

    /// What becomes of an act: decides about a process that waits, and says on the event what was done.
    pub fn judge(&mut self, obs: &mut Observation, container: &Container, acts: &[Behaviour]) {
        let enforced = obs.event.enforced;
        if enforced.is_none() && !self.standing.contains_key(&container.instance) {
            return;
        }
        let standing = self.standing.get(&container.instance);
        let outside = standing.and_then(|s| outside(s, &obs.event.kind, acts));
        let done = match enforced {
            Some(Enforced::Held) => Some(self.decide(obs, outside.is_some())),
            None => outside.is_some().then_some(Enforced::WouldBe),
            done => done,
        };
        obs.event.enforced = done;
        let (Some(done), Some(act)) = (done, acts.first()) else {
            return;
        };
        if done == Enforced::HeldContinued && outside.is_none() {
            return; // it was asked about, and is known
        }
        let (class, object, act) =
            outside.unwrap_or_else(|| (class_of(act), act.object.clone(), act));
        self.count(obs, container, class, object, act.clone(), done);
    }

    /// An act of a container that is not known (any more): who waits goes on.
    pub fn release(&mut self, obs: &mut Observation) {
        if obs.event.enforced == Some(Enforced::Held) {
            obs.event.enforced = Some(self.decide(obs, false));
        }
    }

    fn decide(&mut self, obs: &mut Observation, kill: bool) -> Enforced {
        let token = obs.event.dict.take();
        let decided = self.shared.held.decide(obs.event.process.key, kill);
        let late_kill = !decided && self.shared.terms_of(obs.event.cgroup_id).kill;
        if (kill && decided) || late_kill {
            return Enforced::HeldKilled;
        }
        if let Some((token, _)) = token.as_ref().and_then(|d| d.split_first_chunk::<8>())
            && !kill
        {
            // what the map does not take is asked about again
            let _ = self.kernel.allow_run(u64::from_ne_bytes(*token));
        }
        Enforced::HeldContinued
    }

    fn count(
        &mut self,
        obs: &Observation,
        container: &Container,
        class: EnforceClass,
        object: Text,
        behaviour: Behaviour,
        enforced: Enforced,
    ) {
        let standing = self.standing.get(&container.instance);
        let key = (
            container.instance.clone(),
            class,
            enforced,
            object.clone(),
            behaviour.id(),
        );
        let times = obs.count.max(1);
        if let Some(tally) = self.tallies.get_mut(&key) {
            let p = &mut tally.prevention;
            if p.count == 0 {
                p.first = obs.at;
            }
            (p.count, p.last) = (p.count.saturating_add(times), obs.at);
            return;
        }
        let prevention = Prevention {
            instance: container.instance.clone(),
            image: container.image.name.clone(),
            role: container.role.clone(),
            class,
            enforced,
            behaviour,
            object,
            baseline: standing.and_then(|s| s.baseline.clone()),
            rule: standing.map(|s| s.rule.name.clone()).unwrap_or_default(),
            count: times,
            // repeats of an exec are all told; of the others the kernel counts most by itself
            at_least: !matches!(obs.event.kind, EventKind::Exec(_)) || enforced == Enforced::Denied,
            first: obs.at,
            last: obs.at,
        };
        self.records.push(prevention.clone());
        if self.tallies.len() >= TALLIES_MAX {
            self.tell(|_| true);
            self.tallies.clear();
        }
        let prevention = Prevention {
            count: 0,
            ..prevention
        };
        let told_ns = obs.at.boot.0;
        self.tallies.insert(
            key,
            Tally {
                prevention,
                told_ns,
            },
        );
    }

    /// Records that are due.
    pub fn due(&mut self, now: Stamp) -> Vec<Prevention> {
        let now = now.boot.0;
        let old = |t: &Tally| now.saturating_sub(t.told_ns) >= TELL_EVERY_NS;
        self.tell(old);
        self.tallies.retain(|_, t| {
            if !old(t) {
                return true;
            }
            t.told_ns = now;
            let quiet = t.prevention.count == 0;
            t.prevention.count = 0;
            !quiet
        });
        std::mem::take(&mut self.records)
    }

    /// Everything that has not been journalled.
    pub fn finish(&mut self) -> Vec<Prevention> {
        self.tell(|_| true);
        self.tallies.clear();
        std::mem::take(&mut self.records)
    }

    fn tell(&mut self, which: impl Fn(&Tally) -> bool) {
        let due = self.tallies.values();
        let due = due.filter(|t| which(t) && t.prevention.count > 0);
        self.records.extend(due.map(|t| t.prevention.clone()));
    }
}

/// The first of an act's behaviours that is outside, with its class and what of it is.
fn outside<'a>(
    standing: &Standing,
    kind: &EventKind,
    acts: &'a [Behaviour],
) -> Option<(EnforceClass, Text, &'a Behaviour)> {
    let allowed = standing.allowed.as_ref()?;
    if let EventKind::Connect(c) | EventKind::Datagram(c) = kind
        && reached(allowed, c)
    {
        return None;
    }
    acts.iter().find_map(|act| {
        let (class, object) = allowed.forbids(act)?;
        let wanted = standing.rule.classes.contains(&class);
        wanted.then_some((class, object, act))
    })
}

/// The kernel knows addresses and no names: what it lets through is let through.
fn reached(allowed: &Allowed, c: &Connection) -> bool {
    match c.peer {
        SockAddr::Inet(ip, port) => allowed.lets(c.proto, ip, port),
        SockAddr::Unix(_) => true,
    }
}

/// The class of an act that was prevented and is known by now.
fn class_of(act: &Behaviour) -> EnforceClass {
    match act.kind {
        BehaviourKind::Library => EnforceClass::Library,
        BehaviourKind::Connect | BehaviourKind::Datagram => EnforceClass::Peer,
        _ => EnforceClass::Program,
    }
}

fn for_kernel(entry: &Entry) -> kernel::AllowedEntry {
    use kernel::AllowedEntry as K;
    let program = |path: &Text, origin, ask| K::Program {
        path: path.clone(),
        origin,
        ask,
    };
    let peer = |proto, reach, port| K::Peer { proto, reach, port };
    match entry {
        Entry::Program(path, origin) => program(path, *origin, false),
        Entry::Ask(path, origin) => program(path, *origin, true),
        Entry::Library(path, origin) => K::Library {
            path: path.clone(),
            origin: *origin,
        },
        Entry::Peer(proto, ip, port) => peer(*proto, AllowedReach::Ip(*ip), *port),
        Entry::Network(proto, ip, port) => peer(*proto, AllowedReach::Network(*ip), *port),
        Entry::Loopback(proto, port) => peer(*proto, AllowedReach::Loopback, *port),
        Entry::Port(proto, port) => peer(*proto, AllowedReach::Any, *port),
    }
}
