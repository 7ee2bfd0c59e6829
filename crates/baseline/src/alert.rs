//! From a drift to an alert that Falco's receivers understand.
//!
//! Promises: pure; the fields have Falco's names and meaning; text from containers is carried as
//! bytes and never formatted raw; ordinary steps ([`Risk::Low`]) are kept as drift and make no
//! alert of their own.

use crate::programs;
use plimsoll_model::{
    Alert, AlertId, AlertSource, BootNs, Container, Drift, DriftClass, EventKind, Observation, Priority, Risk, Text,
};

/// Whether others do it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Novelty {
    /// No other instance was seen doing it.
    #[default]
    First,
    /// The same behaviour was seen in other instances of the workload.
    Elsewhere,
}

/// Falco priority of a drift; `None`: no alert of its own.
///
/// Critical risk is `Critical`, high is `Error`; medium is `Warning`, or `Notice` when others do the
/// same or the baseline covers little (below 80 %) and so cannot know better.
pub fn priority(drift: &Drift, novelty: Novelty) -> Option<Priority> {
    match drift.risk {
        Risk::Critical => Some(Priority::Critical),
        Risk::High => Some(Priority::Error),
        Risk::Medium if novelty == Novelty::Elsewhere || drift.coverage_permille < 800 => Some(Priority::Notice),
        Risk::Medium => Some(Priority::Warning),
        Risk::Low => None,
    }
}

/// Name of a class as the rule of an alert.
pub fn class_name(class: DriftClass) -> &'static str {
    use DriftClass::*;
    match class {
        NewProgram => "New program",
        ProgramFromWritable => "Program that is not part of the image",
        FilelessProgram => "Program without a file",
        ShellUnderServer => "Shell started by a server",
        NewParentage => "Known program started by another parent",
        NewArguments => "New shape of arguments",
        SensitiveFileRead => "Credentials read",
        NewFileRead => "New file read",
        NewFileWrite => "New file written",
        PersistenceWrite => "Persistence written",
        ProgramFileWrite => "Program file written",
        MadeExecutable => "File made executable",
        TracesRemoved => "Traces removed",
        FileRemoved => "File removed",
        NewLibrary => "New library",
        LibraryFromWritable => "Library that is not part of the image",
        NewOutboundPeer => "New outbound peer",
        NewInboundPeer => "New inbound peer",
        NewListeningPort => "New listening port",
        NewDnsName => "New DNS name",
        MetadataService => "Cloud metadata service contacted",
        RuntimeSocket => "Container runtime socket used",
        UnusualSocket => "Unusual socket",
        StreamsOnSocket => "Standard streams on a network socket",
        NewCapability => "New capability",
        UidChange => "User changed",
        NamespaceChange => "Namespace changed",
        MountChange => "Mounts changed",
        ProcessTampering => "Process memory touched",
        KernelModule => "Kernel module",
        BpfUse => "bpf used",
        NewSyscall => "New system call",
        MemoryFile => "File in memory",
        CgroupEscape => "Left its cgroup",
        InteractiveEntry => "Command run in the container from outside",
        HostControlFile => "Host control file used",
        ArgumentRace => "Arguments changed during the call",
        RareCall => "Rare system call",
    }
}

/// Builds the alert of a drift; `None` when its priority asks for none.
pub fn alert(drift: &Drift, obs: &Observation, container: &Container, id: AlertId, novelty: Novelty) -> Option<Alert> {
    let priority = priority(drift, novelty)?;
    let rule = class_name(drift.class).to_owned();
    let mut tags = vec!["container".to_owned(), "drift".to_owned()];
    tags.extend(drift.techniques.iter().cloned());
    Some(Alert {
        id,
        at: obs.at,
        output: sentence(&rule, drift, container).into(),
        rule,
        priority,
        source: AlertSource::Drift(drift.clone()),
        instance: Some(drift.instance.clone()),
        tags,
        fields: fields(drift, obs, container),
        evidence: drift.observation.iter().cloned().collect(),
        count: drift.count.max(1),
        last: drift.last,
        handed_boot: BootNs(0),
        prevented: false,
    })
}

/// One sentence: what, where, by whom, why it matters. Shown text is escaped by `Display`.
fn sentence(rule: &str, drift: &Drift, container: &Container) -> String {
    let b = &drift.behaviour;
    let by = match programs::name_of(b.program.as_bytes()) {
        "" => String::new(),
        name => format!(" by {}", Text::from(name)),
    };
    format!(
        "{rule} in {}: {} {}{by}; {}",
        Text::from(container.display_name()),
        b.operation,
        b.object,
        drift.reason
    )
}

/// Joined arguments, as Falco's `proc.cmdline` has them.
fn cmdline(exe: &Text, argv: &[Text]) -> Text {
    let mut out = exe.basename().as_bytes().to_vec();
    for a in argv.iter().skip(1) {
        out.push(b' ');
        out.extend_from_slice(a.as_bytes());
    }
    out.into()
}

fn fields(drift: &Drift, obs: &Observation, container: &Container) -> Vec<(String, Text)> {
    let mut f: Vec<(String, Text)> = Vec::new();
    let mut put = |name: &str, value: Text| f.push((name.to_owned(), value));
    let process = &obs.event.process;
    put("evt.time", obs.at.wall.0.to_string().into());
    put("evt.type", evt_type(&obs.event.kind).into());
    put("proc.pid", process.key.tgid.to_string().into());
    put("proc.ppid", process.ppid.to_string().into());
    put("user.uid", process.uid.to_string().into());
    put("group.gid", process.gid.to_string().into());
    let own = obs.lineage.first();
    if let EventKind::Exec(exec) = &obs.event.kind {
        put("proc.name", exec.exe.basename());
        put("proc.exepath", exec.exe.clone());
        put("proc.cmdline", cmdline(&exec.exe, &exec.argv));
        put("proc.cwd", exec.cwd.clone());
        put("proc.tty", exec.tty.to_string().into());
        put("proc.is_exe_upper_layer", exec.origin.is_writable().to_string().into());
    } else if let Some(own) = own {
        put("proc.name", own.exe.basename());
        put("proc.exepath", own.exe.clone());
        put("proc.cmdline", cmdline(&own.exe, &own.argv));
    } else {
        put("proc.name", process.comm.clone());
    }
    if let Some(parent) = obs.parent() {
        put("proc.pname", parent.exe.basename());
        put("proc.pcmdline", cmdline(&parent.exe, &parent.argv));
    }
    if let Some(name) = fd_name(&obs.event.kind) {
        put("fd.name", name);
    }
    put("container.id", container.id().short().into());
    put("container.full_id", container.id().as_str().into());
    put("container.name", container.name.as_str().into());
    put("container.type", container.runtime.as_str().into());
    let (repository, tag) = split_image(&container.image.name);
    put("container.image.repository", repository.into());
    put("container.image.tag", tag.into());
    if let Some(digest) = &container.image.config_digest {
        put("container.image.id", digest.as_str().into());
    }
    if let Some(pod) = &container.pod {
        put("k8s.pod.name", pod.as_str().into());
    }
    if let Some(ns) = &container.namespace {
        put("k8s.ns.name", ns.as_str().into());
    }
    put("plimsoll.risk", drift.risk.as_str().into());
    f.sort();
    f
}

/// `registry:5000/web:1.2@sha256:…` → (`registry:5000/web`, `1.2`).
fn split_image(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

/// Falco's name of the system call behind an event.
fn evt_type(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Exec(_) => "execve",
        EventKind::File(f) => match f.op.as_str() {
            "read" | "write" | "create" | "list" | "failed" => "openat",
            "unlink" => "unlinkat",
            "rename" => "renameat2",
            "link" => "linkat",
            "symlink" => "symlinkat",
            "mkdir" => "mkdirat",
            other => other,
        },
        EventKind::Library { .. } => "mmap",
        EventKind::Accept(_) => "accept4",
        EventKind::Datagram(_) | EventKind::Dns(_) => "sendto",
        EventKind::Namespace { .. } => "setns",
        EventKind::Module { .. } => "init_module",
        EventKind::Credentials { .. } => "setuid",
        EventKind::Memfd { .. } => "memfd_create",
        EventKind::Signal { .. } => "kill",
        other => other.name(),
    }
}

fn fd_name(kind: &EventKind) -> Option<Text> {
    Some(match kind {
        EventKind::File(f) => f.path.clone(),
        EventKind::Library { path, .. } => path.clone(),
        EventKind::Connect(c) | EventKind::Accept(c) | EventKind::Datagram(c) => match &c.local {
            Some(local) => format!("{local}->{}", c.peer).into(),
            None => c.peer.to_string().into(),
        },
        EventKind::Listen { local, .. } | EventKind::Bind { local, .. } => local.to_string().into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_is_split_as_falco_does() {
        assert_eq!(split_image("reg:5000/a/web:1.2"), ("reg:5000/a/web", "1.2"));
        assert_eq!(split_image("reg:5000/a/web"), ("reg:5000/a/web", ""));
        assert_eq!(split_image("web@sha256:abc"), ("web", ""));
    }
}
