"""E4M3 weights as Hugging Face checkpoints store them: what the shapes of their scales say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from toolkit.checkpoint.shards import E4M3
from toolkit.checkpoint.stored import Kind
from toolkit.errors import BuildError
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

    from toolkit.checkpoint.shards import Shards

#: The same factor under three names; all multiply.
WEIGHT_SCALES = ("weight_scale", "weight_scale_inv")
INPUT_SCALES = ("input_scale", "activation_scale")
#: The square of FP8_BLOCK_SCALES.
TRTLLM_BLOCK = (128, 128)
#: Rows and columns that share a scale; None: a whole row or tensor does.
Block = tuple[int, int] | None


def is_float8(shards: Shards, module: str) -> bool:
    """Return whether a module's weight is E4M3; raises BuildError for the other 8-bit floats."""
    name = f"{module}.weight"
    if name not in shards or not shards.dtype(name).startswith("F8"):
        return False
    if shards.dtype(name) != E4M3:
        raise BuildError(
            f"{name} in {shards.folder} has dtype {shards.dtype(name)}; trtk reads {E4M3}.",
            hint="Give the model's original 16-bit weights.",
        )
    return True


def kind(shards: Shards, module: str, block: Block = None) -> Kind:
    """Return FP8 for one scale and a static input scale, and the per-row or per-block format for more."""
    rows, columns = shards.shape(f"{module}.weight")
    name = _scale_name(shards, module)
    shape = shards.shape(name)
    if block:
        if math.prod(shape) != math.prod(_grid(rows, columns, block)):
            raise _misfit(shards, module, f"blocks of {block[0]} x {block[1]}")
        if block != TRTLLM_BLOCK:
            return Kind(algo=None, reason=f"its blocks are {block[0]} x {block[1]}")
        return Kind(algo="FP8_BLOCK_SCALES")
    if math.prod(shape) == 1:
        is_static = _first(shards, module, INPUT_SCALES) is not None
        return Kind(algo="FP8" if is_static else "FP8_PER_CHANNEL_PER_TOKEN")
    if math.prod(shape) != rows:
        raise _misfit(shards, module, "rows")
    return Kind(algo="FP8_PER_CHANNEL_PER_TOKEN")


def read(shards: Shards, module: str, block: Block = None) -> Linear:
    """Return the stored weight with its scales in the shapes that its format has."""
    algo = kind(shards, module, block).algo
    weight, scale = shards.float8(f"{module}.weight"), shards.tensor(_scale_name(shards, module)).float()
    if block:
        grid = scale.reshape(_grid(weight.shape[0], weight.shape[1], block))
        return Linear(algo=algo, weight=weight, weight_scale=grid) if algo else _dequantized(weight, grid, block)
    if algo == "FP8":
        static = _first(shards, module, INPUT_SCALES)
        assert static, "kind() looked"
        inputs = shards.tensor(static).float().max()
        return Linear(algo=algo, weight=weight, weight_scale=scale.reshape(()), activation_scale=inputs)
    return Linear(algo=algo, weight=weight, weight_scale=scale.reshape(-1).expand(weight.shape[0]).contiguous())


def _grid(rows: int, columns: int, block: tuple[int, int]) -> tuple[int, int]:
    return -(-rows // block[0]), -(-columns // block[1])


def _dequantized(weight: torch.Tensor, grid: torch.Tensor, block: tuple[int, int]) -> Linear:
    factors = grid.repeat_interleave(block[0], dim=0)[: weight.shape[0]]
    return Linear(weight=weight.float() * factors.repeat_interleave(block[1], dim=1)[:, : weight.shape[1]])


def _scale_name(shards: Shards, module: str) -> str:
    name = _first(shards, module, WEIGHT_SCALES)
    if name is None:
        raise BuildError(
            f"{module}.weight in {shards.folder} is {E4M3}, but has no {' or '.join(WEIGHT_SCALES)}.",
            hint="The download is incomplete, or config.json belongs to another model.",
        )
    return name


def _misfit(shards: Shards, module: str, what: str) -> BuildError:
    name = _scale_name(shards, module)
    return BuildError(
        f"{name} in {shards.folder} has shape {shards.shape(name)}, which does not fit {what} of a weight of "
        f"{shards.shape(f'{module}.weight')}.",
        hint="config.json and the weights are of different models.",
    )


def _first(shards: Shards, module: str, names: Iterable[str]) -> str | None:
    return next((f"{module}.{name}" for name in names if f"{module}.{name}" in shards), None)
