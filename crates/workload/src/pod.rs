//! What a pod's sandbox tells of the pod: its labels and its address, shared with its containers.
//!
//! Runtimes keep a pod's labels with its sandbox (the container that holds the pod's namespaces), and
//! not with the containers in it. Who is a sandbox, and of which pod, is read from what the runtimes
//! note: cri-dockerd and dockershim as labels of a Docker container, containerd's CRI as labels and
//! annotations, CRI-O as annotations. What belongs to the runtime among the labels is left out, as
//! Falco does (`io.kubernetes.*`, `annotation.*`), and containerd's own.
//!
//! Promises: no I/O; at most [`MAX_PODS`] pods are known. A pod's labels are those that its sandbox
//! started with: what is changed later in the Kubernetes API is not seen.

use plimsoll_model::{Container, ContainerState, PodFacts, Runtime};
use std::collections::{BTreeMap, HashMap};

/// Pods known at a time; further ones are not remembered until one has gone.
pub const MAX_PODS: usize = 8192;

/// CRI-O keeps labels as JSON in an annotation.
pub(crate) const CRIO_LABELS: &str = "io.kubernetes.cri-o.Labels";

fn label<'c>(c: &'c Container, names: &[&str]) -> Option<&'c str> {
    let mut found = names.iter().filter_map(|n| c.labels.get(*n));
    found.find(|v| !v.is_empty()).map(String::as_str)
}

/// The uid of the pod that a container is in, as its runtime noted it.
pub fn uid(c: &Container) -> Option<&str> {
    label(
        c,
        &["io.kubernetes.pod.uid", "io.kubernetes.cri.sandbox-uid"],
    )
}

/// The id of the sandbox of the pod that a container is in, as its runtime noted it.
pub fn sandbox_id(c: &Container) -> Option<&str> {
    if is_sandbox(c) {
        return Some(c.id().as_str());
    }
    label(
        c,
        &[
            "io.kubernetes.sandbox.id",
            "io.kubernetes.cri.sandbox-id",
            "io.kubernetes.cri-o.SandboxID",
        ],
    )
}

/// Whether a container is the sandbox of a pod.
pub fn is_sandbox(c: &Container) -> bool {
    let is = |name: &str, value: &str| c.labels.get(name).is_some_and(|v| v == value);
    is("io.kubernetes.docker.type", "podsandbox")
        || is("io.cri-containerd.kind", "sandbox")
        || is("io.kubernetes.cri.container-type", "sandbox")
        || is("io.kubernetes.cri-o.ContainerType", "sandbox")
}

/// The pod's labels among those of its sandbox; `None` where they have not been told yet.
fn labels(sandbox: &Container) -> Option<BTreeMap<String, String>> {
    // of containerd the bundle has annotations only: labels come with its answer
    let told = sandbox.runtime != Runtime::Containerd
        || sandbox.labels.contains_key("io.cri-containerd.kind");
    let of_runtime = |key: &str| {
        const PREFIXES: [&str; 7] = [
            "io.kubernetes.",
            "annotation.",
            "io.cri-containerd.",
            "io.containerd.",
            "containerd.io/",
            "io.container.manager",
            "org.systemd.property.",
        ];
        PREFIXES.iter().any(|p| key.starts_with(p))
    };
    let pairs = sandbox.labels.iter().filter(|(k, _)| !of_runtime(k));
    told.then(|| pairs.map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn facts_of(sandbox: &Container) -> PodFacts {
    let crio_address = label(sandbox, &["io.kubernetes.cri-o.IP.0"]);
    let address = sandbox.addresses.first().map(String::as_str);
    PodFacts {
        sandbox: sandbox.id().as_str().to_owned(),
        labels: labels(sandbox),
        address: address.or(crio_address).unwrap_or_default().to_owned(),
    }
}

/// The pods of this node, by uid.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    known: HashMap<String, PodFacts>,
}

impl Pods {
    /// Takes in a container's record as it is now. Where it is a sandbox that tells something new:
    /// the uid of the pod whose containers are to be told.
    pub(crate) fn learn(&mut self, c: &Container) -> Option<String> {
        let uid = uid(c).filter(|_| is_sandbox(c))?;
        if c.state == ContainerState::Gone {
            // a pod whose sandbox is started anew keeps its uid
            let same = |p: &PodFacts| p.sandbox == c.id().as_str();
            if self.known.get(uid).is_some_and(same) {
                self.known.remove(uid);
            }
            return None;
        }
        let facts = facts_of(c);
        let is_new = self.known.get(uid) != Some(&facts);
        if !is_new || (self.known.len() >= MAX_PODS && !self.known.contains_key(uid)) {
            return None;
        }
        self.known.insert(uid.to_owned(), facts);
        Some(uid.to_owned())
    }

    /// Tells a container what is known of its pod. Says whether that was new to it.
    pub(crate) fn tell(&self, c: &mut Container) -> bool {
        let facts = uid(c).and_then(|uid| self.known.get(uid));
        match facts {
            Some(facts) if c.pod_facts.as_ref() != Some(facts) => {
                c.pod_facts = Some(facts.clone());
                true
            }
            _ => false,
        }
    }
}
