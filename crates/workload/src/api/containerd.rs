//! Asking containerd about one container: its image with digests, labels, command.
//!
//! The API is gRPC over a Unix socket. Only five calls are made (containers, images, content,
//! namespaces, events), so their messages are declared here instead of generated; field numbers are those of
//! `github.com/containerd/containerd/api` (`services/*/v1/*.proto`, `types/descriptor.proto`), which
//! keeps them stable within 1.x and 2.x.
//!
//! Promises: every answer is bounded (messages 4 MiB, documents 1 MiB, 64 namespaces, 3 levels of
//! index); the caller's timeout bounds the whole; nothing is written, nothing is pulled.
//!
//! A container can be removed sooner than its question is asked: what containerd tells when it makes
//! one is remembered ([`MAX_MADE`] containers).
//!
//! Left out: other events, namespace `moby` (Docker's, and Docker itself is asked).

use crate::disk::same_cgroup;
use crate::facts::{Facts, bounded};
use plimsoll_model::{Digest, Runtime};
use prost::Message;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Bytes of one message.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes of one manifest or index.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Namespaces looked through.
const MAX_NAMESPACES: usize = 64;
/// Manifests looked at in one index.
const MAX_MANIFESTS: usize = 64;
/// Indexes in indexes.
const MAX_DEPTH: usize = 3;

/// Containers remembered since they were made, the youngest ones.
const MAX_MADE: usize = 512;
/// Containers looked at a time when they are made; of more only the image's name is remembered.
const MAX_LOOKS: usize = 32;

/// One containerd.
#[derive(Clone, Debug)]
pub(super) struct Containerd {
    channel: Channel,
    made: Arc<Mutex<VecDeque<Made>>>,
}

/// A container as it was when it was made.
#[derive(Clone, Debug)]
struct Made {
    namespace: String,
    container: ContainerMessage,
    /// What was found at once.
    facts: Option<Facts>,
}

/// What there is to know about a container in one namespace.
struct Found {
    namespace: String,
    container: ContainerMessage,
    spec: Value,
}

impl Found {
    fn new(namespace: String, container: ContainerMessage) -> Self {
        let spec = container.spec.as_ref().map(|s| s.value.as_slice());
        Found {
            namespace,
            spec: serde_json::from_slice(spec.unwrap_or_default()).unwrap_or_default(),
            container,
        }
    }

    fn is_in(&self, cgroup_path: &str) -> bool {
        let said = self
            .spec
            .pointer("/linux/cgroupsPath")
            .and_then(Value::as_str);
        said.is_some_and(|said| same_cgroup(said, cgroup_path))
    }
}

/// The first that is meant for certain, else the only one.
fn the_one<T>(mut candidates: Vec<T>, is_meant: impl Fn(&T) -> bool) -> Option<T> {
    if let Some(i) = candidates.iter().position(is_meant) {
        return Some(candidates.swap_remove(i));
    }
    candidates.pop().filter(|_| candidates.is_empty())
}

impl Containerd {
    /// A handle; the connection is made (and made again) when something is asked.
    pub(super) fn at(socket: &Path) -> Option<Self> {
        let uri = format!("unix:{}", socket.to_str()?);
        let endpoint = Endpoint::from_shared(uri).ok()?;
        Some(Self {
            channel: endpoint.connect_lazy(),
            made: Arc::default(),
        })
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.namespaces().await.map(drop).map_err(|s| said_no(&s))
    }

    /// Remembers containers as they are made, until the stream ends; gives why it did.
    pub(super) async fn remember_made(&self) -> String {
        match self.follow_made().await {
            Ok(()) => "the stream of events ended".to_owned(),
            Err(status) => said_no(&status),
        }
    }

    async fn follow_made(&self) -> Result<(), Status> {
        let filters = vec![format!("topic=={CREATED:?},namespace!=moby")];
        let codec = ProstCodec::<SubscribeRequest, Envelope>::default();
        let path = "/containerd.services.events.v1.Events/Subscribe";
        let mut grpc = self.grpc().await?;
        let request = Request::new(SubscribeRequest { filters });
        let mut stream = grpc
            .server_streaming(request, path.parse().expect("a constant path"), codec)
            .await?
            .into_inner();
        let looks = Arc::new(Semaphore::new(MAX_LOOKS));
        while let Some(told) = stream.message().await? {
            let of_ours = told.topic == CREATED && told.namespace != "moby";
            let event = told.event.filter(|_| of_ours).unwrap_or_default();
            let Ok(created) = ContainerCreate::decode(event.value.as_slice()) else {
                continue;
            };
            if created.id.is_empty() {
                continue;
            }
            let container = ContainerMessage {
                id: created.id,
                image: created.image,
                ..ContainerMessage::default()
            };
            let namespace = told.namespace;
            self.remember(Made {
                namespace: namespace.clone(),
                container: container.clone(),
                facts: None,
            });
            if let Ok(look) = looks.clone().try_acquire_owned() {
                let this = self.clone();
                tokio::spawn(async move {
                    this.look_at_made(namespace, container).await;
                    drop(look);
                });
            }
        }
        Ok(())
    }

    async fn look_at_made(&self, namespace: String, made: ContainerMessage) {
        let Ok(Some(found)) = self.get(&made.id, namespace.clone()).await else {
            return;
        };
        let facts = Some(self.facts_of_found(&found).await);
        self.remember(Made {
            namespace,
            container: found.container,
            facts,
        });
    }

    /// The latest of an id in a namespace counts, and of all the latest.
    fn remember(&self, one: Made) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|m| (&m.container.id, &m.namespace) != (&one.container.id, &one.namespace));
        if made.len() >= MAX_MADE {
            made.pop_front();
        }
        made.push_back(one);
    }

    /// What was remembered of a container that has been removed.
    async fn removed(&self, id: &str, cgroup_path: &str) -> Option<Facts> {
        let made: Vec<Made> = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.iter()
                .filter(|m| m.container.id == id)
                .cloned()
                .collect()
        };
        let candidates = made.into_iter().map(|m| {
            let found = Found::new(m.namespace, m.container);
            (found, m.facts)
        });
        let (found, facts) = the_one(candidates.collect(), |(f, _)| f.is_in(cgroup_path))?;
        match facts {
            Some(facts) => Some(facts),
            None => Some(self.facts_of_found(&found).await),
        }
    }

    /// Facts about the container `id` whose cgroup is `cgroup_path`; `None`: it is not known here.
    pub(super) async fn facts(&self, id: &str, cgroup_path: &str) -> Result<Option<Facts>, Status> {
        match self.find(id, cgroup_path).await? {
            Some(found) => Ok(Some(self.facts_of_found(&found).await)),
            None => Ok(self.removed(id, cgroup_path).await),
        }
    }

    async fn facts_of_found(&self, found: &Found) -> Facts {
        let mut facts = facts_of(found);
        if let Err(why) = self.image(found, &mut facts).await {
            facts.missing = bounded(&format!(
                "containerd does not tell the image's digest: {why}"
            ));
        }
        facts
    }

    /// Ids are unique within a namespace only: the one whose spec names this cgroup, else the only one.
    async fn find(&self, id: &str, cgroup_path: &str) -> Result<Option<Found>, Status> {
        let mut candidates = Vec::new();
        for namespace in self.namespaces().await? {
            candidates.extend(self.get(id, namespace).await?);
        }
        Ok(the_one(candidates, |f| f.is_in(cgroup_path)))
    }

    async fn get(&self, id: &str, namespace: String) -> Result<Option<Found>, Status> {
        let request = GetContainerRequest { id: id.to_owned() };
        let path = "/containerd.services.containers.v1.Containers/Get";
        let said: Result<GetContainerResponse, Status> = self.call(path, &namespace, request).await;
        match said {
            Ok(said) => Ok(said.container.map(|c| Found::new(namespace, c))),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn namespaces(&self) -> Result<Vec<String>, Status> {
        let said: ListNamespacesResponse = self
            .call(
                "/containerd.services.namespaces.v1.Namespaces/List",
                "",
                ListNamespacesRequest {
                    filter: String::new(),
                },
            )
            .await?;
        let names = said.namespaces.into_iter().map(|n| n.name);
        Ok(names.filter(|n| n != "moby").take(MAX_NAMESPACES).collect())
    }

    /// Fills in the digests of the image: its target, and the configuration of the platform in use.
    async fn image(&self, found: &Found, facts: &mut Facts) -> Result<(), String> {
        if found.container.image.is_empty() {
            return Err("the container names no image".to_owned());
        }
        let request = GetImageRequest {
            name: found.container.image.clone(),
        };
        let said: GetImageResponse = self
            .call(
                "/containerd.services.images.v1.Images/Get",
                &found.namespace,
                request,
            )
            .await
            .map_err(|s| said_no(&s))?;
        let target = said
            .image
            .and_then(|i| i.target)
            .ok_or("the image has no target")?;
        let mut digest = target.digest;
        for _ in 0..MAX_DEPTH {
            let document = self.document(&found.namespace, &digest).await?;
            if let Some(config) = document.pointer("/config/digest").and_then(Value::as_str) {
                facts.image.manifest_digest = Digest::parse(&digest).ok();
                facts.image.config_digest = Digest::parse(config).ok();
                return Ok(());
            }
            facts.image.index_digest = Digest::parse(&digest).ok();
            digest = of_this_platform(&document).ok_or("no manifest of this platform")?;
        }
        Err("indexes in indexes".to_owned())
    }

    /// A manifest or index out of the content store.
    async fn document(&self, namespace: &str, digest: &str) -> Result<Value, String> {
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        };
        let mut grpc = self.grpc().await.map_err(|s| said_no(&s))?;
        let request = in_namespace(request, namespace).map_err(|s| said_no(&s))?;
        let path = "/containerd.services.content.v1.Content/Read";
        let codec = ProstCodec::<ReadContentRequest, ReadContentResponse>::default();
        let mut stream = grpc
            .server_streaming(request, path.parse().expect("a constant path"), codec)
            .await
            .map_err(|s| said_no(&s))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(|s| said_no(&s))? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Err(format!(
                    "{digest} is larger than {MAX_DOCUMENT_BYTES} bytes"
                ));
            }
        }
        serde_json::from_slice(&bytes).map_err(|e| format!("{digest}: {e}"))
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(format!("not connected: {}", causes(&e))))?;
        Ok(grpc)
    }

    async fn call<Q, A>(&self, path: &'static str, namespace: &str, ask: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let request = in_namespace(ask, namespace)?;
        let path = path.parse().expect("a constant path");
        let codec = ProstCodec::<Q, A>::default();
        let said = self.grpc().await?.unary(request, path, codec).await?;
        Ok(said.into_inner())
    }
}

fn in_namespace<Q>(ask: Q, namespace: &str) -> Result<Request<Q>, Status> {
    let mut request = Request::new(ask);
    if !namespace.is_empty() {
        let value = MetadataValue::try_from(namespace)
            .map_err(|_| Status::invalid_argument("a namespace that is no header value"))?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
    Ok(request)
}

fn said_no(status: &Status) -> String {
    bounded(&format!("{}: {}", status.code(), status.message()))
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    bounded(&text)
}

/// What the container's own record says, before its image is looked at.
fn facts_of(found: &Found) -> Facts {
    let mut f = crate::disk::of_bundle(&found.spec, Runtime::Containerd);
    f.image.config_digest = None;
    f.missing.clear();
    f.stand_in = None;
    let c = &found.container;
    // what CRI and nerdctl note on the container is more than the bundle's annotations have
    let labels = c.labels.iter().map(|(k, v)| (bounded(k), bounded(v)));
    f.labels.extend(labels);
    while f.labels.len() > crate::facts::MAX_LABELS {
        f.labels.pop_last();
    }
    if !c.image.is_empty() {
        let name = f.labels.get("io.kubernetes.cri.image-name");
        // CRI names the image by its id; the name that a person wrote is in the annotation
        let name = name.filter(|_| c.image.starts_with("sha256:")).cloned();
        f.image.name = bounded(&name.unwrap_or_else(|| c.image.clone()));
        f.image.repository = crate::facts::repository_of(&f.image.name);
    }
    let label = |l: &str| f.labels.get(l).filter(|v| !v.is_empty()).cloned();
    let name = label("nerdctl/name")
        .or_else(|| label("io.kubernetes.container.name"))
        .unwrap_or_else(|| {
            if f.name.is_empty() {
                bounded(&c.id)
            } else {
                f.name.clone()
            }
        });
    f.sandbox |= label("io.cri-containerd.kind").as_deref() == Some("sandbox");
    f.name = name;
    crate::disk::orchestrated(&mut f);
    f
}

/// The manifest of this machine's platform in an index: Linux, this architecture, else the first of
/// Linux (an index that was fetched for one platform has only that one's content).
fn of_this_platform(index: &Value) -> Option<String> {
    let manifests = index.pointer("/manifests")?.as_array()?;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let said =
        |m: &Value, what: &str| -> Option<String> { Some(m.pointer(what)?.as_str()?.to_owned()) };
    let linux: Vec<&Value> = manifests
        .iter()
        .take(MAX_MANIFESTS)
        // attestations are manifests of the platform "unknown"
        .filter(|m| said(m, "/platform/os").is_none_or(|os| os == "linux"))
        .collect();
    let fits = |m: &&&Value| said(m, "/platform/architecture").as_deref() == Some(arch);
    let chosen = linux.iter().find(fits).or_else(|| linux.first())?;
    said(chosen, "/digest")
}

/// The topic under which containerd tells that it has made a container.
const CREATED: &str = "/containers/create";

#[derive(Clone, PartialEq, Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<AnyMessage>,
}
/// `containerd.events.ContainerCreate` (`api/events/container.proto`).
#[derive(Clone, PartialEq, Message)]
struct ContainerCreate {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    image: String,
}
#[derive(Clone, PartialEq, Message)]
struct GetContainerRequest {
    #[prost(string, tag = "1")]
    id: String,
}
#[derive(Clone, PartialEq, Message)]
struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    container: Option<ContainerMessage>,
}
#[derive(Clone, PartialEq, Message)]
struct ContainerMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(message, optional, tag = "5")]
    spec: Option<AnyMessage>,
}
/// `google.protobuf.Any`; the value of a spec is the JSON of the OCI runtime-spec.
#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}
#[derive(Clone, PartialEq, Message)]
struct GetImageRequest {
    #[prost(string, tag = "1")]
    name: String,
}
#[derive(Clone, PartialEq, Message)]
struct GetImageResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageMessage>,
}
#[derive(Clone, PartialEq, Message)]
struct ImageMessage {
    #[prost(message, optional, tag = "3")]
    target: Option<Descriptor>,
}
#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(string, tag = "2")]
    digest: String,
}
#[derive(Clone, PartialEq, Message)]
struct ReadContentRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}
#[derive(Clone, PartialEq, Message)]
struct ReadContentResponse {
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}
#[derive(Clone, PartialEq, Message)]
struct ListNamespacesRequest {
    #[prost(string, tag = "1")]
    filter: String,
}
#[derive(Clone, PartialEq, Message)]
struct ListNamespacesResponse {
    #[prost(message, repeated, tag = "1")]
    namespaces: Vec<NamespaceMessage>,
}
#[derive(Clone, PartialEq, Message)]
struct NamespaceMessage {
    #[prost(string, tag = "1")]
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(labels: &[(&str, &str)], image: &str, spec: Value) -> Found {
        Found {
            namespace: "k8s.io".to_owned(),
            container: ContainerMessage {
                id: "abc".to_owned(),
                labels: labels
                    .iter()
                    .map(|(k, v)| (String::from(*k), String::from(*v)))
                    .collect(),
                image: image.to_owned(),
                spec: None,
            },
            spec,
        }
    }

    #[test]
    fn a_kubernetes_container_has_pod_namespace_and_name() {
        let labels = [
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "nginx"),
            ("io.cri-containerd.kind", "container"),
        ];
        let spec = json!({
            "process": {"args": ["nginx"]},
            "annotations": {"io.kubernetes.cri.image-name": "docker.io/library/nginx:1"}
        });
        let f = facts_of(&found(&labels, "sha256:00", spec));
        assert_eq!(
            (f.pod.as_deref(), f.namespace.as_deref()),
            (Some("web-0"), Some("shop"))
        );
        assert_eq!((f.name.as_str(), f.role().as_str()), ("nginx", "nginx"));
        assert_eq!(
            f.image.repository.as_deref(),
            Some("docker.io/library/nginx")
        );
        assert!(!f.sandbox);
    }

    #[test]
    fn the_manifest_of_this_platform_is_chosen_and_attestations_are_not() {
        let platform = |os: &str, arch: &str, digest: &str| json!({"digest": digest, "platform": {"os": os, "architecture": arch}});
        let all = json!({"manifests": [
            platform("windows", "amd64", "w"), platform("unknown", "unknown", "a"),
            platform("linux", "amd64", "x"), platform("linux", "arm64", "y")
        ]});
        let mine = if std::env::consts::ARCH == "aarch64" {
            "y"
        } else {
            "x"
        };
        assert_eq!(of_this_platform(&all).as_deref(), Some(mine));
        assert_eq!(
            of_this_platform(&json!({"manifests": [{"digest": "z"}]})).as_deref(),
            Some("z")
        );
        for bad in [
            json!({}),
            json!({"manifests": 7}),
            json!({"manifests": [platform("unknown", "u", "a")]}),
        ] {
            assert_eq!(of_this_platform(&bad), None);
        }
    }
}
