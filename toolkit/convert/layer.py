"""One decoder layer in memory: its tensors by TensorRT-LLM module, read from Hugging Face shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.convert.shards import Shards
from toolkit.errors import BuildError
from toolkit.models import TensorNames
from toolkit.specs import ModelSpec

if TYPE_CHECKING:
    import torch

#: Linears that read the same tensor, in the order in which a decoder layer runs them.
SHARED_INPUTS = (("attention.qkv",), ("attention.dense",), ("mlp.fc", "mlp.gate"), ("mlp.proj",))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """float32 weights [N, K]; fused modules are the parts, concatenated on N."""

    index: int
    weights: Mapping[str, torch.Tensor]
    part_rows: Mapping[str, tuple[int, ...]]
    biases: Mapping[str, torch.Tensor]
    norms: Mapping[str, torch.Tensor]


def load(shards: Shards, names: TensorNames, spec: ModelSpec, *, index: int, device: str) -> Layer:
    """Read one layer; raises BuildError when a tensor is missing, misshapen or not finite."""
    import torch

    prefix = names.layer.format(index=index)

    def read(name: str) -> torch.Tensor:
        return shards.tensor(prefix + name).to(device, torch.float32)

    weights, part_rows, biases = {}, {}, {}
    expected = linear_shapes(spec)
    for module, parts in names.linears.items():
        tensors = [read(f"{part}.weight") for part in parts]
        weights[module] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        part_rows[module] = tuple(tensor.shape[0] for tensor in tensors)
        if tuple(weights[module].shape) != expected[module]:
            raise BuildError(
                f"Layer {index}'s {module} has shape {tuple(weights[module].shape)}, "
                f"but config.json says {expected[module]}.",
                hint="config.json and the weights are of different models.",
            )
        if f"{prefix}{parts[0]}.bias" in shards:
            biases[module] = torch.cat([read(f"{part}.bias") for part in parts])
    norms = {module: read(f"{name}.weight") for module, name in names.norms.items()}
    return Layer(index=index, weights=weights, part_rows=part_rows, biases=biases, norms=norms)


def linear_shapes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Return [N, K] of every linear of a dense gated decoder layer."""
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    return {
        "attention.qkv": (queries + 2 * keys, spec.hidden_size),
        "attention.dense": (spec.hidden_size, queries),
        "mlp.fc": (spec.intermediate_size, spec.hidden_size),
        "mlp.gate": (spec.intermediate_size, spec.hidden_size),
        "mlp.proj": (spec.hidden_size, spec.intermediate_size),
    }
