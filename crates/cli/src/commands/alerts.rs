//! `plimsoll alerts`: our opinions, latest last, each once with its latest count.

use super::priority_style;
use super::select::{Resolved, resolve};
use crate::Verdict;
use crate::args::AlertsArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::{Containers, Wanted, filter, read_failure};
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use plimsoll_api as api;
use plimsoll_api::describe;
use plimsoll_api::types::Context;
use plimsoll_evidence::{Leaf, Payload};
use plimsoll_model::{Alert, AlertId, AlertSource, Record, RecordId, RecordKind, Text};
use std::collections::HashSet;
use std::time::Duration;

/// Looks for new alerts this often.
const POLL: Duration = Duration::from_millis(250);
/// Alerts taken at one look.
const BATCH: usize = 1000;

pub(crate) fn alerts(
    global: &Global,
    args: &AlertsArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let mut containers = journal.containers()?;
    let select = resolve(&args.select, &containers, out)?;
    // from here on following begins: what becomes durable while the list is read comes after it
    let end = journal.end()?;
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    // newest first: the first record met of an alert is its latest, with the highest count
    let read = select.latest(
        &journal,
        Wanted {
            newest_first: true,
            ..select.wanted(&[RecordKind::Alert])
        },
        |id, record| match record {
            Record::Alert(a) if matches(args, &select, &a) => {
                seen.insert(a.id.clone()).then_some((id, a))
            }
            _ => None,
        },
        |found| {
            kept.push(found);
            Ok(())
        },
    )?;
    let node = journal_node(&journal);
    show(&kept, &containers, &node, out)?;
    if args.follow {
        return follow(args, &select, journal, end, &mut containers, seen, out);
    }
    select.afterword(&read, "alert is", &journal)?;
    Ok(Verdict::Fine)
}

fn journal_node(journal: &crate::journal::Journal) -> String {
    use plimsoll_ask::Records as _;
    journal.origin().to_string()
}

fn matches(args: &AlertsArgs, select: &Resolved, alert: &Alert) -> bool {
    select.has(alert.instance.as_ref()) && args.priority.is_none_or(|least| alert.priority <= least)
}

fn show(
    kept: &[(RecordId, Alert)],
    containers: &Containers,
    node: &str,
    out: &mut Out,
) -> Result<(), Failure> {
    if out.json {
        return kept
            .iter()
            .try_for_each(|(id, a)| out.object(&json(id, a, containers, node)));
    }
    let mut table = Table::new(&["TIME", "PRIORITY", "CONTAINER", "COUNT", "ALERT", "WHAT"]);
    // they came in the order of their latest record; the column shows their first
    let mut by_time: Vec<&Alert> = kept.iter().map(|(_, a)| a).collect();
    by_time.sort_by_key(|a| a.at.wall);
    for a in by_time {
        table.row([
            describe::when(a.at.wall).into(),
            Cell::styled(a.priority.as_str(), priority_style(a.priority)),
            container_name(a, containers).into(),
            a.count.to_string().into(),
            Cell::styled(a.id.as_str(), Style::Dim),
            in_short(a, containers).into(),
        ]);
    }
    if table.is_empty() {
        Ok(())
    } else {
        table.print(out)
    }
}

fn container_name(a: &Alert, containers: &Containers) -> String {
    match &a.instance {
        Some(i) => containers
            .get(i)
            .map_or(i.id.short(), |c| c.display_name())
            .to_owned(),
        None => "?".to_owned(),
    }
}

/// What happened, without what other columns of the row say: the container, its image, and that a
/// finished baseline does not have it. JSON and answers have the whole sentence.
fn in_short(a: &Alert, containers: &Containers) -> String {
    let whole = a.output.to_string();
    let container = a.instance.as_ref().and_then(|i| containers.get(i));
    let Some(c) = container else {
        return whole;
    };
    let name = Text::from(c.display_name());
    let with_image = format!(" in {name} ({}): ", Text::from(c.image.name.as_str()));
    let short = match a.source {
        AlertSource::Drift(_) => {
            whole
                .replacen(&with_image, ": ", 1)
                .replacen(&format!(" in {name}: "), ": ", 1)
        }
        // what every rule of ours and the public ones append, for machines
        _ => match whole.find(" container_id=") {
            Some(at) => whole[..at].to_owned(),
            None => whole,
        },
    };
    match short.rfind("; not in baseline ") {
        Some(at) if short.ends_with(" % covered") => short[..at].to_owned(),
        _ => short,
    }
}

fn json(id: &RecordId, a: &Alert, containers: &Containers, node: &str) -> api::Alert {
    let container = a.instance.as_ref().and_then(|i| containers.get(i));
    api::Alert::new(
        a,
        Context {
            node,
            container,
            record: Some(id),
        },
    )
}

/// Shows alerts as they become durable, until interrupted.
fn follow(
    args: &AlertsArgs,
    select: &Resolved,
    journal: crate::journal::Journal,
    from: Leaf,
    containers: &mut Containers,
    mut seen: HashSet<AlertId>,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let node = journal_node(&journal);
    let dir = std::path::PathBuf::from(&node);
    let wanted = Wanted {
        kinds: vec![RecordKind::Alert, RecordKind::Container],
        ..Wanted::default()
    };
    let origin =
        plimsoll_model::NodeId::parse(&node).map_err(|e| Failure::Failed(e.to_string()))?;
    let mut follow = journal.into_reader().follow(from, filter(&wanted));
    out.flush()?;
    loop {
        let batch = follow.poll(BATCH).map_err(|e| read_failure(&dir, e))?;
        let idle = batch.is_empty();
        for entry in batch {
            let Ok(entry) = entry else {
                remark("note: a damaged record is left out");
                continue;
            };
            let Payload::Present { bytes, .. } = &entry.payload else {
                continue;
            };
            let id = RecordId {
                origin: origin.clone(),
                leaf: entry.leaf.0,
            };
            match Record::decode(entry.header.kind, bytes) {
                Ok(Record::Container(c)) => containers.learn(c),
                Ok(Record::Alert(a)) if matches(args, select, &a) => {
                    let again = !seen.insert(a.id.clone());
                    one(&id, &a, again, containers, &node, out)?;
                }
                Ok(_) => {}
                Err(e) => remark(&format!("note: {id} is left out: {e}")),
            }
            // bounded: forgetting only means that a repeat is shown like a first one
            if seen.len() > 100_000 {
                seen.clear();
            }
        }
        out.flush()?;
        if idle {
            std::thread::sleep(POLL);
        }
    }
}

fn one(
    id: &RecordId,
    a: &Alert,
    again: bool,
    containers: &Containers,
    node: &str,
    out: &mut Out,
) -> Result<(), Failure> {
    if out.json {
        return out.object(&json(id, a, containers, node));
    }
    let at = describe::when(if again { a.last.wall } else { a.at.wall });
    let priority = out
        .paint
        .apply(priority_style(a.priority), a.priority.as_str());
    let repeat = if again {
        format!(" ({} times so far)", a.count)
    } else {
        String::new()
    };
    let container = describe::words(&container_name(a, containers));
    out.line(&format!(
        "{at}  {priority}  {container}  {}{repeat}  {}",
        a.output, a.id
    ))
}
