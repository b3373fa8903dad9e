//! A pool that is too small for all who run: the youngest makes room, and nobody's tokens change.

use baton_engine::{EngineConfig, SamplingParams};
use proptest::prelude::*;

use crate::support::*;

#[tokio::test]
async fn the_youngest_is_preempted_and_its_tokens_stay_the_same() {
    // Seven blocks: both prompts fit, both whole sequences (5 blocks each) do not.
    let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(7, config);
    let [old, young] = [request(prompt(3, 6), endless(14)), request(prompt(30, 6), endless(14))];
    let handles = [old.clone(), young.clone()].map(|request| worker.engine.submit(request).unwrap());
    gate.open();
    let [first, second] = handles;
    assert_eq!(finish(first).await, alone(old).await);
    assert_eq!(finish(second).await, alone(young).await);
    worker.engine.shutdown(baton_engine::Shutdown::Drain).await;

    let totals = worker.engine.load().totals;
    assert!(totals.preemptions > 0);
    assert!(totals.recomputed_tokens > 0);
    assert_eq!(
        (totals.prompt_tokens, totals.generation_tokens),
        (12, 28),
        "recomputed tokens are counted apart"
    );
    let starts = |first| gate.steps().iter().flatten().filter(|s| (s.0, s.1) == (first, 0)).count();
    assert_eq!(starts(3), 1, "the older one is computed once");
    assert!(starts(30) > 1, "the younger one is computed again");
    worker.assert_empty();
}

#[tokio::test]
async fn who_was_preempted_finds_its_own_blocks_again() {
    // Seven blocks, of which the older one takes five: two of the younger one's are left when its turn comes again.
    let (worker, gate) = Worker::start_gated(7, EngineConfig::default());
    let [old, young] = [request(prompt(3, 6), endless(14)), request(prompt(30, 6), endless(14))];
    let handles = [old.clone(), young.clone()].map(|request| worker.engine.submit(request).unwrap());
    gate.open();
    let [first, second] = handles;
    assert_eq!(finish(first).await, alone(old).await);
    assert_eq!(finish(second).await, alone(young).await);
    worker.drain().await;
    let totals = worker.engine.load().totals;
    assert!(totals.preemptions > 0);
    assert_eq!((totals.prompt_tokens, totals.generation_tokens), (12, 28));
    let starts: Vec<_> = gate.steps().iter().flatten().filter(|s| s.0 == 30).map(|s| s.1).collect();
    assert_eq!(starts, [0], "its first block is never computed again");
}

#[tokio::test]
async fn penalties_seeds_and_min_tokens_survive_preemption() {
    let sampling = SamplingParams {
        temperature: 1.0,
        seed: 7,
        presence_penalty: 0.5,
        frequency_penalty: 0.5,
        repetition_penalty: 1.2,
        min_tokens: 10,
        ..SamplingParams::greedy(14)
    };
    let requests: Vec<_> = (0..4).map(|i| request(prompt(3 + 9 * i, 6), sampling.clone())).collect();
    let worker = Worker::start(7, EngineConfig::default());
    let handles: Vec<_> =
        requests.iter().map(|request| worker.engine.submit(request.clone()).unwrap()).collect();
    for (request, handle) in requests.into_iter().zip(handles) {
        assert_eq!(finish(handle).await, alone(request).await);
    }
    worker.drain().await;
}

#[tokio::test]
async fn a_request_for_the_whole_pool_is_not_starved_by_those_behind_it() {
    let (worker, gate) = Worker::start_gated(8, EngineConfig::default());
    let ahead = worker.engine.submit(request(prompt(3, 4), endless(6))).unwrap();
    let whole = worker.engine.submit(request(prompt(9, 31), endless(1))).unwrap();
    let behind: Vec<_> =
        (0..6).map(|i| worker.engine.submit(request(prompt(20 + i, 4), endless(6))).unwrap()).collect();
    gate.open();
    for handle in [ahead, whole].into_iter().chain(behind) {
        finish(handle).await.end.unwrap();
    }
    let order: Vec<u32> = gate
        .steps()
        .iter()
        .flatten()
        .filter(|(_, position, _)| *position == 0)
        .map(|(first, ..)| *first)
        .collect();
    assert_eq!(order[..2], [3, 9], "in order of arrival: {order:?}");
    worker.drain().await;
}

#[tokio::test]
async fn prompts_share_a_step_and_never_wait_for_a_full_batch_of_decodes() {
    let config = EngineConfig { max_step_tokens: 12, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(32, config);
    let handles: Vec<_> = [(3, 5), (9, 20), (15, 4)]
        .map(|(first, len)| worker.engine.submit(request(prompt(first, len), endless(3))).unwrap())
        .into();
    gate.wait_for_step(1);
    gate.open();
    for handle in handles {
        finish(handle).await.end.unwrap();
    }
    // The first step may have begun before all had come; from the second on the plan is known.
    for step in gate.steps() {
        assert!(step.iter().map(|(.., tokens)| tokens).sum::<usize>() <= 12, "{step:?}");
    }
    assert!(gate.steps().iter().any(|step| step.len() > 1), "sequences share steps");
    worker.drain().await;
}

#[tokio::test]
async fn whoever_generates_is_in_each_step_and_a_prompt_beside_it_comes_in_chunks() {
    let config = EngineConfig { mixed_prompt_tokens: Some(6), ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(32, config);
    let mut generating = worker.engine.submit(request(prompt(3, 5), endless(30))).unwrap();
    gate.allow(2);
    next_token(&mut generating).await;
    next_token(&mut generating).await;
    let long = worker.engine.submit(request(prompt(9, 40), endless(3))).unwrap();
    gate.open();
    finish(long).await.end.unwrap();
    finish(generating).await.end.unwrap();
    let steps = gate.steps();
    assert_eq!(steps[0], [(3, 0, 5)], "alone, a prompt is not cut");
    let generated: Vec<usize> =
        steps.iter().flatten().filter(|s| s.2 == 1 && s.1 < 35).map(|s| s.1).collect();
    assert_eq!(generated, (5..34).collect::<Vec<_>>(), "a token in each step");
    let chunks: Vec<usize> = steps.iter().flatten().filter(|s| s.2 > 1).map(|s| s.2).collect();
    assert_eq!(chunks, [5, 6, 6, 6, 6, 6, 6, 4]);
    assert_eq!(
        steps.iter().filter(|step| step.len() == 2).count(),
        7 + 2,
        "beside it, and its own two tokens"
    );
    worker.drain().await;
}

/// One request of a load.
#[derive(Clone, Copy, Debug)]
struct Job {
    first: u32,
    prompt_len: usize,
    max_tokens: u32,
}

impl Job {
    fn request(self) -> baton_engine::SequenceRequest {
        let sampling = SamplingParams { temperature: 0.9, seed: 5, ..endless(self.max_tokens) };
        request(prompt(self.first, self.prompt_len), sampling)
    }

    /// Most steps that it takes alone, computed again from its beginning at the worst moment.
    fn steps_alone(self, blocks: usize) -> usize {
        let tokens = (self.prompt_len + self.max_tokens as usize).min(blocks * BLOCK_TOKENS);
        tokens.div_ceil(BLOCK_TOKENS) + self.max_tokens as usize
    }
}

fn job() -> impl Strategy<Value = Job> {
    (0..6_u32, 1_usize..20, 1_u32..28).prop_map(|(first, prompt_len, max_tokens)| Job {
        first,
        prompt_len,
        max_tokens,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    /// Pools in which hardly two fit at a time. Nobody fails, nobody's tokens change, and the work comes to an end: nobody is
    /// computed again more often than there are older ones to make room for.
    #[test]
    fn in_tiny_pools_everybody_ends_as_if_alone_in_bounded_steps(
        jobs in prop::collection::vec(job(), 1..16),
        blocks in 5_usize..10,
        max_running in 1_usize..16,
        mixed_prompt_tokens in prop::option::of(1_usize..12),
        prefix_cache in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let config = EngineConfig { max_running, mixed_prompt_tokens, prefix_cache, ..EngineConfig::default() };
            let (worker, gate) = Worker::start_gated(blocks, config);
            gate.open();
            let handles: Vec<_> = jobs.iter().map(|job| worker.engine.submit(job.request()).unwrap()).collect();
            for (job, handle) in jobs.iter().zip(handles) {
                let outcome = finish(handle).await;
                let expected = alone(job.request()).await;
                let limit = blocks * BLOCK_TOKENS - job.prompt_len;
                assert_eq!(outcome.end, expected.end, "{job:?}");
                assert_eq!(outcome.tokens, expected.tokens[..expected.tokens.len().min(limit)], "{job:?}");
            }
            let steps: usize = (1..).zip(&jobs).map(|(older, job)| older * job.steps_alone(blocks)).sum();
            let totals = worker.engine.load().totals;
            assert!(totals.steps as usize <= steps, "{} steps, not more than {steps}", totals.steps);
            // Others may begin like the oldest, or find its beginning cached.
            let alike = jobs.iter().filter(|job| job.first == jobs[0].first).count();
            let starts = gate.steps().iter().flatten().filter(|s| (s.0, s.1) == (jobs[0].first, 0)).count();
            assert!(alike > 1 || starts == 1, "the oldest is never computed again");
            worker.drain().await;
        });
    }
}

#[tokio::test]
async fn a_growing_load_of_equals_is_served_in_order_of_arrival() {
    // Each needs four of the six blocks in the end.
    let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(6, config);
    let handles: Vec<_> =
        (0..12).map(|i| worker.engine.submit(request(prompt(i, 5), endless(11))).unwrap()).collect();
    gate.open();
    for handle in handles {
        finish(handle).await.end.unwrap();
    }
    assert!(worker.engine.load().totals.preemptions > 0);
    let starts: Vec<u32> = gate.steps().iter().flatten().filter(|s| s.1 == 0).map(|s| s.0).collect();
    let last_start = |i: u32| starts.iter().rposition(|first| *first == i).expect("it ran");
    assert!((0..12).map(last_start).is_sorted(), "nobody ran to the end before who came earlier: {starts:?}");
    worker.drain().await;
}
