//! Holds and bundles: what outlives retention, and what leaves the store, with its proof.

mod common;

use common::{Bench, DIR, Dice, KEYS, alert, key, observation};
use plimsoll_evidence::note::PublicKey;
use plimsoll_evidence::{
    Bundle, BundleError, BundleParts, Fault, Filter, Hold, HoldError, Journal, Leaf, Reader,
    Record, RetentionClass, RetentionPolicy, RetentionRule, Sealing, Tombstone, VerifyOptions,
    verify_on, write_bundle,
};
use std::path::Path;
use std::sync::Arc;

fn sealed(bench: &Bench) -> Journal {
    let mut options = bench.options();
    options.sealing = Some(Sealing::new(KEYS));
    options.entropy = common::seeded_entropy(bench.disk.syncs() + 1);
    Journal::open(DIR, options).expect("opens").0
}

fn hold(id: &str, container: u8, leaves: &[u64]) -> Hold {
    Hold {
        id: id.to_owned(),
        containers: vec![key(container)],
        leaves: leaves.iter().copied().map(Leaf).collect(),
        wall_ns: 5,
        subject: "container web".to_owned(),
        reason: "case 7".to_owned(),
        uid: 1000,
    }
}

fn grow(journal: &mut Journal, range: std::ops::Range<u64>) {
    for n in range {
        journal.append(observation(n)).unwrap();
    }
}

fn prune_all(journal: &mut Journal) {
    let rule = RetentionRule {
        class: RetentionClass::OBSERVATION,
        max_age_ms: None,
        max_bytes: Some(0),
    };
    let plan = journal
        .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
        .unwrap();
    for prune in &plan {
        let payload = Tombstone::of(prune, "retention", "test").encode();
        journal
            .prune(prune, Record::new(11, RetentionClass::CUSTODY, payload))
            .unwrap();
    }
}

fn contents(reader: &Reader) -> Vec<(u64, bool)> {
    let all = reader
        .scan(Filter {
            classes: vec![RetentionClass::OBSERVATION],
            ..Filter::default()
        })
        .unwrap();
    all.map(|e| e.unwrap())
        .map(|e| (e.leaf.0, e.payload.bytes().is_some()))
        .collect()
}

fn check(bench: &Bench) -> plimsoll_evidence::VerifyReport {
    let text = bench.disk.bytes(Path::new("/k/root.pub"));
    let key = PublicKey::parse(std::str::from_utf8(&text).unwrap()).unwrap();
    let options = VerifyOptions {
        key: Some(key),
        kept: None,
        threads: 1,
    };
    verify_on(Arc::new(bench.disk.clone()), DIR, &options).unwrap()
}

#[test]
fn what_is_held_stays_readable_and_proven_when_retention_has_removed_the_rest() {
    let bench = Bench::new();
    let mut journal = sealed(&bench);
    grow(&mut journal, 0..40);
    journal.sync().unwrap();
    journal.hold(&hold("case-7", 2, &[9])).unwrap();
    // also what comes later
    grow(&mut journal, 40..60);
    journal.sync().unwrap();
    prune_all(&mut journal);
    // observation n is leaf n + 1 and about container n % 5
    for (leaf, there) in contents(&bench.reader())
        .into_iter()
        .filter(|(leaf, _)| *leaf < 56)
    {
        assert_eq!(there, (leaf - 1) % 5 == 2 || leaf == 9, "leaf {leaf}");
    }
    let report = check(&bench);
    assert!(report.is_whole(), "{:#?}", report.problems);
    // and after a restart
    drop(journal);
    let mut journal = sealed(&bench);
    assert_eq!(journal.reader().holds().unwrap(), [hold("case-7", 2, &[9])]);
    // Another hold keeps record 9 when the first one goes.
    journal.hold(&hold("case-8", 77, &[9])).unwrap();
    journal.release("case-7").unwrap();
    let kept: Vec<u64> = contents(&bench.reader())
        .into_iter()
        .filter(|(leaf, there)| *there && *leaf < 56)
        .map(|(leaf, _)| leaf)
        .collect();
    assert!(kept.contains(&9) && !kept.contains(&23), "{kept:?}");
    journal.release("case-8").unwrap();
    assert!(
        contents(&bench.reader())
            .iter()
            .all(|(leaf, there)| !there || *leaf >= 56)
    );
    assert!(check(&bench).is_whole());
}

#[test]
fn an_altered_hold_stops_removal_and_altered_copies_are_named() {
    let bench = Bench::new();
    let mut journal = sealed(&bench);
    grow(&mut journal, 0..20);
    journal.sync().unwrap();
    journal.hold(&hold("case-7", 2, &[])).unwrap();
    let path = bench.disk.path_ending("case-7.hold");
    let whole = bench.disk.bytes(&path);
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    bench.disk.put(&path, bytes);
    let rule = RetentionRule {
        class: RetentionClass::OBSERVATION,
        max_age_ms: None,
        max_bytes: Some(0),
    };
    let plan = journal
        .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
        .unwrap();
    let tombstone = Record::new(11, RetentionClass::CUSTODY, vec![]);
    assert!(journal.prune(&plan[0], tombstone).is_err());
    assert!(
        contents(&bench.reader()).iter().all(|(_, there)| *there),
        "nothing was removed"
    );
    bench.disk.put(&path, whole);
    prune_all(&mut journal);
    journal.checkpoint().unwrap();
    let held = bench.disk.path_ending("00000000000000000000.03.held");
    let whole = bench.disk.bytes(&held);
    let mut dice = Dice::new(3);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << dice.below(8);
        bench.disk.put(&held, bytes);
        assert!(
            check(&bench)
                .problems
                .iter()
                .any(|p| p.path.as_deref() == Some(&held)),
            "byte {at}"
        );
    }
}

#[test]
fn holds_are_bounded_and_named_once() {
    let bench = Bench::new();
    let mut journal = sealed(&bench);
    journal.hold(&hold("a", 1, &[])).unwrap();
    assert!(matches!(
        journal.hold(&hold("a", 1, &[])),
        Err(HoldError::Exists(_))
    ));
    assert!(matches!(
        journal.hold(&hold("../a", 1, &[])),
        Err(HoldError::Name)
    ));
    assert!(matches!(journal.release("b"), Err(HoldError::Unknown(_))));
}

/// A store on the machine's disk, with its key.
fn real_store(dir: &Path) -> (Journal, PublicKey) {
    let mut options = plimsoll_evidence::Options::new("node-1");
    options.emergency_bytes = 12 << 10;
    options.subtree_leaves = 8;
    options.sealing = Some(Sealing::new(dir.join("keys")));
    let (mut journal, _) = Journal::open(dir.join("journal"), options).unwrap();
    for n in 0..30 {
        journal
            .append(if n % 7 == 6 { alert(n) } else { observation(n) })
            .unwrap();
    }
    journal.checkpoint().unwrap();
    let key = plimsoll_evidence::exported_key(&dir.join("keys")).unwrap();
    (journal, key)
}

fn parts(dir: &Path) -> BundleParts {
    let capture = dir.join("capture");
    std::fs::write(&capture, vec![7; 1000]).unwrap();
    BundleParts {
        leaves: [3, 7, 14, 21].map(Leaf).to_vec(),
        manifest: b"{\"subject\":\"test\"}".to_vec(),
        files: vec![("captures/one".to_owned(), capture)],
    }
}

#[test]
fn a_bundle_verifies_alone_is_deterministic_and_any_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, key) = real_store(dir.path());
    let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
    let summary = write_bundle(&one, &journal.reader(), parts(dir.path())).unwrap();
    assert_eq!(
        (summary.records, summary.files, summary.without_content),
        (4, 1, 0)
    );
    write_bundle(&two, &journal.reader(), parts(dir.path())).unwrap();
    let whole = std::fs::read(&one).unwrap();
    assert_eq!(whole, std::fs::read(&two).unwrap());
    assert!(Bundle::is_one(&one));
    assert!(
        matches!(
            write_bundle(&one, &journal.reader(), parts(dir.path())),
            Err(BundleError::Io { .. })
        ),
        "never overwritten"
    );

    let options = VerifyOptions {
        key: Some(key),
        kept: None,
        threads: 1,
    };
    let bundle = Bundle::read(&one).unwrap();
    let report = bundle.verify(&options);
    assert!(report.is_whole(), "{:#?}", report.problems);
    assert_eq!(
        (
            report.records,
            report.checkpoints,
            bundle.origin().as_deref()
        ),
        (4, 1, Some("node-1"))
    );
    let alert = bundle.get(Leaf(7)).unwrap();
    assert_eq!(
        alert.payload.as_ref().map(|p| &p.1[..]),
        Some(&b"alert 6"[..])
    );
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&two, bytes).unwrap();
        let found = Bundle::read(&two).map(|b| b.verify(&options));
        assert!(
            found.is_err() || found.is_ok_and(|r| !r.is_whole()),
            "byte {at}"
        );
    }
    for len in (0..whole.len()).step_by(97) {
        std::fs::write(&two, &whole[..len]).unwrap();
        assert!(
            Bundle::read(&two).map_or(true, |b| !b.verify(&options).is_whole()),
            "cut at {len}"
        );
    }
}

#[test]
fn a_bundle_of_another_node_or_of_nothing_signed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = real_store(&dir.path().join("a"));
    let (_, other) = real_store(&dir.path().join("b"));
    let path = dir.path().join("one.tar");
    write_bundle(&path, &journal.reader(), parts(dir.path())).unwrap();
    let options = VerifyOptions {
        key: Some(other),
        kept: None,
        threads: 1,
    };
    let report = Bundle::read(&path).unwrap().verify(&options);
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.fault == Fault::BadCheckpoint)
    );
    let beyond = BundleParts {
        leaves: vec![Leaf(400)],
        ..BundleParts::default()
    };
    let path = dir.path().join("two.tar");
    assert!(matches!(
        write_bundle(&path, &journal.reader(), beyond),
        Err(BundleError::Unsealed)
    ));
    assert!(!path.exists());
}
