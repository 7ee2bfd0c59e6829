//! Which threads of the agent go before others, and how much they may take so.
//!
//! Reader, pipeline and journal stand between an act and its alert: beside a container that takes every
//! processor they would wait for one like everybody else. So their nice value is raised
//! (`scheduling.nice`), and where the kernel shares time between sessions (autogroup), that of the agent's
//! own session. A nice value decides who gets more, not who gets it now: whoever wakes may still wait for
//! the next tick of the clock, several times on the way to the disk. So the same threads go first
//! (`scheduling.real_time`, `SCHED_RR`) where the kernel lets them.
//!
//! Promises:
//! - What the kernel refuses is said (standard error, start record, `status`, `doctor`) and stops nothing.
//! - Who looks at that goes before them, so that they cannot keep it from looking.
//! - Raised, they take at most [`SHARE_PERCENT`] of all processors over [`LOOK_EVERY`]; beyond, they are as
//!   ordinary as everybody else for [`CALM`]. So whoever floods the agent cannot starve the machine
//!   through it.
//! - What a raised thread starts is ordinary.
//!
//! Left out: weights of cgroups, which are the service manager's.

use crate::respond::place::stat;
use rustix::process::Pid;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of all processors, what raised threads may take.
pub const SHARE_PERCENT: u64 = 25;
/// How often it is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Who took more is ordinary for so long.
pub const CALM: Duration = Duration::from_secs(1);
/// The scrub's: it has time.
pub const NICE_OF_SCRUB: i32 = 10;

/// How a thread gets its processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// By weight, with this nice value.
    Nice(i32),
    /// Before all who get it by weight.
    First(u8),
}

/// Of raised threads.
const FIRST: Rank = Rank::First(1);
/// Of who looks at what they take.
const BEFORE_THEM: Rank = Rank::First(2);

/// Gives a thread its rank.
pub type SetRank = Box<dyn Fn(Pid, Rank) -> io::Result<()> + Send + Sync>;

fn set_rank(tid: Pid, rank: Rank) -> io::Result<()> {
    match rank {
        Rank::First(priority) => plimsoll_sensor::go_first(tid.as_raw_pid(), Some(priority)),
        Rank::Nice(nice) => {
            plimsoll_sensor::go_first(tid.as_raw_pid(), None)?;
            Ok(rustix::process::setpriority_process(Some(tid), nice)?)
        }
    }
}

/// Who is raised.
pub struct Priority {
    wanted: i32,
    /// What the process began with.
    ordinary: i32,
    /// Raised threads go first: wanted, and not refused so far.
    real_time: AtomicBool,
    processors: u64,
    set: SetRank,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    threads: Vec<Thread>,
    budget: Budget,
    session: Option<Session>,
    /// What was refused, in words.
    refused: Vec<String>,
}

#[derive(Debug)]
struct Thread {
    name: &'static str,
    tid: Pid,
    /// Its processor time, as the kernel tells it.
    time: File,
    taken_ns: u64,
}

/// The agent's own session, which nobody else is in.
#[derive(Debug)]
struct Session {
    autogroup: PathBuf,
    taken_ns: u64,
    budget: Budget,
}

/// Whether who took that much may go on before others.
#[derive(Debug, Default)]
struct Budget {
    looked_ns: u64,
    ordinary_until_ns: u64,
    is_ordinary: bool,
}

impl Budget {
    /// Of `processors` so much was `taken` since the last look; `Some`: from now on ordinary, or raised.
    fn look(&mut self, taken_ns: u64, processors: u64, now_ns: u64) -> Option<bool> {
        let passed = now_ns.saturating_sub(std::mem::replace(&mut self.looked_ns, now_ns));
        if taken_ns.saturating_mul(100) > passed.saturating_mul(processors * SHARE_PERCENT) {
            self.ordinary_until_ns = now_ns + CALM.as_nanos() as u64;
        }
        let ordinary = now_ns < self.ordinary_until_ns;
        let before = std::mem::replace(&mut self.is_ordinary, ordinary);
        (before != ordinary).then_some(ordinary)
    }
}

/// While it lives its thread is raised.
pub struct Raised(Option<(Arc<Priority>, Pid)>);

impl Raised {
    /// For a thread that nobody can tell when it ends.
    pub fn for_good(mut self) {
        self.0 = None;
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some((priority, tid)) = self.0.take() {
            priority.lower(tid);
        }
    }
}

impl Priority {
    /// Raises to the nice value `wanted`, and in `real_time` before all nice values; a `wanted` of 0 or what
    /// the process has anyway raises nothing.
    pub fn new(wanted: i32, real_time: bool) -> Self {
        Self::by(wanted, real_time, Box::new(set_rank))
    }

    /// The same, where `set` gives ranks.
    pub fn by(wanted: i32, real_time: bool, set: SetRank) -> Self {
        Self {
            wanted,
            real_time: AtomicBool::new(real_time),
            ordinary: rustix::process::getpriority_process(None).unwrap_or(0),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            set,
            state: Mutex::default(),
        }
    }

    /// Whether anything is raised here at all.
    pub fn is_wanted(&self) -> bool {
        self.wanted < self.ordinary
    }

    /// Whether raised threads go first.
    pub fn is_real_time(&self) -> bool {
        self.is_wanted() && self.real_time.load(Ordering::Relaxed)
    }

    /// Whether a thread would be raised.
    ///
    /// # Errors
    /// The kernel's.
    pub fn trial(&self) -> io::Result<()> {
        self.try_rank(Rank::Nice(self.wanted))
    }

    /// Why a raised thread would not go first; `None`: it would, or is not meant to.
    pub fn real_time_refused(&self) -> Option<io::Error> {
        self.is_real_time().then(|| self.try_rank(FIRST).err())?
    }

    fn try_rank(&self, rank: Rank) -> io::Result<()> {
        std::thread::scope(|s| {
            let tried = s.spawn(|| (self.set)(rustix::thread::gettid(), rank));
            tried.join().unwrap_or(Err(io::ErrorKind::Other.into()))
        })
    }

    /// Raises the calling thread, or says why not ([`Self::words`]).
    pub fn raise(self: &Arc<Self>, name: &'static str) -> Raised {
        let tid = rustix::thread::gettid();
        match self.try_raise(name, tid) {
            Ok(true) => Raised(Some((self.clone(), tid))),
            Ok(false) => Raised(None),
            Err(e) => {
                let nice = self.wanted;
                self.refuse(format!("{name}: nice {nice} was refused: {e}"));
                Raised(None)
            }
        }
    }

    fn try_raise(&self, name: &'static str, tid: Pid) -> io::Result<bool> {
        if !self.is_wanted() {
            return Ok(false);
        }
        // without its time there is no bound
        let time = File::open(format!("/proc/self/task/{tid}/schedstat"))?;
        let taken_ns = first_number(&time)?;
        plimsoll_sensor::pass_on_no_priority()?;
        (self.set)(tid, Rank::Nice(self.wanted))?;
        if let Err(e) = self.put_first(tid) {
            self.real_time.store(false, Ordering::Relaxed);
            self.refuse(format!(
                "real time was refused: {e}: threads wait for the next tick of the clock"
            ));
        }
        self.lock().threads.push(Thread {
            name,
            tid,
            time,
            taken_ns,
        });
        Ok(true)
    }

    fn put_first(&self, tid: Pid) -> io::Result<()> {
        match self.real_time.load(Ordering::Relaxed) {
            true => (self.set)(tid, FIRST),
            false => Ok(()),
        }
    }

    fn lower(&self, tid: Pid) {
        self.lock().threads.retain(|t| t.tid != tid);
        // less is never refused
        let _ = (self.set)(tid, Rank::Nice(self.ordinary));
    }

    /// Raises the session of this process among the others, where it has one of its own.
    pub fn raise_session(&self) {
        if !self.is_wanted() {
            return;
        }
        let autogroup = PathBuf::from("/proc/self/autogroup");
        if !autogroup.exists() || read("/proc/sys/kernel/sched_autogroup_enabled") != "1" {
            return;
        }
        // not by `getsid`: 0, where no session was begun since process 1 or it was begun outside of the
        // pid namespace, is no `Pid`
        let own = std::process::id();
        let raised = match stat(own).is_some_and(|s| s.session == own) {
            true => fs::write(&autogroup, self.wanted.to_string()).map_err(|e| e.to_string()),
            false => {
                Err("it is shared with other programs (start it as a service, or by setsid)".into())
            }
        };
        match raised {
            Ok(()) => self.lock().session = Some(Session::new(autogroup)),
            Err(why) => self.refuse(format!(
                "its session has no priority over other sessions: {why}"
            )),
        }
    }

    /// Looks at what was taken since the last time, and lowers or raises.
    pub fn look(&self, now_ns: u64) {
        let state = &mut *self.lock();
        let taken = state.threads.iter_mut().map(Thread::taken_since).sum();
        if let Some(ordinary) = state.budget.look(taken, self.processors, now_ns) {
            let nice = if ordinary { self.ordinary } else { self.wanted };
            for thread in &state.threads {
                // one that ended is let go of by itself
                let _ = (self.set)(thread.tid, Rank::Nice(nice));
                if !ordinary {
                    let _ = self.put_first(thread.tid);
                }
            }
        }
        if let Some(session) = &mut state.session {
            session.look(self.wanted, self.processors, now_ns);
        }
    }

    /// Looks again and again until told to stop; then the session is ordinary.
    pub fn run(&self, stopped: &crossbeam_channel::Receiver<()>) {
        use crossbeam_channel::RecvTimeoutError::Timeout;
        if self.is_real_time() {
            // refused: so it is to those that it looks at
            let _ = (self.set)(rustix::thread::gettid(), BEFORE_THEM);
        }
        let from = std::time::Instant::now();
        while stopped.recv_timeout(LOOK_EVERY) == Err(Timeout) {
            self.look(from.elapsed().as_nanos() as u64);
        }
        if let Some(session) = self.lock().session.take() {
            let _ = fs::write(session.autogroup, "0");
        }
    }

    /// Who is raised now and what was refused, in words.
    pub fn words(&self) -> Vec<String> {
        let state = self.lock();
        let mut words = Vec::new();
        if !self.is_wanted() {
            words.push(format!("ordinary (nice {})", self.ordinary));
        }
        let by_nice = format!("nice {}", self.wanted);
        let over = |b: &Budget, raised: &str| match b.is_ordinary {
            true => format!(
                "ordinary for the moment: took more than {SHARE_PERCENT} % of all processors"
            ),
            false => raised.to_owned(),
        };
        let threads = match self.real_time.load(Ordering::Relaxed) {
            true => "real time",
            false => &by_nice,
        };
        let names: Vec<&str> = state.threads.iter().map(|t| t.name).collect();
        if !names.is_empty() {
            words.push(format!(
                "{}: {}",
                names.join(", "),
                over(&state.budget, threads)
            ));
        }
        if let Some(session) = &state.session {
            words.push(format!("its session: {}", over(&session.budget, &by_nice)));
        }
        words.extend(state.refused.iter().cloned());
        words
    }

    fn refuse(&self, why: String) {
        eprintln!("plimsoll: {why}");
        let mut state = self.lock();
        // as many as there are threads to raise; a reader that is begun again says it once
        if !state.refused.contains(&why) {
            state.refused.push(why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Thread {
    fn taken_since(&mut self) -> u64 {
        let now = first_number(&self.time).unwrap_or(self.taken_ns);
        now.saturating_sub(std::mem::replace(&mut self.taken_ns, now))
    }
}

impl Session {
    fn new(autogroup: PathBuf) -> Self {
        Self {
            autogroup,
            taken_ns: process_ns(),
            budget: Budget::default(),
        }
    }

    /// All that the process takes counts: its session is raised as a whole.
    fn look(&mut self, wanted: i32, processors: u64, now_ns: u64) {
        let now = process_ns();
        let taken = now.saturating_sub(std::mem::replace(&mut self.taken_ns, now));
        if let Some(ordinary) = self.budget.look(taken, processors, now_ns) {
            let nice = if ordinary { 0 } else { wanted };
            let _ = fs::write(&self.autogroup, nice.to_string());
        }
    }
}

fn process_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (t.tv_sec * 1_000_000_000 + t.tv_nsec).unsigned_abs()
}

/// `123 45 6` → 123.
fn first_number(file: &File) -> io::Result<u64> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    let first = text.split_ascii_whitespace().next();
    first
        .and_then(|n| n.parse().ok())
        .ok_or(io::ErrorKind::InvalidData.into())
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

/// Makes the calling thread wait for others.
pub fn step_back(nice: i32) {
    let now = rustix::process::getpriority_process(None).unwrap_or(0);
    // less is never refused
    let _ = rustix::process::setpriority_process(None, nice.max(now));
}

/// The cgroup of this process by whose weight its threads share processors with other cgroups, whatever
/// their nice values: `None` when there is none above the root's. `root` is where file systems hang.
pub fn weighing_cgroup(root: &Path) -> Option<String> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let line = |l: &str| {
        let (_, rest) = l.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let lines: Vec<_> = own.lines().filter_map(line).collect();
    let by_cpu = |c: &str| c.split(',').any(|c| c == "cpu");
    if let Some((_, path)) = lines.iter().find(|(c, _)| by_cpu(c)) {
        return (path != "/").then(|| path.clone());
    }
    let (_, path) = lines.iter().find(|(c, path)| c.is_empty() && path != "/")?;
    // the last one on the way down whose parent shares by weight
    let mut at = root.join("sys/fs/cgroup");
    let mut weighing = None;
    let mut name = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let shares = fs::read_to_string(at.join("cgroup.subtree_control")).unwrap_or_default();
        if !shares.split_whitespace().any(|c| c == "cpu") {
            break;
        }
        at.push(part);
        name = format!("{name}/{part}");
        weighing = Some(name.clone());
    }
    weighing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_all_processors_and_of_the_time_between_two_looks() {
        let mut budget = Budget::default();
        let second = 1_000_000_000;
        assert_eq!(budget.look(0, 2, second), None);
        assert_eq!(budget.look(second / 2, 2, 2 * second), None, "25 % of two");
        assert_eq!(budget.look(second / 2 + 1, 2, 3 * second), Some(true));
        assert_eq!(
            budget.look(second, 2, 3 * second + second / 2),
            None,
            "still"
        );
        assert_eq!(budget.look(0, 2, 4 * second), None, "calm is a second");
        assert_eq!(budget.look(0, 2, 4 * second + second / 2), Some(false));
    }
}
