//! What ran already when the agent came: on real containers, in `/proc` only.

use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::process::Command;

const NAME: &str = "host-found";
const DEBIAN: &str = "plimsoll-test/debian:1";

/// A command of Docker before there is an agent to ask for it.
fn docker(socket: &str, args: &[&str]) {
    let out = Command::new("docker")
        .arg("-H")
        .arg(format!("unix://{socket}"))
        .args(args)
        .output()
        .expect("run docker");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "docker {args:?}: {said}");
}

/// Removes the container also when the test fails.
struct Gone(String);
impl Drop for Gone {
    fn drop(&mut self) {
        docker(&self.0, &["rm", "-f", NAME]);
    }
}

/// Alerts about a program of the container, each once.
fn about(agent: &Agent, program: &str) -> Vec<Value> {
    let mut all = agent.alerts(NAME);
    all.retain(|a| a["output_fields"]["proc.exepath"] == program);
    all.dedup_by_key(|a| a["plimsoll"]["alert_id"].clone());
    all
}

#[test]
fn an_intruder_who_was_there_before_the_agent_is_alerted_once_and_the_service_is_not() {
    let Some(socket) = docker_socket() else {
        return;
    };
    let _one = alone();
    // the service, a dropped program that stays and one that removes itself; and a fork of the first
    let work = "cp /bin/sleep /tmp/stays; cp /bin/sleep /tmp/goes; /tmp/stays 600 & /tmp/goes 600 & \
                sleep 1; rm /tmp/goes; exec sleep 600";
    docker(
        &socket,
        &["run", "-d", "--name", NAME, DEBIAN, "sh", "-c", work],
    );
    let _gone = Gone(socket.clone());
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut agent = Agent::start(socket);
    for (program, rule) in [
        ("/tmp/stays", "Program that is not part of the image"),
        ("/tmp/goes", "Program without a file"),
    ] {
        agent.wait_until("it is alerted", || !about(&agent, program).is_empty());
        let alert = about(&agent, program).pop().expect("it was there");
        assert_eq!(alert["rule"], rule, "{alert}");
        assert_eq!(alert["output_fields"]["evt.type"], "found_running");
        let said = alert["output"].as_str().unwrap_or_default();
        assert!(said.contains("ran already when the agent came"), "{said}");
        let id = alert["plimsoll"]["alert_id"].as_str().expect("an id");
        for (q, words) in [("Q6", "how it began was not seen"), ("Q7", program)] {
            let answer = agent.plimsoll(&["ask", q, "--alert", id]);
            let answer = answer.expect("an answer").pop().expect("one line");
            let told = answer["statements"].to_string();
            assert!(told.contains(words), "{q}: {told}");
        }
    }
    let events = agent.plimsoll(&["events", "--kind", "exec", "--container", NAME]);
    let events = events.unwrap_or_default();
    let service = events.iter().find(|e| {
        e["detail"]["exe"]
            .as_str()
            .is_some_and(|p| p.ends_with("/bin/sleep"))
    });
    let service = service.expect("the service is an observation, too");
    assert_eq!(
        (&service["trust"], &service["detail"]["found"]),
        (&"proc".into(), &true.into())
    );
    assert_eq!(service["detail"]["origin"], "image");
    let rest: Vec<Value> = agent.alerts(NAME);
    let quiet = |a: &Value| {
        let program = a["output_fields"]["proc.exepath"]
            .as_str()
            .unwrap_or_default();
        program.starts_with("/tmp/")
    };
    assert!(rest.iter().all(quiet), "{rest:?}");

    // again without pins: the journal and the baseline know
    agent.restart_after(false, |_| ());
    std::thread::sleep(std::time::Duration::from_secs(4));
    for program in ["/tmp/stays", "/tmp/goes"] {
        assert_eq!(about(&agent, program).len(), 1, "{program} is told once");
    }
    let now = agent.plimsoll(&["events", "--kind", "exec", "--container", NAME]);
    assert_eq!(
        now.unwrap_or_default().len(),
        events.len(),
        "so is the rest"
    );
}
