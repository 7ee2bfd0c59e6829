//! A capture on disk: one tar file, written once, its manifest last.
//!
//! Promises: every artefact is hashed while it is written and listed with where it came from; what
//! could not be had is listed too; a bundle has its final name only when it is complete and on the
//! disk; it is encrypted while it is written when there are recipients, so that no secret touches
//! the disk in clear; where the disk is full, half a bundle is removed and never named as a whole.
//! Bounds: [`Limits`]. Format: `docs/formats/capture.md`.

use super::pipe::{Digested, Pipe};
use super::room::{Left, Room};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What one capture may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of all artefacts.
    pub(super) bytes: u64,
    /// Artefacts.
    pub(super) artefacts: usize,
    /// Nothing is begun after this.
    pub(super) end: Instant,
    /// What all captures may fill.
    pub(super) room: Room,
}

/// Kept free for what ends a bundle, besides the list of artefacts.
const RESERVE: u64 = 256 << 10;
/// After so many bytes the room is looked at again.
const LOOK_AGAIN: u64 = 16 << 20;
/// Things that are missing, and characters of each.
const GAPS_MAX: (usize, usize) = (4096, 1000);
/// Bytes of the list of artefacts.
const LIST_MAX: usize = 40 << 20;

/// Where an artefact came from.
pub(super) struct Origin<'a> {
    /// Name in the bundle.
    pub(super) name: String,
    /// File or object it was read from.
    pub(super) source: String,
    /// How it was read (`read`, `readlink`, `pread /proc/PID/mem`).
    pub(super) call: &'a str,
    /// Process and start time in ticks, where it is one's.
    pub(super) process: Option<(u32, u64)>,
}

/// A bundle that is being written.
pub(super) struct Bundle {
    tar: tar::Builder<Pipe>,
    part: PathBuf,
    path: PathBuf,
    file: File,
    limits: Limits,
    /// JSON objects with commas between them: as values they would take several times the memory.
    list: Vec<u8>,
    artefacts: usize,
    gaps: Vec<String>,
    used: u64,
    /// What was left when the room was last looked at, and what was written since.
    left: Left,
    since: u64,
}

/// A sealed bundle.
pub(super) struct Sealed {
    /// File name below the captures directory.
    pub(super) name: String,
    /// Artefacts and gaps in it.
    pub(super) artefacts: usize,
    /// What is missing.
    pub(super) gaps: usize,
    /// Size of all artefacts.
    pub(super) bytes: u64,
    /// SHA-256 of the file.
    pub(super) sha256: String,
}

fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl Bundle {
    /// Begins `dir/id.tar`, or `dir/id.tar.age` when there are recipients.
    ///
    /// # Errors
    /// When the directory cannot be written, or a recipient is none.
    pub(super) fn create(
        dir: &Path,
        id: &str,
        recipients: &[String],
        limits: Limits,
    ) -> io::Result<Self> {
        let encryptor = match recipients {
            [] => None,
            some => Some(encryptor(some)?),
        };
        fs::create_dir_all(dir)?;
        let suffix = if recipients.is_empty() {
            "tar"
        } else {
            "tar.age"
        };
        let left = limits.room.left(dir)?;
        if left.bytes < RESERVE {
            return Err(io::Error::new(io::ErrorKind::StorageFull, left.by));
        }
        let path = dir.join(format!("{id}.{suffix}"));
        let part = dir.join(format!("{id}.{suffix}.part"));
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        let pipe = Pipe::new(&file, &part, encryptor)?;
        Ok(Bundle {
            tar: tar::Builder::new(pipe),
            part,
            path,
            file,
            limits,
            list: Vec::new(),
            artefacts: 0,
            gaps: Vec::new(),
            used: 0,
            left,
            since: 0,
        })
    }

    /// Whether there is time and room for more; the first refusal is noted as a gap.
    pub(super) fn open(&mut self) -> bool {
        let full = if Instant::now() >= self.limits.end {
            "the deadline was met".to_owned()
        } else if self.used >= self.limits.bytes {
            "the bound on bytes was met".to_owned()
        } else if self.artefacts >= self.limits.artefacts || self.list.len() >= LIST_MAX {
            "the bound on artefacts was met".to_owned()
        } else if self.room() == 0 {
            format!("no room: {}", self.left.by)
        } else {
            return true;
        };
        // once for each reason: the numbers of the room may differ
        let note = "left out from here on: ";
        let word = full.split(' ').take(4).collect::<Vec<_>>().join(" ");
        let same = |g: &String| g.strip_prefix(note).is_some_and(|g| g.starts_with(&word));
        if !self.gaps.iter().any(same) {
            self.gaps.push(format!("{note}{full}"));
        }
        false
    }

    /// Bytes that may be written now.
    fn room(&mut self) -> u64 {
        if self.since >= LOOK_AGAIN
            && let Some(dir) = self.path.parent()
            && let Ok(left) = self.limits.room.left(dir)
        {
            // what is on its way is not in the file yet
            (self.left, self.since) = (left, self.tar.get_ref().behind());
        }
        let end = self.since + self.list.len() as u64 + RESERVE;
        let room = self.left.bytes.saturating_sub(end);
        room.min(self.limits.bytes.saturating_sub(self.used))
    }

    /// When nothing more is begun.
    pub(super) fn end(&self) -> Instant {
        self.limits.end
    }

    /// Something could not be had.
    pub(super) fn gap(&mut self, what: String) {
        if self.gaps.len() < GAPS_MAX.0 {
            let seen = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            self.gaps
                .push(what.chars().take(GAPS_MAX.1).map(seen).collect());
        } else if self.gaps.len() == GAPS_MAX.0 {
            self.gaps
                .push("more is missing than is listed here".to_owned());
        }
    }

    /// Adds an artefact that is at hand.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub(super) fn add(&mut self, from: Origin<'_>, bytes: &[u8]) -> io::Result<()> {
        self.stream(from, bytes.len() as u64, &mut &bytes[..])
    }

    /// Adds `size` bytes of a reader; what it does not give is zeroes, and noted.
    ///
    /// # Errors
    /// When the bundle cannot be written.
    pub(super) fn stream(
        &mut self,
        from: Origin<'_>,
        size: u64,
        reader: &mut dyn BufRead,
    ) -> io::Result<()> {
        if !self.open() {
            return Ok(());
        }
        let room = self.room();
        if size > room {
            self.gap(format!(
                "{}: {room} of {size} bytes, the bound was met",
                from.name
            ));
        }
        let size = size.min(room);
        let began = wall_ms();
        self.begin(&from.name, size)?;
        let copied = copy(reader, size, self.tar.get_mut())?;
        self.tar.get_mut().write_all(padding(size))?;
        self.used += size;
        // a member has a header and is filled up to whole blocks
        self.since += size + 1536;
        let mut item = json!({
            "name": from.name, "source": from.source, "call": from.call, "size": size,
            "sha256": hex(&copied.digest), "from_ms": began, "to_ms": wall_ms(),
        });
        if let Some((pid, start)) = from.process {
            item["pid"] = pid.into();
            item["start_ticks"] = start.into();
        }
        if copied.given < size {
            item["read"] = copied.given.into();
            item["error"] = copied
                .error
                .map_or("it ended early".into(), |e| e.to_string().into());
        }
        if !self.list.is_empty() {
            self.list.push(b',');
        }
        serde_json::to_writer(&mut self.list, &item)?;
        self.artefacts += 1;
        Ok(())
    }

    /// The header of a member; its bytes follow, filled up to whole blocks.
    fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, name, io::empty())
    }

    /// After an error: what was written is kept under the name with `.part`, unless the disk is full.
    pub(super) fn give_up(self, why: &io::Error) {
        let part = self.part.clone();
        // first what is on its way
        drop(self);
        remove_if_full(&part, why);
    }

    /// Writes the manifest, makes everything durable and gives the bundle its name.
    ///
    /// # Errors
    /// When that fails; see [`Bundle::give_up`].
    pub(super) fn seal(self, about: Value) -> io::Result<Sealed> {
        let part = self.part.clone();
        let sealed = self.finish(about);
        if let Err(e) = &sealed {
            remove_if_full(&part, e);
        }
        sealed
    }

    fn finish(mut self, about: Value) -> io::Result<Sealed> {
        let mut head = serde_json::to_vec(&json!({
            "version": 1, "collector": concat!("plimsoll ", env!("CARGO_PKG_VERSION")),
            "about": about, "gaps": self.gaps,
        }))?;
        head.pop();
        head.extend(b",\"artefacts\":[");
        let size = head.len() + self.list.len() + 2;
        self.begin("manifest.json", size as u64)?;
        let to = self.tar.get_mut();
        for part in [&head, &self.list, &b"]}"[..], padding(size as u64)] {
            to.write_all(part)?;
        }
        let sha256 = hex(&self.tar.into_inner()?.finish()?);
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Sealed {
            name: self
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            artefacts: self.artefacts,
            gaps: self.gaps.len(),
            bytes: self.used,
            sha256,
        })
    }
}

fn remove_if_full(part: &Path, why: &io::Error) {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    if matches!(why.kind(), FileTooLarge | QuotaExceeded | StorageFull) {
        // what cannot be removed cannot be helped; its name says that it is not whole
        let _ = fs::remove_file(part);
    }
}

/// What fills a member up to whole blocks.
fn padding(size: u64) -> &'static [u8] {
    &ZEROES[..at_most(512, size.next_multiple_of(512) - size)]
}

/// What came of a member's content.
struct Copied {
    digest: Digested,
    /// Bytes that the reader gave; the rest are zeroes.
    given: u64,
    /// Why it gave no more, where it said so.
    error: Option<io::Error>,
}

/// Hands exactly `size` bytes on.
fn copy(from: &mut dyn BufRead, size: u64, to: &mut Pipe) -> io::Result<Copied> {
    let (mut hash, mut left, mut error) = (Sha256::new(), size, None);
    let mut take = |part: &[u8]| {
        hash.update(part);
        to.write_all(part)
    };
    while left > 0 {
        let n = match from.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                let part = &bytes[..at_most(bytes.len(), left)];
                take(part)?;
                part.len()
            }
            Err(e) => {
                error = Some(e);
                break;
            }
        };
        from.consume(n);
        left -= n as u64;
    }
    let given = size - left;
    while left > 0 {
        let part = &ZEROES[..at_most(ZEROES.len(), left)];
        take(part)?;
        left -= part.len() as u64;
    }
    Ok(Copied {
        digest: hash.finalize().into(),
        given,
        error,
    })
}

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

fn at_most(bytes: usize, left: u64) -> usize {
    bytes.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Encrypts to age recipients (<https://age-encryption.org/v1>).
fn encryptor(to: &[String]) -> io::Result<age::Encryptor> {
    let bad =
        |e: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, e.to_string());
    let mut keys = Vec::new();
    for r in to {
        let key: age::x25519::Recipient =
            r.parse().map_err(|e| bad(&format!("recipient {r}: {e}")))?;
        keys.push(key);
    }
    let keys = keys.iter().map(|k| k as &dyn age::Recipient);
    age::Encryptor::with_recipients(keys).map_err(|e| bad(&e))
}

/// Recomputes the digest of every artefact of an unencrypted bundle, or of a decrypted stream.
///
/// # Errors
/// When it cannot be read, has no manifest, or an artefact differs from it (named).
pub fn verify(bundle: impl Read) -> io::Result<Value> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut digests = std::collections::BTreeMap::new();
    let mut manifest = None;
    for entry in tar::Archive::new(bundle).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if name == "manifest.json" {
            if manifest.is_some() {
                return Err(wrong("it has two manifests".into()));
            }
            let mut text = Vec::new();
            entry.by_ref().take(64 << 20).read_to_end(&mut text)?;
            manifest = Some(serde_json::from_slice::<Value>(&text)?);
            continue;
        }
        let mut hash = Sha256::new();
        io::copy(&mut entry, &mut hash)?;
        if digests.contains_key(&name) {
            return Err(wrong(format!("{name} is there twice")));
        }
        digests.insert(name, hex(&hash.finalize()));
    }
    let manifest =
        manifest.ok_or_else(|| wrong("no manifest: the bundle was never sealed".into()))?;
    for item in manifest["artefacts"].as_array().into_iter().flatten() {
        let name = item["name"].as_str().unwrap_or_default();
        match digests.remove(name) {
            None => return Err(wrong(format!("{name} is missing"))),
            Some(d) if item["sha256"] != d.as_str() => {
                return Err(wrong(format!("{name} was changed")));
            }
            Some(_) => {}
        }
    }
    match digests.keys().next() {
        Some(extra) => Err(wrong(format!("{extra} is not in the manifest"))),
        None => Ok(manifest),
    }
}
