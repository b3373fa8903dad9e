//! Each part of sampling exactly, and the draw statistically.

use super::*;

mod grammar;

const OFF: f32 = f32::NEG_INFINITY;

fn params() -> SamplingParams {
    SamplingParams { temperature: 1.0, ..SamplingParams::greedy(100) }
}

/// Logits whose softmax is `probabilities`.
fn logits_of(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// Tokens that can come, with the share of 20,000 draws in which they do.
fn shares(params: &SamplingParams, logits: &[f32]) -> Vec<(u32, f64)> {
    let draws = 20_000_u32;
    let mut counts = vec![0_u32; logits.len()];
    for seed in 0..draws {
        let params = SamplingParams { seed: u64::from(seed), ..params.clone() };
        let mut sampler = Sampler::new(params, &[], &[]);
        counts[sampler.sample(logits, &mut Scratch::default()).unwrap().id as usize] += 1;
    }
    (0..).zip(counts).filter(|(_, n)| *n > 0).map(|(id, n)| (id, f64::from(n) / f64::from(draws))).collect()
}

/// The draws follow `expected`, by a chi-square test that a right sampler fails once in 100,000 seeds.
#[track_caller]
fn check_distribution(params: &SamplingParams, logits: &[f32], expected: &[(u32, f64)]) {
    let shares = shares(params, logits);
    let ids = |list: &[(u32, f64)]| list.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&shares), ids(expected));
    let chi_square: f64 =
        shares.iter().zip(expected).map(|((_, got), (_, want))| 20_000.0 * (got - want).powi(2) / want).sum();
    // Quantile of 1 - 1e-5 for up to 5 degrees of freedom.
    assert!(chi_square < 30.9, "{chi_square}: {shares:?} against {expected:?}");
}

#[track_caller]
fn check_greedy(params: SamplingParams, output: &[u32], logits: &[f32], expected: u32) {
    let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..params }, &[0], &[1, 2]);
    output.iter().for_each(|id| sampler.record(*id));
    assert_eq!(sampler.sample(logits, &mut Scratch::default()).unwrap().id, expected);
}

#[track_caller]
fn check_adjusted(params: &SamplingParams, output: &[u32], logits: &[f32], expected: &[f32]) {
    let mut history = History::new(params, &[1, 2]);
    output.iter().for_each(|id| history.record(*id));
    let mut logits = logits.to_vec();
    history.penalise(&mut logits, params);
    assert_eq!(logits, expected);
}

#[test]
fn greedy_takes_the_lowest_of_equal_tokens() {
    check_greedy(params(), &[], &[1.0, 3.0, 2.0, 3.0], 1);
    check_greedy(params(), &[], &[OFF, OFF, OFF, -1e30], 3);
}

#[test]
fn draws_follow_the_softmax() {
    check_distribution(
        &params(),
        &logits_of(&[0.5, 0.25, 0.15, 0.1]),
        &[(0, 0.5), (1, 0.25), (2, 0.15), (3, 0.1)],
    );
}

#[test]
fn temperature_sharpens_and_flattens() {
    let logits = logits_of(&[0.8, 0.2]);
    let cold = SamplingParams { temperature: 0.5, ..params() };
    check_distribution(&cold, &logits, &[(0, 0.64 / 0.68), (1, 0.04 / 0.68)]);
    let hot = SamplingParams { temperature: 2.0, ..params() };
    check_distribution(&hot, &logits, &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
}

#[test]
fn filters_renormalise_what_they_keep() {
    let logits = logits_of(&[0.1, 0.4, 0.2, 0.3]);
    let top_k = SamplingParams { top_k: 2, ..params() };
    check_distribution(&top_k, &logits, &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
    let top_p = SamplingParams { top_p: 0.85, ..params() };
    check_distribution(&top_p, &logits, &[(1, 4.0 / 9.0), (2, 2.0 / 9.0), (3, 3.0 / 9.0)]);
    let min_p = SamplingParams { min_p: 0.6, ..params() };
    check_distribution(&min_p, &logits, &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
}

#[test]
fn top_p_counts_what_min_p_and_top_k_left() {
    // Of 0.4 and 0.3 the first has 4/7 of the mass, which reaches 0.55; of all four it would not.
    let both = SamplingParams { top_k: 2, top_p: 0.55, ..params() };
    check_distribution(&both, &logits_of(&[0.1, 0.4, 0.2, 0.3]), &[(1, 1.0)]);
}

#[test]
fn temperature_comes_before_min_p() {
    // At temperature 2 the ratio of 0.25 becomes 0.5.
    let params = SamplingParams { temperature: 2.0, min_p: 0.4, ..params() };
    check_distribution(&params, &logits_of(&[0.8, 0.2]), &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
}

fn candidates(weights: &[f32]) -> Vec<Candidate> {
    (0..).zip(weights).map(|(id, weight)| Candidate { id, weight: *weight }).collect()
}

#[track_caller]
fn check_filter(weights: &[f32], filter: impl FnOnce(&mut Vec<Candidate>), expected: &[u32]) {
    let mut kept = candidates(weights);
    filter(&mut kept);
    assert_eq!(kept.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), expected);
}

#[test]
fn top_k_keeps_the_lowest_ids_of_equal_tokens() {
    check_filter(&[0.5, 1.0, 0.5, 0.5], |c| filter::top_k(c, 3), &[0, 1, 2]);
    check_filter(&[0.5, 1.0], |c| filter::top_k(c, 0), &[0, 1]);
    check_filter(&[0.5, 1.0], |c| filter::top_k(c, 9), &[0, 1]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let weights = [0.25, 1.0, 0.5, 0.25];
    check_filter(&weights, |c| filter::top_p(c, 0.5), &[1]);
    check_filter(&weights, |c| filter::top_p(c, 0.51), &[1, 2]);
    check_filter(&weights, |c| filter::top_p(c, 0.875), &[1, 2, 0]);
    check_filter(&weights, |c| filter::top_p(c, 1e-9), &[1]);
    check_filter(&weights, |c| filter::top_p(c, 1.0), &[0, 1, 2, 3]);
}

#[test]
fn top_p_over_a_large_vocabulary_is_what_a_full_sort_gives() {
    let weights: Vec<f32> = (0..5000_u32).map(|i| draw::uniform(1, i) as f32).collect();
    for p in [0.001, 0.3, 0.7, 0.999] {
        let mut sorted = candidates(&weights);
        sorted.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id)));
        let wanted = f64::from(p) * filter::total(&candidates(&weights));
        let mut reached = 0.0;
        let kept = sorted.iter().take_while(|candidate| {
            let goes_on = reached < wanted;
            reached += f64::from(candidate.weight);
            goes_on
        });
        let kept: Vec<u32> = kept.map(|candidate| candidate.id).collect();
        check_filter(&weights, |c| filter::top_p(c, p), &kept);
    }
}

#[test]
fn min_p_is_relative_to_the_most_likely() {
    check_filter(&[0.1, 1.0, 0.099], |c| filter::min_p(c, 0.1), &[0, 1]);
    check_filter(&[0.1, 1.0, 0.099], |c| filter::min_p(c, 0.0), &[0, 1, 2]);
    check_filter(&[0.1, 1.0, 0.099], |c| filter::min_p(c, 1.0), &[1]);
}

#[test]
fn penalties_see_what_they_should() {
    let logits = [2.0, 2.0, -2.0, 2.0];
    let off = params();
    check_adjusted(&off, &[0, 0, 1], &logits, &logits);
    // Output only, and for each time.
    check_adjusted(
        &SamplingParams { frequency_penalty: 0.5, ..off.clone() },
        &[0, 0, 1],
        &logits,
        &[1.0, 1.5, -2.0, 2.0],
    );
    // Output only, once.
    check_adjusted(
        &SamplingParams { presence_penalty: 0.5, ..off.clone() },
        &[0, 0, 1],
        &logits,
        &[1.5, 1.5, -2.0, 2.0],
    );
    // Prompt and output, once, away from positive infinity.
    check_adjusted(
        &SamplingParams { repetition_penalty: 2.0, ..off.clone() },
        &[0, 0, 1],
        &logits,
        &[1.0, 1.0, -4.0, 2.0],
    );
    // Repetition first.
    let both = SamplingParams { repetition_penalty: 2.0, presence_penalty: 0.5, ..off };
    check_adjusted(&both, &[0, 0], &logits, &[0.5, 1.0, -4.0, 2.0]);
}

#[test]
fn bias_comes_before_penalties_and_the_ban_of_early_ends() {
    let logits = [1.0, 2.0, 3.0, 0.0];
    check_greedy(SamplingParams { logit_bias: vec![(3, 5.0)], ..params() }, &[], &logits, 3);
    // Token 1 is in the prompt: from -2 to 1 and halved to 0.5; the other way round it would end at -1.
    let halved = SamplingParams { logit_bias: vec![(1, 3.0)], repetition_penalty: 2.0, ..params() };
    check_greedy(halved, &[], &[0.0, -2.0, -9.0, -9.0], 1);
    let early = SamplingParams { logit_bias: vec![(0, 50.0)], min_tokens: 1, ..params() };
    check_greedy(early.clone(), &[], &logits, 2);
    check_greedy(early, &[3], &logits, 0);
}

#[test]
fn no_end_comes_before_min_tokens() {
    let logits = [9.0, 2.0, 8.0, 0.0];
    let params = SamplingParams { min_tokens: 2, stop_token_ids: vec![2], ..params() };
    check_greedy(params.clone(), &[], &logits, 1);
    check_greedy(params.clone(), &[3], &logits, 1);
    check_greedy(params, &[3, 3], &logits, 0);
}

#[test]
fn ignoring_the_end_goes_on_through_the_models_own_but_not_through_stop_tokens() {
    let sampler = |ignore_eos| {
        let params = SamplingParams { ignore_eos, stop_token_ids: vec![7], ..params() };
        Sampler::new(params, &[0], &[])
    };
    assert_eq!([0, 7, 3].map(|id| sampler(false).ends_with(id)), [true, true, false]);
    assert_eq!([0, 7, 3].map(|id| sampler(true).ends_with(id)), [false, true, false]);
}

#[test]
fn any_worker_repeats_the_draw_at_an_index() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
    let draw_at = |index: usize| {
        let mut sampler = Sampler::new(SamplingParams { seed: 42, ..params() }, &[], &[]);
        (0..index).for_each(|_| sampler.record(0));
        sampler.sample(&logits, &mut Scratch::default()).unwrap().id
    };
    let mut sampler = Sampler::new(SamplingParams { seed: 42, ..params() }, &[], &[]);
    let mut scratch = Scratch::default();
    let tokens: Vec<u32> = (0..20).map(|_| sampler.sample(&logits, &mut scratch).unwrap().id).collect();
    assert_eq!(tokens, (0..20).map(draw_at).collect::<Vec<_>>());
    assert!(tokens.iter().any(|id| *id != tokens[0]), "indices draw differently");
}

#[test]
fn draws_at_successive_indices_are_independent_of_each_other() {
    // Pairs of neighbouring draws of one seed fill the four quarters alike.
    let mut quarters = [0_u32; 4];
    for index in 0..20_000 {
        let half = |index| usize::from(draw::uniform(5, index) >= 0.5);
        quarters[2 * half(index) + half(index + 1)] += 1;
    }
    let chi_square: f64 = quarters.iter().map(|n| (f64::from(*n) - 5000.0).powi(2) / 5000.0).sum();
    assert!(chi_square < 30.9, "{quarters:?}");
}

#[test]
fn the_bits_of_the_draw_are_pinned() {
    // Workers of different versions must agree: changing this is a change of protocol.
    assert_eq!(
        [(0, 0), (0, 1), (1, 0), (u64::MAX, 7)].map(|(s, i)| draw::uniform(s, i).to_bits()),
        PINNED_DRAWS
    );
}

/// From an independent implementation in Python.
const PINNED_DRAWS: [u64; 4] =
    [0x3fd2086089bfcf34, 0x3f8cbd594ba03400, 0x3feb9c847f90581a, 0x3fda7caaeb5aacc4];

#[test]
fn exp_is_within_two_units_of_the_last_place() {
    for i in 0..=870_000_u32 {
        let x = -(i as f32) / 10_000.0;
        let (got, want) = (math::exp(x), f64::from(x).exp());
        let unit = f64::from(f32::from_bits((want as f32).to_bits() + 1) - want as f32);
        assert!((f64::from(got) - want).abs() <= 2.0 * unit, "exp({x}) = {got}, not {want}");
    }
    assert_eq!((math::exp(0.0), math::exp(-88.0), math::exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
}

#[test]
fn logprobs_are_of_the_raw_logits() {
    let logits = logits_of(&[0.5, 0.25, 0.125, 0.125]);
    let params =
        SamplingParams { logprobs: Some(3), logit_bias: vec![(3, 50.0)], ..SamplingParams::greedy(1) };
    let token = Sampler::new(params, &[], &[]).sample(&logits, &mut Scratch::default()).unwrap();
    let logprobs = token.logprobs.unwrap();
    assert_eq!(token.id, 3);
    assert!((logprobs.chosen - 0.125_f32.ln()).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1, 2], "equal ones by id");
    assert!((logprobs.top[0].1 - 0.5_f32.ln()).abs() < 1e-6);
    assert_eq!(logprobs::of(&logits, 0, 0).top, []);
}

#[test]
fn unusable_logits_are_said_to_be_so() {
    let mut sampler = Sampler::new(params(), &[], &[]);
    let mut sample = |logits: &[f32]| sampler.sample(logits, &mut Scratch::default()).unwrap_err();
    let infinite = NoToken::BadLogits("a logit is not a number, or infinite");
    assert_eq!(sample(&[1.0, f32::NAN]), infinite);
    assert_eq!(sample(&[1.0, f32::INFINITY]), infinite);
    assert_eq!(sample(&[OFF, OFF]), NoToken::BadLogits("no token is allowed"));
}

#[test]
fn a_guess_is_what_would_be_sampled_if_the_tokens_before_did_not_count() {
    for (temperature, top_p, top_k) in [(0.0, 1.0, 0), (1.0, 1.0, 0), (0.7, 0.9, 0), (1.5, 1.0, 3)] {
        let biased = SamplingParams { temperature, top_p, top_k, logit_bias: vec![(2, 1.5)], ..params() };
        let mut sampler = Sampler::new(SamplingParams { seed: 8, ..biased.clone() }, &[0], &[]);
        let mut scratch = Scratch::default();
        for index in 0..50 {
            let logits: Vec<f32> = (0..9).map(|id| draw::uniform(id, index) as f32 * 4.0).collect();
            let sampled = sampler.sample(&logits, &mut scratch).unwrap().id;
            let params = SamplingParams { seed: 8, ..biased.clone() };
            assert_eq!(guess(&params, index as usize, &logits, &mut scratch), Some(sampled));
        }
    }
    assert_eq!(guess(&params(), 0, &[f32::NAN, 1.0], &mut Scratch::default()), Some(1));
    assert_eq!(guess(&params(), 0, &[OFF, OFF], &mut Scratch::default()), None);
}
