//! The command as people and scripts meet it: a prepared data directory, a process, its output.

#[path = "../../ask/tests/scene/mod.rs"]
mod scene;

use plimsoll_agent::ledger::stored;
use plimsoll_api::{Failure, FailureCode, Item, Reply, Request, protocol};
use plimsoll_ask::Body;
use plimsoll_evidence::{Journal, Options};
use plimsoll_model::event::*;
use plimsoll_model::*;
use scene::*;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `plimsoll` on this data directory, with nothing of the tester's environment.
fn plimsoll(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear();
    command.args(["--data-dir".as_ref(), data.as_os_str()]);
    command.args(["--socket".as_ref(), data.join("agent.sock").as_os_str()]);
    command.arg("--config").arg(data.join("config.yaml"));
    std::fs::write(data.join("config.yaml"), "version: 1\n").unwrap();
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    plimsoll(data).args(args).output().unwrap()
}

fn out(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn err(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

/// Writes a world into a journal as the agent does.
fn keep(world: &World) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path().join("journal"), Options::new("node1")).unwrap();
    let mut journal = journal;
    for (at, about, body) in &world.records {
        let Body::Record(record) = body else { continue };
        journal.append(stored(record, *at, about.as_ref())).unwrap();
    }
    journal.sync().unwrap();
    dir
}

/// A container whose process has escape sequences in everything it could choose.
fn hostile() -> (tempfile::TempDir, AlertId) {
    let mut world = World::new();
    world.agent("start", -60.0);
    let mut web = container("web", 'a', 0.0, '1');
    web.labels.insert("evil".into(), "\x1b[2J".into());
    world.container(&web, 0.0);
    let mut p = process(10, 0.0, "/usr/bin/tini", &["tini"], Entry::Init);
    p.argv.push(Text::new(
        b"\x1b]0;owned\x07\xff\xc2\x9b31m\xe2\x80\xae".to_vec(),
    ));
    let shown = world.event(&web, 1.0, &[p.clone()], exec(&p, Origin::Upper));
    world.event(
        &web,
        2.0,
        std::slice::from_ref(&p),
        file(FileOp::Create, "/tmp/\x1b[31mred\r\n", 0),
    );
    world.event(&web, 3.0, &[p.clone()], connect([10, 0, 0, 9], 443));
    let drift = Drift {
        behaviour: behaviour(
            BehaviourKind::Exec,
            "/usr/bin/tini",
            "run",
            "/tmp/\x1b[31mred",
        ),
        class: DriftClass::ProgramFromWritable,
        risk: Risk::Critical,
        reason: "came later \x1b[5m".into(),
        baseline: Some(reference()),
        baseline_state: "ready".into(),
        coverage_permille: 993,
        nearest: vec![],
        instance: web.instance.clone(),
        lineage: vec![p].into(),
        observation: Some(shown),
        first: at(1.0),
        last: at(1.0),
        count: 1,
        techniques: vec!["T1059".into()],
        quarantined: false,
    };
    let alert = world.alert("A-1", &web, 1.0, drift);
    world.gap(
        Some(&web),
        Stage::BulkRing,
        2.0,
        3.0,
        Some(5),
        "full \x1b[1m",
    );
    world.gone(&mut web, 9.0);
    (keep(&world), alert)
}

const READS: [&[&str]; 9] = [
    &["events"],
    &["events", "--container", "web", "--kind", "exec,file"],
    &["events", "--alert", "A-1"],
    &["alerts"],
    &["drift"],
    &["gaps"],
    &["containers", "--all"],
    &["ask", "all", "--alert", "A-1"],
    &["ask", "all", "--container", "web"],
];

#[test]
fn nothing_that_a_container_chose_reaches_the_terminal() {
    let (data, _) = hostile();
    for args in READS {
        for json in [false, true] {
            let mut all = args.to_vec();
            all.extend(json.then_some("--json"));
            let o = run(data.path(), &all);
            assert_eq!(o.status.code(), Some(0), "{all:?}: {}", err(&o));
            assert!(!o.stdout.is_empty(), "{all:?}");
            for stream in [out(&o), err(&o)] {
                let bad = stream.chars().find(|c| {
                    (c.is_control() && *c != '\n') || ('\u{200b}'..='\u{202e}').contains(c)
                });
                assert_eq!(bad, None, "{all:?}: {stream}");
            }
        }
    }
}

#[test]
fn json_is_one_object_a_line_with_the_documented_fields() {
    let (data, _) = hostile();
    let first = |args: &[&str]| -> serde_json::Value {
        let o = run(data.path(), &[args, &["--json"]].concat());
        let text = out(&o);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value.is_object(), "{line}");
        }
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let has = |value: &serde_json::Value, names: &[&str]| {
        for name in names {
            assert!(value.get(name).is_some(), "{name} in {value}");
        }
    };
    has(
        &first(&["containers", "--all"]),
        &[
            "container_id",
            "instance",
            "name",
            "image",
            "image_digest",
            "runtime",
            "pod",
            "namespace",
            "service",
            "node",
        ],
    );
    let drift = first(&["drift"]);
    has(
        &drift,
        &[
            "behaviour",
            "baseline",
            "nearest",
            "lineage",
            "risk",
            "count",
            "first",
            "last",
        ],
    );
    has(
        &drift["behaviour"],
        &["id", "kind", "program", "object", "operation"],
    );
    has(&drift["baseline"], &["id", "version", "state", "coverage"]);
    let alert = first(&["alerts"]);
    has(
        &alert,
        &[
            "time",
            "rule",
            "priority",
            "output",
            "output_fields",
            "source",
            "tags",
            "hostname",
            "uuid",
            "plimsoll",
        ],
    );
    has(
        &alert["plimsoll"],
        &["alert_id", "container", "baseline", "drift", "evidence"],
    );
    assert_eq!(alert["plimsoll"]["container"]["name"], "web");
    let answer = first(&["ask", "Q1", "--alert", "A-1"]);
    has(&answer, &["question", "statements", "completeness"]);
    has(&answer["statements"][0], &["text", "status", "evidence"]);
    assert!(
        answer["statements"][0]["evidence"][0]
            .as_str()
            .unwrap()
            .starts_with("node1@")
    );
    let event = first(&["events", "--kind", "exec"]);
    assert_eq!(event["detail"]["origin"], "upper");
    // hostile bytes: the string survives, invalid bytes are replaced
    assert_eq!(
        event["lineage"][0]["argv"][1],
        "\u{1b}]0;owned\u{7}\u{fffd}\u{9b}31m\u{202e}"
    );
    assert_eq!(first(&["gaps"])["count"], 5);
}

#[test]
fn filters_select() {
    let (data, _) = hostile();
    let lines = |args: &[&str]| {
        out(&run(data.path(), &[args, &["--json"]].concat()))
            .lines()
            .count()
    };
    assert_eq!(lines(&["events"]), 3);
    assert_eq!(lines(&["events", "--kind", "exec"]), 1);
    assert_eq!(lines(&["events", "--container", "aaaa"]), 3);
    assert_eq!(lines(&["events", "--limit", "2"]), 2);
    assert_eq!(lines(&["events", "--since", "2026-11-21T01:00:02Z"]), 2);
    assert_eq!(lines(&["events", "--until", "2026-11-21T01:00:01.5Z"]), 1);
    assert_eq!(lines(&["alerts", "--priority", "emergency"]), 0);
    assert_eq!(
        lines(&["alerts", "--priority", "crit", "--container", "web"]),
        1
    );
    assert_eq!(lines(&["drift", "--risk", "critical"]), 1);
    assert_eq!(lines(&["containers"]), 0);
}

#[test]
fn wrong_usage_is_2_and_a_missing_thing_is_1() {
    let (data, _) = hostile();
    let code = |args: &[&str]| run(data.path(), args).status.code();
    for wrong in [
        &["frobnicate"][..],
        &["ask", "Q99", "--alert", "A-1"],
        &["ask", "Q1"],
        &["ask", "Q1", "--alert", "../../etc/passwd"],
        &["ask", "Q1", "--container", "a\x1b[31m"],
        &["events", "--kind", "dance"],
        &["events", "--since", "yesterday"],
        &["events", "--since", "1h", "--until", "2h"],
        &["alerts", "--priority", "urgent"],
        &["baseline", "approve", "b1", "--reason", " "],
        &[
            "baseline",
            "approve",
            "b1",
            "--reason",
            "r",
            "--behaviour",
            "xyz",
        ],
    ] {
        assert_eq!(code(wrong), Some(2), "{wrong:?}");
    }
    for missing in [
        &["ask", "Q1", "--alert", "A-2"][..],
        &["events", "--container", "nobody"],
        &["baseline", "show", "nobody"],
        &["status"],
    ] {
        assert_eq!(code(missing), Some(1), "{missing:?}");
    }
    let o = run(data.path(), &["baseline", "lock", "b1", "--reason", "r"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(err(&o).contains("needs the running agent"), "{}", err(&o));
}

#[test]
fn a_malformed_configuration_is_2_and_named_with_its_line() {
    let (data, _) = hostile();
    let mut command = plimsoll(data.path());
    std::fs::write(
        data.path().join("config.yaml"),
        "version: 1\nnonsense: true\n",
    )
    .unwrap();
    let o = command.arg("alerts").output().unwrap();
    assert_eq!(o.status.code(), Some(2), "{}", err(&o));
    assert!(err(&o).contains("config.yaml:2:"), "{}", err(&o));
}

#[test]
fn no_journal_is_said_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let o = run(dir.path(), &["alerts"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(err(&o).contains("there is no journal"), "{}", err(&o));
    assert!(!dir.path().join("journal").exists());
}

#[test]
fn a_foreign_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    std::fs::write(dir.path().join("journal/journal.meta"), "not ours").unwrap();
    let o = run(dir.path(), &["alerts"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(err(&o).contains("journal"), "{}", err(&o));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("journal/journal.meta")).unwrap(),
        "not ours"
    );
}

#[test]
fn without_an_agent_one_line_says_how_old_the_answer_is() {
    let (data, _) = hostile();
    let o = run(data.path(), &["alerts"]);
    let said: Vec<String> = err(&o).lines().map(str::to_owned).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("agent not running") && said[0].contains("as of 2026-11-21 01:00:09"),
        "{said:?}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut world = World::new();
    world.agent("start", -60.0);
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    let p = process(10, 0.0, "/usr/bin/tini", &["tini"], Entry::Init);
    for n in 0..5000 {
        world.event(
            &web,
            f64::from(n) / 100.0,
            std::slice::from_ref(&p),
            file(FileOp::Read, &format!("/srv/{n}"), 0),
        );
    }
    let data = keep(&world);
    let mut child = plimsoll(data.path())
        .args(["events", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        !said.contains("error") && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn tables_have_no_colour_when_they_are_no_terminal() {
    let (data, _) = hostile();
    assert!(!out(&run(data.path(), &["alerts"])).contains('\x1b'));
}

#[test]
fn an_alert_that_was_counted_on_is_one_line_with_the_highest_count() {
    let mut world = World::new();
    world.agent("start", -60.0);
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    for (n, s) in [(1, 1.0), (40, 2.0)] {
        let alert = Alert {
            id: AlertId::parse("A-7").unwrap(),
            at: at(1.0),
            rule: "r".into(),
            priority: Priority::Warning,
            output: "again".into(),
            source: AlertSource::Rule("r".into()),
            instance: Some(web.instance.clone()),
            tags: vec![],
            fields: vec![],
            evidence: vec![],
            count: n,
            last: at(s),
            handed_boot: at(s).boot,
            prevented: false,
        };
        world.put(at(s), Some(&web.instance), Record::Alert(alert));
    }
    let data = keep(&world);
    let text = out(&run(data.path(), &["alerts", "--json"]));
    assert_eq!(text.lines().count(), 1);
    let alert: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(alert["plimsoll"]["count"], 40);
    // in the interval of the alert: from its first act to its last
    let answer = out(&run(
        data.path(),
        &["ask", "Q2", "--alert", "A-7", "--json"],
    ));
    assert!(answer.contains("40 such acts"), "{answer}");
}

/// An agent that answers every request with `answer`, until the test ends.
fn agent(data: &Path, answer: fn(&Request) -> Result<Vec<Item>, Failure>) {
    let listener = std::os::unix::net::UnixListener::bind(data.join("agent.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            while let Ok(Some(line)) = protocol::read_line(&mut stream, 1 << 20) {
                let reply = answer(&protocol::parse_request(&line).unwrap());
                let lines = match reply {
                    Err(failure) => vec![Reply::Error(failure)],
                    Ok(items) => {
                        let end = Reply::End {
                            items: items.len() as u64,
                            message: Some("done \x1b[31m".into()),
                        };
                        items
                            .into_iter()
                            .map(|item| Reply::Item { item })
                            .chain([end])
                            .collect()
                    }
                };
                lines
                    .iter()
                    .for_each(|l| protocol::write_reply(stream.get_mut(), l).unwrap());
            }
        }
    });
}

#[test]
fn a_running_agent_is_asked_for_live_state_and_for_decisions() {
    let (data, _) = hostile();
    agent(data.path(), |request| {
        Ok(match request {
            Request::Containers { .. } => {
                let mut live =
                    plimsoll_api::Container::new(&container("live", 'b', 5.0, '1'), "node1");
                live.role = "\x1b[31m".into();
                vec![Item::Container(live)]
            }
            Request::Baselines {} => vec![Item::Baseline(plimsoll_api::Baseline {
                id: "b1f0".into(),
                version: 3,
                role: "web".into(),
                ..Default::default()
            })],
            Request::BaselineLock { id, reason } if id == "b1f0" && reason == "final" => vec![],
            Request::BaselineUnlock { id, reason } if id == "b1f0" && reason == "again" => vec![],
            Request::BaselineRemove { behaviours, .. } if behaviours.len() == 1 => vec![],
            Request::BaselineReset { .. } => {
                return Err(Failure::new(FailureCode::Denied, "only root may reset"));
            }
            Request::Flush {} => vec![Item::Flushed { durable: 1 }],
            // that somebody has read is written down
            Request::Evidence { act, .. } => {
                assert_eq!(act.name(), "evidence.read");
                vec![Item::Document(String::new())]
            }
            other => panic!("{other:?}"),
        })
    });
    let o = run(data.path(), &["containers"]);
    assert!(
        out(&o).contains("live") && !out(&o).contains("web"),
        "{}",
        out(&o)
    );
    assert_eq!(err(&o), "");
    // those that only the journal knows, too
    assert!(out(&run(data.path(), &["containers", "--all"])).contains("web"));
    // the journal is current, so nothing is said about its age
    assert_eq!(err(&run(data.path(), &["alerts"])), "");
    let o = run(
        data.path(),
        &["baseline", "lock", "web", "--reason", "final"],
    );
    assert_eq!(
        (o.status.code(), out(&o).as_str()),
        (Some(0), "done \\x1b[31m\n"),
        "{}",
        err(&o)
    );
    let behaviour = "0123456789abcdef0123456789abcdef";
    for args in [
        &["baseline", "unlock", "web", "--reason", "again"][..],
        &[
            "baseline",
            "remove",
            "web",
            "--behaviour",
            behaviour,
            "--reason",
            "r",
        ],
    ] {
        let o = run(data.path(), args);
        assert_eq!(o.status.code(), Some(0), "{args:?}: {}", err(&o));
    }
    let o = run(data.path(), &["baseline", "remove", "web", "--reason", "r"]);
    assert_eq!(
        o.status.code(),
        Some(2),
        "a removal names what it takes out"
    );
    let o = run(data.path(), &["baseline", "reset", "web", "--reason", "r"]);
    assert_eq!(
        (o.status.code(), err(&o).as_str()),
        (Some(1), "error: only root may reset\n")
    );
}

#[test]
fn reader_and_writer_agree_on_how_records_are_filed() {
    use plimsoll_api::storage;
    let web = container("web", 'a', 0.0, '1');
    let mut world = World::new();
    world.agent("start", 0.0);
    world.container(&web, 0.0);
    world.gap(None, Stage::Queue, 0.0, 1.0, None, "");
    for (at, about, body) in &world.records {
        let Body::Record(record) = body else { continue };
        let entry = stored(record, *at, about.as_ref());
        let kind = RecordKind::from_u16(entry.kind).unwrap();
        assert_eq!(entry.class.number(), storage::retention_class(kind));
        assert_eq!(
            entry.container.map(|k| k.0),
            about.as_ref().map(storage::container_key)
        );
    }
}

#[test]
fn baselines_are_read_from_the_data_directory_when_no_agent_runs() {
    use plimsoll_baseline::{Baseline, Key, LearnConfig};
    let (data, _) = hostile();
    let web = container("web", 'a', 0.0, '1');
    let b = Baseline::new(
        Key::of(&web).unwrap(),
        &web,
        LearnConfig::default(),
        at(0.0),
    );
    std::fs::create_dir(data.path().join("baselines")).unwrap();
    std::fs::write(
        data.path()
            .join("baselines")
            .join(format!("{}.cbor", b.id())),
        b.encode(),
    )
    .unwrap();
    std::fs::write(
        data.path().join("baselines/broken.cbor"),
        "\x1b[31mnot a baseline",
    )
    .unwrap();
    let o = run(data.path(), &["baseline", "list", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&out(&o)).unwrap();
    for name in ["id", "version", "state", "coverage", "unmet"] {
        assert!(line.get(name).is_some(), "{name} in {line}");
    }
    assert_eq!(
        (line["state"].as_str(), line["role"].as_str()),
        (Some("learning"), Some("web"))
    );
    assert!(err(&o).contains("broken.cbor"), "{}", err(&o));
    for name in ["web", "shop/web:latest", &b.id().as_str()[..6], "aaaa"] {
        assert_eq!(
            run(data.path(), &["baseline", "show", name]).status.code(),
            Some(0),
            "{name}"
        );
    }
    assert_eq!(
        run(data.path(), &["baseline", "diff", "web", "web"])
            .status
            .code(),
        Some(0)
    );
    let document = out(&run(data.path(), &["baseline", "export", "web"]));
    assert!(document.contains("in-toto"), "{document}");
    let answer = out(&run(
        data.path(),
        &["ask", "Q5", "--container", "web", "--json"],
    ));
    assert!(answer.contains("of this very image digest"), "{answer}");
}

/// Not a timed test: prints what a million records cost. `cargo test --release -- --ignored million --nocapture`
#[test]
#[ignore = "a measurement, not a claim"]
fn million_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) =
        Journal::open(dir.path().join("journal"), Options::new("node1")).unwrap();
    let (small, _) = {
        let mut world = World::new();
        world.agent("start", -60.0);
        let web = container("web", 'a', 0.0, '1');
        world.container(&web, 0.0);
        (world, web)
    };
    for (at, about, body) in &small.records {
        if let Body::Record(r) = body {
            journal.append(stored(r, *at, about.as_ref())).unwrap();
        }
    }
    let p = process(10, 0.0, "/usr/bin/tini", &["tini"], Entry::Init);
    let others: Vec<Container> = ('b'..='f')
        .map(|c| container("other", c, 0.0, '2'))
        .collect();
    let web = container("web", 'a', 0.0, '1');
    for n in 0..1_000_000u32 {
        let mut one = World::new();
        let c = if n % 100 == 0 {
            &web
        } else {
            &others[n as usize % others.len()]
        };
        let kind = if n % 1000 == 0 {
            connect([10, 0, 0, 9], 443)
        } else {
            file(FileOp::Read, &format!("/srv/data/{n}"), 0)
        };
        one.event(c, f64::from(n) / 10_000.0, std::slice::from_ref(&p), kind);
        let (at, about, Body::Record(r)) = &one.records[0] else {
            continue;
        };
        journal.append(stored(r, *at, about.as_ref())).unwrap();
    }
    journal.sync().unwrap();
    drop(journal);
    for args in [
        &["ask", "Q2", "--container", "web"][..],
        &["ask", "Q8", "--container", "web"],
        &["ask", "Q13", "--container", "web"],
        &["ask", "all", "--container", "web"],
        &["events", "--kind", "connect"],
        &["alerts"],
    ] {
        let begun = std::time::Instant::now();
        let o = run(dir.path(), args);
        assert_eq!(o.status.code(), Some(0), "{}", err(&o));
        println!(
            "{:>8} ms  plimsoll {}",
            begun.elapsed().as_millis(),
            args.join(" ")
        );
    }
}
