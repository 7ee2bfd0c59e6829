//! Configuration: the YAML file and the command line, resolved into a [`Config`] that is valid.
//!
//! Promises: no file is needed, every key has a default. What is wrong is said with file, line,
//! column, what was expected and what was found; an unknown key is wrong, and the nearest known
//! one is named. Values are bounded. Left out: reloading while running, and any look at the
//! machine (that a path exists is found out by whoever uses it). The keys are documented in
//! `docs/guide/configuration.md`.

use crate::inbox;
use crate::respond::capture::Room;
use crate::rules::RuleSources;
use plimsoll_baseline::LearnConfig;
use plimsoll_model::NodeId;
use plimsoll_rules::MatchMode;
use plimsoll_settings::{Fault, Section, parse};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/plimsoll/config.yaml";
/// A configuration file is at most this long.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Where everything is kept.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/plimsoll";

/// What the agent does, resolved and valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the node (`None`: the machine id).
    pub node: Option<NodeId>,
    /// Where journal and baselines are kept.
    pub data_dir: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Group whose members may ask and decide (`None`: root only).
    pub socket_group: Option<String>,
    /// Watch processes outside containers too.
    pub host: bool,
    /// The kernel side.
    pub rings: Rings,
    /// Whether the kernel side goes on without an agent.
    pub hooks: HooksConfig,
    /// The minutes before an alert.
    pub recorder: RecorderConfig,
    /// Room between the rings and the pipeline.
    pub queues: inbox::Bounds,
    /// How baselines learn.
    pub learning: LearnConfig,
    /// The journal.
    pub journal: JournalConfig,
    /// Where alerts are shown.
    pub alerts: AlertOutputs,
    /// Where runtimes are asked.
    pub runtimes: Runtimes,
    /// How secrets are masked.
    pub redaction: Redaction,
    /// What is done about alerts.
    pub response: ResponseConfig,
    /// Nice value of the threads between an act and its alert, -20 to 0 (0: like everybody else).
    pub nice: i32,
    /// These threads go before everybody's nice value, where any of them is raised.
    pub real_time: bool,
    /// Which containers are held to their baseline.
    pub enforcement: EnforcementConfig,
    /// Who is told of them.
    pub notifications: Notifications,
    /// Where rules come from.
    pub rules: RuleSources,
}

/// The in-kernel recorder, and what follows an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Memory on the node, bytes (0: nothing is recorded).
    pub memory: u32,
    /// A container streams in full for this long after its last alert, seconds (0: it does not).
    pub stream_seconds: u32,
    /// Uses that one stream keeps at most.
    pub stream_uses: u32,
}

/// What of the kernel side outlives an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksConfig {
    /// Pinned for the next agent, so that a crash or an upgrade leaves no blind moment.
    pub pin: bool,
    /// On a bpffs; each agent has a directory of its own below.
    pub directory: PathBuf,
    /// SIGTERM leaves them for the next agent; else they are taken out, as with SIGINT.
    pub keep_on_stop: bool,
    /// So long they go on recording without an agent; then they do nothing until one replaces them.
    pub keep_for: Duration,
    /// So long they stay loaded without an agent, with what they recorded; never shorter than `keep_for`.
    pub remove_after: Duration,
}

/// Sizes on the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Bulk ring.
    pub bulk_bytes: u32,
    /// Ring of alert-class events.
    pub alert_bytes: u32,
    /// First-level entries, node-wide.
    pub l1_entries: u32,
    /// Alert-class events a second and container before the bulk ring takes them.
    pub alert_quota_per_second: u32,
    /// Collect the system calls used.
    pub syscalls_used: bool,
}

/// The journal's knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Ordinary records become durable at most this late.
    pub group_commit: Duration,
    /// Room kept for alerts on a full disk.
    pub emergency_bytes: u64,
    /// Payloads of observations older than this are removed (`None`: never).
    pub max_age: Option<Duration>,
    /// Payloads beyond this are removed, oldest observations first.
    pub max_bytes: u64,
}

/// How alerts look on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdout {
    /// Lines for people on a terminal, JSON lines otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// JSON lines.
    Json,
    /// Nothing.
    Off,
}

/// Where alerts are shown besides the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertOutputs {
    /// Standard output.
    pub stdout: Stdout,
    /// A file of JSON lines, appended to.
    pub file: Option<PathBuf>,
}

/// How secrets in arguments are masked, before judging and storing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// It is done at all.
    pub enabled: bool,
    /// What looks random is masked, too.
    pub entropy: bool,
    /// Names and regular expressions of own rules; they compile.
    pub patterns: Vec<(String, String)>,
}

/// Where runtimes are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtimes {
    /// Sockets of Docker or Podman, beyond those found.
    pub docker_sockets: Vec<PathBuf>,
    /// Sockets of containerd, beyond those found.
    pub containerd_sockets: Vec<PathBuf>,
    /// Look for sockets and roots of running daemons.
    pub discover: bool,
}

/// What is done about alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseConfig {
    /// The policy file (`None`: nothing is done about alerts).
    pub policy: Option<PathBuf>,
    /// Every plan is a dry run, whatever the policy says.
    pub dry_run: bool,
    /// Keys to which captures are encrypted (age x25519 recipients).
    pub recipients: Vec<String>,
    /// What captures may fill.
    pub captures: Room,
}

/// Which containers are held to their baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnforcementConfig {
    /// The policy file, read again when it changes (`None`: nothing is enforced).
    pub policy: Option<PathBuf>,
}

/// Who is told of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// The file of receivers (`None`: nobody is told). Read by the sender, never by the agent.
    pub file: Option<PathBuf>,
    /// The user as whom the sender runs.
    pub user: String,
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--node`
    pub node: Option<NodeId>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--host`
    pub host: bool,
    /// `--dry-run`
    pub dry_run: bool,
    /// `--json`, or what the command needs.
    pub stdout: Option<Stdout>,
    /// `--rules`; empty: as the file says.
    pub rules: Vec<PathBuf>,
    /// `--pins`; an empty path: they are not pinned.
    pub pins: Option<PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot read it: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What was expected and what was found.
        message: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            data_dir: DEFAULT_DATA_DIR.into(),
            socket: plimsoll_api::protocol::DEFAULT_SOCKET.into(),
            socket_group: None,
            host: false,
            recorder: RecorderConfig {
                memory: 64 << 20,
                stream_seconds: 120,
                stream_uses: 50_000,
            },
            hooks: HooksConfig {
                pin: true,
                directory: "/sys/fs/bpf/plimsoll".into(),
                keep_on_stop: true,
                keep_for: Duration::from_secs(300),
                remove_after: Duration::from_secs(3600),
            },
            rings: Rings {
                bulk_bytes: 16 << 20,
                alert_bytes: 4 << 20,
                l1_entries: 1 << 17,
                alert_quota_per_second: 4096,
                syscalls_used: true,
            },
            queues: inbox::Bounds::default(),
            learning: LearnConfig::default(),
            journal: JournalConfig {
                group_commit: Duration::from_millis(50),
                emergency_bytes: 16 << 20,
                max_age: Some(Duration::from_secs(30 * 86_400)),
                max_bytes: 10 << 30,
            },
            alerts: AlertOutputs {
                stdout: Stdout::Auto,
                file: None,
            },
            redaction: Redaction {
                enabled: true,
                entropy: true,
                patterns: Vec::new(),
            },
            response: ResponseConfig::default(),
            nice: -10,
            real_time: true,
            enforcement: EnforcementConfig::default(),
            notifications: Notifications {
                file: None,
                user: "nobody".to_owned(),
            },
            runtimes: Runtimes {
                docker_sockets: Vec::new(),
                containerd_sockets: Vec::new(),
                discover: true,
            },
            rules: RuleSources::default(),
        }
    }
}

impl Config {
    /// The file and the command line together. Without `path` the default file is read if there
    /// is one; a file that was named has to be there.
    ///
    /// # Errors
    /// When the file cannot be read or says something that is not understood.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let config = match read_bounded(file) {
            Ok(text) => Self::parse(&text, file)?,
            Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: file.to_owned(),
                    source,
                });
            }
        };
        Ok(config.overridden(overrides))
    }

    /// Reads a configuration's text; `path` names it in messages.
    ///
    /// # Errors
    /// When the text says something that is not understood.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        resolve(text).map_err(|fault| ConfigError::Malformed {
            path: path.to_owned(),
            line: fault.at.line,
            column: fault.at.column,
            message: fault.message,
        })
    }

    fn overridden(mut self, o: Overrides) -> Self {
        self.node = o.node.or(self.node);
        self.data_dir = o.data_dir.unwrap_or(self.data_dir);
        self.socket = o.socket.unwrap_or(self.socket);
        self.host |= o.host;
        self.response.dry_run |= o.dry_run;
        self.alerts.stdout = o.stdout.unwrap_or(self.alerts.stdout);
        if let Some(directory) = o.pins {
            self.hooks.pin = !directory.as_os_str().is_empty();
            self.hooks.directory = directory;
        }
        if !o.rules.is_empty() {
            self.rules.paths = o.rules;
            self.rules.named = true;
        }
        self
    }

    /// Where this agent's kernel side is pinned: a place for each data directory.
    pub fn hooks_dir(&self) -> PathBuf {
        let dir = std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        // FNV-1a: the same name from every build
        let bytes = dir.as_os_str().as_encoded_bytes();
        let name = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
        self.hooks.directory.join(format!("{name:016x}"))
    }
    /// Where the journal lies.
    pub fn journal_dir(&self) -> PathBuf {
        plimsoll_api::storage::journal_dir(&self.data_dir)
    }
    /// Where the secret keys of checkpoints lie.
    pub fn keys_dir(&self) -> PathBuf {
        plimsoll_api::storage::keys_dir(&self.data_dir)
    }
    /// The switch of enforcement for the whole node: while this file is there, nothing is prevented.
    pub fn enforcement_off(&self) -> PathBuf {
        self.data_dir.join("enforcement.off")
    }
    /// Where baselines lie.
    pub fn baselines_dir(&self) -> PathBuf {
        self.data_dir.join("baselines")
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn resolve(text: &str) -> Result<Config, Fault> {
    let default = Config::default();
    let Some(root) = parse(text, MAX_FILE_BYTES)? else {
        return Ok(default);
    };
    let file = Section::new(
        Some(&root),
        "",
        &[
            "version",
            "node",
            "data_dir",
            "socket",
            "socket_group",
            "host",
            "rings",
            "hooks",
            "recorder",
            "queues",
            "learning",
            "journal",
            "alerts",
            "runtimes",
            "redaction",
            "rules",
            "response",
            "scheduling",
            "enforcement",
            "notifications",
        ],
    )?;
    file.must_be("version", "1")?;
    let (nice, real_time) = scheduling(&file, &default)?;
    Ok(Config {
        node: file.text(
            "node",
            "a name of letters, digits, \"-\", \"_\", \".\" and \":\"",
            |t| NodeId::parse(t).ok(),
        )?,
        data_dir: file.path("data_dir")?.unwrap_or(default.data_dir),
        socket: file
            .text("socket", "an absolute path of at most 100 bytes", |t| {
                (t.starts_with('/') && t.len() <= 100).then(|| t.into())
            })?
            .unwrap_or(default.socket),
        socket_group: file.text("socket_group", "the name of a group", |t| {
            let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            (!t.is_empty() && t.len() <= 64 && t.bytes().all(ok)).then(|| t.to_owned())
        })?,
        host: file.flag("host", default.host)?,
        rings: rings(&file, default.rings)?,
        hooks: hooks(&file, default.hooks)?,
        recorder: recorder(&file, default.recorder)?,
        queues: queues(&file, default.queues)?,
        learning: learning(&file, default.learning)?,
        journal: journal(&file, default.journal)?,
        alerts: alerts(&file, &default.alerts)?,
        runtimes: runtimes(&file, &default.runtimes)?,
        redaction: redaction(&file, &default.redaction)?,
        rules: rules(&file, default.rules)?,
        response: response(&file)?,
        nice,
        real_time,
        enforcement: EnforcementConfig {
            policy: file.section("enforcement", &["policy"])?.path("policy")?,
        },
        notifications: notifications(&file, &default.notifications)?,
    })
}

fn rings(file: &Section<'_>, default: Rings) -> Result<Rings, Fault> {
    let s = file.section(
        "rings",
        &[
            "bulk_bytes",
            "alert_bytes",
            "l1_entries",
            "alert_quota_per_second",
            "syscalls_used",
        ],
    )?;
    Ok(Rings {
        bulk_bytes: s.ring_bytes("bulk_bytes", 64 << 10..=1 << 30, default.bulk_bytes)?,
        alert_bytes: s.ring_bytes("alert_bytes", 64 << 10..=256 << 20, default.alert_bytes)?,
        l1_entries: s.number("l1_entries", 1024..=4 << 20, default.l1_entries.into())? as u32,
        alert_quota_per_second: s.number(
            "alert_quota_per_second",
            16..=1_000_000,
            default.alert_quota_per_second.into(),
        )? as u32,
        syscalls_used: s.flag("syscalls_used", default.syscalls_used)?,
    })
}

fn hooks(file: &Section<'_>, default: HooksConfig) -> Result<HooksConfig, Fault> {
    let keys = ["pin", "directory", "on_stop", "keep_for", "remove_after"];
    let s = file.section("hooks", &keys)?;
    let words = [("keep", true), ("remove", false)];
    let keep_for = s.time("keep_for", 30..=86_400, default.keep_for)?;
    let remove_after = s.time("remove_after", 30..=604_800, default.remove_after)?;
    Ok(HooksConfig {
        pin: s.flag("pin", default.pin)?,
        directory: s.path("directory")?.unwrap_or(default.directory),
        keep_on_stop: s.word("on_stop", &words, default.keep_on_stop)?,
        keep_for,
        remove_after: remove_after.max(keep_for),
    })
}

fn scheduling(file: &Section<'_>, default: &Config) -> Result<(i32, bool), Fault> {
    let s = file.section("scheduling", &["nice", "real_time"])?;
    let nice = s.text("nice", "a nice value from -20 to 0", |t| {
        t.parse().ok().filter(|n| (-20..=0).contains(n))
    })?;
    let real_time = s.flag("real_time", default.real_time)?;
    Ok((nice.unwrap_or(default.nice), real_time))
}

fn recorder(file: &Section<'_>, default: RecorderConfig) -> Result<RecorderConfig, Fault> {
    let s = file.section("recorder", &["memory", "stream_seconds", "stream_uses"])?;
    let number = |key, bounds, default: u32| s.number(key, bounds, default.into());
    Ok(RecorderConfig {
        memory: s.bytes("memory", 0..=1 << 30, default.memory.into())? as u32,
        stream_seconds: number("stream_seconds", 0..=86_400, default.stream_seconds)? as u32,
        stream_uses: number("stream_uses", 1000..=10_000_000, default.stream_uses)? as u32,
    })
}

fn queues(file: &Section<'_>, default: inbox::Bounds) -> Result<inbox::Bounds, Fault> {
    let s = file.section(
        "queues",
        &["bulk_events", "tree_events", "alert_events", "bytes"],
    )?;
    let events = |key, default: usize| s.number(key, 256..=262_144, default as u64);
    Ok(inbox::Bounds {
        bulk_events: events("bulk_events", default.bulk_events)? as usize,
        tree_events: events("tree_events", default.tree_events)? as usize,
        alert_events: events("alert_events", default.alert_events)? as usize,
        bytes: s.bytes("bytes", 1 << 20..=1 << 30, default.bytes as u64)? as usize,
    })
}

fn learning(file: &Section<'_>, default: LearnConfig) -> Result<LearnConfig, Fault> {
    let s = file.section(
        "learning",
        &[
            "slot_seconds",
            "startup_seconds",
            "ready_coverage",
            "min_starts",
            "min_steady_slots",
            "min_units",
            "min_siblings",
            "min_directory_siblings",
            "max_behaviours",
            "max_pending",
        ],
    )?;
    let number =
        |key, bounds, default: u32| Ok::<_, Fault>(s.number(key, bounds, default.into())? as u32);
    Ok(LearnConfig {
        slot_seconds: number("slot_seconds", 1..=86_400, default.slot_seconds)?,
        startup_seconds: number("startup_seconds", 0..=86_400, default.startup_seconds)?,
        min_coverage_permille: s
            .permille("ready_coverage", 500..=1000)?
            .unwrap_or(default.min_coverage_permille),
        min_starts: number("min_starts", 0..=1000, default.min_starts)?,
        min_steady_slots: number("min_steady_slots", 0..=100_000, default.min_steady_slots)?,
        min_units: number("min_units", 1..=1_000_000, default.min_units)?,
        min_siblings: number("min_siblings", 3..=10_000, default.min_siblings)?,
        min_directory_siblings: number(
            "min_directory_siblings",
            3..=10_000,
            default.min_directory_siblings,
        )?,
        max_behaviours: number("max_behaviours", 100..=1_000_000, default.max_behaviours)?,
        max_pending: number("max_pending", 10..=100_000, default.max_pending)?,
    }
    .checked())
}

fn journal(file: &Section<'_>, default: JournalConfig) -> Result<JournalConfig, Fault> {
    let s = file.section(
        "journal",
        &["group_commit_ms", "emergency_bytes", "max_age", "max_bytes"],
    )?;
    Ok(JournalConfig {
        group_commit: Duration::from_millis(s.number(
            "group_commit_ms",
            1..=10_000,
            default.group_commit.as_millis() as u64,
        )?),
        emergency_bytes: s.bytes(
            "emergency_bytes",
            64 << 10..=1 << 30,
            default.emergency_bytes,
        )?,
        max_age: s.age("max_age", 3600..=100 * 366 * 86_400, default.max_age)?,
        max_bytes: s.bytes("max_bytes", 64 << 20..=1 << 50, default.max_bytes)?,
    })
}

fn alerts(file: &Section<'_>, default: &AlertOutputs) -> Result<AlertOutputs, Fault> {
    let s = file.section("alerts", &["stdout", "file"])?;
    let words = [
        ("auto", Stdout::Auto),
        ("text", Stdout::Text),
        ("json", Stdout::Json),
        ("off", Stdout::Off),
    ];
    Ok(AlertOutputs {
        stdout: s.word("stdout", &words, default.stdout)?,
        file: s.path("file")?,
    })
}

fn runtimes(file: &Section<'_>, default: &Runtimes) -> Result<Runtimes, Fault> {
    let s = file.section(
        "runtimes",
        &["docker_sockets", "containerd_sockets", "discover"],
    )?;
    Ok(Runtimes {
        docker_sockets: s.paths("docker_sockets")?,
        containerd_sockets: s.paths("containerd_sockets")?,
        discover: s.flag("discover", default.discover)?,
    })
}

fn redaction(file: &Section<'_>, default: &Redaction) -> Result<Redaction, Fault> {
    let s = file.section("redaction", &["enabled", "entropy", "patterns"])?;
    let compiles = |name: &str, form: &str| {
        let added = plimsoll_workload::Redactor::off().add(name, form);
        added.map_err(|e| e.why)
    };
    Ok(Redaction {
        enabled: s.flag("enabled", default.enabled)?,
        entropy: s.flag("entropy", default.entropy)?,
        patterns: s.named("patterns", compiles)?,
    })
}

fn response(file: &Section<'_>) -> Result<ResponseConfig, Fault> {
    let s = file.section("response", &["policy", "dry_run", "recipients", "captures"])?;
    let captures = s.section("captures", &["max_bytes", "min_free"])?;
    let room = Room::default();
    let recipient = |t: &str| {
        t.parse::<age::x25519::Recipient>()
            .ok()
            .map(|r| r.to_string())
    };
    Ok(ResponseConfig {
        policy: s.path("policy")?,
        dry_run: s.flag("dry_run", false)?,
        recipients: s.list_of(
            "recipients",
            "age recipients",
            "an age recipient (age1…)",
            recipient,
        )?,
        captures: Room {
            max_bytes: captures.bytes("max_bytes", 16 << 20..=1 << 50, room.max_bytes)?,
            min_free: captures.bytes("min_free", 0..=1 << 50, room.min_free)?,
        },
    })
}

fn notifications(file: &Section<'_>, default: &Notifications) -> Result<Notifications, Fault> {
    let s = file.section("notifications", &["file", "user"])?;
    let name = |t: &str| (!t.is_empty() && t.len() <= 64).then(|| t.to_owned());
    Ok(Notifications {
        file: s.path("file")?,
        user: s
            .text("user", "the name of a user", name)?
            .unwrap_or_else(|| default.user.clone()),
    })
}

fn rules(file: &Section<'_>, default: RuleSources) -> Result<RuleSources, Fault> {
    let s = file.section("rules", &["builtin", "paths", "match"])?;
    let words = [("all", MatchMode::All), ("first", MatchMode::First)];
    let paths = s.paths("paths")?;
    Ok(RuleSources {
        builtin: s.flag("builtin", default.builtin)?,
        paths: match paths.is_empty() {
            true => default.paths,
            false => paths,
        },
        named: false,
        match_mode: s.word("match", &words, default.match_mode)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = Config::parse(text, Path::new("c.yaml")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn no_file_and_an_empty_file_are_the_defaults() {
        for text in ["", "# nothing\n", "version: 1\n", "version: 1\nrings:\n"] {
            assert_eq!(
                Config::parse(text, Path::new("c")).unwrap(),
                Config::default()
            );
        }
    }

    #[test]
    fn every_key_is_taken() {
        let text = "version: 1
node: web-7
data_dir: /srv/plimsoll
socket: /run/p.sock
socket_group: ops
host: true
rings: { bulk_bytes: 32MiB, alert_bytes: 8MiB, l1_entries: 65_536, alert_quota_per_second: 100, syscalls_used: false }
queues: { bulk_events: 1000, tree_events: 1000, alert_events: 1000, bytes: 8MiB }
learning: { slot_seconds: 10, startup_seconds: 5, ready_coverage: 0.95, min_starts: 1, min_steady_slots: 3, min_units: 5, min_siblings: 9, min_directory_siblings: 33, max_behaviours: 500, max_pending: 50 }
journal: { group_commit_ms: 5, emergency_bytes: 1MiB, max_age: never, max_bytes: 1GiB }
alerts: { stdout: json, file: /var/log/alerts.json }
runtimes: { docker_sockets: [/run/d.sock], containerd_sockets: [/run/c.sock], discover: false }
redaction: { entropy: false, patterns: { badge: 'badge [0-9]+' } }
rules: { builtin: false, paths: [/srv/rules], match: first }
enforcement: { policy: /etc/plimsoll/enforcement.yaml }
response: { dry_run: true, captures: { max_bytes: 3GiB, min_free: 500MiB } }
hooks: { pin: true, directory: /srv/bpf, on_stop: remove, keep_for: 90s, remove_after: 30s }
scheduling: { nice: -5, real_time: false }
";
        let c = Config::parse(text, Path::new("c")).unwrap();
        assert_eq!(c.node, NodeId::parse("web-7").ok());
        assert_eq!(c.rings.bulk_bytes, 32 << 20);
        assert_eq!(c.learning.min_coverage_permille, 950);
        assert_eq!(c.journal.max_age, None);
        assert_eq!(c.alerts.stdout, Stdout::Json);
        assert_eq!(c.runtimes.docker_sockets, [PathBuf::from("/run/d.sock")]);
        assert_eq!(
            c.redaction.patterns,
            [("badge".to_owned(), "badge [0-9]+".to_owned())]
        );
        assert!(!c.redaction.entropy);
        let room = Room {
            max_bytes: 3 << 30,
            min_free: 500 << 20,
        };
        assert_eq!((c.response.captures, c.response.dry_run), (room, true));
        assert_eq!(c.rules.paths, [PathBuf::from("/srv/rules")]);
        assert_eq!(
            (c.rules.builtin, c.rules.match_mode),
            (false, MatchMode::First)
        );
        let policy = c.enforcement.policy.as_deref();
        assert_eq!(policy, Some(Path::new("/etc/plimsoll/enforcement.yaml")));
        let hooks = HooksConfig {
            pin: true,
            directory: "/srv/bpf".into(),
            keep_on_stop: false,
            keep_for: Duration::from_secs(90),
            remove_after: Duration::from_secs(90),
        };
        assert_eq!(c.hooks, hooks);
        assert_eq!((c.nice, c.real_time), (-5, false));
        assert!(c.host && !c.rings.syscalls_used && !c.runtimes.discover);
    }

    #[test]
    fn malformed_config_names_line_and_expectation() {
        check(
            "version: 1\nrings:\n  bulk_bytes: 3MiB\n",
            "c.yaml:3:15: rings.bulk_bytes: expected a power of two from 64KiB to 1GiB (such as 16MiB), found \"3MiB\"",
        );
        check(
            "version: 1\nhost: maybe\n",
            "c.yaml:2:7: host: expected true or false, found \"maybe\"",
        );
        check(
            "version: 1\nlearning: fast\n",
            "c.yaml:2:11: learning: expected a section with slot_seconds, startup_seconds, ready_coverage, min_starts, min_steady_slots, min_units, min_siblings, min_directory_siblings, max_behaviours or max_pending, found \"fast\"",
        );
        check(
            "host: true\n",
            "c.yaml:1:1: expected \"version: 1\", which says how to read the rest",
        );
        check(
            "version: 2\n",
            "c.yaml:1:10: version: expected 1, found \"2\"",
        );
        check(
            "version: 1\ndata_dir: var\n",
            "c.yaml:2:11: data_dir: expected an absolute path, found \"var\"",
        );
    }

    #[test]
    fn an_unknown_key_names_its_nearest_neighbour() {
        check(
            "version: 1\njournal:\n  max_agee: 3d\n",
            "c.yaml:3:3: unknown key \"max_agee\" in journal: did you mean \"max_age\"?",
        );
        check(
            "version: 1\nalerts: {colour: red}\n",
            "c.yaml:2:10: unknown key \"colour\" in alerts: expected stdout or file",
        );
    }

    #[test]
    fn broken_yaml_names_its_place() {
        let error = Config::parse("version: 1\nrings: {\n", Path::new("c.yaml")).unwrap_err();
        assert!(error.to_string().starts_with("c.yaml:"), "{error}");
        assert!(error.to_string().contains("not YAML"), "{error}");
    }

    #[test]
    fn the_command_line_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, "version: 1\ndata_dir: /a\n").unwrap();
        let overrides = Overrides {
            data_dir: Some("/b".into()),
            stdout: Some(Stdout::Json),
            ..Overrides::default()
        };
        let c = Config::load(Some(&file), overrides).unwrap();
        assert_eq!((c.data_dir, c.alerts.stdout), ("/b".into(), Stdout::Json));
    }

    #[test]
    fn a_named_file_has_to_be_there() {
        let missing = Path::new("/nonexistent/plimsoll.yaml");
        assert!(Config::load(Some(missing), Overrides::default()).is_err());
    }
}
