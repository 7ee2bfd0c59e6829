//! The stable identity of what was done: kind, program, object. Instance-independent.

use crate::event::{Entry, Origin};
use crate::text::Text;
use minicbor::{Decode, Encode};
use sha2::Digest as _;
use std::fmt;

/// The dimension of a baseline that a behaviour belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum BehaviourKind {
    /// A program runs, with its parent program.
    #[n(0)]
    Exec,
    /// A file is used.
    #[n(1)]
    File,
    /// A library is mapped.
    #[n(2)]
    Library,
    /// An outbound peer.
    #[n(3)]
    Connect,
    /// An inbound peer.
    #[n(4)]
    Accept,
    /// A port listened on.
    #[n(5)]
    Listen,
    /// A DNS name asked for.
    #[n(6)]
    Dns,
    /// A datagram peer.
    #[n(7)]
    Datagram,
    /// A socket of an unusual family or type.
    #[n(8)]
    Socket,
    /// Standard streams redirected.
    #[n(9)]
    Dup,
    /// Namespace change.
    #[n(10)]
    Namespace,
    /// Mounts.
    #[n(11)]
    Mount,
    /// ptrace and process memory.
    #[n(12)]
    Ptrace,
    /// Kernel modules.
    #[n(13)]
    Module,
    /// bpf.
    #[n(14)]
    Bpf,
    /// uid and capability changes.
    #[n(15)]
    Credentials,
    /// System calls used.
    #[n(16)]
    Syscall,
    /// Memory files.
    #[n(17)]
    Memfd,
    /// Moves between cgroups.
    #[n(18)]
    Cgroup,
    /// Other rare calls.
    #[n(19)]
    Rare,
    /// Shape of a program's arguments.
    #[n(20)]
    Arguments,
    /// An explicit bind.
    #[n(21)]
    Bind,
    /// Signals to other processes.
    #[n(22)]
    Signal,
}

impl BehaviourKind {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            BehaviourKind::Exec => "exec",
            BehaviourKind::File => "file",
            BehaviourKind::Library => "library",
            BehaviourKind::Connect => "connect",
            BehaviourKind::Accept => "accept",
            BehaviourKind::Listen => "listen",
            BehaviourKind::Dns => "dns",
            BehaviourKind::Datagram => "datagram",
            BehaviourKind::Socket => "socket",
            BehaviourKind::Dup => "dup",
            BehaviourKind::Namespace => "namespace",
            BehaviourKind::Mount => "mount",
            BehaviourKind::Ptrace => "ptrace",
            BehaviourKind::Module => "module",
            BehaviourKind::Bpf => "bpf",
            BehaviourKind::Credentials => "credentials",
            BehaviourKind::Syscall => "syscall",
            BehaviourKind::Memfd => "memfd",
            BehaviourKind::Cgroup => "cgroup",
            BehaviourKind::Rare => "rare",
            BehaviourKind::Arguments => "arguments",
            BehaviourKind::Bind => "bind",
            BehaviourKind::Signal => "signal",
        }
    }
}

/// What was done within the kind: `read`, `write`, `run`, `tcp`, `setns` … A short lower-case word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Operation(#[n(0)] pub String);

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl From<&str> for Operation {
    fn from(s: &str) -> Self {
        Self(s.to_owned())
    }
}

/// 128 bits of SHA-256 over the canonical form of a behaviour. The same on every node and boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BehaviourId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for BehaviourId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for BehaviourId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What was done, by which program, to what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Behaviour {
    /// Dimension.
    #[n(0)]
    pub kind: BehaviourKind,
    /// Path of the acting program (for `exec`: of the parent).
    #[n(1)]
    pub program: Text,
    /// The script, where the program interprets one.
    #[n(2)]
    pub script: Text,
    /// How the actor came into the container.
    #[n(3)]
    pub entry: Entry,
    /// Real uid of the actor in the initial user namespace.
    #[n(4)]
    pub uid: u32,
    /// What was done.
    #[n(5)]
    pub operation: Operation,
    /// To what: a path, `tcp 10.0.0.5:6379`, a DNS name, a system call's name …
    #[n(6)]
    pub object: Text,
    /// Where the object lives, for files, libraries and programs.
    #[n(7)]
    pub origin: Origin,
}

impl Behaviour {
    /// The stable id: SHA-256 over length-prefixed fields, first 128 bits.
    pub fn id(&self) -> BehaviourId {
        let mut h = sha2::Sha256::new();
        h.update(b"plimsoll behaviour v1\0");
        h.update([self.kind as u8, self.entry as u8, self.origin as u8]);
        h.update(self.uid.to_be_bytes());
        for part in [
            self.program.as_bytes(),
            self.script.as_bytes(),
            self.operation.0.as_bytes(),
            self.object.as_bytes(),
        ] {
            h.update((part.len() as u32).to_be_bytes());
            h.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&h.finalize()[..16]);
        BehaviourId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Behaviour {
        Behaviour {
            kind: BehaviourKind::File,
            program: "/usr/sbin/nginx".into(),
            script: Text::default(),
            entry: Entry::Init,
            uid: 33,
            operation: "read".into(),
            object: "/etc/nginx/nginx.conf".into(),
            origin: Origin::Image,
        }
    }

    #[test]
    fn the_id_is_stable_over_releases() {
        assert_eq!(sample().id().to_string(), sample().id().to_string());
        assert_eq!(sample().id().to_string().len(), 32);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let mut a = sample();
        a.program = "/a".into();
        a.script = "b".into();
        let mut b = sample();
        b.program = "/ab".into();
        b.script = "".into();
        assert_ne!(a.id(), b.id());
    }
}
