//! `plimsoll containers`: live from the agent, else as the journal last knew them.

use super::state_style;
use crate::Verdict;
use crate::args::ContainersArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use plimsoll_api::{Container, Item, Request};
use plimsoll_ask::Records as _;
use std::collections::BTreeMap;

pub(crate) fn containers(
    global: &Global,
    args: &ContainersArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let mut list = known(&mut source, args.all)?;
    list.retain(|c| args.all || c.state != "gone");
    if out.json {
        list.iter().try_for_each(|c| out.object(c))?;
        return Ok(Verdict::Fine);
    }
    let mut table = Table::new(&[
        "NAME",
        "CONTAINER",
        "STATE",
        "RUNTIME",
        "WORKLOAD",
        "STARTED",
        "IMAGE",
    ]);
    for c in &list {
        let started = c
            .started
            .as_deref()
            .and_then(|s| s.get(..19))
            .unwrap_or("?")
            .replace('T', " ");
        table.row([
            Cell::styled(if c.name.is_empty() { "?" } else { &c.name }, Style::Bold),
            c.container_id.get(..12).unwrap_or(&c.container_id).into(),
            Cell::styled(&c.state, state_style(&c.state)),
            c.runtime.clone().into(),
            workload(c).into(),
            format!("{}{started}Z", if c.found_running { "before " } else { "" }).into(),
            c.image.clone().into(),
        ]);
    }
    if table.is_empty() {
        remark(if args.all {
            "No container is known."
        } else {
            "No container is running, as far as is known; --all shows those that are gone."
        });
        return Ok(Verdict::Fine);
    }
    table.print(out)?;
    Ok(Verdict::Fine)
}

/// Containers by start: from the agent, and with `gone` also those that only the journal knows.
pub(crate) fn known(source: &mut Source, gone: bool) -> Result<Vec<Container>, Failure> {
    let mut all: BTreeMap<(Option<String>, String), Container> = BTreeMap::new();
    let add = |all: &mut BTreeMap<_, _>, c: Container| {
        all.insert((c.started.clone(), c.instance.clone()), c);
    };
    let live = match source.agent() {
        Some(agent) => Some(agent.ask(&Request::Containers { gone })?.0),
        None => None,
    };
    if live.is_none() || gone {
        // the agent forgets those that are long gone; the journal does not
        match source.journal() {
            Ok(journal) => {
                let node = journal.origin().to_string();
                for c in journal.containers()?.by_start() {
                    add(&mut all, Container::new(c, &node));
                }
            }
            Err(failure) if live.is_none() => return Err(failure),
            Err(failure) => remark(&format!("note: {}", failure.in_full())),
        }
    }
    for item in live.into_iter().flatten() {
        if let Item::Container(c) = item {
            all.retain(|(_, instance), _| *instance != c.instance);
            add(&mut all, c);
        }
    }
    Ok(all.into_values().collect())
}

fn workload(c: &Container) -> String {
    match (&c.namespace, &c.pod, &c.service) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, Some(pod), _) => pod.clone(),
        (_, _, Some(service)) => service.clone(),
        _ => "-".to_owned(),
    }
}
