"""The linears of a decoder layer (specs/parts.py), and the Hugging Face tensor that holds each."""

from __future__ import annotations

from toolkit.models.family import TensorNames
from toolkit.specs.parts import EXPERT, MLP, SHARED_EXPERT, groups, modules, shapes

__all__ = ["EXPERT", "MLP", "SHARED_EXPERT", "groups", "modules", "shapes", "tensor_name"]


def tensor_name(names: TensorNames, part: str) -> str:
    """Return the Hugging Face module, below the layer, that holds a part."""
    if part.startswith("mlp.experts."):
        _, _, expert, name = part.split(".")
        return names.expert[name].format(expert=expert)
    if part.startswith(SHARED_EXPERT):
        return names.shared_expert[part.removeprefix(SHARED_EXPERT)]
    return names.linears[part]
