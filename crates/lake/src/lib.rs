//! The query lake: Parquet files made from the journal, and SQL over them and the journal's tail.
//!
//! The journal stays the source of truth; the lake is a copy that is quick to ask. Rows name the
//! leaf that shows them, each file's digest can be made a leaf, and all of it can be made again
//! while the journal keeps its payloads. Bytes: `docs/formats/lake.md`; tables for people:
//! `docs/guide/query.md`.
//!
//! Promises:
//! - Every record of a kind that has a table is in that table: in a sealed file, or, from leaves
//!   that no file covers, read from the journal when asked.
//! - What is damaged or missing is found before a statement runs on it, or ends it, and is made
//!   again.
//! - A statement changes nothing, and ends within the time and memory that it was given.
//!
//! Left out on purpose: opening the journal and coding behaviours (whoever joins the crates hands
//! both over), who may ask, and how rows are shown.
#![forbid(unsafe_code)]

mod build;
mod columns;
mod export;
mod fingerprints;
mod journal;
mod leaves;
mod merge;
mod query;
mod rows;
mod scan;
mod seal;
mod short;
mod sorter;
mod store;
mod table;
mod tables;
mod widen;
mod write;

pub use build::{Built, Contents};
pub use datafusion::arrow;
pub use export::ParquetFile;
pub use journal::{Body, Coder, Entry, Journal, JournalError, PIECE_LEAVES, SPAN_LEAVES};
pub use leaves::{Copied, Copies, LIST_LEAVES, LeafFile, LeafIndex, LeafLists, LeafWriter};
pub use query::{Limits, Looked, SQL_BYTES_MAX, Take};
pub use seal::{MERGED_SPANS, Seal, SealedFile};
pub use tables::{Column, LAYOUT_VERSION, Table, Type};

use datafusion::error::DataFusionError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// Why the lake could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The lake's directory.
    #[error("cannot use the lake in {}", dir.display())]
    Directory {
        /// Where.
        dir: PathBuf,
        /// What the disk says.
        #[source]
        source: std::io::Error,
    },
    /// The journal.
    #[error("cannot read the journal")]
    Journal(#[source] JournalError),
    /// The place of the files.
    #[error("cannot reach the lake's files")]
    Store(#[from] object_store::Error),
    /// A file of the lake is not what its seal says; it can be made again.
    #[error("the lake is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The statement would change something.
    #[error("only statements that read are taken: {why}")]
    Refused {
        /// Which part.
        why: String,
    },
    /// The statement needs more memory than it was given.
    #[error("the statement needs more memory than it may use: {what}")]
    Memory {
        /// Who needed it.
        what: String,
    },
    /// The statement took longer than it was given.
    #[error("the statement did not end within {} s", limit.as_secs_f32())]
    Time {
        /// What it was given.
        limit: Duration,
    },
    /// The statement is no SQL, or names what is not there.
    #[error("the statement cannot be run: {why}")]
    Statement {
        /// Where it goes wrong.
        why: String,
    },
    /// The engine failed on it.
    #[error(transparent)]
    Engine(Box<DataFusionError>),
    /// Threads could not be started, or the directory for what does not fit not be made.
    #[error("cannot start the query engine")]
    Start {
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The engine ended without a result.
    #[error("the query engine ended without a result")]
    Ended,
    /// Whoever takes the rows does not want more.
    #[error("the rows could not be written")]
    Output(#[source] JournalError),
}

impl LakeError {
    fn from_journal(error: JournalError) -> Self {
        match error.downcast::<LakeError>() {
            Ok(ours) => *ours,
            Err(error) => LakeError::Journal(error),
        }
    }
}

impl From<DataFusionError> for LakeError {
    fn from(error: DataFusionError) -> Self {
        LakeError::from_sql(error)
    }
}
impl From<arrow::error::ArrowError> for LakeError {
    fn from(error: arrow::error::ArrowError) -> Self {
        LakeError::from_sql(error.into())
    }
}
impl From<datafusion::parquet::errors::ParquetError> for LakeError {
    fn from(error: datafusion::parquet::errors::ParquetError) -> Self {
        LakeError::from_sql(error.into())
    }
}

/// The lake of one journal.
pub struct Lake {
    store: Store,
    contents: Contents,
}

impl Lake {
    /// Opens the lake in a directory, which is made when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, origin: &str) -> Result<Self, LakeError> {
        Self::on(Store::local(dir)?, origin)
    }

    /// Opens the lake in any object store whose calls need no runtime of their own.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn over(
        objects: Arc<dyn object_store::ObjectStore>,
        origin: &str,
    ) -> Result<Self, LakeError> {
        Self::on(Store::over(objects), origin)
    }

    fn on(store: Store, origin: &str) -> Result<Self, LakeError> {
        let contents = wait(build::contents(&store, origin))?;
        Ok(Self { store, contents })
    }

    /// A lake without files: every row comes from the journal.
    pub fn none() -> Self {
        let objects = Arc::new(object_store::memory::InMemory::new());
        Self {
            store: Store::over(objects),
            contents: Contents::default(),
        }
    }

    /// What it holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Makes what is missing, and fewer files of many; tells of each step. `false`: another
    /// process is at it.
    ///
    /// # Errors
    /// When the journal cannot be read or the files cannot be written. What was sealed by then
    /// stands.
    pub fn build(
        &mut self,
        journal: &dyn Journal,
        each: &mut dyn FnMut(&Built),
    ) -> Result<bool, LakeError> {
        // most who ask find it made
        if !build::is_due(journal, &self.contents)? {
            return Ok(true);
        }
        let Some(_lock) = self.store.lock()? else {
            return Ok(false);
        };
        // another builder may have been here before the lock was ours
        self.contents = wait(build::contents(&self.store, journal.origin()))?;
        while let Some(built) = wait(build::step(&self.store, journal, &mut self.contents))? {
            each(&built);
        }
        Ok(true)
    }

    /// Reads every file and compares it with its seal. Those that differ are made again by the
    /// next [`Self::build`]; their names.
    ///
    /// # Errors
    /// When the place of the files cannot be reached.
    pub fn check(&mut self) -> Result<Vec<String>, LakeError> {
        let bad = wait(build::differing(&self.store, &self.contents.seals))?;
        for name in &bad {
            wait(self.store.remove(name))?;
        }
        let origin = self.contents.seals.first().map(|s| s.origin.clone());
        if let Some(origin) = origin.filter(|_| !bad.is_empty()) {
            self.contents = wait(build::contents(&self.store, &origin))?;
        }
        Ok(bad
            .into_iter()
            .filter(|name| name.ends_with(".parquet"))
            .collect())
    }

    /// Forgets a span, so that the next [`Self::build`] makes it again.
    ///
    /// # Errors
    /// When its seal cannot be removed.
    pub fn forget(&mut self, seal: &Seal) -> Result<(), LakeError> {
        self.contents.seals.retain(|s| s != seal);
        wait(self.store.remove(&seal.name()))
    }

    /// Forgets every file, so that the next [`Self::build`] makes all of them again.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&mut self) -> Result<(), LakeError> {
        let mut all = std::mem::take(&mut self.contents.rest);
        for seal in std::mem::take(&mut self.contents.seals) {
            // seals first: see `build`
            all.insert(0, seal.name());
            all.extend(seal.files.iter().map(|f| seal.file_name(&f.table)));
            all.push(seal::known_name(seal.end));
        }
        for name in all {
            wait(self.store.remove(&name))?;
        }
        Ok(())
    }

    /// Runs one statement. `each` is called once with the columns and no rows, then with rows.
    ///
    /// # Errors
    /// When the statement is wrong, refused, or needs more than `limits`; when a file is damaged;
    /// when `each` fails.
    pub fn query(
        &self,
        journal: Arc<dyn Journal>,
        sql: &str,
        limits: &Limits,
        each: &mut Take<'_>,
    ) -> Result<Looked, LakeError> {
        query::query(&self.store, &self.contents, journal, sql, limits, each)
    }
}

/// The local store answers without a runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}
