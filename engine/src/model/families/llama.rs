//! Llama 3 and its like.

use super::Family;
use crate::model::{
    LoadError,
    config::{Attention, FeedForward, Layer},
    settings::Settings,
};

pub(super) const FAMILY: Family = Family { architecture: "LlamaForCausalLM", quantization: None, layer };

fn layer(settings: Settings<'_>, _index: usize) -> Result<Layer, LoadError> {
    settings.refuse_true(&["attention_bias", "mlp_bias"])?;
    settings.only_full_attention()?;
    Ok(Layer {
        attention: Attention::default(),
        feed_forward: FeedForward::Dense { width: settings.width("intermediate_size", 2)? },
    })
}
