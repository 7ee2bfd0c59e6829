//! Kernel memory mapped into this process: array maps and the sections of variables.

use libbpf_rs::MapHandle;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A mapping of an array map, or of a section of variables.
pub(crate) struct Region {
    at: *mut u8,
    len: usize,
}

// SAFETY: shared kernel memory; every access is one volatile load or one atomic store.
#[allow(unsafe_code)]
unsafe impl Send for Region {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Region {}

impl Region {
    #[allow(unsafe_code)]
    pub(crate) fn new(map: &MapHandle, len: usize, write: bool) -> std::io::Result<Self> {
        let prot = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        // SAFETY: maps `len` bytes of a map that allows it; the address is checked.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Region { at: at.cast(), len })
    }

    /// Its first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.at
    }

    #[allow(unsafe_code)]
    pub(crate) fn word(&self, offset: usize) -> u32 {
        if !offset.is_multiple_of(4) || offset + 4 > self.len {
            return 0;
        }
        // SAFETY: within the mapping, aligned; the mapping lives as long as self.
        unsafe { self.at.add(offset).cast::<u32>().read_volatile() }
    }

    /// Eight bytes at `offset`, which programs do not write.
    #[allow(unsafe_code)]
    pub(crate) fn long(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: within the mapping, aligned; the mapping lives as long as self.
        unsafe { AtomicU64::from_ptr(self.at.add(offset).cast()) }
    }

    /// The `index`th counter of an array of them, which programs add to; 0 beyond the end.
    #[allow(unsafe_code)]
    pub(crate) fn counter(&self, index: usize) -> u64 {
        if index >= self.len / 8 {
            return 0;
        }
        // SAFETY: within the mapping, aligned; the mapping lives as long as self.
        unsafe { self.at.add(index * 8).cast::<u64>().read_volatile() }
    }

    #[allow(unsafe_code)]
    pub(crate) fn set_word(&self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: within the mapping, aligned; the kernel side reads it with plain loads.
        unsafe { AtomicU32::from_ptr(self.at.add(offset).cast()).store(value, Ordering::Relaxed) };
    }
}

impl Drop for Region {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; no reference into it exists outside of self.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
