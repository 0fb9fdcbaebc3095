"""E4M3 weights: by tensor (AutoFP8), by row (FBGEMM) or in squares of 128 (DeepSeek, transformers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint import stored_float8
from toolkit.checkpoint.stored import Kind, SourceMethod

if TYPE_CHECKING:
    from toolkit.checkpoint.shards import Shards
    from toolkit.weights import Linear


class Fp8Reader:
    """Reads linears whose weight is E4M3."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        block = config.get("weight_block_size")
        self.block = (int(block[0]), int(block[1])) if block else None
        self.title = f"FP8 in blocks of {self.block[0]} x {self.block[1]}" if self.block else "FP8"

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return what the scales say."""
        return stored_float8.kind(shards, module, self.block) if stored_float8.is_float8(shards, module) else None

    def read(self, shards: Shards, module: str) -> Linear:
        """Return the stored weight and its scales."""
        return stored_float8.read(shards, module, self.block)


SOURCE = SourceMethod(name="fp8", aliases=("fbgemm_fp8",), open=Fp8Reader)
