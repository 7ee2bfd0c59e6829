//! A real container held to its locked baseline: what it was never known for does not run, what it is
//! known for goes on, and the switch ends that.

use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::process::{Command, Stdio};

const NAME: &str = "host-enforced";

/// `docker exec`; whether it ended well.
fn exec(agent: &Agent, args: &[&str]) -> bool {
    let mut docker = Command::new("docker");
    docker.arg("-H").arg(format!("unix://{}", agent.docker));
    docker.args(["exec", NAME]).args(args);
    let quiet = docker.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().expect("run docker").success()
}

fn mode(agent: &Agent) -> String {
    let status = agent
        .plimsoll(&["enforcement", "status"])
        .unwrap_or_default();
    let containers = status
        .first()
        .and_then(|s| s["containers"].as_array().cloned());
    let mine = containers.unwrap_or_default();
    let mine = mine.iter().find(|c| c["container"] == NAME);
    mine.map_or(String::new(), |c| {
        c["mode"].as_str().unwrap_or_default().to_owned()
    })
}

#[test]
fn a_program_outside_a_locked_baseline_does_not_run_and_known_ones_go_on() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("enforcement.yaml");
    let rule = "version: 1\nrules:\n  - { name: held, match: { labels: { plimsoll-test: held } }, mode: enforce }\n";
    std::fs::write(&policy, rule).expect("write the policy");
    let config = format!(
        "version: 1\nlearning:\n  slot_seconds: 1\nenforcement:\n  policy: {}\n",
        policy.display()
    );
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    let agent = Agent::start_in(dir, docker);
    let work = "while true; do ls / >/dev/null; sleep 0.2; done";
    let run = ["run", "-d", "--name", NAME, "--label", "plimsoll-test=held"];
    agent.docker(&[&run[..], &["plimsoll-test/debian:1", "sh", "-c", work]].concat());
    let known = |what: &str| {
        let shown = agent
            .plimsoll(&["baseline", "show", NAME])
            .unwrap_or_default();
        shown.iter().any(|b| b.to_string().contains(what))
    };
    agent.wait_until("it is known for its work", || {
        known("/ls\"") && known("/sleep\"")
    });
    assert_eq!(
        mode(&agent),
        "observe",
        "only a locked baseline is enforced"
    );
    agent
        .plimsoll(&["baseline", "lock", NAME, "--reason", "reviewed"])
        .expect("lock");
    agent.wait_until("it is held", || mode(&agent) == "enforce");
    assert!(
        !exec(&agent, &["touch", "/marker"]),
        "touch is not of this image's work"
    );
    assert!(exec(&agent, &["ls", "/etc"]), "ls is known");
    let prevented =
        |a: &Value| a["plimsoll"]["prevented"] == true && a.to_string().contains("touch");
    agent.wait_until("the alert says so", || {
        agent.alerts(NAME).iter().any(prevented)
    });
    let report = || {
        agent
            .plimsoll(&["enforcement", "report"])
            .unwrap_or_default()
    };
    agent.wait_until("the report counts it", || {
        report().iter().any(|r| {
            let what = r["object"].as_str().unwrap_or_default();
            what.ends_with("/touch") && r["outcome"] == "stopped and killed" && r["count"] == 1
        })
    });
    assert!(
        report()
            .iter()
            .all(|r| !r["object"].as_str().unwrap_or_default().ends_with("/ls")),
        "{:?}",
        report()
    );
    let alerts = agent.alerts(NAME);
    let alert = alerts.iter().find(|a| prevented(a)).expect("just seen");
    let id = alert["plimsoll"]["alert_id"].as_str().expect("an id");
    let answer = agent
        .plimsoll(&["ask", "Q1", "--alert", id])
        .unwrap_or_default();
    assert!(answer[0].to_string().contains("prevented"), "{answer:?}");
    let off = ["enforcement", "off", "--reason", "game day"];
    let _ = agent.plimsoll(&off);
    assert!(exec(&agent, &["touch", "/marker"]), "the switch is off");
    assert!(
        exec(&agent, &["ls", "/marker"]),
        "and the first one had left nothing"
    );
    agent.docker(&["rm", "-f", NAME]);
}
