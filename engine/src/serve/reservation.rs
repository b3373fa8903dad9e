//! KV blocks for a sequence that is about to arrive: the second leg's destination.

use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{SubmitError, mailbox::Arrival, shared::Shared};
use crate::kv::{BlockId, BlockLease, CacheScope, HeldBlocks, Prefix};

/// Blocks for a prompt and its expected growth. Dropping it returns them.
///
/// The first ones may be shared: cached blocks that hold the beginning of the prompt already. A network card may write the
/// others while this lives. Whoever drops it while a write may still be under way must turn it
/// into [`HeldBlocks`] instead, with [`Self::into_held`] or [`Self::replace_blocks`].
pub struct Reservation {
    // Declared before the lease: an engine that drains sees the reservation gone when the blocks come back.
    origin: Origin,
    lease: BlockLease,
    arrival: Arrival,
    purpose: Purpose,
    shared_blocks: usize,
}

/// What blocks are reserved for.
#[derive(Clone)]
pub(super) struct Purpose {
    pub(super) prompt: Arc<[u32]>,
    pub(super) scope: Option<Arc<CacheScope>>,
    /// Blocks for the prompt and the growth to expect.
    pub(super) blocks: usize,
    /// Whether cached blocks will do for the beginning.
    pub(super) shares: bool,
}

/// The engine that a reservation is of, which counts its reservations.
pub(super) struct Origin {
    shared: Arc<Shared>,
}

impl Reservation {
    pub(super) fn new(
        arrival: Arrival,
        purpose: Purpose,
        lease: BlockLease,
        shared_blocks: usize,
        origin: Origin,
    ) -> Self {
        Self { origin, lease, arrival, purpose, shared_blocks }
    }

    /// All blocks, those of the prompt first. Ids index the engine's KV pool.
    pub fn block_ids(&self) -> &[BlockId] {
        self.lease.ids()
    }

    /// The blocks that the prompt's keys and values go to, in order.
    pub fn prompt_block_ids(&self) -> &[BlockId] {
        &self.block_ids()[..self.origin.shared.layout.blocks_for(self.prompt_tokens())]
    }

    /// Those of the prompt's blocks that are to be filled: all but the shared ones at the beginning. At least one.
    pub fn blocks_to_fill(&self) -> &[BlockId] {
        &self.prompt_block_ids()[self.shared_blocks..]
    }

    /// Tokens of the prompt whose keys and values the shared blocks hold.
    pub fn cached_tokens(&self) -> usize {
        self.shared_blocks * self.origin.shared.layout.block_tokens
    }

    /// Length of the prompt that it was made for.
    pub fn prompt_tokens(&self) -> usize {
        self.purpose.prompt.len()
    }

    /// Gives the reservation up; the blocks stay out of the pool until the returned value is dropped.
    pub fn into_held(self) -> HeldBlocks {
        HeldBlocks::fenced(self.lease)
    }

    /// Exchanges all blocks for fresh ones, after a transfer into the old ones failed: a late write must not meet a block
    /// that is in use. The old ones stay out of the pool until the returned [`HeldBlocks`] is dropped.
    ///
    /// The two come apart so that the old blocks can be dropped while the new ones are waited for: in a full pool they may be
    /// the same. The wait keeps the place that the reservation had in the order of arrival, and is not bound by `max_waiting`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the reservation up.
    pub fn replace_blocks(
        self,
        deadline: Option<Instant>,
    ) -> (HeldBlocks, impl Future<Output = Result<Reservation, SubmitError>> + Send + use<>) {
        let Self { origin, lease, arrival, purpose, shared_blocks: _ } = self;
        let held = HeldBlocks::fenced(lease);
        let shared = origin.shared.clone();
        let fresh = async move {
            let slot = shared.queue.enter_again(0);
            let reservation = shared.wait_for_blocks(arrival, purpose, deadline, slot).await;
            // Until here an engine that drains waits for this exchange.
            drop(origin);
            reservation
        };
        (held, fresh)
    }

    /// Exchanges shared blocks for ones of its own, to be filled like the others: for somebody who cannot leave out just these.
    /// Waits as [`Self::replace_blocks`] does, of which this is a special case without a transfer that could be under way.
    ///
    /// # Cancel safety
    /// Dropping the future gives the reservation up.
    ///
    /// # Errors
    /// As there.
    pub async fn unshare(mut self, deadline: Option<Instant>) -> Result<Reservation, SubmitError> {
        self.purpose.shares = false;
        let (held, fresh) = self.replace_blocks(deadline);
        drop(held);
        fresh.await
    }

    pub(super) fn is_for(&self, prompt: &[u32], scope: Option<&Arc<CacheScope>>) -> bool {
        *self.purpose.prompt == *prompt && self.purpose.scope.as_ref() == scope
    }

    pub(super) fn is_of(&self, shared: &Shared) -> bool {
        shared.allocator.owns(&self.lease)
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// The blocks, how many of them are shared, and what keeps a draining engine waiting.
    pub(super) fn into_parts(self) -> (BlockLease, usize, Origin) {
        (self.lease, self.shared_blocks, self.origin)
    }
}

impl Purpose {
    /// What of the prompt may be shared: its last token is computed for it, and so its last block is its own.
    pub(super) fn sharable(&self, block_tokens: usize) -> Prefix<'_> {
        let end = if self.shares { self.prompt.len() - 1 } else { 0 };
        Prefix { tokens: &self.prompt[..end], block_tokens, scope: self.scope.as_ref() }
    }
}

impl Origin {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.reservations.fetch_add(1, Ordering::Relaxed);
        Self { shared }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Pairs with the engine's thread: when it sees the count go down it sees what was handed over before.
        self.shared.reservations.fetch_sub(1, Ordering::Release);
        self.shared.mailbox.notify_room();
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, shared_blocks, arrival, purpose, origin: _ } = self;
        f.debug_struct("Reservation")
            .field("arrival", arrival)
            .field("prompt_tokens", &purpose.prompt.len())
            .field("shared_blocks", shared_blocks)
            .field("blocks", lease)
            .finish()
    }
}
