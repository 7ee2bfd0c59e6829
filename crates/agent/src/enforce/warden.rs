//! Keeps the kernel's permission to prevent alive, decides about those who waited too long, and looks
//! at the policy file and the switch's file.
//!
//! Promises: everything here goes on while pipeline, journal and sockets are stuck. A policy that
//! changed is taken whole or not at all: what is wrong with it is told once, and the one before stays
//! in force. A file `enforcement.off` in the data directory, or SIGUSR1, turns the switch off within
//! [`super::BEAT_EVERY`]; removing the file turns it on.

use super::{BEAT_EVERY, Enforcement, InForce};
use crate::gaps::Loss;
use crate::shared::Shared;
use plimsoll_model::record::{Decision, Lifecycle};
use plimsoll_model::{BootNs, Gap, GapScope, Record, Stage};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the policy file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a file looked like: enough to see that it changed.
type Look = Option<(u64, u64, i64, i64)>;

fn look(path: &Path) -> Look {
    let m = std::fs::metadata(path).ok()?;
    Some((m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

/// The thread's state.
pub struct Warden {
    shared: Arc<Shared>,
    enforcement: Arc<Enforcement>,
    off_file: PathBuf,
    policy: Option<PathBuf>,
    /// Set by SIGUSR1.
    off: Arc<AtomicBool>,
    /// Nothing has been said to the kernel yet.
    first: bool,
    /// The file's look when it was read last, and when it was seen last.
    done: Look,
    seen: Look,
    looked: Instant,
}

impl Warden {
    /// For the policy of a start.
    pub fn new(shared: Arc<Shared>, policy: Option<PathBuf>, off: Arc<AtomicBool>) -> Self {
        let enforcement = shared.enforcement.clone();
        let now = policy.as_deref().and_then(look);
        Self {
            off_file: enforcement.off_file.clone(),
            shared,
            enforcement,
            policy,
            off,
            first: true,
            done: now,
            seen: now,
            looked: Instant::now(),
        }
    }

    /// Runs until told to stop; then nothing is prevented any more, and nobody waits.
    pub fn run(mut self, stopped: &crossbeam_channel::Receiver<()>) {
        use crossbeam_channel::RecvTimeoutError::Timeout;
        loop {
            self.step();
            if stopped.recv_timeout(BEAT_EVERY) != Err(Timeout) {
                break;
            }
        }
        self.enforcement.silence();
    }

    /// One look around.
    pub fn step(&mut self) {
        self.look_at_switch();
        self.beat();
        self.decide_overdue();
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look_at_policy();
        }
    }

    fn look_at_switch(&mut self) {
        let by_signal = self.off.swap(false, Ordering::Relaxed);
        let off = by_signal || self.off_file.exists();
        if off == self.enforcement.is_off() {
            return;
        }
        let turned = match by_signal {
            true => self.enforcement.switch(off),
            false => Ok(self.enforcement.turn(off)),
        };
        let (method, reason) = match by_signal {
            true => ("signal", "SIGUSR1"),
            false => ("file", "the file of the switch"),
        };
        let at = self.shared.anchor.stamp(self.shared.clocks.boot());
        let decision = Decision {
            at,
            action: match off {
                true => "enforcement.off".to_owned(),
                false => "enforcement.on".to_owned(),
            },
            subject: self.off_file.display().to_string(),
            reason: match turned {
                Ok(_) => reason.to_owned(),
                Err(e) => format!("{reason}; {e}"),
            },
            uid: u32::MAX,
            login_uid: u32::MAX,
            method: method.to_owned(),
        };
        let ledger = &self.shared.ledger;
        ledger.record_urgent(&Record::Decision(decision), at, None);
        self.tell();
    }

    /// The record of what is in force now.
    fn tell(&self) {
        let at = self.shared.anchor.stamp(self.shared.clocks.boot());
        let record = Record::Enforcement(self.enforcement.record(at));
        self.shared.ledger.record_urgent(&record, at, None);
    }

    fn beat(&mut self) {
        let now = self.shared.clocks.boot();
        let why = match std::mem::take(&mut self.first) {
            true => "no agent was there",
            false => "the agent was held up",
        };
        match self.enforcement.beat(now) {
            Ok(None) => {}
            Ok(Some(since)) => self.lapsed(since, now, why),
            Err(e) => self.lapsed(now, now, &format!("the kernel side refuses: {e}")),
        }
    }

    fn lapsed(&self, from: BootNs, to: BootNs, why: &str) {
        let anchor = self.shared.anchor.get();
        self.shared.ledger.record_gap(Gap {
            stage: Stage::Enforcement,
            scope: GapScope::Node,
            from: anchor.stamp(from),
            to: anchor.stamp(to),
            count: None,
            reason: format!("nothing was prevented: {why}"),
        });
    }

    fn decide_overdue(&self) {
        let now = self.shared.clocks.boot();
        for late in self.enforcement.held().overdue(now) {
            let done = if late.killed { "killed" } else { "continued" };
            self.shared.ledger.note(Loss {
                stage: Stage::Enforcement,
                instance: self.shared.instance_at(late.cgroup_id),
                count: Some(1),
                from: late.since,
                to: now,
                reason: format!("nobody decided in time about a program stopped at exec: {done}")
                    .into(),
            });
        }
    }

    /// A file that is still being written is left alone until it has been the same for one look.
    fn look_at_policy(&mut self) {
        let Some(path) = self.policy.clone() else {
            return;
        };
        let now = look(&path);
        let settled = std::mem::replace(&mut self.seen, now) == now;
        if !settled || now == self.done {
            return;
        }
        self.done = now;
        match InForce::read(Some(&path)) {
            Ok(read) if *self.enforcement.in_force() == read => self.enforcement.set_problem(None),
            Ok(read) => {
                self.enforcement.replace(read);
                self.tell();
            }
            Err(e) => self.refused(&e.to_string()),
        }
    }

    fn refused(&self, why: &str) {
        eprintln!("plimsoll: the changed enforcement policy is not in force: {why}");
        self.enforcement.set_problem(Some(why.to_owned()));
        let at = self.shared.anchor.stamp(self.shared.clocks.boot());
        let refused = Lifecycle {
            what: "enforcement".to_owned(),
            at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details: vec![
                ("refused".to_owned(), why.to_owned()),
                (
                    "in_force".to_owned(),
                    self.enforcement.in_force().policy.digest.clone(),
                ),
            ],
        };
        let record = Record::Lifecycle(refused);
        self.shared.ledger.record_urgent(&record, at, None);
    }
}
