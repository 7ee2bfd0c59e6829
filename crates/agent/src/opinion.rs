//! Alert ids, and the alert that a drift makes.

use crate::shelf::Shelf;
use plimsoll_baseline::Novelty;
use plimsoll_model::{Alert, AlertId, Container, Drift, NodeId, Observation, Stamp};

/// Makes alert ids: milliseconds, a running number and the node, so that they sort by time.
#[derive(Debug)]
pub struct AlertIds {
    node: u32,
    next: u32,
}

impl AlertIds {
    /// For alerts of this node.
    pub fn new(node: &NodeId) -> Self {
        // FNV-1a: only keeps the ids of two nodes apart
        let node = node.as_str().bytes().fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
        });
        Self {
            node: node & 0x00ff_ffff,
            next: 0,
        }
    }

    /// The id of the next alert.
    pub fn next(&mut self, at: Stamp) -> AlertId {
        let ms = at.wall.0.max(0) / 1_000_000;
        self.next = (self.next + 1) % 100_000;
        let id = format!("A-{ms:013}-{:05}-{:06x}", self.next, self.node);
        AlertId::parse(&id).expect("digits and hyphens are allowed in an id")
    }
}

/// The alert of a drift (`None`: not worth one). `shelf` tells whether another instance did the
/// same.
pub fn alert_of(
    ids: &mut AlertIds,
    drift: &Drift,
    observation: &Observation,
    container: &Container,
    shelf: &Shelf,
) -> Option<Alert> {
    // an id is used up only by an alert that comes to be
    let novelty = novelty(drift, shelf);
    let prevented = observation.event.enforced.is_some_and(|e| e.is_prevented());
    if !prevented {
        plimsoll_baseline::priority(drift, novelty)?;
    }
    let id = ids.next(observation.at);
    plimsoll_baseline::alert(drift, observation, container, id, novelty)
}

fn novelty(drift: &Drift, shelf: &Shelf) -> Novelty {
    let baseline = drift.baseline.as_ref().and_then(|b| shelf.get(&b.id));
    baseline.map_or(Novelty::First, |s| {
        s.baseline.novelty(&drift.behaviour, &drift.instance)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::WallNs;

    #[test]
    fn alert_ids_sort_by_time_and_do_not_repeat() {
        let mut ids = AlertIds::new(&NodeId::parse("n").unwrap());
        let at = |wall| Stamp {
            wall: WallNs(wall),
            ..Stamp::default()
        };
        let a = ids.next(at(1_700_000_000_000_000_000));
        let b = ids.next(at(1_700_000_000_000_000_000));
        let c = ids.next(at(1_700_000_001_000_000_000));
        assert!(a < b && b < c, "{a} {b} {c}");
    }
}
