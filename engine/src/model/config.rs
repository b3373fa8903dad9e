//! What `config.json` says about a model, checked and in one spelling.

use serde_json::Value;

use super::{LoadError, rope::RopeScaling};

/// Model families that there is code for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama 3 and its like.
    Llama,
    /// `Qwen2ForCausalLM`: biases on query, key and value.
    Qwen2,
    /// `Qwen3ForCausalLM`: query and key normalised per head.
    Qwen3,
}

impl Architecture {
    const NAMES: [(&'static str, Self); 3] = [
        ("LlamaForCausalLM", Self::Llama),
        ("Qwen2ForCausalLM", Self::Qwen2),
        ("Qwen3ForCausalLM", Self::Qwen3),
    ];

    /// The name that Hugging Face gives it.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, a)| *a == self).map_or("", |(name, _)| name)
    }

    /// Query, key and value projections have a bias.
    pub(crate) fn qkv_bias(self) -> bool {
        self == Self::Qwen2
    }

    /// Query and key are normalised per head before rope.
    pub(crate) fn qk_norm(self) -> bool {
        self == Self::Qwen3
    }

    fn from_name(found: &str) -> Result<Self, LoadError> {
        Self::NAMES.iter().find(|(name, _)| *name == found).map(|(_, a)| *a).ok_or_else(|| {
            LoadError::UnsupportedArchitecture {
                found: found.to_owned(),
                supported: Self::NAMES.map(|(name, _)| name).join(", "),
            }
        })
    }
}

/// Sizes and constants of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Transformer layers.
    pub layers: usize,
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
    pub(crate) rope_theta: f64,
    pub(crate) rope_scaling: RopeScaling,
}

impl ModelConfig {
    pub(crate) fn parse(json: &Value) -> Result<Self, LoadError> {
        let name = json["architectures"][0].as_str().ok_or_else(|| missing("architectures"))?;
        let architecture = Architecture::from_name(name)?;
        refuse_unsupported(json)?;
        let hidden = size(json, "hidden_size")?;
        let intermediate = size(json, "intermediate_size")?;
        for (field, value) in [("hidden_size", hidden), ("intermediate_size", intermediate)] {
            if value % 2 != 0 {
                return Err(config(
                    field,
                    format!("{value} is odd; the bf16 kernels take elements in pairs"),
                ));
            }
        }
        let heads = size(json, "num_attention_heads")?;
        let kv_heads = size_or(json, "num_key_value_heads", heads)?;
        if heads % kv_heads != 0 {
            return Err(config(
                "num_key_value_heads",
                format!("{kv_heads} does not divide {heads} attention heads"),
            ));
        }
        let head_dim = size_or(json, "head_dim", hidden / heads)?;
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(config("head_dim", format!("{head_dim} is not a positive even number")));
        }
        // Newer transformers write one `rope_parameters`; older ones `rope_theta` beside `rope_scaling`.
        let rope = [&json["rope_parameters"], &json["rope_scaling"]].into_iter().find(|v| v.is_object());
        let theta = rope.map(|r| &r["rope_theta"]).filter(|v| !v.is_null()).unwrap_or(&json["rope_theta"]);
        let max_position = size(json, "max_position_embeddings")?;
        Ok(Self {
            architecture,
            hidden,
            intermediate,
            layers: size(json, "num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            vocab: size(json, "vocab_size")?,
            max_position,
            tied_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            rms_norm_eps: number_or(json, "rms_norm_eps", 1e-6)? as f32,
            rope_theta: positive(theta, "rope_theta", 10_000.0)?,
            rope_scaling: RopeScaling::parse(rope.unwrap_or(&Value::Null))?,
        })
    }
}

/// Settings that would change the arithmetic in a way that there is no code for.
fn refuse_unsupported(json: &Value) -> Result<(), LoadError> {
    let unsupported =
        |field, found: String, supported| LoadError::UnsupportedSetting { field, found, supported };
    let act = json["hidden_act"].as_str().unwrap_or("silu");
    if act != "silu" {
        return Err(unsupported("hidden_act", act.to_owned(), "silu"));
    }
    if json["quantization_config"].is_object() {
        let method = json["quantization_config"]["quant_method"].as_str().unwrap_or("unknown").to_owned();
        return Err(unsupported("quantization_config", method, "unquantized bf16, f16, f32"));
    }
    for field in ["attention_bias", "mlp_bias", "use_sliding_window"] {
        if json[field].as_bool() == Some(true) {
            return Err(unsupported(field, "true".to_owned(), "false"));
        }
    }
    let layer_types = json["layer_types"].as_array().map_or(&[][..], Vec::as_slice);
    match layer_types.iter().find(|t| t.as_str() != Some("full_attention")) {
        Some(other) => Err(unsupported("layer_types", other.to_string(), "full_attention")),
        None => Ok(()),
    }
}

fn missing(field: &'static str) -> LoadError {
    config(field, "is missing".to_owned())
}

pub(super) fn config(field: &'static str, problem: String) -> LoadError {
    LoadError::Config { field, problem }
}

/// A size that must be there. Bounded, so that products of a few of them cannot overflow.
fn size(json: &Value, field: &'static str) -> Result<usize, LoadError> {
    let value = &json[field];
    if value.is_null() {
        return Err(missing(field));
    }
    match value.as_u64() {
        Some(n @ 1..=0xff_ffff) => Ok(n as usize),
        _ => Err(config(field, format!("is {value}, not a number from 1 to {}", 0xff_ffff))),
    }
}

fn size_or(json: &Value, field: &'static str, default: usize) -> Result<usize, LoadError> {
    if json[field].is_null() { Ok(default) } else { size(json, field) }
}

fn number_or(json: &Value, field: &'static str, default: f64) -> Result<f64, LoadError> {
    positive(&json[field], field, default)
}

/// `value` as a positive number, `default` if it is not there.
pub(super) fn positive(value: &Value, field: &'static str, default: f64) -> Result<f64, LoadError> {
    if value.is_null() {
        return Ok(default);
    }
    match value.as_f64() {
        Some(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err(config(field, format!("is {value}, not a positive number"))),
    }
}
