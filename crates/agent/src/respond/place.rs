//! Where a container is on this machine: its cgroup, its processes, what they are told apart by.
//!
//! Promises: a process counts as the container's when the kernel says that its cgroup is the
//! container's or below it (never by a name that a process chose), or when our kernel side has
//! followed it from there to wherever it has moved itself ([`Place::owns`]); it is told from a later
//! one with its number by its start. Nothing is executed. Bound: [`PROCESSES_MAX`].

use super::machine::KernelWord;
use plimsoll_model::Container;
use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_workload::Layout;
use std::fs;
use std::path::Path;

/// Processes of one container that are looked at.
pub(super) const PROCESSES_MAX: usize = 65_536;

/// A container's place in the hierarchy that identifies it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) layout: Layout,
    path: String,
    second: bool,
    cgroup_id: u64,
    kernel: KernelWord,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `Z`, …
    pub(crate) state: char,
    /// Its parent.
    pub(crate) parent: u32,
    /// Its session; 0: none was begun since process 1, or outside of this pid namespace.
    pub(crate) session: u32,
    /// Its terminal's device number; 0: none.
    pub(crate) tty: u32,
    /// Start, in ticks since boot.
    pub(crate) start_ticks: u64,
    /// Where code, stack and heap begin: drawn anew by each exec, kept by a fork.
    pub(crate) image: [u64; 3],
}

impl Place {
    /// Of a container that the agent knows; the error is a sentence for people.
    pub(super) fn of(container: &Container) -> Result<Self, String> {
        let layout = Layout::detect(Path::new("/proc")).map_err(|e| e.to_string())?;
        let path = container.cgroup_path.to_str_lossy().into_owned();
        if !path.starts_with('/') || path.len() < 2 {
            return Err("the container's cgroup is not known".to_owned());
        }
        Ok(Self {
            layout,
            path,
            second: container.cgroup_id & IN_SECOND_HIERARCHY != 0,
            cgroup_id: container.cgroup_id,
            kernel: KernelWord::default(),
        })
    }

    /// Of a container, with what the kernel side knows of its processes.
    pub(super) fn with(container: &Container, kernel: &KernelWord) -> Result<Self, String> {
        let kernel = kernel.clone();
        Ok(Self {
            kernel,
            ..Self::of(container)?
        })
    }

    /// Its path below the mount of the hierarchy that identifies it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the process is the container's, though it has moved itself to another cgroup.
    pub(super) fn owns(&self, pid: u32) -> bool {
        let followed = || self.kernel.get().and_then(|k| k.container_of(pid));
        self.holds(pid) || followed().is_some_and(|root| root == self.cgroup_id)
    }

    /// Whether the process is in the container's cgroup now.
    pub(super) fn holds(&self, pid: u32) -> bool {
        self.path_of(pid).is_some_and(|p| is_below(&p, &self.path))
    }

    /// A process's path in the hierarchy that identifies the container.
    pub(super) fn path_of(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = match self.second {
            false => self.layout.path_in(&text),
            true => self.layout.path_in_second(&text),
        };
        path.map(str::to_owned)
    }

    /// Its processes, lowest number first, wherever they have moved themselves.
    pub(super) fn owned(&self) -> Vec<u32> {
        self.those(|pid| self.owns(pid))
    }

    /// The processes in its cgroup, lowest number first.
    pub(super) fn members(&self) -> Vec<u32> {
        self.those(|pid| self.holds(pid))
    }

    fn those(&self, is: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut all: Vec<u32> = pids().filter(|pid| is(*pid)).collect();
        all.sort_unstable();
        all.truncate(PROCESSES_MAX);
        all
    }
}

/// Whether a cgroup's path is `root` or lies below it.
pub(super) fn is_below(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root);
    rest.is_some_and(|r| r.is_empty() || r.starts_with('/'))
}

/// Every process of the machine.
pub(super) fn pids() -> impl Iterator<Item = u32> {
    let dir = fs::read_dir("/proc").into_iter().flatten().flatten();
    dir.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// What the kernel says of a process; `None`: there is none of that number.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // the name in the middle may hold anything, brackets too: the last one counts
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // numbered from 1 in proc(5), where the state is the third
    let field = |n: usize| rest.get(n - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: rest.first()?.chars().next()?,
        parent: rest.get(1)?.parse().ok()?,
        session: rest.get(3)?.parse().ok()?,
        tty: rest.get(4)?.parse::<i32>().ok()? as u32,
        start_ticks: field(22)?,
        image: [field(26)?, field(28)?, field(47)?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_whose_name_begins_alike_is_not_below() {
        assert!(is_below("/docker/ab", "/docker/ab") && is_below("/docker/ab/x", "/docker/ab"));
        assert!(!is_below("/docker/abc", "/docker/ab") && !is_below("/", "/docker/ab"));
    }
}
