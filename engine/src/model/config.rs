//! What a model is: sizes that all families share, and what its family says about each layer.

use serde_json::Value;

use super::{
    LoadError,
    families::{self, Family},
    rope::Rope,
    settings::{Settings, config, unsupported},
};
use crate::{
    kernels::{Gate, HeadShape, Routing},
    kv::{Dtype, KvLayout},
};

/// Sizes and constants of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Family, by the name that Hugging Face gives its class.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Longest context that the model was made for, in tokens.
    pub max_position: usize,
    /// The output projection is the embedding table.
    pub tied_embeddings: bool,
    pub(crate) rms_norm_eps: f32,
    pub(crate) rope: Rope,
    pub(crate) layers: Vec<Layer>,
}

/// A transformer layer: attention, then feed-forward, each on the normalised residual stream and added to it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Layer {
    pub(crate) attention: Attention,
    pub(crate) feed_forward: FeedForward,
}

/// Attention over the whole context without further ado, if nothing is set.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Attention {
    /// Query, key and value projections have a bias.
    pub(crate) qkv_bias: bool,
    /// So has the output projection.
    pub(crate) output_bias: bool,
    /// Query and key are normalised per head before rope.
    pub(crate) head_norms: bool,
    /// Newest tokens that a token sees, itself included; none = all.
    pub(crate) window: Option<usize>,
    /// Each query head has a logit without a value.
    pub(crate) sinks: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum FeedForward {
    /// One gated layer of this width.
    Dense { width: usize },
    /// Some of many gated layers, chosen for each token.
    Experts(Experts),
}

/// A layer's experts; names are within the layer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Experts {
    /// Width of each expert.
    pub(crate) width: usize,
    pub(crate) gate: Gate,
    pub(crate) routing: Routing,
    /// The router's projection.
    pub(crate) router: &'static str,
    pub(crate) router_bias: bool,
    pub(crate) weights: ExpertWeights,
}

/// How a checkpoint stores experts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ExpertWeights {
    /// Three matrices for each: `<folder>.<expert>.{gate,up,down}_proj.weight`, no biases.
    Each {
        /// Name of the list of experts.
        folder: &'static str,
    },
    /// Two stacks in MXFP4, `<folder>.{gate_up,down}_proj_{blocks,scales,bias}`, gate and up rows in turn.
    Mxfp4 {
        /// Name of the stacks.
        folder: &'static str,
    },
}

impl ModelConfig {
    /// Bytes of what is computed on the way through a step of `rows` tokens, of which `wanted` give logits, in elements of `dtype`
    /// where they are operands of products.
    pub(crate) fn activation_bytes(&self, rows: usize, wanted: usize, dtype: Dtype) -> usize {
        let (float, operand, shape) = (size_of::<f32>(), dtype.bytes(), self.head_shape());
        // Pairs of a row and an expert, the router's outputs, and what a pair is as wide as.
        let sizes = |layer: &Layer| match &layer.feed_forward {
            FeedForward::Dense { width } => (1, 0, *width),
            FeedForward::Experts(Experts { width, routing, .. }) => {
                (routing.per_token, routing.experts, *width)
            }
        };
        let most = |of: fn((usize, usize, usize)) -> usize| {
            self.layers.iter().map(|l| of(sizes(l))).max().unwrap_or(0)
        };
        let wide = shape.qkv_width().max(most(|(pairs, _, width)| 2 * pairs * width));
        let experts = most(|(pairs, experts, _)| if experts == 0 { 0 } else { pairs });
        let floats =
            self.hidden + self.head_dim + wide + most(|(_, experts, _)| experts) + experts * self.hidden;
        let operands = self.hidden
            + 2 * shape.q_width()
            + most(|(pairs, _, width)| pairs * width)
            + experts * self.hidden;
        rows * (floats * float + operands * operand) + wanted * (self.vocab + self.hidden) * float
    }

    pub(crate) fn parse(json: &Value) -> Result<Self, LoadError> {
        let settings = Settings(json);
        let name = json["architectures"][0]
            .as_str()
            .ok_or_else(|| config("architectures", "is missing".to_owned()))?;
        let family = families::find(name)?;
        refuse_unsupported(family, settings)?;
        let hidden = settings.width("hidden_size", 2)?;
        let heads = settings.size("num_attention_heads")?;
        let kv_heads = settings.size_or("num_key_value_heads", heads)?;
        if heads % kv_heads != 0 {
            return Err(config(
                "num_key_value_heads",
                format!("{kv_heads} does not divide {heads} attention heads"),
            ));
        }
        let head_dim = settings.size_or("head_dim", hidden / heads)?;
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(config("head_dim", format!("{head_dim} is not a positive even number")));
        }
        let layers = settings.size("num_hidden_layers")?;
        Ok(Self {
            architecture: family.architecture,
            hidden,
            heads,
            kv_heads,
            head_dim,
            vocab: settings.size("vocab_size")?,
            max_position: settings.size("max_position_embeddings")?,
            tied_embeddings: settings.flag_or("tie_word_embeddings", false),
            rms_norm_eps: settings.number_or("rms_norm_eps", 1e-6)? as f32,
            rope: Rope::parse(settings)?,
            layers: (0..layers).map(|index| (family.layer)(settings, index)).collect::<Result<_, _>>()?,
        })
    }

    /// Shape of a KV pool of `dtype`.
    pub(crate) fn kv_layout(&self, block_tokens: usize, dtype: Dtype) -> KvLayout {
        let Self { kv_heads, head_dim, .. } = *self;
        KvLayout { layers: self.layers.len(), kv_heads, head_dim, block_tokens, dtype }
    }

    pub(crate) fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }
}

/// Settings that no family, or not this one, has code for.
fn refuse_unsupported(family: &Family, settings: Settings<'_>) -> Result<(), LoadError> {
    let act = settings.value("hidden_act").as_str().unwrap_or("silu");
    if act != "silu" {
        return Err(unsupported("hidden_act", act.to_owned(), "silu"));
    }
    let quantization = settings.value("quantization_config");
    if quantization.is_object() {
        let method = quantization["quant_method"].as_str().unwrap_or("unknown");
        if family.quantization != Some(method) {
            let supported = family.quantization.unwrap_or("unquantized bf16, f16, f32");
            return Err(unsupported("quantization_config", method.to_owned(), supported));
        }
    }
    Ok(())
}
