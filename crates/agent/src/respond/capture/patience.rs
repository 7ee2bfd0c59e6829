//! Reads that may hang, carried out on threads of their own.
//!
//! Promises: whoever waits goes on after [`PATIENCE`], or sooner where many hang, whatever a FUSE
//! server or a stuck process does; a reader that nobody waits for any more is counted until it ends,
//! and beyond [`LEFT_BEHIND_MAX`] no more are begun; between the two sides there are never more than
//! [`AHEAD`] pieces. Left out: ending a thread that hangs in the kernel, which nobody can.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long one piece may take: a hung FUSE server or a stuck process must not hold us up.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// So much patience is left when [`HASTY`] reads hang already.
const HASTE: Duration = Duration::from_millis(200);
/// See [`HASTE`].
const HASTY: isize = 8;
/// Threads that may be left hanging before no more are begun, in all captures.
pub(super) const LEFT_BEHIND_MAX: isize = 128;
/// Pieces that a reader may be ahead.
const AHEAD: usize = 4;
/// Bytes of one text of `/proc`.
pub(super) const TEXT_MAX: u64 = 4 << 20;
/// Bytes of one piece of a file.
pub(super) const PIECE: usize = 1 << 20;

static LEFT_BEHIND: AtomicIsize = AtomicIsize::new(0);

/// What a thread gives, piece by piece.
pub(super) struct Feed<T> {
    pieces: mpsc::Receiver<T>,
    late: Arc<AtomicBool>,
}

/// Begins `work` on a thread of its own; it ends when it has given all, or nobody listens any more.
///
/// # Errors
/// When too many hang already, or no thread can be made.
pub(super) fn feed<T: Send + 'static>(
    work: impl FnOnce(&mpsc::SyncSender<T>) + Send + 'static,
) -> io::Result<Feed<T>> {
    if LEFT_BEHIND.load(Ordering::SeqCst) >= LEFT_BEHIND_MAX {
        return Err(io::Error::other("not tried: too many reads hang already"));
    }
    let (send, pieces) = mpsc::sync_channel(AHEAD);
    let late = Arc::new(AtomicBool::new(false));
    let left = Arc::clone(&late);
    std::thread::Builder::new()
        .name("capture-read".into())
        .spawn(move || {
            work(&send);
            if left.swap(true, Ordering::SeqCst) {
                LEFT_BEHIND.fetch_sub(1, Ordering::SeqCst);
            }
        })?;
    Ok(Feed { pieces, late })
}

impl<T> Feed<T> {
    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    /// `TimedOut` when it hangs; nothing more comes then.
    pub(super) fn next(&self) -> io::Result<Option<T>> {
        let patience = match LEFT_BEHIND.load(Ordering::SeqCst) {
            ..HASTY => PATIENCE,
            _ => HASTE,
        };
        match self.pieces.recv_timeout(patience) {
            Ok(piece) => Ok(Some(piece)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let what = format!("it did not answer within {patience:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            }
        }
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        // swapped on both sides, so that each that is counted is taken off once
        if !self.late.swap(true, Ordering::SeqCst) {
            LEFT_BEHIND.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Carries one read out and waits for it a bounded time.
///
/// # Errors
/// Its own, and `TimedOut`.
pub(super) fn within<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let feed = feed(move |send| drop(send.send(read())))?;
    match feed.next()? {
        Some(result) => result,
        None => Err(io::Error::other("the reading thread gave nothing")),
    }
}

/// A text of at most `max` bytes, opened and read with patience.
///
/// # Errors
/// Those of the file, and `TimedOut`.
pub(super) fn text(path: std::path::PathBuf, max: u64) -> io::Result<Vec<u8>> {
    within(move || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

/// Pieces of one file as a reader; ends early when they do.
pub(super) struct Pieces<'a> {
    next: &'a mut dyn FnMut() -> io::Result<Option<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl<'a> Pieces<'a> {
    /// Of whatever gives them.
    pub(super) fn new(next: &'a mut dyn FnMut() -> io::Result<Option<Vec<u8>>>) -> Self {
        Pieces {
            next,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.piece = (self.next)()?.unwrap_or_default();
            self.at = 0;
        }
        Ok(&self.piece[self.at..])
    }
    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_hangs_is_left_behind_and_counted_until_it_ends() {
        let (let_go, wait) = mpsc::channel::<()>();
        let before = std::time::Instant::now();
        let e = within(move || -> io::Result<()> {
            let _ = wait.recv();
            Ok(())
        });
        assert_eq!(e.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() < Duration::from_secs(30));
        assert!(LEFT_BEHIND.load(Ordering::SeqCst) >= 1);
        drop(let_go);
        while LEFT_BEHIND.load(Ordering::SeqCst) != 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_feed_ends_when_nobody_listens() {
        let (ended, wait) = mpsc::channel();
        let feed = feed(move |send| {
            while send.send(1).is_ok() {}
            let _ = ended.send(());
        });
        drop(feed.expect("a thread"));
        wait.recv().expect("the thread has ended");
    }
}
