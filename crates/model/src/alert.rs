//! Drift, and our opinion about it.

use crate::behaviour::Behaviour;
use crate::ids::{AlertId, BaselineRef, Instance, RecordId};
use crate::observation::Line;
use crate::text::Text;
use crate::time::Stamp;
use minicbor::{Decode, Encode};

/// How bad a class of behaviour can be, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Risk {
    /// Ordinary change.
    #[n(0)]
    Low,
    /// Worth a look.
    #[n(1)]
    Medium,
    /// Typical of an attack.
    #[n(2)]
    High,
    /// Hardly ever anything else.
    #[n(3)]
    Critical,
}

impl Risk {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
            Risk::Critical => "critical",
        }
    }
}

/// Falco's priorities (syslog severities).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Priority {
    /// 0
    #[n(0)]
    Emergency,
    /// 1
    #[n(1)]
    Alert,
    /// 2
    #[n(2)]
    Critical,
    /// 3
    #[n(3)]
    Error,
    /// 4
    #[n(4)]
    Warning,
    /// 5
    #[n(5)]
    Notice,
    /// 6
    #[n(6)]
    Informational,
    /// 7
    #[n(7)]
    Debug,
}

impl Priority {
    /// As Falco spells it in its JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Emergency => "Emergency",
            Priority::Alert => "Alert",
            Priority::Critical => "Critical",
            Priority::Error => "Error",
            Priority::Warning => "Warning",
            Priority::Notice => "Notice",
            Priority::Informational => "Informational",
            Priority::Debug => "Debug",
        }
    }
}

/// What kind of step below the line a drift is. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum DriftClass {
    /// A program of the image that was never run before.
    #[n(0)]
    NewProgram,
    /// A program that came into the container after it was created.
    #[n(1)]
    ProgramFromWritable,
    /// A program without a file name: memory file or deleted.
    #[n(2)]
    FilelessProgram,
    /// A shell or interpreter started by a server.
    #[n(3)]
    ShellUnderServer,
    /// A known program started by another parent.
    #[n(4)]
    NewParentage,
    /// Arguments of a shape that was not seen.
    #[n(5)]
    NewArguments,
    /// Credentials, keys or tokens read.
    #[n(6)]
    SensitiveFileRead,
    /// A file never read before.
    #[n(7)]
    NewFileRead,
    /// A file never written before.
    #[n(8)]
    NewFileWrite,
    /// A write to where programs are started from (cron, rc files, ld.so.preload, authorized_keys).
    #[n(9)]
    PersistenceWrite,
    /// A write to a directory of programs or libraries.
    #[n(10)]
    ProgramFileWrite,
    /// A file made executable or set-uid.
    #[n(11)]
    MadeExecutable,
    /// Logs or histories removed.
    #[n(12)]
    TracesRemoved,
    /// A file removed or renamed that never was before.
    #[n(13)]
    FileRemoved,
    /// A library never mapped before.
    #[n(14)]
    NewLibrary,
    /// A library that came into the container after it was created.
    #[n(15)]
    LibraryFromWritable,
    /// An outbound peer never seen before.
    #[n(16)]
    NewOutboundPeer,
    /// An inbound peer never seen before.
    #[n(17)]
    NewInboundPeer,
    /// A port never listened on before.
    #[n(18)]
    NewListeningPort,
    /// A DNS name never asked for before.
    #[n(19)]
    NewDnsName,
    /// Connection to a cloud metadata service.
    #[n(20)]
    MetadataService,
    /// Connection to a container runtime's socket.
    #[n(21)]
    RuntimeSocket,
    /// Raw or packet socket, or another unusual family.
    #[n(22)]
    UnusualSocket,
    /// A shell's standard streams put on a network socket.
    #[n(23)]
    StreamsOnSocket,
    /// A capability never held before.
    #[n(24)]
    NewCapability,
    /// A uid change never seen before.
    #[n(25)]
    UidChange,
    /// Namespace entered or made.
    #[n(26)]
    NamespaceChange,
    /// Mounts changed.
    #[n(27)]
    MountChange,
    /// Another process traced or its memory written.
    #[n(28)]
    ProcessTampering,
    /// Kernel module loading.
    #[n(29)]
    KernelModule,
    /// bpf used.
    #[n(30)]
    BpfUse,
    /// A system call never used before.
    #[n(31)]
    NewSyscall,
    /// A memory file made.
    #[n(32)]
    MemoryFile,
    /// A process that left the container's cgroup.
    #[n(33)]
    CgroupEscape,
    /// Somebody entered the container (`docker exec`), outside what is known of it.
    #[n(34)]
    InteractiveEntry,
    /// A host file or device touched through a mount, `/proc` or `/sys` path that controls the host.
    #[n(35)]
    HostControlFile,
    /// Arguments changed while the kernel read them.
    #[n(36)]
    ArgumentRace,
    /// Another rare call.
    #[n(37)]
    RareCall,
}

/// The nearest thing that the baseline does expect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NearBehaviour {
    /// The expected behaviour (its object may be a pattern).
    #[n(0)]
    pub behaviour: Behaviour,
    /// What is different, in words ("same program, other file in /etc/nginx").
    #[n(1)]
    pub difference: String,
}

/// An observation outside the baseline in force, frozen with that baseline's id and version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Drift {
    /// What was done.
    #[n(0)]
    pub behaviour: Behaviour,
    /// Class of the step.
    #[n(1)]
    pub class: DriftClass,
    /// How bad that can be.
    #[n(2)]
    pub risk: Risk,
    /// Why it was graded so, in words.
    #[n(3)]
    pub reason: String,
    /// Baseline in force (`None`: the image has none yet).
    #[n(4)]
    pub baseline: Option<BaselineRef>,
    /// State of that baseline: `learning`, `ready`, `locked`.
    #[n(5)]
    pub baseline_state: String,
    /// Its coverage at that moment, in thousandths (0-1000).
    #[n(6)]
    pub coverage_permille: u32,
    /// The nearest expected behaviours, nearest first (at most 3).
    #[n(7)]
    pub nearest: Vec<NearBehaviour>,
    /// Container instance.
    #[n(8)]
    pub instance: Instance,
    /// The acting process first, then its ancestors.
    #[n(9)]
    pub lineage: Line,
    /// The observation that showed it.
    #[n(10)]
    pub observation: Option<RecordId>,
    /// First time.
    #[n(11)]
    pub first: Stamp,
    /// Last time so far.
    #[n(12)]
    pub last: Stamp,
    /// How often so far.
    #[n(13)]
    pub count: u64,
    /// ATT&CK for Containers techniques (`T1609`).
    #[n(14)]
    pub techniques: Vec<String>,
    /// While learning: kept apart for a person to approve instead of being learned.
    #[n(15)]
    pub quarantined: bool,
}

/// What fired.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[allow(clippy::large_enum_variant)] // alerts are few, and live one at a time
pub enum AlertSource {
    /// A drift.
    #[n(0)]
    Drift(#[n(0)] Drift),
    /// A rule, by its name.
    #[n(1)]
    Rule(#[n(0)] String),
}

/// Our opinion about an observation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Alert {
    /// Its id.
    #[n(0)]
    pub id: AlertId,
    /// When the act happened.
    #[n(1)]
    pub at: Stamp,
    /// Name of the rule or of the drift class.
    #[n(2)]
    pub rule: String,
    /// Falco priority.
    #[n(3)]
    pub priority: Priority,
    /// One sentence for people.
    #[n(4)]
    pub output: Text,
    /// What fired.
    #[n(5)]
    pub source: AlertSource,
    /// Container instance (`None`: unknown).
    #[n(6)]
    pub instance: Option<Instance>,
    /// ATT&CK techniques and other tags.
    #[n(7)]
    pub tags: Vec<String>,
    /// Falco output fields (`proc.name` → `sh`), sorted by name.
    #[n(8)]
    pub fields: Vec<(String, Text)>,
    /// Records that show it.
    #[n(9)]
    pub evidence: Vec<RecordId>,
    /// How many equal acts it stands for; a record with a higher count and the same id supersedes.
    #[n(10)]
    pub count: u64,
    /// Last of those acts.
    #[n(11)]
    pub last: Stamp,
    /// When the alert was handed to the journal, boot clock (ns).
    #[n(12)]
    pub handed_boot: crate::time::BootNs,
    /// It was prevented by a policy.
    #[n(13)]
    pub prevented: bool,
}
