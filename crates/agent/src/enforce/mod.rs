//! Enforcement: containers are held to their baseline, where a policy says so.
//!
//! | module | what it is |
//! |---|---|
//! | here | what all threads share: policy in force, the node's switch, how long the kernel may prevent |
//! | [`desk`] | the pipeline's part: which container is held how, verdicts, what is counted |
//! | [`held`] | processes stopped at exec, until somebody decides |
//! | [`warden`] | the thread that keeps the kernel's permission alive, and looks at files |
//!
//! Promises: off unless a policy file is named. The kernel prevents only while this process says so
//! every [`BEAT_EVERY`], so a hung or ended agent means that nothing is prevented ([`BEAT_HOLDS_NS`]
//! at most after the last word), and that is a gap. The switch works without the pipeline and the
//! journal: its first act is in the kernel's map.

pub mod desk;
pub mod held;
pub mod view;
pub mod warden;

use crate::files;
use crate::kernel::{Kernel, KernelError};
use held::{Held, Terms};
use plimsoll_model::enforcement::EnforcementInForce;
use plimsoll_model::{BootNs, EnforceClass, Event, Stamp};
use plimsoll_respond::PolicyError;
use plimsoll_respond::enforcement::Policy;
use plimsoll_sensor::api::EnforceMeans;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How often the kernel is told to go on preventing.
pub const BEAT_EVERY: Duration = Duration::from_millis(200);
/// How long one word holds.
pub const BEAT_HOLDS_NS: u64 = 2_000_000_000;
/// A policy file is at most this long.
pub const POLICY_BYTES_MAX: u64 = 256 << 10;

/// Why a policy file is not in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a policy.
    #[error("{}:{source}", path.display())]
    Policy {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its place.
        source: PolicyError,
    },
}

/// A policy and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The policy.
    pub policy: Policy,
    /// The file (`None`: there is none).
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: String,
}

impl InForce {
    /// Reads a file; without one, nothing is enforced.
    ///
    /// # Errors
    /// When it cannot be read, or is not a policy.
    pub fn read(path: Option<&Path>) -> Result<Self, PolicyFileError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = read_text(path).map_err(|source| PolicyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let policy = Policy::parse(&text).map_err(|source| PolicyFileError::Policy {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            policy,
            path: Some(path.to_owned()),
            text,
        })
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(POLICY_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > POLICY_BYTES_MAX {
        return Err(io::Error::other("longer than 256 KiB"));
    }
    Ok(text)
}

/// What all threads share.
pub struct Enforcement {
    kernel: Arc<dyn Kernel>,
    means: Vec<EnforceMeans>,
    off_file: PathBuf,
    in_force: RwLock<Arc<InForce>>,
    /// Changes with policy and switch.
    generation: AtomicU64,
    off: AtomicBool,
    /// Held over every word to the kernel about how long it may prevent.
    until: Mutex<u64>,
    held: Held,
    terms: RwLock<HashMap<u64, Terms>>,
    problem: Mutex<Option<String>>,
}

impl Enforcement {
    /// Starts with this policy; the switch stands as the file says.
    pub fn new(
        kernel: Arc<dyn Kernel>,
        means: Vec<EnforceMeans>,
        in_force: InForce,
        off_file: PathBuf,
    ) -> Self {
        Self {
            kernel,
            means,
            off: AtomicBool::new(off_file.exists()),
            off_file,
            in_force: RwLock::new(Arc::new(in_force)),
            generation: AtomicU64::new(1),
            until: Mutex::new(0),
            held: Held::default(),
            terms: RwLock::default(),
            problem: Mutex::default(),
        }
    }

    /// The policy in force.
    pub fn in_force(&self) -> Arc<InForce> {
        let in_force = self.in_force.read();
        in_force.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever containers may have to be held otherwise.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the switch for the whole node is off.
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }

    /// By what each class is prevented here; empty: nothing can be.
    pub fn means(&self) -> &[EnforceMeans] {
        &self.means
    }

    /// Whether acts of a class can be prevented on this kernel.
    pub fn can(&self, class: EnforceClass) -> bool {
        let mut means = self.means.iter();
        means.any(|m| m.class == class && m.mechanism.is_some())
    }

    /// Processes that wait for a decision.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Why the policy file as it is now is not in force; `None`: it is.
    pub fn problem(&self) -> Option<String> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Puts a policy in force.
    pub fn replace(&self, in_force: InForce) {
        let mut place = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(in_force);
        drop(place);
        self.set_problem(None);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Turns the switch for the whole node: first in the kernel, then for those who wait, then in the
    /// file that keeps it over a restart. `false`: it stood so already.
    ///
    /// # Errors
    /// When the file cannot be made or removed; the switch itself has been turned by then.
    pub fn switch(&self, off: bool) -> io::Result<bool> {
        let turned = self.turn(off);
        if off {
            files::replace(&self.off_file, b"enforcement is off on this node\n")?;
        } else if self.off_file.exists() {
            std::fs::remove_file(&self.off_file)?;
        }
        Ok(turned)
    }

    /// The same without the file, for when that is what has changed.
    fn turn(&self, off: bool) -> bool {
        let was = self.off.swap(off, Ordering::AcqRel);
        if off {
            self.silence();
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        was != off
    }

    /// Nothing is prevented any more, and nobody waits.
    pub fn silence(&self) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        // a map that refuses has no programs behind it any more
        let _ = self.kernel.enforce_until(0);
        *until = 0;
        drop(until);
        self.held.release();
    }

    /// An agent before let acts be prevented until then: the first [`Self::beat`] says so.
    pub fn resume_after(&self, until: BootNs) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until.0;
    }

    /// Tells the kernel to go on preventing. Returns since when it had not, when the word before was
    /// too long ago.
    ///
    /// # Errors
    /// When the kernel side refuses.
    pub fn beat(&self, now: BootNs) -> Result<Option<BootNs>, KernelError> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_off() || !self.in_force().policy.enforces() {
            if *until != 0 {
                self.kernel.enforce_until(0)?;
                *until = 0;
            }
            return Ok(None);
        }
        let lapsed = (*until != 0 && *until < now.0).then_some(BootNs(*until));
        let next = now.0 + BEAT_HOLDS_NS;
        self.kernel.enforce_until(next)?;
        *until = next;
        Ok(lapsed)
    }

    /// How long processes of a container may wait for a decision.
    fn set_terms(&self, cgroup_id: u64, terms: Option<Terms>) {
        let mut all = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        match terms {
            Some(terms) => all.insert(cgroup_id, terms),
            None => all.remove(&cgroup_id),
        };
    }

    fn terms_of(&self, cgroup_id: u64) -> Terms {
        let all = self.terms.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&cgroup_id).copied().unwrap_or_default()
    }

    /// An event that says that its process was stopped: from here on somebody decides about it.
    pub fn note_held(&self, event: &Event) {
        let terms = self.terms_of(event.cgroup_id);
        self.held
            .note(event.process.key, event.cgroup_id, event.boot, terms);
        if self.is_off() {
            self.held.release();
        }
    }

    /// The record of what is in force.
    pub fn record(&self, at: Stamp) -> EnforcementInForce {
        let now = self.in_force();
        let path = now.path.as_ref().map(|p| p.display().to_string());
        let means = self.means.iter().map(|m| {
            let mechanism = m.mechanism.clone().unwrap_or_default();
            (m.class.as_str().to_owned(), mechanism)
        });
        EnforcementInForce {
            at,
            path: path.unwrap_or_default(),
            digest: now.policy.digest.clone(),
            text: now.text.clone(),
            switched_off: self.is_off(),
            means: means.collect(),
        }
    }
}
