//! Identity from what runtimes have put on disk before the first instruction runs.

use crate::cgroup::{CgroupIdentity, Layout};
use crate::facts::{Evidence, Facts, Verdict};
use crate::scan::Seed;
use plimsoll_model::BootNs;
use std::path::{Path, PathBuf};

/// Where runtimes keep what they know. Defaults, plus what running daemons' command lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Docker data roots.
    pub docker: Vec<PathBuf>,
}

/// The evidence of this machine's disk and `/proc`.
#[derive(Debug)]
pub struct Disk {}

impl Disk {
    /// Looks below `proc_root` for running daemons, adds the default places.
    pub fn new(proc_root: &Path, layout: Layout) -> Self {
        let _ = (proc_root, layout);
        Self {}
    }
}

impl Evidence for Disk {
    fn judge(&mut self, _: &str, _: BootNs) -> Verdict {
        Verdict::Undecided
    }
    fn facts(&mut self, _: &CgroupIdentity, _: BootNs) -> Result<Facts, String> {
        Err(String::new())
    }
    fn process(&mut self, _: u32) -> Option<Seed> {
        None
    }
    fn cgroup_path(&mut self, _: u64, _: u32) -> Option<String> {
        None
    }
}
