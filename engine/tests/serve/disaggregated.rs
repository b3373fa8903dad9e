//! Prefill on one engine, decode on another: what the sink is told, what may be freed when, and that the answer is the same.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use baton_engine::{BlockId, EngineConfig, FinishReason, KvMemory, PrefillSink, Reservation, SamplingParams};

use crate::support::*;

/// Remembers what it was told, and pushes it into another pool's blocks, as a prefill worker does.
pub(crate) struct Push {
    pub(crate) from: (KvMemory, usize),
    pub(crate) to: (KvMemory, usize),
    pub(crate) targets: Vec<BlockId>,
    /// Blocks at the beginning that the other side has.
    pub(crate) skipped: usize,
    pub(crate) reports: Mutex<Vec<(Range<usize>, Range<usize>)>>,
}

impl Push {
    pub(crate) fn between(from: &Worker, to: &Worker, targets: &[BlockId]) -> Arc<Self> {
        Arc::new(Self {
            from: (from.memory.clone(), from.blocks),
            to: (to.memory.clone(), to.blocks),
            targets: targets.to_vec(),
            skipped: 0,
            reports: Mutex::default(),
        })
    }

    /// To what is to be filled of a reservation.
    pub(crate) fn to(from: &Worker, to: &Worker, reservation: &Reservation) -> Arc<Self> {
        let push = Self::between(from, to, reservation.blocks_to_fill());
        let skipped = reservation.cached_tokens() / BLOCK_TOKENS;
        Arc::new(Self { skipped, ..Arc::into_inner(push).expect("nobody else has it") })
    }
}

impl PrefillSink for Push {
    fn layers_ready(&self, layers: Range<usize>, blocks: Range<usize>, ids: &[BlockId]) {
        assert_eq!(blocks.len(), ids.len());
        for layer in layers.clone() {
            for (id, block) in ids.iter().zip(blocks.clone()).filter(|(_, block)| *block >= self.skipped) {
                let target = &self.targets[block - self.skipped];
                Worker::push((&self.from.0, self.from.1, *id), (&self.to.0, self.to.1, *target), layer);
            }
        }
        self.reports.lock().unwrap().push((layers, blocks));
    }
}

/// The whole of a request over two workers.
pub(crate) async fn over(
    prefill: &Worker,
    decode: &Worker,
    prompt: Vec<u32>,
    sampling: SamplingParams,
) -> Outcome {
    let request = request(prompt, sampling);
    let reservation = within(decode.engine.reserve(&request)).await.unwrap();
    let push = Push::to(prefill, decode, &reservation);
    let mut leg = prefill.engine.prefill(request.clone(), push).unwrap();
    let first = within(leg.first_token()).await.unwrap();
    let mut tokens = vec![first.token.id];
    if let Some(finish) = first.finish {
        return Outcome { tokens, end: Ok(finish) };
    }
    let rest = finish(decode.engine.decode(reservation, request, first.token).unwrap()).await;
    tokens.extend(rest.tokens);
    Outcome { tokens, end: rest.end }
}

#[tokio::test]
async fn the_answer_is_the_same_as_on_one_engine() {
    let seeded = SamplingParams { temperature: 0.9, seed: 11, top_p: 0.9, ..endless(13) };
    let stopping =
        SamplingParams { repetition_penalty: 1.3, presence_penalty: 0.3, ..SamplingParams::greedy(40) };
    for sampling in [endless(9), seeded, stopping, endless(1)] {
        for len in [1, 3, 4, 5, 8, 17, 32] {
            let [prefill, decode] =
                [Worker::start(16, EngineConfig::default()), Worker::start(16, EngineConfig::default())];
            let expected = alone(request(prompt(3, len), sampling.clone())).await;
            assert_eq!(
                over(&prefill, &decode, prompt(3, len), sampling.clone()).await,
                expected,
                "{len} tokens"
            );
            prefill.drain().await;
            decode.drain().await;
        }
    }
}

#[tokio::test]
async fn each_layer_of_each_block_is_reported_once_and_in_groups() {
    for (max_step_tokens, layer_group) in [(512, 4), (512, 1), (3, 2), (4, 3), (7, 2), (1, 1)] {
        let config = EngineConfig { max_step_tokens, layer_group, ..EngineConfig::default() };
        let [prefill, decode] = [Worker::start(16, config.clone()), Worker::start(16, config)];
        for len in [1, 4, 6, 13, 16] {
            let targets: Vec<_> = (0..4).map(BlockId).collect();
            let push = Push::between(&prefill, &decode, &targets);
            let mut leg = prefill.engine.prefill(request(prompt(3, len), endless(5)), push.clone()).unwrap();
            within(leg.first_token()).await.unwrap();

            let mut told = vec![[0; LAYOUT.layers]; len.div_ceil(BLOCK_TOKENS)];
            for (layers, blocks) in push.reports.lock().unwrap().iter() {
                assert!(layers.len() <= layer_group && !blocks.is_empty());
                blocks.clone().for_each(|block| layers.clone().for_each(|layer| told[block][layer] += 1));
            }
            assert!(told.iter().flatten().all(|times| *times == 1), "{len} tokens: {told:?}");
        }
        prefill.drain().await;
        decode.drain().await;
    }
}

#[tokio::test]
async fn source_blocks_stay_until_the_last_holder_lets_go() {
    let worker = Worker::start(8, EngineConfig::default());
    let targets: Vec<_> = (0..8).map(BlockId).collect();
    let sink = || Push::between(&worker, &worker_elsewhere(), &targets);
    let mut leg = worker.engine.prefill(request(prompt(3, 17), endless(5)), sink()).unwrap();
    let held = leg.held_blocks();
    let other = held.clone();
    within(leg.first_token()).await.unwrap();
    drop(leg);
    assert_eq!(held.ids().len(), 5);
    assert_eq!((worker.engine.load().blocks.held, worker.engine.load().blocks.free), (5, 3));

    // The next one waits for room, until a network thread is done with the first one's blocks.
    let mut next = worker.engine.prefill(request(prompt(9, 17), endless(5)), sink()).unwrap();
    drop(held);
    assert_eq!(worker.engine.load().blocks.held, 5, "somebody still holds them");
    std::thread::spawn(move || drop(other)).join().unwrap();
    within(next.first_token()).await.unwrap();
    drop(next);
    worker.drain().await;
}

#[tokio::test]
async fn a_cancelled_prefill_stops_computing_and_its_blocks_stay_held() {
    let config = EngineConfig { max_step_tokens: 4, layer_group: 4, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(16, config);
    let targets: Vec<_> = (0..16).map(BlockId).collect();
    let push = Push::between(&worker, &worker_elsewhere(), &targets);
    let leg = worker.engine.prefill(request(prompt(3, 40), endless(5)), push.clone()).unwrap();
    let held = leg.held_blocks();
    gate.allow(2);
    gate.wait_for_step(3);
    drop(leg);
    gate.open();
    within(worker.engine.shutdown(baton_engine::Shutdown::Drain)).await;
    assert_eq!(gate.steps().len(), 3, "the step under way was the last");
    assert_eq!(push.reports.lock().unwrap().len(), 3);
    assert_eq!((worker.engine.load().blocks.held, held.ids().len()), (10, 10));
    drop(held);
    worker.assert_empty();
}

#[tokio::test]
async fn a_prefill_that_never_ran_holds_nothing() {
    let worker = Worker::start(8, EngineConfig::default());
    let all = within(worker.engine.reserve(&reserved(31, &endless(1), None))).await.unwrap();
    let leg = worker
        .engine
        .prefill(request(prompt(3, 9), endless(5)), Push::between(&worker, &worker_elsewhere(), &[]))
        .unwrap();
    let held = leg.held_blocks();
    drop(leg);
    drop(all);
    worker.drain().await;
    assert!(held.ids().is_empty());
}

#[tokio::test]
async fn a_prefill_worker_takes_a_prompt_that_fills_its_pool() {
    let [prefill, decode] =
        [Worker::start(4, EngineConfig::default()), Worker::start(8, EngineConfig::default())];
    let outcome = over(&prefill, &decode, prompt(3, 16), endless(5)).await;
    assert_eq!(outcome, alone(request(prompt(3, 16), endless(5))).await);
    prefill.drain().await;
    decode.drain().await;
}

#[tokio::test]
async fn a_decode_leg_can_be_preempted_and_goes_on_with_the_same_tokens() {
    let prefill = Worker::start(32, EngineConfig::default());
    let decode = Worker::start(9, EngineConfig { growth_tokens: 1, ..EngineConfig::default() });
    let legs = [3, 13, 23].map(|first| over(&prefill, &decode, prompt(first, 9), endless(20)));
    let [a, b, c] = legs;
    let outcomes = within(async { tokio::join!(a, b, c) }).await;
    for (outcome, first) in [(outcomes.0, 3), (outcomes.1, 13), (outcomes.2, 23)] {
        assert_eq!(outcome, alone(request(prompt(first, 9), endless(20))).await);
        assert_eq!(outcome.end, Ok(FinishReason::Length));
    }
    assert!(decode.engine.load().totals.preemptions > 0);
    prefill.drain().await;
    decode.drain().await;
}

/// Somewhere for blocks to be pushed to, when it does not matter where.
fn worker_elsewhere() -> Worker {
    Worker::start(16, EngineConfig::default())
}
