//! One answer, whatever the route.

use baton_proto::v1::{FailureKind, FinishReason, SamplingParams};

use crate::{
    bed::{Fleet, greedy, prompt},
    workers::BLOCK_TOKENS,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disaggregated_equals_aggregated() {
    let (fleet, alone) = (Fleet::start(1, 64).await, Fleet::start(0, 64).await);
    let seeded = SamplingParams { temperature: 0.9, seed: 11, top_p: 0.9, ..greedy(13) };
    let penalised = SamplingParams { repetition_penalty: 1.3, presence_penalty: 0.4, ..greedy(20) };
    let with_logprobs = SamplingParams { logprobs: Some(3), ..greedy(5) };
    for (seed, sampling) in (0..).step_by(8).zip([greedy(9), seeded, penalised, with_logprobs, greedy(2)]) {
        for (seed, len) in (seed..).zip([1, 3, 4, 5, 16, 17, 48, 61]) {
            // Each begins in its own way, or little would be transferred: the rest would be cached.
            let prompt = prompt(seed, len);
            let (expected, aggregated) = alone.ask_aggregated(&prompt, sampling.clone()).await.answer().await;
            let (tokens, finished) = fleet.ask(&prompt, sampling.clone()).await.answer().await;
            assert_eq!(tokens, expected, "{len} tokens");
            assert_eq!(
                (aggregated.account.prefill_worker.as_str(), finished.account.prefill_worker.as_str()),
                ("d", "p1")
            );
            assert_eq!((finished.account.fallback.as_str(), finished.reason), ("", aggregated.reason));
        }
    }
    fleet.empties().await;
    let sent = fleet.prefills[0].worker.node.stats();
    let received = fleet.decode.worker.node.stats();
    assert_eq!((sent.bytes_sent, 40), (received.bytes_received, received.incoming_completed));
    // A short answer may be over before its prefill worker has heard that the last write is done; it is let go then.
    assert_eq!((sent.outgoing_completed + sent.outgoing_aborted, sent.outgoing_failed), (40, 0));
    assert_eq!((received.incoming_failed, received.late_writes, received.checksum_failures), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_tokens_are_those_of_the_worker_that_prefilled() {
    let fleet = Fleet::start(1, 64).await;
    let prompt = prompt(3, 4 * BLOCK_TOKENS + 1);
    let all = 4 * BLOCK_TOKENS as u32;
    let (tokens, first) = fleet.ask(&prompt, greedy(9)).await.answer().await;
    let (again, second) = fleet.ask(&prompt, greedy(9)).await.answer().await;
    assert_eq!((first.account.cached_prompt_tokens, second.account.cached_prompt_tokens), (0, all));
    // The transfer brought it to the decode worker, too.
    let (local, third) = fleet.ask_aggregated(&prompt, greedy(9)).await.answer().await;
    assert_eq!(third.account.cached_prompt_tokens, all);
    assert!(tokens == again && tokens == local);
    let other = [&[7, 7, 7], prompt.as_slice()].concat();
    let (_, other) = fleet.ask_aggregated(&other, greedy(9)).await.answer().await;
    assert_eq!(other.account.cached_prompt_tokens, 0);
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_do_not_change_an_answer() {
    let (fleet, alone) = (Fleet::start(2, 96).await, Fleet::start(0, 96).await);
    let asked: Vec<_> = (0..24_u32).map(|n| (prompt(n, 1 + 2 * n as usize), greedy(3 + n % 7))).collect();
    let mut expected = Vec::new();
    for (prompt, sampling) in &asked {
        expected.push(alone.ask_aggregated(prompt, sampling.clone()).await.answer().await.0);
    }
    let mut replies = Vec::new();
    for (prompt, sampling) in &asked {
        replies.push(fleet.ask(prompt, sampling.clone()).await);
    }
    for (reply, expected) in replies.into_iter().zip(expected) {
        assert_eq!(reply.answer().await.0, expected);
    }
    fleet.empties().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_token_that_is_the_last_moves_no_blocks() {
    let fleet = Fleet::start(1, 64).await;
    let (tokens, finished) = fleet.ask(&prompt(3, 30), greedy(1)).await.answer().await;
    assert_eq!((tokens.len(), finished.reason), (1, FinishReason::Length));
    fleet.empties().await;
    assert_eq!(fleet.decode.worker.node.stats().incoming_completed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_served_is_refused_with_limit_and_size() {
    let fleet = Fleet::start(1, 64).await;
    for (prompt, sampling, words) in [
        (prompt(3, 96), greedy(4), vec!["96", "context"]),
        (Vec::new(), greedy(4), vec!["empty"]),
        (vec![1, 50], greedy(4), vec!["token 1", "50", "vocabulary"]),
        (prompt(3, 4), greedy(0), vec!["max_tokens"]),
    ] {
        let (_, end) = fleet.ask(&prompt, sampling).await.rest().await;
        let failure = end.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Invalid, "{failure:?}");
        assert!(words.iter().all(|word| failure.message.contains(word)), "{failure:?}");
    }
    fleet.empties().await;
}
