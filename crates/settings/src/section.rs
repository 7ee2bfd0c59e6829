//! Reads typed values out of the tree, and says what was expected where they are something else.

use crate::tree::{Fault, Kind, Mark, Node};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A value, or what is wrong and where.
pub type Result<T> = std::result::Result<T, Fault>;

/// Items of one list, or keys of a person's choice in one section, at most.
pub const LIST_MAX: usize = 256;

/// Bytes of one text at most.
const TEXT_MAX: usize = 4096;

/// A section whose keys have been checked against those that exist.
pub struct Section<'a> {
    /// Where it begins; the start of the file if it is not there.
    pub at: Mark,
    path: String,
    pairs: &'a [(Node, Node)],
}

/// "expected …, found …", at the place of `node`; `path` names the key.
pub fn expected(node: &Node, path: &str, what: impl std::fmt::Display) -> Fault {
    let found = node.found();
    Fault::new(node.at, format!("{path}: expected {what}, found {found}"))
}

/// The text of a scalar that is given, of at most 4,096 bytes.
pub fn scalar(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } if !node.is_null() && text.len() <= TEXT_MAX => Some(text),
        _ => None,
    }
}

impl<'a> Section<'a> {
    /// A section with only these keys; `path` names it in messages (empty for the whole file).
    ///
    /// # Errors
    /// Something else than a section, or a key that is none of `keys`.
    pub fn new(node: Option<&'a Node>, path: &str, keys: &[&str]) -> Result<Self> {
        let shown = if path.is_empty() { "the file" } else { path };
        let pairs: &[(Node, Node)] = match node {
            None => &[],
            Some(node) => match &node.kind {
                Kind::Map(pairs) => pairs,
                _ if node.is_null() => &[],
                _ => {
                    let what = format_args!("a section with {}", list(keys));
                    return Err(expected(node, shown, what));
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
            at: node.map_or(Mark::START, |n| n.at),
            path: path.to_owned(),
            pairs,
        })
    }

    /// The value of a key that stands there, be it nothing.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.pairs
            .iter()
            .find(|(k, _)| matches!(&k.kind, Kind::Scalar { text, .. } if text == key))
            .map(|(_, value)| value)
    }

    /// Whether a key has a value.
    pub fn gives(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| !node.is_null())
    }

    /// What a key is called in messages: with the sections it stands in.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A section below this one; an empty one if it is not there.
    ///
    /// # Errors
    /// As [`Section::new`].
    pub fn section(&self, key: &str, keys: &[&str]) -> Result<Section<'a>> {
        Section::new(self.get(key), &self.name(key), keys)
    }

    /// Any text, read by `parse`; `what` says what it has to be.
    ///
    /// # Errors
    /// Something else than a text, or one that `parse` does not take.
    pub fn text<T>(
        &self,
        key: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        match scalar(node).and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(expected(node, &self.name(key), what)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let read = |t: &str| t.parse().ok();
        Ok(self.text(key, "true or false", read)?.unwrap_or(default))
    }

    /// One of a few words.
    ///
    /// # Errors
    /// Another word.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> Result<T> {
        let names: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        let read = |t: &str| words.iter().find(|(w, _)| *w == t).map(|(_, value)| *value);
        let what = format!("one of {}", list(&names));
        Ok(self.text(key, &what, read)?.unwrap_or(default))
    }

    /// A whole number within bounds, if it is given.
    ///
    /// # Errors
    /// No number, or one beyond the bounds.
    pub fn whole(&self, key: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>> {
        let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let read = |t: &str| t.replace('_', "").parse().ok();
        self.text(key, &what, |t| read(t).filter(|n| bounds.contains(n)))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// As [`Section::whole`].
    pub fn number(&self, key: &str, bounds: RangeInclusive<u64>, default: u64) -> Result<u64> {
        Ok(self.whole(key, bounds)?.unwrap_or(default))
    }

    /// A number of bytes within bounds: `4194304`, `4MiB`.
    ///
    /// # Errors
    /// No size, or one beyond the bounds.
    pub fn bytes(&self, key: &str, bounds: RangeInclusive<u64>, default: u64) -> Result<u64> {
        let (least, most) = (size(*bounds.start()), size(*bounds.end()));
        let what = format!("a size from {least} to {most} (such as 16MiB)");
        let read = |t: &str| parse_bytes(t).filter(|n| bounds.contains(n));
        Ok(self.text(key, &what, read)?.unwrap_or(default))
    }

    /// The same, for the sizes that the kernel takes only as powers of two.
    ///
    /// # Errors
    /// As [`Section::bytes`], and no power of two.
    pub fn ring_bytes(&self, key: &str, bounds: RangeInclusive<u32>, default: u32) -> Result<u32> {
        let least = size((*bounds.start()).into());
        let most = size((*bounds.end()).into());
        let what = format!("a power of two from {least} to {most} (such as 16MiB)");
        let read = |t: &str| {
            let bytes = u32::try_from(parse_bytes(t)?).ok()?;
            (bounds.contains(&bytes) && bytes.is_power_of_two()).then_some(bytes)
        };
        Ok(self.text(key, &what, read)?.unwrap_or(default))
    }

    /// A length of time within bounds, in seconds: `90s`, `12h`, `30d`; `never` gives `None`.
    ///
    /// # Errors
    /// No length of time, or one beyond the bounds.
    pub fn age(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: Option<Duration>,
    ) -> Result<Option<Duration>> {
        let what = "a length of time (such as 12h or 30d) or never";
        let read = |t: &str| match t {
            "never" => Some(None),
            _ => parse_seconds(t)
                .filter(|n| bounds.contains(n))
                .map(|n| Some(Duration::from_secs(n))),
        };
        Ok(self.text(key, what, read)?.unwrap_or(default))
    }

    /// A length of time that ends, within bounds, in seconds.
    ///
    /// # Errors
    /// No length of time, or one beyond the bounds.
    pub fn time(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: Duration,
    ) -> Result<Duration> {
        let (least, most) = (bounds.start(), bounds.end());
        let what = format!("a length of time from {least}s to {most}s (such as 90s, 5m or 12h)");
        let read = |t: &str| parse_seconds(t).filter(|n| bounds.contains(n));
        let seconds = self.text(key, &what, read)?;
        Ok(seconds.map_or(default, Duration::from_secs))
    }

    /// A fraction from 0 to 1, in thousandths.
    ///
    /// # Errors
    /// No such fraction, or one beyond the bounds.
    pub fn permille(&self, key: &str, bounds: RangeInclusive<u32>) -> Result<Option<u32>> {
        let shown = |n: &u32| f64::from(*n) / 1000.0;
        let (least, most) = (shown(bounds.start()), shown(bounds.end()));
        let what = format!("a fraction from {least} to {most}");
        let read = |t: &str| {
            let fraction: f64 = t.parse().ok().filter(|f| (0.0..=1.0).contains(f))?;
            Some((fraction * 1000.0).round() as u32).filter(|n| bounds.contains(n))
        };
        self.text(key, &what, read)
    }

    /// An absolute path.
    ///
    /// # Errors
    /// Anything else.
    pub fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        self.text(key, "an absolute path", absolute)
    }

    /// A list of absolute paths.
    ///
    /// # Errors
    /// Anything else, or over [`LIST_MAX`].
    pub fn paths(&self, key: &str) -> Result<Vec<PathBuf>> {
        self.list_of(key, "absolute paths", "an absolute path", absolute)
    }

    /// A list, each item as it stands.
    ///
    /// # Errors
    /// Anything else, or over [`LIST_MAX`] items.
    pub fn list(&self, key: &str, many: &str) -> Result<&'a [Node]> {
        let Some(node) = self.get(key).filter(|n| !n.is_null()) else {
            return Ok(&[]);
        };
        match &node.kind {
            Kind::List(items) if items.len() <= LIST_MAX => Ok(items),
            _ => {
                let what = format_args!("a list of at most {LIST_MAX} {many}");
                Err(expected(node, &self.name(key), what))
            }
        }
    }

    /// A list of texts, each read by `parse`; `many` and `one` say what they have to be.
    ///
    /// # Errors
    /// As [`Section::list`], or an item that `parse` does not take.
    pub fn list_of<T>(
        &self,
        key: &str,
        many: &str,
        one: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>> {
        let items = self.list(key, many)?.iter();
        let read = |item| {
            let value = scalar(item).and_then(&parse);
            value.ok_or_else(|| expected(item, &self.name(key), one))
        };
        items.map(read).collect()
    }

    /// One text, or a list of them.
    ///
    /// # Errors
    /// Anything else, or over [`LIST_MAX`] of them.
    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        match self.get(key).and_then(scalar) {
            Some(text) => Ok(vec![text.to_owned()]),
            None => self.list_of(key, "texts", "a text", |t| Some(t.to_owned())),
        }
    }

    /// A section with keys of a person's choice, each with a text; `check` says what is wrong with one.
    ///
    /// # Errors
    /// Anything else, over [`LIST_MAX`] of them, or what `check` says.
    pub fn named(
        &self,
        key: &str,
        check: impl Fn(&str, &str) -> std::result::Result<(), String>,
    ) -> Result<Vec<(String, String)>> {
        let Some(node) = self.get(key).filter(|n| !n.is_null()) else {
            return Ok(Vec::new());
        };
        let pairs = match &node.kind {
            Kind::Map(pairs) if pairs.len() <= LIST_MAX => pairs,
            _ => {
                let what = format_args!("a section of at most {LIST_MAX} names and texts");
                return Err(expected(node, &self.name(key), what));
            }
        };
        let one = |(name, value): &(Node, Node)| {
            let word = scalar(name).ok_or_else(|| expected(name, &self.name(key), "a name"))?;
            let path = format!("{}.{word}", self.name(key));
            let text = scalar(value).ok_or_else(|| expected(value, &path, "a text"))?;
            check(word, text).map_err(|why| Fault::new(value.at, format!("{path}: {why}")))?;
            Ok((word.to_owned(), text.to_owned()))
        };
        pairs.iter().map(one).collect()
    }

    /// A section with keys of a person's choice, each with a text: `{app: web, tier: "*"}`.
    ///
    /// # Errors
    /// Anything else, or over [`LIST_MAX`] of them.
    pub fn named_texts(&self, key: &str) -> Result<Vec<(String, String)>> {
        self.named(key, |_, _| Ok(()))
    }

    /// A key that has to be there with one value.
    ///
    /// # Errors
    /// Another value, or none.
    pub fn must_be(&self, key: &str, value: &str) -> Result<()> {
        let read = |t: &str| (t == value).then_some(());
        self.text(key, value, read)?.ok_or_else(|| {
            let message = format!("expected \"{key}: {value}\", which says how to read the rest");
            Fault::new(Mark::START, message)
        })
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
