//! The node: pool, control plane and data plane of one worker process.

mod connect;
mod inner;
mod start;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use connect::Connected;
pub(crate) use inner::NodeInner;
pub(crate) use start::open_fabric;
#[cfg(test)]
pub(crate) use start::{Assembly, assemble};

use crate::fetch::{Fetching, OfferTicket, Offered};
use crate::ids::TransferKey;
use crate::memory::PoolMemory;
use crate::receive::{Expected, Incoming};
use crate::send::Outgoing;
use crate::ticket::Ticket;
use crate::{
    DataPlaneFailed, ExpectError, FetchError, OpenError, RailStats, StartError, TransferConfig, TransferStats,
};

/// What moves the bytes, for logs, registration and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricDescription {
    /// `shm`, `libfabric`, `ucx` or `nixl`.
    pub name: &'static str,
    /// The implementation that was chosen (libfabric's provider, UCX's list of transports, NIXL's backend).
    pub provider: String,
    /// The NICs or interfaces that carry the bytes, where the fabric knows them: libfabric's rails.
    pub devices: Vec<String>,
    /// Where peers dial: `unix:@NAME` or `tcp:IP:PORT`.
    pub control_endpoint: String,
    /// Drawn at random at each start, 16 bytes: who dials has to know it, so that nobody is taken for a former life of itself.
    pub node_id: Vec<u8>,
}

/// One per worker process: a KV pool that peers may write into, and the means to write into theirs. Clones share it.
///
/// Dropping the last clone ends it without waiting; [`shutdown`](Self::shutdown) does so in good order.
#[derive(Clone, Debug)]
pub struct TransferNode(Arc<Handle>);

struct Handle(Arc<NodeInner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferNode").field("endpoint", &self.0.endpoint()).finish_non_exhaustive()
    }
}

impl TransferNode {
    /// Allocates the pool, opens the fabric, binds the control endpoint and starts the data thread.
    ///
    /// # Errors
    /// See [`StartError`]; each says what is missing.
    pub async fn start(config: TransferConfig) -> Result<Self, StartError> {
        start::start(config).await.map(|inner| Self(Arc::new(Handle(inner))))
    }

    /// The KV pool, laid out as the configuration's [`KvGeometry`](crate::KvGeometry) says.
    #[must_use]
    pub fn pool(&self) -> PoolMemory {
        self.inner().pool().clone()
    }

    /// The fabric in use.
    #[must_use]
    pub fn fabric(&self) -> FabricDescription {
        self.inner().description()
    }

    /// Expects a transfer of `tokens` tokens into `blocks`, for `expires_in` from now. The blocks belong to it from here on;
    /// see [`Incoming`].
    ///
    /// # Errors
    /// See [`ExpectError`]. Blocks of a transfer that is live, or over and not quiescent, are refused.
    pub fn expect(&self, blocks: &[u32], tokens: u32, expires_in: Duration) -> Result<Incoming, ExpectError> {
        let node = self.inner();
        let secret = crate::random::number();
        let cell = node.receiver().expect(&Expected { blocks, tokens, secret, expires_in })?;
        let ticket = Ticket {
            endpoint: node.endpoint().to_owned(),
            node: node.id(),
            key: cell.key,
            secret,
            geometry: *node.geometry(),
            model: node.model().to_owned(),
            tokens,
            checksums: node.checksums(),
            blocks: blocks.to_vec(),
            expires_in,
        };
        Ok(Incoming::new(node.clone(), cell, ticket))
    }

    /// Connects to the node of these two facts of its [`fabric`](Self::fabric), ahead of any ticket: exchanges layouts, comes to
    /// the verdict on the pair, and reads some bytes of the peer's that mean nothing, so that whatever the first operation on a
    /// path costs is paid when this returns. The first transfer then finds the connection; so does a further call, which tries
    /// the path once more.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Incompatible`] names the field, and does not change while both live.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection in the making is given up, one that was made is kept.
    pub async fn connect(&self, control_endpoint: &str, node_id: &[u8]) -> Result<Connected, OpenError> {
        self.inner().connect(control_endpoint, node_id).await
    }

    /// Connects to the ticket's receiver (or uses the connection there is), checks that both fit, and attaches.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the transfer if it was attached already; the receiver is told.
    pub async fn open(&self, ticket: &[u8]) -> Result<Outgoing, OpenError> {
        let node = self.inner();
        let ticket = Ticket::decode(ticket, node.limits().blocks_per_transfer)?;
        node.open(ticket).await
    }

    /// Lets peers read `tokens` tokens in `blocks`, for `expires_in` from now: a prefix that this worker has cached. The blocks
    /// stay as they are while it lasts; see [`Offered`].
    ///
    /// # Errors
    /// [`ExpectError`]: blocks that do not go with the tokens or that there are not, or too many offers.
    pub fn offer(&self, blocks: &[u32], tokens: u32, expires_in: Duration) -> Result<Offered, ExpectError> {
        let node = self.inner();
        node.receiver().check(blocks, tokens)?;
        let id = crate::random::number();
        node.offers().insert(id, blocks, tokens, expires_in, node.limits())?;
        node.counters().offers_live.add(1);
        let ticket = OfferTicket {
            endpoint: node.endpoint().to_owned(),
            node: node.id(),
            id,
            geometry: *node.geometry(),
            model: node.model().to_owned(),
            tokens,
            checksums: node.checksums(),
            blocks: blocks.to_vec(),
        };
        Ok(Offered::new(node.clone(), ticket))
    }

    /// Reads what the ticket of an [`offer`](Self::offer) names into `blocks`, which belong to the fetch from here on; see
    /// [`Fetching`]. Layouts are converted; but an owner that has only some of this worker's heads is refused.
    ///
    /// # Errors
    /// See [`FetchError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives it up before anything is read.
    pub async fn fetch(&self, ticket: &[u8], blocks: &[u32]) -> Result<Fetching, FetchError> {
        let node = self.inner();
        let ticket = OfferTicket::decode(ticket, node.limits().blocks_per_transfer)?;
        node.fetch(ticket, blocks).await
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        self.inner().counters().snapshot()
    }

    /// The NICs or interfaces over which bytes go, where the fabric knows them: libfabric's rails.
    #[must_use]
    pub fn rails(&self) -> Vec<RailStats> {
        self.inner().rails()
    }

    /// Resolves when the data plane ended by itself, with the reason: its fabric failed, or something stayed under way that the
    /// fabric could neither end nor tell the end of. Every transfer has failed then, and no other will be taken: the process
    /// should end, and its supervisor start a new one. Never resolves after [`shutdown`](Self::shutdown).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn failed(&self) -> DataPlaneFailed {
        self.inner().data_ended.cancelled().await;
        match self.inner().queue().failure() {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Refuses new transfers, aborts those under way, waits for quiescence (at most `TransferLimits::shutdown`), and ends
    /// all tasks and the data thread. Memory stays mapped while a [`PoolMemory`] is held.
    pub async fn shutdown(&self) {
        self.inner().shutdown().await;
    }

    /// A node whose data plane is driven by a simulation.
    #[cfg(test)]
    pub(crate) fn simulated(inner: Arc<NodeInner>) -> Self {
        Self(Arc::new(Handle(inner)))
    }

    /// As a process does that dies: without a word.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.inner().stop();
    }

    /// Transfers open for sending or fetching: nothing of them may be left in the end.
    #[cfg(test)]
    pub(crate) fn permits_in_use(&self) -> usize {
        self.inner().limits().outgoing - self.inner().outgoing.available_permits()
    }

    fn inner(&self) -> &Arc<NodeInner> {
        &self.0.0
    }
}

impl NodeInner {
    pub(crate) fn abort_incoming(&self, key: TransferKey) {
        self.receiver().abort(key);
    }
}
