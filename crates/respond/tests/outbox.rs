//! Nothing offered is lost, everything is bounded, and what is told about one alert is in order.

use plimsoll_model::response::DeliveryResult;
use plimsoll_model::{AlertId, Priority};
use plimsoll_respond::outbox::*;

fn receiver(name: &str, per_minute: u32) -> Receiver {
    Receiver {
        name: name.into(),
        priority: Priority::Debug,
        per_minute,
    }
}
fn alert(n: u64) -> Offered {
    Offered {
        key: format!("A-{n:06}"),
        id: AlertId::parse(&format!("A-{n:06}")).unwrap(),
        leaf: n,
        rule: format!("rule {}", n % 100),
        priority: Priority::Warning,
        body: "{}".into(),
    }
}
fn later() -> Tried {
    Tried::Later {
        retry_after_ms: None,
    }
}

/// Lets simulated time pass until everything has settled or `until`; answers with `answer`.
fn run(
    outbox: &mut Outbox,
    from: u64,
    until: u64,
    mut answer: impl FnMut(u64, &Message) -> Tried,
) -> Vec<(u64, Settled)> {
    let mut all = Vec::new();
    let mut now = from;
    while now <= until {
        for (name, message) in outbox.due(now) {
            let tried = answer(now, &message);
            all.extend(
                outbox
                    .tried(&name, &message.key, &tried, now)
                    .map(|s| (now, s)),
            );
        }
        match outbox.next_due() {
            Some(at) => now = at.max(now + 1),
            None => break,
        }
    }
    all
}
fn delivered(settled: &[(u64, Settled)]) -> u64 {
    let done = settled
        .iter()
        .filter(|(_, s)| s.result == DeliveryResult::Delivered);
    done.map(|(_, s)| s.message.count).sum()
}

#[test]
fn ten_thousand_alerts_in_a_minute_are_all_told_in_few_messages() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30)], 0);
    let mut settled = Vec::new();
    for n in 0..10_000 {
        let now = n * 6;
        outbox.offer(&alert(n), None, now);
        // one receiver needs 200 ms for each message
        if n % 33 == 0 {
            settled.extend(run(&mut outbox, now, now, |_, _| Tried::Delivered));
        }
    }
    settled.extend(run(&mut outbox, 60_000, 600_000, |_, _| Tried::Delivered));
    assert_eq!(delivered(&settled), 10_000);
    assert!(settled.len() < 100, "{} messages", settled.len());
    assert_eq!(outbox.settled_below("ops"), Some(10_000));
}

#[test]
fn a_receiver_that_is_down_for_an_hour_gets_everything_afterwards_and_in_order() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30)], 0);
    (0..10_000).for_each(|n| outbox.offer(&alert(n), None, n * 6));
    let hour = 3_600_000;
    let settled = run(&mut outbox, 60_000, 3 * hour, |now, _| match now < hour {
        true => later(),
        false => Tried::Delivered,
    });
    assert_eq!(delivered(&settled), 10_000);
    let tries = settled.iter().filter(|(at, _)| *at < hour).count();
    assert!((10..60).contains(&tries), "{tries} tries in an hour");
    let leaves: Vec<u64> = settled.iter().map(|(_, s)| s.message.leaf).collect();
    assert!(leaves.is_sorted(), "{leaves:?}");
    assert_eq!(outbox.dead().count(), 0);
}

#[test]
fn what_waits_is_bounded_while_nobody_answers() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 100_000)], 0);
    (0..50_000).for_each(|n| outbox.offer(&alert(n), None, n));
    assert_eq!(outbox.waiting().next(), Some(("ops", 50_000)));
    let settled = run(&mut outbox, 50_000, 500_000, |_, _| Tried::Delivered);
    assert_eq!(delivered(&settled), 50_000);
    assert_eq!(settled.len(), QUEUE_MAX + 1, "the queue, then one storm");
    let Content::Storm(groups) = &settled.last().unwrap().1.message.content else {
        panic!("the last message is the storm")
    };
    assert!(groups.len() <= GROUPS_MAX + 1);
    assert!(
        settled
            .iter()
            .all(|(_, s)| s.message.alerts.len() <= IDS_MAX)
    );
}

#[test]
fn a_receiver_says_when_to_come_back_and_is_obeyed() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30)], 0);
    outbox.offer(&alert(1), None, 0);
    let asked = Tried::Later {
        retry_after_ms: Some(90_000),
    };
    let settled = run(&mut outbox, 0, 200_000, |now, _| match now {
        0 => asked.clone(),
        _ => Tried::Delivered,
    });
    assert_eq!(settled[1].0, 90_000);
    assert_eq!(settled[1].1.message.attempts, 2);
    assert_eq!(settled[0].1.message.key, settled[1].1.message.key);
}

#[test]
fn jitter_spreads_tries_and_comes_from_the_seed() {
    let waits = |seed| {
        let mut outbox = Outbox::new(seed);
        outbox.receivers(&[receiver("ops", 30)], 0);
        outbox.offer(&alert(1), None, 0);
        let settled = run(&mut outbox, 0, 1_000_000, |_, _| later());
        settled.iter().map(|(at, _)| *at).collect::<Vec<_>>()
    };
    assert_eq!(waits(3), waits(3));
    assert_ne!(waits(3), waits(4));
    let mut gaps = waits(3).windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>();
    gaps.sort_unstable();
    assert!(*gaps.last().unwrap() <= BACKOFF_MAX_MS);
}

#[test]
fn a_refused_message_is_a_dead_letter_until_a_person_sends_it_again() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30), receiver("siem", 30)], 0);
    outbox.offer(&alert(1), None, 0);
    outbox.offer(&alert(2), None, 0);
    let settled = run(&mut outbox, 0, 1000, |_, m| match m.leaf {
        1 => Tried::Refused,
        _ => Tried::Delivered,
    });
    assert_eq!(
        delivered(&settled),
        2,
        "the next alert is told all the same"
    );
    assert_eq!(outbox.dead().count(), 2);
    assert_eq!(outbox.resend(Some("siem"), None, 2000), 1);
    let again = run(&mut outbox, 2000, 3000, |_, _| Tried::Delivered);
    assert_eq!(delivered(&again), 1);
    assert_eq!(outbox.dead().map(|(r, _)| r).collect::<Vec<_>>(), ["ops"]);
}

#[test]
fn a_day_of_failure_makes_a_dead_letter() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30)], 0);
    outbox.offer(&alert(1), None, 0);
    let settled = run(&mut outbox, 0, 2 * GIVE_UP_MS, |_, _| later());
    assert_eq!(settled.last().unwrap().1.result, DeliveryResult::Dead);
}

#[test]
fn a_sender_that_dies_leaves_its_message_first_in_the_queue() {
    let mut outbox = Outbox::new(7);
    outbox.receivers(&[receiver("ops", 30)], 0);
    outbox.offer(&alert(1), None, 0);
    outbox.offer(&alert(2), None, 0);
    let (_, first) = outbox.due(0).remove(0);
    assert!(outbox.due(0).is_empty(), "one at a time");
    assert_eq!(outbox.senders_lost(10).len(), 1);
    assert_eq!(outbox.settled_below("ops"), Some(1));
    let at = outbox.next_due().unwrap();
    assert_eq!(outbox.due(at).remove(0).1.key, first.key);
}

#[test]
fn less_severe_alerts_are_not_told_and_count_as_settled() {
    let mut outbox = Outbox::new(7);
    let only_critical = Receiver {
        priority: Priority::Critical,
        ..receiver("ops", 30)
    };
    outbox.receivers(&[only_critical], 0);
    outbox.offer(&alert(5), None, 0);
    assert_eq!(outbox.next_due(), None);
    assert_eq!(outbox.settled_below("ops"), Some(6));
}
