//! Q7: what was written, dropped, deleted, run from memory.

use crate::network::counted;
use crate::say::{Sentences, times};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, when};
use plimsoll_model::event::FileEvent;
use plimsoll_model::{
    BehaviourKind, EventKind, FileOp, Observation, Origin, RecordId, Stamp, Text,
};
use std::collections::{BTreeMap, HashMap};

/// Distinct acts kept apart.
const ACTS_MAX: usize = 20_000;
/// Distinct acts of one kind that are listed one by one.
const SHOWN: usize = 15;

/// Kinds of trace, worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Trace {
    RunFromMemory,
    RunNotFromImage,
    MemoryFile,
    MadeExecutable,
    Created,
    Written,
    Removed,
    Renamed,
    Linked,
    Owner,
}

impl Trace {
    fn words(self) -> &'static str {
        match self {
            Trace::RunFromMemory => "Run from memory",
            Trace::RunNotFromImage => "Run, though not from the image",
            Trace::MemoryFile => "Memory file made",
            Trace::MadeExecutable => "Made executable",
            Trace::Created => "Created",
            Trace::Written => "Opened for writing",
            Trace::Removed => "Deleted",
            Trace::Renamed => "Renamed",
            Trace::Linked => "Linked",
            Trace::Owner => "Owner changed",
        }
    }
}

struct Act {
    count: u64,
    first: Stamp,
    last: Stamp,
    who: String,
    origin: Origin,
    evidence: Vec<RecordId>,
}

/// Q7.
pub(crate) fn files(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut acts: HashMap<(Trace, String, Text), Act> = HashMap::new();
    let mut made: HashMap<Text, (Stamp, RecordId, String)> = HashMap::new();
    let mut ran: Vec<(Text, Stamp, RecordId, String)> = Vec::new();
    let (mut failed, mut dropped) = (0u64, 0u64);
    about.observations(say.tally(), |id, o| {
        if let EventKind::File(f) = &o.event.kind {
            if f.result < 0 {
                failed += u64::from(f.op != FileOp::Failed);
                return;
            }
            if let Some(path) = makes(f)
                && made.len() < ACTS_MAX
            {
                made.entry(path.clone())
                    .or_insert_with(|| (o.at, id.clone(), who(&o)));
            }
        }
        if let EventKind::Exec(e) = &o.event.kind
            && ran.len() < ACTS_MAX
        {
            ran.push((e.exe.clone(), o.at, id.clone(), who(&o)));
        }
        let Some((trace, what, origin)) = trace(&o) else {
            return;
        };
        let key = (trace, what, o.program());
        if acts.len() >= ACTS_MAX && !acts.contains_key(&key) {
            dropped += 1;
            return;
        }
        let act = acts.entry(key).or_insert_with(|| Act {
            count: 0,
            first: o.at,
            last: o.at,
            who: who(&o),
            origin,
            evidence: Vec::new(),
        });
        act.count += o.count.max(1);
        act.first = act.first.min(o.at);
        act.last = act.last.max(o.at);
        if act.evidence.len() < crate::say::EVIDENCE_MAX {
            act.evidence.push(id);
        }
    })?;
    say_dropped_and_run(&made, &ran, say);
    let nothing = acts.is_empty();
    say_acts(acts, say);
    if dropped > 0 {
        say.observed(
            format!("{dropped} more acts are not listed: `plimsoll events --kind file` has them."),
            [],
        );
    }
    if failed > 0 {
        say.observed(
            format!("{failed} more acts on files were tried and failed."),
            [],
        );
    }
    counted(
        about,
        &[BehaviourKind::File, BehaviourKind::Memfd],
        |b| writes(&b.operation.0),
        "On files it did what its baseline knows",
        say,
    )?;
    if nothing {
        say.unknown(format!(
            "No write, deletion, dropped program or memory file is recorded {}. What the baseline knows is only counted, and a loss is possible where the completeness below says so.",
            about.interval.text()
        ));
    } else {
        say.unknown("What was written is not known: contents are not recorded, only that a file was opened for writing.");
    }
    Ok(())
}

fn writes(operation: &str) -> bool {
    !matches!(operation, "read" | "list" | "failed")
}

/// The path that a file act brings into being or fills.
fn makes(f: &FileEvent) -> Option<&Text> {
    match f.op {
        FileOp::Create | FileOp::Write => Some(&f.path),
        FileOp::Rename | FileOp::Link => Some(&f.target),
        _ => None,
    }
}

fn who(o: &Observation) -> String {
    chain(&o.lineage, o.event.process.key)
}

fn trace(o: &Observation) -> Option<(Trace, String, Origin)> {
    Some(match &o.event.kind {
        EventKind::Exec(e) if e.origin == Origin::Memfd || e.deleted => {
            let how = if e.deleted && e.origin != Origin::Memfd {
                " (its file was deleted)"
            } else {
                ""
            };
            (
                Trace::RunFromMemory,
                format!(
                    "{}{how} as `{}`",
                    describe::path(&e.exe),
                    describe::command_line(&e.argv)
                ),
                e.origin,
            )
        }
        EventKind::Exec(e) if e.origin.is_writable() => (
            Trace::RunNotFromImage,
            format!(
                "{} as `{}`",
                describe::path(&e.exe),
                describe::command_line(&e.argv)
            ),
            e.origin,
        ),
        EventKind::Memfd { name } => (Trace::MemoryFile, describe::path(name), Origin::Memfd),
        EventKind::File(f) => {
            let (trace, what) = match f.op {
                FileOp::Create | FileOp::Mkdir => (Trace::Created, describe::path(&f.path)),
                FileOp::Write => (Trace::Written, describe::path(&f.path)),
                FileOp::Unlink | FileOp::Rmdir => (Trace::Removed, describe::path(&f.path)),
                FileOp::Rename => (
                    Trace::Renamed,
                    format!(
                        "{} to {}",
                        describe::path(&f.path),
                        describe::path(&f.target)
                    ),
                ),
                FileOp::Link | FileOp::Symlink => (
                    Trace::Linked,
                    format!(
                        "{} and {}",
                        describe::path(&f.path),
                        describe::path(&f.target)
                    ),
                ),
                FileOp::Chmod if f.flags & 0o6111 != 0 => (
                    Trace::MadeExecutable,
                    format!(
                        "{} (mode {:04o})",
                        describe::path(&f.path),
                        f.flags & 0o7777
                    ),
                ),
                FileOp::Chown => (Trace::Owner, describe::path(&f.path)),
                FileOp::Chmod | FileOp::Read | FileOp::List | FileOp::Failed => return None,
            };
            (trace, what, f.origin)
        }
        _ => return None,
    })
}

/// Files that were first made in the container and then run.
fn say_dropped_and_run(
    made: &HashMap<Text, (Stamp, RecordId, String)>,
    ran: &[(Text, Stamp, RecordId, String)],
    say: &mut Sentences,
) {
    let mut pairs: Vec<_> = ran
        .iter()
        .filter_map(|(exe, at, id, by)| {
            let (made_at, made_id, made_by) = made.get(exe)?;
            (made_at.boot <= at.boot).then_some((exe, made_at, made_id, made_by, at, id, by))
        })
        .collect();
    pairs.sort_by_key(|(exe, .., at, _, _)| ((*exe).clone(), at.boot));
    pairs.dedup_by_key(|(exe, ..)| (*exe).clone());
    pairs.sort_by_key(|(_, _, _, _, at, _, _)| at.boot);
    for (exe, made_at, made_id, made_by, at, id, by) in pairs.into_iter().take(SHOWN) {
        say.inferred(
            format!(
                "Dropped and run: {} was made at {} by {made_by} and run at {} by {by}.",
                describe::path(exe),
                when(made_at.wall),
                when(at.wall)
            ),
            [made_id, id],
        );
    }
}

fn say_acts(acts: HashMap<(Trace, String, Text), Act>, say: &mut Sentences) {
    let mut by_trace: BTreeMap<Trace, Vec<(String, Act)>> = BTreeMap::new();
    for ((trace, what, _), act) in acts {
        by_trace.entry(trace).or_default().push((what, act));
    }
    for (trace, mut list) in by_trace {
        list.sort_by(|(a_what, a), (b_what, b)| {
            (a.first.boot, a_what).cmp(&(b.first.boot, b_what))
        });
        let rest = list.split_off(list.len().min(SHOWN));
        for (what, act) in &list {
            let repeats = if act.count > 1 {
                format!(", {} until {}", times(act.count), when(act.last.wall))
            } else {
                String::new()
            };
            let place = if act.origin == Origin::Unknown {
                String::new()
            } else {
                format!(" ({})", act.origin.as_str())
            };
            say.observed(
                format!(
                    "{}: {what}{place}, by {} at {}{repeats}.",
                    trace.words(),
                    act.who,
                    when(act.first.wall)
                ),
                &act.evidence,
            );
        }
        if !rest.is_empty() {
            let examples: Vec<&str> = rest.iter().take(3).map(|(what, _)| what.as_str()).collect();
            say.observed(
                format!(
                    "{}: {} more, such as {}.",
                    trace.words(),
                    rest.len(),
                    examples.join(", ")
                ),
                rest.iter().flat_map(|(_, act)| &act.evidence),
            );
        }
    }
}
