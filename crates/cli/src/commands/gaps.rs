//! `plimsoll gaps`: what was not seen or not kept.

use super::select::{resolve, touches};
use crate::Verdict;
use crate::args::GapsArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::Wanted;
use crate::out::{Out, Style};
use crate::source::Source;
use crate::table::{Cell, Table};
use plimsoll_api as api;
use plimsoll_api::describe;
use plimsoll_api::types::Context;
use plimsoll_ask::Records as _;
use plimsoll_model::{Gap, GapScope, Record, RecordKind};

/// Gaps that follow each other and differ in their times and counts only.
struct Row {
    gap: Gap,
    whose: String,
    gaps: u64,
}

impl Row {
    fn is_like(&self, gap: &Gap, whose: &str) -> bool {
        self.gap.stage == gap.stage && self.gap.reason == gap.reason && self.whose == whose
    }

    fn take_in(&mut self, gap: &Gap) {
        self.gaps += 1;
        self.gap.from = self.gap.from.min(gap.from);
        self.gap.to = self.gap.to.max(gap.to);
        self.gap.count = self.gap.count.zip(gap.count).map(|(a, b)| a + b);
    }

    fn cells(&self) -> [Cell; 6] {
        let gap = &self.gap;
        let why = match self.gaps {
            1 => gap.reason.clone(),
            n => format!("{} ({n} gaps)", gap.reason),
        };
        [
            describe::when(gap.from.wall).into(),
            describe::when(gap.to.wall).into(),
            Cell::styled(gap.stage.as_str(), Style::Warn),
            self.whose.as_str().into(),
            gap.count
                .map_or("unknown".to_owned(), |n| n.to_string())
                .into(),
            why.into(),
        ]
    }
}

pub(crate) fn gaps(global: &Global, args: &GapsArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let containers = journal.containers()?;
    let select = resolve(&args.select, &containers, out)?;
    let node = journal.origin().to_string();
    let mut rows: Vec<Row> = Vec::new();
    // by its interval, not by the time of its record; and the node's own gaps concern everybody
    let wanted = Wanted {
        kinds: vec![RecordKind::Gap],
        ..Wanted::default()
    };
    let read = select.latest(
        &journal,
        wanted,
        |id, record| match record {
            Record::Gap(gap) if touches(&gap, &select) => Some((id, gap)),
            _ => None,
        },
        |(id, gap)| {
            let instance = match &gap.scope {
                GapScope::Node => None,
                GapScope::Container(instance) => Some(instance),
            };
            let container = instance.and_then(|i| containers.get(i));
            if out.json {
                return out.object(&api::Gap::new(
                    &gap,
                    Context {
                        node: &node,
                        container,
                        record: Some(&id),
                    },
                ));
            }
            let whose = match (container, instance) {
                (Some(c), _) => c.display_name().to_owned(),
                (None, Some(i)) => i.id.short().to_owned(),
                (None, None) => "node".to_owned(),
            };
            match rows.last_mut() {
                Some(row) if row.is_like(&gap, &whose) => row.take_in(&gap),
                _ => rows.push(Row {
                    gap,
                    whose,
                    gaps: 1,
                }),
            }
            Ok(())
        },
    )?;
    if !rows.is_empty() {
        let mut table = Table::new(&["FROM", "TO", "STAGE", "WHOSE", "COUNT", "WHY"]);
        for row in rows {
            table.row(row.cells());
        }
        table.print(out)?;
    }
    if read.shown > 0 {
        select.afterword(&read, "gap is", &journal)?;
    } else {
        let span = journal
            .span()
            .map(|s| {
                format!(
                    " since {}",
                    describe::when(select.from.map_or(s.first, |f| f.max(s.first)))
                )
            })
            .unwrap_or_default();
        crate::out::remark(&format!("No gap is recorded{span}."));
    }
    Ok(Verdict::Fine)
}
