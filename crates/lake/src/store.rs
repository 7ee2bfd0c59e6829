//! Where the lake's files lie: behind `object_store`, a local directory now.
//!
//! Promise: a name holds a whole file or none. Locally a file is written beside its place, synced
//! and renamed, and its directory is synced; a bucket's put is all that already.

use crate::LakeError;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sha2::Digest as _;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".part";

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    sha2::Sha256::digest(bytes).into()
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The directory, where it is one on this machine.
    local: Option<PathBuf>,
}

impl Store {
    /// The directory `dir`, which is made where it can be.
    pub(crate) fn local(dir: &Path) -> Result<Self, LakeError> {
        let failed = |source| LakeError::Directory {
            dir: dir.to_path_buf(),
            source,
        };
        if !dir.is_dir() {
            make_private(dir).map_err(failed)?;
        }
        let objects =
            LocalFileSystem::new_with_prefix(dir).map_err(|e| failed(std::io::Error::other(e)))?;
        Ok(Self {
            objects: Arc::new(objects),
            local: Some(dir.to_path_buf()),
        })
    }

    /// Any object store.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            objects,
            local: None,
        }
    }

    /// Only one process builds; `None`: another one does.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, LakeError> {
        let Some(dir) = &self.local else {
            return Ok(Some(Lock(None)));
        };
        let failed = |source| LakeError::Directory {
            dir: dir.clone(),
            source,
        };
        let file = File::create(dir.join("LOCK")).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(Some(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Names below `prefix` and their sizes.
    pub(crate) async fn list(&self, prefix: &str) -> Result<HashMap<String, u64>, LakeError> {
        let prefix = ObjectPath::from(prefix);
        let listed: Vec<_> = match self.objects.list(Some(&prefix)).try_collect().await {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            listed => listed?,
        };
        let named = listed.into_iter().map(|m| (m.location.to_string(), m.size));
        Ok(named
            .filter(|(name, _)| !name.ends_with(UNFINISHED))
            .collect())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, LakeError> {
        let got = self.objects.get(&ObjectPath::from(name)).await?;
        Ok(got.bytes().await?.to_vec())
    }

    /// A file to read parts of; `None`: it is not there.
    pub(crate) fn ranged(&self, name: &str, bytes: u64) -> Option<Ranged> {
        match &self.local {
            Some(dir) => Some(Ranged::File(File::open(dir.join(name)).ok()?)),
            None => Some(Ranged::Object(self.clone(), name.into(), bytes)),
        }
    }

    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), LakeError> {
        if self.local.is_none() {
            self.objects
                .put(&ObjectPath::from(name), bytes.into())
                .await?;
            return Ok(());
        }
        let mut file = self.create(name)?;
        file.write_all(&bytes).map_err(|e| self.failed(e))?;
        self.keep(file).await.map(drop)
    }

    /// A file to be written piece by piece; nobody sees it before it is kept.
    pub(crate) fn create(&self, name: &str) -> Result<Unfinished, LakeError> {
        let to = match &self.local {
            None => To::Memory(Vec::new()),
            Some(dir) => {
                let path = dir.join(format!("{name}{UNFINISHED}"));
                let made = path.parent().map_or(Ok(()), make_private);
                let file = made.and_then(|()| File::create(path));
                To::File(BufWriter::new(file.map_err(|e| self.failed(e))?))
            }
        };
        Ok(Unfinished {
            name: name.to_owned(),
            to,
            bytes: 0,
            digest: sha2::Sha256::new(),
        })
    }

    /// Puts a file that was written in its place; its length and its digest.
    pub(crate) async fn keep(&self, file: Unfinished) -> Result<(u64, Hash), LakeError> {
        let whole = (file.bytes, file.digest.finalize().into());
        let to = ObjectPath::from(file.name.as_str());
        match (file.to, &self.local) {
            (To::File(written), Some(dir)) => {
                let done = written.into_inner().map_err(|e| e.into_error());
                let done = done.and_then(|written| written.sync_all());
                done.map_err(|e| self.failed(e))?;
                let part = format!("{}{UNFINISHED}", file.name);
                self.objects.rename(&ObjectPath::from(part), &to).await?;
                let place = dir.join(&file.name);
                let place = place.parent().unwrap_or(dir);
                let done = File::open(place).and_then(|f| f.sync_all());
                done.map_err(|e| self.failed(e))?;
            }
            (To::Memory(bytes), _) => {
                self.objects.put(&to, bytes.into()).await?;
            }
            (To::File(_), None) => unreachable!("files are made in the store's directory"),
        }
        Ok(whole)
    }

    /// A file to read by a reader of Parquet, if it has this digest.
    pub(crate) async fn whole(&self, name: &str, digest: &Hash) -> Result<Whole, LakeError> {
        let (whole, found) = match &self.local {
            None => {
                let bytes = self.get(name).await?;
                let found = sha256(&bytes);
                (Whole::Memory(bytes.into()), found)
            }
            Some(dir) => {
                let read = File::open(dir.join(name)).and_then(|mut file| {
                    let mut digest = sha2::Sha256::new();
                    std::io::copy(&mut file, &mut digest)?;
                    Ok((Whole::File(file), digest.finalize().into()))
                });
                read.map_err(|e| self.failed(e))?
            }
        };
        match found == *digest {
            true => Ok(whole),
            false => Err(LakeError::Damaged { what: name.into() }),
        }
    }

    /// Where what does not fit into memory may go for a while.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.local.clone().unwrap_or_else(std::env::temp_dir)
    }

    fn failed(&self, source: std::io::Error) -> LakeError {
        LakeError::Directory {
            dir: self.local.clone().unwrap_or_default(),
            source,
        }
    }

    /// Removes what is there; what is not there is fine.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), LakeError> {
        match self.objects.delete(&ObjectPath::from(name)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            done => Ok(done?),
        }
    }
}

/// A file that is being written.
pub(crate) struct Unfinished {
    name: String,
    to: To,
    bytes: u64,
    digest: sha2::Sha256,
}

enum To {
    File(BufWriter<File>),
    /// For a place that takes whole files only.
    Memory(Vec<u8>),
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = match &mut self.to {
            To::File(file) => file.write(bytes)?,
            To::Memory(all) => all.write(bytes)?,
        };
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.to {
            To::File(file) => file.flush(),
            To::Memory(_) => Ok(()),
        }
    }
}

/// A file that was found to be whole.
pub(crate) enum Whole {
    /// On this machine: read where it is asked for.
    File(File),
    /// Elsewhere.
    Memory(bytes::Bytes),
}

/// A file of which parts are read.
pub(crate) enum Ranged {
    /// On this machine.
    File(File),
    /// Elsewhere: its name and its length.
    Object(Store, ObjectPath, u64),
    /// Not a file.
    Memory(Vec<u8>),
}

impl Ranged {
    /// Its length; `None`: nobody knows.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(file) => Some(file.metadata().ok()?.len()),
            Self::Object(_, _, bytes) => Some(*bytes),
            Self::Memory(bytes) => Some(bytes.len() as u64),
        }
    }

    /// These bytes, all of them; `None`: they cannot be read.
    pub(crate) fn read(&self, at: u64, bytes: usize) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        match self {
            Self::File(file) => {
                let mut read = vec![0; bytes];
                file.read_exact_at(&mut read, at).ok()?;
                Some(read)
            }
            Self::Object(store, name, _) => {
                let range = at..at.checked_add(bytes as u64)?;
                let read = crate::wait(store.objects.get_range(name, range));
                read.ok().filter(|r| r.len() == bytes).map(|r| r.to_vec())
            }
            Self::Memory(all) => {
                let from = usize::try_from(at).ok()?;
                Some(all.get(from..from.checked_add(bytes)?)?.to_vec())
            }
        }
    }
}

/// Held by the one who builds.
pub(crate) struct Lock(#[allow(dead_code)] Option<File>);

/// For root alone, as the journal is: rows hold what containers did.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
