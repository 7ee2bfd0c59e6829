//! Decodes the records of `bpf/wire.h` into events.
//!
//! Promises: no length, discriminant or text from the ring is trusted; a record that is not what
//! it says is a [`DecodeError`], counted by the caller; no `unsafe`.

use plimsoll_model::event::*;
use plimsoll_model::{
    Actor, BootNs, Enforced, Entry, Event, EventKind, Origin, ProcessInfo, ProcessKey, Proto, Text,
    Trust,
};
use std::net::{IpAddr, Ipv6Addr};

/// Offsets of `struct wire_event`; a test compares them with the BTF of the compiled programs.
pub(crate) mod offset {
    pub(crate) const LEN: usize = 0;
    pub(crate) const KIND: usize = 4;
    pub(crate) const RING: usize = 6;
    pub(crate) const FLAGS: usize = 7;
    pub(crate) const BOOT_NS: usize = 8;
    pub(crate) const SEQ: usize = 16;
    pub(crate) const CPU: usize = 24;
    pub(crate) const DENSE: usize = 28;
    pub(crate) const CGROUP: usize = 32;
    pub(crate) const ACTOR: usize = 40;
    pub(crate) const START_NS: usize = 48;
    pub(crate) const TGID: usize = 56;
    pub(crate) const TID: usize = 60;
    pub(crate) const PPID: usize = 64;
    pub(crate) const UID: usize = 68;
    pub(crate) const GID: usize = 72;
    pub(crate) const ENTRY: usize = 76;
    pub(crate) const ORIGIN: usize = 77;
    pub(crate) const ENFORCED: usize = 78;
    pub(crate) const COMM: usize = 80;
    pub(crate) const DICT: usize = 96;
    pub(crate) const NUM: usize = 144;
    pub(crate) const SLEN: usize = 208;
    pub(crate) const SIZE: usize = 224;
}

/// Offsets of `struct exec_facts`.
mod fact {
    pub(super) const PERMITTED: usize = 0;
    pub(super) const INHERITABLE: usize = 8;
    pub(super) const LOGIN_UID: usize = 16;
    pub(super) const VPID: usize = 20;
    pub(super) const VPGID: usize = 24;
    pub(super) const VSID: usize = 28;
    pub(super) const ENV_BYTES: usize = 32;
    pub(super) const ENV_ASKED: usize = 36;
    pub(super) const SIZE: usize = 40;
}

/// Strings behind a header.
const STRINGS: usize = 6;

mod flag {
    pub(super) const ARGUMENT: u8 = 1;
    pub(super) const TAMPERED: u8 = 2;
    pub(super) const DELETED: u8 = 8;
    pub(super) const FIRST: u8 = 16;
}

/// Why a record could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its header, or than its header says.
    #[error("record of {got} bytes, {want} expected")]
    Length {
        /// Bytes there.
        got: usize,
        /// Bytes the record should have.
        want: usize,
    },
    /// A number outside its set.
    #[error("{what} has the unknown number {number}")]
    Number {
        /// Which field.
        what: &'static str,
        /// The number.
        number: i64,
    },
    /// A DNS message that cannot be parsed.
    #[error("not a DNS message")]
    Dns,
}

struct Raw<'a> {
    bytes: &'a [u8],
    strings: [&'a [u8]; STRINGS],
}

impl<'a> Raw<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let too_short = |want| DecodeError::Length {
            got: bytes.len(),
            want,
        };
        if bytes.len() < offset::SIZE {
            return Err(too_short(offset::SIZE));
        }
        let raw = Raw {
            bytes,
            strings: [&[]; STRINGS],
        };
        let len = raw.u32(offset::LEN) as usize;
        if bytes.len() < len || len < offset::SIZE {
            return Err(too_short(len.max(offset::SIZE)));
        }
        let mut strings: [&[u8]; STRINGS] = [&[]; STRINGS];
        let mut rest = &bytes[offset::SIZE..len];
        for (i, s) in strings.iter_mut().enumerate() {
            let n = usize::from(raw.u16(offset::SLEN + 2 * i));
            if n > rest.len() {
                return Err(too_short(len + n - rest.len()));
            }
            (*s, rest) = rest.split_at(n);
        }
        Ok(Raw { bytes, strings })
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes[at..at + 2].try_into().expect("two bytes"))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }
    fn num(&self, i: usize) -> i64 {
        self.u64(offset::NUM + 8 * i) as i64
    }
    fn text(&self, i: usize) -> Text {
        Text::from(self.strings[i])
    }
}

fn entry(n: u8) -> Result<Entry, DecodeError> {
    Ok(match n {
        0 => Entry::Init,
        1 => Entry::ExecSession,
        2 => Entry::Host,
        3 => Entry::FoundRunning,
        _ => {
            return Err(DecodeError::Number {
                what: "entry",
                number: n.into(),
            });
        }
    })
}

fn origin(n: u8) -> Result<Origin, DecodeError> {
    Ok(match n {
        0 => Origin::Unknown,
        1 => Origin::Image,
        2 => Origin::Upper,
        3 => Origin::Volume,
        4 => Origin::Tmpfs,
        5 => Origin::Memfd,
        6 => Origin::Pseudo,
        7 => Origin::Foreign,
        _ => {
            return Err(DecodeError::Number {
                what: "origin",
                number: n.into(),
            });
        }
    })
}

pub(crate) fn file_op(n: i64) -> Result<FileOp, DecodeError> {
    use FileOp::*;
    const OPS: [FileOp; 13] = [
        Read, Write, Create, List, Unlink, Mkdir, Rmdir, Chmod, Chown, Rename, Link, Symlink,
        Failed,
    ];
    usize::try_from(n)
        .ok()
        .and_then(|i| OPS.get(i).copied())
        .ok_or(DecodeError::Number {
            what: "file operation",
            number: n,
        })
}

fn proto(n: i64) -> Proto {
    match n {
        0 => Proto::Tcp,
        1 => Proto::Udp,
        2 => Proto::Unix,
        3 => Proto::Raw,
        _ => Proto::Other,
    }
}

/// 16 bytes in network order, IPv4 as v4-mapped.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

fn inet(bytes: &[u8], port: i64) -> Result<SockAddr, DecodeError> {
    let ip = ip(bytes).ok_or(DecodeError::Length {
        got: bytes.len(),
        want: 16,
    })?;
    Ok(SockAddr::Inet(ip, port as u16))
}

/// A UNIX name as the kernel keeps it: padded path, or a zero byte and an abstract name.
fn unix(bytes: &[u8]) -> SockAddr {
    match bytes.split_first() {
        Some((0, name)) if !name.is_empty() => {
            let mut text = vec![b'@'];
            let end = name.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
            text.extend_from_slice(&name[..end]);
            SockAddr::Unix(text.into())
        }
        _ => SockAddr::Unix(bytes.split(|&b| b == 0).next().unwrap_or_default().into()),
    }
}

/// Joins a directory and an argument, and takes out `.`, `..` and doubled slashes by the text
/// alone (symbolic links are not followed: the argument is only what the program asked for).
pub(crate) fn absolute(base: &[u8], path: &[u8]) -> Text {
    if path.is_empty() {
        return Text::default();
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let whole: [&[u8]; 2] = if path[0] == b'/' {
        [b"", path]
    } else {
        [base, path]
    };
    for part in whole.into_iter().flat_map(|p| p.split(|&b| b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            p => parts.push(p),
        }
    }
    let mut out = Vec::with_capacity(base.len() + path.len() + 1);
    for p in parts {
        out.push(b'/');
        out.extend_from_slice(p);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.into()
}

/// Processor, ring and number of a record, decodable or not; `None`: it is shorter than its header.
pub(crate) fn number(bytes: &[u8]) -> Option<(u32, u8, u64)> {
    let header = bytes.get(..offset::SIZE)?;
    let raw = Raw {
        bytes: header,
        strings: [&[]; STRINGS],
    };
    Some((
        raw.u32(offset::CPU),
        header[offset::RING],
        raw.u64(offset::SEQ),
    ))
}

/// Decodes one record.
///
/// # Errors
/// When the record is shorter than it says, or a number is outside its set.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw = Raw::parse(bytes)?;
    let flags = bytes[offset::FLAGS];
    let kind = kind(&raw, flags)?;
    let comm = &bytes[offset::COMM..offset::COMM + 16];
    let dict: [u8; 48] = bytes[offset::DICT..offset::DICT + 48]
        .try_into()
        .expect("48 bytes");
    Ok(Event {
        boot: BootNs(raw.u64(offset::BOOT_NS)),
        seq: raw.u64(offset::SEQ),
        cpu: raw.u32(offset::CPU),
        alert_class: bytes[offset::RING] == 1,
        cgroup_id: raw.u64(offset::CGROUP),
        process: ProcessInfo {
            key: ProcessKey {
                tgid: raw.u32(offset::TGID),
                start: BootNs(raw.u64(offset::START_NS)),
            },
            tid: raw.u32(offset::TID),
            ppid: raw.u32(offset::PPID),
            uid: raw.u32(offset::UID),
            gid: raw.u32(offset::GID),
            comm: comm.split(|&b| b == 0).next().unwrap_or_default().into(),
            entry: entry(bytes[offset::ENTRY])?,
        },
        actor: Actor(raw.u64(offset::ACTOR)),
        trust: if flags & flag::ARGUMENT != 0 {
            Trust::Argument
        } else {
            Trust::Object
        },
        tampered: flags & flag::TAMPERED != 0,
        kind,
        dense: raw.u32(offset::DENSE),
        dict: (dict != [0; 48]).then_some(dict),
        enforced: enforced(bytes[offset::ENFORCED])?,
    })
}

fn kind(raw: &Raw<'_>, flags: u8) -> Result<EventKind, DecodeError> {
    let number = raw.u16(offset::KIND);
    Ok(match number {
        1 => EventKind::Exec(exec(raw, flags)?),
        2 => {
            let status = raw.num(0) as i32;
            EventKind::Exit {
                code: (status >> 8) & 0xff,
                signal: status & 0x7f,
            }
        }
        3 => EventKind::Fork {
            child: ProcessKey {
                tgid: raw.num(0) as u32,
                start: BootNs(raw.num(1) as u64),
            },
        },
        4 => EventKind::File(file(raw, flags)?),
        5 => EventKind::Library {
            path: deleted(raw.strings[0], flags),
            origin: origin(raw.bytes[offset::ORIGIN])?,
        },
        6 => EventKind::Socket {
            family: raw.num(0) as u16,
            kind: raw.num(1) as u16,
            protocol: raw.num(2) as u16,
        },
        7 => EventKind::Connect(connection(raw)?),
        8 => EventKind::Accept(connection(raw)?),
        9 => EventKind::Listen {
            proto: proto(raw.num(0)),
            local: inet(raw.strings[0], raw.num(3))?,
        },
        10 => EventKind::Bind {
            proto: proto(raw.num(0)),
            local: inet(raw.strings[0], raw.num(3))?,
        },
        11 => EventKind::Datagram(connection(raw)?),
        12 => EventKind::Dns(dns(raw.strings[0], inet(raw.strings[1], raw.num(4)).ok())?),
        13 => EventKind::Dup {
            stream: raw.num(0) as u32,
            target: match raw.num(1) {
                0 => DupTarget::Inet,
                1 => DupTarget::Unix,
                2 => DupTarget::Pipe,
                3 => DupTarget::Tty,
                _ => DupTarget::Other,
            },
            peer: inet(raw.strings[1], raw.num(4)).ok(),
        },
        14 => EventKind::Namespace {
            call: match raw.num(0) {
                0 => NamespaceCall::Setns,
                1 => NamespaceCall::Unshare,
                _ => NamespaceCall::Clone,
            },
            flags: raw.num(1) as u64,
        },
        15 => EventKind::Mount {
            call: match raw.num(0) {
                0 => MountCall::Mount,
                1 => MountCall::Umount,
                2 => MountCall::PivotRoot,
                3 => MountCall::Chroot,
                _ => MountCall::MoveMount,
            },
            source: raw.text(0),
            target: absolute(raw.strings[3], raw.strings[1]),
            fstype: raw.text(2),
            flags: raw.num(1) as u64,
        },
        16 => EventKind::Ptrace {
            request: raw.num(0) as u32,
            target: raw.num(1) as u32,
        },
        17 => EventKind::Module { name: raw.text(0) },
        18 => EventKind::Bpf {
            command: raw.num(0) as u32,
        },
        19 => EventKind::Credentials {
            old_uid: raw.num(0) as u32,
            new_uid: raw.num(1) as u32,
            old_caps: raw.num(2) as u64,
            new_caps: raw.num(3) as u64,
        },
        20 => EventKind::Syscall {
            nr: raw.num(0) as u32,
            compat: flags & 32 != 0,
        },
        21 => EventKind::Memfd { name: raw.text(0) },
        22 => EventKind::CgroupMkdir {
            id: raw.num(0) as u64,
            parent: raw.num(1) as u64,
            path: raw.text(0),
        },
        23 => EventKind::CgroupRmdir {
            id: raw.num(0) as u64,
        },
        24 => EventKind::CgroupAttach {
            to: raw.num(0) as u64,
            moved: ProcessKey {
                tgid: raw.num(1) as u32,
                start: BootNs(raw.num(2) as u64),
            },
            path: raw.text(0),
        },
        25 => EventKind::Rare {
            nr: raw.num(0) as u32,
            args: [
                raw.num(1) as u64,
                raw.num(2) as u64,
                raw.num(3) as u64,
                raw.num(4) as u64,
            ],
            result: raw.num(5),
        },
        26 => EventKind::Signal {
            signal: raw.num(0) as u32,
            target: raw.num(1) as i32,
        },
        n => {
            return Err(DecodeError::Number {
                what: "kind",
                number: n.into(),
            });
        }
    })
}

fn enforced(n: u8) -> Result<Option<Enforced>, DecodeError> {
    Enforced::from_wire(n).map_err(|n| DecodeError::Number {
        what: "what enforcement did",
        number: n.into(),
    })
}

/// The kernel appends nothing to deleted names here; people know them with this mark.
fn deleted(path: &[u8], flags: u8) -> Text {
    let mut path = path.to_vec();
    if flags & flag::DELETED != 0 {
        path.extend_from_slice(b" (deleted)");
    }
    path.into()
}

fn exec(raw: &Raw<'_>, flags: u8) -> Result<Exec, DecodeError> {
    let cwd = raw.text(3);
    let argv = raw.strings[2];
    let argv_bytes = raw.num(7) as u32;
    // the last argument ends in a zero byte unless it was cut
    let whole = argv.strip_suffix(b"\0").unwrap_or(argv);
    let argv: Vec<Text> = if argv.is_empty() {
        Vec::new()
    } else {
        whole.split(|&b| b == 0).map(Text::from).collect()
    };
    let exe = raw.text(0);
    let script = if raw.strings[1].is_empty() {
        script_of(&exe, &argv, cwd.as_bytes()).unwrap_or_default()
    } else {
        absolute(cwd.as_bytes(), raw.strings[1])
    };
    Ok(Exec {
        exe,
        script,
        argv,
        argv_bytes,
        cwd,
        origin: origin(raw.bytes[offset::ORIGIN])?,
        deleted: flags & flag::DELETED != 0,
        euid: raw.num(0) as u32,
        egid: raw.num(1) as u32,
        caps: raw.num(2) as u64,
        tty: raw.num(3) as u32,
        dev: raw.num(4) as u64,
        ino: raw.num(5) as u64,
        mode: raw.num(6) as u32,
        first: flags & flag::FIRST != 0,
        glance: facts(raw.strings[4], raw.strings[5], raw.num(0) as u32)?,
        found: false,
    })
}

/// What else the program had when it started; a refused one never had any.
fn facts(bytes: &[u8], env: &[u8], euid: u32) -> Result<Option<Box<Glance>>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let facts: &[u8; fact::SIZE] = bytes.try_into().map_err(|_| DecodeError::Length {
        got: bytes.len(),
        want: fact::SIZE,
    })?;
    let half = |at: usize| u32::from_ne_bytes(facts[at..at + 4].try_into().expect("four bytes"));
    let word = |at: usize| u64::from_ne_bytes(facts[at..at + 8].try_into().expect("eight bytes"));
    let (login_uid, whole) = (half(fact::LOGIN_UID), half(fact::ENV_BYTES) as usize);
    // where nothing of it could be copied, it is not known
    let copied = half(fact::ENV_ASKED) != 0 && (whole == 0 || !env.is_empty());
    let variables = || env.split(|b| *b == 0).filter(|v| !v.is_empty());
    Ok(Some(Box::new(Glance {
        permitted: word(fact::PERMITTED),
        inheritable: word(fact::INHERITABLE),
        login_uid: (login_uid != u32::MAX).then_some(login_uid),
        vpid: half(fact::VPID),
        vpgid: half(fact::VPGID),
        vsid: half(fact::VSID),
        env: copied.then(|| variables().map(Text::from).collect()),
        env_cut: copied && whole > env.len(),
        user: Text::default(),
        uid: euid,
    })))
}

/// Whether a program behaves as the script that it is given (the same set as in `bpf/sched.h`).
pub(crate) fn is_interpreter(name: &Text) -> bool {
    let name = name.basename();
    let n = name.as_bytes();
    let starts = |p: &str| n.starts_with(p.as_bytes());
    starts("pyt")
        || starts("perl")
        || starts("php")
        || starts("ruby")
        || starts("node")
        || starts("lua")
        || starts("java")
        || n == b"sh"
        || starts("bash")
        || starts("dash")
        || starts("zsh")
        || starts("ash")
        || starts("ksh")
}

/// The name that says what a program does: a multi-call binary is what it is called as.
fn acting_as<'a>(exe: &'a Text, argv: &'a [Text]) -> &'a Text {
    let multi = [&b"busybox"[..], b"toybox"].contains(&exe.basename().as_bytes());
    if multi {
        argv.first().unwrap_or(exe)
    } else {
        exe
    }
}

/// The script that an interpreter was given as an argument (`python3 -u app.py`): the first
/// argument that is no option; none for code on the command line (`-c`, `-e`, `-m`).
pub(crate) fn script_of(exe: &Text, argv: &[Text], cwd: &[u8]) -> Option<Text> {
    let name = acting_as(exe, argv);
    if !is_interpreter(name) {
        return None;
    }
    let java = name.basename().as_bytes().starts_with(b"java");
    let mut args = argv.iter().skip(1);
    while let Some(arg) = args.next() {
        let a = arg.as_bytes();
        if java && a == b"-jar" {
            return args.next().map(|jar| absolute(cwd, jar.as_bytes()));
        }
        match a {
            b"-c" | b"-e" | b"-m" | b"-r" | b"-E" => return None,
            b"-X" | b"-W" | b"-I" | b"-cp" | b"-classpath" | b"-o" => {
                args.next();
            }
            // combined short options of shells (`-xc`, `-lc`)
            _ if a.starts_with(b"-") && !a.starts_with(b"--") && a.ends_with(b"c") && !java => {
                return None;
            }
            _ if a.starts_with(b"-") => {}
            b"" => return None,
            _ if java => return None,
            _ => return Some(absolute(cwd, a)),
        }
    }
    None
}

/// `__O_TMPFILE`: a file that has no name yet.
const O_TMPFILE: u32 = 0o20_000_000;

fn file(raw: &Raw<'_>, flags: u8) -> Result<FileEvent, DecodeError> {
    let op = file_op(raw.num(0))?;
    let by_argument = flags & flag::ARGUMENT != 0;
    let path = match (by_argument, op) {
        // what a symbolic link points to is text, not a place
        (true, FileOp::Symlink) => raw.text(0),
        (true, _) => absolute(raw.strings[2], raw.strings[0]),
        (false, _) => deleted(raw.strings[0], flags),
    };
    let raw_path = match by_argument {
        true if op == FileOp::Failed => raw.strings[0],
        true => b"",
        false => raw.strings[4],
    };
    let as_written = raw_path == path.as_bytes();
    let flags = raw.num(1) as u32;
    let made = op == FileOp::Create || (op == FileOp::Write && flags & O_TMPFILE != 0);
    Ok(FileEvent {
        op,
        mode: (made && !by_argument).then(|| raw.num(3) as u32 & 0o7777),
        raw: (!raw_path.is_empty()).then(|| {
            if as_written {
                Text::default()
            } else {
                raw_path.into()
            }
        }),
        path,
        target: absolute(raw.strings[3], raw.strings[1]),
        origin: origin(raw.bytes[offset::ORIGIN])?,
        flags,
        result: raw.num(2) as i32,
    })
}

fn connection(raw: &Raw<'_>) -> Result<Connection, DecodeError> {
    let proto = proto(raw.num(0));
    if proto == Proto::Unix {
        return Ok(Connection {
            proto,
            peer: unix(raw.strings[1]),
            local: None,
            result: raw.num(2) as i32,
        });
    }
    Ok(Connection {
        proto,
        peer: inet(raw.strings[1], raw.num(4))?,
        local: inet(raw.strings[0], raw.num(3)).ok(),
        result: raw.num(2) as i32,
    })
}

/// Parses the first question and the addresses of a DNS message (RFC 1035, sections 4.1 and 4.1.4).
pub(crate) fn dns(message: &[u8], server: Option<SockAddr>) -> Result<Dns, DecodeError> {
    let word = |at: usize| {
        message
            .get(at..at + 2)
            .map(|b| u16::from_be_bytes([b[0], b[1]]))
            .ok_or(DecodeError::Dns)
    };
    let flags = word(2)?;
    if word(4)? == 0 {
        return Err(DecodeError::Dns);
    }
    let (name, after) = dns_name(message, 12)?;
    let qtype = word(after)?;
    let mut at = after + 4;
    for _ in 1..word(4)?.min(8) {
        at = dns_name(message, at)?.1 + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..word(6)?.min(64) {
        // a message that was cut ends the list, not the event
        let Ok((_, after)) = dns_name(message, at) else {
            break;
        };
        let (Ok(rtype), Ok(len)) = (word(after), word(after + 8)) else {
            break;
        };
        let Some(data) = message.get(after + 10..after + 10 + usize::from(len)) else {
            break;
        };
        match (rtype, data.len()) {
            (1, 4) => addresses.push(IpBytes(IpAddr::from(
                <[u8; 4]>::try_from(data).expect("four bytes"),
            ))),
            (28, 16) => addresses.push(IpBytes(IpAddr::from(
                <[u8; 16]>::try_from(data).expect("16 bytes"),
            ))),
            _ => {}
        }
        if addresses.len() == 16 {
            break;
        }
        at = after + 10 + usize::from(len);
    }
    Ok(Dns {
        response: flags & 0x8000 != 0,
        name,
        qtype,
        rcode: (flags & 15) as u8,
        addresses,
        server,
    })
}

/// A name with compression (at most 16 jumps), lower case, and where it ends.
fn dns_name(message: &[u8], mut at: usize) -> Result<(Text, usize), DecodeError> {
    let mut name = Vec::new();
    let mut end = None;
    for _ in 0..128 {
        let len = usize::from(*message.get(at).ok_or(DecodeError::Dns)?);
        match len {
            0 => return Ok((name.into(), end.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + len).ok_or(DecodeError::Dns)?;
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > 255 {
                    return Err(DecodeError::Dns);
                }
                at += 1 + len;
            }
            192..=255 => {
                let low = usize::from(*message.get(at + 1).ok_or(DecodeError::Dns)?);
                end = end.or(Some(at + 2));
                at = (len & 63) << 8 | low;
            }
            _ => return Err(DecodeError::Dns),
        }
    }
    Err(DecodeError::Dns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u16, nums: &[i64], strings: &[&[u8]]) -> Vec<u8> {
        let mut b = vec![0u8; offset::SIZE];
        b[offset::KIND..offset::KIND + 2].copy_from_slice(&kind.to_ne_bytes());
        for (i, n) in nums.iter().enumerate() {
            b[offset::NUM + 8 * i..offset::NUM + 8 * i + 8].copy_from_slice(&n.to_ne_bytes());
        }
        for (i, s) in strings.iter().enumerate() {
            b[offset::SLEN + 2 * i..offset::SLEN + 2 * i + 2]
                .copy_from_slice(&(s.len() as u16).to_ne_bytes());
            b.extend_from_slice(s);
        }
        let len = b.len() as u32;
        b[..4].copy_from_slice(&len.to_ne_bytes());
        b
    }

    /// The skeleton's types come from the BTF of the compiled programs.
    #[test]
    fn the_layout_is_the_one_of_the_compiled_programs() {
        use crate::skel::types::{exec_facts, l1_key, wire_event};
        use std::mem::offset_of;
        assert_eq!(offset_of!(wire_event, len), offset::LEN);
        assert_eq!(offset_of!(wire_event, kind), offset::KIND);
        assert_eq!(offset_of!(wire_event, ring), offset::RING);
        assert_eq!(offset_of!(wire_event, flags), offset::FLAGS);
        assert_eq!(offset_of!(wire_event, boot_ns), offset::BOOT_NS);
        assert_eq!(offset_of!(wire_event, seq), offset::SEQ);
        assert_eq!(offset_of!(wire_event, cpu), offset::CPU);
        assert_eq!(offset_of!(wire_event, dense), offset::DENSE);
        assert_eq!(offset_of!(wire_event, cgroup), offset::CGROUP);
        assert_eq!(offset_of!(wire_event, actor), offset::ACTOR);
        assert_eq!(offset_of!(wire_event, start_ns), offset::START_NS);
        assert_eq!(offset_of!(wire_event, tgid), offset::TGID);
        assert_eq!(offset_of!(wire_event, tid), offset::TID);
        assert_eq!(offset_of!(wire_event, ppid), offset::PPID);
        assert_eq!(offset_of!(wire_event, uid), offset::UID);
        assert_eq!(offset_of!(wire_event, gid), offset::GID);
        assert_eq!(offset_of!(wire_event, entry), offset::ENTRY);
        assert_eq!(offset_of!(wire_event, origin), offset::ORIGIN);
        assert_eq!(offset_of!(wire_event, enforced), offset::ENFORCED);
        assert_eq!(offset_of!(wire_event, comm), offset::COMM);
        assert_eq!(offset_of!(wire_event, dict), offset::DICT);
        assert_eq!(offset_of!(wire_event, num), offset::NUM);
        assert_eq!(offset_of!(wire_event, slen), offset::SLEN);
        assert_eq!(size_of::<wire_event>(), offset::SIZE);
        assert_eq!(offset::SIZE - offset::SLEN, 2 * STRINGS + 4);
        assert_eq!(offset_of!(exec_facts, permitted), fact::PERMITTED);
        assert_eq!(offset_of!(exec_facts, inheritable), fact::INHERITABLE);
        assert_eq!(offset_of!(exec_facts, login_uid), fact::LOGIN_UID);
        assert_eq!(offset_of!(exec_facts, vpid), fact::VPID);
        assert_eq!(offset_of!(exec_facts, vpgid), fact::VPGID);
        assert_eq!(offset_of!(exec_facts, vsid), fact::VSID);
        assert_eq!(offset_of!(exec_facts, env_bytes), fact::ENV_BYTES);
        assert_eq!(offset_of!(exec_facts, env_asked), fact::ENV_ASKED);
        assert_eq!(size_of::<exec_facts>(), fact::SIZE);
        assert_eq!(size_of::<l1_key>(), 48);
    }

    #[test]
    fn an_exec_is_decoded_with_its_arguments() {
        let r = record(
            1,
            &[0, 0, 0, 0, 1, 2, 0o755, 12],
            &[b"/usr/bin/ls", b"", b"ls\0-l\0a b\0", b"/tmp"],
        );
        let EventKind::Exec(e) = decode(&r).unwrap().kind else {
            panic!()
        };
        assert_eq!(
            e.argv,
            vec![Text::from("ls"), Text::from("-l"), Text::from("a b")]
        );
        assert_eq!(e.cwd, Text::from("/tmp"));
    }

    fn facts_of(env_bytes: u32, asked: u32) -> Vec<u8> {
        let words = [7u64, 5].map(u64::to_ne_bytes).concat();
        let halves = [1000u32, 2, 1, 1, env_bytes, asked].map(u32::to_ne_bytes);
        [words, halves.concat()].concat()
    }

    fn glance_of(facts: &[u8], env: &[u8]) -> Result<Option<Box<Glance>>, DecodeError> {
        let strings: [&[u8]; 6] = [b"/x", b"", b"x\0", b"/", facts, env];
        match decode(&record(1, &[33], &strings))?.kind {
            EventKind::Exec(e) => Ok(e.glance),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_program_started_with_is_decoded() {
        let whole = glance_of(&facts_of(8, 1), b"A=1\0B=2\0").unwrap().unwrap();
        assert_eq!((whole.permitted, whole.inheritable, whole.uid), (7, 5, 33));
        assert_eq!(whole.login_uid, Some(1000));
        assert_eq!((whole.vpid, whole.vpgid, whole.vsid), (2, 1, 1));
        assert_eq!(whole.env, Some(vec!["A=1".into(), "B=2".into()]));
        assert!(!whole.env_cut);
        let cut = glance_of(&facts_of(9000, 1), b"A=1\0B").unwrap().unwrap();
        assert!(cut.env_cut && cut.env.is_some());
        // asked for and not to be had is not the same as empty
        let env = |bytes, asked| {
            glance_of(&facts_of(bytes, asked), b"")
                .unwrap()
                .unwrap()
                .env
        };
        assert_eq!(env(0, 1), Some(vec![]));
        assert_eq!(env(8, 1), None);
        assert_eq!(env(8, 0), None);
        assert_eq!(glance_of(b"", b""), Ok(None));
        assert!(glance_of(&facts_of(8, 1)[1..], b"").is_err());
    }

    #[test]
    fn the_path_as_it_was_written_is_told_where_it_differs() {
        let raw = |flags: u8, op: i64, strings: &[&[u8]]| {
            let mut r = record(4, &[op], strings);
            r[offset::FLAGS] = flags;
            match decode(&r).unwrap().kind {
                EventKind::File(f) => f.raw,
                other => panic!("{other:?}"),
            }
        };
        let opened = |raw_path: &[u8]| raw(0, 0, &[b"/etc/shadow", b"", b"", b"", raw_path]);
        assert_eq!(opened(b"../../etc/shadow"), Some("../../etc/shadow".into()));
        assert_eq!(opened(b"/etc/shadow"), Some("".into()));
        assert_eq!(opened(b""), None);
        let failed: &[&[u8]] = &[b"../etc/shadow", b"", b"/tmp"];
        assert_eq!(
            raw(flag::ARGUMENT, 12, failed),
            Some("../etc/shadow".into())
        );
        // what is no open has none
        assert_eq!(raw(flag::ARGUMENT, 4, failed), None);
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let r = record(1, &[0; 8], &[b"/usr/bin/ls", b"", b"ls\0", b"/"]);
        for n in 0..r.len() {
            assert!(decode(&r[..n]).is_err());
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_but_never_panic() {
        let mut x = 0x2545_f491_4f6c_dd1du64;
        for round in 0..20_000u64 {
            let mut r = record(
                (round % 30) as u16,
                &[1; 8],
                &[
                    b"abcdefghijklmnop",
                    b"0123456789abcdef",
                    b"/x/../y\0",
                    b"/b",
                ],
            );
            for _ in 0..4 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let at = (x as usize >> 8) % r.len();
                r[at] = x as u8;
            }
            let _ = decode(&r);
        }
    }

    #[test]
    fn relative_arguments_are_joined_and_cleaned() {
        assert_eq!(
            absolute(b"/var/lib", b"../log/./x"),
            Text::from("/var/log/x")
        );
        assert_eq!(
            absolute(b"/var", b"/etc//passwd"),
            Text::from("/etc/passwd")
        );
        assert_eq!(absolute(b"/", b"../../.."), Text::from("/"));
    }

    #[test]
    fn the_script_of_an_interpreter_is_found() {
        let a = |s: &[&str]| s.iter().map(|x| Text::from(*x)).collect::<Vec<_>>();
        let exe = Text::from("/usr/bin/python3.11");
        assert_eq!(
            script_of(&exe, &a(&["python3", "-u", "app.py", "-c"]), b"/srv"),
            Some("/srv/app.py".into())
        );
        assert_eq!(
            script_of(&exe, &a(&["python3", "-c", "print(1)"]), b"/"),
            None
        );
        assert_eq!(
            script_of(&"/usr/bin/dash".into(), &a(&["sh", "-ec", "x"]), b"/"),
            None
        );
        assert_eq!(
            script_of(
                &"/usr/bin/java".into(),
                &a(&["java", "-Xmx1g", "-jar", "/a.jar"]),
                b"/"
            ),
            Some("/a.jar".into())
        );
        assert_eq!(
            script_of(&"/usr/sbin/nginx".into(), &a(&["nginx", "x"]), b"/"),
            None
        );
    }

    #[test]
    fn dns_answers_are_parsed_with_compression() {
        let mut m = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        m.extend_from_slice(b"\x02DB\x04demo\x00\x00\x01\x00\x01");
        m.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x07");
        let d = dns(&m, None).unwrap();
        assert!(d.response);
        assert_eq!(d.name, Text::from("db.demo"));
        assert_eq!(d.addresses, vec![IpBytes([10, 0, 0, 7].into())]);
    }

    #[test]
    fn a_dns_name_that_points_at_itself_ends() {
        let mut m = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        m.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01");
        assert_eq!(dns(&m, None), Err(DecodeError::Dns));
    }
}
