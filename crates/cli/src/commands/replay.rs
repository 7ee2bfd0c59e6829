//! `plimsoll replay`: the same verdicts from the same records, or what is different.

use super::evidence::args::ReplayArgs;
use super::evidence::target;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::{Journal, Wanted};
use crate::out::{Out, Style};
use crate::replay::{Outcome, Replay};
use crate::source::Source;
use plimsoll_api::describe;
use plimsoll_ask::{Body, Records as _};
use plimsoll_evidence::Bundle;
use plimsoll_model::{Record, RecordKind};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

pub(crate) fn replay(
    global: &Global,
    args: &ReplayArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let target = target(global, args.target.as_deref())?;
    Source::note_reading(global, &target, "evidence.replay");
    let (origin, outcome) = if target.is_file() {
        bundle(&target)?
    } else {
        journal(&target)?
    };
    let same = outcome.differences_total == 0;
    if out.json {
        object(&target, &origin, &outcome, out)?;
    } else {
        show(&target, &origin, &outcome, out)?;
    }
    Ok(if same { Verdict::Fine } else { Verdict::Found })
}

fn bundle(path: &Path) -> Result<(String, Outcome), Failure> {
    let failed = |e| Failure::Data {
        what: format!("cannot read {}", path.display()),
        source: Some(Box::new(e) as _),
    };
    let bundle = Bundle::read(path).map_err(failed)?;
    let origin = bundle.origin().unwrap_or_default();
    let mut replay = Replay::new(&origin);
    let records = || {
        bundle.records.iter().filter_map(|packed| {
            let (header, (_, bytes)) = (packed.header()?, packed.payload.as_ref()?);
            Some((packed.leaf.0, Record::decode(header.kind, bytes).ok()?))
        })
    };
    for (_, record) in records() {
        if let Record::Container(container) = record {
            replay.know(&container);
        }
    }
    records().for_each(|(leaf, record)| replay.take(leaf, record));
    Ok((origin, replay.end()))
}

fn journal(dir: &Path) -> Result<(String, Outcome), Failure> {
    let journal = Journal::open(dir)?;
    let origin = journal.origin().to_string();
    let mut replay = Replay::new(&origin);
    let identities = Wanted {
        kinds: vec![RecordKind::Container],
        ..Wanted::default()
    };
    journal.each(&identities, |seen| {
        if let Body::Record(Record::Container(container)) = seen.body {
            replay.know(&container);
        }
        ControlFlow::Continue(())
    })?;
    let wanted = Wanted {
        kinds: vec![
            RecordKind::Observation,
            RecordKind::Drift,
            RecordKind::Alert,
            RecordKind::Container,
            RecordKind::Baseline,
            RecordKind::RuleSet,
        ],
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| {
        if let Body::Record(record) = seen.body {
            replay.take(seen.id.leaf, record);
        }
        ControlFlow::Continue(())
    })?;
    Ok((origin, replay.end()))
}

fn show(target: &Path, origin: &str, outcome: &Outcome, out: &mut Out) -> Result<(), Failure> {
    let verdict = match outcome.differences_total {
        0 => out.paint.apply(Style::Good, "the same verdicts"),
        n => out.paint.apply(Style::Bad, &format!("{n} differences")),
    };
    out.line(&format!(
        "{}: {verdict}",
        describe::words(&target.display().to_string())
    ))?;
    out.line(&format!(
        "  judged again: {} observations, {} drifts and {} alerts the same",
        outcome.observations, outcome.drifts_same, outcome.alerts_same
    ))?;
    for difference in outcome.differences.iter().take(50) {
        let line = format!("{origin}@{}: {}", difference.leaf, difference.what);
        out.line(&format!(
            "  {}",
            out.paint.apply(Style::Bad, &describe::words(&line))
        ))?;
    }
    for (why, n) in &outcome.not_judged {
        out.line(&format!(
            "  unknown: {n} not judged again: {}",
            describe::words(why)
        ))?;
    }
    Ok(())
}

fn object(target: &Path, origin: &str, outcome: &Outcome, out: &mut Out) -> Result<(), Failure> {
    let differences = outcome.differences.iter();
    out.object(&json!({
        "target": target.display().to_string(),
        "same": outcome.differences_total == 0,
        "observations": outcome.observations,
        "drifts_same": outcome.drifts_same,
        "alerts_same": outcome.alerts_same,
        "differences": differences.map(|d| json!({ "record": format!("{origin}@{}", d.leaf), "text": d.what })).collect::<Vec<_>>(),
        "differences_total": outcome.differences_total,
        "not_judged": outcome.not_judged,
    }))
}
