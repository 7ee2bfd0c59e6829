//! A capture on disk: one tar file, written once, its manifest last.
//!
//! Promises: every artefact is hashed while it is written and listed with where it came from; what
//! could not be had is listed too; a bundle has its final name only when it is complete and on the
//! disk; it is encrypted while it is written when there are recipients, so that no secret touches
//! the disk in clear; where the disk is full, half a bundle is removed and never named as a whole.
//! Bounds: [`Limits`]. Format: `docs/formats/capture.md`.

use super::room::{Left, Room};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
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
/// After so many bytes the disk is asked to take them.
const WRITE_BACK: u64 = 32 << 20;
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

type Sink = Box<dyn Write + Send>;

/// A bundle that is being written.
pub(super) struct Bundle {
    tar: tar::Builder<Sink>,
    part: PathBuf,
    path: PathBuf,
    file: File,
    hash: Arc<Mutex<Sha256>>,
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
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let hashed = Hashed {
            file: file.try_clone()?,
            hash: Arc::clone(&hash),
            behind: 0,
            write_back: write_back(&part)?,
        };
        let out = io::BufWriter::with_capacity(1 << 20, hashed);
        let sink: Sink = if recipients.is_empty() {
            Box::new(out)
        } else {
            Box::new(encrypt(recipients, out)?)
        };
        Ok(Bundle {
            tar: tar::Builder::new(sink),
            part,
            path,
            file,
            hash,
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
            (self.left, self.since) = (left, 0);
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
        reader: &mut dyn Read,
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
        let mut exact = Exact {
            reader,
            left: size,
            given: 0,
            ended: false,
            error: None,
            hash: Sha256::new(),
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        let began = wall_ms();
        self.tar.append_data(&mut header, &from.name, &mut exact)?;
        self.used += size;
        // a member has a header and is filled up to whole blocks
        self.since += size + 1536;
        let mut item = json!({
            "name": from.name, "source": from.source, "call": from.call, "size": size,
            "sha256": hex(&exact.hash.finalize()), "from_ms": began, "to_ms": wall_ms(),
        });
        if let Some((pid, start)) = from.process {
            item["pid"] = pid.into();
            item["start_ticks"] = start.into();
        }
        if exact.given < size {
            item["read"] = exact.given.into();
            item["error"] = exact
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

    /// After an error: what was written is kept under the name with `.part`, unless the disk is full.
    pub(super) fn give_up(self, why: &io::Error) {
        remove_if_full(&self.part, why);
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
        let text = (&head[..]).chain(&self.list[..]).chain(&b"]}"[..]);
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, "manifest.json", text)?;
        // dropping an encrypting writer ends its last chunk, so it is dropped before the sync
        let mut sink = self.tar.into_inner()?;
        sink.flush()?;
        drop(sink);
        let hash = self
            .hash
            .lock()
            .map_or_else(|e| e.into_inner().clone(), |h| h.clone());
        let sha256 = hex(&hash.finalize());
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

/// Hashes what reaches the file, so that the journal can name it.
struct Hashed {
    file: File,
    hash: Arc<Mutex<Sha256>>,
    /// Bytes since the disk was last asked to take them.
    behind: u64,
    write_back: mpsc::SyncSender<()>,
}

impl Write for Hashed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        if let Ok(mut hash) = self.hash.lock() {
            hash.update(&buf[..n]);
        }
        self.behind += n as u64;
        if self.behind >= WRITE_BACK {
            self.behind = 0;
            // one that is busy comes to these bytes too
            let _ = self.write_back.try_send(());
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Has the disk work while we read and hash: the sync at the end would otherwise wait for everything.
/// By a descriptor of its own, so that an error is still told to that last sync, which alone counts.
fn write_back(path: &Path) -> io::Result<mpsc::SyncSender<()>> {
    let file = OpenOptions::new().write(true).open(path)?;
    let (ask, asked) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("capture-write".into())
        .spawn(move || {
            while asked.recv().is_ok() {
                let _ = file.sync_data();
            }
        })?;
    Ok(ask)
}

/// Gives exactly so many bytes and hashes them.
struct Exact<'a> {
    reader: &'a mut dyn Read,
    left: u64,
    given: u64,
    /// It gave nothing once: it is not asked again.
    ended: bool,
    error: Option<io::Error>,
    hash: Sha256,
}

impl Read for Exact<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buf = &mut buf[..want];
        let mut n = 0;
        if want == 0 {
            return Ok(0);
        }
        if self.error.is_none() && !self.ended {
            match self.reader.read(buf) {
                Ok(got) => (n, self.ended) = (got, got == 0),
                Err(e) => self.error = Some(e),
            }
        }
        self.given += n as u64;
        if n == 0 {
            buf.fill(0);
            n = want;
        }
        self.hash.update(&buf[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Encrypts to age recipients (<https://age-encryption.org/v1>) and ends the last chunk on drop.
struct Encrypted<W: Write>(Option<age::stream::StreamWriter<W>>);

fn encrypt<W: Write + Send + 'static>(to: &[String], out: W) -> io::Result<Encrypted<W>> {
    let bad =
        |e: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, e.to_string());
    let mut keys = Vec::new();
    for r in to {
        let key: age::x25519::Recipient =
            r.parse().map_err(|e| bad(&format!("recipient {r}: {e}")))?;
        keys.push(key);
    }
    let keys = keys.iter().map(|k| k as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(keys).map_err(|e| bad(&e))?;
    Ok(Encrypted(Some(encryptor.wrap_output(out)?)))
}

impl<W: Write> Write for Encrypted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |w| w.write(buf))
    }
    /// Ends the stream: called once, by [`Bundle::seal`].
    fn flush(&mut self) -> io::Result<()> {
        match self.0.take() {
            Some(w) => w.finish()?.flush(),
            None => Ok(()),
        }
    }
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
