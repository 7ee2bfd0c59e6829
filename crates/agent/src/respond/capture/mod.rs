//! Preserve: what a container holds, read from the host and sealed before anything is contained or
//! destroyed.
//!
//! Three steps use it: `snapshot` (fast sweep of `/proc`), `capture` (sweep, what only the kernel still
//! holds, files in memory, the writable layer, logs, what the runtime says; on request memory),
//! `memory`. What perishes first is read first; where the container is ending already, what is cheap
//! comes before what is large. The deadline bounds the rest. Nothing runs inside the container.
//!
//! | module | what it is |
//! |---|---|
//! | `bundle`, `pipe`, `room` | the file, its manifest and digests; the way to it; what captures may fill |
//! | `identity`, `sweep`, `memory` | clock, machine, processes; `/proc`, deleted files; memory |
//! | `mounts`, `tree`, `layer` | where files are; reading a hostile tree; lists, body files, contents |
//! | `runtime`, `masks` | descriptions, image, logs; secrets in them |
//! | `patience`, `foreign` | reads that may hang; files on file systems that may not answer |

mod bundle;
mod foreign;
mod identity;
mod layer;
pub(super) mod masks;
mod memory;
mod mounts;
mod patience;
mod pipe;
pub(super) mod room;
mod runtime;
mod sweep;
mod tree;

pub(crate) use mounts::{Mount, mounts, pin_directory};
pub(crate) use tree::resolve;

pub use bundle::verify;
pub use masks::Masks;
pub use room::Room;

use super::machine::{Machine, Target};
use super::place;
use bundle::{Bundle, Limits, Sealed};
use foreign::Foreign;
use plimsoll_model::ContainerState;
use plimsoll_model::response::StepOutcome;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead};
use std::path::Path;
use std::time::{Duration, Instant};
use sweep::Process;

/// Opens a sealed capture, with the age identity in a file when it is encrypted, and computes every
/// digest again; its manifest.
///
/// # Errors
/// `InvalidData` when it is not what was sealed (the artefact is named); others when it cannot be
/// read or opened.
pub fn verify_file(path: &Path, identity: Option<&Path>) -> io::Result<serde_json::Value> {
    let mut file = io::BufReader::new(File::open(path)?);
    if !file.fill_buf()?.starts_with(b"age-encryption.org/") {
        return verify(file);
    }
    let refuse = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
    let key = identity.ok_or_else(|| refuse("it is encrypted: give --identity FILE".into()))?;
    let text = std::fs::read_to_string(key)?;
    let keys: Vec<age::x25519::Identity> =
        text.lines().filter_map(|l| l.trim().parse().ok()).collect();
    let sealed = age::Decryptor::new(file).map_err(|e| refuse(e.to_string()))?;
    let plain = sealed
        .decrypt(keys.iter().map(|k| k as &dyn age::Identity))
        .map_err(|e| refuse(format!("no identity in {} opens it: {e}", key.display())))?;
    verify(plain)
}

/// Bytes of one capture at most.
const BYTES_MAX: u64 = 8 << 30;
/// Artefacts of one capture at most.
const ARTEFACTS_MAX: usize = 100_000;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The sweep only.
    Sweep,
    /// Sweep and what only the kernel still holds; memory of the suspect processes too.
    Full { memory: bool },
    /// Memory of the suspect processes, or of all.
    Memory { all: bool },
}

/// Captures and seals; the outcome names the bundle.
pub(super) fn capture(
    machine: &Machine,
    target: &Target,
    keep: Keep,
    deadline: Duration,
) -> StepOutcome {
    let began = Instant::now();
    match write(machine, target, keep, began + deadline) {
        Ok(None) => StepOutcome::Failed {
            why: "no process of the container is left to read, and no runtime knows it".to_owned(),
        },
        Ok(Some(sealed)) => StepOutcome::Done {
            effect: format!(
                "{} artefacts, {} bytes, {} gaps, {} in {} ms, file SHA-256 {}",
                sealed.artefacts,
                sealed.bytes,
                sealed.gaps,
                if machine.recipients.is_empty() {
                    "not encrypted (no recipient is configured)"
                } else {
                    "encrypted"
                },
                began.elapsed().as_millis(),
                sealed.sha256
            ),
            sealed: Some(sealed.name),
            undo: Vec::new(),
        },
        Err(e) => StepOutcome::Failed {
            why: format!(
                "write the bundle in {}: {e}",
                machine.captures_dir.display()
            ),
        },
    }
}

fn write(
    machine: &Machine,
    target: &Target,
    keep: Keep,
    end: Instant,
) -> io::Result<Option<Sealed>> {
    let c = &target.container;
    let mut all = sweep::processes(target, &machine.kernel);
    let full = matches!(keep, Keep::Full { .. });
    let described = match full {
        true => runtime::ask(&machine.docker_sockets, c.id()),
        false => None,
    };
    if all.is_empty() && described.is_none() {
        return Ok(None);
    }
    let more = all.len() > sweep::PROCESSES_MAX;
    all.truncate(sweep::PROCESSES_MAX);
    let kind = match keep {
        Keep::Sweep => "snapshot",
        Keep::Full { .. } => "capture",
        Keep::Memory { .. } => "memory",
    };
    let short: String = c.id().as_str().chars().take(12).collect();
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let id = format!("{kind}-{short}-{}", stamp.map_or(0, |d| d.as_millis()));
    let limits = Limits {
        bytes: BYTES_MAX,
        artefacts: ARTEFACTS_MAX,
        end,
        room: machine.captures_room,
    };
    let mut b = Bundle::create(&machine.captures_dir, &id, &machine.recipients, limits)?;
    if more {
        b.gap(format!(
            "the container has more than {} processes: the rest was left out",
            sweep::PROCESSES_MAX
        ));
    }
    let ending = is_ending(target, described.as_ref(), &all);
    let subject = Subject {
        machine,
        target,
        all: &all,
        described,
        ending,
    };
    let began = identity::machine();
    if let Err(e) = fill(&mut b, &subject, keep) {
        b.give_up(&e);
        return Err(e);
    }
    b.seal(json!({
        "kind": kind, "plan": target.plan, "container_id": c.id().as_str(), "name": c.name,
        "image": c.image.name, "image_digest": c.image.config_digest.as_ref().map(ToString::to_string),
        "processes": all.len(), "encrypted": !machine.recipients.is_empty(), "ending": ending,
        "machine": began, "clock_at_the_end": identity::clock(),
    }))
    .map(Some)
}

/// What is captured.
struct Subject<'a> {
    machine: &'a Machine,
    target: &'a Target,
    all: &'a [Process],
    described: Option<runtime::Described>,
    ending: bool,
}

/// Whether the container is on its way out: its first process is gone, a zombie, or has been told to
/// end and has not met that yet (it stands still, or holds the signal back), or its daemon says so.
fn is_ending(target: &Target, described: Option<&runtime::Described>, all: &[Process]) -> bool {
    let status = described.and_then(|d| d.inspect["State"]["Status"].as_str());
    let dead = |p: Process| place::stat(p.pid).is_none_or(|s| matches!(s.state, 'Z' | 'X'));
    target.container.state == ContainerState::Gone
        || status.is_some_and(|s| matches!(s, "removing" | "exited" | "dead"))
        || mounts::first(all).is_none_or(|p| dead(p) || told_to_end(p.pid))
        || described.is_some_and(runtime::Described::is_being_ended)
}

/// SIGTERM or SIGKILL is pending for the whole process (proc_pid_status(5), `ShdPnd`).
fn told_to_end(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|l| l.strip_prefix("ShdPnd:"));
    let pending = pending.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let of = |signal: u32| 1u64 << (signal - 1);
    pending.unwrap_or(0) & (of(9) | of(15)) != 0
}

/// In order of volatility (RFC 3227); what is large last where the container is ending.
fn fill(b: &mut Bundle, s: &Subject<'_>, keep: Keep) -> io::Result<()> {
    let full = matches!(keep, Keep::Full { .. });
    let mut foreign = Foreign::default();
    identity::keep(b, s.all)?;
    // pinned before anything takes time: they stay readable when the last process has ended
    let files = full.then(|| mounts::in_memory(s.all, s.target.container.id().as_str()));
    let layer = full.then(|| layer_of(s));
    if keep != (Keep::Memory { all: true }) {
        // the environment is full of secrets: only where it is encrypted
        let encrypted = !s.machine.recipients.is_empty();
        if !encrypted {
            let what = "environment of processes: left out, since the bundle is not encrypted";
            b.gap(what.to_owned());
        }
        sweep::sweep(b, s.all, encrypted.then_some(&s.machine.masks))?;
    }
    if full {
        sweep::recover(b, s.all, &mut foreign)?;
        runtime::describe(b, s.described.as_ref(), s.all, &s.machine.masks)?;
    }
    if !s.ending {
        memory(b, s, keep)?;
    }
    if let Some((places, left_out)) = files {
        layer::in_memory(b, places, left_out)?;
    }
    if keep == Keep::Sweep || full {
        identity::programs(b, s.all, &mut foreign)?;
    }
    if full {
        runtime::logs(b, s.described.as_ref())?;
    }
    if let Some(layer) = layer {
        layer::writable(b, layer)?;
    }
    if s.ending {
        memory(b, s, keep)?;
    }
    Ok(())
}

/// The writable layer, as the node's mounts know it, else as the daemon does.
fn layer_of(s: &Subject<'_>) -> Result<mounts::Place, String> {
    mounts::writable(s.all).or_else(|why| {
        let inspect = s.described.as_ref().map(|d| &d.inspect);
        let upper = inspect.and_then(|i| i["GraphDriver"]["Data"]["UpperDir"].as_str());
        match upper.filter(|u| u.starts_with('/')) {
            Some(upper) => mounts::named(upper, mounts::first(s.all)),
            None => Err(why),
        }
    })
}

/// Memory of the processes that gave cause, or of all.
fn memory(b: &mut Bundle, s: &Subject<'_>, keep: Keep) -> io::Result<()> {
    let suspect = |p: &Process| s.target.process.is_some_and(|k| k.tgid == p.pid);
    let wanted: Vec<Process> = match keep {
        Keep::Memory { all: true } => s.all.to_vec(),
        Keep::Memory { all: false } | Keep::Full { memory: true } => {
            let some: Vec<Process> = s.all.iter().copied().filter(suspect).collect();
            if some.is_empty() {
                s.all.to_vec()
            } else {
                some
            }
        }
        _ => Vec::new(),
    };
    for p in wanted {
        memory::memory(b, p)?;
    }
    Ok(())
}

#[cfg(test)]
mod fuse;
#[cfg(test)]
mod resists;
#[cfg(test)]
mod tests;
