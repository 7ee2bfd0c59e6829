//! What fuzzing drives of lists of leaves, by which `plimsoll ask` reads the journal: a file of them,
//! altered by whoever had the lake in their hands. The same for `cargo fuzz run` and for the test that
//! runs the seeds (`crates/lake/tests/lists.rs`).
//!
//! The first byte says what the others are: bit 0: a file's bytes as they are, else alterations of a
//! file of our own; bit 1: checks are mended, so that what is behind them is reached; bit 2: a file of
//! many keys. Whatever comes of it: no panic, nothing that is found lies outside of the file's leaves,
//! and what becomes of sixteen such files is a file again or names the damaged one.

use plimsoll_lake::{LIST_LEAVES, LeafFile, LeafLists};
use std::ops::Range;

const HEAD: usize = 72;
const BLOCK: usize = 24;
const FENCE: usize = 12;
const ENTRY: usize = 24;
const PAGE: usize = 128;

/// Runs one input.
pub fn leaves(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let leaves = 0..LIST_LEAVES[0];
    let mut bytes = match flags & 1 {
        0 => altered(ours(flags & 4 != 0, leaves.clone()), rest),
        _ => rest.to_vec(),
    };
    if flags & 2 != 0 {
        mend(&mut bytes);
    }
    if let Some(file) = LeafFile::of_bytes(leaves.clone(), bytes.clone()) {
        look(&file, &leaves);
    }
    merge(bytes);
}

fn look(file: &LeafFile, leaves: &Range<u64>) {
    let far = [i64::MIN, -1, 0, 500, i64::MAX];
    for key in (0..8).chain([300, u64::MAX - 1, u64::MAX]) {
        for (from, to) in far.into_iter().zip(far.into_iter().rev()) {
            let found = file.find(&[key, 1], from, to).unwrap_or_default();
            assert!(found.iter().all(|leaf| leaves.contains(leaf)));
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            for leaf in found.into_iter().take(4) {
                let _ = (file.is_between(leaf, from, to), file.latest(leaf));
            }
            let _ = file.touches(from, to);
        }
    }
    for among in [leaves.clone(), 0..0, 4000..9000, u64::MAX - 1..u64::MAX] {
        let _ = (file.has_kind(3, &among), file.has_kind(u16::MAX, &among));
    }
}

/// The file is the fourth of sixteen that become one.
fn merge(bytes: Vec<u8>) {
    let size = LIST_LEAVES[0];
    let part = |n: u64| {
        let leaves = n * size..(n + 1) * size;
        let whole = ours(false, leaves.clone());
        LeafFile::of_bytes(leaves, whole).expect("our own")
    };
    let leaves = 3 * size..4 * size;
    let mut moved = bytes;
    for (at, value) in [(8, leaves.start), (16, leaves.end)] {
        if let Some(place) = moved.get_mut(at..at + 8) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
    mend(&mut moved);
    let Some(fourth) = LeafFile::of_bytes(leaves, moved) else {
        return;
    };
    let mut parts: Vec<LeafFile> = (0..16).filter(|n| *n != 3).map(part).collect();
    parts.insert(3, fourth);
    let all = 0..16 * size;
    match LeafFile::merged(all.clone(), &parts) {
        Err(damaged) => assert!(damaged < 16),
        Ok(bytes) => {
            let file = LeafFile::of_bytes(all.clone(), bytes).expect("what is merged is a file");
            look(&file, &all);
        }
    }
}

fn ours(many: bool, leaves: Range<u64>) -> Vec<u8> {
    let mut lists = LeafLists::new(leaves.start);
    for n in 0..60 {
        let leaf = leaves.start + n * 68;
        let keys: Vec<u64> = match many {
            true => (0..8).map(|k| n * 8 + k).collect(),
            false => vec![n % 3, 300, u64::MAX],
        };
        lists.add(leaf, Some((n as i64 * 10, n as u16 % 5)), &keys);
    }
    lists.encode(leaves.end, &[7; 32])
}

/// Three bytes an alteration: where (two bytes, of the whole length), and what is put there; a place
/// at the end cuts the file.
fn altered(mut bytes: Vec<u8>, how: &[u8]) -> Vec<u8> {
    for change in how.as_chunks::<3>().0.iter().take(64) {
        let at = usize::from(change[0]) << 8 | usize::from(change[1]);
        match at {
            0xffff => bytes.truncate(bytes.len() * usize::from(change[2]) / 256),
            _ if bytes.is_empty() => {}
            _ => {
                let at = at % bytes.len();
                bytes[at] = change[2];
            }
        }
    }
    bytes
}

/// Length and checks as they would be, had somebody written the file like that.
fn mend(bytes: &mut [u8]) {
    let number = |bytes: &[u8], at: usize| {
        let raw = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(raw) as usize)
    };
    let length = (bytes.len() as u64).to_le_bytes();
    let (Some(blocks), Some(entries)) = (number(bytes, 56), number(bytes, 60)) else {
        return;
    };
    if let Some(place) = bytes.get_mut(64..72) {
        place.copy_from_slice(&length);
    }
    let fences = HEAD + blocks.saturating_mul(BLOCK);
    let pages = entries.div_ceil(PAGE);
    let end = fences.saturating_add(pages.saturating_mul(FENCE));
    let pages_at = end.saturating_add(4);
    let lists_at = pages_at.saturating_add(entries.saturating_mul(ENTRY));
    if lists_at > bytes.len() {
        return;
    }
    for n in 0..entries {
        let at = pages_at + n * ENTRY;
        let place = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().expect("eight bytes"));
        let length = number(bytes, at + 16).unwrap_or(0);
        let from = lists_at.saturating_add(usize::try_from(place).unwrap_or(usize::MAX));
        if let Some(list) = bytes.get(from..from.saturating_add(length)) {
            let check = crc32c::crc32c(list).to_le_bytes();
            bytes[at + 20..at + 24].copy_from_slice(&check);
        }
    }
    for page in 0..pages {
        let from = pages_at + page * PAGE * ENTRY;
        let to = (from + PAGE * ENTRY).min(lists_at);
        let check = crc32c::crc32c(&bytes[from..to]).to_le_bytes();
        let first: [u8; 8] = bytes[from..from + 8].try_into().expect("eight bytes");
        let at = fences + page * FENCE;
        bytes[at..at + 8].copy_from_slice(&first);
        bytes[at + 8..at + 12].copy_from_slice(&check);
    }
    let check = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..end + 4].copy_from_slice(&check);
}
