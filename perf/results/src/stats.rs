use serde::{Deserialize, Serialize};

/// Samples in ascending order, without NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sorted(Vec<f64>);

/// What a set of samples comes to. The unit is that of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// How many samples there are.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the samples themselves (divided by their number, as numpy does by default).
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Sorted {
    /// Sorts; what is not a number is left out.
    pub fn new(mut samples: Vec<f64>) -> Self {
        samples.retain(|sample| !sample.is_nan());
        samples.sort_unstable_by(f64::total_cmp);
        Self(samples)
    }

    /// The samples, smallest first.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// The value below which `share` (0 to 1) of the samples lie, by linear interpolation between the two nearest ranks: the
    /// rank is `share × (count − 1)`, as numpy's default. None without samples.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let rank = share.clamp(0.0, 1.0) * last as f64;
        let (low, high) = (self.0[rank.floor() as usize], self.0[rank.ceil() as usize]);
        Some(low + (high - low) * rank.fract())
    }

    /// All figures; none without samples.
    pub fn stats(&self) -> Option<Stats> {
        let (&min, &max) = (self.0.first()?, self.0.last()?);
        let count = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / count;
        let variance = self.0.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count;
        Some(Stats {
            count: self.0.len() as u64,
            mean,
            std: variance.sqrt(),
            min,
            max,
            p50: self.percentile(0.50)?,
            p90: self.percentile(0.90)?,
            p95: self.percentile(0.95)?,
            p99: self.percentile(0.99)?,
        })
    }
}

/// How many samples a percentile needs: with fewer, the chance that all of them lie below the true percentile is over 5 %, and
/// not even the largest says anything about it. Solves `share^n = 0.05` (p90: 29, p95: 59, p99: 299).
pub fn samples_needed(share: f64) -> u64 {
    (0.05_f64.ln() / share.ln()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpy_s() {
        // numpy.percentile([15, 20, 35, 40, 50], [40, 50, 90, 99]) is [29, 35, 46, 49.6]; numpy.std of it is 12.884…
        let sorted = Sorted::new(vec![50.0, 15.0, 40.0, 20.0, 35.0]);
        for (share, expected) in
            [(0.4, 29.0), (0.5, 35.0), (0.9, 46.0), (0.99, 49.6), (0.0, 15.0), (1.0, 50.0)]
        {
            let found = sorted.percentile(share).expect("there are samples");
            assert!((found - expected).abs() < 1e-9, "{share}: {found} is not {expected}");
        }
        let stats = sorted.stats().expect("there are samples");
        assert_eq!((stats.count, stats.mean, stats.min, stats.max), (5, 32.0, 15.0, 50.0));
        assert!((stats.std - 12.884_098_726_725_126).abs() < 1e-9, "{}", stats.std);
    }

    #[test]
    fn no_samples_have_no_figures() {
        assert_eq!(Sorted::new(vec![f64::NAN]).stats(), None);
        assert_eq!(Sorted::default().percentile(0.5), None);
    }

    #[test]
    fn a_single_sample_is_all_its_percentiles() {
        let stats = Sorted::new(vec![7.0]).stats().expect("there is a sample");
        assert_eq!((stats.p50, stats.p99, stats.std), (7.0, 7.0, 0.0));
    }

    #[test]
    fn rare_events_need_many_samples() {
        assert_eq!([0.5, 0.9, 0.95, 0.99].map(samples_needed), [5, 29, 59, 299]);
    }
}
