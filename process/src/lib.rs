//! What every Baton process has in common: logs, metrics, traces, health endpoints, shutdown.
//!
//! A process is wired in the same order everywhere: [`init_logs`], [`start_traces`], a [`Shutdown`] on the usual signals, a [`Metrics`]
//! registry handed to the parts, a [`Readiness`] that the parts flip, [`serve_admin`] to show both, and, when all listeners
//! are bound (any may be given port 0), one [`report_listening`].
//!
//! Nothing here knows what a Baton process does; policy about what "ready" means stays with the process.

#![forbid(unsafe_code)]

mod admin;
mod bind;
mod logs;
mod metrics;
mod readiness;
mod report;
mod shutdown;
mod trace;

pub use admin::{admin_router, serve_admin};
pub use bind::{BindError, bind};
pub use logs::{LogArgs, LogColor, LogFormat, init_logs, init_logs_to};
pub use metrics::Metrics;
pub use readiness::Readiness;
pub use report::{Report, report_listening};
pub use shutdown::{Shutdown, exit_with_parent};
pub use trace::{BadTraceOption, Span, SpanKind, TraceArgs, TraceContext, Traces, start_traces};
