//! Rule files that change while the agent runs are picked up: all or nothing.
//!
//! Promises: a set that does not load leaves the old one in force, and the reason is in `status`,
//! on standard error and in the journal; one and the same broken state is told once. A file that is
//! still being written is left alone until it has been the same for [`EVERY`]; SIGHUP reads at
//! once. Loading happens on a thread of its own, never on the way of an event.
//!
//! By looking and not by inotify: what is mounted into a container (a Kubernetes ConfigMap, NFS)
//! changes without telling, and there is nothing to overflow.

use super::files::{Loaded, Options, RuleSources, RulesError, first_errors, id_of, load_texts};
use crate::shared::Shared;
use plimsoll_model::record::Lifecycle;
use plimsoll_model::{Record, Text};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(1);
/// Longest reason that is kept, bytes.
const WHY_MAX: usize = 2048;

/// What files looked like: enough to see that one changed.
type Look = Vec<(std::path::PathBuf, u64, u64, i64, i64)>;

fn look(sources: &RuleSources) -> Result<Look, RulesError> {
    let files = sources.files()?;
    let of = |path: std::path::PathBuf| match std::fs::metadata(&path) {
        Ok(m) => Ok((path, m.ino(), m.len(), m.mtime(), m.mtime_nsec())),
        Err(source) => Err(RulesError::Read { path, source }),
    };
    files.into_iter().map(of).collect()
}

/// Looks at the files of `sources`.
pub struct Watcher {
    sources: RuleSources,
    options: Options,
    shared: Arc<Shared>,
    /// Set by SIGHUP.
    reload: Arc<AtomicBool>,
    /// The id of the set that was put in force last.
    in_force: String,
    /// The state that was dealt with last, and the one that was seen last.
    done: Option<Result<Look, String>>,
    seen: Option<Result<Look, String>>,
}

/// Loads the rules of a start. Rules that were named by a person have to load; otherwise ours alone
/// are in force, with the reason, because a node without rules is worse.
///
/// # Errors
/// When rules that were named do not load.
pub fn at_start(
    sources: &RuleSources,
    options: &Options,
) -> Result<(Loaded, Option<String>), RulesError> {
    let why = match sources.read().and_then(|texts| load_texts(&texts, options)) {
        Ok(loaded) => return Ok((loaded, None)),
        Err(e) if sources.named => return Err(e),
        Err(e) => words(&e),
    };
    let ours = RuleSources {
        paths: Vec::new(),
        ..sources.clone()
    };
    let loaded = ours.read().and_then(|texts| load_texts(&texts, options))?;
    Ok((loaded, Some(why)))
}

impl Watcher {
    /// Starts with what [`at_start`] gave.
    pub fn new(
        sources: RuleSources,
        options: Options,
        shared: Arc<Shared>,
        reload: Arc<AtomicBool>,
        started: (&Loaded, Option<String>),
    ) -> Self {
        let (loaded, problem) = started;
        let now = look(&sources).map_err(|e| words(&e));
        let watcher = Self {
            sources,
            options,
            shared,
            reload,
            in_force: loaded.id.clone(),
            done: Some(now.clone()),
            seen: Some(now),
        };
        if let Some(why) = problem {
            watcher.refused(why);
        }
        watcher
    }

    /// Looks until `stopped` closes or hears something.
    pub fn run(mut self, stopped: &crossbeam_channel::Receiver<()>) {
        use crossbeam_channel::RecvTimeoutError::Timeout;
        while stopped.recv_timeout(EVERY) == Err(Timeout) {
            self.turn();
        }
    }

    /// One look.
    pub fn turn(&mut self) {
        let asked = self.reload.swap(false, Ordering::Relaxed);
        let now = Some(look(&self.sources).map_err(|e| words(&e)));
        let settled = now == self.seen;
        self.seen.clone_from(&now);
        if !asked && (now == self.done || !settled) {
            return;
        }
        if self.load() {
            self.done = now;
        }
    }

    /// Loads what is there; `false`: to be tried again.
    fn load(&mut self) -> bool {
        let texts = match self.sources.read() {
            Ok(texts) => texts,
            Err(e) => {
                self.refused(words(&e));
                return true;
            }
        };
        if id_of(&texts) == self.in_force {
            self.shared.rules.set(None);
            return true;
        }
        let loaded = match load_texts(&texts, &self.options) {
            Ok(loaded) => Arc::new(loaded),
            Err(e) => {
                self.refused(words(&e));
                return true;
            }
        };
        let id = loaded.id.clone();
        let kept = self.shared.job(Box::new(move |p| p.set_rules(loaded)));
        if kept.is_ok() {
            self.shared.rules.set(None);
            self.in_force = id;
        }
        kept.is_ok()
    }

    fn refused(&self, why: String) {
        if self.shared.rules.problem().as_ref() == Some(&why) {
            return;
        }
        let at = self.shared.anchor.stamp(self.shared.clocks.boot());
        let said = Lifecycle {
            what: "rules".to_owned(),
            at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details: vec![
                ("refused".to_owned(), why.clone()),
                ("in_force".to_owned(), self.in_force.clone()),
            ],
        };
        self.shared
            .ledger
            .record_urgent(&Record::Lifecycle(said), at, None);
        eprintln!(
            "rules: {}; the rules that were in force stay in force",
            Text::from(why.as_str())
        );
        self.shared.rules.set(Some(why));
    }
}

/// An error with its cause, bounded.
fn words(e: &RulesError) -> String {
    let mut text = match e {
        RulesError::Load(report) => first_errors(report),
        other => other.to_string(),
    };
    if text.len() > WHY_MAX {
        let end = (0..=WHY_MAX).rev().find(|i| text.is_char_boundary(*i));
        text.truncate(end.unwrap_or(0));
    }
    text
}
