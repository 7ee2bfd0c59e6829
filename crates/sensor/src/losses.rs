//! Losses that the programs counted, told once each: by container where that is known, the rest as the
//! node's.

use crate::api::*;
use crate::clock::boot_now;
use crate::counters::{STAGES, container_losses};
use crate::numbers::Missing;
use crate::reader::Sensor;
use plimsoll_model::{BootNs, Stage};
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

/// What was reported of each loss counter so far.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) seen: HashMap<(u64, usize), u64>,
    pub(crate) node: [u64; 5],
    /// Recursion misses that no agent has told.
    pub(crate) missed_before: u64,
    /// Told of containers before the node's counters had it (they are read at another moment).
    early: [u64; 5],
    pub(crate) since: BootNs,
    broken: u64,
}

impl Losses {
    /// Nothing was told yet, and nothing lost before `since`.
    pub(crate) fn since(since: BootNs) -> Self {
        Losses {
            since,
            ..Self::default()
        }
    }
}

impl Sensor {
    /// What was lost of a container that ends, while its counters are still there.
    pub(crate) fn last_losses(&mut self, cgroup_id: u64, sink: &mut dyn FnMut(Signal)) {
        let (from, to) = (self.losses.since, boot_now());
        for (i, n) in self.control.losses_of(cgroup_id).into_iter().enumerate() {
            let seen = self.losses.seen.get(&(cgroup_id, i)).copied();
            let count = n.saturating_sub(seen.unwrap_or_default());
            if count > 0 {
                self.losses.seen.insert((cgroup_id, i), n);
                self.losses.early[i] += count;
                sink(Signal::Loss(Loss {
                    stage: STAGES[i],
                    cgroup_id,
                    count,
                    from,
                    to,
                }));
            }
        }
    }

    /// New losses since the last call, at most every 200 ms.
    pub(crate) fn losses(&mut self, now: BootNs, sink: &mut dyn FnMut(Signal)) -> usize {
        if now.0.saturating_sub(self.losses.since.0) < 200_000_000 {
            return 0;
        }
        let from = std::mem::replace(&mut self.losses.since, now);
        let mut handed = 0;
        let mut tell = |stage, cgroup_id, count| {
            handed += 1;
            sink(Signal::Loss(Loss {
                stage,
                cgroup_id,
                count,
                from,
                to: now,
            }));
        };
        let mut told = self.losses.missed_before > 0;
        if told {
            let missed = std::mem::take(&mut self.losses.missed_before);
            tell(Stage::Recursion, 0, missed);
        }
        let cpu = self.control.cpu_totals();
        if cpu.lost != self.losses.node {
            told = true;
            let mut by_container = std::mem::take(&mut self.losses.early);
            let living = container_losses(&self.control.maps.containers);
            let there: HashSet<u64> = living.iter().map(|(id, _)| *id).collect();
            self.losses.seen.retain(|(id, _), _| there.contains(id));
            for (id, lost) in living {
                for (i, n) in lost.into_iter().enumerate() {
                    let seen = self.losses.seen.entry((id, i)).or_default();
                    if n > *seen {
                        by_container[i] += n - *seen;
                        tell(STAGES[i], id, n - *seen);
                        *seen = n;
                    }
                }
            }
            for i in 0..5 {
                // what no living container accounts for
                let all = cpu.lost[i] - self.losses.node[i];
                let rest = all.saturating_sub(by_container[i]);
                self.losses.early[i] = by_container[i].saturating_sub(all);
                if rest > 0 {
                    tell(STAGES[i], 0, rest);
                }
            }
            self.losses.node = cpu.lost;
        }
        for (program, seen) in &mut self.misses {
            let n = program.recursion_misses();
            if n > *seen {
                told = true;
                tell(Stage::Recursion, 0, n - *seen);
                *seen = n;
            }
        }
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (broken, missing) = (inbox.broken, inbox.numbers.missing(now));
        drop(inbox);
        if broken > self.losses.broken {
            tell(Stage::Decode, 0, broken - self.losses.broken);
            self.losses.broken = broken;
        }
        if !missing.is_empty() {
            // nobody knows what they were, so nothing may count as seen because of them
            let _ = self.control.bump_generation();
        }
        for Missing { count, from, to } in missing {
            handed += 1;
            sink(Signal::Loss(Loss {
                stage: Stage::Sequence,
                cgroup_id: 0,
                count,
                from,
                to,
            }));
        }
        if told {
            self.note_told(now);
        }
        self.mark_told(now);
        handed
    }
}
