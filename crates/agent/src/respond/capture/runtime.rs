//! What the runtime knows of a container: its description, image, bundle and logs.
//!
//! Promises: arguments, environments and labels are masked as configured (`redaction`) before they
//! are written; paths come from the runtime's daemon or the process that started the container,
//! never from inside it; only regular files are read, the end of a log first cut at [`LOG_BYTES`].
//! Left out: image layers (they are named by digest), logs of Kubernetes' files, journald.

use super::bundle::{Bundle, Origin};
use super::patience::{TEXT_MAX, within};
use super::sweep::{Process, keep_part, parent};
use super::{Masks, mounts};
use crate::respond::docker::{self, Known};
use plimsoll_model::ContainerId;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of one log, its end.
pub(super) const LOG_BYTES: u64 = 32 << 20;
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How deep a description is looked into for secrets.
const DEPTH_MAX: usize = 32;

/// A container's daemon, and what it says of it.
pub(super) struct Described {
    known: Known,
    /// The answer to `GET /containers/ID/json`, not masked.
    pub(super) inspect: Value,
}

/// Asks the daemons; `None`: no one knows the container, or the one who does gives no description.
pub(super) fn ask(sockets: &[PathBuf], id: &ContainerId) -> Option<Described> {
    let known = docker::find(sockets, id)?;
    let (_, body) = known.get("json", TEXT_MAX, PATIENCE).ok()?;
    let inspect = serde_json::from_slice(&body).ok()?;
    Some(Described { known, inspect })
}

impl Described {
    /// Whether somebody has asked the daemon to end it.
    pub(super) fn is_being_ended(&self) -> bool {
        self.known.is_being_ended(PATIENCE)
    }
}

/// Keeps the description of the container and of its image, and the OCI bundle's `config.json`.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn describe(
    b: &mut Bundle,
    described: Option<&Described>,
    all: &[Process],
    masks: &Masks,
) -> io::Result<()> {
    match described {
        None => b.gap("description of the container: no runtime's socket knows it".to_owned()),
        Some(d) => {
            let mut inspect = d.inspect.clone();
            masks.json(&mut inspect, DEPTH_MAX);
            let what = "GET /containers/ID/json";
            keep_json(b, "runtime/inspect.json", d.known.source(), what, &inspect)?;
            let image = d.inspect["Image"].as_str().unwrap_or_default();
            match d.known.image(image, TEXT_MAX, PATIENCE) {
                Ok(body) => match serde_json::from_slice::<Value>(&body) {
                    Ok(mut image) => {
                        masks.json(&mut image, DEPTH_MAX);
                        let what = "GET /images/ID/json";
                        keep_json(b, "runtime/image.json", d.known.source(), what, &image)?;
                    }
                    Err(e) => b.gap(format!("description of the image: {e}")),
                },
                Err(e) => b.gap(format!("description of the image: {e}")),
            }
        }
    }
    oci_config(b, all, masks)
}

fn keep_json(
    b: &mut Bundle,
    name: &str,
    source: String,
    call: &'static str,
    value: &Value,
) -> io::Result<()> {
    let origin = Origin {
        name: name.to_owned(),
        source,
        call,
        process: None,
    };
    b.add(origin, &serde_json::to_vec_pretty(value)?)
}

/// The `config.json` in the working directory of the process that started the container (containerd's
/// shim), or in the directory that conmon was given.
fn oci_config(b: &mut Bundle, all: &[Process], masks: &Masks) -> io::Result<()> {
    let starter = mounts::first(all).and_then(|p| parent(p.pid));
    let member = |pid: u32| all.iter().any(|p| p.pid == pid);
    let Some(starter) = starter.filter(|pid| *pid > 1 && !member(*pid)) else {
        b.gap("OCI config.json: the process that started the container is not known".to_owned());
        return Ok(());
    };
    let arguments = std::fs::read(format!("/proc/{starter}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = arguments.split(|c| *c == 0).collect();
    let given = words.windows(2).find(|w| w[0] == b"-b");
    let given = given.map(|w| String::from_utf8_lossy(w[1]).into_owned());
    let path = match given.filter(|d| d.starts_with('/')) {
        Some(dir) => format!("/proc/{starter}/root{dir}/config.json"),
        None => format!("/proc/{starter}/cwd/config.json"),
    };
    let read = regular(path.clone().into()).and_then(|(file, _)| {
        within(move || {
            let mut bytes = Vec::new();
            file.take(TEXT_MAX).read_to_end(&mut bytes)?;
            Ok(serde_json::from_slice::<Value>(&bytes)?)
        })
    });
    match read {
        Ok(mut config) => {
            masks.json(&mut config, DEPTH_MAX);
            keep_json(b, "runtime/config.json", path, "read", &config)
        }
        Err(e) => {
            b.gap(format!("OCI config.json: {path}: {e}"));
            Ok(())
        }
    }
}

/// Opens a regular file without following a link in its last name; its size.
fn regular(path: PathBuf) -> io::Result<(File, u64)> {
    within(move || {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let meta = file.metadata()?;
        match meta.is_file() {
            true => Ok((file, meta.len())),
            false => Err(io::Error::other("not a regular file")),
        }
    })
}

/// Keeps the end of what the container wrote on its outputs: the daemon's files, or what it gives.
///
/// # Errors
/// When the bundle cannot be written.
pub(super) fn logs(b: &mut Bundle, described: Option<&Described>) -> io::Result<()> {
    let Some(d) = described else {
        b.gap("logs: no runtime's socket knows the container".to_owned());
        return Ok(());
    };
    let file = d.inspect["LogPath"].as_str().unwrap_or_default();
    if !file.starts_with('/') {
        return logs_by_api(b, d);
    }
    for (n, path) in [file.to_owned(), format!("{file}.1")]
        .into_iter()
        .enumerate()
    {
        match regular(Path::new(&path).into()) {
            Ok((file, size)) => {
                let from = size.saturating_sub(LOG_BYTES);
                if from > 0 {
                    b.gap(format!("{path}: its first {from} bytes were left out"));
                }
                let origin = Origin {
                    name: format!("runtime/log-{n}"),
                    source: path,
                    call: "open, pread",
                    process: None,
                };
                // the daemon's own file: what it did not give is noted with it
                let _ = keep_part(b, origin, file, from, size - from)?;
            }
            Err(e) if n == 0 => {
                b.gap(format!("log {path}: {e}"));
                return logs_by_api(b, d);
            }
            // not rotated
            Err(_) => {}
        }
    }
    Ok(())
}

fn logs_by_api(b: &mut Bundle, d: &Described) -> io::Result<()> {
    let call = "logs?stdout=1&stderr=1&timestamps=1&tail=20000";
    match d.known.get(call, LOG_BYTES, PATIENCE) {
        Ok((200, body)) => {
            let origin = Origin {
                name: "runtime/log-0".to_owned(),
                source: d.known.source(),
                call: "GET /containers/ID/logs",
                process: None,
            };
            b.add(origin, &body)
        }
        Ok((status, _)) => {
            b.gap(format!("logs: the runtime answered HTTP {status}"));
            Ok(())
        }
        Err(e) => {
            b.gap(format!("logs: {e}"));
            Ok(())
        }
    }
}
