//! Reads typed values out of the tree, and says what was expected where they are something else.

use super::yaml::{Fault, Kind, Mark, Node};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A section whose keys have been checked against those that exist.
pub(super) struct Section<'a> {
    path: String,
    pairs: &'a [(Node, Node)],
}

type Result<T> = std::result::Result<T, Fault>;

fn expected(node: &Node, path: &str, what: impl std::fmt::Display) -> Fault {
    Fault {
        at: node.at,
        message: format!("{path}: expected {what}, found {}", node.found()),
    }
}

impl<'a> Section<'a> {
    /// A section with only these keys; `path` names it in messages (empty for the whole file).
    pub(super) fn new(node: Option<&'a Node>, path: &str, keys: &[&str]) -> Result<Self> {
        let shown = if path.is_empty() { "the file" } else { path };
        let pairs: &[(Node, Node)] = match node {
            None => &[],
            Some(node) => match &node.kind {
                Kind::Map(pairs) => pairs,
                _ if node.is_null() => &[],
                _ => {
                    return Err(expected(
                        node,
                        shown,
                        format_args!("a section with {}", list(keys)),
                    ));
                }
            },
        };
        for (key, _) in pairs {
            let Kind::Scalar { text, .. } = &key.kind else {
                return Err(expected(key, shown, "a key"));
            };
            if !keys.contains(&text.as_str()) {
                return Err(unknown_key(key.at, path, text, keys));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            pairs,
        })
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        self.pairs
            .iter()
            .find(|(k, _)| matches!(&k.kind, Kind::Scalar { text, .. } if text == key))
            .map(|(_, value)| value)
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A section below this one.
    pub(super) fn section(&self, key: &str, keys: &[&str]) -> Result<Section<'a>> {
        Section::new(self.get(key), &self.name(key), keys)
    }

    fn scalar(&self, key: &str, what: &str) -> Result<Option<(&'a Node, &'a str)>> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Ok(Some((node, text))),
            _ => Err(expected(node, &self.name(key), what)),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.scalar(key, "true or false")? {
            None => Ok(default),
            Some((_, "true")) => Ok(true),
            Some((_, "false")) => Ok(false),
            Some((node, _)) => Err(expected(node, &self.name(key), "true or false")),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> Result<T> {
        let names: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        let what = format!("one of {}", list(&names));
        match self.scalar(key, &what)? {
            None => Ok(default),
            Some((node, text)) => words
                .iter()
                .find(|(w, _)| *w == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| expected(node, &self.name(key), what)),
        }
    }

    fn number_of(
        &self,
        key: &str,
        bounds: &RangeInclusive<u64>,
        what: &str,
        read: fn(&str) -> Option<u64>,
    ) -> Result<Option<u64>> {
        let Some((node, text)) = self.scalar(key, what)? else {
            return Ok(None);
        };
        match read(text) {
            Some(n) if bounds.contains(&n) => Ok(Some(n)),
            _ => Err(expected(node, &self.name(key), what)),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64> {
        let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let read = |t: &str| t.replace('_', "").parse().ok();
        Ok(self
            .number_of(key, &bounds, &what, read)?
            .unwrap_or(default))
    }

    /// A number of bytes within bounds: `4194304`, `4MiB`.
    pub(super) fn bytes(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64> {
        let what = format!(
            "a size from {} to {} (such as 16MiB)",
            size(*bounds.start()),
            size(*bounds.end())
        );
        Ok(self
            .number_of(key, &bounds, &what, parse_bytes)?
            .unwrap_or(default))
    }

    /// The same, for the sizes that the kernel takes only as powers of two.
    pub(super) fn ring_bytes(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u32> {
        let what = format!(
            "a power of two from {} to {} (such as 16MiB)",
            size(*bounds.start()),
            size(*bounds.end())
        );
        let read = |t: &str| parse_bytes(t).filter(|n| n.is_power_of_two());
        let n = self
            .number_of(key, &bounds, &what, read)?
            .unwrap_or(default);
        u32::try_from(n).map_err(|_| Fault {
            at: Mark { line: 1, column: 1 },
            message: format!("{}: expected {what}", self.name(key)),
        })
    }

    /// A length of time within bounds: `90s`, `12h`, `30d`; `never` gives `None`.
    pub(super) fn age(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: Option<Duration>,
    ) -> Result<Option<Duration>> {
        let what = "a length of time (such as 12h or 30d) or never";
        if let Some((_, "never")) = self.scalar(key, what)? {
            return Ok(None);
        }
        let seconds = self.number_of(key, &bounds, what, parse_seconds)?;
        Ok(seconds.map(Duration::from_secs).or(default))
    }

    /// A length of time that ends.
    pub(super) fn time(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: Duration,
    ) -> Result<Duration> {
        let what = "a length of time (such as 90s, 5m or 12h)";
        let seconds = self.number_of(key, &bounds, what, parse_seconds)?;
        Ok(seconds.map_or(default, Duration::from_secs))
    }

    /// A fraction from 0 to 1, in thousandths.
    pub(super) fn permille(
        &self,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32> {
        let what = format!(
            "a fraction from {} to {}",
            f64::from(*bounds.start()) / 1000.0,
            f64::from(*bounds.end()) / 1000.0
        );
        let Some((node, text)) = self.scalar(key, &what)? else {
            return Ok(default);
        };
        text.parse::<f64>()
            .ok()
            .filter(|f| (0.0..=1.0).contains(f))
            .map(|f| (f * 1000.0).round() as u32)
            .filter(|n| bounds.contains(n))
            .ok_or_else(|| expected(node, &self.name(key), what))
    }

    /// Any text, checked by `parse`; `what` says what it has to be.
    pub(super) fn text<T>(
        &self,
        key: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((node, text)) = self.scalar(key, what)? else {
            return Ok(None);
        };
        parse(text)
            .map(Some)
            .ok_or_else(|| expected(node, &self.name(key), what))
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        self.text(key, "an absolute path", absolute)
    }

    /// A list of at most 64 absolute paths.
    pub(super) fn paths(&self, key: &str) -> Result<Vec<PathBuf>> {
        self.list_of(key, "absolute paths", "an absolute path", absolute)
    }

    /// A list of at most 64 texts, each checked by `parse`; `many` and `one` say what they have to be.
    pub(super) fn list_of<T>(
        &self,
        key: &str,
        many: &str,
        one: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>> {
        const MOST: usize = 64;
        let what = format!("a list of at most 64 {many}");
        let Some(node) = self.get(key) else {
            return Ok(Vec::new());
        };
        match &node.kind {
            _ if node.is_null() => Ok(Vec::new()),
            Kind::List(items) if items.len() <= MOST => items
                .iter()
                .map(|item| match &item.kind {
                    Kind::Scalar { text, .. } => {
                        parse(text).ok_or_else(|| expected(item, &self.name(key), one))
                    }
                    _ => Err(expected(item, &self.name(key), one)),
                })
                .collect(),
            _ => Err(expected(node, &self.name(key), what)),
        }
    }

    /// A section with keys of a person's choice, each with a text; `check` says what is wrong with one.
    pub(super) fn named(
        &self,
        key: &str,
        check: impl Fn(&str, &str) -> std::result::Result<(), String>,
    ) -> Result<Vec<(String, String)>> {
        let Some(node) = self.get(key) else {
            return Ok(Vec::new());
        };
        let pairs = match &node.kind {
            _ if node.is_null() => return Ok(Vec::new()),
            Kind::Map(pairs) => pairs,
            _ => {
                return Err(expected(
                    node,
                    &self.name(key),
                    "a section of names and texts",
                ));
            }
        };
        let one = |(name, value): &(Node, Node)| match (&name.kind, &value.kind) {
            (Kind::Scalar { text: name, .. }, Kind::Scalar { text, .. }) => {
                check(name, text).map_err(|why| Fault {
                    at: value.at,
                    message: format!("{}.{name}: {why}", self.name(key)),
                })?;
                Ok((name.clone(), text.clone()))
            }
            (Kind::Scalar { text: name, .. }, _) => {
                let path = format!("{}.{name}", self.name(key));
                Err(expected(value, &path, "a text"))
            }
            _ => Err(expected(name, &self.name(key), "a name")),
        };
        pairs.iter().map(one).collect()
    }

    /// A key that has to be there with one value.
    pub(super) fn must_be(&self, key: &str, value: &str, start: Mark) -> Result<()> {
        match self.scalar(key, value)? {
            Some((_, text)) if text == value => Ok(()),
            Some((node, _)) => Err(expected(node, &self.name(key), value)),
            None => Err(Fault {
                at: start,
                message: format!("expected \"{key}: {value}\", which says how to read the rest"),
            }),
        }
    }
}

fn absolute(text: &str) -> Option<PathBuf> {
    (text.starts_with('/') && text.len() < 4096 && !text.contains('\0')).then(|| text.into())
}

fn unknown_key(at: Mark, path: &str, key: &str, keys: &[&str]) -> Fault {
    let shown: String = key
        .chars()
        .take(60)
        .collect::<String>()
        .escape_debug()
        .to_string();
    let place = if path.is_empty() {
        String::new()
    } else {
        format!(" in {path}")
    };
    let near = keys
        .iter()
        .map(|k| (distance(k, key), *k))
        .min()
        .filter(|(d, k)| *d <= 2.max(k.len() / 3));
    let hint = match near {
        Some((_, k)) => format!("did you mean \"{k}\"?"),
        None => format!("expected {}", list(keys)),
    };
    Fault {
        at,
        message: format!("unknown key \"{shown}\"{place}: {hint}"),
    }
}

fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Edit distance of two short texts (Levenshtein, two rows); a long one is far from everything.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse().ok()?;
    Some((number, text[end..].trim_start()))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn parse_seconds(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A size as people write it.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_near() {
        assert_eq!(distance("retention", "retension"), 1);
        assert_eq!(distance("host", "ghost"), 1);
        assert_eq!(distance("host", "rings"), 5);
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(parse_bytes("16MiB"), Some(16 << 20));
        assert_eq!(parse_bytes("4_096"), Some(4096));
        assert_eq!(parse_bytes("16 MB"), None);
        assert_eq!(parse_bytes("99999999999999999999"), None);
        assert_eq!(parse_seconds("30d"), Some(30 * 86_400));
        assert_eq!(parse_seconds("-1s"), None);
    }
}
