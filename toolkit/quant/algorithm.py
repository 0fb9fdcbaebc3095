"""What a quantization algorithm is to the converter: a recipe, and a function on linears that share an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.specs import QuantRecipe

if TYPE_CHECKING:
    import torch

    from toolkit.quant.statistics import InputStatistics


@dataclass(frozen=True, kw_only=True)
class LinearGroup:
    """Linears of one layer that read the same input: q/k/v as one module, fc and gate, dense alone, proj alone.

    `weights` are float32 [N, K] by module name (below the layer); `part_rows` gives the rows of each concatenated part.
    """

    weights: Mapping[str, torch.Tensor]
    part_rows: Mapping[str, tuple[int, ...]]
    statistics: InputStatistics | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a recipe leaves open."""

    dtype: torch.dtype  # of prequant factors and of what is not quantized
    group_size: int | None


#: Returns the checkpoint tensors of a group, named below the layer: `mlp.fc.weight`, `mlp.fc.weights_scaling_factor`.
Quantize = Callable[[LinearGroup, Settings], dict[str, "torch.Tensor"]]


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One module of quant/algorithms."""

    recipe: QuantRecipe
    quantize: Quantize
