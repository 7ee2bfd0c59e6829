//! A statement changes nothing and keeps to its time and memory.

mod common;

use common::*;
use plimsoll_lake::{Lake, LakeError, SPAN_LEAVES};
use std::path::Path;
use std::time::Duration;

fn refused(dir: &Path, sql: &str) -> LakeError {
    let journal = Memory::new(3, [(1, gap(1, None))]);
    match try_ask(&Lake::none(), &journal, sql, &limits(dir)) {
        Ok(rows) => panic!("{sql}: {rows:?}"),
        Err(e) => e,
    }
}

#[test]
fn statements_that_would_write_or_configure_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let to = target.display();
    for sql in [
        "create table t as select * from gaps".to_owned(),
        "create view v as select * from gaps".to_owned(),
        "create external table t stored as parquet location '/etc'".to_owned(),
        "create schema s".to_owned(),
        "drop table gaps".to_owned(),
        "insert into gaps select * from gaps".to_owned(),
        "delete from gaps".to_owned(),
        "update gaps set stage = 'x'".to_owned(),
        format!("copy gaps to '{to}' stored as parquet"),
        format!("copy (select 1) to '{to}.csv' stored as csv"),
        "set datafusion.execution.batch_size = 1".to_owned(),
        "prepare p as select 1".to_owned(),
        "begin".to_owned(),
        "explain analyze insert into gaps select * from gaps".to_owned(),
    ] {
        let e = refused(dir.path(), &sql);
        assert!(matches!(e, LakeError::Refused { .. }), "{sql}: {e:?}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "something was written"
    );
}

#[test]
fn files_outside_the_lake_cannot_be_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret.csv"), "a\n1\n").unwrap();
    for name in [
        format!("'{}/secret.csv'", dir.path().display()),
        format!("\"{}/secret.csv\"", dir.path().display()),
        "'file:///etc/passwd'".to_owned(),
    ] {
        refused(dir.path(), &format!("select * from {name}"));
    }
}

#[test]
fn wrong_statements_are_errors_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let say = |sql: &str| refused(dir.path(), sql).to_string();
    assert!(say("select nothing from gaps").contains("nothing"));
    assert!(say("select * from gap").contains("gap"));
    refused(dir.path(), "select 1; select 2");
    refused(dir.path(), "");
    let long = format!("select '{}'", "x".repeat(plimsoll_lake::SQL_BYTES_MAX));
    assert!(matches!(
        refused(dir.path(), &long),
        LakeError::Refused { .. }
    ));
}

#[test]
fn more_memory_than_allowed_is_an_error() {
    let records = (0..60_000).map(|n| (n, observed("aaaa", n, file(format!("/data/file-{n}")))));
    let journal = Memory::new(SPAN_LEAVES, records);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let mut small = limits(dir.path());
    small.memory_bytes = 2 << 20;
    small.spill_bytes = 0;
    let sql = "select path, count(*) as n from files group by path order by n, path";
    let error = try_ask(&lake, &journal, sql, &small).expect_err("60,000 groups in 2 MiB");
    assert!(matches!(error, LakeError::Memory { .. }), "{error:?}");
    // the tail counts as well
    let error = try_ask(
        &Lake::none(),
        &journal,
        "select count(path) from files",
        &small,
    );
    assert!(matches!(error, Err(LakeError::Memory { .. })), "{error:?}");
    // with disk to spill to, and enough memory to merge from it, the same statement ends well
    let mut spilling = limits(dir.path());
    spilling.memory_bytes = 16 << 20;
    let (rows, _) = try_ask(&lake, &journal, sql, &spilling).unwrap();
    assert_eq!(rows.len(), 60_000);
}

#[test]
fn a_statement_that_does_not_end_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Memory::new(3, []);
    let mut short = limits(dir.path());
    short.time = Duration::from_millis(300);
    let sql = "select count(*) from generate_series(1, 10000000) a, generate_series(1, 10000000) b
               where a.value % 7 = b.value % 11";
    let error = try_ask(&Lake::none(), &journal, sql, &short).expect_err("10^14 rows");
    assert!(matches!(error, LakeError::Time { .. }), "{error:?}");
}

#[test]
fn a_statement_that_keeps_every_thread_busy_is_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let records = (0..9_000).map(|n| (n, observed("aaaa", n, file(format!("/data/file-{n}")))));
    let journal = Memory::new(SPAN_LEAVES, records);
    let lake = built(dir.path(), &journal);
    let mut short = limits(dir.path());
    short.time = Duration::from_millis(500);
    short.threads = 2;
    let sql = "select count(*) from files a, files b, files c, files d
               where a.path < b.path and b.path < c.path and c.path < d.path";
    let error = try_ask(&lake, &journal, sql, &short).expect_err("10^15 pairs");
    assert!(matches!(error, LakeError::Time { .. }), "{error:?}");
}

#[test]
fn what_the_engine_does_not_count_is_memory_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = limits(dir.path());
    small.memory_bytes = 16 << 20;
    let sql = "select length(repeat(substr(stage, 1, 1), 1200000000)) from gaps";
    let journal = Memory::new(3, [(1, gap(1, None))]);
    let error = try_ask(&Lake::none(), &journal, sql, &small).expect_err("more than a gigabyte");
    assert!(matches!(error, LakeError::Memory { .. }), "{error:?}");
}
