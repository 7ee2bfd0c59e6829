//! Reads a directory tree that a hostile container wrote.
//!
//! Promises: nothing outside the tree is ever opened: every name is resolved below its directory,
//! without links, magic links, `..` or mounts (`openat2`); an entry is pinned (`O_PATH`) before it is
//! looked at and opened through that pin, so that nobody can swap it; only regular files and
//! directories are opened (never a fifo, socket, device), without waiting (`O_NONBLOCK`) and
//! without changing access times where that is permitted; everything is listed with its times and extended
//! attributes. Bounds: [`Bounds`], [`DEPTH_MAX`], [`PATH_MAX`], [`XATTR_MAX`]. Runs on a thread of its own
//! ([`super::patience`]), small files first. Left out: what the entries mean (whiteouts: [`super::layer`]).

use super::patience::{Feed, PIECE, feed};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

/// Directories below one another; one descriptor each.
pub(super) const DEPTH_MAX: usize = 128;
/// Bytes of a path below the root.
pub(super) const PATH_MAX: usize = 4096;
/// Bytes of one extended attribute, and of all their names.
pub(super) const XATTR_MAX: usize = 4096;
/// Files up to this are read at once, larger ones after all of these.
const SMALL: u64 = 8 << 20;
/// Larger files at most.
const LARGE_MAX: usize = 4096;

/// What one tree may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Entries listed.
    pub(super) entries: usize,
    /// Bytes read of all files.
    pub(super) bytes: u64,
    /// Bytes read of one file.
    pub(super) file: u64,
    /// Nothing is begun after this.
    pub(super) end: Instant,
}

/// A point in time: seconds since the epoch and nanoseconds.
pub(super) type Time = (i64, u32);

/// One entry, as its inode says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Below the root; any bytes but NUL.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) kind: FileType,
    /// Type and permissions.
    pub(super) mode: u32,
    /// Owner and group, as on the disk.
    pub(super) owner: (u32, u32),
    /// Bytes.
    pub(super) size: u64,
    /// Inode and number of names.
    pub(super) ino: (u64, u32),
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    /// Accessed, modified, changed, born (where the file system knows).
    pub(super) times: [Option<Time>; 4],
    /// Where a link points; never followed.
    pub(super) link: Option<Vec<u8>>,
    /// Extended attributes.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a walk gives, in this order: an entry; where it is a file, later `Open`, its `Data`, `Close`.
#[derive(Debug)]
pub(super) enum Found {
    /// It is there.
    Entry(Box<Entry>),
    /// The content of a file follows: so many bytes are meant to.
    Open(Box<Entry>, u64),
    /// Some of it.
    Data(Vec<u8>),
    /// That was all; what is wrong with it.
    Close(Option<String>),
    /// Something could not be had.
    Gap(String),
}

/// Walks the tree below a directory.
///
/// # Errors
/// When no thread can be made, or too many hang.
pub(super) fn walk(root: OwnedFd, bounds: Bounds) -> io::Result<Feed<Found>> {
    feed(move |to| {
        let mut walk = Walk {
            root: root.as_fd(),
            to,
            bounds,
            seen: 0,
            read: 0,
            names: HashSet::new(),
            large: Vec::new(),
        };
        // an error here is that nobody listens any more
        let _ = walk.all();
    })
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    to: &'a SyncSender<Found>,
    bounds: Bounds,
    seen: usize,
    read: u64,
    /// Files with several names that were read: once is enough.
    names: HashSet<u64>,
    large: Vec<Entry>,
}

struct Level {
    dir: OwnedFd,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

/// Nobody listens any more.
struct Deaf;
type Told = Result<(), Deaf>;

impl Walk<'_> {
    fn all(&mut self) -> Told {
        let root = match reopen(self.root, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(root) => root,
            Err(e) => return self.gap(format!("its root: {e}")),
        };
        let mut levels = vec![self.level(root, PathBuf::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            if self.seen >= self.bounds.entries || Instant::now() >= self.bounds.end {
                return self.gap(format!(
                    "listed up to /{}: the bound on entries ({}) or the deadline was met",
                    path.display(),
                    self.bounds.entries
                ));
            }
            self.seen += 1;
            let pinned = match resolve(level.dir.as_fd(), Path::new(&name)) {
                Ok(pinned) => pinned,
                Err(e) => {
                    self.gap(format!("/{}: {}", path.display(), spoken(e)))?;
                    continue;
                }
            };
            let below = self.one(&pinned, path, levels.len())?;
            levels.extend(below);
        }
        let mut large = std::mem::take(&mut self.large);
        large.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
        for entry in large {
            let found = resolve(self.root, &entry.path).and_then(|fd| {
                let now = look(&fd, entry.path.clone())?;
                Ok((fd, now))
            });
            match found {
                Ok((fd, now)) if now.ino == entry.ino && now.kind == FileType::RegularFile => {
                    self.content(&fd, now)?;
                }
                Ok(_) => self.gap(format!("/{}: it was replaced", entry.path.display()))?,
                Err(e) => self.gap(format!("/{}: {}", entry.path.display(), spoken(e)))?,
            }
        }
        Ok(())
    }

    /// One pinned entry; the level below it, where it is a directory.
    fn one(
        &mut self,
        pinned: &OwnedFd,
        path: PathBuf,
        depth: usize,
    ) -> Result<Option<Level>, Deaf> {
        let entry = match look(pinned, path.clone()) {
            Ok(entry) => entry,
            Err(e) => {
                self.gap(format!("/{}: {e}", path.display()))?;
                return Ok(None);
            }
        };
        self.tell(Found::Entry(Box::new(entry.clone())))?;
        match entry.kind {
            FileType::Directory => {
                if depth >= DEPTH_MAX || path.as_os_str().len() >= PATH_MAX {
                    self.gap(format!(
                        "/{}: {depth} directories deep, left out",
                        path.display()
                    ))?;
                    return Ok(None);
                }
                match reopen(pinned.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY) {
                    Ok(dir) => self.level(dir, path).map(Some),
                    Err(e) => self.gap(format!("/{}: {e}", path.display())).map(|()| None),
                }
            }
            FileType::RegularFile if entry.size > SMALL => {
                if self.large.len() < LARGE_MAX {
                    self.large.push(entry);
                    Ok(None)
                } else {
                    let what = "large files beyond the bound on them";
                    self.gap(format!("/{}: {what}", path.display()))
                        .map(|()| None)
                }
            }
            FileType::RegularFile => self.content(pinned, entry).map(|()| None),
            _ => Ok(None),
        }
    }

    /// What a directory holds; sorted, so that two captures can be compared.
    fn level(&mut self, dir: OwnedFd, path: PathBuf) -> Result<Level, Deaf> {
        let room = self.bounds.entries.saturating_sub(self.seen);
        let mut names = Vec::new();
        match Dir::read_from(&dir) {
            Err(e) => self.gap(format!("/{}: {e}", path.display()))?,
            Ok(list) => {
                for item in list {
                    match item {
                        Ok(item) => {
                            let name = item.file_name().to_bytes();
                            if name != b"." && name != b".." {
                                names.push(OsStr::from_bytes(name).to_owned());
                            }
                        }
                        Err(e) => {
                            self.gap(format!("/{}: {e}", path.display()))?;
                            break;
                        }
                    }
                    if names.len() > room {
                        // one more than can be told of: the walk says so when it comes to it
                        break;
                    }
                }
            }
        }
        names.sort_unstable();
        Ok(Level {
            dir,
            path,
            names: names.into_iter(),
        })
    }

    fn content(&mut self, pinned: &OwnedFd, entry: Entry) -> Told {
        let room = self.bounds.bytes.saturating_sub(self.read);
        let size = entry.size.min(self.bounds.file).min(room);
        let path = entry.path.clone();
        if size < entry.size {
            let what = format!("/{}: {size} of {} bytes", path.display(), entry.size);
            self.gap(format!("{what}, the bound was met"))?;
            if size == 0 || Instant::now() >= self.bounds.end {
                return Ok(());
            }
        }
        if entry.ino.1 > 1 && !self.names.insert(entry.ino.0) {
            return Ok(());
        }
        let file = match reopen(pinned.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(e) => return self.gap(format!("/{}: {e}", path.display())),
        };
        let before = entry.times[1..3].to_vec();
        let whole = size == entry.size;
        self.tell(Found::Open(Box::new(entry), size))?;
        let mut at = 0;
        let mut wrong = None;
        while at < size && wrong.is_none() {
            let want = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; want];
            match file.read_at(&mut piece, at) {
                Ok(0) => wrong = Some(format!("it shrank to {at} bytes while it was read")),
                Ok(n) => {
                    piece.truncate(n);
                    at += n as u64;
                    self.tell(Found::Data(piece))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => wrong = Some(e.to_string()),
            }
        }
        self.read += at;
        if wrong.is_none()
            && whole
            && let Ok(now) = look(&file.into(), PathBuf::new())
            && (now.size != size || now.times[1..3] != before)
        {
            wrong = Some(format!(
                "it changed while it was read ({size} bytes, then {})",
                now.size
            ));
        }
        self.tell(Found::Close(wrong))
    }

    fn gap(&self, what: String) -> Told {
        self.tell(Found::Gap(what))
    }
    fn tell(&self, what: Found) -> Told {
        self.to.send(what).map_err(|_| Deaf)
    }
}

/// Below here, through nothing: no link, no magic link, no `..`, no mount.
const CLOSED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Pins what is at a path below a directory, where no part of it is a link (the last may be one, and
/// is pinned itself) or crosses a mount: it can be looked at, nothing is opened.
pub(crate) fn resolve(dir: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), CLOSED)
}

/// Pins what is at a path below a directory; mounts are crossed, links are not.
pub(super) fn resolve_mount(dir: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = CLOSED.difference(ResolveFlags::NO_XDEV);
    rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
}

fn spoken(e: rustix::io::Errno) -> String {
    match e {
        rustix::io::Errno::XDEV => "something is mounted there, not entered".to_owned(),
        other => io::Error::from(other).to_string(),
    }
}

fn by_number(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens what is pinned.
fn reopen(pinned: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = by_number(&pinned);
    let open = |more| rustix::fs::open(&path, flags | OFlags::CLOEXEC | more, Mode::empty());
    // only the owner, or who may act as one, may leave the access time as it is
    open(OFlags::NOATIME).or_else(|_| open(OFlags::empty()))
}

/// What an inode says of itself.
fn look(pinned: &OwnedFd, path: PathBuf) -> rustix::io::Result<Entry> {
    let want = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let x = rustix::fs::statx(pinned, "", AtFlags::EMPTY_PATH, want)?;
    let time = |flag: StatxFlags, t: rustix::fs::StatxTimestamp| {
        (x.stx_mask & flag.bits() != 0).then_some((t.tv_sec, t.tv_nsec))
    };
    let kind = FileType::from_raw_mode(u32::from(x.stx_mode));
    let link = match kind {
        FileType::Symlink => rustix::fs::readlinkat(pinned, "", Vec::new()).ok(),
        _ => None,
    };
    Ok(Entry {
        path,
        kind,
        mode: u32::from(x.stx_mode),
        owner: (x.stx_uid, x.stx_gid),
        size: x.stx_size,
        ino: (x.stx_ino, x.stx_nlink),
        device: (x.stx_rdev_major, x.stx_rdev_minor),
        times: [
            time(StatxFlags::ATIME, x.stx_atime),
            time(StatxFlags::MTIME, x.stx_mtime),
            time(StatxFlags::CTIME, x.stx_ctime),
            time(StatxFlags::BTIME, x.stx_btime),
        ],
        link: link.map(CString::into_bytes),
        xattrs: xattrs(pinned),
    })
}

/// Extended attributes of whatever is pinned, links and devices too.
fn xattrs(pinned: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = by_number(pinned);
    let mut names = vec![0_u8; XATTR_MAX];
    let Ok(n) = rustix::fs::listxattr(&path, &mut names[..]) else {
        return Vec::new();
    };
    let names = names[..n].split(|b| *b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| {
            let mut value = vec![0_u8; XATTR_MAX];
            let n = rustix::fs::getxattr(&path, OsStr::from_bytes(name), &mut value[..]);
            value.truncate(n.unwrap_or(0));
            (name.to_vec(), value)
        })
        .collect()
}
