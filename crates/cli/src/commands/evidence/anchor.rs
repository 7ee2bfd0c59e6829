//! `plimsoll evidence anchor`: takes checkpoints to where root on this machine cannot change them.
//!
//! A process of its own: the agent holds no HTTP and no TLS, and neither a mount nor a receiver
//! that hangs may hold it up. It reads what is public (checkpoint and certificates), writes it
//! elsewhere, and tells the agent, which records it.

use super::args::AnchorArgs;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, remark};
use crate::source::{Source, ask_evidence};
use plimsoll_api::describe;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_evidence::note::Note;
use plimsoll_evidence::{Checkpoint, Reader};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Logs of which one directory takes checkpoints. None is removed to make room: an anchored checkpoint
/// is what a rewritten store is told by.
const LOGS_MAX: usize = 1000;

pub(super) fn anchor(
    global: &Global,
    args: &AnchorArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    if args.to.is_empty() && args.webhook.is_empty() {
        return Err(Failure::Usage(
            "say where to: --to DIR or --webhook URL".to_owned(),
        ));
    }
    let Some(seconds) = args.every else {
        let failed = once(global, args, out)?;
        return Ok(if failed {
            Verdict::Found
        } else {
            Verdict::Fine
        });
    };
    loop {
        // An agent that is being restarted or a journal that is being recovered is no reason to leave the log
        // unanchored from then on; each checkpoint covers all before it, so nothing has to be caught up.
        if let Err(e) = once(global, args, out) {
            remark(&format!("not anchored: {}", describe::words(&e.in_full())));
        }
        out.flush()?;
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// Every target once; whether one failed.
fn once(global: &Global, args: &AnchorArgs, out: &mut Out) -> Result<bool, Failure> {
    // Found anew each time: the agent may have been restarted.
    let mut source = Source::find(global)?;
    let note = super::latest(&mut source)?;
    let checkpoint = Note::parse(note.as_bytes())
        .ok()
        .and_then(|note| Checkpoint::parse(&note.text));
    let checkpoint = checkpoint
        .ok_or_else(|| Failure::Failed("the agent's checkpoint does not read as one".to_owned()))?;
    let dir = source.config.journal_dir();
    let reader = Reader::open(&dir).map_err(|e| crate::journal::open_failure(&dir, e))?;
    let certificates = reader
        .certificates()
        .map_err(|e| crate::journal::read_failure(&dir, e))?;
    let keys: Vec<u8> = certificates.iter().flat_map(|c| c.note.bytes()).collect();
    let mut failed = false;
    let directories = args.to.iter().map(|to| {
        (
            to.display().to_string(),
            into_directory(to, &checkpoint, &note, &keys),
        )
    });
    let receivers = args
        .webhook
        .iter()
        .map(|url| (url.clone(), to_receiver(url, &note)));
    for (target, done) in directories.chain(receivers).collect::<Vec<_>>() {
        match done {
            // that it is kept elsewhere holds without the record, and the other targets matter, too
            Ok(()) => {
                if let Err(e) = taken(&mut source, &checkpoint, &target, out) {
                    failed = true;
                    let why = describe::words(&e.in_full());
                    remark(&format!("the anchor is not recorded in the log: {why}"));
                }
            }
            Err(why) => {
                failed = true;
                remark(&format!(
                    "not anchored in {}: {}",
                    describe::words(&target),
                    describe::words(&why)
                ));
            }
        }
    }
    Ok(failed)
}

/// The agent writes it down; without one nobody does, and that is said.
fn taken(
    source: &mut Source,
    checkpoint: &Checkpoint,
    target: &str,
    out: &mut Out,
) -> Result<(), Failure> {
    let record = match source.agent() {
        Some(client) => {
            let act = EvidenceAct::Anchored {
                size: checkpoint.size,
                target: target.to_owned(),
            };
            Some(ask_evidence(client, act, "")?)
        }
        None => {
            remark("note: agent not running; the anchor is not recorded in the log");
            None
        }
    };
    if out.json {
        return out.object(&json!({ "size": checkpoint.size, "target": target, "record": record }));
    }
    out.line(&format!(
        "{} records anchored in {}",
        checkpoint.size,
        describe::words(target)
    ))
}

/// `DIR/ORIGIN/SIZE.checkpoint`, never overwritten by another one, and the certificates beside it.
fn into_directory(
    dir: &Path,
    checkpoint: &Checkpoint,
    note: &str,
    keys: &[u8],
) -> Result<(), String> {
    let origin = checkpoint.origin.replace('/', "_");
    has_room(dir, &origin)?;
    let dir = dir.join(origin);
    let said = |what: &str, path: &Path| {
        let what = format!("cannot {what} {}", path.display());
        move |e: std::io::Error| format!("{what}: {e}")
    };
    fs::create_dir_all(&dir).map_err(said("create", &dir))?;
    let path = dir.join(format!("{:020}.checkpoint", checkpoint.size));
    match fs::read(&path) {
        Ok(there) => {
            let before = Note::parse(&there)
                .ok()
                .and_then(|note| Checkpoint::parse(&note.text));
            if before.is_some_and(|before| before.root != checkpoint.root) {
                return Err(format!(
                    "{} holds another history of the same length: this store was rewritten",
                    path.display()
                ));
            }
        }
        Err(_) => replace(&path, note.as_bytes()).map_err(said("write", &path))?,
    }
    let path = dir.join("keys");
    replace(&path, keys).map_err(said("write", &path))
}

/// Whether checkpoints of this log may be put here.
fn has_room(dir: &Path, origin: &str) -> Result<(), String> {
    if dir.join(origin).is_dir() {
        return Ok(());
    }
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = items.filter(|i| i.file_type().is_ok_and(|t| t.is_dir()));
    if logs.take(LOGS_MAX).count() < LOGS_MAX {
        return Ok(());
    }
    Err(format!(
        "{} holds checkpoints of {LOGS_MAX} logs, and nothing of them is removed: anchor {origin} in another directory, or move away those of logs that are gone",
        dir.display()
    ))
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn to_receiver(url: &str, note: &str) -> Result<(), String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .build();
    let request = ureq::Agent::new_with_config(config)
        .post(url)
        .header("content-type", "text/plain; charset=utf-8");
    let answer = request.send(note).map_err(|e| e.to_string())?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("it answered {}", answer.status())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_so_many_logs_and_removes_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(has_room(&dir.path().join("not yet there"), "node").is_ok());
        for n in 0..LOGS_MAX {
            let there = format!("node-{n}");
            assert!(has_room(dir.path(), &there).is_ok());
            fs::create_dir(dir.path().join(there)).unwrap();
        }
        let refused = has_room(dir.path(), "node-new").unwrap_err();
        assert!(refused.contains("node-new") && refused.contains("1000 logs"));
        assert!(has_room(dir.path(), "node-7").is_ok(), "it has its place");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), LOGS_MAX);
    }
}
