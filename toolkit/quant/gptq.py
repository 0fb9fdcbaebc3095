"""Rounding that makes up for itself (Frantar et al., GPTQ, arXiv:2210.17323).

Columns are rounded one after another; what a column's rounding changes in the output is taken back, as far as the
inputs are correlated, by the columns that are still to be rounded. With L L' = E[x x'] this is Babai's nearest plane
(Chen et al., The Geometry of LLM Quantization, arXiv:2507.18553): one Cholesky factor and no inverse. The columns are
taken from last to first in an order that rounds the strongest input first, while there are most others to help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch

#: Share of the mean diagonal that is added to it: with fewer tokens than columns the matrix is singular without.
DAMPING = 0.01
#: Columns that are rounded one by one before what they changed is passed on in a matrix product.
LEAF = 16

#: Replaces float32 values by the nearest numbers of a grid, in place.
Nearest = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """How much of a column's error the others take back: row i, column j of the unit lower triangular `shares`."""

    order: torch.Tensor  # of the columns, strongest input last
    shares: torch.Tensor  # [K, K]


def feedback(gram: torch.Tensor, prequant: torch.Tensor | None = None) -> Feedback:
    """Return the factor of E[x x'], damped, of an input that is multiplied by PREQUANT [K]."""
    import torch

    strength = gram.diagonal() if prequant is None else gram.diagonal() * prequant.square()
    order = torch.argsort(strength, stable=True)
    ordered = gram[order.unsqueeze(1), order]
    if prequant is not None:
        ordered.mul_(prequant[order]).mul_(prequant[order].unsqueeze(1))
    ordered.diagonal().add_(DAMPING * strength.mean() + torch.finfo(torch.float32).tiny)
    try:
        factor = torch.linalg.cholesky(ordered)
    except torch.linalg.LinAlgError as error:
        raise BuildError(
            "The calibration inputs are too much alike to factor their second moment.",
            hint="Give more calibration text: --calib-samples 64.",
        ) from error
    return Feedback(order=order, shares=factor.div_(factor.diagonal().clone()))


def rounded(weight: torch.Tensor, scales: torch.Tensor, known: Feedback, *, nearest: Nearest) -> torch.Tensor:
    """Return the numbers of a grid, float32 [N, K], for a float32 weight and fixed scales [N, K/g]."""
    import torch

    errors = weight.T[known.order]  # the weight at first; a finished column holds what its rounding changed
    left = errors.clone()  # what a column is to be, with what it takes back; a finished one holds its number
    group = known.order.div(weight.shape[1] // scales.shape[1], rounding_mode="floor").tolist()
    by_group = scales.T.contiguous()

    def columns(start: int, stop: int) -> None:
        if stop - start > LEAF:
            middle = start + max(LEAF, (stop - start) // 2 // LEAF * LEAF)
            columns(middle, stop)
            left[start:middle].addmm_(known.shares[middle:stop, start:middle].T, errors[middle:stop])
            columns(start, middle)
            return
        for i in range(stop - 1, start - 1, -1):
            scale = by_group[group[i]]
            nearest(left[i].div_(scale))
            errors[i].addcmul_(left[i], scale, value=-1)
            left[start:i].addr_(known.shares[i, start:i], errors[i])

    columns(0, weight.shape[1])
    return torch.empty_like(left).index_copy_(0, known.order, left).T
