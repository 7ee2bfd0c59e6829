//! The seam to the kernel side: what the agent asks of it, and where its signals come from.
//!
//! Two real implementations exist: [`plimsoll_sensor`] on a live kernel, and [`Recorded`] signals
//! for tests, replays and benches. Nothing here decides anything.

use plimsoll_model::{BootNs, ProcessKey};
use plimsoll_sensor::api::{
    AllowedEntry, Block, Enforce, EnforceMeans, HookStatus, KernelCounters, Known, Pinning,
    ProgramFile, Reading, RecorderState, SeedProcess, Signal, Watch, WatchedPath,
};
use std::collections::VecDeque;
use std::time::Duration;

/// What went wrong there; the text is for logs.
pub type KernelError = Box<dyn std::error::Error + Send + Sync>;

/// Where signals come from. It stays on the thread that made it.
pub trait EventSource {
    /// Hands over what has arrived, waiting for the first signal at most `timeout`.
    ///
    /// # Errors
    /// When nothing can be read any more.
    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(Signal),
    ) -> Result<usize, KernelError>;
    /// It still hands over what happened while nobody read: there may be much of it at once.
    fn is_behind(&self) -> bool {
        false
    }
}

/// The handle on the kernel's maps. Every method is short and may be called from any thread.
pub trait Kernel: Send + Sync {
    /// A cgroup is a container's root cgroup.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn watch(&self, watch: &Watch) -> Result<(), KernelError>;
    /// A cgroup is no container's.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn ignore(&self, cgroup_id: u64) -> Result<(), KernelError>;
    /// A container has gone.
    ///
    /// # Errors
    /// When the map is gone.
    fn unwatch(&self, cgroup_id: u64) -> Result<(), KernelError>;
    /// A cgroup that the kernel streams by itself lies inside this container.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn adopt(&self, cgroup_id: u64, root: u64) -> Result<(), KernelError>;
    /// A process that ran before the agent did.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn seed_process(&self, process: &SeedProcess) -> Result<(), KernelError>;
    /// Replaces the entries of a dictionary set.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn load_set(&self, set: u32, entries: &[Known]) -> Result<(), KernelError>;
    /// Removes a dictionary set.
    ///
    /// # Errors
    /// When the map is gone.
    fn drop_set(&self, set: u32) -> Result<(), KernelError>;
    /// Replaces the paths that are emitted every time.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn set_watched_paths(&self, paths: &[WatchedPath]) -> Result<(), KernelError>;
    /// Whether execs carry their environment from now on.
    ///
    /// # Errors
    /// When the map is gone.
    fn ask_for_environments(&self, _asked: bool) -> Result<(), KernelError> {
        Ok(())
    }
    /// Every first-level entry becomes a miss.
    ///
    /// # Errors
    /// When the map is gone.
    fn bump_generation(&self) -> Result<(), KernelError>;
    /// An emitted event was lost later: the next one is emitted again.
    ///
    /// # Errors
    /// When the map is gone.
    fn forget(&self, dict: &[u8; 48]) -> Result<(), KernelError>;
    /// What an emitted event stands for is emitted every time from now on. `false`: the kernel does
    /// not remember it (yet, or any more).
    ///
    /// # Errors
    /// When the map cannot be written.
    fn emit_again(&self, dict: &[u8; 48]) -> Result<bool, KernelError>;
    /// The same of an opened file, but only where the program's own path goes up (`..`).
    ///
    /// # Errors
    /// When the map cannot be written.
    fn emit_upward(&self, dict: &[u8; 48]) -> Result<bool, KernelError>;
    /// Holds a container to a set of [`AllowedEntry`]s, or lets go of it.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn enforce(&self, _cgroup_id: u64, _how: Option<Enforce>) -> Result<(), KernelError> {
        Ok(())
    }
    /// Replaces what a set lets through.
    ///
    /// # Errors
    /// When the map is full or gone.
    fn load_allowed(&self, _set: u32, _entries: &[AllowedEntry]) -> Result<(), KernelError> {
        Ok(())
    }
    /// A stopped exec that carried this token is let through from now on without asking.
    ///
    /// # Errors
    /// When the map is gone.
    fn allow_run(&self, _token: u64) -> Result<(), KernelError> {
        Ok(())
    }
    /// Nothing is prevented after this moment of the boot clock, unless it is moved on (0: at once).
    ///
    /// # Errors
    /// When the map is gone.
    fn enforce_until(&self, _boot_ns: u64) -> Result<(), KernelError> {
        Ok(())
    }
    /// A process found in `/proc`, with its exact start, where the kernel side has followed it for an
    /// agent before.
    fn followed(&self, _process: ProcessKey) -> Option<ProcessKey> {
        None
    }
    /// Events read so far, by this agent and those before it that left the kernel side running.
    fn events_read(&self) -> u64 {
        0
    }
    /// Of the first `read` events, at most this many are not recorded yet: whoever comes after a crash
    /// has to say so.
    fn note_in_hand(&self, _read: u64, _held: u64) {}
    /// Forbids a program until a moment of the boot clock.
    ///
    /// # Errors
    /// When the map is full or gone, or this kernel side forbids nothing.
    fn block(&self, _block: &Block, _until: BootNs) -> Result<(), KernelError> {
        Err("this kernel side forbids no programs".into())
    }
    /// Lets a program run again; `false`: it was not forbidden.
    ///
    /// # Errors
    /// When the map is gone.
    fn unblock(&self, _block: &Block) -> Result<bool, KernelError> {
        Ok(false)
    }
    /// Until when a program is forbidden, and how many of its runs were stopped; `None`: it is not.
    fn blocked(&self, _block: &Block) -> Option<(BootNs, u64)> {
        None
    }
    /// Root cgroup of the container to which a process belongs, wherever it has moved itself since.
    fn container_of(&self, _tgid: u32) -> Option<u64> {
        None
    }
    /// The file that a watched process executes, as the kernel names it.
    fn program_of(&self, _tgid: u32) -> Option<ProgramFile> {
        None
    }
    /// Dense counters, cumulative.
    fn counts(&self, first: u32, len: u32) -> Vec<u64>;
    /// Counters of the kernel side.
    fn counters(&self) -> KernelCounters;
    /// What the recorder holds of a container from a position on.
    fn recording(&self, cgroup_id: u64, from: u64) -> Option<Reading>;
    /// What stands for a first-level key in uses without a counter.
    fn use_key(&self, dict: &[u8; 48]) -> u64;
    /// Each use of this container comes as a signal from now on; the id that they carry.
    ///
    /// # Errors
    /// When too many stream.
    fn start_stream(&self, cgroup_id: u64) -> Result<u32, KernelError>;
    /// Ends that; how many uses were lost.
    fn stop_stream(&self, cgroup_id: u64) -> u64;
    /// What the recorder holds.
    fn recorder(&self) -> RecorderState;
}

/// What is running on the kernel side, as the agent needs it.
pub struct KernelSide {
    /// The maps.
    pub control: std::sync::Arc<dyn Kernel>,
    /// Which hooks are in use, and which were refused.
    pub hooks: Vec<HookStatus>,
    /// How each class of acts is prevented here; empty: none is.
    pub means: Vec<EnforceMeans>,
    /// Whether it goes on without an agent, and what it went on with until this one came.
    pub pinning: Pinning,
}

impl EventSource for plimsoll_sensor::Sensor {
    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(Signal),
    ) -> Result<usize, KernelError> {
        Ok(plimsoll_sensor::Sensor::poll(self, timeout, sink)?)
    }
    fn is_behind(&self) -> bool {
        plimsoll_sensor::Sensor::is_behind(self)
    }
}

impl Kernel for plimsoll_sensor::Control {
    fn followed(&self, process: ProcessKey) -> Option<ProcessKey> {
        plimsoll_sensor::Control::followed(self, process)
    }
    fn events_read(&self) -> u64 {
        plimsoll_sensor::Control::events_read(self)
    }
    fn note_in_hand(&self, read: u64, held: u64) {
        plimsoll_sensor::Control::note_in_hand(self, read, held);
    }
    fn watch(&self, watch: &Watch) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::watch(self, watch)?)
    }
    fn ignore(&self, cgroup_id: u64) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::ignore(self, cgroup_id)?)
    }
    fn unwatch(&self, cgroup_id: u64) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::unwatch(self, cgroup_id)?)
    }
    fn adopt(&self, cgroup_id: u64, root: u64) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::adopt(self, cgroup_id, root)?)
    }
    fn seed_process(&self, process: &SeedProcess) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::seed_process(self, process)?)
    }
    fn load_set(&self, set: u32, entries: &[Known]) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::load_set(self, set, entries)?)
    }
    fn drop_set(&self, set: u32) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::drop_set(self, set)?)
    }
    fn set_watched_paths(&self, paths: &[WatchedPath]) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::set_watched_paths(self, paths)?)
    }
    fn ask_for_environments(&self, asked: bool) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::ask_for_environments(self, asked)?)
    }
    fn bump_generation(&self) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::bump_generation(self)?)
    }
    fn forget(&self, dict: &[u8; 48]) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::forget(self, dict)?)
    }
    fn emit_again(&self, dict: &[u8; 48]) -> Result<bool, KernelError> {
        Ok(plimsoll_sensor::Control::emit_again(self, dict)?)
    }
    fn emit_upward(&self, dict: &[u8; 48]) -> Result<bool, KernelError> {
        Ok(plimsoll_sensor::Control::emit_upward(self, dict)?)
    }
    fn enforce(&self, cgroup_id: u64, how: Option<Enforce>) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::enforce(self, cgroup_id, how)?)
    }
    fn load_allowed(&self, set: u32, entries: &[AllowedEntry]) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::load_allowed(self, set, entries)?)
    }
    fn allow_run(&self, token: u64) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::allow_run(self, token)?)
    }
    fn enforce_until(&self, boot_ns: u64) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::enforce_until(self, boot_ns)?)
    }
    fn block(&self, block: &Block, until: BootNs) -> Result<(), KernelError> {
        Ok(plimsoll_sensor::Control::block(self, block, until)?)
    }
    fn unblock(&self, block: &Block) -> Result<bool, KernelError> {
        Ok(plimsoll_sensor::Control::unblock(self, block)?)
    }
    fn blocked(&self, block: &Block) -> Option<(BootNs, u64)> {
        plimsoll_sensor::Control::blocked(self, block)
    }
    fn container_of(&self, tgid: u32) -> Option<u64> {
        plimsoll_sensor::Control::container_of(self, tgid)
    }
    fn program_of(&self, tgid: u32) -> Option<ProgramFile> {
        plimsoll_sensor::Control::program_of(self, tgid)
    }
    fn counts(&self, first: u32, len: u32) -> Vec<u64> {
        plimsoll_sensor::Control::counts(self, first, len)
    }
    fn counters(&self) -> KernelCounters {
        plimsoll_sensor::Control::counters(self)
    }
    fn recording(&self, cgroup_id: u64, from: u64) -> Option<Reading> {
        plimsoll_sensor::Control::recording(self, cgroup_id, from)
    }
    fn use_key(&self, dict: &[u8; 48]) -> u64 {
        plimsoll_sensor::Control::use_key(self, dict)
    }
    fn start_stream(&self, cgroup_id: u64) -> Result<u32, KernelError> {
        Ok(plimsoll_sensor::Control::start_stream(self, cgroup_id)?)
    }
    fn stop_stream(&self, cgroup_id: u64) -> u64 {
        plimsoll_sensor::Control::stop_stream(self, cgroup_id)
    }
    fn recorder(&self) -> RecorderState {
        plimsoll_sensor::Control::recorder(self)
    }
}

/// Signals that were recorded or made up, handed over in batches.
#[derive(Debug, Default)]
pub struct Recorded {
    signals: VecDeque<Signal>,
    batch: usize,
}

impl Recorded {
    /// Hands over `signals`, `batch` at a time (at least one).
    pub fn new(signals: impl IntoIterator<Item = Signal>, batch: usize) -> Self {
        Self {
            signals: signals.into_iter().collect(),
            batch: batch.max(1),
        }
    }
}

impl EventSource for Recorded {
    fn poll(&mut self, _: Duration, sink: &mut dyn FnMut(Signal)) -> Result<usize, KernelError> {
        let n = self.batch.min(self.signals.len());
        if n == 0 {
            return Err("the recording has ended".into());
        }
        self.signals.drain(..n).for_each(sink);
        Ok(n)
    }
}
