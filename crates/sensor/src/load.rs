//! Loads the programs, attaches them, reads the rings, and keeps the maps.
//!
//! Promises: a program that the kernel refuses costs only its own kinds, and the refusal is kept
//! with the kernel's reason; the home of `unsafe` in this project.

use crate::api::*;
use crate::hash::{Key, op_number};
use crate::keep::{Kept, Place};
use crate::ladder::{Ladder, hook_statuses};
use crate::numbers::{Missing, Numbers};
use crate::objects::{Objects, Variables, map_id};
use crate::pins;
use crate::recorder::{self, Recorder};
use crate::skel::{OpenPlimsollSkel, PlimsollSkel, PlimsollSkelBuilder, types};
use crate::tables::{Call, HANDLER_PROGRAMS, Handler, calls, compat_calls, dns_calls};
use crate::wire;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, OpenObject, PrintLevel, RingBuffer, RingBufferBuilder,
};
use plimsoll_model::{BootNs, Event, EventKind, Stage};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What failed when loading or talking to the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The kernel has no type information.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF=y, as every distribution kernel since about 2021 has"
    )]
    NoBtf,
    /// Not enough privilege.
    #[error("loading eBPF programs needs root or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN")]
    NotPermitted,
    /// Opening or loading the object as a whole failed.
    #[error("load the eBPF programs: {reason}")]
    Load {
        /// libbpf's or the kernel's words.
        reason: String,
    },
    /// A program without which nothing can be attributed was refused.
    #[error("the kernel refused {program}, without which nothing can be observed: {reason}")]
    Essential {
        /// Name of the program.
        program: String,
        /// The kernel's words.
        reason: String,
    },
    /// A map operation failed.
    #[error("{operation} in kernel map {map}: {source}")]
    Map {
        /// `update`, `delete`, `read`.
        operation: &'static str,
        /// Which map.
        map: &'static str,
        /// The kernel's error.
        source: libbpf_rs::Error,
    },
    /// A path cannot be looked for.
    #[error("{0}")]
    Path(&'static str),
    /// The hierarchy does not exist.
    #[error("read cgroup hierarchy {hierarchy}: {source}")]
    Hierarchy {
        /// Which.
        hierarchy: String,
        /// Why.
        source: io::Error,
    },
    /// Waiting for the rings failed.
    #[error("wait for events: {0}")]
    Poll(io::Error),
    /// The pinned programs ended their work: this process had not read them for [`crate::api::Pins::keep_for`].
    #[error(
        "its programs ended their work, because it had not read them for too long: it has to be started again"
    )]
    Idle,
    /// No random key.
    #[error("make a random key: {0}")]
    Random(getrandom::Error),
}

/// Programs without which no event can be attributed.
pub(crate) const ESSENTIAL: &[&str] = &[
    "on_exec",
    "on_fork",
    "on_exit",
    "on_cgroup_mkdir",
    "on_cgroup_attach",
];

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

/// Counters below are numbered by the kernel, above by user space (`DENSE_DYNAMIC` in `bpf/wire.h`).
pub(crate) const DENSE_DYNAMIC: usize = 65_536;

/// Boot clock now.
pub(crate) fn boot_now() -> BootNs {
    BootNs(clock(libc::CLOCK_BOOTTIME) as u64)
}

/// Monotonic clock now, ns: what `bpf_ktime_get_ns()` tells.
pub(crate) fn mono_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC) as u64
}

#[allow(unsafe_code)]
fn clock(id: libc::clockid_t) -> i64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: t is a valid timespec for the length of the call; both clocks exist on every kernel
    // that this program can load on.
    unsafe { libc::clock_gettime(id, &mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// libbpf's messages while loading, to find out which program was refused and why.
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One object is loaded at a time, since the messages are global to libbpf.
static LOADING: Mutex<()> = Mutex::new(());

fn keep_message(_: PrintLevel, message: String) {
    let mut kept = MESSAGES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if kept.len() < 4096 {
        kept.push(message);
    }
}

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

/// Descriptor of a loaded program, for its statistics.
pub(crate) struct MapFreeProgram {
    pub(crate) fd: std::os::fd::OwnedFd,
}

impl MapFreeProgram {
    pub(crate) fn recursion_misses(&self) -> u64 {
        program_info(self).map_or(0, |i| i.recursion_misses)
    }
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

/// What was reported of each loss counter so far.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) seen: HashMap<(u64, usize), u64>,
    pub(crate) node: [u64; 5],
    /// Recursion misses that no agent has told.
    pub(crate) missed_before: u64,
    /// Told of containers before the node's counters had it (they are read at another moment).
    early: [u64; 5],
    pub(crate) since: BootNs,
    broken: u64,
}

impl Sensor {
    /// Loads and attaches what this kernel takes.
    ///
    /// # Errors
    /// When there is no BTF, no privilege, or an essential program is refused.
    pub fn load(config: &SensorConfig) -> Result<Sensor, SensorError> {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(SensorError::NoBtf);
        }
        let _one = LOADING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut ladder = Ladder::new(config);
        let mut place = Place::look(config, &ladder);
        if let Some(found) = place.found.take() {
            match Self::take_over(config, place, found) {
                Ok(sensor) => return Ok(sensor),
                Err(refused) => {
                    let (back, why) = *refused;
                    place = back;
                    place.problem(format!("what was left could not be taken over: {why}"));
                }
            }
        }
        let key = Key::random().map_err(SensorError::Random)?;
        loop {
            let attached = match try_load(config, key, &ladder)? {
                Ok(skel) => Self::attach(config, key, skel, &mut ladder)?,
                Err(refused) => Err(refused),
            };
            match attached {
                Ok(mut sensor) => {
                    sensor.keep(place, &ladder);
                    return Ok(sensor);
                }
                Err((program, reason)) => {
                    if ESSENTIAL.contains(&program.as_str()) {
                        return Err(SensorError::Essential { program, reason });
                    }
                    ladder.refuse(&program, reason);
                }
            }
        }
    }

    fn attach(
        config: &SensorConfig,
        key: Key,
        mut skel: PlimsollSkel<'static>,
        ladder: &mut Ladder,
    ) -> Result<Result<Sensor, Refused>, SensorError> {
        fill_handlers(&skel, ladder)?;
        if let Some(bss) = skel.maps.bss_data.as_deref_mut() {
            fill_tables(bss, ladder);
        }
        let mut links = Vec::new();
        let mut misses = Vec::new();
        let v2 = v2_mount(config);
        for program in skel.object().progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if !ladder.wants(&name) || name.starts_with("h_") {
                continue;
            }
            let on_sockets = name.starts_with("on_sendmsg") || is_peer_program(&name);
            let link = if on_sockets {
                match &v2 {
                    Some(dir) => program.attach_cgroup(dir.as_raw_fd()),
                    None => {
                        ladder.refuse(&name, "no cgroup2 mount to attach to".into());
                        continue;
                    }
                }
            } else {
                program.attach()
            };
            match link {
                Ok(link) => {
                    links.push((name, link));
                    if let Ok(fd) = program.as_fd().try_clone_to_owned() {
                        misses.push((MapFreeProgram { fd }, 0));
                    }
                }
                // another program takes its place: load again
                Err(e) => return Ok(Err((name, format!("attach: {e}")))),
            }
        }
        let load_error = |e: libbpf_rs::Error| SensorError::Load {
            reason: e.to_string(),
        };
        let objects = Objects::of(&skel).map_err(load_error)?;
        let of_program = |p: libbpf_rs::ProgramMut<'_>| {
            let fd = p.as_fd().try_clone_to_owned().ok()?;
            Some((
                p.name().to_string_lossy().into_owned(),
                MapFreeProgram { fd },
            ))
        };
        let programs = skel.object().progs_mut().filter_map(of_program).collect();
        let sensor = Self::assemble(
            config,
            key,
            ladder,
            (objects, links),
            misses,
            programs,
            true,
        );
        let mut sensor = sensor.map_err(load_error)?;
        sensor.tick(boot_now());
        Ok(Ok(sensor))
    }

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
            losses: Losses {
                since: boot_now(),
                ..Default::default()
            },
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

    /// What was lost of a container that ends, while its counters are still there.
    fn last_losses(&mut self, cgroup_id: u64, sink: &mut dyn FnMut(Signal)) {
        let (from, to) = (self.losses.since, boot_now());
        for (i, n) in self.control.losses_of(cgroup_id).into_iter().enumerate() {
            let seen = self.losses.seen.get(&(cgroup_id, i)).copied();
            let count = n.saturating_sub(seen.unwrap_or_default());
            if count > 0 {
                self.losses.seen.insert((cgroup_id, i), n);
                self.losses.early[i] += count;
                sink(Signal::Loss(Loss {
                    stage: STAGES[i],
                    cgroup_id,
                    count,
                    from,
                    to,
                }));
            }
        }
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

    /// New losses since the last call, at most every 200 ms.
    fn losses(&mut self, now: BootNs, sink: &mut dyn FnMut(Signal)) -> usize {
        if now.0.saturating_sub(self.losses.since.0) < 200_000_000 {
            return 0;
        }
        let from = std::mem::replace(&mut self.losses.since, now);
        let mut handed = 0;
        let mut tell = |stage, cgroup_id, count| {
            handed += 1;
            sink(Signal::Loss(Loss {
                stage,
                cgroup_id,
                count,
                from,
                to: now,
            }));
        };
        let mut told = self.losses.missed_before > 0;
        if told {
            let missed = std::mem::take(&mut self.losses.missed_before);
            tell(Stage::Recursion, 0, missed);
        }
        let cpu = self.control.cpu_totals();
        if cpu.lost != self.losses.node {
            told = true;
            let mut by_container = std::mem::take(&mut self.losses.early);
            let living = container_losses(&self.control.maps.containers);
            let there: HashSet<u64> = living.iter().map(|(id, _)| *id).collect();
            self.losses.seen.retain(|(id, _), _| there.contains(id));
            for (id, lost) in living {
                for (i, n) in lost.into_iter().enumerate() {
                    let seen = self.losses.seen.entry((id, i)).or_default();
                    if n > *seen {
                        by_container[i] += n - *seen;
                        tell(STAGES[i], id, n - *seen);
                        *seen = n;
                    }
                }
            }
            for i in 0..5 {
                // what no living container accounts for
                let all = cpu.lost[i] - self.losses.node[i];
                let rest = all.saturating_sub(by_container[i]);
                self.losses.early[i] = by_container[i].saturating_sub(all);
                if rest > 0 {
                    tell(STAGES[i], 0, rest);
                }
            }
            self.losses.node = cpu.lost;
        }
        for (program, seen) in &mut self.misses {
            let n = program.recursion_misses();
            if n > *seen {
                told = true;
                tell(Stage::Recursion, 0, n - *seen);
                *seen = n;
            }
        }
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (broken, missing) = (inbox.broken, inbox.numbers.missing(now));
        drop(inbox);
        if broken > self.losses.broken {
            tell(Stage::Decode, 0, broken - self.losses.broken);
            self.losses.broken = broken;
        }
        if !missing.is_empty() {
            // nobody knows what they were, so nothing may count as seen because of them
            let _ = self.control.bump_generation();
        }
        for Missing { count, from, to } in missing {
            handed += 1;
            sink(Signal::Loss(Loss {
                stage: Stage::Sequence,
                cgroup_id: 0,
                count,
                from,
                to,
            }));
        }
        if told {
            self.note_told(now);
        }
        self.mark_told(now);
        handed
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

pub(crate) const STAGES: [Stage; 5] = [
    Stage::BulkRing,
    Stage::AlertRing,
    Stage::Recursion,
    Stage::Scratch,
    Stage::KernelMap,
];

#[allow(unsafe_code)]
fn program_info(program: &MapFreeProgram) -> Option<libbpf_rs::libbpf_sys::bpf_prog_info> {
    // SAFETY: bpf_prog_info is plain data for which all zeroes is valid; the kernel writes at most
    // `len` bytes into it.
    unsafe {
        let mut info: libbpf_rs::libbpf_sys::bpf_prog_info = std::mem::zeroed();
        let mut len = size_of_val(&info) as u32;
        let ret = libbpf_rs::libbpf_sys::bpf_prog_get_info_by_fd(
            program.fd.as_raw_fd(),
            &mut info,
            &mut len,
        );
        (ret == 0).then_some(info)
    }
}

type Refused = (String, String);

/// Programs that refuse peers are attached to all sockets.
fn is_peer_program(name: &str) -> bool {
    name.starts_with("e_") && name.ends_with(['4', '6'])
}

/// One attempt, without the programs that were refused before.
fn try_load(
    config: &SensorConfig,
    key: Key,
    ladder: &Ladder,
) -> Result<Result<PlimsollSkel<'static>, Refused>, SensorError> {
    MESSAGES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clear();
    let before = libbpf_rs::set_print(Some((PrintLevel::Warn, keep_message)));
    // One small allocation a load lives as long as the process: the skeleton borrows from it.
    let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
    let loaded = open(config, key, ladder, storage).and_then(|open| {
        open.load().map_err(|e| SensorError::Load {
            reason: e.to_string(),
        })
    });
    libbpf_rs::set_print(before);
    match loaded {
        Ok(skel) => Ok(Ok(skel)),
        Err(error) => {
            let messages = MESSAGES
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone();
            match refused_program(&messages) {
                Some((program, reason)) if ladder.wants(&program) => Ok(Err((program, reason))),
                _ if messages
                    .iter()
                    .any(|m| m.contains("Operation not permitted")) =>
                {
                    Err(SensorError::NotPermitted)
                }
                _ => Err(SensorError::Load {
                    reason: format!("{error}; {}", tail(&messages)),
                }),
            }
        }
    }
}

fn tail(messages: &[String]) -> String {
    let from = messages.len().saturating_sub(4);
    messages[from..].join(" ").replace('\n', " ")
}

/// Finds libbpf's "prog 'NAME': BPF program load failed: REASON" or "failed to load".
fn refused_program(messages: &[String]) -> Option<Refused> {
    for m in messages {
        let Some((_, rest)) = m.split_once("prog '") else {
            continue;
        };
        let Some((name, what)) = rest.split_once('\'') else {
            continue;
        };
        if what.contains("load failed")
            || what.contains("failed to load")
            || what.contains("failed to find kernel BTF type")
        {
            let reason = what.trim_start_matches(':').trim();
            let verifier = messages
                .iter()
                .find(|m| m.contains("BEGIN PROG LOAD LOG"))
                .map(|m| last_lines(m));
            return Some((
                name.to_owned(),
                format!("{reason}{}", verifier.unwrap_or_default()),
            ));
        }
    }
    None
}

/// The last words of a verifier log.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| {
            !l.starts_with("processed ") && !l.contains("END PROG LOAD LOG") && !l.trim().is_empty()
        })
        .collect();
    let from = lines
        .len()
        .saturating_sub(if std::env::var_os("PLIMSOLL_VERIFIER_LOG").is_some() {
            80
        } else {
            2
        });
    format!(" ({})", lines[from..].join("; "))
}

fn open(
    config: &SensorConfig,
    key: Key,
    ladder: &Ladder,
    storage: &'static mut MaybeUninit<OpenObject>,
) -> Result<OpenPlimsollSkel<'static>, SensorError> {
    let load_error = |e: libbpf_rs::Error| SensorError::Load {
        reason: e.to_string(),
    };
    let mut open = PlimsollSkelBuilder::default()
        .open(storage)
        .map_err(load_error)?;
    for mut program in open.open_object_mut().progs_mut() {
        let wanted = ladder.wants(&program.name().to_string_lossy());
        program.set_autoload(wanted);
    }
    open.maps
        .bulk_ring
        .set_max_entries(config.bulk_ring_bytes)
        .map_err(load_error)?;
    open.maps
        .alert_ring
        .set_max_entries(config.alert_ring_bytes)
        .map_err(load_error)?;
    open.maps
        .l1
        .set_max_entries(config.l1_entries)
        .map_err(load_error)?;
    let (chunks, held) = recorder::chunks(config.recorder_bytes);
    let entries = chunks.max(1) * (recorder::CHUNK as u32);
    let maps = &mut open.maps;
    let sized = [
        maps.recorder_entries.set_max_entries(entries),
        maps.spare_chunks.set_max_entries(chunks.max(1)),
        maps.reserved_chunks.set_max_entries(held.max(1)),
    ];
    sized
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(load_error)?;
    let (hierarchy_id, subsys) = hierarchy_numbers(&config.hierarchy)?;
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the object has settings");
    rodata.sip_k0 = key.0;
    rodata.sip_k1 = key.1;
    rodata.hierarchy_id = hierarchy_id;
    rodata.cgroup_v1_subsys = subsys;
    if let Some(second @ Hierarchy::V1 { .. }) = &config.second {
        (rodata.second_hierarchy_id, rodata.second_v1_subsys) = hierarchy_numbers(second)?;
    }
    rodata.alert_quota = config.alert_quota_per_second;
    rodata.enforcement = u32::from(config.enforcement);
    // where the first process cannot be looked at, our own: an agent runs in the host's
    let host = ["/proc/1/ns/mnt", "/proc/self/ns/mnt"];
    let host = host.iter().find_map(|path| std::fs::metadata(path).ok());
    rodata.host_mntns = host.map_or(0, |m| m.ino() as u32);
    rodata.cpus = libbpf_rs::num_possible_cpus().unwrap_or(1) as u32;
    Ok(open)
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

/// Id of the hierarchy and index of the controller among the kernel's (all ones: v2).
fn hierarchy_numbers(hierarchy: &Hierarchy) -> Result<(u32, u32), SensorError> {
    let Hierarchy::V1 { controller, .. } = hierarchy else {
        return Ok((0, u32::MAX));
    };
    let fail = |source| SensorError::Hierarchy {
        hierarchy: controller.clone(),
        source,
    };
    // columns: name, hierarchy id, cgroups, enabled; lines in the order of the kernel's enum
    let table = std::fs::read_to_string("/proc/cgroups").map_err(fail)?;
    for (index, line) in table.lines().filter(|l| !l.starts_with('#')).enumerate() {
        let mut words = line.split_whitespace();
        if words.next() == Some(controller) {
            let id = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
            return Ok((id, index as u32));
        }
    }
    Err(fail(io::Error::from(io::ErrorKind::NotFound)))
}

/// Where programs on all sockets are attached.
fn v2_mount(config: &SensorConfig) -> Option<File> {
    if let Hierarchy::V2 { mount } = &config.hierarchy {
        return File::open(mount).ok();
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let dir = mounts.lines().find_map(|l| {
        let mut w = l.split(' ');
        let (_, dir, kind) = (w.next()?, w.next()?, w.next()?);
        (kind == "cgroup2").then(|| dir.to_owned())
    })?;
    File::open(dir).ok()
}

/// Puts the tail-called programs into their table.
fn fill_handlers(skel: &PlimsollSkel<'_>, ladder: &Ladder) -> Result<(), SensorError> {
    let programs: HashMap<String, i32> = skel
        .object()
        .progs_mut()
        .map(|p| {
            (
                p.name().to_string_lossy().into_owned(),
                p.as_fd().as_raw_fd(),
            )
        })
        .collect();
    for (handler, name) in HANDLER_PROGRAMS {
        let name = format!("h_{name}");
        let (true, Some(fd)) = (ladder.wants(&name), programs.get(&name)) else {
            continue;
        };
        skel.maps
            .handlers
            .update(
                &u32::from(*handler as u8).to_ne_bytes(),
                &(*fd as u32).to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(|source| SensorError::Map {
                operation: "update",
                map: "handlers",
                source,
            })?;
    }
    Ok(())
}

/// What is left to the system calls of a kind that a security hook observes.
enum Left {
    /// Nothing observes it better: all of it.
    All,
    /// The hook is not reached by calls that are refused before it.
    Failures,
    /// Nothing.
    Nothing,
}

fn left(call: &Call, ladder: &Ladder) -> Left {
    let hook = match (call.handler, call.path) {
        (Handler::Open | Handler::Openat, _) => "file_open",
        (Handler::Mmap, _) => "mmap_file",
        (Handler::Mprotect, _) => "file_mprotect",
        (Handler::Connect, _) => "socket_connect",
        (Handler::Accept, _) => "accept",
        (Handler::Path, Some(p)) => match p.op {
            4 => "path_unlink",
            5 => "path_mkdir",
            6 => "path_rmdir",
            7 => "path_chmod",
            8 => "path_chown",
            9 => "path_rename",
            10 => "path_link",
            _ => "path_symlink",
        },
        _ => return Left::All,
    };
    let by_descriptor = call.path.is_some_and(|p| p.path == 0xff);
    match (ladder.rung(hook), call.handler) {
        (None, _) => Left::All,
        (Some(_), Handler::Open | Handler::Openat) => Left::Failures,
        (Some(_), Handler::Path) if !by_descriptor => Left::Failures,
        _ => Left::Nothing,
    }
}

/// Which number is served by which handler, natively and in the 32-bit table.
fn fill_tables(bss: &mut types::bss, ladder: &Ladder) {
    let missing: HashSet<u8> = HANDLER_PROGRAMS
        .iter()
        .filter(|(_, name)| !ladder.single_calls() && !ladder.wants(&format!("h_{name}")))
        .map(|(h, _)| *h as u8)
        .collect();
    bss.uring_by_hooks = u32::from(
        ["file_open", "path_unlink", "path_rename"]
            .iter()
            .all(|h| ladder.rung(h).is_some()),
    );
    bss.native_numbers.fill(u16::MAX);
    for call in calls() {
        let left = left(&call, ladder);
        let handler = call.handler as u8;
        if missing.contains(&handler) || matches!(left, Left::Nothing) {
            continue;
        }
        let failures = u8::from(matches!(left, Left::Failures));
        let native = usize::try_from(call.nr)
            .ok()
            .filter(|n| *n < bss.gates.len());
        if let Some(nr) = native {
            bss.gates[nr].handler = handler;
            bss.gates[nr].failures |= failures;
            bss.call_numbers[nr] = call.number;
            if let Some(p) = call.path {
                bss.path_calls[nr] = types::path_call {
                    op: p.op,
                    dfd: p.dfd,
                    path: p.path,
                    dfd2: p.dfd2,
                    path2: p.path2,
                    mode: p.mode,
                    ..Default::default()
                };
            }
        }
        let compat = usize::try_from(call.compat)
            .ok()
            .filter(|n| *n < bss.gates.len());
        if let (Some(compat), Some(nr)) = (compat, native) {
            bss.gates[compat].compat = handler;
            bss.gates[compat].failures |= failures << 1;
            bss.native_numbers[compat] = nr as u16;
        }
    }
    for (compat, nr, handler) in compat_calls() {
        // the gate of the native call says whether anything is left to do
        let wanted = handler == Handler::CompatArgs || bss.gates[nr as usize].handler != 0;
        if wanted && !missing.contains(&(handler as u8)) {
            bss.gates[compat].compat = handler as u8;
            bss.gates[compat].failures |= (bss.gates[nr as usize].failures & 1) << 1;
            bss.native_numbers[compat] = nr as u16;
        }
    }
    for (i, (nr, handler, number)) in dns_calls().into_iter().enumerate() {
        let nr = nr as usize;
        bss.dns_handlers[nr] = handler as u8;
        bss.call_numbers[nr] = number;
        bss.dns_numbers[i] = nr as u32;
    }
    // without the sendmsg hook nobody tells when unconnected resolvers start: keep sends open
    if !ladder.wants("on_sendmsg4") {
        for (nr, handler, _) in dns_calls()
            .into_iter()
            .filter(|(_, h, _)| *h == Handler::DnsBuffer)
            .take(1)
        {
            bss.gates[nr as usize].handler = handler as u8;
        }
    }
}

/// The earlier one of the first events of two queues; of equal ones that of the first queue.
fn earlier(a: &mut VecDeque<Event>, b: &mut VecDeque<Event>) -> Option<Event> {
    match (a.front(), b.front()) {
        (Some(x), Some(y)) if y.boot < x.boot => b.pop_front(),
        (Some(_), _) => a.pop_front(),
        (None, _) => b.pop_front(),
    }
}

/// A handle on the maps: cheap to clone, for any thread.
#[derive(Clone)]
pub struct Control {
    pub(crate) maps: Arc<Maps>,
}

/// Cgroups whose processes are still to be forgotten.
#[derive(Default)]
struct Sweep {
    last: Option<Instant>,
    cgroups: HashSet<u64>,
}

/// The process table is looked through at most this often …
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// … or when this many cgroups wait for it.
const SWEEP_MOST: usize = 1024;

pub(crate) struct Maps {
    pub(crate) key: Key,
    l1: MapHandle,
    l2: MapHandle,
    watched_paths: MapHandle,
    cgroups: MapHandle,
    pub(crate) containers: MapHandle,
    epochs: MapHandle,
    processes: MapHandle,
    mntns_roots: MapHandle,
    sweep: Mutex<Sweep>,
    scripts: MapHandle,
    dense: Dense,
    dense_map: MapHandle,
    cpu_states: MapHandle,
    data: MapHandle,
    env_asked: MapHandle,
    programs: Vec<MapFreeProgram>,
    /// hashes of the entries of each set, to replace it
    sets: Mutex<HashMap<u32, HashMap<u64, u32>>>,
    watched: Mutex<HashSet<u64>>,
    pub(crate) recorder: Recorder,
    pub(crate) enforcement: crate::enforce::Maps,
    pub(crate) blocks: crate::block::Maps,
    all: Vec<u32>,
    /// What this agent says to the next one, where the kernel side is pinned.
    pub(crate) page: OnceLock<Arc<pins::Set>>,
    /// Programs have run with these maps before.
    pub(crate) inherited: bool,
}

/// The dense counters, mapped read-only.
struct Dense {
    words: *const u64,
    len: usize,
}

// SAFETY: a read-only shared mapping of kernel memory; every read is one volatile load.
#[allow(unsafe_code)]
unsafe impl Send for Dense {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Dense {}

impl Dense {
    #[allow(unsafe_code)]
    fn map(map: &MapHandle) -> Option<Self> {
        let len = map.max_entries() as usize;
        // SAFETY: maps `len` words of an array map that allows it; the address is checked.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * 8,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        (at != libc::MAP_FAILED).then_some(Dense {
            words: at.cast(),
            len,
        })
    }

    #[allow(unsafe_code)]
    fn get(&self, i: usize) -> u64 {
        if i >= self.len {
            return 0;
        }
        // SAFETY: i is within the mapping, which lives as long as self.
        unsafe { self.words.add(i).read_volatile() }
    }
}

impl Drop for Dense {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; no reference into it exists outside of self.
        unsafe { libc::munmap(self.words.cast_mut().cast(), self.len * 8) };
    }
}

#[derive(Default, Clone, Copy)]
pub(crate) struct CpuTotals {
    emitted: [u64; 2],
    pub(crate) lost: [u64; 5],
    l1_hits: u64,
    l2_hits: u64,
    /// Of one processor.
    pub(crate) dense_used_most: u64,
}

/// Sums over processors.
pub(crate) fn cpu_totals(map: &MapHandle) -> CpuTotals {
    let mut total = CpuTotals::default();
    let Ok(Some(cpus)) = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY) else {
        return total;
    };
    for cpu in cpus {
        // struct cpu_state: seq[2], emitted[2], lost[5], l1_hits, l2_hits, dense_used
        for i in 0..2 {
            total.emitted[i] += word(&cpu, 16 + 8 * i);
        }
        for i in 0..5 {
            total.lost[i] += word(&cpu, 32 + 8 * i);
        }
        total.l1_hits += word(&cpu, 72);
        total.l2_hits += word(&cpu, 80);
        total.dense_used_most = total.dense_used_most.max(word(&cpu, 88));
    }
    total
}

/// Losses so far of containers that have any.
pub(crate) fn container_losses(containers: &MapHandle) -> Vec<(u64, [u64; 5])> {
    let mut out = Vec::new();
    for key in containers.keys() {
        let Ok(Some(bytes)) = containers.lookup(&key, MapFlags::ANY) else {
            continue;
        };
        let mut c = types::container::default();
        copy_into(&mut c, &bytes);
        if c.lost.iter().any(|n| *n > 0) {
            out.push((word(&key, 0), c.lost));
        }
    }
    out
}

/// Deletes every entry.
pub(crate) fn empty(map: &MapHandle) {
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        let _ = map.delete(&key);
    }
}

impl Maps {
    /// Sets are numbered anew by each agent: no container has one, none holds anything.
    pub(crate) fn forget_sets(&self) {
        for id in self.containers.keys() {
            let Ok(Some(bytes)) = self.containers.lookup(&id, MapFlags::ANY) else {
                continue;
            };
            let mut c = types::container::default();
            copy_into(&mut c, &bytes);
            (c.set, c.dense_base, c.dense_len) = (0, 0, 0);
            let _ = self.containers.update(&id, bytes_of(&c), MapFlags::EXIST);
        }
        empty(&self.l2);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.extend(self.watched_paths.keys().map(|k| word(&k, 0)));
    }

    /// Counters of the blocks that user space gives out start at 0.
    pub(crate) fn clear_blocks(&self) {
        let len = self.dense.len * 8;
        let Ok(counters) = recorder::Region::new(&self.dense_map, len, true) else {
            return;
        };
        for at in (DENSE_DYNAMIC * 8..len).step_by(4) {
            counters.set_word(at, 0);
        }
    }

    /// What the kernel holds of a process.
    pub(crate) fn process(&self, tgid: u32) -> Option<types::process> {
        let found = self.processes.lookup(&tgid.to_ne_bytes(), MapFlags::ANY);
        let mut p = types::process::default();
        copy_into(&mut p, &found.ok()??);
        Some(p)
    }
}

pub(crate) fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    #[allow(unsafe_code)]
    // SAFETY: the types used here are the plain C structs of wire.h with explicit padding.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |b| {
        u64::from_ne_bytes(b.try_into().expect("eight bytes"))
    })
}

impl Control {
    fn new(
        objects: &Objects,
        programs: &[(String, MapFreeProgram)],
        key: Key,
        recorder_bytes: u32,
        fresh: bool,
    ) -> libbpf_rs::Result<Self> {
        let recorder = Recorder::new(objects, recorder_bytes, fresh)?;
        let descriptors = programs.iter().map(|(_, p)| p.fd.try_clone());
        let programs = descriptors.filter_map(Result::ok);
        let programs = programs.map(|fd| MapFreeProgram { fd }).collect();
        let dense = Dense::map(objects.get("dense")?)
            .ok_or_else(|| libbpf_rs::Error::from_raw_os_error(libc::ENOMEM))?;
        let all = objects.all().filter_map(|(_, map)| map_id(map).ok());
        Ok(Control {
            maps: Arc::new(Maps {
                key,
                l1: objects.map("l1")?,
                l2: objects.map("l2")?,
                watched_paths: objects.map("watched_paths")?,
                cgroups: objects.map("cgroups")?,
                containers: objects.map("containers")?,
                epochs: objects.map("epochs")?,
                processes: objects.map("processes")?,
                mntns_roots: objects.map("mntns_roots")?,
                sweep: Mutex::default(),
                scripts: objects.map("scripts")?,
                dense,
                dense_map: objects.map("dense")?,
                cpu_states: objects.map("cpu_states")?,
                data: objects.map("data")?,
                env_asked: objects.map("env_asked")?,
                programs,
                sets: Mutex::default(),
                watched: Mutex::default(),
                recorder,
                enforcement: crate::enforce::Maps::new(objects)?,
                blocks: crate::block::Maps::new(objects)?,
                all: all.collect(),
                page: OnceLock::new(),
                inherited: !fresh,
            }),
        })
    }

    /// A cgroup is a container's root cgroup: its behaviour is looked up in a set from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn watch(&self, w: &Watch) -> Result<(), SensorError> {
        let id = w.cgroup_id.to_ne_bytes();
        let mut c = types::container::default();
        if let Ok(Some(old)) = self.maps.containers.lookup(&id, MapFlags::ANY) {
            copy_into(&mut c, &old);
            // another set: what the first level remembers of this container is void
            if c.set != w.set {
                self.forget_all(w.cgroup_id)?;
            }
        } else {
            c.created_ns = boot_now().0;
        }
        c.set = w.set;
        c.dense_base = w.dense_base;
        c.dense_len = w.dense_len;
        c.flags &= !1;
        self.maps.recorder.keep(w.cgroup_id);
        update(&self.maps.containers, "containers", &id, bytes_of(&c))?;
        update(&self.maps.cgroups, "cgroups", &id, &id)
    }

    /// Makes every first-level entry of a container a miss.
    fn forget_all(&self, cgroup_id: u64) -> Result<(), SensorError> {
        let at = ((cgroup_id % u64::from(self.maps.epochs.max_entries())) as u32).to_ne_bytes();
        let epoch = self.maps.epochs.lookup(&at, MapFlags::ANY).ok().flatten();
        let epoch = epoch.map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap_or_default()));
        update(
            &self.maps.epochs,
            "epochs",
            &at,
            &epoch.wrapping_add(1).to_ne_bytes(),
        )
    }

    /// A cgroup is no container's.
    ///
    /// # Errors
    /// Never for a cgroup that is not there.
    pub fn ignore(&self, cgroup_id: u64) -> Result<(), SensorError> {
        self.leave(cgroup_id, false);
        Ok(())
    }

    fn leave(&self, cgroup_id: u64, was_container: bool) {
        let id = cgroup_id.to_ne_bytes();
        let _ = self.maps.containers.delete(&id);
        let _ = self.maps.cgroups.delete(&id);
        self.drop_processes(cgroup_id);
        let recorder = &self.maps.recorder;
        recorder.leave(cgroup_id, boot_now(), was_container);
    }

    /// A container is gone.
    ///
    /// # Errors
    /// Never for one that is not there.
    pub fn unwatch(&self, cgroup_id: u64) -> Result<(), SensorError> {
        self.leave(cgroup_id, true);
        Ok(())
    }

    /// What the recorder holds of a container from position `from` on; `None`: nothing was recorded
    /// of it. A container that has gone is kept for two minutes.
    pub fn recording(&self, cgroup_id: u64, from: u64) -> Option<Reading> {
        self.maps.recorder.read(cgroup_id, from)
    }

    /// What stands for an event's first-level key in uses without a counter.
    pub fn use_key(&self, dict: &[u8; 48]) -> u64 {
        recorder::key_of(&self.maps.key, dict)
    }

    /// From now on each use of a first-level entry of this container comes as [`Signal::Stream`];
    /// the id that they carry as position.
    ///
    /// # Errors
    /// When too many stream already.
    pub fn start_stream(&self, cgroup_id: u64) -> Result<u32, SensorError> {
        let started = self.maps.recorder.start_stream(cgroup_id);
        started.map_err(|source| SensorError::Map {
            operation: "update",
            map: "streams",
            source,
        })
    }

    /// Ends that; how many uses its ring had no room for.
    pub fn stop_stream(&self, cgroup_id: u64) -> u64 {
        self.maps.recorder.stop_stream(cgroup_id)
    }

    /// What the recorder holds.
    pub fn recorder(&self) -> RecorderState {
        self.maps.recorder.state()
    }

    /// A cgroup turned out to be inside a container: its processes are that container's.
    ///
    /// # Errors
    /// When the map is full.
    pub fn adopt(&self, cgroup_id: u64, root: u64) -> Result<(), SensorError> {
        let id = cgroup_id.to_ne_bytes();
        update(&self.maps.cgroups, "cgroups", &id, &root.to_ne_bytes())?;
        let _ = self.maps.containers.delete(&id);
        self.maps.recorder.leave(cgroup_id, boot_now(), false);
        for key in self.maps.processes.keys() {
            let Ok(Some(mut p)) = self.maps.processes.lookup(&key, MapFlags::ANY) else {
                continue;
            };
            if word(&p, 0) == cgroup_id {
                p[..8].copy_from_slice(&root.to_ne_bytes());
                let _ = self.maps.processes.update(&key, &p, MapFlags::EXIST);
            }
        }
        Ok(())
    }

    /// Forgets the processes of a cgroup that is no container's (any more). The whole table has to
    /// be looked through for that, so it is done for many cgroups at a time: without their
    /// container's entry such processes are silent, and each is forgotten at its exit anyway.
    fn drop_processes(&self, cgroup_id: u64) {
        let mut sweep = self
            .maps
            .sweep
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sweep.cgroups.insert(cgroup_id);
        let due = sweep.last.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
        if !due && sweep.cgroups.len() < SWEEP_MOST {
            return;
        }
        sweep.last = Some(Instant::now());
        let cgroups = std::mem::take(&mut sweep.cgroups);
        drop(sweep);
        let processes = &self.maps.processes;
        let gone: Vec<Vec<u8>> = processes
            .keys()
            .filter(|k| matches!(processes.lookup(k, MapFlags::ANY), Ok(Some(p)) if cgroups.contains(&word(&p, 0))))
            .collect();
        for key in gone {
            let _ = processes.delete(&key);
        }
    }

    /// A process that ran before the sensor was loaded.
    ///
    /// # Errors
    /// When a map is full.
    pub fn seed_process(&self, p: &SeedProcess) -> Result<(), SensorError> {
        let followed = |k: &types::process| k.start_ns == p.key.start.0 && k.cgroup == p.cgroup_id;
        if self.maps.inherited && self.maps.process(p.key.tgid).as_ref().is_some_and(followed) {
            // the programs know it from its birth, and better
            return Ok(());
        }
        let program = self.maps.key.path(p.exe.as_bytes()).unwrap_or(0);
        let script = self.maps.key.script(&p.script);
        let interpreted = wire::is_interpreter(&p.exe) || !p.script.is_empty();
        if interpreted {
            update(
                &self.maps.scripts,
                "scripts",
                &p.key.start.0.to_ne_bytes(),
                &script.to_ne_bytes(),
            )?;
        }
        let exe = std::fs::metadata(format!("/proc/{}/exe", p.key.tgid)).ok();
        let process = types::process {
            cgroup: p.cgroup_id,
            // any number that no other program, script, entry or uid of this container has
            actor: program
                ^ script.rotate_left(17)
                ^ p.cgroup_id.rotate_left(32)
                ^ u64::from(p.uid) << 40
                ^ (p.entry as u64) << 8,
            program,
            script,
            exe_ino: exe.as_ref().map_or(0, MetadataExt::ino),
            start_ns: p.key.start.0,
            uid: p.uid,
            flags: if interpreted { 2 } else { 0 },
            mntns: self.mark_started(p),
            entry: p.entry as u8,
            ..Default::default()
        };
        update(
            &self.maps.processes,
            "processes",
            &p.key.tgid.to_ne_bytes(),
            bytes_of(&process),
        )
    }

    /// A container with a running process has started; its mount namespace is that of the first
    /// process that was found. Returns its inode number.
    fn mark_started(&self, p: &SeedProcess) -> u32 {
        let id = p.cgroup_id.to_ne_bytes();
        let mut mntns = 0;
        if let Ok(Some(old)) = self.maps.containers.lookup(&id, MapFlags::ANY) {
            let mut c = types::container::default();
            copy_into(&mut c, &old);
            if c.flags & 2 == 0 {
                c.flags |= 2;
                c.mntns = std::fs::metadata(format!("/proc/{}/ns/mnt", p.key.tgid))
                    .map_or(0, |m| m.ino() as u32);
                let _ = self
                    .maps
                    .containers
                    .update(&id, bytes_of(&c), MapFlags::EXIST);
                if c.mntns != 0 {
                    let key = c.mntns.to_ne_bytes();
                    let m = types::mntns_root {
                        root: p.cgroup_id,
                        first: p.key.tgid,
                        ..Default::default()
                    };
                    let _ = self
                        .maps
                        .mntns_roots
                        .update(&key, bytes_of(&m), MapFlags::ANY);
                }
            }
            mntns = c.mntns;
        }
        mntns
    }

    /// Replaces the entries of a set: adds what is new, removes what is missing.
    ///
    /// # Errors
    /// When the map is full.
    pub fn load_set(&self, set: u32, entries: &[Known]) -> Result<(), SensorError> {
        let wanted: HashMap<u64, u32> = entries
            .iter()
            .filter_map(|k| Some((self.maps.key.known(set, k)?, k.index)))
            .collect();
        let mut sets = self
            .maps
            .sets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let there = sets.entry(set).or_default();
        for (hash, index) in &wanted {
            if there.get(hash) == Some(index) {
                continue;
            }
            let value = types::l2_value { set, index: *index };
            update(&self.maps.l2, "l2", &hash.to_ne_bytes(), bytes_of(&value))?;
            there.insert(*hash, *index);
        }
        let missing: Vec<u64> = there
            .keys()
            .filter(|h| !wanted.contains_key(h))
            .copied()
            .collect();
        for hash in missing {
            let _ = self.maps.l2.delete(&hash.to_ne_bytes());
            there.remove(&hash);
        }
        Ok(())
    }

    /// Removes a set.
    ///
    /// # Errors
    /// Never for one that is not there.
    pub fn drop_set(&self, set: u32) -> Result<(), SensorError> {
        self.load_set(set, &[])?;
        self.maps
            .sets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&set);
        Ok(())
    }

    /// Replaces the paths that are emitted every time.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_watched_paths(&self, paths: &[WatchedPath]) -> Result<(), SensorError> {
        let mut wanted: HashMap<u64, u32> = HashMap::new();
        for p in paths {
            let Some(hash) = self.maps.key.watched(&p.path) else {
                continue;
            };
            let mask = if p.ops.is_empty() {
                u32::MAX
            } else {
                p.ops.iter().fold(0, |m, op| m | 1 << op_number(*op))
            };
            *wanted.entry(hash).or_default() |= mask;
        }
        let mut there = self
            .maps
            .watched
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (hash, mask) in &wanted {
            update(
                &self.maps.watched_paths,
                "watched_paths",
                &hash.to_ne_bytes(),
                &mask.to_ne_bytes(),
            )?;
            there.insert(*hash);
        }
        let missing: Vec<u64> = there
            .iter()
            .filter(|h| !wanted.contains_key(h))
            .copied()
            .collect();
        for hash in missing {
            let _ = self.maps.watched_paths.delete(&hash.to_ne_bytes());
            there.remove(&hash);
        }
        Ok(())
    }

    /// Whether execs carry their environment from now on (at first they don't).
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn ask_for_environments(&self, asked: bool) -> Result<(), SensorError> {
        let value = u32::from(asked).to_ne_bytes();
        update(
            &self.maps.env_asked,
            "env_asked",
            &0u32.to_ne_bytes(),
            &value,
        )
    }

    /// What the kernel side holds about a process.
    pub(crate) fn process(&self, tgid: u32) -> Option<types::process> {
        let found = self
            .maps
            .processes
            .lookup(&tgid.to_ne_bytes(), MapFlags::ANY);
        let mut p = types::process::default();
        copy_into(&mut p, &found.ok().flatten()?);
        Some(p)
    }

    /// Every first-level entry becomes a miss.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn bump_generation(&self) -> Result<(), SensorError> {
        let zero = 0u32.to_ne_bytes();
        let mut data = self
            .maps
            .data
            .lookup(&zero, MapFlags::ANY)
            .ok()
            .flatten()
            .unwrap_or_else(|| vec![0; self.maps.data.value_size() as usize]);
        let generation = data
            .get(..4)
            .map_or(0, |b| u32::from_ne_bytes(b.try_into().expect("four bytes")));
        if let Some(first) = data.get_mut(..4) {
            first.copy_from_slice(&generation.wrapping_add(1).to_ne_bytes());
        }
        update(&self.maps.data, "data", &zero, &data)
    }

    /// An emitted event was lost later: the next one is emitted again.
    ///
    /// # Errors
    /// Never for an entry that is not there.
    pub fn forget(&self, dict: &[u8; 48]) -> Result<(), SensorError> {
        let _ = self.maps.l1.delete(dict);
        Ok(())
    }

    /// What an emitted event stands for is emitted every time from now on, within the container's
    /// quota. `false`: the dictionary does not remember it (yet, or any more).
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn emit_again(&self, dict: &[u8; 48]) -> Result<bool, SensorError> {
        // struct l1_value begins with its state: enum l1_state in bpf/wire.h
        const PENDING: u32 = 1;
        const WATCH: u32 = 4;
        let found = self.maps.l1.lookup(dict, MapFlags::ANY).ok().flatten();
        let Some((state, rest)) = found.as_deref().and_then(|v| v.split_first_chunk::<4>()) else {
            return Ok(false);
        };
        match u32::from_ne_bytes(*state) {
            WATCH => return Ok(true),
            // its second phase would overwrite what is written here
            PENDING => return Ok(false),
            _ => {}
        }
        let value = [&WATCH.to_ne_bytes()[..], rest].concat();
        match self.maps.l1.update(dict, &value, MapFlags::EXIST) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(SensorError::Map {
                operation: "update",
                map: "l1",
                source,
            }),
        }
    }

    /// Dense counters from `first`, cumulative.
    pub fn counts(&self, first: u32, len: u32) -> Vec<u64> {
        (first..first.saturating_add(len))
            .map(|i| self.maps.dense.get(i as usize))
            .collect()
    }

    /// Tells the kernel which script an interpreter runs, once its arguments are known here.
    fn note_script(&self, event: &Event) {
        let EventKind::Exec(exec) = &event.kind else {
            return;
        };
        if exec.script.is_empty()
            && !wire::is_interpreter(&exec.exe)
            && !wire::is_interpreter(&event.process.comm)
        {
            return;
        }
        let script = self.maps.key.script(&exec.script);
        let _ = self.maps.scripts.update(
            &event.process.key.start.0.to_ne_bytes(),
            &script.to_ne_bytes(),
            MapFlags::ANY,
        );
    }

    fn cpu_totals(&self) -> CpuTotals {
        cpu_totals(&self.maps.cpu_states)
    }

    /// Losses of one container (or one that ends) so far, by stage.
    fn losses_of(&self, cgroup_id: u64) -> [u64; 5] {
        let mut c = types::container::default();
        let found = self
            .maps
            .containers
            .lookup(&cgroup_id.to_ne_bytes(), MapFlags::ANY);
        if let Ok(Some(bytes)) = found {
            copy_into(&mut c, &bytes);
        }
        c.lost
    }

    /// Counters since loading.
    pub fn counters(&self) -> KernelCounters {
        let cpu = self.cpu_totals();
        KernelCounters {
            emitted: cpu.emitted,
            l1_hits: cpu.l1_hits,
            l2_hits: cpu.l2_hits,
            lost: cpu.lost.iter().sum(),
            containers: self.maps.containers.keys().count() as u64,
            processes: self.maps.processes.keys().count() as u64,
            run_time_ns: self
                .maps
                .programs
                .iter()
                .map(|p| program_info(p).map_or(0, |i| i.run_time_ns))
                .sum(),
            map_bytes: self.maps.all.iter().map(|id| map_bytes(*id)).sum(),
        }
    }
}

/// Memory of a map as the kernel accounts it (`memlock` in its fdinfo).
fn map_bytes(id: u32) -> u64 {
    let Ok(map) = MapHandle::from_map_id(id) else {
        return 0;
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))
        .unwrap_or_default();
    info.lines()
        .find_map(|l| l.strip_prefix("memlock:"))
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

pub(crate) fn update(
    map: &MapHandle,
    name: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<(), SensorError> {
    map.update(key, value, MapFlags::ANY)
        .map_err(|source| SensorError::Map {
            operation: "update",
            map: name,
            source,
        })
}

#[allow(unsafe_code)]
pub(crate) fn copy_into<T: Copy>(to: &mut T, from: &[u8]) {
    let n = from.len().min(size_of::<T>());
    // SAFETY: `to` is a plain C struct of wire.h (integers only: every bit pattern is valid) and n
    // is at most the length of both.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), std::ptr::from_mut(to).cast(), n) };
}
