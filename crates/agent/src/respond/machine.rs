//! What is acted upon, and what every effect needs to know of the machine.

use super::capture::masks::Masks;
use super::capture::room::Room;
use crate::kernel::Kernel;
use plimsoll_model::{Container, ProcessKey, Text};
use std::path::PathBuf;
use std::sync::Arc;

/// What is acted upon.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The container, as it was known when the plan was made.
    pub container: Arc<Container>,
    /// The process that gave cause, where it is known.
    pub process: Option<ProcessKey>,
    /// The program that gave cause, as the container sees it, where it is known.
    pub program: Option<Text>,
    /// The plan, for names of bundles and blocks.
    pub plan: String,
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
