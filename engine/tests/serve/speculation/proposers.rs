//! Proposers that know the answer, more or less, and some that know nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use baton_engine::{
    DraftModel, DraftRequest, GeneratedToken, HashForward, KvLayout, KvMemory, Propose, SequenceRequest,
};

use crate::support::{CONTEXT, LAYOUT, VOCAB};

/// The output of each request, by its seed.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<HashMap<u64, Vec<u32>>>>);

impl Answers {
    pub(crate) fn learn(&self, request: &SequenceRequest, answer: &[GeneratedToken]) {
        let tokens = answer.iter().map(|token| token.id).collect();
        self.0.lock().unwrap().insert(request.sampling.seed, tokens);
    }
}

/// Knows the answers, but for some tokens in a hundred.
pub(crate) struct Knowing {
    answers: Answers,
    wrong_percent: u64,
    random: u64,
}

impl Knowing {
    pub(crate) fn all(answers: &Answers) -> Self {
        Self::most(answers, 0)
    }

    pub(crate) fn most(answers: &Answers, wrong_percent: u64) -> Self {
        Self { answers: answers.clone(), wrong_percent, random: 88_172_645_463_325_252 }
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 20
    }
}

impl Propose for Knowing {
    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>> {
        let answers = self.answers.0.lock().unwrap().clone();
        let mut propose = |request: &DraftRequest<'_>| {
            let Some(answer) = answers.get(&request.sampling.seed) else { return vec![] };
            let known = answer.iter().skip(request.tokens.len() - request.prompt_len).take(request.most);
            let mut tokens: Vec<u32> = known.copied().collect();
            for token in &mut tokens {
                if self.next_random() % 100 < self.wrong_percent {
                    *token = (self.next_random() % (VOCAB as u64 + 3)) as u32;
                }
            }
            tokens
        };
        requests.iter().map(&mut propose).collect()
    }

    fn keep_only(&mut self, _: &dyn Fn(u64) -> bool) {}
}

/// Proposes the same each time.
pub(crate) struct Always(pub(crate) Vec<u32>);

impl Propose for Always {
    fn propose(&mut self, requests: &[DraftRequest<'_>]) -> Vec<Vec<u32>> {
        requests.iter().map(|_| self.0.clone()).collect()
    }

    fn keep_only(&mut self, _: &dyn Fn(u64) -> bool) {}
}

/// The model itself with another pool, of `blocks` blocks.
pub(crate) fn draft_model(blocks: usize, chunk_tokens: usize) -> DraftModel {
    with_layout(LAYOUT, blocks, chunk_tokens)
}

/// A model whose guesses are no better than others.
pub(crate) fn worse_draft_model(blocks: usize, chunk_tokens: usize) -> DraftModel {
    with_layout(KvLayout { layers: 2, block_tokens: 3, ..LAYOUT }, blocks, chunk_tokens)
}

fn with_layout(layout: KvLayout, blocks: usize, chunk_tokens: usize) -> DraftModel {
    let memory = KvMemory::allocate(&layout, blocks);
    DraftModel::new(Box::new(HashForward::new(layout, memory, VOCAB, CONTEXT)), chunk_tokens)
}
