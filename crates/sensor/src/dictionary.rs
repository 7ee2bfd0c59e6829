//! The dictionary as user space sees it: sets of what is known, paths that are always told, and what is
//! remembered of events that were told.

use crate::api::*;
use crate::control::Control;
use crate::error::SensorError;
use crate::hash::op_number;
use crate::maps::{bytes_of, update};
use crate::skel::types;
use crate::wire;
use libbpf_rs::{MapCore, MapFlags};
use plimsoll_model::{Event, EventKind};
use std::collections::HashMap;

/// States of a first-level entry that user space sets or leaves alone; `struct l1_value` begins with it
/// (`enum l1_state` in `bpf/wire.h`).
const PENDING: u32 = 1;
const WATCH: u32 = 4;
const UPWARD: u32 = 5;

impl Control {
    /// Replaces the entries of a set: adds what is new, removes what is missing.
    ///
    /// # Errors
    /// When the map is full.
    pub fn load_set(&self, set: u32, entries: &[Known]) -> Result<(), SensorError> {
        let wanted: HashMap<u64, u32> = entries
            .iter()
            .filter_map(|k| Some((self.maps.key.known(set, k)?, k.index)))
            .collect();
        let mut sets = self
            .maps
            .sets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let there = sets.entry(set).or_default();
        for (hash, index) in &wanted {
            if there.get(hash) == Some(index) {
                continue;
            }
            let value = types::l2_value { set, index: *index };
            update(&self.maps.l2, "l2", &hash.to_ne_bytes(), bytes_of(&value))?;
            there.insert(*hash, *index);
        }
        let missing: Vec<u64> = there
            .keys()
            .filter(|h| !wanted.contains_key(h))
            .copied()
            .collect();
        for hash in missing {
            let _ = self.maps.l2.delete(&hash.to_ne_bytes());
            there.remove(&hash);
        }
        Ok(())
    }

    /// Removes a set.
    ///
    /// # Errors
    /// Never for one that is not there.
    pub fn drop_set(&self, set: u32) -> Result<(), SensorError> {
        self.load_set(set, &[])?;
        self.maps
            .sets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&set);
        Ok(())
    }

    /// Replaces the paths that are emitted every time.
    ///
    /// # Errors
    /// When the map is full.
    pub fn set_watched_paths(&self, paths: &[WatchedPath]) -> Result<(), SensorError> {
        let mut wanted: HashMap<u64, u32> = HashMap::new();
        for p in paths {
            let Some(hash) = self.maps.key.watched(&p.path) else {
                continue;
            };
            let mask = if p.ops.is_empty() {
                u32::MAX
            } else {
                p.ops.iter().fold(0, |m, op| m | 1 << op_number(*op))
            };
            *wanted.entry(hash).or_default() |= mask;
        }
        let mut there = self
            .maps
            .watched
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (hash, mask) in &wanted {
            update(
                &self.maps.watched_paths,
                "watched_paths",
                &hash.to_ne_bytes(),
                &mask.to_ne_bytes(),
            )?;
            there.insert(*hash);
        }
        let missing: Vec<u64> = there
            .iter()
            .filter(|h| !wanted.contains_key(h))
            .copied()
            .collect();
        for hash in missing {
            let _ = self.maps.watched_paths.delete(&hash.to_ne_bytes());
            there.remove(&hash);
        }
        Ok(())
    }

    /// Every first-level entry becomes a miss.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn bump_generation(&self) -> Result<(), SensorError> {
        let zero = 0u32.to_ne_bytes();
        let mut data = self
            .maps
            .data
            .lookup(&zero, MapFlags::ANY)
            .ok()
            .flatten()
            .unwrap_or_else(|| vec![0; self.maps.data.value_size() as usize]);
        let generation = data
            .get(..4)
            .map_or(0, |b| u32::from_ne_bytes(b.try_into().expect("four bytes")));
        if let Some(first) = data.get_mut(..4) {
            first.copy_from_slice(&generation.wrapping_add(1).to_ne_bytes());
        }
        update(&self.maps.data, "data", &zero, &data)
    }

    /// An emitted event was lost later: the next one is emitted again.
    ///
    /// # Errors
    /// Never for an entry that is not there.
    pub fn forget(&self, dict: &[u8; 48]) -> Result<(), SensorError> {
        let _ = self.maps.l1.delete(dict);
        Ok(())
    }

    /// What an emitted event stands for is emitted every time from now on, within the container's
    /// quota. `false`: the dictionary does not remember it (yet, or any more).
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn emit_again(&self, dict: &[u8; 48]) -> Result<bool, SensorError> {
        self.mark(dict, WATCH)
    }

    /// The same of an opened file, but only where the program's own path goes up (`..`). One that is
    /// emitted every time stays so.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn emit_upward(&self, dict: &[u8; 48]) -> Result<bool, SensorError> {
        self.mark(dict, UPWARD)
    }

    fn mark(&self, dict: &[u8; 48], wanted: u32) -> Result<bool, SensorError> {
        let found = self.maps.l1.lookup(dict, MapFlags::ANY).ok().flatten();
        let Some((state, rest)) = found.as_deref().and_then(|v| v.split_first_chunk::<4>()) else {
            return Ok(false);
        };
        match u32::from_ne_bytes(*state) {
            state if state == WATCH || state == wanted => return Ok(true),
            // its second phase would overwrite what is written here
            PENDING => return Ok(false),
            _ => {}
        }
        let value = [&wanted.to_ne_bytes()[..], rest].concat();
        match self.maps.l1.update(dict, &value, MapFlags::EXIST) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(SensorError::Map {
                operation: "update",
                map: "l1",
                source,
            }),
        }
    }

    /// Dense counters from `first`, cumulative.
    pub fn counts(&self, first: u32, len: u32) -> Vec<u64> {
        (first..first.saturating_add(len))
            .map(|i| self.maps.dense.counter(i as usize))
            .collect()
    }

    /// Tells the kernel which script an interpreter runs, once its arguments are known here.
    pub(crate) fn note_script(&self, event: &Event) {
        let EventKind::Exec(exec) = &event.kind else {
            return;
        };
        if exec.script.is_empty()
            && !wire::is_interpreter(&exec.exe)
            && !wire::is_interpreter(&event.process.comm)
        {
            return;
        }
        let script = self.maps.key.script(&exec.script);
        let _ = self.maps.scripts.update(
            &event.process.key.start.0.to_ne_bytes(),
            &script.to_ne_bytes(),
            MapFlags::ANY,
        );
    }
}
