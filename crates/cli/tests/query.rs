//! `plimsoll query` and `plimsoll lake` on prepared data directories, without root or agent.

#[path = "../../ask/tests/scene/mod.rs"]
mod scene;

use plimsoll_agent::ledger::stored;
use plimsoll_ask::Body;
use plimsoll_evidence::{Journal, Options};
use plimsoll_model::event::*;
use plimsoll_model::*;
use scene::*;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// What a container would like a terminal to do.
const HOSTILE: &[u8] = b"/tmp/\x1b]0;owned\x07\x9b2J\xe2\x80\xae,\"=x\n\xff";

fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear();
    command.args(["--data-dir".as_ref(), data.as_os_str()]);
    command.args(["--socket".as_ref(), data.join("agent.sock").as_os_str()]);
    command.arg("--config").arg(data.join("config.yaml"));
    std::fs::write(data.join("config.yaml"), "version: 1\n").unwrap();
    command.args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn objects(data: &Path, args: &[&str]) -> Vec<Value> {
    let all = [&["--json", "query"], args].concat();
    let shown = text(&run(data, &all));
    shown
        .lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect()
}

fn read(path: &[u8]) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Read,
        path: path.into(),
        target: Text::default(),
        origin: Origin::Image,
        flags: 0,
        result: 0,
    })
}

/// A container that reads two files, and clock anchors up to `records`.
fn store(records: usize) -> tempfile::TempDir {
    let mut world = World::new();
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    let p = process(10, 0.0, "/usr/sbin/nginx", &["nginx"], Entry::Init);
    world.act(&web, 1.0, &p, read(b"/etc/passwd"));
    world.act(&web, 2.0, &p, read(HOSTILE));
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new("node1");
    options.emergency_bytes = 12 << 10;
    let (mut journal, _) = Journal::open(dir.path().join("journal"), options).unwrap();
    for (at, about, body) in &world.records {
        let Body::Record(record) = body else { continue };
        journal.append(stored(record, *at, about.as_ref())).unwrap();
    }
    for n in world.records.len()..records {
        let now = at(3.0 + n as f64);
        let anchor = ClockAnchor {
            boot: now.boot,
            wall: now.wall,
            uncertainty_ns: 1,
            step_ns: 0,
        };
        journal
            .append(stored(&Record::Clock(anchor), now, None))
            .unwrap();
    }
    journal.close().unwrap();
    dir
}

#[test]
fn rows_of_a_journal_as_objects() {
    let dir = store(3);
    let sql = "select leaf, origin, container_name, program, path from files order by leaf";
    let rows = objects(dir.path(), &[sql]);
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[0],
        serde_json::json!({
            "leaf": 1, "origin": "node1", "container_name": "web",
            "program": "/usr/sbin/nginx", "path": "/etc/passwd",
        })
    );
    let behaviours = objects(
        dir.path(),
        &["select kind, object, source from behaviours order by leaf"],
    );
    assert_eq!(
        behaviours[0],
        serde_json::json!({"kind": "file", "object": "/etc/passwd", "source": "observed"})
    );
}

#[test]
fn what_a_container_wrote_never_acts_on_a_terminal() {
    let dir = store(3);
    let acts = |s: &str| {
        s.chars()
            .any(|c| (c.is_control() && c != '\n') || matches!(c as u32, 0x202a..=0x202e))
    };
    let sql = "select path as \"\x1b[31mred\", path from files where leaf = 2";
    for format in ["table", "json", "csv"] {
        let shown = text(&run(dir.path(), &["query", "--output", format, sql]));
        assert!(!acts(&shown), "{format}: {shown:?}");
        assert_eq!(
            shown.lines().count(),
            if format == "json" { 1 } else { 2 },
            "{shown:?}"
        );
    }
    let row = &objects(dir.path(), &["select path from files where leaf = 2"])[0];
    assert_eq!(row["path"], String::from_utf8_lossy(HOSTILE).as_ref());
    // an error that repeats the statement is no way to the terminal either
    let wrong = run(dir.path(), &["query", "select \"\x1b[31m\" from files"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(!acts(&String::from_utf8_lossy(&wrong.stderr)));
}

#[test]
fn statements_that_write_are_wrong_usage() {
    let dir = store(3);
    let target = dir.path().join("out.parquet");
    let copy = format!("copy files to '{}'", target.display());
    for sql in [copy.as_str(), "drop table files", "set a = 1"] {
        let refused = run(dir.path(), &["query", sql]);
        assert_eq!(refused.status.code(), Some(2), "{sql}");
        let complaint = String::from_utf8_lossy(&refused.stderr);
        assert!(
            complaint.contains("only statements that read"),
            "{complaint}"
        );
    }
    assert!(!target.exists());
}

#[test]
fn results_become_new_files() {
    let dir = store(3);
    for format in ["csv", "json", "parquet", "table"] {
        let file = dir.path().join(format!("out.{format}"));
        let path = file.to_str().unwrap();
        let sql = "select leaf, path from files order by leaf";
        let args = ["query", "--output", format, "--file", path, sql];
        assert_eq!(text(&run(dir.path(), &args)), "");
        let written = std::fs::read(&file).unwrap();
        match format {
            "parquet" => assert!(written.starts_with(b"PAR1") && written.ends_with(b"PAR1")),
            _ => assert!(String::from_utf8(written).unwrap().contains("/etc/passwd")),
        }
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // one that is there is never written over
        assert_eq!(run(dir.path(), &args).status.code(), Some(1));
    }
    let without = run(dir.path(), &["query", "--output", "parquet", "select 1"]);
    assert_eq!(without.status.code(), Some(2));
}

#[test]
fn no_row_is_an_empty_table_with_headings_for_programs() {
    let dir = store(3);
    let sql = "select leaf, path from files where false";
    assert_eq!(
        text(&run(dir.path(), &["query", "--output", "csv", sql])),
        "leaf,path\n"
    );
    assert_eq!(text(&run(dir.path(), &["--json", "query", sql])), "");
}

#[test]
fn a_store_of_more_than_a_span_is_sealed_checked_and_repaired() {
    let dir = store(65_536 + 5);
    let sql = "select leaf, container_name, path from files order by leaf";
    let from_journal = objects(dir.path(), &["--no-lake", sql]);
    assert!(
        !dir.path().join("lake").exists(),
        "--no-lake writes nothing"
    );
    assert_eq!(objects(dir.path(), &[sql]), from_journal);
    let sealed = dir
        .path()
        .join("lake/files/00000000000000000000-00000000000000065536.parquet");
    let whole = std::fs::read(&sealed).unwrap();

    let fine = run(dir.path(), &["lake", "check"]);
    assert_eq!(
        fine.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&fine.stderr)
    );
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 0x10;
    std::fs::write(&sealed, &bad).unwrap();
    let found = run(dir.path(), &["lake", "check"]);
    assert_eq!(found.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&found.stderr).contains("differs from its seal"));
    assert_eq!(std::fs::read(&sealed).unwrap(), whole);

    // one that no reader understands is made again by the statement that meets it
    std::fs::write(&sealed, vec![0; whole.len()]).unwrap();
    assert_eq!(objects(dir.path(), &[sql]), from_journal);
    assert_eq!(std::fs::read(&sealed).unwrap(), whole);

    let again = run(dir.path(), &["--json", "lake", "rebuild"]);
    let summary: Value = serde_json::from_str(&text(&again)).unwrap();
    assert_eq!(summary["records"], 65_536);
    assert_eq!(std::fs::read(&sealed).unwrap(), whole);
}

#[test]
fn every_table_and_column_is_in_the_guide() {
    let guide = include_str!("../../../docs/guide/query.md");
    let (_, tables) = guide.split_once("## Tables").expect("a part about tables");
    for table in plimsoll_lake::Table::ALL {
        let heading = format!("**{}**", table.name());
        let (_, part) = tables
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{heading}"));
        let part = part.split("\n**").next().unwrap_or_default();
        for column in table.columns() {
            let named = format!("`{}`", column.name);
            let common = tables.split("**alerts**").next().unwrap_or_default();
            assert!(
                part.contains(&named) || common.contains(&named),
                "{heading} {named}"
            );
        }
    }
    let names: Vec<&str> = plimsoll_lake::Table::ALL.iter().map(|t| t.name()).collect();
    assert_eq!(
        names,
        plimsoll_api::storage::LAKE_TABLES,
        "what the agent takes digests of"
    );
}

#[test]
fn the_guides_queries_run() {
    assert_eq!(run_all(include_str!("../../../docs/guide/query.md")), 10);
}

#[test]
fn every_question_has_a_query_that_runs() {
    assert_eq!(
        run_all(include_str!("../../../docs/guide/questions.md")),
        18
    );
}

/// Runs the statements of a guide; how many there are.
fn run_all(guide: &str) -> usize {
    let dir = store(3);
    let code = guide
        .split("```sql")
        .nth(1)
        .and_then(|s| s.split("```").next())
        .expect("SQL");
    let mut queries = 0;
    for statement in code.split(';').filter(|s| !s.trim().is_empty()) {
        let done = run(dir.path(), &["query", statement]);
        assert!(
            done.status.success(),
            "{statement}\n{}",
            String::from_utf8_lossy(&done.stderr)
        );
        queries += 1;
    }
    queries
}
