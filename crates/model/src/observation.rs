//! An event with its workload and its lineage attached.

use crate::event::{Entry, Event, EventKind, Exec, Glance, Origin};
use crate::ids::{Instance, ProcessKey};
use crate::text::Text;
use crate::time::{Stamp, WallNs};
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

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

/// A lineage, shared by all who tell it: the acting process first, then its ancestors up to the entry point
/// (at most 16). Stored as the list that it is, and encoded once however often it is stored.
#[derive(Clone, Default)]
pub struct Line(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ancestors: Vec<Ancestor>,
    encoded: OnceLock<Vec<u8>>,
}

impl Line {
    /// Whether it is the very same one, not only an equal one.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Vec<Ancestor>> for Line {
    fn from(ancestors: Vec<Ancestor>) -> Self {
        Self(Arc::new(Shared {
            ancestors,
            encoded: OnceLock::new(),
        }))
    }
}
impl FromIterator<Ancestor> for Line {
    fn from_iter<I: IntoIterator<Item = Ancestor>>(ancestors: I) -> Self {
        ancestors.into_iter().collect::<Vec<_>>().into()
    }
}
impl Deref for Line {
    type Target = [Ancestor];
    fn deref(&self) -> &[Ancestor] {
        &self.0.ancestors
    }
}
impl<'a> IntoIterator for &'a Line {
    type Item = &'a Ancestor;
    type IntoIter = std::slice::Iter<'a, Ancestor>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0.ancestors == other.0.ancestors
    }
}
impl Eq for Line {}
impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.ancestors.fmt(f)
    }
}
impl<C> Encode<C> for Line {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let encode = || minicbor::to_vec(&self.0.ancestors).expect("writing to memory cannot fail");
        let encoded = self.0.encoded.get_or_init(encode);
        e.writer_mut()
            .write_all(encoded)
            .map_err(encode::Error::write)
    }
}
impl<'b, C> Decode<'b, C> for Line {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        Ok(Vec::<Ancestor>::decode(d, ctx)?.into())
    }
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
    pub lineage: Line,
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
    /// Since when the process runs, of a program that was not seen starting but found running.
    pub fn found_since(&self) -> Option<WallNs> {
        let before = self
            .at
            .boot
            .0
            .saturating_sub(self.event.process.key.start.0);
        match &self.event.kind {
            EventKind::Exec(e) if e.found => {
                Some(WallNs(self.at.wall.0.saturating_sub_unsigned(before)))
            }
            _ => None,
        }
    }
    /// The process that was there before: for an exec the program that executed it, else the parent.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.lineage.get(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_stored_as_the_list_that_it_is_and_once_encoded_it_is_only_copied() {
        let ancestor = |exe: &str| Ancestor {
            exe: exe.into(),
            argv: vec![exe.into(), "-x".into()],
            facts: Some(ExecFacts::default()),
            ..Ancestor::default()
        };
        for list in [
            vec![],
            vec![ancestor("/bin/sh")],
            vec![ancestor("/a"), ancestor("/b")],
        ] {
            let line = Line::from(list.clone());
            let bytes = minicbor::to_vec(&list).unwrap();
            assert_eq!(minicbor::to_vec(&line).unwrap(), bytes);
            assert_eq!(minicbor::to_vec(line.clone()).unwrap(), bytes, "again");
            let read: Line = minicbor::decode(&bytes).unwrap();
            assert_eq!((&read, &*read), (&line, &list[..]));
            assert!(line.is_shared_with(&line.clone()) && !read.is_shared_with(&line));
        }
    }
}
