//! What captures cost: the sweep of 50 processes, and 1 GiB of memory against copying the same bytes.
//!
//! `cargo run --release -p plimsoll-agent --example capture [DIR]` (root; `scripts/bench capture`). Makes
//! a cgroup of its own and processes in it, which stand for a container; DIR (default: a scratch
//! directory below `/var/tmp`) is the disk that is written to.

use plimsoll_agent::respond::act::{Action, Machine, Target, perform};
use plimsoll_agent::respond::capture::Room;
use plimsoll_model::response::StepOutcome;
use plimsoll_model::*;
use plimsoll_workload::{Layout, Version};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Processes of the sweep.
const PROCESSES: usize = 50;
/// Memory of the large one, bytes.
const MEMORY: usize = 1 << 30;
/// Rounds of each; the median counts.
const ROUNDS: usize = 5;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--hold") {
        hold();
    }
    let given = std::env::args().nth(1).map(PathBuf::from);
    let scratch = tempfile::tempdir_in(given.unwrap_or_else(|| "/var/tmp".into()));
    let scratch = scratch.expect("a directory");
    let id = format!("{:064x}", std::process::id());
    let group = Group::new(&id);
    let machine = Machine {
        captures_dir: scratch.path().join("captures"),
        captures_room: Room {
            max_bytes: u64::MAX,
            min_free: 0,
        },
        ..Machine::default()
    };
    let target = target(&id);

    let mut sleepers: Vec<Child> = (0..PROCESSES)
        .map(|_| group.start(Command::new("sleep").arg("600")))
        .collect();
    let sweeps = (0..ROUNDS).map(|_| seconds(&machine, &target, &Action::Snapshot));
    let sweep = median(sweeps.map(|(s, _)| s).collect());
    end(&mut sleepers);
    println!(
        "sweep of {PROCESSES} processes: {:.0} ms (bound: 1000 ms)",
        sweep * 1e3
    );

    let program = std::env::current_exe().expect("this program");
    let mut holder = Command::new(program);
    let mut holder = group.start(holder.arg("--hold").stdout(Stdio::piped()));
    let mut ready = [0];
    let out = holder.stdout.as_mut().expect("its output");
    std::io::Read::read_exact(out, &mut ready).expect("it holds its memory");
    // peak memory of this process from here on
    fs::write("/proc/self/clear_refs", "5").expect("reset the peak");
    let before = status("VmRSS:");
    let mut times = Vec::new();
    let mut copies = Vec::new();
    for _ in 0..ROUNDS {
        let (time, file) = seconds(&machine, &target, &Action::Memory { all: true });
        let copy = scratch.path().join("copy");
        let began = Instant::now();
        let dd = Command::new("dd")
            .arg(format!("if={}", file.display()))
            .arg(format!("of={}", copy.display()))
            .args(["bs=4M", "conv=fsync", "status=none"])
            .status();
        assert!(dd.expect("run dd").success());
        copies.push(began.elapsed().as_secs_f64());
        times.push(time);
        fs::remove_file(file).expect("remove");
        fs::remove_file(copy).expect("remove");
    }
    let peak = status("VmHWM:");
    end(&mut [holder]);
    let (memory, copy) = (median(times), median(copies));
    let mib = MEMORY as f64 / f64::from(1 << 20);
    println!(
        "memory of 1 GiB, sealed and hashed: {memory:.2} s, {:.0} MiB/s",
        mib / memory
    );
    println!(
        "dd of the same bytes with fsync: {copy:.2} s, {:.0} MiB/s",
        mib / copy
    );
    println!("ratio to dd: {:.2}", memory / copy);
    println!(
        "memory of this process: {} MiB before, peak {} MiB (bound: 64 MiB)",
        before / 1024,
        peak / 1024
    );
}

/// Fills memory with what cannot be compressed, says so, and waits.
fn hold() -> ! {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut memory = vec![0_u64; MEMORY / 8];
    for word in &mut memory {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state;
    }
    println!("held {}", memory.len());
    std::thread::sleep(Duration::from_secs(600));
    drop(memory);
    std::process::exit(0)
}

/// A cgroup that carries the id of a container; removed with it.
struct Group(PathBuf);

impl Group {
    fn new(id: &str) -> Self {
        let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
        let v2 = layout.all.into_iter().find(|h| h.version == Version::V2);
        let mount = v2.expect("cgroup v2").mount;
        let path = mount.join(format!("plimsoll-bench-{id}"));
        fs::create_dir(&path).expect("make a cgroup (root)");
        Group(path)
    }
    fn start(&self, command: &mut Command) -> Child {
        let child = command.stdin(Stdio::null()).spawn().expect("start it");
        let procs = self.0.join("cgroup.procs");
        fs::write(procs, child.id().to_string()).expect("move it");
        child
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn end(children: &mut [Child]) {
    for child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// How long it takes, and the sealed file.
fn seconds(machine: &Machine, target: &Target, action: &Action) -> (f64, PathBuf) {
    let began = Instant::now();
    let outcome = perform(machine, target, action);
    let time = began.elapsed().as_secs_f64();
    match outcome {
        StepOutcome::Done {
            sealed: Some(name), ..
        } => (time, machine.captures_dir.join(name)),
        other => panic!("{}", other.words()),
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.expect("a number of KiB")
}

fn target(id: &str) -> Target {
    let container = Container {
        name: "bench".to_owned(),
        cgroup_id: 1,
        state: ContainerState::Running,
        ..Container::new(
            Instance {
                id: ContainerId::parse(id).expect("an id"),
                start: BootNs(1),
            },
            Runtime::Oci,
            Stamp::default(),
        )
    };
    Target {
        container: Arc::new(container),
        process: None,
        program: None,
        plan: "P-bench".to_owned(),
    }
}
