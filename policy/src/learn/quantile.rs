//! Running quantiles in bounded memory: a histogram with four buckets per octave, in which old values fade.

/// Buckets for each doubling: a quantile is exact to 9 % either way.
const PER_OCTAVE: f64 = 4.0;
const LEAST_LOG2: f64 = -8.0;
const BUCKETS: usize = 128;
/// Once it has so many, all counts are halved: what is older than some thousand values hardly counts.
const MOST_COUNT: f64 = 2_048.0;

/// A distribution of positive numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    counts: Box<[f32; BUCKETS]>,
    total: f64,
    sum: f64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { counts: Box::new([0.0; BUCKETS]), total: 0.0, sum: 0.0 }
    }
}

impl Quantiles {
    /// Adds a value; what is not a number is ignored, what is out of range (1/256 to 16 million) counts as its end.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if self.total >= MOST_COUNT {
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
            self.total /= 2.0;
            self.sum /= 2.0;
        }
        let value = value.clamp(LEAST_LOG2.exp2(), 16e6);
        self.counts[bucket(value)] += 1.0;
        self.total += 1.0;
        self.sum += value;
    }

    /// How many values there are, faded ones in part.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.total
    }

    /// Their mean; `None` without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.sum / self.total)
    }

    /// The value below which a share of `q` lies; `None` without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let mut left = q.clamp(0.0, 1.0) * self.total;
        let mut last = None;
        for (index, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            last = Some(middle(index));
            left -= f64::from(count);
            if left <= 0.0 {
                break;
            }
        }
        last
    }
}

fn bucket(value: f64) -> usize {
    (((value.log2() - LEAST_LOG2) * PER_OCTAVE) as usize).min(BUCKETS - 1)
}

fn middle(index: usize) -> f64 {
    ((index as f64 + 0.5) / PER_OCTAVE + LEAST_LOG2).exp2()
}
