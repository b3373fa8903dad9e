//! Beside each decode worker: drives both legs of a request and relays the stream.
//!
//! ```text
//!  scheduler ── Generate ──►┌─────────┐── Session ──► decode worker ┐
//!            ◄── Join ──────│ sidecar │◄── Join ────── (the same)   │ one session, up to its last token
//!                           └─────────┘── Run ──► prefill worker    ┘ one call for each one tried
//! ```
//!
//! One request is one task. It opens a session on the decode worker, has a prefill worker push the prompt's KV cache into
//! what the session reserved, relays tokens, and when a prefill worker does not serve, takes the next or has the decode
//! worker prefill. All decisions are in `control`: events in, actions out, no I/O; `drive.rs` performs them.
//!
//! The decode worker registers through the sidecar, so that for the scheduler the two live and die together.
//!
//! By option it has an HTTP front of its own (`http`, over `baton-front`), for gateways that choose workers themselves: requests
//! that come there are served in the same way.
//!
//! Deliberately absent: which workers suit a request (the scheduler or a gateway ranks them), and KV bytes.
//!
//! # Invariants
//! - A request ends in exactly one `finished` or `failure`, at the latest at its deadline, unless its client left.
//! - No token is sent twice or differs after a fall-back: a repeated first token is compared with the one already sent.
//! - When a request ends, however it ends, both its streams are dropped; that is what frees its blocks.
//! - Nobody is called whom the scheduler has not named.

#![forbid(unsafe_code)]

mod args;
mod channels;
mod control;
mod drive;
mod error;
mod generation;
mod http;
mod leg;
mod link;
mod metrics;
mod registry;
mod run;
mod spans;

pub use args::Args;
pub use error::RunError;
pub use run::{Sidecar, run};
