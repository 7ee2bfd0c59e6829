//! Rule files, read into items: lists, macros and rules, with later files overriding earlier ones.
//!
//! Promises: Falco's rules for `append`, `override`, `enabled` and `exceptions`, in the order of
//! items and files; every error and warning has its place. Nothing is kept of a set with an error.
//!
//! Leaves out: what conditions and outputs mean (`compile`), and where files come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::fields::{ArgRule, Field, Shape};
use crate::meant::meant;
use crate::report::{Code, Context, FileReport, Finding, LoadReport, Location, Position};
use crate::syntax;
use crate::threshold::{Per, Threshold};
use crate::yaml::{self, Kind, Mark, NodeId, SourceFile, Yaml};
use crate::{Priority, Source};

/// A list has at most this many items.
pub(crate) const MAX_LIST_ITEMS: usize = 250_000;
/// All files together have at most this many rules, macros and lists each.
const MAX_ITEMS: usize = 50_000;
/// A file reports at most this many warnings, and this many errors.
const MAX_FINDINGS: usize = 1_000;
/// Behind a place that is not YAML, reading begins anew at most this often in a file, and as long as
/// what is read again is not longer than this.
const MAX_RESUMES: usize = 50;
const MAX_RESUMED_BYTES: usize = 64 << 20;

/// The version of Falco's engine whose language this is; `required_engine_version` is checked
/// against it.
pub const ENGINE_VERSION: (u32, u32, u32) = (0, 63, 0);

/// A way to an item: each step is a kind of item, its name, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    pub(crate) file: Arc<SourceFile>,
    steps: Vec<(&'static str, Arc<str>, Mark)>,
}

impl Trail {
    fn file(file: &Arc<SourceFile>) -> Self {
        Self {
            file: Arc::clone(file),
            steps: vec![("rules content", "".into(), Mark::default())],
        }
    }

    pub(crate) fn step(&self, kind: &'static str, name: &str, mark: Mark) -> Self {
        let mut trail = self.clone();
        trail.steps.push((kind, name.into(), mark));
        trail
    }

    /// The innermost place.
    pub(crate) fn position(&self) -> Position {
        self.place(self.steps.last().map(|s| s.2).unwrap_or_default())
    }

    fn place(&self, mark: Mark) -> Position {
        Position {
            name: self.file.name.clone(),
            line: mark.line + 1,
            column: mark.column + 1,
            offset: self.file.offset(mark),
        }
    }

    fn context(&self) -> Context {
        let locations = self.steps.iter().map(|(item_type, name, mark)| Location {
            item_name: name.to_string(),
            item_type,
            position: self.place(*mark),
        });
        let mark = self.steps.last().map(|s| s.2).unwrap_or_default();
        Context {
            locations: locations.collect(),
            snippet: snippet(&self.file, mark),
        }
    }
}

/// The line of a mark, at most 160 characters of it, and a `^` under the column.
fn snippet(file: &SourceFile, mark: Mark) -> String {
    let line: Vec<char> = file.line(mark.line).chars().collect();
    let from = (mark.column as usize).saturating_sub(80).min(line.len());
    let to = (mark.column as usize + 80).min(line.len());
    let cut: String = line[from..to]
        .iter()
        .map(|c| if *c == '\t' { ' ' } else { *c })
        .collect();
    format!("{cut}\n{}^\n", " ".repeat(mark.column as usize - from))
}

/// An error on its way to the report.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) trail: Trail,
}

type Read<T> = Result<T, Box<Refusal>>;

fn refuse<T>(code: Code, trail: &Trail, message: impl Into<String>) -> Read<T> {
    Err(Box::new(Refusal {
        code,
        message: message.into(),
        trail: trail.clone(),
    }))
}

fn wrong<T>(trail: &Trail, message: impl Into<String>) -> Read<T> {
    refuse(Code::YamlValidate, trail, message)
}

/// Collects findings, a bounded number a file.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) report: LoadReport,
    by_name: FxHashMap<String, usize>,
    errors: usize,
}

impl Findings {
    fn open(&mut self, name: &str) {
        self.by_name
            .insert(name.to_owned(), self.report.files.len());
        self.report.files.push(FileReport {
            name: name.to_owned(),
            successful: true,
            ..FileReport::default()
        });
    }

    fn file(&mut self, name: &str) -> Option<&mut FileReport> {
        self.by_name.get(name).map(|i| &mut self.report.files[*i])
    }

    /// Errors so far.
    pub(crate) fn count(&self) -> usize {
        self.errors
    }

    pub(crate) fn error(&mut self, refusal: Refusal) {
        self.errors += 1;
        let finding = Finding {
            code: refusal.code,
            codedesc: refusal.code.description(),
            message: refusal.message,
            context: refusal.trail.context(),
        };
        if let Some(file) = self.file(&refusal.trail.file.name) {
            file.successful = false;
            if file.errors.len() < MAX_FINDINGS {
                file.errors.push(finding);
            }
        }
    }

    pub(crate) fn warn(&mut self, code: Code, trail: &Trail, message: impl Into<String>) {
        let Some(file) = self.file(&trail.file.name) else {
            return;
        };
        if file.warnings.len() < MAX_FINDINGS {
            file.warnings.push(Finding {
                code,
                codedesc: code.description(),
                message: message.into(),
                context: trail.context(),
            });
        }
    }
}

/// A text that may consist of several, appended to each other.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// Where in the text each piece begins, and the scalar it comes from.
    pieces: Vec<(usize, Trail, Mark)>,
}

impl Text {
    fn new(text: &str, trail: Trail, mark: Mark) -> Self {
        Self {
            text: text.to_owned(),
            pieces: vec![(0, trail, mark)],
        }
    }

    fn append(&mut self, other: &Text) {
        self.text.push(' ');
        let shift = self.text.len();
        self.text.push_str(&other.text);
        self.pieces.extend(
            other
                .pieces
                .iter()
                .map(|(at, t, m)| (at + shift, t.clone(), *m)),
        );
    }

    /// The way to a place in the text.
    pub(crate) fn trail_at(&self, offset: usize, kind: &'static str) -> Trail {
        let index = self
            .pieces
            .partition_point(|(at, _, _)| *at <= offset)
            .saturating_sub(1);
        let (start, trail, mark) = &self.pieces[index];
        let end = self
            .pieces
            .get(index + 1)
            .map_or(self.text.len(), |(at, _, _)| *at);
        let piece = &self.text[*start..end];
        let place = yaml::locate(&trail.file, *mark, piece, offset - start);
        trail.step(kind, "", place)
    }

    /// The way to the whole text.
    pub(crate) fn trail(&self) -> &Trail {
        &self.pieces[0].1
    }
}

/// A list, as its items were written.
#[derive(Clone, Debug)]
pub(crate) struct ListItem {
    pub(crate) name: String,
    pub(crate) items: Vec<String>,
    pub(crate) trail: Trail,
}

/// A macro.
#[derive(Clone, Debug)]
pub(crate) struct MacroItem {
    pub(crate) name: String,
    pub(crate) condition: Text,
    pub(crate) trail: Trail,
    /// When it was first defined: a macro sees those that were defined before it last changed.
    pub(crate) index: u32,
    pub(crate) visibility: u32,
}

/// A value of an exception, or its fields or comparisons: one, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<OneOrMany>),
}

/// An exception of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    pub(crate) name: String,
    pub(crate) fields: Option<OneOrMany>,
    pub(crate) comps: Option<OneOrMany>,
    pub(crate) values: Vec<OneOrMany>,
    pub(crate) trail: Trail,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct RuleItem {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) condition: Text,
    pub(crate) output: Text,
    pub(crate) priority: Priority,
    pub(crate) source: String,
    pub(crate) known_source: Option<Source>,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) exceptions: Vec<Exception>,
    pub(crate) enabled: bool,
    pub(crate) warn_evttypes: bool,
    pub(crate) skip_if_unknown_filter: bool,
    pub(crate) capture: bool,
    pub(crate) capture_duration_ms: u32,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) trail: Trail,
}

/// Everything that the files hold.
#[derive(Default)]
pub(crate) struct Items {
    pub(crate) lists: Vec<ListItem>,
    pub(crate) macros: Vec<MacroItem>,
    pub(crate) rules: Vec<RuleItem>,
    pub(crate) plugins: BTreeMap<String, String>,
    list_names: FxHashMap<String, usize>,
    macro_names: FxHashMap<String, usize>,
    rule_names: FxHashMap<String, usize>,
    clock: u32,
    /// Items that were refused, by kind and name: that they are missing is no second error.
    refused: BTreeSet<(&'static str, String)>,
    /// Something could not be read at all, so that any name may be in it.
    unread: bool,
}

impl Items {
    /// Whether an item of that name is, or may be, among what was refused.
    pub(crate) fn may_be_refused(&self, kind: &'static str, name: &str) -> bool {
        self.unread || self.refused.contains(&(kind, name.to_owned()))
    }

    /// Keeps in mind what a refusal is about.
    fn refuse(&mut self, refusal: &Refusal) {
        let item = |(kind, name, _): &(&'static str, Arc<str>, Mark)| {
            let is_item = matches!(*kind, "list" | "macro" | "rule") && !name.is_empty();
            is_item.then(|| (*kind, name.to_string()))
        };
        match refusal.trail.steps.iter().find_map(item) {
            Some(item) => drop(self.refused.insert(item)),
            None => self.unread = true,
        }
    }

    pub(crate) fn list(&self, name: &str) -> Option<usize> {
        self.list_names.get(name).copied()
    }

    pub(crate) fn macro_index(&self, name: &str) -> Option<usize> {
        self.macro_names.get(name).copied()
    }

    fn tick(&mut self) -> u32 {
        self.clock += 1;
        self.clock
    }
}

/// Reads all files, in order.
pub(crate) fn read_files(files: &[(&str, &str)], findings: &mut Findings) -> Items {
    let mut items = Items::default();
    for (name, text) in files {
        findings.open(name);
        let file = SourceFile::new(name, text);
        read_file(&file, &mut items, findings).unwrap_or_else(|r| findings.error(*r));
    }
    items
}

/// Reads a file whole: behind an item that is refused the next one is read, and behind a place that is
/// not YAML the next line that begins an item.
fn read_file(file: &Arc<SourceFile>, items: &mut Items, findings: &mut Findings) -> Read<()> {
    let trail = Trail::file(file);
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
    let (yaml, mut stopped) = Yaml::parse_what_reads(text);
    read_documents(&yaml, &trail, items, findings)?;
    let mut again = 0;
    for _ in 0..MAX_RESUMES {
        let Some(at) = stopped.take() else { break };
        let place = trail.step("value for", "", at.error.mark);
        let rest = resume(text, &at);
        findings.error(Refusal {
            code: Code::YamlParse,
            message: at.error.message,
            trail: place,
        });
        items.unread = true;
        again += text.len();
        let Some(rest) = rest.filter(|_| again <= MAX_RESUMED_BYTES) else {
            break;
        };
        let (yaml, next) = Yaml::parse_what_reads(&rest);
        // an anchor may stand in what was not read: nothing certain can be said from there on
        stopped = next.filter(|n| !n.error.message.starts_with("there is no anchor"));
        read_documents(&yaml, &trail, items, findings)?;
    }
    Ok(())
}

/// The text from the next item on, with as many empty lines before it, so that places stay true.
fn resume(text: &str, stopped: &yaml::Stopped) -> Option<String> {
    let begun = stopped.in_entry?.line as usize;
    let indent = " ".repeat(stopped.column? as usize);
    let begins = |line: &str| {
        let rest = line
            .strip_prefix(&indent)
            .and_then(|l| l.strip_prefix("- "));
        let key = rest.and_then(|r| r.trim_start().split_once(':'));
        key.is_some_and(|(key, _)| matches!(key, "list" | "macro" | "rule"))
    };
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if number > begun && begins(line) {
            return Some("\n".repeat(number) + &text[at..]);
        }
        at += line.len();
    }
    None
}

fn read_documents(
    yaml: &Yaml,
    trail: &Trail,
    items: &mut Items,
    findings: &mut Findings,
) -> Read<()> {
    for document in &yaml.documents {
        if yaml.is_null(*document) {
            continue;
        }
        let Some(entries) = yaml.sequence(*document) else {
            items.unread = true;
            return wrong(trail, "expected a YAML sequence of rules, macros and lists");
        };
        for entry in entries.iter().filter(|e| !yaml.is_null(**e)) {
            let mut reader = Reader {
                yaml,
                items,
                findings,
            };
            if let Err(refusal) = reader.item(*entry, trail) {
                items.refuse(&refusal);
                findings.error(*refusal);
            }
        }
    }
    Ok(())
}

struct Reader<'a> {
    yaml: &'a Yaml,
    items: &'a mut Items,
    findings: &'a mut Findings,
}

const CONDITION_KEYS: &[&str] = &["condition"];
const RULE_APPENDABLE: &[&str] = &["condition", "output", "desc", "tags", "exceptions"];
const RULE_REPLACEABLE: &[&str] = &[
    "condition",
    "output",
    "desc",
    "priority",
    "capture",
    "capture_duration",
    "tags",
    "exceptions",
    "enabled",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "threshold",
];
const RULE_KEYS: &[&str] = &[
    "rule",
    "condition",
    "output",
    "desc",
    "priority",
    "source",
    "enabled",
    "capture",
    "capture_duration",
    "warn_evttypes",
    "skip-if-unknown-filter",
    "tags",
    "exceptions",
    "override",
    "append",
    "threshold",
];

const BOTH_APPEND_AND_OVERRIDE: &str =
    "'append: true' and 'override' exclude each other; say 'override: {condition: append}'";
const APPEND_IS_DEPRECATED: &str = "'append' is deprecated; use 'override'";

/// Which keys an `override` appends to and which it replaces.
#[derive(Default)]
struct Overrides {
    append: BTreeSet<String>,
    replace: BTreeSet<String>,
}

impl Reader<'_> {
    fn item(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let mark = self.yaml.mark(id);
        let trail = parent.step("rules content item", "", mark);
        if self.yaml.mapping(id).is_none() {
            return wrong(&trail, "expected a mapping with 'rule', 'macro' or 'list'");
        }
        for (key, reads) in [
            (
                "required_engine_version",
                Self::engine_version as fn(&mut Self, _, _) -> _,
            ),
            ("required_plugin_versions", Self::plugin_versions),
            ("list", Self::list),
            ("macro", Self::macro_item),
            ("rule", Self::rule),
        ] {
            if self.yaml.get(id, key).is_some() {
                return reads(self, id, parent);
            }
        }
        self.findings.warn(
            Code::UnknownItem,
            &trail,
            "expected 'rule', 'macro', 'list', 'required_engine_version' or \
             'required_plugin_versions'; the item is passed over",
        );
        Ok(())
    }

    // Scalars

    fn text(&self, id: NodeId, key: &str, trail: &Trail) -> Read<(String, Mark)> {
        let Some(value) = self.yaml.get(id, key) else {
            return wrong(trail, format!("the item has no '{key}'"));
        };
        let mark = self.yaml.mark(value);
        if self.yaml.is_null(value) {
            return wrong(
                &trail.step("value for", key, mark),
                format!("'{key}' is empty"),
            );
        }
        match self.yaml.scalar(value) {
            None => wrong(
                &trail.step("value for", key, mark),
                format!("'{key}' has to be a text"),
            ),
            Some("") => wrong(
                &trail.step("value for", key, mark),
                format!("'{key}' is empty"),
            ),
            Some(text) => Ok((text.to_owned(), mark)),
        }
    }

    fn has(&self, id: NodeId, key: &str) -> bool {
        self.yaml.get(id, key).is_some()
    }

    fn flag(&self, id: NodeId, key: &str, trail: &Trail) -> Read<Option<bool>> {
        if !self.has(id, key) {
            return Ok(None);
        }
        let (text, mark) = self.text(id, key, trail)?;
        let lower = text.to_ascii_lowercase();
        let cased = text == lower
            || text == text.to_ascii_uppercase()
            || text[1..] == lower[1..] && text.as_bytes()[0].is_ascii_uppercase();
        match lower.as_str() {
            "true" | "yes" | "on" | "y" if cased => Ok(Some(true)),
            "false" | "no" | "off" | "n" if cased => Ok(Some(false)),
            _ => wrong(
                &trail.step("value for", key, mark),
                format!("'{key}' has to be true or false, not '{text}'"),
            ),
        }
    }

    fn number(&self, id: NodeId, key: &str, trail: &Trail) -> Read<Option<u32>> {
        if !self.has(id, key) {
            return Ok(None);
        }
        let (text, mark) = self.text(id, key, trail)?;
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => wrong(
                &trail.step("value for", key, mark),
                format!("'{key}' has to be a whole number, not '{text}'"),
            ),
        }
    }

    fn texts(&self, id: NodeId, key: &str, trail: &Trail) -> Read<Vec<String>> {
        let Some(value) = self.yaml.get(id, key) else {
            return Ok(Vec::new());
        };
        let trail = trail.step("value for", key, self.yaml.mark(value));
        let Some(entries) = self.yaml.sequence(value) else {
            return wrong(&trail, format!("'{key}' has to be a sequence"));
        };
        if entries.len() > MAX_LIST_ITEMS {
            return wrong(
                &trail,
                format!("'{key}' has more than {MAX_LIST_ITEMS} items"),
            );
        }
        let mut texts = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.yaml.scalar(*entry) {
                Some(text) if !self.yaml.is_null(*entry) || !text.is_empty() => {
                    texts.push(text.to_owned());
                }
                _ => {
                    let trail = trail.step("list item", "", self.yaml.mark(*entry));
                    return wrong(&trail, "expected a text");
                }
            }
        }
        Ok(texts)
    }

    fn scalar_text(
        &self,
        id: NodeId,
        key: &str,
        item_type: &'static str,
        trail: &Trail,
    ) -> Read<Text> {
        let (text, mark) = self.text(id, key, trail)?;
        let trail = trail.step(item_type, "", mark);
        if text.len() > syntax::MAX_CONDITION_BYTES {
            return wrong(
                &trail,
                format!("'{key}' is longer than {}", syntax::MAX_CONDITION_BYTES),
            );
        }
        Ok(Text::new(&text, trail, mark))
    }

    fn warn_keys(&mut self, id: NodeId, known: &[&str], trail: &Trail) {
        let mut seen = BTreeSet::new();
        for (key, _) in self.yaml.mapping(id).unwrap_or_default() {
            let name = self.yaml.scalar(*key).unwrap_or("");
            let trail = trail.step("value for", name, self.yaml.mark(*key));
            if !seen.insert(name) {
                let message = format!("key '{name}' is given twice; the first counts");
                self.findings.warn(Code::UnknownKey, &trail, message);
            } else if name == "<<" {
                let message = "YAML merges are not applied, as in Falco; the key is passed over";
                self.findings.warn(Code::UnknownKey, &trail, message);
            } else if !known.contains(&name) {
                let near = meant(name, known.iter().copied());
                let message = format!("key '{name}' is not known; it is passed over{near}");
                self.findings.warn(Code::UnknownKey, &trail, message);
            }
        }
    }

    fn overrides(
        &self,
        id: NodeId,
        appendable: &[&str],
        replaceable: &[&str],
        trail: &Trail,
    ) -> Read<Overrides> {
        let mut overrides = Overrides::default();
        let Some(value) = self.yaml.get(id, "override") else {
            return Ok(overrides);
        };
        let trail = trail.step("overrides", "", self.yaml.mark(value));
        let Some(entries) = self.yaml.mapping(value) else {
            return wrong(
                &trail,
                "'override' has to be a mapping of keys to append or replace",
            );
        };
        for (key, operation) in entries {
            let name = self.yaml.scalar(*key).unwrap_or("");
            let trail = trail.step("overrides", name, self.yaml.mark(*key));
            match self.yaml.scalar(*operation).unwrap_or("") {
                "append" if appendable.contains(&name) => {
                    overrides.append.insert(name.to_owned());
                }
                "append" => {
                    return wrong(
                        &trail,
                        format!("'{name}' cannot be appended to; use 'replace'"),
                    );
                }
                "replace" if replaceable.contains(&name) => {
                    overrides.replace.insert(name.to_owned());
                }
                "replace" => return wrong(&trail, format!("'{name}' cannot be replaced")),
                other => {
                    return wrong(
                        &trail,
                        format!("override of '{name}': expected append or replace, not '{other}'"),
                    );
                }
            }
        }
        Ok(overrides)
    }

    /// Whether `append: true` is given; it excludes `override`.
    fn appends(&mut self, id: NodeId, overrides: &Overrides, trail: &Trail) -> Read<bool> {
        let append = self.flag(id, "append", trail)?.unwrap_or(false);
        if append {
            self.findings
                .warn(Code::DeprecatedItem, trail, APPEND_IS_DEPRECATED);
            if !(overrides.append.is_empty() && overrides.replace.is_empty()) {
                return wrong(trail, BOTH_APPEND_AND_OVERRIDE);
            }
        }
        Ok(append)
    }

    // Requirements

    fn engine_version(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let trail = parent.step("required_engine_version", "", self.yaml.mark(id));
        let (text, _) = self.text(id, "required_engine_version", &trail)?;
        let wanted = match text.parse::<u32>() {
            Ok(minor) => Some((0, minor, 0)),
            Err(_) => semver(&text),
        };
        let Some(wanted) = wanted else {
            return wrong(&trail, format!("'{text}' is not a version; expected x.y.z"));
        };
        if wanted.0 != ENGINE_VERSION.0 || wanted > ENGINE_VERSION {
            let (a, b, c) = ENGINE_VERSION;
            return refuse(
                Code::Validate,
                &trail,
                format!("the rules need engine version {text}; this is {a}.{b}.{c}"),
            );
        }
        self.warn_keys(id, &["required_engine_version"], &trail);
        Ok(())
    }

    fn plugin_versions(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let value = self
            .yaml
            .get(id, "required_plugin_versions")
            .expect("the caller looked");
        let trail = parent.step("required plugin versions", "", self.yaml.mark(value));
        let Some(entries) = self.yaml.sequence(value) else {
            return wrong(&trail, "'required_plugin_versions' has to be a sequence");
        };
        for entry in entries {
            let trail = trail.step("required plugin versions entry", "", self.yaml.mark(*entry));
            if self.yaml.mapping(*entry).is_none() {
                return wrong(&trail, "expected a mapping with 'name' and 'version'");
            }
            let mut names = BTreeSet::new();
            let mut alternatives = vec![*entry];
            if let Some(more) = self.yaml.get(*entry, "alternatives") {
                let Some(more) = self.yaml.sequence(more) else {
                    return wrong(&trail, "'alternatives' has to be a sequence");
                };
                alternatives.extend(more);
            }
            for one in alternatives {
                let trail = trail.step(
                    "required plugin versions alternative",
                    "",
                    self.yaml.mark(one),
                );
                let (name, _) = self.text(one, "name", &trail)?;
                let (version, _) = self.text(one, "version", &trail)?;
                if semver(&version).is_none() {
                    let message = format!("plugin '{name}': '{version}' is not a version");
                    return refuse(Code::Validate, &trail, message);
                }
                if !names.insert(name.clone()) {
                    let message = format!("plugin '{name}' is required twice in one entry");
                    return refuse(Code::Validate, &trail, message);
                }
                self.items.plugins.insert(name, version);
            }
        }
        self.warn_keys(id, &["required_plugin_versions"], &trail);
        Ok(())
    }

    // Lists and macros

    fn list(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let mark = self.yaml.mark(id);
        let (name, _) = self.text(id, "list", &parent.step("list", "", mark))?;
        let trail = parent.step("list", &name, mark);
        if !syntax::is_bare_string(&name) {
            let message = format!("no condition can name the list '{name}'");
            self.findings.warn(Code::InvalidListName, &trail, message);
        }
        if !self.has(id, "items") {
            return wrong(&trail, "the list has no 'items'");
        }
        let items = self.texts(id, "items", &trail)?;
        let overrides = self.overrides(id, &["items"], &["items"], &trail)?;
        let append = self.appends(id, &overrides, &trail)? || overrides.append.contains("items");
        self.warn_keys(id, &["list", "items", "append", "override"], &trail);
        self.items.tick();
        match (self.items.list(&name), append) {
            (None, true) if self.items.may_be_refused("list", &name) => Ok(()),
            (None, true) => {
                let message =
                    "the list is appended to, but there is no list of that name before it";
                refuse(Code::Validate, &trail, message)
            }
            (Some(at), true) => {
                let list = &mut self.items.lists[at];
                list.items.extend(items);
                if list.items.len() > MAX_LIST_ITEMS {
                    return wrong(
                        &trail,
                        format!("the list has more than {MAX_LIST_ITEMS} items"),
                    );
                }
                Ok(())
            }
            (Some(at), false) => {
                self.items.lists[at] = ListItem { name, items, trail };
                Ok(())
            }
            (None, false) => {
                self.bounded(self.items.lists.len(), &trail)?;
                self.items
                    .list_names
                    .insert(name.clone(), self.items.lists.len());
                self.items.lists.push(ListItem { name, items, trail });
                Ok(())
            }
        }
    }

    fn bounded(&self, len: usize, trail: &Trail) -> Read<()> {
        if len >= MAX_ITEMS {
            return wrong(trail, format!("more than {MAX_ITEMS} items of this kind"));
        }
        Ok(())
    }

    fn macro_item(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let mark = self.yaml.mark(id);
        let (name, _) = self.text(id, "macro", &parent.step("macro", "", mark))?;
        let trail = parent.step("macro", &name, mark);
        if !syntax::is_identifier(&name) {
            let message = format!("no condition can name the macro '{name}'");
            self.findings.warn(Code::InvalidMacroName, &trail, message);
        }
        let condition = self.scalar_text(id, "condition", "macro condition", &trail)?;
        let overrides = self.overrides(id, CONDITION_KEYS, CONDITION_KEYS, &trail)?;
        let append =
            self.appends(id, &overrides, &trail)? || overrides.append.contains("condition");
        self.warn_keys(id, &["macro", "condition", "append", "override"], &trail);
        let now = self.items.tick();
        match (self.items.macro_index(&name), append) {
            (None, true) if self.items.may_be_refused("macro", &name) => Ok(()),
            (None, true) => {
                let message =
                    "the macro is appended to, but there is no macro of that name before it";
                refuse(Code::Validate, &trail, message)
            }
            (Some(at), true) => {
                let item = &mut self.items.macros[at];
                item.condition.append(&condition);
                item.visibility = now;
                Ok(())
            }
            (Some(at), false) => {
                let item = &mut self.items.macros[at];
                let index = item.index;
                *item = MacroItem {
                    name,
                    condition,
                    trail,
                    index,
                    visibility: now,
                };
                Ok(())
            }
            (None, false) => {
                self.bounded(self.items.macros.len(), &trail)?;
                self.items
                    .macro_names
                    .insert(name.clone(), self.items.macros.len());
                self.items.macros.push(MacroItem {
                    name,
                    condition,
                    trail,
                    index: now,
                    visibility: now,
                });
                Ok(())
            }
        }
    }

    // Rules

    fn rule(&mut self, id: NodeId, parent: &Trail) -> Read<()> {
        let mark = self.yaml.mark(id);
        let (name, _) = self.text(id, "rule", &parent.step("rule", "", mark))?;
        let trail = parent.step("rule", &name, mark);
        let source = match self.yaml.get(id, "source") {
            Some(value) if self.yaml.scalar(value).is_none_or(|s| !s.is_empty()) => {
                if self.yaml.is_null(value) {
                    None
                } else {
                    Some(self.text(id, "source", &trail)?.0)
                }
            }
            _ => None,
        };
        let overrides = self.overrides(id, RULE_APPENDABLE, RULE_REPLACEABLE, &trail)?;
        let append = self.appends(id, &overrides, &trail)?;
        self.items.tick();
        let defines = ["condition", "output", "desc", "priority"]
            .iter()
            .any(|k| self.has(id, k));
        if !(overrides.append.is_empty() && overrides.replace.is_empty()) {
            self.rule_override(id, &name, source.as_deref(), overrides, &trail)?;
        } else if append {
            self.rule_append(id, &name, source.as_deref(), &trail)?;
        } else if !defines {
            self.rule_enable(id, &name, &trail)?;
        } else {
            self.rule_define(id, name, source, &trail)?;
        }
        self.warn_keys(id, RULE_KEYS, &trail);
        Ok(())
    }

    /// The rule of that name, as it was defined before.
    fn previous(
        &mut self,
        name: &str,
        source: Option<&str>,
        trail: &Trail,
    ) -> Read<Option<&mut RuleItem>> {
        let Some(at) = self.items.rule_names.get(name) else {
            return Ok(None);
        };
        let rule = &mut self.items.rules[*at];
        if source.is_some_and(|s| s != rule.source) {
            let message = format!("the rule was defined before with source '{}'", rule.source);
            return refuse(Code::Validate, trail, message);
        }
        Ok(Some(rule))
    }

    /// Whether there is no rule of that name, because it was refused.
    fn is_refused_rule(&self, name: &str) -> bool {
        !self.items.rule_names.contains_key(name) && self.items.may_be_refused("rule", name)
    }

    fn rule_enable(&mut self, id: NodeId, name: &str, trail: &Trail) -> Read<()> {
        let Some(enabled) = self.flag(id, "enabled", trail)? else {
            return wrong(
                trail,
                "the rule has neither 'condition', 'output', 'desc' and 'priority' nor 'enabled'",
            );
        };
        self.findings.warn(
            Code::DeprecatedItem,
            trail,
            "'enabled' alone is deprecated; add 'override: {enabled: replace}'",
        );
        match self.items.rule_names.get(name) {
            Some(at) => {
                self.items.rules[*at].enabled = enabled;
                Ok(())
            }
            None if self.items.may_be_refused("rule", name) => Ok(()),
            None => refuse(
                Code::Validate,
                trail,
                "'enabled' is set, but there is no rule of that name before it",
            ),
        }
    }

    fn rule_define(
        &mut self,
        id: NodeId,
        name: String,
        source: Option<String>,
        trail: &Trail,
    ) -> Read<()> {
        let (condition, mut output) = self.rule_texts(id, trail)?;
        output.text = output.text.trim().to_owned();
        let source = source.unwrap_or_else(|| Source::Syscall.as_str().to_owned());
        let rule = RuleItem {
            description: self.text(id, "desc", trail)?.0,
            priority: self.priority(id, trail)?,
            condition,
            output,
            known_source: Source::from_name(&source),
            enabled: self.flag(id, "enabled", trail)?.unwrap_or(true),
            capture: self.flag(id, "capture", trail)?.unwrap_or(false),
            capture_duration_ms: self.number(id, "capture_duration", trail)?.unwrap_or(0),
            warn_evttypes: self.flag(id, "warn_evttypes", trail)?.unwrap_or(true),
            skip_if_unknown_filter: self
                .flag(id, "skip-if-unknown-filter", trail)?
                .unwrap_or(false),
            tags: self.texts(id, "tags", trail)?.into_iter().collect(),
            exceptions: self.exceptions(id, trail, false)?,
            threshold: self.threshold(id, trail)?,
            trail: trail.clone(),
            source: source.clone(),
            name: name.clone(),
        };
        if rule.known_source.is_none() {
            let message = format!("the source '{source}' is not known; the rule is passed over");
            self.findings.warn(Code::UnknownSource, trail, message);
        }
        for exception in &rule.exceptions {
            if exception.fields.is_none() {
                return refuse(
                    Code::Validate,
                    &exception.trail,
                    "the exception has no 'fields'",
                );
            }
        }
        match self.previous(&name, Some(&source), trail)? {
            Some(previous) => *previous = rule,
            None => {
                self.bounded(self.items.rules.len(), trail)?;
                self.items.rule_names.insert(name, self.items.rules.len());
                self.items.rules.push(rule);
            }
        }
        Ok(())
    }

    /// Condition and output; everything else that is wrong with a rule is told beside them.
    fn rule_texts(&mut self, id: NodeId, trail: &Trail) -> Read<(Text, Text)> {
        let condition = self.scalar_text(id, "condition", "rule condition", trail);
        let output = self.scalar_text(id, "output", "rule output", trail);
        let others = [
            self.text(id, "desc", trail).err(),
            self.priority(id, trail).err(),
            self.flag(id, "enabled", trail).err(),
            self.flag(id, "capture", trail).err(),
            self.number(id, "capture_duration", trail).err(),
            self.flag(id, "warn_evttypes", trail).err(),
            self.flag(id, "skip-if-unknown-filter", trail).err(),
            self.texts(id, "tags", trail).err(),
        ];
        let mut refusals: Vec<Box<Refusal>> = others.into_iter().flatten().collect();
        let both = match (condition, output) {
            (Ok(condition), Ok(output)) if refusals.is_empty() => {
                return Ok((condition, output));
            }
            (condition, output) => [condition.err(), output.err()],
        };
        refusals.splice(0..0, both.into_iter().flatten());
        let last = refusals.pop().expect("something was refused");
        refusals.into_iter().for_each(|r| self.findings.error(*r));
        Err(last)
    }

    fn priority(&self, id: NodeId, trail: &Trail) -> Read<Priority> {
        let (text, mark) = self.text(id, "priority", trail)?;
        match Priority::from_name(&text) {
            Some(priority) => Ok(priority),
            None => wrong(
                &trail.step("rule priority", "", mark),
                format!(
                    "'{text}' is not a priority; expected Emergency, Alert, Critical, Error, \
                     Warning, Notice, Informational or Debug"
                ),
            ),
        }
    }

    fn rule_append(
        &mut self,
        id: NodeId,
        name: &str,
        source: Option<&str>,
        trail: &Trail,
    ) -> Read<()> {
        let condition = match self.has(id, "condition") {
            true => Some(self.scalar_text(id, "condition", "rule condition", trail)?),
            false => None,
        };
        let has_exceptions = self.has(id, "exceptions");
        let exceptions = self.exceptions(id, trail, true)?;
        if self.is_refused_rule(name) {
            return Ok(());
        }
        let Some(rule) = self.previous(name, source, trail)? else {
            return refuse(Code::Validate, trail, NO_RULE_TO_APPEND_TO);
        };
        if condition.is_none() && !has_exceptions {
            return refuse(
                Code::Validate,
                trail,
                "a rule that is appended to needs 'condition' or 'exceptions'",
            );
        }
        if let Some(condition) = &condition {
            rule.condition.append(condition);
        }
        append_exceptions(rule, exceptions)
    }

    fn rule_override(
        &mut self,
        id: NodeId,
        name: &str,
        source: Option<&str>,
        overrides: Overrides,
        trail: &Trail,
    ) -> Read<()> {
        for key in overrides.append.iter().chain(&overrides.replace) {
            if !self.has(id, key) {
                return wrong(
                    trail,
                    format!("'{key}' is in 'override', but not in the item"),
                );
            }
        }
        for key in RULE_REPLACEABLE {
            if self.has(id, key)
                && !overrides.append.contains(*key)
                && !overrides.replace.contains(*key)
            {
                let mark = self
                    .yaml
                    .get(id, key)
                    .map(|v| self.yaml.mark(v))
                    .unwrap_or_default();
                let trail = trail.step("overrides", key, mark);
                return wrong(
                    &trail,
                    format!("'{key}' is in the item, but not in 'override'"),
                );
            }
        }
        // Everything is read before the earlier rule is touched, so that errors come first.
        let appends = |key: &str| overrides.append.contains(key);
        let replaces = |key: &str| overrides.replace.contains(key);
        let either = |key: &str| appends(key) || replaces(key);
        let text = |reader: &Self, key: &str, item_type| match either(key) {
            true => reader.scalar_text(id, key, item_type, trail).map(Some),
            false => Ok(None),
        };
        let condition = text(self, "condition", "rule condition")?;
        let output = text(self, "output", "rule output")?;
        let desc = match either("desc") {
            true => Some(self.text(id, "desc", trail)?.0),
            false => None,
        };
        let tags = self.texts(id, "tags", trail)?;
        let exceptions = self.exceptions(id, trail, appends("exceptions"))?;
        let priority = match replaces("priority") {
            true => Some(self.priority(id, trail)?),
            false => None,
        };
        let enabled = self.flag(id, "enabled", trail)?;
        let capture = self.flag(id, "capture", trail)?;
        let capture_duration = self.number(id, "capture_duration", trail)?;
        let warn_evttypes = self.flag(id, "warn_evttypes", trail)?;
        let skip = self.flag(id, "skip-if-unknown-filter", trail)?;
        let threshold = self.threshold(id, trail)?;
        if self.is_refused_rule(name) {
            return Ok(());
        }
        let Some(rule) = self.previous(name, source, trail)? else {
            return refuse(
                Code::Validate,
                trail,
                match overrides.append.is_empty() {
                    false => NO_RULE_TO_APPEND_TO,
                    true => "keys are replaced, but there is no rule of that name before it",
                },
            );
        };
        match (condition, appends("condition")) {
            (Some(condition), true) => rule.condition.append(&condition),
            (Some(condition), false) => rule.condition = condition,
            (None, _) => {}
        }
        match (output, appends("output")) {
            (Some(output), true) => rule.output.append(&output),
            (Some(output), false) => rule.output = output,
            (None, _) => {}
        }
        match (desc, appends("desc")) {
            (Some(desc), true) => rule.description = format!("{} {desc}", rule.description),
            (Some(desc), false) => rule.description = desc,
            (None, _) => {}
        }
        if replaces("tags") {
            rule.tags.clear();
        }
        if either("tags") {
            rule.tags.extend(tags);
        }
        rule.priority = priority.unwrap_or(rule.priority);
        rule.enabled = enabled.unwrap_or(rule.enabled);
        rule.capture = capture.unwrap_or(rule.capture);
        rule.capture_duration_ms = capture_duration.unwrap_or(rule.capture_duration_ms);
        rule.warn_evttypes = warn_evttypes.unwrap_or(rule.warn_evttypes);
        rule.skip_if_unknown_filter = skip.unwrap_or(rule.skip_if_unknown_filter);
        if replaces("threshold") {
            rule.threshold = threshold;
        }
        if replaces("exceptions") {
            if let Some(bad) = exceptions.iter().find(|e| e.fields.is_none()) {
                return refuse(Code::Validate, &bad.trail, "the exception has no 'fields'");
            }
            rule.exceptions = exceptions;
        } else if appends("exceptions") {
            append_exceptions(rule, exceptions)?;
        }
        Ok(())
    }

    fn exceptions(&mut self, id: NodeId, trail: &Trail, append: bool) -> Read<Vec<Exception>> {
        let Some(value) = self.yaml.get(id, "exceptions") else {
            return Ok(Vec::new());
        };
        if self.yaml.is_null(value) {
            return Ok(Vec::new());
        }
        let outer = trail.step("exceptions", "", self.yaml.mark(value));
        let Some(entries) = self.yaml.sequence(value) else {
            return wrong(&outer, "'exceptions' has to be a sequence");
        };
        let mut exceptions: Vec<Exception> = Vec::new();
        for entry in entries {
            let mark = self.yaml.mark(*entry);
            let unnamed = outer.step("exception", "", mark);
            if self.yaml.mapping(*entry).is_none() {
                return wrong(&unnamed, "an exception has to be a mapping with 'name'");
            }
            let (name, _) = self.text(*entry, "name", &unnamed)?;
            let trail = trail.step("exception", &name, mark);
            if exceptions.iter().any(|e| e.name == name) {
                let message = format!("the rule has two exceptions '{name}'");
                self.findings
                    .warn(Code::ExceptionNameNotUnique, &trail, message);
            }
            let part = |key: &str| match self.yaml.get(*entry, key) {
                None => Ok(None),
                Some(v) => self.one_or_many(v, &trail, 0).map(Some),
            };
            let fields = part("fields")?;
            let comps = part("comps")?;
            let mut values = Vec::new();
            match self.yaml.get(*entry, "values") {
                Some(list) if !self.yaml.is_null(list) => {
                    let trail = trail.step("exception values", "", self.yaml.mark(list));
                    let Some(list) = self.yaml.sequence(list) else {
                        return wrong(&trail, "'values' has to be a sequence");
                    };
                    for value in list {
                        values.push(self.one_or_many(*value, &trail, 0)?);
                    }
                }
                _ if append => {
                    let message = "the exception is appended to without values";
                    self.findings.warn(Code::AppendNoValues, &trail, message);
                }
                _ => {}
            }
            exceptions.push(Exception {
                name,
                fields,
                comps,
                values,
                trail,
            });
        }
        Ok(exceptions)
    }

    fn one_or_many(&self, id: NodeId, trail: &Trail, depth: usize) -> Read<OneOrMany> {
        let here = || trail.step("exception value", "", self.yaml.mark(id));
        match self.yaml.kind(id) {
            Kind::Scalar { text, .. } if text.is_empty() => wrong(&here(), "the value is empty"),
            Kind::Scalar { text, .. } => Ok(OneOrMany::One(text.clone())),
            Kind::Sequence(_) if depth > 2 => wrong(&here(), "values are nested too deep"),
            Kind::Sequence(items) if items.len() > MAX_LIST_ITEMS => {
                wrong(&here(), format!("more than {MAX_LIST_ITEMS} values"))
            }
            Kind::Sequence(items) => items
                .iter()
                .map(|i| self.one_or_many(*i, trail, depth + 1))
                .collect::<Read<_>>()
                .map(OneOrMany::Many),
            Kind::Mapping(_) => wrong(&here(), "expected a text or a sequence"),
        }
    }

    /// Our own extension: `threshold: {count: 5, within: 10s, per: container, distinct: fd.sport}`.
    fn threshold(&mut self, id: NodeId, trail: &Trail) -> Read<Option<Threshold>> {
        let Some(value) = self.yaml.get(id, "threshold") else {
            return Ok(None);
        };
        let trail = trail.step("extension item", "threshold", self.yaml.mark(value));
        let bad = |message: String| refuse(Code::Extension, &trail, message);
        if self.yaml.mapping(value).is_none() {
            return bad("'threshold' has to be a mapping with 'count', 'within' and 'per'".into());
        }
        let part = |key: &str| self.yaml.get(value, key).and_then(|v| self.yaml.scalar(v));
        let count = match part("count").and_then(|c| c.parse::<u32>().ok()) {
            Some(count @ 1..=10_000) => count,
            _ => return bad("'count' has to be a number from 1 to 10000".into()),
        };
        let Some(within_ns) = part("within").and_then(parse_duration_ns) else {
            return bad("'within' has to be a time such as 500ms, 10s, 5m or 1h".into());
        };
        let Some(per) = part("per").map_or(Some(Per::Container), Per::from_name) else {
            return bad(format!("'per' has to be one of {}", Per::NAMES.join(", ")));
        };
        let distinct = match part("distinct") {
            None => None,
            Some(name) => match Field::from_name(name).filter(|f| is_one_value(*f)) {
                Some(field) if count <= Threshold::DISTINCT_MAX => Some(field),
                Some(_) => {
                    let max = Threshold::DISTINCT_MAX;
                    return bad(format!("with 'distinct', 'count' is at most {max}"));
                }
                None => {
                    return bad(format!(
                        "'distinct' has to be a field with one value, not {name:?}"
                    ));
                }
            },
        };
        self.warn_keys(value, &["count", "within", "per", "distinct"], &trail);
        Ok(Some(Threshold {
            count,
            within_ns,
            per,
            distinct,
        }))
    }
}

/// Whether a field has one value without anything in brackets behind it.
fn is_one_value(field: Field) -> bool {
    field.info().shape == Shape::One
        && !matches!(field.info().arg, ArgRule::ReqKey | ArgRule::ReqAny)
}

const NO_RULE_TO_APPEND_TO: &str =
    "the rule is appended to, but there is no rule of that name before it";

fn append_exceptions(rule: &mut RuleItem, exceptions: Vec<Exception>) -> Read<()> {
    for exception in exceptions {
        let refuse = |message: &str| refuse(Code::Validate, &exception.trail, message);
        match rule
            .exceptions
            .iter_mut()
            .find(|e| e.name == exception.name)
        {
            None if exception.fields.is_none() => {
                return refuse("the exception is new and has no 'fields'");
            }
            None if exception.values.is_empty() => {
                return refuse("the exception is new and has no 'values'");
            }
            None => rule.exceptions.push(exception),
            Some(_) if exception.fields.is_some() || exception.comps.is_some() => {
                return refuse("an exception that exists takes more 'values', not fields or comps");
            }
            Some(earlier) => earlier.values.extend(exception.values),
        }
    }
    Ok(())
}

fn semver(text: &str) -> Option<(u32, u32, u32)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|p| p.parse::<u32>().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

fn parse_duration_ns(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number
        .checked_mul(unit)
        .filter(|ns| (1..=86_400_000_000_000).contains(ns))
}
