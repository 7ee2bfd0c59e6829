//! How many process events of one container are kept: a fork bomb must not fill the journal.
//!
//! Promise: a token bucket each for exec, fork and exit; what it refuses is counted by the caller.
//! The process table has taken the event in by then, so lineage stays whole. Pure.

/// Process events a second that are kept in the long run, for one kind and container.
pub const PER_SECOND: u64 = 2000;
/// And at once.
pub const AT_ONCE: u64 = 8000;

/// Which bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program was executed.
    Exec,
    /// A process was made.
    Fork,
    /// A process ended.
    Exit,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Millionths of an event.
    left: u64,
    at_ns: u64,
}

const MICRO: u64 = 1_000_000;

/// The buckets of one container.
#[derive(Clone, Copy, Debug)]
pub struct Quota([Bucket; 3]);

impl Default for Quota {
    fn default() -> Self {
        let full = Bucket {
            left: AT_ONCE * MICRO,
            at_ns: 0,
        };
        Self([full; 3])
    }
}

impl Quota {
    /// Whether one more event of this kind is kept.
    pub fn admit(&mut self, kind: Kind, now_ns: u64) -> bool {
        let bucket = &mut self.0[kind as usize];
        let passed = now_ns.saturating_sub(bucket.at_ns).min(60_000_000_000);
        bucket.at_ns = bucket.at_ns.max(now_ns);
        bucket.left = (bucket.left + passed / 1000 * PER_SECOND).min(AT_ONCE * MICRO);
        if bucket.left < MICRO {
            return false;
        }
        bucket.left -= MICRO;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_bomb_is_cut_and_a_busy_shell_is_not() {
        let mut quota = Quota::default();
        let second = 1_000_000_000_u64;
        let bomb = (0..100_000_u64)
            .filter(|n| quota.admit(Kind::Fork, second + n * 10_000))
            .count() as u64;
        assert!(
            (AT_ONCE..=AT_ONCE + PER_SECOND + 1).contains(&bomb),
            "{bomb}"
        );
        let shell = (0..1000_u64)
            .filter(|n| quota.admit(Kind::Exec, second + n * second / 1000))
            .count();
        assert_eq!(shell, 1000);
    }
}
