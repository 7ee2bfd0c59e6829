//! How soon a network is cut: from the decision, handed to the effect, until the kernel refuses a packet.
//!
//! `cargo run --release -p plimsoll-agent --example isolate` (root, `ip`, `nsenter`; `scripts/bench
//! response`). A process in a cgroup and a network namespace of this program's own stands for a
//! container. A thread of this program in the same namespace sends without pause and notes when it is
//! refused; nobody's word is taken for it. Beside it, one plain nf_tables rule set written by `nft`, where
//! that is installed: what the quickest way by hand costs.

use plimsoll_agent::respond::act::{Action, Machine, Target, perform};
use plimsoll_model::response::StepKind;
use plimsoll_workload::{Layout, Version};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Cuts that are measured.
const ROUNDS: usize = 100;
const BOUND_MS: f64 = 50.0;

fn main() {
    let place = Place::new();
    let target = place.target();
    let machine = Machine::default();
    let undo = Action::Undo {
        kind: StepKind::Isolate,
        notes: Vec::new(),
    };
    let isolate = || {
        let allow = Vec::new();
        let outcome = perform(&machine, &target, &Action::Isolate { allow });
        assert!(outcome.is_done(), "{}", outcome.words());
    };
    let restore = || {
        let outcome = perform(&machine, &target, &undo);
        assert!(outcome.is_done(), "{}", outcome.words());
    };
    let (mut effective, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (soon, all) = place.until_refused(isolate);
        effective.push(soon);
        whole.push(all);
        restore();
    }
    say("decision to refused packet", &mut effective, Some(BOUND_MS));
    say("decision to looked at and done", &mut whole, None);
    let Some(mut by_hand) = place.by_hand() else {
        println!("nft by hand: left out, it is not installed");
        return;
    };
    say("the same rules' core by nft", &mut by_hand, None);
    println!(
        "ratio to nft (medians): {:.2}",
        median(&effective) / median(&by_hand)
    );
}

fn say(what: &str, all: &mut [f64], bound: Option<f64>) {
    all.sort_by(f64::total_cmp);
    let bound = bound.map_or(String::new(), |b| format!(" (bound: {b} ms)"));
    println!(
        "{what}: median {:.1} ms, p95 {:.1} ms, most {:.1} ms of {}{bound}",
        median(all),
        all[all.len() * 95 / 100],
        all[all.len() - 1],
        all.len()
    );
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// A network namespace with a pair of interfaces, a cgroup, and a process in both.
struct Place {
    name: String,
    cgroup: PathBuf,
    child: Child,
}

impl Place {
    fn new() -> Self {
        let name = format!("plimsoll-bench-{}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link add d0 type veth peer name d1"));
        ip(&format!("-n {name} addr add 198.51.100.1/24 dev d0"));
        ip(&format!("-n {name} link set d0 up"));
        ip(&format!("-n {name} link set d1 up"));
        ip(&format!("-n {name} link set lo up"));
        let cgroup = v2().join(&name);
        fs::create_dir(&cgroup).expect("make a cgroup (root)");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}"));
        let child = command.args(["sleep", "6000"]).stdin(Stdio::null()).spawn();
        let child = child.expect("run nsenter");
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("move it");
        // nsenter is in its namespace when it has become what it was to run
        let comm = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&comm).is_ok_and(|c| c.trim() != "sleep") {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            name,
            cgroup,
            child,
        }
    }

    fn target(&self) -> Target {
        let pid = self.child.id();
        Target::running(&format!("{pid:064x}"), pid, "P-bench").expect("it runs")
    }

    /// Milliseconds until a packet from the namespace is refused, and until `act` has returned.
    fn until_refused(&self, act: impl FnOnce()) -> (f64, f64) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("open");
        let goes = Arc::new(AtomicBool::new(false));
        let tell = goes.clone();
        let sender = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter");
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("bind");
            loop {
                match socket.send_to(&[], ("198.51.100.9", 9)) {
                    Err(e) if e.kind() == ErrorKind::PermissionDenied => return Instant::now(),
                    _ => tell.store(true, Ordering::Relaxed),
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        while !goes.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(100));
        }
        let began = Instant::now();
        act();
        let all = began.elapsed();
        let refused = sender.join().expect("it is refused");
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        (ms(refused.duration_since(began)), ms(all))
    }

    fn by_hand(&self) -> Option<Vec<f64>> {
        let nft = |rules: &str| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", self.name));
            let out = command.args(["nft", rules]).output().ok()?;
            out.status.success().then_some(())
        };
        let cut = "add table inet by_hand; add chain inet by_hand out { type filter hook output priority -450; policy drop; }; add chain inet by_hand in { type filter hook input priority -450; policy drop; }";
        nft(cut)?;
        nft("delete table inet by_hand")?;
        let mut all = Vec::new();
        for _ in 0..ROUNDS {
            let (soon, _) = self.until_refused(|| nft(cut).expect("it did before"));
            nft("delete table inet by_hand")?;
            all.push(soon);
        }
        Some(all)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.cgroup);
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn v2() -> PathBuf {
    let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
    let v2 = layout.all.into_iter().find(|h| h.version == Version::V2);
    v2.expect("cgroup v2").mount
}

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output();
    let out = out.expect("run ip");
    assert!(out.status.success(), "ip {args}: {out:?}");
}
