//! How the agent is doing, and what this kernel and these runtimes allow.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The running agent, or what its data directory says when it does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// An agent answered.
    pub running: bool,
    /// Version of the agent (or of this command, when none runs).
    pub version: String,
    /// The node.
    pub node: String,
    /// This boot.
    pub boot_id: String,
    /// Kernel release.
    pub kernel: String,
    /// The agent's process id.
    pub pid: Option<u32>,
    /// When it started.
    pub started: Option<String>,
    /// How long it has run.
    pub uptime_seconds: Option<u64>,
    /// Its resident memory, without the kernel's maps (`sensor.map_bytes`).
    pub memory_bytes: Option<u64>,
    /// Processor time it has used.
    pub cpu_ms: Option<u64>,
    /// The kernel side.
    pub sensor: Option<SensorStatus>,
    /// The journal.
    pub journal: JournalStatus,
    /// Containers with a process alive.
    pub containers_running: u64,
    /// Containers whose identity is kept although they are gone.
    pub containers_gone: u64,
    /// Baselines by state.
    pub baselines: BaselineCounts,
    /// Alerts in the journal (`null`: not counted).
    pub alerts: Option<u64>,
    /// Drifts in the journal (`null`: not counted).
    pub drifts: Option<u64>,
    /// Gaps recorded in the last hour (`null`: not counted).
    pub gaps_last_hour: Option<u64>,
    /// When the last record was written.
    pub last_record: Option<String>,
    /// Fill of every bounded queue and table: name → entries in use.
    pub queues: BTreeMap<String, u64>,
    /// By which means a container's network can be cut here, in words; empty: by none, or no agent runs.
    pub isolation: Vec<String>,
    /// Which of its threads go before others and what was refused, in words; empty: no agent runs.
    #[serde(default)]
    pub priority: Vec<String>,
    /// What is wrong, in words; empty when nothing.
    pub problems: Vec<String>,
}

/// The kernel side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SensorStatus {
    /// `running`, `degraded` (a hook was refused) or `off`.
    pub state: String,
    /// Why it is degraded or off.
    pub reason: Option<String>,
    /// Event kinds that are seen.
    pub kinds_seen: u64,
    /// Event kinds that are not.
    pub kinds_refused: u64,
    /// Events that came out of the kernel.
    pub emitted: u64,
    /// Known behaviour counted in the kernel and not emitted (first-level hits).
    pub known_l1: u64,
    /// First-level misses that a baseline's set answered.
    pub known_l2: u64,
    /// Events lost, all stages.
    pub lost: u64,
    /// Containers watched.
    pub containers: u64,
    /// Processes watched.
    pub processes: u64,
    /// Time spent in programs, when the kernel counts it.
    pub run_time_ns: u64,
    /// Memory of all maps.
    pub map_bytes: u64,
    /// The in-kernel recorder.
    pub recorder: RecorderStatus,
}

/// The in-kernel recorder: the minutes before an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecorderStatus {
    /// Its memory.
    pub bytes: u64,
    /// Of that in use.
    pub used_bytes: u64,
    /// Uses that found no room.
    pub dropped: u64,
    /// What it covers, by container, the shortest span first.
    pub spans: Vec<RecorderSpan>,
}

/// What the recorder covers of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecorderSpan {
    /// The instance.
    pub instance: String,
    /// From its oldest entry until now.
    pub seconds: u64,
    /// Entries written since the container began.
    pub entries: u64,
}

/// The journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalStatus {
    /// Where it is.
    pub dir: String,
    /// Name of this journal in `origin@leaf`.
    pub origin: String,
    /// Records accepted so far.
    pub records: u64,
    /// Records durable so far.
    pub durable: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Free bytes on that disk.
    pub free_bytes: Option<u64>,
    /// `ok`, `failing` (losing records) or `emergency` (only alerts are kept).
    pub health: String,
    /// Why it is not ok.
    pub reason: Option<String>,
    /// Since when it has not been anchored elsewhere.
    pub unanchored_since: Option<String>,
}

/// Baselines by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaselineCounts {
    /// Not ready yet.
    pub learning: u64,
    /// Ready.
    pub ready: u64,
    /// Locked by a person.
    pub locked: u64,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoctorState {
    /// As good as it gets.
    #[default]
    Ok,
    /// Works, with a stated cost.
    Degraded,
    /// Does not work.
    Missing,
    /// Could not be found out.
    Unknown,
}

impl DoctorState {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// One finding of `plimsoll doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoctorRow {
    /// `kernel`, `permission`, `cgroup`, `runtime`, `hook`, `enforcement` or `storage`.
    pub area: String,
    /// What was looked at: `BTF`, `docker`, `file.open` …
    pub name: String,
    /// How it stands.
    pub state: DoctorState,
    /// What was found (`tp_btf/sched_process_exec`, `24.0.5 at /run/docker.sock`).
    pub found: String,
    /// What was tried first and refused, with the reason.
    pub refused: Vec<Refusal>,
    /// What this costs: what is not seen, or is slower.
    pub cost: Option<String>,
    /// What to do to have it better.
    pub advice: Option<String>,
    /// Without it nothing can be observed at all.
    pub fatal: bool,
}

/// One mechanism that the kernel refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// `lsm/bprm_check_security` …
    pub mechanism: String,
    /// The kernel's or the library's reason.
    pub reason: String,
}
