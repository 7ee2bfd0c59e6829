//! Numbers of the kernel in the words that Falco has for them.
//!
//! Sources: `include/uapi` of Linux for the numbers; Falco's documented output for the words.

use plimsoll_baseline::names::CAPABILITIES;

/// The flags of an open whose numbers depend on the architecture.
pub(super) mod layout {
    const ARM: bool = cfg!(any(target_arch = "aarch64", target_arch = "arm"));
    pub(in super::super) const DIRECTORY: u32 = if ARM { 0o40000 } else { 0o200_000 };
    pub(super) const NOFOLLOW: u32 = if ARM { 0o100_000 } else { 0o400_000 };
    pub(super) const DIRECT: u32 = if ARM { 0o200_000 } else { 0o40000 };
    pub(super) const LARGEFILE: u32 = if ARM { 0o400_000 } else { 0o100_000 };
}

/// `O_*` of an open, joined by `|`, as `evt.arg.flags` has them. `created`: the call made the file.
pub(super) fn open_flags(flags: u32, created: bool) -> String {
    const BITS: [(u32, &str); 14] = [
        (0o100, "O_CREAT"),
        (0o2000, "O_APPEND"),
        (0o10000, "O_DSYNC"),
        (0o200, "O_EXCL"),
        (0o4000, "O_NONBLOCK"),
        (0o4_000_000, "O_SYNC"),
        (0o1000, "O_TRUNC"),
        (layout::DIRECT, "O_DIRECT"),
        (layout::DIRECTORY, "O_DIRECTORY"),
        (layout::LARGEFILE, "O_LARGEFILE"),
        (0o2_000_000, "O_CLOEXEC"),
        (0o20_000_000, "O_TMPFILE"),
        (0o10_000_000, "O_PATH"),
        (layout::NOFOLLOW, "O_NOFOLLOW"),
    ];
    let mode = match flags & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        _ => "O_RDWR",
    };
    let mut words: Vec<&str> = BITS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, word)| *word)
        .collect();
    words.push(mode);
    if created {
        words.push("O_F_CREATED");
    }
    words.join("|")
}

/// Permission bits, joined by `|`, as `evt.arg.mode` has them.
pub(super) fn mode(mode: u32) -> String {
    const BITS: [(u32, &str); 12] = [
        (0o4, "S_IROTH"),
        (0o2, "S_IWOTH"),
        (0o1, "S_IXOTH"),
        (0o40, "S_IRGRP"),
        (0o20, "S_IWGRP"),
        (0o10, "S_IXGRP"),
        (0o400, "S_IRUSR"),
        (0o200, "S_IWUSR"),
        (0o100, "S_IXUSR"),
        (0o1000, "S_ISVTX"),
        (0o2000, "S_ISGID"),
        (0o4000, "S_ISUID"),
    ];
    bits(u64::from(mode), BITS.map(|(b, w)| (u64::from(b), w)))
}

/// `CLONE_NEW*`, joined by `|`.
pub(super) fn namespaces(flags: u64) -> String {
    bits(
        flags,
        [
            (0x80, "CLONE_NEWTIME"),
            (0x0002_0000, "CLONE_NEWNS"),
            (0x0200_0000, "CLONE_NEWCGROUP"),
            (0x0400_0000, "CLONE_NEWUTS"),
            (0x0800_0000, "CLONE_NEWIPC"),
            (0x1000_0000, "CLONE_NEWUSER"),
            (0x2000_0000, "CLONE_NEWPID"),
            (0x4000_0000, "CLONE_NEWNET"),
        ],
    )
}

/// `MS_*` of a mount, joined by `|`.
pub(super) fn mount_flags(flags: u64) -> String {
    bits(
        flags,
        [
            (1, "RDONLY"),
            (2, "NOSUID"),
            (4, "NODEV"),
            (8, "NOEXEC"),
            (0x20, "REMOUNT"),
            (0x1000, "BIND"),
            (0x2000, "MOVE"),
            (0x4000, "REC"),
            (1 << 18, "PRIVATE"),
            (1 << 19, "SLAVE"),
            (1 << 20, "SHARED"),
        ],
    )
}

fn bits<const N: usize>(value: u64, names: [(u64, &str); N]) -> String {
    let words: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| value & bit != 0)
        .map(|(_, word)| *word)
        .collect();
    match words.is_empty() {
        true => "0".to_owned(),
        false => words.join("|"),
    }
}

/// Capabilities, separated by blanks, as `thread.cap_effective` has them.
pub(super) fn capabilities(mask: u64) -> String {
    let words: Vec<String> = (0..CAPABILITIES.len())
        .filter(|n| mask >> n & 1 == 1)
        .map(|n| format!("CAP_{}", CAPABILITIES[n].to_ascii_uppercase()))
        .collect();
    words.join(" ")
}

/// A ptrace request.
pub(super) fn ptrace_request(request: u32) -> String {
    let word = match request {
        0 => "PTRACE_TRACEME",
        1 => "PTRACE_PEEKTEXT",
        2 => "PTRACE_PEEKDATA",
        3 => "PTRACE_PEEKUSR",
        4 => "PTRACE_POKETEXT",
        5 => "PTRACE_POKEDATA",
        6 => "PTRACE_POKEUSR",
        7 => "PTRACE_CONT",
        8 => "PTRACE_KILL",
        9 => "PTRACE_SINGLESTEP",
        12 => "PTRACE_GETREGS",
        13 => "PTRACE_SETREGS",
        14 => "PTRACE_GETFPREGS",
        15 => "PTRACE_SETFPREGS",
        16 => "PTRACE_ATTACH",
        17 => "PTRACE_DETACH",
        24 => "PTRACE_SYSCALL",
        0x4200 => "PTRACE_SETOPTIONS",
        0x4204 => "PTRACE_GETREGSET",
        0x4205 => "PTRACE_SETREGSET",
        0x4206 => "PTRACE_SEIZE",
        0x4207 => "PTRACE_INTERRUPT",
        n => return n.to_string(),
    };
    word.to_owned()
}

/// A `bpf` command.
pub(super) fn bpf_command(command: u32) -> String {
    const NAMES: [&str; 20] = [
        "BPF_MAP_CREATE",
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_UPDATE_ELEM",
        "BPF_MAP_DELETE_ELEM",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_PROG_LOAD",
        "BPF_OBJ_PIN",
        "BPF_OBJ_GET",
        "BPF_PROG_ATTACH",
        "BPF_PROG_DETACH",
        "BPF_PROG_TEST_RUN",
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_PROG_GET_FD_BY_ID",
        "BPF_MAP_GET_FD_BY_ID",
        "BPF_OBJ_GET_INFO_BY_FD",
        "BPF_PROG_QUERY",
        "BPF_RAW_TRACEPOINT_OPEN",
        "BPF_BTF_LOAD",
        "BPF_BTF_GET_FD_BY_ID",
    ];
    NAMES
        .get(command as usize)
        .map_or_else(|| command.to_string(), |n| (*n).to_owned())
}

/// An address family.
pub(super) fn family(family: u16) -> String {
    let word = match family {
        1 => "AF_UNIX",
        2 => "AF_INET",
        10 => "AF_INET6",
        16 => "AF_NETLINK",
        17 => "AF_PACKET",
        29 => "AF_CAN",
        31 => "AF_BLUETOOTH",
        38 => "AF_ALG",
        40 => "AF_VSOCK",
        44 => "AF_XDP",
        n => return n.to_string(),
    };
    word.to_owned()
}

/// `SUCCESS`, or the name of an error (its number where the name is not known here).
pub(super) fn result(result: i64) -> String {
    if result >= 0 {
        return "SUCCESS".to_owned();
    }
    let word = match -result {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        18 => "EXDEV",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        23 => "ENFILE",
        24 => "EMFILE",
        25 => "ENOTTY",
        26 => "ETXTBSY",
        28 => "ENOSPC",
        30 => "EROFS",
        38 => "ENOSYS",
        39 => "ENOTEMPTY",
        40 => "ELOOP",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        101 => "ENETUNREACH",
        104 => "ECONNRESET",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        115 => "EINPROGRESS",
        n => return n.to_string(),
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_falcos_words() {
        assert_eq!(
            open_flags(0o1101, true),
            "O_CREAT|O_TRUNC|O_WRONLY|O_F_CREATED"
        );
        assert_eq!(
            mode(0o4755 & !0o444),
            "S_IXOTH|S_IXGRP|S_IWUSR|S_IXUSR|S_ISUID"
        );
        assert_eq!(
            namespaces(0x0002_0000 | 0x1000_0000),
            "CLONE_NEWNS|CLONE_NEWUSER"
        );
        assert_eq!(capabilities(1 << 21 | 1), "CAP_CHOWN CAP_SYS_ADMIN");
        assert_eq!(result(-115), "EINPROGRESS");
        assert_eq!(result(0), "SUCCESS");
    }
}
