//! Rows become a Parquet file: sorted, with statistics and bloom filters.

use crate::LakeError;
use crate::seal::{NAMED_MAX, SealedFile};
use crate::store::{Store, Unfinished};
use crate::tables::{MARK, NUMBER, Table, Type};
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch, TimestampNanosecondArray};
use datafusion::arrow::compute::{SortColumn, lexsort_to_indices, max, min, take_record_batch};
use datafusion::arrow::datatypes::TimestampNanosecondType;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use datafusion::parquet::schema::types::ColumnPath;
use std::collections::BTreeSet;

/// Rows of one row group: what a bloom filter and statistics can rule out at once.
const GROUP_ROWS: usize = 131_072;
/// Rows of one page.
const PAGE_ROWS: usize = 8192;
/// A dictionary may grow to this: beyond, every value is written out.
const DICTIONARY_BYTES: usize = 8 << 20;
/// Slower to write and no slower to read than the customary 3, and files are written once.
const ZSTD_LEVEL: i32 = 9;

/// A table's file in the making, for rows that come in order.
pub(crate) struct Writing {
    table: Table,
    store: Store,
    name: String,
    /// Begun with the first row.
    writer: Option<ArrowWriter<Unfinished>>,
    rows: u64,
    from: i64,
    to: i64,
    containers: Names,
    names: Names,
}

impl Writing {
    /// Under a name in a store.
    pub(crate) fn new(store: &Store, name: String, table: Table) -> Self {
        Self {
            table,
            store: store.clone(),
            name,
            writer: None,
            rows: 0,
            from: i64::MAX,
            to: i64::MIN,
            containers: Names::new("container"),
            names: Names::new("container_name"),
        }
    }

    pub(crate) fn rows(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let times: &TimestampNanosecondArray = rows
            .column_by_name("time")
            .expect("every table has a time")
            .as_primitive::<TimestampNanosecondType>();
        self.from = min(times).unwrap_or(i64::MIN).min(self.from);
        self.to = max(times).unwrap_or(i64::MAX).max(self.to);
        self.rows += rows.num_rows() as u64;
        self.containers.add(rows);
        self.names.add(rows);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = self.store.create(&self.name)?;
                let properties = properties(self.table);
                none.insert(ArrowWriter::try_new(
                    file,
                    self.table.stored(),
                    Some(properties),
                )?)
            }
        };
        Ok(writer.write(rows)?)
    }

    /// The file in its place, and what its seal says of it. `None`: no rows.
    pub(crate) async fn end(self) -> Result<Option<SealedFile>, LakeError> {
        let Some(writer) = self.writer else {
            return Ok(None);
        };
        let (bytes, sha256) = self.store.keep(writer.into_inner()?).await?;
        Ok(Some(SealedFile {
            table: self.table.name().to_owned(),
            bytes,
            rows: self.rows,
            sha256,
            from: self.from,
            to: self.to,
            containers: self.containers.all(),
            names: self.names.all(),
        }))
    }
}

/// The values of one column, if they are not too many to name.
struct Names {
    column: &'static str,
    found: Option<BTreeSet<String>>,
}

impl Names {
    fn new(column: &'static str) -> Self {
        Self {
            column,
            found: Some(BTreeSet::new()),
        }
    }

    fn add(&mut self, rows: &RecordBatch) {
        let values = rows.column_by_name(self.column).expect("a common column");
        let values = values.as_string_view();
        let mut before = None;
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = values.value(row);
            // rows of one container come together
            if before.replace(value) == Some(value) {
                continue;
            }
            let Some(found) = &mut self.found else { return };
            if !found.contains(value) {
                found.insert(value.to_owned());
            }
            if found.len() > NAMED_MAX {
                self.found = None;
            }
        }
    }

    fn all(self) -> Option<Vec<String>> {
        Some(self.found?.into_iter().collect())
    }
}

/// Rows in the order of their table.
pub(crate) fn sorted(table: Table, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
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
    take_record_batch(rows, &indices)
}

fn properties(table: Table) -> WriterProperties {
    let mut p = WriterProperties::builder()
        .set_created_by("plimsoll lake".to_owned())
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(ZSTD_LEVEL).expect("a level of zstd"),
        ))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for field in table.stored().fields() {
        let path = ColumnPath::from(field.name().as_str());
        let plain = match field.name().as_str() {
            // neighbours differ little: their differences are small, a dictionary is not
            "time" | "leaf" | "last" => Some(Encoding::DELTA_BINARY_PACKED),
            // each once in the short table
            NUMBER if table == Table::Fingerprints => Some(Encoding::DELTA_BINARY_PACKED),
            "object" if table == Table::Fingerprints => Some(Encoding::DELTA_BYTE_ARRAY),
            // nothing is alike in them
            MARK => Some(Encoding::PLAIN),
            // small numbers of one image: the high bytes of a page are nearly equal
            NUMBER => Some(Encoding::BYTE_STREAM_SPLIT),
            _ => None,
        };
        if let Some(encoding) = plain {
            p = p
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), encoding);
        }
        if matches!(field.name().as_str(), "time" | "container" | "behaviour") {
            p = p.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
    }
    let named = table.columns().filter(|c| c.bloom && c.of == Type::Text);
    let mark = (table == Table::Fingerprints).then_some(MARK);
    for name in named.map(|c| c.name).chain(mark) {
        // made for a whole row group, and folded to what it holds when that is written
        let path = ColumnPath::from(name);
        p = p
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path, 0.01);
    }
    p.build()
}
