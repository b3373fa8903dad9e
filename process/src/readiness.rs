//! Whether the process would serve a request now, and if not, why.

use tokio::sync::watch;

/// Ready or not, with the reason; clones share the state.
#[derive(Clone, Debug)]
pub struct Readiness {
    // None = ready
    reason: watch::Sender<Option<String>>,
}

impl Readiness {
    /// Not ready yet, because of `reason`.
    pub fn not_yet(reason: impl Into<String>) -> Self {
        Self { reason: watch::Sender::new(Some(reason.into())) }
    }

    /// A request would be served from now on.
    pub fn set_ready(&self) {
        self.reason.send_replace(None);
    }

    /// A request would not be served from now on.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.reason.send_replace(Some(reason.into()));
    }

    /// `Ok` when ready, else why not.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        self.reason.borrow().clone().map_or(Ok(()), Err)
    }

    /// Returns once ready.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_ready(&self) {
        // The sender lives as long as `self`, so the wait ends by readiness alone.
        let _ = self.reason.subscribe().wait_for(Option::is_none).await;
    }
}
