//! What came of a request, and what that teaches.

use super::Placer;
use crate::view::{Ms, Placed};

/// How a request ended, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended<'a> {
    /// Whose it was.
    pub tenant: &'a str,
    /// From when it was placed to its first token; none: it never came.
    pub ttft_ms: Option<Ms>,
    /// Tokens of its answer, if that came to its end and was counted.
    pub output_tokens: Option<u64>,
    /// Who computed it, and how.
    pub served: Served,
}

/// What is known of how a request was computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Served {
    /// Nothing that would teach anything.
    Unknown,
    /// Its workers gave an account.
    Told(Account),
    /// By a server that gives none, and without waiting: its first token took as long as its prompt.
    Seen {
        /// Tokens of the prompt that were cached, it is thought.
        cached_tokens: u64,
        /// Mean time between two tokens.
        step_ms: Option<Ms>,
    },
}

/// What a request's workers say of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Account {
    /// Who computed the prompt: an index of the fleet, not always that which was decided.
    pub prefill: usize,
    /// From its first step to its last, with what was computed beside it.
    pub prefill_ms: Ms,
    /// Tokens of the prompt that were cached there.
    pub cached_tokens: u64,
    /// KV blocks that were moved to who generated.
    pub moved: Option<Moved>,
}

/// KV blocks that were moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// How much.
    pub bytes: f64,
    /// Time on the link.
    pub link_ms: Ms,
}

impl Placer {
    /// A request has ended, one way or the other.
    pub fn ended(&mut self, placed: &Placed, ended: &Ended<'_>, now: Ms) {
        if ended.ttft_ms.is_none() {
            self.fleet.prefill_done(placed, now);
        }
        self.fleet.sequence_done(placed);
        match (ended.served, ended.ttft_ms) {
            (Served::Told(account), _) => self.learn(placed, &account),
            (Served::Seen { cached_tokens, step_ms }, Some(ttft_ms)) => {
                self.learn_from_times(placed, cached_tokens, ttft_ms, step_ms);
            }
            (Served::Seen { .. }, None) | (Served::Unknown, _) => {}
        }
        if let Some(tokens) = ended.output_tokens {
            self.learner.outputs.add(ended.tenant, tokens);
        }
        if let Some(actual) = ended.ttft_ms {
            self.learner.first_token(placed.ttft_ms, actual);
        }
        self.refresh_costs();
    }

    fn learn(&mut self, placed: &Placed, account: &Account) {
        let (prefill, decode) = (&self.fleet.workers[account.prefill], placed.decode);
        // What it would have taken alone its worker's steps teach: others may have been computed in the same ones.
        if account.prefill == decode.index && prefill.sequences() > 0 && account.prefill_ms > 0.0 {
            let cached = account.cached_tokens.min(placed.prompt_tokens);
            let alone_ms = prefill.costs.prefill.predict(placed.prompt_tokens - cached, cached);
            self.learner.prompt_beside(alone_ms, account.prefill_ms);
        }
        if let Some(Moved { bytes, link_ms }) = account.moved
            && self.fleet.is_there(decode)
        {
            let to = self.fleet.workers[decode.index].group;
            let class = self.fleet.links.class(prefill.group, to);
            if let Some(link) = self.fleet.links.class_mut(class) {
                let took_ms = link.cost.fixed_ms + link_ms;
                link.cost = self.learner.transferred(class, link.cost, bytes, took_ms);
            }
        }
    }

    fn learn_from_times(&mut self, placed: &Placed, cached_tokens: u64, ttft_ms: Ms, step_ms: Option<Ms>) {
        if !self.fleet.is_there(placed.decode) || placed.prefill != placed.decode {
            return;
        }
        let worker = &mut self.fleet.workers[placed.decode.index];
        let cached = cached_tokens.min(placed.prompt_tokens);
        self.learner.prefilled(&worker.id, placed.prompt_tokens - cached, cached_tokens, ttft_ms);
        // Whoever else was computed then is in that.
        self.learner.prompt_beside(ttft_ms, ttft_ms);
        if let Some(step_ms) = step_ms {
            let (sequences, context) = (worker.sequences().max(1), worker.context_tokens());
            self.learner.stepped(&worker.id, f64::from(sequences), context as f64, step_ms);
        }
        worker.costs = self.learner.costs(&worker.id);
    }
}
