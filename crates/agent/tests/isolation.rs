//! Isolation as the kernel carries it out, without a runtime: processes in a cgroup of version 2 and in
//! network namespaces of this test's own stand for a container. What talks there is this program itself
//! ([`talker`], [`listener`]). Needs root, `ip` and `nsenter` (`PLIMSOLL_HOST_TESTS=1`, set by
//! `scripts/test`); left out without, and said so there.

use plimsoll_agent::respond::Survey;
use plimsoll_agent::respond::act::{Action, Machine, Target, perform};
use plimsoll_model::response::{StepKind, StepOutcome};
use plimsoll_workload::{Layout, Version};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn wanted() -> bool {
    std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1")
}

/// For names: tests run beside each other.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{n}", std::process::id())
}

/// A cgroup; whatever is in it ends with the test.
struct Group {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Group {
    fn new(name: &str) -> Self {
        let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
        let v2 = layout.all.into_iter().find(|h| h.version == Version::V2);
        let mount = v2.expect("cgroup v2").mount;
        let dir = mount.join(format!("plimsoll-{name}-{}", unique()));
        fs::create_dir(&dir).expect("make a cgroup");
        Self {
            dir,
            children: Vec::new(),
        }
    }

    /// In a hierarchy of version 1, at a path below its mount; `None`, said: there is none here.
    fn in_v1(path: &str) -> Option<Self> {
        let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
        let Some(second) = layout.second else {
            eprintln!(
                "left out: containers without a cgroup of version 2 (no hierarchy of version 1)"
            );
            return None;
        };
        let dir = second.mount.join(path);
        fs::create_dir_all(&dir).expect("make a cgroup");
        Some(Self {
            dir,
            children: Vec::new(),
        })
    }

    /// Its id, as a runtime would call it.
    fn id_of(pid: u32) -> String {
        format!("{pid:064x}")
    }

    /// Runs a test of this program in it as a role, its sockets included, below this command.
    fn start(&mut self, below: &[&str], role: &str, at: &Path) -> u32 {
        let own = std::env::current_exe().expect("this program");
        let script = format!(
            "echo $$ >{}/cgroup.procs; PLIMSOLL_ROLE={} exec {} --exact {role} --nocapture",
            self.dir.display(),
            at.display(),
            own.display()
        );
        let mut all = below.to_vec();
        all.extend(["sh", "-c", &script]);
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start it");
        let pid = child.id();
        self.children.push(child);
        let procs = self.dir.join("cgroup.procs");
        wait_until("it is in its cgroup", || {
            let text = fs::read_to_string(&procs).unwrap_or_default();
            text.lines().any(|l| l == pid.to_string())
        });
        pid
    }

    fn target(&self, pid: u32) -> Target {
        Target::running(&Self::id_of(pid), pid, &format!("P-{pid}")).expect("it runs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.dir).is_err() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        // those that were made above it, of a pod; others' stay, since they are not empty
        for above in self.dir.ancestors().skip(1).take(3) {
            let _ = fs::remove_dir(above);
        }
    }
}

/// Two network namespaces with a cable between them: 198.51.100.1 and .2, 2001:db8:7::1 and ::2.
struct Cable([String; 2]);

impl Cable {
    fn new() -> Self {
        let id = unique();
        let this = Self([format!("plimsoll-a-{id}"), format!("plimsoll-b-{id}")]);
        let [a, b] = &this.0;
        let ip = |args: &str| {
            let out = Command::new("ip").args(args.split(' ')).output();
            let out = out.expect("run ip");
            assert!(out.status.success(), "ip {args}: {out:?}");
        };
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!(
            "-n {a} link add v0 type veth peer name v0 netns {b}"
        ));
        for (name, n) in [(a, 1), (b, 2)] {
            ip(&format!("-n {name} addr add 198.51.100.{n}/24 dev v0"));
            ip(&format!(
                "-n {name} -6 addr add 2001:db8:7::{n}/64 dev v0 nodad"
            ));
            ip(&format!("-n {name} link set v0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        this
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

// ---- the two ends ----

const PORT: u16 = 7001;
/// Ways to talk, by name.
const WAYS: [&str; 5] = ["tcp4", "tcp6", "mapped", "udp", "unix"];
const PATIENCE: Duration = Duration::from_secs(1);

/// A directory in which a role tells what it does; `None`: this is an ordinary run of the tests.
fn role() -> Option<PathBuf> {
    std::env::var_os("PLIMSOLL_ROLE").map(PathBuf::from)
}

fn note(dir: &Path, file: &str, words: &str) {
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(file));
    file.and_then(|mut f| f.write_all(words.as_bytes()))
        .expect("write a note");
}

/// Answers each byte with one, whichever way it came; says so when a connection ends.
#[test]
fn listener() {
    let Some(dir) = role() else { return };
    let tcp = TcpListener::bind(("::", PORT)).expect("listen");
    let udp = UdpSocket::bind(("0.0.0.0", PORT)).expect("bind");
    let unix = UnixListener::bind(dir.join("socket")).expect("listen");
    let echo = |dir: PathBuf, mut stream: Box<dyn ReadWrite>| {
        thread::spawn(move || {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            note(&dir, "ended", "x");
        })
    };
    thread::spawn({
        let dir = dir.clone();
        move || {
            for stream in unix.incoming().flatten() {
                echo(dir.clone(), Box::new(stream));
            }
        }
    });
    thread::spawn(move || {
        let mut byte = [0];
        while let Ok((_, from)) = udp.recv_from(&mut byte) {
            // whoever is cut off is not there
            let _ = udp.send_to(&byte, from);
        }
    });
    for stream in tcp.incoming().flatten() {
        echo(dir.clone(), Box::new(stream));
    }
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

struct Datagrams(UdpSocket);
impl Read for Datagrams {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.recv(to)
    }
}
impl Write for Datagrams {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.send(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect(way: &str, dir: &Path) -> io::Result<Box<dyn ReadWrite>> {
    let [v4, v6] = peers(dir);
    let mapped = match v4 {
        IpAddr::V4(a) => a.to_ipv6_mapped().into(),
        v6 => v6,
    };
    if way == "unix" {
        // never cut: however long an answer takes, it comes
        let stream = UnixStream::connect(dir.join("socket"))?;
        return Ok(Box::new(stream));
    }
    if way == "udp" {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((v4, PORT))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        return Ok(Box::new(Datagrams(socket)));
    }
    let to: IpAddr = match way {
        "tcp4" => v4,
        "tcp6" => v6,
        _ => mapped,
    };
    let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(Box::new(stream))
}

/// At least the three of TCP; that of UDP may have been refused a datagram and closed before, and tries
/// from before the network was up may still be open.
#[track_caller]
fn assert_ended(said: &str) {
    let (before, _) = said
        .split_once(" connections were ended (SOCK_DESTROY)")
        .unwrap_or_else(|| panic!("{said}"));
    let count = before
        .rsplit(' ')
        .next()
        .and_then(|n| n.parse::<u32>().ok());
    assert!(count >= Some(3), "{said}");
}

/// Forgets what went wrong before the network was up.
fn forget_errors(dir: &Path) {
    for way in WAYS {
        let _ = fs::remove_file(dir.join(format!("{way}.errors")));
    }
}

/// Where the listener is, IPv4 and IPv6.
fn peers(dir: &Path) -> [IpAddr; 2] {
    let text = fs::read_to_string(dir.join("peers")).expect("addresses");
    let mut all = text.lines().map(|l| l.parse().expect("an address"));
    [all.next().expect("v4"), all.next().expect("v6")]
}

/// Talks each way, connects again when that ends, and notes every answer and every error.
#[test]
fn talker() {
    let Some(dir) = role() else { return };
    let talk = |way: &'static str| {
        let dir = dir.clone();
        move || loop {
            let mut byte = [7];
            let ended: io::Result<()> = connect(way, &dir).and_then(|mut stream| {
                loop {
                    stream.write_all(&byte)?;
                    stream.read_exact(&mut byte)?;
                    note(&dir, &format!("{way}.{}", std::process::id()), "x");
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let e: io::Error = ended.expect_err("it ends by an error");
            note(&dir, &format!("{way}.errors"), &format!("{:?}\n", e.kind()));
            thread::sleep(Duration::from_millis(50));
        }
    };
    let all: Vec<_> = WAYS
        .into_iter()
        .map(|way| thread::spawn(talk(way)))
        .collect();
    // until this role is ended
    all.into_iter().for_each(|thread| drop(thread.join()));
}

/// How much a talker was answered.
fn answered(dir: &Path, way: &str, talker: u32) -> u64 {
    fs::metadata(dir.join(format!("{way}.{talker}"))).map_or(0, |m| m.len())
}
fn errors(dir: &Path, way: &str) -> String {
    fs::read_to_string(dir.join(format!("{way}.errors"))).unwrap_or_default()
}
/// Waits until all of these are answered from now on.
fn wait_for(dir: &Path, ways: &[&str], talker: u32) {
    let before: Vec<u64> = ways.iter().map(|w| answered(dir, w, talker)).collect();
    wait_until("it is answered", || {
        let now = ways.iter().map(|w| answered(dir, w, talker));
        now.zip(&before).all(|(now, before)| now > *before)
    });
}
/// That none of these is answered from now on, while `others` are.
fn assert_silent(dir: &Path, ways: &[&str], talker: u32, others: &[&str], other: u32) {
    let now = || -> Vec<u64> { ways.iter().map(|w| answered(dir, w, talker)).collect() };
    // an answer may be under way, and be noted as late as this machine likes; once
    let silent = (0..2).any(|_| {
        let before = now();
        thread::sleep(Duration::from_secs(3));
        wait_for(dir, others, other);
        now() == before
    });
    assert!(silent, "{ways:?} are answered: {:?}", now());
}

fn words(outcome: &StepOutcome) -> String {
    format!("{}: {}", outcome.as_str(), outcome.words())
}
#[track_caller]
fn isolate(target: &Target, allow: &[&str]) -> String {
    let prefix = |a: &&str| plimsoll_respond::parse_prefix(a).expect("a prefix");
    let allow = allow.iter().map(prefix).collect();
    let outcome = perform(&Machine::default(), target, &Action::Isolate { allow });
    assert!(outcome.is_done(), "{}", words(&outcome));
    words(&outcome)
}
fn restore(target: &Target) -> StepOutcome {
    let notes = Vec::new();
    let kind = StepKind::Isolate;
    perform(&Machine::default(), target, &Action::Undo { kind, notes })
}
/// What an agent that comes after finds.
fn holds(target: &Target) -> bool {
    let notes = Vec::new();
    let kind = StepKind::Isolate;
    perform(&Machine::default(), target, &Action::Look { kind, notes }).is_done()
}

/// A listener at the far end of a cable.
struct Far {
    dir: tempfile::TempDir,
    cable: Cable,
    _group: Group,
}

impl Far {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("peers"), "198.51.100.2\n2001:db8:7::2\n").expect("write");
        let (cable, mut group) = (Cable::new(), Group::new("far"));
        // `ip netns exec` would hide the cgroups
        let net = format!("--net=/run/netns/{}", cable.0[1]);
        group.start(&["nsenter", &net], "listener", dir.path());
        wait_until("it listens", || dir.path().join("socket").exists());
        Self {
            dir,
            cable,
            _group: group,
        }
    }
    fn talker(&self, group: &mut Group) -> u32 {
        let net = format!("--net=/run/netns/{}", self.cable.0[0]);
        let pid = group.start(&["nsenter", &net], "talker", self.dir.path());
        wait_for(self.dir.path(), &WAYS, pid);
        pid
    }
}

#[test]
fn what_is_established_ends_for_both_ends_whatever_the_protocol_and_unix_sockets_stay() {
    if !wanted() {
        return;
    }
    let far = Far::start();
    let dir = far.dir.path();
    let mut near = Group::new("near");
    let pid = far.talker(&mut near);
    let target = near.target(pid);
    let reach = Survey::new(Machine::default()).of(&target.container, &[]);
    assert!(reach[0].contains("nobody else is in it"), "{reach:?}");
    forget_errors(dir);
    let said = isolate(&target, &[]);
    assert!(said.contains("by rules in its network namespace"), "{said}");
    assert_ended(&said);
    assert!(
        said.contains("by programs on its cgroup (v2) too"),
        "{said}"
    );
    wait_until("the far end knows of all three", || {
        fs::metadata(dir.join("ended")).is_ok_and(|m| m.len() >= 3)
    });
    for way in ["tcp4", "tcp6", "mapped"] {
        wait_until("the near end knows", || !errors(dir, way).is_empty());
        let first = errors(dir, way);
        let told = ["ConnectionAborted", "ConnectionReset", "BrokenPipe"];
        assert!(told.iter().any(|k| first.starts_with(k)), "{way}: {first}");
    }
    wait_until("a datagram was refused", || !errors(dir, "udp").is_empty());
    assert_silent(dir, &WAYS[..4], pid, &["unix"], pid);
    assert_eq!(errors(dir, "unix"), "", "UNIX sockets stay");
    assert!(holds(&target));
    let back = restore(&target);
    assert!(back.is_done(), "{}", words(&back));
    assert!(!holds(&target));
    wait_for(dir, &WAYS, pid);

    // the allowed address alone: all of IPv4 goes on, whichever socket it comes from
    let said = isolate(&target, &["198.51.100.2"]);
    assert!(said.contains("connections were ended"), "{said}");
    assert!(said.contains("198.51.100.2 can be reached"), "{said}");
    assert_silent(dir, &["tcp6"], pid, &["tcp4", "mapped", "udp", "unix"], pid);
    assert!(restore(&target).is_done());
    wait_for(dir, &WAYS, pid);
}

#[test]
fn who_shares_a_network_is_named_and_goes_on_where_there_is_a_cgroup_of_version_2() {
    if !wanted() {
        return;
    }
    let far = Far::start();
    let dir = far.dir.path();
    let (mut hit, mut twin) = (Group::new("hit"), Group::new("twin"));
    let pid = far.talker(&mut hit);
    let other = far.talker(&mut twin);
    let target = hit.target(pid);
    let named = twin.target(other);
    let reach = Survey::new(Machine::default());
    let strangers = reach.of(&target.container, &[]);
    assert!(
        strangers[0].contains(&format!("process {other} (")) && strangers[0].contains("not cut"),
        "{strangers:?}"
    );
    let reach = Survey::new(Machine::default()).of(&target.container, &[&named.container]);
    assert!(reach[0].contains(named.container.id().short()), "{reach:?}");
    let said = isolate(&target, &[]);
    assert!(said.contains("by programs on its cgroup (v2)"), "{said}");
    assert_ended(&said);
    assert_silent(dir, &WAYS[..4], pid, &WAYS, other);
    assert!(holds(&target));
    assert!(restore(&target).is_done());
    assert!(!holds(&target));
    wait_for(dir, &WAYS, pid);
}

#[test]
fn a_container_in_the_hosts_network_is_cut_by_its_cgroup_and_nobody_else_is() {
    if !wanted() {
        return;
    }
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = tcp.local_addr().expect("an address").port();
    let accepted = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = accepted.clone();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            list.lock().expect("a list").push(stream);
        }
    });
    let count = || accepted.lock().expect("a list").len();
    let mut hit = Group::new("host");
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("caller"), port.to_string()).expect("write");
    let pid = hit.start(&["env"], "caller", dir.path());
    wait_until("it has called", || count() == 1);
    // of this test's own process, in the same network
    let mut mine = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let target = hit.target(pid);
    let reach = Survey::new(Machine::default()).of(&target.container, &[]);
    assert!(
        reach[0].contains("the host's network, where nobody else is cut"),
        "{reach:?}"
    );
    let said = isolate(&target, &[]);
    assert!(said.contains("which others use too"), "{said}");
    let first = accepted.lock().expect("a list")[0].try_clone();
    let mut first = first.expect("a copy");
    first.set_read_timeout(Some(PATIENCE)).expect("a time");
    wait_until("its connection has ended", || match first.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    });
    mine.write_all(&[1])
        .expect("this test's connection goes on");
    wait_until("this test's was taken", || count() >= 2);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(count(), 2, "it cannot call again");
    assert!(holds(&target));
    assert!(restore(&target).is_done());
    assert!(!holds(&target));
    wait_until("it calls again", || count() > 2);
}

/// Calls a port of this machine, waits until that ends, calls again.
#[test]
fn caller() {
    let Some(dir) = role() else { return };
    let port = fs::read_to_string(dir.join("caller")).expect("a port");
    let to: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
    loop {
        if let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) {
            let _ = stream.read(&mut [0]);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

// ---- kernels that fail, agents that are killed ----

/// `faults.c`, made; `None`, said: no C compiler.
fn faults(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/faults.c");
    let program = dir.join("faults");
    let made = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(source)
        .status();
    if made.is_err() {
        eprintln!("left out: there is no C compiler here");
        return None;
    }
    assert!(made.is_ok_and(|s| s.success()), "cc faults.c");
    Some(program)
}

/// Not a test: acts in a process of its own, as an agent that may be killed would, and notes what came of it.
#[test]
fn actor() {
    let Some(dir) = role() else { return };
    let of = |file: &str| fs::read_to_string(dir.join(file)).expect("an order");
    let pid: u32 = of("pid").parse().expect("a number");
    let target = Target::running(&Group::id_of(pid), pid, &format!("P-{pid}")).expect("it runs");
    let (kind, notes) = (StepKind::Isolate, Vec::new());
    let allow = Vec::new();
    let action = match of("order").as_str() {
        "isolate" => Action::Isolate { allow },
        "restore" => Action::Undo { kind, notes },
        _ => Action::Look { kind, notes },
    };
    let outcome = perform(&Machine::default(), &target, &action);
    fs::write(dir.join("said"), words(&outcome)).expect("write");
}

/// Has [`actor`] do it below a program of faults; its exit status, and what came of it if it came to that.
fn act(faults: &Path, how: &[&str], pid: u32, order: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("pid"), pid.to_string()).expect("write");
    fs::write(dir.path().join("order"), order).expect("write");
    let mut command = Command::new(faults);
    command
        .args(how)
        .arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", "actor", "--nocapture", "--test-threads=1"]);
    command
        .env("PLIMSOLL_ROLE", dir.path())
        .stdin(Stdio::null());
    let out = command.output().expect("run it");
    let said = fs::read_to_string(dir.path().join("said")).unwrap_or_default();
    (out.status.code(), said)
}

#[test]
fn without_nf_tables_its_cgroup_is_cut_and_without_that_it_says_not_available_and_cuts_nothing() {
    if !wanted() {
        return;
    }
    let far = Far::start();
    let dir = far.dir.path();
    let Some(faults) = faults(dir) else { return };
    let mut near = Group::new("no-tables");
    let pid = far.talker(&mut near);
    let order = |pid, order| act(&faults, &["no-tables"], pid, order).1;
    let said = order(pid, "isolate");
    assert!(said.starts_with("done: "), "{said}");
    assert!(said.contains("by programs on its cgroup (v2)"), "{said}");
    assert_silent(dir, &WAYS[..4], pid, &["unix"], pid);
    assert!(order(pid, "look").starts_with("done: "), "it holds");
    let back = order(pid, "restore");
    assert!(back.starts_with("done: "), "{back}");
    assert!(!order(pid, "look").starts_with("done: "));
    wait_for(dir, &WAYS, pid);

    let Some(mut old) = Group::in_v1(&format!("plimsoll-old-{}", unique())) else {
        return;
    };
    let alone = Far::start();
    let pid = alone.talker(&mut old);
    let said = order(pid, "isolate");
    assert!(
        said.starts_with("unavailable: not available here: "),
        "{said}"
    );
    assert!(
        said.contains("no nf_tables") && said.contains("nothing is cut"),
        "{said}"
    );
    wait_for(alone.dir.path(), &WAYS, pid);
    assert!(!order(pid, "look").starts_with("done: "), "never claimed");
}

#[test]
fn a_pod_without_a_cgroup_of_version_2_is_cut_as_a_whole_and_the_plan_names_who_is_in_it() {
    if !wanted() {
        return;
    }
    let far = Far::start();
    let dir = far.dir.path();
    let pod = format!(
        "kubepods/besteffort/pod0e2f4c1a-0000-4000-8000-{:012}",
        std::process::id()
    );
    let id = |n: u32| {
        format!(
            "{pod}/{:064x}",
            u64::from(std::process::id()) << 8 | u64::from(n)
        )
    };
    let Some(mut hit) = Group::in_v1(&id(1)) else {
        return;
    };
    let Some(mut beside) = Group::in_v1(&id(2)) else {
        return;
    };
    let (pid, other) = (far.talker(&mut hit), far.talker(&mut beside));
    let (target, named) = (hit.target(pid), beside.target(other));
    let reach = Survey::new(Machine::default()).of(&target.container, &[&named.container]);
    assert!(reach[0].contains("of its pod"), "{reach:?}");
    assert!(reach[0].contains(named.container.id().short()), "{reach:?}");
    assert!(reach[0].contains("cut off too"), "{reach:?}");
    let said = isolate(&target, &[]);
    assert!(said.contains("by rules in its network namespace"), "{said}");
    assert_silent(dir, &WAYS[..4], other, &["unix"], pid);
    assert_silent(dir, &WAYS[..4], pid, &["unix"], other);
    assert!(holds(&target));
    assert!(restore(&target).is_done());
    wait_for(dir, &WAYS, pid);
    wait_for(dir, &WAYS, other);
}

#[test]
fn an_agent_that_is_killed_at_any_word_with_the_kernel_leaves_what_the_next_one_finishes_or_takes_back()
 {
    if !wanted() {
        return;
    }
    let far = Far::start();
    let dir = far.dir.path();
    let Some(faults) = faults(dir) else { return };
    let mut near = Group::new("killed");
    let pid = far.talker(&mut near);
    let target = near.target(pid);
    let (mut killed, mut held) = (0, 0);
    for n in 1..=200 {
        let (status, said) = act(&faults, &["kill", &n.to_string()], pid, "isolate");
        if status != Some(77) {
            assert_eq!(status, Some(0), "{said}");
            assert!(said.starts_with("done: "), "{said}");
            assert!(restore(&target).is_done());
            break;
        }
        killed += 1;
        if holds(&target) {
            // what the next agent believes is so: nothing is answered over a time in which it would be
            held += 1;
        }
        // a look takes seconds: at some of many
        if held % 8 == 1 && holds(&target) {
            assert_silent(dir, &WAYS[..4], pid, &["unix"], pid);
        } else if n % 2 == 0 && !holds(&target) {
            // what does not hold is done again by the next agent, over whatever is there
            let said = isolate(&target, &[]);
            assert!(holds(&target), "{n}: {said}");
        }
        // or taken back, whole or half
        let back = restore(&target);
        assert!(back.is_done(), "{n}: {}", words(&back));
        assert!(!holds(&target), "{n}");
        wait_for(dir, &WAYS, pid);
    }
    eprintln!("killed at {killed} places; after {held} of them the cut held");
    assert!(killed >= 5, "{killed}");
}
