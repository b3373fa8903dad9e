//! The seam: who generates, as the front sees it.
//!
//! Calls that happen once a request return boxed futures; an event costs one indirect call and no allocation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use baton_process::TraceContext;
use baton_proto::v1::{
    Account, Failure, FinishReason, GenerateEvent, SamplingParams, Token, generate_event::Event,
};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::HeaderMap;
use serde_json::Value;

use crate::{GenerateError, RequestHead, RequestWatch};

/// Generates completions from tokens, and knows who would serve them.
pub trait Generator: Send + Sync {
    /// Starts `spec` and waits for its first event. Until then nothing has been shown to anybody, so that the generator may
    /// try again elsewhere.
    ///
    /// # Cancel safety
    /// Dropping the future, or the [`Generation`], cancels the generation and frees what is held for it.
    fn start<'a>(&'a self, spec: &'a GenerationSpec) -> BoxFuture<'a, Result<Generation, GenerateError>>;

    /// Longest context that is served, in tokens, as far as it is known.
    fn context_tokens(&self) -> Option<u32>;

    /// What the largest KV cache holds, in tokens, as far as it is known.
    fn largest_capacity_tokens(&self) -> Option<u64>;

    /// The adapters that requests may select.
    fn adapters(&self) -> Vec<ServedAdapter>;

    /// Has the adapter in `path` loaded by all that serve, or by none of them.
    fn load_adapter<'a>(&'a self, name: &'a str, path: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>>;

    /// Has an adapter unloaded.
    fn unload_adapter<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AdapterRefused>>;

    /// `Ok` if a request would be served.
    ///
    /// # Errors
    /// Each thing that is missing.
    fn check_ready(&self) -> Result<(), Vec<String>>;

    /// `Ok` once every prefill worker is connected to every decode worker, with a line for each two that never will be.
    ///
    /// # Errors
    /// A line for each two that are not connected yet.
    fn check_pairs(&self) -> Result<Vec<String>, Vec<String>>;

    /// The workers, for people: `/v1/workers`.
    fn workers(&self) -> Vec<Value>;

    /// Where a request was sent and why, for people: `/v1/decisions/ID`. Of several completions the first, unless the id says which.
    fn decision(&self, _request_id: &str) -> Option<Value> {
        None
    }

    /// What workers' steps took, with what bears on it: `/v1/steps`.
    fn steps(&self) -> Vec<Value> {
        Vec::new()
    }

    /// The last decisions, newest first, at most `most`: `/v1/decisions`.
    fn decisions(&self, _most: usize) -> Vec<Value> {
        Vec::new()
    }

    /// The requests of the last `span`: `/v1/traffic`. `None`: no record of them is kept.
    fn traffic(&self, _span: Duration) -> Option<RecordedTraffic> {
        None
    }

    /// Asked once for each request: whoever follows it, if anybody does.
    fn watch(&self, _request: &RequestHead<'_>) -> Option<Box<dyn RequestWatch>> {
        None
    }
}

/// Requests that came, as a trace: times, lengths, and which prompts began alike.
pub struct RecordedTraffic {
    /// How many they are.
    pub requests: usize,
    /// How far back all of them are there.
    pub span: Duration,
    /// A JSON object a line, in the order of their arrival, some lines at a time.
    pub lines: Box<dyn Iterator<Item = Bytes> + Send>,
}

/// One completion to be generated.
#[derive(Clone)]
pub struct GenerationSpec {
    /// Unique, also when clients give the same id twice.
    pub request_id: String,
    /// Token ids.
    pub prompt: Arc<[u32]>,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Selected by name; the decode worker's revision of it is the one that counts.
    pub adapter: Option<String>,
    /// With whom it shares cached prefixes; `None`: with all that have none either.
    pub cache_salt: Option<String>,
    /// When it must have ended.
    pub deadline: Deadline,
    /// The client's headers, without its credentials: the generator may know some that the front does not.
    pub headers: Arc<HeaderMap>,
    /// The front's span of it: others are parts of that.
    pub trace: TraceContext,
    /// Whose it is; `None`: the front knows no tenants, and the headers may say.
    pub owner: Option<Owner>,
}

/// Whose a request is, by its key: clients cannot choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The key's name.
    pub tenant: Arc<str>,
    /// The higher, the sooner.
    pub priority: i32,
    /// Its share beside other tenants of its priority; at least 1.
    pub weight: u32,
}

/// When a request must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// That moment.
    pub at: Instant,
    /// How long it had, when it came.
    pub limit: Duration,
}

/// A running generation. Dropping it cancels it.
pub struct Generation {
    /// The decode worker's id.
    pub decode_worker: String,
    /// Empty, or why it is not served as first intended.
    pub fallback: String,
    /// Its first event.
    pub first: GenerationEvent,
    /// The others; not asked for any more after `Finished` or an error.
    pub rest: Events,
}

/// Events as they come.
pub type Events = BoxStream<'static, Result<GenerationEvent, GenerateError>>;

/// What a generation yields: tokens, then its end.
#[derive(Clone, Debug)]
pub struct GenerationEvent {
    /// What happened.
    pub kind: EventKind,
    /// When it says more than the last one.
    pub account: Option<Account>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// At least one token.
    Tokens(Vec<Token>),
    /// That was all.
    Finished(FinishReason),
}

impl GenerationEvent {
    /// From a sidecar's message; `None`: one of a newer sidecar, which says nothing here.
    ///
    /// # Errors
    /// It says that the request failed.
    pub fn from_wire(message: GenerateEvent) -> Result<Option<Self>, Failure> {
        let kind = match message.event {
            Some(Event::Tokens(tokens)) => EventKind::Tokens(tokens.tokens),
            Some(Event::Finished(finished)) => EventKind::Finished(finished.reason()),
            Some(Event::Failure(failure)) => return Err(failure),
            None => return Ok(None),
        };
        Ok(Some(Self { kind, account: message.account }))
    }
}

/// An adapter that requests may select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedAdapter {
    /// What it is selected by.
    pub name: String,
    /// Its folder on a worker.
    pub path: String,
}

/// Why an adapter was not loaded or unloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdapterRefused {
    /// Nobody is here to load it.
    #[error("{0}")]
    NotReady(String),
    /// It can't have that name.
    #[error("{0}")]
    BadName(String),
    /// What is in its folder can't be loaded.
    #[error("{0}")]
    BadPath(String),
    /// There is no such adapter.
    #[error("{0}")]
    NotFound(String),
}
