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

use crate::beside::{self, boot};
use plimsoll_sensor::{Left, left_by, unpin_left_by};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
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
    let child = beside::command(program, UNPIN_LATER)
        .arg(home)
        .args([std::process::id().to_string(), after.as_secs().to_string()])
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    beside::reap(child, "leftover")?;
    Ok(Alive(ours))
}

/// The process itself; its standard input ends with the agent that was process `pid`.
///
/// # Errors
/// When the agent's end cannot be waited for.
pub fn wait(home: &Path, pid: u32, after: Duration) -> io::Result<()> {
    // where it stays in the agent's, it may end with that: then what is left waits for the next agent
    let _ = beside::stand_alone();
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
