//! Ended spans on their way to the collector.

use std::{fmt, time::Duration};

use opentelemetry::Context;
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Ended spans that wait; more are dropped.
pub(super) const QUEUE: usize = 4_096;
/// Spans in one message.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// For the collector to take a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanCounts(pub(super) Family<OutcomeLabels, Counter>);

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    outcome: &'static str,
}

impl SpanCounts {
    fn count(&self, outcome: &'static str, spans: usize) {
        self.0.get_or_create(&OutcomeLabels { outcome }).inc_by(spans as u64);
    }
}

/// Takes ended spans, and never waits.
pub(super) struct Queue {
    pub(super) ended: mpsc::Sender<SpanData>,
    pub(super) counts: SpanCounts,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("room", &self.ended.capacity()).finish_non_exhaustive()
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.ended.try_send(span).is_err() {
            self.counts.count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends batches.
pub(super) struct Exporter {
    pub(super) ended: mpsc::Receiver<SpanData>,
    pub(super) client: TraceServiceClient<Channel>,
    pub(super) resource: ResourceAttributesWithSchema,
    pub(super) counts: SpanCounts,
    /// The last batch was not taken; said once until it changes.
    pub(super) is_failing: bool,
}

impl Exporter {
    /// Until `stop`; what has ended until then is sent, too.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_last = tokio::select! {
                biased;
                count = self.ended.recv_many(&mut batch, BATCH) => count == 0,
                () = stop.cancelled() => true,
            };
            if is_last {
                self.ended.close();
                while self.ended.recv_many(&mut batch, BATCH).await > 0 {
                    self.export(&mut batch).await;
                }
                return;
            }
            let until = Instant::now() + LINGER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                let more = tokio::select! {
                    more = timeout_at(until, self.ended.recv_many(&mut batch, room)) => more.unwrap_or(0),
                    () = stop.cancelled() => 0,
                };
                if more == 0 {
                    break;
                }
            }
            self.export(&mut batch).await;
        }
    }

    async fn export(&mut self, batch: &mut Vec<SpanData>) {
        let count = batch.len();
        let spans = std::mem::take(batch);
        batch.reserve(BATCH);
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let call = self.client.export(ExportTraceServiceRequest { resource_spans });
        let failure = match timeout(PATIENCE, call).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        self.counts.count(if failure.is_none() { "sent" } else { "lost" }, count);
        match (&failure, self.is_failing) {
            (Some(reason), false) => tracing::warn!(reason, "the collector takes no spans: they are lost"),
            (None, true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        self.is_failing = failure.is_some();
    }
}
