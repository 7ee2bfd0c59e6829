//! Preserve: what a container holds, read from the host and sealed before anything is contained or
//! destroyed.
//!
//! Three steps use it: `snapshot` (fast sweep of `/proc`), `capture` (sweep, deleted programs and
//! files, on request memory), `memory`. What perishes first is read first; the deadline bounds the
//! rest. Left out so far: files of the writable layer, tmpfs contents, logs; the outcome says so.

mod bundle;
mod sweep;

pub use bundle::verify;

use super::act::{Machine, Target};
use bundle::{Bundle, Limits, Sealed};
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
const ARTEFACTS_MAX: usize = 200_000;

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
            why: "no process of the container is left to read".to_owned(),
        },
        Ok(Some(sealed)) => StepOutcome::Done {
            effect: format!(
                "{} artefacts, {} bytes, {} gaps, {} in {} ms, file SHA-256 {}; not kept: files of the writable layer, tmpfs, logs",
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
    let mut all = sweep::processes(c.id().as_str());
    if all.is_empty() {
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
    };
    let mut b = Bundle::create(&machine.captures_dir, &id, &machine.recipients, limits)?;
    if more {
        b.gap(format!(
            "the container has more than {} processes: the rest was left out",
            sweep::PROCESSES_MAX
        ));
    }
    // the environment is full of secrets: only where it is encrypted
    let encrypted = !machine.recipients.is_empty();
    if !encrypted {
        b.gap("environment of processes: left out, since the bundle is not encrypted".to_owned());
    }
    if keep != (Keep::Memory { all: true }) {
        sweep::sweep(&mut b, &all, encrypted)?;
    }
    if matches!(keep, Keep::Full { .. }) {
        sweep::recover(&mut b, &all)?;
    }
    let suspect = |p: &Process| target.process.is_some_and(|k| k.tgid == p.pid);
    let wanted: Vec<Process> = match keep {
        Keep::Memory { all: true } => all.clone(),
        Keep::Memory { all: false } | Keep::Full { memory: true } => {
            let some: Vec<Process> = all.iter().copied().filter(suspect).collect();
            if some.is_empty() { all.clone() } else { some }
        }
        _ => Vec::new(),
    };
    for p in wanted {
        sweep::memory(&mut b, p)?;
    }
    b.seal(json!({
        "kind": kind, "plan": target.plan, "container_id": c.id().as_str(), "name": c.name,
        "image": c.image.name, "image_digest": c.image.config_digest.as_ref().map(ToString::to_string),
        "processes": all.len(), "encrypted": encrypted,
    }))
    .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    /// A program that was deleted after it was started, with a marker in its memory.
    fn deleted_program(dir: &Path) -> (Child, Vec<u8>) {
        let path = dir.join("dropped");
        fs::copy("/bin/sleep", &path).expect("copy sleep");
        let bytes = fs::read(&path).expect("its bytes");
        let child = Command::new(&path)
            .arg("60")
            .env("MARKER", "plimsoll-marker-5319")
            .stdin(Stdio::null())
            .spawn()
            .expect("start it");
        std::thread::sleep(Duration::from_millis(50));
        fs::remove_file(&path).expect("delete it");
        (child, bytes)
    }

    fn new_bundle(dir: &Path, recipients: &[String], seconds: u64, bytes: u64) -> (Bundle, Limits) {
        let end = Instant::now() + Duration::from_secs(seconds);
        let limits = Limits {
            bytes,
            artefacts: 1000,
            end,
        };
        (
            Bundle::create(dir, "test", recipients, limits).expect("create"),
            limits,
        )
    }

    #[test]
    fn a_deleted_program_and_memory_are_kept_byte_for_byte_and_verify() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut child, bytes) = deleted_program(dir.path());
        let p = Process::now(child.id()).expect("it runs");
        let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
        sweep::sweep(&mut b, &[p], true).expect("sweep");
        sweep::recover(&mut b, &[p]).expect("recover");
        sweep::memory(&mut b, p).expect("memory");
        let sealed = b.seal(json!({})).expect("seal");
        let _ = child.kill();
        let _ = child.wait();
        let path = dir.path().join(&sealed.name);
        let manifest = verify(File::open(&path).expect("open")).expect("verifies");
        assert!(manifest["artefacts"].as_array().expect("a list").len() > 10);
        let (mut exe, mut marker) = (Vec::new(), false);
        for entry in tar::Archive::new(File::open(&path).expect("open"))
            .entries()
            .expect("tar")
        {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("read");
            if name.ends_with("recovered/exe") {
                exe = data;
            } else if name.contains("/memory/") {
                marker |= data.windows(20).any(|w| w == b"plimsoll-marker-5319");
            }
        }
        assert_eq!(exe, bytes, "the deleted program");
        assert!(marker, "memory of the process");
    }

    #[test]
    fn a_changed_bundle_is_told_and_the_artefact_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 20);
        let origin = bundle::Origin {
            name: "a/b".into(),
            source: "x".into(),
            call: "read",
            process: None,
        };
        b.add(origin, b"what was there").expect("add");
        let sealed = b.seal(json!({})).expect("seal");
        let path = dir.path().join(&sealed.name);
        let mut bytes = fs::read(&path).expect("read");
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
        assert_eq!(sealed.sha256, bundle::hex(&digest), "what the journal says");
        assert!(verify(&bytes[..]).is_ok());
        bytes[512] ^= 1;
        assert!(verify(&bytes[..]).unwrap_err().to_string().contains("a/b"));
        assert!(verify(&bytes[..1024]).is_err(), "cut short");
        let twice = [&bytes[..1024], &bytes[..]].concat();
        assert!(verify(&twice[..]).is_err(), "a member that is there twice");
    }

    #[test]
    fn bounds_end_a_capture_and_are_noted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut b, _) = new_bundle(dir.path(), &[], 60, 4);
        for name in ["one", "two"] {
            let origin = bundle::Origin {
                name: name.into(),
                source: String::new(),
                call: "read",
                process: None,
            };
            b.add(origin, b"123456").expect("add");
        }
        let sealed = b.seal(json!({})).expect("seal");
        assert_eq!((sealed.artefacts, sealed.bytes, sealed.gaps), (1, 4, 2));
    }

    #[test]
    fn an_encrypted_bundle_opens_with_the_identity_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = age::x25519::Identity::generate();
        let to = vec![identity.to_public().to_string()];
        let (mut b, _) = new_bundle(dir.path(), &to, 60, 1 << 20);
        let origin = bundle::Origin {
            name: "secret".into(),
            source: String::new(),
            call: "read",
            process: None,
        };
        b.add(origin, b"hunter2").expect("add");
        let sealed = b.seal(json!({})).expect("seal");
        let bytes = fs::read(dir.path().join(&sealed.name)).expect("read");
        assert!(sealed.name.ends_with(".tar.age") && !bytes.windows(7).any(|w| w == b"hunter2"));
        let open = age::Decryptor::new(&bytes[..]).expect("age");
        let plain = open
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .expect("decrypt");
        assert!(verify(plain).is_ok());
        let key = dir.path().join("key.txt");
        let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        fs::write(&key, format!("# a comment\n{secret}\n")).expect("write the key");
        let file = dir.path().join(&sealed.name);
        assert!(verify_file(&file, Some(&key)).is_ok());
        assert!(verify_file(&file, None).is_err(), "without the identity");
        let e = Bundle::create(dir.path(), "bad", &["age1nonsense".into()], bundle_limits());
        assert!(e.is_err(), "a recipient that is none");
    }

    fn bundle_limits() -> Limits {
        Limits {
            bytes: 1,
            artefacts: 1,
            end: Instant::now(),
        }
    }
}
