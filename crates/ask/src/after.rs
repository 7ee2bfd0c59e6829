//! Q7: what was written, dropped, deleted, run from memory.

use crate::acts::Acts;
use crate::collected::{ACTS_MAX, Collected, place};
use crate::network::counted;
use crate::say::Sentences;
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, when};
use plimsoll_model::event::FileEvent;
use plimsoll_model::{
    BehaviourKind, EventKind, FileOp, Observation, Origin, RecordId, Stamp, Text,
};
use std::collections::HashMap;

/// Files that were made and run, listed one by one.
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

/// Q7.
pub(crate) fn files(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut acts: Collected<Trace> = Collected::new();
    let mut made: HashMap<Text, (Stamp, RecordId, String)> = HashMap::new();
    let mut ran: Vec<(Text, Stamp, RecordId, String)> = Vec::new();
    let mut failed = 0u64;
    let looked = Acts::EXEC.or(Acts::CHANGE).or(Acts::CHANGE_NOTABLE);
    about.observations(looked, say.tally(), |id, o| {
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
        if let Some((trace, what, origin)) = trace(&o) {
            acts.add(trace, what + &place(origin), id, &o);
        }
    })?;
    say_dropped_and_run(&made, &ran, say);
    let nothing = acts.is_empty();
    acts.say(Trace::words, "plimsoll events --kind file", say);
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
