//! What the policy language means, and what it refuses, with places.

use plimsoll_model::response::{OnFailure, StepClass, StepKind};
use plimsoll_model::*;
use plimsoll_respond::Policy;
use plimsoll_respond::guards::{Act, Asking, Guards, Surroundings};
use plimsoll_respond::plan::{Knowing, choose, make};
use std::collections::BTreeMap;

const EXAMPLE: &str = r#"
version: 1
guards:
  protected: {names: ["db-*"], labels: {tier: core}}
  at_most: {containers: 2, window: 10m}
  min_healthy: 1
policies:
  - name: fileless
    match: {rule: ["Fileless*"], priority: warning, image: "shop/*", labels: {env: "prod*"}, service: web}
    dry_run: false
    approvals: {count: 1, expiry: 10m}
    steps:
      - remove: {approvals: 2}
      - isolate: {allow: [10.0.0.5, 10.1.0.0/16], approvals: 0}
      - snapshot
      - notify
  - name: rest
    steps: [notify, snapshot]
"#;

fn container(name: &str, service: Option<&str>) -> Container {
    Container {
        name: name.into(),
        image: ImageRef {
            name: "shop/web:1".into(),
            ..ImageRef::default()
        },
        role: "web".into(),
        service: service.map(Into::into),
        labels: BTreeMap::from([("env".into(), "production".into())]),
        cgroup_id: 1,
        state: ContainerState::Running,
        ports: vec![(80, "tcp".into())],
        ..Container::new(
            Instance {
                id: ContainerId::parse(&format!("{name}aaaaaaaaaaaa")).unwrap(),
                start: BootNs(1),
            },
            Runtime::Docker,
            Stamp::default(),
        )
    }
}
fn alert(rule: &str) -> Alert {
    Alert {
        id: AlertId::parse("A-17").unwrap(),
        at: Stamp::default(),
        rule: rule.into(),
        priority: Priority::Critical,
        output: Text::default(),
        source: AlertSource::Rule(rule.into()),
        instance: None,
        tags: vec!["T1059".into()],
        fields: vec![],
        evidence: vec![],
        count: 1,
        last: Stamp::default(),
        handed_boot: BootNs(0),
        prevented: false,
    }
}
fn plan_of(policy: &Policy, rule: &str, c: &Container, around: Surroundings<'_>) -> Option<Plan> {
    let alert = alert(rule);
    make(
        policy,
        Knowing {
            alert: &alert,
            record: None,
            container: Some(c),
            around,
            reach: &["isolate: another is cut off too".to_owned()],
            at: Stamp::default(),
        },
    )
}

#[test]
fn a_plan_says_what_why_and_how_far() {
    let policy = Policy::parse(EXAMPLE).unwrap();
    let web = container("web-1", Some("web"));
    let plan = plan_of(&policy, "Fileless program", &web, Surroundings::default()).unwrap();
    assert_eq!(
        (plan.id.as_str(), plan.policy.as_str()),
        ("P-17", "fileless")
    );
    assert!(!plan.dry_run && plan.policy_digest.len() == 64);
    let kinds: Vec<_> = plan.steps.iter().map(|s| s.kind).collect();
    use StepKind::*;
    assert_eq!(
        kinds,
        [Notify, Snapshot, Capture, Isolate, Remove],
        "by class; capture added"
    );
    let approvals: Vec<_> = plan.steps.iter().map(|s| s.approvals).collect();
    assert_eq!(approvals, [0, 0, 0, 0, 2]);
    assert_eq!(
        plan.steps[3].parameters,
        [("allow".to_owned(), "10.0.0.5,10.1.0.0/16".to_owned())]
    );
    assert_eq!(plan.steps[4].on_failure, OnFailure::Stop);
    assert_eq!(plan.approval_ms, 600_000);
    assert!(
        plan.reasons.contains(&"label env is production".to_owned()),
        "{:?}",
        plan.reasons
    );
    assert!(plan.blast_radius[0].contains("web-1"));
    let another = "isolate: another is cut off too";
    assert_eq!(plan.blast_radius.last().map(String::as_str), Some(another));
    assert!(
        plan.held.iter().any(|h| h.contains("untouched")),
        "no replica is left: {:?}",
        plan.held
    );
}

#[test]
fn the_first_entry_that_fits_answers_and_dry_run_is_the_default() {
    let policy = Policy::parse(EXAMPLE).unwrap();
    let other = plan_of(
        &policy,
        "Other",
        &container("x", None),
        Surroundings::default(),
    )
    .unwrap();
    assert_eq!(other.policy, "rest");
    assert!(other.dry_run);
    let none = Policy::parse("version: 1\npolicies: []\n").unwrap();
    assert!(
        plan_of(
            &none,
            "Other",
            &container("x", None),
            Surroundings::default()
        )
        .is_none()
    );
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, place, words) in [
        ("", "1:1", "version: 1"),
        ("version: 2\n", "1:10", "expected 1"),
        (
            "version: 1\npolicys: []\n",
            "2:1",
            "did you mean \"policies\"?",
        ),
        (
            "version: 1\nguards:\n  rate: {plans: }\n",
            "3:15",
            "found nothing",
        ),
        (
            "version: 1\npolicies:\n  - steps: [notify]\n",
            "3:5",
            "a name",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    steps: [explode]\n",
            "4:13",
            "a step",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    steps:\n      - freeze: {budget: soon}\n",
            "5:26",
            "a length of time",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    steps: [block-address]\n",
            "4:13",
            "address",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    steps:\n      - isolate: {allow: [10.0.0.5, 10.0.0.300]}\n",
            "5:37",
            "found \"10.0.0.300\"",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    match: {risk: huge}\n    steps: [notify]\n",
            "4:19",
            "low, medium",
        ),
        (
            "version: 1\nmaintenance:\n  - {from: \"25:00\", to: \"26:00\"}\n",
            "3:12",
            "a time",
        ),
        (
            "version: 1\npolicies:\n  - name: a\n    steps: []\n",
            "3:5",
            "1 to 32 steps",
        ),
        ("version: 1\nversion: 1\n", "2:1", "twice"),
        ("version: [1\n", "2:1", "not YAML"),
    ] {
        let e = Policy::parse(text).unwrap_err().to_string();
        assert!(e.starts_with(place) && e.contains(words), "{text:?}: {e}");
    }
}

#[test]
fn a_policy_that_could_act_on_everything_is_refused_until_confirmed() {
    let act = |select: &str, step: &str, top: &str| {
        Policy::parse(&format!(
            "version: 1\n{top}policies:\n  - name: a\n    {select}\n    steps: [{step}]\n"
        ))
    };
    for select in [
        "dry_run: true",
        "match: {image: \"*\"}",
        "match: {rule: [a, \"**\"]}",
        "match: {rule: \"?*\", image: \"*??\"}",
        "match: {risk: low, coverage: 0.9}",
    ] {
        for step in ["isolate", "freeze", "remove"] {
            let e = act(select, step, "").unwrap_err();
            assert!(
                e.message.contains("confirm_everything"),
                "{select} {step}: {e}"
            );
        }
        assert!(
            act(select, "snapshot", "").is_ok(),
            "observing and preserving disturb nobody"
        );
        assert!(act(select, "isolate", "confirm_everything: true\n").is_ok());
    }
    assert!(act("match: {risk: high}", "isolate", "").is_ok());
}

fn instance(name: &str) -> Instance {
    container(name, None).instance
}
fn act(at_s: i64, name: &str, service: &str) -> Act {
    Act {
        at: WallNs(at_s * 1_000_000_000),
        instance: instance(name),
        service: Some(service.into()),
        plan: format!("P-{name}"),
    }
}

#[track_caller]
fn refused(guards: &Guards, c: &Container, acts: &[Act], running: &[&Container], words: &str) {
    let around = Surroundings {
        running,
        acts,
        own: None,
    };
    let asking = Asking {
        plan: "P-me",
        container: c,
    };
    let now = WallNs(1000 * 1_000_000_000);
    let why = guards.refuse(asking, StepKind::Isolate, false, around, now);
    match words {
        "" => assert_eq!(why, None),
        _ => assert!(why.clone().unwrap_or_default().contains(words), "{why:?}"),
    }
    // what disturbs nobody is never held back
    assert_eq!(
        guards.refuse(asking, StepKind::Snapshot, false, around, now),
        None
    );
}

#[test]
fn guards_hold_back_and_say_why() {
    let web = container("web-1", Some("web"));
    let (b, c, d) = (
        container("web-2", Some("web")),
        container("web-3", Some("web")),
        container("web-4", Some("web")),
    );
    let all = [&web, &b, &c, &d];
    let guards = Guards {
        at_most: 2,
        percent: 50,
        min_healthy: 2,
        rate: 100,
        ..Guards::default()
    };
    refused(&guards, &web, &[], &all, "");
    let protected = Guards {
        names: vec!["web-*".into()],
        ..guards.clone()
    };
    refused(&protected, &web, &[], &all, "protected");
    let labelled = Guards {
        labels: vec![("env".into(), "prod*".into())],
        ..guards.clone()
    };
    refused(&labelled, &web, &[], &all, "label env");
    let (x, y) = (act(900, "x", "other"), act(950, "y", "other"));
    refused(
        &guards,
        &web,
        &[x.clone(), y.clone()],
        &all,
        "container 3 within",
    );
    refused(&guards, &web, &[act(1, "x", "other"), y.clone()], &all, "");
    let half = [act(990, "web-2", "web")];
    refused(&guards, &web, &half, &all, "");
    let percent = Guards {
        percent: 49,
        ..guards.clone()
    };
    refused(&percent, &web, &half, &all, "2 of 4");
    refused(&guards, &web, &half, &all[..3], "of web");
    let rate = Guards {
        rate: 1,
        ..guards.clone()
    };
    refused(&rate, &web, &[x], &all, "plans have acted");
    let healthy = Guards {
        min_healthy: 3,
        ..guards
    };
    refused(&healthy, &web, &half, &all, "left untouched");
}

#[test]
fn the_agent_never_acts_on_itself() {
    let me = container("agent", None);
    let around = Surroundings {
        running: &[],
        acts: &[],
        own: Some(&me.instance.id),
    };
    let asking = Asking {
        plan: "P-me",
        container: &me,
    };
    let why = Guards::default().refuse(asking, StepKind::Pause, true, around, WallNs(0));
    assert!(why.unwrap().contains("agent's own"));
}

#[test]
fn a_runtimes_own_container_is_never_acted_upon() {
    let command = |c: &str| c.split(' ').map(Text::from).collect::<Vec<_>>();
    let dind = Container {
        privileged: true,
        command: command("/usr/local/bin/dockerd-entrypoint.sh --tls=false"),
        ..container("dind", None)
    };
    let guards = Guards::default();
    refused(&guards, &dind, &[], &[], "runs containers itself");
    // an image can call itself anything; privileges are its operator's to give
    let pretends = Container {
        privileged: false,
        ..dind.clone()
    };
    refused(&guards, &pretends, &[], &[], "");
    let holder = Container {
        mounts: vec!["/var/run/docker.sock".into()],
        ..container("portal", None)
    };
    refused(&guards, &holder, &[], &[], "runtime's socket");
    let renamed = MountPoint {
        source: "/run/docker.sock".into(),
        destination: "/harmless".into(),
        mode: String::new(),
        writable: true,
        propagation: String::new(),
    };
    let renamed = Container {
        mount_points: Some(vec![renamed]),
        ..container("portal", None)
    };
    refused(&guards, &renamed, &[], &[], "runtime's socket");
    let text = "version: 1\nguards: {act_on_socket_holders: true}\n";
    let guards = Policy::parse(text).unwrap().guards;
    refused(&guards, &holder, &[], &[], "");
    refused(&guards, &dind, &[], &[], "runs containers itself");
}

#[test]
fn maintenance_windows_reach_over_midnight_and_yield_to_a_person() {
    let text = "version: 1\nmaintenance:\n  - {days: [thu], from: \"23:00\", to: \"01:00\"}\n";
    let guards = Policy::parse(text).unwrap().guards;
    let c = container("x", None);
    let asking = Asking {
        plan: "P",
        container: &c,
    };
    let refuse = |minute: i64, approved| {
        let now = WallNs(minute * 60_000_000_000);
        guards.refuse(
            asking,
            StepKind::Isolate,
            approved,
            Surroundings::default(),
            now,
        )
    };
    // 1970-01-01 was a Thursday
    assert_eq!(refuse(22 * 60, false), None);
    assert!(refuse(23 * 60 + 30, false).is_some());
    assert!(refuse(24 * 60 + 59, false).is_some());
    assert_eq!(refuse(25 * 60, false), None);
    assert_eq!(refuse(23 * 60 + 30, true), None);
}

#[test]
fn every_step_has_its_place_in_the_language() {
    for kind in StepKind::ALL {
        let step = match kind {
            StepKind::BlockAddress => "{block-address: {address: 192.0.2.1}}".to_owned(),
            kind => kind.as_str().to_owned(),
        };
        let text = format!(
            "version: 1\npolicies:\n  - name: a\n    match: {{risk: high}}\n    steps: [{step}]\n"
        );
        let policy = Policy::parse(&text).unwrap();
        let steps = &policy.entries[0].steps;
        assert_eq!(
            steps.len(),
            1 + usize::from(kind.class() == StepClass::Destroy)
        );
        assert!(steps.iter().all(|s| !s.effect.is_empty()));
    }
}

#[test]
fn what_is_not_known_of_a_container_is_a_doubt_only_where_it_decides() {
    let policy = |select: &str| {
        let text = format!(
            "version: 1\nguards: {{protected: {{labels: {{tier: core}}}}}}\npolicies:\n  - name: first\n    match: {{{select}}}\n    steps: [snapshot]\n  - name: rest\n    steps: [snapshot]\n"
        );
        Policy::parse(&text).unwrap()
    };
    let alert = Alert {
        instance: Some(container("x", None).instance),
        fields: vec![("k8s.ns.name".into(), "shop".into())],
        ..alert("Fileless program")
    };
    let whole = container("x", None);
    let open = Container {
        awaited: true,
        ..container("x", None)
    };
    let stands_in = Container {
        unknown_because: "the image's digest: nobody tells it".into(),
        ..container("x", None)
    };
    let says = |select: &str, c: Option<&Container>| {
        let policy = policy(select);
        let choice = choose(&policy, &alert, c);
        let entry = choice.entry.unwrap().0.name.clone();
        (entry, choice.doubt.is_some(), choice.awaited)
    };
    let rest = |doubt, awaited| ("rest".to_owned(), doubt, awaited);
    let first = ("first".to_owned(), false, false);
    for select in ["service: web", "labels: {team: pay}"] {
        assert_eq!(says(select, Some(&whole)), rest(false, false), "{select}");
        assert_eq!(says(select, Some(&open)), rest(true, true), "{select}");
        assert_eq!(
            says(select, Some(&stands_in)),
            rest(true, false),
            "{select}"
        );
        assert_eq!(says(select, None), rest(true, true), "{select}");
    }
    // what is known stays so, but for the name that stands for an image
    for select in ["image: \"db/*\"", "labels: {env: test}", "namespace: pay"] {
        assert_eq!(says(select, Some(&open)), rest(false, false), "{select}");
    }
    assert_eq!(says("image: \"db/*\"", Some(&stands_in)), rest(true, false));
    // nor does it matter where the alert is another one anyway
    let another = "rule: [Other], labels: {team: pay}";
    assert_eq!(says(another, Some(&open)), rest(false, false));
    // what the alert was raised with counts where nothing else tells it
    assert_eq!(says("namespace: shop", Some(&open)), first);
    assert_eq!(says("namespace: shop", None), first);
    // an act waits for what would forbid it
    let acts = policy("labels: {env: \"prod*\"}");
    let mut acts = acts.clone();
    (acts.entries[0].dry_run, acts.entries[0].steps) = (false, {
        let text = "version: 1\npolicies: [{name: a, match: {rule: [x]}, steps: [isolate]}]\n";
        Policy::parse(text).unwrap().entries[0].steps.clone()
    });
    let awaited = |c: &Container| choose(&acts, &alert, Some(c)).awaited;
    assert!(awaited(&open) && !awaited(&whole));
    let plan_of = |c: &Container| {
        let knowing = Knowing {
            alert: &alert,
            record: None,
            container: Some(c),
            around: Surroundings::default(),
            reach: &[],
            at: Stamp::default(),
        };
        make(&acts, knowing).unwrap().reasons
    };
    assert_eq!(
        plan_of(&open).last().map(String::as_str),
        Some(
            "not all is known of the container (its runtime has not told it yet): a guard might hold it back"
        )
    );
    assert_eq!(plan_of(&whole), ["label env is production"]);
}
