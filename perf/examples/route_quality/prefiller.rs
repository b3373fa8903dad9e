//! A prefill worker: one prompt after the other.

use std::collections::VecDeque;

use crate::{
    cache::{Lru, cached_tokens},
    trace::Request,
};

pub(crate) struct Prefiller {
    pub(crate) cache: Lru,
    pub(crate) queue: VecDeque<usize>,
    /// The request being computed, and what it takes.
    pub(crate) current: Option<(usize, f64)>,
}

impl Prefiller {
    pub(crate) fn new(cache: Lru) -> Self {
        Self { cache, queue: VecDeque::new(), current: None }
    }

    /// Tokens of the prompts that wait, without what is cached of them.
    pub(crate) fn waiting_tokens(&self, requests: &[Request]) -> u64 {
        let new_tokens = |&index: &usize| {
            let request = &requests[index];
            let cached = cached_tokens(self.cache.present(&request.blocks), request.prompt_tokens);
            request.prompt_tokens - cached
        };
        self.queue.iter().chain(self.current.as_ref().map(|(index, _)| index)).map(new_tokens).sum()
    }
}
