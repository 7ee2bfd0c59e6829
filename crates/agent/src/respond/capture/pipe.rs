//! The way of a bundle's bytes to its file, each stage on a thread of its own.
//!
//! ```text
//! collector (reads, hashes artefacts) ─► encrypt (with recipients) ─► hash, write ─► write-back
//! ```
//!
//! Promises: the bytes are those of one stage after another; a stage that is ahead waits, so that there are
//! never more than [`BLOCKS`] blocks of [`BLOCK`] bytes between two; blocks are used again; the error
//! of a stage, with its kind (a full disk is one), is given to whoever writes next, and to
//! [`Pipe::finish`] at the latest, which alone says that everything has reached the file. Dropping it
//! waits for its threads. Left out: making it durable ([`super::bundle`]).

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Bytes of one block.
pub(super) const BLOCK: usize = 1 << 20;
/// Blocks between two stages, those in their hands included.
pub(super) const BLOCKS: usize = 6;
/// After so many bytes the disk is asked to take them.
const WRITE_BACK: u64 = 32 << 20;

/// SHA-256 of what reached the file.
pub(super) type Digested = [u8; 32];

/// Takes bytes; see the module.
pub(super) struct Pipe {
    lane: Option<Lane>,
    encrypts: Option<JoinHandle<io::Result<()>>>,
    writes: Option<JoinHandle<io::Result<Digested>>>,
    taken: u64,
    written: Arc<AtomicU64>,
    /// What went wrong first, for whoever asks again.
    failed: Option<(io::ErrorKind, String)>,
}

impl Pipe {
    /// Towards a file, from its start, which is at `path`; encrypted for the recipients of `encryptor`.
    ///
    /// # Errors
    /// When a thread cannot be made, or the file not be opened a second time.
    pub(super) fn new(
        file: &File,
        path: &Path,
        encryptor: Option<age::Encryptor>,
    ) -> io::Result<Self> {
        let written = Arc::new(AtomicU64::new(0));
        let (mut lane, blocks) = lane();
        let (to, counter) = (file.try_clone()?, Arc::clone(&written));
        let write_back = write_back(path)?;
        let writes = named("capture-file", move || {
            write(blocks, to, &counter, &write_back)
        })?;
        let mut encrypts = None;
        if let Some(encryptor) = encryptor {
            let (first, blocks) = self::lane();
            let next = std::mem::replace(&mut lane, first);
            encrypts = Some(named("capture-seal", move || {
                encrypt(blocks, encryptor.wrap_output(next)?)
            })?);
        }
        Ok(Pipe {
            lane: Some(lane),
            encrypts,
            writes: Some(writes),
            taken: 0,
            written,
            failed: None,
        })
    }

    /// Bytes that were taken and are not in the file yet, about (encryption adds some).
    pub(super) fn behind(&self) -> u64 {
        self.taken
            .saturating_sub(self.written.load(Ordering::Relaxed))
    }

    /// Waits until everything has reached the file; its digest.
    ///
    /// # Errors
    /// The first of any stage.
    pub(super) fn finish(mut self) -> io::Result<Digested> {
        self.flush()?;
        self.end()
    }

    /// Ends all stages, in their order. Where the last has failed, that is why the others did.
    fn end(&mut self) -> io::Result<Digested> {
        if let Some((kind, what)) = &self.failed {
            return Err(io::Error::new(*kind, what.clone()));
        }
        drop(self.lane.take());
        let encrypted = self.encrypts.take().map_or(Ok(()), joined);
        let written = self.writes.take().map_or(Err(gone()), joined);
        let all = written.and_then(|digest| encrypted.map(|()| digest));
        if let Err(e) = &all {
            self.failed = Some((e.kind(), format!("not written, after: {e}")));
        }
        all
    }

    /// What stopped the stages.
    fn cause(&mut self, seen: io::Error) -> io::Error {
        self.end().err().unwrap_or(seen)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let lane = self.lane.as_mut();
        match lane.map_or(Err(gone()), |l| l.write(bytes)) {
            Ok(n) => {
                self.taken += n as u64;
                Ok(n)
            }
            Err(e) => Err(self.cause(e)),
        }
    }

    /// Hands on what is at hand; that it arrived is told by [`Pipe::finish`].
    fn flush(&mut self) -> io::Result<()> {
        let lane = self.lane.as_mut();
        lane.map_or(Err(gone()), Write::flush)
            .map_err(|e| self.cause(e))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // whoever did not finish it does not want to know
        let _ = self.end();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the next stage has ended")
}

fn named<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
}

fn joined<T>(stage: JoinHandle<io::Result<T>>) -> io::Result<T> {
    let panicked = |_| Err(io::Error::other("a stage of the capture panicked"));
    stage.join().unwrap_or_else(panicked)
}

fn encrypt(blocks: Blocks, mut to: StreamWriter<Lane>) -> io::Result<()> {
    blocks.each(|block| to.write_all(block))?;
    to.finish()?.flush()
}

/// Hashes what reaches the file, so that the journal can name it.
fn write(
    blocks: Blocks,
    mut file: File,
    written: &AtomicU64,
    write_back: &mpsc::SyncSender<()>,
) -> io::Result<Digested> {
    let (mut hash, mut behind) = (Sha256::new(), 0);
    blocks.each(|block| {
        file.write_all(block)?;
        hash.update(block);
        written.fetch_add(block.len() as u64, Ordering::Relaxed);
        behind += block.len() as u64;
        if behind >= WRITE_BACK {
            behind = 0;
            // one that is busy comes to these bytes too
            let _ = write_back.try_send(());
        }
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

/// Has the disk work meanwhile: the sync at the end would otherwise wait for everything.
/// By a descriptor of its own, so that an error is still told to that last sync, which alone counts.
fn write_back(path: &Path) -> io::Result<mpsc::SyncSender<()>> {
    let file = OpenOptions::new().write(true).open(path)?;
    let (ask, asked) = mpsc::sync_channel(1);
    named("capture-write", move || {
        while asked.recv().is_ok() {
            let _ = file.sync_data();
        }
        Ok(())
    })?;
    Ok(ask)
}

/// One end of the way between two stages: fills blocks and hands them on.
struct Lane {
    block: Vec<u8>,
    full: mpsc::SyncSender<Vec<u8>>,
    empty: mpsc::Receiver<Vec<u8>>,
    /// Blocks that were made.
    made: usize,
}

/// The other end: takes them, and gives them back.
struct Blocks {
    full: mpsc::Receiver<Vec<u8>>,
    empty: mpsc::SyncSender<Vec<u8>>,
}

fn lane() -> (Lane, Blocks) {
    let (full, to_use) = mpsc::sync_channel(BLOCKS);
    let (used, empty) = mpsc::sync_channel(BLOCKS);
    let lane = Lane {
        block: Vec::new(),
        full,
        empty,
        made: 0,
    };
    let blocks = Blocks {
        full: to_use,
        empty: used,
    };
    (lane, blocks)
}

impl Lane {
    /// A block to fill: one that came back, a new one while there are few, else the next to come back.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        match self.empty.try_recv() {
            Ok(block) => Ok(block),
            Err(mpsc::TryRecvError::Disconnected) => Err(gone()),
            Err(mpsc::TryRecvError::Empty) if self.made < BLOCKS => {
                self.made += 1;
                Ok(Vec::with_capacity(BLOCK))
            }
            Err(mpsc::TryRecvError::Empty) => self.empty.recv().map_err(|_| gone()),
        }
    }
}

impl Write for Lane {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.block = self.next()?;
        }
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.full.send(block).map_err(|_| gone())
    }
}

impl Blocks {
    /// Each in its order, until there are no more.
    fn each(self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for mut block in self.full {
            take(&block)?;
            block.clear();
            // nobody fills it any more
            let _ = self.empty.try_send(block);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// So many bytes of which no two blocks are alike.
    fn bytes(n: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    fn file(dir: &tempfile::TempDir) -> (File, std::path::PathBuf) {
        let path = dir.path().join("part");
        (File::create(&path).expect("create"), path)
    }

    #[test]
    fn the_bytes_and_their_digest_are_those_of_one_stage_after_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = age::x25519::Identity::generate();
        let to = identity.to_public();
        for n in [0, 1, BLOCK, BLOCKS * BLOCK * 3 + 12_345] {
            let given = bytes(n);
            for encrypted in [false, true] {
                let encryptor = || {
                    let to = std::iter::once(&to as &dyn age::Recipient);
                    age::Encryptor::with_recipients(to).expect("an encryptor")
                };
                let (out, path) = file(&dir);
                let mut pipe = Pipe::new(&out, &path, encrypted.then(encryptor)).expect("a pipe");
                for part in given.chunks(77_777) {
                    pipe.write_all(part).expect("write");
                }
                let digest = pipe.finish().expect("finish");
                let mut kept = std::fs::read(&path).expect("read");
                assert_eq!(digest, <Digested>::from(Sha256::digest(&kept)));
                if encrypted {
                    let sealed = age::Decryptor::new(&kept[..]).expect("age");
                    let key = std::iter::once(&identity as &dyn age::Identity);
                    let mut plain = Vec::new();
                    let mut open = sealed.decrypt(key).expect("decrypt");
                    open.read_to_end(&mut plain).expect("whole");
                    kept = plain;
                }
                assert!(kept == given, "{n} bytes, encrypted: {encrypted}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_as_one_to_whoever_writes_next_and_again() {
        let full = Path::new("/dev/full");
        let open = || File::options().write(true).open(full).expect("open");
        let key = age::x25519::Identity::generate().to_public();
        for encrypted in [false, true] {
            let to = std::iter::once(&key as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(to).expect("an encryptor");
            let mut pipe = Pipe::new(&open(), full, encrypted.then_some(encryptor)).expect("one");
            let block = bytes(BLOCK);
            let wrong = (0..10 * BLOCKS).find_map(|_| pipe.write_all(&block).err());
            let wrong = wrong.expect("it is not taken without end");
            assert_eq!(wrong.kind(), io::ErrorKind::StorageFull, "{wrong}");
            let again = pipe.write_all(b"more").expect_err("it stays so");
            assert_eq!(again.kind(), io::ErrorKind::StorageFull, "{again}");
            let end = pipe.finish().expect_err("and at the end");
            assert_eq!(end.kind(), io::ErrorKind::StorageFull, "{end}");
            // little enough not to be told before the end
            let mut pipe = Pipe::new(&open(), full, None).expect("one");
            pipe.write_all(b"little").expect("taken");
            let end = pipe.finish().expect_err("not kept");
            assert_eq!(end.kind(), io::ErrorKind::StorageFull, "{end}");
        }
    }

    #[test]
    fn there_are_never_more_blocks_on_the_way_than_the_bound_however_slow_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo").success());
        let mut slow = File::options();
        let mut slow = slow.read(true).write(true).open(&path).expect("open");
        let out = File::options().write(true).open(&path).expect("open");
        let mut pipe = Pipe::new(&out, &path, None).expect("a pipe");
        let taken = Arc::new(AtomicU64::new(0));
        let (counter, total) = (Arc::clone(&taken), 40 * BLOCK as u64);
        let writer = std::thread::spawn(move || {
            let part = vec![7; 64 << 10];
            for _ in 0..total / part.len() as u64 {
                pipe.write_all(&part).expect("write");
                counter.fetch_add(part.len() as u64, Ordering::SeqCst);
            }
            pipe.finish().expect("finish")
        });
        let (mut read, mut buf) = (0, vec![0; 16 << 10]);
        // what a fifo holds by itself, and what was counted between a read and its look
        let bound = ((BLOCKS + 1) * BLOCK) as u64;
        while read < total {
            read += slow.read(&mut buf).expect("read") as u64;
            let ahead = taken.load(Ordering::SeqCst).saturating_sub(read);
            assert!(ahead <= bound, "{ahead} bytes ahead");
        }
        writer.join().expect("the writer");
    }
}
