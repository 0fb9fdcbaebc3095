"""How far a checkpoint is from its original."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Relative errors of one layer, root mean square over the tokens.

    `hidden` is of the hidden states behind the layer, as everything before it has bent them. `groups` are of the
    outputs of linears that read the original's own inputs: what the layer itself adds.
    """

    layer: int
    hidden: float
    groups: Mapping[str, float] = field(default_factory=dict)
    algos: Mapping[str, str | None] = field(default_factory=dict)  # of the same groups; None: 16 bits


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A checkpoint beside its original on the same tokens."""

    ppl: float  # perplexity of the checkpoint
    ppl_base: float  # of the original
    kl: float  # nats per token, original‖checkpoint
    top1: float  # share of tokens whose most likely successor is the same
    tokens: int  # predictions that were scored
    layers: tuple[LayerError, ...] = ()

    @property
    def ppl_increase_pct(self) -> float:
        """By how many percent the checkpoint's perplexity is above the original's."""
        return 100 * (self.ppl / self.ppl_base - 1)


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """A bound on an evaluation's figure."""

    name: str  # kl, ppl_increase_pct
    limit: float
    value: float

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps the bound; NaN does not."""
        return not math.isnan(self.value) and self.value <= self.limit


def gates_of(
    found: Evaluation, *, max_kl: float | None = None, max_ppl_increase_pct: float | None = None
) -> tuple[QualityGate, ...]:
    """Return the gates that were asked for."""
    asked = {"kl": (max_kl, found.kl), "ppl_increase_pct": (max_ppl_increase_pct, found.ppl_increase_pct)}
    return tuple(
        QualityGate(name=name, limit=limit, value=value) for name, (limit, value) in asked.items() if limit is not None
    )
