//! Files made from a journal: whole, current, repaired, merged.

mod common;

use common::*;
use plimsoll_lake::{Built, Lake, MERGED_SPANS, PIECE_LEAVES, SPAN_LEAVES, Table};

#[test]
fn a_sealed_row_and_a_row_of_the_tail_are_the_same() {
    let records = || {
        [
            (0, container("aaaa", "web")),
            (1, observed("aaaa", 1, file("/etc/passwd"))),
            (2, observed("bbbb", 2, file(b"/bad\xff\x1b[2J".as_slice()))),
            (3, gap(3, None)),
            (4, gap(4, Some(7))),
        ]
    };
    let journal = Memory::new(SPAN_LEAVES, records());
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    assert_eq!(lake.contents().seals.len(), 1);
    for table in Table::ALL {
        let sql = format!("select * from {} order by leaf", table.name());
        let (sealed, looked) = ask(&lake, &journal, &sql);
        let (tail, from_tail) = ask(&Lake::none(), &journal, &sql);
        assert_eq!(sealed, tail, "{}", table.name());
        assert_eq!(
            (looked.tail_rows, from_tail.tail_rows),
            (0, tail.len() as u64)
        );
    }
    let (rows, _) = ask(
        &lake,
        &journal,
        "select leaf, container_name, image_digest, path, program from files order by leaf",
    );
    assert_eq!(
        rows[0],
        ["1", "web", "sha256:abcd", "/etc/passwd", "/usr/sbin/nginx"]
    );
    assert_eq!(
        rows[1],
        ["2", "", "", "/bad\u{fffd}\x1b[2J", "/usr/sbin/nginx"]
    );
}

#[test]
fn what_was_recorded_a_moment_ago_is_in_the_answer() {
    let journal = Memory::new(SPAN_LEAVES, [(0, container("aaaa", "web"))]);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let leaf = journal.append(observed("aaaa", SPAN_LEAVES, file("/tmp/dropped")));
    let sql = "select leaf, container_name from files where path = '/tmp/dropped'";
    let (rows, looked) = ask(&lake, &journal, sql);
    assert_eq!(rows, [[leaf.to_string(), "web".to_owned()]]);
    assert_eq!(looked.tail_rows, 1);
}

#[test]
fn a_piece_that_is_not_full_is_not_sealed() {
    let journal = Memory::new(PIECE_LEAVES - 1, [(5, gap(5, None))]);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    assert!(lake.contents().seals.is_empty());
    assert_eq!(ask(&lake, &journal, "select leaf from gaps").0, [["5"]]);
}

#[test]
fn a_growing_journal_is_sealed_in_pieces_that_become_the_span() {
    let at = |piece: u64| piece * PIECE_LEAVES + 7;
    let pieces = SPAN_LEAVES / PIECE_LEAVES;
    let records = (0..=pieces).map(|n| (at(n), observed("aaaa", at(n), file(format!("/f{n}")))));
    let records: Vec<_> = std::iter::once((0, container("aaaa", "web")))
        .chain(records)
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let sql = "select leaf, container_name, object, behaviour from behaviours order by leaf";
    let first = "select object, count, containers from fingerprints order by object";
    for end in [
        at(0) + 1,
        2 * PIECE_LEAVES,
        at(3),
        SPAN_LEAVES - 1,
        SPAN_LEAVES,
        at(pieces) + 1,
    ] {
        let journal = Memory::new(end, records.iter().filter(|(l, _)| *l < end).cloned());
        let lake = built(dir.path(), &journal);
        let spans: Vec<u64> = lake.contents().seals.iter().map(|s| s.end).collect();
        match end < SPAN_LEAVES {
            true => assert_eq!(spans.len() as u64, end / PIECE_LEAVES, "{end}: {spans:?}"),
            false => assert_eq!(spans, [SPAN_LEAVES], "{end}"),
        }
        for sql in [sql, first] {
            let found = ask(&lake, &journal, sql).0;
            assert_eq!(found, ask(&Lake::none(), &journal, sql).0, "{end}: {sql}");
            assert!(!found.is_empty());
        }
    }
    // what is made at once says the same
    let whole = tempfile::tempdir().unwrap();
    let journal = Memory::new(SPAN_LEAVES, records[..records.len() - 1].iter().cloned());
    let (pieced, whole) = (built(dir.path(), &journal), built(whole.path(), &journal));
    for table in Table::ALL {
        let sql = format!("select * from {} order by leaf", table.name());
        assert_eq!(
            ask(&pieced, &journal, &sql).0,
            ask(&whole, &journal, &sql).0
        );
    }
}

#[test]
fn files_that_cannot_hold_a_wanted_row_are_not_opened() {
    let at = |span: u64| span * SPAN_LEAVES + 9;
    let names = ["aaaa", "bbbb", "cccc"];
    let records = (0..3).map(|n| (at(n), observed(names[n as usize], at(n), file("/x"))));
    let journal = Memory::new(3 * SPAN_LEAVES, records);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let looked = |filter: &str| {
        let (rows, looked) = ask(
            &lake,
            &journal,
            &format!("select leaf from files where {filter}"),
        );
        (
            rows.len(),
            looked.files,
            looked.files_left_out,
            looked.bytes_read > 0,
        )
    };
    assert_eq!(looked("true"), (3, 3, 0, true));
    assert_eq!(looked("container = 'bbbb'"), (1, 3, 2, true));
    assert_eq!(looked("container in ('aaaa', 'cccc')"), (2, 3, 1, true));
    assert_eq!(looked("container = 'dddd'"), (0, 3, 3, false));
    let second = format!(
        "time >= to_timestamp({}) and time < to_timestamp({})",
        at(1),
        at(2)
    );
    assert_eq!(looked(&second), (1, 3, 2, true));
    assert_eq!(looked("time > now()"), (0, 3, 3, false));
    assert_eq!(looked(&format!("leaf = {}", at(2))), (1, 3, 2, true));
    // what the seals do not say anything about is looked at
    assert_eq!(looked("path = '/x'"), (3, 3, 0, true));
}

#[test]
fn a_bloom_filter_spares_the_row_groups_of_a_file() {
    let records = (0..1000).map(|n| (n, observed("aaaa", n, file(format!("/f{n}")))));
    let journal = Memory::new(SPAN_LEAVES, records);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    // between the least and the greatest path, and not there
    let (rows, looked) = ask(
        &lake,
        &journal,
        "select leaf from files where path = '/f5x'",
    );
    assert_eq!((rows.len(), looked.groups_left_out), (0, 1));
    let (rows, looked) = ask(
        &lake,
        &journal,
        "select leaf from files where path = '/f55'",
    );
    assert_eq!((rows.len(), looked.groups_left_out), (1, 0));
}

#[test]
fn missing_and_cut_files_are_made_again_as_they_were() {
    let journal = Memory::new(
        SPAN_LEAVES,
        [(1, observed("aaaa", 1, file("/x"))), (2, gap(2, None))],
    );
    let dir = tempfile::tempdir().unwrap();
    let first = built(dir.path(), &journal).contents().seals.clone();
    let path = dir.path().join(first[0].file_name("files"));
    let whole = std::fs::read(&path).unwrap();
    for damage in ["removed", "cut", "no seal"] {
        match damage {
            "removed" => std::fs::remove_file(&path).unwrap(),
            "cut" => std::fs::write(&path, &whole[..whole.len() / 2]).unwrap(),
            _ => std::fs::remove_file(dir.path().join(first[0].name())).unwrap(),
        }
        let lake = Lake::open(dir.path(), "node1").unwrap();
        assert_eq!(
            lake.contents().damage.len(),
            usize::from(damage != "no seal"),
            "{damage}"
        );
        assert!(lake.contents().seals.is_empty(), "{damage}");
        // until it is made again, the journal answers
        assert_eq!(ask(&lake, &journal, "select leaf from files").0, [["1"]]);
        let again = built(dir.path(), &journal).contents().seals.clone();
        assert_eq!(again, first, "{damage}");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{damage}");
    }
}

#[test]
fn a_flipped_byte_is_found_by_the_check_and_repaired() {
    let journal = Memory::new(SPAN_LEAVES, [(1, observed("aaaa", 1, file("/x")))]);
    let dir = tempfile::tempdir().unwrap();
    let mut lake = built(dir.path(), &journal);
    assert!(lake.check().unwrap().is_empty());
    let name = lake.contents().seals[0].file_name("files");
    let path = dir.path().join(&name);
    let whole = std::fs::read(&path).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() / 3] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    assert_eq!(lake.check().unwrap(), [name]);
    assert!(lake.contents().seals.is_empty());
    lake.build(journal.as_ref(), &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn a_file_that_no_reader_understands_is_damage_and_not_an_empty_answer() {
    let journal = Memory::new(SPAN_LEAVES, [(1, observed("aaaa", 1, file("/x")))]);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let path = dir.path().join(lake.contents().seals[0].file_name("files"));
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    std::fs::write(&path, vec![0; length]).unwrap();
    let spill = tempfile::tempdir().unwrap();
    let found = try_ask(
        &lake,
        &journal,
        "select leaf from files",
        &limits(spill.path()),
    );
    assert!(
        matches!(found, Err(plimsoll_lake::LakeError::Damaged { .. })),
        "{found:?}"
    );
}

#[test]
fn spans_become_one_file_with_the_same_rows_and_nothing_is_left_behind() {
    let spans = MERGED_SPANS[0] + 1;
    let records = (0..spans).flat_map(|s| {
        let at = s * SPAN_LEAVES;
        [
            (at, container("aaaa", "web")),
            (at + 1, observed("aaaa", at + 1, file("/x"))),
        ]
    });
    let journal = Memory::new(spans * SPAN_LEAVES, records);
    let dir = tempfile::tempdir().unwrap();
    let mut lake = Lake::open(dir.path(), "node1").unwrap();
    let mut merged = 0;
    let count = &mut |b: &Built| merged += u64::from(matches!(b, Built::Merged(_)));
    lake.build(journal.as_ref(), count).unwrap();
    assert_eq!(merged, 1);
    let ends: Vec<u64> = lake
        .contents()
        .seals
        .iter()
        .map(|s| s.end / SPAN_LEAVES)
        .collect();
    assert_eq!(ends, [MERGED_SPANS[0], spans]);
    let (rows, looked) = ask(
        &lake,
        &journal,
        "select leaf, container_name from files order by leaf",
    );
    assert_eq!((rows.len() as u64, looked.files), (spans, 2));
    assert!(rows.iter().all(|r| r[1] == "web"));
    let kept = std::fs::read_dir(dir.path().join("files")).unwrap().count();
    assert_eq!(kept, 2, "the files that were merged are gone");
    assert_eq!(
        std::fs::read_dir(dir.path().join("seals")).unwrap().count(),
        2
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("known")).unwrap().count(),
        2
    );
}

#[test]
fn a_name_learned_long_before_is_in_later_rows() {
    let journal = Memory::new(
        2 * SPAN_LEAVES,
        [
            (3, container("aaaa", "web")),
            (
                SPAN_LEAVES + 1,
                observed("aaaa", SPAN_LEAVES + 1, file("/x")),
            ),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let sql = "select container_name, image from files";
    let lake = built(dir.path(), &journal);
    assert_eq!(ask(&lake, &journal, sql).0, [["web", "shop:1"]]);
    // also where what was known then has been lost
    let known = dir.path().join(format!("known/{SPAN_LEAVES:020}.cbor"));
    std::fs::remove_file(known).unwrap();
    std::fs::remove_file(dir.path().join(lake.contents().seals[1].name())).unwrap();
    assert_eq!(
        ask(&built(dir.path(), &journal), &journal, sql).0,
        [["web", "shop:1"]]
    );
}

#[test]
fn leaves_without_content_are_counted() {
    let journal = Memory::new(SPAN_LEAVES + 2, []);
    journal
        .pruned
        .lock()
        .unwrap()
        .extend([4, 5, SPAN_LEAVES + 1]);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    assert_eq!(lake.contents().seals[0].pruned, 2);
    let (rows, looked) = ask(&lake, &journal, "select leaf from gaps");
    assert!(rows.is_empty());
    assert!(looked.pruned >= 2, "{looked:?}");
}

#[test]
fn one_process_builds_at_a_time() {
    let journal = Memory::new(SPAN_LEAVES, []);
    let dir = tempfile::tempdir().unwrap();
    let mut lake = Lake::open(dir.path(), "node1").unwrap();
    let held = std::fs::File::create(dir.path().join("LOCK")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(!lake.build(journal.as_ref(), &mut |_| {}).unwrap());
    drop(held);
    assert!(lake.build(journal.as_ref(), &mut |_| {}).unwrap());
}

#[test]
fn another_journals_lake_is_not_taken_for_ours() {
    let journal = Memory::new(SPAN_LEAVES, [(1, gap(1, None))]);
    let dir = tempfile::tempdir().unwrap();
    drop(built(dir.path(), &journal));
    let other = Lake::open(dir.path(), "node2").unwrap();
    assert!(other.contents().seals.is_empty());
}
