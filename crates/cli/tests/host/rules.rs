//! Rules on real containers: an act fires, a near miss does not, repeats fire again, changed files
//! are picked up and broken ones are not. The public rules are in `public.rs`.

use crate::own_rules::{by_container, over};
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const DEBIAN: &str = "plimsoll-test/debian:1";

/// Rules of these tests, each about something that nothing else on this machine does.
const OURS: &str = r#"
- list: ledgers
  items: [/srv/plimsoll-ledger]

- macro: in_container
  condition: (container.id != host)

- rule: Ledger read by a stranger
  desc: the ledger is read by a program that does not keep it
  condition: >
    evt.type in (open, openat, openat2) and evt.is_open_read = true and fd.num >= 0 and in_container
    and fd.name in (ledgers) and not proc.name in (head) and not proc.cmdline contains keeper
  output: ledger read (file=%fd.name process=%proc.name parent=%proc.pname command=%proc.cmdline user=%user.name)
  priority: WARNING
  tags: [T1005, host-rules-test]

- rule: Shell of a shell of a shell
  desc: three shells deep, with a marker
  condition: >
    evt.type in (execve, execveat) and in_container and proc.name = sh and proc.aname[2] = sh
    and proc.cmdline contains plimsoll-deep
  output: deep shell (command=%proc.cmdline parent=%proc.aname[1] above=%proc.aname[2])
  priority: NOTICE
  tags: [T1059.004, host-rules-test]

- rule: Odd port
  desc: a connection to a port that is used by nothing here
  condition: evt.type = connect and in_container and fd.sport = 47113 and fd.sip = "127.0.0.1"
  output: odd port (connection=%fd.name server=%fd.sip port=%fd.sport proto=%fd.l4proto)
  priority: ERROR
  tags: [host-rules-test]
"#;

fn rules_dir(dir: &Path) -> PathBuf {
    dir.join("rules")
}

/// An agent with these rules and no others, in place of the default directory.
pub(crate) fn with_rules(text: &str) -> Option<Agent> {
    let docker = docker_socket()?;
    let dir = tempfile::tempdir().expect("a directory");
    let rules = rules_dir(dir.path());
    std::fs::create_dir(&rules).expect("make a directory");
    std::fs::write(rules.join("ours.yaml"), text).expect("write rules");
    let config = format!(
        "version: 1\nlearning:\n  slot_seconds: 1\nrules:\n  builtin: false\n  paths: [{}]\n",
        rules.display()
    );
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    Some(Agent::start_in(dir, docker))
}

fn of_rules(agent: &Agent, container: &str) -> Vec<Value> {
    let all = by_container(agent).into_iter();
    all.filter(|(name, _)| name == container)
        .map(|(_, alert)| alert)
        .collect()
}

/// How often rules fired, repeats within a burst included.
pub(crate) fn counted(agent: &Agent, container: &str) -> u64 {
    let mut of_alert = BTreeMap::<String, u64>::new();
    for alert in of_rules(agent, container) {
        let id = alert["plimsoll"]["alert_id"].to_string();
        let count = alert["plimsoll"]["count"].as_u64().unwrap_or(1);
        let most = of_alert.entry(id).or_default();
        *most = count.max(*most);
    }
    of_alert.values().sum()
}

/// Names of the rules that fired in a container.
pub(crate) fn fired_in(agent: &Agent, container: &str) -> std::collections::BTreeSet<String> {
    let alerts = of_rules(agent, container);
    names(&alerts).into_iter().map(str::to_owned).collect()
}

fn names(alerts: &[Value]) -> Vec<&str> {
    alerts.iter().filter_map(|a| a["rule"].as_str()).collect()
}

fn run(agent: &Agent, name: &str, work: &str) {
    agent.docker(&["run", "--rm", "--name", name, DEBIAN, "sh", "-c", work]);
}

pub(crate) fn until_over(agent: &Agent, name: &str) {
    over(agent, &[name.to_owned()]);
}

#[test]
fn an_act_fires_its_rule_and_a_near_miss_does_not() {
    let _one = alone();
    let Some(agent) = with_rules(OURS) else {
        return;
    };
    let act = "echo 1 > /srv/plimsoll-ledger; cat /srv/plimsoll-ledger; \
               sh -c 'sh -c \"sh -c : plimsoll-deep; true\"; true'; \
               bash -c 'exec 3<>/dev/tcp/127.0.0.1/47113' 2>/dev/null; true";
    run(&agent, "rules-act", act);
    agent.wait_until("three rules fire", || {
        of_rules(&agent, "rules-act").len() >= 3
    });
    let alerts = of_rules(&agent, "rules-act");
    let mut fired = names(&alerts);
    fired.sort_unstable();
    assert_eq!(
        fired,
        [
            "Ledger read by a stranger",
            "Odd port",
            "Shell of a shell of a shell"
        ]
    );
    let by = |rule: &str| alerts.iter().find(|a| a["rule"] == rule).expect("it fired");
    let ledger = by("Ledger read by a stranger");
    assert_eq!(ledger["priority"], "Warning");
    assert_eq!(ledger["source"], "syscall");
    assert_eq!(ledger["tags"][0], "T1005");
    let fields = &ledger["output_fields"];
    assert_eq!(fields["fd.name"], "/srv/plimsoll-ledger");
    assert_eq!(fields["proc.name"], "cat");
    assert_eq!(fields["proc.pname"], "sh");
    assert_eq!(fields["proc.cmdline"], "cat /srv/plimsoll-ledger");
    assert_eq!(fields["user.name"], "root");
    assert_eq!(fields["container.name"], "rules-act");
    assert!(
        !ledger["plimsoll"]["evidence"]
            .as_array()
            .expect("evidence")
            .is_empty()
    );
    assert_eq!(by("Odd port")["output_fields"]["fd.sport"], 47113);
    assert_eq!(by("Odd port")["output_fields"]["fd.l4proto"], "tcp");
    // the rules, as they are in the journal, judge the same again
    let replay = agent.plimsoll(&["replay"]).expect("an answer");
    let replay = replay[0].to_string();
    assert!(
        !replay.contains("Ledger read by a stranger"),
        "a difference: {replay}"
    );
    assert!(!replay.contains("rules in force"), "not judged: {replay}");

    let near = "echo 1 > /srv/plimsoll-ledger; head -c1 /srv/plimsoll-ledger; \
                cat /srv/plimsoll-ledger.old 2>/dev/null; sh -c ': plimsoll-deep'; \
                bash -c 'exec 3<>/dev/tcp/127.0.0.1/47114' 2>/dev/null; true";
    run(&agent, "rules-near", near);
    until_over(&agent, "rules-near");
    let quiet = of_rules(&agent, "rules-near");
    assert!(quiet.is_empty(), "{quiet:?}");
}

#[test]
fn a_repeat_that_the_kernel_knows_fires_again() {
    let _one = alone();
    let Some(agent) = with_rules(OURS) else {
        return;
    };
    // one key in the kernel (cat, /srv/plimsoll-ledger): quiet first, five times; then it fires
    let work = "echo 1 > /srv/plimsoll-ledger; \
                for i in 1 2 3 4 5; do cat /srv/plimsoll-ledger /dev/null --keeper 2>/dev/null; sleep 0.1; done; \
                for i in 1 2 3 4; do cat /srv/plimsoll-ledger; sleep 0.3; done; sleep 1";
    run(&agent, "rules-again", work);
    agent.wait_until("the rule fires", || {
        !of_rules(&agent, "rules-again").is_empty()
    });
    until_over(&agent, "rules-again");
    // the burst's last count is written when the agent ends
    let mut agent = agent;
    agent.restart_after(false, |_| {});
    assert_eq!(
        counted(&agent, "rules-again"),
        4,
        "each of the four, and none of the five before"
    );
}

/// On what only a process itself has: nobody could read it from `/proc` in time.
const MARKED: &str = r#"
- rule: Marked
  desc: d
  condition: >
    evt.type in (execve, execveat) and container.id != host and proc.env[PLIMSOLL_MARK] = "yes"
    and proc.env contains "PATH=" and thread.cap_permitted contains CAP_CHOWN
    and user.loginuid >= -1 and proc.vpid > 1 and proc.vpgid > 0 and proc.sid > 0
  output: marked (mark=%proc.env[PLIMSOLL_MARK])
  priority: NOTICE
"#;

#[test]
fn two_hundred_programs_that_end_at_once_all_fire_on_what_they_started_with() {
    let _one = alone();
    let Some(mut agent) = with_rules(MARKED) else {
        return;
    };
    // a static program that does nothing; its quiet twin has another value
    let brief = "i=0; while [ $i -lt 200 ]; do \
                 PLIMSOLL_MARK=yes /bin/busybox true; PLIMSOLL_MARK=no /bin/busybox true; \
                 i=$((i+1)); done";
    let image = "plimsoll-test/busybox:1";
    agent.docker(&["run", "--rm", "--name", "brief", image, "sh", "-c", brief]);
    until_over(&agent, "brief");
    // a burst's last count is written when the agent ends
    agent.restart_after(false, |_| {});
    let alerts = of_rules(&agent, "brief");
    assert_eq!(counted(&agent, "brief"), 200, "{alerts:?}");
}

#[test]
fn a_broken_file_leaves_the_old_rules_and_a_good_one_replaces_them() {
    let _one = alone();
    let Some(agent) = with_rules(OURS) else {
        return;
    };
    let more = rules_dir(agent.dir.path()).join("z-more.yaml");
    std::fs::write(&more, "- rule: Broken\n  condition: proc.nmae = x\n").expect("write rules");
    let problems = |agent: &Agent| {
        let status = agent.plimsoll(&["status"]).unwrap_or_default();
        status
            .first()
            .map(|s| s["problems"].to_string())
            .unwrap_or_default()
    };
    agent.wait_until("the broken file is told", || {
        problems(&agent).contains("z-more.yaml:")
    });
    run(
        &agent,
        "rules-old",
        "echo 1 > /srv/plimsoll-ledger; cat /srv/plimsoll-ledger",
    );
    agent.wait_until("the old rules fire", || {
        !of_rules(&agent, "rules-old").is_empty()
    });

    let off =
        "- rule: Ledger read by a stranger\n  enabled: false\n  override: {enabled: replace}\n";
    std::fs::write(&more, off).expect("write rules");
    agent.wait_until("the good file is in force", || {
        !problems(&agent).contains("z-more.yaml")
    });
    let work = "echo 1 > /srv/plimsoll-ledger; cat /srv/plimsoll-ledger; \
                bash -c 'exec 3<>/dev/tcp/127.0.0.1/47113' 2>/dev/null; true";
    run(&agent, "rules-new", work);
    agent.wait_until("a rule that is still on fires", || {
        !of_rules(&agent, "rules-new").is_empty()
    });
    until_over(&agent, "rules-new");
    assert_eq!(names(&of_rules(&agent, "rules-new")), ["Odd port"]);
}

/// On what only the sandbox of a container's pod has.
const OF_POD: &str = r#"
- rule: Till of the front
  desc: d
  condition: >
    evt.type in (execve, execveat) and container.id != host and proc.name = busybox
    and k8s.pod.label[app] = till and k8s.pod.labels contains "tier:front"
    and k8s.pod.sandbox_id exists and k8s.ns.name = shop and k8s.pod.uid startswith plimsoll-
  output: labels=%k8s.pod.labels uid=%k8s.pod.uid sandbox=%k8s.pod.full_sandbox_id ip=%k8s.pod.ip
  priority: NOTICE
"#;

/// Labels of a container in a pod, as options of `docker run` or `ctr run`.
pub(crate) fn of_pod(uid: &str, more: &[&str]) -> Vec<String> {
    let own = [
        format!("io.kubernetes.pod.uid={uid}"),
        "io.kubernetes.pod.name=till-0".to_owned(),
        "io.kubernetes.pod.namespace=shop".to_owned(),
    ];
    let all = own.into_iter().chain(more.iter().map(|l| (*l).to_owned()));
    all.flat_map(|l| ["--label".to_owned(), l]).collect()
}

pub(crate) fn with_pod_rules() -> Option<Agent> {
    with_rules(OF_POD)
}

#[test]
fn a_rule_knows_the_labels_and_the_address_of_the_pod_that_a_docker_container_is_in() {
    let _one = alone();
    let Some(agent) = with_pod_rules() else {
        return;
    };
    let busybox = "plimsoll-test/busybox:1";
    let (uid, other) = ("plimsoll-pod-1", "plimsoll-pod-2");
    let start = |name: &str, labels: Vec<String>, options: &[&str], work: &[&str]| -> String {
        let mut args = vec!["run", "--name", name];
        args.extend(labels.iter().map(String::as_str));
        args.extend(options);
        args.push(busybox);
        args.extend(work);
        agent.docker(&args)
    };
    // as cri-dockerd starts a pod: the sandbox has the pod's labels, its containers have not
    let of_sandbox = [
        "io.kubernetes.docker.type=podsandbox",
        "app=till",
        "tier=front",
    ];
    let sandbox = start(
        "pods-sandbox",
        of_pod(uid, &of_sandbox),
        &["-d"],
        &["sleep", "600"],
    );
    let sandbox = sandbox.trim();
    agent.wait_until("the sandbox is known", || {
        let all = agent.plimsoll(&["containers"]).unwrap_or_default();
        all.iter()
            .any(|c| c["name"] == "pods-sandbox" && c["addresses"][0].is_string())
    });
    let id = format!("io.kubernetes.sandbox.id={sandbox}");
    let member = of_pod(uid, &["io.kubernetes.docker.type=container", &id]);
    let shared = ["--rm", "--network", "container:pods-sandbox"];
    start("pods-till", member, &shared, &["busybox", "true"]);
    // a container whose own labels say so, in a pod whose labels nobody has told
    let mut near = of_pod(other, &["io.kubernetes.docker.type=container", "app=till"]);
    near.extend(["--label".to_owned(), "tier=front".to_owned()]);
    start("pods-near", near, &["--rm"], &["busybox", "true"]);
    agent.wait_until("the rule fires", || {
        !of_rules(&agent, "pods-till").is_empty()
    });
    over(&agent, &["pods-till".to_owned(), "pods-near".to_owned()]);
    let near = of_rules(&agent, "pods-near");
    assert!(near.is_empty(), "{near:?}");
    let alert = of_rules(&agent, "pods-till").pop().expect("it fired");
    let fields = &alert["output_fields"];
    assert_eq!(fields["k8s.pod.labels"], "app:till, tier:front", "{alert}");
    assert_eq!(fields["k8s.pod.full_sandbox_id"], sandbox, "{alert}");
    let address = agent.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", sandbox]);
    assert_eq!(fields["k8s.pod.ip"], address.trim(), "{alert}");
    agent.docker(&["rm", "-f", "pods-sandbox"]);
}
