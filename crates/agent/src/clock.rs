//! Two clocks, read together, and the anchor that is in force.
//!
//! Promise: an anchor is due every [`ANCHOR_EVERY`] and at once when the wall clock stepped
//! against the boot clock by more than an honest clock can slew. [`judge`] is pure; [`Clocks`] is
//! the seam that tests replace. Left out: who writes the anchor to the journal.

use plimsoll_model::{BootNs, ClockAnchor, Stamp, WallNs};
use rustix::time::{ClockId, clock_gettime};
use std::sync::RwLock;
use std::time::Duration;

/// An anchor is journalled at least this often.
pub const ANCHOR_EVERY: Duration = Duration::from_secs(10);
/// A difference up to this is reading noise, not a step.
const NOISE_NS: u64 = 10_000_000;
/// The kernel slews by at most 500 ppm (`adjtimex`), and a crystal is off by some 100.
const SLEW_PPM: u64 = 600;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Boot clock.
    pub boot: BootNs,
    /// Wall clock.
    pub wall: WallNs,
    /// Half the time that the reading took, nanoseconds.
    pub uncertainty_ns: u64,
}

/// Reads the clocks; tests supply their own.
pub trait Clocks: Send + Sync {
    /// Both clocks now.
    fn read(&self) -> Reading;
    /// The boot clock alone, which is cheaper.
    fn boot(&self) -> BootNs {
        self.read().boot
    }
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClocks;

fn nanos(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec)
}

impl Clocks for SystemClocks {
    fn read(&self) -> Reading {
        let before = nanos(ClockId::Boottime).unsigned_abs();
        let wall = nanos(ClockId::Realtime);
        let after = nanos(ClockId::Boottime).unsigned_abs();
        let half = after.saturating_sub(before) / 2;
        Reading {
            boot: BootNs(before + half),
            wall: WallNs(wall),
            uncertainty_ns: half.max(1),
        }
    }
    fn boot(&self) -> BootNs {
        BootNs(nanos(ClockId::Boottime).unsigned_abs())
    }
}

/// What a reading means after an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The anchor in force still holds.
    Holds,
    /// It is time for another one.
    Due(ClockAnchor),
    /// The wall clock stepped; the new anchor says by how much.
    Stepped(ClockAnchor),
}

/// Compares a reading with the anchor in force.
pub fn judge(anchor: &ClockAnchor, now: &Reading) -> Verdict {
    let elapsed = now.boot.0.saturating_sub(anchor.boot.0);
    let expected = anchor.stamp(now.boot).wall.0;
    let off = now.wall.0.saturating_sub(expected);
    let allowed =
        NOISE_NS + now.uncertainty_ns + anchor.uncertainty_ns + elapsed / 1_000_000 * SLEW_PPM;
    let fresh = |step_ns| ClockAnchor {
        boot: now.boot,
        wall: now.wall,
        uncertainty_ns: now.uncertainty_ns,
        step_ns,
    };
    if off.unsigned_abs() > allowed {
        Verdict::Stepped(fresh(off))
    } else if u128::from(elapsed) >= ANCHOR_EVERY.as_nanos() {
        Verdict::Due(fresh(0))
    } else {
        Verdict::Holds
    }
}

/// The anchor in force, shared by all threads.
#[derive(Debug)]
pub struct Anchor(RwLock<ClockAnchor>);

impl Anchor {
    /// Starts from a first reading.
    pub fn new(first: &Reading) -> Self {
        Self(RwLock::new(ClockAnchor {
            boot: first.boot,
            wall: first.wall,
            uncertainty_ns: first.uncertainty_ns,
            step_ns: 0,
        }))
    }
    /// The anchor in force.
    pub fn get(&self) -> ClockAnchor {
        *self
            .0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// Puts another one in force.
    pub fn set(&self, anchor: ClockAnchor) {
        *self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = anchor;
    }
    /// A boot time on both clocks.
    pub fn stamp(&self, boot: BootNs) -> Stamp {
        self.get().stamp(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor() -> ClockAnchor {
        ClockAnchor {
            boot: BootNs(1_000_000_000),
            wall: WallNs(50_000_000_000),
            uncertainty_ns: 100,
            step_ns: 0,
        }
    }
    fn after(boot_ms: u64, wall_ms: i64) -> Reading {
        Reading {
            boot: BootNs(1_000_000_000 + boot_ms * 1_000_000),
            wall: WallNs(50_000_000_000 + wall_ms * 1_000_000),
            uncertainty_ns: 100,
        }
    }

    #[test]
    fn a_slewed_clock_is_not_a_step() {
        assert_eq!(judge(&anchor(), &after(1000, 1001)), Verdict::Holds);
        assert!(matches!(
            judge(&anchor(), &after(10_000, 10_005)),
            Verdict::Due(_)
        ));
    }

    #[test]
    fn a_step_is_told_at_once_in_both_directions() {
        for (wall, step) in [(4600_i64, 3600), (-2600, -3600)] {
            let Verdict::Stepped(a) = judge(&anchor(), &after(1000, wall)) else {
                panic!("a step of {step} ms was not seen");
            };
            assert_eq!(a.step_ns, step * 1_000_000);
        }
    }

    #[test]
    fn the_machine_answers_in_order() {
        let a = SystemClocks.read();
        let b = SystemClocks.read();
        assert!(b.boot >= a.boot && a.wall.0 > 1_600_000_000_000_000_000);
    }
}
