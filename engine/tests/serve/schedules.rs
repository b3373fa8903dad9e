//! Whatever comes in whatever order into pools that are too small: everybody gets their own answer, and nothing is left.

use std::sync::Arc;

use baton_engine::{
    EngineConfig, HashForward, SamplingParams, SequenceEvent, SequenceHandle, SequenceRequest, Speed,
};
use proptest::prelude::*;
use tokio::task::{JoinHandle, JoinSet, yield_now};

use crate::{disaggregated::Push, support::*};

/// One client's request and behaviour.
#[derive(Clone, Debug)]
struct Client {
    /// Turns of the runtime before it comes.
    comes_after: usize,
    first: u32,
    prompt_len: usize,
    max_tokens: u32,
    sampling: usize,
    /// None, or one of two, of which the second has the first one's name and other weights.
    adapter: usize,
    route: Route,
    /// Tokens after which it goes away.
    leaves_after: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Route {
    Aggregated,
    Disaggregated,
    /// The first transfer fails half-way, and its blocks are let go some turns later.
    SecondTry {
        held_turns: usize,
    },
    /// No prefill worker is left.
    Fallback,
    /// The reservation is dropped.
    NeverStarts,
}

fn client() -> impl Strategy<Value = Client> {
    let route = prop_oneof![
        Just(Route::Aggregated),
        Just(Route::Disaggregated),
        (0_usize..20).prop_map(|held_turns| Route::SecondTry { held_turns }),
        Just(Route::Fallback),
        Just(Route::NeverStarts),
    ];
    let leaves_after = prop_oneof![3 => Just(None), 1 => (0_usize..8).prop_map(Some)];
    // Few beginnings, so that many begin the same.
    let first = 0..5_u32;
    (0_usize..30, first, 1_usize..34, 1_u32..24, 0_usize..4, 0_usize..3, route, leaves_after).prop_map(
        |(comes_after, first, prompt_len, max_tokens, sampling, adapter, route, leaves_after)| Client {
            comes_after,
            first,
            prompt_len,
            max_tokens,
            sampling,
            adapter,
            route,
            leaves_after,
        },
    )
}

fn config() -> impl Strategy<Value = EngineConfig> {
    let prefix_cache = prop_oneof![4 => Just(true), 1 => Just(false)];
    (1_usize..40, prop::option::of(1_usize..20), 1_usize..6, 1_usize..12, prefix_cache, 1_usize..4).prop_map(
        |(max_step_tokens, mixed_prompt_tokens, max_running, growth_tokens, prefix_cache, layer_group)| {
            EngineConfig {
                max_step_tokens,
                mixed_prompt_tokens,
                max_running,
                max_waiting: 64,
                growth_tokens,
                prefix_cache,
                layer_group,
                speed: Speed::Full,
            }
        },
    )
}

fn sampling(kind: usize, max_tokens: u32) -> SamplingParams {
    let greedy = SamplingParams::greedy(max_tokens);
    match kind {
        0 => greedy,
        1 => SamplingParams { ignore_eos: true, repetition_penalty: 1.3, ..greedy },
        2 => SamplingParams {
            temperature: 1.1,
            seed: 99,
            top_k: 12,
            min_p: 0.01,
            min_tokens: max_tokens / 2,
            ..greedy
        },
        _ => SamplingParams { temperature: 0.8, seed: 3, top_p: 0.9, frequency_penalty: 0.7, ..greedy },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_their_own_answer_and_nothing_is_left(
        clients in prop::collection::vec(client(), 1..14),
        prefill_blocks in 9_usize..20,
        decode_blocks in 9_usize..20,
        configs in [config(), config()],
    ) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let [prefill_config, decode_config] = configs;
            let fleet = Arc::new((
                Worker::start(prefill_blocks, prefill_config),
                Worker::start(decode_blocks, decode_config),
            ));
            let mut tasks = JoinSet::new();
            for client in &clients {
                let (client, fleet) = (client.clone(), fleet.clone());
                tasks.spawn(async move { visit(&client, &fleet.0, &fleet.1).await });
            }
            within(tasks.join_all()).await;
            let (prefill, decode) = Arc::into_inner(fleet).unwrap();
            prefill.drain().await;
            decode.drain().await;
        });
    }
}

/// A client's visit, and the end of all that it left on the network.
async fn visit(client: &Client, prefill: &Worker, decode: &Worker) {
    let mut fences = Vec::new();
    serve(client, prefill, decode, &mut fences).await;
    for fence in fences {
        within(fence).await.unwrap();
    }
}

/// Sends a client's request, and compares what it gets with what it gets alone.
async fn serve(client: &Client, prefill: &Worker, decode: &Worker, fences: &mut Vec<JoinHandle<()>>) {
    for _ in 0..client.comes_after {
        yield_now().await;
    }
    let adapter = (client.adapter > 0).then(|| HashForward::adapter("a", &client.adapter.to_string()));
    let sampling = sampling(client.sampling, client.max_tokens);
    let whole = SequenceRequest { adapter, ..request(prompt(client.first, client.prompt_len), sampling) };
    let expected = alone(whole.clone()).await;
    let (mut tokens, handle) = match start(client, &whole, prefill, decode, fences).await {
        Some(started) => started,
        None => return,
    };
    let end = match handle {
        Some(handle) => follow(handle, &mut tokens, client.leaves_after).await,
        None => Some(()),
    };
    let pool_limit = decode.blocks * BLOCK_TOKENS - client.prompt_len;
    let expected = &expected.tokens[..expected.tokens.len().min(pool_limit)];
    match end {
        Some(()) => assert_eq!(tokens, expected, "{client:?}"),
        None => assert_eq!(tokens, expected[..tokens.len()], "{client:?}"),
    }
}

/// Brings a request to the point where its tokens flow: those it has already, and the handle unless it is over.
async fn start(
    client: &Client,
    whole: &baton_engine::SequenceRequest,
    prefill: &Worker,
    decode: &Worker,
    fences: &mut Vec<JoinHandle<()>>,
) -> Option<(Vec<u32>, Option<SequenceHandle>)> {
    if let Route::Aggregated = client.route {
        let handle = decode.engine.submit(whole.clone()).unwrap();
        return Some((vec![], Some(handle)));
    }
    let mut reservation = within(decode.engine.reserve(whole)).await.unwrap();
    match client.route {
        Route::NeverStarts => return None,
        Route::Fallback => {
            let handle = decode.engine.submit_reserved(reservation, whole.clone()).unwrap();
            return Some((vec![], Some(handle)));
        }
        Route::SecondTry { held_turns } => {
            let push = Push::to(prefill, decode, &reservation);
            let leg = prefill.engine.prefill(whole.clone(), push.clone()).unwrap();
            yield_now().await;
            let (old, fresh) = reservation.replace_blocks(None);
            fences.push(tokio::spawn(async move {
                let source = leg.held_blocks();
                drop(leg);
                // The old blocks may be written until the engine has let go of the sink.
                let mut turns = 0;
                while Arc::strong_count(&push) > 1 || turns < held_turns {
                    turns += 1;
                    yield_now().await;
                }
                drop((old, source));
            }));
            reservation = within(fresh).await.unwrap();
        }
        Route::Aggregated | Route::Disaggregated => {}
    }
    let push = Push::to(prefill, decode, &reservation);
    let mut leg = prefill.engine.prefill(whole.clone(), push).unwrap();
    let held = leg.held_blocks();
    let first = within(leg.first_token()).await.unwrap();
    fences.push(tokio::spawn(async move {
        yield_now().await;
        drop(held);
    }));
    let tokens = vec![first.token.id];
    if first.finish.is_some() {
        return Some((tokens, None));
    }
    let handle = decode.engine.decode(reservation, whole.clone(), first.token).unwrap();
    Some((tokens, Some(handle)))
}

/// Reads a sequence's tokens; `None` when the client left before the end.
async fn follow(
    mut handle: SequenceHandle,
    tokens: &mut Vec<u32>,
    leaves_after: Option<usize>,
) -> Option<()> {
    loop {
        if leaves_after.is_some_and(|count| tokens.len() >= count) {
            return None;
        }
        match within(handle.recv()).await.expect("a terminal event comes before the end") {
            SequenceEvent::Prefilled(_) => {}
            SequenceEvent::Token(token) => tokens.push(token.id),
            SequenceEvent::Finished(..) => break,
            SequenceEvent::Failed(failure) => {
                panic!("{failure}")
            }
        }
    }
    assert_eq!(within(handle.recv()).await, None, "nothing follows the terminal event");
    Some(())
}
