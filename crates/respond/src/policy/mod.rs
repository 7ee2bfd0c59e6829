//! The policy file: which alerts lead to which steps, with guards and approvals.
//!
//! Promises: what is wrong is said with line, column and what was expected; unknown keys are
//! wrong; `dry_run` is true until a person turns it off; a policy that could act on everything is
//! refused until it says `confirm_everything: true`. The language is documented in
//! `docs/guide/response.md`. Left out: reading the file (the agent).

mod steps;

use crate::guards::{Guards, Window};
use plimsoll_model::response::Step;
use plimsoll_model::{Priority, Risk};
use plimsoll_settings::{Fault, Mark, Node, Result, Section, expected, parse};
use sha2::Digest as _;

/// A policy file is at most this long: it is journalled whole.
pub(crate) const FILE_BYTES_MAX: usize = 256 << 10;
/// Entries of a policy at most.
pub const ENTRIES_MAX: usize = 256;
/// How long approvals are waited for, unless a policy says otherwise.
pub const APPROVAL_MS: u64 = 30 * 60_000;

/// A valid policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// SHA-256 of the text, hex.
    pub digest: String,
    /// What holds steps back.
    pub guards: Guards,
    /// The first entry that matches an alert answers it.
    pub entries: Vec<Entry>,
}

/// One entry of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Which alerts.
    pub select: Selector,
    /// Its steps, ordered by class.
    pub steps: Vec<Step>,
    /// Nothing of it is done.
    pub dry_run: bool,
    /// How long approvals are waited for, and hold.
    pub approval_ms: u64,
    /// Approvals have to be of two persons.
    pub two_person: bool,
}

/// Which alerts: everything that is given has to fit; of a list, one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Patterns of rule or drift class names.
    pub rule: Vec<String>,
    /// At least this risk (alerts of drifts only).
    pub risk: Option<Risk>,
    /// Techniques or tags.
    pub technique: Vec<String>,
    /// Patterns of image names.
    pub image: Vec<String>,
    /// Labels and patterns of their values.
    pub labels: Vec<(String, String)>,
    /// Patterns of Kubernetes namespaces.
    pub namespace: Vec<String>,
    /// Patterns of services.
    pub service: Vec<String>,
    /// At least this severe.
    pub priority: Option<Priority>,
    /// At least this coverage of the baseline, thousandths.
    pub coverage_permille: Option<u32>,
}

impl Selector {
    /// It says nothing about who is meant: everything fits sooner or later.
    pub fn is_everything(&self) -> bool {
        let open = |list: &[String]| list.is_empty() || list.iter().any(|p| is_open(p));
        open(&self.rule)
            && open(&self.image)
            && open(&self.namespace)
            && open(&self.service)
            && self.labels.iter().all(|(_, v)| is_open(v))
            && self.technique.is_empty()
            && self.risk.is_none_or(|r| r == Risk::Low)
            && self.priority.is_none_or(|p| p == Priority::Debug)
    }
}

/// Whether a pattern fits whatever has a name: stars, and question marks beside them.
pub(crate) fn is_open(pattern: &str) -> bool {
    pattern.contains('*') && pattern.chars().all(|c| matches!(c, '*' | '?'))
}

/// Why a text is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct PolicyError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> std::result::Result<Self, PolicyError> {
        let digest = sha2::Sha256::digest(text.as_bytes());
        let digest = digest.iter().map(|b| format!("{b:02x}")).collect();
        resolve(text, digest).map_err(|fault| PolicyError {
            line: fault.at.line,
            column: fault.at.column,
            message: fault.message,
        })
    }
}

fn resolve(text: &str, digest: String) -> Result<Policy> {
    let Some(root) = parse(text, FILE_BYTES_MAX)? else {
        let message = "expected \"version: 1\" and policies";
        return Err(Fault::new(Mark::START, message));
    };
    let file = Section::new(
        Some(&root),
        "",
        &[
            "version",
            "dry_run",
            "confirm_everything",
            "approvals",
            "guards",
            "maintenance",
            "policies",
        ],
    )?;
    file.must_be("version", "1")?;
    let dry_run = file.flag("dry_run", true)?;
    let confirmed = file.flag("confirm_everything", false)?;
    let approvals = approvals(&file)?;
    let nodes = file.list("policies", "policies")?;
    if nodes.len() > ENTRIES_MAX {
        return Err(Fault::new(
            file.at,
            format!("expected at most {ENTRIES_MAX} policies"),
        ));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        let entry = entry(node, i, dry_run, &approvals)?;
        if entries.iter().any(|e| e.name == entry.name) {
            return Err(Fault::new(
                node.at,
                format!("the name \"{}\" is given twice", entry.name),
            ));
        }
        if !confirmed && entry.select.is_everything() && interferes(&entry) {
            return Err(Fault::new(
                node.at,
                format!(
                    "\"{}\" could act on every container: narrow its match, or confirm with \"confirm_everything: true\" at the top",
                    entry.name
                ),
            ));
        }
        entries.push(entry);
    }
    Ok(Policy {
        digest,
        guards: guards(&file)?,
        entries,
    })
}

/// A length of time in milliseconds.
pub(crate) fn millis(section: &Section<'_>, key: &str) -> Result<Option<u64>> {
    let what = "a length of time such as 500ms, 30s, 10m or 1h";
    section.text(key, what, crate::values::parse_ms)
}

fn interferes(entry: &Entry) -> bool {
    entry.steps.iter().any(|s| s.kind.interferes())
}

/// What is said about approvals, for a whole file or one entry.
#[derive(Clone, Debug)]
pub(crate) struct Approvals {
    count: Option<u32>,
    expiry_ms: u64,
    two_person: bool,
}

fn approvals(section: &Section<'_>) -> Result<Approvals> {
    let s = section.section("approvals", &["count", "expiry", "two_person"])?;
    Ok(Approvals {
        count: s.whole("count", 0..=8)?.map(|n| n as u32),
        expiry_ms: millis(&s, "expiry")?.unwrap_or(APPROVAL_MS),
        two_person: s.flag("two_person", false)?,
    })
}

fn entry(node: &Node, i: usize, dry_run: bool, all: &Approvals) -> Result<Entry> {
    let path = format!("policies[{i}]");
    let s = Section::new(
        Some(node),
        &path,
        &["name", "match", "dry_run", "steps", "approvals"],
    )?;
    let name = s
        .text("name", "a name", |t| {
            (!t.is_empty() && t.len() <= 128).then(|| t.to_owned())
        })?
        .ok_or_else(|| expected(node, &s.name("name"), "a name"))?;
    let own = if s.gives("approvals") {
        approvals(&s)?
    } else {
        all.clone()
    };
    let count = match (own.count, own.two_person) {
        (Some(n), true) => Some(n.max(2)),
        (None, true) => Some(2),
        (count, false) => count,
    };
    Ok(Entry {
        select: selector(&s)?,
        steps: steps::steps(&s, count)?,
        dry_run: s.flag("dry_run", dry_run)?,
        approval_ms: own.expiry_ms,
        two_person: own.two_person,
        name,
    })
}

fn selector(entry: &Section<'_>) -> Result<Selector> {
    let keys = [
        "rule",
        "risk",
        "technique",
        "image",
        "labels",
        "namespace",
        "service",
        "priority",
        "coverage",
    ];
    let s = entry.section("match", &keys)?;
    Ok(Selector {
        rule: s.texts("rule")?,
        risk: s.text("risk", "low, medium, high or critical", risk)?,
        technique: s.texts("technique")?,
        image: s.texts("image")?,
        labels: s.named_texts("labels")?,
        namespace: s.texts("namespace")?,
        service: s.texts("service")?,
        priority: s.text("priority", "emergency … debug", priority)?,
        coverage_permille: s.permille("coverage", 0..=1000)?,
    })
}

fn risk(text: &str) -> Option<Risk> {
    [Risk::Low, Risk::Medium, Risk::High, Risk::Critical]
        .into_iter()
        .find(|r| r.as_str() == text)
}

/// The priority of that name, however it is capitalised.
pub fn priority(text: &str) -> Option<Priority> {
    use Priority::*;
    [
        Emergency,
        Alert,
        Critical,
        Error,
        Warning,
        Notice,
        Informational,
        Debug,
    ]
    .into_iter()
    .find(|p| p.as_str().eq_ignore_ascii_case(text))
}

fn guards(file: &Section<'_>) -> Result<Guards> {
    let default = Guards::default();
    let mut guards = Guards {
        windows: windows(file)?,
        ..default
    };
    let keys = [
        "protected",
        "at_most",
        "at_most_percent",
        "min_healthy",
        "rate",
        "act_on_socket_holders",
    ];
    let s = file.section("guards", &keys)?;
    let p = s.section("protected", &["names", "labels", "images"])?;
    guards.names = p.texts("names")?;
    guards.images = p.texts("images")?;
    guards.labels = p.named_texts("labels")?;
    let a = s.section("at_most", &["containers", "window"])?;
    guards.at_most = a.number("containers", 0..=10_000, guards.at_most)?;
    guards.window_ms = millis(&a, "window")?.unwrap_or(guards.window_ms);
    let a = s.section("at_most_percent", &["percent", "window"])?;
    guards.percent = a.number("percent", 0..=100, guards.percent)?;
    guards.percent_window_ms = millis(&a, "window")?.unwrap_or(guards.percent_window_ms);
    guards.socket_holders = s.flag("act_on_socket_holders", false)?;
    guards.min_healthy = s.number("min_healthy", 0..=10_000, guards.min_healthy)?;
    let r = s.section("rate", &["plans", "window"])?;
    guards.rate = r.number("plans", 0..=10_000, guards.rate)?;
    guards.rate_window_ms = millis(&r, "window")?.unwrap_or(guards.rate_window_ms);
    Ok(guards)
}

fn windows(file: &Section<'_>) -> Result<Vec<Window>> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let minutes = |t: &str| {
        let (h, m) = t.split_once(':')?;
        let (h, m): (u16, u16) = (h.parse().ok()?, m.parse().ok()?);
        (h < 24 && m < 60 || (h, m) == (24, 0)).then_some(h * 60 + m)
    };
    let read = |(i, node): (usize, &Node)| {
        let path = format!("maintenance[{i}]");
        let s = Section::new(Some(node), &path, &["days", "from", "to"])?;
        let mut days = [!s.gives("days"); 7];
        for day in s.texts("days")? {
            let found = DAYS.iter().position(|d| *d == day);
            let found = found.ok_or_else(|| expected(node, &s.name("days"), "mon … sun"))?;
            days[found] = true;
        }
        let time = "a time in UTC such as \"02:30\"";
        let need = |key| {
            s.text(key, time, minutes)?
                .ok_or_else(|| expected(node, &s.name(key), time))
        };
        Ok(Window {
            days,
            from: need("from")?,
            to: need("to")?,
        })
    };
    file.list("maintenance", "windows")?
        .iter()
        .enumerate()
        .map(read)
        .collect()
}
