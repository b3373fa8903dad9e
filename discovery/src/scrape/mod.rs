//! Reading the load of every endpoint, many times a second.
//!
//! Each target has a task of its own that asks, reads, waits: so there is never more than one request to a server, its connection is
//! kept, and a slow one delays nobody else. Tasks begin spread over the interval. A page is read as it comes and not kept.
//!
//! A vLLM page has a hundred kilobytes of histograms and more, and making it costs the server more than reading it costs us: 15 ms of its front's
//! Python for 81 KB, against 0.7 ms for the 1 KB that is needed (vLLM 0.32's own routes with forty histograms, 2026-11). So once a whole page has
//! shown which figures a server has, only these are asked for: `name[]=…`, which Python's Prometheus client knows. vLLM answers
//! it under the path with a slash at its end, as SGLang should, whose route is made the same way. A server whose answer then lacks one of them is asked for everything
//! again, for good.
//!
//! # Limits
//! | what | where | then |
//! |---|---|---|
//! | time for an answer | [`ScrapeOptions::timeout`] | a failure; the connection is closed |
//! | bytes of an answer | [`ScrapeOptions::most_bytes`] | the same |
//! | requests at once | [`ScrapeOptions::concurrency`] | the next ones wait |
//! | failures in a row | [`ScrapeOptions::failures`] | unhealthy, or [silent](Health::Silent), and asked less often, at least every two seconds |
//!
//! Only plain HTTP is spoken.

mod board;
mod fetch;
mod target;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub use board::{Health, Loads, Report};
pub use fetch::ScrapeError;

use crate::{MetricsPage, Snapshot, Source, metrics::ScrapeMetrics};
use target::Target;

/// How pages are read.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeOptions {
    /// Between two readings of one target; 50 to 200 ms is sensible.
    pub every: Duration,
    /// For one answer, connecting included.
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Of one answer.
    pub most_bytes: usize,
    /// In a row, before a target counts as unhealthy.
    pub failures: u32,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            concurrency: 256,
            most_bytes: 8 << 20,
            failures: 3,
        }
    }
}

/// Reads the pages of a source's endpoints, draining ones included.
pub struct Scraper {
    options: ScrapeOptions,
    source: Source,
    loads: Loads,
    metrics: ScrapeMetrics,
    gate: Arc<Semaphore>,
    targets: HashMap<Arc<str>, (MetricsPage, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Scraper {
    /// For the endpoints of `source`.
    #[must_use]
    pub fn new(source: Source, options: ScrapeOptions, metrics: &baton_process::Metrics) -> (Self, Loads) {
        let loads = Loads::default();
        let scraper = Self {
            options,
            source,
            loads: loads.clone(),
            metrics: ScrapeMetrics::register(metrics, loads.clone()),
            gate: Arc::new(Semaphore::new(options.concurrency.max(1))),
            targets: HashMap::new(),
            tasks: JoinSet::new(),
        };
        (scraper, loads)
    }

    /// Reads until cancelled.
    ///
    /// # Cancel safety
    /// Dropping it ends all requests, and leaves the last reports.
    pub async fn run(mut self, until: CancellationToken) {
        self.follow(&self.source.snapshot());
        let mut is_fed = true;
        loop {
            select! {
                () = until.cancelled() => break,
                set = self.source.changed(), if is_fed => match set {
                    Some(set) => self.follow(&set),
                    None => is_fed = false,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a reader of metrics has died: its target is not read any more");
                    }
                }
            }
        }
        self.tasks.shutdown().await;
    }

    /// Ends what has left, begins what is new. An endpoint whose page moved is another one.
    fn follow(&mut self, set: &Snapshot) {
        let loads = &self.loads;
        self.targets.retain(|id, (page, task)| {
            let stays = set.get(id).is_some_and(|endpoint| endpoint.metrics == *page);
            if !stays {
                task.abort();
                loads.remove(id);
            }
            stays
        });
        for endpoint in set.endpoints() {
            if !self.targets.contains_key(&endpoint.id) {
                let slot = self.loads.add(endpoint.id.clone());
                let target =
                    Target::new(endpoint, self.options, slot, self.gate.clone(), self.metrics.clone());
                let task = self.tasks.spawn(target.run());
                self.targets.insert(endpoint.id.clone(), (endpoint.metrics.clone(), task));
            }
        }
    }
}
