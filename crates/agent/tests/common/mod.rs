//! A machine for tests: containers by cgroup, a kernel that remembers what it was told, clocks
//! that are set, and an agent over a scratch directory. The journal, the baselines and the
//! pipeline are the real ones.
#![allow(dead_code)] // each test binary uses its part

use plimsoll_agent::attribution::Attribute;
use plimsoll_agent::clock::{Clocks, Reading};
use plimsoll_agent::config::Config;
use plimsoll_agent::daemon::{self, Agent, Surroundings};
use plimsoll_agent::enforce::InForce;
use plimsoll_agent::kernel::{Kernel, KernelError, KernelSide};
use plimsoll_agent::respond::Beginning;
use plimsoll_agent::rules::RuleSources;
use plimsoll_evidence::{Filter, Reader};
use plimsoll_model::event::{Exec, FileEvent};
use plimsoll_model::*;
use plimsoll_sensor::api::*;
use plimsoll_workload::{Counters, Facts, Met, Out, Scan};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// 2026-01-01T00:00:00Z
pub(crate) const WALL: i64 = 1_767_225_600 * SECOND as i64;

/// Clocks that stand still until they are moved.
#[derive(Debug)]
pub(crate) struct Hands {
    boot: AtomicU64,
    wall: AtomicI64,
}
impl Hands {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            boot: AtomicU64::new(1000 * SECOND),
            wall: AtomicI64::new(WALL),
        })
    }
    pub(crate) fn pass(&self, ns: u64) {
        self.boot.fetch_add(ns, Ordering::SeqCst);
        self.wall.fetch_add(ns as i64, Ordering::SeqCst);
    }
    pub(crate) fn step_wall(&self, ns: i64) {
        self.wall.fetch_add(ns, Ordering::SeqCst);
    }
}
impl Clocks for Hands {
    fn read(&self) -> Reading {
        Reading {
            boot: BootNs(self.boot.load(Ordering::SeqCst)),
            wall: WallNs(self.wall.load(Ordering::SeqCst)),
            uncertainty_ns: 1,
        }
    }
}

/// What the kernel was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) watches: Vec<Watch>,
    pub(crate) unwatched: Vec<u64>,
    pub(crate) ignored: Vec<u64>,
    pub(crate) sets: BTreeMap<u32, Vec<Known>>,
    pub(crate) forgotten: Vec<[u8; 48]>,
    pub(crate) again: Vec<[u8; 48]>,
    pub(crate) upward: Vec<[u8; 48]>,
    pub(crate) bumps: u64,
    pub(crate) seeded: Vec<SeedProcess>,
    pub(crate) enforced: BTreeMap<u64, Enforce>,
    pub(crate) allowed: BTreeMap<u32, Vec<AllowedEntry>>,
    pub(crate) runs: Vec<u64>,
    pub(crate) until: u64,
    pub(crate) paths: usize,
    pub(crate) counts: HashMap<u32, u64>,
    /// What the recorder holds, by root cgroup.
    pub(crate) recordings: HashMap<u64, plimsoll_sensor::api::Reading>,
    /// Root cgroups that stream; ids are their place from 1.
    pub(crate) streams: Vec<u64>,
    /// In order: `set 1`, `watch 7`, `bump`.
    pub(crate) log: Vec<String>,
}
#[derive(Debug, Default)]
pub(crate) struct FakeKernel(pub(crate) Mutex<Told>);
impl FakeKernel {
    pub(crate) fn told<T>(&self, f: impl FnOnce(&mut Told) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}
type Done = Result<(), KernelError>;
impl Kernel for FakeKernel {
    fn watch(&self, watch: &Watch) -> Done {
        self.told(|t| {
            t.log
                .push(format!("watch {} set {}", watch.cgroup_id, watch.set));
            t.watches.push(watch.clone());
        });
        Ok(())
    }
    fn ignore(&self, cgroup_id: u64) -> Done {
        self.told(|t| t.ignored.push(cgroup_id));
        Ok(())
    }
    fn unwatch(&self, cgroup_id: u64) -> Done {
        self.told(|t| t.unwatched.push(cgroup_id));
        Ok(())
    }
    fn adopt(&self, _: u64, _: u64) -> Done {
        Ok(())
    }
    fn seed_process(&self, process: &SeedProcess) -> Done {
        self.told(|t| t.seeded.push(process.clone()));
        Ok(())
    }
    fn load_set(&self, set: u32, entries: &[Known]) -> Done {
        self.told(|t| {
            t.log.push(format!("set {set}"));
            t.sets.insert(set, entries.to_vec());
        });
        Ok(())
    }
    fn drop_set(&self, set: u32) -> Done {
        self.told(|t| t.sets.remove(&set));
        Ok(())
    }
    fn set_watched_paths(&self, paths: &[WatchedPath]) -> Done {
        self.told(|t| t.paths = paths.len());
        Ok(())
    }
    fn bump_generation(&self) -> Done {
        self.told(|t| {
            t.log.push("bump".into());
            t.bumps += 1;
        });
        Ok(())
    }
    fn forget(&self, dict: &[u8; 48]) -> Done {
        self.told(|t| t.forgotten.push(*dict));
        Ok(())
    }
    fn enforce(&self, cgroup_id: u64, how: Option<Enforce>) -> Done {
        self.told(|t| match how {
            Some(how) => t.enforced.insert(cgroup_id, how),
            None => t.enforced.remove(&cgroup_id),
        });
        Ok(())
    }
    fn load_allowed(&self, set: u32, entries: &[AllowedEntry]) -> Done {
        self.told(|t| t.allowed.insert(set, entries.to_vec()));
        Ok(())
    }
    fn allow_run(&self, token: u64) -> Done {
        self.told(|t| t.runs.push(token));
        Ok(())
    }
    fn enforce_until(&self, boot_ns: u64) -> Done {
        self.told(|t| t.until = boot_ns);
        Ok(())
    }
    fn emit_again(&self, dict: &[u8; 48]) -> Result<bool, KernelError> {
        self.told(|t| t.again.push(*dict));
        Ok(true)
    }
    fn emit_upward(&self, dict: &[u8; 48]) -> Result<bool, KernelError> {
        self.told(|t| t.upward.push(*dict));
        Ok(true)
    }
    fn counts(&self, first: u32, len: u32) -> Vec<u64> {
        self.told(|t| {
            let count = |n| t.counts.get(&n).copied().unwrap_or(0);
            (first..first + len).map(count).collect()
        })
    }
    fn counters(&self) -> KernelCounters {
        KernelCounters::default()
    }
    fn recording(&self, cgroup_id: u64, from: u64) -> Option<plimsoll_sensor::api::Reading> {
        let mut found = self.told(|t| t.recordings.get(&cgroup_id).cloned())?;
        found.uses.retain(|u| u.pos >= from);
        Some(found)
    }
    fn use_key(&self, dict: &[u8; 48]) -> u64 {
        dict.iter()
            .fold(7, |h, b| h * 31 % 1_000_003 + u64::from(*b))
    }
    fn start_stream(&self, cgroup_id: u64) -> Result<u32, KernelError> {
        self.told(|t| {
            t.log.push(format!("stream {cgroup_id}"));
            t.streams.push(cgroup_id);
            Ok(t.streams.len() as u32)
        })
    }
    fn stop_stream(&self, cgroup_id: u64) -> u64 {
        self.told(|t| t.log.push(format!("stop {cgroup_id}")));
        0
    }
    fn recorder(&self) -> RecorderState {
        RecorderState::default()
    }
}

/// Containers by cgroup, and a process table as small as possible.
pub(crate) struct Town {
    pub(crate) houses: BTreeMap<u64, Container>,
    processes: HashMap<u32, Ancestor>,
    parents: HashMap<u32, u32>,
    /// Records of containers that come at the next tick.
    pub(crate) news: Arc<Mutex<Vec<Container>>>,
    /// Containers that still run when the agent starts.
    running: bool,
}
impl Town {
    pub(crate) fn new(houses: &[Container]) -> Self {
        Self {
            houses: houses.iter().map(|c| (c.cgroup_id, c.clone())).collect(),
            processes: HashMap::new(),
            parents: HashMap::new(),
            news: Arc::default(),
            running: false,
        }
    }
    fn arrive(&self, cgroup_id: u64) -> Vec<Out> {
        let Some(container) = self.houses.get(&cgroup_id) else {
            return vec![Out::Unwatch { cgroup_id }];
        };
        let instance = container.instance.clone();
        vec![
            Out::Container(container.clone()),
            Out::Watch {
                cgroup_id,
                instance,
            },
        ]
    }
    fn lineage(&mut self, event: &Event) -> Vec<Ancestor> {
        let process = &event.process;
        let pid = process.key.tgid;
        self.parents.insert(pid, process.ppid);
        let mut line = Vec::new();
        if let EventKind::Exec(exec) = &event.kind {
            let before = self.processes.insert(
                pid,
                Ancestor {
                    key: process.key,
                    exe: exec.exe.clone(),
                    argv: exec.argv.clone(),
                    entry: process.entry,
                    uid: process.uid,
                    exec_boot: event.boot,
                    ..Ancestor::default()
                },
            );
            line.extend(self.processes.get(&pid).cloned());
            line.extend(before);
        } else {
            line.extend(self.processes.get(&pid).cloned());
        }
        let mut at = pid;
        while let Some(&parent) = self.parents.get(&at)
            && parent != at
            && line.len() < 16
        {
            line.extend(self.processes.get(&parent).cloned());
            at = parent;
        }
        line
    }
}
impl Attribute for Town {
    fn seed(
        &mut self,
        _: Scan,
        remembered: Vec<Container>,
        _: &ClockAnchor,
        _: BootNs,
    ) -> Vec<Out> {
        let mut outs = Vec::new();
        for old in remembered {
            match self.houses.get_mut(&old.cgroup_id) {
                Some(house) => {
                    *house = old.clone();
                    outs.extend(self.arrive(old.cgroup_id));
                }
                None => outs.push(Out::Container(Container {
                    state: ContainerState::Gone,
                    ..old
                })),
            }
        }
        outs
    }
    fn attribute(&mut self, event: Event, anchor: &ClockAnchor, _: BootNs) -> Vec<Out> {
        match &event.kind {
            EventKind::CgroupMkdir { id, .. } => self.arrive(*id),
            EventKind::CgroupRmdir { id } => match self.houses.get(id) {
                Some(c) => vec![
                    Out::Container(Container {
                        state: ContainerState::Gone,
                        ..c.clone()
                    }),
                    Out::Unwatch { cgroup_id: *id },
                ],
                None => Vec::new(),
            },
            _ => {
                let lineage = self.lineage(&event);
                let house = self.houses.get(&event.cgroup_id);
                vec![Out::Observation(Observation {
                    at: anchor.stamp(event.boot),
                    instance: house.map(|c| c.instance.clone()),
                    lineage: lineage.into(),
                    lineage_cut: false,
                    redacted: vec![],
                    unknown_because: String::new(),
                    count: 1,
                    event,
                })]
            }
        }
    }
    fn confirmed(&mut self, _: &Instance, _: &Facts) -> Vec<Out> {
        Vec::new()
    }
    fn unanswered(&mut self, _: &Instance, _: &str, _: bool) -> Vec<Out> {
        Vec::new()
    }
    fn changed(&self, _: &ContainerId) -> Vec<Out> {
        Vec::new()
    }
    fn answers_again(&self, _: plimsoll_model::Runtime) -> Vec<Out> {
        Vec::new()
    }
    fn renamed(&mut self, _: &ContainerId, _: &str) -> Vec<Out> {
        Vec::new()
    }
    fn met(&mut self, _: Scan, _: &ClockAnchor, _: BootNs) -> Vec<Out> {
        Vec::new()
    }
    fn tick(&mut self, _: &ClockAnchor, _: BootNs) -> Vec<Out> {
        let news = std::mem::take(&mut *self.news.lock().unwrap());
        for container in &news {
            self.houses.insert(container.cgroup_id, container.clone());
        }
        news.into_iter().map(Out::Container).collect()
    }
    fn counters(&self) -> Counters {
        Counters::default()
    }
    fn gone(&self) -> Vec<Container> {
        Vec::new()
    }
}

/// A web server's container under cgroup 7.
pub(crate) fn web() -> Container {
    house("web", 7)
}
pub(crate) fn house(name: &str, cgroup_id: u64) -> Container {
    Container {
        name: name.into(),
        image: ImageRef {
            name: format!("{name}:1"),
            config_digest: Digest::parse(&format!("sha256:{}", "ab".repeat(32))).ok(),
            ..ImageRef::default()
        },
        role: name.into(),
        cgroup_id,
        cgroup_path: format!("/docker/{name}").into(),
        state: ContainerState::Running,
        ..Container::new(
            Instance {
                id: ContainerId::parse(&name.repeat(8)).unwrap(),
                start: BootNs(999 * SECOND),
            },
            Runtime::Docker,
            Stamp::default(),
        )
    }
}

pub(crate) fn event(boot: BootNs, cgroup_id: u64, pid: u32, ppid: u32, kind: EventKind) -> Event {
    Event {
        boot,
        cgroup_id,
        process: ProcessInfo {
            key: ProcessKey {
                tgid: pid,
                start: BootNs(u64::from(pid)),
            },
            tid: pid,
            ppid,
            uid: 33,
            gid: 33,
            comm: "server".into(),
            entry: Entry::Init,
        },
        actor: Actor(1),
        ..Event::new(kind)
    }
}
pub(crate) fn arrival(boot: BootNs, cgroup_id: u64) -> Event {
    let kind = EventKind::CgroupMkdir {
        id: cgroup_id,
        parent: 1,
        path: "/docker/x".into(),
    };
    event(boot, cgroup_id, 1, 0, kind)
}
pub(crate) fn exec(exe: &str) -> EventKind {
    EventKind::Exec(Exec {
        exe: exe.into(),
        argv: vec![exe.into()],
        origin: Origin::Image,
        mode: 0o755,
        ..Exec::default()
    })
}
pub(crate) fn read(path: &str) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Read,
        path: path.into(),
        target: "".into(),
        origin: Origin::Image,
        flags: 0,
        result: 0,
    })
}

/// A kernel that can prevent everything.
fn means() -> Vec<EnforceMeans> {
    let of = |class| EnforceMeans {
        class,
        mechanism: Some("made up".into()),
        leaves: String::new(),
    };
    EnforceClass::ALL.into_iter().map(of).collect()
}

fn no_effects() -> Beginning {
    Beginning {
        policy: None,
        dry_run: false,
        perform: Arc::new(|_, _| StepOutcome::Unavailable {
            why: "no effects here".into(),
        }),
        reach: Arc::new(|_, _| Vec::new()),
        launch: None,
    }
}

/// An agent over a directory that outlives it.
pub(crate) struct Rig {
    pub(crate) agent: Agent,
    pub(crate) kernel: Arc<FakeKernel>,
    pub(crate) hands: Arc<Hands>,
}
impl Rig {
    pub(crate) fn config(dir: &Path) -> Config {
        let mut config = Config {
            node: NodeId::parse("test-node").ok(),
            data_dir: dir.join("data"),
            socket: dir.join("agent.sock"),
            ..Config::default()
        };
        // what this machine has in its default directory is no part of a test
        config.rules = RuleSources {
            builtin: false,
            paths: Vec::new(),
            ..RuleSources::default()
        };
        config.journal.group_commit = Duration::from_millis(2);
        config.journal.emergency_bytes = 64 << 10;
        config
    }
    pub(crate) fn start(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
    ) -> Self {
        Self::start_with(config, hands, town, no_effects())
    }
    pub(crate) fn start_with(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
        response: Beginning,
    ) -> Self {
        let scan = Scan::default();
        let pinning = Pinning::default();
        Self::start_over(config, hands, town, response, pinning, scan, None)
    }
    /// With what `/proc` shows of containers that are met late.
    pub(crate) fn start_meeting(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
        looks: fn(Met) -> Scan,
    ) -> Self {
        let (scan, pinning) = (Scan::default(), Pinning::default());
        Self::start_over(
            config,
            hands,
            town,
            no_effects(),
            pinning,
            scan,
            Some(looks),
        )
    }
    /// With what was found in `/proc`.
    pub(crate) fn start_among(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
        scan: Scan,
    ) -> Self {
        let pinning = Pinning::default();
        Self::start_over(config, hands, town, no_effects(), pinning, scan, None)
    }
    /// Over programs that an agent before left.
    pub(crate) fn start_after(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
        before: Inherited,
    ) -> Self {
        let pinning = Pinning {
            inherited: Some(before),
            ..Pinning::default()
        };
        let scan = Scan::default();
        Self::start_over(config, hands, town, no_effects(), pinning, scan, None)
    }
    fn start_over(
        config: &Config,
        hands: &Arc<Hands>,
        town: impl Attribute + 'static,
        response: Beginning,
        pinning: Pinning,
        scan: Scan,
        looks: Option<fn(Met) -> Scan>,
    ) -> Self {
        let kernel = Arc::new(FakeKernel::default());
        let opened = daemon::open(config, hands.clone()).unwrap();
        let around = Surroundings {
            side: KernelSide {
                pinning,
                control: kernel.clone(),
                hooks: Vec::new(),
                means: means(),
            },
            attribute: Box::new(town),
            scan,
            ask: Box::new(|_| Ok(Box::new(|_| true))),
            look: Box::new(move |told| {
                let look = move |met| looks.is_some_and(|look| told(look(met)));
                Ok(Box::new(look))
            }),
            sinks: Vec::new(),
            response,
            reload_rules: Arc::default(),
            enforcement: InForce::read(config.enforcement.policy.as_deref()).unwrap(),
            enforcement_off: Arc::default(),
        };
        let agent = Agent::start(config, opened, around).unwrap();
        Self {
            agent,
            kernel,
            hands: hands.clone(),
        }
    }
    pub(crate) fn now(&self) -> BootNs {
        self.hands.boot()
    }
    pub(crate) fn deliver(&self, event: Event) {
        self.agent.shared().deliver(Signal::Event(event));
    }
    /// Waits until the pipeline has taken everything, and it is durable.
    pub(crate) fn settle(&self) {
        let shared = self.agent.shared();
        until("the inbox is empty", || {
            let fill = shared.inbox.fill();
            fill.bulk + fill.tree + fill.alert == 0
        });
        let (told, done) = std::sync::mpsc::channel();
        shared
            .job(Box::new(move |p| {
                p.tick();
                let _ = told.send(());
            }))
            .unwrap();
        done.recv_timeout(PATIENCE).unwrap();
        shared.ledger.flush(PATIENCE).unwrap();
    }
}

/// After this it is not the machine that is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All durable records, in order, with their leaves.
pub(crate) fn records(config: &Config) -> Vec<(u64, Record)> {
    let reader = Reader::open(config.journal_dir()).unwrap();
    reader
        .scan(Filter::default())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let payload = entry.payload.bytes().expect("a whole payload");
            let record = Record::decode(entry.header.kind, payload).unwrap();
            (entry.leaf.0, record)
        })
        .collect()
}
pub(crate) fn alerts(records: &[(u64, Record)]) -> Vec<&Alert> {
    records
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Alert(a) => Some(a),
            _ => None,
        })
        .collect()
}
pub(crate) fn gaps(records: &[(u64, Record)], stage: Stage) -> Vec<&Gap> {
    records
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Gap(g) if g.stage == stage => Some(g),
            _ => None,
        })
        .collect()
}

/// What Docker has put on disk about one container.
pub(crate) struct Paper;
impl plimsoll_workload::Evidence for Paper {
    fn judge(&mut self, _: &str, _: BootNs) -> plimsoll_workload::Verdict {
        plimsoll_workload::Verdict::NotContainer
    }
    fn facts(
        &mut self,
        _: &plimsoll_workload::CgroupIdentity,
        _: BootNs,
    ) -> Result<plimsoll_workload::Facts, String> {
        Ok(plimsoll_workload::Facts {
            runtime: Some(Runtime::Docker),
            name: "brief".into(),
            image: web().image,
            command: vec!["nginx".into()],
            ..Default::default()
        })
    }
    fn process(&mut self, _: u32) -> Option<plimsoll_workload::Seed> {
        None
    }
    fn cgroup_path(&mut self, _: u64, _: u32) -> Option<String> {
        None
    }
    fn is_there(&mut self, _: &str, _: u64) -> Option<bool> {
        None
    }
}

/// A Docker container's cgroup is made.
pub(crate) fn docker_arrival(boot: BootNs, cgroup_id: u64, id: &str) -> Event {
    let begin = EventKind::CgroupMkdir {
        id: cgroup_id,
        parent: 1,
        path: format!("/system.slice/docker-{id}.scope").into(),
    };
    event(boot, cgroup_id, 1, 0, begin)
}
