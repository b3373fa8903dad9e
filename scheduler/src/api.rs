//! The OpenAI HTTP front.
//!
//! A request goes through the same stations whatever its path: [`body`] reads it under limits, [`request`] parses it (after
//! that nothing is re-checked), [`constrain`] compiles its grammar, [`prompt`] renders and encodes it, [`run`] generates, and [`stream`] or [`collect`] writes
//! the answer in the [`wire`] shape of its path. Whatever fails becomes an [`error::ApiError`], and HTTP there.

mod adapters;
mod body;
mod collect;
mod constrain;
mod error;
mod fields;
mod id;
mod logprobs;
mod prompt;
mod record;
mod request;
mod routes;
mod run;
mod stream;
mod tools;
mod wire;

use std::sync::Arc;

use baton_grammar::{GrammarError, Grammars};
use baton_parsers::Formats;
use baton_process::{Metrics, Readiness};
use baton_tokenizer::Tokenizer;
use tokio::sync::Semaphore;

pub(crate) use routes::router;

use crate::{config::Config, dispatch::Dispatcher, fleet::Fleet, metrics::SchedulerMetrics};

/// What every handler needs.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// What the model writes around its answers.
    pub(crate) formats: Formats,
    /// The control tokens among the marks of those formats.
    pub(crate) marks: Arc<[u32]>,
    /// Checks what outputs must be; an error: this model's can't be constrained.
    pub(crate) grammars: Result<Grammars, GrammarError>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) metrics: SchedulerMetrics,
    pub(crate) registry: Metrics,
    pub(crate) readiness: Readiness,
    /// One permit a completion in flight; none free: 429.
    pub(crate) inflight: Arc<Semaphore>,
    /// One permit a prompt being encoded off the async threads; none free: wait.
    pub(crate) encoders: Arc<Semaphore>,
    /// Unix seconds.
    pub(crate) started_at: u64,
}
