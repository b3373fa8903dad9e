//! A model on [`Metered`], for [`crate::roofline`].

use std::{path::Path, sync::Arc};

use half::bf16;

use super::{
    LoadError, LoadOptions, ModelConfig,
    checkpoint::Checkpoint,
    decoder::{Loader, Pass, Weights},
    load::{read_config, usable_isa},
};
use crate::{
    Isa,
    device::{Device as _, Metered},
    kernels::KvPool,
    kv::{Dtype, KvLayout, KvMemory},
};

/// A model whose every operation is timed; in bf16.
pub(crate) struct MeteredModel {
    config: ModelConfig,
    weights: Arc<Weights<Metered<bf16>>>,
    isa: Isa,
    threads: usize,
}

impl MeteredModel {
    /// Reads `folder` as [`super::Model::load`] does.
    pub(crate) fn load(folder: &Path, options: &LoadOptions<'_>) -> Result<Self, LoadError> {
        let (isa, threads) = (usable_isa(options)?, options.threads);
        let (_, config) = read_config(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let device = Metered::open(isa, threads);
        let loader = Loader::new(&checkpoint, device, options);
        let weights = Arc::new(loader.load(&config)?);
        Ok(Self { config, weights, isa, threads })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn kv_layout(&self, block_tokens: usize) -> KvLayout {
        self.config.kv_layout(block_tokens, Dtype::Bf16)
    }

    pub(crate) fn bind(&self, memory: KvMemory, layout: KvLayout, blocks: usize) -> Pass<Metered<bf16>> {
        let pool = KvPool::new(memory, layout, blocks);
        let device = Metered::open(self.isa, self.threads);
        Pass::new(self.config.clone(), Arc::clone(&self.weights), device, pool)
    }
}
