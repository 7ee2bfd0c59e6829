//! Blocks of dense counter numbers, one block for each watched instance.
//!
//! Promises: blocks never overlap, numbers that the kernel gives out by itself are never in one,
//! and the space is bounded: when it is used up the caller gets `None` and the instance goes
//! without counters. Pure: the counters themselves are the kernel's.

use std::collections::BTreeMap;

/// Numbers below this are the kernel's own: one for each new behaviour (0: not counted).
pub const KERNEL_NUMBERS: u32 = 1 << 16;
/// Numbers in the kernel's array of counters (`DENSE_MAX` in `bpf/wire.h`).
pub const NUMBERS: u32 = 1 << 18;

/// A range of counter numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First number.
    pub base: u32,
    /// How many.
    pub len: u32,
}

/// Gives out blocks, first fit.
#[derive(Debug)]
pub struct Blocks {
    /// Free ranges by their first number; neighbours are joined.
    free: BTreeMap<u32, u32>,
}

impl Blocks {
    /// All numbers of this range are free.
    pub fn new(numbers: std::ops::Range<u32>) -> Self {
        Self {
            free: (!numbers.is_empty())
                .then(|| (numbers.start, numbers.end - numbers.start))
                .into_iter()
                .collect(),
        }
    }

    /// A block of `len` numbers, if there is room.
    pub fn take(&mut self, len: u32) -> Option<Block> {
        if len == 0 {
            return None;
        }
        let (&base, &have) = self.free.iter().find(|(_, have)| **have >= len)?;
        self.free.remove(&base);
        if have > len {
            self.free.insert(base + len, have - len);
        }
        Some(Block { base, len })
    }

    /// Gives a block back.
    pub fn give_back(&mut self, block: Block) {
        let (mut base, mut len) = (block.base, block.len);
        if let Some((&before, &have)) = self.free.range(..base).next_back()
            && before + have == base
        {
            self.free.remove(&before);
            base = before;
            len += have;
        }
        if let Some(have) = self.free.remove(&(base + len)) {
            len += have;
        }
        self.free.insert(base, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_come_back_whole() {
        let mut blocks = Blocks::new(1..101);
        let a = blocks.take(40).unwrap();
        let b = blocks.take(40).unwrap();
        let c = blocks.take(20).unwrap();
        assert_eq!((a.base, b.base, c.base), (1, 41, 81));
        assert_eq!(blocks.take(1), None);
        blocks.give_back(a);
        blocks.give_back(c);
        blocks.give_back(b);
        assert_eq!(blocks.take(100), Some(Block { base: 1, len: 100 }));
    }
}
