"""Published throughput as what the planner is asked: the server that was measured, the requests it was given.

How each release was measured is said on its page (docs/source/performance/perf-overview.md of TensorRT-LLM): numbers of
requests, and the limits that its builder takes for a data set (tensorrt_llm/bench/build/tuning.py).
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit import gpus, models, quant
from toolkit.plan import kv_cache, memory
from toolkit.specs import GpuSpec, Limits, ModelSpec, QuantRecipe, ServerSetup, Sharding, Workload

DATA = Path(__file__).parent / "data"
PUBLISHED = DATA / "published_throughput.csv"
#: Further tables; of these, what is fitted to. Figures of the other releases are seen by no fit.
OTHERS = DATA / "other_throughput.csv"
ALSO_FITTED = ("0.20.0", "1.2.0")
#: The cards as the tables name them.
CARDS = {
    "A100-SXM4-80GB": "a100-80gb-sxm",
    "A100-PCIE-80GB": "a100-80gb-pcie",
    "H100-SXM": "h100-sxm",
    "H200-SXM": "h200-sxm",
    "GH200-480GB": "gh200-96gb",
    "GH200-120GB": "gh200-96gb",
    "L40S": "l40s",
    "B200": "b200",
    "GB200": "gb200",
    "RTX PRO 6000 Server": "rtx-pro-6000-server",
}
#: Before 0.14 and since: copies of the batch's logits, GiB besides, and FP8 activations for those of the memory model.
#: A single value for all rows; throughput is hardly sensitive to them but where the KV cache is all but gone.
BUFFERS = {False: (2.0, 0.6, 2.0), True: (1.0, 1.5, 1.0)}
RECIPES = {
    "FP16": "fp16",
    "BF16": "fp16",
    "FP8": "fp8",
    "FP4": "nvfp4",
    "NVFP4": "nvfp4",
    "INT4": "int4",
    "INT8": "int8",
}
REQUESTS = {
    (128, 128): 30000,
    (128, 2048): 3000,
    (128, 4096): 1500,
    (500, 2000): 3000,
    (1000, 1000): 3000,
    (2048, 128): 3000,
    (2048, 2048): 1500,
    (5000, 500): 1500,
    (20000, 2000): 1000,
}
KV_FRACTION = 0.95
#: Since this release the tables are of the PyTorch backend.
SINCE_PYTORCH = "0.19"
#: Rows that are not compared, and why.
EXCLUDED = {
    ("GH200-120GB", 2): "two GH200 of different machines: slower than one, over a link that the page does not name",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published figure."""

    model: str
    card: str
    release: str
    tp: int
    precision: str
    output_tps: float
    requests: int
    setup: ServerSetup
    workload: Workload

    @property
    def is_one_gpu(self) -> bool:
        return self.setup.limits.tp * self.setup.limits.pp == 1


def read(path: Path = PUBLISHED) -> list[Row]:
    """Return the rows of a CSV file with the columns of published_throughput.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(_rows(csv.DictReader(file)))


def read_all() -> list[Row]:
    """Return the rows that the constants are fitted to."""
    return [*read(), *(row for row in read(OTHERS) if row.release in ALSO_FITTED)]


def read_unseen() -> list[Row]:
    """Return the rows that no fit has seen."""
    return [row for row in read(OTHERS) if row.release not in ALSO_FITTED]


def _rows(records: Iterator[dict[str, str]]) -> Iterator[Row]:
    for record in records:
        card, gpu_count = record["gpu"], int(record["gpu_count"])
        if (card, gpu_count) in EXCLUDED:
            continue
        if record["model"] not in configs():
            print(f"skipped: no config of {record['model']} in {DATA / 'models.json'}", file=sys.stderr)
            continue
        ranks = _ranks(record["parallel"], gpu_count)
        gpu = gpus.get(CARDS.get(card, card))
        isl, osl = int(record["isl"]), int(record["osl"])
        precision = record["precision"].removesuffix("(mixed)")
        release = record["trtllm_version"]
        requests = 2000 if release.startswith("0.10") else REQUESTS.get((isl, osl), 1000)
        setup = setup_of(
            spec(record["model"]), gpu, quant.get(RECIPES[precision]), release=release, ranks=ranks, lengths=(isl, osl)
        )
        if setup.kv_capacity_tokens < isl + osl:  # the memory model sees no room where there was some
            setup = _with_room(setup, isl + osl)
        yield Row(
            model=record["model"],
            card=card,
            release=release,
            tp=ranks.tp,
            precision=precision,
            output_tps=float(record["tok_s_total"]),
            requests=requests,
            setup=setup,
            workload=Workload(isl=isl, osl=osl, isl_max=isl, osl_max=osl, concurrency=requests),
        )


def _with_room(setup: ServerSetup, tokens: int) -> ServerSetup:
    return dataclasses.replace(setup, kv_capacity_tokens=float(tokens))


@functools.cache
def configs() -> dict[str, dict[str, object]]:
    """Return the models' configs by the names that the tables give them."""
    found: dict[str, dict[str, object]] = json.loads((DATA / "models.json").read_text(encoding="utf-8"))
    return found


def _ranks(parallel: str, gpu_count: int) -> Sharding:
    """Read `TP8`, `TP2 PP4` or `TP8 EP8`; what is not said is a tensor rank for each card."""
    found = {name.lower(): int(count) for name, count in re.findall(r"(TP|PP|EP)\s*(\d+)", parallel)}
    return Sharding(**({"tp": gpu_count // found.get("pp", 1)} | found))


@functools.cache
def spec(name: str) -> ModelSpec:
    """Return a model of data/models.json."""
    config = configs()[name]
    return models.family_of(config["architectures"][0]).describe(config)


def setup_of(
    model: ModelSpec, gpu: GpuSpec, recipe: QuantRecipe, *, release: str, ranks: Sharding, lengths: tuple[int, int]
) -> ServerSetup:
    """Return the server that was measured, with the KV cache that the memory model leaves it."""
    width = 1 if recipe.name in {"fp8", "nvfp4"} else 2
    isl, osl = lengths
    total = isl + osl
    shared = {"tp": ranks.tp, "pp": ranks.pp, "ep": ranks.ep}
    if release.startswith("0.10"):
        limits = Limits(max_batch_size=2048, max_seq_len=6144, max_num_tokens=2048, **shared)
        fraction = 0.9
    elif release.startswith(("0.11", "0.12", "0.13")):
        limits = Limits(max_batch_size=2048, max_seq_len=total, max_num_tokens=8192, **shared)
        fraction = KV_FRACTION
    else:
        batch, tokens = _tuned(model, gpu, recipe, ranks=ranks, lengths=lengths)
        limits = Limits(max_batch_size=batch, max_seq_len=total, max_num_tokens=tokens, **shared)
        fraction = KV_FRACTION
    copies, fixed, act8 = BUFFERS[release >= "0.14"]
    taken = (
        memory.weights_bytes(model, recipe, recipe.default_group_size, sharding=ranks)
        + memory.activation_bytes(model, limits, recipe) * (act8 if width == 1 else 1.0)
        + copies * 4 * limits.max_batch_size * model.vocab_size
        + fixed * memory.GIB
    )
    pool = max(0.0, fraction * (_visible_bytes(gpu) - taken))
    each = kv_cache.bytes_per_token(kv_cache.of_model(model, kv_bytes=width, sharding=ranks))
    return ServerSetup(
        model=model,
        gpu=gpu,
        recipe=recipe,
        limits=limits,
        kv_capacity_tokens=pool / each,
        kv_element_bytes=width,
        tensorrt_llm=release,
        engine="llmapi" if release >= SINCE_PYTORCH else "trtllm",
    )


def _tuned(
    model: ModelSpec, gpu: GpuSpec, recipe: QuantRecipe, *, ranks: Sharding, lengths: tuple[int, int]
) -> tuple[int, int]:
    """Return max_batch_size and max_num_tokens as trtllm-bench takes them for requests of one length."""
    isl, osl = lengths
    width = recipe.weight_bits / 8
    element = 1 if recipe.name in {"fp8", "nvfp4"} else 2
    each = 2 * model.num_layers * max(ranks.tp, model.num_kv_heads) * model.head_dim * element
    free = _visible_bytes(gpu) * ranks.tp * ranks.pp - memory.total_parameters(model) * width
    fitting = min(KV_FRACTION * free / (each * (isl + osl)), 4096.0)
    tokens = min(fitting * (1 + isl / osl), 32768.0)
    steps = ((256, 32), (1024, 128), (math.inf, 256))
    batch = _rounded(fitting, next(step for below, step in steps if fitting < below))
    pieces = ((4096, 256), (8192, 512), (math.inf, 1024))
    return max(64, batch), max(2048, _rounded(tokens, next(step for below, step in pieces if tokens < below)))


def _visible_bytes(gpu: GpuSpec) -> int:
    return gpu.memory_usable_mib * memory.MIB


def _rounded(value: float, step: int) -> int:
    return step * math.ceil(value / step)
