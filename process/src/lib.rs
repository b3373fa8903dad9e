//! What every Baton process has in common: logs, metrics, health endpoints, shutdown.
//!
//! A process is wired in the same order everywhere: [`init_logs`], a [`Shutdown`] on the usual signals, a [`Metrics`]
//! registry handed to the parts, a [`Readiness`] that the parts flip, and [`serve_admin`] to show both.
//!
//! Nothing here knows what a Baton process does; policy about what "ready" means stays with the process.

#![forbid(unsafe_code)]

mod admin;
mod bind;
mod logs;
mod metrics;
mod readiness;
mod shutdown;

pub use admin::{admin_router, serve_admin};
pub use bind::{BindError, bind};
pub use logs::{LogArgs, LogFormat, init_logs};
pub use metrics::Metrics;
pub use readiness::Readiness;
pub use shutdown::{Shutdown, exit_with_parent};
