//! The service that the decode worker joins: relays its registrations, one to each scheduler.
//!
//! The worker asks which schedulers there are, and joins once for each. One join is one relay: when either stream breaks, so does the other, and with them the decode worker's place here. The
//! worker joins again by itself, which also heals a restarted scheduler. Who was accepted by the scheduler keeps the place
//! while others ask for it: a stranger that knocks does not disturb who serves.

use std::{collections::BTreeSet, sync::Arc};

use baton_process::Readiness;
use baton_proto::{
    SCHEDULER_METADATA,
    v1::{
        RegistryReply, Role, SchedulerList, WatchSchedulersRequest, WorkerInfo, WorkerLoad, WorkerReport,
        membership_server::Membership,
        registry_client::RegistryClient,
        registry_reply::{Rejected, Reply},
        registry_server::Registry,
        worker_report::Report,
    },
};
use baton_tls::Dial;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Endpoint,
};

use crate::{
    channels::endpoint,
    leg::describe,
    link::{DecodeLink, DecodeWorker, Facts, Joined},
};

/// Reports or replies on their way.
const MESSAGES: usize = 16;

/// What every join needs.
pub(crate) struct Relays {
    pub(crate) link: DecodeLink,
    /// By name, which is `HOST:PORT`.
    pub(crate) schedulers: watch::Receiver<BTreeSet<String>>,
    pub(crate) dial: Dial,
    /// Where the scheduler reaches this sidecar.
    pub(crate) serving_endpoint: String,
    /// Where gateways do; empty: nowhere.
    pub(crate) gateway_endpoint: String,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: TaskTracker,
    /// From then on the worker is reported as draining.
    pub(crate) draining: CancellationToken,
    /// The end.
    pub(crate) stop: CancellationToken,
}

#[derive(Clone)]
pub(crate) struct RegistryService(pub(crate) Arc<Relays>);

/// One join under way.
struct Relay {
    worker_id: String,
    scheduler: Endpoint,
    reports: Streaming<WorkerReport>,
    replies_down: mpsc::Sender<Result<RegistryReply, Status>>,
    reports_up: mpsc::Sender<WorkerReport>,
    last_load: WorkerLoad,
    facts: Arc<Facts>,
    place: Joined,
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type JoinStream = ReceiverStream<Result<RegistryReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<WorkerReport>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let relays = self.0.clone();
        let scheduler = relays.scheduler(request.metadata().get(SCHEDULER_METADATA))?;
        let mut reports = request.into_inner();
        let mut hello = match reports.message().await? {
            Some(WorkerReport { report: Some(Report::Hello(hello)) }) => hello,
            _ => return Err(Status::invalid_argument("a worker's first report is its hello")),
        };
        let worker = decode_worker(&hello, &relays.dial)?;
        if let Some(present) = relays.link.accepted().filter(|present| present.worker_id != worker.worker_id)
        {
            return Ok(Response::new(rejection(&worker, &present)));
        }
        hello.serving_endpoint.clone_from(&relays.serving_endpoint);
        hello.gateway_endpoint.clone_from(&relays.gateway_endpoint);

        let (replies_down, replies) = mpsc::channel(MESSAGES);
        let (reports_up, outgoing) = mpsc::channel(MESSAGES);
        let relay = Relay {
            worker_id: hello.worker_id.clone(),
            scheduler,
            reports,
            replies_down,
            reports_up,
            last_load: WorkerLoad::default(),
            facts: worker.facts.clone(),
            place: relays.link.join(worker),
        };
        self.0.tasks.spawn(async move { relays.serve(relay, hello, outgoing).await });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

#[tonic::async_trait]
impl Membership for RegistryService {
    type WatchSchedulersStream = BoxStream<'static, Result<SchedulerList, Status>>;

    async fn watch_schedulers(
        &self,
        _: Request<WatchSchedulersRequest>,
    ) -> Result<Response<Self::WatchSchedulersStream>, Status> {
        let list = |names: BTreeSet<String>| Ok(SchedulerList { names: names.into_iter().collect() });
        let lists = WatchStream::new(self.0.schedulers.clone()).map(list);
        // A list that will not change any more holds all the same.
        let lists = lists.chain(stream::pending()).take_until(self.0.stop.clone().cancelled_owned());
        Ok(Response::new(lists.boxed()))
    }
}

impl Relays {
    /// The scheduler that is meant; without a name the first.
    fn scheduler(&self, name: Option<&MetadataValue<Ascii>>) -> Result<Endpoint, Status> {
        let schedulers = self.schedulers.borrow();
        let found = match name.map(MetadataValue::to_str) {
            None => schedulers.first(),
            Some(Ok(name)) => schedulers.get(name),
            Some(Err(_)) => None,
        };
        let found = found.ok_or_else(|| Status::not_found("this sidecar knows no such scheduler"))?;
        endpoint(found).map_err(|_| Status::not_found(format!("{found} is no scheduler's address")))
    }

    async fn serve(&self, relay: Relay, hello: WorkerInfo, outgoing: mpsc::Receiver<WorkerReport>) {
        let worker_id = relay.worker_id.clone();
        let replies_down = relay.replies_down.clone();
        let reason = tokio::select! {
            reason = self.relay(relay, hello, outgoing) => reason,
            () = self.stop.cancelled() => "the sidecar shuts down".to_owned(),
        };
        if self.link.accepted().is_none() {
            self.readiness.set_not_ready(format!("decode worker {worker_id} left: {reason}"));
        }
        tracing::info!(worker_id, reason, "decode worker left");
        // The worker learns why, unless it is the one that left.
        let _ = replies_down.try_send(Err(Status::unavailable(reason)));
    }

    /// Relays until a stream breaks; says why.
    async fn relay(
        &self,
        mut relay: Relay,
        hello: WorkerInfo,
        outgoing: mpsc::Receiver<WorkerReport>,
    ) -> String {
        let _ = relay.reports_up.try_send(WorkerReport { report: Some(Report::Hello(hello)) });
        let upstream = async {
            let connected = self.dial.connect(&relay.scheduler).await;
            let channel = connected.map_err(|error| Status::from_error(error.into()))?;
            RegistryClient::new(channel).join(ReceiverStream::new(outgoing)).await
        };
        let mut replies = tokio::select! {
            upstream = upstream => match upstream {
                Ok(replies) => replies.into_inner(),
                Err(status) => {
                    return format!("no registry at {}: {}", relay.scheduler.uri(), describe(&status));
                }
            },
            () = relay.replies_down.closed() => return "it closed its registration".to_owned(),
        };
        let mut draining_told = false;
        loop {
            tokio::select! {
                report = relay.reports.message() => match report {
                    Ok(Some(WorkerReport { report: Some(Report::Load(load)) })) => self.report(&mut relay, load),
                    // One that finds no room is not missed.
                    Ok(Some(report @ WorkerReport { report: Some(Report::Work(_)) })) => {
                        let _ = relay.reports_up.try_send(report);
                    }
                    // Unlike load, these do not come again.
                    Ok(Some(report @ WorkerReport { report: Some(Report::Cache(_)) })) => {
                        if relay.reports_up.send(report).await.is_err() {
                            return "the scheduler closed the registration".to_owned();
                        }
                    }
                    Ok(Some(WorkerReport { report: Some(Report::Adapters(adapters)) })) => {
                        relay.facts.set_adapters(adapters.clone());
                        let report = WorkerReport { report: Some(Report::Adapters(adapters)) };
                        if relay.reports_up.send(report).await.is_err() {
                            return "the scheduler closed the registration".to_owned();
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return "it closed its registration".to_owned(),
                    Err(status) => return format!("its registration broke: {}", describe(&status)),
                },
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => {
                        if let Some(reason) = self.pass_down(&relay, reply).await {
                            return reason;
                        }
                    }
                    Ok(None) => return "the scheduler closed the registration".to_owned(),
                    Err(status) => return format!("the scheduler was lost: {}", describe(&status)),
                },
                () = self.draining.cancelled(), if !draining_told => {
                    draining_told = true;
                    let load = relay.last_load;
                    self.report(&mut relay, load);
                }
            }
        }
    }

    fn report(&self, relay: &mut Relay, mut load: WorkerLoad) {
        relay.last_load = load;
        load.draining |= self.draining.is_cancelled();
        // One that finds no room is overtaken by the next.
        let _ = relay.reports_up.try_send(WorkerReport { report: Some(Report::Load(load)) });
    }

    /// Says why the relay ends, when it does.
    async fn pass_down(&self, relay: &Relay, reply: RegistryReply) -> Option<String> {
        let ends = match &reply.reply {
            Some(Reply::Accepted(_)) => {
                relay.place.accept();
                if self.readiness.check().is_err() {
                    tracing::info!(worker_id = relay.worker_id, "decode worker joined");
                }
                self.readiness.set_ready();
                None
            }
            Some(Reply::Rejected(rejected)) => {
                Some(format!("the scheduler rejected it: {}", rejected.reason))
            }
            // Decode workers are told nothing of each other.
            Some(Reply::DecodeWorkers(_) | Reply::AdapterOrders(_)) | None => None,
        };
        match relay.replies_down.send(Ok(reply)).await {
            Ok(()) => ends,
            Err(_) => Some("it closed its registration".to_owned()),
        }
    }
}

/// A stream with one reply.
fn rejection(worker: &DecodeWorker, present: &DecodeWorker) -> ReceiverStream<Result<RegistryReply, Status>> {
    let (replies_down, replies) = mpsc::channel(1);
    let reason = format!(
        "this sidecar serves decode worker {} already, and {} is another: each decode worker has a sidecar of its own",
        present.worker_id, worker.worker_id
    );
    tracing::warn!(worker_id = worker.worker_id, reason, "decode worker refused");
    let _ = replies_down.try_send(Ok(RegistryReply { reply: Some(Reply::Rejected(Rejected { reason })) }));
    ReceiverStream::new(replies)
}

fn decode_worker(hello: &WorkerInfo, dial: &Dial) -> Result<DecodeWorker, Status> {
    if hello.role() != Role::Decode {
        return Err(Status::invalid_argument(format!(
            "{} is no decode worker; only a decode worker joins through a sidecar, a prefill worker joins the scheduler",
            hello.worker_id
        )));
    }
    let endpoint = endpoint(&hello.endpoint).map_err(|_| {
        Status::invalid_argument(format!(
            "the endpoint {:?} of {} is not HOST:PORT",
            hello.endpoint, hello.worker_id
        ))
    })?;
    let facts = Arc::new(Facts::new(hello.clone()));
    Ok(DecodeWorker { worker_id: hello.worker_id.clone(), channel: dial.connect_lazy(&endpoint), facts })
}
