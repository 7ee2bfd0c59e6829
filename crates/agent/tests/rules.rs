//! Rules in the agent, without root: files in a directory, events in, alerts and records out.

mod common;

use common::*;
use plimsoll_agent::rules::RuleSources;
use plimsoll_api::{Client, Item, Request};
use plimsoll_model::event::{Connection, FileEvent};
use plimsoll_model::*;
use std::path::Path;

const SHADOW: &str = r#"
- rule: Shadow read
  desc: somebody reads the password hashes
  condition: >
    evt.type in (open, openat, openat2) and evt.is_open_read = true and fd.num >= 0
    and fd.name = /etc/shadow and container.id != host
  output: read (file=%fd.name process=%proc.name parent=%proc.pname tty=%proc.tty num=%fd.num user=%user.uid)
  priority: WARNING
  tags: [container, T1003.008]
"#;

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
}

fn with_rules(dir: &Path, text: &str) -> plimsoll_agent::Config {
    let rules = dir.join("rules");
    write(&rules, "a.yaml", text);
    let mut config = Rig::config(dir);
    config.rules = RuleSources {
        builtin: false,
        paths: vec![rules],
        ..RuleSources::default()
    };
    config
}

fn of_rules(records: &[(u64, Record)]) -> Vec<&Alert> {
    let all = alerts(records).into_iter();
    all.filter(|a| matches!(a.source, AlertSource::Rule(_)))
        .collect()
}

fn field<'a>(alert: &'a Alert, name: &str) -> Option<&'a Text> {
    alert.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

fn nginx_starts(rig: &Rig) -> BootNs {
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, 7, 11, 10, exec("/usr/bin/cat")));
    at
}

#[test]
fn a_rule_alerts_with_its_output_behind_the_set_that_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    rig.deliver(event(at, 7, 11, 10, read("/etc/shadow")));
    // the quiet twin
    rig.deliver(event(at, 7, 11, 10, read("/etc/passwd")));
    rig.settle();
    let records = records(&config);
    let fired = of_rules(&records);
    let [alert] = fired[..] else {
        panic!("one alert of a rule, not {fired:?}");
    };
    assert_eq!(alert.rule, "Shadow read");
    assert_eq!(alert.priority, Priority::Warning);
    assert_eq!(alert.tags, ["T1003.008", "container"]);
    let output = alert.output.to_string();
    assert!(
        output.starts_with(
            "read (file=/etc/shadow process=cat parent=nginx tty=<NA> num=<NA> user=33"
        ),
        "{output}"
    );
    assert_eq!(field(alert, "fd.name"), Some(&"/etc/shadow".into()));
    assert_eq!(
        field(alert, "fd.num"),
        Some(&"".into()),
        "not recorded, not made up"
    );
    let [evidence] = &alert.evidence[..] else {
        panic!("one observation shows it");
    };
    assert!(
        matches!(&records[evidence.leaf as usize].1, Record::Observation(o)
        if matches!(&o.event.kind, EventKind::File(f) if f.path == "/etc/shadow".into()))
    );
    let set = records.iter().find_map(|(leaf, r)| match r {
        Record::RuleSet(set) => Some((*leaf, set)),
        _ => None,
    });
    let (leaf, set) = set.expect("the set is journalled");
    assert!(leaf < evidence.leaf, "before what is judged by it");
    assert_eq!(
        field(alert, "plimsoll.rule_set"),
        Some(&set.id.as_str().into())
    );
    let text = set.files[0].text.as_ref().expect("small enough to be kept");
    assert_eq!(text.as_bytes(), SHADOW.as_bytes());
    assert_eq!(set.count("active"), 1, "it does not hang on the number");
    rig.agent.stop("test");
}

#[test]
fn repeats_of_a_rule_are_one_alert_with_a_count() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    for n in 0..50 {
        rig.deliver(event(BootNs(at.0 + n), 7, 11, 10, read("/etc/shadow")));
    }
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let fired = of_rules(&records);
    assert!(fired.iter().all(|a| a.id == fired[0].id));
    assert_eq!(fired.last().unwrap().count, 50);
}

#[test]
fn what_supersedes_an_alert_names_the_same_observation() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    for n in 0..50 {
        rig.deliver(event(BootNs(at.0 + n), 7, 11, 10, read("/etc/shadow")));
    }
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let of = |id: &AlertId| -> Vec<&Alert> {
        let all = records.iter().filter_map(|(_, r)| match r {
            Record::Alert(a) if a.id == *id => Some(a),
            _ => None,
        });
        all.collect()
    };
    let firsts = alerts(&records);
    let superseded: Vec<Vec<&Alert>> = firsts
        .iter()
        .map(|a| of(&a.id))
        .filter(|all| all.len() > 1)
        .collect();
    let by_rule = |all: &Vec<&Alert>| matches!(all[0].source, AlertSource::Rule(_));
    assert!(superseded.iter().any(by_rule) && !superseded.iter().all(by_rule));
    for all in superseded {
        let [first, .., last] = &all[..] else {
            panic!("{all:?}");
        };
        assert!(first.count == 1 && last.count == 50, "{all:?}");
        let [evidence] = &first.evidence[..] else {
            panic!("the first names what shows it");
        };
        assert_eq!(&last.evidence[..], std::slice::from_ref(evidence));
        if let AlertSource::Drift(drift) = &last.source {
            assert_eq!(drift.observation.as_ref(), Some(evidence));
        }
        let shown_by = &records[evidence.leaf as usize].1;
        assert!(matches!(shown_by, Record::Observation(_)), "{shown_by:?}");
    }
}

#[test]
fn a_threshold_alerts_with_the_match_that_reaches_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{SHADOW}  threshold: {{count: 3, within: 10s, per: container}}\n");
    let config = with_rules(dir.path(), &text);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    for n in 0..2 {
        rig.deliver(event(BootNs(at.0 + n), 7, 11, 10, read("/etc/shadow")));
    }
    rig.settle();
    assert!(of_rules(&records(&config)).is_empty());
    rig.deliver(event(BootNs(at.0 + 2), 7, 11, 10, read("/etc/shadow")));
    rig.settle();
    assert_eq!(of_rules(&records(&config)).len(), 1);
    rig.agent.stop("test");
}

#[test]
fn a_changed_file_is_picked_up_and_a_broken_one_leaves_the_old_set() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rules = dir.path().join("rules");
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    write(
        &rules,
        "b.yaml",
        "- rule: Broken\n  condition: evt.type = exceve\n",
    );
    let shared = rig.agent.shared().clone();
    until("the broken file is told", || {
        shared.rules.problem().is_some()
    });
    let why = shared.rules.problem().unwrap();
    assert!(why.contains("b.yaml:"), "{why}");
    rig.deliver(event(at, 7, 11, 10, read("/etc/shadow")));
    rig.settle();
    assert_eq!(of_rules(&records(&config)).len(), 1, "the old set judges");
    // repaired: both files are in force
    write(
        &rules,
        "b.yaml",
        &SHADOW
            .replace("Shadow", "Hosts")
            .replace("/etc/shadow", "/etc/hosts"),
    );
    until("the repaired file is in force", || {
        shared.rules.problem().is_none()
    });
    rig.settle();
    rig.deliver(event(at, 7, 11, 10, read("/etc/hosts")));
    rig.settle();
    let records = records(&config);
    let names: Vec<&str> = of_rules(&records).iter().map(|a| a.rule.as_str()).collect();
    assert_eq!(names, ["Shadow read", "Hosts read"]);
    let sets: Vec<&RuleSet> = records
        .iter()
        .filter_map(|(_, r)| match r {
            Record::RuleSet(set) => Some(set),
            _ => None,
        })
        .collect();
    assert_eq!(sets.len(), 2);
    assert_eq!(sets[1].replaced, sets[0].id);
    let refused = records.iter().filter_map(|(_, r)| match r {
        Record::Lifecycle(l) if l.what == "rules" => Some(&l.details),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 1, "told once");
    assert_eq!(refused[0][1], ("in_force".to_owned(), sets[0].id.clone()));
    rig.agent.stop("test");
}

#[test]
fn one_act_is_judged_under_each_name_that_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
- rule: Only openat2
  desc: d
  condition: evt.type = openat2 and fd.name startswith /etc
  output: "%evt.type"
  priority: NOTICE
- rule: Made by creat
  desc: d
  condition: evt.type = creat and fd.name startswith /etc
  output: "%evt.type"
  priority: NOTICE
- rule: Talks to a port
  desc: d
  condition: evt.type = connect and fd.sport = 4444 and fd.snet = "10.0.0.0/8"
  output: "%fd.name"
  priority: NOTICE
"#;
    let config = with_rules(dir.path(), text);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let made = |flags| {
        EventKind::File(FileEvent {
            raw: None,
            mode: None,
            op: FileOp::Create,
            path: "/etc/x".into(),
            target: "".into(),
            origin: Origin::Upper,
            flags,
            result: 0,
        })
    };
    rig.deliver(event(at, 7, 11, 10, read("/etc/passwd")));
    rig.deliver(event(at, 7, 11, 10, made(0)));
    let peer = SockAddr::Inet([10, 1, 2, 3].into(), 4444);
    let connection = Connection {
        proto: Proto::Tcp,
        peer,
        local: Some(SockAddr::Inet([172, 17, 0, 2].into(), 50000)),
        result: 0,
    };
    rig.deliver(event(at, 7, 11, 10, EventKind::Connect(connection)));
    rig.settle();
    let records = records(&config);
    let fired: Vec<String> = of_rules(&records)
        .iter()
        .map(|a| {
            format!(
                "{}: {}",
                a.rule,
                a.output.to_string().split(" container").next().unwrap()
            )
        })
        .collect();
    assert_eq!(
        fired,
        [
            "Only openat2: openat2",
            "Only openat2: openat2",
            "Made by creat: creat",
            "Talks to a port: 172.17.0.2:50000->10.1.2.3:4444",
        ]
    );
    rig.agent.stop("test");
}

#[test]
fn a_file_that_is_made_to_be_executed_is_told_from_others() {
    const RULE: &str = r#"
- rule: Program made
  desc: d
  condition: evt.type = openat and evt.is_open_exec = true
  output: "%fd.name %evt.arg.mode"
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let opened = |path: &str, op, mode| match read(path) {
        EventKind::File(f) => EventKind::File(FileEvent { op, mode, ..f }),
        other => other,
    };
    for kind in [
        opened("/srv/program", FileOp::Create, Some(0o711)),
        opened("/srv/unnamed", FileOp::Write, Some(0o100)),
        // others: data, a mode that was not told, files that were there
        opened("/srv/data", FileOp::Create, Some(0o644)),
        opened("/srv/unknown", FileOp::Create, None),
        opened("/srv/old", FileOp::Write, None),
        read("/usr/bin/program"),
    ] {
        rig.deliver(event(at, 7, 11, 10, kind));
    }
    rig.settle();
    let records = records(&config);
    let outputs: Vec<String> = (of_rules(&records).iter())
        .map(|a| a.output.to_string())
        .collect();
    assert_eq!(outputs.len(), 2, "{outputs:?}");
    assert!(outputs[0].starts_with("/srv/program "), "{outputs:?}");
    assert!(outputs[0].contains("S_IXOTH"), "{outputs:?}");
    assert!(outputs[1].starts_with("/srv/unnamed "), "{outputs:?}");
    rig.agent.stop("test");
}

/// As the kernel emits it: numbered the first time, not numbered when it repeats for the rules.
fn coded(mut event: Event, dict: u8, dense: u32) -> Event {
    event.dict = Some([dict; 48]);
    event.dense = dense;
    event
}

#[test]
fn what_a_rule_might_fire_on_is_emitted_every_time_and_the_rest_is_left_to_the_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let text = SHADOW.replace("/etc/shadow", "/srv/plain").replace(
        "and container.id != host",
        "and container.id != host and proc.pname = nginx",
    );
    let config = with_rules(dir.path(), &text);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(coded(event(at, 7, 10, 1, read("/srv/plain")), 1, 5));
    rig.deliver(coded(event(at, 7, 10, 1, read("/srv/other")), 2, 6));
    rig.settle();
    // no alert: nobody started nginx; but a repeat may come from a child of it
    assert!(of_rules(&records(&config)).is_empty());
    assert_eq!(rig.kernel.told(|t| t.again.clone()), [[1; 48]]);
    // the repeat that does not fire is what the kernel would have counted: not kept once more
    rig.deliver(coded(event(at, 7, 10, 1, read("/srv/plain")), 1, 0));
    // and the one that does is an alert
    let at = BootNs(at.0 + 1);
    rig.deliver(event(at, 7, 11, 10, exec("/usr/sbin/nginx")));
    rig.deliver(coded(event(at, 7, 11, 10, read("/srv/plain")), 1, 0));
    rig.settle();
    let records = records(&config);
    assert_eq!(of_rules(&records).len(), 1);
    let reads = records.iter().filter(|(_, r)| {
        matches!(r, Record::Observation(o) if matches!(&o.event.kind,
            EventKind::File(f) if f.path == "/srv/plain".into()))
    });
    assert_eq!(reads.count(), 2, "the first, and the one that fired");
    assert_eq!(
        rig.kernel.told(|t| t.again.len()),
        1,
        "a fresh mark is not made again"
    );
    rig.agent.stop("test");
}

/// A process of ours that sleeps, and the exec that it began with.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn start(env: (&str, &str)) -> Self {
        let mut command = std::process::Command::new("/bin/sleep");
        command.arg("600").env_clear().env(env.0, env.1);
        let sleeper = Self(command.spawn().unwrap());
        // spawn may return before the new program is in place
        while !sleeper.file("cmdline").starts_with(b"/bin/sleep") {
            std::thread::yield_now();
        }
        sleeper
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/{name}", self.0.id())).unwrap_or_default()
    }

    fn exec(&self, at: BootNs, argv: &[&str]) -> Event {
        let stat = String::from_utf8(self.file("stat")).unwrap();
        let after = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
        let ticks: u64 = after.collect::<Vec<_>>()[19].parse().unwrap();
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.0.id())).unwrap();
        let kind = EventKind::Exec(event::Exec {
            exe: exe.to_str().unwrap().into(),
            argv: argv.iter().map(|a| Text::from(*a)).collect(),
            origin: Origin::Image,
            ..event::Exec::default()
        });
        let mut event = event(at, 7, self.0.id(), 10, kind);
        event.process.key.start = BootNs(ticks * 10_000_000);
        event
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SLEEPS: [&str; 2] = ["/bin/sleep", "600"];

fn glances(records: &[(u64, Record)]) -> Vec<&event::Glance> {
    let execs = records.iter().filter_map(|(_, r)| match r {
        Record::Observation(o) => match &o.event.kind {
            EventKind::Exec(exec) => exec.glance.as_deref(),
            _ => None,
        },
        _ => None,
    });
    execs.collect()
}

#[test]
fn rules_see_environment_and_groups_of_a_process_that_still_runs_what_it_executed() {
    const RULE: &str = r#"
- rule: Proxied
  desc: d
  condition: evt.type = execve and proc.env icontains http_proxy and proc.vpid > 0
    and proc.env[HTTP_PROXY] startswith "http://" and proc.env[NOT_THERE] = ""
    and user.loginuid >= -1 and thread.cap_permitted exists and proc.vpgid > 0
  output: env=%proc.env
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let (proxied, plain) = (
        Sleeper::start(("HTTP_PROXY", "http://192.0.2.1")),
        Sleeper::start(("OTHER", "1")),
    );
    rig.deliver(proxied.exec(at, &SLEEPS));
    // the quiet twins: another environment, and a program that has been replaced since
    rig.deliver(plain.exec(at, &SLEEPS));
    rig.deliver(proxied.exec(at, &["/bin/sleep", "1"]));
    rig.settle();
    let records = records(&config);
    let fired = of_rules(&records);
    assert_eq!(fired.len(), 1, "{fired:?}");
    let output = fired[0].output.to_string();
    assert!(
        output.starts_with("env=HTTP_PROXY=http://192.0.2.1 "),
        "{output}"
    );
    let glances = glances(&records);
    assert_eq!(glances.len(), 3, "the judge saw what is stored");
    assert_eq!(
        glances[2].env, None,
        "arguments differ: not its environment"
    );
    rig.agent.stop("test");
}

#[test]
fn where_a_rule_asks_how_a_path_was_written_only_paths_that_go_up_are_told_again() {
    const RULES: &str = r#"
- rule: Traversal
  desc: d
  condition: evt.type in (open, openat) and fd.name startswith /etc/ and fd.nameraw contains "../"
  output: raw=%fd.nameraw
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULES);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let opened = |path: &str, raw: &str| match read(path) {
        EventKind::File(f) => EventKind::File(FileEvent {
            raw: Some(raw.into()),
            ..f
        }),
        other => other,
    };
    let known = opened("/etc/passwd", "/etc/passwd");
    rig.deliver(coded(event(at, 7, 11, 10, known), 1, 5));
    let elsewhere = opened("/srv/index", "/srv/index");
    rig.deliver(coded(event(at, 7, 11, 10, elsewhere), 2, 6));
    let climbed = opened("/etc/group", "../../etc/group");
    rig.deliver(coded(event(at, 7, 11, 10, climbed), 3, 7));
    rig.settle();
    assert_eq!(
        rig.kernel.told(|t| t.upward.clone()),
        [[1; 48], [3; 48]],
        "what no rule is about is left alone"
    );
    assert!(
        rig.kernel.told(|t| t.again.is_empty()),
        "no open of theirs is told each time"
    );
    // what the kernel then tells of the first one
    let again = opened("/etc/passwd", "/srv/../etc/passwd");
    rig.deliver(coded(event(at, 7, 11, 10, again), 1, 0));
    rig.settle();
    assert_eq!(of_rules(&records(&config)).len(), 2);
    rig.agent.stop("test");
}

#[test]
fn the_agent_tells_which_rules_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Rules { all: true }).unwrap();
    let Some((Item::RuleSet(set), rules)) = items.split_first() else {
        panic!("{items:?}");
    };
    assert_eq!((set.id.len(), set.problem.as_deref()), (64, None));
    let named: Vec<String> = config
        .rules
        .paths
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    assert_eq!((&set.paths, set.builtin), (&named, config.rules.builtin));
    let of = |r: &Item| match r {
        Item::Rule(r) => (r.from.clone(), r.state.clone(), r.file.clone()),
        other => panic!("{other:?}"),
    };
    let theirs: Vec<_> = rules
        .iter()
        .map(of)
        .filter(|r| !r.2.starts_with("builtin:"))
        .collect();
    assert!(
        !theirs.is_empty() && theirs.iter().all(|r| r.0 == "agent" && r.1 != "inactive"),
        "{theirs:?}"
    );
    let (items, _) = client.ask(&Request::Rules { all: false }).unwrap();
    assert_eq!(items.len(), 1, "which set it is, and no more");
    rig.agent.stop("test");
}

#[test]
fn a_path_is_judged_as_it_was_written_too() {
    const RULE: &str = r#"
- rule: Traversal
  desc: d
  condition: evt.type = openat and fd.name = /etc/passwd and fd.nameraw contains "../"
  output: raw=%fd.nameraw
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let written = |raw: Option<&str>| match read("/etc/passwd") {
        EventKind::File(f) => EventKind::File(FileEvent {
            raw: raw.map(Into::into),
            ..f
        }),
        other => other,
    };
    for raw in [
        None,
        Some(""),
        Some("/etc/./passwd"),
        Some("../../etc/passwd"),
    ] {
        rig.deliver(event(at, 7, 11, 10, written(raw)));
    }
    rig.settle();
    let records = records(&config);
    let fired = of_rules(&records);
    let outputs: Vec<String> = fired.iter().map(|a| a.output.to_string()).collect();
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert!(
        outputs[0].starts_with("raw=../../etc/passwd "),
        "{outputs:?}"
    );
    rig.agent.stop("test");
}

#[test]
fn nothing_is_looked_at_that_no_rule_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), SHADOW);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = nginx_starts(&rig);
    let sleeper = Sleeper::start(("HTTP_PROXY", "secret"));
    rig.deliver(sleeper.exec(at, &SLEEPS));
    rig.settle();
    assert!(glances(&records(&config)).is_empty());
    rig.agent.stop("test");
}

#[test]
fn mounts_are_found_by_their_source_and_what_nobody_told_is_not_judged() {
    const RULE: &str = r#"
- rule: Mounts the runtime's socket
  desc: d
  condition: evt.type = execve and container.mount.dest[/var/run/*.sock] exists
    and container.mount.source[/sock] = /var/run/docker.sock and container.mount.rdwr[0] = false
  output: mounts=%container.mounts
  priority: NOTICE
- rule: None
  desc: d
  condition: evt.type = execve and not container.mount.dest[/var/run/*.sock] exists
  output: o
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULE);
    let point = MountPoint {
        source: "/var/run/docker.sock".into(),
        destination: "/sock".into(),
        propagation: "rprivate".into(),
        ..MountPoint::default()
    };
    let with = |name, cgroup, points| Container {
        mount_points: points,
        ..house(name, cgroup)
    };
    let town = [
        with("a", 7, Some(vec![point])),
        with("b", 8, Some(vec![])),
        with("c", 9, None),
    ];
    let rig = Rig::start(&config, &Hands::new(), Town::new(&town));
    let at = rig.now();
    for cgroup in [7, 8, 9] {
        rig.deliver(arrival(at, cgroup));
        rig.deliver(event(at, cgroup, 10, 1, exec("/bin/sh")));
    }
    rig.settle();
    let records = records(&config);
    let mut fired: Vec<(&str, String)> = of_rules(&records)
        .iter()
        .map(|a| (a.rule.as_str(), a.output.to_string()))
        .map(|(rule, output)| {
            // what is added to every output of a container
            let own = output.split(" container_id").next().unwrap_or_default();
            (rule, own.to_owned())
        })
        .collect();
    fired.sort();
    assert_eq!(
        fired,
        [
            (
                "Mounts the runtime's socket",
                "mounts=/var/run/docker.sock:/sock::false:rprivate".to_owned()
            ),
            ("None", "o".to_owned())
        ],
        "of the third nobody knows"
    );
    rig.agent.stop("test");
}

#[test]
fn what_a_rule_flags_while_an_image_learns_is_not_learned_as_normal() {
    const RULES: &str = r#"
- rule: Worth a warning
  desc: d
  condition: evt.type in (open, openat, openat2) and fd.name = /srv/warned
  output: o
  priority: WARNING
- rule: Worth a notice
  desc: d
  condition: evt.type in (open, openat, openat2) and fd.name = /srv/noticed
  output: o
  priority: NOTICE
"#;
    let dir = tempfile::tempdir().unwrap();
    let config = with_rules(dir.path(), RULES);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    for path in ["/srv/warned", "/srv/noticed", "/srv/plain"] {
        rig.deliver(event(at, 7, 10, 1, read(path)));
    }
    rig.settle();
    assert_eq!(of_rules(&records(&config)).len(), 2, "both alert");
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let [Item::Baseline(baseline)] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(baseline.state, "learning");
    let (id, version) = (baseline.id.clone(), None);
    let (items, _) = client.ask(&Request::BaselineShow { id, version }).unwrap();
    let Some(Item::BaselineDetail(detail)) = items.into_iter().next() else {
        panic!("the baseline");
    };
    let srv = |all: &[plimsoll_api::types::KnownBehaviour]| -> Vec<String> {
        let objects = all.iter().map(|k| k.behaviour.object.clone());
        objects.filter(|o| o.starts_with("/srv/")).collect()
    };
    assert_eq!(srv(&detail.quarantine), ["/srv/warned"]);
    let mut learned = srv(&detail.known);
    learned.sort();
    assert_eq!(learned, ["/srv/noticed", "/srv/plain"]);
    let waits = format!("{:?}", detail.quarantine);
    assert!(waits.contains("Worth a warning"), "{waits}");
    rig.agent.stop("test");
}
