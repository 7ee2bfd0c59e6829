//! A disk in memory that can run full, fail, write short, and forget at a crash what was
//! not synced; and a clock that stands still until told.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use plimsoll_evidence::{
    Clock, DirItem, Disk, DiskFile, InstanceKey, Journal, OpenMode, Options, Reader, Record,
    Recovery, RetentionClass, Tail,
};

pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EIO: i32 = 5;

#[derive(Clone)]
enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Clone, Default)]
struct Node {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Op>,
    reserved: usize,
}

impl Node {
    fn apply(bytes: &mut Vec<u8>, op: &Op) {
        match op {
            Op::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Op::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Node>>>;

#[derive(Default)]
struct State {
    names: Names,
    durable_names: Names,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Bytes that files may still grow by.
    room: Option<u64>,
    fail_sync: Option<String>,
    fail_write: Option<String>,
    /// Of files whose path contains the first, what lies from the second on.
    fail_read: Option<(String, usize)>,
    short_writes: bool,
    syncs: u64,
    /// Files opened, and readings of them.
    opened: u64,
    read: u64,
    /// Files synced, in order.
    synced: Vec<PathBuf>,
    held_sync: Option<HeldSync>,
}

/// The next sync of a file whose path contains `of`: says that it has begun, and waits.
struct HeldSync {
    of: String,
    begun: Sender<()>,
    go: Receiver<()>,
}

/// The faulty disk; clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// xorshift64*: small, seeded, enough for choosing faults.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % n.max(1)
    }
}

impl SimDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    pub(crate) fn fail_sync(&self, of: Option<&str>) {
        self.state().fail_sync = of.map(str::to_owned);
    }

    pub(crate) fn fail_write(&self, to: Option<&str>) {
        self.state().fail_write = to.map(str::to_owned);
    }

    /// What lies from `from` on in files whose path contains `of` cannot be read.
    pub(crate) fn fail_read(&self, of: &str, from: usize) {
        self.state().fail_read = Some((of.to_owned(), from));
    }

    pub(crate) fn write_short(&self) {
        self.state().short_writes = true;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Files opened, and readings of them.
    pub(crate) fn opened_and_read(&self) -> (u64, u64) {
        let state = self.state();
        (state.opened, state.read)
    }

    /// How often files whose path contains `part` were synced.
    pub(crate) fn syncs_of(&self, part: &str) -> usize {
        let state = self.state();
        let hit = |path: &&PathBuf| path.to_string_lossy().contains(part);
        state.synced.iter().filter(hit).count()
    }

    /// Holds the next sync of a file whose path contains `of`: the first end tells that it has begun, it
    /// goes on when the second is dropped.
    pub(crate) fn hold_sync(&self, of: &str) -> (Receiver<()>, Sender<()>) {
        let ((begun, begins), (let_go, go)) = (channel(), channel());
        let of = of.to_owned();
        self.state().held_sync = Some(HeldSync { of, begun, go });
        (begins, let_go)
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub(crate) fn path_ending(&self, end: &str) -> PathBuf {
        let paths = self.paths();
        let mut found = paths.iter().filter(|p| p.to_string_lossy().ends_with(end));
        found
            .next_back()
            .unwrap_or_else(|| panic!("no {end} in {paths:?}"))
            .clone()
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.state().names[path].lock().unwrap().live.clone()
    }

    /// Looks at what becomes of a file's bytes, live and durable, also after its removal.
    pub(crate) fn keep_open(&self, path: &Path) -> impl Fn() -> (Vec<u8>, Vec<u8>) + use<> {
        let node = self.state().names[path].clone();
        move || {
            let node = node.lock().unwrap();
            (node.live.clone(), node.durable.clone())
        }
    }

    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let node = Node {
            live: bytes.clone(),
            durable: bytes,
            ..Node::default()
        };
        let node = Arc::new(Mutex::new(node));
        let mut state = self.state();
        state.names.insert(path.to_path_buf(), node.clone());
        state.durable_names.insert(path.to_path_buf(), node);
    }

    pub(crate) fn delete(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Another disk with the same live contents, as after `kill -9`.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::default();
        let state = self.state();
        copy.state().dirs = state.dirs.clone();
        for (path, node) in &state.names {
            copy.put(path, node.lock().unwrap().live.clone());
        }
        copy
    }

    /// Another disk as after a power loss: what was synced is there; of the rest, writes
    /// are there wholly, partly or not, in any combination.
    pub(crate) fn power_loss(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let after = Self::default();
        let state = self.state();
        after.state().dirs = state.dirs.clone();
        let mut names = state.durable_names.clone();
        let all: BTreeSet<_> = state
            .names
            .keys()
            .chain(state.durable_names.keys())
            .collect();
        for path in all {
            if dice.below(2) == 0 {
                match state.names.get(path) {
                    Some(node) => names.insert(path.clone(), node.clone()),
                    None => names.remove(path),
                };
            }
        }
        for (path, node) in names {
            after.put(&path, survivors(&node.lock().unwrap(), &mut dice));
        }
        after
    }
}

fn survivors(node: &Node, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = node.durable.clone();
    for op in &node.pending {
        match (dice.below(3), op) {
            (0, _) => {}
            (1, Op::Write(at, data)) => {
                let from = dice.below(data.len() + 1);
                let to = from + dice.below(data.len() - from + 1);
                Node::apply(&mut bytes, &Op::Write(at + from, data[from..to].to_vec()));
            }
            (_, op) => Node::apply(&mut bytes, op),
        }
    }
    bytes
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let node = match (state.names.get(path), mode) {
            (Some(node), _) => node.clone(),
            (None, OpenMode::Create) => {
                if state.room == Some(0) {
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
                let node = Arc::<Mutex<Node>>::default();
                state.names.insert(path.to_path_buf(), node.clone());
                node
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        state.opened += 1;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            node,
            path: path.to_path_buf(),
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let in_dir = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let dirs = state.dirs.iter().filter(in_dir);
        let dirs = dirs.map(|d| DirItem {
            name: name(d),
            bytes: 0,
            is_file: false,
        });
        let files = state
            .names
            .iter()
            .filter(|(path, _)| in_dir(path))
            .map(|(path, node)| {
                let bytes = node.lock().unwrap().live.len() as u64;
                DirItem {
                    name: name(path),
                    bytes,
                    is_file: true,
                }
            });
        Ok(dirs.chain(files).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        for dir in dir
            .ancestors()
            .filter(|dir| dir.starts_with(DIR) || dir.starts_with(KEYS))
        {
            state.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        let freed = node.lock().unwrap().live.len() as u64;
        state.room = state.room.map(|room| room + freed);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let full = state.names.keys().any(|path| path.starts_with(dir));
        if full || !state.dirs.remove(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let keep = |path: &PathBuf| path.parent() == Some(dir);
        let live: Names = state
            .names
            .iter()
            .filter(|(p, _)| keep(p))
            .map(|(p, n)| (p.clone(), n.clone()))
            .collect();
        state.durable_names.retain(|path, _| !keep(path));
        state.durable_names.extend(live);
        Ok(())
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Option<Box<dyn Send>>> {
        if !self.state().locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        self.put(path, note.as_bytes().to_vec());
        Ok(Some(Box::new(SimLock(self.clone(), path.to_path_buf()))))
    }
}

struct SimLock(SimDisk, PathBuf);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

struct SimFile {
    disk: SimDisk,
    node: Arc<Mutex<Node>>,
    path: PathBuf,
}

impl SimFile {
    fn hits(&self, fault: Option<&String>) -> io::Result<()> {
        let hit = fault.is_some_and(|part| self.path.to_string_lossy().contains(part.as_str()));
        if hit {
            Err(io::Error::from_raw_os_error(EIO))
        } else {
            Ok(())
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.read += 1;
        let node = self.node.lock().unwrap();
        let at = usize::try_from(offset).unwrap().min(node.live.len());
        let n = buf.len().min(node.live.len() - at);
        if let Some((of, from)) = &state.fail_read
            && self.path.to_string_lossy().contains(of)
            && at + n > *from
        {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        buf[..n].copy_from_slice(&node.live[at..at + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        self.hits(state.fail_write.as_ref())?;
        let mut node = self.node.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let mut n = bytes.len();
        if state.short_writes && n > 1 {
            n = n.div_ceil(2);
        }
        let owned = node.live.len().max(node.reserved);
        let growth = (at + n).saturating_sub(owned);
        if let Some(room) = state.room {
            let fits = usize::try_from(room).unwrap();
            if growth > fits {
                n -= growth - fits;
            }
            if n == 0 {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            state.room = Some(room - (at + n).saturating_sub(owned) as u64);
        }
        let op = Op::Write(at, bytes[..n].to_vec());
        Node::apply(&mut node.live, &op);
        node.pending.push(op);
        Ok(n)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut node = self.node.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        let freed = node.live.len().saturating_sub(len) as u64;
        state.room = state.room.map(|room| room + freed);
        Node::apply(&mut node.live, &Op::SetLen(len));
        node.pending.push(Op::SetLen(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.node.lock().unwrap().live.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let held = {
            let held = &mut self.disk.state().held_sync;
            held.take_if(|held| self.path.to_string_lossy().contains(&held.of))
        };
        if let Some(held) = held {
            held.begun.send(()).unwrap();
            assert!(held.go.recv().is_err(), "waits until the test lets go");
        }
        let mut state = self.disk.state();
        state.syncs += 1;
        state.synced.push(self.path.clone());
        self.hits(state.fail_sync.as_ref())?;
        let mut node = self.node.lock().unwrap();
        node.durable = node.live.clone();
        node.pending.clear();
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut node = self.node.lock().unwrap();
        let wanted = len.saturating_sub(node.live.len() as u64);
        if state.room.is_some_and(|room| room < wanted) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        state.room = state.room.map(|room| room - wanted);
        node.reserved = usize::try_from(len).unwrap();
        let grown = Op::SetLen(node.live.len().max(node.reserved));
        Node::apply(&mut node.live, &grown);
        node.pending.push(grown);
        Ok(())
    }
}

/// A clock that a test moves.
#[derive(Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall_ns(&self) -> i64 {
        1_700_000_000_000_000_000 + i64::try_from(self.boot_ns()).unwrap()
    }

    fn boot_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) const DIR: &str = "/j";
pub(crate) const KEYS: &str = "/k";

/// A disk, a clock and how to open the journal on them.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) subtree_leaves: u32,
    pub(crate) boot_id: [u8; 16],
    pub(crate) emergency_bytes: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(SimDisk::default())
    }

    pub(crate) fn on(disk: SimDisk) -> Self {
        let clock = Arc::default();
        Self {
            disk,
            clock,
            subtree_leaves: 8,
            boot_id: [1; 16],
            emergency_bytes: 16 << 10,
        }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new("node-1");
        options.subtree_leaves = self.subtree_leaves;
        options.emergency_bytes = self.emergency_bytes;
        options.boot_id = self.boot_id;
        options.disk = Arc::new(self.disk.clone());
        options.clock = self.clock.clone();
        options.entropy = seeded_entropy(7);
        options
    }

    pub(crate) fn open(&self) -> (Journal, Recovery) {
        Journal::open(DIR, self.options()).expect("the journal opens")
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader::open_on(Arc::new(self.disk.clone()), DIR, Tail::Durable).expect("readable")
    }

    /// The same on what is left after a power loss.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Self {
        Self {
            disk: self.disk.power_loss(seed),
            ..self.clone()
        }
    }

    /// The same as a killed process leaves it.
    pub(crate) fn after_kill(&self) -> Self {
        Self {
            disk: self.disk.copy(),
            ..self.clone()
        }
    }
}

pub(crate) fn seeded_entropy(seed: u64) -> plimsoll_evidence::Entropy {
    let mut dice = Dice::new(seed);
    Box::new(move |buf| {
        buf.iter_mut()
            .for_each(|byte| *byte = u8::try_from(dice.below(256)).unwrap());
        Ok(())
    })
}

/// A process that is gone: nothing of it runs any more, not even its `Drop`.
pub(crate) fn vanish(journal: Journal) {
    std::mem::forget(journal);
}

pub(crate) fn key(n: u8) -> InstanceKey {
    InstanceKey([n; 16])
}

pub(crate) fn observation(n: u64) -> Record {
    let payload = format!("observation {n}").into_bytes();
    Record::new(2, RetentionClass::OBSERVATION, payload)
        .about(key(u8::try_from(n % 5).unwrap()))
        .at(1000 + i64::try_from(n).unwrap(), n)
}

pub(crate) fn alert(n: u64) -> Record {
    Record::new(1, RetentionClass::ALERT, format!("alert {n}").into_bytes())
        .about(key(9))
        .at(1000 + i64::try_from(n).unwrap(), n)
}
