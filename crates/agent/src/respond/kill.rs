//! Kills the acting process and its descendants, and nothing else.
//!
//! Promises: a process is addressed by a descriptor that cannot come to mean another one; its
//! start, and that it is the container's, are checked on that descriptor's process before it is
//! touched; the container's first process is left alone, because its death would end the
//! container before anything was kept. All are stopped before one is killed, so that none forks
//! away. Bounded by [`PROCESSES_MAX`].

use plimsoll_model::response::StepOutcome;
use plimsoll_model::{Container, ProcessKey};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;

/// Processes killed at most in one step.
pub const PROCESSES_MAX: usize = 4096;
/// How often new descendants are looked for.
const ROUNDS: usize = 8;
/// Nanoseconds of one tick of `/proc/PID/stat` (`USER_HZ` is 100 on every architecture we run on).
const TICK_NS: u64 = 10_000_000;

/// Carries it out.
pub fn kill_tree(container: &Container, process: Option<ProcessKey>) -> StepOutcome {
    let failed = |why: &str| StepOutcome::Failed {
        why: why.to_owned(),
    };
    let Some(root) = process else {
        return failed("the acting process is not known");
    };
    match stat(root.tgid) {
        None => return already(),
        Some(s) if !started(s.start_ticks, root) => return already(),
        Some(_) => {}
    }
    if root.tgid == std::process::id() {
        return refused("it is the agent");
    }
    if is_first(root.tgid) {
        return refused("it is the container's first process: killing it would end the container");
    }
    let Some(tree) = stop_all(container, root) else {
        return failed("it is not in the container any more");
    };
    let killed = tree
        .values()
        .filter(|fd| pidfd_send_signal(fd, Signal::KILL).is_ok())
        .count();
    for _ in 0..100 {
        if tree
            .keys()
            .all(|pid| stat(*pid).is_none_or(|s| s.state == 'Z'))
        {
            return StepOutcome::Done {
                effect: format!("{killed} processes killed, and seen to be gone"),
                sealed: None,
                undo: Vec::new(),
            };
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    failed("killed processes were still there after 2 s")
}

fn already() -> StepOutcome {
    StepOutcome::Done {
        effect: "the process had ended already".to_owned(),
        sealed: None,
        undo: Vec::new(),
    }
}

fn refused(why: &str) -> StepOutcome {
    StepOutcome::Refused {
        why: why.to_owned(),
    }
}

/// Stops the root and every descendant, until a look finds no new one.
fn stop_all(container: &Container, root: ProcessKey) -> Option<BTreeMap<u32, OwnedFd>> {
    let mut tree = BTreeMap::new();
    let fd = open(container, root.tgid)?;
    if !stat(root.tgid).is_some_and(|s| started(s.start_ticks, root)) {
        return None;
    }
    let _ = pidfd_send_signal(&fd, Signal::STOP);
    tree.insert(root.tgid, fd);
    for _ in 0..ROUNDS {
        let before = tree.len();
        let parents = parents();
        for &pid in parents.keys() {
            if tree.len() >= PROCESSES_MAX || tree.contains_key(&pid) || is_first(pid) {
                continue;
            }
            if !descends(pid, root.tgid, &parents) {
                continue;
            }
            if let Some(fd) = open(container, pid) {
                let _ = pidfd_send_signal(&fd, Signal::STOP);
                tree.insert(pid, fd);
            }
        }
        if tree.len() == before {
            break;
        }
    }
    Some(tree)
}

/// A descriptor of a process of the container.
fn open(container: &Container, pid: u32) -> Option<OwnedFd> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let fd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
    // after opening: the pid cannot change hands while the descriptor's process lives
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup.contains(container.id().as_str()).then_some(fd)
}

fn descends(mut pid: u32, root: u32, parents: &BTreeMap<u32, u32>) -> bool {
    for _ in 0..256 {
        match parents.get(&pid) {
            Some(&parent) if parent == root => return true,
            Some(&parent) if parent != 0 => pid = parent,
            _ => return false,
        }
    }
    false
}

fn parents() -> BTreeMap<u32, u32> {
    let dir = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = dir.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect()
}

struct Stat {
    state: char,
    parent: u32,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // the name in the middle may hold anything, brackets too: the last one counts
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: rest.first()?.chars().next()?,
        parent: rest.get(1)?.parse().ok()?,
        start_ticks: rest.get(19)?.parse().ok()?,
    })
}

fn started(ticks: u64, key: ProcessKey) -> bool {
    ticks.abs_diff(key.start.0 / TICK_NS) <= 1
}

/// The first process of a pid namespace that is not ours.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pids = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    pids.is_some_and(|p| p.split_whitespace().last() == Some("1"))
}
