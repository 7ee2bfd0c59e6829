//! `plimsoll events`: observations, latest last.

use super::select::resolve;
use crate::Verdict;
use crate::args::{EventsArgs, Global, Selection};
use crate::failure::Failure;
use crate::journal::{Containers, Journal, Wanted};
use crate::out::{Out, Style};
use crate::source::Source;
use crate::table::{Cell, Table};
use crate::when::Moment;
use plimsoll_api as api;
use plimsoll_api::describe;
use plimsoll_api::types::Context;
use plimsoll_ask::{Body, Records as _};
use plimsoll_model::{Alert, AlertId, Instance, Observation, Record, RecordId, RecordKind, WallNs};
use std::ops::ControlFlow;

/// Rows held back to line up columns; beyond it the next table begins.
const ROWS: usize = 500;

pub(crate) fn events(
    global: &Global,
    args: &EventsArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let containers = journal.containers()?;
    let (selection, instance) = match &args.alert {
        Some(id) => around(&journal, id, args)?,
        None => (args.select.clone(), None),
    };
    let mut select = resolve(&selection, &containers, out)?;
    if let Some(instance) = instance {
        select.instances = Some(vec![instance]);
    }
    let node = journal.origin().to_string();
    let mut rows = Rows::new();
    let read = select.latest(
        &journal,
        select.wanted(&[RecordKind::Observation]),
        |id, record| match record {
            Record::Observation(o) if select.has(o.instance.as_ref()) && wanted_kind(args, &o) => {
                Some((id, o))
            }
            _ => None,
        },
        |(id, o)| {
            let container = o.instance.as_ref().and_then(|i| containers.get(i));
            if out.json {
                return out.object(&api::Event::new(
                    &o,
                    Context {
                        node: &node,
                        container,
                        record: Some(&id),
                    },
                ));
            }
            rows.add(&id, &o, &containers, out)
        },
    )?;
    rows.print(out)?;
    select.afterword(&read, "event is", &journal)?;
    Ok(Verdict::Fine)
}

fn wanted_kind(args: &EventsArgs, o: &Observation) -> bool {
    args.kind.is_empty() || args.kind.iter().any(|k| k == o.event.kind.name())
}

/// The time around an alert, and its container.
fn around(
    journal: &Journal,
    id: &AlertId,
    args: &EventsArgs,
) -> Result<(Selection, Option<Instance>), Failure> {
    let mut found: Option<Alert> = None;
    let wanted = Wanted {
        kinds: vec![RecordKind::Alert],
        needles: vec![id.as_str().as_bytes().to_vec()],
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| {
        if let Body::Record(Record::Alert(a)) = seen.body
            && a.id == *id
        {
            found = Some(a);
        }
        ControlFlow::Continue(())
    })?;
    let alert = found.ok_or_else(|| {
        Failure::Failed(format!(
            "no alert {id} in the journal: `plimsoll alerts` lists them"
        ))
    })?;
    let ns = args.around.ns;
    let selection = Selection {
        container: None,
        since: Some(Moment::At(WallNs(
            alert.at.wall.0.saturating_sub_unsigned(ns),
        ))),
        until: Some(Moment::At(WallNs(
            alert
                .last
                .wall
                .max(alert.at.wall)
                .0
                .saturating_add_unsigned(ns),
        ))),
        limit: args.select.limit,
    };
    Ok((selection, alert.instance))
}

/// A table that does not have to be complete before its first row is shown.
struct Rows {
    table: Table,
    count: usize,
}

impl Rows {
    fn new() -> Self {
        Self {
            table: Table::new(&["TIME", "CONTAINER", "KIND", "RECORD", "WHAT"]),
            count: 0,
        }
    }

    fn add(
        &mut self,
        id: &RecordId,
        o: &Observation,
        containers: &Containers,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let name = match &o.instance {
            Some(i) => containers.get(i).map_or(i.id.short(), |c| c.display_name()),
            None => "?",
        };
        self.table.row([
            describe::when(o.at.wall).into(),
            name.into(),
            o.event.kind.name().into(),
            Cell::styled(format!("@{}", id.leaf), Style::Dim),
            describe::observation(o).into(),
        ]);
        self.count += 1;
        if self.count < ROWS {
            return Ok(());
        }
        std::mem::replace(self, Self::new()).print(out)
    }

    fn print(self, out: &mut Out) -> Result<(), Failure> {
        if self.table.is_empty() {
            Ok(())
        } else {
            self.table.print(out)
        }
    }
}
