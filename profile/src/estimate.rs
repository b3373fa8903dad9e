//! Profiles of hardware that one does not have: a roofline, from data sheets and stated efficiencies.
//!
//! With `g` accelerators a worker, `F` FLOP/s and `M` bytes/s of memory each after their efficiencies, and `o` for launching the kernels of a step:
//!
//! ```text
//! step with n tokens of prompts   o + max(n·flop_per_token / gF, weights / gM) + pairs·flop_per_pair / gF
//! step of b sequences, K context  o + max(weights / gM, b·flop_per_token / gF) + K·kv_bytes / gM
//! step with both                  its n + b rows in one `max`, all pairs and all context
//! KV tokens                       (share·memory·g − weights) / kv_bytes
//! link                            g · network · efficiency
//! start                           weights / loading + a constant
//! ```
//! Each `max` is two pieces of a profile. What it leaves out (communication between the accelerators of a worker, kernels that are worse at odd sizes) is in
//! the efficiencies. Expect errors of tens of percent; measure when it matters.

use super::{
    Accelerator, DecodePiece, DecodeTimes, KvMemory, Limits, ModelShape, Overhead, PieceError, PrefillPiece,
    PrefillTimes, Profile, Source, Transfer,
};

/// What an estimate assumes beside data sheets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumptions {
    /// Share of the FLOP/s that prompts reach.
    pub flops: f64,
    /// Share of the memory's bandwidth that generation reaches.
    pub memory_bandwidth: f64,
    /// Share of the network's bandwidth that transfers reach.
    pub network: f64,
    /// Share of memory for weights and KV cache.
    pub memory: f64,
    /// For launching the kernels of a layer, in each step, microseconds.
    pub layer_us: f64,
    /// Loading weights, bytes/s a worker.
    pub load_bytes_per_second: f64,
    /// Starting a process, beside loading, seconds.
    pub start_s: f64,
    /// From the last write to the engine, ms.
    pub transfer_latency_ms: f64,
    /// For each write, microseconds.
    pub per_piece_us: f64,
}

impl Default for Assumptions {
    /// What served models are reported to reach: half of the FLOP/s, 70 % of memory and 80 % of the network's bandwidth.
    fn default() -> Self {
        Self {
            flops: 0.5,
            memory_bandwidth: 0.7,
            network: 0.8,
            memory: 0.88,
            layer_us: 25.0,
            load_bytes_per_second: 2e9,
            start_s: 20.0,
            transfer_latency_ms: 0.3,
            per_piece_us: 0.5,
        }
    }
}

/// A worker to be estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// What it runs on.
    pub accelerator: Accelerator,
    /// How many of them make a worker.
    pub accelerators: u32,
    /// What it runs.
    pub model: ModelShape,
    /// The rest.
    pub assumptions: Assumptions,
}

/// Why there is no estimate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EstimateError {
    /// The weights leave no room.
    #[error(
        "{model} needs {needed_gb:.0} GB for its weights alone, and {accelerators} of {accelerator} leave \
         {usable_gb:.0} GB for weights and KV cache: give a worker more accelerators"
    )]
    TooLarge {
        /// The model.
        model: &'static str,
        /// The machine.
        accelerator: &'static str,
        /// How many.
        accelerators: u32,
        /// GB of weights.
        needed_gb: f64,
        /// GB there are.
        usable_gb: f64,
    },
    /// An assumption that can't be.
    #[error("the assumptions give no times: {0}")]
    Assumption(#[from] PieceError),
}

impl Estimate {
    /// A model on one accelerator, by their published names, with the default assumptions.
    #[must_use]
    pub fn of(accelerator: &str, model: &str) -> Option<Self> {
        Some(Self {
            accelerator: Accelerator::by_name(accelerator)?,
            accelerators: 1,
            model: ModelShape::by_name(model)?,
            assumptions: Assumptions::default(),
        })
    }

    /// The profile.
    ///
    /// # Errors
    /// [`EstimateError`].
    pub fn profile(&self) -> Result<Profile, EstimateError> {
        let Self { accelerator, accelerators, model, assumptions } = self;
        let count = f64::from(*accelerators);
        let flops_per_ms = count * accelerator.flops * assumptions.flops / 1e3;
        let bytes_per_ms = count * accelerator.memory_bytes_per_second * assumptions.memory_bandwidth / 1e3;
        let launch_ms = f64::from(model.layers) * assumptions.layer_us / 1e3;
        let weights_ms = readable(model.weight_bytes() / bytes_per_ms);
        let token_ms = readable(model.flop_per_token() / flops_per_ms);
        let pair_ms = readable(model.flop_per_pair() / flops_per_ms);
        let context_ms = readable(model.kv_bytes_per_token() / bytes_per_ms);
        // Rows up to which reading weights takes longer than computing with them.
        let ridge = (weights_ms / token_ms).floor().max(1.0);
        let prefill = PrefillTimes::try_new(vec![
            PrefillPiece {
                up_to_tokens: Some(ridge as u64),
                fixed_ms: readable(launch_ms + weights_ms),
                per_token_ms: 0.0,
                per_pair_ms: pair_ms,
            },
            PrefillPiece {
                up_to_tokens: None,
                fixed_ms: launch_ms,
                per_token_ms: token_ms,
                per_pair_ms: pair_ms,
            },
        ])?;
        let decode = DecodeTimes::try_new(vec![
            DecodePiece {
                up_to_sequences: Some(ridge as u32),
                fixed_ms: readable(launch_ms + weights_ms),
                per_sequence_ms: 0.0,
                per_context_token_ms: context_ms,
            },
            DecodePiece {
                up_to_sequences: None,
                fixed_ms: launch_ms,
                per_sequence_ms: token_ms,
                per_context_token_ms: context_ms,
            },
        ])?;
        Ok(Profile {
            name: format!(
                "{} on {accelerators} of {} ({}), estimated",
                model.name, accelerator.name, accelerator.what
            ),
            source: Source::Estimated,
            prefill,
            decode,
            transfer: Transfer {
                latency_ms: assumptions.transfer_latency_ms,
                bytes_per_second: count * accelerator.network_bytes_per_second * assumptions.network,
                per_piece_us: assumptions.per_piece_us / count,
                pieces_per_block: model.layers,
                layer_groups: 8,
            },
            kv: self.kv()?,
            limits: Limits { step_tokens: 8_192, mixed_prompt_tokens: None, running: 256, growth_tokens: 64 },
            overhead: Overhead { request_ms: 2.0, call_ms: 0.5 },
            startup_s: readable(
                assumptions.start_s + model.weight_bytes() / assumptions.load_bytes_per_second,
            ),
        })
    }

    fn kv(&self) -> Result<KvMemory, EstimateError> {
        let Self { accelerator, accelerators, model, assumptions } = self;
        let usable = f64::from(*accelerators) * accelerator.memory_bytes * assumptions.memory;
        let room = usable - model.weight_bytes();
        let block_tokens = 16;
        let tokens = (room / model.kv_bytes_per_token()).max(0.0) as u64;
        // Less than a context of some length is no service.
        if tokens < 4_096 {
            return Err(EstimateError::TooLarge {
                model: model.name,
                accelerator: accelerator.name,
                accelerators: *accelerators,
                needed_gb: model.weight_bytes() / 1e9,
                usable_gb: usable / 1e9,
            });
        }
        Ok(KvMemory {
            bytes_per_token: model.kv_bytes_per_token(),
            capacity_tokens: tokens / block_tokens * block_tokens,
            block_tokens: block_tokens as u32,
        })
    }
}

// Six digits: an estimate has no more, and people read the file.
fn readable(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}
