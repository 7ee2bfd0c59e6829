//! What all threads of the agent share, and how a signal of the kernel side enters it.
//!
//! Promises: [`Shared::deliver`] never waits, and what does not fit is a loss of its container.
//! Left out: the threads themselves ([`crate::daemon`]).

use crate::anchoring::Anchoring;
use crate::clock::{Anchor, Clocks};
use crate::enforce::Enforcement;
use crate::gaps::{GapBook, Loss};
use crate::glance::Glances;
use crate::inbox::Inbox;
use crate::kernel::Kernel;
use crate::ledger::Ledger;
use crate::output::Outputs;
use crate::pipeline::{Pipeline, Roots};
use crate::priority::Priority;
use crate::respond::Door;
use crate::rules::RuleSources;
use crate::rules::health::Health;
use plimsoll_model::{Enforced, Instance, Stage, Stamp};
use plimsoll_sensor::api::{HookStatus, Loss as KernelLoss, Pinning, Signal};
use plimsoll_workload::{ApiNews, Scan};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// Work for the pipeline's thread.
pub type Job = Box<dyn FnOnce(&mut Pipeline) + Send>;

/// Where a runtime's answers go.
pub type News = Box<dyn FnMut(ApiNews) + Send>;

/// Where goes what was found running in a container that was met late; `false`: nobody wants it any more.
pub type FoundLate = Box<dyn Fn(Scan) -> bool + Send>;

/// What all threads share.
pub struct Shared {
    /// The journal.
    pub ledger: Arc<Ledger>,
    /// Open gaps.
    pub gaps: Arc<Mutex<GapBook>>,
    /// The clocks.
    pub clocks: Arc<dyn Clocks>,
    /// The anchor in force.
    pub anchor: Arc<Anchor>,
    /// Events on their way.
    pub inbox: Arc<Inbox>,
    /// The kernel's maps.
    pub kernel: Arc<dyn Kernel>,
    /// Hooks in use and refused.
    pub hooks: Vec<HookStatus>,
    /// Whether they outlive the agent.
    pub pinning: Pinning,
    /// Where alerts are shown.
    pub outputs: Arc<Outputs>,
    /// When the agent started.
    pub started: Stamp,
    /// Where the journal lies.
    pub journal_dir: PathBuf,
    /// What is known about anchors.
    pub anchoring: Anchoring,
    /// Whether the rule files are in force as they are.
    pub rules: Health,
    /// Where rules are read from.
    pub rule_sources: RuleSources,
    /// Looks at processes that have just executed.
    pub glances: Arc<Glances>,
    /// Containers held to their baseline.
    pub enforcement: Arc<Enforcement>,
    /// Which threads go before others.
    pub priority: Arc<Priority>,
    /// The way to plans and notifications, once they have begun.
    pub response: OnceLock<Door>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) jobs: crossbeam_channel::Sender<Job>,
}

impl Shared {
    /// Gives the pipeline a job.
    ///
    /// # Errors
    /// When too many wait, or it has ended.
    #[allow(clippy::result_unit_err)] // there is one way to fail, and the caller names it
    pub fn job(&self, job: Job) -> Result<(), ()> {
        self.jobs.try_send(job).map_err(drop)?;
        self.inbox.nudge();
        Ok(())
    }
}

impl Shared {
    /// Takes one signal of the kernel side; never blocks.
    pub fn deliver(&self, signal: Signal) {
        match signal {
            Signal::Event(mut event) => {
                // here and not behind the inbox: a process may be gone a moment later; one that was
                // refused its exec is still the program that it was
                if event.enforced != Some(Enforced::Denied) {
                    self.glances.look(&mut event);
                }
                if event.enforced == Some(Enforced::Held) && event.boot < self.started.boot {
                    // stopped under the agent before, and continued when this one came
                    event.enforced = None;
                }
                if event.enforced == Some(Enforced::Held) {
                    // whatever becomes of the event, its process does not wait for ever
                    self.enforcement.note_held(&event);
                }
                let Err(event) = self.inbox.offer(event) else {
                    return;
                };
                if let Some(dict) = &event.dict {
                    // not forgotten means: not emitted again; the loss below says it was there
                    let _ = self.kernel.forget(dict);
                }
                self.note(&KernelLoss {
                    stage: Stage::Queue,
                    cgroup_id: event.cgroup_id,
                    count: 1,
                    from: event.boot,
                    to: event.boot,
                });
            }
            Signal::Loss(loss) => self.note(&loss),
            Signal::Stream(uses) => {
                let count = uses.len() as u64;
                let (from, to) = (uses.first().map(|u| u.at), uses.last().map(|u| u.at));
                if self.jobs.try_send(Box::new(|p| p.streamed(uses))).is_err() {
                    // uses of known behaviour, each counted in the kernel: no event is missing
                    self.ledger.note(Loss {
                        stage: Stage::Records,
                        instance: None,
                        count: Some(count),
                        from: from.unwrap_or_default(),
                        to: to.unwrap_or_default(),
                        reason: "the pipeline could not take all uses of a container that streams"
                            .into(),
                    });
                }
            }
        }
    }

    /// The instance under a root cgroup.
    pub fn instance_at(&self, cgroup_id: u64) -> Option<Instance> {
        self.roots.get(cgroup_id)
    }

    fn note(&self, loss: &KernelLoss) {
        let reason = match loss.stage {
            Stage::BulkRing => "the ring of ordinary events was full",
            Stage::AlertRing => "the ring of alert-class events was full",
            Stage::Recursion => "the kernel skipped a probe that was already running",
            Stage::Scratch => "no scratch space on that processor",
            Stage::KernelMap => "a table in the kernel was full",
            Stage::Decode => "bytes from the kernel could not be decoded",
            Stage::Queue => "the queue before the pipeline was full",
            Stage::Sequence => {
                "records that the kernel numbered never came out of their ring, and no counter says why"
            }
            _ => "lost on the kernel side",
        };
        self.ledger.note(Loss {
            stage: loss.stage,
            instance: self.roots.get(loss.cgroup_id),
            count: Some(loss.count),
            from: loss.from,
            to: loss.to,
            reason: reason.into(),
        });
    }
}
