"""What a quantization algorithm is to the converter: a recipe, and a function on linears that share an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.quant.statistics import Wanted
from toolkit.specs import QuantRecipe
from toolkit.specs.parts import by_module
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics


@dataclass(frozen=True, kw_only=True)
class LinearGroup:
    """Linears of one layer that read the same input: q, k and v; fc and gate; dense alone; all experts' proj.

    `weights` are [N, K] by part, in the source's dtype: cast to float32 before computing, in row blocks where the
    group is large.
    """

    layer: int
    name: str  # of specs/parts.py: attention.qkv
    weights: Mapping[str, torch.Tensor]
    statistics: InputStatistics | None

    @property
    def modules(self) -> list[dict[str, torch.Tensor]]:
        """The weights that an engine fuses into one module: q, k and v; fc and gate of the same expert."""
        return by_module(self.weights)

    def voters(self, count: int) -> torch.Tensor:
        """Return about COUNT rows of all parts together, evenly spread, float32: those that a search is scored on."""
        import torch

        step = max(1, sum(weight.shape[0] for weight in self.weights.values()) // count)
        return torch.cat([weight[::step].float() for weight in self.weights.values()])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a recipe leaves open."""

    dtype: torch.dtype  # of prequant factors and of what is not quantized
    group_size: int | None


#: Returns a Linear for each part of a group, without bias. Parts of a group share prequant and activation_scale.
Quantize = Callable[[LinearGroup, Settings], dict[str, Linear]]


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One module of quant/algorithms; `wanted` says which input statistics `quantize` reads."""

    recipe: QuantRecipe
    quantize: Quantize
    wanted: Wanted = Wanted.NOTHING
