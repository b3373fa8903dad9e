//! A simulator of the whole of Baton, on profiles of its workers: what would this traffic get from that fleet?
//!
//! ```text
//!  Traffic ─► scheduler (baton-policy's own code) ─► decode worker: blocks reserved ─► prefill worker: prompt, first token
//!                                                        ▲                                 │ groups of layers, over links that others use too
//!                                                        └── steps, preemption ◄───────────┘
//! ```
//! It follows the system as it is built: room is reserved at the decode worker before anybody computes, so waiting for it is in the time to first token; the
//! prefill worker samples that token, so moving blocks is not, but in the gap to the second; engines batch in order of arrival, cut prompts in chunks, preempt
//! the youngest; caches evict from the leaves.
//!
//! It is quick because steps that differ only in how many tokens are before them make one event: their times are a quadratic, which has a sum and an
//! inverse. `tests/reference.rs` simulates the same step by step and compares.
//!
//! What it leaves out: failures, adapters, speculation, several schedulers, several tenants, times that vary by chance, what tokenising costs under
//! load; prefixes of other requests' answers are never found. Prompts that run at the same time find what others have computed when they begin, not later.
//!
//! Invariants:
//! - The same system and the same traffic give the same bytes: no clock, no chance but the seed, no order of hash tables.
//! - Every request has exactly one ending.
//! - No engine has more blocks in use than it has, except that a step's end may be the moment at which it preempts.
#![forbid(unsafe_code)]

mod engine;
mod flight;
mod route;
mod system;
mod traffic;
mod world;

pub use system::{RoleChange, Routing, System, SystemError, Worker};
pub use traffic::{Cancel, PromptPiece, SimRequest, Start, Traffic, TrafficError};
pub use world::{Ending, Served, Simulated, WorkerUse, simulate};
