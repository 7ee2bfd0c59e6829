//! Rows become a Parquet file: sorted, with statistics and bloom filters.

use crate::LakeError;
use crate::seal::{NAMED_MAX, SealedFile};
use crate::store::sha256;
use crate::tables::{Table, Type};
use datafusion::arrow::array::{
    Array as _, AsArray as _, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use datafusion::arrow::compute::{
    SortColumn, concat_batches, lexsort_to_indices, max, min, take_record_batch,
};
use datafusion::arrow::datatypes::TimestampNanosecondType;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use datafusion::parquet::schema::types::ColumnPath;
use std::collections::{BTreeSet, HashSet};

/// Rows of one row group: what a bloom filter and statistics can rule out at once.
const GROUP_ROWS: usize = 131_072;
/// Rows of one page.
const PAGE_ROWS: usize = 8192;

/// The file of a table's rows, and what its seal says of it. `None`: no rows.
pub(crate) fn file(
    table: Table,
    batches: &[RecordBatch],
) -> Result<Option<(SealedFile, Vec<u8>)>, LakeError> {
    let rows = concat_batches(&table.schema(), batches)?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let rows = sorted(table, &rows)?;
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties(table, &rows)))?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(Some((describe(table, &rows, &bytes), bytes)))
}

fn sorted(table: Table, rows: &RecordBatch) -> Result<RecordBatch, LakeError> {
    let by = |name: &&str| {
        let values = rows
            .column_by_name(name)
            .expect("the order names columns")
            .clone();
        SortColumn {
            values,
            options: None,
        }
    };
    let columns: Vec<SortColumn> = table.order().iter().map(by).collect();
    let indices = lexsort_to_indices(&columns, None)?;
    Ok(take_record_batch(rows, &indices)?)
}

fn properties(table: Table, rows: &RecordBatch) -> WriterProperties {
    let mut p = WriterProperties::builder()
        .set_created_by("plimsoll lake".to_owned())
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(3).expect("a level of zstd"),
        ))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        if matches!(column.name, "time" | "leaf" | "last") {
            // neighbours differ little: their differences are small, a dictionary is not
            p = p
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        }
        if matches!(column.name, "time" | "container" | "behaviour") {
            p = p.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
        if column.bloom && column.of == Type::Text {
            let distinct = distinct(
                rows.column_by_name(column.name)
                    .expect("a column")
                    .as_string_view(),
            );
            p = p
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), 0.01)
                .set_column_bloom_filter_ndv(path, distinct.max(16));
        }
    }
    p.build()
}

/// The most distinct values that a row group has: a filter made for more would be mostly empty.
fn distinct(values: &StringViewArray) -> u64 {
    let groups = (0..values.len()).step_by(GROUP_ROWS);
    let of = |at| {
        let group = values.slice(at, GROUP_ROWS.min(values.len() - at));
        group.iter().flatten().collect::<HashSet<&str>>().len() as u64
    };
    groups.map(of).max().unwrap_or(0)
}

fn describe(table: Table, rows: &RecordBatch, bytes: &[u8]) -> SealedFile {
    let times: &TimestampNanosecondArray = rows
        .column_by_name("time")
        .expect("every table has a time")
        .as_primitive::<TimestampNanosecondType>();
    let named = |column: &str| {
        let values = rows
            .column_by_name(column)
            .expect("a common column")
            .as_string_view();
        let mut names = BTreeSet::new();
        for name in values.iter().flatten() {
            if !names.contains(name) {
                if names.len() == NAMED_MAX {
                    return None;
                }
                names.insert(name);
            }
        }
        Some(names.into_iter().map(str::to_owned).collect())
    };
    SealedFile {
        table: table.name().to_owned(),
        bytes: bytes.len() as u64,
        rows: rows.num_rows() as u64,
        sha256: sha256(bytes),
        from: min(times).unwrap_or(i64::MIN),
        to: max(times).unwrap_or(i64::MAX),
        containers: named("container"),
        names: named("container_name"),
    }
}
