//! What the standard questions cost on a large store: `scripts/bench ask[:MILLIONS]`.
//!
//! 500 containers of 20 images over 30 days, all of them alive all the time, on one node. Of every
//! thousand observations 760 are files read, 100 files written, 60 executions, 50 connections, 30 DNS
//! answers; every hundredth is outside the baseline: a drift and an alert. Between them lie clock
//! anchors, records of presence and gaps, as many to an observation as 100 million in 30 days have
//! beside them. What is measured is the command as a person runs it, start and opening included,
//! once by lists and once with `--scan`, and SQLite on the same observations where `sqlite3` is.
//!
//! *Cold* is with the store's pages dropped from the cache; the program's own stay.

use plimsoll_agent::ledger::stored;
use plimsoll_evidence::{Journal, Options};
use plimsoll_model::event::*;
use plimsoll_model::record::{Lifecycle, Presence};
use plimsoll_model::*;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CONTAINERS: u64 = 500;
const PERIOD_NS: u64 = 30 * 86_400 * 1_000_000_000;
const BEGUN_NS: i64 = 1_790_000_000_000_000_000;
/// Subjects asked about, half alerts and half containers.
const SUBJECTS: u64 = 10;

fn main() {
    let millions: f64 = std::env::args()
        .skip(1)
        .find_map(|a| a.parse().ok())
        .unwrap_or(2.0);
    let observations = (millions * 1e6) as u64;
    let dir = tempfile::tempdir().expect("a scratch directory");
    let store = Store::write(dir.path(), observations);
    println!(
        "{millions} million observations, {} alerts, {} records, {:.0} MiB of journal; {CONTAINERS} containers, 30 days",
        store.alerts.len(),
        store.records,
        mib(&dir.path().join("journal")),
    );
    let made = store.run(&["ask", "Q1", "--alert", &store.alerts[0]]);
    println!(
        "lists made in {:.1} s: {:.2} bytes a record; peak {:.0} MiB",
        made.took.as_secs_f64(),
        mib(&dir.path().join("lake/leaves")) * 1048576.0 / store.records as f64,
        made.peak_mib
    );
    store.questions();
    store.sqlite(observations);
}

struct Store {
    dir: PathBuf,
    alerts: Vec<String>,
    records: u64,
}

/// SplitMix64: the same numbers on every run.
fn random(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn instance(n: u64) -> Instance {
    let id: String = (0..4)
        .map(|part| format!("{:016x}", random(n * 4 + part)))
        .collect();
    Instance {
        id: ContainerId::parse(&id).expect("hex"),
        start: BootNs(n * 1_000_000_007),
    }
}

fn container(n: u64) -> Container {
    let mut c = Container::new(instance(n), Runtime::Docker, at(0, 1));
    c.name = format!("web-{n}");
    c.role = "web".into();
    c.image.name = format!("server:{}", n % 20);
    c
}

/// The moment of observation `n` of `all`.
fn at(n: u64, all: u64) -> Stamp {
    let ns = (u128::from(n) * u128::from(PERIOD_NS) / u128::from(all.max(1))) as u64;
    Stamp {
        boot: BootNs(ns),
        wall: WallNs(BEGUN_NS + ns as i64),
        uncertainty_ns: 1000,
    }
}

fn who(n: u64, c: u64) -> Ancestor {
    let worker = c * 8 + random(n ^ 0x77) % 8 + n / 100_000 * 4096;
    Ancestor {
        key: ProcessKey {
            tgid: 1000 + (random(worker) % 30_000) as u32,
            start: BootNs(random(worker) >> 8),
        },
        exe: format!("/usr/sbin/server-{}", c % 20).into(),
        uid: 33,
        ..Default::default()
    }
}

fn kind(n: u64, c: u64) -> EventKind {
    let file = |op, path: String| {
        EventKind::File(FileEvent {
            raw: None,
            op,
            path: path.into(),
            target: Text::default(),
            origin: Origin::Image,
            flags: 0,
            result: 0,
        })
    };
    let rank = 3000_f64.powf((random(n * 3) >> 11) as f64 / (1u64 << 53) as f64) as u64;
    match random(n ^ 0x5a5a) % 1000 {
        0..760 => file(
            FileOp::Read,
            format!("/srv/data/{}/part-{rank:04}.dat", c % 20),
        ),
        760..860 => file(
            FileOp::Write,
            format!("/var/cache/app/{:x}", random(n) >> 44),
        ),
        860..920 => EventKind::Exec(Exec {
            exe: format!("/usr/bin/tool-{}", rank % 40).into(),
            origin: Origin::Image,
            ..Default::default()
        }),
        920..970 => EventKind::Connect(Connection {
            proto: Proto::Tcp,
            peer: SockAddr::Inet([10, 1, (c % 20) as u8, (rank % 200) as u8].into(), 5432),
            local: None,
            result: 0,
        }),
        _ => EventKind::Dns(Dns {
            response: true,
            name: format!("db-{}.internal", rank % 50).into(),
            qtype: 1,
            rcode: 0,
            addresses: vec![],
            server: None,
        }),
    }
}

/// What ran, and what it took.
struct Ran {
    took: Duration,
    peak_mib: f64,
}

impl Store {
    fn write(dir: &Path, observations: u64) -> Self {
        let (mut journal, _) =
            Journal::open(dir.join("journal"), Options::new("bench")).expect("a new journal");
        let mut records = 0;
        let mut put = |record: &Record, at: Stamp, about: Option<&Instance>| {
            let leaf = journal.append(stored(record, at, about)).expect("append");
            records += 1;
            leaf.0
        };
        let start = Lifecycle {
            what: "start".into(),
            at: at(0, 1),
            version: "bench".into(),
            details: vec![],
        };
        put(&Record::Lifecycle(start), at(0, 1), None);
        for n in 0..CONTAINERS {
            let c = container(n);
            put(&Record::Container(c.clone()), at(0, 1), Some(&c.instance));
        }
        let mut alerts = Vec::new();
        for n in 0..observations {
            let (now, c) = (at(n, observations), random(n / 7) % CONTAINERS);
            let about = instance(c);
            let o = observation(n, c, now, n % 100 == 99);
            let leaf = put(&Record::Observation(o.clone()), now, Some(&about));
            if n % 100 == 99 {
                let drift = drift(&o, leaf, n);
                put(&Record::Drift(drift.clone()), now, Some(&about));
                let alert = alert(drift, n, now);
                alerts.push(alert.id.to_string());
                put(&Record::Alert(alert), now, Some(&about));
            }
            between(n, c, now, &mut put);
        }
        drop(put);
        journal.close().expect("close");
        Self {
            dir: dir.to_path_buf(),
            alerts,
            records,
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let config = self.dir.join("config.yaml");
        std::fs::write(&config, "version: 1\n").expect("write");
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
            .arg("--data-dir")
            .arg(&self.dir)
            .arg("--socket")
            .arg(self.dir.join("none.sock"))
            .arg("--config")
            .arg(&config)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("plimsoll");
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak_mib = 0.0;
        let ended = loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
            peak_mib = kib.map_or(peak_mib, |kib| kib / 1024.0);
            if let Some(ended) = child.try_wait().expect("wait") {
                break ended;
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        assert!(ended.success(), "{args:?}: {ended}");
        Ran {
            took: begun.elapsed(),
            peak_mib,
        }
    }

    fn subjects(&self) -> Vec<[String; 2]> {
        let alert = |n: u64| {
            let at = n * self.alerts.len() as u64 / SUBJECTS;
            ["--alert".to_owned(), self.alerts[at as usize].clone()]
        };
        let of = |n: u64| ["--container".to_owned(), format!("web-{}", n * 47)];
        (0..SUBJECTS)
            .flat_map(|n| {
                if n.is_multiple_of(2) {
                    [alert(n)]
                } else {
                    [of(n)]
                }
            })
            .collect()
    }

    fn questions(&self) {
        println!("question: median, p95, cold, --scan (× median), peak memory");
        let (mut all, mut cold_all, mut peak) = (Vec::new(), Vec::new(), 0_f64);
        for q in 1..=18 {
            let question = format!("Q{q}");
            let mut took = Vec::new();
            let mut own_peak = 0_f64;
            for [kind, subject] in self.subjects() {
                let ran = self.run(&["ask", &question, &kind, &subject]);
                took.push(ran.took);
                own_peak = own_peak.max(ran.peak_mib);
            }
            let [kind, subject] = &self.subjects()[(q % 2) as usize];
            self.forget_pages();
            let cold = self.run(&["ask", &question, kind, subject]).took;
            let scan = self.run(&["ask", &question, kind, subject, "--scan"]).took;
            all.extend(&took);
            cold_all.push(cold);
            peak = peak.max(own_peak);
            took.sort();
            println!(
                "{question}: {:.0} ms, {:.0} ms, {:.0} ms, {:.0} ms ({:.1} ×), {own_peak:.0} MiB",
                ms(took[took.len() / 2]),
                ms(took[took.len() * 95 / 100]),
                ms(cold),
                ms(scan),
                ms(scan) / ms(took[took.len() / 2]),
            );
        }
        all.sort();
        cold_all.sort();
        println!(
            "all: median {:.0} ms, p95 {:.0} ms (bound 250), the slowest cold {:.0} ms (bound 1000), peak {peak:.0} MiB (bound 512)",
            ms(all[all.len() / 2]),
            ms(all[all.len() * 95 / 100]),
            ms(*cold_all.last().expect("eighteen")),
        );
    }

    fn forget_pages(&self) {
        let mut dirs = vec![self.dir.clone()];
        while let Some(dir) = dirs.pop() {
            for item in std::fs::read_dir(dir).expect("list").flatten() {
                if item.path().is_dir() {
                    dirs.push(item.path());
                } else if let Ok(file) = std::fs::File::open(item.path()) {
                    let _ = file.sync_all();
                    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                }
            }
        }
    }

    /// The same observations where a person might put them instead.
    fn sqlite(&self, observations: u64) {
        let file = self.dir.join("rows.db");
        let Ok(mut child) = Command::new("sqlite3")
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn()
        else {
            println!("SQLite: left out, there is no sqlite3 here");
            return;
        };
        let mut to = std::io::BufWriter::new(child.stdin.take().expect("piped"));
        let head = "pragma journal_mode=off; create table o(leaf integer, time integer, container text, kind text, object text); begin;";
        writeln!(to, "{head}").expect("write");
        for n in 0..observations {
            let (now, c) = (at(n, observations), random(n / 7) % CONTAINERS);
            let o = observation(n, c, now, n % 100 == 99);
            let (kind, object) = row(&o.event.kind);
            let values = format!(
                "{n},{},'{}','{kind}','{object}'",
                now.wall.0,
                instance(c).id
            );
            writeln!(to, "insert into o values({values});").expect("write");
        }
        writeln!(
            to,
            "commit; create index a on o(container,time); create index b on o(object);"
        )
        .expect("write");
        drop(to);
        child.wait().expect("sqlite3");
        let time = |sql: String| {
            let mut took: Vec<Duration> = (0..5)
                .map(|_| {
                    let begun = Instant::now();
                    let ran = Command::new("sqlite3").arg(&file).arg(&sql).output();
                    assert!(ran.is_ok_and(|o| o.status.success()), "{sql}");
                    begun.elapsed()
                })
                .collect();
            took.sort();
            ms(took[2])
        };
        let ask = |args: &[&str]| {
            let mut took: Vec<Duration> = (0..5).map(|_| self.run(args).took).collect();
            took.sort();
            ms(took[2])
        };
        let n = observations / 200 * 100 + 99;
        let id = format!("A-{n}");
        let first = time(format!(
            "select min(time), count(distinct container) from o where object='{}'",
            came_in(n)
        ));
        let own = time(format!(
            "select * from o where container='{}' order by time",
            instance(47).id
        ));
        let (q13, q2) = (
            ask(&["ask", "Q13", "--alert", &id]),
            ask(&["ask", "Q7", "--container", "web-47"]),
        );
        println!(
            "SQLite, {:.0} MiB for five columns and two indices: first occurrence {first:.0} ms, Q13 {q13:.0} ms ({:.1} ×); rows of one container {own:.0} ms, Q7 {q2:.0} ms ({:.1} ×). A question reads more than its rows: drifts, alerts, gaps, what retention removed",
            std::fs::metadata(&file).map_or(0.0, |m| m.len() as f64 / 1048576.0),
            q13 / first,
            q2 / own,
        );
    }
}

/// A program that came in: one of a few hundred, in whatever container.
fn came_in(n: u64) -> String {
    format!("/tmp/.x{}", random(n) % 400)
}

fn observation(n: u64, c: u64, now: Stamp, came: bool) -> Observation {
    let process = who(n, c);
    let kind = match came {
        true => EventKind::Exec(Exec {
            exe: came_in(n).into(),
            origin: Origin::Upper,
            ..Default::default()
        }),
        false => kind(n, c),
    };
    Observation {
        event: Event {
            boot: now.boot,
            seq: n,
            cgroup_id: c + 1,
            process: ProcessInfo {
                key: process.key,
                tid: process.key.tgid,
                ppid: 1,
                uid: 33,
                ..Default::default()
            },
            actor: Actor(c + 1),
            ..Event::new(kind)
        },
        at: now,
        instance: Some(instance(c)),
        lineage: vec![process],
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 1,
    }
}

fn drift(o: &Observation, leaf: u64, n: u64) -> Drift {
    Drift {
        behaviour: Behaviour {
            kind: BehaviourKind::Exec,
            program: o.lineage[0].exe.clone(),
            script: Text::default(),
            entry: Entry::Init,
            uid: 33,
            operation: "run".into(),
            object: came_in(n).into(),
            origin: Origin::Upper,
        },
        class: DriftClass::ProgramFromWritable,
        risk: Risk::High,
        reason: "the program came into the container after it was created".into(),
        baseline: None,
        baseline_state: "learning".into(),
        coverage_permille: 900,
        nearest: vec![],
        instance: o.instance.clone().expect("generated"),
        lineage: o.lineage.clone(),
        observation: Some(RecordId {
            origin: NodeId::parse("bench").expect("a name"),
            leaf,
        }),
        first: o.at,
        last: o.at,
        count: 1,
        techniques: vec![],
        quarantined: false,
    }
}

fn alert(drift: Drift, n: u64, now: Stamp) -> Alert {
    Alert {
        id: AlertId::parse(&format!("A-{n}")).expect("an id"),
        at: now,
        rule: "Program from writable layer".into(),
        priority: Priority::Critical,
        output: "a program that is not from the image was run".into(),
        instance: Some(drift.instance.clone()),
        evidence: drift.observation.clone().into_iter().collect(),
        source: AlertSource::Drift(drift),
        tags: vec![],
        fields: vec![],
        count: 1,
        last: now,
        handed_boot: now.boot,
        prevented: false,
    }
}

/// What the agent writes beside observations.
fn between(
    n: u64,
    c: u64,
    now: Stamp,
    put: &mut impl FnMut(&Record, Stamp, Option<&Instance>) -> u64,
) {
    if n.is_multiple_of(386) {
        let clock = ClockAnchor {
            boot: now.boot,
            wall: now.wall,
            uncertainty_ns: 1000,
            step_ns: 0,
        };
        put(&Record::Clock(clock), now, None);
    }
    if n.is_multiple_of(278) {
        let known = |i: u64| BehaviourId(u128::from(random(c % 20 * 64 + i)).to_le_bytes());
        let presence = Presence {
            instance: instance(c),
            from: now,
            to: now,
            counts: (0..50).map(|i| (known(i), i + 1)).collect(),
        };
        put(&Record::Presence(presence), now, Some(&instance(c)));
    }
    if n.is_multiple_of(100_000) {
        let gap = Gap {
            stage: Stage::BulkRing,
            scope: GapScope::Node,
            from: now,
            to: now,
            count: Some(10),
            reason: "burst".into(),
        };
        put(&Record::Gap(gap), now, None);
    }
}

fn row(kind: &EventKind) -> (&'static str, String) {
    match kind {
        EventKind::File(f) => ("file", f.path.to_str_lossy().into_owned()),
        EventKind::Exec(e) => ("exec", e.exe.to_str_lossy().into_owned()),
        EventKind::Connect(c) => ("connect", format!("{:?}", c.peer)),
        EventKind::Dns(d) => ("dns", d.name.to_str_lossy().into_owned()),
        _ => ("other", String::new()),
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn mib(dir: &Path) -> f64 {
    let items = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |item: std::fs::DirEntry| match item.metadata() {
        Ok(m) if m.is_dir() => mib(&item.path()) * 1048576.0,
        Ok(m) => m.len() as f64,
        Err(_) => 0.0,
    };
    items.map(size).sum::<f64>() / 1048576.0
}
