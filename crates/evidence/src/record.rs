//! What is put into the journal, and what a leaf says about it.
//!
//! Kinds, schema versions and payloads are opaque: an unknown kind is kept and passed on.

use std::fmt;

/// Length of a leaf: the header and the payload's salted hash, in bytes.
///
/// These bytes are what a hash tree over the journal hashes.
pub const LEAF_BYTES: usize = 80;

/// A position in one origin's journal; dense, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Leaf(pub u64);

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's name among many nodes, shown as `origin@leaf`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// The node whose journal it is.
    pub origin: String,
    /// The position in that journal.
    pub leaf: Leaf,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.origin, self.leaf)
    }
}

/// Whose life decides how long a payload is kept; 1 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetentionClass(u8);

impl RetentionClass {
    /// Alerts.
    pub const ALERT: Self = Self(1);
    /// Drifts.
    pub const DRIFT: Self = Self(2);
    /// Observations.
    pub const OBSERVATION: Self = Self(3);
    /// Gaps.
    pub const GAP: Self = Self(4);
    /// Access to, export of and action on evidence; tombstones.
    pub const CUSTODY: Self = Self(5);
    /// Everything that influences a verdict: baselines, reloads, clock anchors.
    pub const SYSTEM: Self = Self(6);
    /// Certificates of epoch keys: kept for ever, or older checkpoints could not be verified.
    pub const KEY: Self = Self(7);
    /// The largest number a class can have.
    pub const MAX: u8 = 15;

    /// The class with this number; `None` outside 1 to 15.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number that is stored.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn slot(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for RetentionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALERT => f.write_str("alert"),
            Self::DRIFT => f.write_str("drift"),
            Self::OBSERVATION => f.write_str("observation"),
            Self::GAP => f.write_str("gap"),
            Self::CUSTODY => f.write_str("custody"),
            Self::SYSTEM => f.write_str("system"),
            Self::KEY => f.write_str("key"),
            Self(other) => write!(f, "class-{other}"),
        }
    }
}

/// A 128-bit key of one container instance, made by the caller
/// (for example the front of a SHA-256 over container id and start).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey(pub [u8; 16]);

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the payload is; opaque here.
    pub kind: u16,
    /// Version of the payload's schema; opaque here.
    pub schema_version: u16,
    /// How long the payload is kept.
    pub class: RetentionClass,
    /// The container instance it is about, if any.
    pub container: Option<InstanceKey>,
    /// Wall-clock time of the fact, nanoseconds since 1970.
    pub wall_ns: i64,
    /// Boot-clock time of the fact, nanoseconds.
    pub boot_ns: u64,
    /// The content; at most [`crate::MAX_PAYLOAD_BYTES`].
    pub payload: Vec<u8>,
}

impl Record {
    /// A record with schema version 1, no container and zero times.
    pub fn new(kind: u16, class: RetentionClass, payload: Vec<u8>) -> Self {
        Self {
            kind,
            schema_version: 1,
            class,
            container: None,
            wall_ns: 0,
            boot_ns: 0,
            payload,
        }
    }

    /// The same record about a container instance.
    pub fn about(mut self, container: InstanceKey) -> Self {
        self.container = Some(container);
        self
    }

    /// The same record at these times (nanoseconds).
    pub fn at(mut self, wall_ns: i64, boot_ns: u64) -> Self {
        self.wall_ns = wall_ns;
        self.boot_ns = boot_ns;
        self
    }
}

/// What a leaf says of its record without the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: u16,
    /// Version of the payload's schema.
    pub schema_version: u16,
    /// How long the payload is kept.
    pub class: RetentionClass,
    /// Whether the caller waited for this record to be durable (alerts).
    pub urgent: bool,
    /// The container instance it is about, if any.
    pub container: Option<InstanceKey>,
    /// Wall-clock time of the fact, nanoseconds since 1970.
    pub wall_ns: i64,
    /// Boot-clock time of the fact, nanoseconds.
    pub boot_ns: u64,
    /// Length of the payload in bytes.
    pub payload_bytes: u32,
}
