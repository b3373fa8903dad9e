//! The service that the scheduler calls.

use std::{sync::Arc, time::Instant};

use baton_process::{Span, SpanKind, TraceContext};
use baton_proto::v1::{
    Failure, FailureKind, GenerateEvent, GenerateRequest, generate_event, generation_server::Generation,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    args::RequestLimits,
    channels::Channels,
    control::{Outcome, Plan},
    drive::{Client, Drive},
    link::{DecodeLink, DecodeWorker},
    metrics::SidecarMetrics,
    spans,
};

/// Events on their way to one client.
const CLIENT_EVENTS: usize = 16;

/// What every request needs.
pub(crate) struct Requests {
    pub(crate) link: DecodeLink,
    pub(crate) channels: Channels,
    pub(crate) limits: RequestLimits,
    /// One permit a request in flight.
    pub(crate) slots: Semaphore,
    pub(crate) max_requests: usize,
    pub(crate) metrics: SidecarMetrics,
    /// The tasks of requests in flight.
    pub(crate) tasks: TaskTracker,
    /// No new requests.
    pub(crate) draining: CancellationToken,
    /// Not even those in flight go on.
    pub(crate) stop: CancellationToken,
}

pub(crate) struct GenerationService(pub(crate) Arc<Requests>);

#[tonic::async_trait]
impl Generation for GenerationService {
    type GenerateStream = ReceiverStream<Result<GenerateEvent, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let caller = TraceContext::of_headers(request.metadata().as_ref());
        Ok(Response::new(ReceiverStream::new(self.0.start(request.into_inner(), &caller))))
    }
}

/// Events of a request on their way to whoever asked; dropping it is leaving.
pub(crate) type Events = mpsc::Receiver<Result<GenerateEvent, Status>>;

impl Requests {
    /// Serves `request`, which is a part of `caller`, from a task of its own.
    pub(crate) fn start(self: &Arc<Self>, request: GenerateRequest, caller: &TraceContext) -> Events {
        let arrival = Instant::now();
        let span = Span::begin("generate", SpanKind::Server, caller);
        let (client, events) = mpsc::channel(CLIENT_EVENTS);
        let requests = self.clone();
        self.tasks.spawn(async move { requests.serve(request, &client, arrival, span).await });
        events
    }

    async fn serve(&self, request: GenerateRequest, client: &Client, arrival: Instant, mut span: Span) {
        let (worker, _slot) = match self.admit() {
            Ok(admitted) => admitted,
            Err(failure) => {
                let outcome = Outcome::Failed(failure.kind());
                self.metrics.count(outcome);
                span.fail(outcome.name(), failure.message.clone());
                let event = generate_event::Event::Failure(failure);
                // A client that has left needs no answer.
                let _ = client.send(Ok(GenerateEvent { event: Some(event), account: None })).await;
                return;
            }
        };
        self.metrics.in_flight.inc();
        let request_id = request.request_id.clone();
        let adapter = request.adapter.as_ref().map(|adapter| adapter.name.clone());
        let trace = span.context().clone();
        let drive = Drive::start(request, worker, &self.channels, self.limits, arrival, trace);
        let (plan, outcome) = Box::pin(drive.run(client, &self.stop)).await;
        self.metrics.in_flight.dec();
        self.metrics.ended(&plan, outcome);
        spans::end(&mut span, &request_id, &plan, outcome);
        log(&request_id, adapter.as_deref(), &plan, outcome, arrival);
    }

    fn admit(&self) -> Result<(DecodeWorker, tokio::sync::SemaphorePermit<'_>), Failure> {
        let refuse = |kind: FailureKind, message: String| Failure { kind: kind.into(), message };
        if self.draining.is_cancelled() {
            return Err(refuse(FailureKind::Unavailable, "this sidecar is shutting down".to_owned()));
        }
        let worker = self.link.worker().ok_or_else(|| {
            refuse(FailureKind::Unavailable, "no decode worker has joined this sidecar".to_owned())
        })?;
        let slot = self.slots.try_acquire().map_err(|_| {
            let message =
                format!("{} requests are in flight on this sidecar, which is the limit", self.max_requests);
            refuse(FailureKind::Overloaded, message)
        })?;
        Ok((worker, slot))
    }
}

fn log(request_id: &str, adapter: Option<&str>, plan: &Plan, outcome: Outcome, arrival: Instant) {
    let record = plan.record();
    if record.first_token_mismatch {
        tracing::error!(
            request_id,
            prefilled_by = plan.prefilled_by(),
            "two prefills of one request gave different first tokens: one of the workers computes wrongly"
        );
    }
    for setback in &record.setbacks {
        tracing::warn!(
            request_id,
            adapter,
            prefill_worker = setback.worker,
            cause = setback.cause.name(),
            reason = setback.reason,
            "prefill worker did not serve"
        );
    }
    tracing::debug!(
        request_id,
        adapter,
        ?outcome,
        prefilled_by = plan.prefilled_by(),
        queue_us = record.queue_us,
        prefill_us = record.prefill_us,
        transfer_us = record.transfer_us,
        first_token_us = record.timing().first_token_us,
        decode_wait_us = record.decode_wait_us,
        decode_us = record.decode_us,
        total_us = crate::control::micros(arrival.elapsed()),
        "request ended"
    );
}
