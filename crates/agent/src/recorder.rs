//! From the in-kernel recorder to the journal: what a container did before its alert, and after.
//!
//! Promises: an alert reads its container's recorder at once; from then on the container streams
//! in full until a time or a number of uses is reached; what could not be kept is counted. What a
//! counter stands for is remembered from the event that brought it, within bounds; a use whose
//! behaviour is not known any more is kept with its kind.

use crate::kernel::Kernel;
use plimsoll_model::{
    Behaviour, BehaviourKind, BootNs, Event, Instance, Recorded, Recording, Stamp, Used,
};
use plimsoll_sensor::api::Use;
use std::collections::HashMap;
use std::sync::Arc;

/// Numbers and keys whose behaviour is remembered, each.
const NAMES_MAX: usize = 1 << 16;
/// Uses in one record; more make several.
const USES_MAX: usize = 4096;
/// A container's recorder is read at most this often.
const AGAIN_NS: u64 = 2_000_000_000;
/// Containers that stream at the same time.
const STREAMS_MAX: usize = 32;
/// How long uses of a stream wait for their record.
const STREAM_FLUSH_NS: u64 = 1_000_000_000;

/// How much follows an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A container streams for this long after its last alert.
    pub stream_ns: u64,
    /// Uses that one stream hands over at most.
    pub stream_uses: u32,
}

/// What is remembered of a container.
struct Taken {
    /// Position from which the next reading starts.
    next: u64,
    /// Uses that had found no room then.
    dropped: u64,
    /// When it was read last.
    at: Option<BootNs>,
    /// Another alert has come since.
    wanted: bool,
    stream: Option<Stream>,
}

struct Stream {
    id: u64,
    until: BootNs,
    left: u32,
    since: BootNs,
    uses: Vec<Use>,
}

/// The state.
pub struct Recorder {
    bounds: Bounds,
    numbers: HashMap<u32, (Instance, Arc<Behaviour>)>,
    keys: HashMap<u64, (Instance, Arc<Behaviour>)>,
    taken: HashMap<Instance, Taken>,
}

/// Where to ask while reading.
pub struct Sources<'a> {
    /// The kernel's maps.
    pub kernel: &'a dyn Kernel,
    /// Root cgroup of an instance.
    pub root: &'a dyn Fn(&Instance) -> Option<u64>,
    /// Behaviour by a number in the instance's own block of counters.
    pub in_block: &'a dyn Fn(&Instance, u32) -> Option<Behaviour>,
    /// Stamp of a boot time.
    pub stamp: &'a dyn Fn(BootNs) -> Stamp,
}

impl Recorder {
    /// Knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            numbers: HashMap::new(),
            keys: HashMap::new(),
            taken: HashMap::new(),
        }
    }

    /// Remembers what an event's counter stands for.
    pub fn note(
        &mut self,
        event: &Event,
        instance: &Instance,
        all: &[Behaviour],
        key: impl FnOnce(&[u8; 48]) -> u64,
    ) {
        let Some(behaviour) = all.first() else {
            return;
        };
        let named = || (instance.clone(), Arc::new(behaviour.clone()));
        if event.dense != 0 {
            if self.numbers.len() < NAMES_MAX {
                self.numbers.entry(event.dense).or_insert_with(named);
            }
        } else if let Some(dict) = &event.dict
            && self.keys.len() < NAMES_MAX
        {
            self.keys.insert(key(dict), named());
        }
    }

    /// An alert about this instance has been raised.
    pub fn want(&mut self, instance: &Instance) {
        let taken = self.taken.entry(instance.clone()).or_insert(Taken {
            next: 0,
            dropped: 0,
            at: None,
            wanted: true,
            stream: None,
        });
        taken.wanted = true;
    }

    /// An instance has gone, and so has what its counters stood for.
    pub fn bury(
        &mut self,
        gone: &[Instance],
        kernel: &dyn Kernel,
        root: impl Fn(&Instance) -> Option<u64>,
    ) {
        for instance in gone {
            let streams = self
                .taken
                .remove(instance)
                .is_some_and(|t| t.stream.is_some());
            if let (true, Some(root)) = (streams, root(instance)) {
                kernel.stop_stream(root);
            }
        }
        self.numbers.retain(|_, (i, _)| !gone.contains(i));
        self.keys.retain(|_, (i, _)| !gone.contains(i));
    }

    /// Uses that came in streams.
    pub fn streamed(&mut self, uses: Vec<Use>) {
        let mut by_id: HashMap<u64, Vec<Use>> = HashMap::new();
        for one in uses {
            by_id.entry(one.pos).or_default().push(one);
        }
        for stream in self.taken.values_mut().filter_map(|t| t.stream.as_mut()) {
            let Some(mut uses) = by_id.remove(&stream.id) else {
                continue;
            };
            uses.truncate(stream.left as usize);
            stream.left -= uses.len() as u32;
            stream.uses.append(&mut uses);
        }
    }

    /// Records that are due now; `all`: what is left of streams too.
    pub fn due(&mut self, now: BootNs, all: bool, from: &Sources<'_>) -> Vec<Recording> {
        let mut out = Vec::new();
        let active = |t: &Taken| t.wanted || t.stream.is_some();
        let taken = self.taken.iter().filter(|(_, t)| active(t));
        let instances: Vec<Instance> = taken.map(|(i, _)| i.clone()).collect();
        for instance in instances {
            let Some(root) = (from.root)(&instance) else {
                continue;
            };
            self.read(&instance, root, now, from, &mut out);
            self.flush(&instance, root, now, all, from, &mut out);
        }
        out
    }

    fn read(
        &mut self,
        instance: &Instance,
        root: u64,
        now: BootNs,
        from: &Sources<'_>,
        out: &mut Vec<Recording>,
    ) {
        let streams = self.taken.values().filter(|t| t.stream.is_some()).count();
        let Some(taken) = self.taken.get_mut(instance) else {
            return;
        };
        let early = |at: BootNs| now.0.saturating_sub(at.0) < AGAIN_NS;
        if !taken.wanted || taken.at.is_some_and(early) {
            return;
        }
        taken.wanted = false;
        taken.at = Some(now);
        let until = BootNs(now.0 + self.bounds.stream_ns);
        match &mut taken.stream {
            Some(stream) => stream.until = until,
            None if self.bounds.stream_ns == 0 || streams >= STREAMS_MAX => {}
            // first the stream, then the recorder: nothing falls between them
            none => {
                *none = from.kernel.start_stream(root).ok().map(|id| Stream {
                    id: u64::from(id),
                    until,
                    left: self.bounds.stream_uses,
                    since: now,
                    uses: Vec::new(),
                });
            }
        }
        let Some(found) = from.kernel.recording(root, taken.next) else {
            return;
        };
        let begun = taken.next == 0;
        taken.next = found.next;
        let counts = counts_of(&found.uses, from.kernel);
        let span = found.uses.first().map_or(now, |u| u.at);
        // a record that was opened long ago is no loss of this span
        let overwritten = if begun { found.overwritten } else { 0 };
        let dropped = found.dropped - std::mem::replace(&mut taken.dropped, found.dropped);
        let lost = found.missing + dropped + if begun { 0 } else { found.overwritten };
        for (i, part) in found.uses.chunks(USES_MAX).enumerate() {
            let from_at = if i == 0 { span } else { part[0].at };
            let counts = &counts[i * USES_MAX..];
            let first = i == 0;
            out.push(Recording {
                lost: if first { lost } else { 0 },
                overwritten: if first { overwritten } else { 0 },
                full: false,
                ..self.recording(instance, from_at, now, part, counts, from)
            });
        }
    }

    /// What a stream has brought, after a second or when it ends.
    fn flush(
        &mut self,
        instance: &Instance,
        root: u64,
        now: BootNs,
        all: bool,
        from: &Sources<'_>,
        out: &mut Vec<Recording>,
    ) {
        let Some(taken) = self.taken.get_mut(instance) else {
            return;
        };
        let Some(stream) = &mut taken.stream else {
            return;
        };
        let ended = all || stream.until <= now || stream.left == 0;
        if !ended && now.0.saturating_sub(stream.since.0) < STREAM_FLUSH_NS {
            return;
        }
        let (since, uses) = (stream.since, std::mem::take(&mut stream.uses));
        stream.since = now;
        let mut lost = 0;
        if ended {
            taken.stream = None;
            lost = from.kernel.stop_stream(root);
        }
        if uses.is_empty() && lost == 0 {
            return;
        }
        let parts = uses.len().div_ceil(USES_MAX).max(1);
        for i in 0..parts {
            let part = &uses[i * USES_MAX..((i + 1) * USES_MAX).min(uses.len())];
            let ones = vec![1; part.len()];
            out.push(Recording {
                lost: if i == 0 { lost } else { 0 },
                full: true,
                ..self.recording(instance, since, now, part, &ones, from)
            });
        }
    }

    fn recording(
        &self,
        instance: &Instance,
        begin: BootNs,
        end: BootNs,
        uses: &[Use],
        counts: &[u32],
        from: &Sources<'_>,
    ) -> Recording {
        let mut behaviours = Vec::new();
        let mut places: HashMap<(u32, u64, u16), u32> = HashMap::new();
        // the clock of an entry is coarse: it may lie a little before the span
        let begin = BootNs(uses.iter().map(|u| u.at.0).fold(begin.0, u64::min));
        let uses = uses.iter().zip(counts).map(|(u, count)| {
            let what = *places.entry((u.dense, u.key, u.kind)).or_insert_with(|| {
                behaviours.push(self.name(instance, u, from));
                behaviours.len() as u32 - 1
            });
            Used {
                after_ms: ((u.at.0 - begin.0) / 1_000_000)
                    .try_into()
                    .unwrap_or(u32::MAX),
                tgid: u.tgid,
                what,
                count: *count,
            }
        });
        let uses = uses.collect();
        Recording {
            instance: instance.clone(),
            from: (from.stamp)(begin),
            to: (from.stamp)(end),
            behaviours,
            uses,
            lost: 0,
            overwritten: 0,
            full: false,
        }
    }

    fn name(&self, instance: &Instance, one: &Use, from: &Sources<'_>) -> Recorded {
        let mine = |found: Option<&(Instance, Arc<Behaviour>)>| {
            found
                .filter(|(i, _)| i == instance)
                .map(|(_, b)| (**b).clone())
        };
        let behaviour = match one.dense {
            0 => mine(self.keys.get(&one.key)),
            n => mine(self.numbers.get(&n)).or_else(|| (from.in_block)(instance, n)),
        };
        let kind = behaviour
            .as_ref()
            .map_or_else(|| kind_of(one.kind), |b| b.kind);
        Recorded { kind, behaviour }
    }

    /// Behaviours that are remembered, for `status`.
    pub fn named(&self) -> usize {
        self.numbers.len() + self.keys.len()
    }

    /// Containers that stream now.
    pub fn streams(&self) -> usize {
        let streams = self.taken.values().filter(|t| t.stream.is_some());
        streams.count()
    }
}

/// How often each use stands for: what its counter counted until its next entry, or until now.
fn counts_of(uses: &[Use], kernel: &dyn Kernel) -> Vec<u32> {
    let mut next: HashMap<(u32, u64), u32> = HashMap::new();
    let mut counts: Vec<u32> = uses
        .iter()
        .rev()
        .map(|u| {
            let after = next.insert((u.dense, u.key), u.count);
            let after = after.or_else(|| {
                let now = kernel.counts(u.dense, 1).first().copied()?;
                (u.dense != 0).then_some((now as u32).wrapping_add(1))
            });
            // a counter without a number is only known at its entries
            after.map_or(1, |n| n.wrapping_sub(u.count).max(1))
        })
        .collect();
    counts.reverse();
    counts
}

/// The dimension of a `wire_kind` (`bpf/wire.h`).
fn kind_of(kind: u16) -> BehaviourKind {
    match kind {
        5 => BehaviourKind::Library,
        6 => BehaviourKind::Socket,
        7 => BehaviourKind::Connect,
        8 => BehaviourKind::Accept,
        9 => BehaviourKind::Listen,
        10 => BehaviourKind::Bind,
        11 => BehaviourKind::Datagram,
        12 => BehaviourKind::Dns,
        13 => BehaviourKind::Dup,
        14 => BehaviourKind::Namespace,
        15 => BehaviourKind::Mount,
        16 => BehaviourKind::Ptrace,
        17 => BehaviourKind::Module,
        18 => BehaviourKind::Bpf,
        19 => BehaviourKind::Credentials,
        20 => BehaviourKind::Syscall,
        21 => BehaviourKind::Memfd,
        25 => BehaviourKind::Rare,
        26 => BehaviourKind::Signal,
        _ => BehaviourKind::File,
    }
}
