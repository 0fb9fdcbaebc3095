"""Rounding that makes up for itself (Frantar et al., GPTQ, arXiv:2210.17323).

Columns are rounded one after another; what a column's rounding changes in the output is taken back, as far as the
inputs are correlated, by the columns that are still to be rounded. The inverse of E[x x'] says how; its Cholesky factor
gives all steps at once, and blocks of columns keep the work in matrix products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BuildError
from toolkit.quant import int4

if TYPE_CHECKING:
    import torch

#: Share of the mean diagonal that is added to it: with fewer tokens than columns the matrix is singular without.
DAMPING = 0.01
BLOCK_COLUMNS = 64


def rounded(weight: torch.Tensor, scales: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Return integers as float32 [N, K] for fixed scales [N, K/g] and E[x x'] of the weight's own input [K, K]."""
    import torch

    factor = _inverse_factor(gram)
    left = weight.clone()
    integers = torch.empty_like(weight)
    column_scales = scales.repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)
    for start in range(0, weight.shape[1], BLOCK_COLUMNS):
        end = min(start + BLOCK_COLUMNS, weight.shape[1])
        block, errors = left[:, start:end], torch.empty(weight.shape[0], end - start, device=weight.device)
        for i in range(end - start):
            column, row = start + i, factor[start + i]
            scale = column_scales[:, column]
            integers[:, column] = (block[:, i] / scale).round_().clamp_(int4.QMIN, int4.QMAX)
            errors[:, i] = (block[:, i] - integers[:, column] * scale) / row[column]
            block[:, i + 1 :] -= errors[:, i : i + 1] * row[column + 1 : end]
        left[:, end:] -= errors @ factor[start:end, end:]
    return integers


def _inverse_factor(gram: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the damped matrix's inverse."""
    import torch

    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(gram.shape[0], device=gram.device)
    try:
        return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    except torch.linalg.LinAlgError as error:
        raise BuildError(
            "The calibration inputs are too much alike to invert their second moment.",
            hint="Give more calibration text: --calib-samples 64.",
        ) from error
