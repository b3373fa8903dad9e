//! The scheduler as a process part: binds, serves, drains.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use baton_grammar::{GrammarError, Grammars, TokenBytes, Vocabulary};
use baton_parsers::Formats;
use baton_process::{BindError, Metrics, Readiness, Shutdown, bind};
use baton_proto::{MAX_STREAMS, v1::registry_server::RegistryServer};
use baton_tls::{Listener, Tls, TlsError};
use baton_tokenizer::{LoadError, Tokenizer, VocabularyToken};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::{
    SchedulerArgs,
    api::{self, App},
    config::Config,
    dispatch::Dispatcher,
    fleet::{Fleet, RegistryService, ServedModel},
    metrics::SchedulerMetrics,
    placement::LeastLoaded,
};

/// Why the scheduler could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The model folder's tokenizer can't be used.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// A port can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener failed.
    #[error("serving failed")]
    Serve(#[from] std::io::Error),
    /// The registry's gRPC server failed.
    #[error("the registry failed")]
    Registry(#[from] tonic::transport::Error),
}

/// A scheduler whose ports are bound: nothing is lost between binding and serving.
pub struct Scheduler {
    app: Arc<App>,
    http: TcpListener,
    registry: TcpListener,
    tls: Tls,
    // Gives up every request in flight.
    root: CancellationToken,
}

impl Scheduler {
    /// Loads the tokenizer and takes the ports.
    ///
    /// # Errors
    /// [`SchedulerError`], for a person to read.
    pub async fn bind(config: Config, metrics: &Metrics) -> Result<Self, SchedulerError> {
        let tls = Tls::load_with_front(&config.tls, &config.front_tls)?;
        tls.register(metrics);
        let (tokenizer, grammars) = load_text_side(&config).await?;
        let formats = formats_of(&config, &tokenizer);
        let http = bind(config.listen, "--listen").await?;
        let registry = bind(config.registry_listen, "--registry-listen").await?;
        let root = CancellationToken::new();
        let name = config.served_model_names.first().cloned().unwrap_or_default();
        let scheduler_metrics = SchedulerMetrics::new(metrics, &name, config.limits.max_inflight);
        let served = served_model(&config, &tokenizer);
        let fleet = Fleet::new(served, config.fleet.clone(), scheduler_metrics.clone(), root.clone());
        let fleet = Arc::new(fleet.over(tls.dial()));
        let dispatcher = Dispatcher::new(
            fleet.clone(),
            Box::new(LeastLoaded),
            config.limits.retries,
            config.aggregated,
            scheduler_metrics.clone(),
        );
        let encoders = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let app = App {
            inflight: Arc::new(Semaphore::new(
                usize::try_from(config.limits.max_inflight).unwrap_or(usize::MAX),
            )),
            encoders: Arc::new(Semaphore::new(encoders)),
            dispatcher: Arc::new(dispatcher),
            readiness: Readiness::not_yet("the scheduler is starting"),
            started_at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            registry: metrics.clone(),
            metrics: scheduler_metrics,
            config,
            formats,
            marks: control_tokens(&tokenizer, formats),
            grammars,
            tokenizer,
            fleet,
        };
        Ok(Self { app: Arc::new(app), http, registry, tls, root })
    }

    /// Where the HTTP front listens.
    ///
    /// # Errors
    /// The system's.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Where the registry listens.
    ///
    /// # Errors
    /// The system's.
    pub fn registry_address(&self) -> std::io::Result<SocketAddr> {
        self.registry.local_addr()
    }

    /// Serves until `shutdown`, then drains: no new connections, requests in flight come to their end or are given up when
    /// the drain time is over, and the registry goes last.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), SchedulerError> {
        let Self { app, http, registry, tls, root } = self;
        let tasks = TaskTracker::new();
        let registry_stop = CancellationToken::new();
        let registry = spawn_registry(&app, tls.grpc_listener(registry), &tasks, &registry_stop);
        tasks.spawn(tls.clone().keep_fresh(registry_stop.clone()));
        app.readiness.set_ready();

        let front = serve_http(&app, tls.front_listener(http), shutdown.clone());
        tokio::pin!(front);
        let served = tokio::select! {
            served = &mut front => served,
            () = shutdown.triggered() => {
                app.readiness.set_not_ready("the scheduler is stopping");
                drain(front, app.config.drain_timeout, &root).await
            }
        };
        registry_stop.cancel();
        root.cancel();
        tasks.close();
        tasks.wait().await;
        // The task is neither cancelled nor does it panic: what is left is its own result.
        let registry = registry.await.unwrap_or(Ok(()));
        served?;
        Ok(registry?)
    }
}

/// After the drain time, requests in flight are told that they are given up; their clients get an error, not a silence.
async fn drain(
    mut front: impl Future<Output = std::io::Result<()>> + Unpin,
    limit: Duration,
    root: &CancellationToken,
) -> std::io::Result<()> {
    const LAST_WORDS: Duration = Duration::from_secs(1);
    let end = Instant::now() + limit;
    if let Ok(served) = timeout_at(end, &mut front).await {
        return served;
    }
    tracing::warn!(
        limit_s = limit.as_secs(),
        "requests are still in flight after the drain time: giving them up"
    );
    root.cancel();
    timeout_at(end + LAST_WORDS, front).await.unwrap_or(Ok(()))
}

async fn serve_http(app: &Arc<App>, listener: Listener, shutdown: Shutdown) -> std::io::Result<()> {
    let stop = async move { shutdown.triggered().await };
    axum::serve(listener, api::router(app.clone())).with_graceful_shutdown(stop).await
}

fn spawn_registry(
    app: &Arc<App>,
    listener: Listener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    /// A report of load is a few hundred bytes; one of pairs has a line for each decode worker.
    const MOST_REPORT_BYTES: usize = 4 << 20;
    let service = RegistryService::new(app.fleet.clone(), tasks.clone(), stop.clone());
    let service = RegistryServer::new(service).max_decoding_message_size(MOST_REPORT_BYTES);
    let stop = stop.clone();
    tasks.spawn(async move {
        Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(service)
            .serve_with_incoming_shutdown(listener.into_stream(), stop.cancelled_owned())
            .await
    })
}

type TextSide = (Arc<Tokenizer>, Result<Grammars, GrammarError>);

async fn load_text_side(config: &Config) -> Result<TextSide, LoadError> {
    let model = config.model.clone();
    let loaded = tokio::task::spawn_blocking(move || {
        let tokenizer = Tokenizer::load(&model)?;
        let grammars = grammars_of(&tokenizer);
        Ok((Arc::new(tokenizer), grammars))
    });
    loaded.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What the model writes around its answers: as its chat template shows, unless the operator says otherwise.
fn formats_of(config: &Config, tokenizer: &Tokenizer) -> Formats {
    let detected = baton_parsers::detect(&tokenizer.chat_templates());
    let formats = Formats {
        tools: config.tool_call_parser.or(detected.tools),
        reasoning: config.reasoning_parser.or(detected.reasoning),
    };
    tracing::info!(tool_calls = ?formats.tools, reasoning = ?formats.reasoning, "formats of the model's output");
    formats
}

fn control_tokens(tokenizer: &Tokenizer, formats: Formats) -> Arc<[u32]> {
    let marks = formats.marks().into_iter().filter_map(|mark| tokenizer.added_token(mark));
    marks.filter(|&id| tokenizer.is_special(id)).collect()
}

/// Of the same vocabulary that workers have.
fn grammars_of(tokenizer: &Tokenizer) -> Result<Grammars, GrammarError> {
    let tokens = tokenizer
        .vocabulary()
        .ok_or(GrammarError::Unsupported("its tokenizer's tokens have no bytes of their own"))?;
    let size = tokenizer.vocab_size().max(tokenizer.facts().vocab_size.unwrap_or(0));
    let bytes = |token: VocabularyToken| TokenBytes { bytes: token.bytes, is_special: token.is_special };
    let tokens = tokens.into_iter().map(bytes);
    let vocabulary =
        Vocabulary::new(tokens, usize::try_from(size).unwrap_or(usize::MAX), tokenizer.eos_ids())?;
    Grammars::new(&vocabulary)
}

fn served_model(config: &Config, tokenizer: &Tokenizer) -> ServedModel {
    let mut names = config.served_model_names.clone();
    let own_name = baton_tokenizer::served_name(&config.model);
    if !names.contains(&own_name) {
        names.push(own_name);
    }
    let facts = tokenizer.facts();
    ServedModel {
        names,
        context_tokens: config.max_context_tokens,
        model_context_tokens: facts.context_tokens,
        vocab_size: facts.vocab_size,
    }
}

/// Runs a scheduler until `shutdown`; what the `baton scheduler` command does.
///
/// # Errors
/// [`SchedulerError`].
pub async fn run(args: SchedulerArgs, shutdown: Shutdown) -> Result<(), SchedulerError> {
    let config = Config::from(&args);
    if args.print_config {
        return Ok(writeln!(std::io::stdout(), "{}", config.to_json())?);
    }
    let scheduler = Scheduler::bind(config, &Metrics::new()).await?;
    let (http, registry) = (scheduler.http_address()?, scheduler.registry_address()?);
    tracing::info!(%http, %registry, "scheduler listening");
    baton_process::report_listening([("http", http), ("registry", registry)]);
    scheduler.serve(shutdown).await
}
