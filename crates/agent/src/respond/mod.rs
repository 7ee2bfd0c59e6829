//! Response: the order of things is decided by `plimsoll_respond`, and driven here.
//!
//! | module | what it is |
//! |---|---|
//! | [`act`], [`machine`] | the boundary: an action in, an outcome out; what is acted upon, and where |
//! | [`docker`], [`kill`] | effects through a runtime's socket; on one process tree |
//! | [`freeze`] | stops every process for a bounded time, with a watchdog outside the agent |
//! | [`block`] | forbids a program in a container or on the node, for a time |
//! | `net` | cuts a container's network, forbids addresses: rules in network namespaces |
//! | `place` | which processes are the container's |
//! | [`engine`] | the thread: journal first, apply then, act last |
//! | [`recall`] | plans and notifications of before this start, from the journal |
//! | `reload` | a policy file that has changed comes into force |
//! | [`sender`] | the process that sends notifications |
//!
//! Promises: alerts reach the engine only when they are durable; a full queue or a stopped engine
//! never holds the journal up (what found no room is read back from the journal).

pub mod act;
pub mod block;
pub mod capture;
pub mod docker;
pub mod engine;
pub mod freeze;
pub mod kill;
pub mod machine;
mod net;
pub(crate) mod place;
pub mod recall;
pub(crate) mod reload;
pub mod sender;
mod show;

pub use net::Survey;
pub(crate) use net::means;

use crate::clock::{Anchor, Clocks};
use crate::ledger::{Ledger, Listener};
use crate::server::Peer;
use act::Action;
use engine::{Answered, Engine, News, Parts};
use machine::Target;
use plimsoll_api::protocol::PlanWord;
use plimsoll_api::{Failure, FailureCode};
use plimsoll_evidence::Reader;
use plimsoll_model::response::{PolicyInForce, StepOutcome};
use plimsoll_model::{Container, ContainerId, Record};
use plimsoll_respond::policy::Policy;
use sender::{Launch, supervise};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Alerts that wait for the engine.
const QUEUE: usize = 16_384;
/// Receivers at most.
pub const RECEIVERS_MAX: usize = 64;
/// An alert older than this is told after a restart, but no longer answered.
pub const RESPOND_WITHIN_NS: i64 = 3_600_000_000_000;
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Carries an action out.
pub type Perform = Arc<dyn Fn(&Target, &Action) -> StepOutcome + Send + Sync>;

/// Says what isolating a container would reach and by which means; the others are those that it may
/// name.
pub type Reach = Arc<dyn Fn(&Container, &[&Container]) -> Vec<String> + Send + Sync>;

/// What a person asks or says.
#[derive(Clone, Debug)]
pub enum Question {
    /// All plans.
    List,
    /// One plan, by its id or its alert's.
    Show(String),
    /// A word about a plan.
    Decide {
        /// Which plan.
        id: String,
        /// Which word.
        word: PlanWord,
        /// Why.
        reason: String,
    },
    /// The switch for all automation.
    Switch {
        /// It stops.
        stop: bool,
        /// Why.
        reason: String,
    },
    /// What has not been delivered.
    Outgoing,
    /// Send dead letters again.
    Resend {
        /// Of this receiver.
        receiver: Option<String>,
        /// This message.
        key: Option<String>,
        /// Why.
        reason: String,
    },
}

/// What response needs to begin.
pub struct Beginning {
    /// The policy file's path and text; `None`: nothing is done about alerts but telling.
    pub policy: Option<(PathBuf, String)>,
    /// Every plan is a dry run, whatever the policy says.
    pub dry_run: bool,
    /// How actions are carried out.
    pub perform: Perform,
    /// What a plan with `isolate` says about this machine.
    pub reach: Reach,
    /// How the sender is started; `None`: nobody is told.
    pub launch: Option<Launch>,
}

/// Why response did not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The policy is not one.
    #[error("{}:{source}", path.display())]
    Policy {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its place.
        source: plimsoll_respond::PolicyError,
    },
    /// A thread could not be made.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// The running response.
pub struct Responder {
    tell: crossbeam_channel::Sender<News>,
    engine: JoinHandle<()>,
    supervisor: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Closes when this goes, which ends the watch over the policy's file.
    _watching: crossbeam_channel::Sender<()>,
}

/// The way for questions to reach the engine.
#[derive(Clone)]
pub struct Door(crossbeam_channel::Sender<News>);

impl Responder {
    /// Reads back, starts the engine and the sender, and listens to the journal.
    ///
    /// # Errors
    /// When the policy is wrong, or no thread can be made.
    pub fn begin(
        beginning: Beginning,
        ledger: &Arc<Ledger>,
        clocks: &Arc<dyn Clocks>,
        anchor: &Arc<Anchor>,
        reader: Reader,
    ) -> Result<Self, BeginError> {
        let at = anchor.stamp(clocks.boot());
        let policy = match &beginning.policy {
            None => Policy::default(),
            Some((path, text)) => Policy::parse(text).map_err(|source| BeginError::Policy {
                path: path.clone(),
                source,
            })?,
        };
        let recalled = recall::recall(&reader, at.wall);
        let digest = policy.digest.clone();
        let path = beginning.policy.as_ref().map(|(path, _)| path.clone());
        if let Some((path, text)) = beginning.policy {
            let in_force = PolicyInForce {
                at,
                path: path.display().to_string(),
                digest: policy.digest.clone(),
                text,
            };
            ledger.record_urgent(&Record::Policy(in_force), at, None);
        }
        let (tell, news) = crossbeam_channel::bounded(QUEUE);
        let missed = Arc::new(AtomicU64::new(u64::MAX));
        ledger.listen(Arc::new(listener(&tell, &missed)));
        let parts = Parts {
            ledger: ledger.clone(),
            clocks: clocks.clone(),
            anchor: anchor.clone(),
            policy,
            dry_run: beginning.dry_run,
            perform: beginning.perform,
            reach: beginning.reach,
            reader,
            missed,
            own: own_container(),
            news,
            tell: tell.clone(),
        };
        // only keeps two agents that start together from asking receivers in step
        let seed = clocks.boot().0 ^ u64::from(std::process::id());
        let engine = std::thread::Builder::new()
            .name("respond".into())
            .spawn(move || Engine::new(parts, recalled, seed).run())?;
        let (watching, stopped) = crossbeam_channel::bounded(0);
        if let Some(path) = path {
            let reload = reload::Reload {
                path,
                in_force: digest,
                tell: tell.clone(),
                ledger: ledger.clone(),
                clocks: clocks.clone(),
                anchor: anchor.clone(),
            };
            let thread = std::thread::Builder::new().name("policy".into());
            thread.spawn(move || reload.run(&stopped))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let supervisor = beginning.launch.map(|launch| {
            let (tell, stop) = (tell.clone(), stop.clone());
            let news = move |n| drop(tell.send(News::Sender(n)));
            std::thread::Builder::new()
                .name("sender".into())
                .spawn(move || supervise(launch, &stop, news))
        });
        Ok(Self {
            tell,
            engine,
            supervisor: supervisor.transpose()?,
            stop,
            _watching: watching,
        })
    }

    /// The way for questions.
    pub fn door(&self) -> Door {
        Door(self.tell.clone())
    }

    /// Ends; effects under way are looked at after the next start.
    pub fn close(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.tell.send(News::Close);
        let _ = self.engine.join();
        if let Some(supervisor) = self.supervisor {
            let _ = supervisor.join();
        }
    }
}

impl Door {
    /// Asks the engine.
    ///
    /// # Errors
    /// The refusal, for whoever asked.
    pub fn ask(&self, question: Question, peer: &Peer) -> Answered {
        let busy = || Failure::new(FailureCode::Busy, "the agent is busy: try again");
        let (to, answer) = mpsc::sync_channel(1);
        let asked = News::Ask(question, *peer, to);
        self.0.send_timeout(asked, PATIENCE).map_err(|_| busy())?;
        answer.recv_timeout(PATIENCE).map_err(|_| busy())?
    }
}

fn listener(tell: &crossbeam_channel::Sender<News>, missed: &Arc<AtomicU64>) -> Listener {
    let (alerts, containers, missed) = (tell.clone(), tell.clone(), missed.clone());
    Listener {
        alert: Box::new(move |alert, leaf| {
            let news = News::Alert(Box::new(alert.clone()), leaf);
            if alerts.try_send(news).is_err() {
                missed.fetch_min(leaf, Ordering::Relaxed);
            }
        }),
        container: Box::new(move |container| {
            // a container that guards do not see is at worst not counted as a replica
            let _ = containers.try_send(News::Container(Arc::new(container.clone())));
        }),
    }
}

/// The container in which this process runs: by the ids in its cgroup's path, or (where a cgroup
/// namespace hides that) by where the files come from that a runtime mounts into every container.
fn own_container() -> Option<ContainerId> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mounts = read("/proc/self/mountinfo");
    let of_runtime = |line: &&str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let to = fields.get(4).copied();
        matches!(
            to,
            Some("/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf")
        )
    };
    let by_mounts = || mounts.lines().filter(of_runtime).find_map(id_in);
    id_in(&read("/proc/self/cgroup")).or_else(by_mounts)
}

/// The first word that is a container's id.
fn id_in(text: &str) -> Option<ContainerId> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let id = |w: &&str| w.len() == 64 && w.bytes().all(|b| b.is_ascii_hexdigit());
    words.filter(id).find_map(|w| ContainerId::parse(w).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_what_its_runtime_mounts() {
        let id = "4f".repeat(32);
        let line =
            format!("1 2 8:1 /var/lib/docker/containers/{id}/hosts /etc/hosts rw - ext4 x rw");
        assert_eq!(id_in(&line).unwrap().as_str(), id);
        assert_eq!(id_in("0::/user.slice/session-1.scope"), None);
    }
}
