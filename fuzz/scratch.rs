//! A place of this thread's own for files, in memory where there is such a place. A
//! module of whoever takes in `store_entry.rs` or `other_entry.rs`.

use std::path::{Path, PathBuf};

/// Its path; nothing is made.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    let who = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    dir.join(format!("plimsoll-fuzz-{name}-{who}"))
}
