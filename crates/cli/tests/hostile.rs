//! What reads other people's bytes, on the seeds of the fuzz targets and on what is made of them by cutting
//! and changing bytes, through the same entry points as `cargo fuzz run` (see `fuzz/README.md`). Rule files
//! and the kernel's records have such tests in their own crates.

#[path = "../../../fuzz/other_entry.rs"]
mod other_entry;
#[path = "../../../fuzz/scratch.rs"]
mod scratch;
#[path = "../../../fuzz/seeds.rs"]
mod seeds;
#[path = "../../../fuzz/store_entry.rs"]
mod store_entry;

use seeds::run;

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
