//! The agent as a whole: its threads, and how it starts and ends.
//!
//! | thread | does | waits on |
//! |---|---|---|
//! | the caller's ([`Agent::read`]) | rings → inbox; losses → gaps | the rings |
//! | `pipeline` | attribute → judge → journal queue; slots; jobs of others | the inbox |
//! | `journal` (`evidence`) | group commit, alerts at once | its queue |
//! | `keeper` | writes baseline files | its queue |
//! | `timer` | clock anchors, gaps, retention | the clock |
//! | `scrub` | reads the journal again, slowly | the clock |
//! | `priority` | lowers raised threads that take too much | the clock |
//! | `warden` | keeps the kernel's permission to prevent alive; stopped programs that waited too long | the clock |
//! | `rules` | looks for changed rule files, loads them | the clock |
//! | `alerts` | shows alerts | its queue |
//! | `respond`, `effect` | plans; steps, at most 4 at once | its queue, the journal; their effects |
//! | `sender` | keeps the process that sends notifications running | its socket |
//! | `socket`, `connection` | answers | the socket |
//! | `glance` | reads environments that rules ask for, at most 4 | `/proc` of a process |
//! | `runtimes` (`workload`) | asks Docker and its kin | their sockets |
//!
//! Promises: the reader never waits for anything behind the inbox; ending on SIGINT or SIGTERM
//! empties the inbox, writes what bursts and counters still hold, and says "stop" in the journal.
//! Left out: loading the sensor and finding the machine's layout ([`crate::run`]).

use crate::anchoring::Anchoring;
use crate::answers::Answers;
use crate::attribution::Attribute;
use crate::begin::{first_records, handover_gaps, prime_kernel, resume_left_over};
use crate::chores::{flush_gaps, keep_files, run_scrub, run_timer};
use crate::clock::{Anchor, Clocks};
use crate::config::Config;
use crate::enforce::warden::Warden;
use crate::enforce::{Enforcement, InForce};
use crate::files;
use crate::gaps::GapBook;
use crate::glance::Glances;
use crate::inbox::Inbox;
use crate::kernel::{EventSource, KernelError, KernelSide};
use crate::ledger::{Ledger, retention};
use crate::machine;
use crate::output::{Outputs, Sink};
use crate::past::{Past, down_gap, idle_gap, look_back};
use crate::pipeline::{Ask, BATCH, Look, Parts, Pipeline, SAVES_MAX};
use crate::priority::{NICE_OF_SCRUB, Priority, step_back};
use crate::recorder;
use crate::respond::{BeginError, Beginning, Responder};
use crate::rules::capabilities::refused;
use crate::rules::health::Health;
use crate::rules::watcher::{Watcher, at_start};
use crate::rules::{RulesError, files as rule_files};
use crate::server::{Access, ServeError, Server, group_id};
use crate::shared::{FoundLate, Job, News, Shared};
use crate::shelf::Shelf;
use plimsoll_evidence::{Journal, OpenError, Options, Recovery, Sealing};
use plimsoll_model::record::Lifecycle;
use plimsoll_model::{BootId, BootNs, GapScope, NodeId, Record, Stamp};
use plimsoll_workload::Scan;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Jobs of other threads that wait for the pipeline.
pub const JOBS_MAX: usize = 256;
/// Baseline files that wait to be written.
pub const FILES_MAX: usize = 16;
/// How often time passes for the pipeline.
const TICK: Duration = Duration::from_millis(50);
/// How soon the journal's queue is looked at again when it was nearly full.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// How often changed baselines are written out.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// A container that ended while no agent was there has said so by then.
const LATE_END_NS: u64 = 10_000_000_000;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal could not be opened.
    #[error("cannot open the journal")]
    Journal(#[from] OpenError),
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] ServeError),
    /// Response could not begin.
    #[error(transparent)]
    Respond(#[from] BeginError),
    /// A directory, file or thread could not be made.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// Rules that were named do not load.
    #[error("rules do not load: {0}")]
    Rules(#[from] RulesError),
    /// The group of the socket does not exist.
    #[error("there is no group \"{0}\" (socket_group)")]
    NoGroup(String),
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let doing = doing.into();
    move |source| StartError::Io { doing, source }
}

/// An open journal and what it says about the past: made before the sensor is loaded, so that a
/// second agent is refused before it touches the kernel.
pub struct Opened {
    journal: Journal,
    recovery: Recovery,
    past: Past,
    boot_id: BootId,
    started: Stamp,
    anchor: Arc<Anchor>,
    clocks: Arc<dyn Clocks>,
}

/// Opens the journal of `config`.
///
/// # Errors
/// When it is in use, foreign, or cannot be read; nothing is overwritten then.
pub fn open(config: &Config, clocks: Arc<dyn Clocks>) -> Result<Opened, StartError> {
    let boot_id = machine::boot_id();
    let node: NodeId = config.node.clone().unwrap_or_else(machine::node_id);
    let dir = &config.data_dir;
    files::private_dir(dir).map_err(io_error(format!("make {}", dir.display())))?;
    let mut options = Options::new(node.as_str());
    options.emergency_bytes = config.journal.emergency_bytes;
    options.batch_bytes = 1 << 20;
    options.boot_id = machine::boot_bytes(&boot_id);
    options.sealing = Some(Sealing::new(config.keys_dir()));
    let (journal, recovery) = Journal::open(config.journal_dir(), options)?;
    let reading = clocks.read();
    let anchor = Arc::new(Anchor::new(&reading));
    let started = anchor.stamp(reading.boot);
    let past = look_back(&journal.reader(), &boot_id, started);
    Ok(Opened {
        journal,
        recovery,
        past,
        boot_id,
        started,
        anchor,
        clocks,
    })
}

/// What [`Agent::start`] needs besides the open journal.
pub struct Surroundings {
    /// The kernel side, loaded.
    pub side: KernelSide,
    /// The stage "attribute".
    pub attribute: Box<dyn Attribute>,
    /// What was running, read after the sensor was loaded.
    pub scan: Scan,
    /// Makes the way to ask runtimes, given where their answers go.
    pub ask: Box<dyn FnOnce(News) -> io::Result<Ask>>,
    /// Makes the way to look at containers that were met late, given where goes what is found.
    pub look: Box<dyn FnOnce(FoundLate) -> io::Result<Look>>,
    /// Where alerts are shown.
    pub sinks: Vec<Sink>,
    /// What is done about alerts.
    pub response: Beginning,
    /// Set when rule files are to be read again at once (SIGHUP).
    pub reload_rules: Arc<AtomicBool>,
    /// The enforcement policy.
    pub enforcement: InForce,
    /// Set when enforcement is to be switched off (SIGUSR1).
    pub enforcement_off: Arc<AtomicBool>,
}

/// The running agent.
pub struct Agent {
    shared: Arc<Shared>,
    pipeline: JoinHandle<()>,
    keeper: JoinHandle<()>,
    timer: JoinHandle<()>,
    timer_stop: crossbeam_channel::Sender<()>,
    scrubber: JoinHandle<()>,
    scrub_stop: crossbeam_channel::Sender<()>,
    rules: JoinHandle<()>,
    rules_stop: crossbeam_channel::Sender<()>,
    warden: JoinHandle<()>,
    warden_stop: crossbeam_channel::Sender<()>,
    priority: JoinHandle<()>,
    priority_stop: crossbeam_channel::Sender<()>,
    server: Server,
    responder: Responder,
}

impl Agent {
    /// Starts everything behind the rings.
    ///
    /// # Errors
    /// When a thread, a directory or the socket cannot be made.
    pub fn start(
        config: &Config,
        opened: Opened,
        around: Surroundings,
    ) -> Result<Self, StartError> {
        let Opened {
            journal,
            recovery,
            past,
            boot_id,
            started,
            anchor,
            clocks,
        } = opened;
        let access = access(config)?;
        let anchoring = Anchoring::look_back(&journal.reader(), started);
        // before anything is written: rules that a person named have to load
        let rule_options =
            rule_files::options(config.rules.match_mode, &refused(&around.side.hooks));
        let (rules, rules_problem) = at_start(&config.rules, &rule_options)?;
        let gaps = Arc::new(Mutex::new(GapBook::default()));
        let reader = journal.reader();
        let ledger = Ledger::start(
            journal,
            config.journal.group_commit,
            gaps.clone(),
            clocks.clone(),
        )
        .map_err(io_error("start the journal's thread"))?;
        let ledger = Arc::new(ledger);
        let priority = Arc::new(Priority::new(config.nice, config.real_time));
        ledger.raise_priority(&priority);
        let node = ledger.origin().clone();
        let dir = config.baselines_dir();
        let shelf = Shelf::open(&dir, node.clone(), config.learning.clone())
            .map_err(io_error(format!("read baselines in {}", dir.display())))?;
        let outputs = Outputs::start(node, around.sinks).map_err(io_error("start a thread"))?;
        let (jobs, work) = crossbeam_channel::bounded::<Job>(JOBS_MAX);
        let policy_file = around.enforcement.path.clone();
        let enforcement = Arc::new(Enforcement::new(
            around.side.control.clone(),
            around.side.means,
            around.enforcement,
            config.enforcement_off(),
        ));
        let shared = Arc::new(Shared {
            ledger,
            gaps,
            clocks,
            anchor,
            inbox: Arc::new(Inbox::new(config.queues)),
            kernel: around.side.control,
            hooks: around.side.hooks,
            pinning: around.side.pinning.clone(),
            outputs: Arc::new(outputs),
            started,
            journal_dir: config.journal_dir(),
            anchoring,
            rules: Health::default(),
            rule_sources: config.rules.clone(),
            glances: Arc::new(Glances::new("/proc")),
            enforcement,
            priority,
            response: OnceLock::new(),
            roots: Arc::default(),
            jobs,
        });
        let pinning = around.side.pinning;
        // bound to this boot: nothing of another one can be pinned
        let inherited = pinning.inherited.clone().filter(|_| past.same_boot);
        first_records(&shared, &boot_id, &recovery, &pinning);
        let down = match &inherited {
            Some(before) => before
                .idle_since
                .map(|since| idle_gap(shared.anchor.stamp(since), started)),
            None => down_gap(&past, GapScope::Node, started),
        };
        for gap in down.iter().cloned().chain(
            inherited
                .iter()
                .flat_map(|i| handover_gaps(i, &past, config.rings.syscalls_used, &shared)),
        ) {
            shared.ledger.record_gap(gap);
        }
        let was_away = past.until.is_some();
        let watched_until = match (&inherited, past.until) {
            (Some(before), _) => before.idle_since.unwrap_or(started.boot),
            (None, Some(until)) if past.same_boot => until.boot,
            (None, _) => BootNs(0),
        };
        if let Some(since) = inherited.as_ref().and_then(|i| i.prevented_until) {
            shared.enforcement.resume_after(since);
        }
        let ask = (around.ask)(news_to(&shared)).map_err(io_error("start a thread"))?;
        let look = (around.look)(found_to(&shared)).map_err(io_error("start a thread"))?;
        let mut pipeline = Pipeline::new(Parts {
            attribute: around.attribute,
            kernel: shared.kernel.clone(),
            ledger: shared.ledger.clone(),
            shelf,
            clocks: shared.clocks.clone(),
            anchor: shared.anchor.clone(),
            outputs: shared.outputs.clone(),
            ask,
            look,
            roots: shared.roots.clone(),
            glances: shared.glances.clone(),
            slot_seconds: config.learning.slot_seconds,
            recorder: recorder::Bounds {
                stream_ns: u64::from(config.recorder.stream_seconds) * 1_000_000_000,
                stream_uses: config.recorder.stream_uses,
            },
            enforcement: shared.enforcement.clone(),
        });
        let watcher = Watcher::new(
            config.rules.clone(),
            rule_options,
            shared.clone(),
            around.reload_rules,
            (&rules, rules_problem),
        );
        pipeline.set_rules(Arc::new(rules));
        pipeline.watched_until(watched_until);
        // before the first alert can be durable, and before it learns of the first container
        let responder = Responder::begin(
            around.response,
            &shared.ledger,
            &shared.clocks,
            &shared.anchor,
            reader,
        )?;
        let _ = shared.response.set(responder.door());
        let may_be_stopped = shared.enforcement.in_force().policy.enforces()
            || inherited
                .as_ref()
                .is_some_and(|i| i.prevented_until.is_some());
        if was_away && may_be_stopped {
            resume_left_over(&shared, &around.scan);
        }
        let mut scan = around.scan;
        if inherited.is_some() {
            let ended = scan.still_to_end(&past.remembered);
            pipeline.gone_by(ended, BootNs(shared.clocks.boot().0 + LATE_END_NS));
        }
        prime_kernel(&shared, &mut pipeline, scan, past, down.as_ref());
        let server = Server::start(&config.socket, access, Arc::new(Answers(shared.clone())))?;
        let (keep, files) = crossbeam_channel::bounded(FILES_MAX);
        let keeper = spawn("keeper", {
            let shared = shared.clone();
            move || keep_files(&shared, &files)
        })?;
        let pipeline = spawn("pipeline", {
            let (inbox, priority) = (shared.inbox.clone(), shared.priority.clone());
            move || {
                let _raised = priority.raise("pipeline");
                run_pipeline(pipeline, &inbox, &work, &keep);
            }
        })?;
        let (scrub_stop, scrub_stopped) = crossbeam_channel::bounded(1);
        let scrubber = spawn("scrub", {
            let shared = shared.clone();
            move || {
                step_back(NICE_OF_SCRUB);
                run_scrub(&shared, &scrub_stopped);
            }
        })?;
        let (timer_stop, stopped) = crossbeam_channel::bounded(1);
        let timer = spawn("timer", {
            let shared = shared.clone();
            let policy = retention(config.journal.max_age, config.journal.max_bytes);
            move || run_timer(&shared, &stopped, &policy)
        })?;
        let (rules_stop, stopped) = crossbeam_channel::bounded(1);
        let rules = spawn("rules", move || watcher.run(&stopped))?;
        let (warden_stop, stopped) = crossbeam_channel::bounded(1);
        let guard = Warden::new(shared.clone(), policy_file, around.enforcement_off);
        let warden = spawn("warden", move || guard.run(&stopped))?;
        let (priority_stop, stopped) = crossbeam_channel::bounded(1);
        let priority = spawn("priority", {
            let priority = shared.priority.clone();
            move || priority.run(&stopped)
        })?;
        Ok(Self {
            shared,
            pipeline,
            keeper,
            timer,
            timer_stop,
            scrubber,
            scrub_stop,
            rules,
            rules_stop,
            warden,
            warden_stop,
            priority,
            priority_stop,
            server,
            responder,
        })
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reads `source` on this thread until `stop` is set.
    ///
    /// # Errors
    /// When nothing can be read any more.
    pub fn read(&self, source: &mut dyn EventSource, stop: &AtomicBool) -> Result<(), KernelError> {
        let _raised = self.shared.priority.raise("reader");
        while !stop.load(Ordering::Relaxed) {
            if self.pipeline.is_finished() {
                return Err("the pipeline has ended: its last words are on standard error".into());
            }
            source.poll(Duration::from_millis(100), &mut |signal| {
                self.shared.deliver(signal);
            })?;
            // what came while nobody read comes all at once: there is time to take it in pieces
            while source.is_behind() && self.shared.inbox.is_filling() {
                if stop.load(Ordering::Relaxed) || self.pipeline.is_finished() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Ends: empties the queues and says so in the journal. `why` is for people.
    pub fn stop(self, why: &str) {
        self.server.close();
        let _ = self.warden_stop.send(());
        let _ = self.warden.join();
        let _ = self.rules_stop.send(());
        let _ = self.rules.join();
        self.shared.inbox.close();
        let _ = self.pipeline.join();
        let _ = self.keeper.join();
        let _ = self.timer_stop.send(());
        let _ = self.timer.join();
        let _ = self.scrub_stop.send(());
        let _ = self.scrubber.join();
        let _ = self.priority_stop.send(());
        let _ = self.priority.join();
        self.responder.close();
        let shared = self.shared;
        flush_gaps(&shared);
        shared.ledger.record_losses();
        let at = shared.anchor.stamp(shared.clocks.boot());
        let latency = shared.ledger.latency();
        let p99 = |q: Option<u64>| q.map_or("none".to_owned(), |ns| (ns / 1000).to_string());
        let stop = Lifecycle {
            what: "stop".to_owned(),
            at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            details: vec![
                ("why".to_owned(), why.to_owned()),
                ("records".to_owned(), shared.ledger.accepted().to_string()),
                (
                    "alert_handed_p99_us".to_owned(),
                    p99(latency.handed_quantile(0.99)),
                ),
                (
                    "alert_durable_p99_us".to_owned(),
                    p99(latency.durable_quantile(0.99)),
                ),
            ],
        };
        shared
            .ledger
            .record_urgent(&Record::Lifecycle(stop), at, None);
        // a disk that still refuses has the count of its losses in the emergency segment
        let _ = shared.ledger.close();
        shared.outputs.close();
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(io_error(format!("start the thread {name}")))
}

fn access(config: &Config) -> Result<Access, StartError> {
    let group = match &config.socket_group {
        None => None,
        Some(name) => Some(group_id(name).ok_or_else(|| StartError::NoGroup(name.clone()))?),
    };
    Ok(Access {
        uid: rustix::process::geteuid().as_raw(),
        group,
    })
}

fn news_to(shared: &Arc<Shared>) -> News {
    let (jobs, inbox) = (shared.jobs.clone(), shared.inbox.clone());
    Box::new(move |news| {
        // what does not fit only confirms what disk has said
        if jobs.try_send(Box::new(|p| p.news(news))).is_ok() {
            inbox.nudge();
        }
    })
}

fn found_to(shared: &Arc<Shared>) -> FoundLate {
    let (jobs, inbox) = (shared.jobs.clone(), shared.inbox.clone());
    Box::new(move |scan| {
        // whoever looks has the time to wait
        let told = jobs.send(Box::new(|p| p.met(scan))).is_ok();
        inbox.nudge();
        told
    })
}

fn run_pipeline(
    mut pipeline: Pipeline,
    inbox: &Inbox,
    work: &crossbeam_channel::Receiver<Job>,
    keep: &crossbeam_channel::Sender<(PathBuf, Vec<u8>)>,
) {
    let mut batch = Vec::with_capacity(BATCH * 2);
    let (mut ticked, mut saved) = (Instant::now(), Instant::now());
    loop {
        // while the journal's disk is slow, ordinary events wait where there is room for them
        let busy = pipeline.ledger_is_busy();
        let wait = if busy { BUSY_WAIT } else { TICK };
        if !inbox.take(&mut batch, BATCH, wait, busy) {
            break;
        }
        if busy && batch.is_empty() {
            // a closed inbox does not wait
            std::thread::sleep(BUSY_WAIT);
        }
        if !batch.is_empty() {
            pipeline.events_between(&mut batch, |made| inbox.take_made(made));
        }
        // a few at a time: events go on between them
        for job in work.try_iter().take(8) {
            job(&mut pipeline);
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            pipeline.tick();
            let fill = inbox.fill();
            pipeline.note_in_hand(fill.bulk + fill.tree + fill.alert);
        }
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            let room = FILES_MAX - keep.len();
            for file in pipeline.unsaved(SAVES_MAX.min(room)) {
                // there is room: nobody else sends
                let _ = keep.try_send(file);
            }
        }
    }
    for file in pipeline.finish() {
        // the agent is ending: waiting for the disk is right here
        let _ = keep.send(file);
    }
}
