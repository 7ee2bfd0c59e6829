//! Entries in any order come back in order, a bounded part of them in memory.
//!
//! An entry is a key and a value, both bytes that compare as what they stand for. What fills the
//! memory that was given is sorted and laid down as a run, in a file without a name; runs are read
//! side by side, and of more than [`RUNS_MAX`] one is made.

use crate::LakeError;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Error, ErrorKind, Read, Result, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs that are read side by side.
const RUNS_MAX: usize = 64;
/// Bytes that are read at once of each.
const READ_BYTES: usize = 64 << 10;
/// What an entry in memory takes beside its bytes.
const PLACE_BYTES: usize = size_of::<Place>();

/// Entries that wait to be sorted.
pub(crate) struct Sorter {
    dir: PathBuf,
    /// Most bytes of entries that are in memory at once.
    most: usize,
    held: Vec<u8>,
    places: Vec<Place>,
    file: Option<Arc<File>>,
    runs: Vec<Range<u64>>,
    /// The most that were in memory at once.
    #[cfg(test)]
    pub(crate) held_most: usize,
    /// Runs that were laid down.
    #[cfg(test)]
    pub(crate) laid: usize,
}

#[derive(Clone, Copy)]
struct Place {
    at: usize,
    key: u32,
    value: u32,
}

impl Place {
    fn key(self, held: &[u8]) -> &[u8] {
        &held[self.at..][..self.key as usize]
    }
    fn value(self, held: &[u8]) -> &[u8] {
        &held[self.at + self.key as usize..][..self.value as usize]
    }
}

impl Sorter {
    /// Files are made in `dir`, which keeps nothing of them.
    pub(crate) fn new(dir: &Path, most: usize) -> Self {
        Self {
            dir: dir.to_path_buf(),
            most,
            held: Vec::new(),
            places: Vec::new(),
            file: None,
            runs: Vec::new(),
            #[cfg(test)]
            held_most: 0,
            #[cfg(test)]
            laid: 0,
        }
    }

    /// # Errors
    /// When the disk does not take what memory cannot hold.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), LakeError> {
        let done = self.put(key, value);
        done.map_err(|e| self.failed(e))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let more = key.len() + value.len() + PLACE_BYTES;
        let held = self.held.len() + self.places.len() * PLACE_BYTES;
        if held + more > self.most && !self.places.is_empty() {
            self.lay_down()?;
        }
        let place = Place {
            at: self.held.len(),
            key: u32::try_from(key.len()).map_err(Error::other)?,
            value: u32::try_from(value.len()).map_err(Error::other)?,
        };
        self.held.extend_from_slice(key);
        self.held.extend_from_slice(value);
        self.places.push(place);
        #[cfg(test)]
        {
            let held = self.held.len() + self.places.len() * PLACE_BYTES;
            self.held_most = self.held_most.max(held);
        }
        Ok(())
    }

    /// All of them, in order, as often as somebody asks.
    pub(crate) fn end(mut self) -> std::result::Result<Sorted, LakeError> {
        match self.file {
            None => self.sort(),
            Some(_) => {
                self.lay_down().map_err(|e| self.failed(e))?;
                (self.held, self.places) = (Vec::new(), Vec::new());
            }
        }
        Ok(Sorted(self))
    }

    fn failed(&self, source: Error) -> LakeError {
        LakeError::Directory {
            dir: self.dir.clone(),
            source,
        }
    }

    fn sort(&mut self) {
        let held = &self.held;
        let of = |p: &Place| (p.key(held), p.value(held));
        self.places.sort_unstable_by(|a, b| of(a).cmp(&of(b)));
    }

    fn lay_down(&mut self) -> Result<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        self.sort();
        let mut run = Run::new(self.file()?, self.end_of_runs());
        for place in &self.places {
            run.add(place.key(&self.held), place.value(&self.held))?;
        }
        self.held.clear();
        self.places.clear();
        self.runs.push(run.end()?);
        #[cfg(test)]
        {
            self.laid += 1;
        }
        if self.runs.len() == RUNS_MAX {
            self.join()?;
        }
        Ok(())
    }

    /// One run of all. What they took of the file stays unused until it ends.
    fn join(&mut self) -> Result<()> {
        let file = self.file()?;
        let mut run = Run::new(file.clone(), self.end_of_runs());
        let mut all = Merge::new(&file, &self.runs)?;
        while let Some((key, value)) = all.next()? {
            run.add(key, value)?;
        }
        self.runs = vec![run.end()?];
        Ok(())
    }

    fn end_of_runs(&self) -> u64 {
        self.runs.iter().map(|run| run.end).max().unwrap_or(0)
    }

    fn file(&mut self) -> Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = Arc::new(nameless(&self.dir)?);
        self.file = Some(file.clone());
        Ok(file)
    }
}

/// A file that ends with whoever holds it.
fn nameless(dir: &Path) -> Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("sort-{}-{number}.part", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A run in the making: of each key only what differs from the one before.
struct Run {
    to: BufWriter<At>,
    start: u64,
    before: Vec<u8>,
}

impl Run {
    fn new(file: Arc<File>, start: u64) -> Self {
        let to = BufWriter::with_capacity(READ_BYTES, At { file, at: start });
        Self {
            to,
            start,
            before: Vec::new(),
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let pairs = self.before.iter().zip(key);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        for length in [shared, key.len() - shared, value.len()] {
            // checked when it was added
            self.to.write_all(&(length as u32).to_le_bytes())?;
        }
        self.to.write_all(&key[shared..])?;
        self.to.write_all(value)?;
        self.before.truncate(shared);
        self.before.extend_from_slice(&key[shared..]);
        Ok(())
    }

    fn end(mut self) -> Result<Range<u64>> {
        self.to.flush()?;
        Ok(self.start..self.to.get_ref().at)
    }
}

/// A place in a file that several read and write.
struct At {
    file: Arc<File>,
    at: u64,
}

impl std::io::Write for At {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Read for At {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Sorted entries.
pub(crate) struct Sorted(Sorter);

impl Sorted {
    /// Hands over all of them in order.
    pub(crate) fn each(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> std::result::Result<(), LakeError>,
    ) -> std::result::Result<(), LakeError> {
        let Some(file) = &self.0.file else {
            let held = &self.0.held;
            return (self.0.places.iter()).try_for_each(|p| each(p.key(held), p.value(held)));
        };
        let failed = |e| self.0.failed(e);
        let mut all = Merge::new(file, &self.0.runs).map_err(failed)?;
        while let Some((key, value)) = all.next().map_err(failed)? {
            each(key, value)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn sorter(&self) -> &Sorter {
        &self.0
    }
}

/// Runs, read side by side.
struct Merge {
    heads: BinaryHeap<Reverse<Head>>,
    /// The one that was handed over last; it goes on before the next is.
    taken: Option<Head>,
}

impl Merge {
    fn new(file: &Arc<File>, runs: &[Range<u64>]) -> Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for run in runs {
            let at = At {
                file: file.clone(),
                at: run.start,
            };
            let from = BufReader::with_capacity(READ_BYTES, at.take(run.end - run.start));
            let head = Head {
                key: Vec::new(),
                value: Vec::new(),
                from,
            };
            heads.extend(head.next()?.map(Reverse));
        }
        Ok(Self { heads, taken: None })
    }

    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if let Some(head) = self.taken.take() {
            self.heads.extend(head.next()?.map(Reverse));
        }
        self.taken = self.heads.pop().map(|Reverse(head)| head);
        Ok(self.taken.as_ref().map(|h| (&h.key[..], &h.value[..])))
    }
}

/// The next entry of one run.
struct Head {
    key: Vec<u8>,
    value: Vec<u8>,
    from: BufReader<std::io::Take<At>>,
}

impl Head {
    /// `None`: it has no more.
    fn next(mut self) -> Result<Option<Self>> {
        if self.from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut lengths = [0; 3];
        for length in &mut lengths {
            let mut raw = [0; 4];
            self.from.read_exact(&mut raw)?;
            *length = u32::from_le_bytes(raw) as usize;
        }
        let [shared, more, value] = lengths;
        if shared > self.key.len() {
            return Err(ErrorKind::InvalidData.into());
        }
        self.key.resize(shared + more, 0);
        self.from.read_exact(&mut self.key[shared..])?;
        self.value.resize(value, 0);
        self.from.read_exact(&mut self.value)?;
        Ok(Some(self))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.key, &self.value).cmp(&(&other.key, &other.value))
    }
}
impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Head {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys with common beginnings, some several times, in no order.
    fn entries(count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let one = |n: u64| {
            let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = format!("/srv/{}/{}", at % 7, (at >> 8) % (count / 2 + 1));
            (key.into_bytes(), n.to_be_bytes().to_vec())
        };
        (0..count).map(one).collect()
    }

    fn sorted(dir: &Path, most: usize, entries: &[(Vec<u8>, Vec<u8>)]) -> Sorted {
        let mut sorter = Sorter::new(dir, most);
        for (key, value) in entries {
            sorter.add(key, value).unwrap();
        }
        sorter.end().unwrap()
    }

    fn all(sorted: &Sorted) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let take = |key: &[u8], value: &[u8]| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        sorted.each(take).unwrap();
        all
    }

    #[test]
    fn however_little_is_held_at_once_the_order_is_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 2, 500, 5_000] {
            let entries = entries(count);
            let mut wanted = entries.clone();
            wanted.sort();
            for most in [0, 1_000, 20_000, usize::MAX] {
                let sorted = sorted(dir.path(), most, &entries);
                assert_eq!(all(&sorted), wanted, "{count} entries in {most} bytes");
                assert_eq!(all(&sorted), wanted, "once more");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_held_stays_below_the_bound_and_so_do_the_runs() {
        let dir = tempfile::tempdir().unwrap();
        for count in [1_000, 10_000, 40_000] {
            let sorted = sorted(dir.path(), 5_000, &entries(count));
            let sorter = sorted.sorter();
            assert!(sorter.held_most <= 5_000, "{}", sorter.held_most);
            assert!(sorter.runs.len() < RUNS_MAX, "{}", sorter.runs.len());
            assert!(sorter.laid as u64 >= count / 200, "{}", sorter.laid);
            assert!(
                sorter.held.capacity() == 0,
                "nothing is held where runs are"
            );
        }
    }
}
