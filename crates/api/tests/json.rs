//! The JSON of every type, compared with `tests/json/`. A changed line there is a changed contract:
//! adding a field is fine, anything else needs a new API version. `PLIMSOLL_UPDATE_GOLDEN=1` writes
//! them anew.

use plimsoll_api as api;
use plimsoll_api::types::{BaselineRef, Context, KnownBehaviour, PlimsollAlert};
use plimsoll_model::event::*;
use plimsoll_model::*;
use serde::Serialize;
use std::path::Path;

fn check<T>(name: &str, value: &T)
where
    T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/json/{name}.json"));
    if std::env::var_os("PLIMSOLL_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        text,
        std::fs::read_to_string(&path).unwrap_or_default(),
        "{name}"
    );
    let read: T = serde_json::from_str(&api::json::line(value)).unwrap();
    assert_eq!(&read, value, "{name} survives its own JSON");
}

fn stamp() -> Stamp {
    Stamp {
        boot: BootNs(77),
        wall: WallNs(1_795_222_800_000_000_004),
        uncertainty_ns: 900,
    }
}

fn container() -> Container {
    let digest = |c: char| Digest::parse(&format!("sha256:{}", c.to_string().repeat(64))).ok();
    Container {
        instance: Instance {
            id: ContainerId::parse(&"a".repeat(64)).unwrap(),
            start: BootNs(42),
        },
        runtime: Runtime::Docker,
        name: "web".into(),
        image: ImageRef {
            name: "nginx:1.27".into(),
            config_digest: digest('1'),
            manifest_digest: digest('2'),
            index_digest: None,
            repository: Some("docker.io/library/nginx".into()),
        },
        role: "web".into(),
        service: Some("web".into()),
        pod: None,
        namespace: None,
        labels: [("evil".to_owned(), "\x1b[31m".to_owned())].into(),
        cgroup_id: 9,
        cgroup_path: "/docker/aaaa".into(),
        first_seen: stamp(),
        state: ContainerState::Gone,
        gone: Some(stamp()),
        exit_code: Some(137),
        unknown_because: String::new(),
        ports: vec![(80, "tcp".into())],
        found_running: false,
        addresses: vec!["172.17.0.2".into()],
        mounts: vec!["/data".into()],
        mount_points: None,
        pod_facts: None,
        awaited: false,
        privileged: false,
        command: vec!["nginx".into()],
    }
}

fn lineage() -> Vec<Ancestor> {
    let one = |tgid, exe: &str| Ancestor {
        key: ProcessKey {
            tgid,
            start: BootNs(50),
        },
        exe: exe.into(),
        argv: vec![Text::new(b"-c\xff\x1b".to_vec())],
        ..Default::default()
    };
    vec![one(12, "/bin/sh"), one(11, "/usr/sbin/nginx")]
}

fn drift() -> Drift {
    let behaviour = Behaviour {
        kind: BehaviourKind::Exec,
        program: "/usr/sbin/nginx".into(),
        script: Text::default(),
        entry: Entry::Init,
        uid: 33,
        operation: "run".into(),
        object: "/bin/sh".into(),
        origin: Origin::Image,
    };
    Drift {
        nearest: vec![NearBehaviour {
            behaviour: behaviour.clone(),
            difference: "other program".into(),
        }],
        behaviour,
        class: DriftClass::ShellUnderServer,
        risk: Risk::High,
        reason: "a shell under a server".into(),
        baseline: Some(plimsoll_model::BaselineRef {
            id: BaselineId::parse("b1").unwrap(),
            version: 4,
        }),
        baseline_state: "ready".into(),
        coverage_permille: 993,
        instance: container().instance,
        lineage: lineage().into(),
        observation: Some(record(7)),
        first: stamp(),
        last: stamp(),
        count: 2,
        techniques: vec!["T1059".into()],
        quarantined: false,
    }
}

fn record(leaf: u64) -> RecordId {
    RecordId {
        origin: NodeId::parse("node1").unwrap(),
        leaf,
    }
}

fn event(kind: EventKind) -> Observation {
    Observation {
        event: Event {
            boot: BootNs(77),
            seq: 1,
            cpu: 0,
            alert_class: false,
            cgroup_id: 9,
            process: ProcessInfo {
                key: ProcessKey {
                    tgid: 12,
                    start: BootNs(50),
                },
                tid: 12,
                ppid: 11,
                uid: 33,
                gid: 33,
                comm: "sh".into(),
                entry: Entry::Init,
            },
            actor: Actor(1),
            trust: Trust::Object,
            tampered: false,
            kind,
            dense: 0,
            dict: None,
            enforced: None,
        },
        at: stamp(),
        instance: Some(container().instance),
        lineage: lineage().into(),
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 1,
    }
}

#[test]
fn containers() {
    check("container", &api::Container::new(&container(), "node1"));
}

#[test]
fn drifts() {
    let (c, id) = (container(), record(8));
    check(
        "drift",
        &api::Drift::new(
            &drift(),
            Context {
                node: "node1",
                container: Some(&c),
                record: Some(&id),
            },
        ),
    );
}

#[test]
fn alerts_are_falcos_with_one_object_of_ours() {
    let (c, id) = (container(), record(9));
    let alert = Alert {
        id: AlertId::parse("A-1").unwrap(),
        at: stamp(),
        rule: "Shell under server".into(),
        priority: Priority::Critical,
        output: "nginx started a shell".into(),
        source: AlertSource::Drift(drift()),
        instance: Some(c.instance.clone()),
        tags: vec!["T1059".into()],
        fields: vec![
            ("container.id".into(), "aaaaaaaaaaaa".into()),
            ("proc.name".into(), "12".into()),
            ("proc.pid".into(), "12".into()),
        ],
        evidence: vec![record(7)],
        count: 2,
        last: stamp(),
        handed_boot: BootNs(78),
        prevented: false,
    };
    let json = api::Alert::new(
        &alert,
        Context {
            node: "node1",
            container: Some(&c),
            record: Some(&id),
        },
    );
    assert_eq!(
        json.output_fields["proc.pid"], 12,
        "a number, as Falco prints it"
    );
    assert_eq!(
        json.output_fields["proc.name"], "12",
        "a name that looks like a number stays a string"
    );
    check("alert", &json);
}

#[test]
fn events_of_every_kind() {
    let conn = |result| Connection {
        proto: Proto::Tcp,
        peer: SockAddr::Inet([10, 0, 0, 5].into(), 6379),
        local: Some(SockAddr::Unix("@x".into())),
        result,
    };
    let key = ProcessKey {
        tgid: 13,
        start: BootNs(60),
    };
    let kinds = vec![
        EventKind::Exec(Exec {
            exe: "/bin/sh".into(),
            argv: vec!["sh".into(), "-c".into(), "id; \x1b[2J".into()],
            origin: Origin::Memfd,
            deleted: true,
            caps: 1 << 21,
            mode: 0o104755,
            ..Default::default()
        }),
        EventKind::Exit { code: 1, signal: 0 },
        EventKind::Fork { child: key },
        EventKind::File(FileEvent {
            raw: None,
            mode: None,
            op: FileOp::Rename,
            path: "/tmp/a\n".into(),
            target: "/tmp/b".into(),
            origin: Origin::Tmpfs,
            flags: 0,
            result: -13,
        }),
        EventKind::Library {
            path: "/tmp/x.so".into(),
            origin: Origin::Upper,
        },
        EventKind::Socket {
            family: 17,
            kind: 3,
            protocol: 768,
        },
        EventKind::Connect(conn(-115)),
        EventKind::Accept(conn(0)),
        EventKind::Listen {
            proto: Proto::Tcp,
            local: SockAddr::Inet([0, 0, 0, 0].into(), 80),
        },
        EventKind::Bind {
            proto: Proto::Udp,
            local: SockAddr::Inet([0, 0, 0, 0].into(), 53),
        },
        EventKind::Datagram(conn(0)),
        EventKind::Dns(Dns {
            response: true,
            name: "db".into(),
            qtype: 1,
            rcode: 0,
            addresses: vec![IpBytes([10, 0, 0, 5].into())],
            server: None,
        }),
        EventKind::Dup {
            stream: 0,
            target: DupTarget::Inet,
            peer: None,
        },
        EventKind::Namespace {
            call: NamespaceCall::Setns,
            flags: 0x4000_0000,
        },
        EventKind::Mount {
            call: MountCall::Mount,
            source: "/dev/sda".into(),
            target: "/mnt".into(),
            fstype: "ext4".into(),
            flags: 1,
        },
        EventKind::Ptrace {
            request: u32::MAX,
            target: 1,
        },
        EventKind::Module {
            name: "evil".into(),
        },
        EventKind::Bpf { command: 5 },
        EventKind::Credentials {
            old_uid: 33,
            new_uid: 0,
            old_caps: 0,
            new_caps: 1,
        },
        EventKind::Syscall {
            nr: 101,
            compat: true,
        },
        EventKind::Memfd { name: "x".into() },
        EventKind::CgroupMkdir {
            id: 1,
            parent: 2,
            path: "/x".into(),
        },
        EventKind::CgroupRmdir { id: 1 },
        EventKind::CgroupAttach {
            to: 1,
            path: "/".into(),
            moved: key,
        },
        EventKind::Rare {
            nr: 250,
            args: [1, 2, 3, u64::MAX],
            result: -1,
        },
        EventKind::Signal {
            signal: 9,
            target: -1,
        },
    ];
    let (c, id) = (container(), record(7));
    let context = Context {
        node: "node1",
        container: Some(&c),
        record: Some(&id),
    };
    check("event", &api::Event::new(&event(kinds[0].clone()), context));
    let details: Vec<_> = kinds
        .into_iter()
        .map(|k| api::Event::new(&event(k), context))
        .map(|e| serde_json::json!({ "kind": e.kind, "summary": e.summary, "detail": e.detail }))
        .collect();
    check("event_details", &details);
}

#[test]
fn gaps_and_decisions() {
    let (c, id) = (container(), record(5));
    let context = Context {
        node: "node1",
        container: Some(&c),
        record: Some(&id),
    };
    let gap = Gap {
        stage: Stage::BulkRing,
        scope: GapScope::Container(c.instance.clone()),
        from: stamp(),
        to: stamp(),
        count: Some(17),
        reason: "the ring was full".into(),
    };
    check("gap", &api::Gap::new(&gap, context));
    let d = plimsoll_model::record::Decision {
        at: stamp(),
        action: "baseline.approve".into(),
        subject: "b1".into(),
        reason: "reviewed".into(),
        uid: 0,
        login_uid: u32::MAX,
        method: "socket".into(),
    };
    check("decision", &api::Decision::new(&d, context));
}

#[test]
fn what_others_fill_in() {
    check(
        "baseline",
        &api::BaselineDetail {
            baseline: api::Baseline {
                id: "b1".into(),
                version: 4,
                state: "learning".into(),
                coverage: Some(0.5),
                predecessor: Some(BaselineRef {
                    id: "b0".into(),
                    version: 2,
                }),
                ..Default::default()
            },
            known: vec![KnownBehaviour {
                behaviour: (&drift().behaviour).into(),
                ..Default::default()
            }],
            quarantine: vec![],
        },
    );
    check("baseline_diff", &api::BaselineDiff::default());
    check(
        "status",
        &api::Status {
            sensor: Some(Default::default()),
            ..Default::default()
        },
    );
    check(
        "doctor",
        &api::DoctorRow {
            refused: vec![Default::default()],
            ..Default::default()
        },
    );
    check(
        "answer",
        &api::Answer {
            question: "Q1".into(),
            title: "Which exact instance was it?".into(),
            subject: "web".into(),
            statements: vec![api::Statement {
                text: "…".into(),
                status: api::StatementStatus::Observed,
                evidence: vec!["node1@7".into()],
            }],
            completeness: api::Completeness {
                gaps: vec![Default::default()],
                ..Default::default()
            },
        },
    );
}

#[test]
fn a_reader_skips_what_it_does_not_know_and_fills_in_what_is_not_there() {
    let newer = r#"{"alert_id":"A-1","count":3,"colour":"blue"}"#;
    let read: PlimsollAlert = serde_json::from_str(newer).unwrap();
    assert_eq!(
        (read.alert_id.as_str(), read.count, read.drift),
        ("A-1", 3, None)
    );
}
