//! What fuzzing drives of evidence: a journal on disk and a bundle, altered by whoever had the files
//! in their hands. One function a target, the same for `cargo fuzz run` and for the test that runs the
//! seeds (`crates/cli/tests/hostile.rs`).
//!
//! A store or bundle of our own is made once; the bytes of an input are alterations of it, with the
//! checksums mended or not. Whatever comes of it: reading ends, verifying ends, nothing panics, and a
//! journal that opens goes on: what is appended to it is there afterwards.

use super::scratch::scratch;
use plimsoll_evidence::{
    Bundle, BundleParts, Clock, DirItem, Disk, DiskFile, Filter, InstanceKey, Journal, Leaf,
    OpenMode, Options, Reader, Record, RetentionClass, Sealing, Tail, VerifyOptions, verify_on,
    write_bundle,
};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

const STORE: &str = "/s";
const KEYS: &str = "/k";
/// Bytes of one file; more is a full disk.
const FILE_BYTES_MAX: usize = 32 << 20;
/// Results of one scan; the store has some fifty leaves.
const RESULTS_MAX: usize = 200_000;

type Files = BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>;

/// Files in memory; nothing is ever lost and nothing fails but for room.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Files>>);

impl Memory {
    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.lock().expect("no holder panicked")
    }

    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.files();
        let of = |f: &Arc<Mutex<Vec<u8>>>| f.lock().expect("no holder panicked").clone();
        files.iter().map(|(p, f)| (p.clone(), of(f))).collect()
    }

    fn of(files: &[(PathBuf, Vec<u8>)]) -> Self {
        let files = files.iter();
        let all = files.map(|(p, b)| (p.clone(), Arc::new(Mutex::new(b.clone()))));
        Self(Arc::new(Mutex::new(all.collect())))
    }
}

impl Disk for Memory {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.files();
        let file = match (files.get(path), mode) {
            (Some(file), _) => file.clone(),
            (None, OpenMode::Create) => files.entry(path.to_owned()).or_default().clone(),
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(MemoryFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        let mut items = BTreeMap::new();
        for (path, file) in self.files().iter() {
            let Ok(below) = path.strip_prefix(dir) else {
                continue;
            };
            let mut parts = below.components();
            let Some(name) = parts.next() else { continue };
            let name = name.as_os_str().to_string_lossy().into_owned();
            let is_file = parts.next().is_none();
            let bytes = file.lock().expect("no holder panicked").len() as u64;
            items.insert(
                name.clone(),
                DirItem {
                    name,
                    bytes,
                    is_file,
                },
            );
        }
        Ok(items.into_values().collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let gone = self.files().remove(path);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Option<Box<dyn Send>>> {
        Ok(Some(Box::new(())))
    }
}

struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl MemoryFile {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no holder panicked")
    }

    fn room(len: u64) -> io::Result<usize> {
        let len = usize::try_from(len).ok().filter(|n| *n <= FILE_BYTES_MAX);
        len.ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let end = Self::room(offset.saturating_add(data.len() as u64))?;
        let mut bytes = self.bytes();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[end - data.len()..end].copy_from_slice(data);
        Ok(data.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = Self::room(len)?;
        self.bytes().resize(len, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Self::room(len).map(drop)
    }
}

/// One second further at every look.
#[derive(Default)]
struct Ticks(Mutex<u64>);

impl Clock for Ticks {
    fn wall_ns(&self) -> i64 {
        self.boot_ns() as i64
    }

    fn boot_ns(&self) -> u64 {
        let mut now = self.0.lock().expect("no holder panicked");
        *now += 1_000_000_000;
        *now
    }
}

fn options(disk: &Memory, epoch_ms: u64) -> Options {
    let mut next = 7_u8;
    let mut sealing = Sealing::new(KEYS);
    sealing.epoch_ms = epoch_ms;
    Options {
        subtree_leaves: 8,
        emergency_bytes: 12 << 10,
        disk: Arc::new(disk.clone()),
        clock: Arc::new(Ticks::default()),
        entropy: Box::new(move |buf| {
            buf.iter_mut().for_each(|b| {
                next = next.wrapping_mul(167).wrapping_add(13);
                *b = next;
            });
            Ok(())
        }),
        sealing: Some(sealing),
        ..Options::new("node")
    }
}

fn record(n: u64) -> Record {
    let class = [RetentionClass::ALERT, RetentionClass::OBSERVATION][(n % 2) as usize];
    let text = format!("record {n}").repeat(1 + (n % 5) as usize);
    let record = Record::new(1 + (n % 7) as u16, class, text.into_bytes());
    let at = 1_000_000_000 * n;
    record
        .about(InstanceKey([(n % 3) as u8; 16]))
        .at(at as i64, at)
}

/// Files of a store, and a bundle.
type Template = (Vec<(PathBuf, Vec<u8>)>, Vec<u8>);

/// A closed, sealed journal of some forty records, and a bundle of a few of them.
fn template() -> &'static Template {
    static MADE: OnceLock<Template> = OnceLock::new();
    MADE.get_or_init(|| {
        let disk = Memory::default();
        let (mut journal, _) =
            Journal::open(STORE, options(&disk, 40_000)).expect("a new one opens");
        for n in 0..40 {
            match n % 10 {
                0 => drop(journal.append_durable(record(n)).expect("there is room")),
                _ => drop(journal.append(record(n)).expect("there is room")),
            }
            if n % 7 == 0 {
                journal.sync().expect("there is room");
                journal.checkpoint().expect("there is a key");
            }
        }
        journal.sync().expect("there is room");
        journal.checkpoint().expect("there is a key");
        journal.close().expect("there is room");
        let reader = Reader::open_on(Arc::new(disk.clone()), STORE, Tail::Durable).expect("opens");
        let path = scratch("made");
        let parts = BundleParts {
            leaves: [1, 2, 9, 17, 30].map(Leaf).to_vec(),
            manifest: b"{\"alert\":\"x\"}".to_vec(),
            files: Vec::new(),
        };
        let _ = std::fs::remove_file(&path);
        write_bundle(&path, &reader, parts).expect("a checkpoint covers them");
        let bundle = std::fs::read(&path).expect("it was written");
        let _ = std::fs::remove_file(&path);
        (disk.contents(), bundle)
    })
}

/// Bytes of an input, one after the other; zeros behind the end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let first = self.0.split_first();
        first.map_or(0, |(b, rest)| {
            self.0 = rest;
            *b
        })
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Alters files: bytes, lengths, whole files, until the input ends (at most 32 times).
fn alter(files: &mut Vec<(PathBuf, Vec<u8>)>, input: &mut Input<'_>) {
    for _ in 0..32 {
        if input.0.is_empty() || files.is_empty() {
            return;
        }
        let op = input.byte() % 7;
        let which = usize::from(input.byte()) % files.len();
        let len = files[which].1.len();
        let at = input.number() % (len + 1);
        match op {
            0..=2 => {
                let n = usize::from(input.byte() % 16) + 1;
                let new = input.bytes(n);
                let end = (at + new.len()).min(len);
                files[which].1[at..end].copy_from_slice(&new[..end - at]);
            }
            3 => files[which].1.truncate(at),
            4 => {
                let from = usize::from(input.byte()) % files.len();
                files[which].1 = files[from].1.clone();
            }
            5 => {
                let n = usize::from(input.byte());
                let new = input.bytes(n).to_vec();
                files[which].1.extend(new);
            }
            _ => drop(files.remove(which)),
        }
    }
}

/// Header, leaf and payload checksums as whoever knows the format would set them.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < 96 {
        return;
    }
    let (magic, store) = (bytes[..8].to_vec(), bytes[40..56].to_vec());
    let first = u64::from_le_bytes(*bytes[16..].first_chunk().expect("96 bytes"));
    let seed = crc32c::crc32c(&store);
    let header = crc32c::crc32c(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&header);
    match magic.as_slice() {
        b"PLIMLEAF" => {
            let frames = bytes[96..].as_chunks_mut::<96>().0;
            for (leaf, frame) in (0..).map(|n| first.wrapping_add(n)).zip(frames) {
                let crc = crc32c::crc32c_append(seed, &u64::to_le_bytes(leaf));
                let crc = crc32c::crc32c_append(crc, &frame[..92]);
                frame[92..].copy_from_slice(&crc.to_le_bytes());
            }
        }
        b"PLIMPAYL" => {
            let mut at = 96;
            while let Some(prefix) = bytes.get(at..at + 32) {
                let len = u32::from_le_bytes(*prefix[8..].first_chunk().expect("32 bytes"));
                let end = (at + 32).saturating_add(len as usize);
                if end > bytes.len() {
                    return;
                }
                let crc = crc32c::crc32c_append(seed, &bytes[at..at + 8]);
                let crc = crc32c::crc32c_append(crc, &bytes[at + 8..at + 12]);
                let crc = crc32c::crc32c_append(crc, &bytes[at + 16..end]);
                bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
                at = end;
            }
        }
        _ => {}
    }
}

fn read_all(disk: &Memory) {
    let at: Arc<dyn Disk> = Arc::new(disk.clone());
    for tail in [Tail::Durable, Tail::Everything] {
        let Ok(reader) = Reader::open_on(at.clone(), STORE, tail) else {
            continue;
        };
        let filters = [
            Filter::default(),
            Filter {
                containers: vec![InstanceKey([1; 16])],
                ..Filter::default()
            },
        ];
        for filter in filters {
            let results = reader
                .scan(filter)
                .map_or(0, |s| s.take(RESULTS_MAX).count());
            assert!(results < RESULTS_MAX, "a scan of some fifty leaves ends");
        }
        for leaf in [0, 7, 8, 41, u64::MAX] {
            let _ = reader.get(Leaf(leaf));
        }
        let _ = reader.newest_checkpoint();
        let _ = reader.checkpoints(None);
        let _ = reader.certificates();
        let _ = reader.holds();
        let _ = reader.scrub(0..64);
    }
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    let _ = verify_on(at, STORE, &options);
}

/// Alterations of a store; the first byte says whether checksums are mended.
pub(crate) fn store(data: &[u8]) {
    let mut input = Input(data);
    let mended = input.byte() & 1 == 1;
    let mut files = template().0.clone();
    alter(&mut files, &mut input);
    if mended {
        files.iter_mut().for_each(|(_, bytes)| mend(bytes));
    }
    let disk = Memory::of(&files);
    read_all(&disk);
    let Ok((mut journal, _)) = Journal::open(STORE, options(&disk, 3_600_000)) else {
        return;
    };
    if let Ok(kept) = journal.append_durable(record(99)) {
        let found = journal.reader().get(kept.leaf);
        assert!(
            matches!(found, Ok(Some(_))),
            "what was kept is there: {found:?}"
        );
    }
    let _ = journal.close();
    read_all(&disk);
}

/// Alterations of a bundle's parts (headers and sums mended), then of the archive itself.
pub(crate) fn bundle(data: &[u8]) {
    let mut input = Input(data);
    let raw = input.byte() & 1 == 1;
    let mut archive = template().1.clone();
    if raw {
        let mut files = vec![(PathBuf::new(), archive)];
        alter(&mut files, &mut input);
        archive = files.pop().map(|(_, b)| b).unwrap_or_default();
    } else {
        let mut parts = unpack(&archive);
        alter(&mut parts, &mut input);
        archive = pack(&parts);
    }
    let path = scratch("bundle");
    std::fs::write(&path, &archive).expect("a scratch file");
    let _ = Bundle::is_one(&path);
    if let Ok(bundle) = Bundle::read(&path) {
        let _ = bundle.origin();
        let _ = bundle.get(Leaf(9));
        let _ = bundle.verify(&VerifyOptions::default());
        for record in bundle.records.iter().take(64) {
            let _ = record.header();
            let _ = record.payload_matches();
        }
    }
    let _ = std::fs::remove_file(&path);
}

fn unpack(archive: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut at = 0;
    while archive[at] != 0 {
        let text = |from: usize, to: usize| {
            let field = &archive[at + from..at + to];
            let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let len = usize::from_str_radix(&text(124, 136), 8).expect("our own header");
        let body = archive[at + 512..at + 512 + len].to_vec();
        parts.push((PathBuf::from(text(0, 100)), body));
        at += 512 + len.next_multiple_of(512);
    }
    parts.retain(|(name, _)| name != Path::new("SHA256SUMS"));
    parts
}

fn pack(parts: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut sums = String::new();
    let mut out = Vec::new();
    for (name, bytes) in parts {
        let hash = Sha256::digest(bytes);
        let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        sums += &format!("{hash}  {}\n", name.display());
        member(&mut out, name, bytes);
    }
    member(&mut out, Path::new("SHA256SUMS"), sums.as_bytes());
    out.extend([0; 1024]);
    out
}

fn member(out: &mut Vec<u8>, name: &Path, bytes: &[u8]) {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, &name.to_string_lossy());
    put(100, "0000444\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", bytes.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}
