//! The whole way from signals to the journal, without root: the kernel and the container table
//! are made up, everything else is what runs.

mod common;

use common::*;
use plimsoll_agent::chores::check_clock;
use plimsoll_agent::inbox::Bounds;
use plimsoll_api::{Client, Item, Request};
use plimsoll_model::*;
use plimsoll_sensor::api::{Inherited, KnownObject, Loss, Reading, Signal, Use};
use plimsoll_workload::{FoundContainer, Scan, Seed};

/// nginx (10) is started; then it starts a shell (11).
fn web_is_attacked(rig: &Rig) {
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, 7, 11, 10, exec("/bin/sh")));
    rig.settle();
}

#[test]
fn shell_under_server_alerts_and_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    web_is_attacked(&rig);
    // only what is durable is read, while the agent is still there
    let records = records(&config);
    let alerts = alerts(&records);
    let shell = alerts
        .iter()
        .find(|a| matches!(&a.source, AlertSource::Drift(d) if d.class == DriftClass::ShellUnderServer))
        .unwrap_or_else(|| panic!("no alert about the shell in {alerts:?}"));
    let [evidence] = &shell.evidence[..] else {
        panic!("one observation shows it: {:?}", shell.evidence);
    };
    let (_, shown) = &records[evidence.leaf as usize];
    let Record::Observation(o) = shown else {
        panic!("{evidence} is {shown:?}");
    };
    assert_eq!(o.program(), Text::from("/bin/sh"));
    assert_eq!(o.parent().unwrap().exe, Text::from("/usr/sbin/nginx"));
    assert!(shell.handed_boot.0 >= shell.at.boot.0);
    rig.agent.stop("test");
}

#[test]
fn the_quiet_twin_raises_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, 7, 10, 1, read("/etc/nginx/nginx.conf")));
    rig.settle();
    let records = records(&config);
    assert!(alerts(&records).is_empty(), "{:?}", alerts(&records));
    assert_eq!(
        records
            .iter()
            .filter(|(_, r)| matches!(r, Record::Observation(_)))
            .count(),
        2
    );
    rig.agent.stop("test");
}

#[test]
fn repeats_of_an_alert_are_counted_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    for n in 0..200 {
        let mut e = event(BootNs(at.0 + n), 7, 10, 1, read("/etc/shadow"));
        e.alert_class = true;
        rig.deliver(e);
    }
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let shadow: Vec<&Alert> = alerts(&records)
        .into_iter()
        .filter(|a| a.rule.contains("sensitive") || a.output.to_string().contains("/etc/shadow"))
        .collect();
    assert_eq!(shadow.first().map(|a| a.count), Some(1));
    assert_eq!(shadow.last().map(|a| a.count), Some(200));
    assert!(shadow.iter().all(|a| a.id == shadow[0].id));
    assert!(shadow.len() < 5, "{} records for one burst", shadow.len());
}

#[test]
fn agent_restart_leaves_a_gap_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    rig.agent.stop("test");
    hands.pass(60 * SECOND);
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    rig.settle();
    let records = records(&config);
    let gaps = gaps(&records, Stage::AgentDown);
    let scopes: Vec<&GapScope> = gaps.iter().map(|g| &g.scope).collect();
    assert_eq!(
        scopes,
        [&GapScope::Node, &GapScope::Container(web().instance)]
    );
    for gap in gaps {
        assert_eq!(gap.to.boot.0 - gap.from.boot.0, 60 * SECOND);
        assert_eq!(gap.reason, "the agent was stopped");
    }
    // and it has its baseline: the same program is known
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let [Item::Baseline(baseline)] = &items[..] else {
        panic!("{items:?}");
    };
    assert!(baseline.behaviours > 0, "{baseline:?}");
    // and its status counts what it recorded
    let gaps_counted = || {
        let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
        let (items, _) = client.ask(&Request::Status {}).unwrap();
        let [Item::Status(status)] = &items[..] else {
            panic!("{items:?}");
        };
        status.gaps_last_hour
    };
    assert_eq!(gaps_counted(), Some(2));
    hands.pass(61 * 60 * SECOND);
    assert_eq!(gaps_counted(), Some(0));
    rig.agent.stop("test");
}

#[test]
fn an_agent_that_was_killed_leaves_a_gap_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    // as after kill -9: a copy of what was durable, without the end of the story
    let copy = dir.path().join("copy");
    copy_dir(&config.data_dir, &copy);
    rig.agent.stop("test");
    let config = plimsoll_agent::Config {
        data_dir: copy,
        ..config
    };
    hands.pass(SECOND);
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    rig.settle();
    let records = records(&config);
    let gaps = gaps(&records, Stage::AgentDown);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert_eq!(gaps[0].reason, "the agent ended without saying so");
    rig.agent.stop("test");
}

#[test]
fn a_start_over_the_programs_of_the_one_before_is_no_blind_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    let until = rig.now();
    rig.agent.stop("test");
    hands.pass(60 * SECOND);
    let before = Inherited {
        until,
        orderly: false,
        in_hand: 7,
        prevented_until: None,
        replaced: false,
        idle_since: None,
    };
    let rig = Rig::start_after(&config, &hands, Town::new(&[web()]), before);
    rig.settle();
    let records = records(&config);
    assert_eq!(gaps(&records, Stage::AgentDown), Vec::<&Gap>::new());
    let [in_hand] = gaps(&records, Stage::Handover)[..] else {
        panic!("one gap");
    };
    assert_eq!((in_hand.count, in_hand.to.boot), (Some(7), until));
    let [sampled] = gaps(&records, Stage::Sampled)[..] else {
        panic!("one gap");
    };
    assert_eq!(sampled.from.boot, until);
    let start = records.iter().rev().find_map(|(_, r)| match r {
        Record::Lifecycle(l) if l.what == "start" => Some(l.details.clone()),
        _ => None,
    });
    let keys: Vec<String> = start.unwrap().into_iter().map(|(key, _)| key).collect();
    assert!(keys.iter().any(|k| k == "watched_since"), "{keys:?}");
    rig.agent.stop("test");
}

#[test]
fn programs_that_ended_their_work_leave_a_gap_from_there_to_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    let until = rig.now();
    rig.agent.stop("test");
    hands.pass(600 * SECOND);
    let idle = BootNs(until.0 + 300 * SECOND);
    let before = Inherited {
        until,
        orderly: true,
        in_hand: 0,
        prevented_until: None,
        replaced: true,
        idle_since: Some(idle),
    };
    let rig = Rig::start_after(&config, &hands, Town::new(&[web()]), before);
    rig.settle();
    let records = records(&config);
    let gaps_of_it = gaps(&records, Stage::AgentDown);
    assert!(
        gaps_of_it.iter().any(|g| g.scope == GapScope::Node),
        "{gaps_of_it:?}"
    );
    for gap in &gaps_of_it {
        assert_eq!(gap.from.boot, idle, "{gap:?}");
        assert!(gap.reason.contains("ended their work"), "{gap:?}");
    }
    let [sampled] = gaps(&records, Stage::Sampled)[..] else {
        panic!("one gap");
    };
    assert_eq!((sampled.from.boot, sampled.to.boot), (until, idle));
    rig.agent.stop("test");
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            match std::fs::copy(entry.path(), to) {
                // it was being replaced, by the running agent
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[test]
fn queue_overflow_is_counted_and_forgotten() {
    const GENERATED: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let mut config = Rig::config(dir.path());
    config.queues = Bounds {
        bulk_events: 100,
        ..Bounds::default()
    };
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    rig.deliver(arrival(rig.now(), 7));
    rig.settle();
    // the pipeline is busy elsewhere
    let (busy, go) = std::sync::mpsc::channel::<()>();
    let shared = rig.agent.shared().clone();
    shared.job(Box::new(move |_| _ = go.recv())).unwrap();
    until("the pipeline is busy", || {
        rig.deliver(event(rig.now(), 7, 10, 1, read("/probe")));
        shared.inbox.fill().bulk > 10
    });
    let before = shared.inbox.fill();
    for n in 0..GENERATED {
        let mut e = event(rig.now(), 7, 10, 1, read(&format!("/data/{n}")));
        e.dict = Some([n as u8; 48]);
        rig.deliver(e);
    }
    let refused = shared.inbox.fill().refused - before.refused;
    assert_eq!(rig.kernel.told(|t| t.forgotten.len()) as u64, refused);
    drop(busy);
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let lost: u64 = gaps(&records, Stage::Queue)
        .iter()
        .filter_map(|g| g.count)
        .sum();
    let kept = records
        .iter()
        .filter(|(_, r)| matches!(r, Record::Observation(o) if matches!(&o.event.kind, EventKind::File(f) if f.path.as_bytes().starts_with(b"/data/"))))
        .count() as u64;
    assert_eq!(kept + refused, GENERATED);
    assert_eq!(lost, refused + before.refused);
    let scope = GapScope::Container(web().instance);
    assert!(
        gaps(&records, Stage::Queue)
            .iter()
            .all(|g| g.scope == scope)
    );
}

#[test]
fn a_loss_in_the_kernel_becomes_a_gap_of_its_container() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let now = rig.now();
    rig.deliver(arrival(now, 7));
    rig.settle();
    for cgroup_id in [7, 0] {
        rig.agent.shared().deliver(Signal::Loss(Loss {
            stage: Stage::BulkRing,
            cgroup_id,
            count: 5,
            from: now,
            to: now,
        }));
    }
    rig.agent.stop("test");
    let records = records(&config);
    let gaps = gaps(&records, Stage::BulkRing);
    assert_eq!(gaps.len(), 2);
    assert!(
        gaps.iter()
            .any(|g| g.scope == GapScope::Container(web().instance))
    );
    assert!(gaps.iter().all(|g| g.count == Some(5)));
}

/// A configuration under which a baseline is ready after a few slots of one second.
fn quick(config: &mut plimsoll_agent::Config) {
    config.learning.slot_seconds = 1;
    config.learning.startup_seconds = 2;
    config.learning.min_starts = 1;
    config.learning.min_steady_slots = 2;
    config.learning.min_units = 4;
    config.learning.min_coverage_permille = 950;
}

fn learn(rig: &Rig) {
    rig.deliver(arrival(rig.now(), 7));
    rig.deliver(event(rig.now(), 7, 10, 1, exec("/usr/sbin/nginx")));
    for _ in 0..30 {
        let mut e = event(rig.now(), 7, 10, 1, read("/etc/nginx/nginx.conf"));
        e.dense = 3;
        rig.deliver(e);
        rig.deliver(event(
            rig.now(),
            7,
            10,
            1,
            read("/usr/share/nginx/index.html"),
        ));
        rig.settle();
        rig.hands.pass(SECOND + 1);
        rig.settle();
    }
}

#[test]
fn ready_baseline_loads_the_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Rig::config(dir.path());
    quick(&mut config);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    assert!(rig.kernel.told(|t| t.paths > 10 && t.bumps == 1));
    learn(&rig);
    let (set, watch, log) = rig.kernel.told(|t| {
        let set = t.sets.iter().next().map(|(n, s)| (*n, s.clone()));
        (set, t.watches.last().cloned().unwrap(), t.log.clone())
    });
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let [Item::Baseline(baseline)] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(
        (baseline.state.as_str(), &baseline.unmet[..]),
        ("ready", &[][..])
    );
    let (number, entries) = set.unwrap_or_else(|| panic!("no set was loaded: {log:?}"));
    assert!(
        entries
            .iter()
            .any(|k| k.program == Text::from("/usr/sbin/nginx")
                && matches!(
                    &k.object,
                    KnownObject::File {
                        op: FileOp::Read,
                        ..
                    }
                )),
        "{entries:?}"
    );
    assert_eq!(watch.set, number);
    assert!(
        watch.dense_len > 0 && watch.dense_base >= 65_536,
        "{watch:?}"
    );
    let end: Vec<&str> = log.iter().rev().take(3).rev().map(String::as_str).collect();
    assert_eq!(end[0], format!("set {number}"));
    assert_eq!(end[1], format!("watch 7 set {number}"));
    assert_eq!(end[2], "bump");

    // known behaviour that the kernel only counts is present all the same
    let index = entries[0].index;
    rig.kernel
        .told(|t| t.counts.insert(watch.dense_base + index, 40));
    rig.hands.pass(SECOND + 1);
    rig.settle();
    // and drift is drift now
    rig.deliver(event(rig.now(), 7, 10, 1, read("/etc/hostname")));
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let presence = records.iter().find_map(|(_, r)| match r {
        Record::Presence(p) => Some(p),
        _ => None,
    });
    assert_eq!(presence.expect("counted").counts[0].1, 40);
    let drift = records.iter().find_map(|(_, r)| match r {
        Record::Drift(d) => Some(d),
        _ => None,
    });
    let drift = drift.expect("a new file is drift");
    assert_eq!(drift.baseline_state, "ready");
    assert_eq!(drift.class, DriftClass::NewFileRead);
    let versions = records
        .iter()
        .filter(|(_, r)| matches!(r, Record::Baseline(_)))
        .count();
    assert_eq!(versions, 2, "one when it began, one when it was ready");
}

#[test]
fn what_the_kernel_numbers_while_learning_counts_as_present() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Rig::config(dir.path());
    config.learning.slot_seconds = 1;
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    rig.deliver(arrival(rig.now(), 7));
    rig.deliver(event(rig.now(), 7, 10, 1, exec("/usr/sbin/nginx")));
    let mut e = event(rig.now(), 7, 10, 1, read("/etc/nginx/nginx.conf"));
    e.dense = 3;
    rig.deliver(e);
    rig.settle();
    for seen in [10, 25] {
        rig.kernel.told(|t| t.counts.insert(3, seen));
        rig.hands.pass(SECOND + 1);
        rig.settle();
    }
    rig.agent.stop("test");
    let counts: Vec<u64> = records(&config)
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Presence(p) => Some(p.counts[0].1),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [10, 15]);
}

fn used(pos: u64, at: BootNs, dense: u32, count: u32) -> Use {
    Use {
        pos,
        at,
        dense,
        count,
        tgid: 10,
        kind: 4,
        operation: 0,
        key: 0,
    }
}

#[test]
fn an_alert_is_followed_by_what_the_recorder_holds_and_by_what_is_done_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Rig::config(dir.path());
    config.recorder.stream_seconds = 10;
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let begun = rig.now();
    rig.deliver(arrival(begun, 7));
    rig.deliver(event(begun, 7, 10, 1, exec("/usr/sbin/nginx")));
    let mut e = event(begun, 7, 10, 1, read("/etc/nginx/nginx.conf"));
    e.dense = 3;
    rig.deliver(e);
    rig.settle();
    rig.hands.pass(60 * SECOND);
    let later = BootNs(begun.0 + 30 * SECOND);
    rig.kernel.told(|t| {
        t.counts.insert(3, 9);
        let uses = vec![
            used(0, begun, 3, 1),
            used(1, later, 3, 5),
            used(2, later, 70_000, 1),
        ];
        let reading = Reading {
            next: 3,
            uses,
            ..Reading::default()
        };
        t.recordings.insert(7, reading);
    });
    rig.deliver(event(rig.now(), 7, 11, 10, exec("/bin/sh")));
    rig.settle();
    assert!(rig.kernel.told(|t| t.log.contains(&"stream 7".to_owned())));
    rig.agent
        .shared()
        .deliver(Signal::Stream(vec![used(1, rig.now(), 3, 1); 4]));
    rig.hands.pass(2 * SECOND);
    rig.settle();
    // the stream ends by itself, and what it was in the middle of is kept
    rig.agent
        .shared()
        .deliver(Signal::Stream(vec![used(1, rig.now(), 3, 1)]));
    rig.hands.pass(11 * SECOND);
    rig.settle();
    assert!(rig.kernel.told(|t| t.log.contains(&"stop 7".to_owned())));
    rig.agent.stop("test");

    let records = records(&config);
    let place = |f: &dyn Fn(&Record) -> bool| records.iter().position(|(_, r)| f(r));
    let alert = place(&|r| matches!(r, Record::Alert(_))).expect("an alert");
    let first = place(&|r| matches!(r, Record::Recording(_))).expect("a recording");
    assert!(alert < first, "the alert comes first");
    let recordings: Vec<&Recording> = records
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Recording(r) => Some(r),
            _ => None,
        })
        .collect();
    let [minutes, streamed, rest] = &recordings[..] else {
        panic!("{recordings:?}");
    };
    assert_eq!(minutes.instance, web().instance);
    assert_eq!(minutes.from.boot, begun);
    let counts: Vec<u32> = minutes.uses.iter().map(|u| u.count).collect();
    assert_eq!(counts, [4, 5, 1], "each until the next of its counter");
    assert_eq!(minutes.uses[1].after_ms, 30_000);
    let named = minutes.behaviours[0].behaviour.as_ref().expect("named");
    assert_eq!(named.object, "/etc/nginx/nginx.conf".into());
    assert!(minutes.behaviours[1].behaviour.is_none());
    assert_eq!(minutes.behaviours[1].kind, BehaviourKind::File);
    assert!(!minutes.full && streamed.full && rest.full);
    assert_eq!((streamed.uses.len(), rest.uses.len()), (4, 1));
}

#[test]
fn clock_step_is_anchored() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[]));
    rig.hands.pass(SECOND);
    rig.hands.step_wall(-3600 * SECOND as i64);
    check_clock(rig.agent.shared());
    rig.agent.stop("test");
    let records = records(&config);
    let step = records.iter().find_map(|(_, r)| match r {
        Record::Clock(a) if a.step_ns != 0 => Some(a.step_ns),
        _ => None,
    });
    assert_eq!(step, Some(-3600 * SECOND as i64));
    let gap = gaps(&records, Stage::Clock);
    assert!(gap[0].reason.contains("-3600.000 s"), "{}", gap[0].reason);
}

#[test]
fn a_decision_is_journalled_with_who_made_it_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let Some(Item::Baseline(baseline)) = items.first() else {
        panic!("{items:?}");
    };
    assert!(baseline.quarantined > 0);
    let id = baseline.id[..6].to_owned();
    let reason = || "reviewed".to_owned();
    let approve = Request::BaselineApprove {
        id: id.clone(),
        behaviours: vec![],
        reason: reason(),
    };
    let (items, words) = client.ask(&approve).unwrap();
    assert!(
        matches!(&items[..], [Item::BaselineRef(r)] if r.version == 2),
        "{items:?}"
    );
    assert!(words.unwrap().contains("approve"));
    client
        .ask(&Request::BaselineLock {
            id: id.clone(),
            reason: reason(),
        })
        .unwrap();
    let refused = client.ask(&Request::BaselineReset {
        id: id.clone(),
        reason: reason(),
    });
    assert!(refused.unwrap_err().to_string().contains("locked"));
    let nobody = client.ask(&Request::BaselineLock {
        id: "B-x".into(),
        reason: reason(),
    });
    assert!(nobody.unwrap_err().to_string().contains("B-x"));
    rig.agent.stop("test");
    let records = records(&config);
    let decisions: Vec<(&str, u32)> = records
        .iter()
        .filter_map(|(_, r)| match r {
            Record::Decision(d) => Some((d.action.as_str(), d.uid)),
            _ => None,
        })
        .collect();
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(
        decisions,
        [("baseline.approve", uid), ("baseline.lock", uid)]
    );
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let Some(Item::Baseline(baseline)) = items.first() else {
        panic!("{items:?}");
    };
    assert_eq!((baseline.state.as_str(), baseline.version), ("locked", 3));
    rig.agent.stop("test");
}

#[test]
fn a_lock_is_undone_a_behaviour_taken_out_and_every_version_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let rig = Rig::start(&config, &hands, Town::new(&[web()]));
    web_is_attacked(&rig);
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let Some(Item::Baseline(baseline)) = items.first() else {
        panic!("{items:?}");
    };
    let id = baseline.id.clone();
    let show = |client: &mut Client, version| {
        let id = id.clone();
        let (items, _) = client.ask(&Request::BaselineShow { id, version })?;
        match items.into_iter().next() {
            Some(Item::BaselineDetail(d)) => Ok::<_, plimsoll_api::ClientError>(d),
            other => panic!("{other:?}"),
        }
    };
    let of = |reason: &str| (id.clone(), reason.to_owned());
    let (lock, why) = of("final");
    client
        .ask(&Request::BaselineLock {
            id: lock,
            reason: why,
        })
        .unwrap();
    let waiting = show(&mut client, None).unwrap().quarantine;
    let one = waiting[0].behaviour.id.clone();
    let remove = |behaviours: Vec<String>| {
        let (id, reason) = of("an attack");
        Request::BaselineRemove {
            id,
            behaviours,
            reason,
        }
    };
    let locked = client.ask(&remove(vec![one.clone()]));
    assert!(locked.unwrap_err().to_string().contains("unlock it first"));
    let (unlock, why) = of("a new release");
    client
        .ask(&Request::BaselineUnlock {
            id: unlock,
            reason: why,
        })
        .unwrap();
    assert!(client.ask(&remove(vec![])).is_err(), "nothing is named");
    assert!(client.ask(&remove(vec!["x".into()])).is_err());
    client.ask(&remove(vec![one.clone()])).unwrap();

    let now = show(&mut client, None).unwrap();
    assert_eq!(
        (now.baseline.version, now.baseline.state.as_str()),
        (4, "learning")
    );
    assert!(now.quarantine.iter().all(|k| k.behaviour.id != one));
    client.ask(&Request::Flush {}).unwrap();
    let then = show(&mut client, Some(2)).unwrap();
    assert_eq!(
        (then.baseline.version, then.baseline.state.as_str()),
        (2, "locked")
    );
    assert!(then.quarantine.iter().any(|k| k.behaviour.id == one));
    let never = show(&mut client, Some(99)).unwrap_err().to_string();
    assert!(
        never.contains("version 4 now") && never.contains("version 99"),
        "{never}"
    );
    rig.agent.stop("test");
}

#[test]
fn status_and_flush_answer() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    web_is_attacked(&rig);
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Status {}).unwrap();
    let [Item::Status(status)] = &items[..] else {
        panic!("{items:?}");
    };
    assert!(status.running && status.memory_bytes.unwrap() > 0);
    assert_eq!(status.containers_running, 1);
    assert_eq!(status.node, "test-node");
    assert_eq!(status.journal.health, "ok");
    let (items, _) = client.ask(&Request::Containers { gone: false }).unwrap();
    assert!(matches!(&items[..], [Item::Container(c)] if c.name == "web"));
    let (items, _) = client.ask(&Request::Flush {}).unwrap();
    let [Item::Flushed { durable }] = items[..] else {
        panic!("{items:?}");
    };
    assert!(records(&config).len() as u64 >= durable);
    rig.agent.stop("test");
}

#[test]
fn a_fork_bomb_is_kept_in_part_and_counted_in_whole() {
    const FORKS: u64 = 12_000;
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let now = rig.now();
    rig.deliver(arrival(now, 7));
    for n in 0..FORKS {
        let child = ProcessKey {
            tgid: 1000 + n as u32,
            start: now,
        };
        rig.deliver(event(now, 7, 10, 1, EventKind::Fork { child }));
        if n % 1000 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let kept = records
        .iter()
        .filter(|(_, r)| matches!(r, Record::Observation(_)))
        .count() as u64;
    let sampled: u64 = gaps(&records, Stage::Sampled)
        .iter()
        .filter_map(|g| g.count)
        .sum();
    assert_eq!(kept + sampled, FORKS);
    assert_eq!(kept, plimsoll_agent::quota::AT_ONCE);
}

#[test]
fn a_container_that_goes_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    web_is_attacked(&rig);
    let end = event(rig.now(), 0, 1, 0, EventKind::CgroupRmdir { id: 7 });
    rig.deliver(end);
    rig.settle();
    // what it did before comes late, by the other ring, and is judged all the same
    rig.deliver(event(rig.now(), 7, 10, 1, read("/etc/shadow")));
    rig.settle();
    let late = records(&config);
    assert!(
        alerts(&late)
            .iter()
            .any(|a| a.output.to_string().contains("/etc/shadow"))
    );
    rig.hands.pass(10 * SECOND);
    rig.settle();
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Containers { gone: false }).unwrap();
    assert!(items.is_empty(), "{items:?}");
    assert_eq!(rig.kernel.told(|t| t.unwatched.clone()), [7]);
    assert_eq!(rig.kernel.told(|t| t.ignored.len()), 0);
    rig.agent.stop("test");
    let records = records(&config);
    assert!(
        records
            .iter()
            .any(|(_, r)| matches!(r, Record::Container(c) if c.state == ContainerState::Gone))
    );
}

#[test]
fn a_second_agent_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[]));
    let second = plimsoll_agent::daemon::open(&config, Hands::new());
    assert!(second.is_err());
    rig.agent.stop("test");
}

#[test]
fn an_unreadable_baseline_is_set_aside_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    std::fs::create_dir_all(config.baselines_dir()).unwrap();
    let file = config.baselines_dir().join("B-0123456789abcdef.cbor");
    std::fs::write(&file, b"not a baseline").unwrap();
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[]));
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Status {}).unwrap();
    let [Item::Status(status)] = &items[..] else {
        panic!("{items:?}");
    };
    assert!(
        status.problems.iter().any(|p| p.contains("unreadable")),
        "{:?}",
        status.problems
    );
    assert!(!file.exists() && file.with_extension("unreadable").exists());
    rig.agent.stop("test");
}

#[test]
fn an_imported_baseline_takes_the_place_of_its_own_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Rig::config(dir.path());
    quick(&mut config);
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    learn(&rig);
    let mut client = Client::connect(&config.socket, PATIENCE).unwrap();
    let (items, _) = client.ask(&Request::Baselines {}).unwrap();
    let Some(Item::Baseline(ready)) = items.first() else {
        panic!("{items:?}");
    };
    assert_eq!(ready.state, "ready");
    let export = Request::BaselineExport {
        id: ready.id.clone(),
        version: None,
    };
    let (items, _) = client.ask(&export).unwrap();
    let Some(Item::Document(document)) = items.first() else {
        panic!("{items:?}");
    };
    let reason = || "test".to_owned();
    client
        .ask(&Request::BaselineReset {
            id: ready.id.clone(),
            reason: reason(),
        })
        .unwrap();
    assert!(
        rig.kernel.told(|t| t.sets.is_empty()),
        "a learning baseline has no set"
    );
    let import = Request::BaselineImport {
        document: document.clone(),
        reason: reason(),
    };
    client.ask(&import).unwrap();
    assert_eq!(rig.kernel.told(|t| t.sets.len()), 1);
    rig.agent.stop("test");
    let actions: Vec<String> = records(&config)
        .into_iter()
        .filter_map(|(_, r)| match r {
            Record::Decision(d) => Some(d.action),
            _ => None,
        })
        .collect();
    assert_eq!(actions, ["baseline.reset", "baseline.import"]);
}

#[test]
fn a_container_of_50_ms_is_named_and_judged_by_the_real_attributor() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let attributor = plimsoll_workload::Attributor::new(Default::default(), Paper);
    let rig = Rig::start(&config, &Hands::new(), attributor);
    let t0 = rig.now();
    rig.hands.pass(50_000_000);
    let at = |ms: u64| BootNs(t0.0 + ms * 1_000_000);
    let id = "0123456789abcdef".repeat(4);
    rig.deliver(docker_arrival(at(0), 7, &id));
    for (ms, pid, ppid, exe) in [(5, 10, 1, "/usr/sbin/nginx"), (20, 11, 10, "/bin/sh")] {
        let child = ProcessKey {
            tgid: pid,
            start: BootNs(u64::from(pid)),
        };
        rig.deliver(event(at(ms), 7, ppid, 0, EventKind::Fork { child }));
        rig.deliver(event(at(ms + 1), 7, pid, ppid, exec(exe)));
    }
    rig.deliver(event(at(50), 0, 1, 0, EventKind::CgroupRmdir { id: 7 }));
    rig.settle();
    rig.hands.pass(10 * SECOND);
    rig.settle();
    rig.agent.stop("test");
    let records = records(&config);
    let named = records
        .iter()
        .any(|(_, r)| matches!(r, Record::Container(c) if c.name == "brief"));
    let gone = records
        .iter()
        .any(|(_, r)| matches!(r, Record::Container(c) if c.state == ContainerState::Gone));
    assert!(named && gone);
    let shell = alerts(&records)
        .into_iter()
        .find(|a| a.rule.to_lowercase().contains("shell"))
        .unwrap_or_else(|| panic!("no alert: {records:?}"));
    assert_eq!(shell.instance.as_ref().unwrap().id.as_str(), id);
    assert!(rig_told(&rig.kernel).contains(&7));
}

/// One container and the programs that were found in it: process, start, program, where it lives.
fn among(found: &[(u32, u64, &str, Origin)]) -> Scan {
    let path = format!(
        "/system.slice/docker-{}.scope",
        "0123456789abcdef".repeat(4)
    );
    let seeds = found.iter().map(|&(tgid, start, exe, origin)| {
        let exec = plimsoll_model::event::Exec {
            exe: exe.into(),
            argv: vec![exe.into()],
            origin,
            found: true,
            ..Default::default()
        };
        Seed {
            key: ProcessKey {
                tgid,
                start: BootNs(start),
            },
            ppid: 1,
            exe: exe.into(),
            cgroup_id: 7,
            entry: Entry::FoundRunning,
            program: Some(Box::new(exec)),
            ..Seed::default()
        }
    });
    let processes: Vec<Seed> = seeds.collect();
    let container = FoundContainer {
        identity: plimsoll_workload::classify(&path).unwrap(),
        cgroup_id: 7,
        first: processes[0].key,
    };
    Scan {
        containers: vec![container],
        processes,
        ..Scan::default()
    }
}

#[test]
fn what_ran_already_is_judged_once_and_after_a_restart_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let start = |found: &[(u32, u64, &str, Origin)]| {
        let attributor = plimsoll_workload::Attributor::new(Default::default(), Paper);
        let rig = Rig::start_among(&config, &hands, attributor, among(found));
        hands.pass(2 * SECOND);
        rig.settle();
        rig
    };
    let told = || -> Vec<(String, u32)> {
        let records = records(&config);
        let of = |a: &&Alert| match &a.source {
            AlertSource::Drift(d) => (d.behaviour.object.to_string(), d.lineage[0].key.tgid),
            _ => panic!("a rule about what did not happen now: {a:?}"),
        };
        alerts(&records).iter().map(of).collect()
    };
    let before = 900 * SECOND;
    let server = (10, before, "/usr/sbin/nginx", Origin::Image);
    let dropped = (11, before, "/tmp/dropped", Origin::Upper);
    let rig = start(&[server, dropped]);
    assert_eq!(told(), [("/tmp/dropped".to_owned(), 11)]);
    rig.agent.stop("test");
    let seen = |records: &[(u64, Record)]| {
        let found = |r: &&(u64, Record)| matches!(&r.1, Record::Observation(o) if o.found_since().is_some());
        records.iter().filter(found).count()
    };
    assert_eq!(
        seen(&records(&config)),
        2,
        "the server, too, is an observation"
    );

    let rig = start(&[server, dropped]);
    assert_eq!(told().len(), 1, "it is told once");
    assert_eq!(seen(&records(&config)), 2);
    rig.agent.stop("test");

    // without an agent one more came, and the server's process has become another program
    let away = rig_now(&hands);
    hands.pass(SECOND);
    let became = (10, before, "/tmp/became", Origin::Upper);
    let again = (12, away + SECOND / 2, "/tmp/dropped", Origin::Upper);
    let rig = start(&[became, dropped, again]);
    let mut now = told();
    now.sort();
    let expected = [
        ("/tmp/became", 10),
        ("/tmp/dropped", 11),
        ("/tmp/dropped", 12),
    ];
    assert_eq!(now, expected.map(|(exe, pid)| (exe.to_owned(), pid)));
    rig.agent.stop("test");
}

/// Docker's papers, and a container's cgroup whose beginning nobody saw.
struct Unseen(Paper);
impl plimsoll_workload::Evidence for Unseen {
    fn judge(&mut self, path: &str, now: BootNs) -> plimsoll_workload::Verdict {
        self.0.judge(path, now)
    }
    fn facts(
        &mut self,
        identity: &plimsoll_workload::CgroupIdentity,
        now: BootNs,
    ) -> Result<plimsoll_workload::Facts, String> {
        self.0.facts(identity, now)
    }
    fn process(&mut self, tgid: u32) -> Option<plimsoll_workload::Seed> {
        self.0.process(tgid)
    }
    fn cgroup_path(&mut self, _: u64, _: u32) -> Option<String> {
        Some(format!("/docker/{}", "b1".repeat(32)))
    }
    fn is_there(&mut self, path: &str, cgroup_id: u64) -> Option<bool> {
        self.0.is_there(path, cgroup_id)
    }
}

#[test]
fn what_ran_in_a_container_that_was_met_late_is_judged_as_what_ran_already() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let attributor = plimsoll_workload::Attributor::new(Default::default(), Unseen(Paper));
    let looks = |met: plimsoll_workload::Met| {
        let dropped = (11, 990 * SECOND, "/tmp/dropped", Origin::Upper);
        let mut scan = among(&[dropped]);
        scan.containers[0].identity = met.identity;
        scan
    };
    let rig = Rig::start_meeting(&config, &hands, attributor, looks);
    let at = rig.now();
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.settle();
    let told = || {
        let all = records(&config);
        let dropped = alerts(&all).into_iter().find(|a| match &a.source {
            AlertSource::Drift(d) => d.behaviour.object.to_string() == "/tmp/dropped",
            AlertSource::Rule(_) => false,
        });
        dropped.cloned()
    };
    assert_eq!(told(), None);
    hands.pass(2 * SECOND);
    rig.settle();
    let alert = told().expect("it is told");
    assert!(alert.tags.iter().any(|t| t == "found-running"), "{alert:?}");
    rig.agent.stop("test");

    // where too many are to be looked at, that is said
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let attributor = plimsoll_workload::Attributor::new(Default::default(), Unseen(Paper));
    let rig = Rig::start(&config, &hands, attributor);
    rig.deliver(event(rig.now(), 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.settle();
    rig.agent.stop("test");
    let all = records(&config);
    let gaps = gaps(&all, Stage::Table);
    assert!(
        gaps.iter()
            .any(|g| g.reason.starts_with("too many containers were met late"))
    );
}

fn rig_now(hands: &Hands) -> u64 {
    use plimsoll_agent::clock::Clocks as _;
    hands.boot().0
}

fn rig_told(kernel: &FakeKernel) -> Vec<u64> {
    kernel.told(|t| t.watches.iter().map(|w| w.cgroup_id).collect())
}

#[test]
fn reading_ends_with_its_source_and_everything_read_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let rig = Rig::start(&config, &Hands::new(), Town::new(&[web()]));
    let at = rig.now();
    let mut signals = vec![Signal::Event(arrival(at, 7))];
    signals.extend((0..500).map(|n| Signal::Event(event(at, 7, 10, 1, read(&format!("/a/{n}"))))));
    let mut source = plimsoll_agent::kernel::Recorded::new(signals, 33);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ended = rig.agent.read(&mut source, &stop).unwrap_err();
    assert_eq!(ended.to_string(), "the recording has ended");
    // no settling: ending empties the queues
    rig.agent.stop("test");
    let records = records(&config);
    let kept = records
        .iter()
        .filter(|(_, r)| matches!(r, Record::Observation(_)))
        .count();
    assert_eq!(kept, 500);
    assert!(matches!(&records.last().unwrap().1, Record::Lifecycle(l) if l.what == "stop"));
}
