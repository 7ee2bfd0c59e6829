//! `plimsoll rules`: what rule files hold, and what this node makes of them.
//!
//! Promises: files are read as the agent reads them, with our own rules before them where the
//! configuration says so; nothing is put in force. What the running agent's kernel refused is
//! taken into account; without an agent, all hooks are taken to be there. Where no files are named, they
//! are those that the running agent reads, and `list` shows what is in force there, as it says.

use crate::Verdict;
use crate::args::{RuleFiles, RulesCommand};
use crate::commands::priority_style;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use plimsoll_agent::rules::files::{Loaded, Options, load_texts, options};
use plimsoll_agent::rules::told;
use plimsoll_agent::rules::{RuleSources, RuleText, RulesError};
use plimsoll_api::describe::words;
use plimsoll_api::{Item, Request, RuleSetInfo};
use plimsoll_rules::{
    Code, Context, Explanation, FileReport, Finding, LoadReport, Position, RuleId, RuleStatus,
};
use std::path::PathBuf;

pub(crate) fn rules(
    global: &Global,
    command: &RulesCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    match command {
        RulesCommand::Check { files } => check(global, files, out),
        RulesCommand::List(files) => list(global, files, out),
        RulesCommand::Explain { rule, files } => explain(global, files, rule, out),
        RulesCommand::Test {
            files,
            scenario,
            rule,
            expect,
        } => {
            let loaded = loaded(global, files)?;
            let only = rule.as_deref().map(|r| find(&loaded, r)).transpose()?;
            super::rules_try::test(&loaded, scenario, only, expect == "fire", out)
        }
        RulesCommand::Record(selection) => super::rules_try::record(global, selection, out),
        RulesCommand::Audit { events, files } => {
            super::rules_audit::audit(&loaded(global, &files.rules)?, events, out)
        }
    }
}

/// Where rules come from for this command, and how they are loaded on this node.
fn surroundings(global: &Global, paths: &[PathBuf]) -> Result<(RuleSources, Options), Failure> {
    let mut source = Source::find(global)?;
    let mut sources = source.config.rules.clone();
    if !paths.is_empty() {
        sources.paths = paths.to_vec();
        sources.named = true;
    } else if let Some(set) = agents_set(&mut source) {
        sources.builtin = set.builtin;
        sources.paths = set.paths.into_iter().map(PathBuf::from).collect();
    }
    let refused = refused(&mut source);
    let options = options(sources.match_mode, &refused);
    Ok((sources, options))
}

/// Where the running agent reads its rules from.
fn agents_set(source: &mut Source) -> Option<RuleSetInfo> {
    let (items, _) = source.agent()?.ask(&Request::Rules { all: false }).ok()?;
    items.into_iter().find_map(|item| match item {
        Item::RuleSet(set) => Some(set),
        _ => None,
    })
}

/// The hooks that the running agent's kernel refused.
fn refused(source: &mut Source) -> Vec<String> {
    let Some(agent) = source.agent() else {
        return Vec::new();
    };
    let items = agent.ask(&Request::Doctor {}).map(|(items, _)| items);
    let missing = |item| match item {
        Item::Doctor(row) if row.area == "hook" && row.found.is_empty() => Some(row.name),
        _ => None,
    };
    items
        .unwrap_or_default()
        .into_iter()
        .filter_map(missing)
        .collect()
}

fn read(sources: &RuleSources) -> Result<Vec<RuleText>, Failure> {
    sources.read().map_err(|e| Failure::Failed(e.to_string()))
}

pub(crate) fn loaded(global: &Global, paths: &[PathBuf]) -> Result<Loaded, Failure> {
    let (sources, options) = surroundings(global, paths)?;
    load_texts(&read(&sources)?, &options)
        .map_err(|e| Failure::Failed(format!("{e}; `plimsoll rules check` shows all of it")))
}

// ---- check ----

fn check(global: &Global, files: &[PathBuf], out: &mut Out) -> Result<Verdict, Failure> {
    let (sources, options) = surroundings(global, files)?;
    let texts = match sources.read() {
        Ok(texts) => texts,
        Err(e) => return unreadable(&e, out),
    };
    let (report, loaded) = match load_texts(&texts, &options) {
        Ok(loaded) => (loaded.report.clone(), Some(loaded)),
        Err(RulesError::Load(report)) => (*report, None),
        Err(e) => return unreadable(&e, out),
    };
    let shown = LoadReport {
        files: report
            .files
            .into_iter()
            // ours are fine, unless a file changed what they rest on
            .filter(|f| !f.name.starts_with("builtin:") || !f.successful)
            .collect(),
    };
    if out.json {
        out.object(&shown)?;
    } else {
        show(&shown, loaded.as_ref(), out)?;
    }
    Ok(match shown.successful() {
        true => Verdict::Fine,
        false => Verdict::Found,
    })
}

/// A file that cannot be read, in Falco's shape.
fn unreadable(e: &RulesError, out: &mut Out) -> Result<Verdict, Failure> {
    let (RulesError::Read { path, .. } | RulesError::TooMuch { path, .. }) = e else {
        return Err(Failure::Failed(e.to_string()));
    };
    let report = LoadReport {
        files: vec![FileReport {
            name: path.display().to_string(),
            successful: false,
            errors: vec![Finding {
                code: Code::FileRead,
                codedesc: Code::FileRead.description(),
                message: e.to_string(),
                context: Context::default(),
            }],
            warnings: Vec::new(),
        }],
    };
    match out.json {
        true => out.object(&report)?,
        false => show(&report, None, out)?,
    }
    Ok(Verdict::Found)
}

fn show(report: &LoadReport, loaded: Option<&Loaded>, out: &mut Out) -> Result<(), Failure> {
    for file in &report.files {
        for error in &file.errors {
            finding(file, error, ("error", Style::Bad), out)?;
        }
        for warning in &file.warnings {
            finding(file, warning, ("warning", Style::Warn), out)?;
        }
    }
    let (errors, warnings) = (report.errors().count(), report.warnings().count());
    let files = report.files.len();
    out.line(&match loaded {
        Some(l) => {
            let theirs = |p: &Position| !p.name.starts_with("builtin:");
            let rules = l.set.rules().iter().filter(|r| theirs(&r.position));
            let (all, judge) = rules.fold((0, 0), |(all, judge), r| {
                (all + 1, judge + usize::from(r.status.is_active()))
            });
            let over = l.set.passed_over().iter().filter(|r| theirs(&r.position));
            let over = match over.count() {
                0 => String::new(),
                n => format!(", {n} more passed over (`plimsoll rules list` says why)"),
            };
            let (files, warnings) = (counted(files, "file"), counted(warnings, "warning"));
            format!(
                "{files}: {}, {judge} of them judge events here{over}; {warnings}",
                counted(all, "rule")
            )
        }
        None => format!(
            "{}: {}, {}; nothing would be loaded",
            counted(files, "file"),
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    })
}

fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// `FILE:LINE:COLUMN: error LOAD_ERR_…: rule NAME: MESSAGE`, and the line itself.
fn finding(
    file: &FileReport,
    finding: &Finding,
    (word, style): (&str, Style),
    out: &mut Out,
) -> Result<(), Failure> {
    let place = match finding.position() {
        Some(p) => format!("{}:{}:{}", p.name, p.line, p.column),
        None => file.name.clone(),
    };
    let item = match finding.item() {
        Some((kind, name)) => format!("{kind} \"{name}\": "),
        None => String::new(),
    };
    let word = out.paint.apply(style, word);
    out.line(&format!(
        "{}: {word} {}: {}",
        words(&place),
        finding.code.as_str(),
        words(&format!("{item}{}", finding.message))
    ))?;
    for line in finding.context.snippet.lines().take(4) {
        out.line(&format!("    {}", words(line)))?;
    }
    Ok(())
}

// ---- list ----

pub(crate) fn state(status: &RuleStatus) -> (&'static str, Style) {
    (status.as_str(), state_style(status.as_str()))
}

fn state_style(state: &str) -> Style {
    match state {
        "active" => Style::Good,
        "partial" => Style::Warn,
        "inactive" => Style::Bad,
        _ => Style::Dim,
    }
}

/// The rules of a running agent as they are in force; without one, or with files named, those files'.
fn list(global: &Global, files: &RuleFiles, out: &mut Out) -> Result<Verdict, Failure> {
    let mut rows = match files.rules.is_empty() {
        true => in_force(global)?,
        false => None,
    };
    if rows.is_none() {
        let loaded = loaded(global, &files.rules)?;
        if files.rules.is_empty() {
            remark("No agent answers: these are the rules that the configuration names.");
        }
        rows = Some(told::rules(&loaded, "files").collect());
    }
    let rows = rows.unwrap_or_default();
    if out.json {
        for row in &rows {
            out.object(row)?;
        }
        return Ok(Verdict::Fine);
    }
    if rows.is_empty() {
        remark(
            "No rules are loaded: name files with --rules, or put them into /etc/plimsoll/rules.d.",
        );
        return Ok(Verdict::Fine);
    }
    let mut table = Table::new(&["RULE", "PRIORITY", "SOURCE", "ATT&CK", "STATE", "WHY"]);
    for row in rows {
        let (said, style) = (model_priority(&row.priority), state_style(&row.state));
        table.row([
            row.rule.into(),
            Cell::styled(row.priority, said),
            row.source.into(),
            row.techniques.join(" ").into(),
            Cell::styled(row.state, style),
            row.reasons.join("; ").into(),
        ]);
    }
    table.print(out)?;
    Ok(Verdict::Fine)
}

/// What the running agent judges by, said on standard error; `None`: none answers, or one that cannot
/// tell.
fn in_force(global: &Global) -> Result<Option<Vec<plimsoll_api::Rule>>, Failure> {
    let mut source = Source::find(global)?;
    let Some(agent) = source.agent() else {
        return Ok(None);
    };
    let items = match agent.ask(&Request::Rules { all: true }) {
        Ok((items, _)) => items,
        Err(e) => {
            let why = Failure::from(e).in_full();
            remark(&format!(
                "note: the agent does not say which rules are in force: {why}"
            ));
            return Ok(None);
        }
    };
    let mut rows = Vec::new();
    for item in items {
        match item {
            Item::RuleSet(set) => remark(&said(&set)),
            Item::Rule(rule) => rows.push(rule),
            _ => {}
        }
    }
    Ok(Some(rows))
}

/// `The rules in force of the running agent (set 1a2b3c4d5e6f): our own, then /etc/plimsoll/rules.d.`
fn said(set: &RuleSetInfo) -> String {
    let own = set.builtin.then(|| "our own".to_owned());
    let paths = set.paths.iter().map(|p| words(p));
    let from: Vec<String> = own.into_iter().chain(paths).collect();
    let id = set.id.get(..12).unwrap_or(&set.id);
    let problem = match &set.problem {
        Some(why) => format!(" Changed files are not in force: {}.", words(why)),
        None => String::new(),
    };
    let from = from.join(", then ");
    format!("The rules in force of the running agent (set {id}): {from}.{problem}")
}

fn model_priority(name: &str) -> Style {
    use plimsoll_model::Priority as P;
    let all = [
        P::Emergency,
        P::Alert,
        P::Critical,
        P::Error,
        P::Warning,
        P::Notice,
    ];
    let found = all.into_iter().find(|p| p.as_str() == name);
    found.map_or(Style::Plain, priority_style)
}

// ---- explain ----

/// The rule of that name; a name that is written in another case is found too.
pub(crate) fn find(loaded: &Loaded, name: &str) -> Result<RuleId, Failure> {
    let rules = loaded.set.rules();
    let exact = loaded.set.find(name);
    let other = || {
        let at = rules
            .iter()
            .position(|r| r.name.eq_ignore_ascii_case(name))?;
        Some(RuleId(at as u32))
    };
    exact.or_else(other).ok_or_else(|| {
        let mut over = loaded.set.passed_over().iter();
        if let Some(rule) = over.find(|r| r.name.eq_ignore_ascii_case(name)) {
            return Failure::Failed(format!("\"{}\" is passed over: {}", rule.name, rule.why));
        }
        let word = name.to_ascii_lowercase();
        let near: Vec<&str> = rules
            .iter()
            .map(|r| r.name.as_str())
            .filter(|n| n.to_ascii_lowercase().contains(&word))
            .take(5)
            .collect();
        Failure::Failed(match near.is_empty() {
            true => format!("there is no rule \"{name}\": `plimsoll rules list` shows them"),
            false => format!(
                "there is no rule \"{name}\"; there is \"{}\"",
                near.join("\", \"")
            ),
        })
    })
}

fn explain(
    global: &Global,
    files: &RuleFiles,
    name: &str,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let loaded = loaded(global, &files.rules)?;
    let told = loaded.set.explain(find(&loaded, name)?);
    if out.json {
        out.object(&told)?;
        return Ok(Verdict::Fine);
    }
    head(&told, out)?;
    needs(&told, out)?;
    out.line("")?;
    out.line("Condition, as written:")?;
    indented(&told.rule.condition, out)?;
    out.line("Expanded:")?;
    indented(&told.expanded, out)?;
    out.line("Output:")?;
    indented(&told.rule.output, out)?;
    Ok(Verdict::Fine)
}

fn head(told: &Explanation, out: &mut Out) -> Result<(), Failure> {
    let rule = &told.rule;
    let (state, style) = state(&rule.status);
    let name = out.paint.apply(Style::Bold, &words(&rule.name));
    let state = out.paint.apply(style, state);
    let priority = rule.priority.as_str();
    out.line(&format!(
        "{name} ({priority}, {}, {state})",
        rule.source.as_str()
    ))?;
    indented(&rule.description, out)?;
    for reason in rule.status.reasons() {
        out.line(&format!("  {}", words(&reason)))?;
    }
    let tags: Vec<&str> = rule.tags.iter().map(String::as_str).collect();
    let place = &rule.position;
    let threshold = rule.threshold.map(|t| {
        let seconds = t.within_ns / 1_000_000_000;
        let per = format!("{:?}", t.per).to_ascii_lowercase();
        let what = match t.distinct {
            Some(field) => format!("different {}", field.name()),
            None => "matches".to_owned(),
        };
        format!("{} {what} within {seconds} s per {per}", t.count)
    });
    let rows = [
        ("tags", tags.join(", ")),
        ("defined in", format!("{}:{}", place.name, place.line)),
        ("threshold", threshold.unwrap_or_default()),
        ("macros", told.macros.join(", ")),
        (
            "cost",
            format!("{} comparisons, weight {}", told.comparisons, told.cost),
        ),
    ];
    for (what, value) in rows.into_iter().filter(|(_, v)| !v.is_empty()) {
        out.line(&format!("  {what:<11} {}", words(&value)))?;
    }
    Ok(())
}

fn needs(told: &Explanation, out: &mut Out) -> Result<(), Failure> {
    let mut table = Table::new(&["NEEDS", "NAME", "HERE"]);
    for kind in &told.kinds {
        let (here, style) = observed(kind.missing.as_deref(), None);
        table.row([
            "event".into(),
            kind.name.as_str().into(),
            Cell::styled(here, style),
        ]);
    }
    if told.kinds.is_empty() {
        table.row(["event".into(), "any".into(), "".into()]);
    }
    for field in &told.fields {
        let (here, style) = observed(field.missing.as_deref(), field.in_part.as_deref());
        table.row([
            "field".into(),
            field.name.as_str().into(),
            Cell::styled(here, style),
        ]);
    }
    out.line("")?;
    table.print(out)
}

fn observed(missing: Option<&str>, in_part: Option<&str>) -> (String, Style) {
    match (missing, in_part) {
        (Some(why), _) => (format!("no: {why}"), Style::Bad),
        (None, Some(which)) => (format!("in part: {which}"), Style::Warn),
        (None, None) => ("observed".to_owned(), Style::Good),
    }
}

fn indented(text: &str, out: &mut Out) -> Result<(), Failure> {
    for line in text.trim().lines() {
        out.line(&format!("  {}", words(line.trim_end())))?;
    }
    Ok(())
}
