//! What is remembered of a request for its last event, its log line and the metrics.

use std::time::Duration;

use baton_proto::v1::{FailureKind, FinishReason, Timing};

/// Why a prefill worker that was tried did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// It could not be connected to.
    PrefillUnreachable,
    /// It said that it could not.
    PrefillFailed,
    /// Its stream broke.
    PrefillLost,
    /// It sent nothing for too long.
    PrefillSilent,
    /// It broke the contract.
    PrefillProtocol,
    /// The decode worker says that the transfer failed.
    TransferFailed,
    /// Everything was pushed, and the decode worker did not get to run it in time.
    HandoverLate,
}

/// One try that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setback {
    pub(crate) cause: Cause,
    /// The prefill worker.
    pub(crate) worker: String,
    /// For a person.
    pub(crate) reason: String,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished(FinishReason),
    Failed(FailureKind),
    /// The client went away.
    Cancelled,
}

/// Where the time went; each is since the request's arrival, or a length in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) queue_us: u64,
    pub(crate) prefill_us: u64,
    pub(crate) transfer_us: u64,
    pub(crate) decode_us: u64,
    pub(crate) decode_wait_us: u64,
    pub(crate) transfer_bytes: u64,
    pub(crate) link_bytes_per_second: u64,
    pub(crate) cached_prompt_tokens: u32,
    /// When the first token was sent on.
    pub(crate) first_token_at: Option<Duration>,
    /// First token here to sequence runnable.
    pub(crate) handover: Option<Duration>,
    pub(crate) setbacks: Vec<Setback>,
    /// A repeated prefill gave another first token than the one that the client has.
    pub(crate) first_token_mismatch: bool,
}

impl Record {
    pub(crate) fn timing(&self) -> Timing {
        Timing {
            queue_us: self.queue_us,
            prefill_us: self.prefill_us,
            transfer_us: self.transfer_us,
            first_token_us: self.first_token_at.map_or(0, micros),
            decode_us: self.decode_us,
            decode_wait_us: self.decode_wait_us,
        }
    }

    /// Why the first choice did not serve; empty when it did.
    pub(crate) fn fallback(&self) -> String {
        let tries: Vec<String> =
            self.setbacks.iter().map(|s| format!("{}: {}", s.worker, s.reason)).collect();
        tries.join("; ")
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
