//! KV blocks for a sequence that is about to arrive: the second leg's destination.

use std::{
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{SubmitError, mailbox::Arrival, shared::Shared};
use crate::kv::{BlockId, BlockLease, HeldBlocks};

/// Blocks for a prompt and its expected growth. Dropping it returns them.
///
/// A network card may write the blocks while this lives. Whoever drops it while a write may still be under way must turn it
/// into [`HeldBlocks`] instead, with [`Self::into_held`] or [`Self::replace_blocks`].
pub struct Reservation {
    // Declared before the lease: an engine that drains sees the reservation gone when the blocks come back.
    origin: Origin,
    lease: BlockLease,
    arrival: Arrival,
    prompt_tokens: usize,
}

/// The engine that a reservation is of, which counts its reservations.
pub(super) struct Origin {
    shared: Arc<Shared>,
}

impl Reservation {
    pub(super) fn new(arrival: Arrival, prompt_tokens: usize, lease: BlockLease, origin: Origin) -> Self {
        Self { origin, lease, arrival, prompt_tokens }
    }

    /// All blocks, those of the prompt first. Ids index the engine's KV pool.
    pub fn block_ids(&self) -> &[BlockId] {
        self.lease.ids()
    }

    /// The blocks that the prompt's keys and values go to, in order.
    pub fn prompt_block_ids(&self) -> &[BlockId] {
        &self.block_ids()[..self.origin.shared.layout.blocks_for(self.prompt_tokens)]
    }

    /// Length of the prompt that it was made for.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
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
        let Self { origin, lease, arrival, prompt_tokens } = self;
        let blocks = lease.len();
        let held = HeldBlocks::fenced(lease);
        let shared = origin.shared.clone();
        let fresh = async move {
            let slot = shared.queue.enter_again(0);
            let reservation = shared.wait_for_blocks(arrival, prompt_tokens, blocks, deadline, slot).await;
            // Until here an engine that drains waits for this exchange.
            drop(origin);
            reservation
        };
        (held, fresh)
    }

    pub(super) fn is_of(&self, shared: &Shared) -> bool {
        shared.allocator.owns(&self.lease)
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// The blocks, and what keeps a draining engine waiting.
    pub(super) fn into_parts(self) -> (BlockLease, Origin) {
        (self.lease, self.origin)
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
        let Self { lease, prompt_tokens, arrival, origin: _ } = self;
        f.debug_struct("Reservation")
            .field("arrival", arrival)
            .field("prompt_tokens", prompt_tokens)
            .field("blocks", lease)
            .finish()
    }
}
