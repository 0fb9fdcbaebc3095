"""One linear as it is stored, unpacked and whole; cut along its rows or columns, and joined again.

A scale's shape says what it belongs to: [] to the linear, [N] or [N, K/g] to rows (and groups of columns), [N/b, K/b]
to square blocks. Cutting the weight cuts each scale where it has that dimension.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x W' + b in one of the formats of quant/formats.

    `weight` is [N, K], one element a weight: float, int8 integers (4-bit ones too), float8_e4m3fn, uint8 codes of E2M1.
    """

    weight: torch.Tensor
    algo: str | None = None  # TensorRT-LLM's quant_algo; None: a float weight
    weight_scale: torch.Tensor | None = None  # [], [N], [N, K/g] or [N/b, K/b]
    weight_scale_2: torch.Tensor | None = None  # [], scale of the scales
    activation_scale: torch.Tensor | None = None  # [], static
    prequant: torch.Tensor | None = None  # [K], the input is multiplied by it
    bias: torch.Tensor | None = None  # [N]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return (self.weight.shape[0], self.weight.shape[1])

    def to(self, device: str) -> Linear:
        """Return the linear with every tensor on a device."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "algo"}
        return dataclasses.replace(
            self, **{name: tensor.to(device) for name, tensor in fields.items() if tensor is not None}
        )


def rows(linear: Linear, start: int, stop: int) -> Linear:
    """Return the outputs start..stop of a linear, with their scales and biases."""
    total = linear.weight.shape[0]
    scale = linear.weight_scale
    if scale is not None and scale.dim() > 0:
        scale = _cut(scale, 0, total=total, start=start, stop=stop)
    bias = None if linear.bias is None else linear.bias[start:stop]
    return dataclasses.replace(linear, weight=linear.weight[start:stop], weight_scale=scale, bias=bias)


def split_rows(linear: Linear, sizes: Mapping[str, int]) -> dict[str, Linear]:
    """Return consecutive rows of a linear by name; the inverse of `joined_rows`."""
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = rows(linear, start, start + size)
        start += size
    return found


def columns(linear: Linear, start: int, stop: int) -> Linear:
    """Return a linear of the inputs start..stop; its bias stays whole."""
    total = linear.weight.shape[1]
    scale, prequant = linear.weight_scale, linear.prequant
    if scale is not None and scale.dim() > 1:
        scale = _cut(scale, 1, total=total, start=start, stop=stop)
    if prequant is not None:
        prequant = prequant[start:stop]
    return dataclasses.replace(linear, weight=linear.weight[:, start:stop], weight_scale=scale, prequant=prequant)


def joined_rows(parts: Sequence[Linear]) -> Linear:
    """Return one linear with the outputs of all parts; what is not per row must be equal in all of them."""
    import torch

    first = parts[0]
    if len(parts) == 1:
        return first
    for name in ("weight_scale_2", "activation_scale", "prequant"):
        values = [getattr(part, name) for part in parts]
        assert all((value is None) == (values[0] is None) for value in values), name
        assert values[0] is None or all(torch.equal(value, values[0]) for value in values), f"{name} differs"
    scale = first.weight_scale
    if scale is not None and scale.dim() > 0:
        scale = _joined([part.weight_scale for part in parts if part.weight_scale is not None])
    elif scale is not None:
        assert all(torch.equal(scale, part.weight_scale) for part in parts if part.weight_scale is not None)
    biases = [part.bias for part in parts if part.bias is not None]
    return dataclasses.replace(
        first,
        weight=_joined([part.weight for part in parts]),
        weight_scale=scale,
        bias=torch.cat(biases) if biases else None,
    )


def joined_columns(parts: Sequence[Linear]) -> Linear:
    """Return one linear of the inputs of all parts, the inverse of `columns`; what belongs to rows is the first's."""
    import torch

    first = parts[0]
    scale, prequant = first.weight_scale, first.prequant
    if scale is not None and scale.dim() > 1:
        scale = _joined([part.weight_scale for part in parts if part.weight_scale is not None], dim=1)
    if prequant is not None:
        prequant = torch.cat([part.prequant for part in parts if part.prequant is not None])
    weight = _joined([part.weight for part in parts], dim=1)
    return dataclasses.replace(first, weight=weight, weight_scale=scale, prequant=prequant)


def _joined(tensors: Sequence[torch.Tensor], *, dim: int = 0) -> torch.Tensor:
    import torch

    if tensors[0].dtype == torch.float8_e4m3fn:  # torch has no cat for it
        return torch.cat([tensor.view(torch.uint8) for tensor in tensors], dim).view(torch.float8_e4m3fn)
    return torch.cat(list(tensors), dim)


def _cut(scale: torch.Tensor, dim: int, *, total: int, start: int, stop: int) -> torch.Tensor:
    """Cut a scale whose dimension DIM has an entry for each `step` of TOTAL."""
    assert total % scale.shape[dim] == 0, f"{scale.shape[dim]} blocks of {total} are not of one size"
    step = total // scale.shape[dim]
    assert start % step == stop % step == 0, f"a cut at {start} or {stop} falls inside a block of {step}"
    return scale.narrow(dim, start // step, (stop - start) // step)
