//! What is asked of admission, and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    decide::Decision,
    estimate::Term,
    view::{Ms, Objective},
};

/// A request that wants to be let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Unique among those that are in or wait.
    pub id: u64,
    /// Whose it is, for fairness.
    pub tenant: Arc<str>,
    /// Its tenant's share beside others': twice the weight, twice the tokens.
    pub weight: f64,
    /// The higher, the sooner; the lowest are shed first.
    pub priority: i32,
    /// KV tokens at its end, as far as can be told.
    pub growth_tokens: u64,
    /// Its objective; what it lacks is taken from the limits' default.
    pub objective: Objective,
    /// Time to first token, if it were sent now.
    pub predicted_ttft_ms: Ms,
    /// Time per output token, if it were sent now.
    pub predicted_tpot_ms: Ms,
}

impl Ask {
    /// For a request that would go where `decision` says; of usual weight and priority, without an objective of its own.
    #[must_use]
    pub fn new(id: u64, tenant: Arc<str>, decision: &Decision) -> Self {
        Self {
            id,
            tenant,
            weight: 1.0,
            priority: 0,
            growth_tokens: decision.growth_tokens(),
            objective: Objective::default(),
            predicted_ttft_ms: decision.terms.ttft_ms(),
            predicted_tpot_ms: decision.terms.get(Term::Decode) / decision.output_tokens,
        }
    }
}

/// Bounds of admission.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests that wait at most.
    pub queue_requests: usize,
    /// A request waits at most for so long.
    pub max_wait_ms: Ms,
    /// Waiting for so long counts like one more of priority.
    pub aging_ms: Ms,
    /// Share of decode memory (or of the prefill wait that is allowed) at which nothing more is let in…
    pub high: f64,
    /// …until it has fallen to this one.
    pub low: f64,
    /// For requests that bring none.
    pub objective: Objective,
}

/// What becomes of a request that was offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It may go now; its growth is reserved.
    Admitted,
    /// It waits: [`Admission::next`](super::Admission::next) or [`expired`](super::Admission::expired) will name it.
    Queued,
    /// It is refused.
    Refused(Refusal),
}

/// Why a request is not served now, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}; try again in {:.0} s", (.retry_after_ms / 1_000.0).ceil())]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// An estimate of when there will be room.
    pub retry_after_ms: Ms,
}

/// Why a request is not served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No decode worker is there.
    #[error("no decode worker is there")]
    NoCapacity,
    /// It is larger than all memory.
    #[error("prompt and output are larger than the fleet's KV memory")]
    NeverFits,
    /// Its first token would come too late.
    #[error("the first token would come after the request's objective")]
    WouldMissTtft,
    /// Its tokens would come too slowly.
    #[error("tokens would come more slowly than the request's objective")]
    WouldMissTpot,
    /// The queue is full of requests that are at least as urgent.
    #[error("the queue is full")]
    QueueFull,
    /// It waited, and a more urgent one took its place.
    #[error("a more urgent request took its place in the queue")]
    Shed,
    /// It waited for too long.
    #[error("it waited in the queue for as long as it could")]
    Expired,
    /// Its id is in use.
    #[error("a request with this id is being served")]
    Duplicate,
}

impl Reason {
    /// The HTTP status: 429 when there is capacity but others have it, 503 when there is none.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoCapacity => 503,
            Self::NeverFits | Self::Duplicate => 400,
            _ => 429,
        }
    }
}

impl Limits {
    /// Waiting for a prefill worker that counts as full, where no objective says otherwise.
    pub(super) const PREFILL_WAIT_MS: Ms = 30_000.0;

    /// What a request is promised that brings `own`.
    #[must_use]
    pub fn promised(&self, own: &Objective) -> Objective {
        Objective {
            ttft_ms: own.ttft_ms.or(self.objective.ttft_ms),
            tpot_ms: own.tpot_ms.or(self.objective.tpot_ms),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_requests: 1_024,
            max_wait_ms: 30_000.0,
            aging_ms: 5_000.0,
            high: 0.95,
            low: 0.85,
            objective: Objective::default(),
        }
    }
}
