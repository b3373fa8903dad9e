//! Loading a Hugging Face folder.

use std::{path::Path, sync::Arc};

use half::bf16;
use serde_json::Value;

use super::{
    AdapterError, BindError, Forward, LoadError, LoraAdapter, ModelConfig, StepSequence,
    adapter::AdapterFiles,
    checkpoint::Checkpoint,
    decoder::{LoadedWeights, Loader},
    fingerprint,
};
use crate::{
    Isa,
    device::{Cpu, Device, DeviceKind, Reference, WeightFormat},
    kernels::{KvPool, physical_cores},
    kv::{Adapter, Dtype, KvLayout, KvMemory},
};

/// How to load.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Where the model computes.
    pub device: DeviceKind,
    /// Type of weights, matrix operands and KV cache in memory, whatever the files hold. The reference device has f32 only.
    pub dtype: Dtype,
    /// What matrices are in memory.
    pub weights: WeightFormat,
    /// Instruction set of the kernels; none = the best of this CPU.
    pub isa: Option<Isa>,
    /// Threads that pack weights.
    pub threads: usize,
    /// Called as matrices are packed.
    pub progress: Option<&'a (dyn Fn(LoadProgress) + Sync)>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            device: DeviceKind::default(),
            dtype: Dtype::Bf16,
            weights: WeightFormat::default(),
            isa: None,
            threads: physical_cores(),
            progress: None,
        }
    }
}

/// How far loading is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadProgress {
    /// Weights packed.
    pub done: usize,
    /// Weights of the model.
    pub total: usize,
}

/// A loaded model; clones share its weights.
#[derive(Clone)]
pub struct Model {
    config: ModelConfig,
    eos_token_ids: Vec<u32>,
    revision: String,
    isa: Isa,
    weights: Arc<dyn LoadedWeights>,
}

/// A model bound to a KV pool and to compute threads of its own.
pub struct BoundModel {
    forward: Box<dyn Forward>,
    threads: usize,
}

impl Model {
    /// Reads `folder`: `config.json`, `generation_config.json` if it is there, and the weights.
    ///
    /// # Errors
    /// Says which file, setting or tensor is missing, damaged or unsupported.
    pub fn load(folder: &Path, options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let isa = usable_isa(options)?;
        let (config_json, config) = read_config(folder)?;
        let eos_token_ids = eos_token_ids(folder, &config_json)?;
        let checkpoint = Checkpoint::open(folder)?;
        let halves = checkpoint.count_stored_as_f16();
        if halves > 0 && options.dtype == Dtype::Bf16 {
            tracing::info!(tensors = halves, "weights stored as f16 are rounded to bf16");
        }
        let mut revision = fingerprint::revision(&config_json, &checkpoint);
        if options.weights == WeightFormat::Int8 {
            revision.push_str("-int8");
        }
        let source = (&config, &checkpoint);
        let weights = match (options.device, options.dtype) {
            (DeviceKind::Cpu, Dtype::Bf16) => on_device::<Cpu<bf16>>(source, isa, options)?,
            (DeviceKind::Cpu, Dtype::F32) => on_device::<Cpu<f32>>(source, isa, options)?,
            (DeviceKind::Reference, _) => on_device::<Reference>(source, isa, options)?,
        };
        Ok(Self { config, eos_token_ids, revision, isa, weights })
    }

    /// Reads the adapter in `folder`, as PEFT writes it, for this model, to be known as `name`; `threads` pack its weights.
    ///
    /// # Errors
    /// Says which file, setting or tensor is missing, damaged, unsupported or of another model.
    pub fn load_adapter(
        &self,
        name: &str,
        folder: &Path,
        threads: usize,
    ) -> Result<LoraAdapter, AdapterError> {
        let files = AdapterFiles::read(folder)?;
        let identity = Adapter::new(name, &files.revision);
        self.weights.load_adapter(&self.config, &files, identity, (self.isa, threads))
    }

    /// Binds the model to a KV pool of `blocks` blocks, with `threads` compute threads of its own (the thread that calls
    /// [`Forward::step`] is one of them; [`physical_cores`] is a good number).
    ///
    /// # Errors
    /// When the layout is not [`Self::kv_layout`] of its block size, or the memory is too small.
    pub fn bind(
        &self,
        memory: KvMemory,
        layout: &KvLayout,
        blocks: usize,
        threads: usize,
    ) -> Result<BoundModel, BindError> {
        let expected = self.kv_layout(layout.block_tokens);
        if *layout != expected {
            return Err(BindError::Layout { expected, found: *layout });
        }
        let needed_bytes = layout.pool_bytes(blocks);
        if memory.len() < needed_bytes {
            return Err(BindError::TooSmall { blocks, needed_bytes, found_bytes: memory.len() });
        }
        let pool = KvPool::new(memory, *layout, blocks);
        let weights = Arc::clone(&self.weights);
        let (forward, threads) = weights.bind(self.config.clone(), pool, self.isa, threads);
        Ok(BoundModel { forward, threads })
    }

    /// Sizes and family.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Tokens that end a generation; may be empty.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    /// Hash of configuration and weights, 16 hexadecimal digits, the same on every machine; and the format of weights in memory,
    /// if it is not the full one: KV caches of the two are not the same.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Type in memory.
    pub fn dtype(&self) -> Dtype {
        self.weights.dtype()
    }

    /// Instruction set that its kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Shape of a KV pool for this model.
    pub fn kv_layout(&self, block_tokens: usize) -> KvLayout {
        self.config.kv_layout(block_tokens, self.dtype())
    }

    /// Bytes of the weights in memory.
    pub fn weights_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Bytes that steps of up to `step_tokens` tokens of up to `sequences` sequences take at most beside weights and KV pool.
    pub fn scratch_bytes(&self, step_tokens: usize, sequences: usize) -> usize {
        self.config.activation_bytes(step_tokens, sequences, self.dtype())
    }
}

impl BoundModel {
    /// Compute threads, with the one that calls [`Forward::step`].
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Forward for BoundModel {
    fn vocab_size(&self) -> usize {
        self.forward.vocab_size()
    }

    fn kv_layout(&self) -> KvLayout {
        self.forward.kv_layout()
    }

    fn num_blocks(&self) -> usize {
        self.forward.num_blocks()
    }

    fn max_context_tokens(&self) -> usize {
        self.forward.max_context_tokens()
    }

    fn step(&mut self, batch: &[StepSequence<'_>], on_layer: &mut dyn FnMut(usize)) -> &[f32] {
        self.forward.step(batch, on_layer)
    }
}

/// The instruction set that is asked for, which this CPU must have, or its best.
pub(super) fn usable_isa(options: &LoadOptions<'_>) -> Result<Isa, LoadError> {
    let best = Isa::detect();
    match options.isa {
        Some(wanted) if wanted > best => Err(LoadError::IsaMissing { wanted, best }),
        wanted => Ok(wanted.unwrap_or(best)),
    }
}

/// `config.json` of `folder`, and what it says.
pub(super) fn read_config(folder: &Path) -> Result<(Value, ModelConfig), LoadError> {
    if !folder.is_dir() {
        return Err(LoadError::FolderMissing(folder.to_owned()));
    }
    let path = folder.join("config.json");
    if !path.exists() {
        return Err(LoadError::FileMissing { folder: folder.to_owned(), file: "config.json".to_owned() });
    }
    let json = read_json(&path)?;
    let config = ModelConfig::parse(&json)?;
    Ok((json, config))
}

/// Puts all weights of a model on a device.
fn on_device<D: Device>(
    (config, checkpoint): (&ModelConfig, &Checkpoint),
    isa: Isa,
    options: &LoadOptions<'_>,
) -> Result<Arc<dyn LoadedWeights>, LoadError> {
    let device = D::open(isa, options.threads);
    Ok(Arc::new(Loader::new(checkpoint, device, options).load(config)?))
}

/// `eos_token_id` of `generation_config.json`, else of `config.json`: a number, a list or nothing.
fn eos_token_ids(folder: &Path, config: &Value) -> Result<Vec<u32>, LoadError> {
    let path = folder.join("generation_config.json");
    let generation = if path.exists() { read_json(&path)? } else { Value::Null };
    let ids = [&generation["eos_token_id"], &config["eos_token_id"]].into_iter().find(|ids| !ids.is_null());
    let id = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| LoadError::Config {
            field: "eos_token_id",
            problem: format!("is {value}, not a token id"),
        })
    };
    match ids {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => Ok(vec![id(one)?]),
    }
}

pub(super) fn read_json(path: &Path) -> Result<Value, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { path: path.to_owned(), source })
}
