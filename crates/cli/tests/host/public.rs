//! The public rules on real processes in real containers: each act of `tests/host/public/` fires the
//! rule that it is named for, out of the unmodified files, and what comes near does not.
//!
//! Rules that their authors switched off are switched on by a file of ours, as a user would.

use crate::own_rules::{CALLS, fired, over};
use crate::public_acts::{Act, acts, rule_files};
use crate::{Agent, alone, docker_socket};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const DEBIAN: &str = "plimsoll-test/debian:1";

/// Containers that run at a time: most of a start is waiting.
const AT_A_TIME: usize = 4;

/// What scripts may call, beside `as`, `fake` and `listen` as in `own_rules.rs`.
const PRELUDE: &str = r#"
bin=/opt/act; mkdir -p $bin
as() { cp /bin/bash $bin/$1; $bin/$1 -c "$2; true"; }
fake() { cp /bin/true $bin/$1; n=$1; shift; $bin/$n "$@"; }
listen() {
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0:$ARGV[0]", ReuseAddr => 1) or die;
        alarm 60; $s->accept' $1 &
}
# a connection of the shell $2 to the port $1 of the container's own address, which is accepted
meet() { listen $1; until $2 -c "< /dev/tcp/$(hostname -i)/$1"; do sleep 0.1; done; }
# a datagram to a port of that address
udp() {
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ARGV[0], PeerPort => $ARGV[1]); print $s "x"' $(hostname -i) $1
}
# a name server on 127.0.0.1 that has one address for every name
dns() {
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1:53") or die; alarm 60;
        while ($s->recv($q, 512)) {
            $n = 12; $n += 1 + ord substr $q, $n, 1 while ord substr $q, $n, 1;
            $type = unpack "n", substr $q, $n + 1, 2;
            $a = $type == 1 ? pack("n n n N n a4", 0xc00c, 1, 1, 60, 4, inet_aton $ARGV[0]) : "";
            $s->send(substr($q, 0, 2) . pack("n5", 0x8180, 1, $a ne "", 0, 0) . substr($q, 12, $n - 7) . $a);
        }' $1 &
}
"#;

/// What a user of these files is asked to fill in: which container is allowed, which namespace is closed.
const FILLED_IN: &str = "
- macro: allowed_containers
  condition: container.label[plimsoll.test] = allowed
  override: {condition: replace}
- list: namespace_scope_network_only_subnet
  items: [closed]
  override: {items: append}
";

/// Networks of the acts: addresses that are no private ones, and that of the metadata services.
const NETWORKS: [(&str, &str); 2] = [
    ("plimsoll-public", "203.0.113.0/24"),
    ("plimsoll-metadata", "169.254.169.0/24"),
];

/// Networks that end with the test.
struct Networks<'a>(&'a Agent);

impl<'a> Networks<'a> {
    fn new(agent: &'a Agent) -> Self {
        for (name, subnet) in NETWORKS {
            agent.docker(&["network", "create", "--subnet", subnet, name]);
        }
        Self(agent)
    }
}

impl Drop for Networks<'_> {
    fn drop(&mut self) {
        for (name, _) in NETWORKS {
            let _ = Command::new("docker")
                .args(["-H", &format!("unix://{}", self.0.docker)])
                .args(["network", "rm", name])
                .output();
        }
    }
}

/// An agent with the public files as they are, and ours behind them.
fn start(docker: String, files: &[std::path::PathBuf], switched_off: &[String]) -> Agent {
    let dir = tempfile::tempdir().expect("a directory");
    let mut ours = FILLED_IN.to_owned();
    for rule in switched_off {
        ours += &format!("- rule: {rule}\n  enabled: true\n  override: {{enabled: replace}}\n");
    }
    let over = dir.path().join("ours.yaml");
    std::fs::write(&over, ours).expect("write rules");
    let mut paths: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    paths.push(over.display().to_string());
    let config = format!(
        "version: 1\nlearning:\n  slot_seconds: 1\nrules:\n  builtin: false\n  paths: {paths:?}\n"
    );
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    Agent::start_in(dir, docker)
}

/// Rules that their files switch off.
fn switched_off(files: &[std::path::PathBuf]) -> Vec<String> {
    let mut off = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("it is there");
        let items: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
        for item in items.as_sequence().expect("items") {
            if let (Some(name), Some(false)) = (item["rule"].as_str(), item["enabled"].as_bool()) {
                off.push(name.to_owned());
            }
        }
    }
    off
}

fn name_of(act: &Act, half: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let rule: String = act.rule.chars().map(plain).collect();
    format!("public-{half}-{rule}")
}

/// Runs one half; its own success is not what is asked, that it ran is.
fn perform(agent: &Agent, act: &Act, half: &str) -> Result<(), String> {
    let (work, more) = match half {
        "act" => (&act.act, &act.options_of_act),
        _ => (&act.near, &act.options_of_near),
    };
    let mut script = format!("{PRELUDE}\n{work}\ntrue\n");
    for (call, number) in CALLS {
        script = script.replace(&format!("@{call}@"), &number.to_string());
    }
    let name = name_of(act, half);
    let file = agent.dir.path().join(format!("{name}.sh"));
    std::fs::write(&file, script).expect("write the script");
    let mount = format!("{}:/act.sh:ro", file.display());
    let image = act.image.as_deref().unwrap_or(DEBIAN);
    let shell = if image == DEBIAN { "bash" } else { "sh" };
    // addresses that are given by hand are given to one container at a time
    static BY_HAND: Mutex<()> = Mutex::new(());
    let all = || act.options.iter().chain(more);
    let _one = all().any(|o| o == "--ip").then(|| {
        BY_HAND
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    });
    let out = Command::new("docker")
        .args(["-H", &format!("unix://{}", agent.docker)])
        .args(["run", "--rm", "--name", &name, "-v", &mount])
        .args(all())
        .args([image, shell, "/act.sh"])
        .stdin(Stdio::null())
        .output()
        .expect("run docker");
    match out.status.code() {
        // what docker itself says when it could not start one
        Some(125..=127) | None => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        _ => Ok(()),
    }
}

/// Runs all halves, some at a time: what could not be run.
fn perform_all(agent: &Agent, acts: &[Act]) -> Vec<String> {
    let halves: Vec<(&Act, &str)> = acts
        .iter()
        .flat_map(|act| [(act, "act"), (act, "near")])
        .collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((act, half)) = halves.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = perform(agent, act, half) {
                        let said = format!("{} ({half}) did not run: {why}", act.rule);
                        failed.lock().expect("nobody panics").push(said);
                    }
                }
            });
        }
    });
    failed.into_inner().expect("nobody panics")
}

#[test]
fn public_rules_fire_on_the_acts_that_they_describe_and_on_nothing_near() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let Some(files) = rule_files() else {
        return;
    };
    let _one = alone();
    let agent = start(docker, &files, &switched_off(&files));
    let _networks = Networks::new(&agent);
    // for looking at some of them only
    let only = std::env::var("PLIMSOLL_TEST_ACTS").unwrap_or_default();
    let all: Vec<Act> = acts()
        .into_iter()
        .filter(|a| a.not.is_none() && a.rule.contains(&only))
        .collect();
    let mut wrong = perform_all(&agent, &all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names: Vec<String> = all
        .iter()
        .flat_map(|act| ["act", "near"].map(|half| name_of(act, half)))
        .collect();
    over(&agent, &names);
    let fired = fired(&agent);
    let of = |act: &Act, half| fired.get(&name_of(act, half)).cloned().unwrap_or_default();
    for act in &all {
        let rules = of(act, "act");
        if !rules.contains(&act.rule) {
            wrong.push(format!(
                "{} did not fire on: {} ({rules:?} did)",
                act.rule, act.act
            ));
        }
        if of(act, "near").contains(&act.rule) {
            let near = &act.near;
            wrong.push(format!("{} fired on what comes near: {near}", act.rule));
        }
    }
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    assert!(
        wrong.is_empty(),
        "{}\nnot observed meanwhile: {gaps:?}",
        wrong.join("\n")
    );
    nothing_ordinary_fires(&agent);
}

/// What an ordinary container does fires none that is on by its authors' choice.
fn nothing_ordinary_fires(agent: &Agent) {
    let work = "ls / >/dev/null; cat /etc/hostname; echo x > /tmp/x; sleep 0.1";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "public-plain",
        "--label",
        "plimsoll.test=allowed",
        DEBIAN,
        "sh",
        "-c",
        work,
    ]);
    over(agent, &["public-plain".to_owned()]);
    let fired = fired(agent);
    let plain = fired.get("public-plain").cloned().unwrap_or_default();
    // one of those that were switched on above: the container runs as root
    let expected = BTreeSet::from(["Container Run as Root User".to_owned()]);
    assert_eq!(plain, expected);
}
