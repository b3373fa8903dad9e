//! A pool that is too small for all who run: the youngest makes room, and nobody's tokens change.

use baton_engine::{EngineConfig, SamplingParams};

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
