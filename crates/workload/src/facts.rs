//! What is known of a container's identity, whoever said it, and how two sayings are joined.
//!
//! [`Facts`] is a container's identity with holes; disk and API both answer in it. [`Evidence`] is
//! the seam between the tables (which decide, and read nothing) and whoever can look things up.

use crate::cgroup::CgroupIdentity;
use crate::scan::Seed;
use plimsoll_model::{BootNs, Container, Digest, ImageRef, MountPoint, Runtime, Text};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Labels kept of one container.
pub const MAX_LABELS: usize = 128;
/// Bytes kept of one label, name or other text of a runtime.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Arguments kept of entry point and command.
pub const MAX_COMMAND_ARGS: usize = 256;
/// Ports, addresses and mounts kept of one container, each.
pub const MAX_LIST: usize = 256;

/// A container's identity as far as one source knows it. Empty means: this source does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who runs it.
    pub runtime: Option<Runtime>,
    /// The name that people use.
    pub name: String,
    /// The image, as far as it is known.
    pub image: ImageRef,
    /// What to key on when nobody can tell the image's digest (`ref:…`, `rootfs:…`).
    pub stand_in: Option<ImageRef>,
    /// Labels (bounded to [`MAX_LABELS`]).
    pub labels: BTreeMap<String, String>,
    /// Entry point and command.
    pub command: Vec<Text>,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes namespace (not containerd's).
    pub namespace: Option<String>,
    /// Kubernetes container name.
    pub kube_container: Option<String>,
    /// It is the pause container that holds a pod's namespaces.
    pub sandbox: bool,
    /// Ports published or declared.
    pub ports: Vec<(u16, String)>,
    /// Addresses of its interfaces.
    pub addresses: Vec<String>,
    /// Destinations of mounts that are not the image.
    pub mounts: Vec<String>,
    /// The same mounts with their sources; `None` when this source does not know of mounts.
    pub mount_points: Option<Vec<MountPoint>>,
    /// Privileged; `None` when this source cannot tell.
    pub privileged: Option<bool>,
    /// What this source should have known and could not find out ("no image name in the bundle").
    pub missing: String,
    /// Name, image and labels are all that the runtime has: nobody else tells more.
    pub whole: bool,
}

/// Whether a cgroup is a container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the root cgroup of this container.
    Container(CgroupIdentity),
    /// It certainly is none.
    NotContainer,
    /// Nothing says either yet.
    Undecided,
}

/// Looks things up for the tables. Every method is bounded in time and memory, and tolerates that
/// what it looks for disappears meanwhile.
pub trait Evidence {
    /// Decides about a cgroup whose path fits no pattern of [`crate::cgroup::classify`].
    fn judge(&mut self, path: &str, now: BootNs) -> Verdict;
    /// What is known of a container.
    ///
    /// # Errors
    /// A sentence for people: why nothing was found.
    fn facts(&mut self, identity: &CgroupIdentity, now: BootNs) -> Result<Facts, String>;
    /// The process with this id, as it is now.
    fn process(&mut self, tgid: u32) -> Option<Seed>;
    /// Path of the cgroup with this id; `tgid` is a process that is or was in it (or below).
    fn cgroup_path(&mut self, cgroup_id: u64, tgid: u32) -> Option<String>;
    /// Whether the cgroup with this id is at this path; `None`: that cannot be told.
    fn is_there(&mut self, path: &str, cgroup_id: u64) -> Option<bool>;
}

/// Knows nothing: for replay, where identity comes from the journal, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn judge(&mut self, _: &str, _: BootNs) -> Verdict {
        Verdict::Undecided
    }
    fn facts(&mut self, _: &CgroupIdentity, _: BootNs) -> Result<Facts, String> {
        Err("nothing was looked up".to_owned())
    }
    fn process(&mut self, _: u32) -> Option<Seed> {
        None
    }
    fn cgroup_path(&mut self, _: u64, _: u32) -> Option<String> {
        None
    }
    fn is_there(&mut self, _: &str, _: u64) -> Option<bool> {
        None
    }
}

impl Facts {
    /// Whether this is enough to choose a baseline: an image and a role. A stand-in for the digest
    /// is enough where there is nobody to ask.
    pub fn is_complete(&self) -> bool {
        let image =
            self.image.config_digest.is_some() || (self.stand_in.is_some() && !self.can_be_asked());
        image && (!self.command.is_empty() || self.service().is_some())
    }

    /// Takes in mounts with their sources, at most [`MAX_LIST`].
    pub(crate) fn set_mounts(&mut self, points: impl Iterator<Item = MountPoint>) {
        let points = points.filter(|p| !p.destination.is_empty());
        let points: Vec<MountPoint> = points.take(MAX_LIST).collect();
        self.mounts = points.iter().map(|p| p.destination.clone()).collect();
        self.mount_points = Some(points);
    }

    /// The runtime may know the image's digest when the disk does not.
    fn can_be_asked(&self) -> bool {
        self.runtime.is_some_and(can_be_asked)
    }

    /// Compose or Swarm service.
    pub fn service(&self) -> Option<&str> {
        [
            "com.docker.swarm.service.name",
            "com.docker.compose.service",
            "io.podman.compose.service",
        ]
        .iter()
        .find_map(|l| self.labels.get(*l))
        .map(String::as_str)
        .filter(|s| !s.is_empty())
    }

    /// Role in the workload: service, Kubernetes container name, else a hash of entry point and
    /// command (empty while those are unknown). Never a random name.
    pub fn role(&self) -> String {
        if let Some(name) = self.service().or(self.kube_container.as_deref()) {
            return name.to_owned();
        }
        if self.sandbox && self.pod.is_some() {
            return "sandbox".to_owned();
        }
        if self.command.is_empty() {
            return String::new();
        }
        let mut h = Sha256::new();
        for arg in &self.command {
            // length first, so that ["a b"] and ["a", "b"] differ
            h.update((arg.len() as u64).to_be_bytes());
            h.update(arg.as_bytes());
        }
        hex(&h.finalize()[..6])
    }

    /// Fills the holes of `container`, and takes over what may change in a container's life (name,
    /// addresses, ports). What a baseline is keyed on (image digest, role) is never changed once it
    /// is there; only a stand-in gives way to the digest it stands for. Says whether anything changed.
    pub fn merge_into(&self, container: &mut Container) -> bool {
        let before = container.clone();
        let c = container;
        if let Some(runtime) = self.runtime
            && (c.runtime == Runtime::Unknown
                || c.runtime == Runtime::Oci
                || c.unknown_because_any())
        {
            c.runtime = runtime;
        }
        if !self.name.is_empty() {
            c.name.clone_from(&self.name);
        }
        fill_image(&mut c.image, &self.image);
        for (k, v) in &self.labels {
            if c.labels.len() < MAX_LABELS || c.labels.contains_key(k) {
                c.labels.insert(k.clone(), v.clone());
            }
        }
        if c.command.is_empty() {
            c.command.clone_from(&self.command);
        }
        fill(&mut c.service, self.service());
        fill(&mut c.pod, self.pod.as_deref());
        fill(&mut c.namespace, self.namespace.as_deref());
        if c.role.is_empty() {
            c.role = self.role();
        }
        take_list(&mut c.ports, &self.ports);
        take_list(&mut c.addresses, &self.addresses);
        take_list(&mut c.mounts, &self.mounts);
        if self.mount_points.is_some() {
            c.mount_points.clone_from(&self.mount_points);
        }
        c.privileged |= self.privileged == Some(true);
        *c != before
    }
}

/// Whether such a runtime has a socket at which it tells of its containers.
pub(crate) fn can_be_asked(runtime: Runtime) -> bool {
    matches!(
        runtime,
        Runtime::Docker | Runtime::Podman | Runtime::Containerd
    )
}

trait UnknownBecause {
    fn unknown_because_any(&self) -> bool;
}
impl UnknownBecause for Container {
    fn unknown_because_any(&self) -> bool {
        !self.unknown_because.is_empty()
    }
}

fn fill(slot: &mut Option<String>, value: Option<&str>) {
    if slot.is_none() {
        *slot = value.map(str::to_owned);
    }
}

fn take_list<T: Clone>(slot: &mut Vec<T>, value: &[T]) {
    if !value.is_empty() {
        *slot = value.to_vec();
    }
}

/// A digest of something else than an image (see `docs/guide/runtimes.md`).
pub(crate) fn is_stand_in(digest: &Digest) -> bool {
    ["ref:", "rootfs:"]
        .iter()
        .any(|kind| digest.as_str().starts_with(kind))
}

fn fill_image(image: &mut ImageRef, from: &ImageRef) {
    let stands_in = image.config_digest.as_ref().is_some_and(is_stand_in);
    if !from.name.is_empty() && (image.name.is_empty() || stands_in) {
        image.name.clone_from(&from.name);
    }
    if from.config_digest.is_some() && (image.config_digest.is_none() || stands_in) {
        image.config_digest.clone_from(&from.config_digest);
    }
    if image.manifest_digest.is_none() {
        image.manifest_digest.clone_from(&from.manifest_digest);
    }
    if image.index_digest.is_none() {
        image.index_digest.clone_from(&from.index_digest);
    }
    if image.repository.is_none() {
        image.repository.clone_from(&from.repository);
    }
}

/// `nginx:1.27` and `host:5000/a/b@sha256:…` → repository without tag and digest.
pub fn repository_of(name: &str) -> Option<String> {
    let name = name.split('@').next().unwrap_or_default();
    let start_of_last = name.rfind('/').map_or(0, |i| i + 1);
    let end = name[start_of_last..]
        .find(':')
        .map_or(name.len(), |i| start_of_last + i);
    let repository = &name[..end];
    let is_id = repository.len() >= 12 && repository.bytes().all(|b| b.is_ascii_hexdigit());
    (!repository.is_empty() && !is_id).then(|| repository.to_owned())
}

/// Text of at most [`MAX_TEXT_BYTES`], cut at a character.
pub fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut s = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        write!(s, "{b:02x}").expect("writing to a String cannot fail");
    }
    s
}
