//! Opening: checks whose directory it is, takes the lock, and finds the end of what is
//! durable.
//!
//! The rule. Every leaf below the *watermark* was acknowledged: the head file says so,
//! and so does each frame (how far before it all was durable when it was written). What
//! is unreadable below the watermark is damage: reported, left in place, its indexes
//! never given out again. At or above it the first unreadable record ends the journal,
//! and what lies beyond is a torn tail: set aside, then cut off, and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::emergency::{EMERGENCY_BYTES_MIN, Emergency, Found, Kept, OpenFault};
use crate::error::{OpenError, ReadError, header_error, io_error};
use crate::format::{
    self, FILE_HEADER_BYTES, FRAME_BYTES, FileHeader, Frame, HeaderFault, LEAF_MAGIC, META_MAGIC,
    PAYLOAD_MAGIC,
};
use crate::frames::{frame_at, payload_frame_bytes, read_frames};
use crate::index::IndexBuilder;
use crate::loss::Loss;
use crate::meta::{Meta, read_head, read_meta};
use crate::options::{Entropy, Options};
use crate::paths::{self, Name, Paths, TORN_MARK};
use crate::reader::{Reader, Tail};
use crate::record::RetentionClass;
use crate::store::{Grow, Store};
use crate::tiles::{Hashes, Prefer, TILE_HASHES, Tree};
use crate::tlog::{self, TlogPaths};

const REPORTED_MAX: usize = 1000;
const SCAN_FRAMES: u64 = 4096;
/// Leaves hashed at a time when the tree is made again.
const PUSH_LEAVES: u64 = 16_384;
/// Leaves below the last checkpoint whose tiles are made again at every opening.
const REHASHED_LEAVES: u64 = 131_072;

/// What the opening found and did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The journal was made just now.
    pub created: bool,
    /// The next leaf's index: one past everything promised.
    pub leaves: u64,
    /// Unfinished writes that were never acknowledged, and what became of their bytes.
    pub torn: Vec<Torn>,
    /// Acknowledged evidence that is unreadable; the first 1000.
    pub damage: Vec<Damage>,
    /// Further damage beyond those.
    pub damage_omitted: u64,
    /// The emergency segment.
    pub emergency: EmergencyReport,
    /// Losses counted before the restart and not yet recorded; also in `drain_losses`.
    pub loss: Option<Loss>,
    /// Files that are not ours; left alone.
    pub foreign: Vec<PathBuf>,
    /// What was found about the tree, its checkpoints and keys, in words.
    pub sealing: Vec<String>,
}

impl Recovery {
    /// Whether there is nothing to report.
    pub fn is_clean(&self) -> bool {
        self.torn.is_empty()
            && self.damage.is_empty()
            && self.emergency.taken_over == 0
            && self.emergency.pending == 0
            && self.emergency.unavailable.is_none()
            && self.loss.is_none()
            && self.foreign.is_empty()
            && self.sealing.is_empty()
    }

    fn damaged(&mut self, damage: Damage) {
        if self.damage.len() < REPORTED_MAX {
            self.damage.push(damage);
        } else {
            self.damage_omitted += 1;
        }
    }
}

/// The emergency segment at the opening.
#[derive(Debug, Default)]
pub struct EmergencyReport {
    /// Records that the journal took over from it.
    pub taken_over: u64,
    /// Records still in it, because the disk refuses.
    pub pending: u64,
    /// Why there is no segment: alerts cannot survive a full disk.
    pub unavailable: Option<String>,
}

/// A tail that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file it was in.
    pub path: PathBuf,
    /// Where in it the tail began.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What became of it.
    pub preserved: Preserved,
}

/// What became of a torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preserved {
    /// It lies in this file.
    As(PathBuf),
    /// It could not be copied for this reason, so it stays where it is; the journal goes
    /// on beside it.
    InPlace(String),
}

/// Acknowledged evidence that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// These leaves have no bytes at all.
    MissingLeaves {
        /// First leaf missing.
        first: u64,
        /// Last leaf missing.
        last: u64,
    },
    /// The leaf's frame fails its checksum.
    Leaf {
        /// Which leaf.
        leaf: u64,
        /// In which file.
        path: PathBuf,
    },
    /// The leaf stands, its payload does not.
    Payload {
        /// Which leaf.
        leaf: u64,
        /// Its class.
        class: RetentionClass,
        /// The file it should be in.
        path: PathBuf,
    },
    /// The file's header fails its checksum; its frames are read all the same.
    FileHeader {
        /// Which file.
        path: PathBuf,
    },
}

/// Everything a [`crate::Journal`] is built from.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) emergency: Emergency,
    pub(crate) recovery: Recovery,
    pub(crate) lock: Box<dyn Send>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) batch_bytes: usize,
    pub(crate) retry_ms: u64,
}

pub(crate) fn open(dir: &Path, mut options: Options) -> Result<Opened, OpenError> {
    check_options(&options)?;
    let paths = Paths::new(dir);
    let disk = options.disk.clone();
    prepare_dir(&*disk, &paths)?;
    let lock = take_lock(&*disk, &paths)?;
    let mut recovery = Recovery::default();
    let meta = read_or_make_meta(&*disk, &paths, &mut options, &mut recovery)?;
    for dir in [&paths.leaves, &paths.payloads] {
        disk.create_dir(dir)
            .map_err(io_error("create directory", dir))?;
    }
    disk.sync_dir(&paths.root)
        .map_err(io_error("sync directory", &paths.root))?;
    let (emergency, found) = Emergency::open(disk.clone(), &paths, &meta, options.emergency_bytes)
        .map_err(|fault| emergency_error(&paths, fault))?;
    let mut store = Store::new(disk, paths, meta, options.boot_id);
    let sealed = match &options.sealing {
        Some(_) => last_checkpoint(&store, &mut recovery),
        None => None,
    };
    let sealed_leaves = sealed.as_ref().map_or(0, |checkpoint| checkpoint.size);
    Recover::new(&store, &mut recovery, &found, sealed_leaves)?
        .run(&found)?
        .apply(&mut store)?;
    if options.sealing.is_some() {
        store.tree = Some(grow_tree(&store, sealed.as_ref(), &mut recovery)?);
    }
    store.write_head(options.clock.boot_ns());
    recovery.leaves = store.durable;
    recovery.loss = found.loss;
    recovery.emergency.unavailable = found.unavailable.map(|e| e.to_string());
    Ok(Opened {
        store,
        emergency,
        recovery,
        lock,
        clock: options.clock,
        entropy: options.entropy,
        batch_bytes: options.batch_bytes,
        retry_ms: options.retry_ms,
    })
}

/// The newest checkpoint that was signed here.
fn last_checkpoint(store: &Store, recovery: &mut Recovery) -> Option<Checkpoint> {
    match tlog::read_last(&*store.disk, &TlogPaths::new(&store.paths.root)) {
        Ok(found) => tlog::newest(&found).map(|(checkpoint, _)| checkpoint),
        Err(e) => {
            recovery
                .sealing
                .push(format!("the checkpoints cannot be read: {e}"));
            None
        }
    }
}

/// The tree over all durable leaves: up to the last checkpoint from tiles, when they agree with
/// it, else from the leaves; from there on from the leaves.
fn grow_tree(
    store: &Store,
    sealed: Option<&Checkpoint>,
    recovery: &mut Recovery,
) -> Result<Tree, OpenError> {
    let root = &store.paths.root;
    let failed = |e: ReadError| io_error("hash the leaves in", root)(io::Error::other(e));
    let (disk, paths, meta) = (&store.disk, &store.paths, &store.meta);
    let reader = Reader::over(disk.clone(), paths.clone(), meta.clone(), Tail::Everything);
    let dir = TlogPaths::new(root).dir;
    let size = sealed.map_or(0, |checkpoint| checkpoint.size);
    let agrees =
        |tree: &Tree| sealed.is_none_or(|c| c.size == tree.size() && c.root == tree.root());
    let resume = |at: u64, prefer| {
        let hashes = Hashes::new(&reader, at, prefer);
        Tree::resume(disk.clone(), &dir, &hashes, at).map_err(failed)
    };
    // Tiles are never synced: those of the last stretch are made again from the leaves. Nothing is
    // written before it has led to the signed root.
    let behind = size.saturating_sub(REHASHED_LEAVES) / TILE_HASHES as u64 * TILE_HASHES as u64;
    let mut tree = resume(behind, Prefer::Tiles)?;
    push_leaves(&mut tree, &reader, size, false).map_err(failed)?;
    if !agrees(&tree) {
        let by_leaves = resume(size, Prefer::Leaves)?;
        let (made, what) = if agrees(&by_leaves) {
            let mut made = Tree::new(disk.clone(), &dir);
            push_leaves(&mut made, &reader, size, true).map_err(failed)?;
            (
                made,
                "tiles of the tree were missing or altered and have been made again",
            )
        } else {
            // A record was altered together with its checksum: what the tiles remember of it is
            // left as it is, and goes on being the tree if it leads to the root.
            let by_tiles = resume(size, Prefer::Tiles)?;
            let made = if agrees(&by_tiles) {
                by_tiles
            } else {
                by_leaves
            };
            (
                made,
                "the records do not match the last checkpoint: `plimsoll evidence verify` says where",
            )
        };
        tree = made;
        recovery.sealing.push(what.to_owned());
    }
    tree.write_whole();
    tree.adopt_edge();
    push_leaves(&mut tree, &reader, store.durable, true).map_err(failed)?;
    Ok(tree)
}

fn push_leaves(tree: &mut Tree, reader: &Reader, end: u64, write: bool) -> Result<(), ReadError> {
    let hashes = Hashes::new(reader, end, Prefer::Leaves);
    while tree.size() < end {
        let width = (end - tree.size()).min(PUSH_LEAVES);
        for hash in hashes.leaves(tree.size(), width as usize)? {
            tree.push(hash);
            if write {
                tree.write_whole();
            }
        }
    }
    Ok(())
}

fn check_options(options: &Options) -> Result<(), OpenError> {
    let bad = |option, why| Err(OpenError::BadOption { option, why });
    if options.origin.is_empty() || options.origin.len() > 255 {
        return bad("origin", "expected 1 to 255 bytes");
    }
    if !options.subtree_leaves.is_power_of_two() || options.subtree_leaves < 2 {
        return bad("subtree_leaves", "expected a power of two from 2");
    }
    if options.emergency_bytes < EMERGENCY_BYTES_MIN {
        return bad("emergency_bytes", "expected at least 12288");
    }
    Ok(())
}

/// Makes the directory, or checks that it is empty or a journal, touching nothing.
fn prepare_dir(disk: &dyn Disk, paths: &Paths) -> Result<(), OpenError> {
    let names = match disk.list(&paths.root) {
        Ok(items) => items.into_iter().map(|item| item.name).collect::<Vec<_>>(),
        Err(e) if disk::is_missing(&e) => {
            disk.create_dir(&paths.root)
                .map_err(io_error("create directory", &paths.root))?;
            let parent = paths.root.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            return disk
                .sync_dir(parent)
                .map_err(io_error("sync directory", parent));
        }
        Err(e) => return Err(io_error("list", &paths.root)(e)),
    };
    // A first opening may have been interrupted after any of these.
    let start = ["LOCK", "journal.meta.tmp", "lost+found"];
    let is_journal = names.iter().any(|name| name == "journal.meta");
    match names
        .iter()
        .find(|name| !is_journal && !start.contains(&name.as_str()))
    {
        Some(stranger) => Err(OpenError::Foreign {
            path: paths.root.join(stranger),
            why: "the directory has files but no journal.meta".to_owned(),
        }),
        None => Ok(()),
    }
}

fn take_lock(disk: &dyn Disk, paths: &Paths) -> Result<Box<dyn Send>, OpenError> {
    let path = paths.lock();
    let note = format!("{}\n", std::process::id());
    let lock = disk.lock(&path, &note).map_err(io_error("lock", &path))?;
    lock.ok_or_else(|| {
        let holder = disk::read_small(disk, &path, 32)
            .ok()
            .flatten()
            .unwrap_or_default();
        let pid = std::str::from_utf8(&holder)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        OpenError::Locked {
            dir: paths.root.clone(),
            pid,
        }
    })
}

fn read_or_make_meta(
    disk: &dyn Disk,
    paths: &Paths,
    options: &mut Options,
    recovery: &mut Recovery,
) -> Result<Meta, OpenError> {
    if let Some(meta) = read_meta(disk, paths)? {
        if meta.origin != options.origin {
            return Err(OpenError::WrongOrigin {
                dir: paths.root.clone(),
                stored: meta.origin,
                given: options.origin.clone(),
            });
        }
        return Ok(meta);
    }
    recovery.created = true;
    let mut store = [0; 16];
    (options.entropy)(&mut store)
        .map_err(|why| io_error("name the store in", &paths.meta())(io::Error::other(why)))?;
    let meta = Meta {
        store,
        subtree_leaves: options.subtree_leaves,
        origin: options.origin.clone(),
    };
    let mut header = meta.header(META_MAGIC);
    header.a = u64::from_le_bytes(options.clock.wall_ns().to_le_bytes());
    header.b = meta.origin.len() as u64;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(meta.origin.as_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(meta.origin.as_bytes()).to_le_bytes());
    disk::replace(disk, &paths.meta(), &bytes).map_err(io_error("write", &paths.meta()))?;
    Ok(meta)
}

fn emergency_error(paths: &Paths, fault: OpenFault) -> OpenError {
    let path = paths.emergency();
    match fault {
        OpenFault::Header(fault) => header_error(&path, fault),
        OpenFault::OtherStore => other_store(path),
    }
}

fn other_store(path: PathBuf) -> OpenError {
    OpenError::Foreign {
        path,
        why: "it belongs to another store".to_owned(),
    }
}

/// A leaf segment as found.
struct Segment {
    first: u64,
    bytes: u64,
    /// `None` when the header is altered or was never wholly written.
    boot: Option<[u8; 16]>,
}

struct Recover<'a> {
    disk: Arc<dyn Disk>,
    paths: Paths,
    meta: Meta,
    boot: [u8; 16],
    report: &'a mut Recovery,
    segments: Vec<Segment>,
    /// Payload files: (subtree, class) → bytes.
    payloads: BTreeMap<(u64, RetentionClass), u64>,
    pruned: BTreeSet<(u64, RetentionClass)>,
    /// Payload files whose header is altered or was never wholly written.
    headless: BTreeSet<(u64, RetentionClass)>,
    head: u64,
    /// Leaves the emergency segment has been promised for.
    promised: BTreeMap<u64, format::LeafBytes>,
    files: BTreeMap<(u64, RetentionClass), Option<Box<dyn DiskFile>>>,
}

/// Where the journal goes on.
struct End {
    durable: u64,
    segment: Option<(Grow, IndexBuilder)>,
}

impl End {
    fn apply(self, store: &mut Store) -> Result<(), OpenError> {
        store.resume(self.durable, self.segment);
        Ok(())
    }
}

impl<'a> Recover<'a> {
    fn new(
        store: &Store,
        report: &'a mut Recovery,
        found: &Found,
        sealed_leaves: u64,
    ) -> Result<Self, OpenError> {
        // A checkpoint promises its leaves as much as the head does, and is signed.
        let head = read_head(&*store.disk, &store.paths, &store.meta)
            .unwrap_or(0)
            .max(sealed_leaves);
        let mut this = Self {
            disk: store.disk.clone(),
            paths: store.paths.clone(),
            meta: store.meta.clone(),
            boot: store.boot,
            report,
            segments: Vec::new(),
            payloads: BTreeMap::new(),
            pruned: BTreeSet::new(),
            headless: BTreeSet::new(),
            head,
            promised: found
                .kept
                .iter()
                .map(|kept| (kept.index, kept.leaf))
                .collect(),
            files: BTreeMap::new(),
        };
        this.list_leaves()?;
        this.list_payloads()?;
        this.read_headers()?;
        Ok(this)
    }

    fn list_leaves(&mut self) -> Result<(), OpenError> {
        let dir = self.paths.leaves.clone();
        for item in self.disk.list(&dir).map_err(io_error("list", &dir))? {
            match paths::parse(&item.name) {
                Name::Segment(first) if item.is_file => self.segments.push(Segment {
                    first,
                    bytes: item.bytes,
                    boot: None,
                }),
                Name::Aside => {}
                _ => self.foreign(dir.join(item.name)),
            }
        }
        self.segments.sort_by_key(|segment| segment.first);
        Ok(())
    }

    fn list_payloads(&mut self) -> Result<(), OpenError> {
        let dir = self.paths.payloads.clone();
        for item in self.disk.list(&dir).map_err(io_error("list", &dir))? {
            match paths::parse(&item.name) {
                Name::Payload(subtree, class) if item.is_file => {
                    self.payloads.insert((subtree, class), item.bytes);
                }
                Name::Pruned(subtree, class) => {
                    self.pruned.insert((subtree, class));
                }
                Name::Aside => {}
                _ => self.foreign(dir.join(item.name)),
            }
        }
        Ok(())
    }

    fn foreign(&mut self, path: PathBuf) {
        if self.report.foreign.len() < REPORTED_MAX {
            self.report.foreign.push(path);
        }
    }

    /// Refuses foreign and newer files before anything is changed.
    fn read_headers(&mut self) -> Result<(), OpenError> {
        for position in 0..self.segments.len() {
            let first = self.segments[position].first;
            let header = self.read_header(&self.paths.segment(first), LEAF_MAGIC, first)?;
            self.segments[position].boot = header.map(|header| header.boot);
        }
        for (subtree, class) in self.payloads.keys().copied().collect::<Vec<_>>() {
            let path = self.paths.payload(subtree, class);
            if self.read_header(&path, PAYLOAD_MAGIC, subtree)?.is_none() {
                self.headless.insert((subtree, class));
            }
        }
        Ok(())
    }

    /// A file's header; `None` when it is altered or was never wholly written.
    fn read_header(
        &self,
        path: &Path,
        magic: [u8; 8],
        first: u64,
    ) -> Result<Option<FileHeader>, OpenError> {
        let bytes = disk::read_small(&*self.disk, path, FILE_HEADER_BYTES)
            .map_err(io_error("read", path))?
            .unwrap_or_default();
        match FileHeader::decode(magic, &bytes) {
            Ok(header) if header.store != self.meta.store => Err(other_store(path.to_path_buf())),
            Ok(header) if header.first != first => Err(OpenError::Foreign {
                path: path.to_path_buf(),
                why: format!("it holds leaves from {}", header.first),
            }),
            Ok(header) => Ok(Some(header)),
            Err(HeaderFault::Unwritten | HeaderFault::Damaged) => Ok(None),
            Err(fault) => Err(header_error(path, fault)),
        }
    }

    fn run(mut self, found: &Found) -> Result<End, OpenError> {
        let from = self.scan_from();
        self.finish_prunes()?;
        self.report_holes();
        let watermark = self.watermark(from)?;
        let mut end = self.find_end(from, watermark)?;
        self.report_headless(end);
        self.set_aside_after(end)?;
        self.sync_tail(end)?;
        end = self.hold_places(end, watermark, &found.kept);
        let segment = self.segment_to_go_on(end)?;
        Ok(End {
            durable: end,
            segment,
        })
    }

    /// The subtree of the last leaf known durable, or of the last segment if earlier.
    fn scan_from(&self) -> u64 {
        let last = self.segments.last().map_or(0, |segment| segment.first);
        let known = if self.head > 0 {
            self.head.min(last + 1)
        } else {
            last
        };
        self.meta.subtree_of(known.saturating_sub(1))
    }

    /// A prune that was interrupted between its stub and its deletion is finished.
    fn finish_prunes(&mut self) -> Result<(), OpenError> {
        let both: Vec<_> = self
            .pruned
            .iter()
            .filter(|key| self.payloads.contains_key(key))
            .copied()
            .collect();
        for (subtree, class) in both {
            let path = self.paths.payload(subtree, class);
            self.disk.remove(&path).map_err(io_error("remove", &path))?;
            self.payloads.remove(&(subtree, class));
        }
        Ok(())
    }

    /// Leaves between segments that are in none.
    fn report_holes(&mut self) {
        let mut expected = 0;
        for position in 0..self.segments.len() {
            let range = self.leaves_of(position);
            if range.start > expected {
                let hole = Damage::MissingLeaves {
                    first: expected,
                    last: range.start - 1,
                };
                self.report.damaged(hole);
            }
            expected = range.end.max(range.start);
        }
    }

    /// Whole frames of a segment; what the next segment also claims is its own.
    fn leaves_of(&self, position: usize) -> Range<u64> {
        let segment = &self.segments[position];
        let frames = segment.bytes.saturating_sub(FILE_HEADER_BYTES as u64) / FRAME_BYTES as u64;
        let limit = self
            .segments
            .get(position + 1)
            .map_or(u64::MAX, |next| next.first);
        segment.first..(segment.first + frames).min(limit)
    }

    /// Calls `each` with every leaf's frame from `from` on; `None` where it is unreadable.
    /// `each` returns whether to go on.
    fn scan(
        &mut self,
        from: u64,
        mut each: impl FnMut(&mut Self, u64, Option<Frame>) -> bool,
    ) -> Result<(), OpenError> {
        for position in 0..self.segments.len() {
            let range = self.leaves_of(position);
            if range.end <= from {
                continue;
            }
            let path = self.paths.segment(range.start);
            let file = self
                .disk
                .open(&path, OpenMode::Read)
                .map_err(io_error("open", &path))?;
            let mut at = range.start.max(from);
            while at < range.end {
                let block = at..range.end.min(at + SCAN_FRAMES);
                let bytes = read_frames(file.as_ref(), range.start, &block)
                    .map_err(io_error("read", &path))?;
                at = block.end;
                for (leaf, raw) in block.zip(bytes.chunks(FRAME_BYTES)) {
                    let frame = Frame::decode(self.meta.seed(), leaf, raw);
                    if !each(self, leaf, frame) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Leaves below this were acknowledged.
    fn watermark(&mut self, from: u64) -> Result<u64, OpenError> {
        let mut watermark = self.head;
        self.scan(from, |_, leaf, frame| {
            if let Some(frame) = frame {
                watermark = watermark.max(leaf.saturating_sub(u64::from(frame.undurable)));
            }
            true
        })?;
        Ok(watermark)
    }

    /// The first leaf at or above the watermark that is not wholly there; damage below
    /// the watermark is reported on the way.
    fn find_end(&mut self, from: u64, watermark: u64) -> Result<u64, OpenError> {
        let mut end = from;
        self.scan(from, |this, leaf, frame| {
            let whole = this.check(leaf, frame, watermark);
            if leaf >= watermark && (!whole || leaf > end) {
                return false;
            }
            end = leaf + 1;
            true
        })?;
        if end < watermark {
            self.report.damaged(Damage::MissingLeaves {
                first: end,
                last: watermark - 1,
            });
        }
        Ok(end)
    }

    /// Whether a leaf can stand. Below the watermark it stands whatever it looks like.
    fn check(&mut self, leaf: u64, frame: Option<Frame>, watermark: u64) -> bool {
        let path = self.segment_path_of(leaf);
        let Some(frame) = frame else {
            if leaf < watermark {
                self.report.damaged(Damage::Leaf { leaf, path });
            }
            return false;
        };
        let Some(header) = format::header_of(&frame.leaf) else {
            return false;
        };
        let key = (self.meta.subtree_of(leaf), header.class);
        if leaf >= watermark && (self.is_superseded(leaf, &frame) || self.lacks_header(leaf, key)) {
            return false;
        }
        if self.pruned.contains(&key) || self.payload_stands(leaf, &frame, key) {
            return true;
        }
        if leaf < watermark {
            let path = self.paths.payload(key.0, key.1);
            self.report.damaged(Damage::Payload {
                leaf,
                class: header.class,
                path,
            });
        }
        false
    }

    /// Left over from a commit that failed: the emergency segment has the leaf.
    fn is_superseded(&self, leaf: u64, frame: &Frame) -> bool {
        self.promised
            .get(&leaf)
            .is_some_and(|kept| *kept != frame.leaf)
    }

    /// A file is acknowledged with its first records, header and all.
    fn lacks_header(&self, leaf: u64, key: (u64, RetentionClass)) -> bool {
        self.headless.contains(&key) || self.segment_of(leaf).is_none_or(|s| s.boot.is_none())
    }

    fn segment_of(&self, leaf: u64) -> Option<&Segment> {
        let position = self
            .segments
            .partition_point(|segment| segment.first <= leaf);
        position.checked_sub(1).map(|p| &self.segments[p])
    }

    fn segment_path_of(&self, leaf: u64) -> PathBuf {
        self.paths
            .segment(self.segment_of(leaf).map_or(0, |segment| segment.first))
    }

    /// Files that hold leaves below `end` and have lost their header. One with no more than
    /// a header holds nothing: its first commit failed.
    fn report_headless(&mut self, end: u64) {
        let holds = |bytes: u64| bytes > FILE_HEADER_BYTES as u64;
        let headless = |s: &&Segment| s.boot.is_none() && s.first < end && holds(s.bytes);
        let segments = self.segments.iter().filter(headless);
        let mut paths: Vec<_> = segments.map(|s| self.paths.segment(s.first)).collect();
        let tail = self.meta.subtree_of(end);
        let payloads = self
            .headless
            .iter()
            .filter(|key| key.0 < tail && self.payloads.get(key).is_some_and(|b| holds(*b)));
        paths.extend(payloads.map(|(subtree, class)| self.paths.payload(*subtree, *class)));
        paths
            .into_iter()
            .for_each(|path| self.report.damaged(Damage::FileHeader { path }));
    }

    fn payload_stands(&mut self, leaf: u64, frame: &Frame, key: (u64, RetentionClass)) -> bool {
        let (disk, path) = (&self.disk, self.paths.payload(key.0, key.1));
        if self.files.len() > 64 {
            self.files.clear();
        }
        let file = self
            .files
            .entry(key)
            .or_insert_with(|| disk.open(&path, OpenMode::Read).ok());
        let Some(file) = file else { return false };
        let Some(len) = payload_frame_bytes(frame) else {
            return false;
        };
        let mut bytes = vec![0; len];
        disk::read_up_to(file.as_ref(), &mut bytes, frame.payload_at).is_ok_and(|n| n == len)
            && format::decode_payload(self.meta.seed(), leaf, &bytes).is_some_and(
                |(salt, payload)| {
                    format::payload_hash(&salt, payload) == format::hash_of(&frame.leaf)
                },
            )
    }

    /// Sets aside and cuts off everything that belongs to no leaf below `end`.
    fn set_aside_after(&mut self, end: u64) -> Result<(), OpenError> {
        self.files.clear();
        let ends = self.payload_ends(end)?;
        for position in 0..self.segments.len() {
            let segment = &self.segments[position];
            let path = self.paths.segment(segment.first);
            let limit = self
                .segments
                .get(position + 1)
                .map_or(u64::MAX, |next| next.first);
            // Only the tail can be torn; an in-place tail of earlier days stays.
            if limit <= end {
                continue;
            }
            let bytes = segment.bytes;
            let headless = segment.boot.is_none();
            let never_begun = segment.first > end || (segment.first == end && headless);
            let good = if never_begun {
                0
            } else {
                frame_at(segment.first, end)
            };
            if bytes > good {
                self.set_aside(&path, good, bytes);
            }
        }
        let tail = self.meta.subtree_of(end);
        let files: Vec<_> = self
            .payloads
            .range((tail, RetentionClass::ALERT)..)
            .map(|(k, b)| (*k, *b))
            .collect();
        for (key, bytes) in files {
            let good = ends.get(&key).copied().unwrap_or(0);
            if good > 0 && self.headless.contains(&key) {
                let path = self.paths.payload(key.0, key.1);
                self.report.damaged(Damage::FileHeader { path });
            }
            let header_only = good == 0 && bytes <= FILE_HEADER_BYTES as u64 && key.0 == tail;
            if bytes > good && !header_only {
                self.set_aside(&self.paths.payload(key.0, key.1), good, bytes);
            }
        }
        self.sync_dirs()
    }

    /// Where the payloads of the leaves below `end` end, for the subtree of `end`.
    fn payload_ends(
        &mut self,
        end: u64,
    ) -> Result<BTreeMap<(u64, RetentionClass), u64>, OpenError> {
        let mut ends = BTreeMap::new();
        let tail = self.meta.subtree_of(end);
        self.scan(tail, |_, leaf, frame| {
            let class = frame
                .and_then(|f| format::header_of(&f.leaf))
                .map(|h| h.class);
            if let (true, Some(frame), Some(class)) = (leaf < end, frame, class) {
                let past = frame.payload_at + payload_frame_bytes(&frame).unwrap_or(0) as u64;
                let entry = ends.entry((tail, class)).or_insert(0);
                *entry = past.max(*entry);
            }
            leaf < end
        })?;
        Ok(ends)
    }

    /// Preserves the bytes from `good` on beside the file, then cuts them off. Where they
    /// cannot be preserved they stay: the journal never needs their place.
    fn set_aside(&mut self, path: &Path, good: u64, bytes: u64) {
        let preserved = match self.preserve(path, good, bytes) {
            Ok(aside) => Preserved::As(aside),
            Err(error) => Preserved::InPlace(error.to_string()),
        };
        let torn = Torn {
            path: path.to_path_buf(),
            offset: good,
            bytes: bytes - good,
            preserved,
        };
        self.report.torn.push(torn);
    }

    fn preserve(&self, path: &Path, good: u64, bytes: u64) -> io::Result<PathBuf> {
        let aside = self.free_name(path)?;
        let dir = path.parent().unwrap_or(&self.paths.root);
        if good == 0 {
            self.disk.rename(path, &aside)?;
            self.disk.sync_dir(dir)?;
            return Ok(aside);
        }
        let file = self.disk.open(path, OpenMode::Write)?;
        let copied = self.copy_tail(file.as_ref(), &aside, good, bytes);
        if let Err(error) = copied.and_then(|()| self.disk.sync_dir(dir)) {
            let removed = self.disk.remove(&aside);
            drop(removed);
            return Err(error);
        }
        file.set_len(good)?;
        file.sync_data()?;
        Ok(aside)
    }

    fn copy_tail(&self, from: &dyn DiskFile, aside: &Path, good: u64, end: u64) -> io::Result<()> {
        let to = self.disk.open(aside, OpenMode::Create)?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = good;
        while at < end {
            let filled = disk::read_up_to(from, &mut buffer, at)?;
            if filled == 0 {
                break;
            }
            disk::write_all(to.as_ref(), &buffer[..filled], at - good)?;
            at += filled as u64;
        }
        to.sync_data()
    }

    fn free_name(&self, path: &Path) -> io::Result<PathBuf> {
        let names = (1..10_000).map(|n| disk::with_suffix(path, &format!("{TORN_MARK}{n}")));
        for name in names {
            match self.disk.open(&name, OpenMode::Read) {
                Err(e) if disk::is_missing(&e) => return Ok(name),
                Err(e) => return Err(e),
                Ok(_) => {}
            }
        }
        Err(io::Error::other(
            "10,000 torn tails are already set aside here",
        ))
    }

    fn sync_dirs(&self) -> Result<(), OpenError> {
        for dir in [&self.paths.leaves, &self.paths.payloads] {
            self.disk
                .sync_dir(dir)
                .map_err(io_error("sync directory", dir))?;
        }
        Ok(())
    }

    /// What was found whole may still be only in the page cache: before it counts as
    /// durable it is synced.
    fn sync_tail(&mut self, end: u64) -> Result<(), OpenError> {
        let from = self.meta.subtree_of(self.head.min(end).saturating_sub(1));
        let segments = self
            .segments
            .iter()
            .filter(|s| s.first >= from && s.first < end);
        let mut files: Vec<PathBuf> = segments.map(|s| self.paths.segment(s.first)).collect();
        let payloads = self
            .payloads
            .keys()
            .filter(|(subtree, _)| (from..end.max(1)).contains(subtree));
        files.extend(payloads.map(|(subtree, class)| self.paths.payload(*subtree, *class)));
        for path in files {
            let file = match self.disk.open(&path, OpenMode::Write) {
                Err(e) if disk::is_missing(&e) => continue,
                opened => opened.map_err(io_error("open", &path))?,
            };
            file.sync_data().map_err(io_error("sync", &path))?;
        }
        Ok(())
    }

    /// Skips over indexes that were promised and whose leaves are gone.
    fn hold_places(&mut self, end: u64, watermark: u64, kept: &[Kept]) -> u64 {
        let end = end.max(watermark);
        let promised = kept
            .iter()
            .map(|kept| kept.index)
            .find(|index| *index >= end);
        if let Some(first) = promised.filter(|first| *first > end) {
            self.report.damaged(Damage::MissingLeaves {
                first: end,
                last: first - 1,
            });
            return first;
        }
        end
    }

    /// The last segment, when it is whole up to `end`, of this boot and not full.
    fn segment_to_go_on(&mut self, end: u64) -> Result<Option<(Grow, IndexBuilder)>, OpenError> {
        let Some(segment) = self.segments.iter().rfind(|s| s.first < end) else {
            return Ok(None);
        };
        let (first, boot) = (segment.first, segment.boot);
        let path = self.paths.segment(first);
        let same_subtree = self.meta.subtree_of(first) == self.meta.subtree_of(end);
        if !same_subtree || boot != Some(self.boot) {
            return Ok(None);
        }
        let file = self
            .disk
            .open(&path, OpenMode::Write)
            .map_err(io_error("open", &path))?;
        let len = file.len().map_err(io_error("measure", &path))?;
        if len != frame_at(first, end) {
            return Ok(None);
        }
        let mut index = IndexBuilder::default();
        self.scan(first, |_, leaf, frame| {
            if leaf < end {
                match &frame {
                    Some(frame) => index.push(&frame.leaf),
                    None => index.push_unknown(),
                }
            }
            leaf < end
        })?;
        Ok(Some((
            Grow {
                file: file.into(),
                path,
                first,
                len,
            },
            index,
        )))
    }
}
