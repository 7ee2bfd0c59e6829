//! Q9: whether namespaces, mounts, host files or the node were reached.

use crate::acts::Acts;
use crate::collected::{Collected, failed, place};
use crate::mounts::{Door, door, on_node, told};
use crate::network::counted;
use crate::opinions::tell;
use crate::say::Sentences;
use crate::{About, AskError};
use plimsoll_api::describe;
use plimsoll_model::event::{Connection, FileEvent, MountCall};
use plimsoll_model::names::{capability_names, syscall_name};
use plimsoll_model::paths::{Sensitive, changes, sensitive};
use plimsoll_model::{
    BehaviourKind, Container, EventKind, FileOp, Observation, Origin, RecordId, SockAddr, Text,
};

/// Steps out of a container, those that reach the node first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    KernelCode,
    LeftCgroup,
    RuntimeSocket,
    HostControl,
    ByHandle,
    NodeFileChanged,
    Foreign,
    NodeFileRead,
    Namespace,
    Mount,
    Capability,
    Process,
    Setting,
    Tried,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Step::KernelCode => "Code brought towards the node's kernel",
            Step::LeftCgroup => "A process left the container's cgroup",
            Step::RuntimeSocket => "The container runtime's socket was used",
            Step::HostControl => "A file that controls the node was opened or changed",
            Step::ByHandle => "Files were opened by handle, past the container's root",
            Step::NodeFileChanged => "Files of the node were changed through a mount",
            Step::NodeFileRead => "Files of the node were read through a mount",
            Step::Foreign => "A file was used through another mount namespace",
            Step::Namespace => "Namespaces were changed",
            Step::Mount => "Mounts were changed",
            Step::Capability => "Capabilities were gained that reach past the container",
            Step::Process => "Another process was traced, or its memory used",
            Step::Setting => "A setting of the node's kernel was read",
            Step::Tried => "Tried, and failed",
        }
    }

    /// After these the node itself has to be suspected.
    const NODE: [Step; 6] = [
        Step::KernelCode,
        Step::LeftCgroup,
        Step::RuntimeSocket,
        Step::HostControl,
        Step::ByHandle,
        Step::NodeFileChanged,
    ];
}

/// Capabilities with which little separates a container from its node: `dac_read_search`,
/// `sys_module`, `sys_rawio`, `sys_ptrace`, `sys_admin`, `sys_boot`, `bpf` (capabilities(7)).
const REACHING: u64 = 1 << 2 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 21 | 1 << 22 | 1 << 39;

/// Q9.
pub(crate) fn reached(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut steps: Collected<Step> = Collected::new();
    let mut first_caps: Option<(u64, RecordId)> = None;
    let looked = Acts::EXEC
        .or(Acts::READ_NOTABLE)
        .or(Acts::CHANGE_NOTABLE)
        .or(Acts::LOCAL_SOCKET)
        .or(Acts::OTHER)
        .or(Acts::SET_UP);
    let looked = crate::mounts::looked(about.container(), looked);
    let set_up = about.workload(looked, say, |id, o| {
        if let EventKind::Exec(e) = &o.event.kind
            && first_caps
                .as_ref()
                .is_none_or(|(caps, _)| e.caps & !caps != 0)
        {
            first_caps = Some((e.caps, id.clone()));
        }
        if let Some((step, what)) = step(about, &o) {
            steps.add(step, what, id, &o);
        }
    })?;
    let node: Vec<RecordId> = Step::NODE.iter().flat_map(|s| steps.evidence(*s)).collect();
    let nothing = steps.is_empty();
    let only_tried = !nothing && node.is_empty();
    steps.say(Step::words, "plimsoll events", say);
    let opinions = about.opinions(say)?;
    let alerted = tell(
        "Judged as a way out (T1611)",
        opinions.iter().filter(|o| o.has(&["T1611"])),
        say,
    );
    ease(about, first_caps.as_ref(), say);
    counted(
        about,
        &KINDS,
        |_| true,
        "Its baseline knows acts of this kind",
        say,
    )?;
    if set_up > 0 {
        let text = format!(
            "Left out: {set_up} acts of the runtime's own programs, which set the container up."
        );
        say.inferred(text, []);
    }
    conclude(about, &node, nothing && !alerted, only_tried, say);
    Ok(())
}

const KINDS: [BehaviourKind; 8] = [
    BehaviourKind::Namespace,
    BehaviourKind::Mount,
    BehaviourKind::Ptrace,
    BehaviourKind::Module,
    BehaviourKind::Bpf,
    BehaviourKind::Credentials,
    BehaviourKind::Cgroup,
    BehaviourKind::Rare,
];

fn conclude(
    about: &About<'_>,
    node: &[RecordId],
    nothing: bool,
    only_tried: bool,
    say: &mut Sentences,
) {
    if !node.is_empty() {
        say.inferred(
            "By these acts the node has to be taken as reached, until something else is shown.",
            node,
        );
    } else if only_tried {
        say.inferred("Steps towards the node were taken, and none of them shows by itself that it was reached.", []);
    } else if nothing {
        say.unknown(format!("No step out of the container is recorded {}: no namespace, mount, host file, runtime socket or kernel call of that kind. That is not proof that there was none: see the completeness below.", about.interval.text()));
    }
    say.no_source(
        "what ran on the node itself, outside of containers",
        "watching the node as a whole, not containers only,",
    );
}

/// What would have made it easy.
fn ease(about: &About<'_>, caps: Option<&(u64, RecordId)>, say: &mut Sentences) {
    let known = about
        .case
        .instance
        .as_ref()
        .and_then(|i| about.directory.get(i));
    if let Some(known) = known {
        let c = &known.container;
        if c.privileged {
            say.observed(
                "It ran privileged: devices, kernel settings and the node's disks were open to it.",
                &known.evidence,
            );
        }
        mounted(c, &known.evidence, say);
        let doors = match c.mount_points {
            Some(_) => Vec::new(),
            None => doors(c),
        };
        if !doors.is_empty() {
            say.observed(
                format!(
                    "Mounted in it, and a way to the node: {} (what lies behind a mount is not recorded).",
                    doors.join(", ")
                ),
                &known.evidence,
            );
        }
    }
    match caps.map(|(caps, id)| (caps & REACHING, id)) {
        Some((0, _)) => {}
        Some((reaching, id)) => say.observed(
            format!(
                "A program in it held {}, with which little separates it from the node.",
                capability_names(reaching)
            ),
            [id],
        ),
        None => say.unknown(
            "Which capabilities it held is not known: no exec of it is recorded in the interval.",
        ),
    }
}

/// What of the node is mounted in it, as its runtime was told.
fn mounted(c: &Container, evidence: &[RecordId], say: &mut Sentences) {
    let Some(points) = &c.mount_points else {
        return;
    };
    let of = |wanted: Door| -> Vec<String> {
        let ours = points.iter().filter(|m| door(m) == Some(wanted));
        ours.take(8).map(told).collect()
    };
    let sentences = [
        (
            Door::Socket,
            "Mounted in it was the socket of a container runtime, with which whoever may write to it is root on the node",
        ),
        (
            Door::Node,
            "Mounted in it were files that the node itself obeys or keeps its secrets in",
        ),
        (
            Door::Data,
            "Mounted in it were directories of the node that others may share",
        ),
    ];
    let mut any = false;
    for (wanted, words) in sentences {
        let mounts = of(wanted);
        if !mounts.is_empty() {
            any = true;
            say.observed(format!("{words}: {}.", mounts.join(", ")), evidence);
        }
    }
    if !any {
        say.observed(
            "Its runtime was told of no mount of the node's own files.",
            evidence,
        );
    }
}

/// Mounts that lead out, by their place in the container: nobody told their sources.
fn doors(c: &Container) -> Vec<String> {
    const WHOLE: [&str; 9] = [
        "/", "/host", "/hostfs", "/rootfs", "/proc", "/sys", "/dev", "/etc", "/root",
    ];
    let leads_out = |m: &&String| {
        WHOLE.contains(&m.trim_end_matches('/'))
            || matches!(
                sensitive(m.as_bytes()),
                Some(Sensitive::RuntimeSocket | Sensitive::HostControl)
            )
            || m.starts_with("/var/lib/docker")
            || m.starts_with("/var/lib/kubelet")
            || m.starts_with("/var/lib/containerd")
    };
    let doors = c.mounts.iter().filter(leads_out).take(8);
    doors.map(|m| describe::words(m)).collect()
}

/// What kind of step an act is, and in words.
fn step(about: &About<'_>, o: &Observation) -> Option<(Step, String)> {
    let words = || about.action(&o.event.kind);
    let own_cgroup = about.container().map(|c| c.cgroup_path.clone());
    Some(match &o.event.kind {
        EventKind::Module { .. } => (Step::KernelCode, words()),
        // 5 loads a program; the other commands read and keep maps
        EventKind::Bpf { command: 5 } => (Step::KernelCode, words()),
        EventKind::Rare { nr, result, .. } => {
            let step = match syscall_name(about.directory.calls(), *nr)? {
                "kexec_load" | "kexec_file_load" => Step::KernelCode,
                "open_by_handle_at" => Step::ByHandle,
                "open_tree" | "fsopen" => Step::Mount,
                "pidfd_getfd" => Step::Process,
                "reboot" | "iopl" | "ioperm" | "syslog" => Step::HostControl,
                _ => return None,
            };
            match *result < 0 {
                true => (Step::Tried, words()),
                false => (step, words()),
            }
        }
        EventKind::CgroupAttach { path, .. } if !below(path, own_cgroup.as_ref()) => {
            (Step::LeftCgroup, words())
        }
        EventKind::Namespace { .. } => (Step::Namespace, words()),
        EventKind::Mount { call, .. } => match call {
            MountCall::Mount
            | MountCall::Umount
            | MountCall::PivotRoot
            | MountCall::Chroot
            | MountCall::MoveMount => (Step::Mount, words()),
        },
        EventKind::Ptrace { .. } => (Step::Process, words()),
        EventKind::Credentials {
            old_caps, new_caps, ..
        } if new_caps & !old_caps & REACHING != 0 => (Step::Capability, words()),
        EventKind::File(f) => return file(about, f, words()),
        EventKind::Connect(c) | EventKind::Datagram(c) => return socket(about, c, words()),
        _ => return None,
    })
}

fn below(path: &Text, own: Option<&Text>) -> bool {
    let Some(own) = own.filter(|own| !own.is_empty()) else {
        return true; // nothing to compare with
    };
    let rest = path.as_bytes().strip_prefix(own.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn file(about: &About<'_>, f: &FileEvent, words: String) -> Option<(Step, String)> {
    let reading = matches!(f.op, FileOp::Read | FileOp::List);
    let node = about
        .container()
        .and_then(|c| on_node(c, f.path.as_bytes()));
    // judged as what it is on the node, where its files are mounted
    let path = node.as_ref().map_or(&f.path, |(path, _, _)| path).clone();
    let words = match &node {
        Some((path, _, _)) => format!("{words} (on the node {})", describe::path(path)),
        None => words,
    };
    let step = match sensitive(path.as_bytes()) {
        // reading a setting shows the node, changing it takes it; disks and memory do both
        Some(Sensitive::HostControl) if reading && path.as_bytes().starts_with(b"/proc/sys") => {
            Step::Setting
        }
        Some(Sensitive::HostControl) => Step::HostControl,
        Some(Sensitive::RuntimeSocket) if changes(f.op) || reading => Step::RuntimeSocket,
        _ if matches!(node, Some((_, Door::Node, _))) => match changes(f.op) {
            true => Step::NodeFileChanged,
            false => Step::NodeFileRead,
        },
        _ if f.origin == Origin::Foreign => Step::Foreign,
        _ => return None,
    };
    let what = words + &place(f.origin);
    match f.op == FileOp::Failed || failed(f.result) {
        true => Some((Step::Tried, what)),
        false => Some((step, what)),
    }
}

fn socket(about: &About<'_>, c: &Connection, words: String) -> Option<(Step, String)> {
    let SockAddr::Unix(path) = &c.peer else {
        return None;
    };
    // a socket keeps its meaning wherever it is mounted, and whatever it is called there
    let mounted = about.container().and_then(|c| on_node(c, path.as_bytes()));
    let is_mounted = mounted.is_some_and(|(path, door, _)| {
        door == Door::Socket || sensitive(path.as_bytes()) == Some(Sensitive::RuntimeSocket)
    });
    if !is_mounted && sensitive(path.as_bytes()) != Some(Sensitive::RuntimeSocket) {
        return None;
    }
    match failed(c.result) {
        true => Some((Step::Tried, words)),
        false => Some((Step::RuntimeSocket, words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_beside_the_containers_is_outside_it() {
        let own = Text::from("/docker/ab");
        assert!(below(&"/docker/ab/child".into(), Some(&own)));
        assert!(!below(&"/docker/abc".into(), Some(&own)));
        assert!(!below(&"/".into(), Some(&own)));
    }
}
