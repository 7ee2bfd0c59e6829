//! The file seam: the few operations the journal needs from a disk.
//!
//! [`RealDisk`] is the machine's file system; the tests have a second implementation
//! that runs out of space, fails, writes short and forgets what was not synced.
//! It promises nothing about caching: durability is exactly `sync_data` for contents
//! and `sync_dir` for names.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    Write,
    /// Reading and writing; created empty when absent, never truncated.
    Create,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// File name, without the directory; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is an ordinary file.
    pub is_file: bool,
}

/// A place to keep files.
pub trait Disk: Send + Sync {
    /// Opens one file; never follows a symbolic link in the last component.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// The names in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>>;
    /// The same without what has to be asked of each file.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.list(dir)?.into_iter().map(|item| item.name).collect())
    }
    /// Makes `dir` and what is missing above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock at `path` and writes `note` into it; `None` when
    /// somebody else holds it. The lock ends when the returned value is dropped.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Option<Box<dyn Send>>>;
}

/// An open file, addressed by position.
pub trait DiskFile: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset`; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some prefix of `bytes` at `offset`; returns its length.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Makes the contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space for the first `len` bytes.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// These bytes are about to be read: a disk may fetch them meanwhile.
    fn expect(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
    /// Bytes here and there are about to be read: those around them need not be fetched.
    fn expect_scattered(&self) {}
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk {
    /// Permission bits of new files.
    pub file_mode: u32,
    /// Permission bits of new directories.
    pub dir_mode: u32,
}

impl Default for RealDisk {
    /// Evidence is for its owner only.
    fn default() -> Self {
        Self {
            file_mode: 0o600,
            dir_mode: 0o700,
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .write(mode != OpenMode::Read)
            .create(mode == OpenMode::Create)
            .truncate(false)
            .mode(self.file_mode)
            .custom_flags(nofollow)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        fs::read_dir(dir)?
            .map(|item| {
                let item = item?;
                let meta = item.metadata()?;
                let name = item.file_name().to_string_lossy().into_owned();
                Ok(DirItem {
                    name,
                    bytes: meta.len(),
                    is_file: meta.is_file(),
                })
            })
            // A file that another process removed between the two calls is not there.
            .filter(|item| !matches!(item, Err(e) if is_missing(e)))
            .collect()
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(self.dir_mode)
            .create(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Option<Box<dyn Send>>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(self.file_mode)
            .open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // The note only helps people; a full disk must not stop the lock.
        let noted = file
            .set_len(0)
            .and_then(|()| file.write_all_at(note.as_bytes(), 0));
        drop(noted);
        Ok(Some(Box::new(file)))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn expect(&self, offset: u64, len: u64) {
        // a kernel that does not want to know reads all the same
        let len = std::num::NonZeroU64::new(len);
        let _ = rustix::fs::fadvise(&self.0, offset, len, rustix::fs::Advice::WillNeed);
    }

    fn expect_scattered(&self) {
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::Random);
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(
            &self.0,
            FallocateFlags::empty(),
            0,
            len,
        )?)
    }
}

/// Writes all of `bytes`, however short the single writes are.
pub(crate) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills as much of `buf` as the file has at `offset`; returns the length filled.
pub(crate) fn read_up_to(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads a whole small file, at most `max` bytes of it; `None` when absent.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if is_missing(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; max];
    let filled = read_up_to(file.as_ref(), &mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(Some(bytes))
}

/// Writes `bytes` as the whole of `path` by way of a temporary file, durably.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    write_all(file.as_ref(), bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
