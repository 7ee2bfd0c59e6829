//! From items to a set of rules that can judge: names resolved, types checked, parts shared.
//!
//! Promises: all or nothing. A [`Ruleset`] comes only of files without an error; each error names
//! its place. Work is bounded by what was read: macros and lists are expanded once, not per use.
//!
//! Leaves out: reading YAML (`load`) and the form in which events are judged (`plan`).

use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::events::EventKind;
use crate::explain::{self, RuleStatus};
use crate::fields::{Field, FieldError, FieldRef, FieldType, NodeCapabilities, Shape};
use crate::graph::{Graph, KindMemo, MAX_DEPTH, Node, NodeId, Operand, OperandId, Side};
use crate::graph::{Transformer, Typed};
use crate::judge::MatchMode;
use crate::load::Text;
use crate::load::{self, Exception, Findings, Items, MAX_LIST_ITEMS, OneOrMany, Refusal, RuleItem};
use crate::matcher;
use crate::meant::meant;
use crate::output::{Output, OutputError};
use crate::plan::Plans;
use crate::report::{Code, LoadReport};
use crate::syntax::{self, Check, Expr, Literal, Op, Right};
use crate::{PassedOver, Rule, Ruleset, Source};

/// Lists name lists at most this deep.
const MAX_LIST_DEPTH: usize = 64;
/// All conditions together hold at most this many constants.
const MAX_CONSTANTS: usize = 4_000_000;
/// Falco warns of rules for more kinds of event than this.
const MANY_KINDS: usize = 100;

/// What else decides how files are loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What this node observes.
    pub capabilities: NodeCapabilities,
    /// Whether an event can match one rule or several.
    pub match_mode: MatchMode,
    /// Whether container and pod are added to every output of a syscall rule, as Falco does.
    pub suggested_output: bool,
    /// What else is added to outputs.
    pub append_output: Vec<AppendOutput>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            capabilities: NodeCapabilities::all(),
            match_mode: MatchMode::All,
            suggested_output: true,
            append_output: Vec::new(),
        }
    }
}

/// Text and fields that are added to the outputs of some rules, as Falco's `append_output`.
#[derive(Clone, Debug, Default)]
pub struct AppendOutput {
    /// Only rules of this source.
    pub source: Option<Source>,
    /// Only rules that have all these tags.
    pub tags: Vec<String>,
    /// Only the rule of this name.
    pub rule: Option<String>,
    /// Appended to the output.
    pub extra_output: Option<String>,
    /// Further output fields: name and what it shows, e.g. `%proc.name`.
    pub extra_fields: Vec<(String, String)>,
}

impl AppendOutput {
    fn applies_to(&self, rule: &RuleItem) -> bool {
        self.source.is_none_or(|s| s.as_str() == rule.source)
            && self.tags.iter().all(|t| rule.tags.contains(t))
            && self.rule.as_ref().is_none_or(|r| *r == rule.name)
    }
}

/// Names that are not known for which the one that was meant is looked for, and among how many.
const MAX_GUESSES: u32 = 50;
const MAX_GUESSED: usize = 2000;

/// What a rule became.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    /// Its condition, exceptions included.
    pub(crate) root: NodeId,
    pub(crate) output: Output,
    pub(crate) extra: Vec<(String, Output)>,
}

/// Loads files, in order: later ones override, append and disable. Each is a name and a text.
///
/// A set comes of it only where no file has an error; the report says what is wrong, and warns.
pub fn load(files: &[(&str, &str)], options: &LoadOptions) -> (LoadReport, Option<Ruleset>) {
    let mut findings = Findings::default();
    // what was read is looked at although something could not be: all that is wrong is told at once
    let items = load::read_files(files, &mut findings);
    let set = Compiler::new(&items, options, &mut findings).compile();
    let set = set.filter(|_| findings.report.successful());
    for file in &mut findings.report.files {
        file.errors
            .sort_by_key(|e| e.position().map(|p| (p.line, p.column)));
    }
    (findings.report, set)
}

/// Why a part of a condition does not compile, and where in its text.
struct Wrong {
    at: usize,
    message: String,
    /// A field or kind of event that is not known: `skip-if-unknown-filter` forgives it.
    unknown: bool,
    /// It only follows from an error that was told already.
    follows: bool,
}

impl Wrong {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            unknown: false,
            follows: false,
        }
    }
}

/// A macro, parsed.
struct ParsedMacro {
    /// `None`: what is wrong with it has been told.
    expr: Option<Expr>,
    /// Macros it names, with where.
    uses: Vec<(usize, usize)>,
}

struct Compiler<'a> {
    items: &'a Items,
    options: &'a LoadOptions,
    findings: &'a mut Findings,
    graph: Graph,
    lists: FxHashMap<usize, std::sync::Arc<[Vec<u8>]>>,
    macros: Vec<ParsedMacro>,
    /// Macros, each behind those it names.
    order: Vec<usize>,
    compiled_macros: FxHashMap<(usize, Source), NodeId>,
    macro_names: FxHashMap<NodeId, String>,
    used_lists: FxHashSet<usize>,
    used_macros: FxHashSet<usize>,
    constants: usize,
    passed_over: Vec<PassedOver>,
    /// Names that are not known and for which another may still be looked for.
    guesses: u32,
    /// Warnings of the condition that is being compiled.
    warnings: Vec<(usize, Code, String)>,
    /// The condition that was looked at last names a macro that was refused.
    rests_on_refused: bool,
}

impl<'a> Compiler<'a> {
    fn new(items: &'a Items, options: &'a LoadOptions, findings: &'a mut Findings) -> Self {
        Self {
            items,
            options,
            findings,
            graph: Graph::default(),
            lists: FxHashMap::default(),
            macros: Vec::new(),
            order: Vec::new(),
            compiled_macros: FxHashMap::default(),
            macro_names: FxHashMap::default(),
            used_lists: FxHashSet::default(),
            used_macros: FxHashSet::default(),
            constants: 0,
            passed_over: Vec::new(),
            guesses: MAX_GUESSES,
            warnings: Vec::new(),
            rests_on_refused: false,
        }
    }

    fn compile(mut self) -> Option<Ruleset> {
        self.parse_macros();
        let whole = self.findings.report.successful();
        let mut rules = Vec::new();
        let mut compiled = Vec::new();
        let mut kinds = KindMemo::default();
        for item in &self.items.rules {
            let Some(source) = item.known_source else {
                let why = format!("needs source {}: not received here", item.source);
                self.pass_over(item, why);
                continue;
            };
            match self.rule(item, source) {
                Ok(Some(rule)) => {
                    let status = self.status(item, source, rule.root, &mut kinds);
                    rules.push(describe(item, source, status));
                    compiled.push(rule);
                }
                Ok(None) => {}
                Err(refusal) => self.findings.error(*refusal),
            }
        }
        if whole {
            self.warn_unused();
        }
        if !self.findings.report.successful() {
            return None;
        }
        let plans = Plans::new(&self.graph, &rules, &compiled, &mut kinds);
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Some(Ruleset {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            rules,
            passed_over: self.passed_over,
            graph: self.graph,
            compiled,
            plans,
            mode: self.options.match_mode,
            macro_names: self.macro_names,
            capabilities: self.options.capabilities.clone(),
        })
    }

    fn pass_over(&mut self, item: &RuleItem, why: String) {
        self.passed_over.push(PassedOver {
            name: item.name.clone(),
            description: item.description.clone(),
            priority: item.priority,
            source: item.source.clone(),
            tags: item.tags.clone(),
            position: item.trail.position(),
            why,
        });
    }

    fn warn_unused(&mut self) {
        for (i, item) in self.items.macros.iter().enumerate() {
            if !self.used_macros.contains(&i) {
                let message = "no rule and no other macro names this macro";
                self.findings.warn(Code::UnusedMacro, &item.trail, message);
            }
        }
        for (i, item) in self.items.lists.iter().enumerate() {
            if !self.used_lists.contains(&i) {
                let message = "no rule, macro or other list names this list";
                self.findings.warn(Code::UnusedList, &item.trail, message);
            }
        }
    }

    // Names that were probably meant. Whoever writes names that are not known without end is told of
    // the first ones.

    fn meant_macro(&mut self, name: &str) -> String {
        let names = self.items.macros.iter().map(|m| &*m.name);
        Self::meant_of(&mut self.guesses, name, names)
    }

    fn meant_list(&mut self, name: &str) -> String {
        let names = self.items.lists.iter().map(|l| &*l.name);
        Self::meant_of(&mut self.guesses, name, names)
    }

    fn meant_of<'n>(guesses: &mut u32, name: &str, names: impl Iterator<Item = &'n str>) -> String {
        match guesses.checked_sub(1) {
            None => String::new(),
            Some(left) => {
                *guesses = left;
                meant(name, names.take(MAX_GUESSED))
            }
        }
    }

    // Macros

    /// Parses all macros and finds the order in which they can be compiled.
    fn parse_macros(&mut self) {
        let items = self.items;
        for item in &items.macros {
            let parsed = match syntax::parse_condition(&item.condition.text) {
                Ok(expr) => {
                    let errors = self.findings.count();
                    let uses = self.macro_uses(&expr, &item.condition, item.visibility);
                    let told = self.rests_on_refused || self.findings.count() > errors;
                    ParsedMacro {
                        expr: (!told).then_some(expr),
                        uses,
                    }
                }
                Err(e) => {
                    let trail = item.condition.trail_at(e.at, "condition expression");
                    self.findings.error(Refusal {
                        code: Code::CompileCondition,
                        message: e.message,
                        trail,
                    });
                    ParsedMacro {
                        expr: None,
                        uses: Vec::new(),
                    }
                }
            };
            self.macros.push(parsed);
        }
        self.order_macros();
    }

    /// The macros an expression names; names that no visible macro has are errors.
    fn macro_uses(&mut self, expr: &Expr, text: &Text, visibility: u32) -> Vec<(usize, usize)> {
        self.rests_on_refused = false;
        let mut uses = Vec::new();
        let mut stack = vec![expr];
        while let Some(expr) = stack.pop() {
            match expr {
                Expr::And(c) | Expr::Or(c) => stack.extend(c.iter().rev()),
                Expr::Not(c) => stack.push(c),
                Expr::Check(_) => {}
                Expr::Macro { name, at } => {
                    let found = self.items.macro_index(name);
                    match found.filter(|m| self.items.macros[*m].index < visibility) {
                        Some(index) => {
                            self.used_macros.insert(index);
                            uses.push((index, *at));
                        }
                        None if found.is_none() && self.items.may_be_refused("macro", name) => {
                            self.rests_on_refused = true;
                        }
                        None => {
                            let message = match found {
                                None => {
                                    format!("there is no macro '{name}'{}", self.meant_macro(name))
                                }
                                Some(_) => format!("the macro '{name}' is defined after its use"),
                            };
                            self.findings.error(Refusal {
                                code: Code::Validate,
                                message,
                                trail: text.trail_at(*at, "condition expression"),
                            });
                        }
                    }
                }
            }
        }
        uses
    }

    /// Depth first, without recursion: macros may follow each other in thousands.
    fn order_macros(&mut self) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.macros.len()];
        let mut order = Vec::new();
        let mut cycles = Vec::new();
        for start in 0..self.macros.len() {
            if marks[start] != Mark::New {
                continue;
            }
            let mut path = vec![(start, 0)];
            marks[start] = Mark::Open;
            while let Some((index, next)) = path.last_mut() {
                let index = *index;
                let Some((used, at)) = self.macros[index].uses.get(*next).copied() else {
                    marks[index] = Mark::Done;
                    order.push(index);
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[used] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[used] = Mark::Open;
                        path.push((used, 0));
                    }
                    Mark::Open => {
                        let from = path.iter().position(|(i, _)| *i == used).unwrap_or(0);
                        let round: Vec<usize> = path[from..].iter().map(|(i, _)| *i).collect();
                        let names: Vec<&str> = path[from..]
                            .iter()
                            .map(|(i, _)| self.items.macros[*i].name.as_str())
                            .chain([self.items.macros[used].name.as_str()])
                            .collect();
                        cycles.push((index, at, names.join(" → "), round));
                    }
                }
            }
        }
        for (index, at, names, round) in cycles {
            for of in round {
                self.macros[of].expr = None;
            }
            self.findings.error(Refusal {
                code: Code::Validate,
                message: format!("macros name each other in a circle: {names}"),
                trail: self.items.macros[index]
                    .condition
                    .trail_at(at, "condition expression"),
            });
        }
        self.order = order;
    }

    /// Compiles the macros that these need, those that others build on first.
    fn compile_macros(
        &mut self,
        needed: &[(usize, usize)],
        source: Source,
    ) -> Result<(), (Wrong, usize)> {
        let mut wanted = FxHashSet::default();
        let mut stack: Vec<usize> = needed.iter().map(|(m, _)| *m).collect();
        while let Some(index) = stack.pop() {
            if !self.compiled_macros.contains_key(&(index, source)) && wanted.insert(index) {
                stack.extend(self.macros[index].uses.iter().map(|(m, _)| *m));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        if let Some(told) = wanted.iter().find(|m| self.macros[**m].expr.is_none()) {
            let follows = Wrong {
                follows: true,
                ..Wrong::new(0, "")
            };
            return Err((follows, *told));
        }
        for index in self.order.clone() {
            if !wanted.contains(&index) {
                continue;
            }
            let Some(expr) = self.macros[index].expr.take() else {
                continue;
            };
            let node = self.lower(&expr, source);
            self.macros[index].expr = Some(expr);
            let node = node.map_err(|wrong| (wrong, index))?;
            self.compiled_macros.insert((index, source), node);
            self.macro_names
                .entry(node)
                .or_insert_with(|| self.items.macros[index].name.clone());
        }
        Ok(())
    }

    // Rules

    fn rule(
        &mut self,
        item: &RuleItem,
        source: Source,
    ) -> Result<Option<CompiledRule>, Box<Refusal>> {
        let text = &item.condition;
        let refuse = |code, message, trail| {
            Err(Box::new(Refusal {
                code,
                message,
                trail,
            }))
        };
        self.warnings.clear();
        let expr = match syntax::parse_condition(&text.text) {
            Ok(expr) => expr,
            Err(e) => {
                let trail = text.trail_at(e.at, "condition expression");
                return refuse(Code::CompileCondition, e.message, trail);
            }
        };
        let errors = self.findings.count();
        let uses = self.macro_uses(&expr, text, u32::MAX);
        if self.findings.count() > errors || self.rests_on_refused {
            return Ok(None);
        }
        let lowered = match self.compile_macros(&uses, source) {
            Ok(()) => self
                .lower(&expr, source)
                .map_err(|wrong| (wrong, text, None)),
            Err((wrong, index)) => Err((wrong, &self.items.macros[index].condition, Some(index))),
        };
        let mut root = match lowered {
            Ok(root) => root,
            Err((wrong, _, _)) if wrong.follows => return Ok(None),
            Err((wrong, text, of)) => {
                let trail = text.trail_at(wrong.at, "condition expression");
                if wrong.unknown && item.skip_if_unknown_filter {
                    self.pass_over(item, wrong.message.clone());
                    self.findings
                        .warn(Code::UnknownFilter, &trail, wrong.message);
                    return Ok(None);
                }
                match of {
                    // told once, not for every rule that names the macro
                    Some(index) => self.macros[index].expr = None,
                    None => self.tell_others(&expr, text, wrong.at, source),
                }
                return refuse(Code::CompileCondition, wrong.message, trail);
            }
        };
        for (at, code, message) in std::mem::take(&mut self.warnings) {
            self.findings
                .warn(code, &text.trail_at(at, "condition expression"), message);
        }
        let mut parts = vec![root];
        for exception in &item.exceptions {
            let found = self.exception(exception, source);
            for (_, code, message) in std::mem::take(&mut self.warnings) {
                self.findings.warn(code, &exception.trail, message);
            }
            match found {
                Ok(node) => parts.extend(node.map(|n| self.graph.add_node(Node::Not(n)))),
                Err(wrong) if wrong.unknown && item.skip_if_unknown_filter => {
                    self.pass_over(item, wrong.message.clone());
                    self.findings
                        .warn(Code::UnknownFilter, &exception.trail, wrong.message);
                    return Ok(None);
                }
                Err(wrong) if wrong.follows => return Ok(None),
                Err(wrong) => {
                    return refuse(Code::Validate, wrong.message, exception.trail.clone());
                }
            }
        }
        if parts.len() > 1 {
            root = self.graph.add_node(Node::And(parts.into()));
        }
        if self.graph.depth(root) > MAX_DEPTH {
            let message =
                format!("with its macros, the condition is nested deeper than {MAX_DEPTH} levels");
            return refuse(Code::CompileCondition, message, text.trail().clone());
        }
        self.warn_deprecated(root, item);
        let (output, extra) = match self.outputs(item, source) {
            Ok(outputs) => outputs,
            Err(e) => {
                let trail = item.output.trail_at(e.at(), "rule output expression");
                if e.is_unknown_field() && item.skip_if_unknown_filter {
                    self.pass_over(item, e.to_string());
                    self.findings
                        .warn(Code::UnknownFilter, &trail, e.to_string());
                    return Ok(None);
                }
                return refuse(Code::CompileOutput, e.to_string(), trail);
            }
        };
        Ok(Some(CompiledRule {
            root,
            output,
            extra,
        }))
    }

    /// What else is wrong with a condition of which the comparison at `told` is told anyway.
    fn tell_others(&mut self, expr: &Expr, text: &Text, told: usize, source: Source) {
        let mut stack = vec![expr];
        while let Some(expr) = stack.pop() {
            match expr {
                Expr::And(c) | Expr::Or(c) => stack.extend(c.iter().rev()),
                Expr::Not(c) => stack.push(c),
                Expr::Macro { .. } => {}
                Expr::Check(check) => match self.check(check, source) {
                    Err(wrong) if wrong.at != told && !wrong.follows => {
                        self.findings.error(Refusal {
                            code: Code::CompileCondition,
                            message: wrong.message,
                            trail: text.trail_at(wrong.at, "condition expression"),
                        });
                    }
                    _ => {}
                },
            }
        }
    }

    fn outputs(
        &mut self,
        item: &RuleItem,
        source: Source,
    ) -> Result<(Output, Vec<(String, Output)>), OutputError> {
        let mut text = item.output.text.clone();
        let mut extra = Vec::new();
        for more in self
            .options
            .append_output
            .iter()
            .filter(|a| a.applies_to(item))
        {
            if let Some(output) = &more.extra_output {
                text.push(' ');
                text.push_str(output);
            }
            extra.extend(more.extra_fields.iter().cloned());
        }
        if text.contains("%container.info") {
            let message = "%container.info is deprecated; container fields are added by themselves";
            self.findings
                .warn(Code::DeprecatedItem, item.output.trail(), message);
        }
        let suggested = self.options.suggested_output && source == Source::Syscall;
        let output = Output::compile(&text, suggested, source, &mut self.graph)?;
        if let Some(field) = output.fields(&self.graph).find(|f| f.field.is_deprecated()) {
            let message = format!("the output shows the deprecated field '{field}'");
            self.findings
                .warn(Code::DeprecatedItem, item.output.trail(), message);
        }
        let extra = extra
            .into_iter()
            .map(|(name, text)| {
                Output::compile(&text, false, source, &mut self.graph).map(|o| (name, o))
            })
            .collect::<Result<_, _>>()?;
        Ok((output, extra))
    }

    fn warn_deprecated(&mut self, root: NodeId, item: &RuleItem) {
        let fields = self.graph.fields_under(root);
        let deprecated: Vec<Field> = fields
            .iter()
            .map(|f| f.field)
            .filter(|f| f.is_deprecated())
            .collect();
        for field in deprecated {
            let message = match field {
                Field::EvtDir => "'evt.dir' is deprecated: it is always '<'".to_owned(),
                other => format!("'{}' is deprecated: it never has a value", other.name()),
            };
            self.findings
                .warn(Code::DeprecatedItem, item.condition.trail(), message);
        }
    }

    fn status(
        &mut self,
        item: &RuleItem,
        source: Source,
        root: NodeId,
        memo: &mut KindMemo,
    ) -> RuleStatus {
        let kinds = self.graph.kinds_of(root, memo);
        if source == Source::Syscall && kinds.len() > MANY_KINDS && item.warn_evttypes {
            let message = format!(
                "the condition can be true for {} kinds of event; name the kinds it is for \
                 with evt.type",
                kinds.len()
            );
            self.findings.warn(Code::NoEvttype, &item.trail, message);
        }
        let told = &self.options.capabilities;
        let counted = item.threshold.and_then(|t| t.distinct);
        if let Some((field, why)) = counted.and_then(|f| Some((f, told.missing_field(f)?)))
            && item.enabled
        {
            let reasons = vec![format!("counts {}: {why}", field.name())];
            return RuleStatus::Inactive { reasons };
        }
        explain::status(&self.graph, root, &kinds, source, item.enabled, told)
    }

    // Conditions

    fn lower(&mut self, expr: &Expr, source: Source) -> Result<NodeId, Wrong> {
        Ok(match expr {
            Expr::And(children) => {
                let children = self.lower_all(children, source)?;
                self.graph.add_node(Node::And(children))
            }
            Expr::Or(children) => {
                let children = self.lower_all(children, source)?;
                self.graph.add_node(Node::Or(children))
            }
            Expr::Not(child) => {
                let child = self.lower(child, source)?;
                self.graph.add_node(Node::Not(child))
            }
            Expr::Macro { name, at } => {
                let index = self.items.macro_index(name);
                match index.and_then(|m| self.compiled_macros.get(&(m, source))) {
                    Some(node) => *node,
                    None => return Err(Wrong::new(*at, format!("there is no macro '{name}'"))),
                }
            }
            Expr::Check(check) => self.check(check, source)?,
        })
    }

    fn lower_all(&mut self, children: &[Expr], source: Source) -> Result<Box<[NodeId]>, Wrong> {
        children.iter().map(|c| self.lower(c, source)).collect()
    }

    fn check(&mut self, check: &Check, source: Source) -> Result<NodeId, Wrong> {
        let wrong = |message: String| Wrong::new(check.at, message);
        let operand = lower_operand(&mut self.graph, &check.left, source)?;
        let typed = self.graph.typed(operand);
        matcher::check_operator(
            check.op,
            check.quantifier,
            typed.ty,
            typed.shape == Shape::List,
        )
        .map_err(|e| wrong(format!("{}: {e}", self.graph.show_operand(operand))))?;
        let side = match &check.right {
            Right::Nothing => Side::Nothing,
            Right::Operand(right) => {
                let right = lower_operand(&mut self.graph, right, source)?;
                self.check_sides(check, operand, right)?;
                Side::Operand(right)
            }
            Right::Literal(literal) => Side::Values(vec![self.literal(literal, check)?]),
            Right::ListName(literal) => Side::Values(self.list_named(literal, check)?),
            Right::List(literals) => {
                let mut values = Vec::new();
                for literal in literals {
                    self.expand(literal, &mut values, check.right_at)?;
                }
                Side::Values(values)
            }
        };
        if let Side::Values(values) = &side {
            self.check_values(check, operand, values)?;
        }
        let asks_whether_missing = self.asks_whether_missing(operand, check, &side);
        let placed = |message: String| Wrong::new(check.right_at, message);
        let node = self
            .leaf(operand, check.op, check.quantifier, side)
            .map_err(placed)?;
        if !asks_whether_missing {
            return Ok(node);
        }
        let exists = self
            .leaf(operand, Op::Exists, None, Side::Nothing)
            .map_err(placed)?;
        let missing = self.graph.add_node(Node::Not(exists));
        Ok(self.graph.add_node(Node::Or([node, missing].into())))
    }

    /// Rules name a mount by its source and except the text `<NA>` where there is none. Taken by the
    /// letter, `not container.mount.dest[/proc*] in ("<NA>")` would hold for every container.
    fn asks_whether_missing(&self, operand: OperandId, check: &Check, side: &Side) -> bool {
        let Operand::Field(field) = self.graph.operand(operand) else {
            return false;
        };
        let Side::Values(values) = side else {
            return false;
        };
        field.field.name().starts_with("container.mount.")
            && matches!(check.op, Op::Eq | Op::In)
            && check.quantifier.is_none()
            && values.iter().any(|v| v == b"<NA>")
    }

    fn leaf(
        &mut self,
        operand: OperandId,
        op: Op,
        quantifier: Option<syntax::Quantifier>,
        side: Side,
    ) -> Result<NodeId, String> {
        let before = self.graph.leaf_count();
        let count = if let Side::Values(values) = &side {
            values.len()
        } else {
            0
        };
        let name = self.graph.show_operand(operand);
        let node = self
            .graph
            .add_leaf(operand, op, quantifier, side)
            .map_err(|e| format!("{name}: {e}"))?;
        if self.graph.leaf_count() > before {
            self.constants += count;
            if self.constants > MAX_CONSTANTS {
                return Err(format!(
                    "all conditions together have over {MAX_CONSTANTS} constants"
                ));
            }
        }
        Ok(node)
    }

    /// A constant where one is expected. Falco pastes lists into the text, so the name of a list of
    /// one item is that item.
    fn literal(&mut self, literal: &Literal, check: &Check) -> Result<Vec<u8>, Wrong> {
        let mut values = Vec::new();
        self.expand(literal, &mut values, check.right_at)?;
        match values.len() {
            1 => Ok(values.swap_remove(0)),
            n => Err(Wrong::new(
                check.right_at,
                format!("'{}' takes one value; the list has {n}", check.op),
            )),
        }
    }

    fn list_named(&mut self, literal: &Literal, check: &Check) -> Result<Vec<Vec<u8>>, Wrong> {
        let name = literal.as_name().unwrap_or("");
        if self.items.list(name).is_none() {
            return Err(Wrong {
                follows: self.items.may_be_refused("list", name),
                ..Wrong::new(
                    check.right_at,
                    format!("there is no list '{name}'{}", self.meant_list(name)),
                )
            });
        }
        let mut values = Vec::new();
        self.expand(literal, &mut values, check.right_at)?;
        Ok(values)
    }

    /// Adds a constant, or the items of the list it names.
    fn expand(
        &mut self,
        literal: &Literal,
        values: &mut Vec<Vec<u8>>,
        at: usize,
    ) -> Result<(), Wrong> {
        match literal.as_name().and_then(|n| self.items.list(n)) {
            None => values.push(literal.text.clone()),
            Some(list) => {
                let items = self.list_items(list, 0).map_err(|m| Wrong::new(at, m))?;
                values.extend(items.iter().cloned());
            }
        }
        if values.len() > MAX_LIST_ITEMS {
            return Err(Wrong::new(
                at,
                format!("the list has more than {MAX_LIST_ITEMS} items"),
            ));
        }
        Ok(())
    }

    /// The items of a list, with the lists it names.
    fn list_items(
        &mut self,
        list: usize,
        depth: usize,
    ) -> Result<std::sync::Arc<[Vec<u8>]>, String> {
        self.used_lists.insert(list);
        if let Some(items) = self.lists.get(&list) {
            return Ok(items.clone());
        }
        let item = &self.items.lists[list];
        if depth > MAX_LIST_DEPTH {
            return Err(format!(
                "the list '{}' names lists in a circle, or too deep",
                item.name
            ));
        }
        let mut values = Vec::new();
        for text in &item.items {
            match self.items.list(text).filter(|other| *other != list) {
                Some(other) => values.extend(self.list_items(other, depth + 1)?.iter().cloned()),
                None => values.extend(syntax::parse_list_item(text).into_iter().map(|l| l.text)),
            }
            if values.len() > MAX_LIST_ITEMS {
                return Err(format!(
                    "the list '{}' has over {MAX_LIST_ITEMS} items",
                    item.name
                ));
            }
        }
        let values: std::sync::Arc<[Vec<u8>]> = values.into();
        self.lists.insert(list, values.clone());
        Ok(values)
    }

    /// Two operands can be compared where their types agree.
    fn check_sides(&self, check: &Check, left: OperandId, right: OperandId) -> Result<(), Wrong> {
        let wrong = |message: String| Err(Wrong::new(check.right_at, message));
        let (l, r) = (self.graph.typed(left), self.graph.typed(right));
        let (left_name, right_name) = (
            self.graph.show_operand(left),
            self.graph.show_operand(right),
        );
        if check.quantifier.is_some() || matches!(check.op, Op::Pmatch | Op::Regex) {
            return wrong(format!("'{}' compares with constants only", check.op));
        }
        let field_of = |id| match self.graph.operand(id) {
            Operand::Field(field) => Some(field.field),
            _ => None,
        };
        for (id, name) in [(left, &left_name), (right, &right_name)] {
            let lineage = field_of(id).is_some_and(|f| f.info().shape == Shape::Lineage);
            let refused = field_of(id).is_some_and(|f| {
                f.is_comparison_only()
                    || matches!(f, Field::EvtRawarg)
                    || f.name().ends_with("ip.name")
            });
            if lineage || refused {
                return wrong(format!("'{name}' cannot be compared with another field"));
            }
        }
        let same = l.ty == r.ty || l.ty.is_number() && r.ty.is_number();
        let listed = matches!(check.op, Op::In | Op::Intersects);
        if !same || (l.shape == Shape::List) != (r.shape == Shape::List) && !listed {
            let list = |t: Typed| {
                if t.shape == Shape::List {
                    " (list)"
                } else {
                    ""
                }
            };
            return wrong(format!(
                "'{left_name}' is {}{} and '{right_name}' is {}{}",
                l.ty.as_str(),
                list(l),
                r.ty.as_str(),
                list(r)
            ));
        }
        Ok(())
    }

    /// Refuses kinds of event that do not exist; warns of constants that look like mistakes.
    fn check_values(
        &mut self,
        check: &Check,
        operand: OperandId,
        values: &[Vec<u8>],
    ) -> Result<(), Wrong> {
        let field = match self.graph.operand(operand) {
            Operand::Field(field) => Some(field.clone()),
            _ => None,
        };
        let is_kind = field.as_ref().is_some_and(|f| f.field == Field::EvtType)
            && matches!(check.op, Op::Eq | Op::Ne | Op::In | Op::Intersects);
        let unsafe_na = field.as_ref().is_some_and(|f| {
            f.field.name().starts_with("ka.") || f.field.name().starts_with("jevt.")
        }) && (matches!(check.op, Op::Eq | Op::Ne) || check.op.takes_list());
        for value in values {
            let bytes = self.graph.typed(operand).ty == FieldType::Bytes;
            if value.contains(&0) && !bytes {
                return Err(Wrong::new(check.right_at, "a value contains a NUL byte"));
            }
            let Ok(text) = std::str::from_utf8(value) else {
                continue;
            };
            if is_kind && EventKind::from_name(text).is_none() {
                return Err(Wrong {
                    unknown: true,
                    ..Wrong::new(
                        check.right_at,
                        format!(
                            "unknown event type '{text}'{}",
                            meant(text, EventKind::all().map(EventKind::name))
                        ),
                    )
                });
            }
            if unsafe_na && text == "<NA>" {
                let message = "comparing with <NA> is unsafe; use 'exists'".to_owned();
                self.warnings
                    .push((check.right_at, Code::UnsafeNaCheck, message));
            }
            if check.op == Op::Regex && is_simple_regex(text) {
                let message = format!(
                    "the pattern '{text}' needs no regex; use = contains startswith endswith"
                );
                self.warnings
                    .push((check.right_at, Code::CompileConditionWarning, message));
            }
            if text.len() < 200 && text.contains('.') && looks_like_operand(text) {
                let meant = match text.contains('(') {
                    true => text.replace(' ', ""),
                    false => format!("val({})", text.trim()),
                };
                let message =
                    format!("'{text}' is compared as a text; to compare fields, write {meant}");
                self.warnings
                    .push((check.right_at, Code::CompileConditionWarning, message));
            }
        }
        Ok(())
    }

    // Exceptions

    /// What an exception excludes; `None` where it has no values.
    fn exception(
        &mut self,
        exception: &Exception,
        source: Source,
    ) -> Result<Option<NodeId>, Wrong> {
        let wrong = |message: String| Wrong::new(0, message);
        let comp = |text: &str| {
            Op::parse(text).ok_or_else(|| wrong(format!("'{text}' is not an operator")))
        };
        let as_one = |value: &OneOrMany| match value {
            OneOrMany::One(text) => Ok(text.clone()),
            OneOrMany::Many(_) => Err(wrong("a sequence where a text is expected".into())),
        };
        match &exception.fields {
            None => Err(wrong("the exception has no 'fields'".into())),
            Some(OneOrMany::One(field)) => {
                let (op, quantifier) = match &exception.comps {
                    None => (Op::In, None),
                    Some(OneOrMany::One(text)) => comp(text)?,
                    Some(OneOrMany::Many(_)) => {
                        return Err(wrong(
                            "'fields' is one field, so 'comps' is one operator".into(),
                        ));
                    }
                };
                if !op.takes_list() && quantifier.is_none() {
                    return Err(wrong(
                        "with one field, 'comps' is in, pmatch, intersects, or has anyof, allof \
                         or oneof"
                            .into(),
                    ));
                }
                let left = self.exception_field(field, source)?;
                if exception.values.is_empty() {
                    return Ok(None);
                }
                let values = exception
                    .values
                    .iter()
                    .map(as_one)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| wrong("with one field, each value is one text".into()))?;
                let right = Right::List(values.iter().flat_map(|v| list_literals(v)).collect());
                self.exception_check(left, op, quantifier, right, source)
                    .map(Some)
            }
            Some(OneOrMany::Many(fields)) => {
                let fields = fields.iter().map(as_one).collect::<Result<Vec<_>, _>>()?;
                let comps = match &exception.comps {
                    None => vec![(Op::Eq, None); fields.len()],
                    Some(OneOrMany::Many(comps)) => comps
                        .iter()
                        .map(|c| as_one(c).and_then(|text| comp(&text)))
                        .collect::<Result<_, _>>()?,
                    Some(OneOrMany::One(_)) => {
                        return Err(wrong(
                            "'fields' is a sequence, so 'comps' is one too".into(),
                        ));
                    }
                };
                if comps.len() != fields.len() {
                    return Err(wrong(format!(
                        "{} fields, but {} comps",
                        fields.len(),
                        comps.len()
                    )));
                }
                let operands = fields
                    .iter()
                    .map(|f| self.exception_field(f, source))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut tuples = Vec::new();
                for value in &exception.values {
                    let OneOrMany::Many(parts) = value else {
                        return Err(wrong(
                            "each value has to be a sequence, one per field".into(),
                        ));
                    };
                    if parts.len() != fields.len() {
                        return Err(wrong(format!(
                            "{} fields, but a value of {} parts",
                            fields.len(),
                            parts.len()
                        )));
                    }
                    let mut checks = Vec::new();
                    for ((left, (op, quantifier)), part) in operands.iter().zip(&comps).zip(parts) {
                        let lists = op.takes_list() || quantifier.is_some();
                        let right = exception_side(part, lists).map_err(wrong)?;
                        checks.push(self.exception_check(
                            left.clone(),
                            *op,
                            *quantifier,
                            right,
                            source,
                        )?);
                    }
                    tuples.push(self.graph.add_node(Node::And(checks.into())));
                }
                Ok(match tuples.len() {
                    0 => None,
                    1 => Some(tuples[0]),
                    _ => Some(self.graph.add_node(Node::Or(tuples.into()))),
                })
            }
        }
    }

    fn exception_field(&mut self, text: &str, source: Source) -> Result<syntax::Operand, Wrong> {
        match syntax::parse_operand_prefix(text) {
            Ok((operand, len)) if len == text.len() => {
                lower_operand(&mut self.graph, &operand, source)?;
                Ok(operand)
            }
            _ => Err(Wrong::new(0, format!("'{text}' is not a field"))),
        }
    }

    fn exception_check(
        &mut self,
        left: syntax::Operand,
        op: Op,
        quantifier: Option<syntax::Quantifier>,
        right: Right,
        source: Source,
    ) -> Result<NodeId, Wrong> {
        let check = Check {
            left,
            op,
            quantifier,
            right,
            at: 0,
            right_at: 0,
        };
        self.check(&check, source)
    }
}

/// A value that is made of fields; with a blank in it, Falco quotes it and it is a text.
fn transformer(text: &str) -> Option<syntax::Operand> {
    if text.contains(' ') {
        return None;
    }
    match syntax::parse_operand_prefix(text) {
        Ok((operand @ syntax::Operand::Transform { .. }, len)) if len == text.len() => {
            Some(operand)
        }
        _ => None,
    }
}

/// The right side of one part of an exception.
fn exception_side(part: &OneOrMany, lists: bool) -> Result<Right, String> {
    match (part, lists) {
        (OneOrMany::One(text), true) => {
            let inner = text.trim();
            let inner = inner
                .strip_prefix('(')
                .and_then(|t| t.strip_suffix(')'))
                .map_or(inner, str::trim);
            if inner.is_empty() {
                return Ok(Right::List(Vec::new()));
            }
            Ok(Right::List(list_literals(inner)))
        }
        (OneOrMany::One(text), false) => Ok(match transformer(text) {
            Some(operand) => Right::Operand(operand),
            None => Right::Literal(list_literals(text).pop().unwrap_or(Literal {
                text: Vec::new(),
                quoted: true,
            })),
        }),
        (OneOrMany::Many(items), true) => {
            let mut literals = Vec::new();
            for item in items {
                match item {
                    OneOrMany::One(text) => literals.extend(list_literals(text)),
                    OneOrMany::Many(_) => return Err("values are nested too deep".into()),
                }
            }
            Ok(Right::List(literals))
        }
        (OneOrMany::Many(_), false) => {
            Err("a sequence where the operator takes one value".to_owned())
        }
    }
}

/// The constants a text of a YAML item stands for; several where it is written as a list.
fn list_literals(text: &str) -> Vec<Literal> {
    syntax::parse_list_item(text)
}

/// Compiles what a comparison is about, or what an output shows.
fn lower_operand(
    graph: &mut Graph,
    operand: &syntax::Operand,
    source: Source,
) -> Result<OperandId, Wrong> {
    match operand {
        syntax::Operand::Text { text } => Ok(graph.add_operand(
            Operand::Text(text.as_slice().into()),
            Typed {
                ty: FieldType::Text,
                shape: Shape::One,
            },
        )),
        syntax::Operand::List { items } => {
            let items = items
                .iter()
                .map(|i| lower_operand(graph, i, source))
                .collect::<Result<Vec<_>, _>>()?;
            let typed = Typed {
                ty: FieldType::Text,
                shape: Shape::List,
            };
            Ok(graph.add_operand(Operand::List(items), typed))
        }
        syntax::Operand::Field { name, arg, at } => {
            let field = FieldRef::resolve(name, arg.as_deref()).map_err(|e| {
                let unknown = matches!(e, FieldError::Unknown { .. });
                let near = match unknown {
                    true => meant(name, Field::all().map(Field::name)),
                    false => String::new(),
                };
                Wrong {
                    unknown,
                    ..Wrong::new(*at, format!("{e}{near}"))
                }
            })?;
            if !field.field.belongs_to(source) {
                let message = format!(
                    "field '{field}' does not exist for source {}",
                    source.as_str()
                );
                return Err(Wrong {
                    unknown: true,
                    ..Wrong::new(*at, message)
                });
            }
            let typed = Typed {
                ty: field.field.info().ty,
                shape: field.shape(),
            };
            Ok(graph.add_operand(Operand::Field(field), typed))
        }
        syntax::Operand::Transform {
            name,
            args,
            arg,
            at,
        } => {
            let wrong = |message: String| Wrong::new(*at, message);
            let by = match (Transformer::from_name(name), arg.as_deref()) {
                (None, _) => {
                    return Err(wrong(format!("the transformer {name}() is not supported")));
                }
                (Some(by), None) => by,
                (Some(Transformer::Getopt { .. }), Some(letter)) => match letter.as_bytes() {
                    [letter] => Transformer::Getopt {
                        letter: Some(*letter),
                    },
                    _ => {
                        return Err(wrong(format!(
                            "getopt() takes one letter in brackets, not '{letter}'"
                        )));
                    }
                },
                (Some(_), Some(_)) => {
                    return Err(wrong(format!("{name}() takes nothing in brackets")));
                }
            };
            let args = args
                .iter()
                .map(|a| lower_operand(graph, a, source))
                .collect::<Result<Vec<_>, _>>()?;
            let typed = transformed(graph, by, &args).map_err(wrong)?;
            Ok(graph.add_operand(Operand::Transform { by, args }, typed))
        }
    }
}

/// Compiles what an output shows; the error is for `output` to place.
pub(crate) fn lower_shown(
    graph: &mut Graph,
    operand: &syntax::Operand,
    source: Source,
) -> Result<OperandId, (String, bool)> {
    lower_operand(graph, operand, source).map_err(|w| (w.message, w.unknown))
}

/// The type of what a transformer makes.
fn transformed(graph: &Graph, by: Transformer, args: &[OperandId]) -> Result<Typed, String> {
    let name = by.as_str();
    for arg in args {
        if let Operand::Field(field) = graph.operand(*arg)
            && (field.field.info().shape == Shape::Lineage
                || field.field.info().shape == Shape::Ends
                || field.field.is_comparison_only()
                || field.field == Field::EvtRawarg)
        {
            return Err(format!("'{field}' cannot be transformed"));
        }
    }
    let typed: Vec<Typed> = args.iter().map(|a| graph.typed(*a)).collect();
    let text = Typed {
        ty: FieldType::Text,
        shape: Shape::One,
    };
    match (by, typed.as_slice()) {
        (Transformer::Join, [separator, list]) => {
            if separator.shape == Shape::List || list.shape != Shape::List {
                return Err("join() takes a separator and a list".into());
            }
            Ok(text)
        }
        (Transformer::Join, _) => Err("join() takes a separator and a list".into()),
        (Transformer::Concat, [_, _, ..]) => {
            if typed
                .iter()
                .any(|t| t.ty != FieldType::Text || t.shape == Shape::List)
            {
                return Err("concat() takes texts".into());
            }
            Ok(text)
        }
        (Transformer::Concat, _) => Err("concat() takes two texts or more".into()),
        (Transformer::Getopt { letter }, [words, letters]) => {
            let texts = typed.iter().all(|t| t.ty == FieldType::Text);
            if !texts || words.shape != Shape::List || letters.shape == Shape::List {
                return Err("getopt() takes a list of words and a text of letters".into());
            }
            Ok(Typed {
                shape: match letter {
                    Some(_) => Shape::One,
                    None => Shape::List,
                },
                ..text
            })
        }
        (Transformer::Getopt { .. }, _) => {
            Err("getopt() takes a list of words and a text of letters".into())
        }
        (Transformer::Len, [one]) => {
            let measurable =
                one.shape == Shape::List || matches!(one.ty, FieldType::Text | FieldType::Bytes);
            if !measurable {
                return Err(format!("len() does not take {}", one.ty.as_str()));
            }
            Ok(Typed {
                ty: FieldType::UInt,
                shape: Shape::One,
            })
        }
        (_, [one]) => {
            let fits =
                one.ty == FieldType::Text || by == Transformer::B64 && one.ty == FieldType::Bytes;
            if !fits {
                return Err(format!("{name}() does not take {}", one.ty.as_str()));
            }
            Ok(*one)
        }
        _ => Err(format!("{name}() takes one value")),
    }
}

/// A pattern whose special characters are at its ends only.
fn is_simple_regex(pattern: &str) -> bool {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let any = [".*", ".+", ".?"];
    let inner = any
        .iter()
        .find_map(|a| inner.strip_prefix(a))
        .unwrap_or(inner);
    let inner = any
        .iter()
        .find_map(|a| inner.strip_suffix(a))
        .unwrap_or(inner);
    !inner.contains([
        '.', '+', '*', '?', '^', '$', '(', ')', '[', ']', '{', '}', '|', '\\',
    ])
}

fn looks_like_operand(text: &str) -> bool {
    let text = text.trim();
    match syntax::parse_operand_prefix(text) {
        Ok((syntax::Operand::Field { name, arg, .. }, len)) => {
            len == text.len() && FieldRef::resolve(&name, arg.as_deref()).is_ok()
        }
        Ok((syntax::Operand::Transform { .. }, len)) => len == text.len(),
        _ => false,
    }
}

fn describe(item: &RuleItem, source: Source, status: RuleStatus) -> Rule {
    Rule {
        name: item.name.clone(),
        description: item.description.clone(),
        priority: item.priority,
        source,
        tags: item.tags.clone(),
        condition: item.condition.text.clone(),
        output: item.output.text.clone(),
        capture: item.capture,
        capture_duration_ms: item.capture_duration_ms,
        threshold: item.threshold,
        position: item.trail.position(),
        status,
    }
}
