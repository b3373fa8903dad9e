//! What a draft model guesses depends on a sequence's tokens alone, whatever it guessed before, for whom else, and in which pool.

use std::sync::Arc;

use baton_engine::{CacheScope, DraftModel, DraftRequest, Propose, SamplingParams};
use proptest::prelude::*;

use super::proposers::draft_model;
use crate::support::{CONTEXT, prompt};

/// What happens to a sequence after guesses were made for it.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// So many of the guesses are right, and another token follows.
    Accepted(usize),
    /// It went on without guesses.
    WithoutGuesses(usize),
    /// It is not asked for.
    Rests,
    /// It ends, and another one begins in its place.
    Ends,
}

fn next() -> impl Strategy<Value = Next> {
    prop_oneof![
        6 => (0_usize..6).prop_map(Next::Accepted),
        1 => (1_usize..25).prop_map(Next::WithoutGuesses),
        1 => Just(Next::Rests),
        1 => Just(Next::Ends),
    ]
}

struct Sequence {
    number: u64,
    prompt_len: usize,
    tokens: Vec<u32>,
    guesses: Vec<u32>,
    scope: Option<Arc<CacheScope>>,
}

impl Sequence {
    fn start(number: u64) -> Self {
        let prompt_len = 1 + number as usize * 5 % 23;
        let scope = number.is_multiple_of(3).then(|| Arc::new(CacheScope::default()));
        let tokens = prompt(number as u32 % 3, prompt_len);
        Self { number, prompt_len, tokens, guesses: vec![], scope }
    }

    fn goes_on(&mut self, next: Next) {
        match next {
            Next::Accepted(count) => {
                let right = self.guesses.iter().copied().take(count);
                self.tokens.extend(right);
                self.tokens.push(self.tokens.len() as u32 % 50);
            }
            Next::WithoutGuesses(count) => self.tokens.extend(prompt(9, count)),
            Next::Rests | Next::Ends => {}
        }
        self.tokens.truncate(CONTEXT);
    }
}

/// What is guessed with room for everything, in one go.
fn fresh(request: &DraftRequest<'_>) -> Vec<u32> {
    draft_model(2 * CONTEXT, 2 * CONTEXT).propose(std::slice::from_ref(request)).remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn guesses_depend_on_the_tokens_alone(
        steps in prop::collection::vec(prop::collection::vec(next(), 3), 1..20),
        blocks in prop_oneof![6_usize..30, Just(500)],
        chunk_tokens in prop_oneof![1_usize..40, Just(200)],
        most in 1_usize..5,
        temperature in prop_oneof![Just(0.0_f32), Just(0.9)],
    ) {
        let mut model: DraftModel = draft_model(blocks, chunk_tokens);
        let mut sequences: Vec<_> = (0..3).map(Sequence::start).collect();
        let sampling = SamplingParams { temperature, seed: 4, ..SamplingParams::greedy(100) };
        for (number, happens) in (3..).step_by(3).zip(&steps) {
            let asked: Vec<usize> = (0..3).filter(|i| !matches!(happens[*i], Next::Rests)).collect();
            let requests: Vec<_> = asked.iter().map(|i| &sequences[*i]).map(|s| DraftRequest {
                sequence: s.number,
                tokens: &s.tokens,
                prompt_len: s.prompt_len,
                sampling: &sampling,
                scope: s.scope.as_ref(),
                most,
            }).collect();
            let all_tokens: usize = requests.iter().map(|request| request.tokens.len()).sum();
            let guesses = model.propose(&requests);
            prop_assert_eq!(guesses.len(), requests.len());
            for (request, guesses) in requests.iter().zip(&guesses) {
                let expected = fresh(request);
                prop_assert!(expected.starts_with(guesses), "{guesses:?}, not {expected:?}");
                if blocks == 500 && all_tokens <= chunk_tokens {
                    prop_assert_eq!(guesses, &expected, "nothing held it up");
                }
            }
            for (i, guesses) in asked.into_iter().zip(guesses) {
                sequences[i].guesses = guesses;
            }
            for (i, next) in happens.iter().enumerate() {
                sequences[i].goes_on(*next);
                if let Next::Ends = next {
                    sequences[i] = Sequence::start(number + i as u64);
                }
            }
            let live: Vec<u64> = sequences.iter().map(|s| s.number).collect();
            model.keep_only(&|sequence| live.contains(&sequence));
        }
    }
}
