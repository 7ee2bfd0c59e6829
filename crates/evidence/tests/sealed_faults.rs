//! A sealed journal on a disk that fails: what was sealed stays provable, and sealing never stops
//! the records.

mod common;

use common::{Bench, DIR, Dice, KEYS, alert, observation, vanish};
use plimsoll_evidence::note::PublicKey;
use plimsoll_evidence::{
    Checkpoint, Journal, Place, Sealing, VerifyOptions, VerifyReport, verify_on,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn reopened(bench: &Bench) -> (Journal, Vec<String>) {
    let mut options = bench.options();
    options.sealing = Some(Sealing::new(KEYS));
    // No two openings get the same random numbers, or keys would come twice.
    static OPENINGS: AtomicU64 = AtomicU64::new(1);
    options.entropy = common::seeded_entropy(OPENINGS.fetch_add(1, Ordering::Relaxed));
    let (journal, recovery) = Journal::open(DIR, options).expect("opens");
    (journal, recovery.sealing)
}

fn sealed(bench: &Bench) -> Journal {
    reopened(bench).0
}

fn check(bench: &Bench, kept: Option<&Checkpoint>) -> VerifyReport {
    let text = bench.disk.bytes(Path::new("/k/root.pub"));
    let key = PublicKey::parse(std::str::from_utf8(&text).unwrap()).unwrap();
    let options = VerifyOptions {
        key: Some(key),
        kept: None,
        threads: 1,
    };
    let report = verify_on(Arc::new(bench.disk.clone()), DIR, &options).unwrap();
    if let Some(kept) = kept {
        let reader = bench.reader();
        assert_eq!(
            reader.root_at(kept.size).unwrap(),
            kept.root,
            "a promised checkpoint holds"
        );
    }
    report
}

#[test]
fn failing_syncs_of_the_log_leave_the_records_alone_and_are_told() {
    for part in ["tlog/history", "tlog/tile", "/k/"] {
        let bench = Bench::new();
        let mut journal = sealed(&bench);
        bench.disk.fail_sync(Some(part));
        bench.disk.fail_write(Some(part));
        bench.clock.advance_ms(3_600_000);
        for n in 0..20 {
            let durable = journal.append_durable(alert(n)).unwrap();
            assert_eq!(durable.place, Place::Journal, "{part}");
            bench.clock.advance_ms(2_000);
        }
        assert!(journal.health().seal.unwrap().trouble.is_some(), "{part}");
        assert_eq!(journal.health().lost, 0);
        bench.disk.fail_sync(None);
        bench.disk.fail_write(None);
        bench.clock.advance_ms(10_000);
        journal.append_durable(alert(99)).unwrap();
        bench.clock.advance_ms(10_000);
        journal.append_durable(observation(1)).unwrap();
        let status = journal.health().seal.unwrap();
        assert_eq!(
            (status.trouble, status.size),
            (None, journal.health().durable),
            "{part}"
        );
        drop(journal);
        let report = check(&bench, None);
        assert!(report.is_whole(), "{part}: {:#?}", report.problems);
    }
}

#[test]
fn a_disk_that_becomes_read_only_keeps_what_was_sealed() {
    let bench = Bench::new();
    let mut journal = sealed(&bench);
    (0..20).for_each(|n| {
        journal.append(observation(n)).unwrap();
    });
    let kept = journal.checkpoint().unwrap();
    // Everything below both directories refuses, as after a remount.
    bench.disk.fail_write(Some("/"));
    bench.disk.fail_sync(Some("/"));
    assert!(journal.append_durable(alert(1)).is_err());
    assert!(journal.checkpoint().is_err() || journal.health().seal.unwrap().size == kept.size);
    vanish(journal);
    let bench = bench.after_kill();
    let report = check(&bench, Some(&kept));
    assert!(report.is_whole(), "{:#?}", report.problems);
    let mut journal = sealed(&bench);
    assert_eq!(journal.append_durable(alert(2)).unwrap().leaf.0, kept.size);
    drop(journal);
    assert!(check(&bench, Some(&kept)).is_whole());
}

/// Power is lost at random moments among appends, seals, key changes and full disks; unsynced
/// writes are dropped, torn and reordered. What was promised is there, proven, and verifies.
#[test]
fn after_power_loss_every_promised_record_and_checkpoint_verifies() {
    let seed = std::env::var("PLIMSOLL_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    for seed in seed..seed + 60 {
        let mut dice = Dice::new(seed);
        let mut bench = Bench {
            subtree_leaves: 16,
            emergency_bytes: 64 << 10,
            ..Bench::new()
        };
        let (mut promised, mut kept) = (Vec::new(), None);
        for life in 0..3 {
            let (mut journal, notes) = reopened(&bench);
            assert!(
                !notes.iter().any(|n| n.contains("do not match")),
                "seed {seed}: {notes:?}"
            );
            for n in 0..dice.below(25) as u64 {
                match dice.below(8) {
                    0 => kept = journal.checkpoint().ok().or(kept),
                    1 => bench.clock.advance_ms(3_600_000),
                    2 => bench.disk.set_room(Some(dice.below(4000) as u64)),
                    3 => {
                        bench.disk.set_room(None);
                        bench.clock.advance_ms(500);
                    }
                    4 | 5 => drop(journal.append(observation(n)).map(|_| ())),
                    _ => promised.extend(
                        journal
                            .append_durable(alert(life * 100 + n))
                            .ok()
                            .map(|d| (d.leaf, life * 100 + n)),
                    ),
                }
            }
            vanish(journal);
            bench = bench.after_power_loss(seed * 3 + life);
            bench.disk.set_room(None);
        }
        let (mut journal, _) = reopened(&bench);
        journal.checkpoint().unwrap();
        drop(journal);
        let report = check(&bench, kept.as_ref());
        assert!(report.is_whole(), "seed {seed}: {:#?}", report.problems);
        let reader = bench.reader();
        for (leaf, n) in &promised {
            let entry = reader.get(*leaf).unwrap().unwrap();
            assert_eq!(
                entry.payload.bytes(),
                Some(format!("alert {n}").as_bytes()),
                "seed {seed}: {leaf}"
            );
        }
    }
}
