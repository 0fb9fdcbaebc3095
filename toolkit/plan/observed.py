"""What a server says of itself when it starts and while it runs, beside what was planned: where the plan was off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.plan import memory
from toolkit.specs import BuildPlan, Sizing

#: TensorRT-LLM writes MB and GB and counts in powers of 1024: its own 43.29 MB and 63.44 GiB add up with the rest so.
UNIT_BYTES = {"B": 1, "KB": 1 << 10, "KIB": 1 << 10, "MB": 1 << 20, "MIB": 1 << 20, "GB": 1 << 30, "GIB": 1 << 30}
SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]?i?B)"
#: What is read off a log → the line that says it. The lines are those of TensorRT-LLM 0.8 to 1.2.
#: https://nvidia.github.io/TensorRT-LLM/reference/memory.html
SIZES = {
    "weights": (rf"Loaded engine size: {SIZE}", rf"Rank \d+ uses {SIZE} for model weights"),
    "activations": (rf"Allocated {SIZE} for execution context memory",),
    "runtime_buffers": (rf"Allocated {SIZE} GPU memory for runtime buffers",),
    "decoder": (rf"Allocated {SIZE} GPU memory for decoder",),
    "total": (rf"total: {SIZE}, available:",),
    "kv_cache": (rf"Allocated {SIZE} for max tokens in paged KV cache",),
}
COUNTS = {
    "kv_tokens": (r"max tokens in paged KV cache \((\d+)\)",),
    "kv_blocks": (r"blocks in KV cache primary pool: (\d+)", r"primary blocks=(\d+)"),
    "tokens_per_block": (r"Number of tokens per block: (\d+)", r"tokens per block=(\d+)"),
    "max_batch_size": (r"TRTGptModel maxBatchSize: (\d+)",),
    "max_num_tokens": (r"TRTGptModel maxNumTokens: (\d+)",),
}
#: Of what nobody can plan to the byte; beyond it a difference is worth a look.
TOLERATED = 0.1
#: And less than this of a card is not, whatever share of a small buffer it is.
TOLERATED_BYTES = 32 * memory.MIB
IN_BYTES = {*SIZES, "process"}
#: What a difference means, and what to do about it.
MEANINGS = {
    "weights": "another format or other ranks than planned, or a tied head that is kept twice",
    "activations": "other max_num_tokens or tp; `--max-num-tokens` is the setting",
    "runtime_buffers": "it grows with max_batch_size and max_seq_len",
    "decoder": "it grows with max_batch_size and the vocabulary",
    "total": "the card has another usable memory than the catalogue says",
    "kv_cache": "what the parts above took, or another fraction of free memory",
    "kv_tokens": "follows from the KV cache and its bytes a token",
    "kv_blocks": "follows from the KV cache and its tokens a block",
    "bytes_per_token": "another type of KV cache than planned",
    "process": "the engine's process on the CPU; it keeps the memory that its largest batch so far took",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was planned and is known now."""

    what: str
    planned: float
    found: float
    is_off: bool
    meaning: str = ""

    @property
    def off(self) -> float:
        """How far the plan was off: 0.05 is five percent more than planned."""
        return (self.found - self.planned) / self.planned if self.planned else float(self.found != 0)


def of_log(text: str) -> dict[str, float]:
    """Return what a boot log says, of the fullest of several ranks; the last start counts."""
    found: dict[str, float] = {}
    for name, patterns in SIZES.items():
        sizes = [
            float(number) * UNIT_BYTES[unit.upper()]
            for pattern in patterns
            for number, unit in re.findall(pattern, text)
        ]
        if sizes:
            found[name] = max(sizes)
    for name, patterns in COUNTS.items():
        counts = [int(number) for pattern in patterns for number in re.findall(pattern, text)]
        if counts:
            found[name] = counts[-1]
    if found.get("kv_cache") and found.get("kv_tokens"):
        found["bytes_per_token"] = round(found["kv_cache"] / found["kv_tokens"])
    return found


def of_metrics(blocks: Mapping[str, float], memory_bytes: Mapping[str, float], *, is_cpu: bool) -> dict[str, float]:
    """Return what nv_trt_llm_kv_cache_block_metrics and nv_trt_llm_runtime_memory_metrics say."""
    found: dict[str, float] = {}
    if blocks.get("max"):
        found["kv_blocks"] = blocks["max"]
    if blocks.get("tokens_per"):
        found["tokens_per_block"] = blocks["tokens_per"]
    if is_cpu and memory_bytes.get("cpu"):
        found["process"] = memory_bytes["cpu"]
    return found


def of_plan(plan: BuildPlan, *, tokens_per_block: int, blocks_used: float = 0) -> dict[str, float]:
    """Return what a build was planned to be, in the same words; a host gives a process the pages that it has used."""
    model, limits = plan.conversion.model, plan.limits
    found: dict[str, float] = {
        "weights": plan.weights_bytes,
        "kv_cache": plan.kv_bytes,
        "bytes_per_token": plan.kv_bytes_per_token,
        "tokens_per_block": tokens_per_block,
        "kv_blocks": plan.kv_bytes // (plan.kv_bytes_per_token * tokens_per_block),
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
    }
    found["kv_tokens"] = found["kv_blocks"] * tokens_per_block
    if plan.gpu.is_cpu:
        touched = blocks_used * tokens_per_block * plan.kv_bytes_per_token
        return found | {"process": plan.weights_bytes + memory.CPU_ENGINE_BYTES + touched}
    return found | {
        "activations": memory.activation_bytes(model, limits, plan.conversion.recipe),
        "runtime_buffers": memory.buffers_bytes(model, limits),
        "decoder": memory.decoder_bytes(model, limits),
        "total": plan.gpu.memory_usable_mib * memory.MIB,
    }


def of_sizing(sizing: Sizing, parts: Mapping[str, float]) -> dict[str, float]:
    """Return the same of a plan that was not built; PARTS are its runtime's parts."""
    return {
        "weights": sizing.memory.weights,
        "kv_cache": sizing.memory.kv_cache,
        "activations": sizing.memory.activations,
        "total": sizing.memory.total,
        "bytes_per_token": sizing.kv.bytes_per_token,
        "tokens_per_block": sizing.kv.tokens_per_block,
        "kv_blocks": sizing.kv.blocks,
        "kv_tokens": sizing.kv.max_tokens,
        "max_batch_size": sizing.limits.max_batch_size,
        "max_num_tokens": sizing.limits.max_num_tokens,
        **parts,
    }


def compared(planned: Mapping[str, float], found: Mapping[str, float]) -> list[Row]:
    """Return what both know, and whether it is further apart than such a plan may be."""
    rows = []
    for what in (name for name in planned if name in found):
        apart = abs(found[what] - planned[what])
        is_off = apart > max(TOLERATED * planned[what], TOLERATED_BYTES if is_bytes(what) else 0)
        rows.append(
            Row(
                what=what,
                planned=planned[what],
                found=found[what],
                is_off=is_off,
                meaning=MEANINGS.get(what, "the engine was built with another limit") if is_off else "",
            )
        )
    return rows


def is_bytes(what: str) -> bool:
    """Return whether a figure is a size."""
    return what in IN_BYTES
