//! Serving the peers that write here.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::endpoint::{Listener, Stream};
use super::peers::{Outbox, write_frames};
use crate::engine::Command;
use crate::fabric::Offer;
use crate::fetch::Offers;
use crate::ids::PeerId;
use crate::layout::Conversion;
use crate::node::NodeInner;
use crate::receive::AttachError;
use crate::wire::{
    Attach, AttachRefused, Attached, Body, FrameError, GeometryWire, Hello, PROTOCOL, Recalled, Refused,
    SMALL_FRAME_BYTES, Welcome, encode, read_frame,
};

/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A peer says who it is as soon as it is connected; whoever does not, holds a place that others wait for.
const HELLO: Duration = Duration::from_secs(1);

/// Peers that may be in the middle of their handshake at once; further ones wait in the socket's backlog.
const HANDSHAKES: usize = 64;

/// Accepts peers until cancelled; each gets a task of its own.
pub(crate) async fn serve_listener(node: Arc<NodeInner>, listener: Listener, cancel: CancellationToken) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = accept(&listener, &handshakes) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                node.tasks().spawn(serve_initiator(node.clone(), stream, permit, cancel.child_token()));
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &Listener,
    handshakes: &Arc<Semaphore>,
) -> std::io::Result<(Stream, OwnedSemaphorePermit)> {
    let permit = handshakes.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    Ok((listener.accept().await?, permit))
}

/// A sender that was let in.
struct Greeted {
    peer: PeerId,
    name: String,
    /// How its KV becomes ours.
    conversion: Arc<Conversion>,
}

/// One peer, from its first word to its death.
async fn serve_initiator(
    node: Arc<NodeInner>,
    mut stream: Stream,
    handshake: OwnedSemaphorePermit,
    closed: CancellationToken,
) {
    let limit = node.limits().handshake;
    let greeted = tokio::select! {
        biased;
        () = closed.cancelled() => return,
        greeted = tokio::time::timeout(limit, greet(&node, &mut stream)) => greeted,
    };
    let (Greeted { peer, name, conversion }, offer) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return node.counters().refusals.add(1),
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!(after = ?limit, "a handshake timed out"),
    };
    let welcomed = tokio::time::timeout(limit, welcome(&node, &mut stream, offer)).await;
    if !matches!(welcomed, Ok(Ok(()))) {
        tracing::debug!(peer = name, "a sender was not there any more to be let in");
        return node.queue().send(Command::InitiatorLost { peer, name, silent: true });
    }
    drop(handshake);
    tracing::debug!(peer = name, "a sender connected");
    stream.watch_for_silence(node.limits().silence);
    let (mut reader, writer) = tokio::io::split(stream);
    let (outbox, frames) = Outbox::new(closed.clone());
    node.peers().insert(peer, outbox.clone());
    // Where arrivals wake nobody, the data thread must start to poll.
    node.queue().nudge();
    let writing = write_frames(writer, frames, closed.clone());
    node.tasks().spawn(async move { drop(writing.await.shutdown().await) });
    let end = tokio::select! {
        biased;
        () = closed.cancelled() => None,
        end = listen(&node, peer, &conversion, &mut reader, &outbox) => Some(end),
    };
    closed.cancel();
    let end = match end {
        Some(end @ (FrameError::Closed | FrameError::Io(_))) => end,
        // We hung up. It may write until it has ended its side too.
        _ => until_ended(&mut reader, node.cancel()).await,
    };
    tracing::debug!(peer = name, reason = %end, "a sender is gone");
    node.peers().remove(peer);
    let silent = !matches!(end, FrameError::Closed);
    node.queue().send(Command::InitiatorLost { peer, name, silent });
}

/// Waits for the peer's end of the connection, whatever it still says.
async fn until_ended<R: AsyncRead + Unpin>(reader: &mut R, cancel: &CancellationToken) -> FrameError {
    let mut rest = [0; 1024];
    let ended = async {
        loop {
            match reader.read(&mut rest).await {
                Ok(0) => return FrameError::Closed,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    };
    cancel.run_until_cancelled(ended).await.unwrap_or(FrameError::Closed)
}

/// The handshake up to the offer that is to be sent; `None` when the peer was refused and told so.
async fn greet(node: &NodeInner, stream: &mut Stream) -> Result<Option<(Greeted, Offer)>, FrameError> {
    let hello = tokio::time::timeout(HELLO, read_frame(stream, SMALL_FRAME_BYTES)).await;
    let Body::Hello(hello) = hello.map_err(|_| FrameError::Io(std::io::ErrorKind::TimedOut.into()))?? else {
        return Err(FrameError::Unknown);
    };
    let conversion = match judge(node, &hello) {
        Ok(conversion) => Arc::new(conversion),
        Err(refused) => {
            let (peer, field, theirs) = (&hello.endpoint, &refused.field, &refused.yours);
            tracing::info!(peer, field, theirs, "refused a sender");
            stream.write_all(&encode(Body::Refused(refused))).await?;
            return Ok(None);
        }
    };
    let (reply, accepted) = oneshot::channel();
    node.queue().send(Command::Accept { address: hello.address, reply });
    let (peer, offer) = match accepted.await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return refuse_fabric(stream, error.to_string()).await,
        Err(_) => return refuse_fabric(stream, "shutting down".to_owned()).await,
    };
    Ok(Some((Greeted { peer, name: hello.endpoint, conversion }, offer)))
}

async fn welcome(node: &NodeInner, stream: &mut Stream, offer: Offer) -> Result<(), FrameError> {
    let welcome = Welcome {
        node: node.id().0.to_vec(),
        geometry: GeometryWire::from(node.geometry()),
        offer: offer.bytes,
        descriptors: offer.descriptors.len() as u32,
        staging_chunks: node.region().chunks,
        chunk_bytes: node.region().chunk_bytes,
    };
    stream.write_all(&encode(Body::Welcome(welcome))).await?;
    if !offer.descriptors.is_empty() {
        stream.send_descriptors(&offer.descriptors).await?;
    }
    Ok(())
}

async fn refuse_fabric<T>(stream: &mut Stream, reason: String) -> Result<Option<T>, FrameError> {
    let refused = Refused { field: "unable".to_owned(), ours: reason, yours: String::new() };
    stream.write_all(&encode(Body::Refused(refused))).await?;
    Ok(None)
}

/// Whether this peer and we can exchange KV; the first difference if not.
fn judge(node: &NodeInner, hello: &Hello) -> Result<Conversion, Refused> {
    let facts = [
        ("protocol", PROTOCOL.to_string(), hello.protocol.to_string()),
        ("incarnation", node.id().to_string(), hex(&hello.target)),
        ("fabric", node.fabric_name(), hello.fabric.clone()),
        ("model", node.model().to_owned(), hello.model.clone()),
    ];
    let refused = |field: &str, ours, yours| Refused { field: field.to_owned(), ours, yours };
    if let Some((field, ours, yours)) = facts.into_iter().find(|(_, ours, yours)| ours != yours) {
        return Err(refused(field, ours, yours));
    }
    let theirs =
        hello.geometry.checked().map_err(|error| refused("layout", "a possible one".to_owned(), error))?;
    let conversion = Conversion::between(theirs, *node.geometry())
        .map_err(|differ| refused(differ.field, differ.theirs, differ.ours))?;
    let limit = node.limits().peers as u64;
    if node.counters().peers.get() >= 2 * limit {
        let ours = format!("{limit} peers each way");
        return Err(refused("full", ours, String::new()));
    }
    Ok(conversion)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

/// Hears a peer out until its connection ends.
async fn listen<R: AsyncRead + Unpin>(
    node: &Arc<NodeInner>,
    peer: PeerId,
    conversion: &Arc<Conversion>,
    reader: &mut R,
    outbox: &Outbox,
) -> FrameError {
    let limit = node.max_frame_bytes(conversion);
    loop {
        let body = match read_frame(reader, limit).await {
            Ok(body) => body,
            Err(end) => return end,
        };
        let receiver = node.receiver();
        match body {
            Body::Attach(attach) => outbox.send(attached(node, peer, conversion, &attach)),
            Body::Manifest(manifest) => {
                let Some(key) = manifest.key.checked() else { return FrameError::Unknown };
                receiver.manifest(peer, key, &manifest);
            }
            Body::Confirm(confirm) => {
                // Hashing takes a while: not on this task.
                let (node, outbox, pair) = (node.clone(), outbox.clone(), conversion.clone());
                node.tasks().clone().spawn(Offers::confirm(node, pair, confirm, outbox));
            }
            Body::Want(want) => {
                let Some(key) = want.key.checked() else { return FrameError::Unknown };
                receiver.want(peer, key, want.chunks);
            }
            Body::Stray(stray) => {
                let Some(key) = stray.key.checked() else { return FrameError::Unknown };
                receiver.stray(peer, key, stray.sequence);
            }
            Body::Recall(recall) => {
                let Some(key) = recall.key.checked() else { return FrameError::Unknown };
                let waits = receiver.recall(peer, key);
                outbox.send(Body::Recalled(Recalled { key: recall.key, waits }));
            }
            Body::Amend(amend) => {
                let Some(key) = amend.key.checked() else { return FrameError::Unknown };
                receiver.amend(peer, key, &amend);
            }
            Body::Withdrawn(withdrawn) => {
                let Some(key) = withdrawn.key.checked() else { return FrameError::Unknown };
                receiver.withdrawn(peer, key, &withdrawn);
            }
            _ => return FrameError::Unknown,
        }
    }
}

fn attached(node: &NodeInner, peer: PeerId, conversion: &Arc<Conversion>, attach: &Attach) -> Body {
    let verdict = match attach.key.checked() {
        Some(key) => node.receiver().attach(peer, conversion, key, attach.secret, attach.staged),
        None => Err("no such slot".into()),
    };
    match verdict {
        Ok(arrivals) => Body::Attached(Attached { key: attach.key, arrivals: arrivals.into() }),
        Err(error) => {
            node.counters().refusals.add(1);
            let (reason, slots) = match error {
                AttachError::Full { slots } => ("all transfer slots are in use".to_owned(), Some(slots)),
                AttachError::Revoked(reason) => (reason.to_owned(), None),
            };
            Body::AttachRefused(AttachRefused { key: attach.key, reason, slots })
        }
    }
}
