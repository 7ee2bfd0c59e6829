//! The contract of `bpf/wire.h` from the reader's side: its numbers are the model's numbers, and no bytes
//! whatever make the decoder panic or believe a length. The seeds of the fuzz target `wire` and some
//! hundred thousand mutations of them, the same every time, without cargo-fuzz.

#[path = "../../../fuzz/seeds.rs"]
mod seeds;
#[path = "../../../fuzz/wire_entry.rs"]
mod wire_entry;

use plimsoll_model::event::{FileOp, Origin};
use plimsoll_model::{Entry, EventKind};
use plimsoll_sensor::wire::{DecodeError, decode};

/// Bytes of `struct wire_event`; the layout itself is compared with BTF in `wire.rs`.
const HEADER: usize = 224;
const KIND: usize = 4;
const ENTRY: usize = 76;
const ORIGIN: usize = 77;
const NUM: usize = 144;
const SLEN: usize = 208;

const CONTRACT: &str = include_str!("../../../bpf/wire.h");

/// Names and numbers of an enum of the contract.
fn numbers(name: &str) -> Vec<(String, u16)> {
    let from = CONTRACT
        .find(&format!("enum {name} {{"))
        .expect("it is in wire.h");
    let body = &CONTRACT[from..];
    let body = &body[body.find('{').expect("begins") + 1..body.find('}').expect("ends")];
    let mut found = Vec::new();
    for piece in body.split([',', '\n']) {
        let Some((name, number)) = piece.split_once('=') else {
            continue;
        };
        if let Ok(number) = number.trim().parse() {
            found.push((name.trim().to_owned(), number));
        }
    }
    assert!(!found.is_empty(), "{name}");
    found
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let all = seeds::seeds("wire");
    assert!(all.len() >= 10, "there are seeds");
    all
}

fn seed(name: &str) -> Vec<u8> {
    let all = seeds();
    let found = all
        .into_iter()
        .find(|(n, _)| n.ends_with(&format!("/{name}.bin")));
    found.expect("a seed of that name").1
}

#[test]
fn every_kind_of_the_contract_is_decoded_and_no_other() {
    let kinds = numbers("wire_kind");
    let unknown = |n: u16| {
        let mut record = seed("connect");
        record[KIND..KIND + 2].copy_from_slice(&n.to_ne_bytes());
        matches!(
            decode(&record),
            Err(DecodeError::Number { what: "kind", .. })
        )
    };
    for (name, n) in &kinds {
        // those that nobody reads from a ring by this function are known by their own error
        assert!(!unknown(*n), "{name} = {n} is not decoded");
    }
    let last = kinds.iter().map(|(_, n)| *n).max().expect("there are some");
    for n in [0, last + 1, 999, u16::MAX] {
        assert!(unknown(n), "{n} is decoded");
    }
}

#[test]
fn operations_origins_and_entries_have_the_models_numbers() {
    for (name, n) in numbers("wire_file_op") {
        let mut record = seed("file");
        record[NUM..NUM + 8].copy_from_slice(&i64::from(n).to_ne_bytes());
        let EventKind::File(f) = decode(&record).expect("a file").kind else {
            panic!("{name}");
        };
        let said: FileOp = f.op;
        assert_eq!(name, format!("FILE_{}", said.as_str().to_uppercase()));
    }
    for (name, n) in numbers("wire_origin") {
        let mut record = seed("file");
        record[ORIGIN] = n as u8;
        let EventKind::File(f) = decode(&record).expect("a file").kind else {
            panic!("{name}");
        };
        let said: Origin = f.origin;
        assert_eq!(name, format!("ORIGIN_{}", said.as_str().to_uppercase()));
    }
    for (name, n) in numbers("wire_entry") {
        let mut record = seed("file");
        record[ENTRY] = n as u8;
        let want = match name.as_str() {
            "ENTRY_INIT" => Entry::Init,
            "ENTRY_EXEC" => Entry::ExecSession,
            "ENTRY_HOST" => Entry::Host,
            "ENTRY_FOUND" => Entry::FoundRunning,
            other => panic!("{other} has no meaning here"),
        };
        assert_eq!(decode(&record).expect("a file").process.entry, want);
    }
}

#[test]
fn every_seed_decodes_and_every_cut_of_it_is_refused() {
    for (name, seed) in seeds() {
        assert!(decode(&seed).is_ok(), "{name}: {:?}", decode(&seed));
        wire_entry::wire(&seed);
        for n in 0..seed.len() {
            assert!(decode(&seed[..n]).is_err(), "{name} cut at {n}");
        }
    }
}

/// Every byte of the header takes the values at which numbers turn over.
#[test]
fn no_byte_of_the_header_is_trusted() {
    for (_, seed) in seeds() {
        for at in 0..HEADER {
            for value in [0, 1, 0x7f, 0x80, 0xfe, 0xff] {
                let mut record = seed.clone();
                record[at] = value;
                wire_entry::wire(&record);
            }
        }
    }
}

/// Lengths of strings that overlap, leave the record, or add up beyond it.
#[test]
fn no_length_of_a_string_is_trusted() {
    const LENGTHS: [u16; 7] = [0, 1, 15, 16, 255, 4096, u16::MAX];
    for (_, seed) in seeds() {
        for i in 0..LENGTHS.len().pow(4) {
            let mut record = seed.clone();
            let mut rest = i;
            for string in 0..4 {
                let n = LENGTHS[rest % LENGTHS.len()];
                rest /= LENGTHS.len();
                record[SLEN + 2 * string..SLEN + 2 * string + 2].copy_from_slice(&n.to_ne_bytes());
            }
            wire_entry::wire(&record);
        }
    }
}

#[test]
fn two_hundred_thousand_mutations_decode_or_are_refused() {
    let seeds = seeds();
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    let mut decoded = 0u32;
    for round in 0..200_000 {
        let (name, mut record) = seeds[next() % seeds.len()].clone();
        // the end of another one behind a piece of this one, of a length that says so
        if round % 4 == 0 {
            let other = &seeds[next() % seeds.len()].1;
            let keep = HEADER + next() % (record.len() - HEADER + 1);
            record.truncate(keep);
            record.extend_from_slice(&other[HEADER.min(other.len())..]);
            let len = record.len() as u32;
            record[..4].copy_from_slice(&len.to_ne_bytes());
        }
        for _ in 0..1 + next() % 6 {
            // most of what can be believed is in the strings and their lengths
            let at = match next() % 3 {
                0 => next() % record.len(),
                1 => SLEN + next() % 12,
                _ => (HEADER + next() % (record.len() - HEADER + 1)).min(record.len() - 1),
            };
            record[at] = next() as u8;
        }
        let run = std::panic::catch_unwind(|| wire_entry::wire(&record));
        assert!(run.is_ok(), "round {round} of {name}: {record:02x?}");
        decoded += u32::from(decode(&record).is_ok());
    }
    assert!(
        decoded > 10_000,
        "mutations reach beyond the header: {decoded}"
    );
}
