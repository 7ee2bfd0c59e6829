//! Q10: which identity the container held (uids, capabilities, service account, cloud role), and
//! what was done with it.

use crate::acts::{Acts, SERVICE_ACCOUNT};
use crate::collected::{Collected, failed};
use crate::opinions::tell;
use crate::say::{EVIDENCE_MAX, Sentences, times};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_model::names::capability_names;
use plimsoll_model::paths::{Sensitive, is_metadata, sensitive};
use plimsoll_model::{
    Entry, EventKind, FileOp, Observation, ProcessKey, RecordId, SockAddr, Stamp, Text,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Identities listed.
const IDENTITIES_SHOWN: usize = 12;
/// Distinct identities kept apart.
const IDENTITIES_MAX: usize = 1000;
/// Processes that read a credential, and acts of theirs afterwards.
const READERS_MAX: usize = 1000;
/// Acts with a credential told one by one.
const USES_SHOWN: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Use {
    Changed,
    SetId,
    Token,
    Credential,
    Metadata,
    Api,
}

impl Use {
    fn words(self) -> &'static str {
        match self {
            Use::Changed => "Identity changed",
            Use::SetId => "Set-uid program run",
            Use::Token => "The service account's token was read",
            Use::Credential => "A credential was read",
            Use::Metadata => {
                "The cloud's metadata service was contacted, which hands out the node's or task's role"
            }
            Use::Api => "The Kubernetes API was looked up or contacted",
        }
    }
}

/// Under which identity programs ran.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ran {
    uid: u32,
    euid: u32,
    caps: u64,
}

#[derive(Default)]
struct Found {
    ran: BTreeMap<Ran, (u64, BTreeSet<Text>, Vec<RecordId>)>,
    sessions: Vec<RecordId>,
    readers: HashMap<ProcessKey, (Stamp, String, RecordId)>,
    uses: Vec<(String, [RecordId; 2])>,
    more_uses: u64,
}

/// Q10.
pub(crate) fn held(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut found = Found::default();
    let mut uses: Collected<Use> = Collected::new();
    let looked = Acts::EXEC
        .or(Acts::READ_NOTABLE)
        .or(Acts::NETWORK)
        .or(Acts::OTHER);
    about.workload(looked, say, |id, o| {
        found.exec(&id, &o);
        found.afterwards(about, &id, &o);
        if let Some((kind, what)) = usage(about, &o) {
            if matches!(kind, Use::Token | Use::Credential) && found.readers.len() < READERS_MAX {
                found
                    .readers
                    .entry(o.event.process.key)
                    .or_insert_with(|| (o.at, what.clone(), id.clone()));
            }
            uses.add(kind, what, id, &o);
        }
    })?;
    found.say_ran(about, say);
    let asked_api = uses.has(Use::Api) || uses.has(Use::Token);
    let nothing = uses.is_empty();
    uses.say(Use::words, "plimsoll events", say);
    found.say_uses(say);
    let opinions = about.opinions(say)?;
    let about_identity = ["T1078", "T1528", "T1552", "T1548", "T1134"];
    let judged = opinions.iter().filter(|o| o.has(&about_identity));
    tell("Judged as use of an identity", judged, say);
    if nothing {
        say.unknown(format!("No change of identity and no use of a credential is recorded {}. That is not proof that there was none: what the baseline knows is only counted.", about.interval.text()));
    }
    found.missing(about, asked_api, say);
    Ok(())
}

/// What an act has to do with an identity.
fn usage(about: &About<'_>, o: &Observation) -> Option<(Use, String)> {
    let words = || about.action(&o.event.kind);
    Some(match &o.event.kind {
        EventKind::Credentials { .. } => (Use::Changed, words()),
        EventKind::Exec(e) if e.mode & 0o6000 != 0 => (Use::SetId, words()),
        EventKind::File(f) if f.op == FileOp::Read && !failed(f.result) => {
            let path = f.path.to_string();
            match sensitive(f.path.as_bytes()) {
                _ if path.contains(SERVICE_ACCOUNT) => (Use::Token, describe::path(&f.path)),
                Some(Sensitive::Credential | Sensitive::OwnSecret) => {
                    (Use::Credential, describe::path(&f.path))
                }
                _ => return None,
            }
        }
        EventKind::Connect(c) | EventKind::Datagram(c) => match &c.peer {
            SockAddr::Inet(ip, _) if is_metadata(*ip) => (Use::Metadata, words()),
            // the port of the Kubernetes API server when nothing else is configured
            SockAddr::Inet(_, 6443) => (Use::Api, words()),
            _ => return None,
        },
        EventKind::Dns(d) => {
            let name = d.name.to_string();
            match name.as_str() {
                "metadata.google.internal" => (Use::Metadata, words()),
                n if n.starts_with("kubernetes.default") => (Use::Api, words()),
                _ => return None,
            }
        }
        _ => return None,
    })
}

impl Found {
    fn exec(&mut self, id: &RecordId, o: &Observation) {
        let EventKind::Exec(e) = &o.event.kind else {
            return;
        };
        let entry = o.lineage.first().map(|a| a.entry);
        if entry == Some(Entry::ExecSession) && self.sessions.len() < EVIDENCE_MAX {
            self.sessions.push(id.clone());
        }
        let ran = Ran {
            uid: o.event.process.uid,
            euid: e.euid,
            caps: e.caps,
        };
        if self.ran.len() >= IDENTITIES_MAX && !self.ran.contains_key(&ran) {
            return;
        }
        let (count, programs, evidence) = self.ran.entry(ran).or_default();
        *count += o.count.max(1);
        if programs.len() < 100 {
            programs.insert(e.exe.basename());
        }
        if evidence.len() < EVIDENCE_MAX {
            evidence.push(id.clone());
        }
    }

    /// What a process that had read a credential, or a child of it, did on the network.
    fn afterwards(&mut self, about: &About<'_>, id: &RecordId, o: &Observation) {
        let (EventKind::Connect(c) | EventKind::Datagram(c)) = &o.event.kind else {
            return;
        };
        let own = std::iter::once(o.event.process.key);
        let line = own.chain(o.lineage.iter().map(|a| a.key));
        let reader = line.into_iter().find_map(|key| self.readers.get(&key));
        let Some((at, what, read)) = reader.filter(|(at, ..)| at.boot <= o.at.boot) else {
            return;
        };
        if failed(c.result) || matches!(c.peer, SockAddr::Unix(_)) {
            return;
        }
        if self.uses.len() >= USES_SHOWN {
            self.more_uses += 1;
            return;
        }
        let text = format!(
            "{} after it (or a process above it) had read {what}, {} {}, at {}: it may have used what it read.",
            span(o.at.boot.0 - at.boot.0),
            chain(&o.lineage, o.event.process.key),
            about.action(&o.event.kind),
            when(o.at.wall)
        );
        self.uses.push((text, [read.clone(), id.clone()]));
    }

    fn say_ran(&self, about: &About<'_>, say: &mut Sentences) {
        let mut list: Vec<_> = self.ran.iter().collect();
        list.sort_by_key(|(ran, (n, ..))| (std::cmp::Reverse(*n), **ran));
        for (ran, (n, programs, evidence)) in list.iter().take(IDENTITIES_SHOWN) {
            let effective = match ran.euid == ran.uid {
                true => String::new(),
                false => format!(" (effective {})", ran.euid),
            };
            let caps = match ran.caps {
                0 => "no capability".to_owned(),
                caps => capability_names(caps),
            };
            let names: Vec<String> = programs.iter().take(5).map(describe::path).collect();
            let more = if programs.len() > 5 { ", …" } else { "" };
            say.observed(
                format!(
                    "Programs ran as uid {}{effective} of the node, with {caps}: {} ({}{more}).",
                    ran.uid,
                    times(*n),
                    names.join(", ")
                ),
                evidence,
            );
        }
        if list.is_empty() {
            say.unknown(format!(
                "No exec is recorded {}, so the uid and capabilities that it ran with are not known.",
                about.interval.text()
            ));
        } else if let Some((_, (_, _, evidence))) = self.ran.iter().find(|(r, _)| r.euid == 0) {
            say.inferred(
                "uid 0 there is root of the node too: no user namespace lay between them.",
                evidence,
            );
        }
    }

    fn say_uses(&self, say: &mut Sentences) {
        for (text, evidence) in &self.uses {
            say.inferred(text.clone(), evidence);
        }
        if self.more_uses > 0 {
            let text = format!(
                "{} more connections of such processes are not listed.",
                self.more_uses
            );
            say.inferred(text, []);
        }
    }

    /// What only others know.
    fn missing(&self, about: &About<'_>, asked_api: bool, say: &mut Sentences) {
        let pod = about.container().is_some_and(|c| c.pod.is_some());
        if pod || asked_api {
            say.no_source(
                "the service account's name and rights, and what was asked of the Kubernetes API with it",
                "the Kubernetes audit log",
            );
        }
        say.no_source(
            "what was done with a cloud role or key outside this machine",
            "the cloud's audit log",
        );
        if !self.sessions.is_empty() {
            say.no_source(
                "who asked the runtime for the sessions that entered the container",
                "the audit log of the runtime or orchestrator",
            );
        }
    }
}
