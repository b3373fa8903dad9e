//! What prefill and decode workers share: an engine and a transfer node over one KV pool, put together and kept in the fleet.
//!
//! ```text
//!   TransferNode ── pool ──► KvMemory ──► Engine            one pool: what a peer writes, the engine reads
//!        ▲                                  ▲
//!        └────────── the role's service ────┘               prefill: open, push      decode: expect, wait
//!                          ▲
//!   gRPC server ───────────┘        Memberships ──► each scheduler (decode: by way of its sidecar)
//! ```
//!
//! [`run()`] is the whole life of a worker: load, start, warm up, serve, register; when told to stop it takes nothing new, lets
//! calls end up to the drain deadline, quiesces the fabric, leaves the fleet and returns. The roles add a gRPC service.
//!
//! Deliberately absent: anything about one request; that is the roles' business.
//!
//! # Invariants
//! - Ready means: warmed up and accepted by a scheduler; of a prefill worker also that every decode worker was tried once.
//! - The pool outlives both the engine and the transfer node: each holds a share of the mapping.
//! - A call is a task in [`Worker::calls`], which the drain waits for.

#![deny(unsafe_code)]

mod adapters;
mod args;
mod assemble;
mod cache_events;
mod cache_feed;
mod collect;
mod context;
mod error;
mod grammars;
mod identity;
mod memberships;
mod metrics;
mod pairs;
mod pool;
mod registration;
mod retries;
mod run;
mod size;
mod speculative;
mod standing;
mod vocabulary;
mod warm_up;
mod wire;
mod work_feed;
mod worker;

pub use adapters::{Adapters, LoraModule};
pub use args::WorkerArgs;
pub use assemble::transfer_config;
pub use error::RunError;
pub use memberships::{Memberships, Source};
pub use metrics::{RequestMetrics, TokenClock};
pub use pool::kv_memory;
pub use registration::{Registration, Rejected};
pub use run::run;
pub use size::{ByteSize, KvBudget};
pub use speculative::{DraftRefused, SpeculativeConfig, SpeculativeConfigError};
pub use warm_up::warm_up;
pub use wire::{
    failure_of_sequence, failure_of_submit, finish_from_engine, token_from_engine, token_from_wire,
};
pub use worker::{Worker, deadline, unavailable};

/// Which leg a worker serves.
pub use baton_proto::v1::Role;
