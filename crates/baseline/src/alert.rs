//! From a drift to the alert that people and SIEMs get: priority, one sentence, Falco's fields.
//!
//! Promises: a priority is a function of risk, class, coverage, novelty and state alone; low
//! coverage never lowers what is at least high; a low drift gives no alert, but for new peers and
//! names once the baseline is ready. Field names are Falco's, so that its consumers need no change.
//! Text from a container reaches the sentence escaped, and the fields as the bytes it was.
//!
//! | risk | priority | lowered one step when |
//! |---|---|---|
//! | critical | Critical | never |
//! | high | Error | never |
//! | medium | Warning | coverage is below 95 %; another instance does the same (once each) |
//! | low, a new outbound peer or DNS name | Notice, none while learning, none for [`is_look_up`] | as medium |
//! | low, any other | none: kept as drift | |

use plimsoll_model::event::{Exec, NamespaceCall};
use plimsoll_model::{
    Alert, AlertId, AlertSource, Behaviour, BehaviourKind, BootNs, Container, Drift, DriftClass,
    Enforced, EventKind, FileOp, Observation, Origin, Priority, Risk, SockAddr, Text,
};

/// Whether the behaviour has been seen outside the baseline before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Novelty {
    /// Nowhere.
    #[default]
    First,
    /// In another instance of the workload: rather a change of the workload than an intruder.
    Elsewhere,
}

/// Coverage (thousandths) below which ordinary drift may well be the baseline's fault.
pub const LOW_COVERAGE_PERMILLE: u32 = 950;
/// Longest value of a field, bytes.
const MAX_FIELD: usize = 4096;

/// Priority of a drift; `None`: no alert, the record is enough.
pub fn priority(drift: &Drift, novelty: Novelty) -> Option<Priority> {
    let base = match drift.risk {
        Risk::Critical => return Some(Priority::Critical),
        Risk::High => return Some(Priority::Error),
        Risk::Medium => Priority::Warning,
        Risk::Low if drift.baseline_state == "learning" || is_look_up(&drift.behaviour) => {
            return None;
        }
        Risk::Low
            if matches!(
                drift.class,
                DriftClass::NewDnsName | DriftClass::NewOutboundPeer
            ) =>
        {
            Priority::Notice
        }
        // kept as drift and shown by every question; an alert for each file that a new program
        // reads would bury the one about the program
        Risk::Low => return None,
    };
    // what a risk class quarantines is not judged by coverage: the baseline had no say in it
    let thin = !drift.quarantined && drift.coverage_permille < LOW_COVERAGE_PERMILLE;
    let steps = u8::from(thin) + u8::from(novelty == Novelty::Elsewhere);
    Some((0..steps).fold(base, |p, _| lower(p)))
}

/// How the C library looks up names before a program contacts anybody: its cache's socket, which is
/// seldom there, and the resolver on the loopback (Docker's). The name that was asked for is told.
fn is_look_up(b: &Behaviour) -> bool {
    let object = b.object.as_bytes();
    matches!(b.kind, BehaviourKind::Connect | BehaviourKind::Datagram)
        && (object == b"unix /var/run/nscd/socket" || object == b"udp loopback:53")
}

fn lower(p: Priority) -> Priority {
    match p {
        Priority::Warning => Priority::Notice,
        Priority::Notice | Priority::Informational => Priority::Informational,
        other => other,
    }
}

/// The alert about a drift; `None` when [`priority`] says that there is none.
pub fn alert(
    drift: &Drift,
    obs: &Observation,
    container: &Container,
    id: AlertId,
    novelty: Novelty,
) -> Option<Alert> {
    let enforced = obs.event.enforced;
    // whoever is stopped is told so, however low the risk
    let priority = match (priority(drift, novelty), enforced) {
        (None, Some(e)) if e.is_prevented() => Priority::Notice,
        (priority, _) => priority?,
    };
    let mut fields = fields(obs, container);
    fields.push(("plimsoll.risk".to_owned(), drift.risk.as_str().into()));
    let mut alert = Alert {
        id,
        at: obs.at,
        rule: class_name(drift.class).to_owned(),
        priority,
        output: sentence(drift, container).into(),
        source: AlertSource::Drift(drift.clone()),
        instance: Some(drift.instance.clone()),
        tags: tags(drift, obs),
        fields: sorted(fields),
        evidence: drift.observation.iter().cloned().collect(),
        count: drift.count.max(1),
        last: drift.last,
        handed_boot: BootNs(0),
        prevented: false,
    };
    mark(&mut alert, enforced);
    Some(alert)
}

/// Says on an alert what enforcement did about the act.
pub fn mark(alert: &mut Alert, enforced: Option<Enforced>) {
    let Some(enforced) = enforced else {
        return;
    };
    alert.prevented = enforced.is_prevented();
    let (tag, words) = match enforced {
        e if e.is_prevented() => ("prevented", "; prevented"),
        Enforced::WouldBe => ("would-be-prevented", "; enforcement would prevent it"),
        _ => return,
    };
    alert.tags.push(tag.to_owned());
    let said = [alert.output.as_bytes(), words.as_bytes()].concat();
    alert.output = Text::new(said);
}

fn tags(drift: &Drift, obs: &Observation) -> Vec<String> {
    let mut tags = vec!["container".to_owned(), "drift".to_owned()];
    tags.extend(drift.techniques.iter().cloned());
    if drift.quarantined {
        tags.push("quarantined".to_owned());
    }
    if obs.found_since().is_some() {
        tags.push("found-running".to_owned());
    }
    tags
}

/// One sentence: what, where, why, and against what.
fn sentence(drift: &Drift, container: &Container) -> String {
    let place = Text::from(container.display_name());
    let image = match container.image.name.as_str() {
        "" => String::new(),
        name => format!(" ({})", Text::from(name)),
    };
    let against = match (&drift.baseline, drift.quarantined) {
        (None, _) => "its image has no baseline yet".to_owned(),
        (Some(b), true) => {
            format!("baseline {b} is still learning and does not learn this by itself")
        }
        (Some(b), false) => {
            let c = drift.coverage_permille;
            format!("not in baseline {b}, {}.{} % covered", c / 10, c % 10)
        }
    };
    let what = class_name(drift.class);
    format!(
        "{what} in {place}{image}: {}; {against}",
        Text::from(drift.reason.as_str())
    )
}

/// What an alert of this class is called.
pub fn class_name(class: DriftClass) -> &'static str {
    match class {
        DriftClass::NewProgram => "New program",
        DriftClass::ProgramFromWritable => "Program that is not part of the image",
        DriftClass::FilelessProgram => "Program without a file",
        DriftClass::ShellUnderServer => "Shell started by a server",
        DriftClass::NewParentage => "Known program started by another parent",
        DriftClass::NewArguments => "New shape of arguments",
        DriftClass::SensitiveFileRead => "Credentials read",
        DriftClass::NewFileRead => "New file read",
        DriftClass::NewFileWrite => "New file written",
        DriftClass::PersistenceWrite => "Persistence written",
        DriftClass::ProgramFileWrite => "Program file written",
        DriftClass::MadeExecutable => "File made executable",
        DriftClass::TracesRemoved => "Traces removed",
        DriftClass::FileRemoved => "File removed",
        DriftClass::NewLibrary => "New library",
        DriftClass::LibraryFromWritable => "Library that is not part of the image",
        DriftClass::NewOutboundPeer => "New outbound peer",
        DriftClass::NewInboundPeer => "New inbound peer",
        DriftClass::NewListeningPort => "New listening port",
        DriftClass::NewDnsName => "New DNS name",
        DriftClass::MetadataService => "Cloud metadata service contacted",
        DriftClass::RuntimeSocket => "Container runtime socket used",
        DriftClass::UnusualSocket => "Unusual socket",
        DriftClass::StreamsOnSocket => "Standard streams on a socket",
        DriftClass::NewCapability => "New capability",
        DriftClass::UidChange => "User changed",
        DriftClass::NamespaceChange => "Namespace changed",
        DriftClass::MountChange => "Mounts changed",
        DriftClass::ProcessTampering => "Process tampered with",
        DriftClass::KernelModule => "Kernel module",
        DriftClass::BpfUse => "bpf used",
        DriftClass::NewSyscall => "New system call",
        DriftClass::MemoryFile => "File in memory",
        DriftClass::CgroupEscape => "Left its cgroup",
        DriftClass::InteractiveEntry => "Container entered",
        DriftClass::HostControlFile => "Host control file used",
        DriftClass::ArgumentRace => "Arguments changed during the call",
        DriftClass::RareCall => "Rare system call",
    }
}

/// Falco's output fields of an observation, sorted by name. Values are bytes as they were.
pub fn fields(obs: &Observation, container: &Container) -> Vec<(String, Text)> {
    let mut out = Fields::default();
    out.put("evt.time", obs.at.wall.rfc3339());
    out.put("evt.type", event_type(&obs.event.kind));
    if let Some(since) = obs.found_since() {
        out.put("plimsoll.running_since", since.rfc3339());
    }
    out.put("evt.count", obs.count.to_string());
    act_fields(&mut out, &obs.event.kind);
    process_fields(&mut out, obs);
    container_fields(&mut out, container);
    sorted(out.0)
}

/// By name; where a name was put twice, the first stays.
fn sorted(mut fields: Vec<(String, Text)>) -> Vec<(String, Text)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.dedup_by(|a, b| a.0 == b.0);
    fields
}

#[derive(Default)]
struct Fields(Vec<(String, Text)>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Text>) {
        let value: Text = value.into();
        if !value.is_empty() {
            let end = value.len().min(MAX_FIELD);
            self.0
                .push((name.to_owned(), Text::from(&value.as_bytes()[..end])));
        }
    }
}

fn process_fields(out: &mut Fields, obs: &Observation) {
    let process = &obs.event.process;
    out.put("proc.pid", process.key.tgid.to_string());
    out.put("proc.ppid", process.ppid.to_string());
    out.put("thread.tid", process.tid.to_string());
    out.put("user.uid", process.uid.to_string());
    out.put("group.gid", process.gid.to_string());
    if let Some(own) = obs.lineage.first() {
        out.put("proc.name", own.exe.basename());
        out.put("proc.exepath", own.exe.clone());
        out.put("proc.exe", own.argv.first().unwrap_or(&own.exe).clone());
        out.put("proc.cmdline", command_line(&own.exe, &own.argv));
    }
    out.put("proc.name", process.comm.clone());
    for (i, ancestor) in obs.lineage.iter().enumerate().skip(1).take(4) {
        let name = ancestor.exe.basename();
        if i == 1 {
            out.put("proc.pname", name.clone());
            out.put("proc.pcmdline", command_line(&ancestor.exe, &ancestor.argv));
            out.put("proc.pexepath", ancestor.exe.clone());
        }
        out.put(&format!("proc.aname[{i}]"), name);
    }
}

/// Falco writes the name, then the arguments from the second one.
fn command_line(exe: &Text, argv: &[Text]) -> Text {
    let mut line = exe.basename().as_bytes().to_vec();
    for arg in argv.iter().skip(1) {
        line.push(b' ');
        line.extend_from_slice(arg.as_bytes());
        if line.len() > MAX_FIELD {
            break;
        }
    }
    Text::new(line)
}

fn container_fields(out: &mut Fields, c: &Container) {
    out.put("container.id", c.id().short());
    out.put("container.full_id", c.id().as_str());
    out.put("container.name", c.name.as_str());
    out.put("container.type", c.runtime.as_str());
    out.put("container.image", c.image.name.as_str());
    let (repository, tag) = image_parts(&c.image.name);
    let repository = c.image.repository.as_deref().unwrap_or(repository);
    out.put("container.image.repository", repository);
    out.put("container.image.tag", tag);
    if let Some(digest) = &c.image.manifest_digest {
        out.put("container.image.digest", digest.as_str());
    }
    if let Some(id) = &c.image.config_digest {
        out.put("container.image.id", id.as_str());
    }
    out.put("container.privileged", c.privileged.to_string());
    out.put("k8s.ns.name", c.namespace.as_deref().unwrap_or_default());
    out.put("k8s.pod.name", c.pod.as_deref().unwrap_or_default());
}

/// `registry:5000/a/nginx:1.27@sha256:…` → (`registry:5000/a/nginx`, `1.27`).
pub fn image_parts(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or_default();
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], &name[slash + at + 1..]),
        None => (name, ""),
    }
}

fn act_fields(out: &mut Fields, kind: &EventKind) {
    match kind {
        EventKind::Exec(exec) => exec_fields(out, exec),
        EventKind::File(file) => {
            out.put("fd.name", file.path.clone());
            out.put("fs.path.name", file.path.clone());
            out.put("fs.path.source", file.path.clone());
            out.put("fs.path.target", file.target.clone());
            out.put("evt.rawres", file.result.to_string());
        }
        EventKind::Library { path, .. } => out.put("fd.name", path.clone()),
        EventKind::Connect(c) | EventKind::Datagram(c) => {
            ends(out, c.local.as_ref(), Some(&c.peer), c.proto.as_str());
        }
        EventKind::Accept(c) => ends(out, Some(&c.peer), c.local.as_ref(), c.proto.as_str()),
        EventKind::Listen { proto, local } | EventKind::Bind { proto, local } => {
            ends(out, None, Some(local), proto.as_str());
        }
        EventKind::Dup { stream, peer, .. } => {
            out.put("fd.num", stream.to_string());
            ends(out, None, peer.as_ref(), "");
        }
        EventKind::Dns(dns) => out.put("plimsoll.dns.name", dns.name.clone()),
        EventKind::Mount { source, target, .. } => {
            out.put("fs.path.source", source.clone());
            out.put("fs.path.target", target.clone());
        }
        EventKind::Module { name } | EventKind::Memfd { name } => {
            out.put("evt.arg.name", name.clone());
        }
        EventKind::Exit { .. }
        | EventKind::Fork { .. }
        | EventKind::Socket { .. }
        | EventKind::Namespace { .. }
        | EventKind::Ptrace { .. }
        | EventKind::Bpf { .. }
        | EventKind::Credentials { .. }
        | EventKind::Syscall { .. }
        | EventKind::CgroupMkdir { .. }
        | EventKind::CgroupRmdir { .. }
        | EventKind::CgroupAttach { .. }
        | EventKind::Rare { .. }
        | EventKind::Signal { .. } => {}
    }
}

/// Of an exec, the new program; its arguments are in full here.
fn exec_fields(out: &mut Fields, exec: &Exec) {
    out.put("proc.name", exec.exe.basename());
    out.put("proc.exepath", exec.exe.clone());
    out.put("proc.cmdline", command_line(&exec.exe, &exec.argv));
    out.put("proc.cwd", exec.cwd.clone());
    out.put("proc.tty", exec.tty.to_string());
    out.put(
        "proc.is_exe_upper_layer",
        (exec.origin == Origin::Upper).to_string(),
    );
    out.put(
        "proc.is_exe_from_memfd",
        (exec.origin == Origin::Memfd).to_string(),
    );
}

/// Falco names the two ends by who called whom.
fn ends(out: &mut Fields, client: Option<&SockAddr>, server: Option<&SockAddr>, proto: &str) {
    match (client, server) {
        (Some(c), Some(s)) => out.put("fd.name", format!("{c}->{s}")),
        (None, Some(s)) => out.put("fd.name", s.to_string()),
        (_, None) => {}
    }
    out.put("fd.l4proto", proto);
    end(out, client, "fd.cip", "fd.cport");
    end(out, server, "fd.sip", "fd.sport");
}

fn end(out: &mut Fields, at: Option<&SockAddr>, ip_name: &str, port_name: &str) {
    if let Some(SockAddr::Inet(ip, port)) = at {
        out.put(ip_name, ip.to_string());
        out.put(port_name, port.to_string());
    }
}

/// The system call that Falco would name.
fn event_type(kind: &EventKind) -> String {
    match kind {
        // no call of Falco's: nobody saw one
        EventKind::Exec(exec) if exec.found => "found_running",
        EventKind::Exec(_) => "execve",
        EventKind::Exit { .. } => "procexit",
        EventKind::Fork { .. } => "clone",
        EventKind::File(file) => file_type(file.op),
        EventKind::Library { .. } => "mmap",
        EventKind::Socket { .. } => "socket",
        EventKind::Connect(_) => "connect",
        EventKind::Accept(_) => "accept4",
        EventKind::Listen { .. } => "listen",
        EventKind::Bind { .. } => "bind",
        EventKind::Datagram(_) | EventKind::Dns(_) => "sendto",
        EventKind::Dup { .. } => "dup2",
        EventKind::Namespace { call, .. } => match call {
            NamespaceCall::Setns => "setns",
            NamespaceCall::Unshare => "unshare",
            NamespaceCall::Clone => "clone",
        },
        EventKind::Mount { .. } => "mount",
        EventKind::Ptrace { .. } => "ptrace",
        EventKind::Module { .. } => "finit_module",
        EventKind::Bpf { .. } => "bpf",
        EventKind::Credentials { .. } => "setuid",
        EventKind::Memfd { .. } => "memfd_create",
        EventKind::CgroupMkdir { .. } => "mkdir",
        EventKind::CgroupRmdir { .. } => "rmdir",
        EventKind::CgroupAttach { .. } => "cgroup_attach",
        EventKind::Signal { .. } => "kill",
        EventKind::Syscall { nr, compat: true } => {
            let table = crate::names::Table::NATIVE.compat();
            let name = crate::names::syscall_name(table, *nr);
            return name.map_or_else(|| format!("syscall {nr}"), str::to_owned);
        }
        EventKind::Syscall { nr, .. } | EventKind::Rare { nr, .. } => {
            return crate::names::native_syscall(*nr);
        }
    }
    .to_owned()
}

fn file_type(op: FileOp) -> &'static str {
    match op {
        FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List | FileOp::Failed => "openat",
        FileOp::Unlink => "unlinkat",
        FileOp::Mkdir => "mkdirat",
        FileOp::Rmdir => "rmdir",
        FileOp::Chmod => "fchmodat",
        FileOp::Chown => "fchownat",
        FileOp::Rename => "renameat2",
        FileOp::Link => "linkat",
        FileOp::Symlink => "symlinkat",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_is_split_as_falco_does() {
        assert_eq!(image_parts("reg:5000/a/web:1.2"), ("reg:5000/a/web", "1.2"));
        assert_eq!(image_parts("reg:5000/a/web"), ("reg:5000/a/web", ""));
        assert_eq!(image_parts("web@sha256:abc"), ("web", ""));
    }
}
