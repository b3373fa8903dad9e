//! Runs a model: weights, kernels, paged KV cache, continuous batching, sampling.

mod device;
mod kernels;
mod kv;
mod model;
pub mod roofline;
mod serve;

pub use device::{DeviceKind, UnknownWeightFormat, WeightFormat};
pub use kernels::{Isa, physical_cores};
pub use kv::{Adapter, BlockCounts, BlockId, CacheEvent, CacheScope, Dtype, HeldBlocks, KvLayout, KvMemory};
pub use model::HashForward;
pub use model::{
    AdapterError, AdapterUses, BindError, BoundModel, Forward, LoadError, LoadOptions, LoadProgress,
    LoadedAdapter, LoraAdapter, LoraAdapters, Model, ModelConfig, StepSequence,
};
pub use serve::{
    CacheObserver, DecodeTotals, DraftModel, DraftRequest, Engine, EngineConfig, EngineLoad, EngineState,
    EngineTotals, FailureKind, FinishReason, FirstToken, GeneratedToken, MAX_DRAFT_TOKENS, NgramLookup,
    ParameterError, PrefillHandle, PrefillSink, Prefilled, Propose, Reservation, SamplingParams,
    SequenceEvent, SequenceFailure, SequenceHandle, SequenceRequest, SequenceTiming, SharedPrefillSink,
    Shutdown, Speculation, SpeculationTotals, Speed, StepSample, SubmitError, TokenLogprobs,
};
