//! The journal in the data directory, decoded.
//!
//! Promise: filters are decided on leaf headers and, with needles, on bytes; only what is left is
//! decoded. Damage is counted and reading goes on behind it.

use crate::failure::Failure;
use crate::out::Progress;
use memchr::memmem::Finder;
use plimsoll_api::storage;
use plimsoll_ask::{Body, Filter, Records, RecordsError, Seen, Span};
use plimsoll_evidence::{
    self as evidence, InstanceKey, Leaf, OpenError, Payload, Picked, Picker, ReadError, Reader,
};
use plimsoll_model::{Container, Instance, NodeId, Record, RecordId, RecordKind, WallNs};
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// An open journal.
pub(crate) struct Journal {
    reader: Reader,
    origin: NodeId,
    span: Option<Span>,
    dir: PathBuf,
}

/// Which records, in the journal's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) kinds: Vec<RecordKind>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) from: Option<WallNs>,
    pub(crate) to: Option<WallNs>,
    pub(crate) needles: Vec<Vec<u8>>,
    pub(crate) newest_first: bool,
}

impl Journal {
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let reader = Reader::open(dir).map_err(|e| open_failure(dir, e))?;
        let origin = NodeId::parse(reader.origin()).map_err(|e| {
            Failure::Failed(format!(
                "journal {} has an origin that is {e}",
                dir.display()
            ))
        })?;
        let span = span(&reader).map_err(|e| read_failure(dir, e))?;
        Ok(Self {
            reader,
            origin,
            span,
            dir: dir.to_path_buf(),
        })
    }

    /// One past the last record.
    pub(crate) fn end(&self) -> Result<Leaf, Failure> {
        self.reader.end().map_err(|e| read_failure(&self.dir, e))
    }

    /// The reader itself, to follow the journal.
    pub(crate) fn into_reader(self) -> Reader {
        self.reader
    }

    pub(crate) fn id(&self, leaf: Leaf) -> RecordId {
        RecordId {
            origin: self.origin.clone(),
            leaf: leaf.0,
        }
    }

    /// Hands over what is wanted until told to stop.
    pub(crate) fn each(
        &self,
        wanted: &Wanted,
        mut each: impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        self.walk(wanted, &mut each)
            .map_err(|e| read_failure(&self.dir, e))
    }

    fn walk(
        &self,
        wanted: &Wanted,
        each: &mut dyn FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.walk_in(0..u64::MAX, wanted, each)
    }

    /// The same of some leaves only.
    pub(crate) fn walk_in(
        &self,
        leaves: Range<u64>,
        wanted: &Wanted,
        each: &mut dyn FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let needles = Needles::new(&wanted.needles);
        let progress = Progress::new("reading the journal");
        let filter = evidence::Filter {
            leaves,
            ..filter(wanted)
        };
        for found in self.reader.scan(filter)? {
            progress.step();
            if let Some(seen) = self.judged(found, &needles)?
                && each(seen).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// What was found, decoded; `None`: it does not hold what is looked for.
    pub(crate) fn judged(
        &self,
        found: Picked,
        needles: &Needles<'_>,
    ) -> Result<Option<Seen>, ReadError> {
        match found {
            Ok(entry) if !needles.may_hold(&entry.payload) => Ok(None),
            Ok(entry) => Ok(Some(self.seen(entry))),
            Err(ReadError::DamagedLeaf { leaf, .. }) => Ok(Some(self.damaged(leaf))),
            Err(ReadError::MissingLeaves { first, .. }) => Ok(Some(self.damaged(first))),
            Err(e) => Err(e),
        }
    }

    /// Hands over those of `leaves`, which rise, that are wanted; what the picker does not reach,
    /// because it came since, is looked for in the journal.
    pub(crate) fn pick(
        &self,
        picker: &mut Picker,
        leaves: &[u64],
        wanted: &Wanted,
        each: &mut dyn FnMut(Seen),
    ) -> Result<(), ReadError> {
        let needles = Needles::new(&wanted.needles);
        let (before, since) = leaves.split_at(leaves.partition_point(|l| *l < picker.end().0));
        let mut done = Ok(());
        picker.pick(
            before,
            &filter(wanted),
            &mut |picked| match self.judged(picked, &needles) {
                Ok(seen) => seen.into_iter().for_each(&mut *each),
                Err(e) => done = Err(e),
            },
        );
        done?;
        let (Some(first), Some(last)) = (since.first(), since.last()) else {
            return Ok(());
        };
        self.walk_in(*first..last.saturating_add(1), wanted, &mut |seen| {
            if since.binary_search(&seen.id.leaf).is_ok() {
                each(seen);
            }
            ControlFlow::Continue(())
        })
    }

    /// What reads the files.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) fn seen(&self, entry: evidence::Entry) -> Seen {
        let body = match &entry.payload {
            Payload::Present { bytes, .. } => match Record::decode(entry.header.kind, bytes) {
                Ok(record) => Body::Record(record),
                Err(_) => Body::Damaged,
            },
            Payload::Pruned { .. } => Body::Pruned,
            Payload::Lost { .. } => Body::Damaged,
        };
        Seen {
            id: self.id(entry.leaf),
            wall: WallNs(entry.header.wall_ns),
            body,
        }
    }

    fn damaged(&self, leaf: u64) -> Seen {
        Seen {
            id: self.id(Leaf(leaf)),
            wall: WallNs(0),
            body: Body::Damaged,
        }
    }

    /// The last word on every container instance.
    pub(crate) fn containers(&self) -> Result<Containers, Failure> {
        let mut known = HashMap::new();
        let wanted = Wanted {
            kinds: vec![RecordKind::Container],
            ..Wanted::default()
        };
        self.each(&wanted, |seen| {
            if let Body::Record(Record::Container(c)) = seen.body {
                known.insert(c.instance.clone(), c);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Containers(known))
    }
}

/// Byte strings of which a payload must hold one.
pub(crate) struct Needles<'a>(Vec<Finder<'a>>);

impl<'a> Needles<'a> {
    pub(crate) fn new(needles: &'a [Vec<u8>]) -> Self {
        Self(needles.iter().map(Finder::new).collect())
    }

    /// What has no content any more may have held them.
    fn may_hold(&self, payload: &Payload) -> bool {
        let found = |bytes| self.0.iter().any(|f| f.find(bytes).is_some());
        self.0.is_empty() || payload.bytes().is_none_or(found)
    }
}

/// Containers by instance.
pub(crate) struct Containers(HashMap<Instance, Container>);

impl Containers {
    pub(crate) fn get(&self, instance: &Instance) -> Option<&Container> {
        self.0.get(instance)
    }

    pub(crate) fn learn(&mut self, container: Container) {
        self.0.insert(container.instance.clone(), container);
    }

    /// All of them, by start.
    pub(crate) fn by_start(&self) -> Vec<&Container> {
        let mut all: Vec<&Container> = self.0.values().collect();
        all.sort_by_key(|c| (c.first_seen.wall, c.instance.clone()));
        all
    }

    /// Every instance that a name, a service's name, an id, the beginning of one, or `id@start` means.
    pub(crate) fn named(&self, text: &str) -> Result<Vec<Instance>, Failure> {
        let found = |test: &dyn Fn(&Container) -> bool| -> Vec<Instance> {
            self.by_start()
                .into_iter()
                .filter(|c| test(c))
                .map(|c| c.instance.clone())
                .collect()
        };
        let whole = |c: &Container| format!("{}@{}", c.id(), c.instance.start.0);
        let exact = found(&|c| {
            c.instance.to_string() == text || whole(c) == text || c.id().as_str() == text
        });
        if !exact.is_empty() {
            return Ok(exact);
        }
        let by_name = found(&|c| !c.name.is_empty() && c.name == text);
        if !by_name.is_empty() {
            return Ok(by_name);
        }
        let by_service = found(&|c| c.service.as_deref() == Some(text));
        if !by_service.is_empty() {
            return Ok(by_service);
        }
        let by_prefix = if text.len() >= 4 {
            found(&|c| c.id().as_str().starts_with(text))
        } else {
            vec![]
        };
        let mut ids: Vec<&str> = by_prefix.iter().map(|i| i.id.short()).collect();
        ids.dedup();
        match ids.len() {
            0 => {
                let all = self.by_start();
                let latest_first = all.iter().rev().map(|c| c.name.as_str());
                Err(Failure::Failed(format!(
                    "no container {text:?} in the journal{}: `plimsoll containers --all` lists them",
                    plimsoll_ask::alike(latest_first, text)
                )))
            }
            1 => Ok(by_prefix),
            n => Err(Failure::Failed(format!(
                "{text:?} fits {n} containers ({}): give more of the id",
                ids[..n.min(5)].join(", ")
            ))),
        }
    }
}

pub(crate) fn filter(wanted: &Wanted) -> evidence::Filter {
    let wall = match (wanted.from, wanted.to) {
        (None, None) => None,
        (from, to) => {
            Some(from.map_or(i64::MIN, |w| w.0)..to.map_or(i64::MAX, |w| w.0.saturating_add(1)))
        }
    };
    evidence::Filter {
        wall_ns: wall,
        kinds: wanted.kinds.iter().map(|k| *k as u16).collect(),
        containers: wanted
            .instances
            .iter()
            .map(|i| InstanceKey(storage::container_key(i)))
            .collect(),
        newest_first: wanted.newest_first,
        ..evidence::Filter::default()
    }
}

/// Times of the first and the last leaf.
fn span(reader: &Reader) -> Result<Option<Span>, ReadError> {
    let end = reader.end()?;
    let wall = |newest_first| -> Result<Option<WallNs>, ReadError> {
        let filter = evidence::Filter {
            newest_first,
            ..evidence::Filter::default()
        };
        let first_whole = reader.scan(filter)?.take(64).find_map(Result::ok);
        Ok(first_whole.map(|e| WallNs(e.header.wall_ns)))
    };
    if end.0 == 0 {
        return Ok(None);
    }
    Ok(wall(false)?
        .zip(wall(true)?)
        .map(|(first, last)| Span { first, last }))
}

pub(crate) fn open_failure(dir: &Path, e: OpenError) -> Failure {
    let shown = dir.display();
    let io = |e: &OpenError| match e {
        OpenError::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    let what = match (&e, io(&e)) {
        (_, Some(std::io::ErrorKind::PermissionDenied)) => {
            format!("not allowed to read the journal in {shown}: run as root")
        }
        _ if !dir.exists() => match dir.parent().map(std::fs::metadata) {
            Some(Err(denied)) if denied.kind() == std::io::ErrorKind::PermissionDenied => {
                format!("not allowed to read the journal in {shown}: run as root")
            }
            _ => {
                return Failure::Failed(format!(
                    "there is no journal in {shown}: start the agent with `plimsoll run`, or name its directory with --data-dir"
                ));
            }
        },
        _ => format!("cannot open the journal in {shown}"),
    };
    Failure::Data {
        what,
        source: Some(Box::new(e)),
    }
}

pub(crate) fn read_failure(dir: &Path, e: ReadError) -> Failure {
    Failure::Data {
        what: format!("cannot read the journal in {}", dir.display()),
        source: Some(Box::new(e)),
    }
}

impl Records for Journal {
    fn origin(&self) -> &NodeId {
        &self.origin
    }

    fn span(&self) -> Option<Span> {
        self.span
    }

    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(Seen)) -> Result<(), RecordsError> {
        self.walk(&Wanted::of(filter), &mut |seen| {
            each(seen);
            ControlFlow::Continue(())
        })
        .map_err(|e| self.records_error(e))
    }

    fn visit_leaves(
        &self,
        filter: &Filter,
        leaves: &[u64],
        each: &mut dyn FnMut(Seen),
    ) -> Result<(), RecordsError> {
        let picker = self.reader.picker();
        let mut picker = picker.map_err(|e| self.records_error(e))?;
        self.pick(&mut picker, leaves, &Wanted::of(filter), each)
            .map_err(|e| self.records_error(e))
    }

    fn get(&self, id: &RecordId) -> Result<Option<Seen>, RecordsError> {
        if id.origin != self.origin {
            return Ok(None);
        }
        match self.reader.get(Leaf(id.leaf)) {
            Ok(entry) => Ok(entry.map(|e| self.seen(e))),
            Err(ReadError::DamagedLeaf { leaf, .. }) => Ok(Some(self.damaged(leaf))),
            Err(ReadError::MissingLeaves { .. }) => Ok(None),
            Err(e) => Err(self.records_error(e)),
        }
    }
}

impl Wanted {
    /// What a question asks for.
    pub(crate) fn of(filter: &Filter) -> Self {
        let all = (1..=u16::from(u8::MAX)).filter_map(RecordKind::from_u16);
        Self {
            kinds: all.filter(|k| filter.kinds.has(*k as u16)).collect(),
            instances: filter.instance.iter().cloned().collect(),
            from: filter.from,
            to: filter.to,
            needles: filter.needles(),
            newest_first: false,
        }
    }
}

impl Journal {
    pub(crate) fn records_error(&self, e: ReadError) -> RecordsError {
        RecordsError {
            what: format!("cannot read the journal in {}", self.dir.display()),
            source: Some(Box::new(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_evidence::Tombstone;
    use plimsoll_model::record::Removal;

    #[test]
    fn what_the_journal_writes_of_a_removal_is_what_answers_read() {
        let written = Tombstone {
            class: 3,
            first: 65_536,
            end: 131_072,
            bytes: 99,
            root: Some([7; 32]),
            reason: "age".into(),
            actor: "retention".into(),
            policy: "30d".into(),
        };
        let read = Removal::decode(&written.encode()).expect("it decodes");
        assert_eq!(
            (read.class, read.first, read.end, read.bytes),
            (3, 65_536, 131_072, 99)
        );
        let words = [read.reason, read.actor, read.policy];
        assert_eq!(words, ["age", "retention", "30d"]);
    }
}
