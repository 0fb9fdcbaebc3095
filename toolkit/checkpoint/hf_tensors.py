"""What a unified Hugging Face checkpoint holds of a decoder layer: Hugging Face's names, ModelOpt's scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.models import TensorNames, parts
from toolkit.models.parts import small_names, tensors_of
from toolkit.quant.float16 import as_dtype
from toolkit.quant.formats import w8a16
from toolkit.specs import ConversionPlan, ModelSpec
from toolkit.weights import Layer, Linear, joined_rows

if TYPE_CHECKING:
    import torch

#: Formats of which loaders read input factors for o_proj and down_proj alone: what reads a norm has them in the norm.
FOLDED = {"W4A16_AWQ", "W4A8_AWQ"}
KV_SCALES = {"attention.k_scale": "k_proj.k_scale", "attention.v_scale": "v_proj.v_scale"}


def layer_tensors(plan: ConversionPlan, names: TensorNames, layer: Layer) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) of all of a layer, under its Hugging Face names."""
    import torch

    dtype: torch.dtype = getattr(torch, plan.dtype)
    prefix = names.layer.format(index=layer.index)
    linears, tensors = with_folded_norms(plan.model, layer)
    for name, members in tensors_of(plan.model, names, layer.index).items():
        joined = joined_rows([linears[part] for part in members])
        for field, tensor in _linear_tensors(joined, dtype, f"{prefix}{name}"):
            yield f"{prefix}{name}.{field}", tensor
    for module, name in small_names(plan.model, names, layer.index).items():
        offset = plan.model.norm_offset if module in names.norms else 0.0
        yield f"{prefix}{name}.weight", as_dtype(tensors[module] - offset, dtype, f"{prefix}{name}")
    attention = names.linears["attention.q"].rpartition(".")[0]
    for scalar, value in layer.scalars.items():
        yield f"{prefix}{attention}.{KV_SCALES[scalar]}", torch.tensor(value, dtype=torch.float32)


def with_folded_norms(spec: ModelSpec, layer: Layer) -> tuple[dict[str, Linear], dict[str, torch.Tensor]]:
    """Return linears and small tensors with the input factors of what reads a norm multiplied into that norm.

    A mixture's router reads the same norm as the experts do, so their factors stay with them.
    """
    linears, tensors = dict(layer.linears), dict(layer.tensors)
    norm_of = {"attention.qkv": "input_layernorm"}
    if not spec.is_moe_layer(layer.index):
        norm_of["mlp.fc"] = "pre_feedforward_layernorm" if spec.has_sandwich_norms else "post_layernorm"
    for group, norm in norm_of.items():
        members = parts.groups(spec, layer.index)[group]
        first = linears[members[0]]
        if first.algo not in FOLDED or first.prequant is None:
            continue
        tensors[norm] = tensors[norm] * first.prequant.float()
        linears |= {part: dataclasses.replace(linears[part], prequant=None) for part in members}
    return linears, tensors


def _linear_tensors(linear: Linear, dtype: torch.dtype, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    form = quant.format_of(linear.algo)
    if linear.algo == w8a16.FORMAT.algo:  # nobody rounds a unified checkpoint when it is loaded
        integers, scales = w8a16.rounded(linear.weight)
        linear = dataclasses.replace(linear, weight=integers, weight_scale=scales.squeeze(1))
    for field, hf_name in form.hf_names.items():
        tensor: torch.Tensor | None = getattr(linear, field)
        if tensor is None:
            continue
        if field == "weight":
            packed = form.pack(tensor)
            is_packed = packed.dtype == torch.int8 and packed.shape != tensor.shape
            tensor = packed.view(torch.uint8) if is_packed else packed
        elif field == "bias":
            tensor = as_dtype(tensor, dtype, f"{name}.bias")
        yield hf_name, tensor
