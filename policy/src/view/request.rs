//! What a decision needs to know of a request.

use serde::{Deserialize, Serialize};

use super::Ms;

/// Tokens of a prompt's beginning that a worker has, by where it has them. The parts do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// In the memory that it computes from.
    pub device_tokens: u32,
    /// After those: in host memory.
    pub host_tokens: u32,
    /// After those: on disk.
    pub disk_tokens: u32,
}

impl Cached {
    /// Cached where it computes, and nowhere else.
    #[must_use]
    pub fn device(device_tokens: u32) -> Self {
        Self { device_tokens, ..Self::default() }
    }

    /// In all tiers.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        u64::from(self.device_tokens) + u64::from(self.host_tokens) + u64::from(self.disk_tokens)
    }
}

/// What a request was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Time to first token.
    pub ttft_ms: Option<Ms>,
    /// Time per output token after it.
    pub tpot_ms: Option<Ms>,
}

/// A request to be placed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestView<'a> {
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// Tokens that it may generate at most.
    pub max_tokens: u64,
    /// Tokens that it will probably generate.
    pub expected_output_tokens: f64,
    /// Bytes of one token's keys and values, over all layers.
    pub kv_bytes_per_token: f64,
    /// What each worker has of the prompt, by worker; workers beyond its end have nothing.
    pub cached: &'a [Cached],
    /// The adapter that computes it beside the model.
    pub adapter: Option<&'a str>,
    /// The worker that served its session last.
    pub session_worker: Option<usize>,
    /// The ways by which workers can be reached for it, a bit each; 0: all.
    pub ways: u8,
    /// Labels that a worker must have, such as those of a header.
    pub labels: &'a [(&'a str, &'a str)],
    /// The only workers that a gateway allows; empty: all.
    pub subset: &'a [usize],
    /// Workers that have failed it already.
    pub tried: &'a [usize],
    /// What it was promised.
    pub objective: Objective,
    /// Drawn by the caller: where a decision is a matter of chance, this is the chance.
    pub dice: u64,
}

impl RequestView<'_> {
    /// What `worker` has of the prompt, at most all of it.
    #[must_use]
    pub fn cached_at(&self, worker: usize) -> Cached {
        let cached = self.cached.get(worker).copied().unwrap_or_default();
        // The last token is always computed: its output is the first token.
        let mut left = self.prompt_tokens.saturating_sub(1);
        let mut take = |tokens: u32| {
            let taken = u64::from(tokens).min(left);
            left -= taken;
            taken as u32
        };
        Cached {
            device_tokens: take(cached.device_tokens),
            host_tokens: take(cached.host_tokens),
            disk_tokens: take(cached.disk_tokens),
        }
    }

    /// KV tokens that it will probably occupy at its end.
    #[must_use]
    pub fn growth_tokens(&self) -> u64 {
        self.prompt_tokens + (self.expected_output_tokens.max(1.0) as u64).min(self.max_tokens.max(1))
    }
}
