use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Pair, student};
use crate::{Better, Metric};

/// The confidence of intervals, two-sided.
const CONFIDENCE: f64 = 0.95;

/// The chance with which the smallest visible effect would have been seen.
const POWER: f64 = 0.80;

/// What the pairs say about one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Which.
    pub metric: Metric,
    /// A's geometric mean over the pairs, in the metric's unit.
    pub a: f64,
    /// B's.
    pub b: f64,
    /// B ÷ A; absent if a value was zero, of which there is no ratio.
    pub ratio: Option<Interval>,
    /// The smallest change that these pairs would have shown in four of five cases: 0.05 is 5 % up or down.
    pub smallest_visible: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
}

/// A ratio and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The best estimate.
    pub geometric_mean: f64,
    /// The true ratio is below this in one case of forty.
    pub low: f64,
    /// And above this in one of forty.
    pub high: f64,
}

/// What follows for B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is better than A: the interval excludes 1.
    Better,
    /// It is worse than A: the interval excludes 1.
    Worse,
    /// No difference was seen.
    NoDifference,
    /// Nothing can be said.
    Unknown,
}

impl Effect {
    /// What `pairs` (two at least) say of `metric`; none if some run has no value.
    pub(super) fn of(metric: Metric, pairs: &[Pair]) -> Option<Self> {
        let of = |pair: &Pair| Some((metric.of(&pair.a.summary)?, metric.of(&pair.b.summary)?));
        let values: Vec<(f64, f64)> = pairs.iter().map(of).collect::<Option<_>>()?;
        if values.iter().any(|&(a, b)| a <= 0.0 || b <= 0.0) {
            let mean =
                |pick: fn(&(f64, f64)) -> f64| values.iter().map(pick).sum::<f64>() / values.len() as f64;
            let (a, b) = (mean(|pair| pair.0), mean(|pair| pair.1));
            return Some(Self {
                metric,
                a,
                b,
                ratio: None,
                smallest_visible: None,
                verdict: Verdict::Unknown,
            });
        }
        let logs: Vec<f64> = values.iter().map(|(a, b)| (b / a).ln()).collect();
        let (ratio, smallest_visible) = paired(&logs);
        let geometric = |pick: fn(&(f64, f64)) -> f64| {
            (values.iter().map(|pair| pick(pair).ln()).sum::<f64>() / values.len() as f64).exp()
        };
        Some(Self {
            metric,
            a: geometric(|pair| pair.0),
            b: geometric(|pair| pair.1),
            verdict: ratio.verdict(metric.better()),
            ratio: Some(ratio),
            smallest_visible: Some(smallest_visible),
        })
    }
}

/// The paired t interval of logarithms of ratios, and the smallest visible change.
///
/// Logarithms, because what disturbs a run stretches its times by a factor, and because B ÷ A and A ÷ B must say the same;
/// Student's t, because the spread is estimated from the same few pairs.
pub(super) fn paired(logs: &[f64]) -> (Interval, f64) {
    let count = logs.len() as f64;
    let degrees = logs.len() as u32 - 1;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / f64::from(degrees);
    let error = (variance / count).sqrt();
    let t = student::quantile(f64::midpoint(1.0, CONFIDENCE), degrees);
    let half = t * error;
    let interval =
        Interval { geometric_mean: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() };
    (interval, ((t + student::quantile(POWER, degrees)) * error).exp() - 1.0)
}

impl Interval {
    /// Of the true ratio, by the logarithms of ratios that were measured; none of fewer than two, which say nothing of chance.
    pub fn of_log_ratios(logs: &[f64]) -> Option<Self> {
        (logs.len() > 1).then(|| paired(logs).0)
    }

    fn verdict(self, better: Better) -> Verdict {
        match (self.high < 1.0, self.low > 1.0, better) {
            (true, _, Better::Lower) | (_, true, Better::Higher) => Verdict::Better,
            (true, _, Better::Higher) | (_, true, Better::Lower) => Verdict::Worse,
            _ => Verdict::NoDifference,
        }
    }
}

impl fmt::Display for Effect {
    /// A sentence about B.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric.name();
        let (Some(ratio), Some(visible)) = (self.ratio, self.smallest_visible) else {
            return write!(out, "{name}: zero in some run, so there is no ratio");
        };
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let (low, high) = (percent(ratio.low), percent(ratio.high));
        match self.verdict {
            Verdict::Better | Verdict::Worse => {
                let change = percent(ratio.geometric_mean);
                let word = if self.verdict == Verdict::Better { "better" } else { "worse" };
                write!(out, "{name}: B is {word}, {change:+.1} % (95 % interval {low:+.1} to {high:+.1} %)")
            }
            Verdict::NoDifference | Verdict::Unknown => write!(
                out,
                "{name}: no difference seen (95 % interval {low:+.1} to {high:+.1} %); one of {:.1} % would have been seen",
                visible * 100.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_textbook_s() {
        // Logs 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / √3, t(0.975, 2) = 4.302653.
        let (interval, visible) = paired(&[0.1, 0.2, 0.3]);
        let half = 4.302_653 * 0.1 / 3.0_f64.sqrt();
        assert!((interval.geometric_mean.ln() - 0.2).abs() < 1e-12);
        assert!((interval.low.ln() - (0.2 - half)).abs() < 1e-6, "{interval:?}");
        assert!((interval.high.ln() - (0.2 + half)).abs() < 1e-6, "{interval:?}");
        // t(0.8, 2) = 1.060660.
        assert!(((visible + 1.0).ln() - (4.302_653 + 1.060_660) * 0.1 / 3.0_f64.sqrt()).abs() < 1e-6);
    }

    /// Draws of a normal distribution, by a generator of our own so that each run draws the same.
    struct Normal(u64);

    impl Normal {
        fn uniform(&mut self) -> f64 {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn draw(&mut self) -> f64 {
            (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
        }
    }

    #[test]
    fn a_system_compared_with_itself_is_the_same_in_95_of_100_cases() {
        for pairs in [3, 8, 20] {
            let mut normal = Normal(pairs);
            let trials = 4_000;
            let contains = (0..trials).filter(|_| {
                let logs: Vec<f64> = (0..pairs).map(|_| 0.05 * normal.draw()).collect();
                let (interval, _) = paired(&logs);
                interval.low <= 1.0 && 1.0 <= interval.high
            });
            let share = contains.count() as f64 / f64::from(trials);
            // Four standard deviations of a share of 0.95 in 4,000 trials are 0.0138.
            assert!((share - 0.95).abs() < 0.0138, "{pairs} pairs: {share}");
        }
    }

    #[test]
    fn an_effect_of_the_smallest_visible_size_is_seen_in_four_of_five_cases() {
        // The spread is estimated anew each time, so the effect is set from the true one: n = 10, sigma = 0.05.
        let mut normal = Normal(1);
        let (pairs, sigma, trials) = (10_u32, 0.05, 4_000);
        let error = sigma / f64::from(pairs).sqrt();
        let effect = (student::quantile(0.975, 9) + student::quantile(0.8, 9)) * error;
        let seen = (0..trials).filter(|_| {
            let logs: Vec<f64> = (0..pairs).map(|_| effect + sigma * normal.draw()).collect();
            paired(&logs).0.low > 1.0
        });
        let share = seen.count() as f64 / f64::from(trials);
        assert!((0.77..0.84).contains(&share), "{share}");
    }

    #[test]
    fn a_verdict_is_a_sentence() {
        let effect = |geometric_mean: f64, metric: Metric| {
            let ratio = Interval { geometric_mean, low: geometric_mean * 0.95, high: geometric_mean * 1.05 };
            Effect {
                metric,
                a: 100.0,
                b: 100.0 * geometric_mean,
                verdict: ratio.verdict(metric.better()),
                ratio: Some(ratio),
                smallest_visible: Some(0.07),
            }
            .to_string()
        };
        assert_eq!(
            effect(0.8, Metric::TtftP99),
            "TTFT p99: B is better, -20.0 % (95 % interval -24.0 to -16.0 %)"
        );
        assert_eq!(
            effect(0.8, Metric::Goodput),
            "goodput: B is worse, -20.0 % (95 % interval -24.0 to -16.0 %)"
        );
        assert_eq!(
            effect(1.0, Metric::E2eP50),
            "E2E p50: no difference seen (95 % interval -5.0 to +5.0 %); one of 7.0 % would have been seen"
        );
    }
}
