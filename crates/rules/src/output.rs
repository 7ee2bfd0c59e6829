//! What an alert says: an output with its fields filled in.
//!
//! Promises: `%field`, `%field[arg]`, transformers and widths (`%20proc.name`) as in Falco; a value
//! that is absent is `<NA>` in the text and `null` in the fields. Control characters of the event
//! are escaped in the text, so that an event cannot forge lines of a log.
//!
//! Leaves out: the rest of the alert (time, host, ids), which the caller adds.

use serde::Serialize;

use crate::fields::FieldRef;
use crate::graph::{Graph, OperandId};
use crate::judge::Slots;
use crate::syntax;
use crate::value::{EventView, Value};
use crate::{RuleId, Ruleset, Source};

/// What Falco's container plugin adds to outputs.
const SUGGESTED: &str = " container_id=%container.id container_name=%container.name \
     container_image_repository=%container.image.repository \
     container_image_tag=%container.image.tag k8s_pod_name=%k8s.pod.name k8s_ns_name=%k8s.ns.name";
/// What `%container.info` stands for, where nothing is added.
const CONTAINER_INFO: &str = "container_id=%container.id container_name=%container.name";
/// An output is at most this long.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// A list is shown with at most this many items.
const MAX_SHOWN_ITEMS: usize = 256;

/// An output, compiled.
#[derive(Debug)]
pub(crate) struct Output {
    pieces: Vec<Piece>,
}

impl Output {
    /// What its fields are made of.
    pub(crate) fn operands(&self) -> impl Iterator<Item = OperandId> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field { operand, .. } => Some(*operand),
            Piece::Text(_) => None,
        })
    }
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Field {
        name: String,
        operand: OperandId,
        width: usize,
    },
}

/// Why an output does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("'%' has to be followed by a field: {message}")]
    Field {
        at: usize,
        message: String,
        unknown: bool,
    },
    #[error("the output ends with '%'")]
    EndsWithPercent { at: usize },
    #[error("the output is longer than {MAX_OUTPUT_BYTES} bytes")]
    TooLong,
}

impl OutputError {
    pub(crate) fn at(&self) -> usize {
        match self {
            Self::Field { at, .. } | Self::EndsWithPercent { at } => *at,
            Self::TooLong => 0,
        }
    }

    pub(crate) fn is_unknown_field(&self) -> bool {
        matches!(self, Self::Field { unknown: true, .. })
    }
}

impl Output {
    pub(crate) fn compile(
        text: &str,
        suggested: bool,
        source: Source,
        graph: &mut Graph,
    ) -> Result<Self, OutputError> {
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(OutputError::TooLong);
        }
        let mut output = Self { pieces: Vec::new() };
        // In front, '*' says that values may be absent. They always may.
        let mut at = usize::from(text.starts_with('*'));
        let mut plain = String::new();
        while let Some(next) = text[at..].find('%') {
            plain.push_str(&text[at..at + next]);
            at += next + 1;
            if let Some(rest) = text[at..].strip_prefix("container.info") {
                if suggested {
                    plain.truncate(plain.trim_end().len());
                } else {
                    output.flush(&mut plain);
                    output
                        .pieces
                        .extend(Self::compile(CONTAINER_INFO, false, source, graph)?.pieces);
                }
                at = text.len() - rest.len();
                continue;
            }
            if at == text.len() {
                return Err(OutputError::EndsWithPercent { at: at - 1 });
            }
            let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
            let width = text[at..at + digits]
                .parse::<usize>()
                .unwrap_or(0)
                .min(4096);
            at += digits;
            let (operand, len) =
                shown_operand(&text[at..], source, graph).map_err(|(message, unknown)| {
                    OutputError::Field {
                        at,
                        message,
                        unknown,
                    }
                })?;
            output.flush(&mut plain);
            let name = text[at..at + len].to_owned();
            output.pieces.push(Piece::Field {
                name,
                operand,
                width,
            });
            at += len;
        }
        plain.push_str(&text[at..]);
        output.flush(&mut plain);
        if suggested {
            output
                .pieces
                .extend(Self::compile(SUGGESTED, false, source, graph)?.pieces);
        }
        Ok(output)
    }

    fn flush(&mut self, plain: &mut String) {
        if !plain.is_empty() {
            self.pieces.push(Piece::Text(std::mem::take(plain)));
        }
    }

    pub(crate) fn fields<'g>(&'g self, graph: &'g Graph) -> impl Iterator<Item = &'g FieldRef> {
        let mut found = Vec::new();
        for piece in &self.pieces {
            if let Piece::Field { operand, .. } = piece {
                graph.fields_of(*operand, &mut found);
            }
        }
        found.into_iter()
    }
}

/// Reads what stands behind a `%`: of a name that no field has, the longest beginning that one has.
fn shown_operand(
    text: &str,
    source: Source,
    graph: &mut Graph,
) -> Result<(OperandId, usize), (String, bool)> {
    let (operand, len) = syntax::parse_operand_prefix(text).map_err(|e| (e.message, true))?;
    let error = match crate::compile::lower_shown(graph, &operand, source) {
        Ok(id) => return Ok((id, len)),
        Err(error) => error,
    };
    if let syntax::Operand::Field { name, .. } = &operand {
        for end in (1..name.len()).rev().filter(|e| name.is_char_boundary(*e)) {
            if let Ok((shorter, len)) = syntax::parse_operand_prefix(&name[..end])
                && len == end
                && let Ok(id) = crate::compile::lower_shown(graph, &shorter, source)
            {
                return Ok((id, end));
            }
        }
    }
    Err(error)
}

/// An output, filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Rendered {
    /// The text.
    pub output: String,
    /// The fields in it, by name, in their order; each once.
    pub output_fields: Vec<(String, OutputValue)>,
}

/// A value, as alerts carry it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OutputValue {
    /// There is none.
    Absent,
    /// True or false.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    UInt(u64),
    /// A number with a fraction.
    Double(f64),
    /// Anything else, as text; bytes that are not UTF-8 are replaced.
    Text(String),
}

impl Ruleset {
    /// Fills in the output of a rule.
    pub fn render<V: EventView + ?Sized>(&self, rule: RuleId, event: &V) -> Rendered {
        let compiled = &self.compiled[rule.index()];
        let mut slots = Slots::new(&self.graph);
        slots.epoch = 1;
        let mut rendered = Rendered {
            output: String::new(),
            output_fields: Vec::new(),
        };
        let mut shown = |output: &Output, text: &mut String| {
            let mut values = Vec::new();
            for piece in &output.pieces {
                match piece {
                    Piece::Text(plain) => text.push_str(plain),
                    Piece::Field {
                        name,
                        operand,
                        width,
                    } => {
                        slots.fill(&self.graph, *operand, event, event.kind());
                        let value = slots.value(&self.graph, *operand, event, event.kind());
                        let start = text.len();
                        escape_into(&show(value), text);
                        fit(text, start, *width);
                        values.push((name.clone(), to_output(value)));
                    }
                }
            }
            values
        };
        for (name, value) in shown(&compiled.output, &mut rendered.output) {
            if !rendered.output_fields.iter().any(|(n, _)| *n == name) {
                rendered.output_fields.push((name, value));
            }
        }
        for (name, output) in &compiled.extra {
            let mut text = String::new();
            let mut values = shown(output, &mut text);
            let value = match (values.pop(), output.pieces.len()) {
                (Some((_, value)), 1) => value,
                _ => OutputValue::Text(text),
            };
            rendered.output_fields.retain(|(n, _)| n != name);
            rendered.output_fields.push((name.clone(), value));
        }
        rendered
    }
}

/// Cuts or fills a piece of text to a width, where one is asked for.
fn fit(text: &mut String, start: usize, width: usize) {
    if width == 0 {
        return;
    }
    let chars = text[start..].chars().count();
    if chars > width {
        let cut = text[start..]
            .char_indices()
            .nth(width)
            .map_or(text.len(), |(i, _)| start + i);
        text.truncate(cut);
    }
    text.extend(std::iter::repeat_n(' ', width.saturating_sub(chars)));
}

fn to_output(value: Value<'_>) -> OutputValue {
    match value {
        Value::Absent | Value::Unknown => OutputValue::Absent,
        Value::Bool(b) => OutputValue::Bool(b),
        Value::Int(n) => OutputValue::Int(n),
        Value::UInt(n) => OutputValue::UInt(n),
        Value::Double(n) => OutputValue::Double(n),
        Value::Text(_) | Value::Ip(_) | Value::List(_) => OutputValue::Text(show(value)),
    }
}

/// A value as text; bytes that are not UTF-8 are replaced.
pub(crate) fn show(value: Value<'_>) -> String {
    let mut bytes = Vec::new();
    show_into(value, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn show_into(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Absent | Value::Unknown => out.extend_from_slice(b"<NA>"),
        Value::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
        Value::Int(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::UInt(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Double(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Ip(ip) => out.extend_from_slice(ip.to_string().as_bytes()),
        Value::Text(text) => out.extend_from_slice(text),
        Value::List(list) => {
            out.push(b'(');
            for i in 0..list.len().min(MAX_SHOWN_ITEMS) {
                if i > 0 {
                    out.push(b',');
                }
                match list.get(i) {
                    Value::List(_) => out.extend_from_slice("(…)".as_bytes()),
                    one => show_into(one, out),
                }
            }
            out.push(b')');
        }
    }
}

fn escape_into(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}
