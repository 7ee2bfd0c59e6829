//! Payloads go when their rule says so, behind a tombstone; leaves stay.

mod common;

use common::{Bench, alert, observation, vanish};
use plimsoll_evidence::{
    AppendError, Filter, Journal, Leaf, Payload, Prune, PruneReason, Record, RetainError,
    RetentionClass, RetentionPolicy, RetentionRule,
};

const DAY_MS: u64 = 86_400_000;

/// Leaves 0 to 19 in subtrees of 8; leaf n happened on day n.
fn twenty_days() -> (Bench, Journal) {
    let bench = Bench::new();
    let (mut journal, _) = bench.open();
    for n in 0..20u64 {
        let record = if n % 4 == 3 { alert(n) } else { observation(n) };
        journal.append(record.at(day(n), n)).unwrap();
    }
    journal.sync().unwrap();
    (bench, journal)
}

fn day(n: u64) -> i64 {
    i64::try_from(n * DAY_MS * 1_000_000).unwrap()
}

fn rule(class: RetentionClass, days: Option<u64>, max_bytes: Option<u64>) -> RetentionPolicy {
    let max_age_ms = days.map(|days| days * DAY_MS);
    RetentionPolicy {
        rules: vec![RetentionRule {
            class,
            max_age_ms,
            max_bytes,
        }],
    }
}

fn tombstone(prune: &Prune) -> Record {
    let text = format!("{} {}..{} by policy", prune.class, prune.first, prune.end);
    Record::new(90, RetentionClass::CUSTODY, text.into_bytes())
}

fn ranges(plan: &[Prune]) -> Vec<(u64, u64, PruneReason)> {
    plan.iter().map(|p| (p.first, p.end, p.reason)).collect()
}

#[test]
fn age_takes_whole_past_subtrees_of_its_class_only() {
    let (_bench, journal) = twenty_days();
    let observations = RetentionClass::OBSERVATION;
    let plan = |days, now| {
        ranges(
            &journal
                .plan_retention(&rule(observations, Some(days), None), day(now))
                .unwrap(),
        )
    };
    assert_eq!(
        plan(5, 11),
        vec![],
        "its newest record, of day 6, is 5 days old"
    );
    assert_eq!(plan(5, 12), vec![(0, 8, PruneReason::Age)]);
    let both = vec![(0, 8, PruneReason::Age), (8, 16, PruneReason::Age)];
    assert_eq!(plan(5, 900), both, "the subtree being written stays");
}

#[test]
fn size_takes_the_oldest_first() {
    let (_bench, journal) = twenty_days();
    let policy = rule(RetentionClass::OBSERVATION, None, Some(400));
    let plan = journal.plan_retention(&policy, day(20)).unwrap();
    assert_eq!(ranges(&plan), vec![(0, 8, PruneReason::Size)]);
    assert!(
        journal
            .plan_retention(&RetentionPolicy::default(), day(9000))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn pruned_payload_reads_as_pruned_and_names_its_tombstone() {
    let (bench, mut journal) = twenty_days();
    let policy = rule(RetentionClass::OBSERVATION, Some(5), None);
    let plan = journal.plan_retention(&policy, day(12)).unwrap();
    let done = journal.prune(&plan[0], tombstone(&plan[0])).unwrap();
    assert_eq!(
        (done.tombstone.leaf, done.bytes),
        (Leaf(20), plan[0].payload_bytes)
    );
    let reader = bench.reader();
    let entry = reader.get(Leaf(1)).unwrap().unwrap();
    assert_eq!(
        entry.payload,
        Payload::Pruned {
            tombstone: Some(Leaf(20))
        }
    );
    assert_eq!(entry.header.wall_ns, day(1), "the leaf stays");
    assert_eq!(
        reader.get(Leaf(3)).unwrap().unwrap().payload.bytes(),
        Some(&b"alert 3"[..])
    );
    let scrub = reader.scrub(0..u64::MAX).unwrap();
    assert_eq!((scrub.checked, scrub.pruned, scrub.lost.len()), (21, 6, 0));
    let again = journal.prune(&plan[0], tombstone(&plan[0])).unwrap_err();
    assert!(matches!(again, RetainError::NotPrunable { .. }), "{again}");
    drop(journal);
    assert!(bench.open().1.is_clean(), "pruned is not damaged");
}

#[test]
fn root_in_the_plan_is_that_of_the_leaves_and_survives_the_payload() {
    let (_bench, mut journal) = twenty_days();
    let policy = rule(RetentionClass::OBSERVATION, Some(5), None);
    let before = journal.plan_retention(&policy, day(12)).unwrap();
    journal.prune(&before[0], tombstone(&before[0])).unwrap();
    let alerts = journal
        .plan_retention(&rule(RetentionClass::ALERT, Some(1), None), day(12))
        .unwrap();
    assert!(before[0].root.is_some());
    assert_eq!(
        alerts[0].root, before[0].root,
        "the same leaves, whatever payloads remain"
    );
}

#[test]
fn deletion_waits_for_a_durable_tombstone() {
    let (bench, mut journal) = twenty_days();
    let policy = rule(RetentionClass::OBSERVATION, Some(5), None);
    let plan = journal.plan_retention(&policy, day(12)).unwrap();
    bench.disk.fail_sync(Some("/j"));
    let error = journal.prune(&plan[0], tombstone(&plan[0])).unwrap_err();
    assert!(
        matches!(
            error,
            RetainError::Tombstone(AppendError::NotDurable { .. })
        ),
        "{error}"
    );
    bench.disk.fail_sync(None);
    assert!(
        bench
            .reader()
            .get(Leaf(1))
            .unwrap()
            .unwrap()
            .payload
            .bytes()
            .is_some()
    );
}

#[test]
fn full_disk_can_be_relieved_by_pruning() {
    let (bench, mut journal) = twenty_days();
    let policy = rule(RetentionClass::OBSERVATION, Some(5), None);
    let plan = journal.plan_retention(&policy, day(12)).unwrap();
    // Two bytes short of the next record.
    bench.disk.set_room(Some(140));
    assert!(
        journal
            .append(observation(20))
            .and_then(|_| journal.sync())
            .is_err()
    );
    // The tombstone lies in the emergency segment; the stub fits where the batch did not.
    journal.prune(&plan[0], tombstone(&plan[0])).unwrap();
    bench.clock.advance_ms(300);
    journal.append(observation(21)).unwrap();
    assert_eq!(journal.sync().unwrap(), Leaf(22));
    assert_eq!(journal.health().trouble, None);
}

#[test]
fn interrupted_deletion_is_finished_or_not_begun() {
    for seed in 0..40 {
        let (bench, mut journal) = twenty_days();
        let policy = rule(RetentionClass::OBSERVATION, Some(5), None);
        let plan = journal.plan_retention(&policy, day(12)).unwrap();
        bench
            .disk
            .fail_sync(if seed % 2 == 0 { Some("pruned") } else { None });
        let done = journal.prune(&plan[0], tombstone(&plan[0]));
        vanish(journal);
        let after = bench.after_power_loss(seed);
        let (journal, recovery) = after.open();
        assert_eq!(recovery.damage, vec![], "seed {seed}");
        let payload = after.reader().get(Leaf(1)).unwrap().unwrap().payload;
        match payload {
            Payload::Present { .. } => assert!(done.is_err()),
            Payload::Pruned { tombstone } => assert_eq!(tombstone, Some(Leaf(20))),
            Payload::Lost { why } => panic!("seed {seed}: {why}"),
        }
        let tombstones = Filter {
            kinds: vec![90],
            ..Filter::default()
        };
        assert_eq!(journal.reader().scan(tombstones).unwrap().count(), 1);
    }
}

#[test]
fn only_whole_past_subtrees_can_be_pruned() {
    let (_bench, mut journal) = twenty_days();
    let class = RetentionClass::ALERT;
    for (first, end) in [(16, 24), (0, 4), (4, 12), (8, 24)] {
        let prune = Prune {
            class,
            first,
            end,
            payload_bytes: 0,
            root: None,
            reason: PruneReason::Age,
        };
        let error = journal.prune(&prune, tombstone(&prune)).unwrap_err();
        assert!(matches!(error, RetainError::NotPrunable { .. }), "{error}");
    }
}
