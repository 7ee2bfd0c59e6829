//! Looks after the policy's file: a new one comes into force whole, a broken one not at all.
//!
//! Promises: a file is read when two looks saw the same, so that none is taken while it is being
//! written; what is broken leaves the policy of before in force, and is said once, in the journal
//! and on standard error. Reading has a bound, and happens on a thread that nothing waits for.
//! Left out: plans that are made; they go on as they were made, under the guards now in force.

use super::engine::News;
use crate::clock::{Anchor, Clocks};
use crate::ledger::Ledger;
use plimsoll_model::record::Lifecycle;
use plimsoll_model::response::PolicyInForce;
use plimsoll_model::{Record, Text};
use plimsoll_respond::policy::Policy;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// A policy file is at most this long.
const BYTES_MAX: u64 = 256 << 10;
/// Characters of a reason that are kept.
const WHY_MAX: usize = 1000;

/// What a look sees: inode, length, last change.
type Seen = Result<(u64, u64, i64, i64), io::ErrorKind>;

/// The watch over one file.
pub(super) struct Reload {
    pub(super) path: PathBuf,
    /// Digest of what is in force.
    pub(super) in_force: String,
    pub(super) tell: crossbeam_channel::Sender<News>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) clocks: Arc<dyn Clocks>,
    pub(super) anchor: Arc<Anchor>,
}

impl Reload {
    /// Looks until `stopped` closes.
    pub(super) fn run(mut self, stopped: &crossbeam_channel::Receiver<()>) {
        use crossbeam_channel::RecvTimeoutError::Timeout;
        // what is there now may be newer than what was read at the start
        let (mut seen, mut done) = (None, None);
        while stopped.recv_timeout(EVERY) == Err(Timeout) {
            let now = Some(look(&self.path));
            if now == seen && now != done && self.load() {
                done.clone_from(&now);
            }
            seen = now;
        }
    }

    /// `false`: to be tried again.
    fn load(&mut self) -> bool {
        let read = read_text(&self.path).map_err(|e| format!("cannot be read: {e}"));
        let policy = read.and_then(|text| {
            let policy = Policy::parse(&text).map_err(|e| e.to_string())?;
            Ok((policy, text))
        });
        match policy {
            Err(why) => {
                self.refused(&why);
                true
            }
            Ok((policy, _)) if policy.digest == self.in_force => true,
            Ok((policy, text)) => self.hand_over(policy, text),
        }
    }

    fn hand_over(&mut self, policy: Policy, text: String) -> bool {
        let digest = policy.digest.clone();
        let record = PolicyInForce {
            at: self.anchor.stamp(self.clocks.boot()),
            path: self.path.display().to_string(),
            digest: digest.clone(),
            text,
        };
        let (to, taken) = mpsc::sync_channel(1);
        let news = News::Policy(Box::new(policy), Box::new(record), to);
        let told = self.tell.send(news).is_ok();
        let taken = told && taken.recv_timeout(Duration::from_secs(30)) == Ok(true);
        if taken {
            eprintln!("policy: {digest} is in force");
            self.in_force = digest;
        }
        taken
    }

    fn refused(&self, why: &str) {
        let why: String = why.chars().take(WHY_MAX).collect();
        let at = self.anchor.stamp(self.clocks.boot());
        let said = Lifecycle {
            what: "policy".to_owned(),
            at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details: vec![
                ("refused".to_owned(), why.clone()),
                ("in_force".to_owned(), self.in_force.clone()),
            ],
        };
        self.ledger
            .record_urgent(&Record::Lifecycle(said), at, None);
        let path = self.path.display();
        eprintln!(
            "policy: {path}:{}; the policy that was in force stays in force",
            Text::from(why.as_str())
        );
    }
}

fn look(path: &Path) -> Seen {
    let m = fs::metadata(path).map_err(|e| e.kind())?;
    Ok((m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

/// The text of a policy file; one byte more than is allowed, so that a longer one is refused.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}
