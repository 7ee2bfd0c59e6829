//! `plimsoll evidence export`: records in forms that other tools open.
//!
//! Promises: with a running agent the export is a record before the first line is written; a file is
//! made anew, readable by its owner only, and synced; what was left out is said with its reason.

use super::args::{About, ExportArgs};
use super::select::{self, Interval};
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::{Containers, Journal, Wanted};
use crate::out::{Out, remark};
use crate::source::{Source, ask_evidence};
use crate::when::now;
use plimsoll_api::describe::{self, when};
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_ask::{Body, Records as _, Seen};
use plimsoll_evidence::Leaf;
use plimsoll_export::{Exporter, Row};
use plimsoll_model::{AlertSource, GapScope, Instance, Record, WallNs};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

pub(super) fn export(
    global: &Global,
    args: &ExportArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let interval = interval(args)?;
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let (subject, leaves) = chosen(args, &journal, interval)?;
    let file = args.output.as_deref().map(create).transpose()?;
    let record = write_down(&mut source, &subject, args)?;
    let (to, told) = match file {
        Some(file) => (To::File(BufWriter::new(file)), Some(out)),
        None => (To::Out(out), None),
    };
    let mut writing = Writing {
        exporter: Exporter::new(args.format, journal.origin().as_str()),
        containers: journal.containers()?,
        plans: HashMap::new(),
        pruned: 0,
        damaged: 0,
        to,
    };
    let heading = writing.exporter.heading();
    writing.put(&heading)?;
    match leaves {
        Some(leaves) => writing.each(&journal, &leaves)?,
        None => writing.everything(&journal, interval)?,
    }
    writing.finish(args, &subject, record, told)
}

/// `--since` and `--until`, both included.
fn interval(args: &ExportArgs) -> Result<Interval, Failure> {
    let present = now();
    let (from, to) = (
        args.since.map_or(WallNs(i64::MIN), |m| m.wall(present)),
        args.until.map_or(WallNs(i64::MAX), |m| m.wall(present)),
    );
    if from > to {
        return Err(Failure::Usage("--since is later than --until".to_owned()));
    }
    Ok(Interval { from, to })
}

/// What is exported, in words, and which records; `None`: all of the interval.
fn chosen(
    args: &ExportArgs,
    journal: &Journal,
    interval: Interval,
) -> Result<(String, Option<BTreeSet<Leaf>>), Failure> {
    let bounds = match (args.since, args.until) {
        (None, None) => String::new(),
        (Some(_), None) => format!(" since {}", when(interval.from)),
        (None, Some(_)) => format!(" until {}", when(interval.to)),
        _ => format!(" from {} to {}", when(interval.from), when(interval.to)),
    };
    if args.alert.is_none() && args.container.is_none() {
        return Ok((format!("everything{bounds}"), None));
    }
    let about = About {
        alert: args.alert.clone(),
        container: args.container.clone(),
        incident: None,
    };
    let found = select::about(&about, journal)?;
    let interval = match found.when.filter(|_| bounds.is_empty()) {
        Some((from, to)) => Interval::around(from, to, args.around.ns),
        None => interval,
    };
    let mut leaves = select::own(journal, &found, &interval)?;
    leaves.extend(select::context(journal, &found, &interval)?);
    Ok((format!("{}{bounds}", found.subject), Some(leaves)))
}

fn create(path: &Path) -> Result<File, Failure> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    made.map_err(|e| cannot_write(path, e))
}

fn cannot_write(path: &Path, e: std::io::Error) -> Failure {
    Failure::Data {
        what: format!("cannot write the export {}", path.display()),
        source: Some(Box::new(e)),
    }
}

/// Custody: the export becomes a record; its name.
fn write_down(
    source: &mut Source,
    subject: &str,
    args: &ExportArgs,
) -> Result<Option<String>, Failure> {
    let Some(client) = source.agent() else {
        remark("note: agent not running; that this export was made is not recorded in the log");
        return Ok(None);
    };
    let act = EvidenceAct::Access {
        action: "evidence.export".to_owned(),
        subject: format!("{subject} as {}", args.format.as_str()),
    };
    ask_evidence(client, act, &args.reason).map(Some)
}

enum To<'a> {
    Out(&'a mut Out),
    File(BufWriter<File>),
}

struct Writing<'a> {
    exporter: Exporter,
    containers: Containers,
    /// Steps name their plan, and that its container.
    plans: HashMap<String, Instance>,
    pruned: u64,
    damaged: u64,
    to: To<'a>,
}

impl Writing<'_> {
    fn put(&mut self, text: &str) -> Result<(), Failure> {
        match &mut self.to {
            To::Out(out) => out.raw(text),
            To::File(file) => file.write_all(text.as_bytes()).map_err(Failure::Output),
        }
    }

    fn each(&mut self, journal: &Journal, leaves: &BTreeSet<Leaf>) -> Result<(), Failure> {
        for leaf in leaves {
            if let Some(seen) = journal.get(&journal.id(*leaf))? {
                self.record(&seen)?;
            }
        }
        Ok(())
    }

    fn everything(&mut self, journal: &Journal, interval: Interval) -> Result<(), Failure> {
        let wanted = Wanted {
            from: (interval.from.0 > i64::MIN).then_some(interval.from),
            to: (interval.to.0 < i64::MAX).then_some(interval.to),
            ..Wanted::default()
        };
        let mut failed = None;
        journal.each(&wanted, |seen| match self.record(&seen) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn record(&mut self, seen: &Seen) -> Result<(), Failure> {
        let record = match &seen.body {
            Body::Record(record) => record,
            Body::Pruned => {
                self.pruned += 1;
                return Ok(());
            }
            Body::Damaged => {
                self.damaged += 1;
                return Ok(());
            }
        };
        if let Record::Plan(plan) = record
            && let Some(instance) = &plan.instance
            && self.plans.len() < 100_000
        {
            self.plans.insert(plan.id.clone(), instance.clone());
        }
        let container = whose(record, &self.plans).and_then(|i| self.containers.get(i));
        let line = self.exporter.line(&Row {
            id: &seen.id,
            wall: seen.wall,
            record,
            container,
        });
        line.map_or(Ok(()), |line| self.put(&line))
    }

    fn finish(
        self,
        args: &ExportArgs,
        subject: &str,
        record: Option<String>,
        out: Option<&mut Out>,
    ) -> Result<Verdict, Failure> {
        let (exporter, pruned, damaged) = (self.exporter, self.pruned, self.damaged);
        let path = args.output.as_deref().unwrap_or(Path::new("-"));
        match self.to {
            To::Out(out) => out.flush()?,
            To::File(file) => {
                let synced = file
                    .into_inner()
                    .map_err(std::io::IntoInnerError::into_error)
                    .and_then(|file| file.sync_all());
                synced.map_err(|e| cannot_write(path, e))?;
            }
        }
        let left_out: Vec<String> = exporter
            .left_out()
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        let mut said = format!(
            "{}: {} records about {} as {}",
            describe::words(&path.display().to_string()),
            exporter.written(),
            describe::words(subject),
            args.format.as_str()
        );
        if !left_out.is_empty() {
            said += &format!("; without a word in this format: {}", left_out.join(", "));
        }
        if pruned > 0 {
            said += &format!("; {pruned} without content, removed by retention");
        }
        if damaged > 0 {
            said += &format!("; {damaged} damaged");
        }
        match out {
            Some(out) if out.json => out.object(&json!({
                "export": path.display().to_string(), "subject": subject, "format": args.format.as_str(),
                "records": exporter.written(), "left_out": exporter.left_out(),
                "without_content": pruned, "damaged": damaged, "record": record,
            }))?,
            // the lines themselves went to standard output
            _ => remark(&said),
        }
        Ok(Verdict::Fine)
    }
}

/// Whose record it is.
fn whose<'a>(record: &'a Record, plans: &'a HashMap<String, Instance>) -> Option<&'a Instance> {
    match record {
        Record::Observation(o) => o.instance.as_ref(),
        Record::Drift(d) => Some(&d.instance),
        Record::Alert(a) => match (&a.instance, &a.source) {
            (Some(i), _) => Some(i),
            (None, AlertSource::Drift(d)) => Some(&d.instance),
            (None, AlertSource::Rule(_)) => None,
        },
        Record::Container(c) => Some(&c.instance),
        Record::Presence(p) => Some(&p.instance),
        Record::Recording(r) => Some(&r.instance),
        Record::Prevention(p) => Some(&p.instance),
        Record::Plan(p) => p.instance.as_ref(),
        Record::Step(s) => plans.get(&s.plan),
        Record::PlanEnd(e) => plans.get(&e.plan),
        Record::Gap(g) => match &g.scope {
            GapScope::Container(i) => Some(i),
            GapScope::Node => None,
        },
        _ => None,
    }
}
