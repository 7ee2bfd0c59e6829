//! The bounded queue between the reader of the rings and the pipeline.
//!
//! Promises:
//! - Every container has a lane of its own with a share of the room, and lanes are emptied in
//!   turn, so a noisy container delays and loses its own events, not its neighbours'.
//! - Alert-class events have their own room and are taken first, after the process-tree events
//!   (fork, exec, exit) of their container that happened before them, so that their lineage is whole.
//! - Within a lane events leave in the order of the boot clock, except that alert-class events
//!   overtake ordinary ones when more than [`BACKLOG`] of those wait.
//! - Events and bytes are bounded; what does not fit is handed back to be counted and forgotten. Only
//!   the end of a container always fits: there is one of each, and it is no act of the container.
//!
//! Left out: what a refusal means (the reader's business) and losses, which are no events.

use plimsoll_model::{Event, EventKind, Glance};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Ordinary events of one container that an alert-class event of it still waits for.
pub const BACKLOG: usize = 1024;
/// Events taken from one lane before it is the next one's turn.
const TURN: usize = 32;
/// An empty lane keeps at most this much room.
const KEEP: usize = 256;
/// Lane of node-level events: taken before any other.
const NODE: u64 = 0;

/// How much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Ordinary events, all containers.
    pub bulk_events: usize,
    /// Fork, exec, exit and cgroup events, all containers.
    pub tree_events: usize,
    /// Alert-class events, all containers.
    pub alert_events: usize,
    /// Bytes of all events together, as far as they are counted (texts and the events themselves).
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bulk_events: 131_072,
            tree_events: 16_384,
            alert_events: 8192,
            bytes: 48 << 20,
        }
    }
}

/// A container may use this part of each bound (1/2), so that two noisy ones leave nothing only
/// to each other.
fn share(bound: usize) -> usize {
    bound / 2
}

/// Which room an event takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ordinary.
    Bulk,
    /// Fork, exec, exit, cgroup.
    Tree,
    /// Alert-class.
    Alert,
}

/// The class of an event.
pub fn class_of(event: &Event) -> Class {
    match event.kind {
        EventKind::Fork { .. }
        | EventKind::Exec(_)
        | EventKind::Exit { .. }
        | EventKind::CgroupMkdir { .. }
        | EventKind::CgroupRmdir { .. }
        | EventKind::CgroupAttach { .. } => Class::Tree,
        _ if event.alert_class => Class::Alert,
        _ => Class::Bulk,
    }
}

/// How many events wait, and how much there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Ordinary events waiting.
    pub bulk: usize,
    /// Process-tree events waiting.
    pub tree: usize,
    /// Alert-class events waiting.
    pub alert: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// Events refused since the agent started.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Lane {
    bulk: VecDeque<Event>,
    tree: VecDeque<Event>,
    alert: VecDeque<Event>,
    /// In `turns`.
    listed: bool,
}

impl Lane {
    fn queue(&mut self, class: Class) -> &mut VecDeque<Event> {
        match class {
            Class::Bulk => &mut self.bulk,
            Class::Tree => &mut self.tree,
            Class::Alert => &mut self.alert,
        }
    }
    fn has_ordinary(&self) -> bool {
        !self.bulk.is_empty() || !self.tree.is_empty()
    }
    /// The class whose first event is the oldest one; ordinary classes only.
    fn oldest(&self) -> Option<(Class, u64)> {
        let tree = self.tree.front().map(|e| (Class::Tree, e.boot.0));
        let bulk = self.bulk.front().map(|e| (Class::Bulk, e.boot.0));
        match (tree, bulk) {
            (Some(t), Some(b)) => Some(if b.1 < t.1 { b } else { t }),
            (t, b) => t.or(b),
        }
    }
    fn is_spent(&self) -> bool {
        !self.has_ordinary() && self.alert.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<u64, Lane>,
    /// Lanes with ordinary events, in turn.
    turns: VecDeque<u64>,
    /// The lane of each alert-class event, oldest first.
    urgent: VecDeque<u64>,
    fill: Fill,
    closed: bool,
    waiting: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Inbox {
    bounds: Bounds,
    /// Something may wait in the lane of node-level events.
    made: AtomicBool,
    state: Mutex<State>,
    ready: Condvar,
}

fn glance_weight(glance: &Glance) -> usize {
    let env = glance.env.iter().flatten();
    size_of::<Glance>() + glance.user.len() + env.map(|v| v.len() + 24).sum::<usize>()
}

/// Bytes that an event takes while it waits.
fn weight(event: &Event) -> usize {
    let texts = match &event.kind {
        EventKind::Exec(x) => {
            x.exe.len()
                + x.script.len()
                + x.cwd.len()
                + x.argv.iter().map(|a| a.len() + 24).sum::<usize>()
                + x.glance.as_deref().map_or(0, glance_weight)
        }
        EventKind::File(f) => {
            f.path.len() + f.target.len() + f.raw.as_ref().map_or(0, |raw| raw.len())
        }
        EventKind::Library { path, .. } => path.len(),
        EventKind::Dns(d) => d.name.len() + d.addresses.len() * 17,
        EventKind::Mount {
            source,
            target,
            fstype,
            ..
        } => source.len() + target.len() + fstype.len(),
        EventKind::CgroupMkdir { path, .. } | EventKind::CgroupAttach { path, .. } => path.len(),
        _ => 32,
    };
    size_of::<Event>() + texts + event.process.comm.len()
}

fn lane_of(event: &Event) -> u64 {
    match event.kind {
        // a new cgroup must be known before anything that happens in it
        EventKind::CgroupMkdir { .. } => NODE,
        // and its end must not overtake what happened in it
        EventKind::CgroupRmdir { id } if event.cgroup_id == 0 => id,
        EventKind::CgroupAttach { to, .. } if event.cgroup_id == 0 => to,
        _ => event.cgroup_id,
    }
}

/// Whether the event is the end of a container, not of a cgroup in it.
fn is_end(event: &Event) -> bool {
    matches!(event.kind, EventKind::CgroupRmdir { id } if id == event.cgroup_id)
}

/// Puts an event where the boot clock has it: of two rings the later event may be read first, and then an
/// exec must still come before what its program did. Looks back a little only.
fn insert(queue: &mut VecDeque<Event>, event: Event) {
    let later = |e: &&Event| e.boot > event.boot;
    let back = queue.iter().rev().take(KEEP).take_while(later).count();
    queue.insert(queue.len() - back, event);
}

impl Inbox {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            made: AtomicBool::new(false),
            state: Mutex::default(),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in, or hands it back when there is no room for it.
    ///
    /// # Errors
    /// The event itself, when its class, its container's share or the bytes are used up.
    #[allow(clippy::result_large_err)] // the event is what the caller needs to account for it
    pub fn offer(&self, event: Event) -> Result<(), Event> {
        let class = class_of(&event);
        let bound = match class {
            Class::Bulk => self.bounds.bulk_events,
            Class::Tree => self.bounds.tree_events,
            Class::Alert => self.bounds.alert_events,
        };
        let bytes = weight(&event);
        let id = lane_of(&event);
        let mut state = self.lock();
        let state_ref = &mut *state;
        let lane = state_ref.lanes.entry(id).or_default();
        let held = match class {
            Class::Bulk => &mut state_ref.fill.bulk,
            Class::Tree => &mut state_ref.fill.tree,
            Class::Alert => &mut state_ref.fill.alert,
        };
        // ordinary events leave an eighth of the bytes to the two classes that matter more
        let bytes_bound = match class {
            Class::Bulk => self.bounds.bytes - self.bounds.bytes / 8,
            Class::Tree | Class::Alert => self.bounds.bytes,
        };
        let own = lane.queue(class).len();
        let full = *held >= bound
            || (id != NODE && own >= share(bound))
            || state_ref.fill.bytes + bytes > bytes_bound;
        if full && !is_end(&event) {
            state_ref.fill.refused += 1;
            return Err(event);
        }
        *held += 1;
        state_ref.fill.bytes += bytes;
        insert(lane.queue(class), event);
        if id == NODE {
            self.made.store(true, Ordering::Release);
        }
        match class {
            Class::Alert => state_ref.urgent.push_back(id),
            Class::Bulk | Class::Tree if !lane.listed => {
                lane.listed = true;
                if id == NODE {
                    state_ref.turns.push_front(id);
                } else {
                    state_ref.turns.push_back(id);
                }
            }
            Class::Bulk | Class::Tree => {}
        }
        if state.waiting {
            state.waiting = false;
            drop(state);
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Moves up to about `max` events to `batch`, waiting for the first one at most `wait`; with
    /// `urgent_only` only alert-class events and what must come before them. Returns whether more
    /// may come: `false` after [`close`](Self::close), when all is taken.
    pub fn take(
        &self,
        batch: &mut Vec<Event>,
        max: usize,
        wait: Duration,
        urgent_only: bool,
    ) -> bool {
        let mut state = self.lock();
        if state.urgent.is_empty() && (urgent_only || state.turns.is_empty()) && !state.closed {
            state.waiting = true;
            state = self
                .ready
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting = false;
        }
        let before = batch.len();
        if state.turns.front() == Some(&NODE) {
            state.take_turn(batch, max);
        }
        while batch.len() - before < max && state.take_urgent(batch, max + before) {}
        while !urgent_only
            && batch.len() - before < max
            && state.take_turn(batch, max - (batch.len() - before))
        {}
        batch.len() > before || !state.closed || !state.turns.is_empty()
    }

    /// Moves all node-level events to `batch`, if there are any: a new cgroup is looked up while there is
    /// something to find, however long a batch of other events takes.
    pub fn take_made(&self, batch: &mut Vec<Event>) {
        if !self.made.load(Ordering::Relaxed) || !self.made.swap(false, Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        // its place among the turns stays, and finds nothing
        while let Some((class, _)) = state.lanes.get(&NODE).and_then(Lane::oldest) {
            state.pop(NODE, class, batch);
        }
    }

    /// Wakes whoever waits in [`Self::take`], without an event.
    pub fn nudge(&self) {
        self.ready.notify_all();
    }

    /// No more events will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// A quarter of its bounds is in use: whoever can wait had better.
    pub fn is_filling(&self) -> bool {
        let state = self.lock();
        let (fill, most) = (&state.fill, &self.bounds);
        fill.bulk > most.bulk_events / 4
            || fill.tree > most.tree_events / 4
            || fill.alert > most.alert_events / 4
            || fill.bytes > most.bytes / 4
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        self.lock().fill
    }
}

impl State {
    fn pop(&mut self, id: u64, class: Class, batch: &mut Vec<Event>) -> bool {
        let Some(event) = self
            .lanes
            .get_mut(&id)
            .and_then(|l| l.queue(class).pop_front())
        else {
            return false;
        };
        match class {
            Class::Bulk => self.fill.bulk -= 1,
            Class::Tree => self.fill.tree -= 1,
            Class::Alert => self.fill.alert -= 1,
        }
        self.fill.bytes -= weight(&event);
        batch.push(event);
        true
    }

    /// The oldest alert-class event with what must come before it; `false` when there is none
    /// or the batch is full.
    fn take_urgent(&mut self, batch: &mut Vec<Event>, until: usize) -> bool {
        let Some(&id) = self.urgent.front() else {
            return false;
        };
        while let Some(lane) = self.lanes.get(&id) {
            let Some(at) = lane.alert.front().map(|e| e.boot.0) else {
                break;
            };
            let before = if lane.bulk.len() > BACKLOG {
                lane.tree.front().map(|e| (Class::Tree, e.boot.0))
            } else {
                lane.oldest()
            };
            match before {
                Some((class, boot)) if boot <= at => {
                    self.pop(id, class, batch);
                    if batch.len() >= until {
                        return false;
                    }
                }
                _ => {
                    self.pop(id, Class::Alert, batch);
                    break;
                }
            }
        }
        self.urgent.pop_front();
        self.retire(id);
        true
    }

    /// One lane's turn; `false` when no lane has anything.
    fn take_turn(&mut self, batch: &mut Vec<Event>, max: usize) -> bool {
        let Some(id) = self.turns.pop_front() else {
            return false;
        };
        for _ in 0..TURN.min(max) {
            match self.lanes.get(&id).and_then(Lane::oldest) {
                Some((class, _)) => self.pop(id, class, batch),
                None => break,
            };
        }
        match self.lanes.get_mut(&id) {
            Some(lane) if lane.has_ordinary() => self.turns.push_back(id),
            Some(lane) => {
                lane.listed = false;
                self.retire(id);
            }
            None => {}
        }
        true
    }

    /// Lets go of a lane's memory when nothing waits in it.
    fn retire(&mut self, id: u64) {
        let spent = self
            .lanes
            .get(&id)
            .is_some_and(|l| l.is_spent() && !l.listed);
        let large = self
            .lanes
            .get(&id)
            .is_some_and(|l| l.bulk.capacity() + l.tree.capacity() + l.alert.capacity() > KEEP);
        if spent && (large || self.lanes.len() > 1024) {
            self.lanes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{event, exec, file_read};
    use plimsoll_model::BootNs;

    fn at(boot: u64, cgroup: u64, alert: bool) -> Event {
        Event {
            boot: BootNs(boot),
            alert_class: alert,
            ..event(cgroup, file_read("/etc/hosts"))
        }
    }
    fn drain(inbox: &Inbox) -> Vec<u64> {
        let mut batch = Vec::new();
        inbox.close();
        while inbox.take(&mut batch, 64, Duration::ZERO, false) {}
        batch.iter().map(|e| e.boot.0).collect()
    }

    #[test]
    fn a_calm_lane_keeps_the_order_of_the_clock() {
        let inbox = Inbox::new(Bounds::default());
        for (boot, alert) in [(1, false), (3, true), (2, false), (4, false)] {
            inbox.offer(at(boot, 9, alert)).unwrap();
        }
        assert_eq!(drain(&inbox), [1, 2, 3, 4]);
        assert_eq!(inbox.fill().bytes, 0);
    }

    #[test]
    fn an_alert_overtakes_a_flood_of_its_neighbour_and_of_its_own() {
        let inbox = Inbox::new(Bounds::default());
        for boot in 0..5000 {
            inbox.offer(at(boot, 9, false)).unwrap();
            inbox.offer(at(boot, 8, false)).unwrap();
        }
        let mut shell = event(8, exec("/bin/sh"));
        shell.boot = BootNs(6000);
        inbox.offer(shell).unwrap();
        inbox.offer(at(6001, 8, true)).unwrap();
        let mut batch = Vec::new();
        inbox.take(&mut batch, 16, Duration::ZERO, true);
        let first: Vec<u64> = batch.iter().take(2).map(|e| e.boot.0).collect();
        assert_eq!(first, [6000, 6001], "the shell, then what it did");
    }

    #[test]
    fn a_flood_leaves_room_for_its_neighbour() {
        let inbox = Inbox::new(Bounds {
            bulk_events: 100,
            ..Bounds::default()
        });
        let refused = (0..100)
            .filter(|n| inbox.offer(at(*n, 9, false)).is_err())
            .count();
        assert_eq!(refused, 50);
        assert!(inbox.offer(at(1, 8, false)).is_ok());
        assert_eq!(inbox.fill().refused, 50);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let inbox = Inbox::new(Bounds {
            bytes: 64 << 10,
            ..Bounds::default()
        });
        let long = "x".repeat(4096);
        let kept = (0..100)
            .filter(|_| inbox.offer(event(9, file_read(&long))).is_ok())
            .count();
        assert!((10..16).contains(&kept), "{kept}");
    }

    #[test]
    fn an_exec_that_was_read_late_still_comes_before_what_its_program_did() {
        let inbox = Inbox::new(Bounds::default());
        let mut fork = event(8, exec("/bin/next"));
        fork.boot = BootNs(20);
        let mut cat = event(8, exec("/bin/cat"));
        cat.boot = BootNs(10);
        inbox.offer(fork).unwrap();
        inbox.offer(cat).unwrap();
        inbox.offer(at(11, 8, true)).unwrap();
        let mut batch = Vec::new();
        inbox.take(&mut batch, 16, Duration::ZERO, true);
        let taken: Vec<u64> = batch.iter().map(|e| e.boot.0).collect();
        assert_eq!(taken, [10, 11]);
    }

    #[test]
    fn new_cgroups_are_taken_between_the_events_of_a_batch() {
        let inbox = Inbox::new(Bounds::default());
        let mut batch = Vec::new();
        inbox.offer(at(1, 9, false)).unwrap();
        inbox.take_made(&mut batch);
        assert!(batch.is_empty(), "what happened in one waits for its turn");
        for id in 100..150 {
            let made = EventKind::CgroupMkdir {
                id,
                parent: 1,
                path: "/x".into(),
            };
            inbox.offer(event(0, made)).unwrap();
        }
        inbox.take_made(&mut batch);
        assert_eq!(batch.len(), 50);
        inbox.take_made(&mut batch);
        assert_eq!(batch.len(), 50);
        assert_eq!(drain(&inbox), [1]);
    }

    #[test]
    fn the_end_of_a_container_fits_where_nothing_else_does() {
        let inbox = Inbox::new(Bounds {
            tree_events: 4,
            ..Bounds::default()
        });
        let offer = |cgroup, id, boot| {
            let mut e = event(cgroup, EventKind::CgroupRmdir { id });
            e.boot = BootNs(boot);
            inbox.offer(e).is_ok()
        };
        for n in 1..=2 {
            assert!(offer(9, 100, n), "the container's share");
        }
        assert!(!offer(9, 100, 3), "a cgroup in it");
        assert!(offer(9, 9, 4), "the container itself");
        assert_eq!(drain(&inbox), [1, 2, 4]);
    }

    #[test]
    fn the_end_of_a_cgroup_does_not_overtake_its_events() {
        let inbox = Inbox::new(Bounds::default());
        inbox.offer(at(1, 9, false)).unwrap();
        let mut end = event(0, EventKind::CgroupRmdir { id: 9 });
        end.boot = BootNs(2);
        inbox.offer(end).unwrap();
        let mut begin = event(
            0,
            EventKind::CgroupMkdir {
                id: 7,
                parent: 1,
                path: "/x".into(),
            },
        );
        begin.boot = BootNs(3);
        inbox.offer(begin).unwrap();
        assert_eq!(drain(&inbox), [3, 1, 2]);
    }
}
