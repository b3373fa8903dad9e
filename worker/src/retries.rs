//! Trying again: how long to wait, and how often to speak of it.

use std::time::Duration;

use tokio::time::sleep;
use tonic::transport::Endpoint;

/// Before joining again; doubled up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What came of trying to reach a registry.
#[derive(Debug)]
pub(crate) struct Retries {
    pause: Duration,
    reason_logged: String,
}

impl Default for Retries {
    fn default() -> Self {
        Self { pause: MIN_PAUSE, reason_logged: String::new() }
    }
}

impl Retries {
    /// It failed, or ended after it had succeeded.
    pub(crate) fn failed(&mut self, registry: &Endpoint, reason: String, had_succeeded: bool) {
        if had_succeeded {
            self.pause = MIN_PAUSE;
        }
        // Once for each reason, however often it is tried.
        if had_succeeded || self.reason_logged != reason {
            tracing::warn!(registry = %registry.uri(), reason, "not registered; trying again");
            self.reason_logged = reason;
        }
    }

    /// Waits, longer each time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn pause(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}
