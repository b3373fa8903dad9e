//! Qwen3 with experts: attention as in the dense one; experts on the layers that `decoder_sparse_step` and `mlp_only_layers`
//! leave to them.

use super::Family;
use crate::{
    kernels::{Gate, Routing, Scoring},
    model::{
        LoadError,
        config::{Attention, ExpertWeights, Experts, FeedForward, Layer},
        settings::{Settings, config},
    },
};

pub(super) const FAMILY: Family = Family { architecture: "Qwen3MoeForCausalLM", quantization: None, layer };

fn layer(settings: Settings<'_>, index: usize) -> Result<Layer, LoadError> {
    settings.refuse_true(&["attention_bias", "use_sliding_window"])?;
    settings.only_full_attention()?;
    let step = settings.size_or("decoder_sparse_step", 1)?;
    let dense = settings.value("mlp_only_layers").as_array().into_iter().flatten();
    let is_dense = dense.into_iter().any(|layer| layer.as_u64() == Some(index as u64));
    let feed_forward = if is_dense || !(index + 1).is_multiple_of(step) {
        FeedForward::Dense { width: settings.width("intermediate_size", 2)? }
    } else {
        FeedForward::Experts(experts(settings)?)
    };
    Ok(Layer { attention: Attention { head_norms: true, ..Attention::default() }, feed_forward })
}

fn experts(settings: Settings<'_>) -> Result<Experts, LoadError> {
    // transformers writes either name.
    let count = if settings.has("num_experts") { "num_experts" } else { "num_local_experts" };
    let experts = settings.size(count)?;
    let per_token = settings.size_or("num_experts_per_tok", 8)?;
    if per_token > experts {
        return Err(config("num_experts_per_tok", format!("{per_token} is more than {experts} experts")));
    }
    let scoring = match settings.flag_or("norm_topk_prob", false) {
        true => Scoring::SoftmaxOfChosen,
        false => Scoring::SoftmaxOfAll,
    };
    Ok(Experts {
        width: settings.width("moe_intermediate_size", 2)?,
        gate: Gate::Silu,
        routing: Routing { experts, per_token, scoring },
        router: "mlp.gate",
        router_bias: false,
        weights: ExpertWeights::Each { folder: "mlp.experts" },
    })
}
