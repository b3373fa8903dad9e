//! Policies to compare with, from what their authors have published.
//!
//! - Dynamo: <https://docs.nvidia.com/dynamo/components/router/routing-concepts> and `lib/kv-router` of ai-dynamo/dynamo: the lowest of `overlap credit · blocks to
//!   prefill + active decode blocks`, where blocks to prefill are those of active prompts and the uncached ones of this one. With workers apart, the prefill
//!   router uses that, and the decode router counts active blocks alone. Defaults: weight 1, temperature 0.
//! - Mooncake: "Mooncake: a KVCache-centric disaggregated architecture" (FAST '25, arXiv:2407.00079), algorithm 1: the prefill worker with the lowest
//!   predicted time to first token (queue + computing what is not cached there), then the decode worker with the least load. Its estimates are
//!   exact here: it is given the simulation's own coefficients. Fetching a prefix from a third worker is left out, as the simulated cluster has none.

use baton_policy::view::FleetView;

use crate::{cluster::Place, model, trace::BLOCK_TOKENS};

/// Share of a prompt that must be cached for affinity; otherwise the worker with the least to do (the default of SGLang's cache-aware router).
const LEAST_AFFINITY: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    RoundRobin,
    LeastLoaded,
    PrefixAffinity,
    Dynamo,
    Mooncake,
}

/// What a peer knows.
pub(crate) struct Seen<'a> {
    pub(crate) fleet: &'a FleetView,
    pub(crate) prefill: &'a [usize],
    pub(crate) decode: &'a [usize],
    /// Prompt tokens on their way, by worker; cached ones of them are not counted.
    pub(crate) active_tokens: &'a [u64],
    pub(crate) cached: &'a [u64],
    pub(crate) prompt_tokens: u64,
    pub(crate) number: usize,
    pub(crate) now: f64,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::LeastLoaded => "least loaded",
            Self::PrefixAffinity => "prefix affinity",
            Self::Dynamo => "Dynamo's cost",
            Self::Mooncake => "Mooncake's cost",
        }
    }

    pub(crate) fn place(self, seen: &Seen<'_>) -> Place {
        let prefill = match self {
            Self::RoundRobin => seen.prefill[seen.number % seen.prefill.len()],
            Self::LeastLoaded => lowest(seen.prefill, |index| seen.active_tokens[index] as f64),
            Self::PrefixAffinity => {
                let best = lowest(seen.prefill, |index| -(seen.cached[index] as f64));
                // All prompts begin with the same block; that alone is no affinity.
                if seen.cached[best] as f64 >= LEAST_AFFINITY * seen.prompt_tokens as f64 {
                    best
                } else {
                    lowest(seen.prefill, |index| seen.active_tokens[index] as f64)
                }
            }
            Self::Dynamo => lowest(seen.prefill, |index| {
                let to_compute = seen.active_tokens[index] + seen.prompt_tokens - seen.cached[index];
                to_compute as f64 / BLOCK_TOKENS as f64
            }),
            Self::Mooncake => lowest(seen.prefill, |index| {
                let new_tokens = seen.prompt_tokens - seen.cached[index];
                let queue = seen.fleet.workers[index].prefill_queue_ms(seen.now);
                queue + model::PREFILL.predict(new_tokens, seen.cached[index])
            }),
        };
        let decode = match self {
            Self::RoundRobin => seen.decode[seen.number % seen.decode.len()],
            Self::LeastLoaded | Self::PrefixAffinity => {
                lowest(seen.decode, |index| f64::from(seen.fleet.workers[index].sequences()))
            }
            Self::Dynamo => lowest(seen.decode, |index| seen.fleet.workers[index].context_tokens() as f64),
            Self::Mooncake => lowest(seen.decode, |index| {
                let worker = &seen.fleet.workers[index];
                model::DECODE.step_ms(worker.sequences(), worker.context_tokens())
            }),
        };
        let new_tokens = seen.prompt_tokens - seen.cached[prefill];
        let compute_ms = model::PREFILL.predict(new_tokens, seen.cached[prefill]);
        Place { prefill: Some(prefill), decode, compute_ms, ttft_ms: 0.0 }
    }
}

fn lowest(workers: &[usize], cost: impl Fn(usize) -> f64) -> usize {
    workers.iter().copied().min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or_default()
}
