//! Builders: a small world of records, told in the order in which it happened.
#![allow(dead_code, unreachable_pub, missing_docs)] // test helpers; each test uses its part

use plimsoll_ask::*;
use plimsoll_model::event::*;
use plimsoll_model::record::{Lifecycle, Presence};
use plimsoll_model::*;
use std::fmt::Write as _;
use std::path::Path;

pub const S: u64 = 1_000_000_000;
/// 2026-11-21T01:00:00Z, boot time 100000 s.
const WALL: i64 = 1_795_222_800 * S as i64;
const BOOT: u64 = 100_000 * S;

/// A moment, `s` seconds into the scene.
pub fn at(s: f64) -> Stamp {
    let ns = (s * S as f64) as i64;
    Stamp {
        boot: BootNs((BOOT as i64 + ns) as u64),
        wall: WallNs(WALL + ns),
        uncertainty_ns: 1_000,
    }
}

/// Records in memory.
#[derive(Clone)]
pub struct World {
    origin: NodeId,
    pub records: Vec<(Stamp, Option<Instance>, Body)>,
    /// What the records whose content is gone were.
    pub pruned_kind: RecordKind,
}

impl World {
    pub fn new() -> Self {
        Self {
            origin: NodeId::parse("node1").unwrap(),
            records: Vec::new(),
            pruned_kind: RecordKind::Observation,
        }
    }

    pub fn put(&mut self, at: Stamp, about: Option<&Instance>, record: Record) -> RecordId {
        self.records
            .push((at, about.cloned(), Body::Record(record)));
        self.id(self.records.len() as u64 - 1)
    }

    fn id(&self, leaf: u64) -> RecordId {
        RecordId {
            origin: self.origin.clone(),
            leaf,
        }
    }

    pub fn agent(&mut self, what: &str, s: f64) {
        let l = Lifecycle {
            what: what.into(),
            at: at(s),
            version: "0.1.0".into(),
            details: vec![],
        };
        self.put(at(s), None, Record::Lifecycle(l));
    }

    pub fn start_with(&mut self, s: f64, details: Vec<(String, String)>) {
        let l = Lifecycle {
            what: "start".into(),
            at: at(s),
            version: "0.1.0".into(),
            details,
        };
        self.put(at(s), None, Record::Lifecycle(l));
    }

    pub fn container(&mut self, c: &Container, s: f64) -> RecordId {
        self.put(at(s), Some(&c.instance), Record::Container(c.clone()))
    }

    pub fn gone(&mut self, c: &mut Container, s: f64) {
        c.state = ContainerState::Gone;
        c.gone = Some(at(s));
        c.exit_code = Some(137);
        self.container(c, s);
    }

    pub fn event(
        &mut self,
        c: &Container,
        s: f64,
        lineage: &[Ancestor],
        kind: EventKind,
    ) -> RecordId {
        let first = &lineage[0];
        let event = Event {
            boot: at(s).boot,
            cgroup_id: 1,
            process: ProcessInfo {
                key: first.key,
                tid: first.key.tgid,
                uid: first.uid,
                entry: first.entry,
                ..Default::default()
            },
            actor: Actor(1),
            ..Event::new(kind)
        };
        let o = Observation {
            event,
            at: at(s),
            instance: Some(c.instance.clone()),
            lineage: lineage.to_vec().into(),
            lineage_cut: false,
            redacted: vec![],
            unknown_because: String::new(),
            count: 1,
        };
        self.put(at(s), Some(&c.instance), Record::Observation(o))
    }

    /// An act of one process that came with the container.
    pub fn act(&mut self, c: &Container, s: f64, who: &Ancestor, kind: EventKind) -> RecordId {
        self.event(c, s, std::slice::from_ref(who), kind)
    }

    pub fn gap(
        &mut self,
        c: Option<&Container>,
        stage: Stage,
        from: f64,
        to: f64,
        count: Option<u64>,
        reason: &str,
    ) {
        let scope = c.map_or(GapScope::Node, |c| GapScope::Container(c.instance.clone()));
        let gap = Gap {
            stage,
            scope,
            from: at(from),
            to: at(to),
            count,
            reason: reason.into(),
        };
        self.put(at(to), c.map(|c| &c.instance), Record::Gap(gap));
    }

    pub fn presence(&mut self, c: &Container, from: f64, to: f64, counts: &[(&Behaviour, u64)]) {
        let p = Presence {
            instance: c.instance.clone(),
            from: at(from),
            to: at(to),
            counts: counts.iter().map(|(b, n)| (b.id(), *n)).collect(),
        };
        self.put(at(to), Some(&c.instance), Record::Presence(p));
    }

    /// A drift and the alert about it.
    pub fn alert(&mut self, id: &str, c: &Container, s: f64, drift: Drift) -> AlertId {
        let shown = drift.observation.clone();
        self.put(at(s), Some(&c.instance), Record::Drift(drift.clone()));
        let id = AlertId::parse(id).unwrap();
        let alert = Alert {
            id: id.clone(),
            at: at(s),
            rule: "Program from writable layer".into(),
            priority: Priority::Critical,
            output: Text::new(
                b"/tmp/x\x1b[31m was run in web, though it is not from the image".to_vec(),
            ),
            source: AlertSource::Drift(drift),
            instance: Some(c.instance.clone()),
            tags: vec!["T1059".into()],
            fields: vec![],
            evidence: shown.into_iter().collect(),
            count: 1,
            last: at(s),
            handed_boot: at(s).boot,
            prevented: false,
        };
        self.put(at(s), Some(&c.instance), Record::Alert(alert));
        id
    }
}

impl Records for World {
    fn origin(&self) -> &NodeId {
        &self.origin
    }
    fn span(&self) -> Option<Span> {
        Some(Span {
            first: self.records.first()?.0.wall,
            last: self.records.last()?.0.wall,
        })
    }
    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(Seen)) -> Result<(), RecordsError> {
        for (leaf, (stamp, about, body)) in self.records.iter().enumerate() {
            let (kind, payload) = match body {
                Body::Record(r) => r.encode(),
                _ => (self.pruned_kind as u16, vec![]),
            };
            let needles = filter.needles();
            let needles = needles.is_empty()
                || needles
                    .iter()
                    .any(|n| payload.windows(n.len()).any(|w| w == n));
            let ours = filter.instance.is_none() || filter.instance == *about;
            if filter.fits(kind, stamp.wall) && ours && needles {
                each(Seen {
                    id: self.id(leaf as u64),
                    wall: stamp.wall,
                    body: body.clone(),
                });
            }
        }
        Ok(())
    }
    fn get(&self, id: &RecordId) -> Result<Option<Seen>, RecordsError> {
        let found = self.records.get(id.leaf as usize);
        Ok(found.map(|(stamp, _, body)| Seen {
            id: id.clone(),
            wall: stamp.wall,
            body: body.clone(),
        }))
    }
}

pub fn instance(id: char, start: f64) -> Instance {
    Instance {
        id: ContainerId::parse(&id.to_string().repeat(64)).unwrap(),
        start: at(start).boot,
    }
}

pub fn digest(c: char) -> Digest {
    Digest::parse(&format!("sha256:{}", c.to_string().repeat(64))).unwrap()
}

pub fn container(name: &str, id: char, start: f64, image_digest: char) -> Container {
    Container {
        name: name.into(),
        image: ImageRef {
            name: format!("shop/{name}:latest"),
            config_digest: Some(digest(image_digest)),
            repository: Some(format!("docker.io/shop/{name}")),
            ..Default::default()
        },
        role: name.into(),
        service: Some(name.into()),
        cgroup_id: 1,
        cgroup_path: "/docker/x".into(),
        state: ContainerState::Running,
        ports: vec![(80, "tcp".into())],
        command: vec!["nginx".into()],
        ..Container::new(instance(id, start), Runtime::Docker, at(start))
    }
}

pub fn process(pid: u32, start: f64, exe: &str, argv: &[&str], entry: Entry) -> Ancestor {
    Ancestor {
        key: ProcessKey {
            tgid: pid,
            start: at(start).boot,
        },
        exe: exe.into(),
        argv: argv.iter().map(|a| Text::from(*a)).collect(),
        entry,
        uid: 33,
        exec_boot: at(start).boot,
        ..Default::default()
    }
}

pub fn exec(p: &Ancestor, origin: Origin) -> EventKind {
    EventKind::Exec(Exec {
        exe: p.exe.clone(),
        argv: p.argv.clone(),
        origin,
        dev: 7,
        ino: 4711,
        ..Default::default()
    })
}

pub fn file(op: FileOp, path: &str, flags: u32) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op,
        path: path.into(),
        target: Text::default(),
        origin: Origin::Upper,
        flags,
        result: 0,
    })
}

pub fn connect(ip: [u8; 4], port: u16) -> EventKind {
    EventKind::Connect(Connection {
        proto: Proto::Tcp,
        peer: SockAddr::Inet(ip.into(), port),
        local: None,
        result: -115,
    })
}

pub fn dns(name: &str, answer: Option<[u8; 4]>) -> EventKind {
    EventKind::Dns(Dns {
        response: answer.is_some(),
        name: name.into(),
        qtype: 1,
        rcode: 0,
        addresses: answer.into_iter().map(|ip| IpBytes(ip.into())).collect(),
        server: None,
    })
}

pub fn behaviour(kind: BehaviourKind, program: &str, operation: &str, object: &str) -> Behaviour {
    Behaviour {
        kind,
        program: program.into(),
        script: Text::default(),
        entry: Entry::Init,
        uid: 33,
        operation: operation.into(),
        object: object.into(),
        origin: Origin::Unknown,
    }
}

/// A shell that runs a program which came into the container.
pub fn dropped(c: &Container, path: &str, lineage: Line, shown: RecordId, s: f64) -> Drift {
    Drift {
        behaviour: Behaviour {
            origin: Origin::Upper,
            ..behaviour(BehaviourKind::Exec, "/bin/sh", "run", path)
        },
        class: DriftClass::ProgramFromWritable,
        risk: Risk::Critical,
        reason: "the program came into the container after it was created".into(),
        baseline: Some(reference()),
        baseline_state: "ready".into(),
        coverage_permille: 993,
        nearest: vec![],
        instance: c.instance.clone(),
        lineage,
        observation: Some(shown),
        first: at(s),
        last: at(s),
        count: 1,
        techniques: vec![],
        quarantined: false,
    }
}

/// What one question answers about a container that ends at 100 s.
pub fn one(world: &World, question: Question, container: &str) -> plimsoll_api::Answer {
    let asked = Ask {
        question,
        subject: Subject::Container(container.into()),
        around_ns: None,
        now: at(100.0).wall,
        read_max: plimsoll_ask::READ_MAX,
    };
    ask(world, &NoBaselines, &asked).unwrap()
}

/// Whether a sentence of this status holds all of these words.
pub fn says(answer: &plimsoll_api::Answer, status: &str, words: &[&str]) -> bool {
    let fits = |s: &&plimsoll_api::Statement| {
        s.status.as_str() == status && words.iter().all(|w| s.text.contains(w))
    };
    answer.statements.iter().any(|s| fits(&s))
}

/// One baseline, of the image with digest `1…`.
pub struct Known;

pub fn known() -> Vec<Behaviour> {
    vec![
        behaviour(
            BehaviourKind::Exec,
            "/usr/bin/tini",
            "run",
            "/usr/sbin/nginx",
        ),
        behaviour(
            BehaviourKind::File,
            "/usr/sbin/nginx",
            "read",
            "/etc/nginx/*.conf",
        ),
        behaviour(
            BehaviourKind::Connect,
            "/usr/sbin/nginx",
            "tcp",
            "10.0.0.5:6379",
        ),
    ]
}

pub fn reference() -> BaselineRef {
    BaselineRef {
        id: BaselineId::parse("b1f00000").unwrap(),
        version: 4,
    }
}

impl Baselines for Known {
    fn knowing(&self, id: &BehaviourId, _: &Behaviour) -> Vec<BaselineHit> {
        let hit = |_: &Behaviour| BaselineHit {
            baseline: reference(),
            image: "shop/web:latest".into(),
            role: "web".into(),
            quarantined: false,
            count: 12,
            first: at(-3000.0),
            last: at(-10.0),
        };
        known().iter().filter(|b| b.id() == *id).map(hit).collect()
    }
    fn facts(&self, _: &BaselineRef) -> Option<BaselineFacts> {
        Some(BaselineFacts {
            baseline: reference(),
            image_digest: Some(digest('1')),
            image: "shop/web:latest".into(),
            role: "web".into(),
            state: "ready".into(),
            coverage: Some(0.993),
            samples: 1440,
            expected_new_per_day: Some(2.1),
            starts: 3,
            hours_seen: 34,
            hours: "Mon 08-18, Tue 00-24 UTC (34 of 168 hours)".into(),
            unmet: vec![],
            known: known(),
            predecessor: None,
            record: Some(RecordId {
                origin: NodeId::parse("node1").unwrap(),
                leaf: 2,
            }),
        })
    }
    fn of_image(&self, image: Option<&Digest>, role: &str) -> Option<BaselineFacts> {
        (image == Some(&digest('1')) && role == "web").then(|| self.facts(&reference()))?
    }
}

/// Every question about `subject`, as text.
pub fn answers(world: &World, baselines: &dyn Baselines, subject: &Subject, now: f64) -> String {
    answers_to(&Question::ALL, world, baselines, subject, now)
}

/// The same of these questions.
pub fn answers_to(
    questions: &[Question],
    world: &World,
    baselines: &dyn Baselines,
    subject: &Subject,
    now: f64,
) -> String {
    let mut text = String::new();
    for question in questions.iter().copied() {
        let asked = Ask {
            question,
            subject: subject.clone(),
            around_ns: None,
            now: at(now).wall,
            read_max: plimsoll_ask::READ_MAX,
        };
        let a = ask(world, baselines, &asked).unwrap();
        let _ = writeln!(text, "{} {}\n  about {}", a.question, a.title, a.subject);
        for s in &a.statements {
            let _ = writeln!(
                text,
                "  {:<8} {} {:?}",
                s.status.as_str(),
                s.text,
                s.evidence
            );
        }
        let c = &a.completeness;
        let _ = writeln!(text, "  {} {}", c.level, c.summary);
        let s = |ns: u64| ns / S;
        let k = &c.coverage;
        let _ = writeln!(
            text,
            "    watched {} s, blind {} s, unknown {} s, observations {:?}",
            s(k.observed_ns),
            s(k.blind_ns),
            s(k.unknown_ns),
            k.observations
        );
        for g in &c.gaps {
            let _ = writeln!(
                text,
                "    gap {} {:?} {:?} {}",
                g.stage, g.count, g.record, g.reason
            );
        }
        for l in &c.limits {
            let _ = writeln!(text, "    limit {l}");
        }
        text.push('\n');
    }
    text
}

pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("PLIMSOLL_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (is, should)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "{name}, line {}", n + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
    assert!(
        !text.contains('\x1b'),
        "no control character reaches an answer"
    );
}
