//! What is learned converges, stays bounded, and follows a worker that changes.

use baton_policy::{
    cost::{LinkCost, PrefillCost},
    dice::Dice,
    learn::{Learner, OutputLengths, Quantiles},
};

const TRUTH: PrefillCost = PrefillCost { fixed_ms: 20.0, per_token_ms: 0.1, per_pair_ms: 3e-6 };

fn prompt(dice: &mut Dice) -> (u64, u64) {
    (100 + dice.below(20_000) as u64, dice.below(30_000) as u64)
}

#[test]
fn coefficients_converge_from_published_constants() {
    let mut learner = Learner::default();
    let mut dice = Dice::new(1);
    for _ in 0..200 {
        let (new, cached) = prompt(&mut dice);
        let noise = 0.9 + 0.2 * dice.unit();
        learner.prefilled("w", new, cached, TRUTH.predict(new, cached) * noise);
    }
    let learned = learner.costs("w").prefill;
    for (new, cached) in [(500, 0), (8_000, 0), (2_000, 25_000), (20_000, 10_000)] {
        let ratio = learned.predict(new, cached) / TRUTH.predict(new, cached);
        assert!((0.88..1.12).contains(&ratio), "{new} after {cached}: {ratio}");
    }
}

#[test]
fn steps_of_several_prompts_teach_what_one_takes() {
    let mut learner = Learner::default();
    let mut dice = Dice::new(4);
    for _ in 0..200 {
        let prompts: Vec<f64> = (0..1 + dice.below(8)).map(|_| 100.0 + 900.0 * dice.unit()).collect();
        let tokens: f64 = prompts.iter().sum();
        let pairs: f64 = prompts.iter().map(|new| new * new / 2.0).sum();
        let step_ms = TRUTH.fixed_ms + TRUTH.per_token_ms * tokens + TRUTH.per_pair_ms * pairs;
        learner.prompts_stepped("w", tokens, pairs, step_ms * (0.95 + 0.1 * dice.unit()));
    }
    let ratio = learner.costs("w").prefill.predict(1_000, 0) / TRUTH.predict(1_000, 0);
    assert!((0.88..1.12).contains(&ratio), "{ratio}");
}

#[test]
fn what_prompts_take_beside_those_who_generate_is_the_usual_and_never_less_than_alone() {
    let mut learner = Learner::default();
    assert!((learner.joined("w").beside - 1.6 / 0.6).abs() < 1e-12, "nothing is hidden until it is seen");
    for number in 0..100 {
        // One of ten waits for others' prompts first.
        learner.prompt_beside(40.0, if number % 10 == 0 { 900.0 } else { 50.0 });
        learner.prompt_beside(0.0, 50.0);
    }
    learner.prefilled("w", 1_000, 0, 40.0);
    let beside = learner.costs("w").beside;
    assert!((1.1..1.4).contains(&beside), "{beside}");
    (0..200).for_each(|_| learner.prompt_beside(40.0, 10.0));
    learner.prefilled("w", 1_000, 0, 40.0);
    // Quantiles are exact to 9 %.
    let beside = learner.costs("w").beside;
    assert!((1.0..1.1).contains(&beside), "{beside}");
}

#[test]
fn a_worker_that_becomes_three_times_slower_is_known_within_twenty_requests() {
    for seed in 0..50 {
        let mut learner = Learner::default();
        let mut dice = Dice::new(seed);
        let mut observe = |learner: &mut Learner, factor: f64| {
            let (new, cached) = prompt(&mut dice);
            let noise = 0.9 + 0.2 * dice.unit();
            learner.prefilled("w", new, cached, TRUTH.predict(new, cached) * factor * noise);
            learner.costs("w").prefill.predict(8_000, 0) / TRUTH.predict(8_000, 0)
        };
        for _ in 0..100 {
            observe(&mut learner, 1.0);
        }
        for _ in 0..20 {
            observe(&mut learner, 3.0);
        }
        // From here on it neither swings back nor beyond.
        for _ in 0..60 {
            let ratio = observe(&mut learner, 3.0);
            assert!((2.4..3.6).contains(&ratio), "seed {seed}: {ratio}");
        }
    }
}

#[test]
fn hardware_of_another_kind_is_known_after_a_few_steps() {
    // A core of a laptop takes hundreds of times as long as what is published.
    let truth = PrefillCost { fixed_ms: 100.0, per_token_ms: 8.0, per_pair_ms: 2e-3 };
    let mut learner = Learner::default();
    let mut dice = Dice::new(7);
    for _ in 0..10 {
        let (new, cached) = (100 + dice.below(400) as u64, 512 * dice.below(4) as u64);
        learner.prefilled("w", new, cached, truth.predict(new, cached));
    }
    let learned = learner.costs("w").prefill;
    for (new, cached) in [(100, 0), (512, 0), (512, 1_024)] {
        let ratio = learned.predict(new, cached) / truth.predict(new, cached);
        assert!((0.8..1.25).contains(&ratio), "{new} after {cached}: {ratio}");
    }
}

#[test]
fn a_new_worker_is_like_the_others() {
    let mut learner = Learner::default();
    let mut dice = Dice::new(3);
    for _ in 0..100 {
        let (new, cached) = prompt(&mut dice);
        learner.prefilled("old", new, cached, TRUTH.predict(new, cached));
    }
    let costs = learner.joined("new").prefill;
    let ratio = costs.predict(8_000, 0) / TRUTH.predict(8_000, 0);
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn links_are_learned_by_class() {
    let mut learner = Learner::default();
    let mut dice = Dice::new(5);
    let mut learned = LinkCost::default();
    for _ in 0..100 {
        let bytes = 1e6 + dice.unit() * 1e9;
        learned = learner.transferred(1, LinkCost::default(), bytes, 3.0 + bytes / 5.0e6);
    }
    let ratio = learned.transfer_ms(5e8) / (3.0 + 5e8 / 5.0e6);
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn output_lengths_are_those_of_the_tenant_once_it_has_some() {
    let mut outputs = OutputLengths::default();
    for _ in 0..1_000 {
        outputs.add("m/a", 100);
    }
    outputs.add("m/b", 2_000);
    assert!(outputs.expected("m/b", 10_000) < 400.0, "one request says little");
    for _ in 0..200 {
        outputs.add("m/b", 2_000);
    }
    let expected = outputs.expected("m/b", 10_000);
    assert!((1_800.0..2_000.0).contains(&expected), "{expected}");
    assert_eq!(outputs.expected("m/b", 50), 50.0);
    let p90 = outputs.quantile("m/a", 0.9);
    assert!((90.0..115.0).contains(&p90), "{p90}");
}

#[test]
fn quantiles_forget() {
    let mut quantiles = Quantiles::default();
    (0..10_000).for_each(|_| quantiles.add(10.0));
    (0..10_000).for_each(|_| quantiles.add(1_000.0));
    let median = quantiles.quantile(0.5).expect("there are values");
    assert!((900.0..1_100.0).contains(&median), "{median}");
    assert!(quantiles.count() <= 2_048.0);
}
