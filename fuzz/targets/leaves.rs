#![no_main]

#[path = "../leaves_entry.rs"]
mod leaves_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leaves_entry::leaves(data));
