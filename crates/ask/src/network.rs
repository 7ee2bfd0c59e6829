//! Q8: whom it contacted, and which process resolved or dialled the name.

use crate::acts::Acts;
use crate::directory::Known;
use crate::interval::between;
use crate::records::Filter;
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, span};
use plimsoll_model::event::{Connection, Dns};
use plimsoll_model::{
    Behaviour, BehaviourId, BehaviourKind, Container, EventKind, Observation, ProcessKey, Record,
    RecordId, RecordKind, SockAddr, Stamp, Text,
};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Distinct contacts kept apart.
const CONTACTS_MAX: usize = 20_000;
/// Contacts listed one by one.
const SHOWN: usize = 40;
/// Addresses with names kept.
const NAMES_MAX: usize = 50_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Direction {
    Out,
    Datagram,
    In,
    Listen,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    proto: &'static str,
    peer: String,
    program: Text,
}

struct Contact {
    count: u64,
    failed: u64,
    first: Stamp,
    last: Stamp,
    who: String,
    process: ProcessKey,
    address: Option<IpAddr>,
    evidence: Vec<RecordId>,
}

/// Who learned that an address belongs to a name.
struct Learned {
    name: Text,
    process: ProcessKey,
    who: String,
    at: Stamp,
    id: RecordId,
}

/// A name that was asked for, and how it was answered.
struct Asked {
    count: u64,
    first: Stamp,
    who: String,
    codes: BTreeSet<u8>,
    evidence: Vec<RecordId>,
}

#[derive(Default)]
struct Found {
    contacts: HashMap<Key, Contact>,
    names: HashMap<IpAddr, Vec<Learned>>,
    learned: usize,
    /// By name and program.
    asked: HashMap<(Text, Text), Asked>,
    dropped: u64,
}

/// Q8.
pub(crate) fn contacts(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut found = Found::default();
    let looked = Acts::NETWORK.or(Acts::LOCAL_SOCKET);
    about.observations(looked, say.tally(), |id, o| found.add(id, &o))?;
    let mut list: Vec<(&Key, &Contact)> = found.contacts.iter().collect();
    list.sort_by(|(ak, a), (bk, b)| {
        (ak.direction, a.first.boot, &ak.peer).cmp(&(bk.direction, b.first.boot, &bk.peer))
    });
    for (key, contact) in list.iter().take(SHOWN) {
        say.observed(sentence(key, contact), &contact.evidence);
        named(about, &found, contact, say);
    }
    let rest = &list[list.len().min(SHOWN)..];
    if !rest.is_empty() || found.dropped > 0 {
        say.observed(
            format!(
                "{} are not listed: `plimsoll events --kind connect` has them.",
                count(rest.len() as u64 + found.dropped, "more contact")
            ),
            rest.iter().flat_map(|(_, c)| &c.evidence),
        );
    }
    questions(&found, say);
    let kinds = [
        BehaviourKind::Connect,
        BehaviourKind::Accept,
        BehaviourKind::Datagram,
        BehaviourKind::Dns,
        BehaviourKind::Listen,
    ];
    let known = counted(
        about,
        &kinds,
        |_| true,
        "On the network it did what its baseline knows",
        say,
    )?;
    conclude(about, &list, &found, known, say);
    Ok(())
}

fn conclude(
    about: &About<'_>,
    list: &[(&Key, &Contact)],
    found: &Found,
    known: bool,
    say: &mut Sentences,
) {
    let interval = about.interval.text();
    let outbound = list
        .iter()
        .any(|(k, _)| matches!(k.direction, Direction::Out | Direction::Datagram));
    if list.is_empty() && found.asked.is_empty() {
        let more = if known {
            " beyond what the baseline knows"
        } else {
            ""
        };
        say.unknown(format!("No connection was observed{more} {interval}. That is not proof that there was none: see the completeness below."));
    } else if !outbound {
        say.unknown(format!("No outbound connection was observed {interval}. That is not proof that there was none: see the completeness below."));
    } else {
        say.unknown("How much data went over these connections, and what, is not known: neither is recorded.");
    }
}

impl Found {
    fn add(&mut self, id: RecordId, o: &Observation) {
        match &o.event.kind {
            EventKind::Connect(c) => {
                self.contact(Direction::Out, c.proto.as_str(), &c.peer, Some(c), id, o)
            }
            EventKind::Datagram(c) => self.contact(
                Direction::Datagram,
                c.proto.as_str(),
                &c.peer,
                Some(c),
                id,
                o,
            ),
            EventKind::Accept(c) => {
                self.contact(Direction::In, c.proto.as_str(), &c.peer, Some(c), id, o)
            }
            EventKind::Listen { proto, local } => {
                self.contact(Direction::Listen, proto.as_str(), local, None, id, o)
            }
            EventKind::Dns(d) => self.dns(d, id, o),
            _ => {}
        }
    }

    fn contact(
        &mut self,
        direction: Direction,
        proto: &'static str,
        peer: &SockAddr,
        connection: Option<&Connection>,
        id: RecordId,
        o: &Observation,
    ) {
        // the port of an inbound peer is a new one each time
        let shown = match (direction, peer) {
            (Direction::In, SockAddr::Inet(ip, _)) => {
                let local = connection.and_then(|c| c.local.as_ref());
                format!(
                    "{ip}{}",
                    local.map(|l| format!(" to {l}")).unwrap_or_default()
                )
            }
            _ => describe::address(proto, peer),
        };
        let address = match peer {
            SockAddr::Inet(ip, _) if direction != Direction::Listen => Some(*ip),
            _ => None,
        };
        let key = Key {
            direction,
            proto,
            peer: shown,
            program: o.program(),
        };
        if self.contacts.len() >= CONTACTS_MAX && !self.contacts.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let contact = self.contacts.entry(key).or_insert_with(|| Contact {
            count: 0,
            failed: 0,
            first: o.at,
            last: o.at,
            who: chain(&o.lineage, o.event.process.key),
            process: o.event.process.key,
            address,
            evidence: Vec::new(),
        });
        contact.count += o.count.max(1);
        if connection.is_some_and(|c| c.result < 0 && c.result != -115) {
            contact.failed += o.count.max(1);
        }
        contact.first = contact.first.min(o.at);
        contact.last = contact.last.max(o.at);
        if contact.evidence.len() < EVIDENCE_MAX {
            contact.evidence.push(id);
        }
    }

    fn dns(&mut self, d: &Dns, id: RecordId, o: &Observation) {
        let who = chain(&o.lineage, o.event.process.key);
        for ip in &d.addresses {
            if self.learned < NAMES_MAX {
                self.learned += 1;
                let learned = Learned {
                    name: d.name.clone(),
                    process: o.event.process.key,
                    who: who.clone(),
                    at: o.at,
                    id: id.clone(),
                };
                self.names.entry(ip.0).or_default().push(learned);
            }
        }
        if self.asked.len() >= CONTACTS_MAX {
            return;
        }
        let asked = self
            .asked
            .entry((d.name.clone(), o.program()))
            .or_insert_with(|| Asked {
                count: 0,
                first: o.at,
                who,
                codes: BTreeSet::new(),
                evidence: Vec::new(),
            });
        asked.count += u64::from(!d.response) * o.count.max(1);
        asked.first = asked.first.min(o.at);
        if d.response {
            asked.codes.insert(d.rcode);
        }
        if asked.evidence.len() < EVIDENCE_MAX {
            asked.evidence.push(id);
        }
    }

    /// Who learned the name of this address: the process itself if it did, else another of the
    /// container; the last before the contact.
    fn name_of(&self, contact: &Contact) -> Option<&Learned> {
        let before = |l: &&Learned| l.at.boot <= contact.last.boot;
        let learned = self.names.get(&contact.address?)?;
        let own = learned
            .iter()
            .filter(before)
            .filter(|l| l.process == contact.process)
            .max_by_key(|l| l.at.boot);
        own.or_else(|| learned.iter().filter(before).max_by_key(|l| l.at.boot))
    }
}

fn sentence(key: &Key, c: &Contact) -> String {
    let verb = match key.direction {
        Direction::Out => "connected to",
        Direction::Datagram => "sent datagrams to",
        Direction::In => "accepted connections from",
        Direction::Listen => "listened on",
    };
    let failed = match c.failed {
        0 => String::new(),
        1 if c.count == 1 => "; it failed".to_owned(),
        n if n >= c.count => "; all of them failed".to_owned(),
        n => format!("; {n} of them failed"),
    };
    format!(
        "{} {verb} {} {}, {} {}{failed}.",
        c.who,
        key.proto,
        key.peer,
        times(c.count),
        between(c.first.wall, c.last.wall)
    )
}

/// The name behind an address, and the container behind it.
fn named(about: &About<'_>, found: &Found, contact: &Contact, say: &mut Sentences) {
    let Some(address) = contact.address else {
        return;
    };
    if let Some(l) = found.name_of(contact) {
        let who = if l.process == contact.process {
            "the same process".to_owned()
        } else {
            l.who.clone()
        };
        let ago = contact
            .first
            .boot
            .0
            .checked_sub(l.at.boot.0)
            .map(|ns| format!(", {} before", span(ns)))
            .unwrap_or_default();
        say.inferred(
            format!(
                "{address} is {}: {who} had resolved that name{ago}.",
                describe::path(&l.name)
            ),
            std::iter::once(&l.id).chain(&contact.evidence),
        );
    }
    let text = address.to_string();
    let found = about
        .directory
        .at_address(&text, contact.first.wall, about.container());
    let whom = |known: &Known| {
        let own = Some(&known.container.instance) == about.case.instance.as_ref();
        if own {
            "the container itself".to_owned()
        } else {
            about.directory.name(&known.container.instance)
        }
    };
    let evidence = found
        .iter()
        .flat_map(|k| &k.evidence)
        .chain(&contact.evidence);
    match &found[..] {
        [] => {}
        [one] => {
            let whom = whom(one);
            say.inferred(
                format!("{address} was the address of {whom} then."),
                evidence,
            );
        }
        several => {
            let names: Vec<String> = several.iter().take(3).map(|k| whom(k)).collect();
            let more = if several.len() > 3 { " or others" } else { "" };
            let names = names.join(" or ");
            say.inferred(format!("{address} was the address of {names}{more} then: networks here use the same addresses, so which one it was is not certain."), evidence);
        }
    }
}

/// Names asked for, with what came of it.
fn questions(found: &Found, say: &mut Sentences) {
    let mut list: Vec<_> = found.asked.iter().collect();
    list.sort_by(|((an, _), a), ((bn, _), b)| (a.first.boot, an).cmp(&(b.first.boot, bn)));
    for ((name, _), asked) in list.iter().take(SHOWN) {
        let addresses: BTreeSet<String> = found
            .names
            .iter()
            .filter(|(_, l)| l.iter().any(|l| l.name == *name))
            .map(|(ip, _)| ip.to_string())
            .take(8)
            .collect();
        let outcome = match (
            addresses.is_empty(),
            asked.codes.contains(&3),
            asked.codes.is_empty(),
        ) {
            (false, ..) => format!(
                "; the answer was {}",
                addresses.into_iter().collect::<Vec<_>>().join(", ")
            ),
            (true, true, _) => "; there is no such name".to_owned(),
            (true, false, true) => "; no answer was seen".to_owned(),
            (true, false, false) => "; the answer held no address".to_owned(),
        };
        let often = if asked.count > 1 {
            format!(", {}", times(asked.count))
        } else {
            String::new()
        };
        say.observed(
            format!(
                "{} asked for the name {}{often} from {}{outcome}.",
                asked.who,
                describe::path(name),
                describe::when(asked.first.wall)
            ),
            &asked.evidence,
        );
    }
    if list.len() > SHOWN {
        say.observed(
            format!(
                "{} are not listed: `plimsoll events --kind dns` has them.",
                count((list.len() - SHOWN) as u64, "more name")
            ),
            [],
        );
    }
}

/// Behaviours of these kinds that were only counted in the interval, because the baseline knows
/// them. Returns whether there were any.
pub(crate) fn counted(
    about: &About<'_>,
    kinds: &[BehaviourKind],
    wanted: impl Fn(&Behaviour) -> bool,
    lead: &str,
    say: &mut Sentences,
) -> Result<bool, AskError> {
    match about.container() {
        Some(c) => counted_of(about, c, kinds, wanted, lead, say),
        None => Ok(false),
    }
}

/// The same of another container.
pub(crate) fn counted_of(
    about: &About<'_>,
    container: &Container,
    kinds: &[BehaviourKind],
    wanted: impl Fn(&Behaviour) -> bool,
    lead: &str,
    say: &mut Sentences,
) -> Result<bool, AskError> {
    const LISTED: usize = 12;
    let (instance, digest) = (&container.instance, container.image.config_digest.as_ref());
    let Some(facts) = about.baselines.of_image(digest, &container.role) else {
        return Ok(false);
    };
    let known: HashMap<BehaviourId, &Behaviour> = facts
        .known
        .iter()
        .filter(|b| kinds.contains(&b.kind) && wanted(b))
        .map(|b| (b.id(), b))
        .collect();
    if known.is_empty() {
        return Ok(false);
    }
    let mut counts: HashMap<BehaviourId, u64> = HashMap::new();
    let mut evidence = Vec::new();
    about.visit(
        &Filter::of(&[RecordKind::Presence]).about(instance),
        say.tally(),
        &mut |id, _, record| {
            if let Record::Presence(p) = record
                && p.instance == *instance
                && about.interval.touches(p.from.wall, p.to.wall)
            {
                let ours: Vec<_> = p
                    .counts
                    .iter()
                    .filter(|(b, _)| known.contains_key(b))
                    .collect();
                ours.iter()
                    .for_each(|(b, n)| *counts.entry(*b).or_default() += n);
                if !ours.is_empty() && evidence.len() < EVIDENCE_MAX {
                    evidence.push(id);
                }
            }
        },
    )?;
    let mut list: Vec<(&Behaviour, u64)> = counts
        .iter()
        .filter_map(|(id, n)| Some((*known.get(id)?, *n)))
        .collect();
    list.sort_by(|(ab, a), (bb, b)| b.cmp(a).then_with(|| ab.cmp(bb)));
    if list.is_empty() {
        return Ok(false);
    }
    let shown: Vec<String> = list
        .iter()
        .take(LISTED)
        .map(|(b, n)| {
            format!(
                "{} {} {} (≥ {n})",
                describe::path(&b.program.basename()),
                b.operation,
                describe::path(&b.object)
            )
        })
        .collect();
    let more = if list.len() > LISTED {
        format!(", and {} more", list.len() - LISTED)
    } else {
        String::new()
    };
    say.observed(format!("{lead}, in the time slots that touch the interval: {}{more}. Such acts are counted, not kept one by one.", shown.join("; ")), &evidence);
    Ok(true)
}
