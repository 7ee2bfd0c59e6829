//! Files made durable at the same time.
//!
//! One after the other, each sync of a commit pays for a commit of the file system and a flush of the
//! disk; together they share both, so that a commit costs about what one sync does.
//!
//! Bounds: [`HELPERS`] threads with one file each; what is beyond is synced by the caller.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::disk::DiskFile;

/// An alert's commit has four files: observation, drift, alert, leaves.
const HELPERS: usize = 3;

/// Runs once on each helping thread: gives it the priority of the thread that waits for it.
pub(crate) type OnThread = Arc<dyn Fn() + Send + Sync>;

type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Syncs several files at once.
#[derive(Default)]
pub(crate) struct Together {
    helpers: Vec<Helper>,
    on_thread: Option<OnThread>,
    refused: bool,
}

struct Helper {
    jobs: SyncSender<Job>,
    done: Receiver<io::Result<()>>,
}

impl Helper {
    fn start() -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(1);
        let (told, done) = sync_channel(1);
        std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || {
                while let Ok(job) = todo.recv() {
                    if told.send(job()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, done })
    }

    fn run(&self, on_thread: OnThread) {
        let job = move || {
            on_thread();
            Ok(())
        };
        if self.give(Box::new(job)) {
            // nothing that can fail
            let _ = self.answer();
        }
    }

    fn give(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }

    fn answer(&self) -> io::Result<()> {
        let gone = |_| Err(io::Error::other("a thread that syncs has ended"));
        self.done.recv().unwrap_or_else(gone)
    }
}

impl Together {
    /// Runs `on_thread` on every thread that helps, those to come included.
    pub(crate) fn on_threads(&mut self, on_thread: OnThread) {
        for helper in &self.helpers {
            helper.run(on_thread.clone());
        }
        self.on_thread = Some(on_thread);
    }

    /// Syncs `files`, and gives the first failure with the place of its file among them. All of them
    /// have been tried when it returns.
    pub(crate) fn sync(&mut self, files: &[Arc<dyn DiskFile>]) -> Result<(), (usize, io::Error)> {
        self.start_for(files.len());
        let others = self.helpers.len().min(files.len().saturating_sub(1));
        let (theirs, own) = files.split_at(others);
        let given: Vec<bool> = theirs
            .iter()
            .zip(&self.helpers)
            .map(|(file, helper)| {
                let file = file.clone();
                helper.give(Box::new(move || file.sync_data()))
            })
            .collect();
        let mut results: Vec<_> = own.iter().map(|file| file.sync_data()).collect();
        let helped = theirs.iter().zip(&self.helpers).zip(given);
        let helped = helped.map(|((file, helper), given)| match given {
            true => helper.answer(),
            false => file.sync_data(),
        });
        results.splice(0..0, helped);
        let failed = results.into_iter().enumerate();
        failed
            .filter_map(|(at, result)| Some((at, result.err()?)))
            .next()
            .map_or(Ok(()), Err)
    }

    fn start_for(&mut self, files: usize) {
        while !self.refused && self.helpers.len() < HELPERS.min(files.saturating_sub(1)) {
            match Helper::start() {
                Ok(helper) => {
                    if let Some(on_thread) = &self.on_thread {
                        helper.run(on_thread.clone());
                    }
                    self.helpers.push(helper);
                }
                // one after the other, then: slower, and as durable
                Err(_) => self.refused = true,
            }
        }
    }
}
