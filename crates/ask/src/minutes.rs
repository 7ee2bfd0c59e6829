//! Q2, the minutes around: what the recorder kept of known behaviour, by process and second.

use crate::records::Filter;
use crate::say::{Sentences, count, times};
use crate::{About, AskError};
use plimsoll_api::describe::{path, when};
use plimsoll_model::{Behaviour, Record, RecordId, RecordKind, Recording, WallNs};
use std::collections::{BTreeMap, HashMap};

/// Processes that are described.
const PROCESSES_SHOWN: usize = 30;
/// Behaviours listed for one process.
const ACTS_SHOWN: usize = 12;
/// Behaviours that one answer keeps apart; beyond, they are only counted.
const KEPT: usize = 50_000;
/// A recording is written this long after what it holds at most, nanoseconds.
pub const LATE_NS: u64 = 10_000_000_000;

/// How often, when first, when last.
#[derive(Clone, Copy)]
struct Tally {
    count: u64,
    first: WallNs,
    last: WallNs,
}

#[derive(Default)]
struct Minutes {
    by_process: BTreeMap<u32, HashMap<(String, String), Tally>>,
    kept: usize,
    more: u64,
    lost: u64,
    overwritten: u64,
    spans: Vec<(WallNs, WallNs)>,
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
        for used in &r.uses {
            let at = wall_of(r, used.after_ms);
            let Some(what) = r.behaviours.get(used.what as usize) else {
                continue;
            };
            if at < from || at > to {
                continue;
            }
            let words = match &what.behaviour {
                Some(b) => (program(b), act(b)),
                None => (
                    String::new(),
                    format!("{} (which one is not known any more)", what.kind.as_str()),
                ),
            };
            let process = self.by_process.entry(used.tgid).or_default();
            let n = u64::from(used.count);
            match process.get_mut(&words) {
                Some(tally) => {
                    tally.count += n;
                    tally.first = tally.first.min(at);
                    tally.last = tally.last.max(at);
                }
                None if self.kept < KEPT => {
                    self.kept += 1;
                    let tally = Tally {
                        count: n,
                        first: at,
                        last: at,
                    };
                    process.insert(words, tally);
                }
                None => self.more += n,
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
            say.observed(sentence(*pid, acts), &self.evidence);
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

fn sentence(pid: u32, acts: &HashMap<(String, String), Tally>) -> String {
    let mut acts: Vec<_> = acts.iter().collect();
    acts.sort_by(|a, b| (a.1.first, a.0).cmp(&(b.1.first, b.0)));
    let shown = acts.iter().take(ACTS_SHOWN).map(|((_, act), tally)| {
        let last = if tally.last > tally.first {
            format!(" until {}", when(tally.last))
        } else {
            String::new()
        };
        let often = if tally.count > 1 {
            format!(", {}", times(tally.count))
        } else {
            String::new()
        };
        format!("{act} ({}{last}{often})", when(tally.first))
    });
    let mut shown: Vec<String> = shown.collect();
    if acts.len() > ACTS_SHOWN {
        shown.push(format!("{} more", acts.len() - ACTS_SHOWN));
    }
    let program = acts.iter().map(|((p, _), _)| p).find(|p| !p.is_empty());
    let program = program.map_or_else(|| "a process".to_owned(), Clone::clone);
    format!("{program}[{pid}]: {}.", shown.join("; "))
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
