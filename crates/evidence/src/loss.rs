//! Losses at the journal stage, counted until somebody records them as a gap.
//!
//! Bounded: 16 open intervals; in each, per container up to 256 counts, the rest in one sum.

use std::collections::BTreeMap;

use crate::record::{Header, InstanceKey, RetentionClass};

const CONTAINERS_MAX: usize = 256;
const INTERVALS_MAX: usize = 16;

/// Why records were not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LossReason {
    /// No space left on the device, or quota exceeded.
    DiskFull,
    /// The disk refused with this error number and text.
    Disk {
        /// The system's error number, where there is one.
        errno: Option<i32>,
        /// What failed, on which file.
        what: String,
    },
    /// Counted before the agent stopped and found at the next opening.
    BeforeRestart,
}

/// Records that the journal did not keep, over one interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Always `journal`: the stage a gap record names.
    pub stage: &'static str,
    /// Why; the first reason of the interval.
    pub reason: LossReason,
    /// How many records.
    pub count: u64,
    /// Wall-clock time of the first lost fact, nanoseconds.
    pub since_wall_ns: i64,
    /// Wall-clock time of the last lost fact, nanoseconds.
    pub until_wall_ns: i64,
    /// Boot-clock time of the first lost fact, nanoseconds; 0 after a restart.
    pub since_boot_ns: u64,
    /// Boot-clock time of the last lost fact, nanoseconds; 0 after a restart.
    pub until_boot_ns: u64,
    /// Counts by class; empty after a restart.
    pub by_class: BTreeMap<RetentionClass, u64>,
    /// Counts by container; at most 256.
    pub by_container: BTreeMap<InstanceKey, u64>,
    /// Records of containers beyond those 256, and of none.
    pub other: u64,
}

impl Loss {
    pub(crate) fn before_restart(count: u64, since_wall_ns: i64, until_wall_ns: i64) -> Self {
        Self {
            stage: "journal",
            reason: LossReason::BeforeRestart,
            count,
            since_wall_ns,
            until_wall_ns,
            since_boot_ns: 0,
            until_boot_ns: 0,
            by_class: BTreeMap::new(),
            by_container: BTreeMap::new(),
            other: count,
        }
    }
}

/// The open interval of losses.
#[derive(Debug, Default)]
pub(crate) struct LossBook {
    open: Vec<Loss>,
    /// Losses handed out whose gap record is not yet durable.
    handed_out: bool,
    pub(crate) total: u64,
}

impl LossBook {
    pub(crate) fn restore(&mut self, loss: Loss) {
        self.total += loss.count;
        self.open.push(loss);
    }

    pub(crate) fn count(&mut self, header: &Header, reason: &LossReason) {
        self.total += 1;
        // Reasons alternate rarely; beyond these intervals the last one takes all.
        let full = self.open.len() >= INTERVALS_MAX;
        match self.open.last_mut() {
            Some(loss) if full || loss.reason == *reason => add(loss, header),
            _ => self.begin(header, reason),
        }
    }

    fn begin(&mut self, header: &Header, reason: &LossReason) {
        let mut loss = Loss::before_restart(0, header.wall_ns, header.wall_ns);
        loss.reason = reason.clone();
        loss.since_boot_ns = header.boot_ns;
        add(&mut loss, header);
        self.open.push(loss);
    }

    pub(crate) fn drain(&mut self) -> Vec<Loss> {
        self.handed_out |= !self.open.is_empty();
        std::mem::take(&mut self.open)
    }

    /// After a durable commit: whether the stored count may be cleared.
    pub(crate) fn settle(&mut self) -> bool {
        self.open.is_empty() && std::mem::take(&mut self.handed_out)
    }

    /// Count and wall interval of what is open, for the emergency segment.
    pub(crate) fn summary(&self) -> (u64, i64, i64) {
        let since = self.open.iter().map(|l| l.since_wall_ns).min().unwrap_or(0);
        let until = self.open.iter().map(|l| l.until_wall_ns).max().unwrap_or(0);
        (self.open.iter().map(|l| l.count).sum(), since, until)
    }
}

fn add(loss: &mut Loss, header: &Header) {
    loss.count += 1;
    loss.since_wall_ns = loss.since_wall_ns.min(header.wall_ns);
    loss.until_wall_ns = loss.until_wall_ns.max(header.wall_ns);
    loss.since_boot_ns = loss.since_boot_ns.min(header.boot_ns);
    loss.until_boot_ns = loss.until_boot_ns.max(header.boot_ns);
    *loss.by_class.entry(header.class).or_default() += 1;
    let room = loss.by_container.len() < CONTAINERS_MAX;
    match header.container {
        Some(key) if room || loss.by_container.contains_key(&key) => {
            *loss.by_container.entry(key).or_default() += 1;
        }
        _ => loss.other += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn counts_per_container_are_bounded_and_add_up() {
        let mut book = LossBook::default();
        for n in 0..1000u32 {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_le_bytes());
            let record = Record::new(1, RetentionClass::OBSERVATION, vec![])
                .about(InstanceKey(key))
                .at(i64::from(n), u64::from(n));
            let leaf = crate::format::leaf_bytes(&record, false, &[0; 16]);
            let header = crate::format::header_of(&leaf).expect("class exists");
            book.count(&header, &LossReason::DiskFull);
        }
        let [loss] = &book.drain()[..] else {
            panic!("one interval")
        };
        assert_eq!(
            (loss.count, loss.by_container.len(), loss.other),
            (1000, 256, 744)
        );
        assert_eq!((loss.since_wall_ns, loss.until_wall_ns), (0, 999));
        assert!(book.settle());
        assert!(book.drain().is_empty());
    }
}
