//! The tree's hashes on disk, in the layout of C2SP tlog-tiles: files of 256 hashes,
//! `tile/LEVEL/NUMBER`, and `tile/LEVEL/NUMBER.p/WIDTH` at the right edge of the last checkpoint.
//!
//! Promises: appending costs one file for 256 leaves; the right edge is found again at the
//! opening, and whatever is missing or wrong is made anew from the leaves. Nothing here is ever
//! synced or needed: every byte can be derived. Yet a tile also remembers the hash of a leaf that
//! was damaged later, so that the proofs of all other leaves stay whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::disk::{self, Disk, OpenMode};
use crate::error::ReadError;
use crate::filter::Filter;
use crate::merkle::{self, Hash, Nodes, Peaks};
use crate::reader::Reader;

/// Hashes of one whole tile.
pub(crate) const TILE_HASHES: usize = 256;
const TILE_BYTES: usize = TILE_HASHES * 32;
/// Tiles that wait for a disk that refuses; those beyond are made again at the next opening.
const WAITING_MAX: usize = 1024;
/// Tiles a reader keeps at hand.
const CACHED_MAX: usize = 2048;

/// What stands in the tree for a leaf of which nothing is left: the hash of an empty leaf.
pub(crate) fn lost_leaf() -> Hash {
    merkle::leaf_hash(&[])
}

/// `tile/LEVEL/NUMBER`, the number in groups of three digits.
pub(crate) fn tile_path(dir: &Path, level: u32, number: u64) -> PathBuf {
    let mut groups = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups
        .iter()
        .rev()
        .fold(dir.join("tile").join(level.to_string()), |path, group| {
            path.join(group)
        })
}

fn partial_path(dir: &Path, level: u32, number: u64, width: usize) -> PathBuf {
    disk::with_suffix(&tile_path(dir, level, number), ".p").join(width.to_string())
}

/// The right edge of a growing tree.
pub(crate) struct Tree {
    size: u64,
    /// At each level the hashes of the tile that is not yet whole.
    levels: Vec<Vec<Hash>>,
    /// Whole tiles not yet written.
    waiting: Tiles,
    /// `None`: somebody else is writing.
    files: Option<TileFiles>,
}

/// Hashes of tiles by level and number.
pub(crate) type Tiles = BTreeMap<(u32, u64), Vec<u8>>;

/// Where tiles are written.
pub(crate) struct TileFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    made_dirs: HashMap<PathBuf, ()>,
    /// Partial tiles of the last checkpoint.
    partial: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            size: 0,
            levels: Vec::new(),
            waiting: Tiles::new(),
            files: Some(TileFiles {
                disk,
                dir: dir.to_path_buf(),
                made_dirs: HashMap::new(),
                partial: Vec::new(),
            }),
        }
    }

    /// The tree of the first `size` leaves, whose hashes are `hashes`.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        dir: &Path,
        hashes: &Hashes<'_>,
        size: u64,
    ) -> Result<Self, ReadError> {
        let mut tree = Self::new(disk, dir);
        tree.size = size;
        for level in 0.. {
            let entries = size >> (8 * level);
            if entries == 0 {
                break;
            }
            let edge = entries % TILE_HASHES as u64;
            let tile = match edge {
                0 => Vec::new(),
                _ => hashes.tile(level, entries / TILE_HASHES as u64)?.to_vec(),
            };
            tree.levels.push(tile);
        }
        Ok(tree)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn push(&mut self, hash: Hash) {
        self.size += 1;
        let (mut level, mut hash) = (0_u32, hash);
        loop {
            let at = level as usize;
            if self.levels.len() == at {
                self.levels.push(Vec::with_capacity(TILE_HASHES));
            }
            self.levels[at].push(hash);
            if self.levels[at].len() < TILE_HASHES {
                return;
            }
            let tile = std::mem::take(&mut self.levels[at]);
            if self.waiting.len() < WAITING_MAX {
                let number = (self.size >> (8 * (level + 1))) - 1;
                self.waiting.insert((level, number), tile.concat());
            }
            hash = root_of(&tile);
            level += 1;
        }
    }

    pub(crate) fn root(&self) -> Hash {
        let mut peaks = Peaks::default();
        for (level, tile) in self.levels.iter().enumerate().rev() {
            tile.iter()
                .for_each(|hash| peaks.push_whole(8 * level as u32, *hash));
        }
        peaks.root()
    }

    /// Writes what is whole; what the disk refuses waits.
    pub(crate) fn write_whole(&mut self) {
        if let Some(files) = &mut self.files {
            files.write_whole(&mut self.waiting);
        }
    }

    /// Whole tiles that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets somebody else write what waits, until [`Self::take_back`]; `None`: somebody does already.
    pub(crate) fn lend(&mut self) -> Option<(TileFiles, Tiles)> {
        let files = self.files.take()?;
        Some((files, std::mem::take(&mut self.waiting)))
    }

    /// Takes back what was lent, with what could not be written.
    pub(crate) fn take_back(&mut self, files: TileFiles, unwritten: Tiles) {
        self.files = Some(files);
        for (place, bytes) in unwritten {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.insert(place, bytes);
            }
        }
    }

    /// The tiles at the right edge, which are not whole.
    pub(crate) fn edge(&self) -> Tiles {
        let levels = self.levels.iter().enumerate();
        let edge = levels.filter(|(_, tile)| !tile.is_empty());
        edge.map(|(level, tile)| {
            let number = (self.size >> (8 * level)) / TILE_HASHES as u64;
            ((level as u32, number), tile.concat())
        })
        .collect()
    }

    /// Writes the edge anew and removes what earlier ones have left beside it.
    pub(crate) fn adopt_edge(&mut self) {
        let edge = self.edge();
        let (size, levels) = (self.size, self.levels.len());
        if let Some(files) = &mut self.files {
            let places =
                (0..levels).map(|level| (level as u32, (size >> (8 * level)) / TILE_HASHES as u64));
            files.adopt(places);
            // A full disk: the next checkpoint writes it.
            let written = files.write_edge(&edge);
            drop(written);
        }
    }
}

impl TileFiles {
    /// Writes `tiles` and takes them out, until the disk refuses one.
    pub(crate) fn write_whole(&mut self, tiles: &mut Tiles) {
        while let Some(tile) = tiles.first_entry() {
            let (level, number) = *tile.key();
            let path = tile_path(&self.dir, level, number);
            if self.write(&path, tile.get()).is_err() {
                return;
            }
            tile.remove();
        }
    }

    fn adopt(&mut self, places: impl Iterator<Item = (u32, u64)>) {
        for (level, number) in places {
            let dir = disk::with_suffix(&tile_path(&self.dir, level, number), ".p");
            let items = self.disk.list(&dir).unwrap_or_default();
            self.partial
                .extend(items.into_iter().map(|item| dir.join(item.name)));
        }
    }

    /// Writes the partial tiles of a size, and removes those of the last time.
    pub(crate) fn write_edge(&mut self, edge: &Tiles) -> io::Result<()> {
        let old = std::mem::take(&mut self.partial);
        for (&(level, number), bytes) in edge {
            let path = partial_path(&self.dir, level, number, bytes.len() / 32);
            self.write(&path, bytes)?;
            self.partial.push(path);
        }
        for path in old.iter().filter(|path| !self.partial.contains(path)) {
            // left behind it does no harm: it is right for its width
            let _ = self.disk.remove(path);
            if let Some(dir) = path
                .parent()
                .filter(|d| !self.partial.iter().any(|p| p.starts_with(d)))
            {
                let _ = self.disk.remove_dir(dir);
                self.made_dirs.remove(dir);
            }
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = path.parent().unwrap_or(&self.dir);
        if !self.made_dirs.contains_key(dir) {
            self.disk.create_dir(dir)?;
            if self.made_dirs.len() > 64 {
                self.made_dirs.clear();
            }
            self.made_dirs.insert(dir.to_path_buf(), ());
        }
        let file = self.disk.open(path, OpenMode::Create)?;
        disk::write_all(file.as_ref(), bytes, 0)?;
        if file.len()? > bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        Ok(())
    }
}

/// Root of a whole tile, or of any power of two of neighbours.
pub(crate) fn root_of(tile: &[Hash]) -> Hash {
    let mut row = tile.to_vec();
    while row.len() > 1 {
        let pairs = row.as_chunks::<2>().0.iter();
        row = pairs
            .map(|[left, right]| merkle::node_hash(left, right))
            .collect();
    }
    row.first().copied().unwrap_or_else(merkle::empty_root)
}

/// A tile as its file has it: its first `width` hashes, or `None` when they are not all there.
pub(crate) fn read_tile(
    disk: &dyn Disk,
    dir: &Path,
    level: u32,
    number: u64,
    width: usize,
) -> Option<Vec<Hash>> {
    let from = |path: &Path| {
        let bytes = disk::read_small(disk, path, TILE_BYTES).ok().flatten()?;
        (bytes.len() >= width * 32).then(|| bytes.as_chunks::<32>().0[..width].to_vec())
    };
    from(&tile_path(dir, level, number)).or_else(|| {
        if width == TILE_HASHES {
            return None;
        }
        // The last checkpoint's edge may be wider than what is asked for.
        let edge = disk::with_suffix(&tile_path(dir, level, number), ".p");
        let widths = disk.list(&edge).ok()?;
        let widths = widths
            .iter()
            .filter_map(|item| item.name.parse::<usize>().ok());
        widths
            .filter(|w| *w >= width && *w < TILE_HASHES)
            .find_map(|w| from(&edge.join(w.to_string())))
    })
}

/// The file that holds a tile: the whole one, else the widest edge.
pub(crate) fn stored_at(disk: &dyn Disk, dir: &Path, level: u32, number: u64) -> PathBuf {
    let whole = tile_path(dir, level, number);
    if disk.open(&whole, disk::OpenMode::Read).is_ok() {
        return whole;
    }
    let edge = disk::with_suffix(&whole, ".p");
    let widths = disk.list(&edge).unwrap_or_default().into_iter();
    let widest = widths
        .filter_map(|item| item.name.parse::<usize>().ok())
        .max();
    widest.map_or(whole, |w| edge.join(w.to_string()))
}

/// Which source of a hash is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The tiles: what was once hashed. Leaves only where there is no tile.
    Tiles,
    /// The leaves as they are now. Tiles only for leaves that are damaged.
    Leaves,
}

/// The hashes of one tile, shared.
type Tile = Rc<[Hash]>;

/// The hashes of the first `size` leaves, from tiles and leaves.
pub(crate) struct Hashes<'a> {
    reader: &'a Reader,
    size: u64,
    prefer: Prefer,
    cache: RefCell<HashMap<(u32, u64), Tile>>,
}

impl<'a> Hashes<'a> {
    pub(crate) fn new(reader: &'a Reader, size: u64, prefer: Prefer) -> Self {
        Self {
            reader,
            size,
            prefer,
            cache: RefCell::default(),
        }
    }

    /// The hashes of a tile that exist at this size.
    pub(crate) fn tile(&self, level: u32, number: u64) -> Result<Tile, ReadError> {
        if let Some(tile) = self.cache.borrow().get(&(level, number)) {
            return Ok(tile.clone());
        }
        let entries = self.size >> (8 * level);
        let first = number * TILE_HASHES as u64;
        let width = usize::try_from(entries.saturating_sub(first))
            .unwrap_or(0)
            .min(TILE_HASHES);
        let (disk, dir) = self.reader.tlog();
        let stored = match self.prefer {
            Prefer::Tiles => read_tile(&**disk, dir, level, number, width),
            Prefer::Leaves => None,
        };
        let tile: Tile = match (stored, level) {
            (Some(stored), _) => stored.into(),
            (None, 0) => self.leaves(first, width)?.into(),
            (None, _) => (first..first + width as u64)
                .map(|n| Ok(root_of(&self.tile(level - 1, n)?)))
                .collect::<Result<Vec<_>, ReadError>>()?
                .into(),
        };
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert((level, number), tile.clone());
        Ok(tile)
    }

    /// Hashes of leaves from their frames; of a damaged one from its tile, if there is one.
    pub(crate) fn leaves(&self, first: u64, width: usize) -> Result<Vec<Hash>, ReadError> {
        let mut hashes: Vec<Option<Hash>> = vec![None; width];
        let leaves = first..first + width as u64;
        let filter = Filter {
            leaves,
            ..Filter::default()
        };
        for leaf in self.reader.scan(filter)?.numbered_leaf_bytes() {
            match leaf {
                Ok((leaf, bytes)) => {
                    if let Some(hash) = usize::try_from(leaf - first)
                        .ok()
                        .and_then(|at| hashes.get_mut(at))
                    {
                        *hash = Some(merkle::leaf_hash(&bytes));
                    }
                }
                Err(ReadError::Io { path, source }) => return Err(ReadError::Io { path, source }),
                Err(_) => {}
            }
        }
        let numbered = (first..).zip(hashes);
        Ok(numbered
            .map(|(leaf, hash)| {
                hash.or_else(|| self.remembered(leaf))
                    .unwrap_or_else(lost_leaf)
            })
            .collect())
    }

    /// A leaf's hash as its tile has it.
    fn remembered(&self, leaf: u64) -> Option<Hash> {
        let (disk, dir) = self.reader.tlog();
        let (number, at) = (
            leaf / TILE_HASHES as u64,
            (leaf % TILE_HASHES as u64) as usize,
        );
        let tile = read_tile(&**disk, dir, 0, number, at + 1)?;
        tile.last().copied()
    }
}

impl Nodes for Hashes<'_> {
    type Error = ReadError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, ReadError> {
        let (tile_level, height) = (level / 8, level % 8);
        let first = index << height;
        let tile = self.tile(tile_level, first / TILE_HASHES as u64)?;
        let at = (first % TILE_HASHES as u64) as usize;
        let row = tile
            .get(at..at + (1 << height))
            .ok_or(ReadError::MissingLeaves {
                first: index << level,
                last: ((index + 1) << level) - 1,
            })?;
        Ok(root_of(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_c2sp_names_them() {
        let name = |level, number| tile_path(Path::new("t"), level, number);
        assert_eq!(name(0, 0), Path::new("t/tile/0/000"));
        assert_eq!(name(0, 1_234_067), Path::new("t/tile/0/x001/x234/067"));
        assert_eq!(name(1, 999), Path::new("t/tile/1/999"));
        assert_eq!(
            partial_path(Path::new("t"), 0, 1000, 8),
            Path::new("t/tile/0/x001/000.p/8")
        );
    }
}
