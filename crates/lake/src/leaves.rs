//! Which leaves to look at: for each key (a container's records of a kind, a peer, an alert), the
//! leaves that bear it. Small files beside the lake's tables, one for each whole span.
//!
//! Keys are made by whoever joins the crates; here they are numbers. Two things with the same key
//! only cost a look. A file that is damaged, or that was made of another journal, says so when it is
//! opened or when its list is read, and whoever asks reads the span from the journal instead.
//!
//! Left out on purpose: what a record says, and whether its content is still there.

use crate::journal::SPAN_LEAVES;
use crate::store::{Hash, Lock, Store, sha256};
use crate::{LakeError, wait};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const MAGIC: &[u8; 8] = b"PLLEAF1\n";
/// Magic, first leaf, kinds, anchor, keys, blocks.
const HEAD_BYTES: usize = 8 + 8 + 8 + 32 + 4 + 4;
/// Key, place of its list, bytes of it, check of it.
const KEY_BYTES: usize = 8 + 8 + 4 + 4;
const BLOCK_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Leaves of which the earliest and the latest time are kept.
const BLOCK_LEAVES: u64 = 4096;
const BLOCKS: usize = (SPAN_LEAVES / BLOCK_LEAVES) as usize;
/// Where the files are.
const DIR: &str = "leaves";

/// Lists of one span in the making, of leaves that come in order.
pub struct LeafLists {
    first: u64,
    kinds: u64,
    lists: BTreeMap<u64, List>,
    times: Vec<(i64, i64)>,
}

#[derive(Default)]
struct List {
    /// Differences to the leaf before, seven bits a byte.
    bytes: Vec<u8>,
    last: u64,
}

impl LeafLists {
    /// Of the span that begins with this leaf.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            kinds: 0,
            lists: BTreeMap::new(),
            times: vec![(i64::MAX, i64::MIN); BLOCKS],
        }
    }

    /// The next leaf: when, of which kind, and under which keys. `None` for time and kind: they
    /// cannot be read.
    pub fn add(&mut self, leaf: u64, header: Option<(i64, u16)>, keys: &[u64]) {
        let at = leaf.saturating_sub(self.first);
        let (from, to) = header.map_or((i64::MIN, i64::MAX), |(wall, _)| (wall, wall));
        self.kinds |= header.map_or(u64::MAX, |(_, kind)| kind_bit(kind));
        if let Some(times) = self.times.get_mut((at / BLOCK_LEAVES) as usize) {
            *times = (times.0.min(from), times.1.max(to));
        }
        for key in keys {
            let list = self.lists.entry(*key).or_default();
            // one more than the place, so that zero is before all
            let place = at + 1;
            if place > list.last {
                varint(&mut list.bytes, place - list.last);
                list.last = place;
            }
        }
    }

    /// The file's bytes. `anchor` is whatever tells this journal's span from another one's.
    pub fn encode(&self, anchor: &Hash) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.first.to_le_bytes());
        out.extend(self.kinds.to_le_bytes());
        out.extend(anchor);
        out.extend(number(self.lists.len()));
        out.extend(number(self.times.len()));
        for (from, to) in &self.times {
            out.extend(from.to_le_bytes());
            out.extend(to.to_le_bytes());
        }
        let mut at = out.len() + self.lists.len() * KEY_BYTES + HASH_BYTES;
        for (key, list) in &self.lists {
            out.extend(key.to_le_bytes());
            out.extend((at as u64).to_le_bytes());
            out.extend(number(list.bytes.len()));
            out.extend(check(&list.bytes));
            at += list.bytes.len();
        }
        let hash = sha256(&out);
        out.extend(hash);
        self.lists.values().for_each(|list| out.extend(&list.bytes));
        out
    }
}

/// What one file says but for its lists, which are read when they are asked for.
pub struct SpanLeaves {
    first: u64,
    kinds: u64,
    anchor: Hash,
    bytes: Vec<u8>,
    times: Vec<(i64, i64)>,
    keys: Range<usize>,
}

impl SpanLeaves {
    /// `None`: damaged, of another span or of another layout.
    fn decode(first: u64, bytes: Vec<u8>) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES).filter(|h| h.starts_with(MAGIC))?;
        let long = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let (keys, blocks) = (short(56)? as usize, short(60)? as usize);
        let keys_at = HEAD_BYTES.checked_add(blocks.checked_mul(BLOCK_BYTES)?)?;
        let keys_end = keys_at.checked_add(keys.checked_mul(KEY_BYTES)?)?;
        let hash = bytes.get(keys_end..keys_end.checked_add(HASH_BYTES)?)?;
        if long(8)? != first || blocks != BLOCKS || sha256(&bytes[..keys_end]) != hash {
            return None;
        }
        // lists stand one behind the other, to the end
        let entries = bytes[keys_at..keys_end].as_chunks::<KEY_BYTES>().0;
        let end = entries.last().map_or(Some(keys_end + HASH_BYTES), |raw| {
            let (at, bytes) = place(raw)?;
            at.checked_add(bytes)
        });
        if end != Some(bytes.len()) {
            return None;
        }
        let times = bytes[HEAD_BYTES..keys_at].as_chunks::<BLOCK_BYTES>().0;
        let time = |raw: &[u8; BLOCK_BYTES]| {
            let of = |b: &[u8]| b.first_chunk().map_or(0, |b| i64::from_le_bytes(*b));
            (of(&raw[..8]), of(&raw[8..]))
        };
        Some(Self {
            first,
            kinds: long(16)?,
            anchor: *head.get(24..)?.first_chunk()?,
            times: times.iter().map(time).collect(),
            keys: keys_at..keys_end,
            bytes,
        })
    }

    /// The first leaf.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// What tells its journal's span from another one's.
    pub fn anchor(&self) -> &Hash {
        &self.anchor
    }

    /// Whether it has records of a kind; a kind too many may be said to be there.
    pub fn has_kind(&self, kind: u16) -> bool {
        self.kinds & kind_bit(kind) != 0
    }

    /// Whether some leaf can lie between these times, both included.
    pub fn touches(&self, from: i64, to: i64) -> bool {
        self.times.iter().any(|t| t.0 <= to && t.1 >= from)
    }

    /// Leaves that bear one of `keys` and can lie between these times, in order. `None`: a list is
    /// damaged.
    pub fn leaves(&self, keys: &[u64], from: i64, to: i64) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        for key in keys {
            if let Some(entry) = self.entry(*key) {
                found.extend(self.list(entry)?);
            }
        }
        found.retain(|leaf| {
            let block = ((leaf - self.first) / BLOCK_LEAVES) as usize;
            let times = self.times.get(block);
            times.is_none_or(|t| t.0 <= to && t.1 >= from)
        });
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    fn entry(&self, key: u64) -> Option<&[u8; KEY_BYTES]> {
        let entries = self.bytes[self.keys.clone()].as_chunks::<KEY_BYTES>().0;
        let of = |raw: &[u8; KEY_BYTES]| raw.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let at = entries.binary_search_by_key(&key, of).ok()?;
        entries.get(at)
    }

    fn list(&self, raw: &[u8; KEY_BYTES]) -> Option<Vec<u64>> {
        let (at, bytes) = place(raw)?;
        let list = self.bytes.get(at..at.checked_add(bytes)?)?;
        if check(list) != raw[20..24] {
            return None;
        }
        let mut leaves = Vec::new();
        let (mut place, mut value, mut shift) = (0_u64, 0_u64, 0);
        for byte in list {
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                place = place.checked_add(value).filter(|p| *p <= SPAN_LEAVES)?;
                leaves.push(self.first + place.checked_sub(1)?);
                (value, shift) = (0, 0);
            }
        }
        Some(leaves)
    }
}

/// All files of one directory.
pub struct LeafIndex {
    store: Store,
    /// First leaves of spans, and bytes of their files.
    spans: BTreeMap<u64, u64>,
}

/// Held by the one who writes.
pub struct LeafWriter<'a> {
    index: &'a mut LeafIndex,
    _lock: Lock,
}

impl LeafIndex {
    /// What is in the lake's directory.
    ///
    /// # Errors
    /// When it cannot be made or listed.
    pub fn open(dir: &Path) -> Result<Self, LakeError> {
        Self::on(Store::local(dir)?)
    }

    fn on(store: Store) -> Result<Self, LakeError> {
        let names = wait(store.list(DIR))?;
        let spans = names.into_iter().filter_map(|(name, bytes)| {
            let first = name.strip_prefix(DIR)?.strip_prefix('/')?;
            let first: u64 = first.strip_suffix(".idx")?.parse().ok()?;
            (first.is_multiple_of(SPAN_LEAVES) && name == name_of(first)).then_some((first, bytes))
        });
        let spans = spans.collect();
        Ok(Self { store, spans })
    }

    /// First leaves of the spans that have a file, in order.
    pub fn spans(&self) -> impl Iterator<Item = u64> {
        self.spans.keys().copied()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.spans.values().sum()
    }

    /// What the file of a span says; `None`: it is damaged, missing, or of another layout.
    pub fn read(&self, first: u64) -> Option<SpanLeaves> {
        let bytes = wait(self.store.get(&name_of(first))).ok()?;
        SpanLeaves::decode(first, bytes)
    }

    /// To write files; `None`: another process does.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&mut self) -> Result<Option<LeafWriter<'_>>, LakeError> {
        let Some(lock) = self.store.lock()? else {
            return Ok(None);
        };
        // another one may have been here before the lock was ours
        *self = Self::on(self.store.clone())?;
        Ok(Some(LeafWriter {
            index: self,
            _lock: lock,
        }))
    }
}

impl LeafWriter<'_> {
    /// Whether a span has a file.
    pub fn has(&self, first: u64) -> bool {
        self.index.spans.contains_key(&first)
    }

    /// Writes the file of a span, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, lists: &LeafLists, anchor: &Hash) -> Result<(), LakeError> {
        let bytes = lists.encode(anchor);
        let size = bytes.len() as u64;
        wait(self.index.store.put(&name_of(lists.first), bytes))?;
        self.index.spans.insert(lists.first, size);
        Ok(())
    }

    /// Removes the file of a span.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&mut self, first: u64) -> Result<(), LakeError> {
        self.index.spans.remove(&first);
        wait(self.index.store.remove(&name_of(first)))
    }
}

/// Where a list begins, and its bytes.
fn place(raw: &[u8; KEY_BYTES]) -> Option<(usize, usize)> {
    let at = u64::from_le_bytes(*raw[8..].first_chunk()?);
    let bytes = u32::from_le_bytes(*raw[16..].first_chunk()?);
    Some((usize::try_from(at).ok()?, bytes as usize))
}

fn name_of(first: u64) -> String {
    format!("{DIR}/{first:020}.idx")
}

/// Kinds beyond 63 share their place with others.
fn kind_bit(kind: u16) -> u64 {
    1 << (kind % 64)
}

fn number(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let hash = sha256(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = 2 * SPAN_LEAVES;
    const ALL: (i64, i64) = (i64::MIN, i64::MAX);

    fn file() -> Vec<u8> {
        let mut made = LeafLists::new(FIRST);
        for n in 0..20_000_u64 {
            let keys = match n % 1000 {
                0 => vec![1, n + 10],
                7 => vec![1, 2],
                _ => vec![],
            };
            made.add(FIRST + n, Some((n as i64, 3)), &keys);
        }
        made.encode(&[9; 32])
    }

    #[test]
    fn every_leaf_of_a_key_is_found_and_none_beside() {
        let file = SpanLeaves::decode(FIRST, file()).unwrap();
        let of = |keys: &[u64]| file.leaves(keys, ALL.0, ALL.1).unwrap();
        let those = |test: fn(u64) -> bool| -> Vec<u64> {
            (0..20_000)
                .filter(|n| test(*n))
                .map(|n| FIRST + n)
                .collect()
        };
        assert_eq!(of(&[2]), those(|n| n % 1000 == 7));
        assert_eq!(of(&[5010]), [FIRST + 5000]);
        assert_eq!(of(&[5001]), [0; 0]);
        assert_eq!(of(&[1, 2]), those(|n| [0, 7].contains(&(n % 1000))));
        let late = file.leaves(&[2], 15_000, 16_100).unwrap();
        assert!(late.contains(&(FIRST + 15_007)) && late.contains(&(FIRST + 16_007)));
        assert!(!late.contains(&(FIRST + 1007)), "other times are left out");
        assert!(file.touches(19_999, 30_000) && !file.touches(20_001, 30_000));
        assert!(file.has_kind(3) && !file.has_kind(4));
        assert_eq!((file.first(), file.anchor()), (FIRST, &[9; 32]));
    }

    #[test]
    fn a_leaf_that_cannot_be_read_may_be_of_any_kind_and_time() {
        let mut made = LeafLists::new(0);
        made.add(5, None, &[8]);
        let file = SpanLeaves::decode(0, made.encode(&[0; 32])).unwrap();
        assert!(file.has_kind(40));
        assert_eq!(file.leaves(&[8], 77, 77), Some(vec![5]));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_hides_a_leaf() {
        let bytes = file();
        let whole = SpanLeaves::decode(FIRST, bytes.clone()).unwrap();
        let wanted = whole.leaves(&[1], ALL.0, ALL.1);
        let of = |bytes: Vec<u8>| {
            let file = SpanLeaves::decode(FIRST, bytes)?;
            file.leaves(&[1], ALL.0, ALL.1)
        };
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let found = of(bad);
            assert!(found.is_none() || found == wanted, "byte {at}");
        }
        for cut in (0..bytes.len()).step_by(7) {
            let found = of(bytes[..cut].to_vec());
            assert!(found.is_none() || found == wanted, "{cut} bytes");
        }
        assert!(SpanLeaves::decode(0, bytes).is_none(), "of another span");
    }
}
