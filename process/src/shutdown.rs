//! Stopping: one token that a signal cancels, and an exit tied to the parent's.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled on the first SIGTERM or SIGINT; a second one ends the process at once.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// One that only [`Shutdown::trigger`] cancels: for tests and embedding.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Watches SIGTERM and SIGINT from a task that lives as long as the process.
    ///
    /// # Errors
    /// When the handlers can't be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = shutdown.token.clone();
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if is_first {
                    token.cancel();
                    tracing::info!("stopping: no new requests; a second signal exits at once");
                }
            }
            tracing::warn!("second signal: exiting without draining");
            std::process::exit(130);
        });
        Ok(shutdown)
    }

    /// Starts the shutdown.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether it has begun.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once it has begun.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    /// A token for a part of the process; it is cancelled with the whole.
    pub fn token(&self) -> CancellationToken {
        self.token.child_token()
    }
}

/// Has the kernel send this process SIGTERM when its parent dies, so that a killed supervisor leaves nobody behind.
///
/// Call it before threads are started: the setting belongs to the thread that the parent forked.
///
/// # Errors
/// When the kernel refuses, or the parent is gone already.
pub fn exit_with_parent(parent_pid: u32) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // The parent may have died before the call above.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(parent_pid) {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("the parent process {parent_pid} is gone")))
    }
}
