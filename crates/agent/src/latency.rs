//! How long alerts took, from the act in the kernel to the journal, in buckets of a power of two.
//!
//! Promise: recording is one atomic addition; a quantile is the upper bound of its bucket, so it
//! errs upwards, by less than a factor of 1.2.

use std::sync::atomic::{AtomicU64, Ordering};

/// Five buckets for each doubling, from 1 µs to about an hour.
const BUCKETS: usize = 160;
const PER_DOUBLING: f64 = 5.0;

/// Two distributions: until the alert was handed to the journal, and until it was durable.
#[derive(Debug)]
pub struct Latency {
    handed: [AtomicU64; BUCKETS],
    durable: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            handed: std::array::from_fn(|_| AtomicU64::new(0)),
            durable: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

fn bucket(ns: u64) -> usize {
    let us = (ns as f64 / 1000.0).max(1.0);
    ((us.log2() * PER_DOUBLING).ceil() as usize).min(BUCKETS - 1)
}

fn quantile(buckets: &[AtomicU64; BUCKETS], q: f64) -> Option<u64> {
    let counts: Vec<u64> = buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * q).ceil() as u64).max(1);
    let mut seen = 0;
    let at = counts.iter().position(|n| {
        seen += n;
        seen >= rank
    })?;
    (total > 0).then(|| (1000.0 * (at as f64 / PER_DOUBLING).exp2()) as u64)
}

impl Latency {
    /// An alert was handed over this long after the act.
    pub fn handed(&self, ns: u64) {
        self.handed[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }
    /// An alert was durable this long after the act.
    pub fn durable(&self, ns: u64) {
        self.durable[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }
    /// A quantile of the time until handed over, nanoseconds.
    pub fn handed_quantile(&self, q: f64) -> Option<u64> {
        quantile(&self.handed, q)
    }
    /// A quantile of the time until durable, nanoseconds.
    pub fn durable_quantile(&self, q: f64) -> Option<u64> {
        quantile(&self.durable, q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_errs_upwards_and_by_little() {
        let latency = Latency::default();
        assert_eq!(latency.handed_quantile(0.99), None);
        for _ in 0..990 {
            latency.handed(1_000_000);
        }
        for _ in 0..10 {
            latency.handed(50_000_000);
        }
        let p99 = latency.handed_quantile(0.99).unwrap();
        assert!((1_000_000..1_200_000).contains(&p99), "{p99}");
        let p100 = latency.handed_quantile(1.0).unwrap();
        assert!((50_000_000..60_000_000).contains(&p100), "{p100}");
    }
}
