"""Streams completions through the openai or the litellm SDK, some at a time, and writes down what came when.

Called by run.py, with the environment's own Python: sdk_stream.py openai|litellm LOAD RESULT
"""

import json
import os
import random
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def opener(sdk, load):
    """A function that begins the stream for a prompt."""
    common = {"max_tokens": load["output"], "stream": True, "stream_options": {"include_usage": True}}
    extra = {"ignore_eos": True}
    if sdk == "openai":
        from openai import OpenAI

        client = OpenAI(base_url=load["url"] + "/v1", api_key="none", max_retries=0)
        return lambda prompt: client.completions.create(model=load["model"], prompt=prompt, extra_body=extra, **common)
    import litellm

    name = f"text-completion-openai/{load['model']}"
    where = {"api_base": load["url"] + "/v1", "api_key": "none", "num_retries": 0}
    return lambda prompt: litellm.text_completion(model=name, prompt=prompt, extra_body=extra, **where, **common)


def prompts(load):
    """Texts of words that the tokenizer spells as one token each, with the space before them."""
    with open(os.path.join(load["tokenizer"], "tokenizer.json")) as file:
        vocabulary = json.load(file)["model"]["vocab"]
    tokens = vocabulary if isinstance(vocabulary, dict) else [token for token, _ in vocabulary]
    words = sorted(token[1:] for token in tokens if re.fullmatch("[Ġ▁][a-z]+", token))
    rng = random.Random(time.time_ns())
    return [" ".join(rng.choices(words, k=load["input"])) for _ in range(load["requests"])]


def measure(begin, prompt):
    """Times of a request's events, in s from its start, and its tokens."""
    start = time.perf_counter()
    events, tokens = [], None
    for event in begin(prompt):
        if event.choices and event.choices[0].text:
            events.append(time.perf_counter() - start)
        if getattr(event, "usage", None):
            tokens = event.usage.completion_tokens
    return events, tokens


def main(sdk, load, result):
    load = json.loads(load)
    begin = opener(sdk, load)
    # Connections, and what an SDK loads at first use.
    measure(begin, "hello")
    with ThreadPoolExecutor(load["concurrency"]) as pool:
        done = list(pool.map(lambda prompt: measure(begin, prompt), prompts(load)))
    ttfts = sorted(1e3 * events[0] for events, _ in done)
    tpots = [1e3 * (events[-1] - events[0]) / ((tokens or len(events)) - 1) for events, tokens in done]
    gaps = [1e3 * (after - before) for events, _ in done for before, after in zip(events, events[1:])]
    times = {
        "requests": len(done),
        "ttft_mean": statistics.mean(ttfts),
        "ttft_p50": statistics.median(ttfts),
        "ttft_p99": ttfts[-1 - len(ttfts) // 100],
        "tpot": statistics.mean(tpots),
        "gap": statistics.mean(gaps),
    }
    with open(result, "w") as file:
        json.dump(times, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
