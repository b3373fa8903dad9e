//! Ranges and their weights.

use super::Range;
use crate::random::Stream;

/// More would be a mistake, not a histogram: a bound for memory.
pub(super) const MAX_BINS: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    ranges: Vec<Range>,
    // Sum of the weights up to and with each range.
    cumulative: Vec<f64>,
}

impl Histogram {
    /// What is wrong with it, if anything.
    pub(super) fn try_new(bins: impl IntoIterator<Item = (Range, f64)>) -> Result<Self, String> {
        let (mut ranges, mut cumulative, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (range, weight) in bins {
            sum += weight;
            ranges.push(range);
            cumulative.push(sum);
        }
        match ranges.len() {
            0 => Err("there is no range in it".into()),
            bins if bins > MAX_BINS => Err(format!("there are {bins} ranges in it: at most {MAX_BINS}")),
            _ if sum > 0.0 && f64::is_finite(sum) => Ok(Self { ranges, cumulative }),
            _ => Err("all its weights are 0".into()),
        }
    }

    pub(super) fn draw(&self, stream: &mut Stream) -> Range {
        let sum = self.cumulative.last().copied().unwrap_or_default();
        let at = stream.unit() * sum;
        let place = self.cumulative.partition_point(|&sum| sum <= at);
        self.ranges[place.min(self.ranges.len() - 1)]
    }

    pub(super) fn max(&self) -> f64 {
        self.ranges.iter().map(|range| range.to).fold(0.0, f64::max)
    }
}
