//! `plimsoll drift`: behaviour outside the baseline, one line for each behaviour and instance.

use super::risk_style;
use super::select::resolve;
use crate::Verdict;
use crate::args::DriftArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style};
use crate::source::Source;
use crate::table::{Cell, Table};
use plimsoll_api as api;
use plimsoll_api::describe;
use plimsoll_api::types::{Context, class_name};
use plimsoll_ask::Records as _;
use plimsoll_model::{BehaviourId, Drift, Instance, Record, RecordId, RecordKind, Risk};
use std::collections::HashMap;

pub(crate) fn drift(global: &Global, args: &DriftArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let containers = journal.containers()?;
    let select = resolve(&args.select, &containers, out)?;
    let least = args.risk.as_deref().map(risk);
    let mut found: Vec<(RecordId, Drift)> = Vec::new();
    let mut at: HashMap<(BehaviourId, Instance), usize> = HashMap::new();
    let read = select.latest(
        &journal,
        select.wanted(&[RecordKind::Drift]),
        |id, record| match record {
            Record::Drift(d)
                if select.has(Some(&d.instance)) && least.is_none_or(|l| d.risk >= l) =>
            {
                Some((id, d))
            }
            _ => None,
        },
        |(id, d)| {
            let key = (d.behaviour.id(), d.instance.clone());
            match at.get(&key) {
                // a later record of the same drift supersedes, and keeps its first time
                Some(&n) => {
                    let first = found[n].1.first.min(d.first);
                    found[n] = (id, Drift { first, ..d });
                }
                None => {
                    at.insert(key, found.len());
                    found.push((id, d));
                }
            }
            Ok(())
        },
    )?;
    let node = journal.origin().to_string();
    let mut table = Table::new(&[
        "LAST",
        "RISK",
        "CLASS",
        "CONTAINER",
        "COUNT",
        "BASELINE",
        "BEHAVIOUR",
    ]);
    for (id, d) in &found {
        let container = containers.get(&d.instance);
        if out.json {
            out.object(&api::Drift::new(
                d,
                Context {
                    node: &node,
                    container,
                    record: Some(id),
                },
            ))?;
            continue;
        }
        let b = &d.behaviour;
        table.row([
            describe::when(d.last.wall).into(),
            Cell::styled(d.risk.as_str(), risk_style(d.risk)),
            class_name(d.class).replace('_', " ").into(),
            container
                .map_or(d.instance.id.short(), |c| c.display_name())
                .into(),
            d.count.to_string().into(),
            Cell::styled(baseline(d), Style::Dim),
            format!(
                "{} {} {}",
                describe::path(&b.program),
                b.operation,
                describe::path(&b.object)
            )
            .into(),
        ]);
    }
    if !table.is_empty() {
        table.print(out)?;
    }
    select.afterword(&read, "drift is", &journal)?;
    Ok(Verdict::Fine)
}

fn baseline(d: &Drift) -> String {
    match &d.baseline {
        Some(b) => format!(
            "{}@{} {}",
            b.id.as_str().get(..8).unwrap_or(b.id.as_str()),
            b.version,
            d.baseline_state
        ),
        None => "none".to_owned(),
    }
}

fn risk(text: &str) -> Risk {
    [Risk::Low, Risk::Medium, Risk::High, Risk::Critical]
        .into_iter()
        .find(|r| r.as_str() == text)
        .unwrap_or(Risk::Low)
}
