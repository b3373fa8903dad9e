//! Reserved blocks that a peer may be writing.

use std::time::Instant;

use baton_engine::{GeneratedToken, Reservation};
use baton_kv_transfer::{Incoming, Quiesced, Received, TransferError};

/// A transfer into reserved blocks. However it is dropped, the blocks stay out of the pool until no peer can write them.
pub(crate) struct Landing {
    /// The sidecar's number of the try.
    pub(crate) attempt: u32,
    /// The first token and when it came.
    pub(crate) first: Option<(GeneratedToken, Instant)>,
    /// Set once it is decided.
    pub(crate) outcome: Option<Result<Received, TransferError>>,
    // Taken together, by `part`.
    transfer: Option<(Incoming, Reservation)>,
}

/// A transfer that arrived whole, and the first token.
pub(crate) struct Landed {
    pub(crate) attempt: u32,
    pub(crate) reservation: Reservation,
    pub(crate) first: GeneratedToken,
    pub(crate) first_at: Instant,
    pub(crate) received: Received,
}

impl Landing {
    pub(crate) fn new(attempt: u32, incoming: Incoming, reservation: Reservation) -> Self {
        Self { attempt, first: None, outcome: None, transfer: Some((incoming, reservation)) }
    }

    /// Waits for the outcome; never returns again once that is set.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn decided(&mut self) -> &Result<Received, TransferError> {
        let Self { outcome, transfer, .. } = self;
        match transfer {
            Some((incoming, _)) if outcome.is_none() => outcome.insert(incoming.wait().await),
            _ => std::future::pending().await,
        }
    }

    /// What decoding needs, once the blocks are complete and the first token is here; until then itself again.
    pub(crate) fn try_land(mut self: Box<Self>) -> Result<Landed, Box<Self>> {
        match (&self.outcome, self.first.take(), self.transfer.take()) {
            (Some(Ok(received)), Some((first, first_at)), Some((_, reservation))) => {
                let received = *received;
                Ok(Landed { attempt: self.attempt, reservation, first, first_at, received })
            }
            (_, first, transfer) => {
                (self.first, self.transfer) = (first, transfer);
                Err(self)
            }
        }
    }

    /// Gives the transfer up. The blocks may be used once the first value has resolved.
    pub(crate) fn give_up(mut self) -> Option<(Quiesced, Reservation)> {
        self.transfer.take().map(|(incoming, reservation)| (incoming.abort(), reservation))
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some((incoming, reservation)) = self.transfer.take() {
            incoming.abort().hold(reservation.into_held());
        }
    }
}
