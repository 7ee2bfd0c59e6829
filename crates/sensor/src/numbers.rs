//! Whether everything that the kernel numbered has come out of its ring.
//!
//! Each processor numbers what it submits to each of the two rings, from 1; a record that finds no room
//! gives its number back and is counted as lost there. So a number that never comes is a loss that no
//! counter knows, and it is told as one, with its exact count and the times between which it lies.
//!
//! No false holes: records of one processor may be out of order in a ring (a task that was interrupted
//! between taking its number and its place), and the two rings are read at different moments, so each ring
//! has numbers of its own and a hole waits for [`PATIENCE_NS`]. A number given back by an interrupted task
//! leaves a hole and makes a later number appear twice: the one is set off against the other.
//!
//! Left out: which records they were (nobody knows), a loss behind the last record of a processor (it
//! shows with the next one), and bytes that came and could not be decoded (those
//! are noted here as having come, and counted by the reader).

use plimsoll_model::BootNs;
use std::collections::{BTreeMap, HashMap};

/// How long a number may be late.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Open holes of one processor and ring; of more, the oldest is told at once.
const HOLES_MAX: usize = 64;
/// Processors that are looked at, times two rings.
const LANES_MAX: usize = 16_384;

/// Numbers that never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// How many.
    pub(crate) count: u64,
    /// Time of the record before them.
    pub(crate) from: BootNs,
    /// Time of the record behind them.
    pub(crate) to: BootNs,
}

#[derive(Debug)]
struct Hole {
    end: u64,
    from: BootNs,
    to: BootNs,
    noticed: BootNs,
}

#[derive(Debug, Default)]
struct Lane {
    /// The greatest number so far.
    last: u64,
    at: BootNs,
    /// By their first number.
    holes: BTreeMap<u64, Hole>,
    /// Numbers that came twice, and when the last one did.
    twice: u64,
    twice_at: BootNs,
}

/// The numbers of all processors and both rings.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    lanes: HashMap<(u32, u8), Lane>,
    overdue: Vec<Missing>,
    resumed: bool,
}

impl Numbers {
    /// Of rings that somebody else has read before: the first record of each lane is where it begins.
    pub(crate) fn resumed() -> Self {
        Self {
            resumed: true,
            ..Self::default()
        }
    }

    /// A record has come; `now` is the reader's clock.
    pub(crate) fn note(&mut self, cpu: u32, ring: u8, number: u64, at: BootNs, now: BootNs) {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(&(cpu, ring)) {
            return;
        }
        let (before, at_before) = match self.resumed {
            true => (number.saturating_sub(1), at),
            false => (0, BootNs(0)),
        };
        let lane = self.lanes.entry((cpu, ring)).or_insert_with(|| Lane {
            last: before,
            at: at_before,
            ..Lane::default()
        });
        if number > lane.last {
            if number > lane.last + 1 {
                let hole = Hole {
                    end: number,
                    from: lane.at.min(at),
                    to: at,
                    noticed: now,
                };
                lane.holes.insert(lane.last + 1, hole);
            }
            (lane.last, lane.at) = (number, at);
        } else if !lane.fill(number) {
            lane.twice += 1;
            lane.twice_at = now;
        }
        if lane.holes.len() > HOLES_MAX
            && let Some((first, hole)) = lane.holes.pop_first()
        {
            self.overdue.extend(lane.settle(first, &hole));
        }
    }

    /// What has not come in time.
    pub(crate) fn missing(&mut self, now: BootNs) -> Vec<Missing> {
        let mut found = std::mem::take(&mut self.overdue);
        let is_late = |at: BootNs| now.0.saturating_sub(at.0) >= PATIENCE_NS;
        for lane in self.lanes.values_mut() {
            while let Some(entry) = lane.holes.first_entry()
                && is_late(entry.get().noticed)
            {
                let (first, hole) = entry.remove_entry();
                found.extend(lane.settle(first, &hole));
            }
            if lane.holes.is_empty() && is_late(lane.twice_at) {
                lane.twice = 0;
            }
        }
        found
    }
}

impl Lane {
    /// A late number; `false`: it is in no hole.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, hole)) = self.holes.range_mut(..=number).next_back() else {
            return false;
        };
        if number >= hole.end {
            return false;
        }
        let (end, from, to, noticed) = (hole.end, hole.from, hole.to, hole.noticed);
        match number == first {
            true => drop(self.holes.remove(&first)),
            false => hole.end = number,
        }
        if number + 1 < end {
            let rest = Hole {
                end,
                from,
                to,
                noticed,
            };
            self.holes.insert(number + 1, rest);
        }
        true
    }

    fn settle(&mut self, first: u64, hole: &Hole) -> Option<Missing> {
        let given_back = self.twice.min(hole.end - first);
        self.twice -= given_back;
        let count = hole.end - first - given_back;
        (count > 0).then_some(Missing {
            count,
            from: hole.from,
            to: hole.to,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LATER: BootNs = BootNs(100 * PATIENCE_NS);

    #[test]
    fn rings_that_somebody_has_read_before_begin_where_they_stand() {
        let mut book = Numbers::resumed();
        for n in [70, 71, 75] {
            book.note(0, 0, n, BootNs(n), BootNs(1));
        }
        let missing = book.missing(LATER);
        assert_eq!(missing.iter().map(|m| m.count).sum::<u64>(), 3);
    }

    /// What is missing after these numbers of one processor and ring have come, in this order.
    fn after(numbers: &[u64]) -> u64 {
        let mut book = Numbers::default();
        for n in numbers {
            book.note(0, 0, *n, BootNs(*n * 10), BootNs(1));
        }
        book.missing(LATER).iter().map(|m| m.count).sum()
    }

    #[test]
    fn a_number_that_never_comes_is_missing_between_its_neighbours() {
        let mut book = Numbers::default();
        for n in [1, 2, 6, 7] {
            book.note(3, 1, n, BootNs(n * 10), BootNs(1));
        }
        assert!(book.missing(BootNs(2)).is_empty(), "it may still come");
        let missing = Missing {
            count: 3,
            from: BootNs(20),
            to: BootNs(60),
        };
        assert_eq!(book.missing(LATER), [missing]);
        assert!(book.missing(LATER).is_empty(), "told once");
    }

    #[test]
    fn late_numbers_and_the_other_ring_make_no_hole() {
        assert_eq!(after(&[2, 1, 5, 4, 3, 6]), 0);
        let mut book = Numbers::default();
        for n in 1..100 {
            book.note(0, 0, n, BootNs(n), BootNs(1));
            book.note(0, 1, n, BootNs(n), BootNs(1));
            book.note(1, 0, n, BootNs(n), BootNs(1));
        }
        assert!(book.missing(LATER).is_empty());
    }

    #[test]
    fn a_number_given_back_by_an_interrupted_task_is_no_loss() {
        // 5 found no room and was given back while 6 was on its way: the next one is 6 again
        assert_eq!(after(&[1, 2, 3, 4, 6, 6, 7]), 0);
        assert_eq!(after(&[1, 2, 3, 4, 8, 8, 9]), 2);
    }

    #[test]
    fn more_holes_than_are_kept_are_told_and_none_is_forgotten() {
        let even: Vec<u64> = (1..=1000).map(|n| n * 2).collect();
        assert_eq!(after(&even), 1000);
    }

    proptest! {
        /// However near records are out of order, what is missing is what was left out.
        #[test]
        fn the_count_is_exact(
            lost in prop::collection::btree_set(1u64..400, 0..60),
            swaps in prop::collection::vec(0usize..400, 0..80),
        ) {
            let mut numbers: Vec<u64> = (1..=400).filter(|n| !lost.contains(n)).collect();
            for s in swaps {
                let i = s % (numbers.len() - 2);
                numbers.swap(i, i + 1);
            }
            prop_assert_eq!(after(&numbers), lost.len() as u64);
        }
    }
}
