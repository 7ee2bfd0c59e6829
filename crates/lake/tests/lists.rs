//! Lists of leaves that somebody altered: the seeds of the fuzz target `leaves`, whole, cut and changed,
//! through the same entry point (see `fuzz/README.md`).
#![allow(missing_docs, unreachable_pub)] // the entry point is of another package

#[path = "../../../fuzz/leaves_entry.rs"]
mod leaves_entry;
#[path = "../../../fuzz/seeds.rs"]
mod seeds;

#[test]
fn lists_that_were_altered_find_nothing_outside_and_end() {
    assert!(seeds::seeds("leaves").len() >= 8, "there are seeds");
    seeds::run("leaves", 150, leaves_entry::leaves);
}
