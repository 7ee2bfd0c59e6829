//! The journal as questions read it: the records that concern them, by lists of leaves, not all of
//! them.
//!
//! Promises: what is handed over is what the journal read whole would hand over, in the same order,
//! down to the last durable record. Lists only say where to look: every record comes from the
//! journal, checked against its leaf. Leaves that no list covers, whose list is damaged or was made
//! of another journal, are read one by one.
//!
//! One thing differs: a record that was damaged after its list was made is told where the list says
//! that it concerns the question, and a whole reading would tell it in any case.

use crate::failure::Failure;
use crate::journal::{Journal, Needles, Wanted, filter as leaves_of};
use crate::out::{Progress, remark};
use plimsoll_api::storage;
use plimsoll_ask::{Filter, Mark, Records, RecordsError, Seen, Span, container_key, kind_key};
use plimsoll_evidence::{
    self as evidence, Leaf, Payload, Picker, ReadError, RetentionClass, merkle,
};
use plimsoll_lake::{LeafIndex, LeafLists, LeafWriter, SPAN_LEAVES, SpanLeaves};
use plimsoll_model::{NodeId, Record, RecordId, RecordKind};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// Under this key are leaves that could not be read: each may be what is looked for.
const UNREADABLE: u64 = u64::MAX;

/// A journal with lists.
pub(crate) struct Listed<'a> {
    journal: &'a Journal,
    spans: BTreeMap<u64, SpanLeaves>,
    picker: RefCell<Picker>,
    end: u64,
    /// Where the lists are.
    dir: PathBuf,
    /// First leaves of spans whose lists turned out to be damaged.
    damaged: RefCell<BTreeSet<u64>>,
}

/// Makes the lists that are missing.
pub(crate) fn make(journal: &Path, dir: &Path) -> Result<(), Failure> {
    Listed::open(&Journal::open(journal)?, dir).map(drop)
}

/// Removes all lists, which are made again for the next question.
pub(crate) fn forget(dir: &Path) -> Result<(), Failure> {
    let mut index = LeafIndex::open(dir)?;
    let all: Vec<u64> = index.spans().collect();
    let Some(mut writer) = index.write()? else {
        return Ok(());
    };
    all.into_iter()
        .try_for_each(|first| Ok(writer.forget(first)?))
}

/// How a stretch of leaves is read.
#[derive(Debug, PartialEq, Eq)]
enum Stretch {
    /// These.
    Picked(Vec<u64>),
    /// All of them.
    Whole(Range<u64>),
}

impl<'a> Listed<'a> {
    /// Opens the lists in the lake's directory, and makes those that are missing where it can.
    pub(crate) fn open(journal: &'a Journal, dir: &Path) -> Result<Self, Failure> {
        let picker = journal
            .reader()
            .picker()
            .map_err(|e| Failure::from(journal.records_error(e)))?;
        let mut listed = Self {
            journal,
            spans: BTreeMap::new(),
            end: picker.end().0,
            picker: RefCell::new(picker),
            dir: dir.to_path_buf(),
            damaged: RefCell::default(),
        };
        // lists speak of whole subtrees, whose content goes at once
        if journal.reader().subtree_leaves() == SPAN_LEAVES {
            match LeafIndex::open(dir) {
                Ok(mut index) => listed.take(&mut index),
                Err(e) => remark(&format!("note: {}", Failure::from(e).in_full())),
            }
        }
        let unlisted = listed
            .whole_spans()
            .filter(|f| !listed.spans.contains_key(f));
        let unlisted = unlisted.count() as u64 * SPAN_LEAVES;
        if unlisted > 0 {
            remark(&format!(
                "note: {unlisted} records are in no list yet and are read one by one, which takes longer: `plimsoll lake build` lists them"
            ));
        }
        Ok(listed)
    }

    /// First leaves of the spans that are all durable.
    fn whole_spans(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.end / SPAN_LEAVES).map(|n| n * SPAN_LEAVES)
    }

    /// Reads what there is and makes what is missing.
    fn take(&mut self, index: &mut LeafIndex) {
        let there: Vec<u64> = index
            .spans()
            .filter(|f| f + SPAN_LEAVES <= self.end)
            .collect();
        for first in there {
            self.learn(index.read(first));
        }
        if self
            .whole_spans()
            .all(|first| self.spans.contains_key(&first))
        {
            return;
        }
        match index.write() {
            // whoever is at it makes them for the next question
            Ok(None) => {}
            Ok(Some(mut writer)) => self.make(&mut writer),
            Err(e) => remark(&format!(
                "note: lists of records are not kept: {}",
                Failure::from(e).in_full()
            )),
        }
        let missing: Vec<u64> = self.whole_spans().collect();
        for first in missing {
            if !self.spans.contains_key(&first) {
                self.learn(index.read(first));
            }
        }
    }

    /// A list counts only where the journal is the one that it was made of.
    fn learn(&mut self, span: Option<SpanLeaves>) {
        if let Some(span) = span
            && self.anchor(span.first()).as_ref() == Some(span.anchor())
        {
            self.spans.insert(span.first(), span);
        }
    }

    /// The hash of a span's last leaf, which is salted: no two journals have the same.
    fn anchor(&self, first: u64) -> Option<[u8; 32]> {
        let mut found = None;
        let last = [first + SPAN_LEAVES - 1];
        let all = evidence::Filter::default();
        self.picker.borrow_mut().pick(&last, &all, &mut |picked| {
            found = picked.ok().map(|e| merkle::leaf_hash(&e.leaf_bytes));
        });
        found
    }

    fn make(&self, writer: &mut LeafWriter<'_>) {
        let progress = Progress::new("listing the journal's records");
        for first in self.whole_spans() {
            if self.spans.contains_key(&first) {
                continue;
            }
            let made = lists(self.journal, first, &progress);
            let kept = match (made, self.anchor(first)) {
                (Ok(Some(lists)), Some(anchor)) => writer.put(&lists, &anchor),
                // what cannot be listed is read one by one, and says so itself
                (Ok(_), _) => Ok(()),
                (Err(_), _) => return,
            };
            if let Err(e) = kept {
                return remark(&format!(
                    "note: lists of records are not kept: {}",
                    Failure::from(e).in_full()
                ));
            }
        }
    }

    fn stretches(&self, filter: &Filter) -> Vec<Stretch> {
        let mut all: Vec<Stretch> = Vec::new();
        for first in self.whole_spans() {
            let next = match self.leaves(first, filter) {
                Some(leaves) => Stretch::Picked(leaves),
                None => Stretch::Whole(first..first + SPAN_LEAVES),
            };
            put(&mut all, next);
        }
        let behind = self.end / SPAN_LEAVES * SPAN_LEAVES;
        put(&mut all, Stretch::Whole(behind..u64::MAX));
        all
    }

    /// Leaves of a span among which are all that fit; `None`: its list cannot tell.
    fn leaves(&self, first: u64, filter: &Filter) -> Option<Vec<u64>> {
        let span = self.spans.get(&first)?;
        let (from, to) = times(filter);
        if !span.touches(from, to) {
            return Some(vec![]);
        }
        let keys = self.keys(span, filter)?;
        let leaves = span.leaves(&keys, from, to);
        if leaves.is_none() {
            self.distrust(first);
        }
        leaves
    }

    /// A damaged list is done without now, and made again for the next question.
    fn distrust(&self, first: u64) {
        if !self.damaged.borrow_mut().insert(first) {
            return;
        }
        remark(&format!(
            "note: the list of records {first} to {} is damaged: they are read one by one, and listed again the next time",
            first + SPAN_LEAVES - 1
        ));
        // where that cannot be, it stays damaged and says so again
        let forgotten = LeafIndex::open(&self.dir)
            .and_then(|mut index| index.write()?.map_or(Ok(()), |mut w| w.forget(first)));
        drop(forgotten);
    }

    fn keys(&self, span: &SpanLeaves, filter: &Filter) -> Option<Vec<u64>> {
        let kinds: Vec<RecordKind> = (1..64)
            .filter(|k| filter.kinds.has(*k))
            .filter_map(RecordKind::from_u16)
            .filter(|k| span.has_kind(*k as u16))
            .collect();
        let mut keys = vec![UNREADABLE];
        if !filter.marks.is_empty() {
            // of content that is gone nobody knows what it bore
            let kept = |kind: &RecordKind| {
                let class = RetentionClass::new(storage::retention_class(*kind));
                let reader = self.journal.reader();
                class.is_some_and(|class| reader.keeps(Leaf(span.first()), class))
            };
            if !kinds.iter().all(kept) {
                return None;
            }
            let counted = filter.marks.iter().any(|m| m.key().is_none());
            keys.extend(counted.then(|| kind_key(RecordKind::Presence)));
            keys.extend(filter.marks.iter().filter_map(Mark::key));
        } else if let Some(instance) = &filter.instance {
            let container = storage::container_key(instance);
            keys.extend(kinds.iter().map(|k| container_key(&container, *k as u16)));
        } else if kinds.iter().any(|k| !has_list(*k)) {
            return None;
        } else {
            keys.extend(kinds.iter().copied().map(kind_key));
        }
        Some(keys)
    }

    fn read(&self, stretch: Stretch, wanted: &Wanted, each: &mut dyn FnMut(Seen)) -> Done {
        let leaves = match stretch {
            Stretch::Picked(leaves) => leaves,
            Stretch::Whole(leaves) => {
                return self.journal.walk_in(leaves, wanted, &mut |seen| {
                    each(seen);
                    ControlFlow::Continue(())
                });
            }
        };
        let needles = Needles::new(&wanted.needles);
        let mut done = Ok(());
        let mut picker = self.picker.borrow_mut();
        picker.pick(&leaves, &leaves_of(wanted), &mut |picked| match self
            .journal
            .judged(picked, &needles)
        {
            Ok(seen) => seen.into_iter().for_each(&mut *each),
            Err(e) => done = Err(e),
        });
        done
    }
}

type Done = Result<(), ReadError>;

impl Records for Listed<'_> {
    fn origin(&self) -> &NodeId {
        self.journal.origin()
    }

    fn span(&self) -> Option<Span> {
        self.journal.span()
    }

    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(Seen)) -> Result<(), RecordsError> {
        let wanted = Wanted::of(filter);
        for stretch in self.stretches(filter) {
            self.read(stretch, &wanted, each)
                .map_err(|e| self.journal.records_error(e))?;
        }
        Ok(())
    }

    fn get(&self, id: &RecordId) -> Result<Option<Seen>, RecordsError> {
        if id.origin != *self.origin() || id.leaf >= self.end {
            return self.journal.get(id);
        }
        let mut found = Ok(None);
        let all = evidence::Filter::default();
        let mut picker = self.picker.borrow_mut();
        picker.pick(&[id.leaf], &all, &mut |picked| {
            found = match picked {
                Err(ReadError::MissingLeaves { .. }) => Ok(None),
                picked => self.journal.judged(picked, &Needles::new(&[])),
            };
        });
        found.map_err(|e| self.journal.records_error(e))
    }
}

/// Whether all records of a kind are in one list. Of observations there are too many for it to be
/// of use.
fn has_list(kind: RecordKind) -> bool {
    kind != RecordKind::Observation
}

fn times(filter: &Filter) -> (i64, i64) {
    let from = filter.from.map_or(i64::MIN, |w| w.0);
    (from, filter.to.map_or(i64::MAX, |w| w.0))
}

/// Puts a stretch behind others, into the last one where they are alike.
fn put(all: &mut Vec<Stretch>, next: Stretch) {
    match (all.last_mut(), next) {
        (Some(Stretch::Picked(leaves)), Stretch::Picked(more)) => leaves.extend(more),
        (Some(Stretch::Whole(leaves)), Stretch::Whole(more)) => leaves.end = more.end,
        (_, next) => all.push(next),
    }
}

/// The lists of one span; `None`: leaves are missing in it.
fn lists(
    journal: &Journal,
    first: u64,
    progress: &Progress,
) -> Result<Option<LeafLists>, ReadError> {
    let mut lists = LeafLists::new(first);
    let all = evidence::Filter {
        leaves: first..first + SPAN_LEAVES,
        ..evidence::Filter::default()
    };
    let mut listed = 0;
    for found in journal.reader().scan(all)? {
        progress.step();
        match found {
            Ok(entry) => {
                let header = (entry.header.wall_ns, entry.header.kind);
                lists.add(entry.leaf.0, Some(header), &keys_of(&entry));
            }
            Err(ReadError::DamagedLeaf { leaf, .. }) => lists.add(leaf, None, &[UNREADABLE]),
            Err(ReadError::MissingLeaves { .. }) => return Ok(None),
            Err(e) => return Err(e),
        }
        listed += 1;
    }
    Ok((listed == SPAN_LEAVES).then_some(lists))
}

/// Under what a record is listed.
fn keys_of(entry: &evidence::Entry) -> Vec<u64> {
    let kind = entry.header.kind;
    let mut keys = Vec::new();
    if let Some(known) = RecordKind::from_u16(kind).filter(|k| has_list(*k)) {
        keys.push(kind_key(known));
    }
    if let Some(container) = entry.header.container {
        keys.push(container_key(&container.0, kind));
    }
    match &entry.payload {
        Payload::Present { bytes, .. } => match Record::decode(kind, bytes) {
            Ok(record) => {
                let marks = Mark::of_record(&record);
                keys.extend(marks.iter().filter_map(Mark::key));
            }
            Err(_) => keys.push(UNREADABLE),
        },
        // known by the files that are not there
        Payload::Pruned { .. } => {}
        Payload::Lost { .. } => keys.push(UNREADABLE),
    }
    keys
}

#[cfg(test)]
mod tests;
