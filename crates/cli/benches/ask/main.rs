//! What the standard questions cost on a large store: `scripts/bench ask[:MILLIONS]`.
//!
//! The store is thirty days of a generated node (`generate.rs`). What is measured is the command as a
//! person runs it, start and opening included, by lists and with `--scan`; the lake's first occurrence
//! and its size; and SQLite on the same observations where `sqlite3` is.
//!
//! `PLIMSOLL_BENCH_STORE=DIR` keeps the store there and uses it again: `scripts/bench ask:50:build`
//! only makes it, which may be done niced and long before anything is timed. `ask:50:lists` makes and
//! asks lists of leaves only: the lake of a large store takes much longer to make than they do.
//!
//! *Cold* is with the store's pages dropped from the cache; the program's own stay.

mod generate;

use generate::{Life, Node, came_in, random, row};
use plimsoll_agent::ledger::stored;
use plimsoll_baseline::{ResolvedNames, behaviours};
use plimsoll_evidence::{Journal, Options};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Subjects asked about, half alerts and half containers.
const SUBJECTS: u64 = 10;
/// And containers that lived all the time.
const LONG_SUBJECTS: u64 = 3;
/// More observations are not put into SQLite: they take 228 bytes each there.
const SQLITE_MAX: u64 = 4_000_000;
/// Beyond that `--scan`, which reads everything, is left out.
const SCAN_MAX: u64 = 10_000_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let millions: Option<f64> = args.iter().find_map(|a| a.parse().ok());
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let kept = std::env::var_os("PLIMSOLL_BENCH_STORE").map(PathBuf::from);
    let dir = kept.unwrap_or_else(|| scratch.path().to_path_buf());
    let store = Store::at(&dir, millions);
    let wanted = |what: &str| args.iter().any(|a| a == what);
    store.lists();
    if wanted("lists") {
        return store.questions();
    }
    store.lake();
    if !wanted("build") {
        store.questions();
        store.first_occurrence();
        store.sqlite();
    }
}

struct Store {
    dir: PathBuf,
    node: Node,
    observations: u64,
    records: u64,
}

impl Store {
    /// The store in a directory, which is made where it is not there yet.
    fn at(dir: &Path, millions: Option<f64>) -> Self {
        let made = dir.join("made");
        let wanted = millions.map(|m| (m * 1e6) as u64);
        let there = std::fs::read_to_string(&made).ok();
        let there: Option<Vec<u64>> = there.map(|text| {
            text.split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect()
        });
        let store = match there.as_deref() {
            Some([observations, records]) => {
                assert!(
                    wanted.is_none_or(|w| w == *observations),
                    "{} holds {observations} observations",
                    dir.display()
                );
                Self::new(dir, *observations, *records)
            }
            _ => {
                // what was begun and not finished would be appended to
                assert!(
                    !std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()),
                    "{} holds something that is no finished store: remove it first",
                    dir.display()
                );
                let mut store = Self::new(dir, wanted.unwrap_or(2_000_000), 0);
                store.write();
                let text = format!("{} {}", store.observations, store.records);
                std::fs::write(&made, text).expect("write");
                store
            }
        };
        println!(
            "{} million observations, {} alerts, {} containers, {} records, {:.0} MiB of journal, 30 days",
            store.observations as f64 / 1e6,
            store.node.alerts(),
            store.node.lives().count(),
            store.records,
            mib(&dir.join("journal")),
        );
        store
    }

    fn new(dir: &Path, observations: u64, records: u64) -> Self {
        Self {
            dir: dir.to_path_buf(),
            node: Node::new(observations),
            observations,
            records,
        }
    }

    fn write(&mut self) {
        std::fs::create_dir_all(&self.dir).expect("a directory");
        let journal = self.dir.join("journal");
        let (mut journal, _) = Journal::open(journal, Options::new("bench")).expect("a journal");
        let mut records = 0;
        self.node.write(&mut |record, at, about| {
            let leaf = journal.append(stored(record, at, about)).expect("append");
            records += 1;
            leaf.0
        });
        journal.close().expect("close");
        self.records = records;
    }

    fn lists(&self) {
        let lists = self.run(&["ask", "Q1", "--alert", &self.alert(0)]);
        println!(
            "lists: {:.1} s for what was missing and one answer, {:.2} bytes a record; peak {:.0} MiB",
            lists.took.as_secs_f64(),
            mib(&self.dir.join("lake/leaves")) * 1048576.0 / self.records as f64,
            lists.peak_mib
        );
    }

    fn lake(&self) {
        let lake = self.run(&["lake", "build"]);
        let of = |table: &str| mib(&self.dir.join("lake").join(table)) * 1048576.0;
        println!(
            "lake: {:.1} s for what was missing; an observation {:.1} bytes as behaviour (rows {:.1}, what they name {:.1}), bound 12; peak {:.0} MiB",
            lake.took.as_secs_f64(),
            (of("behaviours") + of("fingerprints")) / self.observations as f64,
            of("behaviours") / self.observations as f64,
            of("fingerprints") / self.observations as f64,
            lake.peak_mib
        );
    }

    /// The first alert in a tenth of the time.
    fn alert(&self, tenth: u64) -> String {
        Node::alert_id(Node::alerted(tenth * self.node.alerts() / SUBJECTS))
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

    /// Alerts and containers, and containers that live all the time.
    fn subjects(&self) -> (Vec<[String; 2]>, Vec<[String; 2]>) {
        let all: Vec<&Life> = self.node.lives().collect();
        let long: Vec<&Life> = self.node.lives().filter(|l| l.is_long()).collect();
        let of = |from: &[&Life], n: u64| {
            let life = from[(random(n) % from.len() as u64) as usize];
            ["--container".to_owned(), life.name()]
        };
        let one = |n: u64| match n % 2 {
            0 => ["--alert".to_owned(), self.alert(n)],
            _ => of(&all, n),
        };
        let few = (0..LONG_SUBJECTS).map(|n| of(&long, n)).collect();
        ((0..SUBJECTS).map(one).collect(), few)
    }

    fn questions(&self) {
        println!(
            "question: median, p95, cold, --scan (× median), peak memory; containers of 30 days: slowest, cold"
        );
        let (subjects, long) = self.subjects();
        let (mut all, mut cold_all, mut peak) = (Vec::new(), Vec::new(), 0_f64);
        let (mut long_all, mut long_cold) = (Vec::new(), Vec::new());
        for q in 1..=18_usize {
            let question = format!("Q{q}");
            let mut own_peak = 0_f64;
            let mut ask = |[kind, subject]: &[String; 2]| {
                let ran = self.run(&["ask", &question, kind, subject]);
                own_peak = own_peak.max(ran.peak_mib);
                ran.took
            };
            let mut took: Vec<Duration> = subjects.iter().map(&mut ask).collect();
            let mut took_long: Vec<Duration> = long.iter().map(&mut ask).collect();
            let mut forgetting = |subject: &[String; 2]| {
                self.forget_pages();
                ask(subject)
            };
            let cold = forgetting(&subjects[q % subjects.len()]);
            let cold_long = forgetting(&long[q % long.len()]);
            peak = peak.max(own_peak);
            took.sort();
            took_long.sort();
            let median = took[took.len() / 2];
            println!(
                "{question}: {:.0} ms, {:.0} ms, {:.0} ms, {}, {own_peak:.0} MiB; {:.0} ms, {:.0} ms",
                ms(median),
                ms(took[took.len() * 95 / 100]),
                ms(cold),
                self.scan(&question, &subjects[q % subjects.len()], median),
                ms(took_long[took_long.len() - 1]),
                ms(cold_long),
            );
            all.extend(took);
            cold_all.push(cold);
            long_all.extend(took_long);
            long_cold.push(cold_long);
        }
        let (median, p95, cold) = spread(all, cold_all);
        println!(
            "all: median {median:.0} ms, p95 {p95:.0} ms (bound 250), the slowest cold {cold:.0} ms (bound 1000), peak {peak:.0} MiB (bound 512)"
        );
        let (median, p95, cold) = spread(long_all, long_cold);
        println!(
            "containers of 30 days: median {median:.0} ms, p95 {p95:.0} ms, the slowest cold {cold:.0} ms"
        );
    }

    /// What reading everything takes, where that is not too much to wait for.
    fn scan(&self, question: &str, [kind, subject]: &[String; 2], median: Duration) -> String {
        if self.observations > SCAN_MAX {
            return "-".to_owned();
        }
        let scan = self.run(&["ask", question, kind, subject, "--scan"]).took;
        format!("{:.0} ms ({:.1} ×)", ms(scan), ms(scan) / ms(median))
    }

    /// The lake alone, a process for each statement.
    fn first_occurrence(&self) {
        let mut took: Vec<Duration> = (0..2 * SUBJECTS)
            .map(|n| {
                let at = Node::alerted(n * self.node.alerts() / (2 * SUBJECTS));
                let actor = self.node.actor(at).container(false);
                let seen = behaviours(&self.node.observation(at), &actor, &ResolvedNames::default());
                let sql = format!(
                    "select min(time), max(last), sum(count) from fingerprints where behaviour = '{}'",
                    seen.first().expect("an execution is one").id()
                );
                self.run(&["query", &sql]).took
            })
            .collect();
        took.sort();
        println!(
            "first occurrence of a fingerprint in the lake, the command's start included: median {:.0} ms, p95 {:.0} ms (bound 500)",
            ms(took[took.len() / 2]),
            ms(took[took.len() * 95 / 100]),
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

    /// The same observations, or the first of them, where a person might put them instead.
    fn sqlite(&self) {
        let file = self.dir.join("rows.db");
        let rows = self.observations.min(SQLITE_MAX);
        let _ = std::fs::remove_file(&file);
        if !self.fill_sqlite(&file, rows) {
            println!("SQLite: left out, there is no sqlite3 here");
            return;
        }
        let median = |mut took: Vec<Duration>| {
            took.sort();
            ms(took[took.len() / 2])
        };
        let time = |sql: String| {
            let run = |_| {
                let begun = Instant::now();
                let ran = Command::new("sqlite3").arg(&file).arg(&sql).output();
                assert!(ran.is_ok_and(|o| o.status.success()), "{sql}");
                begun.elapsed()
            };
            median((0..5).map(run).collect())
        };
        let ask = |args: &[&str]| median((0..5).map(|_| self.run(args).took).collect());
        let n = Node::alerted(rows / 200);
        let first = time(format!(
            "select min(time), count(distinct container) from o where object='{}'",
            came_in(n)
        ));
        let life = self.node.actor(n);
        let own = time(format!(
            "select * from o where container='{}' order by time",
            life.instance().id
        ));
        let q13 = ask(&["ask", "Q13", "--alert", &Node::alert_id(n)]);
        let q7 = ask(&["ask", "Q7", "--container", &life.name()]);
        let (object, id) = (came_in(n), life.instance().id);
        let by_lake = format!(
            "select min(time), sum(containers) from fingerprints where object = '{object}'"
        );
        let lake_first = ask(&["query", &by_lake]);
        let by_lake = format!("select * from behaviours where container = '{id}' order by time");
        let lake_own = ask(&["query", &by_lake]);
        println!(
            "SQLite of the first {} million, {:.0} MiB for five columns and two indices: first occurrence {first:.0} ms, Q13 {q13:.0} ms ({:.1} ×); rows of one container {own:.0} ms, Q7 {q7:.0} ms ({:.1} ×). A question reads more than its rows: drifts, alerts, gaps, what retention removed",
            rows as f64 / 1e6,
            std::fs::metadata(&file).map_or(0.0, |m| m.len() as f64 / 1048576.0),
            q13 / first,
            q7 / own,
        );
        println!(
            "The same by a statement over the lake of all {} million: first occurrence {lake_first:.0} ms ({:.1} ×), rows of one container {lake_own:.0} ms ({:.1} ×), the command's start included on both sides",
            self.observations as f64 / 1e6,
            lake_first / first,
            lake_own / own,
        );
        let _ = std::fs::remove_file(&file);
    }

    fn fill_sqlite(&self, file: &Path, rows: u64) -> bool {
        let Ok(mut child) = Command::new("sqlite3")
            .arg(file)
            .stdin(Stdio::piped())
            .spawn()
        else {
            return false;
        };
        let mut to = std::io::BufWriter::new(child.stdin.take().expect("piped"));
        let head = "pragma journal_mode=off; create table o(leaf integer, time integer, container text, kind text, object text); begin;";
        writeln!(to, "{head}").expect("write");
        for n in 0..rows {
            let o = self.node.observation(n);
            let (kind, object) = row(&o.event.kind);
            let id = &o.instance.as_ref().expect("generated").id;
            let values = format!("{n},{},'{id}','{kind}','{object}'", o.at.wall.0);
            writeln!(to, "insert into o values({values});").expect("write");
        }
        let tail = "commit; create index a on o(container,time); create index b on o(object);";
        writeln!(to, "{tail}").expect("write");
        drop(to);
        child.wait().is_ok_and(|status| status.success())
    }
}

/// What ran, and what it took.
struct Ran {
    took: Duration,
    peak_mib: f64,
}

/// Median, 95th of a hundred, and the slowest when cold; milliseconds.
fn spread(mut took: Vec<Duration>, cold: Vec<Duration>) -> (f64, f64, f64) {
    took.sort();
    let slowest = cold.into_iter().max().unwrap_or_default();
    let at = |part: usize| ms(took[took.len() * part / 100]);
    (at(50), at(95), ms(slowest))
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
