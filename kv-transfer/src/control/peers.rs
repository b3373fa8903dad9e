//! How to reach connected peers from any thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::ids::PeerId;
use crate::stats::Counters;
use crate::wire::{Body, encode};

/// Frames that may wait for a peer that does not read. It has four for each transfer at most; one that lets so many pile
/// up is hung up on.
const OUTBOX_FRAMES: usize = 16 << 10;

/// How long the last frames of a connection that this side ends may take.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// The sending end of a control connection. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    frames: mpsc::Sender<Outgoing>,
    closed: CancellationToken,
}

/// What waits in an outbox.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Vec<u8>),
    /// Everything before this is with the kernel.
    Flushed(oneshot::Sender<()>),
}

impl Outbox {
    pub(crate) fn new(closed: CancellationToken) -> (Self, mpsc::Receiver<Outgoing>) {
        let (frames, outgoing) = mpsc::channel(OUTBOX_FRAMES);
        (Self { frames, closed }, outgoing)
    }

    /// Queues a frame; hangs up when the peer is that far behind. On a closed connection it is dropped.
    pub(crate) fn send(&self, body: Body) {
        if self.frames.try_send(Outgoing::Frame(encode(body))).is_err() {
            self.hang_up();
        }
    }

    /// Returns when what was sent before is with the kernel, or the connection has ended.
    pub(crate) async fn flushed(&self) {
        let (written, flushed) = oneshot::channel();
        if self.frames.send(Outgoing::Flushed(written)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    pub(crate) fn hang_up(&self) {
        self.closed.cancel();
    }

    /// Cancelled when the connection is to end, or has.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

/// Writes what is queued until the connection ends; what waits then still goes out, if it goes quickly.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Outgoing>,
    closed: CancellationToken,
) -> W {
    let ended = tokio::select! {
        biased;
        () = closed.cancelled() => true,
        _ = write_all(&mut writer, &mut queue) => false,
    };
    closed.cancel();
    if ended {
        // A frame that was cut short makes the peer drop the connection, which is ending anyway.
        queue.close();
        let _ = tokio::time::timeout(LAST_FRAMES, write_all(&mut writer, &mut queue)).await;
    }
    writer
}

async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> std::io::Result<()> {
    while let Some(outgoing) = queue.recv().await {
        match outgoing {
            Outgoing::Frame(frame) => writer.write_all(&frame).await?,
            Outgoing::Flushed(written) => drop(written.send(())),
        }
    }
    Ok(())
}

/// All connected peers, in both directions.
#[derive(Debug)]
pub(crate) struct Peers {
    outboxes: Mutex<BTreeMap<PeerId, Outbox>>,
    counters: Arc<Counters>,
}

impl Peers {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { outboxes: Mutex::default(), counters }
    }

    pub(crate) fn insert(&self, peer: PeerId, outbox: Outbox) {
        if self.lock().insert(peer, outbox).is_none() {
            self.counters.peers.add(1);
        }
    }

    pub(crate) fn remove(&self, peer: PeerId) {
        if self.lock().remove(&peer).is_some() {
            self.counters.peers.sub(1);
        }
    }

    pub(crate) fn send(&self, peer: PeerId, body: Body) {
        let outbox = self.lock().get(&peer).cloned();
        if let Some(outbox) = outbox {
            outbox.send(body);
        }
    }

    pub(crate) fn hang_up(&self, peer: PeerId) {
        if let Some(outbox) = self.lock().get(&peer) {
            outbox.hang_up();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Outbox>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
