//! Memory of a process that belongs to no file, read ahead on a thread of its own.
//!
//! Promises: executable and writable parts come first; only what was ever touched is read; a mapping
//! whose pages do not come (a FUSE server, a userfaultfd that does not answer) is left out from there on
//! and named, with those of the same file system, and after [`HANGS_MAX`] of them no more are tried;
//! what cannot be read is noted with its place; the descriptor stays the process's, whoever gets its
//! number. Bounds: [`PIECE`] bytes a piece, so many at a time as [`super::patience`] lets a reader be
//! ahead. Left out: what files have (their digests are in `programs.jsonl`).

use super::bundle::Bundle;
use super::patience::{TEXT_MAX, feed, text, within};
use super::sweep::Process;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

/// Bytes of one piece.
pub(super) const PIECE: usize = 4 << 20;
/// Mappings of one process that may hang before no more are tried.
const HANGS_MAX: usize = 4;
/// Pages looked up at once, and before the next word is given.
const PAGES: (usize, u64) = (8192, 1 << 20);
/// Present or swapped out: <https://docs.kernel.org/admin-guide/mm/pagemap.html>, bits 63 and 62.
const TOUCHED: u64 = 3 << 62;

/// Keeps the memory of a process.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn memory(b: &mut Bundle, p: Process) -> io::Result<()> {
    let source = match Source::of(p) {
        Ok(source) => source,
        Err(e) => {
            b.gap(format!("memory of process {}: {e}", p.pid));
            return Ok(());
        }
    };
    let (mut from, mut hung) = (0, Vec::new());
    loop {
        let wanted = |r: &Region| r.device == NO_DEVICE || !hung.contains(&r.device);
        let next = source.regions.iter().skip(from).position(wanted);
        let Some(next) = next.map(|n| from + n) else {
            return Ok(());
        };
        match keep(b, p, &source, next)? {
            Ended::All => return Ok(()),
            Ended::Hung(at) => {
                let r = &source.regions[at];
                b.gap(format!(
                    "memory of process {}: {:x}-{:x} {} did not answer: left out from there on",
                    p.pid, r.from, r.to, r.name
                ));
                hung.push(r.device.clone());
                if hung.len() >= HANGS_MAX {
                    b.gap(format!(
                        "memory of process {}: {HANGS_MAX} mappings hang: the rest is left out",
                        p.pid
                    ));
                    return Ok(());
                }
                from = at + 1;
            }
        }
    }
}

/// How one reading ended.
enum Ended {
    /// Nothing more is to be read.
    All,
    /// This mapping hangs.
    Hung(usize),
}

/// Reads from one mapping on until the end, a bound, or one that hangs.
fn keep(b: &mut Bundle, p: Process, source: &Source, first: usize) -> io::Result<Ended> {
    let (back, empty) = mpsc::channel();
    let reader = Reader {
        mem: Arc::clone(&source.mem),
        pages: source.pages.clone(),
        regions: Arc::clone(&source.regions),
        empty,
    };
    let feed = match feed(move |to| drop(reader.all(first, to))) {
        Ok(feed) => feed,
        Err(e) => {
            b.gap(format!("memory of process {}: {e}", p.pid));
            return Ok(Ended::All);
        }
    };
    let mut at = first;
    loop {
        match feed.next() {
            Ok(None) => return Ok(Ended::All),
            Err(_) => return Ok(Ended::Hung(at)),
            Ok(Some(Seen::Begin(region))) => at = region,
            Ok(Some(Seen::Nothing)) => {}
            Ok(Some(Seen::Bytes(from, bytes))) => {
                if !b.open() {
                    return Ok(Ended::All);
                }
                let r = &source.regions[at];
                let says = format!("{:x}-{:x} {} {}", r.from, r.to, r.mode, r.name);
                let name = format!("memory/{from:x}");
                b.add(p.origin(&name, says, "pread /proc/PID/mem"), &bytes)?;
                // one that reads no more has no use for it
                let _ = back.send(bytes);
            }
            Ok(Some(Seen::Hole(from, bytes, why))) => {
                b.gap(format!(
                    "memory of process {} at {from:x}, {bytes} bytes: {why}",
                    p.pid
                ));
                if Process::now(p.pid) != Some(p) {
                    b.gap(format!("memory of process {}: it has ended", p.pid));
                    return Ok(Ended::All);
                }
            }
        }
        if !b.open() {
            return Ok(Ended::All);
        }
    }
}

/// A process's memory, opened.
struct Source {
    mem: Arc<File>,
    /// Which pages were ever touched: a reservation of a terabyte must not fill the bundle with zeroes.
    pages: Option<Arc<File>>,
    regions: Arc<Vec<Region>>,
}

impl Source {
    fn of(p: Process) -> io::Result<Self> {
        let maps = text(PathBuf::from(format!("/proc/{}/maps", p.pid)), TEXT_MAX)?;
        let maps = String::from_utf8_lossy(&maps).into_owned();
        let all = maps.lines().filter_map(Region::parse);
        let mut regions: Vec<Region> = all.filter(Region::private).collect();
        regions.sort_by_key(|r| (!(r.executes && r.writes), !r.executes, r.from));
        let (mem, pages) = within(move || {
            let mem = File::open(format!("/proc/{}/mem", p.pid))?;
            Ok((mem, File::open(format!("/proc/{}/pagemap", p.pid)).ok()))
        })?;
        // opened first: the descriptor stays that process's
        if Process::now(p.pid) != Some(p) {
            return Err(io::Error::other("it has ended"));
        }
        Ok(Source {
            mem: Arc::new(mem),
            pages: pages.map(Arc::new),
            regions: Arc::new(regions),
        })
    }
}

/// What a reader says.
enum Seen {
    /// What follows is of this mapping.
    Begin(usize),
    /// It goes on, and nothing was touched up to there.
    Nothing,
    /// Memory, from this address on.
    Bytes(u64, Vec<u8>),
    /// So many bytes from an address on that cannot be read, and why.
    Hole(u64, u64, String),
}

/// Nobody listens any more.
struct Deaf;

struct Reader {
    mem: Arc<File>,
    pages: Option<Arc<File>>,
    regions: Arc<Vec<Region>>,
    /// Pieces that were used.
    empty: mpsc::Receiver<Vec<u8>>,
}

impl Reader {
    fn all(&self, first: usize, to: &mpsc::SyncSender<Seen>) -> Result<(), Deaf> {
        let tell = |what| to.send(what).map_err(|_| Deaf);
        for (n, r) in self.regions.iter().enumerate().skip(first) {
            tell(Seen::Begin(n))?;
            let (mut at, mut step) = (r.from, page_bytes());
            while at < r.to {
                match self.piece(r, at) {
                    Ok((from, bytes)) if !bytes.is_empty() => {
                        at = from + bytes.len() as u64;
                        step = page_bytes();
                        tell(Seen::Bytes(from, bytes))?;
                    }
                    // nothing was ever touched up to there
                    Ok((from, _)) if from > at => {
                        at = from;
                        tell(Seen::Nothing)?;
                    }
                    other => {
                        let why = other.err().map(|e| e.to_string());
                        let why = why.unwrap_or_else(|| "nothing there".to_owned());
                        tell(Seen::Hole(at, step.min(r.to - at), why))?;
                        // a whole region that cannot be read must not take a try for each page
                        at = at.saturating_add(step);
                        step = (step * 2).min(PIECE as u64);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next memory that was touched, from `at` on; empty: none up to there.
    fn piece(&self, r: &Region, at: u64) -> io::Result<(u64, Vec<u8>)> {
        let pages = self.pages.as_ref().filter(|_| !r.name.starts_with('/'));
        let from = match pages {
            Some(pages) => touched(pages, at, r.to)?,
            None => at,
        };
        let n = usize::try_from(r.to - from).unwrap_or(PIECE).min(PIECE);
        if n == 0 || (from > at && from - at >= PAGES.1 * page_bytes()) {
            return Ok((from, Vec::new()));
        }
        let mut bytes = self.empty.try_recv().unwrap_or_default();
        bytes.resize(n, 0);
        let got = self.mem.read_at(&mut bytes, from)?;
        bytes.truncate(got);
        Ok((from, bytes))
    }
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// The first page from `at` on that was touched; else where the search ended.
fn touched(pages: &File, at: u64, to: u64) -> io::Result<u64> {
    let size = page_bytes();
    let end = to.min(at.saturating_add(PAGES.1 * size));
    let mut from = at;
    let mut entries = vec![0; PAGES.0 * 8];
    while from < end {
        let want = usize::try_from((end - from).div_ceil(size)).unwrap_or(PAGES.0);
        let got = pages.read_at(&mut entries[..want.min(PAGES.0) * 8], from / size * 8)?;
        let (all, _) = entries[..got].as_chunks::<8>();
        let mut all = all.iter().map(|e| u64::from_ne_bytes(*e));
        if let Some(n) = all.position(|e| e & TOUCHED != 0) {
            return Ok(from + n as u64 * size);
        }
        if got < 8 {
            // no answer about these pages: they are tried
            return Ok(from);
        }
        from += (got / 8) as u64 * size;
    }
    Ok(end)
}

/// The device of what belongs to no file.
const NO_DEVICE: &str = "00:00";

/// One line of `/proc/PID/maps`.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) from: u64,
    pub(super) to: u64,
    writes: bool,
    pub(super) executes: bool,
    mode: String,
    /// Of its file.
    device: String,
    pub(super) name: String,
}

impl Region {
    pub(super) fn parse(line: &str) -> Option<Region> {
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let mode = words.next()?.to_owned();
        Some(Region {
            from: u64::from_str_radix(from, 16).ok()?,
            to: u64::from_str_radix(to, 16).ok()?,
            writes: mode.contains('w'),
            executes: mode.contains('x'),
            device: words.nth(1)?.to_owned(),
            name: words.nth(1).unwrap_or_default().trim().to_owned(),
            mode,
        })
    }

    /// No file has it: anonymous, heap, stack, memory files, deleted files, or written to since.
    fn private(&self) -> bool {
        let no_file = self.name.is_empty()
            || self.name.starts_with("[heap")
            || self.name.starts_with("[stack")
            || self.name.starts_with("[anon");
        let gone = self.name.starts_with("/memfd:") || self.name.ends_with("(deleted)");
        self.mode.starts_with('r')
            && (no_file || gone || self.writes)
            && !self.name.starts_with("[v")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_no_file_has_is_told_from_the_rest() {
        let is = |line: &str| Region::parse(line).is_some_and(|r| r.private());
        assert!(is("7f00-7f01 rwxp 00000000 00:00 0 "));
        assert!(is("7f00-7f01 r-xp 00000000 00:01 99 /memfd:x (deleted)"));
        assert!(!is("7f00-7f01 r-xp 00000000 08:01 99 /usr/lib/libc.so.6"));
        assert!(!is("7f00-7f01 r-xp 00000000 00:00 0 [vdso]"));
        assert!(!is("nonsense"));
        let r = Region::parse("7f00-7f01 rw-p 00000000 08:01 99 /usr/lib/a b").expect("one");
        assert_eq!(
            (r.device.as_str(), r.name.as_str()),
            ("08:01", "/usr/lib/a b")
        );
    }
}
