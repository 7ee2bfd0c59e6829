//! The seeds of the fuzz targets, and what is made of them by cutting and changing bytes, through
//! the same entry points as `cargo fuzz run` (see `fuzz/README.md`).

#[path = "../../../fuzz/entry.rs"]
mod entry;

use std::path::PathBuf;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has seeds");
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

/// Each seed whole, cut, and with bytes changed; the same changes every time.
fn run(target: &str, entry: fn(&[u8])) {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for seed in seeds(target) {
        entry(&seed);
        for _ in 0..60 {
            let mut changed = seed[..next() % (seed.len() + 1)].to_vec();
            for _ in 0..3 {
                if !changed.is_empty() {
                    let at = next() % changed.len();
                    changed[at] = next() as u8;
                }
            }
            entry(&changed);
        }
    }
}

#[test]
fn rule_files() {
    run("rule_yaml", entry::rule_yaml);
}

#[test]
fn conditions() {
    run("condition", entry::condition);
}

#[test]
fn audit_events() {
    run("audit", entry::audit);
}

#[test]
fn patterns() {
    run("patterns", entry::patterns);
}
