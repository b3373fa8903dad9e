//! Being a member of the fleet: an open stream to the registry, with the load on it.

use std::{error::Error as _, sync::Arc, time::Duration};

use baton_process::Readiness;
use baton_proto::v1::{
    RegistryReply, WorkerInfo, WorkerReport, registry_client::RegistryClient, registry_reply::Reply,
    worker_report::Report,
};
use baton_tls::Dial;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Endpoint};

use crate::{Worker, cache_feed::CacheFeeds, pairs::Pairs};

/// Between reports of load.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Before joining again; doubled up to `MAX_BACKOFF`.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest that a prefill worker waits for the first try of each of its pairs before it says that it is ready.
const PAIRS_PATIENCE: Duration = Duration::from_secs(5);
/// Reports on their way.
const REPORTS: usize = 4;

/// The registry will not have this worker; trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler rejected worker {worker_id}: {reason}")]
pub struct Rejected {
    /// This worker.
    pub worker_id: String,
    /// The registry's word: which field does not match, and both values.
    pub reason: String,
}

/// Keeps a worker in the fleet.
pub struct Registration {
    registry: Endpoint,
    dial: Dial,
    hello: WorkerInfo,
    worker: Arc<Worker>,
    readiness: Readiness,
    /// A prefill worker's.
    pairs: Option<Arc<Pairs>>,
    cache: CacheFeeds,
}

/// How a membership ended.
enum End {
    /// Left on purpose.
    Left,
    Rejected(String),
    /// Worth another try; the flag: the worker had been accepted.
    Broken(String, bool),
}

impl Registration {
    /// `registry` is `HOST:PORT`.
    ///
    /// # Errors
    /// It is not.
    pub fn new(
        registry: &str,
        hello: WorkerInfo,
        worker: Arc<Worker>,
        readiness: Readiness,
    ) -> Result<Self, tonic::transport::Error> {
        Ok(Self {
            registry: registry_endpoint(registry)?,
            dial: Dial::plain(),
            hello,
            worker,
            readiness,
            pairs: None,
            cache: CacheFeeds::default(),
        })
    }

    /// How the registry is called, if not in plain text.
    #[must_use]
    pub fn over(mut self, dial: Dial) -> Self {
        self.dial = dial;
        self
    }

    /// Passes on who the decode workers are, and what comes of the pairs.
    #[must_use]
    pub(crate) fn with_pairs(mut self, pairs: Arc<Pairs>) -> Self {
        self.pairs = Some(pairs);
        self
    }

    /// Tells what is cached.
    #[must_use]
    pub(crate) fn with_cache(mut self, cache: CacheFeeds) -> Self {
        self.cache = cache;
        self
    }

    /// Joins, reports, and joins again when the stream breaks, until `leave`.
    ///
    /// # Errors
    /// The registry rejected the worker.
    pub async fn run(self, leave: CancellationToken) -> Result<(), Rejected> {
        let mut backoff = MIN_BACKOFF;
        let mut reason_logged = String::new();
        loop {
            match self.membership(&leave).await {
                End::Left => return Ok(()),
                End::Rejected(reason) => {
                    self.readiness.set_not_ready(format!("rejected by the scheduler: {reason}"));
                    return Err(Rejected { worker_id: self.hello.worker_id.clone(), reason });
                }
                End::Broken(reason, was_accepted) => {
                    self.readiness.set_not_ready(format!("not registered: {reason}"));
                    if was_accepted {
                        backoff = MIN_BACKOFF;
                    }
                    // Once for each reason, however often it is tried.
                    if was_accepted || reason_logged != reason {
                        tracing::warn!(registry = %self.registry.uri(), reason, "not registered; trying again");
                        reason_logged = reason;
                    }
                }
            }
            tokio::select! {
                () = sleep(backoff) => backoff = (backoff * 2).min(MAX_BACKOFF),
                () = leave.cancelled() => return Ok(()),
            }
        }
    }

    async fn membership(&self, leave: &CancellationToken) -> End {
        let (reports, outgoing) = mpsc::channel(REPORTS);
        let mut adapters = self.worker.adapters.as_ref().map(|adapters| adapters.report());
        let hello = WorkerInfo {
            adapters: adapters.as_mut().map(|report| report.borrow_and_update().clone()),
            ..self.hello.clone()
        };
        let _ = reports.try_send(WorkerReport { report: Some(Report::Hello(hello)) });
        let joining = async {
            let connected = self.dial.connect(&self.registry).await;
            let channel = connected.map_err(|error| Status::unavailable(describe(&error)))?;
            RegistryClient::new(channel).join(ReceiverStream::new(outgoing)).await
        };
        let mut replies = tokio::select! {
            joined = joining => match joined {
                Ok(replies) => replies.into_inner(),
                // One with a cause was made here: who refuses a certificate does so after the connection is made.
                Err(status) if status.source().is_some() => return End::Broken(describe(&status), false),
                Err(status) => return End::Broken(status.message().to_owned(), false),
            },
            () = leave.cancelled() => return End::Left,
        };
        // Since when, and whether it said that it is ready.
        let (mut accepted, mut ready) = (None, false);
        let mut draining_told = false;
        let mut table = self.pairs.as_ref().map(|pairs| pairs.table());
        let (mut pairs_due, mut adapters_due, mut cache_due) = (false, false, None);
        let cache = self.cache.subscribe();
        let mut tick = interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = leave.cancelled() => return End::Left,
                _ = tick.tick() => {
                    self.report(&reports);
                    ready = ready || self.note_ready(accepted);
                }
                changed = changed(&mut table), if accepted.is_some() => {
                    pairs_due = changed;
                    ready = ready || self.note_ready(accepted);
                }
                Ok(room) = reports.reserve(), if pairs_due => {
                    pairs_due = false;
                    if let Some(pairs) = table.as_mut().map(|table| table.borrow_and_update().report()) {
                        room.send(WorkerReport { report: Some(Report::Pairs(pairs)) });
                    }
                }
                changed = changed(&mut adapters), if accepted.is_some() => adapters_due |= changed,
                Ok(room) = reports.reserve(), if adapters_due => {
                    adapters_due = false;
                    if let Some(report) = adapters.as_mut().map(|report| report.borrow_and_update().clone()) {
                        room.send(WorkerReport { report: Some(Report::Adapters(report)) });
                    }
                }
                report = cache.next(|| self.worker.engine.tell_cache()), if accepted.is_some() && cache_due.is_none() => {
                    cache_due = Some(report);
                }
                Ok(room) = reports.reserve(), if cache_due.is_some() => {
                    if let Some(report) = cache_due.take() {
                        room.send(WorkerReport { report: Some(Report::Cache(report)) });
                    }
                }
                () = self.worker.draining.cancelled(), if !draining_told => {
                    draining_told = true;
                    self.report(&reports);
                }
                reply = replies.message() => match reply {
                    Ok(Some(RegistryReply { reply: Some(Reply::Accepted(_)) })) => {
                        if accepted.is_none() {
                            tracing::info!(worker_id = self.hello.worker_id, registry = %self.registry.uri(), "registered");
                        }
                        accepted.get_or_insert_with(Instant::now);
                        // The registry may have forgotten what it knew of them.
                        pairs_due = table.is_some();
                        ready = self.note_ready(accepted);
                        if !ready && !self.worker.draining.is_cancelled() {
                            self.readiness.set_not_ready("connecting to the decode workers");
                        }
                    }
                    Ok(Some(RegistryReply { reply: Some(Reply::DecodeWorkers(workers)) })) => {
                        if let Some(pairs) = &self.pairs {
                            pairs.want(workers);
                        }
                    }
                    Ok(Some(RegistryReply { reply: Some(Reply::AdapterOrders(orders)) })) => {
                        if let Some(adapters) = &self.worker.adapters {
                            adapters.want(orders);
                        }
                    }
                    Ok(Some(RegistryReply { reply: Some(Reply::Rejected(rejected)) })) => {
                        return End::Rejected(rejected.reason);
                    }
                    Ok(Some(RegistryReply { reply: None })) => {}
                    Ok(None) => return End::Broken("the registry closed the stream".to_owned(), accepted.is_some()),
                    Err(status) => return End::Broken(status.message().to_owned(), accepted.is_some()),
                },
            }
        }
    }

    /// Ready once it is accepted and its pairs have been tried; not for ever waiting for those that cannot be reached.
    fn note_ready(&self, accepted: Option<Instant>) -> bool {
        let Some(since) = accepted.filter(|_| !self.worker.draining.is_cancelled()) else { return false };
        let tried = self.pairs.as_ref().is_none_or(|pairs| pairs.table().borrow().was_settled());
        let ready = tried || since.elapsed() >= PAIRS_PATIENCE;
        if ready {
            self.readiness.set_ready();
        }
        ready
    }

    fn report(&self, reports: &mpsc::Sender<WorkerReport>) {
        // One that finds no room is overtaken by the next.
        let _ = reports.try_send(WorkerReport { report: Some(Report::Load(self.worker.load())) });
    }
}

/// Returns when there is something new to tell; never, when there never will be.
///
/// # Cancel safety
/// Cancel safe.
async fn changed<T>(news: &mut Option<watch::Receiver<T>>) -> bool {
    match news {
        Some(news) => news.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// How the registry at `address`, `HOST:PORT`, is connected to.
///
/// # Errors
/// It is no address.
pub(crate) fn registry_endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(4)))
}

/// An error with its innermost cause, which is the one that says something.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
