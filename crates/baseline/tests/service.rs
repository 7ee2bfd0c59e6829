//! A simulated service, seeded: it is learned, becomes ready by measurement, and is then attacked.

mod support;

use plimsoll_baseline::{Baseline, Coverage, Novelty, State, priority};
use plimsoll_model::*;
use support::*;

/// What a database-backed web application does in one slot. Rare acts have small probabilities.
fn slot(rng: &mut Rng) -> Vec<EventKind> {
    let mut acts = vec![
        accept(
            80,
            &format!(
                "203.0.{}.{}:4{:03}",
                rng.below(200),
                rng.below(200),
                rng.below(900)
            ),
        ),
        connect("10.0.0.5:5432"),
        read("/srv/app/index.php"),
    ];
    if rng.unit() < 0.5 {
        acts.push(write(&format!(
            "/var/lib/php/sess_{:08x}a1",
            rng.next() as u32
        )));
    }
    for (n, p) in [(1, 0.4), (2, 0.2), (3, 0.1), (4, 0.05), (5, 0.02)] {
        if rng.unit() < p {
            acts.push(read(&format!("/srv/app/page_{}.php", (b'a' + n) as char)));
        }
    }
    acts
}

fn start(b: &mut Baseline, c: &Container, second: u64) -> usize {
    let mut e = exec(NGINX);
    e.first = true;
    let mut drifts = observe(b, c, &see(c, second, &who(&[NGINX]), EventKind::Exec(e)))
        .drifts
        .len();
    for kind in [
        read("/etc/nginx/nginx.conf"),
        listen(80),
        write("/run/nginx.pid"),
    ] {
        drifts += observe(b, c, &see(c, second, &nginx(), kind)).drifts.len();
    }
    drifts
}

#[test]
fn a_service_is_learned_becomes_ready_by_measurement_and_then_drifts() {
    let seed = 0x5eed_5e4a;
    println!("seed {seed:#x}");
    let mut rng = Rng(seed);
    let lives = [
        container("web1", 0),
        container("web2", 5_000),
        container("web3", 10_000),
    ];
    let mut b = fresh(&lives[0]);
    let (mut ready_at, mut quiet, mut false_drifts) = (None, 0u32, 0usize);
    for (life, c) in lives.iter().enumerate() {
        let from = life as u64 * 5_000;
        false_drifts += start(&mut b, c, from);
        for n in 0..600 {
            let now = from + 2 * n;
            for kind in slot(&mut rng) {
                let v = observe(&mut b, c, &see(c, now, &nginx(), kind));
                false_drifts += v.drifts.len();
                quiet += u32::from(b.state() == State::Ready && v.is_known());
            }
            if b.refresh(at(now)).is_some() {
                ready_at = Some((life, n, b.statement()));
            }
        }
    }
    let (life, n, statement) = ready_at.expect("it becomes ready");
    println!("ready in life {} after {n} slots: {statement}", life + 1);
    assert!(life >= 1, "not before a second start was seen");
    println!("{quiet} acts known after that, {false_drifts} drifts of the service itself");
    // every observation after ready costs a human nothing, but for what coverage left open
    assert!(false_drifts <= 2, "{false_drifts} false drifts");
    assert!(b.pending().len() <= 2);

    // the attack: a shell, a dropped miner, the neighbour, the password hashes
    let c = &lives[2];
    let now = 12_000;
    let shell = who(&["/bin/sh", NGINX]);
    let tool = who(&["/tmp/.x", "/bin/sh", NGINX]);
    let mut dropped = exec("/tmp/.x");
    dropped.origin = Origin::Upper;
    let attack = [
        (&shell, run("/bin/sh"), DriftClass::ShellUnderServer),
        (
            &shell,
            file(FileOp::Create, "/tmp/.x", Origin::Upper),
            DriftClass::NewFileWrite,
        ),
        (
            &tool,
            EventKind::Exec(dropped),
            DriftClass::ProgramFromWritable,
        ),
        (&tool, connect("10.0.0.77:22"), DriftClass::NewOutboundPeer),
        (&tool, read("/etc/shadow"), DriftClass::SensitiveFileRead),
    ];
    for (who, kind, class) in attack {
        let v = observe(&mut b, c, &see(c, now, who, kind));
        assert_eq!(v.drifts[0].class, class);
        // a new file is kept as drift; what is done with it is what alerts
        let alerts = priority(&v.drifts[0], Novelty::First).is_some();
        assert_eq!(alerts, class != DriftClass::NewFileWrite, "{class:?}");
        assert_eq!(v.drifts[0].baseline.as_ref().unwrap().version, b.version());
    }
}

#[test]
fn the_measured_coverage_holds_for_what_comes_next() {
    let seed = 0x5eed_c0de;
    let mut rng = Rng(seed);
    let c = container("web", 0);
    let mut b = fresh(&c);
    start(&mut b, &c, 0);
    for n in 0..300 {
        for kind in slot(&mut rng) {
            observe(&mut b, &c, &see(&c, 2 * n, &nginx(), kind));
        }
    }
    let estimate = b.coverage().value();
    let (mut known, mut all) = (0u32, 0u32);
    for n in 300..1300 {
        for kind in slot(&mut rng) {
            all += 1;
            known += u32::from(judge(&b, &c, &see(&c, 2 * n, &nginx(), kind)).is_known());
        }
    }
    let truth = f64::from(known) / f64::from(all);
    println!("seed {seed:#x}: estimated {estimate:.4}, came true {truth:.4}");
    assert!(
        (estimate - truth).abs() < 0.02,
        "seed {seed:#x}: {estimate} against {truth}"
    );
    assert!(estimate > 0.97);
}

#[test]
fn every_dimension_says_its_own_coverage() {
    let (b, _) = ready();
    let kinds = b.coverage_by_kind();
    let of = |k| kinds.iter().find(|(x, _)| *x == k).map(|(_, c)| *c);
    assert!(of(BehaviourKind::File).unwrap().value() > 0.9);
    assert!(of(BehaviourKind::Connect).unwrap().value() > 0.9);
    assert_eq!(of(BehaviourKind::Bpf), None);
    let sum: u64 = kinds
        .iter()
        .map(|(_, c): &(_, Coverage)| c.incidences)
        .sum();
    assert_eq!(sum, b.coverage().incidences);
}

#[test]
fn the_same_observations_give_the_same_baseline() {
    let run = || {
        let mut rng = Rng(7);
        let c = container("web", 0);
        let mut b = fresh(&c);
        start(&mut b, &c, 0);
        for n in 0..200 {
            for kind in slot(&mut rng) {
                observe(&mut b, &c, &see(&c, 2 * n, &nginx(), kind));
            }
        }
        b.encode()
    };
    assert_eq!(run(), run());
}
