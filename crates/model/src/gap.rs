//! Loss is data: what was not observed or not kept, where, when and how much.

use crate::ids::Instance;
use crate::time::Stamp;
use minicbor::{Decode, Encode};

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Stage {
    /// No room in the bulk ring buffer.
    #[n(0)]
    BulkRing,
    /// No room in the ring buffer of alert-class events, or the container's quota was used up.
    #[n(1)]
    AlertRing,
    /// The kernel skipped a probe because it was already running on that CPU.
    #[n(2)]
    Recursion,
    /// No per-CPU scratch space.
    #[n(3)]
    Scratch,
    /// A kernel map was full (processes, containers, first-level entries).
    #[n(4)]
    KernelMap,
    /// Bytes from the kernel that could not be decoded.
    #[n(5)]
    Decode,
    /// A bounded queue of the agent was full.
    #[n(6)]
    Queue,
    /// The journal could not write (disk full, I/O error).
    #[n(7)]
    Journal,
    /// The agent was not running.
    #[n(8)]
    AgentDown,
    /// A hook was refused or is not available: the kind is not seen at all.
    #[n(9)]
    Hook,
    /// Removed by retention.
    #[n(10)]
    Retention,
    /// The journal was found damaged or torn at recovery.
    #[n(11)]
    Damage,
    /// The identity of a container could not be resolved.
    #[n(12)]
    Identity,
    /// Sampling: more of this kind happened than is looked at (system calls used).
    #[n(13)]
    Sampled,
    /// A table of bounded size dropped its oldest entry (lineage, containers).
    #[n(14)]
    Table,
    /// The wall clock stepped: wall times around it are uncertain.
    #[n(15)]
    Clock,
    /// The kernel numbered a record that never came out of its ring.
    #[n(16)]
    Sequence,
    /// Records of the agent's own (drifts, alerts, identities, counts) found no room; no event is
    /// missing with them.
    #[n(21)]
    Records,
    /// Enforcement failed open: what a policy would have prevented was let through.
    #[n(20)]
    Enforcement,
    /// An agent was killed with these events in its hands: the next one cannot tell which of them were
    /// recorded. The count is an upper bound.
    #[n(25)]
    Handover,
}

impl Stage {
    /// Short name for JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::BulkRing => "bulk_ring",
            Stage::AlertRing => "alert_ring",
            Stage::Recursion => "recursion",
            Stage::Scratch => "scratch",
            Stage::KernelMap => "kernel_map",
            Stage::Decode => "decode",
            Stage::Queue => "queue",
            Stage::Journal => "journal",
            Stage::AgentDown => "agent_down",
            Stage::Hook => "hook",
            Stage::Retention => "retention",
            Stage::Damage => "damage",
            Stage::Identity => "identity",
            Stage::Sampled => "sampled",
            Stage::Table => "table",
            Stage::Clock => "clock",
            Stage::Sequence => "sequence",
            Stage::Records => "records",
            Stage::Enforcement => "enforcement",
            Stage::Handover => "handover",
        }
    }
}

/// Whose record is incomplete.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum GapScope {
    /// Everything on the node.
    #[n(0)]
    Node,
    /// One container instance.
    #[n(1)]
    Container(#[n(0)] Instance),
}

/// A recorded loss.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Gap {
    /// Where it was lost.
    #[n(0)]
    pub stage: Stage,
    /// Whose.
    #[n(1)]
    pub scope: GapScope,
    /// Start of the interval.
    #[n(2)]
    pub from: Stamp,
    /// End of the interval.
    #[n(3)]
    pub to: Stamp,
    /// How many events; `None` when that cannot be known.
    #[n(4)]
    pub count: Option<u64>,
    /// What happened, in a few words for people.
    #[n(5)]
    pub reason: String,
}
