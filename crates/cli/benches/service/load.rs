//! Load inside a container. Each prints one line: what it did.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) fn run(args: &[String]) {
    let number = |i: usize| -> u64 { args[i].parse().expect("a number") };
    match args[0].as_str() {
        "known" => known(number(1), number(2)),
        "flood" => flood(number(1)),
        "shadow" => shadow(number(1)),
        "read" => drop(File::open(&args[1])),
        other => panic!("no load is called {other}"),
    }
}

/// Sleeps until `done` of `rate` a second are due.
fn keep_to(rate: u64, done: u64, from: Instant) {
    let due = Duration::from_nanos((done as u128 * 1_000_000_000 / rate as u128) as u64);
    let now = from.elapsed();
    if due > now {
        std::thread::sleep(due - now);
    }
}

/// System calls of which every one is known after the first.
fn known(rate: u64, seconds: u64) {
    let from = Instant::now();
    let mut byte = [0];
    let mut done = 0;
    while from.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..75 {
            if let Ok(mut file) = File::open("/bench/file") {
                let _ = file.read(&mut byte);
            }
            std::hint::black_box(std::os::unix::process::parent_id());
            done += 4;
        }
        keep_to(rate, done, from);
    }
    println!("{:.0}", done as f64 / from.elapsed().as_secs_f64());
}

fn flood(seconds: u64) {
    let from = Instant::now();
    let mut done = 0u64;
    while from.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1000 {
            drop(File::open("/etc/hostname"));
        }
        done += 1000;
    }
    let rate = done as f64 / from.elapsed().as_secs_f64();
    println!("{rate:.0} opens a second in the flood");
}

fn shadow(reads: u64) {
    let mut done = 0;
    for i in 0..reads {
        let program = format!("/bench/bin/p{i}");
        let ran = Command::new(program)
            .args(["--load", "read", "/etc/shadow"])
            .status();
        done += u64::from(ran.is_ok_and(|s| s.success()));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{done}");
}
