//! Identities. Each id has its own type, is checked when it is made, and prints one way.

use crate::time::BootNs;
use minicbor::{Decode, Encode};
use std::fmt;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct InvalidId {
    /// Which kind of id was asked for.
    pub what: &'static str,
    /// What is wrong with the text.
    pub why: &'static str,
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] String);
        impl $name {
            /// Checks length and characters.
            ///
            /// # Errors
            /// When the text is empty, too long or holds a character outside the allowed set.
            pub fn parse(s: &str) -> Result<Self, InvalidId> {
                let ok: fn(u8) -> bool = $ok;
                if s.is_empty() { return Err(InvalidId { what: $what, why: "empty" }); }
                if s.len() > $max { return Err(InvalidId { what: $what, why: "too long" }); }
                if !s.bytes().all(ok) { return Err(InvalidId { what: $what, why: "has a character that is not allowed" }); }
                Ok(Self(s.to_owned()))
            }
            /// The text of the id.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::parse(d.str()?).map_err(|_| minicbor::decode::Error::message(concat!("not a valid ", $what)))
            }
        }
    };
}

fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':')
}

name_id!(
    /// The machine: `/etc/machine-id`, or the name it was given.
    NodeId, "node id", 128, word
);
name_id!(
    /// `/proc/sys/kernel/random/boot_id`.
    BootId, "boot id", 64, word
);
name_id!(
    /// A container as its runtime names it: 64 hex digits for Docker, containerd (CRI), CRI-O and
    /// Podman; any OCI id (`[A-Za-z0-9_.+-]`) for bare runc and crun.
    ContainerId, "container id", 255, |b| word(b) || b == b'+'
);
name_id!(
    /// An image or manifest digest, `sha256:` and 64 hex digits (or another registered algorithm).
    Digest, "digest", 160, |b| word(b) || b == b'+'
);
name_id!(
    /// A baseline: what it is keyed on, hashed; stable over versions.
    BaselineId, "baseline id", 64, word
);
name_id!(
    /// An alert: `A-` and digits of time and node, sortable.
    AlertId, "alert id", 64, word
);

/// On a hybrid machine containers are told apart in two cgroup hierarchies, and kernfs ids are unique
/// in one of them only: this bit marks the ids of the second one (v1, beside v2).
pub const IN_SECOND_HIERARCHY: u64 = 1 << 63;

impl ContainerId {
    /// The first 12 characters, as people write it.
    pub fn short(&self) -> &str {
        self.as_str().get(..12).unwrap_or(self.as_str())
    }
}

/// One life of a container: a restart reuses the id, so the start belongs to the identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Instance {
    /// The runtime's id.
    #[n(0)]
    pub id: ContainerId,
    /// When this life began: boot time of the creation of its cgroup or of its first process.
    #[n(1)]
    pub start: BootNs,
}

impl Instance {
    /// A 64-bit key for the journal's per-container filter (first 8 bytes of SHA-256, big endian).
    pub fn key(&self) -> u64 {
        use sha2::Digest as _;
        let mut h = sha2::Sha256::new();
        h.update(self.id.as_str());
        h.update(self.start.0.to_be_bytes());
        u64::from_be_bytes(
            h.finalize()[..8]
                .try_into()
                .expect("a SHA-256 has 32 bytes"),
        )
    }
}
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.id.short(), self.start.0))
    }
}

/// A process: pids are reused, start times are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct ProcessKey {
    /// Process (thread group) id in the initial pid namespace.
    #[n(0)]
    pub tgid: u32,
    /// Start of the process, boot clock.
    #[n(1)]
    pub start: BootNs,
}

/// A record of the journal: `origin@leaf`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct RecordId {
    /// The journal that holds it (node id).
    #[n(0)]
    pub origin: NodeId,
    /// Index of the leaf, from 0.
    #[n(1)]
    pub leaf: u64,
}
impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.origin, self.leaf)
    }
}

/// A baseline at one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct BaselineRef {
    /// Which baseline.
    #[n(0)]
    pub id: BaselineId,
    /// Its version, from 1; every change of content or state makes a new one.
    #[n(1)]
    pub version: u64,
}
impl fmt::Display for BaselineRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.id, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_be_a_path_or_an_escape() {
        for bad in ["", "../etc", "a b", "a\x1b[0m", &"x".repeat(300)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ContainerId::parse(&"a".repeat(64)).is_ok());
    }

    #[test]
    fn a_restart_is_another_instance() {
        let id = ContainerId::parse("abc").unwrap();
        let a = Instance {
            id: id.clone(),
            start: BootNs(1),
        };
        let b = Instance {
            id,
            start: BootNs(2),
        };
        assert_ne!(a.key(), b.key());
    }
}
