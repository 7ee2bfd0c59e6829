//! Alerts first, losses counted, nothing acknowledged lost: on a disk that fails.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use common::{Bench, EIO, alert, key, observation, vanish};
use plimsoll_evidence::{
    After, AppendError, Durable, Journal, JournalWriter, Leaf, LossReason, MAX_PAYLOAD_BYTES,
    Payload, Place, QueueBounds, Record, RetainError, RetentionClass, RetentionPolicy,
    RetentionRule, SubmitError,
};
use proptest::prelude::*;

#[test]
fn alert_is_durable_before_it_is_acknowledged() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    journal.append(observation(0)).unwrap();
    let seen = Arc::new(Mutex::new(None));
    let (disk, told) = (bench.clone(), seen.clone());
    let ack = move |result: Result<Durable, AppendError>| {
        // Whatever a power loss takes at this very instant, the alert is there.
        let kept = (0..20).all(|seed| {
            let after = disk.after_power_loss(seed);
            let (journal, recovery) = after.open();
            vanish(journal);
            let entry = after.reader().get(Leaf(1)).unwrap().unwrap();
            recovery.damage.is_empty() && entry.payload.bytes() == Some(b"alert 1")
        });
        *told.lock().unwrap() = Some((result, kept));
    };
    journal.append_with(alert(1), true, Box::new(ack));
    assert!(seen.lock().unwrap().is_none(), "not told before the sync");
    journal.sync().unwrap();
    let (result, kept) = seen.lock().unwrap().take().unwrap();
    assert_eq!(
        result.map(|d| (d.leaf, d.place)),
        Ok((Leaf(1), Place::Journal))
    );
    assert!(kept);
}

#[test]
fn power_loss_at_once_after_the_first_opening_leaves_a_journal_that_opens() {
    for seed in 0..50 {
        let bench = Bench::new();
        let (mut journal, recovery) = bench.open();
        assert!(recovery.created);
        let leaf = journal.append_durable(alert(0)).unwrap().leaf;
        vanish(journal);
        let after = bench.after_power_loss(seed);
        let (_, recovery) = after.open();
        assert_eq!(
            (recovery.leaves, recovery.damage.len()),
            (1, 0),
            "seed {seed}"
        );
        assert!(after.reader().get(leaf).unwrap().is_some());
    }
}

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Sync,
    Alert,
    Fill(u16),
    Room,
    Wait,
    Kill,
    PowerLoss(u64),
    FailSync(bool),
    Reboot,
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..12u8).prop_map(Step::Append),
        3 => Just(Step::Sync),
        3 => Just(Step::Alert),
        1 => (0..800u16).prop_map(Step::Fill),
        2 => Just(Step::Room),
        2 => Just(Step::Wait),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::PowerLoss),
        1 => any::<bool>().prop_map(Step::FailSync),
        1 => Just(Step::Reboot),
        1 => Just(Step::Prune),
    ]
}

/// What was told of the records: the leaf and payload of each acknowledged one, and how
/// many were refused in this life.
#[derive(Clone, Default)]
struct Told {
    promised: Arc<Mutex<Vec<Promise>>>,
    refused: Arc<AtomicU64>,
}
type Promise = (u64, Vec<u8>);

impl Told {
    fn prune(&self, journal: &mut Journal) {
        let class = RetentionClass::OBSERVATION;
        let rule = RetentionRule {
            class,
            max_age_ms: None,
            max_bytes: Some(1),
        };
        let plan = journal
            .plan_retention(&RetentionPolicy { rules: vec![rule] }, 0)
            .unwrap();
        let Some(prune) = plan.first() else { return };
        let tombstone = Record::new(90, RetentionClass::CUSTODY, vec![]);
        if let Err(RetainError::Tombstone(_)) = journal.prune(prune, tombstone) {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn append(&self, journal: &mut Journal, record: Record, urgent: bool) {
        let (told, payload) = (self.clone(), record.payload.clone());
        let ack = move |result: Result<Durable, AppendError>| match result {
            Ok(durable) => told
                .promised
                .lock()
                .unwrap()
                .push((durable.leaf.0, payload)),
            Err(_) => {
                told.refused.fetch_add(1, Ordering::SeqCst);
            }
        };
        journal.append_with(record, urgent, Box::new(ack));
    }
}

/// Whatever happens, every acknowledged record is at the leaf it was promised, and every
/// refused one is counted as a loss.
fn live(steps: Vec<Step>) {
    let mut bench = Bench::new();
    let (mut journal, _) = bench.open();
    let told = Told::default();
    let (mut n, mut lost_before) = (0, 0);
    for step in steps {
        match step {
            Step::Append(count) => {
                for _ in 0..count {
                    n += 1;
                    told.append(&mut journal, observation(n), false);
                }
            }
            Step::Alert => {
                n += 1;
                told.append(&mut journal, alert(n), true);
                drop(journal.sync());
            }
            Step::Sync => drop(journal.sync()),
            Step::Prune => told.prune(&mut journal),
            Step::Fill(room) => bench.disk.set_room(Some(room.into())),
            Step::Room => {
                bench.disk.set_room(None);
                bench.disk.fail_sync(None);
            }
            Step::Wait => bench.clock.advance_ms(300),
            Step::FailSync(leaves) => {
                bench
                    .disk
                    .fail_sync(Some(if leaves { "leaf" } else { ".pay" }));
            }
            Step::Kill | Step::PowerLoss(_) | Step::Reboot => {
                let refused = told.refused.swap(0, Ordering::SeqCst);
                assert_eq!(
                    journal.health().lost - lost_before,
                    refused,
                    "losses are counted"
                );
                vanish(journal);
                bench = match step {
                    Step::PowerLoss(seed) => bench.after_power_loss(seed),
                    _ => bench.after_kill(),
                };
                if matches!(step, Step::Reboot) {
                    bench.boot_id[0] = bench.boot_id[0].wrapping_add(1);
                }
                let opened = bench.open();
                assert_eq!(opened.1.damage, vec![], "nothing acknowledged is damaged");
                journal = opened.0;
                lost_before = journal.health().lost;
            }
        }
    }
    bench.disk.set_room(None);
    bench.disk.fail_sync(None);
    bench.clock.advance_ms(300);
    let end = journal
        .append_durable(alert(n + 1))
        .expect("there is room again")
        .leaf;
    check_promises(&bench, &told.promised.lock().unwrap(), end);
}

fn check_promises(bench: &Bench, promised: &[Promise], end: Leaf) {
    let reader = bench.reader();
    for (leaf, payload) in promised {
        let entry = reader.get(Leaf(*leaf)).expect("readable").expect("there");
        if let Payload::Pruned {
            tombstone: Some(tombstone),
        } = entry.payload
        {
            let tombstone = reader.get(tombstone).expect("readable").expect("there");
            assert_eq!(tombstone.header.kind, 90);
            continue;
        }
        assert_eq!(entry.payload.bytes(), Some(&payload[..]), "leaf {leaf}");
    }
    let leaves: std::collections::BTreeSet<_> = promised.iter().map(|(leaf, _)| leaf).collect();
    assert_eq!(leaves.len(), promised.len(), "no leaf was promised twice");
    let scrub = reader.scrub(0..u64::MAX).unwrap();
    assert_eq!(
        (scrub.checked, scrub.damage.len(), scrub.lost),
        (end.0 + 1, 0, vec![])
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_acknowledged_is_lost_or_renumbered(steps in prop::collection::vec(step(), 1..40)) {
        live(steps);
    }
}

#[test]
fn full_disk_loses_observations_by_count_and_no_alert() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    for n in 0..10 {
        journal.append(observation(n)).unwrap();
    }
    journal.sync().unwrap();
    bench.disk.set_room(Some(150));
    for n in 10..13 {
        journal.append(observation(n)).unwrap();
    }
    let failure = journal.sync().unwrap_err();
    assert!(matches!(
        failure,
        AppendError::Lost {
            class: RetentionClass::OBSERVATION,
            ..
        }
    ));
    let first = journal.append_durable(alert(13)).unwrap();
    journal.append(observation(14)).unwrap();
    let second = journal.append_durable(alert(15)).unwrap();
    assert_eq!((first.leaf, first.place), (Leaf(10), Place::Emergency));
    assert_eq!((second.leaf, second.place), (Leaf(11), Place::Emergency));
    // A reader sees the alerts where they are, under their final names.
    let seen = bench.reader().get(Leaf(11)).unwrap().unwrap();
    assert_eq!(seen.payload.bytes(), Some(&b"alert 15"[..]));
    assert!(journal.health().trouble.is_some());
    assert_eq!(
        journal.record_losses(|_| unreachable!("no room for a gap record yet")),
        0
    );

    bench.disk.set_room(None);
    bench.clock.advance_ms(300);
    let third = journal.append_durable(alert(16)).unwrap();
    assert_eq!((third.leaf, third.place), (Leaf(12), Place::Journal));
    assert_eq!(journal.health().trouble, None);
    assert_eq!(journal.health().emergency_used_bytes, 0);
    let mut gaps = Vec::new();
    let gap = |loss: &plimsoll_evidence::Loss| {
        Record::new(
            4,
            RetentionClass::GAP,
            format!("{} {}", loss.stage, loss.count).into_bytes(),
        )
    };
    gaps.extend(journal.drain_losses());
    let [loss] = &gaps[..] else {
        panic!("one interval: {gaps:?}")
    };
    assert_eq!(
        (loss.stage, loss.count, &loss.reason),
        ("journal", 4, &LossReason::DiskFull)
    );
    assert_eq!((loss.since_wall_ns, loss.until_wall_ns), (1010, 1014));
    assert_eq!(loss.by_container.values().sum::<u64>(), 4);
    assert_eq!(journal.append_durable(gap(loss)).unwrap().leaf, Leaf(13));
    let scrub = bench.reader().scrub(0..u64::MAX).unwrap();
    assert_eq!(
        (scrub.checked, scrub.damage.len(), scrub.lost.len()),
        (14, 0, 0)
    );
}

#[test]
fn losses_survive_kill_nine_until_their_gap_is_recorded() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    bench.disk.set_room(Some(0));
    for n in 0..5 {
        journal.append(observation(n)).unwrap();
    }
    assert!(journal.sync().is_err());
    vanish(journal);
    let bench = bench.after_kill();
    let (mut journal, recovery) = bench.open();
    let loss = recovery.loss.clone().expect("the count survived");
    assert_eq!(
        (loss.count, loss.since_wall_ns, loss.until_wall_ns),
        (5, 1000, 1004)
    );
    assert_eq!(loss.reason, LossReason::BeforeRestart);
    let gap = |_: &plimsoll_evidence::Loss| Record::new(4, RetentionClass::GAP, vec![]);
    assert_eq!(journal.record_losses(gap), 1);
    vanish(journal);
    assert_eq!(bench.after_kill().open().1.loss, None, "recorded once");
}

#[test]
fn alerts_in_the_emergency_segment_survive_power_loss_on_a_full_disk() {
    for seed in 0..30 {
        let bench = Bench::new();
        let (mut journal, _) = bench.open();
        for n in 0..6 {
            journal.append_durable(alert(n)).unwrap();
        }
        bench.disk.set_room(Some(100));
        let leaves: Vec<_> = (6..20)
            .map(|n| journal.append_durable(alert(n)).unwrap().leaf)
            .collect();
        vanish(journal);
        // Still full: they are pending, and readable.
        let still = bench.after_power_loss(seed);
        still.disk.set_room(Some(0));
        let (journal, recovery) = still.open();
        assert_eq!((recovery.emergency.pending, recovery.leaves), (14, 20));
        assert!(still.reader().get(leaves[13]).unwrap().is_some());
        vanish(journal);
        // With room they are taken over, across subtree ends, in order.
        let after = still.after_power_loss(seed + 1);
        let (journal, recovery) = after.open();
        assert_eq!(
            (recovery.emergency.taken_over, recovery.damage.len()),
            (14, 0)
        );
        assert_eq!(journal.health().durable, 20);
        for (leaf, n) in leaves.iter().zip(6..) {
            let entry = after.reader().get(*leaf).unwrap().unwrap();
            assert_eq!(entry.payload.bytes(), Some(&alert(n).payload[..]));
        }
    }
}

#[test]
fn full_emergency_segment_refuses_loudly() {
    let bench = Bench {
        emergency_bytes: 12 << 10,
        ..Bench::new()
    };
    let (mut journal, _) = bench.open();
    bench.disk.set_room(Some(0));
    let big = Record::new(1, RetentionClass::ALERT, vec![0; 3000]);
    assert_eq!(
        journal.append_durable(big.clone()).unwrap().place,
        Place::Emergency
    );
    let error = journal.append_durable(big).unwrap_err();
    assert!(
        error.to_string().contains("emergency segment is full"),
        "{error}"
    );
    assert_eq!(journal.drain_losses()[0].count, 1, "and counts it");
}

#[test]
fn failed_sync_is_never_acknowledged_and_the_journal_recovers() {
    for file in [".pay", "leaf"] {
        let bench = Bench::new();
        let (mut journal, _) = bench.open();
        journal.append_durable(alert(0)).unwrap();
        bench.disk.fail_sync(Some(file));
        let place = journal.append_durable(alert(1)).unwrap();
        assert_eq!((place.leaf, place.place), (Leaf(1), Place::Emergency));
        let (reason, _) = journal.health().trouble.unwrap();
        assert!(matches!(
            reason,
            LossReason::Disk {
                errno: Some(EIO),
                ..
            }
        ));
        bench.disk.fail_sync(None);
        bench.clock.advance_ms(300);
        assert_eq!(journal.append_durable(alert(2)).unwrap().leaf, Leaf(2));
        assert_eq!(bench.reader().scrub(0..9).unwrap().lost, vec![]);
    }
}

#[test]
fn alert_is_refused_when_every_disk_operation_fails() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    bench.disk.fail_write(Some(DIR_PART));
    let error = journal.append_durable(alert(0)).unwrap_err();
    assert!(matches!(error, AppendError::NotDurable { .. }), "{error}");
    bench.disk.fail_write(None);
    bench.clock.advance_ms(300);
    assert_eq!(
        journal.append_durable(alert(1)).unwrap().leaf,
        Leaf(0),
        "no hole is left"
    );
}
const DIR_PART: &str = common::DIR;

#[test]
fn short_writes_are_finished() {
    let bench = Bench::new();
    bench.disk.write_short();
    let (mut journal, _) = bench.open();
    for n in 0..40 {
        journal.append(observation(n)).unwrap();
    }
    assert_eq!(journal.sync().unwrap(), Leaf(40));
    assert_eq!(bench.reader().scrub(0..99).unwrap().checked, 40);
}

#[test]
fn oversized_payload_names_its_size_and_harms_nothing() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    let huge = Record::new(1, RetentionClass::ALERT, vec![0; MAX_PAYLOAD_BYTES + 1]);
    let error = journal.append_durable(huge).unwrap_err();
    assert_eq!(
        error.to_string(),
        "payload of 1048577 bytes exceeds the bound of 1048576"
    );
    let largest = Record::new(1, RetentionClass::ALERT, vec![7; MAX_PAYLOAD_BYTES]);
    let leaf = journal.append_durable(largest).unwrap().leaf;
    let entry = bench.reader().get(leaf).unwrap().unwrap();
    assert_eq!(
        entry.payload.bytes().map(<[u8]>::len),
        Some(MAX_PAYLOAD_BYTES)
    );
}

#[test]
fn one_sync_serves_a_whole_group() {
    let bench = Bench {
        subtree_leaves: 1024,
        ..Bench::new()
    };
    let (mut journal, _) = bench.open();
    let before = bench.disk.syncs();
    for n in 0..500 {
        journal.append(observation(n)).unwrap();
    }
    journal.append_durable(alert(500)).unwrap();
    assert_eq!(
        bench.disk.syncs() - before,
        3,
        "two payload files and one segment"
    );
}

#[test]
fn writer_keeps_order_and_tells_every_alert() {
    let bench = Bench::new();
    let writer = JournalWriter::start(bench.open().0, QueueBounds::default()).unwrap();
    let (told, acks) = std::sync::mpsc::channel();
    for n in 0..200 {
        if n % 10 == 9 {
            let told = told.clone();
            let ack = Box::new(move |result: Result<Durable, AppendError>| {
                told.send((n, result.map(|durable| durable.leaf))).unwrap();
            });
            writer.submit_durable(alert(n), ack).unwrap();
        } else {
            writer.submit(observation(n)).unwrap();
        }
    }
    for _ in 0..20 {
        let (n, leaf) = acks.recv().unwrap();
        assert_eq!(leaf, Ok(Leaf(n)), "leaves follow the order of submission");
    }
    assert_eq!(writer.close().unwrap().close().unwrap(), Leaf(200));
}

/// A writer that waits, so that what a test hands over is queued; it goes on when the sender is dropped.
fn waiting_writer(bench: &Bench, bounds: QueueBounds) -> (JournalWriter, Sender<()>) {
    let writer = JournalWriter::start(bench.open().0, bounds).unwrap();
    let (block, blocked) = channel::<()>();
    let (begun, begins) = channel();
    writer
        .run(move |_| {
            begun.send(()).unwrap();
            assert!(blocked.recv().is_err(), "waits until the test lets go");
        })
        .unwrap();
    begins.recv().unwrap();
    (writer, block)
}

#[test]
fn an_alert_that_comes_while_a_large_group_is_written_waits_for_one_slice_of_it() {
    let bench = Bench {
        subtree_leaves: 65_536,
        ..Bench::new()
    };
    let (writer, block) = waiting_writer(&bench, QueueBounds::default());
    for n in 0..4000 {
        writer.submit(observation(n)).unwrap();
    }
    let before = bench.disk.syncs_of("leaves");
    let (begun, let_go) = bench.disk.hold_sync("leaves");
    drop(block);
    begun.recv().unwrap();
    assert!(
        writer.status().queued >= 2900,
        "a slice is bounded: {}",
        writer.status().queued
    );
    let (told, acks) = channel();
    let ack = move |result: Result<Durable, AppendError>| told.send(result).unwrap();
    writer.submit_durable(alert(4000), Box::new(ack)).unwrap();
    drop(let_go);
    let durable = acks.recv().unwrap().unwrap();
    assert_eq!(durable.leaf, Leaf(4000), "nothing overtakes");
    assert_eq!(
        bench.disk.syncs_of("leaves") - before,
        2,
        "the slice under way, and one commit of all the rest"
    );
}

#[test]
fn alerts_that_wait_become_durable_together_and_what_is_after_comes_after() {
    let bench = Bench {
        subtree_leaves: 1024,
        ..Bench::new()
    };
    let (writer, block) = waiting_writer(&bench, QueueBounds::default());
    let before = bench.disk.syncs_of("leaves");
    let (told, after) = channel();
    for n in 0..30 {
        writer.submit(observation(2 * n)).unwrap();
        let told = told.clone();
        let append = move |journal: &mut Journal| {
            let durable = Arc::new(Mutex::new(false));
            let noted = durable.clone();
            let ack = move |result: Result<Durable, AppendError>| {
                *noted.lock().unwrap() = result.unwrap().leaf == Leaf(2 * n + 1);
            };
            journal.append_with(alert(2 * n + 1), true, Box::new(ack));
            let after: After = Box::new(move |_| told.send(*durable.lock().unwrap()).unwrap());
            Some(after)
        };
        writer.run_holding(100, true, append).unwrap();
    }
    drop((block, told));
    assert_eq!(after.iter().collect::<Vec<_>>(), [true; 30]);
    assert_eq!(bench.disk.syncs_of("leaves") - before, 1);
}

#[test]
fn the_files_of_a_commit_are_synced_at_the_same_time() {
    let bench = Bench::new();
    let (writer, block) = waiting_writer(&bench, QueueBounds::default());
    let before = bench.disk.syncs_of("leaves");
    let (told, acks) = channel();
    let ack = move |result: Result<Durable, AppendError>| told.send(result).unwrap();
    writer.submit(observation(0)).unwrap();
    writer.submit_durable(alert(1), Box::new(ack)).unwrap();
    let (begun, let_go) = bench.disk.hold_sync("payloads");
    drop(block);
    begun.recv().unwrap();
    // the leaves' sync does not wait for that of the payloads, yet nobody is told before both
    while bench.disk.syncs_of("leaves") == before {
        std::thread::yield_now();
    }
    assert!(acks.try_recv().is_err());
    drop(let_go);
    assert_eq!(acks.recv().unwrap().unwrap().leaf, Leaf(1));
}

#[test]
fn a_disk_that_refuses_one_file_of_a_commit_has_refused_the_commit() {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    for file in ["payloads", "leaves"] {
        let refused = journal.refused();
        bench.disk.fail_sync(Some(file));
        journal.append(observation(0)).unwrap();
        assert!(
            journal.append_durable(alert(1)).is_ok(),
            "in the emergency segment"
        );
        assert_eq!(journal.refused(), refused + 1, "{file}");
        bench.disk.fail_sync(None);
        bench.clock.advance_ms(300);
        journal.sync().unwrap();
    }
    assert_eq!(
        journal.drain_losses().iter().map(|l| l.count).sum::<u64>(),
        2
    );
}

#[test]
fn what_tasks_hold_counts_towards_the_bound_and_quiet_ones_leave_room_for_urgent_ones() {
    let bench = Bench::new();
    let bounds = QueueBounds {
        bytes: 1000,
        urgent_percent: 20,
        ..QueueBounds::default()
    };
    let (writer, block) = waiting_writer(&bench, bounds);
    let (told, ran) = std::sync::mpsc::channel();
    let task = |name: &'static str| {
        let told = told.clone();
        move |_: &mut plimsoll_evidence::Journal| {
            told.send(name).unwrap();
            None
        }
    };
    writer.run_holding(700, false, task("quiet")).unwrap();
    let full = writer.run_holding(200, false, task("too much"));
    assert_eq!(full, Err(AppendError::QueueFull));
    writer.run_holding(200, true, task("urgent")).unwrap();
    assert_eq!(writer.status().queued_bytes, 900);
    assert!(writer.run_holding(200, true, task("beyond")).is_err());
    drop(block);
    assert_eq!(
        [ran.recv().unwrap(), ran.recv().unwrap()],
        ["quiet", "urgent"]
    );
    drop(writer);
}

#[test]
fn full_queue_gives_the_record_back_and_keeps_room_for_alerts() {
    let bench = Bench::new();
    let bounds = QueueBounds {
        records: 10,
        urgent_percent: 20,
        ..QueueBounds::default()
    };
    let (writer, block) = waiting_writer(&bench, bounds);
    for n in 0..8 {
        writer.submit(observation(n)).unwrap();
    }
    let refused = writer.submit(observation(8)).unwrap_err();
    assert!(matches!(refused, SubmitError::Full(record) if *record == observation(8)));
    let (told, acks) = std::sync::mpsc::channel();
    let ack = Box::new(move |result: Result<Durable, AppendError>| told.send(result).unwrap());
    writer.submit_durable(alert(9), ack).unwrap();
    assert_eq!((writer.status().queued, writer.status().refused), (9, 1));
    drop(block);
    assert_eq!(
        acks.recv().unwrap().map(|durable| durable.leaf),
        Ok(Leaf(8))
    );
    let huge = Record::new(1, RetentionClass::ALERT, vec![0; MAX_PAYLOAD_BYTES + 1]);
    assert!(matches!(writer.submit(huge), Err(SubmitError::TooLarge(_))));
}

#[test]
fn writer_reports_trouble_and_records_the_gap_when_there_is_room() {
    let bench = Bench::new();
    let writer = JournalWriter::start(bench.open().0, QueueBounds::default()).unwrap();
    bench.disk.set_room(Some(0));
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let begun = std::time::Instant::now();
        while !done() {
            assert!(begun.elapsed().as_secs() < 20, "{what} did not happen");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    writer.submit(observation(1).about(key(3))).unwrap();
    wait("trouble", &|| writer.status().health.trouble.is_some());
    assert_eq!(writer.status().health.lost, 1);
    bench.disk.set_room(None);
    bench.clock.advance_ms(300);
    writer.submit(observation(2)).unwrap();
    wait("recovery", &|| writer.status().health.trouble.is_none());
    let gap = |loss: &plimsoll_evidence::Loss| {
        Record::new(4, RetentionClass::GAP, loss.count.to_string().into_bytes())
    };
    writer.record_losses(gap).unwrap();
    let mut journal = writer.close().unwrap();
    assert_eq!(journal.drain_losses(), vec![]);
    let entry = bench.reader().get(Leaf(1)).unwrap().unwrap();
    assert_eq!(
        (entry.header.kind, entry.payload.bytes()),
        (4, Some(&b"1"[..]))
    );
}
