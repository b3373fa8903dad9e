//! How sure a comparison is.

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

/// 97.5 % quantiles of Student's t, by degrees of freedom from 1.
const T: [f64; 15] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
];
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
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let half = match logs.len() {
            0 => return None,
            // One pair says nothing of its chance.
            1 => f64::INFINITY,
            pairs => {
                let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
                let t = T.get(pairs - 2).copied().unwrap_or(2.0);
                (t * (variance / count).sqrt()).max(RESOLUTION)
            }
        };
        let (low, high) = ((mean - half).exp(), (mean + half).exp().min(f64::MAX));
        Some(Self { ratio: mean.exp(), low, high, pairs: logs.len() })
    }
}
