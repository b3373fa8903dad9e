//! What missing an objective would cost.
//!
//! What counts is how much later than promised something is expected. As estimates are never exact, that begins to grow before the estimate has reached the promise, and grows as
//! fast as the estimate once it is well beyond: the mean of what exceeds the promise, if actual times have a logistic distribution around the expected one. It has no
//! end: where everything is late, what is later still costs more, so no worker is given up for the others' sake.

use crate::view::{Ms, Objective};

/// How sure times to first token are known: their spread is this part of what was promised. In simulations half of the requests came within
/// 0.95 to 1.5 times what was predicted; and who comes next finds a queue that is longer by this prompt, so that lateness has to count before it is near.
const TTFT_SPREAD: f64 = 1.0 / 2.0;
/// Times per token are means over many steps, and are known better.
const TPOT_SPREAD: f64 = 1.0 / 24.0;

/// A millisecond by which the first token is later than promised counts like so many of waiting: rather may so many others, who keep their promise, each wait for one more.
const LATE: f64 = 16.0;
/// The same for tokens after it, of which there are many.
const SLOW: f64 = 8.0;

/// What a request was promised, and what it counts when that is missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    objective: Objective,
    output: f64,
}

impl Promise {
    /// Of a request that will generate about `output` tokens.
    pub(super) fn new(objective: Objective, output: f64) -> Self {
        Self { objective, output }
    }

    /// What it counts that the first token is expected after `ttft_ms`; never less for more.
    pub(super) fn late(&self, ttft_ms: Ms) -> Ms {
        LATE * excess(ttft_ms, self.objective.ttft_ms, TTFT_SPREAD)
    }

    /// What it counts that tokens are expected every `tpot_ms`; never less for more.
    pub(super) fn slow(&self, tpot_ms: Ms) -> Ms {
        SLOW * self.output * excess(tpot_ms, self.objective.tpot_ms, TPOT_SPREAD)
    }
}

/// How much more than `promised_ms` is to be expected of what is estimated at `expected_ms`; 0 where nothing was promised.
fn excess(expected_ms: Ms, promised_ms: Option<Ms>, spread: f64) -> Ms {
    let Some(promised_ms) = promised_ms else { return 0.0 };
    let spread_ms = promised_ms.max(f64::MIN_POSITIVE) * spread;
    let beyond = (expected_ms - promised_ms) / spread_ms;
    // ln(1 + e^x), in the form that can't overflow.
    (expected_ms - promised_ms).max(0.0) + spread_ms * (-beyond.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: f64 = 1.0 / 8.0;
    const BOTH: Objective = Objective { ttft_ms: Some(500.0), tpot_ms: Some(30.0) };

    #[test]
    fn what_is_well_within_counts_nothing_and_what_is_beyond_all_of_it() {
        let check = |expected: f64, exceeds: std::ops::RangeInclusive<f64>| {
            let excess = excess(expected, Some(500.0), SPREAD);
            assert!(exceeds.contains(&excess), "{expected}: {excess}");
        };
        check(0.0, 0.0..=0.05);
        check(250.0, 0.0..=1.5);
        check(400.0, 8.0..=15.0);
        check(500.0, 40.0..=45.0);
        check(1_000.0, 500.0..=500.1);
        check(1e12, 0.99e12..=1e12);
        assert_eq!(excess(1e12, None, SPREAD), 0.0);
    }

    #[test]
    fn every_promise_and_every_estimate_has_a_price() {
        for promised in [0.0, f64::MIN_POSITIVE, 1e-3, 500.0, 1e300] {
            for expected in [0.0, 1e-300, 1.0, 500.0, 1e300] {
                let excess = excess(expected, Some(promised), SPREAD);
                assert!(excess.is_finite() && excess >= 0.0, "{expected} of {promised}: {excess}");
            }
        }
    }

    #[test]
    fn more_time_never_counts_less_and_the_next_millisecond_never_less_than_the_last() {
        let promise = Promise::new(BOTH, 200.0);
        for price in
            [|promise: &Promise, ms| promise.late(ms), |promise: &Promise, ms| promise.slow(ms / 10.0)]
        {
            let prices: Vec<f64> = (0..2_000).map(|ms| price(&promise, f64::from(ms))).collect();
            let steps: Vec<f64> = prices.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(prices.is_sorted());
            assert!(steps.is_sorted_by(|a, b| *b >= a - 1e-6), "{steps:?}");
        }
        let none = Promise::new(Objective::default(), 200.0);
        assert_eq!((none.late(1e9), none.slow(1e9)), (0.0, 0.0));
    }
}
