//! Tree, checkpoints and keys of a growing journal.

mod common;

use common::{Bench, DIR, KEYS, alert, observation, vanish};
use plimsoll_evidence::merkle::{includes, is_consistent, leaf_hash};
use plimsoll_evidence::{
    Checkpoint, Durable, Journal, JournalWriter, KeyChain, Leaf, QueueBounds, Reader, Sealing,
};
use std::path::Path;
use std::sync::mpsc::channel;

fn sealed(bench: &Bench) -> Journal {
    reopened(bench).0
}

fn reopened(bench: &Bench) -> (Journal, Vec<String>) {
    let mut options = bench.options();
    options.sealing = Some(Sealing::new(KEYS));
    options.entropy = common::seeded_entropy(bench.disk.syncs() + 1);
    let (journal, recovery) = Journal::open(DIR, options).expect("opens");
    (journal, recovery.sealing)
}

fn bench(subtree_leaves: u32) -> Bench {
    Bench {
        subtree_leaves,
        ..Bench::new()
    }
}

fn grow(journal: &mut Journal, from: u64, to: u64) {
    for n in from..to {
        journal.append(observation(n)).unwrap();
    }
    journal.sync().unwrap();
}

fn checkpoints(reader: &Reader) -> Vec<Checkpoint> {
    reader.checkpoints(None).unwrap()
}

fn root_key(bench: &Bench) -> plimsoll_evidence::note::PublicKey {
    let text = bench.disk.bytes(Path::new("/k/root.pub"));
    plimsoll_evidence::note::PublicKey::parse(std::str::from_utf8(&text).unwrap()).unwrap()
}

#[test]
fn any_record_and_any_two_checkpoints_prove_each_other() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    for n in 0..40 {
        grow(&mut journal, n * 23, (n + 1) * 23);
        journal.checkpoint().unwrap();
    }
    let reader = bench.reader();
    let all = reader.checkpoints(Some(&root_key(&bench))).unwrap();
    assert_eq!(all.last().unwrap().size, 40 * 23 + 1);
    for new in &all {
        assert_eq!(reader.root_at(new.size).unwrap(), new.root);
        for old in all.iter().filter(|old| old.size <= new.size) {
            let proof = reader.consistency_proof(old, new).unwrap();
            assert!(is_consistent(
                old.size, new.size, &proof, &old.root, &new.root
            ));
        }
    }
    let last = all.last().unwrap();
    for leaf in 0..last.size {
        let entry = reader.get(Leaf(leaf)).unwrap().unwrap();
        let proof = reader
            .inclusion_proof(Leaf(leaf), last.size, &last.root)
            .unwrap();
        assert!(includes(
            &leaf_hash(&entry.leaf_bytes),
            leaf,
            last.size,
            &proof,
            &last.root
        ));
    }
}

#[test]
fn a_checkpoint_follows_an_alert_at_once_and_bulk_within_seconds() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    let first = journal.health().seal.unwrap().size;
    assert_eq!(first, 1, "the certificate of the first key");
    bench.clock.advance_ms(200);
    grow(&mut journal, 0, 5);
    assert_eq!(journal.health().seal.unwrap().size, first);
    journal.append_durable(alert(1)).unwrap();
    assert_eq!(journal.health().seal.unwrap().size, 7);
    journal.append_durable(alert(2)).unwrap();
    assert_eq!(
        journal.health().seal.unwrap().size,
        7,
        "ten a second at most"
    );
    bench.clock.advance_ms(100);
    journal.tick();
    assert_eq!(journal.health().seal.unwrap().size, 8);
    grow(&mut journal, 5, 9);
    bench.clock.advance_ms(5_000);
    journal.tick();
    assert_eq!(journal.health().seal.unwrap().size, 12);
}

#[test]
fn every_hour_the_key_vouches_for_the_next_and_is_erased() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    let root = root_key(&bench);
    for hour in 0..4 {
        grow(&mut journal, hour * 3, hour * 3 + 3);
        bench.clock.advance_ms(3_600_000);
        journal.tick();
        bench.clock.advance_ms(6_000);
        journal.append_durable(alert(hour)).unwrap();
    }
    assert_eq!(journal.health().seal.unwrap().epoch, 4);
    let left: Vec<_> = bench
        .disk
        .paths()
        .into_iter()
        .filter(|p| p.to_string_lossy().ends_with(".key"))
        .collect();
    assert_eq!(left, [Path::new("/k/epoch-0000000004.key")]);
    let chain = KeyChain::follow(bench.reader().certificates().unwrap(), Some(&root));
    assert_eq!((chain.certificates.len(), chain.unlinked.len()), (5, 0));
    // Every certificate is also a record under the tree.
    let logged = bench
        .reader()
        .scan(plimsoll_evidence::Filter {
            kinds: vec![30],
            ..Default::default()
        })
        .unwrap();
    let logged: Vec<_> = logged
        .map(|e| e.unwrap().payload.bytes().unwrap().to_vec())
        .collect();
    let certified: Vec<_> = chain.certificates.iter().map(|c| c.note.bytes()).collect();
    assert_eq!(logged, certified);
    let all = bench.reader().checkpoints(Some(&root)).unwrap();
    assert_eq!(all.last().unwrap().size, journal.health().durable);
    assert_eq!(root_key(&bench), root, "the root stays the root");
}

#[test]
fn an_erased_key_is_overwritten_before_it_is_removed() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    let path = Path::new("/k/epoch-0000000000.key");
    let secret = bench.disk.bytes(path)[96..128].to_vec();
    let node = bench.disk.keep_open(path);
    bench.clock.advance_ms(3_600_000);
    journal.tick();
    assert!(!bench.disk.paths().contains(&path.to_path_buf()));
    let (live, durable) = node();
    assert_eq!(
        (live.clone(), durable),
        (vec![0; live.len()], vec![0; live.len()])
    );
    let anywhere = bench
        .disk
        .paths()
        .iter()
        .any(|p| bench.disk.bytes(p).windows(32).any(|w| w == secret));
    assert!(!anywhere, "the secret lies nowhere else");
}

#[test]
fn reopening_goes_on_where_the_last_checkpoint_was() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    grow(&mut journal, 0, 700);
    journal.checkpoint().unwrap();
    grow(&mut journal, 700, 900);
    vanish(journal);
    let bench = bench.after_kill();
    let (mut journal, notes) = reopened(&bench);
    assert_eq!(notes, Vec::<String>::new());
    grow(&mut journal, 900, 1000);
    let last = journal.checkpoint().unwrap();
    assert_eq!(last.root, bench.reader().root_at(last.size).unwrap());
    let all = checkpoints(&bench.reader());
    for pair in all.windows(2) {
        bench
            .reader()
            .consistency_proof(&pair[0], &pair[1])
            .unwrap();
    }
}

#[test]
fn missing_and_altered_tiles_are_made_again() {
    for change in 0..2 {
        let bench = bench(512);
        let mut journal = sealed(&bench);
        grow(&mut journal, 0, 1500);
        drop(journal);
        let tiles: Vec<_> = bench
            .disk
            .paths()
            .into_iter()
            .filter(|p| p.starts_with("/j/tlog/tile"))
            .collect();
        assert!(tiles.len() >= 7, "{tiles:?}");
        let right: Vec<_> = tiles.iter().map(|path| bench.disk.bytes(path)).collect();
        for path in &tiles {
            match change {
                0 => bench.disk.delete(path),
                _ => {
                    let mut bytes = bench.disk.bytes(path);
                    bytes[40] ^= 1;
                    bench.disk.put(path, bytes);
                }
            }
        }
        let (mut journal, notes) = reopened(&bench);
        assert_eq!(notes, Vec::<String>::new());
        for (path, right) in tiles.iter().zip(right) {
            assert_eq!(bench.disk.bytes(path), right, "{}", path.display());
        }
        grow(&mut journal, 1500, 1600);
        let last = journal.checkpoint().unwrap();
        assert_eq!(last.root, bench.reader().root_at(last.size).unwrap());
        let first = &checkpoints(&bench.reader())[0];
        bench.reader().consistency_proof(first, &last).unwrap();
    }
}

#[test]
fn a_lost_key_begins_a_chain_that_the_old_root_does_not_vouch_for() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    grow(&mut journal, 0, 5);
    let root = root_key(&bench);
    drop(journal);
    bench.disk.delete(Path::new("/k/epoch-0000000000.key"));
    let (journal, notes) = reopened(&bench);
    assert!(notes[0].contains("key of epoch 0 is lost"), "{notes:?}");
    assert_ne!(root_key(&bench), root);
    let chain = KeyChain::follow(bench.reader().certificates().unwrap(), Some(&root));
    assert_eq!((chain.certificates.len(), chain.unlinked.len()), (1, 1));
    drop(journal);
    assert_eq!(reopened(&bench).1, Vec::<String>::new());
}

#[test]
fn a_damaged_file_of_certificates_costs_no_key() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    grow(&mut journal, 0, 5);
    bench.clock.advance_ms(3_600_000);
    journal.tick();
    drop(journal);
    let root = root_key(&bench);
    let path = Path::new("/j/tlog/keys");
    let mut bytes = bench.disk.bytes(path);
    bytes.pop();
    bench.disk.put(path, bytes);
    let (journal, notes) = reopened(&bench);
    assert!(
        notes.iter().all(|note| note.contains("set aside")),
        "{notes:?}"
    );
    assert_eq!(journal.health().seal.unwrap().epoch, 1);
    let chain = KeyChain::follow(bench.reader().certificates().unwrap(), Some(&root));
    assert_eq!((chain.certificates.len(), chain.unlinked.len()), (2, 0));
}

#[test]
fn power_loss_at_any_moment_leaves_a_chain_and_a_tree_that_go_on() {
    for seed in 0..60 {
        let bench = bench(64);
        let mut journal = sealed(&bench);
        let mut dice = common::Dice::new(seed);
        let mut promised: Vec<Checkpoint> = Vec::new();
        let mut n = 0;
        for _ in 0..dice.below(12) {
            let next = n + 1 + dice.below(40) as u64;
            grow(&mut journal, n, next);
            n = next;
            match dice.below(3) {
                0 => promised.push(journal.checkpoint().unwrap()),
                1 => {
                    bench.clock.advance_ms(3_600_000);
                    journal.tick();
                }
                _ => {}
            }
        }
        let root = root_key(&bench);
        vanish(journal);
        let bench = bench.after_power_loss(seed);
        let (mut journal, notes) = reopened(&bench);
        assert!(
            !notes
                .iter()
                .any(|n| n.contains("lost") || n.contains("do not match")),
            "seed {seed}: {notes:?}"
        );
        grow(&mut journal, n, n + 9);
        let last = journal.checkpoint().unwrap();
        for old in &promised {
            let proof = bench.reader().consistency_proof(old, &last);
            assert!(
                proof.is_ok(),
                "seed {seed}: checkpoint of {} is not continued",
                old.size
            );
        }
        let chain = KeyChain::follow(bench.reader().certificates().unwrap(), Some(&root));
        assert!(chain.unlinked.is_empty(), "seed {seed}");
        assert_eq!(
            bench.reader().checkpoints(Some(&root)).unwrap().last(),
            Some(&last),
            "seed {seed}"
        );
    }
}

#[test]
fn a_full_disk_stops_sealing_and_not_the_alerts() {
    let bench = bench(512);
    let mut journal = sealed(&bench);
    grow(&mut journal, 0, 5);
    bench.clock.advance_ms(6_000);
    bench.disk.set_room(Some(0));
    let kept = journal.append_durable(alert(1)).unwrap();
    assert_eq!(kept.place, plimsoll_evidence::Place::Emergency);
    bench.disk.set_room(None);
    bench.clock.advance_ms(1_000);
    journal.append_durable(alert(2)).unwrap();
    bench.clock.advance_ms(6_000);
    journal.tick();
    let status = journal.health().seal.unwrap();
    assert_eq!((status.size, status.trouble), (8, None));
    assert_eq!(
        bench.reader().root_at(8).unwrap(),
        checkpoints(&bench.reader()).last().unwrap().root
    );
}

/// Bytes and files of the history.
fn history(bench: &Bench) -> (usize, usize) {
    let files = bench.disk.paths();
    let of_history = files.iter().filter(|p| p.starts_with("/j/tlog/history"));
    let lengths: Vec<usize> = of_history.map(|p| bench.disk.bytes(p).len()).collect();
    (lengths.len(), lengths.iter().sum())
}

#[test]
fn checkpoints_of_months_are_few_and_any_two_of_them_still_prove_each_other() {
    let bench = bench(4096);
    let mut journal = sealed(&bench);
    // one each minute for ten days; some 14,400
    for n in 0..10 * 24 * 60 {
        bench.clock.advance_ms(60_000);
        journal.append(observation(n)).unwrap();
        journal.sync().unwrap();
        journal.tick();
    }
    let (files, bytes) = history(&bench);
    let all = checkpoints(&journal.reader());
    assert!(files < 24 + 2 + 12, "{files} files");
    assert!(all.len() < 24 * 62 + 10 * 150, "{} checkpoints", all.len());
    assert!(bytes < all.len() * 400, "{bytes} bytes");
    assert!(
        all.len() > 24 * 60 + 8 * 130,
        "{}: too few are left",
        all.len()
    );
    let reader = journal.reader();
    for pair in all.windows(2).step_by(97) {
        let proof = reader.consistency_proof(&pair[0], &pair[1]).unwrap();
        let (a, b) = (&pair[0], &pair[1]);
        assert!(is_consistent(a.size, b.size, &proof, &a.root, &b.root));
    }
    drop(journal);
    let options = plimsoll_evidence::VerifyOptions {
        key: Some(root_key(&bench)),
        ..Default::default()
    };
    let disk = std::sync::Arc::new(bench.disk.clone());
    let report = plimsoll_evidence::verify_on(disk, DIR, &options).unwrap();
    assert!(report.is_whole(), "{:#?}", report.problems);
}

#[test]
fn a_crash_while_checkpoints_are_made_fewer_loses_none_that_stays() {
    let bench = bench(4096);
    let mut journal = sealed(&bench);
    for n in 0..26 * 12 {
        bench.clock.advance_ms(300_000);
        journal.append(observation(n)).unwrap();
        journal.sync().unwrap();
        journal.tick();
    }
    drop(journal);
    // as if the removal of what was put together had not reached the disk
    let files = || -> Vec<_> {
        let all = bench.disk.paths().into_iter();
        all.filter(|p| p.starts_with("/j/tlog/history")).collect()
    };
    let first = bench.disk.bytes(&files()[0]);
    let second = files()[1].clone();
    let again = [first, bench.disk.bytes(&second)].concat();
    bench.disk.put(&files()[0], again);
    let mut journal = sealed(&bench);
    for n in 0..30 {
        bench.clock.advance_ms(300_000);
        journal.append(observation(n)).unwrap();
        journal.sync().unwrap();
        journal.tick();
    }
    let all = checkpoints(&journal.reader());
    assert!(all.windows(2).all(|w| w[0].size <= w[1].size));
    drop(journal);
    let options = plimsoll_evidence::VerifyOptions::default();
    let disk = std::sync::Arc::new(bench.disk.clone());
    let report = plimsoll_evidence::verify_on(disk, DIR, &options).unwrap();
    assert!(report.is_whole(), "{:#?}", report.problems);
}

#[test]
fn no_alert_waits_for_a_checkpoint_or_for_tiles() {
    let bench = bench(65_536);
    let writer = JournalWriter::start(sealed(&bench), QueueBounds::default()).unwrap();
    let durable = |n: u64| {
        let (told, acks) = channel();
        let ack = move |result: Result<Durable, _>| told.send(result).unwrap();
        writer.submit_durable(alert(n), Box::new(ack)).unwrap();
        acks.recv().unwrap().unwrap().leaf
    };
    let (begun, let_go) = bench.disk.hold_sync("history");
    bench.clock.advance_ms(5_000);
    assert_eq!(durable(0), Leaf(1));
    begun.recv().unwrap();
    // the disk is busy with the checkpoint: alerts go on
    for n in 1..20 {
        bench.clock.advance_ms(200);
        assert_eq!(durable(n), Leaf(n + 1));
    }
    let sealed = writer.status().health.seal.unwrap();
    assert_eq!((sealed.size, sealed.trouble), (1, None));
    drop(let_go);
    let journal = writer.close().unwrap();
    journal.close().unwrap();
    let reader = bench.reader();
    let sizes: Vec<u64> = checkpoints(&reader).iter().map(|c| c.size).collect();
    assert_eq!(sizes.first(), Some(&1));
    assert!(sizes.contains(&2), "the one that was held: {sizes:?}");
    assert_eq!(sizes.last(), Some(&21));
    assert!(sizes.is_sorted());
}

#[test]
fn tiles_written_beside_are_those_of_a_journal_that_writes_them_itself() {
    let tiles = |bench: &Bench| {
        let paths = bench.disk.paths().into_iter();
        let tiles = paths.filter(|path| path.starts_with("/j/tlog/tile"));
        tiles
            .map(|path| (bench.disk.bytes(&path), path))
            .collect::<Vec<_>>()
    };
    let (own, beside) = (bench(65_536), bench(65_536));
    let records = 70_000;
    let mut journal = sealed(&own);
    grow(&mut journal, 0, records);
    journal.close().unwrap();
    let bounds = QueueBounds {
        records: 100_000,
        ..QueueBounds::default()
    };
    let writer = JournalWriter::start(sealed(&beside), bounds).unwrap();
    for n in 0..records {
        writer.submit(observation(n)).unwrap();
    }
    writer.close().unwrap().close().unwrap();
    assert!(tiles(&own).len() > 270);
    assert!(
        tiles(&own) == tiles(&beside),
        "the same tiles and the same edge"
    );
}

#[test]
fn a_checkpoint_that_fails_beside_is_said_and_made_again() {
    let bench = bench(65_536);
    let writer = JournalWriter::start(sealed(&bench), QueueBounds::default()).unwrap();
    bench.disk.fail_sync(Some("history"));
    bench.clock.advance_ms(5_000);
    let until = |what: &str, done: &dyn Fn(plimsoll_evidence::SealStatus) -> bool| {
        let begun = std::time::Instant::now();
        for n in 0.. {
            writer.submit(observation(n)).unwrap();
            if done(writer.status().health.seal.unwrap()) {
                return;
            }
            assert!(begun.elapsed().as_secs() < 60, "{what} did not happen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    until("trouble", &|seal| seal.trouble.is_some());
    bench.disk.fail_sync(None);
    bench.clock.advance_ms(5_000);
    until("a checkpoint", &|seal| {
        seal.trouble.is_none() && seal.size > 1
    });
}
