//! What the processes of a container are doing, read from the host's side.
//!
//! Promises: nothing runs inside the container; a process is itself before and after it was read
//! (start time), else what was read is noted as doubtful; a read that hangs is left behind after
//! [`super::patience::PATIENCE`] and noted. Links that the kernel resolves (`/proc/PID/exe`, `fd/N`) are opened, names
//! inside the container never. Bounds: [`PROCESSES_MAX`], [`FDS_MAX`], [`TEXT_MAX`], [`FILE_MAX`].

use super::super::machine::{KernelWord, Target};
use super::super::place::{self, Place};
use super::bundle::{Bundle, Origin};
use super::foreign::{Foreign, Open};
use super::identity;
use super::masks::Masks;
use super::memory::Region;
use super::patience::{Pieces, TEXT_MAX, text};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

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

    /// Where something of it came from.
    pub(super) fn origin<'a>(&self, what: &str, source: String, call: &'a str) -> Origin<'a> {
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
    let fds = fds(p.pid, FDS_MAX + 1);
    fds.iter()
        .take(FDS_MAX)
        .for_each(|fd| add(&format!("fd/{fd}")));
    if fds.len() > FDS_MAX {
        b.gap(format!(
            "process {}: more than {FDS_MAX} open files, so many were looked at",
            p.pid
        ));
    }
    b.add(
        p.origin("links", format!("/proc/{}", p.pid), "readlink"),
        lines.as_bytes(),
    )
}

fn fds(pid: u32, max: usize) -> Vec<u32> {
    let dir = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    dir.filter_map(|e| e.file_name().to_str()?.parse().ok())
        .take(max)
        .collect()
}

/// A file that only the kernel still holds; open, so that it stays although its process ends.
struct Held {
    process: Process,
    /// Below `/proc/PID`.
    what: String,
    /// What the link says.
    name: String,
    file: Open,
}

/// What only the kernel still holds: deleted programs, files and libraries, memory files. Each once;
/// all are opened before the first is read, and small ones are read first.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn recover(b: &mut Bundle, all: &[Process], foreign: &mut Foreign) -> io::Result<()> {
    let mut seen = HashSet::new();
    let mut held = Vec::new();
    for p in all {
        if !b.open() {
            break;
        }
        let open = fds(p.pid, RECOVER_FDS_MAX).into_iter();
        let open = open.map(|fd| format!("fd/{fd}"));
        let mapped = programs_mapped(p.pid);
        let links = std::iter::once("exe".to_owned()).chain(mapped).chain(open);
        for (n, what) in links.enumerate() {
            let path = format!("/proc/{}/{what}", p.pid);
            let to = fs::read_link(&path).unwrap_or_default();
            let name = to.to_string_lossy().into_owned();
            let gone = name.ends_with(" (deleted)") || name.starts_with("/memfd:");
            let asks = gone && !name.starts_with("/dev/");
            // the time is looked at now and then where there is nothing to open
            if (asks || n % 1024 == 0) && (held.len() >= HELD_MAX || !b.open()) {
                b.gap(format!("{path} and further deleted files: left out"));
                return keep_held(b, held, foreign);
            }
            if !asks {
                continue;
            }
            match foreign.open(&path) {
                Ok(_) if Process::now(p.pid) != Some(*p) => {
                    b.gap(format!("{path} ({name}): its process has ended"));
                }
                Ok(Some(file)) if seen.insert((file.device, file.inode)) => held.push(Held {
                    process: *p,
                    what,
                    name,
                    file,
                }),
                Ok(_) => {}
                Err(e) => b.gap(format!("{path} ({name}): {e}")),
            }
        }
    }
    keep_held(b, held, foreign)
}

fn keep_held(b: &mut Bundle, mut held: Vec<Held>, foreign: &mut Foreign) -> io::Result<()> {
    held.sort_by_key(|h| h.file.size);
    for h in held {
        if !b.open() {
            break;
        }
        let path = format!("/proc/{}/{}", h.process.pid, h.what);
        let (device, size) = (h.file.device, h.file.size);
        if foreign.is_silent(device) {
            b.gap(format!(
                "{path} ({}): its file system does not answer",
                h.name
            ));
            continue;
        }
        if size > FILE_MAX {
            b.gap(format!(
                "{path} ({}): {size} bytes, {FILE_MAX} were kept",
                h.name
            ));
        }
        let member = format!("recovered/{}", h.what.replace('/', "-"));
        let source = format!("{path} -> {}", h.name);
        let origin = h.process.origin(&member, source, "open, pread");
        let file = h.file.into_file()?;
        let late = keep_part(b, origin, file, 0, size.min(FILE_MAX))?;
        foreign.note(device, &late);
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

/// Streams part of a file that is open; each piece with patience. Inside: why it gave no more.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn keep_part(
    b: &mut Bundle,
    origin: Origin<'_>,
    file: File,
    from: u64,
    size: u64,
) -> io::Result<io::Result<()>> {
    let pieces = match identity::pieces(file, from, size) {
        Ok(pieces) => pieces,
        Err(e) => {
            b.gap(format!("{}: {e}", origin.name));
            return Ok(Err(e));
        }
    };
    let mut said = Ok(());
    let mut next = || {
        let next = pieces.next();
        if let Err(e) = &next {
            said = Err(io::Error::from(e.kind()));
        }
        next?.transpose()
    };
    b.stream(origin, size, &mut Pieces::new(&mut next))?;
    Ok(said)
}
