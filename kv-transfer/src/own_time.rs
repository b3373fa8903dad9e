//! Time in which the data thread itself ran: what it waits for others to do, it and its fabric measure in this.
//!
//! A process that was stopped, or got no processor, has not looked: what came meanwhile is still to be taken. So a pause counts
//! for one step, however long it was.

use std::time::Duration;

use tokio::time::Instant;

/// The most that the time from one round to the next counts for; whoever waits in this time looks at least that often.
pub(crate) const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct OwnTime {
    ran: Duration,
    seen: Option<Instant>,
}

impl OwnTime {
    /// Once a round. Who waits for nothing does not ask for the time.
    pub(crate) fn advance(&mut self, needed: bool) {
        if !needed {
            self.seen = None;
            return;
        }
        let now = Instant::now();
        if let Some(before) = self.seen.replace(now) {
            self.ran += (now - before).min(STEP);
        }
    }

    /// As of this round.
    pub(crate) fn ran(&self) -> Duration {
        self.ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_counts_for_a_step_and_time_without_need_for_nothing() {
        let mut time = OwnTime::default();
        let pass = |ms| tokio::time::advance(Duration::from_millis(ms));
        time.advance(true);
        for _ in 0..3 {
            pass(40).await;
            time.advance(true);
        }
        assert_eq!(time.ran(), Duration::from_millis(120));
        pass(60_000).await;
        time.advance(true);
        assert_eq!(time.ran(), Duration::from_millis(120) + STEP, "it was stopped");
        time.advance(false);
        pass(50).await;
        time.advance(true);
        assert_eq!(time.ran(), Duration::from_millis(120) + STEP, "nobody waited");
    }
}
