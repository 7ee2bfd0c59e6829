//! Kills the acting process and its descendants, and nothing else.
//!
//! Promises: a process is addressed by a descriptor that cannot come to mean another one; its
//! start, and that the kernel says it is the container's, are checked after that was opened. None
//! is kept open, so that the number of processes meets no limit of files. The container's first
//! process is left alone, because its death would end the container before anything was kept. The
//! container is frozen while its tree is read (with a watchdog, as every freeze), or else each
//! process is stopped when it is found, so that none forks away. It counts when every one of them
//! was seen to be gone. What was paused is paused again. Bounded by [`PROCESSES_MAX`].
//!
//! Left out: descendants whose parent had ended before; the kernel has given them to another
//! parent by then, and nothing there tells whose they were.

use super::freeze::{self, Freezer, Hold};
use super::machine::{Machine, Target};
use super::place::{Place, pids, stat};
use plimsoll_model::ProcessKey;
use plimsoll_model::response::StepOutcome;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Processes killed at most in one step.
pub const PROCESSES_MAX: usize = 16_384;
/// How often new descendants are looked for.
const ROUNDS: usize = 64;
/// How long the killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the container may stand still meanwhile, agent or not.
const STANDSTILL: Duration = Duration::from_secs(10);
/// Nanoseconds of one tick of `/proc/PID/stat` (`USER_HZ` is 100 on every architecture we run on).
const TICK_NS: u64 = 10_000_000;

/// Processes that are to be killed, each with its start in ticks since boot.
type Tree = BTreeMap<u32, u64>;

/// Carries it out.
pub(super) fn kill_tree(machine: &Machine, target: &Target) -> StepOutcome {
    let failed = |why: String| StepOutcome::Failed { why };
    let Some(root) = target.process else {
        return failed("the acting process is not known".to_owned());
    };
    let place = match Place::with(&target.container, &machine.kernel) {
        Ok(place) => place,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    if !stat(root.tgid).is_some_and(|s| started(s.start_ticks, root)) {
        return done("the process had ended already".to_owned());
    }
    let refused = |why: &str| StepOutcome::Refused {
        why: why.to_owned(),
    };
    if root.tgid == std::process::id() {
        return refused("it is the agent");
    }
    let first = first_process(&place);
    if first == Some(root.tgid) {
        return refused("it is the container's first process: killing it would end the container");
    }
    let hold = freeze::hold(machine, &target.container, STANDSTILL).ok();
    let freezers = Freezer::all(&target.container);
    let paused = match hold {
        Some(_) => None,
        None => freezers.iter().find(|f| f.is_frozen()),
    };
    let tree = find(&place, root, first);
    let Some((tree, mut complete)) = tree else {
        drop(hold);
        return failed("it is not in the container any more".to_owned());
    };
    for (pid, start_ticks) in &tree {
        complete &= send(&place, *pid, Some(*start_ticks), Signal::KILL) != Sent::NotPossible;
    }
    let left = end(&tree, hold, paused);
    match (left, complete) {
        (Ok(()), true) => done(format!(
            "{} processes killed, and each was seen to be gone",
            tree.len()
        )),
        (Ok(()), false) => failed(format!(
            "{} processes were killed; there were more, which multiplied faster than they could be stopped, or could not be opened",
            tree.len()
        )),
        (Err(why), _) => failed(why),
    }
}

/// Sends the end to every process of the container, which the frozen ones meet when they are
/// thawed.
pub(super) fn queue_all(machine: &Machine, target: &Target) {
    let Ok(place) = Place::with(&target.container, &machine.kernel) else {
        return;
    };
    for pid in place.owned() {
        let _ = send(&place, pid, None, Signal::KILL);
    }
}

/// Waits until all are gone. Where the container stood still by the v1 freezer, under which
/// nothing dies, it is let go for that, and paused again if it was before.
fn end(tree: &Tree, hold: Option<Hold>, paused: Option<&Freezer>) -> Result<(), String> {
    if let Some(hold) = hold {
        hold.release().map_err(|e| e.to_string())?;
    }
    let thawed = paused.filter(|f| f.is_v1());
    if let Some(freezer) = thawed {
        freezer.set(false).map_err(|e| e.to_string())?;
    }
    let until = Instant::now() + PATIENCE;
    let there = || tree.iter().filter(|(p, t)| is_there(**p, **t)).count();
    while there() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    let left = there();
    if let Some(freezer) = thawed {
        freezer
            .set(true)
            .map_err(|e| format!("it was paused, and could not be paused again: {e}"))?;
    }
    match left {
        0 => Ok(()),
        n => Err(format!("{n} killed processes were still there after 5 s")),
    }
}

/// A zombie holds nothing but its number.
fn is_there(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|s| s.start_ticks == start_ticks && !matches!(s.state, 'Z' | 'X'))
}

fn done(effect: String) -> StepOutcome {
    StepOutcome::Done {
        effect,
        sealed: None,
        undo: Vec::new(),
    }
}

/// The root and every descendant, each stopped, until a look finds no new one; whether it came to
/// that.
fn find(place: &Place, root: ProcessKey, first: Option<u32>) -> Option<(Tree, bool)> {
    let mut tree = Tree::new();
    let start_ticks = stat(root.tgid)?.start_ticks;
    if !started(start_ticks, root)
        || send(place, root.tgid, Some(start_ticks), Signal::STOP) != Sent::To(start_ticks)
    {
        return None;
    }
    tree.insert(root.tgid, start_ticks);
    for _ in 0..ROUNDS {
        let before = tree.len();
        let mut all = true;
        let parents = parents();
        for &pid in parents.keys() {
            let new = !tree.contains_key(&pid) && Some(pid) != first;
            if !new || !descends(pid, root.tgid, &parents) {
                continue;
            }
            if tree.len() >= PROCESSES_MAX {
                return Some((tree, false));
            }
            match send(place, pid, None, Signal::STOP) {
                Sent::To(start_ticks) => drop(tree.insert(pid, start_ticks)),
                Sent::Nobody => {}
                Sent::NotPossible => all = false,
            }
        }
        if all && tree.len() == before {
            return Some((tree, true));
        }
    }
    Some((tree, false))
}

/// What became of a signal.
#[derive(PartialEq, Eq)]
enum Sent {
    /// It went to the process that started then, in ticks since boot.
    To(u64),
    /// No such process, or none of the container's.
    Nobody,
    /// Refused by the kernel, or for want of descriptors.
    NotPossible,
}

/// Sends a signal to a process of the container, the one that started at `start_ticks` if that is
/// given.
fn send(place: &Place, pid: u32, start_ticks: Option<u64>, signal: Signal) -> Sent {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Sent::Nobody;
    };
    let fd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Sent::Nobody,
        Err(_) => return Sent::NotPossible,
    };
    // after opening: the number cannot change hands while the descriptor's process lives, and
    // when it has ended, the signal reaches nobody
    let now = stat(pid).map(|s| s.start_ticks);
    let Some(now) = now.filter(|n| start_ticks.is_none_or(|s| s == *n) && place.owns(pid)) else {
        return Sent::Nobody;
    };
    match pidfd_send_signal(&fd, signal) {
        Ok(()) => Sent::To(now),
        Err(Errno::SRCH) => Sent::Nobody,
        Err(_) => Sent::NotPossible,
    }
}

/// The process with which the container began: of those whose parent is outside, the eldest. (Not
/// "number 1 in its pid namespace": a container may have none of its own, or make further ones.)
fn first_process(place: &Place) -> Option<u32> {
    let members = place.owned();
    let began = |pid: &u32| Some((stat(*pid)?, *pid));
    let outside = |(s, _): &(super::place::Stat, u32)| members.binary_search(&s.parent).is_err();
    let begun = members.iter().filter_map(began).filter(outside);
    begun
        .min_by_key(|(s, pid)| (s.start_ticks, *pid))
        .map(|(_, pid)| pid)
}

fn descends(mut pid: u32, root: u32, parents: &BTreeMap<u32, u32>) -> bool {
    for _ in 0..4096 {
        match parents.get(&pid) {
            Some(&parent) if parent == root => return true,
            Some(&parent) if parent != 0 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn parents() -> BTreeMap<u32, u32> {
    pids()
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect()
}

fn started(ticks: u64, key: ProcessKey) -> bool {
    ticks.abs_diff(key.start.0 / TICK_NS) <= 1
}
