//! Readers: what they see, when, and how little they read for it.

mod common;

use std::sync::Arc;

use common::{Bench, DIR, alert, key, observation, vanish};
use plimsoll_evidence::{
    Entry, Filter, Journal, Leaf, Options, Payload, ReadError, Reader, Record, RetentionClass, Tail,
};

fn hundred() -> (Bench, Journal) {
    filled(100)
}

fn filled(count: u64) -> (Bench, Journal) {
    let bench = Bench {
        subtree_leaves: 32,
        ..Bench::new()
    };
    let (mut journal, _) = bench.open();
    for n in 0..count {
        journal
            .append(if n % 10 == 0 {
                alert(n)
            } else {
                observation(n)
            })
            .unwrap();
    }
    journal.sync().unwrap();
    (bench, journal)
}

fn leaves(scan: impl Iterator<Item = Result<Entry, ReadError>>) -> Vec<u64> {
    scan.map(|entry| entry.unwrap().leaf.0).collect()
}

/// Whether leaf `n` should be found.
type Wanted = Box<dyn Fn(u64) -> bool>;

#[test]
fn filters_find_exactly_what_matches_in_either_order() {
    let (bench, _journal) = hundred();
    let reader = bench.reader();
    let all = Filter::default();
    let cases: Vec<(Filter, Wanted)> = vec![
        (all.clone(), Box::new(|_| true)),
        (
            Filter {
                kinds: vec![1],
                ..all.clone()
            },
            Box::new(|n| n % 10 == 0),
        ),
        (
            Filter {
                leaves: 30..70,
                ..all.clone()
            },
            Box::new(|n| (30..70).contains(&n)),
        ),
        (
            Filter {
                wall_ns: Some(1031..1040),
                ..all.clone()
            },
            Box::new(|n| (31..40).contains(&n)),
        ),
        (
            Filter {
                containers: vec![key(9)],
                ..all.clone()
            },
            Box::new(|n| n % 10 == 0),
        ),
        (
            Filter {
                containers: vec![key(3), key(9)],
                leaves: 64..99,
                ..all.clone()
            },
            Box::new(|n| (64..99).contains(&n) && (n % 5 == 3 || n % 10 == 0)),
        ),
        (
            Filter {
                classes: vec![RetentionClass::GAP],
                ..all.clone()
            },
            Box::new(|_| false),
        ),
    ];
    for (filter, wanted) in cases {
        let mut expected: Vec<u64> = (0..100).filter(|n| wanted(*n)).collect();
        assert_eq!(
            leaves(reader.scan(filter.clone()).unwrap()),
            expected,
            "{filter:?}"
        );
        let headers = reader.scan(filter.clone()).unwrap().headers();
        assert_eq!(
            headers.map(|h| h.unwrap().0.0).collect::<Vec<_>>(),
            expected
        );
        expected.reverse();
        let newest = Filter {
            newest_first: true,
            ..filter
        };
        assert_eq!(
            leaves(reader.scan(newest.clone()).unwrap()),
            expected,
            "{newest:?}"
        );
    }
}

#[test]
fn index_never_hides_a_match() {
    // Big enough for several index blocks in each sealed segment.
    let bench = Bench {
        subtree_leaves: 16_384,
        ..Bench::new()
    };
    let (mut journal, _) = bench.open();
    for n in 0..40_000 {
        let kind = u16::try_from(n / 2000).unwrap();
        let container = key(u8::try_from(n / 5000).unwrap());
        let record = Record::new(kind, RetentionClass::OBSERVATION, vec![1]).about(container);
        journal
            .append(record.at(i64::try_from(n).unwrap(), n))
            .unwrap();
    }
    journal.sync().unwrap();
    let reader = bench.reader();
    let count = |filter| reader.scan(filter).unwrap().map(Result::unwrap).count();
    let compare = || {
        let all = Filter::default();
        (0..20u16)
            .map(|kind| {
                count(Filter {
                    kinds: vec![kind],
                    ..all.clone()
                })
            })
            .chain((0..8).map(|n| {
                count(Filter {
                    containers: vec![key(n)],
                    ..all.clone()
                })
            }))
            .chain((0..4).map(|n| {
                count(Filter {
                    wall_ns: Some(n * 9000..n * 9000 + 50),
                    ..all.clone()
                })
            }))
            .collect::<Vec<_>>()
    };
    let with_index = compare();
    assert_eq!(with_index[..20], [2000; 20]);
    assert_eq!(with_index[20..28], [5000; 8]);
    let sealed: Vec<_> = bench
        .disk
        .paths()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "idx"))
        .collect();
    assert_eq!(sealed.len(), 2);
    for path in sealed {
        let mut bytes = bench.disk.bytes(&path);
        bytes[200] ^= 1;
        bench.disk.put(&path, bytes);
    }
    assert_eq!(compare(), with_index, "a damaged index is not believed");
}

#[test]
fn reader_sees_what_is_durable_and_never_the_torn_tail() {
    let (bench, mut journal) = hundred();
    journal.append(observation(100)).unwrap();
    assert_eq!(
        bench.reader().end().unwrap(),
        Leaf(100),
        "accepted is not durable"
    );
    let path = bench.disk.path_ending("96.leaf");
    let mut bytes = bench.disk.bytes(&path);
    bytes.extend_from_slice(&[9; 130]);
    bench.disk.put(&path, bytes);
    assert_eq!(
        leaves(bench.reader().scan(Filter::default()).unwrap()).len(),
        100
    );
    assert!(bench.reader().get(Leaf(100)).unwrap().is_none());
    vanish(journal);
}

#[test]
fn copy_without_a_head_reads_to_its_last_whole_leaf() {
    let (bench, journal) = hundred();
    vanish(journal);
    bench.disk.delete(std::path::Path::new("/j/head"));
    let disk = Arc::new(bench.disk.clone());
    let reader = Reader::open_on(disk, DIR, Tail::Everything).unwrap();
    assert_eq!(reader.end().unwrap(), Leaf(100));
    assert_eq!(reader.scrub(0..u64::MAX).unwrap().checked, 100);
}

#[test]
fn follower_gets_every_entry_once_while_the_writer_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new("node-1");
    options.subtree_leaves = 64;
    options.emergency_bytes = 64 << 10;
    let (mut journal, _) = Journal::open(dir.path(), options).unwrap();
    let filter = Filter {
        kinds: vec![1, 2],
        ..Filter::default()
    };
    let mut follow = Reader::open(dir.path()).unwrap().follow(Leaf(0), filter);
    let follower = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.last() != Some(&1999) {
            for entry in follow.poll(50).unwrap() {
                let entry = entry.expect("no torn frame is ever met");
                assert!(matches!(entry.payload, Payload::Present { .. }));
                seen.push(entry.leaf.0);
            }
        }
        seen
    });
    for n in 0..2000 {
        journal
            .append(if n % 7 == 0 { alert(n) } else { observation(n) })
            .unwrap();
        if n % 13 == 0 {
            journal.sync().unwrap();
        }
    }
    journal.sync().unwrap();
    assert_eq!(follower.join().unwrap(), (0..2000).collect::<Vec<_>>());
}

#[test]
fn follower_skips_what_does_not_match_and_keeps_its_place() {
    let (bench, mut journal) = hundred();
    let filter = Filter {
        kinds: vec![1],
        ..Filter::default()
    };
    let mut follow = bench.reader().follow(Leaf(55), filter);
    assert_eq!(
        leaves(follow.poll(3).unwrap().into_iter()),
        vec![60, 70, 80]
    );
    assert_eq!(leaves(follow.poll(3).unwrap().into_iter()), vec![90]);
    assert_eq!(follow.position(), Leaf(100));
    assert!(follow.poll(3).unwrap().is_empty());
    journal.append_durable(alert(100)).unwrap();
    assert_eq!(leaves(follow.poll(3).unwrap().into_iter()), vec![100]);
}

#[test]
fn ids_name_origin_and_leaf() {
    let (bench, journal) = hundred();
    assert_eq!(journal.id(Leaf(4)).to_string(), "node-1@4");
    assert_eq!(bench.reader().id(Leaf(4)).to_string(), "node-1@4");
}

#[test]
fn a_file_with_a_number_far_away_does_not_make_a_scan_walk_there() {
    const FAR: u64 = 1 << 60;
    let (bench, journal) = hundred();
    drop(journal);
    let last = bench.disk.path_ending("00000000000000000096.leaf");
    let segment = bench.disk.bytes(&last);
    let name = format!("{FAR:020}.leaf");
    bench.disk.put(&last.with_file_name(name), segment);
    let head = bench.disk.path_ending("head");
    let mut bytes = bench.disk.bytes(&head);
    bytes[16..24].copy_from_slice(&(FAR + 4).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&crc);
    bench.disk.put(&head, bytes);
    // whoever goes through all leaves up to the end is not led there either
    let most = 1 << 20;
    assert!(bench.reader().end().unwrap().0 < most);
    assert!(bench.reader().picker().unwrap().end().0 < most);
    for newest_first in [false, true] {
        let filter = Filter {
            newest_first,
            ..Filter::default()
        };
        let scan = bench.reader().scan(filter).unwrap();
        let (found, missing): (Vec<_>, Vec<_>) = scan.take(1000).partition(Result::is_ok);
        assert_eq!(found.len(), 100);
        let hole = |e: &Result<Entry, ReadError>| matches!(e, Err(ReadError::MissingLeaves { first, last }) if *first <= 128 && *last >= FAR - 1);
        assert!(missing.iter().any(hole), "{missing:?}");
        assert!(missing.len() < 10, "{missing:?}");
    }
}

#[test]
fn a_head_that_claims_more_than_the_files_hold_is_not_believed() {
    let (bench, journal) = hundred();
    drop(journal);
    let head = bench.disk.path_ending("head");
    let honest = bench.disk.bytes(&head);
    for claimed in [1_u64 << 20, 1 << 40, 1 << 60, u64::MAX - 1, u64::MAX] {
        let mut bytes = honest.clone();
        bytes[16..24].copy_from_slice(&claimed.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
        bytes[92..96].copy_from_slice(&crc);
        bench.disk.put(&head, bytes);
        let reader = bench.reader();
        let end = reader.end().unwrap().0;
        assert!((100..1 << 20).contains(&end), "{claimed}: {end}");
        assert_eq!(reader.picker().unwrap().end().0, end);
        let mut follow = reader.follow(Leaf(0), Filter::default());
        assert_eq!(
            follow
                .poll(100)
                .unwrap()
                .iter()
                .filter(|e| e.is_ok())
                .count(),
            100
        );
        assert!(
            follow.poll(100).unwrap().len() < 3 && follow.position().0 <= end,
            "{claimed}"
        );
    }
    bench.disk.put(&head, honest);
    assert_eq!(bench.reader().end().unwrap(), Leaf(100));
}

/// What lies near to each other comes with one reading, and a file is opened once for all that is fetched
/// together.
#[test]
fn picked_leaves_cost_a_reading_for_what_is_near_and_an_opening_for_each_file() {
    let (bench, journal) = filled(640);
    drop(journal);
    let mut picker = bench.reader().picker().unwrap();
    let wanted: Vec<u64> = (0..640).step_by(3).collect();
    let before = bench.disk.opened_and_read();
    let mut picked = 0;
    picker.pick(&wanted, &Filter::default(), &mut |p| {
        picked += 1;
        assert!(p.unwrap().payload.bytes().is_some());
    });
    let after = bench.disk.opened_and_read();
    assert_eq!(picked, wanted.len());
    // twenty subtrees, each with its leaves and the contents of two classes
    let (opened, read) = (after.0 - before.0, after.1 - before.1);
    assert!(opened <= 60 && read <= 60, "{opened} opened, {read} read");
}

/// What comes with one reading is lost only where it cannot be read itself.
#[test]
fn a_place_that_cannot_be_read_costs_only_the_records_that_lie_there() {
    let (bench, journal) = filled(64);
    drop(journal);
    let wanted: Vec<u64> = (0..32).collect();
    let present = |leaves: &mut Vec<u64>| {
        let mut picker = bench.reader().picker().unwrap();
        picker.pick(&wanted, &Filter::default(), &mut |p| {
            let entry = p.unwrap();
            leaves.extend(entry.payload.bytes().map(|_| entry.leaf.0));
        });
    };
    let (mut all, mut some) = (Vec::new(), Vec::new());
    present(&mut all);
    assert_eq!(all, wanted);
    bench.disk.fail_read("payloads", 700);
    present(&mut some);
    let in_order = some.iter().all(|leaf| wanted.contains(leaf));
    assert!(in_order && (4..32).contains(&some.len()), "{some:?}");
    assert!(some.contains(&1) && !some.contains(&31));
}

/// However many are fetched together, each that is asked for comes once and in order, as a scan has it.
#[test]
fn picked_leaves_are_those_of_a_scan_however_many_and_however_far_apart() {
    let (bench, journal) = filled(700);
    drop(journal);
    let reader = bench.reader();
    let scan = reader.scan(Filter::default()).unwrap();
    let all: Vec<Entry> = scan.map(Result::unwrap).collect();
    let mut picker = reader.picker().unwrap();
    for wanted in [
        (0..700).collect::<Vec<u64>>(),
        (0..700).step_by(3).collect(),
        (5..700).step_by(40).collect(),
        (0..300).chain([500, 600, 699]).collect(),
        vec![7],
        vec![],
    ] {
        let mut picked = Vec::new();
        picker.pick(&wanted, &Filter::default(), &mut |p| {
            picked.push(p.unwrap())
        });
        let expected: Vec<&Entry> = wanted.iter().map(|leaf| &all[*leaf as usize]).collect();
        assert_eq!(picked.iter().collect::<Vec<_>>(), expected);
    }
}
