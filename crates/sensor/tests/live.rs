//! Every kind on the running kernel: real programs in a cgroup of their own, and what must stay quiet.
//! Needs root (`PLIMSOLL_HOST_TESTS=1`, set by `scripts/test`); left out, and said so there, without.

use plimsoll_model::event::{FileOp, Origin};
use plimsoll_model::{Entry, Event, EventKind, SockAddr, Text};
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One sensor at a time, so that counters and timing are this test's own.
static ONE: Mutex<()> = Mutex::new(());

fn wanted() -> bool {
    std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1")
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

struct Box {
    sensor: Sensor,
    streamed: Vec<Use>,
    cgroup: PathBuf,
    id: u64,
    _made: Cgroup,
}

impl Box {
    fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    fn with(name: &str, change: impl FnOnce(&mut SensorConfig)) -> Self {
        let (hierarchy, _) = hierarchy();
        let made = Cgroup::new(name);
        let mut config = SensorConfig::new(hierarchy);
        change(&mut config);
        let sensor = Sensor::load(&config).expect("load the sensor");
        let this = Box {
            sensor,
            streamed: Vec::new(),
            cgroup: made.path.clone(),
            id: made.id,
            _made: made,
        };
        this.watch(0, 0, 0);
        this
    }

    fn watch(&self, set: u32, dense_base: u32, dense_len: u32) {
        let w = Watch {
            cgroup_id: self.id,
            set,
            dense_base,
            dense_len,
        };
        self.sensor.control().watch(&w).expect("watch");
    }

    /// Runs a program in the cgroup, in a mount namespace of its own, and returns what was emitted.
    fn run(&mut self, argv: &[&str]) -> Vec<Event> {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            self.cgroup.display()
        );
        let starts = ["sh", "-c", &script, "sh"];
        self.start(&[&starts[..], argv].concat())
    }

    /// Runs a program that puts itself into the cgroup, in a mount namespace of its own.
    fn start(&mut self, argv: &[&str]) -> Vec<Event> {
        #[allow(clippy::zombie_processes)] // try_wait() below reaps it
        let mut child = Command::new("unshare")
            .arg("--mount")
            .args(argv)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare is there");
        let mut events = Vec::new();
        let mut quiet_since = None;
        let end = Instant::now() + Duration::from_secs(120);
        // until a look that began a while after the end brings nothing: time alone may pass unlooked
        let mut over = false;
        while !over {
            assert!(Instant::now() < end, "{argv:?} does not end");
            let waited = |t: Instant| t.elapsed() >= Duration::from_millis(300);
            let is_last = quiet_since.is_some_and(waited);
            let handed = self
                .sensor
                .poll(Duration::from_millis(50), &mut |s| match s {
                    Signal::Event(e) => events.push(e),
                    Signal::Loss(l) => panic!("nothing may be lost here: {l:?}"),
                    Signal::Stream(uses) => self.streamed.extend(uses),
                })
                .expect("poll");
            over = is_last && handed == 0;
            if child.try_wait().expect("wait").is_some() {
                quiet_since.get_or_insert_with(Instant::now);
            }
        }
        events.retain(|e| e.cgroup_id == self.id);
        events
    }

    fn perl(&mut self, code: &str) -> Vec<EventKind> {
        self.run(&["perl", "-e", code])
            .into_iter()
            .map(|e| e.kind)
            .collect()
    }
}

/// A cgroup of its own.
struct Cgroup {
    path: PathBuf,
    id: u64,
}

impl Cgroup {
    fn new(name: &str) -> Self {
        use std::os::unix::fs::MetadataExt;
        let path = hierarchy()
            .1
            .join(format!("plimsoll-live-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("make a cgroup");
        let id = std::fs::metadata(&path).expect("it is there").ino();
        Cgroup { path, id }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..50 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn file(events: &[EventKind], op: FileOp, path: &str) -> bool {
    events
        .iter()
        .any(|k| matches!(k, EventKind::File(f) if f.op == op && f.path == Text::from(path)))
}

#[test]
fn exec_carries_program_arguments_and_directory_and_its_exit_follows() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("exec");
    let events = b.run(&["env", "--chdir=/var", "sleep", "0.01"]);
    let execs: Vec<_> = events
        .iter()
        .filter_map(|e| {
            if let EventKind::Exec(x) = &e.kind {
                Some((e, x))
            } else {
                None
            }
        })
        .collect();
    let (e, sleep) = execs
        .iter()
        .find(|(_, x)| x.exe.basename() == Text::from("sleep"))
        .expect("sleep was executed");
    assert_eq!(sleep.argv, vec![Text::from("sleep"), Text::from("0.01")]);
    assert_eq!(sleep.cwd, Text::from("/var"));
    assert_eq!(
        sleep.origin,
        Origin::Image,
        "it was there before the container"
    );
    assert_eq!(e.process.entry, Entry::Init);
    assert!(
        execs.iter().filter(|(_, x)| x.first).count() == 1,
        "one program is the first"
    );
    assert!(events.iter().any(|x| x.process.key == e.process.key
        && matches!(x.kind, EventKind::Exit { code: 0, signal: 0 })));
}

/// Programs of two containers one after the other, and nobody reads meanwhile.
#[test]
fn a_flood_leaves_room_in_the_ring_for_a_quiet_neighbour() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut b = Box::with("flood", |c| c.bulk_ring_bytes = 4 << 20);
    let quiet = Cgroup::new("quiet");
    let w = Watch {
        cgroup_id: quiet.id,
        set: 0,
        dense_base: 0,
        dense_len: 0,
    };
    b.sensor.control().watch(&w).expect("watch");
    let perl = |cgroup: &Path, code: &str| {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec perl -e '{code}'",
            cgroup.display()
        );
        let ran = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .status();
        assert!(ran.is_ok_and(|s| s.success()));
    };
    let dir = std::env::temp_dir().join(format!("plimsoll-live-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("make a directory");
    let make = |name: &str, n: u32| {
        let dir = dir.display();
        format!("for (0..{n}-1) {{ open F, \">{dir}/{name}$_\" or die }}")
    };
    perl(&b.cgroup, &make("noisy", 20_000));
    perl(&quiet.path, &make("quiet", 100));

    std::fs::remove_dir_all(&dir).expect("remove our own files");

    let (mut seen, mut lost) = ([0u64; 2], [0u64; 2]);
    let end = Instant::now() + Duration::from_secs(120);
    while seen[0] + lost[0] < 20_000 || seen[1] + lost[1] < 100 {
        assert!(Instant::now() < end, "seen {seen:?}, lost {lost:?}");
        let mut take = |s: Signal| match s {
            Signal::Event(e) => {
                if let EventKind::File(f) = &e.kind {
                    let name = f.path.basename().to_string();
                    seen[0] += u64::from(name.starts_with("noisy"));
                    seen[1] += u64::from(name.starts_with("quiet"));
                }
            }
            Signal::Loss(l) => lost[usize::from(l.cgroup_id == quiet.id)] += l.count,
            Signal::Stream(_) => {}
        };
        b.sensor
            .poll(Duration::from_millis(50), &mut take)
            .expect("poll");
    }
    assert!(lost[0] > 0, "this is no flood: {seen:?}");
    assert_eq!((seen[1], lost[1]), (100, 0), "the neighbour's own");
}

/// A container that did more than there is room for, and its end, before anybody reads.
#[test]
fn the_end_of_a_container_is_no_act_of_its_and_is_told_whatever_it_did() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut b = Box::with("end", |c| {
        c.bulk_ring_bytes = 64 << 10;
        c.alert_ring_bytes = 64 << 10;
        c.alert_quota_per_second = 1;
    });
    let dir = std::env::temp_dir().join(format!("plimsoll-end-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("make a directory");
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec perl -e 'for (1..2000) {{ open F, \">{}/$_\" or die }}'",
        b.cgroup.display(),
        dir.display()
    );
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .status();
    assert!(ran.is_ok_and(|s| s.success()));
    std::fs::remove_dir_all(&dir).expect("remove our own files");
    std::fs::remove_dir(&b.cgroup).expect("it is empty");
    // ends that find no room are nobody's loss but the node's
    let many: Vec<Cgroup> = (0..400).map(|n| Cgroup::new(&format!("end-{n}"))).collect();
    let ids: Vec<u64> = many.iter().map(|c| c.id).chain([b.id]).collect();
    drop(many);

    let (mut ended, mut done, mut of_the_node) = (false, 0, 0);
    let end = Instant::now() + Duration::from_secs(120);
    while !ended || done < 2000 || of_the_node == 0 {
        assert!(
            Instant::now() < end,
            "ended: {ended}, told or lost {done}, lost by the node {of_the_node}"
        );
        b.sensor
            .poll(Duration::from_millis(50), &mut |s| match s {
                Signal::Event(e) => match e.kind {
                    EventKind::CgroupRmdir { id } => ended |= id == b.id,
                    _ if e.cgroup_id == b.id => done += 1,
                    _ => {}
                },
                Signal::Loss(l) if l.cgroup_id == b.id => done += l.count,
                Signal::Loss(l) => {
                    assert!(!ids.contains(&l.cgroup_id), "{l:?}");
                    of_the_node += l.count;
                }
                Signal::Stream(_) => {}
            })
            .expect("poll");
    }
}

#[test]
fn an_open_tells_the_path_as_it_was_written_and_as_it_was_resolved() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut b = Box::new("raw");
    let code = "chdir '/usr/bin'; open my $f, '<', '../../etc/hostname'; open my $g, '<', '/etc/passwd'; \
                open my $h, '<', 'not/../../there';";
    let events = b.perl(code);
    let raw = |path: &str| {
        let of = events.iter().find_map(|k| match k {
            EventKind::File(f) if f.path == Text::from(path) => Some(f.raw.clone()),
            _ => None,
        });
        of.unwrap_or_else(|| panic!("{path}: {events:?}"))
    };
    assert_eq!(raw("/etc/hostname"), Some("../../etc/hostname".into()));
    assert_eq!(raw("/etc/passwd"), Some("".into()), "as it is");
    let unread =
        |k: &EventKind| matches!(k, EventKind::File(f) if f.op == FileOp::Read && f.raw.is_none());
    assert!(!events.iter().any(unread), "{events:?}");
}

#[test]
fn a_known_open_is_told_again_only_where_its_path_goes_up() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut b = Box::new("upward");
    let dir = tempfile_dir();
    let (list, file) = (dir.join("list"), dir.join("target"));
    std::fs::write(&file, "x").unwrap();
    let (dir_text, file_text) = (dir.display().to_string(), file.display().to_string());
    // the same program each time: what it opens stands in a file
    let code = format!(
        "chdir '{dir_text}'; open(L,'<','list'); my @l = <L>; for (@l) {{ chomp; open(F,'<',$_); close F }}"
    );
    let mut opened = |paths: &[&str]| -> Vec<Event> {
        std::fs::write(&list, paths.join("\n")).unwrap();
        let events = b.run(&["perl", "-e", &code]);
        let of_it = |e: &Event| matches!(&e.kind, EventKind::File(f) if f.path == file_text.as_str().into());
        events.into_iter().filter(of_it).collect()
    };
    // the container's first process is another actor than those that come in later
    assert_eq!(opened(&["target"]).len(), 1);
    let first = opened(&["target"]);
    assert_eq!(first.len(), 1, "{first:?}");
    let dict = first[0].dict.expect("it has a key");
    assert!(b.sensor.control().emit_upward(&dict).unwrap());
    let straight = [
        file_text.as_str(),
        "target",
        "./target",
        "././target",
        "target",
    ];
    let mut opened = |paths: &[&str]| -> Vec<String> {
        std::fs::write(&list, paths.join("\n")).unwrap();
        let events = b.run(&["perl", "-e", &code]);
        let raw = |e: &Event| match &e.kind {
            EventKind::File(f) if f.path == file_text.as_str().into() => {
                f.raw.as_ref().map(ToString::to_string)
            }
            _ => None,
        };
        events.iter().filter_map(raw).collect()
    };
    let told = opened(&straight);
    assert!(told.is_empty(), "{told:?}");
    let name = dir.file_name().unwrap().to_string_lossy();
    let near = format!("../{name}/target");
    let far = format!("{}../{name}/target", "./".repeat(1990));
    let split: Vec<String> = (0..9)
        .map(|n| format!("{}../{name}/target", "/".repeat(n) + &dir_text + "/"))
        .collect();
    let mut paths = vec![near.as_str(), "target", far.as_str()];
    paths.extend(split.iter().map(String::as_str));
    let told = opened(&paths);
    assert_eq!(told.len(), 11, "wherever the dots stand: {told:?}");
    assert!(told.iter().all(|raw| raw.contains("..")));
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn exec_carries_what_a_program_had_when_it_started_however_short_it_lives() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let mut b = Box::new("facts");
    // a session of its own, and an environment of its own for each
    let code = "use POSIX; POSIX::setsid(); for my $i (0..199) { \
                unless (fork) { %ENV = (N => $i, PAD => 'x' x ($i == 199 ? 9000 : 0)); exec '/bin/true' } wait }";
    let marks = |execs: &[Event]| -> Vec<std::boxed::Box<plimsoll_model::Glance>> {
        let execs = execs.iter().filter_map(|e| match &e.kind {
            EventKind::Exec(x) if x.exe.basename() == Text::from("true") => x.glance.clone(),
            _ => None,
        });
        execs.collect()
    };
    let quiet = marks(&b.run(&["perl", "-e", code]));
    assert_eq!(quiet.len(), 200);
    assert!(quiet.iter().all(|g| g.env.is_none()), "nobody asked");
    b.sensor.control().ask_for_environments(true).unwrap();
    let told = marks(&b.run(&["perl", "-e", code]));
    assert_eq!(told.len(), 200);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|l| l.strip_prefix("CapPrm:"));
    let permitted = u64::from_str_radix(own.unwrap().trim(), 16).unwrap();
    for (i, g) in told.iter().enumerate() {
        let env = g.env.as_deref().expect("asked for");
        assert!(env.contains(&Text::from(format!("N={i}"))), "{i}: {env:?}");
        assert!(!g.env_cut);
        let bytes: usize = env.iter().map(Text::len).sum();
        assert_eq!(bytes > 9000, i == 199, "three pieces make one");
        assert_eq!(g.permitted, permitted);
        assert!(g.vpid > 0 && g.vpgid == g.vsid && g.vsid > 0 && g.vsid != g.vpid);
        assert_eq!((g.vsid, g.login_uid), (told[0].vsid, told[0].login_uid));
    }
}

#[test]
fn files_are_seen_by_operation_and_a_repeat_stays_in_the_kernel() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("files");
    let d = tempfile_dir();
    let p = |n: &str| d.join(n).to_string_lossy().into_owned();
    let code = format!(
        "chdir '{0}'; umask 022; sysopen(X,'program',0101,0777); open(F,'>','made'); close F; open(F,'<','made') for 1..50; open(F,'>>','made'); rename('made','moved'); \
         link('moved','hard'); symlink('moved','soft'); chmod(0755,'moved'); mkdir('dir'); rmdir('dir'); unlink('hard'); chown(0,0,'moved');",
        d.display()
    );
    let events = b.perl(&code);
    for (op, name) in [
        (FileOp::Create, "made"),
        (FileOp::Read, "made"),
        (FileOp::Write, "made"),
        (FileOp::Rename, "made"),
        (FileOp::Link, "moved"),
        (FileOp::Chmod, "moved"),
        (FileOp::Mkdir, "dir"),
        (FileOp::Rmdir, "dir"),
        (FileOp::Unlink, "hard"),
        (FileOp::Chown, "moved"),
    ] {
        assert!(file(&events, op, &p(name)), "{op:?} {name} in {events:?}");
    }
    assert!(events.iter().any(|k| matches!(k, EventKind::File(f) if f.op == FileOp::Symlink && f.target == p("soft").as_str().into())));
    let mode = |name: &str| {
        let mut files = events.iter().filter_map(|k| match k {
            EventKind::File(f) if f.path == p(name).as_str().into() => Some((f.op, f.mode)),
            _ => None,
        });
        let made = files.next().expect("it was made");
        assert!(files.all(|(_, mode)| mode.is_none()), "it is made once");
        made
    };
    assert_eq!(mode("program"), (FileOp::Create, Some(0o755)));
    assert_eq!(mode("made"), (FileOp::Create, Some(0o644)));
    let reads = events.iter().filter(|k| matches!(k, EventKind::File(f) if f.op == FileOp::Read && f.path == p("made").as_str().into())).count();
    assert_eq!(reads, 1, "fifty reads of one file are one behaviour");
    std::fs::remove_dir_all(d).expect("clean up");
}

#[test]
fn sockets_are_seen_from_the_kernels_side() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("net");
    let events = b.perl(
        "use Socket; socket(L,PF_INET,SOCK_STREAM,6); bind(L,sockaddr_in(0,INADDR_LOOPBACK)); listen(L,5); \
         my($port)=sockaddr_in(getsockname(L)); socket(C,PF_INET,SOCK_STREAM,6); connect(C,sockaddr_in($port,INADDR_LOOPBACK)); \
         accept(A,L); open(STDIN,'<&',A); socket(U,PF_INET,SOCK_DGRAM,17); send(U,'x',0,sockaddr_in(9,INADDR_LOOPBACK)); \
         socket(D,PF_INET,SOCK_DGRAM,17); connect(D,sockaddr_in(53,INADDR_LOOPBACK)); \
         send(D,\"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3www\\7example\\0\\0\\1\\0\\1\",0); \
         socket(X,PF_UNIX,SOCK_STREAM,0); connect(X,sockaddr_un('/nowhere.sock')); socket(R,PF_INET,SOCK_RAW,1);",
    );
    let is = |what: &str, test: &dyn Fn(&EventKind) -> bool| {
        assert!(events.iter().any(test), "{what} in {events:?}")
    };
    is(
        "listen",
        &|k| matches!(k, EventKind::Listen { local: SockAddr::Inet(ip, p), .. } if ip.is_loopback() && *p > 0),
    );
    is(
        "connect",
        &|k| matches!(k, EventKind::Connect(c) if matches!(&c.peer, SockAddr::Inet(ip, p) if ip.is_loopback() && *p > 0)),
    );
    is(
        "accept",
        &|k| matches!(k, EventKind::Accept(c) if matches!(&c.peer, SockAddr::Inet(ip, _) if ip.is_loopback())),
    );
    is(
        "datagram",
        &|k| matches!(k, EventKind::Datagram(c) if matches!(&c.peer, SockAddr::Inet(_, 9))),
    );
    is(
        "dns question",
        &|k| matches!(k, EventKind::Dns(d) if !d.response && d.name == "www.example".into()),
    );
    is(
        "unix connect",
        &|k| matches!(k, EventKind::Connect(c) if c.peer == SockAddr::Unix("/nowhere.sock".into())),
    );
    is("stdin on a socket", &|k| {
        matches!(k, EventKind::Dup { stream: 0, .. })
    });
    is("raw socket", &|k| {
        matches!(k, EventKind::Socket { kind: 3, .. })
    });
}

#[test]
fn what_attacks_need_is_seen() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("rare");
    let nr = |n: i64| n.to_string();
    let code = format!(
        "syscall({unshare},0x04000000); syscall({bpf},5,0,0); syscall({ptrace},16,1,0,0) if fork()==0; \
         my $n=\"secret\\0\"; syscall({memfd},$n,0); syscall({finit},-1,$n,0); \
         my $t=\"none\\0\"; my $d=\"/nowhere\\0\"; syscall({mount},$t,$d,$t,0,0); kill(10,$$) if 0; \
         $<=12345; $>=12345;",
        unshare = nr(libc::SYS_unshare),
        bpf = nr(libc::SYS_bpf),
        ptrace = nr(libc::SYS_ptrace),
        memfd = nr(libc::SYS_memfd_create),
        finit = nr(libc::SYS_finit_module),
        mount = nr(libc::SYS_mount),
    );
    let events = b.perl(&code);
    let is = |what: &str, test: &dyn Fn(&EventKind) -> bool| {
        assert!(events.iter().any(test), "{what} in {events:?}")
    };
    is("unshare", &|k| {
        matches!(
            k,
            EventKind::Namespace {
                flags: 0x0400_0000,
                ..
            }
        )
    });
    is("bpf", &|k| matches!(k, EventKind::Bpf { .. }));
    is("ptrace", &|k| {
        matches!(k, EventKind::Ptrace { request: 16, .. })
    });
    is(
        "memfd",
        &|k| matches!(k, EventKind::Memfd { name } if *name == "secret".into()),
    );
    is("module", &|k| matches!(k, EventKind::Module { .. }));
    is(
        "mount",
        &|k| matches!(k, EventKind::Mount { target, .. } if *target == "/nowhere".into()),
    );
    is("uid change", &|k| {
        matches!(k, EventKind::Credentials { new_uid: 12345, .. })
    });
    is("system calls used", &|k| {
        matches!(k, EventKind::Syscall { .. })
    });
    is(
        "libraries",
        &|k| matches!(k, EventKind::Library { path, .. } if path.to_str_lossy().contains("libc.so")),
    );
}

/// The hashes of user space and kernel agree, and a known behaviour is counted and not emitted.
#[test]
fn a_loaded_set_answers_in_the_kernel_and_counts() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("set");
    let cat = std::fs::canonicalize("/bin/cat")
        .expect("cat is there")
        .to_string_lossy()
        .into_owned();
    let opens = |events: &[Event], path: &str| {
        events
            .iter()
            .filter(|e| matches!(&e.kind, EventKind::File(f) if f.path == path.into()))
            .count()
    };
    let before = b.run(&["cat", "/etc/hostname", "/etc/os-release"]);
    assert_eq!(
        opens(&before, "/etc/hostname"),
        1,
        "new behaviour is emitted"
    );
    let target = before.iter().find_map(|e| match &e.kind {
        EventKind::File(f) if f.path.to_str_lossy().ends_with("os-release") => Some(f.path.clone()),
        _ => None,
    });
    let target = target.expect("os-release was read");
    let dir = Path::new(&*target.to_str_lossy())
        .parent()
        .expect("a directory")
        .to_string_lossy()
        .into_owned();
    let known = |path, index| Known {
        program: cat.as_str().into(),
        script: Text::default(),
        entry: Entry::Init,
        uid: 0,
        object: KnownObject::File {
            op: FileOp::Read,
            origin: Origin::Image,
            path,
        },
        index,
    };
    let entries = [
        known(PathMatch::Exact("/etc/hostname".into()), 3),
        known(PathMatch::Below(dir.as_str().into()), 4),
    ];
    // another container: each run has a mount namespace of its own, and a set answers in one only
    drop(b);
    let mut b = Box::new("set2");
    b.sensor
        .control()
        .load_set(7, &entries)
        .expect("load the set");
    b.watch(7, 70_000, 16);
    let after = b.run(&["cat", "/etc/hostname", "/etc/os-release"]);
    assert_eq!(opens(&after, "/etc/hostname"), 0, "known by its path");
    assert_eq!(
        opens(&after, &target.to_str_lossy()),
        0,
        "known by its directory"
    );
    let counts = b.sensor.control().counts(70_003, 2);
    assert_eq!(counts[0], 1);
    assert!(counts[1] >= 1, "what lies below the directory: {counts:?}");
    drop(b);
    let mut b = Box::new("set3");
    b.sensor
        .control()
        .set_watched_paths(&[WatchedPath {
            path: PathMatch::Exact("/etc/hostname".into()),
            ops: vec![],
        }])
        .expect("watch it");
    b.sensor
        .control()
        .load_set(7, &entries)
        .expect("load the set");
    b.watch(7, 70_000, 16);
    b.sensor.control().bump_generation().expect("bump");
    let watched = b.run(&["cat", "/etc/hostname", "/etc/hostname"]);
    assert_eq!(
        opens(&watched, "/etc/hostname"),
        2,
        "a watched path is emitted every time, known or not"
    );
}

/// What a counter counted in each second of the recording: (when, how often).
fn uses_of(recording: &Reading, dense: u32, now: u64) -> Vec<(u64, u64)> {
    let of: Vec<&Use> = recording.uses.iter().filter(|u| u.dense == dense).collect();
    let counts = of
        .iter()
        .map(|u| u64::from(u.count))
        .skip(1)
        .chain([now + 1]);
    of.iter()
        .zip(counts)
        .map(|(u, next)| (u.at.0, next - u64::from(u.count)))
        .collect()
}

#[test]
fn the_recorder_has_each_use_of_known_behaviour_by_second_with_its_count() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("recorder");
    let dir = tempfile_dir();
    let path = dir.join("again").display().to_string();
    // in three epochs of 1.07 s at least: twelve opens, then thirty, then one
    let code = format!(
        "sub o {{ open(F,'<','{path}') for 1..$_[0]; close F }} open(F,'>','{path}'); close F; \
         o(12); sleep 3; o(30); sleep 3; o(1);"
    );
    let events = b.run(&["perl", "-e", &code]);
    let read = events.iter().find(|e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Read && f.path == path.as_str().into())).expect("the first read is emitted");
    let control = b.sensor.control();
    let recording = control.recording(b.id, 0).expect("it was recorded");
    assert_eq!((recording.missing, recording.dropped), (0, 0));
    assert_eq!(recording.overwritten, 0);
    let now = control.counts(read.dense, 1)[0];
    let uses = uses_of(&recording, read.dense, now);
    let total: u64 = uses.iter().map(|(_, n)| n).sum();
    assert_eq!(total, 43, "{uses:?}");
    assert_eq!(uses.last().expect("the last").1, 1, "{uses:?}");
    // an epoch may end while a burst goes on
    assert!((3..=5).contains(&uses.len()), "{uses:?}");
    let span = uses.last().expect("last").0 - uses[0].0;
    assert!((5_500_000_000..9_000_000_000).contains(&span), "{span}");
    let of_read = |u: &&Use| u.dense == read.dense;
    assert!(
        recording
            .uses
            .iter()
            .filter(of_read)
            .all(|u| u.tgid == read.process.key.tgid
                && u.kind == 4
                && u.operation == FileOp::Read as u8)
    );

    // what was read once is not read again
    let later = control
        .recording(b.id, recording.next)
        .expect("still there");
    assert!(later.uses.is_empty(), "{later:?}");
    let state = control.recorder();
    assert_eq!(state.bytes, 64 << 20);
    assert!(
        state
            .spans
            .iter()
            .any(|(root, _, n)| *root == b.id && *n == recording.next)
    );

    // a container that has gone keeps its recording for a while
    control.unwatch(b.id).expect("unwatch");
    assert!(control.recording(b.id, 0).is_some());
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn what_was_opened_before_is_counted_each_time_and_another_user_or_file_is_new() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("front");
    let dir = tempfile_dir();
    let path = dir.join("again").display().to_string();
    // for some four epochs: from the third on the front answers
    let code = format!(
        "sub o {{ open(F,'<','{path}'); close F }} open(F,'>','{path}'); close F; chmod 0644,'{path}'; \
         for (1..90) {{ o(); select(undef,undef,undef,0.05) }} \
         unlink '{path}'; open(F,'>','{path}'); close F; chmod 0644,'{path}'; o(); o(); \
         $<=12345; $>=12345; o();"
    );
    let events = b.run(&["perl", "-e", &code]);
    let reads: Vec<&Event> = events
        .iter()
        .filter(|e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Read && f.path == path.as_str().into()))
        .collect();
    let counts: Vec<u64> = reads
        .iter()
        .map(|e| b.sensor.control().counts(e.dense, 1)[0])
        .collect();
    assert_eq!(
        counts,
        [90, 2, 1],
        "each open is counted, a new file and a new user are new"
    );
    assert_eq!(reads[2].process.uid, 12345);
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn a_small_recorder_keeps_the_latest_and_says_what_it_wrote_over() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::with("small", |c| c.recorder_bytes = 4 * 256 * 32);
    let dir = tempfile_dir();
    // 3,000 behaviours for four chunks of 256 entries
    let code = format!(
        "for $i (1..3000) {{ mkdir \"{0}/$i\"; opendir(D,\"{0}/$i\"); }}",
        dir.display()
    );
    b.run(&["perl", "-e", &code]);
    let recording = b
        .sensor
        .control()
        .recording(b.id, 0)
        .expect("it was recorded");
    assert!(recording.next >= 3000);
    assert!(
        recording.uses.len() >= 256 && recording.uses.len() <= 4 * 256,
        "{}",
        recording.uses.len()
    );
    let last = recording.uses.last().expect("the last");
    assert_eq!(last.pos, recording.next - 1, "the latest is there");
    let accounted = recording.uses.len() as u64 + recording.overwritten + recording.missing;
    assert_eq!(
        accounted, recording.next,
        "each is there or said to be gone"
    );
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn a_container_that_streams_hands_over_each_use() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("stream");
    let id = b.sensor.control().start_stream(b.id).expect("start");
    let code = "open(F,'<','/etc/hostname') for 1..25;";
    let events = b.run(&["perl", "-e", code]);
    let read = events.iter().find(|e| matches!(&e.kind, EventKind::File(f) if f.op == FileOp::Read && f.path == "/etc/hostname".into())).expect("the first read is emitted");
    let uses = b.streamed.iter().filter(|u| u.dense == read.dense);
    assert_eq!(uses.count(), 25);
    assert!(b.streamed.iter().all(|u| u.pos == u64::from(id)));
    assert_eq!(b.sensor.control().stop_stream(b.id), 0);
    b.streamed.clear();
    b.run(&["perl", "-e", code]);
    assert!(b.streamed.is_empty());
}

#[test]
fn what_happens_outside_the_container_is_not_reported() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("quiet");
    let (_, mount) = hierarchy();
    drop(std::fs::read("/etc/hostname"));
    drop(Command::new("true").status());
    let mut strangers = Vec::new();
    let own = b.id;
    b.sensor
        .poll(Duration::from_millis(200), &mut |s| {
            if let Signal::Event(e) = s
                && e.cgroup_id == own
            {
                strangers.push(e.kind);
            }
        })
        .expect("poll");
    assert_eq!(strangers, Vec::new(), "{}", mount.display());
}

/// How a runtime in a chroot (`HOST`) makes the root of a container, and then executes its program.
const MAKE_ROOT: [(&str, &str); 3] = [
    // by pivoting: the container's root comes to lie where the runtime's is
    (
        "pivot",
        "mount --bind HOST HOST; mount --bind HOST/root HOST/root",
    ),
    // by a chroot to a directory, and to one that is a mount's root
    ("chroot", "true"),
    ("chroot", "mount --bind HOST/root HOST/root"),
];

/// What stands in for a runtime: it joins the cgroup, makes the root, and executes.
const RUNTIME: &str = r#"
    my ($how, $host, $cgroup, @program) = @ARGV;
    open(P, '>', "$cgroup/cgroup.procs") or die; print P $$; close P;
    chroot($host) && chdir('/root') or die;
    if ($how eq 'pivot') {
        my $here = '.';
        syscall(155, $here, $here) == 0 && syscall(166, $here, 2) == 0 or die "pivot_root: $!";
    } else {
        chroot('.') or die;
    }
    chdir('/') && exec @program;
"#;

/// A directory that a container could be started in: busybox as `/bin/sh`, and once more in `/jail`, where
/// nothing is what it seems. `volume` is mounted, with another one.
fn nested_root(host: &Path) {
    let root = host.join("root");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("busybox is there (package busybox-static)");
    for place in ["", "jail", "volume"] {
        let bin = root.join(place).join("bin");
        std::fs::create_dir_all(root.join(place).join("etc")).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["sh", "busybox"] {
            std::fs::copy(busybox, bin.join(name)).unwrap();
        }
        std::fs::write(root.join(place).join("etc/shadow"), "x").unwrap();
    }
}

#[test]
fn paths_start_from_the_root_that_a_container_was_started_with() {
    if !wanted() {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let host = tempfile_dir();
    nested_root(&host);
    for (how, mounts) in MAKE_ROOT {
        let mut b = Box::new("nested");
        let host = host.to_str().unwrap();
        let runtime = b.cgroup.display().to_string();
        let volume = "mount --bind HOST/root/volume HOST/root/volume";
        let prepare = format!("{mounts}; {volume}; exec perl -e \"$@\"").replace("HOST", host);
        // a chroot inside must not hide where a file lies: into a directory, a volume, and out of there
        let acts = "busybox cat /etc/shadow; cd /etc; echo x > new; \
                    busybox chroot /jail /bin/sh -c 'read x < /etc/shadow'; \
                    busybox chroot /volume /bin/sh -c 'read x < /etc/shadow'";
        let program = ["/bin/sh", "-c", &format!("PATH=/bin; {acts}")];
        let start = ["sh", "-c", &prepare, "sh", RUNTIME, how, host, &runtime];
        let events = b.start(&[&start[..], &program].concat());
        let what = format!("{how}, {mounts}");
        let execs: Vec<(String, Origin)> = (events.iter())
            .filter_map(|e| match &e.kind {
                EventKind::Exec(x) => Some((x.exe.to_string(), x.origin)),
                _ => None,
            })
            .collect();
        let ran = |exe: &str, origin| execs.contains(&(exe.to_owned(), origin));
        assert!(ran("/bin/sh", Origin::Image), "{what}: {execs:?}");
        assert!(ran("/jail/bin/sh", Origin::Image), "{what}: {execs:?}");
        assert!(ran("/volume/bin/sh", Origin::Volume), "{what}: {execs:?}");
        let kinds: Vec<EventKind> = events.iter().map(|e| e.kind.clone()).collect();
        for path in ["/etc/shadow", "/jail/etc/shadow", "/volume/etc/shadow"] {
            assert!(
                file(&kinds, FileOp::Read, path),
                "{what}: {path}: {kinds:?}"
            );
        }
        assert!(
            file(&kinds, FileOp::Create, "/etc/new"),
            "{what}: {kinds:?}"
        );
        std::fs::remove_file(Path::new(host).join("root/etc/new")).expect("it was made");
    }
    std::fs::remove_dir_all(host).expect("clean up");
}

fn tempfile_dir() -> PathBuf {
    let d = std::env::temp_dir().join(format!("plimsoll-live-{}", std::process::id()));
    std::fs::create_dir_all(&d).expect("a directory");
    std::fs::canonicalize(d).expect("its real path")
}

/// A map of this process's own sensor, by its name.
fn own_map(name: &str) -> libbpf_rs::MapHandle {
    use libbpf_rs::MapCore;
    let infos = std::fs::read_dir("/proc/self/fdinfo")
        .expect("proc")
        .flatten();
    let texts = infos.filter_map(|e| std::fs::read_to_string(e.path()).ok());
    let ids = texts.filter_map(|t| {
        let line = t.lines().find_map(|l| l.strip_prefix("map_id:"))?;
        line.trim().parse().ok()
    });
    let maps = ids.filter_map(|id| libbpf_rs::MapHandle::from_map_id(id).ok());
    maps.into_iter()
        .find(|m| m.name().to_str() == Some(name))
        .expect("the sensor's map")
}

/// The kernel numbers seven records of each processor and ring that nobody will ever see.
fn lose_seven() {
    use libbpf_rs::{MapCore, MapFlags};
    let map = own_map("cpu_states");
    let key = 0u32.to_ne_bytes();
    let found = map.lookup_percpu(&key, MapFlags::ANY).expect("readable");
    let mut cpus = found.expect("one entry");
    for cpu in &mut cpus {
        for at in [0, 8] {
            let n = u64::from_ne_bytes(cpu[at..at + 8].try_into().expect("eight"));
            cpu[at..at + 8].copy_from_slice(&(n + 7).to_ne_bytes());
        }
    }
    map.update_percpu(&key, &cpus, MapFlags::ANY)
        .expect("writable");
}

#[test]
fn numbers_that_never_come_are_a_loss_with_their_exact_count_and_nothing_else_is() {
    if !wanted() {
        return;
    }
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut b = Box::new("numbers");
    // run() panics at any loss: records of two rings and all processors make no hole
    for _ in 0..20 {
        b.run(&["sh", "-c", "cat /etc/shadow; true"]);
    }
    lose_seven();
    let script = format!(
        "echo $$ > {}/cgroup.procs; cat /etc/shadow; /bin/true",
        b.cgroup.display()
    );
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .expect("unshare is there");
    // each processor and ring that was heard of since is missing seven
    let mut lanes = std::collections::BTreeSet::new();
    let mut lost = 0;
    let end = Instant::now() + Duration::from_secs(60);
    while lost == 0 || lost != 7 * lanes.len() as u64 {
        assert!(Instant::now() < end, "{lost} lost of {lanes:?}");
        let mut see = |s| match s {
            Signal::Event(e) => drop(lanes.insert((e.cpu, e.alert_class))),
            Signal::Loss(l) => {
                assert_eq!(l.stage, plimsoll_model::Stage::Sequence, "{l:?}");
                assert!(l.from <= l.to, "{l:?}");
                lost += l.count;
            }
            Signal::Stream(_) => {}
        };
        b.sensor
            .poll(Duration::from_millis(50), &mut see)
            .expect("poll");
    }
    child.wait().expect("it has ended");
}
