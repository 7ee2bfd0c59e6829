//! What `--container`, `--since`, `--until` and `--limit` mean, for every command that lists
//! records.

use crate::failure::Failure;
use crate::global::Selection;
use crate::journal::{Containers, Journal, Wanted};
use crate::out::{Out, remark};
use crate::when::now;
use plimsoll_api::describe::when;
use plimsoll_ask::{Body, Seen};
use plimsoll_model::{Gap, GapScope, Instance, Record, RecordId, RecordKind, WallNs};
use std::ops::ControlFlow;

/// Rows of a table when nothing else is asked for.
const LIMIT: usize = 200;

/// A selection resolved against the journal.
pub(crate) struct Resolved {
    pub(crate) instances: Option<Vec<Instance>>,
    pub(crate) from: Option<WallNs>,
    pub(crate) to: Option<WallNs>,
    pub(crate) limit: usize,
    limit_given: bool,
}

/// Resolves names and times.
pub(crate) fn resolve(
    select: &Selection,
    containers: &Containers,
    out: &Out,
) -> Result<Resolved, Failure> {
    let present = now();
    let instances = select
        .container
        .as_deref()
        .map(|text| containers.named(text))
        .transpose()?;
    let limit = match (select.limit, out.json) {
        (Some(0), _) | (None, true) => usize::MAX,
        (Some(n), _) => n,
        (None, false) => LIMIT,
    };
    let (from, to) = (
        select.since.map(|m| m.wall(present)),
        select.until.map(|m| m.wall(present)),
    );
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Failure::Usage("--since is later than --until".to_owned()));
    }
    Ok(Resolved {
        instances,
        from,
        to,
        limit,
        limit_given: select.limit.is_some(),
    })
}

impl Resolved {
    pub(crate) fn wanted(&self, kinds: &[RecordKind]) -> Wanted {
        Wanted {
            kinds: kinds.to_vec(),
            instances: self.instances.clone().unwrap_or_default(),
            from: self.from,
            to: self.to,
            ..Wanted::default()
        }
    }

    /// Whether a record about this instance is selected: header keys may collide.
    pub(crate) fn has(&self, instance: Option<&Instance>) -> bool {
        match (&self.instances, instance) {
            (None, _) => true,
            (Some(list), Some(instance)) => list.contains(instance),
            (Some(_), None) => false,
        }
    }

    /// The latest that `take` accepts, oldest first. Without a limit they are handed over as they
    /// are read, so that memory stays bounded, unless `take` itself wants to see the newest first.
    pub(crate) fn latest<T>(
        &self,
        journal: &Journal,
        mut wanted: Wanted,
        mut take: impl FnMut(RecordId, Record) -> Option<T>,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<Read, Failure> {
        let mut read = Read::default();
        if self.limit == usize::MAX && !wanted.newest_first {
            let mut failed = None;
            journal.each(&wanted, |seen| {
                if let Some(item) = read.look(seen).and_then(|(id, record)| take(id, record)) {
                    read.shown += 1;
                    failed = each(item).err();
                }
                if failed.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            return failed.map_or(Ok(read), Err);
        }
        wanted.newest_first = true;
        let mut latest = Vec::new();
        journal.each(&wanted, |seen| {
            if let Some(item) = read.look(seen).and_then(|(id, record)| take(id, record)) {
                if latest.len() == self.limit {
                    read.more = true;
                    return ControlFlow::Break(());
                }
                latest.push(item);
            }
            ControlFlow::Continue(())
        })?;
        read.shown = latest.len();
        latest.into_iter().rev().try_for_each(each)?;
        Ok(read)
    }

    /// What has to be said after a list: that it was cut, that something in it could not be read,
    /// or that it is empty, and whether that is to be believed.
    pub(crate) fn afterword(
        &self,
        read: &Read,
        what: &str,
        journal: &Journal,
    ) -> Result<(), Failure> {
        if read.more && !self.limit_given {
            remark(&format!(
                "note: only the latest {} are shown; --limit 0 shows all",
                self.limit
            ));
        }
        if read.pruned > 0 {
            remark(&format!(
                "note: retention has removed the content of {} more",
                read.pruned
            ));
        }
        if read.damaged > 0 {
            remark(&format!(
                "note: {} records are damaged and left out",
                read.damaged
            ));
        }
        if read.shown == 0 {
            self.say_empty(what, journal)?;
        }
        Ok(())
    }

    fn say_empty(&self, what: &str, journal: &Journal) -> Result<(), Failure> {
        use plimsoll_ask::Records as _;
        let span = journal.span();
        let from = self.from.max(span.map(|s| s.first));
        let since = from
            .map(|w| format!(" since {}", when(w)))
            .unwrap_or_default();
        let (gaps, _) = gaps(journal, self)?;
        let gaps = match gaps {
            0 => "no gap is recorded in that time".to_owned(),
            1 => "1 gap is recorded in that time: see `plimsoll gaps`".to_owned(),
            n => format!("{n} gaps are recorded in that time: see `plimsoll gaps`"),
        };
        remark(&format!("No {what} recorded{since}; {gaps}."));
        Ok(())
    }
}

/// What was met on the way.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) shown: usize,
    pub(crate) more: bool,
    pub(crate) pruned: u64,
    pub(crate) damaged: u64,
}

impl Read {
    pub(crate) fn look(&mut self, seen: Seen) -> Option<(RecordId, Record)> {
        match seen.body {
            Body::Record(record) => Some((seen.id, record)),
            Body::Pruned => {
                self.pruned += 1;
                None
            }
            Body::Damaged => {
                self.damaged += 1;
                None
            }
        }
    }
}

/// How many gaps touch a selection, and how many events they are known to have cost.
pub(crate) fn gaps(journal: &Journal, select: &Resolved) -> Result<(u64, u64), Failure> {
    let (mut count, mut lost) = (0, 0);
    let wanted = Wanted {
        kinds: vec![RecordKind::Gap],
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| {
        if let Body::Record(Record::Gap(gap)) = seen.body
            && touches(&gap, select)
        {
            count += 1;
            lost += gap.count.unwrap_or(0);
        }
        ControlFlow::Continue(())
    })?;
    Ok((count, lost))
}

/// Whether a gap concerns a selection: by time, and by container unless it is the node's.
pub(crate) fn touches(gap: &Gap, select: &Resolved) -> bool {
    let ours = match &gap.scope {
        GapScope::Node => true,
        GapScope::Container(instance) => select.has(Some(instance)),
    };
    ours && select.from.is_none_or(|from| gap.to.wall >= from)
        && select.to.is_none_or(|to| gap.from.wall <= to)
}
