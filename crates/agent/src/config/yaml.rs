//! YAML as a small tree in which every node knows its line and column.
//!
//! Promises: input, nodes and depth are bounded; a key that is given twice is an error, because
//! one of the two would be ignored in silence. Left out: anchors, tags and several documents,
//! which a configuration of this size does not need and which make its errors hard to place.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// A configuration file is at most this long.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// A place in the file; both numbers start at 1, as editors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A message about a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Mark,
    pub(super) message: String,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A scalar's text; `plain` when it was not quoted.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What the node is, for "expected …, found …".
    pub(super) fn found(&self) -> String {
        match &self.kind {
            Kind::Scalar { text, plain: true } if text.is_empty() || text == "~" => {
                "nothing".into()
            }
            Kind::Scalar { text, .. } => {
                let shown: String = text.chars().take(60).collect();
                format!("\"{}\"", shown.escape_debug())
            }
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a section".into(),
        }
    }
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null"))
    }
}

struct Open {
    at: Mark,
    is_map: bool,
    items: Vec<Node>,
}

/// Reads one document; `None` when the text holds none (empty, or comments only).
pub(super) fn parse(text: &str) -> Result<Option<Node>, Fault> {
    let start = Mark { line: 1, column: 1 };
    if text.len() > MAX_FILE_BYTES {
        return Err(fault(
            start,
            format!("expected at most {MAX_FILE_BYTES} bytes"),
        ));
    }
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    let mut nodes = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let at = Mark {
                line: e.marker().line().max(1),
                column: e.marker().col() + 1,
            };
            fault(at, format!("not YAML: {}", e.info()))
        })?;
        let at = Mark {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        };
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(fault(at, format!("expected at most {MAX_NODES} nodes")));
        }
        let done = match event {
            Event::Scalar(text, style, ..) => Node {
                at,
                kind: Kind::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                },
            },
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    return Err(fault(at, format!("expected at most {MAX_DEPTH} levels")));
                }
                open.push(Open {
                    at,
                    is_map: matches!(event, Event::MappingStart(..)),
                    items: Vec::new(),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(o) => close(o)?,
                None => continue,
            },
            Event::Alias(_) => {
                return Err(fault(at, "expected a value, found an alias".into()));
            }
            _ => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.items.push(done),
            None if root.is_some() => {
                return Err(fault(
                    at,
                    "expected one document, found a second one".into(),
                ));
            }
            None => root = Some(done),
        }
    }
    Ok(root.filter(|r| !r.is_null()))
}

fn close(open: Open) -> Result<Node, Fault> {
    let kind = if open.is_map {
        let mut pairs: Vec<(Node, Node)> = Vec::with_capacity(open.items.len() / 2);
        let mut items = open.items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if let Kind::Scalar { text, .. } = &key.kind
                && pairs.iter().any(
                    |(k, _)| matches!(&k.kind, Kind::Scalar { text: other, .. } if other == text),
                )
            {
                return Err(fault(key.at, format!("{} is given twice", key.found())));
            }
            pairs.push((key, value));
        }
        Kind::Map(pairs)
    } else {
        Kind::List(open.items)
    };
    Ok(Node { at: open.at, kind })
}

fn fault(at: Mark, message: String) -> Fault {
    Fault { at, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_names_the_second_place() {
        let e = parse("host: true\nnode: a\nhost: false\n").unwrap_err();
        assert_eq!((e.at.line, e.at.column), (3, 1));
    }

    #[test]
    fn comments_alone_are_no_document() {
        assert!(parse("# nothing here\n").unwrap().is_none());
        assert!(parse("").unwrap().is_none());
    }

    #[test]
    fn deep_nesting_and_aliases_are_refused() {
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse("a: &x 1\nb: *x\n").is_err());
    }
}
