#!/usr/bin/env python3
"""Writes a Hugging Face folder with random bf16 weights of a known shape, for measuring speed.

    python perf/make_random_model.py OUT [--shape qwen3-0.6b|llama-56m] [--tokenizer-from DIR] [--seed N]

The speed of a dense model depends on its shape, not on its values; answers are noise. Needs numpy, and `tokenizers`
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
}


def tensors(c):
    """Name and shape of each weight."""
    hidden, inter, dim = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        parts = {"input_layernorm": (hidden,), "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
                 "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q), "post_attention_layernorm": (hidden,),
                 "mlp.gate_proj": (inter, hidden), "mlp.up_proj": (inter, hidden), "mlp.down_proj": (hidden, inter)}
        if c["model_type"] == "qwen3":
            parts |= {"self_attn.q_norm": (dim,), "self_attn.k_norm": (dim,)}
        for part, shape in parts.items():
            yield f"model.layers.{layer}.{part}.weight", shape
    yield "model.norm.weight", (hidden,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], hidden)


def bf16_bytes(rng, shape):
    """Ones for norms, else normal numbers of deviation 1 / sqrt(columns) (1 for embeddings keeps logits apart)."""
    if len(shape) == 1:
        values = np.ones(shape, np.float32)
    else:
        values = rng.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_weights(path, config, seed):
    """safetensors, written as it is made: eight bytes of header length, the header, the tensors."""
    rng, header, offset = np.random.default_rng(seed), {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(config):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors(config):
            file.write(bf16_bytes(rng, shape))
    return offset // 2


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
    config = dict(SHAPES[args.shape], hidden_act="silu", attention_bias=False, torch_dtype="bfloat16", use_cache=True)
    if args.tokenizer_from:
        eos = copy_tokenizer(args.tokenizer_from, args.out)
    else:
        eos = write_tokenizer(args.out, config["vocab_size"])
    config["eos_token_id"] = eos
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.out / "generation_config.json").write_text(json.dumps(dict(eos_token_id=eos), indent=2) + "\n")
    count = write_weights(args.out / "model.safetensors", config, args.seed)
    print(f"{args.out}: {args.shape}, {count / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
