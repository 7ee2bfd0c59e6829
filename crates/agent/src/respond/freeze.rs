//! Stops every process of a container for a bounded time, and lets them go on.
//!
//! Promises: nothing is frozen before a watchdog says that it is ready: a process of its own
//! session, in the root of every cgroup hierarchy, that holds the container's freezer open and
//! thaws it when the budget ends, whether or not the agent lives. An effect counts when the
//! kernel says so (`cgroup.events`, `freezer.state`). What somebody else has stopped is left as it
//! is. Both cgroup versions; where a container is in both, v2, whose frozen tasks can be killed and
//! traced. Left out: who may freeze (policy, guards).
//!
//! Agent and watchdog share a *lease* file: its name is the container's id, its text
//! `NONCE DEADLINE_MS`. A watchdog whose nonce is not there any more has been replaced or stood down
//! and ends; a file that cannot be read changes nothing, so that no accident leaves a container
//! frozen. The watchdog itself writes the lease, once it is out of the agent's reach: an agent that
//! dies while it replaces one never leaves a container without. Plans about one container take
//! turns: a lease that one of them ends is never the one under which the other freezes.

use super::docker;
use super::machine::{Machine, Target};
use super::place::{Place, is_below};
use crate::beside::{self, boot};
use plimsoll_model::response::StepOutcome;
use plimsoll_model::{Container, ContainerId};
use plimsoll_workload::Layout;
use plimsoll_workload::cgroup::{Hierarchy, Version};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The hidden command that is the watchdog.
pub const WATCHDOG: &str = "thaw-later";
/// How long freezing or thawing may take until it counts as failed.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a watchdog may take to be ready.
const READY: Duration = Duration::from_secs(15);
/// How often a cgroup may seem to hold somebody else before it is taken to.
const STRANGER_LOOKS: u32 = 4;
/// How often a watchdog looks at its lease.
const LOOK: Duration = Duration::from_millis(50);

/// The freezer of one container.
#[derive(Debug)]
pub(super) struct Freezer {
    v1: bool,
    dir: PathBuf,
}

impl Freezer {
    /// Finds the one to use; the error is why there is none, for people.
    pub(super) fn of(container: &Container) -> Result<Self, String> {
        let place = Place::of(container)?;
        if place.members().is_empty() {
            return Err("no process of the container is left".to_owned());
        }
        Self::all(container).into_iter().next().ok_or_else(|| {
            "the container has no cgroup of its own with a freezer (v2 cgroup.freeze, v1 freezer)"
                .to_owned()
        })
    }

    /// The cgroup of version 2 that holds the container, all of it and nothing else; `None`: there is
    /// none.
    pub(super) fn unified(container: &Container) -> Option<PathBuf> {
        let all = Self::all(container);
        all.into_iter().find(|f| !f.v1).map(|f| f.dir)
    }

    /// Every freezer of the container, v2 before v1.
    pub(super) fn all(container: &Container) -> Vec<Self> {
        let Ok(place) = Place::of(container) else {
            return Vec::new();
        };
        let members = place.members();
        let find = |v1| Self::find(&place, &members, v1);
        [false, true].into_iter().filter_map(find).collect()
    }

    fn find(place: &Place, members: &[u32], v1: bool) -> Option<Self> {
        let text =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let first = text(members.first()?);
        let (controller, path) = lines(&first).find(|(c, _)| match v1 {
            true => c.split(',').any(|c| c == "freezer"),
            false => c.is_empty(),
        })?;
        let root = root_of(path, place.path());
        let dir = dir_of(&place.layout, controller, root)?;
        let freezer = Self { v1, dir };
        let covers = |pid: &u32| {
            let text = text(pid);
            let mut here = lines(&text).filter(|(c, _)| *c == controller);
            // one that has ended meanwhile has no line, and one that is ending is in no cgroup of v1
            text.is_empty() || here.any(|(_, path)| is_below(path, root)) || !place.holds(*pid)
        };
        // a cgroup that holds others, or not all of the container, is not the one to stop
        let whole = root != "/" && members.iter().all(covers) && freezer.is_of_only(place);
        (whole && freezer.file().exists()).then_some(freezer)
    }

    /// Version 1: frozen tasks neither die nor can be traced before they are thawed.
    pub(super) fn is_v1(&self) -> bool {
        self.v1
    }

    fn file(&self) -> PathBuf {
        let name = if self.v1 {
            "freezer.state"
        } else {
            "cgroup.freeze"
        };
        self.dir.join(name)
    }

    /// Looked at again where one that is ending, and in no cgroup of v1 any more, seems a stranger.
    fn is_of_only(&self, place: &Place) -> bool {
        (0..STRANGER_LOOKS).any(|look| {
            if look > 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            self.holds_only(place)
        })
    }

    fn holds_only(&self, place: &Place) -> bool {
        let procs = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let mut pids = procs.lines().filter_map(|l| l.parse().ok());
        pids.all(|pid| place.holds(pid) || super::place::stat(pid).is_none())
    }

    /// Whether the kernel says that every task is stopped.
    pub(super) fn is_frozen(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        match self.v1 {
            true => read("freezer.state").trim() == "FROZEN",
            false => read("cgroup.events").lines().any(|l| l == "frozen 1"),
        }
    }

    /// Tells the kernel, and waits until it says so too.
    pub(super) fn set(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.file(), word(self.v1, frozen))?;
        let end = Instant::now() + SETTLE;
        while self.is_frozen() != frozen {
            if Instant::now() > end {
                let what = if frozen { "frozen" } else { "thawed" };
                let seconds = SETTLE.as_secs();
                let why = format!("it was not {what} within {seconds} s");
                return Err(io::Error::other(why));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    fn version(&self) -> &'static str {
        if self.v1 { "v1" } else { "v2" }
    }
}

fn word(v1: bool, frozen: bool) -> &'static str {
    match (v1, frozen) {
        (true, true) => "FROZEN",
        (true, false) => "THAWED",
        (false, true) => "1",
        (false, false) => "0",
    }
}

/// Controllers and path of each line of `/proc/PID/cgroup`.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    })
}

/// The container's own cgroup of a member's path: where its path in the identifying hierarchy is
/// the same, that one; else the member's.
fn root_of<'a>(member: &'a str, container: &'a str) -> &'a str {
    if is_below(member, container) {
        container
    } else {
        member
    }
}

fn dir_of(layout: &Layout, controllers: &str, path: &str) -> Option<PathBuf> {
    let is = |h: &&Hierarchy| match &h.version {
        Version::V2 => controllers.is_empty(),
        Version::V1 { controller } => controllers.split(',').any(|c| c == controller),
    };
    let mount = &layout.all.iter().find(is)?.mount;
    let below = path.trim_start_matches('/');
    (!below.split('/').any(|s| s == "..")).then(|| mount.join(below))
}

/// Held by whoever freezes or thaws the container, from the look that decides it on.
fn turn(id: &ContainerId) -> MutexGuard<'static, ()> {
    /// Containers that share one only wait for each other.
    static TURNS: [Mutex<()>; 16] = [const { Mutex::new(()) }; 16];
    let bytes = id.as_str().bytes().map(usize::from);
    let at = bytes.fold(0usize, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte)
    });
    let turn = &TURNS[at % TURNS.len()];
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- for a moment ----

/// A container that stands still until this is released, dropped, or the watchdog ends it.
#[derive(Debug)]
pub(super) struct Hold {
    freezer: Freezer,
    id: ContainerId,
    lease: PathBuf,
    nonce: String,
}

/// Freezes for a moment, with a watchdog; the error is why not, for people. What stands still
/// already is left to whoever stopped it.
pub(super) fn hold(
    machine: &Machine,
    container: &Container,
    budget: Duration,
) -> Result<Hold, String> {
    let freezer = Freezer::of(container)?;
    let turn = turn(container.id());
    if Freezer::all(container).iter().any(Freezer::is_frozen) {
        return Err("it stands still already".to_owned());
    }
    let term = Term::of(budget.as_millis() as u64);
    let (lease, _) =
        watchdog(machine, container.id(), &freezer, &term).map_err(|e| e.to_string())?;
    let frozen = freezer.set(true);
    // dropped below where it failed
    drop(turn);
    let hold = Hold {
        freezer,
        id: container.id().clone(),
        lease: Lease::path(machine, container.id()),
        nonce: lease.nonce,
    };
    frozen.map(|()| hold).map_err(|e| e.to_string())
}

impl Hold {
    /// Lets it go on.
    ///
    /// # Errors
    /// When the kernel does not; the watchdog will try again.
    pub(super) fn release(self) -> io::Result<()> {
        self.let_go()
    }

    fn let_go(&self) -> io::Result<()> {
        let _turn = turn(&self.id);
        // another plan may have frozen it for longer meanwhile: its watchdog is in charge then
        if Lease::read_file(&self.lease).is_some_and(|l| l.nonce != self.nonce) {
            return Ok(());
        }
        self.freezer.set(false)?;
        Lease::ended().write_to(&self.lease)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // the watchdog tries again
        let _ = self.let_go();
    }
}

// ---- the effects ----

/// Freezes for at most `budget`.
pub(super) fn freeze(machine: &Machine, target: &Target, budget: Duration) -> StepOutcome {
    let began = Instant::now();
    let id = target.container.id();
    let freezer = match Freezer::of(&target.container) {
        Ok(freezer) => freezer,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    let failed = |why: String| StepOutcome::Failed { why };
    let runtime = docker::find(&machine.docker_sockets, id);
    let healthy = runtime.and_then(|known| known.health_patience().ok().flatten());
    let mut term = Term::of(budget.min(healthy.unwrap_or(budget)).as_millis() as u64);
    if term.budget_ms == 0 {
        let why =
            "its health check does not bear a single failure: it would be restarted".to_owned();
        return StepOutcome::Refused { why };
    }
    let _turn = turn(id);
    if Freezer::all(&target.container)
        .iter()
        .any(Freezer::is_frozen)
    {
        match Lease::read(machine, id).filter(Lease::lasts) {
            // begun again after a restart: not longer than the first time
            Some(lease) => term.until_ms = lease.deadline_ms,
            None => return done("it was stopped already, not by us: left as it is".to_owned()),
        }
    }
    let (lease, said) = match watchdog(machine, id, &freezer, &term) {
        Ok(ready) => ready,
        Err(e) => {
            return failed(format!(
                "start its watchdog, without which nothing is frozen: {e}"
            ));
        }
    };
    let asked = began.elapsed();
    let let_go = |why: &dyn std::fmt::Display| {
        let back = freezer.set(false);
        let words = back.map_or_else(|e| format!("; and {e}"), |()| String::new());
        failed(format!("{why}: let go again{words}"))
    };
    if let Err(e) = freezer.set(true) {
        let outcome = let_go(&e);
        let _ = Lease::ended().write(machine, id);
        return outcome;
    }
    if !lease.lasts() {
        // its watchdog may have thawed it before it was frozen
        return let_go(&"freezing took longer than it may stand still");
    }
    done(format!(
        "every process is frozen (cgroup {}, the kernel says so after {} ms, {} ms of them for the watchdog); it is thawed in {} ms at the latest{}, by a watchdog {said}",
        freezer.version(),
        began.elapsed().as_millis(),
        asked.as_millis(),
        lease.left_ms(),
        if healthy.is_some_and(|h| h < budget) {
            " (as long as its health check bears)"
        } else {
            ""
        },
    ))
}

/// Thaws what [`freeze`] has frozen.
pub(super) fn thaw(machine: &Machine, target: &Target) -> StepOutcome {
    let id = target.container.id();
    let freezer = match Freezer::of(&target.container) {
        Ok(freezer) => freezer,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    let _turn = turn(id);
    if !freezer.is_frozen() {
        let _ = Lease::ended().write(machine, id);
        return done("its processes run already".to_owned());
    }
    if Lease::read(machine, id).is_none_or(|l| !l.lasts()) {
        return done("somebody else has stopped it: left as it is".to_owned());
    }
    match freezer.set(false) {
        Ok(()) => {
            let _ = Lease::ended().write(machine, id);
            done(format!(
                "its processes run again (cgroup {})",
                freezer.version()
            ))
        }
        Err(e) => StepOutcome::Failed { why: e.to_string() },
    }
}

/// Whether it is frozen by us; `None`: that cannot be told.
pub(super) fn holds(machine: &Machine, container: &Container) -> Option<bool> {
    let frozen = Freezer::of(container).ok()?.is_frozen();
    let ours = Lease::read(machine, container.id()).is_some_and(|l| l.lasts());
    Some(frozen && ours)
}

/// What stopped it for good (a pause) takes over from the watchdog.
pub(super) fn hand_over(machine: &Machine, id: &ContainerId) {
    let _turn = turn(id);
    if Lease::read(machine, id).is_some_and(|l| l.lasts()) {
        let _ = Lease::ended().write(machine, id);
    }
}

fn done(effect: String) -> StepOutcome {
    StepOutcome::Done {
        effect,
        sealed: None,
        undo: Vec::new(),
    }
}

// ---- the lease ----

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    nonce: String,
    /// Boot clock.
    deadline_ms: u64,
}

impl Lease {
    /// No watchdog has this one's nonce.
    fn ended() -> Self {
        Self {
            nonce: "ended".to_owned(),
            deadline_ms: 0,
        }
    }

    fn left_ms(&self) -> u64 {
        self.deadline_ms.saturating_sub(boot_ms())
    }
    fn lasts(&self) -> bool {
        self.left_ms() > 0
    }

    fn read(machine: &Machine, id: &ContainerId) -> Option<Self> {
        Self::read_file(&Self::path(machine, id))
    }
    fn read_file(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(path)
            .ok()?
            .take(200)
            .read_to_string(&mut text)
            .ok()?;
        let (nonce, deadline) = text.trim().split_once(' ')?;
        Some(Self {
            nonce: nonce.to_owned(),
            deadline_ms: deadline.parse().ok()?,
        })
    }

    fn write(&self, machine: &Machine, id: &ContainerId) -> io::Result<()> {
        fs::create_dir_all(&machine.freezes_dir)?;
        self.write_to(&Self::path(machine, id))
    }
    fn write_to(&self, path: &Path) -> io::Result<()> {
        // agent and watchdog may write at once
        let new = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, format!("{} {}\n", self.nonce, self.deadline_ms))?;
        fs::rename(new, path)
    }

    /// An id has no slash (`ContainerId`); the ending keeps `..` from meaning anything.
    fn path(machine: &Machine, id: &ContainerId) -> PathBuf {
        machine.freezes_dir.join(format!("{id}.lease"))
    }
}

fn boot_ms() -> u64 {
    boot().as_millis() as u64
}

// ---- the watchdog ----

/// For how long a container may stand still.
struct Term {
    nonce: String,
    /// From the moment on when the watchdog is ready: a machine that is slow to start one loses nothing.
    budget_ms: u64,
    /// And not beyond this, on the boot clock.
    until_ms: u64,
}

impl Term {
    fn of(budget_ms: u64) -> Self {
        Self {
            nonce: format!("{}-{}", std::process::id(), boot().as_nanos()),
            budget_ms,
            until_ms: u64::MAX,
        }
    }
}

/// Starts it and waits until it is ready: the lease that it has taken, and what it says of itself.
fn watchdog(
    machine: &Machine,
    id: &ContainerId,
    freezer: &Freezer,
    term: &Term,
) -> io::Result<(Lease, String)> {
    fs::create_dir_all(&machine.freezes_dir)?;
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(READY))?;
    let file = OpenOptions::new().write(true).open(freezer.file())?;
    let mut command = beside::command(&machine.program, WATCHDOG);
    command
        .arg(Lease::path(machine, id))
        .args([
            &term.nonce,
            freezer.version(),
            &term.budget_ms.to_string(),
            &term.until_ms.to_string(),
        ])
        .stdin(file)
        .stdout(OwnedFd::from(theirs));
    let mut child = command.spawn()?;
    // the command holds their end, too
    drop(command);
    let mut said = String::new();
    BufReader::new(ours.take(500)).read_line(&mut said)?;
    let said = said.trim_end();
    let ready = said.strip_prefix("ready ").and_then(|s| s.split_once(' '));
    let ready = ready.and_then(|(at, words)| Some((at.parse().ok()?, words)));
    let Some((deadline_ms, words)) = ready else {
        let _ = child.kill();
        let _ = child.wait();
        let why = said.strip_prefix("failed ");
        let why = why.unwrap_or("it did not say that it is ready");
        return Err(io::Error::other(why.to_owned()));
    };
    let _ = beside::reap(child, "watchdog");
    let lease = Lease {
        nonce: term.nonce.clone(),
        deadline_ms,
    };
    Ok((lease, words.to_owned()))
}

/// The watchdog itself; its standard input is the freezer, opened for writing. The container stands
/// still for `budget_ms` from its being ready on, and not beyond `until_ms` on the boot clock.
///
/// # Errors
/// When the container could not be thawed, and was not gone.
pub fn watch(lease: &Path, nonce: &str, v1: bool, budget_ms: u64, until_ms: u64) -> io::Result<()> {
    let mut freezer = File::from(std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?);
    let stayed = beside::stand_alone();
    let mut out = io::stdout();
    let deadline_ms = boot_ms().saturating_add(budget_ms).min(until_ms);
    let taken = Lease {
        nonce: nonce.to_owned(),
        deadline_ms,
    };
    if let Err(e) = taken.write_to(lease) {
        writeln!(out, "failed to write its lease: {e}")?;
        return Err(e);
    }
    match stayed.is_empty() {
        true => writeln!(out, "ready {deadline_ms} outside the agent's cgroups")?,
        false => writeln!(
            out,
            "ready {deadline_ms} that could not leave the agent's cgroup ({})",
            stayed.join(", ")
        )?,
    }
    out.flush()?;
    let deadline = Duration::from_millis(deadline_ms);
    while boot() < deadline {
        std::thread::sleep(LOOK.min(deadline.saturating_sub(boot())));
        if Lease::read_file(lease).is_some_and(|l| l.nonce != nonce) {
            return Ok(());
        }
    }
    let thawed = freezer.write_all(word(v1, false).as_bytes());
    if Lease::read_file(lease).is_some_and(|l| l.nonce == nonce) {
        let _ = fs::remove_file(lease);
    }
    match thawed {
        // its cgroup is gone
        Err(e) if e.raw_os_error() == Some(19) => Ok(()),
        other => other,
    }
}
