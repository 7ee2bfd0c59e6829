//! What the processes of a container are doing, read from the host's side.
//!
//! Promises: nothing runs inside the container; a process is itself before and after it was read
//! (start time), else what was read is noted as doubtful; a read that hangs is left behind after
//! [`super::patience::PATIENCE`] and noted. Links that the kernel resolves (`/proc/PID/exe`, `fd/N`) are opened, names
//! inside the container never. Bounds: [`PROCESSES_MAX`], [`FDS_MAX`], [`TEXT_MAX`], [`FILE_MAX`].

use super::super::machine::{KernelWord, Target};
use super::super::place::{self, Place};
use super::bundle::{Bundle, Origin};
use super::identity;
use super::masks::Masks;
use super::patience::{Pieces, TEXT_MAX, text, within};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

/// Processes swept at most.
pub(super) const PROCESSES_MAX: usize = 4096;
/// Open files looked at in one process.
pub(super) const FDS_MAX: usize = 4096;
/// Open files of one process among which deleted ones are looked for.
const RECOVER_FDS_MAX: usize = 1 << 17;
/// Deleted files recovered; one descriptor each.
const HELD_MAX: usize = 512;
/// Bytes of one recovered file.
pub(super) const FILE_MAX: u64 = 512 << 20;

/// One process, told from a later one with its number by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Number on the host.
    pub(super) pid: u32,
    /// Start, in ticks since boot.
    pub(super) start: u64,
}

impl Process {
    /// The process with that number now.
    pub(super) fn now(pid: u32) -> Option<Process> {
        let start = place::stat(pid)?.start_ticks;
        Some(Process { pid, start })
    }

    fn origin<'a>(&self, what: &str, source: String, call: &'a str) -> Origin<'a> {
        Origin {
            name: format!("processes/{}/{what}", self.pid),
            source,
            call,
            process: Some((self.pid, self.start)),
        }
    }
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    place::stat(pid).map(|s| s.parent)
}

/// Its processes, one more than [`PROCESSES_MAX`] at most: by the kernel's word where the agent knows
/// its place, so that those that moved themselves are there and a cgroup that only carries its name
/// is not; else those whose cgroup names it.
pub(super) fn processes(target: &Target, kernel: &KernelWord) -> Vec<Process> {
    let owned = Place::with(&target.container, kernel).map(|p| p.owned());
    let mut all = owned.unwrap_or_default();
    if all.is_empty() {
        let id = target.container.id().as_str();
        all = place::pids().filter(|pid| is_named(*pid, id)).collect();
    }
    let all = all.into_iter().filter_map(Process::now);
    all.take(PROCESSES_MAX + 1).collect()
}

/// conmon, which Podman and CRI-O put beside the container, is not in it.
fn is_named(pid: u32, container: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"));
    text.is_ok_and(|c| c.contains(container) && !c.contains("conmon"))
}

/// Perishable first: what a process is, then what it holds open.
const TEXTS: &[&str] = &[
    "status",
    "cmdline",
    "stat",
    "cgroup",
    "attr/current",
    "maps",
    "mountinfo",
    "limits",
    "loginuid",
    "uid_map",
    "gid_map",
    "setgroups",
    "wchan",
    "stack",
    "oom_score_adj",
];
const NETWORK: &[&str] = &[
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "unix",
    "raw",
    "packet",
    "route",
    "ipv6_route",
    "arp",
    "icmp",
    "netlink",
    "dev",
    "sockstat",
    "sockstat6",
    "if_inet6",
    "nf_conntrack",
    "ip_tables_names",
];
const LINKS: &[&str] = &[
    "exe",
    "cwd",
    "root",
    "ns/mnt",
    "ns/net",
    "ns/pid",
    "ns/user",
    "ns/uts",
    "ns/ipc",
    "ns/cgroup",
];

/// The fast sweep: texts and links of every process, network tables once a namespace, open files.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn sweep(
    b: &mut Bundle,
    all: &[Process],
    environment: Option<&Masks>,
) -> io::Result<()> {
    let mut networks = Vec::new();
    for p in all {
        if !b.open() {
            return Ok(());
        }
        links(b, *p)?;
        for what in TEXTS {
            keep_text(b, *p, what)?;
        }
        if let Some(masks) = environment {
            keep(b, *p, "environ", |bytes| masks.environment(&bytes))?;
        }
        let net = fs::read_link(format!("/proc/{}/ns/net", p.pid)).unwrap_or_default();
        if !networks.contains(&net) {
            networks.push(net);
            for what in NETWORK {
                keep_text(b, *p, &format!("net/{what}"))?;
            }
        }
        if Process::now(p.pid) != Some(*p) {
            b.gap(format!("process {} ended while it was read", p.pid));
        }
    }
    Ok(())
}

fn keep_text(b: &mut Bundle, p: Process, what: &str) -> io::Result<()> {
    keep(b, p, what, |bytes| bytes)
}

fn keep(
    b: &mut Bundle,
    p: Process,
    what: &str,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/{}/{what}", p.pid));
    match text(path.clone(), TEXT_MAX) {
        Ok(bytes) => {
            if bytes.len() as u64 == TEXT_MAX {
                b.gap(format!("{}: cut at {TEXT_MAX} bytes", path.display()));
            }
            let kept = change(bytes.clone());
            let call = if kept == bytes {
                "read"
            } else {
                "read, secrets masked"
            };
            b.add(p.origin(what, path.display().to_string(), call), &kept)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => {
            b.gap(format!("{}: {e}", path.display()));
            Ok(())
        }
    }
}

fn links(b: &mut Bundle, p: Process) -> io::Result<()> {
    let mut lines = String::new();
    let mut add = |what: &str| match fs::read_link(format!("/proc/{}/{what}", p.pid)) {
        Ok(to) => lines.push_str(&format!("{what} {}\n", to.to_string_lossy().escape_debug())),
        Err(e) => lines.push_str(&format!("{what} ! {e}\n")),
    };
    LINKS.iter().for_each(|l| add(l));
    let fds = fds(p.pid);
    fds.iter()
        .take(FDS_MAX)
        .for_each(|fd| add(&format!("fd/{fd}")));
    if fds.len() > FDS_MAX {
        b.gap(format!(
            "process {}: {} open files, {FDS_MAX} were looked at",
            p.pid,
            fds.len()
        ));
    }
    b.add(
        p.origin("links", format!("/proc/{}", p.pid), "readlink"),
        lines.as_bytes(),
    )
}

fn fds(pid: u32) -> Vec<u32> {
    let dir = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    dir.filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// A file that only the kernel still holds; open, so that it stays although its process ends.
struct Held {
    process: Process,
    /// Below `/proc/PID`.
    what: String,
    /// What the link says.
    name: String,
    file: File,
    size: u64,
}

/// What only the kernel still holds: deleted programs, files and libraries, memory files. Each once;
/// all are opened before the first is read, and small ones are read first.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn recover(b: &mut Bundle, all: &[Process]) -> io::Result<()> {
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    for p in all {
        let open = fds(p.pid).into_iter().map(|fd| format!("fd/{fd}"));
        let open = open.take(RECOVER_FDS_MAX);
        let mapped = programs_mapped(p.pid);
        for what in std::iter::once("exe".to_owned()).chain(mapped).chain(open) {
            let path = format!("/proc/{}/{what}", p.pid);
            let to = fs::read_link(&path).unwrap_or_default();
            let name = to.to_string_lossy().into_owned();
            if !(name.ends_with(" (deleted)") || name.starts_with("/memfd:"))
                || name.starts_with("/dev/")
            {
                continue;
            }
            if held.len() >= HELD_MAX || !b.open() {
                b.gap(format!("{path} and further deleted files: left out"));
                return keep_held(b, held);
            }
            match hold(*p, what, name.clone(), &mut seen) {
                Ok(Some(file)) => held.push(file),
                Ok(None) => {}
                Err(e) => b.gap(format!("{path} ({name}): {e}")),
            }
        }
    }
    keep_held(b, held)
}

/// Opens it, unless it is no regular file or is held already.
fn hold(
    process: Process,
    what: String,
    name: String,
    seen: &mut HashSet<(u64, u64)>,
) -> io::Result<Option<Held>> {
    let path = format!("/proc/{}/{what}", process.pid);
    let opened = within(move || {
        // told from the link itself before it is opened: opening a device may do something
        if !fs::metadata(&path)?.is_file() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
        let meta = file.metadata()?;
        Ok(Some((file, meta)))
    })?;
    let Some((file, meta)) = opened.filter(|(_, meta)| meta.is_file()) else {
        return Ok(None);
    };
    if Process::now(process.pid) != Some(process) {
        return Err(io::Error::other("its process has ended"));
    }
    Ok(seen.insert((meta.dev(), meta.ino())).then(|| Held {
        process,
        what,
        name,
        file,
        size: meta.len(),
    }))
}

fn keep_held(b: &mut Bundle, mut held: Vec<Held>) -> io::Result<()> {
    held.sort_by_key(|h| h.size);
    for h in held {
        if !b.open() {
            break;
        }
        let path = format!("/proc/{}/{}", h.process.pid, h.what);
        if h.size > FILE_MAX {
            b.gap(format!(
                "{path} ({}): {} bytes, {FILE_MAX} were kept",
                h.name, h.size
            ));
        }
        let member = format!("recovered/{}", h.what.replace('/', "-"));
        let source = format!("{path} -> {}", h.name);
        let origin = h.process.origin(&member, source, "open, pread");
        keep_part(b, origin, h.file, 0, h.size.min(FILE_MAX))?;
    }
    Ok(())
}

/// Mappings that are executed although their files are gone, as names below `map_files`.
fn programs_mapped(pid: u32) -> Vec<String> {
    let maps = text(format!("/proc/{pid}/maps").into(), TEXT_MAX).unwrap_or_default();
    let maps = String::from_utf8_lossy(&maps).into_owned();
    let gone = |r: &Region| r.executes && r.name.ends_with(" (deleted)");
    let all = maps.lines().filter_map(Region::parse).filter(gone);
    all.map(|r| format!("map_files/{:x}-{:x}", r.from, r.to))
        .take(HELD_MAX)
        .collect()
}

/// Streams part of a file that is open; each piece with patience.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn keep_part(
    b: &mut Bundle,
    origin: Origin<'_>,
    file: File,
    from: u64,
    size: u64,
) -> io::Result<()> {
    match identity::pieces(file, from, size) {
        Ok(pieces) => {
            let mut next = || pieces.next()?.transpose();
            b.stream(origin, size, &mut Pieces::new(&mut next))
        }
        Err(e) => {
            b.gap(format!("{}: {e}", origin.name));
            Ok(())
        }
    }
}

/// Memory that belongs to no file, executable and writable parts first, in pieces of 4 MiB.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn memory(b: &mut Bundle, p: Process) -> io::Result<()> {
    let maps = match text(PathBuf::from(format!("/proc/{}/maps", p.pid)), TEXT_MAX) {
        Ok(maps) => String::from_utf8_lossy(&maps).into_owned(),
        Err(e) => {
            b.gap(format!("maps of process {}: {e}", p.pid));
            return Ok(());
        }
    };
    let mut regions: Vec<Region> = maps
        .lines()
        .filter_map(Region::parse)
        .filter(Region::private)
        .collect();
    regions.sort_by_key(|r| (!(r.executes && r.writes), !r.executes, r.from));
    let mem = match File::open(format!("/proc/{}/mem", p.pid)) {
        // opened first: the descriptor stays that process's, whoever gets its number
        Ok(mem) if Process::now(p.pid) == Some(p) => Arc::new(mem),
        Ok(_) => {
            b.gap(format!("memory of process {}: it has ended", p.pid));
            return Ok(());
        }
        Err(e) => {
            b.gap(format!("memory of process {}: {e}", p.pid));
            return Ok(());
        }
    };
    // which pages were ever touched: a reservation of a terabyte must not fill the bundle with zeroes
    let pages = File::open(format!("/proc/{}/pagemap", p.pid)).map(Arc::new);
    for r in regions {
        let pages = pages.as_ref().ok().filter(|_| !r.name.starts_with('/'));
        let (mut at, mut step) = (r.from, page_bytes());
        while at < r.to {
            if !b.open() {
                return Ok(());
            }
            match piece(&mem, pages, at, r.to) {
                Ok((from, bytes)) if !bytes.is_empty() => {
                    let source = format!("{:x}-{:x} {} {}", r.from, r.to, r.mode, r.name);
                    let name = format!("memory/{from:x}");
                    let origin = p.origin(&name, source, "pread /proc/PID/mem");
                    b.add(origin, &bytes)?;
                    at = from + bytes.len() as u64;
                    step = page_bytes();
                }
                // nothing was ever touched up to there
                Ok((from, _)) if from > at => at = from,
                other => {
                    let why = other
                        .err()
                        .map_or("nothing there".into(), |e| e.to_string());
                    b.gap(format!(
                        "memory of process {} at {at:x}, {step} bytes: {why}",
                        p.pid
                    ));
                    if Process::now(p.pid) != Some(p) {
                        b.gap(format!("memory of process {}: it has ended", p.pid));
                        return Ok(());
                    }
                    // a whole region that cannot be read must not take a try for each page
                    at = at.saturating_add(step);
                    step = (step * 2).min(MEMORY_PIECE as u64);
                }
            }
        }
    }
    Ok(())
}

const MEMORY_PIECE: usize = 4 << 20;
/// Pages looked up at once, and in one go.
const PAGES: (usize, u64) = (8192, 1 << 20);
/// Present or swapped out: <https://docs.kernel.org/admin-guide/mm/pagemap.html>, bits 63 and 62.
const TOUCHED: u64 = 3 << 62;

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// The next memory that was touched, from `at` on; empty: none up to there.
fn piece(
    mem: &Arc<File>,
    pages: Option<&Arc<File>>,
    at: u64,
    to: u64,
) -> io::Result<(u64, Vec<u8>)> {
    let (mem, pages) = (Arc::clone(mem), pages.map(Arc::clone));
    within(move || {
        let from = match pages {
            Some(pages) => touched(&pages, at, to)?,
            None => at,
        };
        let n = usize::try_from(to - from).unwrap_or(MEMORY_PIECE);
        if n == 0 || (from > at && from - at >= PAGES.1 * page_bytes()) {
            return Ok((from, Vec::new()));
        }
        let mut bytes = vec![0; n.min(MEMORY_PIECE)];
        let got = mem.read_at(&mut bytes, from)?;
        bytes.truncate(got);
        Ok((from, bytes))
    })
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

struct Region {
    from: u64,
    to: u64,
    writes: bool,
    executes: bool,
    mode: String,
    name: String,
}

impl Region {
    fn parse(line: &str) -> Option<Region> {
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let mode = words.next()?.to_owned();
        Some(Region {
            from: u64::from_str_radix(from, 16).ok()?,
            to: u64::from_str_radix(to, 16).ok()?,
            writes: mode.contains('w'),
            executes: mode.contains('x'),
            name: words.nth(3).unwrap_or_default().trim().to_owned(),
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
    }
}
