//! An OpenTelemetry collector that keeps what it is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode},
};
use tonic::{Request, Response, Status, service::Routes};

use super::serving::Serving;

/// A collector, until it is dropped.
pub(crate) struct Collector {
    serving: Serving,
    kept: Kept,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Of which process.
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) name: String,
    /// In hexadecimal digits.
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// What went wrong, if it did.
    pub(crate) error: Option<String>,
    /// Nanoseconds since 1970.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Received>>>);

impl Collector {
    /// On any free port.
    pub(crate) fn start() -> Self {
        let kept = Kept::default();
        let serving = Serving::start(Routes::new(TraceServiceServer::new(kept.clone())));
        Self { serving, kept }
    }

    /// For `--otlp-endpoint`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.serving.address())
    }

    /// All that has arrived.
    pub(crate) fn spans(&self) -> Vec<Received> {
        self.kept.0.lock().expect("no panic").clone()
    }

    /// What has arrived of a trace.
    pub(crate) fn trace(&self, id: &str) -> Vec<Received> {
        self.spans().into_iter().filter(|span| span.trace == id).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("no panic");
        for resource_spans in request.into_inner().resource_spans {
            let resource = texts(resource_spans.resource.unwrap_or_default().attributes);
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Received::new(span, &resource)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    fn new(span: Span, resource: &BTreeMap<String, String>) -> Self {
        let status = span.status.unwrap_or_default();
        let is_error = status.code() == StatusCode::Error;
        Self {
            resource: resource.clone(),
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            state: span.trace_state,
            attributes: texts(span.attributes),
            error: is_error.then_some(status.message),
            from: span.start_time_unix_nano,
            to: span.end_time_unix_nano,
        }
    }

    /// Of which kind of process.
    pub(crate) fn service(&self) -> &str {
        &self.resource["service.name"]
    }

    /// An attribute; empty, if it has none.
    pub(crate) fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

fn texts(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value.unwrap_or_default()))).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_true)) => is_true.to_string(),
        Some(Value::ArrayValue(list)) => list.values.into_iter().map(text).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
