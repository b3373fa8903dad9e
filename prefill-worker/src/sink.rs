//! From the engine's thread to the fabric.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
};

use baton_engine::{BlockId, HeldBlocks, PrefillSink};
use baton_kv_transfer::{Outgoing, PushError};
use tokio::sync::Notify;

/// Pushes what the engine reports. Called on the engine's thread; the transfer is taken out by whoever waits for the end.
pub(crate) struct PushSink {
    state: Mutex<State>,
    /// Blocks at the beginning of the prompt that the other side has.
    skipped_blocks: usize,
    /// The transfer is to be given up.
    abandoned: AtomicBool,
    failed: Notify,
}

struct State {
    outgoing: Option<Outgoing>,
    failure: Option<PushError>,
}

/// The waiting task's share of a [`PushSink`]. Dropping it gives the transfer up.
pub(crate) struct Push {
    sink: Arc<PushSink>,
}

impl Push {
    /// All but the first `skipped_blocks` blocks of a prompt.
    pub(crate) fn through(outgoing: Outgoing, skipped_blocks: usize) -> Self {
        let state = State { outgoing: Some(outgoing), failure: None };
        let sink = PushSink {
            state: Mutex::new(state),
            skipped_blocks,
            abandoned: AtomicBool::new(false),
            failed: Notify::new(),
        };
        Self { sink: Arc::new(sink) }
    }

    /// For the engine.
    pub(crate) fn sink(&self) -> Arc<PushSink> {
        self.sink.clone()
    }

    /// Keeps the source blocks out of the pool until nothing reads them, however the transfer ends.
    pub(crate) fn hold(&self, blocks: HeldBlocks) {
        if let Some(outgoing) = &self.sink.lock().outgoing {
            outgoing.hold(blocks);
        }
    }

    /// Returns once a push has failed.
    pub(crate) async fn failed(&self) -> PushError {
        loop {
            let failed = self.sink.failed.notified();
            if let Some(failure) = self.sink.lock().failure.clone() {
                return failure;
            }
            failed.await;
        }
    }

    /// The transfer, once everything was reported.
    pub(crate) fn into_outgoing(self) -> Result<Outgoing, PushError> {
        let mut state = self.sink.lock();
        let ended = || PushError::Ended(baton_kv_transfer::TransferError::Aborted);
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => state.outgoing.take().ok_or_else(ended),
        }
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.sink.abandoned.store(true, Ordering::Release);
        // While the engine's thread is pushing, it is the one to take the transfer out, right after.
        match self.sink.state.try_lock() {
            Ok(mut state) => drop(state.outgoing.take()),
            Err(TryLockError::Poisoned(state)) => drop(state.into_inner().outgoing.take()),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl PushSink {
    fn push(&self, layers: &Range<usize>, blocks: &Range<usize>, ids: &[BlockId]) {
        let mut state = self.lock();
        let Some(outgoing) = &state.outgoing else { return };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let targets = blocks.clone().map(|block| block.checked_sub(self.skipped_blocks).map(number));
        let pairs: Vec<(u32, u32)> =
            ids.iter().zip(targets).filter_map(|(id, target)| Some((id.0, target?))).collect();
        if pairs.is_empty() {
            return;
        }
        if let Err(error) = outgoing.push(number(layers.start)..number(layers.end), &pairs) {
            state.failure = Some(error);
            // Nothing more to push: what was begun is given up.
            drop(state.outgoing.take());
            self.failed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PrefillSink for PushSink {
    fn layers_ready(&self, layers: Range<usize>, blocks: Range<usize>, ids: &[BlockId]) {
        self.push(&layers, &blocks, ids);
        if self.abandoned.load(Ordering::Acquire) {
            drop(self.lock().outgoing.take());
        }
    }
}
