//! The last requests as they came, for a tuner: when, which prompts began alike, and how long answers were. No text, and nothing by which a text could
//! be guessed.
//!
//! # Invariants
//! - A request is kept from its arrival on, whatever becomes of it: those that were refused are load, too.
//! - Memory is bounded ([`Traffic::new`]); the oldest requests are dropped first, and how far back the rest goes is told.
//! - Requests are in order of arrival.

mod cut;
mod ring;
mod rows;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use baton_kv_index::PromptKeys;

use ring::Ring;
use rows::{Ids, Lines};

/// The record of requests.
pub(crate) struct Traffic {
    ring: Mutex<Ring>,
    ids: Ids,
}

/// A request's number in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u64);

/// A request that has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    /// When, ms from any beginning.
    pub(crate) at_ms: f64,
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u64,
    /// By what prompts are known to begin alike.
    pub(crate) keys: Option<&'a PromptKeys>,
    /// Tokens that its answer is expected to have.
    pub(crate) expected_tokens: f64,
}

/// What is kept now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    /// All that came since then is here, ms.
    pub(crate) since_ms: f64,
}

impl Traffic {
    /// Keeps as much as there is room for in `most_bytes`.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { ring: Mutex::new(Ring::new(most_bytes)), ids: Ids::default() }
    }

    /// A request has come. Those that come at once are told in order of their times.
    pub(crate) fn arrived(&self, arrived: &Arrived<'_>) -> Number {
        let entry = ring::Entry::new(arrived);
        Number(self.lock().push(entry))
    }

    /// It has ended, and so many tokens count as its answer.
    pub(crate) fn answered(&self, Number(number): Number, tokens: u64) {
        self.lock().answer(number, tokens);
    }

    /// What is kept.
    pub(crate) fn held(&self) -> Held {
        self.lock().held()
    }

    /// The requests that have come since `since_ms`, and how many they are.
    pub(crate) fn since(self: &Arc<Self>, since_ms: f64) -> (Lines, usize) {
        let numbers = self.lock().since(since_ms);
        let count = usize::try_from(numbers.end - numbers.start).unwrap_or(usize::MAX);
        (Lines::new(self.clone(), numbers), count)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From then until `now_ms`.
pub(crate) fn span(since_ms: f64, now_ms: f64) -> Duration {
    Duration::try_from_secs_f64((now_ms - since_ms) / 1e3).unwrap_or_default()
}

#[cfg(test)]
mod tests;
