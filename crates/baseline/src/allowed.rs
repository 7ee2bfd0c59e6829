//! What a baseline lets run, map and contact at all: what enforcement holds a container to.
//!
//! Coarser than the baseline itself, on purpose: a known program started by another parent, or under
//! another uid, is drift and an alert; it is not a reason to break a service. So an act is forbidden
//! only when its object (program and script, library, peer) is known of nobody in the container.
//!
//! Promises: pure; [`Allowed::forbids`] and [`Allowed::entries`] agree, so that a dry run says what
//! the kernel would have done. What the kernel cannot tell apart is left to the former:
//! - interpreters and multi-call programs, whose act depends on their arguments ([`Entry::Ask`]);
//! - peers known by name or through a service: their addresses change, and a packet may be quicker
//!   than the answer that named it, so their whole port is left alone ([`Entry::Port`]).
//!
//! A program in another mount namespace than the container's, from a memory file or deleted is never
//! allowed, whatever was learned: its path says nothing about it.

use crate::baseline::Baseline;
use crate::code::program_path;
use crate::generalise::{Template, covering, split_peer};
use crate::programs::{is_interpreter, is_multicall, is_shell, name_of};
use plimsoll_model::{Behaviour, BehaviourKind, EnforceClass, Origin, Proto, Text};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// One thing that the kernel may let through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// This program.
    Program(Text, Origin),
    /// This program, when what it is given is known too.
    Ask(Text, Origin),
    /// This file, mapped executable.
    Library(Text, Origin),
    /// This address and port.
    Peer(Proto, IpAddr, u16),
    /// Every address of this network: /24 or /64, by any of its addresses.
    Network(Proto, IpAddr, u16),
    /// Any loopback address at this port.
    Loopback(Proto, u16),
    /// Every address at this port.
    Port(Proto, u16),
}

/// What a baseline lets through.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Programs, and whether their arguments matter.
    programs: HashMap<(Text, Origin), bool>,
    /// Programs with their scripts or applets, as behaviours name them.
    runs: HashSet<(Text, Origin)>,
    libraries: HashSet<(Text, Origin)>,
    /// Objects of peers, patterns among them.
    peers: HashSet<Text>,
    entries: Vec<Entry>,
    /// Ports of which peers are known by name.
    ports: HashSet<(String, u16)>,
}

impl Allowed {
    /// What `baseline` lets through.
    pub fn of(baseline: &Baseline) -> Self {
        let mut all = Self::default();
        for (_, e) in baseline.expected() {
            let b = &e.behaviour;
            match b.kind {
                BehaviourKind::Exec => all.exec(b),
                BehaviourKind::Library if is_placed(b.origin) => {
                    all.libraries.insert((b.object.clone(), b.origin));
                }
                BehaviourKind::Connect | BehaviourKind::Datagram => all.peer(b, e.template),
                _ => {}
            }
        }
        let programs = all.programs.iter().map(|((path, origin), ask)| match ask {
            true => Entry::Ask(path.clone(), *origin),
            false => Entry::Program(path.clone(), *origin),
        });
        let libraries = all.libraries.iter();
        let libraries = libraries.map(|(path, origin)| Entry::Library(path.clone(), *origin));
        all.entries.extend(programs.chain(libraries));
        all.entries.sort();
        all.entries.dedup();
        all
    }

    fn exec(&mut self, b: &Behaviour) {
        if !is_placed(b.origin) || is_deleted(b.object.as_bytes()) {
            return;
        }
        let (path, rest) = split_run(b.object.as_bytes());
        let bytes = path.as_bytes();
        let asks = rest || runs_code(bytes) || is_multicall(bytes);
        *self.programs.entry((path, b.origin)).or_default() |= asks;
        self.runs.insert((b.object.clone(), b.origin));
    }

    fn peer(&mut self, b: &Behaviour, template: Template) {
        let text = b.object.to_str_lossy();
        let Some((proto, host, port)) = ends(&text) else {
            return; // UNIX sockets are not held back
        };
        self.peers.insert(b.object.clone());
        let Some(transport) = transport(proto) else {
            return;
        };
        let entry = match (template, host) {
            (Template::Exact, "loopback") => Entry::Loopback(transport, port),
            (Template::Exact, host) => match address(host) {
                Some(ip) => Entry::Peer(transport, ip, port),
                None => self.by_name(proto, transport, port),
            },
            (Template::Network, host) => match host.rsplit_once('/').and_then(|n| address(n.0)) {
                Some(ip) => Entry::Network(transport, ip, port),
                None => self.by_name(proto, transport, port),
            },
            _ => self.by_name(proto, transport, port),
        };
        self.entries.push(entry);
    }

    fn by_name(&mut self, proto: &str, transport: Proto, port: u16) -> Entry {
        self.ports.insert((proto.to_owned(), port));
        Entry::Port(transport, port)
    }

    /// Everything, for the kernel, sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Ports whose peers are known by name, as `tcp 443`, sorted: there only alerts are possible.
    pub fn open_ports(&self) -> Vec<String> {
        let mut ports: Vec<_> = self.ports.iter().collect();
        ports.sort();
        ports.iter().map(|(p, n)| format!("{p} {n}")).collect()
    }

    /// The class by which a behaviour is outside, and what of it is; `None`: it is let through.
    pub fn forbids(&self, b: &Behaviour) -> Option<(EnforceClass, Text)> {
        match b.kind {
            BehaviourKind::Exec => self.forbids_run(b),
            BehaviourKind::Library => {
                let known = is_placed(b.origin) && self.knows_library(b);
                (!known).then(|| (EnforceClass::Library, b.object.clone()))
            }
            BehaviourKind::Connect | BehaviourKind::Datagram => {
                let text = b.object.to_str_lossy();
                let (proto, host, port) = ends(&text)?;
                transport(proto)?;
                let known = self.peers.contains(&b.object)
                    || covering(b).iter().any(|p| self.peers.contains(p))
                    || (host != "loopback" && self.ports.contains(&(proto.to_owned(), port)));
                (!known).then(|| (EnforceClass::Peer, b.object.clone()))
            }
            _ => None,
        }
    }

    /// Whether the kernel lets a connection through, which knows addresses and no names.
    pub fn lets(&self, proto: Proto, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        let has = |e: Entry| self.entries.binary_search(&e).is_ok();
        if ip.is_loopback() {
            return has(Entry::Loopback(proto, port));
        }
        has(Entry::Peer(proto, ip, port))
            || has(Entry::Network(proto, network_of(ip), port))
            || has(Entry::Port(proto, port))
    }

    fn knows_library(&self, b: &Behaviour) -> bool {
        // a program's own file is mapped by its loader, too
        let key = (b.object.clone(), b.origin);
        self.libraries.contains(&key) || self.programs.contains_key(&key)
    }

    fn forbids_run(&self, b: &Behaviour) -> Option<(EnforceClass, Text)> {
        let (path, _) = split_run(b.object.as_bytes());
        let placed = is_placed(b.origin) && !is_deleted(b.object.as_bytes());
        let key = (path, b.origin);
        if !placed || !self.programs.contains_key(&key) {
            return Some((EnforceClass::Program, key.0));
        }
        let run = (b.object.clone(), b.origin);
        (self.programs[&key] && !self.runs.contains(&run)).then_some((EnforceClass::Script, run.0))
    }
}

/// Programs that are given what to do (java by its archive).
fn runs_code(path: &[u8]) -> bool {
    is_interpreter(path) || is_shell(path) || name_of(path).starts_with("java")
}

/// The path says which file it is.
fn is_placed(origin: Origin) -> bool {
    !matches!(origin, Origin::Foreign | Origin::Memfd | Origin::Unknown)
}

fn is_deleted(object: &[u8]) -> bool {
    object.ends_with(b" (deleted)") || object.ends_with(b"\\x20(deleted)")
}

/// The program of `crate::code::exec_object`, and whether a script or an applet follows it.
fn split_run(object: &[u8]) -> (Text, bool) {
    let (head, rest) = match object.iter().position(|&b| b == b' ') {
        Some(at) => (&object[..at], true),
        None => (object, false),
    };
    let mut path = Vec::with_capacity(head.len());
    let mut i = 0;
    while i < head.len() {
        if head[i..].starts_with(b"\\x20") {
            path.push(b' ');
            i += 4;
        } else {
            path.push(head[i]);
            i += 1;
        }
    }
    (program_path(&Text::new(path)), rest)
}

/// `tcp [::1]:80` → transport, host as written, port.
fn ends(object: &str) -> Option<(&str, &str, u16)> {
    let (proto, rest) = object.split_once(' ')?;
    let (host, port) = rest.rsplit_once(':')?;
    Some((proto, host, port.parse().ok()?))
}

/// The first address of the /24 or /64 that an address is in.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, 0].into()
        }
        IpAddr::V6(v6) => {
            let mut s = v6.segments();
            s[4..].fill(0);
            s.into()
        }
    }
}

fn address(host: &str) -> Option<IpAddr> {
    split_peer(&format!("tcp {host}:1")).map(|(_, ip, _)| ip)
}

/// What the hooks on sockets can refuse.
fn transport(name: &str) -> Option<Proto> {
    [Proto::Tcp, Proto::Udp]
        .into_iter()
        .find(|p| p.as_str() == name)
}
