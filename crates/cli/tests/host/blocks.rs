//! A program that gave cause, in a real container: it does not start again under any name, a replica that
//! never ran it is untouched, a restart of the agent changes nothing, undo gives it back.

use crate::effects::{Docked, agent_with};
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::path::Path;

/// Runs what is at a path in the container, by the shell words `how`; whether it ran.
fn ran(agent: &Agent, it: &Docked, how: &str) -> bool {
    static TRY: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = TRY.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // the shell goes on when its child is killed, and says so by a file
    it.exec(&format!("({how} touch /tmp/ran-{n}); touch /tmp/tried-{n}"));
    agent.wait_until("it was tried", || exists(it, &format!("/tmp/tried-{n}")));
    exists(it, &format!("/tmp/ran-{n}"))
}

fn exists(it: &Docked, path: &str) -> bool {
    Path::new(&format!("/proc/{}/root{path}", it.pid())).exists()
}

fn plans(agent: &Agent, it: &Docked) -> Vec<Value> {
    let mut plans = agent.plimsoll(&["plan", "list"]).unwrap_or_default();
    plans.retain(|p| p["container"] == it.name);
    plans
}

fn plan(agent: &Agent, it: &Docked) -> Option<Value> {
    plans(agent, it).into_iter().next()
}

/// Ways to start the file that gave cause: its name, relative, by links, under another name, by its number.
/// (busybox looks for its first word where its own name begins with `busybox`.)
const WAYS: [&str; 6] = [
    "/tmp/busybox-dropped",
    "cd /tmp; ./busybox-dropped",
    "/tmp/busybox-sym",
    "/tmp/busybox-hard",
    "ln -f /tmp/busybox-dropped /tmp/busybox-2; mv /tmp/busybox-2 /tmp/busybox-new; /tmp/busybox-new",
    "exec 9</tmp/busybox-dropped; /tmp/busybox-fd",
];

#[test]
fn a_program_that_gave_cause_does_not_start_again_under_any_name_until_it_is_undone() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let steps = "[block-program: {for: 1h}]";
    let mut agent = agent_with(&docker, "block", steps, "");
    let with = ["--label", "plimsoll-test=block"];
    let hit = Docked::start(&docker, "block-hit", &with, "sleep 600");
    // the same label and image: only what it did itself counts
    let replica = Docked::start(&docker, "block-replica", &with, "sleep 600");
    let drop = "cd /tmp; cp /bin/busybox busybox-dropped; ln -s busybox-dropped busybox-sym; \
                ln busybox-dropped busybox-hard; ln -s /proc/self/fd/9 busybox-fd; touch there";
    for it in [&hit, &replica] {
        it.exec(drop);
        agent.wait_until("it is there", || exists(it, "/tmp/there"));
    }
    // it goes on running, so that the very file is known and not its name alone
    hit.exec("/tmp/busybox-dropped sleep 599");
    let is_over = |agent: &Agent| plan(agent, &hit).is_some_and(|p| p["state"] == "ended");
    agent.wait_until("the program is forbidden", || is_over(&agent));
    let shown = plan(&agent, &hit).expect("a plan");
    let said = shown["steps"][0].to_string();
    assert!(
        said.contains("/tmp/busybox-dropped does not start"),
        "{shown}"
    );
    assert!(said.contains("under this name or another"), "{shown}");
    assert!(said.contains("run already and go on"), "{shown}");
    for how in WAYS {
        assert!(!ran(&agent, &hit, how), "{how} starts it");
    }
    assert!(ran(&agent, &hit, "/bin/busybox"), "another program");
    // a name that the replica's own file bears, run for the first time after the block
    assert!(ran(&agent, &replica, "/bin/busybox"), "the replica works");
    assert_eq!(plan(&agent, &replica), None, "nothing was done about it");

    agent.restart_after(true, |_| {});
    agent.wait_until("the plan is known again", || plan(&agent, &hit).is_some());
    for how in WAYS {
        assert!(!ran(&agent, &hit, how), "{how} starts it after a restart");
    }

    // taking it back is no word about the next alert, which the policy would answer again: the switch is
    let stop = ["plan", "stop", "--reason", "a false alarm"];
    agent.plimsoll(&stop).expect("all automation is stopped");
    // tries under other names were alerts too, which that plan answers
    agent.wait_until("the tries are counted", || {
        let all = plans(&agent, &hit);
        all.iter().any(|p| p["stopped_again"].as_u64() > Some(0))
    });
    let all = plans(&agent, &hit);
    assert_eq!(all.len(), 1, "{all:?}");
    let blocks = || -> Vec<Value> {
        let done = |p: &Value| p["steps"][0]["state"] == "done";
        plans(&agent, &hit).into_iter().filter(done).collect()
    };
    assert!(!blocks().is_empty());
    for p in blocks() {
        let id = p["plan_id"].as_str().expect("an id");
        agent.plimsoll(&["plan", "undo", id, "--reason", "a false alarm"]);
    }
    agent.wait_until("all is taken back", || {
        let undone = |p: &Value| p.to_string().contains("may run again");
        blocks().iter().all(undone)
    });
    for how in WAYS {
        assert!(ran(&agent, &hit, how), "{how} after it was undone");
    }
    // taken back twice: nothing more happens
    let id = shown["plan_id"].as_str().expect("an id");
    let again = agent.plimsoll(&["plan", "undo", id, "--reason", "a false alarm"]);
    assert!(ran(&agent, &hit, WAYS[0]), "{again:?}");
}
