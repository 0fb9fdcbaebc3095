"""What Triton costs: the served engine over gRPC streaming against the bare pipeline in this process, same requests.

    python benchmarks/triton_against_bare.py engines/demo-int4 --rounds 5

Both sides run the same engine folder with the same scheduler settings, the same prompts and the same number of requests
in flight; rounds take turns, so that a noisy machine hits both. Triton's side includes its client, on the same cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

from toolkit import bench, serve
from toolkit.bench import prompts as wording
from toolkit.specs import LoadProfile, ServeSpec


def main() -> None:
    """Print a line per round and the medians."""
    options = parsed()
    engine = options.engine.resolve()

    def texts(number: int) -> tuple[str, ...]:
        """Return a round's prompts: new ones each time, or prefix caching would skip the prefill."""
        return tuple(wording.made(seed=number, index=i, tokens=options.isl) for i in range(options.requests))

    spec = serve.free_from(
        ServeSpec(
            name="benchmark", repository=str(engine / "model_repository"), backend="embedded", startup_timeout_s=180
        )
    )
    bare = Bare(engine, options.concurrency, options.osl)
    bare.run(texts(0)[: options.concurrency])
    endpoint = serve.start(spec)
    profile = LoadProfile(
        url=f"grpc://{endpoint.grpc_url}",
        concurrency=options.concurrency,
        requests=options.requests,
        osl=options.osl,
        prompts=texts(0),
    )
    rounds = []
    try:
        through_triton(dataclasses.replace(profile, requests=options.concurrency))
        for number in range(options.rounds):
            pair, profile = {}, dataclasses.replace(profile, prompts=texts(number + 1))
            for side in ("triton", "bare") if number % 2 else ("bare", "triton"):
                pair[side] = through_triton(profile) if side == "triton" else bare.run(profile.prompts)
            rounds.append({**pair, "ratio": pair["triton"] / pair["bare"]})
            print(json.dumps({"round": number + 1, **{name: round(value, 3) for name, value in rounds[-1].items()}}))
    finally:
        serve.stop(endpoint.name)
    ratios = sorted(one["ratio"] for one in rounds)
    print(
        f"median ratio {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f}); "
        f"Triton {statistics.median(one['triton'] for one in rounds):.1f} tok/s, "
        f"bare {statistics.median(one['bare'] for one in rounds):.1f} tok/s; {options.concurrency} in flight, "
        f"{options.isl} tokens in, {options.osl} out, {options.requests} requests a round"
    )


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path, help="a folder that `trtk build --gpu cpu` made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--isl", type=int, default=32)
    parser.add_argument("--osl", type=int, default=64)
    return parser.parse_args()


def through_triton(profile: LoadProfile) -> float:
    """Return output tokens per second of one run; every request must have given all its tokens."""
    run = bench.run(profile)
    tokens = sum(record.output_tokens for record in run.records)
    assert tokens == profile.requests * profile.osl, [record for record in run.records if record.outcome != "ok"]
    started = min(record.sent_s for record in run.records)
    return tokens / (max(record.end_s for record in run.records) - started)


class Bare:
    """The pipeline driven in this process: as many requests in flight, the next one when one ends."""

    def __init__(self, engine: Path, concurrency: int, osl: int) -> None:
        import openvino_genai
        from tokenizers import Tokenizer

        plan = json.loads((engine / "plan.json").read_text())
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = plan["limits"]["max_num_tokens"]
        scheduler.max_num_seqs = plan["limits"]["max_batch_size"]
        scheduler.cache_size = -(-plan["kv_bytes"] // 2**30)
        scheduler.enable_prefix_caching = scheduler.dynamic_split_fuse = True
        runtime = json.loads((engine / "engine" / "runtime.json").read_text())
        folder = str(engine / "engine")
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", runtime)
        self.tokenizer = Tokenizer.from_file(str(engine / "tokenizer" / "tokenizer.json"))
        self.concurrency, self.osl, self.count = concurrency, osl, 0

    def run(self, texts: tuple[str, ...]) -> float:
        """Return output tokens per second."""
        started = time.perf_counter()
        waiting, running, tokens = list(reversed(texts)), {}, 0
        while waiting or running:
            while waiting and len(running) < self.concurrency:
                running[self.asked(waiting.pop(), self.osl)] = 0
            self.pipeline.step()
            for handle in list(running):
                while handle.can_read():
                    for output in handle.read().values():
                        running[handle] += len(output.generated_ids)
                        tokens += len(output.generated_ids)
                if running[handle] >= self.osl:
                    del running[handle]
        return tokens / (time.perf_counter() - started)

    def first_token_ms(self, texts: tuple[str, ...]) -> float:
        """Return the median time to the first token of requests that come one after another."""
        waits_ms = []
        for text in texts:
            started, handle, tokens = time.perf_counter(), self.asked(text, 4), 0
            while tokens < 4:
                self.pipeline.step()
                while handle.can_read():
                    if not tokens:
                        waits_ms.append(1000 * (time.perf_counter() - started))
                    tokens += sum(len(output.generated_ids) for output in handle.read().values())
        return statistics.median(waits_ms)

    def asked(self, text: str, max_tokens: int) -> Any:
        """Add a request; return its handle."""
        import numpy as np
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = max_tokens, True
        self.count += 1
        ids = self.tokenizer.encode(text).ids
        return self.pipeline.add_request(self.count, openvino.Tensor(np.array([ids], dtype=np.int64)), config)


if __name__ == "__main__":
    main()
