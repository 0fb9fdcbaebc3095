"""The forward pass of a decoder, one layer at a time, in plain torch: what calibration and self-generation run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.errors import PlanInfeasible
from toolkit.forward import moe
from toolkit.forward.rotary import Rotary
from toolkit.quant.format import run
from toolkit.quant.product import product
from toolkit.specs import ModelSpec
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

#: Called with the name of a group of linears (specs/parts.py) and the tensor that the group reads, [..., K]; with
#: `attention.keys` and `attention.values` for what the KV cache stores.
Tap = Callable[[str, "torch.Tensor"], None]
#: What a part of a layer makes of its input.
Apply = Callable[[Layer, str, "torch.Tensor"], "torch.Tensor"]
#: What reading a tensor back from the KV cache gives, under the scale that the layer has for it.
Stored = Callable[["torch.Tensor", float], "torch.Tensor"]


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


def apply(layer: Layer, part: str, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a part of a layer makes of float32 inputs, in its own format's arithmetic."""
    linear = layer.linears[part]
    return run(linear, inputs, quant.format_of(linear.algo))


class Decoder:
    """What does not change from layer to layer: rotary tables, norm and activation, and the KV cache's rounding."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        max_length: int,
        device: str = "cpu",
        apply: Apply = apply,
        stored: Stored | None = None,
    ) -> None:
        self.spec, self._apply, self._stored = spec, apply, stored
        self._rotary = Rotary(spec, max_length=max_length, device=device)
        self._activation = _activation(spec.activation)

    def norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return RMSNorm(hidden) * weight."""
        import torch

        variance = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square() / hidden.shape[-1]
        return (hidden * torch.rsqrt(variance + self.spec.norm_eps)).mul_(weight)

    def logits(self, hidden: torch.Tensor, norm: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Return float32 logits of final hidden states, for the float32 norm weight and head [vocab, hidden]."""
        return _capped(product(self.norm(hidden, norm), head), self.spec.logit_softcap)

    def layer(
        self, layer: Layer, hidden: torch.Tensor, *, tap: Tap = no_tap, cache: KVCache | None = None, start: int = 0
    ) -> torch.Tensor:
        """Return the layer's output for hidden states [batch, length, hidden] at positions start, start+1, ..."""
        norms = layer.tensors
        attended = self._attention(layer, self.norm(hidden, norms["input_layernorm"]), tap, cache, start)
        if not self.spec.has_sandwich_norms:
            hidden = hidden + attended
            return hidden + self._mlp(layer, self.norm(hidden, norms["post_layernorm"]), tap)
        hidden = hidden + self.norm(attended, norms["post_layernorm"])
        inner = self._mlp(layer, self.norm(hidden, norms["pre_feedforward_layernorm"]), tap)
        return hidden + self.norm(inner, norms["post_feedforward_layernorm"])

    def _mlp(self, layer: Layer, inputs: torch.Tensor, tap: Tap) -> torch.Tensor:
        if self.spec.is_moe_layer(layer.index):
            return moe.mixture(self.spec, layer, inputs, gated=self._gated, tap=tap)
        return self._gated(layer, "mlp.", inputs, tap)

    def _gated(self, layer: Layer, prefix: str, inputs: torch.Tensor, tap: Tap) -> torch.Tensor:
        tap(f"{prefix}fc", inputs)
        inner = self._activation(self._apply(layer, f"{prefix}fc", inputs))
        inner = inner.mul_(self._apply(layer, f"{prefix}gate", inputs))
        tap(f"{prefix}proj", inner)
        return self._apply(layer, f"{prefix}proj", inner)

    def _attention(  # noqa: PLR0917 - the pieces of one sum
        self, layer: Layer, inputs: torch.Tensor, tap: Tap, cache: KVCache | None, start: int
    ) -> torch.Tensor:
        tap("attention.qkv", inputs)
        queries, keys, values = (self._heads(layer, part, inputs) for part in "qkv")
        if self.spec.has_qk_norm:
            queries = self.norm(queries, layer.tensors["attention.q_layernorm"])
            keys = self.norm(keys, layer.tensors["attention.k_layernorm"])
        is_local = self.spec.window_of(layer.index) is not None
        queries, keys = (self._rotary.turned(heads, start, is_local=is_local) for heads in (queries, keys))
        tap("attention.keys", keys)
        tap("attention.values", values)
        if self._stored is not None:
            keys = self._stored(keys, layer.scalars["attention.k_scale"])
            values = self._stored(values, layer.scalars["attention.v_scale"])
        if cache is not None:
            keys, values = cache.extended(keys, values)
        context = self._attended(queries, keys, values, window=self.spec.window_of(layer.index))
        context = context.transpose(1, 2).flatten(2)
        tap("attention.dense", context)
        return self._apply(layer, "attention.dense", context)

    def _heads(self, layer: Layer, part: str, inputs: torch.Tensor) -> torch.Tensor:
        """Return queries, keys or values, [batch, heads, length, head_dim]."""
        flat = self._apply(layer, f"attention.{part}", inputs)
        return flat.view(*flat.shape[:2], -1, self.spec.head_dim).transpose(1, 2)

    def _attended(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, window: int | None
    ) -> torch.Tensor:
        import torch

        scale = self.spec.attention_scale or self.spec.head_dim**-0.5
        length, total = queries.shape[2], keys.shape[2]
        is_causal = length == total and (window is None or window >= total)
        if self.spec.attention_softcap is None:
            mask = None if is_causal else _mask(length, total, window, keys.device)
            return torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=True
            )
        mask = _mask(length, total, window, keys.device)
        repeats = queries.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(repeats, dim=1), values.repeat_interleave(repeats, dim=1)
        scores = _capped(queries @ keys.transpose(2, 3) * scale, self.spec.attention_softcap)
        return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1) @ values


def _mask(length: int, total: int, window: int | None, device: torch.device) -> torch.Tensor:
    import torch

    query = torch.arange(total - length, total, device=device).unsqueeze(1)
    key = torch.arange(total, device=device).unsqueeze(0)
    mask = key <= query
    if window:
        mask &= key > query - window
    return mask


def _capped(values: torch.Tensor, cap: float | None) -> torch.Tensor:
    return values if cap is None else (values / cap).tanh() * cap


def _activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    def tanh_gelu(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(values, approximate="tanh")

    known: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "silu": torch.nn.functional.silu,
        "swish": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "gelu_pytorch_tanh": tanh_gelu,
    }
    if name in known:
        return known[name]
    raise PlanInfeasible(f"trtk does not know the activation {name!r}; it knows {', '.join(known)}.")
