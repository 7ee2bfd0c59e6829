//! Pinned hooks that no agent comes back for go by themselves.
//!
//! With an agent that pins its hooks a small process is started that waits for its end: of its own
//! session, in the root of every cgroup hierarchy, so that what ends the agent does not end it. When the
//! agent has ended and none has taken over within `hooks.remove_after`, it takes out what is left.
//!
//! Promises: never anything of a living agent's. It takes no lock until the time has come; then the lock
//! that agents hold on their place (a starting one waits for it some seconds); and it takes out only what
//! the agent left that it was started by, and only where the programs' own limit is over. Left out: that
//! limit (the programs keep to it themselves), and what other agents left.

use crate::respond::freeze::leave_cgroups;
use plimsoll_sensor::{Left, left_by, unpin_left_by};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The hidden command that is the process.
pub const UNPIN_LATER: &str = "unpin-later";
/// How often it looks whether another agent has come.
const LOOK: Duration = Duration::from_secs(10);

/// Ends with the agent, which is how the process learns of that.
#[derive(Debug)]
pub struct Alive(#[expect(dead_code, reason = "open as long as the agent lives")] UnixStream);

/// Starts the process. `after`: how long what is left waits for an agent.
///
/// # Errors
/// When it cannot be started.
pub fn begin(program: &Path, home: &Path, after: Duration) -> io::Result<Alive> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(program)
        .arg0("plimsoll")
        .arg(UNPIN_LATER)
        .arg(home)
        .args([std::process::id().to_string(), after.as_secs().to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // only so that it leaves no zombie, should it end before the agent does
    let reap = move || drop(child.wait());
    std::thread::Builder::new()
        .name("leftover".into())
        .spawn(reap)?;
    Ok(Alive(ours))
}

/// The process itself; its standard input ends with the agent that was process `pid`.
///
/// # Errors
/// When the agent's end cannot be waited for.
pub fn wait(home: &Path, pid: u32, after: Duration) -> io::Result<()> {
    let _ = rustix::process::setsid();
    // where it stays in the agent's, it may end with that: then what is left waits for the next agent
    let _ = leave_cgroups();
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    let due = boot() + after;
    while left_by(home, pid) == Left::Waits {
        let rest = due.saturating_sub(boot());
        // refused where an agent is starting this very moment, or the programs work still
        if rest.is_zero() && unpin_left_by(home, pid).is_ok() {
            break;
        }
        std::thread::sleep(if rest.is_zero() { LOOK } else { rest.min(LOOK) });
    }
    Ok(())
}

fn boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
