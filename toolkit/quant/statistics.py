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
        """E[x x'], float32 [K, K], with correlations shrunk by tokens/(tokens + K).

        A sample of few tokens shows correlations that other text does not have; without shrinking, rounding would
        lean on them (the idea of Ledoit and Wolf's shrinkage estimator, doi:10.1016/S0047-259X(03)00096-4).
        """
        import torch

        assert self._gram is not None, "statistics are read before any input was added"
        gram = self._gram / self.tokens
        kept = self.tokens / (self.tokens + gram.shape[0])
        return kept * gram + (1 - kept) * torch.diag(gram.diagonal())

    @property
    def mean_abs(self) -> torch.Tensor:
        """E[|x|], float32 [K]."""
        assert self._abs_sum is not None, "statistics are read before any input was added"
        return self._abs_sum / self.tokens
