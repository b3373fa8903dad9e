//! The clock that everything here is stamped with.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock. All processes of a machine share it, so what a server on the same machine says it
/// sent can be laid beside what a client saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(nanos_of(ClockId::Monotonic))
    }

    /// How long after `earlier`; nothing if it was before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Stamp {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }
}

impl Sub<Duration> for Stamp {
    type Output = Self;
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(earlier)))
    }
}

/// CPU time of the calling thread so far.
#[must_use]
pub(crate) fn thread_cpu() -> Duration {
    Duration::from_nanos(nanos_of(ClockId::ThreadCPUTime))
}

/// `duration` in nanoseconds, the most there are for what is longer than 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos_of(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
