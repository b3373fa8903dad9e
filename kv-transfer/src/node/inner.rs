//! What all parts of a node share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::FabricDescription;
use crate::control::{Links, Peers, SendLink};
use crate::engine::{Command, CommandQueue, Sending, Staged, Work};
use crate::fabric::{Capabilities, Rail};
use crate::fetch::{Fetching, OfferTicket, Offers};
use crate::ids::{NodeId, TransferKey};
use crate::layout::Conversion;
use crate::memory::PoolMemory;
use crate::plan::{Cursor, Plan, mean_write_bytes};
use crate::receive::Receiver;
use crate::send::{OpenGuard, Outgoing, OutgoingCell, check_compatible};
use crate::staging::Region;
use crate::stats::{Counters, RailStats};
use crate::ticket::Ticket;
use crate::wire::SMALL_FRAME_BYTES;
use crate::{ChecksumMode, FetchError, KvGeometry, Mismatch, OpenError, TransferConfig, TransferLimits};

/// The shared state of a node; every field is set at start.
#[derive(Debug)]
pub(crate) struct NodeInner {
    pub(super) config: TransferConfig,
    pub(super) id: NodeId,
    pub(super) endpoint: String,
    pub(super) address: Vec<u8>,
    pub(super) capabilities: Capabilities,
    pub(super) rails: Arc<[Rail]>,
    pub(super) pool: PoolMemory,
    pub(super) region: Region,
    pub(super) counters: Arc<Counters>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) peers: Arc<Peers>,
    pub(super) queue: Arc<CommandQueue>,
    pub(super) links: Links,
    pub(super) offers: Offers,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) next_send: AtomicU64,
    /// One permit for each transfer that may be open for sending; returned at quiescence.
    pub(super) outgoing: Arc<Semaphore>,
    /// Set first at shutdown.
    pub(super) closing: CancellationToken,
    /// Set when the data thread ends, however it does.
    pub(super) data_ended: CancellationToken,
}

impl NodeInner {
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn geometry(&self) -> &KvGeometry {
        &self.config.geometry
    }

    pub(crate) fn model(&self) -> &str {
        &self.config.model
    }

    pub(crate) fn checksums(&self) -> ChecksumMode {
        self.config.checksums
    }

    pub(crate) fn limits(&self) -> &TransferLimits {
        &self.config.limits
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn fabric_address(&self) -> &[u8] {
        &self.address
    }

    /// Fabric and provider; peers must use the same.
    pub(crate) fn fabric_name(&self) -> String {
        format!("{}:{}", self.capabilities.name, self.capabilities.provider)
    }

    pub(crate) fn description(&self) -> FabricDescription {
        FabricDescription {
            name: self.capabilities.name,
            provider: self.capabilities.provider.clone(),
            devices: self.rails.iter().map(|rail| rail.device.clone()).collect(),
            control_endpoint: self.endpoint.clone(),
            node_id: self.id.0.to_vec(),
        }
    }

    pub(crate) fn rails(&self) -> Vec<RailStats> {
        let stats = |rail: &Rail| RailStats {
            device: rail.device.clone(),
            bytes: rail.bytes.get(),
            open: rail.open.get() > 0,
        };
        self.rails.iter().map(stats).collect()
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn offers(&self) -> &Offers {
        &self.offers
    }

    pub(crate) fn pool(&self) -> &PoolMemory {
        &self.pool
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(crate) fn queue(&self) -> &CommandQueue {
        &self.queue
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn data_ended(&self) -> &CancellationToken {
        &self.data_ended
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// The longest frame that a sender, or an owner that is read, can have reason to send: every unit of its own hashed.
    pub(crate) fn max_frame_bytes(&self, conversion: &Conversion) -> usize {
        let blocks = self.limits().blocks_per_transfer.min(self.geometry().blocks as usize) as u32;
        let layout = &self.geometry().layout;
        let units = conversion.units(blocks.saturating_mul(layout.block_tokens));
        SMALL_FRAME_BYTES + 8 * layout.layers as usize * units as usize
    }

    /// Opens a decoded ticket; see [`TransferNode::open`](crate::TransferNode::open).
    pub(crate) async fn open(self: &Arc<Self>, ticket: Ticket) -> Result<Outgoing, OpenError> {
        self.check_open()?;
        check_compatible(self, &ticket)?;
        if ticket.node == self.id {
            return Err(OpenError::BadTicket { reason: "it is this node's own".to_owned() });
        }
        let limit = self.limits().outgoing;
        let full = OpenError::Full { what: "transfers", limit };
        let permit = self.outgoing.clone().try_acquire_owned().map_err(|_| full)?;
        let link = self.links.get(self, &ticket.endpoint, ticket.node).await?;
        let revoked = |reason: String| OpenError::Revoked { endpoint: ticket.endpoint.clone(), reason };
        if link.conversion.destination != ticket.geometry {
            return Err(OpenError::BadTicket { reason: "its pool is not that of its node".to_owned() });
        }
        if !link.claim(ticket.key) {
            return Err(revoked("it is open here already".to_owned()));
        }
        let staged = self.staged(&link, &ticket);
        let is_staged = staged.is_some();
        let mut open = self.register(&link, Some(ticket.key), staged);
        open.cell.quiet.hold(Box::new(permit));
        let after = self.limits().handshake;
        match tokio::time::timeout(after, link.attach(ticket.key, ticket.secret, is_staged)).await {
            Ok(Some(Ok(arrivals))) => {
                open.cell.attached(arrivals);
                self.counters.outgoing_started.add(1);
                Ok(Outgoing::new(open, ticket, link.conversion.clone(), is_staged))
            }
            Ok(Some(Err(refused))) => {
                self.queue.send(Command::Refused { id: open.id });
                open.settled = true;
                let what = "transfer slots of the receiver";
                let full = |slots| OpenError::Full { what, limit: slots as usize };
                Err(refused.slots.map_or_else(|| revoked(refused.reason), full))
            }
            Ok(None) => {
                let reason = "the connection ended".to_owned();
                Err(OpenError::Unreachable { endpoint: ticket.endpoint.clone(), reason })
            }
            Err(_) => Err(OpenError::TimedOut { endpoint: ticket.endpoint.clone(), after }),
        }
    }

    /// Starts to read what a decoded ticket offers; see [`TransferNode::fetch`](crate::TransferNode::fetch).
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        ticket: OfferTicket,
        blocks: &[u32],
    ) -> Result<Fetching, FetchError> {
        self.check_open()?;
        let conversion = self.fetchable(&ticket)?;
        let claim = Receiver::claim(&self.receiver, blocks, ticket.tokens)?;
        let limit = self.limits().outgoing;
        let permit = self.outgoing.clone().try_acquire_owned();
        let permit = permit.map_err(|_| OpenError::Full { what: "transfers", limit })?;
        let link = self.links.get(self, &ticket.endpoint, ticket.node).await?;
        if link.conversion.destination != ticket.geometry {
            return Err(OpenError::BadTicket { reason: "its pool is not that of its node".to_owned() }.into());
        }
        let open = self.register(&link, None, None);
        open.cell.quiet.hold(Box::new((permit, claim)));
        let pairs: Vec<(u32, u32)> = ticket.blocks.iter().copied().zip(0..).collect();
        let plan = Plan::new(&conversion, &pairs, blocks, ticket.tokens);
        let work = Work::Tiles(Cursor::new(0..self.geometry().layout.layers, plan.into()));
        // Beyond the bound of pushes: there is one for each transfer, and those are bounded.
        self.queue.push_at_once(Command::Push { id: open.id, work });
        Ok(Fetching::new(open, link, ticket, conversion.into(), blocks))
    }

    fn check_open(&self) -> Result<(), OpenError> {
        if self.closing.is_cancelled() || self.queue.is_closed() {
            return Err(OpenError::ended(self.queue.failure()));
        }
        Ok(())
    }

    /// Compares an offer with this node, before anything is read.
    fn fetchable(&self, ticket: &OfferTicket) -> Result<Conversion, FetchError> {
        let endpoint = ticket.endpoint.clone();
        if ticket.node == self.id {
            return Err(OpenError::BadTicket { reason: "it is this node's own".to_owned() }.into());
        }
        let incompatible = |field: &str, ours: String, theirs: String| {
            let (endpoint, field) = (endpoint.clone(), field.to_owned());
            OpenError::Incompatible { endpoint, field, ours, theirs }
        };
        if self.model() != ticket.model {
            return Err(incompatible("model", self.model().to_owned(), ticket.model.clone()).into());
        }
        let conversion = Conversion::of_pull(ticket.geometry, *self.geometry())
            .map_err(|Mismatch { field, ours, theirs }| incompatible(field, theirs, ours))?;
        let whole = conversion.heads == self.geometry().layout.heads();
        if whole { Ok(conversion) } else { Err(FetchError::Partial { endpoint }) }
    }

    /// Makes the transfer known to the data thread. Before attaching: an abort that overtakes us must find it, or the
    /// receiver would be told that nothing will be written.
    pub(super) fn register(
        self: &Arc<Self>,
        link: &Arc<SendLink>,
        key: Option<TransferKey>,
        staged: Option<Staged>,
    ) -> OpenGuard {
        let id = self.next_send.fetch_add(1, Ordering::Relaxed);
        let cell = Arc::new(OutgoingCell::new(key, link.clone()));
        let sending = Box::new(Sending::new(cell.clone(), link.outbox.clone(), staged));
        self.queue.send(Command::Open { id, sending });
        OpenGuard { node: self.clone(), id, cell, settled: false }
    }

    /// How a transfer is gathered, if its writes would be too short for the fabric as they are.
    fn staged(&self, link: &SendLink, ticket: &Ticket) -> Option<Staged> {
        let below = self.limits().stage_below_bytes.unwrap_or(self.capabilities.stage_below_bytes);
        let ours = self.region;
        if below == 0 || ours.chunks.min(link.region.chunks) == 0 {
            return None;
        }
        let (conversion, theirs) = (&link.conversion, link.region);
        let chunk_bytes = ours.chunk_bytes.min(theirs.chunk_bytes).min(self.capabilities.max_write_bytes);
        let too_short = mean_write_bytes(conversion, &ticket.blocks, ticket.tokens) < below;
        too_short.then(|| Staged::new(conversion.clone(), ticket.tokens, chunk_bytes, theirs)).flatten()
    }

    pub(super) async fn shutdown(&self) {
        self.closing.cancel();
        self.receiver.close(None);
        self.queue.send(Command::Drain);
        let quiesced = async {
            self.receiver.emptied().await;
            let _ = self.outgoing.acquire_many(self.limits().outgoing as u32).await;
        };
        if tokio::time::timeout(self.limits().shutdown, quiesced).await.is_err() {
            tracing::warn!(after = ?self.limits().shutdown, "shut down with transfers that are not quiescent");
        }
        self.stop();
        self.tasks.wait().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    pub(super) fn stop(&self) {
        self.closing.cancel();
        self.receiver.close(None);
        self.cancel.cancel();
        self.tasks.close();
        self.queue.send(Command::Stop);
    }
}
