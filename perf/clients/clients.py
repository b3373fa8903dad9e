"""Other people's clients, unmodified, and our own: how each is installed, called, and read.

Every client sends `load.requests` requests with `load.concurrency` in flight, of `load.input` prompt tokens made by the client itself, and
asks for exactly `load.output` tokens.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# What vLLM's and SGLang's benchmark modules import. Their own requirements are those of their servers, which need a GPU.
BENCH_IMPORTS = """
aiohttp anthropic blake3 cachetools cbor2 cloudpickle datasets depyf diskcache einops fastapi gguf ijson IPython lark
llguidance lm-format-enforcer loguru mcp mistral_common msgspec ninja nvidia-ml-py openai openai_harmony opencv-python-headless
opentelemetry-api opentelemetry-sdk orjson outlines_core pandas partial-json-parser pillow prometheus-client
prometheus-fastapi-instrumentator psutil py-cpuinfo pybase64 python-json-logger python-multipart pyzmq regex requests scipy
sentencepiece setproctitle soundfile tiktoken torch transformers uvicorn uvloop watchfiles xgrammar xxhash zstandard
""".split()

# An environment for each set of packages that live together: (oldest Python, rounds of arguments for pip).
VENVS = {
    "openai": ((3, 9), [["openai==2.54.0", "litellm==1.106.2"]]),
    "guidellm": ((3, 10), [["guidellm==0.8.1"]]),
    "aiperf": ((3, 10), [["aiperf==0.13.0"]]),
    "inference-perf": ((3, 12), [["inference-perf==0.7.0"]]),
    "bench": (
        (3, 10),
        [BENCH_IMPORTS, ["--no-deps", "vllm==0.33.0", "sglang==0.5.23", "compressed_tensors", "torchvision", "torch_memory_saver"]],
    ),
}


@dataclass
class Load:
    """What every client sends."""

    url: str
    model: str
    tokenizer: str
    requests: int
    concurrency: int
    input: int
    output: int


@dataclass
class Times:
    """What a client says, in ms; None where it has no such figure.

    tpot: from the first to the last token, over the tokens after the first. gap: between two events of a stream.
    """

    requests: int
    ttft_mean: float
    ttft_p50: float
    ttft_p99: float
    tpot: float
    gap: float | None = None


class Guidellm:
    venv = "guidellm"

    def command(self, load, out, bin):
        backend = f"kind=openai_http,target={load.url},model={load.model},request_format=/v1/completions"
        return [
            bin / "guidellm", "run", "--backend", backend,
            "--tokenizer", f"kind=hf_auto,model={load.tokenizer}",
            "--profile", f"kind=concurrent,streams={load.concurrency}",
            "--data", f"kind=synthetic_text,prompt_tokens={load.input},output_tokens={load.output}",
            "--constraint", f"kind=max_requests,count={load.requests}",
            "--output", f"kind=json,path={out / 'result.json'}",
            "--disable-console-interactive",
        ]  # fmt: skip

    def times(self, out):
        metrics = json.loads((out / "result.json").read_text())["benchmarks"][0]["metrics"]
        ttft = metrics["time_to_first_token_ms"]["successful"]
        # What it calls time per output token is the whole latency over all tokens.
        tpot = metrics["inter_token_latency_ms"]["successful"]["mean"]
        return Times(ttft["count"], ttft["mean"], ttft["median"], ttft["percentiles"]["p99"], tpot)


class Aiperf:
    venv = "aiperf"

    def command(self, load, out, bin):
        return [
            bin / "aiperf", "profile", "--model", load.model, "--url", load.url,
            "--endpoint-type", "completions", "--streaming", "--tokenizer", hub_name(load.tokenizer),
            "--use-server-token-count",
            "--concurrency", load.concurrency, "--request-count", load.requests,
            "--synthetic-input-tokens-mean", load.input, "--output-tokens-mean", load.output,
            "--extra-inputs", "ignore_eos:true", "--artifact-dir", out, "--ui", "simple",
        ]  # fmt: skip

    def times(self, out):
        result = json.loads((out / "profile_export_aiperf.json").read_text())
        ttft = result["time_to_first_token"]
        gap = result.get("inter_chunk_latency", {}).get("avg")
        return Times(ttft["count"], ttft["avg"], ttft["p50"], ttft["p99"], result["inter_token_latency"]["avg"], gap)


class InferencePerf:
    venv = "inference-perf"

    def command(self, load, out, bin):
        length = lambda tokens: {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": load.requests}
        stage = {"num_requests": load.requests, "concurrency_level": load.concurrency}
        config = {
            "api": {"type": "completion", "streaming": True},
            "server": {"type": "vllm", "model_name": load.model, "base_url": load.url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": load.tokenizer},
            "data": {
                "type": "random",
                "input_distribution": length(load.input),
                "output_distribution": length(load.output),
            },
            "load": {"type": "concurrent", "stages": [stage], "num_workers": 1},
            "report": {"request_lifecycle": {"summary": True, "per_stage": True, "per_request": False}},
            "storage": {"local_storage": {"path": str(out)}},
        }
        # JSON is YAML.
        (out / "config.yaml").write_text(json.dumps(config))
        return [bin / "inference-perf", "-c", out / "config.yaml"]

    def times(self, out):
        result = json.loads((out / "summary_lifecycle_metrics.json").read_text())["successes"]
        latency = result["latency"]
        ttft, tpot, gap = (latency[name] for name in ("time_to_first_token", "time_per_output_token", "inter_token_latency"))
        times = (1e3 * second for second in (ttft["mean"], ttft["median"], ttft["p99"], tpot["mean"], gap["mean"]))
        return Times(result["count"], *times)


class Vllm:
    """`vllm bench serve`, by its module: the command itself loads the server's code as well."""

    venv = "bench"
    MAIN = (
        "from vllm.utils.argparse_utils import FlexibleArgumentParser; from vllm.benchmarks.serve import add_cli_args, main;"
        "parser = FlexibleArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
    )

    def command(self, load, out, bin):
        return [
            bin / "python", "-c", self.MAIN, "--backend", "openai", "--base-url", load.url, "--endpoint", "/v1/completions",
            "--model", load.model, "--tokenizer", load.tokenizer,
            "--dataset-name", "random", "--random-input-len", load.input, "--random-output-len", load.output,
            "--num-prompts", load.requests, "--max-concurrency", load.concurrency, "--ignore-eos",
            "--save-result", "--result-dir", out, "--result-filename", "result.json",
        ]  # fmt: skip

    def times(self, out):
        return bench_times(json.loads((out / "result.json").read_text()))


class Sglang:
    """SGLang's own client in Rust."""

    venv = "bench"

    def command(self, load, out, bin):
        return [
            bin / "python", "-m", "sglang.benchmark.rust_client", "--backend", "sglang-oai", "--base-url", load.url,
            "--model", load.model, "--tokenizer", load.tokenizer, "--dataset-name", "random-ids",
            "--random-input-len", load.input, "--random-output-len", load.output, "--random-range-ratio", "1.0",
            "--num-prompts", load.requests, "--max-concurrency", load.concurrency, "--output-file", out / "result.jsonl",
        ]  # fmt: skip

    def times(self, out):
        return bench_times(json.loads((out / "result.jsonl").read_text().splitlines()[-1]))


class Sdk:
    """A plain loop over an SDK: what an application would see."""

    venv = "openai"

    def __init__(self, sdk):
        self.sdk = sdk

    def command(self, load, out, bin):
        return [bin / "python", HERE / "sdk_stream.py", self.sdk, json.dumps(vars(load)), out / "result.json"]

    def times(self, out):
        return Times(**json.loads((out / "result.json").read_text()))


class Baton:
    """Our own, by vLLM's definitions; it is told where its binary is."""

    venv = None

    def command(self, load, out, bin):
        return [
            *bin, "run", "--url", load.url, "--model", load.model, "--endpoint", "completions", "--tokenizer", load.tokenizer,
            "-n", load.requests, "--concurrency", load.concurrency,
            "--input-tokens", load.input, "--output-tokens", load.output, "--seed", time.time_ns() % 2**32,
            "--vllm-json", out / "result.json", "--output", out / "run.json", "--quiet",
        ]  # fmt: skip

    def times(self, out):
        return bench_times(json.loads((out / "result.json").read_text()))


CLIENTS = {
    "baton": Baton(),
    "openai": Sdk("openai"),
    "litellm": Sdk("litellm"),
    "guidellm": Guidellm(),
    "aiperf": Aiperf(),
    "inference-perf": InferencePerf(),
    "vllm": Vllm(),
    "sglang": Sglang(),
}


def bench_times(result):
    """vLLM's result, which SGLang's has the names of."""
    ttft = (result[f"{which}_ttft_ms"] for which in ("mean", "median", "p99"))
    return Times(result["completed"], *ttft, result["mean_tpot_ms"], result["mean_itl_ms"])


def hub_name(folder):
    """The name under which `offline` puts a tokenizer's folder into a hub cache: AIPerf takes no folders."""
    return f"local/{Path(folder).resolve().name}"


def offline(load, home):
    """The environment of a client that must not call anybody but the server, with the tokenizer in a hub cache."""
    repository = home / "hub" / ("models--" + hub_name(load.tokenizer).replace("/", "--"))
    revision = "0" * 39 + "1"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "snapshots").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.unlink(missing_ok=True)
    snapshot.symlink_to(Path(load.tokenizer).resolve())
    settings = {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return os.environ | settings


if __name__ == "__main__":
    sys.exit("this is a module of run.py")
