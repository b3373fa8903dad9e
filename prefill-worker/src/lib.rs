//! The first leg: computes prompts and pushes their KV blocks.
//!
//! ```text
//!  ticket ──► open ──► compute ─── layers ready ───► push ──► finish ──► pushed
//!                         └── first token ──► sent at once
//! ```
//!
//! One call is one task. The engine's thread pushes each group of layers as it becomes final; the task waits for the first
//! token, sends it on, and waits for the fabric. When the caller leaves, the computation is cancelled, the transfer aborted,
//! and the source blocks stay out of the pool until nothing reads them any more.
//!
//! Deliberately absent: choosing where to push (the ticket says), and decoding.

#![forbid(unsafe_code)]

mod leg;
mod service;
mod sink;
mod spans;

pub use baton_worker::{RunError, WorkerArgs as Args};
pub use service::PrefillService;

use baton_process::Shutdown;
use baton_worker::Role;
use tonic::service::Routes;

/// Runs a prefill worker until `shutdown`, then drains it.
///
/// # Errors
/// See [`RunError`].
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), RunError> {
    let service = |worker| Routes::new(PrefillService::new(worker).into_server());
    baton_worker::run(args, Role::Prefill, service, shutdown).await
}
