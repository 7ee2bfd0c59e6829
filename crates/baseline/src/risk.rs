//! What kind of step a new behaviour is, and how bad that can be.
//!
//! Promises: pure and total; every class carries a sentence that a tired person understands and
//! only techniques that stand in ATT&CK's matrix for containers; what may be an attack in itself
//! ([`Class::quarantine`]) is never learned silently, whatever the state of the baseline.
//!
//! Left out on purpose: priorities (see [`crate::alert`]), rules, and anything that needs more than
//! one observation.

use crate::baseline::{Baseline, State};
use crate::paths::{Sensitive, changes, is_program_dir, sensitive};
use crate::programs;
use plimsoll_model::event::{DupTarget, Exec, FileEvent};
use plimsoll_model::{
    Behaviour, BehaviourKind, Container, DriftClass, Entry, EventKind, FileOp, Observation, Origin, Risk, SockAddr,
};
use std::net::{IpAddr, Ipv4Addr};

/// What a behaviour is judged against.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The container it happened in.
    pub container: &'a Container,
    /// The baseline in force, if there is one.
    pub baseline: Option<&'a Baseline>,
}

impl Context<'_> {
    /// Whether ordinary new behaviour is still learned.
    pub fn learning(&self) -> bool {
        self.baseline.is_none_or(|b| b.state() == State::Learning)
    }
}

/// The verdict of [`classify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Kind of step.
    pub class: DriftClass,
    /// How bad it can be.
    pub risk: Risk,
    /// Why, in a sentence.
    pub reason: String,
    /// ATT&CK techniques (matrix for containers).
    pub techniques: &'static [&'static str],
    /// Kept apart for a person while learning, and alerted at once.
    pub quarantine: bool,
}

fn class(class: DriftClass, risk: Risk, reason: impl Into<String>, techniques: &'static [&'static str]) -> Class {
    Class { class, risk, reason: reason.into(), techniques, quarantine: risk >= Risk::High }
}

/// Addresses that hand out a machine's credentials (AWS, GCP, Azure, DigitalOcean: 169.254.169.254;
/// ECS tasks: 169.254.170.2; Alibaba: 100.100.100.200; AWS over IPv6: fd00:ec2::254).
pub fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4 == Ipv4Addr::new(169, 254, 169, 254)
                || v4 == Ipv4Addr::new(169, 254, 170, 2)
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
        }
        IpAddr::V6(v6) => v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// Grades one behaviour of an observation.
pub fn classify(obs: &Observation, b: &Behaviour, context: &Context<'_>) -> Class {
    if obs.event.tampered {
        return class(
            DriftClass::ArgumentRace,
            Risk::High,
            "the arguments changed while the kernel read them: somebody tries to hide what is done",
            &["T1562"],
        );
    }
    match (&obs.event.kind, b.kind) {
        (EventKind::Exec(exec), BehaviourKind::Exec) => of_exec(obs, exec, b, context),
        (EventKind::Exec(exec), BehaviourKind::Arguments) => of_arguments(exec),
        (EventKind::File(file), _) => of_file(obs, file, b),
        (EventKind::Library { path, origin }, _) => of_library(path.as_bytes(), *origin),
        (EventKind::Connect(c), _) => of_peer(&c.peer, true),
        (EventKind::Datagram(c), _) => of_peer(&c.peer, false),
        (EventKind::Accept(_), _) => {
            class(DriftClass::NewInboundPeer, Risk::Low, "a peer that never connected here before", &[])
        }
        (EventKind::Listen { .. } | EventKind::Bind { .. }, _) => class(
            DriftClass::NewListeningPort,
            Risk::Medium,
            "a port that this image never listened on: a new service, or a way back in",
            &["T1133"],
        ),
        (EventKind::Dns(_), _) => {
            class(DriftClass::NewDnsName, Risk::Low, "a name that was never asked for before", &[])
        }
        (EventKind::Socket { .. }, _) => of_socket(b),
        (EventKind::Dup { target, .. }, _) => of_dup(obs, *target),
        (EventKind::Namespace { .. }, _) => class(
            DriftClass::NamespaceChange,
            Risk::High,
            "a namespace was entered or made: the first step of most escapes, and rarely needed by a service",
            &["T1611"],
        ),
        (EventKind::Mount { .. }, _) => class(
            DriftClass::MountChange,
            Risk::High,
            "mounts were changed inside the container: the way to the host's files",
            &["T1611"],
        ),
        (EventKind::Ptrace { .. }, _) => class(
            DriftClass::ProcessTampering,
            Risk::High,
            "another process is being traced or its memory written: code injection or theft of secrets",
            &["T1068"],
        ),
        (EventKind::Module { .. }, _) => class(
            DriftClass::KernelModule,
            Risk::Critical,
            "a container tries to load or remove a kernel module: full control of the host",
            &["T1611"],
        ),
        (EventKind::Bpf { .. }, _) => class(
            DriftClass::BpfUse,
            Risk::High,
            "a container uses bpf: it can watch or change the whole host",
            &["T1611", "T1562"],
        ),
        (EventKind::Credentials { new_uid, old_uid, .. }, _) => of_credentials(b, *old_uid, *new_uid),
        (EventKind::Syscall { .. }, _) => {
            class(DriftClass::NewSyscall, Risk::Low, "a system call that this program never used", &[])
        }
        (EventKind::Memfd { .. }, _) => class(
            DriftClass::MemoryFile,
            Risk::Medium,
            "a file in memory was made: harmless in many runtimes, and the first half of running a program without a file",
            &["T1036"],
        ),
        (EventKind::CgroupAttach { .. }, _) => class(
            DriftClass::CgroupEscape,
            Risk::Critical,
            "a process moved itself out of its container's cgroup: out of its limits and out of most tools' sight",
            &["T1611"],
        ),
        (EventKind::Signal { .. }, _) => {
            class(DriftClass::RareCall, Risk::Low, "a signal that was never sent before", &[])
        }
        (EventKind::Rare { .. }, _) => class(
            DriftClass::RareCall,
            Risk::Medium,
            "a system call that services hardly ever need and attacks often do",
            &["T1068"],
        ),
        _ => class(DriftClass::RareCall, Risk::Low, "new behaviour", &[]),
    }
}

fn of_exec(obs: &Observation, exec: &Exec, b: &Behaviour, context: &Context<'_>) -> Class {
    let exe = exec.exe.as_bytes();
    let parent = (b.program.as_bytes(), b.script.as_bytes());
    let named = programs::name_of(exe);
    if programs::is_miner(exe) {
        return class(DriftClass::NewProgram, Risk::Critical, format!("{named} is a cryptocurrency miner"), &["T1496.001"]);
    }
    if exec.origin == Origin::Memfd || exec.deleted {
        return class(
            DriftClass::FilelessProgram,
            Risk::Critical,
            "a program ran from memory or from a file that was already deleted: made to leave nothing behind",
            &["T1036", "T1070"],
        );
    }
    if is_shell_under_server(exec, parent, context) {
        return class(
            DriftClass::ShellUnderServer,
            Risk::Critical,
            format!("{} started a shell: what a server does when somebody makes it run commands", programs::name_of(parent.0)),
            &["T1190", "T1059.013"],
        );
    }
    if exec.origin.is_writable() {
        return from_writable(exec, named);
    }
    if programs::is_offensive_tool(exe) {
        return class(DriftClass::NewProgram, Risk::High, format!("{named} is a tool of attackers"), &["T1046"]);
    }
    if matches!(obs.event.process.entry, Entry::ExecSession | Entry::Host) && parent.0.is_empty() {
        return Class {
            // a person at work is worth a look and never part of what an image does
            quarantine: true,
            ..class(
                DriftClass::InteractiveEntry,
                Risk::Medium,
                if exec.tty == 0 {
                    "somebody (or a probe) ran a command in the container from outside"
                } else {
                    "somebody opened a terminal in the container from outside"
                },
                &["T1609"],
            )
        };
    }
    if context.baseline.is_some_and(|base| knows_program(base, b)) {
        return class(
            DriftClass::NewParentage,
            Risk::Medium,
            format!("{named} is known here, but was never started by {}", parent_name(parent.0)),
            &[],
        );
    }
    class(DriftClass::NewProgram, Risk::Medium, format!("{named} is part of the image but never ran before"), &[])
}

fn parent_name(parent: &[u8]) -> &str {
    match programs::name_of(parent) {
        "" => "the runtime",
        name => name,
    }
}

fn knows_program(base: &Baseline, b: &Behaviour) -> bool {
    base.expected().any(|(_, e)| e.behaviour.kind == BehaviourKind::Exec && e.behaviour.object == b.object)
}

/// A shell is under a server when its parent is a server by name, or listens in the baseline; a
/// pair that the baseline knows is the service's own doing.
fn is_shell_under_server(exec: &Exec, parent: (&[u8], &[u8]), context: &Context<'_>) -> bool {
    if parent.0.is_empty() || exec.first {
        return false;
    }
    let acting = exec.argv.first().map_or(&[][..], |a| a.as_bytes());
    let shell = programs::is_shell(exec.exe.as_bytes())
        || (programs::name_of(exec.exe.as_bytes()) == "busybox" && programs::is_shell(acting));
    let listens = || context.baseline.is_some_and(|b| b.is_listener(&parent.0.into()));
    shell && !programs::is_shell(parent.0) && (programs::is_server(parent.0, parent.1) || listens())
}

fn from_writable(exec: &Exec, named: &str) -> Class {
    let temporary = [&b"/tmp/"[..], b"/var/tmp/", b"/dev/shm/", b"/run/"].iter().any(|d| exec.exe.as_bytes().starts_with(d));
    let hidden = exec.exe.basename().as_bytes().starts_with(b".");
    let risk = if temporary || hidden || exec.origin == Origin::Foreign { Risk::Critical } else { Risk::High };
    class(
        DriftClass::ProgramFromWritable,
        risk,
        format!("{named} is not part of the image: it came into the container after it was created ({})", place(exec.origin)),
        &["T1036", "T1204"],
    )
}

fn place(origin: Origin) -> &'static str {
    match origin {
        Origin::Upper => "writable layer",
        Origin::Volume => "volume or bind mount",
        Origin::Tmpfs => "tmpfs",
        Origin::Foreign => "another mount namespace",
        _ => "memory",
    }
}

fn of_arguments(exec: &Exec) -> Class {
    class(
        DriftClass::NewArguments,
        Risk::Low,
        format!("{} was never given arguments of this shape", programs::name_of(exec.exe.as_bytes())),
        &[],
    )
}

fn of_file(obs: &Observation, file: &FileEvent, b: &Behaviour) -> Class {
    let path = match file.op {
        FileOp::Rename | FileOp::Link | FileOp::Symlink if sensitive(file.target.as_bytes()).is_some() => {
            file.target.as_bytes()
        }
        _ => file.path.as_bytes(),
    };
    let changed = changes(file.op) && file.result >= 0;
    if let Some(found) = sensitive(path).and_then(|s| of_sensitive(obs, file, b, s, changed)) {
        return found;
    }
    if file.op == FileOp::Chmod && file.result >= 0 {
        if let Some(found) = of_mode(file) {
            return found;
        }
    }
    match file.op {
        FileOp::Read | FileOp::List => class(DriftClass::NewFileRead, Risk::Low, "a file that this program never read", &[]),
        FileOp::Failed => class(DriftClass::NewFileRead, Risk::Low, "access to a file was denied", &[]),
        FileOp::Unlink | FileOp::Rmdir | FileOp::Rename => {
            class(DriftClass::FileRemoved, Risk::Low, "a file that was never removed or renamed before", &[])
        }
        _ => class(DriftClass::NewFileWrite, Risk::Low, "a file that this program never wrote", &[]),
    }
}

fn of_mode(file: &FileEvent) -> Option<Class> {
    if file.flags & 0o6000 != 0 {
        return Some(class(
            DriftClass::MadeExecutable,
            Risk::High,
            "a file was made set-uid or set-gid: whoever runs it gets its owner's rights",
            &["T1068"],
        ));
    }
    let executable = file.flags & 0o111 != 0 && !file.path.as_bytes().ends_with(b"/");
    executable.then(|| class(DriftClass::MadeExecutable, Risk::Medium, "a file was made executable", &["T1036"]))
}

fn of_sensitive(obs: &Observation, file: &FileEvent, b: &Behaviour, kind: Sensitive, changed: bool) -> Option<Class> {
    let reader = b.program.as_bytes();
    Some(match kind {
        Sensitive::Credential if changed => class(
            DriftClass::PersistenceWrite,
            Risk::High,
            "credentials were changed: a way to come back, or to lock others out",
            &["T1098"],
        ),
        Sensitive::Credential if programs::is_credential_reader(reader) => Class {
            quarantine: false,
            ..class(DriftClass::SensitiveFileRead, Risk::Low, "credentials were read by a program whose task that is", &[])
        },
        Sensitive::Credential => class(
            DriftClass::SensitiveFileRead,
            Risk::High,
            format!("{} read credentials", programs::name_of(reader)),
            &["T1552.001"],
        ),
        Sensitive::OwnSecret => Class {
            quarantine: obs.event.process.entry != Entry::Init || programs::is_read_tool(reader) || programs::is_shell(reader),
            ..class(
                DriftClass::SensitiveFileRead,
                if programs::is_read_tool(reader) || programs::is_shell(reader) { Risk::High } else { Risk::Medium },
                format!("{} used a secret that was mounted for this container", programs::name_of(reader)),
                &["T1552.007", "T1528"],
            )
        },
        Sensitive::Persistence if changed => class(
            DriftClass::PersistenceWrite,
            Risk::High,
            "something that is started or obeyed later was changed: a way to come back",
            &["T1053", "T1098"],
        ),
        Sensitive::Program if changed => class(
            DriftClass::ProgramFileWrite,
            Risk::High,
            "a program or library was put or changed where programs are looked for",
            &["T1036.005", "T1543"],
        ),
        Sensitive::HostControl => class(
            DriftClass::HostControlFile,
            if changed { Risk::Critical } else { Risk::High },
            "a file that controls the host was used from inside the container",
            &["T1611"],
        ),
        Sensitive::RuntimeSocket => class(
            DriftClass::RuntimeSocket,
            Risk::Critical,
            "the container runtime's socket was used: it gives full control of the host",
            &["T1611", "T1610"],
        ),
        Sensitive::Trace if matches!(file.op, FileOp::Unlink | FileOp::Rename) => class(
            DriftClass::TracesRemoved,
            Risk::Medium,
            "a log or a history was removed",
            &["T1070"],
        ),
        Sensitive::ProcessMemory if !own_memory(file) || changed => class(
            DriftClass::ProcessTampering,
            Risk::High,
            "memory or environment of another process was opened: secrets are read or code injected there",
            &["T1552"],
        ),
        _ => return None,
    })
}

/// Reading one's own environment is nobody's secret.
fn own_memory(file: &FileEvent) -> bool {
    let p = file.path.as_bytes();
    p.starts_with(b"/proc/self/") || p.starts_with(b"/proc/thread-self/")
}

fn of_library(path: &[u8], origin: Origin) -> Class {
    if origin.is_writable() {
        return class(
            DriftClass::LibraryFromWritable,
            Risk::High,
            "code was loaded from a file that is not part of the image",
            &["T1036"],
        );
    }
    let odd = !is_program_dir(path) && !path.starts_with(b"/usr/") && !path.starts_with(b"/lib");
    class(
        DriftClass::NewLibrary,
        if odd { Risk::Medium } else { Risk::Low },
        "a library of the image that this program never loaded",
        &[],
    )
}

fn of_peer(peer: &SockAddr, stream: bool) -> Class {
    match peer {
        SockAddr::Inet(ip, _) if is_metadata(*ip) => class(
            DriftClass::MetadataService,
            Risk::High,
            "the cloud's metadata service was called: it hands out the machine's credentials",
            &["T1552", "T1528"],
        ),
        SockAddr::Unix(path) if sensitive(path.as_bytes()) == Some(Sensitive::RuntimeSocket) => class(
            DriftClass::RuntimeSocket,
            Risk::Critical,
            "the container runtime's socket was connected to: it gives full control of the host",
            &["T1611", "T1610"],
        ),
        SockAddr::Unix(_) => class(DriftClass::NewOutboundPeer, Risk::Low, "a local socket never connected to before", &[]),
        SockAddr::Inet(ip, _) if ip.is_loopback() => {
            class(DriftClass::NewOutboundPeer, Risk::Low, "a local port never connected to before", &[])
        }
        SockAddr::Inet(..) => class(
            DriftClass::NewOutboundPeer,
            if stream { Risk::Medium } else { Risk::Low },
            "a peer that this program never contacted",
            &["T1046"],
        ),
    }
}

fn of_socket(b: &Behaviour) -> Class {
    let object = b.object.to_str_lossy();
    let netlink = object.to_ascii_lowercase().contains("netlink");
    class(
        DriftClass::UnusualSocket,
        if netlink { Risk::Low } else { Risk::High },
        if netlink {
            "a netlink socket, as resolvers and network tools use"
        } else {
            "a raw, packet or otherwise unusual socket: used to scan, sniff and spoof"
        },
        if netlink { &[] } else { &["T1046"] },
    )
}

fn of_dup(obs: &Observation, target: DupTarget) -> Class {
    let exe = obs.program();
    if target == DupTarget::Inet {
        let shell = programs::is_shell(exe.as_bytes()) || programs::is_interpreter(exe.as_bytes());
        return class(
            DriftClass::StreamsOnSocket,
            if shell || !programs::is_server(exe.as_bytes(), b"") { Risk::Critical } else { Risk::High },
            "standard streams were put on a network connection: a reverse shell",
            &["T1059.013"],
        );
    }
    class(DriftClass::StreamsOnSocket, Risk::Low, "standard streams were put on a local socket", &[])
}

fn of_credentials(b: &Behaviour, old_uid: u32, new_uid: u32) -> Class {
    if b.operation.0 == "capability" {
        return class(
            DriftClass::NewCapability,
            Risk::High,
            format!("the process gained {}", b.object),
            &["T1068"],
        );
    }
    if new_uid == 0 && old_uid != 0 {
        return class(DriftClass::UidChange, Risk::High, "the process became root", &["T1068", "T1078"]);
    }
    class(DriftClass::UidChange, Risk::Low, "the process changed its user, as services do to give up rights", &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_known_and_their_neighbours_are_not() {
        assert!(is_metadata([169, 254, 169, 254].into()));
        assert!(is_metadata("fd00:ec2::254".parse().unwrap()));
        assert!(!is_metadata([169, 254, 169, 253].into()));
    }

    #[test]
    fn a_made_set_uid_file_is_high_and_a_plain_mode_is_nothing() {
        let mut file = FileEvent {
            op: FileOp::Chmod,
            path: "/tmp/x".into(),
            target: "".into(),
            origin: Origin::Upper,
            flags: 0o4755,
            result: 0,
        };
        assert_eq!(of_mode(&file).unwrap().risk, Risk::High);
        file.flags = 0o644;
        assert_eq!(of_mode(&file), None);
    }

    #[test]
    fn every_technique_stands_in_the_matrix_for_containers() {
        let all = include_str!("risk.rs");
        for word in all.split('"').filter(|w| w.len() >= 5 && w.starts_with('T') && w[1..5].bytes().all(|b| b.is_ascii_digit())) {
            assert!(crate::attack::technique_name(word).is_some(), "{word}");
        }
    }
}
