//! Where a container's mounts lead on its node.
//!
//! A path in a container says little when the node's own files are mounted there: `/host/etc/cron.d/x` is
//! `/etc/cron.d/x` of the node. What a runtime was told of sources and destinations says which.
//!
//! Left out: mounts that were made later, from inside (those are acts, and told as such), and links: the
//! paths of the kernel are resolved already.

use crate::acts::Acts;
use plimsoll_api::describe;
use plimsoll_model::paths::{Sensitive, sensitive};
use plimsoll_model::workload::MountPoint;
use plimsoll_model::{Container, Text};

/// Places of a node with which little of it is left to itself.
const SYSTEM: [&str; 21] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/run",
    "/var/spool/cron",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
];
/// Below these lie volumes that the orchestrator made for the container: its own files.
const OWN: [&str; 4] = [
    "/var/lib/docker/volumes/",
    "/var/lib/containers/storage/volumes/",
    "/var/lib/docker/containers/",
    "/var/lib/containerd/io.containerd.grpc.v1.cri/",
];

/// What a mount opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The whole node, or a part that others obey.
    Node,
    /// The socket of a container runtime: whoever writes to it is root on the node.
    Socket,
    /// Another directory of the node.
    Data,
}

/// What a mount opens on the node; `None`: it is the container's own.
pub(crate) fn door(m: &MountPoint) -> Option<Door> {
    let source = trimmed(&m.source);
    if !source.starts_with('/') {
        return None; // a volume, tmpfs
    }
    if sensitive(source.as_bytes()) == Some(Sensitive::RuntimeSocket) {
        return Some(Door::Socket);
    }
    let made_for_it = is_pod_volume(source) || OWN.iter().any(|o| source.starts_with(o));
    if made_for_it {
        return None;
    }
    let system = SYSTEM.iter().any(|s| within(source, s).is_some());
    Some(
        match source.is_empty()
            || source == "/"
            || source == "/var"
            || source == "/var/lib"
            || system
        {
            true => Door::Node,
            false => Door::Data,
        },
    )
}

/// A secret object that the orchestrator mounted: its name, by where the kubelet or the engine keeps it.
pub(crate) fn secret_object(m: &MountPoint) -> Option<&str> {
    let source = trimmed(&m.source);
    let kinds = [
        "kubernetes.io~secret/",
        "kubernetes.io~projected/",
        "kubernetes.io~csi/",
    ];
    let of_kubelet = kinds
        .iter()
        .find_map(|k| source.split_once(k))
        .map(|(_, rest)| rest);
    let name = match of_kubelet {
        Some(rest) => rest.split('/').next()?,
        None => source.split_once("/mounts/secrets/")?.1,
    };
    (!name.is_empty()).then_some(name)
}

fn is_pod_volume(source: &str) -> bool {
    source.starts_with("/var/lib/kubelet/pods/")
        && (source.contains("/volumes/")
            || source.contains("/volume-subpaths/")
            || source.contains("/etc-hosts")
            || source.contains("/containers/"))
}

/// The node's path of a path in the container, where a mount of the node's files lies over it, and what
/// that mount opens. The deepest mount counts.
pub(crate) fn on_node<'a>(c: &'a Container, path: &[u8]) -> Option<(Text, Door, &'a MountPoint)> {
    let path = std::str::from_utf8(path).ok()?;
    let over = c.mount_points.iter().flatten().filter_map(|m| {
        let rest = within(path, trimmed(&m.destination))?;
        Some((m, rest))
    });
    let (m, rest) = over.min_by_key(|(_, rest)| rest.len())?;
    let door = door(m)?;
    let node = format!("{}{rest}", trimmed(&m.source).trim_end_matches('/'));
    Some((Text::from(node), door, m))
}

/// These sorts of acts, and ordinary ones on files where files of the node are mounted: what they are
/// there nobody can tell by the act alone.
pub(crate) fn looked(c: Option<&Container>, acts: Acts) -> Acts {
    let mut points = c.into_iter().flat_map(|c| c.mount_points.iter().flatten());
    match points.any(|m| door(m).is_some()) {
        true => acts.or(Acts::READ).or(Acts::CHANGE),
        false => acts,
    }
}

/// A mount in words: `/etc of the node at /host/etc (writable)`.
pub(crate) fn told(m: &MountPoint) -> String {
    let mut how = vec![if m.writable { "writable" } else { "read-only" }];
    if m.propagation.ends_with("shared") && m.propagation.starts_with('r')
        || m.propagation == "shared"
    {
        how.push("mounts made in it appear on the node");
    }
    format!(
        "{} at {} ({})",
        describe::words(&m.source),
        describe::words(&m.destination),
        how.join(", ")
    )
}

/// What of a path lies below a directory, with its slash; all of it below `/`.
fn within<'p>(path: &'p str, dir: &str) -> Option<&'p str> {
    let dir = dir.trim_end_matches('/');
    let rest = path.strip_prefix(dir)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn trimmed(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, destination: &str) -> MountPoint {
        MountPoint {
            source: source.into(),
            destination: destination.into(),
            ..MountPoint::default()
        }
    }

    #[test]
    fn what_a_mount_opens_is_told_by_its_source() {
        let opens = |source| door(&mount(source, "/x"));
        for node in [
            "/",
            "/etc",
            "/etc/",
            "/proc",
            "/var",
            "/var/lib/kubelet",
            "/root/.ssh",
            "/var/lib/docker",
        ] {
            assert_eq!(opens(node), Some(Door::Node), "{node}");
        }
        assert_eq!(opens("/var/run/docker.sock"), Some(Door::Socket));
        assert_eq!(opens("/run/containerd/containerd.sock"), Some(Door::Socket));
        assert_eq!(opens("/srv/shop"), Some(Door::Data));
        for own in [
            "shop-data",
            "tmpfs",
            "/var/lib/docker/volumes/shop/_data",
            "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~empty-dir/cache",
        ] {
            assert_eq!(opens(own), None, "{own}");
        }
    }

    #[test]
    fn a_path_is_the_nodes_through_the_deepest_mount() {
        let mut c = Container::new(
            plimsoll_model::Instance {
                id: plimsoll_model::ContainerId::parse("ab").unwrap(),
                start: plimsoll_model::BootNs(1),
            },
            plimsoll_model::Runtime::Docker,
            plimsoll_model::Stamp::default(),
        );
        c.mount_points = Some(vec![
            mount("/", "/host"),
            mount("scratch", "/host/tmp"),
            mount("/srv/shop", "/data"),
        ]);
        let node = |path: &str| on_node(&c, path.as_bytes()).map(|(p, d, _)| (p.to_string(), d));
        assert_eq!(
            node("/host/etc/shadow"),
            Some(("/etc/shadow".into(), Door::Node))
        );
        assert_eq!(node("/host/tmp/x"), None, "a volume lies over it");
        assert_eq!(node("/data/a"), Some(("/srv/shop/a".into(), Door::Data)));
        assert_eq!(node("/hostile"), None);
        assert_eq!(node("/etc/shadow"), None);
    }

    #[test]
    fn secret_objects_are_named_by_where_they_are_kept() {
        let named = |source: &str| secret_object(&mount(source, "/x")).map(str::to_owned);
        let pod = "/var/lib/kubelet/pods/1-2/volumes";
        assert_eq!(
            named(&format!("{pod}/kubernetes.io~secret/db-password")),
            Some("db-password".into())
        );
        assert_eq!(
            named(&format!(
                "{pod}/kubernetes.io~projected/kube-api-access-x2x9z"
            )),
            Some("kube-api-access-x2x9z".into())
        );
        assert_eq!(named("/srv/shop"), None);
    }
}
