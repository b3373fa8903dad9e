//! The parts of a cost.

use serde::{Deserialize, Serialize};

use crate::view::Ms;

/// A part of what a place costs. The first nine are milliseconds and make the estimate; the others are points from 0 (best) to 1, which the
/// profile's `point_ms` turns into milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    /// Waiting for the prefill worker.
    Queue,
    /// Computing what is not cached, and fetching what is cached in a slower tier.
    Prefill,
    /// What of the transfer does not overlap with computing.
    Transfer,
    /// Waiting for room at the decode worker.
    Admission,
    /// What requests that come after it, or generate beside it, will wait for its prompt.
    PrefillOthers,
    /// Generating its own tokens.
    Decode,
    /// What it slows down those who generate beside it.
    DecodeOthers,
    /// How much later and slower than it was promised it will probably be served.
    Objective,
    /// The same of those who generate beside it, for its sake.
    ObjectiveOthers,
    /// Share of the prompt that is not cached at the worker that computes it.
    Prefix,
    /// How many requests the two workers have.
    Load,
    /// How full the decode worker's KV memory is.
    KvUsage,
    /// Not the worker that served the session last.
    Session,
    /// The adapter would have to be loaded.
    Adapter,
    /// How far apart the two workers are.
    Topology,
}

impl Term {
    /// How many there are.
    pub const COUNT: usize = 15;

    /// All, in the order of [`Terms`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Queue,
        Self::Prefill,
        Self::Transfer,
        Self::Admission,
        Self::PrefillOthers,
        Self::Decode,
        Self::DecodeOthers,
        Self::Objective,
        Self::ObjectiveOthers,
        Self::Prefix,
        Self::Load,
        Self::KvUsage,
        Self::Session,
        Self::Adapter,
        Self::Topology,
    ];

    /// Those of the estimate.
    pub const ESTIMATE: [Self; 9] = [
        Self::Queue,
        Self::Prefill,
        Self::Transfer,
        Self::Admission,
        Self::PrefillOthers,
        Self::Decode,
        Self::DecodeOthers,
        Self::Objective,
        Self::ObjectiveOthers,
    ];

    /// As in records and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Transfer => "transfer",
            Self::Admission => "admission",
            Self::PrefillOthers => "prefill-others",
            Self::Decode => "decode",
            Self::DecodeOthers => "decode-others",
            Self::Objective => "objective",
            Self::ObjectiveOthers => "objective-others",
            Self::Prefix => "prefix",
            Self::Load => "load",
            Self::KvUsage => "kv-usage",
            Self::Session => "session",
            Self::Adapter => "adapter",
            Self::Topology => "topology",
        }
    }

    /// By its [`name`](Self::name).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|term| term.name() == name)
    }
}

/// A number for each [`Term`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms(pub [f64; Term::COUNT]);

/// What a term counts, for each [`Term`]; never negative.
pub type Weights = Terms;

impl Terms {
    /// The number of `term`.
    #[must_use]
    pub fn get(&self, term: Term) -> f64 {
        self.0[term as usize]
    }

    /// The same with another number for `term`.
    #[must_use]
    pub fn with(mut self, term: Term, value: f64) -> Self {
        self.0[term as usize] = value;
        self
    }

    /// Sets the number of `term`.
    pub fn set(&mut self, term: Term, value: f64) {
        self.0[term as usize] = value;
    }

    /// The weighted sum.
    #[must_use]
    pub fn cost(&self, weights: &Weights) -> f64 {
        self.0.iter().zip(&weights.0).map(|(value, weight)| value * weight).sum()
    }

    /// Predicted time to first token.
    #[must_use]
    pub fn ttft_ms(&self) -> Ms {
        [Term::Queue, Term::Prefill, Term::Transfer, Term::Admission].map(|term| self.get(term)).iter().sum()
    }

    /// The estimate alone counts.
    #[must_use]
    pub fn estimate_weights() -> Weights {
        Term::ESTIMATE.into_iter().fold(Self::default(), |weights, term| weights.with(term, 1.0))
    }
}

/// A place for a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Who computes the prompt; `None`: the decode worker.
    pub prefill: Option<usize>,
    /// Who generates.
    pub decode: usize,
    /// What it costs.
    pub cost: f64,
}
