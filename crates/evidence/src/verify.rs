//! Verification: whether a store is what was signed, offline, with nothing but a public key.
//!
//! Everything is read and hashed: headers, leaves, payloads, tiles, checkpoints, certificates.
//! The report names the first damaged record and every other (up to a bound), what is missing,
//! and what cannot be known from what was given. It changes nothing and needs no lock, so it runs
//! on a live store, on a copy, and on a read-only medium.
//!
//! How an alteration is found although its checksums were mended: the root over the leaves as they
//! are is compared with every checkpoint of the history. The first that fails says in which stretch
//! of records the change lies; tiles that still agree with it name the record.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checkpoint::{Certificate, Checkpoint, KeyChain, log_name};
use crate::disk::{Disk, RealDisk};
use crate::error::{OpenError, ReadError};
use crate::filter::Filter;
use crate::merkle::{self, Hash, Peaks};
use crate::note::{Note, PublicKey};
use crate::reader::{Claim, Payload, Reader, Tail};
use crate::record::{Header, Leaf};
use crate::seal::EPOCH_KEY_KIND;
use crate::tiles::{self, Hashes, Prefer, TILE_HASHES};
use crate::tlog::{self, Found, FoundNote, Signers};

/// Problems that are named; further ones are counted.
const PROBLEMS_MAX: usize = 1000;
/// Leaves hashed as one piece of work.
const UNIT_LEAVES: u64 = 65_536;

/// What a verification is given besides the store.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// The root's public key, from elsewhere. Without it the store's own is taken.
    pub key: Option<PublicKey>,
    /// A checkpoint's note that was kept elsewhere.
    pub kept: Option<Vec<u8>>,
    /// Threads; 0: as many as there are processors.
    pub threads: usize,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A leaf fails its checksum.
    DamagedRecord,
    /// A leaf is whole but not the one that was signed.
    AlteredRecord,
    /// A payload is not the one its leaf names, or is not there.
    DamagedPayload,
    /// Leaves are not there.
    MissingRecords,
    /// The store ends before a checkpoint does: cut off or rolled back.
    Truncated,
    /// Records differ from what a checkpoint signed, and nothing says which.
    Forked,
    /// A header, an index or another file beside the records is altered.
    DamagedFile,
    /// A payload file was removed and no tombstone says so.
    BadTombstone,
    /// A checkpoint's text or signature is altered, or none of the log's keys made it.
    BadCheckpoint,
    /// A certificate is altered, or nothing links it to the root.
    BadKey,
    /// A tile differs from the leaves, which are as signed.
    DamagedTile,
}

impl Fault {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DamagedRecord => "damaged_record",
            Self::AlteredRecord => "altered_record",
            Self::DamagedPayload => "damaged_payload",
            Self::MissingRecords => "missing_records",
            Self::Truncated => "truncated",
            Self::Forked => "forked",
            Self::DamagedFile => "damaged_file",
            Self::BadTombstone => "bad_tombstone",
            Self::BadCheckpoint => "bad_checkpoint",
            Self::BadKey => "bad_key",
            Self::DamagedTile => "damaged_tile",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of thing.
    pub fault: Fault,
    /// The first record concerned.
    pub leaf: Option<u64>,
    /// The last record concerned, when there are more.
    pub last: Option<u64>,
    /// What the leaf says of itself, or, when it cannot be read, the nearest one before it.
    pub near: Option<Header>,
    /// Whether `near` is the record's own header.
    pub own: bool,
    /// The file.
    pub path: Option<PathBuf>,
    /// In words.
    pub text: String,
}

impl Problem {
    pub(crate) fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self {
            fault,
            leaf: None,
            last: None,
            near: None,
            own: false,
            path: None,
            text: text.into(),
        }
    }

    pub(crate) fn at(mut self, leaf: u64) -> Self {
        self.leaf = Some(leaf);
        self
    }

    pub(crate) fn through(mut self, last: u64) -> Self {
        self.last = Some(last);
        self
    }

    pub(crate) fn of(mut self, header: Header) -> Self {
        (self.near, self.own) = (Some(header), true);
        self
    }

    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.path = Some(path.to_path_buf());
        self
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// The node whose journal it is.
    pub origin: String,
    /// Records that were read.
    pub records: u64,
    /// Of them, those whose payload retention has removed.
    pub pruned: u64,
    /// Bytes of leaves and payloads that were hashed.
    pub bytes: u64,
    /// The root key that was used.
    pub key: Option<PublicKey>,
    /// It came from elsewhere, not from the store.
    pub key_given: bool,
    /// Epochs whose keys the root vouches for.
    pub epochs: u64,
    /// Checkpoints that were signed by these keys and agree with the records.
    pub checkpoints: u64,
    /// The newest of them.
    pub newest: Option<Checkpoint>,
    /// The one that was kept elsewhere, when it is signed by these keys.
    pub kept: Option<Checkpoint>,
    /// What is wrong, in the order of the records; at most 1000.
    pub problems: Vec<Problem>,
    /// Problems beyond those.
    pub omitted: u64,
    /// What cannot be known from what was given.
    pub unknown: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.omitted == 0
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn finish(&mut self) {
        // What the records say comes before what lies beside them.
        self.problems.sort_by_key(|p| {
            (
                p.leaf.is_none() || p.fault == Fault::BadTombstone,
                p.leaf,
                p.fault,
            )
        });
    }
}

/// Verifies the store in `dir`, live or copied.
///
/// # Errors
/// When there is no store, its format is newer, or the disk refuses.
pub fn verify(dir: impl AsRef<Path>, options: &VerifyOptions) -> Result<VerifyReport, OpenError> {
    verify_on(Arc::new(RealDisk::default()), dir, options)
}

/// Verifies the store in `dir` on any disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(
    disk: Arc<dyn Disk>,
    dir: impl AsRef<Path>,
    options: &VerifyOptions,
) -> Result<VerifyReport, OpenError> {
    let dir = dir.as_ref();
    let reader = Reader::open_on(disk, dir, Tail::Durable)?;
    let io = |e: ReadError| OpenError::Io {
        doing: "verify",
        path: dir.to_path_buf(),
        source: std::io::Error::other(e),
    };
    let mut report = VerifyReport {
        origin: reader.origin().to_owned(),
        ..VerifyReport::default()
    };
    // Checkpoints before leaves: a live store grows meanwhile, and never the other way round.
    let found = tlog::read(&**reader.tlog().0, reader.tlog_paths()).map_err(io)?;
    let chain = key_chain(&reader, &found, options, &mut report).map_err(io)?;
    let mut signed = signed_heads(&found, &chain, &mut report);
    kept_head(options, &chain, &mut signed, &mut report);
    signed.sort_by_key(|head| (head.checkpoint.size, head.kept));
    signed.dedup_by(|a, b| a.checkpoint == b.checkpoint && a.kept == b.kept);
    crate::beside::check_files(&reader, &mut report).map_err(io)?;
    let walk = walk(&reader, &signed, options.threads, &mut report).map_err(io)?;
    judge_heads(&reader, &signed, &walk, &mut report).map_err(io)?;
    crate::beside::check_tiles(&reader, &walk, &mut report);
    crate::beside::check_tombstones(&reader, &mut report).map_err(io)?;
    crate::beside::check_held(&reader, &chain, &mut report);
    say_what_is_unknown(&walk, &mut report);
    report.finish();
    Ok(report)
}

/// A signed tree head that the records have to match.
struct Head {
    checkpoint: Checkpoint,
    path: Option<PathBuf>,
    kept: bool,
}

fn key_chain(
    reader: &Reader,
    found: &Found,
    options: &VerifyOptions,
    report: &mut VerifyReport,
) -> Result<KeyChain, ReadError> {
    let mut certificates = Vec::new();
    for note in &found.certificates {
        match Certificate::parse(&note.bytes) {
            Some(certificate) => certificates.push(certificate),
            None => report.add(bad_note(
                Fault::BadKey,
                note,
                "is not a certificate: it was altered",
            )),
        }
    }
    // The log has them as well, so a damaged file costs nothing.
    let logged = Filter {
        kinds: vec![EPOCH_KEY_KIND],
        ..Filter::default()
    };
    let mut leaves = Vec::new();
    for entry in reader.scan(logged)?.flatten() {
        let certificate = entry.payload.bytes().and_then(Certificate::parse);
        leaves.extend(certificate.as_ref().map(|c| (c.note.bytes(), entry.leaf.0)));
        certificates.extend(certificate);
    }
    certificates.sort_by_key(|certificate| certificate.epoch);
    let chain = KeyChain::follow(certificates, options.key.as_ref());
    for (certificate, why) in &chain.unlinked {
        let text = format!(
            "the certificate of epoch {} is not believed: {why}",
            certificate.epoch
        );
        let mut problem = Problem::new(Fault::BadKey, text);
        let note = certificate.note.bytes();
        if let Some(file) = found.certificates.iter().find(|c| c.bytes == note) {
            problem = problem.in_file(&file.path);
        } else if let Some((_, leaf)) = leaves.iter().find(|(logged, _)| *logged == note) {
            problem = problem.at(*leaf);
        }
        report.add(problem);
    }
    for (path, at, bytes) in &found.torn {
        let text = format!("{bytes} bytes at {at} are no whole note: unfinished or altered");
        let fault = match path.ends_with("tlog/keys") {
            true => Fault::BadKey,
            false => Fault::BadCheckpoint,
        };
        report.add(Problem::new(fault, text).in_file(path));
    }
    for path in &found.foreign {
        report.add(Problem::new(Fault::DamagedFile, "is not a file of a journal").in_file(path));
    }
    report.key = options.key.clone().or_else(|| chain.root().cloned());
    report.key_given = options.key.is_some();
    report.epochs = chain.certificates.len() as u64;
    if options.key.is_some() && chain.certificates.is_empty() && !found.certificates.is_empty() {
        report.add(Problem::new(
            Fault::BadKey,
            "this log does not begin with the key that was given: another node's, or made anew",
        ));
    }
    Ok(chain)
}

fn bad_note(fault: Fault, note: &FoundNote, what: &str) -> Problem {
    Problem::new(fault, format!("the note at {} {what}", note.at)).in_file(&note.path)
}

fn signed_heads(found: &Found, chain: &KeyChain, report: &mut VerifyReport) -> Vec<Head> {
    let signers = Signers::of(chain);
    let name = log_name(&report.origin);
    let mut heads = Vec::new();
    for note in found.history.iter().chain(&found.latest) {
        match signers.checkpoint(&note.bytes) {
            Some((checkpoint, _)) if checkpoint.origin == name => {
                heads.push(Head {
                    checkpoint,
                    path: Some(note.path.clone()),
                    kept: false,
                });
            }
            Some(_) => report.add(bad_note(
                Fault::BadCheckpoint,
                note,
                "is a checkpoint of another log",
            )),
            None => report.add(bad_note(
                Fault::BadCheckpoint,
                note,
                "is not signed by a key of this log: it was altered or forged",
            )),
        }
    }
    heads
}

fn kept_head(
    options: &VerifyOptions,
    chain: &KeyChain,
    heads: &mut Vec<Head>,
    report: &mut VerifyReport,
) {
    let Some(bytes) = &options.kept else { return };
    match Signers::of(chain).checkpoint(bytes) {
        Some((checkpoint, _)) => {
            report.kept = Some(checkpoint.clone());
            heads.push(Head {
                checkpoint,
                path: None,
                kept: true,
            });
        }
        None => {
            let what = match Note::parse(bytes)
                .ok()
                .and_then(|note| Checkpoint::parse(&note.text))
            {
                Some(other) if other.origin != log_name(&report.origin) => {
                    format!(
                        "the kept checkpoint is of {}, not of this log",
                        other.origin
                    )
                }
                Some(other) => format!(
                    "the kept checkpoint of {} records is not signed by a key that this store knows: the store was rolled back to before that key, or the checkpoint is forged",
                    other.size
                ),
                None => "what was given as a kept checkpoint is none".to_owned(),
            };
            report.add(Problem::new(Fault::BadCheckpoint, what));
        }
    }
}

/// What hashing all leaves gave.
pub(crate) struct Walk {
    /// Leaves that exist by the store's own word.
    pub(crate) end: u64,
    /// Roots at the sizes of the signed heads.
    roots: Vec<(u64, Hash)>,
    /// Hashes of whole tiles of level 0.
    pub(crate) tiles: Vec<Hash>,
    /// Leaf hashes behind the last whole tile.
    pub(crate) edge: Vec<Hash>,
    /// Leaves whose tile says otherwise.
    pub(crate) differs: Vec<u64>,
}

#[derive(Default)]
struct Unit {
    records: u64,
    pruned: u64,
    bytes: u64,
    /// Whole subtrees up to each size asked for, and up to the unit's end.
    peaks: Vec<(u64, Vec<(u32, Hash)>)>,
    tiles: Vec<Hash>,
    edge: Vec<Hash>,
    differs: Vec<u64>,
    problems: Vec<Problem>,
}

/// The end that the store claims, or a nearer one where it has no files for what it claims: whoever
/// altered it must not decide how long this takes.
fn plausible_end(reader: &Reader, report: &mut VerifyReport) -> Result<u64, ReadError> {
    let Claim { end, held, most } = reader.claimed_end()?;
    if end > most {
        let text = format!("it claims {end} records, and has files for {held} at most");
        report.add(
            Problem::new(Fault::MissingRecords, text)
                .at(most)
                .through(end - 1),
        );
    }
    Ok(end.min(most))
}

fn walk(
    reader: &Reader,
    heads: &[Head],
    threads: usize,
    report: &mut VerifyReport,
) -> Result<Walk, ReadError> {
    let end = plausible_end(reader, report)?;
    let mut sizes: Vec<u64> = heads
        .iter()
        .map(|h| h.checkpoint.size)
        .filter(|s| *s <= end)
        .collect();
    sizes.dedup();
    let units = end.div_ceil(UNIT_LEAVES);
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= units {
                return done;
            }
            let leaves = number * UNIT_LEAVES..((number + 1) * UNIT_LEAVES).min(end);
            done.push((number, walk_unit(reader, leaves, &sizes)));
        }
    };
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let threads = threads
        .min(usize::try_from(units).unwrap_or(usize::MAX))
        .max(1);
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    all.sort_by_key(|(number, _)| *number);
    let mut whole = Walk {
        end,
        roots: Vec::new(),
        tiles: Vec::new(),
        edge: Vec::new(),
        differs: Vec::new(),
    };
    let mut peaks = Peaks::default();
    for (_, unit) in all {
        let unit = unit?;
        report.records += unit.records;
        report.pruned += unit.pruned;
        report.bytes += unit.bytes;
        unit.problems
            .into_iter()
            .for_each(|problem| report.add(problem));
        let last = unit.peaks.len().saturating_sub(1);
        for (at, (size, inside)) in unit.peaks.into_iter().enumerate() {
            let mut there = peaks.clone();
            inside
                .iter()
                .for_each(|(level, hash)| there.push_whole(*level, *hash));
            whole.roots.push((size, there.root()));
            if at == last {
                peaks = there;
            }
        }
        whole.tiles.extend(unit.tiles);
        whole.edge = unit.edge;
        whole.differs.extend(unit.differs);
    }
    Ok(whole)
}

/// Reads, checks and hashes some leaves and their payloads.
fn walk_unit(
    reader: &Reader,
    leaves: std::ops::Range<u64>,
    sizes: &[u64],
) -> Result<Unit, ReadError> {
    let mut unit = Unit::default();
    let count = usize::try_from(leaves.end - leaves.start).unwrap_or(0);
    let mut hashes: Vec<Option<Hash>> = vec![None; count];
    let mut near: Option<Header> = None;
    for entry in reader.scan(Filter {
        leaves: leaves.clone(),
        ..Filter::default()
    })? {
        match entry {
            Ok(entry) => {
                let leaf = entry.leaf.0;
                unit.records += 1;
                unit.bytes += entry.leaf_bytes.len() as u64;
                hashes[(leaf - leaves.start) as usize] = Some(merkle::leaf_hash(&entry.leaf_bytes));
                match entry.payload {
                    Payload::Present { bytes, .. } => unit.bytes += bytes.len() as u64,
                    Payload::Pruned { .. } => unit.pruned += 1,
                    Payload::Lost { why } => unit.problems.push(
                        Problem::new(
                            Fault::DamagedPayload,
                            format!("its content is damaged: {why}"),
                        )
                        .at(leaf)
                        .of(entry.header),
                    ),
                }
                near = Some(entry.header);
            }
            Err(ReadError::DamagedLeaf { leaf, path }) => {
                let mut problem = Problem::new(Fault::DamagedRecord, "it fails its checksum")
                    .at(leaf)
                    .in_file(&path);
                problem.near = near;
                unit.problems.push(problem);
            }
            Err(ReadError::MissingLeaves { first, last }) => {
                let mut problem = Problem::new(Fault::MissingRecords, "no segment holds them")
                    .at(first)
                    .through(last);
                problem.near = near;
                unit.problems.push(problem);
            }
            Err(error) => return Err(error),
        }
    }
    unit.hash(reader, &leaves, hashes, sizes);
    Ok(unit)
}

impl Unit {
    /// Tile by tile: what is damaged is taken from the tile, what differs is noted.
    fn hash(
        &mut self,
        reader: &Reader,
        leaves: &std::ops::Range<u64>,
        hashes: Vec<Option<Hash>>,
        sizes: &[u64],
    ) {
        let (disk, dir) = reader.tlog();
        let mut peaks = Peaks::default();
        let mut sizes = sizes
            .iter()
            .copied()
            .filter(|s| leaves.contains(&s.saturating_sub(1)) && *s > 0)
            .peekable();
        for (number, row) in (leaves.start / TILE_HASHES as u64..).zip(hashes.chunks(TILE_HASHES)) {
            let first = number * TILE_HASHES as u64;
            let tile = (0..=row.len()).rev().find_map(|width| match width {
                0 => Some(Vec::new()),
                _ if width < row.len()
                    && row.len() == TILE_HASHES
                    && row.iter().all(Option::is_some) =>
                {
                    Some(Vec::new())
                }
                width => tiles::read_tile(&**disk, dir, 0, number, width),
            });
            let tile = tile.unwrap_or_default();
            for (at, (hash, stored)) in row.iter().zip(&tile).enumerate() {
                if hash.is_some_and(|hash| hash != *stored) {
                    self.differs.push(first + at as u64);
                }
            }
            let known = |at: usize| row[at].or(tile.get(at).copied());
            let done: Vec<Hash> = (0..row.len())
                .map(|at| known(at).unwrap_or_else(tiles::lost_leaf))
                .collect();
            let end = first + done.len() as u64;
            let whole = done.len() == TILE_HASHES;
            if whole && sizes.peek().is_none_or(|size| *size >= end) {
                // No checkpoint ends inside: its nodes are hashed once.
                let root = tiles::root_of(&done);
                peaks.push_whole(8, root);
                self.tiles.push(root);
                while sizes.next_if(|s| *s == end).is_some() {
                    self.peaks.push((end, peaks.whole().to_vec()));
                }
                continue;
            }
            for (size, hash) in (first + 1..).zip(&done) {
                peaks.push(*hash);
                while sizes.next_if(|s| *s == size).is_some() {
                    self.peaks.push((size, peaks.whole().to_vec()));
                }
            }
            if whole {
                self.tiles.push(tiles::root_of(&done));
            } else {
                self.edge = done;
            }
        }
        if self
            .peaks
            .last()
            .is_none_or(|(size, _)| *size != leaves.end)
        {
            self.peaks.push((leaves.end, peaks.whole().to_vec()));
        }
    }
}

/// Compares every signed head with the records; the first that fails tells where.
fn judge_heads(
    reader: &Reader,
    heads: &[Head],
    walk: &Walk,
    report: &mut VerifyReport,
) -> Result<(), ReadError> {
    let mut roots: HashMap<u64, Hash> = walk.roots.iter().copied().collect();
    roots.insert(0, merkle::empty_root());
    let mut broken: Option<&Head> = None;
    for head in heads {
        let size = head.checkpoint.size;
        if size > walk.end {
            continue;
        }
        if roots.get(&size) == Some(&head.checkpoint.root) {
            report.checkpoints += 1;
            if !head.kept {
                report.newest = Some(head.checkpoint.clone());
            }
        } else if broken.is_none_or(|first| head.kept && first.checkpoint.size == size) {
            broken = Some(head);
        }
    }
    if let Some(head) = broken {
        // Heads are in order: what the last one before it covers is as signed.
        let before = heads.iter().map(|h| &h.checkpoint);
        let before =
            before.filter(|c| c.size < head.checkpoint.size && roots.get(&c.size) == Some(&c.root));
        name_the_change(
            reader,
            head,
            before.map(|c| c.size).max().unwrap_or(0),
            walk,
            report,
        )?;
    }
    let beyond = heads.iter().filter(|h| h.checkpoint.size > walk.end);
    if let Some(head) = beyond.max_by_key(|h| (h.checkpoint.size, h.kept)) {
        report.add(truncated(head, walk.end));
    }
    Ok(())
}

fn truncated(head: &Head, end: u64) -> Problem {
    let size = head.checkpoint.size;
    let whose = if head.kept {
        "the kept checkpoint"
    } else {
        "a checkpoint of this store"
    };
    let text = format!(
        "{whose} covers {size} records and only {end} are here: cut off at the end, or rolled back to an earlier state"
    );
    Problem::new(Fault::Truncated, text)
        .at(end)
        .through(size - 1)
}

fn name_the_change(
    reader: &Reader,
    head: &Head,
    from: u64,
    walk: &Walk,
    report: &mut VerifyReport,
) -> Result<(), ReadError> {
    let size = head.checkpoint.size;
    let by_tiles = merkle::root(&Hashes::new(reader, size, Prefer::Tiles), size).ok();
    let altered: Vec<u64> = walk
        .differs
        .iter()
        .copied()
        .filter(|leaf| (from..size).contains(leaf))
        .collect();
    if by_tiles == Some(head.checkpoint.root) && !altered.is_empty() {
        for leaf in altered {
            let mut problem = Problem::new(
                Fault::AlteredRecord,
                "it is not the record that was signed: changed, put elsewhere, or of another store",
            )
            .at(leaf);
            if let Ok(Some(entry)) = reader.get(Leaf(leaf)) {
                problem = problem.of(entry.header);
            }
            report.add(problem);
        }
        return Ok(());
    }
    let whose = match (&head.path, head.kept) {
        (_, true) => "the checkpoint that was kept elsewhere".to_owned(),
        (Some(path), _) => format!("the checkpoint in {}", path.display()),
        (None, _) => "a checkpoint".to_owned(),
    };
    let already = report.problems.iter().any(|p| {
        p.leaf.is_some_and(|leaf| (from..size).contains(&leaf))
            && matches!(p.fault, Fault::DamagedRecord | Fault::MissingRecords)
    });
    let text = if already {
        format!(
            "records {from} to {} do not lead to {whose}: some are damaged or missing, and no tile remembers them",
            size - 1
        )
    } else {
        format!(
            "another history: records {from} to {} do not lead to {whose}; at least one of them was changed, dropped or put elsewhere, and all before {from} are as signed",
            size - 1
        )
    };
    let mut problem = Problem::new(Fault::Forked, text).at(from).through(size - 1);
    if let Ok(Some(entry)) = reader.get(Leaf(from)) {
        problem.near = Some(entry.header);
    }
    report.add(problem);
    Ok(())
}

fn say_what_is_unknown(walk: &Walk, report: &mut VerifyReport) {
    let mut unknown = Vec::new();
    if !report.key_given {
        unknown.push("the key was taken from the store itself: this shows that the store agrees with itself, not that the node wrote it; give the root's public key from elsewhere".to_owned());
    }
    match &report.newest {
        // taken away, or never there: it is not what the key's owner signed
        None if report.key_given && walk.end > 0 => report.add(Problem::new(
            Fault::BadCheckpoint,
            "no checkpoint of this key is there: nothing shows that its owner wrote any of these records",
        )),
        None => unknown.push("no checkpoint covers these records: nothing but checksums holds them, and whoever can write can mend those".to_owned()),
        Some(newest) if newest.size < walk.end => unknown.push(format!(
            "records {} to {} came after the last checkpoint: they are as written or altered without a trace",
            newest.size,
            walk.end - 1
        )),
        Some(_) => {}
    }
    match (&report.kept, &report.newest) {
        (Some(kept), _) => unknown.push(format!(
            "whether records were cut off after the kept checkpoint of {} records cannot be proven without a later one from elsewhere",
            kept.size
        )),
        (None, Some(newest)) => unknown.push(format!(
            "without a checkpoint kept elsewhere nothing after checkpoint {} can be proven, nor that this is not an earlier state of the whole store",
            newest.size
        )),
        (None, None) => {}
    }
    report.unknown.extend(unknown);
}
