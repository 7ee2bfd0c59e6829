//! What the watched process does, one act a run: `matrix act NAME`. Each kind has an act that must be
//! seen and a near miss that must not. Plain system calls, so that nothing but them happens.

use std::ffi::CString;

/// Where the acts play; made by the test before.
pub(crate) const DIR: &str = "/tmp/plimsoll-matrix";

fn c(s: &str) -> CString {
    CString::new(s).expect("no zero byte")
}

fn at(name: &str) -> CString {
    c(&format!("{DIR}/{name}"))
}

/// One raw system call; what it returns is of no interest, except where said.
fn call(nr: i64, a: [i64; 6]) -> i64 {
    // SAFETY: the acts pass pointers to live memory of the right size, or none; a wrong call fails.
    unsafe { libc::syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]) }
}

/// What the call returned is of no interest.
fn none(_: i64) {}

fn open(name: &CString, flags: i32) -> i64 {
    call(
        libc::SYS_openat,
        [
            i64::from(libc::AT_FDCWD),
            name.as_ptr() as i64,
            i64::from(flags),
            0o644,
            0,
            0,
        ],
    )
}

fn path_call(nr: i64, one: &CString, two: Option<&CString>, number: i64) {
    let cwd = i64::from(libc::AT_FDCWD);
    let one = one.as_ptr() as i64;
    match two.map(|t| t.as_ptr() as i64) {
        Some(two) => call(nr, [cwd, one, cwd, two, number, 0]),
        None => call(nr, [cwd, one, number, 0, 0, 0]),
    };
}

fn socket(family: i32, kind: i32, proto: i32) -> i64 {
    call(
        libc::SYS_socket,
        [family.into(), kind.into(), proto.into(), 0, 0, 0],
    )
}

/// struct sockaddr_in of 127.0.0.1 and a port.
fn loopback(port: u16) -> [u8; 16] {
    let mut a = [0u8; 16];
    a[0] = libc::AF_INET as u8;
    a[2..4].copy_from_slice(&port.to_be_bytes());
    a[4..8].copy_from_slice(&[127, 0, 0, 1]);
    a
}

fn connect(fd: i64, address: &[u8]) -> i64 {
    call(
        libc::SYS_connect,
        [fd, address.as_ptr() as i64, address.len() as i64, 0, 0, 0],
    )
}

fn memory(prot: i32, flags: i32, fd: i64) -> i64 {
    call(libc::SYS_mmap, [0, 4096, prot.into(), flags.into(), fd, 0])
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
/// A question for www.example, type A.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";

fn child_that_waits() -> i32 {
    // SAFETY: the child only sleeps and leaves; nothing of the parent's state is used in it.
    unsafe {
        let parent = libc::getpid();
        let pid = libc::fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // a parent that ended before that sends nothing any more
            if libc::getppid() == parent {
                libc::pause();
            }
            libc::_exit(0);
        }
        pid
    }
}

fn end(pid: i32) {
    // SAFETY: a child of ours.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

fn tcp(port: u16) {
    let l = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    let a = loopback(port);
    call(
        libc::SYS_setsockopt,
        [
            l,
            libc::SOL_SOCKET.into(),
            libc::SO_REUSEADDR.into(),
            [1i32].as_ptr() as i64,
            4,
            0,
        ],
    );
    call(libc::SYS_bind, [l, a.as_ptr() as i64, 16, 0, 0, 0]);
    call(libc::SYS_listen, [l, 4, 0, 0, 0, 0]);
    let c = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    connect(c, &a);
    call(libc::SYS_accept4, [l, 0, 0, 0, 0, 0]);
}

fn piece(bytes: &[u8]) -> [i64; 2] {
    [bytes.as_ptr() as i64, bytes.len() as i64]
}

/// Asks a resolver of its own on loopback and takes the answer: by read() on a connected socket, or by
/// recvmsg() on one that is not.
fn resolve(by_message: bool) {
    let resolver = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let asks = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let (server, client) = (loopback(53), loopback(41053));
    call(
        libc::SYS_bind,
        [resolver, server.as_ptr() as i64, 16, 0, 0, 0],
    );
    call(libc::SYS_bind, [asks, client.as_ptr() as i64, 16, 0, 0, 0]);
    let mut question = QUESTION.to_vec();
    let bytes = piece(&question);
    if by_message {
        let to = server.as_ptr() as i64;
        call(libc::SYS_sendto, [asks, bytes[0], bytes[1], 0, to, 16]);
    } else {
        connect(asks, &server);
        call(libc::SYS_write, [asks, bytes[0], bytes[1], 0, 0, 0]);
    }
    // the same with the bit of an answer
    question[2] |= 0x80;
    let bytes = piece(&question);
    let to = client.as_ptr() as i64;
    call(libc::SYS_sendto, [resolver, bytes[0], bytes[1], 0, to, 16]);
    let mut answer = [0u8; 512];
    let bytes = piece(&answer);
    if by_message {
        let from = [0u8; 16];
        // struct msghdr: name, its length, pieces, how many, control, its length, flags
        let message = [
            from.as_ptr() as i64,
            16,
            [bytes].as_ptr() as i64,
            1,
            0,
            0,
            0,
        ];
        call(
            libc::SYS_recvmsg,
            [asks, message.as_ptr() as i64, 0, 0, 0, 0],
        );
    } else {
        call(
            libc::SYS_read,
            [asks, answer.as_mut_ptr() as i64, 512, 0, 0, 0],
        );
    }
}

/// The file that a memory file is filled with and executed from: this program.
fn run_from_memory(act: &str) {
    let fd = call(
        libc::SYS_memfd_create,
        [c("quiet").as_ptr() as i64, 0, 0, 0, 0, 0],
    );
    let own = std::fs::read("/proc/self/exe").expect("own program");
    let mut done = 0;
    while done < own.len() {
        let n = call(
            libc::SYS_write,
            [
                fd,
                own[done..].as_ptr() as i64,
                (own.len() - done) as i64,
                0,
                0,
                0,
            ],
        );
        assert!(n > 0, "write to a memory file");
        done += n as usize;
    }
    drop(
        std::process::Command::new(format!("/proc/self/fd/{fd}"))
            .args(["act", act])
            .status(),
    );
}

/// One or two names through a ring of one entry (include/uapi/linux/io_uring.h).
fn uring(opcode: u8, name: &CString, second: Option<&CString>) {
    let mut params = [0u32; 30];
    let ring = call(425, [4, params.as_mut_ptr() as i64, 0, 0, 0, 0]);
    if ring < 0 {
        eprintln!("no io_uring here");
        return;
    }
    let map = |len: usize, offset: i64| -> *mut u8 {
        call(
            libc::SYS_mmap,
            [
                0,
                len as i64,
                RW.into(),
                (libc::MAP_SHARED | libc::MAP_POPULATE).into(),
                ring,
                offset,
            ],
        ) as *mut u8
    };
    // sq_off: head, tail, mask, entries, flags, dropped, array start at word 10
    let (tail, array) = (params[11] as usize, params[16] as usize);
    let sq = map(array + 64, 0);
    let sqes = map(64 * params[0] as usize, 0x1000_0000);
    // SAFETY: both mappings were made with these lengths; offsets come from the kernel.
    unsafe {
        let sqe = sqes;
        std::ptr::write_bytes(sqe, 0, 64);
        *sqe = opcode;
        sqe.add(4).cast::<i32>().write(libc::AT_FDCWD);
        sqe.add(16).cast::<u64>().write(name.as_ptr() as u64);
        if let Some(second) = second {
            sqe.add(8).cast::<u64>().write(second.as_ptr() as u64);
            sqe.add(24).cast::<i32>().write(libc::AT_FDCWD);
        }
        sq.add(array).cast::<u32>().write(0);
        sq.add(tail).cast::<u32>().write(1);
    }
    call(426, [ring, 1, 1, 1, 0, 0]);
}

/// A call through the 32-bit table; its memory argument is copied to below 4 GiB. `first`: what goes
/// before that argument, for a call that has one.
#[cfg(target_arch = "x86_64")]
fn compat(nr: i32, first: Option<i32>, memory: &[u8]) {
    let low = call(
        libc::SYS_mmap,
        [0, 4096, RW.into(), (ANON | libc::MAP_32BIT).into(), -1, 0],
    );
    let (b, c) = match first {
        Some(n) => (i64::from(n), low),
        None => (low, 0),
    };
    // SAFETY: the page was just mapped; int 0x80 takes its arguments in ebx, ecx, edx and clobbers eax.
    unsafe {
        std::ptr::copy_nonoverlapping(memory.as_ptr(), low as *mut u8, memory.len());
        std::arch::asm!("push rbx", "mov ebx, {b:e}", "int 0x80", "pop rbx", b = in(reg) b,
            inout("eax") nr => _, in("ecx") c as i32, in("edx") 0, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
}

#[cfg(target_arch = "x86_64")]
fn compat_open(name: &CString) {
    compat(5, None, name.as_bytes_with_nul());
}

#[cfg(not(target_arch = "x86_64"))]
fn compat_open(name: &CString) {
    open(name, 0);
}

/// A packet socket through socketcall, the 32-bit table's one number for all socket calls.
fn compat_socket() {
    let words = [libc::AF_PACKET, libc::SOCK_RAW, 0];
    #[cfg(target_arch = "x86_64")]
    compat(102, Some(1), &words.map(i32::to_ne_bytes).concat());
    #[cfg(not(target_arch = "x86_64"))]
    socket(words[0], words[1], words[2]);
}

/// Does what `name` says; `false`: there is no such act.
pub(crate) fn act(name: &str) -> bool {
    let missing = at("missing");
    match name {
        "marker" => mark(true),
        _ if name.starts_with("prevent-") => return prevented(name),
        "nothing" => {}
        "open" => none(open(&at("file"), libc::O_RDONLY)),
        "open-missing" => none(open(&missing, libc::O_RDONLY)),
        "open-path" => none(open(&at("file"), libc::O_PATH)),
        "open-pipe" => {
            let pipe = at("pipe");
            let cwd = i64::from(libc::AT_FDCWD);
            let mode = i64::from(libc::S_IFIFO | 0o600);
            call(
                libc::SYS_mknodat,
                [cwd, pipe.as_ptr() as i64, mode, 0, 0, 0],
            );
            // nobody reads it
            none(open(&pipe, libc::O_WRONLY | libc::O_NONBLOCK));
        }
        "write" => none(open(&at("file"), libc::O_WRONLY)),
        "create" => none(open(&at("created"), libc::O_CREAT | libc::O_WRONLY)),
        "list" => none(open(&c(DIR), libc::O_DIRECTORY)),
        "open-32" => compat_open(&at("file")),
        "open-uring" => uring(18, &at("file"), None), // IORING_OP_OPENAT
        "link-uring" => uring(39, &at("file"), Some(&at("hard"))), // IORING_OP_LINKAT
        "open-denied" => {
            call(libc::SYS_setresuid, [65534, 65534, 65534, 0, 0, 0]);
            open(&at("secret"), libc::O_RDONLY);
        }
        "unlink" => path_call(libc::SYS_unlinkat, &at("file2"), None, 0),
        "unlink-missing" => path_call(libc::SYS_unlinkat, &missing, None, 0),
        "rmdir" => path_call(libc::SYS_unlinkat, &at("dir"), None, 0x200),
        "rmdir-missing" => path_call(libc::SYS_unlinkat, &missing, None, 0x200),
        "mkdir" => path_call(libc::SYS_mkdirat, &at("made"), None, 0o755),
        "mkdir-missing" => path_call(libc::SYS_mkdirat, &at("missing/made"), None, 0o755),
        "rename" => path_call(libc::SYS_renameat2, &at("file3"), Some(&at("renamed")), 0),
        "rename-missing" => path_call(libc::SYS_renameat2, &missing, Some(&at("renamed")), 0),
        "link" => path_call(libc::SYS_linkat, &at("file"), Some(&at("hard")), 0),
        "link-missing" => path_call(libc::SYS_linkat, &missing, Some(&at("hard")), 0),
        "symlink" => {
            call(
                libc::SYS_symlinkat,
                [
                    at("file").as_ptr() as i64,
                    i64::from(libc::AT_FDCWD),
                    at("soft").as_ptr() as i64,
                    0,
                    0,
                    0,
                ],
            );
        }
        "symlink-missing" => {
            call(
                libc::SYS_symlinkat,
                [
                    at("file").as_ptr() as i64,
                    i64::from(libc::AT_FDCWD),
                    at("missing/soft").as_ptr() as i64,
                    0,
                    0,
                    0,
                ],
            );
        }
        "chmod" => path_call(libc::SYS_fchmodat, &at("file"), None, 0o755),
        "chmod-missing" => path_call(libc::SYS_fchmodat, &missing, None, 0o755),
        "chown" => {
            call(
                libc::SYS_fchownat,
                [
                    libc::AT_FDCWD.into(),
                    at("file").as_ptr() as i64,
                    1,
                    1,
                    0,
                    0,
                ],
            );
        }
        "chown-missing" => {
            call(
                libc::SYS_fchownat,
                [libc::AT_FDCWD.into(), missing.as_ptr() as i64, 1, 1, 0, 0],
            );
        }
        "library" => none(memory(
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            open(&at("file"), 0),
        )),
        "library-read" => none(memory(
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            open(&at("file"), 0),
        )),
        "anonymous" => none(memory(RW | libc::PROT_EXEC, ANON, -1)),
        "anonymous-data" => none(memory(RW, ANON, -1)),
        "mprotect" => {
            call(
                libc::SYS_mprotect,
                [
                    memory(RW, ANON, -1),
                    4096,
                    (libc::PROT_READ | libc::PROT_EXEC).into(),
                    0,
                    0,
                    0,
                ],
            );
        }
        "mprotect-data" => {
            call(
                libc::SYS_mprotect,
                [memory(RW, ANON, -1), 4096, libc::PROT_READ.into(), 0, 0, 0],
            );
        }
        "tcp" => tcp(41017),
        "unix" => {
            let mut a = vec![libc::AF_UNIX as u8, 0];
            a.extend_from_slice(b"/run/docker.sock\0");
            connect(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), &a);
        }
        "socket-only" => none(socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
        "udp" | "udp-connected" | "dns" => {
            let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
            let a = loopback(if name == "dns" { 53 } else { 9 });
            if name == "udp" {
                call(
                    libc::SYS_sendto,
                    [fd, b"x".as_ptr() as i64, 1, 0, a.as_ptr() as i64, 16],
                );
            } else {
                connect(fd, &a);
                if name == "dns" {
                    call(
                        libc::SYS_sendto,
                        [fd, QUESTION.as_ptr() as i64, QUESTION.len() as i64, 0, 0, 0],
                    );
                }
            }
        }
        "bind" => {
            let a = loopback(41019);
            call(
                libc::SYS_bind,
                [
                    socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
                    a.as_ptr() as i64,
                    16,
                    0,
                    0,
                    0,
                ],
            );
        }
        "dns-tcp" => {
            tcp(53);
            let c = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            connect(c, &loopback(53));
            let mut message = (QUESTION.len() as u16).to_be_bytes().to_vec();
            message.extend_from_slice(QUESTION);
            call(
                libc::SYS_write,
                [c, message.as_ptr() as i64, message.len() as i64, 0, 0, 0],
            );
        }
        "dns-tcp-pieces" => {
            tcp(53);
            let c = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            connect(c, &loopback(53));
            let len = (QUESTION.len() as u16).to_be_bytes();
            let pieces = [piece(&len), piece(QUESTION)];
            call(libc::SYS_writev, [c, pieces.as_ptr() as i64, 2, 0, 0, 0]);
        }
        "dns-answer" => resolve(false),
        "dns-answer-message" => resolve(true),
        "raw-32" => compat_socket(),
        "ping" => none(socket(libc::AF_INET, libc::SOCK_DGRAM, 1)),
        "persona" => none(call(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0])),
        "persona-ask" => none(call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0])),
        "segment" | "segment-data" => {
            let id = call(libc::SYS_shmget, [0, 4096, 0o1700, 0, 0, 0]);
            let flags = if name == "segment" { 0o100000 } else { 0 }; // SHM_EXEC
            call(libc::SYS_shmat, [id, 0, flags, 0, 0, 0]);
            call(libc::SYS_shmctl, [id, libc::IPC_RMID.into(), 0, 0, 0, 0]);
        }
        "raw" => none(socket(libc::AF_INET, libc::SOCK_RAW, 1)),
        "dup" => {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            call(libc::SYS_dup3, [fd, 0, 0, 0, 0, 0]);
        }
        "dup-high" => {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            call(libc::SYS_dup3, [fd, 77, 0, 0, 0, 0]);
            call(libc::SYS_fcntl, [0, libc::F_GETFL.into(), 0, 0, 0, 0]);
        }
        "dup-fcntl" => {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            call(libc::SYS_close, [0, 0, 0, 0, 0, 0]);
            call(libc::SYS_fcntl, [fd, libc::F_DUPFD.into(), 0, 0, 0, 0]);
        }
        "unshare" => none(call(
            libc::SYS_unshare,
            [libc::CLONE_NEWUTS.into(), 0, 0, 0, 0, 0],
        )),
        "unshare-files" => none(call(
            libc::SYS_unshare,
            [libc::CLONE_FILES.into(), 0, 0, 0, 0, 0],
        )),
        "mount" => {
            let none = c("none");
            call(
                libc::SYS_mount,
                [
                    none.as_ptr() as i64,
                    missing.as_ptr() as i64,
                    none.as_ptr() as i64,
                    0,
                    0,
                    0,
                ],
            );
        }
        "ptrace" | "ptrace-peek" | "kill" | "kill-queued" | "kill-ask" => {
            let pid = child_that_waits();
            let p = i64::from(pid);
            match name {
                "ptrace" => none(call(libc::SYS_ptrace, [16, p, 0, 0, 0, 0])),
                "ptrace-peek" => none(call(libc::SYS_ptrace, [1, p, 0, 0, 0, 0])),
                "kill-queued" => {
                    // siginfo_t: number, errno, code (SI_QUEUE)
                    let mut info = [0i32; 32];
                    (info[0], info[2]) = (libc::SIGUSR1, -1);
                    let info = info.as_ptr() as i64;
                    none(call(
                        libc::SYS_rt_sigqueueinfo,
                        [p, libc::SIGUSR1.into(), info, 0, 0, 0],
                    ));
                }
                "kill" => none(call(libc::SYS_kill, [p, libc::SIGUSR1.into(), 0, 0, 0, 0])),
                _ => none(call(libc::SYS_kill, [p, 0, 0, 0, 0, 0])),
            }
            if name == "kill-ask" {
                // ends by itself when its parent is gone: a signal would be what must not be seen
                // SAFETY: asks the kernel about a child of ours.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
                std::process::exit(0);
            }
            end(pid);
        }
        "module" => none(call(
            libc::SYS_finit_module,
            [-1, c("x").as_ptr() as i64, 0, 0, 0, 0],
        )),
        "bpf" => none(call(libc::SYS_bpf, [5, 0, 0, 0, 0, 0])),
        "setuid" => none(call(libc::SYS_setresuid, [1234, 1234, 1234, 0, 0, 0])),
        "setuid-same" => none(call(libc::SYS_setresuid, [-1, -1, -1, 0, 0, 0])),
        "memfd" => none(call(
            libc::SYS_memfd_create,
            [c("secret").as_ptr() as i64, 0, 0, 0, 0, 0],
        )),
        "keyctl" => none(call(libc::SYS_keyctl, [0, 0, 0, 0, 0, 0])),
        "exec" => drop(
            std::process::Command::new("/proc/self/exe")
                .args(["act", "nothing"])
                .status(),
        ),
        "exec-memory" => run_from_memory("nothing"),
        "cost-open" => {
            let name = at("file");
            let mut buf = [0u8; 64];
            println!(
                "{}",
                per_op(&mut || {
                    let fd = open(&name, libc::O_RDONLY);
                    call(libc::SYS_read, [fd, buf.as_mut_ptr() as i64, 64, 0, 0, 0]);
                    call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
                })
            );
        }
        "nested" => nested(),
        "cost-exec" => cost_exec(),
        "cost-nothing" => {}
        "cost-fork-exec" => println!("{}", fork_exec()),
        "cost-getppid" => println!(
            "{}",
            per_op(&mut || {
                call(libc::SYS_getppid, [0; 6]);
            })
        ),
        _ => return false,
    }
    true
}

/// Nanoseconds that a fork and an exec of this program take, which loads its libraries and ends.
fn fork_exec() -> f64 {
    const N: u32 = 100;
    let own = std::env::current_exe().expect("own path");
    let run = || {
        let ended = std::process::Command::new(&own)
            .args(["act", "cost-nothing"])
            .status();
        assert!(ended.expect("it starts").success());
    };
    for _ in 0..30 {
        run();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    (0..N / 4).for_each(|_| run());
    let start = std::time::Instant::now();
    (0..N).for_each(|_| run());
    start.elapsed().as_nanos() as f64 / f64::from(N)
}

/// Nanoseconds an operation, after a warm-up. It goes on for more than an epoch and more than a look of the
/// reader at what is loaded (1 s), so that each has its share in it.
fn per_op(op: &mut dyn FnMut()) -> f64 {
    const N: u32 = 5000;
    const LONG: std::time::Duration = std::time::Duration::from_millis(2200);
    // what is known counts as known for good after a few epochs of the recorder (1.07 s)
    for _ in 0..50 {
        (0..10).for_each(|_| op());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    (0..500).for_each(|_| op());
    let (start, mut done) = (std::time::Instant::now(), 0);
    while start.elapsed() < LONG {
        (0..N).for_each(|_| op());
        done += N;
    }
    start.elapsed().as_nanos() as f64 / f64::from(done)
}

/// Names the cgroup that a program puts itself into.
pub(crate) const CGROUP: &str = "MATRIX_CGROUP";

/// Starts a container as a runtime does that only changes the root.
fn nested() {
    use std::os::unix::process::CommandExt as _;
    let cgroup = std::env::var(CGROUP).expect("the cgroup");
    let procs = format!("{cgroup}/cgroup.procs");
    std::fs::write(procs, std::process::id().to_string()).expect("join");
    std::os::unix::fs::chroot(format!("{DIR}/root")).expect("chroot");
    std::env::set_current_dir("/").expect("its root");
    let inside = "/bin/other true; :";
    let failed = std::process::Command::new("/bin/sh")
        .args(["-c", inside])
        .exec();
    panic!("the container's program: {failed}");
}

/// A port that no set knows, of these acts alone.
const STRANGE_PORT: u16 = 41019;
/// The loopback port that the sets of the acts know.
pub(crate) const KNOWN_PORT: u16 = 41018;

/// Nanoseconds that a fork and exec of this program take, the median of many, left in a file.
fn cost_exec() {
    let own = std::env::current_exe().expect("own path");
    let mut all: Vec<u64> = Vec::new();
    for _ in 0..120 {
        let start = std::time::Instant::now();
        drop(
            std::process::Command::new(&own)
                .args(["act", "nothing"])
                .status(),
        );
        all.push(start.elapsed().as_nanos() as u64);
    }
    all.sort_unstable();
    drop(std::fs::write(
        format!("{DIR}/marker"),
        all[all.len() / 2].to_string(),
    ));
}

/// Leaves the mark of an act that went through.
fn mark(went_through: bool) {
    if went_through {
        drop(std::fs::write(format!("{DIR}/marker"), "x"));
    }
}

fn start(program: &str) {
    drop(
        std::process::Command::new(program)
            .args(["act", "marker"])
            .status(),
    );
}

/// Acts that a set may be against: the mark is left by what went through.
fn prevented(name: &str) -> bool {
    let exec = libc::PROT_READ | libc::PROT_EXEC;
    let map = |file: &str, prot: i32| {
        let fd = open(&at(file), libc::O_RDONLY);
        memory(prot, libc::MAP_PRIVATE, fd)
    };
    match name {
        "prevent-exec" => start(&format!("{DIR}/other")),
        "prevent-exec-linked" => {
            drop(std::fs::hard_link(
                format!("{DIR}/other"),
                format!("{DIR}/linked"),
            ));
            start(&format!("{DIR}/linked"));
        }
        "prevent-exec-memory" => run_from_memory("marker"),
        "prevent-exec-known" => start(&format!("{DIR}/known")),
        "prevent-map" => mark(map("file", exec) > 0),
        "prevent-map-data" => mark(map("file", libc::PROT_READ) > 0),
        "prevent-map-known" => mark(map("file2", exec) > 0),
        "prevent-mprotect" => {
            let page = map("file", libc::PROT_READ);
            let prot = i64::from(exec);
            mark(call(libc::SYS_mprotect, [page, 4096, prot, 0, 0, 0]) == 0);
        }
        "prevent-tcp" => mark(dial(libc::AF_INET, libc::SOCK_STREAM, STRANGE_PORT)),
        "prevent-tcp-mapped" => mark(dial(libc::AF_INET6, libc::SOCK_STREAM, STRANGE_PORT)),
        "prevent-tcp-known" => mark(dial(libc::AF_INET, libc::SOCK_STREAM, KNOWN_PORT)),
        "prevent-udp-connected" => mark(dial(libc::AF_INET, libc::SOCK_DGRAM, STRANGE_PORT)),
        "prevent-udp" => mark(throw(STRANGE_PORT)),
        "prevent-udp-known" => mark(throw(KNOWN_PORT)),
        _ => return false,
    }
    true
}

/// Connects to a listener of its own on loopback, over IPv6 by a mapped address.
fn dial(family: i32, kind: i32, port: u16) -> bool {
    let l = socket(libc::AF_INET, kind, 0);
    let a = loopback(port);
    let reuse = [1i32].as_ptr() as i64;
    let level = i64::from(libc::SOL_SOCKET);
    call(
        libc::SYS_setsockopt,
        [l, level, libc::SO_REUSEADDR.into(), reuse, 4, 0],
    );
    call(libc::SYS_bind, [l, a.as_ptr() as i64, 16, 0, 0, 0]);
    call(libc::SYS_listen, [l, 4, 0, 0, 0, 0]);
    let c = socket(family, kind, 0);
    if family == libc::AF_INET {
        return connect(c, &a) == 0;
    }
    let mut b = [0u8; 28];
    b[0] = libc::AF_INET6 as u8;
    b[2..4].copy_from_slice(&port.to_be_bytes());
    b[18..20].fill(0xff);
    b[20..24].copy_from_slice(&[127, 0, 0, 1]);
    connect(c, &b) == 0
}

/// Sends a datagram from an unconnected socket.
fn throw(port: u16) -> bool {
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let a = loopback(port);
    let message = b"x".as_ptr() as i64;
    call(libc::SYS_sendto, [s, message, 1, 0, a.as_ptr() as i64, 16]) == 1
}
