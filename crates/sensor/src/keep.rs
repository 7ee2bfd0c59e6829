//! One agent after another over the same programs: taking over what was left, replacing what does
//! not fit any more, leaving.
//!
//! Promises: what is there is used only when it fits exactly, and then the rings are read on from where
//! they stood, counters go on, and everything that only the agent before knew is made unknown again, so
//! that it is emitted anew. What does not fit is taken out only after its successor is attached: acts
//! around that moment are told once or twice, never not at all.

use crate::api::{Inherited, PinnedSet, Pinning, SensorConfig, Signal};
use crate::clock::{boot_now, mono_now};
use crate::control::Control;
use crate::counters::{STAGES, container_losses, cpu_totals};
use crate::hash::Key;
use crate::ladder::{Ladder, Refused};
use crate::load::ESSENTIAL;
use crate::maps::DENSE_DYNAMIC;
use crate::objects::{Objects, program_of};
use crate::pins::{self, Home, Presence, Set, Word};
use crate::reader::{Inbox, Sensor, event_ring};
use crate::skel::types;
use libbpf_rs::{MapCore as _, MapFlags};
use plimsoll_model::event::FileEvent;
use plimsoll_model::{BootNs, Event, EventKind, ProcessKey, Stage};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Both the old and the new programs run for so long, so that none of their clocks leaves a hole.
const OVERLAP_NS: u64 = 20_000_000;
/// An act that both saw, seen at most this far apart: the task may lose its processor in between.
const SAME_NS: u64 = OVERLAP_NS;
/// Losses are marked as told this long after they were: by then they are in a journal.
const TOLD_AFTER_NS: u64 = 3_000_000_000;
/// Told losses that wait to be marked.
const TOLD_MAX: usize = 4096;
/// Ticks of `/proc`.
const TICK_NS: u64 = 10_000_000;

/// What this sensor keeps, and for whom.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) home: Option<Home>,
    pub(crate) set: Option<Arc<Set>>,
    presence: Option<Presence>,
    /// How long the programs work without us.
    keep_for: Duration,
    pub(crate) problems: Vec<String>,
    inherited: Option<Inherited>,
    before: Option<Before>,
    /// The rings still hold what came before our first look at them.
    pub(crate) behind: bool,
    /// Told losses, with the moment, to be marked as told.
    told: VecDeque<(BootNs, u64, [u64; 5])>,
    /// Events of our rings before this were observed by the programs before ours.
    pub(crate) not_before: BootNs,
}

impl Kept {
    /// Once a second: the programs go on working. What they say themselves: since when they do not.
    pub(crate) fn stay(&self) -> Option<BootNs> {
        let presence = self.presence.as_ref()?;
        presence.work_until(mono_now().saturating_add(self.keep_for.as_nanos() as u64));
        presence.idle_since()
    }
}

/// A set of other programs, still attached.
struct Before {
    found: pins::Found,
}

/// What was found where the kernel side is to be kept.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) home: Option<Home>,
    pub(crate) abi: String,
    owner: String,
    keep_for: Duration,
    pub(crate) found: Option<pins::Found>,
    problems: Vec<String>,
}

impl Place {
    pub(crate) fn look(config: &SensorConfig, ladder: &Ladder) -> Self {
        let Some(wanted) = &config.pins else {
            return Self::default();
        };
        let mut place = Self {
            abi: pins::abi(config, ladder),
            owner: wanted.owner.clone(),
            keep_for: wanted.keep_for,
            ..Self::default()
        };
        match Home::open(&wanted.home) {
            Ok(home) => place.home = Some(home),
            Err(why) => place.problem(why),
        }
        let Some(home) = &place.home else {
            return place;
        };
        let dir = home.set_dir(&place.abi);
        if dir.symlink_metadata().is_err() {
            return place;
        }
        match pins::open(&dir) {
            // it has not followed who lives where: read to its end and replaced, as other programs are
            Ok(found) if idle_since(&found.objects).is_some() => {}
            Ok(found) if found.set.page.get(Word::Begun) == 1 => place.found = Some(found),
            // an agent was killed before it had told the programs what was running
            Ok(_) => drop(pins::remove(&dir)),
            Err(why) => place.problem(format!("what was left in {}: {why}", dir.display())),
        }
        place
    }

    pub(crate) fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Takes out every set but the one in use.
    fn clear_others(&mut self, set: &Set) {
        let sets = self.home.as_ref().map(Home::sets).unwrap_or_default();
        for dir in sets.iter().filter(|d| **d != set.dir) {
            if let Err(why) = pins::remove(dir) {
                self.problem(why);
            }
        }
    }
}

impl Sensor {
    /// Reads on from where an agent before stood, with its programs.
    pub(crate) fn take_over(
        config: &SensorConfig,
        mut place: Place,
        found: pins::Found,
    ) -> Result<Sensor, Box<(Place, String)>> {
        match Self::over(config, &place, found) {
            Ok(mut sensor) => {
                if let Some(set) = &sensor.kept.set {
                    place.clear_others(&set.clone());
                }
                sensor.kept.home = place.home;
                sensor.kept.problems = place.problems;
                Ok(sensor)
            }
            Err(why) => Err(Box::new((place, why))),
        }
    }

    fn over(config: &SensorConfig, place: &Place, found: pins::Found) -> Result<Sensor, String> {
        let pins::Found {
            set,
            notes,
            objects,
            links,
        } = found;
        if notes.abi != place.abi {
            return Err("it is of another ABI".into());
        }
        if let Some(name) = ESSENTIAL
            .iter()
            .find(|p| !links.iter().any(|(name, _)| name == *p))
        {
            return Err(format!("{name} is not attached"));
        }
        let words = |e: libbpf_rs::Error| e.to_string();
        if numbers_used(&objects).map_err(words)? {
            return Err("its numbers for behaviours are nearly used up".into());
        }
        let key = key_of(&objects).map_err(words)?;
        // from here on they work for us; had they ended their work, they would have missed who lives where
        let presence = Presence::of(&objects).map_err(words)?;
        presence.work_until(mono_now().saturating_add(place.keep_for.as_nanos() as u64));
        if presence.idle_since().is_some() {
            return Err("its programs had ended their work".into());
        }
        let mut ladder = Ladder::new(config);
        ladder.refused = notes.refused;
        let (mut misses, mut programs) = (Vec::new(), Vec::new());
        for (name, link) in &links {
            let missed = program_of(link).map_err(words)?;
            misses.push((missed, 0));
            programs.push((name.clone(), program_of(link).map_err(words)?));
        }
        let sensor = Self::assemble(
            config,
            key,
            &ladder,
            (objects, links),
            misses,
            programs,
            false,
        );
        let mut sensor = sensor.map_err(words)?;
        let inherited = inherited(&set, &sensor.objects, false);
        let now = boot_now();
        sensor.resume_losses(&set, inherited.until);
        sensor.control.begin_anew(now);
        sensor.kept.inherited = Some(inherited);
        sensor.kept.behind = true;
        sensor.kept.presence = Some(presence);
        sensor.kept.keep_for = place.keep_for;
        sensor.use_set(set);
        sensor.tick(now);
        Ok(sensor)
    }

    /// From here on the page is ours.
    fn use_set(&mut self, set: Set) {
        let page = &set.page;
        page.set(Word::InHand, 0);
        page.set(Word::InHandAt, page.get(Word::Read));
        page.set(Word::Left, 0);
        page.set(Word::Prevented, 0);
        page.set(Word::Pid, u64::from(std::process::id()));
        page.set(Word::Alive, boot_now().0);
        let set = Arc::new(set);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.read_for = Some(set.clone());
        drop(inbox);
        let _ = self.control.maps.page.set(set.clone());
        self.kept.set = Some(set);
    }

    /// Pins what was just loaded. What an agent before left, and does not fit, stays attached until the
    /// first look at the rings.
    pub(crate) fn keep(&mut self, mut place: Place, ladder: &Ladder) {
        let Some(home) = place.home.take() else {
            self.kept.problems = place.problems;
            return;
        };
        let notes = pins::Notes {
            abi: place.abi.clone(),
            wire: pins::wire(),
            owner: place.owner.clone(),
            refused: Refused::clone(&ladder.refused),
            ..pins::Notes::default()
        };
        let here = home.set_dir(&notes.abi);
        if here.symlink_metadata().is_ok() {
            // the same ABI, and yet it does not fit
            let aside = home.set_dir(&format!("{}-old", notes.abi));
            let _ = pins::remove(&aside);
            if let Err(e) = std::fs::rename(&here, &aside) {
                place.problem(format!("rename {}: {e}", here.display()));
            }
        }
        let mut others: Vec<pins::Found> = Vec::new();
        for dir in home.sets() {
            let readable = pins::open(&dir).and_then(|f| match f.notes.wire == notes.wire {
                true => Ok(f),
                false => Err("its records have another layout than ours".into()),
            });
            match readable {
                Ok(found) if found.set.page.get(Word::Begun) == 1 => others.push(found),
                Ok(found) => drop(pins::remove(&found.set.dir)),
                Err(why) => {
                    place.problem(format!("{} is not read: {why}", dir.display()));
                    if let Err(why) = pins::remove(&dir) {
                        place.problem(why);
                    }
                }
            }
        }
        others.sort_by_key(|f| f.set.page.get(Word::Alive));
        if let Some(found) = others.pop() {
            self.kept.inherited = Some(inherited(&found.set, &found.objects, true));
            // they work on until our first look
            if let Ok(presence) = Presence::of(&found.objects) {
                presence.work_until(mono_now().saturating_add(place.keep_for.as_nanos() as u64));
            }
            self.kept.before = Some(Before { found });
        }
        for other in others {
            let _ = pins::remove(&other.set.dir);
        }
        // before anything is pinned: nothing is ever left that works for ever
        self.kept.keep_for = place.keep_for;
        self.kept.presence = Presence::of(&self.objects).ok();
        self.kept.stay();
        let pinned = match &self.kept.presence {
            Some(_) => pins::create(&home, notes, &self.objects, &mut self.links),
            None => Err("pin: these programs could not tell that nobody reads them".to_owned()),
        };
        match pinned {
            Ok(set) => {
                self.use_set(set);
                self.kept.home = Some(home);
            }
            Err(why) => {
                if let Some(presence) = self.kept.presence.take() {
                    presence.work_until(0);
                }
                place.problem(why);
            }
        }
        self.kept.problems = place.problems;
    }

    /// What became of keeping the kernel side, and of what was there before.
    pub fn pinning(&self) -> Pinning {
        let set = self.kept.set.as_ref();
        let home = self.kept.home.as_ref().filter(|_| set.is_some());
        Pinning {
            home: home.map(|h| h.dir().to_owned()),
            problems: self.kept.problems.clone(),
            inherited: self.kept.inherited.clone(),
        }
    }

    /// The end in order: everything that was handed over is recorded. With `keep` the programs go on
    /// for the next agent, where they are pinned; else nothing of them stays.
    pub fn leave(mut self, keep: bool) {
        self.mark_told(BootNs(u64::MAX));
        let Some(set) = self.kept.set.take() else {
            return;
        };
        set.page.set(Word::InHand, 0);
        set.page.set(Word::InHandAt, set.page.get(Word::Read));
        set.page.set(Word::Left, 1);
        // one that has not begun is worth nothing, and what was there before may still be
        if keep && set.page.get(Word::Begun) == 1 {
            return;
        }
        let removed = pins::remove(&set.dir);
        if !keep && let Some(before) = self.kept.before.take() {
            let _ = pins::remove(&before.found.set.dir);
        }
        if let (Ok(()), Some(home), false) = (removed, &self.kept.home, keep) {
            let _ = std::fs::remove_dir(home.dir());
        }
    }
}

impl Sensor {
    /// The first look at our rings: whoever was there before is read to its end, and taken out.
    pub(crate) fn begin(&mut self, sink: &mut dyn FnMut(Signal)) -> usize {
        let Some(set) = self.kept.set.clone() else {
            return 0;
        };
        if set.page.get(Word::Begun) == 1 {
            return 0;
        }
        set.page.set(Word::Begun, 1);
        let Some(before) = self.kept.before.take() else {
            return 0;
        };
        let from = boot_now();
        // idle ones have told nothing of the time in which ours were attached
        if idle_since(&before.found.objects).is_none() {
            // from here on everything is ours, and said anew: its entries were seen by the others
            let _ = self.control.bump_generation();
            self.kept.not_before = from;
            std::thread::sleep(Duration::from_nanos(OVERLAP_NS));
        }
        let (mut events, losses) = before.end(from);
        let ours = self.take_all();
        events.retain(|e| e.boot < from || !ours.iter().any(|o| same_act(e, o)));
        events.extend(ours);
        events.sort_by_key(|e| e.boot);
        let handed = events.len() + losses.len();
        losses.into_iter().for_each(|loss| sink(Signal::Loss(loss)));
        for event in events {
            self.hand_over(event, sink);
        }
        handed
    }

    /// Counts on from what was told before.
    fn resume_losses(&mut self, set: &Set, until: BootNs) {
        let mut told = set.told();
        self.losses.since = until;
        self.losses.node = told.remove(&pins::TOLD_NODE).unwrap_or_default();
        let misses = told.remove(&pins::TOLD_MISSES).unwrap_or_default()[0];
        let now: u64 = self.misses.iter().map(|(p, _)| p.recursion_misses()).sum();
        for (program, seen) in &mut self.misses {
            *seen = program.recursion_misses();
        }
        self.losses.missed_before = now.saturating_sub(misses);
        for (id, lost) in told {
            for (stage, n) in lost.into_iter().enumerate() {
                self.losses.seen.insert((id, stage), n);
            }
        }
    }

    /// Remembers that losses were told, to be marked when they are in a journal.
    pub(crate) fn note_told(&mut self, now: BootNs) {
        if self.kept.set.is_none() {
            return;
        }
        let mut by_container: HashMap<u64, [u64; 5]> = HashMap::new();
        for ((id, stage), n) in &self.losses.seen {
            by_container.entry(*id).or_default()[*stage] = *n;
        }
        let misses: u64 = self.misses.iter().map(|(_, seen)| seen).sum();
        let node = [
            (pins::TOLD_NODE, self.losses.node),
            (pins::TOLD_MISSES, [misses, 0, 0, 0, 0]),
        ];
        for (key, counts) in by_container.into_iter().chain(node) {
            self.kept.told.push_back((now, key, counts));
        }
        while self.kept.told.len() > TOLD_MAX {
            self.mark_one();
        }
    }

    fn mark_one(&mut self) {
        if let (Some((_, key, counts)), Some(set)) = (self.kept.told.pop_front(), &self.kept.set) {
            set.tell(key, &counts);
        }
    }

    /// Marks what was told long enough ago.
    pub(crate) fn mark_told(&mut self, now: BootNs) {
        let due = |(at, _, _): &(BootNs, u64, [u64; 5])| now.0.saturating_sub(at.0) > TOLD_AFTER_NS;
        while self.kept.told.front().is_some_and(due) {
            self.mark_one();
        }
    }
}

impl Before {
    /// Takes it out of the kernel; what its rings still held, and what it had lost.
    fn end(self, from: BootNs) -> (Vec<Event>, Vec<crate::api::Loss>) {
        let pins::Found {
            set,
            objects,
            links,
            ..
        } = self.found;
        let _ = pins::remove(&set.dir);
        drop(links);
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        for name in ["alert_ring", "bulk_ring"] {
            if let Ok(ring) = event_ring(&objects, name, &inbox) {
                ring.consume_raw();
            }
        }
        let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events: Vec<Event> = std::mem::take(&mut inbox.events).into();
        events.retain(|e| e.boot.0 < from.0 + OVERLAP_NS);
        for event in &mut events {
            // its dictionary has gone
            event.dict = None;
            event.dense = 0;
        }
        let losses = lost_since_told(&set, &objects, from, inbox.broken);
        (events, losses)
    }
}

fn lost_since_told(set: &Set, objects: &Objects, to: BootNs, broken: u64) -> Vec<crate::api::Loss> {
    let from = BootNs(set.page.get(Word::Alive));
    let mut told = set.told();
    let node = told.remove(&pins::TOLD_NODE).unwrap_or_default();
    let mut rest = objects.get("cpu_states").map_or([0; 5], |map| {
        let all = cpu_totals(map).lost;
        std::array::from_fn(|i| all[i].saturating_sub(node[i]))
    });
    let mut losses = Vec::new();
    let mut tell = |stage, cgroup_id, count| {
        if count > 0 {
            losses.push(crate::api::Loss {
                stage,
                cgroup_id,
                count,
                from,
                to,
            });
        }
    };
    let containers = objects.get("containers").map(container_losses);
    for (id, lost) in containers.unwrap_or_default() {
        let told = told.get(&id).copied().unwrap_or_default();
        for (i, n) in lost.into_iter().enumerate() {
            let n = n.saturating_sub(told[i]);
            rest[i] = rest[i].saturating_sub(n);
            tell(STAGES[i], id, n);
        }
    }
    for (i, n) in rest.into_iter().enumerate() {
        tell(STAGES[i], 0, n);
    }
    tell(Stage::Decode, 0, broken);
    losses
}

/// Seen by both sets at once.
fn same_act(a: &Event, b: &Event) -> bool {
    a.boot.0.abs_diff(b.boot.0) < SAME_NS
        && a.process.key == b.process.key
        && a.process.tid == b.process.tid
        && a.cgroup_id == b.cgroup_id
        && same_kind(&a.kind, &b.kind)
}

/// What was done is the same. Where a file lies each set knows as well as it has seen the mounts and
/// the programs before: those attached later may not know it yet.
fn same_kind(a: &EventKind, b: &EventKind) -> bool {
    match (a, b) {
        (EventKind::CgroupMkdir { .. }, _) => false,
        (EventKind::File(a), EventKind::File(b)) => {
            let origin = a.origin;
            *a == FileEvent {
                origin,
                ..b.clone()
            }
        }
        (EventKind::Exec(a), EventKind::Exec(b)) => a.exe == b.exe && a.argv == b.argv,
        _ => a == b,
    }
}

fn idle_since(objects: &Objects) -> Option<BootNs> {
    Presence::of(objects).ok()?.idle_since()
}

fn inherited(set: &Set, objects: &Objects, replaced: bool) -> Inherited {
    let page = &set.page;
    let orderly = page.get(Word::Left) == 1;
    let since_counted = page
        .get(Word::Read)
        .saturating_sub(page.get(Word::InHandAt));
    Inherited {
        until: BootNs(page.get(Word::Alive)),
        orderly,
        in_hand: match orderly {
            true => 0,
            false => page.get(Word::InHand).saturating_add(since_counted),
        },
        prevented_until: Some(BootNs(page.get(Word::Prevented))).filter(|b| b.0 > 0),
        replaced,
        idle_since: idle_since(objects),
    }
}

/// The key that the programs hash with.
fn key_of(objects: &Objects) -> libbpf_rs::Result<Key> {
    let missing = || libbpf_rs::Error::from_raw_os_error(libc::ENOENT);
    let map = objects.get("rodata")?;
    let bytes = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
    let bytes = bytes.ok_or_else(missing)?;
    let word = |at: usize| {
        let eight = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        eight.map(u64::from_ne_bytes).ok_or_else(missing)
    };
    Ok(Key(
        word(std::mem::offset_of!(types::rodata, sip_k0))?,
        word(std::mem::offset_of!(types::rodata, sip_k1))?,
    ))
}

/// Numbers are never given out twice in one set: past the half another one is due.
fn numbers_used(objects: &Objects) -> libbpf_rs::Result<bool> {
    let cpus = libbpf_rs::num_possible_cpus()? as u64;
    let most = cpu_totals(objects.get("cpu_states")?).dense_used_most;
    Ok(most.saturating_mul(cpus) > DENSE_DYNAMIC as u64 / 2)
}

impl Control {
    /// Makes unknown what only the agent before knew: sets and their numbers, counters of blocks, who is
    /// held and who streams. Containers, processes, losses and recordings stay.
    fn begin_anew(&self, now: BootNs) {
        let maps = &self.maps;
        maps.enforcement.clear();
        maps.forget_sets();
        // what the first level remembers was emitted to somebody who has gone
        let _ = self.bump_generation();
        maps.clear_blocks();
        let known = |root: u64| {
            let found = maps.containers.lookup(&root.to_ne_bytes(), MapFlags::ANY);
            matches!(found, Ok(Some(_)))
        };
        maps.recorder.take_over(known, now);
    }

    /// The kernel's own word on a process that it has followed for an agent before: `/proc` knows the
    /// start to 10 ms only. `None`: it has not.
    pub fn followed(&self, key: ProcessKey) -> Option<ProcessKey> {
        let known = match self.maps.inherited {
            true => self.maps.process(key.tgid)?,
            false => return None,
        };
        (known.start_ns.abs_diff(key.start.0) <= 2 * TICK_NS).then_some(ProcessKey {
            start: BootNs(known.start_ns),
            ..key
        })
    }

    /// Events that were read so far, by this agent and those before it.
    pub fn events_read(&self) -> u64 {
        let page = self.maps.page.get();
        page.map_or(0, |set| set.page.get(Word::Read))
    }

    /// Of the first `read` events, this many are not recorded yet, at most.
    pub fn note_in_hand(&self, read: u64, held: u64) {
        if let Some(set) = self.maps.page.get() {
            set.page.set(Word::InHand, held);
            set.page.set(Word::InHandAt, read);
        }
    }

    /// Acts may be prevented until then; the agent that comes next has to know.
    pub(crate) fn note_prevented(&self, until: u64) {
        let Some(set) = self.maps.page.get() else {
            return;
        };
        let now = boot_now().0;
        let was = set.page.get(Word::Prevented);
        set.page.set(
            Word::Prevented,
            match until {
                0 => was.min(now),
                _ => until,
            },
        );
    }
}

/// Every set below `root`, the directory that holds the homes of agents.
pub fn pinned(root: &Path) -> Vec<PinnedSet> {
    let mut all = Vec::new();
    for home in pins::homes(root) {
        let lock = Home::existing(&home);
        for dir in pins::sets_in(&home) {
            let notes = pins::read_notes(&dir);
            let open = pins::open(&dir);
            all.push(PinnedSet {
                owner: notes.map_or_else(|_| String::new(), |n| n.owner),
                in_use: matches!(&lock, Err(why) if why.starts_with(pins::IN_USE)),
                last_seen: open
                    .as_ref()
                    .ok()
                    .map(|f| BootNs(f.set.page.get(Word::Alive))),
                idle_since: open.as_ref().ok().and_then(|f| idle_since(&f.objects)),
                programs: pins::links_in(&dir),
                broken: open.err().unwrap_or_default(),
                dir,
            });
        }
    }
    all
}

/// What there is to do about what an agent left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing is left, or another agent has come: whatever is there is that one's.
    Nothing,
    /// The programs work for an agent that may still come, or do nothing and keep what they recorded.
    Waits,
}

/// What the agent that was process `pid` left in a home; takes no lock, so that it keeps nobody from
/// starting.
pub fn left_by(home: &Path, pid: u32) -> Left {
    let of_pid = |dir: &std::path::PathBuf| {
        let pid_there = pins::open(dir).map(|f| f.set.page.get(Word::Pid));
        pid_there.is_ok_and(|p| p == u64::from(pid))
    };
    match pins::sets_in(home).iter().any(of_pid) {
        true => Left::Waits,
        false => Left::Nothing,
    }
}

/// Takes out what the agent that was process `pid` left in a home, where the time is over in which its
/// programs work without one; how many sets. Never anything while an agent is there: the place is locked.
///
/// # Errors
/// In words: an agent uses it, the programs work still, or something could not be taken out.
pub fn unpin_left_by(home: &Path, pid: u32) -> Result<usize, String> {
    let _lock = Home::existing(home)?;
    let mut gone = 0;
    for dir in pins::sets_in(home) {
        let found = pins::open(&dir)?;
        if found.set.page.get(Word::Pid) != u64::from(pid) {
            continue;
        }
        let presence = Presence::of(&found.objects).map_err(|e| e.to_string())?;
        if !presence.is_over(mono_now()) {
            return Err("its programs work still".to_owned());
        }
        drop((presence, found));
        pins::remove(&dir)?;
        gone += 1;
    }
    // empty only where nothing else is left
    let _ = std::fs::remove_dir(home);
    Ok(gone)
}

/// Takes out every set in the homes below `root` that no agent uses; what could not be, in words.
pub fn unpin(root: &Path, only: Option<&Path>) -> (Vec<PinnedSet>, Vec<String>) {
    let (mut gone, mut problems) = (Vec::new(), Vec::new());
    for set in pinned(root) {
        let Some(home) = set.dir.parent() else {
            continue;
        };
        if only.is_some_and(|only| only != home) {
            continue;
        }
        let removed = Home::existing(home).and_then(|_lock| pins::remove(&set.dir));
        match removed {
            Ok(()) => {
                let _ = std::fs::remove_dir(home);
                gone.push(set);
            }
            Err(why) => problems.push(why),
        }
    }
    (gone, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::event::{FileOp, Origin};

    fn made(path: &str, origin: Origin, boot: u64) -> Event {
        let kind = EventKind::File(FileEvent {
            op: FileOp::Mkdir,
            path: path.into(),
            target: "".into(),
            origin,
            flags: 0,
            result: 0,
            raw: None,
            mode: None,
        });
        Event {
            boot: BootNs(boot),
            ..Event::new(kind)
        }
    }

    #[test]
    fn an_act_is_the_same_whatever_each_set_knew_of_where_the_file_lies() {
        let one = made("/srv/a", Origin::Foreign, 1_000);
        assert!(same_act(&one, &made("/srv/a", Origin::Unknown, 9_000)));
        assert!(!same_act(&one, &made("/srv/b", Origin::Foreign, 9_000)));
        let later = 1_000 + SAME_NS;
        assert!(!same_act(&one, &made("/srv/a", Origin::Foreign, later)));
    }
}
