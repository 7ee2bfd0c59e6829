//! Whatever file rows are in, and however few columns it keeps, every table says the same.

mod common;

use common::*;
use plimsoll_lake::{Lake, MERGED_SPANS, SPAN_LEAVES, Table};
use plimsoll_model::{BehaviourId, Record, record};
use std::sync::Arc;

/// Eight spans and a bit: containers that do the same and different things, often and rarely.
fn journal() -> Arc<Memory> {
    let end = MERGED_SPANS[0] * SPAN_LEAVES + 40;
    let names = ["aaaa", "bbbb", "cccc"];
    let acts = (0..900_u64).map(move |n| {
        let leaf = n * (end / 900) + 7;
        let who = names[(n % 3) as usize];
        let what = match n % 10 {
            0 => format!("/tmp/once-{n}"),
            few => format!("/srv/{}", few % 4),
        };
        (leaf, observed(who, leaf, file(what)))
    });
    let known = (0..3).map(move |n| (n, container(names[n as usize], names[n as usize])));
    let gaps = (0..9).map(|n| (n * SPAN_LEAVES + 5, gap(n * SPAN_LEAVES + 5, Some(n))));
    let tail = (1..30).map(move |n| (end - n, observed("dddd", end - n, file("/srv/1"))));
    Memory::new(end, known.chain(gaps).chain(acts).chain(tail))
}

#[test]
fn every_table_says_the_same_from_the_journal_and_from_merged_files() {
    let journal = journal();
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    assert_eq!(lake.contents().seals.len(), 1, "one merged file of each");
    for table in Table::ALL.iter().filter(|t| **t != Table::Fingerprints) {
        let sql = format!("select * from {} order by leaf", table.name());
        let (files, _) = ask(&lake, &journal, &sql);
        let (direct, _) = ask(&Lake::none(), &journal, &sql);
        assert_eq!(files, direct, "{}", table.name());
    }
}

#[test]
fn statements_about_behaviours_find_the_same_rows_whichever_file_decides() {
    let journal = journal();
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let id = &ask(
        &lake,
        &journal,
        "select behaviour from behaviours where object = '/srv/2' limit 1",
    )
    .0[0][0];
    for end in [
        "where object = '/srv/1' order by leaf".to_owned(),
        "where object like '/tmp/once-%' order by leaf".to_owned(),
        "where object like '/srv/%' and container_name = 'bbbb' order by leaf".to_owned(),
        "where object = '/srv/1' or container = 'aaaa' order by leaf".to_owned(),
        "where program = container order by leaf".to_owned(),
        "where object = '/nowhere'".to_owned(),
        "where container = 'cccc' and leaf > 400000 order by leaf".to_owned(),
        format!("where behaviour = '{id}' order by leaf"),
    ] {
        for columns in ["*", "leaf, behaviour, count", "time", "object, leaf"] {
            let order = end.replace("order by leaf", "");
            let sql = match columns {
                "time" => format!("select time from behaviours {order} order by time"),
                _ => format!("select {columns} from behaviours {end}"),
            };
            let (files, _) = ask(&lake, &journal, &sql);
            let (direct, _) = ask(&Lake::none(), &journal, &sql);
            assert_eq!(files, direct, "{sql}");
        }
    }
    let sql = "select count(*), count(object), sum(count) from behaviours";
    assert_eq!(
        ask(&lake, &journal, sql).0,
        ask(&Lake::none(), &journal, sql).0
    );
}

#[test]
fn first_occurrences_are_those_of_the_rows() {
    let journal = journal();
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let by_rows = "select behaviour, object, min(time), min(leaf), max(time), sum(count) \
                   from behaviours group by behaviour, object order by behaviour";
    let by_first = "select behaviour, object, min(time), min(leaf), max(last), sum(count) \
                    from fingerprints group by behaviour, object order by behaviour";
    let (rows, _) = ask(&lake, &journal, by_rows);
    assert!(rows.len() > 90, "{}", rows.len());
    for lake in [&lake, &Lake::none()] {
        assert_eq!(ask(lake, &journal, by_first).0, rows);
    }
    // three containers of the files do it, and a fourth only in the tail
    let counted = "select containers from fingerprints where object = '/srv/1' order by containers";
    let found = ask(&lake, &journal, counted).0;
    assert_eq!(found.last().map(|r| r[0].as_str()), Some("3"), "{found:?}");
}

#[test]
fn the_row_of_a_first_occurrence_names_its_leaf_and_container() {
    let journal = journal();
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let one = "select leaf, container, object from {} where object = '/tmp/once-450'";
    let from = |table| ask(&lake, &journal, &one.replace("{}", table)).0;
    assert_eq!(from("fingerprints"), from("behaviours"));
    assert_eq!(from("fingerprints").len(), 1);
}

#[test]
fn files_of_an_older_layout_are_made_again() {
    let journal = Memory::new(SPAN_LEAVES, [(1, observed("aaaa", 1, file("/x")))]);
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let path = dir.path().join(lake.contents().seals[0].name());
    // a seal of layout 1, with its own right hash
    let old = plimsoll_lake::Seal {
        version: 1,
        ..lake.contents().seals[0].clone()
    };
    std::fs::write(&path, old.encode()).unwrap();
    let opened = Lake::open(dir.path(), "node1").unwrap();
    assert!(opened.contents().seals.is_empty());
    assert_eq!(opened.contents().damage.len(), 1, "it is said");
    let again = built(dir.path(), &journal);
    let sql = "select leaf, object from behaviours";
    assert_eq!(ask(&again, &journal, sql).0, [["1", "/x"]]);
}

#[test]
fn files_that_are_not_the_lakes_change_no_answer() {
    let journal = Memory::new(SPAN_LEAVES, [(1, observed("aaaa", 1, file("/x")))]);
    let dir = tempfile::tempdir().unwrap();
    drop(built(dir.path(), &journal));
    for name in [
        "behaviours/zzz.parquet",
        "fingerprints/00000000000000065536-00000000000000131072.parquet",
        "seals/note.txt",
        "known/x.cbor",
    ] {
        std::fs::write(dir.path().join(name), b"PAR1 of somebody else").unwrap();
    }
    let lake = Lake::open(dir.path(), "node1").unwrap();
    let sql = "select leaf, object from behaviours";
    assert_eq!(ask(&lake, &journal, sql).0, [["1", "/x"]]);
    assert_eq!(ask(&built(dir.path(), &journal), &journal, sql).0.len(), 1);
}

#[test]
fn a_damaged_short_table_ends_the_statement_and_is_made_again() {
    let journal = journal();
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let name = lake.contents().seals[0].file_name("fingerprints");
    let path = dir.path().join(&name);
    let whole = std::fs::read(&path).unwrap();
    let mut bad = whole.clone();
    let middle = bad.len() / 2;
    bad[middle..].fill(0x5a);
    std::fs::write(&path, &bad).unwrap();
    let spill = tempfile::tempdir().unwrap();
    let sql = "select object from behaviours";
    let found = try_ask(&lake, &journal, sql, &limits(spill.path()));
    assert!(
        matches!(found, Err(plimsoll_lake::LakeError::Damaged { .. })),
        "{found:?}"
    );
    let mut lake = lake;
    assert_eq!(lake.check().unwrap(), [name]);
    let lake = built(dir.path(), &journal);
    assert_eq!(
        ask(&lake, &journal, "select count(*) from behaviours").0,
        ask(&Lake::none(), &journal, "select count(*) from behaviours").0
    );
    assert_eq!(std::fs::read(&path).unwrap(), whole, "byte for byte");
}

/// What follows from other columns is not in the files; whoever reads them sees it all the same.
#[test]
fn ids_that_files_leave_out_are_found_and_put_back() {
    let id = |n: u8| BehaviourId([n; 16]);
    let presence = Record::Presence(record::Presence {
        instance: instance("aaaa"),
        from: stamp(20),
        to: stamp(21),
        counts: vec![(id(7), 3), (id(9), 1)],
    });
    let acts = (0..60).map(|n| {
        let what = match n % 4 {
            0 => file(b"/bad\xff".as_slice()),
            1 => file(format!("/once/{n}")),
            _ => file("/often"),
        };
        (
            100 + n,
            observed(["aaaa", "bbbb"][(n % 2) as usize], 100 + n, what),
        )
    });
    let own = [(0, container("aaaa", "web")), (20, presence)];
    let journal = Memory::new(SPAN_LEAVES, own.into_iter().chain(acts));
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let all = ask(
        &lake,
        &journal,
        "select behaviour from fingerprints order by behaviour",
    )
    .0;
    assert!(
        all.len() > 18 && all.iter().all(|r| r[0].len() == 32),
        "{all:?}"
    );
    let (one, other) = (&all[3][0], &all[9][0]);
    let present = id(7);
    for end in [
        String::new(),
        format!("where behaviour = '{one}'"),
        format!("where '{one}' = behaviour and last >= time"),
        format!("where behaviour in ('{one}', '{other}', '{present}')"),
        format!("where behaviour = '{one}' or behaviour = '{other}'"),
        format!("where behaviour <> '{one}'"),
        format!("where behaviour > '{one}' and count > 1"),
        format!("where behaviour = '{present}'"),
        format!("where behaviour = '{one}0'"),
        "where behaviour = 'none'".to_owned(),
        "where behaviour is null".to_owned(),
        "where behaviour like '0%' or object = '/often'".to_owned(),
        "where last > time".to_owned(),
        "where last = time and object like '/once/%'".to_owned(),
    ] {
        for (table, columns) in [
            ("fingerprints", "*"),
            ("fingerprints", "leaf, behaviour"),
            ("fingerprints", "leaf, last"),
            ("fingerprints", "leaf, count"),
            ("behaviours", "leaf, behaviour, object"),
        ] {
            if table == "behaviours" && end.contains("last") {
                continue;
            }
            let sql = format!("select {columns} from {table} {end}");
            let (mut files, looked) = ask(&lake, &journal, &sql);
            let (mut direct, _) = ask(&Lake::none(), &journal, &sql);
            files.sort();
            direct.sort();
            assert_eq!(files, direct, "{sql}");
            assert_eq!(looked.tail_rows, 0);
        }
    }
    let (count, _) = ask(
        &lake,
        &journal,
        "select count(*), count(behaviour) from fingerprints",
    );
    assert_eq!(count, [[all.len().to_string(), all.len().to_string()]]);
}

/// A container whose rows are few reads of what was done only what they name; one whose rows name
/// too much reads all of it, and says no less.
#[test]
fn rows_of_one_container_are_the_same_however_many_they_are() {
    let acts = (0..9_200_u64).map(|n| {
        let leaf = n * 7 + 10;
        let who = if n % 90 == 0 { "bbbb" } else { "aaaa" };
        (leaf, observed(who, leaf, file(format!("/tmp/once-{n}"))))
    });
    let known = ["aaaa", "bbbb"].into_iter().enumerate();
    let known = known.map(|(n, who)| (n as u64, container(who, who)));
    let journal = Memory::new(SPAN_LEAVES, known.chain(acts));
    let dir = tempfile::tempdir().unwrap();
    let lake = built(dir.path(), &journal);
    let mut read = Vec::new();
    for (who, count) in [("aaaa", 9_097), ("bbbb", 103), ("cccc", 0)] {
        let sql = format!("select * from behaviours where container = '{who}' order by leaf");
        let (files, looked) = ask(&lake, &journal, &sql);
        assert_eq!(files.len(), count, "{who}");
        assert_eq!(files, ask(&Lake::none(), &journal, &sql).0, "{who}");
        read.push(looked.bytes_read);
    }
    assert!(read[0] > read[1] && read[1] > read[2], "{read:?}");
}
