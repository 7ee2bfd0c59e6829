//! What the agent costs services in real containers, and what it reaches: `scripts/bench service`.
//!
//! Parts (all, or those that are named): `throughput` nginx, redis and PostgreSQL with and without the agent,
//! alternating in one run; `memory` with 100 containers; `known` processor time at 300,000 known
//! system calls a second; `scale` with 1,000 containers; `alerts` from the act to the durable alert beside a
//! flood; `novel` events a second, and whether all are accounted for; `doubling` the rate until some are
//! lost.
//!
//! It starts a private Docker of its own, needs root, and takes less than ten minutes. Every number is
//! printed with its bound; nothing is asserted, because a timed test proves nothing on a busy machine.
//! With `--load` this program is the load inside a container.

mod load;
mod rig;

use plimsoll_agent::priority::Priority;
use rig::{Agent, Docker, median};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const DEBIAN: &str = "plimsoll-test/debian:1";
const BUSYBOX: &str = "plimsoll-test/busybox:1";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--load") {
        return load::run(&args[1..]);
    }
    let parts: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let all: [Part; 7] = [
        ("throughput", throughput),
        ("memory", memory),
        ("known", known),
        ("scale", scale),
        ("alerts", alerts),
        ("novel", novel),
        ("doubling", doubling),
    ];
    for part in &parts {
        assert!(
            all.iter().any(|(name, _)| name == part),
            "no part is called {part}: throughput, memory, known, scale, alerts, novel, doubling"
        );
    }
    println!("{}\n", rig::machine());
    let docker = Docker::start();
    for (name, run) in all {
        if parts.is_empty() || parts.contains(&name) {
            let from = Instant::now();
            run(&docker);
            println!("({name}: {:.0} s)\n", from.elapsed().as_secs_f64());
        }
    }
}

/// Name and what it does.
type Part = (&'static str, fn(&Docker));

fn row(what: &str, bound: &str, measured: &str) {
    println!("| {what} | {bound} | {measured} |");
}
fn head() {
    println!("| what | bound | measured |\n|---|---|---|");
}

/// Rounds of each service, with and without.
const ROUNDS: usize = 7;

/// nginx requests, redis operations and PostgreSQL transactions a second, with and without the agent.
fn throughput(docker: &Docker) {
    let conf = docker.dir.join("bench/conf");
    std::fs::create_dir_all(&conf).expect("make a directory");
    std::fs::write(conf.join("nginx.conf"), NGINX).expect("write the configuration");
    std::fs::write(conf.join("index.html"), "x".repeat(1024)).expect("write a page");
    let mount = format!("{}:/conf:ro", conf.display());
    // the host's own nginx and redis, in an image of the same distribution
    let service = |name: &str, command: &[&str]| {
        let mut args = vec!["run", "-d", "--rm", "--name", name];
        args.extend(["-v", "/usr:/usr:ro", "-v", &mount, DEBIAN]);
        args.extend(command);
        docker.run(&args);
        let of = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker.run(&["inspect", "-f", of, name]).trim().to_owned()
    };
    let web = service("bench-web", &["/usr/sbin/nginx", "-c", "/conf/nginx.conf"]);
    let db = [
        "/usr/bin/redis-server",
        "--save",
        "",
        "--protected-mode",
        "no",
    ];
    let db = service("bench-db", &db);
    let sql = postgres(docker);
    std::thread::sleep(Duration::from_secs(1));
    let measure = || {
        [
            wrk(docker, &web, 3),
            redis(docker, &db, "set"),
            redis(docker, &db, "get"),
            pgbench(docker, &sql, &["-S", "-c8", "-T3"]),
            pgbench(docker, &sql, &["-N", "-c8", "-T3"]),
            // a connection for each transaction: a process of the server each
            pgbench(docker, &sql, &["-S", "-C", "-c4", "-T3"]),
        ]
    };

    let names = [
        "nginx, requests a second (wrk)",
        "redis SET a second",
        "redis GET a second",
        "PostgreSQL, reads a second (pgbench -S)",
        "PostgreSQL, writes a second (pgbench -N)",
        "PostgreSQL, reads a second, a connection each (pgbench -S -C)",
    ];
    let data = docker.fresh("throughput");
    let mut ratios: [Vec<f64>; 6] = Default::default();
    let (mut with_all, mut without_all): ([Vec<f64>; 6], [Vec<f64>; 6]) = Default::default();
    measure();
    for round in 0..ROUNDS {
        let watched = || {
            let _agent = Agent::start(&data);
            // what an agent asks for anew after its start
            wrk(docker, &web, 1);
            measure()
        };
        let (with, without) = match round % 2 {
            0 => {
                let with = watched();
                (with, measure())
            }
            _ => {
                let without = measure();
                (watched(), without)
            }
        };
        for i in 0..names.len() {
            ratios[i].push(with[i] / without[i]);
            with_all[i].push(with[i]);
            without_all[i].push(without[i]);
        }
    }
    docker.run(&["rm", "-f", "bench-web", "bench-db", "bench-sql"]);
    head();
    for i in 0..names.len() {
        let (with, without) = (median(&mut with_all[i]), median(&mut without_all[i]));
        let spread = rig::spread(&ratios[i]);
        let ratio = median(&mut ratios[i]);
        let text = format!("{ratio:.3} × ({without:.0} → {with:.0}; rounds {spread})");
        row(names[i], "≥ 0.97 ×", &text);
    }
}

const NGINX: &str = "user root; worker_processes 1; daemon off; pid /tmp/nginx.pid; error_log stderr;
events { worker_connections 256; }
http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; keepalive_requests 1000000;
server { listen 80; root /conf; } }
";

fn wrk(docker: &Docker, ip: &str, seconds: u32) -> f64 {
    let duration = format!("-d{seconds}s");
    let out = docker.enter(&[
        "wrk",
        "-t1",
        "-c16",
        &duration,
        &format!("http://{ip}/index.html"),
    ]);
    let line = out.lines().find_map(|l| l.strip_prefix("Requests/sec:"));
    line.and_then(|l| l.trim().parse().ok())
        .unwrap_or_else(|| panic!("wrk: {out}"))
}

/// The address of a PostgreSQL that is up and filled; its commits do not wait for the disk, whose pace
/// would hide everything else.
fn postgres(docker: &Docker) -> String {
    docker.images(&["postgres"]);
    let image = "plimsoll-test/postgres:1";
    docker.run(&["run", "-d", "--rm", "--name", "bench-sql", image]);
    let of = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ip = docker
        .run(&["inspect", "-f", of, "bench-sql"])
        .trim()
        .to_owned();
    let wait = "for i in $(seq 240); do pg_isready -q -U postgres && break; sleep 0.5; done;
        psql -qU postgres -c 'alter system set synchronous_commit = off' -c 'select pg_reload_conf()'";
    docker.run(&["exec", "bench-sql", "bash", "-c", wait]);
    docker.enter(&[
        "pgbench", "-h", &ip, "-U", "postgres", "-i", "-q", "-s5", "postgres",
    ]);
    ip
}

fn pgbench(docker: &Docker, ip: &str, how: &[&str]) -> f64 {
    let args = ["pgbench", "-h", ip, "-U", "postgres", "-n", "-j2"];
    let out = docker.enter(&[&args[..], how, &["postgres"]].concat());
    let line = out.lines().find_map(|l| l.strip_prefix("tps = "));
    let rate = line.and_then(|l| l.split(' ').next());
    rate.and_then(|r| r.parse().ok())
        .unwrap_or_else(|| panic!("pgbench: {out}"))
}

fn redis(docker: &Docker, ip: &str, what: &str) -> f64 {
    let mut args = vec!["redis-benchmark", "-h", ip, "-t", what, "-n", "100000"];
    args.extend(["-c", "16", "--csv"]);
    let out = docker.enter(&args);
    let line = out.lines().last().unwrap_or_default();
    let rate = line.split(',').nth(1).map(|f| f.trim_matches('"'));
    rate.and_then(|r| r.parse().ok())
        .unwrap_or_else(|| panic!("redis-benchmark: {out}"))
}

/// Resident memory of the agent with 100 containers.
fn memory(docker: &Docker) {
    let data = docker.fresh("memory");
    let agent = Agent::start(&data);
    let before = agent.status();
    std::thread::scope(|s| {
        for lane in 0..4 {
            s.spawn(move || {
                for i in 0..25 {
                    let name = format!("bench-mem-{lane}-{i}");
                    docker.run(&[
                        "run", "-d", "--rm", "--name", &name, BUSYBOX, "sleep", "600",
                    ]);
                }
            });
        }
    });
    agent.wait(|s| s["containers_running"].as_u64() >= Some(100));
    std::thread::sleep(Duration::from_secs(5));
    let with = agent.status();
    let all = docker.run(&["ps", "-q", "--filter", "name=bench-mem"]);
    let mut args = vec!["rm", "-f"];
    args.extend(all.lines());
    docker.run(&args);
    let mib = |s: &serde_json::Value| s["memory_bytes"].as_f64().unwrap_or(f64::NAN) / 1048576.0;
    head();
    let text = format!("{:.0} MiB ({:.0} MiB with none)", mib(&with), mib(&before));
    row("agent memory with 100 containers", "≤ 80 MiB", &text);
}

/// Memory with 1,000 bare containers, and the time from the start of the program to its first event.
fn scale(docker: &Docker) {
    const CONTAINERS: usize = 1000;
    let data = docker.fresh("scale");
    let bare = rig::Bare::new(docker, &docker.fresh("scale-bare"));
    let (from, agent) = (Instant::now(), Agent::start(&data));
    let emitted = |s: &serde_json::Value| s.pointer("/sensor/emitted").and_then(|v| v.as_u64());
    // something is done in a container all the while
    let mut first = 0;
    while emitted(&agent.status()).unwrap_or(0) == 0 {
        bare.run(&format!("bench-first-{first}"), false);
        first += 1;
    }
    let seen = from.elapsed();
    for i in 0..CONTAINERS {
        bare.run(&format!("bench-scale-{i}"), true);
    }
    agent.wait(|s| s["containers_running"].as_u64() >= Some(CONTAINERS as u64));
    std::thread::sleep(Duration::from_secs(5));
    let status = agent.status();
    for i in 0..CONTAINERS {
        bare.remove(&format!("bench-scale-{i}"));
    }
    let mib = |at: &str| {
        status
            .pointer(at)
            .and_then(|v| v.as_f64())
            .unwrap_or(f64::NAN)
            / 1048576.0
    };
    head();
    let text = format!("{:.0} MiB", mib("/sensor/map_bytes"));
    row(
        "kernel memory of all maps with 1,000 containers",
        "≤ 200 MiB",
        &text,
    );
    let text = format!("{:.0} MiB", mib("/memory_bytes"));
    row("agent memory with 1,000 containers", "≤ 150 MiB", &text);
    let text = format!(
        "{:.2} s ({first} containers tried meanwhile)",
        seen.as_secs_f64()
    );
    row(
        "start of the program to the first attributed event",
        "≤ 3 s",
        &text,
    );
}

/// Turns the kernel's counting of program run time on, and back to what it was.
struct BpfStats(String);

const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfStats {
    fn on() -> Self {
        let before = std::fs::read_to_string(BPF_STATS).unwrap_or_default();
        std::fs::write(BPF_STATS, "1").expect("count the run time of programs");
        BpfStats(before)
    }
}
impl Drop for BpfStats {
    fn drop(&mut self) {
        let _ = std::fs::write(BPF_STATS, self.0.trim());
    }
}

/// Processor time of the agent and of the programs at 300,000 known system calls a second.
fn known(docker: &Docker) {
    let data = docker.fresh("known");
    let work = docker.fresh("known-work");
    std::fs::write(work.join("file"), "x").expect("write a file");
    let agent = Agent::start(&data);
    let _stats = BpfStats::on();
    const SECONDS: u64 = 25;
    let seconds = SECONDS.to_string();
    docker.load("bench-known", &work, &["known", "300000", &seconds]);
    std::thread::sleep(Duration::from_secs(5));
    let number = |s: &serde_json::Value, at: &str| s.pointer(at).and_then(|v| v.as_f64());
    let (from, before) = (Instant::now(), agent.status());
    std::thread::sleep(Duration::from_secs(15));
    let (after, elapsed) = (agent.status(), from.elapsed().as_secs_f64());
    let said = docker.ended("bench-known");
    let delta =
        |at: &str| number(&after, at).unwrap_or(f64::NAN) - number(&before, at).unwrap_or(f64::NAN);
    let cpu = delta("/cpu_ms") / 1000.0 / elapsed * 100.0;
    let bpf = delta("/sensor/run_time_ns") / 1e9 / elapsed * 100.0;
    let rate = said.trim();
    head();
    row(
        "known system calls a second (open, read, close, getppid)",
        "300,000",
        rate,
    );
    row("agent, of a core", "≤ 2 %", &format!("{cpu:.2} %"));
    let text = format!("{bpf:.2} % (all programs, with the kernel's own counting on)");
    row("BPF run time, of a core", "≤ 4 %", &text);
}

/// Reads of `/etc/shadow`, each by another program, beside a flood: from the act to the alert. With the
/// agent's threads like everybody else's, with a nice value, and as they are by default (before all nice
/// values), in one run, so that a busy machine is busy for all.
fn alerts(docker: &Docker) {
    head();
    alerts_beside_a_flood(docker, "ordinary", "scheduling: { nice: 0 }\n");
    alerts_beside_a_flood(docker, "nice", "scheduling: { real_time: false }\n");
    alerts_beside_a_flood(docker, "real time", "");
}

fn alerts_beside_a_flood(docker: &Docker, threads: &str, config: &str) {
    const READS: usize = 200;
    let data = docker.fresh("alerts");
    let work = docker.fresh("alerts-work");
    links(&work, READS);
    let agent = Agent::with(&data, config);
    docker.load("bench-flood", &work, &["flood", "16"]);
    std::thread::sleep(Duration::from_secs(1));
    docker.load("bench-reads", &work, &["shadow", &READS.to_string()]);
    let disk = data.join("sync");
    let [mut syncs, mut first] = fdatasyncs(&disk, Duration::from_secs(8));
    let reads = docker.ended("bench-reads");
    let opens = docker.ended("bench-flood");
    std::thread::sleep(Duration::from_secs(1));
    let status = agent.status();
    // by program: each read is an alert of drift, which names the program's path, and one of our own rule,
    // which names its command only
    let all = agent.lines(&["alerts", "--limit", "0"]);
    let field = |a: &serde_json::Value, name: &str| {
        let value = a["output_fields"][name].as_str();
        value.unwrap_or_default().to_owned()
    };
    let programs: std::collections::BTreeSet<String> = all
        .iter()
        .filter(|a| field(a, "container.name") == "bench-reads")
        .filter(|a| field(a, "fd.name") == "/etc/shadow")
        .map(|a| match field(a, "proc.exepath") {
            path if path.is_empty() => field(a, "proc.cmdline"),
            path => path,
        })
        // `/bench/bin/p7`, or `p7 --load read /etc/shadow`
        .filter_map(|said| Some(said.split(' ').next()?.rsplit('/').next()?.to_owned()))
        .collect();
    let seen = programs.len();
    let time = |name: &str| {
        let us = status["queues"][name].as_f64().unwrap_or(f64::NAN);
        format!("{:.2} ms", us / 1000.0)
    };
    let ms = |v: f64| format!("{:.2} ms", v * 1000.0);
    let (p50, p99) = (
        rig::quantile(&mut syncs, 0.5),
        rig::quantile(&mut syncs, 0.99),
    );
    let priority = format!("{}: {}", threads, status["priority"]);
    row("threads between act and alert", "–", &priority);
    let text = format!("{seen} of {} ({})", reads.trim(), opens.trim());
    row(
        "reads of /etc/shadow alerted beside a flood",
        "200 of 200",
        &text,
    );
    let text = format!(
        "p50 {}, p99 {}",
        time("alert_handed_p50_us"),
        time("alert_handed_p99_us")
    );
    row("act → alert handed to the journal", "p99 5 ms", &text);
    let text = format!(
        "p50 {}, p99 {}",
        time("alert_durable_p50_us"),
        time("alert_durable_p99_us")
    );
    row("act → alert durable", "p99 5 ms + fdatasync p99", &text);
    let text = format!("p50 {}, p99 {} ({} calls)", ms(p50), ms(p99), syncs.len());
    row("the disk's own fdatasync meanwhile", "–", &text);
    let (p50, p99) = (
        rig::quantile(&mut first, 0.5),
        rig::quantile(&mut first, 0.99),
    );
    let text = format!("p50 {}, p99 {} ({} calls)", ms(p50), ms(p99), first.len());
    row("the same of a thread that goes first", "–", &text);
}

/// `count` names for this program: each is a program of its own to a baseline.
fn links(work: &Path, count: usize) {
    std::fs::create_dir_all(work.join("bin")).expect("make a directory");
    let here = work.join("program");
    std::fs::copy(std::env::current_exe().expect("a path"), &here).expect("copy this program");
    for i in 0..count {
        std::fs::hard_link(&here, work.join(format!("bin/p{i}"))).expect("link it");
    }
}

/// Seconds that each append and fdatasync takes, one every 20 ms: of an ordinary thread, and by turns of one
/// that goes before others, because the former waits for a processor too.
fn fdatasyncs(path: &Path, during: Duration) -> [Vec<f64>; 2] {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("make a file");
    let priority = std::sync::Arc::new(Priority::new(-10, true));
    let (from, mut all) = (Instant::now(), [Vec::new(), Vec::new()]);
    for turn in 0.. {
        if from.elapsed() >= during {
            break;
        }
        let raised = (turn % 2 == 1).then(|| priority.raise("bench"));
        let at = Instant::now();
        file.write_all(&[7; 4096]).expect("write");
        file.sync_data().expect("sync");
        all[turn % 2].push(at.elapsed().as_secs_f64());
        drop(raised);
        std::thread::sleep(Duration::from_millis(20));
    }
    all
}

/// Every act of the generator is new, and nobody learns meanwhile that its files are.
const ALL_NEW: &str = "rings: { syscalls_used: false }\nlearning: { slot_seconds: 3600 }\n";

/// What is recorded about a container that has gone: acts kept, and lost by stage.
struct Accounted {
    kept: u64,
    lost: BTreeMap<String, u64>,
}

impl Accounted {
    /// Of a stopped agent.
    fn of(root: &Path, name: &str) -> Self {
        let mut lost = BTreeMap::<String, u64>::new();
        for g in rig::lines(root, &["gaps"]) {
            let stage = g["stage"].as_str().unwrap_or("?");
            // records of the agent's own, and identities that came late, are no acts
            if g["name"] == name && !["records", "identity"].contains(&stage) {
                *lost.entry(stage.to_owned()).or_default() += g["count"].as_u64().unwrap_or(0);
            }
        }
        Accounted {
            kept: journalled(&root.join("data"), name),
            lost,
        }
    }

    fn against(&self, acts: u64) -> String {
        let lost: u64 = self.lost.values().sum();
        let verdict = match (self.kept + lost) as i64 - acts as i64 {
            0 => "kept + lost = done".to_owned(),
            more @ 1.. => format!("**{more} more than done**"),
            less => format!("**not accounted for: {}**", -less),
        };
        format!(
            "{acts} done, {} kept, {lost} lost {:?}: {verdict}",
            self.kept, self.lost
        )
    }
}

/// Novel events: names and peers never used before, at a rate, and as fast as they can be made.
fn novel(docker: &Docker) {
    head();
    let seconds = std::env::var("PLIMSOLL_BENCH_NOVEL_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok()).unwrap_or(60);
    for (rate, seconds) in [(50_000u64, seconds), (0, seconds)] {
        let data = docker.fresh("novel");
        let agent = Agent::with(&data, ALL_NEW);
        let name = format!("bench-novel-{rate}");
        let offered = match rate {
            0 => "as many as it can".to_owned(),
            _ => format!("{rate} a second"),
        };
        let done = docker.novel(&name, rate, seconds);
        let memory = agent.status()["memory_bytes"].as_f64().unwrap_or(f64::NAN) / 1048576.0;
        // what waits in queues is journalled before it is counted
        agent.flush();
        let root = agent.dir.clone();
        // what the agent still counts while it ends is a gap too
        drop(agent);
        let what = format!("novel events offered {offered}, {seconds} s");
        let account = Accounted::of(&root, &name).against(done.acts);
        let text = format!(
            "{:.0} a second on {:.2} of a core: {account}; agent {memory:.0} MiB",
            done.reached, done.core
        );
        row(&what, "none lost at 50,000; kept + lost = done", &text);
    }
}

/// Doubles the rate of novel events until some are lost, and prints that beside the processor time.
fn doubling(docker: &Docker) {
    const SECONDS: u64 = 8;
    println!(
        "| offered a second | reached | kept | lost | agent, µs of processor time an event judged | agent, of a core | container, of a core | programs of that | |\n|---|---|---|---|---|---|---|---|---|"
    );
    let _stats = BpfStats::on();
    let mut begins = None;
    for rate in (0..8).map(|i| 1000u64 << i) {
        let data = docker.fresh("doubling");
        let agent = Agent::with(&data, ALL_NEW);
        let name = format!("bench-doubling-{rate}");
        let (from, before) = (Instant::now(), agent.status());
        let done = docker.novel(&name, rate, SECONDS);
        agent.flush();
        let (after, elapsed) = (agent.status(), from.elapsed().as_secs_f64());
        let number = |s: &serde_json::Value, at: &str| s.pointer(at).and_then(|v| v.as_f64());
        let delta = |at: &str| Some(number(&after, at)? - number(&before, at)?);
        let cpu_ms = delta("/cpu_ms").unwrap_or(f64::NAN);
        let cpu = cpu_ms / 10.0 / elapsed;
        let bpf = delta("/sensor/run_time_ns").unwrap_or(f64::NAN) / 1e7 / elapsed;
        let root = agent.dir.clone();
        drop(agent);
        let account = Accounted::of(&root, &name);
        let lost: u64 = account.lost.values().sum();
        let exact = account.kept + lost == done.acts;
        let each_us = cpu_ms * 1000.0 / account.kept as f64;
        println!(
            "| {rate} | {:.0} | {} | {lost} {:?} | {each_us:.1} | {cpu:.1} % | {:.1} % | {bpf:.1} % | {} |",
            done.reached,
            account.kept,
            account.lost,
            done.core * 100.0,
            if exact {
                "kept + lost = done"
            } else {
                "**not exact**"
            }
        );
        if lost > 0 {
            begins = Some(done.reached);
            break;
        }
        if done.reached < rate as f64 * 0.8 {
            println!(
                "\nthe generator reaches {:.0} a second here, without loss",
                done.reached
            );
            return;
        }
    }
    match begins {
        Some(rate) => println!("\nloss begins at {rate:.0} novel events a second"),
        None => println!("\nno loss at any rate tried"),
    }
}

/// Acts of a container in a journal.
fn journalled(data: &Path, name: &str) -> u64 {
    use plimsoll_evidence::{Filter, Reader};
    use plimsoll_model::{Record, RecordKind};
    let reader = Reader::open(data.join("journal")).expect("open the journal");
    let kinds = [RecordKind::Observation, RecordKind::Container].map(|k| k as u16);
    let filter = Filter {
        kinds: kinds.to_vec(),
        ..Filter::default()
    };
    let mut named = std::collections::HashSet::new();
    let mut counts = std::collections::HashMap::new();
    for entry in reader.scan(filter).expect("read the journal") {
        let entry = entry.expect("every record is read");
        let bytes = entry.payload.bytes().unwrap_or_default();
        match Record::decode(entry.header.kind, bytes) {
            Ok(Record::Observation(o)) => {
                *counts.entry(o.instance).or_insert(0) += o.count.max(1);
            }
            Ok(Record::Container(c)) if c.name == name => {
                named.insert(Some(c.instance));
            }
            _ => {}
        }
    }
    named.iter().filter_map(|i| counts.get(i)).sum()
}
