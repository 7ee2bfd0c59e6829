//! How many novel events a second the agent takes from the reader to the journal, on this machine:
//! inbox, attribution (one container, a lineage of three), baselines and journal are the real
//! ones; the kernel is not there.
//!
//! `cargo run --release -p plimsoll-agent --example throughput [events]`. The same events are taken
//! without rules, with our own, and with those of `PLIMSOLL_BENCH_RULES` (a file or directory in the Falco
//! language) beside ours, turn by turn, so that a busy machine is busy for all of them; rules also say
//! of each event whether its repeats have to be emitted. Last with our own rules as drifts: a program that
//! was dropped makes, moves and removes files and meets peers, and all of that waits for approval.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use plimsoll_model::event::{Connection, Exec, FileEvent};
use plimsoll_model::{EventKind, FileOp, Origin, Proto, SockAddr, Stage};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(500_000);
    let theirs: Vec<std::path::PathBuf> = std::env::var_os("PLIMSOLL_BENCH_RULES")
        .into_iter()
        .map(Into::into)
        .collect();
    let mut turns = vec![("without rules", false, Vec::new(), Acts::Reads)];
    turns.push(("our own rules", true, Vec::new(), Acts::Reads));
    if !theirs.is_empty() {
        turns.push(("our own rules and those named", true, theirs, Acts::Reads));
    }
    turns.push(("our own rules, drifts", true, Vec::new(), Acts::Drifts));
    let mut cpu_us: Vec<Vec<f64>> = vec![Vec::new(); turns.len()];
    for _ in 0..ROUNDS {
        for ((what, own, rules, acts), cpu_us) in turns.iter().zip(&mut cpu_us) {
            cpu_us.push(turn(what, events, *own, rules, *acts));
        }
    }
    let medians: Vec<f64> = cpu_us
        .iter_mut()
        .map(|rounds| {
            rounds.sort_by(f64::total_cmp);
            rounds[rounds.len() / 2]
        })
        .collect();
    for ((what, ..), us) in turns.iter().zip(&medians) {
        let ratio = us / medians[0];
        println!("{what}: {us:.1} µs of CPU an event, {ratio:.2} x of that without rules");
    }
}

/// What is done, ever anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acts {
    /// A server reads its files: learned until the baseline is full.
    Reads,
    /// What a dropped program does: `acts novel` of the host tests, act by act.
    Drifts,
}

impl Acts {
    fn act(self, n: u64) -> EventKind {
        let file = |op, path: String, target: String| {
            EventKind::File(FileEvent {
                raw: None,
                mode: None,
                op,
                path: path.into(),
                target: target.into(),
                origin: Origin::Tmpfs,
                flags: 0,
                result: 0,
            })
        };
        let name = |kind, n| format!("/bench/{kind}{n}");
        match (self, n % 8) {
            (Acts::Reads, _) => read(&format!("/srv/{}/{n}", n % 1000)),
            (Acts::Drifts, 0 | 4) => EventKind::Datagram(Connection {
                proto: Proto::Udp,
                peer: SockAddr::Inet(
                    std::net::Ipv4Addr::from(0x7f00_0001 + n as u32).into(),
                    1024,
                ),
                local: None,
                result: 0,
            }),
            (Acts::Drifts, 1 | 5) => file(FileOp::Rename, name('f', n - 4), name('f', n)),
            (Acts::Drifts, 2) => file(FileOp::Mkdir, name('d', n), String::new()),
            (Acts::Drifts, 3) => file(FileOp::Rmdir, name('d', n - 1), String::new()),
            (Acts::Drifts, 6) => file(FileOp::Create, name('n', n), String::new()),
            (Acts::Drifts, _) => file(FileOp::Unlink, name('n', n - 1), String::new()),
        }
    }
}

/// Microseconds of processor time of an event, all threads.
fn turn(what: &str, events: u64, own: bool, rules: &[std::path::PathBuf], acts: Acts) -> f64 {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut config = Rig::config(dir.path());
    config.rules.builtin = own;
    config.rules.paths = rules.to_vec();
    let attributor = plimsoll_workload::Attributor::new(Default::default(), Paper);
    let rig = Rig::start(&config, &Hands::new(), attributor);
    let at = rig.now();
    rig.deliver(docker_arrival(at, 7, &"0123456789abcdef".repeat(4)));
    rig.deliver(event(at, 7, 9, 1, exec("/sbin/tini")));
    rig.deliver(event(at, 7, 10, 9, exec("/usr/sbin/nginx")));
    if acts == Acts::Drifts {
        let dropped = Exec {
            origin: Origin::Volume,
            exe: "/acts".into(),
            argv: vec!["/acts".into(), "novel".into()],
            mode: 0o755,
            ..Exec::default()
        };
        rig.deliver(event(at, 7, 10, 9, EventKind::Exec(dropped)));
    }
    rig.settle();
    let cpu = plimsoll_agent::machine::cpu_ms();
    let began = Instant::now();
    let inbox = &rig.agent.shared().inbox;
    for n in 0..events {
        let mut novel = event(at, 7, 10, 9, acts.act(n));
        let mut key = [0; 48];
        key[..8].copy_from_slice(&n.to_ne_bytes());
        novel.dict = Some(key);
        novel.dense = 1;
        rig.deliver(novel);
        // as the ring does: the generator is not faster than the reader for long
        while inbox.fill().bulk > 16_000 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
    rig.settle();
    let seconds = began.elapsed().as_secs_f64();
    let cpu = plimsoll_agent::machine::cpu_ms() - cpu;
    let memory = plimsoll_agent::machine::resident_bytes().unwrap_or(0);
    rig.agent.stop("bench");
    let records = records(&config);
    let lost: u64 = gaps(&records, Stage::Queue)
        .iter()
        .filter_map(|g| g.count)
        .sum();
    println!(
        "{what}: {events} events in {seconds:.2} s: {:.0}/s, {:.1} µs of CPU each (all threads), {} MiB resident, {lost} lost, {} records",
        events as f64 / seconds,
        cpu as f64 * 1000.0 / events as f64,
        memory >> 20,
        records.len()
    );
    cpu as f64 * 1000.0 / events as f64
}
