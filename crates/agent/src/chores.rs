//! What is done again and again beside the way of an event: baseline files, the scrub, clock anchors,
//! gaps, retention.

use crate::clock;
use crate::files;
use crate::gaps::Loss;
use crate::scrub::Scrub;
use crate::shared::Shared;
use plimsoll_evidence::Reader;
use plimsoll_model::{Gap, GapScope, Record, Stage};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often retention looks, and how many payload files it removes at a time.
const RETAIN_EVERY: Duration = Duration::from_secs(600);
const RETAIN_MOST: usize = 8;
/// How often the scrub takes a step.
const SCRUB_EVERY: Duration = Duration::from_secs(1);

/// Writes baseline files as they come.
pub fn keep_files(shared: &Shared, files: &crossbeam_channel::Receiver<(PathBuf, Vec<u8>)>) {
    for (path, bytes) in files {
        if let Err(e) = files::replace(&path, &bytes) {
            // it is written again when it has changed; the journal has its versions
            let now = shared.clocks.boot();
            shared.ledger.note(Loss {
                stage: Stage::Journal,
                instance: None,
                count: Some(0),
                from: now,
                to: now,
                reason: format!("a baseline could not be written to its file: {e}").into(),
            });
        }
    }
}

/// Looks at a little of the journal each second.
pub fn run_scrub(shared: &Shared, stopped: &crossbeam_channel::Receiver<()>) {
    use crossbeam_channel::RecvTimeoutError::Timeout;
    // without a journal to read the writer has said so already
    let Ok(reader) = Reader::open(&shared.journal_dir) else {
        return;
    };
    let mut scrub = Scrub::new(reader);
    while stopped.recv_timeout(SCRUB_EVERY) == Err(Timeout) {
        let now = shared.anchor.stamp(shared.clocks.boot());
        for gap in scrub.step(now) {
            shared.ledger.record_gap(gap);
        }
    }
}

/// Passes time each second: clock, gaps, losses, retention.
pub fn run_timer(
    shared: &Shared,
    stopped: &crossbeam_channel::Receiver<()>,
    policy: &plimsoll_evidence::RetentionPolicy,
) {
    use crossbeam_channel::RecvTimeoutError::Timeout;
    let mut retained: Option<Instant> = None;
    let mut lost = 0;
    while stopped.recv_timeout(Duration::from_secs(1)) == Err(Timeout) {
        check_clock(shared);
        flush_gaps(shared);
        let Some(health) = shared.ledger.status().map(|s| s.health) else {
            return;
        };
        if health.lost != lost && health.trouble.is_none() {
            lost = health.lost;
            shared.ledger.record_losses();
        }
        if retained.is_none_or(|r| r.elapsed() >= RETAIN_EVERY) {
            retained = Some(Instant::now());
            let now = shared.anchor.stamp(shared.clocks.boot());
            shared.ledger.retain(policy.clone(), now, RETAIN_MOST);
        }
    }
}

/// Journals an anchor when one is due, and at once when the wall clock stepped.
pub fn check_clock(shared: &Shared) {
    let before = shared.anchor.get();
    let (anchor, stepped) = match clock::judge(&before, &shared.clocks.read()) {
        clock::Verdict::Holds => return,
        clock::Verdict::Due(anchor) => (anchor, false),
        clock::Verdict::Stepped(anchor) => (anchor, true),
    };
    shared.anchor.set(anchor);
    let at = anchor.stamp(anchor.boot);
    shared.ledger.record(&Record::Clock(anchor), at, None);
    if stepped {
        shared.ledger.record_gap(Gap {
            stage: Stage::Clock,
            scope: GapScope::Node,
            from: before.stamp(before.boot),
            to: at,
            count: None,
            reason: format!(
                "the wall clock stepped by {:+.3} s; boot times are not affected",
                anchor.step_ns as f64 / 1e9
            ),
        });
    }
}

/// Journals what was lost since the last time.
pub fn flush_gaps(shared: &Shared) {
    let anchor = shared.anchor.get();
    let gaps = shared
        .gaps
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .flush(&anchor);
    for gap in gaps {
        shared.ledger.record_gap(gap);
    }
}
