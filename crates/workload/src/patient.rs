//! Reads of what a process can make slow: its memory, which stands behind `cmdline`. Pages of it may be
//! asked of a FUSE server or of the process itself (userfaultfd), which need not answer.
//!
//! Promises: nobody waits longer than [`PATIENCE`] for one of them, nor [`WAITS_MAX`] in a minute for
//! those that are late; a thread that hangs is left behind, [`HANGING_MAX`] at most, and beyond these
//! bounds nothing is read. Left out: ending a thread that hangs in the kernel, which nobody can.

use crate::scan::read_bounded;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Longest wait for one read.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait in a minute for reads that were late.
const WAITS_MAX: Duration = Duration::from_secs(5);
/// Threads that may hang.
const HANGING_MAX: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);

/// At most `max` bytes of a file; `None`: it cannot be read, or not in time.
pub(crate) fn read(path: PathBuf, max: u64) -> Option<Vec<u8>> {
    static READER: LazyLock<Reader> = LazyLock::new(|| Reader::new(PATIENCE));
    READER.read(path, max)
}

/// Reads one file after another, on threads that may be left behind.
struct Reader {
    patience: Duration,
    hanging: Arc<AtomicUsize>,
    inner: Mutex<Inner>,
}

struct Inner {
    worker: Option<Worker>,
    /// When the minute began, and how long was waited in vain since.
    minute: Instant,
    waited: Duration,
}

struct Worker {
    ask: mpsc::SyncSender<(PathBuf, u64)>,
    answers: mpsc::Receiver<Option<Vec<u8>>>,
}

impl Reader {
    fn new(patience: Duration) -> Self {
        Reader {
            patience,
            hanging: Arc::default(),
            inner: Mutex::new(Inner {
                worker: None,
                minute: Instant::now(),
                waited: Duration::ZERO,
            }),
        }
    }

    fn read(&self, path: PathBuf, max: u64) -> Option<Vec<u8>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.minute.elapsed() >= MINUTE {
            (inner.minute, inner.waited) = (Instant::now(), Duration::ZERO);
        }
        if inner.waited >= WAITS_MAX {
            return None;
        }
        let ready = match inner.worker.take() {
            Some(ready) => ready,
            None if self.hanging.load(Ordering::SeqCst) >= HANGING_MAX => return None,
            None => Worker::start(&self.hanging)?,
        };
        ready.ask.send((path, max)).ok()?;
        match ready.answers.recv_timeout(self.patience) {
            Ok(answer) => {
                inner.worker = Some(ready);
                answer
            }
            Err(_) => {
                inner.waited += self.patience;
                self.hanging.fetch_add(1, Ordering::SeqCst);
                None
            }
        }
    }
}

impl Worker {
    fn start(hanging: &Arc<AtomicUsize>) -> Option<Self> {
        let (ask, asked) = mpsc::sync_channel::<(PathBuf, u64)>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let hanging = Arc::clone(hanging);
        let work = move || {
            for (path, max) in asked {
                if answer.send(read_bounded(&path, max)).is_err() {
                    break;
                }
            }
            // it is let go only when it was late, and counted then
            hanging.fetch_sub(1, Ordering::SeqCst);
        };
        let thread = std::thread::Builder::new().name("proc-read".into());
        thread.spawn(work).ok()?;
        Some(Worker { ask, answers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_read_that_hangs_is_left_behind_and_the_next_is_answered() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), b"12345").expect("write");
        let reader = Reader::new(Duration::from_millis(20));
        let read = |name: &str| reader.read(at(name), 3);
        // however late a busy machine is, it comes in the end
        let eventually = |name: &str| {
            let end = Instant::now() + Duration::from_secs(60);
            while read(name) != Some(b"123".to_vec()) {
                reader.inner.lock().expect("it").waited = Duration::ZERO;
                assert!(Instant::now() < end, "{name} is never answered");
            }
        };
        eventually("file");
        assert_eq!(read("missing"), None);
        // nobody opens its other end
        let fifo = std::process::Command::new("mkfifo")
            .arg(at("fifo"))
            .status();
        assert!(fifo.expect("mkfifo").success());
        for _ in 0..HANGING_MAX + 2 {
            assert_eq!(read("fifo"), None);
        }
        let hanging = || reader.hanging.load(Ordering::SeqCst);
        assert_eq!(hanging(), HANGING_MAX);
        assert_eq!(read("file"), None, "no more than that many hang");
        // its other end, for each of them: all return
        while hanging() > 0 {
            use rustix::fs::{Mode, OFlags};
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            drop(rustix::fs::open(at("fifo"), flags, Mode::empty()));
            std::thread::sleep(Duration::from_millis(5));
        }
        eventually("file");
        reader.inner.lock().expect("it").waited = WAITS_MAX;
        assert_eq!(read("file"), None, "enough was waited for this minute");
    }
}
