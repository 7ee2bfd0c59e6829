//! YAML as a small tree in which every node knows its line and column.
//!
//! Promises: input, nodes and depth are bounded; a key that is given twice is an error, because
//! one of the two would be ignored in silence. Left out: anchors, tags and several documents,
//! which files of this size do not need and which make their errors hard to place.

use saphyr_parser::{Event, Parser, ScalarStyle};

const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// A place in the file; both numbers start at 1, as editors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Line of the file.
    pub line: usize,
    /// Character of the line.
    pub column: usize,
}

impl Mark {
    /// Where every file begins: the place of what is missing altogether.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A message about a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The place.
    pub at: Mark,
    /// What is wrong there, and what was expected.
    pub message: String,
}

impl Fault {
    /// A message about a place.
    pub fn new(at: Mark, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, message }
    }
}

/// A value and its place.
#[derive(Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Mark,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// A scalar's text; `plain` when it was not quoted.
    Scalar {
        /// As it is meant, without quotes and escapes.
        text: String,
        /// Not quoted.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// Keys and values in the file's order; no key stands twice.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What the node is, for "expected …, found …".
    pub fn found(&self) -> String {
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

    /// Whether nothing is given: `key:`, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null"))
    }
}

struct Open {
    at: Mark,
    is_map: bool,
    items: Vec<Node>,
}

/// Reads one document of at most `bytes_max` bytes; `None` when the text holds none (empty, or comments
/// only).
///
/// # Errors
/// What is not YAML, too large or too deep, has aliases or several documents, with its place.
pub fn parse(text: &str, bytes_max: usize) -> Result<Option<Node>, Fault> {
    if text.len() > bytes_max {
        let message = format!("expected at most {bytes_max} bytes");
        return Err(Fault::new(Mark::START, message));
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
            Fault::new(at, format!("not YAML: {}", e.info()))
        })?;
        let at = Mark {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        };
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(Fault::new(
                at,
                format!("expected at most {MAX_NODES} nodes"),
            ));
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
                    return Err(Fault::new(
                        at,
                        format!("expected at most {MAX_DEPTH} levels"),
                    ));
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
                return Err(Fault::new(at, "expected a value, found an alias"));
            }
            _ => continue,
        };
        match open.last_mut() {
            Some(parent) => parent.items.push(done),
            None if root.is_some() => {
                return Err(Fault::new(at, "expected one document, found a second one"));
            }
            None => root = Some(done),
        }
    }
    Ok(root.filter(|r| !r.is_null()))
}

fn close(open: Open) -> Result<Node, Fault> {
    let kind =
        if open.is_map {
            let mut pairs: Vec<(Node, Node)> = Vec::with_capacity(open.items.len() / 2);
            let mut items = open.items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                if let Kind::Scalar { text, .. } = &key.kind
                && pairs.iter().any(
                    |(k, _)| matches!(&k.kind, Kind::Scalar { text: other, .. } if other == text),
                )
            {
                return Err(Fault::new(key.at, format!("{} is given twice", key.found())));
            }
                pairs.push((key, value));
            }
            Kind::Map(pairs)
        } else {
            Kind::List(open.items)
        };
    Ok(Node { at: open.at, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Node>, Fault> {
        parse(text, 4096)
    }

    #[test]
    fn a_key_given_twice_names_the_second_place() {
        let e = read("host: true\nnode: a\nhost: false\n").unwrap_err();
        assert_eq!((e.at.line, e.at.column), (3, 1));
    }

    #[test]
    fn a_long_file_is_refused_before_it_is_read() {
        assert!(read(&"# x\n".repeat(1025)).is_err());
    }

    #[test]
    fn comments_alone_are_no_document() {
        assert!(read("# nothing here\n").unwrap().is_none());
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn deep_nesting_and_aliases_are_refused() {
        assert!(read(&"[".repeat(1000)).is_err());
        assert!(read("a: &x 1\nb: *x\n").is_err());
    }
}
