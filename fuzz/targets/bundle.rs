#![no_main]

#[path = "../store_entry.rs"]
#[allow(dead_code)]
mod store_entry;
#[path = "../scratch.rs"]
mod scratch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_entry::bundle(data));
