//! Ground truth: a workload writes its own journal of everything it did; the agent's evidence is held
//! against it. Without load it is complete, act by act; under overload what was observed and what was
//! recorded as lost is what was done, to the last one. `scripts/bench completeness` prints the report.

use crate::stage::Stage;
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Kind and object of an act, with how often it was done or observed.
pub(crate) type Acts = BTreeMap<(String, String), u64>;

/// How much the workload does.
struct Work {
    programs: u32,
    files: u32,
    connections: u32,
    datagrams: u32,
}

impl Work {
    fn argv(&self) -> Vec<String> {
        let n = [self.programs, self.files, self.connections, self.datagrams];
        let words = ["/bin/acts".to_owned(), "truth".to_owned()].into_iter();
        words.chain(n.map(|n| n.to_string())).collect()
    }
}

/// What the workload says it did.
pub(crate) fn done(journal: &str) -> Acts {
    let mut acts = Acts::new();
    for line in journal.lines() {
        let (kind, object) = line.split_once(' ').unwrap_or((line, ""));
        *acts.entry((kind.into(), object.into())).or_default() += 1;
    }
    acts
}

/// What an event is an observation of, in the words of the workload.
fn act(e: &Value) -> (String, String) {
    let detail = |name: &str| e["detail"][name].as_str().unwrap_or_default().to_owned();
    let kind = e["kind"].as_str().unwrap_or_default().to_owned();
    let object = match kind.as_str() {
        "exec" => match e["detail"]["argv"].as_array().map(Vec::as_slice) {
            Some([_, end, number]) if end == "end" => number.as_str().unwrap_or("?").to_owned(),
            _ => "self".to_owned(),
        },
        "file" => detail("path"),
        "connect" | "datagram" => detail("peer"),
        "fork" | "exit" => String::new(),
        _ => e["detail"].to_string(),
    };
    (kind, object)
}

/// Loss recorded about the container by stage, and about the node, which may be anybody's.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lost {
    container: BTreeMap<String, u64>,
    node: u64,
}

impl Lost {
    pub(crate) fn total(&self) -> u64 {
        self.container.values().sum()
    }
}

pub(crate) struct Evidence {
    pub(crate) observed: Acts,
    pub(crate) lost: Lost,
}

/// Stages at which an event of a container is lost (an unknown identity or a clock step is no loss).
const LOSSES: &[&str] = &[
    "bulk_ring",
    "alert_ring",
    "recursion",
    "scratch",
    "kernel_map",
    "decode",
    "queue",
    "journal",
    "table",
];

pub(crate) fn evidence(agent: &Agent, id: &str) -> Evidence {
    let mut observed = Acts::new();
    let events = agent.plimsoll(&["events", "--container", id]);
    for e in events.unwrap_or_default() {
        *observed.entry(act(&e)).or_default() += e["count"].as_u64().unwrap_or(1).max(1);
    }
    let mut lost = Lost::default();
    for g in agent.plimsoll(&["gaps"]).unwrap_or_default() {
        let (stage, n) = (
            g["stage"].as_str().unwrap_or("?"),
            g["count"].as_u64().unwrap_or(0),
        );
        if !LOSSES.contains(&stage) {
            continue;
        }
        if g["container_id"] == id {
            *lost.container.entry(stage.to_owned()).or_default() += n;
        } else if g["scope"] == "node" {
            lost.node += n;
        }
    }
    Evidence { observed, lost }
}

fn sum(acts: &Acts, kind: &str) -> u64 {
    let of = acts.iter().filter(|((k, _), _)| k == kind);
    of.map(|(_, n)| n).sum()
}

/// The report, as `scripts/bench completeness` shows it.
fn report(title: &str, done: &Acts, found: &Evidence) {
    let total = |acts: &Acts| acts.values().sum::<u64>();
    let row = |kind: &str, d: u64, o: u64| {
        let percent = if d == 0 {
            100.0
        } else {
            o as f64 * 100.0 / d as f64
        };
        println!("COMPLETENESS | {kind} | {d} | {o} | {percent:.2} % |");
    };
    println!("COMPLETENESS {title}");
    println!("COMPLETENESS | kind | done | observed | complete |");
    for kind in ["exec", "fork", "exit", "file", "connect", "datagram"] {
        row(kind, sum(done, kind), sum(&found.observed, kind));
    }
    row("all", total(done), total(&found.observed));
    println!(
        "COMPLETENESS recorded loss: {} {:?}, of the node {}; observed + lost = {} of {} done",
        found.lost.total(),
        found.lost.container,
        found.lost.node,
        total(&found.observed) + found.lost.total(),
        total(done)
    );
}

pub(crate) fn differences(done: &Acts, observed: &Acts) -> Vec<String> {
    let mut all: HashMap<&(String, String), (u64, u64)> = HashMap::new();
    done.iter()
        .for_each(|(k, n)| all.entry(k).or_default().0 = *n);
    observed
        .iter()
        .for_each(|(k, n)| all.entry(k).or_default().1 = *n);
    let differ = all.into_iter().filter(|(_, (d, o))| d != o);
    differ
        .map(|(k, (d, o))| format!("{k:?}: done {d}, observed {o}"))
        .collect()
}

/// Waits until the container is gone and its evidence stays as it is.
fn settled(agent: &Agent, id: &str) -> Evidence {
    let gone = || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        all.iter()
            .any(|c| c["container_id"] == id && c["state"] == "gone")
    };
    // a busy machine works off what waits in the queues at its own pace
    let end = Instant::now() + Duration::from_secs(180);
    while !gone() {
        assert!(Instant::now() < end, "{id} is not told to be gone");
        std::thread::sleep(Duration::from_millis(500));
    }
    crate::own_rules::all_is_written(agent);
    let mut last = evidence(agent, id);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_secs(2));
        let now = evidence(agent, id);
        if now.observed == last.observed && now.lost == last.lost {
            break;
        }
        last = now;
    }
    last
}

pub(crate) fn agent_with(docker: String, config: &str) -> Agent {
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!("version: 1\n{config}");
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    Agent::start_in(dir, docker)
}

fn work(stage: &Stage, id: &str, work: &Work) -> Acts {
    let argv = work.argv();
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    done(&stage.run(id, &argv).expect("the workload does its work"))
}

#[test]
fn without_load_every_act_of_a_workload_is_in_the_evidence() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    let agent = agent_with(docker, "rings: { syscalls_used: false }\n");
    let id = format!("t{:010x}", std::process::id());
    let little = Work {
        programs: 100,
        files: 1000,
        connections: 200,
        datagrams: 200,
    };
    let done = work(&stage, &id, &little);
    let found = settled(&agent, &id);
    report("without load", &done, &found);
    let differ = differences(&done, &found.observed);
    assert!(
        differ.is_empty(),
        "{} differ: {:?}",
        differ.len(),
        &differ[..differ.len().min(20)]
    );
    assert_eq!(found.lost.total(), 0, "{:?}", found.lost);
}

#[test]
fn under_overload_what_was_observed_and_what_was_recorded_as_lost_is_what_was_done() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    // the least room there can be, so that a little work is too much
    let agent = agent_with(
        docker,
        "rings: { syscalls_used: false, bulk_bytes: 64KiB, alert_bytes: 64KiB, alert_quota_per_second: 50 }\n\
         queues: { bulk_events: 256, tree_events: 256, alert_events: 256 }\n",
    );
    let id = format!("o{:010x}", std::process::id());
    let much = Work {
        programs: 500,
        files: 20_000,
        connections: 3000,
        datagrams: 10_000,
    };
    let done = work(&stage, &id, &much);
    let found = settled(&agent, &id);
    report("under overload", &done, &found);
    let (all, observed): (u64, u64) = (done.values().sum(), found.observed.values().sum());
    for (what, n) in &found.observed {
        let d = done.get(what).copied().unwrap_or(0);
        assert!(
            *n <= d,
            "{what:?} was done {d} times and observed {n} times"
        );
    }
    assert!(
        found.lost.total() > 0,
        "this is no overload: {observed} of {all}"
    );
    // what only the node's counters know may be this container's or not
    let known = observed + found.lost.total();
    assert!(
        known <= all && all <= known + found.lost.node,
        "done {all}, observed {observed}, lost {:?}",
        found.lost
    );
}

#[test]
fn a_flood_hides_nothing_of_a_neighbour_and_nothing_of_its_own_uncounted() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    let agent = agent_with(
        docker,
        "rings: { syscalls_used: false, bulk_bytes: 64KiB, alert_bytes: 64KiB }\n\
         queues: { bulk_events: 256, tree_events: 256, alert_events: 256 }\n",
    );
    let id = |what: char| format!("{what}{:010x}", std::process::id());
    let (noisy, quiet) = (id('n'), id('q'));
    let flood = "/bin/acts truth 0 20000 0 20000 > /tmp/ignored & \
                 sleep 0.3; cat /etc/shadow > /dev/null; wait";
    std::thread::scope(|s| {
        let flooding = s.spawn(|| stage.run(&noisy, &["sh", "-c", flood]));
        agent.wait_until("the flood has begun", || {
            let all = agent.plimsoll(&["containers"]).unwrap_or_default();
            all.iter().any(|c| c["container_id"] == noisy.as_str())
        });
        stage
            .run(&quiet, &["/bin/acts", "symbolic-link"])
            .expect("the quiet one acts");
        flooding
            .join()
            .expect("it ends")
            .expect("the flood is made");
    });
    let secret = ("file".to_owned(), "/etc/shadow".to_owned());
    for id in [&noisy, &quiet] {
        let found = settled(&agent, id);
        let seen = found.observed.contains_key(&secret);
        println!(
            "COMPLETENESS flood: {id}: hidden act seen: {seen}, lost {:?}",
            found.lost
        );
        assert!(
            seen || found.lost.total() > 0,
            "{id}: neither seen nor counted against it: {:?}",
            found.lost
        );
    }
    let quiet = settled(&agent, &quiet);
    assert!(
        quiet.observed.contains_key(&secret),
        "the neighbour's act: {:?}",
        quiet.lost
    );
    assert!(settled(&agent, &noisy).lost.total() > 0, "this is no flood");
}

#[test]
fn what_was_pushed_out_of_the_dictionary_is_told_again_and_not_forgotten() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    let agent = agent_with(
        docker,
        "rings: { syscalls_used: false, l1_entries: 1024 }\nlearning: { slot_seconds: 60 }\n",
    );
    // a busy machine may lose something, and says so: then there is nothing to learn from this round
    let mut rounds = (0..3).map(|round| {
        let id = format!("l{round}{:010x}", std::process::id());
        stage
            .run(&id, &["/bin/acts", "push-out"])
            .expect("the act is done");
        settled(&agent, &id)
    });
    // read before and after: an entry that was pushed out makes the second one news again
    let whole = rounds.find(|found| {
        let read = |path: &str| found.observed.get(&("file".into(), path.into())).copied();
        let pushed = (0..5000).filter(|i| read(&format!("/tmp/pushed/{i}")).is_some());
        found.lost.container.is_empty() && read("/etc/shadow") == Some(2) && pushed.count() == 5000
    });
    assert!(
        whole.is_some(),
        "in one of three rounds nothing is lost: told again, and all that pushed is there"
    );
}
