//! Models: reading them from disk and computing them.
//!
//! ```text
//! config.json ── families/… ── ModelConfig ─┐
//! *.safetensors ────────────── Checkpoint ──┴─► decoder::Weights<Device> ── Model ── bind(KV pool) ──► BoundModel
//!                                               (packed by the device, shared)        (decoder/pass.rs over the device)
//! ```
//! [`adapter`] has what comes in folders of its own and changes a model's projections for some rows of a step.

mod adapter;
mod checkpoint;
mod config;
mod decoder;
mod double;
mod error;
mod families;
mod fingerprint;
mod forward;
mod load;
mod metered;
mod rope;
mod settings;
mod stored;

pub(crate) use adapter::AdapterUse;
pub use adapter::{AdapterError, AdapterUses, LoadedAdapter, LoraAdapter, LoraAdapters};
pub(crate) use checkpoint::Tensor;
pub use config::ModelConfig;
pub use double::HashForward;
pub use error::{BindError, LoadError};
pub use forward::{Forward, StepSequence};
pub use load::{BoundModel, LoadOptions, LoadProgress, Model};
pub(crate) use metered::MeteredModel;
pub(crate) use stored::{StoredExperts, StoredMatrix, StoredMxfp4};
