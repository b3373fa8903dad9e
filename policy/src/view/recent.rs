//! How much came lately: sums that fade.

use super::Ms;

/// What is older than this hardly counts.
const WINDOW_MS: Ms = 60_000.0;

/// What is older than this hardly counts where others' share is guessed.
const SHARE_WINDOW_MS: Ms = 10_000.0;
/// More others than that are not believed in.
const MOST_TRAFFIC: f64 = 64.0;

/// How much of what workers have is this scheduler's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    own: f64,
    others: f64,
    at: Ms,
}

impl Traffic {
    /// A worker has so many requests of this scheduler, and so many of others.
    pub fn seen(&mut self, own: u32, others: u32, now: Ms) {
        let keep = (-(now - self.at).max(0.0) / SHARE_WINDOW_MS).exp();
        self.own = self.own * keep + f64::from(own);
        self.others = self.others * keep + f64::from(others);
        self.at = self.at.max(now);
    }

    /// All traffic by this scheduler's own: 1 when there is no other.
    #[must_use]
    pub fn factor(&self) -> f64 {
        if self.own <= 0.0 { 1.0 } else { (1.0 + self.others / self.own).min(MOST_TRAFFIC) }
    }
}

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

    /// Requests a millisecond, if all traffic is `factor` times this, and how many workers would be busy with them all the time.
    #[must_use]
    pub fn rates(&self, factor: f64, now: Ms) -> (f64, f64) {
        let share = factor * self.keep(now) / WINDOW_MS;
        (self.requests * share, self.compute_ms * share)
    }

    fn keep(&self, now: Ms) -> f64 {
        (-(now - self.at).max(0.0) / WINDOW_MS).exp()
    }
}
