//! Reads the journal again, slowly and for ever, to find what the disk has lost before anybody
//! needs it.
//!
//! Promises: at most [`LEAVES_AT_A_TIME`] records a second, so that it never competes with writing;
//! each damaged record is told once for each start, as a gap of stage `damage`; what is told is
//! bounded. Left out: repair (there is nothing to repair from), and signatures and roots, which
//! `plimsoll evidence verify` checks.

use plimsoll_evidence::{ReadError, Reader};
use plimsoll_model::{Gap, GapScope, Stage, Stamp};
use std::collections::BTreeSet;

/// Records read in one step; a step a second.
pub const LEAVES_AT_A_TIME: u64 = 2048;
/// Damage told at most between two starts; the last one says that there is more.
pub const TOLD_MAX: usize = 1000;

/// Where the scrub has come to.
pub struct Scrub {
    reader: Reader,
    next: u64,
    told: BTreeSet<u64>,
}

impl Scrub {
    /// Begins at the first record.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            next: 0,
            told: BTreeSet::new(),
        }
    }

    /// Reads the next records; what is damaged among them and was not told yet.
    pub fn step(&mut self, now: Stamp) -> Vec<Gap> {
        let end = match self.reader.end() {
            Ok(end) => end.0,
            Err(e) => {
                return self.tell(
                    u64::MAX,
                    format!("the journal cannot be read: {e}"),
                    None,
                    now,
                );
            }
        };
        if self.next >= end {
            self.next = 0;
        }
        let leaves = self.next..end.min(self.next + LEAVES_AT_A_TIME);
        self.next = leaves.end;
        let report = match self.reader.scrub(leaves) {
            Ok(report) => report,
            Err(e) => {
                return self.tell(
                    u64::MAX,
                    format!("the journal cannot be read: {e}"),
                    None,
                    now,
                );
            }
        };
        let mut gaps = Vec::new();
        for error in report.damage {
            let (leaf, count) = match &error {
                ReadError::DamagedLeaf { leaf, .. } => (*leaf, Some(1)),
                ReadError::MissingLeaves { first, last } => (*first, Some(last - first + 1)),
                _ => (u64::MAX, None),
            };
            gaps.extend(self.tell(leaf, error.to_string(), count, now));
        }
        for (leaf, why) in report.lost {
            gaps.extend(self.tell(
                leaf.0,
                format!("the content of record {leaf} is damaged: {why}"),
                Some(1),
                now,
            ));
        }
        for leaf in report.altered {
            gaps.extend(self.tell(leaf.0, format!("record {leaf} is not the one that was hashed: `plimsoll evidence verify` says which of both was altered"), Some(1), now));
        }
        gaps
    }

    fn tell(&mut self, leaf: u64, reason: String, count: Option<u64>, now: Stamp) -> Vec<Gap> {
        if self.told.len() >= TOLD_MAX || !self.told.insert(leaf) {
            return Vec::new();
        }
        let more = if self.told.len() == TOLD_MAX {
            "; further damage is not told until the next start"
        } else {
            ""
        };
        vec![Gap {
            stage: Stage::Damage,
            scope: GapScope::Node,
            from: Stamp::default(),
            to: now,
            count,
            reason: format!("found by the background scrub: {reason}{more}"),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_evidence::{Journal, Options, Record, RetentionClass, Sealing};

    #[test]
    fn a_flipped_bit_is_told_once_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new("node");
        options.emergency_bytes = 12 << 10;
        options.sealing = Some(Sealing::new(dir.path().join("keys")));
        let (mut journal, _) = Journal::open(dir.path().join("journal"), options).unwrap();
        for n in 0..3000_u32 {
            journal
                .append(Record::new(
                    1,
                    RetentionClass::OBSERVATION,
                    n.to_le_bytes().to_vec(),
                ))
                .unwrap();
        }
        journal.close().unwrap();
        let open = || Scrub::new(Reader::open(dir.path().join("journal")).unwrap());
        let mut scrub = open();
        assert!((0..5).all(|_| scrub.step(Stamp::default()).is_empty()));
        let payloads = dir
            .path()
            .join("journal/payloads/00000000000000000000.03.pay");
        let mut bytes = std::fs::read(&payloads).unwrap();
        let at = bytes.len() - 2;
        bytes[at] ^= 8;
        std::fs::write(&payloads, bytes).unwrap();
        let told: Vec<Gap> = (0..6).flat_map(|_| scrub.step(Stamp::default())).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].reason.contains("record 3000") && told[0].stage == Stage::Damage,
            "{told:?}"
        );
        // A leaf that was changed with its checksum differs from its tile.
        let tile = dir.path().join("journal/tlog/tile/0/000");
        let mut bytes = std::fs::read(&tile).unwrap();
        bytes[32 * 7] ^= 1;
        std::fs::write(&tile, bytes).unwrap();
        let told: Vec<Gap> = (0..3).flat_map(|_| scrub.step(Stamp::default())).collect();
        assert!(
            told.len() == 1 && told[0].reason.contains("record 7 "),
            "{told:?}"
        );
    }
}
