//! The seeds of the fuzz targets, and what is made of them by cutting and changing bytes, through
//! the same entry points as `cargo fuzz run` (see `fuzz/README.md`).

#[path = "../../../fuzz/entry.rs"]
mod entry;
#[path = "../../../fuzz/seeds.rs"]
mod seeds;

use seeds::run;

/// Changes of each seed.
const TIMES: usize = 60;

#[test]
fn rule_files() {
    run("rule_yaml", TIMES, entry::rule_yaml);
}

#[test]
fn conditions() {
    run("condition", TIMES, entry::condition);
}

#[test]
fn audit_events() {
    run("audit", TIMES, entry::audit);
}

#[test]
fn patterns() {
    run("patterns", TIMES, entry::patterns);
}
