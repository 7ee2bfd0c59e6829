//! Writes batches to leaf segments and payload files, all or nothing.
//!
//! A batch is durable when `commit` returns `Ok` (its files are synced at the same time); after an `Err` the files are cut back
//! to where they were. Where even that fails the stale bytes lie beyond every position
//! the journal knows of, and the next batch overwrites them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::Batch;
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::format::{FILE_HEADER_BYTES, FileHeader, Frame, HEAD_MAGIC, LEAF_MAGIC, PAYLOAD_MAGIC};
use crate::index::IndexBuilder;
use crate::merkle;
use crate::meta::Meta;
use crate::paths::Paths;
use crate::record::RetentionClass;
use crate::tiles::Tree;
use crate::together::{OnThread, Together};

const CLASSES: usize = RetentionClass::MAX as usize + 1;

/// A file that grows; `len` is what is known durable.
pub(crate) struct Grow {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    pub(crate) len: u64,
}

/// An open file and its length.
type Measured = (Arc<dyn DiskFile>, u64);

/// What failed while a batch was written.
#[derive(Debug)]
pub(crate) struct WriteFault {
    pub(crate) doing: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl WriteFault {
    fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

pub(crate) struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) paths: Paths,
    pub(crate) meta: Meta,
    pub(crate) boot: [u8; 16],
    /// Leaves below this are durable.
    pub(crate) durable: u64,
    pub(crate) segment: Option<Grow>,
    pub(crate) index: Option<IndexBuilder>,
    pub(crate) head: Option<Box<dyn DiskFile>>,
    payloads: [Option<Grow>; CLASSES],
    subtree: u64,
    /// Names were made that no directory sync has covered.
    new_names: bool,
    frames: Vec<u8>,
    together: Together,
    /// The hash tree over all leaves below `durable`, in a journal that is sealed.
    pub(crate) tree: Option<Tree>,
}

impl Store {
    pub(crate) fn new(disk: Arc<dyn Disk>, paths: Paths, meta: Meta, boot: [u8; 16]) -> Self {
        Self {
            disk,
            paths,
            meta,
            boot,
            durable: 0,
            segment: None,
            index: None,
            head: None,
            payloads: Default::default(),
            subtree: 0,
            new_names: false,
            frames: Vec::new(),
            together: Together::default(),
            tree: None,
        }
    }

    /// Continues at `durable`, in `segment` where recovery found one that can go on.
    pub(crate) fn resume(&mut self, durable: u64, segment: Option<(Grow, IndexBuilder)>) {
        self.durable = durable;
        self.subtree = self.meta.subtree_of(durable);
        if let Some((segment, index)) = segment {
            self.segment = Some(segment);
            self.index = Some(index);
        }
    }

    /// Writes and syncs `batch`, which begins at `durable`.
    pub(crate) fn commit(&mut self, batch: &Batch, boot_ns: u64) -> Result<(), WriteFault> {
        debug_assert_eq!(batch.first, self.durable, "batches follow one another");
        self.roll_to(self.meta.subtree_of(batch.first));
        match self.write(batch).and_then(|()| self.sync(batch)) {
            Ok(()) => {
                self.advance(batch, boot_ns);
                Ok(())
            }
            Err(fault) => {
                self.roll_back();
                Err(fault)
            }
        }
    }

    fn roll_to(&mut self, subtree: u64) {
        if subtree != self.subtree {
            self.seal_index();
            self.segment = None;
            self.payloads = Default::default();
            self.subtree = subtree;
        }
    }

    /// An index only speeds up reading, so a failure to write it is no failure.
    fn seal_index(&mut self) {
        if let (Some(index), Some(segment)) = (self.index.take(), &self.segment) {
            let bytes = index.encode(&self.meta, segment.first);
            let written = disk::replace(&*self.disk, &self.paths.index(segment.first), &bytes);
            drop(written);
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), WriteFault> {
        for class in (1..=RetentionClass::MAX).filter_map(RetentionClass::new) {
            let bytes = &batch.payloads[class.slot()];
            if !bytes.is_empty() {
                self.ensure_payload_file(class)?;
                write_after(self.payloads[class.slot()].as_ref(), bytes)?;
            }
        }
        self.ensure_segment(batch.first)?;
        self.encode_frames(batch);
        write_after(self.segment.as_ref(), &self.frames)
    }

    fn encode_frames(&mut self, batch: &Batch) {
        self.frames.clear();
        let (seed, durable) = (self.meta.seed(), self.durable);
        for (entry, index) in batch.entries.iter().zip(batch.first..) {
            let base = self.payloads[entry.class.slot()]
                .as_ref()
                .map_or(0, |file| file.len);
            let frame = Frame {
                leaf: entry.leaf,
                payload_at: base + entry.start as u64,
                undurable: u32::try_from(index - durable).unwrap_or(u32::MAX),
            };
            frame.encode(seed, index, &mut self.frames);
        }
    }

    /// All files at once: recovery does not rely on payloads being there before their leaves.
    fn sync(&mut self, batch: &Batch) -> Result<(), WriteFault> {
        let touched = |slot: &usize| !batch.payloads[*slot].is_empty();
        let payloads = (0..CLASSES)
            .filter(touched)
            .filter_map(|slot| self.payloads[slot].as_ref());
        let grown: Vec<&Grow> = payloads.chain(self.segment.as_ref()).collect();
        let files: Vec<_> = grown.iter().map(|grow| grow.file.clone()).collect();
        self.together
            .sync(&files)
            .map_err(|(at, source)| WriteFault::new("sync", &grown[at].path)(source))?;
        if self.new_names {
            for dir in [&self.paths.payloads, &self.paths.leaves] {
                self.disk
                    .sync_dir(dir)
                    .map_err(WriteFault::new("sync directory", dir))?;
            }
            self.new_names = false;
        }
        Ok(())
    }

    fn advance(&mut self, batch: &Batch, boot_ns: u64) {
        for (file, bytes) in self.payloads.iter_mut().zip(&batch.payloads) {
            if let Some(file) = file {
                file.len += bytes.len() as u64;
            }
        }
        if let Some(segment) = &mut self.segment {
            segment.len += self.frames.len() as u64;
        }
        if let Some(index) = &mut self.index {
            batch
                .entries
                .iter()
                .for_each(|entry| index.push(&entry.leaf));
        }
        self.durable = batch.next();
        self.write_head(boot_ns);
    }

    /// Lets the hash tree grow by a batch that is durable. Nobody waits for it: after who does was told.
    pub(crate) fn grow_tree(&mut self, batch: &Batch) {
        if let Some(tree) = &mut self.tree {
            for entry in &batch.entries {
                tree.push(merkle::leaf_hash(&entry.leaf));
            }
        }
    }

    /// Runs `on_thread` on every thread that a commit waits for, those to come included.
    pub(crate) fn on_threads(&mut self, on_thread: OnThread) {
        self.together.on_threads(on_thread);
    }

    /// Tells readers and the next opening how far all is durable. Written after the
    /// sync and never synced itself: it can be late, never early, so failing is harmless.
    pub(crate) fn write_head(&mut self, boot_ns: u64) {
        let mut header = self.meta.header(HEAD_MAGIC);
        header.first = self.durable;
        header.a = boot_ns;
        header.boot = self.boot;
        if self.head.is_none() {
            self.head = self.disk.open(&self.paths.head(), OpenMode::Create).ok();
        }
        if let Some(file) = &self.head {
            let written = disk::write_all(file.as_ref(), &header.encode(), 0);
            drop(written);
        }
    }

    fn roll_back(&mut self) {
        for file in self.payloads.iter().chain([&self.segment]).flatten() {
            let cut = file.file.set_len(file.len);
            drop(cut);
        }
    }

    fn ensure_segment(&mut self, first: u64) -> Result<(), WriteFault> {
        if self.segment.is_none() {
            let mut header = self.meta.header(LEAF_MAGIC);
            header.first = first;
            header.boot = self.boot;
            let (file, path) = self.create(self.paths.segment(first), &header)?;
            self.segment = Some(Grow {
                file,
                path,
                first,
                len: FILE_HEADER_BYTES as u64,
            });
            self.index = Some(IndexBuilder::default());
        }
        Ok(())
    }

    fn ensure_payload_file(&mut self, class: RetentionClass) -> Result<(), WriteFault> {
        if self.payloads[class.slot()].is_none() {
            let path = self.paths.payload(self.subtree, class);
            let found = self.existing_payload_file(&path)?;
            let grow = match found {
                Some((file, len)) => Grow {
                    file,
                    path,
                    first: self.subtree,
                    len,
                },
                None => {
                    let mut header = self.meta.header(PAYLOAD_MAGIC);
                    header.first = self.subtree;
                    header.class = class.number();
                    let (file, path) = self.create(path, &header)?;
                    Grow {
                        file,
                        path,
                        first: self.subtree,
                        len: FILE_HEADER_BYTES as u64,
                    }
                }
            };
            self.payloads[class.slot()] = Some(grow);
        }
        Ok(())
    }

    /// A payload file with frames goes on after its last byte, whatever that is: leaves
    /// point at their payloads, so bytes that no leaf points at do no harm.
    fn existing_payload_file(&self, path: &Path) -> Result<Option<Measured>, WriteFault> {
        let file = match self.disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(e) if disk::is_missing(&e) => return Ok(None),
            Err(e) => return Err(WriteFault::new("open", path)(e)),
        };
        let len = file.len().map_err(WriteFault::new("measure", path))?;
        Ok((len > FILE_HEADER_BYTES as u64).then_some((file.into(), len)))
    }

    /// Makes a file with only a header; one that has more is never overwritten.
    fn create(
        &mut self,
        path: PathBuf,
        header: &FileHeader,
    ) -> Result<(Arc<dyn DiskFile>, PathBuf), WriteFault> {
        let file = self
            .disk
            .open(&path, OpenMode::Create)
            .map_err(WriteFault::new("create", &path))?;
        self.new_names = true;
        let len = file.len().map_err(WriteFault::new("measure", &path))?;
        if len > FILE_HEADER_BYTES as u64 {
            return Err(WriteFault::new("create", &path)(
                io::ErrorKind::AlreadyExists.into(),
            ));
        }
        if let Err(source) = disk::write_all(file.as_ref(), &header.encode(), 0) {
            let removed = self.disk.remove(&path);
            drop(removed);
            return Err(WriteFault::new("write", &path)(source));
        }
        Ok((file.into(), path))
    }
}

fn write_after(file: Option<&Grow>, bytes: &[u8]) -> Result<(), WriteFault> {
    file.map_or(Ok(()), |grow| {
        disk::write_all(grow.file.as_ref(), bytes, grow.len)
            .map_err(WriteFault::new("write", &grow.path))
    })
}
