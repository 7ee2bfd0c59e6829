//! What a rule needs, what it expands to, what it costs and why it may be off.
//!
//! Promises: a rule that cannot be judged here is never silent; its status says what is missing.
//!
//! Leaves out: how it is shown.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::events::KindSet;
use crate::fields::{Field, FieldRef, NodeCapabilities};
use crate::graph::{Graph, KindMemo, Node, NodeId, Operand, Side, tells_apart_beyond};
use crate::output::Output;
use crate::{Rule, RuleId, Ruleset, Source};

/// Whether a rule judges events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RuleStatus {
    /// It judges all the kinds of event it is for.
    Active,
    /// It judges, but not all that it is for: kinds of event or fields that are not observed, or
    /// in part only, are named.
    Partial {
        /// e.g. `needs evt.type bpf: not observed`, `proc.tty in part: …`
        reasons: Vec<String>,
    },
    /// Its author, or a later file, has disabled it.
    Disabled,
    /// This node does not observe what it needs.
    Inactive {
        /// e.g. `needs proc.env: not collected`
        reasons: Vec<String>,
    },
}

impl RuleStatus {
    /// Whether it judges any events.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active | Self::Partial { .. })
    }

    /// In a word, as `rules list` shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Partial { .. } => "partial",
            Self::Inactive { .. } => "inactive",
            Self::Disabled => "disabled",
        }
    }

    /// Why it judges none or not all; empty where it judges all.
    pub fn reasons(&self) -> Vec<String> {
        match self {
            Self::Active => Vec::new(),
            Self::Disabled => vec!["disabled".to_owned()],
            Self::Partial { reasons } | Self::Inactive { reasons } => reasons.clone(),
        }
    }
}

pub(crate) fn status(
    graph: &Graph,
    root: NodeId,
    kinds: &KindSet,
    source: Source,
    enabled: bool,
    capabilities: &NodeCapabilities,
) -> RuleStatus {
    if !enabled {
        return RuleStatus::Disabled;
    }
    let mut reasons: Vec<String> = Vec::new();
    for field in graph.fields_under(root) {
        if let Some(why) = capabilities.missing(field) {
            let name = match field.field {
                Field::EvtArg => field.to_string(),
                plain => plain.name().to_owned(),
            };
            reasons.push(format!("needs {name}: {why}"));
        }
    }
    reasons.dedup();
    let parts = parts(graph, root, kinds, capabilities);
    let mut kinds = *kinds;
    if !reasons.is_empty() {
        // what hangs on a field that is missing is never known to be true
        kinds = graph.kinds_told(root, capabilities);
        if kinds.is_empty() {
            return RuleStatus::Inactive { reasons };
        }
    }
    if let Some(reasons) = never(graph, root, source, capabilities) {
        return RuleStatus::Inactive { reasons };
    }
    if source == Source::Syscall {
        let missing: Vec<String> = kinds
            .iter()
            .filter_map(|k| {
                let why = capabilities.missing_kind(k)?;
                Some(format!("needs evt.type {k}: {why}"))
            })
            .collect();
        if !missing.is_empty() && missing.len() == kinds.len() {
            reasons.extend(missing);
            return RuleStatus::Inactive { reasons };
        }
        // a rule for any kind of event is not told that some kinds are not observed
        if kinds.len() <= MANY_KINDS {
            reasons.extend(missing);
        }
    }
    reasons.extend(parts);
    match reasons.is_empty() {
        true => RuleStatus::Active,
        false => RuleStatus::Partial { reasons },
    }
}

/// Why a condition cannot become true where fields never have some values; `None` where it can.
fn never(
    graph: &Graph,
    root: NodeId,
    source: Source,
    capabilities: &NodeCapabilities,
) -> Option<Vec<String>> {
    if source != Source::Syscall {
        return None;
    }
    let mut reasons = Vec::new();
    graph.leaves_under(root, |leaf| {
        if let Some((true, why)) = graph.asks_for_a_missing_value(leaf, capabilities) {
            reasons.push(format!("needs {}: {why}", graph.show_leaf(leaf, 1)));
        } else if let Some((false, why)) = graph.asks_for_a_missing_value(leaf, capabilities) {
            reasons.push(format!("needs not {}: {why}", graph.show_leaf(leaf, 1)));
        }
    });
    let is_never = !reasons.is_empty() && graph.kinds_told(root, capabilities).is_empty();
    is_never.then_some(reasons)
}

/// What of the fields of a rule is not told whole, as far as its comparisons hang on that.
fn parts(
    graph: &Graph,
    root: NodeId,
    kinds: &KindSet,
    capabilities: &NodeCapabilities,
) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    graph.leaves_under(root, |leaf| {
        let mut fields = Vec::new();
        graph.fields_of(leaf.operand, &mut fields);
        if let Side::Operand(other) = leaf.side {
            graph.fields_of(other, &mut fields);
        }
        let plain = matches!(graph.operand(leaf.operand), Operand::Field(_));
        for field in fields.iter().map(|f| f.field) {
            if capabilities.missing_field(field).is_some() {
                continue;
            }
            let apart = |last| !plain || tells_apart_beyond(leaf, last);
            let name = field.name();
            let found = capabilities.parts_for(field, kinds, apart);
            parts.extend(found.map(|which| format!("{name} in part: {which}")));
        }
    });
    parts
}

/// A rule for more kinds of event is meant for whatever there is.
const MANY_KINDS: usize = 100;

/// Everything `rules explain` tells.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The rule.
    pub rule: Rule,
    /// Its condition with all macros and lists expanded, exceptions included.
    pub expanded: String,
    /// Macros it rests on.
    pub macros: Vec<String>,
    /// Kinds of event for which it can be true, and whether this node observes them; empty means
    /// any kind of its source.
    pub kinds: Vec<KindNeed>,
    /// Fields it asks for, and whether this node observes them.
    pub fields: Vec<FieldNeed>,
    /// How many comparisons it has.
    pub comparisons: usize,
    /// What judging all of them would cost, in comparisons of a number. Most are never asked.
    pub cost: u32,
}

/// A kind of event that a rule is for.
#[derive(Clone, Debug, Serialize)]
pub struct KindNeed {
    /// `execve`
    pub name: String,
    /// Why it is not observed here, if it is not.
    pub missing: Option<String>,
}

/// A field that a rule asks for.
#[derive(Clone, Debug, Serialize)]
pub struct FieldNeed {
    /// `proc.aname[2]`
    pub name: String,
    /// Why it is not observed here, if it is not.
    pub missing: Option<String>,
    /// Of which events it is observed, where not of all.
    pub in_part: Option<String>,
}

impl Ruleset {
    /// Explains a rule.
    pub fn explain(&self, id: RuleId) -> Explanation {
        let root = self.compiled[id.index()].root;
        let kinds = self.graph.kinds_of(root, &mut KindMemo::default());
        let any = kinds == KindSet::all() || self.rule(id).source != Source::Syscall;
        let (mut comparisons, mut cost) = (0, 0u32);
        self.graph.leaves_under(root, |leaf| {
            comparisons += 1;
            cost = cost.saturating_add(leaf.cost);
        });
        Explanation {
            rule: self.rule(id).clone(),
            expanded: self.graph.show(root),
            macros: self.macros_under(root),
            kinds: kinds
                .iter()
                .filter(|_| !any)
                .map(|k| KindNeed {
                    name: k.name().to_owned(),
                    missing: self.capabilities.missing_kind(k).map(str::to_owned),
                })
                .collect(),
            fields: self
                .graph
                .fields_under(root)
                .into_iter()
                .map(|f| FieldNeed {
                    name: f.to_string(),
                    missing: self.capabilities.missing(f).map(str::to_owned),
                    in_part: self.capabilities.part_of_field(f.field).map(str::to_owned),
                })
                .collect(),
            comparisons,
            cost,
        }
    }

    /// The kinds of event that any active rule is for: what the sensor has to produce.
    pub fn kinds_needed(&self, source: Source) -> KindSet {
        let mut memo = KindMemo::default();
        self.rules
            .iter()
            .zip(&self.compiled)
            .filter(|(r, _)| r.source == source && r.status.is_active())
            .map(|(_, c)| self.graph.kinds_of(c.root, &mut memo))
            .fold(KindSet::EMPTY, |all, kinds| all.union(&kinds))
    }

    /// Fields, with their arguments, that conditions and outputs of active rules ask for; each once,
    /// in the order of their texts.
    pub fn fields_asked(&self, source: Source) -> Vec<&FieldRef> {
        let of_rules = self.rules.iter().zip(&self.compiled);
        let mut found = Vec::new();
        for (_, compiled) in of_rules.filter(|(r, _)| r.source == source && r.status.is_active()) {
            found.extend(self.graph.fields_under(compiled.root));
            let extra = compiled.extra.iter().map(|(_, output)| output);
            for operand in extra.chain([&compiled.output]).flat_map(Output::operands) {
                self.graph.fields_of(operand, &mut found);
            }
        }
        found.sort_by_cached_key(|f| f.to_string());
        found.dedup();
        found
    }

    /// The kinds of event for which a rule can be true.
    pub fn kinds(&self, id: RuleId) -> KindSet {
        let root = self.compiled[id.index()].root;
        self.graph.kinds_of(root, &mut KindMemo::default())
    }

    fn macros_under(&self, root: NodeId) -> Vec<String> {
        let mut names = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            names.extend(self.macro_names.get(&id).cloned());
            match self.graph.node(id) {
                Node::And(c) | Node::Or(c) => stack.extend(c.iter().copied()),
                Node::Not(c) => stack.push(*c),
                Node::Leaf(_) => {}
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}
