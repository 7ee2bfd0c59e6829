//! Builders of observations and containers, and a small seeded random source.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use plimsoll_baseline::{Baseline, Key, LearnConfig, NoNames, Verdict, behaviours};
use plimsoll_model::event::{Connection, Exec, FileEvent};
use plimsoll_model::*;

pub const SECOND: u64 = 1_000_000_000;

/// xorshift64*: seeded, so that a failing run can be had again.
pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn container(name: &str, start_s: u64) -> Container {
    Container {
        name: name.to_owned(),
        image: ImageRef {
            name: "shop/web:1.4".to_owned(),
            config_digest: Some(Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap()),
            ..ImageRef::default()
        },
        role: "web".to_owned(),
        cgroup_id: 7,
        cgroup_path: "/system.slice/docker-abc.scope".into(),
        state: ContainerState::Running,
        ports: vec![(80, "tcp".to_owned())],
        mounts: vec!["/host".to_owned(), "/data".to_owned()],
        ..Container::new(
            Instance {
                id: ContainerId::parse(&format!("{name}0123456789abcdef")).unwrap(),
                start: BootNs(start_s * SECOND),
            },
            Runtime::Docker,
            at(start_s),
        )
    }
}

/// Boot and wall second (a Saturday at 00:00 UTC plus the boot time).
pub fn at(second: u64) -> Stamp {
    Stamp {
        boot: BootNs(second * SECOND),
        wall: WallNs(((1_700_265_600 + second) * SECOND) as i64),
        uncertainty_ns: 0,
    }
}

/// Who acts: programs from the acting one up.
#[derive(Clone)]
pub struct Who {
    pub lineage: Vec<(&'static str, &'static str)>,
    pub entry: Entry,
    pub uid: u32,
}

pub fn who(lineage: &[&'static str]) -> Who {
    Who {
        lineage: lineage.iter().map(|&e| (e, "")).collect(),
        entry: Entry::Init,
        uid: 33,
    }
}

impl Who {
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entry = entry;
        self
    }
    pub fn script(mut self, script: &'static str) -> Self {
        self.lineage[0].1 = script;
        self
    }
}

pub fn see(c: &Container, second: u64, who: &Who, kind: EventKind) -> Observation {
    Observation {
        event: Event {
            boot: BootNs(second * SECOND),
            cgroup_id: 7,
            process: ProcessInfo {
                uid: who.uid,
                comm: "comm".into(),
                entry: who.entry,
                ..ProcessInfo::default()
            },
            actor: Actor(1),
            ..Event::new(kind)
        },
        at: at(second),
        instance: Some(c.instance.clone()),
        lineage: who
            .lineage
            .iter()
            .map(|(exe, script)| Ancestor {
                exe: (*exe).into(),
                script: (*script).into(),
                entry: who.entry,
                uid: who.uid,
                ..Ancestor::default()
            })
            .collect(),
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 1,
    }
}

pub fn exec(exe: &str) -> Exec {
    Exec {
        exe: exe.into(),
        argv: vec![Text::from(exe)],
        origin: Origin::Image,
        ..Exec::default()
    }
}

pub fn run(exe: &str) -> EventKind {
    EventKind::Exec(exec(exe))
}

pub fn run_args(exe: &str, args: &[&str]) -> EventKind {
    let mut e = exec(exe);
    e.argv.extend(args.iter().map(|a| Text::from(*a)));
    EventKind::Exec(e)
}

pub fn file(op: FileOp, path: &str, origin: Origin) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op,
        path: path.into(),
        target: Text::default(),
        origin,
        flags: 0,
        result: 0,
    })
}

pub fn read(path: &str) -> EventKind {
    file(FileOp::Read, path, Origin::Image)
}

pub fn write(path: &str) -> EventKind {
    file(FileOp::Write, path, Origin::Upper)
}

pub fn rename(path: &str, target: &str) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Rename,
        path: path.into(),
        target: target.into(),
        origin: Origin::Upper,
        flags: 0,
        result: 0,
    })
}

pub fn connect(peer: &str) -> EventKind {
    EventKind::Connect(connection(peer, None))
}

pub fn accept(port: u16, peer: &str) -> EventKind {
    EventKind::Accept(connection(peer, Some(port)))
}

fn connection(peer: &str, local: Option<u16>) -> Connection {
    let peer: std::net::SocketAddr = peer.parse().unwrap();
    Connection {
        proto: Proto::Tcp,
        peer: SockAddr::Inet(peer.ip(), peer.port()),
        local: local.map(|p| SockAddr::Inet([10, 0, 0, 2].into(), p)),
        result: 0,
    }
}

pub fn listen(port: u16) -> EventKind {
    EventKind::Listen {
        proto: Proto::Tcp,
        local: SockAddr::Inet([0, 0, 0, 0].into(), port),
    }
}

pub fn quick() -> LearnConfig {
    LearnConfig {
        slot_seconds: 2,
        startup_seconds: 10,
        min_steady_slots: 5,
        min_units: 10,
        ..LearnConfig::default()
    }
}

pub fn fresh(c: &Container) -> Baseline {
    Baseline::new(Key::of(c).unwrap(), c, quick(), at(0))
}

pub fn observe(b: &mut Baseline, c: &Container, obs: &Observation) -> Verdict {
    let behaviours = behaviours(obs, c, &NoNames);
    b.observe(obs, c, &behaviours)
}

pub fn judge(b: &Baseline, c: &Container, obs: &Observation) -> Verdict {
    let behaviours = behaviours(obs, c, &NoNames);
    plimsoll_baseline::judge(obs, c, Some(b), &behaviours)
}

pub const NGINX: &str = "/usr/sbin/nginx";

pub fn nginx() -> Who {
    who(&[NGINX, NGINX])
}

/// One life of a web server: start-up in the first slots, then steady work.
pub fn live(b: &mut Baseline, c: &Container, from: u64, slots: u64) {
    let first = see(c, from, &who(&[NGINX]), {
        let mut e = exec(NGINX);
        e.first = true;
        EventKind::Exec(e)
    });
    observe(b, c, &first);
    let start_up = [
        read("/etc/nginx/nginx.conf"),
        read("/etc/nginx/mime.types"),
        listen(80),
        EventKind::Library {
            path: "/usr/lib/libssl.so.3".into(),
            origin: Origin::Image,
        },
    ];
    for kind in start_up {
        observe(b, c, &see(c, from + 1, &nginx(), kind));
    }
    for slot in 0..slots {
        let now = from + slot * b.config().slot_seconds as u64;
        for kind in [
            accept(80, "10.0.0.9:5000"),
            read("/srv/www/index.html"),
            file(FileOp::Write, "/var/log/nginx/access.log", Origin::Upper),
            connect("10.0.0.5:6379"),
        ] {
            observe(b, c, &see(c, now, &nginx(), kind));
        }
        b.refresh(at(now));
    }
}

/// A baseline that has become ready by measurement.
pub fn ready() -> (Baseline, Container) {
    let c = container("web1", 100);
    let mut b = fresh(&c);
    live(&mut b, &c, 100, 40);
    let second = container("web2", 300);
    live(&mut b, &second, 300, 40);
    b.refresh(at(400));
    assert_eq!(b.state().as_str(), "ready", "{:?}", b.readiness());
    (b, second)
}

pub fn only_drift(v: &Verdict) -> &Drift {
    assert_eq!(v.drifts.len(), 1, "{v:#?}");
    &v.drifts[0]
}
