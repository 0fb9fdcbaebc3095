"""Why `trtllm-build` failed, told from how it ended and what it said."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import BuildError, MissingError, PlanInfeasible, TrtkError
from toolkit.registry import toml_document
from toolkit.specs import BuildPlan

ERRORS: dict[str, type[TrtkError]] = {"plan": PlanInfeasible, "machine": MissingError, "build": BuildError}
#: Of a log that is read for the reason, from its end.
TAIL_BYTES = 1 << 18
SHOWN_LINES = 8
KILLED = 137


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A row of the table."""

    pattern: re.Pattern[str]
    kind: str
    message: str
    hint: str


def of_memory(plan: BuildPlan, limit_bytes: int, log: Path) -> TrtkError:
    """Return the error of a compiler that was killed because it took all the memory that it may use."""
    return MissingError(
        f"trtllm-build was killed: it needed more than the {limit_bytes / 2**30:.1f} GiB of memory that it may use"
        f"{_shown(log)}",
        hint=f"Compile on a machine with more memory and {plan.gpu.title}, or raise --builder-memory; "
        "--builder defer leaves a bundle.",
    )


def of_log(plan: BuildPlan, exit_code: int, log: Path) -> TrtkError:
    """Return the error of a compiler that ended with an exit code, by what its log says."""
    text = _tail(log)
    for failure in _table():
        if found := failure.pattern.search(text):
            message = failure.message.format(
                *(group.strip() for group in found.groups()), release=_release(plan), gpu=plan.gpu.title
            )
            return ERRORS[failure.kind](f"trtllm-build failed: {message}{_shown(log)}", hint=failure.hint)
    if exit_code in {KILLED, -9}:
        return BuildError(
            f"trtllm-build was killed from outside (SIGKILL){_shown(log)}",
            hint="`sudo dmesg | tail` says whether the machine ran out of memory.",
        )
    return BuildError(
        f"trtllm-build ended with exit code {exit_code}{_shown(log)}", hint="Please report it with the log."
    )


def _release(plan: BuildPlan) -> str:
    return f"{plan.release.name} (TensorRT-LLM {plan.release.tensorrt_llm})"


def _shown(log: Path) -> str:
    lines = [line for line in _tail(log).splitlines() if line.strip()][-SHOWN_LINES:]
    listing = "".join(f"\n  {line[:300]}" for line in lines)
    return f".\nFrom its log, {log}:{listing}" if lines else f".\nIts log, {log}, is empty."


def _tail(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return stream.read().decode(errors="replace")


@functools.cache
def _table() -> tuple[Failure, ...]:
    rows = toml_document(Path(__file__).with_suffix(".toml"))["failure"]
    return tuple(
        Failure(pattern=re.compile(row["pattern"]), kind=row["kind"], message=row["message"], hint=row["hint"])
        for row in rows
    )
