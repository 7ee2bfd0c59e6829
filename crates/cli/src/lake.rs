//! The lake in the data directory, joined with the journal and with the coding of behaviours.

use crate::failure::Failure;
use crate::out::remark;
use crate::source::ask_evidence;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_api::{Client, describe};
use plimsoll_baseline::{PeerNames as _, ResolvedNames, behaviours};
use plimsoll_evidence::{Filter, Payload, ReadError, Reader};
use plimsoll_lake::{Body, Built, Coder, Entry, Journal, JournalError, Lake, LakeError, Seal};
use plimsoll_model::{
    Behaviour, Container, ContainerState, Observation, Record, RecordKind, WallNs,
};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// The journal, as the lake reads it.
pub(crate) struct LakeJournal(pub(crate) Reader);

impl Journal for LakeJournal {
    fn origin(&self) -> &str {
        self.0.origin()
    }

    fn end(&self) -> Result<u64, JournalError> {
        Ok(self.0.end()?.0)
    }

    fn each(
        &self,
        leaves: Range<u64>,
        kinds: &[u16],
        each: &mut dyn FnMut(Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let filter = Filter {
            leaves,
            kinds: kinds.to_vec(),
            ..Filter::default()
        };
        for found in self.0.scan(filter)? {
            let entry = match found {
                Ok(entry) => Entry {
                    leaf: entry.leaf.0,
                    wall: WallNs(entry.header.wall_ns),
                    body: body(entry.header.kind, &entry.payload),
                },
                Err(ReadError::DamagedLeaf { leaf, .. }) => unreadable(leaf),
                Err(ReadError::MissingLeaves { first, .. }) => unreadable(first),
                Err(e) => return Err(e.into()),
            };
            each(entry)?;
        }
        Ok(())
    }

    fn coder(&self) -> Box<dyn Coder> {
        Box::new(Coding::default())
    }
}

fn body(kind: u16, payload: &Payload) -> Body {
    match payload {
        Payload::Present { bytes, .. } => match Record::decode(kind, bytes) {
            Ok(record) => Body::Record(record),
            Err(_) => Body::Unreadable,
        },
        Payload::Pruned { .. } => Body::Pruned,
        Payload::Lost { .. } => Body::Unreadable,
    }
}

fn unreadable(leaf: u64) -> Entry {
    Entry {
        leaf,
        wall: WallNs(0),
        body: Body::Unreadable,
    }
}

/// Codes as the agent does, with the names that answers and identities gave by then.
#[derive(Default)]
struct Coding {
    names: ResolvedNames,
}

impl Coder for Coding {
    fn container(&mut self, container: &Container) {
        for ip in container.addresses.iter().filter_map(|a| a.parse().ok()) {
            if container.state != ContainerState::Gone && !container.role.is_empty() {
                self.names.set_service(ip, &container.role);
            } else if self.names.service(ip) == Some(&container.role) {
                self.names.remove_service(ip);
            }
        }
    }

    fn keep(&self) -> Vec<u8> {
        self.names.encode_answers()
    }

    fn resume(&mut self, kept: &[u8]) {
        self.names.resume_answers(kept);
    }

    fn behaviours(
        &mut self,
        observation: &Observation,
        container: Option<&Container>,
    ) -> Vec<Behaviour> {
        self.names.note(observation);
        container.map_or_else(Vec::new, |c| behaviours(observation, c, &self.names))
    }
}

impl From<LakeError> for Failure {
    fn from(e: LakeError) -> Self {
        match e {
            LakeError::Refused { .. } => Failure::Usage(e.to_string()),
            LakeError::Memory { .. } => Failure::Failed(format!(
                "{e}: give it more with --memory, or ask for less (a shorter time, one container)"
            )),
            LakeError::Time { .. } => Failure::Failed(format!(
                "{e}: give it more with --timeout, or ask for less (a shorter time, one container)"
            )),
            LakeError::Output(e) => match e.downcast::<Failure>() {
                Ok(failure) => *failure,
                Err(e) => Failure::Failed(e.to_string()),
            },
            LakeError::Engine(e) => Failure::Failed(e.strip_backtrace()),
            e => Failure::Data {
                what: e.to_string(),
                source: Some(Box::new(e)),
            },
        }
    }
}

/// The lake with everything that can be sealed. Where it cannot be written, as it is; where it
/// cannot even be read, none: then everything comes from the journal.
pub(crate) fn current(dir: &Path, journal: &LakeJournal) -> Lake {
    let origin = journal.origin();
    let mut lake = match Lake::open(dir, origin) {
        Ok(lake) => lake,
        Err(e) => {
            remark(&format!(
                "note: everything is read from the journal: {}",
                Failure::from(e).in_full()
            ));
            return Lake::none();
        }
    };
    for damage in &lake.contents().damage {
        let damage = describe::words(damage);
        remark(&format!(
            "note: {damage}; it is made again from the journal"
        ));
    }
    match lake.build(journal, &mut |_| {}) {
        // what another process is making is read from the journal meanwhile
        Ok(_) => {}
        Err(e) => remark(&format!(
            "note: the lake is not complete, and the rest is read from the journal: {}",
            Failure::from(e).in_full()
        )),
    }
    lake
}

/// Has the agent write down the digests of spans that the journal does not name yet. Without an
/// agent they are written down by whoever comes next.
pub(crate) fn tell(lake: &Lake, journal: &LakeJournal, agent: Option<&mut Client>) {
    let Some(client) = agent else { return };
    let named = match named(journal) {
        Ok(named) => named,
        Err(e) => {
            return remark(&format!(
                "note: digests of the lake are not recorded: {}",
                e.in_full()
            ));
        }
    };
    for seal in &lake.contents().seals {
        if named.get(&(seal.first, seal.end)) == Some(&seal.digest()) {
            continue;
        }
        let (first, end) = (seal.first, seal.end);
        if let Err(e) = ask_evidence(client, EvidenceAct::LakeSealed { first, end }, "") {
            return remark(&format!(
                "note: digests of the lake are not recorded: {}",
                e.in_full()
            ));
        }
    }
}

/// Spans that are not as the journal names them last, in words.
pub(crate) fn contradicted(lake: &Lake, journal: &LakeJournal) -> Result<Vec<Seal>, Failure> {
    let named = named(journal)?;
    let differs = |seal: &&Seal| {
        named
            .get(&(seal.first, seal.end))
            .is_some_and(|digest| *digest != seal.digest())
    };
    Ok(lake
        .contents()
        .seals
        .iter()
        .filter(differs)
        .cloned()
        .collect())
}

/// The digest of each span's seal, as the journal names it last.
fn named(journal: &LakeJournal) -> Result<HashMap<(u64, u64), [u8; 32]>, Failure> {
    let mut named = HashMap::new();
    let kinds = [RecordKind::LakeSealed as u16];
    let take = &mut |entry: Entry| {
        if let Body::Record(Record::LakeSealed(sealed)) = entry.body
            && let Some(seal) = sealed.files.first()
        {
            named.insert((sealed.first, sealed.end), seal.sha256);
        }
        Ok(())
    };
    journal
        .each(0..u64::MAX, &kinds, take)
        .map_err(LakeError::Journal)?;
    Ok(named)
}

/// What a step made, in words.
pub(crate) fn words(built: &Built) -> String {
    let seal = built.seal();
    let (rows, bytes) = seal
        .files
        .iter()
        .fold((0, 0), |(r, b), f| (r + f.rows, b + f.bytes));
    let what = match built {
        Built::Span(_) => "sealed",
        Built::Merged(_) => "merged",
    };
    format!(
        "{what} records {} to {}: {rows} rows in {} files, {bytes} bytes",
        seal.first,
        seal.end - 1,
        seal.files.len()
    )
}
