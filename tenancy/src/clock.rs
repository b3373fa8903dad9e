//! What time it is: read in one place, and played in tests.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back: for limits and durations.
    pub instant: Instant,
    /// The calendar's: for expiry dates and the audit log.
    pub wall: SystemTime,
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// A clock that stands until it is moved: for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Now>,
}

impl ManualClock {
    /// Starts at the machine's time.
    pub fn new() -> Self {
        Self { now: Mutex::new(SystemClock.now()) }
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.instant += by;
        now.wall += by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
