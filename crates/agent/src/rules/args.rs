//! `evt.arg.*`: what a call was given, by the names that Falco has for its arguments.
//!
//! Arguments by number are in the order of Falco's event table (`driver/event_table.c` of
//! falcosecurity/libs, as of July 2026), each of equal calls by its own. An argument that the table has
//! and the sensor does not read is not told: it is not the same as absent.

use super::view::View;
use super::words;
use plimsoll_model::event::FileEvent;
use plimsoll_model::{EventKind as Seen, FileOp, Origin, SockAddr};
use plimsoll_rules::{EventView as _, FieldArg, Value};

const EXEC: &str = "res exe args tid pid ptid cwd fdlimit pgft_maj pgft_min vm_size vm_rss vm_swap comm \
                    cgroups env tty vpgid loginuid flags cap_inheritable cap_permitted cap_effective \
                    exe_ino exe_ino_ctime exe_ino_mtime uid trusted_exepath pgid gid filename";
const CLONE: &str = "res exe args tid pid ptid cwd fdlimit pgft_maj pgft_min vm_size vm_rss vm_swap comm \
                     cgroups flags uid gid vtid vpid pidns_init_start_ts";

/// The arguments of each call in their order: the names that Falco has for them.
const ORDER: &[(&str, &str)] = &[
    ("execve", EXEC),
    ("execveat", EXEC),
    ("clone", CLONE),
    ("clone3", CLONE),
    ("fork", CLONE),
    ("vfork", CLONE),
    ("procexit", "status ret sig core reaper_tid"),
    ("openat", "fd dirfd name flags mode dev ino"),
    ("open", "fd name flags mode dev ino"),
    ("openat2", "fd dirfd name flags mode resolve dev ino"),
    ("unlink", "res path"),
    ("mkdir", "res path mode"),
    ("chmod", "res filename mode"),
    ("chown", "res path uid gid"),
    ("lchown", "res path uid gid"),
    ("rename", "res oldpath newpath"),
    ("renameat", "res olddirfd oldpath newdirfd newpath"),
    ("link", "res oldpath newpath"),
    ("symlink", "res target linkpath"),
    ("accept", "fd tuple queuepct queuelen queuemax"),
    ("sendmsg", "res data fd size tuple"),
    ("sendmmsg", "res fd size data tuple"),
    ("dup", "res oldfd"),
    ("dup3", "res oldfd newfd flags"),
    ("umount", "res name"),
    ("setresuid", "res ruid euid suid"),
    ("setreuid", "res ruid euid"),
    ("setgid", "res gid"),
    ("tgkill", "res pid tid sig"),
    ("creat", "fd name mode dev ino creat_flags"),
    ("unlinkat", "res dirfd name flags"),
    ("rmdir", "res path"),
    ("mkdirat", "res dirfd path mode"),
    ("fchmodat", "res dirfd filename mode"),
    ("fchmod", "res fd mode"),
    ("fchownat", "res dirfd pathname uid gid flags"),
    ("fchown", "res fd uid gid"),
    ("renameat2", "res olddirfd oldpath newdirfd newpath flags"),
    ("linkat", "res olddir oldpath newdir newpath flags"),
    ("symlinkat", "res target linkdirfd linkpath"),
    (
        "mmap",
        "res vm_size vm_rss vm_swap addr length prot flags fd offset",
    ),
    ("socket", "fd domain type proto flags"),
    ("connect", "res tuple fd addr"),
    ("accept4", "fd tuple queuepct queuelen queuemax flags"),
    ("listen", "res fd backlog"),
    ("bind", "res addr fd"),
    ("sendto", "res data fd size tuple"),
    ("dup2", "res oldfd newfd"),
    ("setns", "res fd nstype"),
    ("unshare", "res flags"),
    ("mount", "res dev dir type flags"),
    ("umount2", "res name flags"),
    ("chroot", "res path"),
    ("ptrace", "res addr data request pid"),
    ("process_vm_writev", "res pid data"),
    ("process_vm_readv", "res pid data"),
    ("init_module", "res img length uargs"),
    ("finit_module", "res fd uargs flags"),
    ("delete_module", "res name flags"),
    ("bpf", "fd cmd"),
    ("setuid", "res uid"),
    ("capset", "res cap_inheritable cap_permitted cap_effective"),
    ("memfd_create", "fd name flags"),
    ("kill", "res pid sig"),
    ("userfaultfd", "res flags"),
    (
        "io_uring_setup",
        "res entries sq_entries cq_entries flags sq_thread_cpu sq_thread_idle features",
    ),
];

/// The arguments that are told of some call; others make a rule that needs them inactive.
pub(super) const TOLD: [&str; 32] = [
    "res",
    "exe",
    "filename",
    "cwd",
    "comm",
    "trusted_exepath",
    "uid",
    "gid",
    "flags",
    "domain",
    "type",
    "proto",
    "nstype",
    "dev",
    "dir",
    "name",
    "path",
    "request",
    "pid",
    "cmd",
    "sig",
    "status",
    "ret",
    "newfd",
    "tuple",
    "addr",
    "mode",
    "oldpath",
    "newpath",
    "target",
    "linkpath",
    "pathname",
];

/// What the arguments of a call are named, in their order.
fn order(call: &str) -> impl Iterator<Item = &'static str> {
    let names = ORDER
        .iter()
        .find(|(c, _)| *c == call)
        .map_or("", |(_, n)| n);
    names.split_ascii_whitespace()
}

/// The arguments of an event, with their names; several names may mean the same.
fn of(view: &View<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let text = |t: &plimsoll_model::Text| t.as_bytes().to_vec();
    match &view.obs.event.kind {
        Seen::Exec(exec) => {
            let mut flags = Vec::new();
            match exec.origin {
                Origin::Upper => flags.push("EXE_UPPER_LAYER"),
                Origin::Image => flags.push("EXE_LOWER_LAYER"),
                Origin::Memfd => flags.push("EXE_FROM_MEMFD"),
                _ => {}
            }
            vec![
                ("res", b"0".to_vec()),
                ("exe", text(exec.argv.first().unwrap_or(&exec.exe))),
                ("filename", text(&exec.exe)),
                ("cwd", text(&exec.cwd)),
                ("comm", text(&view.obs.event.process.comm)),
                ("trusted_exepath", text(&exec.exe)),
                ("uid", exec.euid.to_string().into()),
                ("gid", exec.egid.to_string().into()),
                ("flags", flags.join("|").into()),
            ]
        }
        Seen::File(file) => of_file(file),
        Seen::Socket {
            family,
            kind,
            protocol,
        } => vec![
            ("domain", words::family(*family).into()),
            ("type", kind.to_string().into()),
            ("proto", protocol.to_string().into()),
        ],
        Seen::Namespace { flags, .. } => vec![
            ("flags", words::namespaces(*flags).into()),
            ("nstype", words::namespaces(*flags).into()),
        ],
        Seen::Mount {
            source,
            target,
            fstype,
            flags,
            ..
        } => vec![
            ("dev", text(source)),
            ("dir", text(target)),
            ("name", text(target)),
            ("path", text(target)),
            ("type", text(fstype)),
            ("flags", words::mount_flags(*flags).into()),
        ],
        Seen::Ptrace { request, target } => vec![
            ("request", words::ptrace_request(*request).into()),
            ("pid", target.to_string().into()),
        ],
        Seen::Module { name } => vec![("name", text(name))],
        Seen::Bpf { command } => vec![("cmd", words::bpf_command(*command).into())],
        Seen::Credentials { new_uid, .. } => vec![("uid", new_uid.to_string().into())],
        Seen::Memfd { name } => vec![("name", text(name))],
        Seen::Signal { signal, target } => vec![
            ("pid", target.to_string().into()),
            ("sig", plimsoll_baseline::names::signal_name(*signal).into()),
        ],
        Seen::Exit { code, signal } => vec![
            ("status", ((code << 8) | signal).to_string().into()),
            ("ret", code.to_string().into()),
            (
                "sig",
                plimsoll_baseline::names::signal_name(*signal as u32).into(),
            ),
        ],
        Seen::Rare { args, result, .. } => {
            let mut list = vec![("res", result.to_string().into_bytes())];
            for (name, arg) in ["0", "1", "2", "3"].into_iter().zip(args) {
                list.push((name, arg.to_string().into_bytes()));
            }
            list
        }
        Seen::Connect(c) | Seen::Datagram(c) => {
            let mut list = vec![("res", c.result.to_string().into_bytes())];
            list.extend(of_socket(view, Some(&c.peer)));
            list
        }
        Seen::Accept(c) => of_socket(view, Some(&c.peer)),
        Seen::Listen { local, .. } | Seen::Bind { local, .. } => of_socket(view, Some(local)),
        Seen::Dup { stream, .. } => vec![
            ("res", stream.to_string().into()),
            ("newfd", stream.to_string().into()),
        ],
        Seen::Library { .. }
        | Seen::Fork { .. }
        | Seen::Dns(_)
        | Seen::Syscall { .. }
        | Seen::CgroupMkdir { .. }
        | Seen::CgroupRmdir { .. }
        | Seen::CgroupAttach { .. } => Vec::new(),
    }
}

/// Both ends of a socket, and the address that the call named.
fn of_socket(view: &View<'_>, named: Option<&SockAddr>) -> Vec<(&'static str, Vec<u8>)> {
    let mut list = Vec::new();
    if let Some(ends) = &view.ends {
        list.push(("tuple", ends.name().into_bytes()));
    }
    match named {
        Some(SockAddr::Inet(ip, port)) => list.push(("addr", format!("{ip}:{port}").into_bytes())),
        Some(SockAddr::Unix(path)) => list.push(("addr", path.as_bytes().to_vec())),
        None => {}
    }
    list
}

fn of_file(file: &FileEvent) -> Vec<(&'static str, Vec<u8>)> {
    let path = || file.path.as_bytes().to_vec();
    let target = || file.target.as_bytes().to_vec();
    let mut list = match file.op {
        FileOp::Read | FileOp::Write | FileOp::Create | FileOp::List | FileOp::Failed => {
            let mut flags = words::open_flags(file.flags, file.op == FileOp::Create);
            match file.origin {
                Origin::Upper => flags.push_str("|FD_UPPER_LAYER"),
                Origin::Image => flags.push_str("|FD_LOWER_LAYER"),
                _ => {}
            }
            let mut list = vec![("name", path()), ("flags", flags.into())];
            let mode = file.mode.map(|mode| ("mode", words::mode(mode).into()));
            list.extend(mode);
            list
        }
        FileOp::Unlink | FileOp::Rmdir => vec![("path", path()), ("name", path())],
        FileOp::Mkdir => vec![("path", path())],
        FileOp::Chmod => vec![
            ("filename", path()),
            ("path", path()),
            ("mode", words::mode(file.flags).into()),
        ],
        FileOp::Chown => vec![("path", path()), ("pathname", path())],
        FileOp::Rename | FileOp::Link => vec![("oldpath", path()), ("newpath", target())],
        FileOp::Symlink => vec![("target", path()), ("linkpath", target())],
    };
    list.push(("res", file.result.to_string().into()));
    list
}

/// One argument.
pub(super) fn one<'v>(view: &'v View<'_>, arg: &FieldArg) -> Value<'v> {
    let call = view.kind().name();
    let name = match arg {
        FieldArg::Key(key) => &**key,
        FieldArg::Index(n) => match order(call).nth(*n as usize) {
            Some(name) => name,
            None if order(call).next().is_some() => return Value::Absent,
            None => return Value::Unknown,
        },
        FieldArg::None => return Value::Unknown,
    };
    match of(view).into_iter().find(|(n, _)| *n == name) {
        Some((_, text)) => view.text(text),
        // this call has it, but the sensor does not read it
        None if order(call).any(|n| n == name) => Value::Unknown,
        // an argument of another call is absent
        None => Value::Absent,
    }
}

/// All of them, as `evt.args` shows them.
pub(super) fn all(view: &View<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    for (name, text) in of(view) {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(name.as_bytes());
        line.push(b'=');
        line.extend_from_slice(&text);
    }
    line
}
