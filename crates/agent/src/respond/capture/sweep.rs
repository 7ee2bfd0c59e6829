//! What the processes of a container are doing, read from the host's side.
//!
//! Promises: nothing runs inside the container; a process is itself before and after it was read
//! (start time), else what was read is noted as doubtful; a read that hangs is left behind after
//! [`PATIENCE`] and noted. Links that the kernel resolves (`/proc/PID/exe`, `fd/N`) are opened, names
//! inside the container never. Bounds: [`PROCESSES_MAX`], [`FDS_MAX`], [`TEXT_MAX`], [`FILE_MAX`].

use super::bundle::{Bundle, Origin};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Processes swept at most.
pub(super) const PROCESSES_MAX: usize = 4096;
/// Open files looked at in one process.
pub(super) const FDS_MAX: usize = 4096;
/// Bytes of one text of `/proc`.
pub(super) const TEXT_MAX: u64 = 4 << 20;
/// Bytes of one recovered file.
pub(super) const FILE_MAX: u64 = 512 << 20;
/// How long one read may take: a hung FUSE server or a stuck process must not hold us up.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Reads that may be left hanging before no more are tried.
const LEFT_BEHIND_MAX: usize = 32;

static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Carries a read out on a thread of its own and waits for it a bounded time.
fn within<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if LEFT_BEHIND.load(Ordering::Relaxed) >= LEFT_BEHIND_MAX {
        return Err(io::Error::other("not tried: too many reads hang already"));
    }
    let (send, receive) = mpsc::sync_channel(1);
    let late = Arc::new(AtomicBool::new(false));
    let left = Arc::clone(&late);
    std::thread::Builder::new()
        .name("capture-read".into())
        .spawn(move || {
            let result = read();
            // the sender is told first, so that nobody counts a read that has just ended
            let told = send.send(result).is_ok();
            if !told || left.load(Ordering::SeqCst) {
                LEFT_BEHIND.fetch_sub(usize::from(left.load(Ordering::SeqCst)), Ordering::Relaxed);
            }
        })?;
    receive.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
        late.store(true, Ordering::SeqCst);
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it did not answer within 2 s",
        ))
    })
}

/// A reader whose every read is carried out on a thread of its own, with patience.
struct Patient {
    file: Arc<File>,
    at: u64,
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (file, at, want) = (Arc::clone(&self.file), self.at, buf.len().min(4 << 20));
        let bytes = within(move || {
            let mut piece = vec![0; want];
            let n = file.read_at(&mut piece, at)?;
            piece.truncate(n);
            Ok(piece)
        })?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

fn text(path: PathBuf) -> io::Result<Vec<u8>> {
    within(move || {
        let mut bytes = Vec::new();
        File::open(path)?.take(TEXT_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

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
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let start = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .parse()
            .ok()?;
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

/// Processes whose cgroup names the container.
pub(super) fn processes(container: &str) -> Vec<Process> {
    let dir = fs::read_dir("/proc").into_iter().flatten().flatten();
    dir.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            // conmon, which Podman and CRI-O put beside the container, is not in it
            fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|c| c.contains(container) && !c.contains("conmon"))
        })
        .filter_map(Process::now)
        .take(PROCESSES_MAX + 1)
        .collect()
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
    "wchan",
    "stack",
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
pub(super) fn sweep(b: &mut Bundle, all: &[Process], environment: bool) -> io::Result<()> {
    let mut networks = Vec::new();
    for p in all {
        if !b.open() {
            return Ok(());
        }
        links(b, *p)?;
        for what in TEXTS {
            keep_text(b, *p, what)?;
        }
        if environment {
            keep_text(b, *p, "environ")?;
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
    let path = PathBuf::from(format!("/proc/{}/{what}", p.pid));
    match text(path.clone()) {
        Ok(bytes) => {
            if bytes.len() as u64 == TEXT_MAX {
                b.gap(format!("{}: cut at {TEXT_MAX} bytes", path.display()));
            }
            b.add(p.origin(what, path.display().to_string(), "read"), &bytes)
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

/// What only the kernel still holds: deleted programs and files, memory files. Each once.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn recover(b: &mut Bundle, all: &[Process]) -> io::Result<()> {
    let mut seen = Vec::new();
    for p in all {
        let open = fds(p.pid)
            .into_iter()
            .take(FDS_MAX)
            .map(|fd| format!("fd/{fd}"));
        for what in std::iter::once("exe".to_owned()).chain(open) {
            if !b.open() {
                return Ok(());
            }
            if Process::now(p.pid) != Some(*p) {
                b.gap(format!("open files of process {}: it has ended", p.pid));
                break;
            }
            let path = format!("/proc/{}/{what}", p.pid);
            let to = fs::read_link(&path).unwrap_or_default();
            let name = to.to_string_lossy().into_owned();
            if !(name.ends_with(" (deleted)") || name.starts_with("/memfd:"))
                || name.starts_with("/dev/")
            {
                continue;
            }
            let opening = path.clone();
            let file = within(move || {
                // told from the link itself before it is opened: opening a pipe or a device may block
                let meta = fs::metadata(&opening)?;
                if !meta.is_file() {
                    return Ok(None);
                }
                Ok(Some((
                    File::open(&opening)?,
                    meta.dev(),
                    meta.ino(),
                    meta.len(),
                )))
            });
            match file {
                Ok(Some((file, dev, ino, size))) if !seen.contains(&(dev, ino)) => {
                    seen.push((dev, ino));
                    if size > FILE_MAX {
                        b.gap(format!(
                            "{path} ({name}): {size} bytes, {FILE_MAX} were kept"
                        ));
                    }
                    let origin = Origin {
                        source: format!("{path} -> {name}"),
                        ..p.origin(
                            &format!("recovered/{}", what.replace('/', "-")),
                            String::new(),
                            "open, read",
                        )
                    };
                    let file = Arc::new(file);
                    b.stream(origin, size.min(FILE_MAX), &mut Patient { file, at: 0 })?;
                }
                Ok(_) => {}
                Err(e) => b.gap(format!("{path} ({name}): {e}")),
            }
        }
    }
    Ok(())
}

/// Memory that belongs to no file, executable and writable parts first, in pieces of 4 MiB.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn memory(b: &mut Bundle, p: Process) -> io::Result<()> {
    let maps = match text(PathBuf::from(format!("/proc/{}/maps", p.pid))) {
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
    for r in regions {
        let mut at = r.from;
        while at < r.to {
            if !b.open() {
                return Ok(());
            }
            let n = usize::try_from(r.to - at).unwrap_or(usize::MAX).min(PIECE);
            match piece(&mem, at, n) {
                Ok(bytes) if !bytes.is_empty() => {
                    let source = format!("{:x}-{:x} {} {}", r.from, r.to, r.mode, r.name);
                    let origin = p.origin(&format!("memory/{at:x}"), source, "pread /proc/PID/mem");
                    b.add(origin, &bytes)?;
                    at += bytes.len() as u64;
                }
                // a page that cannot be read: told, and the next one tried
                other => {
                    let why = other
                        .err()
                        .map_or("nothing there".into(), |e| e.to_string());
                    b.gap(format!(
                        "memory of process {} at {at:x}, one page: {why}",
                        p.pid
                    ));
                    at += 4096;
                }
            }
        }
    }
    Ok(())
}

const PIECE: usize = 4 << 20;

fn piece(mem: &Arc<File>, at: u64, n: usize) -> io::Result<Vec<u8>> {
    let mem = Arc::clone(mem);
    within(move || {
        let mut bytes = vec![0; n];
        let got = mem.read_at(&mut bytes, at)?;
        bytes.truncate(got);
        Ok(bytes)
    })
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

    #[test]
    fn a_read_that_hangs_is_left_behind() {
        let before = std::time::Instant::now();
        let e = within(|| -> io::Result<()> {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        assert_eq!(e.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() < Duration::from_secs(30));
    }
}
