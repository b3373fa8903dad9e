//! How sure a comparison is.

use baton_results::Interval;
use serde::Serialize;

use crate::Goodput;

/// A ratio of two goodputs on the same requests, with its 95 % interval over seeds (Student's t of the logarithms).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Geometric mean of the ratios.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Goodputs are found to 2 %, so a ratio of two is known to that at best, however often they agree.
const RESOLUTION: f64 = 0.02;

impl Compared {
    /// `these` by `those`; none without a pair in which both are more than nothing.
    #[must_use]
    pub fn new(these: &[Goodput], those: &[Goodput]) -> Option<Self> {
        let logs: Vec<f64> = these
            .iter()
            .zip(those)
            .filter(|(a, b)| a.per_second > 0.0 && b.per_second > 0.0)
            .map(|(a, b)| (a.per_second / b.per_second).ln())
            .collect();
        let first = logs.first()?;
        // One pair says nothing of its chance.
        let alone = Interval { geometric_mean: first.exp(), low: 0.0, high: f64::MAX };
        let Interval { geometric_mean: ratio, low, high } = Interval::of_log_ratios(&logs).unwrap_or(alone);
        let (low, high) = (low.min(ratio * (-RESOLUTION).exp()), high.max(ratio * RESOLUTION.exp()));
        Some(Self { ratio, low, high: high.min(f64::MAX), pairs: logs.len() })
    }
}
