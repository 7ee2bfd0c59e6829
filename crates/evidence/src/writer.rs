//! The journal on a thread of its own, behind one bounded queue.
//!
//! Records keep the order in which they were submitted. Ordinary ones wait for a group
//! commit; an urgent one is committed at once, with whatever is queued before it. Part
//! of the queue is kept for urgent records, so that bulk cannot push them out.
//!
//! An urgent record that comes while a commit is being prepared joins it; one that comes while
//! it is being written waits for it, so a commit without urgent ones is bounded ([`SLICE_BYTES`]),
//! and then goes with all that is before it in one commit.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::durable::Ack;
use crate::error::AppendError;
use crate::journal::{Health, Journal};
use crate::loss::Loss;
use crate::options::MAX_PAYLOAD_BYTES;
use crate::record::Record;

/// Items taken from the queue at a time.
const ROUND_RECORDS: usize = 4096;
/// Items of one commit that nobody waits for: bounds how long an urgent one that comes meanwhile does.
const SLICE_RECORDS: usize = 1024;
/// The same in bytes that wait in the queue.
const SLICE_BYTES: usize = 1 << 20;
/// Rounds that may join a commit before it is written.
const JOINS_MAX: usize = 8;

/// Bounds of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// Records that may wait.
    pub records: usize,
    /// Bytes of payload that may wait.
    pub bytes: usize,
    /// Of both, the part in percent that only urgent records may use.
    pub urgent_percent: usize,
    /// How long an ordinary record waits for company, milliseconds.
    pub group_commit_ms: u64,
}

impl Default for QueueBounds {
    fn default() -> Self {
        Self {
            records: 65_536,
            bytes: 64 << 20,
            urgent_percent: 10,
            group_commit_ms: 20,
        }
    }
}

/// Why a record was not queued; it comes back, and the caller counts the loss.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is at its bound.
    #[error("the journal's queue is full")]
    Full(Box<Record>),
    /// The writer has stopped.
    #[error("the journal writer has stopped")]
    Stopped(Box<Record>),
    /// The payload is larger than any record's may be.
    #[error("payload of {} bytes exceeds the bound of {MAX_PAYLOAD_BYTES}", .0.payload.len())]
    TooLarge(Box<Record>),
}

/// The writer at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterStatus {
    /// The journal after the last commit.
    pub health: Health,
    /// Records waiting now.
    pub queued: usize,
    /// Bytes of payload waiting now.
    pub queued_bytes: usize,
    /// Submissions refused because the queue was full, since the start.
    pub refused: u64,
}

/// What is done with the journal; what it gives is done after the commit.
type Task = Box<dyn FnOnce(&mut Journal) -> Option<After> + Send>;

/// What is done once the records of a task are durable, or are known not to be.
pub type After = Box<dyn FnOnce(&mut Journal) + Send>;

enum Item {
    Append(Record),
    Urgent(Record, Ack),
    Task {
        task: Task,
        /// What it holds, towards the bound.
        bytes: usize,
        /// It is committed at once.
        urgent: bool,
        /// It begins with nothing pending.
        alone: bool,
    },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(record) | Self::Urgent(record, _) => record.payload.len(),
            Self::Task { bytes, .. } => *bytes,
        }
    }

    fn is_urgent(&self) -> bool {
        match self {
            Self::Append(_) => false,
            Self::Urgent(..) => true,
            Self::Task { urgent, .. } => *urgent,
        }
    }
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    urgent: usize,
    refused: u64,
    closed: bool,
    /// The writer sleeps and wants to be woken for anything, or only for urgency.
    sleeping: Sleep,
}

impl Queue {
    fn has_a_slice(&self) -> bool {
        self.items.len() >= SLICE_RECORDS || self.bytes >= SLICE_BYTES
    }
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    UntilAnything,
    UntilUrgent,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    health: Mutex<Health>,
    bounds: QueueBounds,
}

/// A poisoned lock only says that another thread panicked; counters and queues are whole
/// after every statement here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands records to the journal's thread; share it by reference or in an `Arc`.
pub struct JournalWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Journal>>,
}

impl JournalWriter {
    /// Moves `journal` to a thread of its own, with one beside it for tiles and checkpoints.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut journal: Journal, bounds: QueueBounds) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            health: Mutex::new(journal.health()),
            bounds,
        });
        journal.seal_beside();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_until_closed(&theirs, journal))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Queues a record for the next group commit; never blocks.
    ///
    /// # Errors
    /// When the queue is full or the writer has stopped; the caller counts the loss.
    pub fn submit(&self, record: Record) -> Result<(), SubmitError> {
        let spare = 100_usize.saturating_sub(self.shared.bounds.urgent_percent);
        self.submit_item(record, Item::Append, spare)
    }

    /// Queues an urgent record and tells `ack` when it is durable, or why it is not; never
    /// blocks. It is committed at once, with what is queued before it.
    ///
    /// # Errors
    /// When the queue is full or the writer has stopped; `ack` is not called then.
    pub fn submit_durable(&self, record: Record, ack: Ack) -> Result<(), SubmitError> {
        self.submit_item(record, |record| Item::Urgent(record, ack), 100)
    }

    /// Runs `task` on the journal, in order with the records: retention, gap records.
    ///
    /// # Errors
    /// When the queue is full or the writer has stopped.
    pub fn run(&self, task: impl FnOnce(&mut Journal) + Send + 'static) -> Result<(), AppendError> {
        let task = |journal: &mut Journal| {
            task(journal);
            None
        };
        self.run_task(0, true, true, task)
    }

    /// The same for a task that appends records of about `bytes`, which count towards the queue's
    /// bound. It may begin while others are pending, and is committed with them: at once where it is
    /// `urgent`, else with the next group like ordinary records. What it gives is done after that.
    ///
    /// # Errors
    /// When the queue is full or the writer has stopped.
    pub fn run_holding(
        &self,
        bytes: usize,
        urgent: bool,
        task: impl FnOnce(&mut Journal) -> Option<After> + Send + 'static,
    ) -> Result<(), AppendError> {
        self.run_task(bytes, urgent, false, task)
    }

    fn run_task(
        &self,
        bytes: usize,
        urgent: bool,
        alone: bool,
        task: impl FnOnce(&mut Journal) -> Option<After> + Send + 'static,
    ) -> Result<(), AppendError> {
        let spare = 100_usize.saturating_sub(self.shared.bounds.urgent_percent);
        let percent = if urgent { 100 } else { spare };
        let item = || Item::Task {
            task: Box::new(task),
            bytes,
            urgent,
            alone,
        };
        self.push(percent, bytes, item)
            .map_err(|refusal| match refusal {
                Refusal::Full => AppendError::QueueFull,
                Refusal::Stopped => AppendError::Stopped,
            })
    }

    /// Records every open loss as an urgent record made by `gap`, once the disk takes
    /// records; a disk still refusing leaves them counted.
    ///
    /// # Errors
    /// When the queue is full or the writer has stopped.
    pub fn record_losses(
        &self,
        gap: impl Fn(&Loss) -> Record + Send + 'static,
    ) -> Result<(), AppendError> {
        self.run(move |journal| {
            journal.record_losses(gap);
        })
    }

    /// How the writer is doing.
    pub fn status(&self) -> WriterStatus {
        let health = lock(&self.shared.health).clone();
        let queue = lock(&self.shared.queue);
        WriterStatus {
            health,
            queued: queue.items.len(),
            queued_bytes: queue.bytes,
            refused: queue.refused,
        }
    }

    /// Writes what is queued, and gives the journal back.
    ///
    /// # Errors
    /// When the thread had panicked.
    pub fn close(mut self) -> Result<Journal, AppendError> {
        self.stop();
        let thread = self.thread.take().ok_or(AppendError::Stopped)?;
        thread.join().map_err(|_| AppendError::Stopped)
    }

    fn stop(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_all();
    }

    fn submit_item(
        &self,
        record: Record,
        item: impl FnOnce(Record) -> Item,
        percent: usize,
    ) -> Result<(), SubmitError> {
        let bytes = record.payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            return Err(SubmitError::TooLarge(Box::new(record)));
        }
        let mut record = Some(record);
        // The closure runs only when there is room, so a refused record is still here.
        let pushed = self.push(percent, bytes, || {
            let nothing = || Item::Task {
                task: Box::new(|_| None),
                bytes: 0,
                urgent: false,
                alone: false,
            };
            record.take().map_or_else(nothing, item)
        });
        match (pushed, record) {
            (Err(Refusal::Full), Some(record)) => Err(SubmitError::Full(Box::new(record))),
            (Err(Refusal::Stopped), Some(record)) => Err(SubmitError::Stopped(Box::new(record))),
            _ => Ok(()),
        }
    }

    fn push(
        &self,
        percent: usize,
        item_bytes: usize,
        item: impl FnOnce() -> Item,
    ) -> Result<(), Refusal> {
        let bounds = &self.shared.bounds;
        let mut queue = lock(&self.shared.queue);
        if queue.closed || self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(Refusal::Stopped);
        }
        let bytes = queue.bytes.saturating_add(item_bytes);
        if queue.items.len() >= share(bounds.records, percent)
            || bytes > share(bounds.bytes, percent)
        {
            queue.refused += 1;
            return Err(Refusal::Full);
        }
        let item = item();
        let urgent = item.is_urgent();
        queue.bytes = bytes;
        queue.urgent += usize::from(urgent);
        queue.items.push_back(item);
        let enough = queue.has_a_slice();
        let wake = match queue.sleeping {
            Sleep::Awake => false,
            Sleep::UntilAnything => true,
            Sleep::UntilUrgent => urgent || enough,
        };
        if wake {
            // Once is enough: further submissions must not pay for a system call.
            queue.sleeping = Sleep::Awake;
            self.shared.wake.notify_one();
        }
        Ok(())
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            drop(joined);
        }
    }
}

#[derive(Clone, Copy)]
enum Refusal {
    Full,
    Stopped,
}

/// `percent` of `whole`, without overflow.
fn share(whole: usize, percent: usize) -> usize {
    whole / 100 * percent + whole % 100 * percent / 100
}

fn write_until_closed(shared: &Shared, mut journal: Journal) -> Journal {
    let (mut round, mut after) = (Vec::new(), Vec::new());
    while wait_for_round(shared, &mut round, &journal) {
        append(&mut round, &mut after, &mut journal);
        for _ in 0..JOINS_MAX {
            if !join_round(shared, &mut round) {
                break;
            }
            append(&mut round, &mut after, &mut journal);
        }
        journal.commit();
        after.drain(..).for_each(|after| after(&mut journal));
        journal.tick();
        *lock(&shared.health) = journal.health();
    }
    journal
}

fn append(round: &mut Vec<Item>, after: &mut Vec<After>, journal: &mut Journal) {
    for item in round.drain(..) {
        match item {
            Item::Append(record) => {
                // Its size was checked, and the journal counts what else goes wrong.
                let accepted = journal.append(record);
                drop(accepted);
            }
            Item::Urgent(record, ack) => journal.append_with(record, true, ack),
            Item::Task { task, alone, .. } => {
                if alone {
                    journal.commit();
                }
                after.extend(task(journal));
            }
        }
    }
}

/// Takes what is before urgent ones that have come since the round was taken, and them; `false`: there
/// are none.
fn join_round(shared: &Shared, round: &mut Vec<Item>) -> bool {
    let mut queue = lock(&shared.queue);
    if queue.urgent > 0 {
        take_round(&mut queue, round);
    }
    !round.is_empty()
}

/// Waits until there is something to write and either it is urgent, there is a round of
/// it, or it has waited long enough. `false` when closed and empty.
fn wait_for_round(shared: &Shared, round: &mut Vec<Item>, journal: &Journal) -> bool {
    let mut queue = lock(&shared.queue);
    // Even when nothing arrives, a disk that refuses and a seal that is due are looked after.
    let idle = Duration::from_millis(250);
    while queue.items.is_empty() && !queue.closed {
        queue.sleeping = Sleep::UntilAnything;
        let waited = shared
            .wake
            .wait_timeout(queue, idle)
            .unwrap_or_else(PoisonError::into_inner);
        queue = waited.0;
        queue.sleeping = Sleep::Awake;
        if waited.1.timed_out() && (journal.health_is_bad() || journal.is_sealed()) {
            return true;
        }
    }
    let deadline = Instant::now() + Duration::from_millis(shared.bounds.group_commit_ms);
    while queue.urgent == 0 && !queue.has_a_slice() && !queue.closed {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            break;
        };
        queue.sleeping = Sleep::UntilUrgent;
        let waited = shared
            .wake
            .wait_timeout(queue, left)
            .unwrap_or_else(PoisonError::into_inner);
        queue = waited.0;
        queue.sleeping = Sleep::Awake;
    }
    take_round(&mut queue, round);
    !(round.is_empty() && queue.closed)
}

fn take_round(queue: &mut Queue, round: &mut Vec<Item>) {
    let count = match queue.urgent {
        0 => slice(queue.items.iter().map(Item::bytes)),
        // in as few commits as can be
        _ => queue.items.len().min(ROUND_RECORDS),
    };
    round.extend(queue.items.drain(..count));
    queue.bytes -= round.iter().map(Item::bytes).sum::<usize>();
    queue.urgent -= round.iter().filter(|item| item.is_urgent()).count();
}

/// How many items, of so many bytes each, one commit takes: at least the first.
fn slice(items: impl Iterator<Item = usize>) -> usize {
    let mut left = SLICE_BYTES;
    let fits = |bytes: &usize| {
        let fits = left > 0;
        left = left.saturating_sub(*bytes);
        fits
    };
    items.take(SLICE_RECORDS).take_while(fits).count()
}
