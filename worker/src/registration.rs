//! Being a member of the fleet: an open stream to the registry, with the load on it.

use std::{error::Error as _, sync::Arc, time::Duration};

use baton_process::Readiness;
use baton_proto::{
    SCHEDULER_METADATA,
    v1::{
        RegistryReply, WorkerInfo, WorkerReport, registry_client::RegistryClient, registry_reply::Reply,
        worker_report::Report,
    },
};
use baton_tls::Dial;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    transport::Endpoint,
};

use crate::{
    Worker,
    cache_feed::CacheFeeds,
    pairs::Pairs,
    retries::Retries,
    standing::{Standing, State},
    work_feed::WorkFeed,
};

/// Between reports of load.
const REPORT_EVERY: Duration = Duration::from_millis(200);
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

/// Keeps a worker in the fleets of schedulers: what is the same with each of them.
#[derive(Clone)]
pub struct Registration {
    dial: Dial,
    hello: WorkerInfo,
    worker: Arc<Worker>,
    standing: Standing,
    /// A prefill worker's.
    pairs: Option<Arc<Pairs>>,
    cache: CacheFeeds,
}

/// With whom a worker registers.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    registry: Endpoint,
    /// The scheduler's name, under which this worker remembers what it says.
    pub(crate) name: String,
    /// Whom the sidecar is to pass this on to, if it is a sidecar that is joined.
    scheduler: Option<MetadataValue<Ascii>>,
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
    /// Of `worker`, who says this of itself, and is ready when one scheduler would send it requests.
    pub fn new(hello: WorkerInfo, worker: Arc<Worker>, readiness: Readiness) -> Self {
        Self {
            dial: Dial::plain(),
            hello,
            worker,
            standing: Standing::new(readiness),
            pairs: None,
            cache: CacheFeeds::default(),
        }
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

    pub(crate) fn dial(&self) -> &Dial {
        &self.dial
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Joins, reports, and joins again when the stream breaks, until `leave`. What the scheduler said is forgotten then.
    ///
    /// # Errors
    /// The registry rejected the worker.
    pub(crate) async fn run(self, with: &Target, leave: CancellationToken) -> Result<(), Rejected> {
        let mut retries = Retries::default();
        loop {
            let end = self.membership(with, &leave).await;
            self.pairs.iter().for_each(|pairs| pairs.lost(&with.name));
            match end {
                End::Left => break,
                End::Rejected(reason) => {
                    self.standing.set(&with.name, State::Rejected(reason.clone()));
                    return Err(Rejected { worker_id: self.hello.worker_id.clone(), reason });
                }
                End::Broken(reason, was_accepted) => {
                    self.standing.set(&with.name, State::Waiting(format!("not registered: {reason}")));
                    retries.failed(&with.registry, reason, was_accepted);
                }
            }
            tokio::select! {
                () = retries.pause() => {}
                () = leave.cancelled() => break,
            }
        }
        self.pairs.iter().for_each(|pairs| pairs.forget(&with.name));
        self.worker.adapters.iter().for_each(|adapters| adapters.forget(&with.name));
        self.standing.forget(&with.name);
        Ok(())
    }

    async fn membership(&self, with: &Target, leave: &CancellationToken) -> End {
        let (reports, outgoing) = mpsc::channel(REPORTS);
        let mut adapters = self.worker.adapters.as_ref().map(|adapters| adapters.report());
        let hello = WorkerInfo {
            adapters: adapters.as_mut().map(|report| report.borrow_and_update().clone()),
            ..self.hello.clone()
        };
        let _ = reports.try_send(WorkerReport { report: Some(Report::Hello(hello)) });
        let joining = async {
            let connected = self.dial.connect(&with.registry).await;
            let channel = connected.map_err(|error| Status::unavailable(describe(&error)))?;
            let mut request = Request::new(ReceiverStream::new(outgoing));
            if let Some(scheduler) = &with.scheduler {
                request.metadata_mut().insert(SCHEDULER_METADATA, scheduler.clone());
            }
            RegistryClient::new(channel).join(request).await
        };
        let mut replies = tokio::select! {
            joined = joining => match joined {
                Ok(replies) => replies.into_inner(),
                Err(status) => return End::Broken(reason_of(&status), false),
            },
            () = leave.cancelled() => return End::Left,
        };
        // Since when, and whether it said that it is ready.
        let (mut accepted, mut ready) = (None, false);
        let mut draining_told = false;
        let mut table = self.pairs.as_ref().map(|pairs| pairs.table());
        let (mut pairs_due, mut adapters_due, mut cache_due) = (false, false, None);
        let cache = self.cache.subscribe();
        let mut work = WorkFeed::of(&self.worker.engine);
        let mut tick = interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = leave.cancelled() => return End::Left,
                _ = tick.tick() => {
                    self.report(&reports);
                    work.report(&self.worker.engine, &reports);
                    ready = ready || self.note_ready(with, accepted);
                }
                changed = changed(&mut table), if accepted.is_some() => {
                    pairs_due = changed;
                    ready = ready || self.note_ready(with, accepted);
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
                            tracing::info!(worker_id = self.hello.worker_id, registry = with.name, "registered");
                        }
                        accepted.get_or_insert_with(Instant::now);
                        // The registry may have forgotten what it knew of them.
                        pairs_due = table.is_some();
                        ready = self.note_ready(with, accepted);
                        if !ready && !self.worker.draining.is_cancelled() {
                            let reason = "connecting to the decode workers".to_owned();
                            self.standing.set(&with.name, State::Waiting(reason));
                        }
                    }
                    Ok(Some(RegistryReply { reply: Some(Reply::DecodeWorkers(workers)) })) => {
                        if let Some(pairs) = &self.pairs {
                            pairs.want(&with.name, workers);
                        }
                    }
                    Ok(Some(RegistryReply { reply: Some(Reply::AdapterOrders(orders)) })) => {
                        if let Some(adapters) = &self.worker.adapters {
                            adapters.want(&with.name, orders);
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
    fn note_ready(&self, with: &Target, accepted: Option<Instant>) -> bool {
        let Some(since) = accepted.filter(|_| !self.worker.draining.is_cancelled()) else { return false };
        let tried = self.pairs.as_ref().is_none_or(|pairs| pairs.table().borrow().was_settled());
        let ready = tried || since.elapsed() >= PAIRS_PATIENCE;
        if ready {
            self.standing.set(&with.name, State::Ready);
        }
        ready
    }

    fn report(&self, reports: &mpsc::Sender<WorkerReport>) {
        // One that finds no room is overtaken by the next.
        let _ = reports.try_send(WorkerReport { report: Some(Report::Load(self.worker.load())) });
    }
}

impl Target {
    /// The scheduler at `address`.
    ///
    /// # Errors
    /// It is not `HOST:PORT`.
    pub(crate) fn at(address: &str) -> Result<Self, tonic::transport::Error> {
        Ok(Self { registry: registry_endpoint(address)?, name: address.to_owned(), scheduler: None })
    }

    /// `scheduler`, by way of `sidecar`.
    ///
    /// # Errors
    /// It can't be a name.
    pub(crate) fn by_way_of(sidecar: Endpoint, scheduler: &str) -> Result<Self, InvalidMetadataValue> {
        Ok(Self { registry: sidecar, scheduler: Some(scheduler.parse()?), name: scheduler.to_owned() })
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

/// Why a call failed. A status with a cause was made here: who refuses a certificate does so after the connection is made.
pub(crate) fn reason_of(status: &Status) -> String {
    if status.source().is_some() { describe(status) } else { status.message().to_owned() }
}

/// An error with its innermost cause, which is the one that says something.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
