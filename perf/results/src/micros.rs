use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds: a time since the start of the run, or a length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// Milliseconds.
    pub fn millis(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// Seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// From `earlier` to this; zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Micros {
    /// Rounded down; 584,000 years at most.
    fn from(time: Duration) -> Self {
        Self(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}
