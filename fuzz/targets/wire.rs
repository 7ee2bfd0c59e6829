#![no_main]

#[path = "../wire_entry.rs"]
mod wire_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_entry::wire(data));
