//! Behaviours and drift.

use super::{Context, Process, time};
use crate::json::lossy;
use plimsoll_model as model;
use plimsoll_model::DriftClass;
use serde::{Deserialize, Serialize};

/// What was done, by which program, to what; the same on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// 128 bits in hex.
    pub id: String,
    /// Dimension: `exec`, `file`, `connect` …
    pub kind: String,
    /// Path of the acting program (for `exec`: of the parent).
    pub program: String,
    /// To what.
    pub object: String,
    /// What was done: `read`, `run`, `tcp` …
    pub operation: String,
    /// The script, where the program interprets one.
    pub script: Option<String>,
    /// How the actor came in: `init`, `exec_session`, `host`, `found_running`.
    pub entry: String,
    /// Real uid of the actor.
    pub uid: u32,
    /// Where the object lives: `image`, `upper`, `volume` …
    pub origin: String,
}

impl From<&model::Behaviour> for Behaviour {
    fn from(b: &model::Behaviour) -> Self {
        Self {
            id: b.id().to_string(),
            kind: b.kind.as_str().to_owned(),
            program: lossy(&b.program),
            object: lossy(&b.object),
            operation: b.operation.to_string(),
            script: (!b.script.is_empty()).then(|| lossy(&b.script)),
            entry: b.entry.as_str().to_owned(),
            uid: b.uid,
            origin: b.origin.as_str().to_owned(),
        }
    }
}

/// The baseline in force when a drift was judged, frozen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftBaseline {
    /// Which baseline.
    pub id: String,
    /// At which version.
    pub version: u64,
    /// `learning`, `ready` or `locked`.
    pub state: String,
    /// Coverage then, 0 to 1.
    pub coverage: f64,
}

/// The nearest thing that the baseline does expect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Near {
    /// The expected behaviour; its object may be a pattern.
    pub behaviour: Behaviour,
    /// What is different, in words.
    pub difference: String,
}

/// An observation outside the baseline that was in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// What was done.
    pub behaviour: Behaviour,
    /// Class of the step: `program_from_writable`, `new_outbound_peer` …
    pub class: String,
    /// `low`, `medium`, `high` or `critical`.
    pub risk: String,
    /// Why it was graded so.
    pub reason: String,
    /// Baseline in force; `null`: the image had none yet.
    pub baseline: Option<DriftBaseline>,
    /// The nearest expected behaviours, nearest first.
    pub nearest: Vec<Near>,
    /// The acting process first, then its ancestors.
    pub lineage: Vec<Process>,
    /// How often so far.
    pub count: u64,
    /// First time.
    pub first: String,
    /// Last time so far.
    pub last: String,
    /// ATT&CK for Containers techniques.
    pub techniques: Vec<String>,
    /// While learning: kept apart for a person to approve.
    pub quarantined: bool,
    /// The container.
    pub container_id: String,
    /// The instance.
    pub instance: String,
    /// The container's name, where it is known.
    pub name: Option<String>,
    /// The image, where it is known.
    pub image: Option<String>,
    /// The node.
    pub node: String,
    /// The drift's own record.
    pub record: Option<String>,
    /// Records that show it.
    pub evidence: Vec<String>,
}

impl Drift {
    /// The JSON form of a drift.
    pub fn new(d: &model::Drift, context: Context<'_>) -> Self {
        Self {
            behaviour: (&d.behaviour).into(),
            class: class_name(d.class).to_owned(),
            risk: d.risk.as_str().to_owned(),
            reason: d.reason.clone(),
            baseline: d.baseline.as_ref().map(|b| DriftBaseline {
                id: b.id.to_string(),
                version: b.version,
                state: d.baseline_state.clone(),
                coverage: f64::from(d.coverage_permille.min(1000)) / 1000.0,
            }),
            nearest: d
                .nearest
                .iter()
                .map(|n| Near {
                    behaviour: (&n.behaviour).into(),
                    difference: n.difference.clone(),
                })
                .collect(),
            lineage: d.lineage.iter().map(Process::from).collect(),
            count: d.count,
            first: time(d.first),
            last: time(d.last),
            techniques: d.techniques.clone(),
            quarantined: d.quarantined,
            container_id: d.instance.id.to_string(),
            instance: d.instance.to_string(),
            name: context.container.map(|c| c.name.clone()),
            image: context.container.map(|c| c.image.name.clone()),
            node: context.node.to_owned(),
            record: context.record.map(ToString::to_string),
            evidence: d.observation.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The snake-case name of a drift class, as JSON and tables show it.
pub fn class_name(class: DriftClass) -> &'static str {
    match class {
        DriftClass::NewProgram => "new_program",
        DriftClass::ProgramFromWritable => "program_from_writable",
        DriftClass::FilelessProgram => "fileless_program",
        DriftClass::ShellUnderServer => "shell_under_server",
        DriftClass::NewParentage => "new_parentage",
        DriftClass::NewArguments => "new_arguments",
        DriftClass::SensitiveFileRead => "sensitive_file_read",
        DriftClass::NewFileRead => "new_file_read",
        DriftClass::NewFileWrite => "new_file_write",
        DriftClass::PersistenceWrite => "persistence_write",
        DriftClass::ProgramFileWrite => "program_file_write",
        DriftClass::MadeExecutable => "made_executable",
        DriftClass::TracesRemoved => "traces_removed",
        DriftClass::FileRemoved => "file_removed",
        DriftClass::NewLibrary => "new_library",
        DriftClass::LibraryFromWritable => "library_from_writable",
        DriftClass::NewOutboundPeer => "new_outbound_peer",
        DriftClass::NewInboundPeer => "new_inbound_peer",
        DriftClass::NewListeningPort => "new_listening_port",
        DriftClass::NewDnsName => "new_dns_name",
        DriftClass::MetadataService => "metadata_service",
        DriftClass::RuntimeSocket => "runtime_socket",
        DriftClass::UnusualSocket => "unusual_socket",
        DriftClass::StreamsOnSocket => "streams_on_socket",
        DriftClass::NewCapability => "new_capability",
        DriftClass::UidChange => "uid_change",
        DriftClass::NamespaceChange => "namespace_change",
        DriftClass::MountChange => "mount_change",
        DriftClass::ProcessTampering => "process_tampering",
        DriftClass::KernelModule => "kernel_module",
        DriftClass::BpfUse => "bpf_use",
        DriftClass::NewSyscall => "new_syscall",
        DriftClass::MemoryFile => "memory_file",
        DriftClass::CgroupEscape => "cgroup_escape",
        DriftClass::InteractiveEntry => "interactive_entry",
        DriftClass::HostControlFile => "host_control_file",
        DriftClass::ArgumentRace => "argument_race",
        DriftClass::RareCall => "rare_call",
    }
}
