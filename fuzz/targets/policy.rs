#![no_main]

#[path = "../other_entry.rs"]
#[allow(dead_code)]
mod other_entry;
#[path = "../scratch.rs"]
mod scratch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| other_entry::policy(data));
