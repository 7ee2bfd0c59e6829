//! Records become rows.
//!
//! Promise: each record of a kind that a table shows is in that table, once for every thing that
//! it says (an exec shows two behaviours); nothing is summed up, left out or made up.

use crate::columns::{Rows, Value};
use crate::journal::Coder;
use crate::tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use minicbor::bytes::ByteVec;
use plimsoll_model::enforcement::{EnforcementInForce, Prevention};
use plimsoll_model::event::{Connection, Dns, EventKind, Exec, FileEvent};
use plimsoll_model::record::{Decision, Presence};
use plimsoll_model::recording::Recording;
use plimsoll_model::response::{Delivery, Plan, PlanEnd, PolicyInForce, StepPhase, StepRecord};
use plimsoll_model::{
    Alert, AlertSource, Ancestor, Behaviour, Container, ContainerState, Drift, Gap, GapScope,
    Instance, Observation, Record, SockAddr, Stamp, Text, Trust, WallNs,
};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use Value::{Bool, I64, Null, Time, U64};

/// Longest list of arguments, labels or lineage in one field, bytes.
const FIELD_BYTES_MAX: usize = 16 << 10;
/// Containers and plans that are remembered; beyond, the older half is forgotten, and rows about
/// those have an id and no name.
const KNOWN_MAX: usize = 100_000;
/// Plans that are kept from span to span.
const PLANS_KEPT: usize = 1000;

/// The container and the alert that a plan is about.
type AboutPlan = (Option<Instance>, String);

/// What later records refer to.
#[derive(Default)]
pub(crate) struct Known {
    containers: HashMap<Instance, Newest<Container>>,
    plans: HashMap<String, Newest<AboutPlan>>,
    /// What the coder learned within the span.
    pub(crate) learned: Vec<u8>,
}

/// What was said last, and by which leaf.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
struct Newest<T> {
    #[n(0)]
    leaf: u64,
    #[n(1)]
    what: T,
}

/// As kept between spans: containers without what no row repeats, and plans.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Kept {
    #[n(0)]
    containers: Vec<Newest<Container>>,
    #[n(1)]
    plans: Vec<(String, Newest<AboutPlan>)>,
    /// At the end of a piece of a span only.
    #[n(2)]
    learned: Option<ByteVec>,
}

impl Known {
    pub(crate) fn learn(&mut self, leaf: u64, record: &Record) {
        match record {
            Record::Container(c) => remember(&mut self.containers, &c.instance, leaf, c.clone()),
            Record::Plan(p) => {
                let about = (p.instance.clone(), p.alert.to_string());
                remember(&mut self.plans, &p.id, leaf, about);
            }
            _ => {}
        }
    }

    /// For the span behind `first`: what still runs, and what was last heard of in this span.
    pub(crate) fn encode(&self, first: u64) -> Vec<u8> {
        let wanted =
            |c: &&Newest<Container>| c.leaf >= first || c.what.state != ContainerState::Gone;
        let mut containers: Vec<Newest<Container>> = self
            .containers
            .values()
            .filter(wanted)
            .map(|c| Newest {
                leaf: c.leaf,
                what: without_details(&c.what),
            })
            .collect();
        containers.sort_by_key(|c| c.leaf);
        let copy = |p: &Newest<AboutPlan>| Newest {
            leaf: p.leaf,
            what: p.what.clone(),
        };
        let mut plans: Vec<_> = self
            .plans
            .iter()
            .map(|(id, p)| (id.clone(), copy(p)))
            .collect();
        plans.sort_by_key(|(_, p)| p.leaf);
        let recent = plans.split_off(plans.len().saturating_sub(PLANS_KEPT));
        minicbor::to_vec(Kept {
            containers,
            plans: recent,
            learned: Some(self.learned.clone().into()).filter(|l: &ByteVec| !l.is_empty()),
        })
        .expect("writing to memory cannot fail")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let kept: Kept = minicbor::decode(bytes).ok()?;
        let containers = kept
            .containers
            .into_iter()
            .map(|c| (c.what.instance.clone(), c));
        Some(Self {
            containers: containers.collect(),
            plans: kept.plans.into_iter().collect(),
            learned: kept.learned.map(Vec::from).unwrap_or_default(),
        })
    }

    fn container(&self, instance: Option<&Instance>) -> Option<&Container> {
        self.containers.get(instance?).map(|c| &c.what)
    }
}

fn remember<K: Clone + Eq + std::hash::Hash, T>(
    map: &mut HashMap<K, Newest<T>>,
    key: &K,
    leaf: u64,
    what: T,
) {
    if map.len() >= KNOWN_MAX && !map.contains_key(key) {
        let mut leaves: Vec<u64> = map.values().map(|n| n.leaf).collect();
        let (_, middle, _) = leaves.select_nth_unstable(KNOWN_MAX / 2);
        let middle = *middle;
        map.retain(|_, n| n.leaf >= middle);
    }
    map.insert(key.clone(), Newest { leaf, what });
}

fn without_details(c: &Container) -> Container {
    Container {
        labels: Default::default(),
        mounts: Vec::new(),
        mount_points: None,
        pod_facts: None,
        command: Vec::new(),
        ..c.clone()
    }
}

/// Tables in the making.
pub(crate) struct Maker<'k> {
    origin: String,
    wanted: Vec<Table>,
    pub(crate) known: &'k mut Known,
    coder: Box<dyn Coder>,
    rows: Vec<Rows>,
}

impl<'k> Maker<'k> {
    /// Rows of `wanted` tables only.
    pub(crate) fn new(
        origin: &str,
        wanted: &[Table],
        known: &'k mut Known,
        mut coder: Box<dyn Coder>,
    ) -> Self {
        known
            .containers
            .values()
            .for_each(|c| coder.container(&c.what));
        coder.resume(&known.learned);
        Self {
            origin: origin.to_owned(),
            wanted: wanted.to_vec(),
            known,
            coder,
            rows: wanted.iter().map(|t| Rows::new(*t)).collect(),
        }
    }

    /// The coder's knowledge goes over to what is known, for the piece behind this one.
    pub(crate) fn hand_over(&mut self) {
        self.known.learned = self.coder.keep();
    }

    pub(crate) fn wants(&self, table: Table) -> bool {
        self.wanted.contains(&table)
    }

    /// Rows of each wanted table so far, which are forgotten here.
    pub(crate) fn take(&mut self) -> Result<Vec<(Table, RecordBatch)>, ArrowError> {
        let each = self.wanted.iter().zip(&mut self.rows);
        each.map(|(table, rows)| Ok((*table, rows.take()?)))
            .collect()
    }

    /// Rows that wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.rows.iter().map(Rows::count).sum()
    }

    pub(crate) fn record(&mut self, leaf: u64, wall: WallNs, record: &Record) {
        self.known.learn(leaf, record);
        let at = |instance| At {
            leaf,
            wall,
            instance,
        };
        match record {
            Record::Observation(o) => self.observation(&at(o.instance.as_ref()), o),
            Record::Drift(d) => self.drift(&at(Some(&d.instance)), d),
            Record::Alert(a) => self.alert(&at(a.instance.as_ref()), a),
            Record::Gap(g) => self.gap(leaf, g),
            Record::Container(c) => {
                self.coder.container(c);
                self.container(&at(Some(&c.instance)), c);
            }
            Record::Presence(p) => self.presence(&at(Some(&p.instance)), p),
            Record::Enforcement(e) => self.enforcement(&at(None), e),
            Record::Prevention(p) => self.prevention(&at(Some(&p.instance)), p),
            Record::Recording(r) => self.recording(&at(Some(&r.instance)), r),
            Record::Decision(d) => self.decision(&at(None), d),
            Record::Plan(p) => self.plan(&at(p.instance.as_ref()), p),
            Record::Step(s) => self.step(leaf, wall, s),
            Record::PlanEnd(p) => self.plan_end(leaf, wall, p),
            Record::Delivery(d) => self.delivery(&at(None), d),
            Record::Policy(p) => self.policy(&at(None), p),
            // of no table: they say how to read others, not what happened in a container
            Record::Clock(_)
            | Record::Baseline(_)
            | Record::Lifecycle(_)
            | Record::RuleSet(_)
            | Record::Anchored(_)
            | Record::LakeSealed(_)
            | Record::Unknown(..) => {}
        }
    }

    fn push(&mut self, table: Table, at: &At<'_>, own: &[Value<'_>]) {
        let Some(place) = self.wanted.iter().position(|t| *t == table) else {
            return;
        };
        debug_assert_eq!(own.len(), table.own_columns().len(), "{table:?}");
        let container = self.known.container(at.instance);
        let digest = container.and_then(|c| c.image.config_digest.as_ref());
        let head = [
            Time(at.wall.0),
            Value::opt(container, |c| Value::text(c.display_name())),
        ];
        let tail = [
            Value::opt(at.instance, |i| Value::text(i.id.as_str())),
            Value::opt(at.instance, |i| U64(i.start.0)),
            Value::opt(container, |c| Value::text(c.image.name.as_str())),
            Value::opt(digest, |d| Value::text(d.as_str())),
            Value::text(self.origin.as_str()),
            U64(at.leaf),
        ];
        self.rows[place].push(head.iter().chain(own).chain(&tail));
    }
}

/// When, where and whose.
struct At<'a> {
    leaf: u64,
    wall: WallNs,
    instance: Option<&'a Instance>,
}

fn when(stamp: Stamp) -> Value<'static> {
    Time(stamp.wall.0)
}

fn joined(parts: impl IntoIterator<Item = impl AsRef<str>>, by: &str) -> Value<'static> {
    let mut text = String::new();
    for part in parts {
        if text.len() + part.as_ref().len() > FIELD_BYTES_MAX {
            text.push('…');
            break;
        }
        if !text.is_empty() {
            text.push_str(by);
        }
        text.push_str(part.as_ref());
    }
    Value::text(text)
}

fn texts(list: &[Text], by: &str) -> Value<'static> {
    joined(list.iter().map(Text::to_str_lossy), by)
}

/// `sh[71] < php-fpm[12]`: the acting process first.
fn lineage(ancestors: &[Ancestor]) -> Value<'static> {
    let one = |a: &Ancestor| {
        let name = if a.script.is_empty() {
            &a.exe
        } else {
            &a.script
        };
        format!("{}[{}]", name.basename().to_str_lossy(), a.key.tgid)
    };
    joined(ancestors.iter().map(one), " < ")
}

/// `NewProgram` → `new_program`: as in JSON.
fn snake(debug: &str) -> String {
    let mut out = String::with_capacity(debug.len() + 4);
    for c in debug.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn trust(trust: Trust) -> Value<'static> {
    Value::text(match trust {
        Trust::Object => "object",
        Trust::Argument => "argument",
        Trust::Proc => "proc",
    })
}

/// Address (or path) and port.
fn end(address: &SockAddr) -> (Value<'_>, Value<'_>) {
    match address {
        SockAddr::Inet(ip, port) => (Value::text(ip.to_string()), Value::u64(*port)),
        SockAddr::Unix(path) => (Value::bytes(path), Null),
    }
}

/// A JSON object of texts, for fields and labels.
fn object<'a>(pairs: impl Iterator<Item = (&'a str, std::borrow::Cow<'a, str>)>) -> Value<'static> {
    let mut text = String::new();
    for (key, value) in pairs {
        if text.len() + key.len() + value.len() > FIELD_BYTES_MAX {
            break;
        }
        text.push(if text.is_empty() { '{' } else { ',' });
        quote(&mut text, key);
        text.push(':');
        quote(&mut text, &value);
    }
    if !text.is_empty() {
        text.push('}');
    }
    Value::text(text)
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What containers did.
impl Maker<'_> {
    fn observation(&mut self, at: &At<'_>, o: &Observation) {
        let p = &o.event.process;
        let script = o.lineage.first().map(|a| &a.script);
        let actor = Actor {
            pid: U64(p.key.tgid.into()),
            started: U64(p.key.start.0),
            program: Value::text(match o.lineage.first() {
                Some(a) => a.exe.to_str_lossy(),
                None => p.comm.to_str_lossy(),
            }),
            script: Value::opt(script, Value::bytes),
            uid: U64(p.uid.into()),
            entry: Value::text(p.entry.as_str()),
            trust: trust(o.event.trust),
            count: U64(o.count),
        };
        match &o.event.kind {
            EventKind::Exec(e) => self.exec(at, o, e),
            EventKind::Exit { code, signal } => {
                let values = Process {
                    exit_code: I64((*code).into()),
                    signal: U64(u64::try_from(*signal).unwrap_or(0)),
                    ..Process::of("exit", o)
                };
                self.process(at, values);
            }
            EventKind::Fork { child } => {
                let child_pid = U64(child.tgid.into());
                self.process(
                    at,
                    Process {
                        child_pid,
                        ..Process::of("fork", o)
                    },
                );
            }
            EventKind::File(f) => self.file(at, f, actor),
            EventKind::Library { path, origin } => {
                let (path, origin) = (Value::bytes(path), Value::text(origin.as_str()));
                self.file_row(
                    at,
                    [Value::text("map"), path, Null, origin, I64(0), Null],
                    actor,
                );
            }
            EventKind::Memfd { name } => {
                let (name, origin) = (Value::bytes(name), Value::text("memfd"));
                self.file_row(
                    at,
                    [Value::text("memfd"), name, Null, origin, I64(0), Null],
                    actor,
                );
            }
            EventKind::Connect(c) => self.connection(at, "out", c, actor),
            EventKind::Accept(c) => self.connection(at, "in", c, actor),
            EventKind::Datagram(c) => self.connection(at, "datagram", c, actor),
            EventKind::Listen { proto, local } => {
                self.local_end(at, "listen", proto.as_str(), local, actor);
            }
            EventKind::Bind { proto, local } => {
                self.local_end(at, "bind", proto.as_str(), local, actor);
            }
            EventKind::Socket {
                family,
                kind,
                protocol,
            } => {
                let what = format!("family {family} type {kind} protocol {protocol}");
                let own = [
                    Value::text("socket"),
                    Value::text(what),
                    Null,
                    Null,
                    Null,
                    Null,
                    Null,
                ];
                self.socket_row(at, own, actor);
            }
            EventKind::Dns(d) => self.dns(at, d, actor),
            _ => {}
        }
        self.behaviours(at, o);
    }

    fn behaviours(&mut self, at: &At<'_>, o: &Observation) {
        // the coder learns names from every answer, whoever asks for the rows
        let container = self.known.container(o.instance.as_ref());
        let shown = self.coder.behaviours(o, container);
        if !self.wants(Table::Behaviours) {
            return;
        }
        for b in &shown {
            let pid = U64(o.event.process.key.tgid.into());
            self.behaviour(at, b, o.count, pid, "observed");
        }
    }

    fn behaviour(&mut self, at: &At<'_>, b: &Behaviour, count: u64, pid: Value<'_>, source: &str) {
        let own = [
            Value::text(b.id().to_string()),
            Value::text(b.kind.as_str()),
            Value::bytes(&b.program),
            Value::bytes(&b.script),
            Value::text(b.entry.as_str()),
            U64(b.uid.into()),
            Value::text(b.operation.0.as_str()),
            Value::bytes(&b.object),
            Value::text(b.origin.as_str()),
            U64(count),
            pid,
            Value::text(source),
            Null,
        ];
        self.push(Table::Behaviours, at, &own);
    }

    /// What the kernel's recorder held: a row for each use.
    fn recording(&mut self, at: &At<'_>, r: &Recording) {
        if !self.wants(Table::Behaviours) {
            return;
        }
        for used in &r.uses {
            let after_ns = i64::from(used.after_ms) * 1_000_000;
            let wall = WallNs(r.from.wall.0.saturating_add(after_ns));
            let at = At { wall, ..*at };
            let pid = U64(used.tgid.into());
            let what = r.behaviours.get(used.what as usize);
            match what.and_then(|w| w.behaviour.as_ref()) {
                Some(b) => self.behaviour(&at, b, used.count.into(), pid, "recorded"),
                // its kind is all that is known
                None => {
                    let mut own = vec![Null; Table::Behaviours.own_columns().len()];
                    own[1] = Value::opt(what, |w| Value::text(w.kind.as_str()));
                    own[9] = U64(used.count.into());
                    own[10] = pid;
                    own[11] = Value::text("recorded");
                    self.push(Table::Behaviours, &at, &own);
                }
            }
        }
    }

    /// Known behaviour is counted in the kernel by its number alone; what it is stands in its
    /// baseline and in rows of the same id.
    fn presence(&mut self, at: &At<'_>, p: &Presence) {
        if !self.wants(Table::Behaviours) {
            return;
        }
        let at = At {
            wall: p.from.wall,
            ..*at
        };
        for (id, count) in &p.counts {
            let mut own = vec![Null; Table::Behaviours.own_columns().len()];
            own[0] = Value::text(id.to_string());
            own[9] = U64(*count);
            own[11] = Value::text("present");
            own[12] = when(p.to);
            self.push(Table::Behaviours, &at, &own);
        }
    }

    fn exec(&mut self, at: &At<'_>, o: &Observation, e: &Exec) {
        let values = Process {
            program: Value::bytes(&e.exe),
            script: Value::bytes(&e.script),
            args: texts(&e.argv, " "),
            cwd: Value::bytes(&e.cwd),
            euid: U64(e.euid.into()),
            object_origin: Value::text(e.origin.as_str()),
            deleted: Bool(e.deleted),
            caps: U64(e.caps),
            tty: U64(e.tty.into()),
            ..Process::of("exec", o)
        };
        self.process(at, values);
    }

    fn process(&mut self, at: &At<'_>, p: Process<'_>) {
        let own = [
            p.event,
            p.pid,
            p.pid_started,
            p.ppid,
            p.program,
            p.script,
            p.args,
            p.cwd,
            p.parent_program,
            p.lineage,
            p.lineage_cut,
            p.entry,
            p.uid,
            p.euid,
            p.gid,
            p.comm,
            p.object_origin,
            p.deleted,
            p.caps,
            p.tty,
            p.exit_code,
            p.signal,
            p.child_pid,
            p.redacted,
            p.trust,
            p.count,
        ];
        self.push(Table::Processes, at, &own);
    }

    fn file(&mut self, at: &At<'_>, f: &FileEvent, actor: Actor<'_>) {
        let own = [
            Value::text(f.op.as_str()),
            Value::bytes(&f.path),
            Value::bytes(&f.target),
            Value::text(f.origin.as_str()),
            I64(f.result.into()),
            U64(f.flags.into()),
        ];
        self.file_row(at, own, actor);
    }

    fn file_row(&mut self, at: &At<'_>, first: [Value<'_>; 6], a: Actor<'_>) {
        let rest = [
            a.pid, a.started, a.program, a.script, a.uid, a.entry, a.trust, a.count,
        ];
        let own: Vec<Value<'_>> = first.into_iter().chain(rest).collect();
        self.push(Table::Files, at, &own);
    }

    fn connection(&mut self, at: &At<'_>, direction: &str, c: &Connection, actor: Actor<'_>) {
        let (peer, peer_port) = end(&c.peer);
        let (local, local_port) = c.local.as_ref().map_or((Null, Null), end);
        let (direction, proto) = (Value::text(direction), Value::text(c.proto.as_str()));
        let result = I64(c.result.into());
        self.socket_row(
            at,
            [direction, proto, peer, peer_port, local, local_port, result],
            actor,
        );
    }

    fn local_end(
        &mut self,
        at: &At<'_>,
        what: &str,
        proto: &str,
        local: &SockAddr,
        actor: Actor<'_>,
    ) {
        let (local, port) = end(local);
        let (what, proto) = (Value::text(what), Value::text(proto));
        self.socket_row(at, [what, proto, Null, Null, local, port, Null], actor);
    }

    fn socket_row(&mut self, at: &At<'_>, first: [Value<'_>; 7], a: Actor<'_>) {
        let rest = [
            a.pid, a.started, a.program, a.script, a.uid, a.entry, a.count,
        ];
        let own: Vec<Value<'_>> = first.into_iter().chain(rest).collect();
        self.push(Table::Connections, at, &own);
    }

    fn dns(&mut self, at: &At<'_>, d: &Dns, a: Actor<'_>) {
        let own = [
            Bool(d.response),
            Value::bytes(&d.name),
            U64(d.qtype.into()),
            Value::opt(d.response.then_some(d.rcode), |c| U64(c.into())),
            joined(d.addresses.iter().map(|ip| ip.0.to_string()), " "),
            Value::opt(d.server.as_ref(), |s| Value::text(s.to_string())),
            a.pid,
            a.started,
            a.program,
            a.uid,
            a.count,
        ];
        self.push(Table::Dns, at, &own);
    }
}

/// Who acted, for tables of what was done.
struct Actor<'a> {
    pid: Value<'a>,
    started: Value<'a>,
    program: Value<'a>,
    script: Value<'a>,
    uid: Value<'a>,
    entry: Value<'a>,
    trust: Value<'a>,
    count: Value<'a>,
}

/// A row of `processes`.
struct Process<'a> {
    event: Value<'a>,
    pid: Value<'a>,
    pid_started: Value<'a>,
    ppid: Value<'a>,
    program: Value<'a>,
    script: Value<'a>,
    args: Value<'a>,
    cwd: Value<'a>,
    parent_program: Value<'a>,
    lineage: Value<'a>,
    lineage_cut: Value<'a>,
    entry: Value<'a>,
    uid: Value<'a>,
    euid: Value<'a>,
    gid: Value<'a>,
    comm: Value<'a>,
    object_origin: Value<'a>,
    deleted: Value<'a>,
    caps: Value<'a>,
    tty: Value<'a>,
    exit_code: Value<'a>,
    signal: Value<'a>,
    child_pid: Value<'a>,
    redacted: Value<'a>,
    trust: Value<'a>,
    count: Value<'a>,
}

impl<'a> Process<'a> {
    fn of(event: &'static str, o: &'a Observation) -> Self {
        let p = &o.event.process;
        let own = o.lineage.first();
        Self {
            event: Value::text(event),
            pid: U64(p.key.tgid.into()),
            pid_started: U64(p.key.start.0),
            ppid: U64(p.ppid.into()),
            program: Value::opt(own, |a| Value::bytes(&a.exe)),
            script: Value::opt(own, |a| Value::bytes(&a.script)),
            args: Value::opt(own, |a| texts(&a.argv, " ")),
            cwd: Null,
            parent_program: Value::opt(o.parent(), |a| Value::bytes(&a.exe)),
            lineage: lineage(&o.lineage),
            lineage_cut: Bool(o.lineage_cut),
            entry: Value::text(p.entry.as_str()),
            uid: U64(p.uid.into()),
            euid: Null,
            gid: U64(p.gid.into()),
            comm: Value::bytes(&p.comm),
            object_origin: Null,
            deleted: Null,
            caps: Null,
            tty: Null,
            exit_code: Null,
            signal: Null,
            child_pid: Null,
            redacted: joined(&o.redacted, " "),
            trust: trust(o.event.trust),
            count: U64(o.count),
        }
    }
}

/// What was thought and done about it.
impl Maker<'_> {
    fn drift(&mut self, at: &At<'_>, d: &Drift) {
        let b = &d.behaviour;
        let own = [
            Value::text(snake(&format!("{:?}", d.class))),
            Value::text(d.risk.as_str()),
            Value::text(b.id().to_string()),
            Value::text(b.kind.as_str()),
            Value::bytes(&b.program),
            Value::bytes(&b.script),
            Value::text(b.entry.as_str()),
            U64(b.uid.into()),
            Value::text(b.operation.0.as_str()),
            Value::bytes(&b.object),
            Value::text(b.origin.as_str()),
            Value::text(d.reason.as_str()),
            Value::opt(d.baseline.as_ref(), |r| Value::text(r.id.as_str())),
            Value::opt(d.baseline.as_ref(), |r| U64(r.version)),
            Value::text(d.baseline_state.as_str()),
            U64(d.coverage_permille.into()),
            Bool(d.quarantined),
            joined(&d.techniques, " "),
            U64(d.count),
            when(d.last),
            Value::opt(d.lineage.first(), |a| U64(a.key.tgid.into())),
            lineage(&d.lineage),
            Value::opt(d.observation.as_ref(), |r| U64(r.leaf)),
        ];
        self.push(Table::Drift, at, &own);
    }

    fn alert(&mut self, at: &At<'_>, a: &Alert) {
        let drift = match &a.source {
            AlertSource::Drift(d) => Some(d),
            AlertSource::Rule(_) => None,
        };
        let fields = a.fields.iter().map(|(k, v)| (k.as_str(), v.to_str_lossy()));
        let own = [
            Value::text(a.id.as_str()),
            Value::text(a.rule.as_str()),
            Value::text(a.priority.as_str()),
            U64(a.priority as u64),
            Value::bytes(&a.output),
            Value::text(if drift.is_some() { "drift" } else { "rule" }),
            Value::opt(drift, |d| Value::text(d.behaviour.id().to_string())),
            Value::opt(drift, |d| Value::text(snake(&format!("{:?}", d.class)))),
            Value::opt(drift, |d| Value::text(d.risk.as_str())),
            U64(a.count),
            when(a.last),
            joined(&a.tags, " "),
            object(fields),
            joined(a.evidence.iter().map(ToString::to_string), " "),
            Bool(a.prevented),
        ];
        self.push(Table::Alerts, at, &own);
    }

    fn gap(&mut self, leaf: u64, g: &Gap) {
        let instance = match &g.scope {
            GapScope::Node => None,
            GapScope::Container(instance) => Some(instance),
        };
        // a gap is found by its interval, not by when it was written
        let at = At {
            leaf,
            wall: g.from.wall,
            instance,
        };
        let own = [
            Value::text(g.stage.as_str()),
            when(g.to),
            Value::opt(g.count, U64),
            Value::text(g.reason.as_str()),
        ];
        self.push(Table::Gaps, &at, &own);
    }

    fn container(&mut self, at: &At<'_>, c: &Container) {
        let labels = c.labels.iter().map(|(k, v)| (k.as_str(), v.into()));
        let optional = |text: &Option<String>| Value::opt(text.clone(), Value::text);
        let own = [
            Value::text(match c.state {
                ContainerState::Starting => "starting",
                ContainerState::Running => "running",
                ContainerState::Gone => "gone",
            }),
            Value::text(c.runtime.as_str()),
            Value::text(c.role.as_str()),
            optional(&c.service),
            optional(&c.pod),
            optional(&c.namespace),
            optional(&c.image.repository),
            Value::opt(c.image.manifest_digest.as_ref(), |d| {
                Value::text(d.as_str())
            }),
            when(c.first_seen),
            Value::opt(c.gone, when),
            Value::opt(c.exit_code, |n| I64(n.into())),
            Bool(c.privileged),
            Bool(c.found_running),
            texts(&c.command, " "),
            joined(&c.addresses, " "),
            joined(&c.mounts, " "),
            joined(
                c.ports
                    .iter()
                    .map(|(port, proto)| format!("{port}/{proto}")),
                " ",
            ),
            object(labels),
            Value::text(c.unknown_because.as_str()),
        ];
        self.push(Table::Containers, at, &own);
    }

    fn decision(&mut self, at: &At<'_>, d: &Decision) {
        let (uid, login_uid) = (U64(d.uid.into()), login(d.login_uid));
        let (action, subject) = (
            Value::text(d.action.as_str()),
            Value::text(d.subject.as_str()),
        );
        let (reason, method) = (
            Value::text(d.reason.as_str()),
            Value::text(d.method.as_str()),
        );
        if d.action.starts_with("evidence.") {
            let own = [action, subject, reason, uid, login_uid, method];
            return self.push(Table::Access, at, &own);
        }
        let row = Action {
            action,
            subject,
            detail: reason,
            uid,
            login_uid,
            method,
            ..Action::default()
        };
        self.action(at, row);
    }

    fn plan(&mut self, at: &At<'_>, p: &Plan) {
        let steps = p.steps.iter().map(|s| s.kind.as_str());
        let row = Action {
            action: Value::text("plan"),
            subject: Value::text(p.policy.as_str()),
            plan: Value::text(p.id.as_str()),
            step: joined(steps, " "),
            detail: joined(&p.reasons, "; "),
            alert_id: Value::text(p.alert.as_str()),
            dry_run: Bool(p.dry_run),
            ..Action::default()
        };
        self.action(at, row);
    }

    fn step(&mut self, leaf: u64, wall: WallNs, s: &StepRecord) {
        let (action, outcome) = match &s.phase {
            StepPhase::Began => ("step.begin", None),
            StepPhase::Ended(outcome) => ("step.end", Some(outcome)),
            StepPhase::UndoBegan => ("undo.begin", None),
            StepPhase::UndoEnded(outcome) => ("undo.end", Some(outcome)),
        };
        let row = Action {
            action: Value::text(action),
            plan: Value::text(s.plan.as_str()),
            step: Value::text(s.kind.as_str()),
            outcome: Value::opt(outcome, |o| Value::text(o.as_str())),
            detail: Value::opt(outcome, |o| Value::text(o.words())),
            attempt: U64(s.attempt.into()),
            ..Action::default()
        };
        self.of_plan(leaf, wall, &s.plan, row);
    }

    fn plan_end(&mut self, leaf: u64, wall: WallNs, p: &PlanEnd) {
        let row = Action {
            action: Value::text("plan.end"),
            plan: Value::text(p.plan.as_str()),
            detail: Value::text(p.why.as_str()),
            ..Action::default()
        };
        self.of_plan(leaf, wall, &p.plan, row);
    }

    fn delivery(&mut self, at: &At<'_>, d: &Delivery) {
        let row = Action {
            action: Value::text("deliver"),
            subject: Value::text(d.message.as_str()),
            outcome: Value::text(d.result.as_str()),
            detail: Value::text(d.detail.as_str()),
            alert_id: joined(d.alerts.iter().map(|a| a.as_str()), " "),
            receiver: Value::text(d.receiver.as_str()),
            attempt: U64(d.attempt.into()),
            ..Action::default()
        };
        self.action(at, row);
    }

    fn policy(&mut self, at: &At<'_>, p: &PolicyInForce) {
        let row = Action {
            action: Value::text("policy"),
            subject: Value::text(p.path.as_str()),
            detail: Value::text(p.digest.as_str()),
            ..Action::default()
        };
        self.action(at, row);
    }

    fn enforcement(&mut self, at: &At<'_>, e: &EnforcementInForce) {
        let state = if e.switched_off { "off" } else { "on" };
        let row = Action {
            action: Value::text("enforcement"),
            subject: Value::text(e.path.as_str()),
            outcome: Value::text(state),
            detail: Value::text(e.digest.as_str()),
            ..Action::default()
        };
        self.action(at, row);
    }

    fn prevention(&mut self, at: &At<'_>, p: &Prevention) {
        let times = if p.at_least {
            "times at least"
        } else {
            "times"
        };
        let row = Action {
            action: Value::text("prevent"),
            subject: Value::bytes(&p.object),
            step: Value::text(p.class.as_str()),
            outcome: Value::text(p.enforced.as_str()),
            detail: Value::text(format!("rule {}, {} {times}", p.rule, p.count)),
            ..Action::default()
        };
        self.action(at, row);
    }

    /// A record that names its plan is about that plan's container and alert.
    fn of_plan(&mut self, leaf: u64, wall: WallNs, plan: &str, row: Action<'_>) {
        let about = self.known.plans.get(plan).map(|p| p.what.clone());
        let (instance, alert) = about.unwrap_or_default();
        let at = At {
            leaf,
            wall,
            instance: instance.as_ref(),
        };
        self.action(
            &at,
            Action {
                alert_id: Value::text(alert),
                ..row
            },
        );
    }

    fn action(&mut self, at: &At<'_>, a: Action<'_>) {
        let own = [
            a.action,
            a.subject,
            a.plan,
            a.step,
            a.outcome,
            a.detail,
            a.alert_id,
            a.uid,
            a.login_uid,
            a.method,
            a.receiver,
            a.attempt,
            a.dry_run,
        ];
        self.push(Table::Actions, at, &own);
    }
}

/// `u32::MAX` stands for none.
fn login(uid: u32) -> Value<'static> {
    Value::opt((uid != u32::MAX).then_some(uid), |u| U64(u.into()))
}

/// A row of `actions`.
struct Action<'a> {
    action: Value<'a>,
    subject: Value<'a>,
    plan: Value<'a>,
    step: Value<'a>,
    outcome: Value<'a>,
    detail: Value<'a>,
    alert_id: Value<'a>,
    uid: Value<'a>,
    login_uid: Value<'a>,
    method: Value<'a>,
    receiver: Value<'a>,
    attempt: Value<'a>,
    dry_run: Value<'a>,
}

impl Default for Action<'_> {
    fn default() -> Self {
        Self {
            action: Null,
            subject: Null,
            plan: Null,
            step: Null,
            outcome: Null,
            detail: Null,
            alert_id: Null,
            uid: Null,
            login_uid: Null,
            method: Null,
            receiver: Null,
            attempt: Null,
            dry_run: Null,
        }
    }
}

/// Kinds of records that a table is made of.
pub(crate) fn kinds(tables: &[Table]) -> Vec<u16> {
    use plimsoll_model::RecordKind as K;
    let mut kinds = BTreeSet::new();
    for table in tables {
        let of: &[K] = match table {
            Table::Alerts => &[K::Alert],
            Table::Drift => &[K::Drift],
            Table::Behaviours | Table::Fingerprints => &[K::Observation, K::Presence, K::Recording],
            Table::Processes | Table::Files | Table::Connections | Table::Dns => &[K::Observation],
            Table::Containers => &[],
            Table::Gaps => &[K::Gap],
            Table::Actions => &[
                K::Enforcement,
                K::Prevention,
                K::Decision,
                K::Step,
                K::PlanEnd,
                K::Delivery,
                K::Policy,
            ],
            Table::Access => &[K::Decision],
        };
        kinds.extend(of.iter().map(|k| *k as u16));
    }
    // identities, for every table
    kinds.extend(IDENTITIES);
    kinds.into_iter().collect()
}

/// Kinds that say whose other records are.
pub(crate) const IDENTITIES: [u16; 2] = [
    plimsoll_model::RecordKind::Container as u16,
    plimsoll_model::RecordKind::Plan as u16,
];
