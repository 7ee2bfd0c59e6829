//! How complete an answer is: observed, lost, blind, unknown; carried by every question.

mod scene;

use plimsoll_api::types::Coverage;
use plimsoll_ask::*;
use plimsoll_model::*;
use scene::*;

const S: u64 = scene::S;

fn clock(world: &mut World, s: f64) {
    let anchor = ClockAnchor {
        boot: at(s).boot,
        wall: at(s).wall,
        uncertainty_ns: 10,
        step_ns: 0,
    };
    world.put(at(s), None, Record::Clock(anchor));
}

/// A container from 0 to 100 s under an agent that started before.
fn watched() -> (World, Container) {
    let mut world = World::new();
    world.agent("start", -100.0);
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    (world, web)
}

/// Ends the container at 100 s and asks.
fn covered(mut world: World, mut web: Container, question: Question) -> plimsoll_api::Answer {
    world.gone(&mut web, 100.0);
    one(&world, question, "web")
}

fn lengths(c: &Coverage) -> (u64, u64, u64) {
    (c.observed_ns / S, c.blind_ns / S, c.unknown_ns / S)
}

#[test]
fn every_question_carries_a_coverage_that_adds_up() {
    for question in Question::ALL {
        let (mut world, web) = watched();
        world.agent("stop", 40.0);
        world.agent("start", 60.0);
        let c = covered(world, web, question).completeness;
        let sum = c.coverage.observed_ns + c.coverage.blind_ns + c.coverage.unknown_ns;
        let span = |t: &Option<String>| t.clone().expect("both ends");
        assert!(sum > 0 && span(&c.from) < span(&c.to), "{question}");
        assert_eq!(c.coverage.blind_ns, 20 * S, "{question}");
        assert_eq!(
            c.coverage.blind[0].why, "the agent was stopped",
            "{question}"
        );
        assert!(!c.coverage.blind[0].evidence.is_empty(), "{question}");
        assert_eq!(c.level, "partial", "{question}");
    }
}

#[test]
fn an_agent_that_was_killed_watched_until_its_last_clock() {
    let (mut world, web) = watched();
    for s in [10.0, 20.0, 30.0] {
        clock(&mut world, s);
    }
    world.agent("start", 60.0);
    let a = covered(world, web, Question::Q16);
    assert_eq!(lengths(&a.completeness.coverage), (70, 30, 0));
    assert!(says(&a, "observed", &["No agent ran", "30 s", "had died"]));
}

#[test]
fn a_start_over_running_programs_was_watched_since_they_were_read_last() {
    for stop in [Some(41.0), None] {
        let (mut world, web) = watched();
        clock(&mut world, 39.0);
        if let Some(s) = stop {
            world.agent("stop", s);
        }
        let since = at(40.0).wall.0.to_string();
        world.start_with(60.0, vec![("watched_since".into(), since)]);
        let a = covered(world, web, Question::Q16);
        assert_eq!(lengths(&a.completeness.coverage), (100, 0, 0), "{stop:?}");
    }
}

#[test]
fn a_whole_interval_is_complete_and_says_so() {
    let (world, web) = watched();
    let a = covered(world, web, Question::Q2);
    assert_eq!(a.completeness.level, "complete");
    assert_eq!(lengths(&a.completeness.coverage), (100, 0, 0));
    assert_eq!(a.completeness.coverage.observations, Some(0));
}

#[test]
fn losses_are_told_by_stage_with_what_was_not_counted() {
    let (mut world, web) = watched();
    world.gap(Some(&web), Stage::BulkRing, 3.0, 6.0, Some(17), "full");
    world.gap(None, Stage::BulkRing, 7.0, 8.0, Some(3), "full");
    world.gap(None, Stage::Queue, 6.0, 7.0, None, "full");
    let other = container("db", 'd', 0.0, '2');
    world.gap(
        Some(&other),
        Stage::Scratch,
        6.0,
        7.0,
        Some(99),
        "of another",
    );
    let c = covered(world, web, Question::Q8).completeness.coverage;
    let told: Vec<_> = c
        .lost
        .iter()
        .map(|l| (&*l.stage, l.gaps, l.events, l.at_least))
        .collect();
    assert_eq!(told, [("bulk_ring", 2, 20, false), ("queue", 1, 0, true)]);
}

#[test]
fn a_gap_record_that_retention_removed_makes_the_answer_partial() {
    let (mut world, web) = watched();
    world.gap(Some(&web), Stage::BulkRing, 3.0, 6.0, Some(17), "full");
    world.records.last_mut().expect("just put there").2 = Body::Pruned;
    let mut world_of_gaps = world;
    world_of_gaps.pruned_kind = RecordKind::Gap;
    let c = covered(world_of_gaps, web, Question::Q1).completeness;
    assert_eq!((c.level.as_str(), c.coverage.removed), ("partial", 1));
    assert!(
        c.limits.join(" ").contains("losses may be missing"),
        "{:?}",
        c.limits
    );
}

#[test]
fn before_the_first_start_and_behind_the_journal_nothing_is_known() {
    let mut world = World::new();
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    world.agent("start", 30.0);
    let a = one(&world, Question::Q16, "web");
    // 100 s of life; the agent is believed for 20 s beyond its last record
    assert_eq!(lengths(&a.completeness.coverage), (20, 0, 80));
    assert!(says(
        &a,
        "unknown",
        &["Whether an agent watched", "no start of an agent"]
    ));
}

/// A tombstone over these leaves, as the journal writes it.
fn tombstone(world: &mut World, s: f64, class: u8, first: u64, end: u64) -> RecordId {
    let removal = record::Removal {
        class,
        first,
        end,
        bytes: 4096,
        reason: "age".into(),
        actor: "retention".into(),
        policy: "3: 30d".into(),
    };
    let payload = minicbor::to_vec(&removal).expect("memory");
    let kind = RecordKind::Tombstone as u16;
    world.put(at(s), None, Record::Unknown(kind, payload))
}

#[test]
fn what_retention_deleted_is_told_with_its_tombstone_and_never_as_nothing() {
    let (mut world, web) = watched();
    let sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    for s in [5.0, 6.0, 7.0] {
        let leaf = world
            .act(&web, s, &sh, file(event::FileOp::Read, "/etc/shadow", 0))
            .leaf;
        world.records[leaf as usize].2 = Body::Pruned;
    }
    let end = world.records.len() as u64;
    let other = tombstone(&mut world, 90.0, 1, 0, end);
    let ours = tombstone(&mut world, 91.0, 3, 0, end);
    for question in [Question::Q2, Question::Q7, Question::Q9, Question::Q11] {
        let a = covered(world.clone(), web.clone(), question);
        let cited = format!("tombstone {ours}");
        assert!(
            says(
                &a,
                "observed",
                &["3 records", "deleted by retention at", "30d", &cited]
            ),
            "{question}: {:#?}",
            a.statements
        );
        assert!(
            !a.statements
                .iter()
                .any(|s| s.text.contains(&other.to_string())),
            "{question}"
        );
        assert_eq!(a.completeness.level, "partial", "{question}");
    }
}

#[test]
fn content_that_is_gone_without_a_tombstone_is_said_to_be() {
    let (mut world, web) = watched();
    let sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    let leaf = world
        .act(&web, 5.0, &sh, file(event::FileOp::Read, "/etc/shadow", 0))
        .leaf;
    world.records[leaf as usize].2 = Body::Pruned;
    let a = covered(world, web, Question::Q2);
    assert!(says(&a, "unknown", &["1 record", "no tombstone says"]));
}

#[test]
fn hooks_that_ended_their_work_watched_until_then_and_not_to_the_next_start() {
    let (mut world, web) = watched();
    clock(&mut world, 20.0);
    world.agent("stop", 21.0);
    let until = at(40.0).wall.0.to_string();
    world.start_with(60.0, vec![("watched_until".into(), until)]);
    let a = covered(world, web, Question::Q16);
    assert_eq!(lengths(&a.completeness.coverage), (80, 20, 0));
    assert!(says(&a, "observed", &["No agent ran", "20 s"]));
}
