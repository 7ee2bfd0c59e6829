//! The single writer of a journal: accepts records, commits them in groups, and knows
//! what to do when the disk refuses.
//!
//! While the disk refuses, urgent records go to the emergency segment and the others are
//! counted as lost; the journal tries again every `retry_ms`. Urgent records keep the leaf
//! index under which they were acknowledged, because nothing else gets an index meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::durable::{Ack, Durable, Place};
use crate::emergency::{Emergency, Kept};
use crate::error::{AppendError, OpenError};
use crate::format::{self, SALT_BYTES, Salt};
use crate::loss::{Loss, LossBook, LossReason};
use crate::options::{Entropy, MAX_PAYLOAD_BYTES, Options};
use crate::reader::{Reader, Tail};
use crate::record::{Leaf, Record, RecordId};
use crate::recover::{self, Recovery};
use crate::seal::{Beside, SealStatus, Sealer};
use crate::store::{Store, WriteFault};

const BATCH_RECORDS_MAX: usize = 65_536;
const SALTS_AHEAD: usize = 256;

/// Why the journal is not growing at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Leaves below this are durable in the journal proper.
    pub durable: u64,
    /// The failure that stopped the journal, and since when (boot clock, nanoseconds).
    pub trouble: Option<(LossReason, u64)>,
    /// Bytes used in the emergency segment.
    pub emergency_used_bytes: u64,
    /// Bytes free in the emergency segment; 0 when there is none.
    pub emergency_room_bytes: u64,
    /// Records lost at this stage since the opening, those found at it included.
    pub lost: u64,
    /// How sealing is doing; `None` for a journal without keys.
    pub seal: Option<SealStatus>,
}

struct Trouble {
    reason: LossReason,
    since_boot_ns: u64,
    tried_boot_ns: u64,
}

/// The writer's end of a journal; one at a time for a directory.
pub struct Journal {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    emergency: Emergency,
    batch: Batch,
    losses: LossBook,
    /// Commits that failed since the opening.
    refused: u64,
    trouble: Option<Trouble>,
    /// The first loss of the last commit.
    commit_failure: Option<AppendError>,
    salts: Vec<u8>,
    pub(crate) entropy: Entropy,
    pub(crate) sealer: Option<Sealer>,
    pub(crate) beside: Option<Beside>,
    /// Why there is no sealer although one was asked for.
    pub(crate) seal_refused: Option<String>,
    batch_bytes: usize,
    retry_ns: u64,
    _lock: Box<dyn Send>,
}

impl Journal {
    /// Opens or makes the journal in `dir`, takes its lock, and recovers it.
    ///
    /// # Errors
    /// When another writer holds it, when the directory or a file in it is foreign or of a
    /// newer format, or when the disk refuses. Nothing is overwritten in these cases.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<(Self, Recovery), OpenError> {
        let sealing = options.sealing.clone();
        let opened = recover::open(dir.as_ref(), options)?;
        let mut journal = Self {
            batch: Batch::starting_at(opened.store.durable),
            store: opened.store,
            clock: opened.clock,
            emergency: opened.emergency,
            losses: LossBook::default(),
            refused: 0,
            trouble: None,
            commit_failure: None,
            salts: Vec::new(),
            entropy: opened.entropy,
            sealer: None,
            beside: None,
            seal_refused: None,
            batch_bytes: opened.batch_bytes,
            retry_ns: opened.retry_ms.saturating_mul(1_000_000),
            _lock: opened.lock,
        };
        let mut recovery = opened.recovery;
        if let Some(loss) = recovery.loss.clone() {
            journal.losses.restore(loss);
        }
        journal.take_over_at_open(&mut recovery);
        if let Some(sealing) = sealing {
            journal.begin_sealing(sealing, &mut recovery.sealing);
        }
        Ok((journal, recovery))
    }

    fn take_over_at_open(&mut self, recovery: &mut Recovery) {
        let before = self.store.durable;
        if let Err(fault) = self.take_over() {
            self.enter_trouble(&fault);
        }
        recovery.emergency.taken_over = self.store.durable - before;
        recovery.emergency.pending = self.emergency.end_leaf.saturating_sub(self.store.durable);
        recovery.leaves = self.base();
        self.batch.restart(self.base());
    }

    /// The node this journal belongs to.
    pub fn origin(&self) -> &str {
        &self.store.meta.origin
    }

    /// The directory it lies in.
    pub fn dir(&self) -> PathBuf {
        self.store.paths.root.clone()
    }

    /// The full name of a leaf of this journal.
    pub fn id(&self, leaf: Leaf) -> RecordId {
        RecordId {
            origin: self.store.meta.origin.clone(),
            leaf,
        }
    }

    /// Accepts a record; it is durable after the next [`Self::sync`]. The index is
    /// provisional until then: a commit that fails voids it.
    ///
    /// # Errors
    /// When the payload is too large (the caller counts that loss) or there is no salt.
    pub fn append(&mut self, record: Record) -> Result<Leaf, AppendError> {
        self.accept(&record, false, None)
    }

    /// Accepts a record and tells `ack` what became of it. An `urgent` record goes to the
    /// emergency segment when the journal cannot take it. Nothing is synced before
    /// [`Self::sync`] or a full batch.
    pub fn append_with(&mut self, record: Record, urgent: bool, ack: Ack) {
        if let Err((error, Some(ack))) = self.try_accept(&record, urgent, Some(ack)) {
            ack(Err(error));
        }
    }

    /// Appends an urgent record and returns when it, and all before it, is durable.
    ///
    /// # Errors
    /// When neither the journal nor the emergency segment could take it.
    pub fn append_durable(&mut self, record: Record) -> Result<Durable, AppendError> {
        let (told, outcome) = mpsc::sync_channel(1);
        self.append_with(
            record,
            true,
            Box::new(move |result| drop(told.send(result))),
        );
        self.commit();
        outcome.try_recv().unwrap_or(Err(AppendError::Stopped))
    }

    /// Makes all accepted records durable; returns the number of durable leaves.
    ///
    /// # Errors
    /// When any record of the batch was lost; see [`Self::drain_losses`].
    pub fn sync(&mut self) -> Result<Leaf, AppendError> {
        self.commit_failure = None;
        self.commit();
        self.commit_failure
            .take()
            .map_or(Ok(Leaf(self.base())), Err)
    }

    /// The losses since the last call, for the caller to append as gap records. Their
    /// count survives a crash until a later record is durable.
    pub fn drain_losses(&mut self) -> Vec<Loss> {
        self.losses.drain()
    }

    /// Appends one urgent gap record for each loss, once the disk takes records again;
    /// returns how many. `gap` encodes a loss in the caller's schema.
    pub fn record_losses(&mut self, gap: impl Fn(&Loss) -> Record) -> usize {
        if self.trouble.is_some() {
            return 0;
        }
        let losses = self.losses.drain();
        for loss in &losses {
            self.append_with(gap(loss), true, Box::new(drop));
        }
        self.commit();
        losses.len()
    }

    /// Runs `on_thread` on every thread that a commit waits for besides this one, those to come
    /// included: gives them its priority.
    pub fn on_threads(&mut self, on_thread: impl Fn() + Send + Sync + 'static) {
        self.store.on_threads(Arc::new(on_thread));
    }

    /// How the journal is doing.
    pub fn health(&self) -> Health {
        Health {
            durable: self.store.durable,
            trouble: self
                .trouble
                .as_ref()
                .map(|t| (t.reason.clone(), t.since_boot_ns)),
            emergency_used_bytes: self.emergency.used_bytes(),
            emergency_room_bytes: self.emergency.room_bytes(),
            lost: self.losses.total,
            seal: self.seal_status(),
        }
    }

    /// A reader of what is durable here, over the same disk.
    pub fn reader(&self) -> Reader {
        let store = &self.store;
        Reader::over(
            store.disk.clone(),
            store.paths.clone(),
            store.meta.clone(),
            Tail::Durable,
        )
    }

    /// How often the disk has refused a commit since the opening: while it stays the same, every leaf
    /// that [`Self::append`] foretold is the one that its record gets.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Records accepted but not yet committed.
    pub fn pending(&self) -> usize {
        self.batch.entries.len()
    }

    /// Commits, seals and ends.
    ///
    /// # Errors
    /// When records of the last batch were lost.
    pub fn close(mut self) -> Result<Leaf, AppendError> {
        let synced = self.sync();
        self.seal_last();
        synced
    }

    fn seal_last(&mut self) {
        if self.sealer.is_some() && self.trouble.is_none() {
            // A failure is found at the next opening, which seals what is unsealed.
            let sealed = self.checkpoint();
            drop(sealed);
        }
    }

    pub(crate) fn health_is_bad(&self) -> bool {
        self.trouble.is_some()
    }

    /// One past the last leaf that anybody was promised.
    pub(crate) fn base(&self) -> u64 {
        self.store.durable.max(self.emergency.end_leaf)
    }

    fn accept(
        &mut self,
        record: &Record,
        urgent: bool,
        ack: Option<Ack>,
    ) -> Result<Leaf, AppendError> {
        self.try_accept(record, urgent, ack)
            .map_err(|(error, _)| error)
    }

    fn try_accept(
        &mut self,
        record: &Record,
        urgent: bool,
        ack: Option<Ack>,
    ) -> Result<Leaf, (AppendError, Option<Ack>)> {
        let bytes = record.payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            let error = AppendError::PayloadTooLarge {
                bytes,
                max: MAX_PAYLOAD_BYTES,
            };
            return Err((error, ack));
        }
        let salt = match self.salt() {
            Ok(salt) => salt,
            Err(why) => {
                self.count_saltless(record, &why);
                return Err((AppendError::Entropy(why), ack));
            }
        };
        if self.batch_is_full() {
            self.commit();
        }
        let leaf = format::leaf_bytes(record, urgent, &salt);
        let index = Leaf(self.batch.next());
        let seed = self.store.meta.seed();
        self.batch.push(
            seed,
            record.class,
            leaf,
            (&salt, &record.payload),
            urgent,
            ack,
        );
        Ok(index)
    }

    fn count_saltless(&mut self, record: &Record, why: &str) {
        if let Some(header) =
            format::header_of(&format::leaf_bytes(record, false, &[0; SALT_BYTES]))
        {
            let what = format!("no random bytes: {why}");
            self.losses
                .count(&header, &LossReason::Disk { errno: None, what });
        }
    }

    /// A batch ends at a subtree's end too: the next leaf belongs to other files.
    fn batch_is_full(&self) -> bool {
        let subtree_ended = self
            .batch
            .next()
            .is_multiple_of(u64::from(self.store.meta.subtree_leaves));
        !self.batch.entries.is_empty()
            && (subtree_ended
                || self.batch.bytes >= self.batch_bytes
                || self.batch.entries.len() >= BATCH_RECORDS_MAX)
    }

    fn salt(&mut self) -> Result<Salt, String> {
        if self.salts.is_empty() {
            let mut ahead = vec![0; SALTS_AHEAD * SALT_BYTES];
            (self.entropy)(&mut ahead)?;
            self.salts = ahead;
        }
        let mut salt = [0; SALT_BYTES];
        let rest = self.salts.len() - SALT_BYTES;
        salt.copy_from_slice(&self.salts[rest..]);
        self.salts.truncate(rest);
        Ok(salt)
    }

    /// Decides the fate of every record in the batch.
    pub(crate) fn commit(&mut self) {
        if self.trouble.is_some() && !self.try_again() {
            return self.spill();
        }
        if self.batch.entries.is_empty() {
            return;
        }
        match self.store.commit(&self.batch, self.clock.boot_ns()) {
            Ok(()) => {
                self.leave_trouble();
                self.acknowledge();
                self.store.grow_tree(&self.batch);
                self.batch.restart(self.store.durable);
                self.tick();
            }
            Err(fault) => {
                self.enter_trouble(&fault);
                self.spill();
            }
        }
    }

    fn acknowledge(&mut self) {
        let (boot_ns, wall_ns) = (self.clock.boot_ns(), self.clock.wall_ns());
        if self.batch.entries.iter().any(|entry| entry.urgent) {
            self.note_urgent();
        }
        for (entry, index) in self.batch.entries.iter_mut().zip(self.batch.first..) {
            if let Some(ack) = entry.ack.take() {
                ack(Ok(Durable {
                    leaf: Leaf(index),
                    boot_ns,
                    wall_ns,
                    place: Place::Journal,
                }));
            }
        }
        if self.losses.settle() {
            self.emergency.store_loss((0, 0, 0));
        }
    }

    /// Whether the batch may be tried: the wait is over and what the emergency segment
    /// holds has been taken over.
    fn try_again(&mut self) -> bool {
        let now = self.clock.boot_ns();
        let waited = self
            .trouble
            .as_ref()
            .map_or(0, |t| now.saturating_sub(t.tried_boot_ns));
        if waited < self.retry_ns {
            return false;
        }
        match self.take_over() {
            Ok(()) => true,
            Err(fault) => {
                self.enter_trouble(&fault);
                false
            }
        }
    }

    /// Moves the emergency segment's records into the journal, in order.
    fn take_over(&mut self) -> Result<(), WriteFault> {
        if self.emergency.end_leaf == 0 {
            return Ok(());
        }
        let fault = |source| WriteFault {
            doing: "read",
            path: self.store.paths.emergency(),
            source,
        };
        let kept = self.emergency.kept().map_err(fault)?;
        for batch in self.batches_of(&kept) {
            self.store.commit(&batch, self.clock.boot_ns())?;
            self.store.grow_tree(&batch);
        }
        // Where emptying fails the records are recognised as taken over by their leaf.
        let emptied = self.emergency.empty();
        if emptied.is_ok() {
            self.trouble = None;
        }
        Ok(())
    }

    fn batches_of(&self, kept: &[Kept]) -> Vec<Batch> {
        let (meta, durable) = (&self.store.meta, self.store.durable);
        let mut batches: Vec<Batch> = Vec::new();
        for record in kept.iter().filter(|kept| kept.index >= durable) {
            let Some(header) = format::header_of(&record.leaf) else {
                continue;
            };
            let fits = |b: &Batch| meta.subtree_of(b.first) == meta.subtree_of(record.index);
            if !batches.last().is_some_and(fits) {
                batches.push(Batch::starting_at(record.index));
            }
            if let Some(batch) = batches.last_mut() {
                let salted = (&record.salt, &record.payload[..]);
                batch.push(meta.seed(), header.class, record.leaf, salted, true, None);
            }
        }
        batches
    }

    fn enter_trouble(&mut self, fault: &WriteFault) {
        self.refused += 1;
        let now = self.clock.boot_ns();
        let since_boot_ns = self.trouble.as_ref().map_or(now, |t| t.since_boot_ns);
        self.trouble = Some(Trouble {
            reason: reason_of(fault),
            since_boot_ns,
            tried_boot_ns: now,
        });
    }

    fn leave_trouble(&mut self) {
        if self.trouble.take().is_some() {
            self.emergency.ensure();
        }
    }

    /// Urgent records to the emergency segment, the others into the count of losses.
    fn spill(&mut self) {
        let entries = std::mem::take(&mut self.batch.entries);
        let mark = self.emergency.mark();
        let mut kept = Vec::new();
        for mut entry in entries {
            let ack = entry.ack.take();
            if !entry.urgent {
                self.lose(&entry.leaf, ack, None);
                continue;
            }
            let index = self.base();
            let (salt, payload) = self.batch.salted(&entry);
            match self.emergency.keep(index, &entry.leaf, &salt, payload) {
                Ok(()) => kept.push((index, entry.leaf, ack)),
                Err(error) => self.lose(&entry.leaf, ack, Some(error.to_string())),
            }
        }
        self.emergency.store_loss(self.losses.summary());
        self.settle_kept(mark, kept);
        self.batch.restart(self.base());
    }

    fn settle_kept(&mut self, mark: (u64, u64), kept: Vec<(u64, format::LeafBytes, Option<Ack>)>) {
        if kept.is_empty() {
            return;
        }
        match self.emergency.sync() {
            Ok(()) => {
                let (boot_ns, wall_ns) = (self.clock.boot_ns(), self.clock.wall_ns());
                for (index, _, ack) in kept {
                    let leaf = Leaf(index);
                    let durable = Durable {
                        leaf,
                        boot_ns,
                        wall_ns,
                        place: Place::Emergency,
                    };
                    ack.into_iter().for_each(|ack| ack(Ok(durable)));
                }
            }
            Err(error) => {
                self.emergency.revert(mark);
                for (_, leaf, ack) in kept {
                    self.lose(&leaf, ack, Some(error.to_string()));
                }
            }
        }
    }

    fn lose(&mut self, leaf: &format::LeafBytes, ack: Option<Ack>, emergency: Option<String>) {
        let Some(header) = format::header_of(leaf) else {
            return;
        };
        let unknown = LossReason::Disk {
            errno: None,
            what: "unknown".to_owned(),
        };
        let reason = self.trouble.as_ref().map_or(unknown, |t| t.reason.clone());
        self.losses.count(&header, &reason);
        let journal = why(&reason);
        let error = match emergency {
            Some(emergency) => AppendError::NotDurable { journal, emergency },
            None => AppendError::Lost {
                class: header.class,
                why: journal,
            },
        };
        if self.commit_failure.is_none() {
            self.commit_failure = Some(error.clone());
        }
        if let Some(ack) = ack {
            ack(Err(error));
        }
    }
}

impl Drop for Journal {
    /// What was accepted is not thrown away silently.
    fn drop(&mut self) {
        self.commit();
        self.seal_last();
        self.end_sealing();
    }
}

fn reason_of(fault: &WriteFault) -> LossReason {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(fault.source.kind(), StorageFull | QuotaExceeded) {
        return LossReason::DiskFull;
    }
    LossReason::Disk {
        errno: fault.source.raw_os_error(),
        what: format!("{} {}: {}", fault.doing, fault.path.display(), fault.source),
    }
}

fn why(reason: &LossReason) -> String {
    match reason {
        LossReason::DiskFull => "no space left".to_owned(),
        LossReason::Disk { what, .. } => what.clone(),
        LossReason::BeforeRestart => "before the restart".to_owned(),
    }
}
