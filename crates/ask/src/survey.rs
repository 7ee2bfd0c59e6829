//! Which of a container's observations an answer reads, where they are more than it reads at most.
//!
//! A container that ran for a month did more than anybody reads, and an answer has to come soon. Of
//! each sort of act the first and the last are read, and those around the moment that is asked
//! about; a sort of which there are few is read whole, so that a flood of one hides nothing of
//! another. How many there are is exact, and what was not read is said.
//!
//! Promises: what is chosen follows from the leaves and sorts of the observations alone, whoever
//! finds them; memory is bounded by what an answer reads.

use crate::acts::Acts;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Observations that one answer reads at most, unless it is asked to read all.
pub const READ_MAX: usize = 3_000;

/// Where observations lie, of each sort the ends.
#[derive(Clone, Debug)]
pub struct Survey {
    most: usize,
    /// Leaves kept of the ends that are not the first: none where all are read.
    behind: usize,
    around: Option<u64>,
    sorts: BTreeMap<u8, Ends>,
}

/// Leaves of one sort.
#[derive(Clone, Debug, Default)]
struct Ends {
    count: u64,
    first: Vec<u64>,
    /// The last before the moment.
    before: VecDeque<u64>,
    /// The first from the moment on.
    after: Vec<u64>,
    last: VecDeque<u64>,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// These leaves, in order.
    pub leaves: Vec<u64>,
    /// How many more there are that were not chosen.
    pub left: u64,
}

impl Survey {
    /// To read `most` at most; `around`: the leaf of the moment that is asked about.
    pub fn new(most: usize, around: Option<u64>) -> Self {
        let behind = if most == usize::MAX { 0 } else { most };
        Self {
            most,
            behind,
            around,
            sorts: BTreeMap::new(),
        }
    }

    /// One more observation. Leaves come in order.
    pub fn add(&mut self, leaf: u64, sorts: Acts) {
        for sort in sorts.numbers() {
            self.add_of(leaf, sort);
        }
    }

    /// The same by the number of one of its sorts.
    pub fn add_of(&mut self, leaf: u64, sort: u8) {
        let (most, behind, around) = (self.most, self.behind, self.around);
        let ends = self.sorts.entry(sort).or_default();
        ends.count += 1;
        if ends.first.len() < most {
            ends.first.push(leaf);
        }
        keep_last(&mut ends.last, leaf, behind);
        match around {
            Some(around) if leaf < around => keep_last(&mut ends.before, leaf, behind),
            Some(_) if ends.after.len() < behind => ends.after.push(leaf),
            _ => {}
        }
    }

    /// How many observations there are, of whatever sort.
    pub fn count(&self) -> u64 {
        let all = Acts::ALL.numbers();
        all.filter_map(|n| self.sorts.get(&n))
            .map(|e| e.count)
            .sum()
    }

    /// What is read of these sorts.
    pub fn choose(&self, looked: Acts) -> Chosen {
        let mut sorts: Vec<&Ends> = looked
            .numbers()
            .filter_map(|n| self.sorts.get(&n))
            .collect();
        // the rarest first: what they leave is for the others
        sorts.sort_by_key(|ends| ends.count);
        let (mut leaves, mut left, mut rest) = (BTreeSet::new(), 0, self.most);
        for (n, ends) in sorts.iter().enumerate() {
            let share = rest / (sorts.len() - n);
            let taken = ends.take(share, self.around.is_some());
            rest -= taken.len().min(share);
            left += ends.count - taken.len() as u64;
            leaves.extend(taken);
        }
        Chosen {
            leaves: leaves.into_iter().collect(),
            left,
        }
    }
}

impl Ends {
    fn take(&self, share: usize, around: bool) -> BTreeSet<u64> {
        if self.count <= share as u64 {
            return self.first.iter().copied().collect();
        }
        let part = if around { share / 4 } else { share / 2 };
        let mut taken: BTreeSet<u64> = self.first.iter().take(part).copied().collect();
        taken.extend(self.last.iter().rev().take(part));
        if around {
            taken.extend(self.before.iter().rev().take(part));
            taken.extend(self.after.iter().take(part));
        }
        taken
    }
}

fn keep_last(last: &mut VecDeque<u64>, leaf: u64, most: usize) {
    last.push_back(leaf);
    if last.len() > most {
        last.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tenth a program, the others files that are read; two connections.
    fn survey(most: usize, around: Option<u64>) -> Survey {
        let mut survey = Survey::new(most, around);
        for leaf in 0..10_000 {
            let sort = match leaf {
                4_321 | 8_765 => Acts::NETWORK,
                n if n % 10 == 0 => Acts::EXEC,
                _ => Acts::READ,
            };
            survey.add(leaf, sort);
        }
        survey
    }

    #[test]
    fn few_are_read_whole() {
        let survey = survey(10_000, None);
        let chosen = survey.choose(Acts::ALL);
        assert_eq!((chosen.leaves.len(), chosen.left), (10_000, 0));
        assert_eq!(survey.choose(Acts::NETWORK).leaves, [4_321, 8_765]);
    }

    #[test]
    fn a_flood_of_one_sort_hides_nothing_of_another() {
        let chosen = survey(100, None).choose(Acts::ALL);
        assert!(chosen.leaves.len() <= 100, "{}", chosen.leaves.len());
        assert_eq!(chosen.left, 10_000 - chosen.leaves.len() as u64);
        assert!(chosen.leaves.contains(&4_321) && chosen.leaves.contains(&8_765));
        assert!(chosen.leaves.contains(&0) && chosen.leaves.contains(&9_990));
        assert!(chosen.leaves.contains(&1) && chosen.leaves.contains(&9_999));
        let programs = chosen.leaves.iter().filter(|leaf| **leaf % 10 == 0);
        assert!(programs.count() >= 40);
    }

    #[test]
    fn what_lies_around_the_moment_is_read_first_of_all_that_lies_between() {
        let chosen = survey(100, Some(5_000)).choose(Acts::READ.or(Acts::EXEC));
        for leaf in [4_990, 4_999, 5_000, 5_001, 5_010] {
            assert!(chosen.leaves.contains(&leaf), "{leaf}");
        }
        assert!(chosen.leaves.len() <= 100 && chosen.leaves.is_sorted());
    }

    #[test]
    fn all_are_counted_once_though_some_are_of_several_sorts() {
        let mut survey = Survey::new(10, None);
        for leaf in 0..50 {
            survey.add(leaf, Acts::EXEC.or(Acts::SESSION));
        }
        assert_eq!(survey.count(), 50);
    }
}
