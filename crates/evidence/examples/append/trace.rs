//! Where the time of an alert goes: a disk that notes what it does, and how long threads waited for a
//! processor meanwhile.
//!
//! Beside the thread that syncs, those of the kernel that it waits for are looked at: `jbd2`, which commits
//! the metadata of a file that has grown, and the workers of the block layer, which pass on each flush.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_evidence::{DirItem, Disk, DiskFile, OpenMode, RealDisk};

/// What is remembered; an alert is looked at as soon as it is durable.
const OPS_MAX: usize = 4096;

/// A write or a sync.
#[derive(Clone)]
pub(crate) struct Op {
    sync: bool,
    /// Of a checkpoint or a tile: nobody waits for it.
    beside: bool,
    from: Instant,
    to: Instant,
    /// How long its thread and those of the kernel could have run and had no processor.
    waited: Duration,
    kernel_waited: Duration,
}

/// The machine's disk, with notes.
pub(crate) struct TracedDisk {
    disk: RealDisk,
    notes: Arc<Notes>,
}

struct Notes {
    ops: Mutex<VecDeque<Op>>,
    /// `schedstat` of the kernel's threads.
    kernel: Vec<PathBuf>,
}

impl TracedDisk {
    pub(crate) fn new() -> Self {
        let notes = Notes {
            ops: Mutex::default(),
            kernel: kernel_threads(),
        };
        Self {
            disk: RealDisk::default(),
            notes: Arc::new(notes),
        }
    }

    /// What was under way at any time from `from` on.
    pub(crate) fn since(&self, from: Instant) -> Vec<Op> {
        let ops = self.notes.ops.lock();
        let ops = ops.unwrap_or_else(std::sync::PoisonError::into_inner);
        ops.iter().filter(|op| op.to >= from).cloned().collect()
    }
}

impl Notes {
    fn note<T>(&self, sync: bool, path: &Path, run: impl FnOnce() -> T) -> T {
        let own = Path::new("/proc/thread-self/schedstat");
        let looks = || {
            let others = self.kernel.iter().map(|path| waited(path)).sum();
            (waited(own), others)
        };
        let (before, from): ((Duration, Duration), _) = (looks(), Instant::now());
        let result = run();
        let (to, after) = (Instant::now(), looks());
        let beside = ["tlog", "checkpoint", "tile"];
        let op = Op {
            sync,
            beside: beside.iter().any(|b| path.to_string_lossy().contains(b)),
            from,
            to,
            waited: after.0.saturating_sub(before.0),
            kernel_waited: after.1.saturating_sub(before.1),
        };
        let ops = self.ops.lock();
        let mut ops = ops.unwrap_or_else(std::sync::PoisonError::into_inner);
        if ops.len() == OPS_MAX {
            ops.pop_front();
        }
        ops.push_back(op);
        result
    }
}

fn kernel_threads() -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of = |path: &PathBuf| {
        let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        // `kworker/1:0H-kblockd`: the block layer's are among those of high priority
        comm.starts_with("jbd2/")
            || (comm.starts_with("kworker/")
                && comm
                    .split('-')
                    .next()
                    .is_some_and(|n| n.trim().ends_with('H')))
    };
    let found = processes.map(|p| p.path()).filter(of);
    found.map(|path| path.join("schedstat")).collect()
}

/// How long a thread could have run and had no processor, since it began.
fn waited(schedstat: &Path) -> Duration {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    let second = text.split_ascii_whitespace().nth(1);
    Duration::from_nanos(second.and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// An alert's way: handed over, taken by the journal's thread, durable, and known to be.
pub(crate) struct Way {
    pub(crate) handed: Instant,
    pub(crate) taken: Instant,
    pub(crate) durable: Instant,
    pub(crate) known: Instant,
    pub(crate) ops: Vec<Op>,
}

impl Way {
    pub(crate) fn took(&self) -> Duration {
        self.known - self.handed
    }

    /// What its time went into, in words.
    pub(crate) fn words(&self) -> String {
        let (before, own) = ((self.handed, self.taken), (self.taken, self.durable));
        format!(
            "{:6.2} ms: {:.2} until taken ({}); {:.2} its commit ({}); {:.2} until told",
            ms(self.took()),
            ms(self.taken - self.handed),
            self.parts(before),
            ms(self.durable - self.taken),
            self.parts(own),
            ms(self.known - self.durable),
        )
    }

    fn parts(&self, span: (Instant, Instant)) -> String {
        let within = |sync: bool| {
            let ops = self
                .ops
                .iter()
                .filter(move |op| op.sync == sync && !op.beside);
            // what was only begun or only ended within counts by its part within
            let part = move |op: &Op| {
                op.to
                    .min(span.1)
                    .saturating_duration_since(op.from.max(span.0))
            };
            ops.map(move |op| (part(op), op))
                .filter(|(part, _)| !part.is_zero())
        };
        let writes: Duration = within(false).map(|(part, _)| part).sum();
        let mut said = vec![format!("writes {:.2}", ms(writes))];
        // they go on at the same time: the longest is what is waited for
        if let Some((part, op)) = within(true).max_by_key(|(part, _)| *part) {
            let whole = within(true)
                .map(|(_, op)| op.waited)
                .max()
                .unwrap_or_default();
            said.push(format!(
                "syncs {:.2}, without a processor up to {:.2} of the journal's threads and {:.2} of the kernel's",
                ms(part),
                ms(whole),
                ms(op.kernel_waited),
            ));
        }
        said.join(", ")
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Disk for TracedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(TracedFile {
            file: self.disk.open(path, mode)?,
            path: path.to_path_buf(),
            notes: self.notes.clone(),
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.disk.list(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.names(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.notes.note(true, dir, || self.disk.sync_dir(dir))
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Option<Box<dyn Send>>> {
        self.disk.lock(path, note)
    }
}

struct TracedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    notes: Arc<Notes>,
}

impl DiskFile for TracedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let write = || self.file.write_at(bytes, offset);
        self.notes.note(false, &self.path, write)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.notes.note(true, &self.path, || self.file.sync_data())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
}
