//! Records as lines that other tools open.
//!
//! [`Exporter::line`] turns one record into one line of a [`Format`]: plain JSON, CSV, Timesketch's
//! JSONL, or OCSF 1.8.0. The forms are in `docs/formats/export.md`.
//!
//! Promises:
//! - Every line names its record (`origin@leaf`), its node and the bound on its clock's error, so that
//!   it can be found again in the journal and verified there.
//! - A record that a format has no word for is not bent into another one: it is left out, and
//!   [`Exporter::left_out`] counts it by kind.
//! - What a container chose reaches no terminal raw, and no spreadsheet as a formula.
//! - Pure: no I/O, no clock.
//!
//! Left out on purpose: choosing records, custody, writing files (the command line does).
#![forbid(unsafe_code)]

mod flat;
mod ocsf;
mod plain;

use plimsoll_api::json;
use plimsoll_api::types::Context;
use plimsoll_model::{Container, Record, RecordId, RecordKind, WallNs};
use std::collections::BTreeMap;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object a line, in the form of `docs/formats/json.md`.
    Jsonl,
    /// Comma separated values with a heading (RFC 4180).
    Csv,
    /// What Timesketch imports: `message`, `datetime`, `timestamp_desc` and fields.
    Timesketch,
    /// Open Cybersecurity Schema Framework 1.8.0, one event a line.
    Ocsf,
}

impl Format {
    /// Name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Timesketch => "timesketch",
            Format::Ocsf => "ocsf",
        }
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Format::Jsonl, Format::Csv, Format::Timesketch, Format::Ocsf]
            .into_iter()
            .find(|f| f.as_str() == name)
    }
}

/// One record on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its name.
    pub id: &'a RecordId,
    /// Its time, as its header has it.
    pub wall: WallNs,
    /// Its content.
    pub record: &'a Record,
    /// The container that it is about, where it is known.
    pub container: Option<&'a Container>,
}

impl Row<'_> {
    fn context<'a>(&'a self, node: &'a str) -> Context<'a> {
        Context {
            node,
            container: self.container,
            record: Some(self.id),
        }
    }
}

/// Writes records in one format.
#[derive(Debug)]
pub struct Exporter {
    format: Format,
    node: String,
    written: u64,
    left_out: BTreeMap<&'static str, u64>,
}

impl Exporter {
    /// Of the journal of this node.
    pub fn new(format: Format, node: &str) -> Self {
        Self {
            format,
            node: node.to_owned(),
            written: 0,
            left_out: BTreeMap::new(),
        }
    }

    /// What stands before the first line, with its newline; empty for most formats.
    pub fn heading(&self) -> String {
        match self.format {
            Format::Csv => flat::csv_line(&flat::COLUMNS),
            Format::Jsonl | Format::Timesketch | Format::Ocsf => String::new(),
        }
    }

    /// The record's line, with its newline; `None`: this format has no word for it.
    pub fn line(&mut self, row: &Row<'_>) -> Option<String> {
        let value = match self.format {
            Format::Jsonl => plain::value(row, &self.node),
            Format::Csv => {
                let line = flat::csv(row, &self.node);
                return self.counted(row, line);
            }
            Format::Timesketch => flat::timesketch(row, &self.node),
            Format::Ocsf => ocsf::event(row, &self.node),
        };
        self.counted(row, value.map(|v| json::line(&v) + "\n"))
    }

    fn counted(&mut self, row: &Row<'_>, line: Option<String>) -> Option<String> {
        match &line {
            Some(_) => self.written += 1,
            None => *self.left_out.entry(kind_name(row.record)).or_default() += 1,
        }
        line
    }

    /// Lines so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Records that this format has no word for, by kind.
    pub fn left_out(&self) -> &BTreeMap<&'static str, u64> {
        &self.left_out
    }
}

/// The kind's name in lines: `observation`, `alert`, `plan` …
pub fn kind_name(record: &Record) -> &'static str {
    match record {
        Record::Observation(_) => "observation",
        Record::Drift(_) => "drift",
        Record::Alert(_) => "alert",
        Record::Gap(_) => "gap",
        Record::Container(_) => "container",
        Record::Clock(_) => "clock",
        Record::Baseline(_) => "baseline",
        Record::Lifecycle(_) => "lifecycle",
        Record::Decision(_) => "decision",
        Record::Presence(_) => "presence",
        Record::Plan(_) => "plan",
        Record::Step(_) => "step",
        Record::Delivery(_) => "delivery",
        Record::Policy(_) => "policy",
        Record::PlanEnd(_) => "plan_end",
        Record::RuleSet(_) => "rule_set",
        Record::Anchored(_) => "anchored",
        Record::LakeSealed(_) => "lake_sealed",
        Record::Recording(_) => "recording",
        Record::Enforcement(_) => "enforcement",
        Record::Prevention(_) => "prevention",
        Record::Unknown(kind, _) => match RecordKind::from_u16(*kind) {
            Some(RecordKind::Tombstone) => "tombstone",
            Some(RecordKind::EpochKey) => "epoch_key",
            _ => "unknown",
        },
    }
}
