//! One request: what is refused, how it ends, what it is told.

use baton_engine::{
    EngineConfig, FailureKind, FinishReason, Forward, HashForward, KvMemory, SamplingParams, SequenceEvent,
    StepSequence, SubmitError,
};

use crate::support::*;

#[tokio::test]
async fn greedy_tokens_are_those_of_the_model_computed_token_by_token() {
    let mut model = HashForward::new(LAYOUT, KvMemory::allocate(&LAYOUT, 16), VOCAB, CONTEXT);
    let table: Vec<_> = (0..16).map(baton_engine::BlockId).collect();
    let mut tokens = prompt(5, 11);
    for position in 0..30 {
        let step = [StepSequence {
            tokens: &tokens[position..=position],
            position,
            block_table: &table,
            adapter: None,
            wanted_logits: 1,
        }];
        let logits = model.step(&step, &mut |_| ());
        let best = (0..VOCAB).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap();
        if position + 1 >= 11 {
            tokens.push(best as u32);
        }
    }

    for max_step_tokens in [1, 3, 4, 512] {
        let worker = Worker::start(16, EngineConfig { max_step_tokens, ..EngineConfig::default() });
        let outcome = finish(worker.engine.submit(request(prompt(5, 11), endless(20))).unwrap()).await;
        assert_eq!(outcome.tokens, tokens[11..], "with steps of {max_step_tokens}");
        assert_eq!(outcome.end, Ok(FinishReason::Length));
        worker.drain().await;
    }
}

#[test]
fn blocks_are_back_when_the_terminal_event_is_seen() {
    let worker = Worker::start(8, EngineConfig::default());
    for _ in 0..2000 {
        let mut handle = worker.engine.submit(request(prompt(3, 9), endless(1))).unwrap();
        // Looks all the time, so as to see the event as early as it can be seen.
        while !matches!(handle.try_recv(), Some(SequenceEvent::Finished(..))) {
            std::hint::spin_loop();
        }
        assert_eq!(worker.engine.load().blocks.available(), 8);
    }
}

#[tokio::test]
async fn totals_count_what_was_computed() {
    let worker = Worker::start(8, EngineConfig::default());
    finish(worker.engine.submit(request(prompt(3, 9), endless(9))).unwrap()).await;
    worker.drain().await;
    let totals = worker.engine.load().totals;
    assert_eq!(
        (totals.steps, totals.prompt_tokens, totals.generation_tokens, totals.preemptions),
        (9, 9, 9, 0)
    );
}

#[tokio::test]
async fn a_stop_token_ends_and_is_the_last_one_sent() {
    let free = alone(request(prompt(3, 9), endless(12))).await.tokens;
    let stop = free[5];
    let first = free.iter().position(|id| *id == stop).unwrap();
    let sampling = SamplingParams { stop_token_ids: vec![stop], ..endless(12) };
    let outcome = alone(request(prompt(3, 9), sampling)).await;
    assert_eq!(outcome, Outcome { tokens: free[..=first].to_vec(), end: Ok(FinishReason::Stop) });
}

#[tokio::test]
async fn the_pool_and_the_context_end_a_sequence_with_length() {
    for (blocks, limit) in [(4, 16), (64, CONTEXT)] {
        let worker = Worker::start(blocks, EngineConfig::default());
        let outcome = finish(worker.engine.submit(request(prompt(3, 10), endless(1000))).unwrap()).await;
        assert_eq!(
            (outcome.tokens.len(), outcome.end),
            (limit - 10, Ok(FinishReason::Length)),
            "{blocks} blocks"
        );
        worker.drain().await;
    }
}

#[tokio::test]
async fn a_prompt_that_can_never_fit_is_refused_with_both_numbers() {
    let worker = Worker::start(4, EngineConfig::default());
    let refuse = |len| worker.engine.submit(request(prompt(3, len), endless(1))).unwrap_err();
    assert_eq!(refuse(16), SubmitError::PromptExceedsPool { prompt_tokens: 16, pool_tokens: 16 });
    assert_eq!(
        refuse(CONTEXT),
        SubmitError::PromptExceedsContext { prompt_tokens: CONTEXT, max_context_tokens: CONTEXT }
    );
    assert_eq!(
        refuse(16).to_string(),
        "the prompt has 16 tokens; with one new token that is more than the whole KV cache holds, 16"
    );
    assert_eq!(
        finish(worker.engine.submit(request(prompt(3, 15), endless(9))).unwrap()).await.tokens.len(),
        1
    );
    worker.drain().await;
}

#[tokio::test]
async fn bad_requests_are_refused_as_the_callers_fault() {
    let worker = Worker::start(8, EngineConfig::default());
    let refuse = |prompt, sampling| {
        let error = worker.engine.submit(request(prompt, sampling)).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Invalid);
        error.to_string()
    };
    assert_eq!(refuse(vec![], endless(1)), "the prompt is empty");
    assert_eq!(refuse(vec![3, 50], endless(1)), "token 1 of the prompt is 50, the vocabulary has 50 tokens");
    assert_eq!(refuse(vec![3], endless(0)), "max_tokens is 0, it must be at least 1");
    let hot = SamplingParams { temperature: f32::NAN, ..endless(1) };
    assert_eq!(refuse(vec![3], hot), "temperature is NaN, it must be between 0 and 100");
    worker.drain().await;
}

#[tokio::test]
async fn a_model_that_gives_no_numbers_fails_the_sequence_and_not_the_engine() {
    let worker = Worker::start_hooked(8, EngineConfig::default(), |batch| {
        let reaches_6 = batch.iter().any(|sequence| sequence.position + sequence.tokens.len() == 7);
        if reaches_6 { Answer::NotANumber } else { Answer::Right }
    });
    let failed = finish(worker.engine.submit(request(prompt(3, 5), endless(9))).unwrap()).await;
    assert_eq!(failed.tokens.len(), 2);
    assert_eq!(failed.end.unwrap_err().kind(), FailureKind::Internal);
    let short = finish(worker.engine.submit(request(prompt(3, 2), endless(2))).unwrap()).await;
    assert_eq!(short.end, Ok(FinishReason::Length));
    worker.drain().await;
}

#[tokio::test]
async fn logprobs_come_with_each_token_when_asked_for() {
    let worker = Worker::start(8, EngineConfig::default());
    let sampling = SamplingParams { logprobs: Some(3), ..endless(4) };
    let mut handle = worker.engine.submit(request(prompt(3, 5), sampling)).unwrap();
    assert!(matches!(within(handle.recv()).await, Some(SequenceEvent::Prefilled(_))));
    for _ in 0..4 {
        let Some(SequenceEvent::Token(token)) = within(handle.recv()).await else {
            panic!("a token was expected")
        };
        let logprobs = token.logprobs.unwrap();
        assert_eq!(logprobs.top.len(), 3);
        assert_eq!(logprobs.top[0], (token.id, logprobs.chosen), "greedy takes the most likely token");
    }
}
