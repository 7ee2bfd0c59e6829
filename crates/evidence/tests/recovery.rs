//! Opening what a crash, a flipped bit or a stranger left behind.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{Bench, DIR, alert, observation, vanish};
use plimsoll_evidence::{
    Damage, Journal, Leaf, OpenError, Payload, Preserved, ReadError, Reader, Record, Recovery,
    RetentionClass, Tail,
};

/// 20 durable records: two whole subtrees of 8 and a tail of 4, alerts among observations.
fn twenty() -> Bench {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    for n in 0..20 {
        let record = if n % 4 == 3 { alert(n) } else { observation(n) };
        journal.append(record).unwrap();
        journal.sync().unwrap();
    }
    vanish(journal);
    bench.after_kill()
}

fn expected(n: u64) -> Record {
    if n % 4 == 3 { alert(n) } else { observation(n) }
}

/// Leaves that the report calls damaged.
fn damaged(recovery: &Recovery) -> BTreeSet<u64> {
    let leaves = |damage: &Damage| match damage {
        Damage::MissingLeaves { first, last } => (*first..=*last).collect(),
        Damage::Leaf { leaf, .. } | Damage::Payload { leaf, .. } => vec![*leaf],
        Damage::FileHeader { .. } => vec![],
    };
    recovery.damage.iter().flat_map(leaves).collect()
}

/// Whether each of the 20 leaves reads as what was appended.
fn readable(bench: &Bench) -> BTreeSet<u64> {
    let reader = bench.reader();
    let whole = |n: &u64| {
        let entry = reader.get(Leaf(*n)).ok().flatten();
        entry.is_some_and(|entry| entry.payload.bytes() == Some(&expected(*n).payload))
    };
    (0..20).filter(whole).collect()
}

#[test]
fn truncation_at_every_byte_loses_only_what_was_cut_and_says_what() {
    for file in ["16.leaf", "16.01.pay", "16.03.pay"] {
        let whole = twenty();
        let path = whole.disk.path_ending(file);
        let bytes = whole.disk.bytes(&path);
        for cut in 0..bytes.len() {
            let bench = whole.after_kill();
            bench.disk.put(&path, bytes[..cut].to_vec());
            let (mut journal, recovery) = bench.open();
            let (lost, kept) = (damaged(&recovery), readable(&bench));
            let all: BTreeSet<u64> = lost.union(&kept).copied().collect();
            assert_eq!(
                all,
                (0..20).collect(),
                "{file} cut at {cut}: all is kept or reported"
            );
            assert!(lost.is_disjoint(&kept) && (0..16).all(|n| kept.contains(&n)));
            assert_eq!(recovery.leaves, 20, "no promised index is given out again");
            let next = journal.append_durable(alert(20)).unwrap().leaf;
            assert_eq!(next, Leaf(20));
            assert!(bench.reader().get(next).unwrap().is_some());
        }
    }
}

#[test]
fn torn_tail_at_every_byte_is_preserved_reported_and_cut() {
    // Only 16 are acknowledged; four more were being written when the power went.
    let whole = Bench::new();
    let (mut journal, _) = whole.open();
    for n in 0..17 {
        journal.append(expected(n)).unwrap();
    }
    journal.sync().unwrap();
    let head = (
        whole.disk.path_ending("head"),
        whole.disk.bytes(Path::new("/j/head")),
    );
    for n in 17..20 {
        journal.append(expected(n)).unwrap();
    }
    journal.sync().unwrap();
    vanish(journal);
    whole.disk.put(&head.0, head.1);
    for file in ["16.leaf", "16.01.pay", "16.03.pay"] {
        let path = whole.disk.path_ending(file);
        let bytes = whole.disk.bytes(&path);
        let durable = if file.contains("leaf") {
            192
        } else if file.contains("03") {
            96 + 46
        } else {
            0
        };
        for cut in durable..bytes.len() {
            let bench = whole.after_kill();
            bench.disk.put(&path, bytes[..cut].to_vec());
            let (mut journal, recovery) = bench.open();
            assert_eq!(recovery.damage, vec![], "{file} cut at {cut}");
            let end = recovery.leaves;
            assert!((17..20).contains(&end), "{file} cut at {cut} ends at {end}");
            assert_eq!(readable(&bench), (0..end).collect());
            for torn in &recovery.torn {
                let Preserved::As(aside) = &torn.preserved else {
                    panic!("{torn:?}")
                };
                assert_eq!(bench.disk.bytes(aside).len() as u64, torn.bytes);
            }
            let cut_frame = file.contains("leaf") && cut % 96 == 0;
            assert!(cut_frame || cut == 0 || !recovery.torn.is_empty() || cut == durable);
            assert_eq!(journal.append_durable(alert(99)).unwrap().leaf, Leaf(end));
            drop(journal);
            assert!(bench.open().1.is_clean(), "reported once");
        }
    }
}

#[test]
fn every_flipped_bit_of_evidence_is_detected() {
    let whole = twenty();
    let detected = |bench: &Bench| {
        let reader = Reader::open_on(std::sync::Arc::new(bench.disk.clone()), DIR, Tail::Durable);
        let scrub = reader.unwrap().scrub(0..u64::MAX).unwrap();
        !(scrub.damage.is_empty() && scrub.lost.is_empty()) || readable(bench).len() == 20
    };
    for path in whole.disk.paths() {
        let name = path.to_string_lossy().into_owned();
        if !(name.contains("leaves/") || name.contains("payloads/")) || name.ends_with(".idx") {
            continue;
        }
        let bytes = whole.disk.bytes(&path);
        for bit in (96 * 8..bytes.len() * 8).step_by(5) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let bench = whole.after_kill();
            bench.disk.put(&path, flipped);
            assert!(
                detected(&bench) && readable(&bench).len() >= 19,
                "{name} bit {bit}"
            );
            if name.contains("16.") {
                // In the newest subtree the opening itself finds it, and keeps the place.
                let (_, recovery) = bench.open();
                assert_eq!(
                    (recovery.leaves, damaged(&recovery).len()),
                    (20, 1),
                    "{name} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn lost_middle_segment_is_a_hole_and_not_a_renumbering() {
    let bench = twenty();
    bench.disk.delete(&bench.disk.path_ending("08.leaf"));
    let (mut journal, recovery) = bench.open();
    assert_eq!(
        recovery.damage,
        vec![Damage::MissingLeaves { first: 8, last: 15 }]
    );
    assert_eq!(journal.append_durable(alert(20)).unwrap().leaf, Leaf(20));
    let reader = bench.reader();
    assert!(matches!(
        reader.get(Leaf(9)),
        Err(ReadError::MissingLeaves { .. })
    ));
    assert_eq!(
        reader.get(Leaf(17)).unwrap().unwrap().payload.bytes(),
        Some(&b"observation 17"[..])
    );
    let scrub = reader.scrub(0..u64::MAX).unwrap();
    assert_eq!((scrub.checked, scrub.damage.len()), (14, 1));
}

#[test]
fn lost_payload_file_is_reported_for_each_leaf() {
    let bench = twenty();
    bench.disk.delete(&bench.disk.path_ending("16.03.pay"));
    let (_, recovery) = bench.open();
    let class = RetentionClass::OBSERVATION;
    let path = Path::new("/j/payloads/00000000000000000016.03.pay").to_path_buf();
    let lost = |leaf| Damage::Payload {
        leaf,
        class,
        path: path.clone(),
    };
    assert_eq!(recovery.damage, vec![lost(16), lost(17), lost(18)]);
    let entry = bench.reader().get(Leaf(17)).unwrap().unwrap();
    assert!(matches!(entry.payload, Payload::Lost { .. }));
}

#[test]
fn lost_head_file_costs_nothing() {
    let bench = twenty();
    bench.disk.delete(Path::new("/j/head"));
    assert!(
        bench.reader().end().unwrap() >= Leaf(19),
        "frames tell what was durable"
    );
    let (_, recovery) = bench.open();
    assert_eq!(
        (
            recovery.leaves,
            recovery.damage.len(),
            readable(&bench).len()
        ),
        (20, 0, 20)
    );
}

#[test]
fn lost_last_segment_keeps_its_indexes_taken() {
    let bench = twenty();
    bench.disk.delete(&bench.disk.path_ending("16.leaf"));
    let (mut journal, recovery) = bench.open();
    assert_eq!(
        recovery.damage,
        vec![Damage::MissingLeaves {
            first: 16,
            last: 19
        }]
    );
    assert!(
        !recovery.torn.is_empty(),
        "their payloads are set aside, not deleted"
    );
    assert_eq!(journal.append_durable(alert(20)).unwrap().leaf, Leaf(20));
}

#[test]
fn full_disk_at_recovery_leaves_the_torn_tail_in_place() {
    let bench = twenty();
    let path = bench.disk.path_ending("16.leaf");
    let mut bytes = bench.disk.bytes(&path);
    bytes.extend_from_slice(&[0xAB; 50]);
    bench.disk.put(&path, bytes.clone());
    bench.disk.set_room(Some(0));
    let (mut journal, recovery) = bench.open();
    assert!(
        matches!(&recovery.torn[..], [torn] if matches!(torn.preserved, Preserved::InPlace(_)))
    );
    assert_eq!(bench.disk.bytes(&path), bytes);
    assert_eq!(journal.append_durable(alert(20)).unwrap().leaf, Leaf(20));
    bench.disk.set_room(None);
    bench.clock.advance_ms(300);
    assert_eq!(journal.append_durable(alert(21)).unwrap().leaf, Leaf(21));
    assert_eq!(bench.reader().scrub(0..99).unwrap().damage.len(), 0);
    drop(journal);
    assert_eq!(bench.open().1.damage, vec![]);
}

#[test]
fn second_writer_is_refused_and_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, _) = Journal::open(dir.path(), real()).unwrap();
    let error = Journal::open(dir.path(), real()).err().unwrap();
    assert!(
        matches!(&error, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id())
    );
    assert!(error.to_string().contains("in use by process"), "{error}");
}

fn real() -> plimsoll_evidence::Options {
    let mut options = plimsoll_evidence::Options::new("node-1");
    options.emergency_bytes = 64 << 10;
    options
}

#[test]
fn foreign_directory_is_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letters.txt"), "dear diary").unwrap();
    let error = Journal::open(dir.path(), real()).err().unwrap();
    assert!(matches!(&error, OpenError::Foreign { path, .. } if path.ends_with("letters.txt")));
    assert!(error.to_string().contains("move it away"), "{error}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was added"
    );
    assert!(Reader::open(dir.path()).is_err());
}

#[test]
fn foreign_newer_and_misplaced_files_are_refused_and_left_untouched() {
    type Change = fn(&mut Vec<u8>);
    let strange: Change = |bytes| bytes[..8].copy_from_slice(b"SQLite f");
    let newer: Change = |bytes| bytes[8] = 9;
    for file in ["journal.meta", "16.leaf", "08.03.pay", "emergency.seg"] {
        for (change, says) in [(strange, "not part of"), (newer, "format version 9")] {
            let bench = twenty();
            let path = bench.disk.path_ending(file);
            let mut bytes = bench.disk.bytes(&path);
            change(&mut bytes);
            bench.disk.put(&path, bytes.clone());
            let before = bench.disk.paths();
            let error = Journal::open(DIR, bench.options())
                .err()
                .expect("refused")
                .to_string();
            assert!(error.contains(says) && error.contains(file), "{error}");
            assert_eq!(
                (bench.disk.bytes(&path), bench.disk.paths()),
                (bytes, before)
            );
        }
    }
    let bench = twenty();
    let moved = bench.disk.bytes(&bench.disk.path_ending("08.leaf"));
    bench
        .disk
        .put(Path::new("/j/leaves/00000000000000000024.leaf"), moved);
    assert!(matches!(
        Journal::open(DIR, bench.options()),
        Err(OpenError::Foreign { .. })
    ));
}

#[test]
fn another_nodes_journal_is_refused() {
    let bench = twenty();
    let mut options = bench.options();
    options.origin = "node-2".to_owned();
    let error = Journal::open(DIR, options).err().unwrap();
    assert!(matches!(error, OpenError::WrongOrigin { .. }), "{error}");
}

#[test]
fn strange_files_beside_segments_are_reported_and_left_alone() {
    let bench = twenty();
    let stray = Path::new("/j/leaves/core.1234");
    bench.disk.put(stray, vec![1, 2, 3]);
    let (_, recovery) = bench.open();
    assert_eq!(recovery.foreign, vec![stray.to_path_buf()]);
    assert_eq!(bench.disk.bytes(stray), vec![1, 2, 3]);
}

#[test]
fn unknown_kinds_and_classes_pass_through() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    let class = RetentionClass::new(15).unwrap();
    let mut record = Record::new(60_000, class, vec![0, 255, 27]).at(i64::MIN, u64::MAX);
    record.schema_version = 999;
    let leaf = journal.append_durable(record).unwrap().leaf;
    drop(journal);
    let (_, recovery) = bench.open();
    assert!(recovery.is_clean());
    let entry = bench.reader().get(leaf).unwrap().unwrap();
    assert_eq!(
        (entry.header.kind, entry.header.schema_version),
        (60_000, 999)
    );
    assert_eq!(
        (entry.header.class, entry.header.wall_ns),
        (class, i64::MIN)
    );
    assert_eq!(entry.payload.bytes(), Some(&[0, 255, 27][..]));
}

#[test]
fn segment_never_spans_two_boots() {
    let mut bench = Bench::new();
    let (mut journal, _) = bench.open();
    journal.append_durable(alert(0)).unwrap();
    drop(journal);
    bench.boot_id = [2; 16];
    let (mut journal, _) = bench.open();
    journal.append_durable(alert(1)).unwrap();
    drop(journal);
    let (mut journal, recovery) = bench.open();
    assert!(recovery.is_clean());
    journal.append_durable(alert(2)).unwrap();
    let is_segment = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "leaf");
    assert_eq!(bench.disk.paths().iter().filter(is_segment).count(), 2);
    assert_eq!(bench.reader().scrub(0..9).unwrap().checked, 3);
}
