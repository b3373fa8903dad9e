//! The bound on waiting requests: whatever waits holds a slot, from the caller's thread on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::SubmitError;

/// Counts what waits. All orderings are relaxed: the counts guard no other memory.
#[derive(Default)]
pub(super) struct QueueBound {
    waiting: AtomicUsize,
    tokens: AtomicUsize,
}

/// Somebody waiting, with the tokens that are to be computed for them.
pub(super) struct QueueSlot {
    bound: Arc<QueueBound>,
    tokens: usize,
}

impl QueueBound {
    /// A slot for a new request, unless `limit` wait already.
    pub(super) fn enter(self: &Arc<Self>, tokens: usize, limit: usize) -> Result<QueueSlot, SubmitError> {
        self.waiting
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < limit).then_some(waiting + 1)
            })
            .map_err(|waiting| SubmitError::QueueFull { waiting })?;
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        Ok(QueueSlot { bound: self.clone(), tokens })
    }

    /// A slot for somebody who was let in before: preempted, or holding a reservation. They are bounded elsewhere.
    pub(super) fn enter_again(self: &Arc<Self>, tokens: usize) -> QueueSlot {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        QueueSlot { bound: self.clone(), tokens }
    }

    /// Who waits, and the tokens to compute for them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting.load(Ordering::Relaxed), self.tokens.load(Ordering::Relaxed))
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.bound.waiting.fetch_sub(1, Ordering::Relaxed);
        self.bound.tokens.fetch_sub(self.tokens, Ordering::Relaxed);
    }
}
