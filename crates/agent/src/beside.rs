//! Processes of the agent's own program that do one thing beside it and may outlive it.
//!
//! Promises: they get no environment, and no cgroup of the agent's ends them where they could leave it.
//! Left out: what they do (`leftover`, `respond::freeze`).

use plimsoll_workload::Layout;
use plimsoll_workload::cgroup::Hierarchy;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// `program` with a hidden command.
pub(crate) fn command(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.arg0("plimsoll").arg(name);
    command.env_clear().current_dir("/");
    command
}

/// Waits for it on a thread, only so that it leaves no zombie while the agent lives.
///
/// # Errors
/// When there is no thread for that.
pub(crate) fn reap(mut child: Child, thread: &str) -> io::Result<()> {
    std::thread::Builder::new()
        .name(thread.to_owned())
        .spawn(move || drop(child.wait()))
        .map(drop)
}

/// In the process itself: leaves the agent's session and cgroups. Where the latter failed.
pub(crate) fn stand_alone() -> Vec<String> {
    let _ = rustix::process::setsid();
    let Ok(layout) = Layout::detect(Path::new("/proc")) else {
        return vec!["no cgroups are mounted".to_owned()];
    };
    let leave = |h: &Hierarchy| fs::write(h.mount.join("cgroup.procs"), "0");
    let stayed = layout.all.iter().filter(|h| leave(h).is_err());
    stayed.map(|h| h.mount.display().to_string()).collect()
}

/// Time since the machine's start, sleep included.
pub(crate) fn boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
