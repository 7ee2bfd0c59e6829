//! The seeds of a fuzz target, and what is made of them by cutting and changing bytes, for the tests that run
//! targets without a fuzzer.

use std::path::PathBuf;

/// Names and contents of a target's seeds, by name.
pub(crate) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    // of the crate whose test this is a module of: all lie two below the top
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has seeds");
    let read = |f: &PathBuf| (f.display().to_string(), std::fs::read(f).expect("a seed"));
    files.iter().map(read).collect()
}

/// Each seed whole, cut, with bytes changed and with bytes added; the same changes every time.
#[allow(dead_code)] // not every test that has seeds changes them in this way
pub(crate) fn run(target: &str, times: usize, entry: fn(&[u8])) {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for (_, seed) in seeds(target) {
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
