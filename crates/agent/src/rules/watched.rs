//! Behaviours that the kernel emits every time, because a rule might fire on a repeat.
//!
//! Promise: bounded; what is forgotten here is only asked about again. Left out: which behaviours
//! these are ([`super::key`]), and the kernel's own list of paths that are always emitted.

use super::engine::Repeats;
use plimsoll_model::{BootNs, Event};
use std::collections::{HashMap, VecDeque};

/// Behaviours remembered at a time.
pub const WATCHED_MAX: usize = 65_536;
/// Marks that are tried once more.
const AGAIN_MAX: usize = 1024;
/// A mark this old is made again: the kernel may have forgotten the behaviour meanwhile.
const FRESH_NS: u64 = 1_000_000_000;

type Dict = [u8; 48];

/// What is watched.
#[derive(Debug, Default)]
pub struct Watched {
    marked: HashMap<Dict, BootNs>,
    order: VecDeque<Dict>,
    again: Vec<(Dict, Repeats)>,
}

impl Watched {
    /// Nothing is watched any more (other rules are in force).
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.marked.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.marked.is_empty()
    }

    /// Whether the event repeats a behaviour that is emitted for the rules' sake: then the kernel
    /// has counted it, as it counts what it does not emit. A behaviour's first event has a number.
    pub fn repeats(&self, event: &Event) -> bool {
        let marked = event.dict.is_some_and(|d| self.marked.contains_key(&d));
        marked && event.dense == 0
    }

    /// Whether the mark of a behaviour is so fresh that it need not be made again.
    pub fn is_fresh(&self, event: &Event) -> bool {
        let at = event.dict.and_then(|d| self.marked.get(&d));
        let age = at.map(|at| event.boot.0.saturating_sub(at.0));
        event.dense == 0 && age.is_some_and(|age| age < FRESH_NS)
    }

    /// The kernel was told which repeats to emit; `kept`: it remembers the behaviour.
    pub fn note(&mut self, dict: Dict, repeats: Repeats, at: BootNs, kept: bool) {
        if !kept && self.again.len() < AGAIN_MAX {
            self.again.push((dict, repeats));
        }
        if self.marked.insert(dict, at).is_none() {
            self.order.push_back(dict);
        }
        while self.order.len() > WATCHED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.marked.remove(&oldest);
            }
        }
    }

    /// Marks to be tried once more.
    pub fn again(&mut self) -> Vec<(Dict, Repeats)> {
        std::mem::take(&mut self.again)
    }
}
