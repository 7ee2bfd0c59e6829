//! Q12: lateral movement. Out of the container, in at another, and what was new there afterwards.
//!
//! Promise: a movement is concluded only from both ends: a connection that this container made, one
//! that the other accepted from this container's address, and something new there behind it.

use crate::acts::Acts;
use crate::collected::failed;
use crate::directory::{Known, lived_at, nearest};
use crate::interval::{Interval, between};
use crate::network::counted_of;
use crate::records::Filter;
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_api::types::class_name;
use plimsoll_model::event::Connection;
use plimsoll_model::{
    AlertSource, BehaviourKind, EventKind, Gap, GapScope, Instance, Observation, ProcessKey,
    Record, RecordId, RecordKind, SockAddr, Stamp, Text, WallNs,
};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Other containers looked at.
const OTHERS_MAX: usize = 20;
/// Distinct contacts kept.
const CONTACTS_MAX: usize = 2000;
/// What happens at the other end this long after the last contact counts as behind it.
const BEHIND_NS: u64 = 600_000_000_000;
/// Clocks of two ends are one; what they stamp may differ by this.
const SLACK_NS: i64 = 1_000_000_000;
/// New things at the other end told one by one.
const SHOWN: usize = 8;

/// Contacts with one container at one address and port.
struct Contact {
    count: u64,
    failed: u64,
    first: Stamp,
    last: Stamp,
    who: String,
    evidence: Vec<RecordId>,
}

/// By `tcp 10.0.0.5:6379` and program.
type ByPeer = BTreeMap<(String, Text), Contact>;

#[derive(Default)]
struct Contacts {
    with: BTreeMap<Instance, ByPeer>,
    /// Addresses of inside networks that belong to no container known here.
    strangers: BTreeMap<IpAddr, Vec<RecordId>>,
    kept: usize,
    dropped: u64,
}

/// Q12.
pub(crate) fn movement(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let directory = about.directory;
    let by_address = directory.by_address();
    let at = |ip: &IpAddr, wall: WallNs| {
        let all = by_address.get(ip)?;
        let lived = all.iter().copied().filter(|k| lived_at(&k.container, wall));
        // where networks use the same addresses, the one of the same project
        nearest(lived, about.container()).first().copied()
    };
    let (mut out, mut inward) = (Contacts::default(), Contacts::default());
    about.workload(Acts::NETWORK, say, |id, o| match &o.event.kind {
        EventKind::Connect(c) | EventKind::Datagram(c) => out.add(about, &at, c, false, id, &o),
        EventKind::Accept(c) => inward.add(about, &at, c, true, id, &o),
        _ => {}
    })?;
    let mut order: Vec<(&Instance, &ByPeer)> = out.with.iter().collect();
    order.sort_by_key(|(_, contacts)| contacts.values().map(|c| c.first.boot).min());
    let mut seen = Vec::new();
    for (instance, contacts) in order.iter().take(OTHERS_MAX) {
        if let Some(known) = directory.get(instance) {
            other_end(about, known, contacts, say)?;
            seen.push((*instance).clone());
        }
    }
    if order.len() > OTHERS_MAX {
        let rest = (order.len() - OTHERS_MAX) as u64;
        let limit = format!(
            "{} that it contacted were not looked at.",
            count(rest, "more container")
        );
        say.tally().limits.push(limit);
    }
    say_inward(about, &inward, say);
    say_strangers(&out, say);
    let dropped = out.dropped + inward.dropped;
    if dropped > 0 {
        say.tally()
            .limits
            .push(format!("{dropped} contacts did not fit into memory."));
    }
    gaps_elsewhere(about, &seen, say)?;
    if out.with.is_empty() {
        say.unknown(format!("No connection of it to another container is recorded {}. That is not proof that there was none: see the completeness below.", about.interval.text()));
    }
    say.no_source(
        "containers of other nodes as the other end",
        "the journals of the other nodes (fleet)",
    );
    Ok(())
}

impl Contacts {
    fn add<'k>(
        &mut self,
        about: &About<'_>,
        at: &impl Fn(&IpAddr, WallNs) -> Option<&'k Known>,
        c: &Connection,
        inbound: bool,
        id: RecordId,
        o: &Observation,
    ) {
        let SockAddr::Inet(ip, _) = &c.peer else {
            return;
        };
        let Some(known) = at(ip, o.at.wall) else {
            if is_inside(*ip) && !inbound && self.strangers.len() < CONTACTS_MAX {
                let evidence = self.strangers.entry(*ip).or_default();
                if evidence.len() < 3 {
                    evidence.push(id);
                }
            }
            return;
        };
        let other = &known.container.instance;
        if Some(other) == about.case.instance.as_ref() {
            return;
        }
        if self.kept >= CONTACTS_MAX {
            self.dropped += 1;
            return;
        }
        // the port of whoever connects is a new one each time
        let what = match (inbound, &c.local) {
            (true, Some(local)) => format!("{} {ip} to {local}", c.proto.as_str()),
            (true, None) => format!("{} {ip}", c.proto.as_str()),
            (false, _) => format!("{} {}", c.proto.as_str(), c.peer),
        };
        let contacts = self.with.entry(other.clone()).or_default();
        let contact = contacts.entry((what, o.program())).or_insert_with(|| {
            self.kept += 1;
            Contact {
                count: 0,
                failed: 0,
                first: o.at,
                last: o.at,
                who: chain(&o.lineage, o.event.process.key),
                evidence: Vec::new(),
            }
        });
        contact.count += o.count.max(1);
        contact.failed += if failed(c.result) { o.count.max(1) } else { 0 };
        contact.first = contact.first.min(o.at);
        contact.last = contact.last.max(o.at);
        if contact.evidence.len() < EVIDENCE_MAX {
            contact.evidence.push(id);
        }
    }
}

/// Addresses that are not of the internet.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xfe00) == 0xfc00,
    }
}

/// What the records of the other container say of the same time.
#[derive(Default)]
struct OtherEnd {
    accepts: u64,
    accepted_by: String,
    /// When each process first accepted from here.
    acceptors: HashMap<ProcessKey, Stamp>,
    accepted: Vec<RecordId>,
    /// New programs started below an acceptor.
    ran: Vec<(String, RecordId)>,
    more_ran: u64,
    /// Drifts and alerts.
    judged: BTreeMap<String, (Stamp, String, Vec<RecordId>)>,
}

fn other_end(
    about: &About<'_>,
    other: &Known,
    contacts: &ByPeer,
    say: &mut Sentences,
) -> Result<(), AskError> {
    let name = about.directory.name(&other.container.instance);
    for ((what, _), c) in contacts {
        let failed = match c.failed {
            0 => String::new(),
            n if n >= c.count => "; it failed".to_owned(),
            n => format!("; {n} of them failed"),
        };
        say.inferred(
            format!(
                "Out: {} connected to {what}, {} {}{failed}; that was the address of {name} then.",
                c.who,
                times(c.count),
                between(c.first.wall, c.last.wall)
            ),
            c.evidence
                .iter()
                .take(EVIDENCE_MAX - 2)
                .chain(&other.evidence),
        );
    }
    let (Some(first), Some(last)) = (
        contacts.values().map(|c| c.first).min(),
        contacts.values().map(|c| c.last).max(),
    ) else {
        return Ok(());
    };
    let window = Interval {
        from: WallNs(first.wall.0 - SLACK_NS),
        to: WallNs(last.wall.0.saturating_add_unsigned(BEHIND_NS)),
    };
    let addresses: Vec<IpAddr> = about
        .container()
        .into_iter()
        .flat_map(|c| &c.addresses)
        .filter_map(|a| a.parse().ok())
        .collect();
    let end = look(about, &other.container.instance, &addresses, window, say)?;
    let evidence: Vec<RecordId> = contacts.values().flat_map(|c| c.evidence.clone()).collect();
    end.say(about, other, &name, &addresses, window, &evidence, say)
}

fn look(
    about: &About<'_>,
    other: &Instance,
    addresses: &[IpAddr],
    window: Interval,
    say: &mut Sentences,
) -> Result<OtherEnd, AskError> {
    let mut end = OtherEnd::default();
    let kinds = [
        RecordKind::Observation,
        RecordKind::Drift,
        RecordKind::Alert,
    ];
    let filter = Filter::of(&kinds)
        .about(other)
        .between(window.from, window.to);
    about.visit(&filter, say.tally(), &mut |id, _, record| match record {
        Record::Observation(o) if o.instance.as_ref() == Some(other) => {
            end.observed(about, addresses, id, &o);
        }
        Record::Drift(d) if d.instance == *other => {
            let text = format!(
                "{} (risk {}): {}",
                class_name(d.class).replace('_', " "),
                d.risk.as_str(),
                crate::baseline::behaviour(&d.behaviour)
            );
            end.judge(d.behaviour.id().to_string(), d.first, text, id);
        }
        Record::Alert(a) if a.instance.as_ref() == Some(other) => match &a.source {
            AlertSource::Drift(d) => {
                end.judge(
                    d.behaviour.id().to_string(),
                    d.first,
                    a.output.to_string(),
                    id,
                );
            }
            AlertSource::Rule(_) => end.judge(a.id.to_string(), a.at, a.output.to_string(), id),
        },
        _ => {}
    })?;
    end.judged.retain(|_, (at, ..)| at.wall >= window.from);
    Ok(end)
}

impl OtherEnd {
    fn observed(&mut self, about: &About<'_>, addresses: &[IpAddr], id: RecordId, o: &Observation) {
        match &o.event.kind {
            EventKind::Accept(c) => {
                let SockAddr::Inet(ip, _) = &c.peer else {
                    return;
                };
                if !addresses.contains(ip) {
                    return;
                }
                self.accepts += o.count.max(1);
                if self.accepted_by.is_empty() {
                    self.accepted_by = chain(&o.lineage, o.event.process.key);
                }
                if self.acceptors.len() < CONTACTS_MAX {
                    self.acceptors.entry(o.event.process.key).or_insert(o.at);
                }
                if self.accepted.len() < EVIDENCE_MAX {
                    self.accepted.push(id);
                }
            }
            EventKind::Exec(_) => {
                let accepted = |a: &plimsoll_model::Ancestor| {
                    self.acceptors
                        .get(&a.key)
                        .is_some_and(|at| at.boot <= o.at.boot)
                };
                if !o.lineage.iter().any(accepted) {
                    return;
                }
                if self.ran.len() >= SHOWN {
                    self.more_ran += 1;
                    return;
                }
                let text = format!(
                    "{} {} at {}",
                    chain(&o.lineage, o.event.process.key),
                    about.action(&o.event.kind),
                    when(o.at.wall)
                );
                self.ran.push((text, id));
            }
            _ => {}
        }
    }

    fn judge(&mut self, key: String, at: Stamp, text: String, id: RecordId) {
        if self.judged.len() >= CONTACTS_MAX && !self.judged.contains_key(&key) {
            return;
        }
        let (first, _, evidence) = self.judged.entry(key).or_insert((at, text, Vec::new()));
        *first = (*first).min(at);
        if evidence.len() < 4 {
            evidence.push(id);
        }
    }

    #[allow(clippy::too_many_arguments)] // one place, and each is another thing
    fn say(
        &self,
        about: &About<'_>,
        other: &Known,
        name: &str,
        addresses: &[IpAddr],
        window: Interval,
        out: &[RecordId],
        say: &mut Sentences,
    ) -> Result<(), AskError> {
        self.say_accepts(about, other, name, addresses, window, say)?;
        for (text, id) in &self.ran {
            say.observed(
                format!("New process at {name}, below the one that accepted: {text}."),
                [id],
            );
        }
        if self.more_ran > 0 {
            say.observed(
                format!("New processes at {name}: {} more.", self.more_ran),
                self.ran.iter().map(|(_, id)| id),
            );
        }
        let mut judged: Vec<_> = self.judged.values().collect();
        judged.sort_by_key(|(at, text, _)| (at.boot, text.clone()));
        for (at, text, evidence) in judged.iter().take(SHOWN) {
            let text = describe::words(text.trim_end_matches('.'));
            say.observed(
                format!("Judged at {name} afterwards: {text}, at {}.", when(at.wall)),
                evidence,
            );
        }
        if judged.len() > SHOWN {
            let rest = &judged[SHOWN..];
            say.observed(
                format!("Judged at {name} afterwards: {} more.", rest.len()),
                rest.iter().flat_map(|(_, _, e)| e),
            );
        }
        let new: Vec<&RecordId> = self
            .ran
            .iter()
            .map(|(_, id)| id)
            .chain(self.judged.values().flat_map(|(_, _, e)| e))
            .collect();
        let both = || out.iter().take(5).chain(self.accepted.iter().take(5));
        match (self.accepted.is_empty(), new.is_empty()) {
            (false, false) => say.inferred(
                format!("Movement to {name} is likely: it was reached from here, and something new happened there within {}.", span(BEHIND_NS)),
                both().chain(new),
            ),
            (false, true) => say.inferred(
                format!("{name} was reached from here; nothing new is recorded there within {} after.", span(BEHIND_NS)),
                both(),
            ),
            (true, false) => say.inferred(
                format!("Something new happened at {name} after the contact; that the contact caused it is not shown."),
                new,
            ),
            (true, true) => {}
        }
        Ok(())
    }

    fn say_accepts(
        &self,
        about: &About<'_>,
        other: &Known,
        name: &str,
        addresses: &[IpAddr],
        window: Interval,
        say: &mut Sentences,
    ) -> Result<(), AskError> {
        if !self.accepted.is_empty() {
            let by = &self.accepted_by;
            say.observed(
                format!(
                    "In: at {name}, {by} accepted from this container's address, {}.",
                    times(self.accepts)
                ),
                &self.accepted,
            );
            return Ok(());
        }
        let own: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let lead = format!("At {name} connections were accepted that its baseline knows");
        let from_here = |b: &plimsoll_model::Behaviour| {
            let object = b.object.to_string();
            object.contains("any")
                || own.iter().any(|a| object.contains(a.as_str()))
                || !object.contains(" from ")
        };
        let known = counted_of(
            about,
            &other.container,
            &[BehaviourKind::Accept],
            from_here,
            &lead,
            say,
        )?;
        let why = match (own.is_empty(), known) {
            (true, _) => {
                "this container's own address is not recorded, so what came from it cannot be told there"
            }
            (false, true) => "what its baseline knows is only counted",
            (false, false) => {
                "it may have come through an address translated on the way, or been refused"
            }
        };
        say.unknown(format!(
            "At {name} no connection from this container is recorded {}: {why}.",
            window.text()
        ));
        Ok(())
    }
}

/// Containers that connected to this one.
fn say_inward(about: &About<'_>, inward: &Contacts, say: &mut Sentences) {
    for (instance, contacts) in inward.with.iter().take(OTHERS_MAX) {
        let Some(known) = about.directory.get(instance) else {
            continue;
        };
        let name = about.directory.name(instance);
        for ((what, _), c) in contacts.iter().take(SHOWN) {
            say.inferred(
                format!(
                    "Into it: {} accepted {what}, {} {}; that was the address of {name} then.",
                    c.who,
                    times(c.count),
                    between(c.first.wall, c.last.wall)
                ),
                c.evidence
                    .iter()
                    .take(EVIDENCE_MAX - 2)
                    .chain(&known.evidence),
            );
        }
    }
}

fn say_strangers(out: &Contacts, say: &mut Sentences) {
    if out.strangers.is_empty() {
        return;
    }
    let shown: Vec<String> = out
        .strangers
        .keys()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = if out.strangers.len() > SHOWN {
        ", …"
    } else {
        ""
    };
    say.observed(
        format!(
            "It contacted {} of inside networks that belonged to no container known here: {}{more} (Q8 has each).",
            count(out.strangers.len() as u64, "address"),
            shown.join(", ")
        ),
        out.strangers.values().flatten(),
    );
}

/// What was lost at the other ends weakens this answer too.
fn gaps_elsewhere(
    about: &About<'_>,
    others: &[Instance],
    say: &mut Sentences,
) -> Result<(), AskError> {
    if others.is_empty() {
        return Ok(());
    }
    let until = WallNs(about.interval.to.0.saturating_add_unsigned(BEHIND_NS));
    let mut lost: BTreeMap<&Instance, u64> = BTreeMap::new();
    about
        .records
        .visit(&Filter::of(&[RecordKind::Gap]), &mut |seen| {
            if let crate::Body::Record(Record::Gap(Gap {
                scope: GapScope::Container(i),
                from,
                to,
                ..
            })) = &seen.body
                && let Some(other) = others.iter().find(|o| *o == i)
                && from.wall <= until
                && to.wall >= about.interval.from
            {
                *lost.entry(other).or_default() += 1;
            }
        })?;
    for (other, n) in lost {
        let name = about.directory.name(other);
        let limit = format!(
            "{} in what was seen of {name}, the other end.",
            count(n, "gap")
        );
        say.tally().limits.push(limit);
    }
    Ok(())
}
