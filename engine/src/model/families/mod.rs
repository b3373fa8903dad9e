//! The model families. Each file states everything that is particular to one: which settings it reads and refuses, what its
//! layers are made of, how its weights are named where that differs. `docs/add-a-model.md` shows how to add one.
//!
//! Names that all share (`model.embed_tokens`, `self_attn.q_proj`, …) are in [`super::decoder`].

mod gpt_oss;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use super::{LoadError, config::Layer, settings::Settings};

const ALL: [&Family; 6] =
    [&llama::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY, &mistral::FAMILY, &qwen3_moe::FAMILY, &gpt_oss::FAMILY];

/// What is particular to a family.
pub(crate) struct Family {
    /// Its name in `architectures` of `config.json`.
    pub(crate) architecture: &'static str,
    /// The one method of quantisation in which its checkpoints may come.
    pub(crate) quantization: Option<&'static str>,
    /// What layer `index` is made of.
    pub(crate) layer: fn(Settings<'_>, usize) -> Result<Layer, LoadError>,
}

/// The family that calls itself `architecture`.
pub(crate) fn find(architecture: &str) -> Result<&'static Family, LoadError> {
    ALL.into_iter().find(|family| family.architecture == architecture).ok_or_else(|| {
        LoadError::UnsupportedArchitecture {
            found: architecture.to_owned(),
            supported: ALL.map(|family| family.architecture).join(", "),
        }
    })
}
