//! What the rest of Plimsoll sees of the kernel side: plain values, no BPF types.

use plimsoll_model::event::{FileOp, Origin};
use plimsoll_model::{BootNs, Entry, Event, ProcessKey, Proto, Stage, Text};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Which cgroup hierarchy tells containers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// The unified hierarchy (cgroup v2).
    V2 {
        /// Mount point of cgroup2.
        mount: PathBuf,
    },
    /// A controller of cgroup v1 (hybrid and legacy systems).
    V1 {
        /// Controller, for example `pids` or `memory`.
        controller: String,
        /// Mount point of that controller.
        mount: PathBuf,
    },
}

/// What to load and how large.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// Where containers are told apart.
    pub hierarchy: Hierarchy,
    /// A v1 hierarchy beside v2, for runtimes that fill only that. Ids of its cgroups carry
    /// [`plimsoll_model::IN_SECOND_HIERARCHY`].
    pub second: Option<Hierarchy>,
    /// Size of the bulk ring, bytes (a power of two of pages).
    pub bulk_ring_bytes: u32,
    /// Size of the ring of alert-class events, bytes.
    pub alert_ring_bytes: u32,
    /// Entries of the first-level dictionary, node-wide.
    pub l1_entries: u32,
    /// Alert-class events a second that one container may send before the bulk ring takes them.
    pub alert_quota_per_second: u32,
    /// Collect the system calls used.
    pub syscalls_used: bool,
    /// Watch processes outside containers too.
    pub host: bool,
    /// Highest rung of the hook ladder that is tried.
    pub top: Rung,
    /// Programs that are not tried, as if the kernel had refused them: what would take their place is
    /// tested on kernels that take everything.
    pub without: Vec<String>,
    /// Memory of the recorder, bytes (0: nothing is recorded).
    pub recorder_bytes: u32,
    /// Load what prevents acts, too.
    pub enforcement: bool,
    /// Keep maps and programs for the next agent (`None`: everything ends with the sensor).
    pub pins: Option<Pins>,
}

/// Where the kernel side is kept beyond the process that loaded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// A directory of this agent alone, on a bpffs; made when it is missing.
    pub home: PathBuf,
    /// Whose it is, for people: the agent's data directory.
    pub owner: String,
    /// Programs that nobody has read for so long end their work: they stay where they are, and return at
    /// once. Time in which the machine sleeps is not counted.
    pub keep_for: Duration,
}

/// What became of keeping the kernel side, and of what an agent before has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinning {
    /// Where it is kept; `None`: it ends with the sensor.
    pub home: Option<PathBuf>,
    /// What did not go as it was asked for, in words.
    pub problems: Vec<String>,
    /// What was taken over.
    pub inherited: Option<Inherited>,
}

/// What an agent before left running in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// When it looked at the rings last.
    pub until: BootNs,
    /// It ended in order: everything that it had read is recorded.
    pub orderly: bool,
    /// Events that it had read and may not have recorded, at most.
    pub in_hand: u64,
    /// Until when it let acts be prevented; `None`: it never did.
    pub prevented_until: Option<BootNs>,
    /// Its programs are replaced by ours, which are other ones; else they go on.
    pub replaced: bool,
    /// Since when its programs had recorded nothing any more, because no agent came in time
    /// ([`Pins::keep_for`]); `None`: they went on until ours did.
    pub idle_since: Option<BootNs>,
}

/// A set of pins as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedSet {
    /// Its directory.
    pub dir: PathBuf,
    /// Whose it is (an agent's data directory); empty when that cannot be read.
    pub owner: String,
    /// An agent uses it now.
    pub in_use: bool,
    /// When an agent looked at its rings last (boot clock).
    pub last_seen: Option<BootNs>,
    /// Since when its programs do nothing any more (boot clock); `None`: they are at work.
    pub idle_since: Option<BootNs>,
    /// Programs that are attached.
    pub programs: usize,
    /// Why no agent would take it over; empty: one would.
    pub broken: String,
}

/// A family of hooks, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// BPF-LSM programs.
    Lsm,
    /// fentry and fexit programs.
    Fentry,
    /// `tp_btf`, raw tracepoints and cgroup programs only.
    Tracepoint,
}

impl SensorConfig {
    /// Defaults for a node, with the given hierarchy.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self {
            hierarchy,
            second: None,
            bulk_ring_bytes: 16 << 20,
            alert_ring_bytes: 4 << 20,
            l1_entries: 1 << 17,
            alert_quota_per_second: 4096,
            syscalls_used: true,
            host: false,
            top: Rung::Lsm,
            without: Vec::new(),
            recorder_bytes: 64 << 20,
            enforcement: false,
            pins: None,
        }
    }
}

/// What came out of the kernel.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // signals live one at a time
pub enum Signal {
    /// An event.
    Event(Event),
    /// Something was lost.
    Loss(Loss),
    /// What a container that streams did, in the order of the ring.
    Stream(Vec<Use>),
}

/// One use of a first-level entry, as the recorder has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Position in the container's recorder; in a stream the id of the stream.
    pub pos: u64,
    /// When, to 8.4 ms.
    pub at: BootNs,
    /// Dense number of its counter, 0: see `key`.
    pub dense: u32,
    /// Low bits of the running count of that counter, this use included; in a stream 1.
    pub count: u32,
    /// Process.
    pub tgid: u32,
    /// Kind (`wire_kind` in `bpf/wire.h`).
    pub kind: u16,
    /// Operation within the kind.
    pub operation: u8,
    /// Without a counter: hash of the first-level key (`Control::use_key` of an event's).
    pub key: u64,
}

/// What the recorder holds of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Oldest position that is still there (`None`: nothing is).
    pub first: Option<u64>,
    /// Position that comes next.
    pub next: u64,
    /// Uses, oldest first.
    pub uses: Vec<Use>,
    /// Positions that were asked for and written over.
    pub overwritten: u64,
    /// Positions in the span that could not be read whole.
    pub missing: u64,
    /// Uses that found no room since the container began.
    pub dropped: u64,
}

/// The recorder as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecorderState {
    /// Its memory, bytes.
    pub bytes: u64,
    /// Of that in use.
    pub used: u64,
    /// Uses that found no room.
    pub dropped: u64,
    /// Root cgroup, boot time of the oldest entry, entries written so far.
    pub spans: Vec<(u64, BootNs, u64)>,
}

/// A loss as the kernel side counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub stage: Stage,
    /// Root cgroup of the container (0: cannot be told).
    pub cgroup_id: u64,
    /// How many since the last report.
    pub count: u64,
    /// Boot time of the last report for this counter.
    pub from: BootNs,
    /// Boot time of this report.
    pub to: BootNs,
}

/// How one event kind is observed on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// Event kinds that this hook serves (`exec`, `file.open` …).
    pub kind: &'static str,
    /// Mechanism in use (`tp_btf/sched_process_exec`), or `None` when nothing could be attached.
    pub mechanism: Option<String>,
    /// What was tried first and refused, each with the kernel's reason.
    pub refused: Vec<Refusal>,
    /// What this mechanism does not see.
    pub misses: &'static str,
    /// What to change to do better; empty when nothing is better.
    pub advice: &'static str,
}

/// A program that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `lsm/bprm_check_security`, `fentry/security_file_open` …
    pub mechanism: String,
    /// The kernel's or libbpf's reason in words.
    pub reason: String,
}

/// A container to be watched under its root cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Kernfs id of its root cgroup.
    pub cgroup_id: u64,
    /// Dictionary set of its image (0: none yet, everything is new).
    pub set: u32,
    /// First dense number of its block of counters, one for each entry of the set.
    pub dense_base: u32,
    /// Length of that block.
    pub dense_len: u32,
}

/// A process found in `/proc` when the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedProcess {
    /// Which process.
    pub key: ProcessKey,
    /// Root cgroup of its container.
    pub cgroup_id: u64,
    /// Path of its executable inside the container.
    pub exe: Text,
    /// The script it interprets, or empty.
    pub script: Text,
    /// How it came in.
    pub entry: Entry,
    /// Real uid.
    pub uid: u32,
    /// Id of the mount that is its container's root, where that is not the top of the mount namespace.
    pub root_mount: Option<u32>,
}

/// A path or a subtree of paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This path.
    Exact(Text),
    /// Every path below this directory.
    Below(Text),
}

/// Which addresses of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerMatch {
    /// This address.
    Ip(IpAddr),
    /// Any address (a port that is known as public).
    Any,
}

/// What a dictionary entry makes known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KnownObject {
    /// A file operation.
    File {
        /// Which.
        op: FileOp,
        /// Where the file lives.
        origin: Origin,
        /// Which paths.
        path: PathMatch,
    },
    /// A mapped library.
    Library {
        /// Where the file lives.
        origin: Origin,
        /// Which paths.
        path: PathMatch,
    },
    /// An outbound connection to `peer:port`.
    Connect {
        /// Transport.
        proto: Proto,
        /// Address.
        peer: PeerMatch,
        /// Remote port.
        port: u16,
    },
    /// An inbound connection from `peer` to our `port`.
    Accept {
        /// Transport.
        proto: Proto,
        /// Address.
        peer: PeerMatch,
        /// Local port.
        port: u16,
    },
    /// Datagrams to `peer:port`.
    Datagram {
        /// Address.
        peer: PeerMatch,
        /// Remote port.
        port: u16,
    },
    /// A system call used.
    Syscall {
        /// Number in the native table.
        nr: u32,
    },
}

/// One entry of a dictionary set: an actor's program and an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// Path of the acting program.
    pub program: Text,
    /// The script it interprets, or empty.
    pub script: Text,
    /// How the actor came in.
    pub entry: Entry,
    /// Real uid of the actor.
    pub uid: u32,
    /// The object.
    pub object: KnownObject,
    /// Index of its counter in each instance's block (from 0).
    pub index: u32,
}

/// A path that is emitted every time it is used, whatever any dictionary knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchedPath {
    /// Which paths.
    pub path: PathMatch,
    /// Only these operations (empty: all).
    pub ops: Vec<FileOp>,
}

/// A file, as the kernel names it (which is not always what `stat` says, on overlays for example).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProgramFile {
    /// Device of its file system, in the kernel's encoding.
    pub dev: u32,
    /// Inode.
    pub ino: u64,
}

/// What must not run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Blocked {
    /// Whatever lies at this path, in the container's eyes.
    Path(Text),
    /// This file, whatever it is called by now.
    File(ProgramFile),
}

/// A program that must not run, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Which.
    pub what: Blocked,
    /// Root cgroup of the container; 0: in every container.
    pub cgroup_id: u64,
}

/// Counters of the kernel side since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Events submitted to each ring: bulk, alert.
    pub emitted: [u64; 2],
    /// First-level hits (known, counted, not emitted).
    pub l1_hits: u64,
    /// First-level misses answered by a set.
    pub l2_hits: u64,
    /// Events lost, all stages.
    pub lost: u64,
    /// Containers and processes being watched.
    pub containers: u64,
    /// Watched processes.
    pub processes: u64,
    /// Nanoseconds spent in programs, when the kernel counts them.
    pub run_time_ns: u64,
    /// Memory of all maps, bytes, as the kernel accounts it.
    pub map_bytes: u64,
}

/// How a container is held to what its set lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Enforce {
    /// Number of the set ([`AllowedEntry`]s).
    pub set: u32,
    /// Programs executed.
    pub programs: bool,
    /// Scripts and applets: stopped at exec until somebody decides.
    pub scripts: bool,
    /// Files mapped executable.
    pub libraries: bool,
    /// TCP and UDP peers.
    pub peers: bool,
    /// A program outside the set is killed at exec where the kernel cannot refuse it; else stopped.
    pub kill: bool,
}

/// One thing that a container may do; what no entry names is prevented.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AllowedEntry {
    /// Executes this file.
    Program {
        /// Its path.
        path: Text,
        /// Where it lives.
        origin: Origin,
        /// Only with arguments that have been decided about ([`crate::Control::allow_run`]).
        ask: bool,
    },
    /// Maps this file executable.
    Library {
        /// Its path.
        path: Text,
        /// Where it lives.
        origin: Origin,
    },
    /// Contacts a peer.
    Peer {
        /// TCP or UDP.
        proto: Proto,
        /// Who.
        reach: AllowedReach,
        /// Its port.
        port: u16,
    },
}

/// Which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllowedReach {
    /// This one.
    Ip(IpAddr),
    /// The /24 or /64 that begins with this one.
    Network(IpAddr),
    /// Loopback.
    Loopback,
    /// Any but loopback.
    Any,
}

/// How a class of acts is prevented on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforceMeans {
    /// Which class.
    pub class: plimsoll_model::EnforceClass,
    /// By what; `None`: it cannot be prevented here.
    pub mechanism: Option<String>,
    /// What it leaves open, or why there is none.
    pub leaves: String,
}
