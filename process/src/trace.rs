//! Traces: one for each request, over all processes that serve it, sent to an OpenTelemetry collector.
//!
//! ```text
//!  headers, gRPC metadata ─► TraceContext ─► Span ──── ends ────► queue ─► batch ─► collector (OTLP over gRPC)
//!                                 ▲            │   full: dropped, counted
//!                                 └── context ─┘─► headers of the next call
//! ```
//! A [`Span`] is a value that its request holds: there is no current span, so that nothing is looked up per token or by the engine's thread. When
//! traces are off a span holds nothing but the context that came in, which is passed on as it was.
//!
//! # Invariants
//! - A request never waits for the collector, nor fails by it.
//! - Whether a trace is recorded is decided where it begins, once.

mod args;
mod context;
mod export;
mod setup;
mod span;
mod tls;

pub use args::TraceArgs;
pub use context::TraceContext;
pub use opentelemetry::trace::SpanKind;
pub(crate) use setup::register_trace_metrics;
pub use setup::{BadTraceOption, Traces, start_traces};
pub use span::Span;
