//! Identity from what runtimes have put on disk before the first instruction runs.
//!
//! Docker writes `config.v2.json` when a container is created; containerd, CRI-O and Podman write
//! the OCI bundle; runc and crun keep a state directory. Where these lie is taken from the usual
//! places and from the command lines of the daemons that run, so that a daemon with its own
//! directories is found without configuration.
//!
//! Promises: every read is bounded in size and never follows a symbolic link at its end; JSON is
//! data, of which only named fields of the right type are used; a lookup is a handful of opens.
//!
//! Left out: asking runtimes (see [`crate::api`]).

use crate::cgroup::{CgroupIdentity, Layout, is_host_unit};
use crate::facts::{
    Evidence, Facts, MAX_COMMAND_ARGS, MAX_LABELS, MAX_LIST, Verdict, bounded, hex, repository_of,
};
use crate::scan::{Seed, command_line, link, read_process};
use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_model::{BootNs, ContainerId, Digest, ImageRef, MountPoint, Runtime, Text};
use serde_json::Value;
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest file of a runtime that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Daemons are looked for again at most this often.
const REFRESH_NS: u64 = 1_000_000_000;
/// Directories entered when a cgroup is looked for in the state of runc and crun.
const MAX_STATES: usize = 4096;

/// Where runtimes keep what they know. Defaults, plus what running daemons' command lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Docker data roots.
    pub docker: BTreeSet<PathBuf>,
    /// State directories of containerd (`…/io.containerd.runtime.v2.task` lies in them).
    pub containerd: BTreeSet<PathBuf>,
    /// Storage of Podman and CRI-O (`overlay-containers` or that of another driver lies in them).
    pub storage: BTreeSet<PathBuf>,
    /// State roots of runc and crun.
    pub oci: BTreeSet<PathBuf>,
}

impl Roots {
    /// The usual places, and those that running daemons were given.
    pub fn find(proc_root: &Path) -> Self {
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let mut roots = Roots {
            docker: set(&["/var/lib/docker"]),
            containerd: set(&[
                "/run/containerd",
                "/run/k3s/containerd",
                "/var/run/docker/containerd/daemon",
            ]),
            storage: set(&["/var/lib/containers/storage", "/run/containers/storage"]),
            oci: set(&[
                "/run/runc",
                "/run/crun",
                "/run/docker/runtime-runc/moby",
                "/run/containerd/runc/k8s.io",
                "/run/containerd/runc/default",
            ]),
        };
        let Ok(entries) = std::fs::read_dir(proc_root) else {
            return roots;
        };
        for entry in entries.flatten() {
            if entry
                .file_name()
                .to_str()
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
            {
                roots.learn(&entry.path());
            }
        }
        roots
    }

    /// Takes the directories out of one process's command line.
    fn learn(&mut self, process: &Path) {
        let args = command_line(process);
        let Some(program) = args
            .first()
            .map(|a| a.rsplit('/').next().unwrap_or(a).to_owned())
        else {
            return;
        };
        let option = |names: &[&str]| {
            options(&args, names)
                .into_iter()
                .map(PathBuf::from)
                .find(|p| p.is_absolute())
        };
        match program.as_str() {
            "dockerd" | "dockerd-current" => {
                self.docker
                    .extend(option(&["--data-root", "-g", "--graph"]));
                let config =
                    option(&["--config-file"]).unwrap_or_else(|| "/etc/docker/daemon.json".into());
                if let Some(json) = read_json(&config) {
                    self.docker
                        .extend(text(&json, "/data-root").map(PathBuf::from));
                    self.containerd.extend(
                        text(&json, "/exec-root")
                            .map(|d| PathBuf::from(d).join("containerd/daemon")),
                    );
                }
                self.containerd
                    .extend(option(&["--exec-root"]).map(|d| d.join("containerd/daemon")));
            }
            "containerd" => {
                self.containerd.extend(option(&["--state"]));
                self.containerd.extend(
                    option(&["--config", "-c"])
                        .and_then(|c| toml_text(&c, "", "state").map(PathBuf::from)),
                );
            }
            // a shim works in the bundle of its container: STATE/io.containerd.runtime.v2.task/NS/ID
            shim if shim.starts_with("containerd-shim") => {
                let state = link(&process.join("cwd"))
                    .and_then(|cwd| Some(cwd.parent()?.parent()?.parent()?.to_owned()));
                self.containerd.extend(state);
            }
            "conmon" => {
                // BUNDLE is STORAGE/DRIVER-containers/ID/userdata
                let bundle = option(&["-b", "--bundle"]);
                self.storage
                    .extend(bundle.and_then(|b| Some(b.parent()?.parent()?.parent()?.to_owned())));
            }
            "podman" => self.storage.extend(option(&["--root"])),
            "runc" | "crun" | "youki" => self.oci.extend(option(&["--root"])),
            _ => {}
        }
    }
}

/// Values of an option: `--name value` and `--name=value`.
pub(crate) fn options(args: &[String], names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        for name in names {
            if arg == name {
                found.extend(args.get(i + 1).cloned());
            } else if let Some(value) = arg.strip_prefix(name).and_then(|r| r.strip_prefix('=')) {
                found.push(value.to_owned());
            }
        }
    }
    found
}

/// The text of `name` in a section of containerd's configuration (empty: before the first section).
/// Enough of TOML for paths that people write; anything else is not found.
pub(crate) fn toml_text(path: &Path, section: &str, name: &str) -> Option<String> {
    let config = String::from_utf8(read(path)?).ok()?;
    let mut here = String::new();
    for line in config.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            here = header.trim_end_matches(']').trim().to_owned();
        } else if here == section
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == name
        {
            return Some(value.trim().trim_matches(['"', '\'']).to_owned());
        }
    }
    None
}

/// A bounded read that a symbolic link at the end cannot lead away.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.size() > MAX_FILE_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(meta.size() as usize);
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&read(path)?).ok()
}

fn text<'a>(json: &'a Value, pointer: &str) -> Option<&'a str> {
    json.pointer(pointer)?.as_str().filter(|s| !s.is_empty())
}

fn strings(json: Option<&Value>) -> impl Iterator<Item = &str> {
    json.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn labels(json: Option<&Value>) -> std::collections::BTreeMap<String, String> {
    let entries = json.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(k, v)| Some((bounded(k), bounded(v.as_str()?))))
        .take(MAX_LABELS)
        .collect()
}

/// The evidence of this machine's disk and `/proc`.
#[derive(Debug)]
pub struct Disk {
    proc_root: PathBuf,
    layout: Layout,
    roots: Roots,
    refreshed: BootNs,
}

impl Disk {
    /// Looks below `proc_root` for running daemons, adds the default places.
    pub fn new(proc_root: &Path, layout: Layout) -> Self {
        Self {
            roots: Roots::find(proc_root),
            proc_root: proc_root.to_owned(),
            layout,
            refreshed: BootNs(0),
        }
    }

    /// Where it looks.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Looks for daemons again, when the last time is long enough ago.
    fn refresh(&mut self, now: BootNs) -> bool {
        if now.0.saturating_sub(self.refreshed.0) < REFRESH_NS {
            return false;
        }
        self.refreshed = now;
        let roots = Roots::find(&self.proc_root);
        let new = roots != self.roots;
        self.roots = roots;
        new
    }

    fn look(&self, identity: &CgroupIdentity) -> Option<Facts> {
        let id = identity.id.as_str();
        let docker = self.roots.docker.iter().find_map(|root| docker(root, id));
        docker
            .or_else(|| self.podman(id))
            .or_else(|| self.bundle(identity))
    }

    fn podman(&self, id: &str) -> Option<Facts> {
        self.roots.storage.iter().find_map(|root| storage(root, id))
    }

    fn bundle(&self, identity: &CgroupIdentity) -> Option<Facts> {
        let id = identity.id.as_str();
        // an id is unique in one namespace of one containerd only
        let mut elsewhere = None;
        for state in &self.roots.containerd {
            let tasks = state.join("io.containerd.runtime.v2.task");
            let Ok(namespaces) = std::fs::read_dir(&tasks) else {
                continue;
            };
            for ns in namespaces.flatten().take(64) {
                if let Some(config) = read_json(&ns.path().join(id).join("config.json")) {
                    let facts = of_bundle(&config, Runtime::Containerd);
                    if text(&config, "/linux/cgroupsPath")
                        .is_some_and(|said| same_cgroup(said, &identity.root))
                    {
                        return Some(facts);
                    }
                    elsewhere.get_or_insert(facts);
                }
            }
        }
        if elsewhere.is_some() {
            return elsewhere;
        }
        let dir = self
            .roots
            .oci
            .iter()
            .find_map(|root| oci_state(&root.join(id)))?;
        // of a storage that lies elsewhere, whose engine has not been met yet
        if let Some(stored) = stored_bundle(&dir.bundle, id) {
            return Some(stored);
        }
        Some(of_bundle(
            &read_json(&dir.bundle.join("config.json"))?,
            Runtime::Oci,
        ))
    }

    /// The container of runc, crun or containerd whose state names this cgroup.
    fn by_state(&self, path: &str) -> Option<CgroupIdentity> {
        let identity = |id: &str, runtime| {
            Some(CgroupIdentity {
                runtime,
                id: ContainerId::parse(id).ok()?,
                root: path.to_owned(),
                outer: None,
                pod_uid: None,
            })
        };
        // containerd without a pattern of its own: /NAMESPACE/ID
        let mut parts = path.trim_start_matches('/').split('/');
        if let (Some(ns), Some(id), None) = (parts.next(), parts.next(), parts.next()) {
            let task = |s: &PathBuf| {
                s.join("io.containerd.runtime.v2.task")
                    .join(ns)
                    .join(id)
                    .is_dir()
            };
            if self.roots.containerd.iter().any(task) {
                return identity(id, Runtime::Containerd);
            }
        }
        for root in &self.roots.oci {
            let Ok(states) = std::fs::read_dir(root) else {
                continue;
            };
            for state in states.flatten().take(MAX_STATES) {
                let Some(found) = oci_state(&state.path()) else {
                    continue;
                };
                if found.cgroups.iter().any(|c| same_cgroup(c, path)) {
                    return identity(state.file_name().to_str()?, Runtime::Oci);
                }
            }
        }
        None
    }
}

/// A state's cgroup is given with or without mount point and leading slash.
pub(crate) fn same_cgroup(said: &str, path: &str) -> bool {
    let said = said.trim_end_matches('/');
    !path.trim_matches('/').is_empty()
        && (said == path
            || format!("/{said}") == path
            || (said.starts_with("/sys/fs/cgroup") && said.ends_with(path)))
}

struct OciState {
    bundle: PathBuf,
    cgroups: Vec<String>,
}

/// State of one container: `state.json` of runc, `status` of crun.
fn oci_state(dir: &Path) -> Option<OciState> {
    if let Some(json) = read_json(&dir.join("status")) {
        let cgroups = text(&json, "/cgroup-path")
            .map(str::to_owned)
            .into_iter()
            .collect();
        return Some(OciState {
            bundle: text(&json, "/bundle")?.into(),
            cgroups,
        });
    }
    let json = read_json(&dir.join("state.json"))?;
    let bundle = strings(json.pointer("/config/labels")).find_map(|l| l.strip_prefix("bundle="))?;
    let paths = json.pointer("/cgroup_paths").and_then(Value::as_object);
    let cgroups = paths
        .into_iter()
        .flatten()
        .filter_map(|(_, v)| v.as_str().map(str::to_owned))
        .collect();
    Some(OciState {
        bundle: bundle.into(),
        cgroups,
    })
}

/// `config.v2.json` and `hostconfig.json` of Docker.
fn docker(root: &Path, id: &str) -> Option<Facts> {
    let dir = root.join("containers").join(id);
    let json = read_json(&dir.join("config.v2.json"))?;
    let host = read_json(&dir.join("hostconfig.json"));
    let mut f = Facts {
        runtime: Some(Runtime::Docker),
        whole: true,
        ..Facts::default()
    };
    f.name = bounded(
        text(&json, "/Name")
            .unwrap_or_default()
            .trim_start_matches('/'),
    );
    let image = text(&json, "/Config/Image").unwrap_or_default();
    set_image(&mut f, image, text(&json, "/Image"));
    f.labels = labels(json.pointer("/Config/Labels"));
    let args = strings(json.pointer("/Args"));
    f.command = text(&json, "/Path")
        .into_iter()
        .chain(args)
        .take(MAX_COMMAND_ARGS)
        .map(Text::from)
        .collect();
    let ports = json
        .pointer("/Config/ExposedPorts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    f.ports = ports.filter_map(|(k, _)| port(k)).take(MAX_LIST).collect();
    let networks = json
        .pointer("/NetworkSettings/Networks")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    f.addresses = networks
        .filter_map(|(_, n)| text(n, "/IPAddress").map(bounded))
        .take(MAX_LIST)
        .collect();
    let mounts = json
        .pointer("/MountPoints")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    f.set_mounts(mounts.map(|(destination, m)| docker_mount(destination, m)));
    f.privileged = host
        .as_ref()
        .and_then(|h| h.pointer("/Privileged")?.as_bool());
    orchestrated(&mut f);
    Some(f)
}

/// A mount of Docker's `MountPoints`.
fn docker_mount(destination: &str, m: &Value) -> MountPoint {
    let word = |pointer| text(m, pointer).map(bounded).unwrap_or_default();
    MountPoint {
        source: word("/Source"),
        destination: bounded(destination),
        mode: word("/Mode"),
        writable: m.pointer("/RW").and_then(Value::as_bool).unwrap_or(true),
        propagation: word("/Propagation"),
    }
}

/// A mount of an OCI bundle; what it is like stands among its options.
fn bundle_mount(m: &Value) -> Option<MountPoint> {
    let options: Vec<&str> = strings(m.pointer("/options")).collect();
    let propagation = |o: &&&str| {
        let o = o.strip_prefix('r').unwrap_or(o);
        ["private", "shared", "slave", "unbindable"].contains(&o)
    };
    Some(MountPoint {
        source: text(m, "/source").map(bounded).unwrap_or_default(),
        destination: bounded(text(m, "/destination")?),
        mode: options
            .iter()
            .find_map(|o| o.strip_prefix("mode="))
            .map(bounded)
            .unwrap_or_default(),
        writable: !options.contains(&"ro"),
        propagation: options
            .iter()
            .find(propagation)
            .map(|o| bounded(o))
            .unwrap_or_default(),
    })
}

fn port(word: &str) -> Option<(u16, String)> {
    let (number, proto) = word.split_once('/')?;
    Some((number.parse().ok()?, bounded(proto)))
}

fn set_image(f: &mut Facts, name: &str, digest: Option<&str>) {
    f.image.name = bounded(name);
    f.image.repository = repository_of(name);
    f.image.config_digest = digest.and_then(|d| Digest::parse(d).ok());
}

/// Storage drivers of Podman and CRI-O; the directory of containers is named after the one in use.
const STORAGE_DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// Podman and CRI-O: `DRIVER-containers/containers.json` and the bundle beside it.
fn storage(root: &Path, id: &str) -> Option<Facts> {
    let dirs = STORAGE_DRIVERS.map(|driver| root.join(format!("{driver}-containers")));
    dirs.iter().find_map(|dir| stored(dir, id))
}

/// A bundle at `DRIVER-containers/ID/userdata` is one of Podman or CRI-O.
fn stored_bundle(bundle: &Path, id: &str) -> Option<Facts> {
    let dir = bundle.parent()?.parent()?;
    let driver = dir.file_name()?.to_str()?.strip_suffix("-containers")?;
    let known = STORAGE_DRIVERS.contains(&driver);
    known.then(|| stored(dir, id)).flatten()
}

fn stored(dir: &Path, id: &str) -> Option<Facts> {
    let config = read_json(&dir.join(id).join("userdata/config.json"));
    let list = read_json(&dir.join("containers.json"));
    let entry = list
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|c| text(c, "/id") == Some(id));
    if config.is_none() && entry.is_none() {
        return None;
    }
    let mut f = config
        .as_ref()
        .map(|c| of_bundle(c, Runtime::Podman))
        .unwrap_or_default();
    f.runtime.get_or_insert(Runtime::Podman);
    let Some(entry) = entry else { return Some(f) };
    if f.name.is_empty() {
        f.name = strings(entry.pointer("/names"))
            .next()
            .map(bounded)
            .unwrap_or_default();
    }
    // an image id is the hex of its config digest
    let digest = text(entry, "/image").map(|i| {
        if i.contains(':') {
            i.to_owned()
        } else {
            format!("sha256:{i}")
        }
    });
    let meta: Option<Value> = text(entry, "/metadata").and_then(|m| serde_json::from_str(m).ok());
    let name = meta
        .as_ref()
        .and_then(|m| text(m, "/image-name"))
        .unwrap_or(&f.image.name)
        .to_owned();
    set_image(&mut f, &name, digest.as_deref());
    f.missing.clear();
    Some(f)
}

/// An OCI bundle's `config.json` (runtime-spec): command, mounts, annotations of the engines.
pub(crate) fn of_bundle(json: &Value, runtime: Runtime) -> Facts {
    let mut f = Facts {
        runtime: Some(runtime),
        ..Facts::default()
    };
    f.command = strings(json.pointer("/process/args"))
        .take(MAX_COMMAND_ARGS)
        .map(Text::from)
        .collect();
    f.labels = labels(json.pointer("/annotations"));
    let crio: Option<Value> = f
        .labels
        .get(crate::pod::CRIO_LABELS)
        .and_then(|text| serde_json::from_str(text).ok());
    for (key, value) in labels(crio.as_ref()) {
        if f.labels.len() < MAX_LABELS {
            f.labels.entry(key).or_insert(value);
        }
    }
    let mounts = json
        .pointer("/mounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let binds = mounts.filter(|m| text(m, "/type") == Some("bind"));
    f.set_mounts(binds.filter_map(bundle_mount));
    let note = |names: &[&str]| names.iter().find_map(|n| f.labels.get(*n)).cloned();
    let name = note(&[
        "nerdctl/name",
        "io.kubernetes.cri-o.Name",
        "io.podman.annotations.name",
        "io.kubernetes.cri.container-name",
    ]);
    let image = note(&[
        "io.kubernetes.cri.image-name",
        "io.kubernetes.cri-o.ImageName",
        "io.kubernetes.cri-o.Image",
        "nerdctl/image",
    ]);
    let digest = note(&["io.kubernetes.cri-o.ImageRef"])
        .filter(|d| d.len() == 64)
        .map(|d| format!("sha256:{d}"));
    f.sandbox = note(&[
        "io.kubernetes.cri.container-type",
        "io.kubernetes.cri-o.ContainerType",
    ])
    .as_deref()
        == Some("sandbox");
    // Podman uses some of CRI-O's annotations too
    let manager = f.labels.get("io.container.manager").map(String::as_str);
    if manager == Some("libpod") {
        f.runtime = Some(Runtime::Podman);
    } else if f
        .labels
        .keys()
        .any(|k| k.starts_with("io.kubernetes.cri-o."))
    {
        f.runtime = Some(Runtime::Crio);
    }
    f.privileged = Some(is_privileged(json));
    f.name = name.unwrap_or_default();
    set_image(&mut f, &image.unwrap_or_default(), digest.as_deref());
    if f.image.config_digest.is_none() {
        stand_in(json, &mut f);
    }
    orchestrated(&mut f);
    f
}

/// Whether a bundle is that of a privileged container, whoever made it: engines note it nowhere that they
/// share, but what they take away is the same. All capabilities of the engine (which may itself lack
/// some), nothing of `/proc` and `/sys` hidden or read-only, and no filter of system calls.
fn is_privileged(json: &Value) -> bool {
    const POWERS: [&str; 7] = [
        "CAP_MKNOD",
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_MODULE",
        "CAP_SYS_PTRACE",
        "CAP_SYS_RAWIO",
    ];
    let bounding: Vec<&str> = strings(json.pointer("/process/capabilities/bounding")).collect();
    let none = |at: &str| strings(json.pointer(at)).next().is_none();
    POWERS.iter().all(|p| bounding.contains(p))
        && none("/linux/maskedPaths")
        && none("/linux/readonlyPaths")
        && json.pointer("/linux/seccomp").is_none_or(Value::is_null)
}

/// Where no digest is told: the image's name (`ref:`) or the root directory (`rootfs:`), hashed. A
/// stand-in keeps baselines of different images apart, and shows what it is.
fn stand_in(json: &Value, f: &mut Facts) {
    let (kind, what) = match f.image.name.as_str() {
        "" => (
            "rootfs",
            text(json, "/root/path").unwrap_or_default().to_owned(),
        ),
        name => ("ref", name.to_owned()),
    };
    let digest = format!("{kind}:{}", hex(&sha2::Sha256::digest(what.as_bytes())));
    f.stand_in = Digest::parse(&digest).ok().map(|digest| ImageRef {
        name: bounded(&what),
        config_digest: Some(digest),
        ..ImageRef::default()
    });
    f.missing = "the image's digest is not on disk".to_owned();
}

/// Pod, namespace and container name as labels or annotations tell them.
pub(crate) fn orchestrated(f: &mut Facts) {
    let get = |names: &[&str]| {
        names
            .iter()
            .find_map(|n| f.labels.get(*n))
            .filter(|v| !v.is_empty())
            .cloned()
    };
    f.pod = get(&["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]);
    f.namespace = get(&[
        "io.kubernetes.pod.namespace",
        "io.kubernetes.cri.sandbox-namespace",
    ]);
    f.kube_container = get(&[
        "io.kubernetes.container.name",
        "io.kubernetes.cri.container-name",
    ]);
}

impl Evidence for Disk {
    fn judge(&mut self, path: &str, now: BootNs) -> Verdict {
        if is_host_unit(path) {
            return Verdict::NotContainer;
        }
        if let Some(identity) = self.by_state(path) {
            return Verdict::Container(identity);
        }
        if self.refresh(now)
            && let Some(identity) = self.by_state(path)
        {
            return Verdict::Container(identity);
        }
        Verdict::Undecided
    }

    fn facts(&mut self, identity: &CgroupIdentity, now: BootNs) -> Result<Facts, String> {
        if let Some(facts) = self.look(identity) {
            return Ok(facts);
        }
        if self.refresh(now)
            && let Some(facts) = self.look(identity)
        {
            return Ok(facts);
        }
        Err(format!(
            "nothing is on disk about {} in {} Docker, {} containerd, {} storage and {} OCI state directories",
            identity.id.short(),
            self.roots.docker.len(),
            self.roots.containerd.len(),
            self.roots.storage.len(),
            self.roots.oci.len()
        ))
    }

    fn process(&mut self, tgid: u32) -> Option<Seed> {
        read_process(&self.proc_root, &self.layout, tgid)
    }

    fn cgroup_path(&mut self, cgroup_id: u64, tgid: u32) -> Option<String> {
        let process = read_process(&self.proc_root, &self.layout, tgid)?;
        let second = cgroup_id & IN_SECOND_HIERARCHY != 0;
        let path = match second {
            false => process.cgroup_path,
            true => process.second_path?,
        };
        // the process may have moved: the path, or one above it, must have this id
        let mut at = path.as_str();
        loop {
            let id = match second {
                false => self.layout.id_of(at),
                true => self.layout.id_in_second(at),
            };
            if id == Some(cgroup_id) {
                return Some(at.to_owned());
            }
            at = &at[..at.rfind('/').filter(|i| *i > 0)?];
        }
    }

    fn is_there(&mut self, path: &str, cgroup_id: u64) -> Option<bool> {
        let found = match cgroup_id & IN_SECOND_HIERARCHY {
            0 => self.layout.look_for(path),
            _ => self.layout.look_for_in_second(path),
        };
        match found? {
            Ok(id) => Some(id == cgroup_id),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(false),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn docker_is_read_from_its_data_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("containers").join(ID);
        write(
            &at.join("config.v2.json"),
            r#"{"Name":"/web","Image":"sha256:00112233","Path":"/docker-entrypoint.sh","Args":["nginx","-g"],
            "Config":{"Image":"reg:5000/shop/web:1.2","Labels":{"com.docker.compose.service":"front","n":3},"ExposedPorts":{"80/tcp":{}}},
            "NetworkSettings":{"Networks":{"a":{"IPAddress":"172.18.0.2"}}},"MountPoints":{"/data":{"Source":"/srv/data","RW":false,"Mode":"z","Propagation":"rslave"}}}"#,
        );
        write(&at.join("hostconfig.json"), r#"{"Privileged":true}"#);
        let f = docker(dir.path(), ID).unwrap();
        assert_eq!((f.name.as_str(), f.role().as_str()), ("web", "front"));
        assert!(f.whole, "nobody is waited for who would tell the same");
        assert_eq!(f.image.repository.as_deref(), Some("reg:5000/shop/web"));
        assert_eq!(f.image.config_digest.unwrap().as_str(), "sha256:00112233");
        assert_eq!(
            (f.ports, f.privileged),
            (vec![(80, "tcp".to_owned())], Some(true))
        );
        assert_eq!(
            (f.addresses, f.mounts),
            (vec!["172.18.0.2".to_owned()], vec!["/data".to_owned()])
        );
        let mount = MountPoint {
            source: "/srv/data".to_owned(),
            destination: "/data".to_owned(),
            mode: "z".to_owned(),
            writable: false,
            propagation: "rslave".to_owned(),
        };
        assert_eq!(f.mount_points, Some(vec![mount]));
    }

    #[test]
    fn a_bundle_from_which_nothing_was_taken_away_is_privileged() {
        let all: Vec<&str> =
            "CHOWN MKNOD NET_ADMIN SYS_ADMIN SYS_BOOT SYS_MODULE SYS_PTRACE SYS_RAWIO"
                .split(' ')
                .collect();
        let of = |caps: &[&str], linux: Value| {
            let caps: Vec<String> = caps.iter().map(|c| format!("CAP_{c}")).collect();
            let json = serde_json::json!({
                "process": {"capabilities": {"bounding": caps}}, "linux": linux,
            });
            of_bundle(&json, Runtime::Containerd).privileged
        };
        let bare = serde_json::json!({});
        assert_eq!(of(&all, bare.clone()), Some(true));
        assert_eq!(
            of(
                &all,
                serde_json::json!({"maskedPaths": [], "seccomp": null})
            ),
            Some(true)
        );
        assert_eq!(
            of(&all[..7], bare.clone()),
            Some(false),
            "a power is missing"
        );
        assert_eq!(of(&[], bare), Some(false));
        for kept in [
            serde_json::json!({"maskedPaths": ["/proc/kcore"]}),
            serde_json::json!({"readonlyPaths": ["/proc/sys"]}),
            serde_json::json!({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}),
        ] {
            assert_eq!(of(&all, kept.clone()), Some(false), "{kept}");
        }
    }

    #[test]
    fn labels_that_crio_keeps_as_json_are_labels() {
        let json = serde_json::json!({"annotations": {
            "io.kubernetes.cri-o.ContainerType": "sandbox",
            "io.kubernetes.cri-o.Labels":
                r#"{"app":"till","io.kubernetes.pod.uid":"u-1","io.kubernetes.cri-o.Name":"another"}"#,
            "io.kubernetes.cri-o.Name": "k8s_POD_till",
        }});
        let f = of_bundle(&json, Runtime::Oci);
        assert!(f.sandbox && f.runtime == Some(Runtime::Crio));
        assert_eq!(f.labels["app"], "till");
        assert_eq!(f.labels["io.kubernetes.pod.uid"], "u-1");
        assert_eq!(
            f.labels["io.kubernetes.cri-o.Name"], "k8s_POD_till",
            "annotations win"
        );
        for broken in ["{", "[1]", r#"{"a":1}"#, ""] {
            let json = serde_json::json!({"annotations": {"io.kubernetes.cri-o.Labels": broken}});
            assert_eq!(of_bundle(&json, Runtime::Oci).labels.len(), 1, "{broken}");
        }
    }

    #[test]
    fn hostile_json_is_no_identity_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir
            .path()
            .join("containers")
            .join(ID)
            .join("config.v2.json");
        for bad in [
            "",
            "[",
            "[]",
            "null",
            r#"{"Name":{"a":1},"Config":[],"Args":"x","Image":7}"#,
            &"[".repeat(100_000),
        ] {
            write(&at, bad);
            let _ = docker(dir.path(), ID);
        }
        std::fs::remove_file(&at).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &at).unwrap();
        assert_eq!(docker(dir.path(), ID), None);
    }

    #[test]
    fn podman_and_kubernetes_are_read_from_bundles() {
        let dir = tempfile::tempdir().unwrap();
        let c = dir.path().join("overlay-containers");
        write(
            &c.join("containers.json"),
            &format!(
                r#"[{{"id":"{ID}","names":["db"],"image":"{ID}","metadata":"{{\"image-name\":\"localhost/db:1\"}}"}}]"#
            ),
        );
        write(
            &c.join(ID).join("userdata/config.json"),
            r#"{"process":{"args":["redis-server"]},"annotations":{"io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"n","io.kubernetes.container.name":"c"}}"#,
        );
        let f = storage(dir.path(), ID).unwrap();
        assert_eq!((f.name.as_str(), f.role().as_str()), ("db", "c"));
        assert_eq!(
            (f.pod.as_deref(), f.namespace.as_deref()),
            (Some("p"), Some("n"))
        );
        assert_eq!(
            f.image.config_digest.unwrap().as_str(),
            format!("sha256:{ID}")
        );
    }

    #[test]
    fn a_bundle_of_podmans_storage_has_the_name_that_the_storage_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        let c = dir.path().join("vfs-containers");
        write(
            &c.join("containers.json"),
            &format!(r#"[{{"id":"{ID}","names":["db"],"image":"{ID}"}}]"#),
        );
        write(
            &c.join(ID).join("userdata/config.json"),
            r#"{"annotations":{"io.container.manager":"libpod","io.kubernetes.cri-o.TTY":"false"}}"#,
        );
        let f = stored_bundle(&c.join(ID).join("userdata"), ID).unwrap();
        assert_eq!(f.name, "db");
        assert_eq!(f.runtime, Some(Runtime::Podman));
        let other = dir.path().join("bundles").join(ID).join("userdata");
        assert_eq!(stored_bundle(&other, ID), None);
    }

    #[test]
    fn mounts_of_a_bundle_have_source_and_options() {
        let f = of_bundle(
            &serde_json::json!({"mounts":[
                {"type":"proc","source":"proc","destination":"/proc"},
                {"type":"bind","source":"/proc","destination":"/host/proc","options":["rbind","rprivate","ro"]},
                {"type":"bind","destination":7},
            ]}),
            Runtime::Containerd,
        );
        let points = f.mount_points.unwrap();
        assert_eq!(f.mounts, ["/host/proc"]);
        assert_eq!(points.len(), 1);
        assert_eq!(
            (points[0].source.as_str(), points[0].writable),
            ("/proc", false)
        );
        assert_eq!(points[0].propagation, "rprivate");
    }

    #[test]
    fn a_bare_bundle_is_known_by_its_root_directory() {
        let f = of_bundle(
            &serde_json::json!({"process":{"args":["/bin/x"]},"root":{"path":"/srv/rootfs"}}),
            Runtime::Oci,
        );
        assert_eq!(f.image.config_digest, None);
        let stand_in = f.stand_in.unwrap();
        assert_eq!(stand_in.name, "/srv/rootfs");
        assert!(
            stand_in
                .config_digest
                .unwrap()
                .as_str()
                .starts_with("rootfs:")
        );
        assert!(!f.missing.is_empty());
    }

    #[test]
    fn state_paths_are_compared_with_and_without_their_mount() {
        assert!(same_cgroup("/sys/fs/cgroup/pids/a/b", "/a/b"));
        assert!(same_cgroup("a/b", "/a/b"));
        assert!(!same_cgroup("/sys/fs/cgroup/pids/a/b", "/"));
        assert!(!same_cgroup("/x/a/b", "/a/b"));
    }
}
