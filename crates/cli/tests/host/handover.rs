//! One agent after another over the same hooks: a container works on steadily and keeps its own journal,
//! the agent is killed, or replaced by one of another build, and what happened meanwhile is in the
//! evidence all the same.

use crate::{Agent, ONE, docker_socket};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

/// A bpffs of this test's own: whatever is pinned there ends with it.
struct Bpffs(PathBuf);

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Makes a file of a new name every twentieth of a second, and says so.
const STEADY: &str =
    "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); : > /tmp/act-$i; echo $i; sleep 0.05; done";

fn config(dir: &std::path::Path, more: &str) {
    let hooks = dir.join("bpf/plimsoll");
    let text = format!(
        "version: 1\nlearning:\n  slot_seconds: 1\nhooks:\n  directory: {}\n{more}",
        hooks.display()
    );
    std::fs::write(dir.join("config.yaml"), text).expect("write the configuration");
}

fn start(docker: String) -> (Agent, Bpffs) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("bpf");
    std::fs::create_dir(&at).expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "bpf", "bpf"])
        .arg(&at)
        .status();
    assert!(mounted.expect("mount is there").success());
    let guard = Bpffs(at);
    config(dir.path(), "");
    (Agent::start_in(dir, docker), guard)
}

/// The container's own journal.
fn done(agent: &Agent, name: &str) -> Vec<u64> {
    let lines = agent.docker(&["logs", name]);
    lines.lines().filter_map(|l| l.parse().ok()).collect()
}

/// How often each act is in the evidence.
fn observed(agent: &Agent, name: &str) -> BTreeMap<u64, u64> {
    let mut acts = BTreeMap::new();
    let events = agent.plimsoll(&["events", "--container", name, "--kind", "file"]);
    for e in events.unwrap_or_default() {
        let path = e["detail"]["path"].as_str().unwrap_or_default();
        if let Some(n) = path.strip_prefix("/tmp/act-").and_then(|n| n.parse().ok()) {
            *acts.entry(n).or_default() += e["count"].as_u64().unwrap_or(1).max(1);
        }
    }
    acts
}

fn gaps(agent: &Agent, stage: &str) -> Vec<serde_json::Value> {
    let all = agent.plimsoll(&["gaps"]).unwrap_or_default();
    all.into_iter().filter(|g| g["stage"] == stage).collect()
}

/// What is pinned where the configuration says.
fn sets(agent: &Agent) -> Vec<serde_json::Value> {
    let config = agent.dir.path().join("config.yaml");
    let config = config.to_str().expect("a path of ours");
    let listed = agent.plimsoll(&["hooks", "list", "--config", config]);
    listed.unwrap_or_default()
}

fn wait_for_acts(agent: &Agent, name: &str, more: usize) -> u64 {
    let before = done(agent, name).len();
    agent.wait_until("the container has worked on", || {
        done(agent, name).len() >= before + more
    });
    done(agent, name).last().copied().unwrap_or_default()
}

fn run(agent: &Agent, name: &str) {
    let image = "plimsoll-test/busybox:1";
    agent.docker(&["run", "-d", "--name", name, image, "sh", "-c", STEADY]);
    agent.wait_until("the first acts are in the evidence", || {
        observed(agent, name).len() > 20
    });
}

#[test]
fn what_a_container_did_while_its_killed_agent_was_away_is_in_the_evidence() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut agent, _bpffs) = start(docker);
    let name = "host-handover-kill";
    run(&agent, name);
    let (mut from, mut to) = (0, 0);
    agent.restart_after(true, |agent| {
        from = done(agent, name).last().copied().unwrap_or_default();
        to = wait_for_acts(agent, name, 60);
    });
    let last = wait_for_acts(&agent, name, 20);
    agent.docker(&["rm", "-f", name]);
    agent.wait_until("the last acts are in the evidence", || {
        observed(&agent, name).contains_key(&last)
    });
    let acts = observed(&agent, name);
    // `from` itself may have been read by the one that was killed
    let away: Vec<u64> = (from + 2..to).filter(|n| !acts.contains_key(n)).collect();
    assert_eq!(away, Vec::<u64>::new(), "done while no agent was there");
    assert!(acts.values().all(|n| *n == 1), "once each");
    let missing = (1..=last).filter(|n| !acts.contains_key(n)).count() as u64;
    let in_hand = gaps(&agent, "handover");
    let told: u64 = in_hand.iter().filter_map(|g| g["count"].as_u64()).sum();
    println!(
        "HANDOVER killed: {last} done, {missing} missing, {told} told as in its hands at most"
    );
    assert!(missing <= told, "{missing} missing, {in_hand:?}");
    assert_eq!(gaps(&agent, "agent_down"), Vec::<serde_json::Value>::new());
    let answer = agent.plimsoll(&["ask", "Q16", "--container", name]);
    let answer = serde_json::to_string(&answer).expect("JSON");
    assert!(!answer.contains("No agent ran"), "{answer}");
}

#[test]
fn an_upgrade_to_other_programs_leaves_no_blind_moment() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut agent, _bpffs) = start(docker);
    let name = "host-handover-upgrade";
    run(&agent, name);
    // what a service manager sends; the next one has other maps, as another build has
    let pid = agent.child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill is there").success());
    agent.child.wait().expect("it ends");
    let left = sets(&agent);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (&left[0]["in_use"], &left[0]["broken"]),
        (&false.into(), &"".into())
    );
    wait_for_acts(&agent, name, 40);
    config(agent.dir.path(), "rings:\n  bulk_bytes: 8MiB\n");
    agent.child = crate::spawn(agent.dir.path());
    agent.wait_for_answer("the next one answers");
    let last = wait_for_acts(&agent, name, 40);
    agent.docker(&["rm", "-f", name]);
    agent.wait_until("the last acts are in the evidence", || {
        observed(&agent, name).contains_key(&last)
    });
    let acts = observed(&agent, name);
    let missing: Vec<u64> = (1..=last).filter(|n| !acts.contains_key(n)).collect();
    let twice: Vec<&u64> = acts
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(a, _)| a)
        .collect();
    println!(
        "HANDOVER upgrade: {last} done, {} missing, {} twice",
        missing.len(),
        twice.len()
    );
    assert_eq!(missing, Vec::<u64>::new(), "100 % of {last}");
    assert!(twice.len() <= 1, "{twice:?}");
    assert_eq!(gaps(&agent, "agent_down"), Vec::<serde_json::Value>::new());
    let sets = sets(&agent);
    assert_eq!(sets.len(), 1, "the old ones are out: {sets:?}");
}

/// An agent as anybody starts it: nothing says where its hooks go, or whether they stay.
fn spawn_by_default(agent: &Agent) -> std::process::Child {
    let dir = agent.dir.path();
    let said = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(crate::SAID))
        .expect("a file for what the agent says");
    crate::command(dir)
        .env_remove("PLIMSOLL_PINS")
        .arg("--config")
        .arg(dir.join("config.yaml"))
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .expect("start the agent")
}

/// The hooks of one data directory, in the default place.
struct DefaultHooks(PathBuf);

impl DefaultHooks {
    fn of(&self, what: &str) -> Vec<serde_json::Value> {
        let out = crate::command(&self.0)
            .args(["--json", "hooks", what])
            .output()
            .expect("run plimsoll");
        let lines = String::from_utf8_lossy(&out.stdout).into_owned();
        let owner = self.0.join("data").display().to_string();
        let all = lines.lines().filter_map(|l| serde_json::from_str(l).ok());
        all.filter(|set: &serde_json::Value| set["owner"] == *owner)
            .collect()
    }
}

impl Drop for DefaultHooks {
    fn drop(&mut self) {
        // also when the test fails: this data directory's only
        self.of("remove");
    }
}

#[test]
fn an_agent_as_it_is_installed_is_taken_over_and_says_what_a_stop_leaves() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut agent = Agent::start(docker);
    let hooks = DefaultHooks(agent.dir.path().to_owned());
    let send = |agent: &mut Agent, signal: &str| {
        let pid = agent.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success());
        agent.child.wait().expect("it ends");
    };
    // the one that was started without pins leaves nothing
    send(&mut agent, "-TERM");
    assert_eq!(hooks.of("list"), Vec::<serde_json::Value>::new());
    agent.child = spawn_by_default(&agent);
    agent.wait_for_answer("it answers");
    let pinned = |agent: &Agent, words: &str| {
        let rows = agent.plimsoll(&["doctor"]).unwrap_or_default();
        rows.iter().any(|r| {
            let r = r.to_string();
            r.contains("for the next agent") && r.contains(words)
        })
    };
    assert!(pinned(&agent, "pinned in /sys/fs/bpf/plimsoll/"));
    let before = gaps(&agent, "agent_down").len();
    for signal in ["-KILL", "-TERM"] {
        send(&mut agent, signal);
        let left = hooks.of("list");
        assert_eq!(left.len(), 1, "{signal}: {left:?}");
        assert_eq!(
            (&left[0]["in_use"], &left[0]["broken"]),
            (&false.into(), &"".into())
        );
        assert_eq!(left[0]["idle_seconds"], serde_json::Value::Null, "{signal}");
        agent.child = spawn_by_default(&agent);
        agent.wait_for_answer("the next one answers");
        assert!(pinned(&agent, "were taken over"), "{signal}");
        assert_eq!(gaps(&agent, "agent_down").len(), before, "{signal}");
    }
    let said = std::fs::read_to_string(agent.dir.path().join(crate::SAID)).unwrap_or_default();
    assert!(said.contains("for the next agent for 5 min"), "{said}");
    // a person's Ctrl-C is the end
    send(&mut agent, "-INT");
    assert_eq!(hooks.of("list"), Vec::<serde_json::Value>::new());
    agent.child = spawn_by_default(&agent);
    agent.wait_for_answer("the last one answers");
    send(&mut agent, "-TERM");
    hooks.of("remove");
    assert_eq!(hooks.of("list"), Vec::<serde_json::Value>::new());
    agent.child = spawn_by_default(&agent);
}

#[test]
fn hooks_that_no_agent_comes_back_for_go_by_themselves() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut agent, _bpffs) = start(docker);
    // taken over once: what the first agent left is not its leftover any more
    let soon = "  keep_for: 30s\n  remove_after: 30s\n";
    agent.restart_after(true, |agent| config(agent.dir.path(), soon));
    assert_eq!(sets(&agent).len(), 1);
    agent.child.kill().expect("kill our own agent");
    agent.child.wait().expect("it ends");
    assert_eq!(sets(&agent).len(), 1, "they wait for the next agent");
    drop(one);
    agent.wait_until("they have gone", || sets(&agent).is_empty());
}
