//! Reads the in-kernel recorder (`bpf/recorder.h`): what a container did in the last minutes.
//!
//! Promises: an entry is handed over only when it was read whole (its position was the same before
//! and after); what is missing is counted; chunks of containers that have gone come back.

use crate::api::{Reading, RecorderState, Use};
use crate::hash::Key;
use crate::objects::Objects;
use crate::region::Region;
use crate::skel::types;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use plimsoll_model::BootNs;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries in a chunk (`RECORDER_CHUNK`).
pub(crate) const CHUNK: u64 = 256;
/// Chunks that one container can own (`RECORDER_SLOTS`).
const SLOTS: u64 = 32;
/// Chunks that any container gets while the reserve lasts (`RECORDER_LEAST`).
const LEAST: u32 = 2;
/// Bytes of an entry.
pub(crate) const ENTRY: u32 = 32;
/// Shift of the boot clock to epochs (`EPOCH_SHIFT`).
const EPOCH_SHIFT: u32 = 30;
/// Shift of `recorder_entry.when` to nanoseconds.
const WHEN_SHIFT: u32 = 23;
/// A container that has gone is kept this long: its alert may still be on the way.
const GONE_KEPT_NS: u64 = 120_000_000_000;
/// A cgroup that was no container's; long enough for programs that are still running.
const IGNORED_KEPT_NS: u64 = 1_000_000_000;

/// Chunks in all, and those of them that are held back for newcomers.
pub(crate) fn chunks(bytes: u32) -> (u32, u32) {
    let all = bytes / (ENTRY * CHUNK as u32);
    (all, all / 4)
}

/// The maps of the recorder.
pub(crate) struct Recorder {
    entries: Region,
    variables: Region,
    recorders: MapHandle,
    spare: MapHandle,
    reserved: MapHandle,
    streams: MapHandle,
    chunks: u32,
    /// Roots whose chunks come back, with the boot time when they do.
    leaving: Mutex<HashMap<u64, u64>>,
    /// Root cgroups that stream, and the last id given out.
    streaming: Mutex<(HashSet<u64>, u32)>,
}

impl Recorder {
    /// Fills the queues of free chunks, unless programs have run with them already (`fresh`).
    pub(crate) fn new(objects: &Objects, bytes: u32, fresh: bool) -> libbpf_rs::Result<Self> {
        let (all, held) = chunks(bytes);
        let entries = objects.map("recorder_entries")?;
        let variables = objects.map("bss")?;
        let len = (entries.max_entries() * ENTRY) as usize;
        let section = variables.value_size() as usize;
        let it = Recorder {
            entries: Region::new(&entries, len, false).map_err(libbpf_rs::Error::from)?,
            variables: Region::new(&variables, section, true).map_err(libbpf_rs::Error::from)?,
            recorders: objects.map("recorders")?,
            spare: objects.map("spare_chunks")?,
            reserved: objects.map("reserved_chunks")?,
            streams: objects.map("streams")?,
            chunks: all,
            leaving: Mutex::default(),
            streaming: Mutex::default(),
        };
        for chunk in 0..if fresh { all } else { 0 } {
            let queue = if chunk < held {
                &it.reserved
            } else {
                &it.spare
            };
            queue.update(&[], &chunk.to_ne_bytes(), MapFlags::ANY)?;
        }
        it.set_quota(it.recorders.keys().count() as u64);
        Ok(it)
    }

    /// After a change of agents: nobody streams, and chunks of whoever has gone meanwhile come back.
    pub(crate) fn take_over(&self, lives: impl Fn(u64) -> bool, now: BootNs) {
        self.set_streaming(&HashSet::new());
        // what the ring still holds of streams before carries other ids than those that follow
        self.streaming().1 = (now.0 >> 20) as u32;
        for key in self.streams.keys() {
            let _ = self.streams.delete(&key);
        }
        for key in self.recorders.keys() {
            let root = u64::from_ne_bytes(key.try_into().unwrap_or_default());
            if !lives(root) {
                self.leave(root, now, true);
            }
        }
    }

    /// Moves the epoch on.
    pub(crate) fn note_time(&self, now: BootNs) {
        let at = std::mem::offset_of!(types::bss, epoch);
        self.variables.set_word(at, (now.0 >> EPOCH_SHIFT) as u32);
    }

    fn set_quota(&self, containers: u64) {
        let quota = u64::from(self.chunks) / (2 * containers.max(1));
        let quota = quota.clamp(u64::from(LEAST), SLOTS) as u32;
        let quota = if self.chunks == 0 { 0 } else { quota };
        let at = std::mem::offset_of!(types::bss, recorder_quota);
        self.variables.set_word(at, quota);
    }

    fn recorder(&self, root: u64) -> Option<types::recorder> {
        let found = self.recorders.lookup(&root.to_ne_bytes(), MapFlags::ANY);
        let mut recorder = types::recorder::default();
        crate::maps::copy_into(&mut recorder, &found.ok()??);
        Some(recorder)
    }

    /// What the recorder holds of a container from position `from` on.
    pub(crate) fn read(&self, root: u64, from: u64) -> Option<Reading> {
        let recorder = self.recorder(root)?;
        let mut recording = Reading {
            next: recorder.pos,
            dropped: recorder.dropped,
            ..Reading::default()
        };
        let (last, held) = (recorder.pos / CHUNK, SLOTS.min(recorder.pos / CHUNK + 1));
        for lap in last + 1 - held..=last {
            let slot = &recorder.slots[(lap % SLOTS) as usize];
            if slot.chunk == 0 || slot.lap != lap as u32 || slot.chunk > self.chunks {
                continue;
            }
            recording.first.get_or_insert((lap * CHUNK).max(from));
            for pos in (lap * CHUNK).max(from)..((lap + 1) * CHUNK).min(recorder.pos) {
                let index = u64::from(slot.chunk - 1) * CHUNK + pos % CHUNK;
                match self.entry(index as usize * ENTRY as usize, pos as u32) {
                    Some(entry) => recording.uses.push(Use { pos, ..entry }),
                    None => recording.missing += 1,
                }
            }
        }
        // what was written over before anybody read it
        let first = recording.first.unwrap_or(recorder.pos);
        recording.overwritten = first.saturating_sub(from);
        Some(recording)
    }

    fn entry(&self, at: usize, pos: u32) -> Option<Use> {
        let read = || -> [u32; 8] { std::array::from_fn(|i| self.entries.word(at + 4 * i)) };
        let words = read();
        std::sync::atomic::fence(Ordering::Acquire);
        (words[0] == pos && self.entries.word(at) == pos).then(|| decode(words))
    }

    /// A container is watched: its chunks stay.
    pub(crate) fn keep(&self, root: u64) {
        self.leaving().remove(&root);
    }

    /// A container has gone, or was none: its chunks come back later.
    pub(crate) fn leave(&self, root: u64, now: BootNs, was_container: bool) {
        let kept = if was_container {
            GONE_KEPT_NS
        } else {
            IGNORED_KEPT_NS
        };
        self.leaving().insert(root, now.0 + kept);
    }

    fn leaving(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a second: takes chunks back, and shares them among those who are there.
    pub(crate) fn tick(&self, now: BootNs) {
        let due: Vec<u64> = {
            let mut leaving = self.leaving();
            let due = leaving.iter().filter(|(_, at)| **at <= now.0);
            let due: Vec<u64> = due.map(|(root, _)| *root).collect();
            for root in &due {
                leaving.remove(root);
            }
            due
        };
        for root in due {
            self.free(root);
        }
        self.set_quota(self.recorders.keys().count() as u64);
    }

    fn free(&self, root: u64) {
        self.stop_stream(root);
        let Some(recorder) = self.recorder(root) else {
            return;
        };
        let _ = self.recorders.delete(&root.to_ne_bytes());
        for slot in recorder.slots {
            let Some(chunk) = slot.chunk.checked_sub(1) else {
                continue;
            };
            let chunk = chunk.to_ne_bytes();
            if self.reserved.update(&[], &chunk, MapFlags::ANY).is_err() {
                let _ = self.spare.update(&[], &chunk, MapFlags::ANY);
            }
        }
    }

    /// From now on each use of a first-level entry of this container comes as a stream entry, until
    /// [`Self::stop_stream`]. The id that they carry.
    pub(crate) fn start_stream(&self, root: u64) -> libbpf_rs::Result<u32> {
        let mut streaming = self.streaming();
        streaming.1 = streaming.1.wrapping_add(1).max(1);
        let stream = types::stream {
            id: streaming.1,
            ..types::stream::default()
        };
        let bytes = crate::maps::bytes_of(&stream);
        self.streams
            .update(&root.to_ne_bytes(), bytes, MapFlags::ANY)?;
        streaming.0.insert(root);
        self.set_streaming(&streaming.0);
        Ok(stream.id)
    }

    /// Ends the stream of a container; how many entries its ring had no room for.
    pub(crate) fn stop_stream(&self, root: u64) -> u64 {
        let mut streaming = self.streaming();
        if !streaming.0.remove(&root) {
            return 0;
        }
        self.set_streaming(&streaming.0);
        let root = root.to_ne_bytes();
        let last = self.streams.lookup(&root, MapFlags::ANY).ok().flatten();
        let _ = self.streams.delete(&root);
        let mut stream = types::stream::default();
        crate::maps::copy_into(&mut stream, &last.unwrap_or_default());
        stream.lost
    }

    fn streaming(&self) -> MutexGuard<'_, (HashSet<u64>, u32)> {
        self.streaming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_streaming(&self, roots: &HashSet<u64>) {
        let at = std::mem::offset_of!(types::bss, streaming);
        self.variables.set_word(at, roots.len() as u32);
    }

    /// What the recorder holds, for `status`.
    pub(crate) fn state(&self) -> RecorderState {
        let mut state = RecorderState {
            bytes: u64::from(self.chunks) * CHUNK * u64::from(ENTRY),
            ..RecorderState::default()
        };
        for key in self.recorders.keys() {
            let Ok(root) = <[u8; 8]>::try_from(key.as_slice()) else {
                continue;
            };
            let root = u64::from_ne_bytes(root);
            let Some(recorder) = self.recorder(root) else {
                continue;
            };
            state.used += u64::from(recorder.owned) * CHUNK * u64::from(ENTRY);
            state.dropped += recorder.dropped;
            let (last, held) = (recorder.pos / CHUNK, SLOTS.min(recorder.pos / CHUNK + 1));
            let oldest = (last + 1 - held..=last).find_map(|lap| {
                let slot = &recorder.slots[(lap % SLOTS) as usize];
                (slot.chunk != 0 && slot.lap == lap as u32).then_some((lap, slot.chunk))
            });
            if let Some((lap, chunk)) = oldest {
                let at = (chunk - 1) as usize * (CHUNK as usize * ENTRY as usize);
                let entry = self.entry(at, (lap * CHUNK) as u32);
                state
                    .spans
                    .extend(entry.map(|e| (root, e.at, recorder.pos)));
            }
        }
        state
    }
}

/// The words of a `struct recorder_entry`.
pub(crate) fn decode(words: [u32; 8]) -> Use {
    Use {
        pos: u64::from(words[0]),
        at: BootNs(u64::from(words[1]) << WHEN_SHIFT),
        dense: words[2],
        count: words[3],
        tgid: words[4],
        kind: (words[5] >> 16) as u16,
        operation: (words[5] >> 8) as u8,
        key: u64::from(words[6]) | u64::from(words[7]) << 32,
    }
}

/// A stream entry from its bytes; `pos` is the id of the stream.
pub(crate) fn decode_bytes(bytes: &[u8]) -> Option<Use> {
    let bytes: &[u8; ENTRY as usize] = bytes.try_into().ok()?;
    let word = |i: usize| {
        let four = &bytes[4 * i..4 * i + 4];
        u32::from_ne_bytes(four.try_into().expect("four bytes"))
    };
    Some(decode(std::array::from_fn(word)))
}

/// `recorder_entry.key` of a first-level key (`l1_key`).
pub(crate) fn key_of(key: &Key, dict: &[u8; 48]) -> u64 {
    let word = |at: usize| u64::from_ne_bytes(dict[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_ne_bytes(dict[at..at + 4].try_into().expect("four bytes"));
    key.words(&[
        word(0) ^ word(8),
        word(16),
        word(24) ^ word(32),
        u64::from(half(40)) << 32 | u64::from(half(44)),
    ])
}
