//! Sorts of acts: what of a container's observations a question looks at, so that whoever keeps
//! lists of records need not read the rest.
//!
//! Promise: a sort is decided by the observation alone. Every observation is of exactly one of
//! [`Acts::ALL`]; of the others beside it none, or some.

use plimsoll_model::event::FileEvent;
use plimsoll_model::paths::{is_runtime, sensitive, sensitive_version};
use plimsoll_model::{Entry, EventKind, FileOp, Observation, Origin, SockAddr, Text};

/// Where Kubernetes puts the token of a pod's service account.
pub(crate) const SERVICE_ACCOUNT: &str = "/secrets/kubernetes.io/serviceaccount";

/// A set of sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acts(u32);

impl Acts {
    /// Executions.
    pub const EXEC: Self = Self(1);
    /// Processes that were made or ended.
    pub const PROCESS: Self = Self(1 << 1);
    /// Libraries that were mapped.
    pub const LIBRARY: Self = Self(1 << 2);
    /// Files of the image or the container's own layer that were read, and are nothing special.
    pub const READ: Self = Self(1 << 3);
    /// Other files that were read.
    pub const READ_NOTABLE: Self = Self(1 << 4);
    /// Files that were made or changed, and are nothing special.
    pub const CHANGE: Self = Self(1 << 5);
    /// Other changes, whatever was removed or renamed, and what failed.
    pub const CHANGE_NOTABLE: Self = Self(1 << 6);
    /// Connections, datagrams, listening, names.
    pub const NETWORK: Self = Self(1 << 7);
    /// The same on UNIX sockets.
    pub const LOCAL_SOCKET: Self = Self(1 << 8);
    /// System calls that were used.
    pub const CALL: Self = Self(1 << 9);
    /// Everything else.
    pub const OTHER: Self = Self(1 << 10);
    /// All of them.
    pub const ALL: Self = Self((1 << 11) - 1);
    /// Beside these: executions by which somebody entered the container.
    pub const SESSION: Self = Self(1 << 11);
    /// What the runtime did to set the container up.
    pub const SET_UP: Self = Self(1 << 12);
    /// Something in it was masked.
    pub const MASKED: Self = Self(1 << 13);

    /// Every sort, those beside the others too.
    pub const EVERY: Self = Self((1 << 14) - 1);

    /// Both.
    pub const fn or(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether they have a sort in common.
    pub fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Numbers of the sorts, 0 to 31, the same in every version.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |n| self.0 & 1 << n != 0)
    }

    /// The sorts that an observation is of.
    pub fn of(o: &Observation) -> Self {
        let beside = |is: bool, sort: Self| if is { sort } else { Self(0) };
        sort(&o.event.kind)
            .or(beside(is_first_of_session(o), Self::SESSION))
            .or(beside(is_set_up(o), Self::SET_UP))
            .or(beside(!o.redacted.is_empty(), Self::MASKED))
    }
}

fn sort(kind: &EventKind) -> Acts {
    match kind {
        EventKind::Exec(_) => Acts::EXEC,
        EventKind::Exit { .. } | EventKind::Fork { .. } => Acts::PROCESS,
        EventKind::Library { .. } => Acts::LIBRARY,
        EventKind::File(f) => of_file(f),
        EventKind::Memfd { .. } => Acts::CHANGE_NOTABLE,
        EventKind::Connect(c) | EventKind::Datagram(c) | EventKind::Accept(c) => socket(&c.peer),
        EventKind::Listen { local, .. } => socket(local),
        EventKind::Dns(_) => Acts::NETWORK,
        EventKind::Syscall { .. } => Acts::CALL,
        _ => Acts::OTHER,
    }
}

fn socket(peer: &SockAddr) -> Acts {
    match peer {
        SockAddr::Unix(_) => Acts::LOCAL_SOCKET,
        _ => Acts::NETWORK,
    }
}

fn of_file(f: &FileEvent) -> Acts {
    let own = matches!(f.origin, Origin::Image | Origin::Upper);
    let ordinary = own && !is_special(&f.path) && !is_special(&f.target);
    match f.op {
        // what failed is told with the changes
        _ if f.result < 0 => Acts::CHANGE_NOTABLE,
        FileOp::Read | FileOp::List if ordinary => Acts::READ,
        FileOp::Read | FileOp::List => Acts::READ_NOTABLE,
        FileOp::Write | FileOp::Create | FileOp::Mkdir | FileOp::Chown if ordinary => Acts::CHANGE,
        _ => Acts::CHANGE_NOTABLE,
    }
}

fn is_special(path: &Text) -> bool {
    let token = path.as_bytes().windows(SERVICE_ACCOUNT.len());
    sensitive(path.as_bytes()).is_some()
        || token.into_iter().any(|w| w == SERVICE_ACCOUNT.as_bytes())
}

/// An exec by a process that came from outside and whose parent did not.
pub(crate) fn is_first_of_session(o: &Observation) -> bool {
    let outside = |entry: Entry| matches!(entry, Entry::ExecSession | Entry::Host);
    let key = o.event.process.key;
    matches!(o.event.kind, EventKind::Exec(_))
        && o.lineage.first().is_some_and(|a| outside(a.entry))
        && o.lineage
            .iter()
            .skip(1)
            .all(|a| a.key == key || !outside(a.entry))
}

/// The container's runtime sets it up: every process in the lineage is the runtime's.
pub(crate) fn is_set_up(o: &Observation) -> bool {
    // whoever calls itself runc is told apart by where its program lives: the runtime's is the host's
    let origin = match (
        &o.event.kind,
        o.lineage.first().and_then(|a| a.facts.as_ref()),
    ) {
        (EventKind::Exec(e), _) => e.origin,
        (_, Some(facts)) => facts.origin,
        (_, None) => Origin::Unknown,
    };
    let of_host = matches!(
        origin,
        Origin::Unknown | Origin::Foreign | Origin::Memfd | Origin::Pseudo
    );
    of_host
        && !o.lineage.is_empty()
        && !o.lineage_cut
        && o.lineage.iter().all(|a| is_runtime(a.exe.as_bytes()))
}

/// What this file's decisions stand on: lists that were made under another number are made again.
/// Raised with every change of a sort.
pub fn version() -> u64 {
    const OWN: u64 = 1;
    sensitive_version().wrapping_mul(31).wrapping_add(OWN)
}
