//! The journal: where Plimsoll's evidence becomes durable.
//!
//! An append-only log of records. Each record is a *leaf* (a fixed-form header and the
//! salted hash of its payload) in a leaf segment, and a payload in a file of its
//! retention class. Retention deletes payload files and never a leaf, so a hash tree
//! over the leaves stays whole. The bytes are documented in `docs/formats/journal.md`.
//!
//! What it promises:
//!
//! - What was acknowledged as durable survives `kill -9`, power loss and a full disk.
//! - A leaf index, once acknowledged, is never given to another record.
//! - Nothing unreadable is overwritten: torn tails are set aside, damage is reported
//!   and left in place, foreign or newer files stop the opening.
//! - What could not be kept is counted ([`Loss`]), so that the caller can record the gap.
//! - Queues, batches, payloads and reports have stated bounds.
//!
//! What it leaves out: the meaning of payloads (opaque bytes), the hash tree and its
//! checkpoints, the query lake, and any decision about what should be kept. It prints
//! nothing and reads the clock only through [`Clock`].
//!
//! ```
//! use plimsoll_evidence::{Journal, Options, Record, Reader, RetentionClass};
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("journal");
//! let (mut journal, recovery) = Journal::open(&dir, Options::new("node-1"))?;
//! assert!(recovery.is_clean());
//! let alert = Record::new(7, RetentionClass::ALERT, b"shell in database".to_vec());
//! let durable = journal.append_durable(alert)?;
//! let entry = Reader::open(&dir)?.get(durable.leaf)?.expect("just made durable");
//! assert_eq!(entry.payload.bytes(), Some(&b"shell in database"[..]));
//! assert_eq!(journal.id(durable.leaf).to_string(), "node-1@0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod batch;
mod beside;
mod bundle;
mod checkpoint;
mod clock;
mod disk;
mod emergency;
mod epoch;
mod error;
mod format;
mod hold;
mod index;
mod journal;
mod loss;
pub mod merkle;
pub mod note;
mod pack;
mod paths;
mod proof;
mod reader;
mod record;
mod recover;
mod retain;
mod seal;
mod store;
mod thin;
mod tiles;
mod tlog;
mod tombstone;
mod verify;
mod writer;

pub use bundle::{
    BUNDLE_RECORDS_MAX, Bundle, BundleError, BundleParts, BundleSummary, write_bundle,
};
pub use checkpoint::{Certificate, Checkpoint, KeyChain};
pub use clock::{Clock, SystemClock};
pub use disk::{DirItem, Disk, DiskFile, OpenMode, RealDisk};
pub use error::{AppendError, OpenError, ReadError, RetainError};
pub use hold::{HOLD_NAMES_MAX, HOLDS_MAX, Hold, HoldError};
pub use journal::{
    Ack, Durable, Entropy, Health, Journal, MAX_PAYLOAD_BYTES, Options, Place, SUBTREE_LEAVES,
};
pub use loss::{Loss, LossReason};
pub use pack::Packed;
pub use reader::{Entry, Filter, Follow, Payload, Picked, Picker, Reader, Scan, ScrubReport, Tail};
pub use record::{Header, InstanceKey, LEAF_BYTES, Leaf, Record, RecordId, RetentionClass};
pub use recover::{Damage, EmergencyReport, Preserved, Recovery, Torn};
pub use retain::{Prune, PruneReason, Pruned, RetentionPolicy, RetentionRule};
pub use seal::{EPOCH_KEY_KIND, SealStatus, Sealing, exported_key, key_name};
pub use tombstone::Tombstone;
pub use verify::{Fault, Problem, VerifyOptions, VerifyReport, verify, verify_on};
pub use writer::{JournalWriter, QueueBounds, SubmitError, WriterStatus};
