"""AutoAWQ: qweight int32 [K, N/8], qzeros int32 [K/g, N/8], scales float16 [K/g, N]; w = (q - z) * s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint import packed
from toolkit.checkpoint.stored import Kind, SourceMethod
from toolkit.errors import PlanInfeasible
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

    from toolkit.checkpoint.shards import Shards

#: Where each of eight neighbouring columns is among the nibbles of its word.
NIBBLE_OF_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)
MIDDLE, ALGO = 8, "W4A16_AWQ"


class AwqReader:
    """Reads linears of AutoAWQ's `gemm` layout."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        bits = int(config.get("bits") or config.get("w_bit") or 4)
        version = str(config.get("version") or "gemm").lower()
        if bits != 4 or version != "gemm":
            raise PlanInfeasible(
                "trtk reads AutoAWQ checkpoints of 4 bits in the `gemm` layout; "
                f"this one says {bits} bits and {version!r}.",
                hint="Give a gemm version, or the original 16-bit weights.",
            )
        self.said = int(config.get("group_size") or config.get("q_group_size") or 128)
        self.title = f"AutoAWQ, 4 bits in groups of {self.said}" if self.said > 0 else "AutoAWQ, 4 bits by channel"

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return W4A16_AWQ where every zero point is the middle of the range."""
        if f"{module}.qweight" not in shards:
            return None
        if not packed.is_each(shards.integers(f"{module}.qzeros"), MIDDLE):
            return Kind(algo=None, reason="its zero points are not all 8")
        return Kind(algo=ALGO, group_size=self._group_size(shards, module))

    def read(self, shards: Shards, module: str) -> Linear:
        """Return signed integers with their scales, or the float weight where zero points differ."""
        scales = shards.tensor(f"{module}.scales").float().T.contiguous()
        self._group_size(shards, module)
        integers = _columns_in_order(shards.integers(f"{module}.qweight"))
        zeros = shards.integers(f"{module}.qzeros")
        if packed.is_each(zeros, MIDDLE):
            return Linear(algo=ALGO, weight=packed.centred(integers, MIDDLE), weight_scale=scales)
        return Linear(weight=packed.dequantized(integers, _columns_in_order(zeros), scales))

    def _group_size(self, shards: Shards, module: str) -> int:
        name, inputs = f"{module}.scales", shards.shape(f"{module}.qweight")[0]
        return packed.group_size(shards, name, inputs=inputs, groups=shards.shape(name)[0], said=self.said)


def _columns_in_order(words: torch.Tensor) -> torch.Tensor:
    """Return uint8 [N, rows] of int32 [rows, N/8]."""
    import torch

    turned = words.T.contiguous()
    made = torch.empty(turned.shape[0], 8, turned.shape[1], dtype=torch.uint8)
    for column, nibble in enumerate(NIBBLE_OF_COLUMN):
        made[:, column] = (turned >> (4 * nibble)) & 0x0F
    return made.flatten(0, 1)


SOURCE = SourceMethod(name="awq", open=AwqReader)
