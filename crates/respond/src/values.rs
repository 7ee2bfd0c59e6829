//! Small values of the policy language: lengths of time, address prefixes, patterns.

use std::net::IpAddr;

/// A length of time in milliseconds: `250ms`, `10s`, `5m`, `1h`, `7d`; at most 365 days.
pub fn parse_ms(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text.get(..end)?.parse().ok()?;
    let factor: u64 = match text.get(end..)? {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number
        .checked_mul(factor)
        .filter(|ms| *ms <= 365 * 86_400_000)
}

/// An address with an optional prefix length: `10.0.0.0/8`, `::1`.
pub fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((a, l)) => (a, Some(l)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(l) if l.bytes().all(|b| b.is_ascii_digit()) => l.parse().ok()?,
        Some(_) => return None,
    };
    (length <= most).then_some((address, length))
}

/// Whether `text` is what `pattern` says; `*` stands for any characters, `?` for one. Linear in
/// memory, at worst `pattern × text` in time, and both are bounded by their callers.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        match p.get(i) {
            Some(b'*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(&c) if c == b'?' || c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    i = at + 1;
                    j = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_units_and_an_end() {
        assert_eq!(parse_ms("250ms"), Some(250));
        assert_eq!(parse_ms("5m"), Some(300_000));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 s",
            "99999999999999999999s",
            "9999d",
        ] {
            assert_eq!(parse_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefixes_are_checked() {
        assert_eq!(
            parse_prefix("10.0.0.0/8"),
            Some((IpAddr::from([10, 0, 0, 0]), 8))
        );
        assert!(parse_prefix("::1").is_some_and(|(_, l)| l == 128));
        for bad in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "host", ""] {
            assert_eq!(parse_prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("db-*", "db-1", true),
            ("db-*", "adb-1", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
