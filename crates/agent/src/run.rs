//! `plimsoll run`, the agent's half: finds the machine's layout, loads the sensor, reads until it
//! is told to stop.

use crate::clock::{Clocks as _, SystemClocks};
use crate::config::Config;
use crate::daemon::{self, Agent, StartError, Surroundings};
use crate::enforce::{InForce, PolicyFileError};
use crate::files;
use crate::found;
use crate::kernel::{Kernel, KernelError, KernelSide};
use crate::leftover;
use crate::machine;
use crate::output;
use crate::respond::act::{self, KernelWord, Machine};
use crate::respond::{Beginning, Survey, block, capture, reload, sender};
use plimsoll_api::describe;
use plimsoll_sensor::api::{Hierarchy, Pins, SensorConfig};
use plimsoll_sensor::{Sensor, SensorError};
use plimsoll_workload::cgroup::DetectLayoutError;
use plimsoll_workload::{
    Attributor, AttributorConfig, Confirmer, ConfirmerConfig, Disk, Evidence as _, Layout,
    Redactor, Version, scan_proc,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why the agent did not run, or stopped running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The layout of cgroups could not be found out.
    #[error(transparent)]
    Layout(#[from] DetectLayoutError),
    /// The kernel side could not be loaded.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// Signals could not be caught.
    #[error("cannot catch SIGINT, SIGTERM, SIGHUP and SIGUSR1")]
    Signals(#[source] io::Error),
    /// The file for alerts could not be opened.
    #[error("cannot open {path} (alerts.file)")]
    AlertFile {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Secrets could not be masked, and nothing is stored unmasked.
    #[error("cannot make or read {path}, the key of redaction (redaction.enabled)")]
    RedactionKey {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A file that the configuration names could not be read.
    #[error("cannot read {path}")]
    ReadFile {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The enforcement policy is not one.
    #[error(transparent)]
    Enforcement(#[from] PolicyFileError),
    /// The user of the sender does not exist.
    #[error("there is no user \"{0}\" (notifications.user)")]
    NoUser(String),
    /// The kernel side ended while the agent ran.
    #[error("reading from the kernel failed")]
    Read(#[source] KernelError),
}

/// Runs the agent until SIGINT or SIGTERM. `started` is called once it watches.
///
/// # Errors
/// When it cannot start, or the kernel side ends.
pub fn run(config: &Config, started: impl FnOnce(&Agent)) -> Result<(), RunError> {
    let stop = Arc::new(AtomicBool::new(false));
    let by_hand = Arc::new(AtomicBool::new(false));
    // the reason first: whoever sees the stop sees it too
    signal_hook::flag::register(signal_hook::consts::SIGINT, by_hand.clone())
        .map_err(RunError::Signals)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(RunError::Signals)?;
    }
    let reload_rules = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, reload_rules.clone())
        .map_err(RunError::Signals)?;
    let enforcement_off = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, enforcement_off.clone())
        .map_err(RunError::Signals)?;
    let enforcement = InForce::read(config.enforcement.policy.as_deref())?;
    let proc_root = Path::new("/proc");
    let clocks = Arc::new(SystemClocks);
    let layout = Layout::detect(proc_root)?;
    let sinks = sinks(config)?;
    let opened = daemon::open(config, clocks.clone())?;
    let redactor = redactor(config)?;
    let mut wanted = sensor_config(config, &layout);
    wanted.pins = config.hooks.pin.then(|| Pins {
        home: config.hooks_dir(),
        owner: config.data_dir.display().to_string(),
        keep_for: config.hooks.keep_for,
    });
    let mut sensor = Sensor::load(&wanted)?;
    let pinning = sensor.pinning();
    for problem in &pinning.problems {
        eprintln!("plimsoll: hooks for the next agent: {problem}");
    }
    // lives as long as this function's frame, so to its end or the process's
    let _alive = pinning.home.as_deref().map(|home| {
        let after = config.hooks.remove_after;
        leftover::begin(sender::THIS_PROGRAM.as_ref(), home, after).inspect_err(|e| {
            eprintln!("plimsoll: hooks that no agent comes back for will stay: {e}");
        })
    });
    let inherited = pinning.inherited.is_some();
    let reader = &mut sensor;
    let watched = move || -> Result<(), RunError> {
        let control: Arc<dyn Kernel> = Arc::new(reader.control());
        let side = KernelSide {
            control: control.clone(),
            hooks: reader.hooks().to_vec(),
            means: reader.means(),
            pinning: reader.pinning(),
        };
        // after loading: what starts meanwhile is in the rings, what ran before is in /proc
        let mut evidence = Disk::new(proc_root, layout.clone());
        let now = clocks.boot();
        let mut scan = scan_proc(proc_root, &layout, |path| evidence.judge(path, now));
        scan.refine(|process| side.control.followed(process));
        found::look(&mut scan, &clocks.read());
        let attributor = AttributorConfig {
            host: config.host,
            ..AttributorConfig::default()
        };
        let runtimes = confirmer_config(config);
        let around = Surroundings {
            side,
            attribute: Box::new(Attributor::new(attributor, evidence).with_redactor(redactor)),
            scan,
            ask: Box::new(move |news| {
                let confirmer = Confirmer::start(runtimes, news)?;
                Ok(Box::new(move |question| confirmer.ask(question)))
            }),
            look: Box::new(found::looker(layout, clocks.clone())),
            sinks,
            response: response(config, &control)?,
            reload_rules,
            enforcement,
            enforcement_off,
        };
        let agent = Agent::start(config, opened, around)?;
        agent.shared().priority.raise_session();
        if machine::has_the_kernels_pids(Path::new("/")) == Some(false) {
            let [found, cost, advice] = machine::OTHER_PIDS;
            eprintln!("plimsoll: it is in {found}: {cost}; {advice}");
        }
        started(&agent);
        let read = agent.read(reader, &stop);
        let why = match &read {
            Ok(()) => "asked to",
            Err(_) => "the kernel side ended",
        };
        agent.stop(why);
        read.map_err(RunError::Read)
    };
    let watched = watched();
    let keep = match &watched {
        Ok(()) => config.hooks.keep_on_stop && !by_hand.load(Ordering::Relaxed),
        Err(RunError::Read(_)) => true,
        // what was not there before does not stay behind a start that failed
        Err(_) => inherited,
    };
    if keep && sensor.pinning().home.is_some() {
        eprintln!(
            "plimsoll: its hooks go on recording for the next agent for {}, then they do nothing, and go after {}; `plimsoll hooks remove` takes them out",
            describe::span(config.hooks.keep_for.as_nanos() as u64),
            describe::span(config.hooks.remove_after.as_nanos() as u64)
        );
    }
    sensor.leave(keep);
    watched
}

/// Masks secrets with the key of this data directory, as configured.
fn redactor(config: &Config) -> Result<Redactor, RunError> {
    let wanted = &config.redaction;
    if !wanted.enabled {
        return Ok(Redactor::off());
    }
    let path = config.data_dir.join("redaction.key");
    let key = files::secret_key(&path).map_err(|source| RunError::RedactionKey {
        path: path.display().to_string(),
        source,
    })?;
    let mut redactor = Redactor::new(key, wanted.entropy);
    for (name, form) in &wanted.patterns {
        let added = redactor.add(name, form);
        added.expect("the configuration was read with this check");
    }
    Ok(redactor)
}

/// The sensor's part of a configuration.
pub fn sensor_config(config: &Config, layout: &Layout) -> SensorConfig {
    let sensor_hierarchy = |h: &plimsoll_workload::Hierarchy| match &h.version {
        Version::V2 => Hierarchy::V2 {
            mount: h.mount.clone(),
        },
        Version::V1 { controller } => Hierarchy::V1 {
            controller: controller.clone(),
            mount: h.mount.clone(),
        },
    };
    SensorConfig {
        hierarchy: sensor_hierarchy(&layout.identifying),
        second: layout.second.as_ref().map(sensor_hierarchy),
        bulk_ring_bytes: config.rings.bulk_bytes,
        alert_ring_bytes: config.rings.alert_bytes,
        l1_entries: config.rings.l1_entries,
        alert_quota_per_second: config.rings.alert_quota_per_second,
        syscalls_used: config.rings.syscalls_used,
        host: config.host,
        top: plimsoll_sensor::api::Rung::Lsm,
        without: Vec::new(),
        recorder_bytes: config.recorder.memory,
        enforcement: config.enforcement.policy.is_some(),
        pins: None,
    }
}

fn confirmer_config(config: &Config) -> ConfirmerConfig {
    let default = ConfirmerConfig::default();
    ConfirmerConfig {
        docker_sockets: config.runtimes.docker_sockets.clone(),
        containerd_sockets: config.runtimes.containerd_sockets.clone(),
        discover: default
            .discover
            .clone()
            .filter(|_| config.runtimes.discover),
        ..default
    }
}

fn response(config: &Config, kernel: &Arc<dyn Kernel>) -> Result<Beginning, RunError> {
    let policy = match &config.response.policy {
        None => None,
        Some(path) => Some((
            path.clone(),
            reload::read_text(path).map_err(|source| RunError::ReadFile {
                path: path.display().to_string(),
                source,
            })?,
        )),
    };
    let launch = match &config.notifications.file {
        None => None,
        Some(file) => {
            let user = &config.notifications.user;
            let ids = sender::user_ids(user).ok_or_else(|| RunError::NoUser(user.clone()))?;
            Some(sender::launcher(file, ids))
        }
    };
    let machine = Machine {
        docker_sockets: config.runtimes.docker_sockets.clone(),
        captures_dir: config.data_dir.join("captures"),
        freezes_dir: config.data_dir.join("freezes"),
        blocks_dir: config.data_dir.join("blocks"),
        kernel: KernelWord::of(kernel.clone()),
        node_network: None,
        program: sender::THIS_PROGRAM.into(),
        recipients: config.response.recipients.clone(),
        captures_room: config.response.captures,
        masks: match config.redaction.enabled {
            true => capture::Masks::new(redactor(config)?),
            false => capture::Masks::default(),
        },
    };
    block::restore(&machine.blocks_dir, kernel.as_ref());
    let survey = Survey::new(machine.clone());
    Ok(Beginning {
        policy,
        dry_run: config.response.dry_run,
        reach: Arc::new(move |container, others| survey.of(container, others)),
        perform: Arc::new(move |target, action| act::perform(&machine, target, action)),
        launch,
    })
}

fn sinks(config: &Config) -> Result<Vec<output::Sink>, RunError> {
    let mut sinks: Vec<output::Sink> = Vec::new();
    if let Some(format) = output::stdout_format(config.alerts.stdout) {
        sinks.push((format, Box::new(io::stdout())));
    }
    if let Some(path) = &config.alerts.file {
        sinks.push(
            output::open_file(path).map_err(|source| RunError::AlertFile {
                path: path.display().to_string(),
                source,
            })?,
        );
    }
    Ok(sinks)
}
