//! Models: reading them from disk and computing them.
//!
//! ```text
//! config.json ── ModelConfig ─┐
//! *.safetensors ─ Checkpoint ─┴─► Weights<T> (packed, shared) ── Model ── bind(KV pool) ──► CpuForward
//! ```

mod checkpoint;
mod config;
mod cpu;
mod double;
mod error;
mod fingerprint;
mod forward;
mod load;
mod rope;
mod weights;

pub(crate) use checkpoint::Tensor;
pub use config::{Architecture, ModelConfig};
pub use cpu::CpuForward;
pub use double::HashForward;
pub use error::{BindError, LoadError};
pub use forward::{Forward, StepSequence};
pub use load::{LoadOptions, LoadProgress, Model};
