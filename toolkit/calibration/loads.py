"""The loads of a calibration, and what a load test's report says of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import UsageError
from toolkit.specs import CalibrationPoint, Limits


@dataclass(frozen=True, kw_only=True)
class Load:
    """One short run: so many requests in flight, of one length."""

    concurrency: int
    isl: int
    osl: int
    requests: int


#: One alone for the bytes of a step, many for what each adds, a long prompt for the arithmetic.
LOADS = (
    Load(concurrency=1, isl=128, osl=64, requests=10),
    Load(concurrency=8, isl=128, osl=64, requests=80),
    Load(concurrency=32, isl=128, osl=64, requests=256),
    Load(concurrency=1, isl=768, osl=16, requests=8),
    Load(concurrency=4, isl=512, osl=64, requests=24),
)
#: What a chat template and a tokenizer may add to a prompt.
SPARE_TOKENS = 32


def loads_within(limits: Limits, *, rounds: int = 1) -> tuple[Load, ...]:
    """Return the loads that a server's limits take: shorter prompts and fewer requests in flight where they must be.

    In several rounds each load comes back in its turn with a share of its requests, but twice what is in flight. All
    come in whole waves: a last one with fewer in flight would count as if it had been full.
    """
    found = []
    for load in LOADS:
        isl = min(load.isl, limits.max_seq_len - load.osl - SPARE_TOKENS)
        if isl < 1:
            continue
        concurrency = min(load.concurrency, limits.max_batch_size)
        share = max(-(-load.requests // rounds), min(load.requests, 2 * concurrency))
        requests = -(-share // concurrency) * concurrency
        found.append(replace(load, isl=isl, concurrency=concurrency, requests=requests))
    return tuple(dict.fromkeys(found)) * rounds


def point_of(report: Mapping[str, Any], *, source: str) -> CalibrationPoint:
    """Return the point that a report.json is; raises UsageError with the reason for one that says too little."""
    try:
        ok, profile = report["requests"]["ok"], report["profile"]
        if profile["arrival"] != "closed":
            raise UsageError(
                f"{source} is of an open loop, which does not say how many requests were in flight.",
                hint="Calibrate with reports of `trtk bench --concurrency N`.",
            )
        values = (report["output_token_throughput_tps"], report["ttft_ms"]["mean"], report["tpot_ms"]["mean"])
        if not ok or any(not value for value in values):
            raise UsageError(f"{source} has no request that got two tokens.", hint="Measure again with --osl 64.")
        return CalibrationPoint(
            concurrency=int(profile["concurrency"]),
            isl=report["input_tokens"] / ok,
            osl=report["output_tokens"] / ok,
            output_tps=float(values[0]),
            ttft_ms=float(values[1]),
            tpot_ms=float(values[2]),
        )
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{source} is not a report of trtk bench: {error} is missing.", hint="Give folders that hold a report.json."
        ) from error
