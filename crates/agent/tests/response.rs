//! Plans on a real journal: what is durable when an effect happens, persons, restarts at every
//! journal write. Effects are recorded instead of carried out.

mod common;

use common::*;
use plimsoll_agent::Config;
use plimsoll_agent::respond::act::Action;
use plimsoll_agent::respond::sender::{Launch, Running};
use plimsoll_agent::respond::{Beginning, Perform};
use plimsoll_api::notify::{FromSender, Receiver, ToSender, TryResult};
use plimsoll_api::protocol::PlanWord;
use plimsoll_api::{Client, Item, Request};
use plimsoll_model::event::Exec;
use plimsoll_model::response::*;
use plimsoll_model::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const POLICY: &str = r#"
version: 1
guards: {at_most: {containers: 10}, rate: {plans: 100}}
policies:
  - name: shell
    match: {rule: ["*shell*", "*Shell*"]}
    dry_run: false
    steps: [notify, snapshot, capture, isolate, kill-tree, remove]
"#;

/// Every step that has an effector, so that a crash may come between any two of its records.
const EVERYTHING: &str = r#"
version: 1
guards: {at_most: {containers: 10}, rate: {plans: 100}}
policies:
  - name: shell
    match: {rule: ["*shell*", "*Shell*"]}
    dry_run: false
    steps:
      [notify, snapshot, capture, memory, freeze, thaw, isolate, pause, kill-tree,
       block-program: {path: /tmp/x}, block-address: {address: 192.0.2.1}, stop, remove]
"#;

/// What effects saw when they were asked for.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Action>>>);
impl Log {
    fn all(&self) -> Vec<Action> {
        self.0.lock().unwrap().clone()
    }
    fn has(&self, action: &Action) -> bool {
        self.all().contains(action)
    }
}

/// Effects that succeed, and check on the disk that what has to precede them is durable.
fn effects(config: &Config, log: &Log, seal: bool) -> Perform {
    let (config, log) = (config.clone(), log.clone());
    Arc::new(move |target, action| {
        let records = records(&config);
        let alert = alerts(&records)
            .iter()
            .any(|a| a.id.as_str()[2..] == target.plan[2..]);
        assert!(alert, "the alert is durable first");
        let tried = |r: &Record| matches!(r, Record::Delivery(d) if d.alerts.iter().any(|a| a.as_str()[2..] == target.plan[2..]));
        assert!(
            records.iter().any(|(_, r)| tried(r)),
            "a delivery was attempted first"
        );
        let begun = |r: &Record| matches!(r, Record::Step(s) if s.plan == target.plan && matches!(s.phase, StepPhase::Began | StepPhase::UndoBegan));
        assert!(
            records.iter().any(|(_, r)| begun(r)),
            "the beginning is durable first"
        );
        if *action == Action::Remove {
            let sealed = |r: &Record| match r {
                Record::Step(s) => matches!(
                    &s.phase,
                    StepPhase::Ended(StepOutcome::Done {
                        sealed: Some(_),
                        ..
                    })
                ),
                Record::Decision(d) => d.action == "plan.waive_capture",
                _ => false,
            };
            assert!(
                records.iter().any(|(_, r)| sealed(r)),
                "sealed or waived before it is destroyed"
            );
        }
        log.0.lock().unwrap().push(action.clone());
        let capture = matches!(action, Action::Capture { .. });
        if capture && !seal {
            return StepOutcome::Failed {
                why: "no space left".into(),
            };
        }
        StepOutcome::Done {
            effect: "recorded".into(),
            sealed: capture.then(|| "bundle-1".into()),
            undo: vec![("note".into(), "7".into())],
        }
    })
}

fn beginning(policy: &str, perform: Perform) -> Beginning {
    Beginning {
        policy: Some(("policy.yaml".into(), policy.into())),
        dry_run: false,
        perform,
        reach: Arc::new(|_, _| vec!["isolate: web-2 shares its network".into()]),
        launch: None,
    }
}

fn attack(rig: &Rig) {
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, 7, 11, 10, exec("/bin/sh")));
    rig.settle();
}

/// Lets time pass until it holds.
#[track_caller]
fn pass_until(hands: &Hands, what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || {
        hands.pass(50_000_000);
        holds()
    });
}

fn client(config: &Config) -> Client {
    Client::connect(&config.socket, PATIENCE).unwrap()
}
fn plans(config: &Config) -> Vec<plimsoll_api::types::Plan> {
    let (items, _) = client(config).ask(&Request::Plans {}).unwrap();
    let plan = |i| match i {
        Item::Plan(p) => p,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(plan).collect()
}
fn shell(config: &Config) -> Option<plimsoll_api::types::Plan> {
    plans(config).into_iter().find(|p| p.policy == "shell")
}
fn state(config: &Config) -> String {
    shell(config).map_or(String::new(), |p| p.state)
}
fn decide(config: &Config, word: PlanWord) -> Result<String, String> {
    let request = Request::PlanDecide {
        id: shell(config).unwrap().plan_id,
        word,
        reason: "test".into(),
    };
    let answer = client(config).ask(&request);
    answer.map(|(_, m)| m.unwrap()).map_err(|e| e.to_string())
}

#[test]
fn the_order_holds_on_a_real_journal_and_every_step_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(POLICY, effects(&config, &log, true)),
    );
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    let names: Vec<_> = log.all().iter().map(|a| format!("{a:?}")).collect();
    let starts: Vec<_> = names
        .iter()
        .map(|n| n.split([' ', '{']).next().unwrap())
        .collect();
    assert_eq!(
        starts,
        ["Snapshot", "Capture", "Isolate", "KillTree", "Remove"]
    );
    let plan = shell(&config).unwrap();
    assert_eq!(
        plan.steps[0].state, "unavailable",
        "nobody can be told: {plan:?}"
    );
    assert!(
        plan.steps[1..].iter().all(|s| s.state == "done"),
        "{plan:?}"
    );
    assert_eq!(plan.steps[2].sealed.as_deref(), Some("bundle-1"));
    assert!(!plan.reasons.is_empty() && !plan.blast_radius.is_empty());
    assert!(
        plan.blast_radius
            .iter()
            .any(|w| w.contains("web-2 shares its network")),
        "{:?}",
        plan.blast_radius
    );
    rig.agent.stop("test");
}

#[test]
fn a_dry_run_is_planned_shown_and_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let policy = POLICY.replace("    dry_run: false\n", "");
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(&policy, effects(&config, &log, true)),
    );
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    let plan = shell(&config).unwrap();
    assert!(plan.dry_run && plan.ended.unwrap().contains("dry run"));
    let undone = decide(&config, PlanWord::Undo).unwrap();
    assert!(undone.contains("nothing to take back"), "{undone}");
    assert!(log.all().is_empty());
    rig.agent.stop("test");
}

#[test]
fn nothing_is_destroyed_without_a_seal_until_a_named_person_waives_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(POLICY, effects(&config, &log, false)),
    );
    attack(&rig);
    pass_until(&hands, "it waits", || state(&config) == "waiting");
    assert!(log.has(&Action::KillTree) && !log.has(&Action::Remove));
    let waiting = shell(&config).unwrap().waiting_for.unwrap();
    assert!(waiting.contains("--waive-capture"), "{waiting}");
    decide(&config, PlanWord::WaiveCapture).unwrap();
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    assert!(log.has(&Action::Remove));
    let uid = rustix::process::getuid().as_raw();
    let waived = records(&config).into_iter().find_map(|(_, r)| match r {
        Record::Decision(d) if d.action == "plan.waive_capture" => Some(d),
        _ => None,
    });
    assert_eq!(
        waived.unwrap().uid,
        uid,
        "the kernel's word, not the request's"
    );
    rig.agent.stop("test");
}

#[test]
fn one_person_is_not_two_and_a_denial_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let policy = POLICY.replace(
        "    steps:",
        "    approvals: {two_person: true}\n    steps:",
    );
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(&policy, effects(&config, &log, true)),
    );
    attack(&rig);
    pass_until(&hands, "it waits", || state(&config) == "waiting");
    assert_eq!(decide(&config, PlanWord::Approve).unwrap(), "approved");
    let again = decide(&config, PlanWord::Approve).unwrap();
    assert!(again.contains("not counted"), "{again}");
    let waiting = shell(&config).unwrap().waiting_for.unwrap();
    assert!(
        waiting.starts_with("1 more approval for isolate"),
        "{waiting}"
    );
    decide(&config, PlanWord::Deny).unwrap();
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    assert!(
        shell(&config)
            .unwrap()
            .ended
            .unwrap()
            .starts_with("denied by")
    );
    assert!(!log.has(&Action::KillTree));
    assert!(decide(&config, PlanWord::Approve).is_err(), "it has ended");
    rig.agent.stop("test");
}

#[test]
fn undo_takes_back_what_can_be_taken_back_after_the_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(POLICY, effects(&config, &log, true)),
    );
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    decide(&config, PlanWord::Undo).unwrap();
    let undone = Action::Undo {
        kind: StepKind::Isolate,
        notes: vec![("note".into(), "7".into())],
    };
    pass_until(&hands, "it is undone", || {
        log.has(&undone) && state(&config) == "ended"
    });
    let plan = shell(&config).unwrap();
    let steps = plan.steps.iter().filter(|s| s.undone.is_some());
    assert_eq!(
        steps.map(|s| s.step.as_str()).collect::<Vec<_>>(),
        ["isolate"]
    );
    rig.agent.stop("test");
}

#[test]
fn a_plan_of_days_ago_is_shown_as_it_went_and_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let begin = || beginning(POLICY, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin());
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    let id = shell(&config).unwrap().plan_id;
    rig.agent.stop("test");
    hands.pass(2 * 86_400 * SECOND);
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin());
    assert!(shell(&config).is_none(), "it is none of those at hand");
    let show = || {
        let request = Request::PlanShow { id: id.clone() };
        let (items, _) = client(&config).ask(&request).unwrap();
        let Some(Item::Plan(plan)) = items.into_iter().next() else {
            panic!("no plan");
        };
        plan
    };
    let step = |plan: &plimsoll_api::types::Plan| {
        let isolate = plan.steps.iter().find(|s| s.step == "isolate");
        let isolate = isolate.unwrap().clone();
        (isolate.state, isolate.undone)
    };
    assert_eq!(show().state, "ended");
    assert_eq!(step(&show()), ("done".into(), None));
    let undo = Request::PlanDecide {
        id: id.clone(),
        word: PlanWord::Undo,
        reason: "drill".into(),
    };
    client(&config).ask(&undo).unwrap();
    pass_until(&hands, "it is undone", || step(&show()).1.is_some());
    rig.agent.stop("test");
}

#[test]
fn a_changed_policy_comes_into_force_whole_and_a_broken_one_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let path = dir.path().join("policy.yaml");
    std::fs::write(&path, POLICY).unwrap();
    let mut begin = beginning(POLICY, effects(&config, &log, true));
    begin.policy = Some((path.clone(), POLICY.into()));
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin);
    let in_force = || -> Vec<String> {
        let all = records(&config).into_iter();
        let texts = all.filter_map(|(_, r)| match r {
            Record::Policy(p) => Some(p.text),
            _ => None,
        });
        texts.collect()
    };
    let refusals = || {
        let all = records(&config).into_iter();
        let of_policy = all.filter_map(|(_, r)| match r {
            Record::Lifecycle(l) if l.what == "policy" => Some(l.details[0].1.clone()),
            _ => None,
        });
        of_policy.collect::<Vec<_>>()
    };
    // the beginning is as it should be, the end is not
    let broken = POLICY.replace(
        "kill-tree, remove]",
        "kill-tree]\n  - name: 7\n    steps: [fly]",
    );
    std::fs::write(&path, broken).unwrap();
    until("the broken one is refused, with its place", || {
        refusals()
            .iter()
            .any(|why| why.starts_with("10:") && why.contains("fly"))
    });
    assert_eq!(in_force(), [POLICY]);
    let tame = POLICY.replace("isolate, kill-tree, remove", "isolate");
    std::fs::write(&path, &tame).unwrap();
    until("the new one is in force", || in_force().len() == 2);
    assert_eq!(in_force()[1], tame);
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    let isolated = |a: &Action| matches!(a, Action::Isolate { .. });
    assert!(log.all().iter().any(isolated) && !log.has(&Action::KillTree));
    rig.agent.stop("test");
}

#[test]
fn the_switch_stops_all_automation_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let begin = || beginning(POLICY, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin());
    let switch = |stop| Request::PlanSwitch {
        stop,
        reason: "drill".into(),
    };
    client(&config).ask(&switch(true)).unwrap();
    attack(&rig);
    for _ in 0..40 {
        hands.pass(50_000_000);
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.agent.stop("test");
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin());
    std::thread::sleep(Duration::from_millis(2500));
    hands.pass(SECOND);
    assert!(log.all().is_empty());
    let said = || client(&config).ask(&Request::Plans {}).unwrap().1;
    assert!(said().is_some_and(|words| words.starts_with("all automation is stopped")));
    client(&config).ask(&switch(false)).unwrap();
    assert_eq!(said(), None);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    assert!(log.has(&Action::Remove));
    rig.agent.stop("test");
}

/// The entry that answers hangs on labels.
const BY_LABEL: &str = r#"
version: 1
guards: {at_most: {containers: 10}, rate: {plans: 1000}}
policies:
  - name: production
    match: {rule: ["*shell*", "*Shell*"], labels: {env: prod}}
    dry_run: false
    steps: [notify, isolate]
  - name: shell
    match: {rule: ["*shell*", "*Shell*"]}
    dry_run: false
    steps: [notify, snapshot]
"#;

/// A container of which its runtime may tell more.
fn awaited(name: &str, cgroup_id: u64) -> Container {
    Container {
        awaited: true,
        ..house(name, cgroup_id)
    }
}
/// The same once its runtime has told its labels.
fn labelled(container: &Container, env: &str) -> Container {
    Container {
        awaited: false,
        labels: [("env".to_owned(), env.to_owned())].into(),
        ..container.clone()
    }
}
/// A server's shell in the container under that cgroup.
fn shell_in(rig: &Rig, cgroup_id: u64) {
    let (at, pid) = (rig.now(), cgroup_id as u32 * 100);
    rig.deliver(arrival(at, cgroup_id));
    rig.deliver(event(at, cgroup_id, pid, 1, exec("/usr/sbin/nginx")));
    rig.deliver(event(at, cgroup_id, pid + 1, pid, exec("/bin/sh")));
    rig.settle();
}
/// What was decided about shells: container, entry and reasons.
fn decided(config: &Config) -> Vec<(String, String, String)> {
    let plans = records(config).into_iter().filter_map(|(_, r)| match r {
        Record::Plan(p) => Some((p.container, p.policy, p.reasons.join("; "))),
        _ => None,
    });
    plans.collect()
}
fn is_decided(config: &Config, container: &str, entry: &str) -> bool {
    let all = decided(config);
    all.iter().any(|(c, e, _)| c == container && e == entry)
}
/// Time passes, and the agent has looked at what there is several times.
fn pass(hands: &Hands, seconds: u64) {
    for _ in 0..seconds * 4 {
        hands.pass(250_000_000);
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn an_entry_that_hangs_on_a_label_waits_for_it_and_nothing_else_waits() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let known = labelled(&house("db", 8), "test");
    let (late, never) = (awaited("web", 7), awaited("job", 9));
    let town = Town::new(&[late.clone(), known, never]);
    let news = town.news.clone();
    let begin = beginning(BY_LABEL, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, town, begin);
    shell_in(&rig, 7);
    let of_web =
        |r: &Record| matches!(r, Record::Alert(a) if a.instance == Some(late.instance.clone()));
    let all = records(&config);
    assert!(
        all.iter().any(|(_, r)| of_web(r)),
        "the alert is durable at once"
    );
    shell_in(&rig, 8);
    shell_in(&rig, 9);
    pass_until(&hands, "who is known is answered", || {
        is_decided(&config, "db", "shell")
    });
    pass(&hands, 2);
    assert_eq!(decided(&config).len(), 1, "{:?}", decided(&config));
    // a person who asks is told what it hangs on
    let alert = all.iter().find_map(|(_, r)| match r {
        Record::Alert(a) if of_web(r) => Some(a.id.to_string()),
        _ => None,
    });
    let show = Request::PlanShow { id: alert.unwrap() };
    let (items, _) = client(&config).ask(&show).unwrap();
    let [Item::Plan(would_be)] = items.as_slice() else {
        panic!("{items:?}");
    };
    let doubt = "the entry production of the policy might answer it";
    assert_eq!(
        (would_be.state.as_str(), would_be.policy.as_str()),
        ("would-be", "shell")
    );
    assert!(
        would_be.reasons.iter().any(|r| r.ends_with(doubt)),
        "{would_be:?}"
    );
    // with the label it is decided, long before the wait would have ended
    news.lock().unwrap().push(labelled(&late, "prod"));
    rig.settle();
    let waited_until = rig.now();
    until("the label has come", || {
        is_decided(&config, "web", "production")
    });
    assert_eq!(rig.now(), waited_until);
    // what is never told is decided without
    pass_until(&hands, "the wait has ended", || {
        is_decided(&config, "job", "shell")
    });
    let all = decided(&config);
    let (_, _, why) = all.iter().find(|(c, ..)| c == "job").unwrap();
    assert!(
        why.contains("its runtime has not told it yet") && why.contains(doubt),
        "{why}"
    );
    let (_, _, why) = all.iter().find(|(c, ..)| c == "web").unwrap();
    assert!(
        why.contains("label env is prod") && !why.contains("not all is known"),
        "{why}"
    );
    assert_eq!(all.len(), 3);
    rig.agent.stop("test");
}

#[test]
fn a_wait_for_a_label_goes_on_after_a_restart_and_stops_with_the_switch() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let late = awaited("web", 7);
    // the entry that would answer otherwise is left out: nothing would be done
    let only = BY_LABEL.split("  - name: shell").next().unwrap();
    let begin = || beginning(only, effects(&config, &log, true));
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(std::slice::from_ref(&late)),
        begin(),
    );
    shell_in(&rig, 7);
    pass(&hands, 2);
    rig.agent.stop("test");
    assert!(decided(&config).is_empty());
    let town = Town::new(std::slice::from_ref(&late));
    let news = town.news.clone();
    let rig = Rig::start_with(&config, &hands, town, begin());
    let switch = |stop| Request::PlanSwitch {
        stop,
        reason: "drill".into(),
    };
    client(&config).ask(&switch(true)).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    pass(&hands, 2);
    news.lock().unwrap().push(labelled(&late, "prod"));
    rig.settle();
    pass(&hands, 1);
    assert!(decided(&config).is_empty(), "all automation is stopped");
    client(&config).ask(&switch(false)).unwrap();
    pass_until(&hands, "it is answered", || {
        is_decided(&config, "web", "production")
    });
    rig.agent.stop("test");
}

#[test]
fn alerts_that_nothing_answers_for_want_of_a_label_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let (never, gone) = (awaited("web", 7), awaited("job", 9));
    let town = Town::new(&[never.clone(), gone.clone()]);
    let news = town.news.clone();
    let only = BY_LABEL.split("  - name: shell").next().unwrap();
    let begin = beginning(only, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, town, begin);
    shell_in(&rig, 7);
    shell_in(&rig, 9);
    // its runtime answers although it has ended
    let over = |c: Container| Container {
        state: ContainerState::Gone,
        ..c
    };
    news.lock().unwrap().push(over(gone.clone()));
    rig.settle();
    pass(&hands, 1);
    assert!(decided(&config).is_empty());
    news.lock().unwrap().push(over(labelled(&gone, "prod")));
    rig.settle();
    pass_until(&hands, "the one that has ended is answered", || {
        is_decided(&config, "job", "production")
    });
    let noted = || {
        let all = records(&config);
        let gaps = gaps(&all, Stage::Identity);
        let of_web = GapScope::Container(never.instance.clone());
        gaps.iter()
            .any(|g| g.scope == of_web && g.reason.contains("alerts were answered by no policy"))
    };
    assert!(!noted());
    pass_until(&hands, "it is noted", noted);
    assert_eq!(decided(&config).len(), 1);
    rig.agent.stop("test");
}

#[test]
fn containers_that_have_ended_do_not_use_up_what_guards_allow() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let policy = BY_LABEL.replace("containers: 10", "containers: 1");
    let brief = [house("job-a", 8), house("job-b", 9)].map(|c| Container { awaited: true, ..c });
    let town = Town::new(&[brief[0].clone(), brief[1].clone(), labelled(&web(), "prod")]);
    let news = town.news.clone();
    let begin = beginning(&policy, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, town, begin);
    let isolated = || {
        let steps = plans(&config).into_iter().flat_map(|p| p.steps);
        steps
            .filter(|s| s.step == "isolate" && s.state == "done")
            .count()
    };
    for (n, ended) in brief.iter().enumerate() {
        shell_in(&rig, ended.cgroup_id);
        news.lock().unwrap().push(Container {
            state: ContainerState::Gone,
            ..labelled(ended, "prod")
        });
        rig.settle();
        pass_until(&hands, "the one that has ended is answered", || {
            isolated() == n + 1
        });
    }
    shell_in(&rig, 7);
    pass_until(&hands, "the one that runs is cut", || isolated() == 3);
    rig.agent.stop("test");
}

#[test]
fn what_finds_no_room_to_wait_is_decided_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let policy = BY_LABEL.replace("\"*shell*\", \"*Shell*\"", "\"*\"");
    let begin = beginning(&policy, effects(&config, &log, true));
    let rig = Rig::start_with(&config, &hands, Town::new(&[awaited("web", 7)]), begin);
    let at = rig.now();
    rig.deliver(arrival(at, 7));
    rig.deliver(event(at, 7, 10, 1, exec("/usr/sbin/nginx")));
    for n in 0..80 {
        let dropped = Exec {
            exe: format!("/tmp/x{n}").as_str().into(),
            origin: Origin::Upper,
            mode: 0o755,
            ..Exec::default()
        };
        rig.deliver(event(at, 7, 20 + n, 10, EventKind::Exec(dropped)));
    }
    rig.settle();
    let count = alerts(&records(&config)).len();
    assert!(count > 64, "{count}");
    pass_until(&hands, "some are decided", || {
        decided(&config).len() == count - 64
    });
    pass(&hands, 2);
    assert_eq!(decided(&config).len(), count - 64, "and the others wait");
    assert!(
        decided(&config)
            .iter()
            .all(|(_, entry, _)| entry == "shell")
    );
    rig.agent.stop("test");
}

/// A run's journal cut after its first `keep` records, as a kill at that moment leaves it.
fn cut(config: &Config, all: &[(u64, Record)], keep: usize) {
    use plimsoll_agent::ledger::stored;
    use plimsoll_evidence::{Journal, Options};
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let mut options = Options::new("test-node");
    options.emergency_bytes = 64 << 10;
    let (mut journal, _) = Journal::open(config.journal_dir(), options).unwrap();
    for (_, record) in &all[..keep] {
        let (at, about) = match record {
            Record::Observation(o) => (o.at, o.instance.clone()),
            Record::Alert(a) => (a.at, a.instance.clone()),
            Record::Plan(p) => (p.at, p.instance.clone()),
            Record::Step(s) => (s.at, None),
            Record::Delivery(d) => (d.at, None),
            Record::Lifecycle(l) => (l.at, None),
            Record::Container(c) => (c.first_seen, Some(c.instance.clone())),
            _ => (
                Stamp {
                    wall: WallNs(WALL),
                    ..Stamp::default()
                },
                None,
            ),
        };
        let about = about.as_ref();
        journal.append_durable(stored(record, at, about)).unwrap();
    }
    drop(journal);
}

#[test]
fn a_kill_at_any_journal_write_keeps_the_order_and_repeats_nothing_dangerous() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        beginning(EVERYTHING, effects(&config, &log, true)),
    );
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    let all = records(&config);
    rig.agent.stop("test");
    let first = all
        .iter()
        .position(|(_, r)| matches!(r, Record::Alert(_)))
        .unwrap();
    for keep in first..=all.len() {
        let dir = tempfile::tempdir().unwrap();
        let config = Rig::config(dir.path());
        cut(&config, &all, keep);
        let (hands, log) = (Hands::new(), Log::default());
        hands.pass(30 * SECOND);
        let rig = Rig::start_with(
            &config,
            &hands,
            Town::new(&[web()]),
            beginning(EVERYTHING, effects(&config, &log, true)),
        );
        let before = &all[..keep];
        let alerted = before
            .iter()
            .any(|(_, r)| matches!(r, Record::Alert(a) if a.rule.to_lowercase().contains("shell")));
        if alerted {
            // the container is known again
            rig.deliver(arrival(rig.now(), 7));
            rig.settle();
            pass_until(
                &hands,
                &format!("the plan has ended after a kill at {keep}"),
                || state(&config) == "ended",
            );
            let begun = |kind| {
                before.iter().any(|(_, r)| matches!(r, Record::Step(s) if s.kind == kind && s.phase == StepPhase::Began))
            };
            let is_stop = |a: &Action| matches!(a, Action::Stop { .. });
            let done = log.all();
            let count = |action: Action| done.iter().filter(|a| **a == action).count();
            let which = [
                (StepKind::KillTree, count(Action::KillTree)),
                (StepKind::Stop, done.iter().filter(|a| is_stop(a)).count()),
                (StepKind::Remove, count(Action::Remove)),
            ];
            for (kind, here) in which {
                assert_eq!(
                    here,
                    usize::from(!begun(kind)),
                    "{kind:?} after a kill at {keep}"
                );
            }
        }
        rig.agent.stop("test");
    }
}

/// A sender that lives in this process: one receiver, which answers as it is told.
fn sender(
    heard: Arc<Mutex<Vec<String>>>,
    answer: impl Fn(usize) -> Option<TryResult> + Send + Sync + 'static,
) -> Launch {
    let answer = Arc::new(answer);
    Box::new(move || {
        let (ours, theirs) = UnixStream::pair()?;
        let (heard, answer) = (heard.clone(), answer.clone());
        std::thread::spawn(move || {
            let mut to = theirs.try_clone().unwrap();
            let mut say = |m: &FromSender| {
                let line = serde_json::to_string(m).unwrap() + "\n";
                to.write_all(line.as_bytes()).is_ok()
            };
            say(&FromSender::Hello {
                receivers: vec![Receiver {
                    name: "ops".into(),
                    kind: "webhook".into(),
                    priority: "debug".into(),
                    per_minute: 6000,
                }],
            });
            for line in BufReader::new(theirs).lines() {
                let Ok(line) = line else { return };
                let ToSender::Send { receiver, message } = serde_json::from_str(&line).unwrap();
                let n = {
                    let mut heard = heard.lock().unwrap();
                    heard.push(message.key.clone());
                    heard.len()
                };
                // `None`: the sender dies in the middle of a try
                let Some(result) = answer(n) else { return };
                let (key, detail) = (message.key, "ok".to_owned());
                say(&FromSender::Tried {
                    receiver,
                    key,
                    result,
                    detail,
                });
            }
        });
        Ok(Running {
            stream: ours,
            child: None,
        })
    })
}

#[test]
fn alerts_are_told_once_more_after_the_sender_died_and_the_plan_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let (hands, log) = (Hands::new(), Log::default());
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let mut begin = beginning(EVERYTHING, effects(&config, &log, true));
    begin.launch = Some(sender(heard.clone(), |n| {
        (n > 1).then_some(TryResult::Delivered)
    }));
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin);
    attack(&rig);
    pass_until(&hands, "the plan has ended", || state(&config) == "ended");
    pass_until(&hands, "the plan is told", || {
        heard.lock().unwrap().iter().any(|k| k.starts_with("P-"))
    });
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard[0], heard[1], "the try that was cut off is made again");
    let plan = shell(&config).unwrap();
    assert_eq!(plan.steps[0].state, "done", "{plan:?}");
    let at = |k: &str| heard.iter().position(|h| h == k).unwrap();
    assert!(at(&plan.alert_id) < at(&format!("{}-plan", plan.plan_id)));
    rig.agent.stop("test");
}

#[test]
fn what_was_not_delivered_before_a_restart_is_delivered_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let begin = |heard: &Arc<Mutex<Vec<String>>>, result: TryResult| {
        let perform: Perform = Arc::new(|_, _| StepOutcome::TimedOut);
        let mut begin = beginning("version: 1\npolicies: []\n", perform);
        begin.launch = Some(sender(heard.clone(), move |_| Some(result.clone())));
        begin
    };
    let later = TryResult::Later {
        retry_after_ms: Some(600_000),
    };
    let (first, second) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<Mutex<Vec<String>>>::default(),
    );
    let rig = Rig::start_with(&config, &hands, Town::new(&[web()]), begin(&first, later));
    attack(&rig);
    pass_until(&hands, "a try was made", || {
        !first.lock().unwrap().is_empty()
    });
    rig.agent.stop("test");
    let ids: Vec<String> = alerts(&records(&config))
        .iter()
        .map(|a| a.id.to_string())
        .collect();
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        begin(&second, TryResult::Delivered),
    );
    pass_until(&hands, "all are told", || {
        let heard = second.lock().unwrap();
        ids.iter().all(|id| heard.contains(id))
    });
    rig.agent.stop("test");
    let third = Arc::<Mutex<Vec<String>>>::default();
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        begin(&third, TryResult::Delivered),
    );
    for _ in 0..40 {
        hands.pass(50_000_000);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        third.lock().unwrap().is_empty(),
        "what was delivered is not told again"
    );
    rig.agent.stop("test");
}

#[test]
fn a_dead_letter_is_seen_and_sent_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let begin = |heard: &Arc<Mutex<Vec<String>>>, result: TryResult| {
        let perform: Perform = Arc::new(|_, _| StepOutcome::TimedOut);
        let mut begin = beginning("version: 1\npolicies: []\n", perform);
        begin.launch = Some(sender(heard.clone(), move |_| Some(result.clone())));
        begin
    };
    let outgoing = || {
        let (items, _) = client(&config).ask(&Request::NotifyList {}).unwrap();
        items
            .into_iter()
            .filter(|i| matches!(i, Item::Outgoing(o) if o.state == "dead"))
            .count()
    };
    let (first, second) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<Mutex<Vec<String>>>::default(),
    );
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        begin(&first, TryResult::Refused),
    );
    attack(&rig);
    pass_until(&hands, "it is dead", || outgoing() > 0);
    rig.agent.stop("test");
    let rig = Rig::start_with(
        &config,
        &hands,
        Town::new(&[web()]),
        begin(&second, TryResult::Delivered),
    );
    pass_until(&hands, "it is seen", || outgoing() > 0);
    assert!(second.lock().unwrap().is_empty(), "not sent by itself");
    let again = Request::NotifyResend {
        receiver: Some("ops".into()),
        key: None,
        reason: "fixed".into(),
    };
    client(&config).ask(&again).unwrap();
    pass_until(&hands, "it is delivered", || {
        outgoing() == 0 && !second.lock().unwrap().is_empty()
    });
    let dead = first.lock().unwrap().clone();
    assert!(second.lock().unwrap().iter().all(|k| dead.contains(k)));
    rig.agent.stop("test");
}

#[test]
fn each_act_is_handed_to_a_receiver_at_once() {
    const ACTS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let config = Rig::config(dir.path());
    let hands = Hands::new();
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let perform: Perform = Arc::new(|_, _| StepOutcome::TimedOut);
    let mut begin = beginning("version: 1\npolicies: []\n", perform);
    begin.launch = Some(sender(heard.clone(), |_| Some(TryResult::Delivered)));
    let houses: Vec<Container> = (0..ACTS)
        .map(|n| house(&format!("web{n:03}"), 100 + n))
        .collect();
    let rig = Rig::start_with(&config, &hands, Town::new(&houses), begin);
    std::thread::sleep(Duration::from_millis(300));
    let mut took = Vec::new();
    for n in 0..ACTS {
        let (at, cgroup) = (rig.now(), 100 + n);
        let pid = 1000 + 10 * n as u32;
        rig.deliver(arrival(at, cgroup));
        rig.deliver(event(at, cgroup, pid, 1, exec("/usr/sbin/nginx")));
        rig.settle();
        let before = heard.lock().unwrap().len();
        let since = std::time::Instant::now();
        rig.deliver(event(at, cgroup, pid + 1, pid, exec("/bin/sh")));
        while heard.lock().unwrap().len() == before {
            assert!(since.elapsed() < PATIENCE, "act {n} is never told");
            std::thread::sleep(Duration::from_micros(200));
        }
        took.push(since.elapsed());
    }
    took.sort_unstable();
    // a measure, not a test: machines are noisy
    let (median, p95) = (took[took.len() / 2], took[took.len() * 95 / 100]);
    println!("act to receiver: median {median:?}, p95 {p95:?}, of {ACTS}");
    rig.agent.stop("test");
}
