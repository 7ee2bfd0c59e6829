//! Which names `evt.type` can have for what was observed.
//!
//! The sensor tells what was done, not by which of several equal calls: a file that was opened may
//! have been opened by `open`, `openat` or `openat2`. A rule that names one of them is judged as if
//! it named whichever fits; a rule that names them all (as the public rules do) means the same here
//! and in Falco. Questions to name servers have a kind of our own, `dns`; their names also reach rules as
//! `fd.sip.name` of later connections.
//!
//! Promise: what is not in a family here is declared as not observed
//! ([`super::capabilities`]), so that no rule waits for it in silence.

use plimsoll_baseline::names::{Table, syscall_name};
use plimsoll_model::event::{MountCall, NamespaceCall};
use plimsoll_model::{Event, EventKind as Seen, FileOp, Trust};
use plimsoll_rules::EventKind;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Names that one observed act may have, the likeliest first.
pub type Family = &'static [EventKind];

/// Rare calls that the sensor reports with arguments and result (its table of handlers).
pub const RARE: [&str; 26] = [
    "open_by_handle_at",
    "memfd_secret",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "kexec_load",
    "kexec_file_load",
    "add_key",
    "request_key",
    "keyctl",
    "reboot",
    "swapon",
    "swapoff",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "acct",
    "quotactl",
    "iopl",
    "ioperm",
    "syslog",
    "fanotify_init",
    "open_tree",
    "fsopen",
    "pidfd_getfd",
];

macro_rules! families {
    ($($name:ident = $($kind:literal)*;)*) => {
        #[derive(Clone, Copy)]
        enum Group { $($name,)* }

        const NAMES: &[&[&str]] = &[$(&[$($kind,)*],)*];
    };
}

families! {
    Exec = "execve" "execveat";
    FirstExec = "execve" "execveat" "container";
    Exit = "procexit";
    Fork = "clone" "clone3" "fork" "vfork";
    Open = "openat" "open" "openat2";
    Creat = "creat" "openat2" "openat" "open";
    Unlink = "unlinkat" "unlink";
    Rmdir = "rmdir" "unlinkat";
    Mkdir = "mkdirat" "mkdir";
    Chmod = "fchmodat" "chmod" "fchmodat2";
    Fchmod = "fchmod";
    Chown = "fchownat" "chown" "lchown";
    Fchown = "fchown";
    Rename = "renameat2" "rename" "renameat";
    Link = "linkat" "link";
    Symlink = "symlinkat" "symlink";
    Library = "mmap";
    Socket = "socket";
    Connect = "connect";
    Accept = "accept4" "accept";
    Listen = "listen";
    Bind = "bind";
    Datagram = "sendto" "sendmsg" "sendmmsg" "connect";
    Dup = "dup2" "dup3" "dup";
    Setns = "setns";
    Unshare = "unshare";
    Clone = "clone" "clone3";
    Mount = "mount";
    Umount = "umount2" "umount";
    PivotRoot = "pivot_root";
    Chroot = "chroot";
    MoveMount = "move_mount";
    Ptrace = "ptrace";
    WriteMemory = "process_vm_writev";
    ReadMemory = "process_vm_readv";
    InitModule = "init_module";
    FinitModule = "finit_module";
    DeleteModule = "delete_module";
    Bpf = "bpf";
    Setuid = "setuid" "setresuid" "setreuid";
    Capset = "capset" "setgid" "setresgid" "setregid";
    Memfd = "memfd_create";
    Signal = "kill" "tgkill";
    Dns = "dns";
}

struct Tables {
    groups: Vec<Vec<EventKind>>,
    rare: BTreeMap<u32, [EventKind; 1]>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let kind = |name: &&str| EventKind::from_name(name).expect("a name that evt.type has");
        let calls = |nr| {
            let name = syscall_name(Table::NATIVE, nr).filter(|n| RARE.contains(n))?;
            Some((nr, [EventKind::from_name(name)?]))
        };
        Tables {
            groups: NAMES.iter().map(|g| g.iter().map(kind).collect()).collect(),
            rare: (0..512).filter_map(calls).collect(),
        }
    })
}

/// Every family: what this sensor can report at all.
pub fn families() -> impl Iterator<Item = Family> {
    let tables = tables();
    let rare = tables.rare.values().map(|k| k.as_slice());
    tables.groups.iter().map(Vec::as_slice).chain(rare)
}

/// The names that an event may have; empty for what Falco has no event for.
pub fn family(event: &Event) -> Family {
    let group = match &event.kind {
        // it was not executed now
        Seen::Exec(exec) if exec.found => return &[],
        Seen::Exec(exec) if exec.first => Group::FirstExec,
        Seen::Exec(_) => Group::Exec,
        Seen::Exit { .. } => Group::Exit,
        Seen::Fork { .. } => Group::Fork,
        Seen::File(file) => {
            let by_argument = event.trust == Trust::Argument;
            return file_family(file.op, Some(file.flags), by_argument);
        }
        Seen::Library { .. } => Group::Library,
        Seen::Socket { .. } => Group::Socket,
        Seen::Connect(_) => Group::Connect,
        Seen::Accept(_) => Group::Accept,
        Seen::Listen { .. } => Group::Listen,
        Seen::Bind { .. } => Group::Bind,
        Seen::Datagram(_) => Group::Datagram,
        Seen::Dup { .. } => Group::Dup,
        Seen::Namespace { call, .. } => match call {
            NamespaceCall::Setns => Group::Setns,
            NamespaceCall::Unshare => Group::Unshare,
            NamespaceCall::Clone => Group::Clone,
        },
        Seen::Mount { call, .. } => match call {
            MountCall::Mount => Group::Mount,
            MountCall::Umount => Group::Umount,
            MountCall::PivotRoot => Group::PivotRoot,
            MountCall::Chroot => Group::Chroot,
            MountCall::MoveMount => Group::MoveMount,
        },
        Seen::Ptrace { request, .. } => match *request {
            u32::MAX => Group::WriteMemory,
            0xffff_fffe => Group::ReadMemory,
            _ => Group::Ptrace,
        },
        Seen::Module { name } => match (event.trust, name.is_empty()) {
            (Trust::Argument, _) => Group::DeleteModule,
            (_, false) => Group::FinitModule,
            (_, true) => Group::InitModule,
        },
        Seen::Bpf { .. } => Group::Bpf,
        Seen::Credentials {
            old_uid, new_uid, ..
        } => match old_uid != new_uid {
            true => Group::Setuid,
            false => Group::Capset,
        },
        Seen::Memfd { .. } => Group::Memfd,
        Seen::Signal { .. } => Group::Signal,
        Seen::Rare { nr, .. } => {
            return tables().rare.get(nr).map_or(&[], |k| k.as_slice());
        }
        Seen::Dns(_) => Group::Dns,
        // calls "used" have neither arguments nor repeats
        Seen::Syscall { .. }
        | Seen::CgroupMkdir { .. }
        | Seen::CgroupRmdir { .. }
        | Seen::CgroupAttach { .. } => return &[],
    };
    of(group)
}

fn of(group: Group) -> Family {
    &tables().groups[group as usize]
}

/// The family whose likeliest name is `name`; empty where there is none.
pub fn named(name: &str) -> Family {
    let found = tables().groups.iter().find(|g| g[0].name() == name);
    found.map_or(&[], Vec::as_slice)
}

/// The names that a file operation may have; `by_argument`: the file was named by its path.
pub fn file_family(op: FileOp, flags: Option<u32>, by_argument: bool) -> Family {
    of(match op {
        // creat has no flags; those of openat2 are not read
        FileOp::Create if flags.is_none_or(|f| f == 0) => Group::Creat,
        FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List | FileOp::Failed => {
            Group::Open
        }
        FileOp::Unlink => Group::Unlink,
        FileOp::Rmdir => Group::Rmdir,
        FileOp::Mkdir => Group::Mkdir,
        FileOp::Chmod if by_argument => Group::Chmod,
        FileOp::Chmod => Group::Fchmod,
        FileOp::Chown if by_argument => Group::Chown,
        FileOp::Chown => Group::Fchown,
        FileOp::Rename => Group::Rename,
        FileOp::Link => Group::Link,
        FileOp::Symlink => Group::Symlink,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{event, exec, file_read};

    #[test]
    fn every_family_has_names_that_rules_know() {
        assert!(families().all(|f| !f.is_empty()));
        let native = tables().rare.len();
        assert!(
            native >= RARE.len() - 2,
            "{native} rare calls are in the native table"
        );
    }

    #[test]
    fn an_open_may_have_been_any_of_the_open_calls() {
        let names: Vec<&str> = family(&event(1, file_read("/etc/passwd")))
            .iter()
            .map(|k| k.name())
            .collect();
        assert_eq!(names, ["openat", "open", "openat2"]);
    }

    #[test]
    fn the_first_program_of_a_container_is_also_its_start() {
        let mut kind = exec("/bin/sh");
        assert!(
            family(&event(1, kind.clone()))
                .iter()
                .all(|k| k.name() != "container")
        );
        if let Seen::Exec(exec) = &mut kind {
            exec.first = true;
        }
        assert!(
            family(&event(1, kind))
                .iter()
                .any(|k| k.name() == "container")
        );
    }
}
