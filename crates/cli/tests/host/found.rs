//! What ran already when the agent came: on real containers, in `/proc` only.

use crate::{Agent, DEBIAN, alone, docker_socket};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "host-found";

/// The service, a dropped program that stays and one that removes itself.
const WORK: &str = "cp /bin/sleep /tmp/stays; cp /bin/sleep /tmp/goes; \
                    runs() { until [ \"$(readlink /proc/$1/exe)\" = $2 ]; do sleep 0.1; done; }; \
                    /tmp/stays 600 & runs $! /tmp/stays; /tmp/goes 600 & runs $! /tmp/goes; \
                    rm /tmp/goes; exec sleep 600";
/// Programs that run in the end.
const RAN: usize = 3;

/// A command of Docker before there is an agent to ask for it.
fn docker(socket: &str, args: &[&str]) -> String {
    let out = Command::new("docker")
        .arg("-H")
        .arg(format!("unix://{socket}"))
        .args(args)
        .output()
        .expect("run docker");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "docker {args:?}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits until the container has come to its last program.
fn until_it_ran(socket: &str) {
    let pid = docker(socket, &["inspect", "-f", "{{.State.Pid}}", NAME]);
    let comm = format!("/proc/{}/comm", pid.trim());
    let end = Instant::now() + Duration::from_secs(120);
    while std::fs::read_to_string(&comm).expect("it runs") != "sleep\n" {
        assert!(Instant::now() < end, "it does not come to its last program");
        std::thread::sleep(Duration::from_millis(50));
    }
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
    docker(
        &socket,
        &["run", "-d", "--name", NAME, DEBIAN, "sh", "-c", WORK],
    );
    let _gone = Gone(socket.clone());
    until_it_ran(&socket);
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
    let found = |agent: &Agent| {
        let events = agent.plimsoll(&["events", "--kind", "exec", "--container", NAME]);
        events.unwrap_or_default()
    };
    // in portions: what is an alert may come first
    agent.wait_until("all that ran is found", || found(&agent).len() >= RAN);
    let events = found(&agent);
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
    std::thread::sleep(Duration::from_secs(4));
    for program in ["/tmp/stays", "/tmp/goes"] {
        assert_eq!(about(&agent, program).len(), 1, "{program} is told once");
    }
    assert_eq!(found(&agent).len(), events.len(), "so is the rest");
}
