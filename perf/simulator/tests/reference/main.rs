//! The simulator against the same system simulated step by step and token by token.

#[path = "../common/mod.rs"]
mod common;
mod slow;

use baton_profile::Profile;
use baton_simulator::{Ending, Routing, SimRequest, System, simulate};
use slow::{Slow, World};

struct Compared {
    /// Largest difference of a time, as a share of the longer of the time and a millisecond.
    worst: f64,
    /// Differences of the means of first tokens, times of tokens and longest gaps, as shares.
    means: [f64; 3],
    preemptions: u32,
}

fn compare(profile: &Profile, (prefill, decode): (usize, usize), requests: Vec<SimRequest>) -> Compared {
    let slow = World::run(profile, prefill, decode, &requests);
    let mut profile = profile.clone();
    profile.overhead.request_ms = 0.0;
    let mut system = System::of(&common::shared(profile), prefill, decode).with_routing(Routing::RoundRobin);
    system.prefix_cache = false;
    let simulated = simulate(&system, &common::traffic(requests)).expect("a good system");
    let (mut worst, mut sums, mut preemptions) = (0.0_f64, [[0.0; 3]; 2], 0);
    for (served, Slow { first_token, last_token, longest_gap, preemptions: slow }) in
        simulated.served().zip(slow)
    {
        assert_eq!(served.ending, Ending::Complete, "{served:?}");
        let tokens = f64::from((served.tokens.1 - 1).max(1));
        let ours = [served.ttft_ms.unwrap_or(0.0), served.tpot_ms.unwrap_or(0.0), served.longest_gap_ms];
        let theirs = [first_token - served.sent_ms, (last_token - first_token) / tokens, longest_gap];
        for k in 0..3 {
            worst = worst.max((ours[k] - theirs[k]).abs() / theirs[k].max(1.0));
            sums[0][k] += ours[k];
            sums[1][k] += theirs[k];
        }
        preemptions += slow;
    }
    let simulated: u32 = simulated.served().map(|served| served.preemptions).sum();
    assert!(simulated.abs_diff(preemptions) <= preemptions / 20, "{simulated} preemptions, {preemptions}");
    let means = std::array::from_fn(|k| (sums[0][k] / sums[1][k] - 1.0).abs());
    Compared { worst, means, preemptions }
}

#[track_caller]
fn check_exact(profile: &Profile, shape: (usize, usize), requests: Vec<SimRequest>) -> u32 {
    let compared = compare(profile, shape, requests);
    assert!(compared.worst < 1e-6, "the worst differs by {:e}", compared.worst);
    compared.preemptions
}

#[test]
fn workers_apart_are_as_step_by_step() {
    for seed in 0..2 {
        check_exact(&common::profile(), (2, 3), common::poisson(400, 30.0, 2_000.0, 150.0, seed));
    }
}

#[test]
fn chunks_of_long_prompts_are_as_step_by_step() {
    let mut profile = common::profile();
    profile.limits.step_tokens = 256;
    for seed in 0..4 {
        check_exact(&profile, (1, 1), common::poisson(200, 4.0, 4_000.0, 80.0, seed));
    }
}

#[test]
fn workers_that_do_both_with_fixed_chunks_are_as_step_by_step() {
    let mut profile = common::profile();
    profile.limits.mixed_prompt_tokens = Some(192);
    for seed in 0..4 {
        check_exact(&profile, (0, 2), common::poisson(300, 10.0, 1_500.0, 150.0, seed));
    }
}

#[test]
fn memory_that_is_full_is_as_step_by_step() {
    let mut preemptions = 0;
    for seed in 0..6 {
        let shape = if seed % 2 == 0 { (1, 2) } else { (0, 2) };
        preemptions += check_exact(&common::tight(), shape, common::poisson(150, 20.0, 900.0, 900.0, seed));
    }
    assert!(preemptions > 20, "{preemptions} preemptions show nothing");
}

/// The engine finds the size of its chunks by trying, in each step anew; here it is kept for up to 8 steps.
#[test]
fn chunks_that_are_paced_are_nearly_as_step_by_step() {
    for seed in 0..2 {
        let requests = common::poisson(300, 8.0, 1_500.0, 150.0, seed);
        let compared = compare(&common::profile(), (0, 2), requests);
        let [first, between, longest] = compared.means;
        assert!(first < 0.01 && between < 0.01 && longest < 0.05, "{first} {between} {longest}");
    }
}
