//! Short quiet containers beside one that floods: each is known with what it did, or what was lost of it is
//! counted against it; and an act that a rule asks for fires every time.

use crate::completeness::{agent_with, differences, done, evidence};
use crate::own_rules::all_is_written;
use crate::rules::{counted, until_over, with_rules};
use crate::stage::Stage;
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::BTreeMap;

const BUSYBOX: &str = "plimsoll-test/busybox:1";
const DEBIAN: &str = "plimsoll-test/debian:1";
/// Quiet ones of each runtime.
const EACH: usize = 25;
/// New files and new processes for as long as the quiet ones take, and no longer than this many seconds.
const FLOOD: &str = "end=$(($(date +%s)+40)); while [ $(date +%s) -lt $end ]; do \
                     rm -rf /tmp/truth; /bin/acts truth 20 4000 0 0 > /dev/null; done";

/// Records of all containers by id.
fn containers(agent: &Agent) -> BTreeMap<String, Value> {
    let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
    let by_id = |c: Value| Some((c["container_id"].as_str()?.to_owned(), c));
    all.into_iter().filter_map(by_id).collect()
}

/// Whether it is on record that a container's identity could not be found in time.
fn said_to_be_unnamed(agent: &Agent, id: &str) -> bool {
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    gaps.iter()
        .any(|g| g["container_id"] == id && g["stage"] == "identity")
}

#[test]
fn quiet_containers_beside_a_flood_are_known_with_what_they_did_or_with_what_was_lost() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let stage = Stage::new();
    let agent = agent_with(docker, "rings: { syscalls_used: false }\n");
    let unique = std::process::id();
    let noisy = format!("flood{unique:x}");
    let of_docker = |i: usize| format!("quiet-{unique:x}-{i}");
    let cidfile = |i: usize| format!("{}/cid-{i}", agent.dir.path().display());
    let bare = |i: usize| format!("quietbare{unique:x}{i}");
    let mut truths = Vec::new();
    std::thread::scope(|s| {
        let flood = s.spawn(|| stage.run(&noisy, &["sh", "-c", FLOOD]));
        agent.wait_until("the flood has begun", || {
            containers(&agent).contains_key(&noisy)
        });
        let dockers = s.spawn(|| {
            for i in 0..EACH {
                let (name, cid) = (of_docker(i), cidfile(i));
                let run = ["run", "--rm", "--name", &name, "--cidfile", &cid];
                agent.docker(&[&run[..], &[BUSYBOX, "cat", "/etc/shadow"]].concat());
            }
        });
        for i in 0..EACH {
            let said = stage.run(&bare(i), &["/bin/acts", "truth", "1", "3", "0", "0"]);
            truths.push(done(&said.expect("it does its work")));
        }
        dockers.join().expect("all have run");
        flood.join().expect("it ends").expect("the flood is made");
    });
    all_is_written(&agent);
    agent.wait_until("the flood is told to be gone", || {
        containers(&agent)[&noisy]["state"] == "gone"
    });

    let all = containers(&agent);
    let (mut lost, mut unnamed) = (0, 0);
    for i in 0..EACH {
        let name = of_docker(i);
        let id = std::fs::read_to_string(cidfile(i)).expect("Docker tells the id");
        let record = all
            .get(&id)
            .unwrap_or_else(|| panic!("{name} vanished: {id}"));
        // Docker forgets it at once: a reader that is behind finds nothing any more, and says so
        if record["name"] != name.as_str() || record["image"] != BUSYBOX {
            assert!(said_to_be_unnamed(&agent, &id), "{record}");
            unnamed += 1;
        }
        let found = evidence(&agent, &id);
        let seen =
            |kind: &str, object: &str| found.observed.contains_key(&(kind.into(), object.into()));
        let whole = seen("exec", "self") && seen("file", "/etc/shadow") && seen("exit", "");
        lost += u64::from(!whole);
        assert!(
            whole || found.lost.total() > 0,
            "{name}: {:?}",
            found.observed
        );
    }
    for (i, truth) in truths.iter().enumerate() {
        let id = bare(i);
        assert!(all.contains_key(&id), "{id} vanished");
        let found = evidence(&agent, &id);
        let (all, observed): (u64, u64) = (truth.values().sum(), found.observed.values().sum());
        let differ = differences(truth, &found.observed);
        lost += found.lost.total();
        assert_eq!(
            all,
            observed + found.lost.total(),
            "{id}: {differ:?} {:?}",
            found.lost
        );
    }
    println!(
        "NEIGHBOURS {} quiet containers, {lost} losses, each counted; {unnamed} without a name, each said",
        2 * EACH
    );
}

const SHADOW: &str = r#"
- rule: Shadow read by cat
  desc: d
  condition: evt.type in (open, openat, openat2) and container.id != host and fd.name = /etc/shadow and proc.name = cat
  output: shadow read
  priority: WARNING
"#;

#[test]
fn two_hundred_reads_beside_a_flood_are_all_in_the_evidence_and_alerted() {
    let _one = alone();
    let Some(mut agent) = with_rules(SHADOW) else {
        return;
    };
    let flood =
        "i=0; while :; do : > /tmp/f$i; i=$((i+1)); [ $((i % 5000)) != 0 ] || rm -f /tmp/f*; done";
    agent.docker(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "reads-flood",
        DEBIAN,
        "sh",
        "-c",
        flood,
    ]);
    let reads = "i=0; while [ $i -lt 200 ]; do cat /etc/shadow > /dev/null; i=$((i+1)); done";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "reads-quiet",
        DEBIAN,
        "sh",
        "-c",
        reads,
    ]);
    agent.docker(&["rm", "-f", "reads-flood"]);
    until_over(&agent, "reads-quiet");
    let events = agent.plimsoll(&["events", "--container", "reads-quiet"]);
    let read = |e: &&Value| e["detail"]["path"] == "/etc/shadow" && e["comm"] == "cat";
    let all = events.unwrap_or_default();
    assert_eq!(all.iter().filter(read).count(), 200, "each in the evidence");
    // a burst's last count is written when the agent ends
    agent.restart_after(false, |_| {});
    println!(
        "NEIGHBOURS alerts for {} of 200 reads",
        counted(&agent, "reads-quiet")
    );
    assert!(counted(&agent, "reads-quiet") > 0);
}
