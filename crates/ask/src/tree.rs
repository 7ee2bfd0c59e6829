//! Q2, what each process did; Q6, how it all started.

use crate::records::Filter;
use crate::say::{Sentences, count};
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_model::{
    Ancestor, BootNs, Entry, EventKind, Observation, ProcessKey, Record, RecordId, RecordKind,
    Stamp, WallNs,
};
use std::collections::HashMap;

/// Processes that one answer keeps apart.
const PROCESSES_MAX: usize = 5_000;
/// Processes that one answer describes.
const PROCESSES_SHOWN: usize = 80;
/// Acts listed for one process.
const ACTS_SHOWN: usize = 12;

/// What one process did in the interval.
struct Acts {
    lineage: Vec<Ancestor>,
    cut: bool,
    first: Stamp,
    last: Stamp,
    acts: Vec<(BootNs, String)>,
    more: u64,
    end: Option<String>,
    evidence: Vec<RecordId>,
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
    let mut order: Vec<(&ProcessKey, &Acts)> = processes.iter().collect();
    // the alert's process first, then in the order in which they were first seen
    order.sort_by_key(|(key, acts)| (Some(**key) != own, acts.first.boot, key.tgid));
    for (key, acts) in order.iter().take(PROCESSES_SHOWN) {
        say.observed(sentence(key, acts, Some(**key) == own), &acts.evidence);
    }
    let rest = order.len().saturating_sub(PROCESSES_SHOWN) as u64 + dropped;
    if rest > 0 {
        say.observed(format!("{} more did something in the interval: narrow it with --around, or see `plimsoll events`.", count(rest, "process")), []);
    }
    let none = order.is_empty();
    if crate::minutes::recorded(about, say)? {
        return Ok(());
    }
    if none {
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

fn processes(
    about: &About<'_>,
    say: &mut Sentences,
) -> Result<(HashMap<ProcessKey, Acts>, u64), AskError> {
    let mut found: HashMap<ProcessKey, Acts> = HashMap::new();
    let mut dropped = 0;
    about.observations(say.tally(), |id, o| {
        let key = o.event.process.key;
        if found.len() >= PROCESSES_MAX && !found.contains_key(&key) {
            dropped += 1;
            return;
        }
        found
            .entry(key)
            .or_insert_with(|| Acts::new(&o))
            .add(about, id, &o);
    })?;
    Ok((found, dropped))
}

impl Acts {
    fn new(o: &Observation) -> Self {
        Self {
            lineage: o.lineage.clone(),
            cut: o.lineage_cut,
            first: o.at,
            last: o.at,
            acts: Vec::new(),
            more: 0,
            end: None,
            evidence: Vec::new(),
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
            EventKind::Exit { .. } => {
                self.end = Some(format!(
                    "{} at {}",
                    about.action(&o.event.kind),
                    when(o.at.wall)
                ))
            }
            EventKind::Fork { .. } => return,
            kind if self.acts.len() < ACTS_SHOWN => {
                let times = if o.count > 1 {
                    format!(" ({} times)", o.count)
                } else {
                    String::new()
                };
                self.acts.push((o.at.boot, about.action(kind) + &times));
            }
            _ => self.more += 1,
        }
        self.evidence.push(id);
    }
}

fn sentence(key: &ProcessKey, acts: &Acts, own: bool) -> String {
    let who = chain(&acts.lineage, *key);
    let entry = acts.lineage.first().map_or("", |a| entry_words(a.entry));
    let uid = acts
        .lineage
        .first()
        .map(|a| format!(", uid {}", a.uid))
        .unwrap_or_default();
    let started = started_at(*key, acts.first)
        .map(|at| format!(", started {}", when(at)))
        .unwrap_or_default();
    let mut acts_in_order: Vec<&(BootNs, String)> = acts.acts.iter().collect();
    acts_in_order.sort_by_key(|(boot, _)| *boot);
    let mut did: Vec<String> = acts_in_order
        .into_iter()
        .map(|(_, text)| text.clone())
        .collect();
    if acts.more > 0 {
        did.push(format!("{} more", acts.more));
    }
    did.extend(acts.end.clone());
    let did = if did.is_empty() {
        "only started other processes".to_owned()
    } else {
        did.join("; ")
    };
    let cut = if acts.cut {
        " (older ancestors are not known)"
    } else {
        ""
    };
    let mark = if own { " [the alert's process]" } else { "" };
    format!("{who}{mark}{cut}{entry}{uid}{started}: {did}.")
}

/// `tini[1] › nginx[12] › sh[45]`, from the entry point down.
pub(crate) fn chain(lineage: &[Ancestor], key: ProcessKey) -> String {
    if lineage.is_empty() {
        return format!("process {}", key.tgid);
    }
    let mut names: Vec<String> = Vec::new();
    for a in lineage.iter().rev() {
        let name = format!("{}[{}]", describe::name(a), a.key.tgid);
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names.join(" › ")
}

fn entry_words(entry: Entry) -> &'static str {
    match entry {
        Entry::Init => "",
        Entry::ExecSession => ", in a session entered with exec",
        Entry::Host => ", come in from the host",
        Entry::FoundRunning => ", found running when the agent started",
    }
}

/// The wall time of a process's start, by the stamp of something that it did.
fn started_at(key: ProcessKey, seen: Stamp) -> Option<WallNs> {
    let before = seen.boot.0.checked_sub(key.start.0)?;
    (key.start.0 > 0).then(|| WallNs(seen.wall.0.saturating_sub_unsigned(before)))
}

/// What was only counted, because the baseline knows it.
fn known_activity(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let Some(instance) = &about.case.instance else {
        return Ok(());
    };
    let (mut acts, mut kinds, mut evidence) = (0, std::collections::BTreeSet::new(), Vec::new());
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
            format!("Besides, it did what its baseline knows: {} at least {} in the time slots that touch the interval. Those acts are counted, not kept one by one.", count(kinds.len() as u64, "behaviour"), crate::say::times(acts)),
            &evidence,
        );
    }
    Ok(())
}

/// Q6.
pub(crate) fn lineage(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let Some(subject) = acting(about, say)? else {
        say.unknown(format!(
            "No process is recorded {}, so where it came from is not known.",
            about.interval.text()
        ));
        return Ok(());
    };
    say.observed(
        format!(
            "The act was done by {}.",
            chain(&subject.lineage, subject.key)
        ),
        &subject.evidence,
    );
    let execs = execs(about, &subject, say)?;
    for (n, a) in subject.lineage.iter().enumerate() {
        step(n, a, &execs, &subject, say);
    }
    entry_point(&subject, about, say);
    request(about, &subject, say)
}

/// The process whose lineage is asked for.
struct Acting {
    key: ProcessKey,
    lineage: Vec<Ancestor>,
    cut: bool,
    at: Stamp,
    evidence: Vec<RecordId>,
}

/// The alert's process; for a container, the last one that started in it.
fn acting(about: &About<'_>, say: &mut Sentences) -> Result<Option<Acting>, AskError> {
    if let Some(case) = &about.case.alert {
        let shown: Vec<RecordId> = case.all_evidence().cloned().collect();
        for id in &shown {
            if let Some(seen) = about.records.get(id)?
                && let crate::Body::Record(Record::Observation(o)) = seen.body
            {
                let evidence = shown.clone();
                return Ok(Some(Acting {
                    key: o.event.process.key,
                    lineage: o.lineage,
                    cut: o.lineage_cut,
                    at: o.at,
                    evidence,
                }));
            }
        }
        if let Some(d) = case.drift().filter(|d| !d.lineage.is_empty()) {
            // the observation is gone, the drift kept its lineage; whether it was whole is not kept
            let cut = d.lineage.len() >= 16;
            return Ok(Some(Acting {
                key: d.lineage[0].key,
                lineage: d.lineage.clone(),
                cut,
                at: d.first,
                evidence: shown,
            }));
        }
        return Ok(None);
    }
    let mut last: Option<Acting> = None;
    about.observations(say.tally(), |id, o| {
        if matches!(o.event.kind, EventKind::Exec(_))
            && last.as_ref().is_none_or(|l| o.at.boot >= l.at.boot)
        {
            last = Some(Acting {
                key: o.event.process.key,
                lineage: o.lineage,
                cut: o.lineage_cut,
                at: o.at,
                evidence: vec![id],
            });
        }
    })?;
    Ok(last)
}

/// The last exec before the act of every process in the lineage.
fn execs(
    about: &About<'_>,
    subject: &Acting,
    say: &mut Sentences,
) -> Result<HashMap<ProcessKey, (RecordId, Stamp, String)>, AskError> {
    let mut found: HashMap<ProcessKey, (RecordId, Stamp, String)> = HashMap::new();
    let Some(instance) = &about.case.instance else {
        return Ok(found);
    };
    let filter = Filter::of(&[RecordKind::Observation]).about(instance);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        if let Record::Observation(o) = record
            && let EventKind::Exec(_) = &o.event.kind
            && o.instance.as_ref() == Some(instance)
            && o.at.boot <= subject.at.boot
            && subject.lineage.iter().any(|a| a.key == o.event.process.key)
            && found
                .get(&o.event.process.key)
                .is_none_or(|(_, at, _)| at.boot <= o.at.boot)
        {
            found.insert(o.event.process.key, (id, o.at, about.action(&o.event.kind)));
        }
    })?;
    Ok(found)
}

fn step(
    n: usize,
    a: &Ancestor,
    execs: &HashMap<ProcessKey, (RecordId, Stamp, String)>,
    subject: &Acting,
    say: &mut Sentences,
) {
    let position = if n == 0 {
        "The acting process".to_owned()
    } else {
        format!("Ancestor {n}")
    };
    let command = if a.argv.is_empty() {
        String::new()
    } else {
        format!(" as `{}`", describe::command_line(&a.argv))
    };
    let started = started_at(a.key, subject.at)
        .map(|at| format!(", started {}", when(at)))
        .unwrap_or_default();
    let head = format!(
        "{position}: {}[{}], {}{command}, uid {}{started}",
        describe::name(a),
        a.key.tgid,
        describe::path(&a.exe),
        a.uid
    );
    match execs.get(&a.key) {
        Some((id, at, action)) => say.observed(format!("{head}; it {action} at {}.", when(at.wall)), [id]),
        None if a.from_proc => say.inferred(format!("{head}; it ran before the agent did and was rebuilt from /proc."), &subject.evidence),
        None => say.observed(format!("{head}; its own exec is not in the journal, but its identity is in the record of the act."), &subject.evidence),
    }
}

fn entry_point(subject: &Acting, about: &About<'_>, say: &mut Sentences) {
    if subject.cut {
        say.unknown("The lineage is cut: an ancestor was not known any more, so the entry point above is not certain.");
    }
    let Some(first) = subject.lineage.last() else {
        return;
    };
    let entry = subject.lineage.first().map_or(first.entry, |a| a.entry);
    let who = format!("{}[{}]", describe::name(first), first.key.tgid);
    let known = about
        .case
        .instance
        .as_ref()
        .and_then(|i| about.directory.get(i));
    let evidence = || {
        subject
            .evidence
            .iter()
            .chain(known.into_iter().flat_map(|k| &k.evidence))
    };
    match entry {
        Entry::Init => say.observed(format!("Entry point: {who} descends from, or is, the first process of the container: it came with the container's own command, and nobody entered to start it."), evidence()),
        Entry::ExecSession => say.observed(format!("Entry point: {who} was started in the running container through its runtime (exec, or a health check): a person or an orchestrator outside the container started it."), evidence()),
        Entry::Host => say.observed(format!("Entry point: {who} came in from the host, and not by the container's runtime (moved in, or nsenter)."), evidence()),
        Entry::FoundRunning => say.unknown(format!("Entry point: {who} ran already when the agent started; how it came in was not observed.")),
    }
}

/// The connection that an ancestor accepted last before the act: the likely request behind it.
fn request(about: &About<'_>, subject: &Acting, say: &mut Sentences) -> Result<(), AskError> {
    const CLOSE_NS: u64 = 10_000_000_000;
    let mut last: Option<(RecordId, Observation)> = None;
    let Some(instance) = &about.case.instance else {
        return Ok(());
    };
    let from = WallNs(subject.at.wall.0.saturating_sub_unsigned(CLOSE_NS));
    let filter = Filter::of(&[RecordKind::Observation])
        .about(instance)
        .between(from, subject.at.wall);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        if let Record::Observation(o) = record
            && let EventKind::Accept(_) = &o.event.kind
            && o.at.boot <= subject.at.boot
            && subject.lineage.iter().any(|a| a.key == o.event.process.key)
            && last.as_ref().is_none_or(|(_, l)| l.at.boot <= o.at.boot)
        {
            last = Some((id, o));
        }
    })?;
    match last {
        Some((id, o)) => {
            let before = span(subject.at.boot.0 - o.at.boot.0);
            say.inferred(format!("Request: {} {before} before the act; by its time it is the likely request behind it.", describe::observation(&o)), [&id]);
        }
        None => say.unknown(format!("Request: no connection accepted by this lineage is recorded in the {} before the act (accepts that the baseline knows are only counted), so the request behind it, if there was one, is not known.", span(CLOSE_NS))),
    }
    Ok(())
}
