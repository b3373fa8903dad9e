//! What is learned of single times stays bounded, and follows what it has not seen by proportion.

use baton_profile::{Regression, pairs};
use proptest::prelude::*;

/// A step with a prompt's part.
fn features(new: u64, cached: u64) -> [f64; 3] {
    [1.0, new as f64, pairs(new, cached)]
}

fn truth(new: u64, cached: u64) -> f64 {
    let [one, tokens, pairs] = features(new, cached);
    20.0 * one + 0.1 * tokens + 3e-6 * pairs
}

#[test]
fn one_absurd_time_changes_little() {
    let mut regression = Regression::new([20.0, 0.1, 3e-6]);
    let seen = features(8_000, 0);
    let usual = truth(8_000, 0);
    for _ in 0..50 {
        regression.observe(&seen, usual);
    }
    regression.observe(&seen, usual * 1_000.0);
    let ratio = regression.predict(&seen) / usual;
    assert!((0.98..1.02).contains(&ratio), "{ratio}");
}

#[test]
fn prompts_of_one_length_say_how_fast_it_is_for_others() {
    let mut regression = Regression::new([20.0, 0.1, 3e-6]);
    let seen = features(1_000, 0);
    for _ in 0..500 {
        regression.observe(&seen, truth(1_000, 0) * 2.0);
    }
    let ratio = regression.predict(&seen) / truth(1_000, 0);
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
    let unseen = regression.predict(&features(20_000, 0)) / truth(20_000, 0);
    assert!((1.8..2.2).contains(&unseen), "{unseen}");
}

#[test]
fn proportions_get_their_scale_from_what_comes_first() {
    let mut regression = Regression::in_proportion([200.0, 1.0, 3e-5]);
    regression.observe(&features(1_000, 0), truth(1_000, 0));
    let ratio =
        |regression: &Regression<3>| regression.predict(&features(4_000, 2_000)) / truth(4_000, 2_000);
    assert!((0.99..1.01).contains(&ratio(&regression)), "{}", ratio(&regression));

    let mut regression = Regression::in_proportion([200.0, 1.0, 3e-5]);
    regression.observe(&features(1_000, 0), 1e-3);
    regression.observe(&features(1_000, 0), truth(1_000, 0));
    assert!((0.99..1.01).contains(&ratio(&regression)), "the first was absurd: {}", ratio(&regression));
}

proptest! {
    #[test]
    fn learning_stays_bounded(seen in proptest::collection::vec(
        (0_u64..1_000_000, 0_u64..1_000_000, prop_oneof![Just(f64::NAN), Just(-1.0), Just(0.0), Just(f64::INFINITY), 1e-6_f64..1e12]),
        1..200,
    )) {
        let prior = [20.0, 0.1, 3e-6];
        let mut regression = Regression::new(prior);
        for (new, cached, took) in seen {
            regression.observe(&features(new, cached), took);
            for (learned, prior) in regression.coefficients().iter().zip(prior) {
                prop_assert!(learned.is_finite() && *learned >= 0.0 && *learned <= prior * 1_001.0, "{learned}");
            }
        }
    }
}
