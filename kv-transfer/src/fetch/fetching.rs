//! The reader's side.

use std::fmt;
use std::sync::Arc;

use tokio::time::timeout;

use super::OfferTicket;
use crate::TransferError;
use crate::checksum::{Hashed, Selection, first_difference};
use crate::control::SendLink;
use crate::engine::Command;
use crate::latch::Quiesced;
use crate::layout::Conversion;
use crate::offload;
use crate::receive::Received;
use crate::send::OpenGuard;
use crate::ticket::{checksums_from_wire, checksums_to_wire};
use crate::wire::Confirmed;

/// Blocks on their way from a peer's pool; made by [`TransferNode::fetch`](crate::TransferNode::fetch).
///
/// The destination blocks belong to it until [`wait`](Self::wait) returned `Ok`, or the [`Quiesced`] of [`abort`](Self::abort)
/// resolved: until then reads may still write them. Give their lease to [`hold`](Self::hold) where the future may be dropped.
pub struct Fetching {
    open: OpenGuard,
    link: Arc<SendLink>,
    ticket: OfferTicket,
    conversion: Arc<Conversion>,
    blocks: Box<[u32]>,
    started: tokio::time::Instant,
    finished: bool,
}

impl Fetching {
    pub(crate) fn new(
        open: OpenGuard,
        link: Arc<SendLink>,
        ticket: OfferTicket,
        conversion: Arc<Conversion>,
        blocks: &[u32],
    ) -> Self {
        let (blocks, started) = (blocks.into(), tokio::time::Instant::now());
        Self { open, link, ticket, conversion, blocks, started, finished: false }
    }

    /// Keeps `guard` (the lease of the blocks) until no read can write them any more, however it ends.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.open.cell.quiet.hold(Box::new(guard));
    }

    /// Waits until every byte is here, confirmed by the owner, and checked.
    ///
    /// # Errors
    /// See [`TransferError`]; [`TransferError::OfferGone`] when the owner took the blocks back too early. No read writes the
    /// blocks any more then, unless it is [`TransferError::ShuttingDown`].
    ///
    /// # Cancel safety
    /// Call it again, if nothing else; dropping the value aborts.
    pub async fn wait(&mut self) -> Result<Received, TransferError> {
        let outcome = self.finish().await;
        let counters = self.open.node.counters();
        match &outcome {
            Ok(received) => {
                counters.fetches_completed.add(1);
                counters.bytes_fetched.add(received.bytes);
            }
            Err(_) => counters.fetches_failed.add(1),
        }
        outcome
    }

    /// Gives it up, if it is not over, and says when no read writes the blocks any more.
    pub fn abort(self) -> Quiesced {
        Quiesced(self.open.cell.quiet.clone())
    }

    async fn finish(&mut self) -> Result<Received, TransferError> {
        if !std::mem::replace(&mut self.finished, true) {
            self.open.node.queue().send(Command::Finish { id: self.open.id, manifest: None });
        }
        let sent = self.open.cell.settled().await?;
        self.open.settled = true;
        let mode =
            checksums_to_wire(self.ticket.checksums).max(checksums_to_wire(self.open.node.checksums()));
        let peer = || self.link.endpoint.clone();
        let limit = self.open.node.limits().handshake;
        let confirmed = match timeout(limit, self.link.confirm(self.ticket.id, mode)).await {
            Ok(Some(Ok(confirmed))) => confirmed,
            Ok(Some(Err(reason))) => return Err(TransferError::OfferGone { peer: peer(), reason }),
            Ok(None) => return Err(TransferError::PeerLost { peer: peer() }),
            Err(_) => {
                let reason = format!("the owner did not answer within {limit:?}");
                return Err(TransferError::OfferGone { peer: peer(), reason });
            }
        };
        self.verify(&confirmed).await?;
        Ok(Received { bytes: sent.bytes, writes: sent.writes, duration: self.started.elapsed() })
    }

    async fn verify(&self, confirmed: &Confirmed) -> Result<(), TransferError> {
        let mismatch = |field: &str, announced: u64, expected: u64| {
            Err(TransferError::Manifest { field: field.to_owned(), announced, expected })
        };
        let asked = checksums_to_wire(self.open.node.checksums());
        let Some(mode) = checksums_from_wire(confirmed.checksums).filter(|_| confirmed.checksums >= asked)
        else {
            return mismatch("checksums", confirmed.checksums.into(), asked.into());
        };
        let (layers, tokens) = (self.conversion.source.layout.layers, self.ticket.tokens);
        let selection = Selection::new(mode, self.ticket.id, layers, self.conversion.units(tokens));
        let (hashes, rest) = confirmed.hashes.as_chunks::<8>();
        if !rest.is_empty() || hashes.len() != selection.len() {
            return mismatch("hashes", confirmed.hashes.len() as u64, 8 * selection.len() as u64);
        }
        let hashes = hashes.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        let hashed = Hashed { conversion: self.conversion.clone(), selection, hashes };
        let (pool, blocks) = (self.open.node.pool().clone(), self.blocks.clone());
        let compare = move || first_difference(&pool, &blocks, tokens, &hashed);
        let difference = if mode == crate::ChecksumMode::Full {
            offload::run(compare).await.ok_or(TransferError::ShuttingDown)?
        } else {
            compare()
        };
        let Some((layer, token)) = difference else { return Ok(()) };
        self.open.node.counters().checksum_failures.add(1);
        let index = token / self.conversion.destination.layout.block_tokens;
        Err(TransferError::Checksum { layer, block: self.blocks[index as usize], token })
    }
}

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").field("cell", &self.open.cell).finish_non_exhaustive()
    }
}
