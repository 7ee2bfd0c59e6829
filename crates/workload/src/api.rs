//! What the runtimes themselves say: Docker, Podman and containerd, over their Unix sockets.
//!
//! Podman speaks Docker's protocol where its service runs. For Docker and Podman an answer confirms
//! what was on disk and never delays it; containerd alone knows which image a container was made
//! from, so that its answer is waited for (see [`crate::Attributor`], bounded). CRI-O is not asked:
//! its OCI bundle tells everything. Such a question is answered with "no answer".
//!
//! Promises: one thread; a bounded queue whose refusals are counted; a bounded number of lookups at a
//! time, so that one runtime that hangs does not hold up the others; every lookup ends in time; the
//! stream of events is followed again, with back-off, when a runtime goes away and comes back.

mod containerd;

use crate::disk::options;
use crate::facts::{
    Facts, MAX_COMMAND_ARGS, MAX_LABELS, MAX_LIST, bounded, can_be_asked, repository_of,
};
use crate::scan::command_line;
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions};
use containerd::Containerd;
use futures_util::StreamExt as _;
use plimsoll_model::{ContainerId, Digest, Instance, MountPoint, Runtime, Text};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// What a runtime is asked about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which life of which container.
    pub instance: Instance,
    /// Whom to ask.
    pub runtime: Runtime,
    /// Path of its root cgroup: tells containers of one id in two namespaces apart.
    pub cgroup_path: String,
}

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
    /// A container has begun, or has joined or left a network: what was told of it before may be
    /// old. Give it to [`crate::Attributor::changed`].
    Changed {
        /// The runtime's id.
        id: plimsoll_model::ContainerId,
    },
    /// The runtime does not know, or did not answer in time; identity stays as disk gave it.
    NoAnswer {
        /// Which was asked about.
        instance: Instance,
        /// Why, for people.
        why: String,
        /// It was only late, is asked again, and what it says comes later.
        late: bool,
    },
    /// A runtime's socket answers.
    Connected {
        /// Which runtime.
        runtime: Runtime,
        /// Its socket.
        socket: PathBuf,
        /// It had answered before: what happened between was not heard.
        again: bool,
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
/// How often a runtime that was late is asked about the same container again, with waits of 1, 2, 4
/// … seconds between.
const ASK_AGAIN: u32 = 5;
/// Containers that wait for being asked about again, at most.
const MAX_WAITING: usize = 256;
/// Sockets followed at most.
const MAX_SOCKETS: usize = 16;
/// Lookups under way at a time.
const MAX_LOOKUPS: usize = 32;
/// Sockets are looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And at most this often when a question finds none.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// Asks runtimes in a thread of its own.
#[derive(Debug)]
pub struct Confirmer {
    questions: mpsc::Sender<Question>,
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
    pub fn ask(&self, question: Question) -> bool {
        let taken = self.questions.try_send(question).is_ok();
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

/// Somebody who can be asked.
#[derive(Clone, Debug)]
enum Client {
    Docker(Docker),
    Containerd(Containerd),
}

/// The sockets in use, and when they were last looked for.
struct Sockets {
    config: ConfirmerConfig,
    known: HashMap<PathBuf, (Runtime, Client)>,
    looked: Option<Instant>,
}

impl Sockets {
    fn look(&mut self, tell: &mpsc::Sender<ApiNews>) {
        self.looked = Some(Instant::now());
        self.known.retain(|socket, _| socket.exists());
        for (socket, runtime) in find_sockets(&self.config) {
            if self.known.len() >= MAX_SOCKETS || self.known.contains_key(&socket) {
                continue;
            }
            let client = match runtime {
                Runtime::Containerd => Containerd::at(&socket).map(Client::Containerd),
                _ => {
                    let path = socket.to_string_lossy();
                    Docker::connect_with_unix(&path, 10, bollard::API_DEFAULT_VERSION)
                        .ok()
                        .map(Client::Docker)
                }
            };
            let Some(client) = client else { continue };
            let followed = follow(client.clone(), socket.clone(), runtime, tell.clone());
            tokio::spawn(followed);
            self.known.insert(socket, (runtime, client));
        }
    }

    /// Who may answer for this runtime, the most likely first.
    fn of(&mut self, runtime: Runtime, tell: &mpsc::Sender<ApiNews>) -> Vec<(PathBuf, Client)> {
        let speaks = |client: &Client| match client {
            Client::Docker(_) => matches!(runtime, Runtime::Docker | Runtime::Podman),
            Client::Containerd(_) => runtime == Runtime::Containerd,
        };
        let recent = |at: &Instant| at.elapsed() < LOOK_AT_MOST_EVERY;
        if !self.known.values().any(|(_, c)| speaks(c)) && !self.looked.as_ref().is_some_and(recent)
        {
            self.look(tell);
        }
        let fitting = self.known.iter().filter(|(_, (_, c))| speaks(c));
        let mut found: Vec<_> = fitting
            .map(|(socket, (r, c))| (*r != runtime, socket.clone(), c.clone()))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        found
            .into_iter()
            .map(|(_, socket, c)| (socket, c))
            .collect()
    }
}

/// Answers questions and passes on events until nobody can ask any more.
async fn serve(
    config: ConfirmerConfig,
    mut asked: mpsc::Receiver<Question>,
    mut news: impl FnMut(ApiNews),
) {
    let (tell, mut told) = mpsc::channel(256);
    let timeout = Duration::from_millis(config.timeout_ms);
    let mut sockets = Sockets {
        config,
        known: HashMap::new(),
        looked: None,
    };
    let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    let mut look_again = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            question = asked.recv(), if lookups.available_permits() > 0 => {
                let Some(question) = question else { return };
                let clients = sockets.of(question.runtime, &tell);
                let (lookups, waiting) = (lookups.clone(), waiting.clone());
                let tell = tell.clone();
                let permit = lookups.clone().try_acquire_owned();
                tokio::spawn(async move {
                    let mut news = answer(&clients, &question, timeout).await;
                    drop(permit);
                    let is_late = |n: &ApiNews| matches!(n, ApiNews::NoAnswer { late: true, .. });
                    let waits = is_late(&news).then(|| waiting.try_acquire_owned().ok());
                    let waits = waits.flatten();
                    for n in 0..=ASK_AGAIN {
                        if let ApiNews::NoAnswer { late, .. } = &mut news {
                            *late &= waits.is_some() && n < ASK_AGAIN;
                        }
                        let again = is_late(&news);
                        // the receiver ends with the thread only
                        let _ = tell.send(news).await;
                        if !again {
                            break;
                        }
                        tokio::time::sleep(Duration::from_secs(1 << n)).await;
                        let _permit = lookups.acquire().await;
                        news = answer(&clients, &question, timeout).await;
                    }
                });
            }
            Some(item) = told.recv() => news(item),
            _ = look_again.tick() => sockets.look(&tell),
        }
    }
}

/// Why a runtime gave no facts.
enum Silence {
    /// It does not know the container.
    Unknown(String),
    /// It was not to be had, or too late: it may know.
    Late(String),
}

/// Asks each runtime that may answer; `timeout` bounds all of them together.
async fn answer(clients: &[(PathBuf, Client)], question: &Question, timeout: Duration) -> ApiNews {
    let instance = question.instance.clone();
    let runtime = question.runtime.as_str();
    let mut why = match can_be_asked(question.runtime) {
        true => format!("no socket of {runtime} was found"),
        false => format!("{runtime} is not asked; its identity is what is on disk"),
    };
    let mut late = false;
    let end = Instant::now() + timeout;
    for (socket, client) in clients {
        let said = match tokio::time::timeout_at(end, ask(client, question)).await {
            Ok(Ok(facts)) => {
                let facts = Box::new(facts);
                return ApiNews::Confirmed { instance, facts };
            }
            Ok(Err(Silence::Unknown(e))) => e,
            Ok(Err(Silence::Late(e))) => {
                late = true;
                e
            }
            Err(_) => {
                let ms = timeout.as_millis();
                why = format!("{} did not answer in {ms} ms", socket.display());
                late = true;
                break;
            }
        };
        why = bounded(&format!("{}: {said}", socket.display()));
    }
    ApiNews::NoAnswer {
        instance,
        why,
        late,
    }
}

async fn ask(client: &Client, question: &Question) -> Result<Facts, Silence> {
    use bollard::errors::Error::DockerResponseServerError as Refused;
    let id = question.instance.id.as_str();
    match client {
        Client::Docker(docker) => docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
            .map(|said| facts_of(&said, question.runtime))
            .map_err(|e| match &e {
                Refused { status_code, .. } if (400..500).contains(status_code) => {
                    Silence::Unknown(e.to_string())
                }
                _ => Silence::Late(e.to_string()),
            }),
        Client::Containerd(containerd) => match containerd.facts(id, &question.cgroup_path).await {
            Ok(Some(facts)) => Ok(facts),
            // removed so soon that the word of its making comes later
            Ok(None) => Err(Silence::Late(
                "this containerd does not know the container".to_owned(),
            )),
            Err(status) => Err(Silence::Late(format!(
                "{}: {}",
                status.code(),
                status.message()
            ))),
        },
    }
}

impl Client {
    /// Whether it answers.
    async fn ping(&self) -> Result<(), String> {
        match self {
            Client::Docker(docker) => docker.ping().await.map(drop).map_err(|e| e.to_string()),
            Client::Containerd(containerd) => containerd.ping().await,
        }
    }

    /// Hears of what happens to its containers until it ends; gives why it did.
    async fn changes(&self, tell: &mpsc::Sender<ApiNews>) -> String {
        match self {
            Client::Docker(docker) => changes(docker, tell).await,
            Client::Containerd(containerd) => containerd.remember_made().await,
        }
    }
}

/// Follows what happens to the containers of one runtime, and whether it is there.
async fn follow(client: Client, socket: PathBuf, runtime: Runtime, tell: mpsc::Sender<ApiNews>) {
    let mut wait = Duration::from_millis(500);
    let mut again = false;
    loop {
        if client.ping().await.is_ok() {
            wait = Duration::from_millis(500);
            let connected = ApiNews::Connected {
                runtime,
                socket: socket.clone(),
                again,
            };
            if tell.send(connected).await.is_err() {
                return;
            }
            again = true;
            let disconnected = ApiNews::Disconnected {
                runtime,
                socket: socket.clone(),
                why: client.changes(&tell).await,
            };
            if tell.send(disconnected).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_BACKOFF);
    }
}

async fn changes(docker: &Docker, tell: &mpsc::Sender<ApiNews>) -> String {
    let wanted = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    let filters = HashMap::from([
        ("type".to_owned(), wanted(&["container", "network"])),
        (
            "event".to_owned(),
            wanted(&["rename", "start", "connect", "disconnect"]),
        ),
    ]);
    let mut events = docker.events(Some(EventsOptions {
        filters: Some(filters),
        ..Default::default()
    }));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some(news) = change(event)
                    && tell.send(news).await.is_err()
                {
                    break;
                }
            }
            Err(e) => return e.to_string(),
        }
    }
    "the stream of events ended".to_owned()
}

/// What an event of the runtime says about a container.
fn change(event: EventMessage) -> Option<ApiNews> {
    let actor = event.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let container = match event.action.as_deref()? {
        "connect" | "disconnect" => attributes.get("container")?,
        _ => actor.id.as_ref()?,
    };
    let id = ContainerId::parse(container).ok()?;
    if event.action.as_deref() != Some("rename") {
        return Some(ApiNews::Changed { id });
    }
    let name = bounded(attributes.get("name")?.trim_start_matches('/'));
    Some(ApiNews::Renamed { id, name })
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
    if let Some(mounts) = &said.mounts {
        let word = |text: &Option<String>| bounded(text.as_deref().unwrap_or_default());
        f.set_mounts(mounts.iter().map(|m| MountPoint {
            source: word(&m.source),
            destination: word(&m.destination),
            mode: word(&m.mode),
            writable: m.rw.unwrap_or(true),
            propagation: word(&m.propagation),
        }));
    }
    f.privileged = said.host_config.as_ref().and_then(|h| h.privileged);
    f
}

/// Sockets that were given, the usual ones, and those of daemons that run.
fn find_sockets(config: &ConfirmerConfig) -> Vec<(PathBuf, Runtime)> {
    let given = |sockets: &[PathBuf], runtime| -> Vec<(PathBuf, Runtime)> {
        sockets.iter().map(|s| (s.clone(), runtime)).collect()
    };
    let mut found = given(&config.docker_sockets, Runtime::Docker);
    found.extend(given(&config.containerd_sockets, Runtime::Containerd));
    if let Some(proc_root) = &config.discover {
        found.push(("/var/run/docker.sock".into(), Runtime::Docker));
        found.push(("/run/podman/podman.sock".into(), Runtime::Podman));
        found.push((
            "/run/containerd/containerd.sock".into(),
            Runtime::Containerd,
        ));
        found.push((
            "/run/k3s/containerd/containerd.sock".into(),
            Runtime::Containerd,
        ));
        found.extend(daemon_sockets(proc_root));
    }
    found.retain(|(s, _)| s.is_absolute() && s.exists());
    found
}

/// Sockets on the command lines of dockerd, containerd and its shims (a shim names the containerd
/// that started it), and of `podman system service`.
fn daemon_sockets(proc_root: &Path) -> Vec<(PathBuf, Runtime)> {
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
        for socket in sockets_of(&args) {
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
    }
    sockets
}

/// The sockets that one command line names.
fn sockets_of(args: &[String]) -> Vec<(PathBuf, Runtime)> {
    let Some(program) = args.first().and_then(|a| a.rsplit('/').next()) else {
        return Vec::new();
    };
    let unix = |runtime| -> Vec<(PathBuf, Runtime)> {
        let named = args.iter().filter_map(|a| a.rsplit_once("unix://"));
        named
            .map(|(_, path)| (PathBuf::from(path), runtime))
            .collect()
    };
    let option = |names: &[&str]| options(args, names).into_iter().next();
    let of_containerd = |socket: Option<String>| -> Vec<(PathBuf, Runtime)> {
        socket
            .map(|s| (PathBuf::from(s), Runtime::Containerd))
            .into_iter()
            .collect()
    };
    match program {
        "dockerd" => unix(Runtime::Docker),
        "podman" if args.iter().any(|a| a == "service") => unix(Runtime::Podman),
        "containerd" => {
            let configured = || {
                let config = option(&["--config", "-c"])?;
                crate::disk::toml_text(Path::new(&config), "grpc", "address")
            };
            of_containerd(option(&["--address", "-a"]).or_else(configured))
        }
        shim if shim.starts_with("containerd-shim") => of_containerd(option(&["-address"])),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str, runtime: Runtime, cgroup_path: &str) -> Question {
        let instance = Instance {
            id: ContainerId::parse(id).unwrap(),
            start: plimsoll_model::BootNs(1),
        };
        Question {
            instance,
            runtime,
            cgroup_path: cgroup_path.to_owned(),
        }
    }

    #[test]
    fn daemons_and_shims_name_their_sockets() {
        let args = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let one = |line: &str| sockets_of(&args(line)).pop();
        let of = |path: &str, runtime| Some((PathBuf::from(path), runtime));
        assert_eq!(
            one("/usr/bin/dockerd -H unix:///d/docker.sock"),
            of("/d/docker.sock", Runtime::Docker)
        );
        assert_eq!(
            one("/usr/bin/containerd-shim-runc-v2 -namespace moby -id x -address /d/c.sock"),
            of("/d/c.sock", Runtime::Containerd)
        );
        assert_eq!(
            one("containerd --address=/d/c.sock"),
            of("/d/c.sock", Runtime::Containerd)
        );
        assert_eq!(
            one("podman system service --time=0 unix:///d/p.sock"),
            of("/d/p.sock", Runtime::Podman)
        );
        assert_eq!(one("podman run -e X=unix:///d/p.sock x"), None);
        assert_eq!(one("vim dockerd unix:///x"), None);
    }

    /// A runtime that takes connections and says nothing.
    #[test]
    fn a_runtime_that_hangs_is_no_answer_in_time_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let config = ConfirmerConfig {
            containerd_sockets: vec![socket],
            timeout_ms: 1500,
            discover: None,
            ..ConfirmerConfig::default()
        };
        let confirmer = Confirmer::start(config, move |news| drop(tell.send(news))).unwrap();
        assert!(confirmer.ask(question("hangs", Runtime::Containerd, "")));
        assert!(confirmer.ask(question("nobody", Runtime::Crio, "")));
        let next = || told.recv_timeout(Duration::from_secs(20)).expect("news");
        let (first, second) = (next(), next());
        let ApiNews::NoAnswer { instance, why, .. } = first else {
            panic!("{first:?}")
        };
        assert_eq!(
            instance.id.as_str(),
            "nobody",
            "the one that hangs comes later"
        );
        assert!(why.contains("not asked"), "{why}");
        let ApiNews::NoAnswer { instance, why, .. } = second else {
            panic!("{second:?}")
        };
        assert_eq!(instance.id.as_str(), "hangs");
        assert!(why.contains("1500 ms"), "{why}");
    }

    /// A daemon under load, or in the midst of starting the very container.
    #[test]
    fn a_runtime_that_was_late_is_asked_again_and_one_that_does_not_know_is_not() {
        use std::io::{BufRead as _, BufReader, Write as _};
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let (status, body) = if line.contains("/containers/stranger/json") {
                    (
                        "404 Not Found",
                        r#"{"message": "No such container: stranger"}"#,
                    )
                } else if line.contains("/containers/late/json")
                    && counted.fetch_add(1, Ordering::SeqCst) > 0
                {
                    ("200 OK", r#"{"Name": "/late", "Image": "sha256:0011"}"#)
                } else {
                    kept.push(stream);
                    continue;
                };
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        let (tell, told) = std::sync::mpsc::channel();
        let config = ConfirmerConfig {
            docker_sockets: vec![socket],
            timeout_ms: 500,
            discover: None,
            ..ConfirmerConfig::default()
        };
        let confirmer = Confirmer::start(config, move |news| drop(tell.send(news))).unwrap();
        let next = || told.recv_timeout(Duration::from_secs(20)).expect("news");
        assert!(confirmer.ask(question("stranger", Runtime::Docker, "")));
        let news = next();
        assert!(
            matches!(&news, ApiNews::NoAnswer { why, late: false, .. } if why.contains("No such container")),
            "{news:?}"
        );
        assert!(confirmer.ask(question("late", Runtime::Docker, "")));
        let news = next();
        assert!(
            matches!(&news, ApiNews::NoAnswer { why, late: true, .. } if why.contains("500 ms")),
            "nobody waits for the one that is late: {news:?}"
        );
        let news = next();
        let ApiNews::Confirmed { facts, instance } = news else {
            panic!("the next is about the one that was late: {news:?}")
        };
        assert_eq!(
            (instance.id.as_str(), facts.name.as_str()),
            ("late", "late")
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

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
        assert!(c.ask(question("abc", Runtime::Docker, "")));
        assert!(!c.ask(question("abc", Runtime::Docker, "")));
        assert_eq!(c.refused(), 1);
    }

    /// Against a real containerd, where `scripts/test` provides one.
    #[test]
    fn a_container_that_was_removed_before_it_was_asked_about_is_known_by_its_making() {
        let var = |name: &str| std::env::var(name).ok();
        let sockets = (
            var("PLIMSOLL_TEST_DOCKER_SOCK"),
            var("PLIMSOLL_TEST_CONTAINERD_SOCK"),
        );
        let (Some(docker), Some(socket)) = sockets else {
            return;
        };
        let run = |program: &str, args: &[&str]| {
            let out = std::process::Command::new(program)
                .args(args)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{program} {args:?}: {said}");
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        let image = "plimsoll-test/busybox:1";
        let docker = |args: &[&str]| {
            run(
                "docker",
                &[&["-H", &format!("unix://{docker}")], args].concat(),
            )
        };
        let digest = docker(&["image", "inspect", "-f", "{{.Id}}", image]);
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("image.tar");
        let tar = tar.to_str().unwrap();
        docker(&["save", "-o", tar, image]);
        let namespace = format!("plimsoll-made-{}", std::process::id());
        let ctr = |args: &[&str]| run("ctr", &[&["-a", &socket, "-n", &namespace], args].concat());
        ctr(&["images", "import", "--snapshotter", "native", tar]);
        let reference = format!("docker.io/{image}");

        let (tell, told) = std::sync::mpsc::channel();
        let config = ConfirmerConfig {
            containerd_sockets: vec![socket.clone().into()],
            discover: None,
            ..ConfirmerConfig::default()
        };
        let confirmer = Confirmer::start(config, move |news| drop(tell.send(news))).unwrap();
        let next = || told.recv_timeout(Duration::from_secs(60)).expect("news");
        assert!(matches!(next(), ApiNews::Connected { .. }));
        // what is made before the first word of events is heard of by nobody
        let end = std::time::Instant::now() + Duration::from_secs(60);
        let facts = (0..).find_map(|n| {
            assert!(std::time::Instant::now() < end, "nobody heard of it");
            let name = format!("made-{n}");
            ctr(&[
                "containers",
                "create",
                "--snapshotter",
                "native",
                &reference,
                &name,
            ]);
            ctr(&["containers", "rm", &name]);
            assert!(confirmer.ask(question(&name, Runtime::Containerd, "/elsewhere")));
            match next() {
                ApiNews::Confirmed { facts, .. } => Some(facts),
                _ => None,
            }
        });
        let facts = facts.expect("it ends with facts");
        assert_eq!(facts.image.name, reference);
        let said = facts.image.config_digest.as_ref();
        assert_eq!(said.map(|d| d.as_str()), Some(digest.as_str()));
        ctr(&["images", "rm", "--sync", &reference]);
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
            "--network",
            "bridge",
            "plimsoll-test/busybox:1",
            "sleep",
            "600",
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
        assert!(confirmer.ask(question(&id, Runtime::Docker, "")));
        let ApiNews::Confirmed { facts, .. } = next() else {
            panic!("not confirmed")
        };
        assert_eq!(facts.name, "api-answers");
        assert!(facts.image.config_digest.is_some());
        let changed =
            |news: ApiNews| matches!(news, ApiNews::Changed { id: of } if of.as_str() == id);
        docker(&["rename", "api-answers", "api-renamed"]);
        assert!(matches!(next(), ApiNews::Renamed { name, .. } if name == "api-renamed"));
        docker(&["start", "api-renamed"]);
        assert!(changed(next()), "it joined its network");
        assert!(changed(next()), "it began");
        docker(&["rm", "-f", "api-renamed"]);
    }
}
