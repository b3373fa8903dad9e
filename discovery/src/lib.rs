//! x
#![forbid(unsafe_code)]
mod endpoint;
pub mod file;
pub mod kubernetes;
pub mod load;
mod metrics;
mod source;
#[cfg(test)]
mod testing;
pub use endpoint::{Endpoint, Engine, KvEvents, MetricsPage, Place, Role, State};
pub use metrics::export;
pub use source::{Publisher, Snapshot, Source, source};
