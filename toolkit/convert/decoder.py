"""The forward pass of a decoder, one layer at a time, in plain torch: what calibration and self-generation run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.convert.layer import Layer
from toolkit.errors import PlanInfeasible
from toolkit.rope import inverse_frequencies
from toolkit.specs import ModelSpec

if TYPE_CHECKING:
    import torch

#: Called with the first module of SHARED_INPUTS' group and the tensor that the group reads, [batch, length, K].
Tap = Callable[[str, "torch.Tensor"], None]


def no_tap(module: str, inputs: torch.Tensor) -> None:
    """Watch nothing."""


class KVCache:
    """Keys and values of one layer, [batch, kv_heads, length, head_dim], grown by concatenation."""

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def extended(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append and return everything so far."""
        import torch

        self.keys = keys if self.keys is None else torch.cat((self.keys, keys), dim=2)
        self.values = values if self.values is None else torch.cat((self.values, values), dim=2)
        return self.keys, self.values


class Decoder:
    """What does not change from layer to layer: rotary tables, norm and activation."""

    def __init__(self, spec: ModelSpec, *, max_length: int, device: str = "cpu") -> None:
        import torch

        self.spec = spec
        frequencies = torch.tensor(inverse_frequencies(spec.head_dim, spec.rope_theta, spec.rope_scaling))
        angles = torch.outer(torch.arange(max_length).float(), frequencies).to(device)
        self._cos = torch.cat((angles.cos(), angles.cos()), dim=-1)
        self._sin = torch.cat((angles.sin(), angles.sin()), dim=-1)
        self._activation = _activation(spec.activation)

    def norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return RMSNorm(hidden) * weight."""
        import torch

        variance = hidden.pow(2).mean(-1, keepdim=True)
        return hidden * torch.rsqrt(variance + self.spec.norm_eps) * weight

    def layer(
        self, layer: Layer, hidden: torch.Tensor, *, tap: Tap = no_tap, cache: KVCache | None = None, start: int = 0
    ) -> torch.Tensor:
        """Return the layer's output for hidden states [batch, length, hidden] at positions start, start+1, ..."""
        attended = self._attention(layer, self.norm(hidden, layer.norms["input_layernorm"]), tap, cache, start)
        hidden = hidden + attended
        inputs = self.norm(hidden, layer.norms["post_layernorm"])
        tap("mlp.fc", inputs)
        inner = self._activation(_linear(layer, "mlp.fc", inputs)) * _linear(layer, "mlp.gate", inputs)
        tap("mlp.proj", inner)
        return hidden + _linear(layer, "mlp.proj", inner)

    def _attention(  # noqa: PLR0917 - the pieces of one sum
        self, layer: Layer, inputs: torch.Tensor, tap: Tap, cache: KVCache | None, start: int
    ) -> torch.Tensor:
        import torch

        spec = self.spec
        batch, length, _ = inputs.shape
        tap("attention.qkv", inputs)
        heads = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        fused = _linear(layer, "attention.qkv", inputs).view(batch, length, sum(heads), spec.head_dim)
        queries, keys, values = (part.transpose(1, 2) for part in fused.split(heads, dim=2))
        queries, keys = self._rotated(queries, start), self._rotated(keys, start)
        if cache is not None:
            keys, values = cache.extended(keys, values)
        context = torch.nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._mask(length, keys.shape[2], inputs.device), enable_gqa=True
        )
        context = context.transpose(1, 2).reshape(batch, length, -1)
        tap("attention.dense", context)
        return _linear(layer, "attention.dense", context)

    def _mask(self, length: int, total: int, device: torch.device) -> torch.Tensor:
        import torch

        query = torch.arange(total - length, total, device=device).unsqueeze(1)
        key = torch.arange(total, device=device).unsqueeze(0)
        mask = key <= query
        if self.spec.sliding_window:
            mask &= key > query - self.spec.sliding_window
        return mask

    def _rotated(self, heads: torch.Tensor, start: int) -> torch.Tensor:
        import torch

        cos, sin = (table[start : start + heads.shape[2]] for table in (self._cos, self._sin))
        first, second = heads.chunk(2, dim=-1)
        return heads * cos + torch.cat((-second, first), dim=-1) * sin


def _linear(layer: Layer, module: str, inputs: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.linear(inputs, layer.weights[module], layer.biases.get(module))


def _activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    if name in {"silu", "swish"}:
        silu: Callable[[torch.Tensor], torch.Tensor] = torch.nn.functional.silu
        return silu
    raise PlanInfeasible(f"trtk does not know the activation {name!r}; it knows silu.")
