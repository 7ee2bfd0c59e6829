//! SQL over sealed files and the journal's tail: read-only, within stated time and memory.
//!
//! Promises: a statement that would change, write or configure anything is refused before it runs;
//! files that cannot hold a wanted row, by time or by container, are not opened; beyond its memory
//! a statement spills to disk or ends with an error; beyond its time it ends.

use crate::LakeError;
use crate::build::{Contents, known_before};
use crate::journal::{Body, Entry, Journal};
use crate::rows::{Maker, kinds};
use crate::store::Store;
use crate::table::LakeTable;
use crate::tables::Table;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rows of the tail that become one batch.
const TAIL_BATCH_ROWS: usize = 8192;
/// Batches that wait for whoever shows them.
const WAITING_MAX: usize = 2;
/// How long workers may take to stop.
const LET_GO: Duration = Duration::from_secs(2);
/// How often what the process holds is looked at: the engine does not count all that it makes.
const LOOK: Duration = Duration::from_millis(20);
/// What the process may hold beyond a statement's own memory: pages of files, buffers, rows on their
/// way. Half as much again as it was given comes on top.
const UNCOUNTED_BYTES: usize = 256 << 20;
/// Largest statement, bytes.
pub const SQL_BYTES_MAX: usize = 256 << 10;

/// Takes the columns and no rows first, then rows.
pub type Take<'a> = dyn FnMut(&SchemaRef, Option<RecordBatch>) -> Result<(), LakeError> + 'a;

/// What one statement may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time in the engine; waiting for whoever takes the rows does not count.
    pub time: Duration,
    /// Memory of the engine and of the tail, bytes.
    pub memory_bytes: usize,
    /// Disk for what does not fit, bytes; 0: none.
    pub spill_bytes: u64,
    /// Where that is.
    pub spill_dir: PathBuf,
    /// Processors.
    pub threads: usize,
}

/// What a statement looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Rows in the result.
    pub rows: u64,
    /// Files of the tables that were named.
    pub files: u64,
    /// Those that were not opened, because they cannot hold a wanted row.
    pub files_left_out: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Row groups of opened files that statistics or bloom filters ruled out.
    pub groups_left_out: u64,
    /// Rows that came from leaves which no file covers yet.
    pub tail_rows: u64,
    /// Leaves of the journal that retention removed before they came into the lake.
    pub pruned: u64,
    /// Leaves that could not be read.
    pub unreadable: u64,
}

/// Counted while a statement runs.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) files: AtomicU64,
    pub(crate) files_left_out: AtomicU64,
    tail_rows: AtomicU64,
    pruned: AtomicU64,
    unreadable: AtomicU64,
}

/// Leaves that no file covers, read when a statement needs them.
pub(crate) struct TailSource {
    store: Store,
    journal: Arc<dyn Journal>,
    holes: Vec<Range<u64>>,
    counts: Arc<Counts>,
    reserved: Mutex<MemoryReservation>,
}

impl TailSource {
    /// Rows of one table.
    pub(crate) async fn rows(&self, table: Table) -> Result<Vec<RecordBatch>, LakeError> {
        let mut batches = Vec::new();
        // the short table is made of the long one's rows
        let made_of = match table {
            Table::Fingerprints => Table::Behaviours,
            table => table,
        };
        for hole in &self.holes {
            let journal = self.journal.as_ref();
            let mut known = known_before(&self.store, journal, hole.start).await?;
            let mut maker = Maker::new(journal.origin(), &[made_of], &mut known, journal.coder());
            let take = &mut |entry: Entry| {
                match &entry.body {
                    Body::Record(record) => maker.record(entry.leaf, entry.wall, record),
                    Body::Pruned => drop(self.counts.pruned.fetch_add(1, Ordering::Relaxed)),
                    Body::Unreadable => {
                        self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if maker.waiting() >= TAIL_BATCH_ROWS {
                    self.keep(table, &mut maker, &mut batches)?;
                }
                Ok(())
            };
            journal
                .each(hole.clone(), &kinds(&[table]), take)
                .map_err(LakeError::from_journal)?;
            self.keep(table, &mut maker, &mut batches)?;
        }
        Ok(batches)
    }

    fn keep(
        &self,
        table: Table,
        maker: &mut Maker<'_>,
        to: &mut Vec<RecordBatch>,
    ) -> Result<(), LakeError> {
        for (_, rows) in maker.take()? {
            if rows.num_rows() == 0 {
                continue;
            }
            let rows = match table {
                Table::Fingerprints => {
                    let sorted = crate::write::sorted(Table::Behaviours, &rows)?;
                    let short = crate::fingerprints::split(&sorted)?.fingerprints;
                    // without the number, which is of files alone
                    let columns: Vec<usize> = (0..table.columns().count()).collect();
                    short.project(&columns)?
                }
                _ => rows,
            };
            self.counts
                .tail_rows
                .fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
            let reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
            reserved.try_grow(rows.get_array_memory_size())?;
            to.push(rows);
        }
        Ok(())
    }
}

/// Runs a statement; `each` takes the rows, first an empty batch with the columns.
pub(crate) fn query(
    store: &Store,
    contents: &Contents,
    journal: Arc<dyn Journal>,
    sql: &str,
    limits: &Limits,
    each: &mut Take<'_>,
) -> Result<Looked, LakeError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(LakeError::Refused {
            why: format!("longer than {SQL_BYTES_MAX} bytes"),
        });
    }
    let end = journal.end().map_err(LakeError::Journal)?;
    let scratch = Scratch::new(limits)?;
    let environment = environment(limits, &scratch)?;
    let counts = Arc::new(Counts::default());
    let tail = Arc::new(TailSource {
        store: store.clone(),
        journal,
        holes: contents.holes(end),
        counts: counts.clone(),
        reserved: Mutex::new(
            MemoryConsumer::new("journal tail").register(&environment.memory_pool),
        ),
    });
    let context = context(store, contents, &tail, environment, limits)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits.threads.max(1))
        .enable_time()
        .build()
        .map_err(|source| LakeError::Start { source })?;
    let done = drive(&runtime, context, sql, limits, each);
    // workers let go at their next step, and of what they spilled; one that does not is left behind
    runtime.shutdown_timeout(LET_GO);
    drop(scratch);
    let (rows, plan) = done?;
    let mut looked = Looked {
        rows,
        files: counts.files.load(Ordering::Relaxed),
        files_left_out: counts.files_left_out.load(Ordering::Relaxed),
        tail_rows: counts.tail_rows.load(Ordering::Relaxed),
        pruned: counts.pruned.load(Ordering::Relaxed),
        unreadable: counts.unreadable.load(Ordering::Relaxed),
        ..Looked::default()
    };
    looked.pruned += contents.seals.iter().map(|s| s.pruned).sum::<u64>();
    looked.unreadable += contents.seals.iter().map(|s| s.unreadable).sum::<u64>();
    measure(plan.as_ref(), &mut looked);
    Ok(looked)
}

enum Step {
    Columns(SchemaRef, Arc<dyn ExecutionPlan>),
    Rows(RecordBatch),
}

/// The engine works on its own threads; this one waits for it, and no longer than allowed. It has a
/// clock of its own: that of the engine's threads stands while all of them compute.
fn drive(
    runtime: &tokio::runtime::Runtime,
    context: SessionContext,
    sql: &str,
    limits: &Limits,
    each: &mut Take<'_>,
) -> Result<(u64, Arc<dyn ExecutionPlan>), LakeError> {
    let (to, mut from) = tokio::sync::mpsc::channel(WAITING_MAX);
    let sql = sql.to_owned();
    runtime.spawn(async move {
        if let Err(error) = run(&context, &sql, &to).await {
            // nobody waits any more: nothing to tell
            let _ = to.send(Err(error)).await;
        }
    });
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|source| LakeError::Start { source })?;
    let most = held_bytes().map(|held| held + limits.memory_bytes / 2 * 3 + UNCOUNTED_BYTES);
    let mut left = limits.time;
    let mut columns = None;
    let mut rows = 0;
    loop {
        let begun = Instant::now();
        let look = left.min(LOOK);
        let next = waiting.block_on(async { tokio::time::timeout(look, from.recv()).await });
        left = left.saturating_sub(begun.elapsed());
        let Ok(step) = next else {
            if left.is_zero() {
                return Err(LakeError::Time { limit: limits.time });
            }
            if let (Some(held), Some(most)) = (held_bytes(), most)
                && held > most
            {
                let what = format!("the process holds {} MiB", held >> 20);
                return Err(LakeError::Memory { what });
            }
            continue;
        };
        match (step.transpose()?, &columns) {
            (Some(Step::Columns(schema, plan)), _) => {
                each(&schema, None)?;
                columns = Some((schema, plan));
            }
            (Some(Step::Rows(batch)), Some((schema, _))) => {
                rows += batch.num_rows() as u64;
                each(schema, Some(batch))?;
            }
            (Some(Step::Rows(_)), None) => return Err(LakeError::Ended),
            (None, _) => return Ok((rows, columns.ok_or(LakeError::Ended)?.1)),
        }
    }
}

/// Memory of this process that is in use; `None`: the system does not say.
fn held_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

async fn run(
    context: &SessionContext,
    sql: &str,
    to: &tokio::sync::mpsc::Sender<Result<Step, LakeError>>,
) -> Result<(), LakeError> {
    let read_only = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let frame = context
        .sql_with_options(sql, read_only)
        .await
        .map_err(LakeError::from_sql)?;
    let plan = frame
        .create_physical_plan()
        .await
        .map_err(LakeError::from_sql)?;
    if to
        .send(Ok(Step::Columns(plan.schema(), plan.clone())))
        .await
        .is_err()
    {
        return Ok(());
    }
    let mut stream = execute_stream(plan, context.task_ctx()).map_err(LakeError::from_sql)?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(LakeError::from_sql)?;
        if to.send(Ok(Step::Rows(batch))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A directory for what one statement spills: rows are evidence, so none stay behind.
struct Scratch(PathBuf);

impl Scratch {
    fn new(limits: &Limits) -> Result<Self, LakeError> {
        use std::os::unix::fs::DirBuilderExt as _;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // one that was left by a process that was killed must not be in the way
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_nanos();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plimsoll-query-{}-{now}-{number}", std::process::id());
        let dir = limits.spill_dir.join(name);
        if limits.spill_bytes > 0 {
            // a name that somebody else has taken is an error, not a place to write to
            let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
            made.map_err(|source| LakeError::Start { source })?;
        }
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // missing when nothing may be spilled
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn environment(limits: &Limits, scratch: &Scratch) -> Result<Arc<RuntimeEnv>, LakeError> {
    let mode = match limits.spill_bytes {
        0 => DiskManagerMode::Disabled,
        _ => DiskManagerMode::Directories(vec![scratch.0.clone()]),
    };
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(limits.spill_bytes);
    let named = NonZeroUsize::new(3).expect("three is not zero");
    // the pool's errors name who holds most
    let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(
        FairSpillPool::new(limits.memory_bytes),
        named,
    ));
    RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(LakeError::from_sql)
}

fn context(
    store: &Store,
    contents: &Contents,
    tail: &Arc<TailSource>,
    environment: Arc<RuntimeEnv>,
    limits: &Limits,
) -> Result<SessionContext, LakeError> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(limits.threads.max(1))
        .with_sort_spill_reservation_bytes(limits.memory_bytes / limits.threads.max(1) / 16)
        .with_default_catalog_and_schema("plimsoll", "lake");
    let url = crate::scan::store_url();
    environment.register_object_store(url.as_ref(), store.objects.clone());
    let context = SessionContext::new_with_config_rt(config, environment);
    for table in Table::ALL {
        let provider = LakeTable::new(*table, contents, tail.clone(), tail.counts.clone());
        context
            .register_table(table.name(), Arc::new(provider))
            .map_err(LakeError::from_sql)?;
    }
    Ok(context)
}

/// Adds up what the scans of a plan counted.
fn measure(plan: &dyn ExecutionPlan, looked: &mut Looked) {
    if let Some(metrics) = plan.metrics() {
        let sum = |name: &str| metrics.sum_by_name(name).map_or(0, |v| v.as_usize() as u64);
        looked.bytes_read += sum("bytes_scanned");
        for metric in metrics.iter() {
            use datafusion::physical_plan::metrics::MetricValue;
            if let MetricValue::PruningMetrics {
                name,
                pruning_metrics,
            } = metric.value()
                && name.starts_with("row_groups_pruned")
            {
                looked.groups_left_out += pruning_metrics.pruned() as u64;
            }
        }
    }
    plan.children()
        .iter()
        .for_each(|child| measure(child.as_ref(), looked));
}

impl LakeError {
    /// The engine's error in our terms.
    pub(crate) fn from_sql(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(what) => LakeError::Memory { what: what.clone() },
            DataFusionError::External(inner) if inner.is::<LakeError>() => match unwrap(error) {
                Ok(ours) => ours,
                Err(error) => LakeError::Engine(Box::new(error)),
            },
            DataFusionError::Plan(why) | DataFusionError::NotImplemented(why)
                if is_refusal(why) =>
            {
                LakeError::Refused { why: why.clone() }
            }
            DataFusionError::SQL(wrong, _) => {
                let why = wrong.to_string();
                let why = why.strip_prefix("sql parser error: ").unwrap_or(&why);
                let why = why.replace("EOF", "the end of the statement");
                LakeError::Statement { why }
            }
            DataFusionError::SchemaError(wrong, _) => LakeError::Statement {
                why: wrong.to_string(),
            },
            DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => {
                LakeError::Damaged {
                    what: error.to_string(),
                }
            }
            _ => LakeError::Engine(Box::new(error)),
        }
    }
}

fn unwrap(error: DataFusionError) -> Result<LakeError, DataFusionError> {
    match error {
        DataFusionError::External(inner) => inner
            .downcast::<LakeError>()
            .map(|e| *e)
            .map_err(DataFusionError::External),
        DataFusionError::Context(_, inner) => unwrap(*inner),
        other => Err(other),
    }
}

/// What the engine says of statements that do more than read: its `SQLOptions` when they refuse,
/// its planner of those that it does not know at all.
fn is_refusal(why: &str) -> bool {
    const WORDS: [&str; 4] = [
        "DDL not supported",
        "DML not supported",
        "Statement not supported",
        "Unsupported SQL statement",
    ];
    WORDS.iter().any(|words| why.starts_with(words))
}
