//! Effects on real containers, of each cgroup version: what the kernel does afterwards, not what
//! is said about it.

use crate::{Agent, alone, docker_socket};
use plimsoll_agent::respond::act::{Action, Machine, Target, perform};
use plimsoll_model::response::{StepKind, StepOutcome};
use plimsoll_model::*;
use plimsoll_workload::Layout;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Goes on writing as long as it runs.
const BUSY: &str = "while :; do echo x >>/tmp/count; sleep 0.02; done";

/// A running container of crun, in one cgroup hierarchy only; ended with the test.
pub(crate) struct Crun {
    pub(crate) dir: tempfile::TempDir,
    name: String,
    cgroups: &'static str,
}

impl Crun {
    /// `change`: of the bundle's `config.json`, with jq.
    pub(crate) fn start(cgroups: &'static str, work: &str, change: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let unique = dir.path().file_name().expect("a name").to_string_lossy();
        let unique: String = unique.chars().filter(|c| c.is_alphanumeric()).collect();
        let this = Self {
            name: format!("effect-{cgroups}-{unique}"),
            dir,
            cgroups,
        };
        let bundle = this.dir.path().join("bundle");
        let lib = std::env::var("PLIMSOLL_TEST_LIB").expect("scripts/test sets it");
        let mut make = Command::new(format!("{lib}/images"));
        make.arg("bundle").arg(&bundle).args(["sh", "-c", work]);
        assert!(make.status().expect("make a bundle").success());
        let config = bundle.join("config.json");
        let changed = Command::new("jq").arg(change).arg(&config).output();
        let changed = changed.expect("run jq");
        assert!(changed.status.success(), "{changed:?}");
        std::fs::write(&config, changed.stdout).expect("write");
        let run = ["run", "--detach", "--bundle"];
        let mut run = this.crun(&run);
        run.arg(&bundle).arg(&this.name);
        // a detached container keeps these open
        let status = run.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("run crun").success(), "crun run");
        this
    }

    fn crun(&self, args: &[&str]) -> Command {
        let mut c =
            Command::new(std::env::var("PLIMSOLL_TEST_CRUN").expect("scripts/test sets it"));
        c.env("PLIMSOLL_TEST_CGROUPS", self.cgroups)
            .arg("--root")
            .arg(self.dir.path().join("crun"))
            .args(args)
            .stdin(Stdio::null());
        c
    }

    pub(crate) fn pid(&self) -> u32 {
        let out = self
            .crun(&["state", &self.name])
            .output()
            .expect("run crun");
        let state: serde_json::Value = serde_json::from_slice(&out.stdout).expect("its state");
        state["pid"].as_u64().expect("a pid") as u32
    }
    pub(crate) fn target(&self, process: Option<ProcessKey>) -> Target {
        target(&self.name, self.pid(), process)
    }
}

impl Drop for Crun {
    fn drop(&mut self) {
        let _ = self.crun(&["delete", "--force", &self.name]).status();
    }
}

/// What the agent would know of the container in which `pid` runs.
pub(crate) fn target(id: &str, pid: u32, process: Option<ProcessKey>) -> Target {
    Target {
        process,
        ..Target::running(id, pid, "P-1").expect("it runs")
    }
}

pub(crate) fn machine(dir: &Path) -> Machine {
    Machine {
        captures_dir: dir.join("captures"),
        freezes_dir: dir.join("freezes"),
        program: env!("CARGO_BIN_EXE_plimsoll").into(),
        ..Machine::default()
    }
}

pub(crate) fn words(outcome: &StepOutcome) -> String {
    format!("{}: {}", outcome.as_str(), outcome.words())
}

/// How far `BUSY` has come.
fn count(pid: u32) -> u64 {
    let file = PathBuf::from(format!("/proc/{pid}/root/tmp/count"));
    std::fs::metadata(file).map_or(0, |m| m.len())
}
fn moves(pid: u32) -> bool {
    let before = count(pid);
    std::thread::sleep(Duration::from_millis(400));
    count(pid) != before
}
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
/// A container that works, as it is acted upon, and its first process.
fn at_work(version: &'static str) -> (Crun, Target, u32) {
    let crun = Crun::start(version, BUSY, ".");
    let (target, pid) = (crun.target(None), crun.pid());
    wait_until("it works", || moves(pid));
    (crun, target, pid)
}

/// Cgroup versions that this machine has.
pub(crate) fn versions() -> Vec<&'static str> {
    if Path::new("/sys/fs/cgroup/freezer").exists() {
        return vec!["v1", "v2"];
    }
    eprintln!("left out: v1, of which this machine has no hierarchy");
    vec!["v2"]
}

#[test]
fn a_freeze_holds_until_it_is_taken_back_or_its_budget_ends() {
    if docker_socket().is_none() {
        return;
    }
    for version in versions() {
        let (crun, target, pid) = at_work(version);
        let machine = machine(crun.dir.path());
        let freeze = |budget| {
            let budget = Duration::from_millis(budget);
            let outcome = perform(&machine, &target, &Action::Freeze { budget });
            assert!(outcome.is_done(), "{version}: {}", words(&outcome));
            outcome
        };
        let said = words(&freeze(60_000));
        assert!(said.contains(&format!("cgroup {version}")), "{said}");
        assert!(said.contains("outside the agent's cgroups"), "{said}");
        assert!(!moves(pid), "{version}: it stands still");
        let undo = Action::Undo {
            kind: StepKind::Freeze,
            notes: Vec::new(),
        };
        assert!(perform(&machine, &target, &undo).is_done());
        wait_until("it goes on", || moves(pid));

        freeze(1500);
        wait_until("the budget has ended", || moves(pid));

        // what somebody else has stopped is not ours to let go
        let file = ["cgroup.freeze", "freezer.state"].map(|f| {
            let mount = [
                "/sys/fs/cgroup/unified",
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/freezer",
            ];
            let path = target.container.cgroup_path.to_str_lossy().into_owned();
            let all = mount.map(|m| PathBuf::from(format!("{m}{path}/{f}")));
            all.into_iter().find(|p| p.exists())
        });
        let (file, stop, go) = match file {
            [Some(v2), _] => (v2, "1", "0"),
            [None, Some(v1)] => (v1, "FROZEN", "THAWED"),
            _ => panic!("no freezer"),
        };
        std::fs::write(&file, stop).expect("freeze it");
        wait_until("it stands still", || !moves(pid));
        freeze(100);
        assert!(perform(&machine, &target, &undo).is_done());
        assert!(!moves(pid), "{version}: it was stopped by somebody else");
        std::fs::write(&file, go).expect("thaw it");
    }
}

#[test]
fn an_agent_that_dies_while_it_freezes_anew_leaves_the_first_watchdog_in_charge() {
    if docker_socket().is_none() {
        return;
    }
    for version in versions() {
        let (crun, target, pid) = at_work(version);
        let mut machine = machine(crun.dir.path());
        let budget = Duration::from_secs(3);
        let freeze = Action::Freeze { budget };
        let first = perform(&machine, &target, &freeze);
        assert!(first.is_done(), "{version}: {}", words(&first));
        // begun again after a restart, and ended before its watchdog was there
        machine.program = "/bin/false".into();
        let again = perform(&machine, &target, &freeze);
        assert!(!again.is_done(), "{version}: {}", words(&again));
        wait_until("the first watchdog lets it go", || moves(pid));
    }
}

#[test]
fn a_watchdog_that_is_slow_to_start_takes_nothing_of_the_budget() {
    use std::os::unix::fs::PermissionsExt as _;
    if docker_socket().is_none() {
        return;
    }
    let (crun, target, pid) = at_work("v2");
    let mut machine = machine(crun.dir.path());
    let slow = crun.dir.path().join("slow");
    let text = format!(
        "#!/bin/sh\nsleep 1\nexec {} \"$@\"\n",
        machine.program.display()
    );
    std::fs::write(&slow, text).expect("a program");
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("to be run");
    machine.program = slow;
    let budget = Duration::from_millis(900);
    let outcome = perform(&machine, &target, &Action::Freeze { budget });
    assert!(outcome.is_done(), "{}", words(&outcome));
    wait_until("the budget has ended", || moves(pid));
}

#[test]
fn two_plans_that_freeze_and_thaw_one_container_never_leave_it_frozen() {
    if docker_socket().is_none() {
        return;
    }
    for version in versions() {
        let (crun, target, pid) = at_work(version);
        let machine = machine(crun.dir.path());
        let budget = Duration::from_secs(5);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        perform(&machine, &target, &Action::Freeze { budget });
                        perform(&machine, &target, &Action::Thaw);
                    }
                });
            }
        });
        wait_until("it goes on", || moves(pid));
    }
}

/// An agent whose policy answers a dropped program in containers with this label.
pub(crate) fn agent_with(docker: &str, label: &str, steps: &str, more: &str) -> Agent {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let policy = format!(
        "version: 1\n{more}policies:\n  - name: dropped program\n    match: {{labels: {{plimsoll-test: {label}}}, risk: high}}\n    dry_run: false\n    steps: {steps}\n"
    );
    std::fs::write(at("policy.yaml"), policy).expect("write");
    let config = format!(
        "version: 1\nlearning: {{slot_seconds: 1}}\nruntimes: {{docker_sockets: ['{docker}']}}\nresponse: {{policy: '{}'}}\n",
        at("policy.yaml").display()
    );
    std::fs::write(at("config.yaml"), config).expect("write");
    Agent::start_in(dir, docker.to_owned())
}

/// A Docker container, removed with the test.
pub(crate) struct Docked {
    docker: String,
    pub(crate) name: &'static str,
}
impl Docked {
    pub(crate) fn start(docker: &str, name: &'static str, more: &[&str], work: &str) -> Self {
        Self::start_of(docker, name, "plimsoll-test/busybox:1", more, work)
    }
    pub(crate) fn start_of(
        docker: &str,
        name: &'static str,
        image: &str,
        more: &[&str],
        work: &str,
    ) -> Self {
        let this = Self {
            docker: docker.to_owned(),
            name,
        };
        this.call(&["rm", "-f", name]);
        let mut run = vec!["run", "-d", "--name", name];
        run.extend(more);
        run.extend([image, "sh", "-c", work]);
        let out = this.call(&run);
        assert!(out.status.success(), "{out:?}");
        this
    }
    fn call(&self, args: &[&str]) -> std::process::Output {
        let mut c = Command::new("docker");
        c.args(["-H", &format!("unix://{}", self.docker)])
            .args(args);
        c.output().expect("run docker")
    }
    pub(crate) fn inspect(&self, format: &str) -> String {
        let out = self.call(&["inspect", "-f", format, self.name]);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.inspect("{{.State.Pid}}");
        pid.parse().expect("a pid")
    }
    pub(crate) fn address(&self) -> String {
        self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }
    pub(crate) fn target(&self) -> Target {
        target(&self.inspect("{{.Id}}"), self.pid(), None)
    }
    /// Detached: an exec into a container that the policy stops would not come back.
    pub(crate) fn exec(&self, work: &str) {
        let out = self.call(&["exec", "-d", self.name, "sh", "-c", work]);
        assert!(out.status.success(), "{out:?}");
    }
    /// Bytes of a file in it.
    pub(crate) fn length(&self, path: &str) -> u64 {
        let file = format!("/proc/{}/root{path}", self.pid());
        std::fs::metadata(file).map_or(0, |m| m.len())
    }
    /// Whether a file in it goes on growing.
    pub(crate) fn grows(&self, path: &str) -> bool {
        let before = self.length(path);
        std::thread::sleep(Duration::from_millis(500));
        self.length(path) != before
    }
}
impl Drop for Docked {
    fn drop(&mut self) {
        self.call(&["rm", "-f", self.name]);
    }
}

#[test]
fn a_frozen_container_goes_on_although_its_agent_was_killed() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let label = "plimsoll-test=freeze";
    const BUDGET: Duration = Duration::from_secs(12);
    let steps = format!("[{{freeze: {{budget: {}s}}}}]", BUDGET.as_secs());
    let mut agent = agent_with(&docker, "freeze", &steps, "");
    let it = Docked::start(&docker, "effect-freeze", &["--label", label], BUSY);
    let pid = it.pid();
    let attacked = Instant::now();
    it.exec("cp /bin/busybox /tmp/dropped; /tmp/dropped true");
    let frozen = || {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(file).expect("it runs");
        let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
        let dir = layout.dir(layout.path_in(&text).expect("a path"));
        let events = dir.expect("a directory").join("cgroup.events");
        let events = std::fs::read_to_string(events).unwrap_or_default();
        events.contains("frozen 1")
    };
    agent.wait_until("it is frozen", frozen);
    agent.child.kill().expect("kill our own agent");
    agent.child.wait().expect("it ends");
    // unless all this has taken longer than it may stand still
    let still = frozen() && !moves(pid);
    assert!(
        still || attacked.elapsed() > BUDGET,
        "it stands still without the agent"
    );
    wait_until("the watchdog lets it go", || moves(pid));
}

#[test]
fn what_is_frozen_can_be_removed_and_nothing_of_it_runs_again() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let mut machine = machine(dir.path());
    machine.docker_sockets = vec![docker.clone().into()];
    let it = Docked::start(&docker, "effect-frozen", &[], BUSY);
    let target = it.target();
    wait_until("it works", || it.grows("/tmp/count"));
    let budget = Duration::from_secs(60);
    let frozen = perform(&machine, &target, &Action::Freeze { budget });
    assert!(frozen.is_done(), "{}", words(&frozen));
    let removed = perform(&machine, &target, &Action::Remove);
    assert!(removed.is_done(), "{}", words(&removed));
    assert_eq!(members(&target), [0; 0]);
}

/// Takes what is sent to it over TCP; a connection of whose end it was not told holds up no other.
pub(crate) const PEER: &str = "nc -ll -p 7000 -e sh -c 'cat >>/tmp/got'";

/// TCP connections that are established in a process's network.
fn established(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it runs");
    let states = text.lines().filter_map(|l| l.split_whitespace().nth(3));
    states.filter(|s| *s == "01").count()
}

/// UDP broadcasts that have arrived where nobody listens, such as DHCP discoveries.
fn broadcasts(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).expect("it runs");
    let mut udp = text.lines().filter(|l| l.starts_with("Udp:"));
    let names = udp.next().expect("names").split_whitespace();
    let numbers = udp.next().expect("numbers").split_whitespace();
    let found = names.zip(numbers).find(|(name, _)| *name == "IgnoredMulti");
    found.expect("the counter").1.parse().expect("a number")
}

fn undo(kind: StepKind) -> Action {
    Action::Undo {
        kind,
        notes: Vec::new(),
    }
}

#[test]
fn isolation_cuts_what_is_established_and_raw_and_undo_gives_it_back() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let machine = machine(dir.path());
    let far = Docked::start(&docker, "effect-far", &[], PEER);
    let near = Docked::start(&docker, "effect-near", &[], PEER);
    let (to_far, to_near) = (far.address(), near.address());
    // again when it has ended; what says nothing for two seconds has
    let talk = |to: &str| {
        let say = "while echo x; do sleep 0.1; done";
        format!("while :; do ({say}) | nc -w 2 {to} 7000; sleep 0.2; done & ")
    };
    let work = format!("{} {} sleep 600", talk(&to_far), talk(&to_near));
    let cut = Docked::start(&docker, "effect-cut", &[], &work);
    wait_until("both hear it", || {
        far.grows("/tmp/got") && near.grows("/tmp/got")
    });
    let raw = || cut.exec("udhcpc -i eth0 -n -q -t 2 -T 1 -s /bin/true");
    raw();
    wait_until("raw packets arrive", || broadcasts(far.pid()) > 0);

    let target = cut.target();
    let allow = vec![(to_near.parse().expect("an address"), 32)];
    let outcome = perform(&machine, &target, &Action::Isolate { allow });
    eprintln!("{}", words(&outcome));
    assert!(outcome.is_done(), "{}", words(&outcome));
    assert!(words(&outcome).contains(&format!("{to_near} can be reached")));
    assert!(
        !words(&outcome).contains("CAP_NET_ADMIN"),
        "Docker does not give it"
    );
    assert!(words(&outcome).contains("1 connections were ended"));
    wait_until("the far end knows of the end too", || {
        established(far.pid()) == 0
    });
    assert!(!far.grows("/tmp/got"), "the established connection is cut");
    wait_until("the allowed one goes on", || near.grows("/tmp/got"));
    std::thread::sleep(Duration::from_secs(2));
    let before = broadcasts(far.pid());
    raw();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(broadcasts(far.pid()), before, "raw packets are cut too");

    // an agent that has begun anew knows it by the rules alone
    let look = Action::Look {
        kind: StepKind::Isolate,
        notes: Vec::new(),
    };
    assert!(perform(&machine, &target, &look).is_done());
    let back = perform(&machine, &target, &undo(StepKind::Isolate));
    assert!(back.is_done(), "{}", words(&back));
    assert_eq!(perform(&machine, &target, &look).as_str(), "failed");
    wait_until("it can be connected again", || far.grows("/tmp/got"));
}

#[test]
fn a_network_that_others_use_too_is_cut_by_the_cgroup_or_not_at_all() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let machine = machine(dir.path());
    let isolate = |target: &Target| {
        let has_v2 = std::fs::read_to_string(format!("/proc/{}/cgroup", members(target)[0]));
        let has_v2 = has_v2.expect("it runs").lines().any(|l| {
            let path = l.strip_prefix("0::");
            path.is_some_and(|p| p != "/")
        });
        let outcome = perform(&machine, target, &Action::Isolate { allow: Vec::new() });
        let expected = if has_v2 { "done" } else { "unavailable" };
        assert_eq!(outcome.as_str(), expected, "{}", words(&outcome));
        words(&outcome)
    };
    // the network of this process, which is the host's
    let own = "del(.linux.namespaces[] | select(.type == \"network\"))";
    for version in versions() {
        let crun = Crun::start(version, "sleep 600", own);
        let said = isolate(&crun.target(None));
        let expected = match version {
            "v1" => "uses the host's network",
            _ => "which others use too",
        };
        assert!(said.contains(expected), "{version}: {said}");
    }

    let one = Docked::start(&docker, "effect-one", &[], PEER);
    let with = ["--network", "container:effect-one"];
    let talk = "while :; do echo x; sleep 0.1; done | nc 127.0.0.1 7000";
    let two = Docked::start(&docker, "effect-two", &with, talk);
    wait_until("it is heard", || one.grows("/tmp/got"));
    // the one that talks is cut off, and its neighbour, who listens, is not
    let said = isolate(&two.target());
    match said.starts_with("done") {
        true => {
            assert!(said.contains("which others use too"), "{said}");
            assert!(!one.grows("/tmp/got"), "it is cut off");
            one.exec("while :; do echo x; sleep 0.1; done | nc 127.0.0.1 7000");
            wait_until("its neighbour goes on", || one.grows("/tmp/got"));
        }
        false => assert!(said.contains("not of the container"), "{said}"),
    }
}

/// A network namespace of this test, and its end.
struct Namespace(String);
impl Namespace {
    fn new() -> Self {
        let this = Self(format!("plimsoll-effect-{}", std::process::id()));
        this.ip(&["netns", "add", &this.0]);
        this.ip(&["-n", &this.0, "link", "add", "d0", "type", "bridge"]);
        this.ip(&["-n", &this.0, "addr", "add", "198.51.100.1/24", "dev", "d0"]);
        this.ip(&["-n", &this.0, "link", "set", "d0", "up"]);
        this
    }
    fn ip(&self, args: &[&str]) {
        let out = Command::new("ip").args(args).output().expect("run ip");
        assert!(out.status.success(), "ip {args:?}: {out:?}");
    }
    /// What `ping` in it says about an address: the kernel's refusal, or silence.
    fn is_refused(&self, address: &str) -> bool {
        let mut ping = Command::new("ip");
        ping.args([
            "netns", "exec", &self.0, "busybox", "ping", "-c1", "-W1", address,
        ]);
        let out = ping.output().expect("run busybox");
        String::from_utf8_lossy(&out.stderr).contains("not permitted")
    }
}
impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn forbidden_addresses_are_refused_on_the_node_and_free_after_undo() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let space = Namespace::new();
    let mut machine = machine(dir.path());
    // not in the namespace of this machine: others work there
    machine.node_network = Some(format!("/run/netns/{}", space.0).into());
    let it = Docked::start(&docker, "effect-block", &[], "sleep 600");
    let target = it.target();
    let list = "198.51.100.7, 198.51.100.16/28";
    let addresses: Vec<_> = list
        .split(", ")
        .map(|a| plimsoll_respond::parse_prefix(a).expect("a prefix"))
        .collect();
    assert!(!space.is_refused("198.51.100.7"));
    let block = Action::BlockAddress { addresses };
    let outcome = perform(&machine, &target, &block);
    assert!(outcome.is_done(), "{}", words(&outcome));
    for (address, refused) in [("7", true), ("20", true), ("8", false), ("32", false)] {
        let address = format!("198.51.100.{address}");
        assert_eq!(space.is_refused(&address), refused, "{address}");
    }
    let back = Action::Undo {
        kind: StepKind::BlockAddress,
        notes: vec![("address".to_owned(), list.to_owned())],
    };
    assert!(perform(&machine, &target, &back).is_done());
    assert!(!space.is_refused("198.51.100.7"));

    let everything = vec![("0.0.0.0".parse().expect("an address"), 0)];
    let everything = Action::BlockAddress {
        addresses: everything,
    };
    assert_eq!(perform(&machine, &target, &everything).as_str(), "refused");
}

// ---- killing ----

/// Processes of a container, by the kernel's word.
fn members(target: &Target) -> Vec<u32> {
    let path = target.container.cgroup_path.to_str_lossy().into_owned();
    let mut all: Vec<u32> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            text.is_ok_and(|t| t.lines().any(|l| l.ends_with(&path)))
        })
        .collect();
    all.sort_unstable();
    all
}
/// The member whose command line begins so.
fn running(target: &Target, command: &str) -> Option<u32> {
    let begins_so = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.starts_with(command)
    };
    let all = members(target).into_iter().filter(begins_so);
    // numbers wrap, and who forked has the line of its parent: the eldest is meant
    all.filter_map(|pid| Some((start_ticks(pid)?, pid)))
        .min()
        .map(|(_, pid)| pid)
}

fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(pid, 19)?.parse().ok()
}

/// Ended, and not yet taken note of by its parent.
fn is_zombie(pid: u32) -> bool {
    stat_field(pid, 0).is_none_or(|state| state == "Z" || state == "X")
}

/// A field of `/proc/PID/stat` behind the name.
fn stat_field(pid: u32, n: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(n).map(str::to_owned)
}

fn key(pid: u32) -> ProcessKey {
    let ticks = start_ticks(pid).expect("it runs");
    ProcessKey {
        tgid: pid,
        start: BootNs(ticks * 10_000_000),
    }
}
fn kill(machine: &Machine, target: &Target, pid: u32) -> StepOutcome {
    let target = Target {
        process: Some(key(pid)),
        ..target.clone()
    };
    perform(machine, &target, &Action::KillTree)
}

#[test]
fn a_tree_is_killed_with_the_pid_namespaces_in_it_and_the_first_process_is_spared() {
    if docker_socket().is_none() {
        return;
    }
    let work = "unshare -pf sh -c 'sleep 500 & sleep 501; true' & sleep 502 & wait; sleep 503";
    let nested = ".process.capabilities |= map_values(. + [\"CAP_SYS_ADMIN\"])";
    let host = "del(.linux.namespaces[] | select(.type == \"pid\"))";
    for (version, change) in versions().into_iter().flat_map(|v| {
        let both = format!("{nested} | {host}");
        [(v, nested.to_owned()), (v, both)]
    }) {
        let crun = Crun::start(version, work, &change);
        let (machine, target) = (machine(crun.dir.path()), crun.target(None));
        let what = format!("{version}, {change}");
        wait_until("all of it runs", || {
            (500..503).all(|n| running(&target, &format!("sleep {n}")).is_some())
        });
        let first = kill(&machine, &target, crun.pid());
        assert_eq!(first.as_str(), "refused", "{what}: {}", words(&first));
        let root = running(&target, "unshare").expect("it runs");
        let outcome = kill(&machine, &target, root);
        assert!(outcome.is_done(), "{what}: {}", words(&outcome));
        for n in [500, 501] {
            assert_eq!(running(&target, &format!("sleep {n}")), None, "{what}");
        }
        assert!(
            running(&target, "sleep 502").is_some(),
            "{what}: not of the tree"
        );
        assert!(members(&target).contains(&crun.pid()), "{what}");
        let again = Target {
            process: Some(ProcessKey {
                tgid: running(&target, "sleep 502").expect("it runs"),
                start: BootNs(10_000_000),
            }),
            ..target.clone()
        };
        assert!(perform(&machine, &again, &Action::KillTree).is_done());
        assert!(
            running(&target, "sleep 502").is_some(),
            "another of that number"
        );
    }
}

#[test]
fn processes_that_fork_all_the_time_are_all_killed() {
    if docker_socket().is_none() {
        return;
    }
    // no faster than the machine has numbers for them: a shell that cannot fork ends by itself; long
    // enough that there are many on a machine that forks slowly, too
    let work =
        "sh -c 'while :; do (sleep 30; sleep 30) & sleep 0.01; done' storm & sleep 600; true";
    let crun = Crun::start("v2", work, ".");
    let (machine, target) = (machine(crun.dir.path()), crun.target(None));
    wait_until("there are many", || members(&target).len() > 300);
    let root = running(&target, "sh -c while").expect("it runs");
    let outcome = kill(&machine, &target, root);
    assert!(outcome.is_done(), "{}", words(&outcome));
    let mut left = members(&target);
    left.retain(|pid| !is_zombie(*pid));
    assert!(left.len() == 2 && left.contains(&crun.pid()), "{left:?}");
    let count: u32 = words(&outcome)
        .split(' ')
        .find_map(|w| w.parse().ok())
        .expect("a number");
    assert!(count > 200, "{count}");
}

#[test]
fn what_is_killed_while_paused_is_gone_and_the_rest_stays_paused() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let mut machine = machine(dir.path());
    machine.docker_sockets = vec![docker.clone().into()];
    let work = format!("sh -c 'sleep 500; true' & {BUSY}");
    let it = Docked::start(&docker, "effect-paused", &[], &work);
    let target = it.target();
    wait_until("it runs", || running(&target, "sh -c sleep").is_some());
    assert!(perform(&machine, &target, &Action::Pause).is_done());
    let root = running(&target, "sh -c sleep").expect("it is there");
    let outcome = kill(&machine, &target, root);
    assert!(outcome.is_done(), "{}", words(&outcome));
    assert_eq!(running(&target, "sleep 500"), None);
    assert!(!it.grows("/tmp/count"), "it is still paused");
    assert!(perform(&machine, &target, &undo(StepKind::Pause)).is_done());
    wait_until("it goes on", || it.grows("/tmp/count"));
}
