#!/usr/bin/env python3
"""Prefill and decode speed of vLLM's CPU build on two cores, on the same terms as the engine's `step_bench`.

    python perf/vllm_speed.py MODEL_DIR

Needs vLLM's CPU build (0.32 or so). Prints the best of a few runs: tokens/s of a prompt, and of 24 decode steps over contexts of 128 and 1,024.
"""

import os
import random
import sys
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "0-1")

from vllm import LLM, SamplingParams  # noqa: E402  (reads the environment when it is imported)

STEPS = 24


def main(model):
    llm = LLM(
        model=model,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_model_len=4096,
        max_num_batched_tokens=8192,
        max_num_seqs=64,
        enable_prefix_caching=False,
    )
    rng = random.Random(1)

    def prompt(tokens):
        return {"prompt_token_ids": [rng.randrange(1000, 150_000) for _ in range(tokens)]}

    def seconds(prompts, tokens):
        params = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False)
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start

    seconds([prompt(64)], 4)
    seconds([prompt(512)], 1)
    for tokens in (512, 2048):
        best = min(seconds([prompt(tokens)], 1) for _ in range(3))
        print(f"prefill {tokens}: {tokens / best:.1f} tokens/s", flush=True)
    for batch, context in ((1, 128), (8, 128), (32, 128), (1, 1024), (8, 1024)):
        prompts = [prompt(context) for _ in range(batch)]
        # The prompts alone are taken off, so that decoding is left.
        spent = [seconds(prompts, STEPS + 1) - seconds(prompts, 1) for _ in range(2)]
        rate = batch * STEPS / min(spent)
        print(f"decode batch {batch}, context {context}: {rate:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
