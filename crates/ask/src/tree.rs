//! Q6, how it all started.

use crate::acts::Acts;
use crate::completeness::Look;
use crate::records::Filter;
use crate::say::Sentences;
use crate::subject::AlertCase;
use crate::{About, AskError};
use plimsoll_api::describe::{self, span, when};
use plimsoll_model::{
    Alert, Ancestor, Entry, EventKind, Line, Observation, ProcessKey, Record, RecordId, RecordKind,
    Stamp, WallNs,
};
use std::collections::{BTreeSet, HashMap};

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

/// The wall time of a process's start, by the stamp of something that it did.
pub(crate) fn started_at(key: ProcessKey, seen: Stamp) -> Option<WallNs> {
    let before = seen.boot.0.checked_sub(key.start.0)?;
    (key.start.0 > 0).then(|| WallNs(seen.wall.0.saturating_sub_unsigned(before)))
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
    lineage: Line,
    cut: bool,
    at: Stamp,
    evidence: Vec<RecordId>,
}

impl Acting {
    /// What led to the act is shortly before it, or where the container began.
    fn look(&self) -> Look<'_> {
        Look {
            around: self.evidence.first(),
            too: &self.evidence,
        }
    }
}

/// The alert's process; for a container that of its gravest alert, the first of several; for one
/// without alerts the last process that started in it.
fn acting(about: &About<'_>, say: &mut Sentences) -> Result<Option<Acting>, AskError> {
    if let Some(case) = &about.case.alert {
        return of_alert(about, case);
    }
    if let Some((case, more)) = gravest(about, say)? {
        let others = match more {
            0 => String::new(),
            n => format!(
                ", the gravest of {} (ask about another with --alert)",
                n + 1
            ),
        };
        say.observed(
            format!(
                "This is about alert {}{others}: {}",
                case.alert.id, case.alert.output
            ),
            case.all_evidence(),
        );
        return of_alert(about, &case);
    }
    let mut last: Option<Acting> = None;
    about.observations(Acts::EXEC, say.tally(), |id, o| {
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
    if last.is_some() {
        say.inferred("No alert is recorded for this container: this is about the last program that started in it.", []);
    }
    Ok(last)
}

fn of_alert(about: &About<'_>, case: &AlertCase) -> Result<Option<Acting>, AskError> {
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
    let Some(d) = case.drift().filter(|d| !d.lineage.is_empty()) else {
        return Ok(None);
    };
    // the observation is gone, the drift kept its lineage; whether it was whole is not kept
    let cut = d.lineage.len() >= 16;
    Ok(Some(Acting {
        key: d.lineage[0].key,
        lineage: d.lineage.clone(),
        cut,
        at: d.first,
        evidence: shown,
    }))
}

/// The gravest alert of the container, the first of several, and how many others there are.
fn gravest(about: &About<'_>, say: &mut Sentences) -> Result<Option<(AlertCase, usize)>, AskError> {
    const ALERTS_MAX: usize = 100_000;
    let Some(instance) = &about.case.instance else {
        return Ok(None);
    };
    let mut found: Option<AlertCase> = None;
    let mut ids = BTreeSet::new();
    let filter = Filter::of(&[RecordKind::Alert]).about(instance);
    about.visit(&filter, say.tally(), &mut |id, _, record| {
        let Record::Alert(alert) = record else { return };
        if alert.instance.as_ref() != Some(instance)
            || !about.interval.touches(alert.at.wall, alert.last.wall)
        {
            return;
        }
        if ids.len() < ALERTS_MAX {
            ids.insert(alert.id.clone());
        }
        let rank = |a: &Alert| (a.priority, a.at.boot);
        if found.as_ref().is_none_or(|f| rank(&alert) < rank(&f.alert)) {
            found = Some(AlertCase {
                alert,
                evidence: vec![id],
            });
        }
    })?;
    Ok(found.map(|case| (case, ids.len().saturating_sub(1))))
}

/// How a process came to its program.
struct Executed {
    id: RecordId,
    at: Stamp,
    action: String,
    /// That was not seen: it was found running.
    found: bool,
}

/// The last exec before the act of every process in the lineage.
fn execs(
    about: &About<'_>,
    subject: &Acting,
    say: &mut Sentences,
) -> Result<HashMap<ProcessKey, Executed>, AskError> {
    let mut found: HashMap<ProcessKey, Executed> = HashMap::new();
    let Some(instance) = &about.case.instance else {
        return Ok(found);
    };
    let filter = Filter::of(&[RecordKind::Observation])
        .about(instance)
        .acts(Acts::EXEC);
    about.visit_sorts(&filter, &subject.look(), say.tally(), &mut |id, o| {
        if let EventKind::Exec(exec) = &o.event.kind
            && o.at.boot <= subject.at.boot
            && subject.lineage.iter().any(|a| a.key == o.event.process.key)
            && found
                .get(&o.event.process.key)
                .is_none_or(|e| e.at.boot <= o.at.boot)
        {
            let executed = Executed {
                id,
                at: o.at,
                action: about.action(&o.event.kind),
                found: exec.found,
            };
            found.insert(o.event.process.key, executed);
        }
    })?;
    Ok(found)
}

fn step(
    n: usize,
    a: &Ancestor,
    execs: &HashMap<ProcessKey, Executed>,
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
        Some(e) if e.found => say.observed(
            format!(
                "{head}; /proc showed it when the agent came, at {}: it ran already, how it began was not seen.",
                when(e.at.wall)
            ),
            [&e.id],
        ),
        // told twice by most: the program and its arguments are those of its last exec
        Some(e) if e.action == format!("ran {}{command}", describe::path(&a.exe)) => {
            let at = when(e.at.wall);
            let ran = if started.ends_with(&at) {
                String::new()
            } else {
                format!(", ran this at {at}")
            };
            say.observed(format!("{head}{ran}."), [&e.id]);
        }
        Some(e) => say.observed(
            format!("{head}; it {} at {}.", e.action, when(e.at.wall)),
            [&e.id],
        ),
        None if a.from_proc => say.inferred(
            format!("{head}; it ran before the agent took it up and was rebuilt from /proc."),
            &subject.evidence,
        ),
        None => say.observed(
            format!(
                "{head}; its own exec was not found, but its identity is in the record of the act."
            ),
            &subject.evidence,
        ),
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

/// An accepted connection and its record.
type Accepted = (RecordId, Observation);

/// The connection that an ancestor accepted last before the act, else the container's last one from
/// outside: the likely request behind it.
fn request(about: &About<'_>, subject: &Acting, say: &mut Sentences) -> Result<(), AskError> {
    const CLOSE_NS: u64 = 10_000_000_000;
    let (mut last, mut near): (Option<Accepted>, Option<Accepted>) = (None, None);
    let Some(instance) = &about.case.instance else {
        return Ok(());
    };
    let from = WallNs(subject.at.wall.0.saturating_sub_unsigned(CLOSE_NS));
    let filter = Filter::of(&[RecordKind::Observation])
        .about(instance)
        .between(from, subject.at.wall)
        .acts(Acts::NETWORK.or(Acts::LOCAL_SOCKET));
    about.visit_sorts(&filter, &subject.look(), say.tally(), &mut |id, o| {
        if let EventKind::Accept(c) = &o.event.kind
            && o.at.boot <= subject.at.boot
        {
            let own = subject.lineage.iter().any(|a| a.key == o.event.process.key);
            let outside = !c.peer.is_loopback();
            let later =
                |than: &Option<Accepted>| than.as_ref().is_none_or(|(_, l)| l.at.boot <= o.at.boot);
            if own && later(&last) {
                last = Some((id, o));
            } else if !own && outside && later(&near) {
                near = Some((id, o));
            }
        }
    })?;
    // what came over the loopback was passed on by another process of the container
    let passed_on = last
        .as_ref()
        .is_none_or(|(_, o)| matches!(&o.event.kind, EventKind::Accept(c) if c.peer.is_loopback()));
    if let (true, Some((id, o))) = (passed_on, &near) {
        let before = span(subject.at.boot.0 - o.at.boot.0);
        say.inferred(format!("Request: {} {before} before the act, another process of the container, which may have passed it on; by its time it is the likely request behind it (accepts that the baseline knows are only counted, so it may be another).", describe::observation(o)), [id]);
        return Ok(());
    }
    match last {
        Some((id, o)) => {
            let before = span(subject.at.boot.0 - o.at.boot.0);
            say.inferred(format!("Request: {} {before} before the act; by its time it is the likely request behind it.", describe::observation(&o)), [&id]);
        }
        None => say.unknown(format!("Request: no connection accepted by this lineage is recorded in the {} before the act (accepts that the baseline knows are only counted), so the request behind it, if there was one, is not known.", span(CLOSE_NS))),
    }
    Ok(())
}
