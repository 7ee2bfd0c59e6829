//! Bytes of a baseline: `[schema_version, content]` in CBOR with numbered fields.
//!
//! Promises: older versions stay loadable; a newer one is refused by its number; any bytes give a
//! baseline or an error, never a panic; what was loaded holds the bounds.

use crate::baseline::{Baseline, Content};
use minicbor::{Decoder, Encoder};

/// Version of the stored form that this build writes.
pub const SCHEMA_VERSION: u16 = 1;

/// The bytes are no baseline that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeBaselineError {
    /// Written by a newer build.
    #[error(
        "baseline has schema version {found}, this build reads up to {SCHEMA_VERSION}: use a newer build"
    )]
    Newer {
        /// The version found.
        found: u16,
    },
    /// Not CBOR of this form.
    #[error("decode baseline: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// More than a baseline may hold.
    #[error("baseline holds {found} {what}, at most {max} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}

/// Numbers ever given in one baseline, tombstones included.
const MAX_NUMBERS: usize = 4_000_000;

impl Baseline {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        e.array(2)
            .and_then(|e| e.u16(SCHEMA_VERSION))
            .and_then(|e| e.encode(&self.content))
            .expect("writing to memory cannot fail");
        e.into_writer()
    }

    /// The baseline in these bytes.
    ///
    /// # Errors
    /// When they are not a baseline, or one from a newer build, or one without bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeBaselineError> {
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(2) {
            return Err(malformed("a baseline is an array of two"));
        }
        let found = d.u16()?;
        if found > SCHEMA_VERSION {
            return Err(DecodeBaselineError::Newer { found });
        }
        let mut content: Content = d.decode()?;
        if d.position() != bytes.len() {
            return Err(malformed("bytes follow the baseline"));
        }
        content.config = content.config.checked();
        check("behaviours", content.entries.len(), MAX_NUMBERS)?;
        check_counts(&content)?;
        check("pending behaviours", content.pending.len(), 100_000)?;
        check(
            "decisions",
            content.decisions.len(),
            crate::baseline::MAX_APPROVALS,
        )?;
        check(
            "instances",
            content.instances.len(),
            crate::baseline::MAX_INSTANCES,
        )?;
        Ok(Self::from_content(content))
    }
}

fn malformed(why: &'static str) -> DecodeBaselineError {
    DecodeBaselineError::Malformed(minicbor::decode::Error::message(why))
}

/// Counts far beyond any real life would overflow sums later.
fn check_counts(c: &Content) -> Result<(), DecodeBaselineError> {
    const MAX: u64 = 1 << 40;
    let own = [
        c.version,
        c.units,
        c.startup_units,
        c.steady_units,
        c.starts,
        c.instances_total,
        c.saturated,
        c.pending_dropped,
    ];
    let entries = c.entries.iter().flatten();
    let each = entries.flat_map(|e| [e.incidence, e.members, e.count >> 20]);
    match own.into_iter().chain(each).all(|n| n <= MAX) {
        true => Ok(()),
        false => Err(malformed("a count is larger than any baseline's life")),
    }
}

fn check(what: &'static str, found: usize, max: usize) -> Result<(), DecodeBaselineError> {
    if found > max {
        return Err(DecodeBaselineError::TooLarge { what, found, max });
    }
    Ok(())
}
