//! What the in-kernel recorder held of a container when an alert was raised, and what followed.

use crate::behaviour::{Behaviour, BehaviourKind};
use minicbor::{Decode, Encode};

/// What one container did in an interval, known behaviour included.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recording {
    /// Instance.
    #[n(0)]
    pub instance: crate::ids::Instance,
    /// Start of the span that is covered.
    #[n(1)]
    pub from: crate::time::Stamp,
    /// Its end.
    #[n(2)]
    pub to: crate::time::Stamp,
    /// What was done; `uses` point here.
    #[n(3)]
    pub behaviours: Vec<Recorded>,
    /// When, oldest first.
    #[n(4)]
    pub uses: Vec<Used>,
    /// Uses within the span that are not in the list.
    #[n(5)]
    pub lost: u64,
    /// Uses before the span that were written over before anybody read them.
    #[n(6)]
    pub overwritten: u64,
    /// Each use is listed by itself (the container streamed); else those of about a second are one.
    #[n(7)]
    pub full: bool,
}

/// Something that a container did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recorded {
    /// Dimension.
    #[n(0)]
    pub kind: BehaviourKind,
    /// The behaviour, as baselines name it; `None`: the agent no longer knew which it was.
    #[n(1)]
    pub behaviour: Option<Behaviour>,
}

/// It was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Used {
    /// Milliseconds after the start of the span, to 8.4 ms.
    #[n(0)]
    pub after_ms: u32,
    /// Process that was first to do it then.
    #[n(1)]
    pub tgid: u32,
    /// Place in [`Recording::behaviours`].
    #[n(2)]
    pub what: u32,
    /// How often, at least.
    #[n(3)]
    pub count: u32,
}
