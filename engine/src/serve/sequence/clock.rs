//! Where a sequence's time goes.

use std::time::Instant;

use crate::serve::SequenceTiming;

pub(super) struct Clock {
    pub(super) submitted: Instant,
    pub(super) started: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

impl Clock {
    pub(super) fn timing(&self, now: Instant) -> SequenceTiming {
        let started = self.started.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        let micros = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        SequenceTiming {
            queue_us: micros(self.submitted, started),
            prefill_us: micros(started, first_token),
            decode_us: micros(first_token, now),
        }
    }
}
