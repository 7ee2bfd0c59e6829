//! The running kernel side: reads the rings, decodes, hands events over in the order in which they
//! happened.
//!
//! Promises: a batch is bounded; what both rings hold is ordered by the boot clock; a container's end
//! comes after its last acts and its last losses.

use crate::api::*;
use crate::clock::{boot_now, clock};
use crate::control::Control;
use crate::error::SensorError;
use crate::hash::Key;
use crate::keep::Kept;
use crate::ladder::{Ladder, hook_statuses};
use crate::losses::Losses;
use crate::numbers::Numbers;
use crate::objects::{Objects, Variables};
use crate::pins;
use crate::programs::{MapFreeProgram, program_info};
use crate::recorder;
use crate::tables::dns_calls;
use crate::wire;
use libbpf_rs::{Link, MapCore, RingBuffer, RingBufferBuilder};
use plimsoll_model::{BootNs, Event, EventKind};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most events that one call of [`Sensor::poll`] takes from the bulk ring.
const BULK_BATCH: usize = 4096;

/// Events of different processors may be this far out of order in one ring.
const UNORDERED_NS: u64 = 10_000_000;

/// How long the reader looks by itself after the last event.
const AWAKE_NS: u64 = 20_000_000;

/// How often it looks meanwhile: what an alert waits for at most.
const AWAKE_LOOK: Duration = Duration::from_millis(1);

/// Longest sleep: bounds how late an event is whose program saw us awake a moment too long.
const ASLEEP_MAX: Duration = Duration::from_millis(50);

/// The kernel side, loaded and attached. Dropping it detaches everything, unless it is pinned.
pub struct Sensor {
    rings: [RingBuffer<'static>; 2],
    stream: RingBuffer<'static>,
    pub(crate) inbox: Arc<Mutex<Inbox>>,
    pub(crate) links: Vec<(String, Link)>,
    hooks: Vec<HookStatus>,
    refused: Vec<String>,
    means: Vec<EnforceMeans>,
    pub(crate) control: Control,
    pub(crate) losses: Losses,
    last_tick: BootNs,
    awake_until: BootNs,
    ends: Vec<Event>,
    syscalls_used: bool,
    pub(crate) misses: Vec<(MapFreeProgram, u64)>,
    programs: Vec<(String, MapFreeProgram)>,
    variables: Variables,
    pub(crate) kept: Kept,
    // last: the rings hold descriptors of its maps
    pub(crate) objects: Objects,
}

#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) events: VecDeque<Event>,
    pub(crate) numbers: Numbers,
    /// When the reading began.
    now: BootNs,
    stream: Vec<Use>,
    pub(crate) broken: u64,
    /// Where it is counted what was read, before the ring's consumer moves on.
    pub(crate) read_for: Option<Arc<pins::Set>>,
}

impl Sensor {
    /// Hands over what has arrived, in the order in which it happened; waits at most `timeout` when nothing
    /// is there. Returns how many signals were handed over.
    ///
    /// # Errors
    /// When the rings cannot be waited for.
    pub fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(Signal),
    ) -> Result<usize, SensorError> {
        let began = self.begin(sink);
        if began > 0 {
            return Ok(began);
        }
        let now = boot_now();
        self.control.maps.recorder.note_time(now);
        self.inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .now = now;
        if let Some(set) = &self.kept.set {
            set.page.set(pins::Word::Alive, now.0);
        }
        if now.0.saturating_sub(self.last_tick.0) >= 1_000_000_000 {
            self.tick(now);
            if self.kept.stay().is_some() {
                return Err(SensorError::Idle);
            }
        }
        let mut handed = self.losses(now, sink);
        let drained = self.drain(sink);
        if drained > 0 {
            self.stay_awake(now);
        }
        if drained + handed > 0 {
            return Ok(drained + handed);
        }
        if now < self.awake_until {
            std::thread::sleep(AWAKE_LOOK.min(timeout));
        } else {
            self.fall_asleep();
            // what was submitted while the programs still thought us awake
            let late = self.drain(sink);
            if late > 0 {
                return Ok(late);
            }
            self.wait(timeout.min(ASLEEP_MAX))?;
        }
        handed += self.drain(sink);
        if handed > 0 {
            self.stay_awake(boot_now());
        }
        Ok(handed)
    }

    /// While events keep coming the programs need not wake us: we look every millisecond.
    fn stay_awake(&mut self, now: BootNs) {
        self.awake_until = BootNs(now.0 + AWAKE_NS);
        // a little less than we do look, so that nobody relies on a look that has just ended
        self.variables.get().reader_until_ns = self.awake_until.0 - AWAKE_NS / 4;
    }

    fn fall_asleep(&mut self) {
        self.variables.get().reader_until_ns = 0;
    }

    /// What containers that stream did; at most a batch.
    fn drain_stream(&mut self, sink: &mut dyn FnMut(Signal)) -> usize {
        self.stream.consume_raw_n(BULK_BATCH);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = std::mem::take(&mut inbox.stream);
        drop(inbox);
        let handed = uses.len();
        if handed > 0 {
            sink(Signal::Stream(uses));
        }
        handed
    }

    /// Hands over what both rings hold, in the order of the boot clock: the birth of a process is in one
    /// ring and its program in the other. A container's end waits until its last acts are read.
    fn drain(&mut self, sink: &mut dyn FnMut(Signal)) -> usize {
        self.rings[1].consume_raw();
        let mut alerts = self.take_read();
        let whole = self.rings[0].consume_raw_n(BULK_BATCH) < BULK_BATCH as i32;
        self.kept.behind &= !whole;
        let mut bulk = self.take_read();
        // until when the bulk ring has been read: all of it, or up to its last event
        let read_until = match (whole, bulk.back()) {
            (false, Some(last)) => BootNs(last.boot.0.saturating_sub(UNORDERED_NS)),
            _ => BootNs(u64::MAX),
        };
        let mut handed = self.drain_stream(sink);
        while let Some(event) = earlier(&mut alerts, &mut bulk) {
            if matches!(event.kind, EventKind::CgroupRmdir { .. }) {
                self.ends.push(event);
                continue;
            }
            if event.boot < self.kept.not_before {
                continue;
            }
            handed += 1;
            self.hand_over(event, sink);
        }
        let over: Vec<Event> = self.ends.extract_if(.., |e| e.boot < read_until).collect();
        for event in over {
            handed += 1;
            self.last_losses(event.cgroup_id, sink);
            sink(Signal::Event(event));
        }
        handed
    }

    pub(crate) fn hand_over(&mut self, event: Event, sink: &mut dyn FnMut(Signal)) {
        self.control.note_script(&event);
        sink(Signal::Event(event));
    }

    /// Everything that both rings hold now, of the time that is ours.
    pub(crate) fn take_all(&mut self) -> Vec<Event> {
        for ring in &self.rings {
            ring.consume_raw();
        }
        let mut all: Vec<Event> = self.take_read().into();
        all.retain(|e| e.boot >= self.kept.not_before);
        all
    }

    fn take_read(&self) -> VecDeque<Event> {
        let mut inbox = self
            .inbox
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut inbox.events)
    }

    #[allow(unsafe_code)]
    fn wait(&self, timeout: Duration) -> Result<(), SensorError> {
        let mut fds = [0, 1].map(|i| libc::pollfd {
            fd: self.rings[i].epoll_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: fds is an array of two pollfds for the length of the call.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), 2, ms) };
        if n < 0 {
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(SensorError::Poll(e));
            }
        }
        Ok(())
    }

    /// Once a second: the wall clock for origins, the budgets of "system calls used", the DNS window.
    pub(crate) fn tick(&mut self, now: BootNs) {
        self.last_tick = now;
        self.control.maps.recorder.tick(now);
        let bss = self.variables.get();
        bss.boot_to_wall_ns = clock(libc::CLOCK_REALTIME) - now.0 as i64;
        if self.syscalls_used {
            bss.used_budget.fill(0);
            for gate in &mut bss.gates {
                gate.used = 1;
            }
        }
        if bss.dns_until_ns != 0 && bss.dns_until_ns < now.0 {
            for (nr, _, _) in dns_calls() {
                bss.gates[nr as usize].handler = 0;
            }
            bss.dns_until_ns = 0;
        }
    }
}

/// What runs, and what the kernel says of it.
impl Sensor {
    /// The reader of what runs. `fresh`: nothing has run with these maps yet.
    pub(crate) fn assemble(
        config: &SensorConfig,
        key: Key,
        ladder: &Ladder,
        (objects, links): (Objects, Vec<(String, Link)>),
        misses: Vec<(MapFreeProgram, u64)>,
        programs: Vec<(String, MapFreeProgram)>,
        fresh: bool,
    ) -> libbpf_rs::Result<Sensor> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        if !fresh {
            let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.numbers = Numbers::resumed();
        }
        let rings = [
            event_ring(&objects, "bulk_ring", &inbox)?,
            event_ring(&objects, "alert_ring", &inbox)?,
        ];
        let stream = stream_ring(objects.get("stream_ring")?, Arc::clone(&inbox))?;
        let control = Control::new(&objects, &programs, key, config.recorder_bytes, fresh)?;
        Ok(Sensor {
            rings,
            stream,
            inbox,
            links,
            hooks: hook_statuses(ladder),
            means: match config.enforcement {
                true => crate::enforce::means(ladder),
                false => Vec::new(),
            },
            refused: ladder
                .refused
                .iter()
                .map(|(p, why)| format!("{p}: {why}"))
                .collect(),
            control,
            losses: Losses::since(boot_now()),
            last_tick: BootNs(0),
            awake_until: BootNs(0),
            ends: Vec::new(),
            syscalls_used: config.syscalls_used,
            misses,
            programs,
            variables: objects.variables()?,
            kept: Kept::default(),
            objects,
        })
    }

    /// How each kind is observed, and what was refused.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// Programs that the kernel did not take, with its reasons.
    pub fn refused_programs(&self) -> Vec<String> {
        self.refused.clone()
    }

    /// What the verifier went through for each attached program: name, instructions (5.16 and
    /// later; 0 before).
    pub fn program_costs(&self) -> Vec<(String, u32)> {
        let mut costs: Vec<(String, u32)> = self
            .programs
            .iter()
            .filter_map(|(name, p)| Some((name.clone(), program_info(p)?.verified_insns)))
            .collect();
        costs.sort();
        costs
    }

    /// How each class of acts is prevented here; empty when that was not asked for.
    pub fn means(&self) -> Vec<EnforceMeans> {
        self.means.clone()
    }

    /// What happened while nobody read has not all been handed over yet.
    pub fn is_behind(&self) -> bool {
        self.kept.behind
    }

    /// A handle on the maps, for any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What each attached program did so far: name, runs, nanoseconds (0 unless the kernel counts them,
    /// see `kernel.bpf_stats_enabled`). Programs that are reached by tail calls are part of
    /// `on_sys_exit`.
    pub fn run_times(&self) -> Vec<(String, u64, u64)> {
        let names = self.links.iter().map(|(name, _)| name);
        let infos = self.misses.iter().map(|(p, _)| program_info(p));
        names
            .zip(infos)
            .filter_map(|(name, info)| info.map(|i| (name.clone(), i.run_cnt, i.run_time_ns)))
            .collect()
    }

    /// Accumulated run time of all programs, nanoseconds (0 unless the kernel counts it, see
    /// `kernel.bpf_stats_enabled`).
    pub fn run_time_ns(&self) -> u64 {
        self.misses
            .iter()
            .map(|(p, _)| program_info(p).map_or(0, |i| i.run_time_ns))
            .sum()
    }
}

/// A ring of events.
pub(crate) fn event_ring(
    objects: &Objects,
    name: &str,
    inbox: &Arc<Mutex<Inbox>>,
) -> libbpf_rs::Result<RingBuffer<'static>> {
    let inbox = Arc::clone(inbox);
    let mut builder = RingBufferBuilder::new();
    let map: &dyn MapCore = objects.get(name)?;
    #[allow(unsafe_code)]
    // SAFETY: the builder keeps only the map's descriptor, and `objects` is stored in the same
    // struct as the ring and dropped after it (fields are dropped in order; it is the last one).
    let map: &'static dyn MapCore = unsafe { std::mem::transmute(map) };
    builder.add(map, move |bytes| {
        let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (decoded, now) = (wire::decode(bytes), inbox.now);
        if let Some((cpu, ring, number)) = wire::number(bytes) {
            // of what cannot be decoded the time is not believed either
            let at = decoded.as_ref().map_or(now, |event| event.boot);
            inbox.numbers.note(cpu, ring, number, at, now);
        }
        match decoded {
            Ok(event) => inbox.events.push_back(event),
            Err(_) => inbox.broken += 1,
        }
        if let Some(set) = &inbox.read_for {
            set.page.add(pins::Word::Read, 1);
        }
        0
    })?;
    builder.build()
}

/// The ring of uses in full.
fn stream_ring(
    map: &dyn MapCore,
    inbox: Arc<Mutex<Inbox>>,
) -> libbpf_rs::Result<RingBuffer<'static>> {
    let mut builder = RingBufferBuilder::new();
    #[allow(unsafe_code)]
    // SAFETY: as in `event_ring`.
    let map: &'static dyn MapCore = unsafe { std::mem::transmute(map) };
    builder.add(map, move |bytes| {
        let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        match recorder::decode_bytes(bytes) {
            Some(entry) => inbox.stream.push(entry),
            None => inbox.broken += 1,
        }
        0
    })?;
    builder.build()
}

/// The earlier one of the first events of two queues; of equal ones that of the first queue.
fn earlier(a: &mut VecDeque<Event>, b: &mut VecDeque<Event>) -> Option<Event> {
    match (a.front(), b.front()) {
        (Some(x), Some(y)) if y.boot < x.boot => b.pop_front(),
        (Some(_), _) => a.pop_front(),
        (None, _) => b.pop_front(),
    }
}
