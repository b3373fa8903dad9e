//! Speculative decoding of a worker: what is asked for, making it, and what it is counted in.

mod config;
mod draft;
mod metrics;

pub use config::{SpeculativeConfig, SpeculativeConfigError};
pub use draft::DraftRefused;
pub(crate) use draft::{Target, speculation};
pub(crate) use metrics::encode;
