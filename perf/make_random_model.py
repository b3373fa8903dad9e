#!/usr/bin/env python3
"""Writes a Hugging Face folder with random bf16 weights of a known shape, for measuring speed.

    python perf/make_random_model.py OUT [--shape NAME] [--tokenizer-from DIR] [--seed N]

The speed of a dense model depends on its shape, not on its values (with experts, on how evenly they are chosen: evenly
here); answers are noise. Needs numpy, and `tokenizers`
unless a tokenizer is copied. Without `--tokenizer-from` the tokenizer is byte-level (a token a byte) with reserved
tokens up to the size of the vocabulary, so any token that the model utters can be decoded.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

SHAPES = {
    # Qwen/Qwen3-0.6B: 596 M parameters.
    "qwen3-0.6b": dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, vocab_size=151936,
        max_position_embeddings=40960, rope_theta=1000000.0, rms_norm_eps=1e-6, tie_word_embeddings=True),
    # A small Llama: 56 M parameters.
    "llama-56m": dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=512, intermediate_size=1536,
        num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4, head_dim=64, vocab_size=32000,
        max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5, tie_word_embeddings=False),
    # Qwen3-30B-A3B's layers with a quarter of the experts, and few of them: 0.8 B parameters, 0.2 B of them for a token.
    "qwen3-moe-0.8b": dict(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=2048, intermediate_size=6144,
        moe_intermediate_size=768, num_experts=32, num_experts_per_tok=4, norm_topk_prob=True, decoder_sparse_step=1,
        mlp_only_layers=[], num_hidden_layers=4, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        vocab_size=32000, max_position_embeddings=40960, rope_theta=1000000.0, rms_norm_eps=1e-6,
        tie_word_embeddings=True),
    # gpt-oss-20b's layers, few of them: 2.4 B parameters, most of them in MXFP4.
    "gpt-oss-2b": dict(
        architectures=["GptOssForCausalLM"], model_type="gpt_oss", hidden_size=2880, intermediate_size=2880,
        num_local_experts=32, num_experts_per_tok=4, num_hidden_layers=3, num_attention_heads=64, num_key_value_heads=8,
        head_dim=64, vocab_size=32000, sliding_window=128, swiglu_limit=7.0, max_position_embeddings=131072,
        rope_theta=150000.0, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_scaling=dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                          original_max_position_embeddings=4096),
        quantization_config=dict(quant_method="mxfp4")),
}


def tensors(c):
    """Name, shape and type of each weight."""
    hidden, dim, kind = c["hidden_size"], c["head_dim"], c["model_type"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"] * dim
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden), "BF16"
    for layer in range(c["num_hidden_layers"]):
        projections = {"q_proj": (heads * dim, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden),
                       "o_proj": (hidden, heads * dim)}
        parts = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
        parts |= {f"self_attn.{name}.weight": shape for name, shape in projections.items()}
        if kind == "gpt_oss":
            parts |= {f"self_attn.{name}.bias": shape[:1] for name, shape in projections.items()}
            parts |= {"self_attn.sinks": (heads,)}
        if kind.startswith("qwen3"):
            parts |= {"self_attn.q_norm.weight": (dim,), "self_attn.k_norm.weight": (dim,)}
        for part, shape in (parts | feed_forward(c)).items():
            stored = "U8" if part.endswith(("_blocks", "_scales")) else "BF16"
            yield f"model.layers.{layer}.{part}", shape, stored
    yield "model.norm.weight", (hidden,), "BF16"
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], hidden), "BF16"


def feed_forward(c):
    """Names within a layer, and shapes."""
    def gated(prefix, width):
        return {f"{prefix}.gate_proj.weight": (width, hidden), f"{prefix}.up_proj.weight": (width, hidden),
                f"{prefix}.down_proj.weight": (hidden, width)}

    def packed(name, rows, columns):
        return {f"mlp.experts.{name}_blocks": (count, rows, columns // 32, 16),
                f"mlp.experts.{name}_scales": (count, rows, columns // 32), f"mlp.experts.{name}_bias": (count, rows)}

    hidden, inter = c["hidden_size"], c["intermediate_size"]
    if c["model_type"] == "qwen3_moe":
        experts = [gated(f"mlp.experts.{e}", c["moe_intermediate_size"]) for e in range(c["num_experts"])]
        return {"mlp.gate.weight": (c["num_experts"], hidden)} | {k: v for e in experts for k, v in e.items()}
    if c["model_type"] == "gpt_oss":
        count = c["num_local_experts"]
        return ({"mlp.router.weight": (count, hidden), "mlp.router.bias": (count,)}
                | packed("gate_up_proj", 2 * inter, hidden) | packed("down_proj", hidden, inter))
    return gated("mlp", inter)


def tensor_bytes(rng, name, shape, stored):
    """Ones for norms, zeros for biases and sinks, else normal numbers of deviation 1 / sqrt(columns) (1 for embeddings
    keeps logits apart); MXFP4 blocks of any bits under a scale of that size."""
    if name.endswith("_blocks"):
        return rng.integers(0, 256, shape, np.uint8).tobytes()
    if name.endswith("_scales"):
        return np.full(shape, 127 - round(np.log2(3 * (32 * shape[-1]) ** 0.5)), np.uint8).tobytes()
    if name.endswith(("bias", "sinks")):
        return bf16_bytes(np.zeros(shape, np.float32))
    if len(shape) == 1:
        return bf16_bytes(np.ones(shape, np.float32))
    return bf16_bytes(rng.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5))


def bf16_bytes(values):
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_weights(path, config, seed):
    """safetensors, written as it is made: eight bytes of header length, the header, the tensors."""
    rng, header, offset = np.random.default_rng(seed), {"__metadata__": {"format": "pt"}}, 0
    for name, shape, stored in tensors(config):
        size = (1 if stored == "U8" else 2) * int(np.prod(shape))
        header[name] = {"dtype": stored, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, stored in tensors(config):
            file.write(tensor_bytes(rng, name, shape, stored))
    return offset


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tokenizer(folder, vocab_size):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    for index in range(len(vocab) + len(special), vocab_size):
        vocab[f"reserved{index}"] = index
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Special tokens take the ids that were left free, so that ids have no hole.
    text = json.loads(tokenizer.to_str())
    first = len(pre_tokenizers.ByteLevel.alphabet())
    text["added_tokens"] = [
        dict(id=first + i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
        for i, s in enumerate(special)
    ]
    for i, s in enumerate(special):
        text["model"]["vocab"][s] = first + i
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False))
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", chat_template=CHAT_TEMPLATE, eos_token="<|im_end|>",
                    pad_token="<|endoftext|>", add_bos_token=False, clean_up_tokenization_spaces=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return first + special.index("<|im_end|>")


def copy_tokenizer(source, folder):
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"]:
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    for name in ["generation_config.json", "config.json"]:
        if (source / name).exists() and (eos := json.loads((source / name).read_text()).get("eos_token_id")) is not None:
            return eos
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--tokenizer-from", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[args.shape]
    config = dict(shape, hidden_act="silu", attention_bias=shape["model_type"] == "gpt_oss", torch_dtype="bfloat16", use_cache=True)
    if args.tokenizer_from:
        eos = copy_tokenizer(args.tokenizer_from, args.out)
    else:
        eos = write_tokenizer(args.out, config["vocab_size"])
    config["eos_token_id"] = eos
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.out / "generation_config.json").write_text(json.dumps(dict(eos_token_id=eos), indent=2) + "\n")
    size = write_weights(args.out / "model.safetensors", config, args.seed)
    print(f"{args.out}: {args.shape}, {size / 1e6:.0f} MB of weights")


if __name__ == "__main__":
    main()
