//! Conditions, compiled: operands, comparisons and their combinations, each kept once.
//!
//! Promises: two parts of conditions that say the same are the same node, whatever rule or macro
//! they stand in, so that each is judged once an event. Depth is bounded.
//!
//! Leaves out: the order and form in which events are judged (`plan`), which differs per kind.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use crate::events::{EventKind, KindSet};
use crate::fields::{Field, FieldArg, FieldRef, FieldType, NodeCapabilities, Shape};
use crate::matcher::Test;
use crate::syntax::{Op, Quantifier};
use crate::value::{Tri, Value};

/// Nodes lie in each other at most this deep.
pub(crate) const MAX_DEPTH: u16 = 250;
/// An expanded condition that is shown is cut at about this many bytes.
const MAX_SHOWN_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OperandId(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeafId(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

/// What a comparison is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    Field(FieldRef),
    Transform {
        by: Transformer,
        args: Vec<OperandId>,
    },
    Text(Box<[u8]>),
    List(Vec<OperandId>),
}

/// What makes a value of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transformer {
    ToLower,
    ToUpper,
    B64,
    Basename,
    Len,
    Join,
    Concat,
    /// Short options and their values; or the value of the last of one letter.
    Getopt {
        letter: Option<u8>,
    },
}

impl Transformer {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "tolower" => Self::ToLower,
            "toupper" => Self::ToUpper,
            "b64" => Self::B64,
            "basename" => Self::Basename,
            "len" => Self::Len,
            "join" => Self::Join,
            "concat" => Self::Concat,
            "getopt" => Self::Getopt { letter: None },
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ToLower => "tolower",
            Self::ToUpper => "toupper",
            Self::B64 => "b64",
            Self::Basename => "basename",
            Self::Len => "len",
            Self::Join => "join",
            Self::Concat => "concat",
            Self::Getopt { .. } => "getopt",
        }
    }
}

/// What an operand's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) ty: FieldType,
    pub(crate) shape: Shape,
}

/// What a comparison compares with, as its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Nothing,
    Values(Vec<Vec<u8>>),
    Operand(OperandId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LeafKey {
    operand: OperandId,
    op: Op,
    quantifier: Option<Quantifier>,
    side: Side,
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) operand: OperandId,
    pub(crate) op: Op,
    pub(crate) quantifier: Option<Quantifier>,
    pub(crate) side: Side,
    pub(crate) typed: Typed,
    /// With constants; comparisons of two operands have none.
    pub(crate) test: Option<Test>,
    pub(crate) cost: u32,
}

/// A combination of comparisons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    And(Box<[NodeId]>),
    Or(Box<[NodeId]>),
    Not(NodeId),
    Leaf(LeafId),
}

/// All parts of all conditions.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    operands: Vec<Operand>,
    operand_ids: FxHashMap<Operand, OperandId>,
    typed: Vec<Typed>,
    leaves: Vec<Leaf>,
    leaf_ids: FxHashMap<LeafKey, LeafId>,
    nodes: Vec<Node>,
    node_ids: FxHashMap<Node, NodeId>,
    depths: Vec<u16>,
}

impl Graph {
    pub(crate) fn operand(&self, id: OperandId) -> &Operand {
        &self.operands[id.0 as usize]
    }

    pub(crate) fn typed(&self, id: OperandId) -> Typed {
        self.typed[id.0 as usize]
    }

    pub(crate) fn operand_count(&self) -> usize {
        self.operands.len()
    }

    pub(crate) fn leaf(&self, id: LeafId) -> &Leaf {
        &self.leaves[id.0 as usize]
    }

    pub(crate) fn leaves(&self) -> impl Iterator<Item = (LeafId, &Leaf)> {
        self.leaves
            .iter()
            .enumerate()
            .map(|(i, l)| (LeafId(i as u32), l))
    }

    pub(crate) fn leaf_count(&self) -> usize {
        self.leaves.len()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn depth(&self, id: NodeId) -> u16 {
        self.depths[id.0 as usize]
    }

    pub(crate) fn add_operand(&mut self, operand: Operand, typed: Typed) -> OperandId {
        if let Some(id) = self.operand_ids.get(&operand) {
            return *id;
        }
        let id = OperandId(self.operands.len() as u32);
        self.operands.push(operand.clone());
        self.typed.push(typed);
        self.operand_ids.insert(operand, id);
        id
    }

    /// Adds a comparison with constants, unless it is there already.
    pub(crate) fn add_leaf(
        &mut self,
        operand: OperandId,
        op: Op,
        quantifier: Option<Quantifier>,
        mut side: Side,
    ) -> Result<NodeId, String> {
        let typed = self.typed(operand);
        if let Side::Values(values) = &mut side
            && (op.takes_list() || matches!(quantifier, Some(Quantifier::Any | Quantifier::All)))
        {
            values.sort_unstable();
            values.dedup();
        }
        let key = LeafKey {
            operand,
            op,
            quantifier,
            side,
        };
        if let Some(id) = self.leaf_ids.get(&key) {
            return Ok(self.add_node(Node::Leaf(*id)));
        }
        let test = match &key.side {
            Side::Operand(_) => None,
            Side::Nothing => Some(Test::Exists),
            Side::Values(values) => Some(Test::new(typed.ty, op, quantifier, values)?),
        };
        let cost = self.operand_cost(operand)
            + test.as_ref().map_or(8, Test::cost)
            + match &key.side {
                Side::Operand(other) => self.operand_cost(*other),
                _ => 0,
            };
        let id = LeafId(self.leaves.len() as u32);
        self.leaves.push(Leaf {
            operand,
            op,
            quantifier,
            side: key.side.clone(),
            typed,
            test,
            cost,
        });
        self.leaf_ids.insert(key, id);
        Ok(self.add_node(Node::Leaf(id)))
    }

    pub(crate) fn add_node(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.node_ids.get(&node) {
            return *id;
        }
        let below = match &node {
            Node::And(c) | Node::Or(c) => c.iter().map(|c| self.depth(*c)).max().unwrap_or(0),
            Node::Not(c) => self.depth(*c),
            Node::Leaf(_) => 0,
        };
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node.clone());
        self.depths.push(below.saturating_add(1));
        self.node_ids.insert(node, id);
        id
    }

    fn operand_cost(&self, id: OperandId) -> u32 {
        match self.operand(id) {
            Operand::Text(_) => 0,
            Operand::Field(field) => match (field.shape(), field.field.info().ty) {
                (Shape::Lineage, _) => 12,
                (_, FieldType::Text | FieldType::Bytes) => 2,
                _ => 1,
            },
            Operand::Transform { args, .. } | Operand::List(args) => {
                args.iter().map(|a| self.operand_cost(*a)).sum::<u32>() + 20
            }
        }
    }

    /// The fields an operand is made of.
    pub(crate) fn fields_of<'g>(&'g self, id: OperandId, found: &mut Vec<&'g FieldRef>) {
        match self.operand(id) {
            Operand::Field(field) => found.push(field),
            Operand::Text(_) => {}
            Operand::Transform { args, .. } | Operand::List(args) => {
                args.iter().for_each(|a| self.fields_of(*a, found));
            }
        }
    }

    /// The fields a condition asks for, each once.
    pub(crate) fn fields_under(&self, root: NodeId) -> Vec<&FieldRef> {
        let mut found = Vec::new();
        self.leaves_under(root, |leaf| {
            self.fields_of(leaf.operand, &mut found);
            if let Side::Operand(other) = leaf.side {
                self.fields_of(other, &mut found);
            }
        });
        found.sort_by_key(|f| f.to_string());
        found.dedup();
        found
    }

    /// Visits each comparison under a node once.
    pub(crate) fn leaves_under<'g>(&'g self, root: NodeId, mut visit: impl FnMut(&'g Leaf)) {
        self.leaves_and_ids_under(root, |_, leaf| visit(leaf));
    }

    fn leaves_and_ids_under<'g>(&'g self, root: NodeId, mut visit: impl FnMut(NodeId, &'g Leaf)) {
        let mut seen = rustc_hash::FxHashSet::default();
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.node(id) {
                Node::And(c) | Node::Or(c) => stack.extend(c.iter().copied()),
                Node::Not(c) => stack.push(*c),
                Node::Leaf(leaf) => visit(id, self.leaf(*leaf)),
            }
        }
    }

    /// What a comparison gives where only the kind of event counts; `None` where more does.
    pub(crate) fn leaf_by_kind(&self, leaf: &Leaf, kind: EventKind) -> Option<bool> {
        let Operand::Field(field) = self.operand(leaf.operand) else {
            return None;
        };
        if field.field == Field::EvtNum {
            return never_or_always(leaf);
        }
        let test = leaf.test.as_ref()?;
        let value = kind_value(field, kind)?;
        Some(!matches!(value, Value::Absent) && test.holds(value))
    }

    /// The kinds of event for which a condition can be true.
    pub(crate) fn kinds_of(&self, root: NodeId, memo: &mut KindMemo) -> KindSet {
        self.kind_sets(root, memo).0
    }

    /// The kinds of event for which a condition can be known to be true on a node that does not
    /// have all fields.
    pub(crate) fn kinds_told(&self, root: NodeId, told: &NodeCapabilities) -> KindSet {
        let mut memo = KindMemo::default();
        self.leaves_and_ids_under(root, |id, leaf| {
            let mut fields = Vec::new();
            self.fields_of(leaf.operand, &mut fields);
            if let Side::Operand(other) = leaf.side {
                self.fields_of(other, &mut fields);
            }
            if fields.iter().any(|f| told.missing(f).is_some()) {
                memo.0.insert(id, (KindSet::EMPTY, KindSet::EMPTY));
            } else if let Some((is, _)) = self.asks_for_a_missing_value(leaf, told) {
                let sets = (KindSet::EMPTY, KindSet::all());
                memo.0.insert(id, if is { sets } else { (sets.1, sets.0) });
            }
        });
        self.kind_sets(root, &mut memo).0
    }

    /// Whether a comparison asks for a value that its field never has here: `Some((true, why))` for
    /// `=` (never true), `Some((false, why))` for `!=` (never false).
    pub(crate) fn asks_for_a_missing_value<'t>(
        &self,
        leaf: &Leaf,
        told: &'t NodeCapabilities,
    ) -> Option<(bool, &'t str)> {
        let (Operand::Field(field), Side::Values(values)) =
            (self.operand(leaf.operand), &leaf.side)
        else {
            return None;
        };
        let is = match leaf.op {
            Op::Eq | Op::In | Op::Startswith => true,
            Op::Ne => false,
            _ => return None,
        };
        let begins = leaf.op == Op::Startswith;
        let mut why = None;
        for value in values {
            why = Some(told.never(field.field, value, begins)?);
        }
        Some((is, why?))
    }

    /// Kinds for which a node can be true, and for which it can be false.
    fn kind_sets(&self, id: NodeId, memo: &mut KindMemo) -> (KindSet, KindSet) {
        if let Some(sets) = memo.0.get(&id) {
            return *sets;
        }
        let sets =
            match self.node(id) {
                Node::Leaf(leaf) => {
                    let leaf = self.leaf(*leaf);
                    let decides = |wanted: bool| {
                        EventKind::all()
                            .filter(|k| self.leaf_by_kind(leaf, *k).is_none_or(|v| v == wanted))
                            .collect::<KindSet>()
                    };
                    (decides(true), decides(false))
                }
                Node::Not(child) => {
                    let (may, may_not) = self.kind_sets(*child, memo);
                    (may_not, may)
                }
                Node::And(children) => children.iter().fold(
                    (KindSet::all(), KindSet::EMPTY),
                    |(may, may_not), child| {
                        let (m, n) = self.kind_sets(*child, memo);
                        (may.intersection(&m), may_not.union(&n))
                    },
                ),
                Node::Or(children) => children.iter().fold(
                    (KindSet::EMPTY, KindSet::all()),
                    |(may, may_not), child| {
                        let (m, n) = self.kind_sets(*child, memo);
                        (may.union(&m), may_not.intersection(&n))
                    },
                ),
            };
        memo.0.insert(id, sets);
        sets
    }

    /// An operand in the words of the language.
    pub(crate) fn show_operand(&self, id: OperandId) -> String {
        let list = |args: &[OperandId]| {
            args.iter()
                .map(|a| self.show_operand(*a))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self.operand(id) {
            Operand::Field(field) => field.to_string(),
            Operand::Text(text) => quote(text),
            Operand::List(items) => format!("({})", list(items)),
            Operand::Transform { by, args } => {
                let made = format!("{}({})", by.as_str(), list(args));
                match by {
                    Transformer::Getopt { letter: Some(l) } => {
                        format!("{made}[{}]", char::from(*l).escape_default())
                    }
                    _ => made,
                }
            }
        }
    }

    /// A comparison in the words of the language; long lists are cut to `max_items`.
    pub(crate) fn show_leaf(&self, leaf: &Leaf, max_items: usize) -> String {
        let mut text = format!("{} {}", self.show_operand(leaf.operand), leaf.op);
        if let Some(quantifier) = leaf.quantifier {
            let _ = write!(text, " {}", quantifier.as_str());
        }
        match &leaf.side {
            Side::Nothing => {}
            Side::Operand(other) => match self.operand(*other) {
                Operand::Field(field) => {
                    let _ = write!(text, " val({field})");
                }
                _ => {
                    let _ = write!(text, " {}", self.show_operand(*other));
                }
            },
            Side::Values(values) if leaf.op.takes_list() || leaf.quantifier.is_some() => {
                let shown: Vec<String> = values.iter().take(max_items).map(|v| quote(v)).collect();
                let more = values.len().saturating_sub(max_items);
                let _ = write!(text, " ({}", shown.join(", "));
                if more > 0 {
                    let _ = write!(text, ", … {more} more");
                }
                text.push(')');
            }
            Side::Values(values) => {
                let _ = write!(text, " {}", quote(values.first().map_or(&[][..], |v| v)));
            }
        }
        text
    }

    /// A condition in the words of the language, with all macros and lists expanded.
    pub(crate) fn show(&self, root: NodeId) -> String {
        let mut text = String::new();
        self.show_into(root, &mut text, 0);
        if text.len() >= MAX_SHOWN_BYTES {
            text.push_str(" …");
        }
        text
    }

    fn show_into(&self, id: NodeId, text: &mut String, binding: u8) {
        if text.len() >= MAX_SHOWN_BYTES {
            return;
        }
        match self.node(id) {
            Node::Leaf(leaf) => text.push_str(&self.show_leaf(self.leaf(*leaf), 1000)),
            Node::Not(child) => {
                text.push_str("not ");
                self.show_into(*child, text, 2);
            }
            Node::And(c) => self.show_joined(c, " and ", 1, text, binding),
            Node::Or(c) => self.show_joined(c, " or ", 0, text, binding),
        }
    }

    fn show_joined(&self, c: &[NodeId], word: &str, level: u8, text: &mut String, binding: u8) {
        let grouped = binding > level;
        text.push_str(if grouped { "(" } else { "" });
        for (i, child) in c.iter().enumerate() {
            text.push_str(if i > 0 { word } else { "" });
            self.show_into(*child, text, level + 1);
        }
        text.push_str(if grouped { ")" } else { "" });
    }
}

/// Remembers the kinds of nodes while rules are compiled.
#[derive(Default)]
pub(crate) struct KindMemo(FxHashMap<NodeId, (KindSet, KindSet)>);

/// Whether a comparison with constants may differ for two numbers greater than `last`.
pub(crate) fn tells_apart_beyond(leaf: &Leaf, last: i64) -> bool {
    let Side::Values(values) = &leaf.side else {
        return true;
    };
    let number = |v: &Vec<u8>| std::str::from_utf8(v).ok()?.parse::<i64>().ok();
    let all = |most: i64| values.iter().all(|v| number(v).is_some_and(|n| n <= most));
    !match leaf.op {
        Op::Ge | Op::Lt => all(last + 1),
        Op::Eq | Op::Ne | Op::Gt | Op::Le | Op::In | Op::Intersects => all(last),
        _ => false,
    }
}

/// Events are numbered from 1, so `evt.num = 0` is how rule files write "never".
fn never_or_always(leaf: &Leaf) -> Option<bool> {
    let Side::Values(values) = &leaf.side else {
        return None;
    };
    let [value] = &values[..] else {
        return None;
    };
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    match (leaf.op, leaf.quantifier, number) {
        (Op::Eq | Op::In | Op::Le, None, 0) | (Op::Lt, None, 0 | 1) => Some(false),
        (Op::Ne | Op::Gt, None, 0) | (Op::Ge, None, 0 | 1) => Some(true),
        _ => None,
    }
}

/// The value of a field that follows from the kind of event alone.
pub(crate) fn kind_value(field: &FieldRef, kind: EventKind) -> Option<Value<'static>> {
    match field.field {
        Field::EvtType => Some(Value::Text(kind.name().as_bytes())),
        // Falco reports what a call came to, never that it began.
        Field::EvtDir => Some(Value::Text(b"<")),
        Field::EvtTypeIs => Some(match &field.arg {
            FieldArg::Key(name) => Value::UInt(u64::from(&**name == kind.name())),
            _ => Value::Absent,
        }),
        _ => None,
    }
}

/// How the values of an operand combine in a comparison.
pub(crate) fn combine(
    shape: Shape,
    op: Op,
    outcomes: impl Iterator<Item = Tri>,
    is_empty: bool,
) -> Tri {
    let all = match shape {
        Shape::List => op == Op::In,
        Shape::Ends => op == Op::Ne,
        Shape::One | Shape::Lineage => false,
    };
    if is_empty {
        // Nothing to be in a list is not in it; an address without a name is not that name.
        return Tri::from(shape == Shape::Ends && op == Op::Ne);
    }
    let mut outcomes = outcomes;
    if all {
        outcomes.try_fold(Tri::True, |worst, o| match worst.min(o) {
            Tri::False => Err(Tri::False),
            kept => Ok(kept),
        })
    } else {
        outcomes.try_fold(Tri::False, |best, o| match best.max(o) {
            Tri::True => Err(Tri::True),
            kept => Ok(kept),
        })
    }
    .unwrap_or_else(|decided| decided)
}

/// A constant as it has to be written.
pub(crate) fn quote(text: &[u8]) -> String {
    let plain = !text.is_empty()
        && text.iter().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'(' | b')' | b'"' | b'\'' | b'=' | b',' | b'\\')
        });
    if plain {
        return String::from_utf8_lossy(text).into_owned();
    }
    let mut quoted = String::from("\"");
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                c if c.is_control() && u32::from(c) < 256 => {
                    let _ = write!(quoted, "\\x{:02x}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}
