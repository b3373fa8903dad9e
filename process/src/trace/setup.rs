//! Starting and ending traces of a process.

use std::{
    path::Path,
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

use super::{
    args::TraceArgs,
    export::{Exporter, QUEUE, Queue, SpanCounts},
    tls::Https,
};
use crate::Metrics;

/// For spans of the last requests to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// For a connection to the collector.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// The process's, as with logs.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();
static COUNTS: LazyLock<SpanCounts> = LazyLock::new(SpanCounts::default);

/// A trace option can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTraceOption {
    /// The collector's URL.
    #[error(
        "--otlp-endpoint {0:?}: expected http://HOST:PORT or https://HOST:PORT of a collector that takes OTLP over gRPC (4317 is usual)"
    )]
    Endpoint(String),
    /// What its certificate is to be checked against.
    #[error("--otlp-ca: the collector's certificate could not be checked: {0}")]
    Certificates(String),
    /// The attributes.
    #[error("--otel-resource-attributes: expected KEY=VALUE,… and found {0:?}")]
    Attribute(String),
}

/// Traces of this process, while it runs; off by default.
#[derive(Debug, Default)]
pub struct Traces {
    exporting: Option<(JoinHandle<()>, CancellationToken)>,
}

/// Starts traces as the options say, of a process that is `service`. Needs a runtime; call it once.
///
/// # Errors
/// [`BadTraceOption`].
pub fn start_traces(args: &TraceArgs, service: &'static str) -> Result<Traces, BadTraceOption> {
    let Some(url) = args.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(Traces::default());
    };
    let channel = channel(url, args.otlp_ca.as_deref())?;
    let attributes = attributes(args.otel_resource_attributes.as_deref().unwrap_or_default())?;
    // A name in the attributes is the operator's word.
    let resource = Resource::builder_empty().with_service_name(service).with_attributes(attributes).build();
    let (sender, ended) = mpsc::channel(QUEUE);
    let exporter = Exporter {
        ended,
        client: TraceServiceClient::new(channel),
        resource: (&resource).into(),
        counts: COUNTS.clone(),
        is_failing: false,
    };
    let sampler = Sampler::TraceIdRatioBased(args.trace_sample_ratio.unwrap_or(1.0));
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_span_processor(Queue { ended: sender, counts: COUNTS.clone() })
        .with_resource(resource)
        .build();
    let stop = CancellationToken::new();
    let exporting = tokio::spawn(exporter.run(stop.clone()));
    // That it was started before is a mistake of the caller, and harms nothing.
    let _ = TRACER.set(provider.tracer("baton"));
    tracing::info!(collector = url, "spans of requests are sent to a collector");
    Ok(Traces { exporting: Some((exporting, stop)) })
}

/// Connects at the first call.
fn channel(url: &str, ca: Option<&Path>) -> Result<Channel, BadTraceOption> {
    let bad = || BadTraceOption::Endpoint(url.to_owned());
    let origin: Uri = url.parse().map_err(|_| bad())?;
    let authority = origin.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(bad)?;
    // Whether it is over TLS, the connector decides; what requests say of it is its origin.
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| bad())?;
    let endpoint = endpoint.origin(origin.clone()).connect_timeout(CONNECT_PATIENCE);
    match origin.scheme_str() {
        Some("http") => Ok(endpoint.connect_lazy()),
        Some("https") => {
            let https = Https::new(ca).map_err(BadTraceOption::Certificates)?;
            Ok(endpoint.connect_with_connector_lazy(https))
        }
        _ => Err(bad()),
    }
}

impl Traces {
    /// Sends what has ended, for two seconds at most.
    pub async fn end(self) {
        if let Some((exporting, stop)) = self.exporting {
            stop.cancel();
            if timeout(LAST_SPANS, exporting).await.is_err() {
                tracing::warn!("the last spans were not sent in time");
            }
        }
    }
}

/// Registers what is counted of spans.
pub(crate) fn register_trace_metrics(metrics: &Metrics) {
    let help =
        "Spans of requests: sent to the collector, lost as it did not take them, dropped as too many waited";
    metrics.register(|registry| registry.register("baton_trace_spans", help, COUNTS.0.clone()));
}

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

fn attributes(text: &str) -> Result<Vec<KeyValue>, BadTraceOption> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let parse = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(KeyValue::new(key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(BadTraceOption::Attribute(pair.to_owned())),
    };
    pairs.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_pairs() {
        let found = attributes("a=1, b.c = x=y ,").unwrap();
        assert_eq!(found, [KeyValue::new("a", "1"), KeyValue::new("b.c", "x=y")]);
        assert_eq!(attributes("a=1,b"), Err(BadTraceOption::Attribute("b".to_owned())));
        assert_eq!(attributes(""), Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_collector_that_cannot_be_called_is_refused() {
        for url in ["127.0.0.1:4317", "ftp://collector:4317", "http://", "nonsense"] {
            let args = TraceArgs { otlp_endpoint: Some(url.to_owned()), ..TraceArgs::default() };
            let error = start_traces(&args, "test").unwrap_err();
            assert_eq!(error, BadTraceOption::Endpoint(url.to_owned()));
        }
        assert!(start_traces(&TraceArgs::default(), "test").unwrap().exporting.is_none());
    }
}
