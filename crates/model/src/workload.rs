//! Containers, images and what the orchestrator calls them.

use crate::ids::{ContainerId, Digest, Instance};
use crate::text::Text;
use crate::time::Stamp;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// Who runs the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Runtime {
    /// Docker Engine (Swarm and Compose included).
    #[n(0)]
    Docker,
    /// containerd, by itself or under Kubernetes.
    #[n(1)]
    Containerd,
    /// CRI-O.
    #[n(2)]
    Crio,
    /// Podman (libpod).
    #[n(3)]
    Podman,
    /// An OCI runtime (runc, crun, youki) called directly.
    #[n(4)]
    Oci,
    /// A cgroup that looks like a container's, whose runtime could not be found out.
    #[n(5)]
    Unknown,
}

impl Runtime {
    /// The lower-case name used in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::Crio => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Oci => "oci",
            Runtime::Unknown => "unknown",
        }
    }
}

/// An image. Baselines key on the config digest: local builds have no repository digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct ImageRef {
    /// The name that the container was started with (`nginx:1.27`).
    #[n(0)]
    pub name: String,
    /// Digest of the image configuration (Docker's image id).
    #[n(1)]
    pub config_digest: Option<Digest>,
    /// Digest of the manifest, where a registry gave one.
    #[n(2)]
    pub manifest_digest: Option<Digest>,
    /// Digest of the multi-platform index, where there is one.
    #[n(3)]
    pub index_digest: Option<Digest>,
    /// Repository without tag (`docker.io/library/nginx`), where it can be told.
    #[n(4)]
    pub repository: Option<String>,
}

/// Where the life of a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ContainerState {
    /// Seen, identity not yet complete.
    #[n(0)]
    Starting,
    /// At least one process is alive.
    #[n(1)]
    Running,
    /// No process is left; the record is a tombstone.
    #[n(2)]
    Gone,
}

/// One container instance and all that is known of its identity.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Container {
    /// Which life of which container.
    #[n(0)]
    pub instance: Instance,
    /// Who runs it.
    #[n(1)]
    pub runtime: Runtime,
    /// The name that people use (`web`, `shop-db-1`); empty when it could not be found out.
    #[n(2)]
    pub name: String,
    /// The image.
    #[n(3)]
    pub image: ImageRef,
    /// Role of the container in its workload: Compose or Swarm service, Kubernetes container name,
    /// else a hash of entrypoint and command. Never a random name.
    #[n(4)]
    pub role: String,
    /// Compose or Swarm service, where there is one.
    #[n(5)]
    pub service: Option<String>,
    /// Kubernetes pod name.
    #[n(6)]
    pub pod: Option<String>,
    /// Kubernetes namespace.
    #[n(7)]
    pub namespace: Option<String>,
    /// All labels (bounded to 128 of at most 4 KiB each).
    #[n(8)]
    pub labels: BTreeMap<String, String>,
    /// Kernfs id of its cgroup in the hierarchy that identifies it; marked with
    /// [`crate::ids::IN_SECOND_HIERARCHY`] where that is the second one.
    #[n(9)]
    pub cgroup_id: u64,
    /// Path of that cgroup below the hierarchy's mount.
    #[n(10)]
    pub cgroup_path: Text,
    /// When it was first seen.
    #[n(11)]
    pub first_seen: Stamp,
    /// State of its life.
    #[n(12)]
    pub state: ContainerState,
    /// When its last process ended or its cgroup was removed.
    #[n(13)]
    pub gone: Option<Stamp>,
    /// Exit code of its first process, where it was seen.
    #[n(14)]
    pub exit_code: Option<i32>,
    /// Why part of the identity is unknown ("runtime socket not found"), empty when none is.
    #[n(15)]
    pub unknown_because: String,
    /// Ports published on the host or declared by the image as `(port, "tcp"|"udp")`.
    #[n(16)]
    pub ports: Vec<(u16, String)>,
    /// It was already running when the agent started or met it: its first instructions were not observed.
    #[n(17)]
    pub found_running: bool,
    /// Addresses of its interfaces as the runtime reports them (`172.17.0.2`).
    #[n(18)]
    pub addresses: Vec<String>,
    /// Destinations of its mounts that are not the image (volumes, binds, tmpfs).
    #[n(19)]
    pub mounts: Vec<String>,
    /// Runs with `--privileged` or an equal.
    #[n(20)]
    pub privileged: bool,
    /// Entry point and command as the runtime was told.
    #[n(21)]
    pub command: Vec<Text>,
    /// The same mounts with their sources, where somebody told them (`None`: nobody did, which is
    /// not the same as that there are none). At most as many as `mounts`.
    #[n(22)]
    pub mount_points: Option<Vec<MountPoint>>,
    /// What the sandbox of its Kubernetes pod tells of the pod; `None` until that has been seen.
    #[n(23)]
    pub pod_facts: Option<PodFacts>,
    /// More of its identity (image, service, namespace, labels) may still come: its runtime is being
    /// asked, or what that keeps on disk has not been found yet.
    #[n(24)]
    #[cbor(default)]
    pub awaited: bool,
}

/// What a pod's sandbox tells of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PodFacts {
    /// The sandbox's id, whole.
    #[n(0)]
    pub sandbox: String,
    /// The pod's labels as its sandbox was started with them (bounded as a container's are); `None`
    /// where the runtime has not told them.
    #[n(1)]
    pub labels: Option<BTreeMap<String, String>>,
    /// The pod's address; empty where the runtime has not told it.
    #[n(2)]
    pub address: String,
}

impl Container {
    /// A container that has just been met: starting, and nothing else known about it.
    pub fn new(instance: Instance, runtime: Runtime, first_seen: Stamp) -> Self {
        Self {
            instance,
            runtime,
            name: String::new(),
            image: ImageRef::default(),
            role: String::new(),
            service: None,
            pod: None,
            namespace: None,
            labels: BTreeMap::new(),
            cgroup_id: 0,
            cgroup_path: Text::default(),
            first_seen,
            state: ContainerState::Starting,
            gone: None,
            exit_code: None,
            unknown_because: String::new(),
            ports: Vec::new(),
            found_running: false,
            addresses: Vec::new(),
            mounts: Vec::new(),
            privileged: false,
            command: Vec::new(),
            mount_points: None,
            pod_facts: None,
            awaited: false,
        }
    }
}

/// A mount of a container that is not its image, as its runtime was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MountPoint {
    /// Path on the host, name of a volume, or what kind of file system it is (`tmpfs`).
    #[n(0)]
    pub source: String,
    /// Path in the container.
    #[n(1)]
    pub destination: String,
    /// Mode as the runtime writes it (`z`, `755`); often empty.
    #[n(2)]
    pub mode: String,
    /// It may be written through.
    #[n(3)]
    pub writable: bool,
    /// `rprivate`, `rslave`, `rshared`; empty where it was not told.
    #[n(4)]
    pub propagation: String,
}

impl Container {
    /// The runtime's id.
    pub fn id(&self) -> &ContainerId {
        &self.instance.id
    }
    /// What people call it: its name, or the short id.
    pub fn display_name(&self) -> &str {
        if self.name.is_empty() {
            self.id().short()
        } else {
            &self.name
        }
    }
}
