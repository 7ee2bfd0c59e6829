//! Programs that are forbidden as an answer to an alert: the user side of `bpf/block.h`.
//!
//! Promise: for equal input the same numbers as the programs; each entry ends by itself.

use crate::api::{Block, Blocked, ProgramFile};
use crate::control::Control;
use crate::error::SensorError;
use crate::hash::Key;
use crate::maps::{bytes_of, update};
use crate::objects::Objects;
use crate::skel::types;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use plimsoll_model::BootNs;
use std::sync::{Mutex, PoisonError};

// enum block_kind
const PATH: u64 = 1;
const FILE: u64 = 2;

pub(crate) struct Maps {
    blocked: MapHandle,
    /// Held while entries and their number change together.
    count: Mutex<MapHandle>,
}

impl Maps {
    pub(crate) fn new(objects: &Objects) -> libbpf_rs::Result<Self> {
        Ok(Self {
            blocked: objects.map("blocked")?,
            count: Mutex::new(objects.map("blocks")?),
        })
    }
}

impl Control {
    /// Forbids a program until `until`; one that is forbidden already ends then, too.
    ///
    /// # Errors
    /// When the map is full, or the path is deeper than the kernel walks.
    pub fn block(&self, block: &Block, until: BootNs) -> Result<(), SensorError> {
        let key = self.block_key(block)?;
        let stopped = self.blocked(block).map_or(0, |(_, stopped)| stopped);
        let value = types::block {
            until: until.0,
            stopped,
        };
        let maps = &self.maps.blocks;
        let count = maps.count.lock().unwrap_or_else(PoisonError::into_inner);
        update(
            &maps.blocked,
            "blocked",
            &key.to_ne_bytes(),
            bytes_of(&value),
        )?;
        self.count_blocks(&count)
    }

    /// Lets a program run again; `false`: it was not forbidden.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn unblock(&self, block: &Block) -> Result<bool, SensorError> {
        let key = self.block_key(block)?;
        let maps = &self.maps.blocks;
        let count = maps.count.lock().unwrap_or_else(PoisonError::into_inner);
        let was_there = maps.blocked.delete(&key.to_ne_bytes()).is_ok();
        self.count_blocks(&count)?;
        Ok(was_there)
    }

    /// Until when a program is forbidden, and how many of its runs were stopped; `None`: it is not.
    pub fn blocked(&self, block: &Block) -> Option<(BootNs, u64)> {
        let key = self.block_key(block).ok()?.to_ne_bytes();
        let found = self.maps.blocks.blocked.lookup(&key, MapFlags::ANY);
        let value = found.ok().flatten()?;
        let word = |at: usize| value.get(at..at + 8)?.try_into().ok();
        Some((
            BootNs(u64::from_ne_bytes(word(0)?)),
            u64::from_ne_bytes(word(8)?),
        ))
    }

    /// The kernel counts no entries for us: with none, an exec looks no further.
    fn count_blocks(&self, count: &MapHandle) -> Result<(), SensorError> {
        let n = self.maps.blocks.blocked.keys().count() as u32;
        update(count, "blocks", &0u32.to_ne_bytes(), &n.to_ne_bytes())
    }

    fn block_key(&self, block: &Block) -> Result<u64, SensorError> {
        let too_deep = || SensorError::Path("the path is deeper than the kernel walks");
        self.maps.key.block(block).ok_or_else(too_deep)
    }

    /// Root cgroup of the container to which a process belongs, wherever it has moved itself since;
    /// `None`: of none that is watched.
    pub fn container_of(&self, tgid: u32) -> Option<u64> {
        Some(self.process(tgid)?.cgroup)
    }

    /// The file that a watched process executes, as the kernel names it.
    pub fn program_of(&self, tgid: u32) -> Option<ProgramFile> {
        let p = self.process(tgid)?;
        (p.exe_ino != 0 && p.exe_dev != 0).then_some(ProgramFile {
            dev: p.exe_dev,
            ino: p.exe_ino,
        })
    }
}

impl Key {
    /// `None` for a path that the kernel does not walk.
    fn block(self, block: &Block) -> Option<u64> {
        let (what, kind) = match &block.what {
            Blocked::Path(path) => (self.path(path.as_bytes())?, PATH << 32),
            Blocked::File(file) => (file.ino, FILE << 32 | u64::from(file.dev)),
        };
        Some(self.words(&[what, kind, block.cgroup_id, 0]))
    }
}
