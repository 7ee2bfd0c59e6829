//! `plimsoll events`: observations, latest last.

use super::select::{Read, Resolved, resolve};
use crate::Verdict;
use crate::args::EventsArgs;
use crate::failure::Failure;
use crate::global::{Global, Selection};
use crate::journal::{Containers, Journal, Wanted};
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use crate::when::{Moment, rfc3339};
use plimsoll_api as api;
use plimsoll_api::describe;
use plimsoll_api::types::Context;
use plimsoll_ask::minutes::{LATE_NS, wall_of};
use plimsoll_ask::{Body, Records as _};
use plimsoll_model::{Alert, AlertId, Instance, Observation, Record, RecordId, RecordKind, WallNs};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Events held at most to put them in order.
const FULL_MAX: usize = 200_000;
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
    if args.full {
        return full(&journal, args, &select, &containers, out);
    }
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

/// Observations and uses that the recorder kept, by time.
fn full(
    journal: &Journal,
    args: &EventsArgs,
    select: &Resolved,
    containers: &Containers,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let node = journal.origin().to_string();
    let mut found = Found::default();
    let mut wanted = select.wanted(&[RecordKind::Observation, RecordKind::Recording]);
    // a recording is written when it ends
    wanted.to = select
        .to
        .map(|to| WallNs(to.0.saturating_add_unsigned(LATE_NS)));
    let mut read = Read::default();
    journal.each(&wanted, |seen| {
        match read.look(seen) {
            Some((id, Record::Observation(o)))
                if select.has(o.instance.as_ref()) && wanted_kind(args, &o) =>
            {
                let context = Context {
                    node: &node,
                    container: o.instance.as_ref().and_then(|i| containers.get(i)),
                    record: Some(&id),
                };
                let event = api::Event::new(&o, context);
                found.add(select, o.at.wall, || event);
            }
            Some((id, Record::Recording(r))) if select.has(Some(&r.instance)) => {
                found.recordings += 1;
                found.lost += r.lost;
                found.overwritten += r.overwritten;
                for used in &r.uses {
                    let context = Context {
                        node: &node,
                        container: containers.get(&r.instance),
                        record: Some(&id),
                    };
                    let kind = r
                        .behaviours
                        .get(used.what as usize)
                        .map(|b| b.kind.as_str());
                    if args.kind.is_empty()
                        || kind.is_some_and(|k| args.kind.iter().any(|a| a == k))
                    {
                        let at = wall_of(&r, used.after_ms);
                        found.add(select, at, || api::Event::recorded(&r, used, context));
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    found.print(&mut read, select, out)?;
    select.afterword(&read, "event is", journal)?;
    if found.recordings == 0 {
        remark(
            "note: nothing of the recorder is kept for this alert (its memory is 0, or the container was not seen)",
        );
    } else if found.lost + found.overwritten > 0 {
        remark(&format!(
            "note: {} uses within the recorded span were not kept, {} before it were written over",
            found.lost, found.overwritten
        ));
    }
    Ok(Verdict::Fine)
}

/// What `--full` found, by time.
#[derive(Default)]
struct Found {
    events: BTreeMap<(WallNs, u64), api::Event>,
    seen: u64,
    cut: bool,
    recordings: u64,
    lost: u64,
    overwritten: u64,
}

impl Found {
    fn add(&mut self, select: &Resolved, at: WallNs, event: impl FnOnce() -> api::Event) {
        if select.from.is_some_and(|from| at < from) || select.to.is_some_and(|to| at > to) {
            return;
        }
        self.seen += 1;
        self.events.insert((at, self.seen), event());
        if self.events.len() > select.limit.min(FULL_MAX) {
            self.events.pop_first();
            self.cut = true;
        }
    }

    fn print(&mut self, read: &mut Read, select: &Resolved, out: &mut Out) -> Result<(), Failure> {
        read.shown = self.events.len();
        read.more = self.cut;
        if self.cut && select.limit > FULL_MAX {
            remark(&format!("note: only the latest {FULL_MAX} are shown"));
        }
        let mut table = Table::new(&["TIME", "PID", "KIND", "TIMES", "WHAT"]);
        for event in std::mem::take(&mut self.events).into_values() {
            if out.json {
                out.object(&event)?;
                continue;
            }
            table.row([
                rfc3339(&event.time)
                    .map_or(event.time, describe::when)
                    .into(),
                event.pid.to_string().into(),
                event.kind.into(),
                event.count.to_string().into(),
                event.summary.into(),
            ]);
        }
        if !out.json && !table.is_empty() {
            table.print(out)?;
        }
        Ok(())
    }
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
