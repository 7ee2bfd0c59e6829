//! A container instance and its identity.

use super::time;
use crate::json::lossy;
use plimsoll_model as model;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One life of a container. A restart reuses `container_id`; `instance` is never reused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The runtime's id, whole.
    pub container_id: String,
    /// This life of it: first 12 characters of the id, `@`, boot time of its start in ns.
    pub instance: String,
    /// The name that people use; empty when it could not be found out.
    pub name: String,
    /// The image as the container was started with it.
    pub image: String,
    /// Digest of the image's configuration: what baselines are keyed on.
    pub image_digest: Option<String>,
    /// `docker`, `containerd`, `cri-o`, `podman`, `oci` or `unknown`.
    pub runtime: String,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Compose or Swarm service.
    pub service: Option<String>,
    /// The node it runs on.
    pub node: String,
    /// `starting`, `running` or `gone`.
    pub state: String,
    /// When it was first seen.
    pub started: Option<String>,
    /// When its last process ended.
    pub gone: Option<String>,
    /// Exit code of its first process.
    pub exit_code: Option<i32>,
    /// Role in its workload: service or workload container name, else a hash of the command.
    pub role: String,
    /// Repository without tag.
    pub repository: Option<String>,
    /// Digest of the manifest, where a registry gave one.
    pub manifest_digest: Option<String>,
    /// It ran before the agent took it up: its first instructions were not observed.
    pub found_running: bool,
    /// Runs with `--privileged` or an equal.
    pub privileged: bool,
    /// Entry point and command.
    pub command: Vec<String>,
    /// Ports published or declared, `80/tcp`.
    pub ports: Vec<String>,
    /// Addresses of its interfaces.
    pub addresses: Vec<String>,
    /// Mount points that are not the image.
    pub mounts: Vec<String>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Why part of the identity is unknown; `null` when none is.
    pub unknown_because: Option<String>,
    /// Its cgroup, below the hierarchy's mount.
    pub cgroup: String,
}

impl Container {
    /// The JSON form of a container on `node`.
    pub fn new(c: &model::Container, node: &str) -> Self {
        Self {
            container_id: c.id().to_string(),
            instance: c.instance.to_string(),
            name: c.name.clone(),
            image: c.image.name.clone(),
            image_digest: c.image.config_digest.as_ref().map(ToString::to_string),
            runtime: c.runtime.as_str().to_owned(),
            pod: c.pod.clone(),
            namespace: c.namespace.clone(),
            service: c.service.clone(),
            node: node.to_owned(),
            state: state_name(c.state).to_owned(),
            started: Some(time(c.first_seen)),
            gone: c.gone.map(time),
            exit_code: c.exit_code,
            role: c.role.clone(),
            repository: c.image.repository.clone(),
            manifest_digest: c.image.manifest_digest.as_ref().map(ToString::to_string),
            found_running: c.found_running,
            privileged: c.privileged,
            command: c.command.iter().map(lossy).collect(),
            ports: c
                .ports
                .iter()
                .map(|(port, proto)| format!("{port}/{proto}"))
                .collect(),
            addresses: c.addresses.clone(),
            mounts: c.mounts.clone(),
            labels: c.labels.clone(),
            unknown_because: (!c.unknown_because.is_empty()).then(|| c.unknown_because.clone()),
            cgroup: lossy(&c.cgroup_path),
        }
    }
}

fn state_name(state: model::ContainerState) -> &'static str {
    match state {
        model::ContainerState::Starting => "starting",
        model::ContainerState::Running => "running",
        model::ContainerState::Gone => "gone",
    }
}
