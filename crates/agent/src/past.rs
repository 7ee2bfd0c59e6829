//! What the journal says about the time before this start, and what has to be said about it.
//!
//! Promises: reading back is bounded; whatever the journal's recovery set aside or found damaged
//! becomes a gap; so does the time in which no agent ran, for the node and for every container
//! that kept running. Left out: the recovery itself (`evidence`).

use plimsoll_baseline::Baseline;
use plimsoll_evidence::{Damage, Filter, Leaf, Reader, Recovery};
use plimsoll_model::{
    BaselineId, BootId, BootNs, Container, ContainerState, Gap, GapScope, Instance, Record,
    RecordKind, Stage, Stamp, WallNs,
};
use std::collections::BTreeMap;

/// Container records read back at most.
const CONTAINER_RECORDS_MAX: usize = 50_000;
/// Lifecycle records read back at most.
const LIFECYCLE_RECORDS_MAX: usize = 100;
/// Gaps that one recovery makes at most; the last one counts the rest.
const RECOVERY_GAPS_MAX: usize = 100;

/// Versions of baselines looked through to find an older one.
const BASELINE_RECORDS_MAX: usize = 2000;

/// The time before this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Until when an agent ran; `None`: this is the first start.
    pub until: Option<Stamp>,
    /// It had said that it was stopping.
    pub stopped: bool,
    /// It ran in this boot of the machine.
    pub same_boot: bool,
    /// Containers of this boot that had not gone.
    pub remembered: Vec<Container>,
}

/// Reads back what the journal knows. Damage met on the way is skipped: recovery reports it.
pub fn look_back(reader: &Reader, boot_id: &BootId, now: Stamp) -> Past {
    let Some(last) = last_record(reader) else {
        return Past::default();
    };
    let mut past = Past {
        until: Some(last),
        ..Past::default()
    };
    let mut newest = true;
    for record in newest_first(reader, RecordKind::Lifecycle, None).take(LIFECYCLE_RECORDS_MAX) {
        let Record::Lifecycle(life) = record else {
            continue;
        };
        if newest && life.what == "stop" {
            past.stopped = true;
            past.until = Some(life.at);
        }
        newest = false;
        if life.what == "start" {
            let boot = life.details.iter().find(|(k, _)| k == "boot_id");
            past.same_boot = boot.is_some_and(|(_, v)| v == boot_id.as_str());
            break;
        }
    }
    if past.same_boot {
        past.remembered = remembered(reader, now);
    } else if let Some(until) = &mut past.until {
        // a boot time of another boot means nothing in this one
        until.boot = BootNs(0);
    }
    past
}

fn last_record(reader: &Reader) -> Option<Stamp> {
    let end = reader.end().ok()?;
    let last = (0..8_u64).find_map(|back| {
        let leaf = end.0.checked_sub(1 + back)?;
        let entry = reader.get(Leaf(leaf)).ok().flatten()?;
        // The journal certifies its keys by itself, before any agent has said a word.
        (entry.header.kind != RecordKind::EpochKey as u16).then_some(entry)
    })?;
    Some(Stamp {
        boot: BootNs(last.header.boot_ns),
        wall: WallNs(last.header.wall_ns),
        uncertainty_ns: 0,
    })
}

fn newest_first(
    reader: &Reader,
    kind: RecordKind,
    since: Option<WallNs>,
) -> impl Iterator<Item = Record> {
    let filter = Filter {
        kinds: vec![kind as u16],
        wall_ns: since.map(|s| s.0..i64::MAX),
        newest_first: true,
        ..Filter::default()
    };
    reader
        .scan(filter)
        .into_iter()
        .flatten()
        .filter_map(move |entry| {
            let entry = entry.ok()?;
            Record::decode(kind as u16, entry.payload.bytes()?).ok()
        })
}

fn remembered(reader: &Reader, now: Stamp) -> Vec<Container> {
    let booted = WallNs(now.wall.0.saturating_sub(now.boot.0 as i64));
    // a clock that was stepped since may put the boot later than records made in it
    let since = WallNs(booted.0.saturating_sub(86_400_000_000_000));
    let mut newest: BTreeMap<Instance, Container> = BTreeMap::new();
    for record in
        newest_first(reader, RecordKind::Container, Some(since)).take(CONTAINER_RECORDS_MAX)
    {
        if let Record::Container(container) = record {
            newest
                .entry(container.instance.clone())
                .or_insert(container);
        }
    }
    newest
        .into_values()
        .filter(|c| c.state != ContainerState::Gone)
        .collect()
}

/// A baseline as it was at a version that is not in force any more.
pub fn baseline_at(reader: &Reader, id: &BaselineId, version: u64) -> Option<Baseline> {
    newest_first(reader, RecordKind::Baseline, None)
        .take(BASELINE_RECORDS_MAX)
        .filter_map(|record| match record {
            Record::Baseline(bytes) => Baseline::decode(&bytes).ok(),
            _ => None,
        })
        .find(|b| b.id() == id && b.version() == version)
}

/// The gap of the time in which no agent ran (`None`: first start).
pub fn down_gap(past: &Past, scope: GapScope, now: Stamp) -> Option<Gap> {
    let from = past.until?;
    let reason = match (past.stopped, past.same_boot) {
        (true, true) => "the agent was stopped",
        (false, true) => "the agent ended without saying so",
        (true, false) => "the agent was stopped, and the machine was started anew",
        (false, false) => "the machine was started anew",
    };
    Some(Gap {
        stage: Stage::AgentDown,
        scope,
        from,
        to: now,
        count: None,
        reason: reason.to_owned(),
    })
}

/// The gap of the time after the programs of the agent before had ended their work.
pub fn idle_gap(since: Stamp, now: Stamp) -> Gap {
    Gap {
        stage: Stage::AgentDown,
        scope: GapScope::Node,
        from: since,
        to: now,
        count: None,
        reason: "no agent came in time, and the hooks that the last one had left ended their work"
            .to_owned(),
    }
}

/// What the journal's recovery found, as gaps.
pub fn recovery_gaps(recovery: &Recovery, now: Stamp) -> Vec<Gap> {
    let gap = |reason: String, count: Option<u64>| Gap {
        stage: Stage::Damage,
        scope: GapScope::Node,
        from: Stamp::default(),
        to: now,
        count,
        reason,
    };
    let torn = recovery.torn.iter().map(|t| {
        gap(
            format!(
                "{} bytes of an unfinished write at the end of {} were set aside; none of them had been acknowledged",
                t.bytes,
                t.path.display()
            ),
            None,
        )
    });
    let damage = recovery.damage.iter().map(|d| match d {
        Damage::MissingLeaves { first, last } => gap(
            format!("records {first} to {last} are missing"),
            Some(last - first + 1),
        ),
        Damage::Leaf { leaf, path } => gap(
            format!("record {leaf} in {} is damaged", path.display()),
            Some(1),
        ),
        Damage::Payload { leaf, path, .. } => gap(
            format!(
                "the content of record {leaf} in {} is damaged",
                path.display()
            ),
            Some(1),
        ),
        Damage::FileHeader { path } => {
            gap(format!("the header of {} is damaged", path.display()), None)
        }
    });
    let emergency = recovery
        .emergency
        .unavailable
        .iter()
        .map(|why| gap(format!("alerts cannot survive a full disk: {why}"), None));
    let sealing = recovery.sealing.iter().map(|what| gap(what.clone(), None));
    let mut gaps: Vec<Gap> = torn.chain(damage).chain(emergency).chain(sealing).collect();
    let beyond = gaps.len().saturating_sub(RECOVERY_GAPS_MAX) as u64 + recovery.damage_omitted;
    gaps.truncate(RECOVERY_GAPS_MAX);
    if beyond > 0 {
        gaps.push(gap(
            format!("the journal is damaged in {beyond} more places"),
            Some(beyond),
        ));
    }
    gaps
}
