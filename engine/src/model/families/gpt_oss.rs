//! gpt-oss: experts in MXFP4 on every layer, a window on every other one, attention sinks, biases everywhere.

use super::Family;
use crate::{
    kernels::{Gate, Routing, Scoring, mxfp4},
    model::{
        LoadError,
        config::{Attention, ExpertWeights, Experts, FeedForward, Layer},
        settings::{Settings, config, unsupported},
    },
};

pub(super) const FAMILY: Family =
    Family { architecture: "GptOssForCausalLM", quantization: Some("mxfp4"), layer };

fn layer(settings: Settings<'_>, index: usize) -> Result<Layer, LoadError> {
    if !settings.value("quantization_config").is_object() {
        return Err(unsupported("quantization_config", "none".to_owned(), "mxfp4"));
    }
    let bias = settings.flag_or("attention_bias", true);
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        head_norms: false,
        window: window(settings, index)?,
        sinks: true,
    };
    Ok(Layer { attention, feed_forward: FeedForward::Experts(experts(settings)?) })
}

fn window(settings: Settings<'_>, index: usize) -> Result<Option<usize>, LoadError> {
    // Without a list, every layer with an even number has the window.
    let default = if index.is_multiple_of(2) { "sliding_attention" } else { "full_attention" };
    let kind = match settings.value("layer_types") {
        list if list.is_null() => default,
        list => list[index].as_str().unwrap_or("missing"),
    };
    match kind {
        "sliding_attention" => settings.size("sliding_window").map(Some),
        "full_attention" => Ok(None),
        other => Err(unsupported("layer_types", other.to_owned(), "sliding_attention, full_attention")),
    }
}

fn experts(settings: Settings<'_>) -> Result<Experts, LoadError> {
    let experts = settings.size("num_local_experts")?;
    let per_token = settings.size("num_experts_per_tok")?;
    if per_token > experts {
        return Err(config("num_experts_per_tok", format!("{per_token} is more than {experts} experts")));
    }
    // The residual stream is the experts' input, and is cut into blocks as well.
    settings.width("hidden_size", mxfp4::BLOCK)?;
    let alpha = settings.number_or("swiglu_alpha", 1.702)? as f32;
    let limit = settings.number_or("swiglu_limit", 7.0)? as f32;
    Ok(Experts {
        width: settings.width("intermediate_size", mxfp4::BLOCK)?,
        gate: Gate::Clamped { alpha, limit },
        routing: Routing { experts, per_token, scoring: Scoring::SoftmaxOfChosen },
        router: "mlp.router",
        router_bias: true,
        weights: ExpertWeights::Mxfp4 { folder: "mlp.experts" },
    })
}
