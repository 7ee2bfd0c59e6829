//! The hash tree of RFC 6962 (section 2.1; the same tree in RFC 9162): roots, inclusion proofs
//! and consistency proofs over leaves that are only ever appended.
//!
//! Pure: hashes come from a [`Nodes`], and nothing here knows where they lie. A proof that was
//! made from wrong hashes does not verify, so whoever makes one may check it with the functions
//! below before handing it out.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Longest proof that can exist: one hash a level, and a little.
pub const PROOF_HASHES_MAX: usize = 65;

/// Hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(leaf)
        .finalize()
        .into()
}

/// Hash of two neighbours: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// Root of the tree of no leaves: the hash of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where the hashes of whole subtrees come from.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;
    /// Hash over the leaves `index << level .. (index + 1) << level`, all of which exist.
    ///
    /// # Errors
    /// When the hash cannot be had.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Leaf hashes in memory.
impl Nodes for [Hash] {
    type Error = std::convert::Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error> {
        let first = usize::try_from(index << level).unwrap_or(usize::MAX);
        let mut row: Vec<Hash> = self.iter().skip(first).take(1 << level).copied().collect();
        while row.len() > 1 {
            row = row
                .chunks(2)
                .map(|pair| node_hash(&pair[0], &pair[pair.len() - 1]))
                .collect();
        }
        Ok(row.first().copied().unwrap_or_else(empty_root))
    }
}

/// Largest power of two below `n`, for `n` from 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Hash of the leaves `first .. first + count`; `first` is a multiple of the power of two that
/// `count` fits into, as everywhere in this tree.
fn hash_of<N: Nodes + ?Sized>(nodes: &N, first: u64, count: u64) -> Result<Hash, N::Error> {
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return nodes.node(level, first >> level);
    }
    let left = split(count);
    Ok(node_hash(
        &hash_of(nodes, first, left)?,
        &hash_of(nodes, first + left, count - left)?,
    ))
}

/// Root of the first `size` leaves.
///
/// # Errors
/// When a hash cannot be had.
pub fn root<N: Nodes + ?Sized>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    match size {
        0 => Ok(empty_root()),
        _ => hash_of(nodes, 0, size),
    }
}

/// Proof that the leaf `leaf` is in the tree of `size` leaves (`leaf < size`).
///
/// # Errors
/// When a hash cannot be had.
pub fn inclusion<N: Nodes + ?Sized>(
    nodes: &N,
    leaf: u64,
    size: u64,
) -> Result<Vec<Hash>, N::Error> {
    let (mut first, mut count, mut proof) = (0, size, Vec::new());
    while count > 1 {
        let left = split(count);
        if leaf < first + left {
            proof.push(hash_of(nodes, first + left, count - left)?);
            count = left;
        } else {
            proof.push(hash_of(nodes, first, left)?);
            (first, count) = (first + left, count - left);
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree of `new` leaves begins with the tree of `old` (`0 < old <= new`; empty
/// when they are equal or `old` is 0).
///
/// # Errors
/// When a hash cannot be had.
pub fn consistency<N: Nodes + ?Sized>(
    nodes: &N,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, N::Error> {
    if old == 0 || old >= new {
        return Ok(Vec::new());
    }
    let (mut first, mut count, mut rest, mut proof) = (0, new, old, Vec::new());
    // Whether the old tree is one whole subtree so far, whose hash the verifier has.
    let mut whole = true;
    while rest != count {
        let left = split(count);
        if rest <= left {
            proof.push(hash_of(nodes, first + left, count - left)?);
            count = left;
        } else {
            proof.push(hash_of(nodes, first, left)?);
            (first, count, rest, whole) = (first + left, count - left, rest - left, false);
        }
    }
    if !whole {
        proof.push(hash_of(nodes, first, count)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that the leaf with hash `leaf` is number `index` of the tree of `size`
/// leaves with this root (RFC 9162, section 2.1.3.2).
pub fn includes(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut fnode, mut snode, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            hash = node_hash(step, &hash);
            while fnode & 1 == 0 && fnode != 0 {
                (fnode, snode) = (fnode >> 1, snode >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (fnode, snode) = (fnode >> 1, snode >> 1);
    }
    snode == 0 && hash == *root
}

/// Whether `proof` shows that the tree (`new`, `new_root`) begins with the tree (`old`,
/// `old_root`) (RFC 9162, section 2.1.4.2).
pub fn is_consistent(old: u64, new: u64, proof: &[Hash], old_root: &Hash, new_root: &Hash) -> bool {
    if old == 0 || old == new {
        let empty = old != 0 || *old_root == empty_root();
        return proof.is_empty() && empty && (old == 0 || old_root == new_root);
    }
    if old > new {
        return false;
    }
    let (mut fnode, mut snode) = (old - 1, new - 1);
    while fnode & 1 == 1 {
        (fnode, snode) = (fnode >> 1, snode >> 1);
    }
    let (start, steps) = match proof.split_first() {
        _ if old.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return false,
    };
    let (mut from, mut to) = (*start, *start);
    for step in steps {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            (from, to) = (node_hash(step, &from), node_hash(step, &to));
            while fnode & 1 == 0 && fnode != 0 {
                (fnode, snode) = (fnode >> 1, snode >> 1);
            }
        } else {
            to = node_hash(&to, step);
        }
        (fnode, snode) = (fnode >> 1, snode >> 1);
    }
    snode == 0 && from == *old_root && to == *new_root
}

/// Root over leaves pushed in order, in a few hashes of memory.
#[derive(Debug, Default, Clone)]
pub struct Peaks {
    /// (level, hash) of whole subtrees, largest first.
    peaks: Vec<(u32, Hash)>,
    size: u64,
}

impl Peaks {
    /// Appends one leaf hash.
    pub fn push(&mut self, hash: Hash) {
        self.push_whole(0, hash);
    }

    /// Appends a whole subtree of `1 << level` leaves; the size so far is a multiple of that.
    pub fn push_whole(&mut self, level: u32, hash: Hash) {
        debug_assert!(self.size.is_multiple_of(1 << level), "subtrees are aligned");
        self.size += 1 << level;
        let (mut level, mut hash) = (level, hash);
        while let Some((_, left)) = self.peaks.pop_if(|(peak, _)| *peak == level) {
            hash = node_hash(&left, &hash);
            level += 1;
        }
        self.peaks.push((level, hash));
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whole subtrees so far, (level, hash), largest first.
    pub fn whole(&self) -> &[(u32, Hash)] {
        &self.peaks
    }

    /// Root of the leaves so far.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(last, |right, left| node_hash(&left, &right))
    }
}
