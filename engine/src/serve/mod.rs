//! Serving: admission, continuous batching, chunked prefill, sampling.
//!
//! ```text
//!   Engine (handle) ── commands ──► engine's thread ── events ──► SequenceHandle, PrefillHandle
//!      │                              │      ▲
//!      │ reserve, decode              │      └ room: blocks came back, from whatever thread
//!      ▼                              ▼
//!   Reservation ── blocks ──►  waiting ──► running ──► Forward::step ──► Sampler
//!                                 ▲───────────┘ preempted: computed again
//! ```
//!
//! Invariants: every request that was taken gets exactly one terminal event; its tokens do not depend on what else ran; its
//! blocks are back in the pool when the terminal event is seen (of a first leg: when nobody holds them any more).
//!
//! What a sequence computes goes into the prefix cache block by block, and what is there already is not computed: when it is
//! let in, and again before each step, as somebody else may have computed it meanwhile.
//!
//! Deliberately absent: priorities.

mod admission;
mod api;
mod checks;
mod config;
mod core;
mod engine;
mod error;
mod handle;
mod load;
mod mailbox;
mod outcome;
mod pace;
mod params;
mod queue_bound;
mod reservation;
mod sampler;
mod schedule;
mod sequence;
mod shared;
mod speculation;
mod step;
mod step_log;
mod throttle;
mod waiting;

pub use api::{
    CacheObserver, FinishReason, FirstToken, GeneratedToken, PrefillSink, Prefilled, SamplingParams,
    SequenceEvent, SequenceRequest, SequenceTiming, SharedPrefillSink, TokenLogprobs,
};
pub use config::EngineConfig;
pub use engine::Engine;
pub use error::{FailureKind, SequenceFailure, SubmitError};
pub use handle::{PrefillHandle, SequenceHandle};
pub use load::{DecodeTotals, EngineLoad, EngineState, EngineTotals, Shutdown, SpeculationTotals};
pub use params::ParameterError;
pub use reservation::Reservation;
pub use speculation::{DraftModel, DraftRequest, MAX_DRAFT_TOKENS, NgramLookup, Propose, Speculation};
pub use step_log::StepSample;
pub use throttle::Speed;
