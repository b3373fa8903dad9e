//! Reserved blocks that a peer may be writing.

use std::time::{Duration, Instant};

use baton_engine::{GeneratedToken, Reservation};
use baton_kv_transfer::{Incoming, Quiesced, Received, TransferError};
use tokio::time::timeout;

/// A transfer into reserved blocks. However it is dropped, the blocks stay out of the pool until no peer can write them.
pub(crate) struct Landing {
    /// The sidecar's number of the try.
    pub(crate) attempt: u32,
    /// The first token and when it came.
    pub(crate) first: Option<(GeneratedToken, Instant)>,
    /// Set once it is decided.
    pub(crate) outcome: Option<Result<Received, TransferError>>,
    /// The lease is renewed until then.
    until: Instant,
    // Taken together, by `part`.
    transfer: Option<(Incoming, Reservation)>,
}

/// How long the transfer may write if nobody renews that.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Several times in a lease, for a machine that stalls.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// Waits, and keeps the lease until `until`.
async fn wait_renewing(incoming: &mut Incoming, until: Instant) -> Result<Received, TransferError> {
    while timeout(RENEW_EVERY, incoming.wait()).await.is_err() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !incoming.renew(LEASE.min(left)) {
            break;
        }
    }
    incoming.wait().await
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
    pub(crate) fn new(attempt: u32, incoming: Incoming, reservation: Reservation, until: Instant) -> Self {
        Self { attempt, first: None, outcome: None, until, transfer: Some((incoming, reservation)) }
    }

    /// Waits for the outcome; never returns again once that is set.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn decided(&mut self) -> &Result<Received, TransferError> {
        let Self { outcome, transfer, until, .. } = self;
        match transfer {
            Some((incoming, _)) if outcome.is_none() => outcome.insert(wait_renewing(incoming, *until).await),
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
