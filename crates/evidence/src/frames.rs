//! Frames of leaves and payloads as they lie in their files.

use std::io;
use std::ops::Range;

use crate::disk::{self, DiskFile};
use crate::format::{self, FILE_HEADER_BYTES, FRAME_BYTES, Frame, PAYLOAD_PREFIX_BYTES};
use crate::options::MAX_PAYLOAD_BYTES;

/// Where the frame of leaf `index` lies in the segment that begins at `first`.
pub(crate) fn frame_at(first: u64, index: u64) -> u64 {
    FILE_HEADER_BYTES as u64 + (index - first) * FRAME_BYTES as u64
}

/// Length of the leaf's payload frame; `None` when no payload can be that long.
pub(crate) fn payload_frame_bytes(frame: &Frame) -> Option<usize> {
    let bytes = usize::try_from(format::header_of(&frame.leaf)?.payload_bytes).ok()?;
    (bytes <= MAX_PAYLOAD_BYTES).then_some(bytes + PAYLOAD_PREFIX_BYTES)
}

/// The frames of leaves `block` of the segment that begins at `first`; fewer at its end.
pub(crate) fn read_frames(
    file: &dyn DiskFile,
    first: u64,
    block: &Range<u64>,
) -> io::Result<Vec<u8>> {
    let leaves = usize::try_from(block.end - block.start).unwrap_or(0);
    let mut bytes = vec![0; leaves * FRAME_BYTES];
    let filled = disk::read_up_to(file, &mut bytes, frame_at(first, block.start))?;
    bytes.truncate(filled);
    Ok(bytes)
}
