//! What an agent writes and tells the kernel before it takes the first event.
//!
//! Promises: the journal says which kinds are not seen, what recovery found and what lay between this
//! agent and the one before, ahead of any observation. Left out: what was running ([`plimsoll_workload`]
//! scans), and what the last records say ([`crate::past`]).

use crate::enforce::held;
use crate::gaps::Loss;
use crate::machine;
use crate::past::{Past, recovery_gaps};
use crate::pipeline::Pipeline;
use crate::shared::Shared;
use plimsoll_baseline::PathPattern;
use plimsoll_evidence::Recovery;
use plimsoll_model::record::Lifecycle;
use plimsoll_model::{BootId, BootNs, Gap, GapScope, Record, Stage};
use plimsoll_sensor::api::{Inherited, PathMatch, Pinning, SeedProcess, WatchedPath};
use plimsoll_workload::Scan;

/// The first records of this run: start, clock, what recovery found, what is not seen.
pub fn first_records(shared: &Shared, boot_id: &BootId, recovery: &Recovery, pinning: &Pinning) {
    let at = shared.started;
    let mut details = vec![
        ("boot_id".to_owned(), boot_id.to_string()),
        ("kernel".to_owned(), machine::kernel()),
        // which tables the numbers of system calls are of
        ("machine".to_owned(), std::env::consts::ARCH.to_owned()),
        ("pid".to_owned(), std::process::id().to_string()),
    ];
    for hook in &shared.hooks {
        let how = hook.mechanism.as_deref().unwrap_or("refused");
        details.push((format!("hook {}", hook.kind), how.to_owned()));
    }
    details.extend(hook_details(shared, pinning));
    let raised = match shared.priority.is_wanted().then(|| shared.priority.trial()) {
        None => "ordinary".to_owned(),
        Some(Ok(())) => match shared.priority.real_time_refused() {
            None => "raised".to_owned(),
            Some(e) => format!("raised; real time was refused: {e}"),
        },
        Some(Err(e)) => format!("refused: {e}"),
    };
    details.push(("priority".to_owned(), raised));
    let start = Lifecycle {
        what: "start".to_owned(),
        at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        details,
    };
    shared
        .ledger
        .record_urgent(&Record::Lifecycle(start), at, None);
    if shared.enforcement.in_force().path.is_some() {
        let record = Record::Enforcement(shared.enforcement.record(at));
        shared.ledger.record_urgent(&record, at, None);
    }
    shared
        .ledger
        .record(&Record::Clock(shared.anchor.get()), at, None);
    for gap in recovery_gaps(recovery, at) {
        shared.ledger.record_gap(gap);
    }
    shared.ledger.record_losses();
    for hook in shared.hooks.iter().filter(|h| h.mechanism.is_none()) {
        let reasons: Vec<&str> = hook.refused.iter().map(|r| r.reason.as_str()).collect();
        shared.ledger.record_gap(Gap {
            stage: Stage::Hook,
            scope: GapScope::Node,
            from: at,
            to: at,
            count: None,
            reason: format!(
                "{} is not seen from this start on: {}",
                hook.kind,
                reasons.join("; ")
            ),
        });
    }
}

/// What is pinned, and what was taken over, for the start record. `watched_since` (wall clock,
/// nanoseconds) says that the programs in the kernel went on recording from then on; `watched_until`, that
/// those of the agent before went on until then, and nothing recorded from there to this start.
fn hook_details(shared: &Shared, pinning: &Pinning) -> Vec<(String, String)> {
    let mut details = Vec::new();
    let mut say = |key: &str, value: String| details.push((key.to_owned(), value));
    if let Some(home) = &pinning.home {
        say("pinned", home.display().to_string());
    }
    for problem in &pinning.problems {
        say("not_pinned", problem.clone());
    }
    if let Some(before) = &pinning.inherited {
        let wall = |at: BootNs| shared.anchor.stamp(at).wall.0.to_string();
        match before.idle_since {
            None => say("watched_since", wall(before.until)),
            Some(idle) => say("watched_until", wall(idle)),
        }
        say(
            "took_over",
            match before.replaced {
                true => "other programs, which these replaced",
                false => "programs and maps",
            }
            .to_owned(),
        );
    }
    details
}

/// What the time between two agents over the same programs cost.
pub fn handover_gaps(
    before: &Inherited,
    past: &Past,
    syscalls_used: bool,
    shared: &Shared,
) -> Vec<Gap> {
    let anchor = shared.anchor.get();
    let from = anchor.stamp(before.until);
    let to = before
        .idle_since
        .map_or(shared.started, |at| anchor.stamp(at));
    let gap = |stage, from, count, reason: &str| Gap {
        stage,
        scope: GapScope::Node,
        from,
        to,
        count,
        reason: reason.to_owned(),
    };
    let mut gaps = Vec::new();
    if before.in_hand > 0 {
        // what it had read is of the moments before; its last record bounds them
        let last = past
            .until
            .map_or(from, |u| if u.boot < from.boot { u } else { from });
        gaps.push(Gap {
            to: from,
            ..gap(
                Stage::Handover,
                last,
                Some(before.in_hand),
                "an agent that ended without saying so had read these events and may not have recorded them: at most this many",
            )
        });
    }
    if syscalls_used {
        gaps.push(gap(
            Stage::Sampled,
            from,
            None,
            "no agent was there: of system calls used, only the first 256 uses of each on the node were looked at; everything else went on being recorded",
        ));
    }
    gaps
}

/// An agent that was killed may have left programs stopped at their exec: they go on, because nothing
/// is prevented without an agent. Which of the stopped ones those were is not known any more.
pub fn resume_left_over(shared: &Shared, scan: &Scan) {
    let in_containers = scan.processes.iter().filter(|p| p.cgroup_id != 0);
    let resumed = in_containers
        .filter(|p| held::resume_left_over(p.key))
        .count();
    if resumed > 0 {
        shared.ledger.note(Loss {
            stage: Stage::Enforcement,
            instance: None,
            count: Some(resumed as u64),
            from: shared.started.boot,
            to: shared.clocks.boot(),
            reason: "stopped processes of containers were continued at the start".into(),
        });
    }
}

/// Tells the kernel what was running before and what has to be emitted every time.
pub fn prime_kernel(
    shared: &Shared,
    pipeline: &mut Pipeline,
    scan: Scan,
    past: Past,
    down: Option<&Gap>,
) {
    let seeds: Vec<SeedProcess> = scan
        .processes
        .iter()
        .filter(|p| p.cgroup_id != 0)
        .map(|p| SeedProcess {
            key: p.key,
            cgroup_id: p.cgroup_id,
            exe: p.exe.clone(),
            script: p.script.clone(),
            entry: p.entry,
            uid: p.uid,
            root_mount: p.root.as_ref().map(|root| root.mount),
        })
        .collect();
    // containers first: a process is watched as one of its container's
    pipeline.seed(scan, past.remembered, down);
    let failed = seeds
        .iter()
        .filter(|seed| shared.kernel.seed_process(seed).is_err())
        .count();
    let watched = shared.kernel.set_watched_paths(&watched_paths());
    let bumped = shared.kernel.bump_generation();
    if failed > 0 || watched.is_err() || bumped.is_err() {
        shared.ledger.note(Loss {
            stage: Stage::KernelMap,
            instance: None,
            count: Some(failed as u64),
            from: shared.started.boot,
            to: shared.clocks.boot(),
            reason: "the kernel's tables did not take all that was running at the start".into(),
        });
    }
}

fn watched_paths() -> Vec<WatchedPath> {
    plimsoll_baseline::watched_paths()
        .into_iter()
        .map(|(pattern, ops)| WatchedPath {
            path: match pattern {
                PathPattern::Exact(p) => PathMatch::Exact(p.into()),
                PathPattern::Below(p) => PathMatch::Below(p.into()),
            },
            ops,
        })
        .collect()
}
