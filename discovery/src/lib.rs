//! Model servers that do not register themselves: which there are, and how loaded they are.
//!
//! Baton's own workers say by themselves that they are there, and what they have to do. vLLM and SGLang servers do not: they are found in a
//! file or in Kubernetes, and their load is read from the pages that they keep for Prometheus.
//!
//! ```text
//!  file ─────────────┐                       ┌──► whoever decides: which endpoints may get requests
//!  Kubernetes ───────┼─► Publisher ─► Source ┤
//!  (the registry) ───┘    complete sets      └──► Scraper ─► Loads: how much each has to do
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`Source`], [`Publisher`], [`Snapshot`] | the seam: one current, complete set of [`Endpoint`]s |
//! | [`file`](mod@file) | from a YAML file that is read again when it changes |
//! | [`kubernetes`] | from an InferencePool or a Service, and their pods |
//! | [`load`] | what a metrics page says, pure |
//! | [`scrape`] | reading the pages of all endpoints, many times a second |
//! | [`export()`] | metrics of what the sources know, and how old that is |
//!
//! Left out: choosing among endpoints, and listening to KV events, for which an endpoint only says where. TLS to metrics pages.
//!
//! # Invariants
//! - A set is published whole or not at all; what fails leaves the last one where it is, and its age grows.
//! - Only ready endpoints are eligible; a pod is draining from the moment that its deletion is known.
//! - There is one request at most to a server at any time, and what it answers is bounded in time and bytes.
//! - Nothing is spawned but by a `run` future, which ends it.
#![forbid(unsafe_code)]

mod endpoint;
pub mod file;
pub mod kubernetes;
pub mod load;
mod metrics;
pub mod scrape;
mod source;
#[cfg(test)]
mod testing;

pub use endpoint::{Endpoint, Engine, KvEvents, MetricsPage, Place, Role, State};
pub use metrics::export;
pub use source::{Publisher, Snapshot, Source, source};
