//! `plimsoll evidence verify`: what was found, whose it was, and what cannot be known.

use super::args::VerifyArgs;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::Journal;
use crate::out::{Out, Style};
use crate::source::{Source, config};
use plimsoll_agent::config::Overrides;
use plimsoll_api::{describe, storage};
use plimsoll_evidence::note::PublicKey;
use plimsoll_evidence::{
    Bundle, Checkpoint, Filter, Header, InstanceKey, Problem, Reader, VerifyOptions, VerifyReport,
};
use plimsoll_model::record::Anchored;
use plimsoll_model::{Record, RecordKind, WallNs};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Problems shown to people.
const SHOWN_MAX: usize = 50;

fn epochs(n: u64) -> String {
    match n {
        1 => "1 epoch".to_owned(),
        n => format!("{n} epochs"),
    }
}

pub(crate) fn verify(
    global: &Global,
    args: &VerifyArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let target = target(global, args.target.as_deref())?;
    Source::note_reading(global, &target, "evidence.verify");
    let options = VerifyOptions {
        key: args.key.as_deref().map(key).transpose()?,
        kept: args.checkpoint.as_deref().map(read).transpose()?,
        threads: 0,
    };
    let (report, names, anchored) = if target.is_file() {
        let bundle = Bundle::read(&target).map_err(|e| failed(&target, e))?;
        (
            bundle.verify(&options),
            names_in(bundle.records.iter().filter_map(container_of)),
            None,
        )
    } else {
        let report = plimsoll_evidence::verify(&target, &options)
            .map_err(|e| crate::journal::open_failure(&target, e))?;
        let anchors = Anchors::of(&target);
        (report, names_of(&target), Some(anchors))
    };
    let whole = report.is_whole();
    if out.json {
        out.object(&object(&target, &report, &names, anchored.as_ref()))?;
    } else {
        show(&target, &report, &names, anchored.as_ref(), out)?;
    }
    Ok(if whole { Verdict::Fine } else { Verdict::Found })
}

/// A data directory's journal, a journal, or a bundle.
pub(crate) fn target(global: &Global, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(given) = given else {
        return Ok(config(global, Overrides::default())?.journal_dir());
    };
    let below = storage::journal_dir(given);
    Ok(if below.join("journal.meta").exists() {
        below
    } else {
        given.to_path_buf()
    })
}

fn failed(path: &Path, e: plimsoll_evidence::BundleError) -> Failure {
    Failure::Data {
        what: format!("cannot verify {}", path.display()),
        source: Some(Box::new(e)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))
}

/// A key as it was typed, or the file that holds it.
fn key(given: &str) -> Result<PublicKey, Failure> {
    let text = match given.contains('+') && !Path::new(given).exists() {
        true => given.to_owned(),
        false => String::from_utf8_lossy(&read(Path::new(given))?).into_owned(),
    };
    PublicKey::parse(&text).map_err(|e| Failure::Usage(format!("--key {given}: {e}")))
}

type Names = HashMap<InstanceKey, String>;

fn container_of(record: &plimsoll_evidence::Packed) -> Option<Record> {
    let (_, bytes) = record.payload.as_ref()?;
    let header = record
        .header()
        .filter(|h| h.kind == RecordKind::Container as u16)?;
    Record::decode(header.kind, bytes).ok()
}

fn names_in(records: impl Iterator<Item = Record>) -> Names {
    let named = records.filter_map(|record| match record {
        Record::Container(c) => {
            let key = InstanceKey(storage::container_key(&c.instance));
            Some((key, format!("{} ({})", c.display_name(), c.instance)))
        }
        _ => None,
    });
    named.collect()
}

fn names_of(dir: &Path) -> Names {
    let Ok(journal) = Journal::open(dir) else {
        return Names::new();
    };
    let Ok(containers) = journal.containers() else {
        return Names::new();
    };
    names_in(
        containers
            .by_start()
            .into_iter()
            .cloned()
            .map(Record::Container),
    )
}

/// What the log says about its anchors.
struct Anchors {
    last: Option<Anchored>,
    /// The longest time without one: from, to.
    longest: Option<(WallNs, WallNs)>,
}

impl Anchors {
    fn of(dir: &Path) -> Self {
        let mut anchors = Self {
            last: None,
            longest: None,
        };
        let Ok(reader) = Reader::open(dir) else {
            return anchors;
        };
        let ends = |newest_first| {
            let all = reader
                .scan(Filter {
                    newest_first,
                    ..Filter::default()
                })
                .ok()?;
            let whole = all.take(64).find_map(Result::ok)?;
            Some(WallNs(whole.header.wall_ns))
        };
        let Some((mut before, last)) = ends(false).zip(ends(true)) else {
            return anchors;
        };
        let filter = Filter {
            kinds: vec![RecordKind::Anchored as u16],
            ..Filter::default()
        };
        let found = reader.scan(filter).into_iter().flatten().flatten();
        let mut stretch = |from: WallNs, to: WallNs| {
            if anchors
                .longest
                .is_none_or(|(a, b)| to.0 - from.0 > b.0 - a.0)
                && to > from
            {
                anchors.longest = Some((from, to));
            }
        };
        for entry in found {
            let record = entry
                .payload
                .bytes()
                .and_then(|b| Record::decode(entry.header.kind, b).ok());
            if let Some(Record::Anchored(anchored)) = record {
                stretch(before, anchored.at.wall);
                before = anchored.at.wall;
                anchors.last = Some(anchored);
            }
        }
        stretch(before, last);
        anchors
    }

    fn words(&self) -> String {
        let longest = self.longest.map_or(String::new(), |(from, to)| {
            format!(
                "; longest without: {} to {}",
                describe::when(from),
                describe::when(to)
            )
        });
        match &self.last {
            None => format!("never anchored elsewhere{longest}"),
            Some(a) => format!(
                "{} records last anchored {} in {}{longest}",
                a.size,
                describe::when(a.at.wall),
                describe::words(&a.target)
            ),
        }
    }
}

fn kind_name(kind: u16) -> String {
    RecordKind::from_u16(kind).map_or_else(
        || format!("kind {kind}"),
        |kind| format!("{kind:?}").to_lowercase(),
    )
}

fn whose(header: &Header, names: &Names) -> Option<String> {
    let key = header.container?;
    Some(
        names
            .get(&key)
            .cloned()
            .unwrap_or_else(|| format!("container key {key}")),
    )
}

/// What a problem's record is, or what lies before it.
fn belongs(problem: &Problem, names: &Names) -> String {
    let Some(header) = &problem.near else {
        return String::new();
    };
    let of = whose(header, names).map_or(String::new(), |name| {
        format!(" of {}", describe::words(&name))
    });
    let what = format!(
        "{}{of} at {}",
        kind_name(header.kind),
        describe::when(WallNs(header.wall_ns))
    );
    if problem.own {
        format!(" ({what})")
    } else {
        format!(" (the last whole one before: {what})")
    }
}

fn head(checkpoint: &Checkpoint) -> String {
    let at = checkpoint
        .wall_ns
        .map_or("unknown time".to_owned(), |ns| describe::when(WallNs(ns)));
    format!("{} records, {at}", checkpoint.size)
}

fn show(
    target: &Path,
    report: &VerifyReport,
    names: &Names,
    anchors: Option<&Anchors>,
    out: &mut Out,
) -> Result<(), Failure> {
    let verdict = match (
        report.is_whole(),
        report.problems.len() as u64 + report.omitted,
    ) {
        (true, _) => out.paint.apply(Style::Good, "whole"),
        (false, n) => out
            .paint
            .apply(Style::Bad, &format!("not whole: {n} found")),
    };
    out.line(&format!(
        "{}: {verdict}",
        describe::words(&target.display().to_string())
    ))?;
    let key = report
        .key
        .as_ref()
        .map_or("none".to_owned(), ToString::to_string);
    let given = if report.key_given {
        "given"
    } else {
        "from the store itself"
    };
    let mut rows = vec![
        ("origin", report.origin.clone()),
        (
            "records",
            format!(
                "{} read, {} of them without content (removed by retention), {} MB hashed",
                report.records,
                report.pruned,
                report.bytes / 1_000_000
            ),
        ),
        ("key", format!("{key} ({given}), {}", epochs(report.epochs))),
        (
            "checkpoints",
            format!(
                "{} match; newest: {}",
                report.checkpoints,
                report.newest.as_ref().map_or("none".to_owned(), head)
            ),
        ),
    ];
    if let Some(kept) = &report.kept {
        rows.push(("kept", head(kept)));
    }
    if let Some(anchors) = anchors {
        rows.push(("anchored", anchors.words()));
    }
    for (name, value) in rows {
        out.line(&format!("  {name:<12} {}", describe::words(&value)))?;
    }
    for (n, problem) in report.problems.iter().take(SHOWN_MAX).enumerate() {
        let place = match (problem.leaf, problem.last) {
            (Some(a), Some(b)) if b != a => format!("records {a} to {b}"),
            (Some(a), _) => format!("record {a}"),
            _ => "store".to_owned(),
        };
        let file = problem
            .path
            .as_ref()
            .map_or(String::new(), |p| format!(" [{}]", p.display()));
        let first = if n == 0 { "first: " } else { "" };
        let line = format!(
            "{first}{} {place}{}: {}{file}",
            problem.fault.as_str(),
            belongs(problem, names),
            problem.text
        );
        out.line(&format!(
            "  {}",
            out.paint.apply(Style::Bad, &describe::words(&line))
        ))?;
    }
    let more = report.problems.len().saturating_sub(SHOWN_MAX) as u64 + report.omitted;
    if more > 0 {
        out.line(&format!("  and {more} more (--json lists up to 1000)"))?;
    }
    for unknown in &report.unknown {
        out.line(&format!("  unknown: {}", describe::words(unknown)))?;
    }
    Ok(())
}

fn object(target: &Path, report: &VerifyReport, names: &Names, anchors: Option<&Anchors>) -> Value {
    let head = |c: &Checkpoint| {
        let root: String = c.root.iter().map(|b| format!("{b:02x}")).collect();
        json!({ "size": c.size, "root": root, "time": c.wall_ns.map(|ns| WallNs(ns).rfc3339()) })
    };
    let problem = |p: &Problem| {
        let near = p.near.as_ref();
        json!({
            "fault": p.fault.as_str(),
            "record": p.leaf.map(|leaf| format!("{}@{leaf}", report.origin)),
            "first": p.leaf,
            "last": p.last.or(p.leaf),
            "own": p.own,
            "kind": near.map(|h| kind_name(h.kind)),
            "class": near.map(|h| h.class.to_string()),
            "container": near.and_then(|h| whose(h, names)),
            "time": near.map(|h| WallNs(h.wall_ns).rfc3339()),
            "file": p.path.as_ref().map(|p| p.display().to_string()),
            "text": p.text,
        })
    };
    json!({
        "target": target.display().to_string(),
        "whole": report.is_whole(),
        "origin": report.origin,
        "records": report.records,
        "without_content": report.pruned,
        "bytes": report.bytes,
        "key": report.key.as_ref().map(ToString::to_string),
        "key_given": report.key_given,
        "epochs": report.epochs,
        "checkpoints": report.checkpoints,
        "newest": report.newest.as_ref().map(head),
        "kept": report.kept.as_ref().map(head),
        "anchored": anchors.and_then(|a| a.last.as_ref()).map(|a| json!({ "size": a.size, "time": a.at.wall.rfc3339(), "target": a.target })),
        "longest_unanchored": anchors.and_then(|a| a.longest).map(|(from, to)| json!({ "from": from.rfc3339(), "to": to.rfc3339() })),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
        "problems_total": report.problems.len() as u64 + report.omitted,
        "unknown": report.unknown,
    })
}
