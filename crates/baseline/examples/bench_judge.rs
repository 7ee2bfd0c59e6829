//! How many observations a second are coded and judged on one core: known behaviour of a service
//! with 2,000 expected behaviours, patterns among them, and a flood of drift.
//!
//! `cargo run --release -p plimsoll-baseline --example bench_judge`

use plimsoll_baseline::{Baseline, Key, LearnConfig, NoNames, behaviours, judge};
use plimsoll_model::event::FileEvent;
use plimsoll_model::*;
use std::hint::black_box;
use std::time::Instant;

fn container() -> Container {
    Container {
        name: "web".into(),
        image: ImageRef {
            name: "web:1".into(),
            ..ImageRef::default()
        },
        role: "web".into(),
        cgroup_id: 1,
        state: ContainerState::Running,
        ..Container::new(
            Instance {
                id: ContainerId::parse("0123456789abcdef").expect("an id"),
                start: BootNs(0),
            },
            Runtime::Docker,
            Stamp::default(),
        )
    }
}

fn opened(c: &Container, second: u64, path: &str) -> Observation {
    let boot = BootNs(second * 1_000_000_000);
    let ancestor = || Ancestor {
        exe: "/usr/sbin/nginx".into(),
        ..Ancestor::default()
    };
    Observation {
        event: Event {
            boot,
            cgroup_id: 1,
            process: ProcessInfo::default(),
            actor: Actor(1),
            ..Event::new(EventKind::File(FileEvent {
                raw: None,
                mode: None,
                op: FileOp::Read,
                path: path.into(),
                target: Text::default(),
                origin: Origin::Volume,
                flags: 0,
                result: 0,
            }))
        },
        at: Stamp {
            boot,
            wall: WallNs(boot.0 as i64),
            uncertainty_ns: 0,
        },
        instance: Some(c.instance.clone()),
        lineage: vec![ancestor(), ancestor()].into(),
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 1,
    }
}

fn rate(
    what: &str,
    rounds: usize,
    observations: &[Observation],
    mut work: impl FnMut(&Observation),
) {
    let start = Instant::now();
    for obs in observations.iter().cycle().take(rounds) {
        work(black_box(obs));
    }
    let each = start.elapsed().as_secs_f64() / rounds as f64;
    println!(
        "{what:<44} {:>7.0} ns  {:>10.0} a second",
        each * 1e9,
        1.0 / each
    );
}

fn main() {
    let c = container();
    let mut b = Baseline::new(
        Key::of(&c).expect("a named image"),
        &c,
        LearnConfig::default(),
        Stamp::default(),
    );
    let exact: Vec<Observation> = (0..2000)
        .map(|n| opened(&c, n, &format!("/srv/www/d{:03}/index.html", n)))
        .collect();
    let sessions: Vec<Observation> = (0..64)
        .map(|n| opened(&c, n * 60, &format!("/var/lib/php/sess_{n:06}x9")))
        .collect();
    for obs in exact.iter().chain(&sessions) {
        let coded = behaviours(obs, &c, &NoNames);
        b.observe(obs, &c, &coded);
    }
    let fresh: Vec<Observation> = (0..4096)
        .map(|n| opened(&c, 1, &format!("/srv/www/other/{n}/x.html")))
        .collect();
    println!("{} expected behaviours", b.expected().count());
    let coded = |list: &[Observation]| {
        rate("code", 1_000_000, list, |obs| {
            black_box(behaviours(obs, &c, &NoNames));
        });
    };
    coded(&exact);
    rate("code and judge, known exactly", 1_000_000, &exact, |obs| {
        let coded = behaviours(obs, &c, &NoNames);
        assert!(judge(obs, &c, Some(&b), &coded).is_known());
    });
    rate(
        "code and judge, known by a pattern",
        1_000_000,
        &sessions,
        |obs| {
            let coded = behaviours(obs, &c, &NoNames);
            assert!(judge(obs, &c, Some(&b), &coded).is_known());
        },
    );
    rate("code and judge, new (learnable)", 300_000, &fresh, |obs| {
        let coded = behaviours(obs, &c, &NoNames);
        black_box(judge(obs, &c, Some(&b), &coded));
    });
    let approval = plimsoll_baseline::Approval {
        who: "bench".into(),
        why: "freeze".into(),
        at: Stamp::default(),
    };
    b.lock(approval).expect("not locked yet");
    rate(
        "code and judge, drift with nearest",
        100_000,
        &fresh,
        |obs| {
            let coded = behaviours(obs, &c, &NoNames);
            black_box(judge(obs, &c, Some(&b), &coded));
        },
    );
    rate(
        "code and observe, known exactly",
        1_000_000,
        &exact,
        |obs| {
            let coded = behaviours(obs, &c, &NoNames);
            black_box(b.observe(obs, &c, &coded));
        },
    );
}
