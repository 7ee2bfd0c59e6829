//! Thirty days of a node, generated: the same records on every run, whatever reads them.
//!
//! 500 containers at any time, of 120 images that are not used equally often. Every tenth lives all
//! the time; the others live two hours to twenty days and are replaced, so that some 3,800 are known
//! at the end. Of every thousand observations 760 are files read, 100 files written, 60 executions, 50
//! connections, 30 DNS answers; every hundredth is outside the baseline: a drift and an alert. Three
//! quarters of those are of 4,000 programs, the others of 40 that come again and again. Between them
//! lie a clock anchor every ten seconds, a record of presence for each container and hour, and gaps.

use plimsoll_model::event::*;
use plimsoll_model::record::{Lifecycle, Presence};
use plimsoll_model::*;
use std::collections::BTreeMap;

const SLOTS: u64 = 500;
const IMAGES: u64 = 120;
const HOUR_NS: u64 = 3_600_000_000_000;
const PERIOD_NS: u64 = 30 * 24 * HOUR_NS;
const BEGUN_NS: i64 = 1_790_000_000_000_000_000;
/// Every so many observations one is outside the baseline.
const ALERT_EVERY: u64 = 100;

/// One container.
pub(crate) struct Life {
    pub(crate) n: u64,
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) image: u64,
}

/// The node.
pub(crate) struct Node {
    observations: u64,
    /// By slot, in order.
    lives: Vec<Vec<Life>>,
}

/// SplitMix64: the same numbers on every run.
pub(crate) fn random(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A rank of `of`, the small ones more often, as words in a text.
fn rank(n: u64, of: u64) -> u64 {
    let u = (random(n) >> 11) as f64 / (1u64 << 53) as f64;
    ((of as f64).powf(u) as u64).min(of - 1)
}

fn stamp(ns: u64) -> Stamp {
    Stamp {
        boot: BootNs(ns),
        wall: WallNs(BEGUN_NS + ns as i64),
        uncertainty_ns: 1000,
    }
}

impl Life {
    pub(crate) fn instance(&self) -> Instance {
        let id: String = (0..4)
            .map(|part| format!("{:016x}", random(self.n * 4 + part)))
            .collect();
        Instance {
            id: ContainerId::parse(&id).expect("hex"),
            start: BootNs(self.from_ns + self.n),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("svc-{}-{}", self.image, self.n)
    }

    /// Whether it lives all the time.
    pub(crate) fn is_long(&self) -> bool {
        self.to_ns - self.from_ns > PERIOD_NS
    }

    pub(crate) fn container(&self, gone: bool) -> Container {
        let mut c = Container::new(self.instance(), Runtime::Containerd, stamp(self.from_ns));
        let service = format!("svc-{}", self.image);
        c.name = self.name();
        c.role = service.clone();
        c.pod = Some(format!("{service}-{:08x}", random(self.n) >> 32));
        c.namespace = Some(format!("team-{}", self.image % 7));
        c.image = ImageRef {
            name: format!("registry.example/{service}:1.{}", self.image % 9),
            config_digest: Digest::parse(&format!("sha256:{:064x}", self.image + 1)).ok(),
            repository: Some(format!("registry.example/{service}")),
            ..ImageRef::default()
        };
        c.labels = [("app", service), ("tier", "backend".to_owned())]
            .map(|(k, v)| (k.to_owned(), v))
            .into();
        c.cgroup_id = self.n + 1;
        c.cgroup_path = format!("/kubepods.slice/pod{:016x}", random(self.n)).into();
        c.addresses = vec![format!("10.64.{}.{}", self.n / 250 % 250, 1 + self.n % 250)];
        c.mounts = vec!["/var/run/secrets/kubernetes.io/serviceaccount".into()];
        c.command = vec![format!("/usr/sbin/server-{}", self.image).into()];
        c.state = ContainerState::Running;
        if gone {
            c.state = ContainerState::Gone;
            c.gone = Some(stamp(self.to_ns));
            c.exit_code = Some(0);
        }
        c
    }
}

impl Node {
    pub(crate) fn new(observations: u64) -> Self {
        let mut n = 0;
        let mut lives = Vec::new();
        for slot in 0..SLOTS {
            let mut own = Vec::new();
            let mut from_ns = 0;
            while from_ns < PERIOD_NS {
                let hours = match slot % 10 {
                    0 => 24 * 31,
                    // two hours to twenty days, each order of magnitude as often
                    _ => 2 + rank((slot << 32) | (from_ns / HOUR_NS), 480),
                };
                let to_ns = from_ns + hours * HOUR_NS;
                let image = rank(slot ^ 0x1111, IMAGES);
                own.push(Life {
                    n,
                    from_ns,
                    to_ns,
                    image,
                });
                (n, from_ns) = (n + 1, to_ns);
            }
            lives.push(own);
        }
        Self {
            observations,
            lives,
        }
    }

    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter().flatten()
    }

    /// The container that acts in observation `n`.
    pub(crate) fn actor(&self, n: u64) -> &Life {
        let ns = self.ns(n);
        let slot = &self.lives[(random(n / 7) % SLOTS) as usize];
        let at = slot.partition_point(|life| life.from_ns <= ns);
        &slot[at.saturating_sub(1)]
    }

    fn ns(&self, n: u64) -> u64 {
        (u128::from(n) * u128::from(PERIOD_NS) / u128::from(self.observations.max(1))) as u64
    }

    /// The moment of observation `n`.
    pub(crate) fn at(&self, n: u64) -> Stamp {
        stamp(self.ns(n))
    }

    pub(crate) fn alerts(&self) -> u64 {
        self.observations / ALERT_EVERY
    }

    /// The observation behind an alert, by its number.
    pub(crate) fn alerted(alert: u64) -> u64 {
        alert * ALERT_EVERY + ALERT_EVERY - 1
    }

    pub(crate) fn alert_id(n: u64) -> String {
        format!("A-{n}")
    }
}

/// A record, when, and about whom.
pub(crate) type Put<'a> = &'a mut dyn FnMut(&Record, Stamp, Option<&Instance>) -> u64;

impl Node {
    /// Hands over every record in order; `put` says which leaf it became.
    pub(crate) fn write(&self, put: Put<'_>) {
        let start = Lifecycle {
            what: "start".into(),
            at: stamp(0),
            version: "bench".into(),
            details: vec![],
        };
        put(&Record::Lifecycle(start), stamp(0), None);
        let mut turns = self.turns().into_iter().peekable();
        for n in 0..self.observations {
            let ns = self.ns(n);
            while let Some((life, gone)) = turns.next_if(|((at, _), _)| *at <= ns).map(|t| t.1) {
                let now = stamp(if gone { life.to_ns } else { life.from_ns });
                let about = life.instance();
                put(&Record::Container(life.container(gone)), now, Some(&about));
            }
            self.act(n, put);
            self.between(n, put);
        }
    }

    /// Every beginning and end of a container.
    fn turns(&self) -> BTreeMap<(u64, u64), (&Life, bool)> {
        let begins = self.lives().map(|l| ((l.from_ns, 2 * l.n + 1), (l, false)));
        let ends = self.lives().map(|l| ((l.to_ns, 2 * l.n), (l, true)));
        begins.chain(ends).collect()
    }

    fn act(&self, n: u64, put: Put<'_>) {
        let (now, life) = (self.at(n), self.actor(n));
        let about = life.instance();
        let o = self.observation(n);
        let leaf = put(&Record::Observation(o.clone()), now, Some(&about));
        if came(n) {
            let drift = drift(&o, leaf, n);
            put(&Record::Drift(drift.clone()), now, Some(&about));
            put(&Record::Alert(alert(drift, n, now)), now, Some(&about));
        }
    }

    pub(crate) fn observation(&self, n: u64) -> Observation {
        let (now, life) = (self.at(n), self.actor(n));
        let process = who(n, life);
        let kind = match came(n) {
            true => EventKind::Exec(Exec {
                exe: came_in(n).into(),
                origin: Origin::Upper,
                ..Default::default()
            }),
            false => kind(n, life),
        };
        Observation {
            event: Event {
                boot: now.boot,
                seq: n,
                cgroup_id: life.n + 1,
                process: ProcessInfo {
                    key: process.key,
                    tid: process.key.tgid,
                    ppid: 1,
                    uid: 33,
                    ..Default::default()
                },
                actor: Actor(life.n + 1),
                ..Event::new(kind)
            },
            at: now,
            instance: Some(life.instance()),
            lineage: vec![process].into(),
            lineage_cut: false,
            redacted: vec![],
            unknown_because: String::new(),
            count: 1,
        }
    }

    /// What the agent writes beside observations.
    fn between(&self, n: u64, put: Put<'_>) {
        let now = self.at(n);
        let every = |times: u64| n.is_multiple_of((self.observations / times).max(100));
        if every(PERIOD_NS / 10_000_000_000) {
            let clock = ClockAnchor {
                boot: now.boot,
                wall: now.wall,
                uncertainty_ns: 1000,
                step_ns: 0,
            };
            put(&Record::Clock(clock), now, None);
        }
        if every(SLOTS * PERIOD_NS / HOUR_NS) {
            let life = self.actor(n);
            let known = |i| BehaviourId(u128::from(random(life.image * 64 + i)).to_le_bytes());
            let presence = Presence {
                instance: life.instance(),
                from: now,
                to: now,
                counts: (0..50).map(|i| (known(i), i + 1)).collect(),
            };
            put(&Record::Presence(presence), now, Some(&life.instance()));
        }
        if n.is_multiple_of(100_000) {
            let gap = Gap {
                stage: Stage::BulkRing,
                scope: GapScope::Node,
                from: now,
                to: now,
                count: Some(10),
                reason: "burst".into(),
            };
            put(&Record::Gap(gap), now, None);
        }
    }
}

/// Whether observation `n` is of a program that came in.
fn came(n: u64) -> bool {
    n % ALERT_EVERY == ALERT_EVERY - 1
}

/// Which program came in.
pub(crate) fn came_in(n: u64) -> String {
    match random(n ^ 0x3c3c) % 4 {
        0 => format!("/tmp/.y{}", random(n) % 40),
        _ => format!("/tmp/.x{}", random(n) % 4000),
    }
}

fn who(n: u64, life: &Life) -> Ancestor {
    let worker = life.n * 8 + random(n ^ 0x77) % 8 + n / 100_000 * 65_536;
    Ancestor {
        key: ProcessKey {
            tgid: 1000 + (random(worker) % 30_000) as u32,
            start: BootNs(random(worker) >> 8),
        },
        exe: format!("/usr/sbin/server-{}", life.image).into(),
        uid: 33,
        ..Default::default()
    }
}

fn kind(n: u64, life: &Life) -> EventKind {
    let file = |op, path: String| {
        EventKind::File(FileEvent {
            raw: None,
            mode: None,
            op,
            path: path.into(),
            target: Text::default(),
            origin: Origin::Image,
            flags: 0,
            result: 0,
        })
    };
    let (image, rank) = (life.image, rank(n * 3, 3000));
    match random(n ^ 0x5a5a) % 1000 {
        0..760 => file(
            FileOp::Read,
            format!("/srv/data/{image}/part-{rank:04}.dat"),
        ),
        760..860 => file(
            FileOp::Write,
            format!("/var/cache/app/{:x}", random(n) >> 44),
        ),
        860..920 => EventKind::Exec(Exec {
            exe: format!("/usr/bin/tool-{}", rank % 40).into(),
            origin: Origin::Image,
            ..Default::default()
        }),
        920..970 => EventKind::Connect(Connection {
            proto: Proto::Tcp,
            peer: SockAddr::Inet([10, 1, image as u8, (rank % 200) as u8].into(), 5432),
            local: None,
            result: 0,
        }),
        _ => EventKind::Dns(Dns {
            response: true,
            name: format!("db-{}.internal", rank % 50).into(),
            qtype: 1,
            rcode: 0,
            addresses: vec![],
            server: None,
        }),
    }
}

fn drift(o: &Observation, leaf: u64, n: u64) -> Drift {
    Drift {
        behaviour: Behaviour {
            kind: BehaviourKind::Exec,
            program: o.lineage[0].exe.clone(),
            script: Text::default(),
            entry: Entry::Init,
            uid: 33,
            operation: "run".into(),
            object: came_in(n).into(),
            origin: Origin::Upper,
        },
        class: DriftClass::ProgramFromWritable,
        risk: Risk::High,
        reason: "the program came into the container after it was created".into(),
        baseline: None,
        baseline_state: "learning".into(),
        coverage_permille: 900,
        nearest: vec![],
        instance: o.instance.clone().expect("generated"),
        lineage: o.lineage.clone(),
        observation: Some(RecordId {
            origin: NodeId::parse("bench").expect("a name"),
            leaf,
        }),
        first: o.at,
        last: o.at,
        count: 1,
        techniques: vec![],
        quarantined: false,
    }
}

fn alert(drift: Drift, n: u64, now: Stamp) -> Alert {
    Alert {
        id: AlertId::parse(&Node::alert_id(n)).expect("an id"),
        at: now,
        rule: "Program from writable layer".into(),
        priority: Priority::Critical,
        output: "a program that is not from the image was run".into(),
        instance: Some(drift.instance.clone()),
        evidence: drift.observation.clone().into_iter().collect(),
        source: AlertSource::Drift(drift),
        tags: vec![],
        fields: vec![],
        count: 1,
        last: now,
        handed_boot: now.boot,
        prevented: false,
    }
}

/// A row for those who put the same elsewhere.
pub(crate) fn row(kind: &EventKind) -> (&'static str, String) {
    match kind {
        EventKind::File(f) => ("file", f.path.to_str_lossy().into_owned()),
        EventKind::Exec(e) => ("exec", e.exe.to_str_lossy().into_owned()),
        EventKind::Connect(c) => ("connect", format!("{:?}", c.peer)),
        EventKind::Dns(d) => ("dns", d.name.to_str_lossy().into_owned()),
        _ => ("other", String::new()),
    }
}
