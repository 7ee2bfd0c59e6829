//! A bundle: some records of a store in one file that proves itself.
//!
//! A tar archive (POSIX ustar) that is the same byte for byte whenever it is made of the same
//! things: fixed order, owner and time. `docs/formats/bundle.md` says what is in it. It needs
//! nothing beside it but the node's public root key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::checkpoint::{Certificate, Checkpoint, KeyChain};
use crate::error::ReadError;
use crate::pack::Packed;
use crate::reader::Reader;
use crate::record::Leaf;
use crate::tlog::Signers;
use crate::verify::{Fault, Problem, VerifyOptions, VerifyReport};

/// Most bytes of records, notes or manifest that are read from a bundle.
const PART_BYTES_MAX: u64 = 1 << 30;
/// Most files in a bundle.
const FILES_MAX: usize = 100_000;
/// Most records in a bundle.
pub const BUNDLE_RECORDS_MAX: usize = 1_000_000;

const README: &str = "\
Evidence of one node, exported by Plimsoll.

  manifest.json   what this is about, who made it, when and why
  checkpoint      signed root of the log's hash tree (C2SP signed note)
  keys            certificates from the node's root key to the checkpoint's key
  records.bin     the records, each with its inclusion proof
  files/          captures and other files
  SHA256SUMS      of every other file here

Verify it with the node's public root key, which you should have from elsewhere:

  plimsoll evidence verify BUNDLE --key ROOTKEY

The formats are documented in docs/formats/bundle.md of the project.
";

/// Why a bundle could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The journal could not be read.
    #[error("cannot read the journal")]
    Read(#[from] ReadError),
    /// There is no checkpoint over the records.
    #[error(
        "no checkpoint covers the records: the agent has to be running, or to have ended cleanly"
    )]
    Unsealed,
    /// Too many records.
    #[error(
        "{0} records are more than the {BUNDLE_RECORDS_MAX} that a bundle may hold: narrow the time"
    )]
    TooMany(usize),
    /// Not a bundle.
    #[error("{path} is not a bundle: {why}", path = path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The disk refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
}

/// What goes into a bundle.
#[derive(Debug, Default)]
pub struct BundleParts {
    /// The records, by position.
    pub leaves: Vec<Leaf>,
    /// JSON: what it is about, who made it, when and why.
    pub manifest: Vec<u8>,
    /// Other files: name below `files/`, and where they lie.
    pub files: Vec<(String, PathBuf)>,
}

/// What a written bundle holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSummary {
    /// Records in it.
    pub records: usize,
    /// Of them, those without content, because retention had removed it.
    pub without_content: usize,
    /// Files in it.
    pub files: usize,
    /// The checkpoint that proves them.
    pub checkpoint: Checkpoint,
}

/// Writes a bundle of records of `reader`'s store to `path`, which must not exist.
///
/// # Errors
/// When no checkpoint covers the records, a proof cannot be made, or the disk refuses.
pub fn write_bundle(
    path: &Path,
    reader: &Reader,
    parts: BundleParts,
) -> Result<BundleSummary, BundleError> {
    let (checkpoint, note) = reader.newest_checkpoint()?.ok_or(BundleError::Unsealed)?;
    let mut leaves = parts.leaves;
    leaves.sort_unstable();
    leaves.dedup();
    if leaves.len() > BUNDLE_RECORDS_MAX {
        return Err(BundleError::TooMany(leaves.len()));
    }
    if leaves.last().is_some_and(|leaf| leaf.0 >= checkpoint.size) {
        return Err(BundleError::Unsealed);
    }
    let proofs = reader.inclusion_proofs(&leaves, checkpoint.size, &checkpoint.root)?;
    let (mut records, mut without_content) = (Vec::new(), 0);
    for (leaf, proof) in leaves.iter().zip(proofs) {
        let Some(entry) = reader.get(*leaf)? else {
            return Err(BundleError::Unsealed);
        };
        let packed = Packed::new(entry, proof);
        without_content += usize::from(packed.payload.is_none());
        packed.encode(&mut records);
    }
    let keys: Vec<u8> = reader
        .certificates()?
        .iter()
        .flat_map(|c| c.note.bytes())
        .collect();
    let io = |doing| {
        let path = path.to_path_buf();
        move |source| BundleError::Io {
            doing,
            path,
            source,
        }
    };
    let out = File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io("create"))?;
    let mut tar = Tar {
        out: io::BufWriter::new(out),
        sums: Vec::new(),
    };
    let small: [(&str, &[u8]); 5] = [
        ("README", README.as_bytes()),
        ("manifest.json", &parts.manifest),
        ("checkpoint", &note),
        ("keys", &keys),
        ("records.bin", &records),
    ];
    for (name, bytes) in small {
        tar.add(name, bytes.len() as u64, bytes)
            .map_err(io("write"))?;
    }
    let files: BTreeMap<String, PathBuf> = parts.files.into_iter().collect();
    for (name, from) in &files {
        let failed = |source| BundleError::Io {
            doing: "read",
            path: from.clone(),
            source,
        };
        let file = File::open(from).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        tar.add(&format!("files/{name}"), len, file.take(len))
            .map_err(io("write"))?;
    }
    tar.finish().map_err(io("write"))?;
    Ok(BundleSummary {
        records: leaves.len(),
        without_content,
        files: files.len(),
        checkpoint,
    })
}

struct Tar<W: Write> {
    out: W,
    sums: Vec<(String, [u8; 32])>,
}

impl<W: Write> Tar<W> {
    fn add(&mut self, name: &str, len: u64, mut from: impl Read) -> io::Result<()> {
        self.out.write_all(&header(name, len)?)?;
        let (mut hash, mut left) = (Sha256::new(), len);
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = from.read(&mut buffer[..want])?;
            if n == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter",
                ));
            }
            hash.update(&buffer[..n]);
            self.out.write_all(&buffer[..n])?;
            left -= n as u64;
        }
        self.out.write_all(&vec![0; padding(len)])?;
        self.sums.push((name.to_owned(), hash.finalize().into()));
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let sums: String = self
            .sums
            .iter()
            .map(|(name, hash)| format!("{}  {name}\n", hex(hash)))
            .collect();
        self.add("SHA256SUMS", sums.len() as u64, sums.as_bytes())?;
        self.out.write_all(&[0; 1024])?;
        self.out.flush()
    }
}

fn padding(len: u64) -> usize {
    usize::try_from((512 - len % 512) % 512).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A ustar header with nothing in it that differs from one making to the next.
fn header(name: &str, len: u64) -> io::Result<[u8; 512]> {
    let mut h = [0; 512];
    let field = |h: &mut [u8; 512], at: usize, text: &str| {
        h[at..at + text.len()].copy_from_slice(text.as_bytes())
    };
    if name.len() > 100 || len >= 1 << 33 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} does not fit into a tar archive"),
        ));
    }
    field(&mut h, 0, name);
    field(&mut h, 100, "0000444\0");
    field(&mut h, 108, "0000000\0");
    field(&mut h, 116, "0000000\0");
    field(&mut h, 124, &format!("{len:011o}\0"));
    field(&mut h, 136, "00000000000\0");
    field(&mut h, 148, "        ");
    field(&mut h, 156, "0");
    field(&mut h, 257, "ustar\u{0}00");
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    field(&mut h, 148, &format!("{sum:06o}\0 "));
    Ok(h)
}

/// A bundle that was read; nothing in it is believed before [`Self::verify`].
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    /// What it says it is about.
    pub manifest: Vec<u8>,
    checkpoint: Vec<u8>,
    keys: Vec<u8>,
    /// The records.
    pub records: Vec<Packed>,
    /// Name, length and SHA-256 of every file below `files/`.
    pub files: Vec<(String, u64, [u8; 32])>,
    /// What does not fit together, found while reading.
    faults: Vec<Problem>,
}

impl Bundle {
    /// Whether a file begins as a tar archive, so that it may be a bundle.
    pub fn is_one(path: &Path) -> bool {
        let mut front = [0; 512];
        let read = File::open(path).and_then(|mut f| f.read_exact(&mut front));
        read.is_ok() && &front[257..262] == b"ustar"
    }

    /// Reads a bundle; files are hashed and not kept.
    ///
    /// # Errors
    /// When it is no bundle, or the disk refuses.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let io = |source| BundleError::Io {
            doing: "read",
            path: path.to_path_buf(),
            source,
        };
        let no = |why: &str| BundleError::NotABundle {
            path: path.to_path_buf(),
            why: why.to_owned(),
        };
        let mut from = io::BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
        let mut bundle = Self {
            path: path.to_path_buf(),
            manifest: Vec::new(),
            checkpoint: Vec::new(),
            keys: Vec::new(),
            records: Vec::new(),
            files: Vec::new(),
            faults: Vec::new(),
        };
        let (mut sums, mut stated, mut ended) = (Vec::new(), None, false);
        let mut raw = [0; 512];
        while sums.len() <= FILES_MAX {
            from.read_exact(&mut raw)
                .map_err(|_| no("it ends too early"))?;
            if raw.iter().all(|b| *b == 0) {
                let mut rest = Vec::new();
                from.by_ref()
                    .take(4096)
                    .read_to_end(&mut rest)
                    .map_err(io)?;
                ended = rest == [0; 512];
                break;
            }
            let (name, len) = member(&raw).ok_or_else(|| no("a header in it is altered"))?;
            let keep = !name.starts_with("files/");
            if keep && len > PART_BYTES_MAX {
                return Err(no("a part of it is too long"));
            }
            let mut bytes = Vec::new();
            let hash = take(&mut from, len, keep.then_some(&mut bytes))
                .map_err(|_| no("it ends too early"))?;
            let mut pad = vec![0; padding(len)];
            from.read_exact(&mut pad)
                .map_err(|_| no("it ends too early"))?;
            if pad.iter().any(|b| *b != 0) {
                bundle.fault("the padding behind", &name, "is altered");
            }
            match name.as_str() {
                "SHA256SUMS" => stated = Some(bytes),
                "README" => {}
                "manifest.json" => bundle.manifest = bytes,
                "checkpoint" => bundle.checkpoint = bytes,
                "keys" => bundle.keys = bytes,
                "records.bin" => match Packed::decode_all(&bytes) {
                    Some(records) => bundle.records = records,
                    None => bundle.fault("", &name, "is altered: it does not read as records"),
                },
                _ if keep => bundle.fault("", &name, "does not belong into a bundle"),
                _ => bundle.files.push((name.clone(), len, hash)),
            }
            if name != "SHA256SUMS" {
                sums.push((name, hash));
            }
        }
        if !ended {
            bundle.fault("", "the end of the archive", "is altered");
        }
        bundle.compare_sums(&sums, stated.as_deref().unwrap_or_default());
        if bundle.checkpoint.is_empty() && bundle.records.is_empty() {
            return Err(no("it has neither a checkpoint nor records"));
        }
        Ok(bundle)
    }

    fn fault(&mut self, what: &str, name: &str, how: &str) {
        let text = format!("{what} {name} {how}").trim().to_owned();
        self.faults
            .push(Problem::new(Fault::DamagedFile, text).in_file(&self.path));
    }

    fn compare_sums(&mut self, sums: &[(String, [u8; 32])], stated: &[u8]) {
        let stated = String::from_utf8_lossy(stated);
        let mut lines: BTreeMap<&str, &str> = stated
            .lines()
            .filter_map(|l| l.split_once("  "))
            .map(|(h, n)| (n, h))
            .collect();
        for (name, hash) in sums {
            if lines.remove(name.as_str()) != Some(&hex(hash)) {
                self.fault("", name, "is not what SHA256SUMS says");
            }
        }
        let missing: Vec<String> = lines.into_keys().map(str::to_owned).collect();
        for name in missing {
            self.fault("", &name, "is named in SHA256SUMS and is not there");
        }
    }

    /// The record at `leaf`.
    pub fn get(&self, leaf: Leaf) -> Option<&Packed> {
        self.records.iter().find(|record| record.leaf == leaf)
    }

    /// The log that it says it comes from, without `plimsoll/`.
    pub fn origin(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.checkpoint).ok()?;
        text.lines()
            .next()?
            .strip_prefix("plimsoll/")
            .map(str::to_owned)
    }

    /// Verifies everything in it: signatures, every record's proof and content, every file.
    pub fn verify(&self, options: &VerifyOptions) -> VerifyReport {
        let mut report = VerifyReport {
            origin: self.origin().unwrap_or_default(),
            ..VerifyReport::default()
        };
        self.faults
            .iter()
            .cloned()
            .for_each(|fault| report.add(fault));
        let (notes, torn) = crate::note::split(&self.keys);
        let certificates: Vec<Certificate> =
            notes.iter().filter_map(|n| Certificate::parse(n)).collect();
        if certificates.len() < notes.len() || !torn.is_empty() {
            report.add(
                Problem::new(Fault::BadKey, "keys: a certificate is altered").in_file(&self.path),
            );
        }
        let chain = KeyChain::follow(certificates, options.key.as_ref());
        for (certificate, why) in &chain.unlinked {
            let what = format!(
                "the certificate of epoch {} is not believed: {why}",
                certificate.epoch
            );
            report.add(Problem::new(Fault::BadKey, what).in_file(&self.path));
        }
        report.key = options.key.clone().or_else(|| chain.root().cloned());
        report.key_given = options.key.is_some();
        report.epochs = chain.certificates.len() as u64;
        let signed = Signers::of(&chain)
            .checkpoint(&self.checkpoint)
            .map(|(checkpoint, _)| checkpoint);
        match &signed {
            Some(checkpoint) => {
                report.checkpoints = 1;
                report.newest = Some(checkpoint.clone());
            }
            None => report.add(
                Problem::new(
                    Fault::BadCheckpoint,
                    "the checkpoint is not signed by a key of this log",
                )
                .in_file(&self.path),
            ),
        }
        for record in &self.records {
            self.verify_record(record, signed.as_ref(), &mut report);
        }
        self.compare_kept(options, &chain, signed.as_ref(), &mut report);
        if !report.key_given {
            report.unknown.push("the key was taken from the bundle itself: this shows that the bundle agrees with itself, not which node wrote it; give the root's public key from elsewhere".to_owned());
        }
        report.unknown.push(
            "a bundle is a choice of records: what it leaves out cannot be known from it"
                .to_owned(),
        );
        if !self.files.is_empty() {
            report.unknown.push("files are held by SHA256SUMS, and by the log only where a record names their digest".to_owned());
        }
        report.finish();
        report
    }

    fn verify_record(
        &self,
        record: &Packed,
        signed: Option<&Checkpoint>,
        report: &mut VerifyReport,
    ) {
        report.records += 1;
        report.bytes += record.bytes.len() as u64;
        let problem = |fault, text: &str| {
            let problem = Problem::new(fault, text)
                .at(record.leaf.0)
                .in_file(&self.path);
            match record.header() {
                Some(header) => problem.of(header),
                None => problem,
            }
        };
        match &record.payload {
            None => report.pruned += 1,
            Some((_, bytes)) => report.bytes += bytes.len() as u64,
        }
        if signed.is_some_and(|c| !record.is_proven(c.size, &c.root)) {
            report.add(problem(
                Fault::AlteredRecord,
                "its proof does not lead to the checkpoint: changed, or of another place or store",
            ));
        } else if !record.payload_matches() {
            report.add(problem(
                Fault::DamagedPayload,
                "its content is not the one that its leaf names",
            ));
        }
    }

    /// A kept checkpoint can say only one thing about a bundle: that both are of one log.
    fn compare_kept(
        &self,
        options: &VerifyOptions,
        chain: &KeyChain,
        signed: Option<&Checkpoint>,
        report: &mut VerifyReport,
    ) {
        let Some(kept) = &options.kept else { return };
        let name = format!("plimsoll/{}", report.origin);
        match (Signers::of(chain).checkpoint(kept), signed) {
            (Some((kept, _)), Some(own)) if kept.size == own.size && kept.root != own.root => {
                report.add(
                    Problem::new(
                        Fault::Forked,
                        "the kept checkpoint and this bundle's are of two histories",
                    )
                    .in_file(&self.path),
                );
            }
            (Some((kept, _)), Some(own)) => {
                if kept.size != own.size {
                    report.unknown.push(format!("whether the kept checkpoint of {} records and the bundle's of {} are of one history needs the store itself", kept.size, own.size));
                }
                report.kept = Some(kept);
            }
            _ => report.add(Problem::new(
                Fault::BadCheckpoint,
                format!("the kept checkpoint is not of {name}, or its key is unknown here"),
            )),
        }
    }
}

/// Name and length of a member; `None` when the header is not one of ours.
fn member(raw: &[u8; 512]) -> Option<(String, u64)> {
    let name = raw[..100].split(|b| *b == 0).next()?;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    let len = std::str::from_utf8(&raw[124..135]).ok()?;
    let len = u64::from_str_radix(len, 8).ok()?;
    // The whole header follows from these two, so nothing can hide in it.
    let safe = !name.is_empty()
        && !name.starts_with('/')
        && !name.split('/').any(|part| part == ".." || part.is_empty());
    (safe && header(&name, len).ok()? == *raw).then_some((name, len))
}

fn take(from: &mut impl Read, len: u64, mut keep: Option<&mut Vec<u8>>) -> io::Result<[u8; 32]> {
    let (mut hash, mut left) = (Sha256::new(), len);
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        from.read_exact(&mut buffer[..want])?;
        hash.update(&buffer[..want]);
        if let Some(bytes) = &mut keep {
            bytes.extend_from_slice(&buffer[..want]);
        }
        left -= want as u64;
    }
    Ok(hash.finalize().into())
}
