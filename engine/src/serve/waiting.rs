//! Who waits for the engine.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{
    SequenceFailure, SubmitError,
    mailbox::Arrival,
    queue_bound::QueueSlot,
    reservation::{Origin, Purpose, Reservation},
    sequence::Sequence,
};
use crate::kv::BlockLease;

/// Somebody waiting for room.
pub(super) enum Waiting {
    /// To be computed.
    Sequence(Box<Sequence>, QueueSlot),
    /// To be given blocks.
    Reserve(ReserveRequest),
}

/// A reservation to be made.
pub(super) struct ReserveRequest {
    pub(super) purpose: Purpose,
    pub(super) deadline: Option<Instant>,
    pub(super) reply: oneshot::Sender<Result<Reservation, SubmitError>>,
    pub(super) slot: QueueSlot,
}

impl Waiting {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Sequence(sequence, _) => sequence.deadline,
            Self::Reserve(request) => request.deadline,
        }
    }

    /// Ends the wait: the deadline passed.
    pub(super) fn expire(self) {
        match self {
            Self::Sequence(mut sequence, slot) => {
                drop(slot);
                let generated_tokens = sequence.output_len();
                sequence.fail(SequenceFailure::DeadlinePassed { generated_tokens });
            }
            Self::Reserve(request) => request.refuse(SubmitError::DeadlinePassed),
        }
    }

    /// Ends the wait: the engine has ended.
    pub(super) fn stop(self, reason: &str) {
        let reason = reason.to_owned();
        match self {
            Self::Sequence(mut sequence, slot) => {
                drop(slot);
                sequence.fail(SequenceFailure::Stopped { reason });
            }
            Self::Reserve(request) => request.refuse(SubmitError::Stopped { reason }),
        }
    }
}

impl ReserveRequest {
    /// Hands the blocks over; nobody there to take them sends them back to the pool.
    pub(super) fn grant(self, arrival: Arrival, lease: BlockLease, shared_blocks: usize, origin: Origin) {
        let Self { purpose, reply, slot, .. } = self;
        drop(slot);
        let _ = reply.send(Ok(Reservation::new(arrival, purpose, lease, shared_blocks, origin)));
    }

    fn refuse(self, error: SubmitError) {
        let Self { reply, slot, .. } = self;
        drop(slot);
        let _ = reply.send(Err(error));
    }
}
