//! Which cgroup hierarchy tells containers apart, and which container a cgroup path belongs to.
//!
//! Promises: [`classify`] is pure and looks at the path only; it never takes a helper of a runtime
//! (conmon, a shim, a monitor) or a pod's slice for a container. Below a container it looks for
//! containers nested in it; any other sub-cgroup belongs to the container.
//!
//! Left out: cgroups whose name says nothing (bare runc and crun take any path). Those need
//! evidence, see [`crate::disk`]. A path is also no proof: a process that may write its own cgroup
//! tree can make a sub-cgroup that is named like a nested container. So a nested identity always
//! names its outer container, and nothing on the host's disk is read for it.

use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_model::{ContainerId, Runtime};
use std::fs;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes read of a `mountinfo`.
const MAX_MOUNTINFO_BYTES: u64 = 16 << 20;
/// v1 controllers that every container manager fills, best first.
const V1_CONTROLLERS: [&str; 9] = [
    "pids",
    "memory",
    "cpu",
    "cpuacct",
    "devices",
    "freezer",
    "blkio",
    "cpuset",
    "name=systemd",
];
/// Segments looked at in a path.
const MAX_SEGMENTS: usize = 64;

/// Version of a cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// The unified hierarchy.
    V2,
    /// A v1 hierarchy, by one of its controllers (`pids`).
    V1 {
        /// Controller.
        controller: String,
    },
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which.
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// How cgroups are laid out on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The hierarchy that tells containers apart.
    pub identifying: Hierarchy,
    /// On hybrid machines a v1 hierarchy beside it, for runtimes that fill only v1. Ids of its cgroups
    /// are marked ([`IN_SECOND_HIERARCHY`]).
    pub second: Option<Hierarchy>,
    /// All mounted hierarchies, that one included; the first mount of each.
    pub all: Vec<Hierarchy>,
    /// Controllers of all mounted v1 hierarchies (`net_cls`), as the mounts name them.
    pub controllers: Vec<String>,
}

/// Why the layout could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum DetectLayoutError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No cgroup file system is mounted.
    #[error("no cgroup hierarchy is mounted that tells containers apart ({path} lists none)")]
    NoHierarchy {
        /// What was read.
        path: PathBuf,
    },
}

impl Layout {
    /// Finds it out from `<proc_root>/self/mountinfo`.
    ///
    /// With both versions mounted v2 has the word, and a v1 hierarchy is looked at beside it: there
    /// are runtimes that fill both, only v1, and (where v2 has controllers) only v2.
    ///
    /// # Errors
    /// When mounts cannot be read or there is no cgroup hierarchy.
    pub fn detect(proc_root: &Path) -> Result<Self, DetectLayoutError> {
        let path = proc_root.join("self/mountinfo");
        let mut text = Vec::new();
        fs::File::open(&path)
            .and_then(|f| f.take(MAX_MOUNTINFO_BYTES).read_to_end(&mut text))
            .map_err(|source| DetectLayoutError::Read {
                path: path.clone(),
                source,
            })?;
        let text = String::from_utf8_lossy(&text);
        Self::of(hierarchies(&text), controllers(&text))
            .ok_or(DetectLayoutError::NoHierarchy { path })
    }

    /// Whether the unified hierarchy is mounted.
    pub fn has_v2(&self) -> bool {
        self.all.iter().any(|h| h.version == Version::V2)
    }

    /// Whether a v1 hierarchy with one of these controllers is mounted.
    pub fn has_v1(&self, controllers: &[&str]) -> bool {
        self.controllers
            .iter()
            .any(|c| controllers.contains(&c.as_str()))
    }

    /// The path of a process's container cgroup in the hierarchy that knows it, from the text of its
    /// `/proc/PID/cgroup`, with the mark that ids of that hierarchy carry.
    pub fn marked_path<'a>(&self, proc_cgroup: &'a str) -> Option<(&'a str, u64)> {
        let first = self.path_in(proc_cgroup).filter(|p| *p != "/");
        let second = || Some((self.path_in_second(proc_cgroup)?, IN_SECOND_HIERARCHY));
        first.map(|p| (p, 0)).or_else(second)
    }

    fn of(all: Vec<Hierarchy>, controllers: Vec<String>) -> Option<Self> {
        let v2 = all.iter().find(|h| h.version == Version::V2);
        let v1 = V1_CONTROLLERS.iter().find_map(|c| {
            all.iter()
                .find(|h| matches!(&h.version, Version::V1 { controller } if controller == c))
        });
        // what systemd itself fills has no number in /proc/cgroups
        let named = |h: &&Hierarchy| matches!(&h.version, Version::V1 { controller } if controller.contains('='));
        Some(Self {
            identifying: v2.or(v1)?.clone(),
            second: v2.and(v1).filter(|h| !named(h)).cloned(),
            all,
            controllers,
        })
    }

    /// Directory of a cgroup, given its path in the identifying hierarchy; `None` for a path that
    /// would leave the mount.
    pub fn dir(&self, path: &str) -> Option<PathBuf> {
        dir_in(&self.identifying, path)
    }

    /// Kernfs id of a cgroup, given its path in the identifying hierarchy.
    pub fn id_of(&self, path: &str) -> Option<u64> {
        self.look_for(path)?.ok()
    }

    /// The same with why there is none; `None`: the path names no cgroup.
    pub(crate) fn look_for(&self, path: &str) -> Option<io::Result<u64>> {
        Some(fs::symlink_metadata(self.dir(path)?).map(|m| m.ino()))
    }

    /// Marked id of a cgroup, given its path in the second hierarchy.
    pub fn id_in_second(&self, path: &str) -> Option<u64> {
        self.look_for_in_second(path)?.ok()
    }

    /// The same with why there is none; `None`: there is no second hierarchy, or the path names no cgroup.
    pub(crate) fn look_for_in_second(&self, path: &str) -> Option<io::Result<u64>> {
        let dir = dir_in(self.second.as_ref()?, path)?;
        Some(fs::symlink_metadata(dir).map(|m| m.ino() | IN_SECOND_HIERARCHY))
    }

    /// Directory of the cgroup with this id, given its path in the hierarchy of which the id is.
    pub(crate) fn dir_of(&self, path: &str, cgroup_id: u64) -> Option<PathBuf> {
        match cgroup_id & IN_SECOND_HIERARCHY {
            0 => self.dir(path),
            _ => dir_in(self.second.as_ref()?, path),
        }
    }

    /// A process's path in the identifying hierarchy, from the text of its `/proc/PID/cgroup`.
    pub fn path_in<'a>(&self, proc_cgroup: &'a str) -> Option<&'a str> {
        path_in(&self.identifying.version, proc_cgroup)
    }

    /// The same in the second hierarchy.
    pub fn path_in_second<'a>(&self, proc_cgroup: &'a str) -> Option<&'a str> {
        path_in(&self.second.as_ref()?.version, proc_cgroup)
    }
}

fn dir_in(hierarchy: &Hierarchy, path: &str) -> Option<PathBuf> {
    let below = path.trim_start_matches('/');
    (!below.split('/').any(|s| s == "..")).then(|| hierarchy.mount.join(below))
}

fn path_in<'a>(version: &Version, proc_cgroup: &'a str) -> Option<&'a str> {
    proc_cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let matches = match version {
            Version::V2 => line.starts_with("0::"),
            Version::V1 { controller } => controllers.split(',').any(|c| c == controller),
        };
        matches.then(|| path.strip_suffix(" (deleted)").unwrap_or(path))
    })
}

/// The cgroup mounts of a `mountinfo`.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut all: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        // a bind mount of a part of the hierarchy (inside a container) is not the hierarchy
        let (Some(&"/"), Some(mount), Some(fstype)) = (before.get(3), before.get(4), after.first())
        else {
            continue;
        };
        let version = match *fstype {
            "cgroup2" => Version::V2,
            "cgroup" => match v1_controller(after.get(2).copied().unwrap_or_default()) {
                Some(controller) => Version::V1 {
                    controller: controller.to_owned(),
                },
                None => continue,
            },
            _ => continue,
        };
        if !all.iter().any(|h| h.version == version) {
            all.push(Hierarchy {
                version,
                mount: PathBuf::from(unescape_mount(mount)),
            });
        }
    }
    all
}

/// What the super blocks of v1 mounts name: controllers, and options beside them.
fn controllers(mountinfo: &str) -> Vec<String> {
    let v1 = |line: &str| {
        let (_, after) = line.split_once(" - ")?;
        let mut words = after.split(' ');
        (words.next() == Some("cgroup")).then(|| words.nth(1).map(str::to_owned))?
    };
    let all = mountinfo.lines().filter_map(v1);
    all.flat_map(|o| o.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The best controller among the super block options of a v1 mount (`rw,cpu,cpuacct`).
fn v1_controller(options: &str) -> Option<&'static str> {
    V1_CONTROLLERS
        .into_iter()
        .find(|c| options.split(',').any(|o| o == *c))
}

/// `mountinfo` writes space, tab, newline and backslash as octal.
fn unescape_mount(path: &str) -> String {
    path.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// What a cgroup path says about the container it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupIdentity {
    /// Who probably runs it (what is on disk may know better).
    pub runtime: Runtime,
    /// The runtime's id.
    pub id: ContainerId,
    /// Path of the container's root cgroup: the given path, or an ancestor of it.
    pub root: String,
    /// Id of the container that this one runs in.
    pub outer: Option<ContainerId>,
    /// Uid of its Kubernetes pod.
    pub pod_uid: Option<String>,
}

impl CgroupIdentity {
    /// Runs inside another container.
    pub fn is_nested(&self) -> bool {
        self.outer.is_some()
    }
}

/// The container (innermost, where containers are nested) that a cgroup path belongs to.
pub fn classify(path: &str) -> Option<CgroupIdentity> {
    if !path.starts_with('/') {
        return None;
    }
    let mut found: Option<CgroupIdentity> = None;
    let mut pod_uid: Option<String> = None;
    let mut end = 0;
    let segments: Vec<&str> = path[1..].split('/').take(MAX_SEGMENTS).collect();
    for (i, segment) in segments.iter().enumerate() {
        end += 1 + segment.len();
        if let Some(uid) = pod_uid_of(segment) {
            pod_uid = Some(uid);
        }
        match name_of(segment, &segments[..i]) {
            Name::Helper => break,
            Name::Other => {}
            Name::Container(runtime, id) => {
                let Ok(id) = ContainerId::parse(id) else {
                    continue;
                };
                // `libpod-ID.scope/libpod-payload-ID` is one container
                if found.as_ref().is_some_and(|f| f.id == id) {
                    continue;
                }
                found = Some(CgroupIdentity {
                    runtime,
                    id,
                    root: path[..end].to_owned(),
                    outer: found.take().map(|f| f.id),
                    pod_uid: pod_uid.take(),
                });
            }
        }
    }
    found
}

/// What one segment of a path names.
enum Name<'a> {
    Container(Runtime, &'a str),
    /// Something of a runtime that is no container.
    Helper,
    Other,
}

/// Prefixes of `<prefix>-<id>.scope` (systemd), `<prefix>-<id>` (cgroupfs) and
/// `<slice>:<prefix>:<id>` (a runtime that was told the wrong cgroup driver).
const PREFIXES: [(&str, Runtime); 7] = [
    ("docker", Runtime::Docker),
    ("cri-containerd", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("crio", Runtime::Crio),
    ("libpod-payload", Runtime::Podman),
    ("libpod", Runtime::Podman),
    ("buildkit", Runtime::Docker),
];
/// Direct OCI runtimes; systemd units only, and the id can be any.
const OCI_PREFIXES: [&str; 3] = ["runc", "crun", "youki"];
/// Names that begin like a container's and are a helper's.
const HELPERS: [&str; 6] = [
    "crio-conmon-",
    "libpod-conmon-",
    "conmon",
    "lxc.monitor",
    "lxc.pivot",
    "containerd-shim",
];

fn name_of<'a>(segment: &'a str, parents: &[&str]) -> Name<'a> {
    if HELPERS.iter().any(|h| segment.starts_with(h)) {
        return Name::Helper;
    }
    if is_hex64(segment) {
        return bare_id(segment, parents);
    }
    if let Some((runtime, id)) = prefixed(segment).or_else(|| oci_scope(segment)) {
        return Name::Container(runtime, id);
    }
    match parents.last() {
        Some(&"buildkit") if is_buildkit_id(segment) => {
            let runtime = if parents.contains(&"docker") {
                Runtime::Docker
            } else {
                Runtime::Oci
            };
            Name::Container(runtime, segment)
        }
        Some(&"lxc") if parents.len() == 1 => Name::Container(Runtime::Unknown, segment),
        // `ctr run` without another namespace; `k8s.io` and `moby` use 64 hex digits
        Some(&"default") if parents.len() == 1 => Name::Container(Runtime::Containerd, segment),
        _ => match segment.strip_prefix("lxc.payload.") {
            Some(id) => Name::Container(Runtime::Unknown, id),
            None => Name::Other,
        },
    }
}

/// A segment that is nothing but an id: its parents say whose.
fn bare_id<'a>(id: &'a str, parents: &[&str]) -> Name<'a> {
    let parent = parents.last().copied().unwrap_or_default();
    if parent == "libpod_parent" || parent == "podman_pod" {
        return Name::Other; // a Podman pod; its containers are `libpod-ID` below it
    }
    let runtime = match parent {
        "docker" | "moby" => Runtime::Docker,
        "default" | "k8s.io" => Runtime::Containerd,
        "lxc" => Runtime::Unknown,
        p if pod_uid_of(p).is_some() => Runtime::Containerd,
        // `docker run --cgroup-parent`: any name
        _ => Runtime::Docker,
    };
    Name::Container(runtime, id)
}

fn prefixed(segment: &str) -> Option<(Runtime, &str)> {
    let mut colons = segment.rsplitn(3, ':');
    if let (Some(id), Some(prefix), Some(_)) = (colons.next(), colons.next(), colons.next())
        && is_hex64(id)
    {
        let runtime = PREFIXES.iter().find(|(p, _)| *p == prefix).map(|(_, r)| *r);
        return Some((runtime.unwrap_or(Runtime::Unknown), id));
    }
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    PREFIXES.iter().find_map(|(prefix, runtime)| {
        let id = name.strip_prefix(prefix)?.strip_prefix('-')?;
        let ok = is_hex64(id) || (*prefix == "buildkit" && is_buildkit_id(id));
        ok.then_some((*runtime, id))
    })
}

fn oci_scope(segment: &str) -> Option<(Runtime, &str)> {
    let name = segment.strip_suffix(".scope")?;
    OCI_PREFIXES.iter().find_map(|prefix| {
        let id = name.strip_prefix(prefix)?.strip_prefix('-')?;
        (!id.is_empty()).then_some((Runtime::Oci, id))
    })
}

fn is_hex64(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// BuildKit's ids: 25 characters in base 36.
fn is_buildkit_id(s: &str) -> bool {
    s.len() == 25 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z'))
}

/// `pod<uid>` (cgroupfs) and `kubepods-burstable-pod<uid with _>.slice` (systemd) → uid.
fn pod_uid_of(segment: &str) -> Option<String> {
    let uid = match segment.strip_suffix(".slice") {
        Some(unit) if unit.contains("kubepods") => &unit[unit.rfind("-pod")? + 4..],
        Some(_) => return None,
        None => match segment.split_once(".slice:") {
            // `kubepods-besteffort-pod<uid>.slice:cri-containerd:<id>`
            Some((unit, _)) => &unit[unit.rfind("-pod")? + 4..],
            None => segment.strip_prefix("pod")?,
        },
    };
    let looks_right = uid.len() >= 32
        && uid.len() <= 40
        && uid
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b == b'-' || b == b'_');
    looks_right.then(|| uid.replace('_', "-"))
}

/// Whether a path is made of systemd's own units only (slices, services, sessions): no runtime
/// gives a container such a cgroup without a name of its own below it.
pub fn is_host_unit(path: &str) -> bool {
    let Some(last) = path.trim_end_matches('/').rsplit('/').next() else {
        return true;
    };
    let unit = [
        ".slice", ".service", ".mount", ".socket", ".swap", ".device",
    ];
    last.is_empty()
        || unit.iter().any(|u| last.ends_with(u))
        || last == "init.scope"
        || (last.starts_with("session-") && last.ends_with(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";
    const B: &str = "00ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24dab";

    fn path(template: &str) -> String {
        template.replace("{A}", A).replace("{B}", B)
    }

    #[test]
    fn paths_of_every_runtime_name_their_container() {
        let id = "{A}";
        let pod = "123e4567-e89b-12d3-a456-426614174000";
        // (path, runtime, id, root, pod uid)
        let table: &[(&str, Runtime, &str, &str, Option<&str>)] = &[
            ("/docker/{A}", Runtime::Docker, id, "/docker/{A}", None),
            (
                "/docker/{A}/init.scope",
                Runtime::Docker,
                id,
                "/docker/{A}",
                None,
            ),
            (
                "/docker/{A}/system.slice/cron.service",
                Runtime::Docker,
                id,
                "/docker/{A}",
                None,
            ),
            (
                "/system.slice/docker-{A}.scope",
                Runtime::Docker,
                id,
                "/system.slice/docker-{A}.scope",
                None,
            ),
            (
                "/my-parent/{A}",
                Runtime::Docker,
                id,
                "/my-parent/{A}",
                None,
            ),
            (
                "/actions_job/{A}",
                Runtime::Docker,
                id,
                "/actions_job/{A}",
                None,
            ),
            ("/ecs/0123/{A}", Runtime::Docker, id, "/ecs/0123/{A}", None),
            (
                "/db.slice/docker-{A}.scope",
                Runtime::Docker,
                id,
                "/db.slice/docker-{A}.scope",
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
                Runtime::Docker,
                id,
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
                None,
            ),
            (
                "/docker/buildkit/0l9v3gqdqk5ex0cyy5k2kqkyp",
                Runtime::Docker,
                "0l9v3gqdqk5ex0cyy5k2kqkyp",
                "/docker/buildkit/0l9v3gqdqk5ex0cyy5k2kqkyp",
                None,
            ),
            (
                "/buildkit/0l9v3gqdqk5ex0cyy5k2kqkyp",
                Runtime::Oci,
                "0l9v3gqdqk5ex0cyy5k2kqkyp",
                "/buildkit/0l9v3gqdqk5ex0cyy5k2kqkyp",
                None,
            ),
            (
                "/kubepods/besteffort/pod123e4567-e89b-12d3-a456-426614174000/{A}",
                Runtime::Containerd,
                id,
                "/kubepods/besteffort/pod123e4567-e89b-12d3-a456-426614174000/{A}",
                Some(pod),
            ),
            (
                "/kubepods/pod123e4567-e89b-12d3-a456-426614174000/{A}/sub",
                Runtime::Containerd,
                id,
                "/kubepods/pod123e4567-e89b-12d3-a456-426614174000/{A}",
                Some(pod),
            ),
            (
                "/kubepods/burstable/pod123e4567-e89b-12d3-a456-426614174000/crio-{A}",
                Runtime::Crio,
                id,
                "/kubepods/burstable/pod123e4567-e89b-12d3-a456-426614174000/crio-{A}",
                Some(pod),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod123e4567_e89b_12d3_a456_426614174000.slice/cri-containerd-{A}.scope",
                Runtime::Containerd,
                id,
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod123e4567_e89b_12d3_a456_426614174000.slice/cri-containerd-{A}.scope",
                Some(pod),
            ),
            (
                "/kubepods.slice/kubepods-pod123e4567_e89b_12d3_a456_426614174000.slice/crio-{A}.scope/container",
                Runtime::Crio,
                id,
                "/kubepods.slice/kubepods-pod123e4567_e89b_12d3_a456_426614174000.slice/crio-{A}.scope",
                Some(pod),
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod123e4567_e89b_12d3_a456_426614174000.slice/docker-{A}.scope",
                Runtime::Docker,
                id,
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod123e4567_e89b_12d3_a456_426614174000.slice/docker-{A}.scope",
                Some(pod),
            ),
            (
                "/system.slice/containerd.service/kubepods-besteffort-pod123e4567_e89b_12d3_a456_426614174000.slice:cri-containerd:{A}",
                Runtime::Containerd,
                id,
                "/system.slice/containerd.service/kubepods-besteffort-pod123e4567_e89b_12d3_a456_426614174000.slice:cri-containerd:{A}",
                Some(pod),
            ),
            (
                "/default/web",
                Runtime::Containerd,
                "web",
                "/default/web",
                None,
            ),
            (
                "/default/{A}",
                Runtime::Containerd,
                id,
                "/default/{A}",
                None,
            ),
            ("/k8s.io/{A}", Runtime::Containerd, id, "/k8s.io/{A}", None),
            (
                "/system.slice/nerdctl-{A}.scope",
                Runtime::Containerd,
                id,
                "/system.slice/nerdctl-{A}.scope",
                None,
            ),
            (
                "/machine.slice/libpod-{A}.scope",
                Runtime::Podman,
                id,
                "/machine.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/machine.slice/libpod-{A}.scope/container",
                Runtime::Podman,
                id,
                "/machine.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/libpod_parent/libpod-{A}",
                Runtime::Podman,
                id,
                "/libpod_parent/libpod-{A}",
                None,
            ),
            (
                "/libpod_parent/{B}/libpod-{A}",
                Runtime::Podman,
                id,
                "/libpod_parent/{B}/libpod-{A}",
                None,
            ),
            (
                "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
                Runtime::Podman,
                id,
                "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/system.slice/web.service/libpod-payload-{A}",
                Runtime::Podman,
                id,
                "/system.slice/web.service/libpod-payload-{A}",
                None,
            ),
            (
                "/machine.slice/libpod-{A}.scope/libpod-payload-{A}",
                Runtime::Podman,
                id,
                "/machine.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
                Runtime::Podman,
                id,
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
                Runtime::Podman,
                id,
                "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
                None,
            ),
            (
                "/lxc.payload.mail",
                Runtime::Unknown,
                "mail",
                "/lxc.payload.mail",
                None,
            ),
            (
                "/lxc.payload.mail/system.slice/sshd.service",
                Runtime::Unknown,
                "mail",
                "/lxc.payload.mail",
                None,
            ),
            ("/lxc/mail", Runtime::Unknown, "mail", "/lxc/mail", None),
            (
                "/system.slice/runc-web.scope",
                Runtime::Oci,
                "web",
                "/system.slice/runc-web.scope",
                None,
            ),
            (
                "/user.slice/user-0.slice/crun-a.b.scope/x",
                Runtime::Oci,
                "a.b",
                "/user.slice/user-0.slice/crun-a.b.scope",
                None,
            ),
        ];
        for (p, runtime, id, root, pod) in table {
            let p = path(p);
            let got = classify(&p).unwrap_or_else(|| panic!("{p} is a container"));
            assert_eq!(got.runtime, *runtime, "{p}");
            assert_eq!(got.id.as_str(), path(id), "{p}");
            assert_eq!(got.root, path(root), "{p}");
            assert_eq!(got.pod_uid.as_deref(), *pod, "{p}");
            assert_eq!(got.outer, None, "{p}");
        }
    }

    #[test]
    fn a_nested_container_names_its_outer_one() {
        let pod = "123e4567-e89b-12d3-a456-426614174000";
        for (p, runtime, pod) in [
            ("/docker/{A}/docker/{B}", Runtime::Docker, None),
            (
                "/system.slice/docker-{A}.scope/docker/{B}/sub",
                Runtime::Docker,
                None,
            ),
            (
                "/docker/{A}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod123e4567_e89b_12d3_a456_426614174000.slice/cri-containerd-{B}.scope",
                Runtime::Containerd,
                Some(pod),
            ),
            (
                "/docker/{A}/kubelet/kubepods/burstable/pod123e4567-e89b-12d3-a456-426614174000/{B}",
                Runtime::Containerd,
                Some(pod),
            ),
            (
                "/machine.slice/libpod-{A}.scope/container/libpod_parent/libpod-{B}",
                Runtime::Podman,
                None,
            ),
            (
                "/kubepods/pod123e4567-e89b-12d3-a456-426614174000/{A}/docker/{B}",
                Runtime::Docker,
                None,
            ),
        ] {
            let p = path(p);
            let got = classify(&p).unwrap_or_else(|| panic!("{p} is a container"));
            assert_eq!(got.id.as_str(), B, "{p}");
            assert_eq!(got.outer.as_ref().map(ContainerId::as_str), Some(A), "{p}");
            assert_eq!(got.runtime, runtime, "{p}");
            assert_eq!(got.pod_uid.as_deref(), pod, "{p}");
            assert!(
                p.starts_with(&got.root) && got.root.ends_with(B) || got.root.ends_with(".scope")
            );
        }
    }

    #[test]
    fn what_is_no_container_stays_none() {
        for p in [
            "",
            "/",
            "relative",
            "//",
            "/docker",
            "/docker/short",
            "/init.scope",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/libpod-conmon-{A}.scope",
            "/libpod_parent/conmon",
            "/kubepods.slice/crio-conmon-{A}.scope",
            "/kubepods/burstable/crio-conmon-{A}",
            "/kubepods.slice/kubepods-pod123e4567_e89b_12d3_a456_426614174000.slice",
            "/kubepods/besteffort/pod123e4567-e89b-12d3-a456-426614174000",
            "/libpod_parent/{A}",
            "/machine.slice/machine-libpod_pod_{A}.slice",
            "/lxc.monitor.mail",
            "/lxc.pivot",
            "/system.slice/runc-.scope",
            "/system.slice/docker-\u{1b}[31m.scope",
            "/default",
            "/docker/ABCDEF",
            "/custom/any",
            "/docker/9527FF5BE3A91EF805F13EDB15E208DBC58B397DCF5614296509D7B55020A24D",
            "/lxc/a b",
        ] {
            let p = path(p);
            assert_eq!(classify(&p), None, "{p}");
        }
    }

    #[test]
    fn a_path_of_any_length_and_content_is_only_data() {
        let long = format!("/{}", "a/".repeat(100_000));
        assert_eq!(classify(&long), None);
        assert_eq!(classify(&format!("/docker/{}", "é".repeat(64))), None);
    }

    #[test]
    fn services_and_slices_are_the_hosts() {
        for p in [
            "/",
            "/system.slice",
            "/system.slice/ssh.service",
            "/user.slice/user-0.slice/session-1.scope",
            "/init.scope",
        ] {
            assert!(is_host_unit(p), "{p}");
        }
        for p in [
            "/x",
            "/system.slice/run-r1.scope",
            "/system.slice/a.service/payload",
        ] {
            assert!(!is_host_unit(p), "{p}");
        }
    }

    fn mounts(lines: &[&str]) -> Vec<Hierarchy> {
        hierarchies(&lines.join("\n"))
    }

    #[test]
    fn layouts_v1_v2_and_hybrid_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let pids = "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids";
        let cpu = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
        let unified = "41 31 0:38 / /no/such/unified rw - cgroup2 cgroup2 rw";
        let part = "50 31 0:36 /docker/x /mnt/part rw,relatime - cgroup cgroup rw,pids";
        let layout = |lines: &[&str]| Layout::of(mounts(lines), Vec::new());
        let chosen = |lines: &[&str]| layout(lines).map(|l| l.identifying);

        assert_eq!(chosen(&[v2]).unwrap().version, Version::V2);
        assert_eq!(
            chosen(&[part, cpu, pids]).unwrap(),
            Hierarchy {
                version: Version::V1 {
                    controller: "pids".into()
                },
                mount: "/sys/fs/cgroup/pids".into()
            }
        );
        assert_eq!(
            chosen(&[cpu]).unwrap().version,
            Version::V1 {
                controller: "cpu".into()
            }
        );
        // hybrid: v2 has the word, v1 is looked at beside it
        let hybrid = layout(&[unified, cpu, pids]).unwrap();
        assert_eq!(hybrid.identifying.version, Version::V2);
        assert_eq!(
            hybrid.second.unwrap().mount,
            Path::new("/sys/fs/cgroup/pids")
        );
        assert_eq!(layout(&[v2]).unwrap().second, None);
        assert_eq!(layout(&[cpu, pids]).unwrap().second, None);
        let systemd = "41 31 0:38 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(layout(&[unified, systemd]).unwrap().second, None);
        assert_eq!(chosen(&["garbage", "1 2 3 - "]), None);
    }

    #[test]
    fn the_line_of_the_identifying_hierarchy_is_found() {
        let text = "9:cpu,cpuacct:/a\n8:pids:/b (deleted)\n0::/c\n";
        assert_eq!(path_in(&Version::V2, text), Some("/c"));
        assert_eq!(
            path_in(
                &Version::V1 {
                    controller: "pids".into()
                },
                text
            ),
            Some("/b")
        );
        assert_eq!(
            path_in(
                &Version::V1 {
                    controller: "cpuacct".into()
                },
                text
            ),
            Some("/a")
        );
        assert_eq!(
            path_in(
                &Version::V1 {
                    controller: "cpua".into()
                },
                text
            ),
            None
        );
    }
}
