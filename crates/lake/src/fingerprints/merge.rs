//! Short tables of several files become one, however long they are.
//!
//! What was done is brought together by sorting, and numbered by sorting once more; both beyond
//! memory where it is much ([`Sorter`]). What stays in memory are numbers: a few bytes each.

use super::{DEEDS, MARK, NUMBER, Table, marks, ranks, times, u64s};
use crate::LakeError;
use crate::sorter::{Sorted, Sorter};
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, RecordBatch, TimestampNanosecondArray, UInt32Array,
    UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows that are columns at once. Pages end at multiples of it, so that a file does not show how its
/// rows came.
const BATCH_ROWS: usize = 8192;
/// Of a first occurrence, beside what was done; by the first two it is the first.
const OCCURRED: [&str; 8] = [
    "time",
    "leaf",
    "container_name",
    "container",
    "container_started",
    "image",
    "image_digest",
    "origin",
];
/// Columns of [`ranks`] that have a name of their own.
const RANKED: [(usize, &str); 10] = [
    (0, "image_digest"),
    (2, DEEDS[1]),
    (3, DEEDS[2]),
    (4, DEEDS[3]),
    (5, DEEDS[4]),
    (6, DEEDS[5]),
    (7, DEEDS[6]),
    (11, "object"),
    (12, "object_origin"),
    (13, "behaviour"),
];
/// The others.
const BESIDE: [&str; 9] = [
    "time",
    "leaf",
    "container_name",
    "container",
    "container_started",
    "image",
    "origin",
    "count",
    "last",
];

/// Short tables on their way in, part by part.
pub(crate) struct Merging {
    dir: PathBuf,
    most: usize,
    deeds: Coding,
    occurred: Coding,
    sorter: Sorter,
    parts: Vec<Numbers>,
}

/// What numbers a part has.
#[derive(Default)]
struct Numbers {
    rows: usize,
    /// One more than the highest.
    end: usize,
}

/// One short table, in its order.
pub(crate) struct Merged {
    ranks: Coding,
    beside: Coding,
    sorted: Sorted,
    /// Of each part, its old numbers' new ones.
    pub(crate) maps: Vec<Vec<u32>>,
    /// How many there are.
    pub(crate) count: usize,
}

impl Merging {
    /// With `most` bytes of rows in memory; what is more goes into files in `dir`.
    pub(crate) fn new(dir: &Path, most: usize) -> Result<Self, LakeError> {
        Ok(Self {
            dir: dir.to_path_buf(),
            most,
            deeds: Coding::named(&DEEDS)?,
            occurred: Coding::named(&OCCURRED)?,
            sorter: Sorter::new(dir, most),
            parts: Vec::new(),
        })
    }

    /// What comes is of the next part.
    pub(crate) fn next_part(&mut self) {
        self.parts.push(Numbers::default());
    }

    /// Whole rows of the part.
    pub(crate) fn add(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        let part = self.parts.len() - 1;
        let (deeds, occurred) = (self.deeds.rows(rows)?, self.occurred.rows(rows)?);
        let (counts, lasts) = (u64s(rows, "count"), times(rows, "last"));
        let numbers = rows.column_by_name(NUMBER).expect("stored with numbers");
        let numbers = numbers.as_primitive::<UInt32Type>();
        let mut value = Vec::new();
        for row in 0..rows.num_rows() {
            let counted = Counted {
                count: counts.value(row),
                last: lasts.value(row),
                part: part as u32,
                number: numbers.value(row),
            };
            let numbers = &mut self.parts[part];
            numbers.rows += 1;
            numbers.end = numbers.end.max(counted.number as usize + 1);
            value.clear();
            value.extend_from_slice(occurred.row(row).data());
            value.extend_from_slice(&counted.encode());
            self.sorter.add(deeds.row(row).data(), &value)?;
        }
        Ok(())
    }

    /// Each once, with its number.
    pub(crate) fn end(self) -> Result<Merged, LakeError> {
        // rows are numbered from 0 on: what a file says must not decide how much memory this takes
        if self.parts.iter().any(|part| part.end > part.rows) {
            return Err(LakeError::Damaged {
                what: "a behaviour's number lies outside of its table".to_owned(),
            });
        }
        let map = |part: &Numbers| vec![u32::MAX; part.end];
        let mut maps: Vec<Vec<u32>> = self.parts.iter().map(map).collect();
        let ranks = Coding::of_ranks()?;
        let beside = Coding::named(&BESIDE)?;
        let mut sorter = Sorter::new(&self.dir, self.most);
        let mut found = Found::default();
        let mut count = 0_u32;
        let rank = |found: &mut Found, sorter: &mut Sorter, first: u32| {
            let mut columns = self.deeds.columns(&found.deeds)?;
            columns.extend(self.occurred.columns(&found.occurred)?);
            let counts = UInt64Array::from(std::mem::take(&mut found.counts));
            let lasts = TimestampNanosecondArray::from(std::mem::take(&mut found.lasts));
            let names = DEEDS.iter().chain(&OCCURRED).copied().zip(columns);
            let added: [(&str, ArrayRef); 2] = [
                ("count", Arc::new(counts.clone())),
                ("last", Arc::new(lasts.with_timezone("+00:00"))),
            ];
            let rows = RecordBatch::try_from_iter_with_nullable(
                names.chain(added).map(|(name, c)| (name, c, true)),
            )?;
            let keys = ranks.of(&super::ranks(&rows, &counts)?)?;
            let values = beside.rows(&rows)?;
            let mut value = Vec::new();
            for row in 0..rows.num_rows() {
                value.clear();
                value.extend_from_slice(values.row(row).data());
                value.extend_from_slice(&(first + row as u32).to_le_bytes());
                sorter.add(keys.row(row).data(), &value)?;
            }
            *found = Found::default();
            Ok::<_, LakeError>(())
        };
        self.sorter.end()?.each(|deed, value| {
            let (occurred, counted) = Counted::split(value);
            if found.deeds.last().map(Vec::as_slice) != Some(deed) {
                if found.deeds.len() == BATCH_ROWS {
                    rank(&mut found, &mut sorter, count - BATCH_ROWS as u32)?;
                }
                // the first by time and leaf: so they come
                found.deeds.push(deed.to_vec());
                found.occurred.push(occurred.to_vec());
                found.counts.push(0);
                found.lasts.push(i64::MIN);
                count = count.checked_add(1).ok_or_else(too_many)?;
            }
            let at = found.deeds.len() - 1;
            found.counts[at] = found.counts[at].saturating_add(counted.count);
            found.lasts[at] = found.lasts[at].max(counted.last);
            maps[counted.part as usize][counted.number as usize] = count - 1;
            Ok(())
        })?;
        let rest = found.deeds.len() as u32;
        rank(&mut found, &mut sorter, count - rest)?;
        let sorted = sorter.end()?;
        let (mut numbers, mut next) = (vec![0; count as usize], 0);
        sorted.each(|_, value| {
            numbers[split_number(value).1 as usize] = next;
            next += 1;
            Ok(())
        })?;
        for place in maps.iter_mut().flatten().filter(|n| **n != u32::MAX) {
            *place = numbers[*place as usize];
        }
        Ok(Merged {
            ranks,
            beside,
            sorted,
            maps,
            count: count as usize,
        })
    }
}

fn too_many() -> LakeError {
    LakeError::Damaged {
        what: "more behaviours than numbers in one span".to_owned(),
    }
}

impl Merged {
    /// Hands over the rows, in order; `containers`: in how many each was done.
    pub(crate) fn each(
        &self,
        containers: &[u32],
        each: &mut dyn FnMut(RecordBatch) -> Result<(), LakeError>,
    ) -> Result<(), LakeError> {
        let (mut keys, mut values, mut next) = (Vec::new(), Vec::new(), 0_u32);
        let mut hand_over = |keys: &mut Vec<Vec<u8>>, values: &mut Vec<Vec<u8>>| {
            let first = next;
            next += keys.len() as u32;
            let rows = self.batch(keys, values, containers, first)?;
            keys.clear();
            values.clear();
            each(rows)
        };
        self.sorted.each(|key, value| {
            keys.push(key.to_vec());
            values.push(split_number(value).0.to_vec());
            match keys.len() {
                BATCH_ROWS => hand_over(&mut keys, &mut values),
                _ => Ok(()),
            }
        })?;
        match keys.is_empty() {
            true => Ok(()),
            false => hand_over(&mut keys, &mut values),
        }
    }

    fn batch(
        &self,
        keys: &[Vec<u8>],
        values: &[Vec<u8>],
        containers: &[u32],
        first: u32,
    ) -> Result<RecordBatch, LakeError> {
        let (ranks, beside) = (self.ranks.columns(keys)?, self.beside.columns(values)?);
        let ranked = RANKED.map(|(at, name)| (name, ranks[at].clone()));
        let known = ranked.into_iter().chain(BESIDE.into_iter().zip(beside));
        let known = RecordBatch::try_from_iter_with_nullable(known.map(|(n, c)| (n, c, true)))?;
        let numbers = first..first + keys.len() as u32;
        let schema = Table::Fingerprints.stored();
        let column = |name: &str| -> ArrayRef {
            match name {
                "containers" => {
                    let counted = numbers.clone().map(|n| u64::from(containers[n as usize]));
                    Arc::new(counted.collect::<UInt64Array>())
                }
                NUMBER => Arc::new(UInt32Array::from_iter_values(numbers.clone())),
                MARK => Arc::new(marks(&known)),
                name => known.column_by_name(name).expect("a column").clone(),
            }
        };
        let columns = schema.fields().iter().map(|f| column(f.name())).collect();
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// First occurrences that become rows at once.
#[derive(Default)]
struct Found {
    deeds: Vec<Vec<u8>>,
    occurred: Vec<Vec<u8>>,
    counts: Vec<u64>,
    lasts: Vec<i64>,
}

/// Columns as bytes that compare as their rows do.
struct Coding {
    names: Vec<&'static str>,
    converter: RowConverter,
}

impl Coding {
    fn named(names: &[&'static str]) -> Result<Self, ArrowError> {
        let schema = Table::Fingerprints.stored();
        let field = |name: &&str| {
            let field = schema.field_with_name(name)?;
            Ok(SortField::new(field.data_type().clone()))
        };
        let fields: Result<Vec<_>, ArrowError> = names.iter().map(field).collect();
        Ok(Self {
            names: names.to_vec(),
            converter: RowConverter::new(fields?)?,
        })
    }

    fn of_ranks() -> Result<Self, ArrowError> {
        let none = RecordBatch::new_empty(Table::Fingerprints.stored());
        let columns = ranks(&none, &UInt64Array::from(Vec::<u64>::new()))?;
        let of = |c: &ArrayRef| -> DataType { c.data_type().clone() };
        let fields = columns.iter().map(|c| SortField::new(of(c))).collect();
        Ok(Self {
            names: Vec::new(),
            converter: RowConverter::new(fields)?,
        })
    }

    fn rows(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        let column = |name: &&str| rows.column_by_name(name).expect("a column").clone();
        self.of(&self.names.iter().map(column).collect::<Vec<_>>())
    }

    fn of(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(columns)
    }

    fn columns(&self, rows: &[Vec<u8>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let parser = self.converter.parser();
        self.converter
            .convert_rows(rows.iter().map(|row| parser.parse(row)))
    }
}

/// What one part says of a behaviour.
struct Counted {
    count: u64,
    last: i64,
    part: u32,
    number: u32,
}

impl Counted {
    const BYTES: usize = 24;

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut all = [0; Self::BYTES];
        all[..8].copy_from_slice(&self.count.to_le_bytes());
        all[8..16].copy_from_slice(&self.last.to_le_bytes());
        all[16..20].copy_from_slice(&self.part.to_le_bytes());
        all[20..].copy_from_slice(&self.number.to_le_bytes());
        all
    }

    /// What was encoded, and what is before it.
    fn split(value: &[u8]) -> (&[u8], Self) {
        let (rest, own) = value
            .split_last_chunk::<{ Self::BYTES }>()
            .expect("encoded so");
        let long = |at: usize| *own[at..].first_chunk().expect("eight bytes");
        let short = |at: usize| *own[at..].first_chunk().expect("four bytes");
        let counted = Self {
            count: u64::from_le_bytes(long(0)),
            last: i64::from_le_bytes(long(8)),
            part: u32::from_le_bytes(short(16)),
            number: u32::from_le_bytes(short(20)),
        };
        (rest, counted)
    }
}

fn split_number(value: &[u8]) -> (&[u8], u32) {
    let (rest, number) = value.split_last_chunk::<4>().expect("encoded so");
    (rest, u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::super::{Containers, Split, renumber, split};
    use super::*;
    use crate::columns::{Rows, Value};
    use crate::write::sorted;
    use datafusion::arrow::compute::concat_batches;

    /// Acts of these leaves: of many containers, often and rarely, some without a script.
    fn acts(leaves: std::ops::Range<u64>) -> RecordBatch {
        let mut rows = Rows::new(Table::Behaviours);
        for leaf in leaves {
            let at = leaf.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            let object = match at % 3 {
                0 => format!("/tmp/once-{leaf}"),
                _ => format!("/srv/{}", at % 41),
            };
            let text = |text: &str| Value::text(text.to_owned());
            let time = Value::Time((leaf as i64 * 7) % 1_000);
            rows.push(&[
                time.clone(),
                text(["web", "db", ""][(at % 3) as usize]),
                text(&format!("{:032x}", at % 41)),
                text("file"),
                text(["/bin/sh", "/usr/sbin/nginx"][(at % 2) as usize]),
                text(["", "/x.sh"][(at % 5 == 0) as usize]),
                text("init"),
                Value::U64(at % 4),
                text("read"),
                text(&object),
                text("image"),
                Value::U64(1 + at % 5),
                Value::U64(9),
                text("observed"),
                Value::opt(Some(leaf as i64 * 9).filter(|_| at % 7 == 0), Value::Time),
                text(&format!("c{}", at % 13)),
                Value::U64(at % 13),
                text("image"),
                text(["", "sha256:1", "sha256:2"][(at % 13 % 3) as usize]),
                text("node1"),
                Value::U64(leaf),
            ]);
        }
        sorted(Table::Behaviours, &rows.take().unwrap()).unwrap()
    }

    fn merging(dir: &Path, most: usize, parts: &[Split]) -> Merged {
        let mut merging = Merging::new(dir, most).unwrap();
        for part in parts {
            merging.next_part();
            let rows = part.fingerprints.num_rows();
            for at in (0..rows).step_by(100) {
                let some = part.fingerprints.slice(at, 100.min(rows - at));
                merging.add(&some).unwrap();
            }
        }
        merging.end().unwrap()
    }

    #[test]
    fn parts_become_what_their_rows_at_once_would_have_been() {
        let dir = tempfile::tempdir().unwrap();
        let whole = split(&acts(0..20_000)).unwrap();
        let ends = [0, 3_000, 3_001, 12_000, 20_000];
        let parts = ends.windows(2).map(|w| split(&acts(w[0]..w[1])).unwrap());
        let parts: Vec<Split> = parts.collect();
        for most in [20_000, usize::MAX] {
            let merged = merging(dir.path(), most, &parts);
            assert_eq!(merged.count, whole.fingerprints.num_rows());
            let renumbered = parts.iter().zip(&merged.maps);
            let renumbered: Vec<RecordBatch> = renumbered
                .map(|(part, map)| renumber(&part.rows, map).unwrap())
                .collect();
            let rows = concat_batches(&Table::Behaviours.stored(), &renumbered).unwrap();
            let rows = sorted(Table::Behaviours, &rows).unwrap();
            assert_eq!(rows, whole.rows, "each row names what it did");
            let mut containers = Containers::new(merged.count);
            containers.add(&rows);
            let mut told = Vec::new();
            let take = &mut |rows: RecordBatch| {
                assert!(rows.num_rows() <= BATCH_ROWS);
                told.push(rows);
                Ok(())
            };
            merged.each(containers.counts(), take).unwrap();
            let told = concat_batches(&Table::Fingerprints.stored(), &told).unwrap();
            assert_eq!(told, whole.fingerprints);
        }
    }

    #[test]
    fn a_number_that_its_table_has_not_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let told = split(&acts(0..100)).unwrap().fingerprints;
        let mut merging = Merging::new(dir.path(), usize::MAX).unwrap();
        merging.next_part();
        // as if the rows before these were not there
        merging.add(&told.slice(1, told.num_rows() - 1)).unwrap();
        let refused = merging.end().err();
        assert!(matches!(refused, Some(LakeError::Damaged { .. })));
    }

    #[test]
    fn however_many_there_are_no_more_than_the_bound_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        for count in [4_000, 16_000] {
            let merged = merging(dir.path(), 30_000, &[split(&acts(0..count)).unwrap()]);
            let sorter = merged.sorted.sorter();
            assert!(sorter.held_most <= 30_000, "{}", sorter.held_most);
            assert!(sorter.laid as u64 > count / 400, "{}", sorter.laid);
        }
    }
}
