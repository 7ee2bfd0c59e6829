//! A container that did more than one answer reads: what is rare, what raised alerts and what lies
//! around the moment that is asked about are told all the same, and the rest is counted.

mod scene;

use plimsoll_ask::*;
use plimsoll_model::*;
use scene::*;

const READS: usize = 6_000;

/// Thousands of reads; among them one shell whose program came in, wrote a file and raised an alert.
fn flooded() -> World {
    let mut world = World::new();
    world.agent("start", -4000.0);
    let web = container("web", 'a', -3900.0, '1');
    world.container(&web, -3899.0);
    let backup = process(10, -3900.0, "/usr/bin/backup", &["backup"], Entry::Init);
    let x = process(22, -2000.0, "/tmp/x", &["/tmp/x"], Entry::Init);
    let read = |world: &mut World, n: usize| {
        let path = format!("/srv/data/{n}");
        let s = -3800.0 + n as f64 / 2.0;
        world.act(&web, s, &backup, file(FileOp::Read, &path, 0));
    };
    (0..READS / 2).for_each(|n| read(&mut world, n));
    let s = -3800.0 + READS as f64 / 4.0;
    let shown = world.act(&web, s, &x, exec(&x, Origin::Upper));
    world.act(&web, s + 0.1, &x, file(FileOp::Create, "/etc/cron.d/x", 0));
    let drift = dropped(&web, "/tmp/x", vec![x.clone()].into(), shown, s);
    world.alert("A-1", &web, s, drift);
    (READS / 2..READS).for_each(|n| read(&mut world, n));
    world
}

fn answer(world: &World, question: Question, subject: Subject, read_max: usize) -> String {
    let asked = Ask {
        question,
        subject,
        around_ns: None,
        now: at(100.0).wall,
        read_max,
    };
    let answer = ask(world, &NoBaselines, &asked).unwrap();
    let said: Vec<String> = answer.statements.into_iter().map(|s| s.text).collect();
    format!("{}\n{:#?}", said.join("\n"), answer.completeness)
}

#[test]
fn what_is_rare_or_raised_an_alert_is_told_among_any_number_of_acts() {
    let world = flooded();
    let of = |question, most| answer(&world, question, Subject::Container("web".into()), most);
    let did = of(Question::Q2, 100);
    assert!(did.contains("[raised A-1]"), "{did}");
    assert!(did.contains("/etc/cron.d/x"), "{did}");
    assert!(did.contains("Of 6002 acts that this looks at"), "{did}");
    assert!(did.contains("were counted and not read"), "{did}");
    assert!(
        did.contains("observations: Some(\n            6002"),
        "{did}"
    );
    let files = of(Question::Q7, 100);
    assert!(files.contains("Created: /etc/cron.d/x"), "{files}");
    assert!(
        !files.contains("not read"),
        "two acts of that sort: {files}"
    );
    let access = of(Question::Q17, 100);
    assert!(
        access.contains("First sign: program from writable"),
        "{access}"
    );
    assert!(access.contains("x[22] created /etc/cron.d/x"), "{access}");
    assert!(
        access.contains("no end is among the acts that were read"),
        "{access}"
    );
}

#[test]
fn whoever_asks_for_all_gets_all() {
    let world = flooded();
    let all = answer(
        &world,
        Question::Q2,
        Subject::Container("web".into()),
        usize::MAX,
    );
    assert!(!all.contains("not read"), "{all}");
    assert!(all.contains("[raised A-1]"), "{all}");
}

#[test]
fn what_lies_around_the_alert_is_read() {
    let world = flooded();
    let alert = Subject::Alert(AlertId::parse("A-1").unwrap());
    let did = answer(&world, Question::Q2, alert, 100);
    let near = READS / 2;
    assert!(did.contains("[the alert's process]"), "{did}");
    assert!(
        did.contains(&format!("/srv/data/{}", near - 1)) || did.contains("more"),
        "{did}"
    );
}
