//! What a busy container did, as a person can read it: like processes in one sentence, the telling
//! act named, and what raised an alert apart from the rest.

mod scene;

use plimsoll_api::Answer;
use plimsoll_ask::*;
use plimsoll_model::*;
use scene::*;

/// A supervisor that runs the same check three hundred times; a shell that came in by exec and ran
/// something of its own behind a crowd of ordinary reads.
fn busy() -> World {
    let mut world = World::new();
    world.agent("start", -4000.0);
    let web = container("web", 'a', -500.0, '1');
    world.container(&web, -499.9);
    let sh = process(10, -500.0, "/bin/sh", &["sh", "/loop"], Entry::Init);
    world.act(&web, -499.8, &sh, exec(&sh, Origin::Image));
    let end = |code| EventKind::Exit { code, signal: 0 };
    for n in 0..300 {
        let at = -499.0 + f64::from(n);
        let cat = process(100 + n, at, "/bin/cat", &["cat", "/health"], Entry::Init);
        let line = [cat.clone(), sh.clone()];
        world.event(&web, at, &line, exec(&cat, Origin::Image));
        if n == 0 {
            world.event(&web, at + 0.1, &line, file(FileOp::Read, "/health", 0));
        }
        // two of them found something
        let code = if n % 150 == 7 { 1 } else { 0 };
        world.event(&web, at + 0.2, &line, end(code));
    }
    let tool = process(900, 2.0, "/usr/bin/tool", &["tool"], Entry::ExecSession);
    world.act(&web, 2.0, &tool, exec(&tool, Origin::Image));
    for n in 0..40 {
        let path = format!("/usr/share/tool/{n}");
        world.act(
            &web,
            2.1 + f64::from(n) / 100.0,
            &tool,
            file(FileOp::Read, &path, 0),
        );
        let nr = 200 + n as u32;
        let call = EventKind::Syscall { nr, compat: false };
        world.act(&web, 2.1 + f64::from(n) / 100.0, &tool, call);
    }
    world.act(&web, 3.0, &tool, connect([198, 51, 100, 7], 443));
    world
}

fn saying<'a>(answer: &'a Answer, what: &str) -> Vec<&'a str> {
    let all = answer.statements.iter().map(|s| s.text.as_str());
    all.filter(|text| text.contains(what)).collect()
}

#[test]
fn processes_that_did_alike_are_told_in_one_sentence_with_their_number() {
    let answer = one(&busy(), Question::Q2, "web");
    let health = saying(&answer, "cat /health");
    assert_eq!(health.len(), 2, "by how they ended: {health:#?}");
    assert!(
        health[0].starts_with("sh[10] › cat, uid 33, 298 times between "),
        "{}",
        health[0]
    );
    assert!(health[0].contains("; read /health; exited with 0."));
    assert!(health[1].contains(", 2 times between ") && health[1].ends_with("; exited with 1."));
}

#[test]
fn the_telling_act_is_named_behind_any_number_of_reads_and_calls() {
    let answer = one(&busy(), Question::Q2, "web");
    let [tool] = saying(&answer, "tool[900]")[..] else {
        panic!("{answer:#?}");
    };
    assert!(tool.contains("connected to tcp 198.51.100.7:443"), "{tool}");
    assert!(tool.contains("; 30 more; used 40 system calls ("), "{tool}");
}

fn drift(web: &Container, risk: Risk, object: &str, at_s: f64) -> Drift {
    Drift {
        behaviour: behaviour(BehaviourKind::File, "/usr/bin/tool", "read", object),
        class: DriftClass::NewFileRead,
        risk,
        reason: "it is new".into(),
        baseline: None,
        baseline_state: "none".into(),
        coverage_permille: 0,
        nearest: vec![],
        instance: web.instance.clone(),
        lineage: vec![].into(),
        observation: None,
        first: at(at_s),
        last: at(at_s),
        count: 1,
        techniques: vec![],
        quarantined: false,
    }
}

#[test]
fn the_gravest_of_many_changes_comes_first_and_the_rest_in_few_words() {
    let mut world = busy();
    let web = container("web", 'a', -500.0, '1');
    for n in 0..60 {
        let low = drift(&web, Risk::Low, &format!("/srv/{n}"), f64::from(n));
        world.put(at(f64::from(n)), Some(&web.instance), Record::Drift(low));
    }
    let grave = drift(&web, Risk::High, "/etc/shadow", 70.0);
    world.put(at(70.0), Some(&web.instance), Record::Drift(grave));

    let changed = one(&world, Question::Q4, "web");
    let new = saying(&changed, "New behaviour");
    assert!(new[0].contains("risk high") && new[0].contains("/etc/shadow"));
    assert_eq!(new.len(), 2, "{new:#?}");
    assert!(new[1].contains("/srv/0;") && new[1].ends_with("; 55 more."));

    let before = one(&world, Question::Q3, "web");
    assert!(before.statements[0].text.contains("/etc/shadow"));
    assert!(saying(&before, "/srv/").is_empty());
    assert_eq!(saying(&before, "60 other new behaviours").len(), 1);
}
