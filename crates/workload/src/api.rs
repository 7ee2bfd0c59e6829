//! What the runtimes themselves say: Docker and Podman, over their Unix sockets.
//!
//! An answer confirms what was on disk and never delays it. Podman speaks Docker's protocol where its
//! service runs. containerd and CRI-O are not asked in this release: their identity is what the OCI
//! bundle tells (see [`crate::disk`]), and a question about them is answered with "no answer".
//!
//! Promises: one thread; a bounded queue whose refusals are counted; every lookup ends in time; the
//! stream of events is followed again, with back-off, when a runtime goes away and comes back.

use crate::facts::{Facts, MAX_COMMAND_ARGS, MAX_LABELS, MAX_LIST, bounded, repository_of};
use crate::scan::command_line;
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions};
use futures_util::StreamExt as _;
use plimsoll_model::{ContainerId, Digest, Instance, Runtime, Text};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// What a runtime told us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiNews {
    /// An answer for one instance. Give it to [`crate::Attributor::confirmed`].
    Confirmed {
        /// Which life of which container was asked about.
        instance: Instance,
        /// What the runtime knows.
        facts: Box<Facts>,
    },
    /// A container got another name.
    Renamed {
        /// The runtime's id.
        id: plimsoll_model::ContainerId,
        /// The new name.
        name: String,
    },
    /// The runtime does not know, or did not answer in time; identity stays as disk gave it.
    NoAnswer {
        /// Which was asked about.
        instance: Instance,
        /// Why, for people.
        why: String,
    },
    /// A runtime's socket answers.
    Connected {
        /// Which runtime.
        runtime: Runtime,
        /// Its socket.
        socket: PathBuf,
    },
    /// A runtime's socket stopped answering (it is tried again with back-off).
    Disconnected {
        /// Which runtime.
        runtime: Runtime,
        /// Its socket.
        socket: PathBuf,
        /// Why, for people.
        why: String,
    },
}

/// Bounds of the lookups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmerConfig {
    /// Lookups waiting at most; more are refused and counted.
    pub queue: usize,
    /// How long one lookup may take.
    pub timeout_ms: u64,
    /// Sockets that are known beforehand (beyond those found).
    pub docker_sockets: Vec<PathBuf>,
    /// Sockets of containerd that are known beforehand.
    pub containerd_sockets: Vec<PathBuf>,
    /// Look for sockets: default paths, `DOCKER_HOST`, command lines of daemons in this `/proc`.
    pub discover: Option<PathBuf>,
}

impl Default for ConfirmerConfig {
    fn default() -> Self {
        Self {
            queue: 1024,
            timeout_ms: 3000,
            docker_sockets: Vec::new(),
            containerd_sockets: Vec::new(),
            discover: Some(PathBuf::from("/proc")),
        }
    }
}

/// Longest wait before a runtime that went away is tried again.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Sockets followed at most.
const MAX_SOCKETS: usize = 16;

/// Asks runtimes in a thread of its own.
#[derive(Debug)]
pub struct Confirmer {
    questions: mpsc::Sender<(Instance, Runtime)>,
    refused: Arc<AtomicU64>,
}

impl Confirmer {
    /// Starts the thread. `news` is called on that thread with every answer and must not block.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(
        config: ConfirmerConfig,
        news: impl FnMut(ApiNews) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (questions, asked) = mpsc::channel(config.queue.max(1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("runtimes".into())
            .spawn(move || runtime.block_on(serve(config, asked, news)))?;
        Ok(Self {
            questions,
            refused: Arc::default(),
        })
    }

    /// Asks about an instance. `false`: the queue is full (counted, see [`Self::refused`]).
    pub fn ask(&self, instance: Instance, runtime: Runtime) -> bool {
        let taken = self.questions.try_send((instance, runtime)).is_ok();
        if !taken {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Lookups refused because the queue was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Answers questions and passes on events until nobody can ask any more.
async fn serve(
    config: ConfirmerConfig,
    mut asked: mpsc::Receiver<(Instance, Runtime)>,
    mut news: impl FnMut(ApiNews),
) {
    let (tell, mut told) = mpsc::channel(256);
    let mut sockets: HashMap<PathBuf, Docker> = HashMap::new();
    let mut look_again = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            question = asked.recv() => {
                let Some((instance, runtime)) = question else { return };
                let timeout = Duration::from_millis(config.timeout_ms);
                news(answer(&sockets, instance, runtime, timeout).await);
            }
            Some(item) = told.recv() => news(item),
            _ = look_again.tick() => {
                for (socket, runtime) in find_sockets(&config) {
                    if sockets.len() >= MAX_SOCKETS || sockets.contains_key(&socket) {
                        continue;
                    }
                    let path = socket.to_string_lossy().into_owned();
                    if let Ok(docker) = Docker::connect_with_unix(&path, 10, bollard::API_DEFAULT_VERSION) {
                        tokio::spawn(follow(docker.clone(), socket.clone(), runtime, tell.clone()));
                        sockets.insert(socket, docker);
                    }
                }
            }
        }
    }
}

/// Asks each runtime that answers for this kind of container.
async fn answer(
    sockets: &HashMap<PathBuf, Docker>,
    instance: Instance,
    runtime: Runtime,
    timeout: Duration,
) -> ApiNews {
    if !matches!(runtime, Runtime::Docker | Runtime::Podman) {
        let why = format!(
            "{} is not asked in this release; its identity is what is on disk",
            runtime.as_str()
        );
        return ApiNews::NoAnswer { instance, why };
    }
    let mut why = "no socket of a runtime was found".to_owned();
    for (socket, docker) in sockets {
        let question =
            docker.inspect_container(instance.id.as_str(), None::<InspectContainerOptions>);
        match tokio::time::timeout(timeout, question).await {
            Ok(Ok(said)) => {
                return ApiNews::Confirmed {
                    instance,
                    facts: Box::new(facts_of(&said, runtime)),
                };
            }
            Ok(Err(e)) => why = bounded(&format!("{}: {e}", socket.display())),
            Err(_) => {
                why = format!(
                    "{} did not answer in {} ms",
                    socket.display(),
                    timeout.as_millis()
                )
            }
        }
    }
    ApiNews::NoAnswer { instance, why }
}

/// Follows renames of one runtime, and whether it is there.
async fn follow(docker: Docker, socket: PathBuf, runtime: Runtime, tell: mpsc::Sender<ApiNews>) {
    let mut wait = Duration::from_millis(500);
    loop {
        let why = match docker.ping().await {
            Ok(_) => {
                wait = Duration::from_millis(500);
                if tell
                    .send(ApiNews::Connected {
                        runtime,
                        socket: socket.clone(),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                let why = renames(&docker, &tell).await;
                if tell
                    .send(ApiNews::Disconnected {
                        runtime,
                        socket: socket.clone(),
                        why: why.clone(),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                why
            }
            Err(e) => e.to_string(),
        };
        drop(why);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_BACKOFF);
    }
}

async fn renames(docker: &Docker, tell: &mpsc::Sender<ApiNews>) -> String {
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("event".to_owned(), vec!["rename".to_owned()]),
    ]);
    let mut events = docker.events(Some(EventsOptions {
        filters: Some(filters),
        ..Default::default()
    }));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some(renamed) = renamed(event)
                    && tell.send(renamed).await.is_err()
                {
                    break;
                }
            }
            Err(e) => return e.to_string(),
        }
    }
    "the stream of events ended".to_owned()
}

fn renamed(event: EventMessage) -> Option<ApiNews> {
    let actor = event.actor?;
    let id = ContainerId::parse(&actor.id?).ok()?;
    let name = actor
        .attributes?
        .get("name")?
        .trim_start_matches('/')
        .to_owned();
    Some(ApiNews::Renamed {
        id,
        name: bounded(&name),
    })
}

fn facts_of(said: &ContainerInspectResponse, runtime: Runtime) -> Facts {
    let mut f = Facts {
        runtime: Some(runtime),
        ..Facts::default()
    };
    f.name = bounded(
        said.name
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches('/'),
    );
    f.image.config_digest = said.image.as_deref().and_then(|d| Digest::parse(d).ok());
    if let Some(config) = &said.config {
        f.image.name = bounded(config.image.as_deref().unwrap_or_default());
        f.image.repository = repository_of(&f.image.name);
        let labels = config.labels.iter().flatten();
        f.labels = labels
            .map(|(k, v)| (bounded(k), bounded(v)))
            .take(MAX_LABELS)
            .collect::<BTreeMap<_, _>>();
    }
    let args = said.args.iter().flatten();
    f.command = said
        .path
        .iter()
        .chain(args)
        .take(MAX_COMMAND_ARGS)
        .map(|a| Text::from(a.as_str()))
        .collect();
    let networks = said
        .network_settings
        .as_ref()
        .and_then(|n| n.networks.as_ref());
    let addresses = networks
        .into_iter()
        .flatten()
        .filter_map(|(_, n)| n.ip_address.as_deref());
    f.addresses = addresses
        .filter(|a| !a.is_empty())
        .map(bounded)
        .take(MAX_LIST)
        .collect();
    let mounts = said
        .mounts
        .iter()
        .flatten()
        .filter_map(|m| m.destination.as_deref());
    f.mounts = mounts.map(bounded).take(MAX_LIST).collect();
    f.privileged = said.host_config.as_ref().and_then(|h| h.privileged);
    f
}

/// Sockets that were given, the usual ones, and those of daemons that run.
fn find_sockets(config: &ConfirmerConfig) -> Vec<(PathBuf, Runtime)> {
    let mut found: Vec<(PathBuf, Runtime)> = config
        .docker_sockets
        .iter()
        .map(|s| (s.clone(), Runtime::Docker))
        .collect();
    if let Some(proc_root) = &config.discover {
        found.push(("/var/run/docker.sock".into(), Runtime::Docker));
        found.push(("/run/podman/podman.sock".into(), Runtime::Podman));
        found.extend(
            daemon_sockets(proc_root)
                .into_iter()
                .map(|s| (s, Runtime::Docker)),
        );
    }
    found.retain(|(s, _)| s.exists());
    found
}

/// `-H unix://PATH` and `--host=unix://PATH` of every dockerd.
fn daemon_sockets(proc_root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(proc_root) else {
        return Vec::new();
    };
    let pids = entries.flatten().filter(|e| {
        e.file_name()
            .to_str()
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    });
    let mut sockets = Vec::new();
    for entry in pids {
        let args = command_line(&entry.path());
        if args
            .first()
            .is_some_and(|a| a.rsplit('/').next() == Some("dockerd"))
        {
            let hosts = args.iter().filter_map(|a| {
                a.rsplit_once("unix://")
                    .map(|(_, path)| PathBuf::from(path))
            });
            sockets.extend(hosts);
        }
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_facts() {
        let said: ContainerInspectResponse = serde_json::from_value(serde_json::json!({
            "Name": "/web", "Image": "sha256:0011", "Path": "nginx", "Args": ["-g"],
            "Config": {"Image": "shop/web:1", "Labels": {"com.docker.swarm.service.name": "shop_web"}},
            "NetworkSettings": {"Networks": {"a": {"IPAddress": "10.0.0.2"}}},
            "HostConfig": {"Privileged": true}
        }))
        .unwrap();
        let f = facts_of(&said, Runtime::Docker);
        assert_eq!(
            (f.name.as_str(), f.role().as_str(), f.privileged),
            ("web", "shop_web", Some(true))
        );
        assert_eq!(f.image.repository.as_deref(), Some("shop/web"));
        assert_eq!(f.addresses, ["10.0.0.2"]);
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let config = ConfirmerConfig {
            queue: 1,
            discover: None,
            ..ConfirmerConfig::default()
        };
        let (questions, _kept) = mpsc::channel(config.queue);
        let c = Confirmer {
            questions,
            refused: Arc::default(),
        };
        let instance = Instance {
            id: ContainerId::parse("abc").unwrap(),
            start: plimsoll_model::BootNs(1),
        };
        assert!(c.ask(instance.clone(), Runtime::Docker));
        assert!(!c.ask(instance, Runtime::Docker));
        assert_eq!(c.refused(), 1);
    }

    /// Against a real Docker, where `scripts/test` provides one.
    #[test]
    fn a_real_docker_answers() {
        let Ok(socket) = std::env::var("PLIMSOLL_TEST_DOCKER_SOCK") else {
            return;
        };
        let docker = |args: &[&str]| {
            let out = std::process::Command::new("docker")
                .args(["-H", &format!("unix://{socket}")])
                .args(args)
                .output()
                .unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        let id = docker(&[
            "create",
            "--name",
            "api-answers",
            "plimsoll-test/busybox:1",
            "true",
        ]);
        let (tell, told) = std::sync::mpsc::channel();
        let config = ConfirmerConfig {
            docker_sockets: vec![socket.clone().into()],
            discover: None,
            ..ConfirmerConfig::default()
        };
        let confirmer = Confirmer::start(config, move |news| drop(tell.send(news))).unwrap();
        let next = || told.recv_timeout(Duration::from_secs(20)).expect("news");
        assert!(matches!(next(), ApiNews::Connected { .. }));
        let instance = Instance {
            id: ContainerId::parse(&id).unwrap(),
            start: plimsoll_model::BootNs(1),
        };
        assert!(confirmer.ask(instance, Runtime::Docker));
        let ApiNews::Confirmed { facts, .. } = next() else {
            panic!("not confirmed")
        };
        assert_eq!(facts.name, "api-answers");
        assert!(facts.image.config_digest.is_some());
        docker(&["rename", "api-answers", "api-renamed"]);
        assert!(matches!(next(), ApiNews::Renamed { name, .. } if name == "api-renamed"));
        docker(&["rm", "-f", "api-renamed"]);
    }
}
