//! Which paths, programs and addresses matter to an attacker, and which parts of a path are mere noise.
//!
//! Promises: [`normalise`] replaces only parts that are volatile by construction (process numbers,
//! uuids, digests, mktemp names), each by a word that says which; a path for which
//! [`never_generalise`] holds is left as it is. Classification looks at the cleaned path, so
//! `/etc/../etc//shadow` is `/etc/shadow`.
//!
//! The lists follow what the CIS Docker Benchmark, Falco's stock macros (`sensitive_files`,
//! `bin_dir`) and the container pages of MITRE ATT&CK name; they are ours to keep.

use crate::event::FileOp;
use std::borrow::Cow;
use std::net::IpAddr;

/// Why a path is no ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sensitive {
    /// Password hashes, private keys, cloud and cluster credentials.
    Credential,
    /// A secret that the orchestrator put into this container for its own use.
    OwnSecret,
    /// Something that is started or obeyed later: cron, rc files, `ld.so.preload`, accounts.
    Persistence,
    /// A directory of programs or libraries (matters for writes).
    Program,
    /// Controls the host: `core_pattern`, `release_agent`, disks, kernel memory.
    HostControl,
    /// Socket of a container runtime.
    RuntimeSocket,
    /// Logs and histories (matters for removal).
    Trace,
    /// Memory or environment of another process.
    ProcessMemory,
}

/// A path, or all paths below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path.
    Exact(&'static str),
    /// Every path below this directory.
    Below(&'static str),
}

impl PathPattern {
    /// Whether the pattern covers a path.
    pub fn matches(self, path: &[u8]) -> bool {
        match self {
            PathPattern::Exact(p) => path == p.as_bytes(),
            PathPattern::Below(dir) => below(path, dir),
        }
    }
}

use PathPattern::{Below, Exact};

const CREDENTIALS: &[PathPattern] = &[
    Exact("/etc/shadow"),
    Exact("/etc/shadow-"),
    Exact("/etc/gshadow"),
    Exact("/etc/gshadow-"),
    Exact("/etc/sudoers"),
    Below("/etc/sudoers.d"),
    Exact("/etc/security/opasswd"),
    Exact("/etc/krb5.keytab"),
    Below("/etc/ssl/private"),
    Below("/etc/letsencrypt"),
    Below("/etc/kubernetes"),
    Below("/var/lib/kubelet"),
    Below("/root/.ssh"),
    Below("/root/.aws"),
    Below("/root/.kube"),
    Below("/root/.docker"),
    Below("/root/.azure"),
    Below("/root/.gnupg"),
    Below("/root/.config/gcloud"),
];

const OWN_SECRETS: &[PathPattern] = &[Below("/var/run/secrets"), Below("/run/secrets")];

const PERSISTENCE: &[PathPattern] = &[
    Exact("/etc/ld.so.preload"),
    Exact("/etc/ld.so.conf"),
    Below("/etc/ld.so.conf.d"),
    Exact("/etc/crontab"),
    Exact("/etc/anacrontab"),
    Below("/etc/cron.d"),
    Below("/etc/cron.hourly"),
    Below("/etc/cron.daily"),
    Below("/etc/cron.weekly"),
    Below("/etc/cron.monthly"),
    Below("/var/spool/cron"),
    Below("/var/spool/at"),
    Exact("/etc/passwd"),
    Exact("/etc/group"),
    Exact("/etc/profile"),
    Below("/etc/profile.d"),
    Exact("/etc/bash.bashrc"),
    Exact("/etc/environment"),
    Exact("/etc/rc.local"),
    Below("/etc/init.d"),
    Below("/etc/rc0.d"),
    Below("/etc/rc1.d"),
    Below("/etc/rc2.d"),
    Below("/etc/rc3.d"),
    Below("/etc/rc4.d"),
    Below("/etc/rc5.d"),
    Below("/etc/rc6.d"),
    Below("/etc/rcS.d"),
    Exact("/etc/inittab"),
    Below("/etc/systemd"),
    Below("/lib/systemd"),
    Below("/usr/lib/systemd"),
    Below("/etc/pam.d"),
    Exact("/etc/pam.conf"),
    Exact("/etc/ssh/sshd_config"),
    Below("/etc/ssh/sshd_config.d"),
    Below("/etc/xdg/autostart"),
    Below("/etc/apt/apt.conf.d"),
    Below("/etc/update-motd.d"),
    Below("/etc/udev/rules.d"),
    Exact("/etc/modules"),
    Below("/etc/modules-load.d"),
];

const HOST_CONTROL: &[PathPattern] = &[
    Exact("/proc/sys/kernel/core_pattern"),
    Exact("/proc/sys/kernel/modprobe"),
    Exact("/proc/sys/kernel/hotplug"),
    Exact("/proc/sys/fs/binfmt_misc/register"),
    Exact("/proc/sysrq-trigger"),
    Exact("/proc/kcore"),
    Exact("/proc/kmem"),
    Exact("/sys/kernel/uevent_helper"),
    Below("/sys/kernel/debug"),
    Exact("/dev/mem"),
    Exact("/dev/kmem"),
    Exact("/dev/port"),
    Exact("/dev/kmsg"),
];

const RUNTIME_SOCKETS: &[PathPattern] = &[
    Exact("/var/run/docker.sock"),
    Exact("/run/docker.sock"),
    Exact("/run/containerd/containerd.sock"),
    Exact("/var/run/containerd/containerd.sock"),
    Exact("/run/crio/crio.sock"),
    Exact("/var/run/crio/crio.sock"),
    Exact("/run/podman/podman.sock"),
    Exact("/var/run/podman/podman.sock"),
];

const PROGRAM_DIRS: &[&str] = &[
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
];

const CREDENTIAL_DIRS: &[&[u8]] = &[b".ssh", b".aws", b".kube", b".azure", b".gnupg", b".docker"];
const CREDENTIAL_NAMES: &[&[u8]] = &[
    b".netrc",
    b".pgpass",
    b".my.cnf",
    b".git-credentials",
    b".npmrc",
    b".pypirc",
    b".vault-token",
    b".htpasswd",
    b"id_rsa",
    b"id_dsa",
    b"id_ecdsa",
    b"id_ed25519",
];
const STARTED_NAMES: &[&[u8]] = &[
    b"authorized_keys",
    b"authorized_keys2",
    b".bashrc",
    b".bash_profile",
    b".bash_login",
    b".profile",
    b".zshrc",
    b".zprofile",
    b".zshenv",
    b"sitecustomize.py",
    b"usercustomize.py",
];
const SOCKET_NAMES: &[&[u8]] = &[
    b"docker.sock",
    b"containerd.sock",
    b"crio.sock",
    b"podman.sock",
    b"dockershim.sock",
    b"buildkitd.sock",
];
const TRACE_NAMES: &[&[u8]] = &[
    b".bash_history",
    b".ash_history",
    b".sh_history",
    b".zsh_history",
    b".python_history",
    b".mysql_history",
    b".psql_history",
    b"wtmp",
    b"btmp",
    b"utmp",
    b"lastlog",
];
const BLOCK_DEVICES: &[&str] = &[
    "/dev/sd",
    "/dev/vd",
    "/dev/xvd",
    "/dev/hd",
    "/dev/nvme",
    "/dev/dm-",
    "/dev/mapper/",
    "/dev/loop",
    "/dev/mmcblk",
];

/// Paths that the kernel side must report on every use, with the operations that matter (empty:
/// all). Only what an exact path or a directory prefix can say; credentials in home directories
/// (`/home/*/.ssh`) and `/proc/*/environ` are kept out of dictionaries instead.
pub fn watched_paths() -> Vec<(PathPattern, Vec<FileOp>)> {
    let changes = || {
        use FileOp::*;
        vec![
            Write, Create, Unlink, Mkdir, Rmdir, Chmod, Chown, Rename, Link, Symlink,
        ]
    };
    let always = [CREDENTIALS, HOST_CONTROL, RUNTIME_SOCKETS, OWN_SECRETS];
    let every_use = always.into_iter().flatten().map(|&p| (p, Vec::new()));
    let when_changed = PERSISTENCE.iter().map(|&p| (p, changes()));
    every_use.chain(when_changed).collect()
}

/// Whether an operation changes what is on disk.
pub fn changes(op: FileOp) -> bool {
    !matches!(op, FileOp::Read | FileOp::List | FileOp::Failed)
}

fn below(path: &[u8], dir: &str) -> bool {
    path.strip_prefix(dir.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn any(patterns: &[PathPattern], path: &[u8]) -> bool {
    patterns.iter().any(|p| p.matches(path))
}

/// Components without the empty ones.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty())
}

fn basename(path: &[u8]) -> &[u8] {
    components(path).next_back().unwrap_or_default()
}

/// Resolves `//`, `.` and `..` by their letters. Links cannot be followed here: the path is either
/// from a file object (already final) or an argument (marked so).
pub fn clean(path: &[u8]) -> Cow<'_, [u8]> {
    if !has_dots_or_doubles(path) {
        return Cow::Borrowed(path);
    }
    let mut out: Vec<&[u8]> = Vec::new();
    for c in components(path) {
        match c {
            b"." => {}
            b".." => {
                out.pop();
            }
            c => out.push(c),
        }
    }
    let mut bytes = Vec::with_capacity(path.len());
    for c in out {
        bytes.push(b'/');
        bytes.extend_from_slice(c);
    }
    Cow::Owned(bytes)
}

fn has_dots_or_doubles(path: &[u8]) -> bool {
    path.split(|&b| b == b'/')
        .skip(1)
        .any(|c| c.is_empty() || c == b"." || c == b"..")
}

/// What a path means to an attacker, most telling first; `None` for an ordinary one.
pub fn sensitive(path: &[u8]) -> Option<Sensitive> {
    let path = &*clean(path);
    let name = basename(path);
    if any(HOST_CONTROL, path) || is_host_control(path, name) {
        return Some(Sensitive::HostControl);
    }
    if path.starts_with(b"/proc/") {
        return proc_memory(path);
    }
    if any(RUNTIME_SOCKETS, path) || SOCKET_NAMES.contains(&name) {
        return Some(Sensitive::RuntimeSocket);
    }
    if any(OWN_SECRETS, path) {
        return Some(Sensitive::OwnSecret);
    }
    if any(PERSISTENCE, path) || STARTED_NAMES.contains(&name) || path.starts_with(b"/etc/cron") {
        return Some(Sensitive::Persistence);
    }
    if any(CREDENTIALS, path) || is_credential(path, name) {
        return Some(Sensitive::Credential);
    }
    if TRACE_NAMES.contains(&name) || below(path, "/var/log") {
        return Some(Sensitive::Trace);
    }
    is_program_dir(path).then_some(Sensitive::Program)
}

/// A number that changes with the places that [`sensitive`] knows: what was decided by them and kept
/// is decided anew under another number. The same on every machine.
pub fn sensitive_version() -> u64 {
    let places = [
        CREDENTIALS,
        HOST_CONTROL,
        RUNTIME_SOCKETS,
        OWN_SECRETS,
        PERSISTENCE,
    ];
    let names = (STARTED_NAMES, SOCKET_NAMES, TRACE_NAMES, BLOCK_DEVICES);
    let told = format!("{places:?} {names:?}");
    told.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn is_host_control(path: &[u8], name: &[u8]) -> bool {
    let cgroup = path.starts_with(b"/sys/fs/cgroup")
        || matches!(name, b"release_agent" | b"notify_on_release");
    (cgroup
        && matches!(
            name,
            b"release_agent" | b"notify_on_release" | b"devices.allow"
        ))
        || BLOCK_DEVICES
            .iter()
            .any(|d| path.starts_with(d.as_bytes()) && path.len() > d.len())
}

fn proc_memory(path: &[u8]) -> Option<Sensitive> {
    let mut parts = components(path);
    let who = parts.nth(1)?;
    let process = who == b"self"
        || who == b"thread-self"
        || who == b"<pid>"
        || who.iter().all(u8::is_ascii_digit);
    let last = parts.next_back()?;
    (process && matches!(last, b"environ" | b"mem")).then_some(Sensitive::ProcessMemory)
}

fn is_credential(path: &[u8], name: &[u8]) -> bool {
    let host_key = path.starts_with(b"/etc/ssh/ssh_host_") && name.ends_with(b"_key");
    let dir = components(path).rev().any(|c| CREDENTIAL_DIRS.contains(&c));
    let gcloud = find(path, b"/.config/gcloud/");
    host_key || gcloud || dir || CREDENTIAL_NAMES.contains(&name)
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// Whether a path lies where TLS servers keep their keys.
pub fn is_tls_key_dir(path: &[u8]) -> bool {
    below(path, "/etc/ssl/private") || below(path, "/etc/letsencrypt")
}

/// Whether a path lies in a directory of programs or libraries.
pub fn is_program_dir(path: &[u8]) -> bool {
    PROGRAM_DIRS.iter().any(|d| below(path, d)) || is_opt_bin(path)
}

fn is_opt_bin(path: &[u8]) -> bool {
    let mut parts = components(path);
    parts.next() == Some(b"opt")
        && parts.next().is_some()
        && matches!(parts.next(), Some(b"bin" | b"sbin" | b"lib"))
        && parts.next().is_some()
}

/// Whether no pattern may ever cover this path for this operation: it is judged by itself, always.
pub fn never_generalise(path: &[u8], op: &str) -> bool {
    let path = &*clean(path);
    if path == b"/root" || below(path, "/root") || !path.starts_with(b"/") {
        return true;
    }
    match sensitive(path) {
        None => false,
        Some(Sensitive::Program) => !matches!(op, "read" | "list" | "failed"),
        Some(Sensitive::Trace) => !matches!(op, "read" | "list" | "failed" | "write" | "create"),
        Some(_) => true,
    }
}

/// The path with its volatile parts named: `/proc/4711/stat` → `/proc/<pid>/stat`.
pub fn normalise(path: &[u8]) -> Cow<'_, [u8]> {
    if let Some(rest) = path.strip_prefix(b"/proc/") {
        return normalise_proc(path, rest);
    }
    if let Some(n) = path.strip_prefix(b"/dev/pts/")
        && !n.is_empty()
        && n.iter().all(u8::is_ascii_digit)
    {
        return Cow::Borrowed(b"/dev/pts/<n>");
    }
    if !may_be_volatile(path) || never_generalise(path, "write") {
        return Cow::Borrowed(path);
    }
    let temp = in_temp(path);
    let mut out = Vec::with_capacity(path.len());
    for (i, part) in path.split(|&b| b == b'/').enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(&volatile(part, temp));
    }
    Cow::Owned(out)
}

/// A part can only be volatile with six or more digits or letters in a row that are no plain word,
/// or below a directory for temporary files: one cheap pass for all the others.
fn may_be_volatile(path: &[u8]) -> bool {
    let digits = path.iter().filter(|b| b.is_ascii_digit()).count();
    digits >= 6 || in_temp(path) || find(path, b"/tmp")
}

/// Whether a path lies in a directory that everybody may write to.
pub fn in_temp(path: &[u8]) -> bool {
    ["/tmp", "/var/tmp", "/dev/shm", "/run/shm"]
        .iter()
        .any(|d| below(path, d))
}

fn normalise_proc<'a>(path: &'a [u8], rest: &'a [u8]) -> Cow<'a, [u8]> {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let first = rest.split(|&b| b == b'/').next().unwrap_or_default();
    if !digits(first) && first != b"self" && first != b"thread-self" {
        return Cow::Borrowed(path);
    }
    // numbers below a process are threads, descriptors and address ranges: all volatile
    let mut out = b"/proc/<pid>".to_vec();
    for part in rest.split(|&b| b == b'/').skip(1) {
        out.push(b'/');
        out.extend_from_slice(if digits(part) { b"<n>" } else { part });
    }
    Cow::Owned(out)
}

/// One path component with its volatile part named.
fn volatile(part: &[u8], temp: bool) -> Cow<'_, [u8]> {
    if is_uuid(part) {
        return Cow::Borrowed(b"<uuid>");
    }
    if part.len() >= 6 && part.iter().all(u8::is_ascii_digit) {
        return Cow::Borrowed(b"<n>");
    }
    if is_long_hex(part) {
        return Cow::Borrowed(b"<hex>");
    }
    if let Some(stem) = mktemp_stem(part, temp) {
        return Cow::Owned([stem, b"<rand>"].concat());
    }
    Cow::Borrowed(part)
}

/// `8-4-4-4-12` hex digits.
pub fn is_uuid(part: &[u8]) -> bool {
    part.len() == 36
        && part.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// 16 or more hex digits with letters and digits among them.
pub fn is_long_hex(part: &[u8]) -> bool {
    part.len() >= 16
        && part.iter().all(u8::is_ascii_hexdigit)
        && part.iter().any(u8::is_ascii_digit)
        && part.iter().any(u8::is_ascii_alphabetic)
}

/// What stands before the random end of a name made by mktemp(1), mkstemp(3) or Python's tempfile.
fn mktemp_stem(part: &[u8], temp: bool) -> Option<&[u8]> {
    if let Some(rand) = part.strip_prefix(b"tmp.") {
        return (rand.len() >= 6 && rand.iter().all(u8::is_ascii_alphanumeric)).then(|| &part[..4]);
    }
    if !temp {
        return None;
    }
    if let Some(rand) = part.strip_prefix(b"tmp")
        && rand.len() == 8
        && rand.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    {
        return Some(&part[..3]);
    }
    // mkstemp's six: at least two of upper case, lower case and digits, after a separator
    let at = part.len().checked_sub(6)?;
    let (stem, rand) = part.split_at(at);
    let separated = stem.last().is_some_and(|b| matches!(b, b'.' | b'-' | b'_'));
    let classes = [
        u8::is_ascii_uppercase,
        u8::is_ascii_lowercase,
        u8::is_ascii_digit,
    ];
    let mixed = classes.iter().filter(|c| rand.iter().any(c)).count();
    (separated && mixed >= 2 && rand.iter().all(u8::is_ascii_alphanumeric)).then_some(stem)
}

/// Set-up programs of OCI runtimes, seen as the parent of a container's first program.
const RUNTIMES: &[&str] = &[
    "runc",
    "crun",
    "youki",
    "runsc",
    "kata-runtime",
    "conmon",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "docker-runc",
];

/// The last component of a path, lossy.
pub fn name_of(path: &[u8]) -> &str {
    let start = path.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
    let name = &path[start..];
    // the kernel's mark of a removed file
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    std::str::from_utf8(name).unwrap_or("")
}

/// Whether a program belongs to an OCI runtime.
pub fn is_runtime(path: &[u8]) -> bool {
    let name = name_of(path);
    // runc runs from a copy of itself in memory, so that a container cannot overwrite it
    RUNTIMES.contains(&name)
        || name.starts_with("runc:[")
        || path.windows(17).any(|w| w == b"memfd:runc_cloned")
}

/// Addresses of cloud metadata services: AWS, Azure, Google and most others; ECS tasks; Alibaba;
/// Oracle; AWS over IPv6.
pub fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => matches!(
            v4.octets(),
            [169, 254, 169, 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [192, 0, 0, 192]
        ),
        IpAddr::V6(v6) => v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    }
}
