//! Where each request goes: what is known of the fleet, kept up to date, and the policy that decides on it.
//!
//! ```text
//!   Registry ─ joined, reported, paired… ─► workers ─┐
//!   workers' caches ─► cache (KV index) ─────────────┼─► route: admission → decision → record ─► Route ─► dispatch
//!   accounts of requests ─► Route ─► learner ────────┘                                          │
//!                             ▲─────────────────── first token, end ────────────────────────────┘
//! ```
//! Everything that decides is in `baton-policy` and `baton-kv-index`; here they meet time, and requests that wait. One lock guards what is
//! known, for some ten microseconds a request.
//!
//! # Invariants
//! - What a request counts for is taken away exactly once, however it ends: when its [`Route`] is dropped.
//! - A request that waits is let in, refused, or taken out of the queue when nobody waits for it any more.

mod admit;
mod ask;
mod cache;
mod decide;
mod learn;
mod log;
mod metrics;
mod pool;
mod queue;
mod route;
mod sessions;
mod spans;
mod topology;
mod workers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use baton_front::RecordedTraffic;
use baton_policy::{
    admission::Limits,
    placer::Placer,
    profile::Profile,
    record::{Record, Ring},
    view::Ms,
};
use tokio_util::sync::CancellationToken;

pub(crate) use ask::{Ask, Refused};
pub(crate) use cache::{CacheIndex, CacheKeeper, Tracked};
pub(crate) use log::DecisionLog;
pub(crate) use metrics::RouterMetrics;
pub(crate) use pool::{PoolView, WorkerLoadView};
pub(crate) use queue::not_now;
pub(crate) use route::Route;
pub(crate) use spans::{describe, traced};
pub(crate) use workers::{Reach, WorkerFacts};

use crate::{
    epp::Epp,
    traffic::{self, Traffic},
};
use queue::Waiters;
use sessions::Sessions;
use workers::Slots;

/// How requests are routed.
pub(crate) struct RouterConfig {
    /// The model's name in the index of caches.
    pub(crate) model: String,
    pub(crate) profile: Profile,
    pub(crate) admission: Limits,
    /// Decisions that are kept.
    pub(crate) records: usize,
    /// Where they are written, too.
    pub(crate) log: Option<DecisionLog>,
    /// For the record of traffic; 0: none is kept.
    pub(crate) traffic_bytes: usize,
}

/// Routes requests.
pub(crate) struct Router {
    known: Mutex<Known>,
    cache: CacheIndex,
    model: String,
    began: Instant,
    traffic: Option<Arc<Traffic>>,
    pub(crate) metrics: RouterMetrics,
    pub(crate) epp: Arc<Epp>,
}

/// What is known, and what decides on it.
struct Known {
    placer: Placer,
    slots: Slots,
    waiters: Waiters,
    records: Ring,
    log: Option<DecisionLog>,
    sessions: Sessions,
    requests: u64,
}

/// How often the queue is looked at for those who have waited too long.
const TICK: Duration = Duration::from_millis(20);

impl Router {
    pub(crate) fn new(
        config: RouterConfig,
        cache: CacheIndex,
        metrics: RouterMetrics,
        epp: Arc<Epp>,
    ) -> Self {
        let known = Known {
            placer: Placer::new(config.profile, config.admission),
            slots: Slots::default(),
            waiters: HashMap::new(),
            records: Ring::new(config.records),
            log: config.log,
            sessions: Sessions::default(),
            requests: 0,
        };
        let traffic = (config.traffic_bytes > 0).then(|| Arc::new(Traffic::new(config.traffic_bytes)));
        let (model, began) = (config.model, Instant::now());
        Self { known: Mutex::new(known), cache, model, began, traffic, metrics, epp }
    }

    /// With defaults for everything.
    #[cfg(test)]
    pub(crate) fn of_defaults(model: &str) -> Self {
        let limits = baton_kv_index::IndexLimits { bytes: 1 << 20, guess_seconds: 30 };
        let (cache, _) = CacheIndex::start(limits).expect("a thread");
        let epp = Arc::new(Epp::new(vec![model.to_owned()]));
        let (model, profile, admission) = (model.to_owned(), Profile::default(), Limits::default());
        let traffic_bytes = 1 << 20;
        let config = RouterConfig { model, profile, admission, records: 100, log: None, traffic_bytes };
        Self::new(config, cache, RouterMetrics::new(&baton_process::Metrics::new()), epp)
    }

    /// The model's name in the index of caches.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// What workers have cached.
    pub(crate) fn cache(&self) -> &CacheIndex {
        &self.cache
    }

    /// The last decision on a request.
    pub(crate) fn record(&self, request_id: &str) -> Option<Record> {
        self.lock().records.get(request_id).cloned()
    }

    /// The last decisions, newest first.
    pub(crate) fn records(&self, most: usize) -> Vec<Record> {
        let known = self.lock();
        let skipped = known.records.len().saturating_sub(most);
        let mut records: Vec<_> = known.records.iter().skip(skipped).cloned().collect();
        records.reverse();
        records
    }

    /// Writes down the decisions that came to nothing, and closes the log.
    pub(crate) fn close_log(&self) {
        // Dropped, which waits for the disk, after the lock is given back.
        let _closed = {
            let mut known = self.lock();
            let log = known.log.take();
            if let Some(log) = &log {
                known.records.iter().filter(|record| record.outcome.is_none()).for_each(|r| log.write(r));
            }
            log
        };
    }

    /// The requests of the last `span`; `None`: no record is kept.
    pub(crate) fn traffic(&self, span: Duration) -> Option<RecordedTraffic> {
        let record = self.traffic.as_ref()?;
        let (now, held) = (self.now(), record.held());
        let since = (now - span.as_secs_f64() * 1e3).max(held.since_ms);
        let (lines, requests) = record.since(since);
        Some(RecordedTraffic { requests, span: traffic::span(since, now), lines: Box::new(lines) })
    }

    /// Shows how full the index of caches and the record of traffic are.
    pub(crate) fn show_memory(&self) {
        self.metrics.set_index(&self.cache.stats());
        if let Some(traffic) = &self.traffic {
            self.metrics.set_traffic(&traffic.held());
        }
    }

    /// Looks after those who wait, until `stop`.
    pub(crate) async fn keep(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.look_after_queue(),
                () = stop.cancelled() => return,
            }
        }
    }

    fn now(&self) -> Ms {
        self.began.elapsed().as_secs_f64() * 1e3
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
