//! One record of every kind, hostile where a container could make it so, and a checker for OCSF.
#![allow(dead_code, unreachable_pub, missing_docs)] // test helpers; each test uses its part

use plimsoll_export::{Exporter, Format, Row};
use plimsoll_model::event::*;
use plimsoll_model::record::{Anchored, Decision, Lifecycle, Presence};
use plimsoll_model::response::*;
use plimsoll_model::*;
use serde_json::Value;
use std::collections::BTreeSet;

pub fn at(s: i64) -> Stamp {
    Stamp {
        boot: BootNs(s as u64 * 1_000_000_000),
        wall: WallNs(1_795_222_800_000_000_000 + s * 1_000_000_000),
        uncertainty_ns: 1_000,
    }
}

pub fn instance() -> Instance {
    Instance {
        id: ContainerId::parse(&"a".repeat(64)).unwrap(),
        start: at(1).boot,
    }
}

pub fn container() -> Container {
    Container {
        name: "web".into(),
        image: ImageRef {
            name: "shop/web:1".into(),
            config_digest: Digest::parse(&format!("sha256:{}", "1".repeat(64))).ok(),
            ..Default::default()
        },
        role: "web".into(),
        pod: Some("web-0".into()),
        namespace: Some("shop".into()),
        cgroup_id: 1,
        cgroup_path: "/x".into(),
        state: ContainerState::Running,
        addresses: vec!["10.0.0.4".into()],
        command: vec!["nginx".into()],
        ..Container::new(instance(), Runtime::Docker, at(1))
    }
}

/// A process whose name begins as a formula and obeys terminals.
pub fn hostile() -> Ancestor {
    Ancestor {
        key: ProcessKey {
            tgid: 22,
            start: at(5).boot,
        },
        exe: Text::new(b"=cmd|'/c calc'!A1\x1b[31m\xff".to_vec()),
        argv: vec!["=1+1".into(), "a,b\"c\n".into()],
        uid: 33,
        ..Default::default()
    }
}

pub fn observation(kind: EventKind) -> Record {
    let parent = Ancestor {
        key: ProcessKey {
            tgid: 11,
            start: at(2).boot,
        },
        exe: "/usr/sbin/nginx".into(),
        ..Default::default()
    };
    let acting = hostile();
    let event = Event {
        boot: at(6).boot,
        cgroup_id: 1,
        process: ProcessInfo {
            key: acting.key,
            uid: 33,
            ..Default::default()
        },
        actor: Actor(1),
        ..Event::new(kind)
    };
    Record::Observation(Observation {
        event,
        at: at(6),
        instance: Some(instance()),
        lineage: vec![acting, parent].into(),
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 2,
    })
}

fn inet(port: u16) -> SockAddr {
    SockAddr::Inet([10, 0, 0, 5].into(), port)
}

fn connection(peer: SockAddr, local: Option<SockAddr>, result: i32) -> Connection {
    Connection {
        proto: Proto::Tcp,
        peer,
        local,
        result,
    }
}

/// Every kind of event.
pub fn kinds() -> Vec<EventKind> {
    let file = |op, result| {
        EventKind::File(FileEvent {
            raw: None,
            mode: None,
            op,
            path: "/etc/shadow".into(),
            target: "/tmp/b".into(),
            origin: Origin::Upper,
            flags: 0,
            result,
        })
    };
    use FileOp::*;
    let ops = [
        Read, Write, Create, List, Unlink, Mkdir, Rmdir, Chmod, Chown, Rename, Link, Symlink,
    ];
    let mut all: Vec<EventKind> = ops.into_iter().map(|op| file(op, 0)).collect();
    all.push(file(Failed, -13));
    let exec = Exec {
        exe: "/tmp/x".into(),
        argv: vec!["/tmp/x".into()],
        cwd: "/tmp".into(),
        ..Default::default()
    };
    let unix = || SockAddr::Unix("@x".into());
    let dns = |response, rcode, addresses| {
        EventKind::Dns(Dns {
            response,
            name: "evil.example".into(),
            qtype: 28,
            rcode,
            addresses,
            server: None,
        })
    };
    let (proto, local) = (Proto::Udp, inet(53));
    all.extend([
        EventKind::Exec(exec),
        EventKind::Exec(Exec::default()),
        EventKind::Exit { code: 1, signal: 9 },
        EventKind::Fork {
            child: ProcessKey {
                tgid: 13,
                start: at(3).boot,
            },
        },
        EventKind::Library {
            path: "/lib/x.so".into(),
            origin: Origin::Image,
        },
        EventKind::Socket {
            family: 17,
            kind: 3,
            protocol: 768,
        },
        EventKind::Connect(connection(inet(443), Some(inet(50_000)), -115)),
        EventKind::Connect(connection(inet(443), None, -111)),
        EventKind::Connect(connection(unix(), None, -13)),
        EventKind::Connect(connection(SockAddr::Inet([0u16; 8].into(), 1), None, 0)),
        EventKind::Accept(connection(inet(50_000), Some(inet(80)), 0)),
        EventKind::Datagram(connection(inet(53), None, 0)),
        EventKind::Listen {
            proto,
            local: local.clone(),
        },
        EventKind::Bind { proto, local },
        dns(false, 0, vec![]),
        dns(true, 0, vec![IpBytes([10, 0, 0, 9].into())]),
        dns(true, 23, vec![]),
        EventKind::Dup {
            stream: 0,
            target: DupTarget::Inet,
            peer: Some(inet(1)),
        },
        EventKind::Namespace {
            call: NamespaceCall::Setns,
            flags: 0,
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
        EventKind::Ptrace {
            request: 16,
            target: 1,
        },
        EventKind::Module {
            name: "evil".into(),
        },
        EventKind::Module { name: "".into() },
        EventKind::Bpf { command: 5 },
        EventKind::Credentials {
            old_uid: 33,
            new_uid: 0,
            old_caps: 0,
            new_caps: 1,
        },
        EventKind::Syscall {
            nr: 59,
            compat: false,
        },
        EventKind::Syscall {
            nr: 11,
            compat: true,
        },
        EventKind::Syscall {
            nr: 99_999,
            compat: false,
        },
        EventKind::Memfd { name: "x".into() },
        EventKind::CgroupMkdir {
            id: 1,
            parent: 2,
            path: "/x".into(),
        },
        EventKind::CgroupRmdir { id: 1 },
        EventKind::Rare {
            nr: 250,
            args: [1, 2, 3, u64::MAX],
            result: -1,
        },
        EventKind::Signal {
            signal: 9,
            target: -1,
        },
    ]);
    all
}

pub fn drift() -> Drift {
    Drift {
        behaviour: Behaviour {
            kind: BehaviourKind::Exec,
            program: "/bin/sh".into(),
            script: Text::default(),
            entry: Entry::Init,
            uid: 33,
            operation: "run".into(),
            object: "/tmp/x".into(),
            origin: Origin::Upper,
        },
        class: DriftClass::ProgramFromWritable,
        risk: Risk::Critical,
        reason: "came into the container after it was created".into(),
        baseline: None,
        baseline_state: String::new(),
        coverage_permille: 0,
        nearest: vec![],
        instance: instance(),
        lineage: vec![hostile()].into(),
        observation: Some(id(7)),
        first: at(6),
        last: at(7),
        count: 3,
        techniques: vec!["T1059".into(), "T1552.001".into(), "container".into()],
        quarantined: false,
    }
}

pub fn alert(source: AlertSource) -> Record {
    Record::Alert(Alert {
        id: AlertId::parse("A-1").unwrap(),
        at: at(6),
        rule: "Program from writable layer".into(),
        priority: Priority::Critical,
        output: Text::new(b"@SUM(1) \x1b[31m was run".to_vec()),
        source,
        instance: Some(instance()),
        tags: vec!["T1059".into(), "maturity_stable".into()],
        fields: vec![("proc.name".into(), "x".into())],
        evidence: vec![id(7)],
        count: 1,
        last: at(6),
        handed_boot: at(6).boot,
        prevented: false,
    })
}

pub fn id(leaf: u64) -> RecordId {
    RecordId {
        origin: NodeId::parse("node1").unwrap(),
        leaf,
    }
}

/// One record of every kind that has words for people, and some that have not.
pub fn records() -> Vec<Record> {
    let mut all: Vec<Record> = kinds().into_iter().map(observation).collect();
    let mut gone = container();
    (gone.state, gone.gone) = (ContainerState::Gone, Some(at(90)));
    let step = |kind, phase| {
        Record::Step(StepRecord {
            plan: "P-1".into(),
            step: 0,
            kind,
            attempt: 1,
            at: at(9),
            phase,
        })
    };
    let done = || StepOutcome::Done {
        effect: "done".into(),
        sealed: None,
        undo: vec![],
    };
    let failed = StepOutcome::Failed { why: "no".into() };
    all.extend(StepKind::ALL.map(|kind| step(kind, StepPhase::Ended(done()))));
    all.extend([
        Record::Drift(drift()),
        alert(AlertSource::Drift(drift())),
        alert(AlertSource::Rule("r".into())),
        Record::Container(container()),
        Record::Container(gone),
        Record::Gap(Gap {
            stage: Stage::BulkRing,
            scope: GapScope::Container(instance()),
            from: at(3),
            to: at(4),
            count: None,
            reason: "full".into(),
        }),
        step(StepKind::Pause, StepPhase::Began),
        step(StepKind::Pause, StepPhase::UndoEnded(failed)),
        Record::PlanEnd(PlanEnd {
            plan: "P-1".into(),
            at: at(10),
            why: "done".into(),
        }),
        Record::Decision(Decision {
            at: at(10),
            action: "plan.approve".into(),
            subject: "P-1".into(),
            reason: "-1+1".into(),
            uid: 0,
            login_uid: 1000,
            method: "socket".into(),
        }),
        Record::Delivery(Delivery {
            at: at(10),
            receiver: "pager".into(),
            message: "m".into(),
            alerts: vec![AlertId::parse("A-1").unwrap()],
            count: 1,
            attempt: 1,
            result: DeliveryResult::Delivered,
            detail: String::new(),
            settled_below: 0,
        }),
        Record::Plan(Plan {
            id: "P-1".into(),
            alert: AlertId::parse("A-1").unwrap(),
            alert_record: None,
            at: at(8),
            instance: Some(instance()),
            container: "web".into(),
            policy: "p".into(),
            policy_digest: String::new(),
            dry_run: true,
            reasons: vec!["r".into()],
            steps: vec![],
            blast_radius: vec![],
            held: vec![],
            approval_ms: 1,
            two_person: false,
            service: None,
            pid: None,
            pid_start: None,
        }),
    ]);
    for what in ["start", "stop", "config"] {
        all.push(Record::Lifecycle(Lifecycle {
            what: what.into(),
            at: at(0),
            version: "0.1.0".into(),
            details: vec![("kernel".into(), "6.12".into())],
        }));
    }
    all.push(Record::Anchored(Anchored {
        at: at(1),
        size: 7,
        target: "/mnt".into(),
    }));
    let (from, to) = (at(1), at(2));
    all.push(Record::Presence(Presence {
        instance: instance(),
        from,
        to,
        counts: vec![],
    }));
    all.push(Record::Baseline(vec![1]));
    all.push(Record::Unknown(11, vec![2]));
    all
}

/// Every record's line in a format, with the exporter.
pub fn lines(format: Format) -> (Vec<String>, Exporter) {
    let mut exporter = Exporter::new(format, "node1");
    let c = container();
    let mut lines = Vec::new();
    for (n, record) in records().iter().enumerate() {
        let row = Row {
            id: &id(n as u64),
            wall: at(6).wall,
            record,
            container: Some(&c),
        };
        lines.extend(exporter.line(&row));
    }
    (lines, exporter)
}

/// What is wrong with an event, by the compiled form of the schema.
pub fn violations(schema: &Value, event: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let uid = &event["class_uid"];
    let classes = schema["classes"].as_object().unwrap();
    let base = &schema["base_event"];
    let class = classes
        .values()
        .chain(Some(base))
        .find(|c| c["uid"].as_u64() == uid.as_u64());
    let Some(class) = class else {
        return vec![format!("no class {uid}")];
    };
    let profiles: BTreeSet<&str> = event["metadata"]["profiles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    check(schema, class, event, &profiles, "", &mut wrong);
    let (class, activity) = (uid.as_u64(), event["activity_id"].as_u64());
    let expected = class.zip(activity).map(|(c, a)| c * 100 + a);
    if event["type_uid"].as_u64() != expected {
        wrong.push("type_uid is not class_uid * 100 + activity_id".into());
    }
    if activity == Some(99) && !event["activity_name"].is_string() {
        wrong.push("activity 99 without a name".into());
    }
    wrong
}

fn check(
    schema: &Value,
    shape: &Value,
    value: &Value,
    profiles: &BTreeSet<&str>,
    at: &str,
    wrong: &mut Vec<String>,
) {
    let Some(object) = value.as_object() else {
        return wrong.push(format!("{at}: not an object"));
    };
    let attributes = shape["attributes"].as_object().unwrap();
    for (name, attribute) in attributes {
        let applies = attribute["profile"]
            .as_str()
            .is_none_or(|p| profiles.contains(p));
        if attribute["requirement"] == "required" && applies && !object.contains_key(name) {
            wrong.push(format!("{at}.{name}: required"));
        }
    }
    if let Some(one_of) = shape["constraints"]["at_least_one"].as_array()
        && !one_of
            .iter()
            .any(|n| object.contains_key(n.as_str().unwrap()))
    {
        wrong.push(format!("{at}: none of {one_of:?}"));
    }
    for (name, value) in object {
        let place = format!("{at}.{name}");
        let Some(attribute) = attributes.get(name) else {
            wrong.push(format!("{place}: no such attribute"));
            continue;
        };
        let outside = attribute["profile"]
            .as_str()
            .filter(|p| !profiles.contains(p));
        if let Some(profile) = outside {
            wrong.push(format!("{place}: of profile {profile}, which is not named"));
        }
        let items: Vec<&Value> = match (attribute["is_array"] == true, value.as_array()) {
            (true, Some(items)) => items.iter().collect(),
            (false, None) => vec![value],
            _ => {
                wrong.push(format!("{place}: array or not"));
                continue;
            }
        };
        for item in items {
            check_value(schema, attribute, item, profiles, &place, wrong);
        }
    }
}

fn check_value(
    schema: &Value,
    attribute: &Value,
    value: &Value,
    profiles: &BTreeSet<&str>,
    at: &str,
    wrong: &mut Vec<String>,
) {
    let name = attribute["type"].as_str().unwrap_or_default();
    if let Some(object) = schema["objects"].get(name).filter(|_| name != "object") {
        return check(schema, object, value, profiles, at, wrong);
    }
    if let Some(allowed) = attribute["enum"].as_object().filter(|e| !e.is_empty()) {
        let key = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if !allowed.contains_key(&key) {
            wrong.push(format!("{at}: {key} is not among the values"));
        }
    }
    let kind = &schema["types"][name];
    let right = match (name, kind["type"].as_str()) {
        ("object" | "json_t", _) => true,
        ("boolean_t", _) => value.is_boolean(),
        ("integer_t" | "long_t", _) | (_, Some("integer_t" | "long_t")) => {
            value.is_i64() || value.is_u64()
        }
        ("float_t", _) => value.is_number(),
        ("string_t", _) | (_, Some("string_t")) => value.is_string(),
        _ => false,
    };
    if !right {
        wrong.push(format!("{at}: {value} is no {name}"));
    }
    if let (Some(pattern), Some(text)) = (kind["regex"].as_str(), value.as_str())
        && !regex_lite::Regex::new(pattern).unwrap().is_match(text)
    {
        wrong.push(format!("{at}: {text:?} is no {name}"));
    }
    if let (Some([low, high]), Some(n)) =
        (kind["range"].as_array().map(Vec::as_slice), value.as_i64())
        && !(low.as_i64().unwrap()..=high.as_i64().unwrap()).contains(&n)
    {
        wrong.push(format!("{at}: {n} is out of range"));
    }
}
