//! Processes that the kernel stopped at their exec, until somebody decides.
//!
//! Promises: every one of them is decided: by the pipeline, at its deadline, or when the switch is
//! turned off; none waits longer than its terms say. A process is addressed by a descriptor whose
//! start was checked, so that a number that changed hands is never signalled. Bounded by [`HELD_MAX`]:
//! beyond, a process goes on at once.

use plimsoll_model::{BootNs, ProcessKey};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Processes that wait at a time.
pub const HELD_MAX: usize = 4096;
/// Nanoseconds of one tick of `/proc/PID/stat` (`USER_HZ` is 100 on every architecture we run on).
const TICK_NS: u64 = 10_000_000;

/// How long a container's processes wait, and what becomes of them then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Longest wait.
    pub within_ns: u64,
    /// Killed when nobody decided; else continued.
    pub kill: bool,
}

impl Default for Terms {
    fn default() -> Self {
        let within_ns = plimsoll_respond::enforcement::DECIDE_WITHIN_MS * 1_000_000;
        Self {
            within_ns,
            kill: false,
        }
    }
}

/// A process whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Which.
    pub process: ProcessKey,
    /// Root cgroup of its container.
    pub cgroup_id: u64,
    /// It was killed; else continued.
    pub killed: bool,
    /// Since when it waited.
    pub since: BootNs,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    cgroup_id: u64,
    since: BootNs,
    deadline: u64,
    kill: bool,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Held(Mutex<BTreeMap<ProcessKey, Waiting>>);

impl Held {
    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<ProcessKey, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A process was stopped. `false`: too many wait already, it goes on.
    pub fn note(&self, process: ProcessKey, cgroup_id: u64, since: BootNs, terms: Terms) -> bool {
        let mut table = self.table();
        if table.len() >= HELD_MAX {
            drop(table);
            resume(process);
            return false;
        }
        let waiting = Waiting {
            cgroup_id,
            since,
            deadline: since.0.saturating_add(terms.within_ns),
            kill: terms.kill,
        };
        table.insert(process, waiting);
        true
    }

    /// Decides about a process; `false`: it was decided before, or is not known.
    pub fn decide(&self, process: ProcessKey, kill: bool) -> bool {
        // the lock is held over the signal: nobody else decides otherwise meanwhile
        let mut table = self.table();
        if table.remove(&process).is_none() {
            return false;
        }
        settle(process, kill);
        true
    }

    /// Decides about those whose time is up.
    pub fn overdue(&self, now: BootNs) -> Vec<Overdue> {
        let mut table = self.table();
        let mut late = Vec::new();
        table.retain(|process, w| {
            let waits = w.deadline > now.0;
            if !waits {
                late.push((*process, *w));
            }
            waits
        });
        let decide = |(process, w): (ProcessKey, Waiting)| {
            settle(process, w.kill);
            Overdue {
                process,
                cgroup_id: w.cgroup_id,
                killed: w.kill,
                since: w.since,
            }
        };
        late.into_iter().map(decide).collect()
    }

    /// Lets everybody go on.
    pub fn release(&self) -> usize {
        let mut table = self.table();
        let all = std::mem::take(&mut *table);
        all.keys().for_each(|process| resume(*process));
        all.len()
    }
}

fn settle(process: ProcessKey, kill: bool) {
    let signal = if kill { Signal::KILL } else { Signal::CONT };
    send(process, signal);
}

/// Lets a process go on.
fn resume(process: ProcessKey) {
    send(process, Signal::CONT);
}

/// A process that has ended meanwhile needs nothing.
fn send(process: ProcessKey, signal: Signal) {
    let Some(pid) = i32::try_from(process.tgid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    // after opening: the number cannot change hands while the descriptor's process lives
    if stat(process.tgid).is_some_and(|s| s.start_ticks.abs_diff(process.start.0 / TICK_NS) <= 1) {
        let _ = pidfd_send_signal(&fd, signal);
    }
}

struct Stat {
    state: char,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // the name in the middle may hold anything, brackets too: the last one counts
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: rest.first()?.chars().next()?,
        start_ticks: rest.get(19)?.parse().ok()?,
    })
}

/// Continues a process that an agent before this one may have left stopped; `true`: it was.
pub fn resume_left_over(process: ProcessKey) -> bool {
    let stopped = stat(process.tgid).is_some_and(|s| s.state == 'T');
    if stopped {
        resume(process);
    }
    stopped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    struct Sleeper(Child);
    impl Sleeper {
        /// A stopped process.
        fn stopped() -> Self {
            let child = Command::new("sleep")
                .arg("600")
                .stdin(Stdio::null())
                .spawn();
            let sleeper = Self(child.unwrap());
            let pid = Pid::from_raw(sleeper.0.id() as i32).unwrap();
            rustix::process::kill_process(pid, Signal::STOP).unwrap();
            sleeper.wait_for('T');
            sleeper
        }
        fn key(&self) -> ProcessKey {
            let ticks = stat(self.0.id()).unwrap().start_ticks;
            ProcessKey {
                tgid: self.0.id(),
                start: BootNs(ticks * TICK_NS + 3),
            }
        }
        fn state(&self) -> char {
            stat(self.0.id()).map_or('X', |s| s.state)
        }
        fn wait_for(&self, state: char) {
            let end = Instant::now() + Duration::from_secs(120);
            while self.state() != state {
                assert!(Instant::now() < end, "not {state} but {}", self.state());
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_decision_kills_or_continues_and_is_taken_once() {
        let (bad, good) = (Sleeper::stopped(), Sleeper::stopped());
        let held = Held::default();
        for s in [&bad, &good] {
            assert!(held.note(s.key(), 7, BootNs(0), Terms::default()));
        }
        assert!(held.decide(bad.key(), true));
        assert!(held.decide(good.key(), false));
        bad.wait_for('Z');
        good.wait_for('S');
        assert!(!held.decide(good.key(), true));
        assert_eq!(good.state(), 'S');
    }

    #[test]
    fn a_process_that_nobody_decides_about_goes_on_at_its_deadline() {
        let (open, strict) = (Sleeper::stopped(), Sleeper::stopped());
        let held = Held::default();
        let terms = |kill| Terms {
            within_ns: 100,
            kill,
        };
        held.note(open.key(), 7, BootNs(1000), terms(false));
        held.note(strict.key(), 7, BootNs(1000), terms(true));
        assert!(held.overdue(BootNs(1099)).is_empty());
        assert_eq!(held.overdue(BootNs(1100)).len(), 2);
        open.wait_for('S');
        strict.wait_for('Z');
        assert!(held.is_empty());
    }

    #[test]
    fn a_number_that_changed_hands_is_left_alone() {
        let other = Sleeper::stopped();
        let key = ProcessKey {
            start: BootNs(other.key().start.0 + 10 * TICK_NS),
            ..other.key()
        };
        let held = Held::default();
        held.note(key, 7, BootNs(0), Terms::default());
        assert!(held.decide(key, true));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(other.state(), 'T');
    }

    #[test]
    fn the_switch_lets_everybody_go_on() {
        let s = Sleeper::stopped();
        let held = Held::default();
        held.note(s.key(), 7, BootNs(0), Terms::default());
        assert_eq!(held.release(), 1);
        s.wait_for('S');
    }
}
