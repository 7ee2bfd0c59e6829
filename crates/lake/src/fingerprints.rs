//! What was done, once; and who did it when, by number.
//!
//! A behaviour is nine columns long and occurs again and again. Files keep each once, with where it
//! occurred first, how often and until when, in `fingerprints`; rows of `behaviours` name it by a
//! number. Whoever reads rows puts the columns back ([`crate::widen`]); whoever asks for a first
//! occurrence reads the short table alone ([`crate::short`]).
//!
//! Files keep no id that follows from the other columns, which are what it is a hash of: 16 bytes
//! that nothing compresses. Its first four are there, to be found by.

use crate::tables::{DEEDS, MARK, NUMBER, Table};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray as _, Int32Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::{SchemaRef, TimestampNanosecondType, UInt32Type, UInt64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use plimsoll_model::{Behaviour, BehaviourKind, Entry, Operation, Origin, Text};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

mod merge;

pub(crate) use merge::Merging;

/// What is added up about one behaviour.
struct Deed {
    /// Row of the first occurrence.
    first: usize,
    count: u64,
    last: i64,
    containers: u64,
}

/// Sorted rows of `behaviours`, as files keep them: the short table and the rows that refer to it.
pub(crate) struct Split {
    pub(crate) fingerprints: RecordBatch,
    pub(crate) rows: RecordBatch,
}

/// Takes what was done out of whole rows, which must be sorted as [`Table::order`] says.
pub(crate) fn split(rows: &RecordBatch) -> Result<Split, ArrowError> {
    let (numbers, deeds) = number(rows, &DEEDS)?;
    let deeds = gather(rows, &numbers, deeds);
    let first: UInt64Array = deeds.iter().map(|d| d.first as u64).collect();
    let firsts = take_record_batch(rows, &first)?;
    let counts: UInt64Array = deeds.iter().map(|d| d.count).collect();
    let last = deeds.iter().map(|d| d.last);
    let containers: UInt64Array = deeds.iter().map(|d| d.containers).collect();
    let (fingerprints, renumbered) = numbered(&firsts, counts, last.collect(), containers)?;
    let numbers: Vec<u32> = numbers.iter().map(|n| renumbered[*n as usize]).collect();
    Ok(Split {
        fingerprints,
        rows: with_numbers(rows, numbers)?,
    })
}

/// Counts how many containers did what, over rows that come by container.
#[derive(Default)]
pub(crate) struct Containers {
    counts: Vec<u32>,
    last_in: Vec<u32>,
    container: u32,
    of: Option<(Option<String>, Option<u64>)>,
}

impl Containers {
    pub(crate) fn new(fingerprints: usize) -> Self {
        Self {
            counts: vec![0; fingerprints],
            last_in: vec![0; fingerprints],
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, rows: &RecordBatch) {
        let ids = rows.column_by_name("container").expect("a common column");
        let ids = ids.as_string_view();
        let starts = u64s(rows, "container_started");
        let numbers = rows.column_by_name(NUMBER).expect("stored with numbers");
        let numbers = numbers.as_primitive::<UInt32Type>();
        for row in 0..rows.num_rows() {
            let id = ids.is_valid(row).then(|| ids.value(row));
            let start = starts.is_valid(row).then(|| starts.value(row));
            let same = self
                .of
                .as_ref()
                .is_some_and(|(i, s)| i.as_deref() == id && *s == start);
            if !same {
                self.of = Some((id.map(str::to_owned), start));
                self.container += 1;
            }
            let n = numbers.value(row) as usize;
            if self.last_in[n] != self.container {
                self.last_in[n] = self.container;
                self.counts[n] += 1;
            }
        }
    }

    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }
}

/// Rows with new numbers in place of old ones.
pub(crate) fn renumber(rows: &RecordBatch, map: &[u32]) -> Result<RecordBatch, ArrowError> {
    let old = rows.column_by_name(NUMBER).expect("stored with numbers");
    let old = old.as_primitive::<UInt32Type>().values().iter();
    let new: Option<Vec<u32>> = old
        .map(|n| map.get(*n as usize).copied().filter(|n| *n != u32::MAX))
        .collect();
    let new = new.ok_or_else(|| {
        ArrowError::InvalidArgumentError("a row names a behaviour that its file lacks".to_owned())
    })?;
    replaced(rows, NUMBER, Arc::new(UInt32Array::from(new)))
}

impl Deed {
    fn at(first: usize) -> Self {
        Self {
            first,
            count: 0,
            last: i64::MIN,
            containers: 0,
        }
    }
}

/// For each row which one it is, by the order of appearance, and where each appears first.
fn number(rows: &RecordBatch, columns: &[&str]) -> Result<(Vec<u32>, Vec<usize>), ArrowError> {
    let columns: Vec<ArrayRef> = columns
        .iter()
        .map(|name| rows.column_by_name(name).expect("a column").clone())
        .collect();
    let fields = columns
        .iter()
        .map(|c| SortField::new(c.data_type().clone()));
    let keys = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
    let mut seen: HashMap<&[u8], u32> = HashMap::new();
    let mut firsts = Vec::new();
    let mut numbers = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let next = seen.len() as u32;
        let n = *seen.entry(keys.row(row).data()).or_insert(next);
        if n == next {
            firsts.push(row);
        }
        numbers.push(n);
    }
    Ok((numbers, firsts))
}

fn gather(rows: &RecordBatch, numbers: &[u32], firsts: Vec<usize>) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = firsts.into_iter().map(Deed::at).collect();
    let (times, leaves, counts) = (times(rows, "time"), u64s(rows, "leaf"), u64s(rows, "count"));
    let until = self::times(rows, "until");
    let (mut own, mut last_in) = (0_u64, vec![0_u64; deeds.len()]);
    let ids = rows.column_by_name("container").expect("a common column");
    let ids = ids.as_string_view();
    let starts = u64s(rows, "container_started");
    let same = |a: usize, b: usize| {
        ids.is_valid(a) == ids.is_valid(b)
            && (ids.is_null(a) || ids.value(a) == ids.value(b))
            && starts.is_valid(a) == starts.is_valid(b)
            && (starts.is_null(a) || starts.value(a) == starts.value(b))
    };
    for (row, n) in numbers.iter().enumerate() {
        if row == 0 || !same(row, row - 1) {
            own += 1;
        }
        let deed = &mut deeds[*n as usize];
        deed.count = deed.count.saturating_add(counts.value(row));
        let end = match until.is_valid(row) {
            true => until.value(row),
            false => times.value(row),
        };
        deed.last = deed.last.max(end);
        if last_in[*n as usize] != own {
            last_in[*n as usize] = own;
            deed.containers += 1;
        }
        let key = |row| (times.value(row), leaves.value(row));
        if key(row) < key(deed.first) {
            deed.first = row;
        }
    }
    deeds
}

/// The short table in its order, and the number that each of `firsts` has in it.
fn numbered(
    firsts: &RecordBatch,
    counts: UInt64Array,
    last: Vec<i64>,
    containers: UInt64Array,
) -> Result<(RecordBatch, Vec<u32>), ArrowError> {
    let order = ranks(firsts, &counts)?.into_iter();
    let order: Vec<SortColumn> = order
        .map(|values| SortColumn {
            values,
            options: None,
        })
        .collect();
    let ranked = lexsort_to_indices(&order, None)?;
    let mut numbers = vec![0; firsts.num_rows()];
    for (number, row) in ranked.values().iter().enumerate() {
        numbers[*row as usize] = number as u32;
    }
    let schema = Table::Fingerprints.stored();
    let last = TimestampNanosecondArray::from(last).with_timezone("+00:00");
    let column = |name: &str| -> ArrayRef {
        match name {
            "count" => Arc::new(counts.clone()),
            "last" => Arc::new(last.clone()),
            "containers" => Arc::new(containers.clone()),
            NUMBER => Arc::new(UInt32Array::from(numbers.clone())),
            MARK => Arc::new(marks(firsts)),
            name => firsts.column_by_name(name).expect("a column").clone(),
        }
    };
    let columns = schema.fields().iter().map(|f| column(f.name())).collect();
    let rows = RecordBatch::try_new(schema, columns)?;
    Ok((take_record_batch(&rows, &ranked)?, numbers))
}

/// What numbers go by: image and how often, roughly, so that those of one container's rows are small
/// and near each other. What was done once stands in the order of its time, so that all its columns
/// differ little.
fn ranks(firsts: &RecordBatch, counts: &UInt64Array) -> Result<Vec<ArrayRef>, ArrowError> {
    let column = |name: &str| firsts.column_by_name(name).expect("a column").clone();
    let often = counts.values().iter();
    let often: Int32Array = often
        .map(|n| -((u64::BITS - n.leading_zeros()) as i32))
        .collect();
    let mut order = vec![column("image_digest"), Arc::new(often)];
    order.extend(DEEDS[1..7].iter().map(|name| column(name)));
    order.extend(of_single(firsts, counts)?);
    order.extend(["object", "object_origin", "behaviour"].map(column));
    Ok(order)
}

/// Container, its start and time of what was done once; nothing of the others.
fn of_single(firsts: &RecordBatch, counts: &UInt64Array) -> Result<Vec<ArrayRef>, ArrowError> {
    let others = counts.values().iter().map(|n| Some(*n != 1)).collect();
    let of = |name| {
        let column = firsts.column_by_name(name).expect("a column");
        datafusion::arrow::compute::nullif(column, &others)
    };
    ["container", "container_started", "time"]
        .into_iter()
        .map(of)
        .collect()
}

fn marks(rows: &RecordBatch) -> UInt32Array {
    texts(rows, "behaviour")
        .iter()
        .map(|id| mark(id?))
        .collect()
}

/// What a behaviour's id is found by; `None`: it is no id.
pub(crate) fn mark(id: &str) -> Option<u32> {
    u32::from_str_radix(id.get(..8)?, 16).ok()
}

/// The short table as files keep it: without what follows from other columns.
pub(crate) fn shortened(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (ids, done) = (texts(rows, "behaviour"), Done::of(rows));
    let kept = ids.iter().enumerate().map(|(row, id)| {
        // bytes that are no text, or a record of an agent that hashed otherwise
        id.filter(|id| done.id(row).as_deref() != Some(*id))
    });
    let kept: StringViewArray = kept.collect();
    let (time, last) = (times(rows, "time"), times(rows, "last"));
    let last = last.iter().zip(time.iter());
    let last = last.map(|(last, time)| last.filter(|last| Some(*last) != time));
    let last = last
        .collect::<TimestampNanosecondArray>()
        .with_timezone("+00:00");
    let rows = replaced(rows, "behaviour", Arc::new(kept))?;
    replaced(&rows, "last", Arc::new(last))
}

/// Columns of a file that these columns come from.
pub(crate) fn sources(wanted: &[&str]) -> Vec<&'static str> {
    let needs = |name: &str| {
        wanted.contains(&name)
            || (wanted.contains(&"behaviour") && (DEEDS.contains(&name) || name == MARK))
            || (wanted.contains(&"last") && name == "time")
    };
    let all = Table::Fingerprints
        .columns()
        .map(|c| c.name)
        .chain([NUMBER, MARK]);
    all.filter(|name| needs(name)).collect()
}

/// These columns of rows as files keep them, whole.
pub(crate) fn restored(rows: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |name: &str| -> ArrayRef {
        match name {
            "behaviour" => {
                let (ids, done) = (texts(rows, name), Done::of(rows));
                let marks = rows.column_by_name(MARK).expect("a source");
                let of = |(row, id): (usize, Option<&str>)| match id {
                    Some(id) => Some(id.to_owned()),
                    None if marks.is_null(row) => None,
                    None => done.id(row),
                };
                let all = ids.iter().enumerate().map(of);
                Arc::new(all.collect::<StringViewArray>())
            }
            "last" => {
                let (last, time) = (times(rows, name), times(rows, "time"));
                let all = last
                    .iter()
                    .zip(time.iter())
                    .map(|(last, time)| last.or(time));
                Arc::new(
                    all.collect::<TimestampNanosecondArray>()
                        .with_timezone("+00:00"),
                )
            }
            name => rows.column_by_name(name).expect("a source").clone(),
        }
    };
    let columns = wanted.fields().iter().map(|f| column(f.name())).collect();
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(wanted.clone(), columns, &count)
}

/// The columns that a behaviour's id is a hash of.
struct Done<'a> {
    kind: &'a StringViewArray,
    program: &'a StringViewArray,
    script: &'a StringViewArray,
    entry: &'a StringViewArray,
    uid: &'a UInt64Array,
    operation: &'a StringViewArray,
    object: &'a StringViewArray,
    origin: &'a StringViewArray,
}

impl<'a> Done<'a> {
    fn of(rows: &'a RecordBatch) -> Self {
        let text = |name| texts(rows, name);
        Self {
            kind: text("kind"),
            program: text("program"),
            script: text("script"),
            entry: text("entry"),
            uid: u64s(rows, "uid"),
            operation: text("operation"),
            object: text("object"),
            origin: text("object_origin"),
        }
    }

    /// `None`: not all of it is known.
    fn id(&self, row: usize) -> Option<String> {
        fn at(column: &StringViewArray, row: usize) -> Option<&str> {
            column.is_valid(row).then(|| column.value(row))
        }
        let text = |column| Text::from(at(column, row).unwrap_or_default());
        let behaviour = Behaviour {
            kind: named(&KINDS, at(self.kind, row)?)?,
            program: text(self.program),
            script: text(self.script),
            entry: named(&ENTRIES, at(self.entry, row)?)?,
            uid: self
                .uid
                .is_valid(row)
                .then(|| self.uid.value(row))?
                .try_into()
                .ok()?,
            operation: Operation(at(self.operation, row).unwrap_or_default().to_owned()),
            object: text(self.object),
            origin: named(&ORIGINS, at(self.origin, row)?)?,
        };
        Some(behaviour.id().to_string())
    }
}

type Names<T> = LazyLock<Vec<(&'static str, T)>>;
static KINDS: Names<BehaviourKind> = LazyLock::new(|| all(BehaviourKind::as_str));
static ENTRIES: Names<Entry> = LazyLock::new(|| all(Entry::as_str));
static ORIGINS: Names<Origin> = LazyLock::new(|| all(Origin::as_str));

/// Every value of a type whose values are numbers below 24, which CBOR writes as one byte each.
fn all<T: for<'b> minicbor::Decode<'b, ()> + Copy>(
    name: fn(T) -> &'static str,
) -> Vec<(&'static str, T)> {
    let values = (0..24_u8).filter_map(|n| minicbor::decode::<T>(&[n]).ok());
    values.map(|value| (name(value), value)).collect()
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| *value)
}

fn texts<'a>(rows: &'a RecordBatch, name: &str) -> &'a StringViewArray {
    rows.column_by_name(name)
        .expect("a column")
        .as_string_view()
}

fn with_numbers(rows: &RecordBatch, numbers: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = Table::Behaviours.stored();
    let numbers: ArrayRef = Arc::new(UInt32Array::from(numbers));
    let column = |name: &str| match name {
        NUMBER => numbers.clone(),
        name => rows.column_by_name(name).expect("a column").clone(),
    };
    let columns = schema.fields().iter().map(|f| column(f.name())).collect();
    RecordBatch::try_new(schema, columns)
}

fn replaced(rows: &RecordBatch, name: &str, by: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name)?] = by;
    RecordBatch::try_new(rows.schema(), columns)
}

fn times<'a>(rows: &'a RecordBatch, name: &str) -> &'a TimestampNanosecondArray {
    rows.column_by_name(name)
        .expect("a column")
        .as_primitive::<TimestampNanosecondType>()
}

fn u64s<'a>(rows: &'a RecordBatch, name: &str) -> &'a UInt64Array {
    rows.column_by_name(name)
        .expect("a column")
        .as_primitive::<UInt64Type>()
}
