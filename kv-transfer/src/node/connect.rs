//! Connecting ahead of any transfer: the verdict on a pair, and a path that was used once.
//!
//! The first operation to a peer can cost milliseconds (EFA: 26, for a handshake of the devices' own). A read of some scratch
//! bytes of the peer's pays for it: every fabric has reads, no transfer owns the bytes at either end, and the peer need not
//! know of it.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::NodeInner;
use crate::OpenError;
use crate::control::SendLink;
use crate::engine::{Command, Work};
use crate::fabric::MAX_RAILS;
use crate::ids::NodeId;
use crate::plan::{Cursor, Plan, Tile};
use crate::staging::SCRATCH_BYTES;

/// A connection to a peer that works; made by [`TransferNode::connect`](crate::TransferNode::connect).
///
/// It is kept by the node, as those that tickets make: dropping this ends nothing.
#[derive(Clone)]
pub struct Connected {
    endpoint: String,
    closed: CancellationToken,
}

impl Connected {
    /// Returns when the connection is gone: the peer died or left. The next [`connect`](crate::TransferNode::connect), or the
    /// next ticket, dials again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) {
        self.closed.cancelled().await;
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_closed = self.closed.is_cancelled();
        f.debug_struct("Connected").field("endpoint", &self.endpoint).field("ended", &is_closed).finish()
    }
}

impl NodeInner {
    /// See [`TransferNode::connect`](crate::TransferNode::connect).
    pub(super) async fn connect(
        self: &Arc<Self>,
        endpoint: &str,
        node_id: &[u8],
    ) -> Result<Connected, OpenError> {
        if self.closing.is_cancelled() || self.queue.is_closed() {
            return Err(OpenError::ShuttingDown);
        }
        let unreachable = |reason: String| OpenError::Unreachable { endpoint: endpoint.to_owned(), reason };
        let Some(target) = NodeId::from_wire(node_id) else {
            return Err(unreachable(format!("its node id has {} bytes, not 16", node_id.len())));
        };
        if target == self.id {
            return Err(unreachable("it is this node itself".to_owned()));
        }
        let link = self.links.get(self, endpoint, target).await?;
        let after = self.limits().handshake;
        match tokio::time::timeout(after, self.try_path(&link)).await {
            Ok(Ok(())) => {
                let closed = link.outbox.closed().clone();
                Ok(Connected { endpoint: endpoint.to_owned(), closed })
            }
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(_) => Err(OpenError::TimedOut { endpoint: endpoint.to_owned(), after }),
        }
    }

    /// As many as there can be to one peer: a fabric with several takes first those that were never used.
    fn most_paths(&self) -> usize {
        if self.rails.is_empty() { 1 } else { MAX_RAILS }
    }

    /// Reads what means nothing to where it means nothing, once over each path.
    async fn try_path(self: &Arc<Self>, link: &Arc<SendLink>) -> Result<(), String> {
        let mut open = self.register(link, None, None);
        let tile = Tile::contiguous(link.region.scratch(), self.region.scratch(), SCRATCH_BYTES);
        let plan = Arc::new(Plan::of(tile));
        // Beyond the bound of pushes: there are some for each peer that is connected to, and those are bounded.
        for _ in 0..self.most_paths() {
            let work = Work::Tiles(Cursor::new(0..1, plan.clone()));
            self.queue.push_at_once(Command::Push { id: open.id, work });
        }
        self.queue.send(Command::Finish { id: open.id, manifest: None });
        let outcome = open.cell.settled().await;
        open.settled = true;
        outcome.map(drop).map_err(|error| format!("the first read failed: {error}"))
    }
}
