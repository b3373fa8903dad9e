//! What requests are promised.

use baton_simulator::{Ending, Served};
use serde::Serialize;

/// Service level: a share of the requests meets both times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Objective {
    /// Time to first token, ms.
    pub ttft_ms: f64,
    /// Mean time between the tokens of a request, ms.
    pub tpot_ms: f64,
    /// Share of the requests that must meet both, 0 to 1.
    pub share: f64,
}

impl Default for Objective {
    /// MLPerf's for Llama-3.1-8B: 2 s, 100 ms; 90 % of requests.
    fn default() -> Self {
        Self { ttft_ms: 2_000.0, tpot_ms: 100.0, share: 0.9 }
    }
}

impl Objective {
    /// Share of the requests that met it, 0 to 1.
    #[must_use]
    pub fn attained(&self, served: impl ExactSizeIterator<Item = Served>) -> f64 {
        let all = served.len().max(1);
        served.filter(|served| self.is_met(served)).count() as f64 / all as f64
    }

    /// Whether a request met it. Who was refused did not; who was given up by its client did, if what came was in time.
    #[must_use]
    pub fn is_met(&self, served: &Served) -> bool {
        let is_served = matches!(served.ending, Ending::Complete | Ending::Cancelled);
        is_served
            && match served.ttft_ms {
                Some(ttft) => ttft <= self.ttft_ms && served.tpot_ms.is_none_or(|tpot| tpot <= self.tpot_ms),
                // It left before: only if it need not have had anything yet.
                None => served.ending == Ending::Cancelled && served.total_ms <= self.ttft_ms,
            }
    }
}
