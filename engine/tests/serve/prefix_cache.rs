//! The prefix cache: what is computed once is not computed again, and nobody's answer shows it.

use baton_engine::{
    CacheEvent, EngineConfig, HashForward, SamplingParams, SequenceEvent, SequenceHandle, SequenceRequest,
};

use crate::{
    disaggregated::{Push, over},
    support::*,
};

/// Reads to the end; how many tokens of the prompt were cached.
async fn cached_tokens(mut handle: SequenceHandle) -> usize {
    let mut cached = None;
    while let Some(event) = within(handle.recv()).await {
        match event {
            SequenceEvent::Prefilled(prefilled) => cached = Some(prefilled.cached_tokens),
            SequenceEvent::Failed(failure) => panic!("{failure}"),
            SequenceEvent::Token(_) | SequenceEvent::Finished(..) => {}
        }
    }
    cached.expect("the prompt is computed here")
}

#[tokio::test]
async fn a_prompt_that_came_before_is_computed_from_its_last_block_on() {
    for len in [3, 4, 5, 8, 9, 16, 31, 32, 33] {
        let (worker, gate) = Worker::start_gated(32, EngineConfig::default());
        gate.open();
        let expected = alone(request(prompt(3, len), endless(3))).await;
        let last_token = len - 1;
        for cached in [0, last_token - last_token % BLOCK_TOKENS] {
            let steps = gate.steps().len();
            let handle = worker.engine.submit(request(prompt(3, len), endless(3))).unwrap();
            assert_eq!(cached_tokens(handle).await, cached, "of {len}");
            let (_, position, tokens) = gate.steps()[steps][0];
            assert_eq!((position, tokens), (cached, len - cached), "the last token is computed each time");
        }
        assert_eq!(
            finish(worker.engine.submit(request(prompt(3, len), endless(3))).unwrap()).await,
            expected
        );
        let totals = worker.engine.load().totals;
        let hits = 2 * (last_token - last_token % BLOCK_TOKENS);
        assert_eq!((totals.prefix_query_tokens, totals.prefix_hit_tokens), (3 * len as u64, hits as u64));
        assert_eq!(totals.prompt_tokens, (3 * len - hits) as u64);
        worker.drain().await;
    }
}

#[tokio::test]
async fn an_answer_is_cached_for_the_next_turn_of_a_conversation() {
    let worker = Worker::start(32, EngineConfig::default());
    let answer = finish(worker.engine.submit(request(prompt(3, 9), endless(8))).unwrap()).await;
    let turn = [prompt(3, 9), answer.tokens, prompt(30, 5)].concat();
    // The last token of the answer was sampled and not computed: 16 of the 17.
    let handle = worker.engine.submit(request(turn.clone(), endless(4))).unwrap();
    assert_eq!(cached_tokens(handle).await, 16);
    let outcome = finish(worker.engine.submit(request(turn.clone(), endless(4))).unwrap()).await;
    assert_eq!(outcome, alone(request(turn, endless(4))).await);
    worker.drain().await;
}

#[tokio::test]
async fn who_comes_together_computes_together() {
    let config = EngineConfig { max_step_tokens: 8, ..EngineConfig::default() };
    let (worker, gate) = Worker::start_gated(64, config);
    let (len, many) = (32, 6);
    let handles: Vec<_> = (0..many)
        .map(|i| {
            let sampling = SamplingParams { temperature: 1.0, seed: i, ..endless(6) };
            worker.engine.submit(request(prompt(3, len), sampling)).unwrap()
        })
        .collect();
    gate.open();
    for (i, handle) in (0..).zip(handles) {
        let sampling = SamplingParams { temperature: 1.0, seed: i, ..endless(6) };
        assert_eq!(finish(handle).await, alone(request(prompt(3, len), sampling)).await);
    }
    let computed = worker.engine.load().totals.prompt_tokens;
    // Once in full, and the last block for each of the others.
    assert_eq!(computed, len as u64 + (many - 1) * BLOCK_TOKENS as u64);
    worker.drain().await;
}

#[tokio::test]
async fn blocks_are_shared_and_not_copied() {
    let (worker, gate) = Worker::start_gated(32, EngineConfig::default());
    let handles: Vec<_> = (0..3)
        .map(|i| worker.engine.submit(request([prompt(3, 16), vec![i]].concat(), endless(3))).unwrap())
        .collect();
    gate.allow(1);
    gate.wait_for_step(2);
    // The first step computed all three, or the first of them alone; by the second step they share what is the same: four
    // blocks, and one each for the rest.
    assert_eq!(worker.engine.load().blocks.owned, 4 + 3);
    gate.open();
    for handle in handles {
        finish(handle).await.end.unwrap();
    }
    worker.drain().await;
}

#[tokio::test]
async fn what_adapters_and_salts_set_apart_is_not_shared() {
    let worker = Worker::start(64, EngineConfig::default());
    let adapter = |name, revision| Some(HashForward::adapter(name, revision));
    let salt = |salt: &str| Some(salt.to_owned());
    // An adapter that comes back with other weights is another; one that comes back with the same is the same.
    for (adapter, cache_salt, expected) in [
        (None, None, 0),
        (adapter("a", "1"), None, 0),
        (adapter("a", "2"), None, 0),
        (adapter("b", "1"), None, 0),
        (None, salt("a"), 0),
        (adapter("a", "1"), salt("a"), 0),
        (adapter("a", "1"), None, 8),
        (None, None, 8),
    ] {
        for cached in [expected, 8] {
            let (adapter, cache_salt) = (adapter.clone(), cache_salt.clone());
            let label = format!("{adapter:?} {cache_salt:?}");
            let request = SequenceRequest { adapter, cache_salt, ..request(prompt(3, 9), endless(2)) };
            let handle = worker.engine.submit(request).unwrap();
            assert_eq!(cached_tokens(handle).await, cached, "{label}");
        }
    }
    worker.drain().await;
    // Routers are told, too.
    let adapters: Vec<_> = worker
        .mirror
        .log()
        .into_iter()
        .filter_map(|event| match event {
            CacheEvent::Stored { scope: Some(scope), .. } => scope.adapter.clone(),
            _ => None,
        })
        .map(|adapter| (adapter.name, adapter.revision, adapter.id))
        .collect();
    let [one, two] = [&adapters[0], &adapters[1]];
    assert_eq!((&*one.0, &*one.1, &*two.0, &*two.1), ("a", "1", "a", "2"));
    assert!(
        one.2 != two.2 && adapters.iter().all(|adapter| (1..1 << 31).contains(&adapter.2)),
        "{adapters:?}"
    );
}

#[tokio::test]
async fn all_that_is_cached_is_told_when_asked_for() {
    let worker = Worker::start(16, EngineConfig::default());
    for salt in 0..4 {
        // The last ones push the first ones out.
        cached_tokens(worker.engine.submit(request(prompt(salt, 21), endless(9))).unwrap()).await;
        cached_tokens(worker.engine.submit(request(prompt(salt, 13), endless(2))).unwrap()).await;
        worker.engine.tell_cache();
    }
    while worker.mirror.tellings() < 4 {
        tokio::task::yield_now().await;
    }
    assert!(worker.mirror.len() > 0);
    let load = worker.engine.load().totals.decode;
    assert!(
        load.steps > 0 && load.sequences >= load.steps && load.context_tokens > 13 * load.steps,
        "{load:?}"
    );
    worker.drain().await;
}

#[tokio::test]
async fn without_a_prefix_cache_nothing_is_kept() {
    let worker = Worker::start(32, EngineConfig { prefix_cache: false, ..EngineConfig::default() });
    for _ in 0..2 {
        let handle = worker.engine.submit(request(prompt(3, 17), endless(3))).unwrap();
        assert_eq!(cached_tokens(handle).await, 0);
    }
    let load = worker.engine.load();
    assert_eq!((load.blocks.free, load.totals.prefix_query_tokens), (32, 0));
    assert_eq!(worker.mirror.log(), []);
    worker.drain().await;
}

#[tokio::test]
async fn cached_blocks_make_room_when_nothing_else_is_free() {
    let worker = Worker::start(8, EngineConfig::default());
    for first in 0..20 {
        let handle = worker.engine.submit(request(prompt(first, 17), endless(4))).unwrap();
        assert_eq!(cached_tokens(handle).await, 0);
    }
    let blocks = worker.engine.load().blocks;
    assert_eq!(blocks.available(), 8);
    assert_eq!(blocks.evicted_total, worker.mirror.log().iter().map(removed).sum::<usize>() as u64);
    assert!(blocks.evicted_total > 50, "{blocks:?}");
    worker.drain().await;
}

fn removed(event: &CacheEvent) -> usize {
    if let CacheEvent::Removed { hashes } = event { hashes.len() } else { 0 }
}

#[tokio::test]
async fn clearing_forgets_everything_and_leaves_who_runs_alone() {
    let (worker, gate) = Worker::start_gated(32, EngineConfig::default());
    let mut running = worker.engine.submit(request(prompt(3, 9), endless(20))).unwrap();
    gate.allow(3);
    let first = next_token(&mut running).await;
    worker.engine.clear_prefix_cache();
    gate.open();
    let mut tokens = vec![first];
    tokens.extend(finish(running).await.tokens);
    assert_eq!(tokens, alone(request(prompt(3, 9), endless(20))).await.tokens);
    assert!(worker.mirror.log().contains(&CacheEvent::Cleared));
    let handle = worker.engine.submit(request(prompt(3, 9), endless(2))).unwrap();
    assert_eq!(cached_tokens(handle).await, 0);
    let handle = worker.engine.submit(request(prompt(3, 9), endless(2))).unwrap();
    assert_eq!(cached_tokens(handle).await, 8, "what comes later is cached again");
    worker.drain().await;
}

#[tokio::test]
async fn a_router_that_reads_the_events_knows_what_is_cached() {
    let worker = Worker::start(12, EngineConfig::default());
    for first in [3, 9, 3, 20, 9, 3, 41] {
        let prompt = prompt(first, 14);
        let expected = worker.mirror.cached_tokens(&prompt[..13]);
        let handle = worker.engine.submit(request(prompt, endless(5))).unwrap();
        assert_eq!(cached_tokens(handle).await, expected);
        // The events of a sequence's last step come right after its end.
        while worker.mirror.len() != worker.engine.load().blocks.indexed {
            tokio::task::yield_now().await;
        }
    }
    assert!(worker.engine.load().totals.prefix_hit_tokens > 0);
    worker.drain().await;
}

#[tokio::test]
async fn a_first_leg_tells_its_sink_of_cached_blocks_once() {
    for (max_step_tokens, layer_group) in [(512, 1), (5, 2), (3, 3), (4, 4)] {
        let config = EngineConfig { max_step_tokens, layer_group, ..EngineConfig::default() };
        let [prefill, decode] = [Worker::start(16, config.clone()), Worker::start(16, config)];
        for (len, cached) in [(9, 0), (9, 8), (14, 8), (16, 12), (16, 12)] {
            let reservation = within(decode.engine.reserve(&reserved(len, &endless(5), None))).await.unwrap();
            let push = Push::to(&prefill, &decode, &reservation);
            let whole = request(prompt(3, len), endless(5));
            let mut leg = prefill.engine.prefill(whole.clone(), push.clone()).unwrap();
            let first = within(leg.first_token()).await.unwrap();
            assert_eq!(first.cached_tokens, cached);
            let mut told = vec![[0; LAYOUT.layers]; len.div_ceil(BLOCK_TOKENS)];
            for (layers, blocks) in push.reports.lock().unwrap().iter() {
                assert!(layers.len() <= layer_group && !blocks.is_empty());
                blocks.clone().for_each(|block| layers.clone().for_each(|layer| told[block][layer] += 1));
            }
            assert!(told.iter().flatten().all(|times| *times == 1), "{len} tokens: {told:?}");
            let rest = finish(decode.engine.decode(reservation, whole.clone(), first.token).unwrap()).await;
            assert_eq!(rest.tokens, alone(whole).await.tokens[1..]);
        }
        prefill.drain().await;
        decode.drain().await;
    }
}

#[tokio::test]
async fn blocks_that_a_transfer_reads_are_shared_and_stay() {
    let worker = Worker::start(8, EngineConfig::default());
    let elsewhere = Worker::start(8, EngineConfig::default());
    let targets: Vec<_> = (0..8).map(baton_engine::BlockId).collect();
    let push = || Push::between(&worker, &elsewhere, &targets);
    let mut leg = worker.engine.prefill(request(prompt(3, 17), endless(5)), push()).unwrap();
    let held = leg.held_blocks();
    within(leg.first_token()).await.unwrap();
    drop(leg);
    assert_eq!(worker.engine.load().blocks.held, 5);

    // The same prompt needs one block more, though three are free and five are held.
    let mut again = worker.engine.prefill(request(prompt(3, 17), endless(5)), push()).unwrap();
    let held_again = again.held_blocks();
    assert_eq!(within(again.first_token()).await.unwrap().cached_tokens, 16);
    drop(again);
    assert_eq!(held_again.ids()[..4], held.ids()[..4]);
    assert_eq!((worker.engine.load().blocks.held, worker.engine.load().blocks.free), (6, 2));
    // A prompt that would need the held ones waits, rather than evict them.
    let mut other = worker.engine.prefill(request(prompt(30, 17), endless(5)), push()).unwrap();
    drop(held);
    assert_eq!(worker.engine.load().blocks.held, 5, "the second transfer still reads four of them");
    drop(held_again);
    within(other.first_token()).await.unwrap();
    drop(other);
    worker.drain().await;
}

#[tokio::test]
async fn what_two_prefills_computed_at_once_stays_while_both_are_read() {
    let (worker, gate) = Worker::start_gated(16, EngineConfig::default());
    let elsewhere = Worker::start(16, EngineConfig::default());
    let targets: Vec<_> = (0..16).map(baton_engine::BlockId).collect();
    let push = || Push::between(&worker, &elsewhere, &targets);
    // Both wait for this one's step, and are in the next one together.
    let blocker = worker.engine.submit(request(prompt(9, 2), endless(2))).unwrap();
    gate.wait_for_step(1);
    let mut legs =
        [(); 2].map(|()| worker.engine.prefill(request(prompt(3, 17), endless(5)), push()).unwrap());
    gate.open();
    for leg in &mut legs {
        within(leg.first_token()).await.unwrap();
    }
    finish(blocker).await.end.unwrap();
    let held = legs.map(|leg| leg.held_blocks());
    assert_eq!(held[0].ids()[..4], held[1].ids()[..4]);
    assert_eq!(worker.engine.load().blocks.held, 10, "the second one's own blocks are still being read");
    drop(held);
    worker.drain().await;
    assert_eq!(worker.engine.load().blocks.cached, 4);
}

#[tokio::test]
async fn what_a_transfer_brought_is_cached_where_it_is_decoded() {
    let [prefill, decode] = [16, 16].map(|blocks| Worker::start(blocks, EngineConfig::default()));
    for cached_on_decode in [0, 12] {
        let handle = decode.engine.submit(request(prompt(9, 13), endless(3))).unwrap();
        assert_eq!(cached_tokens(handle).await, cached_on_decode);
    }
    let outcome = over(&prefill, &decode, prompt(3, 13), endless(6)).await;
    assert_eq!(outcome, alone(request(prompt(3, 13), endless(6))).await);
    let handle = decode.engine.submit(request(prompt(3, 13), endless(3))).unwrap();
    assert_eq!(cached_tokens(handle).await, 12);

    // The second time it need not bring it.
    let before = decode.engine.load().blocks.indexed;
    let outcome = over(&prefill, &decode, prompt(3, 13), endless(6)).await;
    assert_eq!(outcome, alone(request(prompt(3, 13), endless(6))).await);
    assert_eq!(decode.engine.load().blocks.indexed, before);
    prefill.drain().await;
    decode.drain().await;
}

#[tokio::test]
async fn a_reservation_shares_what_is_cached_unless_it_is_told_not_to() {
    let worker = Worker::start(16, EngineConfig { growth_tokens: 4, ..EngineConfig::default() });
    finish(worker.engine.submit(request(prompt(3, 13), endless(1))).unwrap()).await;
    let cached: Vec<_> = (0..3).map(baton_engine::BlockId).collect();
    let reservation = within(worker.engine.reserve(&reserved(13, &endless(6), None))).await.unwrap();
    assert_eq!((reservation.cached_tokens(), reservation.block_ids().len()), (12, 5));
    assert_eq!((&reservation.block_ids()[..3], reservation.blocks_to_fill().len()), (&cached[..], 1));
    assert_eq!(worker.engine.load().blocks.owned, 5);

    let own = within(reservation.unshare(None)).await.unwrap();
    assert_eq!((own.cached_tokens(), own.block_ids().len(), own.blocks_to_fill().len()), (0, 5, 4));
    assert!(own.block_ids().iter().all(|id| !cached.contains(id)));
    // What was exchanged after a failed transfer is not shared either, when it was not before.
    let (old, fresh) = own.replace_blocks(None);
    drop(old);
    let fresh = within(fresh).await.unwrap();
    assert_eq!(fresh.cached_tokens(), 0);
    let handle = worker.engine.submit_reserved(fresh, request(prompt(3, 13), endless(6))).unwrap();
    assert_eq!(cached_tokens(handle).await, 12);

    // A prompt of the same length is not the same prompt.
    let reservation = within(worker.engine.reserve(&reserved(13, &endless(6), None))).await.unwrap();
    let error = worker.engine.submit_reserved(reservation, request(prompt(9, 13), endless(6))).unwrap_err();
    assert_eq!(error, baton_engine::SubmitError::OtherPrompt);
    worker.drain().await;
}

#[tokio::test]
async fn a_reservation_does_not_evict_the_beginning_of_its_own_prompt() {
    // Nine blocks, four of them cached for this prompt, four for one that was used later.
    let worker = Worker::start(9, EngineConfig { growth_tokens: 1, ..EngineConfig::default() });
    for first in [3, 30] {
        finish(worker.engine.submit(request(prompt(first, 16), endless(1))).unwrap()).await;
    }
    assert_eq!(worker.engine.load().blocks.cached, 8);
    let reservation = within(worker.engine.reserve(&reserved(17, &endless(1), None))).await.unwrap();
    assert_eq!(reservation.cached_tokens(), 16);
    assert_eq!(worker.engine.load().blocks.evicted_total, 0);
    drop(reservation);
    worker.drain().await;
}

#[tokio::test]
async fn falling_back_uses_what_is_cached_in_place_of_reserved_blocks() {
    let worker = Worker::start(16, EngineConfig::default());
    let reservation = within(worker.engine.reserve(&reserved(13, &endless(6), None))).await.unwrap();
    assert_eq!(reservation.cached_tokens(), 0);
    finish(worker.engine.submit(request(prompt(3, 13), endless(3))).unwrap()).await;
    let handle = worker.engine.submit_reserved(reservation, request(prompt(3, 13), endless(6))).unwrap();
    assert_eq!(cached_tokens(handle).await, 12);
    worker.drain().await;
}
