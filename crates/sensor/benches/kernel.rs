//! What the kernel side costs and what it loses: ratios with and without the sensor, alternating in
//! one run. Needs root; `make bench` runs it.
//!
//! The measured process is this binary again, in a cgroup of its own that is watched like a
//! container's (known behaviour never leaves the kernel, so no agent is needed for the ratios).
//!
//! `programs` as argument: which program runs how often in an operation, and for how long. `novel`: only
//! the novel events. `recorder`: what the recorder adds to a known event. `ratios [OPERATION...]`: only those. With `PLIMSOLL_BENCH_PROCESSOR` the ratios are of processor time,
//! which a busy machine disturbs less than the clock; what the reader takes is not in it then.

use plimsoll_model::EventKind;
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("child") => return child(&args[2..]),
        Some("nothing") => return,
        Some("programs") => return programs(&hierarchy()),
        Some("ratios") => {
            // cargo adds options of its own
            let only: Vec<String> = args[2..]
                .iter()
                .filter(|a| !a.starts_with('-'))
                .cloned()
                .collect();
            return ratios(&hierarchy(), &only);
        }
        Some("novel") => return novel(&hierarchy()),
        Some("recorder") => return recorder(&hierarchy()),
        _ => {}
    }
    let hierarchy = hierarchy();
    println!("machine: {}", machine());
    println!(
        "hierarchy: {hierarchy:?}; {ROUNDS} rounds, with and without the sensor in turn; medians\n"
    );
    println!(
        "| inside a watched container | without | with | ratio | bound |\n|---|---|---|---|---|"
    );
    ratios(&hierarchy, &[]);
    println!();
    novel(&hierarchy);
    shadow(&hierarchy);
}

/// What is measured: its name, the operation, whether inside of the container, the bound.
const RATIOS: &[(&str, &str, bool, f64)] = &[
    ("open+read+close of a known file", "orc", true, 1.20),
    ("getppid", "getppid", true, 1.15),
    ("getppid outside any container", "getppid", false, 1.15),
    ("fork+exec of a small program", "exec", true, 1.10),
];

/// All of them, or those of some operations.
fn ratios(hierarchy: &Hierarchy, only: &[String]) {
    for (what, op, inside, bound) in RATIOS {
        if only.is_empty() || only.iter().any(|o| o == op) {
            ratio(hierarchy, what, op, *inside, *bound);
        }
    }
}

/// How often each program runs in an operation and what the kernel's own clock says of a run. Its
/// counting adds some 40 ns to each run, so this says where time goes, not how much there is.
fn programs(h: &Hierarchy) {
    let cg = Cgroup::new(h, "programs");
    let mut sensor = load(h);
    watch(&sensor, &cg);
    #[allow(unsafe_code)]
    // SAFETY: a plain system call; the descriptor that it returns is closed when this program ends.
    let counting = unsafe { libbpf_rs::libbpf_sys::bpf_enable_stats(0) };
    assert!(counting >= 0, "the kernel does not count run times");
    println!(
        "| operation | program | runs an operation | ns a run | ns an operation |\n|---|---|---|---|---|"
    );
    for (op, operations) in [
        ("getppid", 3_300_000.0),
        ("orc", 220_000.0),
        ("exec", 1_100.0),
    ] {
        let before = sensor.run_times();
        std::thread::scope(|s| {
            let child = s.spawn(|| run_child(Some(&cg), &[op]));
            while !child.is_finished() {
                sensor
                    .poll(Duration::from_millis(50), &mut |_| {})
                    .expect("read events");
            }
        });
        for ((name, runs, ns), (_, r, n)) in sensor.run_times().iter().zip(&before) {
            let (runs, ns) = ((runs - r) as f64, (ns - n) as f64);
            if ns / operations > 1.0 {
                println!(
                    "| {op} | {name} | {:.2} | {:.0} | {:.0} |",
                    runs / operations,
                    ns / runs,
                    ns / operations
                );
            }
        }
    }
}

fn machine() -> String {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: "))
        .unwrap_or("unknown CPU");
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    format!(
        "{cores} × {model}, kernel {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// The pids controller of cgroup v1 where it is mounted, else cgroup v2.
fn hierarchy() -> Hierarchy {
    let v1 = PathBuf::from("/sys/fs/cgroup/pids");
    if v1.join("cgroup.procs").exists() {
        return Hierarchy::V1 {
            controller: "pids".into(),
            mount: v1,
        };
    }
    Hierarchy::V2 {
        mount: "/sys/fs/cgroup".into(),
    }
}

fn mount(h: &Hierarchy) -> &Path {
    match h {
        Hierarchy::V1 { mount, .. } | Hierarchy::V2 { mount } => mount,
    }
}

/// A cgroup that goes when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(h: &Hierarchy, name: &str) -> Self {
        let dir = mount(h).join(format!("plimsoll-bench-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).expect("make a cgroup (root?)");
        Cgroup(dir)
    }
    fn id(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&self.0)
            .expect("the cgroup is there")
            .ino()
    }
}
impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs this binary as a child in the cgroup and returns what it printed.
fn run_child(cgroup: Option<&Cgroup>, args: &[&str]) -> String {
    // a mount namespace of its own, as every container has: without one it counts as the runtime
    let mut c = Command::new("unshare");
    c.args(["--mount", "/bin/sh"]);
    // the shell moves itself, so that what follows is in the cgroup from its exec on
    let script = match cgroup {
        Some(cg) => format!(
            "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
            cg.0.display()
        ),
        None => "exec \"$0\" \"$@\"".to_owned(),
    };
    c.arg("-c")
        .arg(script)
        .arg(std::env::current_exe().expect("own path"))
        .arg("child")
        .args(args);
    let out = c.stdin(Stdio::null()).output().expect("run a child");
    assert!(
        out.status.success(),
        "child failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn watch(sensor: &Sensor, cgroup: &Cgroup) {
    sensor
        .control()
        .watch(&Watch {
            cgroup_id: cgroup.id(),
            set: 0,
            dense_base: 0,
            dense_len: 0,
        })
        .expect("watch the cgroup");
}

fn load(h: &Hierarchy) -> Sensor {
    Sensor::load(&SensorConfig::new(h.clone())).expect("load the sensor")
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn ratio(h: &Hierarchy, what: &str, op: &str, inside: bool, bound: f64) {
    let (mut without, mut with, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let cg = Cgroup::new(h, "ratio");
        let cg_of_child = inside.then_some(&cg);
        let off = nanoseconds(cg_of_child, op);
        let on = watched_nanoseconds(&SensorConfig::new(h.clone()), &cg, cg_of_child, op);
        without.push(off);
        with.push(on);
        ratios.push(on / off);
    }
    println!(
        "| {what} | {:.0} ns | {:.0} ns | {:.3} | {bound:.2} |",
        median(without),
        median(with),
        median(ratios)
    );
}

/// Nanoseconds of an operation.
fn nanoseconds(cgroup: Option<&Cgroup>, op: &str) -> f64 {
    run_child(cgroup, &[op]).parse().expect("nanoseconds")
}

/// The same while a sensor watches `watched`, in the steady state.
fn watched_nanoseconds(
    config: &SensorConfig,
    watched: &Cgroup,
    cgroup: Option<&Cgroup>,
    op: &str,
) -> f64 {
    let mut sensor = Sensor::load(config).expect("load the sensor");
    watch(&sensor, watched);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = sensor.poll(Duration::from_millis(50), &mut |_| {});
        }
    });
    // right after attaching, the kernel still patches text and waits for readers
    std::thread::sleep(Duration::from_secs(3));
    let took = nanoseconds(cgroup, op);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    reader.join().expect("the reader ends");
    took
}

/// What the recorder adds to a known event: the same programs with its memory and with none.
fn recorder(h: &Hierarchy) {
    let (mut without, mut with, mut more) = (vec![], vec![], vec![]);
    for round in 0..2 * ROUNDS {
        let cg = Cgroup::new(h, "recorder");
        let full = SensorConfig::new(h.clone());
        let mut none = full.clone();
        none.recorder_bytes = 0;
        let took = |config: &SensorConfig| watched_nanoseconds(config, &cg, Some(&cg), "orc");
        let (off, on) = match round % 2 {
            0 => {
                let off = took(&none);
                (off, took(&full))
            }
            _ => {
                let on = took(&full);
                (took(&none), on)
            }
        };
        without.push(off);
        with.push(on);
        more.push(on - off);
    }
    println!(
        "open+read+close of a known file: {:.0} ns without recorder, {:.0} ns with; {:+.1} ns, median of {} pairs (bound 20)",
        median(without),
        median(with),
        median(more),
        2 * ROUNDS
    );
}

/// What the measured process does; prints nanoseconds an operation, or a count.
fn child(args: &[String]) {
    match args[0].as_str() {
        "getppid" => println!(
            "{}",
            per_op(3_000_000, || std::hint::black_box(
                std::os::unix::process::parent_id()
            ))
        ),
        "orc" => {
            let mut buf = [0u8; 64];
            println!(
                "{}",
                per_op(200_000, || {
                    use std::io::Read;
                    let _ = std::fs::File::open("/etc/hostname").and_then(|mut f| f.read(&mut buf));
                })
            );
        }
        "exec" => {
            let own = std::env::current_exe().expect("own path");
            println!(
                "{}",
                per_op(1_000, || drop(Command::new(&own).arg("nothing").status()))
            );
        }
        "shadow" => {
            let flood = std::thread::spawn(|| {
                let end = Instant::now() + Duration::from_secs(5);
                while Instant::now() < end {
                    for _ in 0..1000 {
                        drop(std::fs::File::open("/etc/hostname"));
                    }
                }
            });
            for _ in 0..200 {
                drop(std::fs::File::open("/etc/shadow"));
                std::thread::sleep(Duration::from_millis(20));
            }
            flood.join().unwrap();
        }
        other => panic!("unknown operation {other}"),
    }
}

fn per_op<T>(n: u32, mut f: impl FnMut() -> T) -> f64 {
    for _ in 0..n / 10 {
        f();
    }
    let (start, used) = (Instant::now(), processor_ns());
    for _ in 0..n {
        f();
    }
    if std::env::var_os("PLIMSOLL_BENCH_PROCESSOR").is_some() {
        return (processor_ns() - used) as f64 / f64::from(n);
    }
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

/// Processor time of this process and of its children that ended. On a busy machine it says more than
/// the clock does.
fn processor_ns() -> u64 {
    let of = |who| {
        // SAFETY: rusage is plain data for which all zeroes is valid, written by the call alone.
        #[allow(unsafe_code)]
        let used = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut used);
            used
        };
        let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
        ns(used.ru_utime) + ns(used.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

/// The acts of the host tests: a static program that does only what it counts.
fn acts() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/host/acts/acts.c");
    let program = std::env::temp_dir().join(format!("plimsoll-bench-acts-{}", std::process::id()));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-static", "-pthread", "-o"]).arg(&program);
    let built = cc.arg(source).status();
    assert!(built.is_ok_and(|s| s.success()), "cc");
    program
}

/// Runs `acts novel` in the cgroup, in a directory of its own in memory; acts done and acts a second.
fn run_novel(cgroup: &Cgroup, acts: &Path, dir: &Path, rate: u64) -> (u64, f64) {
    const SECONDS: u64 = 8;
    let script = format!(
        "mount -t tmpfs none {dir} && echo $$ > {}/cgroup.procs && exec {} novel {rate} {SECONDS} {dir}",
        cgroup.0.display(),
        acts.display(),
        dir = dir.display(),
    );
    // what it mounts goes with its namespace
    let mut c = Command::new("unshare");
    c.args(["--mount", "/bin/sh", "-c", &script]);
    let out = c.stdin(Stdio::null()).output().expect("run the acts");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mut words = said.split_whitespace();
    let mut number = || words.next().and_then(|w| w.parse::<f64>().ok());
    let (done, reached) = (number().expect("acts"), number().expect("a rate"));
    // its start and its end are not among what is counted here
    (done as u64 - 2, reached)
}

fn novel(h: &Hierarchy) {
    println!(
        "novel behaviour (names and datagram peers never used before; reader decodes, nothing else):\n"
    );
    println!(
        "| offered a second | done | emitted | lost | done = emitted + lost | rate reached |\n|---|---|---|---|---|---|"
    );
    let acts = acts();
    for rate in [20_000u64, 50_000, 100_000, 0] {
        let dir = std::env::temp_dir().join(format!("plimsoll-novel-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let cg = Cgroup::new(h, "novel");
        let mut config = SensorConfig::new(h.clone());
        config.syscalls_used = false;
        let mut sensor = Sensor::load(&config).expect("load the sensor");
        watch(&sensor, &cg);
        let (dir_ref, cg_ref, acts_ref) = (&dir, &cg, &acts);
        let (mut emitted, mut lost) = (0u64, 0u64);
        let (mut done, mut reached) = (0, 0.0);
        std::thread::scope(|s| {
            let child = s.spawn(move || run_novel(cg_ref, acts_ref, dir_ref, rate));
            let mut idle = 0;
            while idle < 5 {
                let mut got = 0;
                sensor
                    .poll(Duration::from_millis(100), &mut |signal| {
                        got += 1;
                        match signal {
                            Signal::Event(e) => emitted += u64::from(is_of_novel(&e.kind)),
                            Signal::Loss(l) => lost += l.count,
                            Signal::Stream(_) => {}
                        }
                    })
                    .unwrap();
                idle = if got == 0 && child.is_finished() {
                    idle + 1
                } else {
                    0
                };
            }
            (done, reached) = child.join().unwrap();
        });
        let offered = match rate {
            0 => "unbounded".to_owned(),
            _ => rate.to_string(),
        };
        println!(
            "| {offered} | {done} | {emitted} | {lost} | {} | {reached:.0} |",
            if emitted + lost == done { "yes" } else { "NO" },
        );
        let _ = std::fs::remove_dir_all(&dir);
    }
    let _ = std::fs::remove_file(&acts);
    println!();
}

/// Whether it is one of the acts of `acts novel`.
fn is_of_novel(kind: &EventKind) -> bool {
    match kind {
        EventKind::Datagram(_) => true,
        EventKind::File(f) => {
            let path = f.path.as_bytes();
            path.windows(15).any(|w| w == b"plimsoll-novel-")
        }
        _ => false,
    }
}

/// 200 reads of a watched file beside a flood of known opens: each must arrive.
fn shadow(h: &Hierarchy) {
    let cg = Cgroup::new(h, "shadow");
    let mut sensor = load(h);
    watch(&sensor, &cg);
    sensor
        .control()
        .set_watched_paths(&[WatchedPath {
            path: PathMatch::Exact("/etc/shadow".into()),
            ops: vec![],
        }])
        .unwrap();
    let cg_ref = &cg;
    let mut latency: Vec<f64> = Vec::new();
    std::thread::scope(|s| {
        let child = s.spawn(move || run_child(Some(cg_ref), &["shadow"]));
        while !child.is_finished() {
            sensor
                .poll(Duration::from_millis(100), &mut |signal| {
                    if let Signal::Event(e) = signal
                        && matches!(&e.kind, EventKind::File(f) if f.path.as_bytes() == b"/etc/shadow")
                    {
                        latency.push((boot_ns() - e.boot.0) as f64 / 1e6);
                    }
                })
                .unwrap();
        }
        child.join().unwrap();
    });
    latency.sort_by(f64::total_cmp);
    let p = |q: f64| {
        latency
            .get(((latency.len() as f64 - 1.0) * q) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "200 reads of /etc/shadow beside a flood of opens: {} seen by the reader; from the act to the reader p50 {:.2} ms, p99 {:.2} ms (boot clock)",
        latency.len(),
        p(0.5),
        p(0.99)
    );
}

#[allow(unsafe_code)]
fn boot_ns() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: t is a valid timespec for the length of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
