//! Rows of `behaviours` for the engine: numbers become columns again, file by file.
//!
//! Promises: a file whose short table holds nothing that is wanted is not read any further, and of
//! the short table of one whose wanted rows are few only what they name; one short table a thread is
//! in memory, and counted.

use crate::scan::Files;
use crate::tables::{DEEDS, NUMBER, Table};
use datafusion::arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take};
use datafusion::arrow::datatypes::{SchemaRef, UInt32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Behaviours that are looked for by their numbers in a file; of more, every row is looked at.
const NUMBERS_MAX: usize = 256;
/// Behaviours that are looked for by their numbers in a short table; of more, all of it is read.
const NAMED_MAX: usize = 8192;
/// Rows that wait while it is not known how many behaviours they name.
const BEGUN_ROWS_MAX: usize = 65_536;

/// The two files of a span.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) short: PartitionedFile,
    pub(crate) long: PartitionedFile,
}

/// A condition on the columns of one kind of file.
pub(crate) type Condition = Option<Arc<dyn PhysicalExpr>>;

/// Reads `behaviours`.
pub(crate) struct Widen {
    groups: Vec<Vec<Pair>>,
    /// On the short table's columns, as [`Table::stored`] has them.
    deeds: Condition,
    /// On the other columns.
    rows: Condition,
    /// The wanted columns, in order.
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    measured: Arc<Mutex<MetricsSet>>,
    own: ExecutionPlanMetricsSet,
}

impl Widen {
    pub(crate) fn new(
        pairs: Vec<Pair>,
        threads: usize,
        deeds: Condition,
        rows: Condition,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let whole = Table::Behaviours.schema();
        let schema = match projection {
            Some(columns) => Arc::new(whole.project(columns)?),
            None => whole,
        };
        let mut groups = vec![Vec::new(); threads.clamp(1, pairs.len().max(1))];
        let count = groups.len();
        for (n, pair) in pairs.into_iter().enumerate() {
            groups[n % count].push(pair);
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            groups,
            deeds,
            rows,
            schema,
            properties: Arc::new(properties),
            measured: Arc::default(),
            own: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl fmt::Debug for Widen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: usize = self.groups.iter().map(Vec::len).sum();
        write!(f, "Widen({files} files)")
    }
}

impl DisplayAs for Widen {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl ExecutionPlan for Widen {
    fn name(&self) -> &'static str {
        "Widen"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let reserved =
            MemoryConsumer::new("behaviours").register(&context.runtime_env().memory_pool);
        let one = One {
            deeds: self.deeds.clone(),
            rows: self.rows.clone(),
            schema: self.schema.clone(),
            measured: self.measured.clone(),
            context,
        };
        let pairs = self.groups.get(partition).cloned().unwrap_or_default();
        let state = (one, pairs.into_iter(), Arc::new(reserved));
        let files = futures::stream::try_unfold(state, |(one, mut pairs, reserved)| async move {
            let Some(pair) = pairs.next() else {
                return Ok::<_, DataFusionError>(None);
            };
            let rows = one.file(pair, &reserved).await?;
            Ok(Some((rows, (one, pairs, reserved))))
        });
        let rows = files.try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema.clone(),
            rows,
        )))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.own.clone_inner();
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.iter().for_each(|m| all.push(m.clone()));
        Some(all)
    }
}

/// How one file is read.
struct One {
    deeds: Condition,
    rows: Condition,
    schema: SchemaRef,
    measured: Arc<Mutex<MetricsSet>>,
    context: Arc<TaskContext>,
}

impl One {
    async fn file(
        &self,
        pair: Pair,
        reserved: &Arc<MemoryReservation>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let wanted = |name: &str| self.schema.field_with_name(name).is_ok();
        let of_deeds: Vec<&str> = DEEDS.into_iter().filter(|name| wanted(name)).collect();
        let mut columns: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        columns.retain(|name| !DEEDS.contains(name));
        if of_deeds.is_empty() && self.deeds.is_none() {
            return self.long(pair.long, &columns, None, self.rows.clone(), reserved);
        }
        columns.push(NUMBER);
        if self.deeds.is_none() && self.rows.is_some() {
            return self.rows_first(pair, &columns, &of_deeds, reserved).await;
        }
        let deeds = self.deeds.clone();
        let table = self.table(pair.short, &of_deeds, deeds, reserved).await?;
        if table.rows.num_rows() == 0 {
            return Ok(futures::stream::empty().boxed());
        }
        let mut condition = self.rows.clone();
        if self.deeds.is_some() && table.rows.num_rows() <= NUMBERS_MAX {
            let numbers = table.numbers().values().iter();
            condition = and(
                condition,
                Some(among(numbers, &Table::Behaviours.stored())?),
            );
        }
        let table = Some(Arc::new(table));
        self.long(pair.long, &columns, table, condition, reserved)
    }

    /// Where rows are asked for and not what was done, few may name few: of the short table no more
    /// is read than they name. Of too many all of it is, and they go on from where they are.
    async fn rows_first(
        &self,
        pair: Pair,
        columns: &[&str],
        of_deeds: &[&str],
        reserved: &Arc<MemoryReservation>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let files = Files::new(Table::Behaviours, vec![vec![pair.long]]);
        let plan = files.read(self.rows.clone(), Some(columns))?;
        let mut rest = plan.execute(0, self.context.clone())?;
        let (mut begun, mut numbers, mut count) = (Vec::new(), BTreeSet::new(), 0);
        while let Some(batch) = rest.try_next().await? {
            let own = batch.column_by_name(NUMBER).expect("asked for");
            numbers.extend(own.as_primitive::<UInt32Type>().values());
            count += batch.num_rows();
            begun.push(batch);
            if count > BEGUN_ROWS_MAX || numbers.len() > NAMED_MAX {
                numbers.clear();
                break;
            }
        }
        if count == 0 {
            keep(&self.measured, plan.as_ref());
            return Ok(futures::stream::empty().boxed());
        }
        let named = match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) => Some(between(*first, *last, &numbers)?),
            _ => None,
        };
        let table = self.table(pair.short, of_deeds, named, reserved).await?;
        let held: usize = begun.iter().map(RecordBatch::get_array_memory_size).sum();
        reserved.try_grow(held)?;
        let begun = futures::stream::iter(begun.into_iter().map(Ok));
        Ok(self.widened(
            plan,
            begun.chain(rest).boxed(),
            Some(Arc::new(table)),
            reserved,
        ))
    }

    /// The rows of a file for which `condition` is true.
    fn long(
        &self,
        file: PartitionedFile,
        columns: &[&str],
        table: Option<Arc<Shorts>>,
        condition: Condition,
        reserved: &Arc<MemoryReservation>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let files = Files::new(Table::Behaviours, vec![vec![file]]);
        let plan = files.read(condition, Some(columns))?;
        let stream = plan.execute(0, self.context.clone())?;
        Ok(self.widened(plan, stream, table, reserved))
    }

    fn widened(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        table: Option<Arc<Shorts>>,
        reserved: &Arc<MemoryReservation>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let (schema, measured) = (self.schema.clone(), self.measured.clone());
        let reserved = reserved.clone();
        let rows = rows.map(move |batch| {
            // kept until the file's last row
            let _ = &reserved;
            widen(&schema, table.as_deref(), &batch?)
        });
        let ended = futures::stream::once(async move {
            keep(&measured, plan.as_ref());
            None
        });
        let rows = rows.map(Some).chain(ended);
        rows.filter_map(futures::future::ready).boxed()
    }

    async fn table(
        &self,
        file: PartitionedFile,
        columns: &[&str],
        condition: Condition,
        reserved: &MemoryReservation,
    ) -> Result<Shorts> {
        let all = Table::Fingerprints.stored();
        let columns = columns.iter().copied().chain([NUMBER]);
        let columns: Result<Vec<usize>, _> = columns.map(|name| all.index_of(name)).collect();
        let files = Files::new(Table::Fingerprints, vec![vec![file]]);
        let wanted = Arc::new(all.project(&columns?)?);
        let plan = crate::short::read(files, condition, wanted)?;
        let batches: Vec<RecordBatch> =
            plan.execute(0, self.context.clone())?.try_collect().await?;
        keep(&self.measured, plan.as_ref());
        let rows = concat_batches(&plan.schema(), &batches)?;
        drop(batches);
        let numbers = rows
            .column(rows.num_columns() - 1)
            .as_primitive::<UInt32Type>();
        let last = numbers.values().iter().max().map_or(0, |n| *n as usize + 1);
        reserved.try_resize(rows.get_array_memory_size() + last * 4)?;
        let mut places = vec![u32::MAX; last];
        for (row, n) in numbers.values().iter().enumerate() {
            places[*n as usize] = row as u32;
        }
        Ok(Shorts { rows, places })
    }
}

fn keep(measured: &Mutex<MetricsSet>, plan: &dyn ExecutionPlan) {
    let mut all = measured.lock().unwrap_or_else(PoisonError::into_inner);
    for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
        all.push(metric.clone());
    }
    drop(all);
    for child in plan.children() {
        keep(measured, child.as_ref());
    }
}

/// Wanted rows of a short table, and where each number stands.
struct Shorts {
    rows: RecordBatch,
    places: Vec<u32>,
}

impl Shorts {
    fn numbers(&self) -> &UInt32Array {
        let numbers = self.rows.column(self.rows.num_columns() - 1);
        numbers.as_primitive::<UInt32Type>()
    }
}

/// That the number is one of these.
fn among<'a>(
    numbers: impl Iterator<Item = &'a u32>,
    schema: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    let listed = numbers.map(|n| literal(*n)).collect();
    let number = number(schema)?;
    Ok(Arc::new(InListExpr::try_new(
        number, listed, false, schema,
    )?))
}

/// The same of the short table, of which statistics rule out what lies outside.
fn between(first: u32, last: u32, numbers: &BTreeSet<u32>) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = Table::Fingerprints.stored();
    let bound = |op, n| -> Result<Condition> {
        Ok(Some(Arc::new(BinaryExpr::new(
            number(&schema)?,
            op,
            literal(n),
        ))))
    };
    let ends = and(bound(Operator::GtEq, first)?, bound(Operator::LtEq, last)?);
    let all = and(ends, Some(among(numbers.iter(), &schema)?));
    Ok(all.expect("of three"))
}

fn number(schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(Column::new(NUMBER, schema.index_of(NUMBER)?)))
}

fn literal(n: u32) -> Arc<dyn PhysicalExpr> {
    Arc::new(Literal::new(ScalarValue::UInt32(Some(n))))
}

fn and(a: Condition, b: Condition) -> Condition {
    match (a, b) {
        (Some(a), Some(b)) => Some(Arc::new(BinaryExpr::new(a, Operator::And, b))),
        (a, b) => a.or(b),
    }
}

/// Rows as people know them; those whose number is not among the wanted are left out.
fn widen(schema: &SchemaRef, table: Option<&Shorts>, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut rows = rows.clone();
    let mut places = None;
    if let Some(table) = table {
        let number = rows.column_by_name(NUMBER).expect("asked for").clone();
        let place = |n: &u32| table.places.get(*n as usize).copied().unwrap_or(u32::MAX);
        let numbers = number.as_primitive::<UInt32Type>();
        let mut at: Vec<u32> = numbers.values().iter().map(place).collect();
        if at.contains(&u32::MAX) {
            let known: BooleanArray = at.iter().map(|p| Some(*p != u32::MAX)).collect();
            rows = filter_record_batch(&rows, &known)?;
            at.retain(|p| *p != u32::MAX);
        }
        places = Some(UInt32Array::from(at));
    }
    let column = |name: &String| -> Result<ArrayRef> {
        let own = rows.column_by_name(name);
        match (own, table, &places) {
            (Some(own), _, _) => Ok(own.clone()),
            (None, Some(table), Some(places)) => {
                let all = table.rows.column_by_name(name).expect("asked for");
                Ok(take(all, places, None)?)
            }
            _ => unreachable!("a column of neither file is asked for only with the short table"),
        }
    };
    let columns: Result<Vec<ArrayRef>> = schema.fields().iter().map(|f| column(f.name())).collect();
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        columns?,
        &count,
    )?)
}
