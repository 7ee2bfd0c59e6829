//! OCSF 1.8.0: which class a record is, and its attributes.
//!
//! Source: the schema as published by the OCSF project (<https://schema.ocsf.io/1.8.0/>), profiles
//! `host` and `container`. What the schema has no attribute for stands under `unmapped`, in the form
//! of the plain export.

use crate::plain::{phase, value};
use crate::{Row, kind_name};
use plimsoll_api::describe::{self, words};
use plimsoll_api::json::lossy;
use plimsoll_api::types::class_name;
use plimsoll_model::event::{Connection, Dns, Exec, FileEvent};
use plimsoll_model::names::{Table, syscall_name};
use plimsoll_model::response::StepRecord;
use plimsoll_model::{
    Alert, AlertSource, Ancestor, Container, ContainerState, Drift, EventKind, FileOp, Instance,
    Observation, Priority, Proto, Record, Risk, SockAddr, Stamp, StepClass, StepKind, Text, WallNs,
};
use serde_json::{Map, Value, json};

/// The version of the schema.
pub(crate) const VERSION: &str = "1.8.0";

/// A class with its category, and one of its activities.
struct Class {
    uid: u32,
    name: &'static str,
    category: u32,
    category_name: &'static str,
    activity: u32,
    activity_name: &'static str,
}

const fn class(uid: u32, name: &'static str, activity: u32, activity_name: &'static str) -> Class {
    // category_uid is the class's thousands
    let category_name = match uid / 1000 {
        1 => "System Activity",
        2 => "Findings",
        4 => "Network Activity",
        6 => "Application Activity",
        7 => "Remediation",
        _ => "Uncategorized",
    };
    Class {
        uid,
        name,
        category: uid / 1000,
        category_name,
        activity,
        activity_name,
    }
}

const FILE: &str = "File System Activity";
const KERNEL: &str = "Kernel Activity";
const PROCESS: &str = "Process Activity";
const NETWORK: &str = "Network Activity";
const FINDING: &str = "Detection Finding";
const LIFECYCLE: &str = "Application Lifecycle";
const REMEDIATION: &str = "Remediation Activity";

/// An event under way.
struct Event {
    object: Map<String, Value>,
}

impl Event {
    fn new(class: &Class, at: Stamp, severity: u32, row: &Row<'_>, node: &str) -> Self {
        let severity_name = match severity {
            1 => "Informational",
            2 => "Low",
            3 => "Medium",
            4 => "High",
            5 => "Critical",
            6 => "Fatal",
            _ => "Unknown",
        };
        let mut device = json!({
            "type_id": 0,
            "name": node,
            "uid": node,
            "hostname": node,
            "os": { "name": "Linux", "type_id": 200 },
        });
        if let Some(c) = row.container {
            device["container"] = container(c);
        }
        let object = json!({
            "class_uid": class.uid,
            "class_name": class.name,
            "category_uid": class.category,
            "category_name": class.category_name,
            "activity_id": class.activity,
            "activity_name": class.activity_name,
            "type_uid": u64::from(class.uid) * 100 + u64::from(class.activity),
            "type_name": format!("{}: {}", class.name, class.activity_name),
            "time": millis(at.wall),
            "severity_id": severity,
            "severity": severity_name,
            "device": device,
            "metadata": {
                "version": VERSION,
                "profiles": ["host", "container"],
                "uid": row.id.to_string(),
                "log_name": "plimsoll journal",
                "original_time": at.wall.rfc3339(),
                "product": {
                    "name": "Plimsoll",
                    "vendor_name": "Plimsoll",
                    "version": env!("CARGO_PKG_VERSION"),
                },
            },
        });
        let Value::Object(mut object) = object else {
            unreachable!("written as an object above")
        };
        let mut rest = value(row, node).unwrap_or_default();
        rest["uncertainty_ns"] = at.uncertainty_ns.into();
        rest["kind"] = kind_name(row.record).into();
        object.insert("unmapped".to_owned(), rest);
        Self { object }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.object.insert(key.to_owned(), value.into());
        self
    }

    /// Names a profile beside those that every event has.
    fn profile(mut self, name: &str) -> Self {
        if let Some(list) = self
            .object
            .get_mut("metadata")
            .and_then(|m| m["profiles"].as_array_mut())
        {
            list.push(name.into());
        }
        self
    }

    fn done(self) -> Option<Value> {
        Some(Value::Object(self.object))
    }
}

/// The event for a record; `None`: the schema has no word for it.
pub(crate) fn event(row: &Row<'_>, node: &str) -> Option<Value> {
    match row.record {
        Record::Alert(a) => alert(a, row, node),
        Record::Drift(d) => drift(d, row, node),
        Record::Observation(o) => observation(o, row, node),
        Record::Container(c) => life(c, row, node),
        Record::Lifecycle(l) => {
            let class = match l.what.as_str() {
                "start" => class(6002, LIFECYCLE, 3, "Start"),
                "stop" => class(6002, LIFECYCLE, 4, "Stop"),
                _ => class(6002, LIFECYCLE, 99, "Other"),
            };
            Event::new(&class, l.at, 1, row, node)
                .with(
                    "app",
                    json!({ "name": "plimsoll agent", "version": l.version }),
                )
                .with(
                    "message",
                    words(&format!("agent {}: {}", l.version, l.what)),
                )
                .done()
        }
        Record::Step(s) => step(s, row, node),
        // a loss is no activity of anybody: the base class says so, and status_detail how much
        Record::Gap(g) => {
            let how_many = g
                .count
                .map_or("an unknown number of".to_owned(), |n| n.to_string());
            Event::new(&class(0, "Base Event", 99, "Other"), g.from, 3, row, node)
                .with(
                    "message",
                    words(&format!(
                        "gap ({}): {how_many} events not observed or not kept: {}",
                        g.stage.as_str(),
                        g.reason
                    )),
                )
                .with("start_time", millis(g.from.wall))
                .with("end_time", millis(g.to.wall))
                .with("status_id", 2)
                .with("status", "Failure")
                .with("status_code", g.stage.as_str())
                .done()
        }
        Record::Decision(d) => Event::new(&class(0, "Base Event", 99, "Other"), d.at, 1, row, node)
            .with(
                "message",
                words(&format!(
                    "{} of {} by uid {}: {}",
                    d.action, d.subject, d.uid, d.reason
                )),
            )
            .with("status_code", words(&d.action))
            .done(),
        Record::Plan(p) => Event::new(&class(0, "Base Event", 99, "Other"), p.at, 1, row, node)
            .with(
                "message",
                words(&format!(
                    "plan {} about alert {} by policy {}",
                    p.id, p.alert, p.policy
                )),
            )
            .done(),
        Record::PlanEnd(e) => Event::new(&class(0, "Base Event", 99, "Other"), e.at, 1, row, node)
            .with(
                "message",
                words(&format!("plan {} ended: {}", e.plan, e.why)),
            )
            .done(),
        Record::Delivery(d) => Event::new(&class(0, "Base Event", 99, "Other"), d.at, 1, row, node)
            .with(
                "message",
                words(&format!(
                    "notification to {}: {}",
                    d.receiver,
                    d.result.as_str()
                )),
            )
            .done(),
        _ => None,
    }
}

/// Milliseconds since 1970, as `timestamp_t` wants.
fn millis(at: WallNs) -> i64 {
    at.0.div_euclid(1_000_000)
}

fn container(c: &Container) -> Value {
    let mut object = json!({
        "uid": c.id().as_str(),
        "name": words(c.display_name()),
        "runtime": c.runtime.as_str(),
    });
    if let Some(digest) = &c.image.config_digest {
        let digest = digest.to_string();
        object["image"] = json!({ "uid": digest, "name": words(&c.image.name) });
        if let Some(sha256) = digest.strip_prefix("sha256:") {
            // the image's digest: what the container's content was made from
            object["hash"] = json!({ "algorithm_id": 3, "algorithm": "SHA-256", "value": sha256 });
        }
    }
    if c.pod.is_some() {
        object["orchestrator"] = "kubernetes".into();
    }
    object
}

fn bare_container(instance: &Instance) -> Value {
    json!({ "uid": instance.id.as_str() })
}

fn severity_of_risk(risk: Risk) -> u32 {
    match risk {
        Risk::Low => 2,
        Risk::Medium => 3,
        Risk::High => 4,
        Risk::Critical => 5,
    }
}

fn severity_of(priority: Priority) -> u32 {
    match priority {
        Priority::Emergency => 6,
        Priority::Alert | Priority::Critical => 5,
        Priority::Error => 4,
        Priority::Warning => 3,
        Priority::Notice => 2,
        Priority::Informational | Priority::Debug => 1,
    }
}

fn alert(a: &Alert, row: &Row<'_>, node: &str) -> Option<Value> {
    let class = match a.count {
        0 | 1 => class(2004, FINDING, 1, "Create"),
        _ => class(2004, FINDING, 2, "Update"),
    };
    let (kind, lineage) = match &a.source {
        AlertSource::Drift(d) => (2, &d.lineage[..]),
        AlertSource::Rule(_) => (1, &[][..]),
    };
    let info = json!({
        "uid": a.id.as_str(),
        "title": words(&a.rule),
        "desc": a.output.to_string(),
        "first_seen_time": millis(a.at.wall),
        "last_seen_time": millis(a.last.wall),
        "analytic": { "name": words(&a.rule), "type_id": kind },
        "attacks": attacks(&a.tags),
        "related_events": related(a.evidence.iter().map(ToString::to_string)),
    });
    Event::new(&class, a.at, severity_of(a.priority), row, node)
        .with("finding_info", info)
        .with("is_alert", true)
        .profile("security_control")
        .with("message", a.output.to_string())
        .with("count", a.count)
        .with("evidences", evidences(lineage, a.instance.as_ref(), row))
        .done()
}

fn drift(d: &Drift, row: &Row<'_>, node: &str) -> Option<Value> {
    let what = class_name(d.class);
    let info = json!({
        "uid": row.id.to_string(),
        "title": what.replace('_', " "),
        "desc": words(&d.reason),
        "first_seen_time": millis(d.first.wall),
        "last_seen_time": millis(d.last.wall),
        "analytic": {
            "name": what,
            "type_id": 2,
            "uid": d.baseline.as_ref().map_or("no baseline".to_owned(), |b| format!("{}@{}", b.id, b.version)),
        },
        "attacks": attacks(&d.techniques),
        "related_events": related(d.observation.iter().map(ToString::to_string)),
    });
    Event::new(
        &class(2004, FINDING, 1, "Create"),
        d.first,
        severity_of_risk(d.risk),
        row,
        node,
    )
    .with("finding_info", info)
    .with("is_alert", false)
    .profile("security_control")
    .with("message", words(&d.reason))
    .with("count", d.count)
    .with("evidences", evidences(&d.lineage, Some(&d.instance), row))
    .done()
}

/// Techniques of ATT&CK among the tags.
fn attacks(tags: &[String]) -> Value {
    let is_technique = |t: &&String| {
        let digits = t
            .strip_prefix('T')
            .map(|rest| rest.split('.').next().unwrap_or(rest));
        digits.is_some_and(|d| d.len() == 4 && d.bytes().all(|b| b.is_ascii_digit()))
    };
    let list = tags.iter().filter(is_technique);
    list.map(|t| json!({ "technique": { "uid": words(t) } }))
        .collect()
}

fn related(ids: impl Iterator<Item = String>) -> Value {
    ids.take(100).map(|id| json!({ "uid": id })).collect()
}

fn evidences(lineage: &[Ancestor], instance: Option<&Instance>, row: &Row<'_>) -> Value {
    let mut evidence = Map::new();
    if let Some(acting) = lineage.first() {
        evidence.insert("process".to_owned(), process(lineage, acting));
    } else {
        // what showed it stands in related_events; an entry needs something to look at
        let output = value(row, "").unwrap_or_default();
        evidence.insert("data".to_owned(), output["value"]["output_fields"].clone());
    }
    match (row.container, instance) {
        (Some(c), _) => drop(evidence.insert("container".to_owned(), container(c))),
        (None, Some(i)) => drop(evidence.insert("container".to_owned(), bare_container(i))),
        (None, None) => {}
    }
    json!([evidence])
}

/// A process with its parents, at most eight.
fn process(lineage: &[Ancestor], acting: &Ancestor) -> Value {
    let mut object = json!({
        "pid": acting.key.tgid,
        "uid": format!("{}@{}", acting.key.tgid, acting.key.start.0),
        "name": lossy(&acting.exe.basename()),
        "path": lossy(&acting.exe),
        "cmd_line": describe::command_line(&acting.argv),
        "user": { "uid": acting.uid.to_string() },
    });
    if !acting.exe.is_empty() {
        object["file"] = file_object(&acting.exe, 1);
    }
    let rest = lineage.get(1..).unwrap_or_default();
    if let Some(parent) = rest.first().filter(|p| p.key != acting.key)
        && lineage.len() <= 16
    {
        object["parent_process"] = process(rest, parent);
    }
    object
}

fn file_object(path: &Text, kind: u32) -> Value {
    let base = path.basename();
    let name = if base.is_empty() { path } else { &base };
    json!({ "name": lossy(name), "path": lossy(path), "type_id": kind })
}

/// Who did it.
fn actor(o: &Observation) -> Value {
    json!({ "process": acting(o) })
}

fn acting(o: &Observation) -> Value {
    match o.lineage.first() {
        Some(first) => process(&o.lineage, first),
        None => json!({
            "pid": o.event.process.key.tgid,
            "name": lossy(&o.event.process.comm),
            "user": { "uid": o.event.process.uid.to_string() },
        }),
    }
}

fn observation(o: &Observation, row: &Row<'_>, node: &str) -> Option<Value> {
    let new = |class: Class| {
        let event = Event::new(&class, o.at, 1, row, node);
        let event = event
            .with("message", describe::observation(o))
            .with("count", o.count);
        event.with("actor", actor(o))
    };
    match &o.event.kind {
        EventKind::Exec(e) if e.found => {
            launched(e, o, new(class(1007, PROCESS, 99, "Found Running")))
        }
        EventKind::Exec(e) => launched(e, o, new(class(1007, PROCESS, 1, "Launch"))),
        EventKind::Exit { code, .. } => new(class(1007, PROCESS, 2, "Terminate"))
            .with("process", acting(o))
            .with("exit_code", *code)
            .done(),
        EventKind::Fork { child } => new(class(1007, PROCESS, 1, "Launch"))
            .with("launch_type_id", 2)
            .with(
                "process",
                json!({ "pid": child.tgid, "uid": format!("{}@{}", child.tgid, child.start.0) }),
            )
            .done(),
        EventKind::Credentials { new_uid, .. } => new(class(1007, PROCESS, 5, "Set User ID"))
            .with("process", acting(o))
            .with("status_detail", format!("uid {new_uid}"))
            .done(),
        EventKind::Ptrace { request, target } => {
            let class = match *request {
                u32::MAX => class(1007, PROCESS, 4, "Inject"),
                _ => class(1007, PROCESS, 3, "Open"),
            };
            new(class).with("process", json!({ "pid": target })).done()
        }
        EventKind::File(f) => on_file(f, new),
        EventKind::Connect(c) => network(c, true, new(connect_class(c))),
        EventKind::Datagram(c) => network(c, true, new(class(4001, NETWORK, 6, "Traffic"))),
        EventKind::Accept(c) => network(c, false, new(class(4001, NETWORK, 1, "Open"))),
        EventKind::Listen { proto, local } | EventKind::Bind { proto, local } => {
            new(class(4001, NETWORK, 7, "Listen"))
                .with("src_endpoint", endpoint(local))
                .with("connection_info", info(*proto, 1, "Inbound"))
                .done()
        }
        EventKind::Dns(d) => dns(d, new),
        EventKind::Library { path, .. } => new(class(1005, "Module Activity", 1, "Load"))
            .with(
                "module",
                json!({ "file": file_object(path, 1), "load_type_id": 4, "load_type": "Mapped" }),
            )
            .done(),
        EventKind::Module { name } if !name.is_empty() => {
            new(class(1002, "Kernel Extension Activity", 1, "Load"))
                .with("driver", json!({ "file": file_object(name, 1) }))
                .done()
        }
        other => new(class(1003, KERNEL, 4, "Invoke"))
            .with(
                "kernel",
                json!({ "name": call_name(other), "type_id": 2, "type": "System Call" }),
            )
            .done(),
    }
}

fn launched(e: &Exec, o: &Observation, event: Event) -> Option<Value> {
    let mut process = acting(o);
    process["path"] = lossy(&e.exe).into();
    process["name"] = lossy(&e.exe.basename()).into();
    process["cmd_line"] = describe::command_line(&e.argv).into();
    if !e.cwd.is_empty() {
        process["working_directory"] = lossy(&e.cwd).into();
    }
    if !e.exe.is_empty() {
        process["file"] = file_object(&e.exe, 8);
    }
    let event = match o.parent() {
        Some(parent) => {
            let parents = o.lineage.get(1..).unwrap_or_default();
            event.with(
                "actor",
                json!({ "process": self::process(parents, parent) }),
            )
        }
        None => event,
    };
    let event = match e.found {
        true => event,
        false => event.with("launch_type_id", 3),
    };
    event.with("process", process).done()
}

fn on_file(f: &FileEvent, new: impl Fn(Class) -> Event) -> Option<Value> {
    let class = match f.op {
        FileOp::Create | FileOp::Mkdir | FileOp::Link | FileOp::Symlink => {
            class(1001, FILE, 1, "Create")
        }
        FileOp::Read | FileOp::List => class(1001, FILE, 2, "Read"),
        FileOp::Write => class(1001, FILE, 3, "Update"),
        FileOp::Unlink | FileOp::Rmdir => class(1001, FILE, 4, "Delete"),
        FileOp::Rename => class(1001, FILE, 5, "Rename"),
        FileOp::Chmod | FileOp::Chown => class(1001, FILE, 7, "Set Security"),
        FileOp::Failed => class(1001, FILE, 14, "Open"),
    };
    let kind = match f.op {
        FileOp::Mkdir | FileOp::Rmdir | FileOp::List => 2,
        FileOp::Symlink => 7,
        _ => 1,
    };
    let mut event = new(class).with("file", file_object(&f.path, kind));
    if !f.target.is_empty() && f.op == FileOp::Rename {
        event = event.with("file_result", file_object(&f.target, kind));
    }
    outcome(event, f.result).done()
}

fn outcome(event: Event, result: i32) -> Event {
    // EINPROGRESS is how every non-blocking connection begins
    match result < 0 && result != -115 {
        true => event
            .with("status_id", 2)
            .with("status", "Failure")
            .with("status_code", result.to_string()),
        false => event.with("status_id", 1).with("status", "Success"),
    }
}

fn connect_class(c: &Connection) -> Class {
    match c.result {
        -111 => class(4001, NETWORK, 5, "Refuse"),
        r if r < 0 && r != -115 => class(4001, NETWORK, 4, "Fail"),
        _ => class(4001, NETWORK, 1, "Open"),
    }
}

fn network(c: &Connection, outbound: bool, event: Event) -> Option<Value> {
    let (ours, theirs) = match outbound {
        true => ("src_endpoint", "dst_endpoint"),
        false => ("dst_endpoint", "src_endpoint"),
    };
    let direction = if outbound {
        (2, "Outbound")
    } else {
        (1, "Inbound")
    };
    let mut event = event
        .with(theirs, endpoint(&c.peer))
        .with("connection_info", info(c.proto, direction.0, direction.1));
    if let Some(local) = &c.local {
        event = event.with(ours, endpoint(local));
    }
    outcome(event, c.result).done()
}

fn info(proto: Proto, direction: u32, words: &str) -> Value {
    let mut object = json!({
        "direction_id": direction, "direction": words, "protocol_name": proto.as_str(),
    });
    // numbers of IANA
    match proto {
        Proto::Tcp => object["protocol_num"] = 6.into(),
        Proto::Udp => object["protocol_num"] = 17.into(),
        Proto::Unix | Proto::Raw | Proto::Other => {}
    }
    object
}

fn endpoint(address: &SockAddr) -> Value {
    match address {
        SockAddr::Inet(ip, port) => {
            json!({ "name": ip.to_string(), "ip": ip.to_string(), "port": port })
        }
        SockAddr::Unix(path) => json!({ "name": format!("unix:{}", lossy(path)) }),
    }
}

fn dns(d: &Dns, new: impl Fn(Class) -> Event) -> Option<Value> {
    const NAME: &str = "DNS Activity";
    let class = match d.response {
        true => class(4003, NAME, 2, "Response"),
        false => class(4003, NAME, 1, "Query"),
    };
    let kind = match d.qtype {
        1 => "A".to_owned(),
        28 => "AAAA".to_owned(),
        n => format!("TYPE{n}"),
    };
    let server = d.server.as_ref().map(endpoint);
    let answers: Vec<Value> = d
        .addresses
        .iter()
        .map(|ip| json!({ "rdata": ip.0.to_string() }))
        .collect();
    let mut event = new(class)
        .with("query", json!({ "hostname": lossy(&d.name), "type": kind }))
        // the resolver; its address is not always known
        .with(
            "dst_endpoint",
            server.unwrap_or_else(|| json!({ "name": "resolver" })),
        );
    if d.response {
        // codes of RFC 6895 that the schema lists
        let code = if d.rcode <= 11 {
            u32::from(d.rcode)
        } else {
            99
        };
        event = event.with("rcode_id", code);
    }
    if !answers.is_empty() {
        event = event.with("answers", answers);
    }
    event.done()
}

fn call_name(kind: &EventKind) -> String {
    match kind {
        EventKind::Syscall { nr, compat } => {
            let table = if *compat {
                Table::NATIVE.compat()
            } else {
                Table::NATIVE
            };
            syscall_name(table, *nr).map_or_else(|| format!("syscall {nr}"), str::to_owned)
        }
        EventKind::Rare { nr, .. } => {
            syscall_name(Table::NATIVE, *nr).map_or_else(|| format!("syscall {nr}"), str::to_owned)
        }
        other => other.name().to_owned(),
    }
}

/// A container that comes or goes.
fn life(c: &Container, row: &Row<'_>, node: &str) -> Option<Value> {
    let (class, at) = match (c.state, c.gone) {
        (ContainerState::Gone, gone) => (class(6002, LIFECYCLE, 4, "Stop"), gone),
        (ContainerState::Starting | ContainerState::Running, _) => {
            (class(6002, LIFECYCLE, 3, "Start"), None)
        }
    };
    let words_of = match class.activity {
        4 => "is gone",
        _ => "was seen",
    };
    let row = Row {
        container: Some(c),
        ..*row
    };
    Event::new(&class, at.unwrap_or(c.first_seen), 1, &row, node)
        .with(
            "app",
            json!({ "name": words(c.display_name()), "uid": c.id().as_str() }),
        )
        .with(
            "message",
            format!("container {} {words_of}", words(c.display_name())),
        )
        .done()
}

fn step(s: &StepRecord, row: &Row<'_>, node: &str) -> Option<Value> {
    let (phase, came_of_it) = phase(&s.phase);
    let undo = phase.starts_with("undo");
    let class = match (s.kind.class(), s.kind) {
        _ if undo => class(7001, REMEDIATION, 3, "Restore"),
        (_, StepKind::KillTree) | (StepClass::Destroy, _) => class(7001, REMEDIATION, 2, "Evict"),
        (StepClass::Contain, _) => class(7001, REMEDIATION, 1, "Isolate"),
        (StepClass::Observe | StepClass::Preserve, _) => class(7001, REMEDIATION, 99, "Other"),
    };
    let outcome_words = came_of_it.map(|o| words(&format!("{}: {}", o.as_str(), o.words())));
    let mut event = Event::new(&class, s.at, 1, row, node)
        .with("command_uid", words(&format!("{}/{}", s.plan, s.step + 1)))
        .with(
            "message",
            words(&format!(
                "{} step {} ({}) {phase}",
                s.plan,
                s.step + 1,
                s.kind.as_str()
            )),
        );
    if let (Some(outcome), Some(words)) = (came_of_it, outcome_words) {
        let (id, name) = if outcome.is_done() {
            (1, "Success")
        } else {
            (2, "Failure")
        };
        event = event
            .with("status_id", id)
            .with("status", name)
            .with("status_detail", words);
    }
    event.done()
}
