//! Losses, gathered until they are journalled as gaps.
//!
//! Promise: no count is ever dropped. One gap per (stage, container) and flush; when the table is
//! full, further containers are counted in the node's gap of that stage, whose reason says so.
//! Pure: time and instances come in as values.

use plimsoll_model::{BootNs, ClockAnchor, Gap, GapScope, Instance, Stage};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Containers with an open gap at a time.
pub const OPEN_GAPS_MAX: usize = 1024;

/// One loss as a stage of the agent reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub stage: Stage,
    /// Whose (`None`: the node's, or it cannot be told).
    pub instance: Option<Instance>,
    /// How many; `None` when that cannot be known.
    pub count: Option<u64>,
    /// Start of the interval.
    pub from: BootNs,
    /// End of the interval.
    pub to: BootNs,
    /// What happened, in a few words.
    pub reason: Cow<'static, str>,
}

#[derive(Debug)]
struct Open {
    count: Option<u64>,
    from: BootNs,
    to: BootNs,
    reason: Cow<'static, str>,
}

/// The open gaps.
#[derive(Debug, Default)]
pub struct GapBook {
    open: BTreeMap<(Stage, Option<Instance>), Open>,
    totals: BTreeMap<Stage, u64>,
}

impl GapBook {
    /// Adds a loss.
    pub fn note(&mut self, loss: Loss) {
        *self.totals.entry(loss.stage).or_default() += loss.count.unwrap_or(1);
        let mut key = (loss.stage, loss.instance);
        let mut reason = loss.reason;
        if self.open.len() >= OPEN_GAPS_MAX && key.1.is_some() && !self.open.contains_key(&key) {
            key.1 = None;
            reason = Cow::Borrowed("more containers lost something than there is room to name");
        }
        let open = self.open.entry(key).or_insert(Open {
            count: Some(0),
            from: loss.from,
            to: loss.to,
            reason,
        });
        open.count = open.count.zip(loss.count).map(|(a, b)| a.saturating_add(b));
        open.from = open.from.min(loss.from);
        open.to = open.to.max(loss.to);
    }

    /// Takes all open gaps, stamped by `anchor`.
    pub fn flush(&mut self, anchor: &ClockAnchor) -> Vec<Gap> {
        std::mem::take(&mut self.open)
            .into_iter()
            .map(|((stage, instance), open)| Gap {
                stage,
                scope: instance.map_or(GapScope::Node, GapScope::Container),
                from: anchor.stamp(open.from),
                to: anchor.stamp(open.to),
                count: open.count,
                reason: open.reason.into_owned(),
            })
            .collect()
    }

    /// How much each stage lost since the agent started.
    pub fn totals(&self) -> &BTreeMap<Stage, u64> {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::{ContainerId, WallNs};

    fn loss(name: Option<&str>, count: u64, at: u64) -> Loss {
        Loss {
            stage: Stage::Queue,
            instance: name.map(|n| Instance {
                id: ContainerId::parse(n).unwrap(),
                start: BootNs(1),
            }),
            count: Some(count),
            from: BootNs(at),
            to: BootNs(at),
            reason: "queue full".into(),
        }
    }
    fn anchor() -> ClockAnchor {
        ClockAnchor {
            boot: BootNs(0),
            wall: WallNs(0),
            uncertainty_ns: 0,
            step_ns: 0,
        }
    }

    #[test]
    fn losses_of_one_container_become_one_gap() {
        let mut book = GapBook::default();
        book.note(loss(Some("a"), 2, 10));
        book.note(loss(Some("a"), 3, 5));
        book.note(loss(None, 1, 7));
        let gaps = book.flush(&anchor());
        assert_eq!(gaps.len(), 2);
        let a = gaps
            .iter()
            .find(|g| g.scope != GapScope::Node)
            .expect("the container's gap");
        assert_eq!((a.count, a.from.boot.0, a.to.boot.0), (Some(5), 5, 10));
        assert!(book.flush(&anchor()).is_empty());
    }

    #[test]
    fn a_full_table_still_counts_everything() {
        let mut book = GapBook::default();
        for n in 0..3000 {
            book.note(loss(Some(&format!("c{n}")), 1, n));
        }
        let gaps = book.flush(&anchor());
        assert!(gaps.len() <= OPEN_GAPS_MAX + 1);
        assert_eq!(gaps.iter().filter_map(|g| g.count).sum::<u64>(), 3000);
    }
}
