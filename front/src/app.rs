//! The front, put together.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use axum::{Router, serve::Listener};
use baton_grammar::{GrammarError, Grammars};
use baton_parsers::Formats;
use baton_process::{Metrics, Readiness};
use baton_tokenizer::Tokenizer;
use tokio::sync::Semaphore;

use crate::{
    Edge, FrontConfig, FrontMetrics, Generator, ModelText, OperatorFront, metrics::Handles, operators, routes,
};

/// What every handler needs.
pub(crate) struct App {
    pub(crate) config: FrontConfig,
    /// The model's folder.
    pub(crate) folder: PathBuf,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// What the model writes around its answers.
    pub(crate) formats: Formats,
    /// The control tokens among the marks of those formats.
    pub(crate) marks: Arc<[u32]>,
    /// Checks what outputs must be; an error: this model's can't be constrained.
    pub(crate) grammars: Result<Grammars, GrammarError>,
    pub(crate) generator: Arc<dyn Generator>,
    pub(crate) edge: Edge,
    pub(crate) metrics: Arc<Handles>,
    pub(crate) operators: OperatorFront,
    /// One permit a completion in flight; none free: 429.
    pub(crate) inflight: Arc<Semaphore>,
    /// One permit a prompt being encoded off the async threads; none free: wait.
    pub(crate) encoders: Arc<Semaphore>,
    /// Unix seconds.
    pub(crate) started_at: u64,
}

/// The OpenAI HTTP front over a [`Generator`].
pub struct Front(pub(crate) Arc<App>);

impl Front {
    /// `/ready` says no until `readiness` and the generator say yes; `/metrics` shows all of `registry`.
    pub fn new(
        config: FrontConfig,
        text: ModelText,
        generator: Arc<dyn Generator>,
        metrics: FrontMetrics,
        registry: Metrics,
        readiness: Readiness,
        edge: Edge,
    ) -> Self {
        let ModelText { folder, tokenizer, formats, marks, grammars } = text;
        let limits = config.limits.clone();
        let operators =
            OperatorFront::new(generator.clone(), registry, readiness, edge.tenancy.clone(), limits);
        let encoders = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let max_inflight = usize::try_from(config.limits.max_inflight).unwrap_or(usize::MAX);
        Self(Arc::new(App {
            config,
            folder,
            tokenizer,
            formats,
            marks,
            grammars,
            generator,
            edge,
            metrics: metrics.0,
            operators,
            inflight: Arc::new(Semaphore::new(max_inflight)),
            encoders: Arc::new(Semaphore::new(encoders)),
            started_at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }))
    }

    /// Its paths, to be served or layered upon.
    pub fn router(&self) -> Router {
        routes::router(self.0.clone())
    }

    /// Serves until `stop`, then takes no new connections and returns when those that are open have ended.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve<L: Listener<Addr = SocketAddr>>(
        &self,
        listener: L,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        operators::serve(self.router(), listener, stop).await
    }
}
