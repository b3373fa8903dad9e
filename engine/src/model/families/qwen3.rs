//! Qwen3, dense: query and key normalised per head.

use super::Family;
use crate::model::{
    LoadError,
    config::{Attention, FeedForward, Layer},
    settings::Settings,
};

pub(super) const FAMILY: Family = Family { architecture: "Qwen3ForCausalLM", quantization: None, layer };

fn layer(settings: Settings<'_>, _index: usize) -> Result<Layer, LoadError> {
    settings.refuse_true(&["attention_bias", "use_sliding_window"])?;
    settings.only_full_attention()?;
    Ok(Layer {
        attention: Attention { head_norms: true, ..Attention::default() },
        feed_forward: FeedForward::Dense { width: settings.width("intermediate_size", 2)? },
    })
}
