//! How often something happened in the last hour, in 60 numbers.

use plimsoll_model::BootNs;

const MINUTE_NS: u64 = 60_000_000_000;
const MINUTES: usize = 60;

/// Counts by minute of the boot clock, the last sixty of them.
#[derive(Debug)]
pub(crate) struct LastHour {
    counts: [u64; MINUTES],
    newest: u64,
}

impl Default for LastHour {
    fn default() -> Self {
        Self {
            counts: [0; MINUTES],
            newest: 0,
        }
    }
}

impl LastHour {
    /// It happened now.
    pub(crate) fn note(&mut self, now: BootNs) {
        self.turn(now);
        self.counts[self.newest as usize % MINUTES] += 1;
    }

    /// How often in the hour that ends now; the oldest minute is counted by whole minutes.
    pub(crate) fn count(&mut self, now: BootNs) -> u64 {
        self.turn(now);
        self.counts.iter().sum()
    }

    /// Forgets the minutes that have left the hour. A reading behind the newest counts as the newest.
    fn turn(&mut self, now: BootNs) {
        let minute = now.0 / MINUTE_NS;
        let passed = minute.saturating_sub(self.newest).min(MINUTES as u64);
        for n in 1..=passed {
            self.counts[(minute - passed + n) as usize % MINUTES] = 0;
        }
        self.newest = self.newest.max(minute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_an_hour_is_forgotten_minute_by_minute() {
        let at = |minutes: u64| BootNs(minutes * MINUTE_NS);
        let mut hour = LastHour::default();
        assert_eq!(hour.count(at(1000)), 0);
        hour.note(at(1000));
        hour.note(at(1000));
        hour.note(at(1030));
        // a thread that read its clock before another
        hour.note(at(1029));
        assert_eq!(hour.count(at(1059)), 4);
        assert_eq!(hour.count(at(1060)), 2);
        assert_eq!(hour.count(at(1089)), 2);
        assert_eq!(hour.count(at(1090)), 0);
        hour.note(at(5000));
        assert_eq!(hour.count(at(5000)), 1);
        assert_eq!(hour.count(at(u64::MAX / MINUTE_NS)), 0);
    }
}
