//! An event with its workload and its lineage attached.

use crate::event::{Entry, Event, Exec, Glance, Origin};
use crate::ids::{Instance, ProcessKey};
use crate::text::Text;
use crate::time::Stamp;
use minicbor::{Decode, Encode};

/// One process in a lineage, as it was when the event happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ancestor {
    /// Which process.
    #[n(0)]
    pub key: ProcessKey,
    /// Its executable.
    #[n(1)]
    pub exe: Text,
    /// The script it interprets, or empty.
    #[n(2)]
    pub script: Text,
    /// Its arguments (at most 512 bytes here; the exec record has them in full).
    #[n(3)]
    pub argv: Vec<Text>,
    /// How it came into the container.
    #[n(4)]
    pub entry: Entry,
    /// Its uid.
    #[n(5)]
    pub uid: u32,
    /// It was rebuilt from `/proc`, not observed.
    #[n(6)]
    pub from_proc: bool,
    /// When the process executed this program (boot clock; 0 unknown).
    #[n(7)]
    pub exec_boot: crate::time::BootNs,
    /// Its `comm` when it executed this program: what it was called as, whatever it named itself
    /// since. Empty where that was not observed.
    #[n(8)]
    #[cbor(default)]
    pub comm: Text,
    /// What else its exec showed. Only of the acting process, and only where the event is not that
    /// exec itself.
    #[n(9)]
    pub facts: Option<ExecFacts>,
}

/// What an exec showed beyond names, for judging what the process does later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExecFacts {
    /// Working directory at the exec.
    #[n(0)]
    pub cwd: Text,
    /// Where the executable lives.
    #[n(1)]
    pub origin: Origin,
    /// The executable had no name any more.
    #[n(2)]
    pub deleted: bool,
    /// Effective capabilities at the exec.
    #[n(3)]
    pub caps: u64,
    /// Device number of the controlling terminal (0: none).
    #[n(4)]
    pub tty: u32,
    /// Inode of the executable.
    #[n(5)]
    pub ino: u64,
    /// The first program of the container instance.
    #[n(6)]
    pub first: bool,
    /// What else the program had when it started, without the environment.
    #[n(7)]
    pub glance: Option<Box<Glance>>,
}

impl ExecFacts {
    /// The facts of an exec.
    pub fn of(exec: &Exec) -> Self {
        Self {
            cwd: exec.cwd.clone(),
            origin: exec.origin,
            deleted: exec.deleted,
            caps: exec.caps,
            tty: exec.tty,
            ino: exec.ino,
            first: exec.first,
            glance: exec.glance.as_ref().map(|g| {
                Box::new(Glance {
                    env: None,
                    user: g.user.clone(),
                    ..**g
                })
            }),
        }
    }
}

/// An event with its workload and lineage. This is what is judged and what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Observation {
    /// The event.
    #[n(0)]
    pub event: Event,
    /// Boot and wall time of the event.
    #[n(1)]
    pub at: Stamp,
    /// The container instance (`None`: identity unknown, see `unknown_because`).
    #[n(2)]
    pub instance: Option<Instance>,
    /// The acting process first, then its ancestors up to the entry point (at most 16).
    #[n(3)]
    pub lineage: Vec<Ancestor>,
    /// The lineage was cut: an ancestor was not known any more.
    #[n(4)]
    pub lineage_cut: bool,
    /// Names of the redaction rules that masked something.
    #[n(5)]
    pub redacted: Vec<String>,
    /// Why the identity is unknown; empty when it is known.
    #[n(6)]
    pub unknown_because: String,
    /// How many equal events this stands for (repeats aggregated), at least 1.
    #[n(7)]
    pub count: u64,
}

impl Observation {
    /// Executable of the acting process; for an exec event this is the *new* program.
    pub fn program(&self) -> Text {
        self.lineage
            .first()
            .map(|a| a.exe.clone())
            .unwrap_or_default()
    }
    /// The process that was there before: for an exec the program that executed it, else the parent.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.lineage.get(1)
    }
}
