//! Rows of a result as a Parquet file, for other tools.

use crate::LakeError;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use std::fs::File;

/// A Parquet file being written.
pub struct ParquetFile(ArrowWriter<File>);

impl ParquetFile {
    /// Begins one with these columns.
    ///
    /// # Errors
    /// When a column has no form in Parquet.
    pub fn new(file: File, columns: &SchemaRef) -> Result<Self, LakeError> {
        let level = ZstdLevel::try_new(3).expect("a level of zstd");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .build();
        Ok(Self(ArrowWriter::try_new(
            file,
            columns.clone(),
            Some(properties),
        )?))
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        Ok(self.0.write(rows)?)
    }

    /// Ends it; all of it is durable then.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(self) -> Result<(), LakeError> {
        let file = self.0.into_inner()?;
        file.sync_all().map_err(|e| LakeError::Output(Box::new(e)))
    }
}
