"""What calibration remembers of a linear's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch


class InputStatistics:
    """Running statistics of inputs [tokens, K]: second moment, mean magnitude, largest magnitude."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokens = 0
        self._gram: torch.Tensor | None = None
        self._abs_sum: torch.Tensor | None = None
        self.amax = 0.0

    def add(self, inputs: torch.Tensor) -> None:
        """Add inputs of shape [..., K]."""
        import torch

        flat = inputs.reshape(-1, inputs.shape[-1])
        amax = float(flat.abs().max())
        if not amax < float("inf"):  # also catches NaN
            raise BuildError(
                f"The input of {self.name} becomes NaN or Inf during calibration.", hint="Check the weights."
            )
        if self._gram is None or self._abs_sum is None:
            self._gram = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
            self._abs_sum = torch.zeros(flat.shape[1], device=flat.device)
        self._gram.addmm_(flat.T, flat)
        self._abs_sum += flat.abs().sum(0)
        self.amax = max(self.amax, amax)
        self.tokens += flat.shape[0]

    @property
    def gram(self) -> torch.Tensor:
        """E[x x'], float32 [K, K]."""
        assert self._gram is not None, "statistics are read before any input was added"
        return self._gram / self.tokens

    @property
    def mean_abs(self) -> torch.Tensor:
        """E[|x|], float32 [K]."""
        assert self._abs_sum is not None, "statistics are read before any input was added"
        return self._abs_sum / self.tokens
