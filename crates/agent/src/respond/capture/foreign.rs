//! Files that a container's processes have open or run, on whatever file system.
//!
//! Promises: who waits for one goes on ([`super::patience`]); a file system that did not answer once is not
//! asked again by the same capture, and after [`SILENT_MAX`] of them only those are that have answered
//! before; a device, fifo or socket is never opened; a file is closed on a thread of its own, since
//! that asks its file system too (`FUSE_FLUSH`). Left out: which files ([`super::sweep`],
//! [`super::identity`]).

use super::patience::{feed, within};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};

/// File systems that may be silent before new ones are not tried any more.
pub(super) const SILENT_MAX: usize = 8;

/// Major and minor number.
pub(super) type Device = (u32, u32);

/// What became of the file systems that were asked.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    silent: HashSet<Device>,
    answered: HashSet<Device>,
}

/// A regular file that is open.
#[derive(Debug)]
pub(super) struct Open {
    file: Option<File>,
    pub(super) device: Device,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified_s: i64,
}

impl Open {
    /// For a thread that reads it, and closes it there.
    pub(super) fn into_file(mut self) -> io::Result<File> {
        self.file
            .take()
            .ok_or_else(|| io::Error::other("its file is not open"))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        let slot = Arc::new(Mutex::new(Some(file)));
        let taken = Arc::clone(&slot);
        let take = |s: &Mutex<Option<File>>| s.lock().ok().and_then(|mut s| s.take());
        if feed::<()>(move |_| drop(take(&taken))).is_err() {
            // no thread to close it on: it stays open rather than hold everything up
            std::mem::forget(take(&slot));
        }
    }
}

impl Foreign {
    /// Opens what a link of the kernel's (`/proc/PID/exe`, `fd/N`) leads to; `None`: no regular file.
    ///
    /// # Errors
    /// That of the file; `TimedOut` where it does not answer, and that it did not before.
    pub(super) fn open(&mut self, path: &str) -> io::Result<Option<Open>> {
        let link = path.to_owned();
        let (pinned, kind, device) = within(move || {
            let pinned = rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            // what the kernel knows by itself, no word with a server
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            let x = rustix::fs::statx(&pinned, "", flags, StatxFlags::TYPE)?;
            let kind = FileType::from_raw_mode(u32::from(x.stx_mode));
            Ok((pinned, kind, (x.stx_dev_major, x.stx_dev_minor)))
        })?;
        if kind != FileType::RegularFile {
            return Ok(None);
        }
        self.may_ask(device)?;
        let opened = within(move || {
            let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty())?;
            let flags = AtFlags::EMPTY_PATH;
            let x = rustix::fs::statx(&file, "", flags, StatxFlags::BASIC_STATS)?;
            Ok(Open {
                file: Some(File::from(file)),
                device,
                inode: x.stx_ino,
                size: x.stx_size,
                modified_s: x.stx_mtime.tv_sec,
            })
        });
        self.note(device, &opened);
        opened.map(Some)
    }

    fn may_ask(&self, device: Device) -> io::Result<()> {
        if self.silent.contains(&device) {
            return Err(io::Error::other(
                "not tried: its file system did not answer before",
            ));
        }
        if self.silent.len() >= SILENT_MAX && !self.answered.contains(&device) {
            return Err(io::Error::other(format!(
                "not tried: {SILENT_MAX} file systems do not answer, and its own was not asked yet"
            )));
        }
        Ok(())
    }

    /// Takes note of how a file system has answered.
    pub(super) fn note<T>(&mut self, device: Device, answer: &io::Result<T>) {
        match answer {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => self.silent.insert(device),
            _ => self.answered.insert(device),
        };
    }

    /// Whether it did not answer.
    pub(super) fn is_silent(&self, device: Device) -> bool {
        self.silent.contains(&device)
    }
}
