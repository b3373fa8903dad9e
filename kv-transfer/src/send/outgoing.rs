//! A transfer from its sender's point of view.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{OutgoingCell, Sent};
use crate::checksum::{Selection, hash_piece};
use crate::coverage::Coverage;
use crate::engine::{Command, NoRoom, SendId};
use crate::latch::Quiesced;
use crate::node::NodeInner;
use crate::plan::{Cursor, Run, merge_runs};
use crate::ticket::{Ticket, checksums_from_wire, checksums_to_wire};
use crate::wire::Manifest;
use crate::{OpenError, PushError, TransferError};

/// A transfer that this node sends; made by [`TransferNode::open`](crate::TransferNode::open).
///
/// The source blocks belong to the transfer from `push` until [`finish`](Self::finish) returned (either way), or the
/// [`Quiesced`] of [`abort`](Self::abort) resolved. Dropping it aborts: then nobody can tell its former owner when the
/// source is no longer read, so abort explicitly or give the lease to [`hold`](Self::hold).
pub struct Outgoing {
    open: OpenGuard,
    ticket: Ticket,
    selection: Selection,
    progress: Mutex<Progress>,
}

struct Progress {
    coverage: Coverage,
    hashes: Vec<u64>,
    /// The blocks that were pushed last, and the runs they make: the next layers are mostly of the same.
    planned: (Vec<(u32, u32)>, Arc<[Run]>),
}

/// An opened transfer; aborts it when dropped, unless it was finished or refused.
pub(crate) struct OpenGuard {
    pub(crate) node: Arc<NodeInner>,
    pub(crate) id: SendId,
    pub(crate) cell: Arc<OutgoingCell>,
    pub(crate) settled: bool,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        if !self.settled {
            self.cell.fail(TransferError::Aborted);
            self.node.queue().send(Command::Abort { id: self.id });
        }
    }
}

/// Compares a ticket with this node, before anything is sent.
pub(crate) fn check_compatible(node: &NodeInner, ticket: &Ticket) -> Result<(), OpenError> {
    let (ours, theirs) = (node.geometry(), &ticket.geometry);
    let differ = |field: &str, ours: String, theirs: String| {
        let (endpoint, field) = (ticket.endpoint.clone(), field.to_owned());
        Err(OpenError::Incompatible { endpoint, field, ours, theirs })
    };
    if ours.layers != theirs.layers {
        return differ("layers", ours.layers.to_string(), theirs.layers.to_string());
    }
    if ours.block_bytes != theirs.block_bytes {
        return differ("block_bytes", ours.block_bytes.to_string(), theirs.block_bytes.to_string());
    }
    if node.compat() != ticket.compat {
        return differ("compat", node.compat().to_owned(), ticket.compat.clone());
    }
    Ok(())
}

impl Outgoing {
    pub(crate) fn new(open: OpenGuard, ticket: Ticket) -> Self {
        let (layers, blocks) = (ticket.geometry.layers, ticket.blocks.len() as u32);
        // The stricter of the two wishes; both modes come from the same ordered list.
        let mode = checksums_to_wire(ticket.checksums).max(checksums_to_wire(open.node.checksums()));
        let mode = checksums_from_wire(mode).unwrap_or_default();
        let selection = Selection::new(mode, ticket.secret, layers, blocks);
        let hashes = vec![0; selection.len()];
        let (coverage, planned) = (Coverage::new(layers, blocks), (Vec::new(), Arc::default()));
        let progress = Mutex::new(Progress { coverage, hashes, planned });
        Self { open, ticket, selection, progress }
    }

    /// Tokens that the receiver expects the blocks to hold.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.ticket.tokens
    }

    /// Destination blocks in the ticket.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.ticket.blocks.len()
    }

    /// Keeps `guard` (the lease of the source blocks) until nothing reads them any more, however the transfer ends.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.open.cell.quiet.hold(Box::new(guard));
    }

    /// Where it goes, and its name there.
    #[cfg(test)]
    pub(crate) fn target(&self) -> (&str, crate::ids::TransferKey) {
        (&self.ticket.endpoint, self.ticket.key)
    }

    /// Queues `layers` of the given blocks, as pairs of (source block in our pool, index into the ticket's blocks).
    ///
    /// For a compute thread: hashes the sampled pieces (some microseconds each), queues, and returns. While
    /// `TransferLimits::queued_pushes` are queued it waits up to `TransferLimits::push_patience`.
    ///
    /// # Errors
    /// See [`PushError`]; the transfer cannot complete after one.
    pub fn push(&self, layers: Range<u32>, blocks: &[(u32, u32)]) -> Result<(), PushError> {
        if let Some(error) = self.open.cell.failure() {
            return Err(error.clone().into());
        }
        let node = &self.open.node;
        let pool_blocks = node.geometry().blocks;
        if let Some(&(block, _)) = blocks.iter().find(|(block, _)| *block >= pool_blocks) {
            return Err(PushError::NoSuchBlock { block, blocks: pool_blocks });
        }
        let indices: Vec<u32> = blocks.iter().map(|&(_, index)| index).collect();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.coverage.mark(&layers, &indices)?;
        if layers.is_empty() || blocks.is_empty() {
            return Ok(());
        }
        self.hash(&mut progress.hashes, &layers, blocks);
        if progress.planned.0 != blocks {
            let pairs = blocks.iter().map(|&(source, index)| (source, self.ticket.blocks[index as usize]));
            progress.planned = (blocks.to_vec(), merge_runs(pairs.collect()).into());
        }
        let runs = progress.planned.1.clone();
        drop(progress);
        let command = Command::Push { id: self.open.id, cursor: Cursor::new(layers, runs) };
        let patience = node.limits().push_patience;
        node.queue().push(command, patience).map_err(|no_room| match no_room {
            NoRoom::Full { limit } => PushError::Backlogged { limit, waited: patience },
            NoRoom::Closed => TransferError::ShuttingDown.into(),
        })
    }

    /// Announces the transfer and waits until every write is done: the source blocks are the caller's again when this
    /// returns, with `Ok` or `Err`.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`] when a piece was never pushed; else see [`TransferError`].
    ///
    /// # Cancel safety
    /// Dropping the future aborts the transfer, and the caller no longer learns when the source is free: use
    /// [`hold`](Self::hold) where that can happen.
    pub async fn finish(mut self) -> Result<Sent, TransferError> {
        let (missing, hashes) = {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let complete = progress.coverage.is_complete();
            let missing = if complete { None } else { progress.coverage.first_missing() };
            (missing, std::mem::take(&mut progress.hashes))
        };
        // A transfer that failed already says why, not that it is incomplete.
        if let Some((layer, index)) = missing.filter(|_| self.open.cell.failure().is_none()) {
            let quiet = Quiesced(self.open.cell.quiet.clone());
            drop(self);
            quiet.await;
            return Err(TransferError::Incomplete { layer, index });
        }
        let manifest = Box::new(self.manifest(&hashes));
        self.open.node.queue().send(Command::Finish { id: self.open.id, manifest });
        let outcome = self.open.cell.settled().await;
        self.open.settled = true;
        if outcome.is_ok() {
            self.open.cell.announced().await;
        }
        outcome
    }

    /// Gives the transfer up, if it is not over, and says when its source blocks are no longer read.
    pub fn abort(self) -> Quiesced {
        Quiesced(self.open.cell.quiet.clone())
    }

    fn hash(&self, hashes: &mut [u64], layers: &Range<u32>, blocks: &[(u32, u32)]) {
        let hash = |hashes: &mut [u64], layer, source, index| {
            if let Some(position) = self.selection.position(layer, index) {
                let piece = self.open.node.geometry().piece(layer, source);
                hashes[position] = hash_piece(self.open.node.pool(), piece.start, piece.len());
            }
        };
        match &self.selection {
            Selection::None => {}
            // Few samples, many blocks: go by the samples.
            Selection::Sampled(samples) => {
                for &(layer, index) in samples.iter().filter(|(layer, _)| layers.contains(layer)) {
                    if let Some(&(source, _)) = blocks.iter().find(|(_, i)| *i == index) {
                        hash(hashes, layer, source, index);
                    }
                }
            }
            Selection::Full { .. } => {
                for layer in layers.clone() {
                    blocks.iter().for_each(|&(source, index)| hash(hashes, layer, source, index));
                }
            }
        }
    }

    fn manifest(&self, hashes: &[u64]) -> Manifest {
        let mode = match &self.selection {
            Selection::None => crate::ChecksumMode::Off,
            Selection::Sampled(_) => crate::ChecksumMode::Sampled,
            Selection::Full { .. } => crate::ChecksumMode::Full,
        };
        let (layers, blocks) = (self.ticket.geometry.layers, self.ticket.blocks.len() as u32);
        Manifest {
            key: self.open.cell.key.into(),
            writes: 0,
            bytes: 0,
            layers,
            blocks,
            pieces: u64::from(layers) * u64::from(blocks),
            tokens: self.ticket.tokens,
            checksums: checksums_to_wire(mode),
            hashes: hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect(),
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("cell", &self.open.cell).finish_non_exhaustive()
    }
}
