//! A request that was sent somewhere, until it has ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use baton_policy::view::Placed;
use baton_proto::v1::Account;

use super::{Router, cache::Prompt, queue::Place};
use crate::{epp::Who, traffic::Number};

/// What a request has got, for all its attempts.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) prompt: Arc<Prompt>,
    /// Among those who are let in; `None`: it needs none.
    pub(super) place: Option<Arc<Place>>,
    /// In the record of traffic.
    pub(super) traffic: Option<Number>,
}

/// Where a request goes. What it counts for is taken away when this is dropped.
pub(crate) struct Route {
    /// The decode worker's id.
    pub(crate) decode: String,
    /// Prefill workers' ids, best first; empty: prefill where it decodes.
    pub(crate) prefill: Vec<String>,
    /// Where gateways reach the decode worker, and those who could serve in its place, best first.
    pub(crate) addresses: Vec<String>,
    /// Where its sidecar reaches the prefill workers, best first.
    pub(crate) prefill_addresses: Vec<String>,
    /// Prefill workers that there are.
    pub(crate) prefill_workers: usize,
    /// Whether it was computed where it decodes because that costs less.
    pub(crate) is_local_by_choice: bool,
    pub(super) router: Arc<Router>,
    pub(super) request_id: String,
    pub(super) tenant: Arc<str>,
    pub(super) who: Who,
    pub(super) admitted: Admitted,
    pub(super) placed: Placed,
    /// How long it would wait, by prediction, and what of its prompt would be cached.
    pub(super) waited_ms: f64,
    pub(super) cached_tokens: u64,
    pub(super) began: Instant,
    pub(super) first_token_at: Option<Instant>,
    pub(super) last_token_at: Option<Instant>,
    pub(super) account: Option<Account>,
    pub(super) output_tokens: u64,
    pub(super) is_complete: bool,
    pub(super) is_failed: bool,
}

impl Route {
    /// Its first token came.
    pub(crate) fn first_token(&mut self) {
        if self.first_token_at.is_none() {
            self.first_token_at = Some(Instant::now());
            let now = self.router.now();
            self.router.lock().placer.first_token(&self.placed, now);
        }
    }

    /// So many tokens came.
    pub(crate) fn tokens(&mut self, count: usize) {
        self.output_tokens += count as u64;
        self.last_token_at = Some(Instant::now());
    }

    /// Tokens of its prompt, or about as many.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.placed.prompt_tokens
    }

    /// As it was decided.
    pub(crate) fn predicted_ttft_ms(&self) -> f64 {
        self.placed.ttft_ms
    }

    /// Tokens of its prompt that were thought to be cached where it is computed.
    pub(crate) fn cached_tokens(&self) -> u64 {
        self.cached_tokens
    }

    /// Tokens that came.
    pub(crate) fn output_tokens(&self) -> u64 {
        self.output_tokens
    }

    /// Mean time between two tokens.
    pub(super) fn step_ms(&self) -> Option<f64> {
        let took = self.last_token_at?.checked_duration_since(self.first_token_at?)?;
        (self.output_tokens > 1).then(|| took.as_secs_f64() * 1e3 / (self.output_tokens - 1) as f64)
    }

    /// So many tokens came in all.
    pub(crate) fn counted(&mut self, tokens: u64) {
        self.output_tokens = tokens;
    }

    /// How it was served so far.
    pub(crate) fn account(&mut self, account: &Account) {
        self.account = Some(account.clone());
    }

    /// It came to its end.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// It came to nothing, or to less than it would have.
    pub(crate) fn failed(&mut self) {
        self.is_failed = true;
    }

    /// Tokens that count as its answer: a client that left or saw a stop string has had what was generated; what failed, or was not seen, is taken for
    /// as long as it was thought to be.
    fn offered_tokens(&self) -> u64 {
        match (self.is_failed, self.output_tokens) {
            (false, seen @ 1..) => seen,
            (_, seen) => seen.max(self.placed.growth_tokens - self.placed.prompt_tokens),
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let now = self.router.now();
        let ttft_ms = self.router.lock().settle(self, now);
        if let (Some(traffic), Some(number)) = (&self.router.traffic, self.admitted.traffic) {
            traffic.answered(number, self.offered_tokens());
        }
        if let Some(actual_ms) = ttft_ms {
            let predicted_ms = self.placed.ttft_ms;
            self.router.metrics.first_token(predicted_ms, actual_ms);
            let predicted = Duration::try_from_secs_f64(predicted_ms / 1e3).unwrap_or_default();
            self.router.epp.predicted(&self.who, predicted);
        }
    }
}
