//! The form in which events are judged: one plan a kind of event.
//!
//! Promises: an event meets only what its kind leaves open. What follows from the kind is decided
//! beforehand; what many rules ask and few events fulfil is asked once for all of them; rules that
//! can only match where some text is, begins with, ends in or contains a constant are found through
//! lookups that all of them share. So the price of an event grows with the rules that may match it,
//! not with the rules there are. What decides most for the least work is asked first.
//! Building is bounded: past a budget, kinds share one general plan.
//!
//! Leaves out: which rules match in which order, and why (`judge`).

use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::compile::CompiledRule;
use crate::events::{EventKind, KindSet};
use crate::fields::{FieldArg, FieldType, Shape};
use crate::graph::{Graph, KindMemo, LeafId, Node, NodeId, Operand, OperandId, Side};
use crate::matcher::{Patterns, PatternsBuilder};
use crate::syntax::{Op, Quantifier};
use crate::{Rule, Source};

/// All plans together name rules at most this often.
const MAX_ENTRIES: usize = 1_000_000;
/// Groups in one level of a plan; what is left is asked rule by rule.
const MAX_GROUPS: usize = 48;
/// Levels of a plan.
const MAX_LEVELS: usize = 24;
/// A rule is found through lookups only by so many constants.
const MAX_INDEXED_CONSTANTS: usize = 512;
/// So many rules are worth a lookup.
const MIN_INDEXED: usize = 2;
/// What is asked first of many rules is true of no more events than this.
const MAX_GUARD_CHANCE: f32 = 0.6;
/// So many comparisons of one operand become one lookup.
const MIN_FUSED: usize = 2;

/// A part of a specialised condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartId(pub(crate) u32);

/// A specialised condition: what follows from the kind of event is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    True,
    False,
    And(Box<[PartId]>),
    Or(Box<[PartId]>),
    Not(PartId),
    Leaf(LeafId),
    /// Whether a text matches any of several comparisons.
    AnyOf(OperandId, Box<[LeafId]>),
}

/// How a comparison of a text with constants is done.
#[derive(Debug)]
pub(crate) enum Form {
    /// As the graph has it.
    General,
    /// The text is that word of the operand's table.
    Word(u32),
    /// The text is one of few words.
    FewWords(Box<[u32]>),
    /// The text is one of many words: a bit each.
    ManyWords(Box<[u64]>),
}

/// A rule, and what is left to ask.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) rule: u32,
    pub(crate) parts: Box<[PartId]>,
}

/// What is asked of events of one kind.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
    pub(crate) groups: Vec<Group>,
    pub(crate) indexes: Vec<Index>,
}

/// Rules that all ask the same.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) guards: Box<[PartId]>,
    pub(crate) plan: Plan,
}

/// Rules that are found by texts: a rule can match only where one of its patterns does.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) entries: Vec<Entry>,
}

/// Which entries of an index a text leads to.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) operand: OperandId,
    pub(crate) patterns: Patterns,
    /// All that it may lead to, for where the text is not known; marked where the text is all that
    /// was asked of it, so that the entry no longer asks.
    pub(crate) all: Vec<u32>,
}

/// Marks an entry whose verdict is unknown at best, because the text that leads to it is.
pub(crate) const MAY_BE_MEANT: u32 = 1 << 31;

/// The plans of a set.
#[derive(Debug)]
pub(crate) struct Plans {
    pub(crate) parts: Vec<Part>,
    /// For parts that are `AnyOf`: their patterns.
    pub(crate) any_of: FxHashMap<PartId, Patterns>,
    pub(crate) forms: Vec<Form>,
    /// Words that texts are compared with, by operand.
    pub(crate) words: Vec<Option<FxHashMap<Box<[u8]>, u32>>>,
    plans: Vec<Plan>,
    by_kind: [Vec<Option<u32>>; Source::ALL.len()],
}

impl Plans {
    pub(crate) fn new(
        graph: &Graph,
        rules: &[Rule],
        compiled: &[CompiledRule],
        kinds: &mut KindMemo,
    ) -> Self {
        let mut builder = Builder {
            graph,
            parts: vec![Part::True, Part::False],
            part_ids: FxHashMap::default(),
            costs: vec![0, 0],
            chances: vec![1.0, 0.0],
            any_of: FxHashMap::default(),
            entries: 0,
        };
        builder.part_ids.insert(Part::True, TRUE);
        builder.part_ids.insert(Part::False, FALSE);
        let mut plans = Vec::new();
        let by_kind = Source::ALL.map(|source| {
            let wanted: Vec<(u32, NodeId, KindSet)> = rules
                .iter()
                .zip(compiled)
                .enumerate()
                .filter(|(_, (rule, _))| rule.source == source && rule.status.is_active())
                .map(|(i, (_, c))| (i as u32, c.root, graph.kinds_of(c.root, kinds)))
                .collect();
            builder.plans_of(source, &wanted, &mut plans)
        });
        let (forms, words) = forms(graph);
        Self {
            parts: builder.parts,
            any_of: builder.any_of,
            forms,
            words,
            plans,
            by_kind,
        }
    }

    /// The plan for a kind of event, if any rule is for it.
    pub(crate) fn plan(&self, source: Source, kind: EventKind) -> Option<&Plan> {
        let index = self.by_kind[source as usize].get(kind.index())?.as_ref()?;
        Some(&self.plans[*index as usize])
    }

    pub(crate) fn part(&self, id: PartId) -> &Part {
        &self.parts[id.0 as usize]
    }
}

const TRUE: PartId = PartId(0);
const FALSE: PartId = PartId(1);

struct Builder<'g> {
    graph: &'g Graph,
    parts: Vec<Part>,
    part_ids: FxHashMap<Part, PartId>,
    costs: Vec<u32>,
    /// How likely an event is to fulfil a part: a guess, from what kind of question it is.
    chances: Vec<f32>,
    any_of: FxHashMap<PartId, Patterns>,
    entries: usize,
}

/// A rule on its way into a plan.
#[derive(Clone)]
struct Pending {
    rule: u32,
    parts: Rc<[PartId]>,
}

impl Builder<'_> {
    fn plans_of(
        &mut self,
        source: Source,
        rules: &[(u32, NodeId, KindSet)],
        plans: &mut Vec<Plan>,
    ) -> Vec<Option<u32>> {
        let deciding: Vec<LeafId> = {
            let mut leaves = FxHashSet::default();
            let open = EventKind::all().next();
            for (_, root, _) in rules {
                self.graph.leaves_under(*root, |leaf| {
                    leaves.insert(leaf as *const _);
                });
            }
            self.graph
                .leaves()
                .filter(|(_, l)| leaves.contains(&(*l as *const _)))
                .filter(|(_, l)| open.is_some_and(|k| self.graph.leaf_by_kind(l, k).is_some()))
                .map(|(id, _)| id)
                .collect()
        };
        let mut by_answers: FxHashMap<Vec<bool>, u32> = FxHashMap::default();
        let mut general: Option<u32> = None;
        let mut by_kind = vec![None; EventKind::count()];
        for kind in EventKind::all() {
            if source != Source::Syscall && kind.name() != "pluginevent" {
                continue;
            }
            if !rules.iter().any(|(_, _, kinds)| kinds.contains(kind)) {
                continue;
            }
            let answers: Vec<bool> = deciding
                .iter()
                .map(|l| self.graph.leaf_by_kind(self.graph.leaf(*l), kind) == Some(true))
                .collect();
            let plan = match by_answers.get(&answers) {
                Some(plan) => *plan,
                None if self.entries > MAX_ENTRIES => *general.get_or_insert_with(|| {
                    let all = rules.iter().map(|(rule, root, _)| (*rule, *root));
                    plans.push(self.plan_of(all, None));
                    plans.len() as u32 - 1
                }),
                None => {
                    let met = rules.iter().filter(|(_, _, kinds)| kinds.contains(kind));
                    plans.push(self.plan_of(met.map(|(rule, root, _)| (*rule, *root)), Some(kind)));
                    by_answers.insert(answers, plans.len() as u32 - 1);
                    plans.len() as u32 - 1
                }
            };
            by_kind[kind.index()] = Some(plan);
        }
        by_kind
    }

    fn plan_of(
        &mut self,
        rules: impl Iterator<Item = (u32, NodeId)>,
        kind: Option<EventKind>,
    ) -> Plan {
        let mut memo = FxHashMap::default();
        let mut pending = Vec::new();
        for (rule, root) in rules {
            let part = self.specialise(root, kind, &mut memo);
            let parts: Rc<[PartId]> = match &self.parts[part.0 as usize] {
                Part::False => continue,
                Part::True => Rc::new([]),
                Part::And(children) => children.iter().copied().collect(),
                _ => Rc::new([part]),
            };
            pending.push(Pending { rule, parts });
        }
        self.entries += pending.len();
        self.build(pending, 0)
    }

    // Specialising

    fn specialise(
        &mut self,
        id: NodeId,
        kind: Option<EventKind>,
        memo: &mut FxHashMap<NodeId, PartId>,
    ) -> PartId {
        if let Some(part) = memo.get(&id) {
            return *part;
        }
        let graph = self.graph;
        let part = match graph.node(id) {
            Node::Leaf(leaf) => match kind.and_then(|k| graph.leaf_by_kind(graph.leaf(*leaf), k)) {
                Some(true) => TRUE,
                Some(false) => FALSE,
                None => self.add(Part::Leaf(*leaf)),
            },
            Node::Not(child) => {
                let child = self.specialise(*child, kind, memo);
                self.not(child)
            }
            Node::And(children) => {
                let children: Vec<PartId> = children
                    .iter()
                    .map(|c| self.specialise(*c, kind, memo))
                    .collect();
                self.and(children)
            }
            Node::Or(children) => {
                let children: Vec<PartId> = children
                    .iter()
                    .map(|c| self.specialise(*c, kind, memo))
                    .collect();
                self.or(children)
            }
        };
        memo.insert(id, part);
        part
    }

    fn not(&mut self, child: PartId) -> PartId {
        match self.parts[child.0 as usize] {
            Part::True => FALSE,
            Part::False => TRUE,
            Part::Not(inner) => inner,
            _ => self.add(Part::Not(child)),
        }
    }

    fn and(&mut self, children: Vec<PartId>) -> PartId {
        let mut flat = Vec::new();
        for child in children {
            match &self.parts[child.0 as usize] {
                Part::True => {}
                Part::False => return FALSE,
                Part::And(inner) => flat.extend(inner.iter().copied()),
                _ => flat.push(child),
            }
        }
        // not a and not b and not c: not any of them
        let negated: Vec<PartId> = flat
            .iter()
            .filter_map(|c| match self.parts[c.0 as usize] {
                Part::Not(inner) => Some(inner),
                _ => None,
            })
            .collect();
        let (fused, rest) = self.fuse(negated);
        if !fused.is_empty() {
            flat.retain(|c| !matches!(self.parts[c.0 as usize], Part::Not(_)));
            for part in fused.into_iter().chain(rest) {
                let part = self.not(part);
                flat.push(part);
            }
        }
        self.order_all(&mut flat);
        match flat.len() {
            0 => TRUE,
            1 => flat[0],
            _ => self.add(Part::And(flat.into())),
        }
    }

    fn or(&mut self, children: Vec<PartId>) -> PartId {
        let mut flat = Vec::new();
        for child in children {
            match &self.parts[child.0 as usize] {
                Part::False => {}
                Part::True => return TRUE,
                Part::Or(inner) => flat.extend(inner.iter().copied()),
                _ => flat.push(child),
            }
        }
        let (fused, mut flat) = self.fuse(flat);
        flat.extend(fused);
        self.order_any(&mut flat);
        match flat.len() {
            0 => FALSE,
            1 => flat[0],
            _ => self.add(Part::Or(flat.into())),
        }
    }

    /// For `and`: what rules out most for the least work first; each once.
    fn order_all(&self, parts: &mut Vec<PartId>) {
        parts.sort_unstable_by(|a, b| {
            let price = |p: &PartId| {
                self.costs[p.0 as usize] as f32 / (1.0 - self.chances[p.0 as usize]).max(0.001)
            };
            price(a).total_cmp(&price(b)).then(a.cmp(b))
        });
        parts.dedup();
    }

    /// For `or`: what decides most for the least work first; each once.
    fn order_any(&self, parts: &mut Vec<PartId>) {
        parts.sort_unstable_by(|a, b| {
            let price = |p: &PartId| {
                self.costs[p.0 as usize] as f32 / self.chances[p.0 as usize].max(0.001)
            };
            price(a).total_cmp(&price(b)).then(a.cmp(b))
        });
        parts.dedup();
    }

    fn chance(&self, part: &Part) -> f32 {
        let of = |c: &PartId| self.chances[c.0 as usize];
        match part {
            Part::True => 1.0,
            Part::False => 0.0,
            Part::Not(c) => 1.0 - of(c),
            Part::And(c) => c.iter().map(of).product(),
            Part::Or(c) => 1.0 - c.iter().map(|c| 1.0 - of(c)).product::<f32>(),
            Part::AnyOf(..) => 0.1,
            Part::Leaf(leaf) => {
                let leaf = self.graph.leaf(*leaf);
                match (leaf.op, leaf.typed.ty) {
                    (Op::Exists, _) => 0.9,
                    (Op::Ne, _) => 0.95,
                    (Op::Lt | Op::Le | Op::Gt | Op::Ge, _) => 0.7,
                    (_, FieldType::Bool) => 0.5,
                    (_, FieldType::Text) if !tells_apart(self.graph, leaf.operand) => 0.4,
                    (_, FieldType::Net) => 0.3,
                    _ => 0.05,
                }
            }
        }
    }

    /// Replaces many comparisons of one text by one lookup: what became of them, and the rest.
    fn fuse(&mut self, parts: Vec<PartId>) -> (Vec<PartId>, Vec<PartId>) {
        let mut by_operand: FxHashMap<OperandId, (Vec<LeafId>, usize)> = FxHashMap::default();
        for part in &parts {
            if let Some((operand, leaves)) = self.text_leaves(*part) {
                let slot = by_operand.entry(operand).or_default();
                slot.0.extend(leaves);
                slot.1 += 1;
            }
        }
        by_operand.retain(|_, (_, count)| *count >= MIN_FUSED);
        if by_operand.is_empty() {
            return (Vec::new(), parts);
        }
        let rest = parts
            .into_iter()
            .filter(|p| {
                self.text_leaves(*p)
                    .is_none_or(|(o, _)| !by_operand.contains_key(&o))
            })
            .collect();
        let mut fused: Vec<(OperandId, Vec<LeafId>)> =
            by_operand.into_iter().map(|(o, (l, _))| (o, l)).collect();
        fused.sort_unstable();
        let fused = fused
            .into_iter()
            .map(|(operand, mut leaves)| {
                leaves.sort_unstable();
                leaves.dedup();
                self.add(Part::AnyOf(operand, leaves.into()))
            })
            .collect();
        (fused, rest)
    }

    /// The comparisons of a part that asks whether a text matches constants, and nothing else.
    fn text_leaves(&self, part: PartId) -> Option<(OperandId, Vec<LeafId>)> {
        match &self.parts[part.0 as usize] {
            Part::AnyOf(operand, leaves) => Some((*operand, leaves.to_vec())),
            Part::Leaf(id) => {
                let leaf = self.graph.leaf(*id);
                is_text_lookup(self.graph, leaf).then(|| (leaf.operand, vec![*id]))
            }
            _ => None,
        }
    }

    fn add(&mut self, part: Part) -> PartId {
        if let Some(id) = self.part_ids.get(&part) {
            return *id;
        }
        let sum = |c: &[PartId]| {
            let mut total = 1u32;
            for child in c {
                total = total.saturating_add(self.costs[child.0 as usize]);
            }
            total
        };
        let cost = match &part {
            Part::True | Part::False => 0,
            Part::Not(c) => self.costs[c.0 as usize],
            Part::And(c) | Part::Or(c) => sum(c),
            Part::Leaf(leaf) => self.graph.leaf(*leaf).cost,
            Part::AnyOf(..) => 12,
        };
        let chance = self.chance(&part);
        let id = PartId(self.parts.len() as u32);
        if let Part::AnyOf(_, leaves) = &part {
            let mut builder = PatternsBuilder::default();
            leaves
                .iter()
                .for_each(|l| add_patterns(&mut builder, self.graph, *l, 0));
            let patterns = builder.build().unwrap_or_default();
            self.any_of.insert(id, patterns);
        }
        self.parts.push(part.clone());
        self.costs.push(cost);
        self.chances.push(chance);
        self.part_ids.insert(part, id);
        id
    }

    // Planning

    fn build(&self, mut rules: Vec<Pending>, level: usize) -> Plan {
        let mut plan = Plan::default();
        for _ in 0..MAX_GROUPS {
            if rules.len() < 2 || level >= MAX_LEVELS {
                break;
            }
            let Some(part) = self.best_guard(&rules) else {
                break;
            };
            let (inner, outer) = partition(rules, |r| r.parts.contains(&part));
            rules = outer;
            plan.groups.push(self.group(inner, level));
        }
        let accesses: Vec<Option<Access>> = rules.iter().map(|r| self.access(r)).collect();
        if accesses.iter().flatten().count() < MIN_INDEXED {
            plan.entries = rules.iter().map(|r| self.entry(r, None)).collect();
            return plan;
        }
        let mut found = Vec::new();
        for (rule, access) in rules.iter().zip(accesses) {
            match access {
                Some(access) => found.push((rule, access)),
                None => plan.entries.push(self.entry(rule, None)),
            }
        }
        plan.indexes.push(self.index(&found));
        plan
    }

    fn group(&self, mut rules: Vec<Pending>, level: usize) -> Group {
        let mut guards: Vec<PartId> = rules[0].parts.to_vec();
        guards.retain(|g| self.can_guard(*g) && rules.iter().all(|r| r.parts.contains(g)));
        for rule in &mut rules {
            rule.parts = rule
                .parts
                .iter()
                .copied()
                .filter(|p| !guards.contains(p))
                .collect();
        }
        self.order_all(&mut guards);
        Group {
            guards: guards.into(),
            plan: self.build(rules, level + 1),
        }
    }

    /// What many rules ask, few events fulfil, and little work decides.
    fn can_guard(&self, part: PartId) -> bool {
        self.chances[part.0 as usize] <= MAX_GUARD_CHANCE
    }

    /// What most rules ask; of equals, the cheapest.
    fn best_guard(&self, rules: &[Pending]) -> Option<PartId> {
        let mut counts: FxHashMap<PartId, usize> = FxHashMap::default();
        for rule in rules {
            let guards = rule.parts.iter().filter(|p| self.can_guard(**p));
            guards.for_each(|p| *counts.entry(*p).or_default() += 1);
        }
        counts
            .into_iter()
            .filter(|(_, n)| *n > 1)
            .max_by_key(|(p, n)| (*n, std::cmp::Reverse((self.costs[p.0 as usize], *p))))
            .map(|(p, _)| p)
    }

    /// The patterns by which a rule is best found: those of the part that is cheapest to look up.
    fn access(&self, rule: &Pending) -> Option<Access> {
        rule.parts
            .iter()
            .filter_map(|p| {
                let leaves = self.access_leaves(*p, 0)?;
                let price = self.access_price(&leaves)?;
                let whole = self.text_leaves(*p).is_some();
                Some((
                    price,
                    *p,
                    Access {
                        leaves,
                        implied: whole.then_some(*p),
                    },
                ))
            })
            .min_by_key(|(price, part, _)| (*price, *part))
            .map(|(_, _, access)| access)
    }

    /// Comparisons of texts of which at least one holds wherever the part does.
    fn access_leaves(&self, part: PartId, depth: usize) -> Option<Vec<LeafId>> {
        if depth > 8 {
            return None;
        }
        match &self.parts[part.0 as usize] {
            Part::And(children) => children
                .iter()
                .filter_map(|c| self.access_leaves(*c, depth + 1))
                .filter_map(|l| self.access_price(&l).map(|price| (price, l)))
                .min_by_key(|(price, _)| *price)
                .map(|(_, leaves)| leaves),
            Part::Or(children) => {
                let mut all = Vec::new();
                for child in children {
                    all.extend(self.access_leaves(*child, depth + 1)?);
                }
                Some(all)
            }
            Part::Leaf(_) | Part::AnyOf(..) => {
                let (operand, leaves) = self.text_leaves(part)?;
                tells_apart(self.graph, operand).then_some(leaves)
            }
            Part::True | Part::False | Part::Not(_) => None,
        }
    }

    /// What looking these up costs; nothing where they are too many.
    fn access_price(&self, leaves: &[LeafId]) -> Option<usize> {
        let mut operands: Vec<OperandId> = Vec::new();
        let (mut constants, mut price) = (0, 0);
        for leaf in leaves {
            let leaf = self.graph.leaf(*leaf);
            let Side::Values(values) = &leaf.side else {
                return None;
            };
            constants += values.len();
            price += match leaf.op {
                Op::Startswith => 2,
                Op::Endswith => 3,
                Op::Contains => 8,
                _ => 1,
            };
            if values
                .iter()
                .any(|v| v.len() < 2 && leaf.op != Op::Eq && !leaf.op.takes_list())
            {
                price += 50;
            }
            if !operands.contains(&leaf.operand) {
                operands.push(leaf.operand);
                price += 10;
            }
        }
        (constants <= MAX_INDEXED_CONSTANTS).then_some(price)
    }

    fn index(&self, rules: &[(&Pending, Access)]) -> Index {
        let mut builders: Vec<(OperandId, PatternsBuilder, Vec<u32>)> = Vec::new();
        let mut entries = Vec::new();
        for (rule, access) in rules {
            let number = entries.len() as u32;
            let marked = if access.implied.is_some() {
                number | MAY_BE_MEANT
            } else {
                number
            };
            for id in &access.leaves {
                let operand = self.graph.leaf(*id).operand;
                let at = match builders.iter().position(|(o, ..)| *o == operand) {
                    Some(at) => at,
                    None => {
                        builders.push((operand, PatternsBuilder::default(), Vec::new()));
                        builders.len() - 1
                    }
                };
                let (_, builder, all) = &mut builders[at];
                add_patterns(builder, self.graph, *id, number);
                if all.last() != Some(&marked) {
                    all.push(marked);
                }
            }
            entries.push(self.entry(rule, access.implied));
        }
        let lookups = builders
            .into_iter()
            .map(|(operand, builder, all)| Lookup {
                operand,
                patterns: builder.build().unwrap_or_default(),
                all,
            })
            .collect();
        Index { lookups, entries }
    }

    fn entry(&self, rule: &Pending, without: Option<PartId>) -> Entry {
        let mut parts: Vec<PartId> = rule
            .parts
            .iter()
            .copied()
            .filter(|p| Some(*p) != without)
            .collect();
        self.order_all(&mut parts);
        Entry {
            rule: rule.rule,
            parts: parts.into(),
        }
    }
}

/// How a rule is found.
struct Access {
    leaves: Vec<LeafId>,
    /// The part that holds wherever one of them does.
    implied: Option<PartId>,
}

/// Whether the texts of an operand are so many that a constant rules most events out.
fn tells_apart(graph: &Graph, operand: OperandId) -> bool {
    let Operand::Field(field) = graph.operand(operand) else {
        return false;
    };
    let few = [
        "fd.type",
        "fd.typechar",
        "fd.l4proto",
        "fd.sockfamily",
        "evt.res",
        "evt.category",
        "thread.cap_effective",
        "thread.cap_permitted",
        "thread.cap_inheritable",
        "container.type",
        "container.id",
        "ka.verb",
        "ka.stage",
        "ka.auth.decision",
        "ka.target.resource",
        "ka.response.code",
        "user.name",
        "evt.args",
        "proc.env",
    ];
    let flags = matches!(&field.arg, FieldArg::Key(k) if matches!(&**k, "flags" | "mode" | "res" | "/stage"));
    field.field.info().ty == FieldType::Text && !flags && !few.contains(&field.field.name())
}

fn partition(
    rules: Vec<Pending>,
    wanted: impl Fn(&Pending) -> bool,
) -> (Vec<Pending>, Vec<Pending>) {
    rules.into_iter().partition(wanted)
}

/// Whether a comparison asks if one text is, begins with, ends in or contains a constant.
fn is_text_lookup(graph: &Graph, leaf: &crate::graph::Leaf) -> bool {
    let plain = leaf.quantifier.is_none_or(|q| q == Quantifier::Any);
    let op = matches!(
        leaf.op,
        Op::Eq | Op::In | Op::Intersects | Op::Startswith | Op::Endswith | Op::Contains
    );
    plain
        && op
        && leaf.typed.ty == FieldType::Text
        && leaf.typed.shape == Shape::One
        && matches!(leaf.side, Side::Values(_))
        && matches!(graph.operand(leaf.operand), Operand::Field(_))
}

fn add_patterns(builder: &mut PatternsBuilder, graph: &Graph, leaf: LeafId, number: u32) {
    let leaf = graph.leaf(leaf);
    if let Side::Values(values) = &leaf.side {
        values.iter().for_each(|v| builder.add(leaf.op, v, number));
    }
}

type Words = Vec<Option<FxHashMap<Box<[u8]>, u32>>>;

/// Gives each word that a text is compared with a number, so that one lookup serves all rules.
fn forms(graph: &Graph) -> (Vec<Form>, Words) {
    let mut words: Words = (0..graph.operand_count()).map(|_| None).collect();
    let is_word_lookup = |leaf: &crate::graph::Leaf| {
        is_text_lookup(graph, leaf) && matches!(leaf.op, Op::Eq | Op::In | Op::Intersects)
    };
    let mut numbers: Vec<Vec<u32>> = Vec::new();
    for (_, leaf) in graph.leaves() {
        let mut found = Vec::new();
        if let (true, Side::Values(values)) = (is_word_lookup(leaf), &leaf.side) {
            let table = words[leaf.operand.0 as usize].get_or_insert_default();
            for value in values {
                let next = table.len() as u32;
                found.push(*table.entry(value.as_slice().into()).or_insert(next));
            }
        }
        numbers.push(found);
    }
    // A list of a million words compared once is a set of its own, not a row of bits.
    let forms = graph
        .leaves()
        .zip(numbers)
        .map(|((_, leaf), mut found)| {
            let size = words[leaf.operand.0 as usize]
                .as_ref()
                .map_or(0, FxHashMap::len);
            found.sort_unstable();
            match found.len() {
                _ if !is_word_lookup(leaf) => Form::General,
                1 => Form::Word(found[0]),
                0..=8 => Form::FewWords(found.into()),
                n if size > n * 64 + 65_536 => Form::General,
                _ => {
                    let mut bits = vec![0u64; size.div_ceil(64)];
                    found
                        .iter()
                        .for_each(|w| bits[*w as usize / 64] |= 1 << (w % 64));
                    Form::ManyWords(bits.into())
                }
            }
        })
        .collect();
    (forms, words)
}
