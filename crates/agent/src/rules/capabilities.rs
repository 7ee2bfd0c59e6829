//! What this node cannot tell rules, so that rules which need it are visibly inactive.
//!
//! Promises: a field or kind of event that is not named as observed here is declared missing, with
//! the reason that people read; a rule that cannot become true without it is inactive, never
//! silent. What is observed only in part leaves a rule active and says so.

use super::{args, kinds};
use plimsoll_rules::{EventKind, Field, KindSet, NodeCapabilities};
use plimsoll_sensor::api::HookStatus;

/// Fields that are told of every event they fit.
const OBSERVED: &[&str] = &[
    "evt.num",
    "evt.time",
    "evt.time.s",
    "evt.time.iso8601",
    "evt.datetime",
    "evt.datetime.s",
    "evt.rawtime",
    "evt.rawtime.s",
    "evt.rawtime.ns",
    "evt.source",
    "evt.is_async",
    "evt.hostname",
    "evt.dir",
    "evt.type",
    "evt.type.is",
    "syscall.type",
    "evt.category",
    "evt.cpu",
    "evt.args",
    "evt.info",
    "evt.arg",
    "evt.count",
    "evt.count.error",
    "evt.is_io",
    "evt.is_io_read",
    "evt.is_io_write",
    "evt.is_wait",
    "evt.is_syslog",
    "evt.abspath",
    "evt.is_open_read",
    "evt.is_open_write",
    "evt.is_open_exec",
    "evt.is_open_create",
    "proc.exe",
    "proc.pexe",
    "proc.aexe",
    "proc.exepath",
    "proc.pexepath",
    "proc.aexepath",
    "proc.name",
    "proc.pname",
    "proc.aname",
    "proc.args",
    "proc.aargs",
    "proc.cmdline",
    "proc.pcmdline",
    "proc.acmdline",
    "proc.cmdnargs",
    "proc.cmdlenargs",
    "proc.exeline",
    "proc.loginshellid",
    "proc.pid",
    "proc.ppid",
    "proc.apid",
    "proc.duration",
    "proc.ppid.duration",
    "proc.pid.ts",
    "proc.ppid.ts",
    "thread.tid",
    "thread.ismain",
    "fd.type",
    "fd.typechar",
    "fd.types",
    "fd.name",
    "fd.directory",
    "fd.filename",
    "fd.ip",
    "fd.cip",
    "fd.sip",
    "fd.lip",
    "fd.rip",
    "fd.port",
    "fd.cport",
    "fd.sport",
    "fd.lport",
    "fd.rport",
    "fd.l4proto",
    "fd.sockfamily",
    "fd.is_server",
    "fd.containername",
    "fd.containerdirectory",
    "fd.proto",
    "fd.cproto",
    "fd.sproto",
    "fd.lproto",
    "fd.rproto",
    "fd.net",
    "fd.cnet",
    "fd.snet",
    "fd.lnet",
    "fd.rnet",
    "fd.is_upper_layer",
    "fd.is_lower_layer",
    "dns.question",
    "dns.qtype",
    "dns.rcode",
    "dns.is_answer",
    "user.uid",
    "group.gid",
    "fs.path.name",
    "fs.path.source",
    "fs.path.target",
    "container.id",
    "container.full_id",
    "container.name",
    "container.image",
    "container.image.id",
    "container.image.repository",
    "container.image.tag",
    "container.image.digest",
    "container.type",
    "container.privileged",
    "container.start_ts",
    "container.duration",
    "container.ip",
    "container.mount",
    "container.mount.dest",
    "container.mount.mode",
    "container.mount.propagation",
    "container.mount.rdwr",
    "container.mount.source",
    "container.mounts",
    "container.label",
    "container.labels",
    "k8s.pod.name",
    "k8s.ns.name",
    "k8s.pod.id",
    "k8s.pod.uid",
];

/// Fields that are told of some events only, or roughly: which, in the words that people read.
const IN_PART: &[(&str, &str)] = &[
    (
        "evt.res",
        "only of calls whose result is recorded (files, connections, rare calls)",
    ),
    (
        "evt.rawres",
        "only of calls whose result is recorded (files, connections, rare calls)",
    ),
    ("evt.failed", "only of calls whose result is recorded"),
    (
        "fd.num",
        "standard streams and failed opens; other descriptors count as 3",
    ),
    (
        "fd.connected",
        "that a TCP connection was started, not that it was accepted",
    ),
    (
        "fd.name_changed",
        "every socket event counts as a change of its name",
    ),
    (
        "fd.cip.name",
        "names that the container itself resolved, and services on this node",
    ),
    (
        "fd.sip.name",
        "names that the container itself resolved, and services on this node",
    ),
    (
        "fd.lip.name",
        "names that the container itself resolved, and services on this node",
    ),
    (
        "fd.rip.name",
        "names that the container itself resolved, and services on this node",
    ),
    (
        "user.name",
        "by the container's own list of users, where the process was looked at in time; else only root has a name",
    ),
    (
        "fd.nameraw",
        "of opens through a call of the native table, and of a container's known opens only where they are watched anyway",
    ),
    ("user.loginuid", AT_EXEC),
    ("user.loginname", "only root has a name; others have none"),
    ("group.name", "only root has a name; other groups have none"),
    ("proc.env", "of execs"),
    ("proc.tty", "only of processes whose exec was observed"),
    (
        "proc.cwd",
        "as of the exec, of processes whose exec was observed",
    ),
    ("proc.exe_ino", "only of processes whose exec was observed"),
    (
        "proc.is_exe_upper_layer",
        "only of processes whose exec was observed",
    ),
    (
        "proc.is_exe_lower_layer",
        "only of processes whose exec was observed",
    ),
    (
        "proc.is_exe_from_memfd",
        "only of processes whose exec was observed",
    ),
    ("k8s.pod.label", OF_SANDBOX),
    ("k8s.pod.labels", OF_SANDBOX),
    ("k8s.pod.sandbox_id", OF_SANDBOX),
    ("k8s.pod.full_sandbox_id", OF_SANDBOX),
    (
        "k8s.pod.ip",
        "of pods whose sandbox has been seen, where the runtime tells its address (Docker, CRI-O)",
    ),
    ("proc.vpid", AT_EXEC),
    ("thread.vtid", AT_EXEC),
    ("proc.vpgid", AT_EXEC),
    ("proc.sid", AT_EXEC),
    ("proc.is_vpgid_leader", AT_EXEC),
    ("proc.is_sid_leader", AT_EXEC),
    ("thread.cap_effective", AT_EXEC),
    ("thread.cap_permitted", AT_EXEC),
    ("thread.cap_inheritable", AT_EXEC),
];

/// Of fields that an exec tells, and nothing afterwards.
const AT_EXEC: &str = "as of the exec, of processes whose exec was observed";

/// Of what a pod's sandbox tells.
const OF_SANDBOX: &str = "of pods whose sandbox has been seen, as it was started";
const NO_HOST: &str = "processes outside of containers are not observed";
const RESOLVED: &str = "paths are resolved: /proc/self/… is told as /proc/PID/…, and a link there (exe, fd/N) as the file behind it";
const NO_API: &str = "the Kubernetes API is not asked";

/// Why some fields are missing, where more can be said than that they are not collected.
const WHY: &[(&str, &str)] = &[
    (
        "evt.buffer",
        "data that is read and written is not collected",
    ),
    (
        "evt.buflen",
        "data that is read and written is not collected",
    ),
    (
        "proc.aenv",
        "environments of ancestors are not kept: they hold secrets",
    ),
    ("k8s.ns.label", NO_API),
    ("k8s.ns.labels", NO_API),
    ("k8s.ns.id", NO_API),
    ("k8s.rc.name", NO_API),
    ("k8s.rc.id", NO_API),
    ("k8s.rc.label", NO_API),
    ("k8s.rc.labels", NO_API),
    ("k8s.rs.name", NO_API),
    ("k8s.rs.id", NO_API),
    ("k8s.svc.name", NO_API),
    ("k8s.svc.id", NO_API),
    ("k8s.svc.label", NO_API),
    ("k8s.svc.labels", NO_API),
    ("k8s.deployment.name", NO_API),
    ("k8s.deployment.id", NO_API),
];

/// Which kinds of event a refused hook costs, by the names that the sensor has for its hooks.
const HOOKS: &[(&str, &[&str])] = &[
    ("exec", &["execve", "execveat", "container"]),
    ("fork, exit", &["fork", "vfork", "procexit"]),
    ("file open", &["open", "openat", "openat2", "creat"]),
    (
        "file create, rename, link, unlink, chmod, chown, mkdir, rmdir",
        &[
            "unlink",
            "unlinkat",
            "rmdir",
            "mkdir",
            "mkdirat",
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "fchown",
            "fchownat",
            "lchown",
            "rename",
            "renameat",
            "renameat2",
            "link",
            "linkat",
            "symlink",
            "symlinkat",
        ],
    ),
    ("library load", &["mmap"]),
    ("TCP connect and listen", &["listen"]),
    (
        "accept, bind, socket",
        &["accept", "accept4", "bind", "socket"],
    ),
    ("UDP peers", &["sendto", "sendmsg", "sendmmsg"]),
    ("redirected standard streams", &["dup", "dup2", "dup3"]),
    ("setns, unshare, clone flags", &["setns", "unshare"]),
    (
        "mount, umount, pivot_root, chroot",
        &[
            "mount",
            "umount",
            "umount2",
            "pivot_root",
            "chroot",
            "move_mount",
        ],
    ),
    (
        "ptrace, process_vm_writev",
        &["ptrace", "process_vm_readv", "process_vm_writev"],
    ),
    (
        "kernel modules",
        &["init_module", "finit_module", "delete_module"],
    ),
    ("bpf", &["bpf"]),
    (
        "uid and capability changes",
        &[
            "setuid",
            "setreuid",
            "setresuid",
            "setgid",
            "setregid",
            "setresgid",
            "capset",
        ],
    ),
    ("DNS questions and answers", &["dns"]),
    ("memory files", &["memfd_create"]),
    ("signals to others", &["kill", "tgkill"]),
    ("other rare calls", &kinds::RARE),
];

/// A field of [`IN_PART`]: in which kinds of event that matters, and to which numbers.
fn in_part(told: NodeCapabilities, field: Field, which: &str) -> NodeCapabilities {
    const DESCRIPTORS: &str = "a new descriptor's number is not told";
    match field {
        Field::EvtRes | Field::EvtFailed => {
            told.with_part_of_field_in(field, without_result(), which)
        }
        Field::EvtRawres => told
            .with_part_of_field_in(field, without_result(), which)
            .with_numbers_up_to(field, 2, DESCRIPTORS),
        Field::FdNum => told.with_numbers_up_to(field, 2, which),
        // an exec itself tells them
        Field::ProcTty
        | Field::ProcCwd
        | Field::ProcExeIno
        | Field::ProcIsExeUpperLayer
        | Field::ProcIsExeLowerLayer
        | Field::ProcIsExeFromMemfd
        | Field::ProcEnv
        | Field::ProcVpid
        | Field::ThreadVtid
        | Field::ProcVpgid
        | Field::ProcSid
        | Field::ProcIsVpgidLeader
        | Field::ProcIsSidLeader
        | Field::UserLoginuid
        | Field::ThreadCapEffective
        | Field::ThreadCapPermitted
        | Field::ThreadCapInheritable => {
            let execs = ["execve", "execveat", "container"];
            let others = EventKind::all().filter(|k| !execs.contains(&k.name()));
            told.with_part_of_field_in(field, others.collect(), which)
        }
        _ => told.with_part_of_field(field, which),
    }
}

/// Kinds of event whose result is not told ([`super::view`]).
fn without_result() -> KindSet {
    const UNTOLD: [&str; 21] = [
        "clone",
        "clone3",
        "socket",
        "setns",
        "unshare",
        "mount",
        "umount",
        "umount2",
        "pivot_root",
        "chroot",
        "move_mount",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "init_module",
        "finit_module",
        "delete_module",
        "bpf",
        "procexit",
        "kill",
        "tgkill",
    ];
    let seen: KindSet = kinds::families().flatten().copied().collect();
    let untold = |k: &EventKind| UNTOLD.contains(&k.name());
    seen.iter().filter(untold).collect()
}

/// Fields of other sources than the kernel: they are judged where those events are.
fn is_elsewhere(name: &str) -> bool {
    ["ka.", "jevt.", "json."]
        .iter()
        .any(|p| name.starts_with(p))
}

/// The names of the hooks that the kernel refused.
pub fn refused(hooks: &[HookStatus]) -> Vec<String> {
    let refused = hooks.iter().filter(|h| h.mechanism.is_none());
    refused.map(|h| h.kind.to_owned()).collect()
}

/// What this sensor tells rules where the kernel refused the hooks of these names.
pub fn capabilities(refused: &[String]) -> NodeCapabilities {
    let mut told = NodeCapabilities::all();
    for field in Field::all() {
        let name = field.name();
        if is_elsewhere(name) || OBSERVED.contains(&name) {
            continue;
        }
        let said = |list: &[(&str, &'static str)]| {
            list.iter().find(|(n, _)| *n == name).map(|(_, why)| *why)
        };
        told = match said(IN_PART) {
            Some(which) => in_part(told, field, which),
            None => told.without_field(field, said(WHY).unwrap_or("not collected")),
        };
    }
    let seen: KindSet = kinds::families().flatten().copied().collect();
    for kind in EventKind::all().filter(|k| !seen.contains(*k)) {
        told = told.without_kind(kind, "not observed by this sensor");
    }
    told = told
        .with_arguments(args::TOLD, "not collected")
        .without_value(Field::ContainerId, "host", NO_HOST)
        .without_prefix(Field::FdName, "/proc/self/", RESOLVED);
    for hook in refused {
        let lost = HOOKS.iter().filter(|(name, _)| name == hook);
        for kind in lost.flat_map(|(_, kinds)| kinds.iter()) {
            if let Some(kind) = EventKind::from_name(kind) {
                told = told.without_kind(kind, "this kernel refused the hook (plimsoll doctor)");
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_tables_is_a_field_or_a_kind() {
        let fields = OBSERVED
            .iter()
            .copied()
            .chain(IN_PART.iter().chain(WHY).map(|(n, _)| *n));
        for name in fields {
            assert!(Field::from_name(name).is_some(), "{name}");
        }
        for kind in HOOKS.iter().flat_map(|(_, kinds)| kinds.iter()) {
            assert!(EventKind::from_name(kind).is_some(), "{kind}");
        }
    }

    #[test]
    fn what_is_not_collected_is_missing_with_a_reason() {
        let told = capabilities(&[]);
        let env = Field::from_name("proc.aenv").unwrap();
        assert!(told.missing_field(env).unwrap().contains("secrets"));
        assert!(
            told.missing_field(Field::from_name("proc.name").unwrap())
                .is_none()
        );
        assert!(
            told.missing_kind(EventKind::from_name("chdir").unwrap())
                .is_some()
        );
        assert!(
            told.missing_kind(EventKind::from_name("openat2").unwrap())
                .is_none()
        );
    }

    /// The state of a rule with that condition on this node.
    fn state(condition: &str) -> plimsoll_rules::RuleStatus {
        let text = format!(
            "- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: NOTICE\n"
        );
        let options = plimsoll_rules::LoadOptions {
            capabilities: capabilities(&[]),
            ..Default::default()
        };
        let (_, set) = plimsoll_rules::load(&[("r.yaml", &text)], &options);
        let set = set.expect("it loads");
        set.rule(plimsoll_rules::RuleId(0)).status.clone()
    }

    #[test]
    fn what_is_told_in_part_matters_only_to_rules_that_hang_on_the_rest() {
        for whole in [
            "evt.type in (open, openat, openat2) and fd.num >= 0 and fd.name = /x",
            "evt.type = dup2 and fd.num in (0, 1, 2)",
            "evt.type = connect and evt.rawres in (0, -115)",
            "evt.type = unlinkat and evt.res = SUCCESS",
            "evt.type = execve and proc.tty != 0 and proc.is_exe_upper_layer = true",
            "evt.type = execve and user.loginuid != 0 and proc.is_sid_leader = true",
            "evt.type = execve and proc.env contains LD_PRELOAD and thread.cap_permitted contains CAP_SYS_ADMIN",
        ] {
            let state = state(whole);
            assert_eq!(state, plimsoll_rules::RuleStatus::Active, "{whole}");
        }
        for partial in [
            "evt.type = openat and fd.num = 7",
            "evt.type = openat and fd.num > 3",
            "evt.type = mount and evt.res = SUCCESS",
            "evt.type = openat and proc.tty != 0",
            "evt.type = openat and user.loginuid != 0",
            "evt.type = execve and user.name = www-data",
        ] {
            let state = state(partial);
            assert!(
                matches!(state, plimsoll_rules::RuleStatus::Partial { .. }),
                "{partial}: {state:?}"
            );
        }
    }

    #[test]
    fn a_rule_about_processes_outside_of_containers_is_inactive_and_says_so() {
        for about_the_host in [
            "evt.type = execve and container.id = host",
            "evt.type = execve and not container.id != host and proc.name = nc",
            "evt.type = execve and not (container.id != host or proc.name = nc)",
            "evt.type = execve and container.id in (host)",
        ] {
            let state = state(about_the_host);
            let reasons = state.reasons().concat();
            assert!(!state.is_active(), "{about_the_host}: {state:?}");
            assert!(reasons.contains("outside of containers"), "{reasons}");
        }
        let itself = state("evt.type = openat and fd.name startswith /proc/self/fd/");
        assert!(itself.reasons().concat().contains("resolved"), "{itself:?}");
        for about_both in [
            "evt.type = openat and (fd.name startswith /proc/self/fd/ or fd.name glob /proc/*/environ)",
            "evt.type = execve and container.id != host",
            "evt.type = execve and (container.id = host or proc.name = nc)",
            "evt.type = execve and not (container.id = host and proc.name = nc)",
            "evt.type = execve and container.id in (host, aabbccddeeff)",
        ] {
            assert_eq!(
                state(about_both),
                plimsoll_rules::RuleStatus::Active,
                "{about_both}"
            );
        }
    }

    #[test]
    fn a_rule_that_needs_an_argument_that_is_not_read_is_inactive_and_says_so() {
        let needs = state("evt.type = mmap and evt.arg.prot contains PROT_EXEC");
        assert!(
            needs.reasons().concat().contains("evt.arg.prot"),
            "{needs:?}"
        );
        assert!(!needs.is_active());
        for told in [
            "evt.type = connect and evt.arg.addr endswith 53",
            "evt.type = openat and evt.arg[2] = /etc/passwd",
            "evt.type = dup2 and evt.arg.newfd = 0",
        ] {
            assert_eq!(state(told), plimsoll_rules::RuleStatus::Active, "{told}");
        }
    }

    #[test]
    fn a_refused_hook_costs_its_kinds() {
        let told = capabilities(&["bpf".to_owned()]);
        assert!(
            told.missing_kind(EventKind::from_name("bpf").unwrap())
                .is_some()
        );
        assert!(
            told.missing_kind(EventKind::from_name("execve").unwrap())
                .is_none()
        );
    }
}
