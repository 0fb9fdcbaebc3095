"""--quant auto: a recipe for every group of linears, found by a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from toolkit.cli.quality import FiniteRange, gate_options
from toolkit.specs import AutoSpec, ConversionPlan, ModelSource, Progress

F = TypeVar("F", bound=Callable[..., Any])

AUTO = "auto"
CANDIDATES = "int4,int8,fp16"


def auto_options(command: F) -> F:
    """Add what bounds a search, and the quality gates."""
    command = gate_options(command)
    command = click.option(
        "--candidates",
        metavar="NAMES",
        help=f"Of --quant auto: quantizations to choose from, with commas; {CANDIDATES}.",
    )(command)
    return click.option(
        "--target-bits",
        type=FiniteRange(min=1, max=16),
        metavar="B",
        help="Of --quant auto: mean bits of the weights; without it, the fewest that keep --max-kl.",
    )(command)


def auto_of(options: dict[str, Any]) -> AutoSpec | None:
    """Return the search that the options ask for, None without --quant auto; raises UsageError when they clash."""
    from toolkit import quant
    from toolkit.errors import UsageError

    bits, names = options["target_bits"], options["candidates"]
    if options["quant"] != AUTO:
        if bits is not None or names is not None:
            raise UsageError(
                f"--target-bits and --candidates are for --quant auto, not for {options['quant']}.",
                hint="Use --quant auto, or leave them out.",
            )
        return None
    if bits is None and options["max_kl"] is None:
        raise UsageError(
            "--quant auto needs a bound: --target-bits or --max-kl.", hint="Try --target-bits 4.5, or --max-kl 0.1."
        )
    recipes = {each.name: each for each in (quant.get(name.strip()) for name in (names or CANDIDATES).split(","))}
    max_kl = options["max_kl"] if bits is None else None  # with both, the bits are searched and the gate is checked
    return AutoSpec(candidates=tuple(recipes.values()), target_bits=bits, max_kl=max_kl)


def measure_of(plan: ConversionPlan, source: ModelSource, progress: Progress) -> Callable[[Path], float] | None:
    """Return what measures a searched checkpoint's KL divergence, None where no search aims at one."""
    from toolkit import evaluate

    if plan.auto is None or plan.auto.max_kl is None:
        return None
    return lambda folder: evaluate.run(folder, source, device=plan.device, progress=progress).kl


def searched(checkpoint: Path) -> dict[str, Any] | None:
    """Return what a search found, None for a checkpoint that was made without one."""
    from toolkit.convert import REPORT

    path = checkpoint / REPORT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def sentence(found: dict[str, Any]) -> str:
    """Return a search's result in words."""
    mix = ", ".join(f"{count} groups {name}" for name, count in found["groups"].items())
    measured = f", measured {found['measured_kl']:.4f}" if found["measured_kl"] is not None else ""
    return f"{found['mean_bits']:.2f} bits per weight ({mix}); KL estimated {found['estimated_kl']:.4f}{measured}."
