//! Rows of `behaviours` for the engine: numbers become columns again, file by file.
//!
//! Promises: a file whose short table holds nothing that is wanted is not read any further; one
//! short table a thread is in memory, and counted.

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
use futures::{StreamExt as _, TryStreamExt as _};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Behaviours that are looked for by their numbers in a file; of more, every row is looked at.
const NUMBERS_MAX: usize = 256;

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
    ) -> Result<futures::stream::BoxStream<'static, Result<RecordBatch>>> {
        let wanted = |name: &str| self.schema.field_with_name(name).is_ok();
        let of_deeds: Vec<&str> = DEEDS.into_iter().filter(|name| wanted(name)).collect();
        let mut columns: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        columns.retain(|name| !DEEDS.contains(name));
        let table = match of_deeds.is_empty() && self.deeds.is_none() {
            true => None,
            false => {
                columns.push(NUMBER);
                Some(Arc::new(self.table(pair.short, &of_deeds, reserved).await?))
            }
        };
        if table.as_ref().is_some_and(|t| t.rows.num_rows() == 0) {
            return Ok(futures::stream::empty().boxed());
        }
        let mut condition = self.rows.clone();
        if let Some(table) = table.as_ref().filter(|_| self.deeds.is_some()) {
            condition = and(condition, table.condition()?);
        }
        let files = Files::new(Table::Behaviours, vec![vec![pair.long]]);
        let plan = files.read(condition, Some(&columns))?;
        let stream = plan.execute(0, self.context.clone())?;
        let (schema, measured) = (self.schema.clone(), self.measured.clone());
        let reserved = reserved.clone();
        let rows = stream.map(move |batch| {
            // kept until the file's last row
            let _ = &reserved;
            widen(&schema, table.as_deref(), &batch?)
        });
        let ended = futures::stream::once(async move {
            keep(&measured, plan.as_ref());
            None
        });
        Ok(rows
            .map(Some)
            .chain(ended)
            .filter_map(futures::future::ready)
            .boxed())
    }

    async fn table(
        &self,
        file: PartitionedFile,
        columns: &[&str],
        reserved: &MemoryReservation,
    ) -> Result<Shorts> {
        let all = Table::Fingerprints.stored();
        let columns = columns.iter().copied().chain([NUMBER]);
        let columns: Result<Vec<usize>, _> = columns.map(|name| all.index_of(name)).collect();
        let files = Files::new(Table::Fingerprints, vec![vec![file]]);
        let wanted = Arc::new(all.project(&columns?)?);
        let plan = crate::short::read(files, self.deeds.clone(), wanted)?;
        let batches: Vec<RecordBatch> =
            plan.execute(0, self.context.clone())?.try_collect().await?;
        keep(&self.measured, plan.as_ref());
        let rows = concat_batches(&plan.schema(), &batches)?;
        drop(batches);
        let numbers = rows.column(rows.num_columns() - 1).clone();
        let numbers = numbers.as_primitive::<UInt32Type>();
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
    /// Rows that name one of them.
    fn condition(&self) -> Result<Condition> {
        if self.rows.num_rows() > NUMBERS_MAX {
            return Ok(None);
        }
        let schema = Table::Behaviours.stored();
        let number: Arc<dyn PhysicalExpr> = Arc::new(Column::new(NUMBER, schema.index_of(NUMBER)?));
        let numbers = self.rows.column(self.rows.num_columns() - 1);
        let numbers = numbers.as_primitive::<UInt32Type>().values().iter();
        let listed = numbers.map(|n| {
            Arc::new(Literal::new(ScalarValue::UInt32(Some(*n)))) as Arc<dyn PhysicalExpr>
        });
        Ok(Some(Arc::new(InListExpr::try_new(
            number,
            listed.collect(),
            false,
            &schema,
        )?)))
    }
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
