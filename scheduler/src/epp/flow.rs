//! Waiting to be let in, as it is counted.

use std::{sync::Arc, time::Instant};

use baton_policy::admission::Reason;

use super::{Epp, who::Who};

/// What became of a request that was offered to admission; llm-d's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It was let in.
    Dispatched,
    /// It was refused at once: others have the room.
    RejectedCapacity,
    /// It was refused at once: there is nobody.
    RejectedNoEndpoints,
    /// It was refused at once for another reason.
    RejectedOther,
    /// It waited for too long.
    EvictedTtl,
    /// It waited, and its client left.
    EvictedContextCancelled,
    /// It waited, and a more urgent one took its place.
    EvictedOther,
}

impl Outcome {
    /// As a label.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dispatched => "Dispatched",
            Self::RejectedCapacity => "RejectedCapacity",
            Self::RejectedNoEndpoints => "RejectedNoEndpoints",
            Self::RejectedOther => "RejectedOther",
            Self::EvictedTtl => "EvictedTTL",
            Self::EvictedContextCancelled => "EvictedContextCancelled",
            Self::EvictedOther => "EvictedOther",
        }
    }
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoCapacity => Self::RejectedNoEndpoints,
            Reason::WouldMissTtft | Reason::WouldMissTpot | Reason::QueueFull => Self::RejectedCapacity,
            Reason::NeverFits | Reason::Duplicate => Self::RejectedOther,
            Reason::Expired => Self::EvictedTtl,
            Reason::Shed => Self::EvictedOther,
        }
    }
}

/// A request that was offered to admission. Dropped without an outcome, its client has left.
pub(crate) struct Waiting {
    epp: Arc<Epp>,
    who: Who,
    bytes: u64,
    since: Instant,
    /// When it had been offered, and was to wait.
    offered: Option<Instant>,
    outcome: Outcome,
}

impl Waiting {
    /// It is about to be offered.
    pub(crate) fn begin(epp: &Arc<Epp>, who: &Who, bytes: u64) -> Self {
        let (epp, who) = (epp.clone(), who.clone());
        let outcome = Outcome::EvictedContextCancelled;
        Self { epp, who, bytes, since: Instant::now(), offered: None, outcome }
    }

    /// It was offered, and is to wait.
    pub(crate) fn queued(&mut self) {
        self.offered = Some(Instant::now());
        let mut tallies = self.epp.lock();
        let requests = tallies.of(&self.who);
        requests.waiting += 1;
        requests.waiting_bytes += self.bytes;
    }

    /// That came of it.
    pub(crate) fn ended(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waited = self.since.elapsed();
        let offer = self.offered.map_or(waited, |offered| offered.saturating_duration_since(self.since));
        let mut tallies = self.epp.lock();
        if self.offered.is_some() {
            let requests = tallies.of(&self.who);
            requests.waiting -= 1;
            requests.waiting_bytes -= self.bytes;
        }
        let flow = tallies.flows.entry((self.who.clone(), self.outcome)).or_default();
        flow.queue.observe(waited.as_secs_f64());
        flow.enqueue.observe(offer.as_secs_f64());
    }
}
