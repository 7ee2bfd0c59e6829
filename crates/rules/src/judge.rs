//! Judging an event: which rules match it, whether any could, and why.
//!
//! Promises: a verdict depends on the event and the rules only. Judging allocates nothing once a
//! [`Scratch`] has grown to its size, and each part of all conditions is judged at most once an
//! event. Unknown values make verdicts unknown, never false.
//!
//! Leaves out: what a match leads to.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::events::EventKind;
use crate::fields::Shape;
use crate::graph::{
    self, Graph, Leaf, LeafId, Node, NodeId, Operand, OperandId, Side, Transformer,
};
use crate::matcher::{Glob, order_holds};
use crate::plan::{Entry, Form, MAY_BE_MEANT, Part, PartId, Plan, Plans};
use crate::syntax::Op;
use crate::value::{EventView, Tri, Value, ValueList};
use crate::{RuleId, Ruleset, Source};

/// Whether an event can match one rule or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchMode {
    /// The first that matches, in the order of the files.
    First,
    /// All that match.
    All,
}

/// What judging writes on: one a thread, used again for each event.
#[derive(Debug, Default)]
pub struct Scratch {
    ruleset: u64,
    epoch: u32,
    /// By part: epoch and verdict.
    memo: Vec<u32>,
    /// By operand: epoch and number of the word.
    words: Vec<(u32, u32)>,
    slots: Slots,
    candidates: Vec<u32>,
    matched: Vec<RuleId>,
    /// By rule: epoch in which it was reported.
    reported: Vec<u32>,
}

const NO_WORD: u32 = u32::MAX;
const ABSENT: u32 = u32::MAX - 1;
const UNKNOWN: u32 = u32::MAX - 2;

impl Scratch {
    fn begin(&mut self, set: &Ruleset) {
        if self.ruleset != set.id {
            *self = Self {
                ruleset: set.id,
                epoch: 0,
                memo: vec![0; set.plans.parts.len()],
                words: vec![(0, 0); set.graph.operand_count()],
                slots: Slots::new(&set.graph),
                candidates: Vec::with_capacity(set.rules.len()),
                matched: Vec::with_capacity(set.rules.len()),
                reported: vec![0; set.rules.len()],
            };
        }
        self.epoch += 1;
        if self.epoch >= 1 << 30 {
            self.epoch = 1;
            self.memo.fill(0);
            self.words.fill((0, 0));
            self.slots.forget();
            self.reported.fill(0);
        }
        self.matched.clear();
        self.candidates.clear();
    }
}

impl Ruleset {
    /// The rules that match an event, in the order of the set.
    ///
    /// A rule that hangs on a value that is not known does not match; see [`Self::could_match`].
    pub fn judge<'s, V: EventView + ?Sized>(
        &self,
        source: Source,
        event: &V,
        scratch: &'s mut Scratch,
    ) -> &'s [RuleId] {
        scratch.begin(self);
        let kind = kind_for(source, event.kind());
        if let Some(plan) = self.plans.plan(source, kind) {
            let mut judge = Judge {
                graph: &self.graph,
                plans: &self.plans,
                event,
                kind,
                s: scratch,
            };
            judge.run(plan, Tri::True, &mut |rule, verdict, s| {
                if verdict == Tri::True {
                    s.matched.push(RuleId(rule));
                }
                false
            });
            scratch.matched.sort_unstable();
            if self.mode == MatchMode::First {
                scratch.matched.truncate(1);
            }
        }
        &scratch.matched
    }

    /// Whether any rule can become true, given what is known: `True` if one is, `Unknown` if one
    /// may be, `False` if none can whatever the unknown values are. Rules that count different
    /// values are left out: repeats bring none.
    pub fn could_match<V: EventView + ?Sized>(
        &self,
        source: Source,
        event: &V,
        scratch: &mut Scratch,
    ) -> Tri {
        scratch.begin(self);
        let kind = kind_for(source, event.kind());
        let mut best = Tri::False;
        if let Some(plan) = self.plans.plan(source, kind) {
            let mut judge = Judge {
                graph: &self.graph,
                plans: &self.plans,
                event,
                kind,
                s: scratch,
            };
            judge.run(plan, Tri::True, &mut |rule, verdict, _| {
                if !self.counts_what_is_new(rule as usize) {
                    best = best.max(verdict);
                }
                best == Tri::True
            });
        }
        best
    }

    /// Whether a rule counts different values ([`crate::Threshold::distinct`]): a repeat of what was
    /// seen brings it no further.
    fn counts_what_is_new(&self, rule: usize) -> bool {
        let threshold = self.rules[rule].threshold;
        threshold.is_some_and(|t| t.distinct.is_some())
    }

    /// The same as [`Self::could_match`] for a view that stands for many events: where a text is
    /// not known, what it begins with ([`EventView::beginning`]) may still rule a match out.
    /// Slower: every rule for the kind is asked.
    pub fn could_match_some<V: EventView + ?Sized>(&self, source: Source, events: &V) -> Tri {
        let kind = kind_for(source, events.kind());
        let mut some = Common {
            set: self,
            events,
            kind,
            slots: Slots::new(&self.graph),
            verdicts: FxHashMap::default(),
        };
        some.slots.epoch = 1;
        let mut best = Tri::False;
        for (at, (rule, compiled)) in self.rules.iter().zip(&self.compiled).enumerate() {
            let asked =
                rule.source == source && rule.status.is_active() && !self.counts_what_is_new(at);
            if asked && best != Tri::True {
                best = best.max(some.verdict(compiled.root));
            }
        }
        best
    }

    /// Judges one rule and says why: which of its conditions held, and which was the first that
    /// did not. Conditions are asked in the order in which they are written.
    pub fn reason<V: EventView + ?Sized>(&self, rule: RuleId, event: &V) -> Reason {
        let root = self.compiled[rule.index()].root;
        let kind = kind_for(self.rule(rule).source, event.kind());
        let mut trace = Trace {
            set: self,
            event,
            kind,
            slots: Slots::new(&self.graph),
            verdicts: FxHashMap::default(),
            reason: Reason {
                outcome: Tri::False,
                held: Vec::new(),
                first_false: None,
            },
        };
        trace.slots.epoch = 1;
        trace.reason.outcome = trace.verdict(root);
        trace.tell(root, true);
        trace.reason
    }
}

/// Judges many events at once that have something in common.
struct Common<'s, V: ?Sized> {
    set: &'s Ruleset,
    events: &'s V,
    kind: EventKind,
    slots: Slots,
    verdicts: FxHashMap<NodeId, Tri>,
}

impl<V: EventView + ?Sized> Common<'_, V> {
    fn verdict(&mut self, id: NodeId) -> Tri {
        if let Some(verdict) = self.verdicts.get(&id) {
            return *verdict;
        }
        let graph = &self.set.graph;
        let verdict = match graph.node(id) {
            Node::Leaf(leaf) => self.leaf(*leaf),
            Node::Not(child) => self.verdict(*child).negated(),
            Node::And(children) => {
                let mut worst = Tri::True;
                for child in children {
                    worst = worst.min(self.verdict(*child));
                    if worst == Tri::False {
                        break;
                    }
                }
                worst
            }
            Node::Or(children) => {
                let mut best = Tri::False;
                for child in children {
                    best = best.max(self.verdict(*child));
                    if best == Tri::True {
                        break;
                    }
                }
                best
            }
        };
        self.verdicts.insert(id, verdict);
        verdict
    }

    fn leaf(&mut self, id: LeafId) -> Tri {
        let graph = &self.set.graph;
        let leaf = graph.leaf(id);
        if let Some(known) = graph.leaf_by_kind(leaf, self.kind) {
            return Tri::from(known);
        }
        if let (Operand::Field(field), Some(test)) = (graph.operand(leaf.operand), &leaf.test)
            && matches!(field_value(field, self.events, self.kind), Value::Unknown)
            && let Some(beginning) = self.events.beginning(field)
        {
            return test.holds_for_some(beginning);
        }
        judge_leaf(graph, leaf, self.events, self.kind, &mut self.slots)
    }
}

/// Kubernetes audit events have no kinds: Falco calls them all `pluginevent`.
fn kind_for(source: Source, kind: EventKind) -> EventKind {
    match source {
        Source::Syscall => kind,
        Source::K8sAudit => EventKind::from_name("pluginevent").unwrap_or(kind),
    }
}

struct Judge<'e, V: ?Sized> {
    graph: &'e Graph,
    plans: &'e Plans,
    event: &'e V,
    kind: EventKind,
    s: &'e mut Scratch,
}

/// Told of each rule that may match; says whether to stop.
type Report<'r> = dyn FnMut(u32, Tri, &mut Scratch) -> bool + 'r;

impl<'e, V: EventView + ?Sized> Judge<'e, V> {
    /// Runs a plan; `floor` is what is known of the guards passed so far.
    fn run(&mut self, plan: &Plan, floor: Tri, report: &mut Report<'_>) -> bool {
        for group in &plan.groups {
            let floor = self.all(&group.guards, floor);
            if floor != Tri::False && self.run(&group.plan, floor, report) {
                return true;
            }
        }
        for index in &plan.indexes {
            let start = self.s.candidates.len();
            for lookup in &index.lookups {
                let value = self.plain_value(lookup.operand);
                let candidates = &mut self.s.candidates;
                match value {
                    Value::Text(text) => lookup.patterns.each(text, |n| candidates.push(n)),
                    Value::Unknown => candidates.extend_from_slice(&lookup.all),
                    _ => {}
                }
            }
            for at in start..self.s.candidates.len() {
                let number = self.s.candidates[at];
                let floor = match number & MAY_BE_MEANT {
                    0 => floor,
                    _ => floor.min(Tri::Unknown),
                };
                let entry = &index.entries[(number & !MAY_BE_MEANT) as usize];
                if self.entry(entry, floor, report) {
                    return true;
                }
            }
            self.s.candidates.truncate(start);
        }
        plan.entries.iter().any(|e| self.entry(e, floor, report))
    }

    fn entry(&mut self, entry: &Entry, floor: Tri, report: &mut Report<'_>) -> bool {
        if self.s.reported[entry.rule as usize] == self.s.epoch {
            return false;
        }
        let verdict = self.all(&entry.parts, floor);
        if verdict == Tri::False {
            return false;
        }
        self.s.reported[entry.rule as usize] = self.s.epoch;
        report(entry.rule, verdict, self.s)
    }

    fn all(&mut self, parts: &[PartId], floor: Tri) -> Tri {
        let mut worst = floor;
        for part in parts {
            worst = worst.min(self.part(*part));
            if worst == Tri::False {
                break;
            }
        }
        worst
    }

    fn part(&mut self, id: PartId) -> Tri {
        let memo = self.s.memo[id.0 as usize];
        if memo >> 2 == self.s.epoch {
            return Tri::from_bits(memo);
        }
        let plans = self.plans;
        let verdict = match plans.part(id) {
            Part::True => Tri::True,
            Part::False => Tri::False,
            Part::Not(child) => self.part(*child).negated(),
            Part::And(children) => self.all(children, Tri::True),
            Part::Or(children) => {
                let mut best = Tri::False;
                for child in children {
                    best = best.max(self.part(*child));
                    if best == Tri::True {
                        break;
                    }
                }
                best
            }
            Part::Leaf(leaf) => self.leaf(*leaf),
            Part::AnyOf(operand, _) => match self.plain_value(*operand) {
                Value::Text(text) => Tri::from(plans.any_of[&id].matches(text)),
                Value::Unknown => Tri::Unknown,
                _ => Tri::False,
            },
        };
        self.s.memo[id.0 as usize] = self.s.epoch << 2 | verdict as u32;
        verdict
    }

    fn leaf(&mut self, id: LeafId) -> Tri {
        let plans = self.plans;
        let leaf = self.graph.leaf(id);
        match &plans.forms[id.0 as usize] {
            Form::Word(wanted) => match self.word(leaf.operand) {
                UNKNOWN => Tri::Unknown,
                word => Tri::from(word == *wanted),
            },
            Form::FewWords(wanted) => match self.word(leaf.operand) {
                UNKNOWN => Tri::Unknown,
                word => Tri::from(wanted.contains(&word)),
            },
            Form::ManyWords(bits) => match self.word(leaf.operand) {
                UNKNOWN => Tri::Unknown,
                NO_WORD | ABSENT => Tri::False,
                word => Tri::from(bits[word as usize / 64] >> (word % 64) & 1 == 1),
            },
            Form::General => {
                // Most comparisons are of a field with constants: no need to make anything first.
                if let (Operand::Field(field), Some(test)) =
                    (self.graph.operand(leaf.operand), &leaf.test)
                {
                    match field_value(field, self.event, self.kind) {
                        Value::Absent => return Tri::False,
                        Value::Unknown => return Tri::Unknown,
                        Value::List(_) => {}
                        value => return Tri::from(test.holds(value)),
                    }
                }
                let epoch = self.s.epoch;
                self.s.slots.epoch = epoch;
                judge_leaf(self.graph, leaf, self.event, self.kind, &mut self.s.slots)
            }
        }
    }

    /// The number of the word that an operand's text is.
    fn word(&mut self, operand: OperandId) -> u32 {
        let index = operand.0 as usize;
        let (epoch, word) = self.s.words[index];
        if epoch == self.s.epoch {
            return word;
        }
        let word = match (self.plain_value(operand), &self.plans.words[index]) {
            (Value::Text(text), Some(table)) => table.get(text).copied().unwrap_or(NO_WORD),
            (Value::Unknown, _) => UNKNOWN,
            _ => ABSENT,
        };
        self.s.words[index] = (self.s.epoch, word);
        word
    }

    /// The value of an operand that is a field.
    fn plain_value(&self, operand: OperandId) -> Value<'e> {
        match self.graph.operand(operand) {
            Operand::Field(field) => field_value(field, self.event, self.kind),
            _ => Value::Absent,
        }
    }
}

fn field_value<'a, V: EventView + ?Sized>(
    field: &crate::FieldRef,
    event: &'a V,
    kind: EventKind,
) -> Value<'a> {
    graph::kind_value(field, kind).unwrap_or_else(|| event.field(field))
}

/// Judges one comparison.
fn judge_leaf<V: EventView + ?Sized>(
    graph: &Graph,
    leaf: &Leaf,
    event: &V,
    kind: EventKind,
    slots: &mut Slots,
) -> Tri {
    slots.fill(graph, leaf.operand, event, kind);
    if let Side::Operand(other) = leaf.side {
        slots.fill(graph, other, event, kind);
    }
    let left = slots.value(graph, leaf.operand, event, kind);
    let right = match leaf.side {
        Side::Operand(other) => Some(slots.value(graph, other, event, kind)),
        _ => None,
    };
    let one = |value: Value<'_>| match (value, right) {
        (Value::Unknown, _) | (_, Some(Value::Unknown)) => Tri::Unknown,
        (Value::Absent, _) | (_, Some(Value::Absent)) => Tri::False,
        (value, Some(right)) => compare_sides(leaf.op, value, right),
        (value, None) => Tri::from(leaf.test.as_ref().is_some_and(|t| t.holds(value))),
    };
    match left {
        Value::List(list) => graph::combine(
            leaf.typed.shape,
            leaf.op,
            (0..list.len()).map(|i| one(list.get(i))),
            list.is_empty(),
        ),
        single => one(single),
    }
}

/// Compares one value with another field's value or values.
fn compare_sides(op: Op, left: Value<'_>, right: Value<'_>) -> Tri {
    if let Value::List(list) = right {
        let outcomes = (0..list.len()).map(|i| match list.get(i) {
            Value::Unknown => Tri::Unknown,
            Value::Absent => Tri::False,
            value => compare_sides(Op::Eq, left, value),
        });
        return graph::combine(Shape::Lineage, op, outcomes, list.is_empty());
    }
    Tri::from(match (left, right) {
        (Value::Text(l), Value::Text(r)) => compare_texts(op, l, r),
        (Value::Ip(l), Value::Ip(r)) => order_holds(op, Some(l.cmp(&r))),
        (Value::Bool(l), Value::Bool(r)) => order_holds(op, Some(l.cmp(&r))),
        (l, r) => match (as_number(l), as_number(r)) {
            (Some(l), Some(r)) => order_holds(op, l.partial_cmp(&r)),
            _ => false,
        },
    })
}

fn compare_texts(op: Op, left: &[u8], right: &[u8]) -> bool {
    match op {
        Op::Contains | Op::Bcontains => memchr::memmem::find(left, right).is_some(),
        Op::Icontains => {
            right.is_empty()
                || left
                    .windows(right.len())
                    .any(|w| w.eq_ignore_ascii_case(right))
        }
        Op::Startswith | Op::Bstartswith => left.starts_with(right),
        Op::Endswith => left.ends_with(right),
        Op::Glob | Op::Iglob => {
            Glob::new(right, op == Op::Iglob).is_ok_and(|glob| glob.matches(left))
        }
        Op::Regex | Op::Pmatch | Op::Exists => false,
        _ => order_holds(op, Some(left.cmp(right))),
    }
}

/// A number that compares exactly where both are whole.
#[derive(PartialEq, PartialOrd)]
enum Number {
    Whole(i128),
    Fraction(f64),
}

fn as_number(value: Value<'_>) -> Option<Number> {
    Some(match value {
        Value::Int(n) => Number::Whole(n.into()),
        Value::UInt(n) => Number::Whole(n.into()),
        Value::Double(n) => Number::Fraction(n),
        _ => return None,
    })
}

/// What transformers made of an event, kept while it is judged.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) epoch: u32,
    /// By operand; those that are fields stay empty.
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    epoch: u32,
    made: Made,
    text: Vec<u8>,
    /// Where each item of a list ends in the text.
    ends: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Made {
    #[default]
    Absent,
    Unknown,
    Text,
    Number(u64),
    List,
}

impl Slot {
    /// Adds an item to a list.
    fn push(&mut self, item: &[u8]) {
        self.text.extend_from_slice(item);
        self.ends.push(self.text.len());
    }
}

impl ValueList for Slot {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> Value<'_> {
        let Some(end) = self.ends.get(index) else {
            return Value::Absent;
        };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Value::Text(&self.text[start..*end])
    }
}

impl Slots {
    pub(crate) fn new(graph: &Graph) -> Self {
        let slots = (0..graph.operand_count())
            .map(|_| Slot::default())
            .collect();
        Self { epoch: 0, slots }
    }

    fn forget(&mut self) {
        self.slots.iter_mut().for_each(|s| s.epoch = 0);
    }

    /// The value of an operand that was filled.
    pub(crate) fn value<'a, V: EventView + ?Sized>(
        &'a self,
        graph: &'a Graph,
        operand: OperandId,
        event: &'a V,
        kind: EventKind,
    ) -> Value<'a> {
        match graph.operand(operand) {
            Operand::Field(field) => field_value(field, event, kind),
            Operand::Text(text) => Value::Text(text),
            Operand::Transform { .. } | Operand::List(_) => {
                let slot = &self.slots[operand.0 as usize];
                match slot.made {
                    Made::Absent => Value::Absent,
                    Made::Unknown => Value::Unknown,
                    Made::Text => Value::Text(&slot.text),
                    Made::Number(n) => Value::UInt(n),
                    Made::List => Value::List(slot),
                }
            }
        }
    }

    /// Makes what the operand needs.
    pub(crate) fn fill<V: EventView + ?Sized>(
        &mut self,
        graph: &Graph,
        operand: OperandId,
        event: &V,
        kind: EventKind,
    ) {
        let (by, args) = match graph.operand(operand) {
            Operand::Field(_) | Operand::Text(_) => return,
            Operand::Transform { by, args } => (Some(*by), args),
            Operand::List(items) => (None, items),
        };
        let index = operand.0 as usize;
        if self.slots[index].epoch == self.epoch {
            return;
        }
        args.iter().for_each(|a| self.fill(graph, *a, event, kind));
        let mut slot = std::mem::take(&mut self.slots[index]);
        slot.text.clear();
        slot.ends.clear();
        slot.epoch = self.epoch;
        let value = |id: OperandId| self.value(graph, id, event, kind);
        slot.made = match by {
            None => gather(&mut slot, args.iter().map(|a| value(*a)), b"", true),
            Some(Transformer::Concat) => {
                gather(&mut slot, args.iter().map(|a| value(*a)), b"", false)
            }
            Some(Transformer::Join) => join(&mut slot, value(args[0]), value(args[1])),
            Some(Transformer::Getopt { letter }) => {
                getopt(&mut slot, letter, value(args[0]), value(args[1]))
            }
            Some(by) => transform(&mut slot, by, value(args[0])),
        };
        self.slots[index] = slot;
    }
}

/// Puts texts behind each other; one that is absent makes all absent.
fn gather<'v>(
    slot: &mut Slot,
    values: impl Iterator<Item = Value<'v>>,
    separator: &[u8],
    is_list: bool,
) -> Made {
    let mut unknown = false;
    for (i, value) in values.enumerate() {
        if i > 0 {
            slot.text.extend_from_slice(separator);
        }
        match value {
            Value::Unknown => unknown = true,
            Value::Text(text) => slot.text.extend_from_slice(text),
            Value::List(list) if is_list => {
                for j in 0..list.len() {
                    if let Value::Text(text) = list.get(j) {
                        slot.text.extend_from_slice(text);
                        slot.ends.push(slot.text.len());
                    }
                }
                continue;
            }
            Value::Absent | Value::List(_) => return Made::Absent,
            other => crate::output::show_into(other, &mut slot.text),
        }
        slot.ends.push(slot.text.len());
    }
    match (unknown, is_list) {
        (true, _) => Made::Unknown,
        (false, true) => Made::List,
        (false, false) => Made::Text,
    }
}

fn join(slot: &mut Slot, separator: Value<'_>, list: Value<'_>) -> Made {
    match (separator, list) {
        (Value::Unknown, _) | (_, Value::Unknown) => Made::Unknown,
        (Value::Text(separator), Value::List(list)) => {
            gather(slot, (0..list.len()).map(|i| list.get(i)), separator, false)
        }
        _ => Made::Absent,
    }
}

/// The short options among words, each followed by its value, as POSIX `getopt` finds them: up to
/// `--` or the first word that is none; long options are passed over; a letter that is not among
/// `letters` is `?`, a value that is missing is empty. With `letter`, the value of its last use only
/// (of one that takes none, the letter itself).
fn getopt(slot: &mut Slot, letter: Option<u8>, words: Value<'_>, letters: Value<'_>) -> Made {
    let (words, letters) = match (words, letters) {
        (Value::Unknown, _) | (_, Value::Unknown) => return Made::Unknown,
        (Value::List(words), Value::Text(letters)) => (words, letters),
        _ => return Made::Absent,
    };
    let takes_value = |option: u8| -> Option<bool> {
        let at = letters
            .iter()
            .position(|l| *l == option && option != b':')?;
        Some(letters.get(at + 1) == Some(&b':'))
    };
    let word = |at: usize| match words.get(at) {
        Value::Text(text) => Some(text),
        _ => None,
    };
    let mut found = false;
    let mut tell = |option: u8, parts: &[&[u8]]| match letter {
        None => parts.iter().for_each(|p| slot.push(p)),
        Some(wanted) if wanted == option => {
            found = true;
            slot.text.clear();
            slot.text.extend_from_slice(parts[parts.len() - 1]);
        }
        Some(_) => {}
    };
    let mut at = 0;
    while let Some(text) = word(at) {
        at += 1;
        if text.len() > 2 && text.starts_with(b"--") {
            continue;
        }
        if text.len() < 2 || text[0] != b'-' || text == b"--" {
            break;
        }
        for (i, option) in text.iter().enumerate().skip(1) {
            match takes_value(*option) {
                None if letter.is_none() => tell(*option, &[b"?"]),
                None => {}
                Some(false) => tell(*option, &[&text[i..=i]]),
                Some(true) => {
                    let rest = &text[i + 1..];
                    let value = if rest.is_empty() {
                        at += 1;
                        word(at - 1)
                    } else {
                        Some(rest)
                    };
                    match value {
                        Some(value) => tell(*option, &[&text[i..=i], value]),
                        None => tell(*option, &[b""]),
                    }
                    break;
                }
            }
        }
    }
    match letter {
        None => Made::List,
        Some(_) if found => Made::Text,
        Some(_) => Made::Absent,
    }
}

fn transform(slot: &mut Slot, by: Transformer, value: Value<'_>) -> Made {
    match (by, value) {
        (_, Value::Unknown) => Made::Unknown,
        (Transformer::Len, Value::List(list)) => Made::Number(list.len() as u64),
        (Transformer::Len, Value::Text(text)) => Made::Number(text.len() as u64),
        (_, Value::Text(text)) => match transform_text(&mut slot.text, by, text) {
            true => Made::Text,
            false => Made::Absent,
        },
        (_, Value::List(list)) => {
            for i in 0..list.len() {
                match list.get(i) {
                    Value::Unknown => return Made::Unknown,
                    Value::Text(text) if transform_text(&mut slot.text, by, text) => {
                        slot.ends.push(slot.text.len());
                    }
                    _ => return Made::Absent,
                }
            }
            Made::List
        }
        _ => Made::Absent,
    }
}

fn transform_text(out: &mut Vec<u8>, by: Transformer, text: &[u8]) -> bool {
    match by {
        Transformer::ToLower => out.extend(text.iter().map(u8::to_ascii_lowercase)),
        Transformer::ToUpper => out.extend(text.iter().map(u8::to_ascii_uppercase)),
        Transformer::Basename => {
            let start = memchr::memrchr(b'/', text).map_or(0, |i| i + 1);
            out.extend_from_slice(&text[start..]);
        }
        Transformer::B64 => return decode_base64(out, text),
        Transformer::Len | Transformer::Join | Transformer::Concat | Transformer::Getopt { .. } => {
            return false;
        }
    }
    true
}

/// Base64 with or without padding.
fn decode_base64(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |i| i + 1);
    let (mut bits, mut held) = (0u32, 0);
    for byte in &text[..end] {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    end % 4 != 1
}

/// Why a rule matched an event or did not.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// The verdict.
    #[serde(serialize_with = "serialize_tri")]
    pub outcome: Tri,
    /// Conditions that held, in the order in which they are written: those that made the rule true,
    /// or those before the first that did not hold.
    pub held: Vec<Condition>,
    /// The first that did not hold (or is not known to), where the rule is not true.
    pub first_false: Option<Condition>,
}

/// One condition, on one event.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// In the words of the language, with `not` where it is negated.
    pub text: String,
    /// The value that the event has; empty for a combination of conditions.
    pub value: String,
    /// The macro that says this, where one does.
    pub in_macro: Option<String>,
    /// What came of it, `not` included.
    #[serde(serialize_with = "serialize_tri")]
    pub outcome: Tri,
}

fn serialize_tri<S: serde::Serializer>(tri: &Tri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match tri {
        Tri::False => "false",
        Tri::Unknown => "unknown",
        Tri::True => "true",
    })
}

struct Trace<'e, V: ?Sized> {
    set: &'e Ruleset,
    event: &'e V,
    kind: EventKind,
    slots: Slots,
    verdicts: FxHashMap<NodeId, Tri>,
    reason: Reason,
}

/// A combination of conditions that is shown is cut to this many characters.
const MAX_COMBINATION_CHARS: usize = 400;

impl<V: EventView + ?Sized> Trace<'_, V> {
    fn verdict(&mut self, id: NodeId) -> Tri {
        if let Some(verdict) = self.verdicts.get(&id) {
            return *verdict;
        }
        let graph = &self.set.graph;
        let verdict = match graph.node(id) {
            Node::Leaf(leaf) => {
                let leaf = graph.leaf(*leaf);
                // as in the plan: what follows from the kind is known, whatever the event tells
                match graph.leaf_by_kind(leaf, self.kind) {
                    Some(known) => Tri::from(known),
                    None => judge_leaf(graph, leaf, self.event, self.kind, &mut self.slots),
                }
            }
            Node::Not(child) => self.verdict(*child).negated(),
            Node::And(children) => children
                .iter()
                .map(|c| self.verdict(*c))
                .min()
                .unwrap_or(Tri::True),
            Node::Or(children) => children
                .iter()
                .map(|c| self.verdict(*c))
                .max()
                .unwrap_or(Tri::False),
        };
        self.verdicts.insert(id, verdict);
        verdict
    }

    /// Tells what decided a node; false at the first condition that does not hold.
    fn tell(&mut self, id: NodeId, wanted: bool) -> bool {
        let verdict = self.verdict(id);
        let outcome = if wanted { verdict } else { verdict.negated() };
        let set = self.set;
        match (set.graph.node(id), wanted) {
            (Node::Not(child), _) => self.tell(*child, !wanted),
            (Node::And(children), true) | (Node::Or(children), false) => {
                children.iter().all(|c| self.tell(*c, wanted))
            }
            (Node::Or(children), true) | (Node::And(children), false) if outcome == Tri::True => {
                let decided = Tri::from(wanted);
                match children.iter().find(|c| self.verdict(**c) == decided) {
                    Some(child) => self.tell(*child, wanted),
                    None => true,
                }
            }
            _ => {
                if self.reason.held.len() >= 10_000 {
                    return outcome == Tri::True;
                }
                let condition = self.condition(id, wanted, outcome);
                if outcome == Tri::True {
                    self.reason.held.push(condition);
                    return true;
                }
                self.reason.first_false.get_or_insert(condition);
                false
            }
        }
    }

    fn condition(&mut self, id: NodeId, wanted: bool, outcome: Tri) -> Condition {
        let set = self.set;
        let (text, value) = match set.graph.node(id) {
            Node::Leaf(leaf) => {
                let leaf = set.graph.leaf(*leaf);
                let value = self
                    .slots
                    .value(&set.graph, leaf.operand, self.event, self.kind);
                (set.graph.show_leaf(leaf, 20), crate::output::show(value))
            }
            _ => {
                let text = set.graph.show(id);
                let cut: String = text.chars().take(MAX_COMBINATION_CHARS).collect();
                let more = if cut.len() < text.len() { " …" } else { "" };
                (format!("({cut}{more})"), String::new())
            }
        };
        Condition {
            text: if wanted { text } else { format!("not {text}") },
            value,
            in_macro: set.macro_names.get(&id).cloned(),
            outcome,
        }
    }
}
