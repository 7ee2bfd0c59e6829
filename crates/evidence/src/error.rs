//! Failures, each named for the operation that failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::{FORMAT_VERSION, HeaderFault};
use crate::record::RetentionClass;

/// Why a journal could not be opened; nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process writes here.
    #[error(
        "journal {dir} is in use by {}: stop it, or give another data directory",
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        dir = dir.display()
    )]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
        /// The holder, as it wrote into the lock file.
        pid: Option<u32>,
    },
    /// The directory or file is not part of this journal.
    #[error("{path} is not part of this journal ({why}): move it away, or give another data directory", path = path.display())]
    Foreign {
        /// What was found.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer program.
    #[error("{path} has format version {found}, this program reads up to {supported}: use the newer program, or give another data directory", path = path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this program reads.
        supported: u16,
    },
    /// The file that names the store is altered.
    #[error("{path} is damaged ({why}): restore it from a copy; records cannot be attributed without it", path = path.display())]
    DamagedMeta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The journal belongs to another node.
    #[error("journal {dir} belongs to origin {stored:?}, not {given:?}: give another data directory, or the right origin", dir = dir.display())]
    WrongOrigin {
        /// The journal's directory.
        dir: PathBuf,
        /// The origin it was made for.
        stored: String,
        /// The origin that was asked for.
        given: String,
    },
    /// An option is outside its bounds.
    #[error("journal option {option}: {why}")]
    BadOption {
        /// The option's name.
        option: &'static str,
        /// What was expected.
        why: &'static str,
    },
    /// The disk refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
}

/// Why a record was not appended, or not made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Larger than any record may be.
    #[error("payload of {bytes} bytes exceeds the bound of {max}")]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The journal could not take the record; it was counted as a loss.
    #[error("record of class {class} lost: {why}")]
    Lost {
        /// The record's class.
        class: RetentionClass,
        /// The failure behind it.
        why: String,
    },
    /// The record had to be durable, and neither journal nor emergency segment took it.
    #[error("record is not durable: journal: {journal}; emergency segment: {emergency}")]
    NotDurable {
        /// The journal's failure.
        journal: String,
        /// The emergency segment's failure.
        emergency: String,
    },
    /// No random bytes for the salt; the record was counted as a loss.
    #[error("no random bytes for the salt: {0}")]
    Entropy(String),
    /// The writer's queue is at its bound.
    #[error("the journal's queue is full")]
    QueueFull,
    /// The writer has stopped.
    #[error("the journal writer has stopped")]
    Stopped,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The leaf's frame is altered.
    #[error("leaf {leaf} is damaged in {path}", path = path.display())]
    DamagedLeaf {
        /// Which leaf.
        leaf: u64,
        /// In which file.
        path: PathBuf,
    },
    /// Leaves that were acknowledged are not there.
    #[error("leaves {first} to {last} are missing")]
    MissingLeaves {
        /// The first one missing.
        first: u64,
        /// The last one missing.
        last: u64,
    },
    /// The hashes that there are do not lead to the root that was asked for.
    #[error(
        "tree and records do not match the checkpoint of {size} records: `plimsoll evidence verify` says where"
    )]
    NoProof {
        /// Size of the tree.
        size: u64,
    },
    /// The disk refused.
    #[error("cannot read {path}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
}

/// Why retention stopped; what it had deleted is behind a durable tombstone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// The range is not one that can be pruned (not whole, not past, or already gone).
    #[error("class {class} of leaves {first} to {end} cannot be pruned: {why}")]
    NotPrunable {
        /// The class.
        class: RetentionClass,
        /// First leaf of the range.
        first: u64,
        /// End of the range, exclusive.
        end: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The tombstone is not durable, so nothing was deleted.
    #[error("tombstone not durable, nothing deleted")]
    Tombstone(#[source] AppendError),
    /// Records are held, and no checkpoint could be made over their copies; nothing deleted.
    #[error("held records could not be sealed, nothing deleted: {0}")]
    Unsealed(String),
    /// The leaves could not be read.
    #[error("cannot read the leaves of the range")]
    Read(#[from] ReadError),
    /// The disk refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
}

/// Makes the error of what was done to `path` when it failed.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io {
        doing,
        path,
        source,
    }
}

/// What a header that cannot be read says of its file.
pub(crate) fn header_error(path: &Path, fault: HeaderFault) -> OpenError {
    let path = path.to_path_buf();
    match fault {
        HeaderFault::Newer(found) => OpenError::NewerFormat {
            path,
            found,
            supported: FORMAT_VERSION,
        },
        _ => OpenError::Foreign {
            path,
            why: "it does not begin as a journal file".to_owned(),
        },
    }
}
