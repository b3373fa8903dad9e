//! What is recommended.

use std::sync::Arc;

use baton_policy::dice::Dice;
use baton_profile::{Estimate, Profile};
use baton_simulator::{Routing, SimRequest, Start};
use baton_tuner::{
    Bound, Compared, Goodput, Objective, Options, Sample, Search, Split, TuneError, page, recommend, values,
};

fn profile() -> Profile {
    Estimate::of("p5", "llama-3.1-8b").expect("published").profile().expect("it fits")
}

fn search(tpot_ms: f64) -> Search {
    Search {
        profile: Arc::new(profile()),
        routing: Routing::LeastLoaded,
        objective: Objective { ttft_ms: 1_000.0, tpot_ms, share: 0.9 },
        max_tokens: None,
    }
}

fn sample(count: usize, prompt: f64, output: f64, seed: u64) -> Sample {
    let mut dice = Dice::new(seed);
    let mut at = 0.0;
    let requests = (0..count).map(|_| {
        at += -100.0 * (1.0 - dice.unit()).ln();
        SimRequest {
            start: Start::At(at),
            prompt_tokens: 1 + (prompt * (0.5 + dice.unit())) as u32,
            output_tokens: 1 + (output * (0.5 + dice.unit())) as u32,
            pieces: Vec::new(),
            cancel: None,
        }
    });
    Sample::new(requests.collect(), 1)
}

fn options(workers: usize) -> Options {
    Options { workers, ..Options::default() }
}

#[test]
fn goodput_is_where_the_objective_is_just_met() {
    let (search, sample) = (search(30.0), sample(600, 1_500.0, 100.0, 1));
    let split = Split { prefill: 1, decode: 1 };
    let found = search.goodput(split, &sample, 0, 5.0).expect("it has times").per_second;
    let attained = |rate: f64| {
        let own = sample.per_second().expect("it has times");
        let traffic = sample.traffic().expect("good requests").scaled(own / rate);
        search.objective.attained(search.simulate(split, &traffic, 0).expect("a good system").served())
    };
    assert!(attained(found) >= 0.9 && attained(found * 1.03) < 0.9, "{found}");
    let far = search.goodput(split, &sample, 0, 900.0).expect("it has times").per_second;
    assert!((far / found - 1.0).abs() < 0.03, "{far} from far, {found} from near");
}

#[test]
fn nothing_that_was_simulated_exceeds_its_bound() {
    let search = search(25.0);
    for (prompt, output) in [(4_000.0, 50.0), (1_000.0, 200.0), (300.0, 200.0)] {
        // Long enough for queues to grow.
        let sample = sample(3_000, prompt, output, 3);
        let bound = Bound::new(&sample, &search.profile, &search.objective);
        for split in Split::all(3) {
            let found = search.goodput(split, &sample, 0, 5.0).expect("it has times").per_second;
            let most = bound.per_second_apart(split);
            assert!(found <= most * 1.15, "{split}: {found} of {most}, prompts of {prompt}");
            assert!(most <= bound.per_second(split) * (1.0 + 1e-12));
        }
    }
}

/// A scheduler refuses who can't be in time, and serves the others.
#[test]
fn a_few_that_nobody_could_serve_in_time_are_not_in_the_bound() {
    let search = search(50.0);
    let short = sample(1_000, 500.0, 50.0, 3);
    let with_long = short.requests().iter().enumerate().map(|(at, request)| match at % 12 {
        0 => SimRequest { prompt_tokens: 100_000, ..request.clone() },
        _ => request.clone(),
    });
    let with_long = Sample::new(with_long.collect(), 1);
    for split in Split::all(3) {
        let most = |sample| Bound::new(sample, &search.profile, &search.objective).per_second_apart(split);
        let ratio = most(&with_long) / most(&short);
        assert!((0.8..1.1).contains(&ratio), "{split}: {ratio}");
    }
}

#[test]
fn more_prompts_take_more_prefill_workers() {
    let best = |prompt, output| {
        let samples = [sample(800, prompt, output, 5), sample(800, prompt, output, 6)];
        let told = recommend(&search(9.0), &samples, &options(4)).expect("an answer");
        told.ranked
            .iter()
            .filter(|ranked| !ranked.split.is_aggregated())
            .max_by(|a, b| a.per_second.unwrap_or(0.0).total_cmp(&b.per_second.unwrap_or(0.0)))
            .map_or(0, |ranked| ranked.split.prefill)
    };
    assert!(best(6_000.0, 30.0) > best(300.0, 500.0));
}

#[test]
fn steady_streams_want_workers_apart_and_idle_objectives_do_not() {
    let samples: Vec<Sample> = (0..4).map(|seed| sample(800, 4_000.0, 150.0, seed)).collect();
    let told = recommend(&search(9.0), &samples, &options(4)).expect("an answer");
    assert!(!told.split.is_aggregated(), "{told:?}");
    let compared = told.apart_by_aggregated.expect("both were simulated");
    assert!(compared.low > 1.0 && compared.low <= compared.ratio && compared.ratio <= compared.high);
    // Nobody minds a pause: to divide workers is to leave some of them idle.
    let told = recommend(&search(2_000.0), &samples, &options(3)).expect("an answer");
    assert!(told.split.is_aggregated(), "{told:?}");
}

#[test]
fn the_page_says_what_was_found_and_the_same_each_time() {
    let search = search(12.0);
    let samples = [sample(500, 3_000.0, 100.0, 1), sample(500, 3_000.0, 100.0, 2)];
    let told = recommend(&search, &samples, &options(3)).expect("an answer");
    let text = page(&told, &search.profile, &search.objective);
    for part in [
        "requests/s",
        "a worker",
        "If the traffic is not as it was",
        "One worker more",
        "estimates from data sheets",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.lines().count() <= 40, "more than a page:\n{text}");
    let again = recommend(&search, &samples, &options(3)).expect("an answer");
    assert_eq!(text, page(&again, &search.profile, &search.objective));
    assert!(!text.contains("Too few requests"), "500 requests last for half a minute:\n{text}");
    assert_eq!(told.shifts.len(), 5);
    assert!(told.shifts.iter().all(|shift| shift.best_per_second >= shift.recommended));
    let json = serde_json::to_value(&told).expect("JSON");
    assert_eq!(json["ranked"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_sample_that_is_too_short_is_said_to_be() {
    let search = search(50.0);
    let told = recommend(&search, &[sample(60, 300.0, 900.0, 1)], &options(1)).expect("an answer");
    assert!(page(&told, &search.profile, &search.objective).contains("Too few requests"), "{told:?}");
}

#[test]
fn values_are_the_charts() {
    assert_eq!(
        values(Split { prefill: 2, decode: 6 }),
        "# By `baton tune recommend`.\nmode: disaggregated\nprefill:\n  replicas: 2\ndecode:\n  replicas: 6\n"
    );
    assert!(
        values(Split::aggregated(3))
            .contains("mode: aggregated\nprefill:\n  replicas: 0\ndecode:\n  replicas: 3")
    );
}

#[test]
fn a_difference_that_may_be_chance_has_one_in_its_interval() {
    let goodputs = |values: &[f64]| -> Vec<Goodput> {
        values.iter().map(|&per_second| Goodput { per_second, is_never: false }).collect()
    };
    let ones = goodputs(&[1.0; 5]);
    let unsure = Compared::new(&goodputs(&[1.2, 0.9, 1.1, 0.95, 1.05]), &ones).expect("pairs");
    assert!(unsure.low < 1.0 && unsure.high > 1.0, "{unsure:?}");
    let sure = Compared::new(&goodputs(&[1.2, 1.25, 1.18, 1.22, 1.2]), &ones).expect("pairs");
    assert!(sure.low > 1.1 && sure.high < 1.3, "{sure:?}");
    let resolution = Compared::new(&goodputs(&[1.01; 5]), &ones).expect("pairs");
    assert!(resolution.low < 1.0, "goodputs are not known to 1 %: {resolution:?}");
    assert!(Compared::new(&goodputs(&[2.0]), &ones).expect("a pair").high > 1e9, "one pair says little");
}

#[test]
fn what_can_not_be_answered_says_why() {
    let never = recommend(&search(0.5), &[sample(200, 500.0, 50.0, 1)], &options(2));
    assert!(matches!(never, Err(TuneError::NeverMet)), "{never:?}");
    let closed = SimRequest {
        start: Start::WhenFree,
        prompt_tokens: 10,
        output_tokens: 10,
        pieces: Vec::new(),
        cancel: None,
    };
    let timeless = recommend(&search(50.0), &[Sample::new(vec![closed; 5], 2)], &options(2));
    assert!(timeless.expect_err("no times").to_string().contains("--rate"));
}

#[test]
fn samples_are_changed_in_what_they_are_to_be_changed_and_nothing_else() {
    let sample = sample(1_000, 1_000.0, 100.0, 1);
    let rate = |sample: &Sample| sample.per_second().expect("it has times");
    let tokens = |sample: &Sample| -> (u64, u64) {
        let sum = |value: fn(&SimRequest) -> u32| {
            sample.requests().iter().map(|request| u64::from(value(request))).sum()
        };
        (sum(|request| request.prompt_tokens), sum(|request| request.output_tokens))
    };
    let shuffled = sample.shuffled(3);
    assert_eq!(tokens(&shuffled), tokens(&sample));
    assert!((rate(&shuffled) / rate(&sample) - 1.0).abs() < 0.02);
    assert_ne!(shuffled.requests(), sample.requests());
    assert_eq!(sample.shuffled(0).requests(), sample.requests());
    let burstier = sample.burstier(1);
    assert!((rate(&burstier) / rate(&sample) - 1.0).abs() < 0.2);
    let (prompts, outputs) = tokens(&sample);
    let (longer, same) = tokens(&sample.stretched(1.25, 1.0));
    assert_eq!(same, outputs);
    assert!((longer as f64 / prompts as f64 - 1.25).abs() < 0.001);
}
