//! When requests arrive in an open loop: a rate over time, and how irregular the gaps are.

use std::time::Duration;

use crate::random::{Purpose, Stream};

/// More is not a rate that one client can send: 10 million a second.
const MAX_RATE: f64 = 1e7;

/// A part of a [`RateProfile`]: the rate goes evenly from `from` to `to`, in requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateStep {
    /// At its begin.
    pub from: f64,
    /// At its end.
    pub to: f64,
    /// Its length.
    pub over: Duration,
}

/// The rate at which requests arrive, over time.
#[derive(Clone, Debug, PartialEq)]
pub struct RateProfile {
    steps: Vec<RateStep>,
}

/// A rate that cannot be planned with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RateInvalid {
    /// Not a number of requests a second.
    #[error("{0} is not a rate: it must be over 0 and at most 10 million requests a second")]
    OutOfRange(f64),
    /// A part of no length, or none at all.
    #[error("a rate must last: give each part a time over 0")]
    NoTime,
    /// Nothing would ever arrive.
    #[error("a rate that is 0 all the time sends nothing")]
    AllZero,
}

/// How irregular the gaps between arrivals are; their mean is what the rate says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// All gaps alike; the first request at once.
    Constant,
    /// Gamma-distributed gaps. A shape of 1 is a Poisson process, below 1 comes in bursts, over 1 is more even
    /// (what vLLM calls burstiness).
    Gamma {
        /// Over 0.
        shape: f64,
    },
}

impl Spacing {
    /// Arrivals that know nothing of each other.
    pub const POISSON: Self = Self::Gamma { shape: 1.0 };

    // The gap before this arrival, in mean gaps.
    fn gap(self, seed: u64, index: u64) -> f64 {
        match self {
            Self::Constant if index == 0 => 0.0,
            Self::Constant => 1.0,
            Self::Gamma { shape: 1.0 } => Stream::new(seed, Purpose::Arrivals, index).exponential(),
            Self::Gamma { shape } => Stream::new(seed, Purpose::Arrivals, index).gamma(shape),
        }
    }
}

impl RateProfile {
    /// The same rate for ever.
    ///
    /// # Errors
    /// A rate that is not over 0, or too high.
    pub fn constant(rate: f64) -> Result<Self, RateInvalid> {
        Self::try_new([RateStep { from: rate, to: rate, over: Duration::MAX }])
    }

    /// One part after the other; nothing arrives after the last. A rate may be 0 for a while.
    ///
    /// # Errors
    /// A rate below 0 or too high, a part without length, or nothing but zeros.
    pub fn try_new(steps: impl IntoIterator<Item = RateStep>) -> Result<Self, RateInvalid> {
        let steps: Vec<RateStep> = steps.into_iter().collect();
        let rates = || steps.iter().flat_map(|step| [step.from, step.to]);
        if let Some(rate) = rates().find(|rate| !(0.0..=MAX_RATE).contains(rate)) {
            return Err(RateInvalid::OutOfRange(rate));
        }
        if steps.is_empty() || steps.iter().any(|step| step.over.is_zero()) {
            return Err(RateInvalid::NoTime);
        }
        match rates().all(|rate| rate == 0.0) {
            true => Err(RateInvalid::AllZero),
            false => Ok(Self { steps }),
        }
    }

    /// The rate, if it is the same for ever.
    pub fn rate(&self) -> Option<f64> {
        match self.steps.as_slice() {
            [step] if step.from == step.to && step.over == Duration::MAX => Some(step.from),
            _ => None,
        }
    }

    /// When the last part ends; `None` for a rate that goes on for ever.
    pub fn length(&self) -> Option<Duration> {
        let length = self.steps.iter().try_fold(Duration::ZERO, |sum, step| sum.checked_add(step.over));
        length.filter(|&length| length != Duration::MAX)
    }

    /// The times of arrivals, rising; ends with the last part.
    pub(crate) fn arrivals(&self, spacing: Spacing, seed: u64) -> impl Iterator<Item = Duration> {
        // A process of rate 1 in a time of its own, in which so many seconds pass as requests are expected.
        let mut own_time = 0.0;
        let own_times = (0..).map(move |index| {
            own_time += spacing.gap(seed, index);
            own_time
        });
        let mut clock = Clock { steps: self.steps.clone(), expected_before: 0.0, begin: 0.0 };
        // A rate so low that a time cannot be said has no more arrivals.
        own_times.map_while(move |own_time| Duration::try_from_secs_f64(clock.time_of(own_time)?).ok())
    }
}

/// Goes through the steps from own time to time.
struct Clock {
    steps: Vec<RateStep>,
    expected_before: f64,
    begin: f64,
}

impl Clock {
    fn time_of(&mut self, own_time: f64) -> Option<f64> {
        while let Some(step) = self.steps.first() {
            let over = step.over.as_secs_f64();
            let expected = over * (step.from + step.to) / 2.0;
            let into = own_time - self.expected_before;
            if into < expected {
                return Some(self.begin + time_into(step, over, into));
            }
            self.expected_before += expected;
            self.begin += over;
            self.steps.remove(0);
        }
        None
    }
}

/// After which time `expected` requests have come: from·t + (to − from)·t²/(2·over) = expected, solved without cancellation.
fn time_into(step: &RateStep, over: f64, expected: f64) -> f64 {
    if expected == 0.0 {
        return 0.0;
    }
    let slope = (step.to - step.from) / over;
    2.0 * expected / (step.from + (step.from * step.from + 2.0 * slope * expected).max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(profile: &RateProfile, spacing: Spacing, count: usize) -> Vec<f64> {
        profile.arrivals(spacing, 3).take(count).map(|at| at.as_secs_f64()).collect()
    }

    fn step(from: f64, to: f64, seconds: u64) -> RateStep {
        RateStep { from, to, over: Duration::from_secs(seconds) }
    }

    /// Variance of the gaps over the square of their mean.
    fn irregularity(spacing: Spacing) -> f64 {
        let times = times(&RateProfile::constant(10.0).unwrap(), spacing, 50_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.1).abs() < 0.003, "mean gap {mean}");
        gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64 / (mean * mean)
    }

    #[test]
    fn gaps_are_as_irregular_as_their_shape_says() {
        assert!(irregularity(Spacing::Constant) < 1e-9);
        assert!((irregularity(Spacing::POISSON) - 1.0).abs() < 0.05);
        assert!((irregularity(Spacing::Gamma { shape: 0.25 }) - 4.0).abs() < 0.4);
        assert!((irregularity(Spacing::Gamma { shape: 4.0 }) - 0.25).abs() < 0.02);
    }

    #[test]
    fn a_constant_rate_begins_at_once() {
        assert_eq!(times(&RateProfile::constant(4.0).unwrap(), Spacing::Constant, 4), [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn a_ramp_has_its_area_under_every_part() {
        let ramp = RateProfile::try_new([step(0.0, 20.0, 10)]).unwrap();
        let times = times(&ramp, Spacing::Constant, 1000);
        // Request k comes at √k, as the area up to t is t².
        assert_eq!(times.len(), 100);
        for (k, time) in times.iter().enumerate() {
            assert!((time - (k as f64).sqrt()).abs() < 1e-9, "{k}: {time}");
        }
    }

    #[test]
    fn steps_follow_each_other_and_may_pause() {
        let steps =
            RateProfile::try_new([step(2.0, 2.0, 1), step(0.0, 0.0, 5), step(10.0, 10.0, 1)]).unwrap();
        assert_eq!(steps.length(), Some(Duration::from_secs(7)));
        let times = times(&steps, Spacing::Constant, 1000);
        assert_eq!(times.len(), 12);
        assert_eq!(times[..3], [0.0, 0.5, 6.0]);
        let count = steps.arrivals(Spacing::POISSON, 5).filter(|at| at.as_secs() < 6).count();
        assert!(steps.arrivals(Spacing::POISSON, 5).all(|at| at.as_secs() < 7));
        assert!(count < 8, "{count} before the last step");
    }

    #[test]
    fn extreme_rates_end_or_go_on_without_harm() {
        assert!(times(&RateProfile::constant(1e-300).unwrap(), Spacing::POISSON, 3).is_empty());
        assert_eq!(times(&RateProfile::constant(1e7).unwrap(), Spacing::Constant, 3), [0.0, 1e-7, 2e-7]);
        let burst = RateProfile::constant(1.0).unwrap();
        assert_eq!(times(&burst, Spacing::Gamma { shape: 1e-3 }, 1000).len(), 1000);
    }

    #[test]
    fn rates_that_cannot_be_are_refused() {
        assert_eq!(RateProfile::constant(0.0), Err(RateInvalid::AllZero));
        assert_eq!(RateProfile::constant(-1.0), Err(RateInvalid::OutOfRange(-1.0)));
        assert!(RateProfile::constant(f64::NAN).is_err());
        assert!(RateProfile::constant(f64::INFINITY).is_err());
        assert_eq!(RateProfile::try_new([]), Err(RateInvalid::NoTime));
        assert_eq!(RateProfile::try_new([step(1.0, 1.0, 0)]), Err(RateInvalid::NoTime));
        assert_eq!(RateProfile::constant(1.0).unwrap().length(), None);
    }
}
