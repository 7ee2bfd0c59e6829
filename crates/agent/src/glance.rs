//! What a program had when it started: as its exec carries it, and what only `/proc` shows of it
//! right after, for rules that ask.
//!
//! Promises: of an environment only the variables that a rule in force asks for are kept, and where
//! none does the kernel does not copy any. `/proc` is looked at only for what the exec did not carry (the name
//! of the user, and what is missing from a record) and a rule asks for; at most [`LOOKS_PER_S`] execs a second are looked at. Memory
//! and files of the process, which it can make slow, are read on threads of their own, and the
//! reader of the rings waits for them [`PATIENCE`] at most; at most [`SLOW_MAX`] of them may hang,
//! and until one returns no more is asked of them. Who has ended before it was looked at has the name
//! that its user bore in the same cgroup before. What was not seen stays unknown to rules.
//!
//! Left out: what is read and how ([`plimsoll_workload::glance`]), and masking.

use crate::rules::Loaded;
use plimsoll_model::event::Exec;
use plimsoll_model::{Event, EventKind, Glance, ProcessKey, Text};
use plimsoll_rules::{Field, FieldArg, Source};
use plimsoll_workload::{EnvWanted, Place};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

/// Execs looked at in a second.
pub const LOOKS_PER_S: u32 = 2000;
/// Longest wait for what the process itself can make slow.
pub const PATIENCE: Duration = Duration::from_millis(10);
/// Threads that may hang in such reads.
pub const SLOW_MAX: usize = 4;

/// Names of users that are remembered.
const NAMES_MAX: usize = 4096;

/// What the rules in force ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Capabilities, login uid, ids in the pid namespace.
    pub process: bool,
    /// Variables of the environment.
    pub env: EnvWanted,
    /// The name of the user.
    pub user: bool,
}

impl Wanted {
    /// By a set of rules.
    pub fn by(loaded: &Loaded) -> Self {
        use Field as F;
        let mut wanted = Self::default();
        for asked in loaded.set.fields_asked(Source::Syscall) {
            match (asked.field, &asked.arg) {
                (F::ProcEnv, FieldArg::Key(name)) => wanted.variable(name),
                (F::ProcEnv, _) => wanted.env = EnvWanted::All,
                (F::UserName, _) => wanted.user = true,
                (
                    F::ThreadCapPermitted
                    | F::ThreadCapInheritable
                    | F::UserLoginuid
                    | F::UserLoginname
                    | F::ProcVpid
                    | F::ThreadVtid
                    | F::ProcVpgid
                    | F::ProcSid
                    | F::ProcIsSidLeader
                    | F::ProcIsVpgidLeader,
                    _,
                ) => wanted.process = true,
                _ => {}
            }
        }
        wanted
    }

    fn variable(&mut self, name: &str) {
        match &mut self.env {
            EnvWanted::All => {}
            EnvWanted::Names(names) => names.push(name.to_owned()),
            EnvWanted::Nothing => self.env = EnvWanted::Names(vec![name.to_owned()]),
        }
    }

    fn keep(&self, told: &mut Glance) {
        match &mut told.env {
            Some(_) if self.env == EnvWanted::Nothing => told.env = None,
            Some(env) => told.env_cut |= self.env.keep(env),
            None => {}
        }
        told.env_cut &= told.env.is_some();
    }

    /// Whether execs must carry their environment.
    pub fn asks_for_environments(&self) -> bool {
        self.env != EnvWanted::Nothing
    }

    /// What is wanted beyond what the exec told.
    fn beyond(&self, told: Option<&Glance>, euid: u32) -> Self {
        let has_env = told.is_some_and(|g| g.env.is_some());
        Self {
            process: self.process && told.is_none(),
            env: match has_env {
                true => EnvWanted::Nothing,
                false => self.env.clone(),
            },
            user: self.user && euid != 0,
        }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn is_slow(&self) -> bool {
        self.env != EnvWanted::Nothing || self.user
    }
}

/// How glances went, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that were seen.
    pub seen: u64,
    /// Processes that had gone, or ran another program already.
    pub gone: u64,
    /// Execs beyond [`LOOKS_PER_S`], which were not looked at.
    pub passed_over: u64,
    /// Processes whose memory or files did not answer in time.
    pub late: u64,
}

/// Looks at processes that have just executed.
#[derive(Debug)]
pub struct Glances {
    proc_root: PathBuf,
    wanted: RwLock<Arc<Wanted>>,
    inner: Mutex<Inner>,
    counts: [AtomicU64; 4],
}

#[derive(Debug)]
struct Inner {
    second: Instant,
    looks: u32,
    /// What a user of a cgroup was called when it was looked at last, for programs that end too soon.
    names: HashMap<(u64, u32), Text>,
    ready: Option<Slow>,
    hanging: Vec<Slow>,
}

impl Glances {
    /// Looks below `proc_root`, at nothing until rules ask for it.
    pub fn new(proc_root: impl Into<PathBuf>) -> Self {
        Self {
            proc_root: proc_root.into(),
            wanted: RwLock::default(),
            inner: Mutex::new(Inner {
                second: Instant::now(),
                looks: 0,
                names: HashMap::new(),
                ready: None,
                hanging: Vec::new(),
            }),
            counts: Default::default(),
        }
    }

    /// From now on this is looked for.
    pub fn want(&self, wanted: Wanted) {
        *self.wanted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(wanted);
    }

    /// How it went.
    pub fn counts(&self) -> Counts {
        let [seen, gone, passed_over, late] =
            [0, 1, 2, 3].map(|i| self.counts[i].load(Ordering::Relaxed));
        Counts {
            seen,
            gone,
            passed_over,
            late,
        }
    }

    /// Takes from what an exec told what nobody asks for, and adds what is wanted beyond it and still
    /// there to be seen.
    pub fn look(&self, event: &mut Event) {
        let EventKind::Exec(exec) = &mut event.kind else {
            return;
        };
        let read = self.wanted.read();
        let wanted = read.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(told) = exec.glance.as_deref_mut() {
            wanted.keep(told);
        }
        let beyond = wanted.beyond(exec.glance.as_deref(), exec.euid);
        if beyond.is_nothing() {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let user = (event.cgroup_id, exec.euid);
        let Some((place, seen)) = self.place(&mut inner, event.process.key, exec) else {
            if let (true, Some(told)) = (beyond.user, exec.glance.as_deref_mut()) {
                inner.name(user, told);
            }
            return;
        };
        self.count(0);
        let mut glance = exec.glance.take().unwrap_or_else(|| Box::new(seen));
        glance.uid = exec.euid;
        let asks_for_user = beyond.user;
        let in_time = !beyond.is_slow() || inner.ask(place, exec, beyond, &mut glance);
        if !in_time {
            self.count(3);
        }
        match (asks_for_user, in_time) {
            (true, true) => inner.remember(user, &glance.user),
            (true, false) => inner.name(user, &mut glance),
            (false, _) => {}
        }
        exec.glance = Some(glance);
    }

    fn place(&self, inner: &mut Inner, key: ProcessKey, exec: &Exec) -> Option<(Place, Glance)> {
        if !inner.may_look() {
            self.count(2);
            return None;
        }
        let found = Place::look(&self.proc_root, key, exec);
        if found.is_none() {
            self.count(1);
        }
        found
    }

    fn count(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn may_look(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.looks = 0;
        }
        self.looks += 1;
        self.looks <= LOOKS_PER_S
    }

    fn remember(&mut self, user: (u64, u32), name: &Text) {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(&user) {
            self.names.clear();
        }
        self.names.insert(user, name.clone());
    }

    fn name(&self, user: (u64, u32), told: &mut Glance) {
        if let Some(name) = self.names.get(&user) {
            (told.uid, told.user) = (user.1, name.clone());
        }
    }

    /// Asks a thread for what may be slow; `false`: it did not answer in time.
    fn ask(&mut self, place: Place, exec: &Exec, wanted: Wanted, to: &mut Glance) -> bool {
        if self.ready.is_none() {
            self.ready = self.returned().or_else(|| self.another());
        }
        let Some(slow) = self.ready.take() else {
            return false;
        };
        let exec = Exec {
            argv: exec.argv.clone(),
            argv_bytes: exec.argv_bytes,
            euid: exec.euid,
            ..Exec::default()
        };
        let asked = slow.ask.send((place, exec, wanted));
        match asked.map(|()| slow.told.recv_timeout(PATIENCE)) {
            Ok(Ok(told)) => {
                if let Some((env, cut)) = told.env {
                    (to.env, to.env_cut) = (Some(env), cut);
                }
                to.user = told.user;
                self.ready = Some(slow);
                true
            }
            Ok(Err(mpsc::RecvTimeoutError::Timeout)) => {
                self.hanging.push(slow);
                false
            }
            // it has ended, which it does not: whatever was wrong, the next one is new
            Ok(Err(mpsc::RecvTimeoutError::Disconnected)) | Err(_) => false,
        }
    }

    /// A thread that hung and has come back; its answer is of no use any more.
    fn returned(&mut self) -> Option<Slow> {
        let back = |slow: &Slow| slow.told.try_recv().is_ok();
        let at = self.hanging.iter().position(back)?;
        Some(self.hanging.swap_remove(at))
    }

    fn another(&mut self) -> Option<Slow> {
        match self.hanging.len() < SLOW_MAX {
            true => Slow::start().ok(),
            false => None,
        }
    }
}

struct Told {
    env: Option<(Vec<Text>, bool)>,
    user: Text,
}

type Asked = (Place, Exec, Wanted);

/// A thread that reads what a process can make slow. It ends when nobody asks any more.
#[derive(Debug)]
struct Slow {
    ask: mpsc::SyncSender<Asked>,
    told: mpsc::Receiver<Told>,
}

impl Slow {
    fn start() -> std::io::Result<Self> {
        let (ask, asked) = mpsc::sync_channel::<Asked>(1);
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("glance".to_owned())
            .spawn(move || {
                for (place, exec, wanted) in asked {
                    if tell.send(slowly(&place, &exec, &wanted)).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self { ask, told })
    }
}

fn slowly(place: &Place, exec: &Exec, wanted: &Wanted) -> Told {
    let env = match wanted.env {
        EnvWanted::Nothing => None,
        _ => place.environment(exec, &wanted.env),
    };
    let user = match wanted.user {
        true => place.user(exec.euid).unwrap_or_default(),
        false => Text::default(),
    };
    Told { env, user }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::{BootNs, Event, ProcessInfo};

    fn exec(cgroup_id: u64, euid: u32) -> Event {
        let exec = Exec {
            euid,
            glance: Some(Box::default()),
            ..Exec::default()
        };
        let key = ProcessKey {
            tgid: u32::MAX,
            start: BootNs(1),
        };
        let event = Event::new(EventKind::Exec(exec));
        Event {
            cgroup_id,
            process: ProcessInfo {
                key,
                ..event.process
            },
            ..event
        }
    }

    fn name(event: &Event) -> String {
        let EventKind::Exec(exec) = &event.kind else {
            return String::new();
        };
        let told = exec.glance.as_ref().expect("what the exec told");
        told.user.to_str_lossy().into_owned()
    }

    #[test]
    fn who_has_ended_has_the_name_that_its_user_bore_before_in_the_same_cgroup() {
        let glances = Glances::new("/proc");
        glances.want(Wanted {
            user: true,
            ..Wanted::default()
        });
        let mut inner = glances.inner.lock().expect("not poisoned");
        inner.remember((7, 1), &"daemon".into());
        drop(inner);
        for (cgroup, uid, want) in [(7, 1, "daemon"), (7, 2, ""), (8, 1, "")] {
            let mut event = exec(cgroup, uid);
            glances.look(&mut event);
            assert_eq!(name(&event), want, "user {uid} of {cgroup}");
        }
        assert_eq!(glances.counts().gone, 3);
    }

    #[test]
    fn names_that_are_remembered_are_bounded() {
        let glances = Glances::new("/proc");
        let mut inner = glances.inner.lock().expect("not poisoned");
        for uid in 0..3 * NAMES_MAX as u32 {
            inner.remember((1, uid), &"x".into());
            assert!(inner.names.len() <= NAMES_MAX);
        }
    }
}
