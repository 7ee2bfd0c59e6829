//! What verification finds: every flipped byte, dropped record, reordered segment and rolled-back
//! store; and that it finds nothing where nothing is wrong.

mod common;

use common::{Bench, DIR, Dice, KEYS, SimDisk, alert, observation};
use plimsoll_evidence::Disk as _;
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

/// Faults that say what lies in a file of this name, beside those of single records.
fn region(path: &Path) -> &'static [Fault] {
    let name = path.to_str().unwrap();
    let ends = |e: &str| name.ends_with(e);
    match () {
        () if ends(".leaf") => &[Fault::DamagedRecord, Fault::DamagedFile],
        () if ends(".pay") => &[Fault::DamagedPayload, Fault::DamagedFile],
        () if ends(".pruned") => &[Fault::DamagedFile, Fault::BadTombstone],
        () if name.contains("/tlog/tile/") => &[Fault::DamagedTile],
        () if ends("/tlog/keys") => &[Fault::BadKey],
        () if ends(".notes") || ends("/tlog/checkpoint") => &[Fault::BadCheckpoint],
        () => &[Fault::DamagedFile],
    }
}

/// The record whose payload frame a byte of a payload file lies in.
fn payload_at(bytes: &[u8], at: usize) -> Option<u64> {
    let mut frame = 96;
    while frame + 32 <= bytes.len() {
        let leaf = u64::from_le_bytes(bytes[frame..frame + 8].try_into().unwrap());
        let len = u32::from_le_bytes(bytes[frame + 8..frame + 12].try_into().unwrap());
        let end = frame + 32 + len as usize;
        if (frame..end).contains(&at) {
            return Some(leaf);
        }
        frame = end;
    }
    None
}

#[test]
fn what_was_flipped_is_named_by_its_region_its_file_or_its_record() {
    let bench = store();
    let options = options(&bench.disk);
    let seed = std::env::var("PLIMSOLL_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or(5);
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let mut regions = std::collections::BTreeSet::new();
    let below = |p: &PathBuf| p.starts_with(DIR) && !p.ends_with("LOCK");
    for path in bench.disk.paths().into_iter().filter(below) {
        let whole = bench.disk.bytes(&path);
        let most = match path.ends_with("emergency.seg") {
            true => 96,
            false => whole.len(),
        };
        for _ in 0..24 {
            let at = dice.below(most);
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << dice.below(8);
            bench.disk.put(&path, bytes);
            let Ok(report) = verify_on(Arc::new(bench.disk.clone()), DIR, &options) else {
                continue; // journal.meta: the error names it, as shown above
            };
            let expected = region(&path);
            let is_it = |p: &plimsoll_evidence::Problem| expected.contains(&p.fault);
            let named = report.problems.iter().find(|p| is_it(p));
            let named = named
                .unwrap_or_else(|| panic!("{} byte {at}: {:#?}", path.display(), report.problems));
            let record = match path.extension().and_then(|e| e.to_str()) {
                Some("pay") => payload_at(&whole, at),
                _ => None,
            };
            match record {
                Some(leaf) => assert_eq!(named.leaf, Some(leaf), "{}: {at}", path.display()),
                None => assert!(
                    named.path.as_deref() == Some(&*path) || named.leaf.is_some(),
                    "{}: {at}: {named:?}",
                    path.display()
                ),
            }
            regions.insert(expected[0]);
        }
        bench.disk.put(&path, whole);
    }
    assert_eq!(regions.len(), 6, "{regions:?}");
}

/// The 96 bytes of a frame, put at a place with its checksum mended.
fn put_frame(bytes: &mut [u8], first: u64, at: u64, frame: &[u8]) {
    let place = 96 + 96 * usize::try_from(at - first).unwrap();
    let store: [u8; 16] = bytes[40..56].try_into().unwrap();
    bytes[place..place + 92].copy_from_slice(&frame[..92]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&store), &at.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &bytes[place..place + 92]);
    bytes[place + 92..place + 96].copy_from_slice(&crc.to_le_bytes());
}

/// A forger who rearranges the frames of the second segment (leaves 8 to 15), checksums mended.
fn rearranged(order: &[u64]) -> (Bench, VerifyReport) {
    let bench = store();
    let path = segment(&bench.disk, 1);
    let whole = bench.disk.bytes(&path);
    let mut bytes = whole[..96 + 96 * order.len()].to_vec();
    for (at, from) in (8..).zip(order) {
        let place = 96 + 96 * usize::try_from(from - 8).unwrap();
        put_frame(&mut bytes, 8, at, &whole[place..place + 96]);
    }
    bench.disk.put(&path, bytes);
    let report = check(&bench.disk, &options(&bench.disk));
    (bench, report)
}

/// The record that the report begins with.
fn first_leaf(report: &VerifyReport) -> Option<u64> {
    report.problems.first().and_then(|p| p.leaf)
}

#[test]
fn a_record_taken_out_with_every_checksum_mended_is_named() {
    let (_, report) = rearranged(&[8, 9, 10, 12, 13, 14, 15]);
    assert_eq!(first_leaf(&report), Some(11), "{:#?}", report.problems);
    let missing = report
        .problems
        .iter()
        .any(|p| p.fault == Fault::MissingRecords && p.leaf == Some(15));
    assert!(missing, "{:#?}", report.problems);
}

#[test]
fn records_that_changed_places_are_named() {
    let (_, report) = rearranged(&[8, 9, 11, 10, 12, 13, 14, 15]);
    assert_eq!(first_leaf(&report), Some(10), "{:#?}", report.problems);
}

#[test]
fn a_record_put_in_twice_is_named() {
    let (_, report) = rearranged(&[8, 9, 9, 11, 12, 13, 14, 15]);
    assert_eq!(first_leaf(&report), Some(10), "{:#?}", report.problems);
}

#[test]
fn segments_that_changed_places_with_their_headers_mended_are_named() {
    let bench = store();
    let paths = [segment(&bench.disk, 2), segment(&bench.disk, 3)];
    let [a, b] = [0, 1].map(|i| bench.disk.bytes(&paths[i]));
    for (path, from, first) in [(&paths[0], &b, 16u64), (&paths[1], &a, 24)] {
        let mut bytes = from.clone();
        bytes[16..24].copy_from_slice(&first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
        bytes[92..96].copy_from_slice(&crc);
        for (at, frame) in (first..).zip(from[96..].as_chunks::<96>().0) {
            put_frame(&mut bytes, first, at, frame);
        }
        bench.disk.put(path, bytes);
    }
    let report = check(&bench.disk, &options(&bench.disk));
    assert_eq!(first_leaf(&report), Some(16), "{:#?}", report.problems);
    assert!(
        report.problems.iter().any(|p| p.leaf == Some(24)),
        "{:#?}",
        report.problems
    );
}

/// Found by the fuzz target `store`: what a store claims decided how long its verification took.
#[test]
fn a_store_that_claims_more_records_than_it_can_hold_is_told_so_at_once() {
    let bench = store();
    let head = bench.disk.path_ending("head");
    let mut bytes = bench.disk.bytes(&head);
    bytes[16..24].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..92]).to_le_bytes();
    bytes[92..96].copy_from_slice(&crc);
    bench.disk.put(&head, bytes);
    let report = check(&bench.disk, &options(&bench.disk));
    let missing = |p: &plimsoll_evidence::Problem| p.fault == Fault::MissingRecords;
    assert!(
        report.problems.iter().any(missing),
        "{:#?}",
        report.problems
    );
}

#[test]
fn a_segment_cut_at_any_byte_says_which_record_is_the_first_that_is_gone() {
    let bench = store();
    let options = options(&bench.disk);
    let path = segment(&bench.disk, 1);
    let whole = bench.disk.bytes(&path);
    for cut in (96..whole.len()).step_by(5) {
        bench.disk.put(&path, whole[..cut].to_vec());
        let report = check(&bench.disk, &options);
        let gone = 8 + (cut as u64 - 96) / 96;
        assert_eq!(
            first_leaf(&report),
            Some(gone),
            "cut at {cut}: {:#?}",
            report.problems
        );
    }
}

#[test]
fn contents_that_changed_places_with_their_frames_mended_are_named() {
    let bench = store();
    let path = bench.disk.path_ending("00000000000000000024.03.pay");
    let mut bytes = bench.disk.bytes(&path);
    let frames: Vec<(usize, usize)> = {
        let mut all = Vec::new();
        let mut at = 96;
        while at + 32 <= bytes.len() {
            let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
            all.push((at, 32 + len));
            at += 32 + len;
        }
        all
    };
    let [(a, n), (b, m)] = frames[..2] else {
        panic!("two frames")
    };
    assert_eq!(n, m, "observations are of one length");
    let leaf = u64::from_le_bytes(bytes[a..a + 8].try_into().unwrap());
    // salts and contents change places, numbers stay, checksums are mended
    let (one, two) = (bytes[a + 16..a + n].to_vec(), bytes[b + 16..b + m].to_vec());
    for (at, content) in [(a, two), (b, one)] {
        bytes[at + 16..at + n].copy_from_slice(&content);
        let crc = crc32c::crc32c(&bytes[40..56]);
        let crc = crc32c::crc32c_append(crc, &bytes[at..at + 12]);
        let crc = crc32c::crc32c_append(crc, &content);
        bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    }
    bench.disk.put(&path, bytes);
    let report = check(&bench.disk, &options(&bench.disk));
    let first = &report.problems[0];
    assert_eq!(
        (first.fault, first.leaf),
        (Fault::DamagedPayload, Some(leaf)),
        "{:#?}",
        report.problems
    );
    assert_eq!(report.problems.len(), 2, "{:#?}", report.problems);
}

#[test]
fn a_flipped_byte_in_the_public_key_is_no_key_or_another_ones() {
    let bench = store();
    let text = bench.disk.bytes(Path::new("/k/root.pub"));
    for at in 0..text.len() {
        let mut bytes = text.clone();
        bytes[at] ^= 1;
        let key = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|t| PublicKey::parse(t).ok());
        let Some(key) = key.filter(|k| *k != root_key(&bench.disk)) else {
            continue; // refused, or only a blank at its end
        };
        let given = VerifyOptions {
            key: Some(key),
            ..VerifyOptions::default()
        };
        let report = check(&bench.disk, &given);
        assert!(
            report.problems.iter().any(|p| p.fault == Fault::BadKey),
            "byte {at}"
        );
    }
}

#[test]
fn a_file_that_power_loss_left_empty_is_no_damage_and_one_that_was_emptied_is() {
    let bench = store();
    let options = options(&bench.disk);
    let end = check(&bench.disk, &options).records;
    let next = segment(&bench.disk, 4).with_file_name(format!("{end:020}.leaf"));
    for left in [&b""[..], b"PLIMLEAF"] {
        bench.disk.put(&next, left.to_vec());
        let report = check(&bench.disk, &options);
        assert!(report.is_whole(), "{:#?}", report.problems);
    }
    bench.disk.delete(&next);
    for emptied in ["00000000000000000024.leaf", "00000000000000000024.01.pay"] {
        let path = bench.disk.path_ending(emptied);
        let whole = bench.disk.bytes(&path);
        bench.disk.put(&path, Vec::new());
        assert!(!check(&bench.disk, &options).is_whole(), "{emptied}");
        bench.disk.put(&path, whole);
    }
}

#[test]
fn a_store_without_any_checkpoint_is_not_what_the_key_signed() {
    let bench = store();
    for path in bench.disk.paths() {
        let name = path.display().to_string();
        if name.ends_with("/checkpoint") || name.contains("/history/") {
            bench.disk.remove(&path).unwrap();
        }
    }
    let report = check(&bench.disk, &options(&bench.disk));
    assert!(!report.is_whole());
    let named = |p: &plimsoll_evidence::Problem| p.text.contains("no checkpoint of this key");
    assert!(report.problems.iter().any(named), "{:#?}", report.problems);
}
