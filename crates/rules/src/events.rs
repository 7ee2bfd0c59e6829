//! The names an event can have: what `evt.type` is compared with.
//!
//! Promises: a name that is not in the table is refused when a rule is loaded, so a misspelt
//! `evt.type` never becomes a rule that stays silent. An [`EventKind`] is a small number, so that
//! rules can be kept in tables by it.
//!
//! Leaves out: what each event carries; that is the sensor's business.

use std::fmt;

/// Every name `evt.type` can have, sorted: system calls, and the events that are not system calls. `dns`
/// is Plimsoll's own (`docs/guide/rules-language.md`), all others are Falco's.
const NAMES: &str = "\
    _llseek _newselect _sysctl accept accept4 access acct add_key adjtimex alarm arch_prctl
    asyncevent bdflush bind bpf brk cachestat capget capset chdir chmod chown chroot clock_adjtime
    clock_getres clock_gettime clock_nanosleep clock_settime clone clone3 close close_range connect
    container copy_file_range cpu_hotplug creat create_module delete_module dns drop dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fallocate fanotify_init fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fcntl64 fdatasync fgetxattr file_getattr file_setattr finit_module flistxattr flock fork
    fremovexattr fsconfig fsetxattr fsmount fsopen fspick fstat fstat64 fstatat64 fstatfs fstatfs64
    fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_kernel_syms
    get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getitimer getpeername getpgid getpgrp
    getpid getpmsg getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    getxattrat groupadded groupdeleted idle infra init_module inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup
    io_submit io_uring_enter io_uring_register io_uring_setup ioctl ioperm iopl ioprio_get
    ioprio_set ipc k8s kcmp kexec_file_load kexec_load keyctl kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount
    listns listxattr listxattrat llistxattr llseek lookup_dcookie lremovexattr lseek lsetxattr
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack
    mbind membarrier memfd_create memfd_secret mesos migrate_pages mincore mkdir mkdirat mknod
    mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mount mount_setattr move_mount move_pages
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal
    msgctl msgget msgrcv msgsnd msync multiplexer munlock munlockall munmap na_1 name
    name_to_handle_at nanosleep newfstatat nfsservctl nice notification oldfstat oldlstat
    oldolduname oldstat olduname open open_by_handle_at open_tree open_tree_attr openat openat2
    page_fault page_fault_kernel page_fault_user pause pciconfig_iobase pciconfig_read
    pciconfig_write perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2
    pivot_root pkey_alloc pkey_free pkey_mprotect pluginevent poll ppoll prctl pread pread64 preadv
    preadv2 prlimit prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev
    procexit procinfo pselect6 ptrace pwrite pwrite64 pwritev pwritev2 query_module quotactl
    quotactl_fd read readahead readdir readlink readlinkat readv reboot recv recvfrom recvmmsg
    recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 request_key
    restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rseq_slice_yield rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo rtas s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write
    s390_runtime_instr s390_sthyi scapevent sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_process_exit
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_switch sched_yield seccomp select semctl semget semop semtimedop send sendfile sendfile64
    sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area
    set_tid_address setdomainname setfsgid setfsuid setgid setgid32 setgroups sethostname setitimer
    setns setpgid setpriority setregid setresgid setresgid32 setresuid setresuid32 setreuid
    setrlimit setsid setsockopt settimeofday setuid setuid32 setxattr setxattrat sgetmask shmat
    shmctl shmdt shmget shutdown sigaction sigaltstack signal signal_deliver signaldeliver signalfd
    signalfd4 sigpending sigprocmask sigreturn sigsuspend socket socketcall socketpair splice
    spu_create spu_run ssetmask stat stat64 statfs statfs64 statmount statx stime subpage_prot
    swapcontext swapoff swapon switch switch_endian symlink symlinkat sync sync_file_range
    sync_file_range2 syncfs sys_debug_setcontext syscall sysfs sysinfo syslog task
    task_file_anon_inode task_file_directory task_file_memfd task_file_pipe task_file_regular
    task_file_socket_inet task_file_socket_inet6 task_file_socket_netlink task_file_socket_unix tee
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd
    timerfd_create timerfd_gettime timerfd_settime times tkill tracer truncate ugetrlimit umask
    umount umount2 uname unlink unlinkat unshare uprobe uretprobe uselib useradded userdeleted
    userfaultfd ustat utime utimensat utimes vfork vhangup vm86 vmsplice wait4 waitid waitpid write
    writev";

/// How many kinds there can be at most; sizes the bit sets below.
pub const MAX_KINDS: usize = 512;

fn names() -> &'static [&'static str] {
    static TABLE: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let mut names: Vec<&str> = NAMES.split_whitespace().collect();
        names.sort_unstable();
        names.dedup();
        assert!(
            names.len() <= MAX_KINDS,
            "more event names than the bit sets hold"
        );
        names
    })
}

/// One kind of event, as `evt.type` names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKind(u16);

impl EventKind {
    /// The kind of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        names().binary_search(&name).ok().map(|i| Self(i as u16))
    }

    /// What `evt.type` prints.
    pub fn name(self) -> &'static str {
        names()[usize::from(self.0)]
    }

    /// A dense number below [`EventKind::count`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// How many kinds there are.
    pub fn count() -> usize {
        names().len()
    }

    /// All kinds, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = EventKind> {
        (0..names().len() as u16).map(EventKind)
    }
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of event kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KindSet([u64; MAX_KINDS / 64]);

impl KindSet {
    /// No kind.
    pub const EMPTY: Self = Self([0; MAX_KINDS / 64]);

    /// Every kind.
    pub fn all() -> Self {
        let mut set = Self::EMPTY;
        EventKind::all().for_each(|k| set.insert(k));
        set
    }

    /// Adds one kind.
    pub fn insert(&mut self, kind: EventKind) {
        self.0[kind.index() / 64] |= 1 << (kind.index() % 64);
    }

    /// Whether the kind is in the set.
    pub fn contains(&self, kind: EventKind) -> bool {
        self.0[kind.index() / 64] >> (kind.index() % 64) & 1 == 1
    }

    /// Kinds in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Kinds in either.
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// How many kinds are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether no kind is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// The kinds, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = EventKind> + '_ {
        EventKind::all().filter(|k| self.contains(*k))
    }
}

impl FromIterator<EventKind> for KindSet {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        let mut set = Self::EMPTY;
        kinds.into_iter().for_each(|k| set.insert(k));
        set
    }
}

impl fmt::Debug for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_keeps_its_name() {
        for name in [
            "execve",
            "openat2",
            "procexit",
            "userfaultfd",
            "pluginevent",
        ] {
            assert_eq!(EventKind::from_name(name).expect(name).name(), name);
        }
    }

    #[test]
    fn a_misspelt_kind_is_refused() {
        assert!(EventKind::from_name("exceve").is_none());
        assert!(EventKind::from_name("").is_none());
    }

    #[test]
    fn sets_meet_and_join() {
        let open = EventKind::from_name("open").unwrap();
        let read = EventKind::from_name("read").unwrap();
        let a: KindSet = [open].into_iter().collect();
        let b: KindSet = [open, read].into_iter().collect();
        assert_eq!(a.intersection(&b), a);
        assert_eq!(a.union(&b).len(), 2);
        assert_eq!(KindSet::all().len(), EventKind::count());
    }
}
