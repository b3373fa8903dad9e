//! Worker registry, router and endpoint picker, behind the OpenAI HTTP front or behind a gateway.
//!
//! ```text
//!            HTTP                              gRPC Generation
//!  client ─────────► baton-front ─► dispatch ─────────────────────► sidecar of the chosen decode worker
//!         ◄───────── SSE          ◄──    │ Route
//!            ext_proc                    ▼
//!  gateway ────────► picker ─────────► router ◄── fleet ◄────────── workers (through sidecars), gRPC Registry
//!          ◄──────── endpoints           ▲
//!                                        └─────── foreign ◄──────── servers from a file or from Kubernetes
//! ```
//!
//! The front (a crate of its own) knows text, and checks a request completely before any worker hears of it; here there are
//! token ids, and `generator` is what the front asks. A worker that registers belongs to the fleet as long as its stream talks. What decides is pure
//! and elsewhere (`baton-policy`, `baton-kv-index`).
//!
//! Left out on purpose: KV bytes, fabrics, and any state about a request that outlives it but for records of decisions and of traffic.
//!
//! # Invariants
//! - Every request ends in exactly one way: an answer, an error with its status, or, once a stream has begun, an error
//!   event; and within its own deadline.
//! - Dropping an answer (the client has gone) drops the calls to the workers, which free what they hold.
//! - Nothing is retried once a byte of it has been shown.
//! - No request is given to a worker that has left, and those that it had fail within the grace period.

#![forbid(unsafe_code)]

mod args;
mod config;
mod directory;
mod dispatch;
mod epp;
mod error;
mod fleet;
mod foreign;
mod generator;
mod metrics;
mod picker;
mod router;
mod run;
mod traffic;

pub use args::SchedulerArgs;
pub use config::{Config, FleetLimits, PickerConfig, ProfileError, RoutingConfig};
pub use foreign::DiscoveryError;
pub use run::{Scheduler, SchedulerError, run};
