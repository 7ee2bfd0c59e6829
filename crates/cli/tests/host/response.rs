//! A real container under attack: told first, contained, destroyed only when a named person has
//! waived the capture (or one was sealed); its replica goes on; what can be undone is undone.

use crate::effects::{Docked, PEER};
use crate::{Agent, alone, docker_socket};
use plimsoll_agent::respond::capture;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

const POLICY: &str = r#"
version: 1
guards: {min_healthy: 1, protected: {labels: {tier: core}}}
policies:
  - name: dropped program
    match: {labels: {plimsoll-test: respond}, risk: high}
    dry_run: false
    steps: [notify, pause, {capture: {deadline: 20s}}, {remove: {approvals: 1}}]
"#;

/// A receiver that takes everything; what it was sent, in order.
pub(crate) fn receiver() -> (u16, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let got = Arc::<Mutex<Vec<Value>>>::default();
    let taken = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // a sender that was killed in the middle holds up nobody else
            let patience = std::time::Duration::from_secs(5);
            let _ = stream.set_read_timeout(Some(patience));
            let mut lines = BufReader::new(stream);
            let mut length = 0;
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
                let lower = line.to_ascii_lowercase();
                if let Some(n) = lower.strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            // what has not come in time is not taken, and comes again
            if length == 0 || lines.read_exact(&mut body).is_err() {
                continue;
            }
            let message = serde_json::from_slice(&body).unwrap_or_default();
            taken.lock().expect("whole").push(message);
            let _ = lines
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (port, got)
}

pub(crate) fn prepare(docker: &str, port: u16, policy: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    // the sender is not root, and has to read its file
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("open the directory");
    let at = |name: &str| dir.path().join(name);
    let show = |name: &str| at(name).display().to_string();
    // as in a home directory: the sender's user can't reach the program by its path
    std::fs::create_dir(at("private")).expect("create");
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(at("private"), closed).expect("close the directory");
    // not by this process: a child forked meanwhile by another thread would hold it open for writing
    let mut copy = std::process::Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_plimsoll"));
    let copied = copy.arg(at("private/plimsoll")).status();
    assert!(copied.expect("run cp").success());
    std::fs::write(at("policy.yaml"), policy).expect("write");
    let receivers = format!(
        "version: 1\nreceivers:\n  - {{name: ops, kind: webhook, url: 'http://127.0.0.1:{port}/', per_minute: 6000}}\n"
    );
    std::fs::write(at("notify.yaml"), receivers).expect("write");
    let config = format!(
        "version: 1\nlearning: {{slot_seconds: 1}}\nruntimes: {{docker_sockets: ['{docker}']}}\nresponse: {{policy: '{}'}}\nnotifications: {{file: '{}', user: nobody}}\n",
        show("policy.yaml"),
        show("notify.yaml")
    );
    std::fs::write(at("config.yaml"), config).expect("write");
    dir
}

fn start(agent: &Agent, name: &str, labels: &[&str]) {
    let service = "com.docker.compose.service=respond-web";
    let mut run = vec!["run", "-d", "--name", name, "--label", service];
    run.extend(["--label", "com.docker.compose.project=respond"]);
    labels.iter().for_each(|l| run.extend(["--label", l]));
    run.extend(["plimsoll-test/debian:1", "sleep", "600"]);
    agent.docker(&run);
}
fn attack(agent: &Agent, name: &str) {
    let dropped = "cp /bin/ls /tmp/dropped; /tmp/dropped / >/dev/null";
    agent.docker(&["exec", name, "sh", "-c", dropped]);
}
fn state(agent: &Agent, name: &str) -> String {
    let format = "{{.State.Status}}";
    agent
        .docker(&["inspect", "-f", format, name])
        .trim()
        .to_owned()
}
fn plan_of(agent: &Agent, name: &str, state: &str) -> Option<Value> {
    let plans = agent.plimsoll(&["plan", "list"]).unwrap_or_default();
    let mut mine = plans.into_iter().filter(|p| p["container"] == name);
    mine.find(|p| p["state"] == state)
}
fn step<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let steps = plan["steps"].as_array().expect("steps");
    steps.iter().find(|s| s["step"] == name).expect("the step")
}

/// Whether the receiver has the alert of a plan.
fn is_told(got: &Mutex<Vec<Value>>, plan: &Value) -> bool {
    let told = got.lock().expect("whole");
    let of_plan = |m: &Value| m["alert"]["plimsoll"]["alert_id"] == plan["alert_id"];
    told.iter().any(of_plan)
}

#[test]
fn an_attacked_container_is_told_of_contained_and_removed_only_after_a_persons_word() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let (port, got) = receiver();
    let agent = Agent::start_in(prepare(&docker, port, POLICY), docker);
    let names = ["respond-hit", "respond-twin", "respond-core"];
    start(&agent, names[0], &["plimsoll-test=respond"]);
    start(&agent, names[1], &["plimsoll-test=respond"]);
    start(&agent, names[2], &["plimsoll-test=respond", "tier=core"]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        story(&agent, &got);
    }));
    for name in names {
        let rm = std::panic::AssertUnwindSafe(|| agent.docker(&["rm", "-f", name]));
        let _ = std::panic::catch_unwind(rm);
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn story(agent: &Agent, got: &Mutex<Vec<Value>>) {
    let [hit, twin, core] = ["respond-hit", "respond-twin", "respond-core"];
    attack(agent, hit);
    agent.wait_until("a plan about it waits for a person", || {
        plan_of(agent, hit, "waiting").is_some()
    });
    let plan = plan_of(agent, hit, "waiting").expect("it was there");
    let id = plan["plan_id"].as_str().expect("an id").to_owned();
    assert_eq!(step(&plan, "notify")["state"], "done", "{plan}");
    assert_eq!(step(&plan, "pause")["state"], "done", "{plan}");
    assert_eq!(step(&plan, "remove")["state"], "pending", "{plan}");
    assert_eq!(state(agent, hit), "paused");
    assert_eq!(state(agent, twin), "running", "its replica is untouched");

    // (that this came before any step is checked where effects can look at the journal:
    // crates/agent/tests/response.rs)
    // nor is a step of telling over only when the receiver has it: handed over is done
    agent.wait_until("it is told", || is_told(got, &plan));

    // undo gives it back
    agent
        .plimsoll(&["plan", "undo", &id, "--reason", "drill"])
        .expect("undone");
    agent.wait_until("it runs again", || state(agent, hit) == "running");

    // another attack, taken to its end: approved and the missing capture waived by a person
    let dropped = "cp /bin/date /tmp/dropped2; /tmp/dropped2 >/dev/null";
    agent.docker(&["exec", hit, "sh", "-c", dropped]);
    agent.wait_until("the next plan waits", || {
        plan_of(agent, hit, "waiting").is_some()
    });
    let plan = plan_of(agent, hit, "waiting").expect("it was there");
    let id = plan["plan_id"].as_str().expect("an id").to_owned();
    if step(&plan, "capture")["sealed"].is_null() {
        agent
            .plimsoll(&[
                "plan",
                "approve",
                &id,
                "--waive-capture",
                "--reason",
                "drill",
            ])
            .expect("waived");
        assert_eq!(state(agent, hit), "paused", "a waiver alone is no approval");
    }
    agent
        .plimsoll(&["plan", "approve", &id, "--reason", "drill"])
        .expect("approved");
    agent.wait_until("it is removed", || {
        let all = agent.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        all.lines().all(|l| l != hit)
    });
    assert_eq!(state(agent, twin), "running");

    // a protected one is left alone, and the plan says why
    attack(agent, core);
    agent.wait_until("the plan about the protected one has ended", || {
        plan_of(agent, core, "ended").is_some()
    });
    let plan = plan_of(agent, core, "ended").expect("it was there");
    assert_eq!(step(&plan, "pause")["state"], "refused", "{plan}");
    assert!(plan.to_string().contains("tier=core"), "{plan}");
    assert_eq!(state(agent, core), "running");
}

// ---- from the alert to the end, with everything that is kept and taken back between ----

/// Has an established connection and sends on it; another when that has ended.
fn talks(to: &str) -> String {
    let say = "while echo x; do sleep 0.1; done";
    format!("while :; do ({say}) | nc -w 2 {to} 7000; sleep 0.2; done")
}
/// A program that is on no disk when it starts.
const FILELESS: &str = "cp /bin/busybox /tmp/x; exec 3</tmp/x; rm /tmp/x; ln -s /proc/self/fd/3 /tmp/sleep; MARK=plimsoll-5319 /tmp/sleep 300";

fn plans_of(agent: &Agent, name: &str) -> Vec<Value> {
    let plans = agent.plimsoll(&["plan", "list"]).unwrap_or_default();
    plans
        .into_iter()
        .filter(|p| p["container"] == name)
        .collect()
}
fn id(plan: &Value) -> &str {
    plan["plan_id"].as_str().expect("an id")
}
/// SHA-256 of the program that a process of the container executes and that is on no disk.
fn deleted_program(hit: &Docked) -> String {
    let out = std::process::Command::new("sh")
        .arg("-c")
        .arg(
            "for p in /proc/[0-9]*; do case \"$(readlink $p/exe)\" in '/tmp/x (deleted)') \
             grep -q \"$0\" $p/cgroup && sha256sum $p/exe;; esac; done",
        )
        .arg(hit.inspect("{{.Id}}"))
        .output()
        .expect("run sh");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    said.split_whitespace().next().expect("it runs").to_owned()
}

#[test]
fn told_frozen_kept_cut_given_back_and_removed_last_while_the_replica_goes_on() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let far = Docked::start(&docker, "story-far", &[], PEER);
    let near = Docked::start(&docker, "story-near", &[], PEER);
    let policy = format!(
        "version: 1\nguards: {{min_healthy: 1}}\npolicies:\n  - name: story\n    match: {{labels: {{plimsoll-test: story}}, risk: high}}\n    dry_run: false\n    steps: [notify, {{freeze: {{budget: 30s}}}}, {{capture: {{memory: true}}}}, thaw, {{isolate: {{allow: [{}]}}}}, {{remove: {{approvals: 1}}}}]\n",
        near.address()
    );
    let (port, got) = receiver();
    let agent = Agent::start_in(prepare(&docker, port, &policy), docker.clone());
    let labels: Vec<&str> = "--label plimsoll-test=story --label com.docker.compose.service=story --label com.docker.compose.project=story"
        .split(' ')
        .collect();
    let hit = Docked::start(&docker, "story-hit", &labels, &talks(&far.address()));
    let twin = Docked::start(&docker, "story-twin", &labels, &talks(&near.address()));
    agent.wait_until("both talk", || {
        far.grows("/tmp/got") && near.grows("/tmp/got")
    });

    hit.exec(FILELESS);
    agent.wait_until("a plan about it waits for a person", || {
        plan_of(&agent, hit.name, "waiting").is_some()
    });
    let program = deleted_program(&hit);
    let plan = plan_of(&agent, hit.name, "waiting").expect("it was there");
    for done in ["notify", "freeze", "capture", "thaw", "isolate"] {
        assert_eq!(step(&plan, done)["state"], "done", "{done}: {plan}");
    }
    agent.wait_until("it is told", || is_told(&got, &plan));

    // what was kept
    let sealed = step(&plan, "capture")["sealed"].as_str().expect("a bundle");
    let bundle = agent.dir.path().join("data/captures").join(sealed);
    let manifest = capture::verify_file(&bundle, None).expect("it verifies");
    let artefacts = manifest["artefacts"].as_array().expect("a list");
    let is = |a: &Value, what: &str| a["name"].as_str().is_some_and(|n| n.contains(what));
    let exe = |a: &&Value| is(a, "/recovered/exe") && a["sha256"] == program.as_str();
    assert!(
        artefacts.iter().any(|a| exe(&a)),
        "the deleted program, byte for byte"
    );
    assert!(artefacts.iter().any(|a| is(a, "/memory/")), "memory");

    // what was cut, and what was not
    assert!(!far.grows("/tmp/got"), "the established connection is cut");
    agent.wait_until("its replica goes on", || near.grows("/tmp/got"));
    assert_eq!(
        hit.inspect("{{.State.Status}}"),
        "running",
        "removed by nobody yet"
    );

    for plan in plans_of(&agent, hit.name) {
        agent
            .plimsoll(&["plan", "undo", id(&plan), "--reason", "drill"])
            .expect("undone");
    }
    agent.wait_until("it is connected again", || far.grows("/tmp/got"));

    // another attack, to its end
    hit.exec("cp /bin/busybox /tmp/other; /tmp/other true");
    agent.wait_until("the next plan waits", || {
        plan_of(&agent, hit.name, "waiting").is_some()
    });
    assert!(!far.grows("/tmp/got"), "cut again");
    let plan = plan_of(&agent, hit.name, "waiting").expect("it was there");
    assert!(step(&plan, "capture")["sealed"].is_string(), "{plan}");
    agent
        .plimsoll(&["plan", "approve", id(&plan), "--reason", "drill"])
        .expect("approved");
    agent.wait_until("it is removed", || {
        let all = agent.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        all.lines().all(|l| l != hit.name)
    });
    agent.wait_until("its replica goes on", || near.grows("/tmp/got"));
    assert_eq!(twin.inspect("{{.State.Status}}"), "running");
}
