//! The clock seam: the journal never reads time elsewhere.

use rustix::time::{ClockId, clock_gettime};

/// Gives the journal its two clocks; tests supply a fixed one.
pub trait Clock: Send + Sync {
    /// Wall-clock time in nanoseconds since 1970, UTC; may step.
    fn wall_ns(&self) -> i64;
    /// Time since boot in nanoseconds, suspend included; never steps.
    fn boot_ns(&self) -> u64;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ns(&self) -> i64 {
        let t = clock_gettime(ClockId::Realtime);
        t.tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(t.tv_nsec)
    }

    fn boot_ns(&self) -> u64 {
        let t = clock_gettime(ClockId::Boottime);
        let ns = t
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(t.tv_nsec);
        u64::try_from(ns).unwrap_or(0)
    }
}
