//! A transfer from its sender's point of view.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::group::Group;
use super::{OutgoingCell, Sent};
use crate::checksum::{Selection, hash_ranges};
use crate::control::convertible;
use crate::coverage::Coverage;
use crate::engine::{Command, NoRoom, SendId, UnitCursor, Work};
use crate::latch::Quiesced;
use crate::layout::{Conversion, Side};
use crate::node::NodeInner;
use crate::plan::{Cursor, Plan};
use crate::ticket::{Ticket, checksums_from_wire, checksums_to_wire};
use crate::wire::Manifest;
use crate::{KvGeometry, OpenError, PushError, TransferError};

/// A transfer that this node sends; made by [`TransferNode::open`](crate::TransferNode::open).
///
/// The source blocks belong to the transfer from `push` until [`finish`](Self::finish) returned (either way), or the
/// [`Quiesced`] of [`abort`](Self::abort) resolved. Dropping it aborts: then nobody can tell its former owner when the
/// source is no longer read, so abort explicitly or give the lease to [`hold`](Self::hold).
pub struct Outgoing {
    open: OpenGuard,
    ticket: Ticket,
    conversion: Arc<Conversion>,
    staged: bool,
    selection: Selection,
    progress: Mutex<Progress>,
}

struct Progress {
    coverage: Coverage,
    /// Pushed by the caller, and held back for more.
    group: Option<Group>,
    hashes: Vec<u64>,
    /// The blocks that were pushed last, and the plan they make: the next layers are mostly of the same.
    planned: (Vec<(u32, u32)>, Arc<Plan>),
    /// Of a staged transfer: the same blocks, to be gathered.
    units: Arc<[(u32, u32)]>,
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
    let endpoint = ticket.endpoint.clone();
    if node.model() != ticket.model {
        let (field, ours, theirs) = ("model".to_owned(), node.model().to_owned(), ticket.model.clone());
        return Err(OpenError::Incompatible { endpoint, field, ours, theirs });
    }
    convert(*node.geometry(), ticket).map(drop)
}

/// How a pool of `ours` becomes what a ticket asks for.
pub(crate) fn convert(ours: KvGeometry, ticket: &Ticket) -> Result<Conversion, OpenError> {
    let endpoint = ticket.endpoint.clone();
    let conversion = convertible(&endpoint, ours, ticket.geometry)?;
    let (tokens, units) = (ticket.tokens, conversion.units(ticket.tokens));
    if units > ours.blocks {
        // Else its alleged tokens, in few huge blocks, would size what is kept for each of ours.
        let reason = format!("{tokens} tokens fill {units} blocks here, and this pool has {}", ours.blocks);
        return Err(OpenError::BadTicket { reason });
    }
    if conversion.is_needed() { Ok(conversion) } else { Err(OpenError::NotNeeded { endpoint }) }
}

impl Outgoing {
    pub(crate) fn new(open: OpenGuard, ticket: Ticket, conversion: Arc<Conversion>, staged: bool) -> Self {
        let (layers, units) = (ticket.geometry.layout.layers, conversion.units(ticket.tokens));
        // The stricter of the two wishes; both modes come from the same ordered list.
        let mode = checksums_to_wire(ticket.checksums).max(checksums_to_wire(open.node.checksums()));
        let mode = checksums_from_wire(mode).unwrap_or_default();
        let selection = Selection::new(mode, ticket.secret, layers, units);
        let hashes = vec![0; selection.len()];
        let (coverage, planned) = (Coverage::new(layers, units), (Vec::new(), Arc::default()));
        let progress = Mutex::new(Progress { coverage, group: None, hashes, planned, units: Arc::default() });
        Self { open, ticket, conversion, staged, selection, progress }
    }

    /// Tokens that the receiver expects the blocks to hold.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.ticket.tokens
    }

    /// Source blocks that those tokens fill, each of which is to be pushed in every layer.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.conversion.units(self.ticket.tokens) as usize
    }

    /// Keeps `guard` (the lease of the source blocks) until nothing reads them any more, however the transfer ends.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.open.cell.quiet.hold(Box::new(guard));
    }

    /// Its name at the receiver, and what its writes carry.
    #[cfg(test)]
    pub(crate) fn target(&self) -> (crate::ids::TransferKey, crate::ids::TransferKey) {
        (self.ticket.key, self.open.cell.arrivals().unwrap_or(self.ticket.key))
    }

    /// Queues `layers` of the given blocks, as pairs of (source block in our pool, its position in the sequence): the block at
    /// position `i` holds the tokens from `i * block_tokens` on, in this worker's blocks. The receiver may cut the sequence
    /// otherwise; the transfer converts.
    ///
    /// For a compute thread: hashes the sampled pieces (some microseconds each), queues, and returns. Layers are held back until
    /// they are worth a wake-up, as fast as the link is (`TransferLimits::push_group_bytes`). While
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
        let ready = self.group(&mut progress, layers, blocks);
        drop(progress);
        ready.into_iter().flatten().try_for_each(|work| self.queue(work))
    }

    /// Adds to what is held back; what is to go now.
    fn group(&self, progress: &mut Progress, layers: Range<u32>, blocks: &[(u32, u32)]) -> [Option<Work>; 2] {
        let joined = progress.group.as_mut().is_some_and(|group| group.extend(&layers, blocks));
        let others = if joined { None } else { progress.group.replace(Group::new(layers, blocks)) };
        let others = others.map(|group| self.work(progress, &group));
        let layout = &self.conversion.source.layout;
        let enough = progress.group.as_ref().is_some_and(|group| {
            let bytes = group.layers.len() as u64 * group.blocks.len() as u64 * layout.block_bytes();
            group.layers.end == layout.layers || bytes >= self.group_bytes()
        });
        let full = if enough { progress.group.take() } else { None };
        [others, full.map(|group| self.work(progress, &group))]
    }

    fn group_bytes(&self) -> u64 {
        let configured = self.open.node.limits().push_group_bytes;
        configured.unwrap_or_else(|| self.open.cell.group_bytes())
    }

    fn queue(&self, work: Work) -> Result<(), PushError> {
        let node = &self.open.node;
        let command = Command::Push { id: self.open.id, work };
        let patience = node.limits().push_patience;
        node.queue().push(command, patience).map_err(|no_room| match no_room {
            NoRoom::Full { limit } => PushError::Backlogged { limit, waited: patience },
            NoRoom::Closed => TransferError::ended(node.queue().failure()).into(),
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
        let (missing, hashes, rest) = {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let complete = progress.coverage.is_complete();
            let missing = if complete { None } else { progress.coverage.first_missing() };
            let rest = progress.group.take().map(|group| self.work(&mut progress, &group));
            (missing, std::mem::take(&mut progress.hashes), rest)
        };
        // A transfer that failed already says why, not that it is incomplete.
        if let Some((layer, index)) = missing.filter(|_| self.open.cell.failure().is_none()) {
            let quiet = Quiesced(self.open.cell.quiet.clone());
            drop(self);
            quiet.await;
            return Err(TransferError::Incomplete { layer, index });
        }
        if let Some(work) = rest.filter(|_| self.open.cell.failure().is_none()) {
            self.open.node.queue().push_at_once(Command::Push { id: self.open.id, work });
        }
        let manifest = Some(Box::new(self.manifest(&hashes)));
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

    /// What the data thread is to do for a group.
    fn work(&self, progress: &mut Progress, group: &Group) -> Work {
        let Group { layers, blocks } = group;
        if self.staged {
            if *progress.units != **blocks {
                progress.units = blocks.as_slice().into();
            }
            return Work::Units(UnitCursor::new(layers.clone(), progress.units.clone()));
        }
        if progress.planned.0 != *blocks {
            let plan = Plan::new(&self.conversion, blocks, &self.ticket.blocks, self.ticket.tokens);
            progress.planned = (blocks.clone(), plan.into());
        }
        Work::Tiles(Cursor::new(layers.clone(), progress.planned.1.clone()))
    }

    fn hash(&self, hashes: &mut [u64], layers: &Range<u32>, blocks: &[(u32, u32)]) {
        let hash = |hashes: &mut [u64], layer, source, index| {
            if let Some(position) = self.selection.position(layer, index) {
                let tokens = self.ticket.tokens;
                let ranges = self.conversion.ranges(Side::Source, (layer, index), tokens, |_| source);
                hashes[position] = hash_ranges(self.open.node.pool(), ranges);
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
        let tokens = self.ticket.tokens;
        let (layers, units) = (self.ticket.geometry.layout.layers, self.conversion.units(tokens));
        Manifest {
            key: self.ticket.key.into(),
            writes: 0,
            bytes: 0,
            layers,
            units,
            pieces: u64::from(layers) * u64::from(units),
            tokens,
            checksums: checksums_to_wire(mode),
            hashes: hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect(),
            doubtful: None,
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("cell", &self.open.cell).finish_non_exhaustive()
    }
}
