"""What one rank of a TensorRT-LLM checkpoint holds of a decoder layer: names below the layer, and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint import sharding
from toolkit.models import parts
from toolkit.quant.float16 import as_dtype
from toolkit.specs import ConversionPlan
from toolkit.weights import Layer, Linear, joined_rows

if TYPE_CHECKING:
    import torch

#: What stays in float32 whatever the model's dtype.
FLOAT32_TENSORS = {"mlp.router"}
KV_SCALE = "attention.kv_cache_scaling_factor"
#: Fields of a Linear that belong to the whole of it.
SCALARS = {"weight_scale", "weight_scale_2", "activation_scale"}


def layer_tensors(plan: ConversionPlan, layer: Layer, *, tp_rank: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name below the layer, tensor) of all that a tensor rank holds of a layer."""
    import torch

    dtype: torch.dtype = getattr(torch, plan.dtype)
    stacks: dict[str, list[Linear]] = {}
    for module, names in parts.modules(plan.model, layer.index).items():
        held = [sharding.local_part(plan.model, plan.sharding, n, layer.linears[n], tp_rank=tp_rank) for n in names]
        here = [linear for linear in held if linear is not None]
        if here and module.startswith("mlp.experts."):
            stacks.setdefault(f"mlp.{module.rpartition('.')[2]}", []).append(joined_rows(here))
        elif here:
            yield from _linear_tensors(module, joined_rows(here), dtype)
    for module, experts in stacks.items():
        yield from _stacked_tensors(module, experts, dtype)
    for name, tensor in layer.tensors.items():
        is_kept = name in FLOAT32_TENSORS
        yield f"{name}.weight", tensor if is_kept else as_dtype(tensor, dtype, f"{name} of layer {layer.index}")
    if layer.scalars:
        # One scale serves keys and values: the engine has no place for two.
        yield KV_SCALE, torch.tensor([max(layer.scalars.values())], dtype=torch.float32)


def _linear_tensors(module: str, linear: Linear, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    form = quant.format_of(linear.algo)
    for field, name in form.trtllm_names.items():
        tensor = _as_stored(field, linear, dtype, module)
        if tensor is not None:
            yield f"{module}.{name}", tensor


def _stacked_tensors(module: str, experts: Sequence[Linear], dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a mixture's tensors, [E, ...]; the MoE plugin takes one input scale for all experts."""
    import torch

    form = quant.format_of(experts[0].algo)
    for field, name in form.trtllm_names.items():
        found = [_as_stored(field, linear, dtype, module) for linear in experts]
        tensors = [tensor for tensor in found if tensor is not None]
        if not tensors:
            continue
        assert len(tensors) == len(experts), f"only some experts of {module} have {field}"
        if field == "activation_scale":
            yield f"{module}.{name}", torch.stack(tensors).max().reshape(1)
        else:
            yield f"{module}.{name}", _stacked(tensors)


def _as_stored(field: str, linear: Linear, dtype: torch.dtype, module: str) -> torch.Tensor | None:
    form = quant.format_of(linear.algo)
    tensor: torch.Tensor | None = getattr(linear, field)
    if tensor is None:
        return None
    if field == "weight":
        return form.pack(tensor)
    if field == "bias":
        return as_dtype(tensor, dtype, f"{module}.bias")
    is_scalar = field in SCALARS and tensor.dim() == 0
    return tensor.reshape(form.trtllm_scalar_shape) if is_scalar else tensor


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    if tensors[0].dtype == torch.float8_e4m3fn:  # torch has no stack for it
        return torch.stack([tensor.view(torch.uint8) for tensor in tensors]).view(torch.float8_e4m3fn)
    return torch.stack(list(tensors))
