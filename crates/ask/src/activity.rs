//! Q2, what each process did.
//!
//! A container that runs the same program again and again has one sentence for all of these
//! processes; one that raised an alert has always a sentence of its own. Of the acts of a process the
//! telling ones are named first; system calls are only listed.

use crate::acts;
use crate::completeness::Look;
use crate::interval::between;
use crate::records::Filter;
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::tree::{chain, started_at};
use crate::{About, AskError};
use plimsoll_api::describe::{self, when};
use plimsoll_model::{
    AlertId, AlertSource, Ancestor, BootNs, Entry, EventKind, FileOp, Line, Observation,
    ProcessKey, Record, RecordId, RecordKind, Stamp, Text,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Processes that one answer keeps apart while it reads.
const PROCESSES_MAX: usize = 5_000;
/// Processes, or sets of like ones, that one answer describes.
const PROCESSES_SHOWN: usize = 80;
/// Different acts kept of one process, or of like ones.
const ACTS_MAX: usize = 200;
/// Acts listed for one process.
const ACTS_SHOWN: usize = 12;
/// System calls listed for one process.
const CALLS_SHOWN: usize = 6;
/// Records that alerts stand on and that are read however many others there are.
const RAISED_MAX: usize = 500;
/// Records whose alert is remembered.
const ALERTED_MAX: usize = 10_000;

/// What one process did in the interval, or what several like ones did.
struct Acts {
    key: ProcessKey,
    lineage: Line,
    cut: bool,
    first: Stamp,
    last: Stamp,
    acts: Vec<Act>,
    more: u64,
    calls: BTreeSet<String>,
    end: Option<(String, Stamp)>,
    alert: Option<AlertId>,
    evidence: Vec<RecordId>,
    /// How many processes these are.
    like: u64,
    /// All of them have the same parent.
    one_parent: bool,
}

/// What processes have in common that are told in one sentence.
#[derive(PartialEq, Eq, Hash)]
struct Likeness {
    /// From the process itself up to the entry point.
    programs: Vec<String>,
    argv: Vec<Text>,
    user: Option<(u32, Entry)>,
    cut: bool,
    end: Option<String>,
}

/// Something that was done, and how often.
struct Act {
    at: BootNs,
    telling: u8,
    text: String,
    times: u64,
}

/// Q2.
pub(crate) fn activity(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    act(about, say);
    let (processes, dropped) = processes(about, say)?;
    let own = about
        .case
        .alert
        .as_ref()
        .and_then(|a| a.drift())
        .and_then(|d| d.lineage.first())
        .map(|a| a.key);
    let mut groups = like_together(processes, own);
    // what does not find a place are sets of processes that raised nothing, the latest of them
    groups.sort_by_key(|acts| {
        let raised = acts.alert.is_some() || Some(acts.key) == own;
        (!raised, acts.first.boot, acts.key.tgid)
    });
    let rest = groups.split_off(groups.len().min(PROCESSES_SHOWN));
    // the alert's process first, then in the order in which they were first seen
    groups.sort_by_key(|acts| (Some(acts.key) != own, acts.first.boot, acts.key.tgid));
    for acts in &groups {
        say.observed(sentence(acts, Some(acts.key) == own), &acts.evidence);
    }
    let rest = rest.iter().map(|acts| acts.like).sum::<u64>() + dropped;
    if rest > 0 {
        say.observed(format!("{} more did something in the interval: narrow it with --around, or see `plimsoll events`.", count(rest, "process")), []);
    }
    if crate::minutes::recorded(about, say)? {
        return Ok(());
    }
    if groups.is_empty() {
        say.unknown(format!("No process activity is recorded {}. Known behaviour is counted in the kernel and not kept act by act, so that is not proof that nothing ran.", about.interval.text()));
    } else {
        known_activity(about, say)?;
    }
    Ok(())
}

/// The alert's own act.
fn act(about: &About<'_>, say: &mut Sentences) {
    let Some(case) = &about.case.alert else {
        return;
    };
    let a = &case.alert;
    let repeats = if a.count > 1 {
        format!(
            " It stands for {} such acts, the last at {}.",
            a.count,
            when(a.last.wall)
        )
    } else {
        String::new()
    };
    say.observed(
        format!(
            "The alert, {} at {}: {}{repeats}",
            a.priority.as_str(),
            when(a.at.wall),
            end_sentence(&a.output.to_string())
        ),
        case.all_evidence(),
    );
}

fn end_sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn processes(about: &About<'_>, say: &mut Sentences) -> Result<(Vec<Acts>, u64), AskError> {
    let alerted = alerted(about, say)?;
    let mut found: HashMap<ProcessKey, Acts> = HashMap::new();
    let mut dropped = BTreeSet::new();
    // what raised alerts is told first: of so many processes there is room for the earliest
    let raised: Vec<RecordId> = alerted.keys().take(RAISED_MAX).cloned().collect();
    let look = Look {
        too: &raised,
        ..Look::at(about)
    };
    about.observations_at(acts::Acts::ALL, &look, say.tally(), |id, o| {
        let key = o.event.process.key;
        if found.len() >= PROCESSES_MAX && !found.contains_key(&key) {
            if dropped.len() < 1_000_000 {
                dropped.insert(key);
            }
            return;
        }
        let acts = found.entry(key).or_insert_with(|| Acts::new(&o));
        if let Some(alert) = alerted.get(&id) {
            acts.alert.get_or_insert_with(|| alert.clone());
        }
        acts.add(about, id, &o);
    })?;
    Ok((found.into_values().collect(), dropped.len() as u64))
}

/// Records of the container that alerts stand on, each with the first such alert.
fn alerted(
    about: &About<'_>,
    say: &mut Sentences,
) -> Result<BTreeMap<RecordId, AlertId>, AskError> {
    let mut alerted = BTreeMap::new();
    let Some(instance) = &about.case.instance else {
        return Ok(alerted);
    };
    let filter = Filter::of(&[RecordKind::Alert]).about(instance);
    about.visit(&filter, say.tally(), &mut |_, _, record| {
        let Record::Alert(a) = record else { return };
        let shown = match &a.source {
            AlertSource::Drift(d) => d.observation.clone(),
            AlertSource::Rule(_) => None,
        };
        for id in shown.into_iter().chain(a.evidence) {
            if alerted.len() < ALERTED_MAX {
                alerted.entry(id).or_insert_with(|| a.id.clone());
            }
        }
    })?;
    Ok(alerted)
}

impl Acts {
    fn new(o: &Observation) -> Self {
        Self {
            key: o.event.process.key,
            lineage: o.lineage.clone(),
            cut: o.lineage_cut,
            first: o.at,
            last: o.at,
            acts: Vec::new(),
            more: 0,
            calls: BTreeSet::new(),
            end: None,
            alert: None,
            evidence: Vec::new(),
            like: 1,
            one_parent: true,
        }
    }

    fn add(&mut self, about: &About<'_>, id: RecordId, o: &Observation) {
        if o.at.boot < self.first.boot {
            self.first = o.at;
        }
        if o.at.boot >= self.last.boot {
            self.last = o.at;
            // the process may have become another program since
            if !o.lineage.is_empty() {
                self.lineage.clone_from(&o.lineage);
            }
        }
        match &o.event.kind {
            EventKind::Exit { .. } => self.end = Some((about.action(&o.event.kind), o.at)),
            EventKind::Fork { .. } => return,
            EventKind::Syscall { .. } => {
                let call = about.action(&o.event.kind);
                self.calls
                    .insert(call.trim_start_matches("used system call ").to_owned());
            }
            kind => self.note(Act {
                at: o.at.boot,
                telling: telling(kind),
                text: about.action(kind),
                times: o.count.max(1),
            }),
        }
        self.show(id);
    }

    fn note(&mut self, act: Act) {
        let same = self.acts.iter().position(|a| a.text == act.text);
        match same {
            Some(n) => {
                let same = &mut self.acts[n];
                same.at = same.at.min(act.at);
                same.times += act.times;
            }
            None if self.acts.len() < ACTS_MAX => self.acts.push(act),
            None => self.more += 1,
        }
    }

    fn show(&mut self, id: RecordId) {
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(id);
        }
    }

    /// What they must have in common with others to be told in one sentence.
    fn likeness(&self) -> Likeness {
        let own = self.lineage.first();
        Likeness {
            programs: self.lineage.iter().map(describe::name).collect(),
            argv: own.map(|a| a.argv.clone()).unwrap_or_default(),
            user: own.map(|a| (a.uid, a.entry)),
            cut: self.cut,
            end: self.end.as_ref().map(|(how, _)| how.clone()),
        }
    }

    fn take_in(&mut self, other: Acts) {
        let parent = |acts: &Acts| {
            let own = acts.key;
            acts.lineage.iter().find(|a| a.key != own).map(|a| a.key)
        };
        self.one_parent &= parent(self) == parent(&other);
        self.like += other.like;
        self.last = self.last.max(other.last);
        self.more += other.more;
        self.calls.extend(other.calls);
        other.acts.into_iter().for_each(|act| self.note(act));
        other.evidence.into_iter().for_each(|id| self.show(id));
    }
}

/// How much an act tells of what a process is up to; 0 most.
fn telling(kind: &EventKind) -> u8 {
    match kind {
        EventKind::Exec(_) => 0,
        EventKind::File(f) if f.op == FileOp::Read || f.op == FileOp::List => 2,
        EventKind::Library { .. } => 3,
        _ => 1,
    }
}

/// Processes in the order of their start, those that did alike in one.
fn like_together(mut processes: Vec<Acts>, own: Option<ProcessKey>) -> Vec<Acts> {
    processes.sort_by_key(|acts| (acts.first.boot, acts.key.tgid));
    let mut groups: Vec<Acts> = Vec::new();
    let mut places = HashMap::new();
    for acts in processes {
        if acts.alert.is_some() || Some(acts.key) == own {
            groups.push(acts);
            continue;
        }
        match places.entry(acts.likeness()) {
            std::collections::hash_map::Entry::Occupied(place) => {
                let group: &mut Acts = &mut groups[*place.get()];
                group.take_in(acts);
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(groups.len());
                groups.push(acts);
            }
        }
    }
    groups
}

fn sentence(acts: &Acts, own: bool) -> String {
    let first = acts.lineage.first();
    let entry = first.map_or("", |a| entry_words(a.entry));
    let uid = first
        .map(|a| format!(", uid {}", a.uid))
        .unwrap_or_default();
    let mark = match &acts.alert {
        _ if own => " [the alert's process]".to_owned(),
        Some(alert) => format!(" [raised {alert}]"),
        None => String::new(),
    };
    let cut = if acts.cut {
        " (older ancestors are not known)"
    } else {
        ""
    };
    let did = did(acts);
    if acts.like > 1 {
        return format!(
            "{}{cut}{entry}{uid}, {} {}: {did}.",
            kin(acts),
            times(acts.like),
            between(acts.first.wall, acts.last.wall)
        );
    }
    let started = started_at(acts.key, acts.first)
        .map(|at| format!(", started {}", when(at)))
        .unwrap_or_default();
    format!(
        "{}{mark}{cut}{entry}{uid}{started}: {did}.",
        chain(&acts.lineage, acts.key)
    )
}

/// `tini[1] › nginx[12] › sh`: what like processes have in common.
fn kin(acts: &Acts) -> String {
    let own = acts
        .lineage
        .first()
        .map_or_else(|| format!("process {}", acts.key.tgid), describe::name);
    let above: Vec<Ancestor> = acts
        .lineage
        .iter()
        .filter(|a| a.key != acts.key)
        .cloned()
        .collect();
    match above.first() {
        Some(parent) if acts.one_parent => format!("{} › {own}", chain(&above, parent.key)),
        Some(_) => {
            let names: Vec<String> = above.iter().rev().map(describe::name).collect();
            format!("{} › {own}", names.join(" › "))
        }
        None => own,
    }
}

fn did(acts: &Acts) -> String {
    let mut shown: Vec<&Act> = acts.acts.iter().collect();
    shown.sort_by_key(|a| (a.telling, a.at));
    let more = acts.more + shown.len().saturating_sub(ACTS_SHOWN) as u64;
    shown.truncate(ACTS_SHOWN);
    shown.sort_by_key(|a| a.at);
    let text = |a: &&Act| match a.times {
        // each of them did it, as far as it was seen at all
        n if n > 1 && acts.like == 1 => format!("{} ({n} times)", a.text),
        _ => a.text.clone(),
    };
    let mut did: Vec<String> = shown.iter().map(text).collect();
    if more > 0 {
        did.push(format!("{more} more"));
    }
    if !acts.calls.is_empty() {
        did.push(calls(&acts.calls));
    }
    match &acts.end {
        Some((how, _)) if acts.like > 1 => did.push(how.clone()),
        Some((how, at)) => did.push(format!("{how} at {}", when(at.wall))),
        None => {}
    }
    if did.is_empty() {
        return "only started other processes".to_owned();
    }
    did.join("; ")
}

fn calls(calls: &BTreeSet<String>) -> String {
    if let (1, Some(only)) = (calls.len(), calls.first()) {
        return format!("used system call {only}");
    }
    let shown: Vec<&str> = calls.iter().take(CALLS_SHOWN).map(String::as_str).collect();
    let more = if calls.len() > CALLS_SHOWN {
        ", …"
    } else {
        ""
    };
    format!(
        "used {} system calls ({}{more})",
        calls.len(),
        shown.join(", ")
    )
}

fn entry_words(entry: Entry) -> &'static str {
    match entry {
        Entry::Init => "",
        Entry::ExecSession => ", in a session entered with exec",
        Entry::Host => ", come in from the host",
        Entry::FoundRunning => ", found running when the agent started",
    }
}

/// What was only counted, because the baseline knows it.
fn known_activity(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let Some(instance) = &about.case.instance else {
        return Ok(());
    };
    let (mut acts, mut kinds, mut evidence) = (0, BTreeSet::new(), Vec::new());
    let filter = Filter::of(&[RecordKind::Presence]).about(instance);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        if let Record::Presence(p) = record
            && p.instance == *instance
            && about.interval.touches(p.from.wall, p.to.wall)
        {
            acts += p.counts.iter().map(|(_, n)| n).sum::<u64>();
            if kinds.len() < 100_000 {
                kinds.extend(p.counts.iter().map(|(id, _)| *id));
            }
            evidence.push(id);
        }
    })?;
    if acts > 0 {
        say.observed(
            format!("Besides, it did what its baseline knows: {} at least {} in the time slots that touch the interval. Those acts are counted, not kept one by one.", count(kinds.len() as u64, "behaviour"), times(acts)),
            &evidence,
        );
    }
    Ok(())
}
