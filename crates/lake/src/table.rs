//! One table for the engine: the sealed files that can hold a wanted row, and the tail.

use crate::LakeError;
use crate::build::Contents;
use crate::query::{Counts, TailSource};
use crate::scan::Files;
use crate::seal::SealedFile;
use crate::tables::{DEEDS, Table};
use crate::widen::{Condition, Pair, Widen};
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, TimestampNanosecondArray, UInt64Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file and the leaves it covers.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    /// Name and bytes of the file that tells what numbers in this one mean.
    short: Option<(String, u64)>,
    first: u64,
    end: u64,
    file: SealedFile,
}

pub(crate) struct LakeTable {
    table: Table,
    places: Vec<Place>,
    tail: Arc<TailSource>,
    counts: Arc<Counts>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LakeTable({}, {} files)",
            self.table.name(),
            self.places.len()
        )
    }
}

impl LakeTable {
    pub(crate) fn new(
        table: Table,
        contents: &Contents,
        tail: Arc<TailSource>,
        counts: Arc<Counts>,
    ) -> Self {
        let place = |seal: &crate::Seal| {
            let short = seal.file(Table::Fingerprints);
            seal.file(table).map(|file| Place {
                name: seal.file_name(table.name()),
                short: short.map(|f| (seal.file_name(&f.table), f.bytes)),
                first: seal.first,
                end: seal.end,
                file: file.clone(),
            })
        };
        let places = contents.seals.iter().filter_map(place).collect();
        Self {
            table,
            places,
            tail,
            counts,
        }
    }

    /// Files that can hold a row for which `predicate` is true.
    fn possible(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<&Place> {
        let all = self.places.iter();
        let keep = predicate.and_then(|p| {
            let pruning = PruningPredicate::try_new(p.clone(), self.table.schema()).ok()?;
            pruning.prune(&Places(&self.places)).ok()
        });
        let possible: Vec<&Place> = match keep {
            // what cannot be decided beforehand is looked at
            None => all.collect(),
            Some(keep) => all
                .zip(keep)
                .filter(|(_, keep)| *keep)
                .map(|(p, _)| p)
                .collect(),
        };
        let left_out = self.places.len() - possible.len();
        self.counts
            .files
            .fetch_add(self.places.len() as u64, Ordering::Relaxed);
        self.counts
            .files_left_out
            .fetch_add(left_out as u64, Ordering::Relaxed);
        possible
    }

    fn files(
        &self,
        places: Vec<&Place>,
        conditions: Conditions,
        projection: Option<&Vec<usize>>,
        threads: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let long = |p: &Place| PartitionedFile::new(p.name.clone(), p.file.bytes);
        if self.table == Table::Behaviours {
            let pair = |p: &&Place| {
                let (name, bytes) = p.short.clone()?;
                let short = PartitionedFile::new(name, bytes);
                Some(Pair {
                    short,
                    long: long(p),
                })
            };
            let pairs: Option<Vec<Pair>> = places.iter().map(pair).collect();
            let pairs = pairs.ok_or_else(|| {
                let what = "a span of behaviours has no fingerprints".to_owned();
                outward(LakeError::Damaged { what })
            })?;
            let widen = Widen::new(
                pairs,
                threads,
                conditions.deeds,
                conditions.rows,
                projection,
            )?;
            return Ok(Arc::new(widen));
        }
        let files = Files::spread(self.table, places.into_iter().map(long).collect(), threads);
        let schema = self.table.schema();
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let columns = projection.unwrap_or(&all).iter();
        let columns: Vec<&str> = columns.map(|n| schema.field(*n).name().as_str()).collect();
        if self.table == Table::Fingerprints {
            let wanted = projection.map_or(Ok(schema.clone()), |p| schema.project(p).map(Arc::new));
            return crate::short::read(files, conditions.rows, wanted?);
        }
        files.read(conditions.rows, Some(&columns))
    }

    /// What each kind of file can decide of `filters` by itself.
    fn conditions(&self, state: &dyn Session, filters: &[Expr]) -> Result<Conditions> {
        let schema = DFSchema::try_from(self.table.stored())?;
        let of = |filters: Vec<Expr>, schema: &DFSchema| {
            conjunction(filters)
                .map(|e| state.create_physical_expr(e, schema))
                .transpose()
        };
        if self.table != Table::Behaviours {
            let filters = match self.table {
                Table::Fingerprints => crate::short::decidable(filters),
                _ => filters.to_vec(),
            };
            return Ok(Conditions {
                rows: of(filters, &schema)?,
                deeds: None,
            });
        }
        let only = |keep: &dyn Fn(&str) -> bool| -> Vec<Expr> {
            let fits = |e: &&Expr| e.column_refs().iter().all(|c| keep(c.name()));
            filters.iter().filter(fits).cloned().collect()
        };
        let deeds = crate::short::decidable(&only(&|name| DEEDS.contains(&name)));
        let short = DFSchema::try_from(Table::Fingerprints.stored())?;
        Ok(Conditions {
            rows: of(only(&|name| !DEEDS.contains(&name)), &schema)?,
            deeds: of(deeds, &short)?,
        })
    }
}

/// Conditions by the file that can decide them; one that needs both is left to the engine.
struct Conditions {
    rows: Condition,
    /// What was done.
    deeds: Condition,
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // all are looked at, none is decided here
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = DFSchema::try_from(self.schema())?;
        let predicate = conjunction(filters.to_vec())
            .map(|e| state.create_physical_expr(e, &schema))
            .transpose()?;
        let possible = self.possible(predicate.as_ref());
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !possible.is_empty() {
            let threads = state.config().target_partitions();
            let conditions = self.conditions(state, filters)?;
            inputs.push(self.files(possible, conditions, projection, threads)?);
        }
        let rows = self.tail.rows(self.table).await.map_err(outward)?;
        if !rows.is_empty() {
            let tail =
                MemorySourceConfig::try_new_exec(&[rows], self.schema(), projection.cloned())?;
            inputs.push(tail);
        }
        match inputs.len() {
            0 => {
                let schema = match projection {
                    Some(columns) => Arc::new(self.schema().project(columns)?),
                    None => self.schema(),
                };
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }
}

fn outward(error: LakeError) -> DataFusionError {
    match error {
        LakeError::Memory { what } => DataFusionError::ResourcesExhausted(what),
        other => DataFusionError::External(Box::new(other)),
    }
}

/// What seals say about files, for leaving some out.
struct Places<'a>(&'a [Place]);

impl Places<'_> {
    fn times(&self, of: impl Fn(&SealedFile) -> i64) -> ArrayRef {
        let times = self.0.iter().map(|p| of(&p.file));
        Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("+00:00"))
    }
    fn leaves(&self, of: impl Fn(&Place) -> u64) -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(self.0.iter().map(of)))
    }
}

impl PruningStatistics for Places<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            "time" => Some(self.times(|f| f.from)),
            "leaf" => Some(self.leaves(|p| p.first)),
            _ => None,
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            "time" => Some(self.times(|f| f.to)),
            "leaf" => Some(self.leaves(|p| p.end - 1)),
            _ => None,
        }
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(
            self.0.iter().map(|p| p.file.rows),
        )))
    }

    /// False: none of the values is in the file. Never true: a file holds others too.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let named = |file: &SealedFile| match column.name() {
            "container" => file.containers.clone(),
            "container_name" => file.names.clone(),
            _ => None,
        };
        if !matches!(column.name(), "container" | "container_name") {
            return None;
        }
        let wanted: Option<Vec<&str>> = values.iter().map(|v| v.try_as_str().flatten()).collect();
        let wanted = wanted?;
        let one = |place: &Place| {
            let names = named(&place.file)?;
            let none = wanted
                .iter()
                .all(|w| names.binary_search_by(|n| n.as_str().cmp(w)).is_err());
            none.then_some(false)
        };
        Some(self.0.iter().map(one).collect())
    }
}
