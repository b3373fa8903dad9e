//! How much came lately: sums that fade.

use super::Ms;

/// What is older than this hardly counts.
const WINDOW_MS: Ms = 60_000.0;

/// Prompts that were sent somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    requests: f64,
    compute_ms: f64,
    at: Ms,
}

impl Recent {
    /// One more, which takes `compute_ms` to compute.
    pub fn placed(&mut self, compute_ms: Ms, now: Ms) {
        let keep = self.keep(now);
        self.requests = self.requests * keep + 1.0;
        self.compute_ms = self.compute_ms * keep + compute_ms;
        self.at = self.at.max(now);
    }

    /// Requests a millisecond, and how many workers would be busy with them all the time.
    #[must_use]
    pub fn rates(&self, now: Ms) -> (f64, f64) {
        let share = self.keep(now) / WINDOW_MS;
        (self.requests * share, self.compute_ms * share)
    }

    fn keep(&self, now: Ms) -> f64 {
        (-(now - self.at).max(0.0) / WINDOW_MS).exp()
    }
}
