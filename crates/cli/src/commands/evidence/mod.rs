//! `plimsoll evidence`: verify, take elsewhere, hand over, hold.

mod anchor;
pub(crate) mod args;
mod bundle;
mod capture;
mod export;
mod hold;
mod select;
mod verify;

pub(crate) use verify::target;

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, remark};
use crate::source::{Source, ask_evidence, config};
use args::{CheckpointArgs, EvidenceCommand};
use plimsoll_agent::config::Overrides;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_api::storage;
use plimsoll_evidence::Reader;

pub(crate) fn evidence(
    global: &Global,
    command: &EvidenceCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    match command {
        EvidenceCommand::Verify(args) => verify::verify(global, args, out),
        EvidenceCommand::Checkpoint(args) => checkpoint(global, args, out),
        EvidenceCommand::Anchor(args) => anchor::anchor(global, args, out),
        EvidenceCommand::Bundle(args) => bundle::bundle(global, args, out),
        EvidenceCommand::Export(args) => export::export(global, args, out),
        EvidenceCommand::Hold(args) => hold::hold(global, args, out),
        EvidenceCommand::Release(args) => hold::release(global, args, out),
        EvidenceCommand::Holds => hold::holds(global, out),
        EvidenceCommand::Capture(args) => capture::capture(args, out),
    }
}

fn checkpoint(global: &Global, args: &CheckpointArgs, out: &mut Out) -> Result<Verdict, Failure> {
    if args.key {
        let config = config(global, Overrides::default())?;
        let key = plimsoll_evidence::exported_key(&storage::keys_dir(&config.data_dir))
            .map_err(Failure::Failed)?;
        return print(out, "key", &format!("{key}\n"));
    }
    let note = latest(&mut Source::find(global)?)?;
    print(out, "checkpoint", &note)
}

/// The checkpoint as of now, or the last one when no agent runs.
fn latest(source: &mut Source) -> Result<String, Failure> {
    if let Some(client) = source.agent() {
        return ask_evidence(client, EvidenceAct::Checkpoint {}, "");
    }
    let dir = source.config.journal_dir();
    let reader = Reader::open(&dir).map_err(|e| crate::journal::open_failure(&dir, e))?;
    let newest = reader
        .newest_checkpoint()
        .map_err(|e| crate::journal::read_failure(&dir, e))?;
    let (_, note) = newest.ok_or_else(|| {
        Failure::Failed(
            "this journal has no checkpoint yet: start the agent with `plimsoll run`".to_owned(),
        )
    })?;
    remark("note: agent not running; this is the last checkpoint that it made");
    String::from_utf8(note).map_err(|_| Failure::Failed("the checkpoint is not text".to_owned()))
}

fn print(out: &mut Out, name: &str, text: &str) -> Result<Verdict, Failure> {
    if out.json {
        out.object(&serde_json::json!({ name: text }))?;
    } else {
        out.raw(text)?;
    }
    Ok(Verdict::Fine)
}
