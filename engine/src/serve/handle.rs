//! The caller's end of a request. Dropping it cancels the request, wherever it is then.

use std::{fmt, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    FirstToken, SequenceEvent, SequenceFailure,
    mailbox::{Arrival, Command},
    shared::Shared,
};
use crate::kv::HeldBlocks;

/// The events of one sequence: tokens, then exactly one terminal event.
#[derive(Debug)]
pub struct SequenceHandle {
    events: mpsc::Receiver<SequenceEvent>,
    cancel: CancelOnDrop,
}

/// The first leg of a request.
#[derive(Debug)]
pub struct PrefillHandle {
    first_token: oneshot::Receiver<Result<FirstToken, SequenceFailure>>,
    held: HeldBlocks,
    cancel: CancelOnDrop,
}

/// Cancels unless disarmed.
pub(super) struct CancelOnDrop {
    shared: Arc<Shared>,
    arrival: Option<Arrival>,
}

impl SequenceHandle {
    pub(super) fn new(events: mpsc::Receiver<SequenceEvent>, cancel: CancelOnDrop) -> Self {
        Self { events, cancel }
    }

    /// The next event; `None` after the terminal one.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<SequenceEvent> {
        let event = self.events.recv().await;
        self.seen(event)
    }

    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Option<SequenceEvent> {
        match self.events.try_recv() {
            Ok(event) => self.seen(Some(event)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.seen(None),
        }
    }

    /// Keeps "exactly one terminal event" even when the engine's thread died without sending one.
    fn seen(&mut self, event: Option<SequenceEvent>) -> Option<SequenceEvent> {
        match event {
            Some(SequenceEvent::Prefilled(_) | SequenceEvent::Token(_)) => event,
            Some(SequenceEvent::Finished(..) | SequenceEvent::Failed(_)) => {
                self.cancel.disarm();
                event
            }
            None if self.cancel.disarm() => Some(SequenceEvent::Failed(self.cancel.shared.stop_failure())),
            None => None,
        }
    }
}

impl PrefillHandle {
    pub(super) fn new(
        first_token: oneshot::Receiver<Result<FirstToken, SequenceFailure>>,
        held: HeldBlocks,
        cancel: CancelOnDrop,
    ) -> Self {
        Self { first_token, held, cancel }
    }

    /// The prompt's blocks, to be kept until nothing remote can read them any more, whatever becomes of this handle.
    ///
    /// They count as held from the end of the computation until the last clone is dropped.
    pub fn held_blocks(&self) -> HeldBlocks {
        self.held.clone()
    }

    /// Waits until the prompt is computed. By then every layer of every block was reported to the sink. Call it once.
    ///
    /// # Cancel safety
    /// May be called again when the future was dropped before it was ready.
    ///
    /// # Errors
    /// Why it could not be computed.
    pub async fn first_token(&mut self) -> Result<FirstToken, SequenceFailure> {
        let outcome = (&mut self.first_token).await;
        self.cancel.disarm();
        outcome.unwrap_or_else(|_| Err(self.cancel.shared.stop_failure()))
    }
}

impl CancelOnDrop {
    pub(super) fn new(shared: Arc<Shared>, arrival: Arrival) -> Self {
        Self { shared, arrival: Some(arrival) }
    }

    /// Whether it was armed.
    pub(super) fn disarm(&mut self) -> bool {
        self.arrival.take().is_some()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(arrival) = self.arrival.take() {
            // An engine that has ended has nothing left to cancel.
            let _ = self.shared.mailbox.post(Command::Cancel(arrival));
        }
    }
}

impl fmt::Debug for CancelOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&self.arrival).finish()
    }
}
