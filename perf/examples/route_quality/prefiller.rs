//! A prefill worker: one prompt after the other.

use std::collections::VecDeque;

use crate::cache::Lru;

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
}
