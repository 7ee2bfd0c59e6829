//! The journal as the agent uses it: what a record of ours looks like there, and what becomes of
//! the ones that do not fit.
//!
//! Promises:
//! - [`Ledger::raise`] puts an observation, its drifts and its alerts into one durable commit, the
//!   observation first, and the alerts name it by its leaf. When the disk begins to refuse in that
//!   very commit, all of it is written again to the emergency segment under the same alert ids.
//! - Nothing here blocks the pipeline; what the queue does not take is counted as a gap.
//!
//! Left out: the format, recovery and the emergency segment (the `evidence` crate).

use crate::clock::Clocks;
use crate::gaps::{GapBook, Loss};
use crate::last_hour::LastHour;
use crate::latency::Latency;
use crate::priority::Priority;
use plimsoll_api::storage;
use plimsoll_evidence::{
    After, AppendError, Durable, Hold, HoldError, InstanceKey, Journal, JournalWriter, Leaf,
    QueueBounds, Record as Stored, RetentionClass, RetentionPolicy, RetentionRule, Tombstone,
    WriterStatus,
};
use plimsoll_model::record::{SCHEMA_VERSION, payload};
use plimsoll_model::{
    Alert, AlertSource, BootNs, Container, Drift, EventKind, Gap, GapScope, Instance, NodeId,
    Observation, Record, RecordId, RecordKind, Stage, Stamp, WallNs,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;

/// Bounds of the journal's queue: its bytes count towards the agent's memory.
pub const QUEUE_RECORDS: usize = 32_768;
/// Bytes of payload that may wait for the journal.
pub const QUEUE_BYTES: usize = 12 << 20;
/// Part of both that only urgent records may use, percent.
const URGENT_PERCENT: usize = 20;

/// From here on ordinary events wait before the pipeline, percent of both bounds.
const BUSY_PERCENT: usize = 60;

/// An observation that matters, with our opinion about it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was observed.
    pub observation: Observation,
    /// The drifts that it shows.
    pub drifts: Vec<Drift>,
    /// The alerts about it.
    pub alerts: Vec<Alert>,
    /// Told under which leaf the observation is.
    pub shown_by: Arc<ShownBy>,
}

/// The leaf of the observation that shows an alert, once the journal has given it one: what counts
/// more of the same later names it too.
#[derive(Debug, Default)]
pub struct ShownBy(AtomicU64);

impl ShownBy {
    /// The leaf; `None`: the journal has not come to it, or does not keep it.
    pub fn leaf(&self) -> Option<u64> {
        self.0.load(Ordering::Acquire).checked_sub(1)
    }
    fn set(&self, leaf: Option<u64>) {
        let stored = leaf.map_or(0, |leaf| leaf.saturating_add(1));
        self.0.store(stored, Ordering::Release);
    }
}

/// Lets an alert, and the drift in it, name the observation that shows it.
fn name_evidence(alert: &mut Alert, id: Option<&RecordId>) {
    alert.evidence = id.into_iter().cloned().collect();
    if let AlertSource::Drift(drift) = &mut alert.source {
        drift.observation = id.cloned();
    }
}

/// Told of a durable alert and its leaf.
pub type AlertDurable = dyn Fn(&Alert, u64) + Send + Sync;

/// Told what the journal took; runs on the journal's or the pipeline's thread, so it must be quick.
pub struct Listener {
    /// An alert is durable.
    pub alert: Box<AlertDurable>,
    /// A container's identity was learned or has changed.
    pub container: Box<dyn Fn(&Container) + Send + Sync>,
}

/// The journal's front.
pub struct Ledger {
    /// `None` once it is closed: whoever still holds the ledger then is refused.
    writer: RwLock<Option<JournalWriter>>,
    origin: NodeId,
    gaps: Arc<Mutex<GapBook>>,
    clocks: Arc<dyn Clocks>,
    accepted: AtomicU64,
    last_wall: AtomicU64,
    latency: Arc<Latency>,
    gaps_recorded: Mutex<LastHour>,
    listener: OnceLock<Arc<Listener>>,
}

/// The journal's key of an instance.
pub fn instance_key(instance: &Instance) -> InstanceKey {
    InstanceKey(storage::container_key(instance))
}

/// What records are about, for counting the ones that find no room.
#[derive(Clone, Copy, Debug)]
struct Records {
    /// Events that happened.
    events: u64,
    /// What the agent says itself.
    ours: u64,
}

impl Records {
    const OURS: Self = Self { events: 0, ours: 1 };

    fn of(record: &Record) -> Self {
        match record {
            Record::Observation(o) => Self {
                events: o.count.max(1),
                ours: 0,
            },
            _ => Self::OURS,
        }
    }
}

/// Records that others need to be understood: they may use the room that is kept for urgent ones, so that
/// a container's name is not lost in its neighbour's flood.
fn names_others(record: &Record) -> bool {
    matches!(record, Record::Container(_) | Record::Baseline(_))
}

/// The class by which a record is kept.
fn class_of(kind: u16) -> RetentionClass {
    RecordKind::from_u16(kind)
        .and_then(|kind| RetentionClass::new(storage::retention_class(kind)))
        .unwrap_or(RetentionClass::SYSTEM)
}

/// A record of ours as the journal takes it.
pub fn stored(record: &Record, at: Stamp, about: Option<&Instance>) -> Stored {
    let (kind, payload) = record.encode();
    with_payload(kind, payload, at, about.map(instance_key))
}

fn with_payload(kind: u16, payload: Vec<u8>, at: Stamp, about: Option<InstanceKey>) -> Stored {
    let mut stored = Stored::new(kind, class_of(kind), payload).at(at.wall.0, at.boot.0);
    stored.schema_version = SCHEMA_VERSION;
    match about {
        Some(key) => stored.about(key),
        None => stored,
    }
}

/// Which payloads go first: observations by age and size; what is small and says what happened
/// (alerts, drifts, gaps, decisions) only by size, each class within a tenth of the whole.
pub fn retention(max_age: Option<Duration>, max_bytes: u64) -> RetentionPolicy {
    let rule = |class, percent: u64, max_age: Option<Duration>| RetentionRule {
        class,
        max_age_ms: max_age.map(|d| d.as_millis() as u64),
        max_bytes: Some(max_bytes / 100 * percent),
    };
    RetentionPolicy {
        rules: vec![
            rule(RetentionClass::OBSERVATION, 60, max_age),
            rule(RetentionClass::DRIFT, 10, None),
            rule(RetentionClass::ALERT, 10, None),
            rule(RetentionClass::GAP, 5, None),
            rule(RetentionClass::SYSTEM, 10, None),
            rule(RetentionClass::CUSTODY, 5, None),
        ],
    }
}

impl Ledger {
    /// Puts `journal` onto its own thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        journal: Journal,
        group_commit: Duration,
        gaps: Arc<Mutex<GapBook>>,
        clocks: Arc<dyn Clocks>,
    ) -> std::io::Result<Self> {
        let origin = NodeId::parse(journal.origin())
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))?;
        let bounds = QueueBounds {
            records: QUEUE_RECORDS,
            bytes: QUEUE_BYTES,
            urgent_percent: URGENT_PERCENT,
            group_commit_ms: group_commit.as_millis() as u64,
        };
        Ok(Self {
            writer: RwLock::new(Some(JournalWriter::start(journal, bounds)?)),
            origin,
            gaps,
            clocks,
            accepted: AtomicU64::new(0),
            last_wall: AtomicU64::new(0),
            latency: Arc::default(),
            gaps_recorded: Mutex::default(),
            listener: OnceLock::new(),
        })
    }

    /// Raises the journal's thread, and those that it waits for.
    pub fn raise_priority(&self, priority: &Arc<Priority>) {
        let priority = priority.clone();
        let raise = move |journal: &mut Journal| {
            priority.raise("journal").for_good();
            journal.on_threads(move || priority.raise("journal-sync").for_good());
        };
        // nothing is queued yet
        let _ = self.with(|w| w.run(raise));
    }

    /// The name of this journal in `origin@leaf`.
    pub fn origin(&self) -> &NodeId {
        &self.origin
    }

    /// Who is told of durable alerts and of containers from now on; the first one stays.
    pub fn listen(&self, listener: Arc<Listener>) {
        let _ = self.listener.set(listener);
    }

    /// Hands over a record and waits until it is durable; its leaf.
    ///
    /// # Errors
    /// When the journal does not keep it, or that takes longer than `patience`.
    pub fn record_durable(
        &self,
        record: &Record,
        at: Stamp,
        about: Option<&Instance>,
        patience: Duration,
    ) -> Result<u64, AppendError> {
        let (told, done) = mpsc::sync_channel(1);
        let ack: plimsoll_evidence::Ack = Box::new(move |result| drop(told.try_send(result)));
        let queued = self.with(|w| w.submit_durable(stored(record, at, about), ack).is_ok());
        self.settle(queued == Some(true), at, about, Records::of(record));
        if queued != Some(true) {
            return Err(AppendError::QueueFull);
        }
        let durable = done
            .recv_timeout(patience)
            .map_err(|_| AppendError::Stopped)??;
        Ok(durable.leaf.0)
    }

    /// Hands over an ordinary record; `false`: there was no room, and that is counted.
    pub fn record(&self, record: &Record, at: Stamp, about: Option<&Instance>) -> bool {
        if let (Record::Container(container), Some(listener)) = (record, self.listener.get()) {
            (listener.container)(container);
        }
        let kept = self.with(|w| w.submit(stored(record, at, about)).is_ok()) == Some(true)
            || (names_others(record) && self.submit_urgent(stored(record, at, about)));
        if kept && matches!(record, Record::Gap(_)) {
            self.gap_was_recorded();
        }
        self.settle(kept, at, about, Records::of(record));
        kept
    }

    /// Hands over an alert that counts more of what an earlier record of it began; it names the same
    /// observation. `false`: there was no room, and that is counted.
    pub fn supersede(&self, mut alert: Alert, shown_by: Arc<ShownBy>) -> bool {
        let (at, about) = (alert.last, alert.instance.clone());
        let (origin, instance) = (self.origin.clone(), about.clone());
        // by the journal's thread: the first record may still be in the queue before this one
        let write = move |journal: &mut Journal| {
            let id = shown_by.leaf().map(|leaf| RecordId { origin, leaf });
            name_evidence(&mut alert, id.as_ref());
            let record = stored(&Record::Alert(alert), at, instance.as_ref());
            journal.append_with(record, false, Box::new(drop));
            None
        };
        let kept = self.with(|w| w.run_holding(ALERT_BYTES, false, write).is_ok()) == Some(true);
        self.settle(kept, at, about.as_ref(), Records::OURS);
        kept
    }

    /// Hands over a record that must be durable as soon as possible.
    pub fn record_urgent(&self, record: &Record, at: Stamp, about: Option<&Instance>) -> bool {
        let kept = self.submit_urgent(stored(record, at, about));
        self.settle(kept, at, about, Records::of(record));
        kept
    }

    /// Hands over findings, to become durable together and at once.
    pub fn raise(&self, mut findings: Vec<Finding>) -> bool {
        let now = self.clocks.boot();
        for finding in &mut findings {
            let act = act_of(&finding.observation);
            for alert in &mut finding.alerts {
                alert.handed_boot = now;
                if let Some(act) = act {
                    self.latency.handed(now.0.saturating_sub(act.0));
                }
            }
        }
        self.hand_over(findings, true)
    }

    /// Hands over findings about which there is no alert: they become durable with the next group.
    pub fn keep(&self, findings: Vec<Finding>) -> bool {
        self.hand_over(findings, false)
    }

    fn hand_over(&self, mut findings: Vec<Finding>, urgent: bool) -> bool {
        let count = |f: &Finding| Records {
            events: f.observation.count.max(1),
            ours: (f.drifts.len() + f.alerts.len()) as u64,
        };
        // one container's follow each other, and are lost together
        let mut about: Vec<(Option<Instance>, Stamp, Records)> = Vec::with_capacity(1);
        for finding in &findings {
            let (instance, at) = (&finding.observation.instance, finding.observation.at);
            let records = count(finding);
            match about.last_mut() {
                Some((same, first, sum)) if same == instance => {
                    first.boot = first.boot.min(at.boot);
                    first.wall = first.wall.max(at.wall);
                    sum.events += records.events;
                    sum.ours += records.ours;
                }
                _ => about.push((instance.clone(), at, records)),
            }
        }
        let observations = findings.len() as u64;
        let bytes = findings.iter().map(held_by).sum();
        let origin = self.origin.clone();
        let told = Told {
            latency: self.latency.clone(),
            listener: self.listener.get().cloned(),
        };
        let write = move |journal: &mut Journal| match urgent {
            true => write_findings(journal, origin, findings, told),
            false => {
                append_findings(journal, &origin, &mut findings, &told, How::Quietly);
                None
            }
        };
        let kept = self.with(|w| w.run_holding(bytes, urgent, write).is_ok()) == Some(true);
        for (instance, at, records) in &about {
            match kept {
                true => self.accept(records.ours, *at),
                false => self.lose(*at, instance.as_ref(), *records),
            }
        }
        if kept {
            self.accepted.fetch_add(observations, Ordering::Relaxed);
        }
        kept
    }

    fn settle(&self, kept: bool, at: Stamp, about: Option<&Instance>, records: Records) {
        match kept {
            true => self.accept(u64::from(records.events > 0) + records.ours, at),
            false => self.lose(at, about, records),
        }
    }

    fn accept(&self, records: u64, at: Stamp) {
        self.accepted.fetch_add(records, Ordering::Relaxed);
        self.last_wall
            .fetch_max(at.wall.0.max(0).unsigned_abs(), Ordering::Relaxed);
    }

    fn lose(&self, at: Stamp, about: Option<&Instance>, records: Records) {
        // apart, so that what was observed and what was lost is what happened
        for (stage, count) in [
            (Stage::Queue, records.events),
            (Stage::Records, records.ours),
        ] {
            if count == 0 {
                continue;
            }
            self.note(Loss {
                stage,
                instance: about.cloned(),
                count: Some(count),
                from: at.boot,
                to: self.clocks.boot().max(at.boot),
                reason: "the journal's queue was full".into(),
            });
        }
    }

    /// Hands over a gap; when there is no room for it either, it stays counted as a loss.
    pub fn record_gap(&self, gap: Gap) -> bool {
        let about = match &gap.scope {
            GapScope::Node => None,
            GapScope::Container(instance) => Some(instance.clone()),
        };
        let at = gap.to;
        let record = Record::Gap(gap);
        let kept = self.submit_urgent(stored(&record, at, about.as_ref()));
        if kept {
            self.gap_was_recorded();
            self.settle(true, at, about.as_ref(), Records::OURS);
        } else if let Record::Gap(gap) = record {
            self.note(Loss {
                stage: gap.stage,
                instance: about,
                count: gap.count,
                from: gap.from.boot,
                to: gap.to.boot,
                reason: gap.reason.into(),
            });
        }
        kept
    }

    fn gap_was_recorded(&self) {
        let mut hour = self
            .gaps_recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hour.note(self.clocks.boot());
    }

    /// Gaps that this agent recorded in the last hour.
    pub fn gaps_last_hour(&self) -> u64 {
        let mut hour = self
            .gaps_recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hour.count(self.clocks.boot())
    }

    /// Counts a loss, to be journalled with the next flush of gaps.
    pub fn note(&self, loss: Loss) {
        self.gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(loss);
    }

    /// Makes everything handed over so far durable; the number of durable leaves.
    ///
    /// # Errors
    /// When the disk refuses, the writer has stopped, or it takes longer than `patience`.
    pub fn flush(&self, patience: Duration) -> Result<u64, AppendError> {
        let (told, done) = mpsc::sync_channel(1);
        self.with(|w| w.run(move |journal| drop(told.send(journal.sync()))))
            .unwrap_or(Err(AppendError::Stopped))?;
        let leaf = done
            .recv_timeout(patience)
            .map_err(|_| AppendError::Stopped)??;
        Ok(leaf.0)
    }

    /// Runs `task` on the journal and waits for what it gives, at most `patience`.
    fn wait_for<T: Send + 'static>(
        &self,
        patience: Duration,
        task: impl FnOnce(&mut Journal) -> T + Send + 'static,
    ) -> Result<T, AppendError> {
        let (told, done) = mpsc::sync_channel(1);
        self.with(|w| w.run(move |journal| drop(told.send(task(journal)))))
            .unwrap_or(Err(AppendError::Stopped))?;
        done.recv_timeout(patience)
            .map_err(|_| AppendError::Stopped)
    }

    /// Appends a record and waits until it is durable; its position.
    ///
    /// # Errors
    /// When the disk refuses, the writer has stopped, or it takes longer than `patience`.
    pub fn durable(&self, record: Stored, patience: Duration) -> Result<Leaf, AppendError> {
        let durable = self.wait_for(patience, |journal| journal.append_durable(record))??;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(durable.leaf)
    }

    /// Seals everything accepted so far; the checkpoint's note.
    ///
    /// # Errors
    /// In words: what kept it from being made.
    pub fn checkpoint(&self, patience: Duration) -> Result<Vec<u8>, String> {
        let seal = |journal: &mut Journal| {
            let made = journal.checkpoint()?;
            match journal.reader().newest_checkpoint() {
                Ok(Some((newest, note))) if newest.size == made.size => Ok(note),
                Ok(_) => Err("the checkpoint just made is not there".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        };
        self.wait_for(patience, seal).map_err(|e| e.to_string())?
    }

    /// Lays a hold.
    ///
    /// # Errors
    /// When its name is taken or the disk refuses.
    pub fn hold(&self, hold: Hold, patience: Duration) -> Result<(), HoldError> {
        self.wait_for(patience, move |journal| journal.hold(&hold))
            .unwrap_or(Err(HoldError::TooMany(
                "the journal is busy or ending: try again",
            )))
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// When there is none of that name or the disk refuses.
    pub fn release(&self, id: String, patience: Duration) -> Result<Hold, HoldError> {
        self.wait_for(patience, move |journal| journal.release(&id))
            .unwrap_or(Err(HoldError::TooMany(
                "the journal is busy or ending: try again",
            )))
    }

    /// Journals what the journal itself has lost, once its disk takes records again.
    pub fn record_losses(&self) {
        // refused only when the queue is full: the loss stays counted for the next time
        let _ = self.with(|w| w.record_losses(gap_of_loss));
    }

    /// Removes payloads that have outlived their rules; at most `most` files at a time.
    pub fn retain(&self, policy: RetentionPolicy, now: Stamp, most: usize) {
        let prune = move |journal: &mut Journal| {
            let Ok(plan) = journal.plan_retention(&policy, now.wall.0) else {
                return;
            };
            for prune in plan.iter().take(most) {
                let tombstone = stored(
                    &Record::Unknown(
                        RecordKind::Tombstone as u16,
                        Tombstone::of(prune, "retention", &policy_text(&policy, prune)).encode(),
                    ),
                    now,
                    None,
                );
                if journal.prune(prune, tombstone).is_err() {
                    return;
                }
            }
        };
        // tried again at the next turn
        let _ = self.with(|w| w.run(prune));
    }

    fn with<T>(&self, act: impl FnOnce(&JournalWriter) -> T) -> Option<T> {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map(act)
    }

    fn submit_urgent(&self, record: Stored) -> bool {
        self.with(|w| w.submit_durable(record, Box::new(drop)).is_ok()) == Some(true)
    }

    /// How the writer is doing; `None` once it is closed.
    pub fn status(&self) -> Option<WriterStatus> {
        self.with(JournalWriter::status)
    }
    /// Its queue is so full that ordinary records had better wait.
    pub fn is_busy(&self) -> bool {
        self.status().is_some_and(|s| {
            s.queued > QUEUE_RECORDS / 100 * BUSY_PERCENT
                || s.queued_bytes > QUEUE_BYTES / 100 * BUSY_PERCENT
        })
    }
    /// Records accepted since the agent started.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
    /// Wall time of the newest record.
    pub fn last_wall(&self) -> WallNs {
        WallNs(i64::try_from(self.last_wall.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }
    /// How long alerts took.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Writes what is queued and lets go of the journal; what comes later is refused.
    ///
    /// # Errors
    /// When records of the last batch were lost, or it is closed already.
    pub fn close(&self) -> Result<Leaf, AppendError> {
        let writer = self
            .writer
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        writer.ok_or(AppendError::Stopped)?.close()?.close()
    }
}

/// The rule behind a removal, for its tombstone.
fn policy_text(policy: &RetentionPolicy, prune: &plimsoll_evidence::Prune) -> String {
    let rule = policy.rules.iter().find(|rule| rule.class == prune.class);
    let days = |ms: u64| format!("{} h", ms / 3_600_000);
    rule.map_or(String::new(), |rule| {
        format!(
            "max age {}, max bytes {}",
            rule.max_age_ms.map_or("none".to_owned(), days),
            rule.max_bytes.map_or("none".to_owned(), |n| n.to_string())
        )
    })
}

/// Appends findings; what it gives looks after them when they are committed.
fn write_findings(
    journal: &mut Journal,
    origin: NodeId,
    mut findings: Vec<Finding>,
    told: Told,
) -> Option<After> {
    if journal.health().trouble.is_some() {
        append_findings(journal, &origin, &mut findings, &told, How::OneByOne);
        return None;
    }
    let refused = journal.refused();
    append_findings(journal, &origin, &mut findings, &told, How::Together);
    Some(Box::new(move |journal| {
        if journal.refused() != refused {
            // The disk began to refuse in this commit: the leaves foretold above are void. Again,
            // leaf by leaf; the same alert ids make the first attempt and this one the same alert.
            append_findings(journal, &origin, &mut findings, &told, How::OneByOne);
            // what that could not keep is counted by the journal
            let _ = journal.sync();
        }
    }))
}

/// How findings are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// The journal takes records, so the leaf that `append` foretells is the one it gets, unless the
    /// commit fails: then all is written again.
    Together,
    /// It refuses records: each observation is made durable first.
    OneByOne,
    /// Without alerts, with the next group. While the journal refuses records nothing is foretold:
    /// a drift then names no observation, and both are counted as lost if they are.
    Quietly,
}

/// Bytes that an alert holds in memory, about.
const ALERT_BYTES: usize = 2048;

/// Bytes that a finding holds in memory, about.
fn held_by(finding: &Finding) -> usize {
    let argv = finding.observation.lineage.iter().flat_map(|a| &a.argv);
    let words: usize = argv.map(|a| 32 + a.len()).sum();
    let of_exec = match &finding.observation.event.kind {
        EventKind::Exec(exec) => {
            let env = exec.glance.iter().flat_map(|g| g.env.iter().flatten());
            exec.argv.iter().chain(env).map(|a| 32 + a.len()).sum()
        }
        _ => 0,
    };
    // a drift shares its observation's lineage
    let drifts = finding.drifts.len() * 1024;
    1024 + words + of_exec + drifts + finding.alerts.len() * ALERT_BYTES
}

fn append_findings(
    journal: &mut Journal,
    origin: &NodeId,
    findings: &mut [Finding],
    told: &Told,
    how: How,
) {
    let calm = journal.health().trouble.is_none();
    for finding in findings {
        let at = finding.observation.at;
        let act = act_of(&finding.observation);
        // of all its records the same, and a hash each time
        let about = finding.observation.instance.as_ref().map(instance_key);
        let kept_as = |kind: RecordKind, payload| with_payload(kind as u16, payload, at, about);
        let observation = kept_as(RecordKind::Observation, payload(&finding.observation));
        let leaf = match how {
            How::Together => journal.append(observation).ok(),
            How::OneByOne => journal.append_durable(observation).ok().map(|d| d.leaf),
            How::Quietly => journal.append(observation).ok().filter(|_| calm),
        };
        let id = leaf.map(|leaf| RecordId {
            origin: origin.clone(),
            leaf: leaf.0,
        });
        for drift in &mut finding.drifts {
            drift.observation.clone_from(&id);
            let record = kept_as(RecordKind::Drift, payload(drift));
            journal.append_with(record, how != How::Quietly, Box::new(drop));
        }
        finding.shown_by.set(id.as_ref().map(|id| id.leaf));
        for alert in &mut finding.alerts {
            name_evidence(alert, id.as_ref());
            let record = kept_as(RecordKind::Alert, payload(alert));
            journal.append_with(record, true, durable_after(act, told, alert));
        }
    }
}

/// Who hears of a durable alert.
struct Told {
    latency: Arc<Latency>,
    listener: Option<Arc<Listener>>,
}

/// When an act was done that was seen; nobody saw the start of what was found running.
fn act_of(observation: &Observation) -> Option<BootNs> {
    match observation.found_since() {
        None => Some(observation.at.boot),
        Some(_) => None,
    }
}

fn durable_after(act: Option<BootNs>, told: &Told, alert: &Alert) -> plimsoll_evidence::Ack {
    let latency = told.latency.clone();
    let listener = told.listener.clone().map(|l| (l, alert.clone()));
    Box::new(move |result: Result<Durable, AppendError>| {
        let Ok(durable) = result else { return };
        if let Some(act) = act {
            latency.durable(durable.boot_ns.saturating_sub(act.0));
        }
        if let Some((listener, alert)) = listener {
            (listener.alert)(&alert, durable.leaf.0);
        }
    })
}

/// Why the journal does not keep records, for people.
pub(crate) fn in_words(reason: &plimsoll_evidence::LossReason) -> String {
    use plimsoll_evidence::LossReason;
    match reason {
        LossReason::DiskFull => "no space left for the journal".to_owned(),
        LossReason::Disk { what, .. } => format!("the journal's disk refused: {what}"),
        LossReason::BeforeRestart => "lost before the agent restarted".to_owned(),
    }
}

/// The gap record of a loss that the journal counted. Its containers are known by key only, so
/// the gap is the node's.
fn gap_of_loss(loss: &plimsoll_evidence::Loss) -> Stored {
    let stamp = |boot, wall| Stamp {
        boot: BootNs(boot),
        wall: WallNs(wall),
        uncertainty_ns: 0,
    };
    let to = stamp(loss.until_boot_ns, loss.until_wall_ns);
    let reason = in_words(&loss.reason);
    let containers = match loss.by_container.len() {
        0 => String::new(),
        n => format!(" (of {n} containers)"),
    };
    let gap = Gap {
        stage: Stage::Journal,
        scope: GapScope::Node,
        from: stamp(loss.since_boot_ns, loss.since_wall_ns),
        to,
        count: Some(loss.count),
        reason: reason + &containers,
    };
    stored(&Record::Gap(gap), to, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClocks;
    use crate::testing::{event, file_read};
    use plimsoll_evidence::{DirItem, Disk, DiskFile, Filter, OpenMode, Options, Reader, RealDisk};
    use plimsoll_model::{AlertId, Priority as Grade};
    use std::collections::BTreeMap;
    use std::io;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    /// The machine's disk, which refuses the next sync of leaves once it is told to.
    #[derive(Clone, Default)]
    struct Refusing {
        disk: RealDisk,
        next: Arc<AtomicBool>,
    }

    struct RefusingFile {
        file: Box<dyn DiskFile>,
        next: Option<Arc<AtomicBool>>,
    }

    impl Disk for Refusing {
        fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
            let leaves = path.parent().is_some_and(|dir| dir.ends_with("leaves"));
            Ok(Box::new(RefusingFile {
                file: self.disk.open(path, mode)?,
                next: leaves.then(|| self.next.clone()),
            }))
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
            self.disk.list(dir)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.disk.create_dir(dir)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.disk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.disk.remove(path)
        }
        fn remove_dir(&self, dir: &Path) -> io::Result<()> {
            self.disk.remove_dir(dir)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.disk.sync_dir(dir)
        }
        fn lock(&self, path: &Path, note: &str) -> io::Result<Option<Box<dyn Send>>> {
            self.disk.lock(path, note)
        }
    }

    impl DiskFile for RefusingFile {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.file.read_at(buf, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            self.file.write_at(bytes, offset)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn sync_data(&self) -> io::Result<()> {
            match &self.next {
                Some(next) if next.swap(false, Ordering::SeqCst) => {
                    Err(io::Error::from_raw_os_error(5))
                }
                _ => self.file.sync_data(),
            }
        }
        fn allocate(&self, len: u64) -> io::Result<()> {
            self.file.allocate(len)
        }
    }

    fn finding(n: u64) -> Finding {
        let at = Stamp {
            boot: BootNs(n),
            ..Stamp::default()
        };
        let name = format!("A-{n}");
        Finding {
            observation: Observation {
                event: event(7, file_read("/etc/shadow")),
                at,
                instance: None,
                lineage: Vec::new().into(),
                lineage_cut: false,
                redacted: Vec::new(),
                unknown_because: String::new(),
                count: 1,
            },
            drifts: Vec::new(),
            alerts: vec![Alert {
                id: AlertId::parse(&name).unwrap(),
                at,
                rule: "r".to_owned(),
                priority: Grade::Warning,
                output: "read".into(),
                source: AlertSource::Rule("r".to_owned()),
                instance: None,
                tags: Vec::new(),
                fields: Vec::new(),
                evidence: Vec::new(),
                count: 1,
                last: at,
                handed_boot: BootNs(0),
                prevented: false,
            }],
            shown_by: Arc::default(),
        }
    }

    /// Findings that share a commit, with what was pending before them, on a disk that `refuses` it: each
    /// alert names its own observation.
    fn every_alert_names_its_observation(refuses: bool) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("journal");
        let disk = Refusing::default();
        let mut options = Options::new("node-1");
        options.disk = Arc::new(disk.clone());
        let (journal, _) = Journal::open(&at, options).unwrap();
        let ledger = Ledger::start(
            journal,
            Duration::from_secs(60),
            Arc::default(),
            Arc::new(SystemClocks),
        )
        .unwrap();
        let (block, blocked) = mpsc::channel::<()>();
        ledger
            .with(|w| w.run(move |_| assert!(blocked.recv().is_err())))
            .unwrap()
            .unwrap();
        assert!(ledger.keep(vec![Finding {
            alerts: Vec::new(),
            ..finding(1)
        }]));
        assert!(ledger.raise(vec![finding(2), finding(3)]));
        assert!(ledger.raise(vec![finding(4)]));
        disk.next.store(refuses, Ordering::SeqCst);
        drop(block);
        // refused or not, it ends; what it gives is told by the records
        let closed = ledger.close();
        assert!(closed.is_ok(), "{closed:?}");
        assert!(!disk.next.load(Ordering::SeqCst));
        let reader = Reader::open(&at).unwrap();
        let decode = |entry: &plimsoll_evidence::Entry| {
            Record::decode(entry.header.kind, entry.payload.bytes().unwrap()).unwrap()
        };
        // of an alert that was written twice the later record counts
        let mut alerts = BTreeMap::new();
        for entry in reader.scan(Filter::default()).unwrap() {
            if let Record::Alert(alert) = decode(&entry.unwrap()) {
                alerts.insert(alert.id.to_string(), alert);
            }
        }
        assert_eq!(alerts.keys().collect::<Vec<_>>(), ["A-2", "A-3", "A-4"]);
        for alert in alerts.values() {
            let leaf = Leaf(alert.evidence[0].leaf);
            let shown = decode(&reader.get(leaf).unwrap().unwrap());
            assert!(
                matches!(&shown, Record::Observation(o) if o.at.boot == alert.at.boot),
                "{} names {shown:?}",
                alert.id
            );
        }
    }

    #[test]
    fn alerts_that_share_a_commit_name_their_own_observations() {
        every_alert_names_its_observation(false);
    }

    #[test]
    fn alerts_whose_commit_is_refused_are_written_again_and_name_what_is_there() {
        every_alert_names_its_observation(true);
    }
}
