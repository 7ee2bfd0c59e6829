//! Q2, the minutes around: what the recorder kept of known behaviour, one sentence a process.
//!
//! A use that was both recorded by the second and streamed use by use is counted once. System calls
//! are counted, not listed: `events --full` has every use with its time.

use crate::interval::between;
use crate::records::Filter;
use crate::say::{Sentences, count, times};
use crate::{About, AskError};
use plimsoll_api::describe::{path, when};
use plimsoll_model::{
    Behaviour, BehaviourKind, Record, RecordId, RecordKind, Recorded, Recording, WallNs,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Processes that are described.
const PROCESSES_SHOWN: usize = 30;
/// Behaviours listed for one process.
const ACTS_SHOWN: usize = 8;
/// Behaviours that one answer keeps apart; beyond, they are only counted.
const KEPT: usize = 50_000;
/// A recording is written this long after what it holds at most, nanoseconds.
pub const LATE_NS: u64 = 10_000_000_000;

/// What a process did, and how often.
#[derive(Default)]
struct Acts {
    done: HashMap<(String, String), Tally>,
    calls: HashSet<String>,
    /// Uses of which no more than their kind is known.
    nameless: u64,
    program: Option<String>,
    first: Option<WallNs>,
    last: Option<WallNs>,
}

/// How often, and when first.
#[derive(Clone, Copy)]
struct Tally {
    count: u64,
    first: WallNs,
    reads: bool,
}

#[derive(Default)]
struct Minutes {
    by_process: BTreeMap<u32, Acts>,
    kept: usize,
    more: u64,
    lost: u64,
    overwritten: u64,
    spans: Vec<(WallNs, WallNs)>,
    /// Spans in which each use is listed by itself.
    streamed: Vec<(WallNs, WallNs)>,
    evidence: Vec<RecordId>,
}

/// When a use of a recording was, on the wall clock.
pub fn wall_of(recording: &Recording, after_ms: u32) -> WallNs {
    let from = recording.from.wall.0;
    WallNs(from.saturating_add_unsigned(u64::from(after_ms) * 1_000_000))
}

/// `false`: nothing was recorded of the interval.
pub(crate) fn recorded(about: &About<'_>, say: &mut Sentences) -> Result<bool, AskError> {
    let Some(instance) = &about.case.instance else {
        return Ok(false);
    };
    let interval = &about.interval;
    let late = WallNs(interval.to.0.saturating_add_unsigned(LATE_NS));
    let filter = Filter::of(&[RecordKind::Recording])
        .about(instance)
        .between(interval.from, late);
    let mut minutes = Minutes::default();
    // counted when they are read for what they say
    about.visit(
        &filter,
        &mut crate::tally::Tally::default(),
        &mut |_, _, record| {
            if let Record::Recording(r) = record
                && r.instance == *instance
                && r.full
            {
                minutes.streamed.push((r.from.wall, r.to.wall));
            }
        },
    )?;
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        if let Record::Recording(r) = record
            && r.instance == *instance
            && interval.touches(r.from.wall, r.to.wall)
        {
            minutes.add(&r, id, interval.from, interval.to);
        }
    })?;
    if minutes.evidence.is_empty() {
        return Ok(false);
    }
    minutes.tell(say);
    Ok(true)
}

impl Minutes {
    fn add(&mut self, r: &Recording, id: RecordId, from: WallNs, to: WallNs) {
        self.evidence.push(id);
        self.spans.push((r.from.wall, r.to.wall));
        self.lost += r.lost;
        self.overwritten += r.overwritten;
        let Self {
            by_process,
            kept,
            more,
            streamed,
            ..
        } = self;
        for used in &r.uses {
            let at = wall_of(r, used.after_ms);
            let Some(what) = r.behaviours.get(used.what as usize) else {
                continue;
            };
            let twice = !r.full && streamed.iter().any(|(from, to)| at >= *from && at <= *to);
            if at < from || at > to || twice {
                continue;
            }
            let count = u64::from(used.count);
            if !by_process.contains_key(&used.tgid) && *kept >= KEPT {
                *more += count;
                continue;
            }
            let process = by_process.entry(used.tgid).or_default();
            match process.add(what, count, at, *kept < KEPT) {
                Added::Known => {}
                Added::New => *kept += 1,
                Added::NoRoom => *more += count,
            }
        }
    }

    fn tell(mut self, say: &mut Sentences) {
        let span = join(&mut self.spans);
        let covered: Vec<String> = span
            .iter()
            .map(|(from, to)| format!("{} to {}", when(*from), when(*to)))
            .collect();
        let mut cuts = String::new();
        if self.overwritten > 0 {
            cuts += &format!(
                " {} before that were written over before the alert came.",
                count(self.overwritten, "earlier use")
            );
        }
        if self.lost > 0 {
            cuts += &format!(" {} within it were not kept.", count(self.lost, "use"));
        }
        say.observed(
            format!("The recorder covers {}: known behaviour included, by process, each with how often it was done.{cuts}", covered.join(", and ")),
            &self.evidence,
        );
        let processes = self.by_process.len();
        for (pid, acts) in self.by_process.iter().take(PROCESSES_SHOWN) {
            say.observed(acts.sentence(*pid), &self.evidence);
        }
        let rest = processes.saturating_sub(PROCESSES_SHOWN) as u64;
        if rest > 0 || self.more > 0 {
            say.observed(
                format!(
                    "{} more: `plimsoll events --alert ID --full` lists every use.",
                    count(rest, "process")
                ),
                &self.evidence,
            );
        }
    }
}

/// What became of a use.
enum Added {
    /// It is one more of an act that is kept already.
    Known,
    /// Its act is one more.
    New,
    /// It would be one more than there is room for.
    NoRoom,
}

impl Acts {
    fn add(&mut self, what: &Recorded, count: u64, at: WallNs, room: bool) -> Added {
        self.first = Some(self.first.map_or(at, |f| f.min(at)));
        self.last = Some(self.last.map_or(at, |l| l.max(at)));
        let Some(b) = &what.behaviour else {
            self.nameless += count;
            return Added::Known;
        };
        if self.program.is_none() {
            self.program = Some(program(b));
        }
        if b.kind == BehaviourKind::Syscall {
            let call = crate::baseline::object(b);
            return match (self.calls.contains(&call), room) {
                (true, _) => Added::Known,
                (false, false) => Added::NoRoom,
                (false, true) => {
                    self.calls.insert(call);
                    Added::New
                }
            };
        }
        match self.done.get_mut(&(program(b), act(b))) {
            Some(tally) => {
                tally.count += count;
                tally.first = tally.first.min(at);
                Added::Known
            }
            None if room => {
                let reads = matches!(b.kind, BehaviourKind::Library)
                    || b.kind == BehaviourKind::File
                        && matches!(b.operation.to_string().as_str(), "read" | "list");
                let tally = Tally {
                    count,
                    first: at,
                    reads,
                };
                self.done.insert((program(b), act(b)), tally);
                Added::New
            }
            None => Added::NoRoom,
        }
    }

    /// The telling acts first, each group in the order in which it began.
    fn sentence(&self, pid: u32) -> String {
        let mut acts: Vec<_> = self.done.iter().collect();
        acts.sort_by(|a, b| (a.1.reads, a.1.first, a.0).cmp(&(b.1.reads, b.1.first, b.0)));
        let mut shown: Vec<String> = acts
            .iter()
            .take(ACTS_SHOWN)
            .map(|((_, act), tally)| match tally.count {
                1 => act.clone(),
                n => format!("{act} ({})", times(n)),
            })
            .collect();
        if acts.len() > ACTS_SHOWN {
            shown.push(format!("{} more", acts.len() - ACTS_SHOWN));
        }
        if !self.calls.is_empty() {
            let calls = self.calls.len() as u64;
            shown.push(format!("used {}", count(calls, "system call")));
        }
        if self.nameless > 0 {
            let uses = count(self.nameless, "use");
            shown.push(format!("{uses} of which only the kind is known"));
        }
        let mut later = acts.iter().map(|((p, _), _)| p.as_str());
        // the program that it came to run, not the one that it was forked from
        let program = later.next_back().or(self.program.as_deref());
        let program = program.unwrap_or("a process");
        let span = match (self.first, self.last) {
            (Some(first), Some(last)) => between(first, last),
            _ => String::new(),
        };
        format!("{program}[{pid}] {span}: {}.", shown.join("; "))
    }
}

fn program(b: &Behaviour) -> String {
    if b.script.is_empty() {
        path(&b.program)
    } else {
        format!("{} ({})", path(&b.program), path(&b.script))
    }
}

/// What was done, without by whom.
pub fn act(b: &Behaviour) -> String {
    format!("{} {}", b.operation, crate::baseline::object(b))
}

/// Spans that touch are one.
fn join(spans: &mut [(WallNs, WallNs)]) -> Vec<(WallNs, WallNs)> {
    spans.sort();
    let mut out: Vec<(WallNs, WallNs)> = Vec::new();
    for (from, to) in spans.iter().copied() {
        match out.last_mut() {
            // a stream begins where the reading ended, to the reader's period
            Some(last) if from.0 <= last.1.0 + 1_500_000_000 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}
