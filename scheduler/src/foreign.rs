//! Model servers that do not register themselves: they join the router as discovery finds them, with the load that their pages tell and the caches
//! that they publish.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use baton_discovery::{
    Endpoint, KvEvents, Role, Snapshot, Source, State,
    file::{FileError, FileWatcher},
    kubernetes::{self, ConnectError, Kubernetes, Members, Options},
    scrape::{Health, Loads, ScrapeOptions, Scraper},
};
use baton_kv_index::{Source as Publisher, Subscriber, WorkerSpec};
use baton_policy::view;
use baton_process::Metrics;
use baton_proto::v1::WorkerLoad;
use tokio::{task::JoinSet, time};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    config::PickerConfig,
    router::{Reach, Router, Tracked, WorkerFacts},
};

/// Between two looks at what pages told.
const LOOK: Duration = Duration::from_millis(50);
/// Until a page tells how much a server's KV cache holds.
const CAPACITY_UNKNOWN: u64 = 1_000_000;
/// Until events tell.
const BLOCK_TOKENS_UNKNOWN: u32 = 16;
/// Pages count the requests that wait, not their tokens.
const WAITING_PROMPT_TOKENS: u64 = 512;

/// Why servers can't be looked for.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Their list can't be used.
    #[error("the list of servers can't be used")]
    File(#[from] FileError),
    /// There is no way to Kubernetes.
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
}

/// Looks for servers as the operator says, until `stop`.
///
/// # Errors
/// [`DiscoveryError`].
pub(crate) async fn start(
    config: &PickerConfig,
    router: Arc<Router>,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), DiscoveryError> {
    let source = match (&config.servers, &config.inference_pool) {
        (Some(path), _) => {
            let (watcher, source) = FileWatcher::open(path, metrics).await?;
            tasks.spawn(watcher.run(stop.clone()));
            source
        }
        (None, Some(pool)) => {
            let (namespace, name) = match pool.split_once('/') {
                Some((namespace, name)) => (namespace.to_owned(), name),
                None => (own_namespace(), pool.as_str()),
            };
            let mut options = Options::new(namespace, Members::Pool(name.to_owned()));
            options.shape.kv_events_port = config.pool_kv_events_port;
            options.shape.kv_replay_port = config.pool_kv_replay_port;
            let (watcher, source) = Kubernetes::new(kubernetes::connect().await?, options, metrics);
            tasks.spawn(watcher.run(stop.clone()));
            source
        }
        (None, None) => return Ok(()),
    };
    baton_discovery::export(vec![source.clone()], metrics);
    let options = ScrapeOptions { every: config.scrape_every, ..ScrapeOptions::default() };
    let (scraper, loads) = Scraper::new(source.clone(), options, metrics);
    tasks.spawn(scraper.run(stop.clone()));
    tasks.spawn(Foreign::new(source, loads, router).run(stop.clone()));
    Ok(())
}

/// As a pod's service account says.
fn own_namespace() -> String {
    const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let namespace = std::env::var("POD_NAMESPACE").or_else(|_| std::fs::read_to_string(PATH));
    namespace.map_or_else(|_| "default".to_owned(), |name| name.trim().to_owned())
}

/// Keeps the router up to date with what a source finds.
pub(crate) struct Foreign {
    source: Source,
    loads: Loads,
    router: Arc<Router>,
    known: HashMap<Arc<str>, Known>,
    listeners: JoinSet<()>,
}

struct Known {
    endpoint: Endpoint,
    told_at: Option<Instant>,
    // Whether it answers.
    is_healthy: bool,
    _tracked: Option<Arc<Tracked>>,
    _listening: Option<DropGuard>,
}

impl Foreign {
    pub(crate) fn new(source: Source, loads: Loads, router: Arc<Router>) -> Self {
        Self { source, loads, router, known: HashMap::new(), listeners: JoinSet::new() }
    }

    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let set = self.source.snapshot();
        self.follow(&set).await;
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut is_fed = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                set = self.source.changed(), if is_fed => match set {
                    Some(set) => self.follow(&set).await,
                    None => is_fed = false,
                },
                _ = look.tick() => self.look(),
                Some(_) = self.listeners.join_next() => {}
            }
        }
        self.known.clear();
        self.listeners.shutdown().await;
    }

    async fn follow(&mut self, set: &Snapshot) {
        let gone: Vec<Arc<str>> = self.known.keys().filter(|id| set.get(id).is_none()).cloned().collect();
        for id in gone {
            self.leave(&id);
        }
        for endpoint in set.endpoints() {
            let is_same = |known: &Known| {
                let known = &known.endpoint;
                // Its state alone is no reason to begin again.
                Endpoint { state: endpoint.state, ..known.clone() } == *endpoint
            };
            if !self.known.get(&endpoint.id).is_some_and(is_same) {
                self.leave(&endpoint.id);
                self.join(endpoint).await;
            }
            if let Some(known) = self.known.get_mut(&endpoint.id) {
                known.endpoint.state = endpoint.state;
                self.router.opened(&endpoint.id, known.is_open());
            }
        }
    }

    async fn join(&mut self, endpoint: &Endpoint) {
        if self.router.knows(&endpoint.id) {
            tracing::debug!(id = %endpoint.id, "this worker registers itself");
            return;
        }
        self.router.joined(&facts(endpoint));
        for other in self.known.values() {
            self.router.paired(&endpoint.id, &other.endpoint.id, is_pair(endpoint, &other.endpoint));
            self.router.paired(&other.endpoint.id, &endpoint.id, is_pair(&other.endpoint, endpoint));
        }
        let spec = WorkerSpec {
            model: self.router.model().to_owned(),
            block_tokens: BLOCK_TOKENS_UNKNOWN,
            same_hashes: None,
        };
        let tracked = self.router.cache().track(&endpoint.id, spec).await;
        let mut listening = None;
        if let Some(tracked) = &tracked {
            self.router.tracked(&endpoint.id, endpoint.incarnation, tracked.number());
            if let Some(events) = &endpoint.kv_events {
                listening = Some(self.listen(tracked, events));
            }
        }
        tracing::info!(id = %endpoint.id, address = %endpoint.address, role = ?endpoint.role, engine = ?endpoint.engine, "server found");
        let known = Known {
            endpoint: endpoint.clone(),
            told_at: None,
            is_healthy: true,
            _tracked: tracked,
            _listening: listening,
        };
        self.known.insert(endpoint.id.clone(), known);
    }

    fn listen(&mut self, tracked: &Tracked, events: &KvEvents) -> DropGuard {
        let publisher = Publisher {
            events: events.events.to_string(),
            replay: events.replay.as_ref().map(ToString::to_string),
            topic: String::new(),
        };
        let until = CancellationToken::new();
        let subscriber = Subscriber::new(tracked.id(), publisher, tracked.index());
        self.listeners.spawn(subscriber.run(until.clone()));
        until.drop_guard()
    }

    fn leave(&mut self, id: &Arc<str>) {
        if let Some(known) = self.known.remove(id) {
            tracing::info!(%id, address = %known.endpoint.address, "server gone");
            self.router.gone(id, known.endpoint.incarnation);
        }
    }

    /// Passes on what pages told since the last look.
    fn look(&mut self) {
        for (id, report) in self.loads.all() {
            let Some(known) = self.known.get_mut(&id) else { continue };
            let is_healthy = report.health != Health::Unhealthy;
            if is_healthy != known.is_healthy {
                known.is_healthy = is_healthy;
                let error = report.error.as_ref().map(ToString::to_string);
                tracing::warn!(%id, is_healthy, error, "a server's metrics can be read, or can't any more");
                self.router.opened(&id, known.is_open());
            }
            let Some(load) = report.load.filter(|_| report.at != known.told_at) else { continue };
            known.told_at = report.at;
            if let (Some(capacity), Some(block)) = (load.kv_capacity_tokens, load.block_tokens) {
                self.router.sized(&id, capacity, block);
            }
            let blocks = load.blocks().unwrap_or(0);
            let count = |blocks: u64| u32::try_from(blocks).unwrap_or(u32::MAX);
            let used = (blocks as f64 * load.kv_usage.clamp(0.0, 1.0)).round() as u64;
            self.router.reported(
                &id,
                &WorkerLoad {
                    waiting: load.waiting,
                    running: load.running,
                    waiting_prompt_tokens: u64::from(load.waiting) * WAITING_PROMPT_TOKENS,
                    blocks_free: count(blocks - used.min(blocks)),
                    blocks_total: count(blocks),
                    ..WorkerLoad::default()
                },
            );
        }
    }
}

impl Known {
    fn is_open(&self) -> bool {
        self.is_healthy && self.endpoint.state == State::Ready
    }
}

/// Servers of one engine exchange KV blocks by themselves, where they were set up for that: one that only computes prompts was.
fn is_pair(prefill: &Endpoint, decode: &Endpoint) -> bool {
    prefill.engine == decode.engine && prefill.role == Role::Prefill && decode.role != Role::Prefill
}

fn facts(endpoint: &Endpoint) -> WorkerFacts {
    let mut labels: BTreeMap<String, String> = (*endpoint.labels).clone();
    let place = &endpoint.place;
    let places = [
        ("kubernetes.io/hostname", &place.node),
        ("topology.kubernetes.io/rack", &place.rack),
        ("topology.kubernetes.io/zone", &place.zone),
    ];
    for (key, value) in places {
        if let Some(value) = value {
            labels.insert(key.to_owned(), value.to_string());
        }
    }
    WorkerFacts {
        id: endpoint.id.to_string(),
        incarnation: endpoint.incarnation,
        role: match endpoint.role {
            Role::Prefill => view::Role::Prefill,
            Role::Decode => view::Role::Decode,
            Role::Both => view::Role::Both,
        },
        labels,
        reach: Reach::Gateway,
        address: Some(endpoint.address.to_string()),
        capacity_tokens: CAPACITY_UNKNOWN,
        block_tokens: BLOCK_TOKENS_UNKNOWN,
        kv_bytes_per_token: 0.0,
    }
}
