//! What is let in, what waits, and what is refused at once: a state machine without a clock.
//!
//! - **Growth is reserved** from admission to end: prompt and expected output, also while it is still prefilled or in transfer. So decode memory is never
//!   promised twice, and prompts are not computed for which there would be no room then.
//! - **Refusals come early**: what cannot meet its objective, or finds no room and no place in the queue, is refused with a reason and a time
//!   after which to try again.
//! - **The queue is bounded**, ordered by priority (which grows with waiting, so that nothing starves), then fair between tenants by tokens and weight.
//!   When it is full, the lowest priority goes first, of the tenant that has most in it.
//! - **Hysteresis**: each of prefill and decode closes at a high mark and opens at a low one, and both are looked at before anything is let
//!   in; so overload of one does not become the other's a moment later.
//!
//! Every request that was offered gets exactly one end: refused, shed, expired, or admitted and then finished.

mod ask;
mod gate;
mod queue;

pub use ask::{Ask, Limits, Reason, Refusal, Verdict};
pub use gate::Gate;

use std::collections::HashMap;

use crate::view::Ms;
use queue::Queue;

/// Reservations that have ended fade with this time constant, for `Retry-After`.
const DRAIN_WINDOW_MS: Ms = 10_000.0;
const RETRY_AFTER_MS: (Ms, Ms) = (1_000.0, 60_000.0);

/// Lets requests in.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    capacity_tokens: u64,
    reserved_tokens: u64,
    admitted: HashMap<u64, u64>,
    decode: Gate,
    prefill: Gate,
    queue: Queue,
    drained: f64,
    drained_at: Ms,
}

impl Admission {
    /// With `limits`, for decode workers that hold `capacity_tokens` together.
    #[must_use]
    pub fn new(limits: Limits, capacity_tokens: u64) -> Self {
        Self {
            decode: Gate::new(limits.low, limits.high),
            prefill: Gate::new(limits.low, limits.high),
            queue: Queue::new(limits.queue_requests, limits.aging_ms),
            limits,
            capacity_tokens,
            reserved_tokens: 0,
            admitted: HashMap::new(),
            drained: 0.0,
            drained_at: 0.0,
        }
    }

    /// What it goes by.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Decode workers came or went.
    pub fn set_capacity(&mut self, capacity_tokens: u64) {
        self.capacity_tokens = capacity_tokens;
        self.decode.see(self.pressure());
    }

    /// How long a new prompt would wait for a prefill worker now, at the least.
    pub fn set_prefill_wait(&mut self, wait_ms: Ms) {
        self.prefill.see(wait_ms / self.limits.objective.ttft_ms.unwrap_or(Limits::PREFILL_WAIT_MS));
    }

    /// A request asks to be let in. Besides the verdict on it: another one that had to leave the queue for it.
    pub fn offer(&mut self, ask: Ask, now: Ms) -> (Verdict, Option<(u64, Refusal)>) {
        if self.admitted.contains_key(&ask.id) || self.queue.contains(ask.id) {
            return (Verdict::Refused(self.refusal(Reason::Duplicate, now)), None);
        }
        if let Some(reason) = self.hopeless(&ask) {
            return (Verdict::Refused(self.refusal(reason, now)), None);
        }
        if self.queue.is_empty() && self.has_room(ask.growth_tokens) {
            self.admit(&ask);
            return (Verdict::Admitted, None);
        }
        if let Some(reason) = self.late(&ask, now) {
            return (Verdict::Refused(self.refusal(reason, now)), None);
        }
        let until = now + self.patience_ms(&ask);
        match self.queue.push(ask, now, until) {
            Ok(shed) => {
                let shed = shed.map(|id| (id, self.refusal(Reason::Shed, now)));
                (Verdict::Queued, shed)
            }
            Err(_) => (Verdict::Refused(self.refusal(Reason::QueueFull, now)), None),
        }
    }

    /// The next one that waited and may go now; call it until there is none.
    pub fn next(&mut self, now: Ms) -> Option<Ask> {
        let growth_tokens = self.queue.first(now)?.growth_tokens;
        if !self.has_room(growth_tokens) {
            return None;
        }
        let ask = self.queue.pop(now)?;
        self.admit(&ask);
        Some(ask)
    }

    /// An admitted request ended, or a queued one was given up by its client.
    pub fn finished(&mut self, id: u64, now: Ms) {
        let Some(tokens) = self.admitted.remove(&id) else {
            self.queue.remove(id);
            return;
        };
        self.reserved_tokens -= tokens;
        self.drained = self.drained_now(now) + tokens as f64;
        self.drained_at = now;
        self.decode.see(self.pressure());
    }

    /// Those that have waited for too long; each is told so once.
    pub fn expired(&mut self, now: Ms) -> Vec<(u64, Refusal)> {
        let refusal = self.refusal(Reason::Expired, now);
        self.queue.take_expired(now).into_iter().map(|id| (id, refusal)).collect()
    }

    /// KV tokens that are promised.
    #[must_use]
    pub fn reserved_tokens(&self) -> u64 {
        self.reserved_tokens
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How full prefill and decode are: from 1 on nothing is let in.
    #[must_use]
    pub fn saturation(&self) -> (f64, f64) {
        let decode = if self.capacity_tokens == 0 { 1.0 } else { self.decode.saturation() };
        (self.prefill.saturation(), decode)
    }

    /// Requests that are in.
    #[must_use]
    pub fn admitted(&self) -> usize {
        self.admitted.len()
    }

    fn admit(&mut self, ask: &Ask) {
        self.reserved_tokens += ask.growth_tokens;
        self.admitted.insert(ask.id, ask.growth_tokens);
        self.decode.see(self.pressure());
    }

    // Whatever fits an empty fleet is let into an empty fleet, or it would never run.
    fn has_room(&self, growth_tokens: u64) -> bool {
        let fits = self.reserved_tokens + growth_tokens <= self.capacity_tokens;
        fits && (self.admitted.is_empty() || (self.decode.is_open() && self.prefill.is_open()))
    }

    fn hopeless(&self, ask: &Ask) -> Option<Reason> {
        if self.capacity_tokens == 0 {
            return Some(Reason::NoCapacity);
        }
        if ask.growth_tokens > self.capacity_tokens {
            return Some(Reason::NeverFits);
        }
        let objective = self.limits.promised(&ask.objective);
        if objective.ttft_ms.is_some_and(|ttft| ask.predicted_ttft_ms > ttft) {
            return Some(Reason::WouldMissTtft);
        }
        objective.tpot_ms.is_some_and(|tpot| ask.predicted_tpot_ms > tpot).then_some(Reason::WouldMissTpot)
    }

    // It would have to wait for longer than it can.
    fn late(&self, ask: &Ask, now: Ms) -> Option<Reason> {
        let wait = self.wait_ms(ask.growth_tokens, now)?;
        let has_objective = self.limits.promised(&ask.objective).ttft_ms.is_some();
        (has_objective && wait > self.patience_ms(ask)).then_some(Reason::WouldMissTtft)
    }

    fn patience_ms(&self, ask: &Ask) -> Ms {
        let objective = self.limits.promised(&ask.objective).ttft_ms;
        objective.map_or(self.limits.max_wait_ms, |ttft| {
            (ttft - ask.predicted_ttft_ms).min(self.limits.max_wait_ms)
        })
    }

    fn pressure(&self) -> f64 {
        if self.capacity_tokens == 0 {
            return f64::INFINITY;
        }
        self.reserved_tokens as f64 / self.capacity_tokens as f64
    }

    fn drained_now(&self, now: Ms) -> f64 {
        self.drained * (-(now - self.drained_at).max(0.0) / DRAIN_WINDOW_MS).exp()
    }

    // Until what is ahead and this one would have room, by how fast room came lately; `None` when none came.
    fn wait_ms(&self, growth_tokens: u64, now: Ms) -> Option<Ms> {
        let per_ms = self.drained_now(now) / DRAIN_WINDOW_MS;
        let open_at = self.capacity_tokens as f64 * self.limits.low;
        let ahead = (self.reserved_tokens + self.queue.growth_tokens() + growth_tokens) as f64;
        (per_ms > 0.0).then(|| (ahead - open_at).max(0.0) / per_ms)
    }

    fn refusal(&self, reason: Reason, now: Ms) -> Refusal {
        let wait = self.wait_ms(0, now).unwrap_or(RETRY_AFTER_MS.1);
        Refusal { reason, retry_after_ms: wait.clamp(RETRY_AFTER_MS.0, RETRY_AFTER_MS.1) }
    }
}
