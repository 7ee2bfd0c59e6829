//! Lists of leaves that somebody altered: the seeds of the fuzz target `leaves`, whole, cut and changed,
//! through the same entry point (see `fuzz/README.md`).
#![allow(missing_docs, unreachable_pub)] // the entry point is of another package

#[path = "../../../fuzz/leaves_entry.rs"]
mod leaves_entry;

use std::path::PathBuf;

#[test]
fn lists_that_were_altered_find_nothing_outside_and_end() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/leaves");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "there are seeds");
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for file in files {
        let seed = std::fs::read(&file).expect("a seed");
        leaves_entry::leaves(&seed);
        for _ in 0..150 {
            let mut changed = seed[..next() % (seed.len() + 1)].to_vec();
            changed.extend((0..next() % 24).map(|_| next() as u8));
            for _ in 0..3 {
                if !changed.is_empty() {
                    let at = next() % changed.len();
                    changed[at] = next() as u8;
                }
            }
            leaves_entry::leaves(&changed);
        }
    }
}
