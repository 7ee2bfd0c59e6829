//! Two clocks, and how they hang together.
//!
//! Boot time orders what happened on one node and never steps; wall time lets nodes and people
//! compare. A [`ClockAnchor`] is journalled every 10 s and whenever the wall clock steps, so that
//! any boot time can be turned into a wall time with a stated uncertainty.

use minicbor::{Decode, Encode};

/// Nanoseconds since boot (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BootNs(#[n(0)] pub u64);

/// Nanoseconds since 1970-01-01T00:00:00Z (`CLOCK_REALTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct WallNs(#[n(0)] pub i64);

impl WallNs {
    /// RFC 3339 in UTC with nanoseconds, as Falco prints it: `2026-11-21T01:02:03.000000004Z`.
    pub fn rfc3339(self) -> String {
        let secs = self.0.div_euclid(1_000_000_000);
        let ns = self.0.rem_euclid(1_000_000_000);
        let (y, m, d) = civil_from_days(secs.div_euclid(86_400));
        let s = secs.rem_euclid(86_400);
        format!(
            "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{ns:09}Z",
            s / 3600,
            s / 60 % 60,
            s % 60
        )
    }
}

/// Days since 1970-01-01 to (year, month, day), proleptic Gregorian (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Stamp {
    /// Boot clock.
    #[n(0)]
    pub boot: BootNs,
    /// Wall clock, derived from the anchor in force.
    #[n(1)]
    pub wall: WallNs,
    /// Bound on the error of `wall`, nanoseconds.
    #[n(2)]
    pub uncertainty_ns: u64,
}

/// A reading of both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ClockAnchor {
    /// Boot clock at the reading.
    #[n(0)]
    pub boot: BootNs,
    /// Wall clock at the reading.
    #[n(1)]
    pub wall: WallNs,
    /// Half the time that the reading took, nanoseconds.
    #[n(2)]
    pub uncertainty_ns: u64,
    /// By how much the wall clock stepped against the previous anchor, nanoseconds (0: it did not).
    #[n(3)]
    pub step_ns: i64,
}

impl ClockAnchor {
    /// The wall time of a boot time, as this anchor sees it.
    pub fn stamp(&self, boot: BootNs) -> Stamp {
        let delta = boot.0 as i128 - self.boot.0 as i128;
        Stamp {
            boot,
            wall: WallNs((i128::from(self.wall.0) + delta) as i64),
            // a free-running crystal is good for some 50 ppm between two anchors
            uncertainty_ns: self.uncertainty_ns + (delta.unsigned_abs() as u64) / 20_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_right_on_known_dates() {
        assert_eq!(WallNs(0).rfc3339(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            WallNs(1_709_210_096_000_000_007).rfc3339(),
            "2024-02-29T12:34:56.000000007Z"
        );
        assert_eq!(WallNs(-1).rfc3339(), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn a_stamp_moves_with_the_boot_clock() {
        let a = ClockAnchor {
            boot: BootNs(100),
            wall: WallNs(1000),
            uncertainty_ns: 5,
            step_ns: 0,
        };
        assert_eq!(a.stamp(BootNs(160)).wall, WallNs(1060));
        assert_eq!(a.stamp(BootNs(40)).wall, WallNs(940));
    }
}
