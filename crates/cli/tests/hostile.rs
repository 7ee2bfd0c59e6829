//! What reads other people's bytes, on the seeds of the fuzz targets and on what is made of them by cutting
//! and changing bytes, through the same entry points as `cargo fuzz run` (see `fuzz/README.md`). Rule files
//! and the kernel's records have such tests in their own crates.

#[path = "../../../fuzz/other_entry.rs"]
mod other_entry;
#[path = "../../../fuzz/store_entry.rs"]
mod store_entry;

use std::path::PathBuf;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has seeds");
    let read = |f: &PathBuf| std::fs::read(f).expect("a seed");
    files.iter().map(read).collect()
}

/// Each seed whole, cut, with bytes changed and with bytes added; the same changes every time.
fn run(target: &str, times: usize, entry: fn(&[u8])) {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for seed in seeds(target) {
        entry(&seed);
        for _ in 0..times {
            let mut changed = seed[..next() % (seed.len() + 1)].to_vec();
            changed.extend((0..next() % 24).map(|_| next() as u8));
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
fn journals_that_were_altered() {
    run("store", 12, store_entry::store);
}

#[test]
fn bundles_that_were_altered() {
    run("bundle", 40, store_entry::bundle);
}

#[test]
fn what_runtimes_have_on_disk() {
    run("runtime", 40, other_entry::runtime);
}

#[test]
fn records_of_a_journal() {
    run("records", 200, other_entry::records);
}

#[test]
fn exported_baselines() {
    run("baseline", 100, other_entry::baseline);
}

#[test]
fn policies() {
    run("policy", 100, other_entry::policy);
}

#[test]
fn dns_messages() {
    run("dns", 500, other_entry::dns);
}
