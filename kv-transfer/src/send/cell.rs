//! What the owner of an outgoing transfer and the data thread share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::TransferError;
use crate::control::SendLink;
use crate::ids::{PeerId, TransferKey};
use crate::latch::Latch;

/// A transfer that left this node whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Payload bytes.
    pub bytes: u64,
    /// Writes that carried them.
    pub writes: u32,
    /// Speed of the link, as measured so far on all that went over it.
    pub link_bytes_per_second: u64,
}

#[derive(Debug)]
pub(crate) struct OutgoingCell {
    /// The receiver's name for it; `None` when this node reads.
    pub(crate) key: Option<TransferKey>,
    pub(crate) peer: PeerId,
    pub(crate) endpoint: String,
    /// Opens when no write reads the source blocks any more.
    pub(crate) quiet: Arc<Latch>,
    link: Arc<SendLink>,
    /// The slot under which the receiver counts our writes, once it told.
    arrivals: OnceLock<TransferKey>,
    /// Set as soon as the transfer cannot succeed any more, so that pushes stop at once.
    failed: OnceLock<TransferError>,
    outcome: Mutex<Option<Result<Sent, TransferError>>>,
    settled: Notify,
}

impl OutgoingCell {
    pub(crate) fn new(key: Option<TransferKey>, link: Arc<SendLink>) -> Self {
        Self {
            key,
            peer: link.peer,
            endpoint: link.endpoint.clone(),
            quiet: Arc::default(),
            link,
            arrivals: OnceLock::new(),
            failed: OnceLock::new(),
            outcome: Mutex::default(),
            settled: Notify::new(),
        }
    }

    pub(crate) fn attached(&self, arrivals: TransferKey) {
        let _ = self.arrivals.set(arrivals);
    }

    /// What our writes carry; `None` when this node reads.
    pub(crate) fn arrivals(&self) -> Option<TransferKey> {
        self.arrivals.get().copied().or(self.key)
    }

    /// Bytes that a group of layers should have on this link.
    pub(crate) fn group_bytes(&self) -> u64 {
        self.link.speed.group_bytes()
    }

    /// The outcome of a transfer that came to its end.
    pub(crate) fn sent(&self, bytes: u64, writes: u32) -> Sent {
        Sent { bytes, writes, link_bytes_per_second: self.link.speed.bytes_per_second() }
    }

    pub(crate) fn fail(&self, error: TransferError) {
        let _ = self.failed.set(error);
    }

    pub(crate) fn failure(&self) -> Option<&TransferError> {
        self.failed.get()
    }

    /// Called by the data thread: nothing reads the source any more. The first outcome stands.
    pub(crate) fn settle(&self, outcome: Result<Sent, TransferError>) {
        self.quiet.open();
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome);
        self.settled.notify_waiters();
    }

    /// Returns when the manifest is on its way, whatever becomes of this process now.
    pub(crate) async fn announced(&self) {
        self.link.outbox.flushed().await;
    }

    pub(crate) async fn settled(&self) -> Result<Sent, TransferError> {
        loop {
            let settled = self.settled.notified();
            let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(outcome) = outcome {
                return outcome;
            }
            settled.await;
        }
    }
}

impl Drop for OutgoingCell {
    fn drop(&mut self) {
        // Settled, refused or lost with its thread: whichever, nobody can confuse it with a later one now.
        if let Some(key) = self.key {
            self.link.forget(key);
        }
    }
}
