//! The process that sends notifications: started, watched, started anew.
//!
//! Promises: it runs without the agent's privileges, holds the receivers' secrets and every
//! protocol of theirs; the agent holds one end of a socket pair. What it says is bounded and
//! parsed with suspicion. When it ends, it is started again after a growing wait.

use plimsoll_api::notify::{FromSender, LINE_BYTES_MAX};
use plimsoll_api::protocol::read_line;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The first wait before a new start, and the longest.
const WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A running sender.
pub struct Running {
    /// Our end.
    pub stream: UnixStream,
    /// The process, when it is one of ours to wait for.
    pub child: Option<Child>,
}

/// Starts a sender.
pub type Launch = Box<dyn FnMut() -> io::Result<Running> + Send>;

/// What happens to the sender.
pub enum SenderNews {
    /// It has started: write to it here.
    Up(UnixStream),
    /// It has said something.
    Said(FromSender),
    /// It has ended, or could not be started.
    Down(String),
}

/// This program, by the kernel's own link: it leads there when the path is closed to the sender's
/// user (a home directory), or holds another version by now (`proc_pid_exe(5)`).
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Starts `plimsoll notify serve FILE` as `user`, with one end of a socket pair as its standard
/// input.
pub fn launcher(file: &Path, user: (u32, u32)) -> Launch {
    let file = file.to_owned();
    Box::new(move || {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(THIS_PROGRAM);
        command
            .arg0("plimsoll")
            .args(["notify", "serve"])
            .arg(&file)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(user.0).gid(user.1);
        }
        let child = command.spawn()?;
        Ok(Running {
            stream: ours,
            child: Some(child),
        })
    })
}

/// uid and gid of a user, from `/etc/passwd`.
pub fn user_ids(name: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [user, _, uid, gid, ..] = fields[..] else {
            return None;
        };
        (user == name).then_some(())?;
        Some((uid.parse().ok()?, gid.parse().ok()?))
    })
}

/// Keeps a sender running until `stop`; `news` is told what happens to it.
pub fn supervise(mut launch: Launch, stop: &Arc<AtomicBool>, mut news: impl FnMut(SenderNews)) {
    let mut wait = WAIT;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let why = match launch() {
            Ok(running) => listen(running, stop, &mut news),
            Err(e) => format!("it could not be started: {e}"),
        };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        news(SenderNews::Down(why));
        if begun.elapsed() > WAIT_MAX {
            wait = WAIT;
        }
        let until = Instant::now() + wait;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Hears it until it ends; why it did.
fn listen(running: Running, stop: &AtomicBool, news: &mut impl FnMut(SenderNews)) -> String {
    let Running { stream, mut child } = running;
    let ours = stream.try_clone().and_then(|ours| {
        // a sender that takes nothing must not hold up the agent
        ours.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(ours)
    });
    let why = match ours {
        Ok(ours) => {
            news(SenderNews::Up(ours));
            hear(stream, stop, news)
        }
        Err(e) => e.to_string(),
    };
    if let Some(child) = &mut child {
        // it ends by itself when its socket closes; one that does not is ended
        let _ = child.kill();
        let _ = child.wait();
    }
    why
}

fn hear(stream: UnixStream, stop: &AtomicBool, news: &mut impl FnMut(SenderNews)) -> String {
    let mut lines = BufReader::new(Patient { stream, stop });
    loop {
        match read_line(&mut lines, LINE_BYTES_MAX) {
            Ok(Some(line)) => match serde_json::from_slice::<FromSender>(&line) {
                Ok(said) => news(SenderNews::Said(said)),
                Err(e) => return format!("it said something that is not understood: {e}"),
            },
            Ok(None) => return "it has ended: its own words are on standard error".to_owned(),
            Err(e) => return e.to_string(),
        }
    }
}

/// Reads that go on waiting until the agent stops.
struct Patient<'a> {
    stream: UnixStream,
    stop: &'a AtomicBool,
}
impl io::Read for Patient<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(to) {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}
