//! The second leg: receives KV blocks and generates tokens.
//!
//! One session is one task and one lease: whatever it holds, it gives back when its stream ends, wherever it stands then.
//! Blocks that a peer may still write stay out of the pool until it cannot any more.
//!
//! ```text
//!  open ──► reserve ──► expect ──► ticket ──► (a prefill worker writes) ──► arrived ┐
//!                │         ▲                        │ failed: fresh blocks          ├─► decode ──► tokens, done
//!                │         └────────────────────────┤              start ───────────┘
//!                └──────────── prefill locally ◄────┘
//! ```
//!
//! Deliberately absent: which prefill worker serves, and whether to try another; the sidecar decides.

#![forbid(unsafe_code)]

mod landing;
mod service;
mod session;

pub use baton_worker::{RunError, WorkerArgs as Args};
pub use service::DecodeService;

use baton_process::Shutdown;
use baton_worker::Role;
use tonic::service::Routes;

/// Runs a decode worker until `shutdown`, then drains it.
///
/// # Errors
/// See [`RunError`].
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), RunError> {
    let service = |worker| Routes::new(DecodeService::new(worker).into_server());
    baton_worker::run(args, Role::Decode, service, shutdown).await
}
