//! Q17: when access started and ended, and whether it is still active.
//!
//! Access is what hangs together with the drifts and alerts of the container: the processes that
//! they name, what was started below those, and the way in before the first of them.

use crate::acts::Acts;
use crate::completeness::Look;
use crate::opinions::Opinion;
use crate::records::{Body, Filter};
use crate::say::{EVIDENCE_MAX, Sentences, count};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{span, when};
use plimsoll_model::response::{StepPhase, StepRecord};
use plimsoll_model::{
    Entry, EventKind, Line, Observation, ProcessKey, Record, RecordId, RecordKind, Risk, Stamp,
    StepClass, WallNs,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Processes that are followed.
const FOLLOWED_MAX: usize = 5_000;
/// Records behind the signs that are read, the earliest of them; of the others the process is known.
const SIGNS_READ_MAX: usize = 500;
/// Processes named in a sentence.
const NAMED: usize = 8;
/// An accepted connection this shortly before the first sign is the likely way in.
const REQUEST_NS: u64 = 10_000_000_000;

/// What belongs to the access.
#[derive(Default)]
struct Followed {
    suspects: HashSet<ProcessKey>,
    /// By process: who it is, its last act, and whether its end was seen.
    processes: BTreeMap<ProcessKey, Seen>,
    last: Option<(Stamp, RecordId, String)>,
    /// Accepted by a process above the suspects, and whether from the loopback.
    accepted: Option<(Stamp, RecordId, String)>,
    passed_on: bool,
    /// Accepted from outside by another process of the container.
    near: Option<(Stamp, RecordId, String)>,
    session: Option<(Stamp, RecordId, String)>,
    /// A suspect is the container's first process: everything descends from it.
    whole: bool,
    dropped: u64,
}

struct Seen {
    who: String,
    last: RecordId,
    ended: Option<(Stamp, RecordId)>,
}

/// Q17.
pub(crate) fn access(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let opinions = about.opinions(say)?;
    let telling: Vec<&Opinion> = opinions.iter().filter(|o| is_sign(o)).collect();
    let Some(first) = telling.iter().min_by_key(|o| o.first.boot) else {
        say.unknown(format!("No alert and no drift of medium or higher risk is recorded {}, so there is no access to date. That is not proof that there was none.", about.interval.text()));
        return Ok(());
    };
    let lineages = lineages(about, &telling)?;
    let mut followed = follow(about, &telling, &lineages, first.first, say)?;
    say_start(about, first, &followed, &lineages, say);
    say_last(&telling, &followed, say);
    let contained = contained(about, say)?;
    say_end(about, &mut followed, &contained, say);
    say.unknown("When connections were closed is not known: only their beginnings are recorded.");
    Ok(())
}

/// Rules, and drifts that are more than ordinary change.
fn is_sign(o: &Opinion) -> bool {
    o.class.is_none() || o.risk.is_some_and(|r| r >= Risk::Medium)
}

/// The lineage behind each sign, from its observation.
fn lineages(about: &About<'_>, signs: &[&Opinion]) -> Result<HashMap<ProcessKey, Line>, AskError> {
    let mut found = HashMap::new();
    let all = signs.iter().flat_map(|o| &o.evidence);
    for id in all.take(SIGNS_READ_MAX) {
        let Some(seen) = about.records.get(id)? else {
            continue;
        };
        match seen.body {
            Body::Record(Record::Observation(o)) => {
                found.insert(o.event.process.key, o.lineage);
            }
            Body::Record(Record::Drift(d)) => {
                if let Some(acting) = d.lineage.first() {
                    found.entry(acting.key).or_insert(d.lineage);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn follow(
    about: &About<'_>,
    signs: &[&Opinion],
    lineages: &HashMap<ProcessKey, Line>,
    first: Stamp,
    say: &mut Sentences,
) -> Result<Followed, AskError> {
    let mut f = Followed {
        suspects: lineages.keys().copied().collect(),
        ..Followed::default()
    };
    f.suspects.extend(signs.iter().filter_map(|o| o.process));
    let above: HashSet<ProcessKey> = lineages.values().flatten().map(|a| a.key).collect();
    let shown = signs.iter().flat_map(|o| &o.evidence);
    let shown: Vec<RecordId> = shown.take(SIGNS_READ_MAX).cloned().collect();
    let look = Look {
        // the way in is shortly before the first sign
        around: shown.first(),
        too: &shown,
    };
    about.workload_at(Acts::ALL, &look, say, |id, o| {
        f.add(about, id, &o, &above, first);
    })?;
    Ok(f)
}

impl Followed {
    fn add(
        &mut self,
        about: &About<'_>,
        id: RecordId,
        o: &Observation,
        above: &HashSet<ProcessKey>,
        first: Stamp,
    ) {
        let key = o.event.process.key;
        let said = |o: &Observation| {
            let who = chain(&o.lineage, o.event.process.key);
            (
                o.at,
                id.clone(),
                format!("{who} {}", about.action(&o.event.kind)),
            )
        };
        let before = o.at.boot <= first.boot;
        let near = first.boot.0.saturating_sub(o.at.boot.0) <= REQUEST_NS;
        if let EventKind::Accept(c) = &o.event.kind
            && before
            && near
        {
            match (above.contains(&key), c.peer.is_loopback()) {
                (true, loopback) => {
                    self.accepted = Some(said(o));
                    self.passed_on = loopback;
                }
                (false, false) => self.near = Some(said(o)),
                (false, true) => {}
            }
        }
        if let EventKind::Exec(e) = &o.event.kind {
            self.whole |= e.first && self.suspects.contains(&key);
            let session = matches!(o.event.process.entry, Entry::ExecSession | Entry::Host);
            if session && !e.found && before && above.contains(&key) && self.session.is_none() {
                self.session = Some(said(o));
            }
        }
        let belongs = self.suspects.contains(&key)
            || o.lineage.iter().any(|a| self.suspects.contains(&a.key));
        if !belongs {
            return;
        }
        if self.processes.len() >= FOLLOWED_MAX && !self.processes.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let ended = matches!(o.event.kind, EventKind::Exit { .. });
        let seen = self.processes.entry(key).or_insert_with(|| Seen {
            who: chain(&o.lineage, key),
            last: id.clone(),
            ended: None,
        });
        seen.last = id.clone();
        if ended {
            seen.ended = Some((o.at, id));
        } else if self
            .last
            .as_ref()
            .is_none_or(|(at, ..)| at.boot <= o.at.boot)
        {
            self.last = Some(said(o));
        }
    }
}

fn say_start(
    about: &About<'_>,
    first: &Opinion,
    followed: &Followed,
    lineages: &HashMap<ProcessKey, Line>,
    say: &mut Sentences,
) {
    let ago = |at: Stamp| span(first.first.boot.0.saturating_sub(at.boot.0));
    say.observed(
        format!(
            "First sign: {}, at {}.",
            first.text.trim_end_matches('.'),
            when(first.first.wall)
        ),
        &first.evidence,
    );
    let passed_on = followed.accepted.is_none() || followed.passed_on;
    if let (None, true, Some((at, id, text))) = (&followed.session, passed_on, &followed.near) {
        say.inferred(
            format!(
                "Start: by its time the likely way in is the connection {} before: {text} at {}. Another process of the container took it and may have passed it on; connections that the baseline knows are only counted, so it may be another.",
                ago(*at),
                when(at.wall)
            ),
            [id],
        );
        return found_running(about, say);
    }
    match (&followed.session, &followed.accepted) {
        (Some((at, id, text)), _) => say.observed(
            format!(
                "Start: somebody entered the container {} before: {text} at {}.",
                ago(*at),
                when(at.wall)
            ),
            [id],
        ),
        (None, Some((at, id, text))) => say.inferred(
            format!(
                "Start: by its time the likely way in is the connection {} before: {text} at {}.",
                ago(*at),
                when(at.wall)
            ),
            [id],
        ),
        (None, None) => {
            let entered = lineages
                .values()
                .flatten()
                .any(|a| matches!(a.entry, Entry::ExecSession | Entry::Host));
            let how = if entered {
                "it came through a session from outside whose own start is not recorded"
            } else {
                "no entry and no accepted connection shortly before is recorded"
            };
            say.unknown(format!(
                "Start: at the latest with the first sign; how long before is not known, for {how}."
            ));
        }
    }
    found_running(about, say);
}

fn found_running(about: &About<'_>, say: &mut Sentences) {
    if about.container().is_some_and(|c| c.found_running) {
        say.unknown(
            "The container ran before the agent took it up: access may be older than anything recorded.",
        );
    }
}

fn say_last(signs: &[&Opinion], followed: &Followed, say: &mut Sentences) {
    if let Some(last) = signs.iter().max_by_key(|o| o.last.boot) {
        say.observed(
            format!(
                "Last sign: {}, at {}.",
                last.text.trim_end_matches('.'),
                when(last.last.wall)
            ),
            &last.evidence,
        );
    }
    if let Some((at, id, text)) = &followed.last {
        say.observed(
            format!(
                "Last act recorded of these processes: {text} at {}.",
                when(at.wall)
            ),
            [id],
        );
    }
    if followed.whole {
        say.inferred("One of these processes is the container's own first one, so what follows counts its ordinary work too.", []);
    }
}

/// Steps that contained or ended the container.
fn contained(
    about: &About<'_>,
    say: &mut Sentences,
) -> Result<Vec<(RecordId, StepRecord)>, AskError> {
    let Some(instance) = &about.case.instance else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    let filter = Filter::of(&[RecordKind::Step]).about(instance);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        if let Record::Step(step) = record
            && step.kind.class() >= StepClass::Contain
            && steps.len() < 100
        {
            steps.push((id, step));
        }
    })?;
    Ok(steps)
}

fn say_end(
    about: &About<'_>,
    followed: &mut Followed,
    contained: &[(RecordId, StepRecord)],
    say: &mut Sentences,
) {
    for (id, step) in contained {
        let (what, outcome) = match &step.phase {
            StepPhase::Ended(outcome) if outcome.is_done() => ("was contained", outcome),
            StepPhase::UndoEnded(outcome) if outcome.is_done() => ("was let go again", outcome),
            _ => continue,
        };
        say.observed(
            format!(
                "It {what} by step {} of {} at {}: {}.",
                step.kind.as_str(),
                step.plan,
                when(step.at.wall),
                outcome.words().trim_end_matches('.')
            ),
            [id],
        );
    }
    if let Some(gone) = about.case.gone {
        let known = about
            .case
            .instance
            .as_ref()
            .and_then(|i| about.directory.get(i));
        say.observed(
            format!(
                "End: not active in this container: it was gone at {}.",
                when(gone)
            ),
            known.into_iter().flat_map(|k| &k.evidence),
        );
        say.unknown(
            "Whether whoever it was goes on elsewhere this cannot tell: Q12 and Q13 look for that.",
        );
        return;
    }
    processes(about, followed, say);
}

/// Which of the processes ended.
fn processes(about: &About<'_>, followed: &Followed, say: &mut Sentences) {
    let (ended, open): (Vec<&Seen>, Vec<&Seen>) =
        followed.processes.values().partition(|p| p.ended.is_some());
    let until = about.records.span().map_or(WallNs(0), |s| s.last);
    if followed.processes.is_empty() {
        say.unknown("End: not known: no act of these processes is kept.");
        return;
    }
    // of acts that were not read some may be theirs, and some may be their ends
    let whole = say.tally().left.is_none();
    if open.is_empty() && followed.dropped == 0 && !whole {
        say.unknown(format!(
            "End: {} were found to belong to it and have ended; not all acts were read, so others may be active.",
            count(ended.len() as u64, "process")
        ));
        return;
    }
    if open.is_empty() && followed.dropped == 0 {
        let last = ended
            .iter()
            .filter_map(|p| p.ended.as_ref())
            .max_by_key(|(at, _)| at.boot);
        let at = last.map(|(at, _)| when(at.wall)).unwrap_or_default();
        say.inferred(
            format!("End: all {} that belong to it have ended, the last at {at}; nothing of it is recorded since, up to {}. A process whose start was lost would be missing here.", count(ended.len() as u64, "process"), when(until)),
            ended.iter().filter_map(|p| p.ended.as_ref()).map(|(_, id)| id).take(EVIDENCE_MAX),
        );
        return;
    }
    let names: Vec<String> = open.iter().take(NAMED).map(|p| p.who.clone()).collect();
    let more = if open.len() > NAMED { ", …" } else { "" };
    say.inferred(
        format!(
            "End: it may be active still: no end is {}, up to {}, of {} of {} that belong to it: {}{more}.",
            if whole { "recorded" } else { "among the acts that were read" },
            when(until),
            open.len() as u64 + followed.dropped,
            count(followed.processes.len() as u64 + followed.dropped, "process"),
            names.join("; ")
        ),
        open.iter().map(|p| &p.last),
    );
    if !ended.is_empty() {
        say.observed(
            format!("{} of them ended.", count(ended.len() as u64, "process")),
            ended
                .iter()
                .filter_map(|p| p.ended.as_ref())
                .map(|(_, id)| id),
        );
    }
}
