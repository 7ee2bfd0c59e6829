//! Parquet files as the engine reads them.

use crate::tables::Table;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// Where the engine finds the lake's files.
pub(crate) fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("lake://files").expect("a constant address")
}

/// Files of one table, in groups that are read side by side.
pub(crate) struct Files {
    table: Table,
    groups: Vec<Vec<PartitionedFile>>,
}

impl Files {
    pub(crate) fn new(table: Table, groups: Vec<Vec<PartitionedFile>>) -> Self {
        Self { table, groups }
    }

    /// The same number of files in each of at most `count` groups.
    pub(crate) fn spread(table: Table, files: Vec<PartitionedFile>, count: usize) -> Self {
        let mut groups = vec![Vec::new(); count.clamp(1, files.len().max(1))];
        let count = groups.len();
        for (n, file) in files.into_iter().enumerate() {
            groups[n % count].push(file);
        }
        Self::new(table, groups)
    }

    /// Reads the columns named, of rows for which `condition` is true.
    pub(crate) fn read(
        self,
        condition: Option<Arc<dyn PhysicalExpr>>,
        columns: Option<&[&str]>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut options = TableParquetOptions::default();
        options.global.pushdown_filters = true;
        options.global.reorder_filters = true;
        options.global.bloom_filter_on_read = true;
        options.global.enable_page_index = true;
        // our schema is the files' schema
        options.global.skip_metadata = false;
        let schema = self.table.stored();
        let mut source = ParquetSource::new(schema.clone()).with_table_parquet_options(options);
        if let Some(condition) = condition {
            source = source.with_predicate(condition);
        }
        let indices = columns
            .map(|c| c.iter().map(|name| schema.index_of(name)).collect())
            .transpose()?;
        let scan = FileScanConfigBuilder::new(store_url(), Arc::new(source))
            .with_file_groups(self.groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(indices)?
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
