//! The scheduler as a process part: binds, serves, drains.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use baton_endpoint_picker::Limits;
use baton_front::{Edge, Front, ModelText, OperatorFront, UpstreamError, Upstreams};
use baton_kv_index::IndexLimits;
use baton_process::{BindError, Metrics, Readiness, Shutdown, bind, serve_admin};
use baton_proto::{
    MAX_STREAMS,
    v1::{directory_server::DirectoryServer, registry_server::RegistryServer},
};
use baton_tenancy::{Tenancy, TenancyError};
use baton_tls::{Listener, Tls, TlsError};
use baton_tokenizer::{LoadError, Tokenizer};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::{
    SchedulerArgs,
    config::{Config, PickerConfig, Priorities, ProfileError},
    directory::DirectoryService,
    dispatch::Dispatcher,
    epp::Epp,
    fleet::{Fleet, RegistryService, ServedModel},
    foreign::{self, DiscoveryError},
    generator::FleetGenerator,
    metrics::SchedulerMetrics,
    picker::{GatewayPicker, Ports},
    router::{CacheIndex, CacheKeeper, DecisionLog, Router, RouterConfig, RouterMetrics},
};

/// Why the scheduler could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody said what is served.
    #[error(
        "without --model, --served-model-name must say what the servers serve: metrics and workers that join call it so"
    )]
    NoName,
    /// The model folder's tokenizer can't be used.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// API keys or the audit log can't be used.
    #[error(transparent)]
    Tenancy(#[from] TenancyError),
    /// Upstreams can't be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The routing profile can't be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Servers can't be looked for.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The file for decisions can't be written.
    #[error("--decision-log {}: cannot be opened for appending; its folder must exist and be writable", path.display())]
    DecisionLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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

/// What a request will have cached where it goes counts for so long before its worker has told so itself.
const GUESS_SECONDS: u64 = 30;

/// What answers HTTP.
enum Http {
    Front(Arc<Front>),
    /// There is no model: it only picks for gateways.
    OperatorFront(OperatorFront),
}

impl Http {
    fn front(&self) -> Option<Arc<Front>> {
        match self {
            Self::Front(front) => Some(front.clone()),
            Self::OperatorFront(_) => None,
        }
    }

    async fn serve(
        &self,
        listener: Listener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        match self {
            Self::Front(front) => front.serve(listener, stop).await,
            Self::OperatorFront(front) => front.serve(listener, stop).await,
        }
    }
}

/// A scheduler whose ports are bound: nothing is lost between binding and serving.
pub struct Scheduler {
    http_front: Http,
    fleet: Arc<Fleet>,
    readiness: Readiness,
    drain_timeout: Duration,
    http: TcpListener,
    registry: TcpListener,
    router: Arc<Router>,
    cache_keeper: CacheKeeper,
    picker: Option<(Ports, PickerConfig, Priorities)>,
    admin: Option<TcpListener>,
    metrics: Metrics,
    tenancy: Tenancy,
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
        let profile = config.routing.load()?;
        let tenancy = Tenancy::open(&config.tenancy, metrics)?;
        if !tenancy.needs_key() && !config.listen.ip().is_loopback() {
            tracing::warn!(listen = %config.listen, "whoever reaches the front is served: it asks for no key (--api-keys-file)");
        }
        let tls = Tls::load_with_front(&config.tls, &config.front_tls)?;
        tls.register(metrics);
        let upstreams = match &config.upstream {
            Some(file) => Upstreams::open(file, metrics)?,
            None => Upstreams::default(),
        };
        let text = match &config.model {
            Some(model) => Some(ModelText::load(model, &config.front).await?),
            None if config.front.served_model_names.is_empty() => return Err(SchedulerError::NoName),
            None => None,
        };
        let http = bind(config.listen, "--listen").await?;
        let registry = bind(config.registry_listen, "--registry-listen").await?;
        let picker = Ports::bind(&config.picker).await?;
        let picker = picker.map(|ports| (ports, config.picker.clone(), config.routing.priorities.clone()));
        let admin = match config.admin_listen {
            Some(address) => Some(bind(address, "--admin-listen").await?),
            None => None,
        };
        let root = CancellationToken::new();
        let max_inflight = config.front.limits.max_inflight;
        let scheduler_metrics = SchedulerMetrics::new(metrics, config.front.shown_name(), max_inflight);
        let served = served_model(&config, text.as_ref().map(|text| &*text.tokenizer));
        let limits =
            IndexLimits { bytes: config.routing.kv_index_bytes as usize, guess_seconds: GUESS_SECONDS };
        let (cache, cache_keeper) = CacheIndex::start(limits)?;
        let routing = RouterConfig {
            model: config.front.shown_name().to_owned(),
            profile,
            admission: config.routing.admission(),
            records: config.routing.decisions as usize,
            log: decision_log(&config, metrics)?,
            traffic_bytes: config.routing.traffic_bytes as usize,
        };
        let epp = Arc::new(Epp::new(served.names.clone()));
        let router = Arc::new(Router::new(routing, cache, RouterMetrics::new(metrics), epp.clone()));
        epp.register(metrics, router.clone(), config.picker.pool_name());
        let fleet =
            Fleet::new(served, config.fleet.clone(), router.clone(), scheduler_metrics.clone(), root.clone());
        let fleet = Arc::new(fleet.over(tls.dial()));
        let (counted, routed) = (fleet.clone(), router.clone());
        metrics.before_each_encode(move || {
            counted.count_pairs();
            routed.show_memory();
        });
        let dispatcher = Dispatcher::new(fleet.clone(), router.clone(), &config, scheduler_metrics.clone());
        let generator = Arc::new(FleetGenerator {
            fleet: fleet.clone(),
            dispatcher,
            is_aggregated: config.aggregated,
            only_picks: text.is_none(),
        });
        let readiness = Readiness::not_yet("the scheduler is starting");
        let front_metrics = scheduler_metrics.front.clone();
        let http_front = match text {
            Some(text) => Http::Front(Arc::new(Front::new(
                config.front,
                text,
                generator,
                front_metrics,
                metrics.clone(),
                readiness.clone(),
                Edge { tenancy: tenancy.clone(), upstreams },
            ))),
            None => Http::OperatorFront(OperatorFront::new(
                generator,
                metrics.clone(),
                readiness.clone(),
                tenancy.clone(),
                config.front.limits,
            )),
        };
        Ok(Self {
            http_front,
            fleet,
            readiness,
            drain_timeout: config.drain_timeout,
            http,
            registry,
            router,
            cache_keeper,
            picker,
            admin,
            metrics: metrics.clone(),
            tenancy,
            tls,
            root,
        })
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

    /// Where it listens beside, by what for.
    ///
    /// # Errors
    /// The system's.
    pub fn other_addresses(&self) -> std::io::Result<Vec<(&'static str, SocketAddr)>> {
        let mut addresses = match &self.picker {
            Some((ports, ..)) => ports.addresses()?,
            None => Vec::new(),
        };
        if let Some(admin) = &self.admin {
            addresses.push(("admin", admin.local_addr()?));
        }
        Ok(addresses)
    }

    /// Serves until `shutdown`, then drains: no new connections, requests in flight come to their end or are given up when
    /// the drain time is over, and the registry goes last.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), SchedulerError> {
        let Self {
            http_front, fleet, readiness, drain_timeout, http, registry, router, cache_keeper, ..
        } = self;
        let Self { picker, admin, metrics, tenancy, tls, root, .. } = self;
        let tasks = TaskTracker::new();
        let registry_stop = CancellationToken::new();
        let registry = spawn_registry(fleet.clone(), tls.grpc_listener(registry), &tasks, &registry_stop);
        tasks.spawn(tls.clone().keep_fresh(registry_stop.clone()));
        tasks.spawn(tenancy.keep_fresh(registry_stop.clone()));
        if let Some((ports, config, priorities)) = picker {
            foreign::start(&config, router.clone(), &metrics, &tasks, &root).await?;
            let picker = GatewayPicker {
                front: http_front.front(),
                fleet: fleet.clone(),
                router: router.clone(),
                priorities,
                most_encoded_bytes: usize::try_from(config.encoded_bytes).unwrap_or(usize::MAX),
            };
            let limits = Limits { conformance: config.conformance, ..Limits::default() };
            let serving = ports.serve(picker, limits, tls.clone(), readiness.clone(), registry_stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the endpoint picker failed");
                }
            });
        }
        if let Some(admin) = admin {
            let stop = registry_stop.clone().cancelled_owned();
            let serving = serve_admin(tls.http_listener(admin), metrics, readiness.clone(), stop);
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the listener for metrics failed");
                }
            });
        }
        let (keeping, kept) = (root.clone(), router.clone());
        tasks.spawn(async move { kept.keep(keeping).await });
        tasks.spawn(cache_keeper.keep(root.clone()));
        readiness.set_ready();

        let stop = shutdown.clone();
        let serving = http_front.serve(tls.front_listener(http), async move { stop.triggered().await });
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = shutdown.triggered() => {
                readiness.set_not_ready("the scheduler is stopping");
                drain(serving, drain_timeout, &root).await
            }
        };
        registry_stop.cancel();
        root.cancel();
        tasks.close();
        tasks.wait().await;
        router.close_log();
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

fn spawn_registry(
    fleet: Arc<Fleet>,
    listener: Listener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> JoinHandle<Result<(), tonic::transport::Error>> {
    /// A report of load is a few hundred bytes; one of pairs has a line for each decode worker.
    const MOST_REPORT_BYTES: usize = 4 << 20;
    let directory = DirectoryServer::new(DirectoryService::new(fleet.clone(), stop.clone()));
    let service = RegistryService::new(fleet, tasks.clone(), stop.clone());
    let service = RegistryServer::new(service).max_decoding_message_size(MOST_REPORT_BYTES);
    let stop = stop.clone();
    tasks.spawn(async move {
        Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(service)
            .add_service(directory)
            .serve_with_incoming_shutdown(listener.into_stream(), stop.cancelled_owned())
            .await
    })
}

fn decision_log(config: &Config, metrics: &Metrics) -> Result<Option<DecisionLog>, SchedulerError> {
    let Some(path) = &config.routing.decision_log else { return Ok(None) };
    let failed = |source| SchedulerError::DecisionLog { path: path.clone(), source };
    DecisionLog::open(path, metrics).map(Some).map_err(failed)
}

fn served_model(config: &Config, tokenizer: Option<&Tokenizer>) -> ServedModel {
    let mut names = config.front.served_model_names.clone();
    let own_name = config.model.as_deref().map(baton_tokenizer::served_name);
    names.extend(own_name.filter(|own| !names.contains(own)));
    let facts = tokenizer.map(Tokenizer::facts).unwrap_or_default();
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
    let scheduler = Scheduler::bind(config, &Metrics::of_process()).await?;
    let (http, registry) = (scheduler.http_address()?, scheduler.registry_address()?);
    tracing::info!(%http, %registry, "scheduler listening");
    let others = scheduler.other_addresses()?;
    baton_process::report_listening([("http", http), ("registry", registry)].into_iter().chain(others));
    scheduler.serve(shutdown).await
}
