//! Whatever comes in whatever order, is sampled how, leaves when, in pools that are too small, with drafts of whatever quality.

use std::sync::{Arc, LazyLock};

use baton_engine::{EngineConfig, NgramLookup, Propose, SamplingParams, SequenceEvent, Speculation};
use baton_grammar::{Grammar, Grammars, TokenBytes, Vocabulary, source};
use proptest::prelude::*;
use tokio::task::{JoinSet, yield_now};

use super::{
    numbered, plain,
    proposers::{Always, Answers, Knowing, draft_model, worse_draft_model},
    speculating,
};
use crate::support::*;

/// One client's request and behaviour.
#[derive(Clone, Debug)]
struct Client {
    /// Turns of the runtime before it comes.
    comes_after: usize,
    first: u32,
    prompt_len: usize,
    max_tokens: u32,
    sampling: usize,
    /// Tokens after which it goes away.
    leaves_after: Option<usize>,
}

/// Who drafts.
#[derive(Clone, Copy, Debug)]
enum Drafts {
    Knowing { wrong_percent: u64 },
    Garbage,
    Ngram,
    Model { blocks: usize },
    WorseModel { blocks: usize },
}

fn client() -> impl Strategy<Value = Client> {
    let leaves_after = prop_oneof![3 => Just(None), 1 => (0_usize..12).prop_map(Some)];
    (0_usize..20, 0..5_u32, 1_usize..24, 1_u32..30, 0_usize..6, leaves_after).prop_map(
        |(comes_after, first, prompt_len, max_tokens, sampling, leaves_after)| Client {
            comes_after,
            first,
            prompt_len,
            max_tokens,
            sampling,
            leaves_after,
        },
    )
}

fn drafts() -> impl Strategy<Value = Drafts> {
    prop_oneof![
        3 => (0_u64..60).prop_map(|wrong_percent| Drafts::Knowing { wrong_percent }),
        1 => Just(Drafts::Garbage),
        1 => Just(Drafts::Ngram),
        2 => (4_usize..60).prop_map(|blocks| Drafts::Model { blocks }),
        1 => (4_usize..60).prop_map(|blocks| Drafts::WorseModel { blocks }),
    ]
}

fn config() -> impl Strategy<Value = EngineConfig> {
    let prefix_cache = prop_oneof![4 => Just(true), 1 => Just(false)];
    (1_usize..40, prop::option::of(1_usize..20), 1_usize..6, prefix_cache).prop_map(
        |(max_step_tokens, mixed_prompt_tokens, max_running, prefix_cache)| EngineConfig {
            max_step_tokens,
            mixed_prompt_tokens,
            max_running,
            prefix_cache,
            ..EngineConfig::default()
        },
    )
}

impl Drafts {
    fn proposer(self, answers: &Answers) -> Box<dyn Propose> {
        match self {
            Self::Knowing { wrong_percent } => Box::new(Knowing::most(answers, wrong_percent)),
            Self::Garbage => Box::new(Always((0..20).collect())),
            Self::Ngram => Box::new(NgramLookup::new(1, 3)),
            Self::Model { blocks } => Box::new(draft_model(blocks, 10)),
            Self::WorseModel { blocks } => Box::new(worse_draft_model(blocks, 10)),
        }
    }
}

/// Letters for most tokens, and two ends.
static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let letter = |id: u8| TokenBytes { bytes: vec![b'a' + id % 26], is_special: id < 2 };
    let vocabulary = Vocabulary::new((0..VOCAB as u8).map(letter), VOCAB, &EOS).unwrap();
    Grammars::new(&vocabulary).unwrap()
});

async fn grammar() -> Grammar {
    GRAMMARS.compile(&source::whole("/([a-m]{2}[n-z]){2,8}/")).await.unwrap()
}

async fn sampling(kind: usize, max_tokens: u32) -> SamplingParams {
    let base = SamplingParams { logprobs: Some(2), ..SamplingParams::greedy(max_tokens) };
    match kind {
        0 => base,
        1 => SamplingParams { ignore_eos: true, repetition_penalty: 1.3, logit_bias: vec![(5, 2.5)], ..base },
        2 => SamplingParams {
            temperature: 1.1,
            top_k: 12,
            min_p: 0.01,
            min_tokens: max_tokens / 2,
            stop_token_ids: vec![4, 5, 6],
            ..base
        },
        3 => SamplingParams { temperature: 0.8, top_p: 0.9, frequency_penalty: 0.7, ..base },
        4 => SamplingParams { grammar: Some(grammar().await), ..base },
        _ => SamplingParams { temperature: 1.0, grammar: Some(grammar().await), ..base },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn with_drafts_everybody_gets_what_they_get_without(
        clients in prop::collection::vec(client(), 1..12),
        blocks in 9_usize..24,
        config in config(),
        drafts in drafts(),
        draft_tokens in 1_usize..10,
        is_adaptive in any::<bool>(),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let answers = Answers::default();
            let proposer = drafts.proposer(&answers);
            let speculation = Speculation { proposer, draft_tokens, is_adaptive };
            let worker = Arc::new(speculating(blocks, config, Some(speculation)));
            let mut visits = JoinSet::new();
            for (number, client) in (0..).zip(clients) {
                let (answers, worker) = (answers.clone(), worker.clone());
                visits.spawn(async move { visit(number, &client, &answers, &worker).await });
            }
            within(visits.join_all()).await;
            Arc::into_inner(worker).unwrap().drain().await;
        });
    }
}

/// Sends a client's request, and compares what it gets with what it gets alone and without drafts.
async fn visit(number: u64, client: &Client, answers: &Answers, worker: &Worker) {
    let sampling = sampling(client.sampling, client.max_tokens).await;
    let whole = numbered(number, client.first, client.prompt_len, sampling);
    let mut expected = plain(&whole).await;
    answers.learn(&whole, &expected);
    for _ in 0..client.comes_after {
        yield_now().await;
    }
    let mut handle = worker.engine.submit(whole).unwrap();
    let mut tokens = Vec::new();
    let has_left = loop {
        if client.leaves_after.is_some_and(|count| tokens.len() >= count) {
            break true;
        }
        match within(handle.recv()).await.expect("a terminal event comes before the end") {
            SequenceEvent::Prefilled(_) => assert!(tokens.is_empty()),
            SequenceEvent::Token(token) => tokens.push(token),
            SequenceEvent::Finished(..) => break false,
            SequenceEvent::Failed(failure) => panic!("{failure}"),
        }
    };
    expected.truncate(worker.blocks * BLOCK_TOKENS - client.prompt_len);
    if has_left {
        expected.truncate(tokens.len());
    } else {
        assert_eq!(within(handle.recv()).await, None, "nothing follows the terminal event");
    }
    assert_eq!(tokens, expected, "{client:?}");
}
