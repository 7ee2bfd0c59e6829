//! The journal as questions read it: the records that concern them, by lists of leaves, not all of
//! them.
//!
//! Promises: what is handed over is what the journal read whole would hand over, in the same order,
//! down to the last durable record. Lists only say where to look: records come from the journal,
//! checked against their leaves. Leaves that no list covers, whose list is damaged or was made of
//! another journal, are read one by one. The few that every question reads (identities of containers,
//! the agent's lives, gaps, deletions) are copied into the lists when these are made, and read there
//! as long as the journal has their contents.
//!
//! One thing differs: a record that was damaged after its list was made is told where the list says
//! that it concerns the question, and a whole reading would tell it in any case; what was copied is
//! told as it was.

use crate::failure::Failure;
use crate::journal::{Journal, Needles, Wanted, filter as leaves_of};
use crate::out::{Progress, remark};
use plimsoll_api::storage;
use plimsoll_ask::{
    Acts, Body, Filter, Mark, Records, RecordsError, Seen, Span, Survey, acts_key, container_key,
    kind_key,
};
use plimsoll_evidence::{self as evidence, Payload, Picker, ReadError, RetentionClass};
use plimsoll_lake::{
    Copied, LIST_LEAVES, LakeError, LeafFile, LeafIndex, LeafLists, LeafWriter, SPAN_LEAVES,
};
use plimsoll_model::{NodeId, Record, RecordId, RecordKind, WallNs};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// Under this key are leaves that could not be read: each may be what is looked for.
const UNREADABLE: u64 = u64::MAX;
/// Leaves that are listed at once where nothing is listed yet.
const AT_ONCE: u64 = LIST_LEAVES[2];
/// Leaves without a file that are listed for one question, in memory.
const IN_MEMORY_MAX: u64 = SPAN_LEAVES;
/// What every question reads.
const COPIED: [RecordKind; 4] = [
    RecordKind::Container,
    RecordKind::Lifecycle,
    RecordKind::Gap,
    RecordKind::Tombstone,
];

/// A journal with lists.
pub(crate) struct Listed<'a> {
    journal: &'a Journal,
    /// By first leaf: those that are of this journal, and those of the tail that are in memory only.
    files: BTreeMap<u64, LeafFile>,
    picker: RefCell<Picker>,
    end: u64,
    /// Where the lists are.
    dir: PathBuf,
    /// First leaves of files whose lists turned out to be damaged.
    damaged: RefCell<BTreeSet<u64>>,
    /// By class, the subtrees whose contents are there.
    kept: RefCell<BTreeMap<u8, BTreeSet<u64>>>,
}

/// Makes the lists that are missing.
pub(crate) fn make(journal: &Path, dir: &Path) -> Result<(), Failure> {
    Listed::open(&Journal::open(journal)?, dir).map(drop)
}

/// Removes all lists, which are made again for the next question.
pub(crate) fn forget(dir: &Path) -> Result<(), Failure> {
    let mut index = LeafIndex::open(dir)?;
    let all: Vec<u64> = index.files().map(|leaves| leaves.start).collect();
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
    /// What the file that begins there has copies of, but for what is not there any more; and these.
    Copied {
        first: u64,
        gone: BTreeSet<u64>,
        too: Vec<u64>,
    },
}

/// Under what to look into a file.
struct Keys {
    /// Where contents are there.
    there: Vec<u64>,
    /// Where they are not, and nobody knows what they were; `None`: at all leaves.
    gone: Option<Vec<u64>>,
    /// Classes on whose contents that depends.
    classes: BTreeSet<u8>,
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
            files: BTreeMap::new(),
            end: picker.end().0,
            picker: RefCell::new(picker),
            dir: dir.to_path_buf(),
            damaged: RefCell::default(),
            kept: RefCell::default(),
        };
        // lists speak of whole subtrees, whose content goes at once
        if journal.reader().subtree_leaves() == SPAN_LEAVES {
            match LeafIndex::open(dir) {
                Ok(mut index) => listed.take(&mut index),
                Err(e) => remark(&format!("note: {}", Failure::from(e).in_full())),
            }
            listed.list_in_memory();
        }
        let unlisted: u64 = listed.holes(listed.end).map(|h| h.end - h.start).sum();
        if unlisted > 0 {
            remark(&format!(
                "note: {unlisted} records are in no list yet and are read one by one, which takes longer: `plimsoll lake build` lists them"
            ));
        }
        Ok(listed)
    }

    /// Leaves before `end` that no file lists.
    fn holes(&self, end: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let mut holes = Vec::new();
        let mut at = 0;
        for file in self.files.values().map(LeafFile::leaves) {
            if file.start > at {
                holes.push(at..file.start.min(end));
            }
            at = at.max(file.end);
        }
        if at < end {
            holes.push(at..end);
        }
        holes.into_iter()
    }

    /// Leaves that a file could list, and none does.
    fn missing(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        self.holes(self.end / LIST_LEAVES[0] * LIST_LEAVES[0])
    }

    /// Reads what there is and makes what is missing.
    fn take(&mut self, index: &mut LeafIndex) {
        self.learn(index);
        if self.missing().next().is_none() {
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
        // as they are now: some may have become one, by us or by whoever is at it
        if let Ok(now) = LeafIndex::open(&self.dir) {
            self.files.clear();
            self.learn(&now);
        }
    }

    fn learn(&mut self, index: &LeafIndex) {
        for leaves in index.files().filter(|f| f.end <= self.end) {
            if let Some(file) = index.read(leaves.start).filter(|f| self.is_ours(f)) {
                self.files.insert(leaves.start, file);
            }
        }
    }

    /// A list counts only where the journal is the one that it was made of.
    fn is_ours(&self, file: &LeafFile) -> bool {
        self.anchor(file.leaves().end).as_ref() == Some(file.anchor())
    }

    /// The hash of the last leaf before `end`, which is salted: no two journals have the same. With
    /// what the keys stand on.
    fn anchor(&self, end: u64) -> Option<[u8; 32]> {
        let mut anchor = self.picker.borrow_mut().leaf_hash(end.checked_sub(1)?)?;
        let version = plimsoll_ask::acts_version().to_le_bytes();
        anchor.iter_mut().zip(version).for_each(|(a, v)| *a ^= v);
        Some(anchor)
    }

    fn make(&self, writer: &mut LeafWriter<'_>) {
        let made = self.make_all(writer);
        if let Err(e) = made {
            remark(&format!(
                "note: lists of records are not kept: {}",
                Failure::from(e).in_full()
            ));
        }
    }

    fn make_all(&self, writer: &mut LeafWriter<'_>) -> Result<(), LakeError> {
        let progress = Progress::new("listing the journal's records");
        let strange: Vec<u64> = writer
            .files()
            .filter(|f| !writer.read(f.start).is_some_and(|file| self.is_ours(&file)))
            .map(|f| f.start)
            .collect();
        for first in strange {
            writer.forget(first)?;
        }
        for hole in self.missing() {
            let mut at = hole.start;
            while at < hole.end {
                let leaves = at..at + size_at(at, hole.end);
                at = leaves.end;
                if writer.read(leaves.start).is_some() {
                    continue;
                }
                let Ok(lists) = lists(self.journal, leaves.clone(), &progress) else {
                    return Ok(());
                };
                // what cannot be listed is read one by one, and says so itself
                if let (Some(lists), Some(anchor)) = (lists, self.anchor(leaves.end)) {
                    writer.put(&lists, leaves.end, &anchor)?;
                    writer.merge()?;
                }
            }
        }
        writer.merge()
    }

    /// The tail that fills no file, and what could not be kept in one, if it is not too much.
    fn list_in_memory(&mut self) {
        let holes: Vec<Range<u64>> = self.holes(self.end).collect();
        if holes.iter().map(|h| h.end - h.start).sum::<u64>() > IN_MEMORY_MAX {
            return;
        }
        let progress = Progress::new("listing the journal's records");
        for leaves in holes {
            let made = lists(self.journal, leaves.clone(), &progress);
            if let Ok(Some(lists)) = made
                && let Some(file) = lists.in_memory(leaves.end)
            {
                self.files.insert(leaves.start, file);
            }
        }
    }

    /// All leaves in order, each piece with the file that lists it: what comes while somebody asks
    /// is in the last one.
    fn pieces(&self) -> impl Iterator<Item = (Range<u64>, Option<&LeafFile>)> {
        let listed = self.files.values().map(|file| (file.leaves(), Some(file)));
        let end = std::iter::once((u64::MAX..u64::MAX, None));
        let mut at = 0;
        listed.chain(end).flat_map(move |(leaves, file)| {
            let hole = (leaves.start > at).then_some((at..leaves.start, None));
            at = leaves.end;
            hole.into_iter()
                .chain(file.map(|file| (leaves, Some(file))))
        })
    }

    /// In order, and of all leaves.
    fn stretches(&self, filter: &Filter) -> Vec<Stretch> {
        let mut all: Vec<Stretch> = Vec::new();
        for (leaves, file) in self.pieces() {
            match file.and_then(|file| self.looked_up(file, filter)) {
                Some(stretches) => stretches.into_iter().for_each(|s| put(&mut all, s)),
                None => put(&mut all, Stretch::Whole(leaves)),
            }
        }
        all
    }

    /// Leaves of a file among which are all that fit; `None`: it cannot tell.
    fn looked_up(&self, file: &LeafFile, filter: &Filter) -> Option<Vec<Stretch>> {
        let (from, to) = times(filter);
        if !file.touches(from, to) {
            return Some(vec![]);
        }
        if let Some(copied) = self.copied(file, filter) {
            return Some(vec![copied]);
        }
        self.picked(file, filter)
    }

    /// The same without copies.
    fn picked(&self, file: &LeafFile, filter: &Filter) -> Option<Vec<Stretch>> {
        let (from, to) = times(filter);
        let keys = self.keys(file, filter)?;
        let gone = self.gone(file, &keys.classes);
        let of = |keys: &[u64]| {
            let leaves = file.find(keys, from, to);
            if leaves.is_none() {
                self.distrust(file);
            }
            leaves
        };
        let mut leaves = of(&keys.there)?;
        if gone.is_empty() {
            return Some(vec![Stretch::Picked(leaves)]);
        }
        let is_gone = |leaf: &u64| gone.contains(&subtree_of(*leaf));
        leaves.retain(|leaf| !is_gone(leaf));
        if let Some(keys) = &keys.gone {
            leaves.extend(of(keys)?.iter().filter(|leaf| is_gone(leaf)));
            leaves.sort();
            return Some(vec![Stretch::Picked(leaves)]);
        }
        let mut stretches = Vec::new();
        let mut rest = &leaves[..];
        for first in gone {
            let whole =
                first.max(file.leaves().start)..(first + SPAN_LEAVES).min(file.leaves().end);
            let (before, behind) = rest.split_at(rest.partition_point(|leaf| *leaf < whole.start));
            stretches.extend([Stretch::Picked(before.to_vec()), Stretch::Whole(whole)]);
            rest = behind;
        }
        stretches.push(Stretch::Picked(rest.to_vec()));
        Some(stretches)
    }

    /// The same by copies; `None`: there are none of what is looked for.
    fn copied(&self, file: &LeafFile, filter: &Filter) -> Option<Stretch> {
        let kinds = filter_kinds(filter);
        let all = filter.marks.is_empty() && filter.instance.is_none();
        if !all || !file.has_copies() || !kinds.iter().all(|kind| COPIED.contains(kind)) {
            return None;
        }
        let classes = kinds.iter().map(|k| storage::retention_class(*k)).collect();
        let gone = self.gone(file, &classes);
        let (from, to) = times(filter);
        // what could not be read was not copied
        let mut too = file.find(&[UNREADABLE], from, to)?;
        if !gone.is_empty() {
            let keys: Vec<u64> = kinds.into_iter().map(kind_key).collect();
            let listed = file.find(&keys, from, to)?.into_iter();
            too.extend(listed.filter(|leaf| gone.contains(&subtree_of(*leaf))));
            too.sort_unstable();
            too.dedup();
        }
        let first = file.leaves().start;
        Some(Stretch::Copied { first, gone, too })
    }

    /// Hands over what was copied, in order with what has to be read. `false`: the copies are damaged.
    fn read_copied(
        &self,
        (file, gone, too): (&LeafFile, &BTreeSet<u64>, &[u64]),
        wanted: &Wanted,
        each: &mut dyn FnMut(Seen),
    ) -> Result<bool, ReadError> {
        let Some(copies) = file.copies() else {
            return Ok(false);
        };
        let of_kind = |copied: &Copied<'_>| wanted.kinds.iter().any(|k| *k as u16 == copied.kind);
        let between = |copied: &Copied<'_>| {
            let wall = WallNs(copied.wall);
            wanted.from.is_none_or(|from| wall >= from) && wanted.to.is_none_or(|to| wall <= to)
        };
        let mut rest = too;
        let pick = |leaves: &[u64], each: &mut dyn FnMut(Seen)| match leaves {
            [] => Ok(()),
            _ => self.read(Stretch::Picked(leaves.to_vec()), wanted, each),
        };
        for copied in copies.iter().filter(|c| of_kind(c) && between(c)) {
            if gone.contains(&subtree_of(copied.leaf)) {
                continue;
            }
            let before = rest.partition_point(|leaf| *leaf < copied.leaf);
            pick(&rest[..before], each)?;
            rest = &rest[before..];
            // what cannot be read was not copied, but a copy of it may be damaged
            let body = match Record::decode(copied.kind, copied.content) {
                Ok(record) => Body::Record(record),
                Err(_) => Body::Damaged,
            };
            each(Seen {
                id: self.journal.id(evidence::Leaf(copied.leaf)),
                wall: WallNs(copied.wall),
                body,
            });
        }
        pick(rest, each)?;
        Ok(true)
    }

    /// Subtrees of a file of which some content is not where it was written.
    fn gone(&self, file: &LeafFile, classes: &BTreeSet<u8>) -> BTreeSet<u64> {
        let mut gone = BTreeSet::new();
        let leaves = file.leaves();
        let subtrees = (subtree_of(leaves.start)..leaves.end).step_by(SPAN_LEAVES as usize);
        for subtree in subtrees {
            let own = subtree.max(leaves.start)..(subtree + SPAN_LEAVES).min(leaves.end);
            let has = |class: &&u8| of_class(**class).any(|kind| file.has_kind(kind as u16, &own));
            if classes
                .iter()
                .filter(has)
                .any(|class| !self.keeps(subtree, *class))
            {
                gone.insert(subtree);
            }
        }
        gone
    }

    /// Whether the content of a class is where it was written.
    fn keeps(&self, subtree: u64, class: u8) -> bool {
        let mut kept = self.kept.borrow_mut();
        let of_class = kept.entry(class).or_insert_with(|| {
            let class = RetentionClass::new(class);
            let listed = class.and_then(|class| self.journal.reader().kept(class).ok());
            listed.unwrap_or_default()
        });
        of_class.contains(&subtree)
    }

    /// A damaged list is done without now, and made again for the next question.
    fn distrust(&self, file: &LeafFile) {
        let leaves = file.leaves();
        if !self.damaged.borrow_mut().insert(leaves.start) {
            return;
        }
        remark(&format!(
            "note: the list of records {} to {} is damaged: they are read one by one, and listed again the next time",
            leaves.start,
            leaves.end - 1
        ));
        // where that cannot be, it stays damaged and says so again
        let forgotten = LeafIndex::open(&self.dir).and_then(|mut index| {
            index
                .write()?
                .map_or(Ok(()), |mut w| w.forget(leaves.start))
        });
        drop(forgotten);
    }

    fn keys(&self, file: &LeafFile, filter: &Filter) -> Option<Keys> {
        let mut kinds = filter_kinds(filter);
        kinds.retain(|k| file.has_kind(*k as u16, &file.leaves()));
        let classes =
            |kinds: &[RecordKind]| kinds.iter().map(|k| storage::retention_class(*k)).collect();
        if !filter.marks.is_empty() {
            // of content that is gone nobody knows what it bore
            return Some(Keys {
                there: with_unreadable(filter.marks.iter().map(Mark::key)),
                gone: None,
                classes: classes(&kinds),
            });
        }
        let Some(instance) = &filter.instance else {
            let listed = kinds.iter().all(|k| has_list(*k));
            return listed.then(|| Keys {
                there: with_unreadable(kinds.iter().copied().map(kind_key)),
                gone: None,
                classes: BTreeSet::new(),
            });
        };
        let container = storage::container_key(instance);
        let of = |acts: Acts| {
            with_unreadable(
                kinds
                    .iter()
                    .flat_map(|kind| keys_about(&container, *kind, acts)),
            )
        };
        let observations = kinds.contains(&RecordKind::Observation);
        Some(Keys {
            there: of(filter.acts.unwrap_or(Acts::ALL)),
            gone: Some(of(Acts::ALL)),
            classes: match observations && filter.acts.is_some() {
                true => classes(&[RecordKind::Observation]),
                false => BTreeSet::new(),
            },
        })
    }

    /// The latest time that a listed leaf can have.
    fn latest_of(&self, leaf: u64) -> i64 {
        let file = self.files.range(..=leaf).next_back();
        file.map_or(i64::MAX, |(_, file)| file.latest(leaf))
    }

    /// Observations of a container in a file that lie in the interval: by sort where their content
    /// is there, and leaves that have to be read to be known. `None`: it cannot tell.
    fn sorts(&self, file: &LeafFile, filter: &Filter) -> Option<(Vec<Sorted>, Vec<u64>)> {
        let (from, to) = times(filter);
        let instance = filter.instance.as_ref()?;
        if !file.touches(from, to) {
            return Some((vec![], vec![]));
        }
        let container = storage::container_key(instance);
        let class = storage::retention_class(RecordKind::Observation);
        let gone = self.gone(file, &BTreeSet::from([class]));
        let is_gone = |leaf: &u64| gone.contains(&subtree_of(*leaf));
        let wanted = leaves_of(&Wanted::of(filter));
        let (mut sorted, mut unknown) = (Vec::new(), file.find(&[UNREADABLE], from, to)?);
        for sort in Acts::EVERY.numbers() {
            let mut found = file.find(&[acts_key(&container, sort)], from, to)?;
            unknown.extend(found.extract_if(.., |leaf| is_gone(leaf)));
            let (mut sure, near): (Vec<u64>, Vec<u64>) = found
                .into_iter()
                .partition(|leaf| file.is_between(*leaf, from, to) == Some(true));
            sure.extend(self.picker.borrow_mut().matching(&near, &wanted));
            sorted.extend(sure.into_iter().map(|leaf| (leaf, sort)));
        }
        unknown.sort_unstable();
        unknown.dedup();
        Some((sorted, unknown))
    }

    /// The same for leaves that are read, each with all its sorts.
    fn survey_read(
        &self,
        stretch: Stretch,
        filter: &Filter,
        sorted: &mut Vec<Sorted>,
        unread: &mut dyn FnMut(Seen),
    ) -> Done {
        self.read(stretch, &Wanted::of(filter), &mut |seen| match &seen.body {
            Body::Record(Record::Observation(o)) if o.instance == filter.instance => {
                let sorts = Acts::of(o).numbers();
                sorted.extend(sorts.map(|sort| (seen.id.leaf, sort)));
            }
            Body::Record(_) => {}
            Body::Pruned | Body::Damaged => unread(seen),
        })
    }

    fn survey_all(
        &self,
        filter: &Filter,
        survey: &mut Survey,
        unread: &mut dyn FnMut(Seen),
    ) -> Done {
        for (leaves, file) in self.pieces() {
            let by_list = file.and_then(|file| self.sorts(file, filter));
            if let (None, Some(file), Some(_)) = (&by_list, file, &filter.instance) {
                self.distrust(file);
            }
            let (mut sorted, rest) = match by_list {
                Some((sorted, unknown)) => (sorted, Stretch::Picked(unknown)),
                None => (Vec::new(), Stretch::Whole(leaves)),
            };
            self.survey_read(rest, filter, &mut sorted, unread)?;
            sorted.sort_unstable();
            for (leaf, sort) in sorted {
                survey.add_of(leaf, sort);
            }
        }
        Ok(())
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
            Stretch::Copied { first, gone, too } => {
                let Some(file) = self.files.get(&first) else {
                    return Ok(());
                };
                if self.read_copied((file, &gone, &too), wanted, each)? {
                    return Ok(());
                }
                self.distrust(file);
                return self.read(Stretch::Whole(file.leaves()), wanted, each);
            }
        };
        let mut picker = self.picker.borrow_mut();
        self.journal.pick(&mut picker, &leaves, wanted, each)
    }
}

type Done = Result<(), ReadError>;
/// A leaf and the number of one of its sorts.
type Sorted = (u64, u8);

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

    fn survey(
        &self,
        filter: &Filter,
        survey: &mut Survey,
        unread: &mut dyn FnMut(Seen),
    ) -> Result<(), RecordsError> {
        self.survey_all(&filter.of_all_sorts(), survey, unread)
            .map_err(|e| self.journal.records_error(e))
    }

    fn visit_leaves(
        &self,
        filter: &Filter,
        leaves: &[u64],
        each: &mut dyn FnMut(Seen),
    ) -> Result<(), RecordsError> {
        self.read(Stretch::Picked(leaves.to_vec()), &Wanted::of(filter), each)
            .map_err(|e| self.journal.records_error(e))
    }

    fn latest(
        &self,
        kind: RecordKind,
        from: WallNs,
        to: WallNs,
    ) -> Result<Option<WallNs>, RecordsError> {
        let filter = Filter::of(&[kind]).between(from, to);
        let wanted = Wanted::of(&filter);
        let latest = Cell::new(None::<WallNs>);
        let look = |stretch| {
            self.read(stretch, &wanted, &mut |seen| {
                if matches!(seen.body, Body::Record(_)) {
                    latest.set(latest.get().max(Some(seen.wall)));
                }
            })
            .map_err(|e| self.journal.records_error(e))
        };
        for stretch in self.stretches(&filter).into_iter().rev() {
            let Stretch::Picked(leaves) = stretch else {
                look(stretch)?;
                continue;
            };
            for leaf in leaves.into_iter().rev() {
                // what cannot be later is not looked at
                let can_be = self.latest_of(leaf).min(to.0);
                if latest.get().is_none_or(|latest| latest.0 < can_be) {
                    look(Stretch::Picked(vec![leaf]))?;
                }
            }
        }
        Ok(latest.get())
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

/// The kinds of a filter, as far as they are known.
fn filter_kinds(filter: &Filter) -> Vec<RecordKind> {
    let wanted = (1..64).filter(|k| filter.kinds.has(*k));
    wanted.filter_map(RecordKind::from_u16).collect()
}

/// The first leaf of the subtree in which a leaf lies.
fn subtree_of(leaf: u64) -> u64 {
    leaf / SPAN_LEAVES * SPAN_LEAVES
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

/// As many leaves as one file may list from `at` on, when none behind `end` may be among them.
fn size_at(at: u64, end: u64) -> u64 {
    let fits = |size: &u64| *size <= AT_ONCE && at.is_multiple_of(*size) && at + size <= end;
    let largest = LIST_LEAVES.into_iter().rev().find(fits);
    largest.unwrap_or(LIST_LEAVES[0])
}

/// The lists of these leaves; `None`: some are missing.
fn lists(
    journal: &Journal,
    leaves: Range<u64>,
    progress: &Progress,
) -> Result<Option<LeafLists>, ReadError> {
    let mut lists = LeafLists::new(leaves.start);
    let all = evidence::Filter {
        leaves: leaves.clone(),
        ..evidence::Filter::default()
    };
    let mut listed = 0;
    for found in journal.reader().scan(all)? {
        progress.step();
        match found {
            Ok(entry) => {
                let header = (entry.header.wall_ns, entry.header.kind);
                let keys = keys_of(&entry);
                lists.add(entry.leaf.0, Some(header), &keys);
                if let Some(copied) = copy_of(&entry).filter(|_| !keys.contains(&UNREADABLE)) {
                    lists.copy(&copied);
                }
            }
            Err(ReadError::DamagedLeaf { leaf, .. }) => lists.add(leaf, None, &[UNREADABLE]),
            Err(ReadError::MissingLeaves { .. }) => return Ok(None),
            Err(e) => return Err(e),
        }
        listed += 1;
    }
    Ok((listed == leaves.end - leaves.start).then_some(lists))
}

/// What is kept of a record beside the lists.
fn copy_of(entry: &evidence::Entry) -> Option<Copied<'_>> {
    let kind = RecordKind::from_u16(entry.header.kind)?;
    let content = entry.payload.bytes().filter(|_| COPIED.contains(&kind))?;
    Some(Copied {
        leaf: entry.leaf.0,
        wall: entry.header.wall_ns,
        kind: entry.header.kind,
        content,
    })
}

/// Under what a record is listed.
fn keys_of(entry: &evidence::Entry) -> Vec<u64> {
    let kind = entry.header.kind;
    let mut keys = Vec::new();
    if let Some(known) = RecordKind::from_u16(kind).filter(|k| has_list(*k)) {
        keys.push(kind_key(known));
    }
    let record = entry
        .payload
        .bytes()
        .map(|bytes| Record::decode(kind, bytes));
    match (&entry.payload, &record) {
        (_, Some(Ok(record))) => keys.extend(Mark::of_record(record).iter().map(Mark::key)),
        // known by the files that are not there
        (Payload::Pruned { .. }, _) => {}
        _ => keys.push(UNREADABLE),
    }
    let Some(container) = entry.header.container else {
        return keys;
    };
    match (RecordKind::from_u16(kind), &record) {
        (Some(RecordKind::Observation), Some(Ok(Record::Observation(o)))) => {
            keys.extend(keys_about(
                &container.0,
                RecordKind::Observation,
                Acts::of(o),
            ));
        }
        // it has to be found where contents are gone, and is not counted where they are there
        (Some(RecordKind::Observation), None) => {
            let gone = matches!(entry.payload, Payload::Pruned { .. });
            let acts = gone.then(|| keys_about(&container.0, RecordKind::Observation, Acts::OTHER));
            keys.extend(acts.into_iter().flatten());
        }
        (Some(RecordKind::Observation), _) => {}
        _ => keys.push(container_key(&container.0, kind)),
    }
    keys
}

/// Under what records of a kind about a container are listed; observations by their sorts.
fn keys_about(container: &[u8; 16], kind: RecordKind, acts: Acts) -> Vec<u64> {
    match kind {
        RecordKind::Observation => acts.numbers().map(|n| acts_key(container, n)).collect(),
        _ => vec![container_key(container, kind as u16)],
    }
}

fn with_unreadable(keys: impl Iterator<Item = u64>) -> Vec<u64> {
    std::iter::once(UNREADABLE).chain(keys).collect()
}

/// Kinds of records of a class.
fn of_class(class: u8) -> impl Iterator<Item = RecordKind> {
    let all = (1..64).filter_map(RecordKind::from_u16);
    all.filter(move |kind| storage::retention_class(*kind) == class)
}

#[cfg(test)]
mod tests;
