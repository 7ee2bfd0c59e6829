//! With a running agent every way to the evidence leaves a record: who, what, why. And what the lake was
//! made of is one, too.

use crate::{Agent, alone, command, docker_socket};
use plimsoll_evidence::{Filter, Journal, Options, Reader};
use plimsoll_model::record::LakeSealed;
use plimsoll_model::{
    BootNs, ClockAnchor, Container, ContainerId, ContainerState, Instance, Record, RecordKind,
    Runtime, Stamp, WallNs,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// One span of the lake.
const SPAN: u64 = 65_536;

/// A journal of an earlier life: a container and clock anchors, more than one span of them.
fn earlier_life(dir: &Path) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let options = Options::new("node-custody");
    let (mut journal, _) = Journal::open(dir.join("data/journal"), options).unwrap();
    let wall = WallNs(1_763_600_000_000_000_000);
    let at = |n: u64| Stamp {
        boot: BootNs(n + 1),
        wall: WallNs(wall.0 + n.cast_signed() * 1000),
        ..Stamp::default()
    };
    let instance = Instance {
        id: ContainerId::parse("cafe").unwrap(),
        start: BootNs(1),
    };
    let mut shop = Container::new(instance.clone(), Runtime::Docker, at(0));
    (shop.name, shop.state) = ("custody-shop".into(), ContainerState::Gone);
    shop.gone = Some(at(SPAN));
    let stored = plimsoll_agent::ledger::stored;
    let record = Record::Container(shop);
    journal
        .append(stored(&record, at(0), Some(&instance)))
        .unwrap();
    for n in 1..SPAN + 5 {
        let anchor = ClockAnchor {
            boot: at(n).boot,
            wall: at(n).wall,
            uncertainty_ns: 1,
            step_ns: 0,
        };
        journal
            .append(stored(&Record::Clock(anchor), at(n), None))
            .unwrap();
    }
    journal.close().unwrap();
}

/// Runs a command, giving a reason.
fn run(agent: &Agent, args: &[&str], reason: &str) -> Vec<u8> {
    let out = command(agent.dir.path())
        .args(args)
        .env("PLIMSOLL_REASON", reason)
        .output()
        .expect("run plimsoll");
    let complaint = String::from_utf8_lossy(&out.stderr);
    assert_ne!(out.status.code(), Some(2), "{args:?}: {complaint}");
    assert!(!complaint.contains("not recorded"), "{args:?}: {complaint}");
    out.stdout
}

fn seals(agent: &Agent) -> Vec<LakeSealed> {
    let reader = Reader::open(agent.dir.path().join("data/journal")).unwrap();
    let of_seals = Filter {
        kinds: vec![RecordKind::LakeSealed as u16],
        ..Filter::default()
    };
    let entries = reader.scan(of_seals).unwrap().map(Result::unwrap);
    let records = entries.map(|e| Record::decode(e.header.kind, e.payload.bytes().unwrap()));
    records
        .map(|r| match r.unwrap() {
            Record::LakeSealed(sealed) => sealed,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn whoever_reads_asks_exports_or_holds_is_in_the_log_with_what_and_why() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let dir = tempfile::tempdir().unwrap();
    earlier_life(dir.path());
    std::fs::write(
        dir.path().join("config.yaml"),
        "version: 1\nnode: node-custody\n",
    )
    .unwrap();
    let agent = Agent::start_in(dir, docker);
    let path = |name: &str| agent.dir.path().join(name).display().to_string();
    let shop = ["--container", "custody-shop"];
    let with = |args: &[&'static str]| [args, &shop[..]].concat();
    let csv = path("rows.csv");
    let (tar, jsonl, elsewhere) = (path("case.tar"), path("case.jsonl"), path("elsewhere"));
    let sql = "select count(*) from containers";

    // command, the action that its record names, and what the record says of it
    let acts: Vec<(Vec<&str>, &str, &str)> = vec![
        (vec!["alerts"], "evidence.read", "alerts"),
        (vec!["gaps"], "evidence.read", "gaps"),
        (vec!["drift"], "evidence.read", "drift"),
        (
            with(&["events"]),
            "evidence.read",
            "events --container custody-shop",
        ),
        (
            with(&["ask", "Q1"]),
            "evidence.read",
            "ask Q1 --container custody-shop",
        ),
        (with(&["ask", "Q16"]), "evidence.read", "ask Q16"),
        (vec!["query", sql], "evidence.query", sql),
        (
            vec!["query", sql, "--output", "csv", "--file", &csv],
            "evidence.export",
            "rows.csv",
        ),
        (vec!["lake", "check"], "evidence.read", "lake check"),
        (
            vec!["evidence", "verify"],
            "evidence.verify",
            "evidence verify",
        ),
        (vec!["replay"], "evidence.replay", "replay"),
        (
            [
                &with(&["evidence", "bundle"])[..],
                &["-o", &tar, "--reason", "why bundle"],
            ]
            .concat(),
            "evidence.bundle",
            "custody-shop",
        ),
        (
            [
                &with(&["evidence", "export"])[..],
                &["-o", &jsonl, "--reason", "why export"],
            ]
            .concat(),
            "evidence.export",
            "custody-shop",
        ),
        (
            [
                &with(&["evidence", "hold"])[..],
                &["--name", "case-7", "--reason", "why hold"],
            ]
            .concat(),
            "evidence.hold",
            "case-7",
        ),
        (
            vec!["evidence", "release", "case-7", "--reason", "why release"],
            "evidence.release",
            "case-7",
        ),
    ];
    for (n, (args, ..)) in acts.iter().enumerate() {
        run(&agent, args, &format!("reason {n}"));
    }
    run(
        &agent,
        &["evidence", "anchor", "--to", &elsewhere],
        "kept elsewhere",
    );

    // read the way anybody would, which is in the log the next time
    let rows = |sql: &str| -> Vec<Value> {
        let shown = run(&agent, &["--json", "query", sql], "who was it");
        let shown = String::from_utf8(shown).unwrap();
        shown
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    };
    let columns =
        "select action, subject, reason, uid, login_uid, method from access order by leaf";
    let log = rows(columns);
    let login: u32 = std::fs::read_to_string("/proc/self/loginuid")
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(u32::MAX);
    for (n, (args, action, what)) in acts.iter().enumerate() {
        let given = args
            .iter()
            .find_map(|a| a.strip_prefix("why "))
            .map(|w| format!("why {w}"));
        let why = given.unwrap_or_else(|| format!("reason {n}"));
        let row = log.iter().find(|r| {
            let says = |key: &str, text: &str| r[key].as_str().is_some_and(|t| t.contains(text));
            r["action"] == *action && says("subject", what) && r["reason"] == why.as_str()
        });
        let row = row.unwrap_or_else(|| panic!("{args:?} as {action} because {why:?}: {log:#?}"));
        assert_eq!(
            (&row["uid"], &row["method"]),
            (&0.into(), &"socket".into()),
            "{row}"
        );
        match login {
            u32::MAX => assert!(
                row["login_uid"].is_null() || row["login_uid"] == u32::MAX,
                "{row}"
            ),
            uid => assert_eq!(row["login_uid"], uid, "{row}"),
        }
    }
    let again = rows(columns);
    assert!(
        again.iter().any(|r| r["reason"] == "who was it"),
        "reading the log is in it, too"
    );

    // the lake's first span is a record with the digests of its files, once
    let mut sealed = seals(&agent);
    // a busy machine may have filled pieces of the next span since
    sealed.retain(|s| s.first < SPAN);
    assert_eq!(sealed.len(), 1, "{sealed:?}");
    assert_eq!((sealed[0].first, sealed[0].end), (0, SPAN));
    assert!(
        sealed[0].files.len() >= 2,
        "the seal and a table: {sealed:?}"
    );
    for file in &sealed[0].files {
        let bytes = std::fs::read(agent.dir.path().join("data/lake").join(&file.name)).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.name);
        assert_eq!(file.sha256[..], Sha256::digest(&bytes)[..], "{}", file.name);
    }
    // and none of this hurt the store
    let whole = run(&agent, &["--json", "evidence", "verify"], "");
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["whole"], true, "{whole}");
}
