//! By what the same thing is known in other records, and where an index of records files it.
//!
//! A mark is told twice: by bytes that every record with it holds, for whoever reads all records, and
//! by a key, for whoever keeps lists of them. Both may name records without it; [`Mark::of_record`]
//! decides.

use plimsoll_model::{
    AlertId, AlertSource, Behaviour, BehaviourId, EventKind, Observation, Record, RecordKind,
    SockAddr, Text,
};
use std::net::IpAddr;

/// What a record is looked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// A behaviour outside the baseline, with its object: drifts and alerts bear it.
    Behaviour(BehaviourId, Text),
    /// A program that is not from the image: observations of its executions bear it.
    Program(Text),
    /// Its file, by device and inode.
    Inode(u64, u64),
    /// A peer that is not this machine's loopback: observations of connections and datagrams.
    Peer(IpAddr, u16),
    /// A DNS name: observations of questions and answers.
    Name(Text),
    /// An alert: its records.
    Alert(AlertId),
    /// A known behaviour that was counted: records of presence.
    Counted(BehaviourId),
    /// The clock made a step: clock anchors.
    Step,
}

impl Mark {
    /// Of a behaviour outside the baseline.
    pub(crate) fn of(b: &Behaviour) -> Self {
        Mark::Behaviour(b.id(), b.object.clone())
    }

    /// Every mark that a record bears.
    pub fn of_record(record: &Record) -> Vec<Mark> {
        match record {
            Record::Observation(o) => of_observation(o),
            Record::Drift(d) => vec![Mark::of(&d.behaviour)],
            Record::Alert(a) => {
                let mut marks = vec![Mark::Alert(a.id.clone())];
                if let AlertSource::Drift(d) = &a.source {
                    marks.push(Mark::of(&d.behaviour));
                }
                marks
            }
            Record::Presence(p) => p.counts.iter().map(|(id, _)| Mark::Counted(*id)).collect(),
            Record::Clock(c) if c.step_ns != 0 => vec![Mark::Step],
            _ => vec![],
        }
    }

    /// Whether a record bears it.
    pub(crate) fn is_on(&self, record: &Record) -> bool {
        match (self, record) {
            (Mark::Counted(id), Record::Presence(p)) => p.counts.iter().any(|(i, _)| i == id),
            _ => Mark::of_record(record).contains(self),
        }
    }

    /// Bytes that the payload of every record with this mark holds; empty: there are none to look
    /// for.
    pub fn needle(&self) -> Vec<u8> {
        match self {
            Mark::Behaviour(_, text) | Mark::Program(text) | Mark::Name(text) => {
                text.as_bytes().to_vec()
            }
            // CBOR stores numbers big endian, without leading zeros: the low bytes are always there
            Mark::Inode(_, ino) => {
                let bytes = ino.to_be_bytes();
                let skip = bytes.iter().take_while(|b| **b == 0).count();
                bytes[skip..].to_vec()
            }
            Mark::Peer(IpAddr::V4(ip), _) => ip.octets().to_vec(),
            Mark::Peer(IpAddr::V6(ip), _) => ip.octets().to_vec(),
            Mark::Alert(id) => id.as_str().as_bytes().to_vec(),
            Mark::Counted(id) => id.0.to_vec(),
            Mark::Step => Vec::new(),
        }
    }

    /// Where an index files records with this mark: the same on every machine and in every version.
    pub fn key(&self) -> u64 {
        match self {
            Mark::Behaviour(id, _) => hash(1, &[&id.0]),
            Mark::Program(path) => hash(2, &[path.as_bytes()]),
            Mark::Inode(dev, ino) => hash(3, &[&dev.to_le_bytes(), &ino.to_le_bytes()]),
            Mark::Peer(IpAddr::V4(ip), port) => hash(4, &[&ip.octets(), &port.to_le_bytes()]),
            Mark::Peer(IpAddr::V6(ip), port) => hash(5, &[&ip.octets(), &port.to_le_bytes()]),
            Mark::Name(name) => hash(6, &[name.as_bytes()]),
            Mark::Alert(id) => hash(7, &[id.as_str().as_bytes()]),
            Mark::Counted(id) => hash(11, &[&id.0]),
            Mark::Step => hash(12, &[]),
        }
    }
}

/// Where an index files every record of a kind.
pub fn kind_key(kind: RecordKind) -> u64 {
    hash(8, &[&(kind as u16).to_le_bytes()])
}

/// Where an index files records of a kind about a container, by the key under which the journal
/// files them.
pub fn container_key(container: &[u8; 16], kind: u16) -> u64 {
    hash(9, &[container, &kind.to_le_bytes()])
}

/// Where an index files a container's observations of one sort, by the number of that sort.
pub fn acts_key(container: &[u8; 16], sort: u8) -> u64 {
    hash(10, &[container, &[sort]])
}

/// The marks that one observation bears.
pub(crate) fn of_observation(o: &Observation) -> Vec<Mark> {
    match &o.event.kind {
        EventKind::Exec(e) if e.origin.is_writable() || e.deleted => {
            let mut marks = vec![Mark::Program(e.exe.clone())];
            if e.ino != 0 {
                marks.push(Mark::Inode(e.dev, e.ino));
            }
            marks
        }
        EventKind::Connect(c) | EventKind::Datagram(c) => match &c.peer {
            SockAddr::Inet(ip, port) if !ip.is_loopback() => vec![Mark::Peer(*ip, *port)],
            _ => vec![],
        },
        EventKind::Dns(d) if !d.name.is_empty() => vec![Mark::Name(d.name.clone())],
        _ => vec![],
    }
}

/// FNV-1a, then mixed. Whoever finds two things with one key makes a reader look at both.
fn hash(of: u8, parts: &[&[u8]]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    let begun = step(0xcbf2_9ce4_8422_2325, &of);
    let h = parts.iter().copied().flatten().fold(begun, step);
    (h ^ (h >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_files_were_written_with() {
        // a change here makes every index unreadable: raise its version with it
        let peer = Mark::Peer("192.0.2.7".parse().unwrap(), 443);
        assert_eq!(peer.key(), hash(4, &[&[192, 0, 2, 7], &[187, 1]]));
        assert_eq!(hash(0, &[]), hash(0, &[b""]));
        assert_ne!(kind_key(RecordKind::Alert), kind_key(RecordKind::Drift));
        assert_ne!(container_key(&[1; 16], 1), container_key(&[1; 16], 2));
        assert_ne!(acts_key(&[1; 16], 1), acts_key(&[1; 16], 2));
        assert_eq!(kind_key(RecordKind::Gap), 0xbd20_e145_75c6_4f6f);
    }
}
