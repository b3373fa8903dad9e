//! One server, asked again and again.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    time::{self, MissedTickBehavior},
};

use super::{ScrapeError, ScrapeOptions, board::Slot, fetch::Fetch};
use crate::{
    Endpoint,
    load::{Load, Seen, narrow_query},
    metrics::ScrapeMetrics,
};

/// An unhealthy target is asked at least so often.
const MOST_WAIT: Duration = Duration::from_secs(2);

/// One server's reader.
pub(super) struct Target {
    id: Arc<str>,
    options: ScrapeOptions,
    slot: Arc<Slot>,
    gate: Arc<Semaphore>,
    metrics: ScrapeMetrics,
    fetch: Fetch,
    wide: String,
    narrow: String,
    ask: Ask,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// Everything, to see what there is.
    First,
    /// Only the figures that are read, which must then be these.
    Narrow(Seen),
    /// Everything, as asking for less lost something.
    Everything,
}

impl Target {
    pub(super) fn new(
        endpoint: &Endpoint,
        options: ScrapeOptions,
        slot: Arc<Slot>,
        gate: Arc<Semaphore>,
        metrics: ScrapeMetrics,
    ) -> Self {
        let wide = endpoint.metrics.path.to_string();
        let narrow = format!("{}/?{}", wide.trim_end_matches('/'), narrow_query());
        let fetch = Fetch::new(endpoint.metrics.address, options.most_bytes);
        // A path with a query of its own is taken as it is.
        let ask = if wide.contains('?') { Ask::Everything } else { Ask::First };
        Self { id: endpoint.id.clone(), options, slot, gate, metrics, fetch, wide, narrow, ask }
    }

    pub(super) async fn run(mut self) {
        let every = self.options.every.max(Duration::from_millis(1));
        time::sleep(phase(&self.id, every)).await;
        let mut ticks = time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let failures = self.once().await;
            if let Some(wait) = self.wait(failures) {
                time::sleep(wait).await;
            }
        }
    }

    /// Asks and notes; gives the failures in a row.
    async fn once(&mut self) -> u32 {
        let Ok(_permit) = self.gate.clone().acquire_owned().await else { return 0 };
        let (since, bytes) = (Instant::now(), self.fetch.bytes);
        let outcome = time::timeout(self.options.timeout, self.round()).await;
        let outcome = outcome.unwrap_or(Err(ScrapeError::Timeout));
        let now = Instant::now();
        self.metrics.note(outcome.as_ref().err(), now - since, self.fetch.bytes - bytes);
        let error = outcome.as_ref().err().cloned();
        let failures = self.slot.note(outcome, now, self.options.failures);
        if let Some(error) = error.filter(|_| failures == self.options.failures) {
            let health = self.slot.get().health;
            tracing::warn!(id = %self.id, %error, failures, ?health, "a server's load can't be read");
        }
        failures
    }

    async fn round(&mut self) -> Result<Load, ScrapeError> {
        if let Ask::Narrow(wide) = self.ask {
            match self.fetch.get(&self.narrow).await {
                Ok((load, seen)) if seen.covers(wide) => return Ok(load),
                // Says nothing of what was asked.
                Err(error @ (ScrapeError::Connect(_) | ScrapeError::Broken(_) | ScrapeError::Timeout)) => {
                    return Err(error);
                }
                Ok(_) | Err(_) => self.ask = Ask::Everything,
            }
        }
        let (load, seen) = self.fetch.get(&self.wide).await?;
        if let Ask::First = self.ask {
            self.ask = Ask::Narrow(seen);
        }
        Ok(load)
    }

    /// Before the next tick: what does not answer is asked less often, so that it does not hold places which others need.
    fn wait(&self, failures: u32) -> Option<Duration> {
        let more = failures.checked_sub(self.options.failures)?;
        Some(MOST_WAIT.min(self.options.every.saturating_mul(1 << more.min(16))))
    }
}

/// When in the interval a target has its turn.
fn phase(id: &str, every: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    every.mul_f64((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_spread_over_the_interval() {
        let every = Duration::from_millis(100);
        let mut tenths = [0; 10];
        for at in 0..1_000 {
            tenths[(phase(&format!("server-{at}"), every).as_secs_f64() * 100.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }
}
