//! `evt.arg.*`: what a call was given, by the names that Falco has for its arguments.
//!
//! Leaves out: arguments by number, whose order is that of Falco's own event tables, and arguments
//! that the sensor does not read.

use super::view::View;
use super::words;
use plimsoll_model::event::FileEvent;
use plimsoll_model::{EventKind as Seen, FileOp, Origin};
use plimsoll_rules::{FieldArg, Value};

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
        Seen::Connect(_)
        | Seen::Accept(_)
        | Seen::Listen { .. }
        | Seen::Bind { .. }
        | Seen::Datagram(_)
        | Seen::Dup { .. }
        | Seen::Library { .. }
        | Seen::Fork { .. }
        | Seen::Dns(_)
        | Seen::Syscall { .. }
        | Seen::CgroupMkdir { .. }
        | Seen::CgroupRmdir { .. }
        | Seen::CgroupAttach { .. } => Vec::new(),
    }
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
            vec![("name", path()), ("flags", flags.into())]
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
    match arg {
        FieldArg::Key(key) => match of(view).into_iter().find(|(n, _)| *n == &**key) {
            Some((_, text)) => view.text(text),
            // an argument of another call is absent; whether this one is, is not told apart
            None => Value::Absent,
        },
        FieldArg::Index(_) | FieldArg::None => Value::Unknown,
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
