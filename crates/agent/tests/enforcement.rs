//! Containers held to their baseline: policy, switch, verdicts and counts, over a made-up kernel that
//! remembers what it was told. That a kernel does it is shown in `crates/sensor/tests`.

mod common;

use common::*;
use plimsoll_agent::config::Config;
use plimsoll_api::{Client, Item, Request};
use plimsoll_model::*;
use plimsoll_sensor::api::{AllowedEntry, Inherited};
use std::path::Path;

fn with_policy(dir: &Path, rules: &str) -> Config {
    let mut config = Rig::config(dir);
    let path = dir.join("enforcement.yaml");
    write_policy(&path, rules);
    config.enforcement.policy = Some(path);
    config
}

fn write_policy(path: &Path, rules: &str) {
    std::fs::write(path, format!("version: 1\nrules:\n{rules}")).unwrap();
}

const ENFORCE: &str = "  - { name: web, match: { image: 'web:*' }, mode: enforce }\n";
const ALERT: &str = "  - { name: web, match: { image: 'web:*' }, mode: alert }\n";

fn ask(config: &Config, request: &Request) -> (Vec<Item>, Option<String>) {
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    client.ask(request).unwrap()
}

fn status(config: &Config) -> plimsoll_api::types::Enforcement {
    let (items, _) = ask(config, &Request::EnforcementStatus {});
    let [Item::Enforcement(e)] = &items[..] else {
        panic!("{items:?}");
    };
    e.clone()
}

/// nginx (10) of container 7 runs and starts `logrotate`; its baseline is locked.
fn locked(rig: &Rig, config: &Config) {
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, 7, 11, 10, exec("/usr/sbin/logrotate")));
    rig.settle();
    let (items, _) = ask(config, &Request::Baselines {});
    let [Item::Baseline(baseline)] = &items[..] else {
        panic!("{items:?}");
    };
    let reason = "reviewed".to_owned();
    let id = baseline.id.clone();
    ask(config, &Request::BaselineLock { id, reason });
}

/// The pipeline stands still until the sender is dropped.
fn stick(rig: &Rig) -> std::sync::mpsc::Sender<()> {
    let (stuck, go) = std::sync::mpsc::channel();
    let (begun, stands) = std::sync::mpsc::channel();
    let job = Box::new(move |_: &mut plimsoll_agent::pipeline::Pipeline| {
        let _ = begun.send(());
        let _: Result<(), _> = go.recv();
    });
    rig.agent.shared().job(job).unwrap();
    stands.recv_timeout(PATIENCE).unwrap();
    stuck
}

fn preventions(records: &[(u64, Record)]) -> Vec<&Prevention> {
    let mut found = Vec::new();
    for (_, r) in records {
        if let Record::Prevention(p) = r {
            found.push(p);
        }
    }
    found
}

fn observed<'a>(records: &'a [(u64, Record)], exe: &str) -> Vec<&'a Observation> {
    let found = records.iter().filter_map(|(_, r)| match r {
        Record::Observation(o) => Some(o),
        _ => None,
    });
    let is = |o: &&Observation| matches!(&o.event.kind, EventKind::Exec(x) if x.exe == exe.into());
    found.filter(is).collect()
}

#[test]
fn only_a_locked_baseline_is_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.settle();
    let learning = status(&config);
    assert_eq!(learning.containers[0].asked, "enforce");
    assert_eq!(learning.containers[0].mode, "observe");
    assert!(learning.containers[0].why.contains("learning"));
    assert!(rig.kernel.told(|t| t.enforced.is_empty()));
    locked(&rig, &config);
    let now = status(&config);
    assert_eq!(now.containers[0].mode, "enforce", "{now:?}");
    assert_eq!(
        now.containers[0].prevented,
        ["programs", "scripts", "libraries", "peers"]
    );
    let set = rig.kernel.told(|t| t.enforced[&7].set);
    let nginx = AllowedEntry::Program {
        path: "/usr/sbin/nginx".into(),
        origin: Origin::Image,
        ask: false,
    };
    assert!(rig.kernel.told(|t| t.allowed[&set].contains(&nginx)));
    rig.agent.stop("test");
    let records = records(&config);
    let told = records.iter().any(|(_, r)| {
        matches!(r, Record::Enforcement(e) if e.text.contains("mode: enforce") && !e.switched_off)
    });
    assert!(told, "the policy in force is in the journal");
}

#[test]
fn a_dry_run_reports_what_it_would_have_stopped_with_counts() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ALERT);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    locked(&rig, &config);
    for pid in 20..25 {
        rig.deliver(event(rig.now(), 7, pid, 10, exec("/usr/bin/xmrig")));
        // the near miss: a program that is known
        rig.deliver(event(
            rig.now(),
            7,
            pid + 10,
            10,
            exec("/usr/sbin/logrotate"),
        ));
    }
    rig.settle();
    assert!(
        rig.kernel.told(|t| t.enforced.is_empty()),
        "nothing is prevented"
    );
    rig.agent.stop("test");
    let records = records(&config);
    let all = preventions(&records);
    assert!(
        all.iter()
            .all(|p| p.enforced == Enforced::WouldBe && p.rule == "web")
    );
    assert!(
        all.iter().all(|p| p.object == "/usr/bin/xmrig".into()),
        "{all:?}"
    );
    assert_eq!(all.iter().map(|p| p.count).sum::<u64>(), 5);
    let alerts = alerts(&records);
    let alert = alerts
        .iter()
        .find(|a| a.output.to_string().contains("xmrig"))
        .unwrap();
    assert!(!alert.prevented);
    assert!(alert.tags.contains(&"would-be-prevented".to_owned()));
}

#[test]
fn a_stopped_program_is_killed_when_it_is_outside_and_continued_when_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    locked(&rig, &config);
    let held = |pid: u32, exe: &str, token: u64| {
        let mut e = event(rig.now(), 7, 4_000_000 + pid, 10, exec(exe));
        e.enforced = Some(Enforced::Held);
        let mut dict = [0; 48];
        dict[..8].copy_from_slice(&token.to_ne_bytes());
        e.dict = Some(dict);
        e
    };
    rig.deliver(held(20, "/tmp/xmrig", 0));
    rig.deliver(held(21, "/usr/sbin/logrotate", 77));
    rig.settle();
    assert_eq!(status(&config).waiting, 0);
    assert_eq!(rig.kernel.told(|t| t.runs.clone()), [77]);
    rig.agent.stop("test");
    let records = records(&config);
    let [bad] = observed(&records, "/tmp/xmrig")[..] else {
        panic!("one observation");
    };
    assert_eq!(bad.event.enforced, Some(Enforced::HeldKilled));
    let good = observed(&records, "/usr/sbin/logrotate");
    assert_eq!(
        good.last().unwrap().event.enforced,
        Some(Enforced::HeldContinued)
    );
    let alerts = alerts(&records);
    let alert = alerts
        .iter()
        .find(|a| a.output.to_string().contains("xmrig"))
        .unwrap();
    assert!(alert.prevented && alert.tags.contains(&"prevented".to_owned()));
    assert!(alert.output.to_string().ends_with("; prevented"));
    assert!(
        !alerts
            .iter()
            .any(|a| a.output.to_string().contains("logrotate"))
    );
    let [p] = preventions(&records)[..] else {
        panic!("one prevention");
    };
    assert_eq!(
        (p.enforced, p.class, p.count),
        (Enforced::HeldKilled, EnforceClass::Program, 1)
    );
}

#[test]
fn the_switch_is_in_the_kernel_within_a_second_and_stays_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    locked(&rig, &config);
    until("the kernel may prevent", || {
        rig.kernel.told(|t| t.until) > rig.now().0
    });
    // the pipeline is stuck: the switch works all the same
    let stuck = stick(&rig);
    let off = |off| Request::EnforcementSwitch {
        off,
        reason: "INC-7".into(),
    };
    let began = std::time::Instant::now();
    let (_, words) = ask(&config, &off(true));
    assert!(rig.kernel.told(|t| t.until) == 0);
    assert!(words.unwrap().contains("off"));
    println!("off after {:?}", began.elapsed());
    drop(stuck);
    rig.settle();
    let s = status(&config);
    assert!(s.switched_off);
    assert_eq!(s.containers[0].mode, "alert");
    assert!(s.containers[0].why.contains("switched off"));
    rig.agent.stop("test");
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    assert!(status(&config).switched_off);
    let (_, words) = ask(&config, &off(false));
    assert!(words.unwrap().contains("on again"));
    until("the kernel may prevent again", || {
        rig.kernel.told(|t| t.until) > rig.now().0
    });
    rig.agent.stop("test");
    assert_eq!(
        rig.kernel.told(|t| t.until),
        0,
        "nothing is prevented without an agent"
    );
    let records = records(&config);
    let said = |action: &str| {
        let is = |r: &Record| matches!(r, Record::Decision(d) if d.action == action && d.reason == "INC-7");
        records.iter().filter(|(_, r)| is(r)).count()
    };
    assert_eq!((said("enforcement.off"), said("enforcement.on")), (1, 1));
}

#[test]
fn a_file_turns_the_switch_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    until("the kernel may prevent", || {
        rig.kernel.told(|t| t.until) > 0
    });
    std::fs::write(config.enforcement_off(), "").unwrap();
    until("it may not any more", || rig.kernel.told(|t| t.until) == 0);
    std::fs::remove_file(config.enforcement_off()).unwrap();
    until("it may again", || rig.kernel.told(|t| t.until) > 0);
    rig.agent.stop("test");
    let records = records(&config);
    let by_file = records
        .iter()
        .filter(|(_, r)| matches!(r, Record::Decision(d) if d.method == "file"));
    assert_eq!(by_file.count(), 2);
}

#[test]
fn a_changed_policy_is_taken_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ALERT);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    locked(&rig, &config);
    let path = config.enforcement.policy.clone().unwrap();
    let before = status(&config).digest;
    write_policy(&path, "  - { name: web, mode: everything }\n");
    until("it is refused", || status(&config).problem.is_some());
    assert_eq!(status(&config).digest, before);
    assert_eq!(status(&config).containers[0].mode, "alert");
    write_policy(&path, ENFORCE);
    until("it is in force", || {
        status(&config).containers[0].mode == "enforce"
    });
    assert!(rig.kernel.told(|t| t.enforced.contains_key(&7)));
    assert_eq!(status(&config).problem, None);
    rig.agent.stop("test");
}

#[test]
fn an_agent_that_was_held_up_says_that_nothing_was_prevented() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    until("the kernel may prevent", || {
        rig.kernel.told(|t| t.until) > rig.now().0
    });
    hands.pass(30 * SECOND);
    until("it may again", || {
        rig.kernel.told(|t| t.until) > rig.now().0
    });
    rig.agent.stop("test");
    let records = records(&config);
    let [gap] = gaps(&records, Stage::Enforcement)[..] else {
        panic!("one gap");
    };
    let length = gap.to.boot.0 - gap.from.boot.0;
    assert_eq!(length, 28 * SECOND, "one word holds two seconds");
}

#[test]
fn the_time_without_an_agent_is_a_gap_of_enforcement() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_policy(dir.path(), ENFORCE);
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    let until = rig.now();
    rig.agent.stop("test");
    hands.pass(60 * SECOND);
    let before = Inherited {
        until,
        orderly: true,
        in_hand: 0,
        prevented_until: Some(until),
        replaced: false,
        idle_since: None,
    };
    let rig = Rig::start_after(&config, &hands, Town::new(&[web()]), before);
    until_it_may(&rig);
    // what was stopped under the agent before goes on, and nobody decides about it any more
    let mut e = event(until, 7, 4_000_020, 10, exec("/tmp/xmrig"));
    e.enforced = Some(Enforced::Held);
    rig.deliver(e);
    assert_eq!(rig.agent.shared().enforcement.held().len(), 0);
    rig.agent.stop("test");
    let records = records(&config);
    let found = gaps(&records, Stage::Enforcement);
    let gap = found
        .iter()
        .find(|g| g.reason.contains("no agent was there"));
    let gap = gap.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(gap.from.boot, until);
    assert!(gap.to.boot.0 - until.0 >= 60 * SECOND);
}

fn until_it_may(rig: &Rig) {
    until("the kernel may prevent", || {
        rig.kernel.told(|t| t.until) > rig.now().0
    });
}

#[test]
fn a_program_that_nobody_decides_about_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        "  - { name: web, match: { image: 'web:*' }, mode: enforce, decide_within: 100ms }\n";
    let config = with_policy(dir.path(), rule);
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    locked(&rig, &config);
    let stuck = stick(&rig);
    let mut e = event(rig.now(), 7, 4_000_020, 10, exec("/tmp/xmrig"));
    e.enforced = Some(Enforced::Held);
    rig.deliver(e);
    let shared = rig.agent.shared().clone();
    assert_eq!(shared.enforcement.held().len(), 1);
    hands.pass(SECOND / 5);
    until("its time is up", || shared.enforcement.held().is_empty());
    drop(stuck);
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let [late] = observed(&records, "/tmp/xmrig")[..] else {
        panic!("one observation");
    };
    assert_eq!(late.event.enforced, Some(Enforced::HeldContinued));
    assert!(!alerts(&records).iter().any(|a| a.prevented));
    let gaps = gaps(&records, Stage::Enforcement);
    assert!(
        gaps.iter()
            .any(|g| g.reason.contains("nobody decided in time")),
        "{gaps:?}"
    );
}
