//! Programs outside a container's set are killed or stopped at their exec, on the running kernel: real
//! programs in a cgroup of their own, and the near misses that must run. Needs root
//! (`PLIMSOLL_HOST_TESTS=1`, set by `scripts/test`); left out, and said so there, without.

use plimsoll_model::{BootNs, Enforced, Event, EventKind, Origin, Text};
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One sensor at a time.
static ONE: Mutex<()> = Mutex::new(());
const SET: u32 = 3;
const FOR_EVER: u64 = u64::MAX;

fn hierarchy() -> (Hierarchy, PathBuf) {
    let mount = PathBuf::from("/sys/fs/cgroup/pids");
    if mount.join("cgroup.procs").exists() {
        let controller = "pids".into();
        let v1 = Hierarchy::V1 {
            controller,
            mount: mount.clone(),
        };
        return (v1, mount);
    }
    let mount = PathBuf::from("/sys/fs/cgroup");
    let v2 = Hierarchy::V2 {
        mount: mount.clone(),
    };
    (v2, mount)
}

/// A container of which nothing but its cgroup and mount namespace exists.
struct Cell {
    sensor: Sensor,
    mount: PathBuf,
    cgroups: Vec<PathBuf>,
    watched: Option<u64>,
    dir: PathBuf,
    _one: MutexGuard<'static, ()>,
}

impl Cell {
    fn new(name: &str) -> Option<Self> {
        Self::with(name, true)
    }

    fn with(name: &str, enforcement: bool) -> Option<Self> {
        if std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1") {
            let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
            let (hierarchy, mount) = hierarchy();
            let mut config = SensorConfig::new(hierarchy);
            config.enforcement = enforcement;
            let dir = std::env::temp_dir()
                .join(format!("plimsoll-enforce-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("a directory");
            return Some(Self {
                sensor: Sensor::load(&config).expect("load the sensor"),
                mount,
                cgroups: Vec::new(),
                watched: None,
                dir,
                _one: one,
            });
        }
        None
    }

    /// A new container, held like this.
    fn held(&mut self, how: Option<Enforce>) -> (PathBuf, u64) {
        let n = self.cgroups.len();
        let name = format!("plimsoll-enforce-{}-{n}", std::process::id());
        let cgroup = self.mount.join(name);
        std::fs::create_dir(&cgroup).expect("make a cgroup");
        self.cgroups.push(cgroup.clone());
        let id = std::fs::metadata(&cgroup).expect("it is there").ino();
        let watch = Watch {
            cgroup_id: id,
            set: 0,
            dense_base: 0,
            dense_len: 0,
        };
        let control = self.sensor.control();
        // one at a time: the next one may be given the same mount namespace number
        if let Some(before) = self.watched.replace(id) {
            control.enforce(before, None).expect("let go");
            control.unwatch(before).expect("unwatch");
        }
        control.watch(&watch).expect("watch");
        control.enforce(id, how).expect("enforce");
        (cgroup, id)
    }

    fn start(&self, cgroup: &Path, argv: &[&str]) -> Child {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "sh", "-c", &script, "sh"])
            .args(argv);
        unshare
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        unshare.spawn().expect("unshare is there")
    }

    /// Reads until `enough`.
    fn read(&mut self, id: u64, mut enough: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        let end = Instant::now() + Duration::from_secs(120);
        while !enough(&events) {
            assert!(Instant::now() < end, "it does not come to that: {events:?}");
            let mut keep = |s| match s {
                Signal::Event(e) if e.cgroup_id == id => events.push(e),
                _ => {}
            };
            self.sensor
                .poll(Duration::from_millis(20), &mut keep)
                .expect("poll");
        }
        events
    }

    /// Runs a program to its end in a new container; its execs, and whether it ended by SIGKILL.
    fn run(&mut self, how: Option<Enforce>, argv: &[&str]) -> (Vec<Event>, bool) {
        use std::os::unix::process::ExitStatusExt as _;
        let (cgroup, id) = self.held(how);
        let mut child = self.start(&cgroup, argv);
        let mut ended = None;
        let mut quiet = 0;
        let events = self.read(id, |_| {
            ended = ended.or_else(|| child.try_wait().expect("wait"));
            quiet += u32::from(ended.is_some());
            quiet > 5
        });
        let killed = ended.and_then(|s| s.signal()) == Some(9);
        (execs(events), killed)
    }

    fn marker(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Where a program lives, as the kernel sees it, for a set that knows only that.
    fn place(&mut self, program: &str) -> (Text, Origin) {
        let (seen, _) = self.run(None, &[program, "--version"]);
        let [
            Event {
                kind: EventKind::Exec(x),
                ..
            },
        ] = &seen[..]
        else {
            panic!("one exec: {seen:?}");
        };
        (x.exe.clone(), x.origin)
    }

    fn allow(&self, programs: &[((Text, Origin), bool)]) {
        let entry = |((path, origin), ask): &((Text, Origin), bool)| AllowedEntry::Program {
            path: path.clone(),
            origin: *origin,
            ask: *ask,
        };
        let entries: Vec<_> = programs.iter().map(entry).collect();
        let control = self.sensor.control();
        control.load_allowed(SET, &entries).expect("load a set");
        control.enforce_until(FOR_EVER).expect("allow to prevent");
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        for cgroup in &self.cgroups {
            let end = Instant::now() + Duration::from_secs(5);
            while std::fs::remove_dir(cgroup).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn execs(events: Vec<Event>) -> Vec<Event> {
    let is_exec = |e: &Event| matches!(e.kind, EventKind::Exec(_));
    events.into_iter().filter(is_exec).collect()
}

fn how(kill: bool) -> Option<Enforce> {
    Some(Enforce {
        set: SET,
        programs: true,
        scripts: true,
        libraries: false,
        peers: false,
        kill,
    })
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn signal(pid: u32, number: i32) {
    let done = Command::new("kill")
        .args([format!("-{number}"), pid.to_string()])
        .status();
    assert!(done.expect("kill is there").success());
}

#[test]
fn a_program_outside_the_set_is_killed_before_its_first_instruction() {
    let Some(mut c) = Cell::new("kill") else {
        return;
    };
    let known = c.place("mkdir");
    c.allow(&[(known, false)]);
    let bad = c.marker("killed");
    let (seen, killed) = c.run(how(true), &["touch", &bad]);
    assert!(killed && !exists(&bad), "touch ran");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].enforced, Some(Enforced::Killed));
    // the near miss: known, in the same container
    let good = c.marker("made");
    let (seen, killed) = c.run(how(true), &["mkdir", &good]);
    assert!(!killed && exists(&good));
    assert_eq!(seen[0].enforced, None);
}

#[test]
fn nothing_is_prevented_when_the_word_is_old_the_switch_is_off_or_the_container_is_not_held() {
    let Some(mut c) = Cell::new("open") else {
        return;
    };
    c.allow(&[]);
    for (name, until, how) in [
        ("old", 1, how(true)),
        ("off", 0, how(true)),
        ("not-held", FOR_EVER, None),
    ] {
        c.sensor.control().enforce_until(until).expect("set");
        let marker = c.marker(name);
        let (seen, killed) = c.run(how, &["touch", &marker]);
        assert!(!killed && exists(&marker), "{name}");
        assert_eq!(seen[0].enforced, None, "{name}");
    }
}

#[test]
fn a_stopped_program_keeps_its_memory_and_has_run_nothing_until_it_is_decided() {
    let Some(mut c) = Cell::new("stop") else {
        return;
    };
    c.allow(&[]);
    for go_on in [true, false] {
        let marker = c.marker(&format!("stopped-{go_on}"));
        let (cgroup, id) = c.held(how(false));
        let mut child = c.start(&cgroup, &["touch", &marker]);
        let is_held = |e: &Event| e.enforced == Some(Enforced::Held);
        let events = c.read(id, |events| events.iter().any(is_held));
        let held = events.iter().find(|e| is_held(e)).expect("just seen");
        let pid = held.process.key.tgid;
        let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let end = Instant::now() + Duration::from_secs(120);
        while !status().contains("State:\tT") {
            assert!(Instant::now() < end, "it is not stopped: {}", status());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!exists(&marker));
        assert!(
            memory_of(pid).starts_with(b"\x7fELF"),
            "its memory can be read"
        );
        signal(pid, if go_on { 18 } else { 9 });
        let ended = child.wait().expect("wait");
        assert_eq!(ended.success(), go_on);
        assert_eq!(exists(&marker), go_on);
    }
}

/// The first bytes of a process's first mapping.
fn memory_of(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let first = maps.split('-').next().expect("an address");
    let at = u64::from_str_radix(first, 16).expect("hexadecimal");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let mut bytes = vec![0; 64];
    memory.read_exact_at(&mut bytes, at).expect("readable");
    bytes
}

#[test]
fn an_interpreter_is_asked_about_once_for_each_of_its_scripts() {
    let Some(mut c) = Cell::new("ask") else {
        return;
    };
    let (perl, origin) = c.place("perl");
    c.allow(&[((perl, origin), true)]);
    let script = |name: &str, marker: &str| {
        let path = c.dir.join(name);
        std::fs::write(&path, format!("open(F, '>', '{marker}');")).expect("a script");
        path.to_string_lossy().into_owned()
    };
    let (m1, m2) = (c.marker("one"), c.marker("two"));
    let (one, two) = (script("one.pl", &m1), script("two.pl", &m2));
    for expected in [Some(Enforced::Held), None] {
        let (cgroup, id) = c.held(how(true));
        let mut child = c.start(&cgroup, &["perl", &one]);
        let events = c.read(id, |e| !execs(e.to_vec()).is_empty());
        let event = &execs(events)[0];
        assert_eq!(event.enforced, expected);
        if expected.is_some() {
            assert!(!exists(&m1));
            let token = event.dict.expect("a token");
            let token = u64::from_ne_bytes(token[..8].try_into().expect("eight bytes"));
            c.sensor.control().allow_run(token).expect("allow");
            signal(event.process.key.tgid, 18);
        }
        assert!(child.wait().expect("wait").success());
        assert!(exists(&m1));
        std::fs::remove_file(&m1).expect("it is there");
    }
    // another script is another run
    let (cgroup, id) = c.held(how(true));
    let mut child = c.start(&cgroup, &["perl", &two]);
    let events = c.read(id, |e| !execs(e.to_vec()).is_empty());
    let event = &execs(events)[0];
    assert_eq!(event.enforced, Some(Enforced::Held));
    signal(event.process.key.tgid, 9);
    let _ = child.wait();
    assert!(!exists(&m2));
}

#[test]
fn the_first_process_of_a_pid_namespace_is_stopped_and_killed_like_any_other() {
    let Some(mut c) = Cell::new("init") else {
        return;
    };
    c.allow(&[]);
    let marker = c.marker("init");
    let (cgroup, id) = c.held(how(true));
    let script = format!(
        "echo 0 > {}/cgroup.procs && exec touch {marker}",
        cgroup.display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "sh", "-c", &script]);
    let mut child = unshare.spawn().expect("unshare is there");
    let mut ended = None;
    let mut quiet = 0;
    let events = c.read(id, |_| {
        ended = ended.or_else(|| child.try_wait().expect("wait"));
        quiet += u32::from(ended.is_some());
        quiet > 5
    });
    let execs = execs(events);
    assert!(
        execs.iter().any(|e| e.enforced == Some(Enforced::Killed)),
        "{execs:?}"
    );
    assert!(!exists(&marker));
}

// ---- programs that are forbidden as an answer to an alert ----

fn copy(cell: &Cell, of: &str, name: &str) -> String {
    let to = cell.marker(name);
    std::fs::copy(of, &to).expect("copy a program");
    to
}

/// Runs a program to its end in a container that is there; whether it was killed.
fn is_killed(cell: &mut Cell, (cgroup, id): &(PathBuf, u64), argv: &[&str]) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    let mut child = cell.start(cgroup, argv);
    let mut ended = None;
    cell.read(*id, |_| {
        ended = ended.or_else(|| child.try_wait().expect("wait"));
        ended.is_some()
    });
    ended.and_then(|s| s.signal()) == Some(9)
}

#[test]
fn a_blocked_program_is_killed_under_any_name_and_a_neighbour_is_not() {
    let Some(mut cell) = Cell::with("block", false) else {
        return;
    };
    let here = cell.held(None);
    let control = cell.sensor.control();
    let path = copy(&cell, "/bin/true", "one");
    let by_path = Block {
        what: Blocked::Path(Text::from(path.clone())),
        cgroup_id: here.1,
    };
    assert!(!is_killed(&mut cell, &here, &[&path]));
    control.block(&by_path, BootNs(FOR_EVER)).expect("block");
    assert!(is_killed(&mut cell, &here, &[&path]));
    assert!(!is_killed(&mut cell, &here, &["/bin/true"]), "another path");
    assert_eq!(control.blocked(&by_path), Some((BootNs(FOR_EVER), 1)));
    // its time is over, and what it has counted stays
    control.block(&by_path, BootNs(1)).expect("block");
    assert!(!is_killed(&mut cell, &here, &[&path]));
    assert_eq!(control.blocked(&by_path), Some((BootNs(1), 1)));
    assert!(control.unblock(&by_path).expect("unblock"));
    assert!(!control.unblock(&by_path).expect("again"));

    // the file that a process runs, renamed
    let sleep = copy(&cell, "/bin/sleep", "two");
    let mut child = cell.start(&here.0, &[&sleep, "60"]);
    let pid = child.id();
    cell.read(here.1, |events| {
        let is =
            |k: &EventKind| matches!(k, EventKind::Exec(x) if x.exe.as_bytes() == sleep.as_bytes());
        let mut all = events.iter();
        all.any(|e| e.process.key.tgid == pid && is(&e.kind))
    });
    assert_eq!(control.container_of(pid), Some(here.1));
    let file = control.program_of(pid).expect("it runs");
    let by_file = Block {
        what: Blocked::File(file),
        cgroup_id: 0,
    };
    control.block(&by_file, BootNs(FOR_EVER)).expect("block");
    let renamed = cell.marker("three");
    std::fs::rename(&sleep, &renamed).expect("rename");
    assert!(is_killed(&mut cell, &here, &[&renamed, "0"]));
    let copied = copy(&cell, &renamed, "four");
    assert!(
        !is_killed(&mut cell, &here, &[&copied, "0"]),
        "a copy is another file"
    );
    assert!(
        child.try_wait().expect("look").is_none(),
        "what runs goes on"
    );
    child.kill().expect("end our own");
    child.wait().expect("it ends");

    // another container is not meant by a block of one
    control.unblock(&by_file).expect("unblock");
    control.block(&by_path, BootNs(FOR_EVER)).expect("block");
    let there = cell.held(None);
    assert!(!is_killed(&mut cell, &there, &[&path]));
    let everywhere = Block {
        cgroup_id: 0,
        ..by_path
    };
    control.block(&everywhere, BootNs(FOR_EVER)).expect("block");
    assert!(is_killed(&mut cell, &there, &[&path]));
}
