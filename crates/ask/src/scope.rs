//! Q3, whether a behaviour occurred before; Q13, how far a fingerprint reaches.

use crate::directory::same_workload;
use crate::interval::between;
use crate::marks::{Mark, of_observation};
use crate::records::{Body, Filter};
use crate::say::{EVIDENCE_MAX, Sentences, count, times};
use crate::who::siblings;
use crate::{About, AskError};
use plimsoll_api::describe::{self, when};
use plimsoll_model::{
    AlertSource, Behaviour, BehaviourId, Drift, Instance, Record, RecordId, RecordKind, Risk,
    SockAddr, Stamp, WallNs,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Behaviours of a container that are followed when no alert names one.
const BEHAVIOURS_MAX: usize = 25;
/// Instances listed by name.
const NAMED_MAX: usize = 8;

/// Behaviours of a container that are weighed for that.
const WEIGHED_MAX: usize = 20_000;

/// One behaviour and where it was found.
struct Followed {
    behaviour: Behaviour,
    /// Its place in the answer: the gravest first, of like ones the earliest.
    place: usize,
    /// By instance: how often, first, last, records.
    found: BTreeMap<Instance, Occurrence>,
}

struct Occurrence {
    count: u64,
    first: Stamp,
    last: Stamp,
    evidence: Vec<RecordId>,
}

/// Q3.
pub(crate) fn before(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let (mut followed, rest) = behaviours(about, say)?;
    if followed.is_empty() {
        let why = match &about.case.alert {
            Some(_) => "The alert comes from a rule, which names no behaviour",
            None => "No behaviour outside the baseline is recorded for this container",
        };
        say.unknown(format!("{why}, so there is nothing to look for."));
        return Ok(());
    }
    occurrences(about, &mut followed, say)?;
    let presence = presence(about, &followed, say)?;
    let mut order: Vec<_> = followed.iter().collect();
    order.sort_by_key(|(_, f)| f.place);
    for (id, f) in order {
        one(about, id, f, &presence, say);
    }
    if let Some(rest) = rest {
        say.inferred(rest, []);
    }
    Ok(())
}

/// The behaviours to follow: the alert's, or the gravest of the container's; what is left out, in words.
fn behaviours(
    about: &About<'_>,
    say: &mut Sentences,
) -> Result<(BTreeMap<BehaviourId, Followed>, Option<String>), AskError> {
    let mut followed = BTreeMap::new();
    let mut follow = |behaviour: Behaviour| {
        let place = followed.len();
        let found = BTreeMap::new();
        followed.insert(
            behaviour.id(),
            Followed {
                behaviour,
                place,
                found,
            },
        );
    };
    if let Some(b) = about.case.behaviour() {
        follow(b.clone());
        return Ok((followed, None));
    }
    let Some(instance) = about
        .case
        .instance
        .as_ref()
        .filter(|_| about.case.alert.is_none())
    else {
        return Ok((followed, None));
    };
    let (gravest, more) = gravest(about, instance, say)?;
    for weighed in gravest {
        follow(weighed.behaviour);
    }
    let rest = (more > 0).then(|| {
        format!("Not looked for: {more} other new behaviours of this container, none of them graver than these; ask about an alert for one of them.")
    });
    Ok((followed, rest))
}

/// A behaviour outside the baseline, for its place among others.
struct Weighed {
    risk: Risk,
    first: Stamp,
    behaviour: Behaviour,
    observation: Option<RecordId>,
}

/// The gravest behaviours of a container, and how many others there are. Those of low risk are among
/// them only where there is nothing else.
fn gravest(
    about: &About<'_>,
    instance: &Instance,
    say: &mut Sentences,
) -> Result<(Vec<Weighed>, usize), AskError> {
    let (mut weighed, mut more) = (HashMap::new(), 0);
    let filter = Filter::of(&[RecordKind::Drift, RecordKind::Alert]).about(instance);
    each_drift(about, &filter, say, |_, d| {
        if d.instance != *instance {
            return;
        }
        let id = d.behaviour.id();
        if weighed.len() < WEIGHED_MAX || weighed.contains_key(&id) {
            weighed.entry(id).or_insert_with(|| Weighed {
                risk: d.risk,
                first: d.first,
                behaviour: d.behaviour.clone(),
                observation: d.observation.clone(),
            });
        } else {
            more += 1;
        }
    })?;
    let mut weighed: Vec<Weighed> = weighed.into_values().collect();
    weighed.sort_by(|a, b| {
        let key = |w: &Weighed| (Reverse(w.risk), w.first.boot);
        key(a)
            .cmp(&key(b))
            .then_with(|| a.behaviour.cmp(&b.behaviour))
    });
    let grave = weighed.partition_point(|w| w.risk > Risk::Low);
    let kept = if grave > 0 { grave } else { weighed.len() }.min(BEHAVIOURS_MAX);
    more += weighed.len() - kept;
    weighed.truncate(kept);
    Ok((weighed, more))
}

/// Drifts, wherever they stand.
fn each_drift(
    about: &About<'_>,
    filter: &Filter,
    say: &mut Sentences,
    mut each: impl FnMut(RecordId, &Drift),
) -> Result<(), AskError> {
    about.visit(filter, say.tally(), &mut |id, _, record| match record {
        Record::Drift(d) => each(id, &d),
        Record::Alert(a) => {
            if let AlertSource::Drift(d) = &a.source {
                each(id, d);
            }
        }
        _ => {}
    })?;
    Ok(())
}

fn occurrences(
    about: &About<'_>,
    followed: &mut BTreeMap<BehaviourId, Followed>,
    say: &mut Sentences,
) -> Result<(), AskError> {
    let interval = about.interval;
    let mut filter = Filter::of(&[RecordKind::Drift, RecordKind::Alert]);
    filter.marks = followed.values().map(|f| Mark::of(&f.behaviour)).collect();
    each_drift(about, &filter, say, |id, d| {
        if !interval.touches(d.first.wall, d.last.wall) {
            return;
        }
        let Some(f) = followed.get_mut(&d.behaviour.id()) else {
            return;
        };
        let o = f
            .found
            .entry(d.instance.clone())
            .or_insert_with(|| Occurrence {
                count: 0,
                first: d.first,
                last: d.last,
                evidence: Vec::new(),
            });
        // an alert repeats its drift, and its updates raise the count: the highest stands
        o.count = o.count.max(d.count);
        o.first = o.first.min(d.first);
        o.last = o.last.max(d.last);
        if o.evidence.len() < EVIDENCE_MAX {
            o.evidence.push(id);
            o.evidence.extend(d.observation.clone());
        }
    })
}

/// Counts of the followed behaviours where a baseline knew them.
fn presence(
    about: &About<'_>,
    followed: &BTreeMap<BehaviourId, Followed>,
    say: &mut Sentences,
) -> Result<HashMap<BehaviourId, (u64, Vec<RecordId>)>, AskError> {
    let mut counts: HashMap<BehaviourId, (u64, Vec<RecordId>)> = HashMap::new();
    let mut filter =
        Filter::of(&[RecordKind::Presence]).between(about.interval.from, about.interval.to);
    filter.marks = followed.keys().copied().map(Mark::Counted).collect();
    about.visit(&filter, say.tally(), &mut |record_id, _, record| {
        if let Record::Presence(p) = record {
            for (id, n) in p.counts.iter().filter(|(id, _)| followed.contains_key(id)) {
                let entry = counts.entry(*id).or_default();
                entry.0 += n;
                if entry.1.len() < EVIDENCE_MAX {
                    entry.1.push(record_id.clone());
                }
            }
        }
    })?;
    Ok(counts)
}

fn one(
    about: &About<'_>,
    id: &BehaviourId,
    f: &Followed,
    presence: &HashMap<BehaviourId, (u64, Vec<RecordId>)>,
    say: &mut Sentences,
) {
    let what = crate::baseline::behaviour(&f.behaviour);
    let started = say.len();
    let own = about.case.instance.as_ref();
    let act = about.case.alert.as_ref().map(|a| a.alert.at);
    for (instance, o) in &f.found {
        let here = Some(instance) == own;
        if here && act.is_some_and(|at| o.first.boot >= at.boot && o.count <= 1) {
            continue; // the alert's own act
        }
        let place = match (here, workload_of(about, instance)) {
            (true, _) => "Here, in this instance".to_owned(),
            (false, true) => format!(
                "In another instance of the workload, {}",
                about.directory.name(instance)
            ),
            (false, false) => format!("In another workload, {}", about.directory.name(instance)),
        };
        say.observed(
            format!(
                "{place}: {what}, {} {}.",
                times(o.count),
                between(o.first.wall, o.last.wall)
            ),
            &o.evidence,
        );
    }
    if let Some((n, evidence)) = presence.get(id) {
        say.observed(
            format!(
                "As known behaviour it was counted at least {}: {what}.",
                times(*n)
            ),
            evidence,
        );
    }
    for hit in about.baselines.knowing(id, &f.behaviour) {
        let how = if hit.quarantined {
            "holds it in quarantine, waiting for a person"
        } else {
            "knows it"
        };
        say.inferred(
            format!(
                "Baseline {} (image {}, role {}) {how}: {} between {} and {}.",
                hit.baseline,
                hit.image,
                hit.role,
                times(hit.count),
                when(hit.first.wall),
                when(hit.last.wall)
            ),
            [],
        );
    }
    if say.len() == started {
        let peers = siblings(about).len() as u64;
        let begin = about
            .records
            .span()
            .map(|s| format!(" since {}, when the journal begins", when(s.first)))
            .unwrap_or_default();
        say.unknown(format!("No other occurrence of this is recorded{begin}: {what}. {} of the same workload {} known.", count(peers, "other instance"), if peers == 1 { "is" } else { "are" }));
    }
}

fn workload_of(about: &About<'_>, instance: &Instance) -> bool {
    match (about.container(), about.directory.get(instance)) {
        (Some(own), Some(other)) => same_workload(own, &other.container),
        _ => false,
    }
}

/// The behaviours that marks stand for, for people.
type Names = HashMap<BehaviourId, Behaviour>;

fn words(mark: &Mark, names: &Names) -> String {
    match mark {
        Mark::Behaviour(id, object) => match names.get(id) {
            Some(b) => format!("behaviour {}", crate::baseline::behaviour(b)),
            None => format!("behaviour {id} on {}", describe::path(object)),
        },
        Mark::Program(path) => format!(
            "program {} that is not from the image",
            describe::path(path)
        ),
        Mark::Inode(dev, ino) => format!("the same file (device {dev}, inode {ino}) executed"),
        Mark::Peer(ip, port) => format!("peer {}", SockAddr::Inet(*ip, *port)),
        Mark::Name(name) => format!("DNS name {}", describe::path(name)),
        Mark::Alert(id) => format!("alert {id}"),
        Mark::Counted(id) => format!("known behaviour {id}"),
        Mark::Step => "a step of the clock".to_owned(),
    }
}

#[derive(Default)]
struct Reach {
    instances: BTreeSet<Option<Instance>>,
    times: u64,
    first: Option<WallNs>,
    last: Option<WallNs>,
    evidence: Vec<RecordId>,
}

/// Q13.
pub(crate) fn fingerprint(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let (marks, names) = marks(about, say)?;
    if marks.is_empty() {
        say.unknown("No fingerprint can be taken: neither a behaviour outside the baseline, nor a program, peer or name of it is recorded.");
        return Ok(());
    }
    let mut reach: BTreeMap<Mark, Reach> = marks
        .iter()
        .map(|m| (m.clone(), Reach::default()))
        .collect();
    let mut filter = Filter::of(&[
        RecordKind::Observation,
        RecordKind::Drift,
        RecordKind::Alert,
    ])
    .between(about.interval.from, about.interval.to);
    filter.marks = marks.clone();
    about.visit(
        &filter,
        say.tally(),
        &mut |id, wall, record| match &record {
            Record::Observation(o) => {
                for mark in of_observation(o) {
                    hit(
                        &mut reach,
                        &mark,
                        &id,
                        o.instance.as_ref(),
                        wall,
                        o.count.max(1),
                    );
                }
            }
            Record::Drift(d) => hit(
                &mut reach,
                &Mark::of(&d.behaviour),
                &id,
                Some(&d.instance),
                wall,
                d.count,
            ),
            Record::Alert(a) => {
                if let AlertSource::Drift(d) = &a.source {
                    hit(
                        &mut reach,
                        &Mark::of(&d.behaviour),
                        &id,
                        Some(&d.instance),
                        wall,
                        0,
                    );
                }
            }
            _ => {}
        },
    )?;
    total(about, &reach, say);
    for (mark, r) in &reach {
        say_reach(about, mark, r, &names, say);
    }
    say.unknown(format!(
        "Other nodes are not known here: this is the journal of node {} alone.",
        about.node()
    ));
    Ok(())
}

fn hit(
    reach: &mut BTreeMap<Mark, Reach>,
    mark: &Mark,
    id: &RecordId,
    instance: Option<&Instance>,
    wall: WallNs,
    n: u64,
) {
    let Some(r) = reach.get_mut(mark) else { return };
    r.instances.insert(instance.cloned());
    r.times += n;
    r.first = Some(r.first.map_or(wall, |f| f.min(wall)));
    r.last = Some(r.last.map_or(wall, |l| l.max(wall)));
    if r.evidence.len() < EVIDENCE_MAX {
        r.evidence.push(id.clone());
    }
}

/// What the subject is known by: its behaviours, programs that are not from the image, peers and
/// names. Of an alert only what its own records and its process show, of a container what its gravest
/// behaviours do.
fn marks(about: &About<'_>, say: &mut Sentences) -> Result<(Vec<Mark>, Names), AskError> {
    const MARKS_MAX: usize = 60;
    let mut marks = BTreeSet::new();
    let mut names = Names::new();
    if let Some(case) = &about.case.alert {
        if let Some(d) = case.drift() {
            marks.insert(Mark::of(&d.behaviour));
            names.insert(d.behaviour.id(), d.behaviour.clone());
        }
        for id in case.all_evidence() {
            if let Some(seen) = about.records.get(id)?
                && let Body::Record(Record::Observation(o)) = seen.body
            {
                marks.extend(of_observation(&o));
            }
        }
    } else if let Some(instance) = &about.case.instance {
        for weighed in gravest(about, instance, say)?.0 {
            marks.insert(Mark::of(&weighed.behaviour));
            names.insert(weighed.behaviour.id(), weighed.behaviour);
            if let Some(o) = weighed.observation
                && let Some(seen) = about.records.get(&o)?
                && let Body::Record(Record::Observation(o)) = seen.body
            {
                marks.extend(of_observation(&o));
            }
        }
    }
    if marks.len() > MARKS_MAX {
        say.tally().limits.push(format!(
            "The fingerprint has {} marks; the first {MARKS_MAX} were looked for.",
            marks.len()
        ));
    }
    Ok((marks.into_iter().take(MARKS_MAX).collect(), names))
}

/// The count over all marks together.
fn total(about: &About<'_>, reach: &BTreeMap<Mark, Reach>, say: &mut Sentences) {
    let instances: BTreeSet<&Instance> = reach
        .values()
        .flat_map(|r| &r.instances)
        .flatten()
        .collect();
    let evidence: Vec<RecordId> = reach
        .values()
        .flat_map(|r| r.evidence.iter().take(3))
        .cloned()
        .collect();
    let known: Vec<_> = instances
        .iter()
        .filter_map(|i| about.directory.get(i))
        .collect();
    let images: BTreeSet<String> = known
        .iter()
        .map(|k| {
            k.container
                .image
                .config_digest
                .as_ref()
                .map_or(k.container.image.name.clone(), ToString::to_string)
        })
        .collect();
    let namespaces: BTreeSet<&String> = known
        .iter()
        .filter_map(|k| k.container.namespace.as_ref())
        .collect();
    let alive = match known.iter().filter(|k| k.container.gone.is_none()).count() {
        0 => "none of them is known to be alive".to_owned(),
        n => format!("{n} of them may be alive still, for no end is recorded"),
    };
    let spaces = match namespaces.len() {
        0 => "no namespace (not run by Kubernetes)".to_owned(),
        n => count(n as u64, "namespace"),
    };
    say.observed(
        format!(
            "The fingerprint is shared by {}, of {}, in {spaces}, on 1 node ({}); {alive}.",
            count(instances.len() as u64, "container instance"),
            count(images.len() as u64, "image"),
            about.node(),
        ),
        &evidence,
    );
}

fn say_reach(about: &About<'_>, mark: &Mark, r: &Reach, names: &Names, say: &mut Sentences) {
    let (Some(first), Some(last)) = (r.first, r.last) else {
        say.unknown(format!(
            "By {}: not found again {}.",
            words(mark, names),
            about.interval.text()
        ));
        return;
    };
    let told: Vec<String> = r
        .instances
        .iter()
        .take(NAMED_MAX)
        .map(|i| {
            i.as_ref().map_or("an unknown container".to_owned(), |i| {
                about.directory.name(i)
            })
        })
        .collect();
    let more = if r.instances.len() > NAMED_MAX {
        ", …"
    } else {
        ""
    };
    say.observed(
        format!(
            "By {}: {} ({}{more}), {}.",
            words(mark, names),
            count(r.instances.len() as u64, "instance"),
            told.join(", "),
            between(first, last)
        ),
        &r.evidence,
    );
}
