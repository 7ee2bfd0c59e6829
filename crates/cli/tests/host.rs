//! The whole spine on real containers and real eBPF: needs root and the environment that
//! `scripts/test` makes; left out (and said so there) without it.

#[path = "host/blocks.rs"]
mod blocks;
#[path = "host/capture.rs"]
mod capture;
#[path = "host/completeness.rs"]
mod completeness;
#[path = "host/crashes.rs"]
mod crashes;
#[path = "host/custody.rs"]
mod custody;
#[path = "host/effects.rs"]
mod effects;
#[path = "host/enforcement.rs"]
mod enforcement;
#[path = "host/evasion.rs"]
mod evasion;
#[allow(dead_code, reason = "the tests without root use the rest of it")]
#[path = "own/mod.rs"]
mod own;

#[path = "host/evidence.rs"]
mod evidence;
#[path = "host/faults.rs"]
mod faults;
#[path = "host/forms.rs"]
mod forms;
#[path = "host/found.rs"]
mod found;
#[path = "host/handover.rs"]
mod handover;
#[path = "host/neighbours.rs"]
mod neighbours;
#[path = "host/own_rules.rs"]
mod own_rules;
#[path = "host/public.rs"]
mod public;
#[allow(dead_code, reason = "the tests without root use the rest of it")]
#[path = "public/mod.rs"]
mod public_acts;
#[path = "host/redaction.rs"]
mod redaction;
#[path = "host/response.rs"]
mod response;
#[path = "host/rules.rs"]
mod rules;
#[path = "host/runtimes.rs"]
mod runtimes;
#[path = "host/stage.rs"]
mod stage;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DEBIAN: &str = "plimsoll-test/debian:1";

/// What `scripts/test` provides, or `None` where host tests are left out.
fn docker_socket() -> Option<String> {
    std::env::var("PLIMSOLL_HOST_TESTS")
        .ok()
        .filter(|v| v == "1")?;
    note_failures();
    Some(std::env::var("PLIMSOLL_TEST_DOCKER_SOCK").expect("scripts/test sets the socket"))
}

/// Says what failed at once, for whoever ends this run before it tells (see `scripts/test`).
fn note(words: &str) {
    let dir = std::env::var_os("PLIMSOLL_TEST_DOCKER_DIR").unwrap_or_default();
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(PathBuf::from(dir).join("failed"));
    let test = std::thread::current().name().map(str::to_owned);
    let test = test.unwrap_or_default();
    // who looks at this run to its end does without
    let _ = file.and_then(|mut file| writeln!(file, "{test}: {words}"));
}

fn note_failures() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            note(&what.to_string());
            usual(what);
        }));
    });
}

/// One agent at a time: each watches the whole machine.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Agent {
    dir: tempfile::TempDir,
    child: Child,
    docker: String,
}

impl Agent {
    fn start(docker: String) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), docker)
    }

    /// In a directory that may hold a `config.yaml` and a `data` already.
    fn start_in(dir: tempfile::TempDir, docker: String) -> Self {
        let child = spawn(dir.path());
        let agent = Agent { dir, child, docker };
        agent.wait_for_answer("the agent answers");
        agent
    }

    fn restart_after(&mut self, kill: bool, meanwhile: impl FnOnce(&Self)) {
        if kill {
            self.child.kill().expect("kill our own agent");
        } else {
            let pid = self.child.id().to_string();
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .expect("interrupt our own agent");
        }
        self.child.wait().expect("it ends");
        meanwhile(self);
        self.child = spawn(self.dir.path());
        self.wait_for_answer("the agent answers again");
    }

    /// Waits for an agent that was just started, unless it has ended. Where none ever answers, the
    /// third is not waited for as long: a run has to come to its end to say why.
    fn wait_for_answer(&self, what: &str) {
        static NEVER_ANSWERED: AtomicU32 = AtomicU32::new(0);
        let most = match NEVER_ANSWERED.load(Relaxed) {
            0 | 1 => 120,
            _ => 20,
        };
        let end = Instant::now() + Duration::from_secs(most);
        while !self.answers() {
            if self.has_ended() || Instant::now() > end {
                NEVER_ANSWERED.fetch_add(1, Relaxed);
                panic!("it does not answer ({what}):\n{}", self.condition());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let state = stat.rsplit_once(") ");
        state.is_none_or(|(_, state)| state.starts_with('Z'))
    }

    /// What an agent that does not answer is at, and what `status` says instead.
    fn condition(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let at = |dir: PathBuf| {
            let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            let call = read("syscall");
            let (name, place) = (read("comm"), read("wchan"));
            format!("{}: {place} ({})", name.trim(), call.trim())
        };
        let mut lines: Vec<String> = tasks
            .into_iter()
            .flatten()
            .flatten()
            .map(|task| at(task.path()))
            .collect();
        let status = command(self.dir.path()).arg("status").output();
        let status = status.expect("run plimsoll");
        lines.push(format!("status: {}", status.status));
        lines.push(String::from_utf8_lossy(&status.stdout).into_owned());
        lines.push(String::from_utf8_lossy(&status.stderr).into_owned());
        lines.join("\n")
    }

    /// Whether this very agent is up: without one, status reads the data directory.
    fn answers(&self) -> bool {
        let status = self.plimsoll(&["status"]).unwrap_or_default();
        status.iter().any(|s| s["running"] == true)
    }

    /// JSON lines of a command; `None` when it failed.
    fn plimsoll(&self, args: &[&str]) -> Option<Vec<Value>> {
        let out = command(self.dir.path())
            .arg("--json")
            .args(args)
            .output()
            .expect("run plimsoll");
        // 1 also means "found something"
        let said = !out.stdout.is_empty() || out.status.success();
        (said && out.status.code() != Some(2)).then(|| {
            String::from_utf8_lossy(&out.stdout)
                .lines()
                .filter_map(|l| serde_json::from_str(l).ok())
                .collect()
        })
    }

    fn docker(&self, args: &[&str]) -> String {
        let out = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.docker))
            .args(args)
            .output()
            .expect("run docker");
        assert!(
            out.status.success(),
            "docker {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !done() {
            assert!(Instant::now() < end, "timed out waiting until {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Alerts that have the word, or are of a container of that name: one that was told before its
    /// name was known has the id alone.
    fn alerts(&self, container: &str) -> Vec<Value> {
        let all = self.plimsoll(&["containers", "--all"]).unwrap_or_default();
        let named = all.iter().filter(|c| c["name"] == container);
        let ids: Vec<&str> = named
            .filter_map(|c| c["container_id"].as_str()?.get(..12))
            .collect();
        let of = |v: &Value| {
            let id = v["output_fields"]["container.id"].as_str();
            id.is_some_and(|id| ids.contains(&id)) || v.to_string().contains(container)
        };
        self.plimsoll(&["alerts"])
            .unwrap_or_default()
            .into_iter()
            .filter(of)
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.dir.path().join(SAID)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            let words = format!("the agent said last:\n{}", last.join("\n"));
            eprintln!("{words}");
            note(&words);
        }
    }
}

/// Where an agent of these tests writes what it says, in its directory.
const SAID: &str = "agent.log";

fn command(dir: &Path) -> Command {
    // a test may have put a program of its own there
    let own = dir.join("private/plimsoll");
    let program = if own.exists() {
        own
    } else {
        PathBuf::from(env!("CARGO_BIN_EXE_plimsoll"))
    };
    let mut c = Command::new(program);
    c.arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--socket")
        .arg(dir.join("agent.sock"));
    c
}

fn spawn(dir: &Path) -> Child {
    let config: PathBuf = dir.join("config.yaml");
    if !config.exists() {
        std::fs::write(&config, "version: 1\nlearning:\n  slot_seconds: 1\n")
            .expect("write the configuration");
    }
    let said = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(SAID))
        .expect("a file for what the agent says");
    command(dir)
        .arg("--config")
        .arg(&config)
        .arg("run")
        // pinned only where a test is about that, in a place of its own
        .arg("--pins")
        .arg(std::fs::canonicalize(dir.join("bpf")).map_or("off".into(), |p| p.join("plimsoll")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .expect("start the agent")
}

#[test]
fn the_minutes_before_an_alert_show_known_behaviour_too_and_what_follows_use_by_use() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker.clone());
    // three rounds of the same reads, then the act; the reads again once that has been answered
    let story = "for i in 1 2 3; do cat /etc/hostname /etc/hostname >/dev/null; sleep 1.2; done; \
                 cp /bin/ls /tmp/dropped; /tmp/dropped / >/dev/null; \
                 until [ -e /tmp/go ]; do sleep 0.2; done; \
                 for i in 1 2 3 4 5; do cat /etc/hostname >/dev/null; done; sleep 600";
    let it = effects::Docked::start_of(&docker, "host-minutes", DEBIAN, &[], story);
    agent.wait_until("the act is an alert", || {
        let alerts = agent.alerts("host-minutes");
        alerts
            .iter()
            .any(|a| a.to_string().contains("/tmp/dropped"))
    });
    let alerts = agent.alerts("host-minutes");
    let alert = alerts
        .iter()
        .find(|a| a.to_string().contains("/tmp/dropped"));
    let alert = alert.expect("it was there");
    let id = alert["plimsoll"]["alert_id"].as_str().expect("an id");
    let raised = alert["time"].as_str().expect("a time").to_owned();
    let args = ["events", "--alert", id, "--full"];
    let reads = |each: bool| -> Vec<Value> {
        let events = agent.plimsoll(&args).expect("events");
        let known = |e: &Value| {
            e["detail"]["recorder"] == true
                && e["detail"]["each_use"] == each
                && e["detail"]["object"] == "/etc/hostname"
        };
        events.into_iter().filter(known).collect()
    };
    // what was before is read when the container is streamed already
    agent.wait_until("the recorder is read", || !reads(false).is_empty());
    std::fs::write(format!("/proc/{}/root/tmp/go", it.pid()), "").expect("let it go on");
    agent.wait_until("what followed is recorded", || reads(true).len() >= 5);
    let before = reads(false);
    assert!(
        before
            .iter()
            .all(|e| e["time"].as_str() < Some(raised.as_str()))
    );
    let times: u64 = before.iter().filter_map(|e| e["count"].as_u64()).sum();
    assert_eq!(times, 6, "three rounds of two reads: {before:?}");
    assert!(before.len() >= 3, "by second: {before:?}");
    assert!(reads(true).iter().all(|e| e["count"] == 1));

    let answer = agent.plimsoll(&["ask", "Q2", "--alert", id, "--around", "2m"]);
    let answer = answer
        .expect("an answer")
        .pop()
        .expect("one line")
        .to_string();
    assert!(answer.contains("The recorder covers"), "{answer}");
    assert!(answer.contains("/etc/hostname"), "{answer}");
    let status = agent.plimsoll(&["status"]).expect("status").pop();
    let recorder = status.expect("one line")["sensor"]["recorder"].clone();
    assert_eq!(recorder["bytes"], 64 << 20);
}

#[test]
fn an_attack_in_a_short_container_is_alerted_and_answered_after_it_is_gone() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let attack = "cat /etc/shadow >/dev/null; cp /bin/ls /tmp/dropped; /tmp/dropped / >/dev/null";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "host-attack",
        "plimsoll-test/debian:1",
        "sh",
        "-c",
        attack,
    ]);
    agent.wait_until("both acts are alerts", || {
        let all: String = agent
            .alerts("host-attack")
            .iter()
            .map(Value::to_string)
            .collect();
        all.contains("/etc/shadow") && all.contains("/tmp/dropped")
    });
    agent.wait_until("its end is known", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        all.iter()
            .any(|c| c["name"] == "host-attack" && c["state"] == "gone")
    });
    let alert = agent.alerts("host-attack").pop().expect("there is one");
    let id = alert["plimsoll"]["alert_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(alert["output_fields"]["container.name"], "host-attack");
    let mut told = BTreeMap::new();
    for q in (1..=18).map(|n| format!("Q{n}")) {
        let answer = agent
            .plimsoll(&["ask", &q, "--alert", &id])
            .expect("an answer")
            .pop()
            .expect("one line");
        assert_eq!(answer["question"], q);
        let statements = answer["statements"].as_array().expect("statements");
        assert!(!statements.is_empty(), "{q} says nothing");
        for s in statements {
            let status = s["status"].as_str().unwrap_or_default();
            assert!(
                ["observed", "inferred", "unknown"].contains(&status),
                "{q}: {s}"
            );
            assert!(
                status != "observed" || !s["evidence"].as_array().expect("evidence").is_empty(),
                "{q}: {s}"
            );
        }
        told.insert(q, answer["statements"].to_string());
    }
    // what this attack did is in the answer that asks for it
    for (q, words) in [
        ("Q11", "Credentials read: /etc/shadow"),
        ("Q10", "uid 0"),
        ("Q14", "did not come with the image: /tmp/dropped"),
        ("Q14", "no source for known vulnerabilities"),
        ("Q17", "not active in this container"),
        ("Q18", "without a sealed capture"),
    ] {
        assert!(told[q].contains(words), "{q}: {}", told[q]);
    }
    let first = agent
        .plimsoll(&["ask", "Q1", "--alert", &id])
        .expect("an answer")[0]
        .to_string();
    assert!(first.contains("plimsoll-test/debian:1"), "{first}");
}

#[test]
fn an_ordinary_container_raises_no_alert() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let work = "ls / >/dev/null; cat /etc/os-release >/dev/null; echo hi >/tmp/x; rm /tmp/x";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "host-quiet",
        "plimsoll-test/debian:1",
        "sh",
        "-c",
        work,
    ]);
    agent.wait_until("the container is known and gone", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        all.iter()
            .any(|c| c["name"] == "host-quiet" && c["state"] == "gone")
    });
    assert_eq!(agent.alerts("host-quiet"), Vec::<Value>::new());
}

#[test]
fn a_container_that_lives_for_an_instant_has_its_image_and_name() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    for i in 0..5 {
        agent.docker(&[
            "run",
            "--rm",
            "--name",
            &format!("instant-{i}"),
            "plimsoll-test/busybox:1",
            "true",
        ]);
    }
    agent.wait_until("all five are known by name and image", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        (0..5).all(|i| {
            all.iter().any(|c| {
                c["name"] == format!("instant-{i}") && c["image"] == "plimsoll-test/busybox:1"
            })
        })
    });
    // a container is known from its cgroup on, and its first program comes later
    agent.wait_until("the first instruction of each is attributed", || {
        let execs = agent.plimsoll(&["events", "--kind", "exec"]);
        let of_first = |e: &Value| e.to_string().contains("busybox");
        execs
            .unwrap_or_default()
            .iter()
            .filter(|e| of_first(e))
            .count()
            >= 5
    });
}

#[test]
fn a_killed_agent_leaves_a_gap_and_picks_up_running_containers() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let mut agent = Agent::start(docker);
    agent.docker(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "host-stays",
        "plimsoll-test/debian:1",
        "sleep",
        "300",
    ]);
    let running = |a: &Agent| {
        let all = a.plimsoll(&["containers"]).unwrap_or_default();
        all.iter().any(|c| c["name"] == "host-stays")
    };
    agent.wait_until("the container is seen", || running(&agent));
    agent.restart_after(true, |_| std::thread::sleep(Duration::from_millis(1500)));
    agent.wait_until("it is picked up again", || running(&agent));
    agent.wait_until("the time without an agent is a gap", || {
        agent
            .plimsoll(&["gaps"])
            .unwrap_or_default()
            .iter()
            .any(|g| g.to_string().contains("agent_down"))
    });
    agent.docker(&["exec", "host-stays", "sh", "-c", "cat /etc/shadow"]);
    agent.wait_until("an act after the restart is alerted", || {
        agent
            .alerts("host-stays")
            .iter()
            .any(|a| a.to_string().contains("/etc/shadow"))
    });
    agent.docker(&["rm", "-f", "host-stays"]);
}

#[test]
fn hostile_names_and_arguments_never_reach_the_terminal_raw() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let work = "printf x > \"/tmp/$(printf '\\033[31m\\377')\"; sh -c \"true '$(printf '\\033]0;owned\\007')'\"; head -c 100000 /dev/zero | tr '\\0' a > /tmp/long";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "host-hostile",
        "plimsoll-test/debian:1",
        "sh",
        "-c",
        work,
    ]);
    agent.wait_until("its events are there", || {
        agent
            .plimsoll(&["events", "--container", "host-hostile"])
            .is_some_and(|e| !e.is_empty())
    });
    for json in [false, true] {
        let mut c = command(agent.dir.path());
        if json {
            c.arg("--json");
        }
        let out = c
            .args(["events", "--container", "host-hostile"])
            .output()
            .expect("run plimsoll");
        assert!(
            !out.stdout.contains(&0x1b) && !out.stdout.contains(&0x07),
            "raw control characters"
        );
        assert!(String::from_utf8(out.stdout).is_ok(), "invalid UTF-8");
    }
}
