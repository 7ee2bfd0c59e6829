//! YAML as a small tree in which every node knows its line and column.
//!
//! The same small reader as the agent's configuration has (a domain crate stands on `model`
//! alone). Promises: input, nodes and depth are bounded; a key given twice is an error. Left out:
//! anchors, tags and several documents.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// A policy file is at most this long: it is journalled whole.
pub(crate) const MAX_FILE_BYTES: usize = 256 << 10;
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// A place in the file; both numbers start at 1, as editors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A message about a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Mark,
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
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
    pub(crate) fn found(&self) -> String {
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
    pub(crate) fn is_null(&self) -> bool {
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
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Fault> {
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
