//! How many novel events a second the agent takes from the reader to the journal, on this machine:
//! inbox, attribution (one container, a lineage of three), baselines and journal are the real
//! ones; the kernel is not there.
//!
//! `cargo run --release -p plimsoll-agent --example throughput [events] [DIR]`; with
//! `PLIMSOLL_BENCH_RULES` a file or directory of Falco rules judges the events too, and says of each
//! whether its repeats have to be emitted.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use plimsoll_model::Stage;
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(500_000);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = args.next().map_or(scratch.path().to_owned(), Into::into);
    let mut config = Rig::config(&dir);
    config.rules.paths = std::env::var_os("PLIMSOLL_BENCH_RULES")
        .into_iter()
        .map(Into::into)
        .collect();
    let attributor = plimsoll_workload::Attributor::new(Default::default(), Paper);
    let rig = Rig::start(&config, &Hands::new(), attributor);
    let at = rig.now();
    rig.deliver(docker_arrival(at, 7, &"0123456789abcdef".repeat(4)));
    rig.deliver(event(at, 7, 9, 1, exec("/sbin/tini")));
    rig.deliver(event(at, 7, 10, 9, exec("/usr/sbin/nginx")));
    rig.settle();
    let cpu = plimsoll_agent::machine::cpu_ms();
    let began = Instant::now();
    let inbox = &rig.agent.shared().inbox;
    for n in 0..events {
        let mut novel = event(at, 7, 10, 9, read(&format!("/srv/{}/{n}", n % 1000)));
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
        "{events} events in {seconds:.2} s: {:.0}/s, {:.1} µs of CPU each (all threads), {} MiB resident, {lost} lost, {} records",
        events as f64 / seconds,
        cpu as f64 * 1000.0 / events as f64,
        memory >> 20,
        records.len()
    );
}
