//! What is acted upon, and what every effect needs to know of the machine.

use super::capture::masks::Masks;
use super::capture::room::Room;
use crate::kernel::Kernel;
use plimsoll_model::{
    BootNs, Container, ContainerId, ContainerState, Instance, ProcessKey, Runtime, Stamp, Text,
};
use plimsoll_workload::Layout;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is acted upon.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The container, as it was known when the step was begun.
    pub container: Arc<Container>,
    /// The process that gave cause, where it is known.
    pub process: Option<ProcessKey>,
    /// The program that gave cause, as the container sees it, where it is known.
    pub program: Option<Text>,
    /// The plan, for names of bundles and blocks.
    pub plan: String,
}

impl Target {
    /// The container in which a process runs, as an agent would know it: for tests and benches that
    /// act without one. By the hierarchy that knows it: the second where the first has no cgroup of it.
    ///
    /// # Errors
    /// When the process has ended or is in no cgroup, in words.
    pub fn running(id: &str, pid: u32, plan: &str) -> Result<Self, String> {
        let layout = Layout::detect(Path::new("/proc")).map_err(|e| e.to_string())?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let text = text.map_err(|e| format!("process {pid}: {e}"))?;
        let place = layout.marked_path(&text);
        let (path, mark) = place.ok_or_else(|| format!("process {pid} is in no cgroup"))?;
        let instance = Instance {
            id: ContainerId::parse(id).map_err(|e| e.to_string())?,
            start: BootNs(1),
        };
        let container = Container {
            state: ContainerState::Running,
            cgroup_id: 1 | mark,
            cgroup_path: Text::new(path.as_bytes()),
            ..Container::new(instance, Runtime::Oci, Stamp::default())
        };
        Ok(Target {
            container: Arc::new(container),
            process: None,
            program: None,
            plan: plan.to_owned(),
        })
    }
}

/// What the effects need to know of this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Sockets of Docker or Podman.
    pub docker_sockets: Vec<PathBuf>,
    /// Where bundles are kept.
    pub captures_dir: PathBuf,
    /// Where agent and watchdogs agree on what is frozen, and until when.
    pub freezes_dir: PathBuf,
    /// The network namespace of the node, where that is not the one of its first process.
    pub node_network: Option<PathBuf>,
    /// The program whose hidden commands are helpers of effects: this one.
    pub program: PathBuf,
    /// Keys to which captures are encrypted (age recipients).
    pub recipients: Vec<String>,
    /// Where is kept which programs are forbidden, and until when.
    pub blocks_dir: PathBuf,
    /// The kernel side, where one runs.
    pub kernel: KernelWord,
    /// What captures may fill.
    pub captures_room: Room,
    /// How secrets in environments, arguments and labels are masked in captures.
    pub masks: Masks,
}

/// The kernel side's word, where one runs: whose a process is, what it runs, what must not run.
#[derive(Clone, Default)]
pub struct KernelWord(Option<Arc<dyn Kernel>>);

impl KernelWord {
    /// Of this kernel side.
    pub fn of(kernel: Arc<dyn Kernel>) -> Self {
        Self(Some(kernel))
    }
    pub(super) fn get(&self) -> Option<&dyn Kernel> {
        self.0.as_deref()
    }
}

impl std::fmt::Debug for KernelWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "loaded" } else { "none" })
    }
}

impl PartialEq for KernelWord {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}
