//! What the key of a behaviour tells rules: whether a repeat could make one true.
//!
//! The kernel's dictionary answers for repeats by (container, program, script, entry, user,
//! operation, object). What else an event has (its process, arguments, parents, terminal, exact
//! flags) can be different the next time, and is unknown here. Where no rule can become true
//! whatever the unknown is, the behaviour is left to the dictionary; where one might, it is watched:
//! emitted every time.
//!
//! Roughly: a program is taken to be called by the name of its file (a multi-call binary is not);
//! one file that is opened by several names (hard links) is known by the name that came first.

use super::process;
use super::view::View;
use plimsoll_model::EventKind as Seen;
use plimsoll_model::{Entry, FileOp, Origin, Text};
use plimsoll_rules::{EventKind, EventView, Field, FieldArg, FieldRef, Value};
use plimsoll_sensor::api::{Known, KnownObject, PathMatch, PeerMatch};
use std::net::IpAddr;

/// Programs that are called what they are told to be.
const MULTI_CALL: [&[u8]; 3] = [b"busybox", b"toybox", b"coreutils"];
/// A `comm` is cut to this length.
const COMM_MAX: usize = 15;

/// The name that a program has whoever runs it; `None` where that depends.
fn name_of_program(path: &[u8]) -> Option<&[u8]> {
    let base = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    (!base.is_empty() && !MULTI_CALL.contains(&base)).then(|| &base[..base.len().min(COMM_MAX)])
}

/// What the path of an open, as the program writes it, may be the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawPath {
    /// What it was.
    AsSeen,
    /// What it was, or the resolved path where it went up.
    Straight,
    /// Anything.
    Unknown,
}

/// An event that was seen, reduced to what its repeats have in common.
pub struct Again<'a> {
    /// The event.
    pub view: &'a View<'a>,
    /// Its path as the program writes it.
    pub raw: RawPath,
}

impl EventView for Again<'_> {
    fn kind(&self) -> EventKind {
        self.view.kind()
    }

    fn field<'v>(&'v self, field: &FieldRef) -> Value<'v> {
        if matches!(field.field, Field::FdNameraw | Field::FsPathNameraw) {
            return self.raw_path(field);
        }
        match self.is_in_key(field) {
            true => self.view.field(field),
            false => Value::Unknown,
        }
    }
}

impl Again<'_> {
    fn raw_path<'v>(&'v self, field: &FieldRef) -> Value<'v> {
        let seen = self.view.field(field);
        let goes_up = matches!(seen, Value::Text(t) if t.windows(2).any(|w| w == b".."));
        match self.raw {
            RawPath::Unknown => Value::Unknown,
            RawPath::Straight if goes_up => self.view.field(&FieldRef {
                field: Field::FdName,
                arg: FieldArg::None,
            }),
            RawPath::Straight | RawPath::AsSeen => seen,
        }
    }

    fn is_in_key(&self, field: &FieldRef) -> bool {
        use Field as F;
        let seen = &self.view.obs.event.kind;
        match field.field {
            F::EvtSource
            | F::EvtIsAsync
            | F::EvtHostname
            | F::SyscallType
            | F::EvtCategory
            | F::EvtCount
            | F::EvtIsIo
            | F::EvtIsIoRead
            | F::EvtIsIoWrite
            | F::EvtIsWait
            | F::EvtIsSyslog
            | F::EvtIsOpenCreate
            // a file is made once, and another mode is another change time
            | F::EvtIsOpenExec
            | F::EvtAbspath => true,
            // of the result, only whether it was an error is in the key
            F::EvtFailed => true,
            F::EvtRes | F::EvtRawres => {
                !matches!(self.view.field(field), Value::Int(n) if n < 0)
                    && !matches!(self.view.field(field), Value::Text(t) if t != b"SUCCESS")
            }
            // opened for writing may be opened for reading too
            F::EvtIsOpenRead => {
                !matches!(seen, Seen::File(f) if f.op == FileOp::Write || f.op == FileOp::Create)
            }
            F::EvtIsOpenWrite => true,
            F::EvtArg => matches!(&field.arg, FieldArg::Key(k) if argument_is_in_key(seen, k)),
            F::ProcExepath => true,
            F::ProcName => self
                .view
                .own()
                .is_some_and(|own| name_of_program(own.exe.as_bytes()) == Some(process::name(own))),
            F::UserUid => true,
            // what has no name may have one at the next exec
            F::UserName => !matches!(self.view.field(field), Value::Text(super::view::NO_NAME)),
            F::FsPathName | F::FsPathSource | F::FsPathTarget => {
                !matches!(seen, Seen::Mount { .. }) || field.field == F::FsPathTarget
            }
            // what is known of the container now; what is missing may still be found out
            f if f.name().starts_with("container.") || f.name().starts_with("k8s.") => {
                let timed = matches!(f, F::ContainerDuration | F::ContainerStartTs);
                !timed && !matches!(self.view.field(field), Value::Absent)
            }
            f if f.name().starts_with("fd.") => self.descriptor_is_in_key(f),
            _ => false,
        }
    }

    fn descriptor_is_in_key(&self, field: Field) -> bool {
        use Field as F;
        let Some(ends) = &self.view.ends else {
            // a directory that is opened with or without O_DIRECTORY
            return !matches!(
                field,
                F::FdType | F::FdTypes | F::FdTypechar | F::FdIno | F::FdDev
            );
        };
        match field {
            F::FdType
            | F::FdTypes
            | F::FdTypechar
            | F::FdSockfamily
            | F::FdL4proto
            | F::FdIsServer
            | F::FdConnected
            | F::FdNameChanged => true,
            // our own end of an outbound connection, and theirs of an inbound one, vary
            F::FdSip | F::FdSnet | F::FdSport | F::FdSproto => !ends.is_inbound(),
            F::FdCip | F::FdCnet => ends.is_inbound(),
            F::FdRip | F::FdRnet => true,
            F::FdRport | F::FdRproto => !ends.is_inbound(),
            F::FdLport | F::FdLproto => ends.is_inbound(),
            F::FdNum | F::FdFilename | F::FdDirectory => true,
            F::FdName => ends.is_unix(),
            _ => false,
        }
    }
}

/// Which arguments the key of a behaviour tells.
fn argument_is_in_key(seen: &Seen, name: &str) -> bool {
    match seen {
        Seen::File(_) => !matches!(name, "flags" | "res"),
        Seen::Socket { .. } => true,
        Seen::Namespace { .. } => true,
        Seen::Mount { .. } => matches!(name, "dir" | "name" | "path" | "flags"),
        Seen::Ptrace { .. } => name == "request",
        Seen::Module { .. } | Seen::Bpf { .. } | Seen::Credentials { .. } => true,
        Seen::Memfd { .. } => true,
        Seen::Signal { .. } => name == "sig",
        _ => false,
    }
}

/// An entry of a baseline's dictionary set, as rules see it.
pub struct Entries<'a> {
    known: &'a Known,
    kind: EventKind,
    /// The directory with its slash, where all paths below it are meant.
    below: Vec<u8>,
}

impl<'a> Entries<'a> {
    /// What an entry stands for, under one of the names that it may have.
    pub fn new(known: &'a Known, kind: EventKind) -> Self {
        let mut below = Vec::new();
        if let KnownObject::File { path, .. } | KnownObject::Library { path, .. } = &known.object
            && let PathMatch::Below(dir) = path
        {
            below.extend_from_slice(dir.as_bytes());
            if below.last() != Some(&b'/') {
                below.push(b'/');
            }
        }
        Self { known, kind, below }
    }

    fn file(&self) -> Option<(FileOp, Origin, &'a PathMatch)> {
        match &self.known.object {
            KnownObject::File { op, origin, path } => Some((*op, *origin, path)),
            KnownObject::Library { origin, path } => Some((FileOp::Read, *origin, path)),
            _ => None,
        }
    }

    fn exact(&self) -> Option<&'a Text> {
        match self.file()?.2 {
            PathMatch::Exact(path) => Some(path),
            PathMatch::Below(_) => None,
        }
    }

    /// The peer and port that a connection's server has.
    fn server(&self) -> Option<(Option<IpAddr>, Option<u16>)> {
        let ip = |peer: &PeerMatch| match peer {
            PeerMatch::Ip(ip) => Some(*ip),
            PeerMatch::Any => None,
        };
        match &self.known.object {
            KnownObject::Connect { peer, port, .. } | KnownObject::Datagram { peer, port } => {
                Some((ip(peer), Some(*port)))
            }
            KnownObject::Accept { port, .. } => Some((None, Some(*port))),
            _ => None,
        }
    }
}

/// What the kind of an entry's events is called; empty: no rule is about it.
pub fn family_of(object: &KnownObject) -> super::kinds::Family {
    use super::kinds;
    match object {
        KnownObject::File { op, .. } => kinds::file_family(*op, None, is_by_argument(*op)),
        KnownObject::Library { .. } => kinds::named("mmap"),
        KnownObject::Connect { .. } => kinds::named("connect"),
        KnownObject::Accept { .. } => kinds::named("accept4"),
        KnownObject::Datagram { .. } => kinds::named("sendto"),
        KnownObject::Syscall { .. } => &[],
    }
}

/// Whether the call names its file and does not open it.
pub fn is_by_argument(op: FileOp) -> bool {
    !matches!(
        op,
        FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List
    )
}

impl EventView for Entries<'_> {
    fn kind(&self) -> EventKind {
        self.kind
    }

    fn field<'v>(&'v self, field: &FieldRef) -> Value<'v> {
        use Field as F;
        let opens =
            |op| !is_by_argument(op) && !matches!(self.known.object, KnownObject::Library { .. });
        match field.field {
            F::EvtSource => Value::Text(b"syscall"),
            F::EvtIsAsync => Value::Bool(false),
            F::ProcExepath => Value::Text(self.known.program.as_bytes()),
            F::ProcName if self.known.entry != Entry::Host => {
                match name_of_program(self.known.program.as_bytes()) {
                    Some(name) if self.known.script.is_empty() => Value::Text(name),
                    _ => Value::Unknown,
                }
            }
            F::UserUid => Value::UInt(self.known.uid.into()),
            F::UserName if self.known.uid == 0 => Value::Text(b"root"),
            F::UserName => Value::Unknown,
            F::EvtIsOpenRead => match self.file() {
                Some((op @ (FileOp::Write | FileOp::Create), ..)) if opens(op) => Value::Unknown,
                Some((op, ..)) => Value::Bool(opens(op)),
                None => Value::Bool(false),
            },
            F::EvtIsOpenExec => match self.file() {
                Some((op @ (FileOp::Write | FileOp::Create), ..)) if opens(op) => Value::Unknown,
                _ => Value::Bool(false),
            },
            F::EvtIsOpenWrite => match self.file() {
                Some((op, ..)) => {
                    Value::Bool(opens(op) && matches!(op, FileOp::Write | FileOp::Create))
                }
                None => Value::Bool(false),
            },
            f if f.name().starts_with("fd.") => self.descriptor(f),
            _ => Value::Unknown,
        }
    }

    fn beginning<'v>(&'v self, field: &FieldRef) -> Option<&'v [u8]> {
        match (field.field, self.below.split_last()) {
            (Field::FdName, Some(_)) => Some(&self.below),
            (Field::FdDirectory, Some((_, dir))) if !dir.is_empty() => Some(dir),
            _ => None,
        }
    }
}

impl Entries<'_> {
    fn descriptor(&self, field: Field) -> Value<'_> {
        use Field as F;
        if let Some((op, origin, _)) = self.file() {
            if is_by_argument(op) && !matches!(op, FileOp::Chmod | FileOp::Chown) {
                return Value::Absent;
            }
            let path = self.exact().map(Text::as_bytes);
            let slash = path.and_then(|p| p.iter().rposition(|b| *b == b'/'));
            return match (field, path, slash) {
                // how a program writes it is not in the key: the kernel asks for it where it matters
                (F::FdNameraw, ..) => Value::Unknown,
                (F::FdName, Some(path), _) => Value::Text(path),
                (F::FdFilename, Some(path), Some(at)) => Value::Text(&path[at + 1..]),
                (F::FdDirectory, Some(path), Some(at)) => Value::Text(&path[..at.max(1)]),
                (F::FdIsUpperLayer, ..) => Value::Bool(origin == Origin::Upper),
                (F::FdIsLowerLayer, ..) => Value::Bool(origin == Origin::Image),
                (F::FdSip | F::FdCip | F::FdRip | F::FdLip | F::FdIp | F::FdNet, ..) => {
                    Value::Absent
                }
                (F::FdL4proto, ..) => Value::Absent,
                _ => Value::Unknown,
            };
        }
        let Some((ip, port)) = self.server() else {
            return Value::Unknown;
        };
        let inbound = matches!(self.known.object, KnownObject::Accept { .. });
        let some_ip = ip.map_or(Value::Unknown, Value::Ip);
        let some_port = port.map_or(Value::Unknown, |p| Value::UInt(p.into()));
        match field {
            F::FdSip | F::FdRip | F::FdSnet | F::FdRnet if !inbound => some_ip,
            F::FdSport => some_port,
            F::FdRport if !inbound => some_port,
            F::FdLport if inbound => some_port,
            F::FdIsServer => Value::Bool(inbound),
            F::FdL4proto => match &self.known.object {
                KnownObject::Connect { proto, .. } | KnownObject::Accept { proto, .. } => {
                    Value::Text(proto.as_str().as_bytes())
                }
                _ => Value::Text(b"udp"),
            },
            _ => Value::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Engine;
    use crate::rules::files::{RuleText, load_texts, options};
    use plimsoll_model::Proto;
    use plimsoll_rules::MatchMode;
    use std::sync::Arc;

    fn engine(condition: &str) -> Engine {
        let text = format!(
            "- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: NOTICE\n"
        );
        let name = "r.yaml".to_owned();
        let loaded = load_texts(&[RuleText { name, text }], &options(MatchMode::All, &[])).unwrap();
        let mut engine = Engine::default();
        engine.replace(Arc::new(loaded));
        engine
    }

    fn known(program: &str, object: KnownObject) -> Known {
        Known {
            program: program.into(),
            script: "".into(),
            entry: Entry::Init,
            uid: 33,
            object,
            index: 0,
        }
    }

    fn file(program: &str, op: FileOp, path: PathMatch) -> Known {
        let origin = Origin::Image;
        known(program, KnownObject::File { op, origin, path })
    }

    const READS: &str = "evt.type in (open, openat, openat2) and evt.is_open_read = true \
                         and fd.name startswith /etc/ssh and not proc.name in (sshd) \
                         and proc.aname[2] != bash";

    #[test]
    fn what_may_fire_is_not_left_to_the_dictionary_and_the_rest_is() {
        let mut engine = engine(READS);
        let exact = |p: &str| PathMatch::Exact(p.into());
        let below = |p: &str| PathMatch::Below(p.into());
        let cat = "/usr/bin/cat";
        assert!(engine.could_fire(&file(cat, FileOp::Read, exact("/etc/ssh/ssh_config"))));
        assert!(engine.could_fire(&file(cat, FileOp::Read, below("/etc"))));
        assert!(!engine.could_fire(&file(cat, FileOp::Read, exact("/etc/passwd"))));
        assert!(!engine.could_fire(&file(cat, FileOp::Read, below("/var/www"))));
        assert!(!engine.could_fire(&file("/usr/sbin/sshd", FileOp::Read, below("/etc"))));
        assert!(!engine.could_fire(&file(cat, FileOp::List, exact("/proc/self"))));
        let multi = "/bin/busybox";
        assert!(engine.could_fire(&file(multi, FileOp::Read, exact("/etc/ssh/x"))));
        // opened for writing may be opened for both
        assert!(engine.could_fire(&file(cat, FileOp::Write, exact("/etc/ssh/x"))));
    }

    #[test]
    fn connections_are_known_by_their_server() {
        let mut engine =
            engine("evt.type = connect and fd.sport = 4444 and fd.snet = \"10.0.0.0/8\"");
        let connect = |ip: [u8; 4], port| {
            let peer = PeerMatch::Ip(ip.into());
            let proto = Proto::Tcp;
            known("/usr/bin/curl", KnownObject::Connect { proto, peer, port })
        };
        assert!(engine.could_fire(&connect([10, 1, 1, 1], 4444)));
        assert!(!engine.could_fire(&connect([10, 1, 1, 1], 443)));
        assert!(!engine.could_fire(&connect([8, 8, 8, 8], 4444)));
    }

    #[test]
    fn our_own_rules_leave_what_a_service_reads_and_asks_to_the_dictionary() {
        let sources = crate::rules::RuleSources {
            paths: Vec::new(),
            ..Default::default()
        };
        let texts = sources.read().unwrap();
        let loaded = load_texts(&texts, &options(MatchMode::All, &[])).unwrap();
        let mut engine = Engine::default();
        engine.replace(Arc::new(loaded));
        let reads =
            |program: &str, dir: &str| file(program, FileOp::Read, PathMatch::Below(dir.into()));
        let connect = |program: &str, port| {
            let peer = PeerMatch::Any;
            let proto = Proto::Tcp;
            known(program, KnownObject::Connect { proto, peer, port })
        };
        assert!(!engine.could_fire(&reads("/usr/sbin/nginx", "/usr/share/nginx/html")));
        assert!(!engine.could_fire(&reads(
            "/usr/lib/postgresql/bin/postgres",
            "/var/lib/postgresql"
        )));
        assert!(!engine.could_fire(&reads("/usr/bin/python3", "/srv/app")));
        assert!(!engine.could_fire(&connect("/usr/bin/python3", 5432)));
        // and what is about something stays with the rules
        assert!(engine.could_fire(&reads("/usr/bin/cat", "/root")));
        assert!(engine.could_fire(&reads("/usr/bin/python3", "/proc")));
        assert!(engine.could_fire(&connect("/usr/bin/python3", 2375)));
    }

    #[test]
    fn a_rule_for_other_calls_leaves_the_dictionary_alone() {
        let mut engine = engine("evt.type = execve and proc.name = sh");
        let read = file("/bin/cat", FileOp::Read, PathMatch::Below("/".into()));
        assert!(!engine.could_fire(&read));
    }
}
