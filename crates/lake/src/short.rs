//! Reading `fingerprints`: what its files leave out is put back ([`crate::fingerprints`]).
//!
//! Promise: a condition on what is put back leaves out no row that it is true for; the engine
//! decides it once more on whole rows.

use crate::fingerprints::{mark, restored, sources};
use crate::scan::Files;
use crate::tables::MARK;
use crate::widen::Condition;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, col, lit};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt as _;
use std::fmt;
use std::sync::Arc;

/// Columns that files lack where they follow from others.
const LEFT_OUT: [&str; 2] = ["behaviour", "last"];

/// What files can decide of these conditions: ids are looked for by their marks.
pub(crate) fn decidable(filters: &[Expr]) -> Vec<Expr> {
    let one = |filter: &Expr| {
        let refs = filter.column_refs();
        match refs.iter().any(|c| LEFT_OUT.contains(&c.name())) {
            false => Some(filter.clone()),
            true => by_marks(filter),
        }
    };
    filters.iter().filter_map(one).collect()
}

/// True wherever the condition is; `None`: nothing can be said beforehand.
fn by_marks(filter: &Expr) -> Option<Expr> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq => {
                let id = value(left, right).or_else(|| value(right, left))?;
                Some(col(MARK).eq(lit(mark(id)?)))
            }
            Operator::Or => Some(by_marks(left)?.or(by_marks(right)?)),
            Operator::And => match (by_marks(left), by_marks(right)) {
                (Some(left), Some(right)) => Some(left.and(right)),
                (left, right) => left.or(right),
            },
            _ => None,
        },
        Expr::InList(list) if !list.negated => {
            let marks = list.list.iter().map(|id| mark(value(&list.expr, id)?));
            let marks: Option<Vec<u32>> = marks.collect();
            Some(col(MARK).in_list(marks?.into_iter().map(lit).collect(), false))
        }
        _ => None,
    }
}

/// The text that the id is compared with.
fn value<'a>(column: &Expr, literal: &'a Expr) -> Option<&'a str> {
    match (column, literal) {
        (Expr::Column(c), Expr::Literal(value, _)) if c.name() == "behaviour" => {
            value.try_as_str().flatten()
        }
        _ => None,
    }
}

/// Reads these columns of files of `fingerprints`, whole.
pub(crate) fn read(
    files: Files,
    condition: Condition,
    wanted: SchemaRef,
) -> Result<Arc<dyn ExecutionPlan>> {
    let names: Vec<&str> = wanted.fields().iter().map(|f| f.name().as_str()).collect();
    let input = files.read(condition, Some(&sources(&names)))?;
    Ok(Arc::new(Restore::new(input, wanted)))
}

/// Puts back what files leave out.
#[derive(Debug)]
struct Restore {
    input: Arc<dyn ExecutionPlan>,
    wanted: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl Restore {
    fn new(input: Arc<dyn ExecutionPlan>, wanted: SchemaRef) -> Self {
        let count = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(wanted.clone()),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            input,
            wanted,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for Restore {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restore")
    }
}

impl ExecutionPlan for Restore {
    fn name(&self) -> &'static str {
        "Restore"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }
    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(Self::new(input, self.wanted.clone())))
    }
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let wanted = self.wanted.clone();
        let rows = self.input.execute(partition, context)?;
        let rows = rows.map(move |batch| Ok(restored(&batch?, &wanted)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.wanted.clone(),
            rows,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_for_by_their_first_bits_and_nothing_else_is_decided() {
        let id = "0123456789abcdef0123456789abcdef";
        let by = |e: Expr| decidable(&[e]);
        let mark = || col(MARK).eq(lit(0x0123_4567_u32));
        assert_eq!(by(col("behaviour").eq(lit(id))), [mark()]);
        assert_eq!(by(lit(id).eq(col("behaviour"))), [mark()]);
        let either = col("behaviour")
            .eq(lit(id))
            .or(col("behaviour").eq(lit(id)));
        assert_eq!(by(either), [mark().or(mark())]);
        let listed = col("behaviour").in_list(vec![lit(id)], false);
        assert_eq!(
            by(listed),
            [col(MARK).in_list(vec![lit(0x0123_4567_u32)], false)]
        );
        let both = col("behaviour").eq(lit(id)).and(col("last").is_not_null());
        assert_eq!(by(both), [mark()]);
        for undecided in [
            col("behaviour").eq(lit("no id")),
            col("behaviour").not_eq(lit(id)),
            col("behaviour").is_null(),
            col("behaviour").eq(lit(id)).or(col("object").eq(lit("/x"))),
            col("behaviour").in_list(vec![lit(id)], true),
            col("last").eq(lit(1)),
        ] {
            assert_eq!(by(undecided.clone()), [], "{undecided}");
        }
        assert_eq!(
            by(col("object").eq(lit("/x"))),
            [col("object").eq(lit("/x"))]
        );
    }
}
