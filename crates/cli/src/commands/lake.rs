//! `plimsoll lake`: make, make again, check.

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::lake::{LakeJournal, contradicted, tell, words};
use crate::listed;
use crate::out::{Out, remark};
use crate::source::Source;
use clap::Subcommand;
use plimsoll_api::{describe, storage};
use plimsoll_lake::{Journal as _, Lake};
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum LakeCommand {
    /// Make the files that are missing
    Build,
    /// Make all files again from the journal; rows whose records retention has removed are lost
    Rebuild,
    /// Read every file, compare it with its seal, and make again what differs; exit status 1 then
    Check,
}

pub(crate) fn lake(
    global: &Global,
    command: &LakeCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = LakeJournal(source.journal()?.into_reader());
    let dir = storage::lake_dir(&source.config.data_dir);
    let mut lake = Lake::open(&dir, journal.origin())?;
    let mut found: Vec<String> = lake.contents().damage.clone();
    match command {
        LakeCommand::Build => {}
        LakeCommand::Rebuild => {
            lake.clear()?;
            listed::forget(&dir)?;
        }
        LakeCommand::Check => {
            for seal in contradicted(&lake, &journal)? {
                found.push(format!(
                    "{} is not the one that the journal names",
                    seal.name()
                ));
                lake.forget(&seal)?;
            }
            let differing = lake.check()?;
            found.extend(
                differing
                    .into_iter()
                    .map(|name| format!("{name} differs from its seal")),
            );
        }
    }
    for damage in &found {
        remark(&format!("{}; it is made again", describe::words(damage)));
    }
    let mut told = Ok(());
    let mut steps = 0;
    let whole = lake.build(&journal, &mut |built| {
        steps += 1;
        if told.is_ok() && !out.json {
            told = out.line(&words(built)).and_then(|()| out.flush());
        }
    })?;
    told?;
    if !whole {
        return Err(Failure::Failed(
            "another process is making the lake at this moment".to_owned(),
        ));
    }
    listed::make(&source.config.journal_dir(), &dir)?;
    tell(&lake, &journal, source.agent());
    summary(&lake, steps, &found, out)?;
    Ok(match found.is_empty() {
        true => Verdict::Fine,
        false => Verdict::Found,
    })
}

fn summary(lake: &Lake, steps: u64, found: &[String], out: &mut Out) -> Result<(), Failure> {
    let seals = &lake.contents().seals;
    let files = seals.iter().flat_map(|s| &s.files);
    let (count, rows, bytes) =
        files.fold((0, 0, 0), |(n, r, b), f| (n + 1, r + f.rows, b + f.bytes));
    let records: u64 = seals.iter().map(|s| s.end - s.first).sum();
    if out.json {
        return out.object(&json!({
            "records": records, "files": count, "rows": rows, "bytes": bytes, "steps": steps,
            "damage": found,
        }));
    }
    out.line(&format!(
        "{records} records in {count} files: {rows} rows, {bytes} bytes"
    ))
}
