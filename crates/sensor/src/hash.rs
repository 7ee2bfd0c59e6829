//! The keyed hashes of the kernel's second-level dictionary, as user space computes them.
//!
//! Promise: for equal input the same numbers as `bpf/siphash.h` and `bpf/dict.h`; a test on a live
//! kernel loads a set and sees its entries answer.

use crate::api::{Known, KnownObject, PathMatch, PeerMatch};
use plimsoll_model::event::{FileOp, Origin};
use plimsoll_model::{Entry, Proto, Text};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// Deepest path that the kernel walks (`LEVELS` in `bpf/maps.h`).
const LEVELS: usize = 64;

/// The per-boot key.
#[derive(Clone, Copy)]
pub(crate) struct Key(pub(crate) u64, pub(crate) u64);

impl Key {
    /// A key that nobody can guess.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut b = [0u8; 16];
        getrandom::fill(&mut b)?;
        let half =
            |r: std::ops::Range<usize>| u64::from_ne_bytes(b[r].try_into().expect("eight bytes"));
        Ok(Key(half(0..8), half(8..16)))
    }

    pub(crate) fn words(self, words: &[u64]) -> u64 {
        let mut h = SipHasher13::new_with_keys(self.0, self.1);
        for w in words {
            h.write(&w.to_le_bytes());
        }
        h.finish()
    }

    fn bytes(self, bytes: &[u8]) -> u64 {
        let mut h = SipHasher13::new_with_keys(self.0, self.1);
        h.write(bytes);
        h.finish()
    }

    /// Chain of component hashes from the root to the leaf; `None` for a path that is deeper than
    /// the kernel walks.
    pub(crate) fn path(self, path: &[u8]) -> Option<u64> {
        let mut h = 0;
        for (i, part) in path
            .split(|&b| b == b'/')
            .filter(|p| !p.is_empty())
            .enumerate()
        {
            if i == LEVELS {
                return None;
            }
            h = self.words(&[h, self.bytes(&part[..part.len().min(255)])]);
        }
        Some(h)
    }

    /// Key of a watched path.
    pub(crate) fn watched(self, path: &PathMatch) -> Option<u64> {
        Some(match path {
            PathMatch::Exact(p) => self.words(&[self.path(p.as_bytes())?, 0]),
            PathMatch::Below(p) => self.words(&[self.path(p.as_bytes())?, 1]),
        })
    }

    /// What stands for a script in a set; 0 for none.
    pub(crate) fn script(self, script: &Text) -> u64 {
        if script.is_empty() {
            0
        } else {
            self.bytes(script.as_bytes())
        }
    }

    fn stable(self, program: &Text, script: &Text, entry: Entry, uid: u32) -> Option<u64> {
        Some(self.words(&[
            self.path(program.as_bytes())?,
            self.script(script),
            entry as u64,
            u64::from(uid),
        ]))
    }

    /// Key of one entry of a set.
    pub(crate) fn known(self, set: u32, known: &Known) -> Option<u64> {
        let stable = self.stable(&known.program, &known.script, known.entry, known.uid)?;
        let (object, code, below) = self.object(&known.object)?;
        Some(self.words(&[
            stable,
            object,
            u64::from(code) << 1 | u64::from(below),
            u64::from(set),
        ]))
    }

    fn object(self, object: &KnownObject) -> Option<(u64, u32, bool)> {
        Some(match object {
            KnownObject::File { op, origin, path } => {
                let (hash, below) = self.path_match(path)?;
                (hash, code(4, op_number(*op), *origin), below)
            }
            KnownObject::Library { origin, path } => {
                let (hash, below) = self.path_match(path)?;
                (hash, code(5, 0, *origin), below)
            }
            KnownObject::Connect { proto, peer, port } => self.ends(7, *proto, *peer, *port),
            KnownObject::Accept { proto, peer, port } => self.ends(8, *proto, *peer, *port),
            KnownObject::Datagram { peer, port } => self.ends(11, Proto::Udp, *peer, *port),
            KnownObject::Syscall { nr } => (u64::from(*nr), 20 << 16, false),
        })
    }

    fn path_match(self, path: &PathMatch) -> Option<(u64, bool)> {
        match path {
            PathMatch::Exact(p) => Some((self.path(p.as_bytes())?, false)),
            PathMatch::Below(p) => Some((self.path(p.as_bytes())?, true)),
        }
    }

    /// The two halves of an address, IPv4 as v4-mapped, as the kernel reads them.
    pub(crate) fn halves(ip: IpAddr) -> (u64, u64) {
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let o = v6.octets();
        let half =
            |r: std::ops::Range<usize>| u64::from_ne_bytes(o[r].try_into().expect("eight bytes"));
        (half(0..8), half(8..16))
    }

    fn ends(self, kind: u32, proto: Proto, peer: PeerMatch, port: u16) -> (u64, u32, bool) {
        let about = u64::from(port) << 8 | proto as u64;
        let (hi, lo, any) = match peer {
            PeerMatch::Any => (0, 0, true),
            PeerMatch::Ip(ip) => {
                let (hi, lo) = Self::halves(ip);
                (hi, lo, false)
            }
        };
        (
            self.words(&[hi, lo, about, 0]),
            kind << 16 | (proto as u32) << 8,
            any,
        )
    }
}

fn code(kind: u32, op: u32, origin: Origin) -> u32 {
    kind << 16 | op << 8 | origin as u32
}

/// Number of an operation in `bpf/wire.h`.
pub(crate) fn op_number(op: FileOp) -> u32 {
    op as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_hashes_by_components() {
        let k = Key(1, 2);
        assert_eq!(k.path(b"/etc/passwd"), k.path(b"//etc/passwd/"));
        assert_ne!(k.path(b"/etc/passwd"), k.path(b"/etcp/asswd"));
        assert_eq!(k.path("/a".repeat(65).as_bytes()), None);
    }

    #[test]
    fn operations_have_the_numbers_of_the_wire() {
        for n in 0..13 {
            assert_eq!(op_number(crate::wire::file_op(n).unwrap()), n as u32);
        }
    }
}
