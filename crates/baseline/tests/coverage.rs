//! The estimator against numbers worked by hand and against worlds whose truth is known.

mod support;

use plimsoll_baseline::Coverage;
use support::Rng;

fn counts(units: u64, incidences: u64, uniques: u64, duplicates: u64) -> Coverage {
    Coverage {
        units,
        incidences,
        seen: uniques + duplicates,
        uniques,
        duplicates,
    }
}

#[test]
fn the_formula_gives_the_numbers_worked_by_hand() {
    // T=10, U=100, Q1=10, Q2=5: A = 9·10/(9·10+2·5) = 0.9, C = 1 − 0.1·0.9 = 0.91
    assert!((counts(10, 100, 10, 5).value() - 0.91).abs() < 1e-12);
    // Q2=0: A = 9·9/(9·9+2) = 81/83, C = 1 − 0.1·81/83
    assert!((counts(10, 100, 10, 0).value() - (1.0 - 0.1 * 81.0 / 83.0)).abs() < 1e-12);
    // Chao2: (9/10)·10²/(2·5) = 9
    assert!((counts(10, 100, 10, 5).unseen() - 9.0).abs() < 1e-12);
    // extrapolation by one unit: 9·(1 − (1 − 10/(10·9+10))^1) = 0.9
    assert!((counts(10, 100, 10, 5).expected_new(1.0) - 0.9).abs() < 1e-12);
}

/// Ants of Costa Rican forest floors (Longino & Colwell 2011, Ecosphere 2:29), the incidence data
/// on which Chao et al. 2014 show the estimator: species frequencies over 200 plots at 2000 m, and
/// T, U, Q1, Q2 of the 200 plots at 1500 m. The expected coverages follow from the formula by hand.
#[test]
fn the_ants_of_the_estimators_paper_are_covered_as_they_should_be() {
    let high = Coverage::of(200, [1, 2, 2, 3, 4, 8, 8, 13, 15, 19, 23, 34, 59, 80]);
    assert_eq!(
        (high.incidences, high.uniques, high.duplicates),
        (271, 1, 2)
    );
    // A = 199/(199 + 4), C = 1 − A/271
    assert!((high.value() - 0.996_383).abs() < 1e-6, "{}", high.value());
    // A = 199·13/(199·13 + 8), C = 1 − 13/1170·A
    let low = counts(200, 1170, 13, 4);
    assert!((low.value() - 0.988_923).abs() < 1e-6, "{}", low.value());
}

#[test]
fn nothing_sampled_covers_nothing_and_one_unit_is_no_evidence() {
    assert_eq!(Coverage::default().value(), 0.0);
    assert_eq!(Coverage::of(1, [1, 1, 1]).value(), 0.0);
    assert_eq!(Coverage::of(50, [50, 50]).value(), 1.0);
    assert_eq!(Coverage::default().statement(60), "nothing sampled yet");
}

#[test]
fn a_single_unique_is_not_taken_for_full_coverage() {
    assert!(Coverage::of(100, [100, 100, 1]).value() < 1.0);
}

#[test]
fn inherited_behaviour_that_was_not_seen_does_not_count() {
    assert_eq!(Coverage::of(10, [0, 0, 10]), Coverage::of(10, [10]));
}

#[test]
fn the_statement_says_share_units_and_rate() {
    let c = counts(1440, 90_000, 3, 4);
    let text = c.statement(60);
    assert!(
        text.starts_with("99.9 % covered over 1440 units, about 1"),
        "{text}"
    );
}

/// A world of behaviours with known probabilities a unit: a common core and a rare tail.
fn world(rng: &mut Rng) -> Vec<f64> {
    let core = (0..40).map(|_| 0.3 + 0.7 * rng.unit());
    let mut world: Vec<f64> = core.collect();
    world.extend((0..200).map(|_| 0.02 * rng.unit()));
    world
}

fn sample(rng: &mut Rng, world: &[f64], units: u64) -> Vec<u64> {
    let mut seen = vec![0; world.len()];
    for _ in 0..units {
        for (n, p) in seen.iter_mut().zip(world) {
            *n += u64::from(rng.unit() < *p);
        }
    }
    seen
}

/// True coverage: the share of all incidence probability that belongs to seen behaviours.
fn truth(world: &[f64], seen: &[u64]) -> f64 {
    let known: f64 = world
        .iter()
        .zip(seen)
        .filter(|(_, n)| **n > 0)
        .map(|(p, _)| p)
        .sum();
    known / world.iter().sum::<f64>()
}

#[test]
fn the_estimate_is_calibrated_on_simulated_worlds() {
    let seed = 0x5eed_0001;
    let mut rng = Rng(seed);
    for units in [10, 30, 100, 300] {
        let (mut bias, mut square) = (0.0, 0.0);
        const ROUNDS: u32 = 200;
        for _ in 0..ROUNDS {
            let world = world(&mut rng);
            let seen = sample(&mut rng, &world, units);
            let estimate = Coverage::of(units, seen.iter().copied()).value();
            let error = estimate - truth(&world, &seen);
            bias += error / f64::from(ROUNDS);
            square += error * error / f64::from(ROUNDS);
        }
        let rms = f64::sqrt(square);
        println!("seed {seed:#x}, {units} units: bias {bias:+.5}, rms error {rms:.5}");
        // unbiased, and the error of one sample shrinks at least as fast as 1/√units
        assert!(
            bias.abs() < 0.003,
            "seed {seed:#x}: bias {bias} at {units} units"
        );
        let bound = 0.08 / (units as f64).sqrt();
        assert!(
            rms < bound,
            "seed {seed:#x}: rms error {rms} at {units} units, bound {bound}"
        );
    }
}

#[test]
fn the_expected_number_of_new_behaviours_comes_true() {
    let seed = 0x5eed_0002;
    let mut rng = Rng(seed);
    let (mut expected, mut came) = (0.0, 0.0);
    for _ in 0..100 {
        let world = world(&mut rng);
        let seen = sample(&mut rng, &world, 100);
        expected += Coverage::of(100, seen.iter().copied()).expected_new(50.0);
        let later = sample(&mut rng, &world, 50);
        came += seen
            .iter()
            .zip(&later)
            .filter(|(a, b)| **a == 0 && **b > 0)
            .count() as f64;
    }
    println!("seed {seed:#x}: expected {expected:.0} new behaviours, {came:.0} came");
    let ratio = expected / came;
    assert!(
        (0.85..1.15).contains(&ratio),
        "seed {seed:#x}: expected {expected}, came {came}"
    );
}
