//! Coding: an observation becomes the stable, instance-independent behaviours that it shows.
//!
//! Promises: total (any bytes give a behaviour or none, never a panic), bounded (objects are cut at
//! [`MAX_OBJECT`] bytes with the cut marked), and free of what changes from run to run: process
//! numbers, ephemeral peer ports, container addresses, temporary names.
//!
//! How a process came in is coded as [`Entry::Init`] when it was found running, because the same
//! service must not turn strange when the agent restarts.
//!
//! Left out on purpose: exits and forks (lifecycle, no behaviour), DNS answers (they name peers),
//! and pipes or terminals on standard streams (every shell has them).

use crate::names;
use crate::paths::normalise;
use crate::peers::PeerNames;
use plimsoll_model::event::{
    Connection, Dns, DupTarget, Exec, FileEvent, MountCall, NamespaceCall,
};
use plimsoll_model::{
    Behaviour, BehaviourKind, Container, Entry, EventKind, FileOp, Observation, Operation, Origin,
    Proto, SockAddr, Text,
};
use std::net::IpAddr;

/// Longest object of a behaviour, bytes.
pub const MAX_OBJECT: usize = 1024;
/// First port that clients are given by default on Linux (`ip_local_port_range`).
pub const EPHEMERAL_FROM: u16 = 32_768;

/// What an observation shows of its container: none, one, or two (exec) behaviours.
pub fn behaviours(
    obs: &Observation,
    container: &Container,
    names: &dyn PeerNames,
) -> Vec<Behaviour> {
    let coder = Coder {
        obs,
        container,
        names,
    };
    coder.code()
}

struct Coder<'a> {
    obs: &'a Observation,
    container: &'a Container,
    names: &'a dyn PeerNames,
}

impl Coder<'_> {
    fn code(&self) -> Vec<Behaviour> {
        use BehaviourKind as B;
        let one = |kind, op: &str, object: Vec<u8>| vec![self.make(kind, op, object)];
        match &self.obs.event.kind {
            EventKind::Exec(exec) => self.exec(exec),
            EventKind::Exit { .. } | EventKind::Fork { .. } => Vec::new(),
            EventKind::File(file) => vec![self.file(file)],
            EventKind::Library { path, origin } => {
                let mut b = self.make(B::Library, "map", normalise(path.as_bytes()).into_owned());
                b.origin = *origin;
                vec![b]
            }
            EventKind::Socket {
                family,
                kind,
                protocol,
            } => one(B::Socket, "open", socket(*family, *kind, *protocol)),
            EventKind::Connect(c) => one(B::Connect, "connect", self.outbound(c)),
            EventKind::Accept(c) => one(B::Accept, "accept", self.inbound(c)),
            EventKind::Datagram(c) => one(B::Datagram, "send", self.outbound(c)),
            EventKind::Listen { proto, local } => {
                one(B::Listen, "listen", local_end(*proto, local))
            }
            EventKind::Bind { proto, local } => one(B::Bind, "bind", local_end(*proto, local)),
            EventKind::Dns(dns) => self.dns(dns),
            EventKind::Dup { stream, target, .. } => self.dup(*stream, *target),
            EventKind::Namespace { call, flags } => one(
                B::Namespace,
                namespace_call(*call),
                names::namespace_names(*flags).into_bytes(),
            ),
            EventKind::Mount {
                call,
                source,
                target,
                fstype,
                ..
            } => one(B::Mount, mount_call(*call), mount(source, target, fstype)),
            EventKind::Ptrace { request, .. } => one(
                B::Ptrace,
                "trace",
                names::ptrace_name(*request).into_bytes(),
            ),
            EventKind::Module { name } => {
                one(B::Module, "load", normalise(name.as_bytes()).into_owned())
            }
            EventKind::Bpf { command } => {
                one(B::Bpf, "bpf", names::bpf_name(*command).into_bytes())
            }
            EventKind::Credentials {
                old_uid,
                new_uid,
                old_caps,
                new_caps,
            } => self.credentials((*old_uid, *new_uid), (*old_caps, *new_caps)),
            EventKind::Syscall { nr, compat: false } => {
                one(B::Syscall, "call", names::native_syscall(*nr).into_bytes())
            }
            EventKind::Syscall { nr, compat: true } => {
                one(B::Syscall, "call", format!("32-bit {nr}").into_bytes())
            }
            EventKind::Memfd { name } => one(B::Memfd, "create", memfd_name(name.as_bytes())),
            EventKind::CgroupMkdir { path, .. } => one(B::Cgroup, "mkdir", cgroup(path)),
            EventKind::CgroupAttach { path, .. } => one(B::Cgroup, "attach", cgroup(path)),
            EventKind::CgroupRmdir { .. } => Vec::new(),
            EventKind::Rare { nr, result, .. } => {
                let failed: &[u8] = if *result < 0 { b"failed" } else { b"done" };
                one(B::Rare, &names::native_syscall(*nr), failed.to_vec())
            }
            EventKind::Signal { signal, target } => {
                one(B::Signal, "send", signal_to(*signal, *target))
            }
        }
    }

    /// A behaviour of the acting program.
    fn make(&self, kind: BehaviourKind, op: &str, object: Vec<u8>) -> Behaviour {
        let actor = self.obs.lineage.first();
        Behaviour {
            kind,
            program: actor.map_or_else(|| self.comm(), |a| program_path(&a.exe)),
            script: actor.map_or_else(Text::default, |a| bounded(a.script.as_bytes().to_vec())),
            entry: entry(self.obs.event.process.entry),
            uid: self.obs.event.process.uid,
            operation: Operation::from(op),
            object: bounded(object),
            origin: Origin::Unknown,
        }
    }

    /// Without lineage the short name is all there is.
    fn comm(&self) -> Text {
        let comm = self.obs.event.process.comm.as_bytes();
        bounded([b"?".as_slice(), comm].concat())
    }

    fn exec(&self, exec: &Exec) -> Vec<Behaviour> {
        let mut run = self.make(BehaviourKind::Exec, "run", exec_object(exec));
        (run.program, run.script) = self.executing_program(exec);
        run.origin = exec.origin;
        let called = crate::programs::applet(exec.exe.as_bytes(), &exec.argv);
        let shape = crate::shape::shape(called, &exec.argv);
        let mut arguments = self.make(BehaviourKind::Arguments, "shape", shape.into_bytes());
        arguments.program = program_path(&exec.exe);
        arguments.script = bounded(exec.script.as_bytes().to_vec());
        vec![run, arguments]
    }

    /// Who executed: nobody for the first program of the container or of an exec session, where
    /// the parent is the runtime, whose path says nothing about the workload.
    fn executing_program(&self, exec: &Exec) -> (Text, Text) {
        let Some(parent) = self.obs.parent() else {
            return Default::default();
        };
        if exec.first || is_outside(parent, self.obs.event.process.entry) {
            return Default::default();
        }
        (
            program_path(&parent.exe),
            bounded(parent.script.as_bytes().to_vec()),
        )
    }

    fn file(&self, file: &FileEvent) -> Behaviour {
        let path = normalise(file.path.as_bytes());
        let object = match file.op {
            FileOp::Rename | FileOp::Link | FileOp::Symlink => {
                [&*path, b" -> ", &*normalise(file.target.as_bytes())].concat()
            }
            _ => path.into_owned(),
        };
        let op = if file.result < 0 {
            FileOp::Failed
        } else {
            file.op
        };
        let mut b = self.make(BehaviourKind::File, op.as_str(), object);
        b.origin = file.origin;
        b
    }

    fn outbound(&self, c: &Connection) -> Vec<u8> {
        match &c.peer {
            SockAddr::Unix(path) => unix(path),
            SockAddr::Inet(ip, port) => {
                format!("{} {}", proto(c.proto), self.host_port(*ip, *port)).into_bytes()
            }
        }
    }

    fn inbound(&self, c: &Connection) -> Vec<u8> {
        let port = match &c.local {
            Some(SockAddr::Inet(_, port)) => port.to_string(),
            Some(SockAddr::Unix(path)) => return unix(path),
            None => "?".to_owned(),
        };
        let from = match &c.peer {
            SockAddr::Unix(path) => return unix(path),
            SockAddr::Inet(ip, _) => self.host(*ip),
        };
        format!("{} :{port} from {from}", proto(c.proto)).into_bytes()
    }

    /// Service, else resolved name, else address; loopback is one peer whatever its number.
    fn host(&self, ip: IpAddr) -> String {
        if ip.is_loopback() {
            return "loopback".to_owned();
        }
        if let Some(service) = self.names.service(ip) {
            return format!("service:{}", name_word(service));
        }
        match self.names.dns(&self.container.instance, ip) {
            Some(name) => format!("dns:{}", name_word(name)),
            None => ip.to_string(),
        }
    }

    fn host_port(&self, ip: IpAddr, port: u16) -> String {
        let host = self.host(ip);
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            return format!("[{host}]:{port}");
        }
        format!("{host}:{port}")
    }

    fn dns(&self, dns: &Dns) -> Vec<Behaviour> {
        if dns.response || dns.name.is_empty() {
            return Vec::new();
        }
        let name = dns_name(&dns.name).into_bytes();
        vec![self.make(BehaviourKind::Dns, "ask", name)]
    }

    fn dup(&self, stream: u32, target: DupTarget) -> Vec<Behaviour> {
        let what = match target {
            DupTarget::Inet => "network socket",
            DupTarget::Unix => "unix socket",
            DupTarget::Pipe | DupTarget::Tty | DupTarget::Other => return Vec::new(),
        };
        let stream = ["stdin", "stdout", "stderr"]
            .get(stream as usize)
            .copied()
            .unwrap_or("stream");
        let object = format!("{stream} on {what}").into_bytes();
        vec![self.make(BehaviourKind::Dup, "dup", object)]
    }

    fn credentials(&self, uid: (u32, u32), caps: (u64, u64)) -> Vec<Behaviour> {
        let mut out = Vec::new();
        if uid.0 != uid.1 {
            let object = format!("uid {} -> {}", uid.0, uid.1).into_bytes();
            out.push(self.make(BehaviourKind::Credentials, "setuid", object));
        }
        let gained = caps.1 & !caps.0;
        if gained != 0 {
            let object = names::capability_names(gained).into_bytes();
            out.push(self.make(BehaviourKind::Credentials, "capability", object));
        }
        out
    }
}

/// How an actor came in, for a behaviour (see the header).
pub(crate) fn entry(entry: Entry) -> Entry {
    match entry {
        Entry::FoundRunning => Entry::Init,
        Entry::Init | Entry::ExecSession | Entry::Host => entry,
    }
}

/// Whether a parent belongs to the runtime or to the host rather than to the container.
pub(crate) fn is_outside(parent: &plimsoll_model::Ancestor, actor: Entry) -> bool {
    let came_in = matches!(actor, Entry::ExecSession | Entry::Host);
    let other = || entry(parent.entry) != entry(actor);
    let runtime = || crate::programs::is_runtime(parent.exe.as_bytes());
    (came_in && (other() || runtime())) || parent.exe.is_empty()
}

/// A program's path: as it is, but for process numbers.
pub(crate) fn program_path(exe: &Text) -> Text {
    if exe.as_bytes().starts_with(b"/proc/") {
        return bounded(normalise(exe.as_bytes()).into_owned());
    }
    bounded(exe.as_bytes().to_vec())
}

/// Program and script of an exec. A space in the program's name is written `\x20`, so that the two
/// never run into each other.
///
/// A multi-call program is coded with the name it was called by: knowing `busybox cat` must not
/// make `busybox nc` known.
fn exec_object(exec: &Exec) -> Vec<u8> {
    let path = program_path(&exec.exe);
    let called = crate::programs::applet(exec.exe.as_bytes(), &exec.argv);
    if called != exec.exe.as_bytes() && exec.script.is_empty() {
        let name = crate::programs::name_of(called).as_bytes();
        return [path.as_bytes(), b" ", name].concat();
    }
    if exec.script.is_empty() && !path.as_bytes().contains(&b' ') {
        return path.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(path.len() + exec.script.len() + 1);
    for &b in path.as_bytes() {
        match b {
            b' ' => out.extend_from_slice(b"\\x20"),
            b => out.push(b),
        }
    }
    if !exec.script.is_empty() {
        out.push(b' ');
        out.extend_from_slice(exec.script.as_bytes());
    }
    out
}

/// Cut at the bound, with a mark and a hash of the whole, so that different long objects differ.
fn bounded(mut bytes: Vec<u8>) -> Text {
    use sha2::Digest as _;
    if bytes.len() > MAX_OBJECT {
        let hash = sha2::Sha256::digest(&bytes);
        let tail: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        bytes.truncate(MAX_OBJECT - 24);
        bytes.extend_from_slice(format!("<cut {tail}>").as_bytes());
    }
    Text::new(bytes)
}

fn proto(proto: Proto) -> &'static str {
    proto.as_str()
}

/// A name from outside as one bounded word.
fn name_word(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace() && !c.is_control())
        .take(253)
        .collect()
}

/// A DNS name as one lower-case word without the final dot.
pub(crate) fn dns_name(name: &Text) -> String {
    let lower = name.to_str_lossy().to_ascii_lowercase();
    name_word(lower.trim_end_matches('.'))
}

fn unix(path: &Text) -> Vec<u8> {
    if path.is_empty() {
        return b"unix unnamed".to_vec();
    }
    if path.as_bytes().starts_with(b"@") {
        return [b"unix ", &*digits_named(path.as_bytes())].concat();
    }
    [b"unix ", &*normalise(path.as_bytes())].concat()
}

/// Runs of digits become `<n>`.
fn digits_named(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut in_number = false;
    for &b in name {
        if !b.is_ascii_digit() {
            out.push(b);
        } else if !in_number {
            out.extend_from_slice(b"<n>");
        }
        in_number = b.is_ascii_digit();
    }
    out
}

fn memfd_name(name: &[u8]) -> Vec<u8> {
    if name.is_empty() {
        return b"unnamed".to_vec();
    }
    digits_named(name)
}

fn local_end(proto: Proto, local: &SockAddr) -> Vec<u8> {
    match local {
        SockAddr::Unix(path) => unix(path),
        SockAddr::Inet(ip, port) => {
            let scope = match ip {
                ip if ip.is_unspecified() => "any",
                ip if ip.is_loopback() => "loopback",
                ip if ip.is_multicast() => "multicast",
                // the container's own address differs between instances
                _ => "own",
            };
            format!("{} {scope}:{port}", proto.as_str()).into_bytes()
        }
    }
}

fn socket(family: u16, kind: u16, protocol: u16) -> Vec<u8> {
    let family = names::family_name(family);
    let kind = names::socket_kind_name(kind);
    format!("{family} {kind} {protocol}").into_bytes()
}

fn namespace_call(call: NamespaceCall) -> &'static str {
    match call {
        NamespaceCall::Setns => "setns",
        NamespaceCall::Unshare => "unshare",
        NamespaceCall::Clone => "clone",
    }
}

fn mount_call(call: MountCall) -> &'static str {
    match call {
        MountCall::Mount => "mount",
        MountCall::Umount => "umount",
        MountCall::PivotRoot => "pivot_root",
        MountCall::Chroot => "chroot",
        MountCall::MoveMount => "move_mount",
    }
}

fn mount(source: &Text, target: &Text, fstype: &Text) -> Vec<u8> {
    let source = normalise(source.as_bytes());
    let target = normalise(target.as_bytes());
    [fstype.as_bytes(), b" ", &*source, b" -> ", &*target].concat()
}

fn signal_to(signal: u32, target: i32) -> Vec<u8> {
    let to = match target {
        1 => "init",
        t if t > 0 => "a process",
        0 => "its group",
        -1 => "everybody",
        _ => "a group",
    };
    format!("{} to {to}", names::signal_name(signal)).into_bytes()
}

/// Container ids and numbers in cgroup paths differ between instances.
fn cgroup(path: &Text) -> Vec<u8> {
    let parts = path.as_bytes().split(|&b| b == b'/');
    let named: Vec<Vec<u8>> = parts
        .map(|p| {
            let core = p.rsplit(|&b| b == b'-').next().unwrap_or(p);
            let core = core.strip_suffix(b".scope").unwrap_or(core);
            if core.len() >= 32 && core.iter().all(u8::is_ascii_hexdigit) {
                b"<id>".to_vec()
            } else {
                digits_named(p)
            }
        })
        .collect();
    named.join(&b'/')
}
