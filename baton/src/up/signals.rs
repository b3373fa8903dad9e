//! The signals that ask `up` to stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a program that a signal cut short, as shells count.
pub(crate) const INTERRUPTED: u8 = 130;

/// Whoever may ask `up` to stop, once in order, a second time at once.
///
/// Not [`baton_process::Shutdown`], which ends the process at the second signal: `up` must end its children first.
pub(crate) trait StopRequests {
    /// Returns when it is asked again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn next(&mut self);
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }
}

/// Signals that arrive together are one wish: programs such as timeout(1) signal the process, then its whole group.
const TOGETHER: Duration = Duration::from_millis(25);

impl Signals {
    async fn one(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl StopRequests for Signals {
    async fn next(&mut self) {
        self.one().await;
        while tokio::time::timeout(TOGETHER, self.one()).await.is_ok() {}
    }
}

/// For tests: one item a request. A sender that is gone never asks.
#[cfg(test)]
impl StopRequests for tokio::sync::mpsc::Receiver<()> {
    async fn next(&mut self) {
        if self.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
