//! Events, processes and addresses in words, for tables and answers.
//!
//! Promise: bytes chosen by a container appear escaped (`\x1b`), so that every text made here can
//! be written to a terminal; and each text is bounded, whatever the container did.

use crate::types::{mount_call, namespace_call};
use plimsoll_model::event::{Connection, DupTarget, Exec, FileEvent};
use plimsoll_model::names::{
    Table, bpf_name, capability_names, family_name, namespace_names, ptrace_name, signal_name,
    socket_kind_name, syscall_words,
};
use plimsoll_model::{Ancestor, EventKind, FileOp, Observation, Origin, SockAddr, Text, WallNs};
use std::fmt::Write as _;

/// Longest argument list shown in words, in characters.
const ARGUMENTS_MAX: usize = 160;
/// Longest path or name shown in words, in characters.
const PATH_MAX: usize = 240;

/// `nginx[217] read /etc/shadow`.
pub fn observation(o: &Observation) -> String {
    let mut text = format!("{} {}", actor(o), action(&o.event.kind));
    if let Some(since) = o.found_since() {
        let _ = write!(text, ", since {}", when(since));
    }
    if o.count > 1 {
        let _ = write!(text, " ({} times)", o.count);
    }
    text
}

/// Who acted: for an exec the program that was there before, else the program itself.
pub fn actor(o: &Observation) -> String {
    let pid = o.event.process.key.tgid;
    match (&o.event.kind, o.lineage.first()) {
        (EventKind::Exec(exec), _) if !exec.found => match o.parent() {
            Some(parent) => format!("{}[{}]", name(parent), parent.key.tgid),
            None => format!("[{}]", o.event.process.ppid),
        },
        (_, Some(process)) => format!("{}[{pid}]", name(process)),
        (_, None) => format!("{}[{pid}]", cut(&o.event.process.comm, 15)),
    }
}

/// A process by its script or executable, without directories; with the name that it was called
/// by where that is another one (`redis-check-rdb as redis-server`). That name is its starter's choice.
pub fn name(process: &Ancestor) -> String {
    let base = |t: &Text| cut(&t.basename(), 64);
    match (process.script.is_empty(), process.exe.is_empty()) {
        (false, _) => format!("{} ({})", base(&process.script), base(&process.exe)),
        (true, false) => match called(process) {
            Some(called) => format!("{} as {called}", base(&process.exe)),
            None => base(&process.exe),
        },
        (true, true) => "?".to_owned(),
    }
}

/// The name in the arguments, where it is another than the file's and not a usual one for it: a
/// version (`python3` of `python3.11`), a shell as `sh`, or a login shell's dash.
fn called(process: &Ancestor) -> Option<String> {
    let file = process.exe.basename();
    let first = process.argv.first()?.basename();
    let first = first.as_bytes();
    let first = first.strip_prefix(b"-").unwrap_or(first);
    let shell = matches!(file.as_bytes(), b"dash" | b"bash" | b"busybox") && first == b"sh";
    let plain = |c: &u8| c.is_ascii_alphanumeric() || b"._+-".contains(c);
    let usual = file.as_bytes().starts_with(first) || first.starts_with(file.as_bytes());
    let named = !first.is_empty() && first.iter().all(plain) && !usual && !shell;
    named.then(|| cut(&Text::from(first), 64))
}

/// `sh -c "id; wget …"`, quoted where a shell would need it.
pub fn command_line(argv: &[Text]) -> String {
    let mut line = String::new();
    for (n, arg) in argv.iter().enumerate() {
        if n > 0 {
            line.push(' ');
        }
        let shown = arg.to_string();
        let plain = !shown.is_empty() && !shown.contains([' ', '"', '\'', ';', '|', '&', '$']);
        if plain {
            line.push_str(&shown)
        } else {
            let _ = write!(line, "\"{}\"", shown.replace('"', "\\\""));
        }
        if line.len() > ARGUMENTS_MAX * 4 {
            break;
        }
    }
    shorten(line, ARGUMENTS_MAX)
}

/// A behaviour in words: program, what it did, to what.
pub fn behaviour(b: &plimsoll_model::Behaviour) -> String {
    let script = if b.script.is_empty() {
        String::new()
    } else {
        format!(" ({})", path(&b.script))
    };
    format!(
        "{}{script}: {} {}",
        path(&b.program),
        words(&b.operation.to_string()),
        path(&b.object)
    )
}

/// A hostile text, escaped and bounded for one line.
pub fn path(text: &Text) -> String {
    cut(text, PATH_MAX)
}

/// A text from outside (a label, a reason) with its control characters written out.
pub fn words(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let _ = plimsoll_model::text::escape_into(&mut safe, text.as_bytes());
    safe
}

/// A wall time for people, to the millisecond: `2026-11-21 01:02:03.004Z`.
pub fn when(wall: WallNs) -> String {
    let full = wall.rfc3339();
    match (full.get(..10), full.get(11..23)) {
        (Some(day), Some(time)) => format!("{day} {time}Z"),
        _ => full,
    }
}

/// A length of time for people: `28 µs`, `350 ms`, `12 s`, `3 min`, `5.2 h`, `2.1 days`.
pub fn span(ns: u64) -> String {
    const S: f64 = 1e9;
    let n = ns as f64;
    match n / S {
        s if s < 0.000_001 => format!("{ns} ns"),
        s if s < 0.001 => format!("{:.0} µs", n / 1e3),
        s if s < 1.0 => format!("{:.0} ms", n / 1e6),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Where a file lies, in words.
pub fn place(origin: Origin) -> &'static str {
    match origin {
        Origin::Unknown => "not known where",
        Origin::Image => "of the image",
        Origin::Upper => "in the container's writable layer",
        Origin::Volume => "on a volume",
        Origin::Tmpfs => "in memory, tmpfs",
        Origin::Memfd => "a file in memory without a name",
        Origin::Pseudo => "of the kernel",
        Origin::Foreign => "in mounts that are not the container's",
    }
}

/// A file by its path; of what has none (`/dev/stdout` that leads to a pipe) the path is `/`.
pub fn opened(file: &Text, origin: Origin) -> String {
    match (file.as_bytes(), origin) {
        (b"/", Origin::Pseudo) => "a pipe without a name".to_owned(),
        _ => path(file),
    }
}

/// One end of a connection: `tcp 10.0.0.5:80`, `unix /run/x.sock`, `udp 127.0.0.11:53 (Docker's resolver)`.
pub fn end(proto: &str, at: &SockAddr) -> String {
    format!("{proto} {}", address(proto, at))
}

/// The same without its protocol.
pub fn address(proto: &str, at: &SockAddr) -> String {
    let shown = shorten(at.to_string(), PATH_MAX);
    match at {
        SockAddr::Unix(_) if proto == "unix" => shown.trim_start_matches("unix:").to_owned(),
        // the address that Docker gives its resolver in every network that people make
        SockAddr::Inet(ip, 53) if ip.is_loopback() && shown == "127.0.0.11:53" => {
            format!("{shown} (Docker's resolver)")
        }
        _ => shown,
    }
}

fn cut(text: &Text, max: usize) -> String {
    shorten(text.to_string(), max)
}

fn shorten(text: String, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// What was done, as a verb and its object; system calls by the table of this machine.
pub fn action(kind: &EventKind) -> String {
    action_on(Table::NATIVE, kind)
}

/// What was done on a machine with this table of system calls.
pub fn action_on(native: Table, kind: &EventKind) -> String {
    match kind {
        EventKind::Exec(e) => exec(e),
        EventKind::Exit { code, signal: 0 } => format!("exited with {code}"),
        EventKind::Exit { signal, .. } => {
            format!("was ended by {}", signal_name(signal.unsigned_abs()))
        }
        EventKind::Fork { child } => format!("started process {}", child.tgid),
        EventKind::File(f) => file(f),
        EventKind::Library { path: p, origin } => {
            let place = match origin {
                Origin::Image | Origin::Unknown => String::new(),
                other => format!(" ({})", place(*other)),
            };
            format!("loaded {}{place}", path(p))
        }
        EventKind::Socket {
            family,
            kind,
            protocol,
        } => {
            let (family, kind) = (family_name(*family), socket_kind_name(*kind));
            format!("made a {family} socket, {kind}, protocol {protocol}")
        }
        EventKind::Connect(c) => format!("connected to {}", peer(c)),
        EventKind::Accept(c) => format!("accepted {}{}", peer(c), on_local(c)),
        EventKind::Datagram(c) => format!("sent datagrams to {}", peer(c)),
        EventKind::Listen { proto, local } => format!("listens on {}", end(proto.as_str(), local)),
        EventKind::Bind { proto, local } => format!("bound {}", end(proto.as_str(), local)),
        EventKind::Dns(d) if d.response => {
            let addresses: Vec<_> = d.addresses.iter().map(|ip| ip.0.to_string()).collect();
            match (d.rcode, addresses.is_empty()) {
                (0, false) => format!("learned that {} is {}", path(&d.name), addresses.join(", ")),
                (3, _) => format!("learned that {} does not exist", path(&d.name)),
                (code, _) => format!("got answer code {code} for {}", path(&d.name)),
            }
        }
        EventKind::Dns(d) => format!("asked for the name {}", path(&d.name)),
        EventKind::Dup {
            stream,
            target,
            peer,
        } => {
            let stream = ["standard input", "standard output", "standard error"]
                .get(*stream as usize)
                .copied()
                .unwrap_or("a standard stream");
            let peer = peer
                .as_ref()
                .map(|p| format!(" to {}", shorten(p.to_string(), PATH_MAX)))
                .unwrap_or_default();
            let onto = match target {
                DupTarget::Inet => "a network socket",
                DupTarget::Unix => "a Unix socket",
                DupTarget::Pipe => "a pipe",
                DupTarget::Tty => "a terminal",
                DupTarget::Other => "another descriptor",
            };
            format!("put {stream} on {onto}{peer}")
        }
        EventKind::Namespace { call, flags } => {
            let which = namespace_names(*flags);
            format!("called {} ({which} namespace)", namespace_call(*call))
        }
        EventKind::Mount {
            call,
            source,
            target,
            fstype,
            ..
        } => {
            let from = if source.is_empty() {
                String::new()
            } else {
                format!(" {}", path(source))
            };
            let fstype = if fstype.is_empty() {
                String::new()
            } else {
                format!(" ({})", cut(fstype, 32))
            };
            format!(
                "called {}{from} on {}{fstype}",
                mount_call(*call),
                path(target)
            )
        }
        EventKind::Ptrace { request, target } => match *request {
            u32::MAX => format!("wrote the memory of process {target}"),
            r if r == u32::MAX - 1 => format!("read the memory of process {target}"),
            0 => "let its parent trace it".to_owned(),
            r => format!("traced process {target} ({})", ptrace_name(r)),
        },
        EventKind::Module { name } if name.is_empty() => {
            "loaded or removed a kernel module, or tried to".to_owned()
        }
        EventKind::Module { name } => {
            format!(
                "loaded or removed kernel module {}, or tried to",
                path(name)
            )
        }
        EventKind::Bpf { command } => format!("called bpf ({})", bpf_name(*command)),
        EventKind::Credentials {
            old_uid,
            new_uid,
            old_caps,
            new_caps,
        } => {
            let gained = new_caps & !old_caps;
            match (old_uid == new_uid, gained) {
                (true, gained) => format!("gained {}", capability_names(gained)),
                (false, 0) => format!("changed uid {old_uid} to {new_uid}"),
                (false, gained) => {
                    let gained = capability_names(gained);
                    format!("changed uid {old_uid} to {new_uid}, gained {gained}")
                }
            }
        }
        EventKind::Syscall { nr, compat } => {
            format!("used system call {}", syscall_words(native, *nr, *compat))
        }
        EventKind::Memfd { name } => format!("made memory file {}", path(name)),
        EventKind::CgroupMkdir { path: p, .. } => format!("made cgroup {}", path(p)),
        EventKind::CgroupRmdir { id } => format!("removed cgroup {id}"),
        EventKind::CgroupAttach { path: p, moved, .. } => {
            format!("moved process {} to cgroup {}", moved.tgid, path(p))
        }
        EventKind::Rare { nr, result, .. } => {
            let call = syscall_words(native, *nr, false);
            format!("used rare system call {call}, result {result}")
        }
        EventKind::Signal { signal, target } => {
            format!("sent {} to process {target}", signal_name(*signal))
        }
    }
}

fn exec(e: &Exec) -> String {
    let verb = if e.found { "was found running" } else { "ran" };
    let mut text = format!("{verb} {}", path(&e.exe));
    if !e.argv.is_empty() {
        let _ = write!(text, " as `{}`", command_line(&e.argv));
    }
    if e.deleted {
        text.push_str(", a program without a file name");
    } else if e.origin.is_writable() {
        let _ = write!(text, ", which is not from the image ({})", place(e.origin));
    }
    text
}

fn file(f: &FileEvent) -> String {
    let (p, target) = (opened(&f.path, f.origin), path(&f.target));
    let mut text = match f.op {
        FileOp::Read => format!("read {p}"),
        FileOp::Write => format!("opened {p} for writing"),
        FileOp::Create => format!("created {p}"),
        FileOp::List => format!("listed {p}"),
        FileOp::Unlink => format!("removed {p}"),
        FileOp::Mkdir => format!("made directory {p}"),
        FileOp::Rmdir => format!("removed directory {p}"),
        FileOp::Chmod => format!("set the mode of {p} to {:04o}", f.flags & 0o7777),
        FileOp::Chown => format!("changed the owner of {p}"),
        FileOp::Rename => format!("renamed {p} to {target}"),
        FileOp::Link => format!("linked {p} as {target}"),
        FileOp::Symlink => format!("made {target} a symbolic link to {p}"),
        FileOp::Failed => format!("failed to open {p}"),
    };
    if f.result < 0 {
        let _ = write!(text, " (failed: {})", errno(f.result));
    }
    text
}

fn peer(c: &Connection) -> String {
    let mut text = end(c.proto.as_str(), &c.peer);
    // EINPROGRESS is how every non-blocking connection starts
    if c.result < 0 && c.result != -115 {
        let _ = write!(text, " (failed: {})", errno(c.result));
    }
    text
}

fn on_local(c: &Connection) -> String {
    c.local
        .as_ref()
        .map(|l| format!(" on {}", shorten(l.to_string(), PATH_MAX)))
        .unwrap_or_default()
}

/// The words for the errors that matter to a reader.
fn errno(result: i32) -> String {
    match -result {
        1 => "not permitted".to_owned(),
        2 => "no such file".to_owned(),
        13 => "denied".to_owned(),
        30 => "read-only".to_owned(),
        101 => "network unreachable".to_owned(),
        110 => "timed out".to_owned(),
        111 => "refused".to_owned(),
        113 => "host unreachable".to_owned(),
        17 => "exists already".to_owned(),
        20 => "not a directory".to_owned(),
        40 => "too many links".to_owned(),
        other => format!("error {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_with_escape_sequences_are_shown_and_not_obeyed() {
        let line = command_line(&[
            "sh".into(),
            Text::new(b"\x1b]0;pwned\x07".to_vec()),
            "a b".into(),
        ]);
        assert_eq!(line, "sh \"\\x1b]0;pwned\\x07\" \"a b\"");
    }

    #[test]
    fn a_program_of_several_names_is_told_with_the_one_it_was_called_by() {
        let process = |exe: &str, argv0: &str| Ancestor {
            exe: exe.into(),
            argv: vec![argv0.into()],
            ..Ancestor::default()
        };
        let told = |exe, argv0| name(&process(exe, argv0));
        let redis = told("/usr/bin/redis-check-rdb", "/usr/bin/redis-server");
        assert_eq!(redis, "redis-check-rdb as redis-server");
        assert_eq!(told("/bin/busybox", "wget"), "busybox as wget");
        for (exe, argv0) in [
            ("/usr/bin/python3.11", "python3"),
            ("/usr/bin/dash", "/bin/sh"),
            ("/usr/bin/bash", "-bash"),
            ("/usr/sbin/nginx", "nginx: master process"),
            ("/tmp/x", "[kworker/0:1]\x1b"),
        ] {
            assert!(!told(exe, argv0).contains(" as "), "{exe}");
        }
    }

    #[test]
    fn lengths_of_time_have_a_unit_that_suits_them() {
        let told: Vec<String> = [28, 28_322, 350_000_000, 12_000_000_000].map(span).into();
        assert_eq!(told, ["28 ns", "28 µs", "350 ms", "12 s"]);
    }

    #[test]
    fn an_end_is_told_once_and_by_what_it_is() {
        let unix = SockAddr::Unix("/var/run/nscd/socket".into());
        assert_eq!(end("unix", &unix), "unix /var/run/nscd/socket");
        let inet = |ip: &str, port| SockAddr::Inet(ip.parse().unwrap(), port);
        assert_eq!(
            end("udp", &inet("127.0.0.11", 53)),
            "udp 127.0.0.11:53 (Docker's resolver)"
        );
        assert_eq!(end("tcp", &inet("10.0.0.5", 80)), "tcp 10.0.0.5:80");
    }

    #[test]
    fn a_huge_argument_list_stays_one_short_line() {
        let argv = vec![Text::from("x".repeat(4096)); 100];
        assert_eq!(command_line(&argv).chars().count(), ARGUMENTS_MAX + 1);
    }
}
