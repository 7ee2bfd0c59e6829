//! Who and when: clock, machine, and the container's processes with all their numbers.
//!
//! Promises: written before anything else, since every other artefact is read with it: wall clock and
//! boot clock at one instant (with the width of that instant), ticks a second, boot id, kernel, and of
//! each process its start, parent and numbers in every namespace. Left out: what the processes do
//! ([`super::sweep`]).

use super::bundle::{Bundle, Origin};
use super::foreign::{Device, Foreign, Open};
use super::patience::{Feed, PIECE, TEXT_MAX, feed, text};
use super::sweep::{FILE_MAX, Process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Wall clock and boot clock at one instant, nanoseconds; `within_ns`: how far apart they were read.
pub(super) fn clock() -> Value {
    let ns = |id| {
        let t = clock_gettime(id);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    };
    let (before, wall, after) = (
        ns(ClockId::Boottime),
        ns(ClockId::Realtime),
        ns(ClockId::Boottime),
    );
    json!({"wall_ns": wall, "boot_ns": before + (after - before) / 2, "within_ns": after - before})
}

fn line_of(path: &str) -> Value {
    let text = std::fs::read_to_string(path);
    text.map_or(Value::Null, |t| t.trim().into())
}

/// The machine, and when this was read.
pub(super) fn machine() -> Value {
    let name = rustix::system::uname();
    let word = |c: &std::ffi::CStr| Value::from(c.to_string_lossy().into_owned());
    json!({
        "clock": clock(), "ticks_a_second": rustix::param::clock_ticks_per_second(),
        "node": word(name.nodename()), "kernel": word(name.release()),
        "kernel_build": word(name.version()), "architecture": word(name.machine()),
        "boot_id": line_of("/proc/sys/kernel/random/boot_id"),
        "machine_id": line_of("/etc/machine-id"),
    })
}

/// Keeps the map of processes.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn keep(b: &mut Bundle, all: &[Process]) -> io::Result<()> {
    let mut processes = Vec::new();
    for p in all {
        let status = text(format!("/proc/{}/status", p.pid).into(), TEXT_MAX);
        let status = match status {
            Ok(status) => String::from_utf8_lossy(&status).into_owned(),
            Err(e) => {
                b.gap(format!("status of process {}: {e}", p.pid));
                continue;
            }
        };
        let of = |key: &str| -> Vec<&str> {
            let line = status.lines().find_map(|l| l.strip_prefix(key));
            line.map_or(Vec::new(), |l| l.split_whitespace().collect())
        };
        processes.push(json!({
            "pid": p.pid, "start_ticks": p.start, "name": of("Name:").join(" "),
            "state": of("State:").first(), "parent": of("PPid:").first(),
            "pids_in_namespaces": of("NSpid:"), "uids": of("Uid:"), "gids": of("Gid:"),
            "threads": of("Threads:").first(), "tracer": of("TracerPid:").first(),
        }));
    }
    let origin = Origin {
        name: "identity.json".to_owned(),
        source: "/proc/PID/status, clock_gettime, uname".to_owned(),
        call: "read",
        process: None,
    };
    let map = json!({"machine": machine(), "processes": processes});
    b.add(origin, &serde_json::to_vec_pretty(&map)?)
}

/// Keeps the digest of every program that runs, each file read once.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn programs(b: &mut Bundle, all: &[Process], foreign: &mut Foreign) -> io::Result<()> {
    let mut known: HashMap<(Device, u64), Value> = HashMap::new();
    let mut lines = String::new();
    for p in all {
        if !b.open() {
            break;
        }
        let path = format!("/proc/{}/exe", p.pid);
        let name = std::fs::read_link(&path).unwrap_or_default();
        let mut line = match foreign.open(&path) {
            // a thread of the kernel, or a process that has ended
            Err(e) => json!({"error": e.to_string()}),
            Ok(None) => json!({"error": "not a regular file"}),
            Ok(Some(file)) => {
                let (device, inode, modified) = (file.device, file.inode, file.modified_s);
                let line = known.entry((device, inode));
                let mut line = line.or_insert_with(|| digest(file, foreign)).clone();
                line["inode"] = inode.into();
                line["modified_s"] = modified.into();
                line
            }
        };
        line["pid"] = p.pid.into();
        line["start_ticks"] = p.start.into();
        line["path"] = super::layer::spell(name.as_os_str().as_encoded_bytes()).into();
        lines += &format!("{line}\n");
    }
    let origin = Origin {
        name: "programs.jsonl".to_owned(),
        source: "/proc/PID/exe".to_owned(),
        call: "open, pread",
        process: None,
    };
    b.add(origin, lines.as_bytes())
}

fn digest(file: Open, foreign: &mut Foreign) -> Value {
    let (device, size) = (file.device, file.size);
    let read = |feed: Feed<io::Result<Vec<u8>>>| -> io::Result<(u64, Sha256)> {
        let (mut n, mut hash) = (0, Sha256::new());
        // the end is not waited for: it comes after the file was closed, which may hang
        while n < size.min(FILE_MAX)
            && let Some(piece) = feed.next()?
        {
            let piece = piece?;
            n += piece.len() as u64;
            hash.update(&piece);
        }
        Ok((n, hash))
    };
    let file = file.into_file();
    let got = file.and_then(|f| pieces(f, 0, size.min(FILE_MAX)).and_then(read));
    foreign.note(device, &got);
    match got {
        Ok((n, hash)) if n == size => {
            json!({"sha256": super::bundle::hex(&hash.finalize()), "size": size})
        }
        Ok((n, _)) => json!({"error": format!("{n} of {size} bytes were read"), "size": size}),
        Err(e) => json!({"error": e.to_string(), "size": size}),
    }
}

/// Part of an open file, read on a thread of its own.
///
/// # Errors
/// When there is no thread for it.
pub(super) fn pieces(file: File, from: u64, size: u64) -> io::Result<Feed<io::Result<Vec<u8>>>> {
    feed(move |to| {
        let mut done = 0;
        while done < size {
            let want = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; want];
            let got = file.read_at(&mut piece, from + done).map(|n| {
                piece.truncate(n);
                done += n as u64;
                piece
            });
            let end = !matches!(&got, Ok(p) if !p.is_empty());
            if to.send(got).is_err() || end {
                return;
            }
        }
    })
}
