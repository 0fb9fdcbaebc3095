"""The linears of a decoder layer (specs/parts.py), and the Hugging Face tensor that holds each."""

from __future__ import annotations

from toolkit.models.family import TensorNames
from toolkit.specs import ModelSpec
from toolkit.specs.parts import EXPERT, MLP, SHARED_EXPERT, groups, modules, shapes

__all__ = ["EXPERT", "MLP", "SHARED_EXPERT", "groups", "modules", "shapes", "small_names", "tensor_name", "tensors_of"]


def tensor_name(names: TensorNames, part: str) -> str:
    """Return the Hugging Face module, below the layer, that holds a part."""
    if part.startswith("mlp.experts."):
        _, _, expert, name = part.split(".")
        return names.expert[name].format(expert=expert)
    if part.startswith(SHARED_EXPERT):
        return names.shared_expert[part.removeprefix(SHARED_EXPERT)]
    return names.linears[part]


def tensors_of(spec: ModelSpec, names: TensorNames, layer: int) -> dict[str, list[str]]:
    """Return Hugging Face's linears of a layer, and the parts that each holds, in order."""
    found: dict[str, list[str]] = {}
    for part in shapes(spec, layer):
        found.setdefault(tensor_name(names, part), []).append(part)
    return found


def small_names(spec: ModelSpec, names: TensorNames, layer: int) -> dict[str, str]:
    """Return the Hugging Face modules of a layer's norms, router and shared expert's gate, by our names."""
    if not spec.is_moe_layer(layer):
        return dict(names.norms)
    routers = {"mlp.router": names.router, "mlp.shared_expert_gate": names.shared_expert_gate}
    return {**names.norms, **{ours: name for ours, name in routers.items() if name}}
