//! A transfer from its receiver's point of view.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::CheckedManifest;
use crate::TransferError;
use crate::checksum::first_difference;
use crate::ids::TransferKey;
use crate::latch::{Latch, Quiesced};
use crate::node::NodeInner;
use crate::ticket::Ticket;

/// Payload up to this is hashed on the waiting task, more on a blocking thread.
const INLINE_HASH_BYTES: u64 = 4 << 20;

/// A transfer that arrived whole and passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Payload bytes.
    pub bytes: u64,
    /// Writes that carried them.
    pub writes: u32,
    /// From `expect` to the last write or the manifest, whichever came later.
    pub duration: Duration,
}

/// Everything is here; hashes are not compared yet.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Of each sender.
    pub(crate) manifests: Vec<CheckedManifest>,
    pub(crate) duration: Duration,
}

/// What the table and the owner of a transfer share.
#[derive(Debug)]
pub(crate) struct IncomingCell {
    pub(crate) key: TransferKey,
    pub(crate) blocks: Box<[u32]>,
    pub(crate) quiet: Arc<Latch>,
    outcome: Mutex<Option<Result<Arrival, TransferError>>>,
    settled: Notify,
}

impl IncomingCell {
    pub(crate) fn new(key: TransferKey, blocks: &[u32]) -> Self {
        Self {
            key,
            blocks: blocks.into(),
            quiet: Arc::default(),
            outcome: Mutex::default(),
            settled: Notify::new(),
        }
    }

    /// Called once by the table.
    pub(crate) fn settle(&self, outcome: Result<Arrival, TransferError>) {
        let before = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).replace(outcome);
        debug_assert!(before.is_none(), "a transfer ends once");
        self.settled.notify_waiters();
    }

    fn outcome(&self) -> Option<Result<Arrival, TransferError>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It ended well.
    pub(crate) fn is_received(&self) -> bool {
        self.outcome().is_some_and(|outcome| outcome.is_ok())
    }

    pub(crate) async fn settled(&self) -> Result<Arrival, TransferError> {
        loop {
            let settled = self.settled.notified();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            settled.await;
        }
    }
}

/// A transfer that this node expects; made by [`TransferNode::expect`](crate::TransferNode::expect).
///
/// The destination blocks belong to the transfer until [`wait`](Self::wait) returned `Ok`, or the [`Quiesced`] of
/// [`abort`](Self::abort) resolved. Dropping it aborts: then nobody can tell its former owner when the blocks are quiet,
/// so either abort explicitly or have given the lease to [`hold`](Self::hold). Blocks that are not quiet yet cannot be
/// given to another transfer by mistake: `expect` refuses them.
pub struct Incoming {
    node: Arc<NodeInner>,
    cell: Arc<IncomingCell>,
    ticket: Ticket,
    verdict: Option<Result<Received, TransferError>>,
}

impl Incoming {
    pub(crate) fn new(node: Arc<NodeInner>, cell: Arc<IncomingCell>, ticket: Ticket) -> Self {
        Self { node, cell, ticket, verdict: None }
    }

    /// What the sender needs; opaque, to be carried to it by any way.
    #[must_use]
    pub fn ticket(&self) -> Vec<u8> {
        self.ticket.encode()
    }

    /// The transfer, as its receiver names it.
    #[cfg(test)]
    pub(crate) fn key(&self) -> TransferKey {
        self.cell.key
    }

    /// Keeps `guard` (the lease of the blocks) until no peer can write them: until success, or quiescence after a failure.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.cell.quiet.hold(Box::new(guard));
    }

    /// Renews the lease: the transfer expires so long from now. `false` when it is over already.
    ///
    /// Whoever waits for long (for a prefill worker that is busy) renews a short lease rather than taking a long one: then
    /// the blocks of a waiter that is stuck come back.
    #[must_use = "a lease that is over is not renewed"]
    pub fn renew(&self, expires_in: Duration) -> bool {
        self.node.receiver().renew(self.cell.key, expires_in)
    }

    /// Waits until the transfer is complete and checked, or failed. Later calls give the same answer.
    ///
    /// # Errors
    /// See [`TransferError`]. The blocks are then fenced: [`abort`](Self::abort) says when they may be reused.
    ///
    /// # Cancel safety
    /// Nothing is lost: call it again.
    pub async fn wait(&mut self) -> Result<Received, TransferError> {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        let verdict = match self.cell.settled().await {
            Ok(arrival) => self.verify(arrival).await,
            Err(error) => Err(error),
        };
        self.verdict.insert(verdict).clone()
    }

    /// Gives the transfer up, if it is not over, and says when its blocks are safe.
    pub fn abort(self) -> Quiesced {
        Quiesced(self.cell.quiet.clone())
    }

    async fn verify(&self, arrival: Arrival) -> Result<Received, TransferError> {
        let Arrival { manifests, duration } = arrival;
        let received = Received {
            bytes: manifests.iter().map(|manifest| manifest.bytes).sum(),
            writes: manifests.iter().map(|manifest| manifest.writes.writes).sum(),
            duration,
        };
        let hashed_bytes: u64 =
            manifests.iter().map(CheckedManifest::hashed_bytes).fold(0, u64::saturating_add);
        let (node, cell, tokens) = (self.node.clone(), self.cell.clone(), self.ticket.tokens);
        let compare = move || {
            manifests
                .iter()
                .find_map(|manifest| first_difference(node.pool(), &cell.blocks, tokens, &manifest.hashed))
        };
        let difference = if hashed_bytes <= INLINE_HASH_BYTES {
            compare()
        } else {
            tokio::task::spawn_blocking(compare).await.map_err(|_| TransferError::ShuttingDown)?
        };
        let counters = self.node.counters();
        match difference {
            None => {
                counters.incoming_completed.add(1);
                counters.bytes_received.add(received.bytes);
                Ok(received)
            }
            Some((layer, token)) => {
                counters.incoming_failed.add(1);
                counters.checksum_failures.add(1);
                let index = token / self.node.geometry().layout.block_tokens;
                Err(TransferError::Checksum { layer, block: self.cell.blocks[index as usize], token })
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.node.abort_incoming(self.cell.key);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("key", &self.cell.key)
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}
