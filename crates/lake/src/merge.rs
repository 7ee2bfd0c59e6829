//! Files in order become one file in order, a few batches at a time.

use crate::tables::Table;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, Rows, SortField};

/// Rows that are handed on at once.
const BATCH_ROWS: usize = 32_768;

/// Rows of one file, in order.
pub(crate) type Sorted<'a> = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + 'a>;

/// Hands on the rows of all `inputs` in their table's order; of equal ones the earlier input's
/// first.
pub(crate) fn merged<E: From<ArrowError>>(
    table: Table,
    inputs: Vec<Sorted<'_>>,
    each: &mut dyn FnMut(RecordBatch) -> Result<(), E>,
) -> Result<(), E> {
    let schema = table.stored();
    let fields = table.order().iter().map(|name| {
        let field = schema.field_with_name(name);
        SortField::new(field.expect("the order names columns").data_type().clone())
    });
    let converter = RowConverter::new(fields.collect())?;
    let mut heads = Vec::new();
    for rest in inputs {
        heads.extend(Head::next(table, &converter, rest)?);
    }
    let (mut taken, mut count) = (Vec::new(), 0);
    while !heads.is_empty() {
        let least = (0..heads.len())
            .min_by_key(|n| (heads[*n].key(heads[*n].at), *n))
            .expect("not empty");
        let until = (0..heads.len()).filter(|n| *n != least);
        let until = until.map(|n| (heads[n].key(heads[n].at), n)).min();
        let run = heads[least].run(until.map(|(key, n)| (key, n > least)));
        taken.push(run.clone());
        count += run.num_rows();
        let head = &mut heads[least];
        head.at += run.num_rows();
        if head.at == head.batch.num_rows() {
            let head = heads.remove(least);
            if let Some(next) = Head::next(table, &converter, head.rest)? {
                heads.insert(least, next);
            }
        }
        if count >= BATCH_ROWS {
            each(concat_batches(&schema, &taken)?)?;
            taken.clear();
            count = 0;
        }
    }
    match count {
        0 => Ok(()),
        _ => each(concat_batches(&schema, &taken)?),
    }
}

/// The next rows of one input.
struct Head<'a> {
    batch: RecordBatch,
    keys: Rows,
    at: usize,
    rest: Sorted<'a>,
}

impl<'a> Head<'a> {
    fn next(
        table: Table,
        converter: &RowConverter,
        mut rest: Sorted<'a>,
    ) -> Result<Option<Self>, ArrowError> {
        for batch in rest.by_ref() {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let column = |name: &&str| -> ArrayRef {
                let column = batch.column_by_name(name);
                column.expect("the order names columns").clone()
            };
            let columns: Vec<ArrayRef> = table.order().iter().map(column).collect();
            let keys = converter.convert_columns(&columns)?;
            return Ok(Some(Self {
                batch,
                keys,
                at: 0,
                rest,
            }));
        }
        Ok(None)
    }

    fn key(&self, row: usize) -> &[u8] {
        self.keys.row(row).data()
    }

    /// The rows from here on that come before `until`; equal ones, too, where they go first.
    fn run(&self, until: Option<(&[u8], bool)>) -> RecordBatch {
        let rest = self.batch.num_rows() - self.at;
        let Some((until, equal_first)) = until else {
            return self.batch.slice(self.at, rest);
        };
        let before = |n: usize| {
            let key = self.key(self.at + n);
            key < until || (equal_first && key == until)
        };
        // by doubling, then by halves: runs are short at times and long at others
        let mut step = 1;
        while step < rest && before(step) {
            step *= 2;
        }
        let (mut low, mut high) = (step / 2, step.min(rest));
        while low < high {
            let middle = usize::midpoint(low, high);
            if before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.batch.slice(self.at, high.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{AsArray as _, new_null_array};
    use datafusion::arrow::datatypes::UInt64Type;
    use std::sync::Arc;

    /// Rows of `gaps` of no container, with these leaves as times too.
    fn rows(leaves: &[u64]) -> RecordBatch {
        use datafusion::arrow::array::{StringViewArray, TimestampNanosecondArray, UInt64Array};
        let schema = Table::Gaps.stored();
        let times = leaves.iter().map(|n| *n as i64 / 10);
        let column = |name: &str, of| -> ArrayRef {
            match name {
                "time" => Arc::new(
                    TimestampNanosecondArray::from_iter_values(times.clone())
                        .with_timezone("+00:00"),
                ),
                "leaf" => Arc::new(UInt64Array::from(leaves.to_vec())),
                "origin" => Arc::new(StringViewArray::from(vec!["n"; leaves.len()])),
                _ => new_null_array(of, leaves.len()),
            }
        };
        let columns = schema.fields().iter();
        let columns = columns.map(|f| column(f.name(), f.data_type())).collect();
        RecordBatch::try_new(schema, columns).unwrap()
    }

    #[test]
    fn every_row_comes_once_and_in_order() {
        let inputs: [&[&[u64]]; 4] = [
            &[&[1, 2, 3, 40], &[], &[41, 50]],
            &[&[4, 5, 6, 7, 8, 9, 10, 11, 12, 42]],
            &[],
            &[&[13], &[39], &[43, 44, 60, 61, 62]],
        ];
        let all = inputs.iter().map(|batches| {
            let batches: Vec<_> = batches.iter().map(|b| Ok(rows(b))).collect();
            Box::new(batches.into_iter()) as Sorted<'_>
        });
        let mut leaves: Vec<u64> = Vec::new();
        merged::<ArrowError>(Table::Gaps, all.collect(), &mut |batch| {
            let column = batch.column_by_name("leaf").unwrap();
            leaves.extend(column.as_primitive::<UInt64Type>().values().iter());
            Ok(())
        })
        .unwrap();
        let mut wanted: Vec<u64> = inputs.iter().flat_map(|i| i.concat()).collect();
        wanted.sort_unstable();
        assert_eq!(leaves, wanted);
    }
}
