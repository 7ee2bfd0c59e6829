//! What verification finds: every flipped byte, dropped record, reordered segment and rolled-back
//! store; and that it finds nothing where nothing is wrong.

mod common;

use common::{Bench, DIR, Dice, KEYS, SimDisk, alert, observation};
use plimsoll_evidence::note::PublicKey;
use plimsoll_evidence::{
    Fault, Journal, Record, RetentionClass, RetentionPolicy, RetentionRule, Sealing, Tombstone,
    VerifyOptions, VerifyReport, verify_on,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn sealed(bench: &Bench) -> Journal {
    let mut options = bench.options();
    options.sealing = Some(Sealing::new(KEYS));
    options.entropy = common::seeded_entropy(bench.disk.syncs() + 1);
    Journal::open(DIR, options).expect("opens").0
}

fn root_key(disk: &SimDisk) -> PublicKey {
    let text = disk.bytes(Path::new("/k/root.pub"));
    PublicKey::parse(std::str::from_utf8(&text).unwrap()).unwrap()
}

/// Forty records over five subtrees, an hour's change of keys, several checkpoints, a removal.
fn store() -> Bench {
    let bench = Bench {
        emergency_bytes: 12 << 10,
        ..Bench::new()
    };
    let mut journal = sealed(&bench);
    for n in 0..38 {
        journal
            .append(if n % 7 == 6 { alert(n) } else { observation(n) })
            .unwrap();
        if n % 5 == 4 {
            journal.checkpoint().unwrap();
        }
        if n == 20 {
            bench.clock.advance_ms(3_600_000);
            journal.sync().unwrap();
        }
    }
    journal.checkpoint().unwrap();
    let rule = RetentionRule {
        class: RetentionClass::OBSERVATION,
        max_age_ms: None,
        max_bytes: Some(1200),
    };
    let plan = journal
        .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
        .unwrap();
    assert!(!plan.is_empty());
    for prune in &plan {
        let payload = Tombstone::of(prune, "retention", "test").encode();
        journal
            .prune(prune, Record::new(11, RetentionClass::CUSTODY, payload))
            .unwrap();
    }
    drop(journal);
    bench
}

fn options(disk: &SimDisk) -> VerifyOptions {
    VerifyOptions {
        key: Some(root_key(disk)),
        kept: None,
        threads: 1,
    }
}

fn check(disk: &SimDisk, options: &VerifyOptions) -> VerifyReport {
    verify_on(Arc::new(disk.clone()), DIR, options).expect("there is a store")
}

fn kept_of(disk: &SimDisk) -> Vec<u8> {
    disk.bytes(Path::new("/j/tlog/checkpoint"))
}

#[test]
fn a_whole_store_is_whole() {
    let bench = store();
    let report = check(&bench.disk, &options(&bench.disk));
    assert!(report.is_whole(), "{:#?}", report.problems);
    assert_eq!((report.epochs, report.pruned > 0), (2, true));
    assert!(report.checkpoints >= 10);
    assert_eq!(report.newest.as_ref().map(|c| c.size), Some(report.records));
    assert!(
        report
            .unknown
            .iter()
            .any(|u| u.contains("without a checkpoint kept elsewhere"))
    );
    // With several threads, and without the key, it is the same and says what that cannot show.
    let report = check(&bench.disk, &VerifyOptions::default());
    assert!(
        report.is_whole()
            && report
                .unknown
                .iter()
                .any(|u| u.contains("from the store itself"))
    );
}

#[test]
fn any_flipped_byte_is_found_and_named() {
    let bench = store();
    let options = options(&bench.disk);
    let seed = std::env::var("PLIMSOLL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(11);
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let files = bench
        .disk
        .paths()
        .into_iter()
        .filter(|path| path.starts_with(DIR));
    for path in files.collect::<Vec<_>>() {
        let whole = bench.disk.bytes(&path);
        let relevant = match path.file_name().unwrap().to_str().unwrap() {
            // The writer's process id: means nothing once it is gone.
            "LOCK" => 0,
            // Behind its header lies what the journal has taken over: no record.
            "emergency.seg" => 96,
            _ => whole.len(),
        };
        for at in 0..relevant {
            // Each header byte, and one in eight of the rest.
            if at >= 96 && dice.below(8) != 0 {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << dice.below(8);
            bench.disk.put(&path, bytes);
            let found = verify_on(Arc::new(bench.disk.clone()), DIR, &options);
            let named = match &found {
                Ok(report) => !report.is_whole(),
                // journal.meta: the store cannot even be opened, and the error names the file
                Err(error) => error.to_string().contains(path.to_str().unwrap()),
            };
            assert!(named, "{}: byte {at}: {found:?}", path.display());
            if let (Ok(report), true) = (
                &found,
                path.extension().is_some_and(|e| e == "leaf") && at >= 96,
            ) {
                let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                let leaf = first + (at as u64 - 96) / 96;
                assert_eq!(
                    report.problems[0].leaf,
                    Some(leaf),
                    "byte {at}: {:?}",
                    report.problems
                );
                assert_eq!(report.problems[0].fault, Fault::DamagedRecord);
            }
        }
        bench.disk.put(&path, whole);
    }
    assert!(check(&bench.disk, &options).is_whole());
}

fn segment(disk: &SimDisk, number: usize) -> PathBuf {
    let mut all: Vec<_> = disk
        .paths()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "leaf"))
        .collect();
    all.sort();
    all.swap_remove(number)
}

/// A forger who mends every checksum: only the tree can tell.
fn forge(disk: &SimDisk, path: &Path, at: u64, change: impl Fn(&mut [u8])) {
    let mut bytes = disk.bytes(path);
    let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let place = 96 + 96 * usize::try_from(at - first).unwrap();
    change(&mut bytes[place..place + 80]);
    let store: [u8; 16] = bytes[40..56].try_into().unwrap();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&store), &at.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &bytes[place..place + 92]);
    bytes[place + 92..place + 96].copy_from_slice(&crc.to_le_bytes());
    disk.put(path, bytes);
}

#[test]
fn a_record_changed_with_its_checksum_is_named_by_its_tile() {
    let bench = store();
    // the time of the fact of record 10, in the second segment
    forge(&bench.disk, &segment(&bench.disk, 1), 10, |leaf| {
        leaf[16] ^= 1
    });
    let report = check(&bench.disk, &options(&bench.disk));
    let first = &report.problems[0];
    assert_eq!(
        (first.fault, first.leaf, first.own),
        (Fault::AlteredRecord, Some(10), true),
        "{:#?}",
        report.problems
    );
}

#[test]
fn with_its_tile_mended_too_the_stretch_between_two_checkpoints_is_named() {
    let bench = store();
    forge(&bench.disk, &segment(&bench.disk, 1), 10, |leaf| {
        leaf[16] ^= 1
    });
    for path in bench
        .disk
        .paths()
        .iter()
        .filter(|p| p.starts_with("/j/tlog/tile"))
    {
        bench.disk.delete(path);
    }
    let report = check(&bench.disk, &options(&bench.disk));
    let first = &report.problems[0];
    assert_eq!(first.fault, Fault::Forked, "{:#?}", report.problems);
    let (from, to) = (first.leaf.unwrap(), first.last.unwrap());
    assert!((from..=to).contains(&10) && to - from < 8, "{from} to {to}");
}

#[test]
fn dropped_and_reordered_segments_are_named() {
    let bench = store();
    let options = options(&bench.disk);
    let (two, three) = (segment(&bench.disk, 2), segment(&bench.disk, 3));
    let (a, b) = (bench.disk.bytes(&two), bench.disk.bytes(&three));
    bench.disk.delete(&two);
    let report = check(&bench.disk, &options);
    let missing = report
        .problems
        .iter()
        .find(|p| p.fault == Fault::MissingRecords)
        .unwrap();
    assert_eq!(
        (missing.leaf, missing.last),
        (Some(16), Some(23)),
        "{:#?}",
        report.problems
    );
    bench.disk.put(&two, b);
    bench.disk.put(&three, a.clone());
    let report = check(&bench.disk, &options);
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.leaf == Some(16) && p.fault == Fault::DamagedRecord)
    );
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.path.as_deref() == Some(&two)),
        "{:#?}",
        report.problems
    );
}

#[test]
fn a_dropped_payload_file_is_named_and_a_false_stub_does_not_hide_it() {
    let bench = store();
    let options = options(&bench.disk);
    let alerts = bench.disk.path_ending("00000000000000000024.01.pay");
    let whole = bench.disk.bytes(&alerts);
    bench.disk.delete(&alerts);
    let report = check(&bench.disk, &options);
    assert_eq!(
        report.problems[0].fault,
        Fault::DamagedPayload,
        "{:#?}",
        report.problems
    );
    assert_eq!(
        report.problems[0].near.unwrap().class,
        RetentionClass::ALERT
    );
    // A stub copied from a real removal names another place; one whose header was mended names a
    // tombstone that does not speak of it.
    let stub = bench.disk.path_ending("00000000000000000000.03.pruned");
    let mut bytes = bench.disk.bytes(&stub);
    bytes[10] = 1;
    bytes[16..24].copy_from_slice(&24u64.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&crc);
    bench.disk.put(&alerts.with_extension("pruned"), bytes);
    let report = check(&bench.disk, &options);
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.fault == Fault::BadTombstone)
    );
    bench.disk.delete(&alerts.with_extension("pruned"));
    bench.disk.put(&alerts, whole);
    assert!(check(&bench.disk, &options).is_whole());
}

#[test]
fn a_rolled_back_store_is_whole_by_itself_and_not_against_a_kept_checkpoint() {
    let bench = Bench::new();
    let mut journal = sealed(&bench);
    for n in 0..20 {
        journal.append(observation(n)).unwrap();
    }
    journal.checkpoint().unwrap();
    let earlier = bench.disk.copy();
    for n in 20..30 {
        journal.append(observation(n)).unwrap();
    }
    journal.checkpoint().unwrap();
    drop(journal);
    let kept = VerifyOptions {
        kept: Some(kept_of(&bench.disk)),
        ..options(&bench.disk)
    };
    assert!(check(&bench.disk, &kept).is_whole());
    assert!(
        check(&earlier, &options(&bench.disk)).is_whole(),
        "an earlier state agrees with itself"
    );
    let report = check(&earlier, &kept);
    assert_eq!(
        (report.problems[0].fault, report.problems[0].leaf),
        (Fault::Truncated, Some(21))
    );

    // The rolled-back store goes on with other records: another history.
    let bench = Bench {
        disk: earlier,
        ..bench
    };
    let mut journal = sealed(&bench);
    for n in 50..70 {
        journal.append(observation(n)).unwrap();
    }
    drop(journal);
    let report = check(&bench.disk, &kept);
    assert!(
        report
            .problems
            .iter()
            .any(|p| p.fault == Fault::Forked && p.last == Some(30)),
        "{:#?}",
        report.problems
    );
    assert!(check(&bench.disk, &options(&bench.disk)).is_whole());
}

#[test]
fn a_cut_tail_is_missed_by_the_stores_own_checkpoints() {
    let bench = store();
    let last = segment(&bench.disk, 4);
    let bytes = bench.disk.bytes(&last);
    bench.disk.put(&last, bytes[..bytes.len() - 96].to_vec());
    bench.disk.delete(Path::new("/j/head"));
    let report = check(&bench.disk, &options(&bench.disk));
    assert!(
        matches!(
            report.problems[0].fault,
            Fault::Truncated | Fault::MissingRecords
        ),
        "{:#?}",
        report.problems
    );
}

#[test]
fn another_nodes_key_and_a_forged_checkpoint_are_refused() {
    let bench = store();
    let other = store_of_another_node();
    let wrong = VerifyOptions {
        key: Some(root_key(&other.disk)),
        ..VerifyOptions::default()
    };
    assert!(
        check(&bench.disk, &wrong)
            .problems
            .iter()
            .any(|p| p.fault == Fault::BadKey)
    );
    let kept = VerifyOptions {
        kept: Some(kept_of(&other.disk)),
        ..options(&bench.disk)
    };
    assert!(
        check(&bench.disk, &kept)
            .problems
            .iter()
            .any(|p| p.fault == Fault::BadCheckpoint)
    );
}

fn store_of_another_node() -> Bench {
    let bench = Bench::new();
    let mut options = bench.options();
    options.origin = "node-2".to_owned();
    options.sealing = Some(Sealing::new(KEYS));
    options.entropy = common::seeded_entropy(99);
    drop(Journal::open(DIR, options).unwrap());
    bench
}
