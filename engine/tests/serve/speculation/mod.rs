//! With drafts everybody gets what they get without, log-probabilities included, in fewer steps when the drafts are good.

mod guesses;
mod proposers;
mod schedules;

use baton_engine::{
    EngineConfig, EngineTotals, GeneratedToken, SamplingParams, SequenceEvent, SequenceHandle, Speculation,
};

use crate::support::*;
use proposers::{Always, Answers, Knowing, draft_model, worse_draft_model};

/// A request that is told apart from others by its seed.
fn numbered(
    number: u64,
    first: u32,
    prompt_len: usize,
    sampling: SamplingParams,
) -> baton_engine::SequenceRequest {
    request(prompt(first, prompt_len), SamplingParams { seed: number, ..sampling })
}

fn always(proposer: impl baton_engine::Propose + 'static, draft_tokens: usize) -> Option<Speculation> {
    Some(Speculation { proposer: Box::new(proposer), draft_tokens, is_adaptive: false })
}

fn speculating(blocks: usize, config: EngineConfig, speculation: Option<Speculation>) -> Worker {
    Worker::start_speculating(blocks, config, speculation, |_| Answer::Right)
}

/// The tokens, with everything that comes with them, up to the end.
async fn read(handle: &mut SequenceHandle) -> Vec<GeneratedToken> {
    let mut tokens = Vec::new();
    loop {
        match within(handle.recv()).await.expect("a terminal event comes before the end") {
            SequenceEvent::Prefilled(_) => {}
            SequenceEvent::Token(token) => tokens.push(token),
            SequenceEvent::Finished(..) => return tokens,
            SequenceEvent::Failed(failure) => panic!("{failure}"),
        }
    }
}

/// What a request gives alone, without drafts.
async fn plain(request: &baton_engine::SequenceRequest) -> Vec<GeneratedToken> {
    let worker = Worker::start(CONTEXT, EngineConfig::default());
    read(&mut worker.engine.submit(request.clone()).unwrap()).await
}

/// What was done, after all of it.
async fn drained(worker: &Worker) -> EngineTotals {
    worker.drain().await;
    worker.engine.load().totals
}

#[tokio::test]
async fn who_knows_the_answer_gives_all_drafted_tokens_and_one_more_in_each_step() {
    let answers = Answers::default();
    let whole = numbered(1, 3, 5, endless(21));
    answers.learn(&whole, &plain(&whole).await);
    let worker = speculating(32, EngineConfig::default(), always(Knowing::all(&answers), 4));
    let tokens = read(&mut worker.engine.submit(whole.clone()).unwrap()).await;
    assert_eq!(tokens, plain(&whole).await);
    let totals = drained(&worker).await;
    // The prompt with the first token, and then 20 more.
    assert_eq!((totals.steps, totals.generation_tokens), (1 + 4, 21));
    let speculation = totals.speculation;
    assert_eq!((speculation.drafts, speculation.draft_tokens, speculation.accepted_tokens), (4, 16, 16));
    assert_eq!(speculation.accepted_at[..5], [4, 4, 4, 4, 0]);
}

#[tokio::test]
async fn drafts_end_where_the_request_does() {
    let answers = Answers::default();
    let whole = numbered(1, 3, 5, endless(8));
    answers.learn(&whole, &plain(&whole).await);
    let worker = speculating(32, EngineConfig::default(), always(Knowing::all(&answers), 4));
    assert_eq!(read(&mut worker.engine.submit(whole.clone()).unwrap()).await, plain(&whole).await);
    // One token with the prompt, five, and of the two that are left one is drafted.
    assert_eq!(drained(&worker).await.speculation.draft_tokens, 4 + 1);
}

#[tokio::test]
async fn what_follows_an_end_in_a_step_is_not_sent() {
    let answers = Answers::default();
    let endless = numbered(1, 3, 5, endless(12));
    let whole_answer = plain(&endless).await;
    let mut stopped = endless.clone();
    stopped.sampling.stop_token_ids = vec![whole_answer[6].id];
    let expected = plain(&stopped).await;
    assert!(expected.len() < whole_answer.len());
    // It is told what would come if there were no end.
    answers.learn(&stopped, &whole_answer);
    let worker = speculating(32, EngineConfig::default(), always(Knowing::all(&answers), 8));
    assert_eq!(read(&mut worker.engine.submit(stopped.clone()).unwrap()).await, expected);
    assert_eq!(drained(&worker).await.generation_tokens, expected.len() as u64);
}

#[tokio::test]
async fn garbage_changes_nothing_and_leaves_nothing_in_the_cache() {
    // Tokens that there are, and such that there are not.
    for garbage in [vec![7; 16], vec![1000; 16], (0..16).collect(), vec![]] {
        let worker = speculating(32, EngineConfig::default(), always(Always(garbage.clone()), 16));
        let first = numbered(1, 3, 6, SamplingParams { logprobs: Some(3), ..endless(20) });
        let expected = plain(&first).await;
        assert_eq!(read(&mut worker.engine.submit(first.clone()).unwrap()).await, expected, "{garbage:?}");
        // All that is cached of it is right: who goes on from there gets the right tokens.
        let all: Vec<u32> =
            first.prompt.iter().copied().chain(expected.iter().map(|token| token.id)).collect();
        assert_eq!(worker.mirror.len(), 25 / BLOCK_TOKENS, "the last token is never computed");
        assert_eq!(worker.mirror.cached_tokens(&all), 25 / BLOCK_TOKENS * BLOCK_TOKENS);
        let second = request(all, endless(5));
        let tokens = read(&mut worker.engine.submit(second.clone()).unwrap()).await;
        assert_eq!(tokens, plain(&second).await);
        worker.drain().await;
    }
}

#[tokio::test]
async fn who_is_always_wrong_is_soon_not_asked_any_more() {
    let proposer = Box::new(Always(vec![7; 4]));
    let speculation = Speculation { proposer, draft_tokens: 4, is_adaptive: true };
    let worker = speculating(32, EngineConfig::default(), Some(speculation));
    let whole = numbered(1, 3, 5, endless(58));
    assert_eq!(read(&mut worker.engine.submit(whole.clone()).unwrap()).await, plain(&whole).await);
    let drafts = drained(&worker).await.speculation.drafts;
    // Thirteen if rows cost the least that they can, and a probe later on.
    assert!((1..=15).contains(&drafts), "{drafts} drafts in 57 steps");
}

/// Proposes the right tokens, and takes more time for it than any step.
struct TooSlow(Knowing);

impl baton_engine::Propose for TooSlow {
    fn propose(&mut self, requests: &[baton_engine::DraftRequest<'_>]) -> Vec<Vec<u32>> {
        std::thread::sleep(std::time::Duration::from_millis(20));
        self.0.propose(requests)
    }

    fn keep_only(&mut self, _: &dyn Fn(u64) -> bool) {}
}

#[tokio::test]
async fn who_is_right_and_too_slow_is_asked_once_in_hundreds_of_steps() {
    let answers = Answers::default();
    let proposer = Box::new(TooSlow(Knowing::all(&answers)));
    let speculation = Speculation { proposer, draft_tokens: 4, is_adaptive: true };
    let worker = speculating(32, EngineConfig::default(), Some(speculation));
    for number in 0..24 {
        let whole = numbered(number, 3, 5, endless(58));
        let expected = plain(&whole).await;
        answers.learn(&whole, &expected);
        assert_eq!(read(&mut worker.engine.submit(whole).unwrap()).await, expected);
    }
    // Of 24 times 57 steps: the first one with a draft shows what it costs, and after 512 steps without there is another one.
    let drafts = drained(&worker).await.speculation.drafts;
    assert!((2..=4).contains(&drafts), "{drafts} drafts");
}

#[tokio::test]
async fn drafts_take_no_block_from_anybody() {
    // Together they need all of the eight blocks in the end. Drafts for the older one would take most of them, as it may become
    // longer for all that is known, but ends after eight tokens.
    let mut older = numbered(3, 3, 4, endless(50));
    older.sampling.stop_token_ids = vec![plain(&older).await[7].id];
    let requests = [older, numbered(4, 4, 4, endless(16))];
    let worker = speculating(8, EngineConfig::default(), always(Always(vec![7; 16]), 16));
    let mut handles = requests.clone().map(|request| worker.engine.submit(request).unwrap());
    for (handle, request) in handles.iter_mut().zip(&requests) {
        assert_eq!(read(handle).await, plain(request).await);
    }
    let totals = drained(&worker).await;
    assert_eq!(totals.preemptions, 0);
    assert!(totals.speculation.draft_tokens > 30, "{totals:?}");
}

#[tokio::test]
async fn a_draft_model_that_is_the_model_itself_is_always_right() {
    let worker = speculating(32, EngineConfig::default(), always(draft_model(64, 8), 3));
    // A prompt of more than a chunk, which it computes before it guesses; and again, when it finds it computed.
    for number in [1, 2] {
        let whole = numbered(number, 3, 30, SamplingParams { temperature: 0.9, ..endless(30) });
        assert_eq!(read(&mut worker.engine.submit(whole.clone()).unwrap()).await, plain(&whole).await);
    }
    let totals = drained(&worker).await;
    assert_eq!(totals.speculation.accepted_tokens, totals.speculation.draft_tokens);
    // The prompt; two steps until so little is left of the prompt that it is computed at once; 27 tokens. Then the prompt again,
    // seven times four tokens, and the last one.
    assert_eq!((totals.steps, totals.speculation.drafts), (1 + 2 + 7 + 1 + 7 + 1, 7 + 7));
}

#[tokio::test]
async fn a_draft_model_follows_a_batch_through_wrong_guesses_and_a_pool_that_is_too_small() {
    for (proposer, is_right) in
        [(draft_model(200, 16), true), (worse_draft_model(200, 16), false), (draft_model(9, 16), true)]
    {
        let worker = speculating(64, EngineConfig::default(), always(proposer, 3));
        let requests: Vec<_> =
            (0..6).map(|i| numbered(i, i as u32, 3 + 4 * i as usize, endless(20))).collect();
        let mut handles: Vec<_> =
            requests.iter().map(|request| worker.engine.submit(request.clone()).unwrap()).collect();
        for (handle, request) in handles.iter_mut().zip(&requests) {
            assert_eq!(read(handle).await, plain(request).await);
        }
        let speculation = drained(&worker).await.speculation;
        assert!(speculation.drafts > 0);
        assert_eq!(speculation.accepted_tokens == speculation.draft_tokens, is_right, "{speculation:?}");
    }
}
