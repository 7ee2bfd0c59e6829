//! Who an address is: workload service first, then the DNS name that this instance resolved.
//!
//! Promise: bounded; the newest answer wins; pure (answers arrive as observations).
//! Left out on purpose: asking anybody. Replay needs every name to come from an ordered entry.

use plimsoll_model::event::IpBytes;
use plimsoll_model::{EventKind, Instance, Observation};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// Turns an address into a name that outlives it.
pub trait PeerNames {
    /// Service (role) of the workload that holds this address now.
    fn service(&self, ip: IpAddr) -> Option<&str>;
    /// Name that this instance resolved to the address.
    fn dns(&self, instance: &Instance, ip: IpAddr) -> Option<&str>;
}

/// Knows nobody: peers are coded by address.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl PeerNames for NoNames {
    fn service(&self, _: IpAddr) -> Option<&str> {
        None
    }
    fn dns(&self, _: &Instance, _: IpAddr) -> Option<&str> {
        None
    }
}

/// Addresses kept for one instance; the oldest is forgotten first.
pub const MAX_NAMES_PER_INSTANCE: usize = 1024;
/// Instances with resolved names; beyond, the least recently answered is forgotten.
pub const MAX_NAMED_INSTANCES: usize = 1024;
/// Services known by address.
pub const MAX_SERVICES: usize = 16_384;

/// Names learned from DNS answers and from container identities.
#[derive(Clone, Debug, Default)]
pub struct ResolvedNames {
    services: HashMap<IpAddr, String>,
    resolved: BTreeMap<Instance, Answers>,
    clock: u64,
}

/// An instance's names as they are kept.
type KeptAnswers = (Instance, Vec<(IpBytes, String)>);

#[derive(Clone, Debug, Default)]
struct Answers {
    names: HashMap<IpAddr, String>,
    order: VecDeque<IpAddr>,
    used: u64,
}

impl ResolvedNames {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An address belongs to a workload's service from now on. False: the table is full.
    pub fn set_service(&mut self, ip: IpAddr, service: &str) -> bool {
        if self.services.len() >= MAX_SERVICES && !self.services.contains_key(&ip) {
            return false;
        }
        self.services.insert(ip, service.to_owned());
        true
    }

    /// An address belongs to nobody we know any more.
    pub fn remove_service(&mut self, ip: IpAddr) {
        self.services.remove(&ip);
    }

    /// An instance is gone.
    pub fn forget(&mut self, instance: &Instance) {
        self.resolved.remove(instance);
    }

    /// Takes the addresses of a DNS answer; anything else is ignored.
    pub fn note(&mut self, obs: &Observation) {
        let (EventKind::Dns(dns), Some(instance)) = (&obs.event.kind, &obs.instance) else {
            return;
        };
        if !dns.response || dns.addresses.is_empty() || dns.name.is_empty() {
            return;
        }
        let name = crate::code::dns_name(&dns.name);
        self.make_room(instance);
        self.clock += 1;
        let answers = self.resolved.entry(instance.clone()).or_default();
        answers.used = self.clock;
        for ip in dns.addresses.iter().take(16) {
            answers.insert(ip.0, &name);
        }
    }

    /// The names that answers gave, for whoever goes on later: CBOR, a list of instances with their
    /// addresses and names, in the order in which they would be forgotten.
    pub fn encode_answers(&self) -> Vec<u8> {
        let mut all: Vec<(&Instance, &Answers)> = self.resolved.iter().collect();
        all.sort_by_key(|(_, answers)| answers.used);
        let of = |answers: &Answers| -> Vec<(IpBytes, String)> {
            let name = |ip: &IpAddr| Some((IpBytes(*ip), answers.names.get(ip)?.clone()));
            answers.order.iter().filter_map(name).collect()
        };
        let all: Vec<KeptAnswers> = all.into_iter().map(|(i, a)| (i.clone(), of(a))).collect();
        minicbor::to_vec(all).expect("writing to memory cannot fail")
    }

    /// Takes what [`Self::encode_answers`] gave; anything else is ignored.
    pub fn resume_answers(&mut self, bytes: &[u8]) {
        let Ok(all) = minicbor::decode::<Vec<KeptAnswers>>(bytes) else {
            return;
        };
        for (instance, names) in all {
            self.make_room(&instance);
            self.clock += 1;
            let answers = self.resolved.entry(instance).or_default();
            answers.used = self.clock;
            for (ip, name) in names {
                answers.insert(ip.0, &name);
            }
        }
    }

    fn make_room(&mut self, instance: &Instance) {
        if self.resolved.len() < MAX_NAMED_INSTANCES || self.resolved.contains_key(instance) {
            return;
        }
        let oldest = self.resolved.iter().min_by_key(|(_, a)| a.used);
        if let Some(key) = oldest.map(|(k, _)| k.clone()) {
            self.resolved.remove(&key);
        }
    }
}

impl Answers {
    fn insert(&mut self, ip: IpAddr, name: &str) {
        if self.names.insert(ip, name.to_owned()).is_none() {
            self.order.push_back(ip);
        }
        if self.order.len() > MAX_NAMES_PER_INSTANCE
            && let Some(old) = self.order.pop_front()
        {
            self.names.remove(&old);
        }
    }
}

impl PeerNames for ResolvedNames {
    fn service(&self, ip: IpAddr) -> Option<&str> {
        self.services.get(&ip).map(String::as_str)
    }
    fn dns(&self, instance: &Instance, ip: IpAddr) -> Option<&str> {
        self.resolved
            .get(instance)?
            .names
            .get(&ip)
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::event::Dns;
    use plimsoll_model::{BootNs, ContainerId, Event};

    fn answer(to: &Instance, name: &str, ip: [u8; 4]) -> Observation {
        let kind = EventKind::Dns(Dns {
            response: true,
            name: name.into(),
            qtype: 1,
            rcode: 0,
            addresses: vec![IpBytes(ip.into())],
            server: None,
        });
        Observation {
            event: Event::new(kind),
            at: Default::default(),
            instance: Some(to.clone()),
            lineage: vec![].into(),
            lineage_cut: false,
            redacted: vec![],
            unknown_because: String::new(),
            count: 1,
        }
    }

    #[test]
    fn whoever_goes_on_knows_the_names_that_were_given_before() {
        let instance = |id: &str| Instance {
            id: ContainerId::parse(&id.repeat(64)).expect("hex"),
            start: BootNs(1),
        };
        let (web, db) = (instance("a"), instance("b"));
        let mut names = ResolvedNames::new();
        names.note(&answer(&web, "old.example", [10, 0, 0, 1]));
        names.note(&answer(&web, "new.example", [10, 0, 0, 1]));
        names.note(&answer(&db, "db.example", [10, 0, 0, 1]));
        let kept = names.encode_answers();
        let mut next = ResolvedNames::new();
        next.resume_answers(&kept);
        let ip = [10, 0, 0, 1].into();
        assert_eq!(next.dns(&web, ip), Some("new.example"));
        assert_eq!(next.dns(&db, ip), Some("db.example"));
        assert_eq!(next.encode_answers(), kept);
        for cut in 0..kept.len() {
            ResolvedNames::new().resume_answers(&kept[..cut]);
        }
        next.resume_answers(b"");
        assert_eq!(next.encode_answers(), kept, "what is none changes nothing");
    }
}
