//! `plimsoll query`: SQL over the lake and the journal's tail.

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::lake::{LakeJournal, current, tell};
use crate::out::{Out, remark};
use crate::source::Source;
use crate::when::Length;
use clap::{Args, ValueEnum};
use plimsoll_api::{describe, storage};
use plimsoll_lake::{Lake, LakeError, Limits, Looked};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

mod show;

/// Disk that a statement may use beyond its memory, in multiples of it.
const SPILL_OF_MEMORY: u64 = 8;

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// One statement that reads
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    /// How the rows are written; `--json` means `json`
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
    /// Write them to this new file (parquet: required)
    #[arg(long, value_name = "FILE", required_if_eq("output", "parquet"))]
    pub(crate) file: Option<PathBuf>,
    /// How long the statement may take
    #[arg(long, value_name = "LENGTH", default_value = "30s")]
    pub(crate) timeout: Length,
    /// How much memory it may use; beyond, it works on disk, up to eight times as much
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub(crate) memory: Size,
    /// Read everything from the journal, and write nothing to the data directory
    #[arg(long)]
    pub(crate) no_lake: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns that line up, for people
    Table,
    /// One object a line
    Json,
    /// Comma-separated, with headings
    Csv,
    /// A Parquet file
    Parquet,
}

/// `512MiB`, `1GiB`, `64MB`, bytes without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
}

impl FromStr for Size {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("{s:?} is no size: expected a number and a unit, such as 512MiB or 2GiB");
        let at = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let unit: u64 = match &s[at..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = s[..at].parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
        Ok(Self { bytes })
    }
}

pub(crate) fn query(global: &Global, args: &QueryArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let format = match (args.output, out.json) {
        (Format::Table, true) => Format::Json,
        (format, _) => format,
    };
    let mut source = Source::find(global)?;
    let action = match args.file {
        Some(_) => "evidence.export",
        None => "evidence.query",
    };
    let journal = LakeJournal(source.journal_for(action)?.into_reader());
    let dir = storage::lake_dir(&source.config.data_dir);
    let lake = match args.no_lake {
        true => Lake::none(),
        false => current(&dir, &journal),
    };
    tell(&lake, &journal, source.agent());
    let journal = Arc::new(journal);
    let limits = limits(args);
    let mut shown = show::Shown::new(format, args.file.as_deref(), out);
    let mut found = None;
    let mut run = |lake: &Lake, shown: &mut show::Shown<'_>| {
        lake.query(journal.clone(), &args.sql, &limits, &mut |columns, rows| {
            found = Some(columns.clone());
            shown
                .take(columns, rows)
                .map_err(|e| LakeError::Output(Box::new(e)))
        })
    };
    let looked = match run(&lake, &mut shown) {
        // found only now, and nothing has been written yet: made again, once
        Err(LakeError::Damaged { what }) if !args.no_lake && !shown.begun() => {
            remark(&format!(
                "note: {}; it is made again from the journal",
                describe::words(&what)
            ));
            let mut lake = lake;
            lake.check()?;
            let lake = current(&dir, &journal);
            run(&lake, &mut shown)?
        }
        done => done?,
    };
    if let Some(columns) = &found {
        shown.end(columns)?;
    }
    say_incomplete(&looked);
    Ok(Verdict::Fine)
}

fn limits(args: &QueryArgs) -> Limits {
    Limits {
        time: Duration::from_nanos(args.timeout.ns),
        memory_bytes: usize::try_from(args.memory.bytes).unwrap_or(usize::MAX),
        spill_bytes: args.memory.bytes.saturating_mul(SPILL_OF_MEMORY),
        spill_dir: std::env::temp_dir(),
        threads: std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(8),
    }
}

/// No row is no proof where records could not be read.
fn say_incomplete(looked: &Looked) {
    if looked.pruned > 0 {
        remark(&format!(
            "note: {} records are not in the tables, because retention had removed their content",
            looked.pruned
        ));
    }
    if looked.unreadable > 0 {
        remark(&format!(
            "note: {} records could not be read: `plimsoll evidence verify` names them",
            looked.unreadable
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_type_them() {
        let bytes = |s: &str| s.parse::<Size>().map(|s| s.bytes).ok();
        assert_eq!(bytes("512MiB"), Some(512 << 20));
        assert_eq!(bytes("2GB"), Some(2_000_000_000));
        assert_eq!(bytes("100"), Some(100));
        for bad in ["", "MiB", "1TiBB", "-1MiB", "99999999999GiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
