"""What calibration remembers of a linear's input."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch

#: Columns that one product adds to the second moment: wide enough for a fast product, narrow enough to skip the half
#: that symmetry gives for nothing.
PANEL_COLUMNS = 256


class Wanted(enum.IntFlag):
    """Which statistics an algorithm reads: the second moment is a [K, K] matrix and costs a product per token."""

    NOTHING = 0
    AMAX = 1  # of the whole input
    CHANNELS = 2  # mean magnitude, mean square and largest magnitude of each column
    GRAM = 4


class InputStatistics:
    """Running statistics of inputs [tokens, K]."""

    def __init__(self, name: str, wanted: Wanted) -> None:
        self.name, self.wanted = name, wanted
        self.tokens = 0
        self.amax = 0.0
        self._gram: torch.Tensor | None = None  # of finished columns only the lower triangle, until it is read
        self._is_gram_read = False
        self._abs_sum: torch.Tensor | None = None
        self._square_sum: torch.Tensor | None = None
        self._abs_max: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor) -> None:
        """Add float32 inputs of shape [..., K]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if not flat.shape[0]:
            return
        lowest, highest = flat.aminmax()
        amax = max(-float(lowest), float(highest))
        if not amax < float("inf"):  # also catches NaN
            raise BuildError(
                f"The input of {self.name} becomes NaN or Inf during calibration.", hint="Check the weights."
            )
        self.amax = max(self.amax, amax)
        self.tokens += flat.shape[0]
        if Wanted.CHANNELS & self.wanted:
            self._add_channels(flat)
        if Wanted.GRAM & self.wanted:
            self._add_products(flat)

    def _add_channels(self, flat: torch.Tensor) -> None:
        import torch

        if self._abs_sum is None or self._abs_max is None or self._square_sum is None:
            self._abs_sum, self._abs_max, self._square_sum = torch.zeros(3, flat.shape[1], device=flat.device)
        magnitudes = flat.abs()
        self._abs_sum += magnitudes.sum(0)
        self._abs_max = torch.maximum(self._abs_max, magnitudes.amax(0))
        self._square_sum += magnitudes.square_().sum(0)

    def _add_products(self, flat: torch.Tensor) -> None:
        import torch

        assert not self._is_gram_read, "the second moment was read already"
        if self._gram is None:
            self._gram = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
        for start in range(0, flat.shape[1], PANEL_COLUMNS):
            stop = min(start + PANEL_COLUMNS, flat.shape[1])
            self._gram[start:, start:stop].addmm_(flat[:, start:].T, flat[:, start:stop])

    @property
    def gram(self) -> torch.Tensor:
        """E[x x'], float32 [K, K], with correlations shrunk by tokens/(tokens + K); not to be written to.

        A sample of few tokens shows correlations that other text does not have; without shrinking, rounding would
        lean on them (the idea of Ledoit and Wolf's shrinkage estimator, doi:10.1016/S0047-259X(03)00096-4).
        """
        assert self._gram is not None, "an algorithm reads the second moment without asking for Wanted.GRAM"
        if not self._is_gram_read:
            self._is_gram_read = True
            columns = self._gram.shape[0]
            for start in range(0, columns, PANEL_COLUMNS):
                stop = start + PANEL_COLUMNS
                self._gram[start:stop, stop:] = self._gram[stop:, start:stop].T
            diagonal = self._gram.diagonal() / self.tokens
            self._gram /= self.tokens + columns
            self._gram.diagonal().copy_(diagonal)
        return self._gram

    def output_error(self, change: torch.Tensor) -> torch.Tensor:
        """Return the summed mean squared error that a change [n, K] of the weight makes in the output, float32 []."""
        import torch

        gram, columns = self.gram, change.shape[1]
        total = torch.zeros((), device=change.device)
        for start in range(0, columns, PANEL_COLUMNS):  # products below the diagonal count for those above
            stop = min(start + PANEL_COLUMNS, columns)
            own = change[:, start:stop]
            total += (own @ gram[start:stop, start:stop]).mul_(own).sum()
            total += 2 * (change[:, stop:] @ gram[stop:, start:stop]).mul_(own).sum()
        return total

    @property
    def mean_abs(self) -> torch.Tensor:
        """E[|x|], float32 [K]."""
        assert self._abs_sum is not None, "an algorithm reads channels without asking for Wanted.CHANNELS"
        return self._abs_sum / self.tokens

    @property
    def mean_square(self) -> torch.Tensor:
        """E[x^2], float32 [K]."""
        assert self._square_sum is not None, "an algorithm reads channels without asking for Wanted.CHANNELS"
        return self._square_sum / self.tokens

    @property
    def max_abs(self) -> torch.Tensor:
        """The largest |x| of each column, float32 [K]."""
        assert self._abs_max is not None, "an algorithm reads channels without asking for Wanted.CHANNELS"
        return self._abs_max


def diagonal_blocks(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """Return the [K/g, g, g] blocks on the diagonal of a [K, K] matrix."""
    import torch

    return torch.stack([matrix[i : i + size, i : i + size] for i in range(0, matrix.shape[0], size)])
