//! The table of evasions: technique, how it is done here, and the exact answer it must give.
//!
//! `docs/evasion.md` is written from it, and the tests beside it hold it against what the agent
//! recorded. A limit is an answer too: it must be said by `plimsoll doctor`, and must be true (what is
//! said not to be seen must really not be seen, else it is time to take the limit out).

use Answer::*;
use How::*;

/// One way of not being seen.
pub(crate) struct Scenario {
    /// Unique, and part of the container's name.
    pub(crate) name: &'static str,
    /// What is tried, in words.
    pub(crate) technique: &'static str,
    pub(crate) how: How,
    /// All of these must hold.
    pub(crate) answers: &'static [Answer],
    /// By what it is seen: with tracepoints only, and with BPF-LSM or fentry ("" is the same).
    pub(crate) by: [&'static str; 2],
}

/// How it is done.
pub(crate) enum How {
    /// `acts NAME` in a container of its own (`tests/host/acts`).
    Act(&'static str),
    /// A command line of the container's shell.
    Shell(&'static str),
    /// A test of its own, by name.
    Test(&'static str),
}

/// What must have come of it.
pub(crate) enum Answer {
    /// At least one event of this kind with these fields.
    Seen(&'static str, &'static [Field]),
    /// Exactly so many.
    Times(u64, &'static str, &'static [Field]),
    /// No event of this kind with these fields: a limit, which doctor states in the row of this name
    /// with these words.
    Limit(&'static str, &'static [Field], [&'static str; 2]),
    /// Nothing that could be shown here, but a limit all the same (row, words).
    Stated([&'static str; 2]),
    /// An alert about the container that contains this.
    Alerted(&'static str),
    /// The program with this word among its arguments has the process that made it as its first
    /// ancestor, whoever its parent is.
    MadeBy(&'static str),
    /// What a test of its own checks, in words.
    Told(&'static str),
}

/// A field of an event in JSON, by pointer, and what it must be.
pub(crate) struct Field {
    pub(crate) at: &'static str,
    pub(crate) want: Want,
}

pub(crate) enum Want {
    Is(&'static str),
    Ends(&'static str),
    Has(&'static str),
}

const fn is(at: &'static str, want: &'static str) -> Field {
    Field {
        at,
        want: Want::Is(want),
    }
}

const fn ends(at: &'static str, want: &'static str) -> Field {
    Field {
        at,
        want: Want::Ends(want),
    }
}

const fn has(at: &'static str, want: &'static str) -> Field {
    Field {
        at,
        want: Want::Has(want),
    }
}

const fn row(
    name: &'static str,
    technique: &'static str,
    how: How,
    by: [&'static str; 2],
    answers: &'static [Answer],
) -> Scenario {
    Scenario {
        name,
        technique,
        how,
        answers,
        by,
    }
}

const READS_SECRET: Answer = Seen(
    "file",
    &[
        is("/detail/operation", "read"),
        is("/detail/path", "/etc/shadow"),
    ],
);
const PATH: &str = "/detail/path";
const OP: &str = "/detail/operation";
const ORIGIN: &str = "/detail/origin";
const EXE: &str = "/detail/exe";
const PEER: &str = "/detail/peer";
const NAME: &str = "/detail/name";
const TARGET: &str = "/detail/target";

/// The mechanisms by name, so that the same thing is called the same everywhere.
mod by {
    pub(super) const EXEC: [&str; 2] = ["`sched_process_exec`: file object, new memory", ""];
    pub(super) const OPEN: [&str; 2] = [
        "exit of the call: file behind the descriptor",
        "result of `do_filp_open`",
    ];
    pub(super) const URING: [&str; 2] = [
        "`io_uring_submit_req`: the kernel's copy of the name",
        "result of `do_filp_open`, `path_*`",
    ];
    pub(super) const PATHS: [&str; 2] = ["exit of the call: argument", "`path_*`: resolved name"];
    pub(super) const MAP: [&str; 2] = ["exit of `mmap`", "`mmap_file`"];
    pub(super) const PROTECT: [&str; 2] = ["exit of `mprotect`", "`file_mprotect`"];
    pub(super) const TCP: [&str; 2] = ["`inet_sock_set_state`", ""];
    pub(super) const SEND: [&str; 2] = ["`cgroup/sendmsg`: the kernel's copy of the address", ""];
    pub(super) const CALL: [&str; 2] = ["exit of the call", ""];
    pub(super) const DNS: [&str; 2] =
        ["exit of send and receive", "`inet_sendmsg`, `inet_recvmsg`"];
    pub(super) const UNIX: [&str; 2] =
        ["exit of `connect`: the peer's own name", "`socket_connect`"];
    pub(super) const FORK: [&str; 2] = ["`sched_process_fork`", ""];
    pub(super) const CGROUP: [&str; 2] = ["`cgroup_attach_task`", ""];
}

pub(crate) const TABLE: &[Scenario] = &[
    // ---- files
    row(
        "uring-open",
        "a file opened through io_uring",
        Act("uring-open"),
        by::URING,
        &[READS_SECRET, Seen("rare", &[is(NAME, "io_uring_setup")])],
    ),
    row(
        "uring-sqpoll",
        "the same, submitted by the kernel's polling thread without any call",
        Act("uring-sqpoll"),
        by::URING,
        &[READS_SECRET],
    ),
    row(
        "uring-openat2",
        "the same with openat2",
        Act("uring-openat2"),
        by::URING,
        &[READS_SECRET],
    ),
    row(
        "uring-unlink",
        "a file removed through io_uring",
        Act("uring-unlink"),
        by::URING,
        &[Seen("file", &[is(OP, "unlink"), is(PATH, "/tmp/by-ring")])],
    ),
    row(
        "uring-link",
        "a hard link made through io_uring",
        Act("uring-link"),
        by::URING,
        &[Seen(
            "file",
            &[
                is(OP, "link"),
                is(PATH, "/etc/shadow"),
                is(TARGET, "/tmp/ring-link"),
            ],
        )],
    ),
    row(
        "uring-symlinked",
        "a file opened through io_uring by a symbolic link",
        Act("uring-symlinked"),
        by::URING,
        &[
            Seen(
                "file",
                &[
                    is(OP, "symlink"),
                    is(PATH, "/etc/shadow"),
                    is(TARGET, "/tmp/harmless"),
                ],
            ),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/harmless")]),
            Stated(["file open", "before links are followed"]),
        ],
    ),
    row(
        "hard-link",
        "a hard link to the file, read by its new name",
        Act("hard-link"),
        by::PATHS,
        &[
            Seen(
                "file",
                &[
                    is(OP, "link"),
                    is(PATH, "/etc/shadow"),
                    is(TARGET, "/tmp/innocent"),
                ],
            ),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/innocent")]),
        ],
    ),
    row(
        "symbolic-link",
        "a symbolic link to the file",
        Act("symbolic-link"),
        by::OPEN,
        &[READS_SECRET, Alerted("Password hashes read")],
    ),
    row(
        "bind-mount",
        "a bind mount of the file onto a harmless name",
        Act("bind-mount"),
        by::CALL,
        &[
            Seen(
                "mount",
                &[
                    is("/detail/source", "/etc/shadow"),
                    is(TARGET, "/tmp/innocent"),
                ],
            ),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/innocent")]),
        ],
    ),
    row(
        "faked-path",
        "`unshare -Um` and a bind mount, so that another file has a known name",
        Act("faked-path"),
        by::OPEN,
        &[
            Seen("namespace", &[is("/detail/call", "unshare")]),
            Seen("mount", &[is(TARGET, "/etc/hostname-of-mine")]),
            Seen(
                "file",
                &[
                    is(OP, "read"),
                    is(PATH, "/etc/hostname-of-mine"),
                    is(ORIGIN, "foreign"),
                ],
            ),
        ],
    ),
    row(
        "copy-up",
        "a program of the image changed in place (overlayfs copies it up)",
        Act("copy-up"),
        by::EXEC,
        &[
            Seen("file", &[is(OP, "write"), is(PATH, "/bin/victim")]),
            Seen("exec", &[is(EXE, "/bin/victim"), is(ORIGIN, "upper")]),
        ],
    ),
    row(
        "inode-reuse",
        "a new file with the inode of one that was known and removed",
        Act("inode-reuse"),
        by::OPEN,
        &[
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/first")]),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/reused")]),
        ],
    ),
    row(
        "race-open",
        "another thread changes the name during open",
        Act("race-open"),
        by::OPEN,
        &[READS_SECRET],
    ),
    row(
        "argument-unlink",
        "another thread changes the name during unlink, rename, link, chmod …",
        Act("argument-unlink"),
        by::PATHS,
        &[
            Seen(
                "file",
                &[
                    is(OP, "unlink"),
                    is(PATH, "/tmp/by-argument"),
                    is("/trust", "argument"),
                ],
            ),
            Stated([
                "file create, rename, link, unlink, chmod, chown, mkdir, rmdir",
                "another thread can change them meanwhile",
            ]),
        ],
    ),
    row(
        "openat2",
        "openat2 in place of open",
        Act("openat2"),
        by::OPEN,
        &[READS_SECRET],
    ),
    row(
        "by-handle",
        "a file opened by its handle, without any name",
        Act("by-handle"),
        by::OPEN,
        &[
            Seen("rare", &[is(NAME, "open_by_handle_at")]),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/plain/by-handle")]),
        ],
    ),
    row(
        "sendfile",
        "a file sent with sendfile and never read",
        Act("sendfile"),
        by::OPEN,
        &[READS_SECRET],
    ),
    row(
        "splice",
        "a file moved by splice and never read",
        Act("splice"),
        by::OPEN,
        &[READS_SECRET],
    ),
    row(
        "passed-descriptor",
        "one process opens, another one gets the descriptor (SCM_RIGHTS) and reads",
        Act("passed-descriptor"),
        by::OPEN,
        &[
            Times(1, "file", &[is(OP, "read"), is(PATH, "/etc/shadow")]),
            Stated(["file open", "handed over by another process"]),
        ],
    ),
    row(
        "stolen-descriptor",
        "a descriptor taken out of another process (pidfd_getfd)",
        Act("stolen-descriptor"),
        by::CALL,
        &[Seen("rare", &[is(NAME, "pidfd_getfd")])],
    ),
    row(
        "chroot",
        "chroot, so that a harmless file has a known name",
        Act("chroot"),
        by::OPEN,
        &[
            Seen("mount", &[is("/detail/call", "chroot")]),
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/jail/etc/shadow")]),
        ],
    ),
    row(
        "pivot-root",
        "pivot_root in a mount namespace of one's own",
        Act("pivot-root"),
        by::OPEN,
        &[
            Seen("mount", &[is("/detail/call", "pivot_root")]),
            Seen(
                "file",
                &[is(OP, "read"), is(PATH, "/marker"), is(ORIGIN, "foreign")],
            ),
        ],
    ),
    // ---- code
    row(
        "memfd-exec",
        "a program run from memory (memfd, /proc/self/fd)",
        Act("memfd-exec"),
        by::EXEC,
        &[
            Seen("memfd", &[is("/detail/name", "fileless")]),
            Seen("exec", &[has(EXE, "memfd:fileless"), is(ORIGIN, "memfd")]),
            Alerted("memfd:fileless"),
        ],
    ),
    row(
        "memfd-execveat",
        "the same with execveat and AT_EMPTY_PATH",
        Act("memfd-execveat"),
        by::EXEC,
        &[
            Seen("exec", &[has(EXE, "memfd:fileless"), is(ORIGIN, "memfd")]),
            Alerted("memfd:fileless"),
        ],
    ),
    row(
        "exec-deleted",
        "a program run by its descriptor after its file was removed",
        Act("exec-deleted"),
        by::EXEC,
        &[Seen(
            "exec",
            &[is(EXE, "/tmp/gone"), is("/detail/deleted", "true")],
        )],
    ),
    row(
        "exec-descriptor",
        "a program run by an O_PATH descriptor (fexecve)",
        Act("exec-descriptor"),
        by::EXEC,
        &[Seen("exec", &[is(EXE, "/bin/victim")])],
    ),
    row(
        "loader",
        "a program run as an argument of the dynamic loader",
        Shell(
            "cp /bin/dynamic /tmp/payload; chmod 644 /tmp/payload; /tmp/ld.so /tmp/payload nothing",
        ),
        ["`sched_process_exec`; exit of `mmap`", "`mmap_file`"],
        &[
            Seen("exec", &[has("/detail/argv", "/tmp/payload")]),
            Seen("library", &[is(PATH, "/tmp/payload"), is(ORIGIN, "upper")]),
        ],
    ),
    row(
        "interpreter",
        "a script run as an argument of its interpreter, without the right to execute it",
        Shell("echo 'cat /etc/shadow' > /tmp/notes.txt; sh /tmp/notes.txt; true"),
        by::EXEC,
        &[
            Seen("exec", &[is("/detail/script", "/tmp/notes.txt")]),
            Alerted("Password hashes read"),
        ],
    ),
    row(
        "script-on-stdin",
        "a script given to its interpreter on standard input",
        Shell("echo 'cat /etc/shadow' > /tmp/notes.txt; sh < /tmp/notes.txt; true"),
        by::EXEC,
        &[
            Seen("file", &[is(OP, "read"), is(PATH, "/tmp/notes.txt")]),
            Alerted("Password hashes read"),
            Stated(["exec", "on standard input"]),
        ],
    ),
    row(
        "shebang",
        "a script that names its interpreter",
        Shell(
            "printf '#!/bin/sh\\ncat /etc/shadow\\n' > /tmp/run; chmod 755 /tmp/run; /tmp/run; true",
        ),
        by::EXEC,
        &[
            Seen(
                "exec",
                &[is(EXE, "/bin/busybox"), is("/detail/script", "/tmp/run")],
            ),
            READS_SECRET,
        ],
    ),
    row(
        "deep",
        "a program below ninety directories",
        Shell(
            "d=/tmp; i=0; while [ $i -lt 90 ]; do d=$d/d; i=$((i+1)); done; mkdir -p $d; cp /bin/bare $d/payload; $d/payload",
        ),
        by::EXEC,
        &[
            Seen("exec", &[ends(EXE, "/d/d/payload")]),
            Alerted("/d/d/payload"),
            Stated(["exec", "more than 64 directories"]),
        ],
    ),
    row(
        "copied",
        "a program copied under another name",
        Shell("cp /bin/bare /tmp/[kworker]; '/tmp/[kworker]'"),
        by::EXEC,
        &[
            Seen("exec", &[is(EXE, "/tmp/[kworker]"), is(ORIGIN, "upper")]),
            Alerted("/tmp/[kworker]"),
        ],
    ),
    row(
        "renamed",
        "a program of the image under another name",
        Shell("mv /bin/bare /bin/ls2; /bin/ls2"),
        by::EXEC,
        &[
            Seen(
                "file",
                &[
                    is(OP, "rename"),
                    is(PATH, "/bin/bare"),
                    is(TARGET, "/bin/ls2"),
                ],
            ),
            Seen("exec", &[is(EXE, "/bin/ls2"), is(ORIGIN, "upper")]),
        ],
    ),
    row(
        "static",
        "a static program without a library (as those of Go), system calls of its own",
        Shell("/bin/bare"),
        by::OPEN,
        &[Seen("exec", &[is(EXE, "/bin/bare")]), READS_SECRET],
    ),
    row(
        "preload",
        "a library put into every program (LD_PRELOAD)",
        Shell("cp /lib/preload.so /tmp/quiet.so; LD_PRELOAD=/tmp/quiet.so /bin/dynamic nothing"),
        by::MAP,
        &[
            Seen("library", &[is(PATH, "/tmp/quiet.so"), is(ORIGIN, "upper")]),
            READS_SECRET,
        ],
    ),
    row(
        "rwx",
        "memory that is writable and executable",
        Act("rwx"),
        by::MAP,
        &[Seen(
            "rare",
            &[is(NAME, "mmap"), is("/detail/args/2", "0x7")],
        )],
    ),
    row(
        "write-then-execute",
        "memory written first and made executable then",
        Act("write-then-execute"),
        by::PROTECT,
        &[Seen("rare", &[is(NAME, "mprotect")])],
    ),
    row(
        "double-map",
        "a file in memory, written by one mapping and executed by another",
        Act("double-map"),
        by::MAP,
        &[
            Seen("memfd", &[is("/detail/name", "double")]),
            Seen("library", &[has(PATH, "memfd:double"), is(ORIGIN, "memfd")]),
        ],
    ),
    row(
        "moved-mapping",
        "an executable mapping moved away (mremap) and made anew",
        Act("moved-mapping"),
        by::PROTECT,
        &[
            Seen("library", &[is(PATH, "/bin/busybox")]),
            Seen("rare", &[is(NAME, "mprotect")]),
        ],
    ),
    row(
        "shared-segment",
        "an executable segment of System V shared memory",
        Act("shared-segment"),
        ["exit of `shmat`", "`mmap_file`"],
        &[Seen("rare", &[is(NAME, "shmat")])],
    ),
    row(
        "read-implies-exec",
        "personality(READ_IMPLIES_EXEC): what is readable is executable",
        Act("read-implies-exec"),
        by::CALL,
        &[Seen(
            "rare",
            &[is(NAME, "personality"), is("/detail/args/0", "0x400000")],
        )],
    ),
    row(
        "proc-mem",
        "memory changed through /proc/self/mem",
        Act("proc-mem"),
        by::OPEN,
        &[Seen(
            "file",
            &[is(OP, "write"), ends(PATH, "/mem"), is(ORIGIN, "pseudo")],
        )],
    ),
    row(
        "trace-poke",
        "another process's memory changed by ptrace",
        Act("trace-poke"),
        by::CALL,
        &[
            Seen("ptrace", &[is("/detail/request", "16")]),
            Seen("ptrace", &[is("/detail/request", "5")]),
        ],
    ),
    row(
        "refused-by-mount",
        "a try at a setting of the host, which is mounted read-only",
        Shell("(echo x > /proc/sys/kernel/core_pattern) 2> /dev/null; true"),
        by::CALL,
        &[Seen(
            "file",
            &[is(OP, "failed"), ends(PATH, "/core_pattern")],
        )],
    ),
    row(
        "trace-me",
        "a program that lets its parent trace it, so that nobody else can",
        Act("trace-me"),
        by::CALL,
        &[Seen("ptrace", &[is("/detail/request", "0")])],
    ),
    row(
        "vm-write",
        "another process's memory changed by process_vm_writev",
        Act("vm-write"),
        by::CALL,
        &[Seen("ptrace", &[is("/detail/request", "4294967295")])],
    ),
    // ---- network
    row(
        "uring-connect",
        "TCP through io_uring",
        Act("uring-connect"),
        by::TCP,
        &[Seen("connect", &[is(PEER, "127.0.0.1:47003")])],
    ),
    row(
        "uring-datagram",
        "UDP through io_uring",
        Act("uring-datagram"),
        by::SEND,
        &[Seen("datagram", &[is(PEER, "127.0.0.1:47004")])],
    ),
    row(
        "uring-unix",
        "the runtime's socket through io_uring",
        Act("uring-unix"),
        [
            "`io_uring_submit_req`: that it connects",
            "`socket_connect`",
        ],
        &[
            Seen(
                "rare",
                &[is(NAME, "io_uring_enter"), is("/detail/args/0", "0x10")],
            ),
            Limit(
                "connect",
                &[has(PEER, "docker.sock")],
                [
                    "UNIX and UDP connect",
                    "through io_uring show only as its use",
                ],
            ),
        ],
    ),
    row(
        "tcp-v6",
        "IPv6",
        Act("tcp-v6"),
        by::TCP,
        &[Seen("connect", &[is(PEER, "[::1]:47001")])],
    ),
    row(
        "tcp-mapped",
        "an IPv4 address written as IPv6 (::ffff:127.0.0.1): told as IPv4",
        Act("tcp-mapped"),
        by::TCP,
        &[Seen("connect", &[is(PEER, "127.0.0.1:47002")])],
    ),
    row(
        "datagram",
        "UDP without a connection",
        Act("datagram"),
        by::SEND,
        &[Seen("datagram", &[is(PEER, "127.0.0.1:47005")])],
    ),
    row(
        "datagrams-at-once",
        "many peers in one call (sendmmsg)",
        Act("datagrams-at-once"),
        by::SEND,
        &[
            Seen("datagram", &[is(PEER, "127.0.0.1:47006")]),
            Seen("datagram", &[is(PEER, "127.0.0.1:47007")]),
        ],
    ),
    row(
        "dns-udp",
        "DNS over UDP",
        Act("dns-udp"),
        by::DNS,
        &[Seen("dns", &[is("/detail/name", "www.hidden.example")])],
    ),
    row(
        "dns-tcp",
        "DNS over TCP",
        Act("dns-tcp"),
        by::DNS,
        &[Seen("dns", &[is("/detail/name", "www.hidden.example")])],
    ),
    row(
        "dns-tcp-pieces",
        "DNS over TCP, length and message as two pieces (writev)",
        Act("dns-tcp-pieces"),
        by::DNS,
        &[Seen("dns", &[is("/detail/name", "www.hidden.example")])],
    ),
    row(
        "dns-odd-port",
        "DNS on another port",
        Act("dns-odd-port"),
        by::SEND,
        &[
            Seen("datagram", &[is(PEER, "127.0.0.1:5353")]),
            Limit(
                "dns",
                &[],
                ["DNS questions and answers", "ports other than 53"],
            ),
        ],
    ),
    row(
        "raw-socket",
        "a raw IP socket",
        Act("raw-socket"),
        by::CALL,
        &[Seen(
            "socket",
            &[is("/detail/family", "2"), is("/detail/type", "3")],
        )],
    ),
    row(
        "packet-socket",
        "a packet socket",
        Act("packet-socket"),
        by::CALL,
        &[Seen(
            "socket",
            &[is("/detail/family", "17"), is("/detail/type", "3")],
        )],
    ),
    row(
        "runtime-socket",
        "the socket of the container runtime, mounted into the container",
        Act("runtime-socket"),
        by::UNIX,
        &[
            Seen("connect", &[ends(PEER, "docker.sock")]),
            Alerted("docker.sock"),
        ],
    ),
    row(
        "runtime-socket-by-link",
        "the same by a symbolic link and a relative name",
        Act("runtime-socket-by-link"),
        by::UNIX,
        &[
            Seen("connect", &[ends(PEER, "docker.sock")]),
            Alerted("docker.sock"),
        ],
    ),
    row(
        "fast-open",
        "TCP without connect (MSG_FASTOPEN)",
        Act("fast-open"),
        by::TCP,
        &[Seen("connect", &[is(PEER, "127.0.0.1:47008")])],
    ),
    row(
        "ping-socket",
        "data in pings, without a raw socket",
        Act("ping-socket"),
        by::CALL,
        &[Seen(
            "socket",
            &[is("/detail/type", "2"), is("/detail/protocol", "1")],
        )],
    ),
    row(
        "vm-socket",
        "a socket to the hypervisor (vsock)",
        Act("vm-socket"),
        by::CALL,
        &[Seen("socket", &[is("/detail/family", "40")])],
    ),
    row(
        "uring-raw-socket",
        "a packet socket made through io_uring",
        Act("uring-raw-socket"),
        ["`io_uring_submit_req`: that it makes a socket", ""],
        &[
            Seen(
                "rare",
                &[is(NAME, "io_uring_enter"), is("/detail/args/0", "0x2d")],
            ),
            Limit(
                "socket",
                &[is("/detail/family", "17")],
                ["bind, socket", "sockets made through io_uring"],
            ),
        ],
    ),
    row(
        "unix-datagram",
        "datagrams to a UNIX socket, without connect",
        Act("unix-datagram"),
        ["nothing", ""],
        &[Limit(
            "connect",
            &[has(PEER, "log.sock")],
            ["UNIX and UDP connect", "UNIX datagrams without a connect"],
        )],
    ),
    // ---- processes
    row(
        "vfork",
        "a child by vfork",
        Act("vfork"),
        by::FORK,
        &[
            Seen("fork", &[]),
            Seen("exec", &[is("/detail/argv", "[\"child\",\"nothing\"]")]),
        ],
    ),
    row(
        "clone3",
        "a child by clone3",
        Act("clone3"),
        by::FORK,
        &[
            Seen("fork", &[]),
            Seen("exec", &[is("/detail/argv", "[\"child\",\"nothing\"]")]),
        ],
    ),
    row(
        "adopted",
        "a child that is given to its grandparent (CLONE_PARENT): lineage names who made it",
        Act("adopted"),
        by::FORK,
        &[
            Times(2, "fork", &[]),
            Seen("exec", &[is("/detail/argv", "[\"child\",\"nothing\"]")]),
            MadeBy("child"),
        ],
    ),
    row(
        "thread-exec",
        "exec by another thread than the first",
        Act("thread-exec"),
        by::EXEC,
        &[
            Times(1, "exec", &[is("/detail/argv", "[\"child\",\"nothing\"]")]),
            Times(1, "exit", &[]),
        ],
    ),
    row(
        "open-maps",
        "the sensor's own maps, for who may use bpf",
        Act("open-maps"),
        by::CALL,
        &[Seen("bpf", &[is("/detail/command", "14")]), Alerted("bpf")],
    ),
    row(
        "short-lives",
        "500 programs, each of which ends at once",
        Act("short-lives"),
        by::EXEC,
        &[
            Times(500, "exec", &[is(EXE, "/bin/bare")]),
            Times(500, "fork", &[is("/comm", "acts")]),
        ],
    ),
    row(
        "lies",
        "comm, arguments and /proc/self/cmdline changed (PR_SET_NAME, PR_SET_MM)",
        Act("lies"),
        by::EXEC,
        &[
            Seen("exec", &[is(EXE, "/bin/acts"), has("/detail/argv", "lies")]),
            Seen(
                "file",
                &[
                    is(PATH, "/etc/shadow"),
                    is("/comm", "nginx"),
                    is("/lineage/0/exe", "/bin/acts"),
                ],
            ),
        ],
    ),
    row(
        "leave-cgroup",
        "a process moves itself into another cgroup: it stays its container's",
        Act("leave-cgroup"),
        by::CGROUP,
        &[Seen("cgroup_attach", &[]), READS_SECRET],
    ),
    row(
        "own-namespaces",
        "`unshare -Um`",
        Act("own-namespaces"),
        by::CALL,
        &[Seen("namespace", &[is("/detail/flags", "0x10020000")])],
    ),
    row(
        "signal-by-descriptor",
        "a signal through a pidfd",
        Act("signal-by-descriptor"),
        by::CALL,
        &[Seen("signal", &[is("/detail/signal", "10")])],
    ),
    row(
        "queued-signal",
        "a queued signal (rt_sigqueueinfo)",
        Act("queued-signal"),
        by::CALL,
        &[Seen("signal", &[is("/detail/signal", "12")])],
    ),
    row(
        "make-device",
        "a device file made (mknod)",
        Act("make-device"),
        by::CALL,
        &[Seen("rare", &[is(NAME, "mknodat")])],
    ),
    // ---- 32-bit calls
    row(
        "compat-open",
        "32-bit calls: open",
        Act("compat-open"),
        by::OPEN,
        &[READS_SECRET],
    ),
    row(
        "compat-exec",
        "32-bit calls: execve",
        Act("compat-exec"),
        by::EXEC,
        &[Seen(
            "exec",
            &[is("/detail/argv", "[\"child\",\"nothing\"]")],
        )],
    ),
    row(
        "compat-raw-socket",
        "32-bit calls: socket through socketcall",
        Act("compat-raw-socket"),
        by::CALL,
        &[Seen("socket", &[is("/detail/family", "17")])],
    ),
    row(
        "compat-unix",
        "32-bit calls: connect to the runtime's socket through socketcall",
        Act("compat-unix"),
        by::UNIX,
        &[Seen("connect", &[ends(PEER, "docker.sock")])],
    ),
    row(
        "compat-map",
        "32-bit calls: executable memory through the old mmap",
        Act("compat-map"),
        by::MAP,
        &[Seen("rare", &[is(NAME, "mmap")])],
    ),
    row(
        "compat-setuid",
        "32-bit calls: setuid with 16-bit ids",
        Act("compat-setuid"),
        by::CALL,
        &[Seen("credentials", &[is("/detail/new_uid", "1234")])],
    ),
    // ---- from outside, and by load
    row(
        "runtime-exec",
        "`docker exec`",
        Test("a_session_of_the_runtime_and_a_process_from_the_host_are_told_apart"),
        by::EXEC,
        &[Told(
            "**exec** with entry `exec_session`, a lineage of its own",
        )],
    ),
    row(
        "nsenter",
        "`nsenter` from the host into namespaces only, no cgroup of the container",
        Test("a_session_of_the_runtime_and_a_process_from_the_host_are_told_apart"),
        by::EXEC,
        &[
            Told("**exec** with entry `host`, inherited by what it starts"),
            Stated(["exec", "before it runs a program there"]),
        ],
    ),
    row(
        "ring-flood",
        "a flood of events that fills the rings, to hide one among them",
        Test("a_flood_hides_nothing_of_a_neighbour_and_nothing_of_its_own_uncounted"),
        [
            "a room, a quota and a lane for each container; counters",
            "",
        ],
        &[Told(
            "a neighbour's act is seen; the flooding container's own is seen or in a gap of that container",
        )],
    ),
    row(
        "dictionary-flood",
        "a flood of new behaviour, to push what is known out of the kernel's memory",
        Test("what_was_pushed_out_of_the_dictionary_is_told_again_and_not_forgotten"),
        ["first level of the dictionary", ""],
        &[Told(
            "what was pushed out is told again; nothing is taken for known that is not",
        )],
    ),
    row(
        "overload",
        "more than the machine can keep up with",
        Test("under_overload_what_was_observed_and_what_was_recorded_as_lost_is_what_was_done"),
        ["counters of each container, stage by stage", ""],
        &[Told("observed + recorded loss = done, to the last act")],
    ),
];
