//! Patterns, each with the examples that made it.
//!
//! A pattern is a behaviour whose object stands for several: `/var/lib/php/sess_<rand>`,
//! `/var/cache/app/**`, `tcp 10.0.3.0/24:6379`, `tcp :80 from any`, `*.svc.cluster.local`. Every
//! object has at most a handful of patterns that could cover it ([`candidates`]), so both learning
//! and judging are hash lookups; nothing is searched.
//!
//! Promises:
//! - one program, one operation, one origin, one directory (or network, or port) a pattern;
//! - made only from enough distinct examples, seen in at least two time slots; numbered names also
//!   in one, from eight times as many (a database makes its hundreds of files at once, and once);
//! - never covers a path for which [`never_generalise`] holds,
//!   a program, a library, or a domain in which strangers can rent names;
//! - reads as text, and keeps up to eight of the objects that made it.
//!
//! Left out on purpose: free prefixes and suffixes (`a*z`), which nobody can check by looking.

use crate::baseline::{Expected, Unit};
use crate::config::LearnConfig;
use crate::paths::never_generalise;
use minicbor::{Decode, Encode};
use plimsoll_model::{Behaviour, BehaviourKind, Text};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Which objects an expected behaviour stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Template {
    /// Only the object itself.
    #[default]
    #[n(0)]
    Exact,
    /// Names of one shape in one directory: `<n>`, `<hex>` and `<rand>` stand for generated parts.
    #[n(1)]
    Names,
    /// Everything below a directory: `/var/cache/app/**`.
    #[n(2)]
    Below,
    /// A network of addresses: `/24` or `/64`.
    #[n(3)]
    Network,
    /// Any peer of a port that is open to the public.
    #[n(4)]
    AnyPeer,
    /// Names directly below a domain: `*.example.com`.
    #[n(5)]
    Subdomains,
    /// Any value at one place of an argument vector: `<any>`.
    #[n(6)]
    AnyValue,
}

impl Template {
    /// In words, for people who ask why something is covered.
    pub fn explain(self) -> &'static str {
        match self {
            Template::Exact => "exactly this",
            Template::Names => "names of one shape in one directory",
            Template::Below => "everything below one directory",
            Template::Network => "every address of one network",
            Template::AnyPeer => "any peer: the port serves the public",
            Template::Subdomains => "every name directly below one domain",
            Template::AnyValue => "any value at one place of the arguments",
        }
    }
}

/// The patterns that could cover a behaviour, tightest first, as (template, object).
pub fn candidates(b: &Behaviour) -> Vec<(Template, Text)> {
    let object = b.object.as_bytes();
    match b.kind {
        BehaviourKind::File => file_candidates(object, &b.operation.0),
        BehaviourKind::Connect | BehaviourKind::Datagram => peer_candidates(object),
        BehaviourKind::Accept => inbound_candidates(object),
        BehaviourKind::Dns => parent_domain(object)
            .map(|p| (Template::Subdomains, Text::from(format!("*.{p}"))))
            .into_iter()
            .collect(),
        BehaviourKind::Arguments => argument_candidates(b),
        // programs and libraries are judged by their name alone, and the rest has few objects
        BehaviourKind::Exec
        | BehaviourKind::Library
        | BehaviourKind::Listen
        | BehaviourKind::Socket
        | BehaviourKind::Dup
        | BehaviourKind::Namespace
        | BehaviourKind::Mount
        | BehaviourKind::Ptrace
        | BehaviourKind::Module
        | BehaviourKind::Bpf
        | BehaviourKind::Credentials
        | BehaviourKind::Syscall
        | BehaviourKind::Memfd
        | BehaviourKind::Cgroup
        | BehaviourKind::Rare
        | BehaviourKind::Bind
        | BehaviourKind::Signal => Vec::new(),
    }
}

/// The objects of all patterns that would cover a behaviour, tightest first. A directory pattern is
/// made for one directory, yet covers what is deeper, so these are more than [`candidates`].
pub fn covering(b: &Behaviour) -> Vec<Text> {
    let mut out: Vec<Text> = candidates(b)
        .into_iter()
        .map(|(_, object)| object)
        .collect();
    let object = b.object.as_bytes();
    // no candidate: a first-level or sensitive path, for which no pattern may exist
    if b.kind != BehaviourKind::File || out.is_empty() || is_pair(object) {
        return out;
    }
    let mut dir = parent(object).and_then(parent);
    while let Some(d) = dir.filter(|d| depth(d) >= 2) {
        out.push(Text::new([d, b"/**"].concat()));
        dir = parent(d);
    }
    out
}

const ARROW: &[u8] = b" -> ";

fn arrow(object: &[u8]) -> Option<usize> {
    object.windows(ARROW.len()).position(|w| w == ARROW)
}

fn is_pair(object: &[u8]) -> bool {
    arrow(object).is_some()
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().rposition(|&b| b == b'/')?;
    (at > 0).then(|| &path[..at])
}

fn depth(dir: &[u8]) -> usize {
    dir.split(|&b| b == b'/').filter(|c| !c.is_empty()).count()
}

fn file_candidates(object: &[u8], op: &str) -> Vec<(Template, Text)> {
    if let Some(at) = arrow(object) {
        let (from, to) = (&object[..at], &object[at + ARROW.len()..]);
        if never_generalise(from, op) || never_generalise(to, op) {
            return Vec::new();
        }
        let shaped = [&*skeleton(from), ARROW, &*skeleton(to)].concat();
        return names_pattern(object, shaped).into_iter().collect();
    }
    if never_generalise(object, op) {
        return Vec::new();
    }
    let mut out: Vec<_> = names_pattern(object, skeleton(object))
        .into_iter()
        .collect();
    if let Some(dir) = parent(object).filter(|d| depth(d) >= 2) {
        out.push((Template::Below, Text::new([dir, b"/**"].concat())));
    }
    out
}

fn names_pattern(object: &[u8], shaped: Vec<u8>) -> Option<(Template, Text)> {
    (shaped != object).then(|| (Template::Names, Text::new(shaped)))
}

/// The path with the generated parts of its last component named.
pub fn skeleton(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
    let (dir, name) = path.split_at(at);
    let mut out = dir.to_vec();
    let separator = |b: &u8| matches!(b, b'-' | b'_' | b'.' | b':' | b'@' | b'=' | b',' | b'+');
    for (i, token) in name.split(separator).enumerate() {
        if i > 0 {
            // the separator stands right behind what is written of the name so far
            out.push(name[offset_of(name, token) - 1]);
        }
        out.extend_from_slice(shape_of(token));
    }
    out
}

/// Where a part of a slice begins within it.
fn offset_of(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

fn shape_of(token: &[u8]) -> &[u8] {
    let count = |f: fn(&u8) -> bool| token.iter().filter(|b| f(b)).count();
    let digits = count(u8::is_ascii_digit);
    if !token.is_empty() && digits == token.len() {
        return b"<n>";
    }
    if token.len() >= 8 && digits > 0 && token.iter().all(u8::is_ascii_hexdigit) {
        return b"<hex>";
    }
    let upper = count(u8::is_ascii_uppercase);
    let lower = count(u8::is_ascii_lowercase);
    let generated = digits > 0 || (upper >= 2 && lower >= 2);
    if token.len() >= 6 && digits + upper + lower == token.len() && generated {
        return b"<rand>";
    }
    token
}

/// `tcp 10.0.0.5:6379` → (`tcp`, address, port).
pub(crate) fn split_peer(object: &str) -> Option<(&str, IpAddr, u16)> {
    let (proto, rest) = object.split_once(' ')?;
    let (host, port) = rest.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((proto, host.parse().ok()?, port.parse().ok()?))
}

/// The network that an address is generalised to: /24 or /64.
fn network(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let mut s = v6.segments();
            s[4..].fill(0);
            format!("[{}]/64", std::net::Ipv6Addr::from(s))
        }
    }
}

fn peer_candidates(object: &[u8]) -> Vec<(Template, Text)> {
    let Ok(text) = std::str::from_utf8(object) else {
        return Vec::new();
    };
    if let Some((proto, ip, port)) = split_peer(text) {
        if is_private_business(ip) {
            return Vec::new();
        }
        let pattern = format!("{proto} {}:{port}", network(ip));
        return vec![(Template::Network, pattern.into())];
    }
    let parsed = text
        .split_once(" dns:")
        .and_then(|(proto, rest)| Some((proto, rest.rsplit_once(':')?)));
    let Some((proto, (name, port))) = parsed else {
        return Vec::new();
    };
    parent_domain(name.as_bytes())
        .map(|p| {
            (
                Template::Subdomains,
                format!("{proto} dns:*.{p}:{port}").into(),
            )
        })
        .into_iter()
        .collect()
}

/// Link-local addresses hold metadata services: each is judged by itself.
fn is_private_business(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.is_loopback() || v4.octets() == [168, 63, 129, 16]
        }
        IpAddr::V6(v6) => v6.is_loopback() || (v6.segments()[0] & 0xffc0) == 0xfe80,
    }
}

/// `tcp :80 from 10.0.0.5` → (`tcp :80 from `, address).
pub(crate) fn split_inbound(object: &str) -> Option<(&str, IpAddr)> {
    let at = object.find(" from ")? + " from ".len();
    Some((&object[..at], object[at..].parse().ok()?))
}

fn inbound_candidates(object: &[u8]) -> Vec<(Template, Text)> {
    let Ok(text) = std::str::from_utf8(object) else {
        return Vec::new();
    };
    // a network pattern is itself one of the peers that make a port public
    if let Some(at) = text.strip_suffix("/24").or(text.strip_suffix("/64")) {
        return match at.find(" from ") {
            Some(i) => vec![(Template::AnyPeer, format!("{} from any", &at[..i]).into())],
            None => Vec::new(),
        };
    }
    let Some((head, ip)) = split_inbound(text) else {
        return Vec::new();
    };
    vec![
        (Template::Network, format!("{head}{}", network(ip)).into()),
        (Template::AnyPeer, format!("{head}any").into()),
    ]
}

/// Domains below which anybody can get a name: a pattern there would cover strangers.
const SHARED_DOMAINS: &[&str] = &[
    "amazonaws.com",
    "cloudfront.net",
    "azurewebsites.net",
    "windows.net",
    "azureedge.net",
    "trafficmanager.net",
    "googleusercontent.com",
    "googleapis.com",
    "appspot.com",
    "run.app",
    "web.app",
    "firebaseio.com",
    "github.io",
    "githubusercontent.com",
    "gitlab.io",
    "herokuapp.com",
    "workers.dev",
    "pages.dev",
    "r2.dev",
    "vercel.app",
    "netlify.app",
    "ngrok.io",
    "ngrok-free.app",
    "ngrok.app",
    "trycloudflare.com",
    "duckdns.org",
    "no-ip.org",
    "ddns.net",
    "dyndns.org",
    "serveo.net",
    "fly.dev",
    "onrender.com",
    "digitaloceanspaces.com",
    "blogspot.com",
    "wordpress.com",
    "nip.io",
    "sslip.io",
    "in-addr.arpa",
    "ip6.arpa",
    "akamaized.net",
    "fastly.net",
    "b-cdn.net",
    "oast.fun",
    "oast.live",
    "oast.pro",
    "interact.sh",
];
/// Second-level labels under which names are registered (`co.uk`).
const REGISTRY_LABELS: &[&str] = &[
    "co", "com", "net", "org", "gov", "edu", "ac", "or", "ne", "go",
];

/// The domain whose direct subdomains may become one pattern.
fn parent_domain(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let (first, parent) = name.split_once('.')?;
    let labels: Vec<&str> = parent.split('.').collect();
    let registry = labels.len() == 2 && REGISTRY_LABELS.contains(&labels[0]);
    let shared = SHARED_DOMAINS
        .iter()
        .any(|d| parent == *d || parent.strip_suffix(d).is_some_and(|p| p.ends_with('.')));
    (first != "*" && labels.len() >= 2 && !registry && !shared).then_some(parent)
}

fn argument_candidates(b: &Behaviour) -> Vec<(Template, Text)> {
    let program = b.program.as_bytes();
    let code_runner = crate::programs::is_shell(program)
        || crate::programs::is_interpreter(program)
        || crate::programs::is_offensive_tool(program)
        || crate::programs::is_read_tool(program);
    let Ok(text) = std::str::from_utf8(b.object.as_bytes()) else {
        return Vec::new();
    };
    let parts: Vec<&str> = text.split(' ').collect();
    if code_runner || parts.contains(&"<any>") {
        return Vec::new();
    }
    let free = |p: &&str| !p.starts_with('-') && !p.starts_with("<cmd:");
    let places = (0..parts.len().min(8)).filter(|&i| free(&parts[i]));
    places
        .map(|i| {
            let mut pattern = parts.clone();
            pattern[i] = "<any>";
            (Template::AnyValue, Text::from(pattern.join(" ")))
        })
        .collect()
}

/// What is derived from the stored entries: rebuilt on load, never stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Behaviour (or pattern) to its number.
    by: HashMap<Behaviour, u32>,
    /// Hash of a possible pattern to the exact entries it would cover.
    families: HashMap<u64, Vec<u32>>,
    /// Expected (parent program, child program) pairs.
    pairs: HashMap<Text, HashSet<Text>>,
    /// Programs that are known to listen.
    listeners: HashSet<Text>,
    /// Numbers by where they are near: the same program, object, or program and directory.
    near: HashMap<u64, Vec<u32>>,
}

/// Entries kept in one list of neighbours: enough to find three near ones, few enough to look
/// through for every drift of a flood.
const MAX_NEAR: usize = 48;

impl Index {
    pub(crate) fn build(entries: &[Option<Expected>]) -> Self {
        let mut index = Self::default();
        for (i, e) in entries.iter().enumerate() {
            if let Some(e) = e {
                index.add(i as u32, e);
            }
        }
        index
    }

    pub(crate) fn len(&self) -> usize {
        self.by.len()
    }

    pub(crate) fn add(&mut self, i: u32, e: &Expected) {
        let b = &e.behaviour;
        self.by.insert(b.clone(), i);
        for (_, object) in candidates(b) {
            self.families.entry(family(b, &object)).or_default().push(i);
        }
        if b.kind == BehaviourKind::Exec {
            let child = exec_program(b);
            self.pairs
                .entry(b.program.clone())
                .or_default()
                .insert(child);
        }
        if b.kind == BehaviourKind::Listen {
            self.listeners.insert(b.program.clone());
        }
        for place in near_places(b) {
            let list = self.near.entry(place).or_default();
            if list.len() < MAX_NEAR {
                list.push(i);
            }
        }
    }

    pub(crate) fn remove(&mut self, b: &Behaviour) {
        self.by.remove(b);
        if b.kind == BehaviourKind::Exec
            && let Some(children) = self.pairs.get_mut(&b.program)
        {
            children.remove(&exec_program(b));
        }
    }

    /// The number of the entry that covers a behaviour: itself, else its tightest pattern.
    pub(crate) fn find(&self, b: &Behaviour) -> Option<u32> {
        if let Some(&i) = self.by.get(b) {
            return Some(i);
        }
        let mut key = None;
        for object in covering(b) {
            let key = key.get_or_insert_with(|| b.clone());
            key.object = object;
            if let Some(&i) = self.by.get(key) {
                return Some(i);
            }
        }
        None
    }

    pub(crate) fn is_listener(&self, program: &Text) -> bool {
        self.listeners.contains(program)
    }

    pub(crate) fn knows_pair(&self, parent: &Text, child: &Text) -> bool {
        self.pairs.get(parent).is_some_and(|c| c.contains(child))
    }

    /// Whether any parent is expected to start this child program, with whatever script.
    pub(crate) fn starts(&self, child: &Text) -> bool {
        self.pairs.values().any(|c| c.contains(child))
    }

    /// Whether the program that an exec starts is expected from any parent.
    pub(crate) fn expects_program(&self, b: &Behaviour) -> bool {
        self.near
            .contains_key(&near_object(b.kind, b.object.as_bytes()))
    }

    /// Whether an exec of this program is expected.
    pub(crate) fn runs(&self, exe: &Text) -> bool {
        self.near
            .contains_key(&near_object(BehaviourKind::Exec, exe.as_bytes()))
    }

    /// Numbers of entries near a behaviour, each once, unordered.
    pub(crate) fn near(&self, b: &Behaviour) -> Vec<u32> {
        let lists = near_places(b)
            .into_iter()
            .filter_map(|place| self.near.get(&place));
        let mut all: Vec<u32> = lists.flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The pattern that a new entry completes, if any: template, its object, and its members.
    pub(crate) fn completed(
        &self,
        b: &Behaviour,
        entries: &[Option<Expected>],
        config: &LearnConfig,
    ) -> Option<(Template, Text, Vec<u32>)> {
        candidates(b).into_iter().find_map(|(template, object)| {
            let family = self.families.get(&family(b, &object))?;
            let need = needed(template, config);
            // trying at every multiple keeps the work linear over a long life
            if family.len() < need || family.len() % need != 0 {
                return None;
            }
            let members = self.members(family, b, &object, entries);
            let made = Made {
                template,
                object: &object,
                need,
            };
            made.enough(&members, entries)
                .then_some((template, object, members))
        })
    }

    /// Members of a family that are still there and really belong to it (hashes can collide).
    fn members(
        &self,
        family: &[u32],
        b: &Behaviour,
        object: &Text,
        entries: &[Option<Expected>],
    ) -> Vec<u32> {
        let belongs = |i: &&u32| {
            entries
                .get(**i as usize)
                .and_then(Option::as_ref)
                .is_some_and(|e| {
                    same_actor(&e.behaviour, b)
                        && candidates(&e.behaviour).iter().any(|(_, o)| o == object)
                })
        };
        family.iter().filter(belongs).copied().collect()
    }
}

/// Where a behaviour is near to others: its object, its program and directory, its program.
fn near_places(b: &Behaviour) -> [u64; 3] {
    let object = b.object.as_bytes();
    let dir = object
        .iter()
        .rposition(|&c| c == b'/')
        .map_or(object, |at| &object[..at]);
    [
        near_object(b.kind, object),
        hash_of((2u8, b.kind, b.program.as_bytes(), dir)),
        hash_of((3u8, b.kind, b.program.as_bytes())),
    ]
}

fn near_object(kind: BehaviourKind, object: &[u8]) -> u64 {
    hash_of((1u8, kind, object))
}

fn hash_of(parts: impl Hash) -> u64 {
    let mut h = DefaultHasher::new();
    parts.hash(&mut h);
    h.finish()
}

/// The program of an exec behaviour, without its script.
pub(crate) fn exec_program(b: &Behaviour) -> Text {
    let object = b.object.as_bytes();
    let end = object
        .iter()
        .position(|&c| c == b' ')
        .unwrap_or(object.len());
    Text::from(&object[..end])
}

fn same_actor(a: &Behaviour, b: &Behaviour) -> bool {
    a.kind == b.kind
        && a.entry == b.entry
        && a.uid == b.uid
        && a.origin == b.origin
        && a.operation == b.operation
        && a.program == b.program
        && a.script == b.script
}

fn family(b: &Behaviour, object: &Text) -> u64 {
    hash_of((
        (b.kind, b.entry, b.uid, b.origin),
        (&b.operation, &b.program, &b.script, object),
    ))
}

fn needed(template: Template, config: &LearnConfig) -> usize {
    match template {
        Template::Below => config.min_directory_siblings as usize,
        Template::Exact
        | Template::Names
        | Template::Network
        | Template::AnyPeer
        | Template::Subdomains
        | Template::AnyValue => config.min_siblings as usize,
    }
}

/// Distinct networks from which a port must be reached to count as public.
const MIN_NETWORKS: usize = 3;

/// So many times as many examples make a pattern of numbered names within one slot.
const AT_ONCE: usize = 8;

/// A pattern that might be made.
struct Made<'a> {
    template: Template,
    object: &'a Text,
    need: usize,
}

impl Made<'_> {
    fn enough(&self, members: &[u32], entries: &[Option<Expected>]) -> bool {
        let live = || members.iter().filter_map(|&i| entries[i as usize].as_ref());
        let distinct: usize = live().map(|e| e.members.max(1) as usize).sum();
        let slots: HashSet<Unit> = live().map(|e| e.first_unit).collect();
        let public = || {
            let networks = live().map(|e| network_of(&e.behaviour.object));
            networks.collect::<HashSet<_>>().len() >= MIN_NETWORKS
        };
        let at_once = || self.is_numbered() && distinct >= self.need * AT_ONCE;
        distinct >= self.need
            && (slots.len() >= 2 || at_once())
            && (self.template != Template::AnyPeer || public())
    }

    /// Names in one directory that differ in numbers only.
    fn is_numbered(&self) -> bool {
        let object = self.object.to_str_lossy();
        let without = object.replace("<n>", "");
        self.template == Template::Names && without.len() < object.len() && !without.contains('<')
    }
}

fn network_of(object: &Text) -> String {
    let text = object.to_str_lossy();
    match split_inbound(&text) {
        Some((_, ip)) => network(ip),
        None => text.rsplit(' ').next().unwrap_or_default().to_owned(),
    }
}
