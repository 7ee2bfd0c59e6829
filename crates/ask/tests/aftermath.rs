//! Where it went on, what was in use, how long it lasted and what was done: Q12, Q14, Q17, Q18. Each
//! with a scene that shows it, one that shows nothing, and one with a gap.

mod scene;

use plimsoll_ask::*;
use plimsoll_model::event::*;
use plimsoll_model::record::Decision;
use plimsoll_model::response::*;
use plimsoll_model::*;
use scene::*;

const ASKED: [Question; 4] = [Question::Q12, Question::Q14, Question::Q17, Question::Q18];

fn inet(ip: [u8; 4], port: u16) -> SockAddr {
    SockAddr::Inet(ip.into(), port)
}

fn accept(from: [u8; 4], to: ([u8; 4], u16)) -> EventKind {
    EventKind::Accept(Connection {
        proto: Proto::Tcp,
        peer: inet(from, 50123),
        local: Some(inet(to.0, to.1)),
        result: 0,
    })
}

fn drift_of(shown: &RecordId, c: &Container, s: f64, who: &Ancestor, class: DriftClass) -> Drift {
    Drift {
        behaviour: behaviour(BehaviourKind::Exec, "/bin/sh", "run", &who.exe.to_string()),
        class,
        risk: Risk::High,
        reason: "not of the image".into(),
        baseline: None,
        baseline_state: String::new(),
        coverage_permille: 0,
        nearest: vec![],
        instance: c.instance.clone(),
        lineage: vec![who.clone()].into(),
        observation: Some(shown.clone()),
        first: at(s),
        last: at(s),
        count: 1,
        techniques: vec![],
        quarantined: false,
    }
}

/// `web` (10.0.0.4) is entered over its port, runs what it was sent, and goes on to `db` (10.0.0.5),
/// where a shell runs.
fn spread(world: &mut World) -> (Container, Container, AlertId) {
    world.agent("start", -100.0);
    let mut web = container("web", 'a', 0.0, '1');
    web.addresses = vec!["10.0.0.4".into()];
    let mut db = container("db", 'd', 0.0, '2');
    db.addresses = vec!["10.0.0.5".into()];
    world.container(&web, 0.0);
    world.container(&db, 0.0);
    let nginx = process(11, 0.5, "/usr/sbin/nginx", &["nginx"], Entry::Init);
    let x = process(22, 10.0, "/tmp/x", &["/tmp/x"], Entry::Init);
    let redis = process(
        7,
        0.5,
        "/usr/bin/redis-server",
        &["redis-server"],
        Entry::Init,
    );
    let sh = process(40, 14.0, "/bin/sh", &["sh", "-i"], Entry::Init);
    let line = |a: &Ancestor, b: &Ancestor| vec![a.clone(), b.clone()];
    world.act(&web, 0.5, &nginx, exec(&nginx, Origin::Image));
    let path = "/usr/lib/libssl.so.3".into();
    world.act(
        &web,
        0.6,
        &nginx,
        EventKind::Library {
            path,
            origin: Origin::Image,
        },
    );
    world.act(
        &web,
        8.0,
        &nginx,
        accept([203, 0, 113, 9], ([10, 0, 0, 4], 80)),
    );
    let shown = world.event(&web, 10.0, &line(&x, &nginx), exec(&x, Origin::Upper));
    let drift = drift_of(&shown, &web, 10.0, &x, DriftClass::ProgramFromWritable);
    let alert = world.alert("A-1", &web, 10.0, drift);
    world.event(&web, 12.0, &line(&x, &nginx), connect([10, 0, 0, 5], 6379));
    world.event(&web, 12.5, &line(&x, &nginx), connect([10, 0, 9, 9], 22));
    world.act(
        &db,
        12.1,
        &redis,
        accept([10, 0, 0, 4], ([10, 0, 0, 5], 6379)),
    );
    let shown = world.event(&db, 14.0, &line(&sh, &redis), exec(&sh, Origin::Image));
    let drift = drift_of(&shown, &db, 14.0, &sh, DriftClass::ShellUnderServer);
    world.put(at(14.0), Some(&db.instance), Record::Drift(drift));
    (web, db, alert)
}

/// Plan, approval, capture, kill and removal of `web`; the capture is sealed first, or not at all.
fn answered(world: &mut World, web: &Container, alert: &AlertId, captured: bool) {
    let step = |kind: StepKind| Step {
        kind,
        parameters: vec![],
        approvals: 0,
        timeout_ms: 1000,
        on_failure: OnFailure::Continue,
        effect: String::new(),
    };
    let kinds = [StepKind::Capture, StepKind::Remove];
    let plan = Plan {
        id: "P-1".into(),
        alert: alert.clone(),
        alert_record: None,
        at: at(20.0),
        instance: Some(web.instance.clone()),
        container: "web".into(),
        policy: "dropped programs".into(),
        policy_digest: String::new(),
        dry_run: false,
        reasons: vec!["risk is high".into()],
        steps: kinds.into_iter().map(step).collect(),
        blast_radius: vec![],
        held: vec![],
        approval_ms: 1000,
        two_person: false,
        service: None,
        pid: None,
        pid_start: None,
    };
    let delivery = Delivery {
        at: at(19.0),
        receiver: "pager".into(),
        message: "m".into(),
        alerts: vec![alert.clone()],
        count: 1,
        attempt: 1,
        result: DeliveryResult::Delivered,
        detail: String::new(),
        settled_below: 0,
    };
    world.put(at(19.0), None, Record::Delivery(delivery));
    world.put(at(20.0), Some(&web.instance), Record::Plan(plan));
    let sealed = captured.then(|| "capture-a.tar sha256:12".to_owned());
    let effect = "3 processes and what they had deleted".to_owned();
    let kept = match captured {
        true => StepOutcome::Done {
            effect,
            sealed,
            undo: vec![],
        },
        false => StepOutcome::Failed {
            why: "the disk is full".into(),
        },
    };
    let effect = "removed".to_owned();
    let removed = StepOutcome::Done {
        effect,
        sealed: None,
        undo: vec![],
    };
    for (n, s, kind, outcome) in [(0, 21.0, kinds[0], kept), (1, 30.0, kinds[1], removed)] {
        for (at_s, phase) in [(s, StepPhase::Began), (s + 1.0, StepPhase::Ended(outcome))] {
            let record = StepRecord {
                plan: "P-1".into(),
                step: n,
                kind,
                attempt: 1,
                at: at(at_s),
                phase,
            };
            world.put(at(at_s), Some(&web.instance), Record::Step(record));
        }
        if n == 0 {
            decide(
                world,
                25.0,
                if captured {
                    "plan.approve"
                } else {
                    "plan.waive_capture"
                },
                "P-1",
            );
        }
    }
    decide(world, 50.0, "evidence.bundle", "alert A-1");
    decide(world, 51.0, "evidence.read", "ask Q1 --alert A-1");
}

fn decide(world: &mut World, s: f64, action: &str, subject: &str) {
    let decision = Decision {
        at: at(s),
        action: action.into(),
        subject: subject.into(),
        reason: "on call".into(),
        uid: 1000,
        login_uid: 1000,
        method: "socket".into(),
    };
    world.put(at(s), None, Record::Decision(decision));
}

fn quiet() -> World {
    let mut world = World::new();
    world.agent("start", -100.0);
    world.container(&container("web", 'a', 0.0, '1'), 0.0);
    world.agent("config", 100.0);
    world
}

#[test]
fn the_aftermath_is_told_from_both_ends_and_with_its_response() {
    let mut world = World::new();
    let (mut web, _, alert) = spread(&mut world);
    answered(&mut world, &web, &alert, true);
    world.gone(&mut web, 31.0);
    let subject = Subject::Alert(alert);
    check(
        "aftermath.txt",
        &answers_to(&ASKED, &world, &NoBaselines, &subject, 100.0),
    );
}

#[test]
fn a_movement_needs_both_ends_and_something_new() {
    let mut world = World::new();
    spread(&mut world);
    let a = one(&world, Question::Q12, "web");
    assert!(says(&a, "inferred", &["Out:", "10.0.0.5:6379", "db"]));
    assert!(says(
        &a,
        "observed",
        &["In:", "redis-server[7]", "accepted from"]
    ));
    assert!(says(&a, "observed", &["New process at db", "sh[40]"]));
    assert!(says(&a, "inferred", &["Movement to db", "is likely"]));
    assert!(says(
        &a,
        "observed",
        &["10.0.9.9", "no container known here"]
    ));
    // seen from the other side
    let a = one(&world, Question::Q12, "db");
    assert!(says(&a, "inferred", &["Into it:", "web"]));
}

#[test]
fn one_end_alone_is_no_movement() {
    let mut world = World::new();
    spread(&mut world);
    // db's own records of the contact are not there
    world.records.retain(|(_, about, body)| {
        let of_db = about
            .as_ref()
            .is_some_and(|i| i.id.as_str().starts_with('d'));
        !(of_db
            && matches!(
                body,
                Body::Record(Record::Observation(_) | Record::Drift(_))
            ))
    });
    let a = one(&world, Question::Q12, "web");
    assert!(!says(&a, "inferred", &["is likely"]));
    assert!(says(
        &a,
        "unknown",
        &["At db", "no connection from this container is recorded"]
    ));
}

#[test]
fn an_address_belongs_to_who_had_it_at_that_time() {
    let mut world = World::new();
    let (_, mut db, _) = spread(&mut world);
    // another container has the address afterwards
    world.gone(&mut db, 40.0);
    let mut later = container("later", 'c', 41.0, '3');
    later.addresses = vec!["10.0.0.5".into()];
    world.container(&later, 41.0);
    let a = one(&world, Question::Q12, "web");
    assert!(says(&a, "inferred", &["Movement to db"]));
    assert!(!says(&a, "inferred", &["later"]));
}

#[test]
fn a_gap_at_the_other_end_weakens_the_answer() {
    let mut world = World::new();
    let (_, db, _) = spread(&mut world);
    world.gap(Some(&db), Stage::BulkRing, 11.0, 13.0, Some(2), "full");
    let a = one(&world, Question::Q12, "web");
    let limits = a.completeness.limits.join("\n");
    assert!(limits.contains("1 gap in what was seen of db"), "{limits}");
    assert_eq!(a.completeness.level, "partial");
}

#[test]
fn vulnerabilities_have_no_source_but_what_was_in_use_has() {
    let mut world = World::new();
    spread(&mut world);
    let a = one(&world, Question::Q14, "web");
    assert!(says(
        &a,
        "unknown",
        &["no source for known vulnerabilities"]
    ));
    assert!(says(
        &a,
        "unknown",
        &["no source for signatures and attestations"]
    ));
    assert!(says(
        &a,
        "observed",
        &["1 program of the image", "/usr/sbin/nginx"]
    ));
    assert!(says(
        &a,
        "observed",
        &["1 library file of the image", "libssl"]
    ));
    assert!(says(
        &a,
        "observed",
        &["did not come with the image", "/tmp/x"]
    ));
}

#[test]
fn access_begins_at_the_request_and_may_be_active_until_its_end_is_seen() {
    let mut world = World::new();
    let (mut web, _, _) = spread(&mut world);
    let a = one(&world, Question::Q17, "web");
    assert!(says(
        &a,
        "inferred",
        &["Start:", "203.0.113.9", "2 s before"]
    ));
    assert!(says(&a, "inferred", &["may be active still", "x[22]"]));
    let x = process(22, 10.0, "/tmp/x", &["/tmp/x"], Entry::Init);
    world.act(&web, 50.0, &x, EventKind::Exit { code: 0, signal: 0 });
    let a = one(&world, Question::Q17, "web");
    assert!(says(&a, "inferred", &["all 1 process", "have ended"]));
    world.gone(&mut web, 60.0);
    let a = one(&world, Question::Q17, "web");
    assert!(says(
        &a,
        "observed",
        &["not active in this container", "gone"]
    ));
}

#[test]
fn access_through_a_session_begins_with_who_entered() {
    let mut world = quiet();
    let web = container("web", 'a', 0.0, '1');
    let sh = process(50, 5.0, "/bin/sh", &["sh"], Entry::ExecSession);
    let mut enter = exec(&sh, Origin::Image);
    if let EventKind::Exec(e) = &mut enter {
        e.first = false;
    }
    let shown = world.act(&web, 5.0, &sh, enter);
    let entry = world.records.len() - 1;
    if let Body::Record(Record::Observation(o)) = &mut world.records[entry].2 {
        o.event.process.entry = Entry::ExecSession;
    }
    world.put(
        at(6.0),
        Some(&web.instance),
        Record::Drift(drift_of(
            &shown,
            &web,
            6.0,
            &sh,
            DriftClass::InteractiveEntry,
        )),
    );
    let a = one(&world, Question::Q17, "web");
    assert!(says(&a, "observed", &["Start: somebody entered", "sh[50]"]));
}

#[test]
fn a_response_in_order_and_one_out_of_order() {
    let mut world = World::new();
    let (mut web, _, alert) = spread(&mut world);
    answered(&mut world, &web, &alert, true);
    world.gone(&mut web, 31.0);
    let a = one(&world, Question::Q18, "web");
    assert!(says(&a, "observed", &["Told: pager"]));
    assert!(says(&a, "observed", &["Captured:", "capture-a.tar"]));
    assert!(says(
        &a,
        "observed",
        &["In order: remove", "after the first capture"]
    ));
    assert!(says(
        &a,
        "observed",
        &["evidence.bundle", "uid 1000", "on call"]
    ));
    assert!(says(&a, "observed", &["read by uid 1000"]));
    assert!(!says(&a, "observed", &["Destroyed before"]));

    let mut world = World::new();
    let (mut web, _, alert) = spread(&mut world);
    answered(&mut world, &web, &alert, false);
    world.gone(&mut web, 31.0);
    let a = one(&world, Question::Q18, "web");
    assert!(says(&a, "observed", &["failed: the disk is full"]));
    assert!(says(
        &a,
        "observed",
        &["Destroyed before it was captured", "uid 1000 had waived"]
    ));
    assert!(says(&a, "observed", &["Lost: the container was gone"]));
    assert!(!says(&a, "observed", &["no step of a plan ended it"]));
}

#[test]
fn a_container_that_ended_by_itself_uncaptured_is_a_loss_and_said() {
    let mut world = World::new();
    let (mut web, _, _) = spread(&mut world);
    world.gone(&mut web, 31.0);
    let a = one(&world, Question::Q18, "web");
    assert!(says(
        &a,
        "observed",
        &["Lost:", "no step of a plan ended it"]
    ));
    assert!(says(
        &a,
        "unknown",
        &["That anybody was told is not recorded"]
    ));
}

#[test]
fn a_step_that_began_and_has_no_end_is_said() {
    let mut world = World::new();
    let (web, _, alert) = spread(&mut world);
    answered(&mut world, &web, &alert, true);
    world.records.retain(|(stamp, ..)| *stamp != at(31.0));
    let a = one(&world, Question::Q18, "web");
    assert!(says(
        &a,
        "observed",
        &["step 2 (remove, destroy)", "no end is recorded"]
    ));
}

#[test]
fn of_a_quiet_container_nothing_is_claimed() {
    let world = quiet();
    for question in ASKED {
        let a = one(&world, question, "web");
        assert!(
            a.statements.iter().any(|s| s.status.as_str() == "unknown"),
            "{question}"
        );
        let claimed = a
            .statements
            .iter()
            .filter(|s| s.status.as_str() == "observed");
        for s in claimed {
            assert!(
                s.text.contains("image to look up"),
                "{question}: {}",
                s.text
            );
        }
    }
    let a = one(&world, Question::Q17, "web");
    assert!(says(&a, "unknown", &["no access to date", "not proof"]));
}

#[test]
fn a_gap_stands_beside_each_answer() {
    let mut world = World::new();
    let (web, _, alert) = spread(&mut world);
    answered(&mut world, &web, &alert, true);
    world.gap(Some(&web), Stage::AlertRing, 7.0, 9.0, Some(3), "quota");
    for question in ASKED {
        let a = one(&world, question, "web");
        assert_eq!(a.completeness.level, "partial", "{question}");
        assert_eq!(a.completeness.lost_at_least, 3, "{question}");
    }
}
