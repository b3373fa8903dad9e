//! Reaching the peers that we write to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;

use super::endpoint::Stream;
use super::peers::{Outbox, write_frames};
use crate::engine::Command;
use crate::fabric::Offer;
use crate::ids::{NodeId, PeerId, TransferKey};
use crate::layout::Conversion;
use crate::node::NodeInner;
use crate::send::LinkSpeed;
use crate::staging::Region;
use crate::wire::{
    Attach, AttachRefused, Body, Confirm, Confirmed, FrameError, GeometryWire, Hello, PROTOCOL, Refused,
    SMALL_FRAME_BYTES, Welcome, encode, read_frame,
};
use crate::{KvGeometry, Mismatch, OpenError};

/// A connected peer that we write to.
#[derive(Debug)]
pub(crate) struct SendLink {
    pub(crate) peer: PeerId,
    pub(crate) endpoint: String,
    pub(crate) outbox: Outbox,
    /// The peer's pool, as it said at the handshake.
    pub(crate) conversion: Arc<Conversion>,
    pub(crate) speed: Arc<LinkSpeed>,
    /// The memory of theirs that we write.
    pub(crate) region: Region,
    transfers: Mutex<Transfers>,
}

#[derive(Debug, Default)]
struct Transfers {
    /// Opened here and not settled: a ticket is opened once.
    open: HashSet<TransferKey>,
    attaching: BTreeMap<TransferKey, oneshot::Sender<Result<TransferKey, AttachRefused>>>,
    /// Reads that wait for the owner's word, by offer; the same offer may be read several times at once.
    confirming: Vec<(u64, oneshot::Sender<Result<Confirmed, String>>)>,
}

/// All links, by peer and incarnation; dialled once however many ask.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<LinkKey, Arc<OnceCell<Arc<SendLink>>>>>);

type LinkKey = (String, NodeId);

impl Links {
    /// The link to the ticket's receiver, dialled if there is none.
    pub(crate) async fn get(
        &self,
        node: &Arc<NodeInner>,
        endpoint: &str,
        target: NodeId,
    ) -> Result<Arc<SendLink>, OpenError> {
        let key = (endpoint.to_owned(), target);
        let cell = {
            let mut links = lock(&self.0);
            let limit = node.limits().peers;
            if links.len() >= limit && !links.contains_key(&key) {
                return Err(OpenError::Full { what: "peers", limit });
            }
            links.entry(key.clone()).or_default().clone()
        };
        let limit = node.limits().handshake;
        let dialled = tokio::time::timeout(limit, cell.get_or_try_init(|| dial(node, &key))).await;
        let result = match dialled {
            Ok(Ok(link)) if !link.outbox.closed().is_cancelled() => return Ok(link.clone()),
            Ok(Ok(link)) => Err(unreachable_peer(&link.endpoint, &"the connection has ended")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(OpenError::TimedOut { endpoint: endpoint.to_owned(), after: limit }),
        };
        self.remove(&key, &cell);
        result
    }

    fn remove(&self, key: &LinkKey, cell: &Arc<OnceCell<Arc<SendLink>>>) {
        let mut links = lock(&self.0);
        if links.get(key).is_some_and(|present| Arc::ptr_eq(present, cell)) {
            links.remove(key);
        }
    }

    fn remove_link(&self, key: &LinkKey, link: &Arc<SendLink>) {
        let mut links = lock(&self.0);
        if links.get(key).and_then(|cell| cell.get()).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(key);
        }
    }
}

fn unreachable_peer(endpoint: &str, reason: &dyn std::fmt::Display) -> OpenError {
    OpenError::Unreachable { endpoint: endpoint.to_owned(), reason: reason.to_string() }
}

async fn dial(node: &Arc<NodeInner>, key: &LinkKey) -> Result<Arc<SendLink>, OpenError> {
    let (endpoint, target) = (key.0.as_str(), key.1);
    let failed = |error: FrameError| unreachable_peer(endpoint, &error);
    #[cfg(not(test))]
    let connected = Stream::dial(endpoint).await;
    #[cfg(test)]
    let connected = Stream::dial_from(node.endpoint(), endpoint).await;
    let mut stream = connected.map_err(|error| unreachable_peer(endpoint, &error))?;
    stream
        .write_all(&encode(Body::Hello(hello(node, target))))
        .await
        .map_err(|error| failed(error.into()))?;
    let welcome = match read_frame(&mut stream, SMALL_FRAME_BYTES).await.map_err(failed)? {
        Body::Welcome(welcome) => welcome,
        Body::Refused(refused) => return Err(refusal(endpoint, refused)),
        _ => return Err(failed(FrameError::Unknown)),
    };
    let offer = receive_offer(&stream, &welcome).await.map_err(|error| unreachable_peer(endpoint, &error))?;
    let theirs = welcome.geometry.checked().map_err(|error| unreachable_peer(endpoint, &error))?;
    let conversion = convertible(endpoint, *node.geometry(), theirs)?;
    let (reply, connected) = oneshot::channel();
    let speed = Arc::<LinkSpeed>::default();
    let region = Region::checked(theirs.pool_bytes(), welcome.staging_chunks, welcome.chunk_bytes)
        .map_err(|error| unreachable_peer(endpoint, &error))?;
    node.queue().send(Command::Connect { offer, region_bytes: region.bytes(), speed: speed.clone(), reply });
    let connected = connected.await.map_err(|_| OpenError::ended(node.queue().failure()))?;
    let peer = connected.map_err(|error| unreachable_peer(endpoint, &error))?;
    Ok(start_link(node, key, stream, peer, Arc::new(conversion), region, speed))
}

/// The verdict as one reads it who opens a ticket.
pub(crate) fn convertible(
    endpoint: &str,
    ours: KvGeometry,
    theirs: KvGeometry,
) -> Result<Conversion, OpenError> {
    Conversion::between(ours, theirs).map_err(|Mismatch { field, ours, theirs }| {
        let (endpoint, field) = (endpoint.to_owned(), field.to_owned());
        OpenError::Incompatible { endpoint, field, ours, theirs }
    })
}

fn hello(node: &NodeInner, target: NodeId) -> Hello {
    Hello {
        protocol: PROTOCOL,
        node: node.id().0.to_vec(),
        target: target.0.to_vec(),
        fabric: node.fabric_name(),
        geometry: GeometryWire::from(node.geometry()),
        model: node.model().to_owned(),
        address: node.fabric_address().to_vec(),
        endpoint: node.endpoint().to_owned(),
    }
}

fn refusal(endpoint: &str, refused: Refused) -> OpenError {
    let endpoint = endpoint.to_owned();
    match refused.field.as_str() {
        "incarnation" => OpenError::StaleIncarnation { endpoint },
        "unable" => OpenError::Unreachable { endpoint, reason: format!("it refused: {}", refused.ours) },
        "full" => OpenError::Unreachable { endpoint, reason: format!("it is full ({})", refused.ours) },
        _ => OpenError::Incompatible {
            endpoint,
            field: refused.field,
            ours: refused.yours,
            theirs: refused.ours,
        },
    }
}

async fn receive_offer(stream: &Stream, welcome: &Welcome) -> std::io::Result<Offer> {
    let descriptors = if welcome.descriptors > 0 { stream.receive_descriptors().await? } else { Vec::new() };
    Ok(Offer { bytes: welcome.offer.clone(), descriptors })
}

/// From here on the connection is served by tasks of the node.
fn start_link(
    node: &Arc<NodeInner>,
    key: &LinkKey,
    stream: Stream,
    peer: PeerId,
    conversion: Arc<Conversion>,
    region: Region,
    speed: Arc<LinkSpeed>,
) -> Arc<SendLink> {
    let closed = node.cancel().child_token();
    let (outbox, frames) = Outbox::new(closed.clone());
    let endpoint = key.0.clone();
    let link = Arc::new(SendLink {
        peer,
        endpoint,
        outbox: outbox.clone(),
        conversion,
        region,
        speed,
        transfers: Mutex::default(),
    });
    node.peers().insert(peer, outbox);
    stream.watch_for_silence(node.limits().silence);
    let (reader, writer) = tokio::io::split(stream);
    let writing = write_frames(writer, frames, closed.clone());
    node.tasks().spawn(async move { drop(writing.await) });
    node.tasks().spawn(serve_link(node.clone(), link.clone(), key.clone(), reader, closed));
    link
}

async fn serve_link<R: tokio::io::AsyncRead + Unpin>(
    node: Arc<NodeInner>,
    link: Arc<SendLink>,
    key: LinkKey,
    mut reader: R,
    closed: CancellationToken,
) {
    let end = tokio::select! {
        biased;
        () = closed.cancelled() => FrameError::Closed,
        end = link.listen(&node, &mut reader) => end,
    };
    closed.cancel();
    tracing::debug!(peer = link.endpoint, reason = %end, "a receiver is gone");
    node.links().remove_link(&key, &link);
    node.peers().remove(link.peer);
    // Whoever waits for an attach learns by the closed channel.
    link.forget_waiting();
    let (quiet, ended) = oneshot::channel();
    node.queue().send(Command::TargetLost { peer: link.peer, quiet });
    // The end of the connection is our word that nothing of ours is on its way any more: not before. A data plane that has
    // failed answers nothing, and gives that word with its end.
    if ended.await.is_err() {
        node.data_ended().cancelled().await;
    }
    drop(reader);
}

impl SendLink {
    fn forget_waiting(&self) {
        let mut transfers = self.lock();
        transfers.attaching.clear();
        transfers.confirming.clear();
    }

    /// Claims the ticket's transfer within this node; `false` if it is open already.
    pub(crate) fn claim(&self, key: TransferKey) -> bool {
        self.lock().open.insert(key)
    }

    pub(crate) fn forget(&self, key: TransferKey) {
        self.lock().open.remove(&key);
    }

    /// Asks the receiver for leave to write; it says under which slot the writes are counted. `None`: the connection ended first.
    pub(crate) async fn attach(
        &self,
        key: TransferKey,
        secret: u64,
        staged: bool,
    ) -> Option<Result<TransferKey, AttachRefused>> {
        let (reply, answered) = oneshot::channel();
        self.lock().attaching.insert(key, reply);
        if self.outbox.closed().is_cancelled() {
            self.lock().attaching.remove(&key);
        }
        self.outbox.send(Body::Attach(Attach { key: key.into(), secret, staged }));
        answered.await.ok()
    }

    /// Asks the owner whether an offer was live until now, and for its hashes. `None`: the connection ended first.
    pub(crate) async fn confirm(&self, id: u64, checksums: u32) -> Option<Result<Confirmed, String>> {
        let (reply, answered) = oneshot::channel();
        self.lock().confirming.push((id, reply));
        if self.outbox.closed().is_cancelled() {
            self.lock().confirming.clear();
        }
        self.outbox.send(Body::Confirm(Confirm { id, checksums }));
        answered.await.ok()
    }

    fn confirmed(&self, id: u64, verdict: Result<Confirmed, String>) {
        let mut transfers = self.lock();
        let first = transfers.confirming.iter().position(|&(waiting, _)| waiting == id);
        if let Some((_, waiting)) = first.map(|at| transfers.confirming.remove(at)) {
            let _ = waiting.send(verdict);
        }
    }

    async fn listen<R: tokio::io::AsyncRead + Unpin>(&self, node: &NodeInner, reader: &mut R) -> FrameError {
        // The longest that an owner can have reason to send: every unit of the largest offer, hashed. Units are its blocks.
        let Ok(pulled) = Conversion::of_pull(self.conversion.destination, self.conversion.source) else {
            return FrameError::Unknown;
        };
        let limit = node.max_frame_bytes(&pulled);
        loop {
            let body = match read_frame(reader, limit).await {
                Ok(body) => body,
                Err(end) => return end,
            };
            match body {
                Body::Confirmed(confirmed) => self.confirmed(confirmed.id, Ok(confirmed)),
                Body::OfferGone(gone) => self.confirmed(gone.id, Err(gone.reason)),
                Body::Attached(attached) => {
                    let Some(arrivals) = attached.arrivals.checked() else { return FrameError::Unknown };
                    self.answered(attached.key.checked(), Ok(arrivals));
                }
                Body::AttachRefused(refused) => self.answered(refused.key.checked(), Err(refused)),
                Body::Grant(grant) => {
                    let Some(key) = grant.key.checked() else { return FrameError::Unknown };
                    if grant.chunk >= self.region.chunks {
                        return FrameError::Unknown;
                    }
                    node.queue().send(Command::Granted { peer: self.peer, key, chunk: grant.chunk });
                }
                Body::Recalled(recalled) => {
                    let Some(key) = recalled.key.checked() else { return FrameError::Unknown };
                    node.queue().send(Command::Recalled { peer: self.peer, key, waits: recalled.waits });
                }
                Body::Abort(abort) => {
                    let Some(key) = abort.key.checked() else { return FrameError::Unknown };
                    node.queue().send(Command::AbortByPeer { peer: self.peer, key, reason: abort.reason });
                }
                _ => return FrameError::Unknown,
            }
        }
    }

    fn answered(&self, key: Option<TransferKey>, verdict: Result<TransferKey, AttachRefused>) {
        let waiting = key.and_then(|key| self.lock().attaching.remove(&key));
        if let Some(waiting) = waiting {
            let _ = waiting.send(verdict);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Transfers> {
        lock(&self.transfers)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
