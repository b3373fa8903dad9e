//! LoRA adapters made up on the spot.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

use super::{
    Shape,
    model::{Random, write_json},
};

const RANK: usize = 8;

/// Writes an adapter as PEFT saves it, for a made-up model of `shape`, into `folder`. Another `seed`, other weights; they change
/// answers from the first token on.
pub(crate) fn write_adapter(folder: &Path, shape: Shape, seed: u64) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder for the adapter");
    let Shape { layers, hidden, heads, kv_heads, head_dim, intermediate, .. } = shape;
    let modules = [
        ("self_attn.q_proj", heads * head_dim, hidden),
        ("self_attn.v_proj", kv_heads * head_dim, hidden),
        ("self_attn.o_proj", hidden, heads * head_dim),
        ("mlp.up_proj", intermediate, hidden),
        ("mlp.down_proj", hidden, intermediate),
    ];
    let mut random = Random(seed);
    let mut weights = BTreeMap::new();
    for layer in 0..layers {
        for (module, n, k) in modules {
            let name =
                |matrix| format!("base_model.model.model.layers.{layer}.{module}.lora_{matrix}.weight");
            weights.insert(name('A'), (vec![RANK, k], random.centred(RANK * k, k)));
            weights.insert(name('B'), (vec![n, RANK], random.centred(n * RANK, RANK)));
        }
    }
    let views = weights.iter().map(|(name, (shape, values))| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), values).expect("size and shape agree"))
    });
    safetensors::serialize_to_file(views, None, &folder.join("adapter_model.safetensors"))
        .expect("weights are written");
    let modules = modules.map(|(module, ..)| module.split('.').next_back());
    let config = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none", "target_modules": modules});
    write_json(&folder.join("adapter_config.json"), &config);
    folder.to_owned()
}
