//! Which leaves to look at: for each key (a container's records of a kind, a peer, an alert), the
//! leaves that bear it. Files beside the lake's tables; sixteen of a size become one of the next.
//!
//! Keys are made by whoever joins the crates; here they are numbers. Two things with the same key
//! only cost a look. A file is read where it is asked for, not as a whole. One that is damaged, or
//! that was made of another journal, says so when it is opened or when a list is read, and whoever
//! asks reads those leaves from the journal instead.
//!
//! What every question reads (few records, all over the journal) is copied beside the lists, so that it
//! comes with one reading. Which records those are is whoever's business who makes the lists.
//!
//! Left out on purpose: what a record says, and whether its content is still there.

use crate::store::{Hash, Lock, Ranged, Store};
use crate::{LakeError, wait};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

mod copies;
mod merge;

pub use copies::{Copied, Copies};

/// Leaves of one file, by size. Files begin at multiples of their own size.
pub const LIST_LEAVES: [u64; 4] = [4096, 65_536, 1_048_576, 16_777_216];

const MAGIC: &[u8; 8] = b"PLLEAF3\n";
/// Magic, first leaf, end, anchor, blocks, entries, bytes of the file, bytes of the copies.
const HEAD_BYTES: usize = 8 + 8 + 8 + 32 + 4 + 4 + 8 + 8;
/// Key, place of its list behind the pages, bytes of it, check of it.
const ENTRY_BYTES: usize = 8 + 8 + 4 + 4;
/// Entries that are read at once.
const PAGE_ENTRIES: usize = 128;
/// Earliest time, latest time, kinds.
const BLOCK_BYTES: usize = 8 + 8 + 8;
/// First key and check of a page.
const FENCE_BYTES: usize = 8 + 4;
const CHECK_BYTES: usize = 4;
/// Instead of the bytes of copies, where they were too many to be kept.
const NO_COPIES: u64 = u64::MAX;
/// Leaves of which the earliest and the latest time and the kinds are kept.
const BLOCK_LEAVES: u64 = LIST_LEAVES[0];
/// Where the files are.
const DIR: &str = "leaves";

/// Lists in the making, of leaves that come in order.
pub struct LeafLists {
    first: u64,
    lists: BTreeMap<u64, List>,
    blocks: Vec<Block>,
    copies: copies::Made,
}

#[derive(Default)]
struct List {
    /// Differences to the leaf before, seven bits a byte.
    bytes: Vec<u8>,
    last: u64,
}

#[derive(Clone, Copy)]
struct Block {
    from: i64,
    to: i64,
    /// Bit `kind mod 64`.
    kinds: u64,
}

impl Block {
    const EMPTY: Self = Self {
        from: i64::MAX,
        to: i64::MIN,
        kinds: 0,
    };

    fn touches(self, from: i64, to: i64) -> bool {
        self.from <= to && self.to >= from
    }

    fn lies_in(self, from: i64, to: i64) -> bool {
        self.from >= from && self.to <= to
    }
}

impl LeafLists {
    /// Of leaves from this one on.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            lists: BTreeMap::new(),
            blocks: Vec::new(),
            copies: copies::Made::default(),
        }
    }

    /// Keeps a copy of what the leaf that was added last holds.
    pub fn copy(&mut self, copied: &Copied<'_>) {
        self.copies.add(copied);
    }

    /// The next leaf: when, of which kind, and under which keys. `None` for time and kind: they
    /// cannot be read.
    pub fn add(&mut self, leaf: u64, header: Option<(i64, u16)>, keys: &[u64]) {
        let at = leaf.saturating_sub(self.first);
        let block = (at / BLOCK_LEAVES) as usize;
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, Block::EMPTY);
        }
        let (from, to) = header.map_or((i64::MIN, i64::MAX), |(wall, _)| (wall, wall));
        let kinds = header.map_or(u64::MAX, |(_, kind)| kind_bit(kind));
        let block = &mut self.blocks[block];
        (block.from, block.to) = (block.from.min(from), block.to.max(to));
        block.kinds |= kinds;
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

    /// The file's bytes, of all leaves before `end`. `anchor` is whatever tells this journal's
    /// leaves from another one's.
    pub fn encode(&self, end: u64, anchor: &Hash) -> Vec<u8> {
        let mut made = Made::default();
        for (key, list) in &self.lists {
            made.add(*key, &list.bytes);
        }
        let blocks = (end - self.first).div_ceil(BLOCK_LEAVES) as usize;
        let mut all = self.blocks.clone();
        all.resize(blocks, Block::EMPTY);
        made.file(
            self.first..end,
            &all,
            anchor,
            self.copies.encode().as_deref(),
        )
    }

    /// The same as a file that is only in memory.
    pub fn in_memory(&self, end: u64) -> Option<LeafFile> {
        let bytes = self.encode(end, &[0; 32]);
        LeafFile::open(self.first..end, Ranged::Memory(bytes))
    }
}

/// Entries and lists of a file in the making; keys come in order.
#[derive(Default)]
struct Made {
    entries: Vec<u8>,
    lists: Vec<u8>,
}

impl Made {
    fn add(&mut self, key: u64, list: &[u8]) {
        self.entries.extend(key.to_le_bytes());
        self.entries.extend((self.lists.len() as u64).to_le_bytes());
        self.entries.extend(number(list.len()));
        self.entries.extend(check(list));
        self.lists.extend(list);
    }

    fn file(
        &self,
        leaves: Range<u64>,
        blocks: &[Block],
        anchor: &Hash,
        copies: Option<&[u8]>,
    ) -> Vec<u8> {
        let copied = copies.unwrap_or_default();
        let pages = self.entries.chunks(PAGE_ENTRIES * ENTRY_BYTES);
        let head = HEAD_BYTES + blocks.len() * BLOCK_BYTES + pages.len() * FENCE_BYTES;
        let bytes = head + CHECK_BYTES + self.entries.len() + self.lists.len() + copied.len();
        let mut out = Vec::with_capacity(bytes);
        out.extend(MAGIC);
        out.extend(leaves.start.to_le_bytes());
        out.extend(leaves.end.to_le_bytes());
        out.extend(anchor);
        out.extend(number(blocks.len()));
        out.extend(number(self.entries.len() / ENTRY_BYTES));
        out.extend((bytes as u64).to_le_bytes());
        out.extend(copies.map_or(NO_COPIES, |c| c.len() as u64).to_le_bytes());
        for block in blocks {
            out.extend(block.from.to_le_bytes());
            out.extend(block.to.to_le_bytes());
            out.extend(block.kinds.to_le_bytes());
        }
        for page in pages {
            out.extend(&page[..8]);
            out.extend(check(page));
        }
        let head = check(&out);
        out.extend(head);
        out.extend(&self.entries);
        out.extend(&self.lists);
        out.extend(copied);
        out
    }
}

/// What one file says; its lists are read when they are asked for.
pub struct LeafFile {
    leaves: Range<u64>,
    anchor: Hash,
    blocks: Vec<Block>,
    /// First keys of the pages, and their checks.
    fences: Vec<(u64, [u8; CHECK_BYTES])>,
    entries: usize,
    pages_at: u64,
    /// One past the last list.
    lists_end: u64,
    /// How many bytes of copies follow; `None`: none were kept.
    copies: Option<usize>,
    file: Ranged,
}

/// One list of a file: where, how long, and its check.
struct Entry {
    key: u64,
    at: u64,
    bytes: usize,
    check: [u8; CHECK_BYTES],
}

impl LeafFile {
    /// The same of bytes at hand. `None`: they are none.
    pub fn of_bytes(leaves: Range<u64>, bytes: Vec<u8>) -> Option<Self> {
        Self::open(leaves, Ranged::Memory(bytes))
    }

    /// The bytes of one file of all `parts`, which cover `leaves` one behind the other.
    ///
    /// # Errors
    /// Which part is damaged.
    pub fn merged(leaves: Range<u64>, parts: &[LeafFile]) -> Result<Vec<u8>, usize> {
        merge::merged(&leaves, parts)
    }

    /// `None`: damaged, of other leaves or of another layout.
    fn open(leaves: Range<u64>, file: Ranged) -> Option<Self> {
        let head = file.read(0, HEAD_BYTES)?;
        let long = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?) as usize);
        let (blocks, entries, bytes) = (short(56)?, short(60)?, long(64)?);
        let copies = Some(long(72)?).filter(|copies| *copies != NO_COPIES);
        let ours = head.starts_with(MAGIC) && long(8)? == leaves.start && long(16)? == leaves.end;
        let wanted = (leaves.end.checked_sub(leaves.start)?).div_ceil(BLOCK_LEAVES);
        if !ours || blocks as u64 != wanted || bytes != file.bytes()? {
            return None;
        }
        let pages = entries.div_ceil(PAGE_ENTRIES);
        let rest = blocks * BLOCK_BYTES + pages * FENCE_BYTES;
        let pages_at = (HEAD_BYTES + rest + CHECK_BYTES) as u64;
        let lists_at = pages_at.checked_add((entries * ENTRY_BYTES) as u64)?;
        let lists_end = bytes.checked_sub(copies.unwrap_or_default())?;
        // before anything of that size is read
        if lists_at > lists_end {
            return None;
        }
        let raw = file.read(HEAD_BYTES as u64, rest + CHECK_BYTES)?;
        let (said, checked) = raw.split_at(rest);
        if checked != check(&[&head, said].concat()) {
            return None;
        }
        let (of_blocks, of_pages) = said.split_at(blocks * BLOCK_BYTES);
        let fence = |raw: &[u8; FENCE_BYTES]| Some((u64_at(raw, 0)?, *raw[8..].first_chunk()?));
        Some(Self {
            anchor: *head.get(24..)?.first_chunk()?,
            blocks: of_blocks.as_chunks().0.iter().map(block).collect(),
            fences: of_pages.as_chunks().0.iter().filter_map(fence).collect(),
            entries,
            pages_at,
            lists_end,
            copies: copies.and_then(|copies| usize::try_from(copies).ok()),
            leaves,
            file,
        })
    }

    /// The leaves that it lists.
    pub fn leaves(&self) -> Range<u64> {
        self.leaves.clone()
    }

    /// What tells its journal's leaves from another one's.
    pub fn anchor(&self) -> &Hash {
        &self.anchor
    }

    /// Whether there are records of a kind among these leaves; a kind too many may be said to be
    /// there.
    pub fn has_kind(&self, kind: u16, among: &Range<u64>) -> bool {
        let of = |leaf: u64| leaf.saturating_sub(self.leaves.start) / BLOCK_LEAVES;
        let end = (of(among.end.saturating_sub(1)) as usize + 1).min(self.blocks.len());
        let blocks = self.blocks.get(of(among.start) as usize..end);
        blocks.is_some_and(|b| b.iter().any(|b| b.kinds & kind_bit(kind) != 0))
    }

    /// Whether some of these leaves can lie between these times, both included.
    pub fn touches(&self, from: i64, to: i64) -> bool {
        self.blocks.iter().any(|b| b.touches(from, to))
    }

    /// Whether a leaf lies between these times; `None`: it may, and itself knows.
    pub fn is_between(&self, leaf: u64, from: i64, to: i64) -> Option<bool> {
        let block = self.block_of(leaf)?;
        match (block.lies_in(from, to), block.touches(from, to)) {
            (true, _) => Some(true),
            (_, false) => Some(false),
            _ => None,
        }
    }

    /// The latest time that a leaf can have.
    pub fn latest(&self, leaf: u64) -> i64 {
        self.block_of(leaf).map_or(i64::MAX, |b| b.to)
    }

    fn block_of(&self, leaf: u64) -> Option<&Block> {
        let at = leaf.checked_sub(self.leaves.start)? / BLOCK_LEAVES;
        self.blocks.get(usize::try_from(at).ok()?)
    }

    /// Leaves that bear one of `keys` and can lie between these times, in order. `None`: a list is
    /// damaged.
    pub fn find(&self, keys: &[u64], from: i64, to: i64) -> Option<Vec<u64>> {
        let mut found = Vec::new();
        for key in keys {
            if let Some(entry) = self.entry(*key)? {
                decode(&self.list(&entry)?, &self.leaves, &mut found)?;
            }
        }
        found.retain(|leaf| self.is_between(*leaf, from, to) != Some(false));
        found.sort();
        found.dedup();
        Some(found)
    }

    /// Whether what was to be copied is here.
    pub fn has_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// The copies, in the order of their leaves. `None`: damaged, or none were kept.
    pub fn copies(&self) -> Option<Copies> {
        Copies::checked(self.file.read(self.lists_end, self.copies?)?)
    }

    /// Outer `None`: damaged; inner: not listed.
    fn entry(&self, key: u64) -> Option<Option<Entry>> {
        let Some(page) = self.fences.partition_point(|f| f.0 <= key).checked_sub(1) else {
            return Some(None);
        };
        let entries = self.page(page)?;
        let at = entries.binary_search_by_key(&key, |raw| u64_at(raw, 0).unwrap_or(0));
        Some(at.ok().and_then(|at| entry(&entries[at])))
    }

    fn page(&self, page: usize) -> Option<Vec<[u8; ENTRY_BYTES]>> {
        let first = page * PAGE_ENTRIES;
        let entries = PAGE_ENTRIES.min(self.entries.checked_sub(first)?);
        let at = self.pages_at + (first * ENTRY_BYTES) as u64;
        let raw = self.file.read(at, entries * ENTRY_BYTES)?;
        (check(&raw) == self.fences.get(page)?.1).then(|| raw.as_chunks().0.to_vec())
    }

    fn list(&self, entry: &Entry) -> Option<Vec<u8>> {
        let lists_at = self.pages_at + (self.entries * ENTRY_BYTES) as u64;
        let at = lists_at.checked_add(entry.at)?;
        if at.checked_add(entry.bytes as u64)? > self.lists_end {
            return None;
        }
        let list = self.file.read(at, entry.bytes)?;
        (check(&list) == entry.check).then_some(list)
    }
}

/// The leaves of a list, behind those that were found before. `None`: it is none.
fn decode(list: &[u8], leaves: &Range<u64>, found: &mut Vec<u64>) -> Option<()> {
    let mut place = 0_u64;
    each_distance(list, |distance| {
        place = place.checked_add(distance)?;
        let leaf = leaves.start.checked_add(place.checked_sub(1)?)?;
        found.push(Some(leaf).filter(|leaf| *leaf < leaves.end)?);
        Some(())
    })
}

/// The numbers of a list, from place to place. `None`: it is none.
fn each_distance(list: &[u8], mut each: impl FnMut(u64) -> Option<()>) -> Option<()> {
    let (mut value, mut shift) = (0_u64, 0);
    for byte in list {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            each(value)?;
            (value, shift) = (0, 0);
        }
    }
    Some(())
}

/// All files of one directory.
pub struct LeafIndex {
    store: Store,
    /// By first leaf, none inside another: end, and bytes of the file.
    files: BTreeMap<u64, (u64, u64)>,
    /// Names that nobody needs: what larger files were made of, and older layouts.
    rest: Vec<String>,
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
        let (mut all, mut rest) = (Vec::new(), Vec::new());
        for (name, bytes) in names {
            match leaves_of(&name) {
                Some(leaves) => all.push((leaves, bytes)),
                None => rest.push(name),
            }
        }
        // the larger first, so that it stands over what it was made of
        all.sort_by_key(|(leaves, _)| (leaves.start, std::cmp::Reverse(leaves.end)));
        let mut files = BTreeMap::new();
        let mut covered = 0;
        for (leaves, bytes) in all {
            if leaves.end <= covered {
                rest.push(name_of(&leaves));
            } else {
                covered = leaves.end;
                files.insert(leaves.start, (leaves.end, bytes));
            }
        }
        Ok(Self { store, files, rest })
    }

    /// Leaves that have a file, file by file.
    pub fn files(&self) -> impl Iterator<Item = Range<u64>> {
        self.files.iter().map(|(first, (end, _))| *first..*end)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(_, bytes)| bytes).sum()
    }

    /// The file that begins with a leaf; `None`: it is damaged, missing, or of another layout.
    pub fn read(&self, first: u64) -> Option<LeafFile> {
        let (end, bytes) = *self.files.get(&first)?;
        let leaves = first..end;
        let file = self.store.ranged(&name_of(&leaves), bytes)?;
        LeafFile::open(leaves, file)
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
    /// Leaves that have a file, file by file.
    pub fn files(&self) -> impl Iterator<Item = Range<u64>> {
        self.index.files()
    }

    /// The file that begins with a leaf.
    pub fn read(&self, first: u64) -> Option<LeafFile> {
        self.index.read(first)
    }

    /// Writes the file of all leaves of these lists, whole or not at all. There must be as many as
    /// a file has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, lists: &LeafLists, end: u64, anchor: &Hash) -> Result<(), LakeError> {
        self.keep(lists.first..end, lists.encode(end, anchor))
    }

    fn keep(&mut self, leaves: Range<u64>, file: Vec<u8>) -> Result<(), LakeError> {
        let bytes = file.len() as u64;
        wait(self.index.store.put(&name_of(&leaves), file))?;
        let inside = self.index.files.range(leaves.clone());
        let inside: Vec<Range<u64>> = inside.map(|(first, (end, _))| *first..*end).collect();
        for part in inside.into_iter().filter(|part| *part != leaves) {
            self.index.files.remove(&part.start);
            self.index.rest.push(name_of(&part));
        }
        self.index.files.insert(leaves.start, (leaves.end, bytes));
        Ok(())
    }

    /// Makes one of sixteen, as long as there are sixteen; what is damaged is removed instead, to be
    /// made again.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn merge(&mut self) -> Result<(), LakeError> {
        while let Some(leaves) = self.next_merge() {
            let parts: Vec<Range<u64>> =
                self.files().filter(|f| leaves.contains(&f.start)).collect();
            let mut whole = Vec::new();
            for part in &parts {
                match self.index.in_memory(part) {
                    Some(file) => whole.push(file),
                    None => self.forget(part.start)?,
                }
            }
            if whole.len() < parts.len() {
                continue;
            }
            match merge::merged(&leaves, &whole) {
                Ok(file) => {
                    drop(whole);
                    self.keep(leaves, file)?;
                    self.tidy()?;
                }
                Err(part) => self.forget(whole[part].leaves.start)?,
            }
        }
        self.tidy()
    }

    fn next_merge(&self) -> Option<Range<u64>> {
        LIST_LEAVES.windows(2).find_map(|sizes| {
            let (small, large) = (sizes[0], sizes[1]);
            let of_size: Vec<u64> = self
                .files()
                .filter(|f| f.end - f.start == small)
                .map(|f| f.start)
                .collect();
            let parts = (large / small) as usize;
            of_size
                .windows(parts)
                .find(|w| w[0].is_multiple_of(large) && w[parts - 1] == w[0] + large - small)
                .map(|w| w[0]..w[0] + large)
        })
    }

    /// Removes what nobody needs.
    fn tidy(&mut self) -> Result<(), LakeError> {
        std::mem::take(&mut self.index.rest)
            .iter()
            .try_for_each(|name| wait(self.index.store.remove(name)))
    }

    /// Removes the file that begins with a leaf.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&mut self, first: u64) -> Result<(), LakeError> {
        match self.index.files.remove(&first) {
            Some((end, _)) => wait(self.index.store.remove(&name_of(&(first..end)))),
            None => Ok(()),
        }
    }
}

impl LeafIndex {
    /// A file read as a whole.
    fn in_memory(&self, leaves: &Range<u64>) -> Option<LeafFile> {
        let bytes = wait(self.store.get(&name_of(leaves))).ok()?;
        LeafFile::open(leaves.clone(), Ranged::Memory(bytes))
    }
}

fn name_of(leaves: &Range<u64>) -> String {
    format!("{DIR}/{:020}-{:020}.list", leaves.start, leaves.end)
}

/// The leaves of a file by its name; `None`: it is none of this layout.
fn leaves_of(name: &str) -> Option<Range<u64>> {
    let own = name.strip_prefix(DIR)?.strip_prefix('/')?;
    let (first, end) = own.strip_suffix(".list")?.split_once('-')?;
    let (first, end): (u64, u64) = (first.parse().ok()?, end.parse().ok()?);
    let leaves = first..end;
    let size = leaves.end.checked_sub(leaves.start)?;
    let fits = LIST_LEAVES.contains(&size) && leaves.start.is_multiple_of(size);
    (fits && name == name_of(&leaves)).then_some(leaves)
}

fn u64_at(raw: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*raw.get(at..)?.first_chunk()?))
}

fn entry(raw: &[u8; ENTRY_BYTES]) -> Option<Entry> {
    Some(Entry {
        key: u64_at(raw, 0)?,
        at: u64_at(raw, 8)?,
        bytes: u32::from_le_bytes(*raw[16..].first_chunk()?) as usize,
        check: *raw[20..].first_chunk()?,
    })
}

fn block(raw: &[u8; BLOCK_BYTES]) -> Block {
    let of = |at| u64_at(raw, at).unwrap_or(0);
    Block {
        from: of(0) as i64,
        to: of(8) as i64,
        kinds: of(16),
    }
}

/// Kinds beyond 63 share their place with others.
fn kind_bit(kind: u16) -> u64 {
    1 << (kind % 64)
}

fn number(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

/// Against what a disk does, not against people: they can write whole files.
fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    crc32c::crc32c(bytes).to_le_bytes()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
