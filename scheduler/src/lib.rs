//! OpenAI HTTP front, worker registry and placement.
//!
//! ```text
//!            HTTP                                      gRPC Generation
//!  client ─────────► api ──► dispatch ───────────────────────────────────► sidecar of the chosen decode worker
//!         ◄─────────      ◄──    │  ▲                  ◄───────────────────
//!            SSE                 │  │ view
//!                       placement┘  │
//!                                 fleet ◄──────────────────────────────── workers (through sidecars)
//!                                                      gRPC Registry
//! ```
//!
//! The front is the only part of Baton that knows text: it renders, encodes, decodes, and finds stop strings; workers see
//! token ids. It checks a request once, completely, before any worker hears of it. The registry is the fleet's only
//! membership: a worker belongs to it as long as its stream talks. Placement is pure policy.
//!
//! Left out on purpose: KV bytes, fabrics, and any state about a request that outlives it.
//!
//! # Invariants
//! - Every request ends in exactly one way: an answer, an error with its status, or, once a stream has begun, an error
//!   event; and within its own deadline.
//! - Dropping an answer (the client has gone) drops the calls to the workers, which free what they hold.
//! - Nothing is retried once a byte of it has been shown.
//! - No request is given to a worker that has left, and those that it had fail within the grace period.

#![forbid(unsafe_code)]

mod api;
mod args;
mod completion;
mod config;
mod dispatch;
mod error;
mod fleet;
mod metrics;
mod router;
mod run;

pub use args::SchedulerArgs;
pub use baton_parsers::{ReasoningFormat, ToolFormat};
pub use config::{Config, FleetLimits, FormatChoice, ProfileError, RequestLimits, RoutingConfig};
pub use error::{
    CallBroken, DeadlinePassed, GenerateError, NeverFits, NoDecodeWorker, NoSuchAdapter, NotNow, Stopping,
    WorkerFailed, WorkerLost,
};
pub use run::{Scheduler, SchedulerError, run};
