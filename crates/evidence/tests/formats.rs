//! Old formats stay loadable: one committed store for each format version.
//!
//! `tests/fixtures/v1` was written by `write_fixture_v1`; it is never written again, only
//! read. A change that makes this test fail needs a new format version and a new fixture.

mod common;

use std::path::{Path, PathBuf};

use common::{Bench, DIR, KEYS, alert, key, observation, vanish};
use plimsoll_evidence::note::PublicKey;
use plimsoll_evidence::{
    Hold, Journal, Leaf, Options, Payload, Place, Prune, Reader, Record, RetentionClass,
    RetentionPolicy, RetentionRule, Sealing, Tombstone, VerifyOptions, verify,
};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A private copy: opening for writing changes files.
fn copy_of_fixture() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for dir in ["", "leaves", "payloads"] {
        std::fs::create_dir_all(copy.path().join(dir)).unwrap();
        for item in std::fs::read_dir(fixture().join(dir))
            .unwrap()
            .map(Result::unwrap)
        {
            if item.metadata().unwrap().is_file() {
                let to = copy.path().join(dir).join(item.file_name());
                std::fs::write(to, std::fs::read(item.path()).unwrap()).unwrap();
            }
        }
    }
    copy
}

fn check_first_twelve(reader: &Reader) {
    for n in 0..12u64 {
        let entry = reader.get(Leaf(n)).unwrap().unwrap();
        let expected = if n % 4 == 3 { alert(n) } else { observation(n) };
        assert_eq!(
            (entry.header.kind, entry.header.class),
            (expected.kind, expected.class)
        );
        assert_eq!(
            (entry.header.wall_ns, entry.header.boot_ns),
            (expected.wall_ns, expected.boot_ns)
        );
        assert_eq!(entry.header.container, expected.container);
        match entry.payload {
            Payload::Present { bytes, .. } => assert_eq!(bytes, expected.payload),
            Payload::Pruned { tombstone } => {
                assert!(n < 8 && n % 4 != 3, "only old observations were pruned");
                assert_eq!(tombstone, Some(Leaf(12)));
            }
            Payload::Lost { why } => panic!("leaf {n}: {why}"),
        }
    }
}

#[test]
fn format_1_is_read() {
    let reader = Reader::open(fixture()).unwrap();
    assert_eq!(
        (reader.origin(), reader.end().unwrap()),
        ("fixture", Leaf(15))
    );
    check_first_twelve(&reader);
    let custody = reader.get(Leaf(12)).unwrap().unwrap();
    assert_eq!(custody.payload.bytes(), Some(&b"tombstone"[..]));
    // Two alerts that came when the disk was full.
    let kept = reader.get(Leaf(14)).unwrap().unwrap();
    assert_eq!(kept.payload.bytes(), Some(&b"alert 14"[..]));
    assert!(kept.header.urgent && kept.header.container == Some(key(9)));
    let scrub = reader.scrub(0..u64::MAX).unwrap();
    assert_eq!((scrub.checked, scrub.pruned), (15, 6));
    assert!(scrub.damage.is_empty() && scrub.lost.is_empty());
}

#[test]
fn format_1_is_continued() {
    let copy = copy_of_fixture();
    let (mut journal, recovery) = Journal::open(copy.path(), Options::new("fixture")).unwrap();
    assert_eq!((recovery.leaves, recovery.emergency.taken_over), (15, 2));
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty());
    assert_eq!(
        recovery.loss.map(|loss| (loss.count, loss.since_wall_ns)),
        Some((1, 1077))
    );
    let durable = journal.append_durable(alert(15)).unwrap();
    assert_eq!((durable.leaf, durable.place), (Leaf(15), Place::Journal));
    check_first_twelve(&journal.reader());
    assert_eq!(journal.reader().scrub(0..99).unwrap().checked, 16);
}

/// A sealed store: tree, two epochs of keys, checkpoints, a hold with copies, a tombstone.
fn sealed_fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1-sealed")
}

#[test]
fn a_sealed_store_of_format_1_is_verified() {
    let key = std::fs::read_to_string(sealed_fixture().join("root.pub")).unwrap();
    let options = VerifyOptions {
        key: Some(PublicKey::parse(&key).unwrap()),
        kept: Some(std::fs::read(sealed_fixture().join("journal/tlog/checkpoint")).unwrap()),
        threads: 1,
    };
    let report = verify(sealed_fixture().join("journal"), &options).unwrap();
    assert!(report.is_whole(), "{:#?}", report.problems);
    assert_eq!((report.epochs, report.origin.as_str()), (2, "fixture"));
    assert_eq!(report.kept, report.newest);
    let reader = Reader::open(sealed_fixture().join("journal")).unwrap();
    assert_eq!(reader.holds().unwrap()[0].id, "case-1");
    // Held and readable behind the tombstone; the rest of its class is gone.
    let held = reader.get(Leaf(3)).unwrap().unwrap();
    assert_eq!(held.payload.bytes(), Some(&b"observation 2"[..]));
    let gone = reader.get(Leaf(2)).unwrap().unwrap();
    assert!(matches!(gone.payload, Payload::Pruned { .. }));
}

#[test]
#[ignore = "writes the fixture; run only when a new format version gets its own"]
fn write_fixture_v1_sealed() {
    let bench = Bench {
        emergency_bytes: 12 << 10,
        ..Bench::new()
    };
    let mut options = bench.options();
    options.origin = "fixture".to_owned();
    options.sealing = Some(Sealing::new(KEYS));
    let (mut journal, _) = Journal::open(DIR, options).unwrap();
    for n in 0..20 {
        journal
            .append(if n % 4 == 3 { alert(n) } else { observation(n) })
            .unwrap();
        if n == 10 {
            journal.sync().unwrap();
            bench.clock.advance_ms(3_600_000);
        }
    }
    journal.checkpoint().unwrap();
    let hold = Hold {
        id: "case-1".to_owned(),
        containers: vec![key(2)],
        leaves: vec![],
        wall_ns: 1,
        subject: "container two".to_owned(),
        reason: "fixture".to_owned(),
        uid: 0,
    };
    journal.hold(&hold).unwrap();
    let class = RetentionClass::OBSERVATION;
    let rule = RetentionRule {
        class,
        max_age_ms: None,
        max_bytes: Some(700),
    };
    let plan = journal
        .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
        .unwrap();
    let payload = Tombstone::of(&plan[0], "retention", "fixture").encode();
    journal
        .prune(&plan[0], Record::new(11, RetentionClass::CUSTODY, payload))
        .unwrap();
    journal.close().unwrap();
    let key = Path::new("/k/root.pub");
    std::fs::create_dir_all(sealed_fixture()).unwrap();
    std::fs::write(sealed_fixture().join("root.pub"), bench.disk.bytes(key)).unwrap();
    for path in bench
        .disk
        .paths()
        .iter()
        .filter(|path| path.starts_with(DIR))
    {
        if path.ends_with("LOCK") {
            continue;
        }
        let to = sealed_fixture()
            .join("journal")
            .join(path.strip_prefix(DIR).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bench.disk.bytes(path)).unwrap();
    }
}

#[test]
#[ignore = "writes the fixture; run only when a new format version gets its own"]
fn write_fixture_v1() {
    let bench = Bench {
        emergency_bytes: 12 << 10,
        ..Bench::new()
    };
    let mut options = bench.options();
    options.origin = "fixture".to_owned();
    let (mut journal, _) = Journal::open(DIR, options).unwrap();
    for n in 0..12 {
        journal
            .append(if n % 4 == 3 { alert(n) } else { observation(n) })
            .unwrap();
    }
    journal.sync().unwrap();
    let class = RetentionClass::OBSERVATION;
    let rule = RetentionRule {
        class,
        max_age_ms: None,
        max_bytes: Some(1),
    };
    let plan = journal
        .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
        .unwrap();
    let [prune]: &[Prune; 1] = plan[..].try_into().unwrap();
    let tombstone = Record::new(90, RetentionClass::CUSTODY, b"tombstone".to_vec());
    journal.prune(prune, tombstone).unwrap();
    bench.disk.set_room(Some(0));
    journal.append(observation(77)).unwrap();
    journal.append_durable(alert(13)).unwrap();
    journal.append_durable(alert(14)).unwrap();
    vanish(journal);
    for path in bench
        .disk
        .paths()
        .iter()
        .filter(|path| !path.ends_with("LOCK"))
    {
        let to = fixture().join(path.strip_prefix(DIR).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bench.disk.bytes(path)).unwrap();
    }
}
