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
//! - Anyone with the public key can tell whether anything under a checkpoint was changed
//!   ([`verify()`]), with nothing but a copy of the directory or a bundle.
//!
//! What it leaves out: the meaning of payloads (opaque bytes), the query lake, and any
//! decision about what should be kept. It prints nothing and reads the clock only through
//! [`Clock`].
//!
//! | module | what it is |
//! |---|---|
//! | `journal`, `writer` | accepting records, and the thread that commits them in groups |
//! | `batch`, `store`, `together`, `emergency` | a commit; the files that it grows; their sync at once; where alerts go when the disk refuses |
//! | `record`, `format`, `frames`, `meta`, `paths` | what a record is, and how it lies on disk |
//! | `recover` | opening after any end |
//! | `reader`, `filter`, `index` | reading, live or copied |
//! | `merkle`, `tiles`, `tlog`, `proof` | the hash tree and its proofs |
//! | `seal`, `epoch`, `checkpoint`, `note`, `thin` | checkpoints, hourly keys, which checkpoints stay |
//! | `retain`, `tombstone`, `hold`, `loss` | removing payloads under the tree, and what keeps them; what was lost |
//! | `verify`, `bundle`, `pack`, `beside` | what a third party checks; what leaves the machine |
//! | `disk`, `clock` | the seams: faults and time in tests |
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
mod durable;
mod emergency;
mod epoch;
mod error;
mod filter;
mod format;
mod frames;
mod hold;
mod index;
mod journal;
mod loss;
pub mod merkle;
mod meta;
pub mod note;
mod options;
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
mod together;
mod tombstone;
mod verify;
mod writer;

pub use bundle::{
    BUNDLE_RECORDS_MAX, Bundle, BundleError, BundleParts, BundleSummary, write_bundle,
};
pub use checkpoint::{Certificate, Checkpoint, KeyChain};
pub use clock::{Clock, SystemClock};
pub use disk::{DirItem, Disk, DiskFile, OpenMode, RealDisk};
pub use durable::{Ack, Durable, Place};
pub use error::{AppendError, OpenError, ReadError, RetainError};
pub use filter::Filter;
pub use hold::{HOLD_NAMES_MAX, HOLDS_MAX, Hold, HoldError};
pub use journal::{Health, Journal};
pub use loss::{Loss, LossReason};
pub use options::{Entropy, MAX_PAYLOAD_BYTES, Options, SUBTREE_LEAVES, Sealing};
pub use pack::Packed;
pub use reader::{Entry, Follow, Payload, Picked, Picker, Reader, Scan, ScrubReport, Tail};
pub use record::{Header, InstanceKey, LEAF_BYTES, Leaf, Record, RecordId, RetentionClass};
pub use recover::{Damage, EmergencyReport, Preserved, Recovery, Torn};
pub use retain::{Prune, PruneReason, Pruned, RetentionPolicy, RetentionRule};
pub use seal::{EPOCH_KEY_KIND, SealStatus, exported_key, key_name};
pub use tombstone::Tombstone;
pub use verify::{Fault, Problem, VerifyOptions, VerifyReport, verify, verify_on};
pub use writer::{After, JournalWriter, QueueBounds, SubmitError, WriterStatus};
