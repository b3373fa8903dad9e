//! Qwen2 and Qwen2.5: biases on query, key and value.

use super::Family;
use crate::model::{
    LoadError,
    config::{Attention, FeedForward, Layer},
    settings::Settings,
};

pub(super) const FAMILY: Family = Family { architecture: "Qwen2ForCausalLM", quantization: None, layer };

fn layer(settings: Settings<'_>, _index: usize) -> Result<Layer, LoadError> {
    settings.refuse_true(&["use_sliding_window"])?;
    settings.only_full_attention()?;
    Ok(Layer {
        attention: Attention { qkv_bias: true, ..Attention::default() },
        feed_forward: FeedForward::Dense { width: settings.width("intermediate_size", 2)? },
    })
}
