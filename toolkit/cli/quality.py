"""Quality gates: the options, the evaluation behind them, and what is said when one is missed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from toolkit.specs import ConversionPlan, Evaluation, ModelSource, Progress, QualityGate

F = TypeVar("F", bound=Callable[..., Any])

#: A gate's name → how a sentence says its value.
GATE_WORDS = {
    "kl": "KL divergence is {0:.4f} nats per token, more than the {1:g} of --max-kl",
    "ppl_increase_pct": "perplexity is {0:.2f}% above the original's, more than the {1:g}% of --max-ppl-increase",
}
HINT = (
    "`trtk eval` shows the layers where quality is lost; use more --calib-samples, a smaller --group-size, "
    "--quant int8 or fp8, or --quant auto --max-kl."
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The gates that were asked for; None is none."""

    max_kl: float | None = None
    max_ppl_increase_pct: float | None = None

    def __bool__(self) -> bool:
        return self.max_kl is not None or self.max_ppl_increase_pct is not None

    def gates(self, found: Evaluation) -> tuple[QualityGate, ...]:
        """Return the gates with their verdicts on an evaluation."""
        from toolkit.specs import gates_of

        return gates_of(found, max_kl=self.max_kl, max_ppl_increase_pct=self.max_ppl_increase_pct)


class FiniteRange(click.FloatRange):
    """A range of numbers; click's own takes `nan`, which no comparison ever misses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fails where it is none or has no end."""
        number: float = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is no finite number.", param, ctx)


def gate_options(command: F) -> F:
    """Add the quality gates."""
    bound = FiniteRange(min=0)
    command = click.option(
        "--max-ppl-increase", type=bound, metavar="PCT", help="Exit 7 when perplexity rises by more percent."
    )(command)
    return click.option(
        "--max-kl", type=bound, metavar="X", help="Exit 7 when KL divergence, in nats per token, is larger."
    )(command)


def bounds_of(options: dict[str, Any]) -> Bounds:
    """Return the bounds that the options ask for."""
    return Bounds(max_kl=options["max_kl"], max_ppl_increase_pct=options["max_ppl_increase"])


def bounds_left(plan: ConversionPlan, bounds: Bounds) -> Bounds:
    """Return the bounds that a search has not verified already."""
    is_verified = plan.auto is not None and plan.auto.max_kl is not None
    return dataclasses.replace(bounds, max_kl=None) if is_verified else bounds


def judge(
    checkpoint: Path, source: ModelSource, bounds: Bounds, *, device: str, progress: Progress
) -> tuple[Evaluation, tuple[QualityGate, ...]]:
    """Evaluate a checkpoint on the bundled text; return it with the gates."""
    from toolkit import evaluate

    found = evaluate.run(checkpoint, source, device=device, progress=progress)
    return found, bounds.gates(found)


def as_document(found: Evaluation, gates: tuple[QualityGate, ...]) -> dict[str, Any]:
    """Return an evaluation as --json and the manifest have it."""
    from toolkit.specs import to_json

    return {
        "ppl": found.ppl,
        "ppl_base": found.ppl_base,
        "ppl_increase_pct": found.ppl_increase_pct,
        "kl": found.kl,
        "top1": found.top1,
        "tokens": found.tokens,
        "gates": [{**to_json(gate), "verdict": verdict(gate)} for gate in gates],
        "layers": to_json(found.layers),
    }


def verdict(gate: QualityGate) -> str:
    """Return `met` or `missed`."""
    return "met" if gate.is_met else "missed"


def need_gates(gates: tuple[QualityGate, ...], checkpoint: Path) -> None:
    """Raise GateError when a gate is missed, with every missed one's numbers."""
    from toolkit.errors import GateError

    missed = [GATE_WORDS[gate.name].format(gate.value, gate.limit) for gate in gates if not gate.is_met]
    if missed:
        raise GateError(f"{checkpoint} misses its quality gate: its {'; its '.join(missed)}.", hint=HINT)
