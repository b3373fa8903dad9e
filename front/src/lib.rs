//! The OpenAI HTTP front, over whoever generates.
//!
//! ```text
//!            HTTP                              Generator
//!  client ─────────► routes ─► prompt ─► run ───────────► the scheduler's fleet, or a sidecar's decode worker
//!         ◄───────── stream, collect ◄──     ◄───────────
//!            SSE     text                      token ids
//! ```
//!
//! The front is the only part of Baton that knows text: it renders, encodes, decodes, and finds stop strings; behind the
//! [`Generator`] there are token ids. It checks a request once, completely, before anybody else hears of it.
//!
//! Who may ask, and how much, is decided at its [`Edge`], by `baton-tenancy`; credentials go no further. What the generator can't serve
//! may go to another server from there ([`Upstreams`]).
//!
//! Left out on purpose: workers, placement, and any state about a request that outlives it.
//!
//! # Invariants
//! - Every request ends in exactly one way: an answer, an error with its status, or, once a stream has begun, an error event.
//! - Dropping an answer (the client has gone) drops its generations.

#![forbid(unsafe_code)]

mod access;
mod adapters;
mod api_error;
mod app;
mod args;
mod body;
mod collect;
mod completion;
mod config;
mod constrain;
mod edge;
mod error;
mod fields;
mod generator;
mod id;
mod logprobs;
mod metrics;
mod model_text;
mod operators;
mod outline;
mod prompt;
mod record;
mod records;
mod request;
mod routes;
mod run;
mod spans;
mod stream;
mod tools;
mod upstream;
mod watch;
mod wire;

pub use app::Front;
pub use args::FrontArgs;
pub use config::{FormatChoice, FrontConfig, RequestLimits};
pub use edge::Edge;
pub use error::{
    BadHeader, CallBroken, DeadlinePassed, GenerateError, NeverFits, NoDecodeWorker, NoSuchAdapter, NotNow,
    Stopping, WorkerFailed, WorkerLost,
};
pub use generator::{
    AdapterRefused, Deadline, EventKind, Events, Generation, GenerationEvent, GenerationSpec, Generator,
    Owner, RecordedTraffic, ServedAdapter,
};
pub use id::{new_request_id, shown_request_id};
pub use metrics::FrontMetrics;
pub use model_text::ModelText;
pub use operators::OperatorFront;
pub use outline::{Outline, OutlineError};
pub use upstream::{UpstreamError, Upstreams};
pub use watch::{EndedBy, RequestEnd, RequestHead, RequestWatch};

use app::App;
