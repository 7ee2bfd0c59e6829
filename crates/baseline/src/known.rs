//! What of a baseline the kernel's dictionary may know, as plain values to load.
//!
//! Promises: nothing sensitive and nothing that risk watches for is ever given away; what the
//! kernel cannot match exactly (name shapes, networks, names of peers, arguments, execs) is left
//! out and judged in user space. A directory pattern is given away as a prefix: below it, a
//! sensitive directory can only come into being by a `mkdir` or `rename`, which is a behaviour of
//! its own and is emitted.

use crate::baseline::{Baseline, Expected};
use crate::generalise::{Template, split_inbound, split_peer};
use crate::names::{Table, syscall_number};
use crate::paths::{Sensitive, changes, sensitive};
use plimsoll_model::{Behaviour, BehaviourKind, FileOp, Origin, Proto, Text};
use std::net::IpAddr;

/// Which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathReach {
    /// This path.
    Exact(Text),
    /// Every path below this directory.
    Below(Text),
}

/// Which peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerReach {
    /// This address.
    Ip(IpAddr),
    /// Any address.
    Any,
    /// Any loopback address.
    Loopback,
    /// Whoever has this name now: `service:db`, `dns:api.example.com`. The caller may put the
    /// present addresses in its place, or leave it out.
    Named(String),
}

/// An object that the kernel can recognise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownObject {
    /// A file operation.
    File {
        /// Which.
        op: FileOp,
        /// Where the file lives.
        origin: Origin,
        /// Which paths.
        path: PathReach,
    },
    /// A mapped library.
    Library {
        /// Where the file lives.
        origin: Origin,
        /// Which paths.
        path: PathReach,
    },
    /// An outbound connection.
    Connect {
        /// Transport.
        proto: Proto,
        /// Peer.
        peer: PeerReach,
        /// Remote port.
        port: u16,
    },
    /// An inbound connection.
    Accept {
        /// Transport.
        proto: Proto,
        /// Peer.
        peer: PeerReach,
        /// Local port.
        port: u16,
    },
    /// Datagrams.
    Datagram {
        /// Peer.
        peer: PeerReach,
        /// Remote port.
        port: u16,
    },
    /// A system call of the native table.
    Syscall {
        /// Number.
        nr: u32,
    },
}

/// One entry for the dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEntry<'a> {
    /// Number of the entry in the baseline: the index of its counter.
    pub index: u32,
    /// The actor is in here: program, script, entry, uid. Behaviours of processes found running
    /// are coded as `Init`: load those a second time for `FoundRunning` actors.
    pub behaviour: &'a Behaviour,
    /// The object.
    pub object: KnownObject,
}

/// Entries of a baseline that may be loaded into the kernel's dictionary.
pub fn known_entries(baseline: &Baseline) -> impl Iterator<Item = KnownEntry<'_>> {
    baseline.expected().filter_map(|(index, e)| {
        Some(KnownEntry {
            index,
            behaviour: &e.behaviour,
            object: object(e)?,
        })
    })
}

fn object(e: &Expected) -> Option<KnownObject> {
    let b = &e.behaviour;
    // an actor known by its short name only cannot be matched
    if b.program.as_bytes().starts_with(b"?") || b.program.is_empty() {
        return None;
    }
    match b.kind {
        BehaviourKind::File => file(e),
        BehaviourKind::Library if b.origin.is_writable() => None,
        BehaviourKind::Library => Some(KnownObject::Library {
            origin: b.origin,
            path: exact(&b.object)?,
        }),
        BehaviourKind::Connect => {
            let (proto, peer, port) = peer(&b.object)?;
            Some(KnownObject::Connect { proto, peer, port })
        }
        BehaviourKind::Datagram => {
            let (_, peer, port) = peer(&b.object)?;
            Some(KnownObject::Datagram { peer, port })
        }
        BehaviourKind::Accept => inbound(&b.object),
        BehaviourKind::Syscall => {
            let nr = syscall_number(Table::NATIVE, &b.object.to_str_lossy())?;
            Some(KnownObject::Syscall { nr })
        }
        // rare, or always emitted
        BehaviourKind::Exec
        | BehaviourKind::Arguments
        | BehaviourKind::Listen
        | BehaviourKind::Dns
        | BehaviourKind::Socket
        | BehaviourKind::Dup
        | BehaviourKind::Namespace
        | BehaviourKind::Mount
        | BehaviourKind::Ptrace
        | BehaviourKind::Module
        | BehaviourKind::Bpf
        | BehaviourKind::Credentials
        | BehaviourKind::Memfd
        | BehaviourKind::Cgroup
        | BehaviourKind::Rare
        | BehaviourKind::Bind
        | BehaviourKind::Signal => None,
    }
}

fn op(name: &str) -> Option<FileOp> {
    use FileOp::*;
    // rename, link and symlink have two paths; chmod and chown depend on the mode as well
    [Read, Write, Create, List, Unlink, Mkdir, Rmdir, Failed]
        .into_iter()
        .find(|op| op.as_str() == name)
}

fn file(e: &Expected) -> Option<KnownObject> {
    let b = &e.behaviour;
    let op = op(&b.operation.0)?;
    let path = match e.template {
        Template::Exact => exact(&b.object)?,
        Template::Below => {
            let dir = Text::from(b.object.as_bytes().strip_suffix(b"/**")?);
            exact(&dir)?;
            PathReach::Below(dir)
        }
        Template::Names
        | Template::Network
        | Template::AnyPeer
        | Template::Subdomains
        | Template::AnyValue => return None,
    };
    let (PathReach::Exact(p) | PathReach::Below(p)) = &path;
    (!is_watched(p.as_bytes(), op)).then_some(KnownObject::File {
        op,
        origin: b.origin,
        path,
    })
}

/// Whether user space wants to see every use.
fn is_watched(path: &[u8], op: FileOp) -> bool {
    match sensitive(path) {
        None => false,
        Some(Sensitive::Persistence | Sensitive::Program) => changes(op),
        Some(Sensitive::Trace) => matches!(op, FileOp::Unlink | FileOp::Rmdir),
        Some(
            Sensitive::Credential
            | Sensitive::OwnSecret
            | Sensitive::HostControl
            | Sensitive::RuntimeSocket
            | Sensitive::ProcessMemory,
        ) => true,
    }
}

/// An absolute path without named parts (`<n>`), which stand for many.
fn exact(path: &Text) -> Option<PathReach> {
    let bytes = path.as_bytes();
    let literal = bytes.starts_with(b"/") && !bytes.contains(&b'<');
    literal.then(|| PathReach::Exact(path.clone()))
}

fn reach(host: &str) -> Option<PeerReach> {
    match host {
        "loopback" => Some(PeerReach::Loopback),
        "any" => Some(PeerReach::Any),
        h if h.starts_with("service:") || (h.starts_with("dns:") && !h.contains('*')) => {
            Some(PeerReach::Named(h.to_owned()))
        }
        _ => None,
    }
}

fn peer(object: &Text) -> Option<(Proto, PeerReach, u16)> {
    let text = object.to_str_lossy();
    if let Some((proto, ip, port)) = split_peer(&text) {
        return (!crate::risk::is_metadata(ip)).then_some((
            transport(proto)?,
            PeerReach::Ip(ip),
            port,
        ));
    }
    let (proto, rest) = text.split_once(' ')?;
    let (host, port) = rest.rsplit_once(':')?;
    Some((transport(proto)?, reach(host)?, port.parse().ok()?))
}

fn inbound(object: &Text) -> Option<KnownObject> {
    let text = object.to_str_lossy();
    let (head, from) = text.split_once(" from ")?;
    let (proto, port) = head.split_once(" :")?;
    let peer = match split_inbound(&text) {
        Some((_, ip)) => PeerReach::Ip(ip),
        None => reach(from)?,
    };
    Some(KnownObject::Accept {
        proto: transport(proto)?,
        peer,
        port: port.parse().ok()?,
    })
}

fn transport(name: &str) -> Option<Proto> {
    [Proto::Tcp, Proto::Udp]
        .into_iter()
        .find(|p| p.as_str() == name)
}
