//! Rules on real containers: an act fires, a near miss does not, repeats fire again, changed files
//! are picked up and broken ones are not, and the public rules fire where they are there.

use crate::own_rules::{by_container, over};
use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    let count = |agent: &Agent| {
        let all = of_rules(agent, "rules-again");
        all.iter()
            .filter_map(|a| a["plimsoll"]["count"].as_u64())
            .max()
    };
    let mut agent = agent;
    agent.restart_after(false, |_| {});
    assert_eq!(
        count(&agent),
        Some(4),
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

/// The public rule files, where a person has them (`PLIMSOLL_CORPORA`, or beside the repository).
fn public_rules() -> Option<String> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora");
    let root = std::env::var("PLIMSOLL_CORPORA").unwrap_or_else(|_| beside.to_owned());
    let dir = Path::new(&root).join("falco-rules");
    let mut text = String::new();
    for name in [
        "falco_rules.yaml",
        "falco-incubating_rules.yaml",
        "falco-sandbox_rules.yaml",
    ] {
        text += &std::fs::read_to_string(dir.join(name)).ok()?;
        text.push('\n');
    }
    Some(text)
}

#[test]
fn public_rules_fire_on_the_acts_that_they_describe() {
    let Some(text) = public_rules() else {
        eprintln!(
            "left out: public rules on real containers (PLIMSOLL_CORPORA names their folder)"
        );
        return;
    };
    let _one = alone();
    let Some(agent) = with_rules(&text) else {
        return;
    };
    let acts = [
        ("Read sensitive file untrusted", "cat /etc/shadow"),
        (
            "Create Symlink Over Sensitive Files",
            "ln -s /etc/shadow /tmp/link",
        ),
        (
            "Create Hardlink Over Sensitive Files",
            "ln /etc/shadow /etc/hard",
        ),
        (
            "Drop and execute new binary in container",
            "cp /bin/ls /tmp/mine; /tmp/mine /",
        ),
        (
            "Execution from /dev/shm",
            "echo : > /dev/shm/x.sh; sh -c 'cd /dev/shm; sh ./x.sh'",
        ),
        (
            "Set Setuid or Setgid bit",
            "cp /bin/ls /tmp/suid; chmod 4755 /tmp/suid",
        ),
        ("Write below root", "echo x > /root/.bashrc"),
        (
            "Search Private Keys or Passwords",
            "find / -maxdepth 1 -name id_rsa",
        ),
        (
            "Clear Log Activities",
            "echo x > /var/log/lastlog; : > /var/log/lastlog",
        ),
        ("Remove Bulk Data from Disk", "shred -u /tmp/suid"),
        ("Write below etc", "echo x > /etc/plimsoll-test"),
        (
            "Modify Shell Configuration File",
            "cp /etc/hostname /root/.profile",
        ),
    ];
    let work: String = acts
        .iter()
        .map(|(_, act)| format!("{act} >/dev/null 2>&1; "))
        .collect();
    run(&agent, "rules-public", &work);
    until_over(&agent, "rules-public");
    let silent = || -> Vec<String> {
        let alerts = of_rules(&agent, "rules-public");
        let fired = names(&alerts);
        let silent = acts.iter().filter(|(rule, _)| !fired.contains(rule));
        silent
            .map(|(rule, act)| format!("{rule} ({act})"))
            .collect()
    };
    let end = Instant::now() + Duration::from_secs(60);
    while !silent().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(silent().is_empty(), "did not fire: {:#?}", silent());
    // nothing that an ordinary container does is among them
    run(
        &agent,
        "rules-plain",
        "ls / >/dev/null; cat /etc/hostname; echo x > /tmp/x; sleep 0.1",
    );
    until_over(&agent, "rules-plain");
    let plain = of_rules(&agent, "rules-plain");
    assert!(plain.is_empty(), "{:?}", names(&plain));
}
