//! The terms of each worker by itself, and of a pair.

mod local;

use super::{
    objective::Promise,
    term::{Term, Terms},
};
use crate::{
    cost::LinkCost,
    view::{FleetView, Ms, Recent, RequestView, WorkerView},
};

/// At full load nothing would ever drain; what is measured of the load is not that exact.
const MOST_UTILISATION: f64 = 0.9;

/// Who comes after a prompt is judged by what came to its worker lately for so much, and for the rest by what comes to the fleet. All by its worker would
/// send long prompts together to one that nobody else wants: better for most, but they would wait for each other.
const OWN_SHARE: f64 = 0.7;

/// What computing costs beside the waiting of those who come next, per ms. What is computed again elsewhere is also kept twice, and pushes out what others
/// would find: with less, prefixes spread and hit rates fall (perf/RESULTS.md); with more, requests wait long for small savings.
const RECOMPUTE_PRICE: f64 = 7.0;

/// A worker with this many requests has half a point of load.
const HALF_LOAD_REQUESTS: f64 = 8.0;

/// Computes terms for one request on one view.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    fleet: &'a FleetView,
    request: &'a RequestView<'a>,
    now: Ms,
    // Requests that wait for each millisecond that an average prefill worker is busy.
    followers_per_ms: f64,
    // Tokens that it will probably generate.
    output: f64,
    promise: Promise,
}

impl<'a> Sides<'a> {
    /// For `request` on `fleet` as it is `now`; `prefill_workers` share the arrivals.
    #[must_use]
    pub fn new(fleet: &'a FleetView, request: &'a RequestView<'a>, prefill_workers: usize, now: Ms) -> Self {
        let share = 1.0 / prefill_workers.max(1) as f64;
        let followers_per_ms = followers_per_ms(&fleet.recent, fleet.traffic.factor(), share, now);
        let output = request.expected_output_tokens.max(1.0).min(request.max_tokens.max(1) as f64);
        let promise = Promise::new(request.objective, output);
        Self { fleet, request, now, followers_per_ms, output, promise }
    }

    fn worker(&self, index: usize) -> &'a WorkerView {
        &self.fleet.workers[index]
    }

    /// Time to compute at `index` what it has not cached.
    #[must_use]
    pub fn compute_ms(&self, index: usize) -> Ms {
        let worker = self.worker(index);
        let cached = self.request.cached_at(index);
        let new_tokens = self.request.prompt_tokens.saturating_sub(cached.tokens());
        worker.costs.prefill.predict(new_tokens, cached.tokens())
            + worker.costs.tiers.fetch_ms(&cached, self.request.kv_bytes_per_token)
    }

    /// Tokens of the prompt that `index` has cached.
    #[must_use]
    pub fn cached_tokens(&self, index: usize) -> u64 {
        self.request.cached_at(index).tokens()
    }

    /// The terms of computing the prompt at prefill worker `index`, which takes it `compute_ms`.
    #[must_use]
    pub fn prefill(&self, index: usize, compute_ms: Ms) -> Terms {
        let worker = self.worker(index);
        let queue = worker.prefill_queue_ms(self.now);
        // Whoever comes before the queue is empty again waits longer by this prompt.
        let own = followers_per_ms(&worker.own.recent, self.fleet.traffic.factor(), 1.0, self.now);
        let followers = (queue + compute_ms) * (OWN_SHARE * own + (1.0 - OWN_SHARE) * self.followers_per_ms);
        let mut terms = self.points(index);
        terms.set(Term::Queue, queue);
        terms.set(Term::Prefill, compute_ms);
        terms.set(Term::PrefillOthers, compute_ms * (followers + RECOMPUTE_PRICE));
        terms
    }

    /// The terms of generating at `index`.
    #[must_use]
    pub fn decode(&self, index: usize) -> Terms {
        let worker = self.worker(index);
        let output = self.output;
        let (others, context) = (worker.sequences(), worker.context_tokens());
        // On average over its life it has half of its output.
        let own_context = self.request.prompt_tokens as f64 + output / 2.0;
        let cost = &worker.costs.decode;
        let added = cost.added_ms(own_context);
        let step = cost.step_ms(others, context) + added;
        let slow = |step| self.promise.slow(self.tpot_ms(worker, step, 0.0));
        let mut terms = Terms::default()
            .with(Term::Admission, self.admission_ms(worker, step, output))
            .with(Term::Decode, output * step)
            // Those who are there have on average half of their output to go.
            .with(Term::DecodeOthers, output / 2.0 * f64::from(others) * added)
            .with(Term::Objective, slow(step))
            .with(Term::ObjectiveOthers, f64::from(others) * (slow(step) - slow(step - added)))
            .with(Term::Load, load_points(worker.sequences()) / 2.0)
            .with(Term::KvUsage, worker.kv_used_share());
        if self.request.session_worker.is_some_and(|session| session != index) {
            terms.set(Term::Session, 1.0);
        }
        if self.request.adapter.is_some_and(|name| !worker.adapters.contains(name)) {
            terms.set(Term::Adapter, 1.0);
        }
        terms
    }

    /// The terms of a pair, of which the prefill worker computes for `compute_ms`.
    #[must_use]
    pub fn pair(&self, prefill: usize, decode: usize, compute_ms: Ms) -> Terms {
        let class = self.fleet.links.class(self.worker(prefill).group, self.worker(decode).group);
        let Some(class) = self.fleet.links.classes().get(class) else { return Terms::default() };
        let transfer = class.cost.transfer_ms(self.transfer_bytes(decode));
        Terms::default()
            .with(Term::Transfer, LinkCost::exposed_ms(transfer, compute_ms))
            .with(Term::Topology, class.distance)
    }

    /// Bytes that decode worker `index` lacks.
    #[must_use]
    pub fn transfer_bytes(&self, index: usize) -> f64 {
        let missing = self.request.prompt_tokens.saturating_sub(self.request.cached_at(index).tokens());
        missing as f64 * self.request.kv_bytes_per_token
    }

    /// All terms of a place.
    #[must_use]
    pub fn all(&self, prefill: Option<usize>, decode: usize) -> Terms {
        let compute_ms = self.compute_ms(prefill.unwrap_or(decode));
        let parts = match prefill {
            Some(index) => [self.prefill(index, compute_ms), self.pair(index, decode, compute_ms)],
            None => [self.local(decode, compute_ms), Terms::default()],
        };
        let mut sum = self.decode(decode);
        for part in parts {
            sum.0.iter_mut().zip(part.0).for_each(|(sum, value)| *sum += value);
        }
        sum.set(Term::Objective, sum.get(Term::Objective) + self.late(sum.ttft_ms()));
        sum
    }

    /// What it counts that the first token is expected after `ttft_ms`; never less for more.
    #[must_use]
    pub fn late(&self, ttft_ms: Ms) -> Ms {
        self.promise.late(ttft_ms)
    }

    // Room comes as others end: in each step every one of them is 1/(tokens to go) nearer to its end.
    fn admission_ms(&self, worker: &WorkerView, step_ms: Ms, output: f64) -> Ms {
        let missing = self.request.growth_tokens().saturating_sub(worker.kv_free_tokens()) as f64;
        if missing <= 0.0 {
            return 0.0;
        }
        let used = (worker.kv_capacity_tokens - worker.kv_free_tokens()).max(1) as f64;
        missing / used * (output / 2.0) * step_ms
    }

    fn points(&self, index: usize) -> Terms {
        let worker = self.worker(index);
        let cached = self.request.cached_at(index).tokens() as f64;
        let requests = worker.own.prefills.max(worker.report.waiting);
        Terms::default()
            .with(Term::Prefix, 1.0 - cached / self.request.prompt_tokens.max(1) as f64)
            .with(Term::Load, load_points(requests) / 2.0)
    }
}

// Requests that wait for each millisecond that a worker is busy, if it gets `share` of what is recent: those that come, and as many again as come until that has drained.
fn followers_per_ms(recent: &Recent, factor: f64, share: f64, now: Ms) -> f64 {
    let (requests_per_ms, busy) = recent.rates(factor, now);
    requests_per_ms * share / (1.0 - (busy * share).min(MOST_UTILISATION))
}

fn load_points(requests: u32) -> f64 {
    f64::from(requests) / (f64::from(requests) + HALF_LOAD_REQUESTS)
}
