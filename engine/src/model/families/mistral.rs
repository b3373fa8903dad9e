//! Mistral: a window on every layer, or on none.

use super::Family;
use crate::model::{
    LoadError,
    config::{Attention, FeedForward, Layer},
    settings::Settings,
};

pub(super) const FAMILY: Family = Family { architecture: "MistralForCausalLM", quantization: None, layer };

/// What a `config.json` that does not mention the window means; null means none.
const DEFAULT_WINDOW: usize = 4096;

fn layer(settings: Settings<'_>, _index: usize) -> Result<Layer, LoadError> {
    settings.refuse_true(&["attention_bias", "mlp_bias"])?;
    // Written for later families that share the class; this one's layers are all alike.
    settings.only_full_attention()?;
    let window = match settings.value("sliding_window").is_null() && settings.has("sliding_window") {
        true => None,
        false => Some(settings.size_or("sliding_window", DEFAULT_WINDOW)?),
    };
    Ok(Layer {
        attention: Attention { window, ..Attention::default() },
        feed_forward: FeedForward::Dense { width: settings.width("intermediate_size", 2)? },
    })
}
