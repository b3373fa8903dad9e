//! The endpoint picker protocol of the Gateway API Inference Extension, over Envoy's ext_proc: a gateway asks for each request
//! which endpoint is to have it.
//!
//! ```text
//! client ──► gateway ─── request headers, body ──►  service ── PickRequest ──► Picker (policy, elsewhere)
//!               │    ◄── destination, in order ───            ◄── Pick or Refusal ──
//!               │
//!               └──► the endpoint, tried in that order
//!               ◄─── its answer ── status, served-by, chunks ──► Watch (what then happened)
//! ```
//!
//! `exchange` is the protocol of one request, without I/O; [`EndpointPicker`] runs it for each stream that a gateway opens.
//! What an endpoint is, which there are and which is best is the [`Picker`]'s affair.
//!
//! # Invariants
//! - A request body is never held longer than it takes to choose, nor beyond [`Limits::body_bytes`].
//! - Replies come in the order headers, body, trailers, and each message that a gateway waits for has one.
//! - A stream that ends, however it ends, drops its [`Watch`], which is thereby told.
#![forbid(unsafe_code)]

mod conformance;
mod exchange;
mod headers;
mod metadata;
mod pick;
mod reply;
mod service;

pub use exchange::Limits;
pub use headers::Headers;
pub use pick::{Pick, PickRequest, Picker, Refusal, Response, Watch};
pub use service::EndpointPicker;
