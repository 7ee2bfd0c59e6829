//! Which system call is served by which program, by name, so that it holds on every architecture
//! and for the 32-bit table.

/// Index of a program in the kernel's table of handlers (`enum handler` in `bpf/sys.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Handler {
    Open = 1,
    Openat,
    Path,
    Connect,
    Accept,
    Bind,
    Socket,
    Dup,
    Namespace,
    Mount,
    Ptrace,
    Module,
    Bpf,
    Credentials,
    Mmap,
    Memfd,
    Rare,
    DnsBuffer,
    DnsMessage,
    Signal,
    Mprotect,
    Handle,
    CompatArgs,
}

/// No such argument.
const NO: u8 = 0xff;

/// How a call names files: operation, and the indices of its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathArgs {
    pub(crate) op: u8,
    pub(crate) dfd: u8,
    pub(crate) path: u8,
    pub(crate) dfd2: u8,
    pub(crate) path2: u8,
    pub(crate) mode: u8,
}

const fn path(op: u8, dfd: u8, path: u8, dfd2: u8, path2: u8, mode: u8) -> PathArgs {
    PathArgs {
        op,
        dfd,
        path,
        dfd2,
        path2,
        mode,
    }
}

/// One system call.
pub(crate) struct Call {
    /// Number in the native table (-1: this architecture does not have it).
    pub(crate) nr: i64,
    /// Number in the 32-bit table (-1: none).
    pub(crate) compat: i64,
    pub(crate) handler: Handler,
    /// Distinguishes calls that share a handler (`call_numbers` in the kernel).
    pub(crate) number: u8,
    pub(crate) path: Option<PathArgs>,
}

macro_rules! nr {
    ($name:ident) => {
        libc::$name as i64
    };
}

/// Calls that only some architectures have.
macro_rules! old {
    ($name:ident) => {{
        #[cfg(target_arch = "x86_64")]
        {
            libc::$name as i64
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            -1
        }
    }};
}

const fn call(nr: i64, compat: i64, handler: Handler, number: u8) -> Call {
    Call {
        nr,
        compat,
        handler,
        number,
        path: None,
    }
}

const fn files(nr: i64, compat: i64, args: PathArgs) -> Call {
    Call {
        nr,
        compat,
        handler: Handler::Path,
        number: 0,
        path: Some(args),
    }
}

/// Every call with a program of its own. The 32-bit numbers are those of i386
/// (arch/x86/entry/syscalls/syscall_32.tbl).
pub(crate) fn calls() -> Vec<Call> {
    use Handler::*;
    vec![
        call(old!(SYS_open), 5, Open, 0),
        call(old!(SYS_creat), 8, Open, 1),
        call(nr!(SYS_openat), 295, Openat, 0),
        call(437, 437, Openat, 1), // openat2
        call(nr!(SYS_open_by_handle_at), 342, Handle, 0),
        files(old!(SYS_unlink), 10, path(4, NO, 0, NO, NO, NO)),
        files(nr!(SYS_unlinkat), 301, path(4, 0, 1, NO, NO, 2)),
        files(old!(SYS_rmdir), 40, path(6, NO, 0, NO, NO, NO)),
        files(old!(SYS_mkdir), 39, path(5, NO, 0, NO, NO, NO)),
        files(nr!(SYS_mkdirat), 296, path(5, 0, 1, NO, NO, NO)),
        files(old!(SYS_chmod), 15, path(7, NO, 0, NO, NO, 1)),
        files(nr!(SYS_fchmodat), 306, path(7, 0, 1, NO, NO, 2)),
        files(452, 452, path(7, 0, 1, NO, NO, 2)), // fchmodat2
        files(nr!(SYS_fchmod), 94, path(7, 0, NO, NO, NO, 1)),
        files(old!(SYS_chown), 212, path(8, NO, 0, NO, NO, NO)),
        files(old!(SYS_lchown), 198, path(8, NO, 0, NO, NO, NO)),
        files(nr!(SYS_fchownat), 298, path(8, 0, 1, NO, NO, NO)),
        files(nr!(SYS_fchown), 207, path(8, 0, NO, NO, NO, NO)),
        files(old!(SYS_rename), 38, path(9, NO, 0, NO, 1, NO)),
        files(nr!(SYS_renameat), 302, path(9, 0, 1, 2, 3, NO)),
        files(nr!(SYS_renameat2), 353, path(9, 0, 1, 2, 3, NO)),
        files(old!(SYS_link), 9, path(10, NO, 0, NO, 1, NO)),
        files(nr!(SYS_linkat), 303, path(10, 0, 1, 2, 3, NO)),
        files(old!(SYS_symlink), 83, path(11, NO, 0, NO, 1, NO)),
        files(nr!(SYS_symlinkat), 304, path(11, NO, 0, 1, 2, NO)),
        call(nr!(SYS_connect), 362, Connect, 0),
        call(old!(SYS_accept), -1, Accept, 0),
        call(nr!(SYS_accept4), 364, Accept, 0),
        call(nr!(SYS_bind), 361, Bind, 0),
        call(nr!(SYS_socket), 359, Socket, 0),
        call(nr!(SYS_dup), 41, Dup, 0),
        call(old!(SYS_dup2), 63, Dup, 0),
        call(nr!(SYS_dup3), 330, Dup, 0),
        call(nr!(SYS_setns), 346, Namespace, 0),
        call(nr!(SYS_unshare), 310, Namespace, 1),
        call(nr!(SYS_clone), 120, Namespace, 2),
        call(nr!(SYS_clone3), 435, Namespace, 3),
        call(nr!(SYS_mount), 21, Mount, 0),
        call(nr!(SYS_umount2), 52, Mount, 1),
        call(nr!(SYS_pivot_root), 217, Mount, 2),
        call(nr!(SYS_chroot), 61, Mount, 3),
        call(429, 429, Mount, 4), // move_mount
        call(nr!(SYS_ptrace), 26, Ptrace, 0),
        call(nr!(SYS_process_vm_writev), 348, Ptrace, 1),
        call(nr!(SYS_process_vm_readv), 347, Ptrace, 2),
        call(nr!(SYS_init_module), 128, Module, 0),
        call(nr!(SYS_finit_module), 350, Module, 1),
        call(nr!(SYS_delete_module), 129, Module, 2),
        call(nr!(SYS_bpf), 357, Bpf, 0),
        call(nr!(SYS_setuid), 213, Credentials, 0),
        call(nr!(SYS_setgid), 214, Credentials, 0),
        call(nr!(SYS_setreuid), 203, Credentials, 0),
        call(nr!(SYS_setregid), 204, Credentials, 0),
        call(nr!(SYS_setresuid), 208, Credentials, 0),
        call(nr!(SYS_setresgid), 210, Credentials, 0),
        call(nr!(SYS_capset), 185, Credentials, 0),
        call(nr!(SYS_mmap), 192, Mmap, 0),
        call(nr!(SYS_mprotect), 125, Mprotect, 0),
        call(nr!(SYS_pkey_mprotect), 380, Mprotect, 0),
        call(nr!(SYS_fcntl), 55, Dup, 1),
        call(nr!(SYS_memfd_create), 356, Memfd, 0),
        call(447, 447, Rare, 0), // memfd_secret
        call(nr!(SYS_kill), 37, Signal, 0),
        call(nr!(SYS_tgkill), 270, Signal, 1),
        call(nr!(SYS_tkill), 238, Signal, 0),
        call(nr!(SYS_rt_sigqueueinfo), 178, Signal, 0),
        call(nr!(SYS_rt_tgsigqueueinfo), 335, Signal, 1),
        call(424, 424, Signal, 2), // pidfd_send_signal
        call(nr!(SYS_perf_event_open), 336, Rare, 0),
        call(nr!(SYS_userfaultfd), 374, Rare, 0),
        call(425, 425, Rare, 0), // io_uring_setup
        call(nr!(SYS_kexec_load), 283, Rare, 0),
        call(nr!(SYS_kexec_file_load), -1, Rare, 0),
        call(nr!(SYS_add_key), 286, Rare, 0),
        call(nr!(SYS_request_key), 287, Rare, 0),
        call(nr!(SYS_keyctl), 288, Rare, 0),
        call(nr!(SYS_reboot), 88, Rare, 0),
        call(nr!(SYS_swapon), 87, Rare, 0),
        call(nr!(SYS_swapoff), 115, Rare, 0),
        call(nr!(SYS_sethostname), 74, Rare, 0),
        call(nr!(SYS_setdomainname), 121, Rare, 0),
        call(nr!(SYS_settimeofday), 79, Rare, 0),
        call(nr!(SYS_clock_settime), 264, Rare, 0),
        call(nr!(SYS_acct), 51, Rare, 0),
        call(nr!(SYS_quotactl), 131, Rare, 0),
        call(old!(SYS_iopl), 110, Rare, 0),
        call(old!(SYS_ioperm), 101, Rare, 0),
        call(nr!(SYS_syslog), 103, Rare, 0),
        call(nr!(SYS_fanotify_init), 338, Rare, 0),
        call(428, 428, Rare, 0), // open_tree
        call(430, 430, Rare, 0), // fsopen
        call(438, 438, Rare, 0), // pidfd_getfd
        call(442, 442, Rare, 0), // mount_setattr
        call(nr!(SYS_personality), 136, Rare, 0),
        call(old!(SYS_mknod), 14, Rare, 0),
        call(nr!(SYS_mknodat), 297, Rare, 0),
        call(nr!(SYS_shmat), 397, Mmap, 1),
    ]
}

/// More ways to the same calls, in the 32-bit table only: its number, the native number of what it
/// comes to, handler. Those with 16-bit ids and the ones that keep their arguments in memory.
#[cfg(target_arch = "x86_64")]
pub(crate) fn compat_calls() -> Vec<(usize, i64, Handler)> {
    use Handler::*;
    vec![
        (23, libc::SYS_setuid, Credentials),
        (46, libc::SYS_setgid, Credentials),
        (70, libc::SYS_setreuid, Credentials),
        (71, libc::SYS_setregid, Credentials),
        (164, libc::SYS_setresuid, Credentials),
        (170, libc::SYS_setresgid, Credentials),
        (182, libc::SYS_chown, Path),
        (16, libc::SYS_lchown, Path),
        (95, libc::SYS_fchown, Path),
        (22, libc::SYS_umount2, Mount),
        (221, libc::SYS_fcntl, Dup),
        (90, libc::SYS_mmap, CompatArgs),
        (102, libc::SYS_socket, CompatArgs),
        (117, libc::SYS_shmat, CompatArgs),
    ]
}

/// There is no such table on other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compat_calls() -> Vec<(usize, i64, Handler)> {
    Vec::new()
}

/// Calls that carry DNS messages: native number, handler, and what it passes to the handler.
pub(crate) fn dns_calls() -> Vec<(i64, Handler, u8)> {
    use Handler::*;
    vec![
        (nr!(SYS_sendto), DnsBuffer, 1),
        (nr!(SYS_recvfrom), DnsBuffer, 1),
        (nr!(SYS_write), DnsBuffer, 0),
        (nr!(SYS_read), DnsBuffer, 0),
        (nr!(SYS_sendmsg), DnsMessage, 0),
        (nr!(SYS_recvmsg), DnsMessage, 0),
        (nr!(SYS_sendmmsg), DnsMessage, 1),
        (nr!(SYS_recvmmsg), DnsMessage, 1),
        (nr!(SYS_writev), DnsMessage, 2),
        (nr!(SYS_readv), DnsMessage, 2),
    ]
}

/// The program of each handler behind its prefix `h_`, as named in `bpf/sys.h` and `bpf/net.h`.
pub(crate) const HANDLER_PROGRAMS: &[(Handler, &str)] = &[
    (Handler::Open, "open"),
    (Handler::Openat, "openat"),
    (Handler::Path, "path"),
    (Handler::Connect, "connect"),
    (Handler::Accept, "accept"),
    (Handler::Bind, "bind"),
    (Handler::Socket, "socket"),
    (Handler::Dup, "dup"),
    (Handler::Namespace, "namespace"),
    (Handler::Mount, "mount"),
    (Handler::Ptrace, "ptrace"),
    (Handler::Module, "module"),
    (Handler::Bpf, "bpf"),
    (Handler::Credentials, "credentials"),
    (Handler::Mmap, "mmap"),
    (Handler::Memfd, "memfd"),
    (Handler::Rare, "rare"),
    (Handler::DnsBuffer, "dns_buffer"),
    (Handler::DnsMessage, "dns_message"),
    (Handler::Signal, "signal"),
    (Handler::Mprotect, "mprotect"),
    (Handler::Handle, "handle"),
    (Handler::CompatArgs, "compat_args"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_served_twice() {
        let mut seen = std::collections::HashSet::new();
        for c in calls() {
            if c.nr >= 0 {
                assert!(seen.insert(c.nr), "{} twice", c.nr);
                assert!(c.nr < 512);
            }
        }
        let mut seen = std::collections::HashSet::new();
        for c in calls().iter().filter(|c| c.compat >= 0) {
            assert!(seen.insert(c.compat), "compat {} twice", c.compat);
        }
        for (compat, _, _) in compat_calls() {
            assert!(seen.insert(compat as i64), "compat {compat} twice");
        }
    }

    #[test]
    fn every_handler_has_a_program() {
        for c in calls() {
            assert!(HANDLER_PROGRAMS.iter().any(|(h, _)| *h == c.handler));
        }
    }
}
