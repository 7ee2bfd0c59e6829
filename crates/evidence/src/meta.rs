//! What a store is, and how far its head says that it is durable.

use crate::disk::{self, Disk};
use crate::error::{OpenError, header_error, io_error};
use crate::format::{
    FILE_HEADER_BYTES, FileHeader, FrameSeed, HEAD_MAGIC, HeaderFault, META_MAGIC,
};
use crate::paths::Paths;

/// The longest meta file, bytes: its header, an origin, a checksum.
pub(crate) const META_BYTES_MAX: usize = FILE_HEADER_BYTES + 255 + 4;

/// What a store is: fixed when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) store: [u8; 16],
    pub(crate) subtree_leaves: u32,
    pub(crate) origin: String,
}

impl Meta {
    pub(crate) fn subtree_of(&self, leaf: u64) -> u64 {
        leaf - leaf % u64::from(self.subtree_leaves)
    }

    pub(crate) fn seed(&self) -> FrameSeed {
        FrameSeed::of(&self.store)
    }

    pub(crate) fn header(&self, magic: [u8; 8]) -> FileHeader {
        FileHeader::new(magic, self.store, self.subtree_leaves)
    }
}

/// What a store is; `None` when the directory is not one yet.
pub(crate) fn read_meta(disk: &dyn Disk, paths: &Paths) -> Result<Option<Meta>, OpenError> {
    let path = paths.meta();
    let Some(bytes) =
        disk::read_small(disk, &path, META_BYTES_MAX).map_err(io_error("read", &path))?
    else {
        return Ok(None);
    };
    let damaged = |why: &str| OpenError::DamagedMeta {
        path: path.clone(),
        why: why.to_owned(),
    };
    let header = FileHeader::decode(META_MAGIC, &bytes).map_err(|fault| match fault {
        HeaderFault::Unwritten => damaged("too short"),
        HeaderFault::Damaged => damaged("its checksum does not match"),
        fault => header_error(&path, fault),
    })?;
    let len = usize::try_from(header.b).unwrap_or(usize::MAX);
    let origin = bytes[FILE_HEADER_BYTES..]
        .split_at_checked(len)
        .and_then(|(origin, crc)| {
            let whole = crc
                .first_chunk()
                .is_some_and(|crc| u32::from_le_bytes(*crc) == crc32c::crc32c(origin));
            String::from_utf8(origin.to_vec()).ok().filter(|_| whole)
        });
    let origin = origin.ok_or_else(|| damaged("the origin's checksum does not match"))?;
    if !header.subtree_leaves.is_power_of_two() || header.subtree_leaves < 2 {
        return Err(damaged("the subtree size is no power of two"));
    }
    Ok(Some(Meta {
        store: header.store,
        subtree_leaves: header.subtree_leaves,
        origin,
    }))
}

/// Durable leaves by the head file; `None` when it is absent or altered.
pub(crate) fn read_head(disk: &dyn Disk, paths: &Paths, meta: &Meta) -> Option<u64> {
    // A reader can meet the file in the middle of a write.
    (0..3).find_map(|_| {
        let bytes = disk::read_small(disk, &paths.head(), FILE_HEADER_BYTES)
            .ok()
            .flatten()?;
        let header = FileHeader::decode(HEAD_MAGIC, &bytes).ok()?;
        (header.store == meta.store).then_some(header.first)
    })
}
