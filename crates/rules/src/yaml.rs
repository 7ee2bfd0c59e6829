//! YAML with the place of every node, as far as rule files need it.
//!
//! Promises: each node knows its line and column; time and memory are bounded by the bounds below,
//! also for anchors that refer to each other (an alias is the same node, never a copy).
//! As in Falco, the first of two equal keys counts, and `<<` is a key like any other.
//!
//! Leaves out: tags and types. A scalar is its text; who reads it decides what it means.

use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle};

/// A file is at most this long.
pub(crate) const MAX_FILE_BYTES: usize = 32 << 20;
/// A file has at most this many nodes.
const MAX_NODES: usize = 4_000_000;
/// Sequences and mappings lie in each other at most this deep.
const MAX_DEPTH: usize = 64;

/// One file as it was handed in.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) name: String,
    pub(crate) text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    pub(crate) fn new(name: &str, text: &str) -> Arc<Self> {
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(i, _)| i + 1),
            )
            .collect();
        Arc::new(Self {
            name: name.to_owned(),
            text: text.to_owned(),
            line_starts,
        })
    }

    /// Byte offset of a mark.
    pub(crate) fn offset(&self, mark: Mark) -> usize {
        let start = self
            .line_starts
            .get(mark.line as usize)
            .copied()
            .unwrap_or(self.text.len());
        self.text[start..]
            .char_indices()
            .nth(mark.column as usize)
            .map_or(self.text.len(), |(i, _)| start + i)
    }

    /// The mark of a byte offset.
    pub(crate) fn mark(&self, offset: usize) -> Mark {
        let offset = offset.min(self.text.len());
        let line = self
            .line_starts
            .partition_point(|s| *s <= offset)
            .saturating_sub(1);
        let column = self
            .text
            .get(self.line_starts[line]..offset)
            .map_or(0, |t| t.chars().count());
        Mark {
            line: line as u32,
            column: column as u32,
        }
    }

    /// One line, without its end.
    pub(crate) fn line(&self, line: u32) -> &str {
        let start = self
            .line_starts
            .get(line as usize)
            .copied()
            .unwrap_or(self.text.len());
        self.text[start..].lines().next().unwrap_or("")
    }
}

/// A place in a file; both numbers start at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar { text: String, plain: bool },
    Sequence(Vec<NodeId>),
    Mapping(Vec<(NodeId, NodeId)>),
}

#[derive(Debug)]
struct Node {
    mark: Mark,
    kind: Kind,
}

/// The documents of one file.
#[derive(Debug)]
pub(crate) struct Yaml {
    nodes: Vec<Node>,
    pub(crate) documents: Vec<NodeId>,
}

/// Why a text is not YAML that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    pub(crate) mark: Mark,
    pub(crate) message: String,
}

/// Where reading stopped, and in what.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) error: YamlError,
    /// Where the entry of the outermost sequence begins that could not be read; `None`: there was none.
    pub(crate) in_entry: Option<Mark>,
    /// Column of the outermost sequence.
    pub(crate) column: Option<u32>,
}

/// A sequence or mapping that is still being read.
struct Open {
    anchor: usize,
    mark: Mark,
    items: Vec<NodeId>,
    is_mapping: bool,
}

impl Yaml {
    /// The whole text, or why not.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Self, YamlError> {
        match Self::parse_what_reads(text) {
            (yaml, None) => Ok(yaml),
            (_, Some(stopped)) => Err(stopped.error),
        }
    }

    /// The text up to where it stops being YAML: of the sequence that was being read then, the entries
    /// that were whole.
    pub(crate) fn parse_what_reads(text: &str) -> (Self, Option<Stopped>) {
        let mut reader = Reader {
            yaml: Self {
                nodes: Vec::new(),
                documents: Vec::new(),
            },
            anchors: Default::default(),
            open: Vec::new(),
        };
        let error = reader.read(text).err();
        let stopped = error.map(|error| reader.stop(error));
        (reader.yaml, stopped)
    }

    pub(crate) fn kind(&self, id: NodeId) -> &Kind {
        &self.nodes[id.0 as usize].kind
    }

    pub(crate) fn mark(&self, id: NodeId) -> Mark {
        self.nodes[id.0 as usize].mark
    }

    /// The text of a scalar.
    pub(crate) fn scalar(&self, id: NodeId) -> Option<&str> {
        match self.kind(id) {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        matches!(self.kind(id), Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(crate) fn sequence(&self, id: NodeId) -> Option<&[NodeId]> {
        match self.kind(id) {
            Kind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn mapping(&self, id: NodeId) -> Option<&[(NodeId, NodeId)]> {
        match self.kind(id) {
            Kind::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key; of two equal keys the first, as in Falco.
    pub(crate) fn get(&self, id: NodeId, key: &str) -> Option<NodeId> {
        self.mapping(id)?
            .iter()
            .find(|(k, _)| self.scalar(*k) == Some(key))
            .map(|(_, v)| *v)
    }
}

struct Reader {
    yaml: Yaml,
    anchors: std::collections::HashMap<usize, NodeId>,
    open: Vec<Open>,
}

impl Reader {
    fn read(&mut self, text: &str) -> Result<(), YamlError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(YamlError {
                mark: Mark::default(),
                message: format!("the file is longer than {MAX_FILE_BYTES} bytes"),
            });
        }
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| {
                let mark = Mark {
                    line: e.marker().line().saturating_sub(1) as u32,
                    column: e.marker().col() as u32,
                };
                tab_near(text, mark).unwrap_or_else(|| YamlError {
                    mark,
                    message: e.info(),
                })
            })?;
            let mark = Mark {
                line: span.start.line().saturating_sub(1) as u32,
                column: span.start.col() as u32,
            };
            self.take(event, mark)?;
        }
        Ok(())
    }

    /// Keeps the entries of the outermost sequence that were whole.
    fn stop(&mut self, error: YamlError) -> Stopped {
        let inner = self.open.get(1).map(|o| o.mark);
        let mut outer = self.open.drain(..).next().filter(|o| !o.is_mapping);
        // where nothing was begun behind it, the last entry may be the one that ended too early
        let last = match (inner, &mut outer) {
            (None, Some(outer)) => outer.items.pop().map(|id| self.yaml.mark(id)),
            _ => None,
        };
        let column = outer.as_ref().map(|o| o.mark.column);
        if let Some(outer) = outer {
            let id = NodeId(self.yaml.nodes.len() as u32);
            self.yaml.nodes.push(Node {
                mark: outer.mark,
                kind: Kind::Sequence(outer.items),
            });
            self.yaml.documents.push(id);
        }
        Stopped {
            in_entry: inner.or(last),
            column,
            error,
        }
    }

    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                self.add(
                    Kind::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                    mark,
                    anchor,
                )
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = *node;
                    self.place(node, mark)
                }
                None => Err(YamlError {
                    mark,
                    message: "an alias inside of what it stands for".to_owned(),
                }),
            },
            Event::SequenceStart(_, anchor, _) => self.enter(anchor, mark, false),
            Event::MappingStart(_, anchor, _) => self.enter(anchor, mark, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let kind = if open.is_mapping {
                    Kind::Mapping(
                        open.items
                            .as_chunks::<2>()
                            .0
                            .iter()
                            .map(|[k, v]| (*k, *v))
                            .collect(),
                    )
                } else {
                    Kind::Sequence(open.items)
                };
                self.add(kind, open.mark, open.anchor)
            }
            Event::UnresolvedAlias(name) => Err(YamlError {
                mark,
                message: format!("there is no anchor '{name}'"),
            }),
            // Documents are told apart by their roots; the rest is how it was written.
            _ => Ok(()),
        }
    }

    fn enter(&mut self, anchor: usize, mark: Mark, is_mapping: bool) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError {
                mark,
                message: format!("sequences and mappings nested deeper than {MAX_DEPTH}"),
            });
        }
        self.open.push(Open {
            anchor,
            mark,
            items: Vec::new(),
            is_mapping,
        });
        Ok(())
    }

    fn add(&mut self, kind: Kind, mark: Mark, anchor: usize) -> Result<(), YamlError> {
        let id = NodeId(self.yaml.nodes.len() as u32);
        self.yaml.nodes.push(Node { mark, kind });
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        self.place(id, mark)
    }

    fn place(&mut self, id: NodeId, mark: Mark) -> Result<(), YamlError> {
        if self.yaml.nodes.len() > MAX_NODES {
            return Err(YamlError {
                mark,
                message: format!("more than {MAX_NODES} nodes"),
            });
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(id),
            None => self.yaml.documents.push(id),
        }
        Ok(())
    }
}

/// A line that a tab indents, where the parser has stopped or on the line behind: it names the text
/// that it was in the middle of.
fn tab_near(text: &str, stopped: Mark) -> Option<YamlError> {
    let near = text.lines().enumerate().skip(stopped.line as usize).take(2);
    for (line, content) in near {
        let indent = content.len() - content.trim_start_matches([' ', '\t']).len();
        if let Some(column) = content[..indent].find('\t') {
            return Some(YamlError {
                mark: Mark {
                    line: line as u32,
                    column: column as u32,
                },
                message: "a tab indents this line; YAML is indented with blanks".to_owned(),
            });
        }
    }
    None
}

/// The offset in the file of an offset in a scalar's text.
///
/// A folded scalar's text differs from the file only in white space (and a quoted one in escapes),
/// so the place is found by counting what is not white space.
pub(crate) fn locate(file: &SourceFile, scalar: Mark, text: &str, offset: usize) -> Mark {
    let wanted = text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| !b.is_ascii_whitespace())
        .count();
    let mut at = file.offset(scalar);
    let bytes = file.text.as_bytes();
    match bytes.get(at) {
        Some(b'>' | b'|') => {
            at += bytes[at..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(0, |n| n + 1);
        }
        Some(b'"' | b'\'') => at += 1,
        _ => {}
    }
    let mut seen = 0;
    while let Some(byte) = bytes.get(at) {
        if !byte.is_ascii_whitespace() {
            if seen == wanted {
                break;
            }
            seen += 1;
        }
        at += 1;
    }
    while at > 0 && !file.text.is_char_boundary(at) {
        at -= 1;
    }
    file.mark(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_equal_keys_counts() {
        let yaml = Yaml::parse("- a: 1\n  a: 2\n").unwrap();
        let item = yaml.sequence(yaml.documents[0]).unwrap()[0];
        assert_eq!(yaml.scalar(yaml.get(item, "a").unwrap()), Some("1"));
    }

    #[test]
    fn aliases_share_and_documents_follow_each_other() {
        let yaml = Yaml::parse("- &x [a, b]\n- *x\n---\n- c\n").unwrap();
        let items = yaml.sequence(yaml.documents[0]).unwrap();
        assert_eq!(items[0], items[1]);
        assert_eq!(yaml.documents.len(), 2);
    }

    #[test]
    fn a_place_in_a_folded_scalar_is_a_place_in_the_file() {
        let file = SourceFile::new("f", "- condition: >\n    a and\n    (b or c)\n");
        let yaml = Yaml::parse(&file.text).unwrap();
        let item = yaml.sequence(yaml.documents[0]).unwrap()[0];
        let value = yaml.get(item, "condition").unwrap();
        let text = yaml.scalar(value).unwrap();
        let at = text.find('b').unwrap();
        assert_eq!(
            locate(&file, yaml.mark(value), text, at),
            Mark { line: 2, column: 5 }
        );
    }

    #[test]
    fn deep_nesting_and_bombs_end_with_an_error_or_small() {
        let deep = format!("- {}", "[".repeat(10_000));
        assert!(Yaml::parse(&deep).is_err());
        let mut bomb = String::from("- &a0 [x, x]\n");
        for i in 1..40 {
            bomb.push_str(&format!("- &a{i} [*a{p}, *a{p}]\n", p = i - 1));
        }
        assert!(Yaml::parse(&bomb).unwrap().nodes.len() < 200);
    }
}
