#!/usr/bin/env python3
"""Prefill and decode speed of transformers on two cores, on the same terms as the engine's `step_bench`.

    python perf/transformers_speed.py MODEL_DIR

Needs torch and transformers. bf16, SDPA attention, a static cache; prints the best of a few runs, in tokens/s.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM, StaticCache

STEPS = 16


@torch.inference_mode()
def main(folder):
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    vocab = model.config.vocab_size

    def tokens(batch, count):
        return torch.arange(batch * count).reshape(batch, count) * 7919 % vocab

    def forward(ids, cache, start):
        place = torch.arange(start, start + ids.shape[1])
        return model(ids, past_key_values=cache, cache_position=place, use_cache=True, logits_to_keep=1)

    def prefill(count):
        cache = StaticCache(config=model.config, max_cache_len=count)
        start = time.perf_counter()
        forward(tokens(1, count), cache, 0)
        return time.perf_counter() - start

    def decode(batch, context):
        cache = StaticCache(config=model.config, max_cache_len=context + STEPS)
        forward(tokens(batch, context), cache, 0)
        start = time.perf_counter()
        for step in range(STEPS):
            forward(tokens(batch, 1), cache, context + step)
        return (time.perf_counter() - start) / STEPS

    prefill(64)
    for count in (512, 2048):
        print(f"prefill {count}: {count / min(prefill(count) for _ in range(2)):.1f} tokens/s", flush=True)
    for batch, context in ((1, 128), (8, 128), (32, 128), (1, 1024), (8, 1024)):
        rate = batch / min(decode(batch, context) for _ in range(2))
        print(f"decode batch {batch}, context {context}: {rate:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
