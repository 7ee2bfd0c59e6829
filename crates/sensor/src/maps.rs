//! The maps that programs and agent share, and how plain C structs get into them and out.

use crate::error::SensorError;
use crate::hash::Key;
use crate::pins;
use crate::programs::MapFreeProgram;
use crate::recorder::Recorder;
use crate::region::Region;
use crate::skel::types;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Cgroups whose processes are still to be forgotten.
#[derive(Default)]
pub(crate) struct Sweep {
    pub(crate) last: Option<Instant>,
    pub(crate) cgroups: HashSet<u64>,
}

/// The process table is looked through at most this often …
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// … or when this many cgroups wait for it.
pub(crate) const SWEEP_MOST: usize = 1024;

pub(crate) struct Maps {
    pub(crate) key: Key,
    pub(crate) l1: MapHandle,
    pub(crate) l2: MapHandle,
    pub(crate) watched_paths: MapHandle,
    pub(crate) cgroups: MapHandle,
    pub(crate) containers: MapHandle,
    pub(crate) epochs: MapHandle,
    pub(crate) processes: MapHandle,
    pub(crate) mntns_roots: MapHandle,
    pub(crate) sweep: Mutex<Sweep>,
    pub(crate) scripts: MapHandle,
    /// The dense counters, mapped.
    pub(crate) dense: Region,
    pub(crate) dense_map: MapHandle,
    pub(crate) cpu_states: MapHandle,
    pub(crate) data: MapHandle,
    pub(crate) env_asked: MapHandle,
    pub(crate) programs: Vec<MapFreeProgram>,
    /// hashes of the entries of each set, to replace it
    pub(crate) sets: Mutex<HashMap<u32, HashMap<u64, u32>>>,
    pub(crate) watched: Mutex<HashSet<u64>>,
    pub(crate) recorder: Recorder,
    pub(crate) enforcement: crate::enforce::Maps,
    pub(crate) blocks: crate::block::Maps,
    pub(crate) all: Vec<u32>,
    /// What this agent says to the next one, where the kernel side is pinned.
    pub(crate) page: OnceLock<Arc<pins::Set>>,
    /// Programs have run with these maps before.
    pub(crate) inherited: bool,
}

/// Counters below are numbered by the kernel, above by user space (`DENSE_DYNAMIC` in `bpf/wire.h`).
pub(crate) const DENSE_DYNAMIC: usize = 65_536;

impl Maps {
    /// Sets are numbered anew by each agent: no container has one, none holds anything.
    pub(crate) fn forget_sets(&self) {
        for id in self.containers.keys() {
            let Ok(Some(bytes)) = self.containers.lookup(&id, MapFlags::ANY) else {
                continue;
            };
            let mut c = types::container::default();
            copy_into(&mut c, &bytes);
            (c.set, c.dense_base, c.dense_len) = (0, 0, 0);
            let _ = self.containers.update(&id, bytes_of(&c), MapFlags::EXIST);
        }
        empty(&self.l2);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.extend(self.watched_paths.keys().map(|k| word(&k, 0)));
    }

    /// Counters of the blocks that user space gives out start at 0.
    pub(crate) fn clear_blocks(&self) {
        let len = self.dense_map.max_entries() as usize * 8;
        let Ok(counters) = Region::new(&self.dense_map, len, true) else {
            return;
        };
        for at in (DENSE_DYNAMIC * 8..len).step_by(4) {
            counters.set_word(at, 0);
        }
    }

    /// What the kernel holds of a process.
    pub(crate) fn process(&self, tgid: u32) -> Option<types::process> {
        let found = self.processes.lookup(&tgid.to_ne_bytes(), MapFlags::ANY);
        let mut p = types::process::default();
        copy_into(&mut p, &found.ok()??);
        Some(p)
    }
}

/// Deletes every entry.
pub(crate) fn empty(map: &MapHandle) {
    let keys: Vec<Vec<u8>> = map.keys().collect();
    for key in keys {
        let _ = map.delete(&key);
    }
}

pub(crate) fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    #[allow(unsafe_code)]
    // SAFETY: the types used here are the plain C structs of wire.h with explicit padding.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>())
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |b| {
        u64::from_ne_bytes(b.try_into().expect("eight bytes"))
    })
}

/// Memory of a map as the kernel accounts it (`memlock` in its fdinfo).
pub(crate) fn map_bytes(id: u32) -> u64 {
    let Ok(map) = MapHandle::from_map_id(id) else {
        return 0;
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))
        .unwrap_or_default();
    info.lines()
        .find_map(|l| l.strip_prefix("memlock:"))
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

pub(crate) fn update(
    map: &MapHandle,
    name: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<(), SensorError> {
    map.update(key, value, MapFlags::ANY)
        .map_err(|source| SensorError::Map {
            operation: "update",
            map: name,
            source,
        })
}

#[allow(unsafe_code)]
pub(crate) fn copy_into<T: Copy>(to: &mut T, from: &[u8]) {
    let n = from.len().min(size_of::<T>());
    // SAFETY: `to` is a plain C struct of wire.h (integers only: every bit pattern is valid) and n
    // is at most the length of both.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), std::ptr::from_mut(to).cast(), n) };
}
