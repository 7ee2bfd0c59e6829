//! Times and lengths of time as people type them.

use plimsoll_model::WallNs;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// The present, by the wall clock of this machine.
pub(crate) fn now() -> WallNs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallNs(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// `90s`, `10m`, `1h30m`, `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) ns: u64,
}

impl FromStr for Length {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{s:?} is no length of time: expected a number and a unit, such as 90s, 10m, 1h30m or 2d"
            )
        };
        let (mut ns, mut rest) = (0u64, s);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit_len = rest[digits..]
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len() - digits);
            let unit = match &rest[digits..digits + unit_len] {
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" | "min" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                _ => return Err(wrong()),
            };
            ns = number
                .checked_mul(unit)
                .and_then(|n| ns.checked_add(n))
                .ok_or_else(wrong)?;
            rest = &rest[digits + unit_len..];
        }
        if s.is_empty() {
            Err(wrong())
        } else {
            Ok(Self { ns })
        }
    }
}

/// A moment: a length of time ago, or a date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Ago(Length),
    At(WallNs),
}

impl Moment {
    pub(crate) fn wall(self, now: WallNs) -> WallNs {
        match self {
            Moment::Ago(length) => WallNs(now.0.saturating_sub_unsigned(length.ns)),
            Moment::At(wall) => wall,
        }
    }
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Ok(length) = s.parse() {
            return Ok(Moment::Ago(length));
        }
        rfc3339(s).map(Moment::At).ok_or_else(|| {
            format!("{s:?} is no time: expected a length of time ago (10m, 1h30m, 2d) or a date in UTC (2026-11-21 or 2026-11-21T01:02:03Z)")
        })
    }
}

/// `2026-11-21`, `2026-11-21T01:02:03Z`, `2026-11-21 01:02:03.004Z`; UTC only.
pub(crate) fn rfc3339(s: &str) -> Option<WallNs> {
    let s = s.strip_suffix(['Z', 'z']).unwrap_or(s);
    let (date, time) = s.split_once(['T', 't', ' ']).unwrap_or((s, "00:00:00"));
    let mut parts = date.split('-').map(|p| p.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = whole.split(':').map(|p| p.parse::<i64>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let sane = (1970..=2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && fraction.len() <= 9
        && fraction.bytes().all(|b| b.is_ascii_digit());
    if !sane {
        return None;
    }
    let ns: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(WallNs(seconds * 1_000_000_000 + ns))
}

/// (year, month, day) to days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(y: i64, m: i64, d: i64) -> i64 {
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_people_type_them() {
        let ns = |s: &str| s.parse::<Length>().map(|l| l.ns / 1_000_000_000);
        assert_eq!(ns("90s"), Ok(90));
        assert_eq!(ns("1h30m"), Ok(5400));
        assert_eq!(ns("2d"), Ok(172_800));
        for bad in ["", "5", "h", "1w", "99999999999999d", "-1h"] {
            assert!(ns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_date_survives_printing_and_reading() {
        for text in [
            "1970-01-01T00:00:00.000000000Z",
            "2024-02-29T12:34:56.000000007Z",
        ] {
            assert_eq!(rfc3339(text).unwrap().rfc3339(), text);
        }
        assert_eq!(rfc3339("2026-11-21"), rfc3339("2026-11-21 00:00:00Z"));
        assert_eq!(rfc3339("2026-11-21T01:02"), rfc3339("2026-11-21T01:02:00Z"));
        for bad in [
            "now",
            "2026-13-01",
            "2026-11-21T25:00:00Z",
            "2026-11-21T01:02:03+01:00",
        ] {
            assert!(rfc3339(bad).is_none(), "{bad}");
        }
    }
}
