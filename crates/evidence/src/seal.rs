//! Sealing: checkpoints while the journal grows, and a new key every hour.
//!
//! Promises:
//! - A checkpoint covers only what is durable, and never contradicts an earlier one.
//! - One follows every urgent record (at most ten a second) and otherwise every few seconds.
//! - A key's successor is in the log before the key is erased; a crash in between is finished at
//!   the next opening. Only one key can ever sign for an epoch that is over: none.
//! - Tiles and checkpoints are written beside the journal where it has a thread of its own
//!   ([`Journal::seal_beside`]): no record waits for them.
//! - Failing to seal never stops the journal; [`SealStatus`] says since when and why.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use zeroize::Zeroizing;

use crate::checkpoint::{Certificate, Checkpoint, log_name};
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::epoch::{EpochKey, KeyStore};
use crate::filter::Filter;
use crate::journal::Journal;
use crate::note::{self, PublicKey};
use crate::options::Sealing;
use crate::paths::TORN_MARK;
use crate::record::{Record, RetentionClass};
use crate::thin;
use crate::tiles::{TileFiles, Tiles, Tree};
use crate::tlog::{self, TlogPaths};

/// Kind of the records that hold certificates of epoch keys; their payload is the signed note.
pub const EPOCH_KEY_KIND: u16 = 30;

/// How sealing is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealStatus {
    /// Leaves under the last checkpoint.
    pub size: u64,
    /// When it was made, wall clock, nanoseconds.
    pub wall_ns: Option<i64>,
    /// The epoch whose key signs.
    pub epoch: u64,
    /// Why there is no newer checkpoint, if something failed.
    pub trouble: Option<String>,
}

/// What signs for a journal.
pub(crate) struct Sealer {
    disk: Arc<dyn Disk>,
    paths: TlogPaths,
    keys: KeyStore,
    name: String,
    key: EpochKey,
    key_wall_ns: i64,
    key_boot_ns: u64,
    options: Sealing,
    /// `None`: a checkpoint or tiles are being written beside.
    notes: Option<Notes>,
    last: Option<Checkpoint>,
    /// `None`: no checkpoint since the opening.
    last_boot_ns: Option<u64>,
    urgent: bool,
    trouble: Option<String>,
    /// Why the tiles of the last checkpoint are not written.
    tile_trouble: Option<String>,
    /// Why old checkpoints were not made fewer.
    thin_trouble: Option<String>,
    /// When sealing is tried again after it failed, boot clock.
    retry_boot_ns: u64,
}

/// Whole tiles that are written beside in one go, where no checkpoint is due before.
const TILES_AT_ONCE: usize = 64;
/// So many may wait for what is being written beside; then the journal waits too.
const TILES_BEHIND_MAX: usize = 512;

/// Where checkpoints are kept.
struct Notes {
    disk: Arc<dyn Disk>,
    paths: TlogPaths,
    /// Checkpoints of this opening and epoch; made with the first one.
    history: Option<(Box<dyn DiskFile>, u64)>,
}

/// What is to be written, and what it is written with.
struct Work {
    notes: Notes,
    tile_files: TileFiles,
    whole: Tiles,
    seal: Option<Seal>,
}

/// A checkpoint on its way, and the edge of the tree under it.
struct Seal {
    checkpoint: Checkpoint,
    note: String,
    edge: Tiles,
    /// It is for an urgent record.
    urgent: bool,
}

/// What became of [`Work`].
struct Done {
    notes: Notes,
    tile_files: TileFiles,
    unwritten: Tiles,
    seal: Option<Sealed>,
}

struct Sealed {
    checkpoint: Checkpoint,
    urgent: bool,
    tile_trouble: Option<String>,
    kept: Result<(), Failure>,
}

impl Work {
    fn run(mut self) -> Done {
        self.tile_files.write_whole(&mut self.whole);
        let seal = self.seal.map(|seal| {
            let edge = self.tile_files.write_edge(&seal.edge);
            Sealed {
                // tiles can be made anew; a checkpoint stands without them
                tile_trouble: edge.err().map(|e| format!("cannot write tiles: {e}")),
                kept: self.notes.keep(seal.checkpoint.size, seal.note.as_bytes()),
                checkpoint: seal.checkpoint,
                urgent: seal.urgent,
            }
        });
        Done {
            notes: self.notes,
            tile_files: self.tile_files,
            unwritten: self.whole,
            seal,
        }
    }
}

/// A thread that writes what a journal does not wait for.
pub(crate) struct Beside {
    work: SyncSender<Work>,
    done: Receiver<Done>,
}

impl Beside {
    fn start() -> std::io::Result<Self> {
        let (work, todo) = sync_channel::<Work>(1);
        let (told, done) = sync_channel(1);
        std::thread::Builder::new()
            .name("journal-seal".to_owned())
            .spawn(move || {
                while let Ok(work) = todo.recv() {
                    if told.send(work.run()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { work, done })
    }
}

const LOST_BESIDE: &str = "the thread that writes checkpoints has ended: restart the agent";

type Failure = String;

fn failed(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let what = format!("cannot {doing} {}", path.display());
    move |e| format!("{what}: {e}")
}

impl Journal {
    /// Takes up sealing where the last opening left it, or begins it.
    pub(crate) fn begin_sealing(&mut self, options: Sealing, notes: &mut Vec<String>) {
        let name = log_name(&self.store.meta.origin);
        match self.load_sealer(options, name, notes) {
            Ok(sealer) => self.sealer = Some(sealer),
            Err(why) => {
                notes.push(format!("no checkpoints are made: {why}"));
                self.seal_refused = Some(why);
            }
        }
    }

    fn load_sealer(
        &mut self,
        options: Sealing,
        name: String,
        notes: &mut Vec<String>,
    ) -> Result<Sealer, Failure> {
        let disk = self.store.disk.clone();
        let paths = TlogPaths::new(&self.store.paths.root);
        for dir in [&paths.dir, &paths.history] {
            disk.create_dir(dir).map_err(failed("create", dir))?;
            let parent = dir.parent().unwrap_or(dir);
            disk.sync_dir(parent).map_err(failed("sync", parent))?;
        }
        let keys = KeyStore::open(disk.clone(), &options.key_dir, &self.store.meta)
            .map_err(failed("create", &options.key_dir))?;
        let found = tlog::read_last(&*disk, &paths).map_err(|e| e.to_string())?;
        for (path, at, _) in found
            .torn
            .iter()
            .filter(|(path, ..)| path.starts_with(&paths.history) || *path == paths.keys())
        {
            set_aside(&*disk, path, *at)?;
            notes.push(format!(
                "unfinished bytes at the end of {} were set aside",
                path.display()
            ));
        }
        let mut certificates: Vec<Certificate> = found
            .certificates
            .iter()
            .filter_map(|c| Certificate::parse(&c.bytes))
            .collect();
        let secrets = keys.keys().map_err(failed("list", &options.key_dir))?;
        // A key whose certificate is not in the file may still have it in the log.
        let unknown = |secret: &EpochKey| {
            let public = secret.public(&name);
            !certificates.iter().any(|c| c.key == public)
        };
        if secrets.iter().any(unknown) {
            for certificate in self.logged_certificates() {
                if !certificates.iter().any(|c| c.note == certificate.note) {
                    let text = String::from_utf8_lossy(&certificate.note.bytes()).into_owned();
                    append_note(&*disk, &paths.keys(), &text)?;
                    certificates.push(certificate);
                }
            }
            certificates.sort_by_key(|certificate| certificate.epoch);
        }
        let newest = tlog::newest(&found);
        if let Some((_, note)) = &newest
            && found
                .latest
                .as_ref()
                .is_none_or(|latest| latest.bytes != *note)
        {
            show(&*disk, &paths, note)?;
        }
        let last = newest.map(|(checkpoint, _)| checkpoint);
        let mut kept = None;
        let mut over = Vec::new();
        for secret in secrets {
            let public = secret.public(&name);
            let own = certificates
                .iter()
                .rev()
                .find(|c| c.key == public && c.epoch == secret.epoch);
            match own {
                Some(certificate) => {
                    over.extend(kept.replace((secret, certificate.clone())).map(|(k, _)| k))
                }
                // It never signed anything.
                None => keys
                    .erase(secret.epoch)
                    .map_err(failed("erase a key in", &options.key_dir))?,
            }
        }
        let newest = certificates.last().cloned();
        let (key, certificate, begun) = match (kept, newest) {
            (Some((key, certificate)), Some(newest)) if newest.key == certificate.key => {
                (key, certificate, false)
            }
            (_, newest) => {
                if let Some(newest) = &newest {
                    notes.push(format!(
                        "the key of epoch {} is lost: a new chain of keys begins, and nothing links it to the old one",
                        newest.epoch
                    ));
                }
                let epoch = newest.map_or(0, |c| c.epoch + 1);
                let (key, certificate) = self.first_key(&keys, &paths, &name, epoch)?;
                (key, certificate, true)
            }
        };
        let root = certificates
            .iter()
            .rev()
            .find(|c| c.is_root)
            .unwrap_or(&certificate);
        let root = if begun { &certificate } else { root };
        keys.export(&root.key)
            .map_err(failed("write the public key into", &options.key_dir))?;
        let notes = Notes {
            disk: disk.clone(),
            paths: paths.clone(),
            history: None,
        };
        let sealer = Sealer {
            disk,
            paths,
            keys,
            name,
            key_wall_ns: certificate.wall_ns,
            key_boot_ns: self.clock.boot_ns(),
            key,
            options,
            notes: Some(notes),
            last,
            last_boot_ns: None,
            urgent: false,
            trouble: None,
            tile_trouble: None,
            thin_trouble: None,
            retry_boot_ns: 0,
        };
        if begun || !over.is_empty() || sealer.last.is_none() {
            self.finish_epoch(sealer, &certificate, &over)
        } else {
            Ok(sealer)
        }
    }

    fn logged_certificates(&self) -> Vec<Certificate> {
        let filter = Filter {
            kinds: vec![EPOCH_KEY_KIND],
            ..Filter::default()
        };
        let entries = self.reader().scan(filter).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Certificate::parse(entry.payload.bytes()?))
            .collect()
    }

    fn first_key(
        &mut self,
        keys: &KeyStore,
        paths: &TlogPaths,
        name: &str,
        epoch: u64,
    ) -> Result<(EpochKey, Certificate), Failure> {
        let key = keys
            .make(epoch, &*self.seed()?)
            .map_err(|e| format!("cannot make a key: {e}"))?;
        let text = Certificate::text(epoch, &key.public(name), self.clock.wall_ns());
        let note = note::sign(name, &key.secret, &text);
        append_note(&*self.store.disk, &paths.keys(), &note)?;
        let certificate =
            Certificate::parse(note.as_bytes()).ok_or("the new certificate does not parse")?;
        Ok((key, certificate))
    }

    fn seed(&mut self) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let mut seed = Zeroizing::new([0; 32]);
        (self.entropy)(&mut *seed)?;
        Ok(seed)
    }

    /// Puts the certificate into the log, a checkpoint over it, and only then erases what is over.
    fn finish_epoch(
        &mut self,
        mut sealer: Sealer,
        certificate: &Certificate,
        over: &[EpochKey],
    ) -> Result<Sealer, Failure> {
        self.log_certificate(certificate)?;
        self.checkpoint_by(&mut sealer)?;
        for key in over {
            sealer
                .keys
                .erase(key.epoch)
                .map_err(|e| format!("cannot erase the key of epoch {}: {e}", key.epoch))?;
        }
        Ok(sealer)
    }

    fn log_certificate(&mut self, certificate: &Certificate) -> Result<(), Failure> {
        let payload = certificate.note.bytes();
        let record = Record::new(EPOCH_KEY_KIND, RetentionClass::KEY, payload)
            .at(certificate.wall_ns, self.clock.boot_ns());
        self.append_durable(record)
            .map(drop)
            .map_err(|e| e.to_string())
    }

    /// From now on tiles and checkpoints are written by a thread of their own; without one, after the
    /// commit that they are due with.
    pub(crate) fn seal_beside(&mut self) {
        self.beside = Beside::start().ok();
    }

    /// What is due by now: a checkpoint, a new key. Called after every commit, and by a writer
    /// that has nothing else to do; cheap when nothing is due.
    pub fn tick(&mut self) {
        let mut sealer = self.sealer.take();
        if let Some(sealer) = &mut sealer {
            self.look_beside(sealer);
        }
        if !self.health_is_bad() {
            self.seal_what_is_due(sealer.as_mut());
        }
        // what is done meanwhile, in rotating a key, finds no sealer
        if sealer.is_some() {
            self.sealer = sealer;
        }
    }

    fn seal_what_is_due(&mut self, sealer: Option<&mut Sealer>) {
        let (Some(sealer), Some(tree)) = (sealer, &mut self.store.tree) else {
            // its tiles serve whoever reads, even when nobody signs
            return self.store.tree.iter_mut().for_each(Tree::write_whole);
        };
        let waiting = tree.waiting();
        let now = self.clock.boot_ns();
        let may = now >= sealer.retry_boot_ns;
        if may && sealer.key_is_old(now, self.clock.wall_ns()) {
            let done = self.finish_beside(sealer);
            let done = done.and_then(|()| self.rotate(sealer));
            return sealer.settle(done, now);
        }
        let due = may && sealer.is_due(now, self.store.durable);
        if self.beside.is_none() {
            tree.write_whole();
            if due {
                let done = self.checkpoint_by(sealer).map(drop);
                sealer.settle(done, now);
            }
            return;
        }
        if waiting >= TILES_BEHIND_MAX {
            let done = self.finish_beside(sealer);
            sealer.settle(done, now);
        }
        if (due || waiting >= TILES_AT_ONCE)
            && let Some(work) = self.lend(sealer, due)
            && let Some(beside) = &self.beside
            && beside.work.send(work).is_err()
        {
            self.lose_beside(sealer);
        }
    }

    /// What is to be written now, with a checkpoint of all that is durable if it is `due`; `None` while
    /// earlier work is under way.
    fn lend(&mut self, sealer: &mut Sealer, due: bool) -> Option<Work> {
        let tree = self.store.tree.as_mut()?;
        let notes = sealer.notes.take()?;
        let Some((tile_files, whole)) = tree.lend() else {
            sealer.notes = Some(notes);
            return None;
        };
        let seal = due.then(|| {
            let checkpoint = Checkpoint {
                origin: sealer.name.clone(),
                size: tree.size(),
                root: tree.root(),
                wall_ns: Some(self.clock.wall_ns()),
            };
            Seal {
                note: note::sign(&sealer.name, &sealer.key.secret, &checkpoint.text()),
                checkpoint,
                edge: tree.edge(),
                urgent: std::mem::take(&mut sealer.urgent),
            }
        });
        Some(Work {
            notes,
            tile_files,
            whole,
            seal,
        })
    }

    fn take_back(&mut self, sealer: &mut Sealer, done: Done) -> Result<(), Failure> {
        if let Some(tree) = &mut self.store.tree {
            tree.take_back(done.tile_files, done.unwritten);
        }
        sealer.notes = Some(done.notes);
        let Some(sealed) = done.seal else {
            return Ok(());
        };
        sealer.tile_trouble = sealed.tile_trouble;
        if sealed.kept.is_ok() {
            sealer.last = Some(sealed.checkpoint);
            sealer.last_boot_ns = Some(self.clock.boot_ns());
        } else {
            sealer.urgent |= sealed.urgent;
        }
        sealed.kept
    }

    /// Takes back what has been written beside by now.
    fn look_beside(&mut self, sealer: &mut Sealer) {
        if sealer.notes.is_none()
            && let Some(beside) = &self.beside
            && let Ok(done) = beside.done.try_recv()
        {
            let kept = self.take_back(sealer, done);
            sealer.settle(kept, self.clock.boot_ns());
        }
    }

    /// Waits for what is being written beside.
    fn finish_beside(&mut self, sealer: &mut Sealer) -> Result<(), Failure> {
        if sealer.notes.is_some() {
            return Ok(());
        }
        match self.beside.as_ref().map(|beside| beside.done.recv()) {
            Some(Ok(done)) => self.take_back(sealer, done),
            _ => {
                self.lose_beside(sealer);
                Err(LOST_BESIDE.to_owned())
            }
        }
    }

    fn lose_beside(&mut self, sealer: &mut Sealer) {
        self.beside = None;
        sealer.trouble = Some(LOST_BESIDE.to_owned());
    }

    /// Makes everything accepted so far durable, and seals it.
    ///
    /// # Errors
    /// When the journal is not sealed at all, or the disk refuses.
    pub fn checkpoint(&mut self) -> Result<Checkpoint, String> {
        self.commit();
        let mut sealer = self.sealer.take().ok_or_else(|| {
            self.seal_refused
                .clone()
                .unwrap_or_else(|| "this journal has no keys".to_owned())
        })?;
        let made = self.finish_beside(&mut sealer);
        let made = made.and_then(|()| match &sealer.last {
            Some(last) if last.size == self.store.durable => Ok(last.clone()),
            _ => self.checkpoint_by(&mut sealer),
        });
        let now = self.clock.boot_ns();
        sealer.settle(made.as_ref().map(drop).map_err(Clone::clone), now);
        self.sealer = Some(sealer);
        made
    }

    /// Ends with nothing being written beside.
    pub(crate) fn end_sealing(&mut self) {
        if let Some(mut sealer) = self.sealer.take() {
            // a failure is found at the next opening
            let ended = self.finish_beside(&mut sealer);
            drop(ended);
            self.sealer = Some(sealer);
        }
    }

    /// The public key that leads to every key of this journal.
    pub fn seal_status(&self) -> Option<SealStatus> {
        match (&self.sealer, &self.seal_refused) {
            (Some(sealer), _) => Some(SealStatus {
                size: sealer.last.as_ref().map_or(0, |c| c.size),
                wall_ns: sealer.last.as_ref().and_then(|c| c.wall_ns),
                epoch: sealer.key.epoch,
                trouble: [&sealer.trouble, &sealer.tile_trouble, &sealer.thin_trouble]
                    .into_iter()
                    .find_map(Clone::clone),
            }),
            (None, Some(why)) => Some(SealStatus {
                trouble: Some(why.clone()),
                ..SealStatus::default()
            }),
            (None, None) => None,
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealer.is_some()
    }

    pub(crate) fn note_urgent(&mut self) {
        if let Some(sealer) = &mut self.sealer {
            sealer.urgent = true;
        }
    }

    fn checkpoint_by(&mut self, sealer: &mut Sealer) -> Result<Checkpoint, Failure> {
        let work = self.lend(sealer, true).ok_or("there is no tree")?;
        self.take_back(sealer, work.run())?;
        sealer
            .last
            .clone()
            .ok_or_else(|| "there is no tree".to_owned())
    }

    /// Makes the next key, lets the present one vouch for it, and erases the present one.
    fn rotate(&mut self, sealer: &mut Sealer) -> Result<(), Failure> {
        let epoch = sealer.key.epoch + 1;
        let next = sealer
            .keys
            .make(epoch, &*self.seed()?)
            .map_err(|e| format!("cannot make a key: {e}"))?;
        let wall_ns = self.clock.wall_ns();
        let text = Certificate::text(epoch, &next.public(&sealer.name), wall_ns);
        let note = note::sign(&sealer.name, &sealer.key.secret, &text);
        let certificate =
            Certificate::parse(note.as_bytes()).ok_or("the new certificate does not parse")?;
        let logged = self.log_certificate(&certificate);
        let kept = logged.and_then(|()| append_note(&*sealer.disk, &sealer.paths.keys(), &note));
        if let Err(why) = kept {
            // It has signed nothing; the present key stays in force and tries again.
            let _ = sealer.keys.erase(epoch);
            return Err(why);
        }
        // From here on the next key is in force, whatever fails.
        let closed = self.checkpoint_by(sealer).map(drop);
        let over = std::mem::replace(&mut sealer.key, next);
        sealer.key_wall_ns = wall_ns;
        sealer.key_boot_ns = self.clock.boot_ns();
        sealer.begin_history();
        sealer
            .keys
            .erase(over.epoch)
            .map_err(|e| format!("cannot erase the key of epoch {}: {e}", over.epoch))?;
        // what fails here costs room only, and is tried again with the next key
        sealer.thin_trouble = thin::thin(&*sealer.disk, &sealer.paths, wall_ns).err();
        closed
    }
}

impl Sealer {
    fn key_is_old(&self, boot_ns: u64, wall_ns: i64) -> bool {
        let span = self.options.epoch_ms.saturating_mul(1_000_000);
        let by_wall = u64::try_from(wall_ns.saturating_sub(self.key_wall_ns)).unwrap_or(0);
        boot_ns.saturating_sub(self.key_boot_ns) >= span || by_wall >= span
    }

    fn is_due(&self, boot_ns: u64, durable: u64) -> bool {
        let size = self.last.as_ref().map_or(0, |last| last.size);
        let wait_ms = if self.urgent {
            self.options.urgent_ms
        } else {
            self.options.checkpoint_ms
        };
        let span = wait_ms.saturating_mul(1_000_000);
        let waited = self
            .last_boot_ns
            .is_none_or(|last| boot_ns.saturating_sub(last) >= span);
        durable > size && waited
    }

    fn settle(&mut self, done: Result<(), Failure>, now: u64) {
        match done {
            Ok(()) => {
                self.trouble = None;
                self.retry_boot_ns = 0;
            }
            Err(why) => {
                self.trouble = Some(why);
                self.retry_boot_ns = now + 1_000_000_000;
                self.begin_history();
            }
        }
    }

    /// The next checkpoint opens its file anew.
    fn begin_history(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.history = None;
        }
    }
}

impl Notes {
    /// Appends a checkpoint to the history, durably, and shows it as the latest.
    fn keep(&mut self, size: u64, note: &[u8]) -> Result<(), Failure> {
        let path = self.paths.notes(size);
        if self.history.is_none() {
            let file = self
                .disk
                .open(&path, OpenMode::Create)
                .map_err(failed("create", &path))?;
            let len = file.len().map_err(failed("measure", &path))?;
            self.disk
                .sync_dir(&self.paths.history)
                .map_err(failed("sync", &self.paths.history))?;
            self.history = Some((file, len));
        }
        if let Some((file, len)) = &mut self.history {
            disk::write_all(file.as_ref(), note, *len).map_err(failed("write", &path))?;
            file.sync_data().map_err(failed("sync", &path))?;
            *len += note.len() as u64;
        }
        show(&*self.disk, &self.paths, note)
    }
}

/// Shows a checkpoint as the latest. Only a convenience, never synced: the history has it.
fn show(disk: &dyn Disk, paths: &TlogPaths, note: &[u8]) -> Result<(), Failure> {
    let latest = paths.latest();
    let temporary = disk::with_suffix(&latest, ".tmp");
    let shown = disk.open(&temporary, OpenMode::Create).and_then(|file| {
        file.set_len(0)?;
        disk::write_all(file.as_ref(), note, 0)?;
        disk.rename(&temporary, &latest)
    });
    shown.map_err(failed("write", &latest))
}

/// Moves what is no whole note from `at` on into a file beside.
fn set_aside(disk: &dyn Disk, path: &Path, at: u64) -> Result<(), Failure> {
    let all = tlog::read_whole(disk, path).map_err(failed("read", path))?;
    let (whole, torn) = all.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(all.len()));
    let aside = disk::with_suffix(path, &format!("{TORN_MARK}{}", all.len()));
    disk::replace(disk, &aside, torn).map_err(failed("write", &aside))?;
    disk::replace(disk, path, whole).map_err(failed("write", path))
}

fn append_note(disk: &dyn Disk, path: &Path, note: &str) -> Result<(), Failure> {
    let there = tlog::read_whole(disk, path).map_err(failed("read", path))?;
    let torn = note::split(&there).1.len();
    if torn > 0 {
        // Set aside whole: behind bytes that are no note the next one would be none either.
        let aside = disk::with_suffix(path, &format!("{TORN_MARK}{}", there.len()));
        disk::replace(disk, &aside, &there).map_err(failed("write", &aside))?;
        disk::replace(disk, path, &there[..there.len() - torn]).map_err(failed("write", path))?;
    }
    let file = disk
        .open(path, OpenMode::Create)
        .map_err(failed("open", path))?;
    let len = file.len().map_err(failed("measure", path))?;
    disk::write_all(file.as_ref(), note.as_bytes(), len).map_err(failed("write", path))?;
    file.sync_data().map_err(failed("sync", path))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(failed("sync", dir))
}

/// The name under which a journal's checkpoints and keys go.
pub fn key_name(origin: &str) -> String {
    log_name(origin)
}

/// Reads the root's public key that a journal's keys lie beside.
///
/// # Errors
/// When there is none, or it is not one.
pub fn exported_key(key_dir: &Path) -> Result<PublicKey, String> {
    let path = key_dir.join("root.pub");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    PublicKey::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}
