//! Where the files of a container are: its overlay's writable directory, its file systems in memory.
//!
//! Promises: a path of the node is taken only from mounts of trusted processes (this one, the node's
//! first, the runtime's that started the container), never from what is mounted inside the
//! container; paths inside it are resolved below its root, without links. Pure reading; every access
//! with patience, since a path may lead through a FUSE mount that hangs.

use super::layer::MOUNTS_MAX;
use super::patience::{TEXT_MAX, text, within};
use super::sweep::{Process, parent};
use super::tree::resolve_mount;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Mount namespaces of the container that are looked at.
const NAMESPACES_MAX: usize = 8;

/// One line of `/proc/PID/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its id on this machine.
    pub(crate) id: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// Where, below the root of the process.
    pub(crate) point: String,
    /// Type of the file system.
    pub(crate) kind: String,
    /// Options of the file system.
    pub(crate) options: String,
}

impl Mount {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc(5)).
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let id = left.next()?.parse().ok()?;
        let mut left = left.skip(1);
        let (major, minor) = left.next()?.split_once(':')?;
        let point = unescape(left.nth(1)?);
        let mut right = right.split(' ');
        Some(Mount {
            id,
            device: (major.parse().ok()?, minor.parse().ok()?),
            point,
            kind: right.next()?.to_owned(),
            options: right.nth(1)?.to_owned(),
        })
    }

    /// The writable directory of an overlay.
    pub(crate) fn upper(&self) -> Option<PathBuf> {
        let upper = |o: &str| o.strip_prefix("upperdir=").map(unescape);
        let path = self.options.split(',').find_map(upper)?;
        path.starts_with('/').then(|| path.into())
    }

    fn in_memory(&self) -> bool {
        self.kind == "tmpfs" || self.kind == "ramfs"
    }
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mounts that a process sees.
pub(crate) fn mounts(pid: u32) -> io::Result<Vec<Mount>> {
    let bytes = text(format!("/proc/{pid}/mountinfo").into(), TEXT_MAX)?;
    let lines = String::from_utf8_lossy(&bytes).into_owned();
    Ok(lines.lines().filter_map(Mount::parse).collect())
}

/// A directory that is to be kept.
pub(super) struct Place {
    /// Pinned.
    pub(super) root: OwnedFd,
    /// Its path, for people.
    pub(super) source: String,
    /// The mount point inside the container; empty for the writable layer.
    pub(super) point: String,
    /// Through which process of the container.
    pub(super) process: Option<Process>,
}

/// Processes that are not the container's and know its mounts.
fn trusted(all: &[Process], first: Process) -> Vec<u32> {
    let member = |pid: &u32| all.iter().any(|p| p.pid == *pid);
    let runtime = parent(first.pid).filter(|p| *p > 1 && !member(p));
    [Some(std::process::id()), Some(1), runtime]
        .into_iter()
        .flatten()
        .collect()
}

/// The first process of the container: whose parent is not in it.
pub(super) fn first(all: &[Process]) -> Option<Process> {
    let member = |pid: u32| all.iter().any(|p| p.pid == pid);
    let outside = |p: &&Process| parent(p.pid).is_some_and(|up| !member(up));
    all.iter()
        .filter(outside)
        .min_by_key(|p| p.start)
        .or_else(|| all.iter().min_by_key(|p| p.start))
        .copied()
}

fn device(fd: &OwnedFd) -> io::Result<(u32, u32)> {
    let x = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok((x.stx_dev_major, x.stx_dev_minor))
}

/// Pins a directory by a path that is trusted.
pub(crate) fn pin_directory(path: PathBuf) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    within(move || Ok(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The writable layer of a container that has processes.
///
/// # Errors
/// Why it cannot be had, in words.
pub(super) fn writable(all: &[Process]) -> Result<Place, String> {
    let p = first(all).ok_or("it has no process")?;
    let root = pin_directory(format!("/proc/{}/root", p.pid).into());
    let root = root.map_err(|e| format!("the root of process {}: {e}", p.pid))?;
    let dev = within(move || device(&root)).map_err(|e| format!("its root: {e}"))?;
    for by in trusted(all, p) {
        let known = mounts(by).unwrap_or_default();
        let overlay = |m: &&Mount| m.device == dev && m.kind.ends_with("overlay");
        let Some(path) = known.iter().find(overlay).and_then(Mount::upper) else {
            continue;
        };
        let below = path.strip_prefix("/").unwrap_or(&path);
        let source = path.display().to_string();
        return match pin_directory(Path::new(&format!("/proc/{by}/root")).join(below)) {
            Ok(root) => Ok(Place {
                root,
                source,
                point: String::new(),
                process: Some(p),
            }),
            Err(e) => Err(format!("{source}: {e}")),
        };
    }
    Err(format!(
        "its root (device {}:{}) is not an overlay that the node knows",
        dev.0, dev.1
    ))
}

/// A writable layer by the path that the container's daemon names.
///
/// # Errors
/// Why it cannot be had, in words.
pub(super) fn named(upper: &str, process: Option<Process>) -> Result<Place, String> {
    let root = pin_directory(upper.into()).map_err(|e| format!("{upper}: {e}"))?;
    Ok(Place {
        root,
        source: upper.to_owned(),
        point: String::new(),
        process,
    })
}

/// The container's file systems in memory; for those that are left out, why.
pub(super) fn in_memory(all: &[Process], container: &str) -> (Vec<Place>, Vec<String>) {
    let (mut places, mut left_out) = (Vec::new(), Vec::new());
    let Some(first) = first(all) else {
        return (places, left_out);
    };
    // in a user's own containers the runtime's process sees what the node's first does not
    let own: Vec<Mount> = trusted(all, first)
        .into_iter()
        .flat_map(|pid| mounts(pid).unwrap_or_default())
        .filter(Mount::in_memory)
        .collect();
    let of_the_node = |m: &Mount| {
        let same = |o: &&Mount| o.device == m.device;
        let for_it = |o: &Mount| o.point.contains(container) || o.point.contains("/kubelet/pods/");
        let mut known = own.iter().filter(same).peekable();
        known.peek().is_some() && !known.any(for_it)
    };
    let (mut namespaces, mut seen) = (HashSet::new(), HashSet::new());
    for p in std::iter::once(first).chain(all.iter().copied()) {
        let ns = std::fs::read_link(format!("/proc/{}/ns/mnt", p.pid)).unwrap_or_default();
        if namespaces.len() >= NAMESPACES_MAX || !namespaces.insert(ns) {
            continue;
        }
        let root = pin_directory(format!("/proc/{}/root", p.pid).into());
        let (Ok(root), Ok(list)) = (root, mounts(p.pid)) else {
            left_out.push(format!("mounts of process {}: they cannot be read", p.pid));
            continue;
        };
        for m in list.into_iter().filter(Mount::in_memory) {
            if !seen.insert(m.device) {
                continue;
            }
            if of_the_node(&m) {
                left_out.push(format!("{}: it is the node's own, not kept", m.point));
            } else if places.len() >= MOUNTS_MAX {
                left_out.push(format!("{}: more than {MOUNTS_MAX} of them", m.point));
            } else {
                match at(&root, &m) {
                    Ok(root) => places.push(Place {
                        root,
                        source: format!("/proc/{}/root{}", p.pid, m.point),
                        point: m.point,
                        process: Some(p),
                    }),
                    Err(e) => left_out.push(format!("{}: {e}", m.point)),
                }
            }
        }
    }
    (places, left_out)
}

/// Pins a mount below the root of a process, if it is still what its list of mounts said.
fn at(root: &OwnedFd, m: &Mount) -> io::Result<OwnedFd> {
    let (root, point, dev) = (root.try_clone()?, m.point.clone(), m.device);
    within(move || {
        let below = Path::new(&point)
            .strip_prefix("/")
            .unwrap_or(Path::new("."));
        let below = match below.as_os_str().is_empty() {
            true => Path::new("."),
            false => below,
        };
        let fd = resolve_mount(root.as_fd(), below)?;
        if device(&fd)? != dev {
            return Err(io::Error::other("something else is mounted over it"));
        }
        Ok(fd)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_spaces_and_writable_directory() {
        let line = "520 519 0:63 / /a\\040b rw,relatime - overlay overlay rw,lowerdir=/l:/m,upperdir=/var/lib/x\\040y/diff,workdir=/w";
        let m = Mount::parse(line).expect("a mount");
        assert_eq!((m.device, m.point.as_str()), ((0, 63), "/a b"));
        assert_eq!(m.upper(), Some("/var/lib/x y/diff".into()));
        let line = "36 35 98:0 /mnt1 /mnt2 rw master:1 - tmpfs none rw,size=64k";
        let m = Mount::parse(line).expect("a mount");
        assert!(m.in_memory() && m.upper().is_none());
        assert!(Mount::parse("nonsense").is_none());
    }

    #[test]
    fn a_path_that_is_not_absolute_is_no_place() {
        let m = Mount::parse("1 2 0:5 / / rw - overlay overlay rw,upperdir=diff").expect("one");
        assert_eq!(m.upper(), None);
    }
}
