//! What the kernel reported, decoded but not yet attributed to a container.
//!
//! Promise: an event carries only what was read at the hook, and says how far it can be trusted
//! ([`Trust`]). Paths are absolute in the container's mount namespace unless they say otherwise.

use crate::ids::ProcessKey;
use crate::text::Text;
use crate::time::BootNs;
use minicbor::{Decode, Encode};
use std::net::IpAddr;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Trust {
    /// Read from a kernel object (file, socket, credentials): the program cannot forge it.
    #[default]
    #[n(0)]
    Object,
    /// Copied from the memory of the program: another thread may have changed it meanwhile.
    #[n(1)]
    Argument,
    /// Rebuilt from `/proc`, not observed by a hook.
    #[n(2)]
    Proc,
}

/// How a process came into the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Entry {
    /// The container's first process, or a descendant of it.
    #[default]
    #[n(0)]
    Init,
    /// Started in the running container by its runtime (`docker exec`, a probe), or a descendant.
    #[n(1)]
    ExecSession,
    /// Came in from the host by other means (moved into the cgroup, `nsenter`), or a descendant.
    #[n(2)]
    Host,
    /// It was running when the agent started: how it came in was not observed.
    #[n(3)]
    FoundRunning,
}

impl Entry {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Entry::Init => "init",
            Entry::ExecSession => "exec_session",
            Entry::Host => "host",
            Entry::FoundRunning => "found_running",
        }
    }
}

/// Which storage an object lives on, as seen from the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Origin {
    /// Could not be told.
    #[default]
    #[n(0)]
    Unknown,
    /// A read-only layer of the image.
    #[n(1)]
    Image,
    /// The container's own writable layer.
    #[n(2)]
    Upper,
    /// A volume or bind mount.
    #[n(3)]
    Volume,
    /// tmpfs, ramfs.
    #[n(4)]
    Tmpfs,
    /// An anonymous memory file.
    #[n(5)]
    Memfd,
    /// proc, sysfs, cgroupfs, devpts and other file systems without storage.
    #[n(6)]
    Pseudo,
    /// Seen through a mount namespace that is not the container's original one.
    #[n(7)]
    Foreign,
}

impl Origin {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Unknown => "unknown",
            Origin::Image => "image",
            Origin::Upper => "upper",
            Origin::Volume => "volume",
            Origin::Tmpfs => "tmpfs",
            Origin::Memfd => "memfd",
            Origin::Pseudo => "pseudo",
            Origin::Foreign => "foreign",
        }
    }
    /// Whether a process in the container could have written it since the container was created.
    pub fn is_writable(self) -> bool {
        matches!(
            self,
            Origin::Upper | Origin::Volume | Origin::Tmpfs | Origin::Memfd | Origin::Foreign
        )
    }
}

/// The process that acted, as the kernel knows it at the hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProcessInfo {
    /// Thread group id and start time.
    #[n(0)]
    pub key: ProcessKey,
    /// Thread id.
    #[n(1)]
    pub tid: u32,
    /// Parent's thread group id (0: none visible).
    #[n(2)]
    pub ppid: u32,
    /// Real user id in the initial user namespace.
    #[n(3)]
    pub uid: u32,
    /// Real group id in the initial user namespace.
    #[n(4)]
    pub gid: u32,
    /// `comm`, at most 15 bytes.
    #[n(5)]
    pub comm: Text,
    /// How it (or its ancestor) came into the container.
    #[n(6)]
    pub entry: Entry,
}

/// The actor of the dictionary: executable, script, entry kind and uid, as one keyed hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Actor(#[n(0)] pub u64);

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Proto {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
    /// UNIX domain.
    #[n(2)]
    Unix,
    /// Raw or packet socket.
    #[n(3)]
    Raw,
    /// Any other.
    #[n(4)]
    Other,
}

impl Proto {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Unix => "unix",
            Proto::Raw => "raw",
            Proto::Other => "other",
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SockAddr {
    /// IPv4 or IPv6 (v4-mapped addresses are given as IPv4) and port.
    Inet(IpAddr, u16),
    /// UNIX socket path; an abstract name starts with `@`; empty for an unnamed socket.
    Unix(Text),
}

impl SockAddr {
    /// An address of the machine, or the container, itself.
    pub fn is_loopback(&self) -> bool {
        matches!(self, SockAddr::Inet(ip, _) if ip.is_loopback())
    }
}

impl std::fmt::Display for SockAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SockAddr::Inet(IpAddr::V4(ip), port) => write!(f, "{ip}:{port}"),
            SockAddr::Inet(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
            SockAddr::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

// Encoded as an array: [4 or 16 bytes, port] or [path].
impl<C> Encode<C> for SockAddr {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            SockAddr::Inet(ip, port) => {
                e.array(2)?;
                match ip {
                    IpAddr::V4(v4) => e.bytes(&v4.octets())?,
                    IpAddr::V6(v6) => e.bytes(&v6.octets())?,
                };
                e.u16(*port)?;
            }
            SockAddr::Unix(path) => {
                e.array(1)?;
                path.encode(e, ctx)?;
            }
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for SockAddr {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.array()? {
            Some(2) => {
                let ip = decode_ip(d.bytes()?)?;
                Ok(SockAddr::Inet(ip, d.u16()?))
            }
            Some(1) => Ok(SockAddr::Unix(Text::decode(d, ctx)?)),
            _ => Err(minicbor::decode::Error::message(
                "a socket address has one or two elements",
            )),
        }
    }
}

fn decode_ip(bytes: &[u8]) -> Result<IpAddr, minicbor::decode::Error> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| minicbor::decode::Error::message("an address has 4 or 16 bytes"))
}

/// What was done to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum FileOp {
    /// Opened for reading.
    #[n(0)]
    Read,
    /// Opened for writing (or reading and writing).
    #[n(1)]
    Write,
    /// Created and opened.
    #[n(2)]
    Create,
    /// Opened with `O_PATH`, or a directory for listing.
    #[n(3)]
    List,
    /// Removed.
    #[n(4)]
    Unlink,
    /// Directory made.
    #[n(5)]
    Mkdir,
    /// Directory removed.
    #[n(6)]
    Rmdir,
    /// Mode changed.
    #[n(7)]
    Chmod,
    /// Owner changed.
    #[n(8)]
    Chown,
    /// Renamed (`path` → `target`).
    #[n(9)]
    Rename,
    /// Hard link made (`path` → new name `target`).
    #[n(10)]
    Link,
    /// Symbolic link made (`target` is the new name, `path` what it points to).
    #[n(11)]
    Symlink,
    /// Opening failed (missing, denied): see `result`.
    #[n(12)]
    Failed,
}

impl FileOp {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            FileOp::Read => "read",
            FileOp::Write => "write",
            FileOp::Create => "create",
            FileOp::List => "list",
            FileOp::Unlink => "unlink",
            FileOp::Mkdir => "mkdir",
            FileOp::Rmdir => "rmdir",
            FileOp::Chmod => "chmod",
            FileOp::Chown => "chown",
            FileOp::Rename => "rename",
            FileOp::Link => "link",
            FileOp::Symlink => "symlink",
            FileOp::Failed => "failed",
        }
    }
}

/// What happened. Numbers are never reused; new kinds are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum EventKind {
    /// A program was executed.
    #[n(0)]
    Exec(#[n(0)] Exec),
    /// The last thread of a process ended.
    #[n(1)]
    Exit {
        /// Exit code (0-255).
        #[n(0)]
        code: i32,
        /// Signal that ended it, 0 for none.
        #[n(1)]
        signal: i32,
    },
    /// A process (not a thread) was made.
    #[n(2)]
    Fork {
        /// The new process.
        #[n(0)]
        child: ProcessKey,
    },
    /// A file was opened, made, changed or removed.
    #[n(3)]
    File(#[n(0)] FileEvent),
    /// A file was mapped executable (a library, or the program itself by its loader).
    #[n(4)]
    Library {
        /// Path of the mapped file.
        #[n(0)]
        path: Text,
        /// Where it lives.
        #[n(1)]
        origin: Origin,
    },
    /// A socket of an unusual family or type was made (raw, packet, netlink, vsock …).
    #[n(5)]
    Socket {
        /// `AF_*`.
        #[n(0)]
        family: u16,
        /// `SOCK_*` without flags.
        #[n(1)]
        kind: u16,
        /// Protocol number.
        #[n(2)]
        protocol: u16,
    },
    /// An outbound connection was started.
    #[n(6)]
    Connect(#[n(0)] Connection),
    /// An inbound connection was accepted; `peer` is the other side, `local` ours.
    #[n(7)]
    Accept(#[n(0)] Connection),
    /// A port (or UNIX path) is listened on.
    #[n(8)]
    Listen {
        /// Transport.
        #[n(0)]
        proto: Proto,
        /// Address and port.
        #[n(1)]
        local: SockAddr,
    },
    /// A socket was bound to an explicit address.
    #[n(9)]
    Bind {
        /// Transport.
        #[n(0)]
        proto: Proto,
        /// Address and port.
        #[n(1)]
        local: SockAddr,
    },
    /// Datagrams to a peer.
    #[n(10)]
    Datagram(#[n(0)] Connection),
    /// A DNS question or answer.
    #[n(11)]
    Dns(#[n(0)] Dns),
    /// A descriptor was put onto a standard stream.
    #[n(12)]
    Dup {
        /// 0, 1 or 2.
        #[n(0)]
        stream: u32,
        /// What it is now.
        #[n(1)]
        target: DupTarget,
        /// Other end, for a connected socket.
        #[n(2)]
        peer: Option<SockAddr>,
    },
    /// `setns`, `unshare`, or `clone` with namespace flags.
    #[n(13)]
    Namespace {
        /// Which call.
        #[n(0)]
        call: NamespaceCall,
        /// `CLONE_NEW*` flags (0 in `setns` means any).
        #[n(1)]
        flags: u64,
    },
    /// `mount`, `umount`, `pivot_root`, `move_mount`, `chroot`.
    #[n(14)]
    Mount {
        /// Which call.
        #[n(0)]
        call: MountCall,
        /// Source (device, directory), where there is one.
        #[n(1)]
        source: Text,
        /// Target directory.
        #[n(2)]
        target: Text,
        /// File system type, where there is one.
        #[n(3)]
        fstype: Text,
        /// `MS_*` flags.
        #[n(4)]
        flags: u64,
    },
    /// `ptrace` or `process_vm_writev` on another process.
    #[n(15)]
    Ptrace {
        /// `PTRACE_*`; `u32::MAX` for `process_vm_writev`, `u32::MAX - 1` for `process_vm_readv`.
        #[n(0)]
        request: u32,
        /// Process id of the target as the caller sees it.
        #[n(1)]
        target: u32,
    },
    /// A kernel module was loaded or its loading tried.
    #[n(16)]
    Module {
        /// Name or path where it is known.
        #[n(0)]
        name: Text,
    },
    /// The `bpf` system call.
    #[n(17)]
    Bpf {
        /// `BPF_*` command.
        #[n(0)]
        command: u32,
    },
    /// A change of user or group ids, or a gain of capabilities.
    #[n(18)]
    Credentials {
        /// Effective uid before.
        #[n(0)]
        old_uid: u32,
        /// Effective uid after.
        #[n(1)]
        new_uid: u32,
        /// Effective capabilities before.
        #[n(2)]
        old_caps: u64,
        /// Effective capabilities after.
        #[n(3)]
        new_caps: u64,
    },
    /// A system call was used for the first time (as far as this actor's dictionary knows).
    #[n(19)]
    Syscall {
        /// Number.
        #[n(0)]
        nr: u32,
        /// Called through the 32-bit table.
        #[n(1)]
        compat: bool,
    },
    /// An anonymous memory file was made.
    #[n(20)]
    Memfd {
        /// Its name.
        #[n(0)]
        name: Text,
    },
    /// A cgroup was made.
    #[n(21)]
    CgroupMkdir {
        /// Kernfs id.
        #[n(0)]
        id: u64,
        /// Kernfs id of its parent.
        #[n(1)]
        parent: u64,
        /// Path below the hierarchy's root.
        #[n(2)]
        path: Text,
    },
    /// A cgroup was removed.
    #[n(22)]
    CgroupRmdir {
        /// Kernfs id.
        #[n(0)]
        id: u64,
    },
    /// A process was moved into another cgroup.
    #[n(23)]
    CgroupAttach {
        /// Kernfs id of the cgroup it was moved to.
        #[n(0)]
        to: u64,
        /// Path of that cgroup.
        #[n(1)]
        path: Text,
        /// The process that was moved.
        #[n(2)]
        moved: ProcessKey,
    },
    /// An escape-relevant or otherwise rare system call with no kind of its own.
    #[n(24)]
    Rare {
        /// Number in the native table.
        #[n(0)]
        nr: u32,
        /// The first four arguments.
        #[n(1)]
        args: [u64; 4],
        /// Return value.
        #[n(2)]
        result: i64,
    },
    /// A signal was sent to a process of another group.
    #[n(25)]
    Signal {
        /// Signal number.
        #[n(0)]
        signal: u32,
        /// Target process id as the caller sees it.
        #[n(1)]
        target: i32,
    },
}

impl EventKind {
    /// Name in JSON, tables and rules.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::Exec(_) => "exec",
            EventKind::Exit { .. } => "exit",
            EventKind::Fork { .. } => "fork",
            EventKind::File(_) => "file",
            EventKind::Library { .. } => "library",
            EventKind::Socket { .. } => "socket",
            EventKind::Connect(_) => "connect",
            EventKind::Accept(_) => "accept",
            EventKind::Listen { .. } => "listen",
            EventKind::Bind { .. } => "bind",
            EventKind::Datagram(_) => "datagram",
            EventKind::Dns(_) => "dns",
            EventKind::Dup { .. } => "dup",
            EventKind::Namespace { .. } => "namespace",
            EventKind::Mount { .. } => "mount",
            EventKind::Ptrace { .. } => "ptrace",
            EventKind::Module { .. } => "module",
            EventKind::Bpf { .. } => "bpf",
            EventKind::Credentials { .. } => "credentials",
            EventKind::Syscall { .. } => "syscall",
            EventKind::Memfd { .. } => "memfd",
            EventKind::CgroupMkdir { .. } => "cgroup_mkdir",
            EventKind::CgroupRmdir { .. } => "cgroup_rmdir",
            EventKind::CgroupAttach { .. } => "cgroup_attach",
            EventKind::Rare { .. } => "rare",
            EventKind::Signal { .. } => "signal",
        }
    }
}

/// A program that started to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Exec {
    /// Path of the executable, from the file object.
    #[n(0)]
    pub exe: Text,
    /// The script, when the program is its interpreter (`#!`); empty otherwise.
    #[n(1)]
    pub script: Text,
    /// Arguments, from the new program's own memory; bounded to 4 KiB.
    #[n(2)]
    pub argv: Vec<Text>,
    /// Arguments were cut at the bound; full length in bytes.
    #[n(3)]
    pub argv_bytes: u32,
    /// Working directory.
    #[n(4)]
    pub cwd: Text,
    /// Where the executable lives.
    #[n(5)]
    pub origin: Origin,
    /// The executable has no name any more (deleted or never linked).
    #[n(6)]
    pub deleted: bool,
    /// Effective user id.
    #[n(7)]
    pub euid: u32,
    /// Effective group id.
    #[n(8)]
    pub egid: u32,
    /// Effective capabilities.
    #[n(9)]
    pub caps: u64,
    /// Device number of the controlling terminal (0: none).
    #[n(10)]
    pub tty: u32,
    /// Device and inode of the executable.
    #[n(11)]
    pub dev: u64,
    /// Inode of the executable.
    #[n(12)]
    pub ino: u64,
    /// Permission bits of the executable (set-uid is `0o4000`).
    #[n(13)]
    pub mode: u32,
    /// The first program of the container instance.
    #[n(14)]
    pub first: bool,
    /// What else the program had when it started; `None`: it was refused, or the record is of an
    /// older sensor and nothing was seen of it in `/proc`.
    #[n(15)]
    pub glance: Option<Box<Glance>>,
    /// Its start was not seen: `/proc` showed the program running when the agent came, or when it met the
    /// container late. The event's time
    /// is when that was looked at, the process's start as `/proc` has it; who executed it is not known,
    /// and its arguments are what its memory held then.
    #[n(16)]
    #[cbor(default)]
    pub found: bool,
}

/// What a program had when it started, as its exec carried it. The name of the user is from `/proc`,
/// right after; so is the rest where the exec did not carry it, and then the process may have
/// changed its groups, capabilities and environment meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Glance {
    /// Permitted capabilities.
    #[n(0)]
    pub permitted: u64,
    /// Inheritable capabilities.
    #[n(1)]
    pub inheritable: u64,
    /// Login uid of the audit subsystem; `None`: not set (nobody logged in), or no such subsystem.
    #[n(2)]
    pub login_uid: Option<u32>,
    /// Process id in its own pid namespace.
    #[n(3)]
    pub vpid: u32,
    /// Id of its process group there.
    #[n(4)]
    pub vpgid: u32,
    /// Id of its session there.
    #[n(5)]
    pub vsid: u32,
    /// Environment (`NAME=value`), masked as arguments are; only the variables that rules ask for,
    /// of the first 12 KiB, and at most 4 KiB. `None`: not asked for, or it could not be read.
    #[n(6)]
    pub env: Option<Vec<Text>>,
    /// The environment was longer than what was read of it.
    #[n(7)]
    pub env_cut: bool,
    /// Name of its effective user in the container's own list of users; empty: not there.
    #[n(8)]
    pub user: Text,
    /// Effective user id that `user` stands for.
    #[n(9)]
    pub uid: u32,
}

/// Something done to a file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FileEvent {
    /// What was done.
    #[n(0)]
    pub op: FileOp,
    /// The file.
    #[n(1)]
    pub path: Text,
    /// New name, for rename, link and symlink.
    #[n(2)]
    pub target: Text,
    /// Where it lives.
    #[n(3)]
    pub origin: Origin,
    /// `O_*` flags of an open, new mode of a chmod, else 0.
    #[n(4)]
    pub flags: u32,
    /// 0, or the negative errno.
    #[n(5)]
    pub result: i32,
    /// The path of an open as the program wrote it, from its own memory, which another thread can
    /// change meanwhile; empty where it wrote `path`. `None`: not read.
    #[n(6)]
    pub raw: Option<Text>,
    /// Permissions of the file that an open made: what the program asked for, less its umask. `None`: it
    /// made none, or that was not told.
    #[n(7)]
    pub mode: Option<u32>,
}

/// Two ends and a transport.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Connection {
    /// Transport.
    #[n(0)]
    pub proto: Proto,
    /// The other end.
    #[n(1)]
    pub peer: SockAddr,
    /// Our end, where it is known.
    #[n(2)]
    pub local: Option<SockAddr>,
    /// 0, `-EINPROGRESS`, or another negative errno.
    #[n(3)]
    pub result: i32,
}

/// A DNS message, as far as it could be parsed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Dns {
    /// An answer (else a question).
    #[n(0)]
    pub response: bool,
    /// The name asked for, lower case, without the final dot.
    #[n(1)]
    pub name: Text,
    /// Query type (1 A, 28 AAAA …).
    #[n(2)]
    pub qtype: u16,
    /// Response code (3: no such name).
    #[n(3)]
    pub rcode: u8,
    /// Addresses in the answer (at most 16).
    #[n(4)]
    pub addresses: Vec<IpBytes>,
    /// The server.
    #[n(5)]
    pub server: Option<SockAddr>,
}

/// An IP address with an encoding of 4 or 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBytes(pub IpAddr);

impl<C> Encode<C> for IpBytes {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self.0 {
            IpAddr::V4(v4) => e.bytes(&v4.octets())?,
            IpAddr::V6(v6) => e.bytes(&v6.octets())?,
        };
        Ok(())
    }
}
impl<'b, C> Decode<'b, C> for IpBytes {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        decode_ip(d.bytes()?).map(IpBytes)
    }
}

/// What a standard stream was replaced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum DupTarget {
    /// A network socket.
    #[n(0)]
    Inet,
    /// A UNIX socket.
    #[n(1)]
    Unix,
    /// A pipe.
    #[n(2)]
    Pipe,
    /// A terminal.
    #[n(3)]
    Tty,
    /// A file or anything else.
    #[n(4)]
    Other,
}

/// Which call changed namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NamespaceCall {
    /// `setns`.
    #[n(0)]
    Setns,
    /// `unshare`.
    #[n(1)]
    Unshare,
    /// `clone` or `clone3` with namespace flags.
    #[n(2)]
    Clone,
}

/// Which call changed mounts or the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum MountCall {
    /// `mount`.
    #[n(0)]
    Mount,
    /// `umount2`.
    #[n(1)]
    Umount,
    /// `pivot_root`.
    #[n(2)]
    PivotRoot,
    /// `chroot`.
    #[n(3)]
    Chroot,
    /// `move_mount`, `open_tree`, `fsmount`.
    #[n(4)]
    MoveMount,
}

/// What the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// When, boot clock, read in the hook.
    #[n(0)]
    pub boot: BootNs,
    /// Kernel sequence number on `cpu` in its ring.
    #[n(1)]
    pub seq: u64,
    /// CPU.
    #[n(2)]
    pub cpu: u32,
    /// Came through the ring of alert-class events.
    #[n(3)]
    pub alert_class: bool,
    /// Kernfs id of the container's root cgroup (0 for node-level events).
    #[n(4)]
    pub cgroup_id: u64,
    /// Who acted.
    #[n(5)]
    pub process: ProcessInfo,
    /// The actor, as the kernel's dictionary names it (valid for this boot).
    #[n(6)]
    pub actor: Actor,
    /// How far the values can be trusted.
    #[n(7)]
    pub trust: Trust,
    /// An argument differed between the entry and the exit of the call.
    #[n(8)]
    pub tampered: bool,
    /// What happened.
    #[n(9)]
    pub kind: EventKind,
    /// Dense number of the behaviour in the kernel's counters (0: not counted there).
    #[n(10)]
    pub dense: u32,
    /// Key of the first-level dictionary entry that remembers this behaviour, so that it can be
    /// forgotten when the event is lost later; not part of what a record means.
    #[cbor(skip)]
    pub dict: Option<[u8; 48]>,
    /// What enforcement did about it; `None`: nothing.
    #[n(11)]
    pub enforced: Option<crate::enforcement::Enforced>,
}

impl Event {
    /// Something that happened at the start of the clock, by nobody, outside of every container; what
    /// is known of it is filled in around this.
    pub fn new(kind: EventKind) -> Self {
        Self {
            boot: BootNs(0),
            seq: 0,
            cpu: 0,
            alert_class: false,
            cgroup_id: 0,
            process: ProcessInfo::default(),
            actor: Actor(0),
            trust: Trust::Object,
            tampered: false,
            kind,
            dense: 0,
            dict: None,
            enforced: None,
        }
    }
}
