//! What a benchmark sends and when, decided before anything is sent.
//!
//! A [`Workload`] (plain settings) becomes a [`Plan`]: every request with its start, its prompt in pieces, the tokens it asks for and
//! whether it is cancelled. The load generator sends a plan, the simulator computes with it, so both see the same traffic.
//!
//! ```text
//! options ──► Workload ──► Plan ──► load generator (pieces become text or token ids on the way)
//!                 trace ──┘   └───► simulator (pieces are enough)
//! ```
//!
//! A prompt is a row of [`Piece`]s, each an id and a length. That is all a cache can tell apart: two prompts share exactly the prefix in
//! which their pieces are the same.
//!
//! Left out on purpose: clocks, sockets, and what a server answers. Where a prompt needs an earlier answer (a session's next turn), the plan
//! has a place for it, [`Fill::Answer`], and whoever sends puts the answer there.
//!
//! # Invariants
//! - The same settings and seed give the same plan, byte for byte, on every machine: [`Plan::sha256`] is over all of it. Random numbers and
//!   the logarithms made of them are computed here, not by the platform's library.
//! - Each purpose (arrivals, lengths, …) and each request draws from a stream of its own, so that changing one option leaves the others'
//!   draws as they were, and a longer plan begins with the shorter one.

#![forbid(unsafe_code)]

mod args;
mod arrivals;
mod build;
mod content;
mod digest;
mod distribution;
mod plan;
mod random;
mod stats;
pub mod trace;
mod workload;

pub use args::{
    Content, ContentArgs, ContentError, LimitArgs, LoadArgs, OptionsInvalid, SourceArgs, WorkloadArgs,
};
pub use arrivals::{RateInvalid, RateProfile, RateStep, Spacing};
pub use build::{MAX_REQUESTS, MAX_TURNS, PlanError};
pub use content::{
    CountCheck, CountTokens, Estimate, IdContent, Message, TextContent, TextWithoutTokenizer,
    VocabularyTooSmall,
};
pub use digest::Sha256;
pub use distribution::{Distribution, DistributionInvalid, MAX_TOKENS, Seconds, Tokens, Unit, parse_time};
pub use plan::{Cancel, Fill, Pacing, Piece, Plan, Planned, Prompt, Role, Start, Text, TextId};
pub use stats::{Percentiles, PlanStats};
pub use trace::{TraceError, TraceFormat};
pub use workload::{
    CancelAfter, CancelShare, Load, PrefixGroups, Sessions, Source, Synthetic, Trace, TraceOutput, Workload,
};
