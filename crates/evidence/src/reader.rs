//! Reads a journal without its lock, also while a writer is live.
//!
//! A reader sees what is durable: the head file is written after each sync, so nothing
//! beyond it is looked at and a torn tail is never met. Damage is an error for its leaf
//! and reading goes on behind it. What retention removed reads as [`Payload::Pruned`].
//!
//! Filters are decided on leaf headers, block by block; only what matches costs a payload.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{self, Disk, DiskFile, OpenMode, RealDisk};
use crate::emergency::{self, Kept};
use crate::error::{OpenError, ReadError};
use crate::filter::Filter;
use crate::format::{
    self, FILE_HEADER_BYTES, FRAME_BYTES, FileHeader, Frame, FrameSeed, LeafBytes, PRUNED_MAGIC,
    SALT_BYTES, Salt,
};
use crate::frames::{frame_at, payload_frame_bytes, read_frames};
use crate::index::{self, BLOCK_LEAVES, Index};
use crate::merkle::{self, Hash};
use crate::meta::{Meta, read_head, read_meta};
use crate::paths::{self, Name, Paths};
use crate::record::{Header, LEAF_BYTES, Leaf, RecordId, RetentionClass};
use crate::tiles::{self, TILE_HASHES};
use crate::tlog::TlogPaths;

/// Files of payloads that a scan holds open.
const OPEN_PAYLOADS_MAX: usize = 32;
const READ_AHEAD_BYTES: usize = 128 << 10;
const SCRUB_DAMAGE_MAX: usize = 1000;
/// Picked leaves that are this near to each other come with one read.
const NEAR_LEAVES: u64 = 32;
/// Picked leaves that are fetched together: what lies all over a disk is waited for once, not one by
/// one.
const TOGETHER_LEAVES: usize = 256;
/// What a disk is asked for at least.
const PAGE_BYTES: u64 = 4096;
/// Contents that lie no further apart come with one read.
const NEAR_BYTES: u64 = PAGE_BYTES;
/// And so many bytes at most.
const RUN_BYTES: u64 = 64 << 10;
/// Files of payloads that a picker holds open: of the leaves that are fetched and of those that were
/// before.
const OPEN_PICKED_MAX: usize = 2 * TOGETHER_LEAVES;
/// Of fewer nothing is said beforehand.
const FEW_LEAVES: usize = 8;

/// How far a reader looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// To the end of what the writer declared durable: for a journal that may be in use.
    Durable,
    /// To the last whole leaf: for a copy, or a disk whose writer is gone for good.
    Everything,
}

/// The content of an entry, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes that were appended, checked against the leaf's hash.
    Present {
        /// The content.
        bytes: Vec<u8>,
        /// What was hashed before it.
        salt: [u8; SALT_BYTES],
    },
    /// Removed by retention.
    Pruned {
        /// The leaf of the record that says so; `None` when the stub is unreadable.
        tombstone: Option<Leaf>,
    },
    /// It should be there and is not, or does not match its leaf.
    Lost {
        /// What was found instead.
        why: String,
    },
}

impl Payload {
    /// The content, where it is present.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Present { bytes, .. } => Some(bytes),
            Self::Pruned { .. } | Self::Lost { .. } => None,
        }
    }
}

/// One record as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub leaf: Leaf,
    /// What the leaf says.
    pub header: Header,
    /// The leaf itself, for hashing into a tree.
    pub leaf_bytes: [u8; LEAF_BYTES],
    /// Its content.
    pub payload: Payload,
}

/// What a scrub found.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Entries read and checked.
    pub checked: u64,
    /// Entries whose payload retention has removed.
    pub pruned: u64,
    /// What is damaged; the first 1000.
    pub damage: Vec<ReadError>,
    /// Leaves whose payload is lost, with what was found instead; the first 1000.
    pub lost: Vec<(Leaf, String)>,
    /// Leaves whose tile has another hash: one of both was altered; the first 1000.
    pub altered: Vec<Leaf>,
    /// Further damage beyond those.
    pub omitted: u64,
}

/// A read-only view of a journal.
pub struct Reader {
    disk: Arc<dyn Disk>,
    paths: Paths,
    meta: Meta,
    tail: Tail,
    tlog: TlogPaths,
}

/// Files of leaves that may be missing behind the last one and are still looked for.
const MISSING_FILES_MAX: u64 = 64;

impl Reader {
    /// Opens the journal in `dir` on the machine's disk, up to what is durable.
    ///
    /// # Errors
    /// When there is no journal, it is of a newer format, or the disk refuses.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(RealDisk::default()), dir, Tail::Durable)
    }

    /// Opens the journal in `dir` on any disk, up to `tail`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: impl AsRef<Path>,
        tail: Tail,
    ) -> Result<Self, OpenError> {
        let paths = Paths::new(dir.as_ref());
        let meta = read_meta(&*disk, &paths)?.ok_or_else(|| OpenError::Foreign {
            path: paths.root.clone(),
            why: "it has no journal.meta".to_owned(),
        })?;
        Ok(Self {
            disk,
            tlog: TlogPaths::new(&paths.root),
            paths,
            meta,
            tail,
        })
    }

    pub(crate) fn over(disk: Arc<dyn Disk>, paths: Paths, meta: Meta, tail: Tail) -> Self {
        Self {
            disk,
            tlog: TlogPaths::new(&paths.root),
            paths,
            meta,
            tail,
        }
    }

    pub(crate) fn parts(&self) -> (&Arc<dyn Disk>, &Paths, &Meta) {
        (&self.disk, &self.paths, &self.meta)
    }

    pub(crate) fn tlog_paths(&self) -> &TlogPaths {
        &self.tlog
    }

    /// Where the tiles lie.
    pub(crate) fn tlog(&self) -> (&Arc<dyn Disk>, &Path) {
        (&self.disk, &self.tlog.dir)
    }

    /// The node this journal belongs to.
    pub fn origin(&self) -> &str {
        &self.meta.origin
    }

    /// The full name of a leaf.
    pub fn id(&self, leaf: Leaf) -> RecordId {
        RecordId {
            origin: self.meta.origin.clone(),
            leaf,
        }
    }

    /// One past the last leaf this reader sees now, the emergency segment included; never more
    /// than its files can hold, whatever the head claims.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn end(&self) -> Result<Leaf, ReadError> {
        self.end_from(0)
    }

    /// What the head and the emergency segment claim as the end, whatever files there are, and the
    /// most that the files can hold.
    pub(crate) fn claimed_end(&self) -> Result<Claim, ReadError> {
        let view = self.view(u64::MAX)?;
        let files = self.segments()?.len();
        Ok(Claim {
            end: view.claimed(),
            held: (files as u64).saturating_mul(self.subtree_leaves()),
            most: can_hold(files, self.subtree_leaves()),
        })
    }

    /// The same for who knows the leaves before `from`: cheap where nothing came since.
    fn end_from(&self, from: u64) -> Result<Leaf, ReadError> {
        let view = self.view(from)?;
        // without a list of segments, nothing lies behind `from` but what the emergency segment has
        let most = match view.segments.is_empty() && view.end <= from {
            true => u64::MAX,
            false => can_hold(view.segments.len(), self.subtree_leaves()),
        };
        Ok(Leaf(view.claimed().min(most)))
    }

    /// The entry at `leaf`; `None` beyond the end.
    ///
    /// # Errors
    /// When the leaf is damaged or missing, or the disk refuses.
    pub fn get(&self, leaf: Leaf) -> Result<Option<Entry>, ReadError> {
        let leaves = leaf.0..leaf.0.saturating_add(1);
        self.scan(Filter {
            leaves,
            ..Filter::default()
        })?
        .next()
        .transpose()
    }

    /// Entries that match, as of now.
    ///
    /// # Errors
    /// When the journal's files cannot be listed. Damage met later is an item of the
    /// iteration, which goes on behind it.
    pub fn scan(&self, filter: Filter) -> Result<Scan, ReadError> {
        let view = self.view(filter.leaves.start)?;
        let rest = filter.leaves.start..filter.leaves.end.min(view.end);
        let kept = view
            .kept
            .into_iter()
            .filter(|kept| filter.leaves.contains(&kept.index))
            .collect();
        Ok(Scan {
            leaves: LeafSource::new(self, view.segments),
            payloads: PayloadSource::new(self),
            filter,
            rest,
            kept,
            ready: VecDeque::new(),
        })
    }

    /// Reads single leaves, as of now.
    ///
    /// # Errors
    /// When the journal's files cannot be listed.
    pub fn picker(&self) -> Result<Picker, ReadError> {
        let view = self.view(0)?;
        Ok(Picker {
            end: view
                .end
                .min(can_hold(view.segments.len(), self.subtree_leaves())),
            leaves: LeafSource {
                indexed: false,
                open_max: TOGETHER_LEAVES,
                ..LeafSource::new(self, view.segments)
            },
            payloads: PayloadSource {
                open_max: OPEN_PICKED_MAX,
                scattered: true,
                ..PayloadSource::new(self)
            },
        })
    }

    /// Leaves of one subtree: contents are removed subtree by subtree.
    pub fn subtree_leaves(&self) -> u64 {
        u64::from(self.meta.subtree_leaves)
    }

    /// Whether the content of a class around a leaf is where it was written: not removed by
    /// retention, not lost, and not of a class that nothing was written of there.
    pub fn keeps(&self, leaf: Leaf, class: RetentionClass) -> bool {
        let subtree = self.meta.subtree_of(leaf.0);
        let path = self.paths.payload(subtree, class);
        self.disk.open(&path, OpenMode::Read).is_ok()
    }

    /// Subtrees of which the content of a class is where it was written, all at once.
    ///
    /// # Errors
    /// When the journal's files cannot be listed.
    pub fn kept(&self, class: RetentionClass) -> Result<BTreeSet<u64>, ReadError> {
        let dir = &self.paths.payloads;
        let names = match self.disk.names(dir) {
            Err(e) if disk::is_missing(&e) => Vec::new(),
            listed => listed.map_err(read_error(dir))?,
        };
        let kept = names.iter().filter_map(|name| match paths::parse(name) {
            Name::Payload(subtree, of) if of == class => Some(subtree),
            _ => None,
        });
        Ok(kept.collect())
    }

    /// Follows the journal from `from` on.
    pub fn follow(self, from: Leaf, filter: Filter) -> Follow {
        Follow {
            reader: self,
            filter,
            next: from,
        }
    }

    /// Reads and checks everything in `leaves`.
    ///
    /// # Errors
    /// When the journal's files cannot be listed.
    pub fn scrub(&self, leaves: Range<u64>) -> Result<ScrubReport, ReadError> {
        let mut report = ScrubReport::default();
        let mut tile = (u64::MAX, Vec::new());
        for entry in self.scan(Filter {
            leaves,
            ..Filter::default()
        })? {
            if let Ok(entry) = &entry
                && self.differs_from_tile(entry, &mut tile)
                && report.altered.len() < SCRUB_DAMAGE_MAX
            {
                report.altered.push(entry.leaf);
            }
            let room = report.damage.len() + report.lost.len() < SCRUB_DAMAGE_MAX;
            report.checked += 1;
            match entry {
                Ok(Entry {
                    payload: Payload::Present { .. },
                    ..
                }) => {}
                Ok(Entry {
                    payload: Payload::Pruned { .. },
                    ..
                }) => report.pruned += 1,
                Ok(Entry {
                    leaf,
                    payload: Payload::Lost { why },
                    ..
                }) if room => {
                    report.lost.push((leaf, why));
                }
                Err(error) if room => report.damage.push(error),
                _ => report.omitted += 1,
            }
        }
        Ok(report)
    }

    /// Only whole tiles are asked: the right edge is being written.
    fn differs_from_tile(&self, entry: &Entry, tile: &mut (u64, Vec<Hash>)) -> bool {
        let number = entry.leaf.0 / TILE_HASHES as u64;
        if tile.0 != number {
            let stored = tiles::read_tile(&*self.disk, &self.tlog.dir, 0, number, TILE_HASHES);
            *tile = (number, stored.unwrap_or_default());
        }
        let at = (entry.leaf.0 % TILE_HASHES as u64) as usize;
        let stored = tile.1.get(at);
        stored.is_some_and(|hash| *hash != merkle::leaf_hash(&entry.leaf_bytes))
    }

    /// The emergency segment first, then the head: what leaves the former between the two
    /// looks is found below the latter. Segments are those of leaves from `from` on, if not all.
    fn view(&self, from: u64) -> Result<View, ReadError> {
        let mut kept = emergency::peek(&*self.disk, &self.paths, &self.meta);
        let head = read_head(&*self.disk, &self.paths, &self.meta);
        // a long list, which whoever looks for what is new mostly has no use for
        let segments = match (self.tail, head) {
            (Tail::Durable, Some(head)) if head <= from => Vec::new(),
            _ => self.segments()?,
        };
        let end = match (self.tail, head) {
            (Tail::Durable, Some(head)) => head,
            (Tail::Durable, None) => self.whole_end(&segments, 0, true)?,
            (Tail::Everything, head) => self.whole_end(&segments, head.unwrap_or(0), false)?,
        };
        kept.retain(|kept| kept.index >= end);
        Ok(View {
            end,
            segments,
            kept,
        })
    }

    /// First leaves of the segments that have a file, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, ReadError> {
        let dir = &self.paths.leaves;
        let names = match self.disk.names(dir) {
            Err(e) if disk::is_missing(&e) => Vec::new(),
            listed => listed.map_err(read_error(dir))?,
        };
        let mut firsts: Vec<u64> = names
            .iter()
            .filter_map(|name| match paths::parse(name) {
                Name::Segment(first) => Some(first),
                _ => None,
            })
            .collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// The end of the leaves by the frames alone: all whole ones from `head` on, or only
    /// those that a later frame calls durable.
    fn whole_end(&self, segments: &[u64], head: u64, durable: bool) -> Result<u64, ReadError> {
        let mut end = head;
        let from = segments
            .partition_point(|first| *first <= head)
            .saturating_sub(1);
        for (position, first) in segments.iter().enumerate().skip(from) {
            let path = self.paths.segment(*first);
            let file = self
                .disk
                .open(&path, OpenMode::Read)
                .map_err(read_error(&path))?;
            let limit = segments.get(position + 1).copied().unwrap_or(u64::MAX);
            let mut at = *first;
            while at < limit {
                let block = at..limit.min(at + BLOCK_LEAVES);
                let bytes =
                    read_frames(file.as_ref(), *first, &block).map_err(read_error(&path))?;
                for (leaf, raw) in block.clone().zip(bytes.chunks(FRAME_BYTES)) {
                    match Frame::decode(self.meta.seed(), leaf, raw) {
                        Some(f) if durable => end = end.max(leaf - leaf.min(f.undurable.into())),
                        Some(_) => end = end.max(leaf + 1),
                        None => {}
                    }
                }
                if (bytes.len() / FRAME_BYTES) as u64 != block.end - block.start {
                    break;
                }
                at = block.end;
            }
        }
        Ok(end)
    }
}

struct View {
    end: u64,
    segments: Vec<u64>,
    kept: Vec<Kept>,
}

impl View {
    /// One past the last leaf, by the head and the emergency segment.
    fn claimed(&self) -> u64 {
        let kept = self.kept.iter().map(|kept| kept.index.saturating_add(1));
        kept.fold(self.end, u64::max)
    }
}

/// How far a store says that it goes, and how far it can.
pub(crate) struct Claim {
    /// One past the last leaf, as it says.
    pub(crate) end: u64,
    /// Leaves that its files hold at most.
    pub(crate) held: u64,
    /// The same with those files that may be missing.
    pub(crate) most: u64,
}

/// Leaves that so many files can hold, and some that are missing: names of files and the head
/// are whatever somebody wrote, and must not decide how long it takes to look at all leaves.
fn can_hold(files: usize, of_each: u64) -> u64 {
    (files as u64 + MISSING_FILES_MAX).saturating_mul(of_each)
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_path_buf();
    move |source| ReadError::Io { path, source }
}

/// Matching entries, in leaf order or its reverse.
pub struct Scan {
    leaves: LeafSource,
    payloads: PayloadSource,
    filter: Filter,
    /// Leaves not yet looked at.
    rest: Range<u64>,
    /// Records of the emergency segment, all behind `rest`.
    kept: VecDeque<Kept>,
    ready: VecDeque<Result<(u64, Frame), ReadError>>,
}

impl Iterator for Scan {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.filter.newest_first
                && let Some(entry) = self.next_kept()
            {
                return Some(Ok(entry));
            }
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready.map(|(leaf, frame)| self.payloads.entry(leaf, &frame)));
            }
            if self.rest.is_empty() {
                return self.next_kept().map(Ok);
            }
            self.fill();
        }
    }
}

impl Scan {
    /// Entries as leaves only, without reading payloads.
    pub fn headers(mut self) -> impl Iterator<Item = Result<(Leaf, Header), ReadError>> {
        std::iter::from_fn(move || {
            while self.ready.is_empty() && !self.rest.is_empty() {
                self.fill();
            }
            let next = self.ready.pop_front()?;
            Some(next.and_then(|(leaf, frame)| {
                let header = format::header_of(&frame.leaf);
                let damaged = || ReadError::DamagedLeaf {
                    leaf,
                    path: self.leaves.path_of(leaf),
                };
                header
                    .map(|header| (Leaf(leaf), header))
                    .ok_or_else(damaged)
            }))
        })
    }

    pub(crate) fn leaf_bytes(self) -> impl Iterator<Item = Result<LeafBytes, ReadError>> {
        self.numbered_leaf_bytes()
            .map(|next| next.map(|(_, leaf)| leaf))
    }

    pub(crate) fn numbered_leaf_bytes(
        mut self,
    ) -> impl Iterator<Item = Result<(u64, LeafBytes), ReadError>> {
        std::iter::from_fn(move || {
            while self.ready.is_empty() && !self.rest.is_empty() {
                self.fill();
            }
            self.ready
                .pop_front()
                .map(|next| next.map(|(leaf, frame)| (leaf, frame.leaf)))
        })
    }

    fn fill(&mut self) {
        let newest = self.filter.newest_first;
        let block = self.leaves.block_of(&self.rest, newest);
        if newest {
            self.rest.end = block.start;
        } else {
            self.rest.start = block.end;
        }
        if let Err(error) = self.leaves.read(&block, &self.filter, &mut self.ready) {
            self.ready.push_back(Err(error));
        }
        if newest {
            self.ready.make_contiguous().reverse();
        }
    }

    fn next_kept(&mut self) -> Option<Entry> {
        loop {
            let newest = self.filter.newest_first;
            let kept = if newest {
                self.kept.pop_back()
            } else {
                self.kept.pop_front()
            }?;
            let Some(header) = format::header_of(&kept.leaf) else {
                continue;
            };
            if self.filter.matches(&header) {
                let payload = Payload::Present {
                    bytes: kept.payload,
                    salt: kept.salt,
                };
                let leaf = Leaf(kept.index);
                return Some(Entry {
                    leaf,
                    header,
                    leaf_bytes: kept.leaf,
                    payload,
                });
            }
        }
    }
}

/// Reads leaves that somebody knows the numbers of, without what lies between them.
pub struct Picker {
    leaves: LeafSource,
    payloads: PayloadSource,
    end: u64,
}

impl Picker {
    /// One past the last leaf it reaches. Records of the emergency segment lie behind it.
    pub fn end(&self) -> Leaf {
        Leaf(self.end)
    }

    /// Hands over those of `wanted` that match, in order. `wanted` must rise; what lies behind the
    /// end is left out. Damage is an item; reading goes on behind it.
    ///
    /// While some are handed over, a disk fetches what the next need.
    pub fn pick(&mut self, wanted: &[u64], filter: &Filter, each: &mut dyn FnMut(Picked)) {
        let mut rest = &wanted[..wanted.partition_point(|leaf| *leaf < self.end)];
        self.payloads.begin();
        self.leaves.expect(next_of(rest), self.end);
        let mut found = self.next_frames(&mut rest, filter);
        while !found.is_empty() || !rest.is_empty() {
            let next = self.next_frames(&mut rest, filter);
            for item in found {
                each(item.map(|(leaf, frame)| self.payloads.entry(leaf, &frame)));
            }
            found = next;
        }
    }

    /// The frames of those that are next, whose contents a disk is asked for, with the frames behind.
    fn next_frames(&mut self, rest: &mut &[u64], filter: &Filter) -> Vec<Found> {
        let some = next_of(rest);
        *rest = &rest[some.len()..];
        let mut found = Vec::new();
        self.pick_frames(some, filter, &mut |item| found.push(item));
        self.payloads.expect(&found);
        self.leaves.expect(next_of(rest), self.end);
        found
    }

    /// Those of `wanted`, which must rise, that match by what their leaves say; contents are not
    /// read.
    pub fn matching(&mut self, wanted: &[u64], filter: &Filter) -> Vec<u64> {
        let mut matching = Vec::new();
        self.pick_frames(wanted, filter, &mut |found| {
            matching.extend(found.ok().map(|(leaf, _)| leaf));
        });
        matching
    }

    /// The leaf's own hash; `None`: it cannot be read.
    pub fn leaf_hash(&mut self, leaf: u64) -> Option<Hash> {
        let mut hash = None;
        self.pick_frames(&[leaf], &Filter::default(), &mut |found| {
            hash = found.ok().map(|(_, frame)| merkle::leaf_hash(&frame.leaf));
        });
        hash
    }

    fn pick_frames(&mut self, wanted: &[u64], filter: &Filter, each: &mut dyn FnMut(Found)) {
        let mut rest = &wanted[..wanted.partition_point(|leaf| *leaf < self.end)];
        let mut ready = VecDeque::new();
        while let Some(first) = rest.first().copied() {
            let (now, later) = rest.split_at(self.leaves.near(rest, self.end));
            rest = later;
            let read = first..now[now.len() - 1] + 1;
            if let Err(error) = self.leaves.read(&read, filter, &mut ready) {
                each(Err(error));
            }
            for item in ready.drain(..) {
                let listed = |leaf| now.binary_search(leaf).is_ok();
                match item {
                    Ok((leaf, frame)) if listed(&leaf) => each(Ok((leaf, frame))),
                    Err(ReadError::DamagedLeaf { leaf, .. })
                        if !listed(&leaf) || self.leaves.rules_out(leaf, filter) => {}
                    Ok(_) => {}
                    Err(error) => each(Err(error)),
                }
            }
        }
    }
}

/// Those of these leaves that are fetched at once.
fn next_of(leaves: &[u64]) -> &[u64] {
    &leaves[..together(leaves)]
}

/// How many of these leaves are fetched at once: no stretch of near ones is cut within a block, which
/// would tell a hole in it twice.
fn together(leaves: &[u64]) -> usize {
    let Some(more) = leaves.get(TOGETHER_LEAVES - 1..) else {
        return leaves.len();
    };
    let near = more.windows(2).take_while(|pair| {
        pair[1].saturating_sub(pair[0]) <= NEAR_LEAVES
            && pair[0] / BLOCK_LEAVES == pair[1] / BLOCK_LEAVES
    });
    TOGETHER_LEAVES + near.count()
}

/// A leaf and its frame, or why it cannot be read.
type Found = Result<(u64, Frame), ReadError>;

/// One leaf that was picked, or why it cannot be read.
pub type Picked = Result<Entry, ReadError>;

/// Leaf frames, block by block.
struct LeafSource {
    disk: Arc<dyn Disk>,
    paths: Paths,
    meta: Meta,
    segments: Vec<u64>,
    /// By first leaf.
    open: HashMap<u64, OpenSegment>,
    open_max: usize,
    /// Whether what a segment's index rules out is passed over; whoever knows the leaves by their
    /// numbers has no use for it.
    indexed: bool,
}

struct OpenSegment {
    file: Box<dyn DiskFile>,
    index: Option<Index>,
}

impl LeafSource {
    fn new(reader: &Reader, segments: Vec<u64>) -> Self {
        let (disk, paths, meta) = (
            reader.disk.clone(),
            reader.paths.clone(),
            reader.meta.clone(),
        );
        Self {
            disk,
            paths,
            meta,
            segments,
            open: HashMap::new(),
            open_max: 1,
            indexed: true,
        }
    }

    /// The block at one end of `rest`: within one segment, or within one hole.
    fn block_of(&self, rest: &Range<u64>, newest: bool) -> Range<u64> {
        let probe = if newest { rest.end - 1 } else { rest.start };
        let (first, limit) = self.segment_of(probe);
        let Some(first) = first else {
            return self.hole_before(probe).max(rest.start)..rest.end.min(limit);
        };
        let start = first + (probe - first) / BLOCK_LEAVES * BLOCK_LEAVES;
        start.max(rest.start)..(start + BLOCK_LEAVES).min(limit).min(rest.end)
    }

    /// The segment that should hold `leaf`, and the first leaf that is not its own; `None`: a hole, and where
    /// the next segment begins. No segment spans two subtrees: whatever its files are called, a store cannot
    /// make a scan walk what none of them can hold.
    fn segment_of(&self, leaf: u64) -> (Option<u64>, u64) {
        let (before, next) = self.around(leaf);
        match before {
            Some(first) if leaf < self.reach(first) => (Some(first), next.min(self.reach(first))),
            _ => (None, next),
        }
    }

    /// Where the hole begins in which `leaf` lies.
    fn hole_before(&self, leaf: u64) -> u64 {
        self.around(leaf).0.map_or(0, |first| self.reach(first))
    }

    /// Where the last segment begins that begins at `leaf` or before, and where the next one does.
    fn around(&self, leaf: u64) -> (Option<u64>, u64) {
        let position = self.segments.partition_point(|first| *first <= leaf);
        let next = self.segments.get(position).copied().unwrap_or(u64::MAX);
        (position.checked_sub(1).map(|p| self.segments[p]), next)
    }

    /// The end of the subtree in which a segment begins.
    fn reach(&self, first: u64) -> u64 {
        let subtree = self.meta.subtree_of(first);
        subtree.saturating_add(u64::from(self.meta.subtree_leaves))
    }

    /// How many of the first of these leaves, which rise, come with one read.
    fn near(&self, leaves: &[u64], end: u64) -> usize {
        let Some(first) = leaves.first() else {
            return 0;
        };
        let block = self.block_of(&(*first..end), false);
        let near = leaves.windows(2).take_while(|pair| {
            pair[1] < block.end && pair[1].saturating_sub(pair[0]) <= NEAR_LEAVES
        });
        1 + near.count()
    }

    /// Says which frames are about to be read.
    fn expect(&mut self, leaves: &[u64], end: u64) {
        if leaves.len() < FEW_LEAVES {
            return;
        }
        // those before were read
        if self.open.len() + leaves.len() > self.open_max {
            self.open.clear();
        }
        let mut rest = leaves;
        while let Some(leaf) = rest.first().copied() {
            let (now, later) = rest.split_at(self.near(rest, end));
            rest = later;
            let last = now[now.len() - 1];
            // who reads it says what is wrong with it
            if let Some(first) = self.segment_of(leaf).0
                && let Ok(segment) = self.open_segment(first)
            {
                let read = frame_at(first, leaf)..frame_at(first, last) + FRAME_BYTES as u64;
                expect_pages(segment.file.as_ref(), &read);
            }
        }
    }

    fn path_of(&self, leaf: u64) -> std::path::PathBuf {
        self.paths.segment(self.segment_of(leaf).0.unwrap_or(0))
    }

    fn read(
        &mut self,
        block: &Range<u64>,
        filter: &Filter,
        out: &mut VecDeque<Result<(u64, Frame), ReadError>>,
    ) -> Result<(), ReadError> {
        let missing = |first| ReadError::MissingLeaves {
            first,
            last: block.end - 1,
        };
        let Some(first) = self.segment_of(block.start).0 else {
            return Err(missing(block.start));
        };
        let seed = self.meta.seed();
        let path = self.paths.segment(first);
        let segment = self.open_segment(first)?;
        if !segment.may_match(first, block, filter) {
            return Ok(());
        }
        let bytes = read_frames(segment.file.as_ref(), first, block).map_err(read_error(&path))?;
        for (leaf, raw) in block.clone().zip(bytes.as_chunks::<FRAME_BYTES>().0) {
            let frame = Frame::decode(seed, leaf, raw);
            match frame.and_then(|f| Some((f, format::header_of(&f.leaf)?))) {
                Some((frame, header)) if filter.matches(&header) => {
                    out.push_back(Ok((leaf, frame)))
                }
                Some(_) => {}
                None => out.push_back(Err(ReadError::DamagedLeaf {
                    leaf,
                    path: path.clone(),
                })),
            }
        }
        let whole = block.start + (bytes.len() / FRAME_BYTES) as u64;
        if whole < block.end {
            Err(missing(whole))
        } else {
            Ok(())
        }
    }

    /// Whether a scan passes over a leaf by its segment's index: then a damaged one is not told either.
    fn rules_out(&self, leaf: u64, filter: &Filter) -> bool {
        let (Some(first), limit) = self.segment_of(leaf) else {
            return false;
        };
        let number = (leaf - first) / BLOCK_LEAVES;
        let end = (first + (number + 1) * BLOCK_LEAVES).min(limit);
        self.index_of(first)
            .is_some_and(|i| i.covers(end - first) && !i.may_match(number, filter))
    }

    fn index_of(&self, first: u64) -> Option<Index> {
        let max = index::bytes_max(self.meta.subtree_leaves);
        let bytes = disk::read_small(&*self.disk, &self.paths.index(first), max);
        Index::decode(&self.meta, first, &bytes.ok()??)
    }

    fn open_segment(&mut self, first: u64) -> Result<&OpenSegment, ReadError> {
        if !self.open.contains_key(&first) {
            if self.open.len() >= self.open_max {
                self.open.clear();
            }
            let path = self.paths.segment(first);
            let file = self
                .disk
                .open(&path, OpenMode::Read)
                .map_err(read_error(&path))?;
            if !self.indexed {
                file.expect_scattered();
            }
            let index = self.indexed.then(|| self.index_of(first)).flatten();
            self.open.insert(first, OpenSegment { file, index });
        }
        self.open
            .get(&first)
            .ok_or(ReadError::MissingLeaves { first, last: first })
    }
}

impl OpenSegment {
    fn may_match(&self, first: u64, block: &Range<u64>, filter: &Filter) -> bool {
        let number = (block.start - first) / BLOCK_LEAVES;
        self.index
            .as_ref()
            .is_none_or(|i| !i.covers(block.end - first) || i.may_match(number, filter))
    }
}

/// Payloads, through a few open files.
struct PayloadSource {
    disk: Arc<dyn Disk>,
    paths: Paths,
    meta: Meta,
    files: HashMap<(u64, RetentionClass), OpenPayload>,
    open_max: usize,
    /// Whether contents here and there are read, not one after the other.
    scattered: bool,
    /// How often contents were said to be about to be read.
    asked: u64,
}

/// Contents that come with one read, and when they were said to be about to be read.
struct Run {
    bytes: Range<u64>,
    asked: u64,
}

enum OpenPayload {
    File {
        file: Box<dyn DiskFile>,
        ahead: Vec<u8>,
        ahead_at: u64,
        expected_at: u64,
        /// What is about to be read, in order.
        runs: VecDeque<Run>,
        /// When that was said last.
        asked: u64,
    },
    /// The tombstone, and what holds have kept.
    Pruned(Option<Leaf>, HashMap<u64, (Salt, Vec<u8>)>),
    Missing(String),
}

impl PayloadSource {
    fn new(reader: &Reader) -> Self {
        let (disk, paths, meta) = (
            reader.disk.clone(),
            reader.paths.clone(),
            reader.meta.clone(),
        );
        Self {
            disk,
            paths,
            meta,
            files: HashMap::new(),
            open_max: OPEN_PAYLOADS_MAX,
            scattered: false,
            asked: 0,
        }
    }

    fn entry(&mut self, leaf: u64, frame: &Frame) -> Entry {
        // Frames are decoded only when their class exists.
        let fallback = || Header {
            kind: 0,
            schema_version: 0,
            class: RetentionClass::SYSTEM,
            urgent: false,
            container: None,
            wall_ns: 0,
            boot_ns: 0,
            payload_bytes: 0,
        };
        let header = format::header_of(&frame.leaf).unwrap_or_else(fallback);
        let payload = self.payload(leaf, frame, header.class);
        Entry {
            leaf: Leaf(leaf),
            header,
            leaf_bytes: frame.leaf,
            payload,
        }
    }

    /// Says which contents are about to be read: those that are near to each other come with one read.
    /// Those that were said before may not have been read yet.
    fn expect(&mut self, found: &[Found]) {
        if found.len() < FEW_LEAVES {
            return;
        }
        self.asked += 1;
        let now = self.asked;
        if self.files.len() + found.len() > self.open_max {
            self.files.retain(|_, open| match open {
                OpenPayload::File { asked, .. } => *asked + 1 >= now,
                OpenPayload::Pruned(..) => true,
                OpenPayload::Missing(_) => false,
            });
        }
        let mut touched = BTreeSet::new();
        let run = |bytes| Run { bytes, asked: now };
        for (leaf, frame) in found.iter().flatten() {
            let header = format::header_of(&frame.leaf);
            let (Some(header), Some(len)) = (header, payload_frame_bytes(frame)) else {
                continue;
            };
            let at = frame.payload_at;
            let end = at.saturating_add(len as u64);
            if let OpenPayload::File { runs, asked, .. } = self.open(*leaf, header.class) {
                *asked = now;
                match runs.back_mut().filter(|last| last.takes(now, at, end)) {
                    Some(last) => last.bytes.end = end,
                    None => runs.push_back(run(at..end)),
                }
                touched.insert((self.meta.subtree_of(*leaf), header.class));
            }
        }
        for key in touched {
            if let Some(OpenPayload::File { file, runs, .. }) = self.files.get(&key) {
                let new = runs.iter().filter(|run| run.asked == now);
                new.for_each(|run| expect_pages(file.as_ref(), &run.bytes));
            }
        }
    }

    fn make_room(&mut self) {
        if self.files.len() >= self.open_max {
            self.files.clear();
        }
        // they hold what was held of them
        let gone = |open: &OpenPayload| matches!(open, OpenPayload::Pruned(..));
        if self.files.values().filter(|open| gone(open)).count() >= OPEN_PAYLOADS_MAX {
            self.files.retain(|_, open| !gone(open));
        }
    }

    /// What was said before is of no use to others.
    fn begin(&mut self) {
        for open in self.files.values_mut() {
            if let OpenPayload::File { runs, .. } = open {
                runs.clear();
            }
        }
    }

    fn open(&mut self, leaf: u64, class: RetentionClass) -> &mut OpenPayload {
        let key = (self.meta.subtree_of(leaf), class);
        if !self.files.contains_key(&key) {
            self.make_room();
        }
        let (disk, paths, meta) = (&self.disk, &self.paths, &self.meta);
        let scattered = self.scattered;
        self.files
            .entry(key)
            .or_insert_with(|| open_payload(&**disk, paths, meta, key, scattered))
    }

    fn payload(&mut self, leaf: u64, frame: &Frame, class: RetentionClass) -> Payload {
        let (seed, scattered) = (self.meta.seed(), self.scattered);
        match self.open(leaf, class) {
            OpenPayload::Pruned(tombstone, held) => match held.get(&leaf) {
                Some((salt, bytes))
                    if format::payload_hash(salt, bytes) == format::hash_of(&frame.leaf) =>
                {
                    Payload::Present {
                        bytes: bytes.clone(),
                        salt: *salt,
                    }
                }
                _ => Payload::Pruned {
                    tombstone: *tombstone,
                },
            },
            OpenPayload::Missing(why) => Payload::Lost { why: why.clone() },
            open @ OpenPayload::File { .. } => open.read(seed, leaf, frame, scattered),
        }
    }
}

impl Run {
    /// Whether what lies there comes with it.
    fn takes(&self, now: u64, at: u64, end: u64) -> bool {
        let near = self.bytes.end <= at && at - self.bytes.end <= NEAR_BYTES;
        self.asked == now && near && end - self.bytes.start <= RUN_BYTES
    }
}

/// Says of which pages these bytes are about to be read: whole pages are what a disk gives.
fn expect_pages(file: &dyn DiskFile, bytes: &Range<u64>) {
    let start = bytes.start / PAGE_BYTES * PAGE_BYTES;
    file.expect(start, bytes.end.saturating_sub(start));
}

fn open_payload(
    disk: &dyn Disk,
    paths: &Paths,
    meta: &Meta,
    (subtree, class): (u64, RetentionClass),
    scattered: bool,
) -> OpenPayload {
    let path = paths.payload(subtree, class);
    match disk.open(&path, OpenMode::Read) {
        Ok(file) => {
            if scattered {
                file.expect_scattered();
            }
            OpenPayload::File {
                file,
                ahead: Vec::new(),
                ahead_at: 0,
                expected_at: 0,
                runs: VecDeque::new(),
                asked: 0,
            }
        }
        Err(error) => {
            match disk::read_small(disk, &paths.pruned(subtree, class), FILE_HEADER_BYTES) {
                Ok(Some(stub)) => {
                    let header = FileHeader::decode(PRUNED_MAGIC, &stub).ok();
                    let ours = header.filter(|h| h.store == meta.store && h.first == subtree);
                    let held = Reader::held(disk, &paths.root, meta.store, subtree, class);
                    OpenPayload::Pruned(ours.map(|header| Leaf(header.a)), held)
                }
                _ => OpenPayload::Missing(format!("{}: {error}", path.display())),
            }
        }
    }
}

impl OpenPayload {
    fn read(&mut self, seed: FrameSeed, leaf: u64, frame: &Frame, scattered: bool) -> Payload {
        let Self::File {
            file,
            ahead,
            ahead_at,
            expected_at,
            runs,
            ..
        } = self
        else {
            return Payload::Lost {
                why: "not open".to_owned(),
            };
        };
        let lost = |why: &str| Payload::Lost {
            why: why.to_owned(),
        };
        let Some(len) = payload_frame_bytes(frame) else {
            return lost("its length exceeds the bound");
        };
        let at = frame.payload_at;
        let Some(end) = at.checked_add(len as u64) else {
            return lost("its place is impossible");
        };
        if at < *ahead_at || end > *ahead_at + ahead.len() as u64 {
            while runs.front().is_some_and(|run| run.bytes.end <= at) {
                runs.pop_front();
            }
            let run = runs.front().map(|run| &run.bytes);
            let want = match run.filter(|run| run.start <= at && end <= run.end) {
                Some(run) => usize::try_from(run.end - at).unwrap_or(len),
                // Reading ahead pays only for one record after another.
                None if at == *expected_at && !scattered => len.max(READ_AHEAD_BYTES),
                None => len,
            };
            ahead.resize(want, 0);
            let mut read = disk::read_up_to(file.as_ref(), ahead, at);
            if read.is_err() && want > len {
                // what lies behind may be what cannot be read
                ahead.truncate(len);
                read = disk::read_up_to(file.as_ref(), ahead, at);
            }
            match read {
                Ok(filled) => ahead.truncate(filled),
                Err(error) => {
                    ahead.clear();
                    return lost(&error.to_string());
                }
            }
            *ahead_at = at;
        }
        *expected_at = end;
        let from = usize::try_from(at - *ahead_at).unwrap_or(usize::MAX);
        let bytes = ahead.get(from..from.saturating_add(len));
        match bytes.and_then(|bytes| format::decode_payload(seed, leaf, bytes)) {
            Some((salt, bytes))
                if format::payload_hash(&salt, bytes) == format::hash_of(&frame.leaf) =>
            {
                Payload::Present {
                    bytes: bytes.to_vec(),
                    salt,
                }
            }
            Some(_) => lost("it does not match the leaf's hash"),
            None if bytes.is_none() => lost("its file ends before it"),
            None => lost("its checksum does not match"),
        }
    }
}

/// A reader that remembers how far it got.
pub struct Follow {
    reader: Reader,
    filter: Filter,
    next: Leaf,
}

impl Follow {
    /// The next leaf it will look at.
    pub fn position(&self) -> Leaf {
        self.next
    }

    /// What has become durable since the last call, at most `max` entries; empty when
    /// there is nothing new. The caller waits between calls.
    ///
    /// # Errors
    /// When the journal's files cannot be listed; damage is an item.
    pub fn poll(&mut self, max: usize) -> Result<Vec<Result<Entry, ReadError>>, ReadError> {
        let end = self.reader.end_from(self.next.0)?;
        let leaves = self.next.0..end.0.min(self.filter.leaves.end);
        let filter = Filter {
            leaves,
            newest_first: false,
            ..self.filter.clone()
        };
        let found: Vec<_> = self.reader.scan(filter)?.take(max).collect();
        let full = found.len() == max;
        self.next = match found.last() {
            Some(last) if full => Leaf(end_of(last, self.next).max(self.next.0)),
            _ => Leaf(end.0.max(self.next.0)),
        };
        Ok(found)
    }
}

fn end_of(item: &Result<Entry, ReadError>, next: Leaf) -> u64 {
    match item {
        Ok(entry) => entry.leaf.0 + 1,
        Err(ReadError::DamagedLeaf { leaf, .. }) => leaf + 1,
        Err(ReadError::MissingLeaves { last, .. }) => last + 1,
        Err(ReadError::Io { .. } | ReadError::NoProof { .. }) => next.0,
    }
}
