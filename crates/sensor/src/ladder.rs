//! The hook ladder: which mechanism observes which kind on this kernel, and what each refusal costs.
//!
//! Per kind the first rung that the kernel takes is used: BPF-LSM, then fentry on the security
//! functions, then the tracepoints. Programs are loaded one by one; a refusal of a whole family for
//! lack of permission is not tried again for each of its members.

use crate::api::{HookStatus, Refusal, Rung, SensorConfig};
use std::collections::{BTreeMap, HashSet};

/// Security hooks, loaded as `l_NAME` (lsm/NAME) or `f_NAME` (fentry/security_NAME).
pub(crate) const HOOKS: &[&str] = &[
    "file_open",
    "mmap_file",
    "file_mprotect",
    "path_unlink",
    "path_rmdir",
    "path_mkdir",
    "path_symlink",
    "path_link",
    "path_rename",
    "path_chmod",
    "path_chown",
    "socket_connect",
];

/// Functions of the kernel that all acts of a kind pass, with programs at their exit (`f_NAME`). Where all of
/// them are taken, neither security hooks nor system calls are needed for that kind.
pub(crate) struct Results {
    programs: &'static [&'static str],
    /// Single calls (`c_NAME`) that are not hooked then.
    calls: &'static [&'static str],
    mechanism: &'static str,
    misses: &'static str,
}

pub(crate) const OPENS: Results = Results {
    programs: &["f_open", "f_open_dentry", "f_open_root"],
    calls: &["open", "creat", "openat", "openat2"],
    mechanism: "fexit/do_filp_open, dentry_open, do_file_open_root",
    misses: "use of a descriptor that was handed over by another process; refusals by the name that was given, before links are followed; an open that waits for somebody (a pipe) until it does no more",
};

pub(crate) const DNS: Results = Results {
    programs: &[
        "f_dns_sent",
        "f_dns_sent6",
        "f_dns_received",
        "f_dns_received6",
    ],
    calls: &[
        "sendto", "recvfrom", "write", "read", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
        "writev", "readv",
    ],
    mechanism: "fexit/inet_sendmsg, inet6_sendmsg, inet_recvmsg, inet6_recvmsg",
    misses: "DNS over TLS and HTTPS; ports other than 53; messages in many pieces",
};

/// Programs that were refused, with the reason, by name.
pub(crate) type Refused = BTreeMap<String, String>;

const LEFT_OUT: &str = "not tried: left out by the configuration";

/// What is loaded, decided anew after each refusal.
pub(crate) struct Ladder {
    top: Rung,
    calls_used: bool,
    /// Programs that prevent (`e_`) are wanted.
    enforcement: bool,
    pub(crate) refused: Refused,
    lsm: Result<(), String>,
}

impl Ladder {
    pub(crate) fn new(config: &SensorConfig) -> Self {
        Ladder {
            top: config.top,
            calls_used: config.syscalls_used,
            enforcement: config.enforcement,
            refused: config
                .without
                .iter()
                .map(|p| (p.clone(), LEFT_OUT.to_owned()))
                .collect(),
            lsm: match config.top {
                Rung::Lsm => lsm_usable(),
                _ => Err(LEFT_OUT.into()),
            },
        }
    }

    /// Whether this kernel would call programs on LSM hooks.
    pub(crate) fn lsm_usable(&self) -> bool {
        self.lsm.is_ok()
    }

    /// Whether single calls are hooked at their exit (`c_`) instead of all calls at once.
    pub(crate) fn single_calls(&self) -> bool {
        self.top != Rung::Tracepoint
            && !self.calls_used
            && !self.fentry_refused()
            && !self.refused.contains_key("calls")
    }

    fn fentry_refused(&self) -> bool {
        self.refused.contains_key("fentry")
    }

    /// Whether a kind is observed by the results of functions.
    pub(crate) fn by(&self, results: &Results) -> bool {
        self.top != Rung::Tracepoint
            && !self.fentry_refused()
            && !results
                .programs
                .iter()
                .any(|p| self.refused.contains_key(*p))
    }

    /// Whether a program is to be loaded.
    pub(crate) fn wants(&self, program: &str) -> bool {
        if self.refused.contains_key(program) {
            return false;
        }
        if let Some(results) = [OPENS, DNS].iter().find(|r| r.programs.contains(&program)) {
            return self.by(results);
        }
        let (family, rest) = program.split_at(program.find('_').map_or(0, |i| i + 1));
        match family {
            "l_" | "f_" if rest == "file_open" && self.by(&OPENS) => false,
            "l_" => self.lsm.is_ok() && !self.refused.contains_key("lsm"),
            "f_" => {
                self.top != Rung::Tracepoint
                    && !self.fentry_refused()
                    && !self.wants(&format!("l_{rest}"))
            }
            "e_" if rest.ends_with(['4', '6']) => self.enforcement,
            "e_" => self.enforcement && self.lsm.is_ok() && !self.refused.contains_key("lsm"),
            "c_" => {
                let unneeded = |r: &Results| self.by(r) && r.calls.contains(&rest);
                self.single_calls() && !unneeded(&OPENS) && !unneeded(&DNS)
            }
            "h_" => !self.single_calls(),
            _ if program == "on_sys_exit" => !self.single_calls(),
            // one tracepoint under two names
            _ if program == "on_uring_sqe" => self.refused.contains_key("on_uring"),
            _ => true,
        }
    }

    /// Keeps a refusal; for lack of permission the whole family counts as refused.
    pub(crate) fn refuse(&mut self, program: &str, reason: String) {
        let family = match program.split('_').next() {
            Some("l") => "lsm",
            Some("e") if !program.ends_with(['4', '6']) => "lsm",
            Some("f" | "c") => "fentry",
            _ => "",
        };
        if !family.is_empty() && not_permitted(&reason) {
            self.refused.insert(family.to_owned(), reason.clone());
        }
        // a call that exists and cannot be hooked by itself would go unseen: then all at once
        if let Some(call) = program.strip_prefix("c_")
            && has_call(call)
        {
            self.refused
                .insert("calls".into(), format!("{program}: {reason}"));
        }
        self.refused.insert(program.to_owned(), reason);
    }

    /// Why a program that prevents is not loaded; `None`: it is.
    pub(crate) fn why_not(&self, program: &str) -> Option<String> {
        if self.wants(program) {
            return None;
        }
        let refused = self.refused.get(program).or(self.refused.get("lsm"));
        let lsm = || self.lsm.clone().err();
        Some(refused.cloned().or_else(lsm).unwrap_or_default())
    }

    /// Whether opens are observed by more than system calls.
    pub(crate) fn sees_opens(&self) -> bool {
        self.by(&OPENS) || self.rung("file_open").is_some()
    }

    /// The rung that observes a security hook, or `None` when the tracepoints do.
    pub(crate) fn rung(&self, hook: &str) -> Option<Rung> {
        if HOOKS.contains(&hook) && self.wants(&format!("l_{hook}")) {
            Some(Rung::Lsm)
        } else if self.wants(&format!("f_{hook}")) {
            Some(Rung::Fentry)
        } else {
            None
        }
    }

    /// Why a hook is not on a higher rung than it is.
    fn refusals(&self, hook: &str) -> Vec<Refusal> {
        let mut out = Vec::new();
        let why = |program: String, family: &str| {
            self.refused
                .get(&program)
                .or_else(|| self.refused.get(family))
                .cloned()
        };
        let now = self.rung(hook);
        if HOOKS.contains(&hook) && now != Some(Rung::Lsm) {
            let reason = why(format!("l_{hook}"), "lsm").or_else(|| self.lsm.clone().err());
            out.extend(reason.map(|reason| Refusal {
                mechanism: format!("lsm/{hook}"),
                reason,
            }));
        }
        if now.is_none() {
            let mechanism = match hook {
                "accept" => "fexit/inet_csk_accept".to_owned(),
                _ => format!("fentry/security_{hook}"),
            };
            let reason = why(format!("f_{hook}"), "fentry")
                .or_else(|| (self.top == Rung::Tracepoint).then(|| LEFT_OUT.into()));
            out.extend(reason.map(|reason| Refusal { mechanism, reason }));
        }
        out
    }
}

fn not_permitted(reason: &str) -> bool {
    reason.contains("Operation not permitted") || reason.contains("-EPERM") || reason.contains("-1")
}

/// Whether this kernel has a system call of that name; when that cannot be told, yes.
fn has_call(name: &str) -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let function = format!("__x64_sys_{name}");
    symbols.is_empty()
        || symbols
            .lines()
            .any(|l| l.split(' ').nth(2) == Some(function.as_str()))
}

/// Programs on LSM hooks load on many kernels where they are never called.
fn lsm_usable() -> Result<(), String> {
    let list = std::fs::read_to_string("/sys/kernel/security/lsm").map_err(|e| {
        format!("read /sys/kernel/security/lsm: {e}; without it nothing says that BPF is among the LSMs (mount securityfs)")
    })?;
    if list.trim().split(',').any(|l| l == "bpf") {
        Ok(())
    } else {
        Err(format!(
            "bpf is not among the LSMs of this kernel ({}): boot with lsm={},bpf",
            list.trim(),
            list.trim()
        ))
    }
}

/// How one kind is observed by each mechanism.
struct Kind {
    kind: &'static str,
    /// What observes it before anything else is tried.
    results: Option<&'static Results>,
    /// Security hooks that observe it (`accept` is fexit/inet_csk_accept).
    hooks: &'static [&'static str],
    /// What those do not see.
    hook_misses: &'static str,
    /// Programs of the tracepoint rung; the first one is necessary.
    programs: &'static [&'static str],
    mechanism: &'static str,
    misses: &'static str,
    advice: &'static str,
}

const LSM_ADVICE: &str = "boot with lsm=...,bpf, or run where fentry programs may be loaded";

const fn plain(
    kind: &'static str,
    programs: &'static [&'static str],
    mechanism: &'static str,
    misses: &'static str,
) -> Kind {
    Kind {
        kind,
        results: None,
        hooks: &[],
        hook_misses: "",
        programs,
        mechanism,
        misses,
        advice: "",
    }
}

const KINDS: &[Kind] = &[
    plain(
        "exec",
        &["on_exec"],
        "tp_btf/sched_process_exec",
        "scripts that an interpreter reads on standard input show as files that it opened; what a process of the host does in a container's namespaces before it runs a program there; of paths below more than 64 directories, all but the last 64",
    ),
    plain(
        "fork, exit",
        &["on_fork", "on_exit"],
        "tp_btf/sched_process_fork, sched_process_exit",
        "",
    ),
    plain(
        "container start and end",
        &["on_cgroup_mkdir", "on_cgroup_rmdir", "on_cgroup_attach"],
        "tp_btf/cgroup_mkdir, cgroup_rmdir, cgroup_attach_task",
        "",
    ),
    Kind {
        kind: "file open",
        results: Some(&OPENS),
        hooks: &["file_open"],
        hook_misses: "opens for the path alone (O_PATH); use of a descriptor that was handed over by another process",
        programs: &["h_open", "h_openat"],
        mechanism: "sys_exit, file object; io_uring by the name it was given",
        misses: "opens through io_uring are seen before links are followed, on kernels with its tracepoint (5.19); use of a descriptor that was handed over by another process",
        advice: LSM_ADVICE,
    },
    Kind {
        kind: "file create, rename, link, unlink, chmod, chown, mkdir, rmdir",
        results: None,
        hooks: &[
            "path_unlink",
            "path_rmdir",
            "path_mkdir",
            "path_symlink",
            "path_link",
            "path_rename",
            "path_chmod",
            "path_chown",
        ],
        hook_misses: "whether the act succeeded",
        programs: &["h_path"],
        mechanism: "sys_exit, argument",
        misses: "paths are copied from the program at the end of the call: another thread can change them meanwhile",
        advice: LSM_ADVICE,
    },
    Kind {
        kind: "library load",
        results: None,
        hooks: &["mmap_file"],
        hook_misses: "",
        programs: &["h_mmap"],
        mechanism: "sys_exit(mmap), file object",
        misses: "",
        advice: "",
    },
    Kind {
        kind: "memory made executable",
        results: None,
        hooks: &["file_mprotect"],
        hook_misses: "",
        programs: &["h_mprotect"],
        mechanism: "sys_exit(mprotect)",
        misses: "",
        advice: "",
    },
    plain(
        "TCP connect and listen",
        &["on_sock_state"],
        "tp_btf/inet_sock_set_state",
        "",
    ),
    Kind {
        kind: "UNIX and UDP connect",
        results: None,
        hooks: &["socket_connect"],
        hook_misses: "whether it succeeded; UNIX datagrams without a connect; a UNIX peer's own name, where it is reached by a link",
        programs: &["h_connect"],
        mechanism: "sys_exit(connect), socket object",
        misses: "connects of UNIX and UDP sockets through io_uring show only as its use; UNIX datagrams without a connect",
        advice: LSM_ADVICE,
    },
    Kind {
        kind: "accept",
        results: None,
        hooks: &["accept"],
        hook_misses: "UNIX sockets",
        programs: &["h_accept"],
        mechanism: "sys_exit, socket object",
        misses: "accepts through io_uring show only as its use; UNIX sockets",
        advice: "run where fentry programs may be loaded",
    },
    plain(
        "bind, socket",
        &["h_bind", "h_socket"],
        "sys_exit, socket object",
        "binds (6.11) and sockets made through io_uring show only as its use",
    ),
    plain(
        "UDP peers",
        &["on_sendmsg4", "on_sendmsg6", "h_connect"],
        "cgroup/sendmsg4, sendmsg6; sys_exit(connect)",
        "",
    ),
    Kind {
        results: Some(&DNS),
        ..plain(
            "DNS questions and answers",
            &["h_dns_buffer", "h_dns_message"],
            "sys_exit on send and receive, open while somebody resolves",
            "DNS over TLS and HTTPS; ports other than 53; messages through io_uring, of 32-bit programs, or in many pieces",
        )
    },
    plain(
        "io_uring",
        &["on_uring"],
        "tp_btf/io_uring_submit_req (io_uring_submit_sqe before 6.4)",
        "on kernels before 5.19: only that a ring was set up",
    ),
    plain(
        "redirected standard streams",
        &["h_dup"],
        "sys_exit(dup, dup2, dup3, fcntl)",
        "",
    ),
    plain(
        "setns, unshare, clone flags",
        &["h_namespace"],
        "sys_exit",
        "",
    ),
    plain(
        "mount, umount, pivot_root, chroot",
        &["h_mount"],
        "sys_exit, argument",
        "",
    ),
    plain(
        "ptrace, process_vm_writev",
        &["h_ptrace"],
        "sys_exit",
        "writes to /proc/PID/mem show as file writes",
    ),
    plain("kernel modules", &["h_module"], "sys_exit", ""),
    plain("bpf", &["h_bpf"], "sys_exit", ""),
    plain(
        "uid and capability changes",
        &["h_credentials"],
        "sys_exit",
        "",
    ),
    plain("memory files", &["h_memfd"], "sys_exit", ""),
    plain("signals to others", &["h_signal"], "sys_exit", ""),
    plain("other rare calls", &["h_rare"], "sys_exit", ""),
    Kind {
        advice: "it is the one kind that needs a program at the exit of every call of the machine: where fentry programs are taken, syscalls_used: false leaves none there",
        ..plain(
            "system calls used",
            &["on_sys_exit"],
            "sys_exit",
            "calls used more than 256 times a second on the node are sampled; calls that never return (exit, rt_sigreturn)",
        )
    },
];

/// How each kind is observed, and what was refused.
pub(crate) fn hook_statuses(ladder: &Ladder) -> Vec<HookStatus> {
    KINDS.iter().map(|k| status(ladder, k)).collect()
}

fn status(ladder: &Ladder, k: &Kind) -> HookStatus {
    if let Some(r) = k.results.filter(|r| ladder.by(r)) {
        return HookStatus {
            kind: k.kind,
            mechanism: Some(r.mechanism.to_owned()),
            refused: Vec::new(),
            misses: r.misses,
            advice: "",
        };
    }
    let results = k.results.map_or(&[][..], |r| r.programs);
    let mut refused: Vec<Refusal> = results
        .iter()
        .filter_map(|p| {
            let reason = ladder.refused.get(*p)?.clone();
            let mechanism = (*p).to_owned();
            Some(Refusal { mechanism, reason })
        })
        .collect();
    refused.extend(k.hooks.first().iter().flat_map(|h| ladder.refusals(h)));
    let rungs: HashSet<Option<Rung>> = k.hooks.iter().map(|h| ladder.rung(h)).collect();
    if !k.hooks.is_empty() && !rungs.contains(&None) {
        return HookStatus {
            kind: k.kind,
            mechanism: Some(name_hooks(ladder, k.hooks)),
            refused,
            misses: k.hook_misses,
            advice: "",
        };
    }
    refused.extend(k.programs.iter().filter_map(|p| {
        let reason = ladder.refused.get(*p).or_else(|| behind(ladder, p))?;
        Some(Refusal {
            mechanism: (*p).to_owned(),
            reason: reason.clone(),
        })
    }));
    if k.programs[0] == "on_sys_exit" && !ladder.calls_used {
        refused.push(Refusal {
            mechanism: "tp_btf/sys_exit".into(),
            reason: "switched off by the configuration (syscalls_used: false)".into(),
        });
    }
    HookStatus {
        kind: k.kind,
        mechanism: served(ladder, k).then(|| spell(ladder, k.mechanism)),
        refused,
        misses: k.misses,
        advice: k.advice,
    }
}

/// A handler is reached through on_sys_exit only.
fn behind<'a>(ladder: &'a Ladder, program: &str) -> Option<&'a String> {
    (program.starts_with("h_") && !ladder.single_calls())
        .then(|| ladder.refused.get("on_sys_exit"))
        .flatten()
}

fn served(ladder: &Ladder, k: &Kind) -> bool {
    let program = k.programs[0];
    if program == "on_sys_exit" && !ladder.calls_used {
        return false; // switched off by the configuration
    }
    if program == "on_uring" {
        return ladder.wants("on_uring") || ladder.wants("on_uring_sqe");
    }
    match program.strip_prefix("h_") {
        Some(_) if ladder.single_calls() => true,
        Some(_) => ladder.wants(program) && ladder.wants("on_sys_exit"),
        None => ladder.wants(program),
    }
}

fn spell(ladder: &Ladder, mechanism: &str) -> String {
    if !mechanism.contains("sys_exit") {
        return mechanism.to_owned();
    }
    if ladder.single_calls() {
        mechanism.replacen("sys_exit", "fexit of the call (64-bit calls only)", 1)
    } else {
        mechanism.replacen("sys_exit", "tp_btf/sys_exit", 1)
    }
}

fn name_hooks(ladder: &Ladder, hooks: &[&str]) -> String {
    let name = |h: &&str| match (ladder.rung(h), **h == *"accept") {
        (_, true) => "fexit/inet_csk_accept".to_owned(),
        (Some(Rung::Lsm), _) => format!("lsm/{h}"),
        _ => format!("fentry/security_{h}"),
    };
    hooks.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Hierarchy;

    fn ladder(lsm: Result<(), String>, top: Rung, calls_used: bool) -> Ladder {
        let mut config = SensorConfig::new(Hierarchy::V2 { mount: "/".into() });
        config.top = Rung::Tracepoint;
        let mut l = Ladder::new(&config);
        (l.lsm, l.top, l.calls_used) = (lsm, top, calls_used);
        l
    }

    #[test]
    fn each_refusal_costs_one_rung_of_its_own_kind() {
        let mut l = ladder(Ok(()), Rung::Lsm, true);
        assert!(l.by(&OPENS) && l.wants("f_open") && !l.wants("l_file_open"));
        l.refuse("f_open_root", "no such function".into());
        assert!(!l.wants("f_open"), "all or none");
        assert!(l.by(&DNS), "its own kind only");
        assert_eq!(l.rung("file_open"), Some(Rung::Lsm));
        l.refuse("l_file_open", "invalid argument".into());
        assert_eq!(l.rung("file_open"), Some(Rung::Fentry));
        assert_eq!(l.rung("path_unlink"), Some(Rung::Lsm), "its own kind only");
        l.refuse("f_file_open", "no such function".into());
        assert_eq!(l.rung("file_open"), None);
        let s = hook_statuses(&l);
        let open = s.iter().find(|s| s.kind == "file open").expect("there");
        assert_eq!(
            open.mechanism.as_deref(),
            Some("tp_btf/sys_exit, file object; io_uring by the name it was given")
        );
        assert_eq!(open.refused.len(), 3, "all reasons are shown");
    }

    #[test]
    fn a_family_without_permission_is_refused_at_once() {
        let mut l = ladder(Ok(()), Rung::Lsm, true);
        l.refuse("l_file_open", "-EPERM".into());
        l.refuse("f_path_unlink", "Operation not permitted".into());
        for hook in HOOKS {
            assert_eq!(l.rung(hook), None);
        }
        assert!(!l.single_calls() && !l.by(&OPENS) && !l.by(&DNS));
        assert!(l.wants("on_sys_exit") && l.wants("h_open"));
    }

    #[test]
    fn without_calls_used_only_single_calls_are_hooked_where_fentry_is_taken() {
        let mut l = ladder(Err("no".into()), Rung::Lsm, false);
        assert!(
            !l.wants("c_openat") && !l.wants("c_read"),
            "files are free of them"
        );
        l.refuse("f_dns_sent6", "no such function".into());
        l.refuse("f_open", "no such function".into());
        assert!(l.wants("c_openat") && l.wants("c_read"));
        assert!(l.wants("c_dup2") && !l.wants("on_sys_exit") && !l.wants("h_dup"));
        let s = hook_statuses(&l);
        let used = s
            .iter()
            .find(|s| s.kind == "system calls used")
            .expect("there");
        assert_eq!(used.mechanism, None);
    }
}
