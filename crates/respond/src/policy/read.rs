//! Typed values out of the tree, and what was expected where they are something else.

use super::yaml::{Fault, Kind, Mark, Node};

pub(crate) type Result<T> = std::result::Result<T, Fault>;

/// Texts in one list at most, and bytes of one text.
const LIST_MAX: usize = 256;
const TEXT_MAX: usize = 512;

/// A section whose keys have been checked against those that exist.
pub(crate) struct Section<'a> {
    pub(crate) at: Mark,
    path: String,
    pairs: &'a [(Node, Node)],
}

/// "expected …, found …", at the place of `node`.
pub(crate) fn expected(node: &Node, path: &str, what: &str) -> Fault {
    Fault {
        at: node.at,
        message: format!("{path}: expected {what}, found {}", node.found()),
    }
}

pub(crate) fn scalar(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, .. } if !node.is_null() && text.len() <= TEXT_MAX => Some(text),
        _ => None,
    }
}

impl<'a> Section<'a> {
    pub(crate) fn new(node: &'a Node, path: &str, keys: &[&str]) -> Result<Self> {
        let shown = if path.is_empty() { "the file" } else { path };
        let Kind::Map(pairs) = &node.kind else {
            let what = format!("a section with {}", keys.join(", "));
            return Err(expected(node, shown, &what));
        };
        for (key, _) in pairs {
            let name = scalar(key).ok_or_else(|| expected(key, shown, "a key"))?;
            if !keys.contains(&name) {
                let what = format!("one of {}", keys.join(", "));
                return Err(expected(key, shown, &what));
            }
        }
        Ok(Self {
            at: node.at,
            path: path.to_owned(),
            pairs,
        })
    }

    pub(crate) fn name(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(k, v)| scalar(k) == Some(key) && !v.is_null())
            .map(|(_, v)| v)
    }

    pub(crate) fn section(&self, key: &str, keys: &[&str]) -> Result<Option<Section<'a>>> {
        let section = |node| Section::new(node, &self.name(key), keys);
        self.get(key).map(section).transpose()
    }

    /// A value read by `parse`; `what` says what it has to be.
    pub(crate) fn value<T>(
        &self,
        key: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        let found = scalar(node).and_then(parse);
        found
            .map(Some)
            .ok_or_else(|| expected(node, &self.name(key), what))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let read = |t: &str| match t {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        Ok(self.value(key, "true or false", read)?.unwrap_or(default))
    }

    pub(crate) fn number(&self, key: &str, most: u64) -> Result<Option<u64>> {
        let what = format!("a whole number from 0 to {most}");
        let read = |t: &str| t.parse().ok().filter(|n| *n <= most);
        self.value(key, &what, read)
    }

    pub(crate) fn millis(&self, key: &str) -> Result<Option<u64>> {
        let what = "a length of time such as 500ms, 30s, 10m or 1h";
        self.value(key, what, crate::values::parse_ms)
    }

    /// One text, or a list of them.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(node) = self.get(key) else {
            return Ok(Vec::new());
        };
        let what = "a text or a list of texts";
        let one = |n: &Node| scalar(n).map(str::to_owned);
        let fault = |n: &Node| expected(n, &self.name(key), what);
        match &node.kind {
            Kind::List(items) if items.len() <= LIST_MAX => items
                .iter()
                .map(|n| one(n).ok_or_else(|| fault(n)))
                .collect(),
            _ => Ok(vec![one(node).ok_or_else(|| fault(node))?]),
        }
    }

    /// Names and texts: `{app: web, tier: "*"}`.
    pub(crate) fn pairs(&self, key: &str) -> Result<Vec<(String, String)>> {
        let Some(node) = self.get(key) else {
            return Ok(Vec::new());
        };
        let fault = |n: &Node| expected(n, &self.name(key), "names and texts");
        let Kind::Map(pairs) = &node.kind else {
            return Err(fault(node));
        };
        if pairs.len() > LIST_MAX {
            return Err(fault(node));
        }
        let pair = |(k, v): &(Node, Node)| {
            let name = scalar(k).ok_or_else(|| fault(k))?;
            let text = scalar(v).ok_or_else(|| fault(v))?;
            Ok((name.to_owned(), text.to_owned()))
        };
        pairs.iter().map(pair).collect()
    }

    pub(crate) fn list(&self, key: &str) -> Result<&'a [Node]> {
        match self.get(key) {
            None => Ok(&[]),
            Some(node) => match &node.kind {
                Kind::List(items) if items.len() <= LIST_MAX => Ok(items),
                _ => Err(expected(node, &self.name(key), "a list")),
            },
        }
    }
}
