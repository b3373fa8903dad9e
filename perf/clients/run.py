#!/usr/bin/env python3
"""Other people's clients against a Baton server: do they run unmodified, offline, and do they agree?

    python3 perf/clients/run.py install                       # once: each client into an environment of its own
    python3 perf/clients/run.py --baton target/release/baton  # starts a server, and each client in turn
    python3 perf/clients/run.py --baton target/release/baton --null   # the same against a server of known latencies
    python3 perf/clients/run.py --url http://127.0.0.1:8000 --model NAME --tokenizer DIR --clients vllm,sglang

Prints a table of what each client says of the same server and load. Exits with 1 if a client failed. Standard library only; page: perf/README.md.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

from clients import CLIENTS, HERE, VENVS, Load, offline

DEFAULT_HOME = Path.home() / ".cache" / "baton-clients"
BUNDLED = HERE.parent.parent / "models" / "baton-courier"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["run", "install"], default="run")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="which, and in which order [default: %(default)s]")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="where environments are [default: %(default)s]")
    parser.add_argument("--url", help="a server that runs")
    parser.add_argument("--baton", help="start this binary's `up`")
    parser.add_argument("--bench", help="our own client's command [default: the one of --baton]; without it, it is passed over")
    parser.add_argument("--null", action="store_true", help="serve with `bench null-server`: TTFT 50 ms, 10 ms a token")
    parser.add_argument("--model", default="baton-courier", help="[default: %(default)s]")
    parser.add_argument("--tokenizer", default=str(BUNDLED), help="its folder [default: the bundled model's]")
    parser.add_argument("--requests", type=int, default=64, help="[default: %(default)s]")
    parser.add_argument("--concurrency", type=int, default=4, help="[default: %(default)s]")
    parser.add_argument("--input", type=int, default=256, help="tokens of a prompt [default: %(default)s]")
    parser.add_argument("--output", type=int, default=64, help="tokens of an answer [default: %(default)s]")
    parser.add_argument("--rounds", type=int, default=1, help="times that all clients run, in turn [default: %(default)s]")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for a client's run [default: %(default)s]")
    parser.add_argument("--out", type=Path, help="where results and logs go [default: a new folder]")
    args = parser.parse_args()
    names = args.clients.split(",")
    if unknown := [name for name in names if name not in CLIENTS]:
        parser.error(f"no such client: {', '.join(unknown)}; there are {', '.join(CLIENTS)}")
    if args.action == "install":
        names = [name for name in names if CLIENTS[name].venv]
        sys.exit(install(names, args.home))
    bench = shlex.split(args.bench) if args.bench else [args.baton, "bench"] if args.baton else None
    if args.null and bench:
        server = serving([*bench, "null-server", "--listen", "127.0.0.1:0", "--ttft", "50ms", "--itl", "10ms"])
    elif args.baton and not args.url:
        server = serving([args.baton, "up", "--port", "0", "--log", "warn"])
    elif args.url and not args.null:
        server = nullcontext(args.url)
    else:
        parser.error("say --url or --baton; --null goes with --baton or --bench")
    if not bench:
        names = [name for name in names if name != "baton"]
    with server as url:
        sys.exit(run(names, url.rstrip("/"), bench, args))


def install(names, home):
    """Makes the environments that are missing; returns the exit code."""
    failed = False
    for venv in dict.fromkeys(CLIENTS[name].venv for name in names):
        (oldest, rounds), folder = VENVS[venv], home / venv
        if (folder / "complete").exists():
            print(f"{venv}: there already")
            continue
        python = find_python(oldest)
        if not python:
            print(f"{venv}: needs Python {'.'.join(map(str, oldest))} or newer; passed over")
            failed = True
            continue
        begin = time.monotonic()
        commands = [[python, "-m", "venv", folder]]
        commands += [[folder / "bin" / "pip", "install", "--quiet", *arguments] for arguments in rounds]
        is_complete = all(subprocess.run(list(map(str, command))).returncode == 0 for command in commands)
        if is_complete:
            (folder / "complete").touch()
        failed |= not is_complete
        print(f"{venv}: {'installed' if is_complete else 'FAILED'} after {time.monotonic() - begin:.0f} s", flush=True)
    return int(failed)


def find_python(oldest):
    """A Python that is new enough, this one first."""
    if sys.version_info >= oldest:
        return sys.executable
    minors = range(oldest[1], oldest[1] + 4)
    found = filter(None, (shutil.which(f"python3.{minor}") for minor in minors))
    return next((path for path in found if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0), None)


@contextmanager
def serving(command):
    """The URL of a server that ends with the block; it says `ready URL` when it is."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("ready "):
            sys.exit(f"{' '.join(command)} did not start: {line!r}")
        yield line.split()[1]
    finally:
        process.terminate()
        process.wait()


def run(names, url, bench, args):
    """Runs each client, prints what they say, and returns the exit code."""
    out = args.out or Path(tempfile.mkdtemp(prefix="baton-clients-"))
    load = Load(url, args.model, args.tokenizer, args.requests, args.concurrency, args.input, args.output)
    print(f"{url}: {load.requests} requests, {load.concurrency} at a time, {load.input} tokens in, {load.output} out; logs: {out}\n")
    print("| client | requests | TTFT mean | p50 | p99 ms | TPOT mean ms | gap of events mean ms | client ran for |")
    print("|---|---|---|---|---|---|---|---|")
    rows = [row(name, load, bench, args, out / f"{name}-{turn}") for turn in range(args.rounds) for name in names]
    return 0 if all(rows) else 1


def row(name, load, bench, args, out):
    """Runs one client and prints its line; whether it worked."""
    client, begin = CLIENTS[name], time.monotonic()
    out.mkdir(parents=True)
    try:
        times = measure(client, load, bench, args, out)
    except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
        print(f"| {name} | FAILED: {error}; see {out / 'log'} |", flush=True)
        return False
    gap = "" if times.gap is None else f"{times.gap:.2f}"
    ttft = f"{times.ttft_mean:.1f} | {times.ttft_p50:.1f} | {times.ttft_p99:.1f}"
    seconds = time.monotonic() - begin
    # GuideLLM at times ends one request early.
    is_complete = times.requests >= load.requests - 1
    requests = times.requests if is_complete else f"INCOMPLETE: {times.requests}"
    print(f"| {name} | {requests} | {ttft} | {times.tpot:.2f} | {gap} | {seconds:.0f} s |", flush=True)
    return is_complete


def measure(client, load, bench, args, out):
    bin = args.home / client.venv / "bin" if client.venv else bench
    if client.venv and not bin.exists():
        raise FileNotFoundError(f"not installed: run `{Path(sys.argv[0]).name} install` first")
    command = [str(part) for part in client.command(load, out, bin)]
    with open(out / "log", "w") as log:
        print("$", *command, file=log, flush=True)
        environment = offline(load, out / "hf")
        subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=out, timeout=args.timeout, check=True)
    return client.times(out)


if __name__ == "__main__":
    main()
