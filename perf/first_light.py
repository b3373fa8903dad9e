#!/usr/bin/env python3
"""TTFT, ITL and tokens/s of a model served aggregated and disaggregated, side by side in one run.

Starts one `baton up` for each mode, keeps all of them up, and sends requests to them in turn (A B C A B C …), so that a
noisy neighbour hits every mode alike; prints medians and their ratio to the first mode as a Markdown table.

    python3 perf/first_light.py --baton target/release/baton --model models/NAME --input 512 --output 64 --runs 9

Prompts are random token ids (different for each request, so that no cache helps), sent to /v1/completions as a token
list; tokens are counted from `usage`, times are taken at the client when a line arrives. Standard library only.
"""

import argparse
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

MODES = {
    "aggregated": ["--prefill", "0", "--decode", "1"],
    "shm": ["--prefill", "1", "--decode", "1", "--fabric", "shm"],
    "libfabric:tcp": ["--prefill", "1", "--decode", "1", "--fabric", "libfabric:tcp"],
}


@dataclass
class Sample:
    """One streamed request; times in seconds."""

    ttft: float
    itls: list
    tokens: int
    total: float


class Deployment:
    """A running `baton up`."""

    def __init__(self, baton, model, mode, port, extra):
        self.mode, self.port = mode, port
        command = [baton, "up", "--model", model, "--port", str(port), *MODES[mode], *extra]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=self._keep_log, daemon=True).start()
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.process.wait()
            sys.exit(f"{' '.join(command)} did not start:\n{''.join(self.log[-20:])}")

    def _keep_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def request(self, prompt, output_tokens):
        body = {
            "prompt": prompt,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{self.mode}: HTTP {response.status}: {response.read()[:300]}")
        arrivals, tokens = [], None
        for line in response:
            now = time.perf_counter()
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"{self.mode}: {event['error']}")
            if event["choices"]:
                arrivals.append(now)
            elif event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        connection.close()
        if tokens != output_tokens:
            raise RuntimeError(f"{self.mode}: asked for {output_tokens} tokens, got {tokens}")
        itls = [b - a for a, b in zip(arrivals, arrivals[1:])]
        return Sample(arrivals[0] - start, itls, tokens, arrivals[-1] - start)


def measure(deployment, prompts, output_tokens):
    """Sends `prompts` at the same time; returns the samples and the wall time in seconds."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        samples = list(pool.map(lambda prompt: deployment.request(prompt, output_tokens), prompts))
    return samples, time.perf_counter() - start


def vocabulary_size(model):
    with open(f"{model}/config.json", encoding="utf-8") as file:
        return json.load(file)["vocab_size"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baton", default="target/release/baton", help="the binary (default: %(default)s)")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--mode", action="append", choices=MODES, help="modes to compare; the first is the baseline (default: all)")
    parser.add_argument("--input", type=int, default=512, help="prompt tokens (default: %(default)s)")
    parser.add_argument("--output", type=int, default=64, help="output tokens (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=1, help="requests at the same time (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=9, help="rounds over all modes, after one warm-up (default: %(default)s)")
    parser.add_argument("--port", type=int, default=18000, help="first of the ports used (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("up", nargs="*", help="further options for `baton up`, after --")
    args = parser.parse_args()
    modes = args.mode or list(MODES)
    draw = random.Random(args.seed)
    vocabulary = vocabulary_size(args.model)

    deployments = []
    results = {mode: [] for mode in modes}
    try:
        for index, mode in enumerate(modes):
            deployments.append(Deployment(args.baton, args.model, mode, args.port + index, args.up))
        for run in range(args.runs + 1):
            # Ids below 300 may be special tokens in some vocabularies; any id is a valid input otherwise.
            prompts = [[draw.randrange(300, vocabulary) for _ in range(args.input)] for _ in range(args.concurrency)]
            for deployment in deployments:
                outcome = measure(deployment, prompts, args.output)
                if run > 0:
                    results[deployment.mode].append(outcome)
            print(f"round {run} of {args.runs}", file=sys.stderr)
    finally:
        for deployment in deployments:
            deployment.stop()

    def summary(mode):
        samples = [sample for round_samples, _ in results[mode] for sample in round_samples]
        itls = [itl for sample in samples for itl in sample.itls]
        rates = [sum(sample.tokens for sample in round_samples) / wall for round_samples, wall in results[mode]]
        return (
            1e3 * statistics.median(sample.ttft for sample in samples),
            1e3 * statistics.median(itls),
            statistics.median(rates),
        )

    base = summary(modes[0])
    print(f"{args.model}: {args.input} in, {args.output} out, {args.concurrency} at a time, median of {args.runs} rounds\n")
    print("| mode | TTFT ms | ITL ms | output tokens/s | TTFT, ITL, tokens/s relative to the first row |")
    print("|---|---|---|---|---|")
    for mode in modes:
        row = summary(mode)
        ratios = ", ".join(f"{value / reference:.2f}" for value, reference in zip(row, base))
        print(f"| {mode} | {row[0]:.1f} | {row[1]:.2f} | {row[2]:.1f} | {ratios} |")


if __name__ == "__main__":
    main()
