//! An observation as the rule language sees it: `evt.*`, `proc.*`, `fd.*`, `user.*`, `container.*`.
//!
//! Promises: fields mean what they mean in Falco, as far as the sensor tells them; what differs is
//! in `docs/rules-differences.md`. Values come from the observation as stored, its container and
//! the names that were resolved before it: nothing is looked up, so that a verdict replays. What an
//! event has not is [`Value::Absent`], what was not told is [`Value::Unknown`].
//!
//! Left out: which fields a node does not have at all ([`super::capabilities`]), and what the key of
//! a behaviour tells of its repeats ([`super::key`]).

use super::net::Ends;
use super::{args, process, words};
use plimsoll_baseline::PeerNames;
use plimsoll_model::event::{Exec, FileEvent};
use plimsoll_model::{Ancestor, Container, EventKind as Seen, FileOp, Observation, Origin, Trust};
use plimsoll_rules::{EventKind, EventView, Field, FieldArg, FieldRef, Kept, Value};
use std::cell::Cell;

/// What successful calls return that make a descriptor: its number is not recorded, and this one
/// is no standard stream. It is compared, never shown.
pub(super) const SOME_DESCRIPTOR: i64 = 3;

/// What Falco calls a user or group that has no name: a text, that `!=` is true of.
pub(super) const NO_NAME: &[u8] = b"<NA>";

/// Whom names are asked of, and what the node is called.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Names of addresses.
    pub names: &'a dyn PeerNames,
    /// Name of the node.
    pub node: &'a str,
}

/// An observation, asked field by field.
pub struct View<'a> {
    pub(super) obs: &'a Observation,
    pub(super) container: Option<&'a Container>,
    pub(super) around: Surroundings<'a>,
    pub(super) ends: Option<Ends<'a>>,
    lines: process::Lines<'a>,
    kind: Cell<EventKind>,
    showing: Cell<bool>,
    made: Kept<Vec<u8>>,
}

impl<'a> View<'a> {
    /// An observation in its container (`None`: of the host, or not identified).
    pub fn new(
        obs: &'a Observation,
        container: Option<&'a Container>,
        around: Surroundings<'a>,
        kind: EventKind,
    ) -> Self {
        Self {
            obs,
            container,
            around,
            ends: Ends::of(&obs.event.kind),
            lines: process::Lines::new(obs),
            kind: Cell::new(kind),
            showing: Cell::new(false),
            made: Kept::default(),
        }
    }

    /// From now on the event is of another of the kinds that it may have.
    pub fn set_kind(&self, kind: EventKind) {
        self.kind.set(kind);
    }

    /// From now on fields are asked for to be shown: what is not known is not made up.
    pub fn for_output(&self) {
        self.showing.set(true);
    }

    /// A value that had to be composed.
    pub(super) fn text(&self, text: impl Into<Vec<u8>>) -> Value<'_> {
        Value::Text(self.made.keep(text.into()))
    }

    /// The exec, where the event is one.
    pub(super) fn exec(&self) -> Option<&'a Exec> {
        match &self.obs.event.kind {
            Seen::Exec(exec) => Some(exec),
            _ => None,
        }
    }

    pub(super) fn own(&self) -> Option<&'a Ancestor> {
        self.obs.lineage.first()
    }

    pub(super) fn lines(&self) -> &process::Lines<'a> {
        &self.lines
    }

    pub(super) fn file(&self) -> Option<&'a FileEvent> {
        match &self.obs.event.kind {
            Seen::File(file) => Some(file),
            _ => None,
        }
    }

    /// A number that stands for one that is not recorded.
    pub(super) fn stand_in(&self, number: i64) -> Value<'_> {
        match self.showing.get() {
            true => Value::Absent,
            false => Value::Int(number),
        }
    }

    fn by_argument(&self) -> bool {
        self.obs.event.trust == Trust::Argument
    }

    /// The open file that the event is about, with its operation.
    fn open_file(&self) -> Option<(&'a [u8], FileOp, u32)> {
        match &self.obs.event.kind {
            Seen::File(f) => match f.op {
                FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List | FileOp::Failed => {
                    Some((f.path.as_bytes(), f.op, f.flags))
                }
                FileOp::Chmod | FileOp::Chown if !self.by_argument() => {
                    Some((f.path.as_bytes(), f.op, 0))
                }
                _ => None,
            },
            Seen::Library { path, .. } => Some((path.as_bytes(), FileOp::Read, 0)),
            _ => None,
        }
    }

    fn is_open(&self) -> Option<(FileOp, u32)> {
        let file = self.file()?;
        let opens = matches!(
            file.op,
            FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List | FileOp::Failed
        );
        opens.then_some((file.op, file.flags))
    }

    fn origin(&self) -> Origin {
        match &self.obs.event.kind {
            Seen::File(file) => file.origin,
            Seen::Library { origin, .. } => *origin,
            Seen::Exec(exec) => exec.origin,
            _ => Origin::Unknown,
        }
    }

    /// What the call returned: 0 or an error, where it is recorded.
    fn result(&self) -> Option<i64> {
        match &self.obs.event.kind {
            Seen::File(f) => Some(f.result.into()),
            Seen::Connect(c) | Seen::Datagram(c) => Some(c.result.into()),
            Seen::Rare { result, .. } => Some(*result),
            Seen::Dup { stream, .. } => Some(i64::from(*stream)),
            // reported only when they succeeded
            Seen::Exec(_)
            | Seen::Accept(_)
            | Seen::Listen { .. }
            | Seen::Bind { .. }
            | Seen::Library { .. }
            | Seen::Credentials { .. }
            | Seen::Memfd { .. }
            | Seen::Fork { .. } => Some(0),
            _ => None,
        }
    }

    /// Whether a success returns a descriptor, whose number is not recorded.
    fn makes_descriptor(&self) -> bool {
        match &self.obs.event.kind {
            Seen::File(_) => self.is_open().is_some(),
            Seen::Accept(_) | Seen::Memfd { .. } => true,
            _ => false,
        }
    }

    fn event(&self, field: &FieldRef) -> Value<'_> {
        use Field as F;
        let event = &self.obs.event;
        let ns = self.obs.at.wall.0.max(0);
        let rfc3339 = || self.obs.at.wall.rfc3339();
        match field.field {
            // from 1, as Falco counts: a number that is 0 stands for "never" in many rule files
            F::EvtNum => Value::UInt(event.seq + 1),
            F::EvtTime | F::EvtTimeS => {
                let text = rfc3339();
                let clock = text.split(['T', 'Z']).nth(1).unwrap_or_default();
                match field.field {
                    F::EvtTime => self.text(clock),
                    _ => self.text(clock.split('.').next().unwrap_or_default()),
                }
            }
            F::EvtTimeIso8601 | F::EvtDatetime => self.text(rfc3339()),
            F::EvtDatetimeS => self.text(rfc3339().split('.').next().unwrap_or_default()),
            F::EvtRawtime => Value::UInt(ns as u64),
            F::EvtRawtimeS => Value::UInt(ns as u64 / 1_000_000_000),
            F::EvtRawtimeNs => Value::UInt(ns as u64 % 1_000_000_000),
            F::EvtSource => Value::Text(b"syscall"),
            F::EvtIsAsync => Value::Bool(false),
            F::EvtHostname => Value::Text(self.around.node.as_bytes()),
            F::SyscallType => Value::Text(self.kind().name().as_bytes()),
            F::EvtCategory => Value::text(category(&event.kind)),
            F::EvtCpu => Value::Int(event.cpu.into()),
            F::EvtArgs | F::EvtInfo => self.text(args::all(self)),
            F::EvtArg => args::one(self, &field.arg),
            F::EvtRes => match self.result() {
                Some(result) => self.text(words::result(result)),
                None => Value::Unknown,
            },
            F::EvtRawres => match self.result() {
                Some(0) if self.makes_descriptor() => self.stand_in(SOME_DESCRIPTOR),
                Some(result) => Value::Int(result),
                None => Value::Unknown,
            },
            F::EvtFailed => match self.result() {
                Some(result) => Value::Bool(result < 0),
                None => Value::Unknown,
            },
            F::EvtCount => Value::UInt(1),
            F::EvtCountError => match self.result() {
                Some(result) if result < 0 => Value::UInt(1),
                _ => Value::Absent,
            },
            F::EvtIsIo | F::EvtIsIoRead | F::EvtIsIoWrite | F::EvtIsWait | F::EvtIsSyslog => {
                Value::Bool(false)
            }
            F::EvtIsOpenRead => Value::Bool(self.is_open().is_some_and(reads)),
            F::EvtIsOpenWrite => Value::Bool(self.is_open().is_some_and(writes)),
            F::EvtIsOpenExec => match self.is_open().and(self.file()) {
                Some(file) if file.op == FileOp::Create && file.mode.is_none() => Value::Unknown,
                Some(file) => Value::Bool(file.mode.is_some_and(|mode| mode & 0o111 != 0)),
                None => Value::Bool(false),
            },
            F::EvtIsOpenCreate => {
                Value::Bool(self.is_open().is_some_and(|(op, _)| op == FileOp::Create))
            }
            F::EvtAbspath => match (&field.arg, &event.kind) {
                (FieldArg::None, Seen::File(f)) => Value::Text(f.path.as_bytes()),
                _ => Value::Absent,
            },
            _ => Value::Unknown,
        }
    }

    fn descriptor(&self, field: &FieldRef) -> Value<'_> {
        use Field as F;
        if let Some(ends) = &self.ends {
            return ends.field(self, field);
        }
        let Some((path, op, flags)) = self.open_file() else {
            return match (&self.obs.event.kind, field.field) {
                (Seen::Dup { stream, .. }, F::FdNum) => Value::Int((*stream).into()),
                _ => Value::Absent,
            };
        };
        let is_directory = flags & words::layout::DIRECTORY != 0;
        let slash = path.iter().rposition(|b| *b == b'/');
        match field.field {
            F::FdNum if op == FileOp::Failed => Value::Int(-1),
            F::FdNum => self.stand_in(SOME_DESCRIPTOR),
            F::FdType | F::FdTypes if is_directory => Value::Text(b"directory"),
            F::FdType | F::FdTypes => Value::Text(b"file"),
            F::FdTypechar if is_directory => Value::Text(b"d"),
            F::FdTypechar => Value::Text(b"f"),
            F::FdName => Value::Text(path),
            F::FdNameraw => match self.file().and_then(|f| f.raw.as_ref()) {
                Some(raw) if raw.is_empty() => Value::Text(path),
                Some(raw) => Value::Text(raw.as_bytes()),
                None => Value::Unknown,
            },
            F::FdDirectory => match slash {
                Some(0) => Value::Text(b"/"),
                Some(at) => Value::Text(&path[..at]),
                None => Value::Absent,
            },
            F::FdFilename => Value::Text(slash.map_or(path, |at| &path[at + 1..])),
            F::FdContainername => self.in_container(path),
            F::FdContainerdirectory => self.in_container(&path[..slash.unwrap_or(0).max(1)]),
            F::FdIsUpperLayer => Value::Bool(self.origin() == Origin::Upper),
            F::FdIsLowerLayer => Value::Bool(self.origin() == Origin::Image),
            F::FdNameChanged | F::FdIsServer | F::FdConnected => Value::Bool(false),
            _ => Value::Absent,
        }
    }

    fn in_container(&self, path: &[u8]) -> Value<'_> {
        let mut text = self.container_id().as_bytes().to_vec();
        text.push(b':');
        text.extend_from_slice(path);
        self.text(text)
    }

    /// `fs.path.*`: what a call that names files names.
    fn path(&self, field: Field) -> Value<'_> {
        use Field as F;
        let (name, source, target) = match &self.obs.event.kind {
            Seen::File(f) => match f.op {
                FileOp::Rename | FileOp::Link => (None, Some(&f.path), Some(&f.target)),
                FileOp::Symlink => (None, Some(&f.target), Some(&f.path)),
                _ => (Some(&f.path), None, None),
            },
            Seen::Mount { source, target, .. } => (None, Some(source), Some(target)),
            _ => return Value::Absent,
        };
        let text = match field {
            F::FsPathName => name,
            F::FsPathSource => source,
            F::FsPathTarget => target,
            _ => return Value::Unknown,
        };
        Value::text(text.map(|t| t.as_bytes()).filter(|t| !t.is_empty()))
    }

    fn dns(&self, field: Field) -> Value<'_> {
        use Field as F;
        let Seen::Dns(dns) = &self.obs.event.kind else {
            return Value::Absent;
        };
        match field {
            F::DnsQuestion => Value::Text(dns.name.as_bytes()),
            F::DnsQtype => Value::UInt(dns.qtype.into()),
            F::DnsIsAnswer => Value::Bool(dns.response),
            F::DnsRcode if dns.response => Value::UInt(dns.rcode.into()),
            _ => Value::Absent,
        }
    }

    fn user(&self, field: Field) -> Value<'_> {
        use Field as F;
        let process = &self.obs.event.process;
        let uid = self.exec().map_or(process.uid, |e| e.euid);
        let gid = self.exec().map_or(process.gid, |e| e.egid);
        match field {
            F::UserUid => Value::UInt(uid.into()),
            F::GroupGid => Value::UInt(gid.into()),
            F::UserName if uid == 0 => Value::Text(b"root"),
            F::GroupName if gid == 0 => Value::Text(b"root"),
            // the container's own word, as it was when the program was executed
            F::UserName => match process::glance(self) {
                Some(g) if g.uid == uid && !g.user.is_empty() => Value::Text(g.user.as_bytes()),
                _ => Value::Text(NO_NAME),
            },
            F::GroupName => Value::Text(NO_NAME),
            F::UserLoginuid => match process::glance(self) {
                Some(g) => Value::Int(g.login_uid.map_or(-1, i64::from)),
                None => Value::Unknown,
            },
            F::UserLoginname => match process::glance(self) {
                Some(g) if g.login_uid == Some(0) => Value::Text(b"root"),
                Some(_) => Value::Text(NO_NAME),
                None => Value::Unknown,
            },
            _ => Value::Unknown,
        }
    }

    /// What `container.id` prints.
    pub(super) fn container_id(&self) -> &'a str {
        match (&self.obs.instance, self.obs.event.cgroup_id) {
            (Some(instance), _) => instance.id.short(),
            (None, 0) => "host",
            (None, _) => "unknown",
        }
    }
}

impl EventView for View<'_> {
    fn kind(&self) -> EventKind {
        self.kind.get()
    }

    fn field<'v>(&'v self, field: &FieldRef) -> Value<'v> {
        let name = field.field.name();
        match name.split('.').next().unwrap_or_default() {
            "evt" | "syscall" => self.event(field),
            "proc" | "thread" => process::field(self, field),
            "fd" => self.descriptor(field),
            "user" | "group" => self.user(field.field),
            "container" | "k8s" => super::workload::field(self, field),
            "fs" => self.path(field.field),
            "dns" => self.dns(field.field),
            _ => Value::Unknown,
        }
    }
}

fn reads((op, flags): (FileOp, u32)) -> bool {
    match (op, flags & 3) {
        (FileOp::Read | FileOp::List, 0) => true,
        (FileOp::Failed, mode) => mode != 1,
        (_, 2) => true,
        _ => false,
    }
}

fn writes((op, flags): (FileOp, u32)) -> bool {
    match op {
        // creat, and openat2 whose flags are not read, show none
        FileOp::Write => true,
        FileOp::Create => flags & 3 != 0 || flags == 0,
        FileOp::Failed => flags & 3 != 0,
        _ => false,
    }
}

fn category(kind: &Seen) -> Option<&'static [u8]> {
    Some(match kind {
        Seen::File(_) | Seen::Library { .. } | Seen::Mount { .. } => b"file",
        Seen::Connect(_)
        | Seen::Accept(_)
        | Seen::Listen { .. }
        | Seen::Bind { .. }
        | Seen::Socket { .. }
        | Seen::Datagram(_) => b"net",
        Seen::Exec(_) | Seen::Exit { .. } | Seen::Fork { .. } => b"process",
        Seen::Credentials { .. } => b"user",
        Seen::Signal { .. } => b"signal",
        _ => b"other",
    })
}

impl View<'_> {
    /// The name that an address was resolved from in this container, or the service behind it.
    pub(super) fn name_of(&self, ip: std::net::IpAddr) -> Option<&str> {
        let dns = self
            .obs
            .instance
            .as_ref()
            .and_then(|instance| self.around.names.dns(instance, ip));
        dns.or_else(|| self.around.names.service(ip))
    }
}
