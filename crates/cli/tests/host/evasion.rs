//! Nothing evaded: every technique of the table, done in a container of its own by a small program,
//! and held against what the agent recorded. `docs/evasion.md` is the same table for people.

#[path = "evasion/page.rs"]
mod page;
#[path = "evasion/table.rs"]
mod table;

use crate::stage::{Stage, run};
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use table::{Answer, Field, How, Scenario, TABLE, Want};

impl Field {
    fn holds(&self, event: &Value) -> bool {
        let found = match event.pointer(self.at) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Null) | None => return false,
            Some(other) => other.to_string(),
        };
        match self.want {
            Want::Is(w) => found == w,
            Want::Ends(w) => found.ends_with(w),
            Want::Has(w) => found.contains(w),
        }
    }
}

/// What was recorded about one container, and what doctor says.
struct Record<'a> {
    events: &'a [Value],
    alerts: &'a [Value],
    doctor: &'a [Value],
}

impl Record<'_> {
    fn times(&self, kind: &str, fields: &[Field]) -> u64 {
        let matches = |e: &&Value| e["kind"] == kind && fields.iter().all(|f| f.holds(e));
        let of = self.events.iter().filter(matches);
        of.map(|e| e["count"].as_u64().unwrap_or(1).max(1)).sum()
    }

    fn states(&self, [row, words]: [&str; 2]) -> bool {
        let row = self.doctor.iter().find(|r| r["name"] == row);
        row.is_some_and(|r| r["cost"].as_str().is_some_and(|c| c.contains(words)))
    }

    fn holds(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Seen(kind, fields) => self.times(kind, fields) > 0,
            Answer::Times(n, kind, fields) => self.times(kind, fields) == *n,
            Answer::Limit(kind, fields, says) => {
                self.times(kind, fields) == 0 && self.states(*says)
            }
            Answer::Stated(says) => self.states(*says),
            Answer::Alerted(what) => self.alerts.iter().any(|a| a.to_string().contains(what)),
            Answer::MadeBy(word) => self.made_by(word),
            Answer::Told(_) => true,
        }
    }

    fn made_by(&self, word: &str) -> bool {
        let exec = self
            .events
            .iter()
            .find(|e| e["kind"] == "exec" && e["detail"]["argv"].to_string().contains(word));
        let fork = |child: &Value| {
            self.events
                .iter()
                .find(|e| e["kind"] == "fork" && e["detail"]["child_pid"] == *child)
        };
        exec.is_some_and(|e| fork(&e["pid"]).is_some_and(|f| e["lineage"][1]["pid"] == f["pid"]))
    }

    /// The answers that were not given, with what there was instead.
    fn missing(&self, s: &Scenario) -> Option<String> {
        let not: Vec<String> = s
            .answers
            .iter()
            .filter(|a| !self.holds(a))
            .map(page::answer)
            .collect();
        let shown = |e: &Value| format!("    {} {} {}", e["kind"], e["detail"], e["comm"]);
        let mut lines: Vec<String> = self.events.iter().map(shown).collect();
        lines.retain(|l| !l.contains("\"syscall\""));
        lines.truncate(40);
        (!not.is_empty()).then(|| {
            format!(
                "{}: no {}\n  of {} alerts and {} events:\n{}",
                s.name,
                not.join("; no "),
                self.alerts.len(),
                self.events.len(),
                lines.join("\n")
            )
        })
    }
}

fn by_container(all: Vec<Value>, pointer: &str) -> HashMap<String, Vec<Value>> {
    let mut map: HashMap<String, Vec<Value>> = HashMap::new();
    for value in all {
        let id = value.pointer(pointer).and_then(Value::as_str);
        if let Some(id) = id.map(str::to_owned) {
            map.entry(id).or_default().push(value);
        }
    }
    map
}

fn argv(how: &How) -> Option<Vec<&'static str>> {
    match how {
        How::Act(name) => Some(vec!["/bin/acts", name]),
        How::Shell(line) => Some(vec!["sh", "-c", line]),
        How::Test(_) => None,
    }
}

#[test]
fn every_evasion_of_the_table_gives_its_answer() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    let agent = Agent::start(docker);
    let only = std::env::var("PLIMSOLL_EVASION").ok();
    let wanted = |s: &&Scenario| only.as_ref().is_none_or(|o| s.name.contains(o.as_str()));
    // alerts carry the first twelve characters of an id
    let id = |s: &Scenario| {
        let n = TABLE
            .iter()
            .position(|t| t.name == s.name)
            .expect("of the table");
        format!("{n:03}{:08}x{}", std::process::id(), s.name)
    };
    let mut failed = Vec::new();
    let mut done = Vec::new();
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("left out: 32-bit calls, which this architecture has no table of ours for");
    }
    let possible = |s: &&Scenario| cfg!(target_arch = "x86_64") || !s.name.starts_with("compat");
    for s in TABLE.iter().filter(possible).filter(wanted) {
        let Some(argv) = argv(&s.how) else {
            done.push(s); // what doctor must say of it is checked here, the rest in its own test
            continue;
        };
        match stage.run(&id(s), &argv) {
            Ok(_) => done.push(s),
            Err(said) => failed.push(format!("{}: was not done: {said}", s.name)),
        }
    }
    let doctor = agent.plimsoll(&["doctor"]).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(60);
    let mut missing = Vec::new();
    // what is not there yet may still come; limits are only judged by what is there at the end
    while Instant::now() < end {
        let events = agent.plimsoll(&["events"]).unwrap_or_default();
        let events = by_container(events, "/container/container_id");
        let alerts = agent.plimsoll(&["alerts"]).unwrap_or_default();
        let alerts = by_container(alerts, "/output_fields/container.id");
        let look = |s: &&Scenario| {
            let of =
                |m: &HashMap<String, Vec<Value>>, id: &str| m.get(id).cloned().unwrap_or_default();
            let id = id(s);
            let (events, alerts) = (of(&events, &id), of(&alerts, &id[..12]));
            Record {
                events: &events,
                alerts: &alerts,
                doctor: &doctor,
            }
            .missing(s)
        };
        missing = done.iter().filter_map(look).collect();
        if missing.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(3));
    }
    failed.extend(missing);
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    assert!(
        failed.is_empty(),
        "{} of {} scenarios:\n{}\ngaps: {gaps:?}",
        failed.len(),
        done.len(),
        failed.join("\n")
    );
}

fn field<'a>(v: &'a Value, at: &str) -> &'a str {
    v.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Executions in a container whose arguments have this word.
fn execs(agent: &Agent, container: &str, word: &str) -> Vec<Value> {
    let args = ["events", "--kind", "exec", "--container", container];
    let mut all = agent.plimsoll(&args).unwrap_or_default();
    all.retain(|e| e["detail"]["argv"].to_string().contains(word));
    all
}

#[test]
fn a_session_of_the_runtime_and_a_process_from_the_host_are_told_apart() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let name = format!("entered-{}", std::process::id());
    let image = "plimsoll-test/debian:1";
    agent.docker(&["run", "-d", "--rm", "--name", &name, image, "sleep", "300"]);
    let pid = agent.docker(&["inspect", "-f", "{{.State.Pid}}", &name]);
    agent.wait_until("its first program is seen", || {
        !execs(&agent, &name, "sleep").is_empty()
    });
    agent.docker(&["exec", &name, "sh", "-c", "cat /etc/hostname; : by-runtime"]);
    // namespaces only: no cgroup of the container is entered
    let enter = ["-t", pid.trim(), "-m", "-p", "sh", "-c"];
    run(
        "nsenter",
        &[&enter[..], &["cat /etc/hosts; : by-host"]].concat(),
    );
    agent.wait_until("both are seen", || {
        let found = |w| !execs(&agent, &name, w).is_empty();
        found("by-runtime") && found("by-host") && found("/etc/hosts")
    });
    let first = &execs(&agent, &name, "sleep")[0];
    let session = &execs(&agent, &name, "by-runtime")[0];
    let entered = &execs(&agent, &name, "by-host")[0];
    let entry = "/lineage/0/entry";
    assert_eq!(field(first, entry), "init", "{first}");
    assert_eq!(field(session, entry), "exec_session", "{session}");
    assert_eq!(field(entered, entry), "host", "{entered}");
    // neither descends from the container's own first program
    for e in [session, entered] {
        assert!(!e["lineage"].to_string().contains("sleep"), "{e}");
    }
    let below = &execs(&agent, &name, "/etc/hosts")[0];
    assert_eq!(field(below, entry), "host", "inherited: {below}");
    agent.docker(&["rm", "-f", &name]);
}
