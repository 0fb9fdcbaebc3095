"""What calibration remembers of a linear's input."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch


class Wanted(enum.IntFlag):
    """Which statistics an algorithm reads: the second moment is a [K, K] matrix and costs a product per token."""

    NOTHING = 0
    AMAX = 1  # of the whole input
    CHANNELS = 2  # mean and largest magnitude of each column
    GRAM = 4


class InputStatistics:
    """Running statistics of inputs [tokens, K]."""

    def __init__(self, name: str, wanted: Wanted) -> None:
        self.name, self.wanted = name, wanted
        self.tokens = 0
        self.amax = 0.0
        self._gram: torch.Tensor | None = None
        self._abs_sum: torch.Tensor | None = None
        self._abs_max: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor) -> None:
        """Add float32 inputs of shape [..., K]."""
        import torch

        flat = inputs.reshape(-1, inputs.shape[-1])
        if not flat.shape[0]:
            return
        magnitudes = flat.abs()
        amax = float(magnitudes.max())
        if not amax < float("inf"):  # also catches NaN
            raise BuildError(
                f"The input of {self.name} becomes NaN or Inf during calibration.", hint="Check the weights."
            )
        self.amax = max(self.amax, amax)
        self.tokens += flat.shape[0]
        if Wanted.CHANNELS & self.wanted:
            if self._abs_sum is None or self._abs_max is None:
                self._abs_sum = torch.zeros(flat.shape[1], device=flat.device)
                self._abs_max = torch.zeros(flat.shape[1], device=flat.device)
            self._abs_sum += magnitudes.sum(0)
            self._abs_max = torch.maximum(self._abs_max, magnitudes.amax(0))
        if Wanted.GRAM & self.wanted:
            if self._gram is None:
                self._gram = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
            self._gram.addmm_(flat.T, flat)

    @property
    def gram(self) -> torch.Tensor:
        """E[x x'], float32 [K, K], with correlations shrunk by tokens/(tokens + K).

        A sample of few tokens shows correlations that other text does not have; without shrinking, rounding would
        lean on them (the idea of Ledoit and Wolf's shrinkage estimator, doi:10.1016/S0047-259X(03)00096-4).
        """
        import torch

        assert self._gram is not None, "an algorithm reads the second moment without asking for Wanted.GRAM"
        gram = self._gram / self.tokens
        kept = self.tokens / (self.tokens + gram.shape[0])
        return kept * gram + (1 - kept) * torch.diag(gram.diagonal())

    @property
    def mean_abs(self) -> torch.Tensor:
        """E[|x|], float32 [K]."""
        assert self._abs_sum is not None, "an algorithm reads channels without asking for Wanted.CHANNELS"
        return self._abs_sum / self.tokens

    @property
    def max_abs(self) -> torch.Tensor:
        """The largest |x| of each column, float32 [K]."""
        assert self._abs_max is not None, "an algorithm reads channels without asking for Wanted.CHANNELS"
        return self._abs_max
