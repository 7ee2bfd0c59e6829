//! What containers are held to, in the kernel's maps: the user side of `bpf/enforce.h`.
//!
//! Promise: for equal input the same numbers as the programs; tests on a live kernel load a set and
//! see it prevent what it does not name, and nothing else.

use crate::api::{AllowedEntry, AllowedReach, Enforce, EnforceMeans};
use crate::control::Control;
use crate::error::SensorError;
use crate::hash::Key;
use crate::ladder::Ladder;
use crate::maps::{bytes_of, empty, update};
use crate::objects::Objects;
use crate::skel::types;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use plimsoll_model::EnforceClass;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

// enum enforce_flags
const PROGRAM: u32 = 1;
const SCRIPT: u32 = 2;
const LIBRARY: u32 = 4;
const PEER: u32 = 8;
const KILL: u32 = 16;

// enum allowed_kind
const KIND_PROGRAM: u64 = 1;
const KIND_LIBRARY: u64 = 2;
const KIND_IP: u64 = 3;
const KIND_NETWORK: u64 = 4;
const KIND_LOOPBACK: u64 = 5;
const KIND_PORT: u64 = 6;

// enum allowed_value
const YES: u32 = 1;
const ASK: u32 = 2;

pub(crate) struct Maps {
    containers: MapHandle,
    allowed: MapHandle,
    runs: MapHandle,
    until: MapHandle,
    /// What each set holds, to replace it.
    sets: Mutex<HashMap<u32, HashMap<u64, u32>>>,
}

impl Maps {
    pub(crate) fn new(objects: &Objects) -> libbpf_rs::Result<Self> {
        Ok(Self {
            containers: objects.map("enforced_containers")?,
            allowed: objects.map("allowed")?,
            runs: objects.map("allowed_runs")?,
            until: objects.map("enforce_until")?,
            sets: Mutex::default(),
        })
    }

    /// Nothing is held: sets are numbered anew by each agent.
    pub(crate) fn clear(&self) {
        let until = 0u64.to_ne_bytes();
        let _ = self
            .until
            .update(&0u32.to_ne_bytes(), &until, MapFlags::ANY);
        for map in [&self.containers, &self.allowed, &self.runs] {
            empty(map);
        }
    }
}

impl Control {
    /// Holds the container of this root cgroup to a set, or lets go of it (`None`).
    ///
    /// # Errors
    /// When the map is full.
    pub fn enforce(&self, cgroup_id: u64, how: Option<Enforce>) -> Result<(), SensorError> {
        let map = &self.maps.enforcement.containers;
        let id = cgroup_id.to_ne_bytes();
        let Some(how) = how else {
            let _ = map.delete(&id); // it may not be there
            return Ok(());
        };
        let on = [
            (how.programs, PROGRAM),
            (how.scripts, SCRIPT),
            (how.libraries, LIBRARY),
            (how.peers, PEER),
            (how.kill, KILL),
        ];
        let flags = on.iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum();
        let value = types::enforcing {
            set: how.set,
            flags,
        };
        update(map, "enforced_containers", &id, bytes_of(&value))
    }

    /// Replaces what a set lets through: adds what is new before it removes what is missing.
    ///
    /// # Errors
    /// When the map is full; what was there before still holds then.
    pub fn load_allowed(&self, set: u32, entries: &[AllowedEntry]) -> Result<(), SensorError> {
        let maps = &self.maps.enforcement;
        let mut wanted: HashMap<u64, u32> = HashMap::with_capacity(entries.len());
        for entry in entries {
            let Some((key, value)) = self.maps.key.allowed(set, entry) else {
                continue;
            };
            let there = wanted.entry(key).or_insert(value);
            *there = (*there).max(value);
        }
        let mut sets = maps.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let there = sets.entry(set).or_default();
        for (key, value) in &wanted {
            if there.get(key) == Some(value) {
                continue;
            }
            let bytes = (key.to_ne_bytes(), value.to_ne_bytes());
            update(&maps.allowed, "allowed", &bytes.0, &bytes.1)?;
            there.insert(*key, *value);
        }
        let missing: HashSet<u64> = there
            .keys()
            .filter(|k| !wanted.contains_key(k))
            .copied()
            .collect();
        for key in &missing {
            let _ = maps.allowed.delete(&key.to_ne_bytes());
            there.remove(key);
        }
        if there.is_empty() {
            sets.remove(&set);
        }
        if !missing.is_empty() {
            // a run of a program that is not let through any more has to be asked about again
            let tokens: Vec<Vec<u8>> = maps.runs.keys().collect();
            for token in tokens {
                let _ = maps.runs.delete(&token);
            }
        }
        Ok(())
    }

    /// A stopped exec that carried this token is let through from now on, without asking.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn allow_run(&self, token: u64) -> Result<(), SensorError> {
        let map = &self.maps.enforcement.runs;
        update(
            map,
            "allowed_runs",
            &token.to_ne_bytes(),
            &1u32.to_ne_bytes(),
        )
    }

    /// Nothing is prevented after this moment of the boot clock (0: nothing at all).
    ///
    /// # Errors
    /// When the map refuses.
    pub fn enforce_until(&self, boot_ns: u64) -> Result<(), SensorError> {
        let map = &self.maps.enforcement.until;
        let zero = 0u32.to_ne_bytes();
        self.note_prevented(boot_ns);
        update(map, "enforce_until", &zero, &boot_ns.to_ne_bytes())
    }

    /// The moment from which on nothing is prevented (boot clock, ns).
    pub fn enforced_until(&self) -> u64 {
        let map = &self.maps.enforcement.until;
        let found = map
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .ok()
            .flatten();
        let bytes = found.and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }
}

impl Key {
    /// Key and value of an entry; `None` for a path that the kernel does not walk.
    fn allowed(self, set: u32, entry: &AllowedEntry) -> Option<(u64, u32)> {
        let key = |object: u64, kind: u64, detail: u32, about: u64| {
            self.words(&[object, kind << 32 | u64::from(detail), about, set.into()])
        };
        let file = |path: &plimsoll_model::Text, kind, origin| {
            Some(key(self.path(path.as_bytes())?, kind, origin, 0))
        };
        Some(match entry {
            AllowedEntry::Program { path, origin, ask } => {
                let value = if *ask { ASK } else { YES };
                (file(path, KIND_PROGRAM, *origin as u32)?, value)
            }
            AllowedEntry::Library { path, origin } => {
                (file(path, KIND_LIBRARY, *origin as u32)?, YES)
            }
            AllowedEntry::Peer { proto, reach, port } => {
                let peer = |object, kind| (key(object, kind, *proto as u32, (*port).into()), YES);
                let address = |ip: IpAddr| {
                    let (hi, lo) = Key::halves(ip);
                    self.words(&[hi, lo])
                };
                match reach {
                    AllowedReach::Ip(ip) => peer(address(*ip), KIND_IP),
                    AllowedReach::Network(ip) => peer(address(*ip), KIND_NETWORK),
                    AllowedReach::Loopback => peer(0, KIND_LOOPBACK),
                    AllowedReach::Any => peer(0, KIND_PORT),
                }
            }
        })
    }
}

const AT_EXEC: &str = "tp_btf/sched_process_exec, a signal before the first instruction";
const UNTIL_DECIDED: &str = "a process that may signal the stopped one can continue it before it is decided (at_exec: kill leaves no time for that)";

/// How each class is prevented with the programs that this kernel took.
pub(crate) fn means(ladder: &Ladder) -> Vec<EnforceMeans> {
    EnforceClass::ALL
        .into_iter()
        .map(|c| mean(ladder, c))
        .collect()
}

fn mean(ladder: &Ladder, class: EnforceClass) -> EnforceMeans {
    let (mechanism, leaves) = match class {
        EnforceClass::Program => match ladder.why_not("e_bprm_check") {
            None => (
                Some("lsm/bprm_check_security: refused".into()),
                String::new(),
            ),
            Some(_) => (Some(AT_EXEC.into()), UNTIL_DECIDED.into()),
        },
        EnforceClass::Script => (
            Some(AT_EXEC.into()),
            "code given on the command line (sh -c, python3 -c) is not told apart; a script that was changed in its place is not noticed".into(),
        ),
        EnforceClass::Library => {
            let refused = ["e_mmap_file", "e_file_mprotect"].map(|p| ladder.why_not(p));
            match refused.into_iter().flatten().next() {
                None => (
                    Some("lsm/mmap_file, lsm/file_mprotect: refused".into()),
                    "memory that is no file (JIT, shellcode)".into(),
                ),
                Some(why) => (None, why),
            }
        }
        EnforceClass::Peer => {
            let programs = ["e_connect4", "e_connect6", "e_sendmsg4", "e_sendmsg6"];
            match programs.iter().find_map(|p| ladder.why_not(p)) {
                None => (
                    Some("cgroup/connect4, connect6, sendmsg4, sendmsg6: refused".into()),
                    "UNIX and raw sockets; ports of peers that are known by name".into(),
                ),
                Some(why) => (None, why),
            }
        }
    };
    EnforceMeans {
        class,
        mechanism,
        leaves,
    }
}
