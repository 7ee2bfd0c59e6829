//! Size and speed of the lake on generated observations: `scripts/bench lake`, or
//! `cargo run --release -p plimsoll-lake --example bench_lake -- [MILLIONS]`.
//!
//! 500 containers of 20 images over 30 days, each with up to eight working processes. An image has
//! 3000 behaviours, used by their rank (a few very often, most rarely); one act in 200 is new, as
//! temporary names are. Every observation is a file's, so it is a row of `behaviours` and one of
//! `files`. The journal is generated as it is read: what is measured is the lake, not the journal's
//! disk. Times within a day are not shared out as people's days are, so that more observations are
//! more of the same: what is printed for 100 million is measured only when that many are asked for.
//! Beside it, where `sqlite3` is installed and the observations are not more than ten million, the
//! same rows of `behaviours` in SQLite with an index on the behaviour.

use plimsoll_lake::{
    Body, Coder, Entry, Journal, JournalError, Lake, Limits, MERGED_SPANS, SPAN_LEAVES,
};
use plimsoll_model::event::*;
use plimsoll_model::*;
use std::io::Write as _;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTAINERS: u64 = 500;
const IMAGES: u64 = 20;
const BEHAVIOURS: u64 = 3000;
const PERIOD_NS: u64 = 30 * 86_400 * 1_000_000_000;
const BEGUN_NS: i64 = 1_790_000_000_000_000_000;

struct Generated {
    leaves: u64,
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

fn path(leaf: u64, image: u64) -> String {
    if random(leaf ^ 0xabcd).is_multiple_of(200) {
        return format!("/var/cache/app/{:012x}", random(leaf) >> 16);
    }
    // the rank of a behaviour is distributed as 1/rank
    let u = (random(leaf.wrapping_mul(3)) >> 11) as f64 / (1u64 << 53) as f64;
    let rank = (BEHAVIOURS as f64).powf(u) as u64;
    let dir = [
        "/usr/lib/app",
        "/etc/app",
        "/srv/data",
        "/usr/share/zoneinfo",
    ][(rank % 4) as usize];
    format!(
        "{dir}/{image}/part-{:04}/{:x}.dat",
        rank / 7,
        random(rank * 31 + image) >> 40
    )
}

impl Generated {
    fn wall(&self, leaf: u64) -> WallNs {
        let step = PERIOD_NS / self.leaves;
        let jitter = random(leaf) % step.max(1);
        WallNs(BEGUN_NS + (leaf * step + jitter) as i64)
    }

    fn observation(&self, leaf: u64) -> Observation {
        let n = random(leaf / 7) % CONTAINERS;
        let image = n % IMAGES;
        // workers live for a while
        let worker = n * 8 + random(leaf ^ 0x77) % (1 + n % 8) + leaf / 100_000 * 4096;
        let key = ProcessKey {
            tgid: 1000 + (random(worker) % 30_000) as u32,
            start: BootNs(random(worker)),
        };
        let exe = Text::from(format!("/usr/sbin/server-{image}"));
        Observation {
            event: Event {
                boot: BootNs(leaf),
                seq: leaf,
                cgroup_id: n,
                process: ProcessInfo {
                    key,
                    tid: key.tgid,
                    ppid: 1,
                    uid: 33,
                    ..Default::default()
                },
                actor: Actor(n),
                ..Event::new(EventKind::File(FileEvent {
                    raw: None,
                    mode: None,
                    op: if leaf.is_multiple_of(9) {
                        FileOp::Write
                    } else {
                        FileOp::Read
                    },
                    path: path(leaf, image).into(),
                    target: Text::default(),
                    origin: Origin::Image,
                    flags: 0,
                    result: 0,
                }))
            },
            at: Stamp {
                boot: BootNs(leaf),
                wall: self.wall(leaf),
                uncertainty_ns: 0,
            },
            instance: Some(instance(n)),
            lineage: vec![Ancestor {
                key,
                exe,
                uid: 33,
                ..Default::default()
            }]
            .into(),
            lineage_cut: false,
            redacted: vec![],
            unknown_because: String::new(),
            count: 1,
        }
    }
}

impl Journal for Generated {
    fn origin(&self) -> &str {
        "bench"
    }
    fn end(&self) -> Result<u64, JournalError> {
        Ok(self.leaves)
    }
    fn each(
        &self,
        leaves: Range<u64>,
        kinds: &[u16],
        each: &mut dyn FnMut(Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        if !kinds.is_empty() && !kinds.contains(&(RecordKind::Observation as u16)) {
            return Ok(());
        }
        for leaf in leaves {
            let body = Body::Record(Record::Observation(self.observation(leaf)));
            each(Entry {
                leaf,
                wall: self.wall(leaf),
                body,
            })?;
        }
        Ok(())
    }
    fn coder(&self) -> Box<dyn Coder> {
        Box::new(Files)
    }
}

struct Files;

impl Coder for Files {
    fn container(&mut self, _: &Container) {}
    fn behaviours(&mut self, o: &Observation, _: Option<&Container>) -> Vec<Behaviour> {
        let EventKind::File(file) = &o.event.kind else {
            return Vec::new();
        };
        vec![Behaviour {
            kind: BehaviourKind::File,
            program: o.program(),
            script: Text::default(),
            entry: plimsoll_model::Entry::Init,
            uid: 33,
            operation: file.op.as_str().into(),
            object: file.path.clone(),
            origin: file.origin,
        }]
    }
}

fn main() {
    let millions: f64 = std::env::args()
        .nth(1)
        .map_or(10.0, |m| m.parse().expect("millions"));
    let spans = (millions * 1e6 / SPAN_LEAVES as f64).ceil().max(1.0) as u64;
    let journal = Arc::new(Generated {
        leaves: spans * SPAN_LEAVES,
    });
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut lake = Lake::open(dir.path(), "bench").expect("open");
    let begun = Instant::now();
    lake.build(journal.as_ref(), &mut |_| {}).expect("build");
    let took = begun.elapsed();
    let n = journal.leaves as f64;
    println!(
        "{:.2} million observations, made in {:.0} s ({:.0} a second, generating included)",
        n / 1e6,
        took.as_secs_f64(),
        n / took.as_secs_f64()
    );
    println!("building: peak {:.0} MiB", peak_mib());
    sizes(&lake, &journal);
    whole(&lake, &journal, dir.path());
    peak_mib();
    questions(&lake, &journal, dir.path());
    sqlite(&journal);
}

fn sizes(lake: &Lake, journal: &Generated) {
    let n = journal.leaves as f64;
    let bytes = |table: &str| -> u64 {
        let seals = lake.contents().seals.iter();
        let files = seals.flat_map(|s| &s.files).filter(|f| f.table == table);
        files.map(|f| f.bytes).sum()
    };
    let sample = 10_000.min(journal.leaves);
    let payload: usize = (0..sample)
        .map(|leaf| {
            Record::Observation(journal.observation(leaf))
                .encode()
                .1
                .len()
        })
        .sum();
    let (long, short) = (bytes("behaviours"), bytes("fingerprints"));
    println!(
        "a behaviour observation: {:.1} bytes (rows {:.1}, what they name {:.1}); bound 12. Beside: the same in files {:.1}, journal payload {:.0} bytes a record; {} spans of files, {} of them merged twice",
        (long + short) as f64 / n,
        long as f64 / n,
        short as f64 / n,
        bytes("files") as f64 / n,
        payload as f64 / sample as f64,
        lake.contents().seals.len(),
        lake.contents()
            .seals
            .iter()
            .filter(|s| s.end - s.first == SPAN_LEAVES * MERGED_SPANS[1])
            .count(),
    );
}

/// Every observation is in both tables, whatever files became of it: a number from files that lost
/// rows is none.
fn whole(lake: &Lake, journal: &Arc<Generated>, spill: &std::path::Path) {
    use plimsoll_lake::arrow::array::AsArray as _;
    use plimsoll_lake::arrow::datatypes::UInt64Type;
    for table in ["behaviours", "fingerprints"] {
        let mut sum = 0;
        let sql = format!("select sum(count) from {table}");
        lake.query(journal.clone(), &sql, &limits(spill), &mut |_, rows| {
            if let Some(rows) = rows.filter(|r| r.num_rows() > 0) {
                sum += rows.column(0).as_primitive::<UInt64Type>().value(0);
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(sum, journal.leaves, "{table}");
    }
}

fn limits(spill: &std::path::Path) -> Limits {
    Limits {
        time: Duration::from_secs(600),
        memory_bytes: 512 << 20,
        spill_bytes: 4 << 30,
        spill_dir: spill.to_path_buf(),
        threads: 2,
    }
}

/// Most memory that this process had since the last call, MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    // resets the mark
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// The statement of Q3 and Q13 and the one about a container, for several subjects each.
fn questions(lake: &Lake, journal: &Arc<Generated>, spill: &std::path::Path) {
    let limits = limits(spill);
    let time = |name: &str, statements: Vec<String>| {
        let mut took: Vec<Duration> = Vec::new();
        let mut rows = 0;
        for sql in statements {
            let begun = Instant::now();
            let looked = lake
                .query(journal.clone(), &sql, &limits, &mut |_, _| Ok(()))
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            rows += looked.rows;
            took.push(begun.elapsed());
        }
        let cold = took[0].as_secs_f64() * 1e3;
        took.sort();
        let ms = |at: usize| took[at.min(took.len() - 1)].as_secs_f64() * 1e3;
        println!(
            "{name}: median {:.0} ms, p95 {:.0} ms, the first {cold:.0} ms of {} statements, {rows} rows, peak {:.0} MiB",
            ms(took.len() / 2),
            ms(took.len() * 95 / 100),
            took.len(),
            peak_mib()
        );
    };
    let step = journal.leaves / 20;
    let first = |n: u64| {
        format!(
            "select min(time), max(last), sum(count) from fingerprints where behaviour = '{}'",
            id(journal, n * step)
        )
    };
    time(
        "first occurrence of a fingerprint",
        (0..20).map(first).collect(),
    );
    let absent = |n: u64| {
        format!(
            "select min(time) from fingerprints where behaviour = '{:032x}'",
            u128::from(random(n)) << 64
        )
    };
    time(
        "first occurrence of one that never was",
        (0..20).map(absent).collect(),
    );
    let reach = |n: u64| {
        format!(
            "select count(distinct container), min(time), sum(count) from behaviours where behaviour = '{}'",
            id(journal, n * step)
        )
    };
    time(
        "reach of a fingerprint, every row of it",
        (0..20).map(reach).collect(),
    );
    let about = |n: u64| {
        let from = BEGUN_NS / 1_000_000_000 + n as i64 * 86_400;
        format!(
            "select time, operation, path, program from files where container = '{}' and time >= to_timestamp({from}) and time < to_timestamp({}) order by time",
            instance(n * 7).id,
            from + 1200
        )
    };
    time(
        "twenty minutes of one container",
        (0..20).map(about).collect(),
    );
    let scope = |n: u64| {
        format!(
            "select operation, count(*) from files where container = '{}' group by operation",
            instance(n * 7).id
        )
    };
    time("one container, all of it", (0..20).map(scope).collect());
}

fn id(journal: &Generated, leaf: u64) -> BehaviourId {
    Files.behaviours(&journal.observation(leaf), None)[0].id()
}

/// The same rows where a person might put them instead.
fn sqlite(journal: &Generated) {
    if journal.leaves > 10_500_000 {
        println!("SQLite: left out, it would need more than the disk that a bench may take");
        return;
    }
    if Command::new("sqlite3").arg("--version").output().is_err() {
        println!("SQLite: left out, there is no sqlite3 here");
        return;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let file = dir.path().join("rows.db");
    let begun = Instant::now();
    let mut child = Command::new("sqlite3")
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sqlite3");
    let mut to = std::io::BufWriter::new(child.stdin.take().expect("piped"));
    let columns = "leaf integer, time integer, container text, behaviour text, program text, operation text, object text, count integer";
    writeln!(
        to,
        "pragma journal_mode=off; create table behaviours({columns}); begin;"
    )
    .expect("write");
    for leaf in 0..journal.leaves {
        let o = journal.observation(leaf);
        let b = &Files.behaviours(&o, None)[0];
        let container = &o.instance.as_ref().expect("generated").id;
        writeln!(
            to,
            "insert into behaviours values({leaf},{},'{container}','{}','{}','{}','{}',1);",
            o.at.wall.0,
            b.id(),
            b.program,
            b.operation,
            b.object
        )
        .expect("write");
    }
    writeln!(
        to,
        "commit; create index by_behaviour on behaviours(behaviour);"
    )
    .expect("write");
    drop(to);
    assert!(child.wait().expect("sqlite3").success());
    let bytes = std::fs::metadata(&file).expect("made").len();
    let took = begun.elapsed();
    let mut times = Vec::new();
    for n in 0..20 {
        let sql = format!(
            "select min(time), max(time), count(distinct container), sum(count) from behaviours where behaviour = '{}'",
            id(journal, n * (journal.leaves / 20))
        );
        let begun = Instant::now();
        let out = Command::new("sqlite3")
            .arg(&file)
            .arg(sql)
            .output()
            .expect("sqlite3");
        assert!(out.status.success());
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "SQLite with an index: {:.1} bytes a row, made in {:.0} s; first occurrence median {:.0} ms, p95 {:.0} ms (a process each)",
        bytes as f64 / journal.leaves as f64,
        took.as_secs_f64(),
        times[10].as_secs_f64() * 1e3,
        times[19].as_secs_f64() * 1e3
    );
}
