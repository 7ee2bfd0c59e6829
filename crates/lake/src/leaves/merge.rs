//! Files that follow each other become one: keys in order, and under each key its lists, one behind
//! the other.

use super::{Entry, LeafFile, Made, copies, each_distance, entry, varint};
use std::ops::Range;

/// The bytes of one file of all `parts`, which cover `leaves`.
///
/// # Errors
/// Which part is damaged.
pub(super) fn merged(leaves: &Range<u64>, parts: &[LeafFile]) -> Result<Vec<u8>, usize> {
    let mut made = Made::default();
    let mut heads = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        heads.push(Head::new(part).ok_or(n)?);
    }
    while let Some(key) = heads
        .iter()
        .filter_map(|h| Some(h.entry.as_ref()?.key))
        .min()
    {
        let mut list = Joined::default();
        for (n, head) in heads.iter_mut().enumerate() {
            let Some(entry) = head.entry.take_if(|e| e.key == key) else {
                continue;
            };
            let before = head.part.leaves.start - leaves.start;
            let own = head.part.list(&entry).ok_or(n)?;
            list.append(&own, before).ok_or(n)?;
            head.next().ok_or(n)?;
        }
        made.add(key, &list.bytes);
    }
    let blocks: Vec<_> = parts.iter().flat_map(|p| &p.blocks).copied().collect();
    let last = parts.last().map_or([0; 32], |p| p.anchor);
    let mut copied = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        copied.push(match part.has_copies() {
            true => Some(part.copies().ok_or(n)?.into_bytes()),
            false => None,
        });
    }
    let copied = copies::joined(&copied);
    Ok(made.file(leaves.clone(), &blocks, &last, copied.as_deref()))
}

/// Where one part is.
struct Head<'a> {
    part: &'a LeafFile,
    page: usize,
    entries: std::vec::IntoIter<[u8; super::ENTRY_BYTES]>,
    entry: Option<Entry>,
}

impl<'a> Head<'a> {
    fn new(part: &'a LeafFile) -> Option<Self> {
        let mut head = Self {
            part,
            page: 0,
            entries: Vec::new().into_iter(),
            entry: None,
        };
        head.next()?;
        Some(head)
    }

    /// `None`: a page is damaged.
    fn next(&mut self) -> Option<()> {
        if self.entries.len() == 0 && self.page < self.part.fences.len() {
            self.entries = self.part.page(self.page)?.into_iter();
            self.page += 1;
        }
        self.entry = match self.entries.next() {
            Some(raw) => Some(entry(&raw)?),
            None => None,
        };
        Some(())
    }
}

/// Lists of one key, one behind the other.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    last: u64,
}

impl Joined {
    /// A list of leaves that begin `before` leaves behind the first; only its first distance
    /// changes. `None`: it is none.
    fn append(&mut self, list: &[u8], before: u64) -> Option<()> {
        let (mut first, mut place) = (None, before);
        each_distance(list, |distance| {
            place = place.checked_add(distance)?;
            first.get_or_insert(place);
            Some(())
        })?;
        let rest = list.iter().position(|byte| byte & 0x80 == 0)? + 1;
        varint(&mut self.bytes, first?.checked_sub(self.last)?);
        self.bytes.extend(&list[rest..]);
        self.last = place;
        Some(())
    }
}
