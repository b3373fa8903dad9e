//! Model folders: the bundled one, and small ones made up on the spot.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use half::bf16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use tempfile::TempDir;

/// A folder in Hugging Face format; a made-up one goes away with this value.
pub(crate) struct ModelFolder {
    path: PathBuf,
    _made_up: Option<TempDir>,
}

/// Size and seed of a made-up Qwen3 model. Its answers mean nothing, but depend on every token of the prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) intermediate: usize,
    pub(crate) context: usize,
    pub(crate) seed: u64,
}

impl Shape {
    /// Answers at once.
    pub(crate) const TINY: Self = Self {
        layers: 4,
        hidden: 64,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        intermediate: 128,
        context: 2048,
        seed: 1,
    };

    /// Takes long enough over a long prompt that something can happen to it meanwhile.
    pub(crate) const SLOW: Self = Self {
        layers: 8,
        hidden: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        intermediate: 768,
        context: 4096,
        seed: 2,
    };
}

/// Bytes, and the three tokens of ChatML.
const SPECIAL_TOKENS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Above the tokenizer's, as real models have it.
const VOCABULARY: usize = 320;
const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

impl ModelFolder {
    /// The model that the repository ships.
    pub(crate) fn bundled() -> Self {
        let path = std::path::absolute("../models/baton-courier").unwrap();
        assert!(path.join("model.safetensors").is_file(), "no model in {}", path.display());
        Self { path, _made_up: None }
    }

    /// A model with random weights.
    pub(crate) fn made_up(shape: Shape) -> Self {
        let folder = TempDir::with_prefix("baton-model-").expect("a temporary folder");
        // Its last part is the model's name, which is what clients say.
        let path = folder.path().join("made-up");
        fs::create_dir(&path).expect("a folder for the model");
        write_weights(&path, shape);
        write_configuration(&path, shape);
        write_tokenizer(&path);
        Self { path, _made_up: Some(folder) }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, as an argument.
    pub(crate) fn arg(&self) -> String {
        self.path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Replaces a file's content by what `change` makes of it (made-up models only).
    pub(crate) fn change(&self, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> &Self {
        assert!(self._made_up.is_some(), "the bundled model stays as it is");
        let path = self.path.join(file);
        let content = fs::read(&path).expect("the model's file can be read");
        fs::write(&path, change(content)).expect("the model's file can be written");
        self
    }
}

fn write_weights(folder: &Path, shape: Shape) {
    let Shape { layers, hidden, heads, kv_heads, head_dim, intermediate, .. } = shape;
    let mut random = Random(shape.seed);
    let mut weights = BTreeMap::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let fan_in =
            if name.ends_with("embed_tokens.weight") { 3 } else { *shape.last().expect("a dimension") };
        let values = match shape.len() {
            1 => random.around_one(shape[0]),
            _ => random.centred(shape.iter().product(), fan_in),
        };
        weights.insert(name, (shape, values));
    };
    add("model.embed_tokens.weight".into(), vec![VOCABULARY, hidden]);
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * head_dim, hidden]),
            ("self_attn.k_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.v_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * head_dim]),
            ("self_attn.q_norm", vec![head_dim]),
            ("self_attn.k_norm", vec![head_dim]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![intermediate, hidden]),
            ("mlp.up_proj", vec![intermediate, hidden]),
            ("mlp.down_proj", vec![hidden, intermediate]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    add("model.norm.weight".into(), vec![hidden]);
    add("lm_head.weight".into(), vec![VOCABULARY, hidden]);
    let views = weights.iter().map(|(name, (shape, values))| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), values).expect("size and shape agree"))
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))
        .expect("weights are written");
}

fn write_configuration(folder: &Path, shape: Shape) {
    write_json(
        &folder.join("config.json"),
        &json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "torch_dtype": "bfloat16",
            "vocab_size": VOCABULARY,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "max_position_embeddings": shape.context,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "hidden_act": "silu",
            "attention_bias": false,
            "tie_word_embeddings": false,
            "use_sliding_window": false,
            "eos_token_id": 258,
            "bos_token_id": 256
        }),
    );
}

/// A tokenizer without merges: one token a byte.
fn write_tokenizer(folder: &Path) {
    let mut vocabulary: BTreeMap<String, usize> =
        (0..=255).map(|byte: u8| (byte_character(byte).to_string(), usize::from(byte))).collect();
    let special = SPECIAL_TOKENS.iter().enumerate().map(|(index, text)| (256 + index, *text));
    vocabulary.extend(special.clone().map(|(id, text)| (text.to_owned(), id)));
    let added: Vec<_> = special
        .map(|(id, text)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    write_json(
        &folder.join("tokenizer.json"),
        &json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": []
            }
        }),
    );
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": null,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "chat_template": CHAT_TEMPLATE
        }),
    );
}

/// GPT-2's printable stand-in for a byte: itself where that is printable, otherwise the next free character from U+0100.
fn byte_character(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return char::from(byte);
    }
    let earlier = (0..byte).filter(|&other| !is_printable(other)).count();
    char::from_u32(0x100 + u32::try_from(earlier).expect("at most 255"))
        .expect("U+0100 to U+01FF are characters")
}

pub(super) fn write_json(path: &Path, value: &serde_json::Value) {
    fs::write(path, value.to_string()).expect("the model's file can be written");
}

/// splitmix64
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    fn unit(&mut self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit a float exactly")]
        let fraction = (self.next() >> 40) as f32 / (1u64 << 24) as f32;
        2.0 * fraction - 1.0
    }

    /// bf16 bytes of numbers that are uniform with variance 1 / `fan_in`, which keeps the size of activations.
    pub(super) fn centred(&mut self, count: usize, fan_in: usize) -> Vec<u8> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let reach = (3.0 / fan_in as f32).sqrt();
        (0..count).flat_map(|_| bf16::from_f32(reach * self.unit()).to_le_bytes()).collect()
    }

    /// bf16 bytes, as weights of a norm.
    fn around_one(&mut self, count: usize) -> Vec<u8> {
        (0..count).flat_map(|_| bf16::from_f32(1.0 + 0.1 * self.unit()).to_le_bytes()).collect()
    }
}
