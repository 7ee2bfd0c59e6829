//! Files that are whole or not there: baselines, one file each.
//!
//! Promise: a file is replaced by write, sync, rename and sync of the directory, so a crash leaves
//! the old or the new one. What does not decode is set aside under another name, never removed.
//! Bounded: files beyond [`FILE_BYTES_MAX`] or [`FILES_MAX`] are not read, and that is reported.

use plimsoll_model::BaselineId;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Longest file that is read.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Most baselines that are read at the start.
pub const FILES_MAX: usize = 4096;

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What a directory held.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files that were read, sorted by name.
    pub found: Vec<Found>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// Where a baseline lies.
pub fn path_of(dir: &Path, id: &BaselineId) -> PathBuf {
    dir.join(format!("{id}.cbor"))
}

/// Replaces a file as a whole.
///
/// # Errors
/// When the disk refuses; the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("tmp");
    let written = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // on a full disk half a file would keep the room it could not use
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a directory that only root reads.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Reads all `.cbor` files of a directory.
///
/// # Errors
/// When the directory cannot be listed.
pub fn read_all(dir: &Path) -> io::Result<Listing> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "cbor"))
        .collect();
    paths.sort();
    let mut listing = Listing::default();
    if paths.len() > FILES_MAX {
        listing.problems.push(format!(
            "{} baselines in {}, only the first {FILES_MAX} are used",
            paths.len(),
            dir.display()
        ));
        paths.truncate(FILES_MAX);
    }
    for path in paths {
        match read_bounded(&path) {
            Ok(bytes) => listing.found.push(Found { path, bytes }),
            Err(e) => listing
                .problems
                .push(format!("cannot read {}: {e}", path.display())),
        }
    }
    Ok(listing)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "longer than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(bytes)
}

/// Gives a file that cannot be used another name, so that it is neither read again nor lost.
///
/// # Errors
/// When the disk refuses.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut to = path.with_extension("unreadable");
    for n in 1..100 {
        if !to.exists() {
            break;
        }
        to = path.with_extension(format!("unreadable{n}"));
    }
    fs::rename(path, &to)?;
    Ok(to)
}

/// A key of 32 random bytes in a file that only its owner reads; made when it is not there.
///
/// # Errors
/// When it cannot be read or made, or is something else.
pub fn secret_key(path: &Path) -> io::Result<[u8; 32]> {
    let as_key = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes).map_err(|b| {
            let what = format!("it has {} bytes, a key has 32", b.len());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    };
    match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(64).read_to_end(&mut bytes)?;
            return as_key(bytes);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut key = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("B-1.cbor");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        let listing = read_all(dir.path()).unwrap();
        assert_eq!(listing.found[0].bytes, b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unreadable_file_is_kept_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("B-1.cbor");
        for n in 0..3 {
            replace(&path, &[n]).unwrap();
            set_aside(&path).unwrap();
        }
        assert!(read_all(dir.path()).unwrap().found.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_key_is_made_once_kept_private_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let key = secret_key(&path).unwrap();
        assert_ne!(key, [0; 32]);
        assert_eq!(secret_key(&path).unwrap(), key);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(
            secret_key(&path)
                .unwrap_err()
                .to_string()
                .contains("5 bytes")
        );
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
