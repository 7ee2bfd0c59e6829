//! How a journal is opened, and its fixed bounds.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, RealDisk};

/// The largest payload of one record, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Leaves of one subtree, the unit of retention.
pub const SUBTREE_LEAVES: u32 = 65_536;

/// Fills a buffer with unpredictable bytes, or says why it cannot.
pub type Entropy = Box<dyn FnMut(&mut [u8]) -> Result<(), String> + Send>;

/// How a journal is opened.
pub struct Options {
    /// The node's id, at most 255 bytes; fixed when the journal is made.
    pub origin: String,
    /// Leaves of one subtree, a power of two from 2; fixed when the journal is made.
    pub subtree_leaves: u32,
    /// Size of the emergency segment in bytes, from 12 KiB.
    pub emergency_bytes: u64,
    /// A batch is committed when it reaches this many bytes.
    pub batch_bytes: usize,
    /// How long to wait before trying a disk that refused again, milliseconds.
    pub retry_ms: u64,
    /// This boot's id: boot-clock times of one segment all belong to it.
    pub boot_id: [u8; 16],
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where salts come from.
    pub entropy: Entropy,
    /// Whether and how the journal is sealed: hash tree, checkpoints, keys.
    pub sealing: Option<Sealing>,
}

impl Options {
    /// The machine's disk, clocks and random numbers, and the default bounds.
    pub fn new(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            subtree_leaves: SUBTREE_LEAVES,
            emergency_bytes: 16 << 20,
            batch_bytes: 4 << 20,
            retry_ms: 250,
            boot_id: [0; 16],
            disk: Arc::new(RealDisk::default()),
            clock: Arc::new(SystemClock),
            entropy: Box::new(|buf| getrandom::fill(buf).map_err(|e| e.to_string())),
            sealing: None,
        }
    }
}

/// How a journal is sealed.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// Where secret keys lie; outside of the journal's directory.
    pub key_dir: PathBuf,
    /// A growing journal gets a checkpoint this often, milliseconds.
    pub checkpoint_ms: u64,
    /// After an urgent record at the latest this long after the last one, milliseconds.
    pub urgent_ms: u64,
    /// A key signs for this long, milliseconds.
    pub epoch_ms: u64,
}

impl Sealing {
    /// Every 5 s, within 100 ms after an alert, and a key an hour.
    pub fn new(key_dir: impl Into<PathBuf>) -> Self {
        Self {
            key_dir: key_dir.into(),
            checkpoint_ms: 5_000,
            urgent_ms: 100,
            epoch_ms: 3_600_000,
        }
    }
}
