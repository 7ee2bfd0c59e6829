//! Events with their workload and lineage: observations.

use super::{Context, time};
use crate::describe;
use crate::json::lossy;
use plimsoll_model as model;
use plimsoll_model::event::{Connection, DupTarget, MountCall, NamespaceCall};
use plimsoll_model::names::{Table, syscall_name};
use plimsoll_model::{EventKind, SockAddr, Trust};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One process, as it was when the event happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start of the process, boot clock; with `pid` its identity.
    pub start_boot_ns: u64,
    /// Its executable.
    pub exe: String,
    /// The script it interprets.
    pub script: Option<String>,
    /// Its arguments (at most 512 bytes; the exec event has 4 KiB).
    pub argv: Vec<String>,
    /// `init`, `exec_session`, `host` or `found_running`.
    pub entry: String,
    /// Real uid in the initial user namespace.
    pub uid: u32,
    /// Rebuilt from `/proc`, not observed.
    pub from_proc: bool,
}

impl From<&model::Ancestor> for Process {
    fn from(a: &model::Ancestor) -> Self {
        Self {
            pid: a.key.tgid,
            start_boot_ns: a.key.start.0,
            exe: lossy(&a.exe),
            script: (!a.script.is_empty()).then(|| lossy(&a.script)),
            argv: a.argv.iter().map(lossy).collect(),
            entry: a.entry.as_str().to_owned(),
            uid: a.uid,
            from_proc: a.from_proc,
        }
    }
}

/// Who a record is about, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// The runtime's id, whole.
    pub container_id: String,
    /// The instance.
    pub instance: String,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its image, where it is known.
    pub image: Option<String>,
}

/// What happened, who did it, where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The event's record.
    pub record: Option<String>,
    /// When.
    pub time: String,
    /// Bound on the error of `time`.
    pub uncertainty_ns: u64,
    /// When, boot clock: orders the events of one boot of one node.
    pub boot_ns: u64,
    /// `exec`, `file`, `connect` …
    pub kind: String,
    /// One sentence for people (control characters written out).
    pub summary: String,
    /// What happened, by kind: see `docs/formats/json.md`.
    pub detail: Value,
    /// The container; `null`: none, or see `unknown_because`.
    pub container: Option<Subject>,
    /// Why the container is unknown.
    pub unknown_because: Option<String>,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// Real uid in the initial user namespace.
    pub uid: u32,
    /// Real gid in the initial user namespace.
    pub gid: u32,
    /// `comm`, at most 15 bytes.
    pub comm: String,
    /// The acting process first, then its ancestors.
    pub lineage: Vec<Process>,
    /// An ancestor was not known any more.
    pub lineage_cut: bool,
    /// `object` (read from the kernel), `argument` (the program could forge it) or `proc`.
    pub trust: String,
    /// An argument changed while the kernel read it.
    pub tampered: bool,
    /// Redaction rules that masked something.
    pub redacted: Vec<String>,
    /// How many equal events this stands for.
    pub count: u64,
    /// The node.
    pub node: String,
}

impl Event {
    /// The JSON form of an observation.
    pub fn new(o: &model::Observation, context: Context<'_>) -> Self {
        let process = &o.event.process;
        Self {
            record: context.record.map(ToString::to_string),
            time: time(o.at),
            uncertainty_ns: o.at.uncertainty_ns,
            boot_ns: o.at.boot.0,
            kind: o.event.kind.name().to_owned(),
            summary: describe::observation(o),
            detail: detail(&o.event.kind),
            container: o.instance.as_ref().map(|i| Subject {
                container_id: i.id.to_string(),
                instance: i.to_string(),
                name: context.container.map(|c| c.name.clone()),
                image: context.container.map(|c| c.image.name.clone()),
            }),
            unknown_because: (!o.unknown_because.is_empty()).then(|| o.unknown_because.clone()),
            pid: process.key.tgid,
            tid: process.tid,
            ppid: process.ppid,
            uid: process.uid,
            gid: process.gid,
            comm: lossy(&process.comm),
            lineage: o.lineage.iter().map(Process::from).collect(),
            lineage_cut: o.lineage_cut,
            trust: trust_name(o.event.trust).to_owned(),
            tampered: o.event.tampered,
            redacted: o.redacted.clone(),
            count: o.count,
            node: context.node.to_owned(),
        }
    }
}

impl Event {
    /// The JSON form of a use that the recorder kept: known behaviour, in one second.
    pub fn recorded(r: &model::Recording, used: &model::Used, context: Context<'_>) -> Self {
        let after = u64::from(used.after_ms) * 1_000_000;
        let mut at = r.from;
        at.wall.0 = at.wall.0.saturating_add_unsigned(after);
        at.boot.0 = at.boot.0.saturating_add(after);
        let what = r.behaviours.get(used.what as usize);
        let behaviour = what.and_then(|w| w.behaviour.as_ref());
        Self {
            record: context.record.map(ToString::to_string),
            time: time(at),
            // an entry's clock ticks every 8.4 ms
            uncertainty_ns: at.uncertainty_ns + (1 << 23),
            boot_ns: at.boot.0,
            kind: what.map_or("unknown", |w| w.kind.as_str()).to_owned(),
            summary: behaviour.map_or_else(
                || "known behaviour; which one is not known any more".to_owned(),
                describe::behaviour,
            ),
            detail: json!({
                "recorder": true,
                "each_use": r.full,
                "behaviour": behaviour.map(|b| b.id().to_string()),
                "program": behaviour.map(|b| lossy(&b.program)),
                "script": behaviour.filter(|b| !b.script.is_empty()).map(|b| lossy(&b.script)),
                "operation": behaviour.map(|b| b.operation.to_string()),
                "object": behaviour.map(|b| lossy(&b.object)),
                "origin": behaviour.map(|b| b.origin.as_str()),
            }),
            container: Some(Subject {
                container_id: r.instance.id.to_string(),
                instance: r.instance.to_string(),
                name: context.container.map(|c| c.name.clone()),
                image: context.container.map(|c| c.image.name.clone()),
            }),
            pid: used.tgid,
            trust: trust_name(Trust::Object).to_owned(),
            count: used.count.into(),
            node: context.node.to_owned(),
            ..Self::default()
        }
    }
}

fn trust_name(trust: Trust) -> &'static str {
    match trust {
        Trust::Object => "object",
        Trust::Argument => "argument",
        Trust::Proc => "proc",
    }
}

fn address(a: &SockAddr) -> String {
    match a {
        SockAddr::Unix(path) => format!("unix:{}", path.to_str_lossy()),
        inet => inet.to_string(),
    }
}

fn connection(c: &Connection) -> Value {
    json!({ "proto": c.proto.as_str(), "peer": address(&c.peer), "local": c.local.as_ref().map(address), "result": c.result })
}

/// The object `detail` of an event, by kind.
fn detail(kind: &EventKind) -> Value {
    match kind {
        EventKind::Exec(e) => json!({
            "exe": lossy(&e.exe),
            "script": (!e.script.is_empty()).then(|| lossy(&e.script)),
            "argv": e.argv.iter().map(lossy).collect::<Vec<_>>(),
            "argv_bytes": e.argv_bytes,
            "cwd": lossy(&e.cwd),
            "origin": e.origin.as_str(),
            "deleted": e.deleted,
            "euid": e.euid,
            "egid": e.egid,
            // 64 bits do not survive every JSON reader's numbers
            "caps": format!("{:#x}", e.caps),
            "tty": e.tty,
            "dev": e.dev,
            "ino": e.ino,
            "mode": format!("{:04o}", e.mode & 0o7777),
            "first": e.first,
            "found": e.found,
        }),
        EventKind::Exit { code, signal } => json!({ "code": code, "signal": signal }),
        EventKind::Fork { child } => {
            json!({ "child_pid": child.tgid, "child_start_boot_ns": child.start.0 })
        }
        EventKind::File(f) => json!({
            "operation": f.op.as_str(),
            "path": lossy(&f.path),
            "target": (!f.target.is_empty()).then(|| lossy(&f.target)),
            "origin": f.origin.as_str(),
            "flags": f.flags,
            "result": f.result,
        }),
        EventKind::Library { path, origin } => {
            json!({ "path": lossy(path), "origin": origin.as_str() })
        }
        EventKind::Socket {
            family,
            kind,
            protocol,
        } => json!({ "family": family, "type": kind, "protocol": protocol }),
        EventKind::Connect(c) | EventKind::Accept(c) | EventKind::Datagram(c) => connection(c),
        EventKind::Listen { proto, local } | EventKind::Bind { proto, local } => {
            json!({ "proto": proto.as_str(), "local": address(local) })
        }
        EventKind::Dns(d) => json!({
            "response": d.response,
            "name": lossy(&d.name),
            "qtype": d.qtype,
            "rcode": d.rcode,
            "addresses": d.addresses.iter().map(|ip| ip.0.to_string()).collect::<Vec<_>>(),
            "server": d.server.as_ref().map(address),
        }),
        EventKind::Dup {
            stream,
            target,
            peer,
        } => json!({
            "stream": stream,
            "target": dup_target(*target),
            "peer": peer.as_ref().map(address),
        }),
        EventKind::Namespace { call, flags } => {
            json!({ "call": namespace_call(*call), "flags": format!("{flags:#x}") })
        }
        EventKind::Mount {
            call,
            source,
            target,
            fstype,
            flags,
        } => json!({
            "call": mount_call(*call),
            "source": lossy(source),
            "target": lossy(target),
            "fstype": lossy(fstype),
            "flags": format!("{flags:#x}"),
        }),
        EventKind::Ptrace { request, target } => {
            json!({ "request": request, "target_pid": target })
        }
        EventKind::Module { name } => json!({ "name": lossy(name) }),
        EventKind::Bpf { command } => json!({ "command": command }),
        EventKind::Credentials {
            old_uid,
            new_uid,
            old_caps,
            new_caps,
        } => json!({
            "old_uid": old_uid,
            "new_uid": new_uid,
            "old_caps": format!("{old_caps:#x}"),
            "new_caps": format!("{new_caps:#x}"),
        }),
        EventKind::Syscall { nr, compat } => {
            let table = if *compat {
                Table::NATIVE.compat()
            } else {
                Table::NATIVE
            };
            json!({ "nr": nr, "name": syscall_name(table, *nr), "compat": compat })
        }
        EventKind::Memfd { name } => json!({ "name": lossy(name) }),
        EventKind::CgroupMkdir { id, parent, path } => {
            json!({ "id": id, "parent": parent, "path": lossy(path) })
        }
        EventKind::CgroupRmdir { id } => json!({ "id": id }),
        EventKind::CgroupAttach { to, path, moved } => json!({
            "to": to,
            "path": lossy(path),
            "moved_pid": moved.tgid,
            "moved_start_boot_ns": moved.start.0,
        }),
        EventKind::Rare { nr, args, result } => json!({
            "nr": nr,
            "name": syscall_name(Table::NATIVE, *nr),
            "args": args.map(|a| format!("{a:#x}")),
            "result": result,
        }),
        EventKind::Signal { signal, target } => json!({ "signal": signal, "target_pid": target }),
    }
}

pub(crate) fn dup_target(target: DupTarget) -> &'static str {
    match target {
        DupTarget::Inet => "inet",
        DupTarget::Unix => "unix",
        DupTarget::Pipe => "pipe",
        DupTarget::Tty => "tty",
        DupTarget::Other => "other",
    }
}

pub(crate) fn namespace_call(call: NamespaceCall) -> &'static str {
    match call {
        NamespaceCall::Setns => "setns",
        NamespaceCall::Unshare => "unshare",
        NamespaceCall::Clone => "clone",
    }
}

pub(crate) fn mount_call(call: MountCall) -> &'static str {
    match call {
        MountCall::Mount => "mount",
        MountCall::Umount => "umount",
        MountCall::PivotRoot => "pivot_root",
        MountCall::Chroot => "chroot",
        MountCall::MoveMount => "move_mount",
    }
}
