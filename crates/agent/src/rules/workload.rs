//! `container.*` and `k8s.*`.
//!
//! Promises: what was not found out about a container is absent, as in Falco; the id is there for
//! every event of a container, whether or not the rest is.

use super::view::View;
use plimsoll_baseline::alert::image_parts;
use plimsoll_model::{Container, MountPoint};
use plimsoll_rules::{Field, FieldArg, FieldRef, Value, glob_fits};
use plimsoll_workload::pod;
use std::collections::BTreeMap;

fn text(value: &str) -> Value<'_> {
    Value::text((!value.is_empty()).then_some(value.as_bytes()))
}

/// One of `container.*` or `k8s.*`.
pub(super) fn field<'v>(view: &'v View<'_>, field: &FieldRef) -> Value<'v> {
    use Field as F;
    match field.field {
        F::ContainerId => return Value::Text(view.container_id().as_bytes()),
        F::ContainerFullId => {
            return match &view.obs.instance {
                Some(instance) => Value::Text(instance.id.as_str().as_bytes()),
                None => Value::Text(view.container_id().as_bytes()),
            };
        }
        F::ContainerName if view.container_id() == "host" => return Value::Text(b"host"),
        F::ContainerType if view.container_id() == "host" => return Value::Text(b"host"),
        F::ContainerDuration => {
            return match &view.obs.instance {
                Some(i) => Value::UInt(view.obs.event.boot.0.saturating_sub(i.start.0)),
                None => Value::Absent,
            };
        }
        _ => {}
    }
    match view.container {
        Some(container) => of(view, container, field),
        None => Value::Absent,
    }
}

fn of<'v>(view: &'v View<'_>, c: &'v Container, field: &FieldRef) -> Value<'v> {
    use Field as F;
    let (name_repository, tag) = image_parts(&c.image.name);
    match field.field {
        F::ContainerName => text(&c.name),
        F::ContainerType => Value::Text(c.runtime.as_str().as_bytes()),
        F::ContainerImage => text(&c.image.name),
        F::ContainerImageRepository => {
            text(c.image.repository.as_deref().unwrap_or(name_repository))
        }
        F::ContainerImageTag => text(tag),
        F::ContainerImageDigest => {
            text(c.image.manifest_digest.as_ref().map_or("", |d| d.as_str()))
        }
        F::ContainerImageId => text(c.image.config_digest.as_ref().map_or("", |d| d.as_str())),
        F::ContainerPrivileged => Value::Bool(c.privileged),
        F::ContainerMounts => match &c.mount_points {
            Some(points) => {
                let all: Vec<String> = points.iter().map(line_of).collect();
                view.text(all.join(","))
            }
            None => Value::Unknown,
        },
        F::ContainerMount
        | F::ContainerMountSource
        | F::ContainerMountDest
        | F::ContainerMountMode
        | F::ContainerMountRdwr
        | F::ContainerMountPropagation => mount(view, c, field),
        F::ContainerStartTs => Value::UInt(c.first_seen.wall.0.max(0) as u64),
        F::ContainerIp => text(c.addresses.first().map_or("", String::as_str)),
        F::ContainerLabel => label(&c.labels, &field.arg),
        F::ContainerLabels => match c.labels.is_empty() {
            true => Value::Absent,
            false => view.text(pairs(&c.labels)),
        },
        F::K8sPodName => text(c.pod.as_deref().unwrap_or_default()),
        F::K8sNsName => text(c.namespace.as_deref().unwrap_or_default()),
        F::K8sPodId | F::K8sPodUid => text(pod::uid(c).unwrap_or_default()),
        F::K8sPodFullSandboxId => sandbox_of(c).map_or_else(|| untold(c), text),
        F::K8sPodSandboxId => {
            let id = sandbox_of(c).map(|id| id.get(..12).unwrap_or(id));
            id.map_or_else(|| untold(c), text)
        }
        F::K8sPodIp => match &c.pod_facts {
            Some(facts) if !facts.address.is_empty() => text(&facts.address),
            _ => untold(c),
        },
        F::K8sPodLabel | F::K8sPodLabels => pod_label(view, c, field),
        _ => Value::Unknown,
    }
}

/// The sandbox of the pod that a container is in.
fn sandbox_of(c: &Container) -> Option<&str> {
    let told = c.pod_facts.as_ref().map(|p| p.sandbox.as_str());
    told.or_else(|| pod::sandbox_id(c))
}

/// What only a pod's sandbox tells: not told, and not absent, where the container is in a pod whose
/// sandbox has not been seen.
fn untold(c: &Container) -> Value<'static> {
    match pod::uid(c) {
        Some(_) => Value::Unknown,
        None => Value::Absent,
    }
}

/// A label of a container's pod, or all of them.
fn pod_label<'v>(view: &'v View<'_>, c: &'v Container, field: &FieldRef) -> Value<'v> {
    let Some(labels) = c.pod_facts.as_ref().and_then(|p| p.labels.as_ref()) else {
        return untold(c);
    };
    match field.field {
        Field::K8sPodLabel => label(labels, &field.arg),
        _ if labels.is_empty() => Value::Absent,
        _ => view.text(pairs(labels)),
    }
}

/// `key:value, key:value`, as Falco writes labels.
fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}:{v}")).collect();
    pairs.join(", ")
}

/// A mount by its number, or by its source; where the source is asked for, by its destination.
fn mount<'v>(view: &'v View<'_>, c: &'v Container, field: &FieldRef) -> Value<'v> {
    use Field as F;
    let Some(points) = &c.mount_points else {
        return Value::Unknown;
    };
    let end = |p: &'v MountPoint| match field.field {
        F::ContainerMountSource => p.destination.as_bytes(),
        _ => p.source.as_bytes(),
    };
    let found = match &field.arg {
        FieldArg::Index(i) => points.get(*i as usize),
        FieldArg::Key(pattern) => points
            .iter()
            .find(|p| glob_fits(pattern.as_bytes(), end(p))),
        FieldArg::None => None,
    };
    let Some(p) = found else {
        return Value::Absent;
    };
    match field.field {
        F::ContainerMount => view.text(line_of(p)),
        F::ContainerMountSource => Value::Text(p.source.as_bytes()),
        F::ContainerMountDest => Value::Text(p.destination.as_bytes()),
        F::ContainerMountMode => Value::Text(p.mode.as_bytes()),
        F::ContainerMountPropagation => Value::Text(p.propagation.as_bytes()),
        _ => Value::Text(if p.writable { b"true" } else { b"false" }),
    }
}

/// `source:destination:mode:writable:propagation`, as Falco writes it.
fn line_of(p: &MountPoint) -> String {
    let MountPoint {
        source,
        destination,
        mode,
        writable,
        propagation,
    } = p;
    format!("{source}:{destination}:{mode}:{writable}:{propagation}")
}

fn label<'v>(labels: &'v BTreeMap<String, String>, arg: &FieldArg) -> Value<'v> {
    match arg {
        FieldArg::Key(key) => Value::text(labels.get(&**key).map(|v| v.as_bytes())),
        FieldArg::Index(i) => Value::text(labels.get(&i.to_string()).map(|v| v.as_bytes())),
        FieldArg::None => Value::Absent,
    }
}
