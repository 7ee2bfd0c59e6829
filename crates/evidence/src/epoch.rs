//! The secret halves of epoch keys: made, kept in a directory of their own, and erased.
//!
//! The file of a key is overwritten, synced and removed as soon as its successor has been signed
//! into the log. What that cannot reach: copies that a file system which copies on write, a
//! snapshot or a drive's own remapping has kept. The directory must lie outside of what is copied
//! as evidence.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::disk::{self, Disk, OpenMode};
use crate::format::{FILE_HEADER_BYTES, FileHeader, KEY_MAGIC};
use crate::meta::Meta;
use crate::note::PublicKey;

const SEED_BYTES: usize = 32;
const KEY_BYTES: usize = FILE_HEADER_BYTES + SEED_BYTES + 4;

/// The directory of a node's secret keys.
pub(crate) struct KeyStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    meta: Meta,
}

/// A key that can sign.
pub(crate) struct EpochKey {
    pub(crate) epoch: u64,
    pub(crate) secret: SigningKey,
}

impl EpochKey {
    pub(crate) fn public(&self, name: &str) -> PublicKey {
        PublicKey::new(name, self.secret.verifying_key().to_bytes())
    }
}

impl KeyStore {
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, meta: &Meta) -> io::Result<Self> {
        disk.create_dir(dir)?;
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            meta: meta.clone(),
        })
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.dir.join(format!("epoch-{epoch:010}.key"))
    }

    /// Keys that are whole and belong to this store, oldest first.
    pub(crate) fn keys(&self) -> io::Result<Vec<EpochKey>> {
        let mut epochs: Vec<u64> = self
            .disk
            .list(&self.dir)?
            .iter()
            .filter_map(|item| {
                item.name
                    .strip_prefix("epoch-")?
                    .strip_suffix(".key")?
                    .parse()
                    .ok()
            })
            .collect();
        epochs.sort_unstable();
        let read = |epoch: &u64| self.read(*epoch).ok().flatten();
        Ok(epochs.iter().filter_map(read).collect())
    }

    fn read(&self, epoch: u64) -> io::Result<Option<EpochKey>> {
        let bytes = disk::read_small(&*self.disk, &self.path(epoch), KEY_BYTES)?;
        let Some(bytes) = bytes.map(Zeroizing::new) else {
            return Ok(None);
        };
        let header = FileHeader::decode(KEY_MAGIC, &bytes).ok();
        let ours = header.is_some_and(|h| h.store == self.meta.store && h.first == epoch);
        let Some((body, crc)) = bytes
            .split_last_chunk::<4>()
            .filter(|_| ours && bytes.len() == KEY_BYTES)
        else {
            return Ok(None);
        };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Ok(None);
        }
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        seed.copy_from_slice(&body[FILE_HEADER_BYTES..]);
        Ok(Some(EpochKey {
            epoch,
            secret: SigningKey::from_bytes(&seed),
        }))
    }

    /// Makes a key from `seed`; it is durable when this returns.
    pub(crate) fn make(&self, epoch: u64, seed: &[u8; SEED_BYTES]) -> io::Result<EpochKey> {
        let mut header = self.meta.header(KEY_MAGIC);
        header.first = epoch;
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(seed);
        let crc = crc32c::crc32c(&bytes).to_le_bytes();
        bytes.extend_from_slice(&crc);
        let path = self.path(epoch);
        let file = self.disk.open(&path, OpenMode::Create)?;
        disk::write_all(file.as_ref(), &bytes, 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(EpochKey {
            epoch,
            secret: SigningKey::from_bytes(seed),
        })
    }

    /// Overwrites, syncs and removes the key of an epoch; one that is gone is no failure.
    pub(crate) fn erase(&self, epoch: u64) -> io::Result<()> {
        let path = self.path(epoch);
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(e) if disk::is_missing(&e) => return Ok(()),
            opened => opened?,
        };
        for fill in [0xFF, 0] {
            disk::write_all(file.as_ref(), &[fill; KEY_BYTES], 0)?;
            file.sync_data()?;
        }
        self.disk.remove(&path)?;
        self.disk.sync_dir(&self.dir)
    }

    /// Writes the root's public key where people find it.
    pub(crate) fn export(&self, root: &PublicKey) -> io::Result<()> {
        let text = format!("{root}\n");
        let path = self.dir.join("root.pub");
        if disk::read_small(&*self.disk, &path, 4096)?.as_deref() == Some(text.as_bytes()) {
            return Ok(());
        }
        disk::replace(&*self.disk, &path, text.as_bytes())
    }
}
