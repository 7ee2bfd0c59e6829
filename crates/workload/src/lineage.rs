//! The process table: which process is this, what does it run, who started it.
//!
//! Promises: a process is (tgid, start), so a reused pid is another process. Events may come out of
//! order and after the exit they belong to: the answer is what was true at the event's time. Both
//! parts of the table are bounded ([`LineageConfig`]); what the bound costs is counted, and a line
//! that ends early for it is marked as cut. An entry keeps at most 512 bytes of arguments.
//!
//! Left out: threads, host processes above a container's entry point.

use crate::scan::Seed;
use plimsoll_model::event::Exec;
use plimsoll_model::{
    Ancestor, BootNs, Enforced, Entry, Event, EventKind, ExecFacts, Line, ProcessInfo, ProcessKey,
    Text,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Processes in a lineage, the acting one included.
pub const MAX_LINEAGE: usize = 16;
/// Bytes of arguments kept of one program.
pub const MAX_ARGV_BYTES: usize = 512;
/// Programs remembered of one process (it may exec again and again).
const MAX_PROGRAMS: usize = 4;
/// Bytes of lines that are kept for the next that their processes do, about.
const MAX_TOLD_BYTES: usize = 4 << 20;
/// Entry points passed over when the table is full, before one is dropped after all.
const MAX_PASSED_OVER: usize = 64;
/// `/proc` rounds starts down to a tick of 10 ms.
const TICK_NS: u64 = 10_000_000;
/// What we allow beyond a tick, for rounding.
const TICK_SLACK_NS: u64 = 1_000_000;

/// Bounds of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineageConfig {
    /// Live processes.
    pub max_live: usize,
    /// Exited processes that are still known, for events that arrive late.
    pub max_exited: usize,
}

impl Default for LineageConfig {
    fn default() -> Self {
        Self {
            max_live: 65_536,
            max_exited: 16_384,
        }
    }
}

/// One program that a process ran. Shared with the children that inherited it.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    exe: Text,
    script: Text,
    argv: Vec<Text>,
    exec_boot: BootNs,
    from_proc: bool,
    comm: Text,
    /// `None` where the exec was not observed.
    facts: Option<ExecFacts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// A fork was seen.
    Exact(ProcessKey),
    /// From `/proc`: the start is rounded.
    Coarse(ProcessKey),
    /// Only the pid is known.
    Pid(u32),
    /// It is the entry point: what is above is not of this container.
    Entry,
}

#[derive(Debug)]
struct Process {
    parent: Parent,
    /// Oldest first, by time of exec; what it inherited by fork included.
    programs: Vec<Arc<Program>>,
    uid: u32,
    entry: Entry,
    cgroup: u64,
    /// Time of the newest event that told uid and entry.
    told: BootNs,
    exited: bool,
    /// Its key is rounded to a tick.
    coarse: bool,
}

impl Process {
    fn program_at(&self, at: BootNs) -> Option<&Arc<Program>> {
        self.programs
            .iter()
            .rev()
            .find(|p| p.exec_boot <= at)
            .or_else(|| self.programs.first())
    }
    /// What ran before the program that was executed at `at`.
    fn program_before(&self, at: BootNs) -> Option<&Arc<Program>> {
        self.programs.iter().rev().find(|p| p.exec_boot < at)
    }
    fn insert(&mut self, program: Arc<Program>) {
        if self.programs.iter().any(|p| Arc::ptr_eq(p, &program)) {
            return;
        }
        let i = self
            .programs
            .partition_point(|p| p.exec_boot <= program.exec_boot);
        self.programs.insert(i, program);
        if self.programs.len() > MAX_PROGRAMS {
            self.programs.remove(0);
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Lineage {
    config: LineageConfig,
    processes: BTreeMap<ProcessKey, Process>,
    /// Live processes, oldest first; may hold keys that are not live any more.
    live_order: VecDeque<ProcessKey>,
    exited_order: VecDeque<ProcessKey>,
    live: usize,
    dropped: u64,
    told: RefCell<LastTold>,
}

impl Lineage {
    /// An empty table.
    pub fn new(config: LineageConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Live processes.
    pub fn live(&self) -> usize {
        self.live
    }
    /// Exited processes that are still known.
    pub fn exited(&self) -> usize {
        self.exited_order.len()
    }
    /// Live processes that were dropped because the table was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
    /// Whether the process is known, exited or not.
    pub fn knows(&self, key: ProcessKey) -> bool {
        self.find(key).is_some()
    }
    /// Whether it is known what the process runs.
    pub fn knows_program(&self, key: ProcessKey) -> bool {
        self.find(key)
            .is_some_and(|k| !self.processes[&k].programs.is_empty())
    }

    /// Whether what a process ran at that moment is known from `/proc` only.
    pub fn is_from_proc(&self, key: ProcessKey, at: BootNs) -> bool {
        let found = self.find(key).map(|k| &self.processes[&k]);
        found
            .and_then(|p| p.program_at(at))
            .is_some_and(|p| p.from_proc)
    }

    /// Takes in a process found in `/proc`. What was observed is never overwritten by it.
    pub fn seed(&mut self, seed: &Seed) {
        if let Some(known) = self.find(seed.key) {
            let p = self.processes.get_mut(&known).expect("found");
            if p.programs.is_empty() && !seed.exe.is_empty() {
                p.insert(program_of_seed(seed));
            }
            return;
        }
        let parent = match self.newest_with_pid(seed.ppid, BootNs(seed.key.start.0 + TICK_NS)) {
            Some(key) if self.processes[&key].coarse => Parent::Coarse(key),
            Some(key) => Parent::Exact(key),
            None => Parent::Pid(seed.ppid),
        };
        let process = Process {
            parent,
            programs: if seed.exe.is_empty() {
                vec![]
            } else {
                vec![program_of_seed(seed)]
            },
            uid: seed.uid,
            entry: seed.entry,
            cgroup: seed.cgroup_id,
            told: seed.key.start,
            exited: false,
            coarse: true,
        };
        self.add(seed.key, process);
    }

    /// Takes in an event; `cgroup` is the root cgroup of the acting process's container.
    pub fn observe(&mut self, event: &Event, cgroup: u64) {
        let key = self.ensure(&event.process, event.boot, cgroup);
        match &event.kind {
            // one that was refused is still the program that it was
            EventKind::Exec(_) if event.enforced == Some(Enforced::Denied) => {}
            EventKind::Exec(exec) => self.exec(key, exec, event, cgroup),
            EventKind::Fork { child } => self.fork(key, *child, event, cgroup),
            EventKind::Exit { .. } => self.exit(key),
            _ => {}
        }
    }

    /// Drops every process of a container that has gone without their exits being seen.
    pub fn container_gone(&mut self, cgroup: u64) {
        let left: Vec<ProcessKey> = self
            .processes
            .iter()
            .filter(|(_, p)| p.cgroup == cgroup && !p.exited)
            .map(|(k, _)| *k)
            .collect();
        for key in left {
            self.exit(key);
        }
    }

    /// The process and its ancestors as they were at `at`, and whether the line was cut.
    pub fn lineage(&self, key: ProcessKey, at: BootNs) -> (Line, bool) {
        let (steps, cut) = self.steps(key, at, false);
        (line_of(&steps, true).into(), cut)
    }

    /// The lineage of an event: for an exec, the program that executed it comes second. Whoever does one
    /// thing after another shares it.
    pub fn lineage_of(&self, event: &Event) -> (Line, bool) {
        if let (EventKind::Exec(exec), Some(Enforced::Denied)) = (&event.kind, event.enforced) {
            return self.refused(event, exec);
        }
        // who executed a program that was found running is not known
        let is_exec = matches!(&event.kind, EventKind::Exec(exec) if !exec.found);
        let (steps, cut) = self.steps(event.process.key, event.boot, is_exec);
        match steps.first() {
            Some(acting) if !is_exec => (self.told(acting.key, &steps), cut),
            _ => (line_of(&steps, !is_exec).into(), cut),
        }
    }

    /// The line of these steps; the one that was told of the process before, when it is the same.
    fn told(&self, acting: ProcessKey, steps: &[Step<'_>]) -> Line {
        let mut told = self.told.borrow_mut();
        if let Some(before) = told.by_process.get(&acting)
            && before.places.len() == steps.len()
            && before.places.iter().zip(steps).all(|(p, s)| p.is(s))
        {
            return before.line.clone();
        }
        let line: Line = line_of(steps, true).into();
        let places = steps.iter().map(Place::of).collect();
        let kept = line.clone();
        told.keep(acting, Told { places, line: kept });
        line
    }

    /// The lineage of an exec that was refused, as if it had happened: the program that was to run,
    /// then the one that wanted it.
    fn refused(&self, event: &Event, exec: &Exec) -> (Line, bool) {
        let (steps, cut) = self.steps(event.process.key, event.boot, false);
        let mut line = line_of(&steps, true);
        let own = line.first().cloned().unwrap_or_default();
        let refused = Ancestor {
            exe: exec.exe.clone(),
            script: exec.script.clone(),
            argv: exec.argv.clone(),
            facts: None,
            ..own
        };
        line.insert(0, refused);
        line.truncate(MAX_LINEAGE);
        (line.into(), cut)
    }

    fn steps(&self, key: ProcessKey, at: BootNs, is_exec: bool) -> (Vec<Step<'_>>, bool) {
        let mut line = Vec::with_capacity(8);
        let Some(mut key) = self.find(key) else {
            return (line, true);
        };
        loop {
            let process = &self.processes[&key];
            let step = |program| Step {
                key,
                process,
                program,
            };
            line.push(step(process.program_at(at)));
            let parent = self.parent_of(key, process);
            if line.len() == 1 && is_exec && process.parent != Parent::Entry {
                // who executed it: usually a fork of the parent, which then is in the line anyway
                let before = process.program_before(at);
                let inherited = |b: &Arc<Program>| {
                    parent
                        .and_then(|k| self.processes[&k].program_at(at))
                        .is_some_and(|p| Arc::ptr_eq(p, b) || p.exe == b.exe)
                };
                if let Some(before) = before.filter(|b| !inherited(b)) {
                    line.push(step(Some(before)));
                }
            }
            match parent {
                // the parent is outside: the line is whole
                Some(parent) if self.processes[&parent].cgroup != process.cgroup => {
                    return (line, false);
                }
                Some(parent) if line.len() < MAX_LINEAGE => key = parent,
                Some(_) => return (line, true),
                None => return (line, process.parent != Parent::Entry),
            }
        }
    }

    fn parent_of(&self, key: ProcessKey, process: &Process) -> Option<ProcessKey> {
        let parent = match process.parent {
            Parent::Exact(parent) => self.find(parent),
            Parent::Coarse(parent) => self.find_coarse(parent),
            Parent::Pid(0) | Parent::Entry => None,
            Parent::Pid(pid) => self.newest_with_pid(pid, key.start),
        };
        // a parent never starts after its child, so that a line cannot run in a circle
        parent
            .filter(|p| *p != key && p.start.0 <= key.start.0 + TICK_NS)
            .filter(|p| p.start < key.start || p.tgid < key.tgid)
    }

    /// The entry of a key: itself, or what `/proc` gave for it with a rounded start.
    fn find(&self, key: ProcessKey) -> Option<ProcessKey> {
        if self.processes.contains_key(&key) {
            return Some(key);
        }
        let from = ProcessKey {
            tgid: key.tgid,
            start: BootNs(key.start.0.saturating_sub(TICK_NS + TICK_SLACK_NS)),
        };
        let to = ProcessKey {
            tgid: key.tgid,
            start: BootNs(key.start.0.saturating_add(TICK_SLACK_NS)),
        };
        self.processes
            .range(from..=to)
            .rev()
            .find(|(_, p)| p.coarse)
            .map(|(k, _)| *k)
    }

    /// The entry for a rounded key, whether or not its exact start has become known since.
    fn find_coarse(&self, key: ProcessKey) -> Option<ProcessKey> {
        let from = ProcessKey {
            tgid: key.tgid,
            start: BootNs(key.start.0.saturating_sub(TICK_SLACK_NS)),
        };
        let to = ProcessKey {
            tgid: key.tgid,
            start: BootNs(key.start.0.saturating_add(TICK_NS + TICK_SLACK_NS)),
        };
        self.processes.range(from..=to).next().map(|(k, _)| *k)
    }

    fn newest_with_pid(&self, pid: u32, not_after: BootNs) -> Option<ProcessKey> {
        let from = ProcessKey {
            tgid: pid,
            start: BootNs(0),
        };
        let to = ProcessKey {
            tgid: pid,
            start: not_after,
        };
        self.processes.range(from..=to).next_back().map(|(k, _)| *k)
    }

    /// Makes sure that the acting process is in the table under its exact key.
    fn ensure(&mut self, info: &ProcessInfo, boot: BootNs, cgroup: u64) -> ProcessKey {
        match self.find(info.key) {
            None => {
                let process = Process {
                    parent: Parent::Pid(info.ppid),
                    programs: Vec::new(),
                    uid: info.uid,
                    entry: info.entry,
                    cgroup,
                    told: boot,
                    exited: false,
                    coarse: false,
                };
                self.add(info.key, process);
                return info.key;
            }
            Some(coarse) if coarse != info.key => {
                let mut process = self.processes.remove(&coarse).expect("found");
                process.coarse = false;
                let was_live = !process.exited;
                self.processes.insert(info.key, process);
                if was_live {
                    self.live_order.push_back(info.key);
                }
            }
            Some(_) => {}
        }
        let p = self.processes.get_mut(&info.key).expect("added or found");
        if boot >= p.told {
            p.told = boot;
            p.uid = info.uid;
            p.entry = info.entry;
            if cgroup != 0 && p.cgroup != cgroup {
                // it came in from outside (or from an outer container): its line starts anew here
                p.cgroup = cgroup;
                p.parent = Parent::Entry;
                p.programs.clear();
            }
        }
        info.key
    }

    fn exec(&mut self, key: ProcessKey, exec: &Exec, event: &Event, cgroup: u64) {
        let same_container_parent = {
            let p = &self.processes[&key];
            self.parent_of(key, p).is_some_and(|k| {
                self.processes[&k].cgroup == cgroup && !self.processes[&k].programs.is_empty()
            })
        };
        let p = self.processes.get_mut(&key).expect("ensured");
        let came_in = matches!(event.process.entry, Entry::ExecSession | Entry::Host)
            && p.programs.is_empty()
            && !same_container_parent;
        if exec.first || came_in {
            // what was before is the runtime, on its way in
            p.parent = Parent::Entry;
            p.programs.retain(|known| known.exec_boot > event.boot);
        }
        p.insert(Arc::new(Program {
            exe: exec.exe.clone(),
            script: exec.script.clone(),
            argv: bounded_argv(&exec.argv),
            exec_boot: event.boot,
            from_proc: false,
            comm: event.process.comm.clone(),
            facts: Some(ExecFacts::of(exec)),
        }));
    }

    fn fork(&mut self, parent: ProcessKey, child: ProcessKey, event: &Event, cgroup: u64) {
        let inherited = self.processes[&parent].program_at(event.boot).cloned();
        let uid = self.processes[&parent].uid;
        match self.find(child) {
            Some(known) => {
                let c = self.processes.get_mut(&known).expect("found");
                if c.parent != Parent::Entry {
                    c.parent = Parent::Exact(parent);
                    if let Some(program) = inherited {
                        c.insert(program);
                    }
                }
            }
            None => {
                let process = Process {
                    parent: Parent::Exact(parent),
                    programs: inherited.into_iter().collect(),
                    uid,
                    entry: event.process.entry,
                    cgroup,
                    told: event.boot,
                    exited: false,
                    coarse: false,
                };
                self.add(child, process);
            }
        }
    }

    fn exit(&mut self, key: ProcessKey) {
        let p = self
            .processes
            .get_mut(&key)
            .expect("the caller has it from the table");
        if p.exited {
            return;
        }
        p.exited = true;
        self.live -= 1;
        self.exited_order.push_back(key);
        while self.exited_order.len() > self.config.max_exited {
            if let Some(oldest) = self.exited_order.pop_front() {
                self.processes.remove(&oldest);
            }
        }
        self.compact();
    }

    fn add(&mut self, key: ProcessKey, process: Process) {
        if self.live >= self.config.max_live {
            self.drop_oldest();
        }
        self.processes.insert(key, process);
        self.live_order.push_back(key);
        self.live += 1;
    }

    /// Makes room. Entry points are passed over for a while: a fork bomb in one container should
    /// not cut the lineage of all others at the root.
    fn drop_oldest(&mut self) {
        let mut passed = 0;
        while let Some(key) = self.live_order.pop_front() {
            match self.processes.get(&key) {
                Some(p) if !p.exited => {
                    if p.parent == Parent::Entry && passed < MAX_PASSED_OVER {
                        passed += 1;
                        self.live_order.push_back(key);
                        continue;
                    }
                    self.processes.remove(&key);
                    self.live -= 1;
                    self.dropped += 1;
                    return;
                }
                _ => {}
            }
        }
    }

    /// Keeps the order queue in proportion to what is live.
    fn compact(&mut self) {
        if self.live_order.len() > 2 * self.live + 1024 {
            let processes = &self.processes;
            self.live_order
                .retain(|k| processes.get(k).is_some_and(|p| !p.exited));
        }
    }
}

/// One place in a line, as the table has it.
struct Step<'a> {
    key: ProcessKey,
    process: &'a Process,
    program: Option<&'a Arc<Program>>,
}

/// All that a place in a line is made of.
#[derive(Debug)]
struct Place {
    key: ProcessKey,
    entry: Entry,
    uid: u32,
    /// Programs do not change.
    program: Option<Arc<Program>>,
}

impl Place {
    fn of(step: &Step<'_>) -> Self {
        Self {
            key: step.key,
            entry: step.process.entry,
            uid: step.process.uid,
            program: step.program.cloned(),
        }
    }
    fn is(&self, step: &Step<'_>) -> bool {
        let program = match (&self.program, step.program) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        program
            && (self.key, self.entry, self.uid) == (step.key, step.process.entry, step.process.uid)
    }
}

/// The line that was told of a process last.
#[derive(Debug)]
struct Told {
    places: Vec<Place>,
    line: Line,
}

/// Lines told last, by acting process.
#[derive(Debug, Default)]
struct LastTold {
    by_process: HashMap<ProcessKey, Told>,
    bytes: usize,
}

impl LastTold {
    fn keep(&mut self, acting: ProcessKey, told: Told) {
        let bytes = bytes_of(&told.line);
        if self.bytes + bytes > MAX_TOLD_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        if let Some(before) = self.by_process.insert(acting, told) {
            self.bytes -= bytes_of(&before.line);
        }
    }
}

/// What a line holds, in words and encoded.
fn bytes_of(line: &Line) -> usize {
    let words = |a: &Ancestor| a.argv.iter().map(|w| 32 + 2 * w.len()).sum::<usize>();
    let facts = |a: &Ancestor| a.facts.as_ref().map_or(0, |f| 256 + 2 * f.cwd.len());
    let names = |a: &Ancestor| 2 * (a.exe.len() + a.script.len() + a.comm.len());
    let one = |a: &Ancestor| 512 + names(a) + words(a) + facts(a);
    line.iter().map(one).sum()
}

/// `with_facts`: what else its exec showed is told of the acting process.
fn line_of(steps: &[Step<'_>], with_facts: bool) -> Vec<Ancestor> {
    let mut line: Vec<Ancestor> = steps.iter().map(ancestor).collect();
    if let (Some(own), Some(step), true) = (line.first_mut(), steps.first(), with_facts) {
        own.facts = step.program.and_then(|p| p.facts.clone());
    }
    line
}

fn ancestor(step: &Step<'_>) -> Ancestor {
    let Step {
        key,
        process,
        program,
    } = step;
    Ancestor {
        key: *key,
        exe: program.map(|p| p.exe.clone()).unwrap_or_default(),
        script: program.map(|p| p.script.clone()).unwrap_or_default(),
        argv: program.map(|p| p.argv.clone()).unwrap_or_default(),
        entry: process.entry,
        uid: process.uid,
        from_proc: program.is_some_and(|p| p.from_proc),
        exec_boot: program.map(|p| p.exec_boot).unwrap_or_default(),
        comm: program.map(|p| p.comm.clone()).unwrap_or_default(),
        facts: None,
    }
}

fn program_of_seed(seed: &Seed) -> Arc<Program> {
    Arc::new(Program {
        exe: seed.exe.clone(),
        script: seed.script.clone(),
        argv: bounded_argv(&seed.argv),
        exec_boot: BootNs(0),
        from_proc: true,
        comm: seed.comm.clone(),
        facts: None,
    })
}

fn bounded_argv(argv: &[Text]) -> Vec<Text> {
    let mut room = MAX_ARGV_BYTES;
    let mut kept = Vec::new();
    for arg in argv {
        // every argument costs at least a byte, so that a million empty ones are bounded too
        if room == 0 {
            break;
        }
        let len = arg.len().min(room);
        kept.push(Text::from(&arg.as_bytes()[..len]));
        room -= len.max(1);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::Actor;
    use proptest::prelude::*;

    const CGROUP: u64 = 77;

    fn key(tgid: u32, start: u64) -> ProcessKey {
        ProcessKey {
            tgid,
            start: BootNs(start),
        }
    }

    fn event(boot: u64, process: ProcessKey, ppid: u32, entry: Entry, kind: EventKind) -> Event {
        Event {
            boot: BootNs(boot),
            cgroup_id: CGROUP,
            process: ProcessInfo {
                key: process,
                tid: process.tgid,
                ppid,
                entry,
                ..ProcessInfo::default()
            },
            actor: Actor(0),
            ..Event::new(kind)
        }
    }
    fn exec(boot: u64, process: ProcessKey, exe: &str) -> Event {
        let exec = Exec {
            exe: exe.into(),
            argv: vec![exe.into()],
            ..Exec::default()
        };
        event(boot, process, 0, Entry::Init, EventKind::Exec(exec))
    }
    fn first(boot: u64, process: ProcessKey, exe: &str) -> Event {
        let exec = Exec {
            exe: exe.into(),
            first: true,
            ..Exec::default()
        };
        event(boot, process, 0, Entry::Init, EventKind::Exec(exec))
    }
    fn fork(boot: u64, process: ProcessKey, child: ProcessKey) -> Event {
        event(boot, process, 0, Entry::Init, EventKind::Fork { child })
    }
    fn exit(boot: u64, process: ProcessKey) -> Event {
        event(
            boot,
            process,
            0,
            Entry::Init,
            EventKind::Exit { code: 0, signal: 0 },
        )
    }
    fn act(boot: u64, process: ProcessKey) -> Event {
        event(
            boot,
            process,
            0,
            Entry::Init,
            EventKind::Memfd {
                name: Text::default(),
            },
        )
    }
    fn names(line: &[Ancestor]) -> Vec<String> {
        line.iter().map(|a| a.exe.to_string()).collect()
    }
    fn table(events: &[Event]) -> Lineage {
        let mut t = Lineage::new(LineageConfig::default());
        for e in events {
            t.observe(e, e.cgroup_id);
        }
        t
    }

    #[test]
    fn a_line_goes_up_to_the_entry_point_and_is_whole() {
        let (init, sh, ls) = (key(10, 100), key(11, 200), key(12, 300));
        let last = exec(310, ls, "/bin/ls");
        let t = table(&[
            first(110, init, "/entry"),
            fork(200, init, sh),
            exec(210, sh, "/bin/sh"),
            fork(300, sh, ls),
            last.clone(),
        ]);
        let (line, cut) = t.lineage_of(&last);
        assert_eq!(names(&line), ["/bin/ls", "/bin/sh", "/entry"]);
        assert!(!cut);
        assert_eq!(line[1].exec_boot, BootNs(210));
    }

    #[test]
    fn who_does_one_thing_after_another_shares_its_line_until_something_in_it_changes() {
        let (init, sh) = (key(10, 100), key(11, 200));
        let mut t = table(&[
            first(110, init, "/entry"),
            fork(200, init, sh),
            exec(210, sh, "/bin/sh"),
        ]);
        let told = |t: &mut Lineage, e: Event| {
            t.observe(&e, e.cgroup_id);
            t.lineage_of(&e).0
        };
        let one = told(&mut t, act(220, sh));
        assert!(told(&mut t, act(221, sh)).is_shared_with(&one));
        assert!(
            t.lineage_of(&act(205, sh)).0[0].exe != one[0].exe,
            "before its exec"
        );
        assert_eq!(told(&mut t, act(222, sh)), one);
        let mut other_uid = act(223, init);
        other_uid.process.uid = 7;
        told(&mut t, other_uid);
        let two = told(&mut t, act(224, sh));
        assert_eq!((one[1].uid, two[1].uid), (0, 7), "its parent has changed");
        told(&mut t, exec(230, sh, "/bin/cat"));
        let three = told(&mut t, act(231, sh));
        assert_eq!(names(&three), ["/bin/cat", "/entry"]);
        assert_eq!(names(&t.lineage_of(&act(225, sh)).0), ["/bin/sh", "/entry"]);
    }

    #[test]
    fn lines_that_are_kept_for_later_are_bounded() {
        let mut t = Lineage::new(LineageConfig::default());
        for n in 1..2000 {
            let p = key(n, u64::from(n));
            let mut e = exec(u64::from(n) + 1, p, "/bin/x");
            if let EventKind::Exec(x) = &mut e.kind {
                x.argv = vec![Text::default(); 500];
            }
            t.observe(&e, CGROUP);
            t.lineage_of(&act(u64::from(n) + 2, p));
            let told = t.told.borrow();
            let held: usize = told.by_process.values().map(|t| bytes_of(&t.line)).sum();
            assert_eq!(told.bytes, held);
            assert!((1..=MAX_TOLD_BYTES).contains(&held), "{held}");
        }
    }

    #[test]
    fn an_exec_in_place_shows_the_program_that_executed_it_second() {
        let (init, child) = (key(10, 100), key(11, 200));
        let python = exec(220, child, "/usr/bin/python3");
        let t = table(&[
            first(110, init, "/entry"),
            fork(200, init, child),
            exec(210, child, "/bin/sh"),
            python.clone(),
        ]);
        assert_eq!(
            names(&t.lineage_of(&python).0),
            ["/usr/bin/python3", "/bin/sh", "/entry"]
        );
        // later events of that process have its parent process second
        assert_eq!(
            names(&t.lineage_of(&act(230, child)).0),
            ["/usr/bin/python3", "/entry"]
        );
        // and an event from before the second exec, delivered late, still sees the shell
        assert_eq!(
            names(&t.lineage_of(&act(215, child)).0),
            ["/bin/sh", "/entry"]
        );
    }

    #[test]
    fn an_exec_that_was_refused_shows_who_wanted_it_and_changes_nothing() {
        let (init, sh) = (key(10, 100), key(11, 200));
        let mut refused = exec(220, sh, "/tmp/evil");
        refused.enforced = Some(Enforced::Denied);
        let t = table(&[
            first(110, init, "/entry"),
            fork(200, init, sh),
            exec(210, sh, "/bin/sh"),
            refused.clone(),
        ]);
        let (line, cut) = t.lineage_of(&refused);
        assert_eq!(names(&line), ["/tmp/evil", "/bin/sh", "/entry"]);
        assert!(!cut);
        assert_eq!(names(&t.lineage_of(&act(230, sh)).0), ["/bin/sh", "/entry"]);
    }

    #[test]
    fn a_child_whose_parent_became_another_program_keeps_what_it_inherited() {
        let (init, child) = (key(10, 100), key(11, 200));
        let ls = exec(260, child, "/bin/ls");
        let t = table(&[
            first(110, init, "/bin/sh"),
            fork(200, init, child),
            exec(250, init, "/nginx"),
            ls.clone(),
        ]);
        assert_eq!(
            names(&t.lineage_of(&ls).0),
            ["/bin/ls", "/bin/sh", "/nginx"]
        );
    }

    #[test]
    fn the_runtime_on_its_way_in_is_not_part_of_the_line() {
        let (stage, init) = (key(9, 90), key(10, 100));
        let start = first(110, init, "/entry");
        let t = table(&[fork(100, stage, init), start.clone()]);
        assert_eq!(t.lineage_of(&start), (t.lineage_of(&start).0, false));
        assert_eq!(names(&t.lineage_of(&start).0), ["/entry"]);
        // docker exec: known to the container only from its exec on
        let session = key(20, 500);
        let sh = event(
            510,
            session,
            9,
            Entry::ExecSession,
            EventKind::Exec(Exec {
                exe: "/bin/sh".into(),
                ..Exec::default()
            }),
        );
        let mut t = t;
        t.observe(&fork(500, stage, session), CGROUP);
        t.observe(&sh, CGROUP);
        let (line, cut) = t.lineage_of(&sh);
        assert_eq!(names(&line), ["/bin/sh"]);
        assert!(!cut);
        assert_eq!(line[0].entry, Entry::ExecSession);
    }

    #[test]
    fn a_process_that_has_exited_still_has_its_line() {
        let (init, sh) = (key(10, 100), key(11, 200));
        let t = table(&[
            first(110, init, "/entry"),
            fork(200, init, sh),
            exec(210, sh, "/bin/sh"),
            exit(220, sh),
            exit(230, init),
        ]);
        assert_eq!(names(&t.lineage_of(&act(215, sh)).0), ["/bin/sh", "/entry"]);
        assert_eq!((t.live(), t.exited()), (0, 2));
    }

    #[test]
    fn an_exit_that_overtakes_its_exec_leaves_no_live_entry() {
        let p = key(11, 200);
        let t = table(&[exit(220, p), exec(210, p, "/bin/true")]);
        assert_eq!(t.live(), 0);
        assert_eq!(names(&t.lineage(p, BootNs(215)).0), ["/bin/true"]);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let (old, new) = (key(10, 100), key(10, 90_000_000_000));
        let t = table(&[
            exec(110, old, "/old"),
            exit(120, old),
            exec(90_000_000_001, new, "/new"),
        ]);
        assert_eq!(names(&t.lineage(old, BootNs(115)).0), ["/old"]);
        assert_eq!(names(&t.lineage(new, BootNs(90_000_000_002)).0), ["/new"]);
    }

    #[test]
    fn seeds_match_the_kernels_exact_start_within_a_tick() {
        let mut t = Lineage::new(LineageConfig::default());
        let seed = |tgid, ticks: u64, ppid, exe: &str| Seed {
            key: key(tgid, ticks * TICK_NS),
            ppid,
            exe: exe.into(),
            cgroup_id: CGROUP,
            entry: Entry::FoundRunning,
            ..Seed::default()
        };
        t.seed(&Seed {
            cgroup_id: 0,
            ..seed(1, 0, 0, "/shim")
        });
        t.seed(&seed(10, 5, 1, "/entry"));
        t.seed(&seed(11, 5, 10, "/worker"));
        // the worker acts, with its exact start: 7 ms into the tick
        let worker = key(11, 5 * TICK_NS + 7_000_000);
        let e = act(999_999_999, worker);
        t.observe(&e, CGROUP);
        let (line, cut) = t.lineage_of(&e);
        assert_eq!(names(&line), ["/worker", "/entry"]);
        assert!(!cut, "the parent is the shim, outside");
        assert!(line[0].from_proc);
        // then its parent does, and is still found from the child
        t.observe(&act(999_999_999, key(10, 5 * TICK_NS + 6_000_000)), CGROUP);
        assert_eq!(names(&t.lineage_of(&e).0), ["/worker", "/entry"]);
        assert_eq!(t.live(), 3);
        // a process with that pid that started two ticks later is another one
        assert!(!t.knows(key(11, 7 * TICK_NS)));
    }

    #[test]
    fn entry_points_outlive_a_fork_bomb() {
        let mut t = Lineage::new(LineageConfig {
            max_live: 100,
            max_exited: 10,
        });
        let init = key(1, 1);
        t.observe(&first(2, init, "/entry"), CGROUP);
        let mut parent = init;
        for i in 0..10_000 {
            let child = key(2 + i, 10 + u64::from(i));
            t.observe(&fork(10 + u64::from(i), parent, child), CGROUP);
            parent = child;
        }
        assert!(t.live() <= 100);
        assert_eq!(t.dropped(), 10_001 - 100);
        assert_eq!(names(&t.lineage(init, BootNs(20_000)).0), ["/entry"]);
        let (line, cut) = t.lineage(parent, BootNs(20_000));
        assert_eq!(line.len(), MAX_LINEAGE);
        assert!(cut);
    }

    #[test]
    fn arguments_are_bounded() {
        let p = key(10, 100);
        let mut e = exec(110, p, "/x");
        if let EventKind::Exec(exec) = &mut e.kind {
            exec.argv = vec![
                Text::from("a".repeat(400)),
                Text::from("b".repeat(400)),
                Text::from("c"),
            ];
        }
        let t = table(&[e]);
        let argv = &t.lineage(p, BootNs(110)).0[0].argv;
        assert_eq!(argv.iter().map(Text::len).collect::<Vec<_>>(), [400, 112]);
    }

    /// A random history: each step forks from or acts on one of the processes so far.
    fn history() -> impl Strategy<Value = Vec<Event>> {
        proptest::collection::vec((0u8..4, any::<prop::sample::Index>(), 0u32..40), 1..60).prop_map(
            |steps| {
                let init = key(1, 1);
                let mut alive = vec![init];
                let mut events = vec![first(2, init, "/init")];
                for (i, (what, who, pid)) in steps.into_iter().enumerate() {
                    // far more than a tick apart
                    let now = 1_000_000_000 * (i as u64 + 1);
                    if alive.is_empty() {
                        break;
                    }
                    let at = who.index(alive.len());
                    let who = alive[at];
                    match what {
                        0 | 1 => {
                            // pids are reused, but not while they are alive
                            let pid = (pid..)
                                .map(|p| p + 2)
                                .find(|p| alive.iter().all(|k| k.tgid != *p));
                            let child = key(pid.expect("there is always another"), now);
                            events.push(fork(now, who, child));
                            alive.push(child);
                        }
                        2 => events.push(exec(now, who, &format!("/bin/p{i}"))),
                        _ if who != init => {
                            events.push(exit(now, who));
                            alive.remove(at);
                        }
                        _ => {}
                    }
                }
                events
            },
        )
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_lines(events in history(), seed in any::<u64>()) {
            let in_order = table(&events);
            let mut shuffled = events.clone();
            // a small permutation that depends on the seed: neighbours swap, as between two rings
            let mut s = seed;
            for i in 1..shuffled.len() {
                s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if s >> 62 == 0 {
                    shuffled.swap(i - 1, i);
                }
            }
            let late = table(&shuffled);
            prop_assert_eq!(late.live(), in_order.live());
            for e in &events {
                let (a, cut_a) = in_order.lineage(e.process.key, BootNs(u64::MAX));
                let (b, cut_b) = late.lineage(e.process.key, BootNs(u64::MAX));
                prop_assert_eq!(a.iter().map(|x| x.key).collect::<Vec<_>>(), b.iter().map(|x| x.key).collect::<Vec<_>>());
                prop_assert_eq!(cut_a, cut_b);
            }
        }

        #[test]
        fn bounds_hold_whatever_comes(events in history(), max_live in 1usize..8, max_exited in 1usize..8) {
            let mut t = Lineage::new(LineageConfig { max_live, max_exited });
            for e in &events {
                t.observe(e, CGROUP);
                prop_assert!(t.live() <= max_live);
                prop_assert!(t.exited() <= max_exited);
                prop_assert!(t.processes.len() <= max_live + max_exited);
                let (line, _) = t.lineage_of(e);
                prop_assert!(line.len() <= MAX_LINEAGE + 1);
            }
        }
    }
}
