//! `plimsoll baseline`: what images are known for, and what people decide about it.

use super::containers;
use super::{risk_style, state_style};
use crate::Verdict;
use crate::args::BaselineCommand;
use crate::baselines::{Kept, diff};
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::Journal;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table, wrap};
use plimsoll_api::describe::words;
use plimsoll_api::protocol::BaselineSelector;
use plimsoll_api::types::{Behaviour, KnownBehaviour};
use plimsoll_api::{Baseline, BaselineDetail, BaselineDiff, Item, Request};
use plimsoll_ask::Records as _;
use plimsoll_model::Risk;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// Longest document that is read.
const DOCUMENT_MAX: u64 = (plimsoll_api::protocol::REQUEST_BYTES_MAX - (1 << 20)) as u64;

pub(crate) fn baseline(
    global: &Global,
    command: &BaselineCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    match command {
        BaselineCommand::List => list(&mut source, out),
        BaselineCommand::Show {
            baseline,
            version,
            all,
        } => show(&mut source, baseline, *version, *all, out),
        BaselineCommand::Diff { from, to } => compare(&mut source, from, to, out),
        BaselineCommand::Approve {
            baseline,
            behaviours,
            reason,
        } => {
            let (behaviours, reason) = (behaviours.clone(), reason.clone());
            decide(&mut source, baseline, "approving", out, |id| {
                Request::BaselineApprove {
                    id,
                    behaviours,
                    reason,
                }
            })
        }
        BaselineCommand::Lock { baseline, reason } => {
            let reason = reason.clone();
            decide(&mut source, baseline, "locking", out, |id| {
                Request::BaselineLock { id, reason }
            })
        }
        BaselineCommand::Unlock { baseline, reason } => {
            let reason = reason.clone();
            decide(&mut source, baseline, "unlocking", out, |id| {
                Request::BaselineUnlock { id, reason }
            })
        }
        BaselineCommand::Remove {
            baseline,
            behaviours,
            reason,
        } => {
            let (behaviours, reason) = (behaviours.clone(), reason.clone());
            decide(
                &mut source,
                baseline,
                "taking behaviours out of",
                out,
                |id| Request::BaselineRemove {
                    id,
                    behaviours,
                    reason,
                },
            )
        }
        BaselineCommand::Reset { baseline, reason } => {
            let reason = reason.clone();
            decide(&mut source, baseline, "resetting", out, |id| {
                Request::BaselineReset { id, reason }
            })
        }
        BaselineCommand::Export { baseline, output } => {
            export(&mut source, baseline, output.as_deref(), out)
        }
        BaselineCommand::Import { file, reason } => import(&mut source, file, reason, out),
    }
}

/// Baselines from the agent, or from the data directory.
fn all(source: &mut Source) -> Result<Vec<Baseline>, Failure> {
    if let Some(agent) = source.agent() {
        let (items, _) = agent.ask(&Request::Baselines {})?;
        let only = |item| match item {
            Item::Baseline(b) => Some(b),
            _ => None,
        };
        return Ok(items.into_iter().filter_map(only).collect());
    }
    with_kept(source, |kept| Ok(kept.json()))
}

/// Runs `f` over the baselines in the data directory, with the journal for older versions.
fn with_kept<T>(
    source: &mut Source,
    f: impl FnOnce(&Kept<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let journal: Journal = source.journal()?;
    let node = journal.origin().clone();
    let kept = Kept::read(&source.config.baselines_dir(), &node, Some(&journal))?;
    f(&kept)
}

/// The baseline that a person means: by id or its beginning, then role, image, container name.
fn resolve(source: &mut Source, text: &str) -> Result<BaselineSelector, Failure> {
    let (name, version) = match text.rsplit_once('@') {
        Some((name, v)) => match v.parse() {
            Ok(version) => (name, Some(version)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    let list = all(source)?;
    let selector = |b: &Baseline| BaselineSelector {
        id: b.id.clone(),
        version,
    };
    let tests: [&dyn Fn(&Baseline) -> bool; 5] = [
        &|b| b.id == name,
        &|b| name.len() >= 4 && b.id.starts_with(name),
        &|b| b.role == name,
        &|b| b.image == name,
        &|b| b.image_digest.as_deref() == Some(name),
    ];
    for test in tests {
        let found: Vec<&Baseline> = list.iter().filter(|b| test(b)).collect();
        match &found[..] {
            [] => {}
            [one] => return Ok(selector(one)),
            many => return Err(ambiguous(name, many)),
        }
    }
    let containers = containers::known(source, true)?;
    let of = containers.iter().rev().find(|c| {
        c.name == name
            || c.container_id == name
            || (name.len() >= 4 && c.container_id.starts_with(name))
    });
    let found = of.and_then(|c| {
        list.iter()
            .find(|b| b.role == c.role && b.image_digest == c.image_digest)
    });
    match (found, of) {
        (Some(b), _) => Ok(selector(b)),
        (None, Some(c)) => Err(Failure::Failed(format!(
            "container {name:?} has no baseline yet (image {}, role {})",
            c.image, c.role
        ))),
        (None, None) => Err(Failure::Failed(format!(
            "no baseline {name:?}: `plimsoll baseline list` shows them all"
        ))),
    }
}

fn ambiguous(name: &str, many: &[&Baseline]) -> Failure {
    let list: Vec<String> = many
        .iter()
        .take(5)
        .map(|b| format!("{} ({}, {})", short(&b.id), b.image, b.role))
        .collect();
    Failure::Failed(format!(
        "{name:?} fits {} baselines: {}; give more of an id",
        many.len(),
        list.join(", ")
    ))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn percent(coverage: Option<f64>) -> String {
    coverage.map_or("?".to_owned(), |c| format!("{:.1} %", c * 100.0))
}

fn list(source: &mut Source, out: &mut Out) -> Result<Verdict, Failure> {
    let list = all(source)?;
    if out.json {
        list.iter().try_for_each(|b| out.object(b))?;
        return Ok(Verdict::Fine);
    }
    if list.is_empty() {
        remark("No baseline yet: one begins with the first container of an image.");
        return Ok(Verdict::Fine);
    }
    let mut table = Table::new(&[
        "BASELINE", "VERSION", "STATE", "COVERAGE", "NEW/DAY", "KNOWN", "WAITING", "ROLE", "IMAGE",
        "LACKS",
    ]);
    for b in &list {
        table.row([
            short(&b.id).into(),
            b.version.to_string().into(),
            Cell::styled(&b.state, state_style(&b.state)),
            percent(b.coverage).into(),
            b.expected_new_per_day
                .map_or("?".to_owned(), |n| format!("{n:.1}"))
                .into(),
            b.behaviours.to_string().into(),
            Cell::styled(
                b.quarantined.to_string(),
                if b.quarantined > 0 {
                    Style::Warn
                } else {
                    Style::Plain
                },
            ),
            b.role.clone().into(),
            b.image.clone().into(),
            if b.unmet.is_empty() {
                "-".to_owned()
            } else {
                b.unmet.join("; ")
            }
            .into(),
        ]);
    }
    table.print(out)?;
    Ok(Verdict::Fine)
}

fn detail(source: &mut Source, of: &BaselineSelector) -> Result<BaselineDetail, Failure> {
    if let Some(agent) = source.agent() {
        let (items, _) = agent.ask(&Request::BaselineShow {
            id: of.id.clone(),
            version: of.version,
        })?;
        let found = items.into_iter().find_map(|item| match item {
            Item::BaselineDetail(detail) => Some(detail),
            _ => None,
        });
        return found.ok_or_else(|| Failure::Failed("the agent gave no baseline".to_owned()));
    }
    with_kept(source, |kept| Ok(kept.detail(&at(kept, of)?)))
}

fn at(kept: &Kept<'_>, of: &BaselineSelector) -> Result<plimsoll_baseline::Baseline, Failure> {
    let version = of
        .version
        .map(|v| format!(" at version {v}"))
        .unwrap_or_default();
    kept.at(&of.id, of.version)
        .map(|(b, _)| b)
        .ok_or_else(|| Failure::Failed(format!("no baseline {}{version} is kept", of.id)))
}

fn show(
    source: &mut Source,
    text: &str,
    version: Option<u64>,
    every: bool,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut selector = resolve(source, text)?;
    selector.version = version.or(selector.version);
    let d = detail(source, &selector)?;
    if out.json {
        out.object(&d)?;
        return Ok(Verdict::Fine);
    }
    let b = &d.baseline;
    let state = out.paint.apply(state_style(&b.state), &words(&b.state));
    out.line(&format!(
        "baseline {} version {}, {state}",
        words(&b.id),
        b.version
    ))?;
    let image_digest = b.image_digest.as_deref().unwrap_or("digest not known");
    field(out, "image", &format!("{} ({image_digest})", b.image))?;
    field(out, "role", &b.role)?;
    let rate = b
        .expected_new_per_day
        .map(|n| format!(", about {n:.1} new behaviours a day expected"))
        .unwrap_or_default();
    field(out, "coverage", &format!("{}{rate}", percent(b.coverage)))?;
    field(
        out,
        "seen",
        &format!(
            "{} starts, {} instances, {} time slots; {}",
            b.starts, b.instances, b.samples, b.hours
        ),
    )?;
    if let Some(p) = &b.predecessor {
        field(
            out,
            "started from",
            &format!("{} version {}", p.id, p.version),
        )?;
    }
    for unmet in &b.unmet {
        field(out, "lacks", unmet)?;
    }
    for note in &b.notes {
        field(out, "note", note)?;
    }
    let known: Vec<&KnownBehaviour> = d.known.iter().collect();
    let waiting: Vec<&KnownBehaviour> = d.quarantine.iter().collect();
    if every {
        behaviours("EXPECTED", known, out)?;
        behaviours("WAITS FOR APPROVAL", waiting, out)?;
    } else {
        by_program("EXPECTED", &known, out)?;
        let (low, telling): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_low);
        let none = telling.is_empty();
        behaviours("WAITS FOR APPROVAL", telling, out)?;
        let title = if none {
            "WAITS FOR APPROVAL, of low risk"
        } else {
            "and of low risk"
        };
        by_program(title, &low, out)?;
        out.flush()?;
        remark("Every behaviour on a line of its own, with its id: --all");
    }
    if !d.quarantine.is_empty() {
        out.flush()?;
        remark(&format!(
            "To take one in: plimsoll baseline approve {} --behaviour ID --reason '…'",
            short(&b.id)
        ));
    }
    Ok(Verdict::Fine)
}

/// Its note begins with the risk that it was graded with.
fn is_low(k: &&KnownBehaviour) -> bool {
    k.note.as_deref().is_some_and(|n| n.starts_with("low risk"))
}

/// How many behaviours of each kind every program has, with examples.
fn by_program(title: &str, list: &[&KnownBehaviour], out: &mut Out) -> Result<(), Failure> {
    const EXAMPLES: usize = 3;
    if list.is_empty() {
        return Ok(());
    }
    heading(title, list.len(), out)?;
    let mut groups: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for k in list {
        let b = &k.behaviour;
        let what = format!("{} {}", b.operation, b.object);
        groups.entry((&b.program, &b.kind)).or_default().push(what);
    }
    let mut table = Table::new(&["PROGRAM", "KIND", "NUMBER", "SUCH AS"]);
    for ((program, kind), mut acts) in groups {
        acts.sort();
        let more = if acts.len() > EXAMPLES { ", …" } else { "" };
        let examples = acts[..acts.len().min(EXAMPLES)].join(", ");
        table.row([
            program_name(program).into(),
            kind.into(),
            acts.len().to_string().into(),
            format!("{examples}{more}").into(),
        ]);
    }
    table.print(out)
}

/// The program that acts; nothing of the container does when its runtime starts something.
fn program_name(program: &str) -> &str {
    match program {
        "" => "(the runtime)",
        other => other,
    }
}

fn heading(title: &str, number: usize, out: &mut Out) -> Result<(), Failure> {
    out.line("")?;
    let title = out.paint.apply(Style::Bold, &format!("{title} ({number})"));
    out.line(&title)
}

fn field(out: &mut Out, name: &str, value: &str) -> Result<(), Failure> {
    let text = wrap(&words(value), out.width, 15);
    out.line(&format!("  {name:<12} {text}"))
}

fn behaviours(title: &str, mut sorted: Vec<&KnownBehaviour>, out: &mut Out) -> Result<(), Failure> {
    if sorted.is_empty() {
        return Ok(());
    }
    heading(title, sorted.len(), out)?;
    let waiting = sorted.iter().all(|k| k.status == "quarantined");
    // all of the same status: no column for that
    let mut table = Table::new(if waiting {
        &["BEHAVIOUR", "KIND", "PROGRAM", "COUNT", "WHAT"]
    } else {
        &["BEHAVIOUR", "KIND", "PROGRAM", "COUNT", "STATUS", "WHAT"]
    });
    sorted.sort_by(|a, b| key(&a.behaviour).cmp(&key(&b.behaviour)));
    for k in sorted {
        let b = &k.behaviour;
        let note = match (&k.note, k.examples.is_empty()) {
            (Some(note), true) => format!(" ({note})"),
            (Some(note), false) => format!(" ({note}; made from {})", k.examples.join(", ")),
            (None, _) => String::new(),
        };
        let mut row: Vec<Cell> = vec![
            Cell::styled(&b.id, Style::Dim),
            b.kind.clone().into(),
            program_name(&b.program).into(),
            format!("{}{}", if k.at_least { "≥ " } else { "" }, k.count).into(),
        ];
        if !waiting {
            let style = match k.status.as_str() {
                "quarantined" => risk_style(Risk::Medium),
                _ => Style::Plain,
            };
            row.push(Cell::styled(&k.status, style));
        }
        row.push(format!("{} {}{note}", b.operation, b.object).into());
        table.row(row);
    }
    table.print(out)
}

fn key(b: &Behaviour) -> (&str, &str, &str, &str) {
    (&b.kind, &b.program, &b.operation, &b.object)
}

fn compare(source: &mut Source, from: &str, to: &str, out: &mut Out) -> Result<Verdict, Failure> {
    let (from, to) = (resolve(source, from)?, resolve(source, to)?);
    let d: BaselineDiff = match source.agent() {
        Some(agent) => {
            let (items, _) = agent.ask(&Request::BaselineDiff { from, to })?;
            let found = items.into_iter().find_map(|item| match item {
                Item::BaselineDiff(d) => Some(d),
                _ => None,
            });
            found.ok_or_else(|| Failure::Failed("the agent gave no difference".to_owned()))?
        }
        None => with_kept(source, |kept| Ok(diff(&at(kept, &from)?, &at(kept, &to)?)))?,
    };
    let verdict = if d.changes.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Found
    };
    if out.json {
        out.object(&d)?;
        return Ok(verdict);
    }
    out.line(&format!(
        "{} version {} → {} version {}: {} the same",
        words(short(&d.from.id)),
        d.from.version,
        words(short(&d.to.id)),
        d.to.version,
        d.same
    ))?;
    for c in &d.changes {
        let (sign, style) = match c.change.as_str() {
            "added" => ("+", Style::Good),
            "removed" => ("-", Style::Bad),
            _ => ("~", Style::Warn),
        };
        let b = &c.behaviour;
        let note = c
            .note
            .as_ref()
            .map(|n| format!(" ({n})"))
            .unwrap_or_default();
        let text = words(&format!(
            "{sign} {:<12} {} {} {}{note}",
            b.kind, b.program, b.operation, b.object
        ));
        let text = out.paint.apply(style, &text);
        out.line(&text)?;
    }
    Ok(verdict)
}

fn decide(
    source: &mut Source,
    text: &str,
    what: &str,
    out: &mut Out,
    request: impl FnOnce(String) -> Request,
) -> Result<Verdict, Failure> {
    source.agent_for(&format!("{what} a baseline"))?;
    let selector = resolve(source, text)?;
    if selector.version.is_some() {
        return Err(Failure::Usage(
            "a decision is about the baseline in force: leave the @VERSION away".to_owned(),
        ));
    }
    tell(source, what, &request(selector.id), out)
}

fn tell(
    source: &mut Source,
    what: &str,
    request: &Request,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let (items, message) = source
        .agent_for(&format!("{what} a baseline"))?
        .ask(request)?;
    for item in items {
        match item {
            Item::BaselineRef(r) if out.json => out.object(&r)?,
            Item::Baseline(b) if out.json => out.object(&b)?,
            _ => {}
        }
    }
    if !out.json {
        out.line(&words(&message.unwrap_or_else(|| "done".to_owned())))?;
    }
    Ok(Verdict::Fine)
}

fn export(
    source: &mut Source,
    text: &str,
    output: Option<&Path>,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let of = resolve(source, text)?;
    let document = match source.agent() {
        Some(agent) => {
            let (items, _) = agent.ask(&Request::BaselineExport {
                id: of.id.clone(),
                version: of.version,
            })?;
            let found = items.into_iter().find_map(|item| match item {
                Item::Document(d) => Some(d),
                _ => None,
            });
            found.ok_or_else(|| Failure::Failed("the agent gave no document".to_owned()))?
        }
        None => with_kept(source, |kept| {
            let b = at(kept, &of)?;
            let value = plimsoll_baseline::export(&b)
                .map_err(|e| Failure::Failed(format!("cannot export baseline {}: {e}", of.id)))?;
            Ok(plimsoll_api::json::line(&value))
        })?,
    };
    let document = if document.ends_with('\n') {
        document
    } else {
        document + "\n"
    };
    match output {
        None => out.raw(&document)?,
        Some(path) => {
            std::fs::write(path, &document).map_err(|e| Failure::Data {
                what: format!("cannot write {}", path.display()),
                source: Some(Box::new(e)),
            })?;
            remark(&format!("wrote {}", path.display()));
        }
    }
    Ok(Verdict::Fine)
}

fn import(
    source: &mut Source,
    file: &Path,
    reason: &str,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let document = read(file)?;
    // refused here with file and reason, before the agent is troubled
    plimsoll_baseline::import(document.as_bytes())
        .map_err(|e| Failure::Failed(format!("{}: {e}", file.display())))?;
    let request = Request::BaselineImport {
        document,
        reason: reason.to_owned(),
    };
    tell(source, "importing", &request, out)
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |e: std::io::Error| Failure::Data {
        what: format!("cannot read {}", file.display()),
        source: Some(Box::new(e)),
    };
    let mut text = String::new();
    let taken = if file == Path::new("-") {
        std::io::stdin()
            .take(DOCUMENT_MAX + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .map_err(failed)?
            .take(DOCUMENT_MAX + 1)
            .read_to_string(&mut text)
    };
    taken.map_err(failed)?;
    if text.len() as u64 > DOCUMENT_MAX {
        return Err(Failure::Failed(format!(
            "{} is longer than {} MiB, which no baseline is",
            file.display(),
            DOCUMENT_MAX >> 20
        )));
    }
    Ok(text)
}
