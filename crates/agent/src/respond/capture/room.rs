//! Room for captures: a bound on their directory, and a reserve of the file system.
//!
//! Promises: captures never take more than configured, nor the last free bytes, whatever a hostile
//! container makes them hold; the journal, on the same disk, goes on. Left out: removing old captures
//! (they are evidence: a person does that).

use std::io;
use std::path::Path;

/// What captures may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of all captures together.
    pub max_bytes: u64,
    /// Bytes of the file system that stay free.
    pub min_free: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            max_bytes: 32 << 30,
            min_free: 1 << 30,
        }
    }
}

/// How much more may be written, and what bounds that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Bytes.
    pub(super) bytes: u64,
    /// In words.
    pub(super) by: String,
}

impl Room {
    /// What is left in a directory now; files that are being written count.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn left(&self, dir: &Path) -> io::Result<Left> {
        let mut used = 0_u64;
        for entry in std::fs::read_dir(dir)? {
            // one that has just been renamed or removed is not an error
            used += entry?.metadata().map_or(0, |m| m.len());
        }
        let disk = rustix::fs::statvfs(dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let below = self.max_bytes.saturating_sub(used);
        let above = free.saturating_sub(self.min_free);
        Ok(match below <= above {
            true => Left {
                bytes: below,
                by: format!(
                    "captures hold {used} of {} bytes (response.captures.max_bytes)",
                    self.max_bytes
                ),
            },
            false => Left {
                bytes: above,
                by: format!(
                    "{free} bytes of the disk are free, {} stay so (response.captures.min_free)",
                    self.min_free
                ),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_both_bounds_holds_and_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("old.tar"), [0; 600]).expect("write");
        let of = |max_bytes, min_free| {
            let room = Room {
                max_bytes,
                min_free,
            };
            room.left(dir.path()).expect("it can be read")
        };
        let left = of(1000, 0);
        assert_eq!(left.bytes, 400);
        assert!(left.by.contains("600 of 1000"), "{}", left.by);
        assert_eq!(of(500, 0).bytes, 0);
        let left = of(1 << 50, u64::MAX);
        assert!(
            left.bytes == 0 && left.by.contains("min_free"),
            "{}",
            left.by
        );
    }
}
