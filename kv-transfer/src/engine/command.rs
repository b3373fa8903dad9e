//! What the data thread is asked to do.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Sending;
use crate::engine::Work;
use crate::error::FabricError;
use crate::fabric::Offer;
use crate::ids::{PeerId, TransferKey};
use crate::send::LinkSpeed;
use crate::wire::Manifest;

/// Identifies an outgoing transfer within this node.
pub(crate) type SendId = u64;

pub(crate) enum Command {
    /// A peer will write here.
    Accept { address: Vec<u8>, reply: oneshot::Sender<Result<(PeerId, Offer), FabricError>> },
    /// We will write to a peer.
    Connect {
        offer: Offer,
        region_bytes: u64,
        speed: Arc<LinkSpeed>,
        reply: oneshot::Sender<Result<PeerId, FabricError>>,
    },
    /// A transfer is attached; pushes follow.
    Open { id: SendId, sending: Box<Sending> },
    /// Blocks to write, or to read.
    Push { id: SendId, work: Work },
    /// The receiver has room for one more chunk.
    Granted { peer: PeerId, key: TransferKey, chunk: u32 },
    /// The receiver's answer: whether the transfer waits for the writes that failed on their way.
    Recalled { peer: PeerId, key: TransferKey, waits: bool },
    /// Nothing more will be pushed or pulled: announce what was pushed, then settle.
    Finish { id: SendId, manifest: Option<Box<Manifest>> },
    /// The receiver did not let it attach.
    Refused { id: SendId },
    /// Its owner gave it up.
    Abort { id: SendId },
    /// Its receiver gave it up, or never heard of it.
    AbortByPeer { peer: PeerId, key: TransferKey, reason: String },
    /// A peer that we write to is gone. `quiet` is told when nothing is under way to it any more; dropped, it says
    /// that the data plane fails or has ended, and what is under way with it.
    TargetLost { peer: PeerId, quiet: oneshot::Sender<()> },
    /// A peer that writes here is gone; or it was `silent`, and may live.
    InitiatorLost { peer: PeerId, name: String, silent: bool },
    /// A sender writes no more to a transfer (or to the chunk of one of its writes), and what it wrote may still arrive.
    DrainPart { key: TransferKey, sender: PeerId, stray: Option<u32> },
    /// Abort every transfer: the node shuts down.
    Drain,
    /// Tells how much the thread has allocated.
    #[cfg(test)]
    Allocations(oneshot::Sender<u64>),
    /// End the thread.
    Stop,
}
