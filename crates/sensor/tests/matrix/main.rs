//! Every kind on every mechanism of the running kernel: that it fires, and that its near miss stays
//! quiet. Runs here (as root, `PLIMSOLL_HOST_TESTS=1`) and, linked statically, in virtual machines
//! with other kernels (`tests/vm/matrix`). Prints one line a kind; ends with 1 when one failed.
#![allow(unsafe_code, missing_docs)] // the acts are raw system calls

mod acts;
mod pinned;
mod prevent;

use plimsoll_model::event::{FileOp, Origin};
use plimsoll_model::{Event, EventKind, Proto, SockAddr};
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "act") {
        let name = args.get(2).map_or("", String::as_str);
        assert!(acts::act(name), "no act {name}");
        return;
    }
    if args.iter().any(|a| a == "--list") {
        return;
    }
    if args.get(1).is_some_and(|a| a == "adopt") {
        std::process::exit(pinned::adopt(&args[2..]));
    }
    let vm = std::env::var_os("PLIMSOLL_VM").is_some();
    if !vm && std::env::var("PLIMSOLL_HOST_TESTS").is_err() {
        println!("left out: the matrix needs root and PLIMSOLL_HOST_TESTS=1");
        return;
    }
    if args.get(1).is_some_and(|a| a == "cost-exec") {
        return prevent::cost();
    }
    if args.get(1).is_some_and(|a| a == "cost") {
        return cost();
    }
    let mut failed = 0;
    let mut done: Vec<String> = Vec::new();
    // the last one: what takes over where the functions that all opens and messages pass cannot be hooked
    let modes = [
        (Rung::Tracepoint, true, &[][..]),
        (Rung::Lsm, true, &[]),
        (Rung::Fentry, true, &[]),
        (Rung::Lsm, false, &[]),
        (Rung::Lsm, false, &["f_open", "f_dns_sent"]),
    ];
    let only = std::env::var("PLIMSOLL_MATRIX_MODE")
        .ok()
        .and_then(|n| n.parse().ok());
    for (i, (top, calls_used, without)) in modes.into_iter().enumerate() {
        if only.is_some_and(|n: usize| n != i) {
            continue;
        }
        failed += mode(top, calls_used, without, &mut done);
    }
    if only.is_none_or(|n| n == modes.len()) {
        failed += prevent::all();
    }
    if only.is_none_or(|n| n == modes.len() + 1) {
        failed += pinned::all();
    }
    println!("MATRIX {} failed", failed);
    std::process::exit(i32::from(failed > 0));
}

/// All cases on one choice of mechanisms, but for those of kinds that had the same mechanism in an earlier one.
fn mode(top: Rung, calls_used: bool, without: &[&str], done: &mut Vec<String>) -> usize {
    let (hierarchy, mount) = hierarchy();
    let mut config = SensorConfig::new(hierarchy);
    (config.top, config.syscalls_used) = (top, calls_used);
    config.without = without.iter().map(|p| (*p).to_owned()).collect();
    let mut sensor = Sensor::load(&config).expect("load the sensor");
    let in_use: Vec<String> = sensor
        .hooks()
        .iter()
        .map(|h| format!("{}: {}", h.kind, h.mechanism.as_deref().unwrap_or("-")))
        .collect();
    let name = format!(
        "{top:?}{}",
        if calls_used { "" } else { ", calls used off" }
    ) + &without
        .iter()
        .map(|p| format!(", without {p}"))
        .collect::<String>();
    if in_use.iter().all(|m| done.contains(m)) {
        println!("MATRIX mode {name}: this kernel takes the same mechanisms as before");
        return 0;
    }
    println!("MATRIX mode {name}");
    let refused: Vec<Refusal> = sensor
        .hooks()
        .iter()
        .flat_map(|h| h.refused.clone())
        .collect();
    for r in refused.iter().take(2) {
        println!("MATRIX refused {}: {}", r.mechanism, r.reason);
    }
    for program in sensor.refused_programs() {
        println!("MATRIX refused program {program}");
    }
    for (program, instructions) in sensor.program_costs() {
        println!("VERIFIED {program} {instructions}");
    }
    let mut failed = 0;
    for case in CASES {
        let kind = sensor
            .hooks()
            .iter()
            .find(|h| h.kind == case.hook)
            .unwrap_or_else(|| panic!("no hook {}", case.hook));
        let mechanism = kind.mechanism.clone();
        let used = format!("{}: {}", kind.kind, mechanism.as_deref().unwrap_or("-"));
        if done.contains(&used) {
            continue;
        }
        let seen = run(&mut sensor, &mount, case.act);
        let fires = seen.iter().any(|e| (case.is)(e));
        let quiet_events = run(&mut sensor, &mount, case.near_miss);
        let quiet = !quiet_events.iter().any(|e| (case.is)(e));
        let blind = (case.blind)(mechanism.as_deref());
        let off = mechanism.is_none() && case.hook == "system calls used" && !calls_used;
        let ok = quiet && (fires || blind || off);
        println!(
            "MATRIX {} | {} | {} | {} | {}",
            if ok { "ok" } else { "FAILED" },
            case.act,
            mechanism.as_deref().unwrap_or("nothing"),
            if fires {
                "seen"
            } else if blind {
                "not seen (known)"
            } else {
                "NOT SEEN"
            },
            if quiet { "quiet" } else { "NOT QUIET" }
        );
        if !ok {
            failed += 1;
            let mut kinds: Vec<String> = if fires { &quiet_events } else { &seen }
                .iter()
                .map(|e| format!("{:?}", e.kind))
                .collect();
            kinds.retain(|k| !k.starts_with("Syscall"));
            println!("MATRIX   events: {kinds:?}");
        }
    }
    done.extend(in_use);
    failed
}

struct Case {
    hook: &'static str,
    act: &'static str,
    near_miss: &'static str,
    is: fn(&Event) -> bool,
    /// Whether this mechanism is known not to see it (and `doctor` says so).
    blind: fn(Option<&str>) -> bool,
}

const fn case(
    hook: &'static str,
    act: &'static str,
    near_miss: &'static str,
    is: fn(&Event) -> bool,
) -> Case {
    Case {
        hook,
        act,
        near_miss,
        is,
        blind: |_| false,
    }
}

fn file(e: &Event, op: FileOp, name: &str) -> bool {
    matches!(&e.kind, EventKind::File(f) if f.op == op && f.path.to_str_lossy() == format!("{}/{name}", acts::DIR))
}

fn by_hook(m: Option<&str>) -> bool {
    m.is_some_and(|m| m.contains("lsm/file_open") || m.contains("security_file_open"))
}

fn is_answer(e: &Event) -> bool {
    matches!(&e.kind, EventKind::Dns(d) if d.response && d.name == "www.example".into())
}

fn single_calls(m: Option<&str>) -> bool {
    m.is_some_and(|m| m.contains("64-bit calls only"))
}

const FILES: &str = "file create, rename, link, unlink, chmod, chown, mkdir, rmdir";

const CASES: &[Case] = &[
    case(
        "exec",
        "exec",
        "nothing",
        |e| matches!(&e.kind, EventKind::Exec(x) if x.argv.len() == 3 && x.argv[2] == "nothing".into() && !x.first),
    ),
    case(
        "exec",
        "exec-memory",
        "memfd",
        |e| matches!(&e.kind, EventKind::Exec(x) if x.origin == Origin::Memfd),
    ),
    case("fork, exit", "exec", "nothing", |e| {
        matches!(e.kind, EventKind::Fork { .. })
    }),
    case("file open", "open", "open-missing", |e| {
        file(e, FileOp::Read, "file")
    }),
    case("file open", "write", "open", |e| {
        file(e, FileOp::Write, "file")
    }),
    case("file open", "create", "open", |e| {
        file(e, FileOp::Create, "created")
    }),
    case(
        "file open",
        "list",
        "open",
        |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::List && f.path == acts::DIR.into()),
    ),
    case(
        "file open",
        "open-denied",
        "open-missing",
        |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Failed),
    ),
    Case {
        // the security hook comes later
        blind: by_hook,
        ..case(
            "file open",
            "open-path",
            "open-missing",
            |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::List && f.path.to_str_lossy().ends_with("/file")),
        )
    },
    Case {
        // at its exit, only the call's refusal
        blind: |m| m.is_some_and(|m| m.contains("sys_exit")),
        ..case(
            "file open",
            "open-pipe",
            "open-missing",
            |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Write && f.path.to_str_lossy().ends_with("/pipe")),
        )
    },
    Case {
        blind: single_calls,
        ..case("file open", "open-32", "nothing", |e| {
            file(e, FileOp::Read, "file")
        })
    },
    Case {
        // before 5.19 there is no tracepoint to see it by
        blind: |m| !m.is_some_and(|m| m.contains("security") || m.contains("lsm")) && old_kernel(),
        ..case("file open", "open-uring", "nothing", |e| {
            file(e, FileOp::Read, "file")
        })
    },
    Case {
        blind: |m| !m.is_some_and(|m| m.contains("security") || m.contains("lsm")) && old_kernel(),
        ..case(
            FILES,
            "link-uring",
            "open-uring",
            |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Link && f.target.to_str_lossy().ends_with("/hard")),
        )
    },
    case(FILES, "unlink", "unlink-missing", |e| {
        file(e, FileOp::Unlink, "file2")
    }),
    case(FILES, "rmdir", "rmdir-missing", |e| {
        file(e, FileOp::Rmdir, "dir")
    }),
    case(FILES, "mkdir", "mkdir-missing", |e| {
        file(e, FileOp::Mkdir, "made")
    }),
    case(
        FILES,
        "rename",
        "rename-missing",
        |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Rename && f.target.to_str_lossy().ends_with("/renamed")),
    ),
    case(
        FILES,
        "link",
        "link-missing",
        |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Link && f.target.to_str_lossy().ends_with("/hard")),
    ),
    case(
        FILES,
        "symlink",
        "symlink-missing",
        |e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Symlink && f.target.to_str_lossy().ends_with("/soft")),
    ),
    case(FILES, "chmod", "chmod-missing", |e| {
        file(e, FileOp::Chmod, "file")
    }),
    case(FILES, "chown", "chown-missing", |e| {
        file(e, FileOp::Chown, "file")
    }),
    case(
        "library load",
        "library",
        "library-read",
        |e| matches!(&e.kind, EventKind::Library { path, .. } if path.to_str_lossy().ends_with("/file")),
    ),
    case("library load", "segment", "segment-data", |e| {
        matches!(
            &e.kind,
            EventKind::Rare { nr: 30 | 196, .. }
                | EventKind::Library {
                    origin: Origin::Memfd,
                    ..
                }
        )
    }),
    case("library load", "anonymous", "anonymous-data", |e| {
        matches!(e.kind, EventKind::Rare { nr: 9 | 222, .. })
    }),
    case("memory made executable", "mprotect", "mprotect-data", |e| {
        matches!(e.kind, EventKind::Rare { nr: 10 | 226, .. })
    }),
    case(
        "TCP connect and listen",
        "tcp",
        "socket-only",
        |e| matches!(&e.kind, EventKind::Connect(c) if matches!(c.peer, SockAddr::Inet(_, 41017))),
    ),
    case("TCP connect and listen", "tcp", "socket-only", |e| {
        matches!(&e.kind, EventKind::Listen { .. })
    }),
    case("accept", "tcp", "socket-only", |e| {
        matches!(&e.kind, EventKind::Accept(_))
    }),
    case(
        "UNIX and UDP connect",
        "unix",
        "socket-only",
        |e| matches!(&e.kind, EventKind::Connect(c) if c.peer == SockAddr::Unix("/run/docker.sock".into())),
    ),
    case(
        "UNIX and UDP connect",
        "udp-connected",
        "socket-only",
        |e| matches!(&e.kind, EventKind::Datagram(c) if matches!(c.peer, SockAddr::Inet(_, 9))),
    ),
    case(
        "UDP peers",
        "udp",
        "socket-only",
        |e| matches!(&e.kind, EventKind::Datagram(c) if c.proto == Proto::Udp),
    ),
    case(
        "DNS questions and answers",
        "dns",
        "udp-connected",
        |e| matches!(&e.kind, EventKind::Dns(d) if d.name == "www.example".into()),
    ),
    case(
        "DNS questions and answers",
        "dns-tcp",
        "tcp",
        |e| matches!(&e.kind, EventKind::Dns(d) if d.name == "www.example".into()),
    ),
    case(
        "DNS questions and answers",
        "dns-tcp-pieces",
        "tcp",
        |e| matches!(&e.kind, EventKind::Dns(d) if d.name == "www.example".into()),
    ),
    case("DNS questions and answers", "dns-answer", "dns", is_answer),
    case(
        "DNS questions and answers",
        "dns-answer-message",
        "dns",
        is_answer,
    ),
    case("bind, socket", "ping", "socket-only", |e| {
        matches!(
            e.kind,
            EventKind::Socket {
                kind: 2,
                protocol: 1,
                ..
            }
        )
    }),
    Case {
        blind: single_calls,
        ..case("bind, socket", "raw-32", "socket-only", |e| {
            matches!(e.kind, EventKind::Socket { family: 17, .. })
        })
    },
    case("bind, socket", "bind", "socket-only", |e| {
        matches!(e.kind, EventKind::Bind { .. })
    }),
    case("bind, socket", "raw", "socket-only", |e| {
        matches!(e.kind, EventKind::Socket { kind: 3, .. })
    }),
    case("redirected standard streams", "dup", "dup-high", |e| {
        matches!(e.kind, EventKind::Dup { stream: 0, .. })
    }),
    case(
        "redirected standard streams",
        "dup-fcntl",
        "dup-high",
        |e| matches!(e.kind, EventKind::Dup { stream: 0, .. }),
    ),
    case(
        "setns, unshare, clone flags",
        "unshare",
        "unshare-files",
        |e| matches!(e.kind, EventKind::Namespace { .. }),
    ),
    case(
        "mount, umount, pivot_root, chroot",
        "mount",
        "nothing",
        |e| matches!(e.kind, EventKind::Mount { .. }),
    ),
    case("ptrace, process_vm_writev", "ptrace", "ptrace-peek", |e| {
        matches!(e.kind, EventKind::Ptrace { .. })
    }),
    case("kernel modules", "module", "nothing", |e| {
        matches!(e.kind, EventKind::Module { .. })
    }),
    case("bpf", "bpf", "nothing", |e| {
        matches!(e.kind, EventKind::Bpf { .. })
    }),
    case("uid and capability changes", "setuid", "setuid-same", |e| {
        matches!(e.kind, EventKind::Credentials { .. })
    }),
    case("memory files", "memfd", "nothing", |e| {
        matches!(e.kind, EventKind::Memfd { .. })
    }),
    case("signals to others", "kill", "kill-ask", |e| {
        matches!(e.kind, EventKind::Signal { .. })
    }),
    case("signals to others", "kill-queued", "kill-ask", |e| {
        matches!(e.kind, EventKind::Signal { .. })
    }),
    case("other rare calls", "persona", "persona-ask", |e| {
        matches!(e.kind, EventKind::Rare { nr: 135 | 92, .. })
    }),
    case("other rare calls", "keyctl", "nothing", |e| {
        matches!(e.kind, EventKind::Rare { nr: 250 | 219, .. })
    }),
    case("system calls used", "keyctl", "nothing", |e| {
        matches!(e.kind, EventKind::Syscall { nr: 250 | 219, .. })
    }),
];

fn old_kernel() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut n = release.split('.').map(|w| w.parse::<u32>().unwrap_or(0));
    (n.next().unwrap_or(0), n.next().unwrap_or(0)) < (5, 19)
}

fn hierarchy() -> (Hierarchy, PathBuf) {
    let v1 = PathBuf::from("/sys/fs/cgroup/pids");
    if v1.join("cgroup.procs").exists() {
        return (
            Hierarchy::V1 {
                controller: "pids".into(),
                mount: v1.clone(),
            },
            v1,
        );
    }
    let v2 = PathBuf::from("/sys/fs/cgroup");
    (Hierarchy::V2 { mount: v2.clone() }, v2)
}

/// The files that the acts play with, new for each run so that no earlier one is remembered.
fn stage() {
    let d = Path::new(acts::DIR);
    let _ = std::fs::remove_dir_all(d);
    std::fs::create_dir_all(d.join("dir")).expect("a directory");
    for f in ["file", "file2", "file3", "secret"] {
        std::fs::write(d.join(f), vec![0u8; 4096]).expect("a file");
    }
    let mode = |m| std::os::unix::fs::PermissionsExt::from_mode(m);
    std::fs::set_permissions(d.join("secret"), mode(0o600)).expect("permissions");
    std::fs::set_permissions(d, mode(0o755)).expect("permissions");
}

/// One act in a new cgroup and mount namespace; what was emitted about it.
fn run(sensor: &mut Sensor, mount: &Path, act: &str) -> Vec<Event> {
    use std::os::unix::fs::MetadataExt;
    stage();
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let cgroup = mount.join(format!("plimsoll-matrix-{}-{n}", std::process::id()));
    std::fs::create_dir(&cgroup).expect("make a cgroup");
    let id = std::fs::metadata(&cgroup).expect("it is there").ino();
    sensor
        .control()
        .watch(&Watch {
            cgroup_id: id,
            set: 0,
            dense_base: 0,
            dense_len: 0,
        })
        .expect("watch");
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    #[allow(clippy::zombie_processes)] // try_wait() below reaps it
    let mut child = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["act", act])
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare is there");
    let mut events = Vec::new();
    let mut ended: Option<Instant> = None;
    let end = Instant::now() + Duration::from_secs(60);
    // until a look that began a while after the end brings nothing: time alone may pass unlooked
    let mut over = false;
    while !over {
        let is_last = ended.is_some_and(|t| t.elapsed() >= Duration::from_millis(60));
        assert!(Instant::now() < end, "{act} does not end");
        let handed = sensor
            .poll(Duration::from_millis(10), &mut |s| {
                if let Signal::Event(e) = s {
                    events.push(e);
                }
            })
            .expect("poll");
        over = is_last && handed == 0;
        if ended.is_none() && child.try_wait().expect("wait").is_some() {
            ended = Some(Instant::now());
        }
    }
    events.retain(|e| e.cgroup_id == id);
    let _ = sensor.control().unwatch(id);
    let _ = std::fs::remove_dir(&cgroup);
    events
}

const COSTS: [&str; 3] = ["cost-open", "cost-getppid", "cost-fork-exec"];

/// Time of one operation in a watched container with and without the sensor; in a machine that counts
/// instructions (`VM_ICOUNT=1 tests/vm/run`) these are guest instructions.
fn cost() {
    let (hierarchy, mount) = hierarchy();
    println!("COST | mechanisms | open+read+close | ratio | getppid | ratio | fork+exec | ratio |");
    // the first measurements of a machine that has just come up are of its start
    for _ in 0..3 {
        measure(None, &mount, "cost-open");
    }
    let only = std::env::var("PLIMSOLL_MATRIX_MODE");
    let only: Option<usize> = only.ok().and_then(|n| n.parse().ok());
    let modes = [
        (Rung::Tracepoint, true),
        (Rung::Lsm, true),
        (Rung::Lsm, false),
        (Rung::Fentry, false),
    ];
    for (_, (top, calls_used)) in (0..)
        .zip(modes)
        .filter(|(i, _)| only.is_none_or(|n| n == *i))
    {
        let mut config = SensorConfig::new(hierarchy.clone());
        (config.top, config.syscalls_used) = (top, calls_used);
        let without = COSTS.map(|op| measure(None, &mount, op));
        let mut sensor = Sensor::load(&config).expect("load the sensor");
        let with = COSTS.map(|op| measure(Some(&mut sensor), &mount, op));
        let open = sensor
            .hooks()
            .iter()
            .find(|h| h.kind == "file open")
            .and_then(|h| h.mechanism.clone());
        println!(
            "COST | {}{} | {:.0} to {:.0} | {:.3} | {:.0} to {:.0} | {:.3} | {:.0} to {:.0} | {:.3} |",
            open.unwrap_or_default()
                .split(',')
                .next()
                .unwrap_or_default(),
            if calls_used {
                ", calls used on"
            } else {
                ", calls used off"
            },
            without[0],
            with[0],
            with[0] / without[0],
            without[1],
            with[1],
            with[1] / without[1],
            without[2],
            with[2],
            with[2] / without[2]
        );
    }
}

fn measure(mut sensor: Option<&mut Sensor>, mount: &Path, act: &str) -> f64 {
    use std::os::unix::fs::MetadataExt;
    // maps and programs that were just loaded or freed keep kernel threads busy for a while
    std::thread::sleep(Duration::from_secs(10));
    stage();
    let cgroup = mount.join(format!("plimsoll-cost-{}", std::process::id()));
    std::fs::create_dir(&cgroup).expect("make a cgroup");
    if let Some(s) = &sensor {
        let id = std::fs::metadata(&cgroup).expect("it is there").ino();
        s.control()
            .watch(&Watch {
                cgroup_id: id,
                set: 0,
                dense_base: 0,
                dense_len: 0,
            })
            .expect("watch");
    }
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    let mut child = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["act", act])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare is there");
    // the reader moves the recorder's time on, as an agent does
    while child.try_wait().expect("wait").is_none() {
        match &mut sensor {
            Some(s) => drop(
                s.poll(Duration::from_millis(50), &mut |_| ())
                    .expect("poll"),
            ),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let out = child.wait_with_output().expect("its words");
    let _ = std::fs::remove_dir(&cgroup);
    String::from_utf8_lossy(&out.stdout)
        .trim()
        .parse()
        .expect("a number")
}
